#include "core/replay.hpp"

#include "core/decision.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace heal {

using namespace std::chrono_literals;

namespace {
constexpr std::size_t windows_kept = 100'000;  // as in a running heald
constexpr Duration history_kept = 26h, longest_quiet = 1h;

std::string key_of(const Incident& in) { return in.fingerprint + '\x1f' + in.environment; }
}  // namespace

struct Replay::Run {
    explicit Run(Incident in) : incident(std::move(in)) {}
    Incident incident;
    std::optional<HealingMachine> machine;
    std::string attempt;
    Outcome last = Outcome::unknown;
    unsigned generation = 1, attempts = 0;
};

Replay::Replay(ReplayWorld world, ReplayOracle& oracle, Say say)
    : world_(std::move(world)),
      oracle_(oracle),
      say_(std::move(say)),
      triggers_(world_.triggers),
      hours_(windows_kept) {
    std::vector<const Matcher*> matchers;
    for (const auto& s : world_.strategies) matchers.push_back(&s.matcher);
    index_.build(matchers);
}
Replay::~Replay() = default;

const ReplayService* Replay::service(const std::string& name) const {
    const auto it = std::find_if(world_.services.begin(), world_.services.end(), [&](const ReplayService& s) {
        return s.name == name;
    });
    return it == world_.services.end() ? nullptr : &*it;
}

void Replay::tell(const Run& run, const std::string& text) {
    if (say_) say_(now_, fmt::format("{} {}: {}", run.incident.id, run.incident.target, text));
}

void Replay::later(const std::shared_ptr<Run>& run, Duration after, HealingInput input, unsigned generation) {
    due_.push({now_ + std::max<Duration>(after, 0us), ++order_, run, std::move(input), generation});
}

void Replay::hear(const Incident& sample, std::uint64_t count, Time at) {
    advance(at);
    totals_.heard += count;
    auto& hour = hours_.touch(key_of_text(sample.fingerprint), [](const SlidingCount&) {});
    hour.add(at, count);
    const auto per_hour = hour.count(at);
    const auto& record = sample.record;
    const auto severity = severity_of(record, per_hour);
    const bool is_error = record.level >= Level::error || record.level == Level::unknown;
    std::string bug = opens_at_once(record);
    if (bug.empty() && is_error && per_hour >= bug_threshold) bug = "third within an hour";
    Triggers::Answer heard;
    if (!triggers_.empty()) {
        Observation seen;
        seen.incident = &sample;
        seen.count = count;
        seen.severity = severity;
        seen.is_new = per_hour == count;
        heard = triggers_.observe(seen, at);
        std::erase_if(heard.fired, [](const Fired& f) { return f.cleared; });
    }
    const auto key = key_of(sample);
    if (const auto run = runs_.find(key); run != runs_.end()) {
        run->second->incident.count += count;
        const auto kept = run->second;
        return step(kept, input::Recurred{at});
    }
    bool came_back = false;
    if (const auto held = held_.find(key); held != held_.end()) {
        came_back = at < held->second.second;
        if (came_back) {
            book_.correct(held->second.first, sample.fingerprint, sample.service_name, at);
            ++totals_.ends["did_not_hold"];
        }
        held_.erase(held);
    }
    if (const auto quiet = quiet_.find(key); quiet != quiet_.end() && quiet->second.until > at) return;
    Incident in = sample;
    in.severity = severity;
    in.target = world_.targets.resolve(in).name;
    const bool opens = !heard.fired.empty();
    auto candidates = fitting(in, opens, &hour);
    const bool worth = heard.governed || opens ? opens || came_back : !candidates.empty() || !bug.empty();
    if (!worth) return;
    in.trigger = came_back            ? "did not hold"
                 : opens              ? heard.fired[0].trigger + ": " + heard.fired[0].reason
                 : candidates.empty() ? bug
                                      : "strategy threshold";
    in.count = count;
    in.opened_at = in.first_at = in.last_at = at;
    open(std::move(in), std::move(candidates));
}

