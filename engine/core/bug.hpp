// The life of a bug (M3): its states, which of them follow one another, and what a new occurrence does to it.
// Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace heal {

enum class BugStatus : std::uint8_t {
    detected,
    analyzed,
    fix_suggested,
    approved,
    applying,
    testing,
    fixed,
    failed,
    rejected,  ///< decided: this will not be fixed; occurrences are counted and open nothing
    closed,
    reopened
};
const char* to_string(BugStatus status) noexcept;  ///< the names of M3
bool parse_bug_status(std::string_view word, BugStatus& ret) noexcept;

/// Detected → analyzed → fix_suggested → approved → applying → testing → fixed, with the ways out that people
/// and failures take.
bool may_move(BugStatus from, BugStatus to) noexcept;

/// Somebody still has to do something about it.
constexpr bool is_open(BugStatus s) {
    return s != BugStatus::fixed && s != BugStatus::rejected && s != BugStatus::closed;
}

/// What an occurrence does to the newest bug of its kind.
enum class BugEffect : std::uint8_t { count, reopen, open_new };

struct KnownBug {
    BugStatus status = BugStatus::detected;
    bool within_a_day = false;                   ///< it was heard of in the last 24 h
    std::string last_release, fixed_in_release;  ///< "" where unknown
};
/// Within 24 h never a second bug. A fixed or closed one comes back as a regression, whenever; not when the
/// occurrence is of the release that was known to be broken while another one holds the fix: an old instance
/// that still runs. A rejected one stays rejected.
BugEffect effect_of(const KnownBug& bug, std::string_view release) noexcept;

}  // namespace heal
