// heald's own log: structured lines on stderr; plain on a terminal, JSON lines otherwise, with "<3>" style
// priorities when systemd reads them. Deliberately no file sink and no ingest of itself: records carry
// logger="heald" and the ingest drops them.
#pragma once

#include <spdlog/spdlog.h>

#include <string>
#include <string_view>

namespace heal::log {

enum class Format { automatic, plain, json };

/// Once, before threads start. `level` is one of trace, debug, info, warn, error. False: the level is
/// unknown.
bool set_up(std::string_view program, std::string_view level, Format format);

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::trace;
using spdlog::warn;

}  // namespace heal::log
