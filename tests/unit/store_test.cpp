// The contract of the store, the same for both drivers.
#include "store/store.hpp"

#include "core/rules.hpp"
#include "store/queries.hpp"
#include "store_world.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>

#include <gtest/gtest.h>

#include <array>
#include <future>
#include <set>

namespace heal {
namespace {

using namespace std::chrono_literals;

class StoreTest : public StoreWorld {
protected:
    void SetUp() override {
        StoreWorld::SetUp();
        if (IsSkipped()) return;
        db = open(false).value();
        ASSERT_EQ(migrate(*db, clock).value(), static_cast<int>(migrations_for(GetParam()).size()));
    }
    void TearDown() override {
        db.reset();
        StoreWorld::TearDown();
    }

    LogRecord sample(const std::string& message = "boom 1", Level level = Level::error) {
        LogRecord r;
        r.service_name = "cart";
        r.environment = "prod";
        r.level = level;
        r.message = message;
        r.pattern = "boom <*>";
        r.digest = sha256_hex("cart:" + r.pattern);
        r.fingerprint = r.digest.substr(0, 16);
        r.time = r.received = clock.wall();
        r.source = "http";
        return r;
    }
    Incident incident(const LogRecord& r) {
        Incident in;
        in.id = new_id(clock);
        in.fingerprint = r.fingerprint;
        in.service_name = r.service_name;
        in.environment = r.environment;
        in.target = "cart";
        in.record = r;
        in.pattern = r.pattern;
        in.count = 1;
        in.first_at = in.last_at = in.opened_at = clock.wall();
        in.trigger = "test";
        return in;
    }
    sql::AttemptRow attempt(const Incident& in, const std::string& strategy = "restart") {
        sql::AttemptRow a;
        a.id = new_id(clock);
        a.event = in.id;
        a.fingerprint = in.fingerprint;
        a.service = in.service_name;
        a.target = in.target;
        a.strategy = strategy;
        a.request = "{}";
        a.started_at = clock.wall();
        return a;
    }

