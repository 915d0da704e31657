// One JSON object to one RecordView, whatever logger wrote it. Internal to ingest/; keeps simdjson out of the
// other files.
#pragma once

#include "ingest/batch.hpp"

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace heal {

/// Wrappers that hold a line of text rather than a record.
struct WrappedLine {
    std::string_view text;
    std::string_view stream, time;
    bool partial = false;  ///< the line goes on in the next one
};

/// Parses JSON texts into records. Buffers are reused; what it returns is valid until its next call.
/// @thread one at a time
class JsonRecords {
public:
    enum class Kind { record, wrapped_line, bad };

    JsonRecords();
    ~JsonRecords();
    JsonRecords(const JsonRecords&) = delete;
    JsonRecords& operator=(const JsonRecords&) = delete;

    /// One text holding one object. Kind::wrapped_line: docker's json-file; `ret_line` is filled then, else
    /// `ret`. Kind::bad: see error(). Broken UTF-8 is repaired, not refused.
    Kind parse(std::string_view text, Time received, RecordView& ret, WrappedLine& ret_line);

    /// A whole body: an array of objects or one object (with an array under "logs"). `visit(n, record or
    /// null)` once per element, n from 1; null: the element is no record, error() says why. False: the body
    /// is no JSON, error() says where.
    bool parse_body(
        std::string_view body,
        Time received,
        const std::function<void(std::uint64_t, const RecordView*)>& visit
    );

    const std::string& error() const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace heal
