// The config_rollback strategy's own logic against a fake host. A real nginx: tests/strategies_test.py.
#include "strategy.cpp"

#include <heal/sdk_fake.hpp>

#include <gtest/gtest.h>

#include <map>

namespace {

const heal::json target = heal::json::object(
    {{"name", "web"},
     {"config",
      heal::json::object(
          {{"files", heal::json::array({"/etc/web.conf"})},
           {"check", heal::json::array({"/usr/sbin/web", "-t"})},
           {"reload", heal::json::array({"/usr/sbin/web", "-r"})},
           {"versions", "/state/web"}}
      )}}
);

// Files by path; the check's exit code.
struct World {
    std::map<std::string, std::string> files{
        {"/etc/web.conf", "new"},
        {"/state/web/etc%web.conf/1-a", "old"},
        {"/state/web/etc%web.conf/2-b", "good"}};
    int check = 0, reload = 0;

    void attach(heal::fake::host& host) {
        host.answer_with("list_files", [this](const heal::json& p) {
            heal::json out = heal::json::array();
            const std::string folder = p["path"].string_or("") + "/";
            for (const auto& [path, _] : files) {
                if (path.starts_with(folder))
                    out.push(heal::json::object({{"name", path.substr(folder.size())}, {"type", "file"}}));
            }
            if (out.items().empty()) throw heal::effect_error(HEAL_FAILED, "does not exist");
            return heal::json::object({{"files", out}});
        });
        host.answer_with("read_file", [this](const heal::json& p) {
            const auto found = files.find(p["path"].string_or(""));
            return heal::json::object(
                {{"exists", found != files.end()}, {"content", found != files.end() ? found->second : ""}}
            );
        });
        host.answer_with("copy_file", [this](const heal::json& p) {
            files[p["to"].string_or("")] = files.at(p["from"].string_or(""));
            return heal::json::object();
        });
        host.answer_with("exec", [this](const heal::json& p) {
            return heal::json::object(
                {{"exit_code", p["argv"][1].view() == "-t" ? check : reload}, {"error_output", "no\nmore"}}
            );
        });
    }
};

std::vector<std::string> changes(const heal::fake::host& host) {
    std::vector<std::string> out;
    for (const auto& e : host.effects()) {
        if (e.kind == "copy_file" || (e.kind == "exec" && !e.parameters["read_only"].bool_or(false)) ||
            e.kind == "start_process")
            out.push_back(e.kind);
    }
    return out;
}

TEST(ConfigRollback, RestoresTheNewestHealthyVersionChecksItAndReloads) {
    World world;
    heal::fake::host host;
    world.attach(host);
    const auto done = host.execute<config_rollback>(heal::fake::request({{"target", target}}));
    EXPECT_EQ(done.status, HEAL_OK) << done.text;
    EXPECT_EQ(world.files["/etc/web.conf"], "good");
    EXPECT_EQ(changes(host), (std::vector<std::string>{"copy_file", "exec"}));
    EXPECT_EQ(host.verify<config_rollback>(heal::fake::request({{"target", target}})).status, HEAL_OK);
}

TEST(ConfigRollback, DeclinesWhenNothingDiffersOrNothingIsKept) {
    World world;
    world.files["/etc/web.conf"] = "good";
    heal::fake::host host;
    world.attach(host);
    EXPECT_EQ(host.execute<config_rollback>(heal::fake::request({{"target", target}})).status, HEAL_DECLINED);
    world.files = {{"/etc/web.conf", "new"}};
    EXPECT_EQ(host.execute<config_rollback>(heal::fake::request({{"target", target}})).status, HEAL_DECLINED);
    EXPECT_EQ(host.execute<config_rollback>(heal::fake::request({})).status, HEAL_DECLINED);
    EXPECT_TRUE(changes(host).empty());
}

TEST(ConfigRollback, RestoresAFileThatIsGone) {
    World world;
    world.files.erase("/etc/web.conf");
    heal::fake::host host;
    world.attach(host);
    EXPECT_EQ(host.execute<config_rollback>(heal::fake::request({{"target", target}})).status, HEAL_OK);
    EXPECT_EQ(world.files["/etc/web.conf"], "good");
}

TEST(ConfigRollback, DoesNotReloadWhatFailsItsCheckAndSaysWhy) {
    World world;
    world.check = 1;
    heal::fake::host host;
    world.attach(host);
    const auto done = host.execute<config_rollback>(heal::fake::request({{"target", target}}));
    EXPECT_EQ(done.status, HEAL_FAILED);
    EXPECT_NE(done.text.find("check: no"), std::string::npos) << done.text;
    EXPECT_EQ(changes(host), std::vector<std::string>{"copy_file"});
}

TEST(ConfigRollback, FailsWhenTheReloadFails) {
    World world;
    world.reload = 1;
    heal::fake::host host;
    world.attach(host);
    EXPECT_EQ(host.execute<config_rollback>(heal::fake::request({{"target", target}})).status, HEAL_FAILED);
}

TEST(ConfigRollback, StartsAServiceThatIsDownInsteadOfReloadingIt) {
    World world;
    heal::fake::host host;
    world.attach(host);
    heal::json down = target;
    down.set(
        "process",
        heal::json::object({{"pid_file", "/run/web.pid"}, {"command", heal::json::array({"/usr/sbin/web"})}})
    );
    EXPECT_EQ(host.execute<config_rollback>(heal::fake::request({{"target", down}})).status, HEAL_OK);
    EXPECT_EQ(changes(host), (std::vector<std::string>{"copy_file", "start_process"}));
    host.refuse("process_info", HEAL_FAILED, "/run/web.pid holds no process id");
    world.files["/etc/web.conf"] = "new";
    EXPECT_EQ(host.execute<config_rollback>(heal::fake::request({{"target", down}})).status, HEAL_OK);
}

TEST(ConfigRollback, VerifiesFilesCheckAndProcess) {
    World world;
    heal::fake::host host;
    world.attach(host);
    EXPECT_EQ(
        host.verify<config_rollback>(heal::fake::request({{"target", target}})).status, HEAL_FAILED
    );  // not restored
    world.files["/etc/web.conf"] = "good";
    world.check = 1;
    EXPECT_EQ(host.verify<config_rollback>(heal::fake::request({{"target", target}})).status, HEAL_FAILED);
    world.check = 0;
    heal::json with_process = target;
    with_process.set("process", heal::json::object({{"pid_file", "/run/web.pid"}}));
    host.answer("process_info", heal::json::object({{"alive", false}}));
    EXPECT_EQ(
        host.verify<config_rollback>(heal::fake::request({{"target", with_process}})).status, HEAL_FAILED
    );
    host.answer("process_info", heal::json::object({{"alive", true}}));
    EXPECT_EQ(host.verify<config_rollback>(heal::fake::request({{"target", with_process}})).status, HEAL_OK);
}

TEST(ConfigRollback, NamesFoldersAsTheEngineDoes) {
    EXPECT_EQ(folder_name("/etc/a%b/c.conf"), "etc%a%25b%c.conf");
    EXPECT_EQ(folder_name("relative"), "relative");
}

}  // namespace
