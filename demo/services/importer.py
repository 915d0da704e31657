#!/usr/bin/python3
"""An import worker: takes order files from a spool folder, one after the other. A file that it can't parse kills it, with Python's own
stack trace on stderr; started again, it dies of the same file again.

importer.py SPOOL DONE                    stderr is its log
"""
import json
import pathlib
import sys
import time

SPOOL, DONE = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])


def take(path):
    try:
        order = json.loads(path.read_text())
        return order["id"]
    except ValueError as e:
        raise ValueError(f"cannot parse {path}: {e}") from None


def main():
    while True:
        for path in sorted(SPOOL.glob("*.json")):
            take(path)
            path.rename(DONE / path.name)
        time.sleep(0.02)


main()
