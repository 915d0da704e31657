// The analyst with code at hand: a store in memory, a scripted model, a reader of code without git.
#include "service/analyst.hpp"

#include "ai/prompt.hpp"
#include "base/id.hpp"
#include "net/http_client.hpp"
#include "service/code_reader.hpp"
#include "service/healer.hpp"
#include "store/analysis_store.hpp"
#include "store/bug_store.hpp"
#include "store/healing_store.hpp"
#include "store/queries.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <mutex>
#include <optional>

namespace heal {
namespace {

using namespace std::chrono_literals;
namespace asio = boost::asio;

class NoRunner final : public StrategyRunner {
public:
    asio::awaitable<std::vector<StrategyReply>> assess(std::vector<StrategyCall>) override {
        co_return std::vector<StrategyReply>{};
    }
    asio::awaitable<StrategyReply> execute(StrategyCall, EffectLedger&) override {
        co_return StrategyReply{};
    }
    asio::awaitable<StrategyReply> verify(StrategyCall, EffectLedger&) override { co_return StrategyReply{}; }
    asio::awaitable<StrategyReply> rollback(StrategyCall, EffectLedger&) override {
        co_return StrategyReply{};
    }
    asio::awaitable<StrategyReply> undo(StrategyCall, std::vector<Effect>, EffectLedger&) override {
        co_return StrategyReply{};
    }
    void cancel(const std::string&) override {}
    asio::awaitable<void> stop() override { co_return; }
};

class FakeCode final : public CodeReader {
public:
    explicit FakeCode(CodeAt& code) : code_(code) {}
    result<CodeAt>
    read(const RepositorySettings&, const std::string& revision, const std::string& trace, std::size_t, const std::atomic<bool>&)
        override {
        const std::lock_guard lock{mutex};
        asked.push_back(revision);
        if (trace.empty()) return CodeAt{code_.revision, {}};
        return code_;
    }
    std::mutex mutex;
    std::vector<std::string> asked;

private:
    CodeAt& code_;
};

/// An analysis for a question with a schema, edits for one without; `edits` and `refuse_after` are the
/// test's.
class FakeModel final : public net::HttpClient {
public:
    result<net::HttpAnswer> send(const net::HttpRequest& request) override {
        const std::lock_guard lock{mutex};
        bodies.push_back(request.body);
        if (bodies.size() > refuse_after) return net::HttpAnswer{400, {}, "{}"};
        const auto body = json::parse(request.body).as_object();
        const std::string text = body.contains("response_format") ? analysis : edits;
        const json::object message{{"role", "assistant"}, {"content", text}};
        const json::object answer{
            {"choices", json::array{json::object{{"finish_reason", "stop"}, {"message", message}}}},
            {"usage", json::object{{"prompt_tokens", 1000}, {"completion_tokens", 100}}}};
        return net::HttpAnswer{200, {}, json::serialize(answer)};
    }
    std::string text(std::size_t i) {
        const std::lock_guard lock{mutex};
        std::string all;
        const auto body = json::parse(bodies.at(i));
        for (const auto& m : body.at("messages").as_array())
            all += std::string{view(m.at("content").as_string())} + "\n";
        return all;
    }
    std::mutex mutex;
    std::vector<std::string> bodies;
    std::size_t refuse_after = 1000;
    std::string edits =
        "src/cart.py\n<<<<<<< SEARCH\n    return order['total']\n=======\n    return order.get('total', "
        "0)\n>>>>>>> REPLACE\n";
    std::string analysis =
        R"({"root_cause":"c","root_cause_hypothesis":"h","bug_classification":"logic_bug","estimated_impact":"i","fix_suggestions":[
            {"fix_title":"get","fix_description":"d","fix_approach":"a","files_affected":["src/cart.py"],"confidence_score":0.5,"reasoning":"r",
             "breaking_changes":[],"potential_side_effects":[],"test_cases":[]},
            {"fix_title":"document it","fix_description":"d","fix_approach":"a","files_affected":[],"confidence_score":1,"reasoning":"r",
             "breaking_changes":[],"potential_side_effects":[],"test_cases":[]}],"prevention_tips":[]})";
};

