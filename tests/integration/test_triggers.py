"""Triggers, trust, targets, figures, backtest and simulate, in a running heald."""
import json
import time

import pytest

from harness import BIN, OPEN, Heald, healctl, touch_script, wait_for
from test_approvals import VERIFY
from test_brain import lines, service, sites  # noqa: F401


def started(folder, config=None, **script):
    h = Heald({**OPEN, **(config or {})})
    h.script("touch.lua", touch_script("touch", folder / "done", **{"extra": VERIFY, **script}))
    h.loaded("touch")
    return h


def trigger(h, name):
    return next(t for t in h.get("/api/v1/triggers")["items"] if t["trigger"] == name)


def test_a_threshold_governs_what_it_fits_and_nothing_else(tmp_path):
    config = {"triggers": [{"name": "often", "kind": "threshold", "when": {"service": "cart"}, "by": ["service"], "count": 3, "within": "1m",
                            "severity": "P0_critical"}]}
    with started(tmp_path, config) as h:
        h.log_error("one thing"), h.log_error("another thing")
        h.log_error("broken", "shop")
        assert h.ended("shop")[0]["trigger_name"] == "strategy threshold"
        assert h.events("&service_name=cart") == []
        h.log_error("a third thing")
        event = h.ended()[0]
        assert event["trigger_name"] == "often: 3 within 1 min" and event["severity"] == "P0_critical"
        t = trigger(h, "often")
        assert (t["matched"], t["fired"], t["groups"]) == (3, 1, 1)
        code, words, _ = healctl(h, "trigger", "list")
        assert code == 0 and "often" in words


def test_windows_of_triggers_survive_a_kill(tmp_path):
    config = {"triggers": [{"name": "often", "kind": "threshold", "when": {"service": "cart"}, "by": ["service"], "count": 3, "within": "10m"}]}
    h = started(tmp_path, config)
    try:
        h.log_error("one"), h.log_error("two")
        h.kill()
        h.start()
        h.loaded("touch")
        assert h.events() == []
        h.log_error("three")
        assert h.ended()[0]["trigger_name"].startswith("often")
    finally:
        h.close()


def test_an_absence_opens_an_incident_and_heals_it(tmp_path):
    config = {"triggers": [{"name": "silent", "kind": "absence", "when": {"message": "alive"}, "service": "cart", "within": "4s"}]}
    with started(tmp_path, config) as h:
        for _ in range(12):
            h.log_error("alive", "cart", log_level="warn")
            time.sleep(0.5)
        assert not [e for e in h.events() if e["trigger_name"].startswith("silent")]
        event = wait_for("silence is heard", lambda: [e for e in h.events() if e["trigger_name"].startswith("silent")], 20)[0]
        assert event["service_name"] == "cart"
        wait_for("it is healed", lambda: lines(tmp_path / "done"))


@pytest.mark.parametrize("text, words", [
    ("triggers:\n  - name: a\n    kind: often\n    when: {}\n", "heald.yaml:3: triggers[0].kind: must be one of new, threshold"),
    ("triggers:\n  - name: a\n    kind: threshold\n", "triggers[0].when: is missing"),
    ("triggers:\n  - name: a\n    kind: threshold\n    when: {level: loud}\n", "must be one of trace, debug"),
    ("triggers:\n  - name: a\n    kind: threshold\n    when: {}\n    count: 0\n", "heald.yaml:5: triggers[0].count: must be an integer from 1"),
    ("triggers:\n  - name: a\n    kind: threshold\n    when: {}\n    factor: 3\n", "triggers[0].factor: unknown key"),
    ("triggers:\n  - name: a\n    kind: combination\n    of: [a, b]\n", "there is no trigger 'b'"),
    ("triggers:\n  - name: a\n    kind: sequence\n    when: {}\n", "triggers[0].then: is missing"),
    ("triggers:\n  - name: a\n    kind: threshold\n    when: {}\n    by: [moon]\n", "must be a list of fingerprint, service"),
    ("targets:\n  - when: {service: cart}\n    target: redis\n", "there is no service 'redis'"),
    ("trust:\n  bound: 2\n", "trust.bound: must be a number from 0.01"),
    ("approvals:\n  two_persons: often\n", "approvals.two_persons: must be one of never"),
    ("control:\n  percent: 80\n", "control.percent: must be an integer from 0 to 50"),
])
def test_the_schema_names_file_line_and_key(tmp_path, text, words):
    file = tmp_path / "heald.yaml"
    file.write_text(text)
    code, _, errors = healctl(None, "config", "check", str(file))
    assert code == 1 and words in errors, errors


