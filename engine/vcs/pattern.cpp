#include "vcs/pattern.hpp"

#include "vcs/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace heal::vcs {
namespace {

using Kind = Token::Kind;
using Lines = std::vector<std::string_view>;

constexpr std::size_t max_lines = 20, min_fixed = 8, max_matches = 1000, max_hole_tokens = 24,
                      max_steps = 20'000;

const std::set<std::string_view>& keywords() {
    static const std::set<std::string_view> words{
        "if",         "else",      "for",      "while",   "do",        "switch",      "case",    "default",
        "break",      "continue",  "return",   "goto",    "try",       "catch",       "throw",   "throws",
        "finally",    "new",       "delete",   "sizeof",  "true",      "false",       "nullptr", "null",
        "NULL",       "None",      "True",     "False",   "nil",       "undefined",   "NaN",     "and",
        "or",         "not",       "is",       "in",      "def",       "class",       "struct",  "enum",
        "const",      "constexpr", "static",   "auto",    "let",       "var",         "mut",     "fn",
        "func",       "function",  "lambda",   "with",    "as",        "from",        "import",  "raise",
        "except",     "pass",      "yield",    "await",   "async",     "this",        "self",    "super",
        "int",        "long",      "short",    "char",    "bool",      "float",       "double",  "void",
        "unsigned",   "signed",    "string",   "size_t",  "std",       "vector",      "map",     "typeof",
        "instanceof", "final",     "public",   "private", "protected", "elif",        "end",     "then",
        "begin",      "rescue",    "ensure",   "unless",  "until",     "match",       "Some",    "Ok",
        "Err",        "err",       "len",      "range",   "print",     "static_cast", "move",    "int64_t",
        "uint64_t",   "int32_t",   "uint32_t", "boolean", "byte",      "String",      "Object",  "List",
        "Map",        "Optional",  "defer",    "go",      "chan",      "select",      "type",    "interface",
        "package"};
    return words;
}

/// A hole as one word, so that it goes through the tokens as such.
std::string marked(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '$' && i + 1 < text.size() && text[i + 1] >= '1' && text[i + 1] <= '9') {
            std::size_t end = i + 1;
            while (end < text.size() && end < i + 3 && text[end] >= '0' && text[end] <= '9') ++end;
            out += fmt::format(" __hole_{}__ ", text.substr(i + 1, end - i - 1));
            i = end - 1;
        } else {
            out += text[i];
        }
    }
    return out;
}
int hole_of(std::string_view word) {
    if (!word.starts_with("__hole_") || !word.ends_with("__")) return 0;
    return std::atoi(std::string{word.substr(7, word.size() - 9)}.c_str());
}

/// May this word be another elsewhere? Names of functions, members and types are what a pattern is about;
/// variables are not.
bool is_variable(const std::vector<Token>& t, std::size_t i) {
    if (t[i].kind != Kind::word || keywords().contains(t[i].text)) return false;
    const auto before = i > 0 && t[i - 1].line == t[i].line ? t[i - 1].text : std::string_view{};
    const auto after = i + 1 < t.size() ? t[i + 1].text : std::string_view{};
    if (after == "(" || after == "::" || before == "::" || before == "." || before == "->") return false;
    // A type before a name: "Order o"
    return !(
        i + 1 < t.size() && t[i + 1].line == t[i].line && t[i + 1].kind == Kind::word &&
        !keywords().contains(t[i + 1].text)
    );
}

std::string_view slice(
    std::string_view text, const std::vector<Token>& t, std::size_t first, std::size_t last
) {
    const auto* from = t[first].text.data();
    const auto* to = t[last - 1].text.data() + t[last - 1].text.size();
    return text.substr(static_cast<std::size_t>(from - text.data()), static_cast<std::size_t>(to - from));
}

