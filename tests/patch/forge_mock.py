#!/usr/bin/env python3
"""Requests of the forge against GitHub's published API description: prism answers by it and refuses what it does not allow.

Installs prism once into build/npm-forge (from the lock file beside this script). Ends with 77 when npm
or the packages cannot be had."""
import argparse
import json
import os
import pathlib
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def install(folder):
    """node_modules of exactly the lock file; True when it is there."""
    lock = (HERE / "package-lock.json").read_text()
    stamp = folder / "installed.json"
    if stamp.exists() and stamp.read_text() == lock:
        return True
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder / name)
    done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        print(done.stderr[-2000:])
        return False
    stamp.write_text(lock)
    return True


USED = ["/repos/{owner}/{repo}/pulls", "/repos/{owner}/{repo}/pulls/{pull_number}", "/repos/{owner}/{repo}/issues/{issue_number}/comments",
        "/repos/{owner}/{repo}/issues/{issue_number}/labels"]


def describe(folder):
    """The parts of GitHub's description that heald uses, as they are. Answers get GitHub's recommended media type besides
    application/json: the description names only the latter, and prism would refuse the former."""
    api = json.loads((folder / "node_modules/@octokit/openapi/generated/api.github.com.json").read_text())
    api["paths"] = {path: api["paths"][path] for path in USED}
    api.pop("webhooks", None), api.pop("x-webhooks", None)
    for path in api["paths"].values():
        for operation in path.values():
            for answer in operation.get("responses", {}).values() if isinstance(operation, dict) else []:
                if "$ref" in answer:
                    answer = api["components"]["responses"][answer["$ref"].rsplit("/", 1)[1]]
                content = answer.get("content", {})
                if "application/json" in content:
                    content["application/vnd.github+json"] = content["application/json"]
    place = folder / "used.json"
    place.write_text(json.dumps(api))
    return place


class Mock:
    def __init__(self, folder, node):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.process = subprocess.Popen(
            [node, folder / "node_modules/@stoplight/prism-cli/dist/index.js", "mock", "-h", "127.0.0.1", "-p", str(self.port),
             describe(folder)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
        self.lines = queue.Queue()
        threading.Thread(target=lambda: [self.lines.put(line) for line in self.process.stdout] + [self.lines.put(None)], daemon=True).start()

    def wait(self, seconds):
        """Until it says that it listens; False when it ends before."""
        end = time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0.1, end - time.monotonic()))
            except queue.Empty:
                return False
            if line is None:
                return False
            if "listening on" in line:
                return True

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--build", default=ROOT / "build/release", type=pathlib.Path)
    p.add_argument("--node", default=shutil.which("node") or "node")
    args = p.parse_args()
    if shutil.which("npm") is None or shutil.which(args.node) is None:
        print("npm or node is missing")
        return 77
    folder = ROOT / "build/npm-forge"
    if not install(folder):
        print("prism cannot be installed here")
        return 77
    start = time.monotonic()
    mock = Mock(folder, args.node)
    try:
        if not mock.wait(180):
            print("prism did not start")
            return 1
        print(f"prism listens after {time.monotonic() - start:.1f} s")
        done = subprocess.run([args.build / "bin/forge_driver", "github", f"http://127.0.0.1:{mock.port}", "octocat/hello-world"], capture_output=True, text=True, timeout=300)
        print(done.stdout + done.stderr, end="")
        # The mock does refuse: a request that the description does not allow.
        wrong = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-H", "Authorization: Bearer x", "-H", "Content-Type: application/json", "-d", '{"title":"x","head":1}',
                                f"http://127.0.0.1:{mock.port}/repos/o/r/pulls"], capture_output=True, text=True, timeout=60).stdout
        print(f"a wrong request -> {wrong}")
        passed = done.returncode == 0 and wrong == "422"
        print("every request is as GitHub describes it" if passed else "FAILED")
        return 0 if passed else 1
    finally:
        mock.close()


if __name__ == "__main__":
    sys.exit(main())
