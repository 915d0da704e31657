// The llm_patch strategy's own logic against a fake host. The real pipeline: tests/patch/road.py.
#include "strategy.cpp"

#include <heal/sdk_fake.hpp>

#include <gtest/gtest.h>

namespace {

heal::json request() {
    return heal::fake::request(
        {{"incident",
          heal::json::object(
              {{"id", "e1"}, {"service", "cart"}, {"message", "x"}, {"stack_trace", "at f (a.js:1:1)"}}
          )},
         {"target",
          heal::json::object(
              {{"name", "cart"},
               {"code",
                heal::json::object({{"url", "http://127.0.0.1:7480"}, {"address", "127.0.0.1:7480"}})}}
          )},
         {"ticket", "attempt:1:aa"}}
    );
}

heal::json answer(int status, const std::string& body) {
    return heal::json::object({{"status", status}, {"body", body}, {"headers", heal::json::object()}});
}

/// Answers as heald does; `runs` is what the list of patches holds.
void serve(
    heal::fake::host& host, const std::string& runs, int analysis = 200, const std::string& bug = "b1"
) {
    host.answer_with("http", [=](const heal::json& p) {
        const std::string url = p["url"].string_or("");
        if (url.find("/healing/events/e1") != std::string::npos)
            return answer(200, R"({"bug_id":")" + bug + R"("})");
        if (url.find("/ai/fix") != std::string::npos) return answer(analysis, R"({"detail":"no budget"})");
        return answer(200, R"({"items":[)" + runs + "]}");
    });
}

TEST(LlmPatch, TellsWhatBecameOfThePatches) {
    struct Row {
        const char* runs;
        std::int32_t status;
        const char* says;
    };
    const Row rows[] = {
        {R"({"id":"r1","step":"watch","outcome":"","reason":""})", HEAL_OK, "deployed by run r1"},
        {R"({"id":"r1","step":"finish","outcome":"held","reason":""})", HEAL_OK, "deployed by run r1"},
        {R"({"id":"r1","step":"review","outcome":"","reason":""})", HEAL_DECLINED, "waits for people"},
        {R"({"id":"r1","step":"request","outcome":"","reason":""})", HEAL_DECLINED, "waits for people"},
        {R"({"id":"r1","step":"finish","outcome":"refused","reason":"still red"})",
         HEAL_DECLINED,
         "still red"},
        {"", HEAL_DECLINED, "nothing with code"},
    };
    for (const auto& row : rows) {
        heal::fake::host host;
        serve(host, row.runs);
        const auto outcome = host.execute<llm_patch>(request());
        EXPECT_EQ(outcome.status, row.status) << row.runs << outcome.text;
        EXPECT_NE(outcome.text.find(row.says), std::string::npos) << outcome.text;
    }
}

TEST(LlmPatch, DeclinesWithoutABugOrWhenTheAnalysisIsRefused) {
    heal::fake::host host;
    serve(host, "", 503);
    auto outcome = host.execute<llm_patch>(request());
    EXPECT_EQ(outcome.status, HEAL_DECLINED);
    EXPECT_NE(outcome.text.find("no budget"), std::string::npos) << outcome.text;
    heal::fake::host other;
    serve(other, "", 200, "");
    EXPECT_EQ(other.execute<llm_patch>(request()).status, HEAL_DECLINED);
}

TEST(LlmPatch, VerifiesByWhatTheWatchSays) {
    heal::fake::host host;
    serve(host, R"({"id":"r1","step":"watch","outcome":"","reason":""})");
    EXPECT_EQ(host.verify<llm_patch>(request()).status, HEAL_OK);
    serve(host, R"({"id":"r1","step":"finish","outcome":"did_not_hold","reason":""})");
    EXPECT_EQ(host.verify<llm_patch>(request()).status, HEAL_FAILED);
}

TEST(LlmPatch, ShowsItsTicketAndNothingElse) {
    heal::fake::host host;
    serve(host, "");
    host.execute<llm_patch>(request());
    ASSERT_FALSE(host.effects().empty());
    for (const auto& e : host.effects()) {
        if (e.kind == "http") {
            EXPECT_EQ(e.parameters["headers"]["Authorization"].string_or(""), "Bearer attempt:1:aa");
            EXPECT_LE(e.parameters["timeout_ms"].int_or(0), 600'000) << "the host refuses longer ones";
        }
    }
}

}  // namespace
