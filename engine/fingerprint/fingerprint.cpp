#include "fingerprint/fingerprint.hpp"

#include "base/id.hpp"

namespace heal::fingerprint {

Line cut_header(std::string_view raw_line) noexcept {
    Line line;
    line.message = raw_line;
    return line;
}

Fingerprint compute(std::string_view service, std::string_view message, std::string_view stack_trace) {
    Fingerprint f;
    for (const char c : message) {
        if (c >= '0' && c <= '9') {
            if (f.pattern.empty() || f.pattern.back() != '#') f.pattern += '#';
        } else {
            f.pattern += c;
        }
    }
    f.signature = std::string{stack_trace.substr(0, 200)};
    f.digest = sha256_hex(std::string{service} + ":" + f.pattern + ":" + f.signature);
    f.id = f.digest.substr(0, 16);
    return f;
}

}  // namespace heal::fingerprint
