#include "runner_test_world.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <map>

using namespace heal;
using namespace heal::testing;
using namespace std::chrono_literals;

namespace {

StrategyCall with(StrategyCall call, json::object config) {
    call.request["config"] = std::move(config);
    return call;
}

class Runner : public ::testing::Test {
protected:
    void load_sample() {
        drop_in(SAMPLE_PLUGIN, world.folder / "plugins/sample.so");
        world.start();
        ASSERT_NE(world.entry("sample.so"), nullptr);
        ASSERT_EQ(world.entry("sample.so")->reason, "");
    }
    World world;
};

}  // namespace

TEST_F(Runner, DescribesALibraryAsItsFactsSay) {
    load_sample();
    const CatalogEntry& e = *world.entry("sample.so");
    EXPECT_EQ(e.state, ArtifactState::loaded);
    EXPECT_EQ(e.kind, "so");
    EXPECT_EQ(e.build.size(), 64U);
    ASSERT_EQ(e.strategies.size(), 1U);
    const StrategyInfo& s = e.strategies[0];
    EXPECT_EQ(s.name, "sample");
    EXPECT_EQ(s.priority, 70);
    EXPECT_EQ(s.risk, Risk::safe);
    EXPECT_TRUE(s.idempotent && s.reversible && s.has_assess && s.has_verify && !s.has_rollback);
    EXPECT_EQ(s.timeout, 5s);
    EXPECT_EQ(s.capabilities, (std::vector<std::string>{"exec:/bin/*", "file:{target.folder}/**"}));
    EXPECT_EQ(s.artifact, e.path);
}

TEST_F(Runner, AnswersAssessExecuteAndVerify) {
    load_sample();
    const StrategyReply assessed = world.assess(world.call("sample"));
    EXPECT_EQ(assessed.outcome, Outcome::succeeded);
    EXPECT_DOUBLE_EQ(assessed.confidence, 0.75);
    const StrategyReply executed = world.execute(world.call("sample"));
    EXPECT_EQ(executed.outcome, Outcome::succeeded) << executed.text;
    EXPECT_EQ(executed.text, "did nothing");
    EXPECT_EQ(int_at(executed.detail, "n"), 3) << "the default of a parameter is filled in";
    EXPECT_EQ(world.verify(world.call("sample")).text, "all is well");
}

TEST_F(Runner, AnswersABatchInItsOrder) {
    load_sample();
    std::vector<StrategyCall> calls;
    for (const char* service : {"cart", "other", "cart"}) {
        calls.push_back(world.call("sample"));
        calls.back().request["incident"].as_object()["service"] = service;
    }
    calls.push_back(world.call("unknown"));
    const auto replies = world.run(world.plugins->runner().assess(std::move(calls)));
    ASSERT_EQ(replies.size(), 4U);
    EXPECT_DOUBLE_EQ(replies[0].confidence, 0.75);
    EXPECT_DOUBLE_EQ(replies[1].confidence, 0.1);
    EXPECT_DOUBLE_EQ(replies[2].confidence, 0.75);
    EXPECT_EQ(replies[3].outcome, Outcome::declined);
}

TEST_F(Runner, PassesOnWhateverDepthAndBytesAnIncidentHas) {
    load_sample();
    // 32 levels are what the engine itself takes; the message around them adds more.
    std::string deep = "1";
    for (int i = 0; i < 31; ++i) deep = "[" + deep + "]";
    StrategyCall call = world.call("sample");
    call.request["incident"].as_object()["context"] = json::object{{"deep", parse_json(deep, "x").value()}};
    call.request["incident"].as_object()["message"] = std::string("\x01\x1f \xc3\xa4 \"quoted\" \\ \x7f");
    EXPECT_EQ(world.assess(call).outcome, Outcome::succeeded);
    EXPECT_EQ(world.execute(call).outcome, Outcome::succeeded);
    call.attempt += "b";
    call.request["incident"].as_object()["message"] = std::string(2'000'000, 'x');
    const StrategyReply large = world.execute(call);
    EXPECT_EQ(large.outcome, Outcome::failed);
    EXPECT_FALSE(large.crashed) << "a message that does not fit is not the plugin's fault";
    EXPECT_EQ(world.execute(world.call("sample")).outcome, Outcome::succeeded);
}

