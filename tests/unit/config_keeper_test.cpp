#include "service/config_keeper.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace heal {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

// Says what the test wants it to say, and what it was asked.
class SetProber final : public Prober {
public:
    boost::asio::awaitable<Evidence> check(std::vector<ProbeSettings> probes) override {
        asked = probes;
        ++looks;
        co_return evidence;
    }
    Evidence evidence{1, 0, {}};
    std::vector<ProbeSettings> asked;
    int looks = 0;
};

class ConfigKeeperTest : public ::testing::Test {
protected:
    void SetUp() override {
        char name[] = "/tmp/heal-keeper-XXXXXX";
        ASSERT_NE(::mkdtemp(name), nullptr);
        folder_ = name;
        file_ = folder_ + "/app.conf";
        write("one");
        auto settings = std::make_shared<Settings>();
        ServiceSettings service;
        service.name = "web";
        service.probes.push_back({"http://127.0.0.1:1/", 0, "", "", {}, 2000ms});
        service.facts = {{"name", "web"}, {"config", {{"files", {file_}}, {"check", {"/bin/true", "-t"}}}}};
        settings->services.push_back(service);
        settings_ = settings;
    }
    void TearDown() override { fs::remove_all(folder_); }

    void write(const std::string& text) {
        std::ofstream{file_} << text;
        // A version of its own even within one tick of the file system's clock.
        fs::last_write_time(file_, fs::file_time_type::clock::now() + std::chrono::seconds{++writes_});
    }
    void look() {
        boost::asio::io_context io;
        ConfigKeeper* keeper = keeper_.get();
        if (!keeper) {
            keeper_ = std::make_unique<ConfigKeeper>(
                io_.get_executor(), folder_ + "/kept", files_, clock_, prober_, [this] { return settings_; }
            );
            keeper = keeper_.get();
        }
        boost::asio::co_spawn(io, keeper->look(), [](const std::exception_ptr& e) {
            if (e) std::rethrow_exception(e);
        });
        io.run();
    }
    /// Contents of the kept versions, oldest first.
    std::vector<std::string> kept() const {
        std::vector<std::string> out;
        const auto folder =
            ConfigKeeper::versions_of(folder_ + "/kept", "web") + "/" + ConfigKeeper::folder_name(file_);
        const auto names = files_.list(folder);
        if (!names) return out;
        for (const auto& name : *names) out.push_back(files_.read(folder + "/" + name, 100).value());
        return out;
    }

    using Texts = std::vector<std::string>;
    std::string folder_, file_;
    int writes_ = 0;
    SystemFiles files_;
    ManualClock clock_;
    SetProber prober_;
    std::shared_ptr<const Settings> settings_;
    boost::asio::io_context io_;
    std::unique_ptr<ConfigKeeper> keeper_;
};

TEST_F(ConfigKeeperTest, KeepsTheFirstHealthyVersionAtOnceAndLaterOnesAfterAWhile) {
    look();
    EXPECT_EQ(kept(), Texts{"one"});
    ASSERT_EQ(prober_.asked.size(), 2U);
    EXPECT_EQ(prober_.asked[1].command, (Texts{"/bin/true", "-t"}));
    clock_.advance(1s);
    write("two");
    look();
    EXPECT_EQ(kept(), Texts{"one"});
    clock_.advance(1s);
    look();
    EXPECT_EQ(kept(), Texts{"one"});
    clock_.advance(1s);
    look();
    EXPECT_EQ(kept(), (Texts{"one", "two"}));
}

TEST_F(ConfigKeeperTest, KeepsNothingWithoutPositiveEvidence) {
    for (const Evidence& evidence : {Evidence{1, 1, {}}, Evidence{0, 0, {}}, Evidence{0, 2, {}}}) {
        prober_.evidence = evidence;
        look();
        clock_.advance(10s);
        look();
        EXPECT_TRUE(kept().empty());
    }
    prober_.evidence = {2, 0, {}};
    look();
    EXPECT_EQ(kept(), Texts{"one"});
}

TEST_F(ConfigKeeperTest, StartsToWaitAnewWhenItWasUnhealthyInBetween) {
    look();
    write("two");
    look();
    clock_.advance(1500ms);
    prober_.evidence = {0, 1, {}};
    look();
    clock_.advance(1500ms);
    prober_.evidence = {1, 0, {}};
    look();
    EXPECT_EQ(kept(), Texts{"one"});
    clock_.advance(2s);
    look();
    EXPECT_EQ(kept(), (Texts{"one", "two"}));
}

TEST_F(ConfigKeeperTest, LooksAtNothingWhileNothingChangesAndKeepsNoCopyOfTheSame) {
    look();
    const int looks = prober_.looks;
    for (int i = 0; i < 10; ++i) look();
    EXPECT_EQ(prober_.looks, looks);
    write("one");  // touched
    look();
    clock_.advance(3s);
    look();
    EXPECT_EQ(kept(), Texts{"one"});
}

TEST_F(ConfigKeeperTest, ForgetsTheOldestBeyondItsBound) {
    for (int i = 0; i < 30; ++i) {
        write(std::to_string(i));
        look();
        clock_.advance(3s);
        look();
    }
    const auto all = kept();
    ASSERT_EQ(all.size(), ConfigKeeper::max_versions);
    EXPECT_EQ(all.back(), "29");
    EXPECT_EQ(all.front(), "10");
}

TEST_F(ConfigKeeperTest, MissesAFileWithoutHarm) {
    fs::remove(file_);
    look();
    EXPECT_TRUE(kept().empty());
    EXPECT_EQ(prober_.looks, 0);
    write("one");
    look();
    EXPECT_EQ(kept(), Texts{"one"});
}

TEST(ConfigKeeper, NamesFoldersWithoutSlashes) {
    EXPECT_EQ(ConfigKeeper::folder_name("/etc/a%b/c.conf"), "etc%a%25b%c.conf");
    EXPECT_EQ(ConfigKeeper::versions_of("/s", "web/../x"), "/s/web%..%x");
    EXPECT_EQ(ConfigKeeper::versions_of("/s", ".."), "/s/%2E.");
}

}  // namespace
}  // namespace heal
