// libFuzzer: what a model may send as edits, and what a patch may hold. Checks what must hold for any bytes:
// paths stay in the tree, an edit changes only the file that it names, nothing is written for left-out code,
// the gates never fail.
#include "vcs/edit.hpp"
#include "vcs/gates.hpp"
#include "vcs/pattern.hpp"
#include "vcs/source.hpp"
#include "vcs/text.hpp"

#include <cstdlib>
#include <string>
#include <string_view>

using namespace heal;
using namespace heal::vcs;

namespace {

void must(bool holds) {
    if (!holds) std::abort();
}

const std::string content =
    "int f(int n) {\n    if (n > 1) {\n        return n * f(n - 1);\n    }\n\n    return 1;\n}\nint main() "
    "{\n    assert(f(3) == 6);\n}\n";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const auto read = [](const std::string& path) -> result<std::string> {
        must(path.find("..") != 0 && !path.starts_with('/'));
        if (path == "a.cpp") return content;
        return fail(errc::not_found, path);
    };
    // As it is, and as the inside of a block, so that the fuzzer need not find the markers.
    const auto half = text.substr(0, size / 2), rest = text.substr(size / 2);
    for (const std::string& form :
         {text,
          "a.cpp\n<<<<<<< SEARCH\n" + half + "\n=======\n" + rest + "\n>>>>>>> REPLACE\n",
          "--- a/a.cpp\n+++ b/a.cpp\n@@ ... @@\n" + text}) {
        const auto edits = parse_edits(form, "a.cpp");
        if (!edits) continue;
        must(!edits->empty());
        const auto files = apply_edits(*edits, read);
        if (!files) continue;
        for (const auto& [path, after] : *files) {
            bool named = false;
            for (const Edit& e : *edits) named = named || e.file == path;
            must(named);
            must(path != "a.cpp" || after != content);
            // The end of a file stays as it was.
            if (path == "a.cpp" && !after.empty()) must(after.back() == '\n');
            const auto verdicts = check_gates(
                {{path,
                  path == "a.cpp" ? std::optional{content} : std::nullopt,
                  after,
                  path == "a.cpp" ? 0100644U : 0U,
                  0100644U}},
                {},
                {{"tests/t.cpp", half}}
            );
            must(verdicts.size() == 8);
            for (const auto& v : verdicts) must(v.ok == v.reason.empty());
        }
    }
    const auto lines = lines_of(text);
    const auto other = lines_of(rest);
    std::size_t same = 0, removed = 0, added = 0;
    for (const auto& c : diff_lines(lines, other)) {
        if (c.kind == LineChange::Kind::same) must(lines.at(c.before) == other.at(c.after)), ++same;
        removed += c.kind == LineChange::Kind::removed, added += c.kind == LineChange::Kind::added;
    }
    must(same + removed == lines.size() && same + added == other.size());
    must(places_of(text).size() <= 64);
    if (const auto pattern = mine_pattern("a.cpp", half, rest))
        for (const auto& m : find_pattern(*pattern, "a.cpp", half))
            must(m.first_line >= 1 && m.first_line <= m.last_line);
    if (size > 2) matches_path(half, rest);
    return 0;
}
