"""What decides, in a running heald: guards, holds, the drill."""
import datetime
import http.server
import pathlib
import threading
import time

import pytest

from harness import OPEN, Heald, Stalls, healctl, touch_script, wait_for


@pytest.fixture
def sites():
    """Services whose health is a flag: sites["db"].ok = False makes its probe fail."""
    made = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.server.ok else 503)
            self.end_headers()

        def log_message(self, *args):
            pass

    class Sites(dict):
        def __missing__(self, name):
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.ok = True
            server.url = f"http://127.0.0.1:{server.server_port}/"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self[name] = made[name] = server
            return server

    yield Sites()
    for server in made.values():
        server.shutdown()


def lines(path):
    return pathlib.Path(path).read_text().splitlines() if pathlib.Path(path).exists() else []


def service(name, sites, **more):
    return {"name": name, "probes": [{"http": sites[name].url, "timeout": "500ms"}], **more}


SLOW = """
return {{
  name = "slow", version = "1.0.0", summary = "test", priority = 50, confidence = 0.5, risk = "safe", timeout_ms = 60000,
  matches = {{ {{}} }}, capabilities = {{ "exec:/bin/sh" }},
  execute = function(request, call)
    call.exec {{ argv = {{ "/bin/sh", "-c", "echo $$ > {path}; exec sleep 30" }} }}
    return {{ outcome = "succeeded" }}
  end,
}}
"""


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("scope", [[], ["--service", "cart"], ["--strategy", "slow"]])
def test_a_kill_switch_reaches_what_is_under_way_within_a_second(tmp_path, sites, scope):
    pid_file = tmp_path / "pid"
    with Heald({**OPEN, "services": [service("cart", sites)]}) as h:
        h.script("slow.lua", SLOW.format(path=pid_file))
        h.loaded("slow")
        h.log_error("broken")
        pid = int(wait_for("it runs", lambda: lines(pid_file))[0])
        with Stalls() as stalls:
            start = time.monotonic()
            assert healctl(h, "hold", "set", "pause", "--reason", "test", *scope)[0] == 0
            wait_for("its process is gone", lambda: not alive(pid), 15)
            took = time.monotonic() - start
        assert took < 1.0 + 2 * stalls.worst, (took, stalls.worst)
        h.log_error("another thing is broken")
        event = wait_for("it waits", lambda: [e for e in h.events() if "paused" in e["reason"]])[0]
        assert event["state"] == "open"


def test_a_scoped_kill_switch_lets_others_pass_and_survives_a_restart(tmp_path, sites):
    done = tmp_path / "done"
    h = Heald({**OPEN, "services": [service("cart", sites), service("shop", sites)]})
    try:
        h.script("touch.lua", touch_script("touch", done))
        h.loaded("touch")
        assert h.call("POST", "/api/v1/holds", {"kind": "pause", "service": "cart", "reason": "works"}, {"X-Heald-Actor": "anna"}).status == 201
        h.kill()
        h.start()
        h.loaded("touch")
        h.log_error("broken", "cart"), h.log_error("broken", "shop")
        assert h.ended("shop")[0]["state"] == "healed"
        held = wait_for("cart waits", lambda: [e for e in h.events("&service_name=cart") if "paused" in e["reason"]])[0]
        assert "works (by anna" in held["reason"]
        hold = h.get("/api/v1/holds")["items"][0]
        h.log_error("broken", "cart")  # still there when the hold is lifted
        assert healctl(h, "hold", "lift", hold["id"])[0] == 0
        assert h.ended("cart")[0]["state"] in ("healed", "closed")
        assert h.call("DELETE", f"/api/v1/holds/{hold['id']}").status == 404
        actions = [a["action"] for a in h.get("/api/v1/audit")["items"]]
        assert "hold.set" in actions and "hold.lift" in actions
    finally:
        h.close()


def test_maintenance_ends_by_itself_and_must(tmp_path, sites):
    done = tmp_path / "done"
    sites["cart"].ok = False
    with Heald({**OPEN, "services": [service("cart", sites)]}) as h:
        h.script("touch.lua", touch_script("touch", done))
        h.loaded("touch")
        refused = h.call("POST", "/api/v1/holds", {"kind": "maintenance", "reason": "x"})
        assert refused.status == 400 and "ends by itself" in refused.text
        assert healctl(h, "hold", "set", "maintenance", "--service", "cart", "--for", "3s", "--reason", "deploy")[0] == 0
        ends = datetime.datetime.fromisoformat(h.get("/api/v1/holds")["items"][0]["ends_at"].replace("Z", "+00:00")).timestamp()
        h.log_error("broken")
        wait_for("it is done after the window", lambda: lines(done), 20)
        assert done.stat().st_mtime >= ends - 0.02, "and not within it"


