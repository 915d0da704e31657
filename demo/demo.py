#!/usr/bin/env python3
"""heald heals four real services before your eyes.

  demo.py [--build build/release] [--keep] [--plain]

Starts on loopback, in a folder of its own: a cart service with Redis, an nginx, a mail worker and an import worker, and heald, which watches
their logs. A client from outside then breaks them one after the other and looks at them as a user would:

  cart      a poisoned value in Redis: every read of that cart fails
  web       nginx gets a configuration that sends its requests to a dead port
  mailer    the worker takes a lock and never gives it back: it hangs
  importer  the worker dies of one input file, with a stack trace, and would die again

Exit code 0: all four were healed, each by another strategy, and the client has seen them healthy. --keep leaves everything running.
"""
import argparse
import atexit
import datetime
import http.client
import json
import os
import pathlib
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTHON = "/usr/bin/python3"
HEAL_WITHIN_S = 60


# ---- Small things ---------------------------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def request(port, method, path, body=None, timeout=2.0):
    """(status, body); (0, reason) when there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers={"Content-Type": "application/json"} if body else {})
        reply = connection.getresponse()
        return reply.status, reply.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as e:
        return 0, str(e)
    finally:
        connection.close()


def program(name, package):
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not found:
        sys.exit(f"demo: {name} is missing; ./dev setup installs it (package {package})")
    return found


def wait_for(check, what, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.02)
    if what:
        sys.exit(f"demo: {what} within {seconds} s")
    return False


class Screen:
    """Lines with the time since the start of the show; colours on a terminal."""

    def __init__(self, plain):
        self.colour = sys.stdout.isatty() and not plain and "NO_COLOR" not in os.environ
        self.began = time.time()
        self.lock = threading.Lock()

    def paint(self, text, code):
        return f"\033[{code}m{text}\033[0m" if self.colour else text

    def line(self, who, text, code="0", at=None):
        seconds = (at if at is not None else time.time()) - self.began
        with self.lock:
            print(f"{self.paint(f'{seconds:7.2f} s', '2')}  {who:<9} {self.paint(text, code)}", flush=True)

    def title(self, text):
        with self.lock:
            print("\n" + self.paint(text, "1"), flush=True)


# ---- The four services, and how a client from outside breaks and judges them ----------------------------------------------------------


class Stage:
    """Everything that runs, in one folder."""

    def __init__(self, build):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="heald-demo-"))
        self.build = build
        self.children = []
        self.ports = {name: free_port() for name in ("heald", "redis", "cart", "web", "backend", "mailer")}
        for name in ("log", "run", "state", "plugins", "scripts", "spool", "done", "quarantine", "www"):
            (self.folder / name).mkdir()
        self.config_file = self.folder / "heald.yaml"

    def path(self, name):
        return str(self.folder / name)

    def log(self, name):
        return self.path(f"log/{name}.log")

    def spawn(self, name, argv, stderr=None):
        with open(stderr or self.path(f"log/{name}.out"), "ab") as out:
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        self.children.append(child)
        return child

    def worker(self, name, argv, log=None):
        """A worker that heald can start again: with a pid file, as the inventory says."""
        pathlib.Path(self.log(name)).touch()
        child = self.spawn(name, argv, log)
        pathlib.Path(self.path(f"run/{name}.pid")).write_text(str(child.pid))
        return child

    def command(self, name):
        services = str(ROOT / "demo" / "services")
        return {
            "cart": [PYTHON, f"{services}/cart.py", str(self.ports["cart"]), str(self.ports["redis"]), self.log("cart"), self.path("run/cart.pid")],
            "mailer": [PYTHON, f"{services}/mailer.py", str(self.ports["mailer"]), self.log("mailer")],
            "importer": [PYTHON, f"{services}/importer.py", self.path("spool"), self.path("done")],
            "web": [program("nginx", "nginx-light"), "-e", self.log("web"), "-c", self.path("nginx.conf")],
        }[name]

    def nginx_conf(self, upstream):
        temporary = " ".join(f"{kind}_temp_path {self.path('run')}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        return (f"{user} daemon on; worker_processes 1; pid {self.path('run/web.pid')}; error_log {self.log('web')} warn;\n"
                f"events {{ worker_connections 64; }}\n"
                f"http {{ access_log off; {temporary}\n"
                f"  server {{ listen 127.0.0.1:{self.ports['web']}; location / {{ proxy_pass http://127.0.0.1:{upstream}; }} }}\n"
                f"  server {{ listen 127.0.0.1:{self.ports['backend']}; location / {{ return 200 'hello from the backend\\n'; }} }}\n"
                f"}}\n")

    def start(self):
        redis = program("redis-server", "redis-server")
        # With its folder in its title, so that --stop finds it.
        self.spawn("redis", [redis, "--port", str(self.ports["redis"]), "--bind", "127.0.0.1", "--save", "", "--dir", self.path("run"),
                             "--proc-title-template", f"{{title}} {self.folder}"])
        wait_for(lambda: self.is_open("redis"), "Redis did not answer")
        self.worker("cart", self.command("cart"))
        self.worker("mailer", self.command("mailer"))
        self.worker("importer", self.command("importer"), self.log("importer"))
        pathlib.Path(self.path("nginx.conf")).write_text(self.nginx_conf(self.ports["backend"]))
        subprocess.run(self.command("web"), check=True)
        for name in ("cart", "mailer", "web"):
            wait_for(lambda name=name: self.is_open(name), f"{name} did not answer")
        for name in SERVICES:
            healthy, seen = SERVICES[name].look(self)
            if not healthy:
                sys.exit(f"demo: {name} is not healthy before anything was broken: {seen}")

    def is_open(self, name):
        with socket.socket() as s:
            s.settimeout(0.5)
            return s.connect_ex(("127.0.0.1", self.ports[name])) == 0

    def write_config(self):
        def process(name):
            return {"pid_file": self.path(f"run/{name}.pid"), "command": self.command(name), "log_file": self.log(name) if name == "importer" else self.path(f"log/{name}.out")}
        nginx = self.command("web")
        config = {
            "state_dir": self.path("state"), "plugins_dir": self.path("plugins"), "scripts_dir": self.path("scripts"),
            "http": {"listen": f"127.0.0.1:{self.ports['heald']}"},
            "log": {"format": "plain"},
            # Here heald may restart things by itself; as shipped it would ask first for everything that is not "safe".
            "autonomy": {"default": "auto", "max_risk": "disruptive"},
            "verify": {"timeout": "10s", "stabilize": "1s", "hold": "10m"},
            "sources": [{"file": self.log(name), "service": name} for name in SERVICES],
            "services": [
                {"name": "cart", "process": process("cart"), "probes": [{"http": f"http://127.0.0.1:{self.ports['cart']}/cart/42"}],
                 "redis": {"address": f"127.0.0.1:{self.ports['redis']}", "keys": ["cart:*"],
                           "read_through": {"address": f"127.0.0.1:{self.ports['cart']}", "paths": ["/cart/42"]}}},
                {"name": "web", "process": {**process("web"), "daemonizes": True}, "probes": [{"http": f"http://127.0.0.1:{self.ports['web']}/", "contains": "hello"}],
                 "config": {"files": [self.path("nginx.conf")], "check": [*nginx, "-t"], "reload": [*nginx, "-s", "reload"]}},
                {"name": "mailer", "process": process("mailer"),
                 "probes": [{"command": [PYTHON, "-c", "import sys,http.client as h\nc=h.HTTPConnection('127.0.0.1',int(sys.argv[1]),timeout=1)\n"
                                         "c.request('POST','/send')\nsys.exit(c.getresponse().status!=200)", str(self.ports["mailer"])]}]},
                {"name": "importer", "process": process("importer"), "spool": {"folder": self.path("spool"), "quarantine": self.path("quarantine")},
                 # A dead worker that nobody waited for yet answers kill -0; its state tells.
                 "probes": [{"command": ["/bin/sh", "-c", 'grep -q "^State:.[RSD]" "/proc/$(cat "$1")/status"', "sh", self.path("run/importer.pid")]}]},
            ],
        }
        # JSON is YAML; written so that a person can read and change it.
        self.config_file.write_text("# Written by demo.py; change it and send heald a SIGHUP.\n" + json.dumps(config, indent=2) + "\n")

    def start_heald(self):
        for artifact in sorted((self.build / "plugins").glob("*.so")):
            if artifact.stem in ("restart", "cache_flush", "config_rollback"):
                shutil.copy(artifact, self.path("plugins"))
        for script in sorted((ROOT / "scripts").glob("*.lua")):
            if not script.name.endswith(".d.lua"):
                shutil.copy(script, self.path("scripts"))
        self.write_config()
        heald = self.build / "bin" / "heald"
        if not heald.exists():
            sys.exit(f"demo: {heald} is missing; ./dev build makes it")
        self.heald = self.spawn("heald", [str(heald), "--config", str(self.config_file)])
        def ready():
            if self.heald.poll() is not None:
                sys.exit("demo: heald ended at once:\n" + pathlib.Path(self.path("log/heald.out")).read_text())
            return request(self.ports["heald"], "GET", "/ready")[0] == 200
        wait_for(ready, "heald was not ready")
        wanted = {"restart", "cache_flush", "config_rollback", "quarantine_poison"}
        wait_for(lambda: wanted <= {s["name"] for s in self.strategies()}, f"heald did not load {', '.join(sorted(wanted))}")
        # The configuration that is in force while all is well: what config_rollback will go back to.
        kept = pathlib.Path(self.path("state/config-versions"))
        wait_for(lambda: any(kept.glob("*/*/*")), "heald kept no version of nginx.conf")

    def strategies(self):
        status, body = request(self.ports["heald"], "GET", "/api/v1/strategies")
        found = []
        def walk(value):
            if isinstance(value, dict):
                if "name" in value and "priority" in value:
                    found.append(value)
                for inner in value.values():
                    walk(inner)
            elif isinstance(value, list):
                for inner in value:
                    walk(inner)
        if status == 200:
            walk(json.loads(body))
        return found

    def stop(self):
        for child in reversed(self.children):  # heald first, so that it heals nothing that we end
            end(child.pid)
            child.wait()
        stop_rest(self.folder)


def end(pid):
    """TERM, and after 10 s KILL."""
    try:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
        for _ in range(1000):
            time.sleep(0.01)
            if pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass


def stop_rest(folder):
    """Ends what runs out of the folder (what heald started is not our child), then removes it."""
    mine = str(folder).encode()
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.name) != os.getpid() and mine in (entry / "cmdline").read_bytes():
                end(int(entry.name))
        except OSError:
            pass
    shutil.rmtree(folder, ignore_errors=True)


class Cart:
    broken = "poisoned value in Redis"

    @staticmethod
    def break_it(stage):
        with socket.create_connection(("127.0.0.1", stage.ports["redis"]), 2) as s:
            s.sendall(b"SET cart:42 half-a-record\r\n")
            s.recv(100)

    @staticmethod
    def look(stage):
        status, body = request(stage.ports["cart"], "GET", "/cart/42")
        return status == 200 and json.loads(body) == ["tea", "milk"], f"GET /cart/42 -> {status or body}"


class Web:
    broken = "configuration with a dead upstream"

    @staticmethod
    def break_it(stage):
        dead = free_port()
        pathlib.Path(stage.path("nginx.conf")).write_text(stage.nginx_conf(dead))
        subprocess.run([*stage.command("web"), "-s", "reload"], check=True)
        wait_for(lambda: not Web.look(stage)[0], "nginx did not take the broken configuration")

    @staticmethod
    def look(stage):
        status, body = request(stage.ports["web"], "GET", "/")
        return status == 200 and "hello" in body, f"GET / -> {status or body}"


class Mailer:
    broken = "worker hangs on a lock"

    @staticmethod
    def break_it(stage):
        request(stage.ports["mailer"], "POST", "/send?to=deadlock", body="{}")

    @staticmethod
    def look(stage):
        status, body = request(stage.ports["mailer"], "POST", "/send", body="{}")
        return status == 200, f"POST /send -> {status or body}"


class Importer:
    broken = "worker dies of an input file"
    count = 0

    @staticmethod
    def break_it(stage):
        # Moved in whole, as a producer does, so that no half file is taken.
        draft = pathlib.Path(stage.path("order-0017.draft"))
        draft.write_text('{"id": 17, "items": [')
        draft.rename(pathlib.Path(stage.path("spool")) / "order-0017.json")

    @staticmethod
    def look(stage):
        """Gives it an order and waits for it to be taken."""
        Importer.count += 1
        name = f"order-{1000 + Importer.count}.json"
        draft = pathlib.Path(stage.path(name + ".draft"))
        draft.write_text(json.dumps({"id": Importer.count}))
        draft.rename(pathlib.Path(stage.path("spool")) / name)
        taken = wait_for((pathlib.Path(stage.path("done")) / name).exists, None, 0.5)
        return taken, f"order {Importer.count} " + ("was imported" if taken else "lies in the spool")


SERVICES = {"cart": Cart, "web": Web, "mailer": Mailer, "importer": Importer}


# ---- What heald says --------------------------------------------------------------------------------------------------------------


def seconds_of(text):
    """RFC 3339 to seconds since the epoch."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def ms(us):
    return f"{us / 1000:.1f} ms" if us < 10_000_000 else f"{us / 1e6:.1f} s"


