// The line formats that need more than cutting a header: each reader takes one line and says whether it is of
// its format. Internal to ingest/. Pure functions; views into the line.
#pragma once

#include "base/clock.hpp"
#include "ingest/batch.hpp"
#include "ingest/json_record.hpp"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace heal {

/// Fields of a line that have no place of their own in a record.
class LineContext final : public ContextSource {
public:
    void clear() { fields_.clear(); }
    void add(std::string_view key, std::string_view value) {
        if (!value.empty() && fields_.size() < 16) fields_.emplace_back(key, value);
    }
    std::string context() const override;

private:
    std::vector<std::pair<std::string_view, std::string_view>> fields_;
};

/// `2026/11/21 10:00:00 [error] 7#8: *9 message, client: …, server: …, request: "…"`
bool read_nginx_error(std::string_view line, Time received, RecordView& ret, LineContext& context);
/// `[Sat Nov 21 10:00:00.123456 2026] [core:error] [pid 7:tid 8] [client 1.2.3.4:5] message`
bool read_apache_error(std::string_view line, Time received, RecordView& ret, LineContext& context);
/// Common and combined access lines. A status of 500 and above is an error, all others info. The message is
/// left to fingerprint's LineReader.
bool read_access(std::string_view line, Time received, RecordView& ret, LineContext& context);
/// `<PRI>1 …` (RFC 5424) and `<PRI>Nov 21 …` (RFC 3164).
bool read_syslog(std::string_view line, Time received, RecordView& ret, LineContext& context);
/// Kubernetes' CRI: `2026-11-21T10:00:00.123456789Z stderr F message`
bool read_cri(std::string_view line, WrappedLine& ret);

bool looks_like_logfmt(std::string_view line);
/// The level named in a logfmt line.
Level level_in_logfmt(std::string_view line);
/// The same fields as a JSON object text, for JsonRecords; at most 256 fields.
void logfmt_to_json(std::string_view line, std::string& ret);

}  // namespace heal
