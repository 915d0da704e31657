#!/usr/bin/env python3
"""The bundled strategies and scripts against real peers (Redis, memcached, nginx, processes), run by `heal-host --run`.

  strategies_test.py --build build/release
"""
import argparse
import http.client
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "release"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(check, what, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return
        time.sleep(0.01)
    raise AssertionError(f"did not come: {what}")


def answers(port):
    with socket.socket() as s:
        s.settimeout(0.5)
        return s.connect_ex(("127.0.0.1", port)) == 0


def program(name):
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not found:
        raise unittest.SkipTest(f"{name} is not installed")
    return found


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="heal-strategies-"))
        self.children = []
        self.addCleanup(self.clean_up)

    def clean_up(self):
        for child in self.children:
            child.kill()
            child.wait()
        for pid_file in self.folder.glob("*.pid"):  # started by a strategy: not our children
            try:
                pid = int(pid_file.read_text())
                if str(self.folder) in pathlib.Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(pid, signal.SIGKILL)
            except (OSError, ValueError):
                pass
        shutil.rmtree(self.folder)

    def spawn(self, *argv, **more):
        child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
        self.children.append(child)
        return child

    def run_strategy(self, name, target, message="it broke", call="execute", config=None, dry_run=False, **incident):
        event = self.folder / "event.json"
        event.write_text(json.dumps({
            "attempt": "a1", "target": {"name": "svc", **target}, "config": config or {}, "dry_run": dry_run,
            "incident": {"service": "svc", "message": message, "level": "error", "context": {}, **incident}}))
        artifact = BUILD / "plugins" / f"{name}.so"
        if not artifact.exists():
            artifact = ROOT / "scripts" / f"{name}.lua"
        argv = [BUILD / "bin" / "heal-host", "--run", artifact, "--event", event, "--call", call, "--state", self.folder / "state"]
        if dry_run:
            argv.append("--dry-run")
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def succeeds(self, name, target, *words, **more):
        code, text = self.run_strategy(name, target, **more)
        self.assertEqual(code, 0, text)
        for word in words:
            self.assertIn(word, text)
        return text

    def fails(self, name, target, *words, **more):
        code, text = self.run_strategy(name, target, **more)
        self.assertNotEqual(code, 0, text)
        for word in words:
            self.assertIn(word, text)
        return text

    def changes(self, text):
        """The effects that change the world, in their order."""
        return [re.sub(r"^ *\d+\. | \[not done\]$", "", line) for line in text.splitlines() if re.search(r"\((undoable|irreversible)\)", line)]

    def lists_what_it_does(self, name, target, effects, **more):
        """The dry run, which changes nothing, lists exactly the changes that the real run then makes."""
        listed = self.succeeds(name, target, dry_run=True, **more)
        done = self.succeeds(name, target, **more)
        self.assertEqual(listed.count("[not done]"), len(self.changes(listed)), listed)
        self.assertEqual(self.changes(listed), self.changes(done), f"{listed}\n{done}")
        self.assertEqual(len(self.changes(done)), effects, done)

    def worker(self, body):
        path = self.folder / "worker.py"
        path.write_text("#!/usr/bin/python3\n" + body)
        path.chmod(0o755)
        return {"pid_file": str(self.folder / "w.pid"), "command": [str(path)], "log_file": str(self.folder / "w.log")}


