#include "fingerprint/bitmaps.hpp"

#include "fingerprint/chars.hpp"

#include <atomic>

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

__attribute__((target("sse4.2"))) void quarter(
    __m128i v, std::uint64_t& space, std::uint64_t& other
) noexcept {
    const __m128i high = _mm_cmpgt_epi8(_mm_setzero_si128(), v);
    const __m128i control = _mm_cmpgt_epi8(_mm_set1_epi8(0x21), v);
    const __m128i blank =
        _mm_or_si128(_mm_andnot_si128(high, control), _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f)));
    const __m128i folded = _mm_or_si128(v, _mm_set1_epi8(0x20));
    const __m128i letter = _mm_or_si128(
        high,
        _mm_and_si128(
            _mm_cmpgt_epi8(folded, _mm_set1_epi8('a' - 1)), _mm_cmpgt_epi8(_mm_set1_epi8('z' + 1), folded)
        )
    );
    space = static_cast<std::uint32_t>(_mm_movemask_epi8(blank));
    other = ~(static_cast<std::uint32_t>(_mm_movemask_epi8(letter)) | static_cast<std::uint32_t>(space)) &
            0xFFFFU;
}

__attribute__((target("sse4.2"))) void block_sse42(
    const char* p, std::uint64_t& space, std::uint64_t& other
) noexcept {
    space = other = 0;
    for (unsigned i = 0; i < 4; ++i) {
        std::uint64_t s = 0, o = 0;
        quarter(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + std::size_t{16} * i)), s, o);
        space |= s << (16 * i);
        other |= o << (16 * i);
    }
}

__attribute__((target("sse4.2"))) void fill_sse42(std::string_view text, Bitmaps& out) noexcept {
    const std::size_t whole = text.size() / 64;
    for (std::size_t w = 0; w < whole; ++w) block_sse42(text.data() + w * 64, out.space[w], out.other[w]);
    if (text.size() % 64 == 0) return;
    alignas(16) char tail[64] = {};
    __builtin_memcpy(tail, text.data() + whole * 64, text.size() % 64);
    block_sse42(tail, out.space[whole], out.other[whole]);
    const std::uint64_t used = (std::uint64_t{1} << (text.size() % 64)) - 1;
    out.space[whole] &= used;
    out.other[whole] &= used;
}

__attribute__((target("avx512f,avx512bw"))) void fill_avx512(std::string_view text, Bitmaps& out) noexcept {
    for (std::size_t w = 0; w * 64 < text.size(); ++w) {
        const std::size_t left = text.size() - w * 64;
        const __mmask64 used = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
        const __m512i v = _mm512_maskz_loadu_epi8(used, text.data() + w * 64);
        const __mmask64 space = _mm512_mask_cmplt_epu8_mask(used, v, _mm512_set1_epi8(0x21)) |
                                _mm512_mask_cmpeq_epi8_mask(used, v, _mm512_set1_epi8(0x7f));
        // Letters: from 0x80 up, or a-z once the case is folded.
        const __m512i folded =
            _mm512_sub_epi8(_mm512_or_si512(v, _mm512_set1_epi8(0x20)), _mm512_set1_epi8('a'));
        const __mmask64 letter =
            _mm512_cmplt_epu8_mask(folded, _mm512_set1_epi8(26)) | _mm512_movepi8_mask(v);
        out.space[w] = space;
        out.other[w] = used & ~(letter | space);
    }
}

Simd find_best() noexcept {
    if (__builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0)
        return Simd::avx512;
    if (__builtin_cpu_supports("avx2") != 0) return Simd::avx2;
    if (__builtin_cpu_supports("sse4.2") != 0) return Simd::sse42;
    return Simd::scalar;
}
const Simd best = find_best();
#else
constexpr Simd best = Simd::scalar;
#endif

std::atomic<Simd> chosen{best};

}  // namespace

Simd best_simd() noexcept { return best; }
void use_simd(Simd simd) noexcept { chosen.store(simd, std::memory_order_relaxed); }

void fill_bitmaps(std::string_view text, Bitmaps& out, Simd simd) noexcept {
    switch (simd) {
#if defined(__x86_64__)
        case Simd::avx512:
            return fill_avx512(text, out);
        case Simd::avx2:
            return fill_avx2(text, out);
        case Simd::sse42:
            return fill_sse42(text, out);
#endif
        default:
            return scalar_from(text, out, 0);
    }
}

void fill_bitmaps(std::string_view text, Bitmaps& out) noexcept {
    fill_bitmaps(text, out, chosen.load(std::memory_order_relaxed));
}

}  // namespace heal::fingerprint
