// One incident from its ranked candidates to its end, as a pure machine (D5): step(input, now) -> orders. It
// never waits, does no I/O and reads no clock; the healer performs the orders and feeds back what came of
// them. docs/architecture.md has the picture.
#pragma once

#include "core/incident.hpp"

#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace heal {

/// What one round of verification saw. Silence is no evidence.
struct Evidence {
    unsigned positive = 0;  ///< probes that pass, the strategy's own verify
    unsigned negative = 0;  ///< probes that fail, verify that fails
    json::array items;      ///< {"source", "ok", "text"} for people
};

namespace input {
struct Begin {};
/// Instead of Begin: nothing is done for so long, to learn what recovers by itself.
struct LeaveAlone {
    Duration duration;
};
struct Guarded {  ///< verdict of the guards on the candidate that was considered
    bool allowed = false;
    bool needs_approval = false;
    std::optional<Time> retry_at;  ///< when it may pass by itself; nullopt with `temporary`: soon
    bool temporary = false;        ///< lock or kill switch: worth asking again
    std::string reason;
    bool approval_void = false;  ///< it had been approved, and what was approved is not so any more
};
struct IntentStored {};
struct IntentFailed {
    std::string text;
};
struct Executed {
    Outcome outcome;
    std::string text;
};
struct Checked {
    Evidence evidence;
};
struct Timer {};
/// What a look at the target showed while the incident was held back.
struct Looked {
    Evidence evidence;
    bool others_acted = false;  ///< another incident acted on the same target since this one opened
};
struct Undone {
    bool ok;
    std::string text;
};
/// The error came again; `at`: its own time, or when it was heard.
struct Recurred {
    Time at;
};
struct Approved {
    std::string strategy;  ///< "": the first that waits for a person
    bool at_once = false;  ///< also what only waits for a guard: somebody broke the glass
};
struct Rejected {
    std::string reason;
};
/// What held it back may have passed: its target is free again, or a person lifted a hold.
struct Freed {};
/// After a restart: the attempt on candidate `index` was begun before; `executed`: its outcome, or unknown.
struct Resume {
    std::size_t index;
    Outcome executed;
    std::string text;
    bool undoing;
};
}  // namespace input

/// What is stored of an attempt whose incident is open, by the words of the table healing_results.
struct Standing {
    std::string state, verified, rolled_back;
    bool undecided = false;
};
/// How a restart goes on with the attempt on candidate `index`: what did not help is taken back, also when
/// that had not begun; what may have helped is verified. nullopt: it is decided, the next one may be tried.
std::optional<input::Resume> resume_of(std::size_t index, const Standing& attempt, std::string text);

using HealingInput = std::variant<
    input::Begin,
    input::LeaveAlone,
    input::Guarded,
    input::IntentStored,
    input::IntentFailed,
    input::Executed,
    input::Checked,
    input::Timer,
    input::Looked,
    input::Undone,
    input::Recurred,
    input::Approved,
    input::Rejected,
    input::Freed,
    input::Resume>;

namespace order {
struct Consider {
    std::size_t index;
    bool approved;
};  ///< evaluate the guards, answer with Guarded
struct WriteIntent {
    std::size_t index;
};  ///< durable, then IntentStored
struct Execute {
    std::size_t index;
};  ///< answer with Executed
struct Check {
    std::size_t index;
};               ///< answer with Checked
struct Look {};  ///< is the target healthy by now? answer with Looked
struct Wait {
    Duration duration;
};  ///< then Timer; replaces a wait under way
struct Undo {
    std::size_t index;
};  ///< author's rollback and recorded effects; answer with Undone
struct Verified {
    std::size_t index;
    std::string verdict;
};  ///< 'succeeded', 'failed', 'unknown' of the attempt
struct Move {
    EventState state;
    std::string reason;
};
struct Finish {
    EventState state;
    std::string reason;
};  ///< last order
}  // namespace order

using HealingOrder = std::variant<
    order::Consider,
    order::WriteIntent,
    order::Execute,
    order::Check,
    order::Look,
    order::Wait,
    order::Undo,
    order::Verified,
    order::Move,
    order::Finish>;

class HealingMachine {
public:
    /// @param candidates  ranked, best first; those with a note are not tried
    /// @param excluded    names that failed before on this fingerprint and must not be tried first again
    /// without new evidence:
    ///                    they move behind all others
    explicit HealingMachine(std::vector<Candidate> candidates, const std::vector<std::string>& excluded = {});

    std::vector<HealingOrder> step(const HealingInput& in, Time now);

    EventState state() const { return state_; }
    /// Candidates that a person is asked for, best first.
    std::vector<std::size_t> asking() const;
    /// The best candidate that waits for a person, or with `at_once` for a guard; nullopt: none does. `name`
    /// "": any.
    std::optional<std::size_t> waiting(const std::string& name, bool at_once) const;
    /// What would run now, for a candidate that has not acted: people are shown this, and this runs.
    void renew(std::size_t index, const StrategyInfo& info, const json::object& config);
    const std::vector<Candidate>& candidates() const { return candidates_; }
    /// Start of the unbroken healthy period (t6); only after a verification succeeded.
    std::optional<Time> healthy_since() const { return healthy_since_; }
    bool finished() const { return finished_; }

private:
    using Orders = std::vector<HealingOrder>;
    enum class Phase {
        idle,
        considering,
        intending,
        executing,
        checking,
        between_checks,
        stabilizing,
        final_check,
        undoing,
        waiting,
        looking,
        asking
    };

    Orders next(Time now);
    Orders check(std::size_t index);
    Orders failed(std::string reason, Time now);
    Orders finish(EventState state, std::string reason);
    Orders on(const input::Begin&, Time now);
    Orders on(const input::LeaveAlone& in, Time now);
    Orders on(const input::Guarded& in, Time now);
    Orders on(const input::IntentStored&, Time now);
    Orders on(const input::IntentFailed& in, Time now);
    Orders on(const input::Executed& in, Time now);
    Orders on(const input::Checked& in, Time now);
    Orders on(const input::Timer&, Time now);
    Orders on(const input::Looked& in, Time now);
    Orders on(const input::Undone& in, Time now);
    Orders on(const input::Recurred& in, Time now);
    Orders on(const input::Approved& in, Time now);
    Orders on(const input::Rejected& in, Time now);
    Orders on(const input::Freed&, Time now);
    Orders on(const input::Resume& in, Time now);

    std::vector<Candidate> candidates_;
    enum class Fate { untried, tried, needs_approval, delayed, denied };
    std::vector<Fate> fates_;
    std::vector<std::string> reasons_;
    std::size_t current_ = 0;
    std::vector<bool> approvals_;  ///< what a person allowed stays allowed while it waits for a guard
    Phase phase_ = Phase::idle;
    EventState state_ = EventState::open;
    Time acted_at_, check_until_;
    Duration check_pause_{0}, poll_{0};
    std::optional<Time> healthy_since_, retry_at_, ask_until_, waiting_since_, last_recurrence_;
    bool ran_unknown_ = false, any_unknown_ = false, finished_ = false;
    std::string last_reason_;
};

}  // namespace heal
