#include "service/hearing.hpp"

#include "base/id.hpp"
#include "base/log.hpp"
#include "fingerprint/fingerprint.hpp"
#include "service/cluster.hpp"
#include "service/ingest_journal.hpp"
#include "service/local_healing.hpp"
#include "service/trigger_watch.hpp"

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
    Severity severity = Severity::p2_minor;
    std::string bug_rule;  ///< why a bug would open; "" only counts an existing one
    std::string event;     ///< the open event that it belongs to; "" for none
    std::vector<std::string> log_ids;
};

SlidingCount& Hearing::hour_of(const std::string& fingerprint) {
    return hours_.touch(key_of_text(fingerprint), [this](const SlidingCount&) {
        s_.metrics.add("heald_fingerprints_evicted_total");
    });
}

void Hearing::forget_idle() {
    const Time now = s_.clock.wall();
    hours_.forget_oldest_while([&](const SlidingCount& hour) { return hour.idle(now); });
}

Hearing::Decided Hearing::decide_one(
    const Delta& delta, const Batch& batch, bool again, bool fresh, Healer& healer
) {
    const std::uint64_t uncounted = again ? 0 : delta.count;
    const auto& sample = delta.samples.back();
    const std::string& fingerprint = canonical(delta.fingerprint);
    auto& hour = hour_of(fingerprint);
    hour.add(batch.received, uncounted);
    const auto per_hour = hour.count(batch.received);
    Decided d;
    d.severity = severity_of(sample, per_hour);
    const bool is_error = sample.level >= Level::error || sample.level == Level::unknown;
    d.bug_rule = opens_at_once(sample);
    if (d.bug_rule.empty() && is_error && per_hour >= bug_threshold) d.bug_rule = "third within an hour";
    for (std::size_t k = 0; k < delta.samples.size(); ++k) d.log_ids.push_back(new_id(s_.clock));

    const Time at = trusted_time(delta.last, batch.received);
    if (s_.on_heard)
        s_.on_heard(
            sample.fingerprint.empty() ? fingerprint : sample.fingerprint,
            delta.environment,
            sample.release,
            at
        );
    TriggerWatch::Heard heard;
    if (!triggers_.empty())
        heard = triggers_.heard(delta, fingerprint, d.severity, fresh ? delta.count : 0, batch.received);
    if (heard.severity) d.severity = *heard.severity;
    d.event = healer.occurred(fingerprint, delta.environment, uncounted, at);
    if (!d.event.empty()) return d;
    const bool came_back = healer.recurred_after_healing(fingerprint, delta.environment, at);
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
    const auto about = s_.settings->targets.resolve(incident);
    incident.target = about.name;
    const auto* service = s_.service(incident.target, delta.environment);
    if (healer.is_quiet(fingerprint, delta.environment)) return d;
    auto candidates =
        s_.strategies.fitting(incident, service ? service->facts : json::object{}, [&](Duration within) {
            return heard.opens ? ~std::uint64_t{0} : hour.count(batch.received, within);
        });
    // Without a strategy an incident is worth a row, and an escalation, only when it is worth a bug.
    const bool worth = heard.governed || heard.opens ? heard.opens || came_back
                                                     : !candidates.empty() || !d.bug_rule.empty() ||
                                                           (is_error && !about.resolver.empty());
    if (!worth) return d;
    incident.id = new_id(s_.clock);
    incident.opened_at = s_.clock.wall();
    incident.trigger = came_back            ? "did not hold"
                       : heard.opens        ? heard.trigger
                       : candidates.empty() ? d.bug_rule
                                            : "strategy threshold";
    d.event = incident.id;
    healer.open(std::move(incident), std::move(candidates));
    return d;
}

void Hearing::decide(const Batch& batch, bool again, bool fresh, std::vector<Decided>& ret) {
    for (const auto& delta : batch.deltas) {
        if (!delta.decided) {
            ret.push_back(decide_one(delta, batch, again, fresh, healer_));
            continue;
        }
        // Its incident is the newer one: the one before it did not hold.
        const Time at = trusted_time(delta.last, batch.received);
        if (!delta.event.empty())
            healer_.recurred_after_healing(canonical(delta.fingerprint), delta.environment, at);
        ret.emplace_back();
    }
}

