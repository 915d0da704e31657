#include "core/triggers.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace heal {
namespace {

using namespace std::chrono_literals;

constexpr Time t0{1'790'000'000'000'000};  // 2026-09-21T14:13:20Z

Matcher matcher(const char* matches) {
    auto compiled = Matcher::compile(json::parse(matches).as_array(), "when");
    EXPECT_TRUE(compiled) << (compiled ? "" : compiled.error().text);
    return std::move(*compiled);
}

TriggerSpec spec(TriggerKind kind, const char* when = R"([{}])") {
    TriggerSpec s;
    s.name = "it";
    s.kind = kind;
    s.when = matcher(when);
    s.by = {"fingerprint"};
    return s;
}

/// Errors told to triggers at given times; answers which fired.
struct World {
    explicit World(std::vector<TriggerSpec> specs, std::size_t limit = 1000)
        : triggers(std::move(specs), limit) {}
    Triggers::Answer hear(
        Time at,
        const std::string& fingerprint = "f1",
        const std::string& service = "cart",
        std::uint64_t count = 1,
        const std::string& message = "broken",
        const std::string& context = ""
    ) {
        Incident in;
        in.fingerprint = in.record.fingerprint = fingerprint;
        in.service_name = in.record.service_name = service;
        in.environment = in.record.environment = "prod";
        in.record.level = Level::error;
        in.record.message = message;
        in.record.context = context;
        next.incident = &in;
        next.count = count;
        return triggers.observe(next, at);
    }
    std::size_t fires(
        Time at,
        const std::string& fingerprint = "f1",
        const std::string& service = "cart",
        std::uint64_t count = 1
    ) {
        return hear(at, fingerprint, service, count).fired.size();
    }
    Triggers triggers;
    Observation next;
};

TEST(Triggers, WithoutAnyNothingIsGoverned) {
    World w{{}};
    const auto answer = w.hear(t0);
    EXPECT_FALSE(answer.governed);
    EXPECT_TRUE(answer.fired.empty());
}

TEST(Triggers, AThresholdCountsWithinItsSlidingWindow) {
    auto s = spec(TriggerKind::threshold);
    s.count = 3;
    s.within = 60s;
    World w{{s}};
    EXPECT_EQ(w.fires(t0), 0U);
    EXPECT_EQ(w.fires(t0 + 30s), 0U);
    EXPECT_EQ(w.fires(t0 + 60s), 0U) << "the first left the window";
    const auto answer = w.hear(t0 + 70s);
    ASSERT_EQ(answer.fired.size(), 1U);
    EXPECT_TRUE(answer.governed);
    EXPECT_EQ(answer.fired[0].reason, "3 within 1 min");
    EXPECT_EQ(w.fires(t0 + 71s), 0U) << "it counts anew";
    EXPECT_EQ(w.fires(t0 + 72s, "f1", "cart", 5), 1U) << "a batch counts with its number";
    EXPECT_EQ(w.triggers.account(0).matched, 10U);
}

TEST(Triggers, WhatItDoesNotFitIsNotGoverned) {
    World w{{spec(TriggerKind::threshold, R"([{"service": "shop", "environment": "prod"}])")}};
    EXPECT_FALSE(w.hear(t0).governed);
    EXPECT_TRUE(w.hear(t0, "f1", "shop").governed);
}

TEST(Triggers, GroupsAreCountedApart) {
    auto s = spec(TriggerKind::threshold);
    s.count = 2;
    s.by = {"service", "label:shop"};
    World w{{s}};
    w.hear(t0, "a", "cart", 1, "x", R"({"shop": "north"})");
    EXPECT_TRUE(w.hear(t0, "b", "cart", 1, "x", R"({"shop": "south"})").fired.empty());
    const auto answer = w.hear(t0, "c", "cart", 1, "x", R"({"shop": "north"})");
    ASSERT_EQ(answer.fired.size(), 1U);
    EXPECT_EQ(answer.fired[0].group, "service=cart label:shop=north");
    auto together = spec(TriggerKind::threshold);
    together.count = 2;
    together.by = {};
    World all{{together}};
    all.hear(t0, "a", "cart");
    EXPECT_EQ(all.fires(t0, "b", "shop"), 1U);
}

TEST(Triggers, HysteresisIsRaisedOnceAndClearedByCalm) {
    auto s = spec(TriggerKind::hysteresis);
    s.count = 5, s.within = 60s;
    s.clear_count = 2, s.clear_within = 120s;
    World w{{s}};
    EXPECT_EQ(w.fires(t0, "f1", "cart", 5), 1U);
    EXPECT_EQ(w.fires(t0 + 10s, "f1", "cart", 50), 0U) << "it is raised already";
    EXPECT_TRUE(w.triggers.tick(t0 + 100s).empty());
    w.hear(t0 + 125s);
    EXPECT_TRUE(w.triggers.tick(t0 + 128s).empty()) << "51 within two minutes";
    const auto cleared = w.triggers.tick(t0 + 131s);
    ASSERT_EQ(cleared.size(), 1U);
    EXPECT_TRUE(cleared[0].cleared);
    EXPECT_EQ(w.fires(t0 + 132s, "f1", "cart", 5), 1U) << "armed again";
}

TEST(Triggers, SeverityNewAndRegressionLookAtWhatIsKnown) {
    auto severe = spec(TriggerKind::severity);
    severe.at_least = Severity::p1_major;
    World w{{severe}};
    w.next.severity = Severity::p2_minor;
    EXPECT_EQ(w.fires(t0), 0U);
    for (const auto s : {Severity::p1_major, Severity::p0_critical}) {
        w.next.severity = s;
        EXPECT_EQ(w.fires(t0), 1U);
    }
    World fresh{{spec(TriggerKind::fresh)}};
    EXPECT_EQ(fresh.fires(t0), 0U);
    fresh.next.is_new = true;
    EXPECT_EQ(fresh.fires(t0), 1U);
    World back{{spec(TriggerKind::regression)}};
    EXPECT_EQ(back.fires(t0), 0U);
    back.next.was_fixed = true;
    EXPECT_EQ(back.fires(t0), 1U);
}

TEST(Triggers, MedianAndDeviationAreRobust) {
    EXPECT_EQ(Triggers::median_mad({}), std::make_pair(0.0, 0.0));
    EXPECT_EQ(Triggers::median_mad({7}), std::make_pair(7.0, 0.0));
    const auto [m, d] = Triggers::median_mad({1, 2, 3, 4, 1000});
    EXPECT_EQ(m, 3);
    EXPECT_NEAR(d, 1.4826, 1e-9);
    EXPECT_EQ(Triggers::median_mad({1, 3}).first, 2);
}

/// Eight days of 10 an hour, 100 in the hour of the backup.
World with_days(TriggerSpec s) {
    World w{{std::move(s)}};
    const Time start{(t0.us / 3'600'000'000 - 24 * 8) * 3'600'000'000};
    for (int h = 0; h < 24 * 8; ++h) {
        Incident in;
        in.fingerprint = "f1", in.service_name = in.record.service_name = "cart";
        in.record.level = Level::error;
        Observation o;
        o.incident = &in;
        const Time at = start + h * 1h;
        o.count = (at.us / 3'600'000'000) % 24 == (t0.us / 3'600'000'000) % 24 ? 100 : 10;
        w.triggers.restore(o, at);
    }
    return w;
}

TEST(Triggers, ARateIsComparedWithTheSameHourOfOtherDays) {
    auto s = spec(TriggerKind::rate);
    s.within = 1h, s.factor = 4, s.count = 20;
    auto busy = with_days(s);
    EXPECT_EQ(busy.fires(t0, "f1", "cart", 120), 0U) << "100 are usual at this hour, give or take 40";
    EXPECT_EQ(busy.fires(t0 + 1min, "f1", "cart", 30), 1U);
    auto calm = with_days(s);
    EXPECT_EQ(calm.fires(t0 + 2h, "f1", "cart", 22), 0U) << "10 are usual, give or take 13";
    EXPECT_EQ(calm.fires(t0 + 2h + 1min, "f1", "cart", 3), 1U);
    World unknown{{s}};
    EXPECT_EQ(unknown.fires(t0, "f1", "cart", 1'000'000), 0U) << "nothing is usual yet";
}

TEST(Triggers, OneBadDayDoesNotMakeBadDaysUsual) {
    auto s = spec(TriggerKind::rate);
    s.within = 1h, s.count = 20;
    auto w = with_days(s);
    Incident in;
    in.fingerprint = "f1", in.service_name = in.record.service_name = "cart";
    in.record.level = Level::error;
    Observation o;
    o.incident = &in;
    o.count = 100'000;
    w.triggers.restore(o, t0 - 24h);
    EXPECT_EQ(w.fires(t0, "f1", "cart", 200), 1U);
}

TEST(Triggers, ASequenceFiresWhenWhatMustFollowDoesNot) {
    auto s = spec(TriggerKind::sequence, R"([{"message": "backup started"}])");
    s.then = matcher(R"([{"message": "backup done"}])");
    s.by = {"service"};
    s.within = 10min;
    World w{{s}};
    EXPECT_FALSE(w.hear(t0, "a", "cart", 1, "backup started").governed)
        << "lines of a sequence stay what they are";
    w.hear(t0 + 5min, "b", "cart", 1, "backup done");
    EXPECT_TRUE(w.triggers.tick(t0 + 11min).empty());
    w.hear(t0 + 20min, "a", "cart", 1, "backup started");
    w.hear(t0 + 21min, "b", "shop", 1, "backup done");
    EXPECT_TRUE(w.triggers.tick(t0 + 30min - 1us).empty());
    const auto fired = w.triggers.tick(t0 + 30min);
    ASSERT_EQ(fired.size(), 1U) << "another service's end does not count";
    EXPECT_EQ(fired[0].service, "cart");
    EXPECT_TRUE(w.triggers.tick(t0 + 60min).empty()) << "once";
}

TEST(Triggers, AnAbsenceFiresOnceUntilItIsHeardAgain) {
    auto s = spec(TriggerKind::absence, R"([{"message": "alive"}])");
    s.by = {"service"};
    s.within = 1min;
    s.service = "cart";
    World w{{s}};
    w.triggers.begin(t0);
    EXPECT_TRUE(w.triggers.tick(t0 + 59s).empty());
    ASSERT_EQ(w.triggers.tick(t0 + 60s).size(), 1U) << "never heard at all";
    EXPECT_TRUE(w.triggers.tick(t0 + 10min).empty());
    w.hear(t0 + 11min, "f", "cart", 1, "alive");
    EXPECT_TRUE(w.triggers.tick(t0 + 11min + 59s).empty());
    const auto fired = w.triggers.tick(t0 + 12min);
    ASSERT_EQ(fired.size(), 1U);
    EXPECT_EQ(fired[0].reason, "not heard for 1 min");
    EXPECT_EQ(fired[0].service, "cart");
}

TEST(Triggers, ACombinationNeedsItsMembersCloseTogether) {
    auto a = spec(TriggerKind::threshold, R"([{"message": "slow"}])");
    a.name = "slow";
    auto b = spec(TriggerKind::threshold, R"([{"message": "full"}])");
    b.name = "full";
    auto both = spec(TriggerKind::combination);
    both.name = "both";
    both.by = {"environment"};
    both.of = {"slow", "full"};
    both.within = 1min;
    both.severity = Severity::p0_critical;
    World w{{a, b, both}};
    const auto names = [](const std::vector<Fired>& fired) {
        std::string out;
        for (const auto& f : fired) out += f.trigger + " ";
        return out;
    };
    EXPECT_EQ(names(w.hear(t0, "a", "cart", 1, "slow").fired), "slow ");
    EXPECT_EQ(names(w.hear(t0 + 61s, "b", "db", 1, "full").fired), "full ") << "too far apart";
    const auto answer = w.hear(t0 + 90s, "a", "cart", 1, "slow");
    EXPECT_EQ(names(answer.fired), "slow both ") << "over services";
    EXPECT_EQ(answer.fired[1].severity, Severity::p0_critical);
    EXPECT_EQ(names(w.hear(t0 + 91s, "a", "cart", 1, "slow").fired), "slow ") << "it needs all of them again";
    both.need = 1;
    World one{{a, b, both}};
    EXPECT_EQ(names(one.hear(t0, "a", "cart", 1, "slow").fired), "slow both ");
}

TEST(Triggers, AStormOfAMillionKindsIsBoundedAndCountedExactly) {
    auto s = spec(TriggerKind::threshold);
    s.count = 2;
    World w{{s}, 10'000};
    std::uint64_t fired = 0;
    for (int i = 0; i < 1'000'000; ++i)
        fired += w.fires(t0 + Duration{i}, "fingerprint-" + std::to_string(i));
    const auto a = w.triggers.account(0);
    EXPECT_EQ(fired, 0U);
    EXPECT_EQ(a.matched, 1'000'000U);
    EXPECT_EQ(a.groups, 10'000U);
    EXPECT_EQ(a.groups + a.forgotten, 1'000'000U) << "each kind is kept or counted as forgotten";
    EXPECT_EQ(w.fires(t0 + 2s, "fingerprint-999999"), 1U) << "the newest are the ones kept";
    EXPECT_EQ(w.fires(t0 + 2s, "fingerprint-1"), 0U);
}

TEST(Triggers, ASnapshotKeepsWhatTheStoreCannotTell) {
    auto raised = spec(TriggerKind::hysteresis);
    raised.name = "raised";
    raised.count = 2;
    auto gone = spec(TriggerKind::absence, R"([{"message": "alive"}])");
    gone.name = "gone";
    gone.by = {"service"};
    gone.within = 10min;
    auto follows = spec(TriggerKind::sequence, R"([{"message": "started"}])");
    follows.name = "follows";
    follows.by = {"service"};
    follows.then = matcher(R"([{"message": "done"}])");
    follows.within = 10min;
    const std::vector<TriggerSpec> specs{raised, gone, follows};
    World before{specs};
    before.hear(t0, "f1", "cart", 2);
    before.hear(t0, "f2", "cart", 1, "alive");
    before.hear(t0 + 1min, "f3", "cart", 1, "started");
    World after{specs};
    after.triggers.restore_snapshot(json::parse(json::serialize(before.triggers.snapshot())).as_object());
    EXPECT_EQ(after.fires(t0 + 1s, "f1", "cart", 2), 0U) << "still raised";
    for (auto* w : {&before, &after}) {
        std::string names;
        for (const auto& f : w->triggers.tick(t0 + 10min)) names += f.trigger + (f.cleared ? "- " : " ");
        for (const auto& f : w->triggers.tick(t0 + 11min)) names += f.trigger + (f.cleared ? "- " : " ");
        EXPECT_EQ(names, "raised- gone follows ");
    }
}

TEST(Triggers, KindsHaveNamesThatCanBeReadBack) {
    for (int i = 0; i <= static_cast<int>(TriggerKind::combination); ++i) {
        TriggerKind back{};
        EXPECT_TRUE(parse_trigger_kind(to_string(static_cast<TriggerKind>(i)), back));
        EXPECT_EQ(static_cast<int>(back), i);
    }
}

}  // namespace
}  // namespace heal
