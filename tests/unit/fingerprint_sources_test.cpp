// One line has one id, whichever way it is heard; and `fingerprint id` says the same however its input is cut
// and however many threads work on it.
#include "cli/fingerprint_id.hpp"
#include "fingerprint/bitmaps.hpp"
#include "fingerprint/fingerprint.hpp"
#include "fingerprint/reader.hpp"
#include "ingest/decoder.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace heal {
namespace {

constexpr std::string_view lines[] = {
    "disk 7 is full",
    "2026-09-21 14:13:20,123 ERROR [main] it broke 5 times",
    "2026-09-21 14:13:20,123 ERROR [main] com.acme.Worker: order 17 failed",
    "2026-09-21T14:13:20.123Z host-03 shop[123]: ERROR it broke",
    "Sep 21 14:13:20 web1 sshd[77]: Failed password for bob from 1.2.3.4 port 22 ssh2",
    "ERROR java.io.IOException: disk full",
    "2026-09-21 14:13:20 ERROR java.io.IOException: disk /dev/sda1 full",
    "\x1B[31mERROR\x1B[0m red words 5\r",
    "\xEF\xBB\xBF"
    "2026-09-21 14:13:20 ERROR behind a byte order mark",
    "2026-09-21 14:13:20 ERROR bad bytes \xff\xfe here",
    R"(2026/09/21 14:13:20 [error] 7#7: *12 connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1, server: a, request: "GET / HTTP/1.1", upstream: "http://127.0.0.1:9/", host: "a")",
    R"(2026/09/21 14:13:20 [emerg] 7#7: unknown directive "bogus" in /etc/nginx/nginx.conf:3)",
    R"(2026/09/21 14:13:20 [crit] 7#7: *9 SSL_do_handshake() failed (SSL: error:1417D18C:SSL routines) while SSL handshaking, client: 1.2.3.4, server: 0.0.0.0:443)",
    "[Mon Sep 21 14:13:20.123456 2026] [proxy:error] [pid 7:tid 8] [client 1.2.3.4:5] AH00957: attempt "
    "failed",
    "[Mon Sep 21 14:13:20 2026] [error] [client 1.2.3.4] File does not exist: /var/www/html/x",
    "[Mon Sep 21 14:13:20 2026] [notice] child pid 12 exit signal Segmentation fault (11)",
    R"(1.2.3.4 - - [21/Sep/2026:14:13:20 +0000] "GET /a/b?id=7 HTTP/1.1" 502 157 "-" "curl/8")",
    R"(1.2.3.4 - bob [21/Sep/2026:14:13:20 +0000] "POST /a HTTP/1.1" 200 157)",
    R"(::1 - - [21/Sep/2026:14:13:20 +0000] "GET /a HTTP/1.1" 404 157 "-" "curl/8")",
    "<11>1 2026-09-21T14:13:20Z web1 shop 77 ID [meta x=\"a]b\"] \xEF\xBB\xBFpayment 5 failed",
    "<11>1 - - - - - - payment 5 failed",
    R"(<14>1 2026-09-21T14:13:20Z web1 shop 77 - - @cee: {"level":"error","msg":"in json 5"})",
    "<11>Sep 21 14:13:20 web1 shop[77]: payment 5 failed",
    "<134>Sep 21 14:13:20 web1 haproxy[77]: backend app has no server available!",
    R"({"level":50,"time":1790000000000,"pid":1,"hostname":"h","name":"shop","msg":"boom 5"})",
    R"({"name":"shop","hostname":"h","pid":7,"level":50,"msg":"boom 5","time":"2026-09-21T14:13:20.1Z","v":0})",
    R"({"level":"error","message":"order 5 \"lost\" \u00e9","timestamp":"2026-09-21T14:13:20.1Z"})",
    R"({"level":"error","ts":1790000000.1,"caller":"x.go:1","msg":"cannot save","error":"no route to 1.2.3.4"})",
    R"({"level":"error","msg":"cannot save","error":"cannot save"})",
    R"({"@timestamp":"2026-09-21T14:13:20Z","log.level":"ERROR","message":"m 5","error":{"type":"E","message":"inner 6"}})",
    R"({"@t":"2026-09-21T14:13:20Z","@mt":"Order {Id} failed","@l":"Error","Id":5})",
    R"({"Timestamp":"2026-09-21T14:13:20Z","Level":"Error","MessageTemplate":"Order {Id} failed"})",
    R"({"event":"order failed","level":"error","id":5})",
    R"({"level":"error","event":"click","message":"order 5 failed"})",
    R"({"severityText":"ERROR","body":"order 5 failed"})",
    R"({"level":"error","a":{"msg":"no"},"list":["msg","x"],"msg":"yes 5"})",
    R"({"log":"2026-09-21 14:13:20 ERROR it broke 5\n","stream":"stderr","time":"2026-09-21T14:13:20.1Z"})",
    R"({"log":"{\"level\":\"error\",\"msg\":\"inner 5\"}\n","stream":"stdout","time":"2026-09-21T14:13:20.1Z"})",
    "2026-09-21T14:13:20.123456789Z stderr F level=error msg=\"in logfmt 5\" err=\"no route\"",
    "2026-09-21T14:13:20.123456789Z stdout F it broke 5",
    R"(ts=2026-09-21T14:13:20Z level=error caller=x.go:1 msg="say \"hi\" 5" service=shop)",
    R"(level=error error="no route to 5")",
    R"(time="2026-09-21T14:13:20Z" level=error msg=unreachable shard=7)",
    "{not json but ERROR: broken 5",
};