def test_a_rule_says_what_an_error_is_about_and_holds_follow_it(tmp_path, sites):
    sites["redis"].ok = sites["cart"].ok = False
    config = {"services": [service("redis", sites), service("cart", sites)],
              "targets": [{"when": {"message": "redis"}, "target": "redis"}]}
    with started(tmp_path, config) as h:
        assert healctl(h, "hold", "set", "maintenance", "--service", "redis", "--for", "1h", "--reason", "works")[0] == 0
        h.log_error("redis connection refused")
        held = wait_for("it waits for the maintenance of redis", lambda: [e for e in h.events() if "maintenance" in e["reason"]])[0]
        assert held["target"] == "redis" and held["service_name"] == "cart" and not lines(tmp_path / "done")


def test_trust_falls_by_harm_is_set_by_hand_and_survives_a_kill(tmp_path, sites):
    sites["cart"].ok = sites["shop"].ok = True
    config = {"services": [service("cart", sites), service("shop", sites, depends_on=["cart"])], "trust": {"harms": 1},
              "verify": {"timeout": "2s", "stabilize": "300ms", "hold": "1h"}}
    sites["cart"].ok = False
    h = started(tmp_path, config)
    try:
        # The action heals its target and takes what depends on it down.
        done = tmp_path / "done"
        h.script("touch.lua", touch_script("touch", done, extra=VERIFY).replace('risk = "safe"', 'risk = "disruptive"'))
        wait_for("it is disruptive", lambda: h.strategies()["touch"]["risk"] == "disruptive")
        h.log_error("connection refused")
        wait_for("it acts", lambda: lines(done))
        sites["cart"].ok, sites["shop"].ok = True, False
        event = h.ended()[0]
        assert event["state"] == "healed"
        item = wait_for("trust fell", lambda: [t for t in h.get("/api/v1/trust")["items"] if t["rung"] == "approve"])[0]
        assert item["strategy"] == "touch" and item["error_class"] == "cart/network" and item["effective"] == "approve"
        attempt = h.event(event["id"])["attempts"][0]
        assert "shop" in h.get("/api/v1/audit?limit=1000&action=attempt.harm")["items"][0]["detail"]["text"], attempt
        h.kill()
        h.start()
        h.loaded("touch")
        assert h.get("/api/v1/trust")["items"][0]["effective"] == "approve"
        stats = h.get("/api/v1/healing/stats")
        assert stats["harm_rate"] == 1.0 and stats["strategies"][0]["harmed"] == 1
        assert stats["by_class"][0]["error_class"] == "cart/network" and stats["by_class"][0]["mttr"]["n"] == 1
        assert healctl(h, "trust", "set", "touch", "cart/network", "auto", "--reason", "looked at it")[0] == 0
        assert h.get("/api/v1/trust")["items"][0]["by_hand"]
        assert healctl(h, "trust", "set", "touch", "cart/network", "ladder", "--reason", "let it climb")[0] == 0
        assert h.call("PUT", "/api/v1/trust", {"strategy": "touch", "error_class": "cart/network", "rung": "up", "reason": "x"}).status == 400
        actions = [a["action"] for a in h.get("/api/v1/audit?limit=1000")["items"]]
        assert "trust.demote" in actions and actions.count("trust.set") == 2
    finally:
        h.close()


def test_a_shadow_lists_and_climbs_when_it_was_good_often_enough(tmp_path):
    config = {"trust": {"start": "shadow", "bound": 0.3, "samples": 3}}
    with started(tmp_path, config) as h:
        for word in ("alpha", "beta", "gamma"):
            h.log_error(f"error {word} happened")
            wait_for("it ends", lambda: [e for e in h.events() if e["state"] in ("escalated", "suppressed")])
            time.sleep(0.2)
        item = wait_for("it climbed", lambda: [t for t in h.get("/api/v1/trust")["items"] if t["rung"] == "approve"])[0]
        assert "3.0 of 3.0" in item["reason"] and not lines(tmp_path / "done")
        attempts = h.event(h.events()[0]["id"])["attempts"]
        assert attempts[0]["dry_run"]
        h.log_error("error delta happened")
        wait_for("now it asks", lambda: h.get("/api/v1/approvals?state=pending")["items"])


def test_the_control_arm_measures_what_recovers_anyway(tmp_path, sites):
    # Sixteen on targets of their own, and eight on one, where those that are left alone are helped by what the others do.
    config = {"services": [service("cart", sites), *({**service("cart", sites), "name": f"cart{i}"} for i in range(16))],
              "control": {"percent": 50, "wait": "6s", "from": "P2_minor"}}
    with started(tmp_path, config) as h:
        ended = lambda: len([e for e in h.events() if e["state"] in ("healed", "closed", "unverified")])
        for i in range(16):
            h.log_error(f"error {'abcdefghijklmnop'[i] * 5} happened", service=f"cart{i}", log_level="warn")
        wait_for("all end", lambda: ended() >= 16, 30)
        control = h.get("/api/v1/healing/stats")["control"]
        assert 0 < control["n"] < 16 and control["recovered"] == control["n"]
        for i in range(8):
            h.log_error(f"error {'abcdefgh'[i] * 5} happened", log_level="warn")
        wait_for("all end", lambda: ended() >= 24, 30)
        assert h.get("/api/v1/healing/stats")["control"]["n"] in (control["n"], control["n"] + 8)  # + 8: none was left to act