    std::unique_ptr<Database> db;
};

TEST_P(StoreTest, MigratesOnceAndRefusesANewerOrEditedSchema) {
    EXPECT_EQ(migrate(*db, clock).value(), 0);
    ASSERT_TRUE(db->script("UPDATE schema_migration SET sha256 = 'x' WHERE version = 1"));
    EXPECT_NE(migrate(*db, clock).error().text.find("was changed after it was applied"), std::string::npos);
    ASSERT_TRUE(
        db->script("INSERT INTO schema_migration VALUES (999, 'future', 'x', 0); DELETE FROM "
                   "schema_migration WHERE version < 999")
    );
    EXPECT_EQ(migrate(*db, clock).error().code, errc::conflict);
}

TEST_P(StoreTest, CountsExactlyAndKeepsTheFirstAndLastTime) {
    const auto r = sample();
    for (int i = 0; i < 3; ++i) {
        ASSERT_TRUE(
            sql::add_occurrences(*db, {&r, "", 1, 5, clock.wall(), clock.wall() + 1s, Severity::p2_minor})
        );
        clock.advance(1min);
    }
    const auto list = sql::list_fingerprints(*db, {}).value();
    ASSERT_EQ(list.at("items").as_array().size(), 1U);
    EXPECT_EQ(list.at("items").as_array()[0].as_object().at("occurrence_count").as_int64(), 15);
    const auto one = sql::show_fingerprint(*db, r.fingerprint.substr(0, 6), clock.wall()).value();
    EXPECT_EQ(one.at("id").as_string(), r.fingerprint);
    EXPECT_EQ(one.at("counts").as_object().at("hour").as_array()[0].as_object().at("count").as_int64(), 15);
}

TEST_P(StoreTest, ACollisionOfTheShortIdIsNoticedAndKeptApart) {
    auto r = sample();
    ASSERT_TRUE(sql::add_occurrences(*db, {&r, "", 1, 1, clock.wall(), clock.wall(), Severity::p2_minor}));
    r.digest[40] = r.digest[40] == '0' ? '1' : '0';
    const auto outcome =
        sql::add_occurrences(*db, {&r, "", 1, 1, clock.wall(), clock.wall(), Severity::p2_minor});
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, errc::conflict);
}

TEST_P(StoreTest, ManyKindsAreCountedTogetherAndCollisionsAmongThemKeptApart) {
    std::vector<LogRecord> records;
    for (int i = 0; i < 150; ++i) {
        auto r = sample();
        r.digest = sha256_hex("kind " + std::to_string(i));
        r.fingerprint = r.digest.substr(0, 16);
        r.pattern = "pattern '" + std::to_string(i) + "' \xFF";
        records.push_back(r);
    }
    // The same kind once more in the same batch, and one whose short id another has.
    records.push_back(records[7]);
    records.push_back(records[9]);
    records.back().digest[40] = records.back().digest[40] == '0' ? '1' : '0';
    std::vector<sql::Occurrences> all;
    for (const auto& r : records)
        all.push_back({&r, "", 1, 2, clock.wall(), clock.wall(), Severity::p2_minor});
    for (int round = 0; round < 2; ++round) {
        ASSERT_TRUE(db->begin());
        const auto stored = sql::add_occurrences(*db, all);
        ASSERT_TRUE(stored) << stored.error().text;
        EXPECT_EQ(std::count(stored->begin(), stored->end(), false), 1);
        EXPECT_FALSE(stored->back());
        ASSERT_TRUE(db->commit());
    }
    const auto counts_of = [&](const std::string& id) {
        std::vector<std::int64_t> out;
        static constexpr Statement counts{
            "counts",
            "SELECT count FROM fingerprint_counts WHERE fingerprint = $1 UNION ALL SELECT occurrence_count "
            "FROM "
            "error_fingerprints WHERE id = $1"};
        EXPECT_TRUE(db->query(counts, {std::string_view{id}}, [&](const Row& r) {
            out.push_back(r.integer(0));
        }));
        return out;
    };
    for (int i = 0; i < 150; ++i) {
        const std::int64_t expected = i == 7 ? 8 : 4;
        EXPECT_EQ(
            counts_of(records[static_cast<std::size_t>(i)].fingerprint),
            std::vector<std::int64_t>(4, expected)
        ) << i;
    }
    EXPECT_EQ(sql::add_occurrences(*db, std::span<const sql::Occurrences>{})->size(), 0U);
}

TEST_P(StoreTest, TheSameErrorWithin24HoursIsOneBugWithLinkedLogs) {
    const auto r = sample();
    auto note = [&](const std::string& rule) {
        const auto id = new_id(clock);
        EXPECT_TRUE(sql::insert_log_entry(*db, id, r, 1));
        return sql::open_or_count_bug(*db, clock, r, Severity::p1_major, rule, 1, clock.wall(), id).value();
    };
    EXPECT_FALSE(note("")) << "without a rule nothing opens";
    const auto first = note("fatal");
    ASSERT_TRUE(first && first->opened);
    const std::string day = to_rfc3339(clock.wall()).substr(0, 10);
    EXPECT_EQ(first->code, "BUG-" + day.substr(0, 4) + day.substr(5, 2) + day.substr(8, 2) + "-00001");
    clock.advance(23h);
    const auto again = note("fatal");
    EXPECT_FALSE(again->opened);
    EXPECT_EQ(again->code, first->code);
    const auto bug = sql::show_bug(*db, first->code).value();
    EXPECT_EQ(bug.at("occurrence_count").as_int64(), 2);
    EXPECT_EQ(bug.at("related_log_ids").as_array().size(), 2U);
    EXPECT_EQ(bug.at("logs").as_array().size(), 2U);
    clock.advance(25h);
    EXPECT_TRUE(note("fatal")->opened) << "a day later it is a new bug";
}

TEST_P(StoreTest, AnAttemptIsWrittenBeforeAndItsEffectsCanBeFoundForUndo) {
    const auto in = incident(sample());
    ASSERT_TRUE(sql::insert_event(*db, in, clock.wall()));
    const auto a = attempt(in);
    ASSERT_TRUE(sql::insert_attempt(*db, a));
    for (std::int64_t step = 1; step <= 3; ++step) {
        sql::ActionRow row;
        row.id = new_id(clock);
        row.attempt = a.id;
        row.event = in.id;
        row.phase = "execute";
        row.step = step;
        row.kind = "write_file";
        row.parameters = row.undo = "{}";
        row.undoable = step != 2;
        ASSERT_TRUE(sql::insert_action(*db, row));
        ASSERT_TRUE(sql::end_action(*db, a.id, "execute", step, "done", "{}", "", 5));
    }
    auto undoable = sql::load_undoable(*db, a.id).value();
    ASSERT_EQ(undoable.size(), 2U);
    EXPECT_EQ(undoable[0].step, 3) << "newest first";
    ASSERT_TRUE(sql::mark_undone(*db, a.id, 3));
    EXPECT_EQ(sql::load_undoable(*db, a.id).value().size(), 1U);
    ASSERT_TRUE(sql::end_attempt(*db, a.id, "executed", "", "{}", clock.wall()));
    ASSERT_TRUE(sql::verify_attempt(*db, a.id, "succeeded", "[]", clock.wall()));
    EXPECT_EQ(sql::load_attempts(*db, in.id).value()[0].state, "succeeded");
    ASSERT_TRUE(sql::end_attempt(*db, a.id, "failed", "", "{}", clock.wall()));
    EXPECT_EQ(sql::load_attempts(*db, in.id).value()[0].state, "succeeded") << "a final state is final";
}

TEST_P(StoreTest, AnIntentIsInTheTablesOnceAlsoWhenACrashCameBetween) {
    const auto in = incident(sample());
    sql::Intent intent;
    intent.attempt = attempt(in);
    intent.attempt.request =
        json::serialize(json::object{{"request", json::object{{"incident", to_json(in)}}}});
    intent.opened_at = in.opened_at;
    intent.risk = Risk::disruptive;
    intent.actor = "heald";
    ASSERT_TRUE(sql::write_intent(*db, intent));
    // One row is all that an action waits for; on PostgreSQL other nodes must see the whole at once.
    const bool short_form = GetParam() == Dialect::sqlite;
    EXPECT_EQ(sql::load_attempts(*db, in.id).value().empty(), short_form);
    // Killed here. The next start:
    EXPECT_EQ(sql::settle_intents(*db).value(), short_form ? 1 : 0);
    const auto rows = sql::load_attempts(*db, in.id).value();
    ASSERT_EQ(rows.size(), 1U);
    EXPECT_EQ(rows[0].state, "started");
    EXPECT_EQ(rows[0].started_at, intent.attempt.started_at);
    const auto open_events = sql::load_open_events(*db).value();
    ASSERT_EQ(open_events.size(), 1U) << "its event too";
    EXPECT_EQ(open_events[0].state, EventState::healing);
    EXPECT_EQ(open_events[0].incident.record.message, in.record.message);
    EXPECT_EQ(open_events[0].incident.count, 0U) << "lines count where they are stored";
    ASSERT_TRUE(sql::hear_for_event(*db, in.id, 3, "bug", clock.wall()));
    EXPECT_EQ(sql::load_open_events(*db).value()[0].incident.count, 3U);
    EXPECT_EQ(sql::settle_intents(*db).value(), 0);
    ASSERT_TRUE(sql::settle_intent(*db, intent)) << "settled: nothing more to do";
    EXPECT_EQ(sql::load_attempts(*db, in.id).value().size(), 1U);
    EXPECT_EQ(sql::verify_audit(*db).value().rows, 1);
}

TEST_P(StoreTest, AnIntentThatOvertookTheEndOfTheEventBeforeItBelongsToThatEventAfterACrash) {
    if (GetParam() != Dialect::sqlite) return;  // nothing overtakes on PostgreSQL
    const auto before = incident(sample()), next = incident(sample());
    ASSERT_TRUE(sql::insert_event(*db, before, clock.wall()));
    sql::Intent intent;
    intent.attempt = attempt(next);
    intent.attempt.request =
        json::serialize(json::object{{"request", json::object{{"incident", to_json(next)}}}});
    ASSERT_TRUE(sql::write_intent(*db, intent)
    );  // the end of `before` was still queued when heald was killed
    EXPECT_EQ(sql::settle_intents(*db).value(), 1);
    EXPECT_EQ(sql::load_attempts(*db, before.id).value().size(), 1U);
    EXPECT_EQ(sql::load_open_events(*db).value().size(), 1U);
}

TEST_P(StoreTest, AnIntentThatCouldNotBeWrittenLeavesNoAttempt) {
    const auto in = incident(sample());
    sql::Intent intent;
    intent.attempt = attempt(in);
    ASSERT_TRUE(sql::settle_intent(*db, intent));
    EXPECT_TRUE(sql::load_attempts(*db, in.id).value().empty());
}

TEST_P(StoreTest, TheLogHasRoomAheadAndACopyOfItAtAnyMomentHoldsWhatWasCommitted) {
    if (GetParam() != Dialect::sqlite) return;  // the log is SQLite's
    const auto log_size = [&] { return std::filesystem::file_size(folder + "/x.db-wal"); };
    db->idle();
    const auto before = log_size();
    EXPECT_GE(before, 4U << 20U);
    ASSERT_TRUE(sql::save_engine_state(*db, "k", "v", clock.wall()));
    EXPECT_EQ(log_size(), before) << "a commit does not make it grow";
    // As after a power cut: both files as they are, nothing closed.
    for (const char* end : {"", "-wal"})
        std::filesystem::copy_file(folder + "/x.db" + end, folder + "/y.db" + end);
    auto copy = open_sqlite(folder + "/y.db", false).value();
    EXPECT_EQ(sql::load_engine_state(*copy, "k").value(), "v");
    // And it is moved into the file before it grows without end.
    for (int i = 0; i < 1500; ++i) {
        ASSERT_TRUE(sql::save_engine_state(*db, "k" + std::to_string(i), std::string(8000, 'x'), clock.wall())
        );
        db->idle();
    }
    EXPECT_LT(log_size(), 24U << 20U);
}

TEST_P(StoreTest, OneOpenEventPerErrorAndEnvironment) {
    const auto r = sample();
    const auto first = incident(r);
    ASSERT_TRUE(sql::insert_event(*db, first, clock.wall()));
    EXPECT_TRUE(sql::insert_event(*db, first, clock.wall())) << "the same event again is a no-op";
    EXPECT_EQ(sql::insert_event(*db, incident(r), clock.wall()).error().code, errc::conflict);
    ASSERT_TRUE(sql::finish_event(*db, first.id, {EventState::escalated, "x", "", "", {}, {}}, clock.wall()));
    EXPECT_TRUE(sql::insert_event(*db, incident(r), clock.wall()));
    const auto open_events = sql::load_open_events(*db).value();
    ASSERT_EQ(open_events.size(), 1U);
    EXPECT_EQ(open_events[0].incident.record.message, "boom 1");
}

TEST_P(StoreTest, AuditChainShowsAChangeAndAGap) {
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(sql::append_audit(*db, clock.wall(), "me", "act", "it", "{}"));
    EXPECT_EQ(sql::verify_audit(*db).value().first_bad, 0);
    ASSERT_TRUE(db->script("UPDATE audit_log SET actor = 'you' WHERE seq = 3"));
    EXPECT_EQ(sql::verify_audit(*db).value().first_bad, 3);
    ASSERT_TRUE(
        db->script("UPDATE audit_log SET actor = 'me' WHERE seq = 3; DELETE FROM audit_log WHERE seq = 4")
    );
    EXPECT_EQ(sql::verify_audit(*db).value().first_bad, 5);
}

TEST_P(StoreTest, SettingsKeepWhatAnEarlierCallSet) {
    ASSERT_TRUE(sql::save_strategy_setting(*db, {"restart", 70, {}, {}, {}}, "me", clock.wall()));
    ASSERT_TRUE(sql::save_strategy_setting(*db, {"restart", {}, false, {}, {}}, "me", clock.wall()));
    const auto rows = sql::load_strategy_settings(*db).value();
    ASSERT_EQ(rows.size(), 1U);
    EXPECT_EQ(rows[0].priority, 70);
    EXPECT_EQ(rows[0].enabled, false);
    EXPECT_FALSE(rows[0].autonomy);
}

TEST_P(StoreTest, ABatchKeyCountsOnce) {
    EXPECT_TRUE(sql::claim_batch(*db, "k", 1, clock.wall()).value());
    EXPECT_FALSE(sql::claim_batch(*db, "k", 1, clock.wall()).value());
    EXPECT_EQ(sql::forget_batches(*db, clock.wall() + 1s).value(), 1);
    EXPECT_TRUE(sql::claim_batch(*db, "k", 1, clock.wall()).value());
}

TEST_P(StoreTest, PostedRowsAreAllStoredWhateverTheirNumberOrNone) {
    static constexpr Statement insert{"insert row", "INSERT INTO rows_posted (id, word) VALUES ($1, $2)"};
    static constexpr Statement sum{
        "sum rows", "SELECT count(*), count(word), COALESCE(sum(id), 0) FROM rows_posted"};
    static constexpr Statement erase{"delete rows", "DELETE FROM rows_posted"};
    ASSERT_TRUE(db->script("CREATE TABLE rows_posted (id BIGINT PRIMARY KEY, word TEXT)"));
    const auto post = [&](std::int64_t id) {
        ASSERT_TRUE(db->post(insert, {id, id % 3 == 0 ? Value{nullptr} : Value{"it's \xFF"}}));
    };
    const auto sums = [&] {
        std::array<std::int64_t, 3> out{};
        EXPECT_TRUE(db->query(sum, {}, [&](const Row& r) {
            out = {r.integer(0), r.integer(1), r.integer(2)};
        }));
        return out;
    };
    for (const std::int64_t n : {1, 3, 4, 5, 21, 63, 64, 65, 300}) {
        ASSERT_TRUE(db->begin());
        for (std::int64_t i = 1; i <= n; ++i) post(i);
        const std::array<std::int64_t, 3> expected{n, n - n / 3, n * (n + 1) / 2};
        EXPECT_EQ(sums(), expected) << "a question sees what was posted before it";
        ASSERT_TRUE(db->commit());
        EXPECT_EQ(sums(), expected);
        ASSERT_TRUE(db->run(erase));
    }
    // One that fails takes its transaction with it, early or late; what is rolled back is not sent later.
    ASSERT_TRUE(db->begin());
    result<void> outcome;
    for (const std::int64_t id : {1, 2, 3, 2}) {
        if (outcome) outcome = db->post(insert, {id, nullptr});
    }
    if (outcome) outcome = db->commit();
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, errc::conflict);
    db->rollback();
    ASSERT_TRUE(db->begin());
    post(7);
    ASSERT_TRUE(db->savepoint());
    post(8);
    db->rollback_to_savepoint();
    ASSERT_TRUE(db->commit());
    ASSERT_TRUE(db->begin());
    post(9);
    db->rollback();
    EXPECT_EQ(sums(), (std::array<std::int64_t, 3>{1, 1, 7}));
}

