// Lines and tokens of source text, as edits, gates, patterns and excerpts need them. Knows no language's
// grammar. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace heal::vcs {

/// Of an identifier, in any language.
bool is_word(char c) noexcept;
/// The lines without their ends ("\n", "\r\n"). A text that ends with "\n" has no empty last line; "" has
/// none.
std::vector<std::string_view> lines_of(std::string_view text);

std::string_view trim(std::string_view text) noexcept;
std::string_view trim_right(std::string_view text) noexcept;
/// The blanks and tabs that a line begins with.
std::string_view indentation(std::string_view line) noexcept;
std::string lower(std::string_view text);

/// How one text becomes another, line by line.
struct LineChange {
    enum class Kind { same, removed, added } kind = Kind::same;
    unsigned before = 0, after = 0;  ///< index of the line; of `removed` only before, of `added` only after
};
/// Shortest script (Myers); removed lines come before the added ones in their place. Over 1000 changes the
/// middle is taken as removed and added whole.
std::vector<LineChange> diff_lines(
    const std::vector<std::string_view>& before, const std::vector<std::string_view>& after
);

struct Token {
    enum class Kind { word, number, string, mark } kind = Kind::mark;
    std::string_view text;  ///< of strings with their quotes
    unsigned line = 0;      ///< index
};
/// Comments of the C and of the `#` kind are left out when `hash_comments` says so; strings end at their line
/// unless they are tripled. Linear.
std::vector<Token> tokens_of(std::string_view text, bool hash_comments);
/// True for languages whose comments begin with `#`, by the path's end.
bool has_hash_comments(std::string_view path) noexcept;

}  // namespace heal::vcs
