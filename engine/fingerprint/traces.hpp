// Stack traces of many languages to frames, and frames to ids that outlive a release: no line numbers,
// addresses, offsets, build hashes or generated names. Deliberately no source lookup and no symbolication:
// text in, names out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace heal::fingerprint {

enum class Language : std::uint8_t {
    unknown,
    python,
    java,
    javascript,
    go,
    rust,
    csharp,
    ruby,
    php,
    native,
    kernel
};

/// "python" … "kernel", "unknown".
const char* to_string(Language language) noexcept;

struct Frame {
    std::string module;    ///< package, class or file without directory, build hash and version; "" when the
                           ///< trace has none
    std::string function;  ///< without template arguments, generics, closure numbers, parameters
    bool in_app = false;   ///< written by the user, as far as names and paths tell
};

/// One exception of a chain.
struct Raised {
    std::string type;           ///< "java.io.IOException", "ValueError", "SIGSEGV", "heap-use-after-free"
    std::string message;        ///< first line, unmasked
    std::vector<Frame> frames;  ///< innermost call first, recursion collapsed, at most 64
};

struct Trace {
    Language language = Language::unknown;
    std::vector<Raised> chain;  ///< innermost cause first; wrappers after it; at most 8
};

/// Three nested ids as texts to be hashed; each empty when the trace gives nothing to hash it from.
struct Signature {
    std::string exact;     ///< types of the chain and all in-app frames of the cause
    std::string app5;      ///< type of the cause and its first five in-app frames; the one that groups
    std::string type_msg;  ///< type and masked message
    std::vector<std::string> frames;  ///< those in app5, "module:function"
};

/// Parses the text of a trace, its message lines included. Linear; looks at the first 64 KiB. Never fails: an
/// unknown form gives an empty chain. @thread any
Trace parse_trace(std::string_view text);

/// The signatures of a parsed trace. `ignored` are helper frames of the user ("module:function", `*` matches
/// any run) that are stepped over. Without any frame `exact` and `app5` stay empty.
Signature signature_of(const Trace& trace, const std::vector<std::string>& ignored = {});

/// `*` matches any run of characters, everything else itself. Linear in practice: one backtracking point.
bool matches_glob(std::string_view glob, std::string_view text) noexcept;

}  // namespace heal::fingerprint
