// Headers and messages: what is cut, what is masked, what must stay apart, and that the fast path says the
// same as the slow one.
#include "fingerprint/fingerprint.hpp"

#include "fingerprint/scan.hpp"
#include "fingerprint/shape.hpp"

#include <gtest/gtest.h>
#include <time.h>

#include <random>
#include <set>

namespace heal::fingerprint {
namespace {

struct HeaderRow {
    std::string_view line, message, component;
    Level level = Level::unknown;
};

void check(const HeaderRow& row) {
    const Line line = cut_header(row.line);
    EXPECT_EQ(line.message, row.message) << row.line;
    if (!row.component.empty()) {
        EXPECT_EQ(line.component, row.component) << row.line;
    }
    if (row.level != Level::unknown) {
        EXPECT_EQ(line.level, row.level) << row.line;
    }
    EXPECT_LE(line.message.size(), row.line.size());
}

TEST(Header, IsCutInEveryLayout) {
    const HeaderRow rows[] = {
        {"Nov 21 11:02:03 web1 nginx[123]: disk is full", "disk is full", "nginx"},
        {"Nov  1 11:02:03 web1 dbus: disk is full", "disk is full", "dbus"},
        {"<34>1 2024-03-11T22:14:15.003Z host su 77 ID47 - disk is full", "disk is full", "su", Level::fatal},
        {"<11>Mar 11 22:14:15 host app[9]: disk is full", "disk is full", "app", Level::error},
        {"2024-03-11T22:14:15.123456+01:00 host systemd[1]: disk is full", "disk is full", "systemd"},
        {"2024-03-11 22:14:15,123 ERROR [pool-1-thread-2] com.acme.Worker: disk is full",
         "disk is full",
         "com.acme.Worker",
         Level::error},
        {"22:14:15.123 [http-nio-1] WARN  c.a.Worker - disk is full",
         "disk is full",
         "c.a.Worker",
         Level::warn},
        {"2024-03-11 22:14:15.123  INFO 4711 --- [main] c.a.app.Worker          : disk is full",
         "disk is full",
         "c.a.app.Worker",
         Level::info},
        {"24/03/11 22:14:15 INFO storage.Mgr: disk is full", "disk is full", "storage.Mgr", Level::info},
        {"2024-03-11 22:14:15,123 - app.worker - ERROR - disk is full",
         "disk is full",
         "app.worker",
         Level::error},
        {"ERROR:app.worker:disk is full", "disk is full", "app.worker", Level::error},
        {"[Sun Mar 11 22:14:15 2024] [error] disk is full", "disk is full", "", Level::error},
        {"[Sun Mar 11 22:14:15.123456 2024] [core:error] [pid 1:tid 2] [client 10.0.0.1:80] disk is full",
         "disk is full",
         "",
         Level::error},
        {"2024/03/11 22:14:15 [error] 12#3: *1 disk is full", "disk is full", "", Level::error},
        {"2024-03-11 22:14:15.123 UTC [99] LOG:  disk is full", "disk is full", "", Level::info},
        {"1:M 11 Mar 2024 22:14:15.123 * disk is full", "disk is full", ""},
        {"I0311 22:14:15.123456  1234 main.cc:12] disk is full", "disk is full", "main.cc:12", Level::info},
        {"03-11 22:14:15.123  1702  2395 D Tag: disk is full", "disk is full", "Tag", Level::debug},
        {"D/Tag( 1702): disk is full", "disk is full", "Tag", Level::debug},
        {"[   12.345678] disk is full", "disk is full", ""},
        {"20240311-22:14:15:123|Step_A|30002312|disk is full", "disk is full", "Step_A"},
        {"20240311-2:4:5:12|Step_A|30002312|disk is full", "disk is full", "Step_A"},
        {"- 1117838570 2005.06.03 R02-M1-N0-C:J12-U11 2005-06-03-15.42.50.675872 R02-M1-N0-C:J12-U11 RAS "
         "KERNEL INFO disk is full",
         "disk is full",
         "",
         Level::info},
        {"081109 203615 148 INFO dfs.Node$Responder: disk is full",
         "disk is full",
         "dfs.Node$Responder",
         Level::info},
        {"[2024-03-11 22:14:15,123: WARNING/MainProcess] disk is full", "disk is full", "", Level::warn},
        {"[22:14:15 INF] disk is full", "disk is full", "", Level::info},
        {"2024-03-11 22:14:15.123 CET [4121] user@db LOG:  disk is full", "disk is full", "", Level::info},
        {"22:14:15 web.1 | disk is full", "disk is full", "web.1"},
        {"4121:M 11 Mar 2024 22:14:15.123 # disk is full", "disk is full", ""},
        {"STA 52:54:00:12:34:56 is gone", "STA 52:54:00:12:34:56 is gone", ""},
        {"Mar 11, 2024 7:51:54,247 PM UTC com.acme.Worker run ERROR: disk is full",
         "disk is full",
         "com.acme.Worker",
         Level::error},
        {"2024-03-11 22:14:15,123 | WARN  | pool-1-thread-2 | com.acme.Worker | disk is full",
         "disk is full",
         "com.acme.Worker",
         Level::warn},
        {"2024-03-11 22:14:15,123 WARN  com.acme.Worker [Timer-0] disk is full",
         "disk is full",
         "com.acme.Worker",
         Level::warn},
        {"22:14:15,123 INFO  [com.acme.Worker] (main) disk is full", "disk is full", "com.acme.Worker"},
        {"[2024-03-11 22:14:15,123] {worker.py:839} INFO - disk is full", "disk is full", "", Level::info},
        {"2024-03-11 22:14:15,123 ERROR:app.worker:disk is full", "disk is full", "app.worker", Level::error},
        {"2024-03-11 22:14:15.123:WARN:oejs.Server:main: disk is full",
         "disk is full",
         "oejs.Server",
         Level::warn},
        {"2024-03-11T22:14:15.123456Z  WARN hyper::server: disk is full", "disk is full", "hyper::server"},
        {"WARN [03-11|22:14:15.123] disk is full", "disk is full", "", Level::warn},
        {"5:56PM ERR disk is full", "disk is full", "", Level::error},
        {"2024-03-11T22:14:15.123Z pid=982 tid=g5x WARN: disk is full", "disk is full", "", Level::warn},
        {"2024.03.11 22:14:15.123456 [ 61 ] {a-1} <Debug> Application: disk is full", "disk is full", ""},
        // A word of the message is neither host nor level.
        {"WARN: [Mar 11 22:14:15.123] failed to write", "failed to write", "", Level::warn},
        {"Mar 11 22:14:15 Starting up the service", "Starting up the service", ""},
        {"[2024-03-11T22:14:15,123][INFO ][o.e.n.Node] [node-1] Error while writing",
         "Error while writing",
         ""},
        {"2024-03-11 22:14:15,123 {db.py:7} INFO - restore: no such file", "restore: no such file", ""},
        {"INFO  [2024-03-11 22:14:15,123] com.acme.Worker: disk is full",
         "disk is full",
         "com.acme.Worker",
         Level::info},
        {R"({"time":"2024-03-11T22:14:15Z","level":"error","msg":"disk is full","x":{"msg":"no"}})",
         "disk is full",
         "",
         Level::error},
        {R"({"level":50,"pid":7,"msg":"disk is full"})", "disk is full", "", Level::error},
        {R"(time=2024-03-11T22:14:15Z level=error msg="disk is full" shard=7)",
         R"(msg="disk is full" shard=7)",
         "",
         Level::error},
        // Texts without a header stay whole.
        {"disk is full", "disk is full", ""},
        {"Took 10 seconds to build instance.", "Took 10 seconds to build instance.", ""},
        {"Running audit from 2017-05-16 12:00:00 to 2017-05-16 13:00:00",
         "Running audit from 2017-05-16 12:00:00 to 2017-05-16 13:00:00",
         ""},
        {"error: Bind to port 22 failed", "error: Bind to port 22 failed", ""},
        {"", "", ""},
        {"   ", "", ""},
        {"2024-03-11 22:14:15", "2024-03-11 22:14:15", ""},
    };
    for (const auto& row : rows) check(row);
}

TEST(Pattern, ValuesAreMaskedAndTextStays) {
    const std::pair<std::string_view, std::string_view> rows[] = {
        {"Took 3.25 seconds to build instance 7f3c9e.", "Took <*> second to build instance <*>."},
        {"Failed password for root from 10.0.0.1 port 22 ssh2",
         "Failed password for <*> from <*> port <*> ssh2"},
        {"Failed password for invalid user alice from ::1 port 22 ssh2",
         "Failed password for invalid user <*> from <*> port <*> ssh2"},
        {"open /var/lib/app/x.db: permission denied", "open <*>: permission denied"},
        {"GET https://example.com/a?b=c returned 503", "GET <*> returned <*>"},
        {"key=value other=12,last=\"a b\"", "key=<*> other=<*>,last=\"<*>\""},
        {"link up on eth0", "link up on eth#"},
        {"list 1, 2, 3 done", "list <*> done"},
        {"\x1b[31mred\x1b[0m alert 5", "red alert <*>"},
        {"state is 'Active' now in state 'Active'", "state is '<*>' now in state 'Active'"},
        {"ready=true,done=false", "ready=<*>,done=<*>"},
        {"java.lang.IllegalStateException: queue full", "java.lang.IllegalStateException: queue full"},
        {"mail from bob@example.com rejected", "mail from <*> rejected"},
        {"code 0x1f at 12:30:01", "code <*> at <*>"},
        {"VM Started (Lifecycle Event)", "VM Started (Lifecycle Event)"},
        {"neighbour ef:01:c2:f2:cb:4e is gone", "neighbour <*> is gone"},
        {"connected to localhost", "connected to <*>"},
        {"add user `test' to group", "add user `<*>' to group"},
        {"stream 'shop > orders' stalled", "stream '<*>' stalled"},
        {"it failed: 'disk is full'", "it failed: 'disk is full'"},
        {"peers ['a', 'b'] are left", "peers [<*>] are left"},
        {"peers [] are left", "peers [<*>] are left"},
        {"peers [alpha, beta, gamma] are left", "peers [<*>] are left"},
        {"Adding [nightly] to the plan", "Adding [<*>] to the plan"},
        {"check [FAILED] on disk", "check [FAILED] on disk"},
        {"template t3 does not exist", "template <*> does not exist"},
        {"Creating new pool: alpha", "Creating new pool: <*>"},
        {"a network interface 'x' is up", "a network interface '<*>' is up"},
        {"link between gateway and 10.0.0.9 lost", "link between <*> and <*> lost"},
        {"Server: example.com,Successfully loaded it", "Server: <*>,Successfully loaded it"},
    };
    for (const auto& [message, pattern] : rows) EXPECT_EQ(pattern_of(message), pattern) << message;
}

TEST(Pattern, OneWordDecidesTheMeaning) {
    const std::pair<std::string_view, std::string_view> rows[] = {
        {"VM Started (Lifecycle Event)", "VM Paused (Lifecycle Event)"},
        {"connection opened", "connection closed"},
        {"link is up", "link is down"},
        {"session opened for user root", "session closed for user root"},
        {"mount succeeded", "mount failed"},
    };
    for (const auto& [a, b] : rows) EXPECT_NE(pattern_of(a), pattern_of(b));
}

TEST(Pattern, IsAlwaysValidUtf8AndBounded) {
    EXPECT_EQ(pattern_of("bad \xff\xfe byte"), "bad \xEF\xBF\xBD\xEF\xBF\xBD byte");
    EXPECT_EQ(pattern_of("na\xc3\xafve caf\xc3\xa9"), "na\xc3\xafve caf\xc3\xa9");
    for (const char c : {'[', '(', '"', '\'', ' ', '9', '/', '=', '\\', ':', '{', 'a', '\x1b', '\xff'}) {
        const std::string line(1 << 20, c);
        EXPECT_LE(pattern_of(line).size(), 3 * max_message + 3);
        EXPECT_LE(cut_header(line).message.size(), line.size());
    }
}

TEST(Pattern, OnlyTheFirst8KiBDecide) {
    const std::string text = "word " + std::string(max_message, 'a');
    EXPECT_EQ(pattern_of(text + "b"), pattern_of(text + "c and more"));
}

TEST(Scanner, KeysFollowPatterns) {
    // Equal patterns have equal keys and different ones differ, for lines put together at random from awkward
    // pieces.
    std::mt19937 random{7};
    const std::string_view pieces[] = {
        "word", " ",     " ", "12", "=",        "(",         ")",    "[",   "]",     "\"",   "'",  ":",  "/",
        "a1",   "x.y.z", ",", "-",  "_",        "for user ", "0xff", "<",   ">",     "|",    "::", "\\", "@",
        "#",    "%s",    "{", "}",  "\xc3\xa9", "\x1b[1m",   "null", "GET", "file ", "eth0", ";"};
    Scanner scanner{{}, 1, 2};
    for (int i = 0; i < 20000; ++i) {
        std::string a, b;
        for (int n = static_cast<int>(random() % 12); n >= 0; --n) {
            const auto piece = pieces[random() % std::size(pieces)];
            a += piece;
            b += random() % 16 == 0 ? pieces[random() % std::size(pieces)] : piece;
        }
        EXPECT_EQ(scanner.key(a) == scanner.key(b), pattern_of(a) == pattern_of(b)) << a << " | " << b;
    }
}

TEST(Scanner, GivesThePublicIdOfCompute) {
    Scanner scanner{"shop", 3, 4};
    for (const std::string_view message : {"disk 1 is full", "disk 22 is full", "", "x", "user bob left"}) {
        char hex[16];
        id_hex(scanner.id(message), hex);
        EXPECT_EQ(std::string(hex, 16), compute("shop", message, "").id);
    }
    EXPECT_EQ(scanner.id("disk 1 is full"), scanner.id("disk 99 is full"));
    EXPECT_NE(Scanner{"a"}.id("x"), Scanner{"b"}.id("x"));
}

TEST(Scanner, SurvivesMorePatternsThanItsCacheHolds) {
    Scanner scanner;
    std::set<std::uint64_t> ids;
    const auto message = [](int i) {
        std::string word = "w";
        for (; i > 0; i /= 26) word += static_cast<char>('a' + i % 26);
        return "stopped because " + word + " broke";
    };
    for (int i = 0; i < 60000; ++i) ids.insert(scanner.id(message(i)));
    for (int i = 0; i < 60000; i += 1000) EXPECT_TRUE(ids.contains(scanner.id(message(i))));
}

TEST(Scanner, TheIdOfALineIsTheIdOfItsMessage) {
    Scanner scanner;
    const std::uint64_t id = scanner.id("disk \"a\" is full");
    EXPECT_EQ(scanner.id_of_line("Nov 21 11:02:03 web1 nginx[123]: disk \"a\" is full"), id);
    EXPECT_EQ(scanner.id_of_line(R"({"level":"error","msg":"disk \"a\" is full"})"), id);
    EXPECT_EQ(scanner.id_of_line("disk \"a\" is full\r"), id);
    EXPECT_EQ(
        scanner.id_of_line("\x1b[2m2024-03-11 22:14:15\x1b[0m \x1b[31mERROR\x1b[0m disk \"a\" is full"), id
    );
}

// Lines whose digits change from one to the next, so that the shape is remembered and its digits are not: the
// remembered id must be the one that a scan of the line gives.
TEST(ShapeMemo, NeverChangesAnId) {
    std::mt19937 random{17};
    const std::string_view lines[] = {
        "Nov 21 11:02:03 web1 nginx[123]: disk 7 is full",
        "- 1131566461 2005.11.09 dn228 Nov 9 12:01:01 dn228/dn228 crond[2915]: x86_64 and sha256 of 17",
        "1131566461 shipped 3 of 4",
        "2131566461123 shipped 3 of 4",
        "20240506 shipped 3 of 4",
        "<134>Mar 11 22:14:15 host app[9]: ipv4 utf-8 http2 ssh2",
        "<134>1 2024-03-11T22:14:15.003Z host su 77 ID47 - disk 12 is full",
        "<34>1 is the version",
        "call of ns::f1(int) and std::v2::g in p2p",
        R"({"time":"2024-03-11T22:14:15Z","level":"error","msg":"disk \u0041\u00e9 3"})",
        R"({"level":30,"msg":"tls1 of x509 on \"eth0\" and i18n"})",
        "\x1b[31mred\x1b[0m sha1 5 alert",
        "[   12.345678] eth0: link up, 100Mbps",
        "1:M 11 Mar 2024 22:14:15.123 * k8s and l10n",
        "base64 crc32 iso8859 pkcs11 utf16 utf32 win32",
        "sha256 sha384 sha512 of x11",
    };
    Scanner scanner{{}, 8, 9}, plain{{}, 8, 9};
    plain.remember_shapes(false);
    const std::string_view awkward[] = {"256", "1", "64", "32", "8", "4", "6", "2", "19", "20", "191", "192"};
    for (int i = 0; i < 60000; ++i) {
        std::string line{lines[random() % std::size(lines)]};
        for (int n = static_cast<int>(random() % 6); n > 0; --n) {
            // A digit anywhere, or a number that means something written over a run of digits.
            std::size_t at = random() % line.size();
            const std::string_view number = random() % 2 == 0 ? awkward[random() % std::size(awkward)] : "";
            if (number.empty()) {
                while (at < line.size() && !is_digit(line[at])) ++at;
                if (at < line.size()) line[at] = static_cast<char>('0' + random() % 10);
            } else {
                for (at = random() % line.size(); at < line.size() && !is_digit(line[at]);) ++at;
                for (std::size_t j = 0; j < number.size() && at + j < line.size() && is_digit(line[at + j]);
                     ++j)
                    line[at + j] = number[j];
            }
        }
        ASSERT_EQ(scanner.id_of_line(line), plain.id_of_line(line)) << line;
        ASSERT_EQ(scanner.id(line), plain.id(line)) << line;
    }
    EXPECT_LT(scanner.scans(), plain.scans() / 2);
}

