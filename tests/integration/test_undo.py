"""What a strategy did is taken back when it did not help, also when heald is killed in the middle of it: the world is as it was."""
import hashlib
import json
import os
import pathlib
import random
import sqlite3
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from check_invariants import check

from harness import OPEN, Heald, wait_for

FILES = [f"part-{i}.conf" for i in range(6)]
NEVER = [{"command": ["/usr/bin/false"], "timeout": "1s"}]


def state_of(*folders):
    """Names, modes, owners and contents in one hash."""
    whole = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            info = path.stat()
            whole.update(repr((str(path), info.st_mode, info.st_uid, info.st_gid, path.read_bytes() if path.is_file() else b"")).encode())
    return whole.hexdigest()


class Shop:
    """A service whose configuration lies in several files and is in force once `reload` has read it; it takes its time."""
    strategy = "config_rollback"
    kill_within = 0.05  # s after its undoing began, which takes about that long
    moment = staticmethod(lambda h, scene: rolling_back(h))

    def __init__(self, folder, state):
        self.etc, self.run = folder / "etc", folder / "run"
        for path in (self.etc, self.run):
            path.mkdir(exist_ok=True)
        self.reload = folder / "reload.sh"
        self.reload.write_text(f"#!/bin/sh\nsleep 0.03\ncat {self.etc}/*.conf > {self.run}/.new && mv {self.run}/.new {self.run}/in-force\n")
        self.reload.chmod(0o755)
        for i, name in enumerate(FILES):
            path = self.etc / name
            kept = state / "config-versions" / "shop" / str(path)[1:].replace("/", "%")
            kept.mkdir(parents=True, exist_ok=True)
            (kept / "00001790000000000000-good").write_text(f"good {i}\n")
            path.write_text(f"newer {i}\n")
            path.chmod(0o600 + i)
        os.system(str(self.reload))
        self.service = {"name": "shop", "probes": NEVER,
                        "config": {"files": [str(self.etc / n) for n in FILES], "check": ["/usr/bin/true"], "reload": [str(self.reload)]}}
        self.message = "invalid directive in part-3.conf"

    def world(self):
        return state_of(self.etc, self.run)

    def acted(self):
        return "good" in (self.etc / FILES[0]).read_text()


class Spool:
    """A worker that dies of one file."""
    strategy = "quarantine_poison"
    kill_within = 0.6  # s after it began to act: its undoing is too short to be met
    moment = staticmethod(lambda h, scene: scene.acted())

    def __init__(self, folder, state):
        self.spool, self.quarantine = folder / "spool", folder / "quarantine"
        for path in (self.spool, self.quarantine):
            path.mkdir(exist_ok=True)
        self.poison = self.spool / "order-17.json"
        self.poison.write_text("poison")
        self.poison.chmod(0o640)
        worker = folder / "worker.py"
        worker.write_text("#!/usr/bin/python3\nimport time\ntime.sleep(1000)\n")
        worker.chmod(0o755)
        self.pid_file = folder / "w.pid"
        self.service = {"name": "shop", "probes": NEVER, "spool": {"folder": str(self.spool), "quarantine": str(self.quarantine)},
                        "process": {"pid_file": str(self.pid_file), "command": [str(worker)], "log_file": str(folder / "w.log")}}
        self.message = f"ValueError: cannot parse {self.poison}"

    def world(self):
        return state_of(self.spool, self.quarantine)

    def acted(self):
        return not self.poison.exists()


def install(h, strategy):
    source = pathlib.Path(__file__).resolve().parents[2] / "scripts" / f"{strategy}.lua"
    if source.exists():
        h.script(source.name, source.read_text())
    else:
        h.plugin(strategy)
    h.loaded(strategy)


def started(scene_of, folder, **more):
    h = Heald({**OPEN, "verify": {"timeout": "100ms", "stabilize": "0ms", "hold": "1h"}, **more}, start=False)
    scene = scene_of(folder, h.state)
    h.config.write_text(h.config.read_text().rstrip()[:-1] + ', "services": ' + json.dumps([scene.service]) + "}")
    h.start()
    install(h, scene.strategy)
    return h, scene


def rolling_back(h):
    db = sqlite3.connect(f"file:{h.state}/heald.db?mode=ro", uri=True)
    try:
        return db.execute("SELECT COUNT(*) FROM healing_results WHERE rolled_back = 'running'").fetchone()[0] > 0
    finally:
        db.close()


