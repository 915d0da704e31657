#include "ingest/decoder.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace heal {
namespace {

using namespace std::chrono_literals;

struct Heard {
    Level level;
    std::string service, message, error_type;
    std::size_t stack_lines;
    bool operator==(const Heard&) const = default;
};

void PrintTo(const Heard& h, std::ostream* out) {
    *out << to_string(h.level) << " [" << h.service << "] \"" << h.message << "\" type=" << h.error_type
         << " stack=" << h.stack_lines;
}

std::vector<Heard> heard_of(const Batch& batch) {
    std::vector<Heard> ret;
    for (const auto& delta : batch.deltas) {
        for (const auto& s : delta.samples) {
            const auto lines =
                s.stack_trace.empty() ? 0 : std::count(s.stack_trace.begin(), s.stack_trace.end(), '\n') + 1;
            ret.push_back({s.level, s.service_name, s.message, s.error_type, static_cast<std::size_t>(lines)}
            );
        }
    }
    return ret;
}

struct Run {
    Batch batch;
    std::vector<Heard> heard;
};

Run read(std::string_view text, DecodeDefaults defaults = {}, JoinOptions join = {}) {
    const ManualClock clock;
    BatchBuilder builder{clock};
    if (defaults.unnamed_service.empty()) defaults.unnamed_service = "app";
    LineDecoder lines{defaults, join};
    std::uint64_t bytes = 0;
    while (!text.empty()) {
        const auto end = text.find('\n');
        const auto line = text.substr(0, end);
        text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
        lines.line(line, line.size() + 1, false, 0us, builder);
        bytes += line.size() + 1;
        EXPECT_EQ(builder.peek().bytes + lines.held_bytes(), bytes);
    }
    lines.flush(builder);
    EXPECT_EQ(lines.held_bytes(), 0U);
    EXPECT_FALSE(lines.deadline());
    Run ret;
    ret.batch = builder.take();
    EXPECT_TRUE(ret.batch.balanced());
    EXPECT_EQ(ret.batch.bytes, bytes);
    ret.heard = heard_of(ret.batch);
    return ret;
}

void check(std::string_view text, const std::vector<Heard>& expected) {
    SCOPED_TRACE(text);
    EXPECT_EQ(read(text).heard, expected);
}

TEST(Lines, OfEachFormatAreRecognised) {
    check(
        R"j({"level":50,"time":1790000000000,"pid":1,"hostname":"h","name":"shop","msg":"boom"})j",
        {{Level::error, "shop", "boom", "", 0}}
    );
    check(
        R"j({"log":"2026-09-21 14:13:20 ERROR it broke\n","stream":"stderr","time":"2026-09-21T14:13:20.1Z"})j",
        {{Level::error, "app", "it broke", "", 0}}
    );
    check(
        R"j({"log":"{\"level\":\"error\",\"msg\":\"inner\"}\n","stream":"stdout","time":"2026-09-21T14:13:20.1Z"})j",
        {{Level::error, "app", "inner", "", 0}}
    );
    check(
        "2026-09-21T14:13:20.123456789Z stderr F level=error msg=\"in logfmt\" err=\"no route\"",
        {{Level::error, "app", "in logfmt: no route", "", 0}}
    );
    check(
        R"(ts=2026-09-21T14:13:20Z level=error caller=x.go:1 msg="say \"hi\"" service=shop)",
        {{Level::error, "shop", "say \"hi\"", "", 0}}
    );
    check(
        R"(2026/09/21 14:13:20 [error] 7#7: *12 connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1, server: a, request: "GET / HTTP/1.1", upstream: "http://127.0.0.1:9/", host: "a")",
        {{Level::error,
          "nginx",
          "connect() failed (111: Connection refused) while connecting to upstream",
          "",
          0}}
    );
    check(
        "2026/09/21 14:13:20 [emerg] 7#7: unknown directive \"bogus\" in /etc/nginx/nginx.conf:3",
        {{Level::fatal, "nginx", "unknown directive \"bogus\" in /etc/nginx/nginx.conf:3", "", 0}}
    );
    check(
        "[Mon Sep 21 14:13:20.123456 2026] [proxy:error] [pid 7:tid 8] [client 1.2.3.4:5] AH00957: attempt "
        "failed",
        {{Level::error, "apache", "AH00957: attempt failed", "", 0}}
    );
    check(
        R"(1.2.3.4 - - [21/Sep/2026:14:13:20 +0000] "GET /a/b?id=7 HTTP/1.1" 502 157 "-" "curl/8")",
        {{Level::error, "app", "HTTP 502: GET /a/b", "", 0}}
    );
    check(R"(1.2.3.4 - - [21/Sep/2026:14:13:20 +0000] "GET /a HTTP/1.1" 404 157 "-" "curl/8")", {});
    check(
        "<11>1 2026-09-21T14:13:20Z web1 shop 77 ID [meta x=\"a]b\"] \xEF\xBB\xBFpayment failed",
        {{Level::error, "shop", "payment failed", "", 0}}
    );
    check("<11>1 - - - - - - payment failed", {{Level::error, "app", "payment failed", "", 0}});
    check(
        R"(<14>1 2026-09-21T14:13:20Z web1 shop 77 - - @cee: {"level":"error","msg":"in json"})",
        {{Level::error, "shop", "in json", "", 0}}
    );
    check(
        "<11>Sep 21 14:13:20 web1 shop[77]: payment failed", {{Level::error, "shop", "payment failed", "", 0}}
    );
    check("2026-09-21 14:13:20,123 ERROR [main] it broke", {{Level::error, "app", "it broke", "", 0}});
    check(
        "2026-09-21T14:13:20.123Z host-03 shop[123]: ERROR it broke",
        {{Level::error, "shop", "ERROR it broke", "", 0}}
    );
    check("2026-09-21 14:13:20 INFO fine\n2026-09-21 14:13:20 DEBUG fine\n\nplain words\n", {});
    check("\x1B[31mERROR\x1B[0m red words\r", {{Level::error, "app", "red words", "", 0}});
    check("{not json but ERROR: broken", {{Level::error, "app", "{not json but ERROR: broken", "", 0}});
}

