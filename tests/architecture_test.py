#!/usr/bin/env python3
"""Fails when a file includes a folder of its own or a higher layer, or a library outside the folder that owns it, and when a lambda that
captures by value is a temporary of a co_await expression (docs/adr/0006-coroutines.md)."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAYERS = {"base": 1, "core": 2, "fingerprint": 2, "net": 2, "store": 3, "wire": 3, "host": 4, "runner": 4, "ingest": 4, "ai": 4,
          "vcs": 4, "notify": 4, "service": 5, "http": 6, "cli": 7, "": 7}
OWNED = {  # header prefix -> folders that may include it
    "sqlite3.h": {"store"}, "pqxx": {"store"}, "libpq": {"store"}, "libpq-fe.h": {"store"}, "boost/beast": {"http", "cli"}, "boost/dll": {"host"},
    "lua": {"host"}, "CLI/": {"cli", ""}, "yaml-cpp": {"service"}, "simdjson": {"ingest", "cli"}, "curl/": {"net", "host", "service", "ai", "vcs", "notify", "cli"},
    "sys/inotify.h": {"ingest", "runner", "service"}, "spawn.h": {"host", "runner", "service", "vcs", "cli"},
}
CORE_FORBIDDEN = ["boost/asio", "thread", "mutex", "unistd.h", "time.h", "fstream", "sys/"]
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^">]+)[">]', re.M)


def awaited_lambdas(text):
    """(line, captures) of each outermost lambda in a co_await expression that captures anything by value."""
    for found in re.finditer(r"\bco_await\b", text):
        depth, i, lambda_at = 0, found.end(), None
        while i < len(text):
            c = text[i]
            if c == "[" and lambda_at is None and re.search(r"[(,]\s*$", text[found.end():i]):
                end = text.index("]", i)
                captures = [one.strip() for one in text[i + 1:end].split(",") if one.strip()]
                if any(one != "this" and not one.startswith("&") for one in captures):
                    yield text.count("\n", 0, i) + 1, text[i:end + 1]
                lambda_at = depth
            if c in "({[":
                depth += 1
            elif c in ")}]":
                depth -= 1
                if c == "}" and depth == lambda_at:
                    lambda_at = None
                if depth < 0:
                    break
            elif c == ";" and depth == 0:
                break
            i += 1


def breaches(root):
    found = []
    for path in sorted((root / "engine").rglob("*")):
        if path.suffix not in (".hpp", ".cpp", ".h"):
            continue
        parts = path.relative_to(root / "engine").parts
        folder = parts[0] if len(parts) > 1 else ""
        text = path.read_text(errors="replace")
        for include in INCLUDE.findall(text):
            where = f"{path.relative_to(root)}: includes {include}"
            other = include.split("/")[0]
            if "/" in include and other in LAYERS and other != folder and (root / "engine" / include).exists():
                if LAYERS[other] >= LAYERS[folder]:
                    found.append(f"{where}: layer {LAYERS[folder]} ({folder}) must not see layer {LAYERS[other]}")
            for prefix, owners in OWNED.items():
                if (include == prefix or include.startswith(prefix.rstrip("/") + "/") or
                        (prefix == "lua" and re.match(r"(lua5\.4/)?(lua|lauxlib|lualib)\.h$", include))) and folder not in owners:
                    found.append(f"{where}: only {sorted(owners)} may")
            if folder in ("core", "fingerprint") and any(include == f or include.startswith(f) for f in CORE_FORBIDDEN):
                found.append(f"{where}: {folder} does no I/O and never waits")
        for line, captures in awaited_lambdas(text):
            found.append(f"{path.relative_to(root)}:{line}: name the lambda {captures} before the co_await; g++ 12 destroys its captures twice")
        if folder == "core" and re.search(r"(system_clock|steady_clock|clock_gettime|\btime\(nullptr\))", text):
            found.append(f"{path.relative_to(root)}: core never reads a clock")
    return found


def main():
    found = breaches(ROOT)
    print("\n".join(found) if found else "layers hold")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
