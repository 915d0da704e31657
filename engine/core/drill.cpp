#include "core/guard_scene.hpp"

#include <algorithm>
#include <chrono>

namespace heal {
namespace {

using namespace std::chrono_literals;

/// A made-up incident on which every guard but those that the configuration closes for good lets pass.
struct Drill : GuardScene {
    Drill(const Limits& given, Time at) : GuardScene(at), now(at) {
        limits = given;
        // That many made-up attempts show as much as millions would.
        for (unsigned* limit :
             {&limits.target_per_hour,
              &limits.strategy_per_hour,
              &limits.service_per_hour,
              &limits.global_per_minute,
              &limits.budget_per_day,
              &limits.breaker_failures,
              &limits.storm.targets})
            *limit = std::min(*limit, 1000U);
        incident.id = "drill";
        incident.fingerprint = "drill-fingerprint";
        incident.service_name = incident.target = "drill-target";
        candidate.info.name = "drill-strategy";
        candidate.info.risk = Risk::disruptive;
    }
    Verdict of(GuardId guard) const {
        const auto outcome = evaluate_guards(in);
        return outcome.verdicts.size() == guard_count ? outcome.verdicts[static_cast<std::size_t>(guard)]
                                                      : outcome.last();
    }
    void attempts(unsigned n, Time at, FactResult result = FactResult::none) {
        for (unsigned i = 0; i < n; ++i) {
            AttemptFact fact{
                std::to_string(i),
                "e" + std::to_string(i),
                "other",
                "drill-target",
                "drill-strategy",
                at,
                at,
                "drill-target",
                Risk::disruptive,
                result,
                {}};
            history.started(std::move(fact));
        }
    }
    void hold(HoldKind kind) {
        holds.push_back({"h", kind, HoldScope::all, {}, "drill", "drill", now - 1s, now + 1h});
    }

