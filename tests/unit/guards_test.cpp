#include "core/guard_record.hpp"
#include "core/guard_scene.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>

namespace heal {
namespace {

using namespace std::chrono_literals;

constexpr Time t0{1'790'000'000'000'000};  // 2026-09-21T14:13:20Z, a Monday

/// An incident on 'cart' and a safe strategy 'restart' that everything allows.
struct Case : GuardScene {
    Case() : GuardScene(t0) {
        incident.id = "e1";
        incident.fingerprint = "f";
        incident.target = incident.service_name = "cart";
        who.info.name = "restart";
        who.info.risk = Risk::safe;
        in.grants = std::vector<std::string>{"exec:/usr/bin/systemctl"};
    }
    void past(
        const std::string& id,
        Time started,
        std::optional<Time> ended,
        FactResult result = FactResult::none,
        const std::string& fingerprint = "other"
    ) {
        AttemptFact fact{
            id, "e-" + id, fingerprint, "cart", "restart", started, ended, "cart", {}, result, {}, {}};
        history.started(std::move(fact));
    }
    std::string tripped() const {
        const auto outcome = evaluate_guards(in);
        // Whatever a test makes the guards see: what is stored of it gives the same verdicts again.
        const auto record = to_json(guard_record(in));
        EXPECT_TRUE(record.is_object());
        const auto again = replay_guards(json::parse(json::serialize(record)).as_object());
        EXPECT_EQ(json::serialize(again), json::serialize(guard_entry(in, outcome)));
        return outcome.allowed() ? "" : to_string(outcome.last().guard);
    }
    Verdict verdict() const { return evaluate_guards(in).last(); }
    Candidate& who = candidate;
};

Hold hold(HoldKind kind, HoldScope scope, std::string name, std::optional<Time> ends = {}) {
    return {"h", kind, scope, std::move(name), "works", "anna", t0 - 1min, ends};
}

TEST(Guards, AllowWhenNothingSpeaksAgainst) { EXPECT_EQ(Case{}.tripped(), ""); }

TEST(Guards, WithoutAnIncidentNothingIsAllowed) { EXPECT_FALSE(evaluate_guards(GuardInput{}).allowed()); }

TEST(Guards, MissingInputDenies) {
    const std::pair<const char*, void (*)(GuardInput&)> rows[] = {
        {"kill_switch", [](GuardInput& in) { in.paused.reset(); }},
        {"kill_switch", [](GuardInput& in) { in.holds = nullptr; }},
        {"maintenance", [](GuardInput& in) { in.windows = nullptr; }},
        {"target_lock", [](GuardInput& in) { in.history = nullptr; }},
        {"blast_radius", [](GuardInput& in) { in.groups.reset(); }},
        {"storm", [](GuardInput& in) { in.storm = nullptr; }},
        {"flapping", [](GuardInput& in) { in.episodes = nullptr; }},
        {"dependency", [](GuardInput& in) { in.dependencies.reset(); }},
        {"capability", [](GuardInput& in) { in.grants.reset(); }},
        {"capability", [](GuardInput& in) { in.forbidden = nullptr; }}};
    for (const auto& [guard, take] : rows) {
        Case c;
        take(c.in);
        EXPECT_EQ(c.tripped(), guard);
        EXPECT_TRUE(c.verdict().input_missing) << guard;
        c.in.break_glass = true;
        EXPECT_EQ(c.tripped(), guard) << "not even break-glass passes what cannot be known";
    }
}

TEST(Guards, TheKillSwitchStopsAllOrOneServiceOrOneStrategy) {
    Case all;
    all.in.paused = true;
    EXPECT_EQ(all.tripped(), "kill_switch");
    EXPECT_TRUE(all.verdict().temporary);
    const std::pair<Hold, const char*> rows[] = {
        {hold(HoldKind::pause, HoldScope::service, "cart"), "kill_switch"},
        {hold(HoldKind::pause, HoldScope::service, "shop"), ""},
        {hold(HoldKind::pause, HoldScope::strategy, "restart"), "kill_switch"},
        {hold(HoldKind::pause, HoldScope::strategy, "flush"), ""},
        {hold(HoldKind::pause, HoldScope::all, "", t0 + 1min), "kill_switch"},
        {hold(HoldKind::pause, HoldScope::all, "", t0), ""}};
    for (const auto& [h, guard] : rows) {
        Case c;
        c.holds.push_back(h);
        EXPECT_EQ(c.tripped(), guard) << to_string(h.scope) << " " << h.name;
        c.in.break_glass = c.in.approved = true;
        EXPECT_EQ(c.tripped(), guard) << "nobody passes it";
    }
}

TEST(Guards, MaintenanceEndsByItself) {
    Case c;
    c.holds.push_back(hold(HoldKind::maintenance, HoldScope::service, "cart", t0 + 10min));
    EXPECT_EQ(c.tripped(), "maintenance");
    EXPECT_EQ(c.verdict().retry_at, t0 + 10min);
    c.in.now = t0 + 10min;
    EXPECT_EQ(c.tripped(), "");
}

TEST(Guards, AWindowOfTheConfigurationComesEveryWeek) {
    Case c;
    WindowRule sunday;
    sunday.services = {"ca*"};
    sunday.weekdays = 1U << 6U;
    sunday.minute = 23 * 60;
    sunday.length = 2h;
    c.windows.push_back(sunday);
    const Time monday = t0 - 14h - 13min - 20s;  // 00:00
    c.in.now = monday + 30min;
    EXPECT_EQ(c.tripped(), "maintenance") << "begun on Sunday, ends on Monday";
    EXPECT_EQ(c.verdict().retry_at, monday + 1h);
    for (const auto at : {monday + 1h, monday - 1h - 1us, monday + 23h + 30min}) {
        c.in.now = at;
        EXPECT_EQ(c.tripped(), "") << to_rfc3339(at);
    }
    c.in.now = monday + 30min;
    c.windows[0].services = {"shop"};
    EXPECT_EQ(c.tripped(), "");
    c.windows[0].services.clear();
    c.windows[0].from = monday + 3h;
    c.windows[0].until = monday + 4h;
    EXPECT_EQ(c.tripped(), "");
    c.in.now = monday + 3h;
    EXPECT_EQ(c.tripped(), "maintenance");
}

TEST(Guards, AChangeFreezeLetsOnlyWhatIsSafePass) {
    Case c;
    c.holds.push_back(hold(HoldKind::freeze, HoldScope::all, "", t0 + 1h));
    EXPECT_EQ(c.tripped(), "");
    c.who.info.risk = Risk::disruptive;
    EXPECT_EQ(c.tripped(), "change_freeze");
    c.in.approved = true;
    EXPECT_EQ(c.tripped(), "change_freeze") << "an ordinary approval does not lift a freeze";
    c.in.break_glass = true;
    EXPECT_EQ(c.tripped(), "");
    EXPECT_TRUE(evaluate_guards(c.in).verdicts.back().overridden);
}

TEST(Guards, AHealthyTargetIsNotDisturbedForWhatALineSays) {
    Case c;
    c.who.info.risk = Risk::disruptive;
    EXPECT_EQ(c.tripped(), "") << "without probes the line is all there is";
    c.in.health = TargetHealth{2, 0, {}};
    EXPECT_EQ(c.tripped(), "evidence");
    EXPECT_TRUE(c.verdict().temporary);
    EXPECT_FALSE(c.verdict().needs_approval);
    c.incident.count = 10;
    EXPECT_TRUE(c.verdict().needs_approval) << "said again and again: a person should look";
    c.limits.healthy_acts = 10;
    EXPECT_EQ(c.tripped(), "");
    c.limits.healthy_acts = 0;
    c.in.health = TargetHealth{1, 1, t0 - 100ms};
    EXPECT_EQ(c.tripped(), "evidence") << "a process that is replaced is gone for a moment too";
    EXPECT_EQ(c.verdict().retry_at, t0 + 400ms);
    c.in.health = TargetHealth{1, 1, t0 - 500ms};
    EXPECT_EQ(c.tripped(), "");
    c.in.health = TargetHealth{2, 0, {}};
    c.who.info.risk = Risk::safe;
    EXPECT_EQ(c.tripped(), "");
    c.who.info.risk = Risk::disruptive;
    c.in.health.reset();
    EXPECT_TRUE(c.verdict().input_missing);
}

TEST(Guards, OnlyOneActsOnATarget) {
    Case c;
    c.past("a", t0 - 5s, {});
    EXPECT_EQ(c.tripped(), "target_lock");
    EXPECT_TRUE(c.verdict().temporary);
    c.in.break_glass = true;
    EXPECT_EQ(c.tripped(), "target_lock");
    c.history.ended("a", t0 - 1s);
    EXPECT_EQ(c.tripped(), "");
}

TEST(Guards, WhatMayStillBeTakenBackKeepsItsTarget) {
    Case c;
    AttemptFact fact;
    fact.attempt = "a", fact.event = "other", fact.fingerprint = "g", fact.target = "cart",
    fact.strategy = "s";
    fact.started = t0 - 5s, fact.ended = t0 - 4s, fact.undecided = true;
    c.history.started(fact);
    EXPECT_EQ(c.tripped(), "target_lock");
    c.history.forget_before(t0);
    EXPECT_EQ(c.tripped(), "target_lock");
    c.history.decided("a");
    EXPECT_EQ(c.tripped(), "");
}

TEST(Guards, CooldownTellsWhenItEnds) {
    Case c;
    c.past("a", t0 - 30s, t0 - 20s, FactResult::none, "f");
    EXPECT_EQ(c.tripped(), "cooldown");
    EXPECT_EQ(c.verdict().retry_at, t0 - 20s + c.limits.cooldown);
    c.in.now = t0 + 40s;
    EXPECT_EQ(c.tripped(), "");
}

TEST(Guards, AnIncidentHasOnlySoManyAttempts) {
    Case c;
    c.in.attempts_of_incident = c.limits.attempts_per_incident;
    EXPECT_EQ(c.tripped(), "attempts");
    EXPECT_FALSE(c.verdict().temporary);
}

TEST(Guards, TargetRateCountsWithinItsWindowOnly) {
    Case c;
    c.limits.target_per_hour = 2;
    c.past("a", t0 - 50min, t0 - 50min);
    c.past("b", t0 - 10min, t0 - 10min);
    EXPECT_EQ(c.tripped(), "target_rate");
    EXPECT_EQ(c.verdict().retry_at, t0 + 10min);
    c.in.now = t0 + 11min;
    EXPECT_EQ(c.tripped(), "");
}

TEST(Guards, StrategyRateCountsOneStrategyEverywhere) {
    Case c;
    c.limits.strategy_per_hour = 1;
    c.history.started({"a", "x", "o", "shop", "restart", t0 - 10min, t0 - 10min, "shop", {}, {}, {}, {}});
    EXPECT_EQ(c.tripped(), "strategy_rate");
    c.who.info.name = "flush";
    EXPECT_EQ(c.tripped(), "");
}

TEST(Guards, ServiceRateCountsOneServiceOnAnyTarget) {
    Case c;
    c.limits.service_per_hour = 1;
    c.history.started({"a", "x", "o", "cart-db", "flush", t0 - 10min, t0 - 10min, "cart", {}, {}, {}, {}});
    EXPECT_EQ(c.tripped(), "service_rate");
    c.incident.service_name = "shop";
    EXPECT_EQ(c.tripped(), "");
}

TEST(Guards, GlobalRateCountsEverythingAndZeroForbidsAll) {
    Case c;
    c.limits.global_per_minute = 1;
    c.past("a", t0 - 10s, t0 - 10s);
    EXPECT_EQ(c.tripped(), "global_rate");
    Case zero;
    zero.limits.global_per_minute = 0;
    EXPECT_EQ(zero.tripped(), "global_rate");
}

TEST(Guards, RatesHoldThoughTheClockJumpedBackBetween) {
    Case c;
    c.limits.global_per_minute = 3;
    for (int i = 0; i < 3; ++i) c.past(std::to_string(i), t0 - 10s, t0 - 9s);
    c.past("while the clock was wrong", t0 - 3h, t0 - 3h);
    EXPECT_EQ(c.tripped(), "global_rate");
}

TEST(Guards, TheBudgetIsSpentByRisk) {
    Case c;
    c.limits.budget_per_day = 30;
    c.who.info.risk = Risk::disruptive;
    c.history.started(
        {"a", "x", "o", "shop", "wipe", t0 - 23h, t0 - 23h, "shop", Risk::destructive, {}, {}, {}}
    );
    EXPECT_EQ(c.tripped(), "");
    c.history.started({"b", "x", "o", "shop", "flush", t0 - 1h, t0 - 1h, "shop", Risk::safe, {}, {}, {}});
    EXPECT_EQ(c.tripped(), "budget");
    EXPECT_EQ(c.verdict().retry_at, t0 + 1h);
    c.who.info.risk = Risk::safe;
    EXPECT_EQ(c.tripped(), "");
    c.who.info.risk = Risk::disruptive;
    c.in.now = t0 + 1h;
    EXPECT_EQ(c.tripped(), "");
}

TEST(Guards, AGroupKeepsItsMinimumOfHealthyMembers) {
    Case c;
    c.who.info.risk = Risk::disruptive;
    c.in.groups = std::vector<GroupHealth>{{"web", 3, 2, 1, 1}};
    EXPECT_EQ(c.tripped(), "blast_radius");
    EXPECT_TRUE(c.verdict().temporary);
    c.in.groups->front().healthy = 2;
    EXPECT_EQ(c.tripped(), "");
    c.in.groups->front().healthy = 0;
    c.who.info.risk = Risk::safe;
    EXPECT_EQ(c.tripped(), "") << "what is safe takes nobody out";
}

TEST(Guards, AStormStopsAllAndAfterItHealingBeginsSlowly) {
    Case c;
    c.limits.storm.targets = 4;
    for (int i = 0; i < 3; ++i) c.storm.opened("t" + std::to_string(i), t0, c.limits.storm);
    c.storm.opened("t1", t0, c.limits.storm);
    EXPECT_EQ(c.tripped(), "") << "three targets, one of them twice";
    c.storm.opened("t3", t0, c.limits.storm);
    EXPECT_EQ(c.tripped(), "storm");
    c.in.now = t0 + c.limits.storm.window + 1s;
    EXPECT_EQ(c.tripped(), "storm") << "over, but cooling down";
    c.in.now = t0 + c.limits.storm.window + c.limits.storm.cooldown + 1s;
    EXPECT_EQ(c.tripped(), "") << "one may act";
    c.history.started({"a", "x", "o", "shop", "s", c.in.now, {}, "shop", {}, {}, {}, {}});
    EXPECT_EQ(c.tripped(), "storm") << "not two at once yet";
    c.in.now = c.in.now + c.limits.storm.ramp_step;
    EXPECT_EQ(c.tripped(), "") << "two at once";
    c.in.now = c.in.now + 5 * c.limits.storm.ramp_step;
    EXPECT_FALSE(c.storm.state(c.in.now, c.limits.storm).at_once);
}

TEST(Guards, AFlappingTargetNeedsAPersonUntilItIsCalm) {
    Case c;
    for (int i = 0; i < 5; ++i) {
        c.episodes.opened("cart", t0 - Duration{10min} + Duration{1min} * i);
        c.episodes.closed("cart", t0 - Duration{10min} + Duration{1min} * i + Duration{1s});
    }
    EXPECT_EQ(c.tripped(), "flapping");
    EXPECT_TRUE(c.verdict().needs_approval);
    c.in.now = t0 + 53min;  // all but the last have left the window
    EXPECT_EQ(c.tripped(), "");
    c.in.now = t0 - 6min;
    EXPECT_EQ(c.tripped(), "flapping") << "at the time of the last transition";
    c.limits.flap_high = 0;
    EXPECT_EQ(c.tripped(), "");
    Case few;
    for (int i = 0; i < 3; ++i) {
        few.episodes.opened("cart", t0 - Duration{10min} + Duration{1min} * i);
        few.episodes.closed("cart", t0 - Duration{10min} + Duration{1min} * i + Duration{1s});
    }
    EXPECT_EQ(few.tripped(), "");
}

TEST(Guards, FlappingEndsLowerThanItBegan) {
    Episodes e;
    for (int i = 0; i < 5; ++i) {
        e.opened("t", t0 + Duration{10min} * i);
        e.closed("t", t0 + Duration{10min} * i + Duration{1s});
    }
    EXPECT_TRUE(e.flapping("t", 1h, 50, 25, t0 + 41min));
    EXPECT_LT(e.percent("t", 1h, t0 + 71min), 50U);
    EXPECT_TRUE(e.flapping("t", 1h, 50, 25, t0 + 71min)) << "below where it began, above where it ends";
    EXPECT_FALSE(e.flapping("t", 1h, 50, 25, t0 + 95min));
}

TEST(Guards, TheBreakerOpensAfterFailuresInARowAndThenLetsOneTry) {
    Case c;
    for (int i = 0; i < 3; ++i)
        c.past(std::to_string(i), t0 - 3h, t0 - 30min, i == 0 ? FactResult::none : FactResult::failed);
    EXPECT_EQ(c.tripped(), "") << "two of three";
    c.past("3", t0 - 20min, t0 - 20min, FactResult::failed);
    EXPECT_EQ(c.tripped(), "circuit_breaker");
    EXPECT_EQ(c.verdict().retry_at, t0 + 40min);
    c.in.now = t0 + 40min;
    EXPECT_EQ(c.tripped(), "") << "half open";
    c.past("4", t0 + 40min, t0 + 40min, FactResult::failed);
    c.in.now = t0 + 41min;
    EXPECT_EQ(c.verdict().retry_at, t0 + 40min + 2h) << "twice as long";
    c.in.now = t0 + 40min + c.limits.stable_for;
    EXPECT_EQ(c.tripped(), "") << "a stable run makes up for it";
    c.past("5", t0 + 50min, t0 + 50min, FactResult::succeeded);
    c.in.now = t0 + 51min;
    EXPECT_EQ(c.tripped(), "") << "a success closes it";
}

TEST(Guards, WhatFailedLastIsNotRepeatedBeforeAnythingIsNew) {
    Case c;
    c.past("a", t0 - 30min, t0 - 30min, FactResult::failed, "f");
    EXPECT_EQ(c.tripped(), "repetition");
    EXPECT_EQ(c.verdict().retry_at, t0 + 30min);
    EXPECT_TRUE(c.verdict().needs_approval);
    c.in.approved = true;
    EXPECT_EQ(c.tripped(), "");
    c.in.approved = false;
    c.who.info.name = "flush";
    EXPECT_EQ(c.tripped(), "") << "another strategy may";
    c.who.info.name = "restart";
    c.who.info.build = "newer";
    EXPECT_EQ(c.tripped(), "") << "another build may";
    c.who.info.build.clear();
    c.past("b", t0 - 20min, t0 - 20min, FactResult::relapsed);
    EXPECT_EQ(c.tripped(), "") << "the target was healthy in between";
    Case old;
    old.past("a", t0 - 1h, t0 - 1h, FactResult::failed, "f");
    EXPECT_EQ(old.tripped(), "") << "long ago";
}

TEST(Guards, NothingIsDoneWhileADependencyIsDown) {
    Case c;
    c.in.dependencies = std::vector<DependencyHealth>{{"redis", true, ""}, {"db", false, "refused"}};
    EXPECT_EQ(c.tripped(), "dependency");
    EXPECT_NE(c.verdict().reason.find("'db'"), std::string::npos);
    EXPECT_TRUE(c.verdict().temporary);
}

TEST(Guards, WhatTheSiteForbidsIsNotGranted) {
    Case c;
    c.forbidden = {"exec:*/systemctl"};
    EXPECT_EQ(c.tripped(), "capability");
    c.in.approved = c.in.break_glass = true;
    EXPECT_EQ(c.tripped(), "capability");
}

TEST(Guards, RiskAboveTheLimitNeedsAPerson) {
    Case c;
    c.who.info.risk = Risk::destructive;
    EXPECT_EQ(c.tripped(), "risk");
    EXPECT_TRUE(c.verdict().needs_approval);
    c.in.approved = true;
    EXPECT_EQ(c.tripped(), "");
}

TEST(Guards, AutonomyOffIsForGoodAndApproveAsks) {
    Case off;
    off.who.autonomy = Autonomy::off;
    EXPECT_EQ(off.tripped(), "autonomy");
    EXPECT_FALSE(off.verdict().needs_approval);
    Case approve;
    approve.who.autonomy = Autonomy::approve;
    EXPECT_EQ(approve.tripped(), "autonomy");
    EXPECT_TRUE(approve.verdict().needs_approval);
    approve.in.approved = true;
    EXPECT_EQ(approve.tripped(), "");
}

TEST(Guards, AllAreAskedAndTheOneThatLastsDecides) {
    Case c;
    c.who.autonomy = Autonomy::off;
    c.past("a", t0 - 30s, t0 - 20s, FactResult::none, "f");
    const auto outcome = evaluate_guards(c.in);
    EXPECT_EQ(outcome.verdicts.size(), guard_count);
    EXPECT_STREQ(to_string(outcome.last().guard), "autonomy");
    EXPECT_FALSE(outcome.verdicts[static_cast<std::size_t>(GuardId::cooldown)].passed);
    c.who.autonomy = Autonomy::approve;
    EXPECT_EQ(c.tripped(), "autonomy") << "a person is asked at once, the cooldown runs meanwhile";
    c.in.approved = true;
    EXPECT_EQ(c.tripped(), "cooldown");
    GuardCounters counters;
    counters.count(outcome);
    EXPECT_EQ(counters.tripped[static_cast<std::size_t>(GuardId::cooldown)], 1U);
    EXPECT_EQ(counters.evaluated[static_cast<std::size_t>(GuardId::change_freeze)], 1U);
}

TEST(Guards, BreakGlassPassesWhatProtectsAgainstHaste) {
    Case c;
    c.limits.target_per_hour = 0;
    c.limits.breaker_failures = 1;
    c.past("a", t0 - 1min, t0 - 30s, FactResult::failed, "f");
    c.in.dependencies = std::vector<DependencyHealth>{{"db", false, "refused"}};
    EXPECT_NE(c.tripped(), "");
    c.in.break_glass = c.in.approved = true;
    EXPECT_EQ(c.tripped(), "");
}

TEST(History, ForgetsWhatIsOverAndKeepsWhatRuns) {
    History h;
    h.started({"old", "e", "f", "t", "s", t0 - 2h, t0 - 2h, {}, {}, {}, {}, {}});
    h.started({"runs", "e", "f", "t", "s", t0 - 2h, {}, {}, {}, {}, {}, {}});
    h.started({"new", "e", "f", "t", "s", t0, t0, {}, {}, {}, {}, {}});
    h.forget_before(t0 - 1h);
    ASSERT_EQ(h.facts().size(), 2U);
    EXPECT_EQ(h.facts().front().attempt, "runs");
    EXPECT_EQ(h.of("s", "t").size(), 2U);
    h.judged("new", FactResult::failed);
    EXPECT_EQ(h.of("s", "t").back()->result, FactResult::failed);
}

TEST(Drill, EveryGuardTripsPassesAndFailsClosed) {
    const auto results = drill_guards(Limits{}, t0);
    ASSERT_EQ(results.size(), guard_count);
    for (const auto& r : results) {
        EXPECT_TRUE(r.tripped) << to_string(r.guard);
        EXPECT_TRUE(r.passed) << to_string(r.guard);
        EXPECT_TRUE(r.fails_closed) << to_string(r.guard);
        EXPECT_FALSE(r.reason.empty()) << to_string(r.guard);
    }
}

TEST(Drill, NamesWhatTheConfigurationTurnsOffAndAcceptsWhatForbidsAll) {
    Limits limits;
    limits.flap_high = limits.breaker_failures = limits.storm.targets = limits.target_per_hour = 0;
    limits.budget_per_day = 0;
    std::set<std::string> off;
    for (const auto& r : drill_guards(limits, t0)) {
        EXPECT_TRUE(r.ok()) << to_string(r.guard) << ": " << r.reason;
        if (r.off) off.insert(to_string(r.guard));
    }
    EXPECT_EQ(off, (std::set<std::string>{"flapping", "circuit_breaker", "storm"}));
}

}  // namespace
}  // namespace heal
