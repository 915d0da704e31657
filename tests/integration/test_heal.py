"""From the error to the verified end, with real children, files, probes and processes."""
import copy
import http.server
import pathlib
import subprocess
import threading
import time

import pytest

from harness import OPEN, ROOT, Heald, Stalls, healctl, touch_script, wait_for


@pytest.fixture
def site():
    """A service whose health is a file: 200 while it is there."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            ok = self.server.healthy()
            self.send_response(200 if ok else 503)
            self.end_headers()
            self.wfile.write(b"ok" if ok else b"bad")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.healthy = lambda: True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}/health"
    yield server
    server.shutdown()


def service(site=None, **facts):
    entry = {"name": "cart", **facts}
    if site:
        entry["probes"] = [{"http": site.url, "timeout": "500ms"}]
    return copy.deepcopy({**OPEN, "services": [entry]})


def lines(path):
    return pathlib.Path(path).read_text().splitlines() if pathlib.Path(path).exists() else []


def test_a_line_in_a_file_is_healed_verified_and_recorded(tmp_path, site):
    log, done = tmp_path / "app.log", tmp_path / "done"
    log.touch()
    site.healthy = lambda: bool(lines(done))
    with Heald({**service(site), "sources": [{"file": str(log), "service": "cart"}]}) as h:
        h.script("touch.lua", touch_script("touch", done))
        h.loaded("touch")
        with open(log, "a") as f:
            f.write("2026-11-21 10:00:00 ERROR cache value for user 17 is broken\n")
        event = h.ended()[0]
        assert event["state"] == "healed" and event["healed_by"] == "touch" and event["resolution"] == "auto"
        attempt = event["attempts"][0]
        assert attempt["verified"] == "succeeded" and attempt["evidence"][0]["ok"]
        assert [a["kind"] for a in attempt["actions"]] == ["exec"] and attempt["actions"][0]["state"] == "done"
        assert lines(done) == [f"{attempt['id']} touch"]
        assert event["decision"]["candidates"][0]["strategy"] == "touch"
        actions = [a["action"] for a in h.get("/api/v1/audit")["items"]]
        assert "attempt.start" in actions and "event.healed" in actions
        assert healctl(h, "audit", "verify")[0] == 0
        stats = h.get("/api/v1/healing/stats")
        assert stats["mttr"]["n"] == 1 and stats["auto_heal_rate"] == 1
        code, out, _ = healctl(h, "event", "show", event["id"])
        assert code == 0 and "candidate 1: touch" in out and "evidence good" in out


def test_a_script_dropped_in_is_listed_within_a_second_and_a_broken_one_with_its_reason(tmp_path):
    done = tmp_path / "done"
    with Heald(service()) as h:
        with Stalls() as stalls:
            start = time.monotonic()
            h.script("late.lua", touch_script("late", done))
            h.loaded("late")
            took = time.monotonic() - start
        assert took < 1.0 + 2 * stalls.worst, (took, stalls.worst)
        h.script("broken.lua", "return { name = 'broken', execute = function( }")
        entry = wait_for("the broken one is listed", lambda: h.artifact("broken.lua"))
        assert entry["state"] == "refused" and "broken.lua" in entry["reason"]
        (h.state / "plugins" / "junk.so").write_bytes(b"not an ELF file")
        entry = wait_for("the junk is listed", lambda: h.artifact("junk.so"))
        assert entry["state"] == "refused" and entry["reason"]
        h.log_error("anything")
        assert h.ended()[0]["attempts"][0]["strategy"] == "late"
        (h.state / "scripts" / "late.lua").unlink()
        wait_for("a deleted one is withdrawn", lambda: "late" not in h.strategies())


def test_priority_set_at_run_time_changes_who_is_chosen_survives_and_is_audited(tmp_path):
    done = tmp_path / "done"
    h = Heald(service())
    try:
        for name, priority in (("first", 60), ("second", 40)):
            h.script(name + ".lua", touch_script(name, done, priority))
        h.loaded("first"), h.loaded("second")
        h.log_error("error alpha")
        assert h.ended(count=1)[0]["attempts"][0]["strategy"] == "first"
        answer = h.call("PUT", "/api/v1/strategies/second", {"priority": 90}, {"X-Heald-Actor": "anna"})
        assert answer.status == 200 and answer.json["priority"] == 90
        h.log_error("error beta gamma")
        assert h.ended(count=2)[0]["attempts"][0]["strategy"] == "second"
        h.stop()
        h.start()
        h.loaded("second")
        h.log_error("error delta epsilon zeta")
        assert h.ended(count=3)[0]["attempts"][0]["strategy"] == "second"
        entry = [a for a in h.get("/api/v1/audit")["items"] if a["action"] == "strategy.set"][0]
        assert entry["subject"] == "second" and entry["actor"].startswith("anna") and entry["detail"] == {"priority": 90}
        assert h.call("PUT", "/api/v1/strategies/second", {"priority": "high"}).status == 400
        assert h.call("PUT", "/api/v1/strategies/second", {"colour": 1}).status == 400
    finally:
        h.close()


CPP = r"""
#include <heal/sdk.hpp>
#include <csignal>
#include <cstdlib>
#include <unistd.h>
struct bad {
    static constexpr heal::descriptor about{.name = "NAME", .version = "1.0.0", .priority = 900, .timeout = std::chrono::milliseconds{700},
                                            .matches = R"([{"service": "cart"}])"};
    heal::outcome execute(const heal::request&, heal::call&) { BODY; return heal::outcome::succeeded("never"); }
};
HEAL_PLUGIN(bad);
"""


def build_plugin(folder, name, body):
    source = folder / f"{name}.cpp"
    source.write_text(CPP.replace("NAME", name).replace("BODY", body))
    library = folder / f"{name}.so"
    subprocess.run(["c++", "-std=c++20", "-O1", "-shared", "-fPIC", "-w", f"-I{ROOT}/plugin-api/include", source, "-o", library], check=True)
    return library


@pytest.mark.parametrize("name, body, state", [
    ("segfault", "raise(SIGSEGV)", "unknown"),
    ("sleeper", "for (;;) ::sleep(1000)", "unknown"),
    ("exiter", "std::exit(0)", "unknown"),
])
def test_a_strategy_that_dies_or_hangs_leaves_heald_serving_and_the_next_heals(tmp_path, site, name, body, state):
    done = tmp_path / "done"
    site.healthy = lambda: bool(lines(done))
    config = service(site)
    config["verify"] = {"timeout": "2s", "stabilize": "100ms", "hold": "1h"}
    with Heald(config) as h:
        library = build_plugin(tmp_path, name, body)
        library.rename(h.state / "plugins" / library.name)
        h.script("good.lua", touch_script("good", done, 10))
        h.loaded(name), h.loaded("good")
        slow = []
        stop = threading.Event()

        def watch():
            while not stop.is_set():
                start = time.monotonic()
                assert h.get("/health")["status"] == "ok"
                slow.append(time.monotonic() - start)
                time.sleep(0.02)

        watcher = threading.Thread(target=watch)
        with Stalls() as stalls:
            watcher.start()
            h.log_error("boom")
            event = h.ended()[0]
            stop.set()
            watcher.join()
        first = event["attempts"][0]
        assert first["strategy"] == name and first["state"] == state
        assert event["state"] == "healed" and event["healed_by"] == "good", event["reason"]
        assert h.process.poll() is None and max(slow) < 0.5 + 2 * stalls.worst


def test_not_healed_is_taken_back_and_the_next_is_tried(tmp_path, site):
    target, done = tmp_path / "setting.conf", tmp_path / "done"
    target.write_text("original\n")
    site.healthy = lambda: bool(lines(done))
    config = service(site)
    config["verify"]["timeout"] = "300ms"
    with Heald(config) as h:
        h.script("writer.lua", f"""