def test_figures_and_reviews(tmp_path):
    with started(tmp_path) as h:
        h.log_error("broken")
        event = h.ended()[0]
        assert healctl(h, "review", event["id"], "false_positive", "--reason", "a drill")[0] == 0
        assert healctl(h, "review", event["id"], "manual")[0] == 6
        assert healctl(h, "review", "nothing", "right")[0] == 3
        stats = h.get("/api/v1/healing/stats")
        assert stats["false_positives"] == {"reviewed": 1, "false_positives": 1, "rate": 1.0}
        assert stats["mttr_by_resolution"]["auto"]["n"] == 1 and stats["mttm"]["n"] == 1
        code, words, _ = healctl(h, "stats")
        assert code == 0 and "CLASS" in words and "HARMED" in words


def test_why_computes_ranking_and_verdicts_again(tmp_path):
    with started(tmp_path) as h:
        h.log_error("broken")
        event = h.ended()[0]["id"]
        why = h.get(f"/api/v1/healing/events/{event}/why")
        assert why["ranking"]["equal"] and why["guards"]["equal"] and why["guards"]["recomputed"] == 1
        code, words, _ = healctl(h, "why", event)
        assert code == 0 and "verdicts of the guards computed again" in words


def test_a_backtest_tells_what_another_configuration_changes(tmp_path):
    with started(tmp_path) as h:
        for i in range(20):
            h.log_error(f"order {'abcdefghij'[i % 10] * 6} failed")
        time.sleep(0.5)
        other = json.loads(h.config.read_text())
        other["triggers"] = [{"name": "often", "kind": "threshold", "when": {"service": "cart"}, "by": ["service"], "count": 15, "within": "1h"}]
        other["fingerprint"] = {"rules": [{"name": "orders", "service": "cart", "message": "order *", "fingerprint": ["orders"]}]}
        (tmp_path / "next.yaml").write_text(json.dumps(other))
        arguments = ["backtest", "--since", "1h", "--config", str(tmp_path / "next.yaml"), "--current", str(h.config)]
        code, text, errors = healctl(h, "--json", *arguments)
        assert code == 0, errors
        report = json.loads(text)
        assert report["occurrences"] == 20 and report["strategies_known"]
        assert report["groups"]["current"] == 10 and report["groups"]["next"] == 1 and len(report["groups"]["merged"]) == 1
        assert report["incidents"]["current"] == 10 and report["incidents"]["next"] == 1
        assert report["actions"]["current"] >= 10 and report["actions"]["next"] == 1
        again = json.loads(healctl(h, "--json", *arguments)[1])
        assert {**again, "from": ""} == {**report, "from": ""}, "the same input gives the same answer"
        code, words, _ = healctl(h, *arguments)
        assert code == 0 and "joined into" in words and "CHANGE" in words
        (tmp_path / "bad.yaml").write_text("limits: {cooldown: soon}\n")
        code, _, errors = healctl(h, "backtest", "--config", str(tmp_path / "bad.yaml"), "--current", str(h.config))
        assert code == 2 and "bad.yaml:1: limits.cooldown" in errors


SCENARIO = """
strategies:
  - {name: flush, priority: 60, risk: safe, succeeds: false, takes: 500ms, matches: {service: cart}}
  - {name: restart, priority: 50, risk: safe, takes: 2s, matches: {service: cart}}
events:
  - {at: 1s, service: cart, message: connection refused, every: 500ms, until: 2s}
health:
  - {at: 0s, service: cart, ok: false}
until: 5m
"""


def test_a_scenario_runs_on_the_virtual_clock(tmp_path):
    file = tmp_path / "cascade.yaml"
    file.write_text(SCENARIO)
    start = time.monotonic()
    code, text, errors = healctl(None, "simulate", str(file))
    assert code == 0, errors
    assert time.monotonic() - start < 10, "five minutes pass at once"
    assert text.index("'flush' acts") < text.index("'flush' is verified: failed") < text.index("'restart' acts") < text.index("healed by 'restart'")
    assert healctl(None, "simulate", str(file))[1] == text
    assert json.loads(healctl(None, "--json", "simulate", str(file))[1])["actions_by_strategy"] == {"flush": 1, "restart": 1}
    file.write_text("strategies:\n  - {name: x, risk: huge}\nevents:\n  - {servce: cart}\n")
    code, _, errors = healctl(None, "simulate", str(file))
    assert code == 2 and "cascade.yaml:2: strategies[0].risk" in errors and "events[0].servce: unknown key" in errors
