#!/usr/bin/env python3
"""./dev check explain: the plans of the statements that a running heald really sends, over 10 million log entries. auto_explain writes
down each of them while heald hears, heals, lists, rolls up and cleans; none may walk through a big table as a whole, unless it says
below why it must, and every index of log_entries must be one that a statement uses. The same texts are then planned by SQLite (D7).

  ./dev check explain [--quick] [--rows N]      --quick: 300,000 entries"""
import argparse
import collections
import http.client
import json
import os
import pathlib
import re
import sqlite3
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/integration")]
os.environ.setdefault("HEAL_BIN", str(ROOT / "build/release/bin"))
from harness import OPEN, Heald, touch_script, wait_for
from pg import Postgres, binaries

# Tables that grow with what is heard and healed, and how many rows they get here for each of log_entries.
BIG = {"log_entries": 1, "fingerprint_counts": 0.2, "self_heal_events": 0.02, "healing_results": 0.02, "healing_actions": 0.04, "system_bugs": 0.005}
# What may read a big table whole, and why.
WHOLE = {
    r"^SELECT COUNT\(\*\) FROM log_entries$": "the job log_cleanup counts once an hour or less; it reads an index",
    r"^SELECT r\.strategy, r\.error_class, r\.state, .* r\.started_at >= \$1 AND r\.started_at < \$2$": "figures of a period: here a month of a month",
    r"^SELECT e\.state, e\.resolution, e\.first_event_at": "figures of a period: here a month of a month",
    r"^SELECT r\.fingerprint, e\.environment, r\.strategy, r\.verified FROM healing_results r JOIN": "once at a start; a day's attempts, 7,000 here, with their events: one pass costs less",
    r"^SELECT b\.title, .* b\.error_type = \$1": "once per question to a model, which costs seconds; bugs are few",
    r"^SELECT fingerprint FROM log_entries GROUP BY fingerprint HAVING": "thinning asks once a minute which kinds have too many samples; it reads an index",
}
passed, failed = 0, []


def note(name, fault):
    global passed
    if fault:
        failed.append(name)
        print(f"FAILED {name}: {fault}", flush=True)
    else:
        passed += 1


def fill(pg, schema, rows):
    """As if heald had run for a month; 1,000 kinds of error in 20 services."""
    n = {t: max(1000, int(rows * share)) for t, share in BIG.items()}
    now = int(time.time() * 1e6)
    span = 30 * 86400 * 1_000_000
    kind = "lpad(to_hex(i % 1000), 16, '0')"
    pg.sql(f"""
INSERT INTO error_fingerprints (id, digest, mechanism, service_name, environment, log_level, error_type, pattern, stack_signature, severity, occurrence_count,
  first_seen_at, last_seen_at, last_release) SELECT lpad(to_hex(i), 16, '0'), lpad(to_hex(i), 16, '0') || repeat('0', 48), 1, 's' || i % 20, 'p', 'error', 'E', 'pattern ' || i,
  '', 'P2_minor', {rows} / 1000, {now - span}, {now - 1000}, '' FROM generate_series(0, 999) i;
INSERT INTO log_entries SELECT 'x' || i, {kind}, 's' || i % 20, 'p', 'error', 'message number ' || i, 'E', '', '{{}}', {now - span} + i * ({span} / {rows}), {now - span} + i * ({span} / {rows}),
  0, '', '', '', '', '', '', 'bulk', 1, CASE WHEN i % 50 = 0 THEN 'b' || i % {n["system_bugs"]} END FROM generate_series(1, {rows}) i;
INSERT INTO fingerprint_counts SELECT {kind}, CASE i % 3 WHEN 0 THEN 'minute' WHEN 1 THEN 'hour' ELSE 'day' END, {now - span} + i * 1000, 1 FROM generate_series(1, {n["fingerprint_counts"]}) i;
INSERT INTO system_bugs SELECT 'b' || i, 'BUG-20200101-' || lpad(i::text, 9, '0'), {kind}, 't', 'P2_minor', 'logic_bug', 'closed', 's' || i % 20, 'p', 'E' || i % 100, 'm', '', 1, {now - span} + i, {now - span} + i,
  {now - span} + i, {now - span} + i, 'rule', '[]' FROM generate_series(1, {n["system_bugs"]}) i;
INSERT INTO self_heal_events (id, fingerprint, service_name, environment, target, severity, trigger_name, state, resolution, reason, occurrence_count, first_event_at, opened_at, closed_at, updated_at,
  healed_by, incident, decision) SELECT 'e' || i, {kind}, 's' || i % 20, 'p', 's' || i % 20, 'P2_minor', 't', 'held', 'auto', '', 1, {now - span} + i, {now - span} + i * ({span} / {n["self_heal_events"]}),
  {now - span + 60_000_000} + i * ({span} / {n["self_heal_events"]}), {now}, 'act', '{{}}', '{{}}' FROM generate_series(1, {n["self_heal_events"]}) i;
INSERT INTO healing_results (id, event_id, fingerprint, service_name, target, strategy, version, build, rank, priority, confidence, score, idempotent, dry_run, state, verified, rolled_back, request, text,
  detail, evidence, started_at, ended_at, verified_at, error_class) SELECT 'r' || i, 'e' || i, {kind}, 's' || i % 20, 's' || i % 20, 'act', '1', 'b', 1, 50, 0.5, 0.5, 0, 0, 'executed', 'succeeded', '', '{{}}', '', '{{}}',
  '[]', {now - span} + i * ({span} / {n["healing_results"]}), {now}, {now}, 's/' || i % 50 FROM generate_series(1, {n["healing_results"]}) i;
INSERT INTO healing_actions SELECT 'a' || i, 'r' || (i % {n["healing_results"]} + 1), 'e' || (i % {n["healing_results"]} + 1), 'execute', i / {n["healing_results"]}, 'exec', 's', '{{}}', '', 1, 0, '{{}}', 0,
  'done', '{{}}', '', {now - span} + i, 1 FROM generate_series(1, {n["healing_actions"]}) i;
ANALYZE""", schema)
    return n