def taken_back(scene_of, tmp_path):
    h, scene = started(scene_of, tmp_path)
    with h:
        before = scene.world()
        h.log_error(scene.message, "shop", log_level="fatal")
        event = h.ended("shop", timeout=30)[0]
        attempt = event["attempts"][0]
        assert attempt["strategy"] == scene.strategy and attempt["verified"] == "failed" and attempt["rolled_back"] == "succeeded", event
        undoable = [a for a in attempt["actions"] if a["phase"] == "execute" and a["undoable"]]
        assert undoable and all(a["state"] == "undone" for a in undoable)
        assert scene.world() == before


def taken_back_although_killed(scene_of, tmp_path, rounds=8):
    rng = random.Random(5)
    in_the_middle = 0
    for round_ in range(rounds):
        folder = tmp_path / str(round_)
        folder.mkdir()
        h, scene = started(scene_of, folder)
        with h:
            before = scene.world()
            h.log_error(scene.message, "shop", log_level="fatal")
            wait_for("the moment to kill", lambda: scene.moment(h, scene), 20, 0.0002)
            time.sleep(rng.random() * scene.kill_within)
            h.kill()
            in_the_middle += scene.world() != before
            h.start()
            event = h.ended("shop", timeout=30)[0]
            assert event["attempts"][0]["rolled_back"] == "succeeded", event
            assert scene.world() == before, f"round {round_}"
            h.stop()
            assert [text for _, text, bad in check(h.state / "heald.db") if bad] == []
    assert in_the_middle > 0, "no kill fell between the action and the end of its undoing"


def test_config_rollback_is_taken_back_and_the_service_takes_it_in(tmp_path):
    taken_back(Shop, tmp_path)


def test_config_rollback_is_taken_back_although_heald_is_killed_meanwhile(tmp_path):
    taken_back_although_killed(Shop, tmp_path)


def test_quarantine_poison_is_taken_back(tmp_path):
    taken_back(Spool, tmp_path)


def test_quarantine_poison_is_taken_back_although_heald_is_killed_meanwhile(tmp_path):
    taken_back_although_killed(Spool, tmp_path)


WRITES = """
return {{ name = "{name}", version = "1.0.0", summary = "test", priority = 50, confidence = 0.5, risk = "safe", timeout_ms = 5000,
  matches = {{ {{ message = "{name}" }} }}, capabilities = {{ "file:{file}" }},
  execute = function(request, call) call.write_file {{ path = "{file}", content = "{name}" }} return {{ outcome = "succeeded" }} end,
  verify = function(request, call) return {helps} end }}
"""


@pytest.mark.parametrize("killed", [False, True])
def test_nothing_else_acts_on_a_target_before_it_is_decided(killed, tmp_path):
    """Two errors of one service, whose remedies write the same file; the first remedy does not help. The second must neither write
    over what is still being verified nor be written over by its undoing."""
    file = tmp_path / "shared.conf"
    file.write_text("before")
    with Heald({**OPEN, "verify": {"timeout": "1500ms", "stabilize": "0ms", "hold": "1h"}, "services": [{"name": "shop"}]}) as h:
        for name, helps in (("alpha", "false"), ("beta", "true")):
            h.script(f"{name}.lua", WRITES.format(name=name, file=file, helps=helps))
            h.loaded(name)
        h.log_error("alpha is broken", "shop")
        wait_for("the first acts", lambda: file.read_text() == "alpha")
        h.log_error("beta is broken", "shop")
        waits = wait_for("the second is held back", lambda: [e for e in h.events("&service_name=shop") if "is not decided" in e["reason"]])[0]["id"]
        if killed:
            h.kill()
            h.start()
        ended = {e["id"]: e for e in h.ended("shop", 2)}
        first = next(e for e in ended.values() if e["id"] != waits)["attempts"][0]
        second = ended[waits]["attempts"][0]
        assert (first["strategy"], first["verified"], first["rolled_back"]) == ("alpha", "failed", "succeeded"), ended
        assert (second["strategy"], second["verified"]) == ("beta", "succeeded"), ended
        assert second["started_at"] >= max(a["started_at"] for a in first["actions"]), ended
        assert file.read_text() == "beta"
