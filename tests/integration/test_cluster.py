"""Several healds on one PostgreSQL: they share the work, and what one leaves another takes over."""
import collections
import pathlib
import signal
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from check_invariants import check
from pg import Postgres, binaries

from harness import OPEN, Heald, touch_script, wait_for

pytestmark = pytest.mark.skipif(binaries() is None, reason="no PostgreSQL server is installed; ./dev setup installs it")


@pytest.fixture(scope="module")
def pg():
    with Postgres() as server:
        yield server


class Nodes:
    def __init__(self, pg, schema, count, ledger, script=None, **config):
        self.pg, self.schema, self.ledger = pg, schema, ledger
        url = pg.schema(schema)
        self.all = [Heald({**OPEN, "services": [{"name": "cart"}], **config, "store": {"url": url}, "node": f"n{i}"}) for i in range(count)]
        for h in self.all:
            h.script("act.lua", script or touch_script("act", ledger))
        for h in self.all:
            h.loaded("act")

    def __enter__(self):
        return self.all

    def __exit__(self, kind, *_):
        for h in self.all:
            if h.process.poll() is None:
                h.process.send_signal(signal.SIGCONT)
            if kind:
                print(f"--- {h.port}\n" + "".join(h.log[-25:]))
            h.close()

    def acts(self):
        return [line.split()[0] for line in self.ledger.read_text().splitlines()] if self.ledger.exists() else []

    def broken(self, expect=None):
        return [(n, t) for n, t, bad in check(self.pg.url(self.schema), self.ledger, expect) if bad]


def members(h):
    return {n["node"]: n["state"] for n in h.get("/api/v1/cluster")["items"]}


def test_one_error_heard_on_three_nodes_is_one_incident_and_one_action(pg, tmp_path):
    nodes = Nodes(pg, "one", 3, tmp_path / "ledger")
    with nodes as all_nodes:
        assert set(members(all_nodes[0])) == {"n0", "n1", "n2"}
        # Three occurrences on three nodes: the third opens the bug, whichever hears it.
        for h in all_nodes:
            h.log_error("cannot reach the shard")
        all_nodes[0].ended()
        wait_for("all is counted and ended", lambda: sum(e["occurrence_count"] for e in all_nodes[1].events()) == 3 and not any(
            e["state"] in ("open", "healing", "verifying", "stabilizing") for e in all_nodes[1].events()))
        events = all_nodes[1].events()
        ends = collections.Counter(e["state"] for e in events)
        bugs = all_nodes[2].get("/api/v1/system/bugs")["items"]
        assert len(bugs) == 1, bugs
        assert sum(e["occurrence_count"] for e in events) == 3, events
        assert len(nodes.acts()) == len(set(nodes.acts())) == len([a for e in events for a in all_nodes[0].event(e["id"])["attempts"]]), ends
    assert nodes.broken(3) == []


def test_a_killed_node_is_lost_and_its_incident_taken_over(pg, tmp_path):
    ledger = tmp_path / "ledger"
    slow = touch_script("act", ledger).replace("timeout_ms = 5000", "timeout_ms = 60000").replace(
        "return { outcome", 'call.exec { argv = { "/bin/sh", "-c", "sleep 30" } }\n    return { outcome')
    nodes = Nodes(pg, "killed", 2, ledger, slow)
    with nodes as (first, second):
        first.log_error("act now")
        wait_for("it acts", lambda: nodes.acts())
        first.kill()
        event = wait_for("it is taken over", lambda: [e for e in second.events() if e["state"] not in ("open", "healing", "verifying")], 20)[0]
        assert second.event(event["id"])["attempts"][0]["state"] == "unknown"
        assert len(nodes.acts()) == 1, "not idempotent: not run again"
        assert members(second)["n0"] == "lost"
        assert second.get("/api/v1/status")["cluster"]["taken_over"] == 1
    assert nodes.broken(1) == []


def test_a_stopped_node_that_wakes_up_cannot_act_or_write(pg, tmp_path):
    ledger = tmp_path / "ledger"
    two_steps = touch_script("act", ledger).replace("timeout_ms = 5000", "timeout_ms = 60000").replace(
        "return { outcome", f'call.exec {{ argv = {{ "/bin/sh", "-c", "sleep 3" }} }}\n'
        f'    call.exec {{ argv = {{ "/bin/sh", "-c", "echo " .. request.attempt .. " second >> {ledger}.second" }} }}\n    return {{ outcome')
    nodes = Nodes(pg, "paused", 2, ledger, two_steps)
    with nodes as (first, second):
        first.log_error("act now")
        wait_for("it acts", lambda: nodes.acts())
        first.process.send_signal(signal.SIGSTOP)
        wait_for("it is taken over", lambda: [e for e in second.events() if e["state"] not in ("open", "healing", "verifying")], 25)
        first.process.send_signal(signal.SIGCONT)
        wait_for("it joins again", lambda: members(second)["n0"] == "alive" and first.get("/api/v1/status")["cluster"]["times_lost"] == 1, 20)
        time.sleep(1)
        assert not pathlib.Path(f"{ledger}.second").exists(), "the second step came after the lease was over"
        assert second.events()[0]["state"] == "escalated"
        assert first.get("/api/v1/status")["open_incidents"] == 0
        first.log_error("it takes part again", service="other")
    assert nodes.broken(2) == []


