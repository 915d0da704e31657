// Computes the stable id of an error from the error alone (D9): no training, no state, no configuration; the
// same on every machine, thread and release of the mechanism. Deliberately knows nothing of sources, stores
// or incidents.
#pragma once

#include "base/level.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace heal::fingerprint {

/// What the header cut found in a raw line. All views point into the line.
struct Line {
    std::string_view message;  ///< the line without its header; never longer than the line
    std::string_view timestamp, host, process, thread, component;  ///< empty: not found
    Level level = Level::unknown;
    bool json = false;  ///< `message` is the text of a JSON string, its escapes still in place
};

/// Cuts timestamp, level, host, process, thread, component, in any order, none configured. Understands syslog
/// (RFC 3164, RFC 5424), logcat, glog, log4j-like layouts, web server logs, the kernel's uptime, NDJSON (the
/// message key) and logfmt. Colours must have been taken out (strip_ansi). Looks at no more than the first
/// 640 bytes, JSON excepted. Never fails. @thread any
Line cut_header(std::string_view raw_line) noexcept;

class DigitWatch;
class LineReader;

struct Fingerprint {
    std::string id;         ///< first 16 hex digits of the digest (M2)
    std::string digest;     ///< SHA-256 over "service:pattern:stackSignature", 64 hex digits
    std::string pattern;    ///< normalized message, values as <*>
    std::string signature;  ///< normalized stack; "" without one
};

/// The id of one error. `message` without its header (see cut_header); `stack_trace` may be empty. @thread
/// any
Fingerprint compute(std::string_view service, std::string_view message, std::string_view stack_trace);

/// The pattern alone: valid UTF-8 (other bytes as U+FFFD), blanks collapsed, values as <*>. Only the first 8
/// KiB of the message decide (scan.hpp). @thread any
std::string pattern_of(std::string_view message);

/// A piece of a message that was masked, and why.
struct Mask {
    const char* rule = "";  ///< name of the rule, static
    std::string text;       ///< the masked bytes, at most 200
};

/// Everything that decided an id, for people.
struct Explanation {
    std::shared_ptr<LineReader> reader;  ///< holds what of the header is no part of the line
    Line header;
    Fingerprint fingerprint;
    std::vector<Mask> masks;          ///< in the order of the message
    std::vector<std::string> frames;  ///< frames used, "module:function", top first
};

/// Explains a raw line (header cut first). The header's views point into `raw_line`, or into `reader`.
Explanation explain(std::string_view service, std::string_view raw_line, std::string_view stack_trace);

class ShapeHash;
class ShapeMemo;

/// 128 bits that stand for a pattern inside one process: equal patterns have equal keys. Keyed by the
/// scanner's seed, so that a sender cannot aim at a collision; never stored and never shown.
struct Key {
    std::uint64_t low = 0, high = 0;
    bool operator==(const Key&) const = default;
};

/// The hot path: lines to ids, without allocation or lock per line. Holds two bounded caches of what pure
/// functions gave: from the shape of a line or message to its key (shape.hpp), from keys to public ids; a
/// miss there spells the pattern and hashes it. They take 5.3 MB at most. One per thread; not thread-safe.
class Scanner {
public:
    /// @param service  part of every id; empty for ids of bare lines
    /// @param seed     two random words; equal seeds give equal keys
    explicit Scanner(std::string service = {}, std::uint64_t seed_low = 0, std::uint64_t seed_high = 0);
    ~Scanner();
    Scanner(Scanner&&) noexcept;
    Scanner& operator=(Scanner&&) noexcept;

    /// Key of a message without header.
    /// @param watch  told of the digits that decided when the message is a part of what it watches; may be
    /// null
    Key key(std::string_view message, DigitWatch* watch = nullptr);
    /// First 64 bits of the SHA-256 digest, that is the public id as a number. Message without header.
    std::uint64_t id(std::string_view message);
    /// The same for a raw line, whose message LineReader (reader.hpp) finds.
    std::uint64_t id_of_line(std::string_view raw_line);

    /// Patterns spelled so far.
    std::uint64_t misses() const noexcept { return misses_; }
    /// Lines and messages that were scanned because their shape was not remembered.
    std::uint64_t scans() const noexcept { return scans_; }
    /// False: every line is cut and scanned. The ids are the same; for tests and for measuring.
    void remember_shapes(bool on) noexcept { remembers_ = on; }

private:
    struct Slots;
    struct Known {
        Key key;
        std::uint64_t id = 0;
    };
    Known known(std::string_view message, DigitWatch* line, bool with_id);
    Key scan(std::string_view message, DigitWatch& watch);
    std::uint64_t id_of(const Key& key, std::string_view message);

    std::string service_;
    std::uint64_t seed_low_, seed_high_;
    std::unique_ptr<Slots> slots_;
    std::uint64_t misses_ = 0, scans_ = 0;
    bool remembers_ = true;
    std::unique_ptr<ShapeHash> shape_;
    std::unique_ptr<ShapeMemo> memo_;
    std::unique_ptr<LineReader> reader_;
    std::string plain_;  ///< a message without colours
};

/// True when the text holds escape bytes; then strip_ansi copies it without its ANSI sequences (CSI and OSC,
/// ECMA-48) into `out`, which is cleared first. Scanner, compute and explain do this by themselves;
/// cut_header does not.
bool has_ansi(std::string_view text) noexcept;
void strip_ansi(std::string_view text, std::string& out);

/// JSON string escapes undone (\n, \", \u00e9 …) into `out`, which is cleared first.
void unescape_json(std::string_view text, std::string& out);

/// 16 lower-case hex digits of an id.
void id_hex(std::uint64_t id, char (&out)[16]) noexcept;

/// Version of the mechanism; it is part of what is stored, so that an upgrade can alias instead of split.
inline constexpr int mechanism_version = 1;

}  // namespace heal::fingerprint
