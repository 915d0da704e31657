#include "vcs/source.hpp"

#include "vcs/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>

namespace heal::vcs {
namespace {

constexpr std::size_t max_trace_bytes = 64U << 10U, max_places = 64, max_function_lines = 200,
                      lines_around = 15;

using Lines = std::vector<std::string_view>;

unsigned number_at(std::string_view text, std::size_t at, std::size_t* ret_end = nullptr) {
    unsigned n = 0;
    if (at > text.size()) return 0;
    const auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), n);
    if (error != std::errc{}) return 0;
    if (ret_end != nullptr) *ret_end = static_cast<std::size_t>(end - text.data());
    return n;
}

bool is_source_end(std::string_view extension) {
    static const std::set<std::string_view> known{
        "c",   "cc",    "cpp", "cxx",  "h",      "hh",    "hpp",   "hxx",    "ipp", "inl", "m",   "mm",
        "cu",  "py",    "pyx", "java", "kt",     "kts",   "scala", "groovy", "js",  "mjs", "cjs", "jsx",
        "ts",  "tsx",   "mts", "vue",  "svelte", "go",    "rs",    "cs",     "fs",  "vb",  "rb",  "erb",
        "php", "phtml", "pl",  "pm",   "lua",    "swift", "dart",  "ex",     "exs", "zig", "d",   "f90"};
    return known.contains(extension);
}

/// "path/file.ext:12" that ends at or before `end` of the text; the last one in it. The path may hold blanks
/// when `whole`.
bool file_and_line(std::string_view text, Place& ret) {
    for (std::size_t colon = text.rfind(':'); colon != std::string_view::npos && colon > 0;
         colon = text.rfind(':', colon - 1)) {
        const unsigned line = number_at(text, colon + 1);
        if (line == 0) continue;
        auto path = text.substr(0, colon);
        const auto dot = path.rfind('.');
        if (dot == std::string_view::npos || !is_source_end(path.substr(dot + 1))) continue;
        // The path begins after the last blank, bracket or quote.
        const auto start = path.find_last_of(" \t(\"'<[,=@");
        path = path.substr(start == std::string_view::npos ? 0 : start + 1);
        // "prog: a.cpp:3"
        if (path.starts_with("file://")) path.remove_prefix(7);
        if (path.empty()) continue;
        ret.file = path;
        ret.line = line;
        return true;
    }
    return false;
}

std::string name_of(std::string_view text) {
    text = trim(text);
    if (text.size() > 200) text = text.substr(0, 200);
    return std::string{text};
}

/// "ns::f(int, char)" → "ns::f"
std::string_view without_arguments(std::string_view text) {
    text = trim(text);
    if (text.starts_with("(anonymous") || text.starts_with("operator()")) return text;
    const auto open = text.find('(');
    return open == std::string_view::npos || open == 0 ? text : trim(text.substr(0, open));
}

class Reader {
public:
    explicit Reader(std::string_view text) : lines_(lines_of(text)) {}

    std::vector<Place> read() {
        std::vector<std::vector<Place>> sections(1);
        std::vector<bool> turned(1, false);  // outermost first
        bool causes_last = false;
        for (at_ = 0; at_ < lines_.size(); ++at_) {
            const auto line = lines_[at_], t = trim(line);
            if (t.starts_with("Traceback (most recent call last)")) {
                sections.emplace_back();
                turned.push_back(true);
                continue;
            }
            if (t.starts_with("Caused by:") || t.starts_with("[cause]:") || t.starts_with("Suppressed:") ||
                t.starts_with("---> ") || t.starts_with("Next ")) {
                causes_last = causes_last || !t.starts_with("Suppressed:");
                sections.emplace_back();
                turned.push_back(false);
            }
            Place place;
            if (!frame(line, t, place)) continue;
            if (place.file.empty() || place.file.starts_with("node:") || place.file.starts_with("<"))
                continue;
            auto& section = sections.back();
            if (!section.empty() && section.back().file == place.file && section.back().line == place.line &&
                section.back().function == place.function)
                continue;
            section.push_back(std::move(place));
        }
        if (causes_last) {
            std::reverse(sections.begin(), sections.end());
            std::reverse(turned.begin(), turned.end());
        }
        std::vector<Place> out;
        for (std::size_t s = 0; s < sections.size(); ++s) {
            if (turned[s]) std::reverse(sections[s].begin(), sections[s].end());
            for (auto& place : sections[s])
                if (out.size() < max_places) out.push_back(std::move(place));
        }
        if (!out.empty()) return out;
        // No known form: whatever looks like a place.
        for (const auto line : lines_) {
            Place place;
            if (out.size() < max_places && file_and_line(line, place)) out.push_back(std::move(place));
        }
        return out;
    }

private:
    std::string_view line_before() const { return at_ > 0 ? trim(lines_[at_ - 1]) : std::string_view{}; }

