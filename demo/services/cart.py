#!/usr/bin/python3
"""A shop's cart service: GET /cart/ID answers from Redis and fills the cache from its "database" when there is nothing cached.

cart.py PORT REDIS_PORT LOG PID_FILE     logs JSON lines, as pino and friends do
"""
import http.server
import json
import os
import socket
import sys
import time

PORT, REDIS_PORT, LOG, PID_FILE = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
DATABASE = {"42": {"items": ["tea", "milk"], "total": 7}}


def redis(*words):
    """One command, one reply (RESP)."""
    with socket.create_connection(("127.0.0.1", REDIS_PORT), 2) as s:
        s.sendall(f"*{len(words)}\r\n".encode() + b"".join(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words))
        reply = s.makefile("rb")
        head = reply.readline()
        if head.startswith(b"$"):
            size = int(head[1:])
            return None if size < 0 else reply.read(size).decode()
        return head[1:].decode().strip()


def log(level, message, **fields):
    with open(LOG, "a") as f:
        f.write(json.dumps({"level": level, "time": int(time.time() * 1000), "service": "cart", "msg": message, **fields}) + "\n")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        key = "cart:" + self.path.rsplit("/", 1)[-1]
        try:
            cached = redis("GET", key)
            if cached is None:
                cached = json.dumps(DATABASE[key.split(":")[1]])
                redis("SET", key, cached)
            self.answer(200, json.loads(cached)["items"])
        except (ValueError, KeyError, TypeError) as e:
            log("error", f"cannot decode {key}: {e}", err={"type": type(e).__name__, "message": str(e)}, http_status=500)
            self.answer(500, "internal error")

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


with open(PID_FILE, "w") as f:
    f.write(str(os.getpid()))
log("info", "cart is up")
http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