TEST_P(StoreTest, HostileTextIsStoredAsValidText) {
    auto r = sample(std::string("a\0b\xff\xfe'; DROP TABLE log_entries;--", 33));
    ASSERT_TRUE(sql::insert_log_entry(*db, new_id(clock), r, 1));
    const auto logs = sql::list_logs(*db, {}).value();
    const auto text = std::string{logs.at("items").as_array()[0].as_object().at("message").as_string()};
    EXPECT_EQ(to_valid_utf8(text), text);
    EXPECT_NE(text.find("DROP TABLE"), std::string::npos);
}

TEST_P(StoreTest, ListsPageWithoutGapsOrRepeats) {
    for (int i = 0; i < 25; ++i) {
        clock.advance(i % 3 == 0 ? 0us : 1us);  // equal times too
        ASSERT_TRUE(sql::insert_log_entry(*db, new_id(clock), sample("m" + std::to_string(i)), 1));
    }
    std::set<std::string> seen;
    sql::ListQuery query{{}, "", 7};
    for (int page = 0; page < 4; ++page) {
        const auto answer = sql::list_logs(*db, query).value();
        for (const auto& item : answer.at("items").as_array())
            EXPECT_TRUE(seen.insert(std::string{item.as_object().at("id").as_string()}).second);
        if (answer.at("next").is_null()) break;
        query.before = std::string{answer.at("next").as_string()};
    }
    EXPECT_EQ(seen.size(), 25U);
    EXPECT_EQ(sql::list_logs(*db, {{{"nope", "x"}}, "", 5}).error().code, errc::invalid_input);
}

