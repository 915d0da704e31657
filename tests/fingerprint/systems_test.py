#!/usr/bin/env python3
"""Messages of systems that no development set holds (systems*.txt): a block must have one id, and no other block that id.

Each with five headers before it. The budget is what is reached now; a joined pair of statements is worse than a split one.
"""
import argparse
import collections
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
BUDGET = {"systems.txt": 0.94, "systems_2.txt": 0.83, "systems_3.txt": 0.72, "systems_4.txt": 0.85}
LAYOUTS = ("", "2024-03-11 22:14:15,123 ERROR [pool-1-thread-2] com.acme.Worker: ", "Mar 11 22:14:15 web1 app[812]: ",
           "[2024-03-11T22:14:15.003Z] [warn] ", "24/03/11 22:14:15 INFO storage.Manager: ")


def blocks(name):
    block, out = [], []
    for line in (FOLDER / name).read_text().split("\n") + [""]:
        if line.startswith("#"):
            continue
        if line:
            block.append(line)
        elif block:
            out.append(block)
            block = []
    return out


def check(program, name, show):
    all_blocks = blocks(name)
    lines = [head + line for head in LAYOUTS for block in all_blocks for line in block]
    out = subprocess.run([program, "--pattern"], input=("\n".join(lines) + "\n").encode(), stdout=subprocess.PIPE, check=True)
    answers = iter(out.stdout.decode().split("\n")[:-1])
    right = total = mixed = split = 0
    for head in LAYOUTS:
        groups, where = [], collections.defaultdict(set)
        for n, block in enumerate(all_blocks):
            groups.append([next(answers) for _ in block])
            for answer in groups[-1]:
                where[answer.split("\t")[0]].add(n)
        for mine in groups:
            own = {answer.split("\t")[0] for answer in mine}
            joined = any(len(where[i]) > 1 for i in own)
            total += 1
            right += len(own) == 1 and not joined
            split += len(own) > 1
            mixed += joined
            if show and (len(own) > 1 or joined):
                print(("SPLIT  " if len(own) > 1 else "MIXED  ") + repr(head))
                for answer in mine:
                    print("    " + answer.split("\t", 1)[1])
    print(f"{name}: {right} of {total} right ({right / total:.3f}), {split} split, {mixed} mixed")
    return right / total >= BUDGET[name] and mixed == 0


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build/release")
    ap.add_argument("--program")
    ap.add_argument("--set", choices=sorted(BUDGET))
    ap.add_argument("--show", action="store_true", help="print what went wrong")
    a = ap.parse_args()
    program = a.program or a.build + "/bin/fingerprint_id"
    good = [check(program, name, a.show) for name in sorted(BUDGET) if a.set in (None, name)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
