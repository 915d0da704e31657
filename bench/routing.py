#!/usr/bin/env python3
"""./dev bench routing: from an error to its ranked candidates with 10, 100 and 1,000 strategies and 100,000 kinds of error, beside asking
every strategy one after the other in the same run; and the memory of an idle kind of error. Medians of several runs with their spread."""
import argparse
import json
import statistics
import subprocess

from common import ROOT, report

p = argparse.ArgumentParser(description=__doc__)
p.add_argument("--kinds", type=int, default=100_000)
p.add_argument("--runs", type=int, default=5)
a = p.parse_args()
runs = [json.loads(subprocess.run([ROOT / "build/release/bin/routing_bench", str(a.kinds)], check=True, stdout=subprocess.PIPE).stdout) for _ in range(a.runs)]


def spread(values, digits=3):
    return {"median": round(statistics.median(values), digits), "min": round(min(values), digits), "max": round(max(values), digits)}


def of(size, way, what):
    return [r["strategies"][size][way][what] for r in runs]


sizes = list(runs[0]["strategies"])
figures = {"kinds": a.kinds, "runs": a.runs,
           "routed": {n: {w: spread(of(n, "routed", w)) for w in ("p50_us", "p99_us", "max_us")} for n in sizes},
           "asked one by one": {n: {w: spread(of(n, "asked one by one", w)) for w in ("p50_us", "p99_us")} for n in sizes},
           "ratios": {"p50: 1,000 strategies / 100 (linear: 10)": spread([x / y for x, y in zip(of("1000", "routed", "p50_us"), of("100", "routed", "p50_us"))]),
                      "p99: 1,000 strategies / 100 (linear: 10)": spread([x / y for x, y in zip(of("1000", "routed", "p99_us"), of("100", "routed", "p99_us"))]),
                      "p50: one by one / routed, 1,000 strategies": spread([x / y for x, y in zip(of("1000", "asked one by one", "p50_us"), of("1000", "routed", "p50_us"))])},
           "bytes per idle fingerprint": spread([r["bytes_per_idle_fingerprint"] for r in runs], 1),
           "differ from one by one": sum(r["differ_from_one_by_one"] for r in runs)}
report("routing", figures)
