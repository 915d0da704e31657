#include "base/level.hpp"

#include <array>
#include <utility>

namespace heal {
namespace {

constexpr std::array<const char*, 7> names = {"unknown", "trace", "debug", "info", "warn", "error", "fatal"};

constexpr std::pair<std::string_view, Level> words[] = {
    {"trace", Level::trace},   {"finest", Level::trace},     {"finer", Level::trace},
    {"verbose", Level::trace}, {"v", Level::trace},          {"debug", Level::debug},
    {"fine", Level::debug},    {"dbg", Level::debug},        {"d", Level::debug},
    {"info", Level::info},     {"information", Level::info}, {"informational", Level::info},
    {"notice", Level::info},   {"note", Level::info},        {"config", Level::info},
    {"i", Level::info},        {"log", Level::info},         {"audit", Level::info},
    {"warn", Level::warn},     {"warning", Level::warn},     {"w", Level::warn},
    {"error", Level::error},   {"err", Level::error},        {"severe", Level::error},
    {"failure", Level::error}, {"e", Level::error},          {"fatal", Level::fatal},
    {"crit", Level::fatal},    {"critical", Level::fatal},   {"alert", Level::fatal},
    {"emerg", Level::fatal},   {"emergency", Level::fatal},  {"panic", Level::fatal},
    {"dpanic", Level::fatal},  {"f", Level::fatal},
};

}  // namespace

const char* to_string(Level level) noexcept { return names[static_cast<std::size_t>(level)]; }

Level parse_level(std::string_view word) noexcept {
    char lower[16];
    if (word.empty() || word.size() > sizeof lower) return Level::unknown;
    for (std::size_t i = 0; i < word.size(); ++i) {
        const char c = word[i];
        lower[i] = c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
    }
    const std::string_view key{lower, word.size()};
    for (const auto& [name, level] : words) {
        if (name == key) return level;
    }
    return Level::unknown;
}

Level level_of_pino(long number) noexcept {
    if (number < 10) return Level::unknown;
    return number < 20   ? Level::trace
           : number < 30 ? Level::debug
           : number < 40 ? Level::info
           : number < 50 ? Level::warn
           : number < 60 ? Level::error
                         : Level::fatal;
}

Level level_of_syslog(int severity) noexcept {
    if (severity < 0 || severity > 7) return Level::unknown;
    return severity <= 2   ? Level::fatal
           : severity == 3 ? Level::error
           : severity == 4 ? Level::warn
           : severity <= 6 ? Level::info
                           : Level::debug;
}

Level level_of_otlp(int number) noexcept {
    if (number < 1 || number > 24) return Level::unknown;
    return static_cast<Level>(1 + (number - 1) / 4);
}

}  // namespace heal
