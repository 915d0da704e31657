#include "base/clock.hpp"
#include "base/files.hpp"
#include "base/id.hpp"
#include "base/json.hpp"
#include "base/launch.hpp"
#include "base/level.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <set>
#include <sstream>
#include <thread>
#include <vector>

namespace heal {
namespace {

TEST(Clock, Rfc3339RoundTripsMicroseconds) {
    for (const std::int64_t us : {0LL, 1'790'000'000'123'456LL, 951'782'400'000'000LL, -1LL}) {
        Time back{42};
        ASSERT_TRUE(parse_rfc3339(to_rfc3339(Time{us}), back)) << to_rfc3339(Time{us});
        EXPECT_EQ(back.us, us);
    }
}

TEST(Clock, ParsesOffsetsAndFractions) {
    Time t;
    ASSERT_TRUE(parse_rfc3339("2026-11-21T12:00:00.5+02:00", t));
    EXPECT_EQ(to_rfc3339(t), "2026-11-21T10:00:00.500000Z");
    ASSERT_TRUE(parse_rfc3339("2026-11-21 10:00:00,123456789", t));
    EXPECT_EQ(to_rfc3339(t), "2026-11-21T10:00:00.123456Z");
    for (const char* bad :
         {"",
          "2026-13-01T00:00:00Z",
          "2026-02-30T00:00:00Z",
          "2026-11-21T24:00:00Z",
          "2026-11-21T10:00:00X"}) {
        EXPECT_FALSE(parse_rfc3339(bad, t)) << bad;
    }
}

TEST(Id, IsUniqueSortedAndVersion7) {
    const ManualClock clock;
    std::set<std::string> seen;
    std::string previous;
    for (int i = 0; i < 10'000; ++i) {
        const auto id = new_id(clock);
        ASSERT_EQ(id.size(), 36U);
        EXPECT_EQ(id[14], '7');
        EXPECT_LT(previous.substr(0, 18), id.substr(0, 18));
        previous = id;
        EXPECT_TRUE(seen.insert(id).second);
    }
}

TEST(Id, Sha256MatchesTheStandardVector) {
    EXPECT_EQ(
        sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );  // FIPS 180-2, B.1
}

TEST(Level, UnderstandsTheWordsOfOthers) {
    const std::pair<const char*, Level> rows[] = {
        {"ERROR", Level::error},
        {"crit", Level::fatal},
        {"Warning", Level::warn},
        {"SEVERE", Level::error},
        {"notice", Level::info},
        {"E", Level::error},
        {"erroneous", Level::unknown},
        {"", Level::unknown}};
    for (const auto& [word, level] : rows) EXPECT_EQ(parse_level(word), level) << word;
    EXPECT_EQ(level_of_pino(50), Level::error);
    EXPECT_EQ(level_of_syslog(2), Level::fatal);
    EXPECT_EQ(level_of_otlp(17), Level::error);
    EXPECT_EQ(level_of_otlp(0), Level::unknown);
}

TEST(Json, ErrorsNameThePlace) {
    EXPECT_NE(parse_json("{\"a\":", "body").error().text.find("body"), std::string::npos);
    EXPECT_FALSE(parse_json("{} x", "body"));
    EXPECT_TRUE(parse_json(" {} \n", "body"));
    EXPECT_FALSE(parse_json(std::string(100'000, '['), "deep"));
    const auto object = parse_json(R"({"n": 7, "s": "x", "big": 1e300})", "body").value().get_object();
    const FieldReader in{object, "strategy"};
    EXPECT_EQ(in.required_string("s").value(), "x");
    EXPECT_EQ(in.required_string("missing").error().text, "strategy.missing: is missing; a string is needed");
    EXPECT_EQ(in.int_or("n", 0, 0, 5).error().text, "strategy.n: must be an integer from 0 to 5");
    EXPECT_FALSE(in.int_or("big", 0, 0, 5));
    EXPECT_FALSE(in.bool_or("n", false));
}

TEST(Json, InvalidUtf8BecomesReplacementCharacters) {
    EXPECT_EQ(to_valid_utf8("ok \xC3\xA4"), "ok \xC3\xA4");
    EXPECT_EQ(
        to_valid_utf8("\xFF"
                      "a\xC0\x80"),
        "\xEF\xBF\xBD"
        "a\xEF\xBF\xBD\xEF\xBF\xBD"
    );
    EXPECT_EQ(to_valid_utf8("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");  // a lone surrogate
}

TEST(Files, WriteAtomicReplacesAndReportsErrors) {
    SystemFiles files;
    char folder[] = "/tmp/heal-files-XXXXXX";
    ASSERT_NE(::mkdtemp(folder), nullptr);
    const std::string path = std::string{folder} + "/a";
    EXPECT_EQ(files.read(path, 100).error().code, errc::not_found);
    ASSERT_TRUE(files.write_atomic(path, "one", 0600));
    ASSERT_TRUE(files.write_atomic(path, "two", 0600));
    EXPECT_EQ(files.read(path, 100).value(), "two");
    EXPECT_EQ(files.read(path, 2).error().code, errc::invalid_input);
    EXPECT_EQ(files.list(folder).value(), std::vector<std::string>{"a"});
    EXPECT_EQ(files.write_atomic(std::string{folder} + "/none/b", "x", 0600).error().code, errc::io);
    std::filesystem::remove_all(folder);
}

/// What `program` prints when it is launched; "errno N" when it is not.
std::string launched(std::vector<const char*> words, const std::function<void(Launch&)>& change = {}) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return "no pipe";
    const int high = ::fcntl(ends[1], F_DUPFD_CLOEXEC, 16);
    ::close(ends[1]);
    words.push_back(nullptr);
    char* const env[] = {nullptr};
    Launch what;
    what.argv = const_cast<char* const*>(words.data());
    what.env = env;
    what.descriptors = {{high, 1}, {high, 2}};
    if (change) change(what);
    const pid_t pid = launch(what);
    const int error = errno;
    ::close(high);
    std::string out;
    std::array<char, 1024> buffer{};
    for (ssize_t n = 0; (n = ::read(ends[0], buffer.data(), buffer.size())) > 0;)
        out.append(buffer.data(), static_cast<std::size_t>(n));
    ::close(ends[0]);
    if (pid < 0) return "errno " + std::to_string(error);
    ::waitpid(pid, nullptr, 0);
    return out;
}

TEST(Launch, StartsAProgramOrTellsWhyNot) {
    EXPECT_EQ(launched({"/bin/pwd"}, [](Launch& l) { l.cwd = "/usr"; }), "/usr\n");
    EXPECT_EQ(launched({"/no/such/program"}), "errno " + std::to_string(ENOENT));
    EXPECT_EQ(launched({"/etc/passwd"}), "errno " + std::to_string(EACCES));
    EXPECT_EQ(
        launched({"/bin/true"}, [](Launch& l) { l.cwd = "/no/such"; }), "errno " + std::to_string(ENOENT)
    );
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "a child that failed was not collected";
}

TEST(Launch, GivesTheChildItsDescriptorsAndNoOthers) {
    const int other = ::open("/dev/null", O_RDONLY);  // without O_CLOEXEC, as a careless library would
    const auto list = [&](int from) {
        return launched({"/bin/ls", "/proc/self/fd"}, [&](Launch& l) { l.close_from = from; });
    };
    EXPECT_NE(list(-1).find(std::to_string(other)), std::string::npos);
    EXPECT_EQ(list(3), "0\n1\n2\n3\n") << "3 is the folder that ls reads";
    ::close(other);
}

TEST(Launch, MakesTheChildTheLeaderOfItsGroupOrSession) {
    // pid, name, state, parent, group, session
    const auto fields = [](Launch::Group group) {
        std::istringstream in{launched({"/bin/cat", "/proc/self/stat"}, [&](Launch& l) { l.group = group; })};
        std::array<std::string, 6> out;
        for (auto& word : out) in >> word;
        return out;
    };
    const auto process = fields(Launch::Group::process), session = fields(Launch::Group::session);
    EXPECT_EQ(process[4], process[0]);
    EXPECT_NE(process[5], process[0]);
    EXPECT_EQ(session[5], session[0]);
}

/// Two threads once took each other's temporary file away.
TEST(Files, AreWrittenWholeByManyThreadsAtATime) {
    const std::string path = testing::TempDir() + "heald-files-" + std::to_string(::getpid());
    std::vector<std::thread> threads;
    std::atomic<int> failures{0};
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&path, &failures, t] {
            SystemFiles files;
            for (int i = 0; i < 50; ++i)
                failures += !files.write_atomic(path, std::string(1000, static_cast<char>('a' + t)), 0600);
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(failures, 0);
    const auto text = SystemFiles{}.read(path, 4096);
    ASSERT_TRUE(text);
    EXPECT_EQ(*text, std::string(1000, text->front()));
    ::unlink(path.c_str());
}

}  // namespace
}  // namespace heal
