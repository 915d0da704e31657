// The labelled set: real traces (tests/fingerprint/traces), mutated. What a release, another machine or a
// generator changes must keep the id; another place or kind of failure must change it.
#include "fingerprint/fingerprint.hpp"
#include "fingerprint/traces.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

namespace heal::fingerprint {
namespace {

std::map<std::string, std::string> traces() {
    std::map<std::string, std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator{HEAL_TRACES}) {
        std::ifstream file{entry.path()};
        std::stringstream text;
        text << file.rdbuf();
        out[entry.path().stem().string()] = text.str();
    }
    return out;
}

std::string app5(const std::string& text) { return signature_of(parse_trace(text)).app5; }

std::string replaced(std::string text, const std::string& what, const std::string& with) {
    return std::regex_replace(text, std::regex{what}, with);
}

TEST(Traces, EveryLanguageIsRecognizedAndHasFrames) {
    const std::set<std::string> languages = {
        "python", "java", "javascript", "go", "rust", "csharp", "ruby", "php", "native", "kernel"};
    std::set<std::string> seen;
    for (const auto& [name, text] : traces()) {
        const Trace trace = parse_trace(text);
        std::string expected = name.substr(0, name.find('_'));
        if (expected == "kotlin") expected = "java";
        EXPECT_EQ(to_string(trace.language), expected) << name;
        ASSERT_FALSE(trace.chain.empty()) << name;
        EXPECT_FALSE(trace.chain.front().frames.empty()) << name;
        EXPECT_FALSE(app5(text).empty()) << name;
        seen.insert(expected);
    }
    EXPECT_EQ(seen, languages);
}

TEST(Traces, TheCauseComesFirst) {
    const std::map<std::string, std::pair<std::string, std::string>> rows = {
        {"python_chain", {"KeyError", "load"}},
        {"javascript_chain", {"TypeError", "(anonymous)"}},
        {"java_chain", {"java.lang.NullPointerException", "find"}},
        {"java_reflect", {"java.lang.NullPointerException", "find"}},
        {"csharp_chain", {"System.NullReferenceException", "Find"}},
        {"php_chain", {"PDOException", "PDO->__construct"}},
        {"ruby_error", {"NoMethodError", "total"}},
        {"go_index", {"runtime error", "(*Queue).Pop"}},
        {"native_asan_uaf", {"heap-use-after-free", "read"}},
        {"native_gdb", {"SIGSEGV", "read"}},
        {"kernel_oops", {"BUG: kernel <*> pointer dereference, address", "ring_take"}},
        {"kotlin_proxy", {"java.lang.IllegalArgumentException", "check"}},
        {"javascript_bundle", {"TypeError", "renderRow"}},
    };
    const auto all = traces();
    for (const auto& [name, expected] : rows) {
        const Trace trace = parse_trace(all.at(name));
        ASSERT_FALSE(trace.chain.empty()) << name;
        EXPECT_EQ(trace.chain.front().type, expected.first) << name;
        ASSERT_FALSE(trace.chain.front().frames.empty()) << name;
        EXPECT_EQ(trace.chain.front().frames.front().function, expected.second) << name;
    }
}

TEST(Traces, WhatAReleaseChangesKeepsTheId) {
    int kept = 0, all = 0;
    for (const auto& [name, text] : traces()) {
        const std::string id = app5(text);
        const std::vector<std::pair<std::string, std::string>> mutants = {
            {"lines",
             replaced(
                 text, R"((\.(?:py|js|java|kt|go|rs|cpp|rb|cs)\b"?(?:, line |:line |:)?)(\d+))", "$019$2"
             )},
            {"columns", replaced(text, R"((\.(?:js|rs|cpp):\d+:)(\d+))", "$017$2")},
            {"php lines", replaced(text, R"(\.php\((\d+)\))", ".php(9$1)")},
            {"addresses", replaced(text, R"(0x[0-9a-f]{6,})", "0x7f00aa11bb")},
            {"offsets", replaced(text, R"(\+0x[0-9a-f]+)", "+0x1a")},
            {"place", replaced(text, "/home/dev/app", "/srv/releases/42/current")},
            {"process", replaced(text, R"(==\d+==)", "==99==")},
            {"uptime", replaced(text, R"(\[ *\d+\.\d+\])", "[99.123456]")},
            {"lambdas", replaced(text, R"(lambda\$(\w+)\$\d+)", "lambda$$$1$$9")},
            {"proxies",
             replaced(text, R"(GeneratedMethodAccessor\d+|CGLIB\$\$[0-9a-f]+|Lambda\$\d+/0x[0-9a-f]+)", "")},
            {"bundle", replaced(replaced(text, "4f3a2b1c9d", "99aa88bb77"), "8Xk2Lq0p", "Zq1r9TTx")},
            {"closures", replaced(text, R"(func1\b)", "func3")},
            {"goroutine", replaced(text, "goroutine 1 ", "goroutine 77 ")},
            {"crlf", replaced(text, "\n", "\r\n")},
        };
        for (const auto& [kind, mutant] : mutants) {
            if (mutant == text || kind == "proxies") continue;
            ++all;
            kept += app5(mutant) == id;
            EXPECT_EQ(app5(mutant), id) << name << ": " << kind;
        }
    }
    EXPECT_GT(all, 60);
    RecordProperty("recall", std::to_string(static_cast<double>(kept) / all));
}

