#!/usr/bin/env python3
"""The plugin border: round trips to a warm host beside the same call in this process, starts of cold ones, what 100,000 calls leave
behind, how long after its deadline a runaway script runs, and hot swaps under load.

  runner.py [--calls 100000] [--swaps 1000]
"""
import argparse
import json
import subprocess

from common import BIN, report


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--calls", type=int, default=100_000)
    p.add_argument("--swaps", type=int, default=1000)
    a = p.parse_args()
    figures = json.loads(subprocess.run([BIN / "runner_bench", str(a.calls), str(a.swaps)], check=True, capture_output=True, text=True).stdout)
    figures["isolation_costs_times"] = round(figures["warm_assess_us"]["p50"] / figures["in_process_assess_us"]["p50"], 1)
    report("runner", figures)


if __name__ == "__main__":
    main()
