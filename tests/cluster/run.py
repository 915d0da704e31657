#!/usr/bin/env python3
"""Three healds on one PostgreSQL, each behind a gate of its own, under a random mix of SIGSTOP/SIGCONT, kill -9, and connections that are
cut, slowed or half-opened; errors come in all the time. Afterwards the store and the journal that the actions write themselves are
checked: every acknowledged line counted once, every action with an intent of a node that held its fence, none twice, never two on
one target at the same time, no incident without a living node for 30 s.

  ./dev check cluster [--quick] [--seconds N] [--seed N]      10 minutes by default, 30 s with --quick"""
import argparse
import collections
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/integration")]
# The short form runs with sanitizers: three nodes in trouble use memory in ways that no unit test does.
SANITIZED = ROOT / "build/dev/bin"
os.environ.setdefault("HEAL_BIN", str(SANITIZED if "--quick" in sys.argv and (SANITIZED / "heald").exists() else ROOT / "build/release/bin"))
from check_invariants import check
from harness import OPEN, Heald, wait_for
from pg import Postgres, binaries

passed, failed = 0, []


def note(name, fault=""):
    global passed
    if fault:
        failed.append(name)
        print(f"FAILED {name}: {fault}", flush=True)
    else:
        passed += 1
        print(f"ok {name}", flush=True)


def metric(heald, name):
    """0 when it is not there yet."""
    rows = [line.split() for line in heald.call("GET", "/metrics").text.splitlines() if not line.startswith("#")]
    return sum(float(row[1]) for row in rows if row[0] == name)


def start_again(heald, done):
    """As deploy/systemd/heald.service does (Restart=always, RestartSec=1): a node that is taken for lost while it starts ends and says so."""
    for _ in range(5):
        try:
            return heald.start(60)
        except AssertionError as error:
            if "was taken for lost" not in str(error):
                raise
            done["lost while it started"] += 1
            time.sleep(1)
    raise AssertionError("lost at five starts in a row:\n" + "".join(heald.log[-30:]))


