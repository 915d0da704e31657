// The road of one suggestion from text to a fix that held (docs/patches.md): which step comes next, what a
// result means, what is taken back. Pure: step(result, now) → order. Everything it knows goes to and comes
// from JSON, so that a run is taken up after a crash where its intent stood.
//
//   prepare ▸ gate ▸ reproduce (red) ▸ build ▸ test (green) ▸ counter (red again without it) ▸ review ▸
//   commit ▸ push ▸ request or merge ▸ deploy ▸ watch: at once, stabilized, hold ▸ held   ·   the error is
//   back or health falls: revert ▸ redeploy ▸ did_not_hold
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/json.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace heal {

/// What a run does now, or waits for.
enum class PatchStep : std::uint8_t {
    prepare,    ///< worktree at the failing revision
    gate,       ///< take the edits as search and replace; look at every gate; nothing runs yet
    reproduce,  ///< build and test without the patch: must be red
    build,      ///< with the patch
    test,       ///< must be green
    counter,    ///< red again without the patch, so that green means something
    review,     ///< the best of the tried waits for people; in full autonomy it goes on
    commit,     ///< one commit, the same however often it is made
    push,       ///< the branch
    request,    ///< pull or merge request; waits there until it is merged
    merge,      ///< heald's own: full autonomy, or no forge is configured and people approved
    deploy,     ///< configured commands
    watch,      ///< three horizons
    revert,     ///< a commit that takes it back, pushed to the deployed branch
    redeploy,   ///< the commands again
    finish      ///< worktrees and branches go; the outcome is final
};
const char* to_string(PatchStep step) noexcept;
bool parse_patch_step(std::string_view word, PatchStep& ret) noexcept;

enum class PatchOutcome : std::uint8_t {
    none,          ///< under way
    held,          ///< deployed, and the error did not come back within the hold window
    proposed,      ///< pushed or merged; what follows is left to people
    refused,       ///< a gate, the build or a test says no; nothing left this machine
    failed,        ///< something around it did not work (git, forge, deployment); the reason names it
    rejected,      ///< people said no
    did_not_hold,  ///< deployed, then taken back
    cancelled      ///< superseded, or stopped by people
};
const char* to_string(PatchOutcome outcome) noexcept;
bool parse_patch_outcome(std::string_view word, PatchOutcome& ret) noexcept;

/// After the deployment: looks at once (until `settle` has passed), after `stabilize`, and until `hold` ends.
struct PatchHorizons {
    Duration settle = std::chrono::seconds{30};  ///< how long probes may take to become healthy
    Duration stabilize =
        std::chrono::seconds{60};            ///< healthy and without the error for so long: the bug is fixed
    Duration hold = std::chrono::hours{24};  ///< a recurrence until then takes it back
    Duration look_every = std::chrono::seconds{5};  ///< between two looks
};

/// What the configuration of its repository allows; may differ when a run is taken up again.
struct PatchPlan {
    enum class Land : std::uint8_t {
        merge,    ///< heald merges it itself, once it is approved
        request,  ///< a pull or merge request; people merge
        branch    ///< a branch is all; people do the rest
    };
    Land land = Land::merge;
    bool deploy = false;  ///< there are commands
    bool deploy_idempotent = false;
    PatchHorizons horizons;
    unsigned repair_rounds = 2;  ///< how often a model may mend what did not apply
};

/// What became of a step.
struct PatchResult {
    enum class Kind : std::uint8_t {
        done,     ///< as the step wants it: reproduce and counter red, build and test green, a probe healthy
        refused,  ///< the patch is at fault; the run ends
        mend,     ///< the edits did not match; the model may try again with `text`
        broken,   ///< the world around is at fault (git, forge, deployment); not the patch
        again,    ///< not now: try later (a forge's rate limit, an unreachable remote)
        waiting,  ///< nothing new: approval or merge still to come
        approved,
        rejected,  ///< of review
        merged,
        closed,     ///< of request: what people did at the forge
        unhealthy,  ///< of watch
        recurred    ///< of watch: the error was heard from the deployed release
    };
    Kind kind = Kind::done;
    std::string text;       ///< one sentence; evidence for people
    json::object evidence;  ///< kept under the step's name
};

class PatchMachine {
public:
    static constexpr unsigned max_tries = 5;  ///< of one step, when the world is at fault for a while

    PatchMachine() = default;
    /// errc::corrupt: not what save() wrote.
    static result<PatchMachine> load(const json::object& saved);
    json::object save() const;

    PatchStep step() const { return step_; }
    PatchOutcome outcome() const { return outcome_; }
    const std::string& reason() const { return reason_; }
    /// Its outcome is final and nothing of it is left to clear away.
    bool ended() const { return finished_; }
    /// Evidence by step: {"reproduce": {…}, "test": {…}}.
    const json::object& evidence() const { return evidence_; }
    unsigned repairs() const { return repairs_; }
    Time deployed_at() const { return deployed_at_; }
    /// Past the point where only people or a revert take it back.
    bool landed() const { return landed_; }
    /// The probes were healthy for the stabilization time: the bug counts as fixed.
    bool stable() const { return stable_; }

    /// Takes the result of step(). After it step() is what to do next, at next_at().
    void take(const PatchResult& result, const PatchPlan& plan, Time now);
    /// The step was begun before a crash; its intent stands, its result does not. True: it is begun again;
    /// false: what it did is unknown and watch decides (a deployment that may not run twice). `elsewhere`: on
    /// another machine, whose worktrees and commits that were not pushed are not here; they are made again.
    bool resume(const PatchPlan& plan, Time now, bool elsewhere = false);
    /// The intent of step() is about to be stored.
    void begin(Time now);
    /// People or a newer suggestion end it; a landed one is not ended by this (errc::conflict).
    result<void> cancel(const std::string& why, Time now);
    /// When the step is due; never before.
    Time next_at() const { return next_at_; }

private:
    void go(PatchStep step, Time at);
    void end(PatchOutcome outcome, std::string reason, Time now);
    void take_back(std::string why, Time now);
    void after_watch(const PatchResult& result, const PatchPlan& plan, Time now);

    PatchStep step_ = PatchStep::prepare;
    PatchOutcome outcome_ = PatchOutcome::none;
    std::string reason_;
    json::object evidence_;
    unsigned repairs_ = 0, tries_ = 0, unhealthy_ = 0;
    bool begun_ = false, landed_ = false, stable_ = false, finished_ = false;
    Time next_at_{0}, deployed_at_{0}, healthy_since_{0};
};

}  // namespace heal