TEST(Traces, AnotherPlaceOrKindOfFailureChangesTheId) {
    int changed = 0, all = 0;
    std::map<std::string, std::string> ids;
    for (const auto& [name, text] : traces()) {
        const Trace trace = parse_trace(text);
        const std::string id = app5(text);
        const Raised& cause = trace.chain.front();
        for (const Frame& frame : cause.frames) {
            if (!frame.in_app) continue;
            std::string function = frame.function;
            if (const std::size_t mark = function.find_last_of("->."); mark != std::string::npos)
                function = function.substr(mark + 1);
            function = function.substr(0, function.find_first_of("#$"));
            if (function.size() < 3 || function.front() == '(' || function.front() == '<' ||
                text.find(function) == std::string::npos)
                break;
            const std::string mutant = replaced(text, function, "another_" + function);
            ++all;
            changed += app5(mutant) != id;
            EXPECT_NE(app5(mutant), id) << name << ": " << function;
            break;
        }
        if (!cause.type.empty() && cause.type.find(' ') == std::string::npos &&
            text.find(cause.type) != std::string::npos && cause.type != "panic" &&
            cause.type.rfind("SIG", 0) != 0 && cause.type.find('-') == std::string::npos) {
            const std::string mutant = replaced(
                text,
                replaced(cause.type, R"(\.)", "\\."),
                cause.type.find('.') != std::string::npos ? "org.example.OtherException" : "OtherError"
            );
            ++all;
            changed += app5(mutant) != id;
            EXPECT_NE(app5(mutant), id) << name << ": " << cause.type;
        }
        // Different traces of the set never share an id; these two are the same failure reached on two ways.
        if (name == "java_reflect") continue;
        const auto [other, fresh] = ids.emplace(id, name);
        EXPECT_TRUE(fresh) << name << " and " << other->second << ": " << id;
    }
    EXPECT_GT(all, 20);
    RecordProperty("precision", std::to_string(static_cast<double>(changed) / all));
}

TEST(Traces, RecursionCountsOnce) {
    const auto trace = [](int depth) {
        std::string text =
            "Traceback (most recent call last):\n  File \"/a/x.py\", line 9, in main\n    f()\n";
        for (int i = 0; i < depth; ++i)
            text +=
                "  File \"/a/x.py\", line 2, in even\n    odd()\n  File \"/a/x.py\", line 3, in odd\n    "
                "even()\n";
        return text + "  File \"/a/x.py\", line 4, in boom\n    raise\nValueError: x\n";
    };
    EXPECT_EQ(app5(trace(2)), app5(trace(40)));
    EXPECT_NE(app5(trace(2)), "");
}

TEST(Traces, AnEmptyFrameListNeverMakesAnId) {
    for (const std::string text :
         {"",
          "\n\n",
          "Traceback (most recent call last):\nValueError: x\n",
          "java.lang.Error: x\n",
          "goroutine 1 [running]:\n",
          "plain words",
          "#0 {main}\n",
          "stack backtrace:\n"}) {
        const Signature s = signature_of(parse_trace(text));
        EXPECT_TRUE(s.exact.empty()) << text;
        EXPECT_TRUE(s.app5.empty()) << text;
        EXPECT_EQ(compute("s", "message 1", text).id, compute("s", "message 2", "").id) << text;
    }
}

TEST(Traces, HelperFramesOfTheUserAreSteppedOver) {
    const std::string text = traces().at("python_chain");
    const Trace trace = parse_trace(text);
    EXPECT_NE(signature_of(trace, {"app.py:load"}).app5, signature_of(trace).app5);
    EXPECT_EQ(signature_of(trace, {"*"}).app5, "");
}

TEST(Traces, ThrowersDoNotJoinDifferentErrors) {
    const auto trace = [](const std::string& message) {
        return "Traceback (most recent call last):\n  File \"/a/x.py\", line 9, in caller\n  File "
               "\"/a/h.py\", line 2, in check\nValueError: " +
               message + "\n";
    };
    EXPECT_NE(app5(trace("disk is full")), app5(trace("user is unknown")));
    EXPECT_EQ(app5(trace("disk 1 is full")), app5(trace("disk 2 is full")));
}

}  // namespace
}  // namespace heal::fingerprint
