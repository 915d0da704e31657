// Frames between engine and child: 4 bytes little-endian length, then so many bytes of JSON, 1 … 1 MiB. Splitting and joining
// only; who reads the descriptor decides how (asio in runner/, blocking in host/). What a child sends is not trusted: a length
// out of range ends the conversation.
#pragma once

#include "base/error.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace heal {

constexpr std::size_t max_frame_bytes = 1U << 20U;  // borders.md
constexpr std::int64_t wire_protocol = 1;           ///< in hello; both sides come from one build, so it only guards mix-ups

/// `text` with its length in front. errc::invalid_input when it is empty or larger than max_frame_bytes.
result<std::string> to_frame(std::string_view text);

/// Collects bytes in any pieces and gives whole frames. Keeps at most one frame and one piece.
class FrameReader {
public:
    void append(std::string_view bytes) { buffer_.append(bytes); }
    /// True: `ret` holds the next frame's text, valid until the next call of any method. False: more bytes are needed.
    /// errc::protocol when the announced length is 0 or above max_frame_bytes; stays so.
    result<bool> next(std::string_view& ret);
    /// Bytes of a frame that is not complete.
    std::size_t pending() const { return buffer_.size() - used_; }

private:
    std::string buffer_;
    std::size_t used_ = 0;
};

}  // namespace heal
