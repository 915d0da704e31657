#!/usr/bin/env python3
"""The border holds: the header compiles alone in every language mode, binaries of 1.0 load for ever, other languages and trees can build
plugins, a wrong signature gets one sentence.      tests/abi/run.py --build build/release"""
import argparse
import json
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
INCLUDE = ROOT / "plugin-api" / "include"
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
passed = failed = skipped = 0
checks = []


def check(name, holds, why=""):
    global passed, failed
    passed, failed = passed + bool(holds), failed + (not holds)
    checks.append({"name": name, "holds": bool(holds)})
    print(f"{'ok  ' if holds else 'FAIL'} {name}" + ("" if holds else f"\n{why}"), flush=True)


def skip(name, why):
    global skipped
    skipped += 1
    print(f"skip {name}: {why}", flush=True)


def run(*command, **kw):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300, **kw)


def compiles(work):
    for compiler, modes in (("gcc", ["c11", "c17"]), ("clang", ["c11", "c17"]), ("g++", ["c++11", "c++14", "c++17", "c++20"]), ("clang++", ["c++11", "c++14", "c++17", "c++20"])):
        if not shutil.which(compiler):
            skip(f"header with {compiler}", "not installed")
            continue
        for mode in modes:
            language = "c" if mode.startswith("c1") else "c++"
            done = run(compiler, f"-std={mode}", "-x", language, *STRICT, "-I", INCLUDE, "-c", HERE / "header.c", "-o", work / "h.o")
            check(f"abi.h alone as {mode} with {compiler}", done.returncode == 0, done.stderr)


STRATEGY = """#include <heal/sdk.hpp>
struct s {
    static constexpr heal::descriptor about{.name = "s"};
    %s
};
HEAL_PLUGIN(s);
"""
SIGNATURES = [
    ("heal::outcome execute(const heal::request&, heal::call&) { return heal::outcome::succeeded(); }", None),
    ("void execute() {}", "heal: the strategy needs `heal::outcome execute(const heal::request&, heal::call&)`"),
    ("heal::outcome execute(const heal::request&, heal::call&) { return heal::outcome::succeeded(); } double assess(int);", "heal: assess must be `double assess(const heal::request&, heal::call&)`"),
    ("heal::outcome execute(const heal::request&, heal::call&) { return heal::outcome::succeeded(); } bool verify(const heal::request&, heal::call&);", "heal: verify must be"),
    ("heal::outcome execute(const heal::request&, heal::call&) { return heal::outcome::succeeded(); } int rollback();", "heal: rollback must be"),
    ("explicit s(int); heal::outcome execute(const heal::request&, heal::call&) { return heal::outcome::succeeded(); }", "heal: the strategy needs a default constructor"),
]


def signatures(work):
    for body, sentence in SIGNATURES:
        source = work / "s.cpp"
        source.write_text(STRATEGY % body)
        done = run("c++", "-std=c++20", "-Wall", "-Wextra", "-shared", "-fPIC", "-I", INCLUDE, source, "-o", work / "s.so")
        if sentence is None:
            check("a right strategy builds with c++ -shared alone", done.returncode == 0, done.stderr)
        else:
            check(f"one sentence: {sentence[6:60]}…", done.returncode != 0 and sentence in done.stderr, done.stderr[:2000])


def tried(host, plugin, expected, name):
    done = run(host, "--run", plugin)
    check(name, done.returncode == 0 and expected in done.stdout, done.stdout + done.stderr)


def exports(plugin, name):
    symbols = [line.split()[-1] for line in run("nm", "-D", "--defined-only", plugin).stdout.splitlines()]
    check(name, symbols == ["heal_plugin_entry_v1"], str(symbols))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=str(ROOT / "build" / "release"))
    parser.add_argument("--quick", action="store_true", help="the whole suite is quick")
    build = pathlib.Path(parser.parse_args().build).resolve()
    host = build / "bin" / "heal-host"
    done = run(sys.executable, ROOT / "plugin-api" / "reference.py", "--check")
    check("the reference is that of the headers", done.returncode == 0, done.stdout)
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        compiles(work)
        signatures(work)
        # Binaries built when 1.0 was frozen; never rebuilt (fixtures/README.md).
        if platform.machine() == "x86_64":
            tried(host, HERE / "fixtures" / "plain-1.0-x86_64.so", "C says hello", "the C plugin built against 1.0 loads and works")
            tried(host, HERE / "fixtures" / "sdk-1.0-x86_64.so", "did nothing", "the C++ plugin built against 1.0 loads and works")
        else:
            skip("binaries of 1.0", f"kept for x86_64, this is {platform.machine()}")
        done = run("cc", "-std=c11", *STRICT, "-shared", "-fPIC", "-fvisibility=hidden", "-I", INCLUDE, HERE / "examples" / "plain.c", "-o", work / "plain.so")
        check("the C example builds", done.returncode == 0, done.stderr)
        tried(host, work / "plain.so", "C says hello", "the C example works")
        exports(work / "plain.so", "the C example exports one symbol")
        if shutil.which("clang++"):
            done = run("clang++", "-std=c++20", *STRICT, "-shared", "-fPIC", "-fvisibility=hidden", "-I", INCLUDE, ROOT / "tests" / "unit" / "strategies" / "sample.cpp", "-o", work / "sample.so")
            check("clang++ builds a C++ strategy", done.returncode == 0, done.stderr)
            tried(host, work / "sample.so", "did nothing", "and the host built by g++ runs it")
        else:
            skip("clang++ plugin", "not installed")
        if shutil.which("rustc"):
            done = run("rustc", "--edition", "2021", "--crate-type", "cdylib", "-C", "panic=abort", "-A", "static_mut_refs", HERE / "examples" / "rusty.rs", "-o", work / "rusty.so")
            check("the Rust example builds", done.returncode == 0, done.stderr)
            tried(host, work / "rusty.so", "Rust says hello", "the Rust example works")
        else:
            skip("Rust example", "rustc is not installed")
        # Outside of this tree, by find_package.
        prefix = work / "prefix"
        target = prefix / "lib" / "cmake" / "heald"
        target.mkdir(parents=True)
        shutil.copytree(INCLUDE, prefix / "include")
        for name in ("cmake/heal_strategy.cmake", "cmake/heald-config.cmake", "plugin-api/heal.version"):
            shutil.copy(ROOT / name, target)
        (target / "heald-targets.cmake").write_text("add_library(heal::plugin_api INTERFACE IMPORTED)\n"
            f"set_target_properties(heal::plugin_api PROPERTIES INTERFACE_INCLUDE_DIRECTORIES {prefix}/include)\n")
        project = work / "project"
        project.mkdir()
        (project / "s.cpp").write_text(STRATEGY % SIGNATURES[0][0])
        (project / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.20)\nproject(p LANGUAGES CXX)\nfind_package(heald REQUIRED)\nheal_add_strategy(outside SOURCES s.cpp)\n")
        done = run("cmake", "-G", "Ninja", "-B", project / "b", "-S", project, f"-DCMAKE_PREFIX_PATH={prefix}")
        done = run("cmake", "--build", project / "b") if done.returncode == 0 else done
        check("a project outside builds by find_package(heald)", done.returncode == 0, done.stdout + done.stderr)
        exports(project / "b" / "plugins" / "outside.so", "and exports one symbol")
        tried(host, project / "b" / "plugins" / "outside.so", "succeeded", "and works")
    folder = ROOT / "build" / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "abi.json").write_text(json.dumps({"passed": passed, "failed": failed, "skipped": skipped, "checks": checks}, indent=1))
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
