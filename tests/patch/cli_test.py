#!/usr/bin/env python3
"""healctl scan and healctl review --base, on a repository made here: what they find, how they tell it, how they end."""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

PATTERN = {"items": [{"id": 12, "fix_title": "mean of nothing", "search": "return $1 / $2.size();\n",
                      "replacement": "if ($2.empty()) return 0;\nreturn $1 / $2.size();\n", "suffix": ".cpp",
                      "prevention_tips": ["divide only by what was checked"], "times_fixed": 3}]}
BAD = "int f(const V& v) {\n    return sum(v) / v.size();\n}\n"
GOOD = "int f(const V& v) {\n    if (v.empty()) return 0;\n    return sum(v) / v.size();\n}\n"


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--build", required=True)
    healctl = pathlib.Path(p.parse_args().build).resolve() / "bin/healctl"
    failures = []

    def expect(holds, what):
        if not holds:
            failures.append(what)

    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        repo, patterns = root / "repo", root / "patterns.json"
        patterns.write_text(json.dumps(PATTERN))

        def git(*arguments):
            subprocess.run(["git", "-C", repo, "-c", "user.name=a", "-c", "user.email=a@x", *arguments], check=True, capture_output=True)

        def run(*arguments):
            done = subprocess.run([healctl, *arguments], capture_output=True, text=True, cwd=root, timeout=60)
            return done.returncode, done.stdout, done.stderr

        repo.mkdir()
        git("init", "-q", "-b", "main")
        (repo / "old.cpp").write_text(BAD)
        (repo / "fixed.cpp").write_text(GOOD)
        (repo / "node_modules").mkdir()
        (repo / "node_modules/x.cpp").write_text(BAD)
        git("add", "-A"), git("commit", "-qm", "first")

        code, out, err = run("scan", "repo", "--pattern", patterns)
        expect(code == 1 and "old.cpp:2: like what was fixed before (mean of nothing, 3 times): divide only by what was checked [pattern/12]" in out, f"scan: {code} {out} {err}")
        expect("fixed.cpp" not in out and "node_modules" not in out, f"scan found too much: {out}")
        expect("    if (v.empty()) return 0;" in out, f"scan shows the fix: {out}")
        code, out, err = run("scan", "repo/fixed.cpp", "--pattern", patterns)
        expect(code == 0, f"scan of what is fixed: {code} {out} {err}")
        expect(run("scan", "none", "--pattern", patterns)[0] == 3, "a folder that is not there")
        expect(run("scan", "repo", "--pattern", root / "none.json")[0] == 3, "patterns that are not there")
        expect(run("--server", "http://127.0.0.1:9", "scan", "repo")[0] == 5, "no heald answers")

        git("checkout", "-qb", "change")
        (repo / "new.cpp").write_text(BAD + "// \u202e hidden\n")
        git("add", "-A"), git("commit", "-qm", "second")
        review = ["review", "--base", "main", "--path", repo, "--pattern", patterns]
        code, out, err = run(*review)
        expect(code == 1 and "new.cpp:2: " in out and "[pattern/12]" in out and "new.cpp:4: " in out and "[gate/content]" in out and "old.cpp" not in out, f"review: {code} {out} {err}")
        code, out, err = run(*review, "--format", "json")
        items = json.loads(out)["items"]
        expect(code == 1 and [(i["rule"], i["file"], i["line"]) for i in items] == [("pattern/12", "new.cpp", 2), ("gate/content", "new.cpp", 4)], f"json: {out}")
        code, out, err = run(*review, "--format", "markdown")
        expect("| new.cpp:2 |" in out and "```" in out, f"markdown: {out}")
        code, out, err = run(*review, "--format", "sarif")
        sarif = json.loads(out)
        # What SARIF 2.1.0 (OASIS) requires: version, runs, tool.driver.name, result.message; and what code scanning reads besides.
        one = sarif["runs"][0]
        rules = one["tool"]["driver"]["rules"]
        expect(sarif["version"] == "2.1.0" and sarif["$schema"].endswith("sarif-2.1.0.json") and one["tool"]["driver"]["name"] == "heald", f"sarif: {out}")
        for result in one["results"]:
            place = result["locations"][0]["physicalLocation"]
            expect(rules[result["ruleIndex"]]["id"] == result["ruleId"] and result["level"] in ("none", "note", "warning", "error") and result["message"]["text"]
                   and not place["artifactLocation"]["uri"].startswith("/") and place["region"]["startLine"] >= 1 and place["region"]["endLine"] >= place["region"]["startLine"], f"sarif result: {result}")
        expect(len(one["results"]) == 2 and all(r["shortDescription"]["text"] for r in rules), f"sarif: {out}")
        expect(run(*review, "--gates", "none", "--no-patterns")[0] == 0, "nothing asked, nothing found")
        code, out, err = run("review", "--base", "--output=x", "--path", repo, "--no-patterns")
        expect(code == 2 and not (repo / "x").exists(), f"a base that is an option: {code} {out} {err}")
        # The older form of the command is still there.
        code, out, err = run("review")
        expect(code == 2 and "give an event and a verdict" in err, f"review alone: {code} {err}")
        expect(run("--server", "http://127.0.0.1:9", "review", "7", "right")[0] == 5, "review of an event asks heald")

    print("\n".join(failures) or "scan and review do what they say")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
