#include "core/approval.hpp"

#include <gtest/gtest.h>

namespace heal {
namespace {

using namespace std::chrono_literals;

constexpr Time t0{1'790'000'000'000'000};

json::object object(const char* text) { return json::parse(text).as_object(); }

Approval request(const char* bound = R"({"build": "b1", "parameters": {"port": 80}})", unsigned needed = 1) {
    Approval a;
    a.id = "a1", a.kind = "heal", a.subject = "e1/restart";
    a.bound = object(bound);
    a.digest = binding_digest(a.kind, a.subject, a.bound);
    a.needed = needed;
    a.requested_at = t0, a.expires_at = t0 + 1h;
    return a;
}

Vote yes(const char* actor, Time at = t0 + 1min) { return {actor, true, false, "", at}; }

TEST(Approval, TheDigestIsOfTheContentNotOfItsOrder) {
    const auto a = object(R"({"x": 1, "y": {"b": [1, 2], "a": null}})"),
               b = object(R"({"y": {"a": null, "b": [1, 2]}, "x": 1})");
    EXPECT_EQ(binding_digest("heal", "s", a), binding_digest("heal", "s", b));
    const char* others[] = {
        R"({"x": 2, "y": {"b": [1, 2], "a": null}})",
        R"({"x": 1, "y": {"b": [2, 1], "a": null}})",
        R"({"x": 1, "y": {"b": [1, 2]}})",
        R"({"x": "1", "y": {"b": [1, 2], "a": null}})"};
    for (const char* other : others)
        EXPECT_NE(binding_digest("heal", "s", a), binding_digest("heal", "s", object(other))) << other;
    EXPECT_NE(binding_digest("heal", "s", a), binding_digest("patch", "s", a));
    EXPECT_NE(binding_digest("ab", "c", a), binding_digest("a", "bc", a));
    json::object large;
    large["n"] = std::uint64_t{7};
    EXPECT_EQ(binding_digest("k", "s", large), binding_digest("k", "s", object(R"({"n": 7})")));
}

TEST(Approval, OneYesIsEnoughUnlessMoreAreNeeded) {
    auto one = request();
    ASSERT_TRUE(cast(one, yes("anna"), one.digest));
    EXPECT_EQ(one.state, ApprovalState::approved);
    auto two = request("{}", 2);
    ASSERT_TRUE(cast(two, yes("anna (http:10.0.0.1)"), ""));
    EXPECT_EQ(two.state, ApprovalState::pending);
    const auto again = cast(two, yes("anna (http:10.0.0.2)"), "");
    EXPECT_EQ(again.error().code, errc::conflict) << "she is the same person elsewhere";
    ASSERT_TRUE(cast(two, yes("bert (http:10.0.0.1)"), ""));
    EXPECT_EQ(two.state, ApprovalState::approved);
}

TEST(Approval, ANoEndsItAndNothingIsTakenAfterwards) {
    auto a = request("{}", 2);
    ASSERT_TRUE(cast(a, yes("anna"), ""));
    ASSERT_TRUE(cast(a, {"bert", false, false, "not now", t0 + 2min}, ""));
    EXPECT_EQ(a.state, ApprovalState::rejected);
    EXPECT_EQ(a.reason, "not now (bert)");
    EXPECT_EQ(a.ended_at, t0 + 2min);
    EXPECT_EQ(cast(a, yes("carl"), "").error().code, errc::conflict);
}

TEST(Approval, WhoSawSomethingElseDoesNotApproveThis) {
    auto a = request();
    const auto refused = cast(a, yes("anna"), request(R"({"build": "b0"})").digest);
    EXPECT_EQ(refused.error().code, errc::conflict);
    EXPECT_EQ(a.state, ApprovalState::pending);
    EXPECT_TRUE(a.votes.empty());
}

TEST(Approval, AnyDriftVoidsItAndSaysWhat) {
    const std::pair<const char*, const char*> rows[] = {
        {R"({"build": "b2", "parameters": {"port": 80}})", R"(build was "b1" and is "b2")"},
        {R"({"build": "b1", "parameters": {"port": 81}})", "parameters.port was 80 and is 81"},
        {R"({"build": "b1", "parameters": {}})", "parameters.port was 80 and is absent"},
        {R"({"build": "b1", "parameters": {"port": 80}, "x": 1})", "x was absent and is 1"}};
    for (const auto& [now, words] : rows) {
        for (const bool given : {false, true}) {
            auto a = request();
            if (given) {
                ASSERT_TRUE(cast(a, yes("anna"), ""));
            }
            const auto bound = object(now);
            EXPECT_TRUE(refresh(a, &bound, t0 + 2min));
            EXPECT_EQ(a.state, ApprovalState::voided);
            EXPECT_NE(a.reason.find(words), std::string::npos) << a.reason;
            EXPECT_FALSE(cast(a, yes("bert"), ""));
        }
    }
    auto same = request();
    const auto bound = object(R"({"parameters": {"port": 80}, "build": "b1"})");
    EXPECT_FALSE(refresh(same, &bound, t0 + 2min));
}

TEST(Approval, DriftNamesAtMostFivePlaces) {
    json::object then, now;
    for (int i = 0; i < 8; ++i) then["k" + std::to_string(i)] = i, now["k" + std::to_string(i)] = i + 1;
    const auto text = drift(then, now);
    EXPECT_NE(text.find("k4 was 4 and is 5; and more"), std::string::npos) << text;
    EXPECT_EQ(drift(then, then), "");
}

TEST(Approval, ItExpiresBeforeAndAfterItWasGiven) {
    for (const bool given : {false, true}) {
        auto a = request();
        if (given) {
            ASSERT_TRUE(cast(a, yes("anna"), ""));
        }
        EXPECT_FALSE(refresh(a, nullptr, t0 + 1h - 1us));
        EXPECT_TRUE(refresh(a, nullptr, t0 + 1h));
        EXPECT_EQ(a.state, ApprovalState::expired);
    }
    auto late = request();
    EXPECT_EQ(cast(late, yes("anna", t0 + 1h), "").error().code, errc::conflict);
    EXPECT_EQ(late.state, ApprovalState::expired);
}

TEST(Approval, BreakingTheGlassNeedsAReasonAndNobodyElse) {
    auto a = request("{}", 2);
    EXPECT_EQ(cast(a, {"anna", true, true, "", t0}, "").error().code, errc::invalid_input);
    EXPECT_EQ(a.state, ApprovalState::pending);
    ASSERT_TRUE(cast(a, {"anna", true, true, "the shop is down", t0}, ""));
    EXPECT_EQ(a.state, ApprovalState::approved);
    EXPECT_TRUE(a.emergency());
}

TEST(Approval, StatesHaveNamesThatCanBeReadBack) {
    for (int i = 0; i <= static_cast<int>(ApprovalState::used); ++i) {
        ApprovalState back{};
        EXPECT_TRUE(parse_approval_state(to_string(static_cast<ApprovalState>(i)), back));
        EXPECT_EQ(static_cast<int>(back), i);
    }
    ApprovalState untouched = ApprovalState::used;
    EXPECT_FALSE(parse_approval_state("allowed", untouched));
}

}  // namespace
}  // namespace heal
