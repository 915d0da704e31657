#include "base/log.hpp"
#include "service/healer_impl.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
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
}  // namespace

asio::awaitable<result<void>> HealerImpl::recover() {
    std::vector<sql::OpenEvent> open_events;
    std::unordered_map<std::string, std::vector<sql::AttemptRow>> attempts;
    std::vector<AttemptFact> history;
    std::vector<sql::EpisodeRow> episodes;
    std::vector<sql::VerifiedAttempt> verified;
    std::vector<sql::Outcome> outcomes;
    std::vector<sql::HeldEvent> holding;
    std::vector<sql::QuietEvent> given_up;
    const Time now = s_.clock.wall();
    const auto take = [](auto&& loaded, auto& ret) -> result<void> {
        if (!loaded) return loaded.error();
        ret = std::move(*loaded);
        return {};
    };
    // A job may run twice (store.hpp): what it read is used below.
    HEAL_CO_TRY(co_await s_.store.write([&](Database& db) -> result<void> {
        auto settled = sql::settle_intents(db);
        if (!settled) return settled.error();
        HEAL_TRY(take(sql::load_facts(db, now - history_kept), history));
        HEAL_TRY(take(sql::load_episodes(db, now - history_kept), episodes));
        HEAL_TRY(take(sql::load_verified_attempts(db, now - history_kept), verified));
        HEAL_TRY(take(sql::load_learned(db, 50'000), outcomes));
        HEAL_TRY(take(sql::load_holding(db), holding));
        HEAL_TRY(take(sql::load_recently_given_up(db, now - longest_quiet), given_up));
        // In a cluster what is open is claimed first (healer_cluster.cpp).
        if (s_.cluster) return {};
        auto events = sql::load_open_events(db);
        if (!events) return events.error();
        open_events = std::move(*events);
        HEAL_TRY(take(sql::load_open_attempts(db), attempts));
        return sql::end_cut_off_attempts(db, cut_off, now);
    }));
    for (auto& fact : history) history_.started(std::move(fact));
    restore_episodes(episodes);
    for (const auto& v : verified) {
        if (v.failed)
            excluded_[key_of(v.fingerprint, v.environment)] = v.strategy;
        else
            excluded_.erase(key_of(v.fingerprint, v.environment));
    }
    for (const auto& o : outcomes) book_.record(o.strategy, o.fingerprint, o.service, o.success, o.at);
    for (auto& h : holding) held_[key_of(h.fingerprint, h.environment)] = std::move(h);
    for (const auto& q : given_up) keep_quiet(key_of(q.fingerprint, q.environment), q.closed_at);
    history_loaded_ = true;
    std::vector<RunPtr> resumed;
    resumed.reserve(open_events.size());
    for (auto& e : open_events) {
        auto& rows = attempts[e.incident.id];
        for (auto& row : rows) {
            if (is_cut_off(row)) row.ended_at = now;
        }
        resumed.push_back(resume(std::move(e), std::move(rows)));
    }
    if (!resumed.empty()) {
        log::info("taking up {} events where they stood", resumed.size());
        asio::co_spawn(s_.io, drive_resumed(std::move(resumed)), asio::detached);
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
