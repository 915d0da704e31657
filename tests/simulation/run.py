#!/usr/bin/env python3
"""./dev check simulation: seeded schedules of the decision core, its invariants checked after every step."""
import argparse
import json
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--quick", action="store_true", help="10,000 seeds instead of 1,000,000")
    seeds = 10_000 if p.parse_args().quick else 1_000_000
    start = time.monotonic()
    done = subprocess.run([ROOT / "build/release/bin/simulation", "--seeds", str(seeds)], capture_output=True, text=True, timeout=3600)
    print(done.stdout.rsplit("\n", 2)[0] if done.returncode else f"{seeds} schedules, every invariant held")
    print("1 passed, 0 failed" if done.returncode == 0 else "0 passed, 1 failed")
    (ROOT / "build/reports").mkdir(parents=True, exist_ok=True)
    (ROOT / "build/reports/simulation.json").write_text(json.dumps(
        {"seeds": seeds, "passed": done.returncode == 0, "seconds": round(time.monotonic() - start, 1), "output": done.stdout[-4000:]}, indent=1) + "\n")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