class AnalystTest : public ::testing::Test {
protected:
    void SetUp() override {
        char name[] = "/tmp/heal-analyst-XXXXXX";
        folder = ::mkdtemp(name);
        StoreSettings s;
        s.path = folder + "/x.db";
        store = open_store(s, io.get_executor(), clock).value();
        Settings settings;
        ProviderSettings p;
        p.name = "model";
        p.dialect = "openai";
        p.model = "m";
        p.key = "k";
        settings.ai.providers = {p};
        RepositorySettings r;
        r.name = "cart";
        r.services = {"cart"};
        settings.repositories = {r};
        shared.reset(new Shared{
            io,
            clock,
            *store,
            runner,
            *prober,
            feed,
            metrics,
            std::make_shared<const Settings>(settings),
            {},
            {},
            nullptr,
            nullptr,
            nullptr});
        code.revision = "c0ffee";
        code.excerpts = {
            {"src/cart.py",
             1,
             3,
             "total",
             "def total(order):\n    # password = \"canary-in-code1\"\n    return order['total']\n",
             {"abc rename"}}};
        auto reader = std::make_unique<FakeCode>(code);
        fake_code = reader.get();
        analyst = create_analyst(*shared, std::move(reader), http);
    }
    void TearDown() override {
        run<int>([&]() -> asio::awaitable<int> {
            co_await analyst->stop();
            co_return 0;
        });
        analyst.reset();
        store->stop();
        std::filesystem::remove_all(folder);
    }

    template <class T>
    T run(const std::function<asio::awaitable<T>()>& body) {
        std::optional<T> out;
        asio::co_spawn(io, body(), [&](const std::exception_ptr& error, T value) {
            if (!error) out = std::move(value);
            io.stop();
        });
        io.restart();
        io.run();
        return std::move(out).value();
    }
    std::string bug() {
        std::string id;
        const auto written = run<bool>([&]() -> asio::awaitable<bool> {
            Store::Job job = [&](Database& db) -> result<void> {
                LogRecord r;
                r.service_name = "cart";
                r.level = Level::fatal;
                r.error_type = "KeyError";
                r.message = r.pattern = "missing 'total' LOG-CANARY";
                r.stack_trace = "File \"src/cart.py\", line 3, in total";
                r.release = "1.4.2";
                r.digest = sha256_hex("x");
                r.fingerprint = r.digest.substr(0, 16);
                r.time = r.received = clock.wall();
                HEAL_TRY(
                    sql::add_occurrences(db, {&r, "", 1, 1, clock.wall(), clock.wall(), Severity::p2_minor})
                );
                auto opened =
                    sql::open_or_count_bug(db, clock, r, Severity::p2_minor, "fatal", 1, clock.wall(), "");
                if (!opened) return opened.error();
                id = (*opened)->id;
                return {};
            };
            const auto outcome = co_await store->write(std::move(job));
            co_return outcome.has_value();
        });
        EXPECT_TRUE(written);
        return id;
    }
    result<json::object> analyze(const std::string& id, bool fresh = false) {
        return run<result<json::object>>([&]() -> asio::awaitable<result<json::object>> {
            AnalysisRequest request;
            request.bug = id;
            request.actor = "anna";
            request.fresh = fresh;
            co_return co_await analyst->analyze(std::move(request));
        });
    }
    result<std::string> mend(const std::string& suggestion, const std::string& complaint) {
        return run<result<std::string>>([&]() -> asio::awaitable<result<std::string>> {
            std::string s = suggestion, c = complaint;
            co_return co_await analyst->mend(std::move(s), std::move(c));
        });
    }

    std::string folder;
    asio::io_context io{1};
    SystemClock clock;
    NoRunner runner;
    std::unique_ptr<Prober> prober = create_prober();
    Feed feed{clock};
    Metrics metrics;
    std::unique_ptr<Store> store;
    std::unique_ptr<Shared> shared;
    CodeAt code;
    FakeModel http;
    FakeCode* fake_code = nullptr;
    std::unique_ptr<Analyst> analyst;
};

TEST_F(AnalystTest, AsksForEditsWithTheCodeAndWithoutTheLog) {
    std::vector<std::string> told;
    analyst->on_suggested([&](std::string id) -> asio::awaitable<result<void>> {
        told.push_back(std::move(id));
        co_return result<void>{};
    });
    const auto id = bug();
    const auto found = analyze(id).value();
    EXPECT_EQ(string_at(found, "source"), "model");
    EXPECT_EQ(string_at(found, "revision"), "c0ffee");
    EXPECT_EQ(fake_code->asked, (std::vector<std::string>{"1.4.2"})) << "at the release that failed";
    ASSERT_EQ(http.bodies.size(), 2U) << "only the suggestion that names files is asked for edits";
    EXPECT_NE(http.text(0).find("LOG-CANARY"), std::string::npos);
    EXPECT_NE(http.text(0).find("return order['total']"), std::string::npos);
    EXPECT_NE(http.text(0).find("abc rename"), std::string::npos);
    EXPECT_EQ(http.text(1).find("LOG-CANARY"), std::string::npos);
    EXPECT_NE(http.text(1).find("return order['total']"), std::string::npos);
    for (const auto& body : http.bodies) EXPECT_EQ(body.find("canary-in-code1"), std::string::npos);
    const auto& suggestions = array_at(found, "suggestions");
    ASSERT_EQ(suggestions.size(), 2U);
    EXPECT_EQ(suggestions[0].at("edits").as_string(), http.edits);
    EXPECT_EQ(suggestions[0].at("revision").as_string(), "c0ffee");
    EXPECT_EQ(suggestions[1].at("edits").as_string(), "");
    EXPECT_EQ(told, (std::vector<std::string>{id}));
    EXPECT_EQ(int_at(found, "tokens"), 2200);
}