TEST_F(Runner, ServesMoreArtifactsThanItMayHaveHosts) {
    for (int i = 0; i < 20; ++i) {
        const std::string name = "s" + std::to_string(i);
        world.script(name + ".lua", "return { name = '" + name + "', execute = function() return true end }");
    }
    world.start();
    world.drive([&] { return world.plugins->entries().size() == 20; });
    for (int i = 0; i < 20; ++i)
        EXPECT_EQ(world.execute(world.call("s" + std::to_string(i))).outcome, Outcome::succeeded) << i;
}

TEST_F(Runner, RefusesAConfigurationThatDoesNotFitTheParameters) {
    load_sample();
    const auto check = [&](json::object config, const std::string& expected) {
        const StrategyReply r = world.execute(with(world.call("sample"), std::move(config)));
        EXPECT_EQ(r.outcome, Outcome::failed);
        EXPECT_NE(r.text.find(expected), std::string::npos) << r.text;
    };
    check({{"n", 11}}, "config.n: must be at most 10 s");
    check({{"n", "x"}}, "config.n: must be of type integer");
    check({{"do", "dance"}}, "config.do: must be one of");
    check({{"typo", 1}}, "config.typo: is not a parameter; known are: do, path, n");
    EXPECT_TRUE(world.ledger.lines.empty());
}

TEST_F(Runner, RecordsAnEffectBeforeAndAfterItAndHoldsAnUndoableOneUntilItIsDurable) {
    load_sample();
    const StrategyReply r = world.execute(with(world.call("sample", {"exec:/bin/*"}), {{"do", "exec"}}));
    EXPECT_EQ(r.outcome, Outcome::succeeded) << r.text;
    EXPECT_EQ(r.text, "hello\n");
    EXPECT_EQ(world.ledger.lines, (std::vector<std::string>{"begin exec", "end ok"}));
    ASSERT_EQ(world.ledger.effects.size(), 1U);
    const Effect& e = world.ledger.effects[0];
    EXPECT_EQ(e.summary, "exec /bin/echo hello");
    EXPECT_EQ(e.capability, "exec:/bin/echo");
    EXPECT_EQ(e.phase, "execute");
    EXPECT_EQ(e.step, 1);
    EXPECT_TRUE(e.undoable);
    EXPECT_EQ(string_at(e.undo, "kind"), "exec");
}

TEST_F(Runner, DoesNotPerformWhatCouldNotBeRecorded) {
    load_sample();
    const std::string file = world.folder / "x.txt";
    world.ledger.refuse_kind = "write_file";
    const StrategyReply r = world.execute(
        with(world.call("sample", {"file:" + world.folder.path + "/**"}), {{"do", "write"}, {"path", file}})
    );
    EXPECT_EQ(r.outcome, Outcome::failed);
    EXPECT_NE(r.text.find("could not be recorded"), std::string::npos) << r.text;
    EXPECT_FALSE(fs::exists(file));
}

/// Planned ahead of the intent or not; an effect that can be taken back ("write") and one that cannot.
class RunnerIntent : public Runner, public ::testing::WithParamInterface<std::tuple<bool, const char*>> {
protected:
    RunnerIntent() { world.ledger.pending = std::get<0>(GetParam()); }
    StrategyReply write() {
        load_sample();
        return world.execute(with(
            world.call("sample", {"file:" + world.folder.path + "/**", "exec:/bin/*"}),
            {{"do", std::get<1>(GetParam())}, {"path", file}}
        ));
    }
    asio::awaitable<void> pause() {
        asio::steady_timer timer{world.context, std::chrono::milliseconds{100}};
        co_await timer.async_wait(asio::use_awaitable);
    }
    const std::string file = world.folder / "x.txt";
};
INSTANTIATE_TEST_SUITE_P(
    PlannedAfterAndAhead,
    RunnerIntent,
    ::testing::Combine(::testing::Bool(), ::testing::Values("write", "touch"))
);

