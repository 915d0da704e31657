// Thinning, retention, roll-ups, jobs and the figures that PostgreSQL computes by itself.
#include "store/maintenance.hpp"
#include "store/queries.hpp"
#include "store_world.hpp"

#include <cmath>
#include <set>

namespace heal {
namespace {

using namespace std::chrono_literals;

class MaintenanceTest : public StoreWorld {
protected:
    void SetUp() override {
        StoreWorld::SetUp();
        if (IsSkipped()) return;
        db = open(false).value();
        ASSERT_TRUE(migrate(*db, clock));
        ASSERT_TRUE(db->begin());  // many small statements: one sync in all
    }
    void TearDown() override {
        if (db) db->rollback();
        db.reset();
        StoreWorld::TearDown();
    }
    LogRecord record(const std::string& kind) {
        LogRecord r;
        r.service_name = "cart";
        r.environment = "prod";
        r.level = Level::error;
        r.message = r.pattern = kind;
        r.digest = sha256_hex("cart:" + kind);
        r.fingerprint = r.digest.substr(0, 16);
        r.time = r.received = clock.wall();
        r.source = "http";
        return r;
    }
    std::string add(const std::string& kind, std::uint64_t represents = 1) {
        const auto r = record(kind);
        EXPECT_TRUE(sql::add_occurrences(*db, {&r, "", 1, represents, r.time, r.time, Severity::p2_minor}));
        auto id = new_id(clock);
        EXPECT_TRUE(sql::insert_log_entry(*db, id, r, represents));
        return id;
    }
    std::int64_t number(const char* sql) {
        std::int64_t n = -1;
        const Statement statement{"test", sql};
        EXPECT_TRUE(db->query(statement, {}, [&](const Row& r) { n = r.integer(0); }));
        return n;
    }
    std::set<std::string> ids() {
        std::set<std::string> all;
        static constexpr Statement statement{"test ids", "SELECT id FROM log_entries"};
        EXPECT_TRUE(db->query(statement, {}, [&](const Row& r) { all.insert(r.text(0)); }));
        return all;
    }
    static constexpr const char* represented = "SELECT SUM(represents) FROM log_entries";

