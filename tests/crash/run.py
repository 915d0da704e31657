#!/usr/bin/env python3
"""Kills heald at each of its numbered points and at random moments, on SQLite and on PostgreSQL, and checks the store against the
journal that the victims write themselves: nothing acknowledged is lost, nothing counts twice, nothing that must not run twice does,
and the limits of the guards hold over all the lives of the process together.

  ./dev check crash [--quick] [--only points|random] [--engine sqlite|postgresql] [--seed N]

The points exist in the preset dev (HEAL_FAULTS, with sanitizers); random moments are tried on the release build."""
import argparse
import collections
import http.client
import json
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/integration")]
os.environ.setdefault("HEAL_BIN", str(ROOT / "build/release/bin"))
import harness
from check_invariants import check
from harness import OPEN, Heald, wait_for
from pg import Postgres, binaries

DEV = ROOT / "build/dev/bin"
RELEASE = pathlib.Path(os.environ.get("HEAL_RELEASE", ROOT / "build/release/bin"))
passed, failed = 0, []


def note(name, faults):
    global passed
    if faults:
        failed.append(name)
        print(f"FAILED {name}: {faults}", flush=True)
    else:
        passed += 1


def script(name, ledger, priority, idempotent, extra=""):
    """Writes down its start by itself, then changes a file in a way that can be taken back."""
    return f"""
return {{
  name = "{name}", version = "1.0.0", summary = "test", priority = {priority}, confidence = 0.5, risk = "safe",
  timeout_ms = 5000, matches = {{ {{}} }}, idempotent = {str(idempotent).lower()},
  capabilities = {{ "exec:/bin/sh", "file:{ledger.parent}/**" }},
  execute = function(request, call)
    call.exec {{ argv = {{ "/bin/sh", "-c", "echo " .. request.attempt .. " {name} >> {ledger}" }} }}
    call.write_file {{ path = "{ledger.parent}/{name}.conf", content = request.attempt }}
    {extra}
    return {{ outcome = "succeeded" }}
  end }}"""


