#include "ingest/decoder.hpp"
#include "ingest/gzip.hpp"
#include "ingest/text.hpp"

#include <gtest/gtest.h>
#include <zlib.h>

#include <string>
#include <vector>

namespace heal {
namespace {

DecodeDefaults http_defaults() {
    DecodeDefaults d;
    d.source = "http";
    d.unnamed_service = "unknown";
    return d;
}

struct Decoded {
    Batch batch;
    DecodeReport report;
    std::string error;
    const LogRecord& first() const { return batch.deltas.at(0).samples.at(0); }
};

Decoded decode(
    std::string_view body,
    std::string_view type = "application/json",
    const DecodeDefaults& defaults = http_defaults()
) {
    const ManualClock clock;
    BatchBuilder builder{clock};
    LogDecoder decoder;
    Decoded ret;
    auto report = decoder.decode_logs(body, type, defaults, builder);
    if (report) {
        ret.report = std::move(report).value();
    } else {
        ret.error = report.error().text;
    }
    ret.batch = builder.take();
    EXPECT_TRUE(ret.batch.balanced()) << body.substr(0, 200);
    return ret;
}

TEST(DecodeLogs, ReadsTheRecordOfTheContract) {
    const auto d = decode(
        R"j({"service_name":"shop","log_level":"error","message":"payment failed","error_type":"TimeoutError",
        "stack_trace":"Error: x\n    at pay (/srv/pay.js:3:1)","context":{"order":7},"timestamp":"2026-09-21T14:13:20.5Z","http_status":502,
        "component":"pay","request_id":"r1","workspace_id":"w1","trace_id":"t1","environment":"prod","release":"1.2","extra":[1]})j"
    );
    ASSERT_EQ(d.error, "");
    ASSERT_EQ(d.batch.deltas.size(), 1U);
    const auto& r = d.first();
    EXPECT_EQ(r.service_name, "shop");
    EXPECT_EQ(r.level, Level::error);
    EXPECT_EQ(r.message, "payment failed");
    EXPECT_EQ(r.error_type, "TimeoutError");
    EXPECT_NE(r.stack_trace.find("pay.js"), std::string::npos);
    EXPECT_EQ(r.context, R"j({"order":7,"extra":[1]})j");
    EXPECT_EQ(to_rfc3339(r.time), "2026-09-21T14:13:20.500000Z");
    EXPECT_EQ(r.http_status, 502);
    EXPECT_EQ(r.component, "pay");
    EXPECT_EQ(r.request_id, "r1");
    EXPECT_EQ(r.workspace_id, "w1");
    EXPECT_EQ(r.trace_id, "t1");
    EXPECT_EQ(r.environment, "prod");
    EXPECT_EQ(r.release, "1.2");
    EXPECT_EQ(r.source, "http");
    EXPECT_EQ(d.batch.deltas[0].fingerprint.size(), 16U);
    EXPECT_EQ(r.fingerprint, d.batch.deltas[0].fingerprint);
}

struct Shape {
    const char* logger;
    const char* line;
    Level level;
    const char* service;
    const char* message;
    const char* error_type;
};

