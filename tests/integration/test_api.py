"""Hearing over HTTP, answers, errors, access."""
import concurrent.futures
import json
import socket
import time

import pytest

from harness import Heald, gzipped, healctl, wait_for


@pytest.fixture(scope="module")
def heald():
    with Heald() as h:
        yield h


def post(heald, body, **headers):
    return heald.call("POST", "/api/v1/logs", body, headers, raw=True)


def test_runs_without_any_configuration_and_says_how_it_is(heald):
    assert heald.get("/health") == {"status": "ok"}
    assert heald.get("/ready")["ready"] is True
    status = heald.get("/api/v1/status")
    assert status["store"]["engine"] == "sqlite" and status["open_incidents"] == 0


@pytest.mark.parametrize("body, accepted, malformed", [
    ('{"service_name":"a","log_level":"error","message":"one"}', 1, 0),
    ('[{"service":"a","level":"error","msg":"x"},{"service":"a","level":"fatal","message":"y"}]', 2, 0),
    ('{"service":"a","level":50,"msg":"pino"}\n{"service":"a","level":"error","message":"two"}\n', 2, 0),
    ('{"service":"a","level":"error","message":"good"}\nnot json\n{"service":"a","level":"error","message":"good"}', 2, 1),
    ('{"service":"a","level":"debug","message":"quiet"}', 0, 0),
])
def test_takes_an_object_an_array_and_ndjson(heald, body, accepted, malformed):
    answer = post(heald, body)
    assert answer.status == 202, answer.text
    assert (answer.json["accepted"], answer.json["malformed"]) == (accepted, malformed)
    if malformed:
        assert answer.json["errors"][0]["line"] == 2


def test_takes_gzip_and_refuses_what_only_says_so(heald):
    body = json.dumps([{"service": "gz", "level": "error", "message": f"m {i}"} for i in range(500)])
    assert post(heald, gzipped(body), **{"Content-Encoding": "gzip"}).json["accepted"] == 500
    answer = post(heald, body, **{"Content-Encoding": "gzip"})
    assert answer.status == 400 and answer.headers["Content-Type"] == "application/problem+json"
    assert post(heald, body, **{"Content-Encoding": "br"}).status == 400


def test_a_gzip_bomb_costs_no_more_than_the_bound():
    with Heald({"http": {"max_body_bytes": 65536}}) as h:
        answer = post(h, gzipped(" " * 100_000_000 + "{}"), **{"Content-Encoding": "gzip"})
        assert answer.status in (400, 413, 429), answer.text
        rss = int([l for l in open(f"/proc/{h.process.pid}/status") if l.startswith("VmRSS")][0].split()[1])
        assert rss < 60_000, f"{rss} kB"
        assert post(h, "x" * 70_000).status == 413


def test_a_repeated_delivery_with_a_key_counts_once(heald):
    body = '{"service":"once","log_level":"error","message":"exactly once"}'
    first, second = (post(heald, body, **{"Idempotency-Key": "k-1"}) for _ in range(2))
    assert first.status == second.status == 202 and second.json["duplicate"] is True
    rows = [f for f in heald.get("/api/v1/fingerprints?service_name=once")["items"]]
    assert rows[0]["occurrence_count"] == 1


def test_a_delivery_with_a_key_that_fills_several_batches_counts_whole_and_once(heald):
    kinds = [f"{a}{b}{c}" for a in "qwrtzpsdfghjklxcvbnm" for b in "aeiouy" for c in "qwrtzpsdfghjklxcvbnmaeiouyQWRTZPSDFG"]
    assert len(kinds) > 4096, "more kinds than one batch takes"
    body = "\n".join(f'{{"service":"many","log_level":"error","message":"no handler for {k} found"}}' for k in kinds)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: post(heald, body, **{"Idempotency-Key": "k-many"}), range(4)))
    assert {a.status for a in answers} == {202} and sum(not a.json.get("duplicate") for a in answers) == 1
    before = heald.get("/api/v1/ingest")["records"]
    stored = count = 0
    next_ = ""
    while True:
        page = heald.get(f"/api/v1/fingerprints?service_name=many&limit=1000{next_}")
        stored += len(page["items"])
        count += sum(f["occurrence_count"] for f in page["items"])
        if not page["next"]:
            break
        next_ = f"&before={page['next']}"
    assert count == len(kinds), f"{stored} kinds"
    post(heald, body, **{"Idempotency-Key": "k-many"})
    assert heald.get("/api/v1/ingest")["records"] == before


