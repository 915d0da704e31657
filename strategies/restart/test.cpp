// The restart strategy's own logic against a fake host. Real processes: tests/strategies_test.py.
#include "strategy.cpp"

#include <heal/sdk_fake.hpp>

#include <gtest/gtest.h>

namespace {

const heal::json worker = heal::json::object(
    {{"name", "mail/er"},
     {"process",
      heal::json::object(
          {{"pid_file", "/run/m.pid"},
           {"command", heal::json::array({"/usr/bin/mailer", "-d"})},
           {"log_file", "/var/log/m.log"}}
      )}}
);

heal::json process(
    std::int64_t pid, std::int64_t start_time, std::string state = "S", std::string argv0 = "/usr/bin/mailer"
) {
    return heal::json::object(
        {{"alive", pid != 0},
         {"pid", pid},
         {"start_time", start_time},
         {"state", state},
         {"command", heal::json::array({argv0})}}
    );
}

const heal::fake::effect* find(const heal::fake::host& host, std::string_view kind) {
    for (const auto& e : host.effects()) {
        if (e.kind == kind) return &e;
    }
    return nullptr;
}

// By pid file the old one, by pid the new one.
void answer_processes(heal::fake::host& host, heal::json before, heal::json after) {
    host.answer_with("process_info", [before, after](const heal::json& p) {
        return p.contains("pid_file") ? before : after;
    });
    host.answer("signal", heal::json::object({{"ended", true}}));
    host.answer("start_process", after);
}

TEST(Restart, StopsTheOldProcessByPidFileAndStartTimeAndStartsANewOne) {
    heal::fake::host host;
    answer_processes(host, process(10, 100), process(20, 200));
    const auto done = host.execute<restart>(heal::fake::request({{"target", worker}}));
    EXPECT_EQ(done.status, HEAL_OK) << done.text;
    EXPECT_EQ(
        host.kinds(),
        (std::vector<std::string>{
            "process_info", "state_put", "signal", "start_process", "sleep", "process_info"})
    );
    EXPECT_EQ(find(host, "state_put")->parameters["key"].view(), "before.mail_er");
    EXPECT_EQ(
        find(host, "signal")->parameters.dump(),
        R"({"signal":"TERM","pid_file":"/run/m.pid","start_time":100,"kill_after_ms":5000})"
    );
    EXPECT_EQ(
        find(host, "start_process")->parameters.dump(),
        R"({"argv":["/usr/bin/mailer","-d"],"pid_file":"/run/m.pid","keep":true,"log_file":"/var/log/m.log"})"
    );
}

TEST(Restart, KillsAStoppedProcessAtOnce) {
    heal::fake::host host;
    answer_processes(host, process(10, 100, "T"), process(20, 200));
    EXPECT_EQ(host.execute<restart>(heal::fake::request({{"target", worker}})).status, HEAL_OK);
    EXPECT_EQ(find(host, "signal")->parameters["signal"].view(), "KILL");
}

TEST(Restart, SignalsNobodyWhenThePidBelongsToAnotherProgram) {
    heal::fake::host host;
    answer_processes(host, process(10, 100, "S", "/usr/bin/postgres"), process(20, 200));
    EXPECT_EQ(host.execute<restart>(heal::fake::request({{"target", worker}})).status, HEAL_OK);
    EXPECT_EQ(find(host, "signal"), nullptr);
    ASSERT_EQ(host.log().size(), 1U);
}

TEST(Restart, KnowsScriptsAndProgramsThatChangeTheirTitle) {
    for (const char* argv0 : {"/usr/bin/python3 /usr/bin/mailer", "mailer: master process /usr/bin/mailer"}) {
        heal::fake::host host;
        answer_processes(host, process(10, 100, "S", argv0), process(20, 200));
        EXPECT_EQ(host.execute<restart>(heal::fake::request({{"target", worker}})).status, HEAL_OK);
        EXPECT_NE(find(host, "signal"), nullptr) << argv0;
    }
}

TEST(Restart, FailsWhenTheOldOneStaysOrTheNewOneDies) {
    heal::fake::host stays;
    answer_processes(stays, process(10, 100), process(20, 200));
    stays.answer("signal", heal::json::object({{"ended", false}}));
    EXPECT_EQ(stays.execute<restart>(heal::fake::request({{"target", worker}})).status, HEAL_FAILED);
    EXPECT_EQ(find(stays, "start_process"), nullptr);
    heal::fake::host dies;
    answer_processes(dies, process(10, 100), process(0, 0));
    dies.answer("start_process", process(20, 200));
    const auto done = dies.execute<restart>(heal::fake::request({{"target", worker}}));
    EXPECT_EQ(done.status, HEAL_FAILED);
    EXPECT_NE(done.text.find("/var/log/m.log"), std::string::npos);
}

TEST(Restart, BelievesOnlyInAYoungerLivingProcess) {
    struct Row {
        heal::json now;
        std::int32_t status;
    };
    for (const auto& row :
         {Row{process(20, 200), HEAL_OK},
          Row{process(20, 100), HEAL_OK},  // within one tick: another pid is another process
          Row{process(10, 100), HEAL_FAILED},
          Row{process(20, 50), HEAL_FAILED},
          Row{process(0, 0), HEAL_FAILED},
          Row{process(20, 200, "T"), HEAL_FAILED}}) {
        heal::fake::host host;
        host.answer(
            "state_get", heal::json::object({{"exists", true}, {"value", R"({"pid":10,"start_time":100})"}})
        );
        host.answer("process_info", row.now);
        EXPECT_EQ(host.verify<restart>(heal::fake::request({{"target", worker}})).status, row.status)
            << row.now.dump();
    }
}

TEST(Restart, RestartsAUnitAndReadsItsMainPid) {
    const auto target =
        heal::json::object({{"name", "web"}, {"systemd", heal::json::object({{"unit", "nginx.service"}})}});
    heal::fake::host host;
    host.answer("systemd", heal::json::object({{"exit_code", 0}, {"output", "   Main PID: 77 (nginx)\n"}}));
    host.answer("process_info", process(77, 500));
    EXPECT_EQ(host.execute<restart>(heal::fake::request({{"target", target}})).status, HEAL_OK);
    std::vector<std::string> verbs;
    for (const auto& e : host.effects()) {
        if (e.kind == "systemd") verbs.push_back(e.parameters["verb"].string_or(""));
    }
    EXPECT_EQ(verbs, (std::vector<std::string>{"status", "reset-failed", "restart"}));
    host.answer("state_get", heal::json::object({{"exists", true}, {"value", R"({"start_time":400})"}}));
    EXPECT_EQ(host.verify<restart>(heal::fake::request({{"target", target}})).status, HEAL_OK);
    host.answer(
        "systemd", heal::json::object({{"exit_code", 5}, {"error_output", "Unit nginx.service not found."}})
    );
    EXPECT_EQ(host.execute<restart>(heal::fake::request({{"target", target}})).status, HEAL_FAILED);
}

TEST(Restart, RestartsAContainerAndComparesItsStart) {
    const auto target =
        heal::json::object({{"name", "web"}, {"docker", heal::json::object({{"container", "web-1"}})}});
    const auto state = [](const char* started, bool running, const char* health) {
        return heal::json::object(
            {{"status", 200},
             {"state",
              heal::json::object(
                  {{"StartedAt", started},
                   {"Running", running},
                   {"Health", heal::json::object({{"Status", health}})}}
              )}}
        );
    };
    heal::fake::host host;
    host.answer("docker", state("2026-01-01", true, "healthy"));
    EXPECT_EQ(host.execute<restart>(heal::fake::request({{"target", target}})).status, HEAL_OK);
    EXPECT_EQ(find(host, "state_put")->parameters["value"].view(), R"({"started":"2026-01-01"})");
    host.answer(
        "state_get", heal::json::object({{"exists", true}, {"value", R"({"started":"2026-01-01"})"}})
    );
    EXPECT_EQ(host.verify<restart>(heal::fake::request({{"target", target}})).status, HEAL_FAILED);
    host.answer("docker", state("2026-01-02", true, "unhealthy"));
    EXPECT_EQ(host.verify<restart>(heal::fake::request({{"target", target}})).status, HEAL_FAILED);
    host.answer("docker", state("2026-01-02", true, "starting"));
    EXPECT_EQ(host.verify<restart>(heal::fake::request({{"target", target}})).status, HEAL_OK);
}

TEST(Restart, DeclinesWithoutFactsAndStopsWhenCancelled) {
    heal::fake::host host;
    EXPECT_EQ(host.execute<restart>(heal::fake::request({})).status, HEAL_DECLINED);
    host.cancel();
    EXPECT_EQ(host.execute<restart>(heal::fake::request({{"target", worker}})).status, HEAL_CANCELLED);
}

}  // namespace