TEST_P(StoreTest, StatsSplitWhatHeldFromWhatDidNot) {
    const auto in = incident(sample());
    ASSERT_TRUE(sql::insert_event(*db, in, clock.wall()));
    auto a = attempt(in);
    ASSERT_TRUE(sql::insert_attempt(*db, a));
    ASSERT_TRUE(sql::end_attempt(*db, a.id, "executed", "", "{}", clock.wall()));
    ASSERT_TRUE(sql::verify_attempt(*db, a.id, "succeeded", "[]", clock.wall()));
    ASSERT_TRUE(sql::finish_event(
        *db,
        in.id,
        {EventState::healed, "", "auto", "restart", clock.wall() + 2s, clock.wall() + 1h},
        clock.wall()
    ));
    auto stats = sql::healing_stats(*db, clock.wall() - 1h, clock.wall() + 1h).value();
    EXPECT_DOUBLE_EQ(stats.at("mttr").as_object().at("p50_ms").as_double(), 2000);
    EXPECT_DOUBLE_EQ(stats.at("held_rate").as_double(), 1);
    ASSERT_TRUE(
        sql::finish_event(*db, in.id, {EventState::did_not_hold, "", "auto", "restart", {}, {}}, clock.wall())
    );
    stats = sql::healing_stats(*db, clock.wall() - 1h, clock.wall() + 1h).value();
    EXPECT_DOUBLE_EQ(stats.at("held_rate").as_double(), 0);
    EXPECT_EQ(stats.at("mttr").as_object().at("n").as_uint64(), 0U);
}

