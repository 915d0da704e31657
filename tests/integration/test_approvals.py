"""What people allow, in a running heald: bound to what they saw, expiring, by two, by link, in an emergency."""
import pathlib

from harness import OPEN, Heald, healctl, touch_script, wait_for


VERIFY = 'verify = function(request, call) return { outcome = "succeeded" } end,'


def asking(folder, **more):
    config = {**OPEN, "autonomy": {"default": "approve", "max_risk": "destructive"}, **more}
    h = Heald(config)
    if token := config.get("http", {}).get("token"):
        plain = h.call
        h.call = lambda method, path, body=None, headers=None, raw=False: plain(method, path, body, {"Authorization": f"Bearer {token}", **(headers or {})}, raw)
        h.bare = plain
    h.script("touch.lua", touch_script("touch", folder / "done", extra=VERIFY))
    h.loaded("touch")
    return h


def pending(h):
    return wait_for("somebody is asked", lambda: h.get("/api/v1/approvals?state=pending")["items"])[0]


def lines(path):
    return pathlib.Path(path).read_text().splitlines() if pathlib.Path(path).exists() else []


def anna(h, method, path, body=None, name="anna"):
    return h.call(method, path, body, {"X-Heald-Actor": name})


def audit(h):
    return [a["action"] for a in h.get("/api/v1/audit?limit=1000")["items"]]


def test_an_approval_is_bound_to_what_was_shown(tmp_path):
    with asking(tmp_path) as h:
        h.log_error("broken")
        asked = pending(h)
        assert asked["kind"] == "heal" and asked["bound"]["action"]["strategy"] == "touch" and asked["bound"]["build"]
        assert asked["bound"]["target"]["name"] == "cart" and asked["needed"] == 1
        wrong = anna(h, "POST", f"/api/v1/approvals/{asked['id']}/approve", {"digest": "0" * 64})
        assert wrong.status == 409 and "not what is asked for now" in wrong.json["detail"]
        # The artifact changes while the request waits: another build.
        h.script("touch.lua", touch_script("touch", tmp_path / "done", extra=VERIFY + '-- another build'))
        wait_for("the new build is loaded", lambda: h.strategies()["touch"]["build"] != asked["bound"]["build"])
        late = anna(h, "POST", f"/api/v1/approvals/{asked['id']}/approve", {"digest": asked["digest"]})
        assert late.status == 409 and "build was" in late.json["detail"], late.text
        assert h.get(f"/api/v1/approvals/{asked['id']}")["state"] == "voided"
        assert not lines(tmp_path / "done")
        again = wait_for("people are asked anew", lambda: [a for a in h.get("/api/v1/approvals?state=pending")["items"] if a["id"] != asked["id"]])[0]
        done = anna(h, "POST", f"/api/v1/approvals/{again['id']}/approve", {"digest": again["digest"]})
        assert done.status == 200 and done.json["state"] == "approved"
        event = h.ended()[0]
        assert event["state"] == "healed" and event["resolution"] == "approved" and len(lines(tmp_path / "done")) == 1
        assert h.get(f"/api/v1/approvals/{again['id']}")["state"] == "used"
        assert {"approval.ask", "approval.voided", "approval.approved", "approval.used"} <= set(audit(h))


def test_two_people_must_agree_and_they_are_two(tmp_path):
    with asking(tmp_path, approvals={"two_persons": "safe"}) as h:
        h.log_error("broken")
        asked = pending(h)
        path = f"/api/v1/approvals/{asked['id']}/approve"
        assert asked["needed"] == 2
        nameless = h.call("POST", path, {})
        assert nameless.status == 400 and "each says who they are" in nameless.json["detail"]
        assert anna(h, "POST", path, {}).json["state"] == "pending"
        assert anna(h, "POST", path, {}).status == 409
        assert not lines(tmp_path / "done")
        assert anna(h, "POST", path, {}, "bert").json["state"] == "approved"
        assert h.ended()[0]["state"] == "healed"


