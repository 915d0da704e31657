// Computes the stable id of an error from the error alone (D9): no training, no state, no configuration; the same on every
// machine, thread and release of the mechanism. Deliberately knows nothing of sources, stores or incidents.
#pragma once

#include "base/level.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace heal::fingerprint {

/// What the header cut found in a raw line. All views point into the line.
struct Line {
    std::string_view message;    ///< the line without its header; never longer than the line
    std::string_view timestamp, host, process, thread, component;  ///< empty: not found
    Level level = Level::unknown;
};

/// Cuts timestamp, level, host, process, thread, component, in any order, none configured. Never fails. @thread any
Line cut_header(std::string_view raw_line) noexcept;

struct Fingerprint {
    std::string id;         ///< first 16 hex digits of the digest (M2)
    std::string digest;     ///< SHA-256 over "service:pattern:stackSignature", 64 hex digits
    std::string pattern;    ///< normalized message, values as <*>
    std::string signature;  ///< normalized stack; "" without one
};

/// The id of one error. `message` without its header (see cut_header); `stack_trace` may be empty. @thread any
Fingerprint compute(std::string_view service, std::string_view message, std::string_view stack_trace);

/// Version of the mechanism; it is part of what is stored, so that an upgrade can alias instead of split.
inline constexpr int mechanism_version = 1;

}  // namespace heal::fingerprint
