#include "ai/hostile.hpp"

#include "base/id.hpp"
#include "base/json.hpp"

#include <fmt/format.h>

#include <cstdint>

namespace heal::ai {
namespace {

using std::string_view;

struct Range {
    std::uint32_t first, last;
};
// What is not seen, or changes how its neighbours are seen (Unicode 15: Default_Ignorable_Code_Point,
// Bidi_Control, C0, C1).
constexpr Range unseen[] = {
    {0x00, 0x08},     {0x0B, 0x1F},     {0x7F, 0x9F},       {0xAD, 0xAD},       {0x34F, 0x34F},
    {0x61C, 0x61C},   {0x115F, 0x1160}, {0x17B4, 0x17B5},   {0x180B, 0x180F},   {0x200B, 0x200F},
    {0x202A, 0x202E}, {0x2060, 0x206F}, {0x3164, 0x3164},   {0xFE00, 0xFE0F},   {0xFEFF, 0xFEFF},
    {0xFFA0, 0xFFA0}, {0xFFF0, 0xFFFB}, {0x1D173, 0x1D17A}, {0xE0000, 0xE0FFF},
};

bool is_unseen(std::uint32_t c) {
    for (const auto& r : unseen) {
        if (c >= r.first && c <= r.last) return true;
    }
    return false;
}

/// Past an ANSI sequence that begins at `i` with ESC; ECMA-48: CSI ends at @ … ~, strings (OSC, DCS, …) at
/// BEL or ESC \.
std::size_t past_escape(string_view s, std::size_t i) {
    if (i + 1 >= s.size()) return s.size();
    const char kind = s[i + 1];
    i += 2;
    if (kind == '[') {
        while (i < s.size() && (s[i] < '@' || s[i] > '~') && s[i] >= 0x20) ++i;
        return i < s.size() && s[i] >= '@' && s[i] <= '~' ? i + 1 : i;
    }
    if (kind == ']' || kind == 'P' || kind == '_' || kind == '^' || kind == 'X') {
        while (i < s.size() && s[i] != '\a' && s[i] != '\n' &&
               !(s[i] == '\x1b' && i + 1 < s.size() && s[i + 1] == '\\'))
            ++i;
        if (i >= s.size() || s[i] == '\n') return i;
        return s[i] == '\a' ? i + 1 : i + 2;
    }
    if (kind >= 0x20 && kind <= 0x2F) {  // intermediate bytes, then a final one
        while (i < s.size() && s[i] >= 0x20 && s[i] <= 0x2F) ++i;
        return i < s.size() ? i + 1 : i;
    }
    return i;
}

std::uint32_t decode(string_view s, std::size_t& ret_size) {
    const auto b = [&](std::size_t k) {
        return static_cast<std::uint32_t>(static_cast<unsigned char>(s[k]));
    };
    const auto c = b(0);
    ret_size = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    if (ret_size == 1) return c;
    std::uint32_t out = ret_size == 2 ? c & 0x1FU : ret_size == 3 ? c & 0x0FU : c & 0x07U;
    for (std::size_t k = 1; k < ret_size; ++k) out = out << 6U | (b(k) & 0x3FU);
    return out;
}

}  // namespace

std::string harmless(string_view text, std::size_t max_bytes) {
    // Cut once before, so that a hundred megabytes cost no more than what may stay of them.
    const std::size_t whole = text.size();
    const string_view head = text.substr(0, max_bytes * 4 + 64);
    const std::string valid = to_valid_utf8(head);
    std::string out;
    out.reserve(std::min(valid.size(), max_bytes + 64));
    bool cut = head.size() < whole;
    for (std::size_t i = 0; i < valid.size();) {
        if (valid[i] == '\x1b') {
            i = past_escape(valid, i);
            continue;
        }
        if (valid[i] == '\r') {
            if (i + 1 >= valid.size() || valid[i + 1] != '\n') out += '\n';
            ++i;
            continue;
        }
        std::size_t n = 1;
        const auto c = decode(string_view{valid}.substr(i), n);
        if (c == 0x2028 || c == 0x2029 || c == 0x85) {
            out += '\n';
        } else if (c == '\n' || c == '\t' || !is_unseen(c)) {
            if (out.size() + n > max_bytes) {
                cut = true;
                break;
            }
            out.append(valid, i, n);
        }
        i += n;
    }
    if (cut) {
        // Not within a word: half a secret would not be found any more.
        const auto blank = out.find_last_of(" \n\t");
        if (blank != std::string::npos && blank >= out.size() / 2) out.resize(blank);
    }
    if (cut) out += fmt::format(" … [cut; {} bytes in all]", whole);
    return out;
}

std::string escaped(string_view text) {
    const std::string quoted = json::serialize(json::string{text});
    std::string out;
    out.reserve(quoted.size());
    for (const char c : quoted) {
        switch (c) {
            case '<':
                out += "\\u003c";
                break;
            case '>':
                out += "\\u003e";
                break;
            case '`':
                out += "\\u0060";
                break;
            default:
                out += c;
        }
    }
    return out;
}

Fence::Fence() : mark_(random_hex(8)) {
    // Letters only: digits among letters look like a secret, and a row of them like the number of a card.
    for (char& c : mark_) c = static_cast<char>(c >= 'a' ? c - 'a' + 'k' : c - '0' + 'a');
}

std::string Fence::open(string_view name) const { return fmt::format("<{} {}>\n", mark(), name); }
std::string Fence::close() const { return fmt::format("</{}>\n", mark()); }

std::string Fence::log(string_view name, const std::vector<std::string>& lines) const {
    std::string out = open(name);
    for (const auto& line : lines) {
        if (line.find(mark_) == std::string::npos) out += escaped(line) + '\n';
    }
    return out + close();
}

std::string Fence::code(string_view name, string_view text) const {
    std::string out = open(name);
    while (!text.empty()) {
        const auto end = text.find('\n');
        const auto line = text.substr(0, end);
        if (line.find(mark_) == string_view::npos) out += std::string{line} + '\n';
        if (end == string_view::npos) break;
        text.remove_prefix(end + 1);
    }
    return out + close();
}

}  // namespace heal::ai
