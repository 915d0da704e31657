#!/usr/bin/python3
"""A mail worker: POST /send queues and sends, one at a time. POST /send?to=deadlock takes the queue's lock and never gives it back:
from then on the process lives, listens and does nothing.

mailer.py PORT LOG                        logs plain text lines with a header
"""
import http.server
import sys
import threading
import time

PORT, LOG = int(sys.argv[1]), sys.argv[2]
queue = threading.Lock()


def log(level, message):
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)) + f",{int(now % 1 * 1000):03}"
    with open(LOG, "a") as f:
        f.write(f"{stamp} {level} [worker] {message}\n")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        if not queue.acquire(timeout=0.25):
            log("ERROR", "send queue blocked for 250 ms, the lock is never given back")
            return self.answer(503)
        if "deadlock" in self.path:
            self.answer(202)
            return None  # the fault: the lock stays taken
        queue.release()
        return self.answer(200)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True


log("INFO", "mailer is up")
Server(("127.0.0.1", PORT), Handler).serve_forever()
