#include "service/hearing.hpp"

#include "base/id.hpp"
#include "base/log.hpp"
#include "fingerprint/fingerprint.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace heal {
namespace {

/// A record's own time serves to tell old lines from new ones only when it is close to when it was heard.
Time trusted_time(Time own, Time received) {
    const auto apart = received - own;
    return apart >= Duration{0} && apart < std::chrono::seconds{10} ? own : received;
}

std::string kind_of(const std::string& source) { return source.substr(0, source.find(':')); }

}  // namespace

/// What one delta leads to, decided before the commit that makes it durable.
struct Hearing::Decided {
    std::size_t delta = 0;
    Severity severity = Severity::p2_minor;
    std::string bug_rule;  ///< why a bug would open; "" only counts an existing one
    std::shared_ptr<std::string> bug_id = std::make_shared<std::string>();
    std::vector<std::string> log_ids;
};

Hearing::State& Hearing::state_of(const std::string& fingerprint) {
    const auto it = states_.find(fingerprint);
    if (it != states_.end()) {
        ages_.splice(ages_.end(), ages_, it->second.age);
        return it->second;
    }
    if (states_.size() >= max_tracked) {
        states_.erase(ages_.front());
        ages_.pop_front();
        s_.metrics.add("heald_fingerprints_evicted_total");
    }
    ages_.push_back(fingerprint);
    return states_.emplace(fingerprint, State{SlidingCount{}, std::prev(ages_.end())}).first->second;
}

void Hearing::decide(const Batch& batch, std::vector<Decided>& ret) {
    for (std::size_t i = 0; i < batch.deltas.size(); ++i) {
        const auto& delta = batch.deltas[i];
        const auto& sample = delta.samples.back();
        const auto alias = aliases_.find(delta.fingerprint);
        const std::string& fingerprint = alias == aliases_.end() ? delta.fingerprint : alias->second;
        auto& state = state_of(fingerprint);
        state.hour.add(batch.received, delta.count);
        const auto per_hour = state.hour.count(batch.received);
        Decided d;
        d.delta = i;
        d.severity = severity_of(sample, per_hour);
        const bool is_error = sample.level >= Level::error || sample.level == Level::unknown;
        d.bug_rule = opens_at_once(sample);
        if (d.bug_rule.empty() && is_error && per_hour >= bug_threshold) d.bug_rule = "third within an hour";
        for (std::size_t k = 0; k < delta.samples.size(); ++k) d.log_ids.push_back(new_id(s_.clock));

        const Time at = trusted_time(delta.last, batch.received);
        if (healer_.is_open(fingerprint, delta.environment)) {
            healer_.occurred(fingerprint, delta.environment, delta.count, at);
        } else {
            const bool came_back = healer_.recurred_after_healing(fingerprint, delta.environment, at);
            Incident incident;
            incident.fingerprint = fingerprint;
            incident.service_name = delta.service_name;
            incident.environment = delta.environment;
            incident.severity = d.severity;
            incident.record = sample;
            incident.pattern = delta.pattern;
            incident.count = delta.count;
            incident.first_at = delta.first;
            incident.last_at = delta.last;
            const auto* service = s_.service(delta.service_name, delta.environment);
            incident.target = service ? service->name : delta.service_name;
            if (!healer_.is_quiet(fingerprint, delta.environment)) {
                auto candidates = s_.strategies.fitting(
                    incident,
                    service ? service->facts : json::object{},
                    [&](Duration within) { return state.hour.count(batch.received, within); }
                );
                // Without a strategy an incident is worth a row, and an escalation, only when it is worth a
                // bug.
                if (!candidates.empty() || !d.bug_rule.empty()) {
                    incident.id = new_id(s_.clock);
                    incident.opened_at = s_.clock.wall();
                    incident.trigger = came_back            ? "did not hold"
                                       : candidates.empty() ? d.bug_rule
                                                            : "strategy threshold";
                    healer_.open(std::move(incident), std::move(candidates), d.bug_id);
                }
            }
        }
        ret.push_back(std::move(d));
    }
}

void Hearing::set_aliases(std::vector<sql::FingerprintDecision> decisions) {
    aliases_.clear();
    for (auto& d : decisions) {
        if (d.fingerprint != d.canonical) aliases_[d.fingerprint] = d.canonical;
    }
    // A merge into something that was merged itself ends at the last one; a ring is cut where it began.
    for (auto& [fine, canonical] : aliases_) {
        for (int hops = 0; hops < 16; ++hops) {
            const auto next = aliases_.find(canonical);
            if (next == aliases_.end() || next->second == fine) break;
            canonical = next->second;
        }
    }
}