/// Lines with the indentation that all share cut off.
std::string dedented(const Lines& lines) {
    std::size_t common = std::string_view::npos;
    for (const auto line : lines)
        if (!trim(line).empty()) common = std::min(common, indentation(line).size());
    std::string out;
    for (const auto line : lines)
        (out += line.substr(std::min({line.size(), common, indentation(line).size()}))) += '\n';
    return out;
}

class Matcher {
public:
    Matcher(const std::vector<Token>& pattern, const std::vector<Token>& file, std::string_view text)
        : p_(pattern), t_(file), text_(text) {}

    /// Matches at file token `start`; index behind the match, or 0.
    std::size_t at(std::size_t start) {
        holes_.clear();
        steps_ = 0;
        start_ = start;
        return go(0, start);
    }
    const std::map<int, std::string>& holes() const { return holes_; }

private:
    std::size_t go(std::size_t i, std::size_t j) {
        if (++steps_ > max_steps) return 0;
        if (i == p_.size()) return j == t_.size() || t_[j].line != t_[j - 1].line ? j : 0;
        if (j >= t_.size()) return 0;
        // A line's end is where the pattern has one.
        if (i > 0 && (p_[i].line != p_[i - 1].line) != (t_[j].line != t_[j - 1].line)) return 0;
        const int hole = hole_of(p_[i].text);
        if (hole == 0) return p_[i].text == t_[j].text ? go(i + 1, j + 1) : 0;
        if (const auto known = holes_.find(hole); known != holes_.end()) {
            for (std::size_t end = j + 1; end <= std::min(t_.size(), j + max_hole_tokens); ++end)
                if (slice(text_, t_, j, end) == known->second) return go(i + 1, end);
            return 0;
        }
        int depth = 0;
        for (std::size_t end = j;
             end < std::min(t_.size(), j + max_hole_tokens) && t_[end].line == t_[j].line;
             ++end) {
            const auto& token = t_[end];
            if (token.kind == Kind::mark) {
                if (token.text == "(" || token.text == "[")
                    ++depth;
                else if (token.text == ")" || token.text == "]")
                    --depth;
                else if (depth == 0 && (token.text == ";" || token.text == "{" || token.text == "}" || token.text == "," || token.text == "=" || token.text == ":" || token.text == "&&" || token.text == "||" || token.text == "?"))
                    return 0;
                if (depth < 0) return 0;
            }
            if (depth > 0) continue;
            if (token.kind == Kind::word && keywords().contains(token.text) && token.text != "this" &&
                token.text != "self")
                return 0;
            holes_[hole] = slice(text_, t_, j, end + 1);
            if (const auto done = go(i + 1, end + 1); done > 0) return done;
            holes_.erase(hole);
        }
        return 0;
    }

    const std::vector<Token>&p_, &t_;
    std::string_view text_;
    std::map<int, std::string> holes_;
    std::size_t steps_ = 0, start_ = 0;
};

std::string filled(
    const std::string& replace, const std::map<int, std::string>& holes, std::string_view indent
) {
    std::string out;
    for (const auto line : lines_of(replace)) {
        if (!trim(line).empty()) out += indent;
        for (std::size_t i = 0; i < line.size(); ++i) {
            if (line[i] == '$' && i + 1 < line.size() && line[i + 1] >= '1' && line[i + 1] <= '9') {
                std::size_t end = i + 1;
                while (end < line.size() && end < i + 3 && line[end] >= '0' && line[end] <= '9') ++end;
                const auto it = holes.find(std::atoi(std::string{line.substr(i + 1, end - i - 1)}.c_str()));
                if (it != holes.end()) out += it->second;
                i = end - 1;
            } else {
                out += line[i];
            }
        }
        out += '\n';
    }
    return out;
}

}  // namespace