TEST_P(RunnerIntent, HoldsAnEffectBackUntilTheIntentIsStored) {
    bool stored = false, there_before = true;
    world.ledger.on_intent = [&]() -> asio::awaitable<result<void>> {
        // The strategy has run up to its effect by now; a commit that takes its time.
        co_await pause();
        there_before = fs::exists(file) || !world.ledger.effects.empty();
        stored = true;
        co_return result<void>{};
    };
    const StrategyReply r = write();
    EXPECT_EQ(r.outcome, Outcome::succeeded) << r.text;
    EXPECT_TRUE(stored);
    EXPECT_FALSE(there_before);
    EXPECT_TRUE(fs::exists(file));
}

TEST_P(RunnerIntent, PerformsNothingWhenItCouldNotBeStored) {
    world.ledger.on_intent = []() -> asio::awaitable<result<void>> {
        co_return fail(errc::unavailable, "the disk is full");
    };
    const StrategyReply r = write();
    EXPECT_NE(r.outcome, Outcome::succeeded);
    EXPECT_NE(r.text.find("the disk is full"), std::string::npos) << r.text;
    EXPECT_FALSE(fs::exists(file));
    EXPECT_TRUE(world.ledger.effects.empty());
    EXPECT_TRUE(world.ledger.results.empty()) << "what was not recorded has no end";
    world.ledger.on_intent = nullptr;
    EXPECT_EQ(write().outcome, Outcome::succeeded) << "the one that performs is there for the next";
}

TEST_P(RunnerIntent, PerformsNothingThatWasCancelledBeforeItWasStored) {
    world.ledger.on_intent = [&]() -> asio::awaitable<result<void>> {
        world.plugins->runner().cancel("attempt-1");
        co_await pause();
        co_return result<void>{};
    };
    EXPECT_NE(write().outcome, Outcome::succeeded);
    EXPECT_FALSE(fs::exists(file));
    EXPECT_TRUE(world.ledger.effects.empty());
}

TEST_F(Runner, DeniesWhatIsNotGranted) {
    load_sample();
    const StrategyReply r = world.execute(with(world.call("sample", {"exec:/bin/*"}), {{"do", "denied"}}));
    EXPECT_EQ(r.outcome, Outcome::failed);
    EXPECT_NE(r.text.find("file:/etc/heal-test-denied"), std::string::npos) << r.text;
    EXPECT_FALSE(fs::exists("/etc/heal-test-denied"));
    EXPECT_EQ(world.ledger.lines.size(), 2U) << "a refused effect is recorded, too";
}

TEST_F(Runner, ListsWithoutDoingInADryRun) {
    load_sample();
    StrategyCall call = with(
        world.call("sample", {"file:" + world.folder.path + "/**"}),
        {{"do", "write"}, {"path", world.folder / "x.txt"}}
    );
    call.dry_run = true;
    EXPECT_EQ(world.execute(std::move(call)).outcome, Outcome::succeeded);
    EXPECT_FALSE(fs::exists(world.folder / "x.txt"));
    EXPECT_EQ(world.ledger.lines, (std::vector<std::string>{"begin write_file", "end skipped"}));
}

