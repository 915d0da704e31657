#include "vcs/edit.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace heal::vcs {
namespace {

using Tree = std::map<std::string, std::string>;

result<NewFiles> applied(const std::string& text, const Tree& tree, const std::string& default_file = {}) {
    auto edits = parse_edits(text, default_file);
    if (!edits) return edits.error();
    return apply_edits(*edits, [&](const std::string& path) -> result<std::string> {
        const auto it = tree.find(path);
        if (it == tree.end()) return fail(errc::not_found, path);
        return it->second;
    });
}

/// The only file after the text, or the words of the refusal.
std::string check(const std::string& text, const std::string& content, const std::string& file = "a.cpp") {
    const auto done = applied(text, {{file, content}}, file);
    return done ? done->begin()->second : "refused: " + done.error().text;
}
std::string block(const std::string& search, const std::string& replace) {
    return "a.cpp\n<<<<<<< SEARCH\n" + search + "=======\n" + replace + ">>>>>>> REPLACE\n";
}

TEST(ParseEdits, ReadsBlocksWhereverTheirNameStands) {
    const std::string body = "<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE\n";
    for (const std::string& text :
         {"src/a.cpp\n" + body,
          "### `src/a.cpp`:\n```cpp\n" + body + "```\n",
          "```cpp src/a.cpp\n" + body + "```\n",
          "**src/a.cpp**\n\n```\n" + body + "```",
          "```cpp\n// src/a.cpp\n" + body + "```\n",
          "File: src/a.cpp\n" + body,
          "```cpp:src/a.cpp\n" + body + "```\n",
          "Prose first.\n\n./src/a.cpp\n" + body + "and after.\n"}) {
        const auto edits = parse_edits(text);
        ASSERT_TRUE(edits) << text << edits.error().text;
        ASSERT_EQ(edits->size(), 1U);
        EXPECT_EQ((*edits)[0].file, "src/a.cpp") << text;
        EXPECT_EQ((*edits)[0].search, "x\n");
        EXPECT_EQ((*edits)[0].replace, "y\n");
        EXPECT_EQ((*edits)[0].ordinal, 1U);
    }
    EXPECT_EQ((*parse_edits(body, "b.py"))[0].file, "b.py");
    EXPECT_EQ(
        (*parse_edits("a.cpp\n" + body + "\n" + "<<<<<<< SEARCH\nz\n=======\ny\n>>>>>>> REPLACE\n"))[1].file,
        "a.cpp"
    ) << "goes on with the same file";
}

TEST(ParseEdits, RefusesWhatCannotBeMeant) {
    for (const char* text :
         {"",
          "no edit here",
          "<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE\n",
          "a.cpp\n<<<<<<< SEARCH\nx\n=======\ny\n",
          "a.cpp\n<<<<<<< SEARCH\nx\n>>>>>>> REPLACE\n",
          "a.cpp\n<<<<<<< SEARCH\nx\n=======\ny\n=======\nz\n>>>>>>> REPLACE\n",
          "a.cpp\n<<<<<<< SEARCH\n<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE\n",
          "a.cpp\n<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE\n=======\n>>>>>>> REPLACE\n",
          "--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n",
          "diff --git a/x b/y\nrename from x\nrename to y\n",
          "diff --git a/x b/x\nold mode 100644\nnew mode 100755\n",
          "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc/passwd\n",
          "diff --git a/x b/x\nGIT binary patch\n",
          "*** Begin Patch\n*** Delete File: x\n*** End Patch\n",
          "*** Begin Patch\n*** Update File: x\n@@\n-a\n+b\n",
          "--- a/x\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n"}) {
        const auto edits = parse_edits(text);
        EXPECT_FALSE(edits) << text;
        if (!edits) {
            EXPECT_EQ(edits.error().code, errc::invalid_input) << text;
        }
    }
}

TEST(ParseEdits, TakesMarkersWithinContentByLongerOnes) {
    const auto edits = parse_edits(
        "a.md\n<<<<<<<<< SEARCH\nTitle\n=======\n=========\n<<<<<<< SEARCH\n=======\n>>>>>>> "
        "REPLACE\n>>>>>>>>> REPLACE\n"
    );
    ASSERT_TRUE(edits) << edits.error().text;
    EXPECT_EQ((*edits)[0].search, "Title\n=======\n");
    EXPECT_EQ((*edits)[0].replace, "<<<<<<< SEARCH\n=======\n>>>>>>> REPLACE\n");
    // In a diff they are content like any other.
    const auto diff =
        parse_edits("```diff\n--- a/a.md\n+++ b/a.md\n@@ -1,2 +1,3 @@\n a\n+<<<<<<< SEARCH\n b\n```\n");
    ASSERT_TRUE(diff) << diff.error().text;
    EXPECT_EQ((*diff)[0].replace, "a\n<<<<<<< SEARCH\nb\n");
}

TEST(ParseEdits, ReadsThePatchForm) {
    const auto done = applied(
        "*** Begin Patch\n*** Update File: a.py\n@@ def f():\n x = 1\n-y = 2\n+y = 3\n*** Add File: "
        "b/c.py\n+one\n+two\n*** End Patch\n",
        {{"a.py", "x = 1\ny = 2\n"}}
    );
    ASSERT_TRUE(done) << done.error().text;
    EXPECT_EQ(*done, (NewFiles{{"a.py", "x = 1\ny = 3\n"}, {"b/c.py", "one\ntwo\n"}}));
}

TEST(ParseEdits, ReadsSeveralFilesOfOneDiffAmongProse) {
    const auto done = applied(
        "Two changes:\ndiff --git a/a b/a\nindex 1..2 100644\n--- a/a\n+++ b/a\n@@ -1 +1 "
        "@@\n-one\n+eins\ndiff --git a/n b/n\nnew file mode 100644\n--- /dev/null\n+++ b/n\n@@ -0,0 +1 "
        "@@\n+new\n\\ No newline at end of file\n\nThat is all.\n",
        {{"a", "one\n"}}
    );
    ASSERT_TRUE(done) << done.error().text;
    EXPECT_EQ(*done, (NewFiles{{"a", "eins\n"}, {"n", "new\n"}}));
}

TEST(ApplyEdits, TakesOnlyWhatIsThereOnce) {
    const std::string file =
        "void f() {\n    one();\n    two();\n}\nvoid g() {\n    one();\n    three();\n}\n";
    EXPECT_EQ(
        check(block("    two();\n", "    TWO();\n"), file),
        "void f() {\n    one();\n    TWO();\n}\nvoid g() {\n    one();\n    three();\n}\n"
    );
    EXPECT_NE(
        check(block("    one();\n", "    ONE();\n"), file).find("more than once (at lines 2, 6)"),
        std::string::npos
    ) << check(block("    one();\n", "    ONE();\n"), file);
    const auto nowhere = check(block("    one();\n    for_nothing();\n", "    ONE();\n"), file);
    EXPECT_NE(nowhere.find("edit 1 of a.cpp: its lines are nowhere"), std::string::npos);
    EXPECT_NE(nowhere.find("2 |     one();"), std::string::npos) << nowhere;
    // Never by likeness: one letter is enough to be refused.
    EXPECT_TRUE(check(block("    twO();\n", "    x();\n"), file).starts_with("refused"));
}

TEST(ApplyEdits, LooksPastTrailingBlanksAndIndentation) {
    EXPECT_EQ(
        check(block("int a;\nint b;\n", "int a;\nint c;\n"), "int a;  \nint b;\t\nint d;\n"),
        "int a;  \nint c;\nint d;\n"
    );
    EXPECT_EQ(
        check(
            block("if (x) {\n    y();\n}\n", "if (x) {\n    y();\n    z();\n}\n"),
            "void f() {\n\tif (x) {\n\t    y();\n\t}\n}\n"
        ),
        "void f() {\n\tif (x) {\n\t    y();\n\t    z();\n\t}\n}\n"
    );
    EXPECT_EQ(
        check(block("y();\n", "z();\nw();\n"), "{\n        y();\n}\n"), "{\n        z();\n        w();\n}\n"
    );
    // Where indentation is the meaning, a guess is refused.
    EXPECT_TRUE(check(
                    "a.py\n<<<<<<< SEARCH\nif a:\nb()\n=======\nif a:\nb()\nc()\n>>>>>>> REPLACE\n",
                    "    if a:\n        b()\n",
                    "a.py"
    )
                    .starts_with("refused"));
    EXPECT_EQ(
        check(
            "a.py\n<<<<<<< SEARCH\nif a:\n    b()\n=======\nif a:\n    c()\n>>>>>>> REPLACE\n",
            "    if a:\n        b()\n",
            "a.py"
        ),
        "    if a:\n        c()\n"
    );
}

TEST(ApplyEdits, DropsOuterContextButNotWhatHoldsAnInsertion) {
    const std::string file = "int f() {\n    int n = 0;\n    start();\n    finish();\n    return n;\n}\n";
    EXPECT_EQ(
        check(block("    invented();\n    start();\n", "    invented();\n    begin();\n"), file),
        "int f() {\n    int n = 0;\n    begin();\n    finish();\n    return n;\n}\n"
    );
    EXPECT_EQ(
        check(
            block(
                "    start();\n    finish();\n    invented();\n",
                "    start();\n    middle();\n    finish();\n    invented();\n"
            ),
            file
        ),
        "int f() {\n    int n = 0;\n    start();\n    middle();\n    finish();\n    return n;\n}\n"
    );
    EXPECT_TRUE(
        check(
            block("    invented();\n    finish();\n", "    invented();\n    middle();\n    finish();\n"), file
        )
            .starts_with("refused")
    ) << "it stood after a line that is not there";
    // Braces alone hold nothing.
    EXPECT_TRUE(check(block("    invented();\n}\n", "    invented();\n}\nint g();\n"), "a {\n}\nb {\n    x\n")
                    .starts_with("refused"));
}

TEST(ApplyEdits, LetsALineStandForLeftOutCode) {
    const std::string file =
        "int f() {\n    int n = 0;\n    one();\n    two();\n    three();\n    return n;\n}\n";
    EXPECT_EQ(
        check(
            block(
                "int f() {\n    // ... existing code ...\n    return n;\n",
                "int f() {\n    // ... existing code ...\n    return n + 1;\n"
            ),
            file
        ),
        "int f() {\n    int n = 0;\n    one();\n    two();\n    three();\n    return n + 1;\n}\n"
    );
    EXPECT_EQ(
        check(
            block("int f() {\n    ...\n    three();\n", "int f() {\n    zero();\n    ...\n    THREE();\n"),
            file
        ),
        "int f() {\n    zero();\n    int n = 0;\n    one();\n    two();\n    THREE();\n    return n;\n}\n"
    );
    // It never gets into a file, and never takes code away.
    EXPECT_TRUE(check(block("    one();\n    two();\n", "    ONE();\n    // ... existing code ...\n"), file)
                    .starts_with("refused"));
    EXPECT_TRUE(
        check(block("    one();\n    // ... rest of the code ...\n    return n;\n", "    return 0;\n"), file)
            .starts_with("refused")
    );
    EXPECT_TRUE(check(
                    block(
                        "int f() {\n    ...\n    ...\n    return n;\n",
                        "int f() {\n    ...\n    put();\n    ...\n    return n;\n"
                    ),
                    file
    )
                    .starts_with("refused")
    ) << "between two of them there is no place";
    // Python's own three dots.
    EXPECT_EQ(
        check(
            "a.py\n<<<<<<< SEARCH\ndef f(): pass\n=======\ndef f():\n    ...\n>>>>>>> REPLACE\n",
            "def f(): pass\n",
            "a.py"
        ),
        "def f():\n    ...\n"
    );
}

TEST(ApplyEdits, GoesThroughAFileInOrder) {
    const std::string file = "a1\nb2\nc3\n";
    EXPECT_EQ(check(block("a1\n", "A1\n") + block("b2\n", "B2\n"), file), "A1\nB2\nc3\n");
    EXPECT_EQ(check(block("a1\n", "A1\n") + block("A1\nb2\n", "A1\nB2\n"), file), "A1\nB2\nc3\n")
        << "what was written before may be context";
    EXPECT_NE(
        check(block("a1\n", "A1\n") + block("A1\n", "x1\n"), file)
            .find("edits 1 and 2 of a.cpp change the same line"),
        std::string::npos
    );
    EXPECT_TRUE(check(block("a1\n", "A1\n") + block("a1\n", "x1\n"), file).starts_with("refused"));
    EXPECT_EQ(check(block("a1\n", "a1\nnew\n") + block("a1\n", "a1\nnew\n"), file), "a1\nnew\nb2\nc3\n")
        << "said twice is meant once";
}

TEST(ApplyEdits, KeepsLineEndingsAndTheEnd) {
    EXPECT_EQ(check(block("b2\n", "B2\nB3\n"), "a1\r\nb2\r\nc3\r\n"), "a1\r\nB2\r\nB3\r\nc3\r\n");
    EXPECT_EQ(
        check("a.cpp\r\n<<<<<<< SEARCH\r\nb2\r\n=======\r\nB2\r\n>>>>>>> REPLACE\r\n", "a1\nb2\nc3\n"),
        "a1\nB2\nc3\n"
    );
    EXPECT_EQ(check(block("c3\n", "C3\n"), "a1\nc3"), "a1\nC3");
    EXPECT_EQ(check(block("c3\n", "c3\nd4\n"), "a1\nc3"), "a1\nc3\nd4");
    EXPECT_EQ(check(block("c3\n", ""), "a1\nc3"), "a1");
}

TEST(ApplyEdits, StaysInTheTree) {
    for (const char* path : {"../x", "/etc/passwd", "a/../../x", "a\\b", "a//b", "./.", "C:/x", "a/./b"}) {
        const auto done = apply_edits({{path, "", "x\n", 1}}, [](const std::string&) -> result<std::string> {
            return fail(errc::not_found, "x");
        });
        ASSERT_FALSE(done) << path;
        EXPECT_EQ(done.error().code, errc::invalid_input) << path;
    }
    EXPECT_EQ(
        apply_edits(
            {{"a", "x\n", "x\n", 1}},
            [](const std::string&) -> result<std::string> { return std::string{"x\n"}; }
        )
            .error()
            .code,
        errc::invalid_input
    );
    EXPECT_EQ(
        apply_edits(
            {{"a", "", "y\n", 1}},
            [](const std::string&) -> result<std::string> { return std::string{"x\n"}; }
        )
            .error()
            .code,
        errc::conflict
    );
    EXPECT_EQ(
        apply_edits(
            {{"a", "x\n", "y\n", 1}},
            [](const std::string&) -> result<std::string> { return fail(errc::not_found, "x"); }
        )
            .error()
            .code,
        errc::conflict
    );
    EXPECT_EQ(
        apply_edits(
            {{"a", "x\n", "y\n", 1}},
            [](const std::string&) -> result<std::string> {
                return std::string{"x\n\0", 3};
            }
        )
            .error()
            .code,
        errc::invalid_input
    );
    EXPECT_EQ(
        apply_edits(
            {{"a", "x\n", "y\n", 1}},
            [](const std::string&) -> result<std::string> { return fail(errc::io, "disk"); }
        )
            .error()
            .code,
        errc::io
    );
}

TEST(ApplyEdits, EndsSoonOnHostileInput) {
    std::string file, diff = "--- a/a.cpp\n+++ b/a.cpp\n";
    for (int i = 0; i < 20'000; ++i) file += "same();\n";
    EXPECT_TRUE(check(block("same();\nsame();\n", "x();\n"), file).starts_with("refused"));
    for (int i = 0; i < 100'000; ++i) diff += "@@ -1 +1 @@\n-x\n+y\n";
    EXPECT_TRUE(check(diff, "x\n") == "y\n" || check(diff, "x\n").starts_with("refused"));
    std::string many;
    for (int i = 0; i < 2000; ++i) many += fmt::format("@@ -1 +1 @@\n-x{}\n+y\n", i);
    EXPECT_TRUE(check("--- a/a.cpp\n+++ b/a.cpp\n" + many, "x\n").starts_with("refused"));
    EXPECT_FALSE(parse_edits(std::string(5U << 20U, 'x')));
}

}  // namespace
}  // namespace heal::vcs
