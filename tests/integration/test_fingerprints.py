"""Rules and decisions of people about kinds of error."""
import json

import pytest

from harness import OPEN, Heald, healctl, touch_script, wait_for


def kinds(h, service="cart"):
    return {f["pattern"]: f for f in h.get(f"/api/v1/fingerprints?service_name={service}&limit=1000")["items"]}


def test_rules_are_previewed_on_stored_events_then_taken_by_a_reload():
    with Heald() as h:
        for word in ("red", "green", "blue"):
            h.log_error(f"colour {word} is broken", service="paint")
        h.log_error("something else", service="paint")
        before = len(kinds(h, "paint"))
        good = json.loads(h.config.read_text())
        rules = {"rules": [{"name": "colours", "service": "paint", "message": "colour * is broken", "fingerprint": ["colour"]}]}
        h.config.write_text(json.dumps({**good, "fingerprint": rules}))
        code, out, err = healctl(h, "--json", "fingerprint", "preview", str(h.config))
        assert code == 0, err
        preview = json.loads(out)
        assert preview["rules"] == {"colours": 3} and preview["samples"] == 4
        assert preview["groups_after"] < preview["groups_before"] and len(preview["merged"]) == 1
        assert len(kinds(h, "paint")) == before, "a preview changes nothing"
        assert healctl(h, "reload")[0] == 0
        for word in ("black", "white"):
            h.log_error(f"colour {word} is broken", service="paint")
        assert len(kinds(h, "paint")) == before + 1
        h.config.write_text(json.dumps({**good, "fingerprint": {"rules": [{"name": "x", "message_regex": "("}]}}))
        code, _, err = healctl(h, "fingerprint", "preview", str(h.config))
        assert code == 2 and "fingerprint.rules" in err


def test_a_merge_by_people_joins_incidents_is_remembered_and_can_be_undone(tmp_path):
    done = tmp_path / "done"
    h = Heald({**OPEN, "services": [{"name": "cart"}]})
    try:
        h.log_error("lorry has left the depot late")
        h.log_error("bicycle was never seen again today")
        rows = list(kinds(h).values())
        assert len(rows) == 2
        one, other = rows[0]["id"], rows[1]["id"]
        assert healctl(h, "fingerprint", "merge", one, "ffffffffffffffff")[0] == 3
        assert healctl(h, "fingerprint", "merge", one, other, "--reason", "same cause")[0] == 0
        h.stop()
        h.start()
        merges = h.get("/api/v1/fingerprints/merges?service=cart")["merges"]
        assert merges[0]["by_people"] and set(merges[0]["fingerprints"]) == {one, other}
        h.script("touch.lua", touch_script("touch", done))
        h.loaded("touch")
        h.log_error(rows[0]["pattern"])
        assert h.ended()[0]["fingerprint"] == other
        assert healctl(h, "fingerprint", "apart", one)[0] == 0
        h.log_error(rows[0]["pattern"])
        assert wait_for("it stands alone again", lambda: [e for e in h.events() if e["fingerprint"] == one])
        assert {"fingerprint.merge", "fingerprint.apart"} <= {a["action"] for a in h.get("/api/v1/audit")["items"]}
    finally:
        h.close()