TEST_F(Runner, TakesRecordedEffectsBackWithoutThePlugin) {
    load_sample();
    const std::string file = world.folder / "x.txt";
    write(file, "before", 0640);
    EXPECT_EQ(
        world
            .execute(with(
                world.call("sample", {"file:" + world.folder.path + "/**"}), {{"do", "write"}, {"path", file}}
            ))
            .outcome,
        Outcome::succeeded
    );
    EXPECT_EQ(read(file).substr(0, 5), "after");
    fs::remove(world.folder / "plugins/sample.so");
    world.plugins->rescan();
    EXPECT_EQ(world.entry("sample.so"), nullptr);
    const auto effects = world.ledger.effects;
    for (int twice = 0; twice < 2; ++twice) {  // an interrupted undo is run again from its begin
        const StrategyReply r =
            world.run(world.plugins->runner().undo(world.call("sample"), effects, world.ledger));
        EXPECT_EQ(r.outcome, Outcome::succeeded) << r.text;
        EXPECT_EQ(int_at(r.detail, "undone"), 1);
        EXPECT_EQ(read(file), "before");
        EXPECT_EQ(fs::status(file).permissions(), static_cast<fs::perms>(0640));
    }
    EXPECT_EQ(world.ledger.effects.back().phase, "undo");
    EXPECT_EQ(world.ledger.effects.back().undoes_step, 1);
}

namespace {

// Names, modes and contents of a folder in one text.
std::string state_of(const std::string& folder) {
    std::map<std::string, std::string> all;
    for (const auto& one : fs::recursive_directory_iterator(folder)) {
        if (one.is_regular_file())
            all[one.path()] =
                std::to_string(static_cast<unsigned>(one.status().permissions())) + read(one.path());
    }
    std::string out;
    for (const auto& [name, what] : all) out += name + "=" + what + "\n";
    return out;
}

// Of this process' children, those that perform effects.
void kill_performers() {
    for (const auto& one : fs::directory_iterator("/proc")) {
        const std::string pid = one.path().filename();
        if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
        const std::string stat = read("/proc/" + pid + "/stat"), line = read("/proc/" + pid + "/cmdline");
        const auto close = stat.find_last_of(')');
        if (close == std::string::npos || line.find("--effects") == std::string::npos) continue;
        if (std::stoi(stat.substr(close + 4)) == ::getpid()) ::kill(std::stoi(pid), SIGKILL);
    }
}

}  // namespace

TEST_F(Runner, RestoresTheWorldAlsoWhenTheUndoingIsKilledInItsMiddleAndRunAgain) {
    const std::string area = world.folder / "area";
    world.script(
        "change.lua",
        "return { name = 'change', execute = function(rq, call) local d = '" + area +
            "/'\n"
            "call.write_file{path = d .. 'a', content = 'new a'}; call.write_file{path = d .. 'a', content = "
            "'newer a'}\n"
            "call.move_file{from = d .. 'b', to = d .. 'c'}; call.remove_file(d .. 'x'); call.copy_file{from "
            "= d .. 'a', to = d .. 'x'}\n"
            "call.write_file{path = d .. 'fresh', content = '1', mode = 384}; return false end }"
    );
    world.start();
    for (int killed_at = 0; killed_at <= 6; ++killed_at) {
        fs::remove_all(area);
        fs::create_directory(area);
        write(area + "/a", "old a", 0600);
        write(area + "/b", "old b", 0755);
        write(area + "/x", "old x");
        const std::string before = state_of(area);
        world.ledger.effects.clear();
        world.ledger.on_begin = nullptr;
        EXPECT_EQ(world.execute(world.call("change", {"file:" + area + "/**"})).text, "");
        ASSERT_EQ(world.ledger.effects.size(), 6U);
        EXPECT_NE(state_of(area), before);
        std::vector<Effect> effects(world.ledger.effects.rbegin(), world.ledger.effects.rend());
        int begun = 0;
        world.ledger.on_begin = [&](const Effect&) {
            if (++begun == killed_at) kill_performers();
        };
        const StrategyReply first =
            world.run(world.plugins->runner().undo(world.call("change"), effects, world.ledger));
        if (killed_at > 0 && first.outcome != Outcome::succeeded) {
            EXPECT_EQ(first.outcome, Outcome::unknown) << first.text;
            // As the engine resumes: with those that are not recorded as undone; the one that was cut off is
            // among them.
            effects.erase(effects.begin(), effects.begin() + int_at(first.detail, "undone"));
            const StrategyReply again =
                world.run(world.plugins->runner().undo(world.call("change"), effects, world.ledger));
            EXPECT_EQ(again.outcome, Outcome::succeeded) << again.text;
        }
        EXPECT_EQ(state_of(area), before) << "killed at " << killed_at;
    }
}

