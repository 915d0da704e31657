#!/usr/bin/env python3
"""./dev check fuzz: libFuzzer with sanitizers over the header cut, the scanner, the trace parsers, edits and gates. Needs clang."""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGETS = ["fingerprint_fuzz", "vcs_edit_fuzz"]


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--quick", action="store_true", help="10 s instead of 10 minutes for each target")
    seconds = 10 if p.parse_args().quick else 600
    for command in (["cmake", "--preset", "fuzz"], ["cmake", "--build", "build/fuzz", "--target", *TARGETS]):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            print(done.stdout[-4000:], done.stderr[-4000:])
            print("0 passed, 1 failed")
            return 1
    passed, results = 0, {}
    for target in TARGETS:
        start = time.monotonic()
        corpus = ROOT / "build/fuzz/corpus" / target
        corpus.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([ROOT / "build/fuzz/bin" / target, f"-max_total_time={seconds}", "-timeout=5", "-max_len=4096", "-rss_limit_mb=1024",
                               f"-artifact_prefix={ROOT}/build/fuzz/{target}-", corpus], capture_output=True, text=True, errors="replace", timeout=seconds + 300)
        runs = re.findall(r"Done (\d+) runs", done.stderr)
        results[target] = {"runs": int(runs[-1]) if runs else 0, "seconds": round(time.monotonic() - start, 1), "passed": done.returncode == 0}
        passed += done.returncode == 0
        print(f"{target}: {results[target]}" + ("" if done.returncode == 0 else "\n" + done.stderr[-3000:]))
    (ROOT / "build/reports").mkdir(parents=True, exist_ok=True)
    (ROOT / "build/reports/fuzz.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"{passed} passed, {len(TARGETS) - passed} failed")
    return 0 if passed == len(TARGETS) else 1


if __name__ == "__main__":
    sys.exit(main())
