// heald's own log: structured lines on stderr; plain on a terminal, JSON lines otherwise, with "<3>" style
// priorities when systemd reads them. Deliberately no file sink and no ingest of itself: records carry
// logger="heald" and the ingest drops them.
#pragma once

#include <fmt/core.h>

#include <string_view>

namespace heal::log {

enum class Format { automatic, plain, json };

/// Once, before threads start. `level` is one of trace, debug, info, warn, error. False: the level is
/// unknown.
bool set_up(std::string_view program, std::string_view level, Format format);

enum class Priority { trace, debug, info, warn, error };

/// One line, when its priority is high enough. Never throws. Any thread.
void write(Priority priority, fmt::string_view format, fmt::format_args args) noexcept;

template <class... A>
void trace(fmt::format_string<A...> format, A&&... args) {
    write(Priority::trace, format, fmt::make_format_args(args...));
}
template <class... A>
void debug(fmt::format_string<A...> format, A&&... args) {
    write(Priority::debug, format, fmt::make_format_args(args...));
}
template <class... A>
void info(fmt::format_string<A...> format, A&&... args) {
    write(Priority::info, format, fmt::make_format_args(args...));
}
template <class... A>
void warn(fmt::format_string<A...> format, A&&... args) {
    write(Priority::warn, format, fmt::make_format_args(args...));
}
template <class... A>
void error(fmt::format_string<A...> format, A&&... args) {
    write(Priority::error, format, fmt::make_format_args(args...));
}

}  // namespace heal::log