TEST(DecodeLogs, UnderstandsTheShapesOfTheUsualLoggers) {
    const Shape rows[] = {
        {"pino",
         R"j({"level":50,"time":1790000000000,"pid":7,"hostname":"h","name":"shop","err":{"type":"TypeError","message":"x is null","stack":"TypeError: x is null\n    at f (a.js:1:2)"},"msg":"x is null"})j",
         Level::error,
         "shop",
         "x is null",
         "TypeError"},
        {"bunyan",
         R"j({"name":"shop","hostname":"h","pid":7,"level":60,"msg":"boom","time":"2026-09-21T14:13:20.000Z","v":0})j",
         Level::fatal,
         "shop",
         "boom",
         ""},
        {"winston",
         R"j({"level":"error","message":"no answer","service":"shop","timestamp":"2026-09-21T14:13:20Z"})j",
         Level::error,
         "shop",
         "no answer",
         ""},
        {"winston error",
         R"j({"level":"error","message":"bad","stack":"RangeError: bad\n    at f (a.js:1:2)"})j",
         Level::error,
         "unknown",
         "bad",
         "RangeError"},
        {"zap",
         R"j({"level":"error","ts":1790000000.25,"logger":"db","caller":"a.go:1","msg":"query failed","error":"connection refused","stacktrace":"main.f\n\t/a.go:1"})j",
         Level::error,
         "unknown",
         "query failed: connection refused",
         ""},
        {"logrus",
         R"j({"error":"EOF","level":"warning","msg":"read","time":"2026-09-21T14:13:20Z"})j",
         Level::warn,
         "unknown",
         "read: EOF",
         ""},
        {"logback",
         R"j({"@timestamp":"2026-09-21T14:13:20.000+00:00","@version":"1","message":"fail","logger_name":"a.B","thread_name":"main","level":"ERROR","level_value":40000,"stack_trace":"java.lang.IllegalStateException: x\n\tat a.B.c(B.java:1)"})j",
         Level::error,
         "unknown",
         "fail",
         "java.lang.IllegalStateException"},
        {"ecs",
         R"j({"@timestamp":"2026-09-21T14:13:20Z","log.level":"error","message":"fail","service.name":"shop","error.type":"IOError","error.stack_trace":"IOError\n at x"})j",
         Level::error,
         "shop",
         "fail",
         "IOError"},
        {"ecs nested",
         R"j({"log":{"level":"error","logger":"x"},"message":"fail","service":{"name":"shop","version":"3"},"error":{"type":"IOError","message":"disk"}})j",
         Level::error,
         "shop",
         "fail: disk",
         "IOError"},
        {"serilog",
         R"j({"@t":"2026-09-21T14:13:20Z","@mt":"User {Id} failed","@l":"Error","@x":"System.InvalidOperationException: no\n   at A.B()"})j",
         Level::error,
         "unknown",
         "User {Id} failed",
         "System.InvalidOperationException"},
        {"structlog",
         R"j({"event":"job failed","level":"error","timestamp":"2026-09-21T14:13:20Z","exception":"Traceback (most recent call last):\n  File \"a.py\", line 1, in f\nValueError: bad"})j",
         Level::error,
         "unknown",
         "job failed",
         "ValueError"},
        {"otel",
         R"j({"severityNumber":17,"body":"fail","serviceName":"shop"})j",
         Level::error,
         "shop",
         "fail",
         ""},
        {"gelf",
         R"j({"version":"1.1","host":"h","short_message":"fail","level":3})j",
         Level::error,
         "unknown",
         "fail",
         ""},
        {"no level, a stack",
         R"j({"service":"shop","message":"fail","stack":"Error: fail\n    at x (a.js:1:1)"})j",
         Level::error,
         "shop",
         "fail",
         "Error"},
        {"no level, a status",
         R"j({"service":"shop","message":"GET /","status":503})j",
         Level::error,
         "shop",
         "GET /",
         ""},
    };
    for (const auto& row : rows) {
        SCOPED_TRACE(row.logger);
        const auto d = decode(row.line);
        ASSERT_EQ(d.error, "");
        ASSERT_EQ(d.batch.deltas.size(), 1U);
        EXPECT_EQ(d.first().level, row.level);
        EXPECT_EQ(d.first().service_name, row.service);
        EXPECT_EQ(d.first().message, row.message);
        EXPECT_EQ(d.first().error_type, row.error_type);
    }
}

