#include "base/id.hpp"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <vector>

namespace heal {
namespace {

void fill_random(unsigned char* out, std::size_t size) {
    while (size > 0) {
        const auto n = ::getrandom(out, size, 0);
        if (n <= 0)
            std::abort(
            );  // the kernel's generator cannot fail after boot; ids without it would not be unique
        out += n;
        size -= static_cast<std::size_t>(n);
    }
}

std::string hex(const unsigned char* data, std::size_t size) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string out(size * 2, '0');
    for (std::size_t i = 0; i < size; ++i) {
        out[2 * i] = digits[data[i] >> 4U];
        out[2 * i + 1] = digits[data[i] & 15U];
    }
    return out;
}

}  // namespace

std::string new_id(const Clock& clock) {
    // RFC 9562 section 6.2 method 3: milliseconds, then 12 bits that grow within the millisecond.
    static std::atomic<std::uint64_t> last{0};
    const auto now = static_cast<std::uint64_t>(clock.wall().us) * 4096 / 1000;
    std::uint64_t previous = last.load(std::memory_order_relaxed);
    std::uint64_t next = 0;
    do {
        next = now > previous ? now : previous + 1;
    } while (!last.compare_exchange_weak(previous, next, std::memory_order_relaxed));
    std::array<unsigned char, 8> random{};
    fill_random(random.data(), random.size());
    random[0] = static_cast<unsigned char>((random[0] & 0x3FU) | 0x80U);
    const std::uint64_t ms = next >> 12U;
    const std::string tail = hex(random.data(), random.size());
    return fmt::format(
        "{:08x}-{:04x}-7{:03x}-{}-{}",
        ms >> 16U,
        ms & 0xFFFFU,
        next & 0xFFFU,
        tail.substr(0, 4),
        tail.substr(4)
    );
}

std::string sha256_hex(std::string_view bytes) {
    std::array<unsigned char, 32> digest{};
    unsigned int size = 0;
    EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(), nullptr);
    return hex(digest.data(), digest.size());
}

std::string hmac_sha256_hex(std::string_view key, std::string_view bytes) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> out{};
    unsigned size = 0;
    const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
    if (!HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), data, bytes.size(), out.data(), &size))
        std::abort();  // only without memory; a signature that is not one must not be handed out
    return hex(out.data(), size);
}

bool same_secret(std::string_view a, std::string_view b) noexcept {
    return a.size() == b.size() && ::CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::string random_hex(std::size_t size) {
    std::vector<unsigned char> bytes(size);
    fill_random(bytes.data(), bytes.size());
    return hex(bytes.data(), bytes.size());
}

}  // namespace heal
