// What happened, as far as guards care: attempts, unhealthy times of each target, incidents that opened. All
// of it is in the store too, so that a restart builds the same history and forgets no limit.
#pragma once

#include "core/incident.hpp"

#include <deque>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace heal {

/// What verification said of an attempt. Harm is a failure; `relapsed`: it helped, and did not hold.
enum class FactResult : std::uint8_t { none, succeeded, failed, relapsed };

/// One past or running attempt. Dry runs are not attempts.
struct AttemptFact {
    std::string attempt, event, fingerprint, target, strategy;
    Time started;
    std::optional<Time> ended{};
    std::string service{};
    Risk risk = Risk::safe;
    FactResult result = FactResult::none;
    std::string build{};     ///< of the strategy's artifact
    bool undecided = false;  ///< it may still be taken back: it keeps its target, though it has ended
    Time newest{};  ///< latest start up to this one, set by History: the clock may have jumped back between
};

/// Attempts, oldest first; bounded by the rates themselves and by forget_before().
class History {
public:
    void started(AttemptFact fact);
    void ended(const std::string& attempt, Time at);
    /// It helped, it is taken back, or its incident has ended: its target is free.
    void decided(const std::string& attempt);
    void judged(const std::string& attempt, FactResult result);
    /// Forgets attempts that began and ended before `t`; those of a target since `failures_since` stay.
    void forget_before(Time t);

    const std::list<AttemptFact>& facts() const { return facts_; }
    using OnTarget = std::vector<std::list<AttemptFact>::iterator>;
    /// Those on one target, oldest first; holds until the history changes.
    const OnTarget& on(const std::string& target) const;
    /// Those of one strategy on one target, oldest first; pointers hold until the next forget_before().
    std::vector<const AttemptFact*> of(const std::string& strategy, const std::string& target) const;

private:
    std::list<AttemptFact> facts_;
    std::unordered_map<std::string, OnTarget> by_target_;
    std::unordered_map<std::string, std::list<AttemptFact>::iterator> by_attempt_;
};

/// When targets were unhealthy: from the opening of an incident to its end. Overlapping times count as one.
class Episodes {
public:
    /// Transitions kept per target; more only means "flapping" more surely.
    static constexpr std::size_t max_transitions = 128;

    void opened(const std::string& target, Time at);
    void closed(const std::string& target, Time at);
    void forget_before(Time t);

    /// Percentage of state change over the window that ends at `now`: observed transitions by 20, the newest
    /// weighing 1.2 and the oldest 0.8, at most 100 (Nagios looks at 21 checks in the same way).
    unsigned percent(const std::string& target, Duration window, Time now) const;
    /// When the target's state changed, oldest first; it begins with falling ill.
    std::vector<Time> transitions(const std::string& target) const;
    /// Hysteresis: begins at `high` percent, ends below `low`. A function of the transitions alone.
    bool flapping(const std::string& target, Duration window, unsigned high, unsigned low, Time now) const;

private:
    struct Target {
        std::deque<Time> transitions;
        unsigned open = 0;  ///< incidents open now
    };
    static unsigned percent(const Target& target, Duration window, Time now);
    std::unordered_map<std::string, Target> targets_;
};

struct StormLimits {
    unsigned targets = 10;  ///< this many within the window are a storm; 0: never
    Duration window = std::chrono::seconds{60};
    Duration cooldown = std::chrono::minutes{2};    ///< after it nothing is done either
    Duration ramp_step = std::chrono::seconds{30};  ///< then 1, 2, 4, 8, 16 at once, each for this long
};

/// Sees that too many targets fall ill at once to be healed one by one. Fed with openings in their order.
class StormWatch {
public:
    struct State {
        bool on = false, cooling = false;
        std::optional<unsigned> at_once;  ///< limit of the ramp; nullopt: none
        std::optional<Time> until;        ///< when this state may pass by itself
        std::size_t targets = 0;          ///< ill within the window
    };
    void opened(const std::string& target, Time at, const StormLimits& limits);
    State state(Time now, const StormLimits& limits);

private:
    void expire(Time now, const StormLimits& limits);
    std::deque<std::pair<Time, std::string>> recent_;
    std::unordered_map<std::string, unsigned> counts_;
    bool on_ = false;
    std::optional<Time> ended_;
};

}  // namespace heal
