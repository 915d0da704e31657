"""What the README prints is what works."""
import json
import re
import subprocess

from harness import OPEN, ROOT, Heald, healctl, wait_for

README = (ROOT / "README.md").read_text()


def block(language):
    return re.search(rf"```{language}\n(.*?)```", README, re.S)[1]


def test_the_examples_are_short_and_load(tmp_path):
    lua, cpp = block("lua"), block("cpp")
    assert len(lua.splitlines()) < 20 and len(cpp.splitlines()) < 40
    source = tmp_path / "clear_tmp.cpp"
    source.write_text(cpp)
    subprocess.run(["c++", "-std=c++20", "-shared", "-fPIC", f"-I{ROOT}/plugin-api/include", source, "-o", tmp_path / "clear_tmp.so"], check=True)
    with Heald({**OPEN, "services": [{"name": "cart"}]}) as h:
        h.script("clear_tmp.lua", lua)
        (tmp_path / "clear_tmp.so").rename(h.state / "plugins" / "clear_tmp.so")
        assert h.loaded("clear_tmp")["risk"] == "safe" and h.loaded("clear_tmp_cpp")
        h.log_error("write failed: No space left on device")
        event = h.ended()[0]
        assert {a["strategy"] for a in event["attempts"]} & {"clear_tmp", "clear_tmp_cpp"}


def test_the_configuration_is_valid_and_the_commands_exist(tmp_path):
    config = tmp_path / "heald.yaml"
    config.write_text(block("yaml"))
    code, out, err = healctl(None, "config", "check", str(config))
    assert code == 0, err
    with Heald({**OPEN, "services": [{"name": "cart"}]}) as h:
        curl = re.search(r"curl -d '(.*?)'", README)[1]
        answer = h.call("POST", "/api/v1/logs", curl.encode(), raw=True, headers={"Content-Type": "application/x-www-form-urlencoded"})
        assert answer.status == 202 and json.loads(answer.text)["accepted"] == 1
        h.plugin("restart")
        h.loaded("restart")
        for line in re.findall(r"(?m)^healctl (.*)$", README):
            words = re.sub(r"#.*", "", line).replace('"migration"', "migration").split()
            if "EVENT" not in words:
                code, out, err = healctl(h, *words)
                assert code == 0, (words, err)


def test_every_document_it_names_is_there():
    for path in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / path).exists(), path