def test_an_incident_knows_its_count_and_its_bug(heald):
    for _ in range(3):
        post(heald, '{"service":"linked","log_level":"fatal","message":"linked and counted"}', **{"Idempotency-Key": f"l-{_}"})
    event = wait_for("an event", lambda: heald.events("&service_name=linked"))[0]
    bug = wait_for("its bug", lambda: heald.event(event["id"])["bug_id"])
    assert heald.get(f"/api/v1/system/bugs/{bug}")["occurrence_count"] == 3


def test_counts_stay_exact_under_concurrent_senders(heald):
    line = '{"service":"storm","log_level":"error","message":"storm"}\n'
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: post(heald, line * 50), range(40)))
    rows = heald.get("/api/v1/fingerprints?service_name=storm")["items"]
    assert sum(r["occurrence_count"] for r in rows) == 2000


def test_a_full_queue_answers_429_and_every_record_is_accounted_for():
    with Heald({"limits": {"queue_batches": 1}}) as h:
        line = '{"service":"full","log_level":"error","message":"full"}\n' * 200
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda i: post(h, line), range(200)))
        refused = [a for a in answers if a.status == 429]
        assert refused and all(a.headers["Retry-After"] == "1" for a in refused)
        assert {a.status for a in answers} == {202, 429}
        accepted = sum(a.json["accepted"] for a in answers if a.status == 202)
        assert h.get("/api/v1/ingest")["records"] == accepted == h.get("/api/v1/fingerprints")["items"][0]["occurrence_count"]
        metrics = h.call("GET", "/metrics").text
        assert f'heald_ingest_batches_total{{source="http",outcome="refused"}} {len(refused)}' in metrics


def test_its_own_lines_are_never_ingested(heald):
    answer = post(heald, '{"logger":"heald","service":"heald","level":"error","message":"loop"}')
    assert answer.json["accepted"] == 0 and answer.json["self"] == 1


@pytest.mark.parametrize("record, opened", [
    ({"log_level": "fatal", "message": "disk gone"}, True),
    ({"log_level": "error", "message": "panic: boom"}, True),
    ({"log_level": "error", "message": "GET /", "http_status": 502}, True),
    ({"log_level": "error", "message": "ordinary failure"}, False),
])
def test_bugs_open_by_the_rules(heald, record, opened):
    service = f"rules-{record['message'].split()[0].strip(':/')}"
    post(heald, json.dumps({"service_name": service, **record}))
    bugs = lambda: heald.get(f"/api/v1/system/bugs?service_name={service}")["items"]
    assert len(bugs()) == (1 if opened else 0)
    post(heald, json.dumps({"service_name": service, **record}))
    post(heald, json.dumps({"service_name": service, **record}))
    assert len(bugs()) == 1, "the third within an hour opens one, and never a second"
    bug = heald.get(f"/api/v1/system/bugs/{bugs()[0]['bug_code']}")
    assert bug["occurrence_count"] == (3 if opened else 1) and bug["related_log_ids"]


def test_errors_are_problem_json_that_names_the_remedy(heald):
    for method, path, status in [("GET", "/nope", 404), ("DELETE", "/api/v1/logs", 405), ("GET", "/api/v1/healing/events/none", 404),
                                 ("GET", "/api/v1/logs?limit=0", 400), ("GET", "/api/v1/logs?colour=red", 400),
                                 ("GET", "/api/v1/fingerprints/zz", 400), ("GET", "/api/v1/healing/stats?from=yesterday", 400),
                                 ("PUT", "/api/v1/strategies/none", 404), ("GET", "/%zz", 404)]:
        answer = heald.call(method, path, {} if method == "PUT" else None)
        assert answer.status == status, (method, path, answer.text)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json["status"] == status and answer.json["detail"]


def raw(heald, data, timeout=5):
    with socket.create_connection(("127.0.0.1", heald.port), timeout) as s:
        s.sendall(data)
        s.settimeout(timeout)
        out = b""
        try:
            while chunk := s.recv(65536):
                out += chunk
        except (TimeoutError, ConnectionResetError):
            pass
        return out


