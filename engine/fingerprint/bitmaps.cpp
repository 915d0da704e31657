#include "fingerprint/bitmaps.hpp"

#include "fingerprint/chars.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace heal::fingerprint {
namespace {

void scalar_from(std::string_view text, Bitmaps& out, std::size_t begin) noexcept {
    for (std::size_t w = begin; w * 64 < text.size(); ++w) {
        std::uint64_t space = 0, other = 0;
        const std::size_t end = text.size() - w * 64 < 64 ? text.size() - w * 64 : 64;
        for (std::size_t i = 0; i < end; ++i) {
            const std::uint8_t k = class_of(text[w * 64 + i]);
            space |= static_cast<std::uint64_t>((k & cls_space) != 0) << i;
            other |= static_cast<std::uint64_t>((k & (cls_digit | cls_join | cls_punct)) != 0) << i;
        }
        out.space[w] = space;
        out.other[w] = other;
    }
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) void half(__m256i v, std::uint32_t& space, std::uint32_t& other) noexcept {
    // Signed comparison: bytes from 0x80 up are negative and so below 0x21; they count as letters.
    const __m256i high = _mm256_cmpgt_epi8(_mm256_setzero_si256(), v);
    const __m256i control = _mm256_cmpgt_epi8(_mm256_set1_epi8(0x21), v);
    const __m256i blank =
        _mm256_or_si256(_mm256_andnot_si256(high, control), _mm256_cmpeq_epi8(v, _mm256_set1_epi8(0x7f)));
    const __m256i folded = _mm256_or_si256(v, _mm256_set1_epi8(0x20));
    const __m256i letter = _mm256_or_si256(
        high,
        _mm256_and_si256(
            _mm256_cmpgt_epi8(folded, _mm256_set1_epi8('a' - 1)),
            _mm256_cmpgt_epi8(_mm256_set1_epi8('z' + 1), folded)
        )
    );
    space = static_cast<std::uint32_t>(_mm256_movemask_epi8(blank));
    other = ~(static_cast<std::uint32_t>(_mm256_movemask_epi8(letter)) | space);
}

__attribute__((target("avx2"))) void fill_avx2(std::string_view text, Bitmaps& out) noexcept {
    const std::size_t whole = text.size() / 64;
    for (std::size_t w = 0; w < whole; ++w) {
        std::uint32_t s0, s1, o0, o1;
        half(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(text.data() + w * 64)), s0, o0);
        half(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(text.data() + w * 64 + 32)), s1, o1);
        out.space[w] = s0 | static_cast<std::uint64_t>(s1) << 32;
        out.other[w] = o0 | static_cast<std::uint64_t>(o1) << 32;
    }
    if (text.size() % 64 == 0) return;
    alignas(32) char tail[64] = {};
    __builtin_memcpy(tail, text.data() + whole * 64, text.size() % 64);
    std::uint32_t s0, s1, o0, o1;
    half(_mm256_load_si256(reinterpret_cast<const __m256i*>(tail)), s0, o0);
    half(_mm256_load_si256(reinterpret_cast<const __m256i*>(tail + 32)), s1, o1);
    const std::uint64_t used = (std::uint64_t{1} << (text.size() % 64)) - 1;
    out.space[whole] = (s0 | static_cast<std::uint64_t>(s1) << 32) & used;
    out.other[whole] = (o0 | static_cast<std::uint64_t>(o1) << 32) & used;
}

const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
#else
constexpr bool has_avx2 = false;
#endif

}  // namespace

bool fills_with_avx2() noexcept { return has_avx2; }

void fill_bitmaps_scalar(std::string_view text, Bitmaps& out) noexcept { scalar_from(text, out, 0); }

void fill_bitmaps(std::string_view text, Bitmaps& out) noexcept {
#if defined(__x86_64__)
    if (has_avx2) {
        fill_avx2(text, out);
        return;
    }
#endif
    scalar_from(text, out, 0);
}

}  // namespace heal::fingerprint
