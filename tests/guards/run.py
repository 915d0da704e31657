#!/usr/bin/env python3
"""./dev check guards: takes each guard out in turn; the test that is named for it must miss it, and the drill must too. A guard that
nothing misses protects from nothing."""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / "build/release/bin/guards_mutants"

# guard -> the test that must fail without it
NAMED = {
    "kill_switch": "Guards.TheKillSwitchStopsAllOrOneServiceOrOneStrategy",
    "maintenance": "Guards.MaintenanceEndsByItself",
    "evidence": "Guards.AHealthyTargetIsNotDisturbedForWhatALineSays",
    "target_lock": "Guards.OnlyOneActsOnATarget",
    "cooldown": "Guards.CooldownTellsWhenItEnds",
    "attempts": "Guards.AnIncidentHasOnlySoManyAttempts",
    "target_rate": "Guards.TargetRateCountsWithinItsWindowOnly",
    "strategy_rate": "Guards.StrategyRateCountsOneStrategyEverywhere",
    "service_rate": "Guards.ServiceRateCountsOneServiceOnAnyTarget",
    "global_rate": "Guards.GlobalRateCountsEverythingAndZeroForbidsAll",
    "budget": "Guards.TheBudgetIsSpentByRisk",
    "blast_radius": "Guards.AGroupKeepsItsMinimumOfHealthyMembers",
    "storm": "Guards.AStormStopsAllAndAfterItHealingBeginsSlowly",
    "flapping": "Guards.AFlappingTargetNeedsAPersonUntilItIsCalm",
    "circuit_breaker": "Guards.TheBreakerOpensAfterFailuresInARowAndThenLetsOneTry",
    "repetition": "Guards.WhatFailedLastIsNotRepeatedBeforeAnythingIsNew",
    "dependency": "Guards.NothingIsDoneWhileADependencyIsDown",
    "capability": "Guards.WhatTheSiteForbidsIsNotGranted",
    "risk": "Guards.RiskAboveTheLimitNeedsAPerson",
    "autonomy": "Guards.AutonomyOffIsForGoodAndApproveAsks",
    "change_freeze": "Guards.AChangeFreezeLetsOnlyWhatIsSafePass",
}
DRILL = "Drill.EveryGuardTripsPassesAndFailsClosed"


def failed_tests(mutant):
    env = dict(os.environ, HEAL_GUARD_MUTANT=mutant)
    done = subprocess.run([BINARY, "--gtest_brief=1"], capture_output=True, text=True, env=env, timeout=60)
    return set(re.findall(r"\[  FAILED  \] ([\w.]+)", done.stdout))


def main():
    argparse.ArgumentParser(description=__doc__).add_argument("--quick", action="store_true", help="the same; it takes a second")
    start, rows, bad = time.monotonic(), [], []
    source = (ROOT / "engine/core/guards.hpp").read_text()
    guards = re.findall(r"(\w+)", re.search(r"enum class GuardId[^{]*\{([^}]*)\}", source)[1])
    if without := set(guards) ^ set(NAMED):
        bad.append(f"guards and named tests differ: {sorted(without)}")
    whole = failed_tests("")
    if whole:
        bad.append(f"with all guards in place these fail: {sorted(whole)}")
    for guard in guards:
        missed = failed_tests(guard)
        rows.append({"guard": guard, "named": NAMED.get(guard), "missed_by": sorted(missed)})
        if NAMED.get(guard) not in missed:
            bad.append(f"without {guard} the test {NAMED.get(guard)} passes")
        if DRILL not in missed:
            bad.append(f"without {guard} the drill passes")
        print(f"without {guard:<16} {len(missed)} tests fail, {NAMED.get(guard)} among them: {NAMED.get(guard) in missed}")
    for text in bad:
        print("FAILED " + text)
    (ROOT / "build/reports").mkdir(parents=True, exist_ok=True)
    (ROOT / "build/reports/guards.json").write_text(json.dumps({"seconds": round(time.monotonic() - start, 1), "failed": bad, "guards": rows}, indent=1) + "\n")
    print(f"{len(guards) - len(bad) if len(bad) <= len(guards) else 0} passed, {len(bad)} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
