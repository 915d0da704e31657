// A store of the tests' own, of either kind. One PostgreSQL serves a whole test program; each test has a
// schema.
#pragma once

#include "base/id.hpp"
#include "store/healing_store.hpp"
#include "store/migrator.hpp"
#include "store/store.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace heal {

/// Started at the first use by tests/pg.py, ended with this program. "" when no server is installed.
inline const std::string& postgres_url() {
    struct Server {
        Server() {
            char name[] = "/tmp/heal-announce-XXXXXX";
            folder = ::mkdtemp(name);
            const std::string file = folder + "/url";
            pipe = ::popen(
                ("/usr/bin/python3 " HEAL_SOURCE "/tests/pg.py serve --announce " + file).c_str(), "w"
            );
            for (int i = 0; i < 3000 && !std::filesystem::exists(file); ++i)
                std::this_thread::sleep_for(std::chrono::milliseconds{10});
            std::getline(std::ifstream{file}, url);
            if (url == "none") url.clear();
        }
        ~Server() {
            if (pipe) ::pclose(pipe);
            std::filesystem::remove_all(folder);
        }
        std::string folder, url;
        FILE* pipe = nullptr;
    };
    static const Server server;
    return server.url;
}

class StoreWorld : public ::testing::TestWithParam<Dialect> {
protected:
    void SetUp() override {
        char name[] = "/tmp/heal-store-XXXXXX";
        folder = ::mkdtemp(name);
        if (GetParam() == Dialect::postgres) {
            if (postgres_url().empty())
                GTEST_SKIP() << "no PostgreSQL server is installed; ./dev setup installs it";
            static int count = 0;
            schema = "t" + std::to_string(++count);
            auto db = open_postgres(postgres_url(), "", false).value();
            ASSERT_TRUE(db->script("CREATE SCHEMA " + schema));
        }
    }
    void TearDown() override {
        if (!schema.empty()) {
            auto db = open_postgres(postgres_url(), "", false).value();
            EXPECT_TRUE(db->script("DROP SCHEMA " + schema + " CASCADE"));
        }
        std::filesystem::remove_all(folder);
    }
    std::string url() const { return postgres_url() + "?options=-csearch_path%3D" + schema; }
    result<std::unique_ptr<Database>> open(bool read_only) const {
        return schema.empty() ? open_sqlite(folder + "/x.db", read_only)
                              : open_postgres(url(), "", read_only);
    }
    StoreSettings settings(std::size_t max_queue) const {
        StoreSettings s;
        s.path = folder + "/x.db";
        s.max_queue = max_queue;
        if (!schema.empty()) s.url = url();
        return s;
    }

    ManualClock clock;
    std::string folder, schema;
};

inline const auto both_drivers = ::testing::Values(Dialect::sqlite, Dialect::postgres);
inline std::string driver_name(const ::testing::TestParamInfo<Dialect>& info) {
    return info.param == Dialect::sqlite ? "Sqlite" : "Postgres";
}

}  // namespace heal
