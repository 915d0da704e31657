#include "core/bug.hpp"

#include <algorithm>
#include <array>
#include <iterator>

namespace heal {
namespace {

constexpr std::array<const char*, 11> names{
    "detected",
    "analyzed",
    "fix_suggested",
    "approved",
    "applying",
    "testing",
    "fixed",
    "failed",
    "rejected",
    "closed",
    "reopened"};

using enum BugStatus;

constexpr std::uint32_t bit(BugStatus s) { return 1U << static_cast<unsigned>(s); }
template <class... S>
constexpr std::uint32_t any(S... s) {
    return (bit(s) | ...);
}

// By the order of the enumeration: what may follow.
constexpr std::array<std::uint32_t, 11> followers{
    any(analyzed, fix_suggested, fixed, rejected, closed),            // detected
    any(fix_suggested, fixed, rejected, closed),                      // analyzed
    any(analyzed, approved, fixed, rejected, closed),                 // fix_suggested
    any(fix_suggested, applying, rejected, closed),                   // approved
    any(testing, failed),                                             // applying
    any(fixed, failed),                                               // testing
    any(closed, reopened),                                            // fixed
    any(analyzed, fix_suggested, approved, fixed, rejected, closed),  // failed
    any(reopened, closed),                                            // rejected
    any(reopened),                                                    // closed
    any(analyzed, fix_suggested, fixed, rejected, closed),            // reopened
};

}  // namespace

const char* to_string(BugStatus status) noexcept { return names[static_cast<std::size_t>(status)]; }

bool parse_bug_status(std::string_view word, BugStatus& ret) noexcept {
    const auto it = std::find(names.begin(), names.end(), word);
    if (it == names.end()) return false;
    ret = static_cast<BugStatus>(std::distance(names.begin(), it));
    return true;
}

bool may_move(BugStatus from, BugStatus to) noexcept {
    return (followers[static_cast<std::size_t>(from)] & bit(to)) != 0;
}

BugEffect effect_of(const KnownBug& bug, std::string_view release) noexcept {
    if (bug.status == rejected) return BugEffect::count;
    if (is_open(bug.status)) return bug.within_a_day ? BugEffect::count : BugEffect::open_new;
    const bool old_instance = !release.empty() && !bug.fixed_in_release.empty() &&
                              release != bug.fixed_in_release && release == bug.last_release;
    return old_instance ? BugEffect::count : BugEffect::reopen;
}

}  // namespace heal
