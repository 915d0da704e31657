#include "core/holds.hpp"

#include "core/matcher.hpp"

#include <algorithm>
#include <array>

namespace heal {
namespace {

constexpr std::array<const char*, 3> kinds = {"pause", "maintenance", "freeze"};
constexpr std::array<const char*, 3> scopes = {"all", "service", "strategy"};
constexpr std::int64_t minute_us = 60'000'000, day_us = 1440 * minute_us;

template <class Enum>
bool find(const std::array<const char*, 3>& names, std::string_view word, Enum& ret) {
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (word == names[i]) return ret = static_cast<Enum>(i), true;
    }
    return false;
}

}  // namespace

const char* to_string(HoldKind kind) noexcept { return kinds[static_cast<std::size_t>(kind)]; }
const char* to_string(HoldScope scope) noexcept { return scopes[static_cast<std::size_t>(scope)]; }
bool parse_hold_kind(std::string_view word, HoldKind& ret) noexcept { return find(kinds, word, ret); }
bool parse_hold_scope(std::string_view word, HoldScope& ret) noexcept { return find(scopes, word, ret); }

bool concerns(const Hold& hold, std::string_view service, std::string_view strategy, Time now) noexcept {
    if (hold.starts > now || (hold.ends && *hold.ends <= now)) return false;
    switch (hold.scope) {
        case HoldScope::all:
            return true;
        case HoldScope::service:
            return hold.name == service;
        case HoldScope::strategy:
            return hold.name == strategy;
    }
    return true;
}

std::optional<Time> open_until(const WindowRule& rule, std::string_view service, Time now) noexcept {
    const bool meant =
        rule.services.empty() || std::any_of(rule.services.begin(), rule.services.end(), [&](const auto& s) {
            return glob_matches(s, service);
        });
    if (!meant) return std::nullopt;
    if (rule.from || rule.until) {
        const bool open = rule.from.value_or(now) <= now && rule.until && now < *rule.until;
        return open ? rule.until : std::nullopt;
    }
    // Each day on which it may have begun; day 0 of the epoch was a Thursday.
    const std::int64_t today = now.us / day_us;
    std::optional<Time> until;
    for (std::int64_t day = today - rule.length.count() / day_us - 1; day <= today; ++day) {
        if (((rule.weekdays >> static_cast<unsigned>((day + 3) % 7)) & 1U) == 0) continue;
        const Time begins{day * day_us + rule.minute * minute_us};
        const Time ends = begins + rule.length;
        if (begins <= now && now < ends) until = std::max(until.value_or(ends), ends);
    }
    return until;
}

}  // namespace heal
