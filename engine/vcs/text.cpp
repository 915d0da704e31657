#include "vcs/text.hpp"

#include <algorithm>
#include <cctype>

namespace heal::vcs {
namespace {

constexpr unsigned max_changes = 1000;

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

}  // namespace

bool is_word(char c) noexcept {
    const auto u = static_cast<unsigned char>(c);
    return (std::isalnum(u) != 0) || c == '_' || u >= 0x80;
}

std::vector<std::string_view> lines_of(std::string_view text) {
    std::vector<std::string_view> lines;
    while (!text.empty()) {
        const auto end = text.find('\n');
        auto line = text.substr(0, end);
        if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
        lines.push_back(line);
        if (end == std::string_view::npos) break;
        text.remove_prefix(end + 1);
    }
    return lines;
}

std::string_view trim_right(std::string_view text) noexcept {
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) text.remove_suffix(1);
    return text;
}

std::string_view trim(std::string_view text) noexcept {
    text = trim_right(text);
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0)
        text.remove_prefix(1);
    return text;
}

std::string_view indentation(std::string_view line) noexcept {
    std::size_t n = 0;
    while (n < line.size() && (line[n] == ' ' || line[n] == '\t')) ++n;
    return line.substr(0, n);
}

std::string lower(std::string_view text) {
    std::string out{text};
    for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return out;
}

std::vector<LineChange> diff_lines(
    const std::vector<std::string_view>& before, const std::vector<std::string_view>& after
) {
    using Kind = LineChange::Kind;
    std::vector<LineChange> out;
    std::size_t head = 0, tail = 0;
    while (head < before.size() && head < after.size() && before[head] == after[head]) ++head;
    while (head + tail < before.size() && head + tail < after.size() &&
           before[before.size() - 1 - tail] == after[after.size() - 1 - tail])
        ++tail;
    for (std::size_t i = 0; i < head; ++i)
        out.push_back({Kind::same, static_cast<unsigned>(i), static_cast<unsigned>(i)});
    const auto n = static_cast<long>(before.size() - head - tail),
               m = static_cast<long>(after.size() - head - tail);
    const auto a = [&](long i) { return before[head + static_cast<std::size_t>(i)]; };
    const auto b = [&](long i) { return after[head + static_cast<std::size_t>(i)]; };
    std::vector<LineChange> middle;
    const auto put = [&](Kind kind, long i, long j) {
        middle.push_back(
            {kind,
             static_cast<unsigned>(head) + static_cast<unsigned>(std::max(i, 0L)),
             static_cast<unsigned>(head) + static_cast<unsigned>(std::max(j, 0L))}
        );
    };
    const long limit = std::min<long>(n + m, max_changes);
    std::vector<std::vector<long>> trace;
    std::vector<long> v(static_cast<std::size_t>(2 * limit + 3), 0);
    const auto at = [&](std::vector<long>& w, long k) -> long& {
        return w[static_cast<std::size_t>(k + limit + 1)];
    };
    long found = -1;
    for (long d = 0; d <= limit && found < 0; ++d) {
        // Only the part that d steps can have reached; the whole would be limit² numbers.
        trace.emplace_back(v.begin() + (limit + 1 - d - 1), v.begin() + (limit + 1 + d + 2));
        for (long k = -d; k <= d; k += 2) {
            long x = k == -d || (k != d && at(v, k - 1) < at(v, k + 1)) ? at(v, k + 1) : at(v, k - 1) + 1;
            long y = x - k;
            while (x < n && y < m && a(x) == b(y)) ++x, ++y;
            at(v, k) = x;
            if (x >= n && y >= m) {
                found = d;
                break;
            }
        }
    }
    if (found < 0) {
        for (long i = 0; i < n; ++i) put(Kind::removed, i, 0);
        for (long j = 0; j < m; ++j) put(Kind::added, n, j);
    } else {
        long x = n, y = m;
        for (long d = found; d > 0; --d) {
            auto& w = trace[static_cast<std::size_t>(d)];
            const auto then = [&](long k) { return w[static_cast<std::size_t>(k + d + 1)]; };
            const long k = x - y;
            const long from = k == -d || (k != d && then(k - 1) < then(k + 1)) ? k + 1 : k - 1;
            const long px = then(from), py = px - from;
            while (x > px && y > py) put(Kind::same, --x, --y);
            if (x == px)
                put(Kind::added, x, --y);
            else
                put(Kind::removed, --x, y);
        }
        while (x > 0 && y > 0) put(Kind::same, --x, --y);
        std::reverse(middle.begin(), middle.end());
        // Within one run of changes the removed ones first.
        for (auto it = middle.begin(); it != middle.end();) {
            const auto end =
                std::find_if(it, middle.end(), [](const auto& c) { return c.kind == Kind::same; });
            std::stable_partition(it, end, [](const auto& c) { return c.kind == Kind::removed; });
            it = end == middle.end() ? end : end + 1;
        }
    }
    out.insert(out.end(), middle.begin(), middle.end());
    for (std::size_t i = tail; i > 0; --i)
        out.push_back(
            {Kind::same, static_cast<unsigned>(before.size() - i), static_cast<unsigned>(after.size() - i)}
        );
    return out;
}

