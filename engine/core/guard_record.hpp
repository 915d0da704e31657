// What the guards saw and said, as text that is kept with the event, so that whoever doubts a verdict
// computes it again and gets the same bytes (healctl why). Numbers are integers, times microseconds.
#pragma once

#include "core/guards.hpp"

namespace heal {

/// All that the verdicts follow from, reduced to what concerns this decision. Taken while it is decided, it
/// is made into text later: with many attempts that takes longer than the decision.
struct GuardRecord {
    struct Past {
        std::vector<AttemptFact> facts;
        std::int64_t spent = 0;       ///< of the day's budget, by attempts that are not in `facts`
        std::optional<Time> since{};  ///< the oldest of those
    };
    json::object rest;
    std::optional<Past> history{};
};
GuardRecord guard_record(const GuardInput& input);

/// Null when it is too much to keep (more than 1000 attempts concern it): such a decision cannot be computed
/// again.
json::value to_json(GuardRecord record);

/// {strategy, at, allowed, approved, asked, decided_by, stopped: [{guard, reason, …}], overridden}: for
/// people, and what a replay must give again.
json::object guard_entry(const GuardInput& input, const GuardResult& outcome);

/// The entry computed again from a record alone. Empty when the record cannot be read.
/// @thread any; pure
json::object replay_guards(const json::object& record);

}  // namespace heal