def plans(path, offset):
    """(statement, plan, longest ms, how often) of each different one that auto_explain wrote behind the offset. Millions, with big jobs: read
    piece by piece, and each text is parsed once."""
    seen = {}
    with open(path, "rb") as log:
        log.seek(offset)
        rest = b""
        while True:
            piece = log.read(1 << 26)
            text = rest + piece
            cut = text.rfind(b" LOG:  duration: ") if piece else len(text)
            rest = text[max(cut, 0):]
            for ms, block in re.findall(rb"duration: ([\d.]+) ms  plan:\n((?:\t.*\n?)+)", text[:max(cut, 0)]):
                longest, often = seen.get(block, (0.0, 0))
                seen[block] = (max(longest, float(ms)), often + 1)
            if not piece:
                break
    for block, (longest, often) in seen.items():
        try:
            found = json.loads(re.sub(r"(?m)^\t", "", block.decode(errors="replace")))
        except ValueError:
            continue
        yield re.sub(r"\s+", " ", found.get("Query Text", "")).strip(), found["Plan"], longest, often


def nodes(plan):
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def exercise(h):
    """All that heald does with its store: hears, opens bugs, heals, lists and filters, runs its jobs."""
    h.loaded("act")
    for i in range(4):
        h.log_error("boom in a big store", service="s1")
    event = h.ended("s1")[0]
    h.get(f"/api/v1/healing/events/{event['id']}")
    h.get(f"/api/v1/healing/events/{event['id']}/why")
    for query in ("", "&fingerprint=00000000000000aa", "&service_name=s1", "&log_level=error"):
        h.get(f"/api/v1/logs?limit=50{query}")
    described = h.get("/api/v1/openapi.json")["paths"]
    for path, methods in sorted(described.items()):
        if "get" in methods and "{" not in path and "stream" not in path and not path.endswith(("/live", "/feed", "/events/stream")):
            full = path if path.startswith("/api") or path in ("/health", "/ready", "/metrics") else "/api/v1" + path
            if not any(word in str(methods["get"]) for word in ("event-stream",)):
                h.call("GET", full + ("?limit=50" if "limit" in str(methods["get"]) else ""))
    h.get("/api/v1/fingerprints/00000000000000aa")
    bug = h.get("/api/v1/system/bugs?limit=1")["items"][0]
    h.get(f"/api/v1/system/bugs/{bug['id']}")
    # The job that thins samples comes last: it has the most to do.
    for job in sorted(h.get("/api/v1/jobs")["items"], key=lambda j: j["job_name"] == "log_sampling"):
        answers = []

        def run_job(name=job["job_name"]):
            try:
                answers.append(h.call("POST", f"/api/v1/jobs/{name}/run"))
            except (OSError, http.client.HTTPException):
                pass  # heald is killed meanwhile

        runner = threading.Thread(target=run_job, daemon=True)
        runner.start()
        runner.join(120 if job["job_name"] != "log_sampling" else 5)  # the first thinning of so much takes its time; its statements are seen
        # 409: its own hour came just then; its statements are seen all the same.
        assert not answers or answers[0].status in (200, 202, 409), answers[0].text