std::vector<Candidate> Replay::fitting(const Incident& in, bool triggered, const SlidingCount* hour) const {
    const auto* known = service(in.target);
    static const json::object nothing;
    std::vector<Candidate> candidates;
    std::vector<std::size_t> potential;
    index_.potential(in, potential);
    for (const auto id : potential) {
        const auto& s = world_.strategies[id];
        const auto threshold = s.matcher.fits(in, known ? known->facts : nothing);
        if (!threshold || (!triggered && hour->count(now_, threshold->window) < threshold->count)) continue;
        Candidate c;
        c.info = s.info;
        c.priority = s.priority;
        c.autonomy = s.autonomy;
        c.floor = s.floor;
        c.prior = s.info.confidence;
        c.verify = s.verify;
        c.learned = book_.learned(c.info.name, in.fingerprint, in.service_name, now_);
        candidates.push_back(std::move(c));
    }
    return candidates;
}

void Replay::open(Incident in, std::vector<Candidate> candidates) {
    in.id = fmt::format("#{}", ++totals_.incidents);
    ++totals_.incidents_of[in.service_name];
    episodes_.opened(in.target, now_);
    if (service(in.target)) storm_.opened(in.target, now_, world_.limits.storm);
    ill_since_.emplace(in.target, now_);
    oracle_.opened(in.target, now_);
    const auto key = key_of(in);
    auto run = std::make_shared<Run>(std::move(in));
    apply_decision(decide(decision_input(candidates, {})), candidates);
    run->machine.emplace(std::move(candidates));
    runs_[key] = run;
    if (say_)
        tell(
            *run,
            fmt::format(
                "opened, {}, {} ({}); {} strategies fit",
                to_string(run->incident.severity),
                run->incident.trigger,
                to_valid_utf8(run->incident.record.message.substr(0, 100)),
                run->machine->candidates().size()
            )
        );
    step(run, input::Begin{});
}

void Replay::step(const std::shared_ptr<Run>& run, const HealingInput& input) {
    for (const auto& order : run->machine->step(input, now_)) perform(run, order);
}

/// Its attempt is decided: others may act on the target.
void Replay::freed(const Run& run) {
    if (run.attempt.empty()) return;
    history_.decided(run.attempt);
    for (const auto& [key, other] : runs_) {
        if (other.get() != &run && other->incident.target == run.incident.target)
            later(other, 0us, input::Freed{});
    }
}

Evidence Replay::look(const Run& run) {
    Evidence e;
    const auto well = oracle_.well(run.incident.target, now_);
    if (well ? *well : run.last == Outcome::succeeded)
        e.positive = 1;
    else
        e.negative = well || run.last == Outcome::failed ? 1 : 0;
    return e;
}

void Replay::look_around(Run& run, GuardInput& in) {
    const auto well = oracle_.well(run.incident.target, now_);
    TargetHealth health;
    if (well) {
        (*well ? health.positive : health.negative) = 1;
        auto& since = ill_since_[run.incident.target];
        if (*well) since = now_;
        if (!*well) health.ill_since = since;
    }
    in.health = health;
    in.dependencies.emplace();
    in.groups.emplace();
    const auto ill = [&](const std::string& name) {
        if (const auto known = oracle_.well(name, now_)) return !*known;
        return std::any_of(runs_.begin(), runs_.end(), [&](const auto& other) {
            return other.second->incident.target == name;
        });
    };
    if (const auto* own = service(run.incident.target)) {
        for (const auto& name : own->depends_on)
            in.dependencies->push_back({name, !ill(name), ill(name) ? "it is ill" : ""});
    }
    for (const auto& group : world_.groups) {
        const auto& names = group.services;
        if (std::find(names.begin(), names.end(), run.incident.target) == names.end()) continue;
        GroupHealth g{group.name, static_cast<unsigned>(names.size()), group.minimum, 0, 0};
        for (const auto& name : names) {
            if (name == run.incident.target) continue;
            const bool acting =
                std::any_of(history_.facts().begin(), history_.facts().end(), [&](const AttemptFact& f) {
                    return !f.ended && f.target == name;
                });
            g.acting += acting;
            g.healthy += !acting && !ill(name);
        }
        in.groups->push_back(std::move(g));
    }
}

