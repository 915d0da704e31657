#include "core/bug.hpp"
#include "core/decision.hpp"
#include "core/healing_machine.hpp"
#include "core/matcher.hpp"
#include "core/router.hpp"
#include "core/rules.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace heal {
namespace {

using namespace std::chrono_literals;

constexpr Time t0{1'790'000'000'000'000};

LogRecord record(Level level, std::string message, std::string type = {}, int status = 0) {
    LogRecord r;
    r.level = level;
    r.message = std::move(message);
    r.error_type = std::move(type);
    r.http_status = status;
    return r;
}

Candidate candidate(std::string name, std::int64_t priority = 50, double confidence = 0.5) {
    Candidate c;
    c.info.name = std::move(name);
    c.info.risk = Risk::safe;
    c.priority = priority;
    c.confidence = c.prior = confidence;
    c.autonomy = Autonomy::automatic;
    return c;
}

// --- rules
// ---------------------------------------------------------------------------------------------------------

TEST(Rules, BugsOpenAtOnceOnlyForTheFourKinds) {
    const std::pair<LogRecord, std::string> rows[] = {
        {record(Level::fatal, "disk gone"), "fatal"},
        {record(Level::error, "panic: runtime error"), "panic"},
        {record(Level::error, "x", "panic"), "panic"},
        {record(Level::error, "SQLSTATE[40001]: deadlock"), "database_error"},
        {record(Level::error, "x", "org.postgresql.util.PSQLException"), "database_error"},
        {record(Level::error, "GET /x", "", 503), "http_5xx"},
        {record(Level::error, "GET /x", "", 404), ""},
        {record(Level::error, "ordinary"), ""},
    };
    for (const auto& [r, rule] : rows) EXPECT_EQ(opens_at_once(r), rule) << r.message;
}

TEST(Rules, SeverityFollowsImpactAndFrequency) {
    EXPECT_EQ(severity_of(record(Level::fatal, "x"), 1), Severity::p0_critical);
    EXPECT_EQ(severity_of(record(Level::error, "x", "", 500), 1), Severity::p1_major);
    EXPECT_EQ(severity_of(record(Level::error, "x"), 1), Severity::p2_minor);
    EXPECT_EQ(severity_of(record(Level::error, "x"), 100), Severity::p1_major);
    EXPECT_EQ(severity_of(record(Level::warn, "x"), 99), Severity::p3_trivial);
}

TEST(Rules, BugTypesAndTitles) {
    const std::pair<LogRecord, const char*> rows[] = {
        {record(Level::error, "'NoneType' object has no attribute"), "null_pointer"},
        {record(Level::error, "x", "OperationalError"), "sql_error"},
        {record(Level::error, "write: no space left on device"), "resource"},
        {record(Level::error, "connect: ECONNREFUSED"), "network"},
        {record(Level::error, "request timed out"), "performance"},
        {record(Level::error, "unknown directive \"x\""), "config"},
        {record(Level::error, "index out of range"), "logic_bug"}};
    for (const auto& [r, type] : rows) EXPECT_EQ(bug_type_of(r), type) << r.message;
    EXPECT_EQ(title_of(record(Level::error, "line one\nline two", "KeyError")), "KeyError: line one");
    EXPECT_LE(title_of(record(Level::error, std::string(5000, 'x'))).size(), 200U);
    EXPECT_EQ(title_of(record(Level::error, "")), "error without a message");
}

TEST(SlidingCount, CountsExactlyWithinItsWindowAndStaysBounded) {
    SlidingCount c{1h};
    c.add(t0, 1);
    c.add(t0 + 30min, 1);
    EXPECT_EQ(c.count(t0 + 30min), 2U);
    EXPECT_EQ(c.count(t0 + 60min), 1U);  // the first is an hour old: out
    c.add(t0 + 61min, 1);
    EXPECT_EQ(c.count(t0 + 61min), 2U);
    EXPECT_EQ(c.count(t0 + 61min, 10min), 1U);
    SlidingCount many{1h};
    for (int i = 0; i < 100'000; ++i) many.add(t0 + Duration{i * 1000}, 1);
    EXPECT_EQ(many.count(t0 + 100s), 100'000U);
    EXPECT_EQ(many.count(t0 + 3h), 0U);
}

// --- matching
// ------------------------------------------------------------------------------------------------------

std::optional<Threshold> fit(const char* matches, const LogRecord& r, const json::object& target = {}) {
    auto matcher = Matcher::compile(parse_json(matches, "m").value().as_array(), "m");
    EXPECT_TRUE(matcher) << matcher.error().text;
    Incident in;
    in.record = r;
    in.pattern = r.message;
    return matcher->fits(in, target);
}

TEST(Matcher, AnyRuleMustFitAndInItEveryKey) {
    auto r = record(Level::error, "connection refused by 10.0.0.1", "ConnectionError", 502);
    r.service_name = "cart-api";
    EXPECT_TRUE(fit(R"([{"service": "cart-*", "message": "refused"}])", r));
    EXPECT_FALSE(fit(R"([{"service": "cart-*", "message": "accepted"}])", r));
    EXPECT_TRUE(fit(R"([{"service": "x"}, {"error_type": "Connection*", "http_status": [500, 599]}])", r));
    EXPECT_FALSE(fit(R"([{"http_status": 500}])", r));
    EXPECT_FALSE(fit(R"([{"level": "fatal"}])", r));
    EXPECT_FALSE(fit(R"([{"target": ["process"]}])", r));
    EXPECT_TRUE(fit(R"([{"target": ["process"]}])", r, {{"process", json::object{}}}));
    r.context = R"({"tenant": "a", "n": 3})";
    EXPECT_TRUE(fit(R"([{"labels": {"tenant": "a", "n": 3}}])", r));
    EXPECT_FALSE(fit(R"([{"labels": {"tenant": "b"}}])", r));
    EXPECT_FALSE(fit("[]", r));
    EXPECT_EQ(fit(R"([{"trigger": {"count": 5, "window_s": 30}}])", r)->count, 5U);
    EXPECT_FALSE(fit("[{}]", record(Level::info, "x"))) << "below warn nothing matches by default";
}

TEST(Matcher, RefusesWhatItCannotReadAndNamesThePlace) {
    const std::pair<const char*, const char*> rows[] = {
        {R"([{"servce": "x"}])", "m[0].servce: unknown key"},
        {R"([{}, {"message": "("}])", "m[1].message: not a regular expression"},
        {R"([{"http_status": 99}])", "m[0].http_status"},
        {R"([{"level": "loud"}])", "m[0].level"},
        {R"([3])", "m[0]: must be an object"},
        {R"([{"trigger": {"count": 0}}])", "m[0].trigger.count"}};
    for (const auto& [text, expected] : rows) {
        auto matcher = Matcher::compile(parse_json(text, "m").value().as_array(), "m");
        ASSERT_FALSE(matcher) << text;
        EXPECT_EQ(matcher.error().text.rfind(expected, 0), 0U) << matcher.error().text;
    }
}

TEST(Matcher, GlobsAreLinearEvenWhenHostile) {
    EXPECT_TRUE(glob_matches("a*b?d", "axxbcd"));
    EXPECT_FALSE(glob_matches("a*b", "abc"));
    EXPECT_TRUE(glob_matches("*", ""));
    EXPECT_FALSE(glob_matches(std::string(50, '*') + "x", std::string(20'000, 'a')));
}

// --- ranking
// -------------------------------------------------------------------------------------------------------

TEST(Router, PrefersHigherPriorityOverConfidence) {
    std::vector<Candidate> c{candidate("low", 10, 0.99), candidate("high", 90, 0.1)};
    rank(c);
    EXPECT_EQ(c[0].info.name, "high");
}

TEST(Router, EqualPriorityGoesByConfidenceThenName) {
    std::vector<Candidate> c{candidate("b"), candidate("c", 50, 0.9), candidate("a")};
    rank(c);
    EXPECT_EQ(c[0].info.name + c[1].info.name + c[2].info.name, "cab");
}

TEST(Router, BelowItsFloorACandidateIsOutWithTheReason) {
    std::vector<Candidate> c{candidate("x", 90, 0.2), candidate("y", 10, 0.9)};
    c[0].floor = 0.3;
    rank(c);
    EXPECT_EQ(c[0].info.name, "y");
    EXPECT_EQ(c[1].note, "confidence 0.200 is below its floor 0.300");
}

TEST(OutcomeBook, VerifiedOutcomesOutweighThePriorAndOldOnesFade) {
    OutcomeBook book;
    EXPECT_DOUBLE_EQ(book.confidence(0.8, "s", "f", "svc", t0), 0.8);
    for (int i = 0; i < 20; ++i) book.record("s", "f", "svc", false, t0);
    EXPECT_LT(book.confidence(0.8, "s", "f", "svc", t0), 0.05);
    EXPECT_LT(book.confidence(0.8, "s", "other", "svc", t0), 0.3)
        << "backs off to the service and the strategy";
    EXPECT_GT(book.confidence(0.8, "s", "f", "svc", t0 + std::chrono::hours{24 * 365}), 0.6);
    EXPECT_DOUBLE_EQ(book.confidence(0.8, "t", "f", "svc", t0), 0.8);
}

TEST(OutcomeBook, ASuccessThatDidNotHoldBecomesAFailure) {
    OutcomeBook book;
    book.record("s", "f", "svc", true, t0);
    const double before = book.confidence(0.5, "s", "f", "svc", t0);
    book.correct("s", "f", "svc", t0);
    EXPECT_GT(before, 0.5);
    EXPECT_LT(book.confidence(0.5, "s", "f", "svc", t0), 0.5);
}

TEST(Decision, IsComputedAgainFromItsTextByteByByte) {
    OutcomeBook book;
    for (int i = 0; i < 7; ++i) book.record("a", "f", "svc", i % 3 != 0, t0 + Duration{1h} * i);
    book.record("b", "other", "svc", true, t0);
    std::vector<Candidate> candidates{
        candidate("a", 50, 1.0 / 3),
        candidate("b", 50, 0.1),
        candidate("c", 50, 2.0 / 7),
        candidate("d", 90, 0.2)};
    for (auto& c : candidates) c.learned = book.learned(c.info.name, "f", "svc", t0 + Duration{9h});
    candidates[3].floor = 0.5;
    const auto input = decision_input(candidates, {"c"});
    const auto output = decide(input);
    const auto text = json::serialize(input);
    EXPECT_EQ(json::serialize(decide(parse_json(text, "x").value().as_object())), json::serialize(output));
    apply_decision(output, candidates);
    EXPECT_EQ(
        candidates[0].info.name + candidates[1].info.name + candidates[2].info.name + candidates[3].info.name,
        "abcd"
    );
    EXPECT_NEAR(candidates[0].confidence, book.confidence(1.0 / 3, "a", "f", "svc", t0 + Duration{9h}), 1e-5);
    EXPECT_EQ(candidates[3].note, "confidence 0.200 is below its floor 0.500");
}

// --- the machine
// ---------------------------------------------------------------------------------------------------

std::string words(const HealingOrder& o) {
    if (const auto* x = std::get_if<order::Consider>(&o))
        return fmt::format("consider {}{}", x->index, x->approved ? " approved" : "");
    if (const auto* x = std::get_if<order::WriteIntent>(&o)) return fmt::format("intent {}", x->index);
    if (const auto* x = std::get_if<order::Execute>(&o)) return fmt::format("execute {}", x->index);
    if (const auto* x = std::get_if<order::Check>(&o)) return fmt::format("check {}", x->index);
    if (std::holds_alternative<order::Look>(o)) return "look";
    if (const auto* x = std::get_if<order::Wait>(&o))
        return fmt::format("wait {}ms", x->duration.count() / 1000);
    if (const auto* x = std::get_if<order::Undo>(&o)) return fmt::format("undo {}", x->index);
    if (const auto* x = std::get_if<order::Verified>(&o))
        return fmt::format("verified {} {}", x->index, x->verdict);
    if (const auto* x = std::get_if<order::Move>(&o)) return fmt::format("move {}", to_string(x->state));
    return fmt::format("finish {}", to_string(std::get<order::Finish>(o).state));
}

struct Walk {
    explicit Walk(std::vector<Candidate> candidates, std::vector<std::string> excluded = {})
        : machine(std::move(candidates), excluded) {}
    std::string operator()(const HealingInput& in, Duration later = 0us) {
        now = now + later;
        std::string out;
        for (const auto& o : machine.step(in, now)) out += (out.empty() ? "" : "; ") + words(o);
        return out;
    }
    HealingMachine machine;
    Time now = t0;
};

const input::Guarded allowed{true, false, {}, false, {}};
input::Checked evidence(unsigned positive, unsigned negative) { return {Evidence{positive, negative, {}}}; }

TEST(HealingMachine, WalksToHealedOverTwoHorizons) {
    Walk w{{candidate("a")}};
    EXPECT_EQ(w(input::Begin{}), "consider 0");
    EXPECT_EQ(w(allowed), "intent 0");
    EXPECT_EQ(w(input::IntentStored{}), "execute 0");
    EXPECT_EQ(w(input::Executed{Outcome::succeeded, {}}), "move verifying; check 0");
    EXPECT_EQ(w(evidence(0, 1)), "wait 50ms");
    EXPECT_EQ(w(input::Timer{}, 50ms), "check 0");
    EXPECT_EQ(w(evidence(1, 0)), "move stabilizing; wait 60000ms");
    EXPECT_EQ(w(input::Timer{}, 60s), "check 0");
    EXPECT_EQ(w(evidence(1, 0)), "verified 0 succeeded; finish healed");
    EXPECT_EQ(*w.machine.healthy_since(), t0 + 50ms);
}

TEST(HealingMachine, AFailedAttemptIsTakenBackBeforeTheNextIsTried) {
    Walk w{{candidate("a"), candidate("b", 40)}};
    w(input::Begin{}), w(allowed), w(input::IntentStored{});
    EXPECT_EQ(w(input::Executed{Outcome::failed, "no"}), "verified 0 failed; move healing; undo 0");
    EXPECT_EQ(w(input::Undone{true, {}}), "consider 1");
    w(allowed), w(input::IntentStored{});
    EXPECT_EQ(w(input::Executed{Outcome::declined, "not mine"}), "undo 1");
    EXPECT_EQ(w(input::Undone{true, {}}), "finish escalated");
}

TEST(HealingMachine, SilenceIsNeverHealed) {
    Walk w{{candidate("a")}};
    w(input::Begin{}), w(allowed), w(input::IntentStored{});
    w(input::Executed{Outcome::succeeded, {}});
    EXPECT_EQ(w(evidence(0, 0)), "move stabilizing; wait 60000ms");
    w(input::Timer{}, 60s);
    EXPECT_EQ(w(evidence(0, 0)), "verified 0 unknown; finish unverified");
}

TEST(HealingMachine, ARecurrenceWhileStabilizingIsAFailureButALateOldLineIsNot) {
    Walk w{{candidate("a")}};
    w(input::Begin{}), w(allowed), w(input::IntentStored{}, 1s), w(input::Executed{Outcome::succeeded, {}}),
        w(evidence(1, 0), 1s);
    EXPECT_EQ(w(input::Recurred{t0 + 1s}), "");
    EXPECT_EQ(w(input::Recurred{t0 + 3s}, 1s), "verified 0 failed; move healing; undo 0");
}

TEST(HealingMachine, VerificationThatStaysBadFailsAfterItsTimeout) {
    auto c = candidate("a");
    c.verify.timeout = 200ms;
    Walk w{{c}};
    w(input::Begin{}), w(allowed), w(input::IntentStored{}), w(input::Executed{Outcome::succeeded, {}});
    EXPECT_EQ(w(evidence(0, 1)), "wait 50ms");
    w(input::Timer{}, 50ms);
    EXPECT_EQ(w(evidence(0, 1)), "wait 100ms");
    w(input::Timer{}, 100ms);
    EXPECT_EQ(w(evidence(1, 1)), "verified 0 failed; move healing; undo 0")
        << "one bad sign outweighs good ones";
}

TEST(HealingMachine, AfterAnUnknownOutcomeVerificationDecidesAndTheNextMayTry) {
    auto c = candidate("a");
    c.verify.timeout = 0ms;
    Walk w{{c, candidate("b", 1)}};
    w(input::Begin{}), w(allowed), w(input::IntentStored{});
    EXPECT_EQ(w(input::Executed{Outcome::unknown, {}}), "move verifying; check 0");
    EXPECT_EQ(w(evidence(0, 1)), "verified 0 failed; move healing; undo 0");
    EXPECT_EQ(w(input::Undone{true, {}}), "consider 1");
}

TEST(HealingMachine, AnUnknownOutcomeWithoutEvidenceEscalates) {
    Walk w{{candidate("a"), candidate("b", 1)}};
    w(input::Begin{}), w(allowed), w(input::IntentStored{}), w(input::Executed{Outcome::unknown, {}}),
        w(evidence(0, 0)), w(input::Timer{}, 60s);
    EXPECT_EQ(w(evidence(0, 0)), "verified 0 unknown; finish escalated");
}

TEST(HealingMachine, UnknownMayStillProveHealthy) {
    Walk w{{candidate("a")}};
    w(input::Begin{}), w(allowed), w(input::IntentStored{}), w(input::Executed{Outcome::unknown, {}}),
        w(evidence(2, 0)), w(input::Timer{}, 60s);
    EXPECT_EQ(w(evidence(2, 0)), "verified 0 succeeded; finish healed");
}

TEST(HealingMachine, AFailedUndoStopsEverything) {
    Walk w{{candidate("a"), candidate("b", 1)}};
    w(input::Begin{}), w(allowed), w(input::IntentStored{}), w(input::Executed{Outcome::failed, {}});
    EXPECT_EQ(w(input::Undone{false, "disk full"}), "finish escalated");
}

TEST(HealingMachine, WaitsForAGuardAndAsksAgain) {
    Walk w{{candidate("a")}};
    w(input::Begin{});
    EXPECT_EQ(w(input::Guarded{false, false, t0 + 5s, false, "cooldown"}), "move open; wait 5000ms");
    EXPECT_EQ(w(input::Timer{}, 5s), "look");
    EXPECT_EQ(w(input::Looked{Evidence{0, 1, {}}, false}), "consider 0");
    EXPECT_EQ(w(allowed), "intent 0");
}

TEST(HealingMachine, WhatIsHealthyAndQuietWhileItWaitsNeedsNothing) {
    Walk w{{candidate("a")}};
    w(input::Begin{}), w(input::Guarded{false, false, t0 + 5s, false, "cooldown"});
    EXPECT_EQ(w(input::Timer{}, 5s), "look");
    EXPECT_EQ(w(input::Looked{Evidence{1, 0, {}}, false}), "finish closed");
    Walk noisy{{candidate("a")}};
    noisy(input::Begin{}), noisy(input::Guarded{false, false, t0 + 5s, false, "cooldown"});
    noisy(input::Recurred{t0 + 4s});
    noisy(input::Timer{}, 5s);
    EXPECT_EQ(noisy(input::Looked{Evidence{1, 0, {}}, true}), "consider 0") << "the error came again";
    Walk blind{{candidate("a")}};
    blind(input::Begin{}), blind(input::Guarded{false, false, t0 + 5s, false, "cooldown"});
    blind(input::Timer{}, 5s);
    EXPECT_EQ(blind(input::Looked{Evidence{}, false}), "consider 0") << "silence is no evidence";
}

TEST(HealingMachine, AnotherIncidentsActionMayHaveHelpedThisOneToo) {
    Walk w{{candidate("a")}};
    w(input::Begin{}), w(input::Guarded{false, false, {}, true, "lock"});
    EXPECT_EQ(w(input::Timer{}, 250ms), "look");
    EXPECT_EQ(w(input::Looked{Evidence{1, 0, {}}, true}), "finish closed");
}

TEST(HealingMachine, AsksALockOftenAtFirstThenLess) {
    Walk w{{candidate("a")}};
    w(input::Begin{});
    for (const char* wait :
         {"250", "500", "1000", "2000", "4000", "8000", "16000", "32000", "60000", "60000"}) {
        EXPECT_EQ(
            w(input::Guarded{false, false, {}, true, "lock"}), fmt::format("move open; wait {}ms", wait)
        );
        w(input::Timer{}), w(input::Looked{});
    }
    // What passes on this node is told at once, and then it asks often again.
    w(input::Guarded{false, false, {}, true, "lock"});
    EXPECT_EQ(w(input::Freed{}), "look");
    EXPECT_EQ(w(input::Looked{}), "consider 0");
    EXPECT_EQ(w(input::Guarded{false, false, {}, true, "lock"}), "move open; wait 250ms");
}

TEST(HealingMachine, AFreeTargetConcernsOnlyWhatWaits) {
    Walk w{{candidate("a")}};
    EXPECT_EQ(w(input::Freed{}), "");
    w(input::Begin{});
    EXPECT_EQ(w(input::Freed{}), "");
    w(allowed), w(input::IntentStored{}), w(input::Executed{Outcome::succeeded, {}}), w(evidence(1, 0));
    EXPECT_EQ(w(input::Freed{}), "");
}

TEST(HealingMachine, WhatIsLeftAloneIsNotWokenByAFreeTarget) {
    Walk w{{candidate("a")}};
    EXPECT_EQ(w(input::LeaveAlone{6s}), "move open; wait 6000ms");
    EXPECT_EQ(w(input::Freed{}), "");
    EXPECT_EQ(w(input::Timer{}, 6s), "look");
}

TEST(HealingMachine, WhatNobodyAnsweredIsConsideredAgainOnceItIsAllowed) {
    Walk w{{candidate("a")}};
    w(input::Begin{});
    EXPECT_EQ(
        w(input::Guarded{false, true, t0 + 1h, false, "it failed last"}),
        "move awaiting_approval; wait 3600000ms"
    );
    EXPECT_EQ(w(input::Timer{}, 1h), "look");
    EXPECT_EQ(w(input::Looked{Evidence{0, 1, {}}, false}), "consider 0");
}

TEST(HealingMachine, WhatAPersonAllowedStaysAllowedWhileItWaits) {
    Walk w{{candidate("a")}};
    w(input::Begin{}), w(input::Guarded{false, true, {}, false, "approve"});
    EXPECT_EQ(w(input::Approved{"a"}), "consider 0 approved");
    EXPECT_EQ(w(input::Guarded{false, false, {}, true, "lock"}), "move open; wait 250ms");
    w(input::Timer{});
    EXPECT_EQ(w(input::Looked{}), "consider 0 approved");
}

TEST(HealingMachine, TriesWhatMayRunByItselfBeforeAskingAPerson) {
    Walk w{{candidate("a"), candidate("b", 1)}};
    w(input::Begin{});
    EXPECT_EQ(w(input::Guarded{false, true, {}, false, "approve"}), "consider 1");
    w(allowed), w(input::IntentStored{}), w(input::Executed{Outcome::failed, {}});
    EXPECT_EQ(w(input::Undone{true, {}}), "move awaiting_approval");
    EXPECT_EQ(w(input::Approved{"nobody"}), "");
    EXPECT_EQ(w(input::Approved{"a"}), "consider 0 approved");
    EXPECT_EQ(w(allowed), "intent 0");
}

TEST(HealingMachine, ARefusalEscalates) {
    Walk w{{candidate("a")}};
    w(input::Begin{}), w(input::Guarded{false, true, {}, false, "approve"});
    EXPECT_EQ(w(input::Rejected{"no"}), "finish escalated");
}

TEST(HealingMachine, RuledOutByAllGuardsIsSuppressedAndNothingFitsEscalates) {
    Walk w{{candidate("a")}};
    w(input::Begin{});
    EXPECT_EQ(w(input::Guarded{false, false, {}, false, "off"}), "finish suppressed");
    Walk none{{}};
    EXPECT_EQ(none(input::Begin{}), "finish escalated");
}

TEST(HealingMachine, AnIntentThatCouldNotBeStoredIsTriedAgainLater) {
    Walk w{{candidate("a")}};
    w(input::Begin{}), w(allowed);
    EXPECT_EQ(w(input::IntentFailed{"disk full"}), "move healing; wait 1000ms");
    EXPECT_EQ(w(input::Timer{}, 1s), "look");
    EXPECT_EQ(w(input::Looked{}), "consider 0");
}

TEST(HealingMachine, WhatFailedBeforeGoesLast) {
    Walk w{{candidate("a", 90), candidate("b", 10)}, {"a"}};
    EXPECT_EQ(w.machine.candidates()[0].info.name, "b");
}

TEST(HealingMachine, ARestartGoesOnWithWhatIsNotDecided) {
    const auto how = [](const char* state, const char* verified, const char* rolled_back) {
        const auto in = resume_of(0, {state, verified, rolled_back, true}, {});
        return in->undoing ? std::string{"undo"} : std::string{to_string(in->executed)};
    };
    EXPECT_FALSE(resume_of(0, {"failed", "failed", "succeeded", false}, {}));
    EXPECT_FALSE(resume_of(0, {"declined", "", "", false}, {}));
    EXPECT_EQ(how("started", "", ""), "unknown");
    EXPECT_EQ(how("executed", "", ""), "succeeded");
    EXPECT_EQ(how("unknown", "", ""), "unknown");
    EXPECT_EQ(how("cancelled", "", ""), "cancelled");  // somebody stopped it: it does not run again
    // Verified, but the incident has not ended: it is looked at again, nothing is done twice.
    EXPECT_EQ(how("succeeded", "succeeded", ""), "succeeded");
    EXPECT_EQ(how("unknown", "unknown", ""), "succeeded");
    // Taking back had not begun, or not come to its end.
    EXPECT_EQ(how("failed", "", ""), "undo");
    EXPECT_EQ(how("failed", "failed", ""), "undo");
    EXPECT_EQ(how("unknown", "failed", ""), "undo");
    EXPECT_EQ(how("declined", "", ""), "undo");
    EXPECT_EQ(how("failed", "failed", "running"), "undo");
    EXPECT_EQ(how("failed", "failed", "failed"), "undo");
}

TEST(HealingMachine, ResumesWhereItStood) {
    auto twice = candidate("twice");
    twice.info.idempotent = true;
    EXPECT_EQ((Walk{{twice}}(input::Resume{0, Outcome::unknown, {}, false})), "execute 0");
    EXPECT_EQ(
        (Walk{{candidate("once")}}(input::Resume{0, Outcome::unknown, {}, false})), "move verifying; check 0"
    );
    EXPECT_EQ(
        (Walk{{candidate("once")}}(input::Resume{0, Outcome::succeeded, {}, false})),
        "move verifying; check 0"
    );
    EXPECT_EQ((Walk{{candidate("once")}}(input::Resume{0, Outcome::unknown, {}, true})), "undo 0");
}

TEST(HealingMachine, AnswersNothingAfterTheEndOrOutOfTurn) {
    Walk w{{candidate("a")}};
    EXPECT_EQ(w(input::IntentStored{}), "");
    EXPECT_EQ(w(evidence(1, 0)), "");
    w(input::Begin{}), w(input::Guarded{false, false, {}, false, "off"});
    EXPECT_TRUE(w.machine.finished());
    EXPECT_EQ(w(input::Begin{}), "");
}

TEST(Bugs, EveryStatusHasANameAndAWayToClosedAndBack) {
    for (int i = 0; i <= static_cast<int>(BugStatus::reopened); ++i) {
        const auto status = static_cast<BugStatus>(i);
        BugStatus back{};
        ASSERT_TRUE(parse_bug_status(to_string(status), back));
        EXPECT_EQ(back, status);
        EXPECT_FALSE(may_move(status, status)) << to_string(status);
        const bool under_way = status == BugStatus::applying || status == BugStatus::testing;
        EXPECT_EQ(may_move(status, BugStatus::closed), !under_way && status != BugStatus::closed)
            << to_string(status);
        EXPECT_EQ(may_move(status, BugStatus::reopened), !is_open(status)) << to_string(status);
    }
    BugStatus none{};
    EXPECT_FALSE(parse_bug_status("solved", none));
    EXPECT_FALSE(may_move(BugStatus::detected, BugStatus::applying))
        << "nothing is applied that nobody approved";
    EXPECT_FALSE(may_move(BugStatus::fix_suggested, BugStatus::applying));
    EXPECT_TRUE(may_move(BugStatus::approved, BugStatus::applying));
    EXPECT_TRUE(may_move(BugStatus::testing, BugStatus::failed));
}

TEST(Bugs, AnOccurrenceCountsReopensOrOpensANewOne) {
    struct Row {
        BugStatus status;
        bool within_a_day;
        const char *last, *fixed_in, *release;
        BugEffect effect;
    };
    const Row rows[] = {
        {BugStatus::detected, true, "", "", "", BugEffect::count},
        {BugStatus::approved, true, "1", "", "2", BugEffect::count},
        {BugStatus::detected, false, "", "", "", BugEffect::open_new},
        {BugStatus::rejected, false, "", "", "", BugEffect::count},
        {BugStatus::fixed, true, "", "", "", BugEffect::reopen},
        {BugStatus::fixed, false, "1", "2", "2", BugEffect::reopen},
        {BugStatus::fixed, true, "1", "2", "3", BugEffect::reopen},
        {BugStatus::fixed, true, "1", "2", "1", BugEffect::count},
        {BugStatus::fixed, true, "1", "", "1", BugEffect::reopen},
        {BugStatus::closed, false, "1", "", "", BugEffect::reopen},
    };
    for (const auto& r : rows) {
        EXPECT_EQ(effect_of({r.status, r.within_a_day, r.last, r.fixed_in}, r.release), r.effect)
            << to_string(r.status) << " " << r.last << " " << r.fixed_in << " " << r.release;
    }
}

}  // namespace
}  // namespace heal
