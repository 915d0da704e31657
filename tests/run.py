#!/usr/bin/env python3
"""All tests, one line each, then 'N passed, N failed[, N skipped]': unit tests with sanitizers, the layers, the integration tests
against the release binaries, the quick form of the long suites. Needs both builds; ./dev test makes them. Parts that mostly wait run
two at a time; those that measure how soon something happens run alone."""
import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as xml

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTHON = "/usr/bin/python3"
WORKERS = max(2, min(4, os.cpu_count() or 2))
ALONE = {"hostile", "healbench", "patch"}
# Begun first: the others run beside them.
LONGEST = ["store_migration_test", "fingerprint_test", "ai_test", "vcs_sandbox_test", "fuzz", "crash", "cluster"]
counts = {"passed": 0, "failed": 0, "skipped": 0}
failures = []
one_at_a_time = threading.Lock()


class Part:
    """What one part counted; told in one piece at its end, so that lines of two never mix."""

    def __init__(self, name):
        self.name, self.start, self.lines = name, time.monotonic(), []
        self.counts = dict.fromkeys(counts, 0)
        self.failures = []

    def note(self, kind, name, text="", number=1):
        self.counts[kind] += number
        if kind == "failed" and number:
            self.failures.append(name)
            self.lines.append(f"FAILED {name}\n{text}")

    def end(self):
        with one_at_a_time:
            for kind, number in self.counts.items():
                counts[kind] += number
            failures.extend(self.failures)
            word = "failed" if self.failures else f"{self.counts['passed']} passed"
            print("\n".join([*self.lines, f"{self.name}: {word} in {time.monotonic() - self.start:.1f} s"]), flush=True)


def run(command, timeout, **more):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, text=True, errors="replace",
                              stdin=subprocess.DEVNULL, cwd=ROOT, **more)
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        out = late.stdout or b""
        return 124, (out.decode(errors="replace") if isinstance(out, bytes) else out) + f"\nno end after {timeout} s"


def gtest(binary, timeout=300):
    part = Part(f"{binary.parent.parent.name}/{binary.name}")
    report = ROOT / "build/reports" / f"{binary.name}-{binary.parent.parent.name}.xml"
    report.unlink(missing_ok=True)
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=1:abort_on_error=0", UBSAN_OPTIONS="print_stacktrace=1")
    for again in range(3):
        code, out = run([binary, f"--gtest_output=xml:{report}"], timeout, env=env)
        if code != 127 or "while loading shared libraries" not in out or "Cannot allocate memory" not in out:
            break
        # ld.so(8) had no memory to begin with, so no test has run: that says nothing of heald.
        part.lines.append(f"{part.name}: the machine had no memory to load it (try {again + 1} of 3)")
        time.sleep(2)
    if report.exists():
        for case in xml.parse(report).getroot().iter("testcase"):
            name = f"{binary.name}: {case.get('classname')}.{case.get('name')}"
            if case.find("failure") is not None:
                part.note("failed", name, "\n".join(f.get("message", "") for f in case.findall("failure")))
            elif case.find("skipped") is not None or case.get("result") == "skipped":
                part.note("skipped", name)
            else:
                part.note("passed", name)
    if code != 0 and not part.failures:
        part.note("failed", binary.name, out[-6000:])
    part.end()


def script(name, command, timeout):
    """A program that ends with 'N passed, N failed', or whose exit code is its only word."""
    part = Part(name)
    code, out = run(command, timeout)
    found = re.findall(r"(?m)^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?", out)
    if found:
        passed, failed, skipped = (int(x or 0) for x in found[-1])
        part.note("passed", name, number=passed)
        part.note("skipped", name, number=skipped)
        if failed or code:
            part.note("failed", name, out[-8000:], max(failed, 1))
    else:
        part.note("passed" if code == 0 else "failed", name, out[-6000:])
    part.end()


def pytest(name, path, timeout):
    part = Part(name)
    # They wait more than they work.
    parallel = ["-n", str(WORKERS + 1)] if has_xdist() else []
    code, out = run([PYTHON, "-m", "pytest", "-q", *(["-x"] if os.environ.get("HEAL_FAIL_FAST") else []), "--tb=short", "-p", "no:cacheprovider",
                     *parallel, path], timeout)
    for word, kind in (("passed", "passed"), ("failed", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = re.findall(rf"(\d+) {word}", out)
        part.note(kind, name, out[-12000:], int(found[-1]) if found else 0)
    if (code not in (0, 5) or not part.counts["passed"]) and not part.failures:
        part.note("failed", name, out[-12000:])
    part.end()


def has_xdist():
    return subprocess.run([PYTHON, "-c", "import xdist"], capture_output=True).returncode == 0


def side_by_side(jobs):
    """Each job is (function, arguments…)."""
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        for future in [pool.submit(*job) for job in jobs]:
            future.result()


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", default="", help="a word that a part's name must hold: unit, layers, integration, a suite")
    only = options.parse_args().only
    (ROOT / "build/reports").mkdir(parents=True, exist_ok=True)
    wanted = lambda name: only in name
    if wanted("layers"):
        script("layers", [PYTHON, "tests/architecture_test.py"], 60)
    units = []
    for preset in ("dev", "release"):
        if not wanted("unit"):
            break
        listed = subprocess.run(["ctest", "--test-dir", f"build/{preset}", "-N"], cwd=ROOT, capture_output=True, text=True).stdout
        for name in re.findall(r"Test\s+#\d+: (\w+)", listed):
            binary = ROOT / "build" / preset / "bin" / name
            if binary.exists():
                units.append((gtest, binary))
            elif name.endswith("_test") and (ROOT / "tests" / name[:-5] / "run.py").exists():
                continue  # a suite: run below
            elif name != "architecture_test" and preset == "release":
                units.append((script, name, ["ctest", "--test-dir", "build/release", "-R", f"^{name}$", "--output-on-failure"], 600))
    rank = lambda name: LONGEST.index(name) if name in LONGEST else len(LONGEST)
    side_by_side(sorted(units, key=lambda unit: rank(pathlib.Path(unit[1]).name)))
    if wanted("integration"):
        pytest("integration", "tests/integration", 1200)
    suites = [s for s in sorted((ROOT / "tests").glob("*/run.py"), key=lambda s: (rank(s.parent.name), s)) if wanted(s.parent.name)]
    job = lambda s: (script, f"{s.parent.name} --quick", [PYTHON, str(s), "--quick"], 600)
    side_by_side([job(s) for s in suites if s.parent.name not in ALONE])
    for suite in suites:
        if suite.parent.name in ALONE:
            call, *words = job(suite)
            call(*words)
    for name in failures:
        print(f"failed: {name}")
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    print(f"{counts['passed']} passed, {counts['failed']} failed{skipped}", flush=True)
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
