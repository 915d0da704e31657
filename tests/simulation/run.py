#!/usr/bin/env python3
"""./dev check simulation: seeded schedules of the decision core, its invariants checked after every step; and learned ranking beside a
static order in a world whose success rates are hidden and drift (bar: 30 % fewer failed actions, ECE <= 0.05, no guard breached)."""
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
    world = subprocess.run([ROOT / "build/release/bin/strategy_simulator", "--seeds", "100"], capture_output=True, text=True, timeout=600)
    figures = json.loads(world.stdout)
    print(f"strategies with hidden, drifting success over {figures['seeds']} seeds: {figures['fewer_failed']:.1%} fewer failed actions than the static order "
          f"({figures['failed_learned']} instead of {figures['failed_static']}; worst seed {figures['fewer_failed_worst_seed']:.1%}), ECE {figures['ece']:.3f}, "
          f"{figures['guard_breaches']} guards breached")
    bad = (done.returncode != 0) + (world.returncode != 0)
    print(f"{2 - bad} passed, {bad} failed")
    (ROOT / "build/reports").mkdir(parents=True, exist_ok=True)
    (ROOT / "build/reports/simulation.json").write_text(json.dumps(
        {"seeds": seeds, "passed": bad == 0, "strategies": figures, "seconds": round(time.monotonic() - start, 1), "output": done.stdout[-4000:]}, indent=1) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
