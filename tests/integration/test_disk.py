"""A full disk: nothing acknowledged is lost, nothing acts, reading goes on, and it recovers by itself."""
import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from check_invariants import check

from harness import OPEN, Heald, touch_script, wait_for


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_degrades_and_recovers_without_a_restart(small_disk, tmp_path):
    log, done = tmp_path / "app.log", tmp_path / "done"
    log.touch()
    h = Heald({**OPEN, "services": [{"name": "cart"}], "sources": [{"file": str(log), "service": "cart"}]}, folder=small_disk)
    try:
        h.script("touch.lua", touch_script("touch", done))
        h.loaded("touch")
        h.log_error("before the disk is full")
        h.ended()
        before = h.get("/api/v1/ingest")["records"]
        acts = done.read_text()
        filler = small_disk / "filler"
        with open(filler, "wb", buffering=0) as f:
            try:
                while True:
                    f.write(b"x" * 4096)
            except OSError:
                pass
        refused = wait_for("ingest is refused", lambda: h.call("POST", "/api/v1/logs", {"service_name": "cart", "log_level": "error",
                           "message": "while it is full " + "y" * 8000}).status == 503, 20)
        assert refused
        with open(log, "a") as f:
            f.write("2026-11-21 10:00:00 ERROR written while the disk is full\n")
        wait_for("ready says why", lambda: "does not take writes" in h.call("GET", "/ready").text)
        assert h.get("/health") and h.get("/api/v1/healing/events")["items"]
        filler.unlink()
        wait_for("it recovers", lambda: h.call("POST", "/api/v1/logs", {
            "service_name": "cart", "log_level": "error", "message": "after"}).status == 202, 20)
        wait_for("ready", lambda: h.call("GET", "/ready").status == 200, 20)
        wait_for("the file's line is in", lambda: [f for f in h.get("/api/v1/fingerprints")["items"] if "while the disk is full" in f["pattern"]], 20)
        wait_for("what waited is healed", lambda: done.read_text() != acts, 20)
        assert h.get("/api/v1/ingest")["records"] > before
        wait_for("incidents end", lambda: h.get("/api/v1/status")["open_incidents"] == 0, 20)
        assert h.stop() == 0
        assert [(n, t) for n, t, bad in check(h.state / "heald.db", done) if bad] == []
    finally:
        h.close()
