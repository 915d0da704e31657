"""Shared by the benchmarks: percentiles, reports, a heald of its own."""
import json
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/integration"))
from harness import BIN, Heald, OPEN, wait_for  # noqa: E402,F401


def percentile(values, p):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(p / 100 * (len(ordered) - 1)))]


def summary(values, digits=3):
    return {"n": len(values), "min": round(min(values), digits), "p50": round(statistics.median(values), digits),
            "p95": round(percentile(values, 95), digits), "p99": round(percentile(values, 99), digits), "max": round(max(values), digits)}


def report(name, figures):
    path = ROOT / "build/reports" / f"bench-{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))
    print(f"written to {path.relative_to(ROOT)}")
