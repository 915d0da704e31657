// What can be read from an error's text itself: level, type, HTTP status, and times in the forms that log
// headers use. Pure functions over borrowed text; no regular expressions (they lose to a single pass by a
// factor of six on log lines).
#pragma once

#include "base/clock.hpp"
#include "base/level.hpp"
#include "ingest/batch.hpp"

#include <cstddef>
#include <string>
#include <string_view>

namespace heal {

/// At most `max` bytes of the text, not ending within a UTF-8 character.
std::string_view cut_utf8(std::string_view text, std::size_t max);
std::string_view trim(std::string_view text);
bool starts_with_ignoring_case(std::string_view text, std::string_view lower_case_prefix);

/// The record's own level; else the default of the source; else error when text, stack or status (>= 500)
/// show one, else info.
Level level_of(const RecordView& record, const DecodeDefaults& defaults);

/// Level::fatal for panics, signals and sanitizer reports, Level::error for words like "error", "failed",
/// "exception"; unknown when the text shows no error.
Level level_in_text(std::string_view message);

/// The type of the error named in one line: "ValueError", "java.lang.NullPointerException", "panic",
/// "SIGSEGV", "heap-use-after-free"; "" when none is plainly there. A view into `message` or a constant.
std::string_view error_type_in_text(std::string_view message);

/// 400 … 599 when the text says `status=502`, `HTTP/1.1" 502`, `HTTP 502` or the like; else 0.
int http_status_in_text(std::string_view message);

/// Reads a time as log headers write it: RFC 3339, "2026-11-21 10:00:00,123", "2026/11/21 10:00:00", "Nov 21
/// 10:00:00", "Wed Nov 21 10:00:00.123456 2026", "21/Nov/2026:10:00:00 +0000". Without a zone it is taken as
/// local time; without a year as the last such date before `received` + 1 day. False leaves `ret` untouched.
bool parse_log_time(std::string_view text, Time received, Time& ret);

/// Seconds, milliseconds, microseconds or nanoseconds since the epoch, told apart by their size. False: not a
/// plausible time.
bool parse_epoch(double number, Time& ret);

}  // namespace heal
