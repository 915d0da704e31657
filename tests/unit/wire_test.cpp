#include "wire/capability.hpp"
#include "wire/describe.hpp"
#include "wire/frame.hpp"

#include <gtest/gtest.h>

using namespace heal;

namespace {

json::value parsed(const std::string& text) { return parse_json(text, "test").value(); }

std::string described(const std::string& facts) {
    const auto r = read_facts(parsed(facts), "x.so");
    return r ? "ok" : r.error().text;
}

std::string configured(const std::string& schema, const std::string& config) {
    const auto r = check_config(parsed(schema).as_object(), parsed(config).as_object(), "config");
    return r ? json::serialize(*r) : r.error().text;
}

std::string capable(const std::string& text) {
    const auto r = check_capability(text);
    return r ? "ok" : r.error().text;
}

}  // namespace

TEST(Frame, GivesWholeFramesHoweverTheBytesArrive) {
    const std::string bytes = *to_frame("{\"a\":1}") + *to_frame("[]") + *to_frame(std::string(70'000, 'x'));
    for (const std::size_t piece : {1U, 3U, 4U, 5U, 11U, 65'536U, 200'000U}) {
        FrameReader reader;
        std::vector<std::size_t> sizes;
        for (std::size_t at = 0; at < bytes.size(); at += piece) {
            reader.append(std::string_view{bytes}.substr(at, piece));
            std::string_view text;
            while (*reader.next(text)) sizes.push_back(text.size());
        }
        EXPECT_EQ(sizes, (std::vector<std::size_t>{7, 2, 70'000})) << piece;
        EXPECT_EQ(reader.pending(), 0U);
    }
}

TEST(Frame, RefusesALengthOfNothingAndOneAboveTheLimitForGood) {
    for (const std::string& head : {std::string("\0\0\0\0", 4), std::string("\1\0\x10\0", 4), std::string("\xff\xff\xff\x7f", 4)}) {
        FrameReader reader;
        reader.append(head);
        std::string_view text;
        EXPECT_EQ(reader.next(text).error().code, errc::protocol);
        EXPECT_EQ(reader.next(text).error().code, errc::protocol);
    }
    EXPECT_TRUE(to_frame(std::string(max_frame_bytes, 'x')));
    EXPECT_FALSE(to_frame(std::string(max_frame_bytes + 1, 'x')));
    EXPECT_FALSE(to_frame(""));
}

TEST(Glob, MatchesWithinComponentsAndAcrossThem) {
    const auto check = [](const char* pattern, const char* text, bool expected) {
        EXPECT_EQ(glob_match(pattern, text, '/'), expected) << pattern << " on " << text;
    };
    check("/etc/app/**", "/etc/app/a/b.conf", true);
    check("/etc/app/**", "/etc/app", false);
    check("/etc/app/*", "/etc/app/a", true);
    check("/etc/app/*", "/etc/app/a/b", false);
    check("/etc/*/x.conf", "/etc/app/x.conf", true);
    check("/etc/**/x.conf", "/etc/a/b/x.conf", true);
    check("/a?c", "/abc", true);
    check("/a?c", "/a/c", false);
    check("/a*b*c", "/aXbYc", true);
    check("/a*b*c", "/aXcYb", false);
    check("**", "/anything/at/all", true);
    check("", "", true);
    check("", "/", false);
    // Would take for ever with backtracking over each star.
    EXPECT_FALSE(glob_match(std::string(50, '*') + "b", std::string(5'000, 'a'), '\0'));
    EXPECT_FALSE(glob_match("*a*a*a*a*a*a*a*a*a*b", std::string(2'000, 'a'), '/'));
}

TEST(Capability, IsOfAKnownForm) {
    const auto check = [](const char* text, const char* expected) { EXPECT_NE(capable(text).find(expected), std::string::npos) << text << ": " << capable(text); };
    for (const char* good : {"exec:*", "exec:/usr/sbin/nginx", "exec:/usr/bin/systemctl restart *", "exec:{target.process.command.0}", "file:/etc/**", "read:/var/log/*",
             "net:127.0.0.1:6379", "net:[::1]:80", "net:unix:/run/x.sock", "net:{target.redis.address}", "signal:pidfile:/run/x.pid", "signal:command:/usr/sbin/nginx", "systemd:x.service", "docker:a-*", "sql:psql:*"}) {
        check(good, "ok");
    }
    check("shell:rm", "must begin with one of");
    check("exec:", "nothing follows");
    check("exec:nginx", "absolute path");
    check("file:etc/x", "absolute path");
    check("net:localhost", "host:port");
    check("signal:9", "signal:pidfile");
    check("exec:{env.PATH}", "only placeholders are {target.…}");
    check("file:/x/{target.a", "not closed");
}

TEST(Grants, CoverExactlyWhatTheySay) {
    const Grants g{{"exec:/bin/echo", "exec:/usr/bin/systemctl restart *", "exec:/bin/tar x ...", "file:/etc/app/**", "read:/var/log/*", "net:127.0.0.1:6379", "net:*.local:*",
                    "net:unix:/run/a.sock", "signal:pidfile:/run/x.pid", "systemd:web-*", "file:/srv/{target.name}/**"}};
    EXPECT_TRUE(g.exec({"/bin/echo", "anything", "; rm -rf /"}));
    EXPECT_FALSE(g.exec({"/bin/echos"}));
    EXPECT_TRUE(g.exec({"/usr/bin/systemctl", "restart", "cart"}));
    EXPECT_FALSE(g.exec({"/usr/bin/systemctl", "stop", "cart"}));
    EXPECT_FALSE(g.exec({"/usr/bin/systemctl", "restart", "cart", "--force"}));
    EXPECT_TRUE(g.exec({"/bin/tar", "x", "a", "b"}));
    EXPECT_TRUE(g.exec({"/bin/tar", "x"}));
    EXPECT_FALSE(g.exec({"/bin/tar", "c", "x"}));
    EXPECT_TRUE(g.file("/etc/app/a/b", true));
    EXPECT_TRUE(g.file("/var/log/x", false));
    EXPECT_FALSE(g.file("/var/log/x", true));
    EXPECT_TRUE(g.net("127.0.0.1", 6379));
    EXPECT_FALSE(g.net("127.0.0.1", 6380));
    EXPECT_TRUE(g.net("a.local", 1));
    EXPECT_TRUE(g.net_unix("/run/a.sock"));
    EXPECT_FALSE(g.net_unix("/run/b.sock"));
    EXPECT_TRUE(g.signal_pid_file("/run/x.pid"));
    EXPECT_FALSE(g.signal_command("/bin/echo"));
    EXPECT_TRUE(g.named("systemd", "web-1.service"));
    EXPECT_FALSE(g.named("docker", "web-1"));
    EXPECT_FALSE(g.file("/srv/{target.name}/x", true)) << "a placeholder nobody filled grants nothing";
    EXPECT_FALSE(Grants{}.file("/x", false));
    EXPECT_TRUE(Grants::all().exec({"/bin/sh"}));
}

TEST(CleanPath, IsAbsoluteAndHasNoWayBack) {
    for (const char* good : {"/", "/a", "/a/b.c", "/...", "/a/..b"}) EXPECT_TRUE(is_clean_path(good)) << good;
    for (const char* bad : {"", "a", "/a/", "//a", "/a//b", "/./a", "/a/..", "/../a"}) EXPECT_FALSE(is_clean_path(bad)) << bad;
    EXPECT_FALSE(is_clean_path(std::string_view("/a\0b", 4)));
}

TEST(Facts, AreRefusedWithTheirPlace) {
    const auto check = [](const std::string& facts, const std::string& expected) { EXPECT_NE(described(facts).find(expected), std::string::npos) << facts << ": " << described(facts); };
    check(R"([{"name": "a.b-c_1"}])", "ok");
    check(R"([{"name": "a"}, {"name": "b"}])", "ok");
    check("[]", "array of 1 to 64");
    check("{}", "array of 1 to 64");
    check(R"([{"name": "a"}, {"name": "a"}])", "describes the strategy 'a' twice");
    check(R"([{"name": "A"}])", "x.so.name: must be 1 to 64 characters");
    check(R"([{"summary": "x"}])", "x.so.name: is missing");
    check(R"([{"name": "a", "riks": "safe"}])", "x.so.riks: is not a known fact");
    check(R"([{"name": "a", "risk": "mild"}])", "must be safe, disruptive or destructive");
    check(R"([{"name": "a", "confidence": 1.1}])", "x.so.confidence: must be a number from 0 to 1");
    check(R"([{"name": "a", "timeout_ms": 0}])", "x.so.timeout_ms: must be an integer from 1 to 3600000");
    check(R"([{"name": "a"}, {"name": "b", "matches": {}}])", "x.so[1].matches: must be an array");
    check(R"([{"name": "a", "capabilities": ["exec:sh"]}])", "x.so.capabilities[0]: 'exec:sh' is not a capability");
    check(R"([{"name": "a", "schema": 2}])", "x.so.schema");
    check(R"([{"name": "a", "parameters": {"properties": {"n": {"type": "int"}}}}])", "x.so.parameters.properties.n.type: must be one of");
    check(R"([{"name": "a", "parameters": {"properties": {"n": {"type": "integer", "default": "x"}}}}])", "default: must be of type integer");
    check(R"([{"name": "a", "parameters": {"oneOf": []}}])", "does not know");
}

TEST(Facts, CheckEachKeyOfAMatch) {
    const auto check = [](const std::string& match, const std::string& expected) {
        const auto r = check_match(parsed(match), "m");
        const std::string got = r ? "ok" : r.error().text;
        EXPECT_NE(got.find(expected), std::string::npos) << match << ": " << got;
    };
    check(R"({"service": "a*", "environment": ["prod", "stage"], "level": "error", "message": "x.*", "http_status": [500, 599], "labels": {"a": "b"}, "target": ["process"], "trigger": {"count": 3, "window_s": 60}})", "ok");
    check("7", "must be an object");
    check(R"({"servce": "a"})", "m.servce: is not a key of a match");
    check(R"({"service": ""})", "m.service: must be a string of 1");
    check(R"({"service": []})", "m.service");
    check(R"({"level": "loud"})", "m.level: must be one of");
    check(R"({"http_status": 99})", "m.http_status");
    check(R"({"http_status": [599, 500]})", "m.http_status");
    check(R"({"labels": {"a": {}}})", "m.labels");
    check(R"({"trigger": {"count": 3}})", "m.trigger.window_s: is missing");
    check(R"({"trigger": {"count": 3, "window": 3}})", "m.trigger.window: is not known");
}

TEST(Config, IsFilledWithDefaultsOrRefusedWithItsPath) {
    const std::string schema = R"({"properties": {"n": {"type": "integer", "minimum": 1, "maximum": 5, "default": 2, "unit": "s"}, "s": {"type": "string", "minLength": 2},
        "l": {"type": "array", "items": {"type": "number"}, "maxItems": 2}, "o": {"type": "object", "properties": {"x": {"type": "boolean", "default": true}}, "additionalProperties": false}},
        "required": ["s"], "additionalProperties": false})";
    const auto check = [&](const std::string& config, const std::string& expected) { EXPECT_NE(configured(schema, config).find(expected), std::string::npos) << config << ": " << configured(schema, config); };
    check(R"({"s": "ab"})", R"("n":2)");
    check(R"({"s": "ab", "n": 5})", R"("n":5)");
    check(R"({"s": "ab", "n": 3.0})", R"("n":3)");
    check(R"({"s": "ab", "o": {}})", R"("o":{"x":true})");
    check("{}", "config.s: is missing");
    check(R"({"s": "a"})", "config.s: must have at least 2 bytes");
    check(R"({"s": "ab", "n": 6})", "config.n: must be at most 5 s");
    check(R"({"s": "ab", "n": 2.5})", "config.n: must be of type integer");
    check(R"({"s": "ab", "l": [1, "x"]})", "config.l[1]: must be of type number");
    check(R"({"s": "ab", "l": [1, 2, 3]})", "config.l: must have at most 2 elements");
    check(R"({"s": "ab", "o": {"y": 1}})", "config.o.y: is not a parameter; known are: x");
    check(R"({"s": "ab", "z": 1})", "config.z: is not a parameter");
    EXPECT_EQ(configured("{}", "{}"), "{}");
    EXPECT_NE(configured("{}", R"({"a": 1})").find("takes none"), std::string::npos);
}