def test_what_recovered_while_it_waited_is_left_alone(tmp_path, sites):
    done = tmp_path / "done"
    with Heald({**OPEN, "services": [service("cart", sites)]}) as h:
        h.script("touch.lua", touch_script("touch", done))
        h.loaded("touch")
        healctl(h, "hold", "set", "maintenance", "--for", "6s", "--reason", "deploy")
        h.log_error("broken for a moment")
        event = h.ended()[0]
        assert event["state"] == "closed" and event["resolution"] == "self_resolved" and not lines(done)
        assert h.get("/api/v1/healing/stats")["incidents"]["by_resolution"] == {"self_resolved": 1}


def test_nothing_is_done_while_a_dependency_is_down(tmp_path, sites):
    done = tmp_path / "done"
    sites["db"].ok = sites["cart"].ok = False
    with Heald({**OPEN, "services": [service("db", sites), service("cart", sites, depends_on=["db"])]}) as h:
        h.script("touch.lua", touch_script("touch", done, matches='{ service = "cart" }'))
        h.loaded("touch")
        h.log_error("cannot reach the database")
        held = wait_for("it waits", lambda: [e for e in h.events() if "is down" in e["reason"]])[0]
        assert "'db'" in held["reason"] and not lines(done)
        below = h.ended("db")[0]
        assert below["trigger_name"] == "dependency down" and "seen from 'cart'" in below["incident"]["message"]
        sites["db"].ok = True
        wait_for("it acts once the dependency is up", lambda: lines(done), 10)
        guards = {g["guard"]: g for g in h.get("/api/v1/guards")["guards"]}
        assert guards["dependency"]["tripped"] >= 1 and guards["dependency"]["input_missing"] == 0


def test_a_group_keeps_its_minimum(tmp_path, sites):
    done = tmp_path / "done"
    sites["b"].ok = False
    sites["a"].ok = False
    config = {**OPEN, "services": [service(n, sites) for n in "abc"], "groups": [{"name": "web", "services": ["a", "b", "c"], "min_healthy": 2}]}
    with Heald(config) as h:
        h.script("touch.lua", touch_script("touch", done).replace('risk = "safe"', 'risk = "disruptive"'))
        h.loaded("touch")
        h.log_error("broken", "a")
        wait_for("it waits", lambda: [e for e in h.events() if "group 'web'" in e["reason"]])
        assert not lines(done)
        sites["b"].ok = True
        wait_for("it acts once two others are healthy", lambda: lines(done), 10)


def test_guards_forget_nothing_over_a_kill(tmp_path, sites):
    done = tmp_path / "done"
    sites["cart"].ok = False
    limits = {**OPEN["limits"], "breaker_failures": 2, "flap_high": 0}
    h = Heald({**OPEN, "limits": limits, "verify": {"timeout": "100ms", "stabilize": "0ms", "hold": "1h"}, "services": [service("cart", sites)]})
    try:
        h.script("touch.lua", touch_script("touch", done))
        h.loaded("touch")
        for i, word in enumerate(("alpha", "beta")):
            h.log_error(f"error {word} happened")
            h.ended(count=i + 1)
        h.kill()
        h.start()
        h.loaded("touch")
        h.log_error("error gamma happened")
        held = wait_for("the breaker holds it", lambda: [e for e in h.events() if "2 times in a row" in e["reason"]])[0]
        assert held["state"] == "open" and len(lines(done)) == 2
    finally:
        h.close()


