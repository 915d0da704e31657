#include "wire/frame.hpp"

#include <fmt/format.h>

namespace heal {

result<std::string> to_frame(std::string_view text) {
    if (text.empty() || text.size() > max_frame_bytes) {
        return fail(errc::invalid_input, fmt::format("a message of {} bytes does not fit a frame of 1 to {}", text.size(), max_frame_bytes));
    }
    const auto n = static_cast<std::uint32_t>(text.size());
    std::string out;
    out.reserve(text.size() + 4);
    for (unsigned shift = 0; shift < 32; shift += 8) out += static_cast<char>((n >> shift) & 0xFFU);
    out += text;
    return out;
}

result<bool> FrameReader::next(std::string_view& ret) {
    if (used_ > 0 && (used_ == buffer_.size() || used_ > max_frame_bytes)) {
        buffer_.erase(0, used_);
        used_ = 0;
    }
    if (pending() < 4) return false;
    std::uint32_t n = 0;
    for (unsigned i = 0; i < 4; ++i) n |= static_cast<std::uint32_t>(static_cast<unsigned char>(buffer_[used_ + i])) << (8 * i);
    if (n == 0 || n > max_frame_bytes) {
        return fail(errc::protocol, fmt::format("a frame of {} bytes was announced; 1 to {} are allowed", n, max_frame_bytes));
    }
    if (pending() < 4 + std::size_t{n}) return false;
    ret = std::string_view{buffer_}.substr(used_ + 4, n);
    used_ += 4 + std::size_t{n};
    return true;
}

}  // namespace heal