TEST_F(Runner, GivesAHostAControlGroupWhereItMayAndTakesItAway) {
    load_sample();
    ASSERT_EQ(world.assess(world.call("sample")).outcome, Outcome::succeeded);
    const std::string name = "heald-host-" + std::to_string(::getpid()) + "-";
    std::string group;
    for (const auto& one : fs::directory_iterator("/proc")) {
        const std::string pid = one.path().filename();
        if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
        const std::string where = read("/proc/" + pid + "/cgroup");
        if (const auto at = where.find(name); at != std::string::npos) {
            const auto from = where.rfind("::/", at) + 3;
            group = where.substr(from, where.find('\n', at) - from);
        }
    }
    if (group.empty()) GTEST_SKIP() << "no cgroup v2 may be written here";
    std::string place;
    for (const char* tree : {"/sys/fs/cgroup/", "/sys/fs/cgroup/unified/"}) {
        if (fs::exists(tree + group)) place = tree + group;
    }
    world.run(world.plugins->runner().stop());
    EXPECT_FALSE(place.empty() || fs::exists(place)) << place;
}

TEST_F(Runner, TurnsAThrowIntoAFailureAndACrashIntoUnknown) {
    load_sample();
    const StrategyReply thrown = world.execute(with(world.call("sample"), {{"do", "throw"}}));
    EXPECT_EQ(thrown.outcome, Outcome::failed);
    EXPECT_EQ(thrown.text, "thrown on purpose");
    EXPECT_FALSE(thrown.crashed);
    const StrategyReply crashed = world.execute(with(world.call("sample"), {{"do", "crash"}}));
    EXPECT_EQ(crashed.outcome, Outcome::unknown);
    EXPECT_TRUE(crashed.crashed);
    EXPECT_EQ(world.entry("sample.so")->crashes, 1U);
    const StrategyReply next = world.execute(world.call("sample"));
    EXPECT_EQ(next.outcome, Outcome::declined) << "it waits after a crash";
    EXPECT_EQ(world.verify(world.call("sample")).outcome, Outcome::succeeded)
        << "but what settles the attempt may run";
}

TEST_F(Runner, StopsALoopThatHeedsItsDeadline) {
    load_sample();
    StrategyCall call = with(world.call("sample"), {{"do", "loop"}});
    call.timeout = 50ms;
    const StrategyReply r = world.execute(std::move(call));
    EXPECT_EQ(r.outcome, Outcome::failed);
    EXPECT_TRUE(r.timed_out);
    EXPECT_FALSE(r.crashed);
    EXPECT_NE(r.text.find("50 ms"), std::string::npos) << r.text;
}

TEST_F(Runner, StopsAnEffectAtTheDeadline) {
    load_sample();
    StrategyCall call = with(world.call("sample"), {{"do", "sleep"}});
    call.timeout = 50ms;
    const StrategyReply r = world.execute(std::move(call));
    EXPECT_EQ(r.outcome, Outcome::failed) << r.text;
    EXPECT_TRUE(r.timed_out);
    EXPECT_EQ(world.ledger.results.size(), 1U);
}

TEST_F(Runner, CancelsARunningAttempt) {
    load_sample();
    StrategyCall call = with(world.call("sample"), {{"do", "sleep"}});
    call.timeout = 1h;
    const std::string attempt = call.attempt;
    asio::steady_timer timer{world.context, 100ms};
    timer.async_wait([&](boost::system::error_code) { world.plugins->runner().cancel(attempt); });
    const StrategyReply r = world.execute(std::move(call));
    EXPECT_EQ(r.outcome, Outcome::cancelled) << r.text;
    EXPECT_FALSE(r.timed_out);
}

TEST_F(Runner, PassesLogLinesProgressAndKeepsValues) {
    load_sample();
    const StrategyReply r = world.execute(with(world.call("sample"), {{"do", "log"}}));
    EXPECT_EQ(r.text, "yes");
    EXPECT_EQ(
        world.ledger.lines,
        (std::vector<std::string>{
            "info a line", "progress half", "begin state_put", "end ok", "begin state_get", "end ok"})
    );
}

