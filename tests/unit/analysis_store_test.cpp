// Statements of the analyst, the same for both drivers.
#include "store/analysis_store.hpp"

#include "store/bug_store.hpp"
#include "store/queries.hpp"
#include "store_world.hpp"

#include <gtest/gtest.h>

namespace heal {
namespace {

using namespace std::chrono_literals;

class AnalysisStoreTest : public StoreWorld {
protected:
    void SetUp() override {
        StoreWorld::SetUp();
        if (IsSkipped()) return;
        db = open(false).value();
        ASSERT_TRUE(migrate(*db, clock));
    }
    void TearDown() override {
        db.reset();
        StoreWorld::TearDown();
    }

    LogRecord record(
        const std::string& message, const std::string& type = "KeyError", const std::string& service = "cart"
    ) {
        LogRecord r;
        r.service_name = service;
        r.environment = "prod";
        r.level = Level::fatal;
        r.error_type = type;
        r.message = message;
        r.pattern = message;
        r.stack_trace = "trace of " + message;
        r.context = R"({"k":1})";
        r.digest = sha256_hex(service + message);
        r.fingerprint = r.digest.substr(0, 16);
        r.time = r.received = clock.wall();
        r.source = "http";
        return r;
    }
    std::string bug(
        const std::string& message, const std::string& type = "KeyError", const std::string& service = "cart"
    ) {
        const auto r = record(message, type, service);
        EXPECT_TRUE(sql::add_occurrences(*db, {&r, "", 1, 3, clock.wall(), clock.wall(), Severity::p1_major})
        );
        const auto id = new_id(clock);
        EXPECT_TRUE(sql::insert_log_entry(*db, id, r, 1));
        clock.advance(1s);
        return sql::open_or_count_bug(*db, clock, r, Severity::p1_major, "fatal", 1, clock.wall(), id)
            .value()
            ->id;
    }
    sql::AiCall call(
        const std::string& provider,
        const std::string& bug,
        std::int64_t in,
        std::int64_t out,
        std::int64_t cost = 0
    ) {
        sql::AiCall c;
        c.id = new_id(clock);
        c.at = clock.wall();
        c.day = to_rfc3339(c.at).substr(0, 10);
        c.purpose = "analysis";
        c.provider = provider;
        c.model = "m";
        c.bug = bug;
        c.input_tokens = in;
        c.output_tokens = out;
        c.cost_micros = cost;
        return c;
    }
    sql::AnalysisRow analysis(const std::string& id, const std::string& source) {
        sql::AnalysisRow a;
        a.id = new_id(clock);
        a.bug = id;
        a.at = clock.wall();
        a.source = source;
        a.root_cause = "cause";
        a.bug_classification = "logic_bug";
        a.prevention_tips = {"tip"};
        a.context = {{"code", json::array{}}};
        return a;
    }
    sql::SuggestionRow suggestion(const std::string& id, unsigned rank, const std::string& title) {
        sql::SuggestionRow s;
        s.id = new_id(clock);
        s.bug = id;
        s.rank = rank;
        s.provider = "p";
        s.model = "m";
        s.root_cause = "cause of " + title;
        s.fix_title = title;
        s.fix_approach = "approach";
        s.files_affected = {"a.py"};
        s.confidence_score = 1.5;
        s.edits = std::string{"edit\0s", 6};
        s.revision = "c0ffee";
        return s;
    }

