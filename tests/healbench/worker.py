"""A small service that can be broken: worker.py PORT LOG OPTIONS(JSON). One request at a time, so that a hang is a hang for all.
Options: config (file that must hold {"limit": n > 0}), redis / memcached / postgres (port it needs), key (what it reads there), folder
(where it writes a file per request), lock (file lock that a dead process may leave), front (port of the service it asks)."""
import http.client
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

PORT, LOG, OPTIONS = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
state = {"lock": threading.Lock(), "hoard": [], "slow": False, "limit": 1}


def log(level, text):
    with open(LOG, "a") as out:
        out.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {level} {text}\n")


def load():
    if "config" in OPTIONS:
        config = json.loads(pathlib.Path(OPTIONS["config"]).read_text())
        if config["limit"] <= 0:
            raise ValueError(f"limit must be positive, it is {config['limit']}")
        state["limit"] = config["limit"]


def reload(*_):
    try:
        load()
        state.pop("bad", None)
    except (ValueError, KeyError, OSError) as e:
        state["bad"] = str(e)
        log("ERROR", f"configuration {OPTIONS['config']} is invalid: {e}")


def ask(port, line):
    with socket.create_connection(("127.0.0.1", port), 0.4) as s:
        s.settimeout(0.4)
        s.sendall(line)
        return s.recv(4096)


def work():
    if "bad" in state:
        raise RuntimeError(f"configuration is invalid: {state['bad']}")
    if len(state["hoard"]) > 3:
        raise MemoryError(f"cannot allocate a buffer, {len(state['hoard'])} are never freed")
    if not state["lock"].acquire(timeout=0.3):
        raise TimeoutError("could not acquire lock 'orders' within 300 ms, its holder does not give it back")
    state["lock"].release()
    if "lock" in OPTIONS and pathlib.Path(OPTIONS["lock"]).exists():
        raise RuntimeError(f"lock file {OPTIONS['lock']} is held by another process")
    if state["slow"]:
        time.sleep(0.8)
        log("ERROR", "slow request: 800 ms, the index in memory is bloated")
    if "redis" in OPTIONS:
        key = OPTIONS.get("key", "cart")
        reply = ask(OPTIONS["redis"], f"GET {key}\r\n".encode())
        if reply.startswith(b"$-1"):
            ask(OPTIONS["redis"], f"SET {key} [1]\r\n".encode())
        elif reply.startswith(b"$"):
            json.loads(reply.split(b"\r\n")[1])
        else:
            raise RuntimeError(f"redis says {reply[:80]!r}")
    if "memcached" in OPTIONS:
        key = OPTIONS.get("key", "cart")
        reply = ask(OPTIONS["memcached"], f"get {key}\r\n".encode())
        if reply.startswith(b"END"):
            ask(OPTIONS["memcached"], f"set {key} 0 0 3\r\n[1]\r\n".encode())
        else:
            json.loads(reply.split(b"\r\n")[1])
    if "postgres" in OPTIONS:
        done = subprocess.run(["psql", "-h", "127.0.0.1", "-p", str(OPTIONS["postgres"]), "-U", "postgres", "-XAtqc", "set statement_timeout=400; update stock set n=n+1"],
                              capture_output=True, text=True, timeout=2)
        if done.returncode:
            raise RuntimeError("database: " + done.stderr.strip().replace("\n", " "))
    if "front" in OPTIONS:
        c = http.client.HTTPConnection("127.0.0.1", OPTIONS["front"], timeout=0.8)
        c.request("GET", "/")
        if (status := c.getresponse().status) != 200:
            raise RuntimeError(f"the service behind answers {status}")
    if "folder" in OPTIONS:
        new = pathlib.Path(OPTIONS["folder"]) / "journal.new"
        new.write_bytes(b"x" * 8192)
        new.rename(new.with_suffix(""))
    return b"ok\n"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            status, body = 200, work()
        except Exception as e:  # noqa: BLE001: whatever breaks is what it reports
            status, body = 503, b"broken\n"
            log("ERROR", f"request failed: {type(e).__name__}: {e}")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        fault = self.path.rpartition("/")[2]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.wfile.flush()
        if fault == "crash":
            log("FATAL", "assertion failed: balance >= 0, aborting")
            os.abort()
        elif fault == "exit":
            log("ERROR", "unhandled error in main loop, exiting with 1")
            os._exit(1)
        elif fault == "hang":
            time.sleep(3600)
        elif fault == "lock":
            state["lock"].acquire()
        elif fault == "leak":
            state["hoard"] += [bytearray(1 << 20) for _ in range(8)]
        elif fault == "slow":
            state["slow"] = True

    def log_message(self, *args):
        pass


class Server(http.server.HTTPServer):
    allow_reuse_address = True
    request_queue_size = 64


signal.signal(signal.SIGHUP, reload)
try:
    load()
except (ValueError, KeyError, OSError) as e:
    log("FATAL", f"cannot start: configuration {OPTIONS['config']} is invalid: {e}")
    sys.exit(1)
log("INFO", "started; a fatal error handler is installed, panic() is not expected")
Server(("127.0.0.1", PORT), Handler).serve_forever()