TEST(ShapeHash, VectorAndScalarPathAgreeAndSeeAllButDigits) {
    const ShapeHash hash{3, 4};
    std::mt19937 random{19};
    for (int round = 0; round < 3000; ++round) {
        std::string text(random() % (round % 10 == 0 ? ShapeHash::max_text + 1 : 70), '\0');
        for (char& c : text)
            c = static_cast<char>(round % 2 != 0 ? random() : "0123456789/:ab\xb0\xb9\xff"[random() % 17]);
        const Shape shape = hash(text, ShapeOf::line);
        ASSERT_EQ(shape, hash.scalar(text, ShapeOf::line));
        EXPECT_NE(shape, hash(text, ShapeOf::message));
        if (text.empty()) continue;
        char& c = text[random() % text.size()];
        const bool digit = is_digit(c);
        c = digit ? static_cast<char>('0' + random() % 10) : static_cast<char>(c ^ 0x40);
        if (!is_digit(c) || digit) {
            EXPECT_EQ(shape == hash(text, ShapeOf::line), digit);
        }
    }
}

TEST(Bitmaps, EverySetOfInstructionsGivesTheSameBits) {
    std::mt19937 random{11};
    for (int round = 0; round < 3000; ++round) {
        std::string text(random() % (round % 50 == 0 ? 8193 : 300), '\0');
        for (char& c : text)
            c = static_cast<char>(round % 2 != 0 ? random() : " ab1-\x7f\x1f!z{@[`"[random() % 13]);
        Bitmaps expected, got;
        fill_bitmaps(text, expected, Simd::scalar);
        for (int s = 1; s <= static_cast<int>(best_simd()); ++s) {
            fill_bitmaps(text, got, static_cast<Simd>(s));
            for (std::size_t w = 0; w * 64 < text.size(); ++w) {
                ASSERT_EQ(got.space[w], expected.space[w]) << s;
                ASSERT_EQ(got.other[w], expected.other[w]) << s;
            }
        }
    }
}

