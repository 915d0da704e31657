#include "fingerprint/merges.hpp"
#include "fingerprint/rules.hpp"

#include <gtest/gtest.h>

namespace heal::fingerprint {
namespace {

Rules rules(std::vector<RuleSpec> specs) {
    auto made = Rules::create(std::move(specs));
    EXPECT_TRUE(made) << (made ? "" : made.error().text);
    return made ? std::move(*made) : Rules{};
}

TEST(Rules, TheFirstThatMatchesDecides) {
    const Rules r = rules(
        {{.name = "timeouts", .message = "*timed out*", .fingerprint = {"timeout", "{{ service }}"}},
         {.name = "late", .message = "*timed out*", .fingerprint = {"never"}}}
    );
    const Ruled a = r.apply({"shop", "", "read timed out after 3 s", ""});
    EXPECT_EQ(a.rule, "timeouts");
    EXPECT_EQ(a.fingerprint.pattern, "timeout|shop");
    EXPECT_EQ(a.fingerprint.id, r.apply({"shop", "", "connect timed out", ""}).fingerprint.id);
    EXPECT_EQ(r.apply({"shop", "", "other", ""}).rule, "");
    EXPECT_EQ(r.apply({"shop", "", "other", ""}).fingerprint.id, compute("shop", "other", "").id);
}

TEST(Rules, DefaultMixesWithParts) {
    const Rules r = rules(
        {{.name = "per tenant",
          .message_regex = "tenant=(\\w+)",
          .fingerprint = {"{{ default }}", "{{ 1 }}"}}}
    );
    const auto id = [&](std::string_view m) { return r.apply({"s", "", m, ""}).fingerprint.id; };
    EXPECT_NE(id("failed for tenant=a 1"), id("failed for tenant=b 1"));
    EXPECT_EQ(id("failed for tenant=a 1"), id("failed for tenant=a 2"));
}

TEST(Rules, DefaultAloneIsTheDefaultId) {
    const Rules r = rules({{.name = "none", .service = "*"}});
    EXPECT_EQ(r.apply({"s", "", "disk 1 full", ""}).fingerprint.id, compute("s", "disk 7 full", "").id);
}

TEST(Rules, HelperFramesAreIgnored) {
    const auto trace = [](const char* helper) {
        return std::string{
                   "Traceback (most recent call last):\n  File \"/a/m.py\", line 1, in main\n  File "
                   "\"/a/w.py\", line 2, in work\n  File \"/a/u.py\", line 3, in "} +
               helper + "\nValueError: x\n";
    };
    const Rules r = rules({{.name = "helpers", .service = "*", .ignore_frames = {"u.py:*"}}});
    EXPECT_EQ(
        r.apply({"s", "", "m", trace("one")}).fingerprint.id,
        r.apply({"s", "", "m", trace("two")}).fingerprint.id
    );
}

TEST(Rules, MistakesAreNamed) {
    const std::pair<RuleSpec, std::string_view> rows[] = {
        {{.name = "", .message = "x"}, "no name"},
        {{.name = "a"}, "no condition"},
        {{.name = "a", .message_regex = "("}, "not an RE2 expression"},
        {{.name = "a", .message = "x", .fingerprint = {"{{ nonsense }}"}}, "nonsense"},
        {{.name = "a", .message_regex = "x", .fingerprint = {"{{ 1 }}"}}, "unknown"},
    };
    for (const auto& [spec, words] : rows) {
        const auto made = Rules::create({spec});
        ASSERT_FALSE(made) << words;
        EXPECT_NE(made.error().text.find(words), std::string::npos) << made.error().text;
    }
    EXPECT_FALSE(Rules::create({{.name = "a", .message = "x"}, {.name = "a", .message = "y"}}));
}

std::set<std::string> removing(std::initializer_list<const char*> words) {
    std::set<std::string> out;
    for (const char* w : words) out.insert(std::string{"removing service "} + w + " from table");
    return out;
}

TEST(Merges, ManyWordsAtOnePositionAreOneStatement) {
    const auto few = removing({"echo", "time", "daytime"});
    EXPECT_TRUE(suggest_merges("s", few).empty());
    const auto many = removing({"echo", "time", "daytime", "chargen", "discard"});
    const auto merges = suggest_merges("s", many);
    ASSERT_EQ(merges.size(), 1u);
    EXPECT_EQ(merges[0].canonical, "removing service <*> from table");
    EXPECT_EQ(merges[0].patterns.size(), 5u);
    EXPECT_EQ(merges[0].canonical_id, compute("s", "removing service 1 from table", "").id);
    EXPECT_FALSE(merges[0].by_people);
}

TEST(Merges, StatesInCapitalsNeedMoreEvidence) {
    std::set<std::string> states;
    for (const char* w : {"NEW", "INITED", "RUNNING", "DONE", "FAILED", "KILLED"})
        states.insert(std::string{"job went to "} + w + " state now");
    EXPECT_TRUE(suggest_merges("s", states).empty());
}

TEST(Merges, GrowWithTheSet) {
    const auto small = removing({"echo", "time", "daytime", "chargen", "discard"});
    auto large = small;
    large.insert("removing service finger from table");
    large.insert("something else");
    const auto a = suggest_merges("s", small), b = suggest_merges("s", large);
    ASSERT_EQ(a.size(), 1u);
    ASSERT_EQ(b.size(), 1u);
    EXPECT_EQ(a[0].canonical_id, b[0].canonical_id);
    for (const auto& p : a[0].patterns)
        EXPECT_NE(std::find(b[0].patterns.begin(), b[0].patterns.end(), p), b[0].patterns.end());
}

TEST(Merges, PeopleWin) {
    const auto many = removing({"echo", "time", "daytime", "chargen", "discard", "finger"});
    Decisions decisions;
    decisions.apart.insert("removing service echo from table");
    const auto merges = suggest_merges("s", many, decisions);
    ASSERT_EQ(merges.size(), 1u);
    EXPECT_EQ(merges[0].patterns.size(), 5u);
    decisions.joined.push_back({"a b", "c d"});
    const auto joined = suggest_merges("s", {"a b", "c d", "e f"}, decisions);
    ASSERT_EQ(joined.size(), 1u);
    EXPECT_TRUE(joined[0].by_people);
}

}  // namespace
}  // namespace heal::fingerprint