std::optional<CodePattern> mine_pattern(
    const std::string& path, const std::string& before, const std::string& after
) {
    const auto a = lines_of(before), b = lines_of(after);
    const auto ops = diff_lines(a, b);
    std::size_t first = ops.size(), last = 0;
    for (std::size_t i = 0; i < ops.size(); ++i)
        if (ops[i].kind != LineChange::Kind::same) first = std::min(first, i), last = i + 1;
    if (first >= last) return std::nullopt;
    // What is only put in is known by the line that it stands before, or else after.
    const auto removes = std::any_of(
        ops.begin() + static_cast<long>(first),
        ops.begin() + static_cast<long>(last),
        [](const LineChange& c) { return c.kind != LineChange::Kind::added; }
    );
    if (!removes) {
        std::size_t next = last;
        while (next < ops.size() && trim(a[ops[next].before]).empty()) ++next;
        if (next < ops.size() && trim(a[ops[next].before]).size() > 3)
            last = next + 1;
        else if (first > 0)
            --first;
    }
    if (last - first > max_lines) return std::nullopt;
    Lines olds, news;
    for (std::size_t i = first; i < last; ++i) {
        if (ops[i].kind != LineChange::Kind::added) olds.push_back(a[ops[i].before]);
        if (ops[i].kind != LineChange::Kind::removed) news.push_back(b[ops[i].after]);
    }
    const bool hash = has_hash_comments(path);
    // Both sides lose the same indentation.
    Lines both = olds;
    both.insert(both.end(), news.begin(), news.end());
    const auto together = dedented(both);
    const auto lines = lines_of(together);
    std::string search, replace;
    for (std::size_t i = 0; i < lines.size(); ++i) ((i < olds.size() ? search : replace) += lines[i]) += '\n';
    for (const std::string* text : {&search, &replace})
        for (std::size_t i = 0; i + 1 < text->size(); ++i)
            if ((*text)[i] == '$' && (*text)[i + 1] >= '1' && (*text)[i + 1] <= '9') return std::nullopt;

    std::map<std::string, int, std::less<>> holes;
    std::set<std::string, std::less<>> fixed;
    std::size_t fixed_bytes = 0, fixed_words = 0;
    const auto with_holes = [&](const std::string& text, bool is_search) -> std::optional<std::string> {
        const auto t = tokens_of(text, hash);
        std::string out;
        std::size_t done = 0;
        for (std::size_t i = 0; i < t.size(); ++i) {
            const std::size_t at = static_cast<std::size_t>(t[i].text.data() - text.data());
            out += std::string_view{text}.substr(done, at - done);
            done = at + t[i].text.size();
            const bool variable = is_variable(t, i) && !fixed.contains(t[i].text);
            if (is_search && variable)
                holes.try_emplace(std::string{t[i].text}, static_cast<int>(holes.size()) + 1);
            if (const auto it = holes.find(t[i].text);
                it != holes.end() && t[i].kind == Kind::word && (variable || !is_search)) {
                out += fmt::format("${}", it->second);
                continue;
            }
            // A name that only the new text has is none that another place has, unless it is what the pattern
            // is about.
            if (!is_search && variable) return std::nullopt;
            if (is_search && t[i].kind == Kind::word) fixed.emplace(t[i].text);
            if (is_search)
                fixed_bytes += t[i].text.size(),
                    fixed_words += t[i].kind == Kind::word && t[i].text.size() > 1;
            out += t[i].text;
        }
        out += std::string_view{text}.substr(done);
        return out;
    };
    // Members and functions first, so that the same word is not a hole elsewhere.
    {
        const auto t = tokens_of(search, hash);
        for (std::size_t i = 0; i < t.size(); ++i)
            if (t[i].kind == Kind::word && !is_variable(t, i)) fixed.emplace(t[i].text);
    }
    auto s = with_holes(search, true), r = with_holes(replace, false);
    if (!s || !r || fixed_bytes < min_fixed || fixed_words < 1 || holes.size() > 20 || trim(*s).empty() ||
        *s == *r)
        return std::nullopt;
    const auto dot = path.rfind('.'), slash = path.rfind('/');
    if (dot == std::string::npos || (slash != std::string::npos && dot < slash)) return std::nullopt;
    return CodePattern{std::move(*s), std::move(*r), path.substr(dot)};
}

