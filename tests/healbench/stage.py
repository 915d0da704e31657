"""Real services on loopback that can be broken, each with a pid file, a log, and nginx in front that logs what users meet."""
import http.client
import json
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
POSTGRES = next(iter(sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)), None) if pathlib.Path("/usr/lib/postgresql").exists() else None


def program(name):
    return shutil.which(name, path=PATH)


PORTS = iter(random.sample(range(20000, 32000), 4000))


def free_port():
    """Below the range from which the kernel gives ports to clients: it stays free until the service starts, minutes later."""
    for port in PORTS:
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def get(port, timeout=1.0, method="GET", path="/"):
    """(status, seconds); status 0: no answer."""
    start = time.monotonic()
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        c.request(method, path)
        status = c.getresponse().status
    except (OSError, http.client.HTTPException):
        status = 0
    finally:
        c.close()
    return status, time.monotonic() - start


def talk(port, line, timeout=0.5):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as s:
            s.settimeout(timeout)
            s.sendall(line)
            return s.recv(4096)
    except OSError:
        return b""


def wait_for(check, seconds=10, pause=0.02):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(pause)
    return False


class Service:
    """One process that a supervisor may start again. `kind`: py, pl, js, redis, memcached, nginx, postgres, importer."""

    def __init__(self, stage, name, kind, depends=(), facts=None, user=None, slow_is_ill=False, **options):
        self.stage, self.name, self.kind, self.depends, self.options = stage, name, kind, list(depends), options
        self.port, self.slow_is_ill = free_port(), slow_is_ill
        self.log = stage.path(f"log/{name}.log")
        self.pid_file = stage.path(f"run/{name}.pid")
        self.user = user
        self.facts = facts or {}
        pathlib.Path(self.log).touch()
        self.front = free_port() if kind in ("py", "pl", "js", "nginx") else None
        self.child = None
        self.make()

    def make(self):
        s, o = self.stage, self.options
        if self.kind == "py":
            self.command = [PYTHON, str(HERE / "worker.py"), str(self.port), self.log, json.dumps(o)]
        elif self.kind == "pl":
            self.command = [program("perl"), str(HERE / "worker.pl"), str(self.port), self.log] + ([o["lock"]] if "lock" in o else [])
        elif self.kind == "js":
            self.command = [program("node") or "node", str(HERE / "worker.js"), str(self.port), self.log]
        elif self.kind == "redis":
            self.command = [program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", s.path("run"), "--logfile", self.log]
        elif self.kind == "memcached":
            self.command = [program("memcached"), "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-m", "8", "-t", "1"] + (["-u", "root"] if os.geteuid() == 0 else [])
        elif self.kind == "nginx":
            self.back, self.conf = free_port(), s.path(f"{self.name}.conf")
            self.command = [program("nginx"), "-e", self.log, "-c", self.conf]
            self.write_conf(self.back)
        elif self.kind == "postgres":
            self.data = s.path(f"{self.name}-data")
            self.command = [str(POSTGRES), "-D", self.data, "-p", str(self.port), "-k", self.data, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        elif self.kind == "importer":
            for folder in ("spool", "done", "quarantine"):
                pathlib.Path(s.path(f"{self.name}/{folder}")).mkdir(parents=True)
            self.command = [PYTHON, str(ROOT / "demo/services/importer.py"), s.path(f"{self.name}/spool"), s.path(f"{self.name}/done")]

    def write_conf(self, upstream):
        s = self.stage
        kinds = " ".join(f"{k}_temp_path {s.path('run')}/{self.name}-{k};" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        pathlib.Path(self.conf).write_text(
            f"{user} daemon on; worker_processes 1; pid {self.pid_file}; error_log {self.log} warn;\nevents {{ worker_connections 64; }}\n"
            f"http {{ access_log off; {kinds}\n server {{ listen 127.0.0.1:{self.port}; location / {{ proxy_pass http://127.0.0.1:{upstream}; }} }}\n"
            f" server {{ listen 127.0.0.1:{self.back}; location / {{ return 200 'ok\\n'; }} }} }}\n")

    def start(self):
        if self.kind == "postgres":
            data = pathlib.Path(self.data)
            data.mkdir(mode=0o700)
            account = pwd.getpwnam("postgres")
            os.chown(data, account.pw_uid, account.pw_gid)
            os.chmod(self.log, 0o666)
            subprocess.run([str(POSTGRES.parent / "initdb"), "-D", self.data, "-A", "trust", "-U", "postgres", "--no-sync"], check=True, capture_output=True, user="postgres", cwd="/")
        if self.kind == "nginx":
            subprocess.run(self.command, check=True, capture_output=True)
            wait_for(lambda: get(self.port)[0] == 200)
            return
        with open(self.log if self.kind == "importer" else self.stage.path(f"log/{self.name}.out"), "ab") as out:
            self.child = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd="/", user=self.user)
        pathlib.Path(self.pid_file).write_text(str(self.child.pid))
        # Reaped at once, as init would: a dead child must not look alive.
        threading.Thread(target=self.child.wait, daemon=True).start()
        if self.front:  # up before anybody asks it through the front: a start is no fault
            wait_for(lambda: get(self.port)[0] == 200)
        if self.kind == "postgres":
            wait_for(lambda: subprocess.run(["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-XAtqc", "create table if not exists stock (n int); insert into stock select 1 where not exists (select from stock)"], capture_output=True).returncode == 0, 15, 0.1)

    def pid(self):
        try:
            return int(pathlib.Path(self.pid_file).read_text())
        except (OSError, ValueError):
            return 0

    def signal(self, number):
        if pid := self.pid():
            try:
                os.kill(pid, number)
            except OSError:
                pass

    def stop(self):
        for number in (signal.SIGCONT, signal.SIGTERM):
            self.signal(number)
        pid = self.pid()
        if not wait_for(lambda: not pathlib.Path(f"/proc/{pid}").exists(), 3):
            self.signal(signal.SIGKILL)

    def healthy(self):
        """As a user from outside sees it."""
        if self.front:
            status, took = get(self.front)
            return status == 200 and not (self.slow_is_ill and took > 0.5)
        if self.kind == "redis":
            return talk(self.port, b"PING\r\n").startswith(b"+PONG")
        if self.kind == "memcached":
            return talk(self.port, b"version\r\n").startswith(b"VERSION")
        if self.kind == "importer":
            return pathlib.Path(f"/proc/{self.pid()}").exists() and self.pid() > 0
        if self.kind == "postgres":
            return subprocess.run(["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-XAtqc", "select 1"], capture_output=True, timeout=5).returncode == 0
        return False

    def probes(self):
        if self.front:
            return [{"http": f"http://127.0.0.1:{self.port}/", "timeout": "500ms" if self.slow_is_ill else "1s"}]
        if self.kind == "redis":
            return [{"command": [program("redis-cli"), "-p", str(self.port), "ping"], "timeout": "500ms"}]
        if self.kind == "memcached":
            code = "import socket,sys\ns=socket.create_connection(('127.0.0.1',int(sys.argv[1])),.4);s.settimeout(.4);s.sendall(b'version\\r\\n');sys.exit(not s.recv(9))"
            return [{"command": [PYTHON, "-c", code, str(self.port)], "timeout": "600ms"}]
        if self.kind == "postgres":
            return [{"command": [str(POSTGRES.parent / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-t", "1", "-q"], "timeout": "1500ms"}]
        return [{"command": ["/bin/sh", "-c", 'kill -0 "$(cat "$1")"', "sh", self.pid_file]}]

    def inventory(self):
        process = {"pid_file": self.pid_file, "command": self.command, "log_file": self.log if self.kind == "importer" else self.stage.path(f"log/{self.name}.out"), "cwd": "/"}
        if self.kind == "nginx":
            process["daemonizes"] = True
        if self.user:
            process["user"] = self.user
        entry = {"name": self.name, "process": process, "probes": self.probes(), "depends_on": self.depends}
        facts = {}
        for key, value in self.facts.items():
            (entry if key in ("config", "redis", "memcached", "disk", "spool") else facts)[key] = value
        if facts:
            entry["facts"] = facts
        return entry

    def sources(self):
        # A store's own log is not followed: who needs it says that it is gone.
        files = ([] if self.kind in ("redis", "memcached", "postgres") else [self.log]) + ([self.stage.path(f"log/front-{self.name}.log")] if self.front else [])
        return [{"file": f, "service": self.name} for f in files]


class Stage:
    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="healbench-"))
        os.chmod(self.folder, 0o755)
        for name in ("log", "run", "state/plugins", "state/scripts", "mount"):
            (self.folder / name).mkdir(parents=True)
        self.services, self.mounts, self.front = {}, [], None

    def path(self, name):
        return str(self.folder / name)

    def add(self, *arguments, **options):
        service = Service(self, *arguments, **options)
        self.services[service.name] = service
        return service

    def tmpfs(self, name, size="256k"):
        folder = self.folder / "mount" / name
        folder.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True).returncode:
            return None
        self.mounts.append(folder)
        (folder / "cache").mkdir()
        return str(folder)

    def start_front(self):
        """nginx before every HTTP service, as users meet them; what goes wrong stands in a log of its own per service."""
        conf = self.path("front.conf")
        kinds = " ".join(f"{k}_temp_path {self.path('run')}/front-{k};" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        servers = ""
        for s in self.services.values():
            if s.front:
                pathlib.Path(self.path(f"log/front-{s.name}.log")).touch()
                servers += (f" server {{ listen 127.0.0.1:{s.front}; error_log {self.path(f'log/front-{s.name}.log')} error; proxy_connect_timeout 1s; "
                            f"proxy_read_timeout 900ms; location / {{ proxy_pass http://127.0.0.1:{s.port}; }} }}\n")
        user = "user root;" if os.geteuid() == 0 else ""
        pathlib.Path(conf).write_text(f"{user} daemon off; worker_processes 1; pid {self.path('run/front.pid')}; error_log {self.path('log/front.log')} error;\n"
                                      f"events {{ worker_connections 512; }}\nhttp {{ access_log off; {kinds}\n{servers} }}\n")
        self.front = subprocess.Popen([program("nginx"), "-e", self.path("log/front.log"), "-c", conf], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def close(self):
        for service in self.services.values():
            service.stop()
        if self.front:
            self.front.terminate()
            self.front.wait()
        # What a supervisor started is not our child: all that runs out of the folder.
        mine = str(self.folder).encode()
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and int(entry.name) != os.getpid() and mine in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                pass
        for mount in self.mounts:
            subprocess.run(["umount", "-l", str(mount)], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class Traffic:
    """A user who asks again and again."""

    def __init__(self, service):
        self.service, self.on, self.refused, self.last_refused = service, True, 0, 0.0
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while self.on:
            status, _ = get(self.service.front, 1.2)
            if status != 200:
                self.refused += 1
                self.last_refused = time.monotonic()
            time.sleep(0.1)

    def stop(self):
        self.on = False
        self.thread.join(3)


if __name__ == "__main__":
    sys.exit("run.py is the entry")
