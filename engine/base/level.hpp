// Log levels, in the words of M1 (`log_level`), with the numbers and names other systems use for them.
#pragma once

#include <cstdint>
#include <string_view>

namespace heal {

enum class Level : std::uint8_t { unknown, trace, debug, info, warn, error, fatal };

/// "trace" … "fatal"; "unknown" for a record whose source gave none.
const char* to_string(Level level) noexcept;

/// Understands names of syslog, log4j, logback, zap, pino, Python, systemd, glog, Java (`SEVERE`, `crit`,
/// `WARNING`, `E`, …), any letter case. Level::unknown for any other word.
Level parse_level(std::string_view word) noexcept;

/// pino/bunyan numbers: 10 trace, 20 debug, 30 info, 40 warn, 50 error, 60 fatal. Others round down.
Level level_of_pino(long number) noexcept;
/// syslog severities of RFC 5424: 0-2 fatal, 3 error, 4 warn, 5-6 info, 7 debug.
Level level_of_syslog(int severity) noexcept;
/// OpenTelemetry severity numbers: 1-4 trace, 5-8 debug, 9-12 info, 13-16 warn, 17-20 error, 21-24 fatal.
Level level_of_otlp(int number) noexcept;

}  // namespace heal
