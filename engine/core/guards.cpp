#include "core/guards.hpp"

#include "core/matcher.hpp"

#include <fmt/format.h>

#include <algorithm>
#ifdef HEAL_GUARD_MUTANTS
#include <cstdlib>
#include <cstring>
#endif

namespace heal {
namespace {

using namespace std::chrono_literals;

struct About {
    const char* name;
    const char* purpose;
};
constexpr std::array<About, guard_count> about = {{
    {"kill_switch", "a person stopped healing: everywhere, for a service or for a strategy"},
    {"maintenance", "somebody works on the service, in a window that ends by itself"},
    {"evidence", "a target whose probes all pass is not disturbed for what a line says"},
    {"target_lock", "no action on a target before what is done there is verified or taken back"},
    {"cooldown", "an error that was just acted on gets time to go away"},
    {"attempts", "one incident does not try everything there is"},
    {"target_rate", "no target is acted on again and again"},
    {"strategy_rate", "no strategy runs again and again"},
    {"service_rate", "no service is acted on again and again"},
    {"global_rate", "heald as a whole does not run wild"},
    {"budget", "what is done within a day has a price by its risk"},
    {"blast_radius", "a group of services keeps its minimum of healthy members"},
    {"storm", "when much falls ill at once, healing one by one makes it worse; afterwards it begins slowly"},
    {"flapping", "a target that is healed and falls ill in turns needs a person"},
    {"circuit_breaker", "what failed here again and again is not tried again"},
    {"repetition", "what just failed on this error is not repeated before anything is new"},
    {"dependency", "nothing is restarted while what it depends on is down"},
    {"capability", "what the site forbids is not granted to any strategy"},
    {"risk", "only what is safe enough is done without a person"},
    {"autonomy", "how far this strategy is trusted"},
    {"change_freeze", "while changes are frozen only what is safe is done"},
}};

constexpr Duration longest_breaker = 24h;
// Where no one can know when the reason goes away; short beside what it costs to be late.
constexpr Duration look_again = 2s;
// So many lines about a target that seems healthy are worth a person's look.
constexpr std::uint64_t many_lines = 10;

Verdict pass(GuardId guard) {
    Verdict v;
    v.guard = guard;
    v.passed = true;
    return v;
}
Verdict deny(GuardId guard, std::string reason, std::optional<Time> retry_at = {}) {
    Verdict v;
    v.guard = guard;
    v.reason = std::move(reason);
    v.retry_at = retry_at;
    v.temporary = retry_at.has_value();
    return v;
}
Verdict missing(GuardId guard, std::string reason) {
    Verdict v;
    v.guard = guard;
    v.input_missing = v.temporary = true;
    v.reason = std::move(reason);
    return v;
}
Verdict ask(GuardId guard, std::string reason) {
    auto v = deny(guard, std::move(reason));
    v.needs_approval = true;
    return v;
}

const char* seconds_text(Duration window) {
    return window >= 24h ? "a day" : window >= 1h ? "an hour" : "a minute";
}

/// At most `limit` attempts in the window; says when enough of them have left it.
template <class Counts>
Verdict rate(
    GuardId guard, const GuardInput& in, unsigned limit, Duration window, const char* what, Counts counts
) {
    if (!in.history) return missing(guard, "the history of attempts could not be read");
    std::vector<Time> starts;
    const auto& facts = in.history->facts();
    for (auto it = facts.rbegin(); it != facts.rend() && it->newest + window > in.now; ++it) {
        if (it->started + window > in.now && counts(*it)) starts.push_back(it->started);
    }
    if (starts.size() < limit) return pass(guard);
    std::sort(starts.begin(), starts.end());
    std::optional<Time> retry;
    if (limit > 0) retry = starts[starts.size() - limit] + window;
    return deny(
        guard,
        fmt::format(
            "{} attempts {} within {}, the limit is {}", starts.size(), what, seconds_text(window), limit
        ),
        retry
    );
}

const Hold* holding(const GuardInput& in, HoldKind kind) {
    const Hold* found = nullptr;
    for (const auto& hold : *in.holds) {
        // Whoever reported it: what is set for the target counts too.
        if (hold.kind != kind ||
            (!concerns(hold, in.incident->service_name, in.candidate->info.name, in.now) &&
             !concerns(hold, in.incident->target, in.candidate->info.name, in.now)))
            continue;
        // The one that lasts longest says when to ask again.
        if (!found || !hold.ends || (found->ends && *hold.ends > *found->ends)) found = &hold;
        if (!found->ends) break;
    }
    return found;
}

std::string words(const Hold& hold) {
    std::string scope = hold.scope == HoldScope::all
                            ? std::string{}
                            : fmt::format(" for the {} '{}'", to_string(hold.scope), hold.name);
    return fmt::format(
        "{}{}{}{}",
        scope,
        hold.ends ? " until " + to_rfc3339(*hold.ends) : std::string{},
        hold.reason.empty() ? ": no reason given" : ": " + hold.reason,
        hold.actor.empty() ? "" : " (by " + hold.actor + ")"
    );
}

/// A hold of the store or a window of the configuration; the later end counts.
Verdict held(GuardId guard, const GuardInput& in, HoldKind kind, const char* what) {
    if (!in.holds || !in.windows) return missing(guard, "the windows could not be read");
    if (const auto* hold = holding(in, kind)) {
        auto v = deny(guard, what + words(*hold), hold->ends);
        v.temporary = true;
        return v;
    }
    for (const auto& rule : *in.windows) {
        if (rule.kind != kind) continue;
        auto until = open_until(rule, in.incident->service_name, in.now);
        if (const auto other = open_until(rule, in.incident->target, in.now); other && other > until)
            until = other;
        if (until) {
            return deny(
                guard,
                fmt::format(
                    "{} until {}{}{}", what, to_rfc3339(*until), rule.reason.empty() ? "" : ": ", rule.reason
                ),
                until
            );
        }
    }
    return pass(guard);
}

Verdict circuit_breaker(GuardId guard, const GuardInput& in) {
    if (!in.history) return missing(guard, "the history of attempts could not be read");
    if (in.limits->breaker_failures == 0) return pass(guard);
    unsigned failures = 0;
    Time last;
    for (const auto* fact : in.history->of(in.candidate->info.name, in.incident->target)) {
        if (fact->result == FactResult::none) continue;
        const Time at = fact->ended.value_or(fact->started);
        // A stable run makes up for what went wrong before it.
        if (fact->result == FactResult::succeeded || (failures > 0 && at - last >= in.limits->stable_for))
            failures = 0;
        if (fact->result != FactResult::succeeded) ++failures, last = at;
    }
    if (failures < in.limits->breaker_failures || in.now - last >= in.limits->stable_for) return pass(guard);
    const unsigned doubled = std::min(failures - in.limits->breaker_failures, 10U);
    const Time until =
        last + std::min<Duration>(Duration{in.limits->breaker_pause} * (1U << doubled), longest_breaker);
    if (until <= in.now) return pass(guard);  // half open: one may try
    return deny(
        guard,
        fmt::format(
            "it failed {} times in a row on '{}'; it may try again at {}",
            failures,
            in.incident->target,
            to_rfc3339(until)
        ),
        until
    );
}

/// New is: another build of the strategy, something on this target that helped since, or a long time.
Verdict repetition(GuardId guard, const GuardInput& in) {
    if (!in.history) return missing(guard, "the history of attempts could not be read");
    const AttemptFact* last = nullptr;
    const auto& facts = in.history->on(in.incident->target);
    for (auto it = facts.rbegin(); it != facts.rend(); ++it) {
        const AttemptFact& fact = **it;
        if (fact.result == FactResult::succeeded || fact.result == FactResult::relapsed) break;
        if (fact.result != FactResult::failed || fact.fingerprint != in.incident->fingerprint) continue;
        last = &fact;
        break;
    }
    if (!last || last->strategy != in.candidate->info.name || last->build != in.candidate->info.build ||
        last->ended.value_or(last->started) + in.limits->repeat_after <= in.now || in.approved)
        return pass(guard);
    auto verdict =
        ask(guard,
            fmt::format(
                "it was the last that failed on this error, at {}, and nothing is new since",
                to_rfc3339(last->ended.value_or(last->started))
            ));
    verdict.retry_at = last->ended.value_or(last->started) + in.limits->repeat_after;
    return verdict;
}

Verdict storm(GuardId guard, const GuardInput& in) {
    if ((!in.storm && !in.storm_state) || !in.history)
        return missing(guard, "how much fell ill could not be read");
    const auto s = in.storm_state ? *in.storm_state : in.storm->state(in.now, in.limits->storm);
    if (s.on)
        return deny(
            guard, fmt::format("{} targets fell ill within a short time: a storm", s.targets), s.until
        );
    if (s.cooling) return deny(guard, "the storm is over, what it shook may still be settling", s.until);
    if (s.at_once) {
        const auto running =
            std::count_if(in.history->facts().begin(), in.history->facts().end(), [](const AttemptFact& f) {
                return !f.ended;
            });
        if (static_cast<unsigned>(running) >= *s.at_once)
            return deny(
                guard,
                fmt::format("after the storm only {} at once, {} run", *s.at_once, running),
                std::min(s.until.value_or(in.now + look_again), in.now + look_again)
            );
    }
    return pass(guard);
}

Verdict evaluate(GuardId guard, const GuardInput& in) {
    const auto& candidate = *in.candidate;
    const auto& incident = *in.incident;
    const auto& limits = *in.limits;
    switch (guard) {
        case GuardId::kill_switch: {
            if (!in.paused || !in.holds) return missing(guard, "the kill switch could not be read");
            auto verdict = pass(guard);
            if (*in.paused) {
                verdict = deny(
                    guard,
                    "healing is paused: " +
                        (in.pause_reason.empty() ? std::string{"no reason given"} : in.pause_reason)
                );
            } else if (const auto* hold = holding(in, HoldKind::pause))
                verdict = deny(guard, "healing is paused" + words(*hold), hold->ends);
            verdict.temporary = !verdict.passed;
            return verdict;
        }
        case GuardId::maintenance:
            return held(guard, in, HoldKind::maintenance, "maintenance");
        case GuardId::evidence: {
            if (candidate.info.risk == Risk::safe || in.approved) return pass(guard);
            if (!in.health) return missing(guard, "the target could not be looked at");
            const bool healthy = in.health->positive > 0 && in.health->negative == 0;
            if (in.health->negative > 0 && in.now - in.health->ill_since.value_or(in.now) < limits.confirm) {
                // A process that is being replaced is gone for a moment too.
                const Time sure = in.health->ill_since.value_or(in.now) + limits.confirm;
                return deny(
                    guard,
                    fmt::format("'{}' looks ill; it must for {} ms", incident.target, limits.confirm.count()),
                    sure
                );
            }
            if (!healthy || (limits.healthy_acts > 0 && incident.count >= limits.healthy_acts))
                return pass(guard);
            auto verdict =
                deny(guard, fmt::format("all {} probes of '{}' pass", in.health->positive, incident.target));
            verdict.temporary = true;
            if (incident.count >= many_lines) {
                verdict.needs_approval = true;
                verdict.reason += fmt::format(", though it was said {} times", incident.count);
                verdict.retry_at = in.now + look_again;
            }
            return verdict;
        }
        case GuardId::target_lock:
            if (!in.history) return missing(guard, "the history of attempts could not be read");
            for (const auto& known : in.history->on(incident.target)) {
                const AttemptFact& fact = *known;
                if ((!fact.ended || fact.undecided) && fact.event != incident.id) {
                    auto verdict = deny(
                        guard,
                        fmt::format(
                            "'{}' {} on the target '{}' for event {}",
                            fact.strategy,
                            fact.ended ? "is not decided" : "runs",
                            fact.target,
                            fact.event
                        )
                    );
                    verdict.temporary = true;
                    return verdict;
                }
            }
            return pass(guard);
        case GuardId::cooldown: {
            if (!in.history) return missing(guard, "the history of attempts could not be read");
            std::optional<Time> until;
            for (const auto& fact : in.history->on(incident.target)) {
                if (fact->event == incident.id || fact->fingerprint != incident.fingerprint) continue;
                const Time free = fact->ended.value_or(in.now) + limits.cooldown;
                if (free > in.now) until = std::max(until.value_or(free), free);
            }
            return until ? deny(
                               guard,
                               fmt::format(
                                   "the cooldown of this error lasts {} ms more",
                                   (*until - in.now).count() / 1000 + 1
                               ),
                               until
                           )
                         : pass(guard);
        }
        case GuardId::attempts:
            return in.attempts_of_incident < limits.attempts_per_incident
                       ? pass(guard)
                       : deny(
                             guard,
                             fmt::format(
                                 "{} strategies were tried on this incident, the limit is {}",
                                 in.attempts_of_incident,
                                 limits.attempts_per_incident
                             )
                         );
        case GuardId::target_rate:
            return rate(guard, in, limits.target_per_hour, 1h, "on this target", [&](const AttemptFact& f) {
                return f.target == incident.target;
            });
        case GuardId::strategy_rate:
            return rate(
                guard,
                in,
                limits.strategy_per_hour,
                1h,
                "of this strategy",
                [&](const AttemptFact& f) { return f.strategy == candidate.info.name; }
            );
        case GuardId::service_rate:
            return rate(
                guard,
                in,
                limits.service_per_hour,
                1h,
                "for this service",
                [&](const AttemptFact& f) { return f.service == incident.service_name; }
            );
        case GuardId::global_rate:
            return rate(guard, in, limits.global_per_minute, 1min, "in all", [](const AttemptFact&) {
                return true;
            });
        case GuardId::budget: {
            if (!in.history) return missing(guard, "the history of attempts could not be read");
            const unsigned price = budget_points(candidate.info.risk);
            std::uint64_t spent = in.spent_elsewhere;
            std::optional<Time> oldest = in.spent_since;
            const auto& facts = in.history->facts();
            for (auto it = facts.rbegin(); it != facts.rend() && it->newest + 24h > in.now; ++it) {
                if (it->started + 24h <= in.now) continue;
                spent += budget_points(it->risk);
                oldest = std::min(oldest.value_or(it->started), it->started);
            }
            if (spent + price <= limits.budget_per_day) return pass(guard);
            std::optional<Time> retry;
            if (oldest && price <= limits.budget_per_day) retry = *oldest + 24h;
            return deny(
                guard,
                fmt::format(
                    "it costs {} of the budget, {} of {} points are spent within a day",
                    price,
                    spent,
                    limits.budget_per_day
                ),
                retry
            );
        }
        case GuardId::blast_radius: {
            if (!in.groups) return missing(guard, "the health of its group could not be looked at");
            if (candidate.info.risk == Risk::safe) return pass(guard);
            for (const auto& g : *in.groups) {
                if (g.healthy >= g.minimum) continue;
                return deny(
                    guard,
                    fmt::format(
                        "group '{}' has {} other healthy members of {}, {} being acted on; the minimum is {}",
                        g.name,
                        g.healthy,
                        g.members,
                        g.acting,
                        g.minimum
                    ),
                    in.now + look_again
                );
            }
            return pass(guard);
        }
        case GuardId::storm:
            return storm(guard, in);
        case GuardId::flapping: {
            if (!in.episodes) return missing(guard, "the history of the target could not be read");
            if (limits.flap_high == 0 ||
                !in.episodes->flapping(
                    incident.target, limits.flap_window, limits.flap_high, limits.flap_low, in.now
                ))
                return pass(guard);
            return ask(
                guard,
                fmt::format(
                    "'{}' is flapping: its state changes by {} %, it begins at {} % and ends below {} %",
                    incident.target,
                    in.episodes->percent(incident.target, limits.flap_window, in.now),
                    limits.flap_high,
                    limits.flap_low
                )
            );
        }
        case GuardId::circuit_breaker:
            return circuit_breaker(guard, in);
        case GuardId::repetition:
            return repetition(guard, in);
        case GuardId::dependency:
            if (!in.dependencies) return missing(guard, "what it depends on could not be looked at");
            for (const auto& d : *in.dependencies) {
                if (!d.up)
                    return deny(
                        guard,
                        fmt::format("'{}', on which it depends, is down: {}", d.name, d.text),
                        in.now + look_again
                    );
            }
            return pass(guard);
        case GuardId::capability:
            if (!in.grants || !in.forbidden) return missing(guard, "what it would be granted is not known");
            for (const auto& grant : *in.grants) {
                for (const auto& glob : *in.forbidden) {
                    if (glob_matches(glob, grant))
                        return deny(
                            guard, fmt::format("it needs '{}', which the site forbids ('{}')", grant, glob)
                        );
                }
            }
            return pass(guard);
        case GuardId::risk:
            if (in.approved || candidate.autonomy != Autonomy::automatic ||
                candidate.info.risk <= in.max_auto_risk)
                return pass(guard);
            return ask(
                guard,
                fmt::format(
                    "its risk is {}, by itself heald does only what is {}",
                    to_string(candidate.info.risk),
                    to_string(in.max_auto_risk)
                )
            );
        case GuardId::autonomy:
            if (candidate.autonomy == Autonomy::off) return deny(guard, "its autonomy is off");
            if (candidate.autonomy == Autonomy::approve && !in.approved)
                return ask(guard, "its autonomy is approve and no one approved it yet");
            return pass(guard);
        case GuardId::change_freeze:
            if (!in.holds || !in.windows) return missing(guard, "the windows could not be read");
            if (candidate.info.risk == Risk::safe) return pass(guard);
            return held(guard, in, HoldKind::freeze, "changes are frozen");
    }
    return missing(guard, "unknown guard");
}

/// What a person with a reason may override: all that protects against haste. Not the kill switch, the lock,
/// what the site forbids and what a strategy is not trusted with.
bool may_override(GuardId guard) {
    switch (guard) {
        case GuardId::kill_switch:
        case GuardId::target_lock:
        case GuardId::capability:
        case GuardId::autonomy:
            return false;
        default:
            return true;
    }
}

/// Smaller decides; see GuardResult::last().
int order_of(const Verdict& v) {
    if (v.passed) return 4;
    if (v.guard == GuardId::kill_switch || v.guard == GuardId::maintenance) return 1;
    if (v.needs_approval) return 2;
    return v.temporary ? 3 : 0;
}

#ifdef HEAL_GUARD_MUTANTS
/// Only in the binary that shows that each guard is tested: the guard that is taken out.
bool taken_out(GuardId guard) {
    const char* name = std::getenv("HEAL_GUARD_MUTANT");
    return name && std::strcmp(name, to_string(guard)) == 0;
}
#endif

}  // namespace

const char* to_string(GuardId guard) noexcept { return about[static_cast<std::size_t>(guard)].name; }
const char* purpose(GuardId guard) noexcept { return about[static_cast<std::size_t>(guard)].purpose; }

unsigned budget_points(Risk risk) noexcept {
    return risk == Risk::safe ? 1 : risk == Risk::disruptive ? 5 : 25;
}

GuardResult evaluate_guards(const GuardInput& in) {
    GuardResult outcome;
    if (!in.incident || !in.candidate || !in.limits) {
        outcome.verdicts.push_back(
            missing(GuardId::kill_switch, "the decision has no incident, candidate or limits")
        );
        return outcome;
    }
    outcome.verdicts.reserve(guard_count);
    for (std::size_t i = 0; i < guard_count; ++i) {
        const auto guard = static_cast<GuardId>(i);
        auto verdict = evaluate(guard, in);
#ifdef HEAL_GUARD_MUTANTS
        if (taken_out(guard)) verdict = pass(guard);
#endif
        if (!verdict.passed && !verdict.input_missing && in.break_glass && may_override(guard)) {
            verdict.passed = verdict.overridden = true;
        }
        outcome.verdicts.push_back(std::move(verdict));
        const auto& now = outcome.verdicts.back();
        const auto& best = outcome.verdicts[outcome.deciding];
        const bool longer = order_of(now) == 3 && order_of(best) == 3 &&
                            now.retry_at.value_or(in.now) > best.retry_at.value_or(in.now);
        if (order_of(now) < order_of(best) || longer) outcome.deciding = i;
    }
    if (outcome.last().passed) outcome.deciding = guard_count - 1;
    return outcome;
}

void GuardCounters::count(const GuardResult& outcome) {
    for (const auto& verdict : outcome.verdicts) {
        const auto i = static_cast<std::size_t>(verdict.guard);
        ++evaluated[i];
        if (!verdict.passed) ++tripped[i];
        if (verdict.input_missing) ++input_missing[i];
        if (verdict.overridden) ++overridden[i];
    }
}

}  // namespace heal
