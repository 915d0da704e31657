#!/usr/bin/env python3
"""Layouts of headers put before messages of the development sets: no layout may split a pattern, and hardly any may join two.

Data as in quality_test.py; exit code 77 (skipped) without it.
"""
import argparse
import collections
import csv
import glob
import os
import pathlib
import random
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MOST_JOINED = 3  # of some 300 patterns; measured: 3
r = random.Random(3)
lv = ["INFO", "WARN", "ERROR", "DEBUG"]


def n(a, b):
    return r.randrange(a, b)


def t():
    return "%02d:%02d:%02d" % (n(0, 24), n(0, 60), n(0, 60))


LAYOUTS = {
    'syslog': lambda: f"Nov {n(1,28):2d} {t()} web{n(1,9)} nginx[{n(1,9999)}]: ",
    'syslog_nopid': lambda: f"Nov {n(1,28):2d} {t()} web{n(1,9)} dbus: ",
    'rfc5424': lambda: f"<{n(1,190)}>1 2024-03-{n(10,28)}T{t()}.123Z host{n(1,9)} app {n(1,9999)} ID47 - ",
    'pri3164': lambda: f"<{n(1,190)}>Mar {n(1,28):2d} {t()} host{n(1,9)} app[{n(1,99)}]: ",
    'iso_host': lambda: f"2024-03-{n(10,28)}T{t()}.{n(100000,999999)}+01:00 host{n(1,9)} systemd[1]: ",
    'log4j': lambda: f"2024-03-{n(10,28)} {t()},{n(100,999)} {r.choice(lv)} [pool-{n(1,9)}-thread-{n(1,9)}] com.acme.app.Worker: ",
    'log4j2': lambda: f"2024-03-{n(10,28)} {t()},{n(100,999)} [pool-{n(1,9)}-thread-{n(1,9)}] {r.choice(lv)}  com.acme.app.Worker - ",
    'logback': lambda: f"{t()}.{n(100,999)} [http-nio-{n(1,9)}] {r.choice(lv):5s} c.a.app.Worker - ",
    'spring': lambda: f"2024-03-{n(10,28)} {t()}.{n(100,999)}  {r.choice(lv):5s} {n(1,9999)} --- [nio-8080-exec-{n(1,9)}] c.a.app.Worker                   : ",
    'spark': lambda: f"24/03/{n(10,28)} {t()} {r.choice(lv)} storage.Mgr: ",
    'python': lambda: f"2024-03-{n(10,28)} {t()},{n(100,999)} - app.worker - {r.choice(lv)} - ",
    'python2': lambda: f"{r.choice(['INFO','ERROR'])}:app.worker:",
    'apache': lambda: f"[Sun Mar {n(10,28)} {t()} 2024] [error] ",
    'apache24': lambda: f"[Sun Mar {n(10,28)} {t()}.{n(100000,999999)} 2024] [core:error] [pid {n(1,999)}:tid {n(1,99999)}] [client 10.0.0.{n(1,99)}:{n(1,9999)}] ",
    'nginx': lambda: f"2024/03/{n(10,28)} {t()} [error] {n(1,99)}#{n(1,9)}: *{n(1,999)} ",
    'postgres': lambda: f"2024-03-{n(10,28)} {t()}.{n(100,999)} UTC [{n(1,9999)}] LOG:  ",
    'postgres2': lambda: f"2024-03-{n(10,28)} {t()}.{n(100,999)} UTC [{n(1,9999)}] bob@shop ERROR:  ",
    'mysql': lambda: f"2024-03-{n(10,28)}T{t()}.{n(100000,999999)}Z {n(1,99)} [Warning] [MY-01{n(1000,9999)}] [Server] ",
    'redis': lambda: f"{n(1,999)}:M {n(10,28)} Mar 2024 {t()}.{n(100,999)} * ",
    'mongo': lambda: f"2024-03-{n(10,28)}T{t()}.{n(100,999)}+0000 I NETWORK  [conn{n(1,99)}] ",
    'glog': lambda: f"I0{n(1,9)}{n(10,28)} {t()}.{n(100000,999999)} {n(1,9999):5d} main.cc:{n(1,99)}] ",
    'logcat': lambda: f"03-{n(10,28)} {t()}.{n(100,999)}  {n(1000,9999)}  {n(1000,9999)} I ActivityThing: ",
    'brief': lambda: f"I/ActivityThing({n(1000,9999):5d}): ",
    'dmesg': lambda: f"[{n(0,9999):5d}.{n(100000,999999)}] ",
    'rails': lambda: f"I, [2024-03-{n(10,28)}T{t()}.{n(100000,999999)} #{n(1,9999)}]  INFO -- : ",
    'zap': lambda: f"2024-03-{n(10,28)}T{t()}.{n(100,999)}Z\tINFO\tserver\tapp/main.go:{n(1,99)}\t",
    'bracket': lambda: f"[2024-03-{n(10,28)} {t()}] [{r.choice(lv).lower()}] [main] ",
    'pipe': lambda: f"20240{n(301,331)}-{t()}:{n(100,999)}|App_Step|{n(1000,9999)}|",
    'pipe2': lambda: f"2024-03-{n(10,28)} {t()} | {r.choice(lv)} | app.main | ",
    'epoch': lambda: f"17{n(10000000,99999999)}.{n(100,999)} {r.choice(lv)} ",
    'level_first': lambda: f"{r.choice(lv)} 2024-03-{n(10,28)} {t()} app.main ",
    'level_first2': lambda: f"{r.choice(lv)}  [2024-03-{n(10,28)} {t()},{n(100,999)}] com.acme.app.Worker: ",
    'level_only': lambda: f"[{r.choice(lv)}] ",
    'cassandra': lambda: f"{r.choice(lv)}  [ScheduledTasks:{n(1,9)}] 2024-03-{n(10,28)} {t()},{n(100,999)} StatusLogger.java:{n(10,99)} - ",
    'elastic': lambda: f"[2024-03-{n(10,28)}T{t()},{n(100,999)}][INFO ][o.e.n.Node               ] [node-{n(1,9)}] ",
    'kafka': lambda: f"[2024-03-{n(10,28)} {t()},{n(100,999)}] INFO ",
    'k8s': lambda: f"2024-03-{n(10,28)}T{t()}.{n(100000000,999999999)}Z stdout F ",
    'erlang': lambda: f"2024-03-{n(10,28)} {t()}.{n(100000,999999)}+00:00 [info] <0.{n(100,999)}.0> ",
    'timeonly': lambda: f"{t()} {r.choice(lv)} ",
    'serilog': lambda: f"2024-03-{n(10,28)} {t()}.{n(100,999)} +00:00 [INF] ",
    'win': lambda: f"2024-03-{n(10,28)} {t()}, Error                 DISM   ",
    'us': lambda: f"0{n(1,9)}/{n(10,28)}/2024 {t()} PM {r.choice(lv)} ",
    'pipe_short': lambda: f"20240{n(301,331)}-{n(0,10)}:{n(0,10)}:{n(0,10)}:{n(10,99)}|App_Step|{n(1000,9999)}|",
    'ras': lambda: f"- 11{n(10000000,99999999)} 2005.06.{n(10,28)} R{n(10,99)}-M1-N0 2005-06-{n(10,28)}-15.42.50.{n(100000,999999)} R{n(10,99)}-M1-N0 RAS KERNEL {r.choice(['INFO','FATAL'])} ",
    'compact': lambda: f"0811{n(10,28)} {n(100000,235959)} {n(1,999)} {r.choice(lv)} dfs.Node$Responder: ",
    'celery': lambda: f"[2024-03-{n(10,28)} {t()},{n(100,999)}: {r.choice(lv)}/MainProcess] ",
    'serilog_short': lambda: f"[{t()} {r.choice(['INF','WRN','ERR'])}] ",
    'compose': lambda: f"{t()} web.{n(1,9)} | ",
}


