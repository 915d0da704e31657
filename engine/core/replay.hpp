// heald on a virtual clock: the same matching, triggers, ranking, guards and healing machine, fed with a
// given history or scenario, with an oracle in place of the world. For backtests and simulations; nothing
// acts.
#pragma once

#include "core/guards.hpp"
#include "core/healing_machine.hpp"
#include "core/matcher.hpp"
#include "core/recent.hpp"
#include "core/router.hpp"
#include "core/targets.hpp"
#include "core/triggers.hpp"

#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <string>
#include <vector>

namespace heal {

struct ReplayStrategy {
    StrategyInfo info;
    Matcher matcher;
    std::int64_t priority = 50;
    Autonomy autonomy = Autonomy::automatic;
    double floor = 0;
    VerifyPolicy verify;
};
struct ReplayService {
    std::string name;
    std::vector<std::string> depends_on;
    json::object facts;
};
struct ReplayGroup {
    std::string name;
    std::vector<std::string> services;
    unsigned minimum = 1;
};
struct ReplayWorld {
    std::vector<ReplayStrategy> strategies;
    std::vector<ReplayService> services;
    std::vector<ReplayGroup> groups;
    Limits limits;
    Risk max_auto_risk = Risk::safe;
    std::vector<WindowRule> windows;
    std::vector<std::string> forbidden;
    std::vector<TriggerSpec> triggers;
    TargetResolver targets;
};

/// What an action does in the replayed world.
struct Played {
    Outcome outcome = Outcome::succeeded;
    Duration took{1'000'000};
};

class ReplayOracle {
public:
    virtual ~ReplayOracle() = default;
    virtual Played play(const Incident& incident, const std::string& strategy, Time now) = 0;
    /// What the target's probes say; nullopt: it has none, and an outcome of `succeeded` is taken for
    /// healthy.
    virtual std::optional<bool> well(const std::string& target, Time now) = 0;
    /// An incident opened on the target.
    virtual void opened(const std::string&, Time) {}
};

struct ReplayTotals {
    std::uint64_t heard = 0, incidents = 0, actions = 0, asked = 0;
    std::map<std::string, std::uint64_t> incidents_of;  ///< by service
    std::map<std::string, std::uint64_t> actions_of;    ///< by strategy
    std::map<std::string, std::uint64_t> ends;          ///< by state; "open" at the end of the replay
    std::map<std::string, std::uint64_t> held_back;     ///< by the guard that decided
};

class Replay {
public:
    using Say = std::function<void(Time, const std::string&)>;
    /// @param say  told each step in words; null: nobody listens
    Replay(ReplayWorld world, ReplayOracle& oracle, Say say = nullptr);
    ~Replay();

    /// One kind of error, `count` times at `at`; times must not go back. `sample` holds fingerprint, service,
    /// environment, pattern and record.
    void hear(const Incident& sample, std::uint64_t count, Time at);
    /// Lets the virtual clock run to `to`.
    void advance(Time to);
    /// Lets what is under way end, for at most `longest`.
    void finish(Duration longest);
    const ReplayTotals& totals() const { return totals_; }

private:
    struct Run;
    struct Due {
        Time at;
        std::uint64_t order;
        std::shared_ptr<Run> run;
        HealingInput input;
        unsigned generation;  ///< a wait that was replaced is not due any more; 0: always
        bool operator>(const Due& other) const {
            return at != other.at ? at > other.at : order > other.order;
        }
    };
    struct Quiet {
        Time until;
        Duration span{0};
    };
    /// Those that fit; `triggered`: whatever their own thresholds say.
    std::vector<Candidate> fitting(const Incident& incident, bool triggered, const SlidingCount* hour) const;
    void open(Incident incident, std::vector<Candidate> candidates);
    void step(const std::shared_ptr<Run>& run, const HealingInput& input);
    void perform(const std::shared_ptr<Run>& run, const HealingOrder& order);
    HealingInput consider(Run& run, const order::Consider& o);
    void look_around(Run& run, GuardInput& in);
    Evidence look(const Run& run);
    void finish(Run& run, const order::Finish& o);
    void freed(const Run& run);
    void later(const std::shared_ptr<Run>& run, Duration after, HealingInput input, unsigned generation = 0);
    void tell(const Run& run, const std::string& text);
    const ReplayService* service(const std::string& name) const;

    ReplayWorld world_;
    ReplayOracle& oracle_;
    Say say_;
    MatcherIndex index_;
    Triggers triggers_;
    Recent<SlidingCount> hours_;
    std::map<std::string, std::shared_ptr<Run>> runs_;  // by fingerprint and environment
    std::map<std::string, std::pair<std::string, Time>> held_;
    std::map<std::string, Quiet> quiet_;
    std::map<std::string, Time> ill_since_;
    std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
    History history_;
    Episodes episodes_;
    StormWatch storm_;
    OutcomeBook book_;
    ReplayTotals totals_;
    Time now_, swept_;
    std::uint64_t order_ = 0;
};

}  // namespace heal