/// The store with its threads.
class GroupCommitTest : public StoreTest {
protected:
    void SetUp() override {
        StoreTest::SetUp();
        if (IsSkipped()) return;
        db.reset();
        store = open_store(settings(100), io.get_executor(), clock).value();
    }
    void TearDown() override {
        store.reset();
        StoreTest::TearDown();
    }
    boost::asio::io_context io;
    std::unique_ptr<Store> store;
};

TEST_P(GroupCommitTest, CorkedWritesShareOneCommitAndAFailingOneFailsAlone) {
    std::vector<std::string> done;
    const auto put = [&](const std::string& name, bool fails) {
        store->submit(
            [this, name, fails](Database& d) -> result<void> {
                HEAL_TRY(sql::save_engine_state(d, name, "v", clock.wall()));
                if (fails) return fail(errc::denied, "no");
                return {};
            },
            [&, name](result<void> outcome) { done.push_back(name + (outcome ? "+" : "-")); }
        );
    };
    store->cork();
    put("a", false), put("b", true), put("c", false);
    store->uncork();
    store->stop();
    io.run();
    EXPECT_EQ(done, (std::vector<std::string>{"a+", "b-", "c+"}));
    EXPECT_EQ(store->figures().commits, 1U);
    auto check = open(true).value();
    EXPECT_TRUE(sql::load_engine_state(*check, "a").value());
    EXPECT_FALSE(sql::load_engine_state(*check, "b").value());
}