TEST_F(Runner, RunsAScriptWithTheSameWords) {
    world.script(
        "good.lua",
        std::string{"return { name = \"good\", risk = \"safe\", capabilities = {\"exec:/bin/*\"},\n"
                    "assess = function(rq) return rq.incident.service == \"cart\" and 0.9 or nil end,\n"
                    "execute = function(rq, call) local r = call:exec{ argv = {\"/bin/echo\", rq.attempt} }; "
                    "return { outcome = \"succeeded\", text = r.output } end,\n"
                    "verify = function() return true end }"}
    );
    world.start();
    ASSERT_NE(world.entry("good.lua"), nullptr);
    EXPECT_EQ(world.entry("good.lua")->reason, "");
    EXPECT_DOUBLE_EQ(world.assess(world.call("good")).confidence, 0.9);
    const StrategyReply r = world.execute(world.call("good", {"exec:/bin/echo"}));
    EXPECT_EQ(r.outcome, Outcome::succeeded) << r.text;
    EXPECT_EQ(r.text, "attempt-2\n");
    EXPECT_EQ(world.verify(world.call("good")).outcome, Outcome::succeeded);
}

TEST_F(Runner, RefusesABadScriptWithPlaceAndReason) {
    const std::vector<std::tuple<std::string, std::string, std::string>> rows = {
        {"syntax.lua", "return {", "syntax.lua:1:"},
        {"number.lua", "return 7", "must return a table"},
        {"noexec.lua", "return { name = 'x' }", "lacks execute"},
        {"typo.lua",
         "return { name = 'x', prority = 3, execute = function() end }",
         "prority: is not a known fact"},
        {"name.lua",
         "return { name = 'Bad Name', execute = function() end }",
         "name: must be 1 to 64 characters"},
        {"match.lua",
         "return { name = 'x', matches = {{ servce = 'a' }}, execute = function() end }",
         "matches[0].servce: is not a key of a match"},
        {"cap.lua",
         "return { name = 'x', capabilities = {'exec:nginx'}, execute = function() end }",
         "a program is an absolute path"},
        {"loop.lua", "while true do end", "did not end its main part"},
        {"bytecode.lua", "\x1bLua", "bytecode.lua"},
    };
    for (const auto& [name, text, expected] : rows) world.script(name, text);
    world.script("mode.lua", "return {}", 0666);
    world.start();
    for (const auto& [name, text, expected] : rows) {
        const CatalogEntry* e = world.entry(name);
        ASSERT_NE(e, nullptr) << name;
        EXPECT_EQ(e->state, ArtifactState::refused) << name;
        EXPECT_NE(e->reason.find(expected), std::string::npos) << name << ": " << e->reason;
    }
    ASSERT_NE(world.entry("mode.lua"), nullptr);
    EXPECT_NE(world.entry("mode.lua")->reason.find("chmod go-w"), std::string::npos)
        << world.entry("mode.lua")->reason;
}

TEST_F(Runner, ServesANewVersionToTheNextCallAndKeepsTheOldOneWhenItIsRefused) {
    load_sample();
    EXPECT_EQ(string_at(world.execute(world.call("sample")).detail, "version"), "1.0.0");
    drop_in(SAMPLE_PLUGIN_2, world.folder / "plugins/sample.so");
    world.drive([&] {
        return world.entry("sample.so") && world.entry("sample.so")->strategies.at(0).version == "2.0.0";
    });
    EXPECT_EQ(string_at(world.execute(world.call("sample")).detail, "version"), "2.0.0");
    write(world.folder / "plugins/half.tmp", read(SAMPLE_PLUGIN).substr(0, 5000));
    fs::rename(world.folder / "plugins/half.tmp", world.folder / "plugins/sample.so");
    world.drive([&] { return !world.entry("sample.so")->reason.empty(); });
    EXPECT_EQ(world.entry("sample.so")->state, ArtifactState::loaded);
    EXPECT_NE(world.entry("sample.so")->reason.find("the former version stays in service"), std::string::npos)
        << world.entry("sample.so")->reason;
    EXPECT_EQ(string_at(world.execute(world.call("sample")).detail, "version"), "2.0.0");
    fs::remove(world.folder / "plugins/sample.so");
    world.drive([&] { return world.entry("sample.so") == nullptr; });
    EXPECT_EQ(world.execute(world.call("sample")).outcome, Outcome::declined);
}

