// One bit per byte of a message: blank, or neither blank nor letter. Found with the widest vectors that the
// machine has, chosen once at the start; every path gives the same bits (tested). Internal to this folder.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace heal::fingerprint {

struct Bitmaps {
    static constexpr std::size_t words = 8192 / 64;  ///< scan.hpp's max_message
    std::uint64_t space[words + 1];                  ///< the word behind the last one used is all ones
    std::uint64_t other[words + 1];

    /// First blank at or after p, at most n.
    std::size_t next_space(std::size_t p, std::size_t n) const noexcept { return next(p, n, 0); }
    /// First byte at or after p that is no blank, at most n.
    std::size_t next_text(std::size_t p, std::size_t n) const noexcept {
        return next(p, n, ~std::uint64_t{0});
    }
    /// Only letters in b..e?
    bool is_plain(std::size_t b, std::size_t e) const noexcept {
        std::size_t w = b / 64;
        const std::size_t last = (e - 1) / 64;
        std::uint64_t bits = other[w] & (~std::uint64_t{0} << (b % 64));
        while (w != last) {
            if (bits != 0) return false;
            bits = other[++w];
        }
        const std::size_t tail = e % 64;
        return (tail == 0 ? bits : bits & ((std::uint64_t{1} << tail) - 1)) == 0;
    }

private:
    std::size_t next(std::size_t p, std::size_t n, std::uint64_t flip) const noexcept {
        if (p >= n) return n;
        std::size_t w = p / 64;
        std::uint64_t bits = (space[w] ^ flip) & (~std::uint64_t{0} << (p % 64));
        while (bits == 0) {
            if (++w * 64 >= n) return n;
            bits = space[w] ^ flip;
        }
        const std::size_t at = w * 64 + static_cast<std::size_t>(std::countr_zero(bits));
        return at < n ? at : n;
    }
};

/// Sets of instructions, narrowest first. avx512: F, BW.
enum class Simd : std::uint8_t { scalar, sse42, avx2, avx512 };

/// The widest one of this machine.
Simd best_simd() noexcept;

/// Fills the words that `text` (at most 8192 bytes) needs, with best_simd().
void fill_bitmaps(std::string_view text, Bitmaps& out) noexcept;
/// Makes every later fill_bitmaps use this set (at most best_simd()). For tests and for measuring.
void use_simd(Simd simd) noexcept;
/// The same with one of the sets; `simd` must not be beyond best_simd().
void fill_bitmaps(std::string_view text, Bitmaps& out, Simd simd) noexcept;

}  // namespace heal::fingerprint
