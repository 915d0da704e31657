#!/usr/bin/env python3
"""All tests, one line each, then 'N passed, N failed[, N skipped]': unit tests with sanitizers, the layers, the integration tests
against the release binaries, the quick form of the long suites. Needs both builds; ./dev test makes them."""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as xml

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTHON = "/usr/bin/python3"
counts = {"passed": 0, "failed": 0, "skipped": 0}
failures = []


def note(kind, name, text=""):
    counts[kind] += 1
    if kind == "failed":
        failures.append(name)
        print(f"FAILED {name}\n{text}", flush=True)


def run(command, timeout, **more):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, text=True, errors="replace",
                              stdin=subprocess.DEVNULL, cwd=ROOT, **more)
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        out = late.stdout or b""
        return 124, (out.decode(errors="replace") if isinstance(out, bytes) else out) + f"\nno end after {timeout} s"


def gtest(binary, timeout=300):
    report = ROOT / "build/reports" / f"{binary.name}-{binary.parent.parent.name}.xml"
    report.unlink(missing_ok=True)
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=1:abort_on_error=0", UBSAN_OPTIONS="print_stacktrace=1")
    start = time.monotonic()
    code, out = run([binary, f"--gtest_output=xml:{report}"], timeout, env=env)
    before = dict(counts)
    if report.exists():
        for case in xml.parse(report).getroot().iter("testcase"):
            name = f"{binary.name}: {case.get('classname')}.{case.get('name')}"
            if case.find("failure") is not None:
                note("failed", name, "\n".join(f.get("message", "") for f in case.findall("failure")))
            elif case.find("skipped") is not None or case.get("result") == "skipped":
                note("skipped", name)
            else:
                note("passed", name)
    if code != 0 and counts["failed"] == before["failed"]:
        note("failed", binary.name, out[-6000:])
    print(f"{binary.parent.parent.name}/{binary.name}: {counts['passed'] - before['passed']} passed in {time.monotonic() - start:.1f} s", flush=True)


def script(name, command, timeout):
    """A program that ends with 'N passed, N failed', or whose exit code is its only word."""
    start = time.monotonic()
    code, out = run(command, timeout)
    found = re.findall(r"(?m)^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?", out)
    if found:
        passed, failed, skipped = (int(x or 0) for x in found[-1])
        counts["passed"] += passed
        counts["skipped"] += skipped
        if failed or code:
            counts["failed"] += max(failed, 1)
            failures.append(name)
            print(f"FAILED {name}\n{out[-8000:]}", flush=True)
    else:
        note("passed" if code == 0 else "failed", name, out[-6000:])
    print(f"{name}: {'ok' if code == 0 else 'failed'} in {time.monotonic() - start:.1f} s", flush=True)


def pytest(name, path, timeout):
    start = time.monotonic()
    code, out = run([PYTHON, "-m", "pytest", "-q", "-x" if os.environ.get("HEAL_FAIL_FAST") else "-q", "--tb=short", "-p", "no:cacheprovider", path], timeout)
    for word, kind in (("passed", "passed"), ("failed", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = re.findall(rf"(\d+) {word}", out)
        counts[kind] += int(found[-1]) if found else 0
    if code not in (0, 5):
        failures.append(name)
        if not re.search(r"\d+ (failed|error)", out):
            counts["failed"] += 1
        print(f"FAILED {name}\n{out[-12000:]}", flush=True)
    print(f"{name}: {'ok' if code in (0, 5) else 'failed'} in {time.monotonic() - start:.1f} s", flush=True)


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", default="", help="a word that a part's name must hold: unit, layers, integration, a suite")
    only = options.parse_args().only
    (ROOT / "build/reports").mkdir(parents=True, exist_ok=True)
    wanted = lambda name: only in name
    if wanted("layers"):
        script("layers", [PYTHON, "tests/architecture_test.py"], 60)
    for preset in ("dev", "release"):
        if not wanted("unit"):
            break
        listed = subprocess.run(["ctest", "--test-dir", f"build/{preset}", "-N"], cwd=ROOT, capture_output=True, text=True).stdout
        for name in re.findall(r"Test\s+#\d+: (\w+)", listed):
            binary = ROOT / "build" / preset / "bin" / name
            if binary.exists():
                gtest(binary)
            elif name.endswith("_test") and (ROOT / "tests" / name[:-5] / "run.py").exists():
                continue  # a suite: run below
            elif name != "architecture_test" and preset == "release":
                script(name, ["ctest", "--test-dir", "build/release", "-R", f"^{name}$", "--output-on-failure"], 600)
    if wanted("integration"):
        pytest("integration", "tests/integration", 1200)
    for suite in sorted((ROOT / "tests").glob("*/run.py")):
        if wanted(suite.parent.name):
            script(f"{suite.parent.name} --quick", [PYTHON, str(suite), "--quick"], 600)
    for name in failures:
        print(f"failed: {name}")
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    print(f"{counts['passed']} passed, {counts['failed']} failed{skipped}", flush=True)
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
