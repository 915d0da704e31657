"""The patch pipeline in a running heald: what stops it, who approves it, who asks for it, what it learns and leaves, who goes on with it."""
import json
import os
import pathlib
import sqlite3
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "patch"))
from world import analysis, block, bug_of, config, git, make_repository, report, runs_of
from model_server import ModelServer
from pg import Postgres, binaries

from harness import OPEN, Heald, Stalls, healctl, touch_script, wait_for

LINE, FIXED = "    return 100 * sold / kept\n", "    if kept == 0:\n        return 0\n    return 100 * sold / kept\n"
TEST = "import sys\nsys.path.insert(0, 'src')\nfrom rate import rate\nassert rate(10, 5) == 200\nassert rate(7, 7) == 0\n"
WATCH = {"settle": "1s", "stabilize": "200ms", "hold": "500ms", "look_every": "50ms"}


def code(line=LINE):
    return "def rate(sold, returned):\n    kept = sold - returned\n" + line


def trace(line=LINE):
    return f'Traceback (most recent call last):\n  File "/srv/src/rate.py", line 3, in rate\n{line}ZeroDivisionError: division by zero'


class Shop:
    """A repository with a bug that divides by zero, and a model that knows the fix. What is pushed and deployed is written down."""

    def __init__(self, folder, name="shop", source=None, **repository):
        self.name, self.source, self.folder = name, source or code(), folder
        self.bare = make_repository(folder / f"{name}.git", {"src/rate.py": self.source, "tests/test_rate.py": TEST})
        self.first = git(self.bare, "rev-parse", "main")
        self.pushes, self.deploys = folder / f"{name}.pushes", folder / f"{name}.deploys"
        self.hook("post-receive", f"cat >> {self.pushes}")
        self.repository = {"name": name, "url": str(self.bare), "services": [name], "allowed": ["src/**"], "autonomy": "merge", "watch": WATCH,
                           "tests": [{"name": "unit", "run": ["python3", "-B", "tests/test_rate.py"], "timeout": "20s"}],
                           "deploy": [{"name": "roll out", "run": ["/bin/sh", "-c", f"echo $HEAL_COMMIT >> {self.deploys}"]}], **repository}

    def hook(self, name, text):
        # heald's git reads no configuration but its own, which knows no hooks, and hands that to a remote on this machine.
        git(self.bare, "config", "core.hooksPath", str(self.bare / "hooks"))
        hook = self.bare / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\n" + text + "\n")
        hook.chmod(0o755)

    def fix(self, question):
        return analysis(files=["src/rate.py"]) if question.wants_json else block("src/rate.py", LINE, FIXED)

    def breaks(self, heald):
        report(heald, self.name, "the rate of an order failed", error_type="ZeroDivisionError", stack_trace=trace(self.source.splitlines(True)[-1]))
        return bug_of(heald, self.name)["id"]

    def run(self, heald, bug, step=None, timeout=12):
        """The newest run of the bug, once it is at `step`; without one, once it has ended."""
        at = lambda r: r["step"] == step and not r["outcome"] if step else r["ended_at"]
        found = wait_for(f"a run is at {step or 'its end'}; now: {[(r['step'], r['outcome'], r['reason']) for r in runs_of(heald, bug)]}",
                         lambda: [r for r in runs_of(heald, bug)[:1] if at(r)], timeout, 0.02)[0]
        return heald.get(f"/api/v1/patches/{found['id']}")

    def lines(self, path):
        return path.read_text().splitlines() if path.exists() else []

    def refs_pushed(self):
        return [line.split()[2] for line in self.lines(self.pushes)]

    def commits(self):
        return git(self.bare, "rev-list", f"{self.first}..main").split()


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


def heald_of(shop, model, *more, folder=None, **settings):
    return Heald(config([shop.repository, *(s.repository for s in more)], model, **settings), folder=folder)


