"""heald on PostgreSQL: the same behaviour as on SQLite, and what happens when the server goes away."""
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from check_invariants import check as check_invariants
from pg import Postgres, binaries, free_port

from harness import BIN, OPEN, Heald, touch_script, wait_for

pytestmark = pytest.mark.skipif(binaries() is None, reason="no PostgreSQL server is installed; ./dev setup installs it")


@pytest.fixture(scope="module")
def pg():
    with Postgres() as server:
        yield server


def on(pg, name, store=None, **more):
    return Heald({**OPEN, "services": [{"name": "cart"}], "store": {"url": pg.schema(name), **(store or {})}, **more})


def stored(pg, name):
    return int(pg.sql(f"SELECT COALESCE(SUM(occurrence_count), 0) FROM {name}.error_fingerprints")[0][0])


def test_an_incident_is_healed_and_told_alike_on_both_engines(pg, tmp_path):
    told = []
    for store in ({"url": pg.schema("parity")}, {}):
        ledger = tmp_path / f"ledger{len(told)}"
        with Heald({**OPEN, "services": [{"name": "cart", "probes": [{"command": ["/bin/true"]}]}], "store": store}) as h:
            h.script("act.lua", touch_script("act", ledger))
            h.loaded("act")
            h.log_error("cannot reach shard 1")
            event = h.ended()[0]
            h.log_error("cannot reach shard 9")
            wait_for("it did not hold", lambda: h.event(event["id"])["state"] == "did_not_hold")
            shape = lambda e: {k: v for k, v in e.items() if not k.endswith(("_at", "id", "until")) and k not in ("incident", "decision", "evidence",
                               "attempts", "actions", "duration_us", "parameters", "build", "summary", "occurrence_count")}
            first = h.event(event["id"])
            told.append({"event": shape(first), "attempts": [shape(a) for a in first["attempts"]],
                         "actions": [shape(x) for a in first["attempts"] for x in a["actions"]],
                         "fingerprints": sorted((f["id"], f["occurrence_count"], f["severity"]) for f in h.get("/api/v1/fingerprints")["items"]),
                         "bugs": sorted((b["bug_code"], b["occurrence_count"]) for b in h.get("/api/v1/system/bugs")["items"])})
            assert len(ledger.read_text().splitlines()) >= 1
    assert told[0] == told[1]


def test_a_restarted_server_costs_nothing_but_a_moment(pg, tmp_path):
    with on(pg, "restarted", {"journal_bytes": 0}) as h:
        h.script("act.lua", touch_script("act", tmp_path / "ledger"))
        h.loaded("act")
        for i in range(6):
            wait_for("it is taken", lambda: h.call("POST", "/api/v1/logs", {"service_name": "cart", "log_level": "error",
                     "message": "boom"}).status == 202)
            if i < 5:
                pg.restart(signal.SIGQUIT if i % 2 else signal.SIGINT)
        wait_for("ready", lambda: h.call("GET", "/ready").status == 200)
        wait_for("incidents end", lambda: h.get("/api/v1/status")["open_incidents"] == 0)
        assert h.get("/api/v1/status")["store"]["reconnects"] >= 5
    assert stored(pg, "restarted") == 6


def test_while_the_server_is_away_it_says_so_and_goes_on_by_itself(pg, tmp_path):
    log = tmp_path / "app.log"
    log.touch()
    with on(pg, "away", sources=[{"file": str(log), "service": "cart"}]) as h:
        h.log_error("before")
        pg.stop()
        try:
            with open(log, "a") as f:
                f.write("2026-11-21 10:00:00 ERROR written while it was away\n")
            wait_for("ready says why", lambda: "cannot reach the store" in h.call("GET", "/ready").text)
            assert 'heald_store_connected{engine="postgresql"} 0' in h.call("GET", "/metrics").text
            assert h.call("GET", "/health").status == 200
        finally:
            pg.start()
        wait_for("ready", lambda: h.call("GET", "/ready").status == 200)
        wait_for("the line is in", lambda: stored(pg, "away") == 2)
        h.log_error("after")
        assert 'heald_store_connected{engine="postgresql"} 1' in h.call("GET", "/metrics").text
    assert stored(pg, "away") == 3


