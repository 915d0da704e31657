// What the parts of the healer share: one incident under way, one attempt under way, and the ledger that
// records its effects. Internal to service/healer*.cpp. @thread the event loop's
#pragma once

#include "base/tasks.hpp"
#include "core/guard_record.hpp"
#include "service/healer.hpp"
#include "store/brain_store.hpp"

#include <boost/asio/steady_timer.hpp>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace heal {

namespace asio = boost::asio;

/// An error is healed once per environment.
inline std::string key_of(const std::string& fingerprint, const std::string& environment) {
    return fingerprint + '\x1f' + environment;
}

/// Longest time a fingerprint that could not be healed is left alone.
inline constexpr Duration longest_quiet = std::chrono::hours{1};

/// How far back guards look: a day for the budget and the breaker, and what a clock may be wrong.
inline constexpr Duration history_kept = std::chrono::hours{26};

/// So long after an attempt ended a new kind of error on its target or dependants may come of it.
inline constexpr Duration harm_window = std::chrono::minutes{2};

/// The whole call as text, so that a restart can repeat it exactly, and back.
std::string to_text(const StrategyCall& call);
StrategyCall call_from(const std::string& attempt, const std::string& text);

/// Whether something is stored, for those that go on only then: an attempt's effects wait for its intent.
struct StoredGate {
    explicit StoredGate(asio::io_context& io) : wake(io, asio::steady_timer::time_point::max()) {}
    void settle(result<void> result) {
        stored = std::move(result);
        wake.cancel();
    }
    asio::awaitable<result<void>> wait() {
        while (!stored) co_await due(wake);
        co_return *stored;
    }
    std::optional<result<void>> stored;
    asio::steady_timer wake;
};

/// Records every effect of an attempt before it happens and how it ended.
class AttemptLedger final : public EffectLedger {
public:
    /// @param intent  null: stored long ago
    AttemptLedger(
        Shared& shared, std::string attempt, std::string event, std::shared_ptr<StoredGate> intent = nullptr
    )
        : shared_(shared),
          attempt_(std::move(attempt)),
          event_(std::move(event)),
          intent_(std::move(intent)) {}

    bool intent_pending() const override;

    asio::awaitable<result<void>> intent_durable() override;

    asio::awaitable<result<void>> begin(Effect effect) override;

    void end(EffectResult r) override;

    void log(Level level, std::string message, json::object fields, double progress) override;

private:
    /// A node that was stopped for a while must not act on what another one heals by now: errc::denied.
    result<void> still_ours() const;

    Shared& shared_;
    std::string attempt_, event_;
    std::shared_ptr<StoredGate> intent_;
    std::map<std::pair<std::string, std::int64_t>, std::int64_t> undoes_;
    std::map<std::pair<std::string, std::int64_t>, std::string> summaries_;
};

/// A strategy's execute under way.
struct Execution {
    explicit Execution(asio::io_context& io) : wake(io, asio::steady_timer::time_point::max()) {}
    asio::awaitable<StrategyReply> wait() {
        while (!reply) co_await due(wake);
        co_return std::move(*reply);
    }
    std::optional<StrategyReply> reply;
    Duration started{0};
    asio::steady_timer wake;
};

/// An attempt after which a kind of error appeared that nobody had seen before.
struct Suspect {
    std::string attempt, event, strategy, fingerprint, service, target;
};

/// What guards, ranking and holds have to know of the time before a restart.
struct Past {
    std::vector<AttemptFact> facts;
    std::vector<sql::EpisodeRow> episodes;
    std::vector<sql::VerifiedAttempt> verified;
    std::vector<sql::Outcome> outcomes;
    std::vector<sql::HeldEvent> holding;
    std::vector<sql::QuietEvent> given_up;
};

/// One open incident.
struct Run {
    Run(asio::io_context& io, Incident in) : incident(std::move(in)), wake(io) {}
    Incident incident;
    json::object target;
    std::vector<ProbeSettings> probes;
    std::optional<HealingMachine> machine;
    std::deque<HealingInput> inbox;
    asio::steady_timer wake;
    std::optional<Duration> due;  ///< steady time of the machine's wait
    std::vector<Candidate> unranked;
    std::string resolver;  ///< to be asked what it is about; "": that is known
    std::string attempt, approver;
    StrategyCall call;
    std::shared_ptr<Execution> execution;
    bool dry_run = false, executing = false, resumed = false;
    bool taken_back = false;                    ///< the attempt; whether that is stored or not
    bool break_glass = false;                   ///< the approver overrides what protects against haste
    std::map<std::string, std::string> asked;   ///< by strategy: the digest that people are asked for
    std::map<std::string, Approval> approvals;  ///< by strategy: given, and not yet acted on
    bool stored = true;  ///< false: its row could not be written, the next write tries again
    unsigned attempts = 0;
    std::optional<Suspect> suspect;  ///< this incident may be its harm
    std::optional<EventState> ended;
    json::object ranking_input;  ///< of core/decision.hpp, kept with the event
    json::array ranking, verdicts;
    std::optional<GuardRecord> record;  ///< of the newest verdict, until it is written down
    bool explained = false;         ///< the event's row has this ranking and these verdicts, or is about to
    std::optional<Time> ill_since;  ///< see TargetHealth
    std::optional<TargetHealth> health;                         ///< of its own probes, as last looked at
    std::optional<std::vector<GroupHealth>> groups;             ///< as last looked at
    std::optional<std::vector<DependencyHealth>> dependencies;  ///< likewise
    std::vector<std::string> well_before;  ///< dependants whose probes passed before the attempt
    Evidence evidence;
    std::vector<sql::AttemptRow> earlier;  ///< of before a restart
};
using RunPtr = std::shared_ptr<Run>;

}  // namespace heal
