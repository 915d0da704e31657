#include "cli/fingerprint_id.hpp"

#include "fingerprint/fingerprint.hpp"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string_view>
#include <vector>

namespace heal::cli {
namespace {

constexpr std::size_t block = 1 << 18;     // measured: larger reads are not faster than the scan
constexpr std::size_t max_line = 1 << 20;  // the reader's bound; the scanner looks at less

result<void> write_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t n = ::write(fd, bytes.data(), bytes.size());
        if (n < 0) {
            if (errno == EINTR) continue;
            return fail_errno("cannot write the ids", errno);
        }
        bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return boost::system::in_place_value;
}

/// Calls on_line for each line and on_idle before every read.
template <class OnLine, class OnIdle>
result<std::uint64_t> each_line(int fd, OnLine on_line, OnIdle on_idle) {
    std::vector<char> buffer(block);
    std::size_t begin = 0, end = 0;
    std::uint64_t lines = 0;
    bool skipping = false;  // the rest of an over-long line
    while (true) {
        if (begin > 0 && buffer.size() - end < block / 2) {
            std::memmove(buffer.data(), buffer.data() + begin, end - begin);
            end -= begin;
            begin = 0;
        }
        if (buffer.size() - end < block / 2) buffer.resize(buffer.size() + block);
        if (auto idle = on_idle(); !idle) return std::move(idle).error();
        const ssize_t n = ::read(fd, buffer.data() + end, buffer.size() - end);
        if (n < 0) {
            if (errno == EINTR) continue;
            return fail_errno("cannot read the lines", errno);
        }
        if (n == 0) break;
        std::size_t look = end;
        end += static_cast<std::size_t>(n);
        while (look < end) {
            const void* newline = std::memchr(buffer.data() + look, '\n', end - look);
            if (newline == nullptr) break;
            const std::size_t stop =
                static_cast<std::size_t>(static_cast<const char*>(newline) - buffer.data());
            if (!skipping) {
                on_line(std::string_view{buffer.data() + begin, stop - begin});
                ++lines;
            }
            skipping = false;
            begin = look = stop + 1;
        }
        if (skipping) {
            begin = end = 0;
        } else if (end - begin > max_line) {
            on_line(std::string_view{buffer.data() + begin, max_line});
            ++lines;
            skipping = true;
            begin = end = 0;
        } else if (begin == end) {
            begin = end = 0;
        }
    }
    if (end > begin && !skipping) {
        on_line(std::string_view{buffer.data() + begin, end - begin});
        ++lines;
    }
    if (auto idle = on_idle(); !idle) return std::move(idle).error();
    return lines;
}

fingerprint::Scanner seeded(const std::string& service) {
    std::random_device random;
    const auto word = [&] { return std::uint64_t{random()} << 32 | random(); };
    return fingerprint::Scanner{service, word(), word()};
}

}  // namespace

result<std::uint64_t> fingerprint_id(int in, int out, const FingerprintIdOptions& options) {
    fingerprint::Scanner scanner = seeded(options.service);
    std::string output;
    output.reserve(block);
    return each_line(
        in,
        [&](std::string_view line) {
            char hex[17];
            char(&digits)[16] = reinterpret_cast<char(&)[16]>(hex);
            fingerprint::id_hex(scanner.id_of_line(line), digits);
            hex[16] = '\n';
            if (options.pattern) {
                output.append(hex, 16).append("\t");
                output += fingerprint::explain(options.service, line, {}).fingerprint.pattern;
                output += '\n';
            } else {
                output.append(hex, 17);
            }
        },
        [&]() -> result<void> {
            auto written = write_all(out, output);
            output.clear();
            return written;
        }
    );
}

result<std::uint64_t> fingerprint_explain(int in, int out, const FingerprintIdOptions& options) {
    std::string output, whole;
    const auto print = [&](std::string_view line, std::string_view trace) {
        const fingerprint::Explanation e = fingerprint::explain(options.service, line, trace);
        const auto field = [&](const char* name, std::string_view value) {
            if (!value.empty()) output.append(name).append(value).append("\n");
        };
        field("id         ", e.fingerprint.id);
        field("digest     ", e.fingerprint.digest);
        field("pattern    ", e.fingerprint.pattern);
        field("signature  ", e.fingerprint.signature);
        field("timestamp  ", e.header.timestamp);
        field("level      ", to_string(e.header.level));
        field("host       ", e.header.host);
        field("process    ", e.header.process);
        field("thread     ", e.header.thread);
        field("component  ", e.header.component);
        for (const auto& mask : e.masks)
            output.append("mask       ").append(mask.rule).append(": ").append(mask.text).append("\n");
        for (const auto& frame : e.frames) output.append("frame      ").append(frame).append("\n");
        output += '\n';
    };
    auto lines = each_line(
        in,
        [&](std::string_view line) {
            if (!options.event)
                print(line, {});
            else if (whole.size() + line.size() < max_line)
                whole.append(line).append("\n");
        },
        [&]() -> result<void> {
            auto written = write_all(out, output);
            output.clear();
            return written;
        }
    );
    if (!lines || !options.event || whole.empty()) return lines;
    const std::string_view text = whole;
    print(text.substr(0, text.find('\n')), text);
    HEAL_TRY(write_all(out, output));
    return std::uint64_t{1};
}

}  // namespace heal::cli
