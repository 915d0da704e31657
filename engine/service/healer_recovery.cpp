#include "base/log.hpp"
#include "base/tasks.hpp"
#include "service/healer_impl.hpp"

#include <boost/asio/post.hpp>

#include <algorithm>
#include <set>
#include <unordered_map>
#include <utility>

namespace heal {

using namespace std::chrono_literals;

namespace {
constexpr const char* cut_off = "heald was stopped while it ran";

/// Begun before the restart, not ended, and never to be begun again.
bool is_cut_off(const sql::AttemptRow& row) {
    return row.state == "started" && !row.idempotent && !row.dry_run;
}

/// What a restart finds open.
struct Open {
    std::vector<sql::OpenEvent> events;
    std::unordered_map<std::string, std::vector<sql::AttemptRow>> attempts;
};

template <class T>
result<void> take(result<T>&& loaded, T& ret) {
    if (!loaded) return std::move(loaded).error();
    ret = std::move(*loaded);
    return {};
}

result<Past> load_past(Database& db, Time now) {
    Past past;
    HEAL_TRY(take(sql::load_facts(db, now - history_kept), past.facts));
    HEAL_TRY(take(sql::load_episodes(db, now - history_kept), past.episodes));
    HEAL_TRY(take(sql::load_verified_attempts(db, now - history_kept), past.verified));
    HEAL_TRY(take(sql::load_learned(db, 50'000), past.outcomes));
    HEAL_TRY(take(sql::load_holding(db), past.holding));
    HEAL_TRY(take(sql::load_recently_given_up(db, now - longest_quiet), past.given_up));
    return past;
}
}  // namespace

void HealerImpl::remember(Past& past) {
    for (auto& fact : past.facts) history_.started(std::move(fact));
    restore_episodes(past.episodes);
    for (const auto& v : past.verified) {
        if (v.failed)
            excluded_[key_of(v.fingerprint, v.environment)] = v.strategy;
        else
            excluded_.erase(key_of(v.fingerprint, v.environment));
    }
    for (const auto& o : past.outcomes) book_.record(o.strategy, o.fingerprint, o.service, o.success, o.at);
    for (auto& h : past.holding) held_[key_of(h.fingerprint, h.environment)] = std::move(h);
    for (const auto& q : past.given_up) keep_quiet(key_of(q.fingerprint, q.environment), q.closed_at);
    history_loaded_ = true;
}

asio::awaitable<result<void>> HealerImpl::recover() {
    const Time now = s_.clock.wall();
    Store::Job settle = [](Database& db) -> result<void> {
        auto settled = sql::settle_intents(db);
        if (!settled) return settled.error();
        return {};
    };
    HEAL_CO_TRY(co_await s_.store.write(std::move(settle)));
    // What is open and what was are read by two threads, side by side: after a bad night both are long. In a
    // cluster what is open is claimed first (healer_cluster.cpp).
    const auto open = std::make_shared<Open>();
    std::shared_ptr<StoredGate> read, ended;
    if (!s_.cluster) {
        read = std::make_shared<StoredGate>(s_.io);
        s_.store.submit(
            [open](Database& db) -> result<void> {
                HEAL_TRY(take(sql::load_open_events(db), open->events));
                return take(sql::load_open_attempts(db), open->attempts);
            },
            [read](result<void> outcome) { read->settle(std::move(outcome)); }
        );
    }
    std::function<result<Past>(Database&)> load = [now](Database& db) { return load_past(db, now); };
    auto past = co_await s_.store.read<Past>(std::move(load));
    if (!past) co_return past.error();
    remember(*past);
    if (read) HEAL_CO_TRY(co_await read->wait());
    // This is written down while the incidents are built.
    if (!s_.cluster) {
        ended = std::make_shared<StoredGate>(s_.io);
        s_.store.submit(
            [now](Database& db) { return sql::end_cut_off_attempts(db, cut_off, now); },
            [ended](result<void> outcome) { ended->settle(std::move(outcome)); }
        );
    }
    std::vector<RunPtr> resumed;
    resumed.reserve(open->events.size());
    for (auto& e : open->events) {
        auto& rows = open->attempts[e.incident.id];
        for (auto& row : rows) {
            if (is_cut_off(row)) row.ended_at = now;
        }
        resumed.push_back(resume(std::move(e), std::move(rows)));
    }
    if (ended) HEAL_CO_TRY(co_await ended->wait());
    if (!resumed.empty()) {
        log::info("taking up {} events where they stood", resumed.size());
        spawn(s_.io, drive_resumed(std::move(resumed)), "taking up events");
    }
    co_return result<void>{};
}

/// New errors are heard between the slices: after a long night there may be many of them.
asio::awaitable<void> HealerImpl::drive_resumed(std::vector<RunPtr> runs) {
    constexpr std::size_t slice = 16;  // some 2 ms
    // Also while it lets go: each of them has to end.
    for (std::size_t i = 0; i < runs.size() && !stopping_; ++i) {
        if (i % slice == 0) co_await asio::post(s_.io, asio::use_awaitable);
        begin(std::exchange(runs[i], nullptr));
    }
}

RunPtr HealerImpl::resume(sql::OpenEvent event, std::vector<sql::AttemptRow> attempts) {
    auto run = std::make_shared<Run>(s_.io, std::move(event.incident));
    run->resumed = true;
    run->earlier = std::move(attempts);
    const auto* service = s_.service(run->incident.target, run->incident.environment);
    const json::object facts = service ? service->facts : json::object{};
    // The trigger fired before; it need not fire again.
    run->unranked = s_.strategies.fitting(run->incident, facts, [](Duration) { return ~std::uint64_t{0}; });
    log::debug("taking up event {} of {} where it stood", run->incident.id, run->incident.service_name);
    enter(run);
    return run;
}

/// Openings and ends in the order in which they happened, as if they had been seen.
void HealerImpl::restore_episodes(const std::vector<sql::EpisodeRow>& rows) {
    std::vector<std::pair<Time, const sql::EpisodeRow*>> moments;
    for (const auto& row : rows) {
        moments.emplace_back(row.opened, &row);
        if (row.closed) moments.emplace_back(std::max(row.opened, *row.closed), &row);
    }
    std::stable_sort(moments.begin(), moments.end(), [](const auto& a, const auto& b) {
        return a.first < b.first;
    });
    std::set<const sql::EpisodeRow*> open;
    for (const auto& [at, row] : moments) {
        if (open.insert(row).second) {
            episodes_.opened(row->target, at);
            if (s_.service(row->target, row->environment))
                storm_.opened(row->target, at, s_.settings->limits.storm);
        } else
            episodes_.closed(row->target, at);
    }
}

/// Where an incident stood before the restart; what was tried then is not tried again.
HealingInput HealerImpl::resume_input(Run& run) {
    HealingInput in = input::Begin{};
    for (const auto& row : run.earlier) {
        if (row.dry_run) continue;
        ++run.attempts;
        auto it = std::find_if(run.unranked.begin(), run.unranked.end(), [&](const Candidate& c) {
            return c.info.name == row.strategy;
        });
        if (it == run.unranked.end()) {
            Candidate gone;
            gone.info.name = row.strategy;
            gone.info.version = row.version;
            gone.info.build = row.build;
            gone.info.idempotent = row.idempotent;
            gone.priority = row.priority;
            run.unranked.push_back(std::move(gone));
            it = run.unranked.end() - 1;
        }
        if (auto how = resume_of(
                static_cast<std::size_t>(it - run.unranked.begin()),
                {row.state, row.verified, row.rolled_back, row.undecided},
                cut_off
            )) {
            run.attempt = row.id;
            run.call = call_from(row.id, row.request);
            if (run.target.contains("code")) run.call.request["ticket"] = s_.ticket(row.id);
            it->note.clear();
            if (is_cut_off(row)) {
                // It will not run again: what it did is unknown.
                const Time now = s_.clock.wall();
                history_.ended(row.id, row.ended_at.value_or(now));
                if (!row.ended_at) {
                    submit("cut-off attempt", [id = row.id, now](Database& db) {
                        return sql::end_attempt(db, id, "unknown", cut_off, "{}", now);
                    });
                }
            }
            in = std::move(*how);
        } else {
            it->note = "tried before the restart";
        }
    }
    run.earlier = {};
    return in;
}

}  // namespace heal
