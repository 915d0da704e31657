#include "core/patch_machine.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <set>

namespace heal {
namespace {

using namespace std::chrono_literals;
using Kind = PatchResult::Kind;
using enum PatchStep;

constexpr Time start{1'790'000'000'000'000};

PatchPlan plan(bool forge = false, bool deploy = true) {
    PatchPlan p;
    p.land = forge ? PatchPlan::Land::request : PatchPlan::Land::merge;
    p.deploy = deploy;
    p.horizons = {30s, 60s, 10min, 5s};
    return p;
}

/// Walks `m` with one kind of result per step; returns the steps that were made.
std::string walk(PatchMachine& m, const PatchPlan& p, const std::vector<Kind>& kinds, Time& now) {
    std::string steps;
    for (const auto kind : kinds) {
        steps += (steps.empty() ? "" : " ") + std::string{to_string(m.step())};
        now = std::max(now, m.next_at());
        m.begin(now);
        m.take({kind, "because", {}}, p, now);
    }
    return steps;
}

const std::vector<Kind> to_review(6, Kind::done);

PatchMachine at_review(const PatchPlan& p, Time& now) {
    PatchMachine m;
    walk(m, p, to_review, now);
    EXPECT_EQ(m.step(), review);
    return m;
}

PatchMachine at_watch(const PatchPlan& p, Time& now) {
    auto m = at_review(p, now);
    walk(m, p, {Kind::approved, Kind::done, Kind::done, Kind::done, Kind::done}, now);
    EXPECT_EQ(m.step(), watch);
    EXPECT_EQ(m.deployed_at(), now);
    return m;
}

TEST(PatchMachine, GoesFromRedToGreenToPeopleToTheBranch) {
    PatchMachine m;
    Time now = start;
    auto kinds = to_review;
    kinds.insert(kinds.end(), {Kind::approved, Kind::done, Kind::done, Kind::done, Kind::done});
    EXPECT_EQ(
        walk(m, plan(), kinds, now),
        "prepare gate reproduce build test counter review commit push merge deploy"
    );
    EXPECT_EQ(m.step(), watch);
    EXPECT_TRUE(m.landed());
    EXPECT_TRUE(bool_at(object_at(m.evidence(), "counter"), "ok"));
}

TEST(PatchMachine, LandsAsABranchARequestOrAMerge) {
    Time now = start;
    auto m = at_review(plan(true), now);
    EXPECT_EQ(
        walk(m, plan(true), {Kind::approved, Kind::done, Kind::done, Kind::waiting, Kind::merged}, now),
        "review commit push request request"
    );
    EXPECT_EQ(m.step(), deploy);
    auto n = at_review(plan(false), now);
    EXPECT_EQ(
        walk(n, plan(false), {Kind::approved, Kind::done, Kind::done, Kind::done}, now),
        "review commit push merge"
    );
    auto branch = plan();
    branch.land = PatchPlan::Land::branch;
    auto b = at_review(branch, now);
    EXPECT_EQ(walk(b, branch, {Kind::approved, Kind::done, Kind::done}, now), "review commit push");
    EXPECT_EQ(b.outcome(), PatchOutcome::proposed);
}

TEST(PatchMachine, EachRefusalEndsItBeforeAnythingLeaves) {
    const std::pair<std::size_t, PatchStep> cases[] = {
        {1, gate}, {2, reproduce}, {3, build}, {4, test}, {5, counter}};
    for (const auto& [passed, step] : cases) {
        PatchMachine m;
        Time now = start;
        walk(m, plan(), std::vector<Kind>(passed, Kind::done), now);
        ASSERT_EQ(m.step(), step);
        m.take({Kind::refused, "no", {}}, plan(), now);
        EXPECT_EQ(m.outcome(), PatchOutcome::refused) << to_string(step);
        EXPECT_EQ(m.step(), finish);
        EXPECT_EQ(m.reason(), "no");
        EXPECT_FALSE(m.landed());
        EXPECT_FALSE(m.ended());
        m.take({}, plan(), now);
        EXPECT_TRUE(m.ended());
    }
}

TEST(PatchMachine, PeopleWhoSayNoEndIt) {
    Time now = start;
    auto m = at_review(plan(), now);
    m.take({Kind::rejected, "not like this", {}}, plan(), now);
    EXPECT_EQ(m.outcome(), PatchOutcome::rejected);
    auto n = at_review(plan(true), now);
    walk(n, plan(true), {Kind::approved, Kind::done, Kind::done, Kind::waiting, Kind::closed}, now);
    EXPECT_EQ(n.outcome(), PatchOutcome::rejected);
}

TEST(PatchMachine, EditsThatDoNotApplyAreMendedTwiceAtMost) {
    PatchMachine m;
    Time now = start;
    walk(m, plan(), {Kind::done, Kind::mend}, now);
    EXPECT_EQ(m.step(), gate);
    EXPECT_EQ(m.repairs(), 1U);
    walk(m, plan(), {Kind::mend}, now);
    EXPECT_EQ(m.step(), gate);
    walk(m, plan(), {Kind::mend}, now);
    EXPECT_EQ(m.outcome(), PatchOutcome::refused);
}

TEST(PatchMachine, HoldsAfterThreeHorizons) {
    Time now = start;
    auto m = at_watch(plan(), now);
    const Time deployed = now;
    std::optional<Time> first_look;
    int looks = 0;
    while (m.step() == watch && looks < 1000) {
        now = std::max(now + 1s, m.next_at());
        m.take({Kind::done, "", {}}, plan(), now);
        if (!first_look) first_look = now;
        EXPECT_EQ(m.stable(), now - *first_look >= 60s) << (now - deployed).count();
        ++looks;
    }
    EXPECT_EQ(m.outcome(), PatchOutcome::held);
    EXPECT_GE(now - deployed, 10min);
    EXPECT_LE(now - deployed, 10min + 31s);
    EXPECT_LT(looks, 60);
}

TEST(PatchMachine, ARecurrenceTakesItBackAtAnyTimeOfTheHoldWindow) {
    for (const int healthy_looks : {0, 1, 20}) {
        Time now = start;
        auto m = at_watch(plan(), now);
        walk(m, plan(), std::vector<Kind>(static_cast<std::size_t>(healthy_looks), Kind::done), now);
        EXPECT_EQ(walk(m, plan(), {Kind::recurred, Kind::done, Kind::done}, now), "watch revert redeploy");
        EXPECT_EQ(m.outcome(), PatchOutcome::did_not_hold) << healthy_looks;
    }
}

TEST(PatchMachine, OneFailedLookIsABlipTwoAreHarm) {
    Time now = start;
    auto m = at_watch(plan(), now);
    walk(m, plan(), {Kind::done, Kind::unhealthy}, now);
    EXPECT_EQ(m.step(), watch);
    walk(m, plan(), {Kind::done, Kind::unhealthy, Kind::unhealthy}, now);
    EXPECT_EQ(m.step(), revert);
}

TEST(PatchMachine, ProbesMayTakeTheirTimeToBecomeHealthyAtFirst) {
    Time now = start;
    auto m = at_watch(plan(), now);
    walk(m, plan(), {Kind::unhealthy, Kind::unhealthy, Kind::unhealthy}, now);
    EXPECT_EQ(m.step(), watch);
    now = now + 31s;
    m.take({Kind::unhealthy, "down", {}}, plan(), now);
    EXPECT_EQ(m.step(), revert);
}

TEST(PatchMachine, AFailedDeploymentIsTakenBack) {
    Time now = start;
    auto m = at_review(plan(), now);
    walk(m, plan(), {Kind::approved, Kind::done, Kind::done, Kind::done, Kind::broken}, now);
    EXPECT_EQ(m.step(), revert);
    walk(m, plan(), {Kind::done, Kind::done}, now);
    EXPECT_EQ(m.outcome(), PatchOutcome::did_not_hold);
    EXPECT_NE(m.reason().find("deployment failed"), std::string::npos);
}

TEST(PatchMachine, WhatCannotBeTakenBackCallsAPerson) {
    Time now = start;
    auto m = at_watch(plan(), now);
    walk(m, plan(), {Kind::recurred, Kind::broken}, now);
    EXPECT_EQ(m.outcome(), PatchOutcome::failed);
    EXPECT_NE(m.reason().find("a person is needed"), std::string::npos);
}

TEST(PatchMachine, TriesAgainWithLongerPausesThenFails) {
    PatchMachine m;
    Time now = start;
    std::vector<std::int64_t> pauses;
    while (m.outcome() == PatchOutcome::none) {
        const Time before = now;
        m.take({Kind::again, "the remote is away", {}}, plan(), now);
        if (m.outcome() == PatchOutcome::none) pauses.push_back((m.next_at() - before).count() / 1'000'000);
        now = std::max(now, m.next_at());
    }
    EXPECT_EQ(pauses, (std::vector<std::int64_t>{15, 30, 60, 120}));
    EXPECT_EQ(m.outcome(), PatchOutcome::failed);
}

TEST(PatchMachine, WithoutADeploymentItIsProposed) {
    Time now = start;
    auto m = at_review(plan(false, false), now);
    walk(m, plan(false, false), {Kind::approved, Kind::done, Kind::done, Kind::done}, now);
    EXPECT_EQ(m.outcome(), PatchOutcome::proposed);
}

TEST(PatchMachine, ACrashRepeatsEveryStepButADeploymentThatMayNotRunTwice) {
    for (const auto step :
         {prepare, gate, reproduce, build, test, counter, review, commit, push, merge, deploy}) {
        PatchMachine m;
        Time now = start;
        while (m.step() != step)
            m.take({m.step() == review ? Kind::approved : Kind::done, "", {}}, plan(), now);
        m.begin(now);
        auto loaded = PatchMachine::load(m.save());
        ASSERT_TRUE(loaded);
        EXPECT_EQ(loaded->resume(plan(), now + 1s), step != deploy) << to_string(step);
        EXPECT_EQ(loaded->step(), step == deploy ? watch : step);
        auto again = *PatchMachine::load(m.save());
        auto harmless = plan();
        harmless.deploy_idempotent = true;
        EXPECT_TRUE(again.resume(harmless, now + 1s));
        EXPECT_EQ(again.step(), step);
    }
}

TEST(PatchMachine, AfterACrashItLooksAtOnceWhatPeopleSaidMeanwhile) {
    Time now = start;
    auto m = at_review(plan(), now);
    m.begin(now);
    m.take({Kind::waiting, "", {}}, plan(), now);
    ASSERT_GT(m.next_at(), now + 10s);
    EXPECT_TRUE(m.resume(plan(), now + 1s));
    EXPECT_EQ(m.next_at().us, (now + 1s).us);
}

TEST(PatchMachine, OnAnotherMachineWhatLiesOnTheFirstAloneIsMadeAgain) {
    for (const auto step :
         {prepare, gate, reproduce, build, test, counter, review, commit, push, merge, deploy, watch}) {
        for (const bool begun : {true, false}) {
            PatchMachine m;
            Time now = start;
            while (m.step() != step)
                m.take({m.step() == review ? Kind::approved : Kind::done, "", {}}, plan(), now);
            if (begun) m.begin(now);
            m.resume(plan(), now + 1s, true);
            const auto wanted = step < review             ? prepare
                                : step == push            ? commit
                                : step == deploy && begun ? watch
                                                          : step;
            EXPECT_EQ(m.step(), wanted) << to_string(step);
        }
    }
}

TEST(PatchMachine, AMergedOneIsNotCancelled) {
    Time now = start;
    auto m = at_watch(plan(), now);
    EXPECT_EQ(m.cancel("why", now).error().code, errc::conflict);
    auto n = at_review(plan(), now);
    EXPECT_TRUE(n.cancel("better one", now));
    EXPECT_EQ(n.outcome(), PatchOutcome::cancelled);
    EXPECT_EQ(n.cancel("again", now).error().code, errc::conflict);
}

TEST(PatchMachine, RefusesAStateThatItDidNotWrite) {
    EXPECT_EQ(PatchMachine::load({}).error().code, errc::corrupt);
    EXPECT_EQ(PatchMachine::load({{"step", "fly"}, {"outcome", ""}}).error().code, errc::corrupt);
}

/// Whatever happens in whatever order, with a crash between any two steps: it ends; nothing leaves this
/// machine that was not red, green, red again and approved; what was deployed and did not hold was taken
/// back.
TEST(PatchMachine, KeepsItsPromisesUnderAnySchedule) {
    for (unsigned seed = 0; seed < 20'000; ++seed) {
        std::mt19937 random{seed};
        const auto pick = [&](unsigned n) { return static_cast<unsigned>(random() % n); };
        PatchPlan p = plan(pick(2) != 0, pick(4) != 0);
        if (pick(6) == 0) p.land = PatchPlan::Land::branch;
        p.deploy_idempotent = pick(2) != 0;
        PatchMachine m;
        Time now = start;
        std::set<PatchStep> good;
        bool approved = false, bad_news = false, reverted = false;
        int steps = 0;
        while (!m.ended()) {
            ASSERT_LT(++steps, 5000) << "seed " << seed << " does not end, at " << to_string(m.step());
            now = std::max(now + 1s, m.next_at());
            m.begin(now);
            if (pick(8) == 0) {
                auto loaded = PatchMachine::load(m.save());
                ASSERT_TRUE(loaded);
                m = *loaded;
                m.resume(p, now);
                continue;
            }
            const auto step = m.step();
            if (step >= commit && step != finish) {
                ASSERT_TRUE(
                    approved && good.contains(reproduce) && good.contains(test) && good.contains(counter)
                ) << "seed "
                  << seed;
            }
            static constexpr Kind kinds[] = {
                Kind::done,
                Kind::done,
                Kind::done,
                Kind::done,
                Kind::done,
                Kind::done,
                Kind::refused,
                Kind::broken,
                Kind::again,
                Kind::waiting,
                Kind::mend,
                Kind::merged,
                Kind::closed,
                Kind::unhealthy,
                Kind::recurred,
                Kind::approved,
                Kind::rejected};
            auto kind = kinds[pick(std::size(kinds))];
            // What a step can answer at all.
            if (step == review)
                kind = std::array{
                    Kind::approved, Kind::approved, Kind::rejected, Kind::waiting, Kind::again}[pick(5)];
            if (step == request)
                kind = std::array{Kind::merged, Kind::closed, Kind::waiting, Kind::again}[pick(4)];
            if (step == watch)
                kind = std::array{
                    Kind::done,
                    Kind::done,
                    Kind::done,
                    Kind::unhealthy,
                    Kind::recurred}[pick(seed % 2 ? 5 : 3)];
            if (step != review && step != request && step != watch &&
                (kind == Kind::approved || kind == Kind::rejected || kind == Kind::merged ||
                 kind == Kind::closed || kind == Kind::unhealthy || kind == Kind::recurred ||
                 kind == Kind::waiting))
                kind = Kind::done;
            if (kind == Kind::mend && step != gate) kind = Kind::done;
            if (kind == Kind::refused && step > counter && step != merge) kind = Kind::broken;
            if (kind == Kind::done) good.insert(step);
            if (kind == Kind::approved) approved = true;
            if (step == watch && kind == Kind::recurred) bad_news = true;
            if (step == revert && kind == Kind::done) reverted = true;
            m.take({kind, "x", {}}, p, now);
        }
        ASSERT_NE(m.outcome(), PatchOutcome::none);
        if (m.outcome() == PatchOutcome::held) {
            ASSERT_FALSE(bad_news) << "seed " << seed;
        }
        if (m.outcome() == PatchOutcome::did_not_hold) {
            ASSERT_TRUE(reverted) << "seed " << seed;
        }
        if (bad_news) {
            ASSERT_TRUE(m.outcome() == PatchOutcome::did_not_hold || m.outcome() == PatchOutcome::failed)
                << "seed " << seed;
        }
    }
}

}  // namespace
}  // namespace heal
