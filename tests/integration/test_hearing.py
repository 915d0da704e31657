"""Hearing from files with the real daemon: rotation of every kind, also across kill -9; nothing lost, nothing twice."""
import json
import os
import random
import signal
import time

from harness import Heald, wait_for


def config(path, **more):
    return {"services": [{"name": "cart"}], "sources": [{"file": str(path), "service": "cart", "from_start": True, **more}]}


def line(n):
    return f"2026-11-21T10:00:00Z ERROR connect failed after {n} ms\n"


def records(h):
    return h.get("/api/v1/ingest")["records"]


class Writer:
    """Appends as a daemon with logrotate does: keeps its descriptor over a rename until it is told to reopen."""

    def __init__(self, path):
        self.path, self.count = path, 0
        self.reopen()

    def reopen(self):
        self.fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, lines=1):
        for _ in range(lines):
            os.write(self.fd, line(self.count).encode())
            self.count += 1

    def rename(self, to, late=3):
        os.rename(self.path, to)
        self.write(late)  # not told yet
        os.close(self.fd)
        self.reopen()


def test_rename_rotation_across_kill_9_loses_and_doubles_nothing(tmp_path):
    log = tmp_path / "app.log"
    rng = random.Random(5)
    w = Writer(log)
    h = Heald(config(log))
    try:
        w.write()
        wait_for("the first line", lambda: records(h) == 1)  # the file is known from here on
        for rotation in range(6):
            w.write(rng.randrange(50, 300))
            if rotation % 2 == 0:
                h.kill()
                w.write(rng.randrange(50))
            w.rename(tmp_path / f"app.log.{6 - rotation}")
            w.write(rng.randrange(50))
            if h.process.poll() is not None:
                h.start()
        wait_for(f"all {w.count} lines are in", lambda: records(h) >= w.count, 30)
        time.sleep(0.3)
        assert records(h) == w.count
        h.stop()
        h.start()  # and not again after a stop
        w.write()
        wait_for("the last line", lambda: records(h) >= w.count)
        assert records(h) == w.count
    finally:
        h.close()


def rotate(w, folder, generations):
    for generation in range(1, generations + 1):
        for i in range(generation - 1, 0, -1):
            os.rename(folder / f"app.log.{i}", folder / f"app.log.{i + 1}")
        w.rename(folder / "app.log.1", late=generation % 3)
        w.write(generation)


def test_rotations_are_followed_although_heald_got_no_processor_for_seconds(tmp_path):
    log = tmp_path / "app.log"
    w = Writer(log)
    with Heald(config(log)) as h:
        w.write()
        wait_for("the first line", lambda: records(h) == 1)
        h.process.send_signal(signal.SIGSTOP)
        rotate(w, tmp_path, 6)
        time.sleep(2.5)  # longer than the slack that file times get
        h.process.send_signal(signal.SIGCONT)
        wait_for(f"all {w.count} lines are in", lambda: records(h) >= w.count)
        time.sleep(0.2)
        assert records(h) == w.count


def test_several_rotations_at_once_are_followed(tmp_path):
    log = tmp_path / "app.log"
    w = Writer(log)
    h = Heald(config(log))
    try:
        w.write()
        wait_for("the first line", lambda: records(h) == 1)
        rotate(w, tmp_path, 8)
        wait_for(f"all {w.count} lines are in", lambda: records(h) >= w.count)
        time.sleep(0.2)
        assert records(h) == w.count
    finally:
        h.close()


def test_copytruncate_while_down_is_read_from_the_copy(tmp_path):
    log = tmp_path / "app.log"
    w = Writer(log)
    h = Heald(config(log))
    try:
        w.write(20)
        wait_for("the first lines", lambda: records(h) == 20)
        h.kill()
        w.write(10)
        (tmp_path / "app.log.1").write_bytes(log.read_bytes())
        os.truncate(log, 0)
        w.write(5)
        h.start()
        wait_for(f"all {w.count} lines are in", lambda: records(h) >= w.count)
        assert records(h) == w.count
    finally:
        h.close()


def test_a_line_in_two_halves_across_kill_9_is_one_record(tmp_path):
    log = tmp_path / "app.log"
    log.touch()
    h = Heald(config(log))
    try:
        with open(log, "a", buffering=1) as f:
            f.write("2026-11-21T10:00:00Z ERROR first half")
            f.flush()
            time.sleep(0.2)
            h.kill()
            h.start()
            f.write(" and second\n")
            f.flush()
        wait_for("the line", lambda: records(h) == 1)
        message = h.get("/api/v1/logs")["items"][0]["message"]
        assert message.endswith("first half and second")
        assert h.get("/api/v1/ingest")["lines"] == 1
    finally:
        h.close()


def test_every_line_is_accounted_for(tmp_path):
    log = tmp_path / "app.log"
    text = "".join([
        line(1), "2026-11-21T10:00:00Z INFO fine\n", json.dumps({"level": "error", "msg": "in json"}) + "\n", "\n",
        json.dumps({"level": "error", "msg": "own", "logger": "heald"}) + "\n",
        "Traceback (most recent call last):\n  File \"/a.py\", line 1, in f\nValueError: bad\n",
        "2026/11/21 10:00:00 [error] 7#7: *1 connect() failed, client: 127.0.0.1, server: a\n", "level=error msg=\"in logfmt\"\n",
    ])
    log.write_text(text)
    h = Heald(config(log))
    try:
        wait_for("all lines are in", lambda: h.get("/api/v1/ingest")["lines"] == text.count("\n"))
        t = h.get("/api/v1/ingest")
        assert (t["records"], t["below_level"], t["self"], t["malformed"], t["joined"]) == (5, 1, 1, 0, 3)
        assert t["bytes"] == len(text)
        kept = {e["message"]: e for e in h.get("/api/v1/logs")["items"]}
        assert kept["ValueError: bad"]["error_type"] == "ValueError" and "a.py" in kept["ValueError: bad"]["stack_trace"]
    finally:
        h.close()
