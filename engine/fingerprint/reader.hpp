// The message of a raw line of any source: the one definition of which text of a line decides its id. Hearing
// (ingest) takes its messages from here and so does `healctl fingerprint id`; so a line has one id whichever
// way it came. Deliberately knows nothing of levels, services or contexts beyond what the header says.
#pragma once

#include "fingerprint/fingerprint.hpp"

#include <string>
#include <string_view>

namespace heal::fingerprint {

/// Reads lines. Its buffers are reused: no allocation per line once they are large enough. One per thread.
class LineReader {
public:
    /// Understands, over cut_header: colours; the wrappers of CRI and of docker's json-file; JSON (the
    /// message, with the error's text behind it where that is a field of its own; escapes undone); logfmt
    /// likewise; nginx error lines (without `, client: …`), access lines (as `HTTP 502: GET /path`); syslog
    /// with `@cee:` JSON and with #012 for line ends (the first line). `json` is never set in what is
    /// returned.
    /// @return views into `raw_line` or into this reader, valid until the next call
    Line read(std::string_view raw_line);
    /// Also telling which digits decided (shape.hpp). Internal to this folder.
    Line read(std::string_view raw_line, DigitWatch& watch);

private:
    Line inner(std::string_view text, DigitWatch& watch, int depth);
    bool json(std::string_view text, DigitWatch& watch, int depth, Line& ret);
    bool logfmt(std::string_view text, Line& ret);
    bool access(std::string_view text, DigitWatch& watch, Line& ret);
    std::string_view joined(std::string_view message, std::string_view error);

    std::string plain_, wrapped_, text_, error_, joined_;
};

/// The fields of a JSON line that say what happened. Views into the line, escapes still in place.
struct JsonText {
    Line header;  ///< all but the message
    std::string_view message, template_text, error, log;
    bool has_stream = false;
};
/// False: not an object that could be read to its end or to where it is cut off.
bool read_json(std::string_view line, JsonText& ret) noexcept;

}  // namespace heal::fingerprint
