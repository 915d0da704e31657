#!/usr/bin/env python3
"""Error line written to a followed file -> first instruction of the action, the durable intent included, in ms. Beside it, in the same
run, what lies below: a bare posix_spawn of the same action, and a commit of SQLite with the same durability.

  latency.py [--trials 300] [--gap 0.05]
"""
import argparse
import os
import pathlib
import random
import sqlite3
import subprocess
import tempfile
import time

from common import OPEN, ROOT, Heald, report, summary, wait_for

PLUGIN = r"""
#include <heal/sdk.hpp>
struct stamp {
    static constexpr heal::descriptor about{.name = "stamp", .version = "1.0.0", .risk = heal::risk::safe,
                                            .matches = R"([{"message": " id=L"}])", .capabilities = {"exec:ACT"}};
    heal::outcome execute(const heal::request& rq, heal::call& call) {
        const std::string message{rq.message()};
        const auto at = message.find("id=");
        const auto done = call.exec({.argv = {"ACT", "SINK", message.substr(at + 3, message.find_first_of(" \n", at) - at - 3)}});
        return done.ok() ? heal::outcome::succeeded("stamped") : heal::outcome::failed("not stamped");
    }
};
HEAL_PLUGIN(stamp);
"""


def stamps(path):
    rows = {}
    if path.exists():
        for line in path.read_text().splitlines():
            word, ns = line.split()
            rows.setdefault(word, int(ns))
    return rows


def spawn_floor(act, folder, n=100):
    sink, sent = folder / "floor", {}
    for i in range(n):
        sent[f"F{i}"] = time.time_ns()
        pid = os.posix_spawn(act, [str(act), str(sink), f"F{i}"], {})
        os.waitpid(pid, 0)
    seen = stamps(sink)
    return [(seen[k] - ns) / 1e6 for k, ns in sent.items()]


def commit_floor(folder, n=200):
    db = sqlite3.connect(folder / "floor.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
    times = []
    for i in range(n):
        start = time.perf_counter_ns()
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO t VALUES (?, ?)", (i, "x" * 200))
        db.execute("COMMIT")
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--trials", type=int, default=300)
    p.add_argument("--gap", type=float, default=0.05)
    a = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="heald-bench-") as name:
        folder = pathlib.Path(name)
        log, sink, act = folder / "app.log", folder / "sink", folder / "act"
        log.touch()
        subprocess.run(["cc", "-O2", "-static", ROOT / "bench/act.c", "-o", act], check=True)
        source = folder / "stamp.cpp"
        source.write_text(PLUGIN.replace("ACT", str(act)).replace("SINK", str(sink)))
        subprocess.run(["c++", "-std=c++20", "-O2", "-shared", "-fPIC", "-w", f"-I{ROOT}/plugin-api/include", source, "-o", folder / "stamp.so"], check=True)
        config = {**OPEN, "verify": {"timeout": "0ms", "stabilize": "0ms", "hold": "0ms"}, "log": {"level": "warn", "format": "json"},
                  "services": [{"name": "app"}], "sources": [{"file": str(log), "service": "app"}]}
        with Heald(config, start=False) as h:
            (folder / "stamp.so").rename(h.state / "plugins" / "stamp.so")
            start_quiet(h)
            h.loaded("stamp")
            rng, sent = random.Random(1), {}
            with open(log, "ab", buffering=0) as f:
                for i in range(a.trials + 5):
                    ident = f"L{i:06d}"
                    line = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} app ERROR worker[17]: request to 10.0.0.{rng.randrange(255)} failed id={ident} after {rng.randrange(9999)} ms\n"
                    sent[ident] = time.time_ns()
                    f.write(line.encode())
                    wait_for(f"the action of {ident}", lambda: ident in stamps(sink) if i < 5 else sink.stat().st_size >= (i + 1) * 28, 5, 0.002)
                    time.sleep(a.gap * (0.5 + rng.random()))
            seen = stamps(sink)
            times = [(seen[k] - ns) / 1e6 for k, ns in sent.items() if k in seen and k >= "L000005"]
            intents = h.get("/api/v1/healing/stats")["strategies"][0]["attempts"]
        figures = {"line_to_action_ms": summary(times), "missed": len(sent) - len(seen), "intents_recorded": intents,
                   "floor_spawn_ms": summary(spawn_floor(act, folder)), "floor_commit_ms": summary(commit_floor(folder))}
        floor = figures["floor_spawn_ms"]["p50"] + figures["floor_commit_ms"]["p50"]
        figures["ratio_to_spawn_plus_commit"] = round(figures["line_to_action_ms"]["p50"] / floor, 2)
        report("latency", figures)


def start_quiet(h):
    """At level warn heald does not say that it is ready: ask it for the port by its listening socket."""
    port = 17480 + os.getpid() % 2000
    h.config.write_text(h.config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    from harness import BIN
    h.process = subprocess.Popen([BIN / "heald", "-c", h.config], stderr=subprocess.DEVNULL)
    h.port = port

    def ready():
        try:
            return h.call("GET", "/ready").status == 200
        except OSError:
            return False
    wait_for("heald is ready", ready)


if __name__ == "__main__":
    main()
