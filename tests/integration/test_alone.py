"""While the shared store is away a node heals what it alone owns, PostgreSQL itself too, and tells it once afterwards."""
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from check_invariants import check
from pg import Postgres, binaries

from harness import OPEN, Heald, touch_script, wait_for

pytestmark = pytest.mark.skipif(binaries() is None, reason="no PostgreSQL server is installed; ./dev setup installs it")


@pytest.fixture
def pg():
    with Postgres() as server:
        yield server


def starts(ledger):
    return [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []


def charter_kept(h):
    """What people set is on this node: it may act alone."""
    return subprocess.run(["sqlite3", "-readonly", h.state / "local.db", "SELECT COUNT(*) FROM engine_state WHERE name = 'charter'"],
                          capture_output=True, text=True).stdout.strip() == "1"


def alone(h):
    return h.get("/api/v1/status")["alone"]


def broken(pg, schema, ledger=None, expect=None):
    return [f"{n}: {t}" for n, t, bad in check(pg.url(schema), ledger, expect) if bad]


def in_background(h):
    starter = threading.Thread(target=h.start, args=(90,))
    starter.start()
    return starter


def kill_9(server):
    """The postmaster with all its children, as a machine would."""
    children = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(server.process.pid, signal.SIGKILL)
    for child in children:
        try:
            os.kill(int(child), signal.SIGKILL)
        except ProcessLookupError:
            pass
    server.process.wait()


@pytest.mark.parametrize("heald_dies", [False, True], ids=["heald-lives", "heald-dies-too"])
def test_postgresql_itself_is_healed_while_it_is_away_and_that_is_told_once(pg, heald_dies):
    pid_file = pg.folder / "server.pid"
    pid_file.write_text(f"{pg.process.pid}\n")
    process = {"pid_file": str(pid_file), "command": [str(pg.bin / "postgres"), "-D", str(pg.data)], "cwd": str(pg.folder)}
    if pg.user:
        process["user"] = pg.user.pw_name
    config = {**OPEN, "node": "n0", "store": {"url": pg.schema("itself"), "service": "postgres"},
              "services": [{"name": "postgres", "owner": "n0", "process": process, "probes": [{"tcp": f"127.0.0.1:{pg.port}"}]}]}
    h = Heald(config)
    try:
        h.plugin("restart")
        h.loaded("restart")
        h.log_error("before", service="other")
        wait_for("the charter is kept", lambda: charter_kept(h))
        starter = None
        if heald_dies:
            h.kill()
        kill_9(pg)
        if heald_dies:
            starter = in_background(h)
        wait_for("heald brings PostgreSQL back", lambda: _answers(pg), 60, 0.1)
        if starter:
            starter.join()
        wait_for("ready", lambda: h.port and h.call("GET", "/ready").status == 200, 60)
        where = "FROM itself.self_heal_events WHERE target = 'postgres'"
        wait_for("the incident is in the shared store and ended", lambda: pg.sql(f"SELECT state {where}") == [["healed"]], 60, 0.1)
        assert pg.sql(f"SELECT trigger_name, healed_by {where}") == [["store away", "restart"]]
        attempts = pg.sql("SELECT id, strategy, verified FROM itself.healing_results")
        assert [a[1:] for a in attempts] == [["restart", "succeeded"]]
        kinds = [r[0] for r in pg.sql("SELECT kind FROM itself.healing_actions WHERE phase = 'execute' AND state = 'done' ORDER BY step")]
        assert kinds.count("start_process") == 1, kinds
        assert pg.sql(f"SELECT COUNT(*) FROM itself.audit_log WHERE action = 'attempt.start' AND subject = '{attempts[0][0]}'") == [["1"]]
        h.log_error("after", service="other")
        wait_for("all is handed over", lambda: not alone(h)["waits"])
        # A second look, after a restart with nothing left to say, finds the same.
        h.stop()
        h.start()
        time.sleep(1)
        assert pg.sql(f"SELECT COUNT(*) {where}") == [["1"]] and len(pg.sql("SELECT id FROM itself.healing_results")) == 1
        h.stop()
        assert broken(pg, "itself", None, 2) == []
    finally:
        if h.process.poll() is not None:
            print("".join(h.log[-40:]))
        h.close()
        try:
            os.kill(int(pid_file.read_text()), signal.SIGQUIT)
        except (ProcessLookupError, ValueError):
            pass


def _answers(pg):
    try:
        return pg.sql("SELECT 1") == [["1"]]
    except RuntimeError:
        return False


def test_alone_it_heals_its_own_targets_only_across_a_kill_and_each_once(pg, tmp_path):
    ledger = tmp_path / "ledger"
    config = {**OPEN, "node": "n0", "store": {"url": pg.schema("alone")},
              "services": [{"name": "mine", "owner": "n0"}, {"name": "anybodys"}, {"name": "theirs", "owner": "n1"}]}
    h = Heald(config)
    try:
        # Non-idempotent and slow enough to be killed in: what it did is in doubt afterwards and not repeated.
        h.script("act.lua", touch_script("act", ledger, matches='{ message = "quick" }'))
        h.script("long.lua", touch_script("long", ledger, matches='{ message = "slow" }').replace(
            'return { outcome = "succeeded"', 'call.sleep(60000) return { outcome = "succeeded"').replace("timeout_ms = 5000", "timeout_ms = 90000"))
        for name in ("act", "long"):
            h.loaded(name)
        wait_for("the charter is kept", lambda: charter_kept(h))
        pg.stop(signal.SIGQUIT)
        for service in ("mine", "anybodys", "theirs"):
            h.log_error("quick one", service=service)
        wait_for("it acts on its own", lambda: len(starts(ledger)) == 1)
        h.log_error("quick one", service="mine")  # the same incident
        h.log_error("a slow one", service="mine")
        wait_for("it acts on its own again", lambda: [s[1] for s in starts(ledger)] == ["act", "long"])
        assert h.call("GET", "/ready").status == 503 and alone(h)["acting"]
        assert 'heald_local_healing 1' in h.call("GET", "/metrics").text
        h.kill()
        starter = in_background(h)
        time.sleep(2)  # alone again, with nothing that may be done twice
        assert [s[1] for s in starts(ledger)] == ["act", "long"]
        pg.start()
        starter.join()
        wait_for("what is anybody's is healed now", lambda: len(starts(ledger)) == 3, 30)
        wait_for("handed over", lambda: not alone(h)["waits"], 30)
        wait_for("all of this node's incidents end", lambda: pg.sql(
            "SELECT count(*) FROM alone.self_heal_events WHERE target <> 'theirs' AND state IN ('open', 'healing', 'verifying', 'stabilizing')") == [["0"]], 30, 0.1)
        rows = pg.sql("SELECT e.target, e.occurrence_count, r.strategy, r.state FROM alone.self_heal_events e LEFT JOIN alone.healing_results r "
                      "ON r.event_id = e.id ORDER BY e.target, r.strategy")
        # 'theirs' waits for its owner: no attempt.
        assert rows == [["anybodys", "1", "act", "executed"], ["mine", "2", "act", "executed"], ["mine", "1", "long", "unknown"],
                        ["theirs", "1", "", ""]] or [r[:3] for r in rows] == [["anybodys", "1", "act"], ["mine", "2", "act"], ["mine", "1", "long"],
                                                                              ["theirs", "1", ""]], rows
        h.stop()
        assert broken(pg, "alone", ledger, 5) == []
    finally:
        if pg.process.poll() is not None:
            pg.start()
        h.close()


def test_who_never_knew_what_people_set_does_nothing_alone(pg, tmp_path):
    ledger = tmp_path / "ledger"
    config = {**OPEN, "node": "n0", "store": {"url": pg.schema("unknown"), "service": "mine"}, "services": [{"name": "mine", "owner": "n0"}]}
    h = Heald(config, start=False)
    try:
        h.script("act.lua", touch_script("act", ledger))
        pg.stop(signal.SIGQUIT)
        starter = in_background(h)  # without a charter: the first start of all
        time.sleep(6)
        assert starts(ledger) == []
        pg.start()
        starter.join()
        # And a kill switch that people set is one also when nobody can be asked.
        assert h.call("POST", "/api/v1/pause", {"reason": "hands off"}).status in (200, 204)
        wait_for("the charter is kept", lambda: charter_kept(h))
        wait_for("the charter knows", lambda: "hands off" in subprocess.run(
            ["sqlite3", "-readonly", h.state / "local.db", "SELECT value FROM engine_state WHERE name = 'charter'"], capture_output=True, text=True).stdout, 20)
        h.kill()
        pg.stop(signal.SIGQUIT)
        starter = in_background(h)
        time.sleep(6)
        assert starts(ledger) == []
        pg.start()
        starter.join()
    finally:
        if pg.process.poll() is not None:
            pg.start()
        h.close()


def test_an_owned_target_is_healed_by_its_owner_whoever_hears_of_it(pg, tmp_path):
    url = pg.schema("owned")
    nodes = [Heald({**OPEN, "node": f"n{i}", "store": {"url": url}, "services": [{"name": "mine", "owner": "n1"}]}) for i in range(2)]
    try:
        for h in nodes:
            h.script("act.lua", touch_script("act", tmp_path / "ledger"))
        for h in nodes:
            h.loaded("act")
        nodes[0].log_error("boom", service="mine")
        wait_for("its owner acts", lambda: len(starts(tmp_path / "ledger")) == 1)
        assert pg.sql("SELECT DISTINCT c.node FROM owned.event_claims c") in ([["n1"]], [])
        wait_for("healed or escalated", lambda: pg.sql("SELECT count(*) FROM owned.self_heal_events WHERE state IN ('open', 'healing', 'verifying', 'stabilizing')") == [["0"]], 20)
        assert pg.sql("SELECT count(*) FROM owned.healing_results") == [["1"]]
        # Nobody takes it from a lost owner: only it may know what it did.
        nodes[1].kill()
        nodes[0].log_error("boom again", service="mine")
        time.sleep(8)
        assert len(starts(tmp_path / "ledger")) == 1
        nodes[1].start()
        wait_for("the owner is back and acts", lambda: len(starts(tmp_path / "ledger")) == 2, 20)
    finally:
        for h in nodes:
            h.close()


def test_what_is_being_verified_when_postgresql_goes_away_keeps_its_target_only_until_it_is_decided(pg, tmp_path):
    ledger = tmp_path / "ledger"
    config = {**OPEN, "node": "n0", "store": {"url": pg.schema("halfway")}, "verify": {"timeout": "100ms", "stabilize": "3s", "hold": "0s"},
              "services": [{"name": "mine", "owner": "n0"}]}
    h = Heald(config)
    try:
        h.script("act.lua", touch_script("act", ledger, matches='{ message = "quick" }'))
        h.loaded("act")
        wait_for("the charter is kept", lambda: charter_kept(h))
        h.log_error("alpha is quick", service="mine")
        wait_for("it acts", lambda: len(starts(ledger)) == 1)
        wait_for("it must stay away", lambda: any(e["state"] == "stabilizing" for e in h.events()))
        pg.stop(signal.SIGQUIT)
        h.log_error("beta is quick", service="mine")
        wait_for("it acts on its own", lambda: len(starts(ledger)) == 2, 60)
        pg.start()
        wait_for("handed over", lambda: not alone(h)["waits"], 60)
        wait_for("all end", lambda: pg.sql("SELECT count(*) FROM halfway.self_heal_events WHERE closed_at IS NULL") == [["0"]], 60, 0.1)
        h.stop()
        assert broken(pg, "halfway", None, 2) == []
    finally:
        if pg.process.poll() is not None:
            pg.start()
        h.close()