bool has_hash_comments(std::string_view path) noexcept {
    for (const std::string_view end :
         {".py",
          ".pyi",
          ".rb",
          ".sh",
          ".bash",
          ".pl",
          ".pm",
          ".yaml",
          ".yml",
          ".toml",
          ".cmake",
          ".r",
          "CMakeLists.txt",
          "Makefile",
          "Dockerfile"})
        if (path.ends_with(end)) return true;
    return false;
}

std::vector<Token> tokens_of(std::string_view text, bool hash_comments) {
    std::vector<Token> out;
    std::size_t i = 0;
    unsigned line = 0;
    const auto starts = [&](std::string_view what) { return text.substr(i, what.size()) == what; };
    const auto put = [&](Token::Kind kind, std::size_t length) {
        const auto part = text.substr(i, length);
        out.push_back({kind, part, line});
        line += static_cast<unsigned>(std::count(part.begin(), part.end(), '\n'));
        i += length;
    };
    while (i < text.size()) {
        const char c = text[i];
        if (c == '\n') {
            ++line, ++i;
        } else if (std::isspace(static_cast<unsigned char>(c)) != 0) {
            ++i;
        } else if ((hash_comments && c == '#') || (!hash_comments && starts("//"))) {
            i = std::min(text.find('\n', i), text.size());
        } else if (!hash_comments && starts("/*")) {
            const auto end = text.find("*/", i + 2);
            const auto stop = end == std::string_view::npos ? text.size() : end + 2;
            line += static_cast<unsigned>(
                std::count(text.begin() + static_cast<long>(i), text.begin() + static_cast<long>(stop), '\n')
            );
            i = stop;
        } else if (starts("\"\"\"") || starts("'''")) {
            const auto end = text.find(text.substr(i, 3), i + 3);
            put(Token::Kind::string, (end == std::string_view::npos ? text.size() : end + 3) - i);
        } else if (c == '"' || c == '\'' || c == '`') {
            std::size_t end = i + 1;
            while (end < text.size() && text[end] != c && (c == '`' || text[end] != '\n'))
                end += text[end] == '\\' && end + 1 < text.size() && text[end + 1] != '\n' ? 2 : 1;
            const bool closed = end < text.size() && text[end] == c;
            if (closed)
                put(Token::Kind::string, end + 1 - i);
            else
                put(Token::Kind::mark, 1);  // an apostrophe, a lifetime
        } else if (is_digit(c) || (c == '.' && i + 1 < text.size() && is_digit(text[i + 1]))) {
            std::size_t end = i;
            while (end < text.size() &&
                   (is_word(text[end]) || text[end] == '.' ||
                    ((text[end] == '+' || text[end] == '-') && end > i &&
                     (text[end - 1] == 'e' || text[end - 1] == 'E') && !text.substr(i).starts_with("0x"))))
                ++end;
            put(Token::Kind::number, end - i);
        } else if (is_word(c)) {
            std::size_t end = i;
            while (end < text.size() && is_word(text[end])) ++end;
            put(Token::Kind::word, end - i);
        } else {
            std::size_t length = 1;
            for (const std::string_view two :
                 {"===",
                  "!==",
                  "==",
                  "!=",
                  "<=",
                  ">=",
                  "&&",
                  "||",
                  "->",
                  "::",
                  "=>",
                  "+=",
                  "-=",
                  "*=",
                  "/=",
                  "++",
                  "--",
                  "<<",
                  ">>"})
                if (starts(two)) {
                    length = two.size();
                    break;
                }
            put(Token::Kind::mark, length);
        }
    }
    return out;
}

}  // namespace heal::vcs