    bool frame(std::string_view line, std::string_view t, Place& ret) const {
        // Python:   File "/a/b.py", line 3, in f
        if (t.starts_with("File \"")) {
            const auto end = t.find("\", line ", 6);
            if (end == std::string_view::npos) return false;
            ret.file = t.substr(6, end - 6);
            ret.line = number_at(t, end + 8);
            if (const auto in = t.find(", in ", end); in != std::string_view::npos)
                ret.function = name_of(t.substr(in + 5));
            return ret.line > 0;
        }
        // C#:   at A.B.C(String x) in /a/b.cs:line 12
        if (const auto in = t.rfind(":line "); t.starts_with("at ") && in != std::string_view::npos) {
            const auto from = t.rfind(" in ", in);
            if (from == std::string_view::npos) return false;
            ret.file = t.substr(from + 4, in - from - 4);
            ret.line = number_at(t, in + 6);
            ret.function = name_of(without_arguments(t.substr(3, from - 3)));
            return true;
        }
        if (t.starts_with("at "))
            return java(t.substr(3), ret) || javascript(t.substr(3), ret) || rust(t.substr(3), ret);
        // Go: a line of the file under the line of the function.
        if (line.starts_with('\t') && t.find(".go:") != std::string_view::npos) {
            const auto colon = t.find(".go:") + 3;
            ret.file = t.substr(0, colon);
            ret.line = number_at(t, colon + 1);
            auto function = line_before();
            if (function.starts_with("created by ")) function.remove_prefix(11);
            if (const auto in = function.find(" in goroutine"); in != std::string_view::npos)
                function = function.substr(0, in);
            const auto open = function.rfind('(');
            ret.function = name_of(function.substr(0, open));
            return ret.line > 0;
        }
        // Rust: thread 'main' panicked at src/a.rs:1:2:   or   panicked at 'text', src/a.rs:1:2
        if (const auto at = t.find("panicked at "); at != std::string_view::npos) {
            auto rest = t.substr(at + 12);
            if (rest.starts_with('\''))
                rest = rest.substr(rest.rfind("', ") == std::string_view::npos ? 0 : rest.rfind("', ") + 3);
            return numbered(rest, ret);
        }
        // PHP: #0 /a/b.php(12): f()
        if (t.starts_with('#')) {
            if (const auto close = t.find("): ");
                close != std::string_view::npos && t.find(".php(") < close) {
                const auto open = t.rfind('(', close);
                const auto blank = t.find(' ');
                ret.file = t.substr(blank + 1, open - blank - 1);
                ret.line = number_at(t, open + 1);
                ret.function = name_of(without_arguments(t.substr(close + 3)));
                return ret.line > 0;
            }
            return native(t, ret);
        }
        if (const auto on = t.rfind(" on line "); on != std::string_view::npos) {
            const auto in = t.rfind(" in ", on);
            if (in == std::string_view::npos) return false;
            ret.file = t.substr(in + 4, on - in - 4);
            ret.line = number_at(t, on + 9);
            return ret.line > 0;
        }
        // Boost and C++23:  0# f(int) at /a/b.cpp:12
        if (const auto mark = t.find("# "); mark != std::string_view::npos && mark > 0 && mark < 4 &&
                                            number_at(t, 0) + 1 > 0 &&
                                            t.rfind(" at ") != std::string_view::npos) {
            const auto at = t.rfind(" at ");
            if (!numbered(t.substr(at + 4), ret)) return false;
            ret.function = name_of(without_arguments(t.substr(mark + 2, at - mark - 2)));
            return true;
        }
        // Ruby: a.rb:3:in `f'   from a.rb:3:in 'A#f'
        if (const auto in = t.find(":in ");
            in != std::string_view::npos && in + 5 < t.size() && (t[in + 4] == '`' || t[in + 4] == '\'')) {
            auto where = t.substr(0, in);
            if (const auto from = where.find("from "); from != std::string_view::npos && from < 8)
                where = where.substr(from + 5);
            const auto colon = where.rfind(':');
            if (colon == std::string_view::npos) return false;
            ret.file = where.substr(0, colon);
            ret.line = number_at(where, colon + 1);
            const auto end = t.find('\'', in + 5);
            ret.function = name_of(t.substr(in + 5, end == std::string_view::npos ? end : end - in - 5));
            if (ret.function.starts_with("block in ")) ret.function = ret.function.substr(9);
            return ret.line > 0;
        }
        // assert(3):  prog: a.cpp:12: int f(int): Assertion `x' failed.
        if (const auto a = t.find(": Assertion "); a != std::string_view::npos) {
            const auto head = t.substr(0, a);
            for (std::size_t colon = head.find(':'); colon != std::string_view::npos;
                 colon = head.find(':', colon + 1)) {
                std::size_t end = 0;
                const unsigned n = number_at(head, colon + 1, &end);
                if (n == 0 || end >= head.size() || head[end] != ':') continue;
                auto path = head.substr(0, colon);
                if (const auto blank = path.rfind(' '); blank != std::string_view::npos)
                    path = path.substr(blank + 1);
                ret.file = path;
                ret.line = n;
                // "int f(int)", "std::string ns::A::g() const"
                auto function = without_arguments(head.substr(end + 1));
                if (const auto blank = function.rfind(' '); blank != std::string_view::npos)
                    function = function.substr(blank + 1);
                ret.function = name_of(function);
                return true;
            }
            return false;
        }
        // BSD: Assertion failed: (x), function f, file a.c, line 12.
        if (const auto file = t.find(", file "), number = t.find(", line ");
            t.starts_with("Assertion failed") && file != std::string_view::npos &&
            number != std::string_view::npos && number > file) {
            ret.file = t.substr(file + 7, number - file - 7);
            ret.line = number_at(t, number + 7);
            if (const auto f = t.find(", function "); f != std::string_view::npos && f < file)
                ret.function = name_of(t.substr(f + 11, file - f - 11));
            return true;
        }
        // UBSan: a.cpp:12:5: runtime error
        if (const auto error = t.find(": runtime error:"); error != std::string_view::npos)
            return numbered(t.substr(0, error), ret);
        // Firefox and Safari: f@https://host/a.js:1:2
        if (const auto at = t.find('@'); at != std::string_view::npos &&
                                         t.find(' ') == std::string_view::npos &&
                                         numbered(t.substr(at + 1), ret)) {
            ret.function = name_of(t.substr(0, at));
            return true;
        }
        // PHP's first line: … in /a/b.php:12
        if (const auto in = t.rfind(" in /");
            in != std::string_view::npos && t.find(".php:", in) != std::string_view::npos)
            return numbered(t.substr(in + 4), ret);
        return false;
    }

