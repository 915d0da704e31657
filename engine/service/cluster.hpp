// One node among many on one PostgreSQL (docs/adr/0021-cluster.md): its membership with lease and fence,
// which incidents it heals, and what it takes over from a node that is lost: incidents and patch runs. On
// SQLite there is none of this.
//
// Threads: the event loop's.
#pragma once

#include "store/cluster_store.hpp"
#include "store/fix_store.hpp"
#include "store/store.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace heal {

class Cluster;

/// The store as the healer sees it in a cluster: each write is refused (errc::denied) once this node's
/// membership is over, and an intent is refused (errc::conflict) when another node began one after this
/// node's guards looked.
class FencedStore final : public Store {
public:
    FencedStore(Store& store, Cluster& cluster) : store_(store), cluster_(cluster) {}
    void submit(Job job, Done done) override;
    void keep(Job job, Done done) override;
    void submit_urgent(Job job, Done done) override;
    void hurry() override { store_.hurry(); }
    void cork() override { store_.cork(); }
    void uncork() override { store_.uncork(); }
    StoreFigures figures() const override { return store_.figures(); }
    void stop() override { store_.stop(); }
    Store& plain() { return store_; }

protected:
    void submit_read(Job job, Done done) override;

private:
    Store& store_;
    Cluster& cluster_;
};

/// What the cluster asks of the engine.
struct ClusterEvents {
    std::function<void(std::vector<sql::TakenOver>)> take_up;
    std::function<std::vector<std::string>()> repositories;  ///< whose patch runs this node can go on with
    std::function<void(std::vector<sql::PatchRun>)> take_up_patches;
    std::function<boost::asio::awaitable<void>()>
        abandon;  ///< end every incident and patch run here without a word
    std::function<void(const sql::ClaimedCount&)> catch_up;
    std::function<void(const sql::EventRequest&)> request;
    std::function<void()> shared_state_changed;
    std::function<std::string()> health;  ///< "ready" or why not
    std::function<bool()> may_take_over;  ///< false: what this node did alone is not handed over yet
    std::function<std::int64_t()> open_events;
};

class Cluster {
public:
    /// A node that said nothing for `lease` is taken for lost; it stops acting `margin` earlier by itself.
    static constexpr Duration lease = std::chrono::seconds{6};
    static constexpr Duration margin = std::chrono::seconds{1};
    static constexpr Duration beat = std::chrono::seconds{1};

    Cluster(boost::asio::io_context& io, Store& store, const Clock& clock, std::string node);
    ~Cluster();

    boost::asio::awaitable<result<void>> join();
    /// Heartbeats, takes over, follows changes; until stop().
    boost::asio::awaitable<void> run(ClusterEvents events);
    /// Listens for notifications on a connection of its own.
    void listen(const std::string& url, const std::string& password);
    void stop();
    boost::asio::awaitable<void> leave();

    /// This node's lease certainly still runs: by the steady clock, from before the renewal was sent.
    bool holds() const { return fence_ != 0 && clock_.steady() < valid_until_; }
    const std::string& node() const { return node_; }
    std::int64_t fence() const { return fence_; }
    Store& store() { return fenced_; }
    Store& plain_store() { return store_; }
    std::uint64_t taken_over() const { return taken_over_; }
    std::uint64_t times_lost() const { return times_lost_; }

    /// Targets that other nodes own: their incidents are theirs alone.
    void set_foreign(std::vector<std::string> targets) { foreign_ = std::move(targets); }

    /// Runs it now, or once this node is a member again. Bounded; the oldest goes first.
    void when_member(std::function<void()> act);

    /// True: this node heals the incident. False: another one does; its count was raised there.
    boost::asio::awaitable<result<bool>> claim(Incident incident);
    /// Attempts of all nodes since `from`; a later intent fails if another node began one since this looked.
    boost::asio::awaitable<result<std::vector<AttemptFact>>> history(Time from);

private:
    friend class FencedStore;
    boost::asio::awaitable<void> tick(const ClusterEvents& events);
    boost::asio::awaitable<void> keep_lease();
    boost::asio::awaitable<void> lost(const ClusterEvents& events);

    boost::asio::io_context& io_;
    Store& store_;
    const Clock& clock_;
    std::string node_;
    FencedStore fenced_;
    boost::asio::steady_timer timer_;
    std::int64_t fence_ = 0, foreign_seen_ = 0;
    Duration valid_until_{0};
    std::string shared_seen_;
    std::uint64_t taken_over_ = 0, times_lost_ = 0;
    std::deque<std::function<void()>> waiting_;
    std::vector<std::string> foreign_;
    bool stopping_ = false, woken_ = false, running_ = false;
    std::atomic<bool> end_listening_{false};
    std::thread listener_;
};

}  // namespace heal
