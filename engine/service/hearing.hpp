// From batches to durable records, bugs and incidents: keeps the exact counts, the windows that triggers
// need, and one transaction for a batch, its source offset and whatever the engine decided because of it.
#pragma once

#include "core/recent.hpp"
#include "core/rules.hpp"
#include "ingest/batch.hpp"
#include "service/healer.hpp"

#include <functional>
#include <unordered_map>

namespace heal {

class IngestJournal;
class LocalHealing;
class TriggerWatch;

class Hearing {
public:
    /// What became of a batch: stored, or `duplicate` (its key was taken before; nothing was counted again).
    struct Accepted {
        bool duplicate = false;
        std::vector<std::pair<std::string, Severity>> opened{};  ///< bugs
    };
    using Done = std::function<void(result<Accepted>)>;

    Hearing(Shared& shared, Healer& healer, TriggerWatch& triggers)
        : s_(shared), healer_(healer), triggers_(triggers) {}

    /// False: too many batches wait; nothing was taken.
    bool has_room() const { return pending_ < s_.settings->queue_batches; }

    /// Takes one batch. `done` runs after its commit (acknowledge only then). One with a key that was taken
    /// before does not count again. `again`: the same batch was offered before and could not be stored; its
    /// lines are in the windows already. errc::overloaded, errc::unavailable.
    void accept(Batch batch, bool again, Done done);

    /// Told of each bug that a batch opened, after its commit.
    void on_bug_opened(std::function<void(const std::string& bug, Severity)> told) {
        bug_opened_ = std::move(told);
    }

    /// From now on batches go there while the shared store is away, and behind those that wait there.
    void set_journal(IngestJournal* journal) { journal_ = journal; }
    /// While batches go to the journal, errors of targets that this node owns alone are healed there.
    void set_local(LocalHealing* local) { local_ = local; }
    /// Stores a batch of the journal; errc::unavailable the store is away again.
    void replay(Batch batch, std::function<void(result<void>)> done);

    /// Merges that people decided: the fine id keeps its own counts, triggers and incidents go by the
    /// canonical one.
    void set_aliases(std::vector<sql::FingerprintDecision> decisions);

    /// Restores the windows of the last hour.
    boost::asio::awaitable<result<void>> recover();
    std::size_t pending() const { return pending_; }
    std::size_t tracked() const { return hours_.size(); }

    /// Trigger state is held for this many fingerprints; the one not heard for longest goes first.
    static constexpr std::size_t max_tracked = 100'000;

    /// Lets go of windows that are empty by now. Every minute.
    void forget_idle();

private:
    struct Decided;

    SlidingCount& hour_of(const std::string& fingerprint);
    /// What each delta leads to; opens incidents. `fresh`: triggers have not seen these lines yet.
    void decide(const Batch& batch, bool again, bool fresh, std::vector<Decided>& ret);
    Decided decide_one(const Delta& delta, const Batch& batch, bool again, bool fresh, Healer& healer);
    /// What this node may do alone, it does; noted in the batch, so that it is not decided again.
    void decide_alone(Batch& batch, bool again);
    /// Is it about a target that this node alone heals?
    bool is_own(const Delta& delta) const;
    bool concerns_own(const Batch& batch) const;
    /// With other nodes on the same store the rows come first: what to do follows from the counts of all.
    void store_in_cluster(std::shared_ptr<Batch> batch, Done done);
    const std::string& canonical(const std::string& fingerprint) const;
    void store_batch(std::shared_ptr<Batch> batch, bool again, Done done);
    result<void> store_rows(
        Database& db, const Batch& batch, const std::vector<Decided>& decided, Accepted& ret_accepted
    );
    void count(const Batch& batch, const char* outcome);

    Shared& s_;
    Healer& healer_;
    TriggerWatch& triggers_;
    void tell_opened(const Accepted& accepted) const;

    std::function<void(const std::string& bug, Severity)> bug_opened_;
    IngestJournal* journal_ = nullptr;
    LocalHealing* local_ = nullptr;
    Recent<SlidingCount> hours_{max_tracked};
    std::unordered_map<std::string, std::string> aliases_;
    std::unordered_map<std::string, std::vector<Done>> arriving_;  // by batch key: who waits for its outcome
    std::size_t pending_ = 0;
};

}  // namespace heal
