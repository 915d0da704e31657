#!/usr/bin/env python3
"""./dev bench fingerprint: speed of line to id beside wc -l, simdjson, Drain and Hyperscan in the same run, and memory per fingerprint.

The lines: a million, drawn from LogHub-2k sets under $HEAL_LOGHUB or ../shared/data/loghub, the last two digits of every run of three or
more replaced, so that a cache of whole lines finds nothing; without the sets, from the layouts and values below. Writes medians of five runs.
"""
import argparse
import glob
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def own_lines(r):
    word = lambda: "".join(r.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(r.randrange(3, 9)))
    statements = [" ".join(word() for _ in range(r.randrange(3, 12))) for _ in range(500)]
    for _ in range(16000):
        text = r.choice(statements)
        yield "2026-11-21 %02d:%02d:%02d,%03d ERROR [worker-%d] com.acme.%s: %s 10.0.%d.%d took %d ms" % (
            r.randrange(24), r.randrange(60), r.randrange(60), r.randrange(1000), r.randrange(9), word(), text, r.randrange(256), r.randrange(256), r.randrange(100000))


def make(path, count):
    r = random.Random(5)
    data = os.environ.get("HEAL_LOGHUB") or str(ROOT.parent / "shared/data/loghub")
    sets = [[x.rstrip("\r") for x in open(f, encoding="utf-8", errors="surrogateescape", newline="").read().split("\n") if x.strip()]
            for f in sorted(glob.glob(data + "/*/*_2k.log"))] or [list(own_lines(r))]
    digits = re.compile(r"\d{3,}")
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as out:
        for _ in range(count):
            out.write(digits.sub(lambda m: m.group()[:-2] + "%02d" % r.randrange(100), r.choice(r.choice(sets))) + "\n")
    return len(sets)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--lines", type=int, default=1_000_000)
    ap.add_argument("--runs", type=int, default=5)
    a = ap.parse_args()
    with tempfile.TemporaryDirectory(prefix="heal-bench-") as folder:
        path = os.path.join(folder, "lines.log")
        sets = make(path, a.lines)
        runs = [json.loads(subprocess.run([ROOT / "build/release/bin/fingerprint_bench", path, "3"], check=True, stdout=subprocess.PIPE).stdout) for _ in range(a.runs)]
    def spread(values):
        return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}
    figures = {name: {unit: spread([r["results"][name][unit] for r in runs]) for unit in values} for name, values in runs[0]["results"].items()}
    def ratio(a_name, b_name):
        return spread([r["results"][b_name]["ns_per_line"] / r["results"][a_name]["ns_per_line"] for r in runs])
    report = {"lines": runs[0]["lines"], "bytes": runs[0]["bytes"], "sets": sets, "runs": a.runs, "load": os.getloadavg(), "results": figures,
              "ratios": {"two threads / one, wall (both cores must be free)": ratio("fingerprint id, two threads (wall)", "fingerprint id, one thread (wall)"),
                         "CPU of one thread / CPU of two (1.0: no cost of sharing)": ratio("fingerprint id, two threads (CPU of both)", "fingerprint id, one thread (CPU)"),
                         "NDJSON to id / simdjson": ratio("NDJSON to id", "NDJSON parsed by simdjson, 4 fields"),
                         "raw line to id / wc -l": ratio("raw line to id", "count newlines (wc -l)"),
                         "raw line to id / Hyperscan": ratio("raw line to id", "Hyperscan, 12 masks"),
                         "message to id / Drain3-like": ratio("message to id", "Drain3-like, messages")},
              "bytes_per_fingerprint": {k: spread([r["bytes_per_fingerprint"][k] for r in runs]) for k in runs[0]["bytes_per_fingerprint"]}}
    out = ROOT / "build/reports/bench-fingerprint.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    for name, values in figures.items():
        print("%-42s %9.1f ns  %8.2f M lines/s  %7.3f GB/s" % (name, values["ns_per_line"]["median"], values["million_lines_per_s"]["median"], values["gb_per_s"]["median"]))
    for name, value in report["ratios"].items():
        print("%-58s %6.2f  (%.2f - %.2f)" % (name, value["median"], value["min"], value["max"]))
    print("bytes per fingerprint:", {k: v["median"] for k, v in report["bytes_per_fingerprint"].items()})
    print(f"written to {out.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
