#include "fingerprint/shape.hpp"

#include "fingerprint/model.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace heal::fingerprint {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr std::uint64_t ones = 0x0101010101010101ULL;

/// Digits to '0', eight bytes at once.
std::uint64_t without_digits(std::uint64_t w) noexcept {
    const std::uint64_t x = w ^ (ones * '0');
    // High bit of each byte that is no digit: above 9, or above 0x7f.
    const std::uint64_t other = (((x & (ones * 0x7f)) + ones * 0x76) | x) & (ones * 0x80);
    const std::uint64_t digit = (other ^ (ones * 0x80)) >> 7;  // 1 in each byte that is a digit
    return w & ~(digit * 0x0f);
}

struct Sums {
    Wide a = 0, b = 0;
    void add(const std::uint64_t* key, std::uint64_t x, std::uint64_t y) noexcept {
        a += static_cast<Wide>(x + key[0]) * (y + key[1]);
        b += static_cast<Wide>(x + key[2]) * (y + key[3]);
    }
    Shape shape(const std::uint64_t* key) const noexcept {
        const auto fold = [](Wide v, std::uint64_t k, std::uint64_t l) {
            return detail::fold_multiply(
                static_cast<std::uint64_t>(v) ^ k, static_cast<std::uint64_t>(v >> 64) ^ l
            );
        };
        return {fold(a, key[0], key[1]), fold(b, key[2], key[3])};
    }
};

struct ScalarBlock {
    static void add(Sums& sums, const std::uint64_t* key, const char* p) noexcept {
        sums.add(key, without_digits(detail::load(p, 8)), without_digits(detail::load(p + 8, 8)));
    }
};

#if defined(__SSE2__)
struct VectorBlock {
    static void add(Sums& sums, const std::uint64_t* key, const char* p) noexcept {
        const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        // Signed comparisons: bytes from 0x80 up are below '0'.
        const __m128i digit = _mm_and_si128(
            _mm_cmpgt_epi8(v, _mm_set1_epi8('0' - 1)), _mm_cmpgt_epi8(_mm_set1_epi8('9' + 1), v)
        );
        const __m128i canonical = _mm_andnot_si128(_mm_and_si128(digit, _mm_set1_epi8(0x0f)), v);
        sums.add(
            key,
            static_cast<std::uint64_t>(_mm_cvtsi128_si64(canonical)),
            static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm_unpackhi_epi64(canonical, canonical)))
        );
    }
};
#else
using VectorBlock = ScalarBlock;
#endif

template <class Block>
Shape hash(const std::uint64_t* key, std::string_view text, ShapeOf kind) noexcept {
    const char* p = text.data();
    const std::size_t n = text.size();
    Sums sums;
    sums.add(key, n, static_cast<std::uint64_t>(kind));
    const std::uint64_t* k = key + 2;
    if (n >= 16) {
        std::size_t i = 0;
        for (; i + 16 <= n; i += 16, k += 2) Block::add(sums, k, p + i);
        // The rest is read together with bytes before it; the length is part of the sum.
        if (i < n) Block::add(sums, k, p + n - 16);
    } else if (n > 8) {
        sums.add(k, without_digits(detail::load(p, 8)), without_digits(detail::load(p + n - 8, 8)));
    } else {
        std::uint64_t w = 0;
        if (n > 0) std::memcpy(&w, p, n);
        sums.add(k, without_digits(w), 0);
    }
    return sums.shape(key + 2);
}

}  // namespace

ShapeHash::ShapeHash(std::uint64_t seed_low, std::uint64_t seed_high) noexcept {
    std::uint64_t state = seed_low;
    for (auto& word : key_) {
        // splitmix64, both seeds in it
        state += 0x9E3779B97F4A7C15ULL;
        std::uint64_t z = state ^ (seed_high * 0xD6E8FEB86659FD93ULL);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
        word = z ^ (z >> 31);
    }
}

Shape ShapeHash::operator()(std::string_view text, ShapeOf kind) const noexcept {
    return hash<VectorBlock>(key_, text, kind);
}

Shape ShapeHash::scalar(std::string_view text, ShapeOf kind) const noexcept {
    return hash<ScalarBlock>(key_, text, kind);
}

ShapeMemo::Entry& ShapeMemo::place_in(Entry* set) noexcept {
    for (std::size_t i = 0; i < ways; ++i) {
        if (!set[i].used) return set[i];
    }
    ++pushed_out_;
    for (std::size_t i = 0; i < ways; ++i) {
        Entry& e = set[++hand_ % ways];
        if (!e.recent) return e;
        e.recent = false;
    }
    return set[++hand_ % ways];
}

void ShapeMemo::grow() {
    const std::size_t sets = std::min((mask_ + 1) * 4, most_);
    ZeroPages<Entry> larger{sets * ways};
    for (std::size_t i = 0; i < (mask_ + 1) * ways; ++i) {
        const Entry& e = entries_.data()[i];
        if (e.used) place_in(larger.data() + (e.shape.low & (sets - 1)) * ways) = e;
    }
    entries_ = std::move(larger);
    mask_ = sets - 1;
    pushed_out_ = 0;
}

void ShapeMemo::put(
    const Shape& shape,
    const DigitWatch& watch,
    std::uint64_t key_low,
    std::uint64_t key_high,
    std::uint64_t id
) {
    if (watch.refused()) return;
    // A quarter as many were pushed out as there is room for.
    if (pushed_out_ > mask_ && mask_ + 1 < most_) grow();
    Entry& place = place_in(entries_.data() + (shape.low & mask_) * ways);
    place.shape = shape;
    place.key_low = key_low;
    place.key_high = key_high;
    place.id = id;
    place.count = watch.count_;
    for (std::size_t i = 0; i < watch.count_; ++i) {
        place.at[i] = watch.at_[i];
        place.digit[i] = watch.digit_[i];
    }
    place.used = true;
    place.recent = false;
}

}  // namespace heal::fingerprint