def stop(heald, how):
    """Sets the kill switch, for all or for the service alone; returns how it is lifted."""
    if how == "pause":
        assert heald.call("POST", "/api/v1/pause", {"reason": "stop"}).status == 200
        return lambda: heald.call("POST", "/api/v1/resume")
    held = heald.call("POST", "/api/v1/holds", {"kind": "pause", "service": "shop", "reason": "works"}, {"X-Heald-Actor": "anna"})
    assert held.status == 201, held.text
    hold = heald.get("/api/v1/holds")["items"][0]["id"]
    return lambda: heald.call("DELETE", f"/api/v1/holds/{hold}")


def gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"
    except OSError:
        return True


# --- the kill switch

@pytest.mark.parametrize("how", ["pause", "hold"])
def test_nothing_leaves_while_the_kill_switch_is_on_and_trials_go_on(shop, how):
    shop.repository["tests"][0]["run"] = ["/bin/sh", "-c", "sleep 0.7; exec python3 -B tests/test_rate.py"]
    with ModelServer(shop.fix) as model, heald_of(shop, model) as h:
        bug = shop.breaks(h)
        shop.run(h, bug, "test")
        lift = stop(h, how)
        held = wait_for("it waits before the push", lambda: (r := shop.run(h, bug, "push"))["held"] and r)
        assert ("kill switch" if how == "pause" else "works") in held["held"] and held["evidence"]["counter"]["ok"]
        time.sleep(0.8)
        assert not shop.lines(shop.pushes) and not shop.lines(shop.deploys) and shop.run(h, bug, "push")["step"] == "push"
        lift()
        end = shop.run(h, bug)
        assert end["outcome"] == "held" and end["held"] == ""
        assert len(shop.commits()) == 1 and shop.lines(shop.deploys) == shop.commits()


@pytest.mark.parametrize("how, idempotent", [("pause", False), ("hold", True)])
def test_a_deployment_under_way_is_stopped_within_a_second(shop, how, idempotent, tmp_path):
    pid, slow = tmp_path / "pid", tmp_path / "slow"
    slow.touch()
    shop.repository["deploy"] = [{"name": "roll out", "idempotent": idempotent, "run": [
        "/bin/sh", "-c", f"echo $$ > {pid}; echo $HEAL_COMMIT >> {shop.deploys}; [ ! -e {slow} ] || sleep 60; echo done >> {shop.deploys}"]}]
    shop.repository["undeploy"] = [["/bin/sh", "-c", f"echo back >> {shop.deploys}"]]
    with ModelServer(shop.fix) as model, heald_of(shop, model) as h:
        bug = shop.breaks(h)
        wait_for("it deploys", lambda: shop.lines(pid), 12)
        child = int(pid.read_text())
        with Stalls() as stalls:
            before = time.monotonic()
            lift = stop(h, how)
            wait_for("what it runs is gone", lambda: gone(child), 5)
            took = time.monotonic() - before
        assert took < 1.0 + 2 * stalls.worst, (took, stalls.worst)
        slow.unlink()
        wait_for("it says what holds it", lambda: h.get(f"/api/v1/patches/{runs_of(h, bug)[0]['id']}")["held"])
        time.sleep(0.7)
        merged = shop.commits()
        assert len(merged) == 1 and shop.lines(shop.deploys) == merged, "nothing more is done while it is on"
        lift()
        end = shop.run(h, bug)
        if idempotent:
            assert end["outcome"] == "held" and shop.lines(shop.deploys) == [merged[0], merged[0], "done"]
        else:
            assert end["outcome"] == "did_not_hold" and "given up" in end["reason"], end["reason"]
            assert shop.lines(shop.deploys) == [merged[0], "back"] and git(shop.bare, "show", "main:src/rate.py") == shop.source.strip()
            assert h.get(f"/api/v1/system/bugs/{bug}")["status"] == "failed"


