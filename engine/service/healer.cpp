#include "service/healer.hpp"

#include "base/log.hpp"
#include "base/tasks.hpp"
#include "core/recent.hpp"
#include "core/rules.hpp"
#include "service/healer_impl.hpp"
#include "service/trust.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

namespace heal {

using namespace std::chrono_literals;

std::string HealerImpl::occurred(
    const std::string& fingerprint, const std::string& environment, std::uint64_t count, Time at
) {
    const auto it = runs_.find(key_of(fingerprint, environment));
    if (it == runs_.end()) return {};
    auto& run = *it->second;
    run.incident.count += count;
    run.incident.last_at = std::max(run.incident.last_at, at);
    std::erase_if(run.inbox, [](const HealingInput& i) {
        return std::holds_alternative<input::Recurred>(i);
    });
    put(run, input::Recurred{at});
    return run.incident.id;
}

bool HealerImpl::recurred_after_healing(
    const std::string& fingerprint, const std::string& environment, Time at
) {
    const auto it = held_.find(key_of(fingerprint, environment));
    if (it == held_.end() || at <= it->second.healed_at) return false;
    const auto held = it->second;
    held_.erase(it);
    if (at >= held.hold_until) return false;
    const Time now = s_.clock.wall();
    book_.correct(held.healed_by, held.fingerprint, held.service, now);
    s_.trust->note_event(held.id, TrustEvidence::failed);
    excluded_[key_of(fingerprint, environment)] = held.healed_by;
    for (const auto& fact : history_.facts()) {
        if (fact.event == held.id && fact.result == FactResult::succeeded) {
            history_.judged(fact.attempt, FactResult::relapsed);
            break;
        }
    }
    s_.feed.publish(
        "end",
        {{"event", held.id},
         {"state", "did_not_hold"},
         {"reason", "the error came back within the hold window"}}
    );
    s_.metrics.add("heald_incidents_total", {{"state", "did_not_hold"}});
    submit("did_not_hold", [held, now](Database& db) -> result<void> {
        auto attempts = sql::load_attempts(db, held.id);
        if (!attempts) return attempts.error();
        for (const auto& a : *attempts) {
            if (a.verified == "succeeded") HEAL_TRY(sql::verify_attempt(db, a.id, "did_not_hold", "", now));
        }
        HEAL_TRY(sql::finish_event(
            db,
            held.id,
            {EventState::did_not_hold,
             "the error came back within the hold window",
             "auto",
             held.healed_by,
             {},
             held.hold_until},
            now
        ));
        return sql::append_audit(db, now, "heald", "event.did_not_hold", held.id, "{}");
    });
    return true;
}

bool HealerImpl::is_open(const std::string& fingerprint, const std::string& environment) const {
    return runs_.contains(key_of(fingerprint, environment));
}

bool HealerImpl::is_quiet(const std::string& fingerprint, const std::string& environment) const {
    const auto it = quiet_.find(key_of(fingerprint, environment));
    return it != quiet_.end() && it->second.until > s_.clock.wall();
}

void HealerImpl::open(Incident incident, std::vector<Candidate> candidates) {
    if (ending()) return;
    auto run = std::make_shared<Run>(s_.io, std::move(incident));
    run->unranked = std::move(candidates);
    // What heald saw by itself is about what it says.
    if (!run->incident.record.source.starts_with("heald:"))
        run->resolver = s_.settings->targets.resolve(run->incident).resolver;
    if (run->resolver.empty()) {
        episode_opened(run->incident);
        look_for_harm(run);
    }
    s_.feed.publish(
        "incident",
        {{"event", run->incident.id},
         {"fingerprint", run->incident.fingerprint},
         {"service", run->incident.service_name},
         {"environment", run->incident.environment},
         {"severity", to_string(run->incident.severity)},
         {"trigger", run->incident.trigger},
         {"message", to_valid_utf8(title_of(run->incident.record))},
         {"first_event_at", to_rfc3339(run->incident.first_at)}}
    );
    // In a cluster the row comes with the claim, which may find that another node has the incident.
    if (!s_.cluster) submit("event", store_event(*run));
    start(std::move(run));
}

void HealerImpl::set_paused(std::optional<bool> paused, std::string reason) {
    paused_ = paused;
    pause_reason_ = std::move(reason);
    if (paused_.value_or(true)) {
        for (const auto& [key, run] : runs_) {
            if (run->executing) s_.runner.cancel(run->attempt);
        }
    } else
        freed({});
}

/// Those that wait look again; "": on any target.
void HealerImpl::freed(const std::string& target) {
    if (target.empty()) {
        for (const auto& [key, run] : runs_) put(*run, input::Freed{});
    } else if (const auto it = on_target_.find(target); it != on_target_.end()) {
        for (Run* run : it->second) put(*run, input::Freed{});
    }
}

void HealerImpl::holds_changed() {
    const Time now = s_.clock.wall();
    for (const auto& [key, run] : runs_) {
        const auto& holds = s_.alone ? s_.alone->holds() : s_.holds;
        const bool stopped = !holds || std::any_of(holds->begin(), holds->end(), [&](const Hold& hold) {
            return hold.kind == HoldKind::pause &&
                   (concerns(hold, run->incident.service_name, run->call.strategy, now) ||
                    concerns(hold, run->incident.target, run->call.strategy, now));
        });
        if (stopped && run->executing) s_.runner.cancel(run->attempt);
    }
}

void HealerImpl::look_for_harm(const RunPtr& run) {
    if (s_.alone) return;  // which kinds of error are new, only the shared store knows
    const auto& in = run->incident;
    const Time now = s_.clock.wall();
    const auto* service = s_.service(in.target, in.environment);
    const auto concerned = [&](const AttemptFact& f) {
        if (f.ended.value_or(now) + harm_window < now || f.fingerprint == in.fingerprint) return false;
        return f.target == in.target ||
               (service && std::find(service->depends_on.begin(), service->depends_on.end(), f.target) !=
                               service->depends_on.end());
    };
    const auto& facts = history_.facts();
    const auto fact = std::find_if(facts.rbegin(), facts.rend(), concerned);
    if (fact == facts.rend() || in.trigger == "dependency down") return;
    const Suspect suspect{
        fact->attempt, fact->event, fact->strategy, fact->fingerprint, fact->service, fact->target};
    auto fresh = std::make_shared<bool>(false);
    s_.store.submit(
        [fresh, id = in.fingerprint, since = fact->started](Database& db) -> result<void> {
            auto first = sql::first_seen(db, id);
            if (!first) return first.error();
            *fresh = !*first || **first >= since;  // its row may follow in the next commit
            return {};
        },
        [this, fresh, run, suspect](result<void> outcome) {
            if (!outcome || !*fresh) return;
            run->suspect = suspect;
            if (run->ended) note_harm(*run, *run->ended);  // it had no strategy to try
        }
    );
}

void HealerImpl::note_harm(const Run& run, EventState end) {
    // What an action shakes for a moment (a connection that is reset) goes away by itself: no harm.
    if (!run.suspect || end == EventState::closed) return;
    harmed(
        *run.suspect,
        fmt::format(
            "a new kind of error on '{}' after it, event {}: {}",
            run.incident.target,
            run.incident.id,
            title_of(run.incident.record)
        )
    );
}

void HealerImpl::harmed(const Suspect& s, const std::string& text) {
    const Time now = s_.clock.wall();
    // Where it failed, the target was ill all along: what it logs next says nothing more about the strategy.
    const bool failed_anyway =
        std::any_of(history_.facts().begin(), history_.facts().end(), [&](const AttemptFact& f) {
            return f.attempt == s.attempt && f.result == FactResult::failed;
        });
    history_.judged(s.attempt, FactResult::failed);
    book_.correct(s.strategy, s.fingerprint, s.service, now);
    if (!failed_anyway) s_.trust->note_attempt(s.attempt, TrustEvidence::harmed);
    s_.metrics.add("heald_harm_total", {{"strategy", s.strategy}});
    s_.feed.publish(
        "harm",
        {{"event", s.event}, {"attempt", s.attempt}, {"strategy", s.strategy}, {"text", to_valid_utf8(text)}}
    );
    log::warn("'{}' did harm: {}", s.strategy, text);
    submit("harm", [s, text, now](Database& db) -> result<void> {
        HEAL_TRY(sql::set_attempt_harm(db, s.attempt, text));
        return sql::append_audit(
            db,
            now,
            "heald",
            "attempt.harm",
            s.attempt,
            json::serialize(json::object{{"text", to_valid_utf8(text)}})
        );
    });
}

/// Only what the inventory names counts for a storm: a log line can make up any other name.
void HealerImpl::episode_opened(const Incident& incident) {
    episodes_.opened(incident.target, incident.opened_at);
    if (s_.service(incident.target, incident.environment))
        storm_.opened(incident.target, incident.opened_at, s_.settings->limits.storm);
}

void HealerImpl::housekeeping() {
    const Time now = s_.clock.wall();
    if (std::exchange(unsettled_, false)) {
        s_.store.submit(
            [](Database& db) -> result<void> {
                auto settled = sql::settle_intents(db);
                if (!settled) return settled.error();
                return {};
            },
            [this](result<void> outcome) { unsettled_ = unsettled_ || !outcome; }
        );
    }
    history_.forget_before(now - history_kept);
    episodes_.forget_before(now - history_kept);
    std::erase_if(quiet_, [&](const auto& item) { return item.second.until + longest_quiet < now; });
    for (auto it = held_.begin(); it != held_.end();) {
        if (it->second.hold_until > now) {
            ++it;
            continue;
        }
        s_.trust->note_event(it->second.id, TrustEvidence::held);
        submit("held", [held = it->second, now](Database& db) {
            return sql::finish_event(
                db,
                held.id,
                {EventState::held,
                 fmt::format("healed by '{}' and held", held.healed_by),
                 "auto",
                 held.healed_by,
                 {},
                 held.hold_until},
                now
            );
        });
        it = held_.erase(it);
    }
}

asio::awaitable<void> HealerImpl::stop(std::chrono::milliseconds grace) {
    stopping_ = true;
    for (const auto& [key, run] : runs_) run->wake.cancel();
    const auto until = s_.clock.steady() + Duration{grace};
    while (acting() && s_.clock.steady() < until) co_await sleep_for(10ms);
}

/// What became of an incident is stored, however long the store is away.
void HealerImpl::submit(const char* what, Store::Job job) {
    s_.store.keep(std::move(job), [what](result<void> outcome) {
        if (!outcome) log::error("not stored ({}): {}", what, outcome.error().text);
    });
}

void HealerImpl::put(Run& run, HealingInput in) {
    run.inbox.push_back(std::move(in));
    run.wake.cancel();
}

void HealerImpl::keep_quiet(const std::string& key, Time from) {
    auto& quiet = quiet_[key];
    const Duration base = std::max<Duration>(s_.settings->limits.cooldown, Duration{0});
    quiet.span = quiet.span.count() == 0 ? base : std::min<Duration>(quiet.span * 2, longest_quiet);
    quiet.until = from + quiet.span;
}

Store::Job HealerImpl::store_event(const Run& run) {
    return [incident = run.incident](Database& db) {
        return sql::insert_event(db, incident, incident.opened_at);
    };
}

void HealerImpl::start(RunPtr run) {
    enter(run);
    begin(std::move(run));
}

void HealerImpl::describe_target(Run& run) const {
    const auto* service = s_.service(run.incident.target, run.incident.environment);
    run.target = service ? service->facts : json::object{{"name", run.incident.target}};
    run.probes = service ? service->probes : std::vector<ProbeSettings>{};
    // Where heald itself can be asked about the code behind the service.
    if (auto* code = run.target.if_contains("code"); code && code->is_object()) {
        code->get_object()["address"] = s_.address;
        code->get_object()["url"] = "http://" + s_.address;
    }
}

void HealerImpl::enter(const RunPtr& run) {
    describe_target(*run);
    runs_[key_of(run->incident.fingerprint, run->incident.environment)] = run;
    on_target_[run->incident.target].insert(run.get());
    show_open();
}

void HealerImpl::leave(Run& run) {
    runs_.erase(key_of(run.incident.fingerprint, run.incident.environment));
    off_target(run);
    show_open();
}

void HealerImpl::off_target(Run& run) {
    const auto it = on_target_.find(run.incident.target);
    if (it == on_target_.end()) return;
    it->second.erase(&run);
    if (it->second.empty()) on_target_.erase(it);
}

void HealerImpl::aim(Run& run, const std::string& target) {
    off_target(run);
    run.incident.target = target;
    on_target_[target].insert(&run);
}

void HealerImpl::show_open() const {
    s_.metrics.set(
        s_.alone ? "heald_local_incidents_open" : "heald_incidents_open",
        {},
        static_cast<double>(runs_.size())
    );
}

bool HealerImpl::acting() const {
    return std::any_of(runs_.begin(), runs_.end(), [](const auto& r) { return r.second->executing; });
}

bool HealerImpl::may_take_back(const std::string& attempt) const {
    return std::any_of(runs_.begin(), runs_.end(), [&](const auto& r) {
        return r.second->attempt == attempt && !r.second->taken_back;
    });
}

void HealerImpl::begin(RunPtr run) {
    spawn(s_.io, drive(run), [this, run](const std::exception_ptr& error) {
        leave(*run);
        if (error) log::error("event {} ended by a defect: {}", run->incident.id, text_of(error));
    });
}

bool HealerImpl::left_alone(const Run& run) const {
    const auto& control = s_.settings->control;
    return control.percent > 0 && run.incident.severity >= control.from &&
           run.incident.trigger != "did not hold" &&
           key_of_text(run.incident.id + "control") % 100 < control.percent;
}

asio::awaitable<void> HealerImpl::drive(RunPtr run) {
    if (!run->resolver.empty()) {
        co_await resolve_target(*run);
        if (ending()) co_return;
        episode_opened(run->incident);
        look_for_harm(run);
    }
    if (s_.cluster) {
        const bool mine = co_await claimed(*run);
        if (!mine) co_return;
    }
    co_await rank_candidates(*run);
    HealingInput first = input::Begin{};
    if (run->resumed)
        first = resume_input(*run);
    else if (left_alone(*run)) {
        first = input::LeaveAlone{Duration{s_.settings->control.wait}};
        submit("control arm", [id = run->incident.id](Database& db) {
            return sql::set_event_arm(db, id, "control");
        });
    }
    run->machine.emplace(std::move(run->unranked));
    run->inbox.push_front(std::move(first));
    while (!run->machine->finished() && !ending()) {
        if (run->inbox.empty()) {
            if (run->due && *run->due <= s_.clock.steady()) {
                run->due.reset();
                run->inbox.push_back(input::Timer{});
            } else {
                run->wake.expires_after(
                    run->due ? std::max<Duration>(*run->due - s_.clock.steady(), 0us) : Duration{1h}
                );
                co_await due(run->wake);
                continue;
            }
        }
        const HealingInput in = std::move(run->inbox.front());
        run->inbox.pop_front();
        const auto orders = run->machine->step(in, s_.clock.wall());
        for (const auto& order : orders) {
            if (auto answer = co_await perform(*run, order)) run->inbox.push_front(std::move(*answer));
            if (ending()) break;
        }
    }
}

asio::awaitable<std::optional<HealingInput>> HealerImpl::perform(Run& run, const HealingOrder& order) {
    if (const auto* o = std::get_if<order::Consider>(&order)) {
        if (s_.cluster) co_await look_at_other_nodes();
        if (must_look_around(run, run.machine->candidates()[o->index])) co_await look_around(run);
        co_return consider(run, *o);
    }
    if (std::holds_alternative<order::Look>(order)) {
        run.due.reset();  // a wait is over
        co_return co_await look(run);
    }
    if (const auto* o = std::get_if<order::WriteIntent>(&order)) {
        const std::string name = run.machine->candidates()[o->index].info.name;
        if (run.approvals.contains(name)) {
            const auto taken = co_await take_approval(run, name);
            if (!taken) co_return input::IntentFailed{taken.error().text};
        }
        co_return co_await write_intent(run, o->index);
    }
    if (const auto* o = std::get_if<order::Execute>(&order)) co_return co_await execute(run, o->index);
    if (const auto* o = std::get_if<order::Check>(&order)) co_return co_await check(run, o->index);
    if (const auto* o = std::get_if<order::Undo>(&order)) co_return co_await undo(run, o->index);
    if (const auto* o = std::get_if<order::Wait>(&order)) run.due = s_.clock.steady() + o->duration;
    if (const auto* o = std::get_if<order::Verified>(&order)) {
        verified(run, *o);
        if (!run.well_before.empty()) co_await look_for_worse(run);
    }
    if (const auto* o = std::get_if<order::Move>(&order)) move(run, *o);
    if (const auto* o = std::get_if<order::Finish>(&order)) finish(run, *o);
    co_return std::nullopt;
}

void HealerImpl::verified(Run& run, const order::Verified& o) {
    const auto& c = run.machine->candidates()[o.index];
    const Time now = s_.clock.wall();
    if (run.dry_run) return;
    if (o.verdict == "succeeded" || o.verdict == "failed") {
        book_.record(
            c.info.name, run.incident.fingerprint, run.incident.service_name, o.verdict == "succeeded", now
        );
    }
    history_.judged(
        run.attempt,
        o.verdict == "succeeded" ? FactResult::succeeded
        : o.verdict == "failed"  ? FactResult::failed
                                 : FactResult::none
    );
    const auto key = key_of(run.incident.fingerprint, run.incident.environment);
    if (o.verdict == "failed")
        excluded_[key] = c.info.name;
    else if (o.verdict == "succeeded")
        excluded_.erase(key);
    const bool nothing_to_hold = o.verdict == "succeeded" && c.verify.hold.count() <= 0;
    if (o.verdict == "failed" || nothing_to_hold)
        s_.trust->note(
            c.info.name,
            error_class(run.incident.record),
            nothing_to_hold ? TrustEvidence::held : TrustEvidence::failed
        );
    submit(
        "verification",
        [id = run.attempt, verdict = o.verdict, evidence = json::serialize(run.evidence.items), now](
            Database& db
        ) { return sql::verify_attempt(db, id, verdict, evidence, now); }
    );
}

void HealerImpl::move(Run& run, const order::Move& o) {
    explain(run);
    submit("state", [id = run.incident.id, o, now = s_.clock.wall()](Database& db) {
        return sql::move_event(db, id, o.state, o.reason, now);
    });
    s_.feed.publish(
        "state",
        {{"event", run.incident.id}, {"state", to_string(o.state)}, {"reason", to_valid_utf8(o.reason)}}
    );
    if (o.state == EventState::awaiting_approval) ask_people(run);
}

void HealerImpl::finish(Run& run, const order::Finish& o) {
    const Time now = s_.clock.wall();
    sql::EventEnd end;
    end.state = o.state;
    end.reason = o.reason;
    const bool healed = o.state == EventState::healed;
    const auto key = key_of(run.incident.fingerprint, run.incident.environment);
    if (healed) {
        const auto& candidates = run.machine->candidates();
        const auto it = std::find_if(candidates.begin(), candidates.end(), [&](const Candidate& c) {
            return c.info.name == run.call.strategy;
        });
        end.resolution = run.approver.empty() ? "auto" : "approved";
        end.healed_by = run.call.strategy;
        end.healed_at = run.machine->healthy_since().value_or(now);
        const Duration hold = it == candidates.end() ? s_.settings->verify.hold : it->verify.hold;
        end.hold_until = *end.healed_at + hold;
        if (hold.count() > 0) {
            held_[key] = {
                run.incident.id,
                run.incident.fingerprint,
                run.incident.environment,
                run.incident.service_name,
                end.healed_by,
                *end.healed_at,
                *end.hold_until};
        }
        quiet_.erase(key);
        s_.metrics.observe(
            "heald_time_to_heal_seconds",
            {},
            static_cast<double>((*end.healed_at - run.incident.opened_at).count()) / 1e6
        );
    } else if (o.state == EventState::closed) {
        end.resolution = "self_resolved";
    } else if (o.state == EventState::escalated || o.state == EventState::suppressed) {
        keep_quiet(key, now);
    }
    run.ended = o.state;
    note_harm(run, o.state);
    episodes_.closed(run.incident.target, end.healed_at.value_or(now));
    s_.metrics.add("heald_incidents_total", {{"state", to_string(o.state)}});
    s_.feed.publish(
        "end",
        {{"event", run.incident.id},
         {"state", to_string(o.state)},
         {"reason", to_valid_utf8(o.reason)},
         {"healed_by", end.healed_by},
         {"service", run.incident.service_name},
         {"time_to_heal_us", end.healed_at ? (*end.healed_at - run.incident.opened_at).count() : 0}}
    );
    s_.store.keep(
        [event = store_event(run), id = run.incident.id, end, decision = decision_json(run), now](Database& db
        ) -> result<void> {
            HEAL_TRY(event(db));  // a no-op unless it could not be stored before
            HEAL_TRY(sql::set_event_decision(db, id, decision, now));
            HEAL_TRY(sql::finish_event(db, id, end, now));
            return sql::append_audit(
                db,
                now,
                "heald",
                std::string{"event."} + to_string(end.state),
                id,
                json::serialize(json::object{{"reason", to_valid_utf8(end.reason)}})
            );
        },
        // The next intent on this target must not be durable before this end is.
        [this, attempt = run.attempt, target = run.incident.target](result<void> outcome) {
            if (!outcome) log::error("not stored (end of event): {}", outcome.error().text);
            history_.decided(attempt);
            if (!attempt.empty()) freed(target);
        }
    );
    if (o.state == EventState::escalated)
        log::warn("event {} of {} escalates: {}", run.incident.id, run.incident.service_name, o.reason);
    else
        log::info(
            "event {} of {}: {} ({})",
            run.incident.id,
            run.incident.service_name,
            to_string(o.state),
            o.reason
        );
}

const ServiceSettings* Shared::service(const std::string& name, const std::string& environment) const {
    const ServiceSettings* any = nullptr;
    for (const auto& s : settings->services) {
        if (s.name != name) continue;
        if (s.environment == environment) return &s;
        if (s.environment.empty()) any = &s;
    }
    return any;
}

std::unique_ptr<Healer> create_healer(Shared& shared) { return std::make_unique<HealerImpl>(shared); }

}  // namespace heal
