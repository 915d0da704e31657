// Bytes to records. LogDecoder takes what applications POST (JSON in the shapes of the usual loggers);
// LineDecoder takes lines of log files in whatever format they have, and joins the lines of a stack trace to
// the line they belong to. Both write into a BatchBuilder. No I/O, no threads, no clock beyond the times they
// are given.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "ingest/batch.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace heal {

/// A place in a body that could not be read.
struct LineError {
    std::uint64_t line = 0;  ///< 1-based; in an array the number of the element
    std::string text;        ///< what is wrong there, one sentence
};

/// What became of one body.
struct DecodeReport {
    std::uint64_t records = 0, below_level = 0, self = 0, malformed = 0;
    std::vector<LineError> errors;  ///< the first max_errors malformed ones
    static constexpr std::size_t max_errors = 20;
};

/// Decodes bodies. One per worker thread; its buffers are reused.
/// @thread one at a time
class LogDecoder {
public:
    /// JSON nesting allowed in one record (reliability row 64).
    static constexpr std::size_t max_depth = 64;

    LogDecoder();
    ~LogDecoder();
    LogDecoder(const LogDecoder&) = delete;
    LogDecoder& operator=(const LogDecoder&) = delete;

    /// Reads one JSON object, an array of objects, {"logs": [ … ]}, NDJSON, or with content type text/plain
    /// the lines of a log file, into `builder`. Field names of pino, bunyan, winston, zap, logrus, logback,
    /// Serilog, structlog, ECS and OpenTelemetry are understood, nested (`err.stack`, `log.level`) or with
    /// dots; unknown ones go to the sample's context. A repeated key: the last one counts (pino writes them
    /// so). The body is already inflated (gzip.hpp) and limited in size. A malformed NDJSON line or array
    /// element is reported and the rest is taken. errc::invalid_input: nothing at all could be read; the
    /// builder is as before.
    result<DecodeReport> decode_logs(
        std::string_view body,
        std::string_view content_type,
        const DecodeDefaults& defaults,
        BatchBuilder& builder
    );

private:
    struct State;
    std::unique_ptr<State> state_;
};

/// When lines of a file belong together.
struct JoinOptions {
    bool enabled = true;
    /// How long the last line is held when a trace has begun or its text announces one (an exception,
    /// `panic:`, …). Lines that can't be continued (JSON, logfmt, nginx, Apache, syslog, a plain line that
    /// names no exception) are never held. 0 … 5 s.
    Duration wait{50'000};
    /// The same after a line that ends a trace by its form (Python's exception line, ASan's ABORTING): only a
    /// chained one may follow.
    Duration settle{5'000};
    Duration longest{1'000'000};  ///< of one group, whatever still comes (reliability row 17)
    std::size_t max_lines = 512;  ///< further ones are counted as joined and cut
    std::size_t max_bytes = 64U << 10U;
};

/// Lines of one source to records. Formats are recognised line by line: JSON lines (also inside docker
/// json-file and CRI wrappers, whose parts are put together), logfmt, nginx and Apache error and access
/// lines, syslog 3164 and 5424, and plain text with any header. Traces of Python, Java, Go, Node, C++ (ASan,
/// glibc), Rust, .NET and Ruby are joined.
/// @thread one at a time
class LineDecoder {
public:
    LineDecoder(DecodeDefaults defaults, JoinOptions join);
    ~LineDecoder();
    LineDecoder(LineDecoder&&) noexcept;
    LineDecoder& operator=(LineDecoder&&) noexcept;

    /// One whole line without its line end (a CR before it is cut here). `raw_bytes`: what it takes in the
    /// file.
    void line(
        std::string_view text, std::uint64_t raw_bytes, bool truncated, Duration now, BatchBuilder& builder
    );
    /// False: every line is looked at in full. What is heard is the same; for tests and for measuring.
    void remember_shapes(bool on);
    /// There is nothing more to read at the moment: the last line is given away, or held as JoinOptions says.
    /// Afterwards no view into earlier lines is kept.
    void pause(Duration now, BatchBuilder& builder);
    /// Steady time at which flush() is due; none when nothing is held.
    std::optional<Duration> deadline() const;
    /// Gives away what is held.
    void flush(BatchBuilder& builder);
    /// Bytes (as of raw_bytes) of the lines that are held: they are in no batch yet, so an offset must not go
    /// beyond them.
    std::uint64_t held_bytes() const;

private:
    struct State;
    std::shared_ptr<State> state_;  ///< shared with builders that hold a line to read again
};

}  // namespace heal
