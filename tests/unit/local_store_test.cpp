// What a node did alone arrives in the shared store once, whatever is cut off on the way.
#include "store/local_store.hpp"

#include "store_world.hpp"

namespace heal {
namespace {

using namespace std::chrono_literals;

class LocalStoreTest : public StoreWorld {
protected:
    void SetUp() override {
        StoreWorld::SetUp();
        if (IsSkipped()) return;
        shared = open(false).value();
        ASSERT_TRUE(migrate(*shared, clock));
        local = open_sqlite(folder + "/local.db", false).value();
        ASSERT_TRUE(migrate(*local, clock));
    }
    void TearDown() override {
        shared.reset();
        local.reset();
        StoreWorld::TearDown();
    }
    Incident incident(const std::string& fingerprint) {
        Incident in;
        in.id = new_id(clock);
        in.fingerprint = in.record.fingerprint = fingerprint;
        in.service_name = in.record.service_name = in.target = "mine";
        in.opened_at = in.first_at = in.last_at = clock.wall();
        return in;
    }
    /// An incident with one attempt and one effect, as far as alone it came.
    Incident healed_alone(const std::string& fingerprint, bool ended) {
        const auto in = incident(fingerprint);
        EXPECT_TRUE(sql::insert_event(*local, in, clock.wall()));
        sql::AttemptRow a;
        a.id = new_id(clock);
        a.event = in.id;
        a.fingerprint = fingerprint;
        a.service = a.target = "mine";
        a.strategy = "restart";
        a.request = "{}";
        a.started_at = clock.wall();
        EXPECT_TRUE(sql::insert_attempt(*local, a));
        sql::ActionRow row;
        row.id = new_id(clock);
        row.attempt = a.id;
        row.event = in.id;
        row.phase = "execute";
        row.step = 1;
        row.kind = "exec";
        row.parameters = row.undo = "{}";
        EXPECT_TRUE(sql::insert_action(*local, row));
        EXPECT_TRUE(sql::append_audit(*local, clock.wall(), "heald", "attempt.start", a.id, "{}"));
        EXPECT_TRUE(sql::end_attempt(*local, a.id, "executed", "did it", "{}", clock.wall()));
        if (ended) {
            EXPECT_TRUE(sql::finish_event(
                *local,
                in.id,
                {EventState::healed, "healed", "auto", "restart", clock.wall(), clock.wall()},
                clock.wall()
            ));
        }
        return in;
    }
    static std::int64_t count(Database& db, const char* sql) {
        std::int64_t n = -1;
        EXPECT_TRUE(db.query({"count", sql}, {}, [&](const Row& r) { n = r.integer(0); }));
        return n;
    }
    /// As Store does it: one transaction.
    void give(const sql::LocalRows& rows) {
        ASSERT_TRUE(shared->begin());
        const auto given = sql::hand_over(*shared, rows, clock.wall());
        ASSERT_TRUE(given) << given.error().text;
        ASSERT_TRUE(shared->commit());
    }
    std::string told() {
        return fmt_counts(
            {"SELECT COUNT(*) FROM self_heal_events",
             "SELECT COUNT(*) FROM healing_results",
             "SELECT COUNT(*) FROM healing_actions",
             "SELECT COUNT(*) FROM audit_log"}
        );
    }
    std::string fmt_counts(std::initializer_list<const char*> queries) {
        std::string out;
        for (const char* sql : queries) out += std::to_string(count(*shared, sql)) + " ";
        return out;
    }
    std::unique_ptr<Database> shared, local;
};

TEST_P(LocalStoreTest, WhatWasDoneAloneArrivesOnce) {
    EXPECT_FALSE(sql::has_local_rows(*local).value());
    const auto in = healed_alone("00000000000000aa", true);
    EXPECT_TRUE(sql::has_local_rows(*local).value());
    const auto rows = sql::begin_hand_over(*local).value();
    EXPECT_EQ(rows.events(), 1U);
    give(rows);
    EXPECT_EQ(told(), "1 1 1 1 ");
    // A crash before this node knew that it arrived: the same number again, nothing twice.
    const auto again = sql::begin_hand_over(*local).value();
    EXPECT_EQ(again.number, rows.number);
    EXPECT_EQ(again.origin, rows.origin);
    give(again);
    EXPECT_EQ(told(), "1 1 1 1 ");
    ASSERT_TRUE(sql::end_hand_over(*local));
    EXPECT_FALSE(sql::has_local_rows(*local).value());
    // The next time only what is new, under a number of its own.
    healed_alone("00000000000000bb", true);
    const auto next = sql::begin_hand_over(*local).value();
    EXPECT_EQ(next.number, rows.number + 1);
    give(next);
    EXPECT_EQ(told(), "2 2 2 2 ");
    EXPECT_EQ(sql::verify_audit(*shared).value().first_bad, 0);
    EXPECT_EQ(sql::load_attempts(*shared, in.id).value().at(0).text, "did it");
}

TEST_P(LocalStoreTest, HealingThatWentOnAfterADoubtReplacesWhatArrivedBefore) {
    const auto in = healed_alone("00000000000000aa", false);
    give(sql::begin_hand_over(*local).value());  // its answer got lost, and the store is away again
    ASSERT_TRUE(sql::resume_local(*local));
    ASSERT_TRUE(sql::hear_for_event(*shared, in.id, 3, "", clock.wall()));  // counted there meanwhile
    ASSERT_TRUE(sql::finish_event(
        *local,
        in.id,
        {EventState::healed, "healed", "auto", "restart", clock.wall(), clock.wall()},
        clock.wall()
    ));
    give(sql::begin_hand_over(*local).value());
    EXPECT_EQ(told(), "1 1 1 1 ");
    EXPECT_EQ(
        count(
            *shared, "SELECT COUNT(*) FROM self_heal_events WHERE state = 'healed' AND occurrence_count = 3"
        ),
        1
    );
}

TEST_P(LocalStoreTest, AttemptsJoinTheIncidentThatTheStoreHoldsOpen) {
    const auto there = incident("00000000000000aa");
    ASSERT_TRUE(sql::insert_event(*shared, there, clock.wall()));
    healed_alone("00000000000000aa", false);
    give(sql::begin_hand_over(*local).value());
    EXPECT_EQ(told(), "1 1 1 1 ");
    const auto attempts = sql::load_attempts(*shared, there.id).value();
    ASSERT_EQ(attempts.size(), 1U);
    EXPECT_EQ(attempts[0].state, "executed");
    EXPECT_EQ(sql::load_open_events(*shared).value().size(), 1U);
}

TEST_P(LocalStoreTest, AnIntentThatACrashLeftBehindIsHandedOverToo) {
    const auto in = incident("00000000000000aa");
    sql::Intent intent;
    intent.attempt.id = new_id(clock);
    intent.attempt.event = in.id;
    intent.attempt.fingerprint = in.fingerprint;
    intent.attempt.service = intent.attempt.target = "mine";
    intent.attempt.strategy = "restart";
    intent.attempt.request =
        json::serialize(json::object{{"request", json::object{{"incident", to_json(in)}}}});
    intent.attempt.started_at = intent.opened_at = clock.wall();
    intent.actor = "heald";
    ASSERT_TRUE(sql::write_intent(*local, intent));
    EXPECT_TRUE(sql::has_local_rows(*local).value());
    give(sql::begin_hand_over(*local).value());
    EXPECT_EQ(told(), "1 1 0 1 ");
}

TEST_P(LocalStoreTest, TheCharterComesBackWholeOrNotAtAll) {
    EXPECT_FALSE(sql::kept_charter(*local).value().has_value()) << "nobody ever knew";
    Hold hold;
    hold.id = new_id(clock);
    hold.kind = HoldKind::pause;
    hold.scope = HoldScope::service;
    hold.name = "mine";
    hold.reason = "works";
    hold.actor = "anna";
    hold.starts = clock.wall();
    ASSERT_TRUE(sql::insert_hold(*shared, hold));
    ASSERT_TRUE(sql::save_strategy_setting(
        *shared, {"restart", 90, false, Autonomy::approve, 0.5}, "anna", clock.wall()
    ));
    ASSERT_TRUE(sql::save_trust_rung(
        *shared, {"restart", "mine/network", Autonomy::shadow, true, false, "saw it", "anna", clock.wall()}
    ));
    ASSERT_TRUE(sql::save_engine_state(*shared, "pause", R"({"reason": "night"})", clock.wall()));
    const auto in = incident("00000000000000aa");
    ASSERT_TRUE(sql::insert_event(*shared, in, clock.wall()));
    sql::AttemptRow a;
    a.id = new_id(clock);
    a.event = in.id;
    a.fingerprint = in.fingerprint;
    a.service = a.target = "mine";
    a.strategy = "restart";
    a.build = "b1";
    a.request = "{}";
    a.started_at = clock.wall();
    ASSERT_TRUE(sql::insert_attempt(*shared, a));
    const auto charter = sql::load_charter(*shared, clock.wall() - 1h, clock.wall()).value();
    ASSERT_TRUE(sql::keep_charter(*local, charter, clock.wall()));
    const auto kept = sql::kept_charter(*local).value();
    ASSERT_TRUE(kept);
    EXPECT_EQ(kept->pause, R"({"reason": "night"})");
    ASSERT_EQ(kept->holds.size(), 1U);
    EXPECT_EQ(kept->holds[0].name, "mine");
    EXPECT_EQ(kept->holds[0].kind, HoldKind::pause);
    EXPECT_EQ(kept->holds[0].starts, hold.starts);
    ASSERT_EQ(kept->strategies.size(), 1U);
    EXPECT_EQ(kept->strategies[0].priority, 90);
    EXPECT_EQ(kept->strategies[0].enabled, false);
    EXPECT_EQ(kept->strategies[0].autonomy, Autonomy::approve);
    ASSERT_EQ(kept->rungs.size(), 1U);
    EXPECT_EQ(kept->rungs[0].rung, Autonomy::shadow);
    ASSERT_EQ(kept->facts.size(), 1U);
    EXPECT_EQ(kept->facts[0].attempt, a.id);
    EXPECT_EQ(kept->facts[0].build, "b1");
    EXPECT_FALSE(kept->facts[0].ended);
    // A rung that changes while the node is alone goes back; one of before does not.
    EXPECT_TRUE(sql::begin_hand_over(*local).value().rungs.empty());
    clock.advance(1s);
    ASSERT_TRUE(sql::save_trust_rung(
        *local, {"restart", "mine/network", Autonomy::off, false, true, "harm", "heald", clock.wall()}
    ));
    EXPECT_EQ(sql::begin_hand_over(*local).value().rungs.size(), 1U);
    ASSERT_TRUE(sql::save_engine_state(*local, "charter", "half of", clock.wall()));
    EXPECT_FALSE(sql::kept_charter(*local).value().has_value());
}

INSTANTIATE_TEST_SUITE_P(Drivers, LocalStoreTest, both_drivers, driver_name);

}  // namespace
}  // namespace heal
