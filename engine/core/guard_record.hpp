// What the guards saw and said, as text that is kept with the event, so that whoever doubts a verdict
// computes it again and gets the same bytes (healctl why). Numbers are integers, times microseconds.
#pragma once

#include "core/guards.hpp"

namespace heal {

/// All that the verdicts follow from, reduced to what concerns this decision. Null when it is too much to
/// keep (more than 1000 attempts concern it): such a decision cannot be computed again.
json::value guard_record(const GuardInput& input);

/// {strategy, at, allowed, approved, asked, decided_by, stopped: [{guard, reason, …}], overridden}: for
/// people, and what a replay must give again.
json::object guard_entry(const GuardInput& input, const GuardResult& outcome);

/// The entry computed again from a record alone. Empty when the record cannot be read.
/// @thread any; pure
json::object replay_guards(const json::object& record);

}  // namespace heal
