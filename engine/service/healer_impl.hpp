// The healer behind healer.hpp; its parts are in healer.cpp (the loop of one incident and its end),
// healer_decision.cpp (who may act), healer_attempt.cpp (acting, looking, taking back) and
// healer_recovery.cpp (after a restart).
#pragma once

#include "service/healer_parts.hpp"

#include <unordered_map>
#include <unordered_set>

namespace heal {

class HealerImpl final : public Healer {
public:
    explicit HealerImpl(Shared& shared) : s_(shared) {}

    std::string occurred(
        const std::string& fingerprint, const std::string& environment, std::uint64_t count, Time at
    ) override;

    bool recurred_after_healing(const std::string& fingerprint, const std::string& environment, Time at)
        override;

    bool is_open(const std::string& fingerprint, const std::string& environment) const override;
    bool is_quiet(const std::string& fingerprint, const std::string& environment) const override;

    void open(Incident incident, std::vector<Candidate> candidates) override;

    asio::awaitable<result<void>> recover() override;

    void take_up(std::vector<sql::TakenOver> taken) override;
    asio::awaitable<void> abandon() override;
    void catch_up(const sql::ClaimedCount& count) override;
    void learn_held(sql::HeldEvent held) override;

    result<ApprovalAsk> ask_for(const std::string& event, const std::string& strategy, bool at_once) override;
    std::optional<json::object> binding(const Approval& approval) override;
    void approval_changed(const Approval& approval) override;

    void set_paused(std::optional<bool> paused, std::string reason) override;

    void holds_changed() override;
    void hold_lifted() override { freed({}); }
    void strategies_changed() override { quiet_.clear(); }
    std::size_t open_count() const override { return runs_.size(); }
    std::string strategy_of(std::string_view attempt) const override;
    bool acting() const override;
    bool may_take_back(const std::string& attempt) const override;
    const History& history() const override { return history_; }
    const GuardCounters& guard_counters() const override { return counters_; }
    const OutcomeBook& outcomes() const override { return book_; }

    void housekeeping() override;

    asio::awaitable<void> stop(std::chrono::milliseconds grace) override;

private:
    struct Quiet {
        Time until;
        Duration span{0};
    };

    // --- small helpers
    // --------------------------------------------------------------------------------------------

    void submit(const char* what, Store::Job job);

    static void put(Run& run, HealingInput in);
    void freed(const std::string& target);

    // --- people (healer_approval.cpp)
    Run* run_of(const std::string& event) const;
    ApprovalAsk make_ask(Run& run, std::size_t index);
    std::optional<json::object> binding(const Run& run, const std::string& strategy) const;
    /// Asks for every candidate that waits for a person, unless it is asked for already.
    void ask_people(Run& run);
    /// Is what was approved still what would run? Forgets the approval when not.
    bool still_approved(Run& run, const std::string& strategy);
    asio::awaitable<result<void>> take_approval(Run& run, const std::string& strategy);

    void keep_quiet(const std::string& key, Time from);

    Store::Job store_event(const Run& run);

    /// Asks the strategy that the configuration names what the incident is about (core/targets.hpp).
    asio::awaitable<void> resolve_target(Run& run);
    /// What is known of its target.
    void describe_target(Run& run) const;
    /// From here on its errors belong to it.
    void enter(const RunPtr& run);
    void leave(Run& run);
    void off_target(Run& run);
    /// It is about another target than was thought.
    void aim(Run& run, const std::string& target);
    /// Its loop begins.
    void begin(RunPtr run);
    void start(RunPtr run);
    /// One that stood open in the store, entered and not begun.
    RunPtr resume(sql::OpenEvent event, std::vector<sql::AttemptRow> attempts);
    asio::awaitable<void> drive_resumed(std::vector<RunPtr> runs);

    /// True: this node heals the incident.
    asio::awaitable<bool> claimed(Run& run);
    /// What the other nodes did counts for the guards here.
    asio::awaitable<void> look_at_other_nodes();
    bool ending() const { return stopping_ || abandoning_; }

