"""What guards see after kill -9 is byte for byte what they saw before: attempts with their ends and verdicts, unhealthy times of
targets, holds, the pause, limits. The record of a verdict has all of it (core/guard_record.hpp)."""
import json
import pathlib
import sqlite3
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from pg import Postgres, binaries

from harness import OPEN, Heald, healctl, wait_for

SCRIPT = """
return {{ name = "{name}", version = "1.0.0", summary = "test", priority = {priority}, confidence = 0.5, risk = "{risk}", timeout_ms = 5000,
  matches = {{ {{ service = "{services}" }} }}, capabilities = {{ "exec:/bin/sh" }},
  execute = function(request, call) return {{ outcome = "{outcome}" }} end,
  verify = function(request, call) return {verified} end }}
"""
# `now` moves on by itself, and a look at the world is not a state of a guard.
STATE = ("history", "transitions", "holds", "storm", "paused", "limits", "windows", "attempts", "max_auto_risk")


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_the_state_of_every_guard_is_the_same_after_a_kill(engine, tmp_path):
    if engine == "postgresql" and binaries() is None:
        pytest.skip("no PostgreSQL server is installed; ./dev setup installs it")
    pg = Postgres() if engine == "postgresql" else None
    limits = {**OPEN["limits"], "cooldown": "1h", "target_per_hour": 50, "strategy_per_hour": 50, "service_per_hour": 50, "global_per_minute": 500,
              "budget_per_day": 500, "flap_high": 90, "flap_low": 10, "breaker_failures": 3, "storm_targets": 50, "repeat_after": "1h"}
    config = {**OPEN, "limits": limits, "verify": {"timeout": "100ms", "stabilize": "0ms", "hold": "1h"},
              "services": [{"name": s} for s in ("cart", "shop", "mail")],
              "windows": [{"kind": "freeze", "services": ["mail"], "from": "2020-01-01T00:00:00Z", "until": "2020-01-02T00:00:00Z", "reason": "long ago"}]}
    if pg:
        config["store"] = {"url": pg.schema("guards")}
    h = Heald(config)

    def record(event):
        """The newest verdict of an event with all that it follows from, and when it was given."""
        sql = f"SELECT decision FROM self_heal_events WHERE id = '{event}'"
        if pg:
            text = pg.sql(sql, "guards")[0][0]
        else:
            with sqlite3.connect(f"file:{h.state / 'heald.db'}?mode=ro", uri=True) as db:
                text = db.execute(sql).fetchone()[0]
        verdicts = [v for v in json.loads(text or "{}").get("verdicts", []) if v.get("record")]
        return (verdicts[-1]["at"], verdicts[-1]["record"]) if verdicts else None

    try:
        # What helps, what does not, what is not known, at every risk: on the same strategy, target and service as what comes then.
        for name, priority, risk, services, outcome, verified in (("heals", 50, "disruptive", "cart", "succeeded", "true"), ("fails", 60, "safe", "shop", "failed", "nil"),
                                                                 ("unsure", 40, "destructive", "shop", "succeeded", "nil"), ("waits", 50, "safe", "mail", "succeeded", "true")):
            h.script(f"{name}.lua", SCRIPT.format(name=name, priority=priority, risk=risk, services=services, outcome=outcome, verified=verified))
        for name in ("heals", "fails", "unsure", "waits"):
            h.loaded(name)
        for word in ("alpha", "beta", "gamma"):
            for service in ("cart", "shop"):
                h.log_error(f"{word} is broken", service=service)
        h.ended("cart", 3), h.ended("shop", 3)
        h.log_error("alpha is broken", service="cart")  # did not hold; its cooldown holds what follows
        wait_for("it did not hold", lambda: any(e["state"] == "did_not_hold" for e in h.events()))
        for service in ("cart", "shop", "mail"):
            assert healctl(h, "hold", "set", "maintenance", "--service", service, "--for", "1h", "--reason", "works")[0] == 0
        waiting = []
        for service in ("cart", "shop", "mail"):
            h.log_error("delta is broken", service=service)
            waiting.append(wait_for("it is held back", lambda s=service: [e for e in h.events(f"&service_name={s}") if "maintenance" in e["reason"]])[0]["id"])
        before = {e: wait_for("a verdict is on record", lambda e=e: record(e)) for e in waiting}
        facts = [len(before[e][1]["history"]["facts"]) for e in waiting]
        assert facts[0] >= 3 and facts[1] >= 3, facts
        h.kill()
        h.start(60)
        for e in waiting:
            after = wait_for("the guards looked again", lambda e=e: (record(e) or (None,))[0] not in (None, before[e][0]) and record(e), 30)
            for key in STATE:
                if key == "storm" and e != waiting[-1]:
                    continue  # it counted the targets that were ill by then
                assert after[1].get(key) == before[e][1].get(key), key
    finally:
        h.close()
        if pg:
            pg.close()