TEST_F(AnalystTest, TheStoredAnswerIsGoodForTheSameCodeOnly) {
    const auto id = bug();
    ASSERT_TRUE(analyze(id));
    code.revision = "another commit";
    const auto again = analyze(id).value();
    EXPECT_EQ(string_at(again, "source"), "cache") << "the code that is shown is the same";
    EXPECT_EQ(int_at(again, "tokens"), 0);
    EXPECT_EQ(array_at(again, "suggestions")[0].at("edits").as_string(), http.edits);
    EXPECT_EQ(http.bodies.size(), 2U);
    code.excerpts[0].text += "    # changed\n";
    EXPECT_EQ(string_at(analyze(id).value(), "source"), "model");
    EXPECT_EQ(http.bodies.size(), 4U);
}

TEST_F(AnalystTest, HalfAnAnswerIsShownAndNotKept) {
    http.refuse_after = 1;
    const auto id = bug();
    const auto found = analyze(id).value();
    EXPECT_EQ(string_at(found, "source"), "model");
    EXPECT_EQ(array_at(found, "suggestions")[0].at("edits").as_string(), "");
    http.refuse_after = 1000;
    EXPECT_EQ(string_at(analyze(id).value(), "source"), "model") << "asked again";
}

TEST_F(AnalystTest, EditsThatDoNotApplyAreMended) {
    const auto id = bug();
    const auto found = analyze(id).value();
    const std::string suggestion{view(array_at(found, "suggestions")[0].at("id").as_string())};
    const auto before = http.edits;
    http.edits = "src/cart.py\n<<<<<<< SEARCH\nexact\n=======\nbetter\n>>>>>>> REPLACE\n";
    const auto mended =
        mend(suggestion, "edit 1: found nowhere; the nearest lines are: return order['total']");
    ASSERT_TRUE(mended) << mended.error().text;
    EXPECT_EQ(*mended, http.edits);
    const auto question = http.text(2);
    EXPECT_NE(question.find("found nowhere"), std::string::npos);
    EXPECT_NE(question.find(before.substr(0, 30)), std::string::npos);
    EXPECT_EQ(question.find("LOG-CANARY"), std::string::npos);
    EXPECT_EQ(fake_code->asked.back(), "c0ffee") << "at the commit that the edits are for";
    http.edits = "I cannot";
    EXPECT_EQ(mend(suggestion, "again").error().code, errc::unavailable);
    EXPECT_EQ(mend("nobody", "x").error().code, errc::not_found);
    auto settings = std::make_shared<Settings>(*shared->settings);
    settings->ai.tokens_per_bug = 100;
    shared->settings = settings;
    EXPECT_EQ(mend(suggestion, "x").error().code, errc::denied) << "the budget";
    settings = std::make_shared<Settings>(*shared->settings);
    settings->ai.providers.clear();
    shared->settings = settings;
    EXPECT_EQ(mend(suggestion, "x").error().code, errc::denied) << "nobody to ask";
}

TEST_F(AnalystTest, ARepositoryWithoutAutonomyIsNotRead) {
    auto settings = std::make_shared<Settings>(*shared->settings);
    settings->repositories[0].autonomy = FixAutonomy::off;
    shared->settings = settings;
    ASSERT_TRUE(analyze(bug()));
    EXPECT_TRUE(fake_code->asked.empty());
    EXPECT_EQ(http.bodies.size(), 1U);
    EXPECT_EQ(http.text(0).find("return order"), std::string::npos);
}

TEST_F(AnalystTest, UrgentBugsWaitInABoundedQueue) {
    for (int i = 0; i < 100; ++i) analyst->opened("bug" + std::to_string(i), Severity::p0_critical);
    analyst->opened("minor", Severity::p2_minor);
    EXPECT_EQ(
        metrics.value("heald_analysis_urgent_total", {{"outcome", "queued"}}) +
            metrics.value("heald_analysis_urgent_total", {{"outcome", "refused"}}),
        100
    );
    EXPECT_GT(metrics.value("heald_analysis_urgent_total", {{"outcome", "refused"}}), 30);
}

}  // namespace
}  // namespace heal
