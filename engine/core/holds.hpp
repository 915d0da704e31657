// What people set to keep heald from acting: the kill switch, maintenance windows and change freezes, each
// for all, one service or one strategy. Pure values; the store keeps them, the guards read them.
#pragma once

#include "base/clock.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace heal {

enum class HoldKind : std::uint8_t {
    pause,        ///< kill switch: nothing starts, what runs is cancelled
    maintenance,  ///< somebody works on it: nothing starts
    freeze        ///< nothing but what is safe is done by itself
};
enum class HoldScope : std::uint8_t { all, service, strategy };

const char* to_string(HoldKind kind) noexcept;    ///< "pause", "maintenance", "freeze"
const char* to_string(HoldScope scope) noexcept;  ///< "all", "service", "strategy"
bool parse_hold_kind(std::string_view word, HoldKind& ret) noexcept;
bool parse_hold_scope(std::string_view word, HoldScope& ret) noexcept;

/// One of them, as a person set it. It ends by itself at `ends`; without one, when somebody lifts it.
struct Hold {
    std::string id;
    HoldKind kind = HoldKind::pause;
    HoldScope scope = HoldScope::all;
    std::string name;  ///< of the service or strategy; "" for all
    std::string reason, actor;
    Time starts;
    std::optional<Time> ends;
};

/// A window of the configuration that comes again by itself; times of day are UTC.
struct WindowRule {
    HoldKind kind = HoldKind::maintenance;
    std::vector<std::string> services;  ///< globs; empty: all
    std::uint8_t weekdays = 0x7F;       ///< bit 0 Monday … bit 6 Sunday
    unsigned minute = 0;                ///< of the day, when it begins
    Duration length{0};                 ///< 1 min … 7 d
    std::optional<Time> from, until;    ///< given: once, instead of weekly
    std::string reason;
};

/// Does a hold concern this service and strategy at `now`?
bool concerns(const Hold& hold, std::string_view service, std::string_view strategy, Time now) noexcept;
/// When the window that is open at `now` for this service ends; nullopt when none is.
std::optional<Time> open_until(const WindowRule& rule, std::string_view service, Time now) noexcept;

}  // namespace heal
