#!/usr/bin/env python3
"""The store beside the raw limits of the engine under it: persisted events against a raw COPY (PostgreSQL) or raw batched insert
(SQLite) of the same events as rows, claims against a bare SKIP LOCKED loop, the size of a million errors of 1,000 kinds, the figures
query over many samples, recovery with many open intents. Medians of --runs; writes build/reports/bench-store.json.

  ./dev bench store [--events N] [--runs N] [--samples N] [--intents N]"""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/integration")]
from pg import Postgres, binaries


def bench(url, events, kinds):
    folder = tempfile.mkdtemp(prefix="heald-bench-")
    try:
        out = subprocess.run([ROOT / "build/release/bin/store_bench", url, folder, str(events), str(kinds)], capture_output=True, text=True, check=True)
        return json.loads(out.stdout)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def figures(rows, engine):
    median = lambda f: statistics.median(f(r) for r in rows)
    spread = lambda f: [min(f(r) for r in rows), max(f(r) for r in rows)]
    ratio = lambda r: r["raw_seconds"] / r["events_seconds"]
    out = {"events_per_second": round(median(lambda r: r["events"] / r["events_seconds"])), "raw_rows_per_second": round(median(lambda r: r["events"] / r["raw_seconds"])),
           "events_to_raw": round(median(ratio), 2), "events_to_raw_spread": [round(x, 2) for x in spread(ratio)],
           "row_by_row_to_raw": round(median(lambda r: r["raw_seconds"] / r["rows_seconds"]), 2)}
    if "claims_seconds" in rows[0]:
        out["claims_to_bare_loop"] = round(median(lambda r: r["bare_claims_seconds"] / r["claims_seconds"]), 2)
        out["claims_per_second"] = round(median(lambda r: r["claims"] / r["claims_seconds"]))
    return out


def stats_query(pg, samples):
    """Milliseconds of the figures over a store with so many samples and 10,000 incidents."""
    from harness import Heald
    url = pg.schema("stats")
    with Heald({"store": {"url": url}}) as h:
        pg.sql(f"INSERT INTO log_entries SELECT 'x' || i, lpad(to_hex(i % 1000), 16, '0'), 's', 'p', 'error', 'm', 'E', '', '{{}}', i, i, 0, '', '', '', '', '', '', 'b', 1, "
               f"NULL FROM generate_series(1, {samples}) i", "stats")
        now = int(time.time() * 1e6)
        pg.sql(f"INSERT INTO self_heal_events (id, fingerprint, service_name, environment, target, severity, trigger_name, state, resolution, reason, occurrence_count, "
               f"first_event_at, opened_at, claimed_at, action_at, healed_at, updated_at, healed_by, incident, decision) SELECT 'e' || i, lpad(to_hex(i), 16, '0'), 's', 'p', "
               f"'s', 'P2_minor', 't', 'healed', 'auto', '', 1, {now} - i, {now} - i, {now}, {now}, {now}, {now}, 'a', '{{}}', '{{}}' FROM generate_series(1, 10000) i; ANALYZE", "stats")
        times = []
        for _ in range(21):
            t = time.perf_counter()
            h.get("/api/v1/healing/stats")
            times.append((time.perf_counter() - t) * 1000)
        listed = []
        for _ in range(21):
            t = time.perf_counter()
            h.get("/api/v1/logs?limit=50&fingerprint=00000000000000aa")
            listed.append((time.perf_counter() - t) * 1000)
        return {"samples": samples, "stats_ms": round(statistics.median(times), 1), "stats_ms_max": round(max(times), 1), "samples_of_a_kind_ms": round(statistics.median(listed), 1)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--events", type=int, default=200_000)
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--samples", type=int, default=10_000_000)
    a = p.parse_args()
    report = {"sqlite": figures([bench("", a.events, 100) for _ in range(a.runs)], "sqlite")}
    big = bench("", 1_000_000, 1000)
    report["sqlite"]["bytes_of_a_million_errors_of_1000_kinds"] = int(big["bytes"])
    report["sqlite"]["samples_kept_of_them"] = int(big["samples"])
    print(json.dumps(report), flush=True)
    if binaries():
        with Postgres(fsync=True) as pg:
            report["postgresql"] = figures([bench(pg.schema(f"b{i}"), a.events, 100) for i in range(a.runs)], "postgresql")
            print(json.dumps(report), flush=True)
            if a.samples:
                report["postgresql"].update(stats_query(pg, a.samples))
    (ROOT / "build/reports").mkdir(parents=True, exist_ok=True)
    (ROOT / "build/reports/bench-store.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