def patterns(program, lines):
    out = subprocess.run([program, "--pattern"], input="\n".join(lines).encode("utf-8", "surrogateescape"), stdout=subprocess.PIPE, check=True)
    return out.stdout.decode("utf-8", "replace").split("\n")[:-1]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", required=True)
    program = ap.parse_args().build + "/bin/fingerprint_id"
    data = os.environ.get("HEAL_LOGHUB") or str(ROOT.parent / "shared/data/loghub")
    files = sorted(glob.glob(data + "/*/*_structured.csv"))
    if not files or not os.path.exists(program):
        print(f"skipped: no labelled sets under {data} (set HEAL_LOGHUB), or {program} is not built")
        return 77
    messages = []
    for f in files:
        rows = list(csv.DictReader(open(f, encoding="utf-8-sig", errors="surrogateescape", newline="")))
        messages += [x["Content"].replace("\n", " ") for x in r.sample(rows, 150) if x["Content"]]
    plain = patterns(program, messages)
    bad = []
    for name, layout in LAYOUTS.items():
        headed = patterns(program, [layout() + m for m in messages])
        ahead, back = collections.defaultdict(set), collections.defaultdict(set)
        for a, b in zip(plain, headed):
            ahead[a].add(b)
            back[b].add(a)
        split, joined = (sum(len(v) > 1 for v in side.values()) for side in (ahead, back))
        print(f"{name:14} patterns split {split}, joined {joined}")
        if split > 0 or joined > MOST_JOINED:
            bad.append(name)
    print(f"{len(LAYOUTS)} layouts, {len(messages)} messages, {len(set(plain))} patterns: " + ("good" if not bad else "bad: " + ", ".join(bad)))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
