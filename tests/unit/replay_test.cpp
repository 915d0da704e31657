#include "core/replay.hpp"

#include <gtest/gtest.h>

#include <set>

namespace heal {
namespace {

using namespace std::chrono_literals;

constexpr Time t0{1'790'000'000'000'000};

struct World final : ReplayOracle {
    Played play(const Incident& in, const std::string& strategy, Time) override {
        played.push_back(strategy + " on " + in.target);
        if (failing.contains(strategy)) return {Outcome::failed, 1s};
        ill.erase(in.target);
        return {Outcome::succeeded, 1s};
    }
    std::optional<bool> well(const std::string& target, Time) override {
        return probed.contains(target) ? std::optional<bool>{!ill.contains(target)} : std::nullopt;
    }
    std::set<std::string> failing, ill, probed;
    std::vector<std::string> played;
};

ReplayStrategy strategy(const char* name, std::int64_t priority, const char* matches = "[{}]") {
    ReplayStrategy s;
    s.info.name = name;
    s.info.risk = Risk::safe;
    s.matcher = *Matcher::compile(json::parse(matches).as_array(), name);
    s.priority = priority;
    s.verify.stabilize = 10s;
    return s;
}

Incident error(const std::string& fingerprint = "f", const std::string& service = "cart") {
    Incident in;
    in.fingerprint = in.record.fingerprint = fingerprint;
    in.service_name = in.record.service_name = service;
    in.record.level = Level::error;
    in.record.message = in.pattern = "broken";
    return in;
}

TEST(Replay, TriesTheBestAndThenTheNextOnAVirtualClock) {
    World world;
    world.failing = {"first"};
    world.probed = world.ill = {"cart"};
    ReplayWorld w;
    w.strategies.push_back(strategy("second", 10));
    w.strategies.push_back(strategy("first", 20));
    std::vector<std::string> said;
    Replay replay{std::move(w), world, [&](Time, const std::string& text) { said.push_back(text); }};
    replay.hear(error(), 1, t0);
    replay.finish(1h);
    EXPECT_EQ(world.played, (std::vector<std::string>{"first on cart", "second on cart"}));
    EXPECT_EQ(replay.totals().ends.at("healed"), 1U);
    EXPECT_EQ(replay.totals().actions, 2U);
    EXPECT_FALSE(said.empty());
}

TEST(Replay, GuardsHoldOnTheVirtualClockAsInARunningHeald) {
    World world;
    world.probed = {"cart"};
    ReplayWorld w;
    auto s = strategy("restart", 10);
    s.info.risk = Risk::disruptive;
    w.strategies.push_back(std::move(s));
    w.max_auto_risk = Risk::disruptive;
    Replay healthy{w, world};
    healthy.hear(error(), 1, t0);
    healthy.finish(10min);
    EXPECT_TRUE(world.played.empty()) << "its probes pass";
    EXPECT_EQ(healthy.totals().held_back.begin()->first, "evidence");
    world.ill = {"cart"};
    Replay ill{w, world};
    ill.hear(error(), 1, t0);
    ill.finish(10min);
    EXPECT_EQ(world.played.size(), 1U);
    auto asks = w;
    asks.max_auto_risk = Risk::safe;
    world.ill = {"cart"};
    Replay person{asks, world};
    person.hear(error(), 1, t0);
    person.finish(10min);
    EXPECT_EQ(world.played.size(), 1U);
    EXPECT_EQ(person.totals().asked, 1U);
    EXPECT_EQ(person.totals().ends.at("open"), 1U);
}

TEST(Replay, TriggersDecideWhatIsWorthAnIncident) {
    World world;
    ReplayWorld w;
    w.strategies.push_back(strategy("flush", 10));
    TriggerSpec t;
    t.name = "often";
    t.kind = TriggerKind::threshold;
    t.when = *Matcher::compile(json::parse("[{}]").as_array(), "when");
    t.by = {"service"};
    t.count = 5;
    Replay plain{w, world};
    w.triggers = {t};
    Replay often{std::move(w), world};
    for (int i = 0; i < 4; ++i) {
        plain.hear(error(), 1, t0 + i * 1s);
        often.hear(error(), 1, t0 + i * 1s);
    }
    EXPECT_EQ(plain.totals().incidents, 1U);
    EXPECT_EQ(often.totals().incidents, 0U);
    often.hear(error("g"), 1, t0 + 5s);
    EXPECT_EQ(often.totals().incidents, 1U);
}

TEST(Replay, TheSameInputGivesTheSameTotals) {
    const auto run = [] {
        World world;
        world.failing = {"b"};
        ReplayWorld w;
        w.strategies.push_back(strategy("a", 10));
        w.strategies.push_back(strategy("b", 20));
        Replay replay{std::move(w), world};
        for (int i = 0; i < 2000; ++i)
            replay.hear(error("f" + std::to_string(i % 37), "s" + std::to_string(i % 5)), 1, t0 + i * 700ms);
        replay.finish(1h);
        std::string out;
        for (const auto& [name, n] : replay.totals().ends) out += name + std::to_string(n) + " ";
        for (const auto& [name, n] : replay.totals().held_back) out += name + std::to_string(n) + " ";
        return out + std::to_string(replay.totals().actions);
    };
    EXPECT_EQ(run(), run());
}

}  // namespace
}  // namespace heal
