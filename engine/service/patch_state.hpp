// What a patch run is, and what each of its steps means: for its row in the store, for its bug and its
// suggestion, for the people who are asked and for the forge. Functions of the run alone.
//
// Threads: the event loop's; the writes that are returned run on the store's.
#pragma once

#include "base/clock.hpp"
#include "core/patch_machine.hpp"
#include "service/patch_work.hpp"
#include "store/fix_store.hpp"

#include <functional>
#include <string>

namespace heal {

/// What of a run outlives the process.
struct PatchState {
    sql::PatchRun row;
    PatchMachine machine;
    PatchFacts facts;
    std::string pattern;  ///< id, when its suggestion came from one

    PatchOutcome outcome() const { return machine.outcome(); }
};

/// A part of a transaction; empty: nothing to write.
using StoreWrite = std::function<result<void>(Database&)>;

/// Before people are asked.
inline bool is_trial(PatchStep step) { return step < PatchStep::review; }

/// What was shown here, not what a model believes of itself: reproduced, red to green, red again without it;
/// then the smaller patch, then the one without new files.
std::int64_t score_of(const PatchState& run);

/// Fills the row from the rest.
void write_row(PatchState& run, Time now);
/// For the intent of a step. `clock` outlives the write.
StoreWrite entering(const PatchState& run, PatchStep step, const Clock& clock);
/// For the outcome of a step, which the machine has taken. `was_stable`: before it did.
StoreWrite leaving(const PatchState& run, PatchStep step, bool was_stable, const Clock& clock);
/// One after the other.
StoreWrite both(StoreWrite one, StoreWrite other);
/// Errors are logged, but for a bug that people have moved meanwhile.
void ignore_conflict(const result<void>& outcome);

/// As the API shows it.
json::object answer_of(const PatchState& run);
/// What an approval is bound to: it is void when any of this changes.
json::object bound_of(const PatchState& run, const RepositorySettings& settings);
/// Markdown for the pull or merge request.
std::string request_body(const PatchState& run);

}  // namespace heal