def test_what_is_heard_while_the_server_is_away_waits_in_the_journal_and_counts_once(pg, tmp_path):
    log = tmp_path / "app.log"
    log.touch()
    h = on(pg, "journal", sources=[{"file": str(log), "service": "cart"}])
    try:
        h.log_error("before")
        pg.stop()
        for i in range(30):
            h.log_error(f"heard by HTTP as number {i}")  # acknowledged
        record = {"service_name": "cart", "log_level": "error", "message": "sent twice"}
        for _ in range(2):
            assert h.call("POST", "/api/v1/logs", record, {"Idempotency-Key": "once"}).status == 202
        with open(log, "a") as f:
            f.writelines(f"2026-11-21 10:00:00 ERROR heard from a file as number {i}\n" for i in range(20))
        waiting = lambda: int(float(re.search(r"^heald_journal_waiting_batches (\S+)", h.call("GET", "/metrics").text, re.M)[1]))
        wait_for("all of it waits", lambda: waiting() >= 32)
        h.kill()  # what was acknowledged is on the disk
        starter = threading.Thread(target=h.start, args=(60,))
        starter.start()
        time.sleep(0.5)
        pg.start()
        starter.join()
        h.log_error("after")
        wait_for("the journal is empty", lambda: waiting() == 0)
        wait_for("the file is taken in whole", lambda: stored(pg, "journal") >= 53)
        assert stored(pg, "journal") == 1 + 30 + 1 + 20 + 1
        rows = pg.sql("SELECT message FROM journal.log_entries ORDER BY received_at, id")
        assert rows[0] == ["before"] and rows[-1] == ["after"]
        assert pg.sql("SELECT sum(records) FROM journal.ingest_totals") == [["53"]]
    finally:
        if pg.process.poll() is not None:
            pg.start()
        h.close()


def test_a_full_journal_refuses_and_loses_nothing(pg):
    with on(pg, "fulljournal", {"journal_bytes": 20000}) as h:
        h.log_error("before")
        pg.stop()
        try:
            taken = refused = 0
            for i in range(200):
                answer = h.call("POST", "/api/v1/logs", {"service_name": "cart", "log_level": "error", "message": f"number {i}"})
                taken += answer.status == 202
                if answer.status != 202:
                    refused += 1
                    assert answer.status in (429, 503) and "journal is full" in answer.text, answer.text
                    assert answer.headers.get("Retry-After")
            assert taken and refused
        finally:
            pg.start()
        wait_for("the journal is stored", lambda: stored(pg, "fulljournal") == 1 + taken)
        wait_for("ready", lambda: h.call("GET", "/ready").status == 200)
        h.log_error("after")
    assert stored(pg, "fulljournal") == 2 + taken


def test_what_became_of_an_attempt_is_stored_although_the_server_was_away(pg, tmp_path):
    ledger = tmp_path / "ledger"
    with on(pg, "outcome") as h:
        h.script("slow.lua", touch_script("slow", ledger, outcome="succeeded").replace(
            "return { outcome", 'call.exec { argv = { "/bin/sh", "-c", "sleep 1" } }\n    return { outcome'))
        h.loaded("slow")
        h.log_error("act now")
        wait_for("it acts", lambda: ledger.exists())
        pg.stop()
        time.sleep(1.5)  # it ends while the store is away
        pg.start()
        event = h.ended(timeout=30)[0]
        assert event["attempts"][0]["state"] in ("succeeded", "unknown"), event
        assert len(ledger.read_text().splitlines()) == 1
    assert pg.sql("SELECT count(*) FROM outcome.healing_results WHERE state IN ('started', 'executed')") == [["0"]]