def test_a_clean_stop_hands_over_at_once(pg, tmp_path):
    nodes = Nodes(pg, "handed", 2, tmp_path / "ledger", autonomy={"default": "approve", "max_risk": "destructive"})
    with nodes as (first, second):
        first.log_error("wait for a person")
        event = wait_for("it waits", lambda: [e for e in first.events() if e["state"] == "awaiting_approval"])[0]
        # Through the node that does not heal it.
        first.stop()
        wait_for("taken over", lambda: second.get("/api/v1/status")["cluster"]["taken_over"] == 1, 15)
        assert members(second)["n0"] == "left"
        wait_for("it can be approved here", lambda: second.call("POST", f"/api/v1/healing/events/{event['id']}/approve", {"strategy": "act"}).status == 200)
        wait_for("it acts", lambda: nodes.acts())


def test_what_a_person_says_to_one_node_holds_on_all(pg, tmp_path):
    nodes = Nodes(pg, "people", 2, tmp_path / "ledger", autonomy={"default": "approve", "max_risk": "destructive"})
    with nodes as (first, second):
        first.log_error("wait for a person")
        event = wait_for("it waits", lambda: [e for e in first.events() if e["state"] == "awaiting_approval"])[0]
        answer = second.call("POST", f"/api/v1/healing/events/{event['id']}/approve", {"strategy": "act"})
        assert answer.status == 200, answer.text
        wait_for("it acts", lambda: nodes.acts())
        assert second.call("POST", "/api/v1/pause", {"reason": "stop"}).status == 200
        wait_for("the other is paused too", lambda: first.get("/api/v1/status")["paused"])
        assert second.call("POST", "/api/v1/resume").status == 200
        wait_for("and resumed", lambda: not first.get("/api/v1/status")["paused"])
        assert first.call("PUT", "/api/v1/strategies/act", {"priority": 77}).status == 200
        wait_for("the priority too", lambda: second.strategies()["act"]["priority"] == 77)


def test_one_action_per_target_in_the_whole_cluster(pg, tmp_path):
    ledger = tmp_path / "ledger"
    script = touch_script("act", ledger).replace(
        f'>> {ledger}"', f'$(date +%s%N) start >> {ledger}; sleep 0.3; echo " .. request.attempt .. " $(date +%s%N) end >> {ledger}.ends"').replace(" act $(", " $(")
    nodes = Nodes(pg, "target", 3, ledger, script)
    with nodes as all_nodes:
        # Different errors of one service, at once on all nodes: one target.
        for i in range(9):
            all_nodes[i % 3].log_error(f"{['alpha', 'beta', 'gamma', 'delta', 'epsilon', 'zeta', 'eta', 'theta', 'iota'][i]} is broken")
        wait_for("all ended", lambda: sum(h.get("/api/v1/status")["open_incidents"] for h in all_nodes) == 0, 40)
        spans = collections.defaultdict(dict)
        for line in (ledger.read_text() + pathlib.Path(f"{ledger}.ends").read_text()).splitlines():
            words = line.split()
            spans[words[0]][words[-1]] = int(words[-2])
        times = sorted((s["start"], s["end"]) for s in spans.values())
        assert len(times) >= 9
        overlaps = [(a, b) for a, b in zip(times, times[1:]) if b[0] < a[1]]
        assert not overlaps, f"{len(overlaps)} of {len(times)} actions on one target at the same time"
    assert nodes.broken(9) == []


def test_limits_count_over_all_nodes(pg, tmp_path):
    nodes = Nodes(pg, "limits", 3, tmp_path / "ledger", limits={**OPEN["limits"], "target_per_hour": 4})
    with nodes as all_nodes:
        for i in range(12):
            all_nodes[i % 3].log_error(f"{['alpha', 'beta', 'gamma', 'delta', 'epsilon', 'zeta', 'eta', 'theta', 'iota', 'kappa', 'lambda', 'mu'][i]} is broken")
        wait_for("four acted", lambda: len(nodes.acts()) >= 4, 20)
        time.sleep(3)
        assert len(nodes.acts()) == 4


def test_a_node_of_the_version_before_goes_on_beside_a_newer_one(pg, tmp_path):
    """A rolling upgrade: the first node of a newer version has added columns, a table and its entry in schema_migration."""
    nodes = Nodes(pg, "rolling", 2, tmp_path / "ledger")
    with nodes as (first, second):
        first.log_error("before it")
        wait_for("it acts", lambda: len(nodes.acts()) == 1)
        for (table,) in pg.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'rolling'"):
            pg.sql(f"ALTER TABLE {table} ADD COLUMN of_a_later_version TEXT NOT NULL DEFAULT ''", "rolling")
        pg.sql("CREATE TABLE later (id TEXT PRIMARY KEY); INSERT INTO schema_migration (version, name, sha256, applied_at) VALUES (9999, 'later', 'x', 0); "
               "UPDATE cluster_nodes SET version = '99.0.0' WHERE node = 'n1'", "rolling")
        assert {n["version"] for n in first.get("/api/v1/cluster")["items"]} >= {"99.0.0"}
        # Both versions share the work, also what the other one leaves.
        first.log_error("after it, on the old one")
        second.log_error("another error, heard by the other")
        wait_for("both act", lambda: len(nodes.acts()) == 3)
        for job in first.get("/api/v1/jobs")["items"]:
            assert first.call("POST", f"/api/v1/jobs/{job['job_name']}/run").status in (200, 202)
        assert first.call("GET", "/api/v1/logs").status == first.call("GET", "/api/v1/healing/stats").status == 200
        wait_for("all ended", lambda: sum(h.get("/api/v1/status")["open_incidents"] for h in (first, second)) == 0, 40)
        # At its next start it says that it is too old, and touches nothing.
        first.stop()
        with pytest.raises(AssertionError) as refused:
            first.start()
        assert "newer" in str(refused.value)
        second.log_error("the rest is healed by who is left")
        wait_for("it acts", lambda: len(nodes.acts()) == 4)
        second.stop()
    assert nodes.broken(4) == []