constexpr std::string_view python =
    "Traceback (most recent call last):\n"
    "  File \"/srv/w.py\", line 12, in <module>\n"
    "    main()\n"
    "  File \"/srv/w.py\", line 8, in main\n"
    "    raise ValueError(\"bad thing 7\")\n"
    "ValueError: bad thing 7\n";

TEST(Lines, OfStackTracesAreJoined) {
    const std::string py{python};
    check(py, {{Level::error, "app", "ValueError: bad thing 7", "ValueError", 6}});
    check(
        "2026-09-21 14:13:20 ERROR job failed\n" + py, {{Level::error, "app", "job failed", "ValueError", 6}}
    );
    check(
        "2026-09-21 14:13:20 INFO starting\n" + py,
        {{Level::error, "app", "ValueError: bad thing 7", "ValueError", 6}}
    );
    check(
        py + "\nDuring handling of the above exception, another exception occurred:\n\n" + py +
            "2026-09-21 14:13:20 INFO next\n",
        {{Level::error, "app", "ValueError: bad thing 7", "ValueError", 13}}
    );
    check(
        "Exception in thread \"main\" java.lang.IllegalStateException: no\n\tat a.B.c(B.java:1)\n\t... 3 "
        "more\nCaused by: java.io.IOException: disk\n\tat a.D.e(D.java:2)\n",
        {{Level::error,
          "app",
          "Exception in thread \"main\" java.lang.IllegalStateException: no",
          "java.lang.IllegalStateException",
          5}}
    );
    check(
        "2026-09-21 14:13:20 ERROR [main] a.B - failed\njava.io.IOException: disk\n\tat "
        "a.D.e(D.java:2)\n2026-09-21 14:13:20 ERROR [main] a.B - other\n",
        {{Level::error, "app", "failed", "java.io.IOException", 2}, {Level::error, "app", "other", "", 0}}
    );
    check(
        "panic: runtime error: index out of range [5] with length 3\n\ngoroutine 1 "
        "[running]:\nmain.f(0x5)\n\t/srv/a.go:7 +0x1d\nmain.main()\n\t/srv/a.go:3 +0x20\nexit status 2\n",
        {{Level::fatal, "app", "panic: runtime error: index out of range [5] with length 3", "panic", 7}}
    );
    check(
        "/srv/app.js:12\n    throw new TypeError('x');\n    ^\n\nTypeError: x is not a function\n    at f "
        "(/srv/app.js:12:11)\n    at main (/srv/app.js:20:1)\n\nNode.js v18.19.0\n",
        {{Level::error, "app", "TypeError: x is not a function", "TypeError", 7}}
    );
    check(
        "TypeError: x is not a function\n    at f (/srv/app.js:12:11)\n",
        {{Level::error, "app", "TypeError: x is not a function", "TypeError", 1}}
    );
    check(
        "terminate called after throwing an instance of 'std::runtime_error'\n  what():  no disk\nAborted "
        "(core dumped)\n",
        {{Level::fatal,
          "app",
          "terminate called after throwing an instance of 'std::runtime_error': no disk",
          "std::runtime_error",
          3}}
    );
    check(
        "=================================================================\n==7==ERROR: AddressSanitizer: "
        "heap-use-after-free on address 0x1\nREAD of size 4\n    #0 0x1 in f a.cpp:3\n\nSUMMARY: "
        "AddressSanitizer: heap-use-after-free a.cpp:3 in f\n==7==ABORTING\nERROR next thing\n",
        {{Level::fatal,
          "app",
          "AddressSanitizer: heap-use-after-free on address 0x1",
          "heap-use-after-free",
          6},
         {Level::error, "app", "next thing", "", 0}}
    );
    check(
        "thread 'main' panicked at src/main.rs:4:5:\nindex out of bounds\nnote: run with "
        "`RUST_BACKTRACE=1`\n",
        {{Level::fatal, "app", "thread 'main' panicked at src/main.rs:4:5: index out of bounds", "panic", 3}}
    );
    check(
        "Unhandled exception. System.InvalidOperationException: no\n   at A.B() in /src/A.cs:line 3\n   --- "
        "End of inner exception stack trace ---\n",
        {{Level::error,
          "app",
          "Unhandled exception. System.InvalidOperationException: no",
          "System.InvalidOperationException",
          3}}
    );
    check(
        "<11>Sep 21 14:13:20 web1 shop[77]: failed#012Traceback (most recent call last):#012  File \"a.py\", "
        "line 1, in f#012ValueError: bad",
        {{Level::error, "shop", "failed", "ValueError", 3}}
    );
}

