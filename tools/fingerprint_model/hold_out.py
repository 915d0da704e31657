#!/usr/bin/env python3
"""Makes labelled data sets from format strings that the model has not seen: exact labels, any size.

  build_model.py --packages DIR --out /dev/null --hold-out 6 --hold-out-strings held.tsv
  hold_out.py held.tsv OUT        then: evaluate.py run --cmd '… fingerprint id' --data OUT --input content|raw

One data set per package with at least 30 usable strings: up to 150 templates, 2000 lines, counts as skewed as in real logs,
values typed by the words around them, a header layout per package. About one argument in five is a word without a digit, so
that about as many lines as in real logs (23 %, counted over LogHub) differ in such words. What leads a line (`%s: failed`) is
mostly the function's or the program's name and so the same each time; what ends it behind a colon is mostly the text of an
errno, which makes two statements of one. Python >= 3.8, standard library only; same seed, same output.
"""
import csv
import os
import random
import re
import sys
import zlib

USERS = "root admin alice bob carol deploy backup guest test oracle git ftp mysql operator svc jenkins nobody frank".split()
WORDS = "alpha billing cart default frontend gateway inventory main orders payments primary replica search staging worker eu-west checkout".split()
CLASSES = "OrderService HttpClient UserRepository CacheManager TaskRunner SessionStore IndexWriter QueueConsumer".split()
EXT = ".conf .log .txt .xml .so .db .json .pem .sock .yaml".split()


def host(r):
    return r.choice(("db", "web", "node", "cache", "mail", "ns")) + r.choice((str(r.randrange(1, 99)), "")) + r.choice((".example.com", ".internal.example.org", ".lan", ".corp.example.net"))


def ip(r):
    return ".".join(str(r.randrange(1, 255)) for _ in range(4))


def path(r):
    return "/" + "/".join(r.choice(("etc", "var", "lib", "srv", "data", "home", "run", "opt", "spool", "cache")) for _ in range(r.randrange(1, 4))) + "/" + r.choice(WORDS) + r.choice(EXT)


def value(r, before, kind):
    w = re.findall(r"[A-Za-z]+", before)[-1:] or [""]
    w = w[0].lower()
    if w in ("user", "username", "login", "account", "uid", "owner"):
        return r.choice(USERS)
    if w in ("host", "server", "hostname", "peer", "client", "address", "addr", "from", "ip", "node"):
        return (host if kind < 0.4 else ip)(r)
    if w in ("file", "path", "directory", "dir", "open", "filename", "socket", "read", "write", "load", "stat", "opening", "reading"):
        return path(r)
    if w in ("interface", "iface", "dev", "device"):
        return r.choice(("eth", "wlan", "eth")) + str(r.randrange(4))
    if kind < 0.14:
        return path(r)
    if kind < 0.26:
        return host(r) if kind < 0.18 else ip(r)
    if kind < 0.36:
        return "%x" % r.getrandbits(48)
    if kind < 0.55:
        return r.choice(WORDS) + "-" + str(r.randrange(1000))
    if kind < 0.80:
        return str(r.randrange(100000))
    if kind < 0.85:
        return r.choice(WORDS)
    if kind < 0.89:
        return r.choice(USERS)
    if kind < 0.93:
        return r.choice(CLASSES)
    return r.choice(WORDS) + r.choice("-_") + r.choice(WORDS)


ERRNO = ("Permission denied", "No such file or directory", "Connection refused", "Connection timed out", "Device or resource busy", "Invalid argument")


def header(r, layout, package, i):
    t = 1700000000 + i * 7
    s, m, h = t % 60, t // 60 % 60, t // 3600 % 24
    ms, pid = r.randrange(1000), 1000 + zlib.crc32(package.encode()) % 9000 + r.randrange(3)
    level = r.choice(("INFO", "INFO", "WARN", "ERROR", "DEBUG"))
    return ("Nov %2d %02d:%02d:%02d web3 %s[%d]: " % (1 + i // 900, h, m, s, package, pid),
            "2023-11-14T%02d:%02d:%02d.%03dZ web3 %s[%d]: " % (h, m, s, ms, package, pid),
            "2023-11-14 %02d:%02d:%02d,%03d %s [worker-%d] com.example.%s.Core - " % (h, m, s, ms, level, r.randrange(9), package.replace("-", "")),
            "[2023-11-14 %02d:%02d:%02d] [%s] [%s] " % (h, m, s, level.lower(), package),
            "2023/11/14 %02d:%02d:%02d [%s] %d#%d: " % (h, m, s, level.lower(), pid, r.randrange(9)),
            "%s %02d:%02d:%02d.%03d [%s] %s: " % ("14.11.2023", h, m, s, ms, level, package),
            "2023-11-14 %02d:%02d:%02d.%03d UTC [%d] %s:  " % (h, m, s, ms, pid, level))[layout]


def main():
    held, out = sys.argv[1], sys.argv[2]
    by_package = {}
    for line in open(held, encoding="latin-1"):
        package, _, text = line.rstrip("\n").partition("\t")
        text = text.strip()
        words = re.findall(r"[A-Za-z]{2,}", text)
        if len(words) < 3 or len(text) > 160 or re.search(r"[^\x01\x02\x20-\x7e]|\\|  |^[-%<]|usage|Usage|</|[A-Za-z][\x01\x02]|[\x01\x02][A-Za-z]|;$|\b(SELECT|select|INSERT|printf)\b", text):
            continue
        if text.count("\x01") + text.count("\x02") > 5 or re.search(r"\x01 \x01|\x02 \x01|\x01 \x02", text):
            continue
        by_package.setdefault(package, []).append(text)
    for package, texts in sorted(by_package.items()):
        r = random.Random(zlib.crc32(package.encode()))
        if len(texts) < 30:
            continue
        texts = sorted(r.sample(texts, min(150, len(texts))))
        layout = r.randrange(7)
        weights = [1 / (i + 1) ** 1.1 for i in range(len(texts))]
        r.shuffle(weights)
        picks = r.choices(range(len(texts)), weights, k=1850) + list(range(len(texts)))
        r.shuffle(picks)
        folder = os.path.join(out, package)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, package + ".log_structured.csv"), "w", newline="") as c, open(os.path.join(folder, package + ".log"), "w") as raw:
            w = csv.writer(c)
            w.writerow(["LineId", "Content", "EventId", "EventTemplate"])
            for i, k in enumerate(picks):
                content, before, truth = "", "", ""
                parts = re.split(r"([\x01\x02])", texts[k])
                for position, part in enumerate(parts):
                    # An argument has one type: the same kind of value each time.
                    typed = random.Random(zlib.crc32(texts[k].encode()) + position)
                    kind = typed.random()
                    if part == "\x02":
                        content += str(r.randrange(100000))
                    elif part != "\x01":
                        content += part
                    elif content == "" and parts[position + 1].startswith(":") and kind < 0.7:
                        content += typed.choice(WORDS) + "_" + typed.choice(WORDS)
                    elif before.endswith(": ") and "".join(parts[position + 1:]) == "" and kind < 0.6:
                        errno = r.choice(ERRNO)
                        content += errno
                        truth += " " + errno
                    else:
                        content += value(r, before, kind)
                    before = part
                w.writerow([i + 1, content, "E%d%s" % (k, truth), re.sub(r"[\x01\x02]", "<*>", texts[k]) + truth])
                raw.write(header(r, layout, package, i) + content + "\n")


if __name__ == "__main__":
    main()
