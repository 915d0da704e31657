"""kill -9 at random moments under load: nothing acknowledged is lost, nothing that must not run twice runs twice."""
import http.client
import pathlib
import random
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from check_invariants import check

from harness import OPEN, Heald, touch_script, wait_for


def broken(*args, **kw):
    return [(name, text) for name, text, bad in check(*args, **kw) if bad]


def test_kill_9_under_http_load_loses_and_doubles_nothing(tmp_path):
    ledger = tmp_path / "ledger"
    h = Heald({**OPEN, "services": [{"name": "cart"}]})
    acknowledged = 0
    rng = random.Random(7)
    try:
        h.script("act.lua", touch_script("act", ledger))
        h.loaded("act")
        for round_ in range(6):
            stop = threading.Event()
            counts = []

            def send(sender):
                n = 0
                while not stop.is_set():
                    # The same key again when no answer came: the sender's part of exactly once.
                    key = f"{round_}-{sender}-{n}"
                    body = "\n".join(f'{{"service_name":"cart","log_level":"error","message":"{w} failed {rng.random()}"}}'
                                     for w in ("alpha", "beta", "gamma"))
                    while True:
                        try:
                            answer = h.call("POST", "/api/v1/logs", body, {"Idempotency-Key": key}, raw=True)
                            if answer.status == 202:
                                counts.append(3)
                                break
                        except (OSError, ValueError, http.client.HTTPException):
                            pass
                        time.sleep(0.005)
                    n += 1

            senders = [threading.Thread(target=send, args=(i,)) for i in range(3)]
            for s in senders:
                s.start()
            time.sleep(0.1 + rng.random() * 0.4)
            h.kill()
            h.start()
            time.sleep(0.1)
            stop.set()
            for s in senders:
                s.join(20)
                assert not s.is_alive()
            acknowledged += sum(counts)
        wait_for("open incidents end", lambda: h.get("/api/v1/status")["open_incidents"] == 0, 20)
        h.stop()
        assert acknowledged > 100
        assert broken(h.state / "heald.db", ledger, acknowledged) == []
    finally:
        h.close()


def test_kill_9_while_following_a_file_loses_and_doubles_nothing(tmp_path):
    log, ledger = tmp_path / "app.log", tmp_path / "ledger"
    log.touch()
    h = Heald({**OPEN, "services": [{"name": "cart"}], "sources": [{"file": str(log), "service": "cart", "from_start": True}]})
    rng = random.Random(11)
    written = 0
    try:
        h.script("act.lua", touch_script("act", ledger))
        h.loaded("act")
        for _ in range(6):
            with open(log, "a", buffering=1) as f:
                until = time.monotonic() + 0.2 + rng.random() * 0.3
                while time.monotonic() < until:
                    for word in ("connect", "parse", "flush"):
                        f.write(f"2026-11-21T10:00:00Z ERROR {word} failed after {written} ms\n")
                        written += 1
                    if rng.random() < 0.02 and h.process.poll() is None:
                        h.kill()
            if h.process.poll() is None:
                h.kill()
            h.start()
        wait_for(f"all {written} lines are in", lambda: h.get("/api/v1/ingest")["records"] >= written, 30)
        wait_for("open incidents end", lambda: h.get("/api/v1/status")["open_incidents"] == 0, 20)
        h.stop()
        assert broken(h.state / "heald.db", ledger, written) == []
    finally:
        h.close()


def test_an_attempt_cut_off_by_kill_9_is_unknown_and_not_repeated_unless_it_may(tmp_path):
    for idempotent in (False, True):
        ledger = tmp_path / f"ledger-{idempotent}"
        h = Heald({**OPEN, "services": [{"name": "cart"}]})
        try:
            h.script("slow.lua", f"""
return {{ name = "slow", version = "1.0.0", risk = "safe", idempotent = {str(idempotent).lower()}, timeout_ms = 20000, matches = {{ {{}} }},
  capabilities = {{ "exec:/bin/sh" }},
  execute = function(request, call)
    call.exec {{ argv = {{ "/bin/sh", "-c", "echo " .. request.attempt .. " >> {ledger}" }} }}
    if not call.state_get("seen").exists then
      call.state_put("seen", "1")
      call.exec {{ argv = {{ "/bin/sh", "-c", "sleep 3" }} }}
    end
    return {{ outcome = "succeeded" }}
  end }}""")
            h.loaded("slow")
            h.log_error("cut me off")
            wait_for("it acts", lambda: ledger.exists() and ledger.read_text())
            time.sleep(0.2)
            h.kill()
            h.start()
            event = h.ended()[0]
            starts = ledger.read_text().splitlines()
            assert len(starts) == (2 if idempotent else 1), event
            assert len(set(starts)) == 1, "the same attempt, the same key"
            if not idempotent:
                assert event["state"] == "escalated" and event["attempts"][0]["state"] == "unknown", event["reason"]
            h.stop()
            assert broken(h.state / "heald.db", ledger) == []
        finally:
            h.close()
