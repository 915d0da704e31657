// What is known beforehand about words: which are ever literal text of log statements, after which words
// arguments stand. Frozen and compiled in; made off-line by tools/fingerprint_model. Deliberately without any
// state that learns.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace heal::fingerprint {

namespace detail {

inline std::uint64_t load(const char* p, std::size_t n) noexcept {
    // Fixed sizes become plain loads; a call of memcpy for 3 bytes costs more than the hash.
    if (n == 8) {
        std::uint64_t v;
        std::memcpy(&v, p, 8);
        return v;
    }
    if (n >= 4) {
        std::uint32_t a, b;
        std::memcpy(&a, p, 4);
        std::memcpy(&b, p + n - 4, 4);
        return a | static_cast<std::uint64_t>(b) << (8 * (n - 4));
    }
    if (n == 0) return 0;
    const auto byte = [p](std::size_t i) {
        return static_cast<std::uint64_t>(static_cast<unsigned char>(p[i]));
    };
    return byte(0) | byte(n / 2) << (8 * (n / 2)) | byte(n - 1) << (8 * (n - 1));
}

inline std::uint64_t fold_multiply(std::uint64_t a, std::uint64_t b) noexcept {
    __extension__ using u128 = unsigned __int128;
    const u128 product = static_cast<u128>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

}  // namespace detail

/// Hash of a word, letter case folded (bit 0x20 set in each byte). Part of the mechanism: the tables are
/// keyed by it. Never 0.
inline std::uint64_t folded_hash(std::string_view w) noexcept {
    constexpr std::uint64_t low = 0x2020202020202020ULL;
    std::uint64_t h = 0x9E3779B97F4A7C15ULL ^ w.size();
    const char* p = w.data();
    std::size_t n = w.size();
    while (n > 8) {
        h = detail::fold_multiply(h ^ (detail::load(p, 8) | low), 0xA0761D6478BD642FULL);
        p += 8;
        n -= 8;
    }
    h = detail::fold_multiply(h ^ (detail::load(p, n) | low), 0xE7037ED1A0B428DBULL);
    return h | 1;
}

/// What the table knows about one word in its place; 0: nothing, else 1-15, more is more.
struct Evidence {
    unsigned after = 0;      ///< how often arguments, not text, follow the previous word (8: as often)
    unsigned after_two = 0;  ///< the same for the two previous words
    unsigned word = 0;       ///< in how many packages the word is text, logarithmic
    unsigned pair = 0;       ///< how often the word is text right behind the previous one
};
Evidence evidence_of(std::uint64_t before, std::uint64_t previous, char glue, std::uint64_t hash) noexcept;

/// folded_hash at compile time.
consteval std::uint64_t word_hash(std::string_view w) {
    const auto multiply = [](std::uint64_t a, std::uint64_t b) {
        __extension__ using u128 = unsigned __int128;
        const u128 product = static_cast<u128>(a) * b;
        return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
    };
    const auto load = [&](std::size_t p, std::size_t n) {
        std::uint64_t v = 0;
        for (std::size_t i = 0; i < n; ++i)
            v |= static_cast<std::uint64_t>(static_cast<unsigned char>(w[p + i])) << (8 * i);
        return v | 0x2020202020202020ULL;
    };
    std::uint64_t h = 0x9E3779B97F4A7C15ULL ^ w.size();
    std::size_t p = 0, n = w.size();
    for (; n > 8; p += 8, n -= 8) h = multiply(h ^ load(p, 8), 0xA0761D6478BD642FULL);
    return multiply(h ^ load(p, n), 0xE7037ED1A0B428DBULL) | 1;
}

/// What the model says about a word in its place.
struct Verdict {
    bool value = false;      ///< an argument stands there and w is not known as text there
    bool if_closed = false;  ///< the same when the phrase ends behind w: the message, a mark, a value or a
                             ///< function word follows
};
/// @param before, previous  folded hashes of the two words to the left, 0: none
/// @param glue              the last mark between the previous word and w; a blank when there was none
Verdict model_verdict(
    std::uint64_t before, std::uint64_t previous, char glue, std::string_view w, std::uint64_t hash
) noexcept;

/// Is it a noun that names a kind of thing (service, table, queue …), whose name may follow?
bool is_kind(std::uint64_t hash) noexcept;

/// Is the word text of any message known to the model?
bool is_known_word(std::uint64_t hash) noexcept;

/// Words that describe and never name: down, missing, ready, … and what ends as participles do.
bool is_state(std::string_view w, std::uint64_t hash) noexcept;

/// Articles, prepositions, conjunctions, pronouns, auxiliaries.
bool is_function_word(std::uint64_t hash) noexcept;

namespace detail {

template <std::size_t N>
consteval std::array<std::uint64_t, N> sorted_hashes(const std::string_view (&words)[N]) {
    std::array<std::uint64_t, N> out{};
    for (std::size_t i = 0; i < N; ++i) out[i] = word_hash(words[i]);
    std::sort(out.begin(), out.end());
    return out;
}

}  // namespace detail

/// Names with digits that are text wherever they occur: ipv4, utf8, sha256, x86_64, …
/// @param looked  set when the values of the digits decided: with others in their places the answer may
/// change
bool is_known_with_digits(std::string_view w, bool& looked) noexcept;

/// Stems of device names: eth, en, wlan, lo, …
bool is_device_stem(std::string_view lower) noexcept;

/// Lower-case file extensions and top-level domains that make a name of two parts a value.
bool is_extension(std::string_view lower) noexcept;

}  // namespace heal::fingerprint
