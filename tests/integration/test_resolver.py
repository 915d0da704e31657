"""A script says what an error is about: it chooses among what the inventory names, and can change nothing."""
import pytest

from harness import OPEN, Heald, touch_script, wait_for

# Reads the shard's number out of the message and looks into a file that an operator keeps.
RESOLVER = """
return {
  name = "which_shard", version = "1.0.0", summary = "says which redis it is", risk = "safe",
  matches = { {} }, capabilities = { "read:%s", "exec:/bin/sh", "file:%s" },
  execute = function(request, call)
    call.write_file { path = "%s", content = "a resolver changes nothing" }
    local shard = request.incident.message:match("shard (%%d+)")
    local map = call.read_file("%s").content
    local name = map:match("shard" .. shard .. "=(%%S+)")
    return { outcome = "succeeded", detail = { target = name } }
  end,
}
"""


@pytest.fixture
def world(tmp_path):
    shards, written = tmp_path / "shards", tmp_path / "written"
    shards.write_text("shard1=redis-1\nshard2=redis-2\nshard3=made-up\n")
    config = {**OPEN, "services": [{"name": "cart"}, {"name": "redis-1"}, {"name": "redis-2"}],
              "targets": [{"when": {"service": "cart", "message": "shard \\d+"}, "resolver": "which_shard"}]}
    with Heald(config) as h:
        h.script("which.lua", RESOLVER % (shards, written, written, shards))
        h.script("act.lua", touch_script("act", tmp_path / "ledger"))
        for name in ("which_shard", "act"):
            h.loaded(name)
        yield h, tmp_path / "ledger", written


def test_a_script_says_what_an_error_is_about_and_changes_nothing(world):
    h, ledger, written = world
    h.log_error("cannot write to shard 2: refused", service="cart")
    event = h.ended("cart")[0]
    assert event["target"] == "redis-2" and [a["target"] for a in event["attempts"]] == ["redis-2"]
    # It heals nothing itself, although its matches fit, and what it would have written is not there.
    assert [a["strategy"] for a in event["attempts"]] == ["act"] and not written.exists()
    assert len(ledger.read_text().splitlines()) == 1


@pytest.mark.parametrize("message", ["cannot write to shard 3: refused", "cannot write to shard 9: refused"], ids=["not-in-the-inventory", "an-error-in-it"])
def test_what_a_script_cannot_say_stays_as_it_would_be_without_it(world, message):
    h, _, _ = world
    h.log_error(message, service="cart")
    assert h.ended("cart")[0]["target"] == "cart"
    wait_for("the log says why", lambda: any("which_shard" in line and "did not say" in line for line in h.log))


def test_the_configuration_names_what_is_missing(tmp_path):
    import subprocess
    from harness import BIN
    for text, words in (("targets: [{when: {service: a}}]", "targets[0].target: is missing"),
                        ("services: [{name: a}]\ntargets: [{when: {service: a}, resolver: r, target: b}]", "there is no service 'b'"),
                        ("store: {service: nobody}", "store.service: there is no service 'nobody'")):
        path = tmp_path / "c.yaml"
        path.write_text(text)
        done = subprocess.run([BIN / "heald", "--check", "-c", path], capture_output=True, text=True)
        assert done.returncode != 0 and words in done.stdout + done.stderr, done.stdout + done.stderr