def on_postgresql(rows):
    with Postgres(autovacuum="off", max_wal_size="'4GB'", shared_buffers="'256MB'") as pg:
        url = pg.schema("big")
        # What is kept is not the question here.
        config = {**OPEN, "store": {"url": url}, "services": [{"name": "s1"}], "retention": {"log_entries": "3650d", "log_rows": 0, "healing": "3650d"}}
        h = Heald(config)
        try:
            h.stop()
            began = time.monotonic()
            n = fill(pg, "big", rows)
            print(f"{n} rows after {time.monotonic() - began:.0f} s", flush=True)
            pg.sql("ALTER DATABASE postgres SET session_preload_libraries = 'auto_explain'")
            for key, value in (("log_min_duration", "0"), ("log_format", "'json'"), ("log_nested_statements", "on")):
                pg.sql(f"ALTER DATABASE postgres SET auto_explain.{key} = {value}")
            before = pg.log.stat().st_size
            h.script("act.lua", touch_script("act", h.folder / "ledger", matches='{ message = "boom" }'))
            h.start(120)
            exercise(h)
            h.kill()
            return n, list(plans(pg.log, before)), pg.sql("SELECT indexname FROM pg_indexes WHERE schemaname = 'big' AND tablename = 'log_entries'")
        finally:
            h.close()


def on_sqlite(texts):
    """The plans of the same texts on a store that heald made."""
    with Heald(OPEN) as h:
        path = h.state / "heald.db"
        h.log_error("one")
        h.stop()
        db = sqlite3.connect(path)
        out = {}
        for text in texts:
            try:
                out[text] = [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + text, {str(i): None for i in range(1, 60)}).fetchall()]
            except (sqlite3.Error, sqlite3.Warning):
                continue  # a statement of PostgreSQL's own
        db.close()
        return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true")
    p.add_argument("--rows", type=int)
    a = p.parse_args()
    if binaries() is None:
        print("no PostgreSQL server is installed; ./dev setup installs it\n0 passed, 0 failed, 1 skipped")
        return 0
    rows = a.rows or (300_000 if a.quick else 10_000_000)
    report = {"rows": rows, "statements": []}
    try:
        sizes, found, indexes = on_postgresql(rows)
        allowed = lambda text: next((why for pattern, why in WHOLE.items() if re.search(pattern, text)), None)
        by_text = collections.defaultdict(list)
        for text, plan, ms, often in found:
            by_text[text].append((plan, ms, often))
        used = set()
        for text, runs in sorted(by_text.items()):
            whole, touched = set(), set()
            for plan, *_ in runs:
                for node in nodes(plan):
                    table = node.get("Relation Name")
                    used.add(node.get("Index Name"))
                    if table in BIG:
                        touched.add(table)
                        # A plan for a handful of rows of a table that is small here says nothing.
                        if node["Node Type"] == "Seq Scan" and sizes[table] >= 10_000:
                            whole.add(table)
            if not touched:
                continue
            report["statements"].append({"text": text[:300], "tables": sorted(touched), "runs": sum(often for *_, often in runs), "ms_max": max(ms for _, ms, _ in runs), "whole": sorted(whole), "why": allowed(text)})
            note(f"postgresql: {text[:110]}", f"reads {sorted(whole)} as a whole" if whole and not allowed(text) else None)
        note("there was something to see", None if len(report["statements"]) > 20 else f"only {len(report['statements'])} statements")
        for (name,) in indexes:
            note(f"index {name}", None if name in used else "no statement of heald uses it")
        for text, steps in on_sqlite([s for s in by_text if re.match(r"(?i)SELECT|UPDATE|DELETE|WITH", s)]).items():
            bad = [step for step in steps if re.match(rf"SCAN (TABLE )?({'|'.join(BIG)})\b(?!.*USING)", step)]
            note(f"sqlite: {text[:110]}", f"{bad}" if bad and not allowed(text) else None)
    except Exception as error:  # noqa: BLE001
        note("the run", f"{type(error).__name__}: {error}"[-3000:])
    report.update(passed=passed, failed=failed)
    (ROOT / "build/reports").mkdir(parents=True, exist_ok=True)
    (ROOT / "build/reports/explain.json").write_text(json.dumps(report, indent=1))
    slow = sorted(report["statements"], key=lambda s: -s["ms_max"])[:5]
    for s in slow:
        print(f"{s['ms_max']:9.1f} ms  {s['text'][:120]}")
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