def test_it_starts_before_its_server_does(tmp_path):
    port = free_port()
    h = Heald({"store": {"url": f"postgresql://heald@127.0.0.1:{port}/postgres"}}, start=False)
    starter = threading.Thread(target=h.start)
    starter.start()
    try:
        wait_for("it waits", lambda: any("cannot reach the store" in line for line in h.log))
        with Postgres(port=port) as server:
            starter.join(20)
            assert h.port
            h.log_error("it came")
            h.stop()
            assert server.sql("SELECT count(*) FROM log_entries") == [["1"]]
    finally:
        starter.join(20)
        h.close()


def test_the_other_host_takes_over_after_a_failover(tmp_path):
    with Postgres() as old, Postgres() as new:
        ports = f"127.0.0.1:{old.port},127.0.0.1:{new.port}"
        # What replication would have done: the other server has the same schema.
        for server in (new, old):
            with Heald({"store": {"url": server.url()}}):
                pass
        with Heald({"store": {"url": f"postgresql://heald@{ports}/postgres"}}) as h:
            h.log_error("on the first")
            old.stop(signal.SIGQUIT)
            wait_for("the second takes writes", lambda: h.call("POST", "/api/v1/logs", {"service_name": "cart", "log_level": "error",
                     "message": "on the second"}).status == 202, 20)
            wait_for("ready", lambda: h.call("GET", "/ready").status == 200)
        assert new.sql("SELECT count(*) FROM log_entries WHERE message = 'on the second'") == [["1"]]


def test_a_server_that_became_read_only_refuses_and_recovers(pg):
    with on(pg, "readonly", {"journal_bytes": 0}) as h:
        h.log_error("before")
        pg.sql("ALTER DATABASE postgres SET default_transaction_read_only = on")
        try:
            pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'heald'")
            wait_for("refused", lambda: h.call("POST", "/api/v1/logs", {"service_name": "cart", "log_level": "error", "message": "no"}).status == 503)
            assert h.call("GET", "/ready").status == 503
        finally:
            pg.sql("BEGIN READ WRITE; ALTER DATABASE postgres RESET default_transaction_read_only; COMMIT")
        wait_for("taken again", lambda: h.call("POST", "/api/v1/logs", {"service_name": "cart", "log_level": "error", "message": "yes"}).status == 202)
        wait_for("ready", lambda: h.call("GET", "/ready").status == 200)


def test_without_a_free_connection_it_waits_and_recovers(tmp_path):
    with Postgres(max_connections=6, superuser_reserved_connections=0) as server:
        h = Heald({"store": {"url": server.url()}})
        try:
            h.log_error("before")
            hogs = []
            server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'heald'")
            for _ in range(8):
                hogs.append(subprocess.Popen(["psql", "-X", server.url(), "-c", "SELECT pg_sleep(3)"], stdout=subprocess.DEVNULL,
                                             stderr=subprocess.DEVNULL))
            time.sleep(0.5)
            answer = h.call("POST", "/api/v1/logs", {"service_name": "cart", "log_level": "error", "message": "while full"})
            if answer.status != 202:
                assert "too many clients" in answer.text or "terminat" in answer.text, answer.text
            for hog in hogs:
                hog.kill()
                hog.wait()
            wait_for("taken again", lambda: h.call("POST", "/api/v1/logs", {"service_name": "cart", "log_level": "error", "message": "free"}).status == 202)
            wait_for("ready", lambda: h.call("GET", "/ready").status == 200)
        finally:
            h.close()