TEST(Sources, ALineHasOneIdWhicheverWayItIsHeard) {
    const ManualClock clock;
    for (const auto line : lines) {
        BatchBuilder builder{clock};
        DecodeDefaults defaults;
        defaults.service = "shop";
        defaults.min_level = Level::trace;
        LineDecoder decoder{defaults, JoinOptions{}};
        decoder.line(line, line.size() + 1, false, Duration{0}, builder);
        decoder.flush(builder);
        const Batch batch = builder.take();
        ASSERT_EQ(batch.deltas.size(), 1U) << line;
        const Delta& delta = batch.deltas[0];
        fingerprint::Scanner scanner{delta.service_name, 1, 2};
        char hex[16];
        fingerprint::id_hex(scanner.id_of_line(line), hex);
        fingerprint::LineReader reader;
        EXPECT_EQ(delta.fingerprint, (std::string{hex, 16}))
            << line << "\n heard as: " << delta.pattern << "\n alone: " << reader.read(line).message;
        EXPECT_EQ(delta.fingerprint, fingerprint::explain(delta.service_name, line, {}).fingerprint.id)
            << line;
    }
}

std::string told(const Batch& batch) {
    std::string ret = std::to_string(batch.lines) + " " + std::to_string(batch.bytes) + " " +
                      std::to_string(batch.records) + " " + std::to_string(batch.below_level) + " " +
                      std::to_string(batch.joined) + " " + std::to_string(batch.malformed) + " " +
                      std::to_string(batch.truncated) + "\n";
    for (const auto& d : batch.deltas) {
        ret += d.digest + " " + d.pattern + " " + d.signature + " " + d.service_name + " " +
               to_string(d.level) + " " + std::to_string(d.count) + " " + std::to_string(d.first.us) + " " +
               std::to_string(d.last.us) + "\n";
        for (const auto& s : d.samples) {
            ret += "  " + std::to_string(s.time.us) + "|" + s.host + "|" + s.component + "|" + s.message +
                   "|" + s.error_type + "|" + s.stack_trace + "|" + s.context + "|" +
                   std::to_string(s.http_status) + "|" + to_string(s.level) + "|" + s.release + s.request_id +
                   s.service_name + "\n";
        }
    }
    return ret;
}

// Hearing leaves out what it knows of a line's shape; what is heard must be the same, joined traces, samples
// and counts and all.
TEST(Sources, KnownShapesNeverChangeWhatIsHeard) {
    const std::string_view more[] = {
        "    at com.acme.Order.save(Order.java:12)",
        "Caused by: java.io.IOException: disk 5 full",
        "Traceback (most recent call last):",
        "  File \"a.py\", line 5, in f",
        "ValueError: bad 5",
        "",
        "panic: boom 5",
        "goroutine 5 [running]:",
        "2026-09-21 14:13:20,123 ERROR [main] java.lang.IllegalStateException: order 17 is lost",
        "2026-09-21 14:13:20,123 INFO [main] com.acme.Worker: order 17 came",
        "2026-09-21 14:13:20,123 WARN [main] com.acme.Worker: status=502 from 10.0.0.4",
        "2026-09-21 14:13:20,123 WARN [main] com.acme.Worker: sha256 of order 17",
        "Sep 21 14:13:20 web1 app5[77]: ERROR it broke 5 times",
        "Sep 21 14:13:20 web1 app5[77]: started 5 times",
        "[2026-09-21 14:13:20] [error] [main] it broke 5",
        "1790000000 WARN it broke 5",
        "2026-09-21T14:13:20.123Z WARN na\xc3\xafve 5",
    };
    std::mt19937 random{23};
    for (int round = 0; round < 60; ++round) {
        const ManualClock clock;
        BatchBuilder fast{clock}, slow{clock};
        DecodeDefaults defaults;
        if (round % 2 == 0) defaults.service = "shop";
        defaults.min_level = round % 3 == 0 ? Level::trace : Level::warn;
        JoinOptions join;
        join.enabled = round % 5 != 4;
        auto a = std::make_unique<LineDecoder>(defaults, join);
        LineDecoder b{defaults, join};
        b.remember_shapes(false);
        std::string heard, expected;
        for (int i = 0; i < 1500; ++i) {
            const std::size_t n = random() % (std::size(lines) + 3 * std::size(more));
            std::string line{
                n < std::size(lines) ? lines[n] : more[(n - std::size(lines)) % std::size(more)]};
            for (int k = static_cast<int>(random() % 5); k > 0 && !line.empty(); --k) {
                char& c = line[random() % line.size()];
                if (c >= '0' && c <= '9') c = static_cast<char>('0' + random() % 10);
            }
            a->line(line, line.size() + 1, false, Duration{i}, fast);
            b.line(line, line.size() + 1, false, Duration{i}, slow);
            if (random() % 50 == 0) a->pause(Duration{i}, fast), b.pause(Duration{i}, slow);
            ASSERT_EQ(a->held_bytes(), b.held_bytes());
            ASSERT_EQ(a->deadline(), b.deadline());
            if (random() % 200 == 0) {
                heard += told(fast.take());
                expected += told(slow.take());
                ASSERT_EQ(heard, expected);
            }
        }
        a->flush(fast);
        b.flush(slow);
        // A builder may outlive the decoder whose lines it holds.
        a.reset();
        ASSERT_EQ(told(fast.take()), told(slow.take()));
    }
}