    /// com.acme.Cart.total(Cart.java:12): the package tells the folder.
    static bool java(std::string_view t, Place& ret) {
        const auto open = t.find('('), close = t.rfind(')');
        if (open == std::string_view::npos || close == std::string_view::npos || close < open ||
            close + 20 < t.size())
            return false;
        const auto inner = t.substr(open + 1, close - open - 1);
        const auto colon = inner.rfind(':');
        if (colon == std::string_view::npos || inner.find('/') != std::string_view::npos ||
            inner.find_first_of(" :") != colon)
            return false;
        const auto dot = inner.rfind('.', colon);
        if (dot == std::string_view::npos) return false;
        const auto extension = inner.substr(dot + 1, colon - dot - 1);
        if (extension != "java" && extension != "kt" && extension != "scala" && extension != "groovy" &&
            extension != "kts")
            return false;
        auto name = trim(t.substr(0, open));
        // Loader and module: "app//com.acme…", "java.base@17/java.util…"
        if (const auto slash = name.rfind('/'); slash != std::string_view::npos)
            name = name.substr(slash + 1);
        ret.function = name_of(name);
        ret.line = number_at(inner, colon + 1);
        std::string folder{name};
        for (int i = 0; i < 2; ++i)
            if (const auto last = folder.rfind('.'); last != std::string::npos)
                folder.resize(last);
            else
                folder.clear();
        std::replace(folder.begin(), folder.end(), '.', '/');
        ret.file = folder.empty() ? std::string{inner.substr(0, colon)}
                                  : folder + "/" + std::string{inner.substr(0, colon)};
        return ret.line > 0;
    }