class Restart(Case):
    sleeper = "import time\ntime.sleep(1000)\n"

    def start(self, process):
        child = self.spawn(*process["command"])
        wait_for(lambda: "worker.py" in pathlib.Path(f"/proc/{child.pid}/cmdline").read_text(), "the worker")
        (self.folder / "w.pid").write_text(str(child.pid))
        return child

    def test_replaces_a_process_and_proves_it_by_its_start_time(self):
        process = self.worker(self.sleeper)
        old = self.start(process)
        self.succeeds("restart", {"process": process}, "replaced by")
        self.assertIsNotNone(old.wait(5))
        self.assertNotEqual(int((self.folder / "w.pid").read_text()), old.pid)
        self.succeeds("restart", {"process": process}, "new and alive", call="verify")

    def test_kills_a_stopped_process_at_once(self):
        process = self.worker(self.sleeper)
        old = self.start(process)
        os.kill(old.pid, signal.SIGSTOP)
        wait_for(lambda: pathlib.Path(f"/proc/{old.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "the stop")
        began = time.monotonic()
        self.succeeds("restart", {"process": process}, "send KILL")
        self.assertLess(time.monotonic() - began, 4)
        self.succeeds("restart", {"process": process}, call="verify")

    def test_kills_one_that_ignores_term_after_the_grace(self):
        process = self.worker("import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen(__file__ + '.ready', 'w').close()\ntime.sleep(1000)\n")
        old = self.start(process)
        wait_for(lambda: (self.folder / "worker.py.ready").exists(), "the worker's handler")
        self.succeeds("restart", {"process": process}, config={"grace_ms": 200})
        self.assertEqual(old.wait(5), -signal.SIGKILL)

    def test_starts_what_is_gone(self):
        process = self.worker(self.sleeper)
        self.succeeds("restart", {"process": process})
        self.succeeds("restart", {"process": process}, call="verify")

    def test_never_touches_a_recycled_pid(self):
        process = self.worker(self.sleeper)
        other = self.spawn("/usr/bin/sleep", "1000")
        (self.folder / "w.pid").write_text(str(other.pid))
        self.succeeds("restart", {"process": process}, "another program")
        self.assertIsNone(other.poll())

    def test_says_so_when_the_new_process_dies_at_once(self):
        process = self.worker("raise SystemExit(3)\n")
        self.fails("restart", {"process": process}, "ended at once")
        self.fails("restart", {"process": process}, call="verify")

    def test_waits_for_the_supervisor_where_there_is_one(self):
        process = self.worker(self.sleeper)
        old = self.start(process)
        def supervise():
            old.wait()
            self.start(process)
        threading.Thread(target=supervise, daemon=True).start()
        self.succeeds("restart", {"process": {**process, "supervised": True}}, config={"grace_ms": 1000})
        self.succeeds("restart", {"process": process}, call="verify")

    def test_does_nothing_in_a_dry_run(self):
        process = self.worker(self.sleeper)
        old = self.start(process)
        self.succeeds("restart", {"process": process}, "[not done]", dry_run=True)
        self.assertIsNone(old.poll())

    def test_its_dry_run_lists_what_a_real_run_does(self):
        process = self.worker(self.sleeper)
        self.start(process)
        self.lists_what_it_does("restart", {"process": process}, 2)
        process = self.worker(self.sleeper)
        stopped = self.start(process)
        os.kill(stopped.pid, signal.SIGSTOP)
        wait_for(lambda: pathlib.Path(f"/proc/{stopped.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "the stop")
        self.lists_what_it_does("restart", {"process": process}, 2)

    def test_believes_more_in_itself_after_a_crash(self):
        process = self.worker(self.sleeper)
        self.assertIn("0.850", self.succeeds("restart", {"process": process}, call="assess", error_type="SIGSEGV"))
        self.assertIn("0.700", self.succeeds("restart", {"process": process}, call="assess", message="job 7 timed out"))
        self.assertIn("0.400", self.succeeds("restart", {"process": process}, call="assess", message="bad input"))

    def test_declines_without_facts(self):
        self.fails("restart", {}, "declined")


class RestartOfAUnit(Case):
    """A systemd of the test's own: process 1 of a process, mount and control-group namespace."""

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0 or not os.path.exists("/lib/systemd/systemd"):
            self.skipTest("needs root and systemd")
        start = self.folder / "start.sh"
        # It sees this machine's files but can change none: systemd empties /tmp when it boots.
        start.write_text(f"""set -e
mount --make-rprivate /
mount --bind {self.folder} {self.folder}
for place in $(awk '$2 != "/proc" && $2 !~ "^/(proc|sys|dev)/" && $2 != "{self.folder}" {{print $2}}' /proc/mounts); do
    mount -o remount,bind,ro "$place" 2>/dev/null || true
done
touch /tmp/.heald-test 2>/dev/null && exit 9
mount -t tmpfs tmpfs /run
mkdir -p /run/lock
mount -t tmpfs tmpfs /etc/systemd/system
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
printf '[Unit]\nDescription=test\n' > /etc/systemd/system/default.target
export container=test
exec /lib/systemd/systemd --system --log-target=console --unit=default.target
""")
        self.log = open(self.folder / "systemd.log", "w")
        self.addCleanup(self.log.close)
        child = subprocess.Popen(["unshare", "--pid", "--fork", "--mount", "--cgroup", "--uts", "--mount-proc", "--kill-child", "bash", start],
                                 stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        self.children.append(child)
        def first():
            found = pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
            return int(found[0]) if found and child.poll() is None else 0
        try:
            wait_for(lambda: first() or child.poll() is not None, "a namespace")
            self.init = first()
            wait_for(lambda: child.poll() is not None or self.systemctl("is-system-running")[1].strip() in ("running", "degraded", "starting"), "systemd", 15)
        except (AssertionError, OSError):
            pass
        if child.poll() is not None or self.systemctl("show", "--property=Version")[0] != 0:
            self.log.flush()
            self.skipTest("systemd does not start in a namespace here: " + (self.folder / "systemd.log").read_text()[-300:])

    def inside(self, *argv):
        return ["nsenter", "--target", str(self.init), "--pid", "--mount", "--cgroup", *(str(a) for a in argv)]

    def systemctl(self, *words):
        done = subprocess.run(self.inside("systemctl", *words), capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def unit(self, command):
        subprocess.run(self.inside("tee", "/etc/systemd/system/web.service"), input=f"[Unit]\nDefaultDependencies=no\n[Service]\nExecStart={command}\n", text=True, check=True, capture_output=True)
        self.assertEqual(self.systemctl("daemon-reload")[0], 0)
        return self.systemctl("start", "web.service")

    def main_pid(self):
        return int(self.systemctl("show", "--property=MainPID", "--value", "web.service")[1])

    def run_inside(self, call="execute", **more):
        event = self.folder / "event.json"
        event.write_text(json.dumps({"attempt": "a1", "target": {"name": "web", "systemd": {"unit": "web.service"}}, "config": {}, "dry_run": False,
                                     "incident": {"service": "web", "message": "it hangs", "level": "error", "context": {}}}))
        argv = [BUILD / "bin" / "heal-host", "--run", BUILD / "plugins" / "restart.so", "--event", event, "--call", call, "--state", self.folder / "state"]
        done = subprocess.run(self.inside(*argv, *(["--dry-run"] if more.get("dry_run") else [])), capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def test_restarts_and_starts_a_unit_and_says_so_when_it_fails(self):
        self.assertEqual(self.unit("/usr/bin/sleep 1000")[0], 0)
        old = self.main_pid()
        code, listed = self.run_inside(dry_run=True)
        self.assertEqual(code, 0, listed)
        self.assertEqual(self.main_pid(), old)
        code, text = self.run_inside()
        self.assertEqual(code, 0, text)
        self.assertEqual(self.changes(listed), self.changes(text))
        self.assertNotIn(self.main_pid(), (0, old))
        code, text = self.run_inside("verify")
        self.assertEqual(code, 0, text)
        self.systemctl("stop", "web.service")
        self.assertNotEqual(self.run_inside("verify")[0], 0, "a stopped unit is not healthy")
        self.assertEqual(self.run_inside()[0], 0)
        self.assertGreater(self.main_pid(), 0)
        self.unit("/usr/bin/false")
        code, text = self.run_inside()
        code, text = (code, text) if code else self.run_inside("verify")
        self.assertNotEqual(code, 0, text)


class RestartOfAContainer(Case):
    """A dockerd of the test's own, without network; the image is one static program."""

    def setUp(self):
        super().setUp()
        path = "/usr/sbin:/usr/bin:/sbin:/bin:" + os.environ.get("HEAL_DOCKER_PATH", "")
        if os.geteuid() != 0 or not all(shutil.which(x, path=path) for x in ("dockerd", "containerd", "runc")):
            self.skipTest("needs root and the package docker.io")
        self.socket = str(self.folder / "docker.sock")
        log = open(self.folder / "dockerd.log", "w")
        self.addCleanup(log.close)
        daemon = subprocess.Popen(["dockerd", "--host", f"unix://{self.socket}", "--data-root", self.folder / "data", "--exec-root", self.folder / "exec",
                                   "--pidfile", self.folder / "dockerd.pidfile", "--bridge", "none", "--iptables=false", "--ip6tables=false", "--storage-driver", "vfs"],
                                  env=dict(os.environ, PATH=path), stdout=log, stderr=log, start_new_session=True)
        def end():
            daemon.terminate()
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
            subprocess.run(f"grep -o '{self.folder}[^ ]*' /proc/mounts | sort -r | xargs -r umount -l", shell=True)
        self.addCleanup(end)
        wait_for(lambda: daemon.poll() is not None or self.ask("GET", "/_ping")[0] == 200, "dockerd", 20)
        self.assertIsNone(daemon.poll(), (self.folder / "dockerd.log").read_text()[-2000:])
        (self.folder / "s.c").write_text("#include <signal.h>\n#include <unistd.h>\nstatic void end(int s) { _exit(s); }\nint main(void) { signal(SIGTERM, end); for (;;) pause(); }\n")
        image = self.folder / "image"
        (image / "tmp").mkdir(parents=True)
        subprocess.run(["cc", "-static", "-o", image / "s", self.folder / "s.c"], check=True)
        tar = subprocess.run(["tar", "-C", image, "-c", "."], check=True, capture_output=True).stdout
        self.assertEqual(self.ask("POST", "/images/create?fromSrc=-&repo=test&tag=1", tar)[0], 200)
        made = self.ask("POST", "/containers/create?name=web", json.dumps({"Image": "test:1", "Cmd": ["/s"], "HostConfig": {"NetworkMode": "none"}}).encode(), "application/json")
        self.assertEqual(made[0], 201, made)
        status, text = self.ask("POST", "/containers/web/start")
        self.assertEqual(status, 204, text)

    def ask(self, method, path, body=None, kind="application/x-tar"):
        class Connection(http.client.HTTPConnection):
            def connect(inner):
                inner.sock = socket.socket(socket.AF_UNIX)
                inner.sock.settimeout(30)
                inner.sock.connect(self.socket)
        try:
            connection = Connection("docker")
            connection.request(method, path, body, {"Content-Type": kind} if body else {})
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
            return answer.status, text
        except OSError as error:
            return 0, str(error)

    def state(self):
        return json.loads(self.ask("GET", "/containers/web/json")[1])["State"]

    def test_restarts_and_starts_a_container(self):
        target = {"docker": {"container": "web", "socket": self.socket}}
        old = self.state()
        self.assertTrue(old["Running"])
        self.lists_what_it_does("restart", target, 1, config={"grace_ms": 500})
        new = self.state()
        self.assertTrue(new["Running"] and new["StartedAt"] != old["StartedAt"], new)
        self.succeeds("restart", target, call="verify")
        self.ask("POST", "/containers/web/kill")
        wait_for(lambda: not self.state()["Running"], "the end of the container")
        self.fails("restart", target, call="verify")
        self.succeeds("restart", target)
        self.assertTrue(self.state()["Running"])
        self.fails("restart", {"docker": {"container": "nobody", "socket": self.socket}}, "nobody")


class CacheFlush(Case):
    def redis(self):
        port = free_port()
        self.spawn(program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder))
        wait_for(lambda: answers(port), "Redis")
        self.port = port
        return {"redis": {"address": f"127.0.0.1:{port}", "keys": ["cart:*"]}}

    def ask(self, *words):
        with socket.create_connection(("127.0.0.1", self.port), 2) as s:
            s.sendall(f"*{len(words)}\r\n".encode() + b"".join(f"${len(w)}\r\n{w}\r\n".encode() for w in words))
            return s.recv(65536).decode()

    def exists(self, key):
        return self.ask("EXISTS", key).startswith(":1")

    def test_drops_only_the_key_that_the_error_names(self):
        target = self.redis()
        for key in ("cart:41", "cart:42", "order:1"):
            self.ask("SET", key, "poison")
        self.assertIn("0.900", self.succeeds("cache_flush", target, call="assess", message="cannot decode 'cart:42': x"))
        self.succeeds("cache_flush", target, "dropped cart:42", message="cannot decode 'cart:42': Expecting value")
        self.assertEqual([self.exists(k) for k in ("cart:41", "cart:42", "order:1")], [True, False, True])
        self.succeeds("cache_flush", target, "1 keys are gone", call="verify")

    def test_never_drops_what_is_not_declared(self):
        target = self.redis()
        self.ask("SET", "order:1", "x")
        self.succeeds("cache_flush", target, message="cannot decode order:1 or * or cart:*")
        self.assertTrue(self.exists("order:1"))

    def test_drops_the_declared_patterns_by_scan_when_none_is_named(self):
        target = self.redis()
        for i in range(2500):
            self.ask("SET", f"cart:{i}", "x")
        self.ask("SET", "order:1", "x")
        self.succeeds("cache_flush", target, "dropped 2500 keys")
        self.assertTrue(self.exists("order:1"))
        self.assertIn(":1\r\n", self.ask("DBSIZE"))

    def test_gives_up_rather_than_drop_too_many(self):
        target = self.redis()
        for i in range(50):
            self.ask("SET", f"cart:{i}", "x")
        self.fails("cache_flush", target, "raise max_keys", config={"max_keys": 10})

    def test_notices_that_the_poison_came_back(self):
        target = self.redis()
        self.ask("SET", "cart:42", "poison")
        self.succeeds("cache_flush", target, message="bad cart:42")
        self.ask("SET", "cart:42", "poison")
        self.fails("cache_flush", target, "the same value is back", call="verify")
        self.ask("SET", "cart:42", "good")
        self.succeeds("cache_flush", target, "1 were filled anew", call="verify")

    def test_asks_before_it_flushes_a_whole_database(self):
        target = self.redis()
        del target["redis"]["keys"]
        self.ask("SET", "a", "x")
        self.fails("cache_flush", target, "whole_database is off")
        self.succeeds("cache_flush", target, config={"whole_database": True})
        wait_for(lambda: not self.exists("a"), "the flush")

    def test_does_nothing_in_a_dry_run(self):
        target = self.redis()
        self.ask("SET", "cart:1", "x")
        self.succeeds("cache_flush", target, "[not done]", dry_run=True)
        self.assertTrue(self.exists("cart:1"))

    def test_its_dry_run_lists_what_a_real_run_does(self):
        target = self.redis()
        for i in range(2500):
            self.ask("SET", f"cart:{i}", "x")
        self.lists_what_it_does("cache_flush", target, 1, message="cannot decode cart:7")
        self.lists_what_it_does("cache_flush", {"redis": {"address": target["redis"]["address"]}}, 1, config={"whole_database": True})

    def test_says_what_is_wrong_when_redis_is_down(self):
        self.fails("cache_flush", {"redis": {"address": f"127.0.0.1:{free_port()}", "keys": ["a"]}}, "refused")

    def test_drops_keys_of_memcached_and_all_of_it(self):
        port = free_port()
        self.spawn(program("memcached"), "-p", str(port), "-l", "127.0.0.1", "-U", "0", "-u", "root")
        wait_for(lambda: answers(port), "memcached")
        def ask(text):
            with socket.create_connection(("127.0.0.1", port), 2) as s:
                s.sendall(text.encode())
                return s.recv(4096).decode()
        ask("set cart_1 0 0 1\r\nx\r\n")
        self.lists_what_it_does("cache_flush", {"memcached": {"address": f"127.0.0.1:{port}", "keys": ["cart_*"]}}, 1, message="cannot read cart_1")
        ask("set cart_1 0 0 1\r\nx\r\n")
        ask("set other 0 0 1\r\nx\r\n")
        target = {"memcached": {"address": f"127.0.0.1:{port}", "keys": ["cart_*"]}}
        self.succeeds("cache_flush", target, "dropped cart_1", message="cannot read cart_1")
        self.assertNotIn("VALUE", ask("get cart_1\r\n"))
        self.assertIn("VALUE", ask("get other\r\n"))
        self.succeeds("cache_flush", target, call="verify")
        del target["memcached"]["keys"]
        self.succeeds("cache_flush", target, "flushed all")
        self.assertNotIn("VALUE", ask("get other\r\n"))

    def test_purges_an_http_cache_and_reads_through(self):
        seen, status = [], {"GET": 200}
        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                seen.append((self.command, self.path))
                self.send_response(status.get(self.command, 200))
                self.send_header("Content-Length", "0")
                self.end_headers()
            do_GET = do_PURGE = answer
            def log_message(self, *_):
                pass
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(lambda: (server.shutdown(), server.server_close()))
        target = {"http_cache": {"address": f"127.0.0.1:{server.server_address[1]}", "paths": ["/a", "/b"]}}
        self.lists_what_it_does("cache_flush", target, 2)
        self.assertEqual(seen, [("PURGE", "/a"), ("PURGE", "/b")])
        self.succeeds("cache_flush", target, "read /a, /b through", call="verify")
        status["GET"] = 502
        self.fails("cache_flush", target, "502", call="verify")


class ConfigRollback(Case):
    def nginx(self):
        self.port = free_port()
        self.conf = self.folder / "nginx.conf"
        self.good = f"""daemon on; pid {self.folder}/nginx.pid; error_log {self.folder}/error.log;
            events {{}}
            http {{ access_log off; client_body_temp_path {self.folder}/b; proxy_temp_path {self.folder}/p; fastcgi_temp_path {self.folder}/f;
              uwsgi_temp_path {self.folder}/u; scgi_temp_path {self.folder}/s;
              server {{ listen 127.0.0.1:{self.port}; location / {{ return 200 good; }} }} }}"""
        self.conf.write_text(self.good)
        nginx = program("nginx")
        self.argv = [nginx, "-e", f"{self.folder}/error.log", "-c", str(self.conf)]
        versions = self.folder / "versions"
        kept = versions / str(self.conf)[1:].replace("/", "%")
        kept.mkdir(parents=True)
        (kept / "00001790000000000000-aaaa").write_text("# older\n" + self.good)
        (kept / "00001790000000000001-bbbb").write_text(self.good)
        self.addCleanup(lambda: subprocess.run([*self.argv, "-s", "stop"], capture_output=True))
        return {"process": {"pid_file": f"{self.folder}/nginx.pid", "command": self.argv, "daemonizes": True},
                "config": {"files": [str(self.conf)], "check": [*self.argv, "-t"], "reload": [*self.argv, "-s", "reload"], "versions": str(versions)}}

    def start(self):
        subprocess.run(self.argv, check=True)
        wait_for(lambda: answers(self.port), "nginx")

    def get(self):
        with socket.create_connection(("127.0.0.1", self.port), 2) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            text = b""
            while part := s.recv(4096):
                text += part
            return text.decode()

    def test_restores_checks_and_reloads(self):
        target = self.nginx()
        self.start()
        self.conf.write_text(self.good.replace("return 200 good", "return 500"))
        subprocess.run([*self.argv, "-s", "reload"], check=True)
        wait_for(lambda: "500" in self.get(), "the fault")
        self.succeeds("config_rollback", target, "restored 1 file", "(undoable)")
        wait_for(lambda: "good" in self.get(), "the restored configuration")
        self.assertEqual(self.conf.read_text(), self.good)
        self.succeeds("config_rollback", target, call="verify")

    def test_starts_a_service_that_the_broken_files_took_down(self):
        target = self.nginx()
        self.conf.write_text("bogus directive;")
        self.succeeds("config_rollback", target)
        wait_for(lambda: answers(self.port), "nginx")
        self.succeeds("config_rollback", target, call="verify")

    def test_declines_when_nothing_differs_or_nothing_was_kept(self):
        target = self.nginx()
        self.fails("config_rollback", target, "declined")
        target["config"]["versions"] = str(self.folder / "none")
        self.conf.write_text("other")
        self.fails("config_rollback", target, "declined")

    def test_fails_when_what_it_restored_does_not_pass_the_check(self):
        target = self.nginx()
        newest = sorted((self.folder / "versions").glob("*/*"))[-1]
        newest.write_text("also bogus;")
        self.conf.write_text("bogus directive;")
        self.fails("config_rollback", target, "does not pass its check")

    def test_its_dry_run_lists_what_a_real_run_does(self):
        target = self.nginx()
        self.start()
        self.conf.write_text("bogus directive;")
        self.lists_what_it_does("config_rollback", target, 2)
        subprocess.run([*self.argv, "-s", "stop"], check=True, capture_output=True)
        wait_for(lambda: not answers(self.port), "the end of nginx")
        self.conf.write_text("bogus directive;")
        self.lists_what_it_does("config_rollback", target, 2)

    def test_does_nothing_in_a_dry_run(self):
        target = self.nginx()
        self.conf.write_text("bogus directive;")
        self.succeeds("config_rollback", target, "[not done]", dry_run=True)
        self.assertEqual(self.conf.read_text(), "bogus directive;")


class Scripts(Case):
    def spool(self):
        for name in ("spool", "quarantine"):
            (self.folder / name).mkdir()
        process = self.worker(f"""import pathlib, time
while True:
    for f in sorted(pathlib.Path({str(self.folder / 'spool')!r}).iterdir()):
        if 'poison' in f.read_text(): raise ValueError(f'cannot parse {{f}}')
        f.unlink()
    time.sleep(0.02)
""")
        return {"spool": {"folder": str(self.folder / "spool"), "quarantine": str(self.folder / "quarantine")}, "process": process}

    def test_quarantine_poison_moves_the_named_file_and_starts_the_worker(self):
        target = self.spool()
        spool = self.folder / "spool"
        (spool / "order-1.json").write_text("good")
        (spool / "order-17.json").write_text("poison")
        message = f"ValueError: cannot parse {spool}/order-17.json"
        self.assertIn("0.900", self.succeeds("quarantine_poison", target, call="assess", message=message))
        self.succeeds("quarantine_poison", target, "order-17.json is in quarantine", message=message)
        self.assertTrue((self.folder / "quarantine" / "order-17.json").exists())
        wait_for(lambda: not list(spool.iterdir()), "the other file's turn")
        self.succeeds("quarantine_poison", target, call="verify")

    def test_the_dry_runs_list_what_real_runs_do(self):
        target = self.spool()
        spool = self.folder / "spool"
        (spool / "order-17.json").write_text("poison")
        self.lists_what_it_does("quarantine_poison", target, 2, message=f"ValueError: cannot parse {spool}/order-17.json")
        cache = self.folder / "cache"
        cache.mkdir()
        for i in range(20):
            (cache / f"{i:02}.tmp").write_bytes(b"x" * 1000)
            os.utime(cache / f"{i:02}.tmp", (time.time() - 10_000 + i, time.time() - 10_000 + i))
        self.lists_what_it_does("free_disk", {"disk": {"folders": [str(cache)], "pattern": "%.tmp$", "keep": 5}}, 15)

    def test_quarantine_poison_touches_nothing_that_is_not_in_the_spool(self):
        target = self.spool()
        (self.folder / "secret").write_text("poison")
        self.fails("quarantine_poison", target, "declined", message=f"cannot parse {self.folder}/secret or ../secret")
        self.assertTrue((self.folder / "secret").exists())

    def test_free_disk_removes_the_oldest_and_keeps_the_rest(self):
        cache = self.folder / "cache"
        cache.mkdir()
        for i in range(20):
            path = cache / f"{i:02}.tmp"
            path.write_bytes(b"x" * 1000)
            os.utime(path, (time.time() - 10_000 + i, time.time() - 10_000 + i))
        (cache / "data.db").write_bytes(b"x")
        (cache / "young.tmp").write_bytes(b"x")
        target = {"disk": {"folders": [str(cache)], "pattern": "%.tmp$", "keep": 5}}
        self.succeeds("free_disk", target, "[not done]", dry_run=True)
        self.assertEqual(len(list(cache.iterdir())), 22)
        self.succeeds("free_disk", target, "removed 3 files", config={"free_bytes": 3000})
        self.assertEqual(sorted(p.name for p in cache.iterdir())[0], "03.tmp")
        self.succeeds("free_disk", target, "removed 13 files")
        self.assertEqual(sorted(p.name for p in cache.iterdir()), ["16.tmp", "17.tmp", "18.tmp", "19.tmp", "data.db", "young.tmp"])
        self.succeeds("free_disk", target, call="verify")
        self.fails("free_disk", target, "declined")
        self.assertFalse(list((self.folder / "state").glob("backups/*")))


class Sql(Case):
    """The effect itself, by a script that runs one statement, on real databases; and what must not get through."""

    def statement(self, client, database, text, read_only=False, env=None, effect="sql"):
        script = self.folder / "sql.lua"
        quoted = lambda t: '"' + t.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        variables = ", ".join(f"{k} = {quoted(v)}" for k, v in (env or {}).items())
        script.write_text(f"""return {{ name = "s", capabilities = {{ "sql:{client}:{database}", "exec:/usr/bin/true" }},
  execute = function(request, call)
    local done = call.{effect}
    return {{ outcome = done.exit_code == 0 and "succeeded" or "failed", text = done.output .. done.error_output }}
  end }}""".replace("call.sql\n", f"call.sql {{ client = '{client}', database = '{database}', statement = {quoted(text)}, read_only = {str(read_only).lower()}, env = {{ {variables} }} }}\n"))
        event = self.folder / "event.json"
        event.write_text(json.dumps({"attempt": "a1", "incident": {"service": "svc", "message": "x", "level": "error"}, "target": {}}))
        done = subprocess.run([BUILD / "bin" / "heal-host", "--run", script, "--event", event, "--state", self.folder / "state"], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def works_on(self, client, database, trick):
        self.assertEqual(self.statement(client, database, "CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (41)")[0], 0)
        code, text = self.statement(client, database, "SELECT n + 1 FROM t")
        self.assertEqual(code, 0, text)
        self.assertIn("42", text)
        code, text = self.statement(client, database, "INSERT INTO t VALUES (1)", read_only=True)
        self.assertNotEqual(code, 0, text)
        code, text = self.statement(client, database, "SELECT broken FROM nowhere")
        self.assertNotEqual(code, 0)
        self.assertIn("nowhere", text)
        mark = self.folder / "escaped"
        for text in trick(mark):
            self.statement(client, database, text)
            self.assertFalse(mark.exists(), f"{text!r} ran a program or wrote a file")
        self.assertIn("1", self.statement(client, database, "SELECT COUNT(*) FROM t")[1])

    def test_sqlite_by_its_client(self):
        program("sqlite3")
        self.works_on("sqlite3", str(self.folder / "s.db"), lambda m: (
            f".shell touch {m}", f"SELECT 1;\n.shell touch {m}", f".system touch {m}", f".output {m}\nSELECT 1;", f".once |touch {m}\nSELECT 1;",
            f"ATTACH '{m}' AS m; CREATE TABLE m.t (n);", f"SELECT writefile('{m}', 'x');", f".open {m}\nCREATE TABLE t (n);", f"VACUUM INTO '{m}'"))

    def test_postgresql_by_its_client(self):
        sys.path.insert(0, str(ROOT / "tests"))
        import pg
        if pg.binaries() is None:
            self.skipTest("PostgreSQL is not installed")
        server = pg.Postgres()
        self.addCleanup(server.close)
        server.sql("CREATE ROLE app LOGIN; GRANT ALL ON SCHEMA public TO app")
        self.works_on("psql", server.url().replace("heald@", "app@"), lambda m: (
            f"\\! touch {m}", f"SELECT 1;\n\\! touch {m}", f"SELECT 1 \\g |touch {m}", f"SELECT 1;\n\\o {m}\nSELECT 1;", f"\\copy t TO '{m}'",
            f"COPY t TO PROGRAM 'touch {m}'"))

    def test_a_variable_that_brings_code_needs_a_grant_of_its_own(self):
        for name in ("LD_PRELOAD", "BASH_ENV", "PATH", "PYTHONPATH", "PSQLRC"):
            code, text = self.statement("sqlite3", "x", "", effect=f"exec {{ argv = {{ '/usr/bin/true' }}, env = {{ {name} = '/tmp/x' }} }}\n")
            self.assertNotEqual(code, 0)
            self.assertIn(f"env:{name}", text)
        code, text = self.statement("sqlite3", "x", "", effect="exec { argv = { '/usr/bin/true' }, env = { TZ = 'UTC' } }\n")
        self.assertEqual(code, 0, text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=str(BUILD))
    options, rest = parser.parse_known_args()
    BUILD = pathlib.Path(options.build).resolve()
    unittest.main(argv=[sys.argv[0], *rest])