class Session:
    """A psql that stays in its transaction; each answer ends with a line of its own."""

    def __init__(self, url):
        self.process = subprocess.Popen(["psql", "-X", "-q", "-A", "-t", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)

    def begin(self, text):
        self.process.stdin.write(text + ";\n\\echo done\n")
        self.process.stdin.flush()

    def wait(self):
        lines = []
        while (line := self.process.stdout.readline().strip()) != "done":
            assert line or self.process.poll() is None, "psql ended"
            lines.append(line)
        return lines

    def run(self, text):
        self.begin(text)
        return self.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def two_kinds(h):
    """One batch with two kinds of errors, sent from another thread; the answer is in the list that comes back."""
    records = [{"service_name": s, "log_level": "error", "message": f"{s} is broken"} for s in ("cart", "shop")]
    answers = []
    sender = threading.Thread(target=lambda: answers.append(h.call("POST", "/api/v1/logs", records)))
    sender.start()
    return sender, answers


def blocked(pg):
    return pg.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'heald' AND wait_event_type = 'Lock'") != [["0"]]


def test_a_deadlock_is_repeated_and_counts_once(pg):
    with on(pg, "deadlock") as h:
        sender, answers = two_kinds(h)
        sender.join()
        ids = [row[0] for row in pg.sql("SELECT id FROM deadlock.error_fingerprints ORDER BY service_name")]
        assert len(ids) == 2
        # Which of the two rows a batch writes first is its own business: one of the two orders is the crossing one.
        for held, other in (ids, ids[::-1]):
            with Session(pg.url("deadlock")) as psql:
                # heald's side looks first, and so is the one that gives in.
                psql.run(f"SET deadlock_timeout = '20s'; BEGIN; UPDATE error_fingerprints SET last_release = '' WHERE id = '{held}'")
                sender, answers = two_kinds(h)
                wait_for("it waits for the row", lambda: blocked(pg))
                psql.begin(f"UPDATE error_fingerprints SET last_release = '' WHERE id = '{other}'")
                psql.wait()
                psql.run("COMMIT")
                sender.join()
                assert answers[0].status == 202, answers[0].text
        assert h.get("/api/v1/status")["store"]["repeated"] >= 1
    assert stored(pg, "deadlock") == 6
    assert pg.sql("SELECT sum(count) FROM deadlock.fingerprint_counts WHERE resolution = 'minute'") == [["6"]]


def test_a_serialization_failure_is_repeated_and_counts_once(pg):
    pg.sql("ALTER ROLE heald SET default_transaction_isolation = 'serializable'")
    try:
        with on(pg, "serial") as h:
            h.log_error("is broken")
            with Session(pg.url("serial")) as psql:
                psql.run("BEGIN; UPDATE error_fingerprints SET last_release = ''")
                sender = threading.Thread(target=lambda: h.log_error("is broken"))
                sender.start()
                wait_for("it waits for the row", lambda: blocked(pg))
                psql.run("COMMIT")
                sender.join()
            assert h.get("/api/v1/status")["store"]["repeated"] >= 1
    finally:
        pg.sql("ALTER ROLE heald RESET default_transaction_isolation")
    assert stored(pg, "serial") == 2


def test_a_full_disk_under_the_server_refuses_and_recovers():
    disk = pathlib.Path(tempfile.mkdtemp(prefix="heald-disk-"))  # where the server's user may look, too
    disk.chmod(0o755)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=140m", "tmpfs", disk], capture_output=True).returncode != 0:
        disk.rmdir()
        pytest.skip("mounting a small tmpfs needs root")
    try:
        with Postgres(folder=disk / "pg", min_wal_size="'32MB'", max_wal_size="'32MB'") as server:
            with Heald({**OPEN, "store": {"url": server.url(), "journal_bytes": 0}}) as h:
                taken = 0

                def post(i):
                    return h.call("POST", "/api/v1/logs", {"service_name": "cart", "log_level": "error", "message": f"row {i} " + os.urandom(6000).hex()}).status

                taken += post(0) == 202
                ballast = disk / "ballast"
                with open(ballast, "wb", buffering=0) as f:
                    try:
                        while True:
                            f.write(b"x" * 65536)
                    except OSError:
                        pass

                def refused():
                    nonlocal taken
                    status = post(1)
                    taken += status == 202
                    return status == 503
                wait_for("ingest is refused", refused, 30)
                ready = wait_for("ready says why", lambda: (lambda r: r if r.status == 503 else None)(h.call("GET", "/ready")), 20)
                assert "store" in ready.text, ready.text
                assert h.call("GET", "/health").status == 200
                ballast.unlink()
                if server.process.poll() is not None:
                    server.start()  # it gives up when its own log finds no room

                def accepted():
                    nonlocal taken
                    status = post(2)
                    taken += status == 202
                    return status == 202
                wait_for("taken again", accepted, 60)
                wait_for("ready", lambda: h.call("GET", "/ready").status == 200, 20)
                assert server.sql("SELECT sum(occurrence_count) FROM error_fingerprints") == [[str(taken)]]
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
        disk.rmdir()


def test_the_url_is_checked_and_its_password_never_shown(pg, tmp_path):
    config = tmp_path / "heald.yaml"
    config.write_text("store:\n  url: not a url\n")
    done = subprocess.run([BIN / "heald", "--check", "-c", config], capture_output=True, text=True)
    assert done.returncode == 1 and "store.url" in done.stderr and "postgresql://" in done.stderr
    secret = tmp_path / "secret"
    secret.write_text("s3cr3t-canary\n")
    with Heald({"store": {"url": pg.schema("secret"), "password_file": str(secret)}}) as h:
        assert "canary" not in h.call("GET", "/api/v1/status").text
        assert "canary" not in "".join(h.log)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_jobs_run_are_written_down_and_can_be_asked_for(pg, engine):
    store = {"url": pg.schema("jobs")} if engine == "postgresql" else {}
    with Heald({"store": store}) as h:
        for i in range(300):
            h.log_error("crowded", context={"i": i}) if i % 2 else h.log_error("crowded")
        before = len(h.get("/api/v1/logs?limit=1000")["items"])
        answer = h.call("POST", "/api/v1/jobs/log_sampling/run")
        assert answer.status == 200, answer.text
        after = h.get("/api/v1/logs?limit=1000")["items"]
        assert len(after) < before and sum(e["represents"] for e in after) == 300
        for name in ("metrics_aggregation", "log_cleanup"):
            assert h.call("POST", f"/api/v1/jobs/{name}/run").status == 200
        assert h.call("POST", "/api/v1/jobs/log_cleanup/pause").json == {"job_name": "log_cleanup", "enabled": False}
        wait_for("three runs are written down", lambda: sum(j["run_count"] for j in h.get("/api/v1/jobs")["items"]) >= 3)
        jobs = {j["job_name"]: j for j in h.get("/api/v1/jobs")["items"]}
        assert jobs["log_cleanup"]["enabled"] is False and jobs["log_cleanup"]["schedule"] == "daily 03:00"
        assert jobs["log_sampling"]["runs"][0]["status"] == "succeeded"
        assert h.call("POST", "/api/v1/jobs/nope/run").status == 404
        assert h.call("POST", "/api/v1/jobs/log_cleanup/explode").status == 404


def test_a_store_moves_to_postgresql_whole_and_goes_on_there(pg, tmp_path):
    with Heald({**OPEN, "services": [{"name": "cart"}]}) as h:
        h.script("act.lua", touch_script("act", tmp_path / "ledger"))
        h.loaded("act")
        for i in range(30):
            h.log_error(f"broken {i}", context={"quote": "it's \u00e4 \\ line\nbreak"})
        wait_for("incidents end", lambda: h.get("/api/v1/status")["open_incidents"] == 0)
        url = pg.schema("moved")
        move = lambda: subprocess.run([BIN / "healctl", "store", "move", "--from", h.state / "heald.db", "--to", url], capture_output=True, text=True)
        assert "another heald uses" in move().stderr
        h.stop()
        done = move()
        assert done.returncode == 0, done.stderr
        assert "each table with the same hash" in done.stdout and "log_entries" in done.stdout
        again = move()
        assert again.returncode == 1 and "must be without data" in again.stderr
    assert [b for *b, broken in check_invariants(url, tmp_path / "ledger", 30) if broken] == []
    with Heald({**OPEN, "store": {"url": url}}) as h:
        assert len(h.get("/api/v1/logs?limit=1000")["items"]) == 30
        h.log_error("broken 31")
        assert h.get("/api/v1/audit/verify")["first_bad"] in (0, None)