    /// f (/a/b.js:1:2)   /a/b.js:1:2   async f (file:///a/b.mjs:1:2)
    static bool javascript(std::string_view t, Place& ret) {
        std::string_view where = t, function;
        if (t.ends_with(')')) {
            const auto open = t.rfind(" (");
            if (open == std::string_view::npos) return false;
            where = t.substr(open + 2, t.size() - open - 3);
            function = t.substr(0, open);
        }
        for (const std::string_view word : {"async ", "new ", "Object.", "Module."})
            if (function.starts_with(word)) function.remove_prefix(word.size());
        if (const auto as = function.find(" [as "); as != std::string_view::npos)
            function = function.substr(0, as);
        // Two numbers at the end.
        const auto column = where.rfind(':');
        if (column == std::string_view::npos || column == 0 || number_at(where, column + 1) == 0)
            return false;
        const auto colon = where.rfind(':', column - 1);
        if (colon == std::string_view::npos) return false;
        const unsigned line = number_at(where, colon + 1);
        if (line == 0) return false;
        auto path = where.substr(0, colon);
        if (path.ends_with(".rs")) return false;
        ret.file = plain_url(path);
        ret.line = line;
        ret.function = name_of(function);
        return true;
    }

    static std::string plain_url(std::string_view path) {
        for (const std::string_view start : {"file://", "webpack-internal:///", "webpack:///", "webpack://"})
            if (path.starts_with(start)) path.remove_prefix(start.size());
        if (const auto scheme = path.find("://"); scheme != std::string_view::npos && scheme < 8) {
            const auto slash = path.find('/', scheme + 3);
            path = slash == std::string_view::npos ? std::string_view{} : path.substr(slash);
        }
        return std::string{path.substr(0, path.find('?'))};
    }

    /// The frame's second line: at ./src/a.rs:1:2
    bool rust(std::string_view t, Place& ret) const {
        if (!numbered(t, ret)) return false;
        const auto name = line_before();
        if (const auto colon = name.find(": ");
            colon != std::string_view::npos && number_at(name, 0) + 1 > 0) {
            auto function = trim(name.substr(colon + 2));
            if (const auto dash = function.find(" - ");
                function.starts_with("0x") && dash != std::string_view::npos)
                function = function.substr(dash + 3);
            if (const auto hash = function.rfind("::h");
                hash != std::string_view::npos && function.size() - hash == 19)
                function = function.substr(0, hash);
            ret.function = name_of(function);
        }
        return true;
    }

