"""What the parts of the patch suite share: git repositories of small programs, a heald that is pointed at them, a model that answers as told."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/integration")]
from harness import Heald, wait_for  # noqa: E402
import model_server  # noqa: E402
from model_server import ModelServer  # noqa: E402

DATA = pathlib.Path(os.environ.get("HEAL_HUMANEVAL", ROOT.parent / "shared/data/humanevalpack/cpp.jsonl"))
UNUSABLE = {"CPP/23", "CPP/38"}  # its test misses the bug; its includes come too late (the set's README)
GIT_ENV = dict(os.environ, GIT_AUTHOR_NAME="dev", GIT_AUTHOR_EMAIL="dev@localhost", GIT_COMMITTER_NAME="dev", GIT_COMMITTER_EMAIL="dev@localhost",
               GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL="/dev/null", GIT_AUTHOR_DATE="2026-01-01T00:00:00Z", GIT_COMMITTER_DATE="2026-01-01T00:00:00Z")
LICENCE = "// SPDX-License-Identifier: MIT\n"


def git(folder, *words, check=True):
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, env=GIT_ENV)
    if check and done.returncode:
        raise RuntimeError(f"git {' '.join(words)}: {done.stderr}")
    return done.stdout.strip()


def make_repository(folder, files, links=(), branch="main"):
    """A bare repository with one commit."""
    tree = folder.with_suffix(".tree")
    tree.mkdir(parents=True)
    git(tree, "init", "-q", "-b", branch)
    for path, text in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
        if text.startswith("#!"):
            (tree / path).chmod(0o755)
    for path, target in links:
        (tree / path).symlink_to(target)
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", "first")
    subprocess.run(["git", "clone", "-q", "--bare", str(tree), str(folder)], check=True, env=GIT_ENV)
    shutil.rmtree(tree)
    return folder


class Program:
    """One of HumanEvalPack's: its buggy form is what the repository holds."""

    def __init__(self, row):
        self.id = row["task_id"]
        self.number = int(self.id.split("/")[1])
        self.service = f"cpp-{self.number}"
        self.entry = row["entry_point"]
        head = LICENCE + row["declaration"]
        self.buggy, self.right = head + row["buggy_solution"], head + row["canonical_solution"]
        self.bug_type = row["bug_type"]
        self.test = '#include "../src/solution.hpp"\n' + row["test"]

    def files(self):
        return {"src/solution.hpp": self.buggy, "tests/test_solution.cpp": self.test, "README.md": f"# {self.id}\n",
                ".github/workflows/ci.yml": "on: push\n", "docs/notes.md": "notes\n"}


def programs(only=None):
    rows = [Program(json.loads(line)) for line in open(DATA)]
    rows = [p for p in rows if p.id not in UNUSABLE]
    return rows[:: max(1, len(rows) // only)][:only] if only else rows


def block(path, search, replace):
    end = lambda text: text if not text or text.endswith("\n") else text + "\n"
    return f"{path}\n<<<<<<< SEARCH\n{end(search)}=======\n{end(replace)}>>>>>>> REPLACE\n"


def analysis(title="Correct the computation", files=("src/solution.hpp",), suggestions=1):
    return model_server.analysis(files=files, title=title, suggestions=suggestions)


def text_of(question):
    """All that a question says, whatever its dialect."""
    return question.all_text


def config(repositories, model, **more):
    base = {"repositories": repositories, "patches_at_once": 4,
            "ai": {"providers": [{"name": "scripted", "dialect": "openai", "base_url": model.url + "/v1", "model": "scripted", "key": "sk-test",
                                  "context_tokens": 16000}],
                   "tokens_per_day": 0, "tokens_per_bug": 0}}
    base.update(more)
    return base


CPP = {"build": [{"name": "compile", "run": ["g++", "-std=c++17", "-w", "-o", "t", "tests/test_solution.cpp", "-lcrypto"], "timeout": "2m"}],
       "tests": [{"name": "unit", "run": ["./t"], "timeout": "5s"}], "allowed": ["src/**"]}


def report(heald, service, message, level="fatal", **more):
    answer = heald.call("POST", "/api/v1/logs", {"service_name": service, "log_level": level, "message": message, **more})
    assert answer.status == 202, answer.text


def bug_of(heald, service, timeout=20):
    def look():
        items = heald.get(f"/api/v1/system/bugs?service_name={service}")["items"]
        return items[0] if items else None
    return wait_for(f"a bug of {service} is open", look, timeout)


def runs_of(heald, bug):
    return heald.get(f"/api/v1/patches?limit=50&bug_id={bug}")["items"]


def at_review_or_ended(heald, bug, timeout=120):
    """The runs of a bug once each waits for people or has ended."""
    def look():
        runs = runs_of(heald, bug)
        calm = runs and all(r["step"] == "review" or r["ended_at"] for r in runs)
        return runs if calm else None
    return wait_for("each run waits or has ended", look, timeout, 0.2)


def percentile(values, p):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(p * len(ordered)))] if ordered else None


__all__ = [n for n in dir() if not n.startswith("_")]
