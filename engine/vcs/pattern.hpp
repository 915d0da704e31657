// What fixed a kind of bug before, as search and replace with holes ("$1", "$2": an identifier, literal or
// balanced expression). Pure.
#pragma once

#include "base/error.hpp"
#include "base/json.hpp"
#include "vcs/edit.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace heal::vcs {

struct CodePattern {
    std::string search, replace;  ///< lines with holes; at least 8 characters that are no hole
    std::string suffix;           ///< of the files that it is for, ".cpp"
};

/// The pattern of one small change; nullopt when it is too large (over 20 lines), has too few fixed words, or
/// the change adds a name that the holes cannot give.
std::optional<CodePattern> mine_pattern(
    const std::string& path, const std::string& before, const std::string& after
);

struct PatternMatch {
    unsigned first_line = 0, last_line = 0;
    std::string text;     ///< what was found
    std::string replace;  ///< what would take its place, indented alike
};
/// All places, at most 1000.
std::vector<PatternMatch> find_pattern(
    const CodePattern& pattern, const std::string& path, std::string_view content
);

/// The edit that applies it at its only place near `line` (0: in the whole file). nullopt: none, or more than
/// one.
std::optional<Edit> apply_pattern(
    const CodePattern& pattern,
    const std::string& path,
    std::string_view content,
    unsigned first_line,
    unsigned last_line
);

}  // namespace heal::vcs