    /// gdb:  #1  0x00 in f (x=1) at a.cpp:12      ASan:  #0 0x55 in f(int) /a/b.cpp:12:5
    static bool native(std::string_view t, Place& ret) {
        const auto at = t.rfind(" at ");
        if (at != std::string_view::npos && numbered(t.substr(at + 4), ret)) {
            auto function = t.substr(1, at - 1);
            // "#1  "
            while (!function.empty() && std::isdigit(static_cast<unsigned char>(function.front())) != 0)
                function.remove_prefix(1);
            function = trim(function);
            if (const auto in = function.find(" in ");
                function.starts_with("0x") && in != std::string_view::npos)
                function = function.substr(in + 4);
            ret.function = name_of(without_arguments(function));
            return true;
        }
        const auto in = t.find(" in ");
        if (in == std::string_view::npos || !numbered(t, ret)) return false;
        const auto path = t.rfind(ret.file);
        ret.function = name_of(without_arguments(t.substr(in + 4, path > in + 4 ? path - in - 4 : 0)));
        return true;
    }

    /// path:12 or path:12:5 at the end.
    static bool numbered(std::string_view t, Place& ret) {
        while (!t.empty() && (t.back() == ':' || t.back() == ')' || t.back() == ',')) t.remove_suffix(1);
        auto colon = t.rfind(':');
        if (colon == std::string_view::npos || number_at(t, colon + 1) == 0) return false;
        if (const auto first = t.rfind(':', colon - 1); colon > 0 && first != std::string_view::npos) {
            std::size_t end = 0;
            if (number_at(t, first + 1, &end) > 0 && end == colon) colon = first;
        }
        auto path = t.substr(0, colon);
        if (const auto blank = path.rfind(' '); blank != std::string_view::npos)
            path = path.substr(blank + 1);
        if (path.empty() || path.find('.') == std::string_view::npos) return false;
        ret.file = plain_url(path);
        ret.line = number_at(t, colon + 1);
        return true;
    }

    Lines lines_;
    std::size_t at_ = 0;
};

std::vector<std::string_view> parts_of(std::string_view path) {
    std::vector<std::string_view> out;
    while (!path.empty()) {
        const auto slash = path.find('/');
        const auto part = path.substr(0, slash);
        if (!part.empty() && part != "." && part != "..") out.push_back(part);
        if (slash == std::string_view::npos) break;
        path.remove_prefix(slash + 1);
    }
    return out;
}

/// First and last line (from 0) of the function that line `at` is in.
struct Span {
    std::size_t first = 0, last = 0;
};

bool begins_with_word(std::string_view line, std::initializer_list<std::string_view> words) {
    const auto t = trim(line);
    return std::any_of(words.begin(), words.end(), [&](std::string_view w) {
        return t.starts_with(w) &&
               (t.size() == w.size() || std::isalnum(static_cast<unsigned char>(t[w.size()])) == 0);
    });
}

Span by_indentation(const Lines& lines, std::size_t at, bool with_end, bool& ret_found) {
    auto depth = trim(lines[at]).empty() ? std::string_view::npos : indentation(lines[at]).size();
    std::size_t head = at;
    ret_found = begins_with_word(lines[at], {"def", "async def"});
    for (std::size_t l = at; !ret_found && l-- > 0;) {
        if (trim(lines[l]).empty() || indentation(lines[l]).size() >= depth) continue;
        depth = indentation(lines[l]).size();
        if (begins_with_word(lines[l], {"def", "async def"})) head = l, ret_found = true;
        if (depth == 0) break;
    }
    if (!ret_found) return {at, at};
    Span out{head, head};
    const auto base = indentation(lines[head]).size();
    for (std::size_t l = head + 1; l < lines.size(); ++l) {
        if (trim(lines[l]).empty()) continue;
        const auto here = indentation(lines[l]).size();
        if (here < base || (here == base && !trim(lines[l]).starts_with(')'))) {
            if (with_end && here == base && begins_with_word(lines[l], {"end"})) out.last = l;
            break;
        }
        out.last = l;
    }
    while (out.first > 0 && trim(lines[out.first - 1]).starts_with('@')) --out.first;
    return out;
}