TEST(DecodeLogs, TakesArraysNdjsonAndWrappersAlike) {
    const char* one = R"j({"level":"error","message":"a"})j";
    const std::string bodies[] = {
        std::string{"["} + one + "," + one + "]",
        std::string{one} + "\n" + one + "\n",
        std::string{one} + "\r\n\r\n" + one,
        std::string{"{\"logs\":["} + one + "," + one + "]}",
        std::string{"\xEF\xBB\xBF["} + one + "," + one + "]",
        "[\n  {\n    \"level\": \"error\",\n    \"message\": \"a\"\n  },\n " + std::string{one} + "\n]"};
    for (const auto& body : bodies) {
        const auto d = decode(body);
        EXPECT_EQ(d.error, "") << body;
        EXPECT_EQ(d.batch.records, 2U) << body;
        EXPECT_EQ(d.batch.deltas.size(), 1U) << body;
        EXPECT_EQ(d.batch.deltas[0].count, 2U) << body;
    }
    EXPECT_EQ(decode("{\n \"level\": \"error\",\n \"message\": \"a\"\n}").batch.records, 1U);
    EXPECT_EQ(decode("2026-09-21 14:13:20 ERROR it broke\n  detail\nfine\n", "text/plain").batch.lines, 3U);
}

TEST(DecodeLogs, ReportsAMalformedLineAndTakesTheRest) {
    const auto d = decode(
        "{\"level\":\"error\",\"message\":\"a\"}\n{\"level\":\"error\",\n\n{\"level\":\"error\"}\n{\"level\":"
        "\"error\",\"message\":\"b\"}\n",
        "application/x-ndjson"
    );
    EXPECT_EQ(d.batch.records, 2U);
    ASSERT_EQ(d.report.malformed, 2U);
    EXPECT_EQ(d.report.errors[0].line, 2U);
    EXPECT_EQ(d.report.errors[1].line, 4U);
    EXPECT_NE(d.report.errors[1].text.find("no message"), std::string::npos);
    const auto a = decode(R"j([{"level":"error","message":"a"}, 7, {"level":"error","message":"b"}])j");
    EXPECT_EQ(a.batch.records, 2U);
    ASSERT_EQ(a.report.errors.size(), 1U);
    EXPECT_EQ(a.report.errors[0].line, 2U);
}

TEST(DecodeLogs, RefusesWhatIsNoJsonAtAllAndLeavesTheBuilderAlone) {
    for (const char* body : {"", "  \n ", "hello", "[1,", "[{\"message\":\"a\"", "7"}) {
        const auto d = decode(body);
        EXPECT_NE(d.error, "") << body;
        EXPECT_EQ(d.batch.lines, 0U) << body;
    }
}

TEST(DecodeLogs, SurvivesHostileJson) {
    const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
    EXPECT_NE(decode(deep).error, "");
    EXPECT_NE(decode("{\"a\":" + deep + "}").error, "");
    const auto in_line = decode("{\"message\":\"a\",\"level\":\"error\"}\n{\"a\":" + deep + "}\n");
    EXPECT_EQ(in_line.report.malformed, 1U);
    EXPECT_NE(in_line.report.errors[0].text.find("deeper than 64"), std::string::npos);
    std::string wide = "{\"level\":\"error\",\"message\":\"wide\"";
    for (int i = 0; i < 100'000; ++i) wide += ",\"k" + std::to_string(i) + "\":" + std::to_string(i);
    const auto w = decode(wide + "}");
    EXPECT_EQ(w.batch.records, 1U);
    EXPECT_LE(w.first().context.size(), 8192U);
    for (const char* body :
         {R"j({"message":"x","level":"error","n":1e999})j",
          R"j({"message":"x","n":NaN})j",
          R"j({"message":"\ud800"})j"}) {
        EXPECT_EQ(decode(body).batch.records, 0U) << body;
    }
    const auto nul = decode(R"j({"message":"a\u0000b","level":"error"})j");
    EXPECT_EQ(
        nul.first().message,
        "a\xEF\xBF\xBD"
        "b"
    );
    const auto broken = decode("{\"message\":\"a\xFF\",\"level\":\"error\"}");
    EXPECT_EQ(broken.first().message, "a\xEF\xBF\xBD");
    const auto twice = decode(R"j({"message":"a","message":"b","level":"info","level":"error"})j");
    EXPECT_EQ(twice.first().message, "b");
    const auto large = decode("{\"level\":\"error\",\"message\":\"" + std::string(1 << 20, 'x') + "\"}");
    EXPECT_EQ(large.first().message.size(), BatchBuilder::max_message_bytes);
    EXPECT_EQ(large.batch.truncated, 1U);
}

TEST(DecodeLogs, DropsAndCountsHealdsOwnLinesAndThoseBelowTheLevel) {
    const auto d = decode(
        R"j([{"level":"error","message":"a","logger":"heald"},{"level":"error","message":"a","service":"heald"},
                              {"level":"info","message":"a"},{"level":"error","message":"a"}])j"
    );
    EXPECT_EQ(d.report.self, 2U);
    EXPECT_EQ(d.report.below_level, 1U);
    EXPECT_EQ(d.report.records, 1U);
}