class Case:
    """One heald with its store, ledger and a service that is healthy once `good` has acted."""

    def __init__(self, binaries_, server, limits=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="heald-crash-"))
        self.ledger = self.folder / "ledger"
        self.server, self.schema = server, None
        config = {**OPEN, "verify": {"timeout": "0ms", "stabilize": "0ms", "hold": "0ms"},
                  "limits": {**OPEN["limits"], **(limits or {})},
                  "services": [{"name": "cart", "probes": [{"command": ["/usr/bin/test", "-f", str(self.folder / "healthy")]}]}]}
        if server:
            self.schema = f"c{time.monotonic_ns()}"
            config["store"] = {"url": server.schema(self.schema)}
        harness.BIN = binaries_
        self.heald = Heald(config, start=False)
        # The first does not help and is taken back, the second does.
        self.heald.script("bad.lua", script("bad", self.ledger, 60, False))
        self.heald.script("good.lua", script("good", self.ledger, 50, True, f'call.write_file {{ path = "{self.folder}/healthy", content = "yes" }}'))

    def start(self, env=None):
        self.heald.env = dict(os.environ, ASAN_OPTIONS="detect_leaks=0", **(env or {}))
        try:
            self.heald.start(30)
            return True
        except AssertionError:
            if self.heald.process.poll() is None:
                raise
            return False  # it was killed before it was ready

    def send(self, key, message, timeout=20):
        """As a careful client: the same key again until it is acknowledged, also across a death; True then."""
        body = json.dumps({"service_name": "cart", "log_level": "error", "message": message})
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            try:
                if self.heald.call("POST", "/api/v1/logs", body, {"Idempotency-Key": key}, raw=True).status == 202:
                    return True
            except (OSError, ValueError, http.client.HTTPException):
                pass
            if self.heald.process.poll() is not None:
                return False
            time.sleep(0.01)
        return False

    def quiet(self, timeout=30):
        wait_for("open incidents end", lambda: self.heald.get("/api/v1/status")["open_incidents"] == 0, timeout)

    def faults(self, expect):
        store = self.heald.state / "heald.db" if not self.server else self.server.url(self.schema)
        bad = [f"{name}: {text}" for name, text, broken in check(store, self.ledger, expect) if broken]
        starts = [line.split() for line in self.ledger.read_text().splitlines()] if self.ledger.exists() else []
        twice = [a for a, n in collections.Counter(a for a, name in starts if name == "bad").items() if n > 1]
        if twice:
            bad.append(f"not idempotent, yet twice: {twice}")
        left = self.folder / "bad.conf"
        if left.exists() and not self.verified(left.read_text()):
            bad.append("the effect of what did not help was not taken back")
        sanitizer = [line for line in self.heald.log if "Sanitizer" in line or "runtime error" in line]
        return bad + sanitizer[:2]

    def verified(self, attempt):
        """Did this attempt help? Then what it wrote stays."""
        return self.count(f"id = '{attempt}' AND verified IN ('succeeded', 'did_not_hold')") == 1

    def count(self, condition):
        """Attempts in the store of which this holds."""
        sql = f"SELECT COUNT(*) FROM healing_results WHERE {condition}"
        if self.server:
            return int(self.server.sql(sql, self.schema)[0][0])
        with sqlite3.connect(f"file:{self.heald.state}/heald.db?mode=ro", uri=True) as db:
            return db.execute(sql).fetchone()[0]

    def close(self):
        try:
            if self.heald.process and self.heald.process.poll() is None:
                self.heald.kill()
        finally:
            shutil.rmtree(self.heald.folder, ignore_errors=True)
            shutil.rmtree(self.folder, ignore_errors=True)
            if self.server:
                self.server.sql(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")


def life(case, env):
    """One incident with a fault somewhere in it; ends with a healthy heald that has nothing open."""
    acknowledged = 0
    alive = case.start(env)
    if alive:
        try:
            case.heald.loaded("good")
            case.heald.loaded("bad")
        except (OSError, AssertionError, http.client.HTTPException):
            alive = case.heald.process.poll() is None
    died = not alive
    for i in range(2):
        if alive and case.send(f"k{i}", f"cannot reach node {i}"):
            acknowledged += 1
        alive = alive and case.heald.process.poll() is None
        if alive:
            try:
                case.quiet()
            except (OSError, ValueError, http.client.HTTPException):
                alive = False
        if not alive:
            died = True
            case.heald.process.wait()
            case.start()
            case.heald.loaded("good")
            case.heald.loaded("bad")
            # Sent again with its key: it may have been taken before it died, and counts once.
            if case.send(f"k{i}", f"cannot reach node {i}"):
                acknowledged = i + 1
            case.quiet()
            alive = True
    # What was left behind is seen at the latest at the next start.
    case.heald.stop()
    case.start()
    case.quiet()
    case.heald.stop()
    return acknowledged, died


def points_of(server):
    """How often each point is passed in one life."""
    case = Case(DEV, server)
    try:
        log = case.folder / "points"
        life(case, {"HEAL_FAULT_LOG": str(log)})
        return collections.Counter(log.read_text().split())
    finally:
        case.close()


def try_points(server, engine, per_point, fails):
    counts = points_of(server)
    print(f"{engine}: points {dict(counts)}", flush=True)
    done = 0
    for name, n in sorted(counts.items()):
        chosen = sorted({max(1, round(1 + (n - 1) * i / max(1, per_point - 1))) for i in range(per_point)}) if per_point > 1 else [max(1, n * 2 // 3)]
        acts = [(k, "kill") for k in chosen]
        if fails and name in ("commit.before", "send.before", "fsync.before", "pg.send", "pg.commit"):
            acts += [(k, "fail") for k in chosen]
        for k, what in acts:
            case = Case(DEV, server)
            label = f"{engine} {what} at {name}:{k}"
            try:
                acknowledged, died = life(case, {"HEAL_FAULT": f"{name}:{k}:{what}"})
                note(label, case.faults(acknowledged))
                done += died
            except Exception as error:  # noqa: BLE001 - one case must not end the suite
                note(label, [f"{type(error).__name__}: {error}"[-1500:]])
            finally:
                case.close()
    return done


def try_random(server, engine, kills, seed):
    """Load from four senders while heald dies again and again; what was acknowledged is counted by the senders."""
    rng = random.Random(seed)
    limit = 40
    case = Case(RELEASE, server, {"target_per_hour": limit, "attempts_per_incident": 5})
    acknowledged, stop = [], threading.Event()

    def sender(number):
        n = 0
        while not stop.is_set():
            key = f"s{number}-{n}"
            while not stop.is_set() or n < 0:
                body = "\n".join(json.dumps({"service_name": "cart", "log_level": "error", "message": f"{w} failed {n}"}) for w in ("alpha", "beta", "gamma"))
                try:
                    if case.heald.call("POST", "/api/v1/logs", body, {"Idempotency-Key": key}, raw=True).status == 202:
                        acknowledged.append(key)
                        break
                except (OSError, ValueError, http.client.HTTPException):
                    pass
                time.sleep(0.002)
            else:
                open_keys.append((key, n))
            n += 1

    open_keys = []
    try:
        case.start()
        case.heald.loaded("good")
        threads = [threading.Thread(target=sender, args=(i,), daemon=True) for i in range(3)]
        for t in threads:
            t.start()
        for i in range(kills):
            time.sleep(rng.random() * 0.25)
            if rng.random() < 0.3:
                (case.folder / "healthy").unlink(missing_ok=True)
            case.heald.kill()
            case.start()
        stop.set()
        for t in threads:
            t.join(20)
        # What was under way when they stopped is settled by sending it once more.
        for key, n in open_keys:
            body = "\n".join(json.dumps({"service_name": "cart", "log_level": "error", "message": f"{w} failed {n}"}) for w in ("alpha", "beta", "gamma"))
            wait_for("the last are taken", lambda: case.heald.call("POST", "/api/v1/logs", body, {"Idempotency-Key": key}, raw=True).status == 202)
            acknowledged.append(key)
        # Incidents may stay open here: the limit that this tests holds them, or this pause. Attempts under way end; without the pause the
        # next one could begin just before the stop, and what it did would rightly wait for the next start to be judged.
        case.heald.call("POST", "/api/v1/pause", {"reason": "the end of the test"})
        for _ in range(2):  # one that was allowed before the pause may have had its intent still to write
            wait_for("attempts end", lambda: case.count("undecided = 1") == 0, 60)
            time.sleep(0.2)
        case.heald.stop()
        bad = case.faults(3 * len(acknowledged))
        attempts = {line.split()[0] for line in case.ledger.read_text().splitlines()} if case.ledger.exists() else set()
        if len(attempts) > limit:
            bad.append(f"{len(attempts)} attempts on one target, {limit} an hour are allowed: a kill made it forget")
        print(f"{engine}: {kills} random kills, {3 * len(acknowledged)} events acknowledged, {len(attempts)} attempts of at most {limit}", flush=True)
        note(f"{engine} {kills} random kills", bad)
        return len(acknowledged) * 3
    except Exception as error:  # noqa: BLE001
        note(f"{engine} {kills} random kills", [f"{type(error).__name__}: {error}"[-3000:]])
        return 0
    finally:
        stop.set()
        case.close()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true")
    p.add_argument("--only", choices=["points", "random"])
    p.add_argument("--engine", choices=["sqlite", "postgresql"])
    p.add_argument("--seed", type=int, default=int(time.time()))
    a = p.parse_args()
    print(f"seed {a.seed}", flush=True)
    engines = [a.engine] if a.engine else ["sqlite", "postgresql"]
    if binaries() is None and "postgresql" in engines:
        print("no PostgreSQL server is installed: only SQLite is tried", flush=True)
        engines.remove("postgresql")
    wanted = ["heald", "heal-host", *([] if a.quick else ["store_power_test"])]
    if not all((DEV / name).exists() for name in wanted) and a.only != "random":
        subprocess.run(["cmake", "--preset", "dev"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["cmake", "--build", "build/dev", "--target", *wanted], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    report = {"seed": a.seed}
    for engine in engines:
        server = Postgres() if engine == "postgresql" else None
        try:
            if a.only != "random":
                report[f"{engine}_deaths_at_points"] = try_points(server, engine, 1 if a.quick else 4, not a.quick)
            if a.only != "points":
                kills = 10 if a.quick else 250
                report[f"{engine}_random_kills"] = kills
                report[f"{engine}_acknowledged"] = try_random(server, engine, kills, a.seed)
        finally:
            if server:
                server.close()
    if not a.only and not a.quick:
        done = subprocess.run([DEV / "store_power_test"], env=dict(os.environ, HEAL_SEEDS="1000"), capture_output=True, text=True)
        note("1000 power cuts", [] if done.returncode == 0 else [done.stdout[-2000:]])
    report.update(passed=passed, failed=failed)
    (ROOT / "build/reports").mkdir(parents=True, exist_ok=True)
    (ROOT / "build/reports/crash.json").write_text(json.dumps(report, indent=1))
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
