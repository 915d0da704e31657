// The opening rules of bugs and the severity of errors (M2, M3). Pure.
#pragma once

#include "core/incident.hpp"

#include <vector>

namespace heal {

/// Exact count of occurrences within a sliding window, bounded: times are coalesced to 1/64 of the window.
class SlidingCount {
public:
    explicit SlidingCount(Duration window = std::chrono::hours{1}) : window_(window) {}
    void add(Time at, std::uint64_t count);
    /// Occurrences in (now - window, now]. Late events (older than the newest) count at their own time.
    std::uint64_t count(Time now) const { return count(now, window_); }
    /// The same for a shorter window.
    std::uint64_t count(Time now, Duration within) const;
    bool idle(Time now) const { return entries_.empty() || entries_.back().at + window_ < now; }

private:
    struct Entry {
        Time at;
        std::uint64_t count;
    };
    Duration window_;
    std::vector<Entry> entries_;  // by time, at most 130
};

/// Why a bug opens at once: "fatal", "panic", "database_error", "http_5xx"; "" when it doesn't.
std::string opens_at_once(const LogRecord& record);

/// Third occurrence within an hour (M3).
inline constexpr std::uint64_t bug_threshold = 3;

/// Severity from impact (level, kind, status) and frequency (occurrences in the last hour).
Severity severity_of(const LogRecord& record, std::uint64_t per_hour);

/// `null_pointer`, `sql_error`, `network`, `resource`, `performance`, `config`, `crash` or `logic_bug`, from
/// type, message and stack.
std::string bug_type_of(const LogRecord& record);

/// First line of the message, at most 200 bytes, with the error type before it when the message doesn't have
/// it.
std::string title_of(const LogRecord& record);

}  // namespace heal
