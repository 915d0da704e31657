#include "service/cluster.hpp"

#include "base/log.hpp"
#include "base/tasks.hpp"
#include "store/brain_store.hpp"

#include <boost/asio/post.hpp>

#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>

namespace heal {
namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

/// Decisions that wait for this node to be a member again; more than an incident a second for hours.
constexpr std::size_t max_waiting = 10'000;
/// Incidents of lost nodes taken over in one transaction; some 100 ms of the write turn.
constexpr std::int64_t take_over_at_once = 500;

Store::Job fenced(Store::Job job, std::string node, std::int64_t fence) {
    return [job = std::move(job), node = std::move(node), fence](Database& db) -> result<void> {
        HEAL_TRY(sql::check_fence(db, node, fence));
        return job(db);
    };
}

}  // namespace

void FencedStore::submit(Job job, Done done) {
    store_.submit(fenced(std::move(job), cluster_.node_, cluster_.fence_), std::move(done));
}

void FencedStore::keep(Job job, Done done) {
    store_.keep(fenced(std::move(job), cluster_.node_, cluster_.fence_), std::move(done));
}

void FencedStore::submit_urgent(Job job, Done done) {
    Job checked = [job = std::move(job), node = cluster_.node_, seen = cluster_.foreign_seen_](Database& db
                  ) -> result<void> {
        auto foreign = sql::foreign_intents(db, node);
        if (!foreign) return foreign.error();
        if (*foreign != seen)
            return fail(errc::conflict, "another node began an attempt meanwhile; the guards look again");
        HEAL_TRY(sql::count_intent(db, node));
        return job(db);
    };
    store_.submit_urgent(fenced(std::move(checked), cluster_.node_, cluster_.fence_), std::move(done));
}

void FencedStore::submit_read(Job job, Done done) {
    // Readers ask for what is committed; who asks makes no difference.
    struct Open : Store {
        using Store::submit_read;
    };
    (store_.*(&Open::submit_read))(std::move(job), std::move(done));
}

Cluster::Cluster(asio::io_context& io, Store& store, const Clock& clock, std::string node)
    : io_(io), store_(store), clock_(clock), node_(std::move(node)), fenced_(store, *this), timer_(io) {}

Cluster::~Cluster() {
    end_listening_ = true;
    if (listener_.joinable()) listener_.join();
}

asio::awaitable<result<void>> Cluster::join() {
    sql::NodeInfo info;
    char host[256] = "";
    ::gethostname(host, sizeof host - 1);
    info.node = node_;
    info.host = host;
    info.version = HEAL_VERSION;
    info.pid = ::getpid();
    auto fence = std::make_shared<std::int64_t>(0);
    const auto before = clock_.steady();
    Store::Job job = [fence, info](Database& db) -> result<void> {
        auto number = sql::join_cluster(db, info, lease);
        if (!number) return number.error();
        *fence = *number;
        return {};
    };
    HEAL_CO_TRY(co_await store_.write(std::move(job)));
    fence_ = *fence;
    valid_until_ = before + lease - margin;
    log::info("node '{}' is a member with fence {}", node_, fence_);
    // A start may take longer than a lease: many incidents to take up, a slow server.
    if (!running_) spawn(io_, keep_lease(), "keeping the lease");
    auto waiting = std::move(waiting_);
    waiting_.clear();
    for (const auto& act : waiting) act();
    co_return result<void>{};
}

void Cluster::when_member(std::function<void()> act) {
    if (fence_ != 0) return act();
    if (waiting_.size() >= max_waiting) {
        log::error("a decision is given up: this node was no member for too long");
        waiting_.pop_front();
    }
    waiting_.push_back(std::move(act));
}

asio::awaitable<void> Cluster::keep_lease() {
    for (;;) {
        co_await sleep_for(beat);
        if (running_ || stopping_ || fence_ == 0) co_return;
        auto alive = std::make_shared<bool>(false);
        const auto before = clock_.steady();
        const auto fence = fence_;
        Store::Job job = [alive, node = node_, fence](Database& db) -> result<void> {
            auto renewed = sql::heartbeat(db, node, fence, lease, "starting", 0);
            if (!renewed) return renewed.error();
            *alive = *renewed;
            return {};
        };
        const auto outcome = co_await store_.write(std::move(job));
        if (outcome && *alive && fence_ == fence) valid_until_ = before + lease - margin;
    }
}

asio::awaitable<void> Cluster::run(ClusterEvents events) {
    running_ = true;
    while (!stopping_) {
        if (fence_ == 0)
            static_cast<void>(co_await join());
        else
            co_await tick(events);
        if (stopping_) break;
        if (!std::exchange(woken_, false)) {
            timer_.expires_after(beat);
            co_await due(timer_);
            woken_ = false;
        }
    }
}