/// @param lines_end  a statement may end with its line, without a semicolon
Span by_braces(
    std::string_view content, const Lines& lines, std::size_t at, bool lines_end, bool& ret_found
) {
    struct Open {
        std::size_t token, line, head;
        bool holds_others;
    };
    auto tokens = tokens_of(content, false);
    // The preprocessor's lines are no part of what follows them; "#[…]" of Rust is.
    std::erase_if(tokens, [&](const Token& t) {
        return trim(lines[t.line]).starts_with('#') && !trim(lines[t.line]).starts_with("#[");
    });
    std::vector<Open> stack;
    Span best{at, at};
    ret_found = false;
    std::size_t head = 0;  // first token since the last ';', '{' or '}' outside of parentheses
    int parentheses = 0;
    const auto holds_others = [&](std::size_t first, std::size_t last) {
        static const std::set<std::string_view> modifiers{
            "public",   "private",  "protected", "static", "export",    "default",  "abstract", "final",
            "data",     "sealed",   "pub",       "open",   "internal",  "partial",  "inline",   "unsafe",
            "template", "typename", "const",     "crate",  "companion", "readonly", "async"};
        static const std::set<std::string_view> containers{
            "class",
            "struct",
            "namespace",
            "interface",
            "enum",
            "impl",
            "trait",
            "mod",
            "union",
            "object",
            "extern",
            "module",
            "record",
            "describe",
            "package"};
        int angle = 0;
        for (std::size_t i = first; i < last; ++i) {
            const auto& t = tokens[i];
            angle += t.text == "<" ? 1 : t.text == ">" ? -1 : t.text == ">>" ? -2 : 0;
            if (angle > 0 || t.kind != Token::Kind::word || modifiers.contains(t.text)) continue;
            if (containers.contains(t.text)) return true;
            // An annotation or macro may stand before.
            if (i > first && tokens[i - 1].text == "@") continue;
            return false;
        }
        return false;
    };
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        const auto& t = tokens[i];
        if (lines_end && parentheses == 0 && i > head && tokens[i - 1].line != t.line && t.text != "{" &&
            t.text != "." && t.text != ":" && t.text != "," && tokens[i - 1].text != "," &&
            tokens[i - 1].text != "=" && tokens[i - 1].text != "=>")
            head = i;
        if (t.kind != Token::Kind::mark) continue;
        if (t.text == "(") ++parentheses;
        if (t.text == ")") parentheses = std::max(0, parentheses - 1);
        if (t.text == "{") {
            while (head + 1 < i &&
                   (tokens[head].text == "public" || tokens[head].text == "private" ||
                    tokens[head].text == "protected") &&
                   tokens[head + 1].text == ":")
                head += 2;
            stack.push_back({i, t.line, head, holds_others(head, i)});
            // A function within parentheses (a callback) belongs to what calls it.
            if (parentheses == 0) head = i + 1;
        } else if (t.text == "}" && !stack.empty()) {
            const Open open = stack.back();
            stack.pop_back();
            if (parentheses == 0) head = i + 1;
            const bool outermost =
                std::all_of(stack.begin(), stack.end(), [](const Open& o) { return o.holds_others; });
            const std::size_t first = open.head < open.token ? tokens[open.head].line : open.line;
            if (outermost && !open.holds_others && first <= at && at <= t.line) {
                ret_found = true;
                best = {first, t.line};
            }
        } else if (t.text == ";" && parentheses == 0) {
            head = i + 1;
        }
    }
    // The comment that stands right above belongs to it.
    while (ret_found && best.first > 0 && best.last - best.first < max_function_lines) {
        const auto above = trim(lines[best.first - 1]);
        if (!above.starts_with("//") && !above.starts_with("*") && !above.starts_with("/*") &&
            !above.starts_with("@") && !above.starts_with("#[") && !above.starts_with("template"))
            break;
        --best.first;
    }
    return best;
}