    Time now;
};

/// Makes the one thing true that this guard is there for.
void provoke(GuardId guard, Drill& d) {
    switch (guard) {
        case GuardId::kill_switch:
            d.hold(HoldKind::pause);
            return;
        case GuardId::maintenance:
            d.hold(HoldKind::maintenance);
            return;
        case GuardId::change_freeze:
            d.hold(HoldKind::freeze);
            return;
        case GuardId::evidence:
            d.in.health = TargetHealth{1, 0, {}};
            d.limits.healthy_acts = 0;
            return;
        case GuardId::target_lock:
            d.history.started(
                {"a", "other event", "f", "drill-target", "s", d.now - 1s, {}, {}, {}, {}, {}, {}}
            );
            return;
        case GuardId::cooldown:
            d.history.started(
                {"a",
                 "other event",
                 "drill-fingerprint",
                 "drill-target",
                 "s",
                 d.now,
                 d.now,
                 {},
                 {},
                 {},
                 {},
                 {}}
            );
            return;
        case GuardId::attempts:
            d.in.attempts_of_incident = d.limits.attempts_per_incident;
            return;
        case GuardId::target_rate:
            d.attempts(d.limits.target_per_hour, d.now);
            return;
        case GuardId::strategy_rate:
            d.attempts(d.limits.strategy_per_hour, d.now);
            return;
        case GuardId::service_rate:
            d.attempts(d.limits.service_per_hour, d.now);
            return;
        case GuardId::global_rate:
            d.attempts(d.limits.global_per_minute, d.now);
            return;
        case GuardId::budget:
            d.attempts(d.limits.budget_per_day / budget_points(Risk::disruptive) + 1, d.now);
            return;
        case GuardId::blast_radius:
            d.in.groups = std::vector<GroupHealth>{{"drill-group", 2, 1, 0, 0}};
            return;
        case GuardId::storm:
            for (unsigned i = 0; i < d.limits.storm.targets; ++i)
                d.storm.opened(std::to_string(i), d.now, d.limits.storm);
            return;
        case GuardId::flapping:
            for (int i = 0; i < 20; ++i) {
                d.episodes.opened("drill-target", d.now - Duration{40 - 2 * i});
                d.episodes.closed("drill-target", d.now - Duration{39 - 2 * i});
            }
            return;
        case GuardId::circuit_breaker:
            d.attempts(d.limits.breaker_failures, d.now, FactResult::failed);
            return;
        case GuardId::repetition:
            d.history.started(
                {"a",
                 "other event",
                 "drill-fingerprint",
                 "drill-target",
                 "drill-strategy",
                 d.now,
                 d.now,
                 {},
                 {},
                 FactResult::failed,
                 {},
                 {}}
            );
            return;
        case GuardId::dependency:
            d.in.dependencies = std::vector<DependencyHealth>{{"drill-dependency", false, "drill"}};
            return;
        case GuardId::capability:
            d.in.grants = std::vector<std::string>{"exec:/bin/drill"};
            d.forbidden = {"exec:/bin/drill"};
            return;
        case GuardId::risk:
            d.candidate.info.risk = Risk::destructive;
            return;
        case GuardId::autonomy:
            d.candidate.autonomy = Autonomy::off;
            return;
    }
}

/// Takes the guard's input away. False: it has none that could be missing.
bool blind(GuardId guard, Drill& d) {
    switch (guard) {
        case GuardId::kill_switch:
            d.in.paused.reset();
            return true;
        case GuardId::maintenance:
        case GuardId::change_freeze:
            d.in.holds = nullptr;
            return true;
        case GuardId::target_lock:
        case GuardId::cooldown:
        case GuardId::target_rate:
        case GuardId::strategy_rate:
        case GuardId::service_rate:
        case GuardId::global_rate:
        case GuardId::budget:
        case GuardId::circuit_breaker:
        case GuardId::repetition:
            d.in.history = nullptr;
            return true;
        case GuardId::evidence:
            d.in.health.reset();
            return true;
        case GuardId::blast_radius:
            d.in.groups.reset();
            return true;
        case GuardId::storm:
            d.in.storm = nullptr;
            return true;
        case GuardId::flapping:
            d.in.episodes = nullptr;
            return true;
        case GuardId::dependency:
            d.in.dependencies.reset();
            return true;
        case GuardId::capability:
            d.in.grants.reset();
            return true;
        case GuardId::attempts:
        case GuardId::risk:
        case GuardId::autonomy:
            return false;
    }
    return false;
}

/// A limit so low that nothing ever passes: then it must deny at rest too.
bool forbids_all(GuardId guard, const Limits& limits) {
    switch (guard) {
        case GuardId::target_rate:
            return limits.target_per_hour == 0;
        case GuardId::strategy_rate:
            return limits.strategy_per_hour == 0;
        case GuardId::service_rate:
            return limits.service_per_hour == 0;
        case GuardId::global_rate:
            return limits.global_per_minute == 0;
        case GuardId::budget:
            return limits.budget_per_day < budget_points(Risk::disruptive);
        default:
            return false;
    }
}

}  // namespace

bool is_off(GuardId guard, const Limits& limits) noexcept {
    switch (guard) {
        case GuardId::cooldown:
            return limits.cooldown.count() == 0;
        case GuardId::storm:
            return limits.storm.targets == 0;
        case GuardId::flapping:
            return limits.flap_high == 0;
        case GuardId::circuit_breaker:
            return limits.breaker_failures == 0;
        case GuardId::repetition:
            return limits.repeat_after.count() == 0;
        default:
            return false;
    }
}

std::vector<DrillResult> drill_guards(const Limits& limits, Time now) {
    std::vector<DrillResult> out;
    for (std::size_t i = 0; i < guard_count; ++i) {
        const auto guard = static_cast<GuardId>(i);
        DrillResult r;
        r.guard = guard;
        Drill calm{limits, now}, ill{limits, now}, dark{limits, now};
        const auto idle = calm.of(guard);
        r.off = is_off(guard, limits);
        provoke(guard, ill);
        const auto tripped = ill.of(guard);
        r.tripped = !tripped.passed && !tripped.input_missing;
        r.reason = tripped.reason;
        r.passed = idle.passed != forbids_all(guard, limits);
        if (blind(guard, dark)) {
            const auto v = dark.of(guard);
            r.fails_closed = !v.passed && v.input_missing;
        } else
            r.fails_closed = true;
        out.push_back(std::move(r));
    }
    return out;
}

}  // namespace heal