bool Hearing::is_own(const Delta& delta) const {
    Incident about;
    about.fingerprint = canonical(delta.fingerprint);
    about.service_name = delta.service_name;
    about.environment = delta.environment;
    about.record = delta.samples.back();
    about.pattern = delta.pattern;
    const auto resolved = s_.settings->targets.resolve(about);
    return resolved.resolver.empty() && local_->owns(resolved.name, delta.environment);
}

bool Hearing::concerns_own(const Batch& batch) const {
    return std::any_of(batch.deltas.begin(), batch.deltas.end(), [this](const Delta& d) {
        return is_own(d);
    });
}

void Hearing::decide_alone(Batch& batch, bool again) {
    for (auto& delta : batch.deltas) {
        Healer* healer = local_->healer();
        if (!healer) return;  // it hands over: the shared store is back
        if (!is_own(delta)) continue;
        // What was under way here when the store went away goes on for as long as the lease lasts.
        const std::string& fingerprint = canonical(delta.fingerprint);
        if (s_.cluster->holds() && healer_.is_open(fingerprint, delta.environment)) {
            const Time at = trusted_time(delta.last, batch.received);
            const std::uint64_t uncounted = again ? 0 : delta.count;
            delta.event = healer_.occurred(fingerprint, delta.environment, uncounted, at);
            delta.decided = true;
            continue;
        }
        delta.event = decide_one(delta, batch, again, !again, *healer).event;
        delta.decided = true;
        if (!delta.event.empty()) local_->noted();
    }
}