Span function_around(const std::string& path, std::string_view content, const Lines& lines, std::size_t at) {
    const auto extension = path.substr(path.rfind('.') + 1);
    bool found = false;
    Span span;
    if (extension == "py" || extension == "pyx")
        span = by_indentation(lines, at, false, found);
    else if (extension == "rb" || extension == "ex" || extension == "exs" || extension == "lua")
        span = by_indentation(lines, at, true, found);
    else
        span = by_braces(
            content,
            lines,
            at,
            extension == "go" || extension == "kt" || extension == "kts" || extension == "js" ||
                extension == "mjs" || extension == "cjs" || extension == "jsx" || extension == "ts" ||
                extension == "tsx" || extension == "swift" || extension == "scala" || extension == "groovy",
            found
        );
    if (!found)
        span = {at > lines_around ? at - lines_around : 0, std::min(at + lines_around, lines.size() - 1)};
    if (span.last - span.first + 1 > max_function_lines) {
        const std::size_t first =
            std::max(span.first, at > max_function_lines / 2 ? at - max_function_lines / 2 : 0);
        span = {first, std::min(span.last, first + max_function_lines - 1)};
    }
    return span;
}

std::string join(const Lines& lines, Span span) {
    std::string out;
    for (std::size_t l = span.first; l <= span.last; ++l) (out += lines[l]) += '\n';
    return out;
}

/// "total" of "int shop::Cart<long>::total(long) const" and of "main.(*Cart).total"; "" when that is no name.
std::string_view own_name(std::string_view function) {
    if (function.ends_with(" const")) function.remove_suffix(6);
    for (const auto& [open, close] : {std::pair{'(', ')'}, std::pair{'<', '>'}}) {
        if (!function.ends_with(close)) continue;
        int depth = 0;
        while (!function.empty()) {
            depth += function.back() == close ? 1 : function.back() == open ? -1 : 0;
            function.remove_suffix(1);
            if (depth == 0) break;
        }
    }
    std::size_t begin = function.size();
    while (begin > 0 && is_word(function[begin - 1])) --begin;
    return function.substr(begin);
}

/// Where `name` is called or defined in `text`, from `from` on; npos.
std::size_t find_call(std::string_view text, std::string_view name, std::size_t from) {
    for (auto at = text.find(name, from); at != std::string_view::npos; at = text.find(name, at + 1)) {
        auto end = at + name.size();
        while (end < text.size() && text[end] == ' ') ++end;
        if ((at == 0 || !is_word(text[at - 1])) && end < text.size() && text[end] == '(') return at;
    }
    return std::string_view::npos;
}

/// The line of the only function with that name, 0-based; npos.
std::size_t line_of_function(
    const std::string& path, std::string_view content, const Lines& lines, std::string_view name
) {
    constexpr unsigned most_looked_at = 16;
    constexpr auto none = std::string_view::npos;
    if (name.size() < 3) return none;
    std::size_t found = none, first = none;
    unsigned looked_at = 0;
    for (std::size_t l = 0; l < lines.size(); ++l) {
        if (find_call(lines[l], name, 0) == none) continue;
        if (++looked_at > most_looked_at) return none;
        const Span span = function_around(path, content, lines, l);
        const std::string text = join(lines, span);
        const auto call = find_call(text, name, 0);
        // Its own name stands before its body, and nothing is done with it there.
        const auto line = text.substr(0, call).rfind('\n') + 1;
        const auto before = std::string_view{text}.substr(line, call - line);
        if (text.find('{') < call || before.find('=') != none || before.find("return ") != none) continue;
        if (const auto end = text.find('\n', call); text.substr(call, end - call).ends_with(';')) continue;
        if (first != none && first != span.first) return none;
        first = span.first, found = l;
    }
    return found;
}

}  // namespace

std::vector<Place> places_of(std::string_view stack_trace) {
    return Reader{stack_trace.substr(0, max_trace_bytes)}.read();
}