@pytest.mark.parametrize("data, status", [
    (b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", b"404"),
    (b"GET /api/v1/status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", b"403"),
    (b"POST /api/v1/pause HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.example\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}", b"403"),
    (b"POST /api/v1/logs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
    (b"GARBAGE\r\n\r\n", b"400"),
    (b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"X-A: " + b"b" * 20000 + b"\r\n\r\n", b"431"),
])
def test_strangers_and_malformed_requests_are_refused(heald, data, status):
    assert raw(heald, data).startswith(b"HTTP/1.1 " + status), raw(heald, data)[:200]
    assert heald.get("/health")


def test_answers_expect_continue_and_keeps_connections(heald):
    body = b'{"service":"x","log_level":"error","message":"m"}'
    with socket.create_connection(("127.0.0.1", heald.port), 5) as s:
        for _ in range(2):
            s.sendall(b"POST /api/v1/logs HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
            assert s.recv(1024).startswith(b"HTTP/1.1 100")
            s.sendall(body)
            assert s.recv(65536).startswith(b"HTTP/1.1 202")


def test_a_token_is_asked_for_when_one_is_set():
    with Heald({"http": {"token": "s3cret"}}) as h:
        assert h.call("GET", "/health").status == 200
        assert h.call("GET", "/api/v1/status").status == 401
        assert h.call("GET", "/api/v1/status", headers={"Authorization": "Bearer wrong!"}).status == 401
        assert h.call("GET", "/api/v1/status", headers={"Authorization": "Bearer s3cret"}).status == 200
        assert healctl(h, "status")[0] == 4
        assert healctl(h, "--token", "s3cret", "status")[0] == 0


def test_metrics_are_well_formed(heald):
    text = heald.call("GET", "/metrics").text
    helped, typed = set(), {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped.add(line.split()[2])
        elif line.startswith("# TYPE "):
            typed[line.split()[2]] = line.split()[3]
        else:
            name = line.split("{")[0].split()[0]
            base = name
            for suffix in ("_bucket", "_sum", "_count"):
                if name.endswith(suffix) and name[: -len(suffix)] in typed:
                    base = name[: -len(suffix)]
            assert base in helped and base in typed, line
            assert typed[base] != "counter" or base.endswith("_total"), line
            float(line.rsplit(" ", 1)[1])
    assert 'heald_ingest_records_total{source="http",outcome="stored"}' in text


def test_the_description_lists_every_path(heald):
    spec = heald.get("/api/v1/openapi.json")
    assert spec["openapi"].startswith("3.1") and "/api/v1/strategies/{name}" in spec["paths"]


def test_live_updates_arrive(heald):
    with socket.create_connection(("127.0.0.1", heald.port), 10) as s:
        s.sendall(b"GET /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        wait_for("the stream opens", lambda: b": heald" in s.recv(4096))
        post(heald, '{"service":"live","log_level":"fatal","message":"stream me"}')
        seen = b""
        end = time.monotonic() + 10
        while b"event: end" not in seen and time.monotonic() < end:
            seen += s.recv(65536)
        assert b"event: incident" in seen and b"stream me" in seen and b"escalated" in seen


def test_healctl_speaks_tables_json_and_exit_codes(heald):
    code, out, _ = healctl(heald, "report", "--service", "cli", "--level", "fatal", "from the command line")
    assert code == 0 and out == "reported\n"
    code, out, _ = healctl(heald, "bug", "list", "--service", "cli")
    assert code == 0 and "from the command line" in out and out.startswith("BUG")
    code, out, _ = healctl(heald, "--json", "bug", "list", "--service", "cli")
    assert json.loads(out)["items"][0]["severity"] == "P0_critical"
    assert healctl(heald, "event", "show", "none")[0] == 3
    assert healctl(heald, "nonsense")[0] == 2
    assert healctl(None, "status")[0] == 5
    assert healctl(heald, "audit", "verify")[0] == 0
    code, out, _ = healctl(heald, "fingerprint", "id", stdin="error 17 at 10.0.0.1\nerror 18 at 10.0.0.2\n")
    ids = out.split()
    assert len(ids) == 2 and ids[0] == ids[1] and len(ids[0]) == 16
    code, _, err = healctl(heald, "run", "--service", "crasher", "--", "/bin/sh", "-c", "echo dying >&2; kill -SEGV $$")
    assert code == 139 and "dying" in err
    bug = json.loads(healctl(heald, "--json", "bug", "list", "--service", "crasher")[1])["items"][0]
    assert bug["error_type"] == "SIGSEGV" and "dying" in bug["stack_trace"]


def test_stops_in_order_and_starts_again_with_everything():
    h = Heald()
    try:
        h.log_error("kept over a restart")
        assert h.stop() == 0
        h.start()
        assert h.get("/api/v1/fingerprints")["items"][0]["occurrence_count"] == 1
    finally:
        h.close()


def test_a_second_heald_on_the_same_folder_is_refused(heald):
    with pytest.raises(AssertionError, match="another heald uses this state directory"):
        Heald(folder=heald.folder)
    assert heald.get("/health")
