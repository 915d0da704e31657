// Puts back the configuration that was last in force while the service was healthy. The engine keeps those
// versions
// (<state>/config-versions/<service>/<file>/<time>-<hash>); this restores the newest one that differs, checks
// it with the service's own check, reloads. Undo puts the newer files back.
#include <heal/sdk.hpp>

#include <algorithm>

namespace {

using namespace std::chrono_literals;

// As the engine names the folder of a file's versions: the path with '%' for '/'.
std::string folder_name(std::string_view path) {
    std::string out;
    for (const char c : path.substr(path.starts_with('/') ? 1 : 0)) {
        if (c == '%')
            out += "%25";
        else
            out += c == '/' ? '%' : c;
    }
    return out;
}

struct config_rollback {
    static constexpr heal::descriptor about{
        .name = "config_rollback",
        .version = "1.0.0",
        .summary = "Restores the configuration files that were in force while the service was healthy",
        .priority = 70,
        .confidence = 0.5,
        .confidence_floor = 0.1,
        .risk = heal::risk::disruptive,
        .idempotent = true,
        .reversible = true,
        .timeout = 60s,
        .matches = R"([{"target": ["config"]}])",
        .capabilities =
            {"file:{target.config.files}",
             "read:{target.config.versions}/**",
             "exec:{target.config.check.0}",
             "exec:{target.config.reload.0}",
             "exec:{target.process.command.0}",
             "file:{target.process.pid_file}",
             "file:{target.process.log_file}"},
    };

    static heal::parameters parameters() {
        return {heal::integer("settle_ms")
                    .range(0, 60'000)
                    .by_default(200)
                    .unit("ms")
                    .summary("after the reload, before it is looked at")};
    }

    // By the words of the error alone; whether there is anything to put back is found out in execute, which
    // declines if not.
    double assess(const heal::request& rq, heal::call&) {
        std::string message = rq.message();
        for (char& c : message) {
            if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
        }
        for (const std::string_view word :
             {"config",
              "directive",
              "syntax error",
              "unknown option",
              "invalid parameter",
              "invalid number of arguments",
              "host not found in"}) {
            if (message.find(word) != std::string::npos) return 0.9;
        }
        for (const std::string_view word :
             {"upstream",
              "bad gateway",
              "refused",
              "no such file",
              "permission denied",
              "certificate",
              "502",
              "503"}) {
            if (message.find(word) != std::string::npos) return 0.6;
        }
        return 0.3;
    }

    heal::outcome execute(const heal::request& rq, heal::call& call) {
        const heal::json& config = rq.target()["config"];
        const auto changes = differing(rq, call);
        if (changes.empty())
            return heal::outcome::declined("the configuration in force is the last one that was healthy");
        heal::json restored = heal::json::array();
        for (const auto& one : changes) {
            call.copy_file(one.version, one.file);
            restored.push(heal::json::object({{"file", one.file}, {"version", one.version}}));
        }
        if (const auto check = config["check"].strings(); !check.empty() && !rq.dry_run()) {
            const auto checked = run_check(check, call);
            if (!checked.ok())
                return heal::outcome::failed(
                    "the restored configuration does not pass its check: " + first_line(checked.error_output)
                );
        }
        if (auto done = reload(rq, call); done.status != HEAL_OK) return done;
        return heal::outcome::succeeded(
            "restored " + std::to_string(changes.size()) + (changes.size() == 1 ? " file" : " files") +
                " and reloaded",
            std::move(restored)
        );
    }

    heal::outcome verify(const heal::request& rq, heal::call& call) {
        if (const auto changes = differing(rq, call); !changes.empty())
            return heal::outcome::failed(changes[0].file + " is not the version that was restored");
        if (const auto check = rq.target()["config"]["check"].strings(); !check.empty()) {
            const auto checked = run_check(check, call);
            if (!checked.ok())
                return heal::outcome::failed(
                    "the configuration does not pass its check: " + first_line(checked.error_output)
                );
        }
        if (rq.target()["process"]["pid_file"]) {
            const auto process = process_of(rq.target()["process"]["pid_file"].string_or(""), call);
            if (!process.alive) return heal::outcome::failed("the service's process is not running");
        }
        return heal::outcome::succeeded("the configuration passes its check and is the one that was healthy");
    }

    // The engine has put the newer files back; the service has to take them in again.
    heal::outcome rollback(const heal::request& rq, heal::call& call) {
        const auto reload = rq.target()["config"]["reload"].strings();
        if (!reload.empty()) call.exec({.argv = reload});
        return heal::outcome::succeeded();
    }

private:
    struct change {
        std::string file, version;  // where it belongs, and the kept copy
    };

    // A pid file without a number (nginx -t leaves an empty one) names no process.
    static heal::process_facts process_of(const std::string& pid_file, heal::call& call) {
        try {
            return call.process_of(pid_file);
        } catch (const heal::cancelled_error&) {
            throw;
        } catch (const heal::effect_error& e) {
            if (e.status() == HEAL_DENIED) throw;
            return {};
        }
    }

    static heal::exec_result run_check(const std::vector<std::string>& argv, heal::call& call) {
        const heal::json r =
            call.perform("exec", heal::json::object({{"argv", heal::json(argv)}, {"read_only", true}}));
        return {
            static_cast<int>(r["exit_code"].int_or(-1)),
            0,
            r["timed_out"].bool_or(false),
            false,
            r["output"].string_or(""),
            r["error_output"].string_or("")};
    }

    // Watched files whose content is not the newest one that was kept as healthy.
    static std::vector<change> differing(const heal::request& rq, heal::call& call) {
        std::vector<change> out;
        const heal::json& config = rq.target()["config"];
        const std::string versions = config["versions"].string_or("");
        if (versions.empty()) return out;
        for (const auto& file : config["files"].strings()) {
            const std::string folder = versions + "/" + folder_name(file);
            std::string newest;
            try {
                for (const auto& entry : call.list_files(folder)) {
                    if (entry["type"].view() == "file")
                        newest = std::max(newest, entry["name"].string_or(""));
                }
            } catch (const heal::cancelled_error&) {
                throw;
            } catch (const heal::effect_error&) {
                continue;  // never seen healthy
            }
            if (newest.empty()) continue;
            const auto now = call.try_read_file(file);
            if (!now || *now != call.read_file(folder + "/" + newest))
                out.push_back({file, folder + "/" + newest});
        }
        return out;
    }

    static heal::outcome reload(const heal::request& rq, heal::call& call) {
        const heal::json& t = rq.target();
        const auto argv = t["config"]["reload"].strings();
        const heal::json& p = t["process"];
        const auto command = p["command"].strings();
        const std::string pid_file = p["pid_file"].string_or("");
        const bool down = !pid_file.empty() && !process_of(pid_file, call).alive;
        if (down && !command.empty()) {
            // The broken configuration took the service down: there is nobody to reload.
            heal::json start = heal::json::object({{"argv", heal::json(command)}, {"keep", true}});
            if (!p["daemonizes"].bool_or(false)) start.set("pid_file", pid_file);
            if (const auto log = p["log_file"].string_or(""); !log.empty()) start.set("log_file", log);
            call.perform("start_process", start);
        } else if (!argv.empty()) {
            const auto done = call.exec({.argv = argv});
            if (!done.ok())
                return heal::outcome::failed("reloading failed: " + first_line(done.error_output));
        }
        call.sleep(std::chrono::milliseconds{rq.config()["settle_ms"].int_or(200)});
        return heal::outcome::succeeded();
    }

    static std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }
};

}  // namespace

HEAL_PLUGIN(config_rollback);