    std::unique_ptr<Database> db;
};

TEST_P(MaintenanceTest, ThinningKeepsFirstNewestNamedAndARandomChoiceThatGetsRarer) {
    std::vector<std::string> all;
    for (int i = 0; i < 2000; ++i) {
        all.push_back(add("crowded", 3));
        clock.advance(1min);
    }
    const std::string quiet = add("quiet");
    // A bug names one in the middle.
    const auto r = record("crowded");
    ASSERT_TRUE(sql::open_or_count_bug(*db, clock, r, Severity::p1_major, "fatal", 1, clock.wall(), all[777])
    );
    const auto piece = sql::thin_samples(*db, clock.wall(), 10).value();
    EXPECT_FALSE(piece.more);
    const auto left = ids();
    EXPECT_EQ(piece.rows, 2001 - static_cast<std::int64_t>(left.size()));
    EXPECT_LE(left.size(), 70U);
    EXPECT_GE(left.size(), 30U);
    for (const auto& id : {all.front(), all.back(), all[777], quiet}) EXPECT_TRUE(left.contains(id));
    EXPECT_EQ(number(represented), 6001) << "what was deleted is still stood for";
    std::size_t old_half = 0, young_half = 0;
    for (std::size_t i = 0; i < all.size(); ++i) (i < 1000 ? old_half : young_half) += left.contains(all[i]);
    EXPECT_LT(old_half, young_half);
    EXPECT_EQ(sql::thin_samples(*db, clock.wall(), 10).value().rows, 0) << "what was thinned stays";
}

TEST_P(MaintenanceTest, RetentionKeepsTheNewestOfEachKindAndTheExactCount) {
    for (int i = 0; i < 50; ++i) add("a"), add("b");
    const auto last_a = add("a");
    clock.advance(48h);
    const auto young = add("b");
    std::string cursor;
    std::int64_t gone = 0;
    for (sql::Piece piece{0, true}; piece.more; gone += piece.rows)
        piece = sql::delete_samples(*db, clock.wall() - 24h, 7, cursor).value();
    EXPECT_EQ(gone, 100);
    EXPECT_EQ(ids(), (std::set<std::string>{last_a, young}));
    EXPECT_EQ(number(represented), 102);
}

TEST_P(MaintenanceTest, OldIncidentsGoWithTheirAttemptsAndEffectsAndOpenOnesStay) {
    std::vector<std::string> events;
    for (const char* kind : {"ended", "open"}) {
        Incident in;
        in.id = new_id(clock);
        in.record = record(kind);
        in.fingerprint = in.record.fingerprint;
        in.opened_at = in.first_at = clock.wall();
        ASSERT_TRUE(sql::insert_event(*db, in, clock.wall()));
        sql::AttemptRow a;
        a.id = new_id(clock);
        a.event = in.id;
        a.strategy = "restart";
        a.request = "{}";
        a.started_at = clock.wall();
        ASSERT_TRUE(sql::insert_attempt(*db, a));
        sql::ActionRow x;
        x.id = new_id(clock);
        x.attempt = a.id;
        x.event = in.id;
        x.phase = "execute";
        x.kind = "exec";
        x.parameters = x.undo = "{}";
        ASSERT_TRUE(sql::insert_action(*db, x));
        events.push_back(in.id);
    }
    ASSERT_TRUE(sql::finish_event(*db, events[0], {EventState::escalated, "", "", "", {}, {}}, clock.wall()));
    EXPECT_EQ(sql::cleanup_old_healing_data(*db, clock.wall() - 1h, 100).value().events, 0);
    clock.advance(2h);
    const auto gone = sql::cleanup_old_healing_data(*db, clock.wall() - 1h, 100).value();
    EXPECT_EQ(gone.events + gone.results + gone.actions, 3);
    EXPECT_EQ(number("SELECT COUNT(*) FROM self_heal_events"), 1);
    EXPECT_EQ(number("SELECT COUNT(*) FROM healing_actions"), 1);
}

TEST_P(MaintenanceTest, OldRunsQuestionsAndAnalysesGoAndWhatStandsStays) {
    const auto r = record("patched");
    const auto log = add("patched");
    const auto opened =
        sql::open_or_count_bug(*db, clock, r, Severity::p1_major, "fatal", 1, clock.wall(), log);
    ASSERT_TRUE(opened);
    std::string bug;
    static constexpr Statement one_bug{"test bug", "SELECT id FROM system_bugs"};
    ASSERT_TRUE(db->query(one_bug, {}, [&](const Row& row) { bug = row.text(0); }));
    const auto post = [&](const char* sql, std::initializer_list<Value> values) {
        ASSERT_TRUE(db->post(Statement{"test insert", sql}, values)) << sql;
    };
    const auto run = [&](const char* id, bool ended) {
        post(
            "INSERT INTO patch_runs (id, bug_id, suggestion_id, fingerprint, service_name, environment, "
            "repository, revision, step, "
            "outcome, reason, patch, patch_hash, branch, commit_id, request_url, data, engine_us, "
            "requested_by, node, created_at, "
            "updated_at, ended_at) VALUES ($1, $2, $1, '', '', '', '', '', 'finish', '', '', '', '', '', '', "
            "'', '{}', 0, '', '', $3, "
            "$3, $4)",
            {std::string_view{id},
             std::string_view{bug},
             clock.wall().us,
             ended ? Value{clock.wall().us} : Value{nullptr}}
        );
    };
    const auto suggestion = [&](const char* id, const char* status) {
        post(
            "INSERT INTO ai_fix_suggestions (id, bug_id, rank, provider, model, root_cause, "
            "root_cause_hypothesis, "
            "bug_classification, estimated_impact, fix_title, fix_description, fix_approach, code_diff, "
            "files_affected, "
            "confidence_score, reasoning, breaking_changes, potential_side_effects, test_cases, "
            "prevention_tips, status, decided_by, "
            "created_at) VALUES ($1, $2, 0, '', '', '', '', '', '', '', '', '', '', '[]', 0, '', '[]', '[]', "
            "'[]', '[]', $3, '', $4)",
            {std::string_view{id}, std::string_view{bug}, std::string_view{status}, clock.wall().us}
        );
    };
    const auto analysis = [&](const char* id) {
        post(
            "INSERT INTO bug_analyses (id, bug_id, at, source, provider, model, revision, root_cause, "
            "root_cause_hypothesis, "
            "bug_classification, estimated_impact, prevention_tips, comparison, context) VALUES ($1, $2, $3, "
            "'rules', '', '', '', "
            "'', '', '', '', '[]', '{}', '{}')",
            {std::string_view{id}, std::string_view{bug}, clock.wall().us}
        );
    };
    const auto call = [&](const char* id) {
        post(
            "INSERT INTO ai_calls (id, at, day, purpose, provider, model, bug_id, outcome, input_tokens, "
            "cached_tokens, "
            "output_tokens, cost_micros, took_us, tries, redactions, error) VALUES ($1, $2, '', '', '', '', "
            "'', 'answered', 0, 0, 0, "
            "0, 0, 1, '{}', '')",
            {std::string_view{id}, clock.wall().us}
        );
    };
    run("ended", true), run("open", false);
    for (const auto& [id, status] :
         {std::pair{"no", "rejected"},
          {"old", "superseded"},
          {"open", "rejected"},
          {"landed", "rejected"},
          {"good", "applied"}})
        suggestion(id, status);
    post(
        "INSERT INTO auto_fix_history (id, bug_id, suggestion_id, status, branch, commit_id, "
        "pull_request_url, test_output, error, "
        "performed_by, started_at) VALUES ('f', $1, 'landed', 'rolled_back', '', '', '', '', '', '', 0)",
        {std::string_view{bug}}
    );
    analysis("a1"), analysis("a2"), call("c1"), call("c2"), call("c3");
    EXPECT_EQ(sql::cleanup_old_healing_data(*db, clock.wall() - 1h, 100).value().rows(), 0);
    clock.advance(2h);
    call("c4");
    const auto first = sql::cleanup_old_healing_data(*db, clock.wall() - 1h, 2).value();
    EXPECT_EQ(first.patch_runs, 1) << "a run that is under way stays";
    EXPECT_EQ(first.suggestions, 2) << "tried, landed and standing ones stay";
    EXPECT_EQ(first.analyses, 1) << "the newest of a bug stays";
    EXPECT_EQ(first.ai_calls, 2);
    EXPECT_TRUE(first.more);
    const auto rest = sql::cleanup_old_healing_data(*db, clock.wall() - 1h, 2).value();
    EXPECT_EQ(rest.rows(), 1);
    EXPECT_FALSE(rest.more);
    EXPECT_EQ(number("SELECT COUNT(*) FROM auto_fix_history"), 1);
    if (GetParam() != Dialect::postgres) return;
    // The function of people does the same, by the server's own clock: all is older than in a thousand years.
    EXPECT_EQ(
        number("SELECT deleted_ai_calls + deleted_analyses + deleted_suggestions + deleted_patch_runs FROM "
               "cleanup_old_healing_data(INTERVAL '-1000 years')"),
        1
    );
    EXPECT_EQ(number("SELECT COUNT(*) FROM patch_runs"), 1);
    EXPECT_EQ(number("SELECT COUNT(*) FROM bug_analyses"), 1);
    EXPECT_EQ(number("SELECT COUNT(*) FROM ai_fix_suggestions"), 3);
}

TEST_P(MaintenanceTest, MinutesAndHoursGoAndDaysStay) {
    add("a", 5);
    clock.advance(100 * 24h);
    add("a", 2);
    for (sql::Piece piece{0, true}; piece.more;)
        piece = sql::delete_old_counts(*db, clock.wall() - 48h, clock.wall() - 90 * 24h).value();
    EXPECT_EQ(number("SELECT SUM(count) FROM fingerprint_counts WHERE resolution = 'minute'"), 2);
    EXPECT_EQ(number("SELECT SUM(count) FROM fingerprint_counts WHERE resolution = 'hour'"), 2);
    EXPECT_EQ(number("SELECT SUM(count) FROM fingerprint_counts WHERE resolution = 'day'"), 7);
}

TEST_P(MaintenanceTest, MetricsAreTheSameHoweverOftenTheyAreAggregated) {
    for (int i = 0; i < 30; ++i) add("a"), clock.advance(20s);
    const Time from{clock.wall().us - 900'000'000}, to = clock.wall();
    const auto n = sql::aggregate_metrics(*db, from, to).value();
    EXPECT_GE(n, 3);
    EXPECT_EQ(sql::aggregate_metrics(*db, from, to).value(), n);
    EXPECT_EQ(number("SELECT COUNT(*) FROM system_health_metrics"), n);
    EXPECT_EQ(
        number("SELECT CAST(value AS BIGINT) FROM system_health_metrics WHERE metric_name = 'errors'"), 30
    );
}

TEST_P(MaintenanceTest, AJobRunsOnceUntilItEndsOrItsNodeIsLost) {
    ASSERT_TRUE(sql::declare_job(*db, {"log_cleanup", "x", "every 1h", clock.wall() + 1h}));
    const auto claim = [&](const char* node, const char* run, bool at_once = false) {
        return sql::claim_job(*db, "log_cleanup", node, run, clock.wall(), clock.wall() + 1min, at_once)
            .value();
    };
    EXPECT_FALSE(claim("a", "r1")) << "not due";
    clock.advance(1h);
    EXPECT_TRUE(claim("a", "r1"));
    EXPECT_FALSE(claim("b", "r2"));
    EXPECT_FALSE(claim("b", "r2", true)) << "at once is not twice";
    EXPECT_TRUE(sql::extend_job(*db, "log_cleanup", "r1", clock.wall() + 2min).value());
    clock.advance(3min);
    EXPECT_TRUE(claim("b", "r2")) << "the lease is over";
    EXPECT_FALSE(sql::extend_job(*db, "log_cleanup", "r1", clock.wall() + 2min).value());
    ASSERT_TRUE(sql::end_job(*db, "log_cleanup", "r1", {true, "", "", clock.wall()}, clock.wall()));
    ASSERT_TRUE(sql::end_job(*db, "log_cleanup", "r2", {false, "", "no", clock.wall() + 1h}, clock.wall()));
    const auto job = sql::list_jobs(*db).value().at("items").as_array()[0].as_object();
    EXPECT_EQ(job.at("state").as_string(), "idle");
    EXPECT_EQ(job.at("run_count").as_int64(), 1);
    EXPECT_EQ(job.at("failure_count").as_int64(), 1);
    EXPECT_EQ(job.at("runs").as_array()[1].as_object().at("status").as_string(), "abandoned");
    ASSERT_TRUE(sql::enable_job(*db, "log_cleanup", false));
    clock.advance(2h);
    EXPECT_FALSE(claim("a", "r3")) << "paused";
    EXPECT_TRUE(claim("a", "r3", true)) << "unless a person asks";
    EXPECT_EQ(sql::enable_job(*db, "nope", true).error().code, errc::not_found);
}

TEST_P(MaintenanceTest, TheStoreKnowsItsSize) { EXPECT_GT(sql::store_size(*db).value().bytes, 100'000); }

TEST_P(MaintenanceTest, TheFunctionsOfPostgresqlGiveTheFiguresOfTheApi) {
    if (GetParam() != Dialect::postgres) return;  // SQLite has no functions; the API gives the figures
    const char* states[] = {"healed", "healed", "did_not_hold", "escalated", "held"};
    for (int i = 0; i < 5; ++i) {
        Incident in;
        in.id = new_id(clock);
        in.record = record("kind" + std::to_string(i));
        in.fingerprint = in.record.fingerprint;
        in.opened_at = clock.wall();
        in.first_at = clock.wall() - 3ms * i;
        ASSERT_TRUE(sql::insert_event(*db, in, clock.wall()));
        EventState state{};
        ASSERT_TRUE(parse_event_state(states[i], state));
        ASSERT_TRUE(sql::finish_event(
            *db,
            in.id,
            {state, "", i == 1 ? "approved" : "auto", "s", clock.wall() + 7ms * (i + 1), {}},
            clock.wall()
        ));
        sql::AttemptRow a;
        a.id = new_id(clock);
        a.event = in.id;
        a.strategy = "restart";
        a.request = "{}";
        a.started_at = clock.wall();
        ASSERT_TRUE(sql::insert_attempt(*db, a));
        if (i < 3) {
            EXPECT_TRUE(sql::verify_attempt(*db, a.id, "succeeded", "[]", clock.wall()));
        }
        clock.advance(1s);
    }
    const Time from = clock.wall() - 1h, to = clock.wall() + 1h;
    const auto api = sql::healing_stats(*db, from, to).value();
    static constexpr Statement statement{
        "get_healing_stats",
        "SELECT incidents, auto_heal_rate, held_rate, escalation_rate, action_success_rate, "
        "detection_lag_p50_ms, "
        "mtta_p50_ms, mttr_p50_ms, mttr_p95_ms FROM get_healing_stats(to_timestamp($1::float8 / 1000000), "
        "to_timestamp($2::float8 / 1000000))"};
    int rows = 0;
    ASSERT_TRUE(db->query(statement, {from.us, to.us}, [&](const Row& r) {
        ++rows;
        EXPECT_EQ(r.integer(0), 5);
        int column = 1;
        for (const char* key : {"auto_heal_rate", "held_rate", "escalation_rate", "action_success_rate"})
            EXPECT_DOUBLE_EQ(r.real(column++), api.at(key).as_double()) << key;
        for (const auto& [key, at] :
             {std::pair{"detection_lag", "p50_ms"},
              {"mtta", "p50_ms"},
              {"mttr", "p50_ms"},
              {"mttr", "p95_ms"}})
            EXPECT_DOUBLE_EQ(r.real(column++), api.at(key).as_object().at(at).as_double()) << key;
    }));
    EXPECT_EQ(rows, 1);
    clock.advance(200 * 24h);
    // By the server's own clock, which the test's does not know: everything is older than minus a thousand
    // years.
    EXPECT_EQ(number("SELECT deleted_events FROM cleanup_old_healing_data(INTERVAL '-1000 years')"), 3);
}

TEST_P(MaintenanceTest, EveryTableAndColumnIsExplainedInPostgresql) {
    if (GetParam() != Dialect::postgres) return;  // SQLite has no comments; the migrations explain
    std::string missing;
    static constexpr Statement statement{
        "test comments",
        "SELECT c.relname || '.' || COALESCE(a.attname, '') FROM pg_class c LEFT JOIN pg_attribute a ON "
        "a.attrelid "
        "= c.oid AND a.attnum > 0 AND NOT a.attisdropped WHERE c.relnamespace = "
        "current_schema()::regnamespace AND "
        "c.relkind = 'r' AND c.relname = ANY (string_to_array($1, ',')) AND (obj_description(c.oid) IS NULL "
        "OR "
        "col_description(c.oid, a.attnum) IS NULL)"};
    ASSERT_TRUE(db->query(
        statement,
        {std::string_view{
            "error_fingerprints,log_entries,system_bugs,ai_fix_suggestions,auto_fix_history,bug_patterns,"
            "system_alerts,system_health_metrics,service_health_checks,cron_job_status,cron_execution_log,"
            "kafka_dlq_messages,outbox,outbox_publisher_stats,audit_log,cluster_nodes,event_claims"}},
        [&](const Row& r) { missing += r.text(0) + " "; }
    ));
    EXPECT_EQ(missing, "");
}

INSTANTIATE_TEST_SUITE_P(Drivers, MaintenanceTest, both_drivers, driver_name);

}  // namespace
}  // namespace heal