return {{ name = "writer", version = "1.0.0", priority = 90, risk = "safe", idempotent = true, reversible = true, matches = {{ {{}} }},
  capabilities = {{ "file:{target}" }},
  execute = function(request, call)
    call.write_file {{ path = "{target}", content = "changed\\n" }}
    return {{ outcome = "succeeded", text = "wrote" }}
  end }}""")
        h.script("touch.lua", touch_script("touch", done, 10))
        h.loaded("writer"), h.loaded("touch")
        h.log_error("setting is wrong")
        event = h.ended()[0]
        assert event["state"] == "healed" and event["healed_by"] == "touch", event["reason"]
        assert target.read_text() == "original\n"
        first = event["attempts"][0]
        assert first["strategy"] == "writer" and first["verified"] == "failed" and first["rolled_back"] == "succeeded"
        assert [a["state"] for a in first["actions"] if a["phase"] == "execute"] == ["undone"]


def test_none_left_escalates_and_silence_is_not_healed(tmp_path, site):
    done = tmp_path / "done"
    site.healthy = lambda: False
    config = service(site)
    config["verify"]["timeout"] = "100ms"
    with Heald(config) as h:
        h.script("touch.lua", touch_script("touch", done))
        h.loaded("touch")
        h.log_error("never healthy")
        event = h.ended()[0]
        assert event["state"] == "escalated" and "no candidate is left" in event["reason"]
    with Heald(service()) as h:  # no probe, no verify: quiet is all there is
        h.script("touch.lua", touch_script("touch", done))
        h.loaded("touch")
        h.log_error("nobody can tell")
        assert h.ended()[0]["state"] == "unverified"


def test_a_healed_error_that_returns_did_not_hold(tmp_path, site):
    done = tmp_path / "done"
    with Heald(service(site)) as h:
        h.script("touch.lua", touch_script("touch", done))
        h.loaded("touch")
        h.log_error("comes back")
        first = h.ended()[0]
        assert first["state"] == "healed"
        time.sleep(0.05)
        h.log_error("comes back")
        wait_for("history is corrected", lambda: h.event(first["id"])["state"] == "did_not_hold")
        assert h.event(first["id"])["attempts"][0]["verified"] == "did_not_hold"
        assert h.get("/api/v1/healing/stats")["held_rate"] < 1


def test_what_needs_approval_waits_for_a_person(tmp_path, site):
    done = tmp_path / "done"
    config = service(site)
    config["autonomy"] = {"default": "approve"}
    with Heald(config) as h:
        h.script("touch.lua", touch_script("touch", done))
        h.loaded("touch")
        h.log_error("ask me")
        event = wait_for("it waits", lambda: [e for e in h.events() if e["state"] == "awaiting_approval"])[0]
        assert not lines(done)
        assert healctl(h, "event", "approve", "wrong-id")[0] == 3
        assert healctl(h, "event", "approve", event["id"])[0] == 0
        end = h.ended()[0]
        assert end["state"] == "healed" and end["resolution"] == "approved"
        assert healctl(h, "event", "approve", event["id"])[0] == 3
        h.log_error("ask me again please")
        event = wait_for("it waits", lambda: [e for e in h.events() if e["state"] == "awaiting_approval"])[0]
        assert healctl(h, "event", "reject", event["id"], "--reason", "not tonight")[0] == 0
        assert "not tonight" in h.ended(count=2)[0]["reason"]


def test_the_default_does_only_what_is_safe_by_itself(tmp_path):
    done = tmp_path / "done"
    config = service()
    config["autonomy"] = {}
    with Heald(config) as h:
        h.script("touch.lua", touch_script("touch", done).replace('risk = "safe"', 'risk = "disruptive"'))
        h.loaded("touch")
        h.log_error("risky")
        wait_for("it waits", lambda: [e for e in h.events() if e["state"] == "awaiting_approval"])
        assert not lines(done)


def test_pause_stops_healing_survives_a_restart_and_ends(tmp_path, site):
    done = tmp_path / "done"
    h = Heald(service(site))
    try:
        h.script("touch.lua", touch_script("touch", done))
        h.loaded("touch")
        assert healctl(h, "pause", "--reason", "audit day")[0] == 0
        h.log_error("while paused")
        time.sleep(0.3)
        assert not lines(done) and h.events()[0]["state"] == "open"
        h.stop()
        h.start()
        h.loaded("touch")
        time.sleep(0.3)
        assert h.get("/api/v1/status")["paused"] and not lines(done)
        assert healctl(h, "resume")[0] == 0
        assert h.ended()[0]["state"] == "healed" and len(lines(done)) == 1
    finally:
        h.close()


def test_shadow_and_dry_run_list_the_effects_and_do_none(tmp_path):
    done = tmp_path / "done"
    config = service()
    config["autonomy"] = {"default": "shadow"}
    with Heald(config) as h:
        h.script("touch.lua", touch_script("touch", done))
        h.loaded("touch")
        h.log_error("shadow me")
        attempt = h.ended()[0]["attempts"][0]
        assert attempt["dry_run"] and [a["state"] for a in attempt["actions"]] == ["skipped"]
        assert not lines(done)


def test_cooldown_rates_and_disabling_hold_back(tmp_path, site):
    done = tmp_path / "done"
    config = service(site)
    config["limits"] = {"cooldown": "1h"}
    config["verify"]["hold"] = "0ms"
    with Heald(config) as h:
        h.script("touch.lua", touch_script("touch", done))
        h.loaded("touch")
        h.log_error("again and again")
        assert h.ended()[0]["state"] == "healed"
        h.log_error("again and again")
        event = wait_for("the second one waits", lambda: [e for e in h.events() if e["state"] == "open"])[0]
        assert "cooldown" in wait_for("with its reason", lambda: h.event(event["id"])["reason"])
        assert len(lines(done)) == 1
        assert h.call("PUT", "/api/v1/strategies/touch", {"enabled": False}).status == 200
        h.log_error("another kind of trouble here", service="cart")
        time.sleep(0.3)
        assert len(lines(done)) == 1


def test_hostile_log_text_is_data(tmp_path, site):
    canary, done = tmp_path / "canary", tmp_path / "done"
    with Heald(service(site)) as h:
        h.script("echoer.lua", f"""
return {{ name = "echoer", version = "1.0.0", risk = "safe", matches = {{ {{}} }}, capabilities = {{ "exec:/bin/echo" }},
  execute = function(request, call)
    call.exec {{ argv = {{ "/bin/echo", request.incident.message }} }}
    return {{ outcome = "succeeded" }}
  end }}""")
        h.loaded("echoer")
        h.log_error(f"; touch {canary} ; $(touch {canary}) `touch {canary}` | touch {canary} \n touch {canary}")
        assert h.ended()[0]["state"] == "healed"
        assert not canary.exists()
        # Text can't widen what may run: the capability names one program.
        h.script("wider.lua", f"""
return {{ name = "wider", version = "1.0.0", priority = 99, risk = "safe", matches = {{ {{}} }}, capabilities = {{ "exec:/bin/echo" }},
  execute = function(request, call)
    call.exec {{ argv = {{ "/bin/touch", "{canary}" }} }}
    return {{ outcome = "succeeded" }}
  end }}""")
        h.loaded("wider")
        h.log_error("something else entirely happened")
        first = h.ended(count=2)[0]["attempts"][0]
        assert first["strategy"] == "wider" and first["state"] == "failed" and not canary.exists()