class Gate:
    """A TCP proxy whose state can be set: open, cut (resets), slow (50 ms a chunk), half (accepts and swallows)."""

    def __init__(self, port):
        self.target, self.state, self.pairs = port, "open", []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            if self.state == "cut":
                client.close()
                continue
            try:
                upstream = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self.pairs.append((client, upstream))
            for a, b in ((client, upstream), (upstream, client)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _pump(self, source, sink):
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                if self.state == "slow":
                    time.sleep(0.05)
                while self.state == "half":
                    time.sleep(0.05)
                sink.sendall(data)
        except OSError:
            pass
        # close() alone sends nothing while the other thread reads from the same socket.
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()

    def set(self, state):
        self.state = state
        if state == "cut":
            for pair in self.pairs:
                for s in pair:
                    try:
                        s.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
            self.pairs.clear()

    def close(self):
        self.set("cut")
        self.server.close()


def run(seconds, seed):
    rng = random.Random(seed)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="heald-cluster-"))
    ledger = folder / "ledger"
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
    services = ["cart", "shop", "mail"]
    # Each action writes its start and its end, so that two on one target at once are seen.
    script = f"""
return {{ name = "act", version = "1.0.0", risk = "safe", timeout_ms = 20000, matches = {{ {{}} }}, capabilities = {{ "exec:/bin/sh" }},
  execute = function(request, call)
    call.exec {{ argv = {{ "/bin/sh", "-c", "echo " .. request.attempt .. " " .. request.incident.service ..
      " $(date +%s%N) >> {ledger}; sleep 0.05; echo " .. request.attempt .. " $(date +%s%N) >> {ledger}.ends" }} }}
    return {{ outcome = "succeeded" }}
  end }}"""
    with Postgres(max_connections=80) as pg:
        pg.schema("chaos")
        gates = [Gate(pg.port) for _ in range(3)]
        nodes = []
        for i, gate in enumerate(gates):
            nodes.append(Heald({**OPEN, "verify": {"timeout": "0ms", "stabilize": "0ms", "hold": "0ms"},
                                "services": [{"name": s} for s in services], "node": f"n{i}", "store": {"url": pg.url("chaos", gate.port)}}))
            nodes[-1].script("act.lua", script)
        acknowledged, unsure, stop, lock = [0], [], threading.Event(), threading.Lock()

        def sender(number):
            mine = random.Random(seed * 100 + number)
            n = 0
            while not stop.is_set():
                n += 1
                key = f"{number}-{n}"
                body = json.dumps({"service_name": mine.choice(services), "log_level": "error", "message": f"{mine.choice(words)} is broken"})
                # A client that stays with one node until it answers: a key is one node's to know. 20 s: then its fate is asked at the end.
                node = nodes[mine.randrange(3)]
                for _ in range(400):
                    try:
                        connection = http.client.HTTPConnection("127.0.0.1", node.port or 1, timeout=5)
                        connection.request("POST", "/api/v1/logs", body, {"Idempotency-Key": key, "Content-Type": "application/json"})
                        if connection.getresponse().status == 202:
                            with lock:
                                acknowledged[0] += 1
                            break
                    except (OSError, http.client.HTTPException):
                        pass
                    if stop.is_set():
                        with lock:
                            unsure.append((key, body))
                        break
                    time.sleep(0.05)
                else:
                    with lock:
                        unsure.append((key, body))
                time.sleep(mine.random() * 0.05)

        done = collections.Counter()
        orphaned_since, worst = {}, 0.0
        try:
            for h in nodes:
                h.loaded("act")
            senders = [threading.Thread(target=sender, args=(i,), daemon=True) for i in range(4)]
            for s in senders:
                s.start()
            end = time.monotonic() + seconds
            heal_at = {}  # what is broken now: (kind, index) -> when it is made whole
            while time.monotonic() < end:
                time.sleep(0.2)
                now = time.monotonic()
                for (kind, i), until in list(heal_at.items()):
                    if now < until:
                        continue
                    del heal_at[(kind, i)]
                    if kind == "stop":
                        nodes[i].process.send_signal(signal.SIGCONT)
                    elif kind == "kill":
                        start_again(nodes[i], done)
                    else:
                        gates[i].set("open")
                # At least one node stays whole, as in any cluster that is to go on.
                broken = {i for _, i in heal_at}
                if len(broken) < 2 and rng.random() < 0.25:
                    i = rng.choice([i for i in range(3) if i not in broken])
                    kind = rng.choice(["stop", "kill", "cut", "slow", "half"])
                    done[kind] += 1
                    heal_at[(kind, i)] = now + rng.uniform(0.5, 12)
                    if kind == "stop":
                        nodes[i].process.send_signal(signal.SIGSTOP)
                    elif kind == "kill":
                        nodes[i].kill()
                        heal_at[(kind, i)] = now + rng.uniform(0.1, 9)
                    else:
                        gates[i].set(kind)
                # Incidents whose node is not alive: for how long?
                orphans = {r[0] for r in pg.sql("SELECT e.id FROM self_heal_events e WHERE e.state IN ('open', 'awaiting_approval', 'healing', 'verifying', "
                                                "'stabilizing') AND NOT EXISTS (SELECT 1 FROM event_claims c JOIN cluster_nodes n ON n.node = c.node AND n.fence = "
                                                "c.fence AND n.lease_until > EXTRACT(EPOCH FROM now()) * 1000000 WHERE c.event_id = e.id)", "chaos")}
                orphaned_since = {e: orphaned_since.get(e, now) for e in orphans}
                worst = max([worst] + [now - t for t in orphaned_since.values()])
            for (kind, i) in heal_at:
                if kind == "stop":
                    nodes[i].process.send_signal(signal.SIGCONT)
                elif kind == "kill":
                    start_again(nodes[i], done)
                else:
                    gates[i].set("open")
            stop.set()
            for s in senders:
                s.join(30)
            try:
                wait_for("all are members", lambda: {r[0] for r in pg.sql("SELECT state FROM cluster_nodes WHERE lease_until > EXTRACT(EPOCH FROM now()) * 1000000", "chaos")} == {"alive"}
                         and pg.sql("SELECT count(*) FROM cluster_nodes WHERE state = 'alive'", "chaos") == [["3"]], 60)
            except AssertionError:
                print("members:", pg.sql("SELECT node, state, fence, lease_until - EXTRACT(EPOCH FROM now()) * 1000000 FROM cluster_nodes", "chaos"))
                for row in pg.sql("SELECT pid, state, wait_event_type, wait_event, now() - xact_start, pg_blocking_pids(pid), left(query, 90) "
                                  "FROM pg_stat_activity WHERE datname = 'chaos'", "chaos"):
                    print("session:", row)
                for h in nodes:
                    print(h.process.poll(), "its log ends:", "".join(h.log[-15:]), flush=True)
                raise
            for key, body in unsure:
                wait_for("the last are taken", lambda: nodes[0].call("POST", "/api/v1/logs", body, {"Idempotency-Key": key}, raw=True).status == 202, 30)
                acknowledged[0] += 1
            # What a node wrote down while it did not reach the server is acknowledged, too; it is replayed, not lost and not set aside.
            wait_for("the journals are empty", lambda: sum(metric(h, "heald_journal_waiting_batches") for h in nodes) == 0, 60)
            note("no batch set aside", "" if sum(metric(h, 'heald_journal_batches_total{outcome="set_aside"}') for h in nodes) == 0 else "see /metrics")
            wait_for("all incidents end", lambda: pg.sql("SELECT count(*) FROM self_heal_events WHERE state IN ('open', 'healing', 'verifying', 'stabilizing')",
                     "chaos") == [["0"]], 90)
            note("no crash", "" if all(h.process.poll() is None for h in nodes) else "a node is gone")
            figures = [h.get("/api/v1/status")["cluster"] for h in nodes]
        finally:
            stop.set()
            for h in nodes:
                if h.process.poll() is None:
                    h.process.send_signal(signal.SIGCONT)
            for g in gates:
                g.set("open")
            for h in nodes:
                try:
                    h.stop()
                except AssertionError as error:
                    note("clean stop", str(error)[-300:])
        bad = [f"{n}: {t}" for n, t, broken in check(pg.url("chaos"), ledger, acknowledged[0]) if broken]
        note("invariants of the store and the journal", "; ".join(bad))
        note("no incident without a living node for 30 s", "" if worst < 30 else f"{worst:.1f} s")
        starts = [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []
        ends = {line.split()[0]: int(line.split()[1]) for line in pathlib.Path(f"{ledger}.ends").read_text().splitlines()}
        per_target = collections.defaultdict(list)
        for attempt, service, at in starts:
            per_target[service].append((int(at), ends.get(attempt, int(at)), attempt))
        overlaps = [(a, b) for spans in per_target.values() for a, b in zip(sorted(spans), sorted(spans)[1:]) if b[0] < a[1]]
        note("one action per target at a time", "" if not overlaps else f"{len(overlaps)} of {len(starts)}: {overlaps[:2]}")
        twice = [a for a, n in collections.Counter(s[0] for s in starts).items() if n > 1]
        note("no action twice", "" if not twice else str(twice))
        both = pg.sql("SELECT count(*) FROM healing_results a JOIN healing_results b ON a.event_id = b.event_id AND a.id < b.id AND b.started_at < a.ended_at", "chaos")
        note("attempts on one incident follow each other", "" if both == [["0"]] else str(both))
        note("there was something to see", "" if len(starts) > 5 and acknowledged[0] > 50 else f"{len(starts)} actions, {acknowledged[0]} lines")
        for g in gates:
            g.close()
        for h in nodes:
            h.own = True
            h.close()
        return {"seconds": seconds, "seed": seed, "faults": dict(done), "acknowledged": acknowledged[0], "actions": len(starts),
                "longest_without_node_s": round(worst, 1), "taken_over": sum(f["taken_over"] for f in figures), "times_lost": sum(f["times_lost"] for f in figures)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true")
    p.add_argument("--seconds", type=int)
    p.add_argument("--seed", type=int, default=int(time.time()))
    a = p.parse_args()
    if binaries() is None:
        print("no PostgreSQL server is installed; ./dev setup installs it\n0 passed, 0 failed, 1 skipped")
        return 0
    print(f"seed {a.seed}", flush=True)
    try:
        report = run(a.seconds or (30 if a.quick else 600), a.seed)
    except Exception as error:  # noqa: BLE001
        note("the run", f"{type(error).__name__}: {error}"[-2000:])
        report = {}
    report.update(passed=passed, failed=failed)
    print(json.dumps(report), flush=True)
    (ROOT / "build/reports").mkdir(parents=True, exist_ok=True)
    (ROOT / "build/reports/cluster.json").write_text(json.dumps(report, indent=1))
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
