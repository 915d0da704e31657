// Heals incidents: asks the strategies, ranks them, passes the guards, writes the intent, lets them act,
// verifies, takes back, goes on or escalates. The order of things is HealingMachine's; this performs it. One
// coroutine per open incident.
#pragma once

#include "core/approval.hpp"
#include "core/guards.hpp"
#include "core/healing_machine.hpp"
#include "core/router.hpp"
#include "service/feed.hpp"
#include "service/metrics.hpp"
#include "service/prober.hpp"
#include "service/settings.hpp"
#include "service/strategies.hpp"
#include "store/cluster_store.hpp"
#include "store/store.hpp"
#include "wire/strategy_runner.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace heal {

class Approvals;
class Trust;
struct ApprovalAsk;
class Cluster;

/// What the healer of a node that acts alone asks of it (local_healing.hpp).
struct Alone {
    /// Attempts known from before and from the other healer of this node; nullopt: nobody knows, which
    /// denies.
    std::function<std::optional<std::vector<AttemptFact>>()> attempts;
    std::function<const std::optional<std::vector<Hold>>&()> holds;
    std::function<bool(const std::string& target, const std::string& environment)> owns;
};

/// What the services of the engine share; lives as long as the engine. All on the event loop's thread.
struct Shared {
    boost::asio::io_context& io;
    const Clock& clock;
    Store& store;
    StrategyRunner& runner;
    Prober& prober;
    Feed& feed;
    Metrics& metrics;
    std::shared_ptr<const Settings> settings;  ///< replaced on reload
    Strategies strategies;
    /// Kill switches, maintenance windows and freezes that people set; nullopt: not read, which denies.
    std::optional<std::vector<Hold>> holds{};
    Approvals* approvals = nullptr;  ///< set before anything heals
    Trust* trust = nullptr;          ///< likewise
    Cluster* cluster = nullptr;      ///< null: this node is alone. Else `store` is fenced (cluster.hpp)
    const Alone* alone = nullptr;    ///< set: heals while the shared store is away, into a store of its own
    /// May another healer of this node act on this target, or have acted and not said so yet? Then this one
    /// does not.
    std::function<bool(const std::string& target, const std::string& environment)> elsewhere{};
    /// Told of each kind of error of each batch: fingerprint, environment, release, time.
    std::function<void(const std::string&, const std::string&, const std::string&, Time)> on_heard{};
    std::string address{};     ///< of heald's own HTTP, "127.0.0.1:7480"; "" until it listens
    std::string ticket_key{};  ///< of tickets, made at each start
    /// What lets an attempt ask heald itself over HTTP while it is under way: "attempt:ID:HMAC". Never
    /// stored.
    std::string ticket(const std::string& attempt) const;
    /// The entry of the inventory for a service, or null.
    const ServiceSettings* service(const std::string& name, const std::string& environment) const;
};

class Healer {
public:
    virtual ~Healer() = default;

    /// It occurred. Returns the event that is open for it, or "" when none is. The caller adds the count to
    /// the event's row with the lines that it stands for. `at`: its own time where that is trustworthy.
    virtual std::string occurred(
        const std::string& fingerprint, const std::string& environment, std::uint64_t count, Time at
    ) = 0;
    /// Occurred while nothing is open: turns a healed event within its hold window into did_not_hold. True
    /// when it did.
    virtual bool recurred_after_healing(
        const std::string& fingerprint, const std::string& environment, Time at
    ) = 0;
    virtual bool is_open(const std::string& fingerprint, const std::string& environment) const = 0;
    /// True while a fingerprint that could not be healed is left alone (doubling from the cooldown up to an
    /// hour).
    virtual bool is_quiet(const std::string& fingerprint, const std::string& environment) const = 0;
    /// Opens an incident. Its row is queued with a count of 0; the caller adds the count with the lines.
    virtual void open(Incident incident, std::vector<Candidate> candidates) = 0;

    /// After a start: takes up every open incident where it stood (D4).
    virtual boost::asio::awaitable<result<void>> recover() = 0;

    /// Incidents that this node has taken over from a lost one, and goes on with.
    virtual void take_up(std::vector<sql::TakenOver> taken) = 0;
    /// Another node has what this one healed: lets go of every incident, and resumes when all have ended.
    virtual boost::asio::awaitable<void> abandon() = 0;
    /// What other nodes heard of an incident that this one heals.
    virtual void catch_up(const sql::ClaimedCount& count) = 0;
    /// An incident that another node healed; its hold window counts here too.
    virtual void learn_held(sql::HeldEvent held) = 0;

    /// What a person would be asked for an event: the strategy that waits for one, as it would run now.
    /// `strategy` "": the best that waits; `at_once`: also one that only waits for a guard.
    /// errc::not_found, errc::conflict (nothing waits for approval).
    virtual result<ApprovalAsk> ask_for(
        const std::string& event, const std::string& strategy, bool at_once
    ) = 0;
    /// What a request for an approval is bound to now; nullopt: it waits for nobody any more.
    virtual std::optional<json::object> binding(const Approval& approval) = 0;
    /// An approval of kind "heal" changed, durably.
    virtual void approval_changed(const Approval& approval) = 0;

    /// The kill switch. nullopt: its state could not be read, which denies. Attempts under way are cancelled
    /// when it goes on.
    virtual void set_paused(std::optional<bool> paused, std::string reason) = 0;

    /// A hold was set: attempts under way that a kill switch concerns are cancelled.
    virtual void holds_changed() = 0;
    /// A hold was lifted: what waits looks again at once.
    virtual void hold_lifted() = 0;

    /// Strategies changed: quiet fingerprints may be tried again.
    virtual void strategies_changed() = 0;
    virtual std::size_t open_count() const = 0;
    /// The strategy of an attempt that is under way, or that is being verified; "" for any other.
    virtual std::string strategy_of(std::string_view attempt) const = 0;
    /// An attempt or an undo runs now.
    virtual bool acting() const = 0;
    /// An attempt that this process made may still be taken back by it. Unlike history(), it says so also
    /// while the store, which that has to reach first, is away.
    virtual bool may_take_back(const std::string& attempt) const = 0;
    /// Attempts as far as guards look back, oldest first.
    virtual const History& history() const = 0;
    virtual const GuardCounters& guard_counters() const = 0;
    virtual const OutcomeBook& outcomes() const = 0;
    /// Every minute: settles hold windows that ended, forgets old history.
    virtual void housekeeping() = 0;
    /// Takes on nothing new; attempts under way may end within `grace`, the rest is left for recover().
    virtual boost::asio::awaitable<void> stop(std::chrono::milliseconds grace) = 0;
};

std::unique_ptr<Healer> create_healer(Shared& shared);

}  // namespace heal
