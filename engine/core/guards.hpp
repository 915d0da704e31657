// What stands between a decision and an action. Pure and fail-closed (D6): a guard whose input is missing
// denies. State is nothing but what the store holds too (history.hpp), so that a restart forgets no limit.
// docs/guards.md explains each for people.
#pragma once

#include "core/history.hpp"
#include "core/holds.hpp"
#include "core/incident.hpp"

#include <array>
#include <optional>
#include <string>
#include <vector>

namespace heal {

struct Limits {
    std::chrono::milliseconds cooldown{
        60'000};                         ///< per fingerprint and target, after an attempt ended; 0 … 24 h
    unsigned attempts_per_incident = 5;  ///< 1 … 100
    unsigned target_per_hour = 12;       ///< attempts on one target; 0 … 100'000, 0 forbids all
    unsigned strategy_per_hour = 30;     ///< attempts of one strategy
    unsigned service_per_hour = 30;      ///< attempts for one service
    unsigned global_per_minute = 60;     ///< attempts of all
    unsigned budget_per_day = 500;       ///< points: safe 1, disruptive 5, destructive 25; 0 forbids all
    unsigned flap_high = 50, flap_low = 25;  ///< percent of state change; high 0: off (Nagios: 50 and 25)
    std::chrono::milliseconds flap_window{3'600'000};
    unsigned breaker_failures = 3;  ///< verified failures in a row, per strategy and target; 0: off
    std::chrono::milliseconds breaker_pause{3'600'000};  ///< doubles with each further failure, up to 24 h
    std::chrono::milliseconds stable_for{
        86'400'000};  ///< without a failure for so long, older ones are forgotten
    std::chrono::milliseconds repeat_after{
        3'600'000};  ///< what failed last on an error may be tried again though nothing is new; 0: at once
    std::chrono::milliseconds confirm{
        500};  ///< a target must look ill for so long before it is disturbed; 0: one look is enough
    unsigned healthy_acts =
        0;  ///< occurrences after which a healthy target may be disturbed; 0: never by itself
    StormLimits storm;
};

/// Of a group of services that stand in for each other.
struct GroupHealth {
    std::string name;
    unsigned members = 0, minimum = 0;
    unsigned healthy =
        0;  ///< others that are healthy and not being acted on; the target itself is not counted
    unsigned acting = 0;  ///< others on which an attempt runs
};

/// What a service depends on, as it was seen just now.
struct DependencyHealth {
    std::string name;
    bool up = false;
    std::string text;  ///< why not
};

/// What the target's own probes say just now; both 0: it has none.
struct TargetHealth {
    unsigned positive = 0, negative = 0;
    std::optional<Time> ill_since;  ///< beginning of the first of the looks in a row that found it ill
};

struct GuardInput {
    const Incident* incident = nullptr;
    const Candidate* candidate = nullptr;
    const Limits* limits = nullptr;
    const History* history = nullptr;                  ///< null: not loaded; every guard that reads it denies
    const Episodes* episodes = nullptr;                ///< likewise
    StormWatch* storm = nullptr;                       ///< likewise; forgets what is over while it is asked
    const std::vector<Hold>* holds = nullptr;          ///< null: could not be read
    const std::vector<WindowRule>* windows = nullptr;  ///< of the configuration; null: could not be read
    const StormWatch::State* storm_state = nullptr;    ///< instead of storm, when it is computed again
    /// Points that attempts which are not in `history` took from the budget, and when the oldest of them
    /// began: a decision that is computed again keeps only the attempts that concern it.
    std::uint64_t spent_elsewhere = 0;
    std::optional<Time> spent_since;
    std::optional<bool> paused;  ///< kill switch for all; nullopt: could not be read
    std::string pause_reason;
    std::optional<TargetHealth> health;                         ///< nullopt: not looked at
    std::optional<std::vector<GroupHealth>> groups;             ///< it belongs to; nullopt: not looked at
    std::optional<std::vector<DependencyHealth>> dependencies;  ///< nullopt: not looked at
    std::optional<std::vector<std::string>> grants;  ///< capabilities it would get; nullopt: not known
    const std::vector<std::string>* forbidden =
        nullptr;            ///< globs over capabilities; null: could not be read
    bool approved = false;  ///< a person approved this very attempt
    bool break_glass =
        false;  ///< a person with a reason overrides what protects against haste, not the locks
    Risk max_auto_risk = Risk::safe;
    unsigned attempts_of_incident = 0;
    Time now;
};

/// In the order in which they are asked.
enum class GuardId : std::uint8_t {
    kill_switch,
    maintenance,
    evidence,
    target_lock,
    cooldown,
    attempts,
    target_rate,
    strategy_rate,
    service_rate,
    global_rate,
    budget,
    blast_radius,
    storm,
    flapping,
    circuit_breaker,
    repetition,
    dependency,
    capability,
    risk,
    autonomy,
    change_freeze
};
inline constexpr std::size_t guard_count = 21;
const char* to_string(GuardId guard) noexcept;
/// One sentence: what it protects from.
const char* purpose(GuardId guard) noexcept;

struct Verdict {
    GuardId guard = GuardId::kill_switch;
    bool passed = false;
    bool input_missing = false;
    bool needs_approval = false;   ///< denied now, but a person may allow it
    bool temporary = false;        ///< worth asking again, also without retry_at
    bool overridden = false;       ///< would have denied; break-glass let it pass
    std::string reason;            ///< in words; "" when passed
    std::optional<Time> retry_at;  ///< when it would pass by itself; nullopt: not known
};

/// Every guard is asked, so that people see all that stands in the way; one of them decides what happens
/// next.
struct GuardResult {
    std::vector<Verdict> verdicts;  ///< in order, one per guard
    std::size_t deciding = 0;       ///< index of the verdict that decides; the last one when all passed
    bool allowed() const { return !verdicts.empty() && verdicts[deciding].passed; }
    /// What can never pass by itself beats the kill switch and windows, those beat what a person may allow,
    /// that beats what only has to be waited for; among the last the longest wait.
    const Verdict& last() const { return verdicts[deciding]; }
};

GuardResult evaluate_guards(const GuardInput& input);

/// What an attempt of this risk takes from the daily budget.
unsigned budget_points(Risk risk) noexcept;

struct GuardCounters {
    std::array<std::uint64_t, guard_count> evaluated{}, tripped{}, input_missing{}, overridden{};
    void count(const GuardResult& outcome);
};

struct DrillResult {
    GuardId guard = GuardId::kill_switch;
    bool off = false;           ///< the configuration turns it off
    bool tripped = false;       ///< it denied what it must deny
    bool passed = false;        ///< and let pass what it must let pass
    bool fails_closed = false;  ///< and denied without its input
    std::string reason;         ///< its words when it tripped
    bool ok() const { return off || (tripped && passed && fails_closed); }
};
/// Does the configuration turn it off?
bool is_off(GuardId guard, const Limits& limits) noexcept;
/// Makes each guard trip once on a made-up incident under these very limits; nothing real is touched.
std::vector<DrillResult> drill_guards(const Limits& limits, Time now);

}  // namespace heal