    std::unique_ptr<Database> db;
};

TEST_P(AnalysisStoreTest, WhatIsReservedCountsUntilItIsSettled) {
    const auto id = bug("boom");
    auto c = call("p", id, 700, 300, 50);
    ASSERT_TRUE(sql::insert_ai_call(*db, c));
    ASSERT_TRUE(sql::insert_ai_call(*db, call("q", "other", 10, 5, 7)));
    EXPECT_EQ(sql::ai_spent_on(*db, c.day).value().tokens, 1015);
    EXPECT_EQ(sql::ai_spent_on(*db, c.day).value().cost_micros, 57);
    EXPECT_EQ(sql::ai_spent_for(*db, id).value().tokens, 1000);
    EXPECT_EQ(sql::ai_spent_by(*db, c.day, "p").value().tokens, 1000);
    EXPECT_EQ(sql::ai_spent_on(*db, "1999-01-01").value().tokens, 0);
    c.outcome = "answered";
    c.input_tokens = 500;
    c.cached_tokens = 100;
    c.output_tokens = 20;
    c.cost_micros = 9;
    c.tries = 2;
    c.took = 3s;
    c.redactions = R"({"password":2})";
    c.error = "none \xFF";
    ASSERT_TRUE(sql::settle_ai_call(*db, c));
    EXPECT_EQ(sql::ai_spent_for(*db, id).value().tokens, 520);
    const auto rows = sql::ai_calls(*db, id, 10).value();
    ASSERT_EQ(rows.size(), 1U);
    EXPECT_EQ(rows[0].at("outcome").as_string(), "answered");
    EXPECT_EQ(rows[0].at("redactions").at("password").as_int64(), 2);
    const auto figures = sql::ai_figures(*db, c.day).value();
    ASSERT_EQ(figures.size(), 2U);
    EXPECT_EQ(figures[0].at("answered").as_int64(), 1);
    EXPECT_EQ(figures[0].at("cached_tokens").as_int64(), 100);
    EXPECT_EQ(figures[1].at("asked").as_int64(), 1);
    c.id = "nobody";
    EXPECT_EQ(sql::settle_ai_call(*db, c).error().code, errc::not_found);
    c.outcome = "guessed";
    c.id = new_id(clock);
    EXPECT_EQ(sql::insert_ai_call(*db, c).error().code, errc::conflict);
}

TEST_P(AnalysisStoreTest, TheBreakerSeesTheNewestFirst) {
    for (const char* outcome : {"failed", "answered", "limited"}) {
        auto c = call("p", "b", 1, 1);
        c.outcome = outcome;
        c.error = std::string{"e-"} + outcome;
        ASSERT_TRUE(sql::insert_ai_call(*db, c));
        clock.advance(1min);
    }
    const auto facts = sql::ai_calls_of(*db, "p", clock.wall() - 150s).value();
    ASSERT_EQ(facts.size(), 2U);
    EXPECT_EQ(facts[0].outcome, "limited");
    EXPECT_EQ(facts[1].error, "e-answered");
    EXPECT_TRUE(sql::ai_calls_of(*db, "q", Time{0}).value().empty());
}

TEST_P(AnalysisStoreTest, AnAnswerIsKeptForItsTime) {
    const sql::AiAnswer a{"k", "f", "rev", "p", "m", R"({"analysis":1})"};
    const Time t0 = clock.wall();
    ASSERT_TRUE(sql::save_ai_answer(*db, a, t0));
    EXPECT_FALSE(sql::use_ai_answer(*db, "other", Time{0}, t0).value());
    EXPECT_EQ(sql::use_ai_answer(*db, "k", t0, t0 + 1h).value()->answer, a.answer);
    EXPECT_FALSE(sql::use_ai_answer(*db, "k", t0 + 1s, t0 + 2h).value()) << "too old";
    auto newer = a;
    newer.answer = R"({"analysis":2})";
    ASSERT_TRUE(sql::save_ai_answer(*db, newer, t0 + 3h));
    EXPECT_EQ(sql::use_ai_answer(*db, "k", t0, t0 + 4h).value()->answer, newer.answer);
    EXPECT_EQ(sql::forget_ai_answers(*db, t0 + 4h).value(), 0) << "it was used";
    EXPECT_EQ(sql::forget_ai_answers(*db, t0 + 5h).value(), 1);
}

TEST_P(AnalysisStoreTest, NewSuggestionsTakeThePlaceOfThoseNobodyDecided) {
    const auto id = bug("boom");
    ASSERT_TRUE(
        sql::replace_suggestions(*db, id, {suggestion(id, 1, "one"), suggestion(id, 2, "two")}, clock.wall())
    );
    auto rows = sql::list_suggestions(*db, id, false).value();
    ASSERT_EQ(rows.size(), 2U);
    EXPECT_EQ(rows[0].at("fix_title").as_string(), "one");
    EXPECT_DOUBLE_EQ(rows[0].at("confidence_score").as_double(), 1.0) << "a model's word is bounded";
    EXPECT_EQ(rows[0].at("edits").as_string(), "edits") << "PostgreSQL takes no NUL";
    EXPECT_EQ(rows[0].at("code_diff").as_string(), "edits");
    EXPECT_EQ(rows[0].at("files_affected").as_array()[0].as_string(), "a.py");
    const std::string first{view(rows[0].at("id").as_string())}, second{view(rows[1].at("id").as_string())};
    ASSERT_TRUE(sql::set_suggestion_evidence(*db, second, {{"red_green", true}}, 80));
    ASSERT_TRUE(sql::set_suggestion_edits(*db, second, "better", "diff"));
    rows = sql::list_suggestions(*db, id, false).value();
    EXPECT_EQ(rows[0].at("id").as_string(), second) << "evidence ranks, not the model";
    EXPECT_EQ(rows[0].at("evidence").at("red_green").as_bool(), true);
    EXPECT_EQ(rows[0].at("code_diff").as_string(), "diff");
    ASSERT_TRUE(sql::set_suggestion_status(*db, second, "approved", "anna", clock.wall()));
    EXPECT_EQ(
        sql::set_suggestion_status(*db, second, "great", "anna", clock.wall()).error().code, errc::conflict
    );
    clock.advance(1h);
    ASSERT_TRUE(sql::replace_suggestions(*db, id, {suggestion(id, 1, "three")}, clock.wall()));
    rows = sql::list_suggestions(*db, id, false).value();
    ASSERT_EQ(rows.size(), 2U) << "what was approved stays";
    EXPECT_EQ(sql::list_suggestions(*db, id, true).value().size(), 3U);
    EXPECT_EQ(sql::show_suggestion(*db, first).value().at("status").as_string(), "superseded");
    EXPECT_EQ(sql::show_suggestion(*db, second).value().at("decided_by").as_string(), "anna");
    for (const auto& outcome :
         {sql::set_suggestion_edits(*db, "x", "", ""),
          sql::set_suggestion_evidence(*db, "x", {}, 1),
          sql::set_suggestion_status(*db, "x", "applied", "", Time{0})})
        EXPECT_EQ(outcome.error().code, errc::not_found);
    EXPECT_EQ(sql::show_suggestion(*db, "x").error().code, errc::not_found);
}

TEST_P(AnalysisStoreTest, AQuestionIsMadeOfWhatIsKnown) {
    const auto old = bug("old sum"), other = bug("old elsewhere", "KeyError", "shop"),
               strange = bug("strange", "ValueError");
    for (const auto& solved : {other, old, strange}) {
        ASSERT_TRUE(
            sql::replace_suggestions(*db, solved, {suggestion(solved, 1, "fix of " + solved)}, clock.wall())
        );
        const std::string fix{
            view(sql::list_suggestions(*db, solved, false).value()[0].at("id").as_string())};
        ASSERT_TRUE(sql::set_suggestion_status(*db, fix, "applied", "heald", clock.wall()));
        ASSERT_TRUE(sql::change_bug(*db, clock, solved, {"fix", "anna", "", "", "", ""}));
        clock.advance(1min);
    }
    const auto id = bug("new total");
    const auto extra = record("new total");
    for (int i = 0; i < 3; ++i) {
        clock.advance(1s);
        auto r = extra;
        r.received = clock.wall();
        r.message = "new total " + std::to_string(i);
        ASSERT_TRUE(sql::insert_log_entry(*db, new_id(clock), r, 1));
    }
    const auto in = sql::load_analysis_input(*db, id, 2, clock.wall()).value();
    EXPECT_EQ(string_at(in.bug, "id"), id);
    EXPECT_FALSE(in.bug.contains("history"));
    EXPECT_EQ(in.pattern, "new total");
    EXPECT_EQ(in.level, "fatal");
    EXPECT_EQ(in.occurrences, 3);
    EXPECT_EQ(in.last_day, 3);
    ASSERT_EQ(in.logs.size(), 2U);
    EXPECT_EQ(in.logs[0].message, "new total 2") << "newest first";
    EXPECT_EQ(in.logs[0].context, R"({"k":1})");
    ASSERT_EQ(in.similar.size(), 2U) << "of the same type only";
    EXPECT_EQ(in.similar[0].fix_title, "fix of " + old) << "of the same service first";
    EXPECT_EQ(in.similar[1].fix_title, "fix of " + other);
    const auto by_code =
        sql::load_analysis_input(*db, std::string{string_at(in.bug, "bug_code")}, 2, clock.wall());
    EXPECT_EQ(string_at(by_code.value().bug, "id"), id);
    EXPECT_EQ(
        sql::load_analysis_input(*db, "BUG-20000101-00001", 2, clock.wall()).error().code, errc::not_found
    );
}

TEST_P(AnalysisStoreTest, ABugIsLookedAtOnceUntilItComesBackOrAModelCanBeAsked) {
    const auto first = bug("one"), second = bug("two"), closed = bug("three");
    ASSERT_TRUE(sql::change_bug(*db, clock, closed, {"close", "anna", "", "", "", ""}));
    using Ids = std::vector<std::string>;
    const auto waiting = [&](Time rules_before = Time{0}) {
        return sql::bugs_without_analysis(*db, rules_before, 10).value();
    };
    EXPECT_EQ(waiting(), (Ids{first, second}));
    EXPECT_EQ(sql::bugs_without_analysis(*db, Time{0}, 1).value(), (Ids{first}));
    ASSERT_TRUE(sql::insert_analysis(*db, analysis(first, "model")));
    ASSERT_TRUE(sql::insert_analysis(*db, analysis(second, "rules")));
    for (const auto& id : {first, second})
        ASSERT_TRUE(sql::move_bug(*db, clock, id, BugStatus::analyzed, "heald", "x"));
    EXPECT_EQ(waiting(), Ids{});
    EXPECT_EQ(waiting(clock.wall() - 1h), Ids{}) << "the rules spoke just now";
    clock.advance(2h);
    EXPECT_EQ(waiting(clock.wall() - 1h), (Ids{second})) << "a model may know more";
    ASSERT_TRUE(sql::change_bug(*db, clock, first, {"fix", "anna", "", "", "", ""}));
    ASSERT_TRUE(sql::change_bug(*db, clock, first, {"reopen", "anna", "", "", "", ""}));
    EXPECT_EQ(waiting(), (Ids{first})) << "it came back";
    clock.advance(1s);
    ASSERT_TRUE(sql::insert_analysis(*db, analysis(first, "cache")));
    EXPECT_EQ(waiting(), Ids{});
    const auto listed = sql::list_analyses(*db, first, 10).value();
    ASSERT_EQ(listed.size(), 2U);
    EXPECT_EQ(listed[0].at("source").as_string(), "cache") << "newest first";
    EXPECT_EQ(listed[0].at("prevention_tips").as_array().size(), 1U);
}

INSTANTIATE_TEST_SUITE_P(Drivers, AnalysisStoreTest, both_drivers, driver_name);

}  // namespace
}  // namespace heal
