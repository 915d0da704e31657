#include "ingest/gzip.hpp"

#include <zlib.h>

#include <algorithm>

namespace heal {
namespace {

struct Inflater {
    z_stream stream{};
    bool open = false;
    ~Inflater() {
        if (open) ::inflateEnd(&stream);
    }
};

}  // namespace

result<std::string> inflate_body(std::string_view compressed, std::size_t max_bytes) {
    Inflater in;
    if (::inflateInit2(&in.stream, 15 + 32) != Z_OK)
        return fail(errc::internal, "zlib cannot start");  // 32: gzip or zlib by its header
    in.open = true;
    // zlib takes a non-const pointer but does not write through it.
    in.stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(compressed.data()));
    in.stream.avail_in = static_cast<uInt>(std::min<std::size_t>(compressed.size(), UINT32_MAX));
    std::string ret;
    char chunk[32768];
    while (true) {
        in.stream.next_out = reinterpret_cast<Bytef*>(chunk);
        in.stream.avail_out = sizeof chunk;
        const int code = ::inflate(&in.stream, Z_NO_FLUSH);
        const std::size_t got = sizeof chunk - in.stream.avail_out;
        if (ret.size() + got > max_bytes) {
            return fail(
                errc::overloaded,
                "the body inflates to more than " + std::to_string(max_bytes) + " bytes; send it in parts"
            );
        }
        ret.append(chunk, got);
        if (code == Z_STREAM_END) {
            if (in.stream.avail_in == 0) return ret;
            if (::inflateReset(&in.stream) != Z_OK)
                return fail(errc::internal, "zlib cannot go on");  // a further gzip member
            continue;
        }
        if (code == Z_BUF_ERROR || (code == Z_OK && in.stream.avail_in == 0 && got < sizeof chunk)) {
            return fail(
                errc::invalid_input,
                "the compressed body is cut off after " + std::to_string(compressed.size()) + " bytes"
            );
        }
        if (code != Z_OK) {
            return fail(
                errc::invalid_input,
                "the body is not valid gzip or zlib data near byte " + std::to_string(in.stream.total_in)
            );
        }
    }
}

}  // namespace heal