// Eight times the length costs about eight times the time; a step that looks back over the line would cost 64
// times. The bound lies between, and a noisy machine gets more tries: noise only ever adds.
TEST(Scanner, TimeGrowsNoFasterThanTheLine) {
    const std::string_view units[] = {
        "[",     "(",       "{\"a\":", "<",      "\"",     "'",       "/",           "=",     ":",
        ",",     " ",       "9",       "9 ",     "a",      "a ",      "a=",          "a.b.",  "\\",
        "\x1b[", "|",       "-",       "@",      "user ",  "12:30:",  "{",           "a[0] ", "key=(a=b",
        "x::y",  "%",       "\xff",    "[a] ",   "#",      "INFO ",   "{\"msg\":\"", "[{\"",  "f(x) ",
        "1,",    "\\u0041", "time=",   "Jan 1 ", "a/b.c ", "service "};
    const auto seconds = [](int tries, auto&& work) {
        double least = 1e9;
        for (int i = 0; i < tries; ++i) {
            timespec a{}, b{};
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
            work();
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
            least = std::min(
                least,
                static_cast<double>(b.tv_sec - a.tv_sec) + static_cast<double>(b.tv_nsec - a.tv_nsec) * 1e-9
            );
        }
        return least;
    };
    Scanner scanner;
    for (const auto unit : units) {
        for (const std::string_view head :
             {"", "2024-03-11 22:14:15 ERROR ", "{\"msg\":\"", "level=error msg="}) {
            std::string part{head}, whole{head};
            while (part.size() < (1U << 17U)) part += unit;
            while (whole.size() < (1U << 20U)) whole += unit;
            double a = 0, b = 0;
            for (const int tries : {2, 5, 20}) {
                a = seconds(tries, [&] { scanner.id_of_line(part); });
                b = seconds(tries, [&] { scanner.id_of_line(whole); });
                if (b < a * 24) break;
            }
            EXPECT_LT(b, a * 24) << head << unit;
        }
    }
    // 1e5 nested brackets, closed again.
    const std::string nested = std::string(100'000, '[') + std::string(100'000, ']');
    const std::string flat = std::string(12'500, '[') + std::string(12'500, ']');
    EXPECT_LT(seconds(5, [&] { scanner.id_of_line(nested); }), 24 * seconds(5, [&] {
                                                                   scanner.id_of_line(flat);
                                                               }));
    EXPECT_LT(seconds(5, [&] { compute("", nested, nested); }), 24 * seconds(5, [&] {
                                                                    compute("", flat, flat);
                                                                }));
}

TEST(WordHash, IsTheSameAtCompileTime) {
    EXPECT_EQ(word_hash("to"), folded_hash("to"));
    EXPECT_EQ(word_hash("interface"), folded_hash("INTERFACE"));
    EXPECT_EQ(word_hash("configuration"), folded_hash("Configuration"));
}

TEST(Json, EscapesAreUndone) {
    std::string out;
    unescape_json(R"(a\n\"b\" \u00e9 \ud83d\ude00 \u12 \\)", out);
    EXPECT_EQ(out, "a\n\"b\" \xc3\xa9 \xf0\x9f\x98\x80 u12 \\");
}

// Ids are stored for years: a change here is a new mechanism_version with an alias, never an edit of these
// rows.
TEST(Id, StaysWhatItWas) {
    EXPECT_EQ(mechanism_version, 1);
    const std::pair<std::string_view, std::string_view> rows[] = {
        {"disk is full", "740a7c03e619206f"},
        {"Failed password for root from 10.0.0.1 port 22 ssh2", "8359688d46d6a73e"},
        {"link up on eth0", "b0010d81d4bad62f"},
        {"Took 3.2 s to open /var/lib/x.db", "a7d11fa5fe188cae"},
        {"session opened for user root by (uid=0)", "9e275f5157305ecf"},
        {"naïve café 12", "601e65c399b0ab9b"},
    };
    for (const auto& [message, id] : rows) EXPECT_EQ(compute("", message, "").id, id) << message;
    EXPECT_EQ(compute("", "disk is full", "").digest.substr(0, 16), compute("", "disk is full", "").id);
    EXPECT_EQ(compute("shop", "x 1", "").pattern, "x <*>");
}

}  // namespace
}  // namespace heal::fingerprint