TEST(DecodeLogs, ReadsTimesOfAllUnitsAndDistrustsTheAbsurd) {
    const ManualClock clock;  // 1'790'000'000 s
    const std::pair<const char*, std::int64_t> rows[] = {
        {"1789999990", 1'789'999'990'000'000},
        {"1789999990.5", 1'789'999'990'500'000},
        {"1789999990123", 1'789'999'990'123'000},
        {"1789999990123456", 1'789'999'990'123'456},
        {"1789999990123456789", 1'789'999'990'123'456},
        {"\"2026-09-21T14:13:10Z\"", 1'789'999'990'000'000},
        {"\"1789999990\"", 1'789'999'990'000'000},
        {"0", 1'790'000'000'000'000},
        {"\"1970-01-01T00:00:00Z\"", 1'790'000'000'000'000},
        {"\"9999-01-01T00:00:00Z\"", 1'790'000'000'000'000},
        {"\"yesterday\"", 1'790'000'000'000'000},
        {"true", 1'790'000'000'000'000},
    };
    for (const auto& [text, us] : rows) {
        const auto d = decode(std::string{R"j({"level":"error","message":"a","time":)j"} + text + "}");
        ASSERT_EQ(d.batch.deltas.size(), 1U) << text;
        EXPECT_NEAR(static_cast<double>(d.first().time.us - us), 0, 1) << text;
        EXPECT_EQ(d.first().received, clock.wall());
    }
}

TEST(BatchBuilder, FoldsEqualErrorsAndKeepsFewSamples) {
    const ManualClock clock;
    BatchBuilder builder{clock};
    DecodeDefaults defaults;
    defaults.service = "shop";
    RecordView record;
    record.level = Level::error;
    const auto add = [&](std::string_view message) {
        record.message = message;
        builder.count_lines(1, message.size());
        builder.add(record, defaults);
    };
    for (int i = 0; i < 1000; ++i) add("order " + std::to_string(i) + " failed");
    add("another thing");
    auto batch = builder.take();
    ASSERT_EQ(batch.deltas.size(), 2U);
    EXPECT_EQ(batch.deltas[0].count, 1000U);
    ASSERT_EQ(batch.deltas[0].samples.size(), 4U);
    EXPECT_EQ(batch.deltas[0].samples.front().message, "order 0 failed");
    EXPECT_EQ(batch.deltas[0].samples.back().message, "order 999 failed");
    EXPECT_TRUE(batch.balanced());
    EXPECT_FALSE(builder.has_lines());
    for (int i = 0; i < 10; ++i) add("order 5 failed");
    auto next = builder.take();
    ASSERT_EQ(next.deltas.size(), 1U);
    EXPECT_EQ(next.deltas[0].fingerprint, batch.deltas[0].fingerprint);
    EXPECT_EQ(next.deltas[0].samples.size(), 2U);
}

TEST(BatchBuilder, StaysBoundedUnderManyDifferentErrors) {
    const ManualClock clock;
    BatchBuilder builder{clock};
    DecodeDefaults defaults;
    RecordView record;
    record.level = Level::error;
    std::uint64_t records = 0;
    std::string word(3, 'a');
    const std::string padding(2000, 'x');
    for (int i = 0; i < 40'000; ++i) {
        // Letters only, so that each is a pattern of its own.
        std::string name;
        for (int n = i; n > 0; n /= 26) name += static_cast<char>('a' + n % 26);
        const std::string message = "failure in " + name + "q " + padding;
        record.message = message;
        builder.count_lines(1, 1);
        builder.add(record, defaults);
        if (builder.full()) {
            const auto batch = builder.take();
            EXPECT_EQ(batch.deltas.size(), BatchBuilder::max_deltas);
            EXPECT_TRUE(batch.balanced());
            records += batch.records;
        }
    }
    records += builder.take().records;
    EXPECT_EQ(records, 40'000U);
}

TEST(DecodeLogs, FoldsTheKindsBeyondTheBoundIntoOne) {
    std::string body;
    for (int i = 0; i < 20'000; ++i) {
        std::string name;
        for (int n = i; n > 0; n /= 26) name += static_cast<char>('a' + n % 26);
        body += R"j({"service":"shop","level":"error","message":"failure in )j" + name + "q\"}\n";
    }
    const auto d = decode(body);
    EXPECT_EQ(d.batch.records, 20'000U);
    EXPECT_LE(d.batch.deltas.size(), BatchBuilder::max_deltas + 65);
    EXPECT_GT(d.batch.folded, 10'000U);
    EXPECT_EQ(d.batch.deltas.back().count, d.batch.folded);
    EXPECT_EQ(d.batch.deltas.back().samples.front().message, BatchBuilder::other_errors);
}

TEST(BatchBuilder, SeparatesEnvironmentsAndRaisesTheLevel) {
    const ManualClock clock;
    BatchBuilder builder{clock};
    const DecodeDefaults defaults;
    RecordView record;
    record.message = "x";
    for (const auto& [level, environment] :
         {std::pair{Level::warn, "a"}, {Level::fatal, "a"}, {Level::error, "a"}, {Level::warn, "b"}}) {
        record.level = level;
        record.environment = environment;
        builder.count_lines(1, 1);
        builder.add(record, defaults);
    }
    const auto batch = builder.take();
    ASSERT_EQ(batch.deltas.size(), 2U);
    EXPECT_EQ(batch.deltas[0].level, Level::fatal);
    EXPECT_EQ(batch.deltas[0].count, 3U);
    EXPECT_EQ(batch.deltas[1].environment, "b");
}

std::string gzip(std::string_view text) {
    z_stream z{};
    ::deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    std::string ret(::deflateBound(&z, text.size()) + 64, '\0');
    z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
    z.avail_in = static_cast<uInt>(text.size());
    z.next_out = reinterpret_cast<Bytef*>(ret.data());
    z.avail_out = static_cast<uInt>(ret.size());
    ::deflate(&z, Z_FINISH);
    ret.resize(z.total_out);
    ::deflateEnd(&z);
    return ret;
}

TEST(Inflate, RoundTripsAndTakesSeveralMembers) {
    const std::string text(100'000, 'x');
    EXPECT_EQ(inflate_body(gzip(text), 1 << 20).value(), text);
    EXPECT_EQ(inflate_body(gzip("a") + gzip("b"), 100).value(), "ab");
    EXPECT_EQ(inflate_body(gzip(""), 100).value(), "");
}

TEST(Inflate, StopsABombAtTheBoundAndRefusesDamage) {
    const auto bomb = gzip(std::string(50 << 20, '\0'));
    EXPECT_EQ(inflate_body(bomb, 1 << 20).error().code, errc::overloaded);
    EXPECT_EQ(inflate_body(gzip("hello").substr(0, 15), 100).error().code, errc::invalid_input);
    EXPECT_EQ(inflate_body("", 100).error().code, errc::invalid_input);
    EXPECT_EQ(inflate_body("plain text", 100).error().code, errc::invalid_input);
    auto damaged = gzip("hello hello hello");
    damaged[12] = static_cast<char>(damaged[12] ^ 0x55);
    EXPECT_FALSE(inflate_body(damaged, 100));
}

TEST(Text, FindsTheTypeOfAnError) {
    const std::pair<const char*, const char*> rows[] = {
        {"ValueError: bad", "ValueError"},
        {"java.lang.NullPointerException", "java.lang.NullPointerException"},
        {"Exception in thread \"main\" java.lang.IllegalStateException: x",
         "java.lang.IllegalStateException"},
        {"panic: runtime error: index out of range", "panic"},
        {"thread 'main' panicked at 'x', src/main.rs:1", "panic"},
        {"worker died with SIGSEGV", "SIGSEGV"},
        {"Segmentation fault (core dumped)", "SIGSEGV"},
        {"==7==ERROR: AddressSanitizer: heap-use-after-free on address", "heap-use-after-free"},
        {"terminate called after throwing an instance of 'std::runtime_error'", "std::runtime_error"},
        {"redis.exceptions.ConnectionError: refused", "redis.exceptions.ConnectionError"},
        {"boost::system::system_error: x", ""},
        {"Error: plain", "Error"},
        {"an Error happened", ""},
        {"received SIGTERM, shutting down", ""},
        {"all fine", ""},
        {"", ""},
    };
    for (const auto& [text, type] : rows) EXPECT_EQ(error_type_in_text(text), type) << text;
}

TEST(Text, FindsHttpStatusesOnlyWhereTheyArePlain) {
    const std::pair<const char*, int> rows[] = {
        {"GET /x status=502", 502},
        {"status: 503 from upstream", 503},
        {"\"GET / HTTP/1.1\" 500 12", 500},
        {"HTTP 404", 404},
        {"status_code=418", 418},
        {"status=5021", 0},
        {"took 502 ms", 0},
        {"status=200", 0},
        {"status", 0},
        {"statuses 500", 0},
        {"", 0}};
    for (const auto& [text, status] : rows) EXPECT_EQ(http_status_in_text(text), status) << text;
}

TEST(Text, ReadsTimesAsHeadersWriteThem) {
    const Time received{1'790'000'000'000'000};  // 2026-09-21T14:13:20Z
    const std::pair<const char*, const char*> rows[] = {
        {"2026-09-21T14:13:20.25Z", "2026-09-21T14:13:20.250000Z"},
        {"2026-09-21 14:13:20,250+02:00", "2026-09-21T12:13:20.250000Z"},
        {"21/Sep/2026:14:13:20 +0200", "2026-09-21T12:13:20.000000Z"},
        {"1789999990.5", "2026-09-21T14:13:10.500000Z"},
    };
    for (const auto& [text, expected] : rows) {
        Time t;
        ASSERT_TRUE(parse_log_time(text, received, t)) << text;
        EXPECT_EQ(to_rfc3339(t), expected) << text;
    }
    ::setenv("TZ", "UTC", 1);
    ::tzset();
    const std::pair<const char*, const char*> local[] = {
        {"2026/09/21 14:13:20", "2026-09-21T14:13:20.000000Z"},
        {"Sep 21 14:13:20", "2026-09-21T14:13:20.000000Z"},
        {"Dec 31 23:59:59", "2025-12-31T23:59:59.000000Z"},  // last year's: it would lie in the future
        {"Mon Sep 21 14:13:20.123456 2026", "2026-09-21T14:13:20.123456Z"},
        {"[Mon Sep  1 14:13:20 2026]", "2026-09-01T14:13:20.000000Z"},
    };
    for (const auto& [text, expected] : local) {
        Time t;
        ASSERT_TRUE(parse_log_time(text, received, t)) << text;
        EXPECT_EQ(to_rfc3339(t), expected) << text;
    }
    for (const char* bad :
         {"",
          "hello",
          "2026-13-01 00:00:00",
          "2026-09-21",
          "Foo 21 10:00:00",
          "25:00:00",
          "2026-09-21 99:00:00"}) {
        Time t{7};
        EXPECT_FALSE(parse_log_time(bad, received, t)) << bad;
        EXPECT_EQ(t.us, 7) << bad;
    }
}

}  // namespace
}  // namespace heal
