// Performs effects: the only code of heald that touches the world on behalf of a strategy. Checks the
// parameters and the grants, says what it is about to do (summary, undo), waits for the record, does it
// within the deadline, reports. Runs in a heal-host child of its own (`heal-host --effects`), never in the
// one that holds strategy code, so that code can't go round the checks. It knows no strategy; undoing is
// performing the recorded inverse.
//
// Threads: one.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "wire/capability.hpp"
#include "wire/strategy_runner.hpp"

#include <functional>
#include <string>

namespace heal {

/// Tells a running effect to stop. A wait of the performer also waits on `fd()`.
class Interrupt {
public:
    virtual ~Interrupt() = default;
    /// Becomes readable when stopped() may have changed; -1: never.
    virtual int fd() const = 0;
    /// Takes note of what arrived on fd() without blocking. True once asked to stop; stays true for this
    /// effect.
    virtual bool stopped() = 0;
};

struct PerformRequest {
    std::int64_t step = 1;
    std::string phase, strategy, attempt;
    Grants grants;
    bool dry_run = false;
    std::chrono::milliseconds remaining{30'000};  ///< until the deadline of the call
    std::string kind;
    json::object parameters;
    std::int64_t undoes_step = 0;  ///< phase "undo": takes effects that only undo uses, too
};

class Performer {
public:
    /// @param state_folder  of strategies' values and of backups; created when needed, mode 0700
    Performer(std::string state_folder, const Clock& clock)
        : state_folder_(std::move(state_folder)), clock_(clock) {}

    /// Called once per effect before it is done (also for one that is refused, so that it is recorded); an
    /// error means: don't do it.
    using Begin = std::function<result<void>(const Effect& effect)>;

    struct Performed {
        EffectResult result;
        errc code =
            errc::internal;  ///< why not ok: invalid_input, denied, cancelled, not_found (no such kind), io …
    };
    /// Never throws; blocks until the effect ended, was interrupted or its deadline came.
    Performed perform(const PerformRequest& request, const Begin& begin, Interrupt& interrupt);

private:
    std::string state_folder_;
    const Clock& clock_;
};

/// Names of every kind, sorted; for docs, completion and tests.
std::vector<std::string> effect_kinds();

/// Collects ended children without blocking; the performer is the reaper of what its commands leave behind.
/// False: there is none left.
bool reap_children();

}  // namespace heal
