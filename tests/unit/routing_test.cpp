// Which strategies an error reaches and which target it is about.
#include "core/decision.hpp"
#include "core/healing_machine.hpp"
#include "core/matcher.hpp"
#include "core/recent.hpp"
#include "core/targets.hpp"

#include <gtest/gtest.h>

#include <random>

namespace heal {
namespace {

using namespace std::chrono_literals;

Matcher matcher(const std::string& matches) {
    auto compiled = Matcher::compile(json::parse(matches).as_array(), "matches");
    EXPECT_TRUE(compiled) << matches;
    return std::move(*compiled);
}

Incident error(const std::string& service, const std::string& message, const std::string& context = "") {
    Incident in;
    in.service_name = in.record.service_name = service;
    in.record.message = message;
    in.record.context = context;
    in.record.level = Level::error;
    in.pattern = message;
    return in;
}

std::vector<std::size_t> potential(const std::vector<Matcher>& all, const Incident& in) {
    std::vector<const Matcher*> pointers;
    for (const auto& m : all) pointers.push_back(&m);
    MatcherIndex index;
    index.build(pointers);
    std::vector<std::size_t> out;
    index.potential(in, out);
    return out;
}

using Ids = std::vector<std::size_t>;

TEST(MatcherIndex, FindsARuleByTheMostTellingOfItsDemands) {
    std::vector<Matcher> all;
    for (const char* m :
         {R"([{"service": "cart"}])",
          R"([{"message": "disk .*full"}])",
          R"([{"error_type": "IOError"}])",
          R"([{"service": "ca*"}])",
          R"([{}])",
          R"([{"fingerprint": "00aa"}])",
          R"([{"service": "shop"}, {"message": "(?i)TIMEOUT"}])",
          R"([{"service": "cart", "message": "disk"}])"})
        all.push_back(matcher(m));
    EXPECT_EQ(potential(all, error("cart", "nothing")), (Ids{0, 3, 4}));
    EXPECT_EQ(potential(all, error("db", "the Disk is FULL")), (Ids{1, 3, 4, 7}))
        << "case is looked at later";
    EXPECT_EQ(potential(all, error("db", "request Timeout")), (Ids{3, 4, 6}));
    EXPECT_EQ(potential(all, error("shop", "request timeout")), (Ids{3, 4, 6})) << "each once";
    auto typed = error("db", "x");
    typed.record.error_type = "IOError";
    typed.record.fingerprint = "00aa";
    EXPECT_EQ(potential(all, typed), (Ids{2, 3, 4, 5}));
    EXPECT_EQ(potential({}, error("db", "x")), Ids{});
}

TEST(MatcherIndex, LettersThatFoldIntoAsciiHideNothing) {
    const std::vector<Matcher> all{matcher(R"([{"message": "(?i)disk"}])")};
    EXPECT_TRUE(all[0].fits(error("a", "dis\u212A"), {}));
    EXPECT_EQ(potential(all, error("a", "dis\u212A")), Ids{0});
    const std::vector<Matcher> umlaut{matcher(R"([{"message": "(?i)größe"}])")};
    EXPECT_EQ(potential(umlaut, error("a", "GRÖSSE GRÖßE")), Ids{0})
        << "not found by literals, so always asked";
}

TEST(MatcherIndex, NeverMissesWhatFits) {
    std::mt19937_64 random{1};
    const auto pick = [&](std::initializer_list<const char*> from) {
        return std::string{*(from.begin() + static_cast<std::ptrdiff_t>(random() % from.size()))};
    };
    std::vector<Matcher> all;
    for (int i = 0; i < 400; ++i) {
        json::object m;
        if (random() % 2) m["service"] = pick({"cart", "shop", "db", "c*", "?b"});
        if (random() % 2)
            m["message"] = pick(
                {"disk", "full$", "a|b", "(?i)disk.full", "time.?out", "x*", "^conn(ection)?", "[0-9]+ms"}
            );
        if (random() % 3 == 0) m["error_type"] = pick({"IOError", "Type*", "Timeout"});
        if (random() % 4 == 0) m["stack"] = pick({"main", "at .*java", "q"});
        if (random() % 5 == 0) m["component"] = pick({"api", "worker"});
        all.push_back(matcher(json::serialize(json::array{m})));
    }
    std::vector<const Matcher*> pointers;
    for (const auto& m : all) pointers.push_back(&m);
    MatcherIndex index;
    index.build(pointers);
    std::size_t fits = 0, asked = 0;
    for (int i = 0; i < 500; ++i) {
        auto in = error(
            pick({"cart", "shop", "db", "ab", "other"}),
            pick({"disk full", "DISK-FULL", "time out", "connection lost", "12ms", "a", ""})
        );
        in.record.error_type = pick({"IOError", "TypeError", "Timeout", ""});
        in.record.stack_trace = pick({"main", "at x.java", ""});
        in.record.component = pick({"api", "worker", ""});
        Ids found;
        index.potential(in, found);
        asked += found.size();
        for (std::size_t k = 0; k < all.size(); ++k) {
            if (!all[k].fits(in, {})) continue;
            ++fits;
            EXPECT_TRUE(std::binary_search(found.begin(), found.end(), k)) << i << " " << k;
        }
    }
    EXPECT_GT(fits, 1000U);
    EXPECT_LT(asked, 500U * 400U / 2) << "and asks far fewer than all";
}

TEST(Recent, ForgetsWhatWasNotTouchedForLongest) {
    Recent<int> recent{3};
    int forgotten = 0;
    const auto count = [&](int&) { ++forgotten; };
    for (const std::uint64_t key : {1U, 2U, 3U, 1U, 4U}) recent.touch(key, count) = static_cast<int>(key);
    EXPECT_EQ(forgotten, 1);
    EXPECT_EQ(recent.find(2), nullptr);
    ASSERT_NE(recent.find(1), nullptr);
    std::string order;
    recent.each([&](int v) { order += std::to_string(v); });
    EXPECT_EQ(order, "314");
    recent.forget_oldest_while([](int v) { return v != 4; });
    EXPECT_EQ(recent.size(), 1U);
}

TEST(Targets, RulesOfPeopleComeFirstThenNamesThenWhatCollectorsCallIt) {
    const std::vector<TargetEntry> entries{
        {"cart", "", {"cart.service"}}, {"redis", "", {"cart-redis"}}, {"web", "prod", {}}};
    const TargetResolver resolver{
        entries,
        {{matcher(R"([{"service": "cart", "message": "redis.*refused"}])"), "redis"},
         {matcher(R"([{"message": "x"}])"), "gone"}}};
    const struct {
        Incident in;
        const char *target, *how;
    } rows[] = {
        {error("cart", "redis connection refused"), "redis", "rule 1"},
        {error("shop", "redis connection refused"), "shop", ""},
        {error("cart", "broken"), "cart", "service"},
        {error("cart.service", "broken"), "cart", "service is its unit"},
        {error("cart-redis", "broken"), "redis", "service is its unit"},
        {error("unknown", "broken", R"({"_SYSTEMD_UNIT": "cart.service"})"),
         "cart",
         "_SYSTEMD_UNIT cart.service"},
        {error("unknown", "broken", R"({"container_name": "/cart-redis"})"),
         "redis",
         "container_name /cart-redis"},
        {error("unknown", "broken", R"({"container_name": "other"})"), "unknown", ""},
        {error("web", "broken"), "web", ""},
        {error("cart", "x"), "cart", "service"}};
    for (const auto& r : rows) {
        const auto resolved = resolver.resolve(r.in);
        EXPECT_EQ(resolved.name, r.target) << r.in.service_name;
        EXPECT_EQ(resolved.how, r.how) << r.in.service_name;
    }
    const TargetResolver asking{
        entries,
        {{matcher(R"([{"service": "cart", "message": "shard"}])"), "redis", "which_shard"},
         {matcher(R"([{"service": "cart", "message": "disk"}])"), "", "which_disk"}}};
    EXPECT_EQ(asking.resolve(error("cart", "shard 3 is gone")).name, "redis");
    EXPECT_EQ(asking.resolve(error("cart", "shard 3 is gone")).resolver, "which_shard");
    EXPECT_EQ(asking.resolve(error("cart", "disk full")).name, "cart") << "until the resolver says more";
    EXPECT_EQ(asking.resolve(error("cart", "disk full")).resolver, "which_disk");
    EXPECT_EQ(asking.resolve(error("cart", "broken")).resolver, "");
    EXPECT_TRUE(asking.knows("web", "prod"));
    EXPECT_FALSE(asking.knows("web", "test"));
    auto there = error("web", "broken");
    there.environment = "prod";
    EXPECT_EQ(resolver.resolve(there).how, "service");
    EXPECT_EQ(TargetResolver{}.resolve(error("cart", "x")).name, "cart");
}

TEST(Decision, WhatIsExploredGoesFirstAmongItsEqualsOnly) {
    std::vector<Candidate> candidates(3);
    candidates[0].info.name = "known", candidates[0].prior = 0.9, candidates[0].priority = 10;
    candidates[1].info.name = "unknown", candidates[1].prior = 0.2, candidates[1].priority = 10;
    candidates[2].info.name = "preferred", candidates[2].prior = 0.5, candidates[2].priority = 20;
    const auto order = [&](const std::vector<std::string>& excluded, const std::string& explore) {
        std::string out;
        for (const auto& item : decide(decision_input(candidates, excluded, explore)))
            out += std::string{string_at(item.as_object(), "strategy")} + " ";
        return out;
    };
    EXPECT_EQ(order({}, ""), "preferred known unknown ");
    EXPECT_EQ(order({}, "unknown"), "preferred unknown known ");
    EXPECT_EQ(order({"unknown"}, "unknown"), "preferred known unknown ") << "not what just failed";
}

TEST(ControlArm, NothingIsDoneAtFirstAndWhatRecoversIsClosed) {
    constexpr Time t0{1'790'000'000'000'000};
    std::vector<Candidate> one(1);
    one[0].info.name = "restart";
    const auto alone = [&] {
        HealingMachine m{one};
        const auto orders = m.step(input::LeaveAlone{30s}, t0);
        EXPECT_EQ(orders.size(), 2U);
        EXPECT_EQ(std::get<order::Wait>(orders.back()).duration, Duration{30s});
        EXPECT_TRUE(std::holds_alternative<order::Look>(m.step(input::Timer{}, t0 + 30s)[0]));
        return m;
    };
    Evidence well;
    well.positive = 1;
    auto recovers = alone();
    const auto end = recovers.step(input::Looked{well, false}, t0 + 30s);
    EXPECT_EQ(std::get<order::Finish>(end[0]).state, EventState::closed);
    auto stays = alone();
    Evidence ill;
    ill.negative = 1;
    const auto goes_on = stays.step(input::Looked{ill, false}, t0 + 30s);
    EXPECT_TRUE(std::holds_alternative<order::Consider>(goes_on[0])) << "then it is healed as all others";
    HealingMachine begun{one};
    begun.step(input::Begin{}, t0);
    EXPECT_TRUE(begun.step(input::LeaveAlone{30s}, t0).empty());
}

}  // namespace
}  // namespace heal
