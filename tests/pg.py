#!/usr/bin/env python3
"""A PostgreSQL of the tests' own: made in a temporary folder, on a free port of 127.0.0.1, never as root. Standard library only.

  pg.py serve --announce FILE [--fsync]   writes its url to FILE, runs until standard input ends
"""
import argparse
import glob
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time


def binaries():
    """The folder of initdb and postgres, or None when no server is installed."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda p: int(p.split("/")[4]) if p.split("/")[4].isdigit() else 0)
    if found:
        return pathlib.Path(found[-1]).parent
    initdb = shutil.which("initdb")
    return pathlib.Path(os.path.realpath(initdb)).parent if initdb else None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Postgres:
    def __init__(self, fsync=False, port=None, start=True, folder=None, **settings):
        self.bin = binaries()
        if self.bin is None:
            raise FileNotFoundError("no PostgreSQL server is installed; ./dev setup installs it")
        self.own = folder is None
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="heald-pg-"))
        self.port = port or free_port()
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.process = None
        # PostgreSQL refuses to run as root.
        self.user = None
        if os.geteuid() == 0:
            for name in ("postgres", "nobody"):
                try:
                    self.user = pwd.getpwnam(name)
                    break
                except KeyError:
                    pass
            self.folder.mkdir(exist_ok=True)
            os.chmod(self.folder, 0o755)
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        if not self.data.exists():
            self._run([self.bin / "initdb", "-D", self.data, "-U", "heald", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"])
        chosen = {"listen_addresses": "'127.0.0.1'", "port": self.port, "unix_socket_directories": f"'{self.folder}'", "max_connections": 60,
                  "shared_buffers": "'64MB'", "fsync": "on" if fsync else "off", "logging_collector": "off", **settings}
        with open(self.data / "postgresql.auto.conf", "w") as f:
            f.writelines(f"{key} = {value}\n" for key, value in chosen.items())
        if start:
            self.start()

    def _drop(self):
        if self.user:
            os.setgroups([])
            os.setgid(self.user.pw_gid)
            os.setuid(self.user.pw_uid)

    def _run(self, command):
        done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=self._drop,
                              cwd=self.folder)
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stdout}")

    def start(self):
        with open(self.log, "a") as out:
            self.process = subprocess.Popen([self.bin / "postgres", "-D", self.data], stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                            preexec_fn=self._drop, cwd=self.folder)
        end = time.monotonic() + 30
        while True:
            try:
                self.sql("SELECT 1")
                return self
            except RuntimeError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("PostgreSQL did not start:\n" + self.log.read_text()[-3000:])
                time.sleep(0.02)

    def url(self, schema=None, port=None):
        text = f"postgresql://heald@127.0.0.1:{port or self.port}/postgres"
        return text + (f"?options=-csearch_path%3D{schema}" if schema else "")

    def sql(self, text, schema=None):
        """Rows as lists of texts."""
        done = subprocess.run(["psql", "-X", "-q", "-A", "-t", "-F", "\x1f", "-R", "\x1e", "-v", "ON_ERROR_STOP=1", self.url(schema), "-c", text],
                              capture_output=True, text=True, env=dict(os.environ, PGCONNECT_TIMEOUT="3"))
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        out = done.stdout.removesuffix("\n").removesuffix("\x1e")
        return [row.split("\x1f") for row in out.split("\x1e")] if out else []

    def schema(self, name):
        """An empty schema of its own; the url of a store in it."""
        self.sql(f"DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}")
        return self.url(name)

    def stop(self, how=signal.SIGINT):
        """SIGINT: fast shutdown; SIGQUIT: as after a crash; SIGTERM: waits for clients."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def restart(self, how=signal.SIGINT):
        self.stop(how)
        return self.start()

    def close(self):
        self.stop(signal.SIGQUIT)
        if self.own:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["serve"])
    p.add_argument("--announce", required=True)
    p.add_argument("--fsync", action="store_true")
    a = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if binaries() is None:
        pathlib.Path(a.announce + ".part").write_text("none")
        os.rename(a.announce + ".part", a.announce)
        return 0
    with Postgres(fsync=a.fsync) as server:
        pathlib.Path(a.announce + ".part").write_text(server.url())
        os.rename(a.announce + ".part", a.announce)
        while sys.stdin.buffer.read(4096):
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
