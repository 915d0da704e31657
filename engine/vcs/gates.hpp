// What a patch may not do, whatever it is for and whoever wrote it. Each gate is looked at, so that the
// reviewer sees all verdicts. Pure.
#pragma once

#include "base/json.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace heal::vcs {

struct FileChange {
    std::string path;                          ///< in the repository
    std::optional<std::string> before, after;  ///< nullopt: not there
    unsigned mode_before = 0,
             mode_after = 0;  ///< as git has them: 0100644, 0100755, 0120000 (a symbolic link); 0: not there
};

struct GateRules {
    std::vector<std::string>
        allowed;  ///< globs (`*` within a folder, `**` across); empty: all that is not forbidden
    std::vector<std::string> forbidden;  ///< besides the built-in ones: CI, locks, .git, hooks, secrets
    std::vector<std::string> tests;      ///< globs of test files; empty: by the usual names
    unsigned max_files = 10;
    unsigned max_lines = 400;  ///< added and removed, together
    std::size_t max_bytes = 256U << 10U;
};

struct GateVerdict {
    std::string
        gate;  ///< "paths", "links", "size", "protected", "tests", "special_case", "licence", "content"
    bool ok = true;
    std::string reason;  ///< "" when ok; else one sentence with the place
};

/// All verdicts, in the order above. Tests may be added, never deleted, weakened (fewer assertions, skips) or
/// changed where they were. special_case: the patch compares with literals of the tests and returns what they
/// expect, instead of computing it.
/// @param tests  path → content of the test files of the tree
std::vector<GateVerdict> check_gates(
    const std::vector<FileChange>& changes,
    const GateRules& rules,
    const std::vector<std::pair<std::string, std::string>>& tests
);
json::array to_json(const std::vector<GateVerdict>& verdicts);
/// True when all are ok.
bool passed(const std::vector<GateVerdict>& verdicts);

/// By the rules' globs, or by the usual names when there are none.
bool is_test_path(const GateRules& rules, std::string_view path);

/// `*` matches within a folder, `**` across folders, `?` one character.
bool matches_path(std::string_view glob, std::string_view path) noexcept;

}  // namespace heal::vcs