def test_a_push_under_way_is_stopped_within_a_second_and_made_once_afterwards(shop, tmp_path):
    slow, pid = tmp_path / "slow", tmp_path / "pid"
    slow.touch()
    shop.hook("pre-receive", f"[ -e {slow} ] || exit 0\necho $$ > {pid}\nexec sleep 60")
    with ModelServer(shop.fix) as model, heald_of(shop, model) as h:
        bug = shop.breaks(h)
        wait_for("it pushes", lambda: shop.lines(pid), 12)
        with Stalls() as stalls:
            before = time.monotonic()
            lift = stop(h, "pause")
            wait_for("the push is gone", lambda: gone(int(pid.read_text())), 5)
            took = time.monotonic() - before
        assert took < 1.0 + 2 * stalls.worst, (took, stalls.worst)
        slow.unlink()
        time.sleep(0.6)
        assert not shop.lines(shop.pushes)
        lift()
        assert shop.run(h, bug)["outcome"] == "held"
        assert sorted(shop.refs_pushed())[-1] == "refs/heads/main" and shop.refs_pushed().count("refs/heads/main") == 1


# --- people

def approve(heald, run, who, **body):
    return heald.call("POST", f"/api/v1/patches/{run}/approve", body, {"X-Heald-Actor": who})


def test_two_different_people_approve_a_patch(shop):
    shop.repository["autonomy"] = "trial"
    with ModelServer(shop.fix) as model, heald_of(shop, model, approvals={"two_persons": "safe"}) as h:
        run = shop.run(h, shop.breaks(h), "review")["id"]
        nameless = h.call("POST", f"/api/v1/patches/{run}/approve", {})
        assert nameless.status == 400 and "each says who they are" in nameless.json["detail"]
        first = approve(h, run, "anna")
        assert first.status == 200 and first.json["state"] == "pending" and first.json["needed"] == 2
        assert approve(h, run, "anna").status == 409, "the same person is one person"
        time.sleep(0.5)
        before = h.get(f"/api/v1/patches/{run}")["updated_at"]
        time.sleep(0.5)
        assert h.get(f"/api/v1/patches/{run}")["updated_at"] == before, "who waits for people does nothing"
        assert not shop.lines(shop.pushes)
        assert approve(h, run, "bert").json["state"] == "approved"
        end = wait_for("it ends", lambda: (r := h.get(f"/api/v1/patches/{run}"))["ended_at"] and r)
        assert end["outcome"] == "held" and "anna" in end["facts"]["approved_by"] and "bert" in end["facts"]["approved_by"]


def test_an_approval_is_for_exactly_this_patch_and_these_commands(shop, tmp_path):
    shop.repository["autonomy"] = "trial"
    with ModelServer(shop.fix) as model, heald_of(shop, model, folder=tmp_path / "heald") as h:
        bug = shop.breaks(h)
        run = shop.run(h, bug, "review")["id"]
        asked = wait_for("people are asked", lambda: h.get("/api/v1/approvals?state=pending")["items"])[0]
        assert asked["bound"]["patch_hash"] == h.get(f"/api/v1/patches/{run}")["patch_hash"]
        wrong = approve(h, run, "anna", digest="0" * 64)
        assert wrong.status == 409 and "not what is asked for now" in wrong.json["detail"]
        # The commands that would deploy it change while it waits.
        settings = json.loads(h.config.read_text())
        settings["repositories"][0]["deploy"][0]["run"][-1] += " && true"
        h.config.write_text(json.dumps(settings))
        h.process.send_signal(1)  # SIGHUP
        wait_for("it is read again", lambda: any("read again" in line for line in h.log))
        late = approve(h, run, "anna", digest=asked["digest"])
        assert late.status == 409 and "deploy was" in late.json["detail"], late.text
        assert h.get(f"/api/v1/approvals/{asked['id']}")["state"] == "voided"
        again = wait_for("people are asked anew", lambda: h.get("/api/v1/approvals?state=pending")["items"])[0]
        # Another patch under the same request: what was stored is changed behind its back.
        h.kill()
        with sqlite3.connect(h.state / "heald.db") as db:
            (text,) = db.execute("SELECT data FROM patch_runs WHERE id = ?", (run,)).fetchone()
            data = json.loads(text)
            data["facts"]["patch_hash"] = "f" * 64
            db.execute("UPDATE patch_runs SET data = ? WHERE id = ?", (json.dumps(data), run))
        db.close()
        h.start()
        drifted = wait_for("it is void", lambda: (a := h.get(f"/api/v1/approvals/{again['id']}"))["state"] == "voided" and a)
        assert "patch_hash was" in drifted["reason"]
        assert not shop.lines(shop.pushes) and shop.run(h, bug, "review")["step"] == "review"
        # Said yes to, it is still not what was tried: it is not committed.
        assert approve(h, run, "anna").status == 200
        end = shop.run(h, bug)
        assert end["outcome"] == "failed" and "not the one that was tried" in end["reason"] and not shop.commits()


