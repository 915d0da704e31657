// The classes of bytes that the scanner and the header cut share. Bytes, not code points: invalid UTF-8 is
// input like any other, and the bytes from 0x80 up count as letters. Deliberately without <cctype>: no locale
// can change an id.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace heal::fingerprint {

/// Bits of a byte's class; every byte has at least one.
enum Class : std::uint8_t {
    cls_space = 1,   ///< blank, tab and the other control bytes
    cls_digit = 2,   ///< 0-9
    cls_upper = 4,   ///< A-Z
    cls_lower = 8,   ///< a-z and the bytes from 0x80 up
    cls_join = 16,   ///< _ - . which join words to names
    cls_punct = 32,  ///< all other printable ASCII
    cls_hex = 64,    ///< a-f, A-F, 0-9 (an additional bit)
    cls_alpha = cls_upper | cls_lower
};

constexpr std::array<std::uint8_t, 256> make_class_table() {
    std::array<std::uint8_t, 256> table{};
    for (unsigned c = 0; c < 256; ++c) {
        std::uint8_t k = 0;
        if (c <= 0x20 || c == 0x7f)
            k = cls_space;
        else if (c >= '0' && c <= '9')
            k = cls_digit | cls_hex;
        else if (c >= 'A' && c <= 'Z')
            k = c <= 'F' ? cls_upper | cls_hex : cls_upper;
        else if (c >= 'a' && c <= 'z')
            k = c <= 'f' ? cls_lower | cls_hex : cls_lower;
        else if (c >= 0x80)
            k = cls_lower;
        else if (c == '_' || c == '-' || c == '.')
            k = cls_join;
        else
            k = cls_punct;
        table[c] = k;
    }
    return table;
}

inline constexpr std::array<std::uint8_t, 256> class_table = make_class_table();

constexpr std::uint8_t class_of(char c) noexcept { return class_table[static_cast<unsigned char>(c)]; }
constexpr bool is_space(char c) noexcept { return (class_of(c) & cls_space) != 0; }
constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
constexpr bool is_alpha(char c) noexcept { return (class_of(c) & cls_alpha) != 0; }
constexpr bool is_upper(char c) noexcept { return c >= 'A' && c <= 'Z'; }
constexpr bool is_hex(char c) noexcept { return (class_of(c) & cls_hex) != 0; }

/// All class bits that occur in the text; 0 for an empty one.
constexpr std::uint8_t classes_of(std::string_view text) noexcept {
    std::uint8_t k = 0;
    for (const char c : text) k = static_cast<std::uint8_t>(k | class_of(c));
    return k;
}

}  // namespace heal::fingerprint
