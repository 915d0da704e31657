#include "core/trust.hpp"

#include <gtest/gtest.h>

namespace heal {
namespace {

using namespace std::chrono_literals;

constexpr Time t0{1'790'000'000'000'000};
constexpr auto automatic = Autonomy::automatic, approve = Autonomy::approve, shadow = Autonomy::shadow;

/// A ladder on which 'restart' is tried on errors of one class.
struct Ladder {
    std::optional<TrustStep> note(TrustEvidence evidence, const std::string& where = "cart/network") {
        now = now + 1min;
        return book.note("restart", where, evidence, now, policy, start, ceiling);
    }
    int until_step(TrustEvidence evidence, int most, const std::string& where = "cart/network") {
        for (int i = 1; i <= most; ++i) {
            if (note(evidence, where)) return i;
        }
        return 0;
    }
    Autonomy rung(const std::string& where = "cart/network") const {
        return book.rung("restart", where, start);
    }
    TrustBook book;
    TrustPolicy policy;
    Autonomy start = approve, ceiling = automatic;
    Time now = t0;
};

TEST(Wilson, IsTheScoreInterval) {
    // Reference values: Wilson score interval at 95 %, two-sided (z = 1.959964).
    const struct {
        double good, bad, lower, upper;
    } rows[] = {
        {0, 0, 0, 1},
        {20, 0, 0.8389, 1},
        {35, 0, 0.9011, 1},
        {34, 0, 0.8985, 1},
        {95, 5, 0.8883, 0.9785},
        {0, 4, 0, 0.4899}};
    for (const auto& r : rows) {
        EXPECT_NEAR(wilson_lower(r.good, r.bad), r.lower, 0.0001) << r.good << " " << r.bad;
        EXPECT_NEAR(wilson_upper(r.good, r.bad), r.upper, 0.0001) << r.good << " " << r.bad;
    }
}

TEST(Trust, ItClimbsOnceTheLowerBoundSaysSo) {
    Ladder l;
    EXPECT_EQ(l.until_step(TrustEvidence::held, 100), 35) << "34 of 34 are at least 0.8985";
    EXPECT_EQ(l.rung(), automatic);
    EXPECT_FALSE(l.note(TrustEvidence::held)) << "there is nothing above";
}

TEST(Trust, FewOutcomesAreNotEnoughHoweverGood) {
    Ladder l;
    l.policy.bound = 0.5;
    l.policy.samples = 20;
    EXPECT_EQ(l.until_step(TrustEvidence::held, 100), 20);
}

TEST(Trust, OneBadOutcomeDelaysIt) {
    Ladder l;
    l.note(TrustEvidence::failed);
    EXPECT_EQ(l.until_step(TrustEvidence::held, 200), 52);
}

TEST(Trust, HarmMakesItFallOneRungAtATime) {
    Ladder l;
    l.start = automatic;
    l.policy.harms = 1;
    const auto step = l.note(TrustEvidence::harmed);
    ASSERT_TRUE(step);
    EXPECT_EQ(step->from, automatic);
    EXPECT_EQ(step->to, approve);
    EXPECT_NE(step->reason.find("harm"), std::string::npos);
    EXPECT_EQ(l.rung("shop/network"), automatic) << "elsewhere nothing changed";
    EXPECT_EQ(l.note(TrustEvidence::harmed)->to, shadow);
    EXPECT_FALSE(l.note(TrustEvidence::harmed)) << "a shadow changes nothing";
    Ladder patient;
    patient.start = automatic;
    EXPECT_FALSE(patient.note(TrustEvidence::harmed)) << "once may be a coincidence";
    EXPECT_TRUE(patient.note(TrustEvidence::harmed));
    Ladder slow;
    slow.start = automatic;
    EXPECT_FALSE(slow.note(TrustEvidence::harmed));
    slow.now = slow.now + 60 * 24h;
    EXPECT_FALSE(slow.note(TrustEvidence::harmed)) << "the first is long ago";
    Ladder never;
    never.start = automatic;
    never.policy.harms = 0;
    EXPECT_EQ(never.until_step(TrustEvidence::harmed, 50), 0);
}

TEST(Trust, BadOutcomesMakeItFallWhereThePolicySaysSo) {
    Ladder l;
    l.start = automatic;
    EXPECT_EQ(l.until_step(TrustEvidence::failed, 50), 0) << "off by default: ranking and breaker see to it";
    l.policy.demote_below = 0.5;
    Ladder strict = l;
    strict.book = TrustBook{};
    EXPECT_EQ(strict.until_step(TrustEvidence::failed, 50), 4);
    EXPECT_EQ(strict.rung(), approve);
}

TEST(Trust, ThePersonsSettingIsTheCeiling) {
    Ladder l;
    l.start = shadow;
    l.ceiling = approve;
    EXPECT_EQ(l.until_step(TrustEvidence::listed, 100), 35);
    EXPECT_EQ(l.rung(), approve);
    EXPECT_EQ(l.until_step(TrustEvidence::held, 100), 0);
    l.ceiling = automatic;
    EXPECT_TRUE(l.note(TrustEvidence::held)) << "the evidence was gathered meanwhile";
    Ladder above;
    above.start = automatic;
    above.ceiling = approve;
    above.policy.harms = 1;
    EXPECT_EQ(above.note(TrustEvidence::harmed)->to, shadow) << "it falls from where it acted";
}

TEST(Trust, OffIsLeftByAPersonOnly) {
    Ladder l;
    l.start = Autonomy::off;
    EXPECT_EQ(l.until_step(TrustEvidence::held, 100), 0);
    EXPECT_EQ(l.until_step(TrustEvidence::listed, 100), 0);
}

TEST(Trust, WhatAPersonSetClimbsNoMoreAndStillFalls) {
    Ladder l;
    l.book.put("restart", "cart/network", approve, t0, true, false, "let us see");
    EXPECT_EQ(l.until_step(TrustEvidence::held, 100), 0);
    l.policy.harms = 1;
    EXPECT_EQ(l.note(TrustEvidence::harmed)->to, shadow);
    EXPECT_TRUE(l.book.find("restart", "cart/network")->by_hand);
    l.book.clear("restart", "cart/network");
    EXPECT_EQ(l.rung(), approve);
    EXPECT_EQ(l.until_step(TrustEvidence::held, 100), 35) << "from nothing";
}

TEST(Trust, ThinDataBacksOffToTheSameKindThenToAll) {
    Ladder l;
    l.policy.bound = 0.8;
    for (int i = 0; i < 19; ++i) EXPECT_FALSE(l.note(TrustEvidence::held, "shop/network"));
    const auto step = l.note(TrustEvidence::held, "cart/network");
    ASSERT_TRUE(step);
    EXPECT_NE(step->reason.find("this kind of error anywhere"), std::string::npos) << step->reason;
    Ladder wide;
    wide.policy.bound = 0.8;
    for (int i = 0; i < 19; ++i) EXPECT_FALSE(wide.note(TrustEvidence::held, "shop/crash"));
    EXPECT_NE(wide.note(TrustEvidence::held, "cart/network")->reason.find("in all"), std::string::npos);
    Ladder bad;
    bad.policy.bound = 0.8;
    EXPECT_FALSE(bad.note(TrustEvidence::failed, "cart/network"));
    for (int i = 0; i < 60; ++i) bad.note(TrustEvidence::held, "shop/network");
    EXPECT_FALSE(bad.note(TrustEvidence::held, "cart/network")) << "what is known of the class itself is bad";
}

TEST(Trust, AfterAFallOnlyItsOwnNewEvidenceCounts) {
    Ladder l;
    l.start = automatic;
    l.policy.bound = 0.8;
    l.policy.harms = 1;
    for (int i = 0; i < 60; ++i) l.note(TrustEvidence::held, "shop/network");
    for (int i = 0; i < 60; ++i) l.note(TrustEvidence::held);
    l.note(TrustEvidence::harmed);
    EXPECT_EQ(l.until_step(TrustEvidence::held, 100), 20);
}

TEST(Trust, OldEvidenceDecays) {
    Ladder l;
    for (int i = 0; i < 34; ++i) l.note(TrustEvidence::held);
    l.now = l.now + 30 * 24h;
    EXPECT_GT(l.until_step(TrustEvidence::held, 100), 15) << "half of it is left";
}

TEST(Trust, ARestartGivesTheSameBook) {
    Ladder l, again;
    std::vector<std::pair<TrustEvidence, Time>> told;
    std::optional<TrustStep> last;
    for (int i = 0; i < 50; ++i) {
        const auto evidence = i == 3 ? TrustEvidence::failed : TrustEvidence::held;
        if (auto step = l.note(evidence)) last = step;
        told.emplace_back(evidence, l.now);
    }
    ASSERT_FALSE(last) << "not climbed yet, so nothing was stored";
    for (const auto& [evidence, at] : told)
        again.book.restore("restart", "cart/network", evidence, at, again.policy, again.start);
    again.now = l.now;
    EXPECT_EQ(l.until_step(TrustEvidence::held, 100), again.until_step(TrustEvidence::held, 100));
    // And what came before a step does not count after it.
    TrustBook fallen;
    fallen.put("restart", "cart/network", approve, l.now, false, true, "harm");
    fallen.restore("restart", "cart/network", TrustEvidence::held, l.now - 1s, again.policy, again.start);
    EXPECT_EQ(fallen.find("restart", "cart/network")->good, 0);
}

TEST(Trust, TheBookIsBoundedAndKeepsWhatFell) {
    TrustBook book;
    book.put("restart", "first/network", shadow, t0, false, true, "harm");
    TrustPolicy policy;
    for (std::size_t i = 0; i < TrustBook::max_entries + 10; ++i)
        book.note(
            "restart",
            std::to_string(i) + "/network",
            TrustEvidence::failed,
            t0 + Duration{static_cast<std::int64_t>(i)},
            policy,
            approve,
            automatic
        );
    EXPECT_EQ(book.entries().size(), TrustBook::max_entries);
    EXPECT_EQ(book.rung("restart", "first/network", automatic), shadow);
}

TEST(Trust, TheClassIsServiceAndKind) {
    LogRecord r;
    r.service_name = "cart";
    r.message = "connection refused";
    EXPECT_EQ(error_class(r), "cart/network");
}

}  // namespace
}  // namespace heal
