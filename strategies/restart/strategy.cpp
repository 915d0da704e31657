// Restarts what the inventory says a service is: a systemd unit, a container, or a process with pid file and
// command. Believes in a restart only when a younger process is there and stays; the engine's probes tell
// whether it also works.
#include <heal/sdk.hpp>

namespace {

using namespace std::chrono_literals;

// What was there before, kept for verify (state of the strategy, one key per service).
std::string state_key(const heal::request& rq) {
    std::string key = "before.";
    for (const char c : rq.target()["name"].string_or(rq.service())) {
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                           c == '-' || c == '_';
        key += plain ? c : '_';
    }
    return key.substr(0, 100);
}

struct restart {
    static constexpr heal::descriptor about{
        .name = "restart",
        .version = "1.0.0",
        .summary = "Restarts the service's systemd unit, container or process",
        .priority = 50,
        .confidence = 0.5,
        .risk = heal::risk::disruptive,
        .idempotent = true,
        .reversible = false,
        .timeout = 60s,
        .matches = R"([{"target": ["process"]}, {"target": ["systemd"]}, {"target": ["docker"]}])",
        .capabilities =
            {"systemd:{target.systemd.unit}",
             "docker:{target.docker.container}",
             "net:unix:{target.docker.socket}",
             "signal:pidfile:{target.process.pid_file}",
             "file:{target.process.pid_file}",
             "file:{target.process.log_file}",
             "exec:{target.process.command.0}"},
    };