@pytest.mark.parametrize("change, words", [
    ("    return 0 if kept == 0 else 100 * sold / kept\n", "does not merge into what is there now"),
    (None, "red together with what was merged since"),
])
def test_a_base_that_moved_on_since_the_approval_is_looked_at_again(shop, change, words, tmp_path):
    shop.repository["autonomy"] = "trial"
    with ModelServer(shop.fix) as model, heald_of(shop, model) as h:
        bug = shop.breaks(h)
        run = shop.run(h, bug, "review")["id"]
        other = tmp_path / "other"
        git(tmp_path, "clone", "-q", str(shop.bare), str(other))
        if change:
            (other / "src/rate.py").write_text(code(change))
        else:
            (other / "tests/test_rate.py").write_text(TEST + "assert rate(3, 3) == 1\n")
        git(other, "commit", "-q", "-a", "-m", "theirs")
        git(other, "push", "-q", "origin", "main")
        theirs = git(shop.bare, "rev-parse", "main")
        assert approve(h, run, "anna").status == 200
        end = shop.run(h, bug)
        assert end["outcome"] == "refused" and words in end["reason"], end["reason"]
        assert git(shop.bare, "rev-parse", "main") == theirs and not shop.lines(shop.deploys)


# --- llm_patch

ASKS = """
return {
  name = "nosy", version = "1.0.0", summary = "shows its ticket", priority = 50, confidence = 0.9, risk = "safe", timeout_ms = 20000,
  matches = { { target = { "code" }, level = "error" } }, capabilities = { "net:{target.code.address}", "exec:/bin/sh" },
  execute = function(request, call)
    call.exec { argv = { "/bin/sh", "-c", "echo " .. request.ticket .. " > FOLDER/ticket; while [ ! -e FOLDER/go ]; do sleep 0.05; done" } }
    return { outcome = "declined", text = "only looked" }
  end,
}
"""


