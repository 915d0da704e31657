#include "core/guards.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace heal {
namespace {

constexpr std::array<const char*, guard_count> names = {
    "kill_switch",
    "autonomy",
    "risk",
    "target_lock",
    "cooldown",
    "attempts",
    "target_rate",
    "strategy_rate",
    "global_rate"};

Verdict pass(GuardId guard) { return {guard, true, false, false, {}, {}}; }
Verdict deny(GuardId guard, std::string reason, std::optional<Time> retry_at = {}) {
    return {guard, false, false, false, std::move(reason), retry_at};
}
Verdict missing(GuardId guard, std::string reason) {
    return {guard, false, true, false, std::move(reason), {}};
}

/// At most `limit` attempts in the window; says when the oldest of them leaves it.
template <class Counts>
Verdict rate(
    GuardId guard, const GuardInput& in, unsigned limit, Duration window, const char* what, Counts counts
) {
    if (!in.history) return missing(guard, "the history of attempts could not be read");
    std::vector<Time> starts;
    for (const auto& fact : in.history->facts()) {
        if (fact.started + window > in.now && counts(fact)) starts.push_back(fact.started);
    }
    if (starts.size() < limit) return pass(guard);
    std::sort(starts.begin(), starts.end());
    std::optional<Time> retry;
    if (limit > 0) retry = starts[starts.size() - limit] + window;
    return deny(
        guard,
        fmt::format(
            "{} attempts {} within {} s, the limit is {}",
            starts.size(),
            what,
            window.count() / 1'000'000,
            limit
        ),
        retry
    );
}

Verdict evaluate(GuardId guard, const GuardInput& in) {
    const auto& candidate = *in.candidate;
    const auto& incident = *in.incident;
    switch (guard) {
        case GuardId::kill_switch:
            if (!in.paused) return missing(guard, "the kill switch could not be read");
            return *in.paused
                       ? deny(
                             guard,
                             "healing is paused: " +
                                 (in.pause_reason.empty() ? std::string{"no reason given"} : in.pause_reason)
                         )
                       : pass(guard);
        case GuardId::autonomy: {
            if (candidate.autonomy == Autonomy::off) return deny(guard, "its autonomy is off");
            if (candidate.autonomy == Autonomy::shadow) return pass(guard);
            if (candidate.autonomy == Autonomy::approve && !in.approved) {
                auto verdict = deny(guard, "its autonomy is approve and no one approved it yet");
                verdict.needs_approval = true;
                return verdict;
            }
            return pass(guard);
        }
        case GuardId::risk: {
            if (in.approved || candidate.autonomy != Autonomy::automatic ||
                candidate.info.risk <= in.max_auto_risk)
                return pass(guard);
            auto verdict = deny(
                guard,
                fmt::format(
                    "its risk is {}, by itself heald does only what is {}",
                    to_string(candidate.info.risk),
                    to_string(in.max_auto_risk)
                )
            );
            verdict.needs_approval = true;
            return verdict;
        }
        case GuardId::target_lock:
            if (!in.history) return missing(guard, "the history of attempts could not be read");
            for (const auto& fact : in.history->facts()) {
                if (!fact.ended && fact.target == incident.target && fact.event != incident.id) {
                    return deny(
                        guard,
                        fmt::format(
                            "'{}' runs on the target '{}' for event {}",
                            fact.strategy,
                            fact.target,
                            fact.event
                        )
                    );
                }
            }
            return pass(guard);
        case GuardId::cooldown: {
            if (!in.history) return missing(guard, "the history of attempts could not be read");
            std::optional<Time> until;
            for (const auto& fact : in.history->facts()) {
                if (fact.event == incident.id || fact.fingerprint != incident.fingerprint ||
                    fact.target != incident.target)
                    continue;
                const Time free = fact.ended.value_or(in.now) + in.limits->cooldown;
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
            return in.attempts_of_incident < in.limits->attempts_per_incident
                       ? pass(guard)
                       : deny(
                             guard,
                             fmt::format(
                                 "{} strategies were tried on this incident, the limit is {}",
                                 in.attempts_of_incident,
                                 in.limits->attempts_per_incident
                             )
                         );
        case GuardId::target_rate:
            return rate(
                guard,
                in,
                in.limits->target_per_hour,
                std::chrono::hours{1},
                "on this target",
                [&](const AttemptFact& f) { return f.target == incident.target; }
            );
        case GuardId::strategy_rate:
            return rate(
                guard,
                in,
                in.limits->strategy_per_hour,
                std::chrono::hours{1},
                "of this strategy",
                [&](const AttemptFact& f) { return f.strategy == candidate.info.name; }
            );
        case GuardId::global_rate:
            return rate(
                guard,
                in,
                in.limits->global_per_minute,
                std::chrono::minutes{1},
                "in all",
                [](const AttemptFact&) { return true; }
            );
    }
    return missing(guard, "unknown guard");
}

}  // namespace

const char* to_string(GuardId guard) noexcept { return names[static_cast<std::size_t>(guard)]; }

void History::started(AttemptFact fact) { facts_.push_back(std::move(fact)); }

void History::ended(const std::string& attempt, Time at) {
    const auto it = std::find_if(facts_.rbegin(), facts_.rend(), [&](const AttemptFact& f) {
        return f.attempt == attempt;
    });
    if (it != facts_.rend()) it->ended = at;
}

void History::forget_before(Time t) {
    std::erase_if(facts_, [&](const AttemptFact& f) { return f.ended && *f.ended < t && f.started < t; });
}

GuardResult evaluate_guards(const GuardInput& in) {
    GuardResult outcome;
    if (!in.incident || !in.candidate || !in.limits) {
        outcome.verdicts.push_back(
            missing(GuardId::kill_switch, "the decision has no incident, candidate or limits")
        );
        return outcome;
    }
    for (std::size_t i = 0; i < guard_count; ++i) {
        outcome.verdicts.push_back(evaluate(static_cast<GuardId>(i), in));
        if (!outcome.verdicts.back().passed) break;
    }
    return outcome;
}

void GuardCounters::count(const GuardResult& outcome) {
    for (const auto& verdict : outcome.verdicts) {
        const auto i = static_cast<std::size_t>(verdict.guard);
        ++evaluated[i];
        if (!verdict.passed) ++tripped[i];
        if (verdict.input_missing) ++input_missing[i];
    }
}

}  // namespace heal
