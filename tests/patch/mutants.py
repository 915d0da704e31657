#!/usr/bin/env python3
"""Plausible wrong forms: the right form of a program with a bug of another program's kind in it (an operator, a bound, a constant, a sign). Which one of
the list below the tests notice was found by running them, once; mutants.json keeps the choice.

  mutants.py make    tries them anew and writes mutants.json"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

LICENCE = "// SPDX-License-Identifier: MIT\n"
HERE = pathlib.Path(__file__).resolve().parent
KINDS = [(r"<=", "<"), (r"(?<![<\-])<(?![<=\w:])", "<="), (r">=", ">"), (r"==", "!="), (r"\+=", "-="), (r"\+\+", "--"), (r"&&", "||"), (r"\|\|", "&&"),
         (r"(?<![+\w])\+(?![+=])", "-"), (r"(?<![-\w])-(?![-=>\d])", "+"), (r"\* ?2\b", "*3"), (r"%", "/"), (r"\b0\b", "1"), (r"\b1\b", "2"), (r"\b2\b", "3"),
         (r"\btrue\b", "false"), (r"\bfalse\b", "true"), (r"return ", "return !"), (r"push_back\(", "push_back(-"), (r";\n", ";\n\n"), (r"\}\s*\n\}", "}}")]


def candidates(right, buggy):
    """Texts, each one change away from the right form; the bug itself is none of them."""
    body = right.rfind("){")
    seen = set()
    for pattern, replacement in KINDS:
        for found in re.finditer(pattern, right):
            if found.start() < body:
                continue
            text = right[: found.start()] + replacement + right[found.end():]
            if text not in (right, buggy) and text not in seen:
                seen.add(text)
                yield text


def noticed(program, text):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "src").mkdir()
        (folder / "tests").mkdir()
        (folder / "src/solution.hpp").write_text(text)
        (folder / "tests/t.cpp").write_text(program.test)
        built = subprocess.run(["g++", "-std=c++17", "-w", "-o", "t", "tests/t.cpp", "-lcrypto"], cwd=folder, capture_output=True)
        if built.returncode:
            return False
        try:
            return subprocess.run(["./t"], cwd=folder, capture_output=True, timeout=3).returncode != 0
        except subprocess.TimeoutExpired:
            return False


def wrong_form(program, choices):
    index = choices[program.id]
    if index is None:  # the tests notice no single change: the bug itself stays, in other words
        return program.buggy.replace(LICENCE, LICENCE + "// corrected\n", 1)
    return next(text for i, text in enumerate(candidates(program.right, program.buggy)) if i == index)


def load():
    return json.loads((HERE / "mutants.json").read_text())


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.modules.setdefault("model_server", type(sys)("model_server")).ModelServer = object
    from concurrent.futures import ThreadPoolExecutor
    from world import programs

    def choose(p):
        for i, text in enumerate(candidates(p.right, p.buggy)):
            if noticed(p, text):
                return p.id, i
        return p.id, None
    with ThreadPoolExecutor(2) as pool:
        chosen = dict(pool.map(choose, programs()))
    print([k for k, v in chosen.items() if v is None])
    (HERE / "mutants.json").write_text(json.dumps(chosen, indent=0).replace("\n", "").replace(",", ", ") + "\n")