HealingInput Replay::consider(Run& run, const order::Consider& o) {
    const auto& c = run.machine->candidates()[o.index];
    static const std::vector<Hold> no_holds;
    GuardInput in;
    in.incident = &run.incident;
    in.candidate = &c;
    in.limits = &world_.limits;
    in.history = &history_;
    in.episodes = &episodes_;
    in.storm = &storm_;
    in.holds = &no_holds;
    in.windows = &world_.windows;
    in.paused = false;
    in.grants = c.info.capabilities;
    in.forbidden = &world_.forbidden;
    in.max_auto_risk = world_.max_auto_risk;
    in.attempts_of_incident = run.attempts;
    in.now = now_;
    look_around(run, in);
    const auto outcome = evaluate_guards(in);
    const auto& last = outcome.last();
    if (!outcome.allowed()) {
        ++totals_.held_back[to_string(last.guard)];
        if (say_)
            tell(
                run,
                fmt::format("'{}' is held back by {}: {}", c.info.name, to_string(last.guard), last.reason)
            );
    }
    return input::Guarded{
        outcome.allowed(), last.needs_approval, last.retry_at, last.temporary && !last.passed, last.reason};
}

void Replay::perform(const std::shared_ptr<Run>& run, const HealingOrder& order) {
    const auto& candidates = run->machine->candidates();
    if (const auto* o = std::get_if<order::Consider>(&order)) {
        later(run, 0us, consider(*run, *o));
    } else if (const auto* w = std::get_if<order::WriteIntent>(&order)) {
        const auto& c = candidates[w->index];
        ++run->attempts;
        run->attempt = fmt::format("{}.{}", run->incident.id, run->attempts);
        if (c.autonomy != Autonomy::shadow) {
            ++totals_.actions;
            ++totals_.actions_of[c.info.name];
            history_.started(
                {run->attempt,
                 run->incident.id,
                 run->incident.fingerprint,
                 run->incident.target,
                 c.info.name,
                 now_,
                 {},
                 run->incident.service_name,
                 c.info.risk,
                 FactResult::none,
                 c.info.build,
                 true}
            );
        }
        later(run, 0us, input::IntentStored{});
    } else if (const auto* x = std::get_if<order::Execute>(&order)) {
        const auto& c = candidates[x->index];
        if (c.autonomy == Autonomy::shadow) {
            if (say_) tell(*run, fmt::format("'{}' would act (shadow)", c.info.name));
            return later(run, 0us, input::Executed{Outcome::declined, "dry run, nothing was done"});
        }
        const auto played = oracle_.play(run->incident, c.info.name, now_);
        run->last = played.outcome;
        if (say_)
            tell(
                *run,
                fmt::format(
                    "'{}' acts (priority {}, confidence {:.3f}): {} after {} ms",
                    c.info.name,
                    c.priority,
                    c.confidence,
                    to_string(played.outcome),
                    played.took.count() / 1000
                )
            );
        later(run, played.took, input::Executed{played.outcome, to_string(played.outcome)});
    } else if (std::holds_alternative<order::Check>(order)) {
        later(run, 1ms, input::Checked{look(*run)});
    } else if (std::holds_alternative<order::Look>(order)) {
        ++run->generation;  // a wait is over
        later(run, 1ms, input::Looked{look(*run), false});
    } else if (const auto* t = std::get_if<order::Wait>(&order)) {
        later(run, t->duration, input::Timer{}, ++run->generation);
    } else if (std::holds_alternative<order::Undo>(order)) {
        later(run, 1ms, input::Undone{true, ""});
    } else if (const auto* v = std::get_if<order::Verified>(&order)) {
        const auto& name = candidates[v->index].info.name;
        const bool good = v->verdict == "succeeded";
        if (good || v->verdict == "failed") {
            book_.record(name, run->incident.fingerprint, run->incident.service_name, good, now_);
            history_.judged(run->attempt, good ? FactResult::succeeded : FactResult::failed);
        }
        if (say_) tell(*run, fmt::format("'{}' is verified: {}", name, v->verdict));
    } else if (const auto* m = std::get_if<order::Move>(&order)) {
        if (m->state == EventState::awaiting_approval) ++totals_.asked;
        if (say_ && !m->reason.empty()) tell(*run, fmt::format("{}: {}", to_string(m->state), m->reason));
    } else if (const auto* f = std::get_if<order::Finish>(&order)) {
        finish(*run, *f);
    }
}