def test_llm_patch_comes_last_and_asks_with_its_ticket(shop, tmp_path):
    shop.repository["autonomy"] = "trial"
    with ModelServer(shop.fix) as model, heald_of(shop, model, **OPEN) as h:
        h.script("nosy.lua", ASKS.replace("FOLDER", str(tmp_path)))
        h.plugin("llm_patch")
        h.loaded("nosy"), h.loaded("llm_patch")
        for _ in range(3):  # of low severity: nothing but llm_patch has it analysed
            h.log_error("the rate of an order failed", "shop", error_type="ZeroDivisionError", stack_trace=trace())
        bug = bug_of(h, "shop")["id"]
        ticket = wait_for("the first shows its ticket", lambda: shop.lines(tmp_path / "ticket"))[0]
        event = h.events()[0]["id"]
        ask = lambda what, method="GET", path=f"/api/v1/healing/events/{event}", body=None: h.call(
            method, path, body, {"Authorization": f"Bearer {what}"}).status
        assert ask(ticket) == 200
        forged = ticket[:-1] + ("0" if ticket[-1] != "0" else "1")
        for bad in (forged, "attempt:1:aa", "attempt:"):
            assert ask(bad) == 403, bad
            assert ask(bad, "POST", "/api/v1/ai/fix", {"bug_id": bug}) == 403
        for method, path in (("POST", "/api/v1/pause"), ("GET", "/api/v1/audit"), ("PUT", "/api/v1/strategies/nosy")):
            assert ask(ticket, method, path, {} if method != "GET" else None) == 403, f"a ticket is not good for {path}"
        assert not runs_of(h, bug) and not model.questions
        (tmp_path / "go").touch()
        ended = h.ended("shop")[0]
        said = [(a["strategy"], a["state"], a["text"]) for a in ended["attempts"]]
        assert [s[0] for s in said] == ["nosy", "llm_patch"], f"the model comes last: {said}"
        assert said[1][1] == "declined" and "waits for people" in said[1][2], said
        assert ended["bug_id"] == bug and ended["state"] == "escalated"
        (run,) = runs_of(h, bug)
        assert run["step"] == "review" and run["id"] in ended["attempts"][1]["text"]
        assert any(a["actor"] == "strategy:llm_patch" and a["action"] == "ai.analyze" for a in h.get("/api/v1/audit?limit=1000")["items"])
        assert ask(ticket) == 403, "its attempt is over"


def test_a_bug_that_is_analysed_again_has_the_same_edits_tried_once(shop):
    shop.repository["tests"][0]["run"] = ["/bin/sh", "-c", "sleep 0.7; exec python3 -B tests/test_rate.py"]
    with ModelServer(shop.fix) as model, heald_of(shop, model) as h:
        bug = shop.breaks(h)
        shop.run(h, bug, "reproduce")
        for _ in range(3):
            assert h.call("POST", "/api/v1/ai/fix", {"bug_id": bug}).status == 200
        assert len(runs_of(h, bug)) == 1
        refused = h.call("POST", f"/api/v1/system/bugs/{bug}/apply", {})
        assert refused.status == 409 and "being tried already" in refused.json["detail"]
        assert shop.run(h, bug)["outcome"] == "held" and len(runs_of(h, bug)) == 1


# --- patterns

def test_a_fix_that_held_is_tried_on_the_next_bug_of_its_kind_before_any_model(shop, tmp_path):
    other = Shop(tmp_path, "cart", "def rate(total, lost):\n    left = total - lost\n    return 100 * total / left\n")
    with ModelServer(shop.fix) as model, heald_of(shop, model, other) as h:
        assert shop.run(h, shop.breaks(h))["outcome"] == "held"
        (pattern,) = wait_for("it is learned", lambda: h.get("/api/v1/patterns")["items"])
        assert pattern["times_fixed"] == 1 and pattern["error_type"] == "ZeroDivisionError"
        asked = len(model.questions)
        bug = other.breaks(h)
        end = other.run(h, bug)
        assert end["outcome"] == "held", end["reason"]
        assert len(model.questions) == asked, "no model was asked"
        assert all(end["evidence"][step]["ok"] for step in ("gate", "reproduce", "test", "counter", "merge", "deploy"))
        assert "if left == 0:" in git(other.bare, "show", "main:src/rate.py") and other.lines(other.deploys) == other.commits()
        assert h.get(f"/api/v1/system/bugs/{bug}")["status"] == "fixed"
        assert h.get("/api/v1/patterns")["items"][0]["times_fixed"] == 2


# --- jobs

def run_job(heald, name):
    return wait_for(f"job {name} is there", lambda: (a := heald.call("POST", f"/api/v1/jobs/{name}/run")).status == 200 and a, 10).json