TEST_P(GroupCommitTest, AnUrgentWriteOvertakesTheQueueAndNoCorkHoldsIt) {
    if (GetParam() != Dialect::sqlite) return;  // nothing overtakes on PostgreSQL
    std::vector<std::string> done;
    const auto job = [](Database&) -> result<void> { return {}; };
    const auto note = [&](const char* name) {
        return
            [&done, name](result<void> outcome) { done.push_back(name + std::string{outcome ? "+" : "-"}); };
    };
    store->cork();
    store->submit(job, note("rows"));
    store->submit_urgent(job, note("intent"));
    auto work = boost::asio::make_work_guard(io);
    while (done.empty()) io.run_one_for(5s);
    EXPECT_EQ(done, std::vector<std::string>{"intent+"}) << "the cork is still in";
    store->uncork();
    store->stop();
    work.reset();
    io.run();
    EXPECT_EQ(done, (std::vector<std::string>{"intent+", "rows+"}));
    EXPECT_EQ(store->figures().commits, 2U);
}

TEST_P(GroupCommitTest, RefusesBeyondItsBoundAndAfterStop) {
    std::promise<void> gate;
    auto open_gate = gate.get_future().share();
    std::promise<void> entered;
    int refused = 0, stored = 0;
    store->submit(
        [&entered, open_gate](Database&) -> result<void> {
            return entered.set_value(), open_gate.wait(), result<void>{};
        },
        [](result<void>) {}
    );
    entered.get_future().wait();  // the thread is busy: from here on only the queue takes
    for (int i = 0; i < 150; ++i) {
        store->submit(
            [](Database&) -> result<void> { return {}; }, [&](result<void> r) { r ? ++stored : ++refused; }
        );
    }
    gate.set_value();
    store->stop();
    io.run();
    EXPECT_EQ(stored + refused, 150);
    EXPECT_EQ(refused, 50);
    EXPECT_EQ(stored, 100);
}