void Hearing::accept(Batch batch, bool claim, Done done) {
    ++pending_;
    auto shared = std::make_shared<Batch>(std::move(batch));
    auto decided = std::make_shared<std::vector<Decided>>();
    auto accepted = std::make_shared<Accepted>();
    const std::string kind = kind_of(shared->source);

    auto store_job = [this, shared, decided, accepted, claim](Database& db) -> result<void> {
        if (claim && !shared->batch_key.empty()) {
            auto fresh = sql::claim_batch(db, shared->batch_key, shared->records, shared->received);
            if (!fresh) return fresh.error();
            if (!*fresh) {
                accepted->duplicate = true;
                return {};
            }
        }
        std::uint64_t collided = 0;
        for (std::size_t i = 0; i < shared->deltas.size(); ++i) {
            const auto& delta = shared->deltas[i];
            const auto& newest = delta.samples.back();
            // With a key the decisions follow the store's word, so that the rows are written without them.
            const Decided* d = i < decided->size() ? &(*decided)[i] : nullptr;
            const Severity severity = d ? d->severity : severity_of(newest, delta.count);
            auto added = sql::add_occurrences(
                db,
                {&newest,
                 delta.signature,
                 fingerprint::mechanism_version,
                 delta.count,
                 delta.first,
                 delta.last,
                 severity}
            );
            if (!added && added.error().code == errc::conflict) {
                // A crafted or unlucky collision: kept apart, counted, never healed as the other.
                ++collided;
                continue;
            }
            if (!added) return added.error();
            std::string last_id;
            for (std::size_t k = 0; k < delta.samples.size(); ++k) {
                const std::string id = d ? d->log_ids[k] : new_id(s_.clock);
                const bool last = k + 1 == delta.samples.size();
                const std::uint64_t represents = last ? delta.count - (delta.samples.size() - 1) : 1;
                HEAL_TRY(sql::insert_log_entry(db, id, delta.samples[k], represents));
                last_id = id;
            }
            auto bug = sql::open_or_count_bug(
                db,
                s_.clock,
                newest,
                severity,
                d ? d->bug_rule : opens_at_once(newest),
                delta.count,
                shared->received,
                last_id
            );
            if (!bug) return bug.error();
            if (*bug && d) *d->bug_id = (*bug)->id;
            if (*bug && (*bug)->opened) s_.metrics.add("heald_bugs_opened_total");
        }
        for (const auto& o : shared->offsets) {
            if (o.inode == 0)
                HEAL_TRY(sql::forget_offset(db, o.source));
            else
                HEAL_TRY(sql::save_offset(
                    db, {o.source, o.device, o.inode, o.offset, o.head_hash}, shared->received
                ));
        }
        if (collided > 0)
            s_.metrics.add("heald_fingerprint_collisions_total", {}, static_cast<double>(collided));
        const auto& b = *shared;
        return sql::add_totals(
            db,
            b.source,
            {b.lines, b.records, b.below_level, b.malformed, b.truncated, b.self, b.joined, b.bytes}
        );
    };

    auto finished = [this, shared, accepted, kind, claim, done = std::move(done)](result<void> outcome) {
        --pending_;
        s_.metrics.set("heald_queue_depth", {}, static_cast<double>(pending_));
        const char* word = !outcome ? "failed" : accepted->duplicate ? "duplicate" : "stored";
        s_.metrics.add("heald_ingest_batches_total", {{"source", kind}, {"outcome", word}});
        if (outcome && !accepted->duplicate) {
            const auto& b = *shared;
            const std::pair<const char*, std::uint64_t> rows[] = {
                {"stored", b.records},
                {"below_level", b.below_level},
                {"malformed", b.malformed},
                {"self", b.self},
                {"joined", b.joined}};
            for (const auto& [name, n] : rows) {
                if (n > 0)
                    s_.metrics.add(
                        "heald_ingest_records_total",
                        {{"source", kind}, {"outcome", name}},
                        static_cast<double>(n)
                    );
            }
            if (b.truncated > 0)
                s_.metrics.add(
                    "heald_ingest_truncated_total", {{"source", kind}}, static_cast<double>(b.truncated)
                );
            if (claim) {
                const Corked corked{s_.store};
                std::vector<Decided> later;
                decide(b, later);
            }
        }
        if (!outcome)
            done(outcome.error());
        else
            done(*accepted);
    };

    // Held together while the incidents opened here have their first turn (co_spawn runs it inline on this
    // thread), so that one commit carries the lines, the incident and the intent of its first attempt.
    const Corked corked{s_.store};
    s_.store.submit(std::move(store_job), std::move(finished));
    // The rows come first in the queue; what is decided while they wait refers to them.
    if (!claim) decide(*shared, *decided);
}

boost::asio::awaitable<result<void>> Hearing::recover() {
    std::vector<sql::WindowCount> counts;
    HEAL_CO_TRY(co_await s_.store.write([&](Database& db) -> result<void> {
        auto rows = sql::load_minute_counts(db, s_.clock.wall() - std::chrono::hours{1});
        if (!rows) return rows.error();
        counts = std::move(*rows);
        return {};
    }));
    for (const auto& row : counts) state_of(row.fingerprint).hour.add(row.at, row.count);
    co_return result<void>{};
}

}  // namespace heal
