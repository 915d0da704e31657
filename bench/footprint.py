#!/usr/bin/env python3
"""What heald costs at rest: resident memory when idle, start to ready, size of the stripped binary; with the bundled strategies in place."""
import os
import pathlib
import subprocess
import tempfile
import time

from common import BIN, Heald, report, summary
from harness import PLUGINS


def resident_kb(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1])


def main():
    ready, memory = [], []
    for _ in range(9):
        with Heald(start=False) as h:
            for plugin in PLUGINS.glob("*.so"):
                (h.state / "plugins" / plugin.name).write_bytes(plugin.read_bytes())
            start = time.perf_counter()
            h.start()
            ready.append((time.perf_counter() - start) * 1000)
            time.sleep(1.0)
            memory.append(resident_kb(h.process.pid) / 1000)
    with tempfile.TemporaryDirectory() as folder:
        stripped = pathlib.Path(folder) / "heald"
        subprocess.run(["strip", "-o", stripped, BIN / "heald"], check=True)
        size = os.path.getsize(stripped)
    report("footprint", {"start_to_ready_ms": summary(ready, 1), "idle_resident_mb": summary(memory, 1), "stripped_mb": round(size / 1e6, 2),
                         "ratios": {"start to ready / the bar of 300 ms": round(summary(ready)["p50"] / 300, 2), "idle memory / the bar of 25 MB": round(summary(memory)["p50"] / 25, 2),
                                    "stripped / the bar of 15 MB": round(size / 15e6, 2)}})


if __name__ == "__main__":
    main()