def test_the_job_code_scan_finds_places_of_known_patterns(shop, tmp_path):
    twin = Shop(tmp_path, "twin", "def rate(a, b):\n    c = a - b\n    return 100 * a / c\n")
    clean = Shop(tmp_path, "clean", code(FIXED))
    with ModelServer(shop.fix) as model, heald_of(shop, model, twin, clean) as h:
        assert h.get("/api/v1/scan")["items"] == []
        assert run_job(h, "code_scan")["output"] == "0 rows"
        assert shop.run(h, shop.breaks(h))["outcome"] == "held"
        wait_for("it is learned", lambda: h.get("/api/v1/patterns")["items"])
        wait_for("its end is written down", lambda: [j for j in h.get("/api/v1/jobs")["items"] if j["job_name"] == "code_scan"][0]["state"] == "idle")
        assert run_job(h, "code_scan")["output"] == "1 rows"
        (found,) = h.get("/api/v1/scan")["items"]
        assert (found["repository"], found["file"], found["line"]) == ("twin", "src/rate.py", 3), "the fixed ones are not named"
        assert "if c == 0:" in found["replacement"]
        before = h.get("/api/v1/scan")
        h.stop()
        h.start()
        assert h.get("/api/v1/scan") == before, "kept over a restart"


def test_the_job_bug_backup_keeps_fourteen_days():
    with Heald() as h:
        for service in ("cart", "shop"):
            report(h, service, "all is lost")
            bug_of(h, service)
        folder = h.state / "data/bugs"
        folder.mkdir(parents=True)
        for day in range(1, 21):
            for form in ("csv", "json", "ndjson"):
                (folder / f"bugs-202501{day:02}.{form}").write_text("old")
        (folder / "notes.txt").write_text("not ours")
        assert run_job(h, "bug_backup")["output"] == "2 rows"
        names = sorted(os.listdir(folder))
        assert len(names) == 14 * 3 + 1 and "notes.txt" in names
        assert names[0] == "bugs-20250108.csv", "the newest 14 days stay"
        newest = names[-2].removesuffix(".ndjson")
        rows = json.loads((folder / f"{newest}.json").read_text())
        assert {b["service_name"] for b in (rows if isinstance(rows, list) else rows["items"])} == {"cart", "shop"}
        assert len((folder / f"{newest}.ndjson").read_text().splitlines()) == 2 and len((folder / f"{newest}.csv").read_text().splitlines()) == 3
        assert (folder / f"{newest}.csv").stat().st_mode & 0o777 == 0o600


# --- many nodes

@pytest.fixture(scope="module")
def pg():
    if binaries() is None:
        pytest.skip("no PostgreSQL server is installed; ./dev setup installs it")
    with Postgres() as server:
        yield server


class Pair:
    """Two nodes on one PostgreSQL."""

    def __init__(self, pg, schema, shop, model):
        base = config([shop.repository], model, store={"url": pg.schema(schema)})
        self.nodes = [Heald({**base, "node": f"n{i}"}) for i in range(2)]

    def __enter__(self):
        return self.nodes

    def __exit__(self, kind, *_):
        for h in self.nodes:
            if h.process.poll() is None:
                h.process.send_signal(18)  # SIGCONT
            if kind:
                print(f"--- {h.port}\n" + "".join(h.log[-25:]))
            h.close()


def members(heald):
    return {n["node"]: n["state"] for n in heald.get("/api/v1/cluster")["items"]}


