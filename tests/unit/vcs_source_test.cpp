#include "vcs/source.hpp"
#include "vcs_world.hpp"

#include <fmt/format.h>

namespace heal::vcs {
namespace {

std::string told(const std::string& trace) {
    std::string out;
    for (const Place& p : places_of(trace)) out += fmt::format("{}:{} {}\n", p.file, p.line, p.function);
    return out;
}

TEST(Places, OfEachLanguage) {
    struct Row {
        const char *name, *trace, *places;
    };
    const std::vector<Row> rows{
        {"python",
         "Traceback (most recent call last):\n  File \"/app/main.py\", line 10, in main\n    run(x)\n    "
         "^^^^^^\n  File \"/app/shop/cart.py\", line 3, in total\n    return 1 / n\n           "
         "~~^~~\nZeroDivisionError: division by zero\n",
         "/app/shop/cart.py:3 total\n/app/main.py:10 main\n"},
        {"python, chained: the cause is printed first",
         "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\nKeyError: 1\n\nThe above "
         "exception was the direct cause of the following exception:\n\nTraceback (most recent call last):\n "
         " File \"b.py\", line 2, in g\nValueError\n",
         "a.py:1 f\nb.py:2 g\n"},
        {"java, the cause is printed last",
         "java.lang.IllegalStateException: x\n\tat com.acme.shop.Cart.total(Cart.java:12)\n\tat "
         "java.base/java.lang.Thread.run(Thread.java:833)\n\tat com.acme.Native.f(Native Method)\nCaused by: "
         "java.lang.NullPointerException\n\tat app//com.acme.shop.Item$Price.get(Item.java:7)\n\t... 2 "
         "more\n",
         "com/acme/shop/Item.java:7 com.acme.shop.Item$Price.get\ncom/acme/shop/Cart.java:12 "
         "com.acme.shop.Cart.total\njava/lang/Thread.java:833 java.lang.Thread.run\n"},
        {"kotlin", "\tat com.acme.MainKt.main(Main.kt:3)\n", "com/acme/Main.kt:3 com.acme.MainKt.main\n"},
        {"node",
         "TypeError: x is undefined\n    at total (/app/src/cart.js:10:15)\n    at async Object.run "
         "(file:///app/src/main.mjs:3:1)\n    at /app/src/x.ts:1:2\n    at node:internal/main:1:2\n    at "
         "process.f (node:internal/process/task_queues:95:5)\n",
         "/app/src/cart.js:10 total\n/app/src/main.mjs:3 run\n/app/src/x.ts:1 \n"},
        {"browser",
         "total@https://shop.example/static/cart.js?v=3:10:15\n    at f (webpack:///./src/a.js:3:4)\n",
         "/static/cart.js:10 total\n./src/a.js:3 f\n"},
        {"go",
         "panic: boom\n\ngoroutine 1 "
         "[running]:\nmain.total(...)\n\t/app/cart.go:12\nmain.(*Shop).Run(0xc000010000, "
         "0x1)\n\t/app/main.go:5 +0x1d\ncreated by main.main in goroutine 1\n\t/app/main.go:9 +0x2\n",
         "/app/cart.go:12 main.total\n/app/main.go:5 main.(*Shop).Run\n/app/main.go:9 main.main\n"},
        {"rust",
         "thread 'main' panicked at src/main.rs:4:5:\nboom\nstack backtrace:\n   0: rust_begin_unwind\n      "
         "       at /rustc/abc/library/std/src/panicking.rs:645:5\n   1: shop::cart::total\n             at "
         "./src/cart.rs:12:9\n",
         "src/main.rs:4 \n/rustc/abc/library/std/src/panicking.rs:645 rust_begin_unwind\n./src/cart.rs:12 "
         "shop::cart::total\n"},
        {"rust, old", "thread 'main' panicked at 'index 3', src/a.rs:7:1\n", "src/a.rs:7 \n"},
        {"c#",
         "System.Exception: x\n   at Acme.Cart.Total(Int32 n) in /src/Cart.cs:line 12\n   at "
         "Acme.Program.Main()\n",
         "/src/Cart.cs:12 Acme.Cart.Total\n"},
        {"ruby",
         "app/cart.rb:3:in `total': boom (RuntimeError)\n\tfrom app/main.rb:10:in `block in run'\n\tfrom "
         "app/x.rb:1:in 'Shop#go'\n",
         "app/cart.rb:3 total\napp/main.rb:10 run\napp/x.rb:1 Shop#go\n"},
        {"php",
         "PHP Fatal error:  Uncaught Exception: x in /app/cart.php:3\nStack trace:\n#0 /app/main.php(12): "
         "Cart->total()\n#1 {main}\n  thrown in /app/cart.php on line 3\n",
         "/app/cart.php:3 \n/app/main.php:12 Cart->total\n/app/cart.php:3 \n"},
        {"gdb",
         "#0  0x00007f in shop::total (n=0, v=std::vector of length 2) at ../src/cart.cpp:12\n#1  main "
         "(argc=1) at src/main.cpp:5\n",
         "../src/cart.cpp:12 shop::total\nsrc/main.cpp:5 main\n"},
        {"asan",
         "==1==ERROR: AddressSanitizer: heap-use-after-free\n    #0 0x55 in shop::total(int, char const*) "
         "/src/cart.cpp:12:5\n    #1 0x56 in main /src/main.cpp:3:1\n    #2 0x57  (/lib/libc.so.6+0x2)\n",
         "/src/cart.cpp:12 shop::total\n/src/main.cpp:3 main\n"},
        {"assert",
         "shop: ../src/cart.cpp:12: int shop::total(int): Assertion `n > 0' failed.\nAborted\n",
         "../src/cart.cpp:12 shop::total\n"},
        {"assert without a program", "src/a.cpp:3: int f(): Assertion `x' failed.", "src/a.cpp:3 f\n"},
        {"bsd assert",
         "Assertion failed: (n > 0), function total, file cart.c, line 12.\n",
         "cart.c:12 total\n"},
        {"ubsan", "src/a.cpp:3:9: runtime error: signed integer overflow\n", "src/a.cpp:3 \n"},
        {"boost",
         " 0# shop::total(int) at /src/cart.cpp:12\n 1# main at /src/main.cpp:3\n",
         "/src/cart.cpp:12 shop::total\n/src/main.cpp:3 main\n"},
        {"any", "E1128 something failed at server.cc:88 badly\n", "server.cc:88 \n"},
        {"none", "connection refused 10.0.0.1:5432 at 12:30:11\n", ""}};
    for (const Row& row : rows) EXPECT_EQ(told(row.trace), row.places) << row.name;
}

TEST(Places, AreBounded) {
    std::string trace = "Traceback (most recent call last):\n";
    for (int i = 0; i < 1000; ++i) trace += fmt::format("  File \"a{}.py\", line {}, in f\n", i, i + 1);
    EXPECT_EQ(places_of(trace).size(), 64U);
    EXPECT_TRUE(places_of("").empty());
    EXPECT_TRUE(places_of(std::string(200'000, ':')).empty());
}

TEST(FileOf, IsTheLongestCommonEnd) {
    const std::vector<std::string> files{
        "src/a/cart.cpp", "src/b/cart.cpp", "src/main.cpp", "lib/util.py", "README.md"};
    EXPECT_EQ(file_of(files, "/build/app/src/a/cart.cpp"), "src/a/cart.cpp");
    EXPECT_EQ(file_of(files, "a/cart.cpp"), "src/a/cart.cpp");
    EXPECT_EQ(file_of(files, "cart.cpp"), "") << "two have this end";
    EXPECT_EQ(file_of(files, "../src/main.cpp"), "src/main.cpp");
    EXPECT_EQ(file_of(files, "./src/main.cpp"), "src/main.cpp");
    EXPECT_EQ(file_of(files, "main.cpp"), "src/main.cpp");
    EXPECT_EQ(file_of(files, "C:\\app\\src\\main.cpp"), "src/main.cpp");
    EXPECT_EQ(file_of(files, "other/main.cpp"), "") << "a relative path says all that it knows";
    EXPECT_EQ(file_of(files, "/usr/lib/python3/site-packages/util.py"), "");
    EXPECT_EQ(file_of(files, "domain.cpp"), "");
    EXPECT_EQ(file_of(files, ""), "");
}

class ExcerptTest : public VcsTest {
protected:
    void SetUp() override {
        sh(folder,
           "git init -q --bare -b main remote.git; git init -q -b main built; cd built; git remote add "
           "origin "
           "../remote.git");
        write(
            folder + "/built/src/cart.cpp",
            "#include <vector>\n\nnamespace shop {\n\nclass Cart {\npublic:\n    // what it costs\n    int "
            "total(const std::vector<int>& v) {\n        int sum = 0;\n        for (int x : v) {\n           "
            " sum += x;\n        }\n        return sum / v.size();\n    }\n    int "
            "other() { return 1; }\n};\n\n}  // namespace shop\n"
        );
        write(
            folder + "/built/app/cart.py",
            "import os\n\nclass Cart:\n    def one(self):\n        return 1\n\n    @cached\n    def "
            "total(self, v):\n        n = len(v)\n\n        return 1 / n\n\n    def two(self):\n        "
            "return 2\n"
        );
        write(
            folder + "/built/app/cart.rb",
            "class Cart\n  def total(v)\n    v.each do |x|\n      y\n    end\n  end\n\n  def two\n  "
            "end\nend\n"
        );
        write(
            folder + "/built/app/cart.go",
            "package main\n\nimport \"fmt\"\n\ntype Cart struct {\n\tn int\n}\n\nfunc (c *Cart) Total() int "
            "{\n\tif c.n == 0 {\n\t\tfmt.Println()\n\t}\n\treturn 1 / c.n\n}\n"
        );
        write(
            folder + "/built/app/cart.js",
            "import x from 'y'\n\nexport class Cart {\n  total (v) {\n    v.forEach(p => {\n      use(p)\n   "
            " })\n  }\n}\n"
        );
        sh(folder + "/built", "git add -A; git commit -qm first; git push -q origin HEAD:main");
        write(
            folder + "/built/src/cart.cpp",
            read(folder + "/built/src/cart.cpp")
                .replace(read(folder + "/built/src/cart.cpp").find("sum += x"), 8, "sum += 2 * x")
        );
        sh(folder + "/built", "git commit -qam 'twice'; git push -q origin HEAD:main");
        repository = *open_repository(
            {"shop", folder + "/remote.git", "main", ""}, folder + "/state", std::chrono::seconds{20}, cancel
        );
        head = *repository->resolve("main");
    }
    std::unique_ptr<Repository> repository;
    std::string head;
};

TEST_F(ExcerptTest, AreTheFunctionsAroundTheFrames) {
    const auto found = excerpts(
        *repository,
        head,
        {{"/build/src/cart.cpp", 13, "shop::Cart::total"},
         {"src/cart.cpp", 11, ""},
         {"/usr/include/vector", 3, ""},
         {"app/cart.py", 11, "total"},
         {"app/cart.rb", 4, "total"},
         {"src/cart.cpp", 15, "other"},
         {"src/cart.cpp", 999, ""}},
        100'000
    );
    ASSERT_TRUE(found) << found.error().text;
    std::string all;
    for (const auto& e : *found) all += e.file + "\n" + e.text;
    ASSERT_EQ(found->size(), 4U) << all;
    const Excerpt& cpp = (*found)[0];
    EXPECT_EQ(cpp.file, "src/cart.cpp");
    EXPECT_EQ(cpp.first_line, 7U);
    EXPECT_EQ(cpp.line, 13U);
    EXPECT_TRUE(cpp.text.starts_with("    // what it costs\n    int total(")) << cpp.text;
    EXPECT_TRUE(cpp.text.ends_with("        return sum / v.size();\n    }\n")) << cpp.text;
    ASSERT_EQ(cpp.history.size(), 2U);
    EXPECT_EQ(cpp.history[0].summary == "twice" || cpp.history[1].summary == "twice", true);
    EXPECT_EQ(
        (*found)[1].text, "    @cached\n    def total(self, v):\n        n = len(v)\n\n        return 1 / n\n"
    );
    EXPECT_EQ((*found)[2].text, "  def total(v)\n    v.each do |x|\n      y\n    end\n  end\n");
    EXPECT_EQ((*found)[3].text, "    int other() { return 1; }\n");
}

TEST_F(ExcerptTest, KnowLanguagesWithoutSemicolons) {
    const auto found =
        excerpts(*repository, head, {{"app/cart.go", 11, ""}, {"app/cart.js", 6, ""}}, 100'000);
    ASSERT_TRUE(found);
    ASSERT_EQ(found->size(), 2U);
    EXPECT_EQ(
        (*found)[0].text,
        "func (c *Cart) Total() int {\n\tif c.n == 0 {\n\t\tfmt.Println()\n\t}\n\treturn 1 / c.n\n}\n"
    );
    EXPECT_EQ((*found)[1].text, "  total (v) {\n    v.forEach(p => {\n      use(p)\n    })\n  }\n");
}

TEST_F(ExcerptTest, AreFoundByNameWhereTheLineIsOfAnotherRevision) {
    write(
        folder + "/built/src/two.cpp",
        "int rate(int a) { return a; }\nint rate(long a) { return 2; }\nint use(int a) {\n    return "
        "rate(a);\n}\n"
    );
    sh(folder + "/built", "git add -A; git commit -qm third; git push -q origin HEAD:main");
    ASSERT_TRUE(repository->fetch());
    head = *repository->resolve("main");
    const auto found = excerpts(
        *repository,
        head,
        {{"src/cart.cpp", 999, "int shop::Cart::other() const"},
         {"app/cart.py", 5, "Cart.two"},
         {"app/cart.go", 0, "main.(*Cart).Total(0xc000012345)"},
         {"src/cart.cpp", 999, "shop::Cart::none()"},
         {"src/two.cpp", 999, "rate(int)"},  // two have this name
         {"src/two.cpp", 4, "inlined::elsewhere"}},
        100'000
    );
    ASSERT_TRUE(found) << found.error().text;
    ASSERT_EQ(found->size(), 4U);
    EXPECT_EQ((*found)[0].text, "    int other() { return 1; }\n");
    EXPECT_EQ((*found)[0].line, 15U);
    EXPECT_EQ((*found)[1].text, "    def two(self):\n        return 2\n");
    EXPECT_TRUE((*found)[2].text.starts_with("func (c *Cart) Total() int {")) << (*found)[2].text;
    EXPECT_TRUE((*found)[3].text.starts_with("int use(int a)")) << "a line that is there counts";
}

TEST_F(ExcerptTest, FitIntoWhatIsAllowed) {
    const auto found = excerpts(*repository, head, {{"src/cart.cpp", 13, ""}, {"app/cart.py", 11, ""}}, 120);
    ASSERT_TRUE(found);
    std::size_t bytes = 0;
    for (const auto& e : *found) bytes += e.text.size();
    EXPECT_LE(bytes, 120U);
    ASSERT_FALSE(found->empty());
    EXPECT_NE((*found)[0].text.find("return sum"), std::string::npos);
}

}  // namespace
}  // namespace heal::vcs