def test_what_failed_last_asks_a_person_also_after_a_restart(tmp_path, sites):
    done = tmp_path / "done"
    sites["cart"].ok = False
    limits = {**OPEN["limits"], "repeat_after": "1h"}
    h = Heald({**OPEN, "limits": limits, "verify": {"timeout": "100ms", "stabilize": "0ms", "hold": "1h"}, "services": [service("cart", sites)]})
    try:
        h.script("touch.lua", touch_script("touch", done))
        h.loaded("touch")
        h.log_error("always the same")
        assert h.ended()[0]["state"] == "escalated"
        h.kill()
        h.start()
        h.loaded("touch")
        h.log_error("always the same")
        asked = wait_for("a person is asked", lambda: [e for e in h.events() if e["state"] == "awaiting_approval"])[0]
        assert "nothing is new" in asked["reason"] and len(lines(done)) == 1
        assert healctl(h, "event", "approve", asked["id"])[0] == 0
        wait_for("then it is done", lambda: len(lines(done)) == 2)
    finally:
        h.close()


def test_the_site_forbids_a_capability_and_the_drill_passes(tmp_path, sites):
    done = tmp_path / "done"
    with Heald({**OPEN, "autonomy": {**OPEN["autonomy"], "forbid": ["exec:/bin/*"]}, "services": [service("cart", sites)]}) as h:
        h.script("touch.lua", touch_script("touch", done))
        h.loaded("touch")
        h.log_error("broken")
        assert "the site forbids" in h.ended()[0]["reason"] and not lines(done)
        code, out, _ = healctl(h, "drill")
        assert code == 0 and out.count(" ok ") + out.count(" off ") == 21 and "FAILED" not in out
        assert "capability" in healctl(h, "guard", "list")[1]


def test_windows_and_groups_of_the_configuration_are_checked():
    bad = {"windows": [{"kind": "maintenance", "at": "25:00", "for": "1h"}, {"kind": "pause", "until": "2026-12-24T18:00:00Z"}, {"days": ["mon"]}],
           "groups": [{"name": "g", "services": ["nobody", "none"], "min_healthy": "120%"}], "limits": {"flap_high": 10, "flap_low": 20}}
    h = Heald(bad, start=False)
    try:
        code, _, err = healctl(None, "config", "check", str(h.config))
        for text in ("windows[0].at: must be a time of day", "windows[1].kind: must be maintenance or freeze", "windows[2]: needs at and for",
                     "groups[0].min_healthy", "flap_low: must not be above", "there is no service 'nobody'"):
            assert code == 1 and text in err, err
    finally:
        h.close()


def test_why_tells_each_step_and_computes_the_ranking_again(tmp_path, sites):
    done = tmp_path / "done"
    sites["cart"].ok = False
    with Heald({**OPEN, "verify": {"timeout": "100ms", "stabilize": "0ms", "hold": "1h"}, "services": [service("cart", sites)]}) as h:
        h.script("one.lua", touch_script("one", done, 60))
        h.script("two.lua", touch_script("two", done, 40))
        h.loaded("one"), h.loaded("two")
        h.log_error("it is \u001b[31mbroken")
        event = h.ended()[0]
        code, out, _ = healctl(h, "why", event["id"])
        assert code == 0 and "\x1b" not in out
        for text in ("opened at", "2 strategies fit it", "1. 'one': priority 60", "2. 'two'", "the same, byte by byte", "guards let 'one' pass", "is ill", "verified: failed",
                     "escalated: no candidate is left"):
            assert text in out, out
        answer = h.get(f"/api/v1/healing/events/{event['id']}/why")
        assert answer["ranking"]["equal"] is True and answer["ranking"]["recomputed"] == answer["ranking"]["stored"]
        assert h.call("GET", "/api/v1/healing/events/none/why").status == 404


def test_a_new_kind_of_error_after_an_action_that_stays_is_harm(tmp_path, sites):
    done = tmp_path / "done"
    with Heald({**OPEN, "services": [service("cart", sites)]}) as h:
        h.script("touch.lua", touch_script("touch", done, matches='{ message = "first" }'))
        h.loaded("touch")
        h.log_error("first trouble")
        event = h.ended()[0]
        assert event["state"] == "healed"
        h.log_error("never seen before: panic in allocator")
        h.log_error("never seen before: panic in allocator")
        h.log_error("never seen before: panic in allocator")
        wait_for("the harm is in the audit log", lambda: [a for a in h.get("/api/v1/audit")["items"] if a["action"] == "attempt.harm"])
        entry = [a for a in h.get("/api/v1/audit")["items"] if a["action"] == "attempt.harm"][0]
        assert entry["subject"] == event["attempts"][0]["id"] and "panic in allocator" in entry["detail"]["text"]
        assert 'heald_harm_total{strategy="touch"} 1' in h.call("GET", "/metrics").text