@pytest.mark.parametrize("step", ["test", "push", "deploy"])
def test_the_run_of_a_killed_node_is_taken_over_by_one_that_runs(pg, shop, tmp_path, step):
    slow, at = tmp_path / "slow", tmp_path / "at"
    # What the killed node was doing goes on without it, and ends.
    wait = f"[ ! -e {slow} ] || echo here >> {at}; while [ -e {slow} ]; do sleep 0.05; done"
    slow.touch()
    if step == "test":
        # The sandbox sees no files of ours: it is slow each time.
        shop.repository["tests"][0]["run"] = ["/bin/sh", "-c", "grep -q 'kept == 0' src/rate.py && sleep 2; exec python3 -B tests/test_rate.py"]
    elif step == "push":
        shop.hook("pre-receive", wait)
    else:
        shop.repository["deploy"][0]["run"][-1] += f"; {wait}"
    with ModelServer(shop.fix) as model, Pair(pg, f"taken_{step}", shop, model) as (first, second):
        bug = shop.breaks(first)
        shop.run(first, bug, step)
        wait_for("it is in its middle", lambda: step == "test" or shop.lines(at))
        assert runs_of(second, bug)[0]["node"] == "n0"
        asked = len(model.questions)
        first.kill()
        slow.unlink()
        end = shop.run(second, bug, timeout=25)
        assert end["outcome"] == "held" and end["node"] == "n1", end["reason"]
        assert len(shop.commits()) == 1 and shop.lines(shop.deploys) == shop.commits(), "deployed once"
        assert shop.refs_pushed().count("refs/heads/main") == 1 and len(shop.refs_pushed()) == len(set(shop.lines(shop.pushes)))
        assert len(runs_of(second, bug)) == 1 and len(model.questions) == asked
        assert members(second)["n0"] == "lost" and members(second)["n1"] == "alive"


def test_a_stopped_node_that_wakes_up_does_not_go_on_with_what_was_taken_over(pg, shop, tmp_path):
    shop.repository["tests"][0]["run"] = ["/bin/sh", "-c", "sleep 1; exec python3 -B tests/test_rate.py"]
    with ModelServer(shop.fix) as model, Pair(pg, "woken", shop, model) as (first, second):
        bug = shop.breaks(first)
        shop.run(second, bug, "reproduce")
        first.process.send_signal(19)  # SIGSTOP
        end = shop.run(second, bug, timeout=30)
        first.process.send_signal(18)
        wait_for("it joins again", lambda: members(second)["n0"] == "alive", 15)
        time.sleep(1)
        assert end["outcome"] == "held" and runs_of(second, bug)[0] == {k: v for k, v in end.items() if k in runs_of(second, bug)[0]}
        assert len(shop.commits()) == 1 and shop.lines(shop.deploys) == shop.commits()
        assert first.get("/api/v1/status")["cluster"]["times_lost"] == 1


@pytest.mark.parametrize("by", ["run", "bug", "code", "request", "no", "cancel"])
def test_a_word_given_to_any_node_reaches_the_one_that_runs_the_patch(pg, shop, by):
    shop.repository["autonomy"] = "trial"
    with ModelServer(shop.fix) as model, Pair(pg, f"vote_{by}", shop, model) as (first, second):
        bug = shop.breaks(first)
        run = shop.run(second, bug, "review")
        asked = wait_for("people are asked", lambda: second.get("/api/v1/approvals?state=pending")["items"])[0]
        named = {"run": run["id"], "bug": bug, "code": second.get(f"/api/v1/system/bugs/{bug}")["bug_code"]}.get(by, run["id"])
        wrong = second.call("POST", f"/api/v1/patches/{run['id']}x/approve", {})
        assert wrong.status == 409, wrong.text
        word = {"no": "reject", "cancel": "cancel"}.get(by, "approve")
        path = f"/api/v1/approvals/{asked['id']}/approve" if by == "request" else f"/api/v1/patches/{named}/{word}"
        said = second.call("POST", path, {"reason": "as seen"}, {"X-Heald-Actor": "anna"})
        assert said.status == 200, said.text
        assert by in ("request", "cancel") or said.json == {"forwarded": True}
        end = shop.run(second, bug)
        assert end["node"] == "n0" and end["outcome"] == {"no": "rejected", "cancel": "cancelled"}.get(by, "held"), end["reason"]
        assert "anna" in (end["reason"] if by == "cancel" else end["facts"]["approved_by"] if word == "approve" else "anna")
        assert any("anna" in a["actor"] and a["action"] == f"event.{word}" for a in second.get("/api/v1/audit?limit=100")["items"])
        again = second.call("POST", f"/api/v1/patches/{run['id']}/approve", {})
        assert again.status == 409, again.text