TEST_P(GroupCommitTest, ASecondHealdOnTheSameFolderIsRefusedWithTheRemedy) {
    const auto second = open_store(settings(100), io.get_executor(), clock);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, errc::conflict);
    EXPECT_NE(second.error().text.find("state_dir"), std::string::npos);
}

TEST_P(GroupCommitTest, ReadsSeeWhatWasCommittedBefore) {
    std::string seen;
    boost::asio::co_spawn(
        io,
        [](Store& s, const Clock& c, std::string& ret) -> boost::asio::awaitable<void> {
            (void)co_await s.write([&](Database& d) { return sql::save_engine_state(d, "k", "v1", c.wall()); }
            );
            auto answer = co_await s.read<json::object>([](Database& d) -> result<json::object> {
                return json::object{{"v", sql::load_engine_state(d, "k").value().value_or("")}};
            });
            ret = answer ? std::string{answer->at("v").as_string()} : answer.error().text;
        }(*store, clock, seen),
        [](const std::exception_ptr&) {}
    );
    io.run_for(5s);
    EXPECT_EQ(seen, "v1");
}

INSTANTIATE_TEST_SUITE_P(Drivers, StoreTest, both_drivers, driver_name);
INSTANTIATE_TEST_SUITE_P(Drivers, GroupCommitTest, both_drivers, driver_name);

}  // namespace
}  // namespace heal