    static heal::parameters parameters() {
        return {
            heal::integer("grace_ms")
                .range(0, 60'000)
                .by_default(5'000)
                .unit("ms")
                .summary("between TERM and KILL"),
            heal::integer("settle_ms")
                .range(0, 60'000)
                .by_default(300)
                .unit("ms")
                .summary("how long the new process must live to count as started"),
        };
    }

    // A crash or a hang is what a restart cures; an error that a living process reports may well come back
    // after it.
    double assess(const heal::request& rq, heal::call&) {
        const std::string type = rq.incident()["error_type"].string_or("");
        if (rq.incident()["level"].view() == "fatal" || type.starts_with("SIG") || type == "panic" ||
            type == "OOM")
            return 0.85;
        const std::string message = lower(rq.message());
        for (const std::string_view word :
             {"timed out",
              "timeout",
              "stuck",
              "hang",
              "hung",
              "deadlock",
              "blocked",
              "not responding",
              "no answer",
              "watchdog",
              "connection refused",
              "out of memory",
              "too many open files",
              "leak"}) {
            if (message.find(word) != std::string::npos) return 0.7;
        }
        return rq.incident()["stack_trace"].view().empty() ? 0.4 : 0.5;
    }

    heal::outcome execute(const heal::request& rq, heal::call& call) {
        const heal::json& t = rq.target();
        if (t["systemd"]) return restart_unit(rq, call);
        if (t["docker"]) return restart_container(rq, call);
        if (t["process"]) return restart_process(rq, call);
        return heal::outcome::declined(
            "the inventory names neither systemd, docker nor process for this service"
        );
    }

    heal::outcome verify(const heal::request& rq, heal::call& call) {
        const heal::json& t = rq.target();
        const auto saved = call.state_get(state_key(rq));
        const heal::json before = saved ? heal::json::parse(*saved) : heal::json::object();
        if (t["docker"]) {
            const heal::json state = container_state(t, call);
            if (!state["Running"].bool_or(false))
                return heal::outcome::failed("the container is not running");
            if (state.at_path("Health.Status").view() == "unhealthy")
                return heal::outcome::failed("the container says it is unhealthy");
            if (state["StartedAt"] == before["started"])
                return heal::outcome::failed("the container was not restarted");
            return heal::outcome::succeeded("the container runs since " + state["StartedAt"].string_or("?"));
        }
        const auto now = t["systemd"] ? call.process_info(main_pid(t["systemd"]["unit"].string_or(""), call))
                                      : process_of(t["process"]["pid_file"].string_or(""), call);
        if (!now.alive) return heal::outcome::failed("no process is running");
        if (now.state == "T" || now.state == "Z")
            return heal::outcome::failed("the process is in state " + now.state);
        if (!is_newer(now, before["pid"].int_or(0), before["start_time"].int_or(0)))
            return heal::outcome::failed("it is still the process from before");
        return heal::outcome::succeeded(
            "process " + std::to_string(now.pid) + " is new and alive", heal::json::object({{"pid", now.pid}})
        );
    }

private:
    // Start times count in ticks of 10 ms since boot: a later one is another process, whatever its pid, and
    // two processes of one tick are told apart by their pids.
    static bool is_newer(const heal::process_facts& now, std::int64_t pid, std::int64_t start_time) {
        return now.start_time > start_time || (now.start_time == start_time && now.pid != pid);
    }

    static std::string lower(std::string text) {
        for (char& c : text) {
            if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
        }
        return text;
    }

    // Of a script the first word is its interpreter, and some programs write their own title ("nginx: master
    // process /usr/sbin/nginx").
    static bool is_running(const std::vector<std::string>& command, const std::vector<std::string>& running) {
        const std::string name =
            command[0].substr(command[0].rfind('/') == std::string::npos ? 0 : command[0].rfind('/') + 1);
        for (std::size_t i = 0; i < running.size() && i < 3; ++i) {
            if (running[i].find(name) != std::string::npos) return true;
        }
        return false;
    }

    // A pid file without a number names no process.
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

    static void remember(const heal::request& rq, heal::call& call, const heal::json& before) {
        call.state_put(state_key(rq), before.dump());
    }

    static heal::outcome restart_process(const heal::request& rq, heal::call& call) {
        const heal::json& p = rq.target()["process"];
        const auto command = p["command"].strings();
        const std::string pid_file = p["pid_file"].string_or("");
        const bool supervised = p["supervised"].bool_or(false);
        if (pid_file.empty()) return heal::outcome::declined("the inventory gives no process.pid_file");
        if (command.empty() && !supervised)
            return heal::outcome::declined("the inventory gives no process.command to start it with");

        auto before = process_of(pid_file, call);
        if (before.alive && !command.empty() && !is_running(command, before.command)) {
            // A stale pid file: its number belongs to somebody else by now.
            call.warn(
                "the pid file names a process of another program",
                heal::json::object({{"pid", before.pid}, {"command", heal::json(before.command)}})
            );
            before = heal::process_facts{};
        }
        remember(
            rq,
            call,
            heal::json::object({{"pid", before.pid}, {"start_time", before.alive ? before.start_time : 0}})
        );
        if (before.alive) {
            // A stopped process does not even notice TERM.
            const bool stopped = before.state == "T";
            const std::chrono::milliseconds grace{rq.config()["grace_ms"].int_or(5'000)};
            const bool ended = call.signal(
                {.pid_file = pid_file,
                 .start_time = before.start_time,
                 .signal = stopped || grace.count() == 0 ? "KILL" : "TERM",
                 .wait = stopped || grace.count() == 0 ? 2'000ms : 0ms,
                 .kill_after = stopped ? 0ms : grace}
            );
            if (!ended)
                return heal::outcome::failed(
                    "process " + std::to_string(before.pid) + " does not end, not even by KILL"
                );
        }

        heal::process_facts after;
        if (supervised) {
            // Whoever watches over it starts it again; we only see to it that this happened.
            for (int i = 0; i < 100 && !(after.alive && is_newer(after, before.pid, before.start_time));
                 ++i) {
                call.sleep(100ms);
                after = process_of(pid_file, call);
                if (rq.dry_run()) return heal::outcome::succeeded("would be started by its supervisor");
            }
            if (!after.alive)
                return heal::outcome::failed("its supervisor did not start it again within 10 s");
        } else {
            // Kept running even if the attempt fails later: the former process can't come back, and none is
            // worse than a sick one.
            heal::json start =
                heal::json::object({{"argv", heal::json(command)}, {"pid_file", pid_file}, {"keep", true}});
            for (const char* key : {"cwd", "user", "log_file"}) {
                if (const auto text = p[key].string_or(""); !text.empty()) start.set(key, text);
            }
            if (p["env"].is_object()) start.set("env", p["env"]);
            const heal::json started = call.perform("start_process", start);
            if (rq.dry_run()) return heal::outcome::succeeded("would be started anew");
            call.sleep(std::chrono::milliseconds{rq.config()["settle_ms"].int_or(300)});
            after = call.process_info(started["pid"].int_or(0));
            if (!after.alive || after.start_time != started["start_time"].int_or(0)) {
                return heal::outcome::failed(
                    "the new process ended at once; see its log" +
                    (p["log_file"] ? " " + p["log_file"].string_or("") : std::string{})
                );
            }
        }
        return heal::outcome::succeeded(
            "process " + std::to_string(before.pid) + " replaced by " + std::to_string(after.pid),
            heal::json::object({{"before", before.pid}, {"after", after.pid}})
        );
    }

    // systemctl status prints "Main PID: 123 (name)".
    static std::int64_t main_pid(const std::string& unit, heal::call& call) {
        const auto status = call.systemd("status", unit);
        const auto at = status.output.find("Main PID: ");
        return at == std::string::npos ? 0 : std::strtoll(status.output.c_str() + at + 10, nullptr, 10);
    }

    static heal::outcome restart_unit(const heal::request& rq, heal::call& call) {
        const std::string unit = rq.target()["systemd"]["unit"].string_or("");
        const auto before = call.process_info(main_pid(unit, call));
        remember(
            rq,
            call,
            heal::json::object({{"pid", before.pid}, {"start_time", before.alive ? before.start_time : 0}})
        );
        // A unit that failed too often in a row refuses to start until that is forgotten.
        call.systemd("reset-failed", unit);
        const auto done = call.systemd("restart", unit);
        if (!done.ok()) return heal::outcome::failed("systemctl restart " + unit + ": " + done.error_output);
        return heal::outcome::succeeded("restarted " + unit);
    }

    static heal::json container_state(const heal::json& target, heal::call& call) {
        return docker(target, call, "inspect")["state"];
    }

    static heal::json docker(const heal::json& target, heal::call& call, std::string_view verb) {
        heal::json p = heal::json::object({{"verb", verb}, {"container", target["docker"]["container"]}});
        if (const auto socket = target["docker"]["socket"].string_or(""); !socket.empty())
            p.set("unix_socket", socket);
        return call.perform("docker", p);
    }

    static heal::outcome restart_container(const heal::request& rq, heal::call& call) {
        const heal::json before = container_state(rq.target(), call);
        remember(rq, call, heal::json::object({{"started", before["StartedAt"]}}));
        docker(rq.target(), call, "restart");
        return heal::outcome::succeeded(
            "restarted the container " + rq.target()["docker"]["container"].string_or("")
        );
    }
};

}  // namespace

HEAL_PLUGIN(restart);
