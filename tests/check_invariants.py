#!/usr/bin/env python3
"""Checks the invariants of heald over its store, the ledger that actions write themselves, and its counters. Prints one line each
and exits 1 when one is broken. Run it on a store that no heald is writing to.

  check_invariants.py --store STATE/heald.db|postgresql://… [--ledger FILE] [--expect N] [--idempotent NAME ...]
    ledger  lines "ATTEMPT_ID …", one per start of an action
    expect  records that were acknowledged; none may be missing and none counted twice
"""
import argparse
import hashlib
import json
import pathlib
import sqlite3
import subprocess
import sys


def postgresql_rows(url, sql):
    done = subprocess.run(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url, "-c", f"SELECT row_to_json(t) FROM ({sql}) t"],
                          capture_output=True, text=True, check=True)
    # Columns without a name share one; a list of pairs keeps them all.
    return [tuple(value for _, value in json.loads(line, object_pairs_hook=list)) for line in done.stdout.splitlines()]


def check(store, ledger=None, expect=None, idempotent=()):
    on_postgresql = str(store).startswith("postgresql:")
    if on_postgresql:
        rows = lambda sql: postgresql_rows(str(store), sql)
    else:
        db = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
        rows = lambda sql: db.execute(sql).fetchall()
    found = []

    def verdict(name, text, broken):
        found.append((name, text, broken))

    # I1: what was taken in is stored or counted, exactly.
    stored = rows("SELECT COALESCE(SUM(occurrence_count), 0) FROM error_fingerprints")[0][0]
    taken = rows("SELECT COALESCE(SUM(records), 0), COALESCE(SUM(lines), 0), COALESCE(SUM(records + below_level + malformed + self + joined), 0) FROM ingest_totals")[0]
    hours = rows("SELECT COALESCE(SUM(count), 0) FROM fingerprint_counts WHERE resolution = 'day'")[0][0]
    verdict("I1", f"{stored} occurrences stored, {taken[0]} records taken, {hours} in daily counts", not stored == taken[0] == hours)
    verdict("I1", f"{taken[1]} lines = {taken[2]} accounted for", taken[1] != taken[2])
    represented = rows("SELECT COALESCE(SUM(represents), 0) FROM log_entries")[0][0]
    verdict("I1", f"samples stand for {represented}", represented != stored)
    if expect is not None:
        verdict("I1", f"{expect} acknowledged, {stored} stored", stored != expect)
    # I2, I3: no effect without an intent, none twice unless it may.
    attempts = {r[0]: r for r in rows("SELECT id, strategy, idempotent, state, started_at, dry_run FROM healing_results")}
    if ledger and pathlib.Path(ledger).exists():
        starts = [line.split()[0] for line in pathlib.Path(ledger).read_text().splitlines() if line.strip()]
        missing = [s for s in starts if s not in attempts]
        twice = {s for s in starts if starts.count(s) > 1 and s in attempts and not attempts[s][2] and attempts[s][1] not in idempotent}
        verdict("I2", f"{len(starts)} starts, {len(twice)} of a non-idempotent attempt twice", bool(twice))
        verdict("I3", f"{len(missing)} starts without an intent", bool(missing))
        dry = [s for s in starts if s in attempts and attempts[s][5]]
        verdict("I3", f"{len(dry)} dry runs that acted", bool(dry))
    orphans = rows("SELECT COUNT(*) FROM healing_actions a LEFT JOIN healing_results r ON r.id = a.result_id WHERE r.id IS NULL OR a.started_at < r.started_at")[0][0]
    verdict("I3", f"{orphans} effects without or before their intent", orphans > 0)
    lost = rows("SELECT COUNT(*) FROM healing_results r JOIN self_heal_events e ON e.id = r.event_id WHERE r.state IN ('started', 'executed') "
                "AND e.state NOT IN ('open', 'awaiting_approval', 'healing', 'verifying', 'stabilizing') AND r.dry_run = 0")[0][0]
    verdict("I3", f"{lost} attempts without an end although their incident has ended", lost > 0)
    # I9: legal history; the chain of the audit log.
    overlap = rows("SELECT COUNT(*) FROM (SELECT fingerprint, environment FROM self_heal_events WHERE state IN ('open', 'awaiting_approval', "
                   "'healing', 'verifying', 'stabilizing') GROUP BY 1, 2 HAVING COUNT(*) > 1) AS doubled")[0][0]
    verdict("I9", f"{overlap} errors with two open incidents", overlap > 0)
    previous, bad, count = "", None, 0
    for seq, at, actor, action, subject, detail, before, digest in rows("SELECT seq, at, actor, action, subject, detail, previous, hash FROM audit_log ORDER BY seq"):
        count += 1
        text = "\x1f".join(str(x) for x in (previous, seq, at, actor, action, subject, detail))
        if bad is None and (seq != count or before != previous or digest != hashlib.sha256(text.encode()).hexdigest()):
            bad = seq
        previous = digest
    verdict("I9", f"{count} audit entries, chain {'intact' if bad is None else f'broken at {bad}'}", bad is not None)
    started = {r[0] for r in rows("SELECT subject FROM audit_log WHERE action = 'attempt.start'")}
    verdict("I9", f"{len(set(attempts) - started)} attempts without an audit entry", not set(attempts) <= started)
    # I10: one digest for one id.
    verdict("I10", "short ids begin their digests", rows("SELECT COUNT(*) FROM error_fingerprints WHERE substr(digest, 1, 16) <> id")[0][0] > 0)
    # I15: attempts on one incident do not overlap.
    overlapping = rows("SELECT COUNT(*) FROM healing_results a JOIN healing_results b ON a.event_id = b.event_id AND a.id < b.id AND a.dry_run = 0 "
                       "AND b.dry_run = 0 AND b.started_at < COALESCE(a.ended_at, 0)")[0][0]
    verdict("I15", f"{overlapping} overlapping attempts on one incident", overlapping > 0)
    # I18: healed means verified.
    unproven = rows("SELECT COUNT(*) FROM self_heal_events e WHERE e.state IN ('healed', 'held') AND NOT EXISTS (SELECT 1 FROM healing_results r "
                    "WHERE r.event_id = e.id AND r.verified = 'succeeded')")[0][0]
    verdict("I18", f"{unproven} healed incidents without a verified attempt", unproven > 0)
    if not on_postgresql:
        verdict("store", "integrity_check", rows("PRAGMA integrity_check")[0][0] != "ok")
    return found


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--store", required=True)
    p.add_argument("--ledger")
    p.add_argument("--expect", type=int)
    p.add_argument("--idempotent", nargs="*", default=[])
    a = p.parse_args()
    found = check(a.store, a.ledger, a.expect, a.idempotent)
    for name, text, broken in found:
        print(f"{'BROKEN' if broken else 'holds '} {name:<5} {text}")
    return 1 if any(broken for *_, broken in found) else 0


if __name__ == "__main__":
    sys.exit(main())
