#include "vcs/pattern.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace heal::vcs {
namespace {

const std::string before =
    "int mean(const std::vector<int>& prices) {\n    int sum = 0;\n    for (int p : prices) sum += p;\n    "
    "return sum / prices.size();\n}\n";
const std::string after =
    "int mean(const std::vector<int>& prices) {\n    int sum = 0;\n    for (int p : prices) sum += p;\n    "
    "if (prices.empty()) return 0;\n    return sum / prices.size();\n}\n";

TEST(Pattern, OfOneChangeFindsAnotherPlace) {
    const auto pattern = mine_pattern("src/mean.cpp", before, after);
    ASSERT_TRUE(pattern);
    EXPECT_EQ(pattern->search, "return $1 / $2.size();\n");
    EXPECT_EQ(pattern->replace, "if ($2.empty()) return 0;\nreturn $1 / $2.size();\n");
    EXPECT_EQ(pattern->suffix, ".cpp");
    const std::string other =
        "double f(const V& list) {\n        return total(list) / list.size();\n}\nint g() { return 1; }\n";
    const auto found = find_pattern(*pattern, "x.cpp", other);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].first_line, 2U);
    EXPECT_EQ(found[0].text, "        return total(list) / list.size();\n");
    EXPECT_EQ(
        found[0].replace, "        if (list.empty()) return 0;\n        return total(list) / list.size();\n"
    );
    EXPECT_TRUE(find_pattern(*pattern, "x.py", other).empty());
    EXPECT_TRUE(find_pattern(*pattern, "src/mean.cpp", after).empty())
        << "where it is fixed it is not found again";
    const auto edit = apply_pattern(*pattern, "x.cpp", other, 0, 0);
    ASSERT_TRUE(edit);
    const auto done = apply_edits({*edit}, [&](const std::string&) -> result<std::string> { return other; });
    ASSERT_TRUE(done) << done.error().text;
    EXPECT_NE(done->at("x.cpp").find("if (list.empty()) return 0;\n        return total"), std::string::npos);
}

TEST(Pattern, HolesStandForTheSameEverywhere) {
    const CodePattern pattern{
        "if ($1 != nullptr && $1->size() > $2) {\n", "if ($1 != nullptr && $1->size() >= $2) {\n", ".cpp"};
    EXPECT_EQ(find_pattern(pattern, "a.cpp", "    if (p != nullptr && p->size() > n + 1) {\n").size(), 1U);
    EXPECT_TRUE(find_pattern(pattern, "a.cpp", "    if (p != nullptr && q->size() > n) {\n").empty());
    EXPECT_TRUE(find_pattern(pattern, "a.cpp", "    if (p != nullptr && p->size() > n) { x();\n").empty())
        << "a whole line or none";
    EXPECT_EQ(
        find_pattern(pattern, "a.cpp", "    if (a[f(1, 2)] != nullptr && a[f(1, 2)]->size() > 0) {\n").size(),
        1U
    );
}

TEST(Pattern, IsNotMadeOfWhatTellsTooLittle) {
    const auto none = [](const std::string& a, const std::string& b) { return !mine_pattern("x.cpp", a, b); };
    EXPECT_TRUE(none("a = b;\n", "a = c;\n")) << "no words";
    EXPECT_TRUE(none(before, before));
    EXPECT_TRUE(none("    value = compute(first);\n", "    value = compute(second);\n"))
        << "a name that the holes cannot give";
    std::string large;
    for (int i = 0; i < 30; ++i) large += fmt::format("call_{}(x);\n", i);
    EXPECT_TRUE(none("x;\n", large));
    EXPECT_TRUE(none("print($1, size());\n", "print($2, size());\n")) << "dollars of the language itself";
    EXPECT_FALSE(
        mine_pattern("Makefile", "        x = compute(first, 1);\n", "        x = compute(first, 2);\n")
    );
}

TEST(Pattern, IsAppliedOnlyWhereItIsAlone) {
    const CodePattern pattern{"return $1.at($2);\n", "return $1.count($2) ? $1.at($2) : 0;\n", ".cpp"};
    const std::string content = "int f() {\n    return m.at(k);\n}\nint g() {\n    return m.at(k);\n}\n";
    EXPECT_FALSE(apply_pattern(pattern, "a.cpp", content, 0, 0));
    const auto edit = apply_pattern(pattern, "a.cpp", content, 4, 6);
    ASSERT_TRUE(edit);
    const auto done =
        apply_edits({*edit}, [&](const std::string&) -> result<std::string> { return content; });
    ASSERT_TRUE(done) << done.error().text;
    EXPECT_EQ(
        done->at("a.cpp"),
        "int f() {\n    return m.at(k);\n}\nint g() {\n    return m.count(k) ? m.at(k) : 0;\n}\n"
    );
    EXPECT_FALSE(apply_pattern(pattern, "a.cpp", content, 3, 4));
    EXPECT_FALSE(apply_pattern(pattern, "a.cpp", "int x;\n", 0, 0));
}

TEST(Pattern, HoldsOutAgainstHostileText) {
    const CodePattern pattern{"$1 $2 $3 $4 $5 verify($6, $7, $8);\n", "x\n", ""};
    std::string line;
    for (int i = 0; i < 2000; ++i) line += "a ";
    EXPECT_TRUE(find_pattern(pattern, "a.c", line + "\n" + line).empty());
    EXPECT_TRUE(find_pattern({"$1", "", ""}, "a.c", "x\n").empty());
    EXPECT_TRUE(find_pattern({"", "", ""}, "a.c", "x\n").empty());
    std::string many;
    for (int i = 0; i < 3000; ++i) many += "dangerous_call(x);\n";
    EXPECT_EQ(find_pattern({"dangerous_call($1);", "safe_call($1);", ""}, "a.c", many).size(), 1000U);
}

}  // namespace
}  // namespace heal::vcs
