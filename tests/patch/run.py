#!/usr/bin/env python3
"""The patch pipeline from a model's words to a fix that held, with a scripted model on loopback and real git, compilers, services.

  ./dev check patch [--quick] [--only forms|edits|gates|injection|kills|road|forge] [--form NAME]

  forms      each usable program of HumanEvalPack C++ as a repository: the right form is accepted, every other refused (12 forms)
  edits      defects of model diffs over the same programs
  gates      special cases for the tests of the same programs, and their right forms
  injection  instructions in logs: nothing but what was approved happens, no secret leaves
  kills      kill -9 at each step
  road       a real service from its crash to a fix that held, and one that did not
  forge      requests of the GitHub client against the published description of its API"""
import argparse
import json
import pathlib
import subprocess
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import forms
import injection
import kills
import road
from world import DATA, ROOT

passed, failed = 0, []


def note(name, fault):
    global passed
    if fault:
        failed.append(name)
        print(f"FAILED {name}: {str(fault)[:2000]}", flush=True)
    else:
        passed += 1


def program(name, command):
    """A part that is a program of its own; its exit code is its word."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    print(done.stdout[-3000:], end="", flush=True)
    note(name, None if done.returncode == 0 else f"exit {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    return {"exit": done.returncode, "text": done.stdout[-6000:]}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--only", default="")
    options.add_argument("--form", default="")
    o = options.parse_args()
    figures = {}
    parts = {"edits": lambda: program("edits", [str(ROOT / "build/release/bin/humaneval"), "edits"]),
             "gates": lambda: program("gates", [str(ROOT / "build/release/bin/humaneval"), "gates"]),
             "forms": lambda: forms.run(note, o.quick, o.form), "injection": lambda: injection.run(note, o.quick),
             "kills": lambda: kills.run(note, o.quick), "road": lambda: road.run(note, o.quick),
             "forge": lambda: program("forge", [sys.executable, str(HERE / "forge_mock.py"), ])}
    for name, part in parts.items():
        if o.only and o.only != name:
            continue
        if o.quick and not o.only and name in ("gates", "forge"):
            continue  # ctest has the gates; the forge's description comes from npm
        if name in ("edits", "gates", "forms") and not DATA.exists():
            print(f"{name}: left out, there is no {DATA.name} (HEAL_HUMANEVAL names it)")
            continue
        started = time.monotonic()
        try:
            figures[name] = part()
        except Exception:
            note(name, traceback.format_exc())
        print(f"{name}: {time.monotonic() - started:.1f} s", flush=True)
    (ROOT / "build/reports").mkdir(parents=True, exist_ok=True)
    (ROOT / "build/reports/patch.json").write_text(json.dumps({"passed": passed, "failed": failed, "quick": o.quick, "figures": figures}, indent=1))
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
