// The cache_flush strategy's own logic against a fake host. Real Redis and memcached:
// tests/strategies_test.py.
#include "strategy.cpp"

#include <heal/sdk_fake.hpp>

#include <gtest/gtest.h>

namespace {

heal::json target(std::vector<std::string> keys) {
    return heal::json::object(
        {{"name", "cart"},
         {"redis", heal::json::object({{"address", "127.0.0.1:6379"}, {"keys", heal::json(keys)}})}}
    );
}

heal::json incident(std::string message) {
    return heal::json::object({{"service", "cart"}, {"message", message}});
}

// The first words of each Redis command that was sent.
std::vector<std::string> commands(const heal::fake::host& host) {
    std::vector<std::string> out;
    for (const auto& e : host.effects()) {
        for (const auto& c : e.parameters["commands"].items()) {
            std::string text;
            for (const auto& word : c.strings()) text += (text.empty() ? "" : " ") + word;
            out.push_back(text);
        }
    }
    return out;
}

TEST(CacheFlush, TakesKeysFromTheErrorOnlyWhereTheyAreDeclared) {
    struct Row {
        const char* message;
        std::vector<std::string> keys;
    };
    const Row rows[] = {
        {"cannot decode cart:42: Expecting value", {"cart:42"}},
        {"cannot decode 'cart:42', \"cart:43\" (cart:44).", {"cart:42", "cart:43", "cart:44"}},
        {"cart:42 and again cart:42", {"cart:42"}},
        {"order:1 is bad", {}},
        {"cart:* or * or ?", {}},
        {"FLUSHALL; cart:1\r\nFLUSHALL", {"cart:1"}},
        {"", {}},
    };
    for (const auto& row : rows) {
        const heal::request rq{heal::fake::request({{"incident", incident(row.message)}})};
        EXPECT_EQ(named_keys(rq, {"cart:*"}), row.keys) << row.message;
    }
}

TEST(CacheFlush, GlobsAsRedisDoes) {
    const std::tuple<const char*, const char*, bool> rows[] = {
        {"cart:*", "cart:", true},
        {"cart:*", "cart", false},
        {"c?t", "cat", true},
        {"*:1", "a:b:1", true},
        {"a*b*c", "aXbYbc", true},
        {"", "", true},
        {"", "a", false}};
    for (const auto& [pattern, text, expected] : rows)
        EXPECT_EQ(fits(pattern, text), expected) << pattern << " " << text;
}

TEST(CacheFlush, DropsTheNamedKeyAfterItTookNoteOfItsValue) {
    heal::fake::host host;
    host.answer_with("redis", [](const heal::json& p) {
        const auto verb = p["commands"][0][0].string_or("");
        return heal::json::object(
            {{"replies",
              heal::json::array(
                  {verb == "TYPE"     ? heal::json("string")
                   : verb == "UNLINK" ? heal::json(1)
                                      : heal::json("poison")}
              )}}
        );
    });
    const auto done = host.execute<cache_flush>(
        heal::fake::request({{"target", target({"cart:*"})}, {"incident", incident("bad cart:42")}})
    );
    EXPECT_EQ(done.status, HEAL_OK) << done.text;
    EXPECT_EQ(
        commands(host),
        (std::vector<std::string>{"TYPE cart:42", "GETRANGE cart:42 0 16383", "UNLINK cart:42"})
    );
}

TEST(CacheFlush, ScansInStepsUntilTheCursorIsBackAtZero) {
    heal::fake::host host;
    host.answer_with("redis", [](const heal::json& p) {
        const auto words = p["commands"][0].strings();
        heal::json reply = 1;
        if (words[0] == "SCAN")
            reply = heal::json::array(
                {words[1] == "0" ? "7" : "0", heal::json::array({words[1] == "0" ? "cart:1" : "cart:2"})}
            );
        if (words[0] == "TYPE") reply = "none";
        return heal::json::object({{"replies", heal::json::array({reply})}});
    });
    const auto done = host.execute<cache_flush>(
        heal::fake::request({{"target", target({"cart:*"})}, {"incident", incident("bad")}})
    );
    EXPECT_EQ(done.detail["dropped"].int_or(0), 2);
    EXPECT_EQ(
        commands(host),
        (std::vector<std::string>{
            "SCAN 0 MATCH cart:* COUNT 1000",
            "TYPE cart:1",
            "UNLINK cart:1",
            "SCAN 7 MATCH cart:* COUNT 1000",
            "UNLINK cart:2"})
    );
}

TEST(CacheFlush, SelectsTheDatabaseFirst) {
    heal::fake::host host;
    host.answer("redis", heal::json::object({{"replies", heal::json::array({"OK", "none"})}}));
    auto t = target({"cart:*"});
    heal::json redis = t["redis"];
    redis.set("database", 3);
    t.set("redis", redis);
    host.execute<cache_flush>(heal::fake::request({{"target", t}, {"incident", incident("bad cart:1")}}));
    EXPECT_EQ(commands(host).at(0), "SELECT 3");
}

TEST(CacheFlush, ReportsWhatRedisSays) {
    heal::fake::host host;
    host.answer(
        "redis",
        heal::json::object(
            {{"replies",
              heal::json::array({heal::json::object({{"error", "NOAUTH Authentication required."}})})}}
        )
    );
    const auto done = host.execute<cache_flush>(
        heal::fake::request({{"target", target({"cart:*"})}, {"incident", incident("bad cart:1")}})
    );
    EXPECT_EQ(done.status, HEAL_FAILED);
    EXPECT_NE(done.text.find("NOAUTH"), std::string::npos);
}

TEST(CacheFlush, IsSureOnlyWhenAKeyIsNamed) {
    heal::fake::host host;
    const std::pair<const char*, double> rows[] = {
        {"bad cart:42", 0.9}, {"cannot unmarshal value", 0.6}, {"disk full", 0.2}};
    for (const auto& [message, confidence] : rows) {
        EXPECT_DOUBLE_EQ(
            host.assess<cache_flush>(
                heal::fake::request({{"target", target({"cart:*"})}, {"incident", incident(message)}})
            ),
            confidence
        ) << message;
    }
    EXPECT_TRUE(host.effects().empty());
}

TEST(CacheFlush, ReadsThroughTheServiceWhenItIsToldHow) {
    auto t = target({"cart:*"});
    heal::json redis = t["redis"];
    redis.set(
        "read_through",
        heal::json::object({{"address", "127.0.0.1:80"}, {"paths", heal::json::array({"/cart/42"})}})
    );
    t.set("redis", redis);
    heal::fake::host host;
    for (const auto& [status, expected] :
         {std::pair{200, HEAL_OK},
          {304, HEAL_OK},
          {404, HEAL_FAILED},
          {500, HEAL_FAILED},
          {0, HEAL_FAILED}}) {
        host.answer("http", heal::json::object({{"status", status}}));
        EXPECT_EQ(host.verify<cache_flush>(heal::fake::request({{"target", t}})).status, expected) << status;
    }
    EXPECT_EQ(host.effects()[0].parameters["url"].view(), "http://127.0.0.1:80/cart/42");
}

TEST(CacheFlush, DeclinesRatherThanFlushMoreThanItMay) {
    heal::fake::host host;
    EXPECT_EQ(host.execute<cache_flush>(heal::fake::request({{"target", target({})}})).status, HEAL_DECLINED);
    EXPECT_EQ(
        host.execute<cache_flush>(
                heal::fake::request({{"target", target({"cart:*"})}, {"incident", incident("bad")}}),
                heal::json::object({{"only_named", true}})
        ).status,
        HEAL_DECLINED
    );
    EXPECT_EQ(host.execute<cache_flush>(heal::fake::request({})).status, HEAL_DECLINED);
    EXPECT_TRUE(host.effects().empty());
}

}  // namespace