asio::awaitable<void> Cluster::tick(const ClusterEvents& events) {
    struct Seen {
        bool alive = false;
        std::vector<std::string> lost;
        std::vector<sql::TakenOver> taken;
        std::vector<sql::PatchRun> patches;
        std::vector<sql::EventRequest> requests;
        std::vector<sql::ClaimedCount> counts;
        std::string shared;
    };
    auto seen = std::make_shared<Seen>();
    const auto before = clock_.steady();
    Store::Job job = [seen,
                      node = node_,
                      fence = fence_,
                      foreign = foreign_,
                      take = events.may_take_over(),
                      repositories = events.repositories(),
                      health = events.health(),
                      open_events = events.open_events()](Database& db) -> result<void> {
        *seen = Seen{};
        auto alive = sql::heartbeat(db, node, fence, lease, health, open_events);
        if (!alive) return alive.error();
        seen->alive = *alive;
        if (!*alive) return {};
        auto lost_nodes = sql::mark_lost_nodes(db);
        if (!lost_nodes) return lost_nodes.error();
        seen->lost = std::move(*lost_nodes);
        if (take) {
            auto taken = sql::take_over(db, node, fence, take_over_at_once, foreign);
            if (!taken) return taken.error();
            seen->taken = std::move(*taken);
            auto patches = sql::take_over_patch_runs(db, node, &repositories);
            if (!patches) return patches.error();
            seen->patches = std::move(*patches);
        }
        auto requests = sql::take_requests(db, node);
        if (!requests) return requests.error();
        seen->requests = std::move(*requests);
        auto counts = sql::claimed_counts(db, node, fence);
        if (!counts) return counts.error();
        seen->counts = std::move(*counts);
        auto shared = sql::shared_state(db);
        if (!shared) return shared.error();
        seen->shared = std::move(*shared);
        return sql::forget_claims(db, node);
    };
    auto outcome = co_await store_.write(std::move(job));
    if (!outcome) co_return;  // the store is away: the lease runs out by itself, and holds() says so
    if (!seen->alive) {
        co_await lost(events);
        co_return;
    }
    valid_until_ = before + lease - margin;
    for (const auto& name : seen->lost) log::warn("node '{}' said nothing for too long and is lost", name);
    if (!seen->taken.empty()) {
        taken_over_ += seen->taken.size();
        // There are more: not only at the next heartbeat.
        woken_ = woken_ || static_cast<std::int64_t>(seen->taken.size()) == take_over_at_once;
        events.take_up(std::move(seen->taken));
    }
    if (!seen->patches.empty()) events.take_up_patches(std::move(seen->patches));
    for (const auto& count : seen->counts) events.catch_up(count);
    for (const auto& request : seen->requests) events.request(request);
    if (shared_seen_ != seen->shared) {
        const bool first = shared_seen_.empty();
        shared_seen_ = seen->shared;
        if (!first) events.shared_state_changed();
    }
}

/// Others heal now what was healed here. First everything here ends, and only then is this node a member
/// again.
asio::awaitable<void> Cluster::lost(const ClusterEvents& events) {
    log::warn(
        "node '{}' was taken for lost (fence {}); it lets go of its incidents and patch runs and joins again",
        node_,
        fence_
    );
    ++times_lost_;
    fence_ = 0;
    co_await events.abandon();
    static_cast<void>(co_await join());
}

void Cluster::listen(const std::string& url, const std::string& password) {
    listener_ = std::thread{[this, url, password] {
        ::pthread_setname_np(::pthread_self(), "heald-listen");
        while (!end_listening_) {
            const std::function<void()> heard = [this] {
                asio::post(io_, [this] {
                    woken_ = true;
                    timer_.cancel();
                });
            };
            static_cast<void>(listen_postgres(url, password, sql::notify_channel, heard, end_listening_));
            // Heartbeats look anyway; a notification only makes it sooner.
            for (int i = 0; i < 20 && !end_listening_; ++i) std::this_thread::sleep_for(100ms);
        }
    }};
}

void Cluster::stop() {
    stopping_ = true;
    end_listening_ = true;
    timer_.cancel();
}

asio::awaitable<void> Cluster::leave() {
    if (fence_ == 0) co_return;
    Store::Job job = [node = node_, fence = fence_](Database& db) -> result<void> {
        HEAL_TRY(sql::leave_cluster(db, node, fence));
        return sql::notify_nodes(db, node);
    };
    static_cast<void>(co_await store_.write(std::move(job)));
    fence_ = 0;
}

asio::awaitable<result<bool>> Cluster::claim(Incident incident) {
    auto other = std::make_shared<std::string>();
    const auto count = incident.count;
    const bool ours = std::find(foreign_.begin(), foreign_.end(), incident.target) == foreign_.end();
    Store::Job job = [other, incident = std::move(incident), node = node_, fence = fence_, count, ours](
                         Database& db
                     ) -> result<void> {
        auto found = sql::claim_event(db, incident, node, fence, count, ours);
        if (!found) return found.error();
        *other = std::move(*found);
        return {};
    };
    HEAL_CO_TRY(co_await store_.write(std::move(job)));
    co_return other->empty();
}

asio::awaitable<result<std::vector<AttemptFact>>> Cluster::history(Time from) {
    struct Seen {
        std::vector<AttemptFact> facts;
        std::int64_t foreign = 0;
    };
    auto seen = std::make_shared<Seen>();
    Store::Job job = [seen, node = node_, from](Database& db) -> result<void> {
        auto foreign = sql::foreign_intents(db, node);
        if (!foreign) return foreign.error();
        seen->foreign = *foreign;
        auto facts = sql::load_facts(db, from);
        if (!facts) return facts.error();
        seen->facts = std::move(*facts);
        return {};
    };
    HEAL_CO_TRY(co_await store_.write(std::move(job)));
    foreign_seen_ = seen->foreign;
    co_return std::move(seen->facts);
}

}  // namespace heal