std::string file_of(const std::vector<std::string>& files, std::string_view file) {
    std::string wanted{file};
    std::replace(wanted.begin(), wanted.end(), '\\', '/');
    // What a package manager or the system brought is not of this repository, whatever its name.
    for (const char* foreign :
         {"/site-packages/",
          "/dist-packages/",
          "/node_modules/",
          "/rustc/",
          "/.cargo/registry/",
          "/go/pkg/mod/",
          "/gems/",
          "/vendor/bundle/",
          "/usr/include/",
          "/usr/lib/",
          "/usr/local/go/src/"})
        if (wanted.find(foreign) != std::string::npos) return {};
    const bool absolute =
        wanted.starts_with('/') || (wanted.size() > 2 && wanted[1] == ':' && wanted[2] == '/');
    const auto parts = parts_of(wanted);
    if (parts.empty()) return {};
    std::size_t best = 0, times = 0;
    const std::string* found = nullptr;
    for (const auto& candidate : files) {
        if (!candidate.ends_with(parts.back())) continue;
        const auto other = parts_of(candidate);
        std::size_t same = 0;
        while (same < parts.size() && same < other.size() &&
               parts[parts.size() - 1 - same] == other[other.size() - 1 - same])
            ++same;
        // A relative path says all that it knows: one of the two has to be the end of the other.
        if (same == 0 || (!absolute && same < parts.size() && same < other.size())) continue;
        if (same > best) best = same, times = 0, found = &candidate;
        if (same == best) ++times;
    }
    return found != nullptr && times == 1 ? *found : std::string{};
}

result<std::vector<Excerpt>> excerpts(
    Repository& repository, const std::string& commit, const std::vector<Place>& places, std::size_t max_bytes
) {
    auto files = repository.files(commit);
    if (!files) return files.error();
    std::vector<Excerpt> out;
    std::size_t bytes = 0;
    for (const Place& place : places) {
        const std::string path = file_of(*files, place.file);
        const auto name = own_name(place.function);
        if (path.empty() || (place.line == 0 && name.empty())) continue;
        const auto inside = [&](const Excerpt& e) {
            return e.file == path && place.line >= e.first_line &&
                   place.line < e.first_line + lines_of(e.text).size();
        };
        if (std::any_of(out.begin(), out.end(), inside)) continue;
        auto content = repository.show(commit, path);
        if (!content) {
            if (content.error().code == errc::invalid_input || content.error().code == errc::not_found)
                continue;
            return content.error();
        }
        const auto lines = lines_of(*content);
        std::size_t at = place.line - 1;
        Span span;
        std::string text;
        const bool known = place.line > 0 && at < lines.size();
        if (known) text = join(lines, span = function_around(path, *content, lines, at));
        // The release may not be what the trace is of: the function may stand elsewhere by now.
        if (!known || (!name.empty() && text.find(name) == std::string::npos)) {
            const auto moved = line_of_function(path, *content, lines, name);
            if (moved != std::string_view::npos) {
                at = moved;
                text = join(lines, span = function_around(path, *content, lines, at));
                const auto same = [&](const Excerpt& e) {
                    return e.file == path && e.first_line == span.first + 1;
                };
                if (std::any_of(out.begin(), out.end(), same)) continue;
            } else if (!known) {
                continue;
            }
        }
        while (bytes + text.size() > max_bytes && span.first < span.last) {
            if (at - span.first > span.last - at)
                ++span.first;
            else
                --span.last;
            text = join(lines, span);
        }
        if (bytes + text.size() > max_bytes) break;
        bytes += text.size();
        Excerpt one{
            path,
            static_cast<unsigned>(span.first + 1),
            static_cast<unsigned>(at + 1),
            place.function,
            std::move(text),
            {}};
        if (auto history =
                repository.blame(commit, path, one.first_line, static_cast<unsigned>(span.last + 1))) {
            std::stable_sort(history->begin(), history->end(), [](const BlameLine& a, const BlameLine& b) {
                return a.at > b.at;
            });
            for (auto& line : *history)
                if (one.history.size() < 5 &&
                    std::none_of(one.history.begin(), one.history.end(), [&](const BlameLine& h) {
                        return h.commit == line.commit;
                    }))
                    one.history.push_back(std::move(line));
        } else if (history.error().code == errc::cancelled) {
            return history.error();
        }
        out.push_back(std::move(one));
    }
    return out;
}

}  // namespace heal::vcs
