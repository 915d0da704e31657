#include "core/supervisor_machine.hpp"

#include <gtest/gtest.h>

using namespace heal;
using namespace std::chrono_literals;

namespace {

std::string words(const std::vector<ChildAction>& actions) {
    std::string out;
    for (const ChildAction a : actions) {
        out += out.empty() ? "" : " ";
        out += a == ChildAction::send_cancel ? "cancel" : a == ChildAction::terminate ? "term" : a == ChildAction::kill ? "kill" : "close";
    }
    return out;
}

ChildMachine ready_child() {
    ChildMachine m{ChildTimes{}};
    m.spawned(0s);
    m.ready(1s);
    return m;
}

}  // namespace

TEST(ChildMachine, KillsAChildThatDoesNotComeUpInTime) {
    ChildMachine m{ChildTimes{}};
    EXPECT_EQ(words(m.spawned(0s)), "");
    EXPECT_EQ(m.timer(), Duration{5s});
    EXPECT_EQ(words(m.tick(4999ms)), "");
    EXPECT_EQ(words(m.tick(5s)), "kill");
    EXPECT_EQ(words(m.ready(5s)), "") << "too late";
    m.exited();
    EXPECT_EQ(m.state(), ChildMachine::State::gone);
    EXPECT_LT(m.timer(), Duration{0});
}

TEST(ChildMachine, EndsAWarmChildAfterItsIdleTime) {
    ChildMachine m = ready_child();
    EXPECT_EQ(m.timer(), Duration{61s});
    EXPECT_EQ(words(m.tick(61s)), "close");
    EXPECT_EQ(words(m.call(61s, 70s)), "");
    EXPECT_EQ(m.state(), ChildMachine::State::ending) << "no call while it ends";
    EXPECT_EQ(words(m.tick(61500ms)), "kill") << "it did not end by itself";
    EXPECT_EQ(words(m.tick(62500ms)), "kill") << "and is asked again";
}

TEST(ChildMachine, CancelsThenTerminatesThenKillsAfterTheDeadline) {
    ChildMachine m = ready_child();
    m.call(10s, 12s);
    EXPECT_EQ(words(m.tick(11999ms)), "");
    EXPECT_EQ(words(m.tick(12s)), "cancel");
    EXPECT_TRUE(m.deadline_passed());
    EXPECT_EQ(words(m.tick(12300ms)), "term");
    EXPECT_EQ(words(m.tick(12600ms)), "kill");
    EXPECT_EQ(words(m.answered(12601ms)), "") << "an answer after the kill counts for nothing";
    EXPECT_EQ(m.state(), ChildMachine::State::killing);
}

TEST(ChildMachine, GivesMoreTimeToWhoIsAskedToStop) {
    ChildMachine m = ready_child();
    EXPECT_EQ(words(m.cancel(9s)), "") << "nothing runs";
    m.call(10s, 100s);
    EXPECT_EQ(words(m.cancel(11s)), "cancel");
    EXPECT_EQ(words(m.cancel(11s)), "") << "once";
    EXPECT_EQ(words(m.tick(13s)), "term");
    EXPECT_EQ(words(m.tick(15s)), "kill");
    EXPECT_TRUE(m.cancel_asked());
    EXPECT_FALSE(m.deadline_passed());
}

TEST(ChildMachine, KeepsAChildThatHeededACancelAndEndsOneThatWasTerminated) {
    ChildMachine m = ready_child();
    m.call(10s, 12s);
    m.tick(12s);
    EXPECT_EQ(words(m.answered(12100ms)), "");
    EXPECT_EQ(m.state(), ChildMachine::State::idle);
    m.call(20s, 22s);
    EXPECT_FALSE(m.deadline_passed()) << "of the last call only";
    m.tick(22s);
    m.tick(22300ms);
    EXPECT_EQ(words(m.answered(22301ms)), "close") << "SIGTERM is on its way to it";
}

TEST(ChildMachine, RetiresOnlyBetweenCalls) {
    ChildMachine m = ready_child();
    m.call(10s, 12s);
    EXPECT_EQ(words(m.retire(11s)), "");
    EXPECT_EQ(words(m.answered(11500ms)), "close");
    ChildMachine starting{ChildTimes{}};
    starting.spawned(0s);
    EXPECT_EQ(words(starting.retire(0s)), "");
    EXPECT_EQ(words(starting.ready(1s)), "close");
}

TEST(ChildMachine, KillsWhoBreaksTheProtocolOnce) {
    ChildMachine m = ready_child();
    m.call(10s, 12s);
    EXPECT_EQ(words(m.broken(11s)), "kill");
    EXPECT_EQ(words(m.broken(11s)), "");
}

TEST(ArtifactMachine, WaitsLongerAfterEachCrashAndQuarantinesAtTheFourth) {
    ArtifactMachine m;
    using Verdict = ArtifactMachine::Verdict;
    EXPECT_EQ(m.may_start(0s), Verdict::start);
    Duration now{100s};
    for (const auto wait : {7s, 9s, 13s}) {  // 5 s + 2^n s
        m.crashed(now);
        EXPECT_EQ(m.may_start(now), Verdict::wait);
        EXPECT_EQ(m.wait_left(now), Duration{wait});
        EXPECT_EQ(m.may_start(now + wait - 1us), Verdict::wait);
        EXPECT_EQ(m.may_start(now + wait), Verdict::start);
        now += 20s;
    }
    m.crashed(now);
    EXPECT_EQ(m.may_start(now + 1h), Verdict::quarantined);
    EXPECT_EQ(m.crashes(now), 4U);
    EXPECT_TRUE(m.release());
    EXPECT_FALSE(m.release());
    EXPECT_EQ(m.may_start(now), Verdict::start);
    EXPECT_EQ(m.crashes(now), 0U);
}

TEST(ArtifactMachine, ForgetsCrashesOlderThanTenMinutes) {
    ArtifactMachine m;
    for (int i = 0; i < 20; ++i) m.crashed(Duration{std::chrono::minutes{4 * i}});
    EXPECT_FALSE(m.in_quarantine());
    EXPECT_EQ(m.crashes(Duration{std::chrono::minutes{76}}), 3U);
    EXPECT_EQ(m.crashes(Duration{std::chrono::hours{9}}), 0U);
}