TEST(Lines, OfTracesInContainerWrappersAreJoined) {
    std::string docker;
    std::string cri;
    for (std::string_view rest = python; !rest.empty();) {
        const auto end = rest.find('\n');
        std::string escaped;
        for (const char c : rest.substr(0, end)) (c == '"' ? escaped += '\\' : escaped) += c;
        docker +=
            "{\"log\":\"" + escaped + "\\n\",\"stream\":\"stderr\",\"time\":\"2026-09-21T14:13:20.1Z\"}\n";
        cri += "2026-09-21T14:13:20.1Z stderr F " + std::string{rest.substr(0, end)} + "\n";
        rest.remove_prefix(end + 1);
    }
    check(docker, {{Level::error, "app", "ValueError: bad thing 7", "ValueError", 6}});
    check(cri, {{Level::error, "app", "ValueError: bad thing 7", "ValueError", 6}});
    check(
        "2026-09-21T14:13:20.1Z stderr P level=error msg=\n2026-09-21T14:13:20.1Z stderr P "
        "together\n2026-09-21T14:13:20.1Z stderr F -now\n",
        {{Level::error, "app", "together-now", "", 0}}
    );
}

TEST(Lines, WithoutATraceAreNotHeldAndOthersNoLongerThanAllowed) {
    const ManualClock clock;
    struct Row {
        const char* text;
        Duration held;  // 0: given away at once
    };
    const Row rows[] = {
        {"2026-09-21 14:13:20 ERROR it broke", 0us},
        {"2026-09-21T14:13:20.123Z host-03 app[123]: ERROR [auth-1] E0001 lease near x expired id=7", 0us},
        {R"j({"level":"error","msg":"java.io.IOException: x"})j", 0us},
        {"level=error msg=\"java.io.IOException: x\"", 0us},
        {"2026/09/21 14:13:20 [error] 7#7: *12 x", 0us},
        {"2026-09-21 14:13:20 INFO java.io.IOException: x", 0us},
        {"worker killed by SIGSEGV", 0us},
        {"2026-09-21 14:13:20 ERROR java.io.IOException: x", 50'000us},
        {"Traceback (most recent call last):", 50'000us},
        {"panic: x", 50'000us},
    };
    for (const auto& row : rows) {
        SCOPED_TRACE(row.text);
        BatchBuilder builder{clock};
        DecodeDefaults defaults;
        LineDecoder lines{defaults, JoinOptions{}};
        lines.line(row.text, 1, false, 100us, builder);
        lines.pause(100us, builder);
        EXPECT_EQ(lines.deadline().value_or(100us) - 100us, row.held);
        lines.flush(builder);
        EXPECT_EQ(builder.take().lines, 1U);
    }
    // A complete Python trace waits only for a chained one.
    BatchBuilder builder{clock};
    LineDecoder lines{{}, JoinOptions{}};
    for (const char* text :
         {"Traceback (most recent call last):", "  File \"a.py\", line 1, in f", "ValueError: x"})
        lines.line(text, 1, false, 0us, builder);
    lines.pause(0us, builder);
    EXPECT_EQ(lines.deadline(), Duration{5'000});
    JoinOptions off;
    off.enabled = false;
    EXPECT_EQ(read(python, {}, off).batch.joined, 0U);
}

TEST(Lines, OfANeverEndingTraceAreBounded) {
    std::string text = "java.lang.StackOverflowError: x\n";
    for (int i = 0; i < 10'000; ++i) text += "\tat a.B.c" + std::to_string(i) + "(B.java:1)\n";
    const auto run = read(text);
    ASSERT_EQ(run.heard.size(), 1U);
    EXPECT_LE(run.heard[0].stack_lines, 513U);
    EXPECT_EQ(run.batch.truncated, 1U);
    EXPECT_EQ(run.batch.joined, 10'000U);
    // Lines that keep coming do not put the end off for ever.
    const ManualClock clock;
    BatchBuilder builder{clock};
    LineDecoder lines{{}, JoinOptions{}};
    Duration now{0};
    for (int i = 0; i < 100; ++i, now += 20'000us)
        lines.line("\tat a", 1, false, now, builder), lines.pause(now, builder);
    lines.line("panic: x", 1, false, now, builder);
    const Duration from = now;
    for (int i = 0; i < 100; ++i, now += 20'000us)
        lines.line("\tmore", 1, false, now, builder), lines.pause(now, builder);
    EXPECT_EQ(lines.deadline(), from + 1'000'000us);
}

TEST(Lines, OfTwoWritersInterleavedStayApartAsFarAsTheyCan) {
    const auto run = read(
        "2026-09-21 14:13:20 ERROR java.io.IOException: a\n2026-09-21 14:13:20 ERROR java.io.IOException: "
        "b\n\tat x.Y.z(Y.java:1)\n\tat p.Q.r(Q.java:1)\n2026-09-21 14:13:20 INFO c\n\tat x.Y.w(Y.java:2)\n"
    );
    ASSERT_EQ(run.heard.size(), 2U);
    EXPECT_EQ(run.heard[0].stack_lines, 0U);
    EXPECT_EQ(run.heard[1].stack_lines, 2U);
}

TEST(Lines, AreAllAccountedForWhateverTheyAre) {
    // Random lines made of the beginnings and ends of all formats: nothing may be lost, counted twice or
    // crash.
    const std::vector<std::string> parts{
        "Traceback (most recent call last):",
        "  File \"a\", line 1",
        "ValueError: x",
        "",
        "   ",
        "{\"level\":\"error\",\"msg\":\"x\"}",
        "{\"log\":\"x\",\"stream\":\"stdout\",\"time\":\"t\"}",
        "{\"log\":\"panic: x\\n\",\"stream\":\"stderr\"}",
        "{broken",
        "level=error msg=x",
        "panic: x",
        "goroutine 1 [running]:",
        "\tat x",
        "Caused by: y",
        "<11>1 - - - - - - x",
        "<999>",
        "<1>",
        "2026-09-21T14:13:20Z stdout P abc",
        "2026-09-21T14:13:20Z stdout F def",
        "[Mon Sep 21 14:13:20 2026] [error] x",
        "2026/09/21 14:13:20 [error] 1#1: x",
        "==1==ERROR: AddressSanitizer: x",
        "=====================",
        "==1==ABORTING",
        "/a/b.js:1",
        "Node.js v18",
        "ERROR heald x",
        "\xFF\xFE\x00z",
        std::string{"\0\0", 2},
        "\x1B[",
        "\x1B[31",
        "thread 'x' panicked at y:",
        "{\"logger\":\"heald\",\"level\":\"error\",\"msg\":\"x\"}",
        "#012",
        "<11>Sep 21 14:13:20 h a: x#012#012",
        "a=",
        "level=",
        "level=\"",
        "1.2.3.4 - - [x] \"y\" 500 "};
    std::mt19937 random{7};
    for (int round = 0; round < 300; ++round) {
        std::string text;
        std::uint64_t count = 0;
        for (int i = 0; i < 60; ++i, ++count) {
            text += parts[random() % parts.size()];
            if (random() % 4 == 0) text += parts[random() % parts.size()];
            text += '\n';
        }
        DecodeDefaults defaults;
        const char* formats[] = {"auto", "json", "logfmt", "nginx", "apache", "syslog", "plain"};
        defaults.format = formats[round % 7];
        const auto run = read(text, defaults);
        EXPECT_EQ(run.batch.lines, count);
    }
}

}  // namespace
}  // namespace heal