TEST_F(Runner, IsNotHurtByAFileThatIsOverwrittenInPlaceOrMadeWritable) {
    load_sample();
    const std::string path = world.folder / "plugins/sample.so";
    write(path, "this was a library once");
    world.drive([&] { return !world.entry("sample.so")->reason.empty(); });
    EXPECT_EQ(world.execute(world.call("sample")).outcome, Outcome::succeeded);
    drop_in(SAMPLE_PLUGIN, path);
    world.drive([&] { return world.entry("sample.so")->reason.empty(); });
    fs::permissions(path, fs::perms::all);
    world.drive([&] { return world.entry("sample.so")->reason.find("chmod go-w") != std::string::npos; });
    EXPECT_EQ(world.entry("sample.so")->state, ArtifactState::loaded)
        << "what was checked when it was loaded is what runs";
    EXPECT_EQ(world.execute(world.call("sample")).outcome, Outcome::succeeded);
}

TEST_F(Runner, ReloadsScriptsWhenALibraryOfTheirsChanges) {
    fs::create_directory(world.folder / "scripts/lib");
    write(world.folder / "scripts/lib/words.lua", "return { greeting = 'one' }");
    world.script(
        "user.lua",
        "local words = require 'words'; return { name = 'user', execute = function() return { outcome = "
        "'succeeded', text = words.greeting } end }"
    );
    world.start();
    EXPECT_EQ(world.execute(world.call("user")).text, "one");
    write(world.folder / "scripts/lib/words.lua", "return { greeting = 'two' }");
    world.drive([&] { return world.execute(world.call("user")).text == "two"; });
}

TEST_F(Runner, RefusesASecondArtifactWithTheSameNameUntilTheFirstIsGone) {
    drop_in(SAMPLE_PLUGIN, world.folder / "plugins/a.so");
    world.start();
    drop_in(SAMPLE_PLUGIN_2, world.folder / "plugins/b.so");
    world.drive([&] { return world.entry("b.so") != nullptr; });
    EXPECT_EQ(world.entry("b.so")->state, ArtifactState::refused);
    EXPECT_NE(
        world.entry("b.so")->reason.find("which " + world.entry("a.so")->path + " has already"),
        std::string::npos
    ) << world.entry("b.so")->reason;
    fs::remove(world.folder / "plugins/a.so");
    world.drive([&] { return world.entry("b.so")->state == ArtifactState::loaded; });
}

TEST_F(Runner, PutsAnArtifactIntoQuarantineAfterFourCrashesAndReleasesIt) {
    load_sample();
    EXPECT_EQ(world.plugins->release("sample").error().code, errc::conflict);
    // verify may run in spite of earlier crashes, so it is the quick way to four of them.
    for (int i = 0; i < 4; ++i) {
        EXPECT_TRUE(world.verify(with(world.call("sample"), {{"do", "crash"}})).crashed);
    }
    EXPECT_EQ(world.entry("sample.so")->state, ArtifactState::quarantined);
    EXPECT_NE(world.verify(world.call("sample")).text.find("quarantine"), std::string::npos);
    ASSERT_TRUE(world.plugins->release("sample"));
    EXPECT_EQ(world.entry("sample.so")->state, ArtifactState::loaded);
    EXPECT_EQ(world.execute(world.call("sample")).outcome, Outcome::succeeded);
    EXPECT_EQ(world.plugins->release("nothing").error().code, errc::not_found);
}
