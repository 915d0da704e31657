// Does a patch answer the tests instead of computing? Looks at literals: what the tests put in and want out,
// and what the patch compares with and gives back. Knows no language's grammar; docs/adr/0040 has what it
// finds and what it cannot. Pure.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace heal::vcs {

struct FileChange;

/// Per line of a file, true when it belongs to tests that stand in the same file as the code (`main` with
/// assertions, `#[cfg(test)]`, `def test_…`).
std::vector<bool> test_lines(const std::string& path, const std::string& content);

/// "" or one sentence with the place.
/// @param tests  path → content of the test files of the tree
std::string find_special_case(
    const std::vector<FileChange>& changes, const std::vector<std::pair<std::string, std::string>>& tests
);

/// A word that begins an assertion: assert…, EXPECT_…, expect, REQUIRE, CHECK, should.
bool is_assertion_word(std::string_view word);

}  // namespace heal::vcs
