"""Starts a real heald on a free port with its own folder, talks to it, ends it. Standard library only."""
import gzip
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("HEAL_BIN", ROOT / "build/release/bin"))
PLUGINS = BIN.parent / "plugins"


def wait_for(what, condition, timeout=15.0, pause=0.01):
    """The value of condition() once it is truthy; fails with `what` after the timeout."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"within {timeout} s: {what}")
        time.sleep(pause)


class Stalls:
    """How long this machine kept a sleeping thread waiting for a processor, in seconds: what a deadline must allow for on a busy machine."""

    def __enter__(self):
        self.worst, self._end = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self):
        before = time.monotonic()
        while not self._end.wait(0.01):
            now = time.monotonic()
            self.worst, before = max(self.worst, now - before - 0.01), now

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()


class Answer:
    def __init__(self, status, body, headers):
        self.status, self.text, self.headers = status, body, headers

    @property
    def json(self):
        return json.loads(self.text)


class Heald:
    def __init__(self, config=None, folder=None, env=None, start=True, extra_files=None):
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="heald-test-"))
        self.own = folder is None
        self.state = self.folder / "state"
        (self.state / "plugins").mkdir(parents=True, exist_ok=True)
        (self.state / "scripts").mkdir(exist_ok=True)
        base = {"state_dir": str(self.state), "http": {"listen": "127.0.0.1:0"}, "log": {"level": "debug", "format": "json"}}
        for key, value in (config or {}).items():
            base[key] = {**base.get(key, {}), **value} if isinstance(value, dict) else value
        self.config = self.folder / "heald.yaml"
        self.config.write_text(json.dumps(base, indent=1))  # JSON is YAML
        self.env = dict(os.environ, **(env or {}))
        self.process = self.port = None
        self.log = []
        if start:
            self.start()

    def start(self, timeout=20):
        self.port = None
        self.process = subprocess.Popen([BIN / "heald", "-c", self.config], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                        env=self.env, text=True, errors="replace")
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        wait_for("heald is ready; its log: " + "".join(self.log[-20:]), lambda: self.port or self.process.poll() is not None, timeout)
        if self.port is None:
            time.sleep(0.3)  # its last words
            raise AssertionError("heald did not start:\n" + "".join(self.log[-30:]))
        return self

    def _read(self, process):
        for line in process.stderr:
            self.log.append(line)
            found = re.search(r"is ready on port (\d+)", line)
            if found:
                self.port = int(found[1])

    def call(self, method, path, body=None, headers=None, raw=False):
        data = body if raw or body is None else json.dumps(body).encode()
        if isinstance(data, str):
            data = data.encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, method=method,
                                         headers={"Content-Type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Answer(answer.status, answer.read().decode(), dict(answer.headers))
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode(), dict(error.headers))

    def get(self, path):
        answer = self.call("GET", path)
        assert answer.status == 200, answer.text
        return answer.json

    def log_error(self, message, service="cart", **more):
        answer = self.call("POST", "/api/v1/logs", {"service_name": service, "log_level": "error", "message": message, **more})
        assert answer.status == 202, answer.text
        return answer.json

    def events(self, query=""):
        return self.get("/api/v1/healing/events?limit=1000" + query)["items"]

    def event(self, event_id):
        return self.get(f"/api/v1/healing/events/{event_id}")

    def ended(self, service="cart", count=1, timeout=20):
        """The newest events of a service, once `count` of them are no longer open."""
        still = ("open", "awaiting_approval", "healing", "verifying", "stabilizing")
        done = lambda: [e for e in self.events(f"&service_name={service}") if e["state"] not in still]
        wait_for(f"{count} events of {service} end; now: {self.events()}", lambda: len(done()) >= count, timeout)
        return [self.event(e["id"]) for e in done()]

    def strategies(self):
        return {s["name"]: s for a in self.get("/api/v1/strategies")["artifacts"] for s in a["strategies"]}

    def artifact(self, name):
        found = [a for a in self.get("/api/v1/strategies")["artifacts"] if a["path"].endswith(name)]
        return found[0] if found else None

    def script(self, name, text):
        """Drops a script in, whole."""
        target = self.state / "scripts" / name
        temporary = self.folder / (name + ".part")
        temporary.write_text(text)
        temporary.rename(target)
        return target

    def plugin(self, name):
        shutil.copy(PLUGINS / f"{name}.so", self.state / "plugins" / f"{name}.so")

    def loaded(self, name, timeout=10):
        return wait_for(f"strategy {name} is listed", lambda: self.strategies().get(name), timeout)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError("heald did not stop within 15 s:\n" + "".join(self.log[-20:]))
        return self.process.returncode if self.process else None

    def close(self):
        try:
            self.stop()
        finally:
            if self.own:
                shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if exc[0]:
            print("".join(self.log[-40:]))
        self.close()


def healctl(heald, *arguments, stdin=""):
    done = subprocess.run([BIN / "healctl", "--server", f"http://127.0.0.1:{heald.port}" if heald else "http://127.0.0.1:9", *arguments],
                          input=stdin, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def gzipped(text):
    return gzip.compress(text.encode())


# Everything may act at once and by itself; the tests of guards set their own.
OPEN = {"autonomy": {"default": "auto", "max_risk": "destructive"}, "verify": {"timeout": "2s", "stabilize": "200ms", "hold": "1h"},
        "limits": {"cooldown": "0ms", "target_per_hour": 100000, "strategy_per_hour": 100000, "service_per_hour": 100000,
                   "global_per_minute": 100000, "budget_per_day": 100000000, "flap_high": 0, "breaker_failures": 0, "storm_targets": 0,
                   "repeat_after": "0ms", "healthy_acts": 1, "confirm": "0ms"}}


def touch_script(name, path, priority=50, matches="{}", outcome="succeeded", extra=""):
    """A strategy that appends a line to a file: the world that it changes."""
    return f"""
return {{
  name = "{name}", version = "1.0.0", summary = "test", priority = {priority}, confidence = 0.5, risk = "safe",
  timeout_ms = 5000, matches = {{ {matches} }},
  capabilities = {{ "exec:/bin/sh" }},
  {extra}
  execute = function(request, call)
    call.exec {{ argv = {{ "/bin/sh", "-c", "echo " .. request.attempt .. " {name} >> {path}" }} }}
    return {{ outcome = "{outcome}", text = "touched" }}
  end,
}}
"""
