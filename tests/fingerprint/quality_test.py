#!/usr/bin/env python3
"""The budget of quality: fails when grouping drops on the development sets, or when an id depends on other lines.

Data: eight LogHub-2k sets under $HEAL_LOGHUB or ../shared/data/loghub beside the repository (their licence keeps them out of it);
exit code 77 (skipped) without them. Metrics GA and FGA as the field defines them; truth: the corrected templates.
"""
import argparse
import collections
import csv
import glob
import os
import pathlib
import random
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUDGET = {"GA": 0.992, "FGA": 0.957, "precision": 0.9998, "mixed": 5}  # measured: 0.994, 0.960, 0.9999, 5


def ids_of(program, lines):
    data = ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")
    out = subprocess.run([program], input=data, stdout=subprocess.PIPE, check=True).stdout.decode().split("\n")[:-1]
    assert len(out) == len(lines), f"{len(out)} ids for {len(lines)} lines"
    return out


def score(predicted, true):
    p, t, joint = collections.Counter(predicted), collections.Counter(true), collections.Counter(zip(predicted, true))
    good = [(n, a) for (a, b), n in joint.items() if n == p[a] == t[b]]
    ga = sum(n for n, _ in good) / len(true)
    pga, rga = len(good) / len(p), len(good) / len(t)
    pairs = lambda counts: sum(n * (n - 1) // 2 for n in counts.values())
    mixed = sum(1 for n in collections.Counter(a for a, _ in joint).values() if n > 1)
    return ga, 2 * pga * rga / (pga + rga) if good else 0.0, pairs(joint) / max(1, pairs(p)), mixed


def load(folder, kind):
    path = glob.glob(os.path.join(folder, "*.log_structured.csv"))[0]
    read = lambda p: list(csv.DictReader(open(p, encoding="utf-8-sig", errors="surrogateescape", newline="")))
    rows = read(path)
    corrected = path.replace("_structured.csv", "_structured_corrected.csv")
    true = [r["EventTemplate"] for r in (read(corrected) if os.path.exists(corrected) else rows)]
    if kind == "content":
        lines = [r["Content"] for r in rows]
    else:
        with open(path.replace("_structured.csv", ""), encoding="utf-8", errors="surrogateescape", newline="") as f:
            lines = [x.rstrip("\r") for x in f.read().split("\n")]
        if lines[-1] == "":
            lines.pop()
    return [x.replace("\n", " ").replace("\r", " ") for x in lines], true


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--build", required=True)
    a = ap.parse_args()
    program = os.path.join(a.build, "bin", "fingerprint_id")
    data = os.environ.get("HEAL_LOGHUB") or str(ROOT.parent / "shared" / "data" / "loghub")
    folders = sorted(f for f in glob.glob(os.path.join(data, "*")) if glob.glob(os.path.join(f, "*.log_structured.csv")))
    if not folders or not os.path.exists(program):
        print(f"skipped: no labelled sets under {data} (set HEAL_LOGHUB), or {program} is not built")
        return 77
    bad = []
    for kind in ("content", "raw"):
        results = []
        for folder in folders:
            lines, true = load(folder, kind)
            ids = ids_of(program, lines)
            results.append(score(ids, true))
            order = list(range(len(lines)))
            random.Random(1).shuffle(order)
            if [ids[i] for i in order] != ids_of(program, [lines[i] for i in order]) or ids[len(ids) // 2:] != ids_of(program, lines[len(ids) // 2:]):
                bad.append(f"{kind} {os.path.basename(folder)}: an id changed when the lines were shuffled or cut")
            print("%-8s %-12s GA %.3f FGA %.3f precision %.4f mixed %d" % ((kind, os.path.basename(folder)) + results[-1]))
        ga, fga, precision = (sum(r[i] for r in results) / len(results) for i in range(3))
        mixed = sum(r[3] for r in results)
        print("%-8s %-12s GA %.3f FGA %.3f precision %.4f mixed %d" % (kind, "average", ga, fga, precision, mixed))
        for name, value, ok in (("GA", ga, ga >= BUDGET["GA"]), ("FGA", fga, fga >= BUDGET["FGA"]), ("precision", precision, precision >= BUDGET["precision"]), ("mixed", mixed, mixed <= BUDGET["mixed"])):
            if not ok:
                bad.append(f"{kind}: {name} is {value:.4f}, the budget is {BUDGET[name]}")
    print("\n".join(bad) or "within the budget")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
