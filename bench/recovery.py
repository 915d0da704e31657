#!/usr/bin/env python3
"""A start after kill -9 with many open intents: from the start of the process until it is ready, until no attempt is in doubt any more, and
until it is idle again. The intents are copies of one that a real heald was killed in, each of a kind of error and a service of its own.

  recovery.py [--intents 100000] [--runs 3] [--idempotent]
"""
import argparse
import signal
import sqlite3
import time

from common import OPEN, Heald, report, summary, wait_for

STRATEGY = """
return { name = "stuck", version = "1.0.0", risk = "safe", idempotent = %s, matches = {{ message = "boom" }},
         execute = function(request, call) call.sleep(600000) return { outcome = "succeeded" } end }
"""
TABLES = {"error_fingerprints": "id", "self_heal_events": "id", "healing_results": "id"}


def multiply(path, count):
    """The one event, attempt and fingerprint of the store, `count` times."""
    db = sqlite3.connect(path, isolation_level=None)
    db.row_factory = sqlite3.Row
    rows = {t: dict(db.execute(f"SELECT * FROM {t}").fetchone()) for t in TABLES}
    event, attempt, kind = rows["self_heal_events"]["id"], rows["healing_results"]["id"], rows["error_fingerprints"]["id"]
    digest = rows["error_fingerprints"]["digest"]
    db.execute("BEGIN")
    for t in TABLES:
        names = list(rows[t])
        sql = f"INSERT INTO {t} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        for i in range(1, count):
            new = {event: f"{event[:24]}{i:012x}", attempt: f"{attempt[:24]}{i:012x}", kind: f"{i:016x}", digest: f"{i:064x}", "app": f"app{i}"}

            def other(value):
                if not isinstance(value, str):
                    return value
                for old, fresh in new.items():
                    value = fresh if value == old else value.replace(f'"{old}"', f'"{fresh}"')
                return value
            db.execute(sql, [other(v) for v in rows[t].values()])
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def count(h, what):
    db = sqlite3.connect(f"file:{h.state / 'heald.db'}?mode=ro", uri=True)
    try:
        return db.execute(f"SELECT COUNT(*) FROM {what}").fetchone()[0]
    finally:
        db.close()


def one(intents, idempotent):
    config = {**OPEN, "log": {"level": "info", "format": "json"}}  # as by default
    with Heald(config, start=False) as h:
        (h.state / "scripts" / "stuck.lua").write_text(STRATEGY % ("true" if idempotent else "false"))
        h.start(600)
        h.loaded("stuck")
        h.log_error("boom", service="app")
        wait_for("the attempt", lambda: count(h, "healing_results WHERE state = 'started'") == 1)
        h.process.send_signal(signal.SIGKILL)
        h.process.wait()
        multiply(h.state / "heald.db", intents)
        began = time.monotonic()
        h.start(600)
        ready = time.monotonic() - began
        wait_for("no doubt", lambda: count(h, "healing_results WHERE state = 'started'") == 0, 600, 0.1)
        certain = time.monotonic() - began
        wait_for("the end", lambda: count(h, "self_heal_events WHERE state IN ('open', 'healing', 'verifying', 'stabilizing')") == 0, 900, 0.3)
        idle = time.monotonic() - began
        resident = int(next(line for line in open(f"/proc/{h.process.pid}/status") if line.startswith("VmHWM")).split()[1]) // 1024
        return ready, certain, idle, resident


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--intents", type=int, default=100_000)
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--idempotent", action="store_true")
    a = p.parse_args()
    runs = [one(a.intents, a.idempotent) for _ in range(a.runs)]
    names = ("ready_s", "no_attempt_in_doubt_s", "no_event_open_s", "resident_peak_mib")
    figures = {n: summary([r[i] for r in runs]) for i, n in enumerate(names)}
    report("recovery", {"intents": a.intents, "idempotent": a.idempotent, **figures,
                        "ratios": {"no attempt in doubt / the bar of 5 s for 100,000": round(figures["no_attempt_in_doubt_s"]["p50"] / 5, 2)}})


if __name__ == "__main__":
    main()