std::vector<PatternMatch> find_pattern(
    const CodePattern& pattern, const std::string& path, std::string_view content
) {
    std::vector<PatternMatch> out;
    if (!pattern.suffix.empty() && !path.ends_with(pattern.suffix)) return out;
    const bool hash = has_hash_comments(path);
    const std::string text = marked(pattern.search);
    const auto p = tokens_of(text, hash);
    std::size_t fixed = 0;
    for (const auto& token : p) fixed += hole_of(token.text) == 0 ? token.text.size() : 0;
    if (p.empty() || fixed < min_fixed) return out;
    const auto t = tokens_of(content, hash);
    const auto lines = lines_of(content);
    Matcher matcher{p, t, content};
    for (std::size_t i = 0; i < t.size() && out.size() < max_matches; ++i) {
        if (i > 0 && t[i - 1].line == t[i].line) continue;  // whole lines only
        if (hole_of(p[0].text) == 0 && p[0].text != t[i].text) continue;
        const std::size_t end = matcher.at(i);
        if (end == 0) continue;
        const std::size_t first = t[i].line, last = t[end - 1].line;
        PatternMatch match{static_cast<unsigned>(first + 1), static_cast<unsigned>(last + 1), {}, {}};
        for (std::size_t l = first; l <= last && l < lines.size(); ++l) (match.text += lines[l]) += '\n';
        match.replace = filled(pattern.replace, matcher.holes(), indentation(lines[first]));
        // Where the fix stands already, it only puts something beside the line that is found.
        const auto fix = lines_of(match.replace), found = lines_of(match.text);
        bool there = false;
        for (std::size_t k = 0; k + found.size() <= fix.size() && !there; ++k) {
            if (k > first || first - k + fix.size() > lines.size()) continue;
            there = true;
            for (std::size_t l = 0; l < fix.size() && there; ++l)
                there = trim(fix[l]) == trim(lines[first - k + l]);
        }
        if (there || match.replace == match.text) continue;
        out.push_back(std::move(match));
        i = end - 1;
    }
    return out;
}

std::optional<Edit> apply_pattern(
    const CodePattern& pattern,
    const std::string& path,
    std::string_view content,
    unsigned first_line,
    unsigned last_line
) {
    auto matches = find_pattern(pattern, path, content);
    if (first_line > 0)
        std::erase_if(matches, [&](const PatternMatch& m) {
            return m.last_line < first_line || m.first_line > std::max(first_line, last_line);
        });
    if (matches.size() != 1) return std::nullopt;
    const auto lines = lines_of(content);
    const PatternMatch& m = matches[0];
    // As many lines around as it takes to be the only ones.
    for (std::size_t around = 0; around <= 5; ++around) {
        const std::size_t first = m.first_line - 1 - std::min<std::size_t>(m.first_line - 1, around),
                          last = std::min<std::size_t>(m.last_line + around, lines.size());
        std::size_t times = 0;
        for (std::size_t at = 0; at + (last - first) <= lines.size(); ++at)
            times += std::equal(
                lines.begin() + static_cast<long>(first),
                lines.begin() + static_cast<long>(last),
                lines.begin() + static_cast<long>(at)
            );
        if (times != 1) continue;
        Edit edit{path, {}, {}, 1};
        for (std::size_t l = first; l < m.first_line - 1; ++l) (edit.search += lines[l]) += '\n';
        edit.replace = edit.search + m.replace;
        edit.search += m.text;
        for (std::size_t l = m.last_line; l < last; ++l)
            (edit.search += lines[l]) += '\n', (edit.replace += lines[l]) += '\n';
        return edit;
    }
    return std::nullopt;
}

}  // namespace heal::vcs