    // --- the loop of one incident
    // ---------------------------------------------------------------------------------

    asio::awaitable<void> drive(RunPtr run);

    /// Assesses those that want to be asked, moves the confidence by what was learned, ranks.
    asio::awaitable<void> rank_candidates(Run& run);

    void remember(Past& past);
    void restore_episodes(const std::vector<sql::EpisodeRow>& rows);
    /// Where an incident stood before the restart; what was tried then is not tried again.
    HealingInput resume_input(Run& run);

    StrategyCall make_call(
        const Run& run,
        const Candidate& c,
        std::string attempt,
        std::chrono::milliseconds timeout,
        bool dry_run
    ) const;

    std::string decision_json(Run& run) const;
    /// Stores ranking and verdicts with the event, when they have changed.
    void explain(Run& run);

    // --- performing orders
    // ----------------------------------------------------------------------------------------

    asio::awaitable<std::optional<HealingInput>> perform(Run& run, const HealingOrder& order);

    /// Looks at what it depends on and at its groups, where the inventory names any.
    asio::awaitable<void> look_around(Run& run);
    /// What it depends on is down: that is an incident of its own, and the one to heal.
    void open_dependency(const Run& run, const DependencyHealth& dependency);
    bool must_look_around(const Run& run, const Candidate& candidate) const;
    HealingInput consider(Run& run, const order::Consider& o);
    /// What this healer did, and what else is known of before (Shared::alone).
    std::optional<History> history_alone() const;
    void show_open() const;
    /// Is the target healthy again although nothing was done for this incident?
    asio::awaitable<std::optional<HealingInput>> look(Run& run);
    void episode_opened(const Incident& incident);
    /// Was something done on the target, or on what it depends on, just before a new kind of error appeared?
    void look_for_harm(const RunPtr& run);
    /// The new error did not go away by itself: the attempt before it counts as failed, for good.
    void note_harm(const Run& run, EventState end);
    /// An attempt made something worse: it counts against it everywhere, and is stored and told.
    void harmed(const Suspect& suspect, const std::string& text);
    /// Services of the inventory that depend on one.
    std::vector<std::string> dependants_of(const std::string& name) const;
    /// Are dependants that were well before the attempt ill after it? That is harm.
    asio::awaitable<void> look_for_worse(Run& run);
    /// Name of the candidate that this incident tries out of turn; "" for none.
    std::string explored(const Run& run);
    /// Is it left alone for a while, to see what recovers by itself?
    bool left_alone(const Run& run) const;

    asio::awaitable<std::optional<HealingInput>> write_intent(Run& run, std::size_t index);

    void start_execution(Run& run, std::shared_ptr<StoredGate> intent);

    asio::awaitable<std::optional<HealingInput>> execute(Run& run, std::size_t index);

    asio::awaitable<std::optional<HealingInput>> check(Run& run, std::size_t index);

    asio::awaitable<std::optional<HealingInput>> undo(Run& run, std::size_t index);
    asio::awaitable<std::optional<HealingInput>> taken_back(Run& run, std::string text);

    void verified(Run& run, const order::Verified& o);

    void move(Run& run, const order::Move& o);

    void finish(Run& run, const order::Finish& o);

    Shared& s_;
    std::map<std::string, RunPtr> runs_;
    std::unordered_map<std::string, std::unordered_set<Run*>> on_target_;  ///< the same, by their target
    std::map<std::string, sql::HeldEvent> held_;
    std::map<std::string, Quiet> quiet_;
    std::map<std::string, std::string> excluded_;
    History history_;
    Episodes episodes_;
    StormWatch storm_;
    bool history_loaded_ = false;
    OutcomeBook book_;
    std::deque<Time> explorations_;  ///< of the last day
    GuardCounters counters_;
    std::optional<bool> paused_;
    std::string pause_reason_;
    bool stopping_ = false, abandoning_ = false, unsettled_ = false;
};

}  // namespace heal
