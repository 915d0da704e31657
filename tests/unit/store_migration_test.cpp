// Migrations from every earlier schema with data in it, interrupted at every statement, started twice at
// once.
#include "store/queries.hpp"
#include "store_world.hpp"

#include <sys/wait.h>

#include <csignal>

namespace heal {
namespace {

using namespace std::chrono_literals;

class MigrationTest : public StoreWorld {
protected:
    std::vector<int> versions() const {
        std::vector<int> list;
        for (const auto& m : migrations_for(GetParam())) list.push_back(m.version);
        return list;
    }
    /// Rows as the first schema has them, in the columns that every schema has.
    static void fill(Database& db) {
        ASSERT_TRUE(
            db.script("INSERT INTO error_fingerprints VALUES ('f1', 'f1', 1, 'cart', 'prod', 'error', 'E', "
                      "'p', '', 'P2_minor', "
                      "7, 1, 2, '');"
                      "INSERT INTO self_heal_events (id, fingerprint, service_name, environment, target, "
                      "severity, trigger_name, "
                      "state, resolution, reason, occurrence_count, first_event_at, opened_at, updated_at, "
                      "healed_by, incident, "
                      "decision) VALUES ('e1', 'f1', 'cart', 'prod', 'cart', 'P2_minor', 't', 'healing', '', "
                      "'', 7, 1, 1, 1, '', "
                      "'{}', '{}');"
                      "INSERT INTO healing_results (id, event_id, fingerprint, service_name, target, "
                      "strategy, version, build, "
                      "rank, priority, confidence, score, idempotent, dry_run, state, verified, rolled_back, "
                      "request, text, "
                      "detail, evidence, started_at) VALUES ('r1', 'e1', 'f1', 'cart', 'cart', 's', '1', "
                      "'b', 1, 1, 0.5, 0.5, 0, "
                      "0, 'started', '', '', '{}', '', '{}', '[]', 1);")
        );
    }
    static void expect_filled(Database& db) {
        const auto attempts = sql::load_attempts(db, "e1").value();
        ASSERT_EQ(attempts.size(), 1U);
        EXPECT_EQ(attempts[0].state, "started");
        EXPECT_EQ(sql::load_open_events(db).value().size(), 1U);
        const auto kinds = sql::list_fingerprints(db, {}).value();
        EXPECT_EQ(kinds.at("items").as_array()[0].as_object().at("occurrence_count").as_int64(), 7);
    }
    bool complete(Database& db) {
        const auto states = migration_status(db).value();
        return std::all_of(states.begin(), states.end(), [](const MigrationState& s) { return s.applied; });
    }
    void wipe() {
        if (schema.empty()) {
            for (const char* end : {"", "-wal", "-shm"}) std::filesystem::remove(folder + "/x.db" + end);
        } else {
            auto db = open_postgres(postgres_url(), "", false).value();
            ASSERT_TRUE(db->script("DROP SCHEMA " + schema + " CASCADE; CREATE SCHEMA " + schema));
        }
    }
};

TEST_P(MigrationTest, EveryEarlierSchemaWithDataIsBroughtUpToDate) {
    for (const int from : versions()) {
        auto db = open(false).value();
        ASSERT_TRUE(migrate(*db, clock, from));
        fill(*db);
        ASSERT_TRUE(migrate_store(*db, settings(10), clock)) << "from " << from;
        EXPECT_TRUE(complete(*db));
        expect_filled(*db);
        if (GetParam() == Dialect::sqlite && from != versions().back()) {
            char name[64];
            std::snprintf(name, sizeof name, "/x.db.schema-%04d", from);
            auto copy = open_sqlite(folder + name, true);
            ASSERT_TRUE(copy) << "a copy of before";
            constexpr Statement count{"count attempts", "SELECT COUNT(*) FROM healing_results"};
            std::int64_t rows = 0;
            ASSERT_TRUE((*copy)->query(count, {}, [&](const Row& r) { rows = r.integer(0); }));
            EXPECT_EQ(rows, 1);
            std::filesystem::remove(folder + name);
        }
        db.reset();
        wipe();
    }
}

TEST_P(MigrationTest, KilledAtAnyStatementItGoesOnWhereItStood) {
    const auto all = migrations_for(GetParam());
    for (std::size_t m = 1; m < all.size(); ++m) {
        const auto statements = split_statements(all[m].sql);
        ASSERT_FALSE(statements.empty()) << all[m].name;
        // Each statement of the short ones, some of the long ones (the comments alone are 300).
        const std::size_t step = std::max<std::size_t>(1, statements.size() / 12);
        for (std::size_t k = 0; k < statements.size(); k += step) {
            {
                auto db = open(false).value();
                ASSERT_TRUE(migrate(*db, clock, all[m - 1].version));
                fill(*db);
            }
            const pid_t child = ::fork();
            if (child == 0) {
                auto db = open(false).value();
                bool ok = static_cast<bool>(db->begin());
                for (std::size_t i = 0; i <= k; ++i) ok = ok && db->script(statements[i]);
                if (ok) ::kill(::getpid(), SIGKILL);
                ::_exit(1);
            }
            int status = 0;
            ::waitpid(child, &status, 0);
            ASSERT_TRUE(WIFSIGNALED(status)) << all[m].name << " statement " << k << ": " << statements[k];
            auto db = open(false).value();
            ASSERT_TRUE(migrate(*db, clock)) << all[m].name << " killed at " << k;
            EXPECT_TRUE(complete(*db));
            expect_filled(*db);
            db.reset();
            wipe();
        }
    }
}

TEST_P(MigrationTest, TwoAtOnceApplyEachFileOnce) {
    for (int round = 0; round < 20; ++round) {
        int applied[2] = {};
        std::vector<std::thread> threads;
        for (int& count : applied) {
            threads.emplace_back([&count, this] {
                auto db = open(false).value();
                count = migrate(*db, SystemClock{}).value();
            });
        }
        for (auto& thread : threads) thread.join();
        EXPECT_EQ(applied[0] + applied[1], static_cast<int>(versions().size()));
        auto db = open(false).value();
        EXPECT_TRUE(complete(*db));
        db.reset();
        wipe();
    }
}

TEST_P(MigrationTest, ANewerStoreIsRefusedAndLeftAlone) {
    auto db = open(false).value();
    ASSERT_TRUE(migrate(*db, clock));
    ASSERT_TRUE(db->script("INSERT INTO schema_migration VALUES (9000, '9000_future', 'x', 0)"));
    const auto outcome = migrate_store(*db, settings(10), clock);
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, errc::conflict);
    EXPECT_NE(outcome.error().text.find("9000_future"), std::string::npos);
    EXPECT_FALSE(std::filesystem::exists(folder + "/x.db.schema-9000"));
}

TEST(SplitStatements, KnowsQuotesCommentsAndBodies) {
    const auto list = split_statements("A 'x;y';-- c;\nB $$ d; e $$; C;");
    ASSERT_EQ(list.size(), 3U);
    EXPECT_EQ(list[0], "A 'x;y';");
    EXPECT_EQ(list[2], " C;");
}

INSTANTIATE_TEST_SUITE_P(Drivers, MigrationTest, both_drivers, driver_name);

}  // namespace
}  // namespace heal
