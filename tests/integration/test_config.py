"""The configuration: every fault named with its place, nothing half taken."""
import subprocess

import pytest

from harness import BIN, Heald, wait_for


def check(folder, text, name="heald.yaml", **more):
    path = folder / name
    path.write_text(text)
    for other, content in more.items():
        (folder / "conf.d").mkdir(exist_ok=True)
        (folder / "conf.d" / f"{other}.yaml").write_text(content)
    done = subprocess.run([BIN / "heald", "--check", "-c", path], capture_output=True, text=True, timeout=20)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("text, expected", [
    ("lisen: 1\n", "heald.yaml:1: lisen: unknown key; known are"),
    ("http:\n  listen: 127.0.0.1:1\n  listen: 127.0.0.1:2\n", "heald.yaml:3: http.listen: is given twice"),
    ("http:\n  listen: [a]\n", "http.listen: must be a text"),
    ("http: 5\n", "heald.yaml:1: http: must be a mapping"),
    ("limits:\n  attempts_per_incident: 0\n", "heald.yaml:2: limits.attempts_per_incident: must be an integer from 1 to 100"),
    ("limits:\n  cooldown: 5 parsecs\n", "limits.cooldown: must be a duration such as 250ms"),
    ("autonomy:\n  default: maybe\n", "autonomy.default: must be one of off, shadow, approve, auto"),
    ("services:\n  - name: a\n    probes:\n      - {http: 'ftp://x'}\n", "services[0].probes[0].http: must be an http:// or https:// URL"),
    ("services:\n  - name: a\n    probes:\n      - {http: 'http://x', tcp: 'x:1'}\n", "needs exactly one of http, tcp, command"),
    ("services:\n  - {probes: []}\n", "services[0].name: is missing"),
    ("services:\n  - {name: a, depends_on: [b]}\n", "there is no service 'b'"),
    ("sources:\n  - file: relative.log\n", "sources[0].file: must be an absolute path or glob"),
    ("strategies:\n  restart: {floor: 2}\n", "strategies.restart.floor: must be a number from 0 to 1"),
    ("http:\n  token: ${NO_SUCH_VARIABLE}\n", "the environment has no variable NO_SUCH_VARIABLE"),
    ("http:\n  token_file: /nonexistent\n", "http.token_file: /nonexistent does not exist"),
    ("http:\n  listen: 0.0.0.0:7480\n", "can be reached by others and no token is set"),
    ("a: [\n", "not valid YAML"),
    ("dry_run: yes\n", "dry_run: must be true or false"),
])
def test_each_fault_names_file_line_key_and_what_is_allowed(tmp_path, text, expected):
    code, out = check(tmp_path, text)
    assert code == 1 and expected in out, out


def test_all_faults_come_at_once(tmp_path):
    code, out = check(tmp_path, "x: 1\nlimits: {cooldown: no}\nhttp: {max_connections: -1}\n")
    assert code == 1 and len(out.strip().splitlines()) == 3, out


def test_valid_files_and_conf_d_are_taken(tmp_path):
    code, out = check(tmp_path, "limits: {cooldown: 5s}\n", extra="services: [{name: a}]\n", more="services: [{name: b, depends_on: [a]}]\n")
    assert code == 0 and out.count(": valid") == 3, out


def test_a_value_set_in_two_files_is_a_fault(tmp_path):
    code, out = check(tmp_path, "limits: {cooldown: 5s}\n", extra="limits: {cooldown: 6s}\n")
    assert code == 1 and "is set already in" in out, out


def test_secrets_come_from_files_and_environment(tmp_path):
    secret = tmp_path / "token"
    secret.write_text("from-file\n")
    with Heald({"http": {"token_file": str(secret)}}) as h:
        assert h.call("GET", "/api/v1/status", headers={"Authorization": "Bearer from-file"}).status == 200
    with Heald(env={"HEALD_TOKEN": "from-env"}) as h:
        assert h.call("GET", "/api/v1/status", headers={"Authorization": "Bearer from-env"}).status == 200


def test_a_bad_reload_changes_nothing_and_a_good_one_is_taken():
    with Heald() as h:
        good = h.config.read_text()
        h.config.write_text(good.replace('"state_dir"', '"stat_dir"'))
        answer = h.call("POST", "/-/reload")
        assert answer.status == 400 and "stat_dir: unknown key" in answer.json["detail"]
        assert "heald_config_last_reload_successful 0" in h.call("GET", "/metrics").text
        assert h.get("/ready")["ready"]
        h.config.write_text(good[:-2] + ',"dry_run": true}')
        h.process.send_signal(1)  # SIGHUP
        wait_for("the reload is taken", lambda: h.get("/api/v1/status")["dry_run"])
        assert any(a["action"] == "config.reload" for a in h.get("/api/v1/audit")["items"])


def test_a_bad_configuration_refuses_to_start(tmp_path):
    path = tmp_path / "heald.yaml"
    path.write_text("nope: 1\n")
    done = subprocess.run([BIN / "heald", "-c", path], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "nope: unknown key" in done.stderr
