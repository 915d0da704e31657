#!/usr/bin/env python3
"""Messages of systems that no development set holds (systems.txt): a block must have one id, and no other block that id."""
import argparse
import collections
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
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


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--build")
    ap.add_argument("--program")
    ap.add_argument("--set", default="systems.txt", help="systems.txt or systems_2.txt")
    ap.add_argument("--show", action="store_true", help="print what went wrong")
    ap.add_argument("--least", type=float, default=0.0, help="share of blocks that must be right")
    a = ap.parse_args()
    program = a.program or a.build + "/bin/fingerprint_id"
    all_blocks = blocks(a.set)
    lines = [head + line for head in LAYOUTS for block in all_blocks for line in block]
    out = subprocess.run([program, "--pattern"], input=("\n".join(lines) + "\n").encode(), stdout=subprocess.PIPE, check=True)
    answers = out.stdout.decode().split("\n")[:-1]
    assert len(answers) == len(lines)
    right = total = mixed = split = 0
    at = 0
    for head in LAYOUTS:
        ids, where = [], collections.defaultdict(set)
        for n, block in enumerate(all_blocks):
            mine = answers[at:at + len(block)]
            at += len(block)
            ids.append(mine)
            for answer in mine:
                where[answer.split("\t")[0]].add(n)
        for n, mine in enumerate(ids):
            own = {answer.split("\t")[0] for answer in mine}
            total += 1
            joined = any(len(where[i]) > 1 for i in own)
            right += len(own) == 1 and not joined
            split += len(own) > 1
            mixed += joined
            if a.show and (len(own) > 1 or joined):
                print(("SPLIT  " if len(own) > 1 else "MIXED  ") + repr(head))
                for answer in mine:
                    print("    " + answer.split("\t", 1)[1])
    print(f"{right} of {total} statements right ({right / total:.3f}), {split} split, {mixed} mixed")
    return 0 if right / total >= a.least else 1


if __name__ == "__main__":
    sys.exit(main())
