"""The same misbehaving strategies inside a running heald: it keeps answering /health, the incident goes on, the next candidate heals.
Called by run.py; alone: tests/hostile/live.py [NAME…]"""
import hashlib
import http.client
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/integration"))


def processes_of(pid):
    """Living descendants of a process."""
    children = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(") ", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
            except (OSError, IndexError, ValueError):
                pass
    found, queue = [], [pid]
    while queue:
        for child in children.get(queue.pop(), []):
            found.append(child)
            queue.append(child)
    return found


class Live:
    def __init__(self, build):
        os.environ["HEAL_BIN"] = str(build / "bin")
        from harness import OPEN, Heald, wait_for
        self.wait_for = wait_for
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="heal-live-"))
        self.done = self.work / "done"
        probe = {"command": ["/usr/bin/test", "-e", str(self.done)], "timeout": "1s"}
        # Each case is a new kind of error on the same service; that the strategy before it did the harm is not the question here.
        self.heald = Heald({**OPEN, "trust": {"harms": 0}, "verify": {"timeout": "50ms", "stabilize": "0ms", "hold": "0ms"}, "services": [{"name": "cart", "probes": [probe]}],
                            "strategies": {"hostile": {"priority": 900}}, "hosts": {"warm_for": "200ms"}})
        self.heald.script("good.lua", f"""
return {{ name = "good", version = "1.0.0", priority = 1, risk = "safe", matches = {{ {{}} }}, capabilities = {{ "exec:/usr/bin/touch" }},
  execute = function(request, call) call.exec {{ argv = {{ "/usr/bin/touch", "{self.done}" }} }} return {{ outcome = "succeeded" }} end }}""")
        self.heald.loaded("good")
        self.count = 0

    def close(self):
        self.heald.close()
        shutil.rmtree(self.work, ignore_errors=True)

    def watch(self, stop, slow):
        connection = http.client.HTTPConnection("127.0.0.1", self.heald.port, timeout=5)
        while not stop.is_set():
            start = time.perf_counter()
            connection.request("GET", "/health")
            connection.getresponse().read()
            slow.append((time.perf_counter() - start) * 1000)
            time.sleep(0.005)

    def case(self, artifact, limit_ms):
        """Faults of one artifact (a .so or .lua whose strategy is named 'hostile'), and the slowest answer of /health in ms."""
        h = self.heald
        self.done.unlink(missing_ok=True)
        self.count += 1
        # A name of its own for each, so that one's quarantine is not the next one's.
        target = h.state / ("plugins" if artifact.suffix == ".so" else "scripts") / f"case{self.count}{artifact.suffix}"
        shutil.copy(artifact, str(target) + ".part")
        os.rename(str(target) + ".part", target)
        build = hashlib.sha256(artifact.read_bytes()).hexdigest()
        faults, slow, stop = [], [], threading.Event()
        try:
            self.wait_for("it is loaded", lambda: (h.artifact(target.name) or {}).get("build") == build and h.artifact(target.name)["state"] == "loaded", 15)
            watcher = threading.Thread(target=self.watch, args=(stop, slow))
            watcher.start()
            try:
                service = "cart"
                before = len(h.events("&service_name=cart"))
                words = "".join(chr(ord("a") + int(d)) for d in str(self.count))
                h.log_error(f"trouble of kind {words} in the {words}house", service=service)
                event = h.ended(service, before + 1, 20)[0]
            finally:
                stop.set()
                watcher.join()
            if event["state"] != "healed" or event["healed_by"] != "good":
                faults.append(f"the next candidate did not heal: {event['state']}, {event['reason']}")
            tried = [a for a in event["attempts"] if a["strategy"] == "hostile"]
            if tried and tried[0]["state"] not in ("failed", "unknown", "declined", "succeeded"):
                faults.append(f"its attempt was recorded as {tried[0]['state']}")
            if slow and max(slow) >= limit_ms:
                faults.append(f"/health took {max(slow):.1f} ms")
        except AssertionError as fault:
            faults.append(str(fault)[:300])
        target.unlink(missing_ok=True)
        try:
            self.wait_for("it is withdrawn", lambda: h.artifact(target.name) is None, 10)
        except AssertionError as fault:
            faults.append(str(fault)[:200])
        if h.process.poll() is not None:
            faults.append(f"heald ended with {h.process.returncode}")
        return faults, max(slow, default=0)

    def left_over(self):
        """What remains of all of it once hosts are cold: processes beyond heald's own, descriptors."""
        self.wait_for("hosts end", lambda: len(processes_of(self.heald.process.pid)) <= 1, 15)
        return processes_of(self.heald.process.pid), len(os.listdir(f"/proc/{self.heald.process.pid}/fd"))