class Listener(threading.Thread):
    """Server-sent events of heald, as they come."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.events = queue.Queue()
        self.connection = http.client.HTTPConnection("127.0.0.1", port)
        self.connection.request("GET", "/api/v1/stream")
        self.stream = self.connection.getresponse()
        if self.stream.status != 200:
            sys.exit(f"demo: /api/v1/stream answered {self.stream.status}")

    def run(self):
        kind, data = "", ""
        try:
            while line := self.stream.readline():
                line = line.decode().rstrip("\r\n")
                if line.startswith("event:"):
                    kind = line[6:].strip()
                elif line.startswith("data:"):
                    data += line[5:].strip()
                elif not line and data:
                    self.events.put((kind, json.loads(data)))
                    kind, data = "", ""
        except (OSError, ValueError, http.client.HTTPException):
            pass


class Incident:
    def __init__(self, service):
        self.service = service
        self.opened = self.healed = None
        self.strategy = self.state = ""
        self.rank = self.of = 0
        self.tried = []


def narrate(screen, folder, kind, data, incidents):
    """One event of the stream as a line of the timeline."""
    def short(text, width=100):
        # Paths of this run's folder, also as they stand within a file's name.
        for long in (f"{folder}/", f"{folder}"[1:].replace("/", "%") + "%", f"{ROOT}/demo/services/"):
            text = text.replace(long, "")
        return text if len(text) <= width else text[:width - 1] + "…"

    at = seconds_of(data["at"]) if "at" in data else time.time()
    event = data.get("event", "")
    if kind == "incident":
        incidents[event] = Incident(data.get("service", "?"))
        incidents[event].opened = at
        screen.line(data.get("service", "?"), f"heard     {short(data.get('message', ''))}", "31", at)
        return
    incident = incidents.get(event)
    if incident is None:
        return
    who = incident.service
    if kind == "decision":
        incident.strategy, incident.rank, incident.of = data["strategy"], data.get("rank", 0), data.get("of", 0)
        incident.tried.append(data["strategy"])
        screen.line(who, f"chosen    {data['strategy']}, rank {data.get('rank')} of {data.get('of')} (priority {data.get('priority')}, confidence {data.get('confidence', 0):.2f})", "36", at)
    elif kind == "action" and data.get("phase") in ("execute", "undo", "rollback"):
        mark = "" if not data.get("error") else f": {short(data['error'])}"
        screen.line(who, f"  {data.get('phase', ''):<8}{short(data.get('summary', ''))} ({ms(data.get('duration_us', 0))}){mark}", "2", at)
    elif kind == "attempt" and data.get("state") != "started":
        screen.line(who, f"acted     {data.get('state')}: {short(data.get('text', ''))} ({ms(data.get('duration_us', 0))})", "33", at)
    elif kind == "verification":
        good, bad = data.get("positive", 0), data.get("negative", 0)
        screen.line(who, f"verified  {good} of {good + bad} looks say healthy", "32" if not bad else "33", at)
    elif kind == "rollback":
        screen.line(who, f"undone    {data.get('effects', 0)} effects {short(data.get('text', ''))}", "35", at)
    elif kind == "end":
        incident.state = data.get("state", "")
        if incident.state in ("healed", "held"):
            incident.healed = at
            incident.strategy = data.get("healed_by") or incident.strategy
            screen.line(who, f"HEALED    by {incident.strategy} in {ms(data.get('time_to_heal_us', 0))}", "1;32", at)
        else:
            screen.line(who, f"{incident.state}  {short(data.get('reason', ''))}", "1;31", at)


# ---- The show -----------------------------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=str(ROOT / "build" / "release"), help="folder of the build")
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end")
    parser.add_argument("--plain", action="store_true", help="no colours")
    parser.add_argument("--stop", metavar="FOLDER", help="end what --keep left running in FOLDER, and remove it")
    options = parser.parse_args()
    if options.stop:
        folder = pathlib.Path(options.stop).resolve()
        if not (folder.name.startswith("heald-demo-") and (folder / "heald.yaml").exists()):
            sys.exit(f"demo: {folder} is no folder of a demo")
        stop_rest(folder)
        return 0
    sys.stdout.reconfigure(errors="replace")

    stage = Stage(pathlib.Path(options.build).resolve())
    atexit.register(lambda: stage.stop() if not stage_kept else None)
    stage_kept = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    screen = Screen(options.plain)
    screen.title("Four services start, and heald with them")
    stage.start()
    stage.start_heald()
    listener = Listener(stage.ports["heald"])
    listener.start()
    names = ", ".join(f"{s['name']} ({s['priority']})" for s in sorted(stage.strategies(), key=lambda s: -s["priority"]))
    screen.line("heald", f"ready on 127.0.0.1:{stage.ports['heald']}; strategies by priority: {names}")
    screen.line("client", "sees all four healthy", "32")

    incidents, results = {}, {}
    screen.title("Now they break")
    for name, service in SERVICES.items():
        broken_at = time.time()
        service.break_it(stage)
        screen.line("client", f"breaks {name}: {service.broken}", "1")
        failures = 0
        seen_healthy_at = None
        end = time.monotonic() + HEAL_WITHIN_S
        next_look = time.monotonic()
        while time.monotonic() < end:
            try:
                narrate(screen, stage.folder, *listener.events.get(timeout=0.05), incidents)
                continue
            except queue.Empty:
                pass
            own = [i for i in incidents.values() if i.service == name]
            settled = own and all(i.state for i in own)
            if time.monotonic() >= next_look and (seen_healthy_at is None or settled):
                # A user goes on using it: this is what makes the errors appear in the logs.
                next_look = time.monotonic() + 0.3
                healthy, seen = service.look(stage)
                if not healthy:
                    failures += 1
                    seen_healthy_at = None
                    if failures == 1:
                        screen.line("client", f"notices   {seen}", "31")
                elif seen_healthy_at is None and (failures or settled):
                    seen_healthy_at = time.time()
                    screen.line("client", f"sees      {seen}: " + ("healthy again" if failures else "it was over before the client noticed"), "32")
            if settled and seen_healthy_at is not None:
                break
        own = [i for i in incidents.values() if i.service == name]
        results[name] = {"broken_at": broken_at, "seen": seen_healthy_at, "incidents": own, "failures": failures}
        print(flush=True)

    # The last word is the client's: all four, now, from outside.
    ok = True
    rows = []
    used = []
    for name, service in SERVICES.items():
        r = results[name]
        healthy, seen = service.look(stage)
        healed = [i for i in r["incidents"] if i.healed]
        first = min((i.opened for i in r["incidents"]), default=None)
        good = healthy and bool(healed) and r["seen"] is not None
        ok = ok and good
        if healed:
            used.append(healed[-1].strategy)
        rows.append([
            name, service.broken, healed[-1].strategy if healed else "-", f"{healed[-1].rank} of {healed[-1].of}" if healed else "-",
            f"{(first - r['broken_at']) * 1000:.0f} ms" if first else "-", f"{healed[-1].healed - r['broken_at']:.2f} s" if healed else "-",
            f"{r['seen'] - r['broken_at']:.2f} s" if r["seen"] else "-", "healthy" if healthy else f"BROKEN: {seen}"])
    head = ["service", "what broke", "healed by", "rank", "MTTD", "MTTR", "client sees it", "now, from outside"]
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    screen.title("What broke, what healed it")
    for row in [head, ["-" * w for w in widths], *rows]:
        print("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths)).rstrip())
    print("\nMTTD: from the fault to the open incident. MTTR: from the fault to the last verification, stabilization included.")
    if len(set(used)) != len(SERVICES):
        ok = False
        print("Not four different strategies: " + ", ".join(used or ["none"]))
    print(screen.paint("All four healed and verified from outside." if ok else "NOT all four healed.", "1;32" if ok else "1;31"))

    if not ok:
        print("\nheald's log:\n" + pathlib.Path(stage.path("log/heald.out")).read_text()[-6000:])
    if options.keep:
        stage_kept.append(True)
        ctl = f"{stage.build}/bin/healctl --server http://127.0.0.1:{stage.ports['heald']}"
        print(f"""
Everything goes on running in {stage.folder} (heald is process {stage.heald.pid}). Try next:
  what happened       {ctl} event list;  {ctl} event show ID
  drop a strategy in  cp my_strategy.so {stage.path('plugins')}/        (listed within a second: {ctl} strategy list)
  edit a script       $EDITOR {stage.path('scripts/quarantine_poison.lua')}
  change a priority   {ctl} strategy set restart --priority 95      (then it is tried first)
  break it again      redis-cli -p {stage.ports['redis']} set cart:42 poison; curl http://127.0.0.1:{stage.ports['cart']}/cart/42
  end it              {sys.argv[0]} --stop {stage.folder}""")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