def test_breaking_the_glass_needs_a_reason_passes_haste_and_is_audited(tmp_path):
    with asking(tmp_path, approvals={"two_persons": "safe"}) as h:
        assert healctl(h, "hold", "set", "maintenance", "--for", "1h", "--reason", "deploy")[0] == 0
        h.log_error("broken")
        event = wait_for("it waits", lambda: [e for e in h.events() if "maintenance" in e["reason"]])[0]["id"]
        assert healctl(h, "event", "approve", event)[0] == 6, "nobody is asked while somebody works on it"
        code, _, words = healctl(h, "event", "approve", event, "--break-glass")
        assert code == 2 and "breaking the glass needs one" in words
        assert healctl(h, "event", "approve", event, "--break-glass", "--reason", "the shop is down")[0] == 0
        done = h.ended()[0]
        assert done["state"] == "healed" and len(lines(tmp_path / "done")) == 1
        assert "approval.break_glass" in audit(h)
        code, words, _ = healctl(h, "why", event)
        assert code == 0 and "maintenance overridden" in words


def test_a_request_ends_when_nobody_decides_and_survives_a_restart(tmp_path):
    h = asking(tmp_path)
    try:
        h.log_error("broken")
        asked = pending(h)
        h.kill()
        h.start()
        h.loaded("touch")
        same = pending(h)
        assert same["id"] == asked["id"] and same["digest"] == asked["digest"]
        assert healctl(h, "approval", "reject", asked["id"], "--reason", "not tonight")[0] == 0
        event = h.ended()[0]
        assert event["state"] == "escalated" and "not tonight" in event["reason"]
        assert healctl(h, "approval", "approve", asked["id"])[0] == 6
    finally:
        h.close()


def test_a_link_answers_once_and_only_with_our_signature(tmp_path):
    with asking(tmp_path, http={"listen": "127.0.0.1:0", "token": "secret"}) as h:
        h.log_error("broken")
        asked = pending(h)
        made = h.call("POST", f"/api/v1/approvals/{asked['id']}/link", {"decision": "approve", "for": "anna", "valid": "10m"})
        assert made.status == 201, made.text
        path = made.json["path"]
        page = h.bare("GET", path)
        assert page.status == 200 and "touch" in page.text and "<form" in page.text and "<script" not in page.text
        assert not lines(tmp_path / "done"), "a program that only looks decides nothing"
        forged = path[:-1] + ("0" if path[-1] != "0" else "1")
        assert h.bare("POST", forged, {}).status == 404
        assert h.bare("POST", path, {}).status == 200
        wait_for("it is done", lambda: lines(tmp_path / "done"))
        assert h.bare("POST", path, {}).status == 404 and h.bare("GET", path).status == 404
        assert (h.state / "approval.key").stat().st_mode & 0o777 == 0o600
        assert h.bare("GET", "/api/v1/approvals").status == 401
        votes = h.get(f"/api/v1/approvals/{asked['id']}")["votes"]
        assert votes[0]["actor"].startswith("anna (link")


def test_bad_input_is_refused_with_words(tmp_path):
    with asking(tmp_path) as h:
        h.log_error("broken")
        asked = pending(h)
        base = f"/api/v1/approvals/{asked['id']}"
        rows = [("POST", base + "/link", {"decision": "maybe", "for": "anna"}, 400, "approve or reject"),
                ("POST", base + "/link", {"decision": "approve"}, 400, "must name the person"),
                ("POST", base + "/link", {"decision": "approve", "for": "anna", "valid": "9d"}, 400, "1m to 7d"),
                ("POST", base + "/approve", {"yes": True}, 400, "not understood"),
                ("GET", "/api/v1/approvals?state=maybe", None, 400, "must be one of"),
                ("GET", "/api/v1/approvals/nothing", None, 404, "there is no request"),
                ("GET", "/api/v1/approvals/links/nothing.0", None, 404, "not known here")]
        for method, path, body, status, words in rows:
            answer = h.call(method, path, body)
            assert answer.status == status and words in answer.text, (path, answer.text)
