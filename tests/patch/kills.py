"""kill -9 before and after each step of the pipeline, and at random moments: it resumes or ends in a clear state, nothing is left, nothing is pushed or
deployed twice. The points exist in the preset dev (HEAL_FAULTS, with sanitizers); random moments are tried on the release build."""
import os
import random
import shutil
import signal
import tempfile

import harness
from world import *

HEADER = LICENCE + "inline int add(int a, int b) {\n    return a - b;\n}\n"
TEST = '#include "../src/solution.hpp"\n#undef NDEBUG\n#include <assert.h>\nint main() { assert(add(2, 3) == 5); assert(add(0, 7) == 7); }\n'
STEPS = ["prepare", "gate", "reproduce", "build", "test", "counter", "review", "commit", "push", "merge", "deploy", "watch", "finish"]


def left_over(folder):
    """Processes that still work in one of our folders."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            cwd = os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            continue
        if str(folder) in words.replace("\0", " ") or cwd.startswith(str(folder)):
            found.append((pid, words.replace("\0", " ")))
    return found


class Scene:
    def __init__(self, autonomy="merge", idempotent=False):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="heald-kills-"))
        self.bare = make_repository(self.folder / "app.git", {"src/solution.hpp": HEADER, "tests/test_solution.cpp": TEST})
        self.first = git(self.bare, "rev-parse", "main")
        self.pushes, self.deployed = self.folder / "pushes", self.folder / "deployed"
        hook = self.bare / "hooks/post-receive"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ncat >> {self.pushes}\n")
        # heald's git knows no hooks but those that the remote's own configuration names.
        git(self.bare, "config", "core.hooksPath", str(hook.parent))
        hook.chmod(0o755)
        self.model = ModelServer(lambda q: analysis() if q.wants_json else block("src/solution.hpp", "    return a - b;", "    return a + b;"))
        self.model.__enter__()
        self.settings = config(
            [{"name": "app", "url": str(self.bare), "services": ["app"], **CPP, "autonomy": autonomy,
              "build": [{"run": ["g++", "-std=c++17", "-w", "-o", "t", "tests/test_solution.cpp"]}],
              "deploy": [{"name": "roll out", "run": ["/bin/sh", "-c", f"echo $HEAL_COMMIT >> {self.deployed}; sleep 0.2"], "idempotent": idempotent}],
              "watch": {"settle": "1s", "stabilize": "300ms", "hold": "600ms", "look_every": "50ms"}}], self.model)

    def close(self):
        self.model.__exit__(None, None, None)
        shutil.rmtree(self.folder, ignore_errors=True)

    def verdicts(self, heald, note, name, killed_in_deploy):
        bug = bug_of(heald, "app")["id"]
        end = wait_for(f"{name}: the run has ended", lambda: (r := runs_of(heald, bug)) and all(x["ended_at"] for x in r) and r, 90, 0.1)
        outcomes = [r["outcome"] for r in end]
        note(f"{name}: it came to its end", None if outcomes == ["held"] else f"{[(r['outcome'], r['reason']) for r in end]}")
        commits = git(self.bare, "rev-list", f"{self.first}..main").split()
        note(f"{name}: one commit on main", None if len(commits) == 1 else f"{commits}")
        pushed = self.pushes.read_text().split("\n")[:-1] if self.pushes.exists() else []
        note(f"{name}: pushes are seen", None if pushed else "the hook of the remote did not run")
        twice = [p for p in pushed if pushed.count(p) > 1]
        note(f"{name}: nothing pushed twice", f"{twice}" if twice else None)
        rolled = self.deployed.read_text().split() if self.deployed.exists() else []
        allowed = (0, 1) if killed_in_deploy else (1,)
        note(f"{name}: deployed once", None if len(rolled) in allowed else f"{rolled}")
        note(f"{name}: no branch is left", git(self.bare, "branch", "--list", "heald/*") or None)
        patches = heald.state / "patches"
        note(f"{name}: no worktree is left", f"{list(patches.iterdir())}" if patches.exists() and any(patches.iterdir()) else None)
        mirror = next((heald.state / "repositories").glob("*.git"))
        trees = git(mirror, "worktree", "list").splitlines()
        note(f"{name}: git knows of none", f"{trees}" if len(trees) != 1 else None)

    def start(self, **more):
        heald = Heald(self.settings, folder=self.folder / "heald", start=False, **more)
        return heald


def at_point(note, point, n):
    scene = Scene()
    try:
        heald = scene.start(env={"HEAL_FAULT": f"{point}:{n}:kill", "ASAN_OPTIONS": "detect_leaks=0"})
        harness.BIN = ROOT / "build/dev/bin"
        heald.start(60)
        report(heald, "app", "CPP: assertion failed in add", error_type="AssertionError", stack_trace="#0 0x1 in add src/solution.hpp:3")
        bug = bug_of(heald, "app")["id"]
        try:
            heald.call("POST", "/api/v1/ai/fix", {"bug_id": bug})
        except OSError:
            pass
        try:
            heald.process.wait(60)
            killed = True
        except subprocess.TimeoutExpired:
            killed = False
        if not killed:
            heald.stop()
            return False
        heald.env.pop("HEAL_FAULT")
        heald.start(60)
        # Before its intent is stored nothing of a step has begun; after it a deployment may have.
        scene.verdicts(heald, note, f"killed at {point} {n}", point == "patch.intent")
        heald.stop()
        note(f"killed at {point} {n}: no process is left", f"{left_over(scene.folder)}" if left_over(scene.folder) else None)
        return True
    finally:
        harness.BIN = ROOT / "build/release/bin"
        scene.close()


def at_random(note, seed):
    scene = Scene()
    chance = random.Random(seed)
    try:
        heald = scene.start()
        heald.start()
        report(heald, "app", "CPP: assertion failed in add", error_type="AssertionError", stack_trace="#0 0x1 in add src/solution.hpp:3")
        bug = bug_of(heald, "app")["id"]
        in_deploy = False
        for life in range(4):
            try:
                heald.call("POST", "/api/v1/ai/fix", {"bug_id": bug})
            except OSError:
                pass
            time.sleep(chance.uniform(0.02, 1.2))
            runs = runs_of(heald, bug)
            in_deploy = in_deploy or bool(runs and runs[0]["step"] in ("merge", "deploy"))
            heald.kill()
            heald.start()
            if runs_of(heald, bug) and runs_of(heald, bug)[0]["ended_at"]:
                break
        heald.call("POST", "/api/v1/ai/fix", {"bug_id": bug})
        scene.verdicts(heald, note, f"random kills, seed {seed}", in_deploy)
        heald.stop()
        note(f"random kills, seed {seed}: no process is left", f"{left_over(scene.folder)}" if left_over(scene.folder) else None)
    finally:
        scene.close()


def run(note, quick):
    dev = ROOT / "build/dev/bin/heald"
    points = 0
    if dev.exists():
        chosen = [("patch.intent", 9), ("patch.result", 10)] if quick else [(p, n) for p in ("patch.intent", "patch.result") for n in range(1, 16)]
        for point, n in chosen:
            points += at_point(note, point, n)
        note("points were passed", None if points >= (2 if quick else 24) else f"only {points}")
    for seed in range(1 if quick else 12):
        at_random(note, seed)
    return {"points": points}