void Replay::finish(Run& run, const order::Finish& o) {
    freed(run);
    ++totals_.ends[to_string(o.state)];
    if (say_) tell(run, fmt::format("{}: {}", to_string(o.state), o.reason));
    const auto key = key_of(run.incident);
    episodes_.closed(run.incident.target, now_);
    if (o.state == EventState::healed) {
        quiet_.erase(key);
        const auto& all = run.machine->candidates();
        const auto healer = std::find_if(all.begin(), all.end(), [&](const Candidate& c) {
            return o.reason == fmt::format("healed by '{}'", c.info.name);
        });
        if (healer != all.end() && healer->verify.hold.count() > 0)
            held_[key] = {healer->info.name, now_ + healer->verify.hold};
    } else if (o.state == EventState::escalated || o.state == EventState::suppressed) {
        auto& quiet = quiet_[key];
        const Duration base = world_.limits.cooldown;
        quiet.span = quiet.span.count() == 0 ? base : std::min<Duration>(quiet.span * 2, longest_quiet);
        quiet.until = now_ + quiet.span;
    }
    const std::string target = run.incident.target;
    runs_.erase(key);
    const bool ill = std::any_of(runs_.begin(), runs_.end(), [&](const auto& other) {
        return other.second->incident.target == target;
    });
    if (!ill) ill_since_.erase(target);
}

void Replay::advance(Time to) {
    while (!due_.empty() && due_.top().at <= to) {
        const Due due = due_.top();
        due_.pop();
        now_ = std::max(now_, due.at);
        if (due.run->machine->finished()) continue;
        if (due.generation > 0 && due.generation != due.run->generation) continue;
        if (std::holds_alternative<input::Executed>(due.input)) history_.ended(due.run->attempt, now_);
        if (std::holds_alternative<input::Undone>(due.input)) freed(*due.run);
        step(due.run, due.input);
    }
    now_ = std::max(now_, to);
    if (!triggers_.empty()) {
        for (const auto& fired : triggers_.tick(now_)) {
            if (say_)
                say_(
                    now_,
                    fmt::format(
                        "{} {}: {}", fired.trigger, fired.cleared ? "is cleared" : "fires", fired.reason
                    )
                );
            if (fired.cleared) continue;
            Incident in;
            in.fingerprint = "trigger " + fired.trigger + " " + fired.group;
            in.service_name = in.record.service_name = fired.service;
            in.environment = fired.environment;
            in.severity = fired.severity.value_or(Severity::p1_major);
            in.trigger = fired.trigger + ": " + fired.reason;
            in.record.level = Level::error;
            in.record.message = in.pattern = in.trigger;
            in.target = world_.targets.resolve(in).name;
            in.count = 1;
            in.opened_at = in.first_at = in.last_at = now_;
            if (runs_.contains(key_of(in))) continue;
            auto candidates = fitting(in, true, nullptr);
            open(std::move(in), std::move(candidates));
        }
    }
    if (now_ - swept_ > 1h) {
        swept_ = now_;
        history_.forget_before(now_ - history_kept);
        episodes_.forget_before(now_ - history_kept);
        hours_.forget_oldest_while([&](const SlidingCount& hour) { return hour.idle(now_); });
        for (auto it = held_.begin(); it != held_.end();) {
            if (it->second.second > now_) {
                ++it;
                continue;
            }
            ++totals_.ends["held"];
            it = held_.erase(it);
        }
    }
}

void Replay::finish(Duration longest) {
    const Time end = now_ + longest;
    while (!due_.empty() && due_.top().at <= end && !runs_.empty()) advance(due_.top().at);
    totals_.ends["open"] += runs_.size();
}

}  // namespace heal