TEST(Sources, AnIdIsTheSameWithEverySetOfInstructions) {
    for (const auto line : lines) {
        for (int s = 0; s <= static_cast<int>(fingerprint::best_simd()); ++s) {
            fingerprint::use_simd(static_cast<fingerprint::Simd>(s));
            fingerprint::Scanner scanner;
            const std::uint64_t id = scanner.id_of_line(line);
            fingerprint::use_simd(fingerprint::best_simd());
            EXPECT_EQ(id, fingerprint::Scanner{}.id_of_line(line)) << line << s;
        }
    }
}

std::string ids_of(const std::string& input, unsigned threads, std::uint32_t seed) {
    int in[2];
    if (::pipe2(in, O_CLOEXEC) != 0) return "no pipe";
    const int out = ::memfd_create("ids", MFD_CLOEXEC);
    std::thread writer{[&] {
        std::mt19937 random{seed};
        for (std::size_t p = 0; p < input.size();) {
            const std::size_t most = seed == 0 ? input.size() : random() % 4 == 0 ? 100'000 : 300;
            const std::size_t n = std::min(input.size() - p, 1 + random() % most);
            const ssize_t written = ::write(in[1], input.data() + p, n);
            if (written < 0) break;
            p += static_cast<std::size_t>(written);
        }
        ::close(in[1]);
    }};
    cli::FingerprintIdOptions options;
    options.threads = threads;
    const auto done = cli::fingerprint_id(in[0], out, options);
    writer.join();
    ::close(in[0]);
    std::string text;
    char buffer[1 << 16];
    ::lseek(out, 0, SEEK_SET);
    for (ssize_t n = 0; (n = ::read(out, buffer, sizeof buffer)) > 0;)
        text.append(buffer, static_cast<std::size_t>(n));
    ::close(out);
    EXPECT_TRUE(done);
    if (done) {
        EXPECT_EQ(*done, static_cast<std::uint64_t>(std::count(text.begin(), text.end(), '\n')));
    }
    return text;
}

TEST(FingerprintId, IsTheSameHoweverTheInputIsCutAndForAnyNumberOfThreads) {
    std::mt19937 random{5};
    std::string input, expected;
    fingerprint::Scanner scanner;
    const auto expect = [&](std::string_view line) {
        char hex[17];
        fingerprint::id_hex(scanner.id_of_line(line), reinterpret_cast<char(&)[16]>(hex));
        hex[16] = '\n';
        expected.append(hex, 17);
    };
    for (int i = 0; i < 20000; ++i) {
        std::string line{lines[random() % std::size(lines)]};
        if (random() % 8 == 0) line.clear();
        if (random() % 5000 == 0) line.assign(3U << 20U, 'x');  // beyond the bound of a line
        if (random() % 500 == 0) line.append(random() % 300000, 'y');
        expect(std::string_view{line}.substr(0, 1 << 20));
        input += line;
        input += '\n';
    }
    input += "the last line has no end 5";
    expect("the last line has no end 5");
    for (const unsigned threads : {1U, 2U, 3U}) {
        for (const std::uint32_t seed : {0U, 1U, 2U}) EXPECT_EQ(ids_of(input, threads, seed), expected);
    }
    EXPECT_EQ(ids_of("", 2, 0), "");
    EXPECT_EQ(ids_of("\n", 2, 0).size(), 17U);
}

}  // namespace
}  // namespace heal
