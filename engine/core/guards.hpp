// What stands between a decision and an action. Pure and fail-closed (D6): a guard whose input is missing
// denies. State is nothing but the history of attempts, which the store holds; so a restart forgets no limit.
#pragma once

#include "core/incident.hpp"

#include <array>
#include <deque>
#include <map>
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
    unsigned global_per_minute = 60;     ///< attempts of all
};

/// One past or running attempt, as far as guards care. Dry runs are not attempts.
struct AttemptFact {
    std::string attempt, event, fingerprint, target, strategy;
    Time started;
    std::optional<Time> ended;
};

/// Attempts of the last hour (and all that still run); bounded by the rates themselves.
class History {
public:
    void started(AttemptFact fact);
    void ended(const std::string& attempt, Time at);
    void forget_before(Time t);
    const std::deque<AttemptFact>& facts() const { return facts_; }

private:
    std::deque<AttemptFact> facts_;
};

struct GuardInput {
    const Incident* incident = nullptr;
    const Candidate* candidate = nullptr;
    const Limits* limits = nullptr;
    const History* history = nullptr;  ///< null: not loaded; every rate guard denies
    bool approved = false;             ///< a person approved this very attempt
    std::optional<bool> paused;  ///< kill switch, global or for this service; nullopt: could not be read
    std::string pause_reason;
    Risk max_auto_risk = Risk::safe;
    unsigned attempts_of_incident = 0;
    Time now;
};

enum class GuardId : std::uint8_t {
    kill_switch,
    autonomy,
    risk,
    target_lock,
    cooldown,
    attempts,
    target_rate,
    strategy_rate,
    global_rate
};
inline constexpr std::size_t guard_count = 9;
const char* to_string(GuardId guard) noexcept;

struct Verdict {
    GuardId guard = GuardId::kill_switch;
    bool passed = false;
    bool input_missing = false;
    bool needs_approval = false;   ///< denied now, but a person may allow it
    std::string reason;            ///< in words; "" when passed
    std::optional<Time> retry_at;  ///< when it would pass by itself; nullopt: never by itself
};

struct GuardResult {
    std::vector<Verdict> verdicts;  ///< in order, up to the first that denies
    bool allowed() const { return !verdicts.empty() && verdicts.back().passed; }
    const Verdict& last() const { return verdicts.back(); }
};

GuardResult evaluate_guards(const GuardInput& input);

struct GuardCounters {
    std::array<std::uint64_t, guard_count> evaluated{}, tripped{}, input_missing{};
    void count(const GuardResult& outcome);
};

}  // namespace heal