const std::string& Hearing::canonical(const std::string& fingerprint) const {
    const auto alias = aliases_.find(fingerprint);
    return alias == aliases_.end() ? fingerprint : alias->second;
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

void Hearing::accept(Batch batch, bool again, Done done) {
    ++pending_;
    auto shared = std::make_shared<Batch>(std::move(batch));
    auto finished = [this, shared, done = std::move(done)](result<Accepted> outcome) {
        --pending_;
        s_.metrics.set("heald_queue_depth", {}, static_cast<double>(pending_));
        count(*shared, !outcome ? "failed" : outcome->duplicate ? "duplicate" : "stored");
        done(std::move(outcome));
    };
    if (shared->batch_key.empty()) return store_batch(shared, again, std::move(finished));

    // A repeated delivery must neither count nor decide again; one that comes while the first is on its way
    // shares its outcome.
    const std::string key = shared->batch_key;
    if (const auto it = arriving_.find(key); it != arriving_.end()) {
        it->second.push_back(std::move(finished));
        return;
    }
    arriving_[key];
    auto arrived = [this, key, finished = std::move(finished)](result<Accepted> outcome) {
        auto waiting = std::move(arriving_[key]);
        arriving_.erase(key);
        result<Accepted> repeated = outcome;
        if (repeated) repeated->duplicate = true;
        finished(std::move(outcome));
        for (const auto& one : waiting) one(repeated);
    };
    auto known = std::make_shared<bool>(false);
    (s_.cluster ? s_.cluster->plain_store() : s_.store)
        .submit(
            [known, key](Database& db) -> result<void> {
                auto found = sql::batch_known(db, key);
                if (!found) return found.error();
                *known = *found;
                return {};
            },
            [this, shared, again, known, arrived = std::move(arrived)](result<void> asked) {
                const bool away = !asked && asked.error().code == errc::unavailable;
                if (!asked && !(away && journal_)) return arrived(asked.error());
                if (*known) return arrived(Accepted{true});
                store_batch(shared, again, arrived);
            }
        );
}

void Hearing::store_in_cluster(std::shared_ptr<Batch> batch, Done done) {
    /// What the store knew of one kind of error, with this batch in it.
    struct Around {
        SlidingCount hour;
        std::optional<sql::HeldEvent> held;
    };
    auto around = std::make_shared<std::vector<Around>>();
    auto accepted = std::make_shared<Accepted>();
    std::vector<std::string> ids;
    for (const auto& delta : batch->deltas) ids.push_back(canonical(delta.fingerprint));
    s_.cluster->plain_store().submit(
        [this, batch, around, accepted, ids](Database& db) -> result<void> {
            around->clear();
            *accepted = Accepted{};
            std::vector<Decided> decided;
            for (std::size_t i = 0; i < ids.size(); ++i) {
                const auto& delta = batch->deltas[i];
                const auto& sample = delta.samples.back();
                auto window = sql::load_window(db, ids[i], batch->received - std::chrono::hours{1});
                if (!window) return window.error();
                auto held = sql::load_held(db, ids[i], delta.environment);
                if (!held) return held.error();
                Around a;
                a.held = std::move(*held);
                for (const auto& row : *window) a.hour.add(row.at, row.count);
                a.hour.add(batch->received, delta.count);
                const auto per_hour = a.hour.count(batch->received);
                Decided d;
                d.severity = severity_of(sample, per_hour);
                d.event = delta.event;
                d.bug_rule = opens_at_once(sample);
                const bool is_error = sample.level >= Level::error || sample.level == Level::unknown;
                if (d.bug_rule.empty() && is_error && per_hour >= bug_threshold)
                    d.bug_rule = "third within an hour";
                for (std::size_t k = 0; k < delta.samples.size(); ++k) d.log_ids.push_back(new_id(s_.clock));
                decided.push_back(std::move(d));
                around->push_back(std::move(a));
            }
            return store_rows(db, *batch, decided, *accepted);
        },
        [this, batch, around, accepted, ids, done = std::move(done)](result<void> outcome) {
            if (!outcome) return done(outcome.error());
            tell_opened(*accepted);
            if (!accepted->duplicate) {
                // Not lost while this node is no member: decided as soon as it is one again.
                s_.cluster->when_member([this, batch, around, ids] {
                    for (std::size_t i = 0; i < ids.size(); ++i) {
                        const auto& delta = batch->deltas[i];
                        auto& known = (*around)[i];
                        hour_of(ids[i]) = known.hour;
                        if (known.held && known.held->id != delta.event) healer_.learn_held(*known.held);
                        if (delta.decided) continue;
                        const std::string event = healer_.occurred(
                            ids[i], delta.environment, delta.count, trusted_time(delta.last, batch->received)
                        );
                        if (event.empty()) continue;
                        s_.store.keep(
                            [event, count = delta.count, at = batch->received](Database& db) {
                                return sql::hear_for_event(db, event, count, "", at);
                            },
                            [](result<void>) {}
                        );
                    }
                    std::vector<Decided> later;
                    decide(*batch, true, true, later);
                });
            }
            done(*accepted);
        }
    );
}

void Hearing::replay(Batch batch, std::function<void(result<void>)> done) {
    store_in_cluster(
        std::make_shared<Batch>(std::move(batch)),
        [done = std::move(done)](result<Accepted> outcome) {
            if (!outcome) return done(outcome.error());
            done({});
        }
    );
}

void Hearing::store_batch(std::shared_ptr<Batch> batch, bool again, Done done) {
    if (s_.cluster && journal_) {
        const auto journal = [this, batch, again, done] {
            if (local_) decide_alone(*batch, again);
            journal_->append(batch, [done](result<void> kept) {
                if (!kept) return done(kept.error());
                done(Accepted{});
            });
        };
        if (journal_->waiting() || (local_ && local_->busy() && concerns_own(*batch))) return journal();
        return store_in_cluster(batch, [done, journal](result<Accepted> outcome) {
            // errc::denied: this node was taken for lost and joins again.
            if (!outcome &&
                (outcome.error().code == errc::unavailable || outcome.error().code == errc::denied))
                return journal();
            done(std::move(outcome));
        });
    }
    if (s_.cluster) return store_in_cluster(std::move(batch), std::move(done));
    auto decided = std::make_shared<std::vector<Decided>>();
    auto accepted = std::make_shared<Accepted>();
    // Held together while the incidents opened here have their first turn (co_spawn runs it inline on this
    // thread). An intent that comes of it overtakes the rows of the batch (docs/adr/0010-intent-first.md).
    const Corked corked{s_.store};
    decide(*batch, again, !again, *decided);
    s_.store.submit(
        [this, batch, decided, accepted](Database& db) {
            return store_rows(db, *batch, *decided, *accepted);
        },
        [this, accepted, done = std::move(done)](result<void> outcome) {
            if (!outcome) return done(outcome.error());
            tell_opened(*accepted);
            done(*accepted);
        }
    );
}

void Hearing::tell_opened(const Accepted& accepted) const {
    if (!bug_opened_) return;
    for (const auto& [bug, severity] : accepted.opened) bug_opened_(bug, severity);
}

result<void> Hearing::store_rows(
    Database& db, const Batch& batch, const std::vector<Decided>& decided, Accepted& ret_accepted
) {
    ret_accepted.opened.clear();  // a job of the store may run twice
    if (!batch.batch_key.empty()) {
        auto fresh = sql::claim_batch(db, batch.batch_key, batch.records, batch.received);
        if (!fresh) return fresh.error();
        if (!*fresh) {
            ret_accepted.duplicate = true;
            return {};
        }
    }
    // Table by table: rows of one statement in a row go to PostgreSQL together.
    std::uint64_t collided = 0;
    std::vector<sql::Occurrences> occurrences;
    for (std::size_t i = 0; i < batch.deltas.size(); ++i) {
        const auto& delta = batch.deltas[i];
        occurrences.push_back(
            {&delta.samples.back(),
             delta.signature,
             fingerprint::mechanism_version,
             delta.count,
             delta.first,
             delta.last,
             decided[i].severity}
        );
    }
    const auto added = sql::add_occurrences(db, occurrences);
    if (!added) return added.error();
    std::vector<std::size_t> kinds;
    for (std::size_t i = 0; i < added->size(); ++i) {
        if ((*added)[i])
            kinds.push_back(i);
        else
            ++collided;  // crafted or unlucky: kept apart, counted, never healed as the other
    }
    for (const std::size_t i : kinds) {
        const auto& delta = batch.deltas[i];
        for (std::size_t k = 0; k < delta.samples.size(); ++k) {
            const bool last = k + 1 == delta.samples.size();
            const std::uint64_t represents = last ? delta.count - (delta.samples.size() - 1) : 1;
            HEAL_TRY(sql::insert_log_entry(db, decided[i].log_ids[k], delta.samples[k], represents));
        }
    }
    for (const std::size_t i : kinds) {
        const auto& delta = batch.deltas[i];
        const auto& d = decided[i];
        auto bug = sql::open_or_count_bug(
            db,
            s_.clock,
            delta.samples.back(),
            d.severity,
            d.bug_rule,
            delta.count,
            batch.received,
            d.log_ids.back()
        );
        if (!bug) return bug.error();
        if (*bug && (*bug)->opened) {
            s_.metrics.add("heald_bugs_opened_total");
            ret_accepted.opened.emplace_back((*bug)->id, d.severity);
        }
        if (!d.event.empty()) {
            const std::string bug_id = *bug ? (*bug)->id : std::string{};
            HEAL_TRY(sql::hear_for_event(db, d.event, delta.count, bug_id, batch.received));
        }
    }
    for (const auto& o : batch.offsets) {
        if (o.inode == 0)
            HEAL_TRY(sql::forget_offset(db, o.source));
        else
            HEAL_TRY(
                sql::save_offset(db, {o.source, o.device, o.inode, o.offset, o.head_hash}, batch.received)
            );
    }
    if (collided > 0) s_.metrics.add("heald_fingerprint_collisions_total", {}, static_cast<double>(collided));
    return sql::add_totals(
        db,
        batch.source,
        {batch.lines,
         batch.records,
         batch.below_level,
         batch.malformed,
         batch.truncated,
         batch.self,
         batch.joined,
         batch.bytes}
    );
}

void Hearing::count(const Batch& batch, const char* outcome) {
    const std::string kind = kind_of(batch.source);
    s_.metrics.add("heald_ingest_batches_total", {{"source", kind}, {"outcome", outcome}});
    if (std::string_view{outcome} != "stored") return;
    const std::pair<const char*, std::uint64_t> rows[] = {
        {"stored", batch.records},
        {"below_level", batch.below_level},
        {"malformed", batch.malformed},
        {"self", batch.self},
        {"joined", batch.joined}};
    for (const auto& [name, n] : rows) {
        if (n > 0)
            s_.metrics.add(
                "heald_ingest_records_total", {{"source", kind}, {"outcome", name}}, static_cast<double>(n)
            );
    }
    if (batch.truncated > 0)
        s_.metrics.add(
            "heald_ingest_truncated_total", {{"source", kind}}, static_cast<double>(batch.truncated)
        );
}

boost::asio::awaitable<result<void>> Hearing::recover() {
    std::vector<sql::WindowCount> counts;
    HEAL_CO_TRY(co_await s_.store.write([&](Database& db) -> result<void> {
        auto rows = sql::load_minute_counts(db, s_.clock.wall() - std::chrono::hours{1});
        if (!rows) return rows.error();
        counts = std::move(*rows);
        return {};
    }));
    for (const auto& row : counts) hour_of(row.fingerprint).add(row.at, row.count);
    co_return result<void>{};
}

}  // namespace heal
