// healctl: what people ask of a running heald, and what needs none. Data on stdout, everything else on
// stderr. Exit codes: 0 done, 1 failure, 2 usage, 3 not found, 4 not allowed, 5 heald unreachable, 6
// conflict.
#include "cli/approval_commands.hpp"
#include "cli/brain_commands.hpp"
#include "cli/client.hpp"
#include "cli/fingerprint_id.hpp"
#include "cli/fix_commands.hpp"
#include "cli/patch_commands.hpp"
#include "cli/replay_commands.hpp"
#include "cli/scan_commands.hpp"
#include "cli/script_command.hpp"
#include "cli/store_command.hpp"
#include "cli/strategy_project.hpp"
#include "service/fingerprints.hpp"
#include "service/settings.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdlib>
#include <iostream>
#include <iterator>

namespace {

using namespace heal;
using cli::Client;

int exit_code(errc code) {
    switch (code) {
        case errc::invalid_input:
            return 2;
        case errc::not_found:
            return 3;
        case errc::denied:
            return 4;
        case errc::unavailable:
            return 5;
        case errc::conflict:
            return 6;
        default:
            return 1;
    }
}

/// Ends the command that runs; main() turns it into the exit code.
struct Failed {
    Error error;
};

template <class T>
T must(result<T> outcome) {
    if (!outcome) throw Failed{outcome.error()};
    if constexpr (!std::is_void_v<T>) return std::move(*outcome);
}

std::string cell(const json::value& v) {
    if (v.is_null()) return "-";
    if (v.is_string()) {
        std::string s{view(v.get_string())};
        for (char& c : s) {
            if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
                c = ' ';  // nothing from a log steers a terminal
        }
        return s;
    }
    if (v.is_double()) return fmt::format("{:.3g}", v.get_double());
    return json::serialize(v);
}

/// Seconds are enough for people.
std::string short_time(const json::value& v) {
    const std::string s = cell(v);
    return s.size() > 19 && s[10] == 'T' ? s.substr(0, 10) + ' ' + s.substr(11, 8) : s;
}

struct Column {
    const char* title;
    const char* key;
    std::size_t max = 60;
};

void print_table(const json::array& rows, const std::vector<Column>& columns) {
    std::vector<std::vector<std::string>> cells{{}};
    for (const auto& c : columns) cells[0].emplace_back(c.title);
    for (const auto& row : rows) {
        cells.emplace_back();
        for (const auto& c : columns) {
            const auto* v = row.as_object().if_contains(c.key);
            std::string text =
                v ? (std::string_view{c.key}.ends_with("_at") || std::string_view{c.key} == "at"
                         ? short_time(*v)
                         : cell(*v))
                  : "-";
            if (text.size() > c.max) text = text.substr(0, c.max - 1) + "…";
            cells.back().push_back(std::move(text));
        }
    }
    std::vector<std::size_t> widths(columns.size(), 0);
    for (const auto& row : cells) {
        for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    }
    for (const auto& row : cells) {
        std::string line;
        for (std::size_t i = 0; i < row.size(); ++i)
            line += i + 1 < row.size() ? fmt::format("{:<{}}  ", row[i], widths[i]) : row[i];
        fmt::print("{}\n", line);
    }
}

void print_fields(const json::object& o, const std::string& indent = "") {
    for (const auto& [key, value] : o) {
        const std::string_view name{key.data(), key.size()};
        if (value.is_object() && !value.get_object().empty()) {
            fmt::print("{}{}:\n", indent, name);
            print_fields(value.get_object(), indent + "  ");
        } else if (!(value.is_array() && !value.get_array().empty() && value.get_array()[0].is_object())) {
            fmt::print(
                "{}{:<18} {}\n", indent, name, name.ends_with("_at") ? short_time(value) : cell(value)
            );
        }
    }
}

void print_event(const json::object& e) {
    print_fields(e);
    for (const auto& candidate : array_at(object_at(e, "decision"), "candidates")) {
        const auto& c = candidate.as_object();
        fmt::print(
            "candidate {}: {} priority {} confidence {:.3f} (prior {:.2f}, {} good, {} bad) {}\n",
            int_at(c, "rank"),
            string_at(c, "strategy"),
            int_at(c, "priority"),
            double_at(c, "confidence"),
            double_at(c, "prior"),
            int_at(c, "successes"),
            int_at(c, "failures"),
            string_at(c, "note")
        );
    }
    for (const auto& attempt : array_at(e, "attempts")) {
        const auto& a = attempt.as_object();
        fmt::print(
            "attempt {}: {} {} verified: {} {}\n",
            string_at(a, "id"),
            string_at(a, "strategy"),
            string_at(a, "state"),
            string_at(a, "verified").empty() ? "-" : string_at(a, "verified"),
            cell(json::value(string_at(a, "text")))
        );
        for (const auto& action : array_at(a, "actions")) {
            const auto& s = action.as_object();
            fmt::print(
                "  {:<8} {:>2} {:<7} {} ({} µs){}\n",
                string_at(s, "phase"),
                int_at(s, "step"),
                string_at(s, "state"),
                cell(json::value(string_at(s, "summary"))),
                int_at(s, "duration_us"),
                string_at(s, "error").empty() ? "" : ": " + cell(json::value(string_at(s, "error")))
            );
        }
        for (const auto& item : array_at(a, "evidence")) {
            const auto& i = item.as_object();
            fmt::print(
                "  evidence {} {}: {}\n",
                bool_at(i, "ok") ? "good" : "bad",
                cell(json::value(string_at(i, "source"))),
                cell(json::value(string_at(i, "text")))
            );
        }
    }
}

struct Options {
    Client client;
    bool as_json = false;
    std::int64_t limit = 20;
    std::string before;
};

void show(
    const Options& o,
    const json::value& answer,
    const std::vector<Column>& columns,
    std::string_view key = "items"
) {
    if (o.as_json) {
        fmt::print("{}\n", json::serialize(answer));
        return;
    }
    const auto& rows = array_at(answer.as_object(), key);
    if (rows.empty())
        fmt::print(stderr, "nothing yet\n");
    else
        print_table(rows, columns);
}

std::string list_path(
    const Options& o, const std::string& path, const std::vector<std::pair<std::string, std::string>>& filters
) {
    std::string out = fmt::format("{}?limit={}", path, o.limit);
    if (!o.before.empty()) out += "&before=" + cli::escape(o.before);
    for (const auto& [key, value] : filters) {
        if (!value.empty()) out += "&" + key + "=" + cli::escape(value);
    }
    return out;
}

std::string own_folder() {
    char path[4096];
    const auto n = ::readlink("/proc/self/exe", path, sizeof path - 1);
    std::string self{path, n > 0 ? static_cast<std::size_t>(n) : 0};
    return self.substr(0, self.rfind('/'));
}

std::string read_stdin() { return {std::istreambuf_iterator<char>{std::cin}, {}}; }

/// `healctl run -- CMD`: runs it, passes its output on, and reports a crash with the end of its stderr.
int run_command(const Client& client, const std::string& service, std::vector<std::string> command) {
    int errors[2];
    if (command.empty() || ::pipe2(errors, O_CLOEXEC) != 0) return 2;
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, errors[1], STDERR_FILENO);
    std::vector<char*> argv;
    for (auto& word : command) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_t pid = 0;
    const int rc = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(errors[1]);
    if (rc != 0) throw Failed{fail_errno("cannot start " + command[0], rc)};
    std::string tail;
    char buffer[4096];
    for (ssize_t n = 0; (n = ::read(errors[0], buffer, sizeof buffer)) > 0;) {
        if (::write(STDERR_FILENO, buffer, static_cast<std::size_t>(n)) < 0) break;
        tail.append(buffer, static_cast<std::size_t>(n));
        if (tail.size() > (64U << 10U)) tail.erase(0, tail.size() - (32U << 10U));
    }
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    const bool crashed = WIFSIGNALED(status);
    const int code = crashed ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (code != 0) {
        const std::string message =
            crashed ? fmt::format("{} was killed by {}", command[0], ::strsignal(WTERMSIG(status)))
                    : fmt::format("{} ended with exit code {}", command[0], code);
        json::object record{
            {"service_name", service.empty() ? command[0].substr(command[0].rfind('/') + 1) : service},
            {"log_level", crashed ? "fatal" : "error"},
            {"message", message},
            {"stack_trace", to_valid_utf8(tail)}};
        if (crashed) record["error_type"] = std::string{"SIG"} + ::sigabbrev_np(WTERMSIG(status));
        if (auto sent = client.call("POST", "/api/v1/logs", json::serialize(record)); !sent)
            fmt::print(stderr, "healctl: not reported: {}\n", sent.error().text);
    }
    return code;
}

int run(int argc, char** argv) {
    Options o;
    const char* server = std::getenv("HEALCTL_SERVER");
    const char* token = std::getenv("HEALCTL_TOKEN");
    o.client.server = server ? server : "http://127.0.0.1:7480";
    o.client.token = token ? token : "";
    int code = 0;

    CLI::App app{"healctl: ask and steer heald", "healctl"};
    app.require_subcommand(1);
    app.fallthrough();
    app.set_version_flag("-V,--version", "healctl " HEAL_VERSION);
    app.add_option("--server", o.client.server, "where heald listens (HEALCTL_SERVER)")
        ->capture_default_str();
    app.add_option("--token", o.client.token, "API token (HEALCTL_TOKEN)");
    app.add_flag("--json", o.as_json, "the answer as JSON");
    app.add_option("--limit", o.limit, "rows of a list")->check(CLI::Range(1, 1000))->capture_default_str();
    app.add_option("--before", o.before, "rows before this id (paging)");

    const auto get = [&](const std::string& path) { return must(o.client.call("GET", path)); };
    const auto say = [&](const json::value& answer, const std::string& words) {
        if (o.as_json)
            fmt::print("{}\n", json::serialize(answer));
        else
            fmt::print("{}\n", words);
    };
    const auto group = [&](const char* name, const char* text) {
        auto* sub = app.add_subcommand(name, text);
        sub->require_subcommand(1);
        return sub;
    };

    cli::add_store_command(app, code);
    app.add_subcommand("status", "how heald is")->callback([&] {
        const auto answer = get("/api/v1/status");
        if (o.as_json)
            fmt::print("{}\n", json::serialize(answer));
        else
            print_fields(answer.as_object());
    });

    std::string id, service, state, name, text, strategy, digest;
    bool break_glass = false;
    auto* events = group("event", "incidents and what became of them");
    auto* event_list = events->add_subcommand("list", "newest first");
    event_list->add_option("--service", service, "only this service");
    event_list->add_option("--state", state, "only this state");
    event_list->callback([&] {
        show(
            o,
            get(list_path(o, "/api/v1/healing/events", {{"service_name", service}, {"state", state}})),
            {{"EVENT", "id"},
             {"OPENED", "opened_at"},
             {"SERVICE", "service_name", 24},
             {"SEVERITY", "severity"},
             {"STATE", "state"},
             {"HEALED BY", "healed_by", 24},
             {"COUNT", "occurrence_count"},
             {"REASON", "reason", 70}}
        );
    });
    auto* event_show = events->add_subcommand("show", "one, with decision, attempts, effects and evidence");
    event_show->add_option("id", id)->required();
    event_show->callback([&] {
        const auto answer = get("/api/v1/healing/events/" + cli::escape(id));
        if (o.as_json)
            fmt::print("{}\n", json::serialize(answer));
        else
            print_event(answer.as_object());
    });
    auto* event_approve = events->add_subcommand("approve", "allow the strategy that waits");
    event_approve->add_option("id", id)->required();
    event_approve->add_option("--strategy", strategy, "which one, when several wait");
    event_approve->add_option("--digest", digest, "what you were shown; refused when it is another one now");
    event_approve->add_option("--reason", text);
    event_approve->add_flag(
        "--break-glass", break_glass, "alone, also past what protects against haste; needs --reason"
    );
    event_approve->callback([&] {
        json::object body{{"strategy", strategy}};
        if (!digest.empty()) body["digest"] = digest;
        if (!text.empty()) body["reason"] = text;
        if (break_glass) body["break_glass"] = true;
        const auto answer = must(o.client.call(
            "POST", "/api/v1/healing/events/" + cli::escape(id) + "/approve", json::serialize(body)
        ));
        const bool waits = string_at(object_at(answer.as_object(), "approval"), "state") == "pending";
        say(answer, waits ? "noted; another person must agree" : "approved");
    });
    auto* event_reject = events->add_subcommand("reject", "refuse it");
    event_reject->add_option("id", id)->required();
    event_reject->add_option("--reason", text)->required();
    event_reject->callback([&] {
        say(must(o.client.call(
                "POST",
                "/api/v1/healing/events/" + cli::escape(id) + "/reject",
                json::serialize(json::object{{"reason", text}})
            )),
            "rejected");
    });

    auto* fingerprints = group("fingerprint", "kinds of error");
    auto* fingerprint_list = fingerprints->add_subcommand("list", "newest first");
    fingerprint_list->add_option("--service", service, "only this service");
    fingerprint_list->callback([&] {
        show(
            o,
            get(list_path(o, "/api/v1/fingerprints", {{"service_name", service}})),
            {{"FINGERPRINT", "id"},
             {"LAST SEEN", "last_seen_at"},
             {"SERVICE", "service_name", 24},
             {"LEVEL", "log_level"},
             {"SEVERITY", "severity"},
             {"COUNT", "occurrence_count"},
             {"PATTERN", "pattern", 80}}
        );
    });
    auto* fingerprint_show = fingerprints->add_subcommand("show", "one, with counts, samples and incidents");
    fingerprint_show->add_option("id", id, "16 hex digits, or the first 4")->required();
    fingerprint_show->callback([&] {
        const auto answer = get("/api/v1/fingerprints/" + cli::escape(id));
        if (o.as_json) {
            fmt::print("{}\n", json::serialize(answer));
            return;
        }
        print_fields(answer.as_object());
        print_table(
            array_at(answer.as_object(), "samples"),
            {{"WHEN", "timestamp_at"}, {"LEVEL", "log_level"}, {"MESSAGE", "message", 100}}
        );
    });
    std::string rule_file, into;
    auto* fingerprint_preview = fingerprints->add_subcommand(
        "preview", "what the fingerprint.rules of a configuration would join and part"
    );
    fingerprint_preview->add_option("file", rule_file, "a configuration file with fingerprint.rules")
        ->required();
    fingerprint_preview->callback([&] {
        const auto loaded = load_settings(rule_file);
        for (const auto& error : loaded.errors) fmt::print(stderr, "{}\n", error);
        if (!loaded.settings)
            throw Failed{fail(errc::invalid_input, rule_file + " has faults, nothing was asked")};
        const json::object body{{"rules", to_json(loaded.settings->rule_specs)}};
        const auto answer =
            must(o.client.call("POST", "/api/v1/fingerprints/preview", json::serialize(body)));
        if (o.as_json) {
            fmt::print("{}\n", json::serialize(answer));
            return;
        }
        print_fields(answer.as_object());
        for (const auto& m : array_at(answer.as_object(), "merged")) {
            fmt::print(
                "joins {} into {}  {}\n",
                json::serialize(m.as_object().at("from")),
                string_at(m.as_object(), "into"),
                cell(json::value(string_at(m.as_object(), "pattern")))
            );
        }
        for (const auto& s : array_at(answer.as_object(), "split")) {
            fmt::print(
                "parts {} into {}\n",
                string_at(s.as_object(), "from"),
                json::serialize(s.as_object().at("into"))
            );
        }
    });
    auto* fingerprint_merges = fingerprints->add_subcommand("merges", "kinds that look like one");
    fingerprint_merges->add_option("--service", service)->required();
    fingerprint_merges->callback([&] {
        show(
            o,
            get("/api/v1/fingerprints/merges?service=" + cli::escape(service)),
            {{"CANONICAL", "canonical"},
             {"BY PEOPLE", "by_people"},
             {"PATTERN", "pattern", 80},
             {"FINGERPRINTS", "fingerprints", 60},
             {"REASON", "reason", 60}},
            "merges"
        );
    });
    auto* fingerprint_merge =
        fingerprints->add_subcommand("merge", "join one to another; remembered for ever");
    fingerprint_merge->add_option("id", id)->required();
    fingerprint_merge->add_option("into", into)->required();
    fingerprint_merge->add_option("--reason", text);
    fingerprint_merge->callback([&] {
        const json::object body{{"into", into}, {"reason", text}};
        say(must(o.client.call(
                "POST", "/api/v1/fingerprints/" + cli::escape(id) + "/merge", json::serialize(body)
            )),
            "joined");
    });
    auto* fingerprint_apart =
        fingerprints->add_subcommand("apart", "keep one apart, against every suggestion");
    fingerprint_apart->add_option("id", id)->required();
    fingerprint_apart->add_option("--reason", text);
    fingerprint_apart->callback([&] {
        say(must(o.client.call(
                "POST",
                "/api/v1/fingerprints/" + cli::escape(id) + "/apart",
                json::serialize(json::object{{"reason", text}})
            )),
            "kept apart");
    });
    // These two need no heald; explain asks it for neighbours when it answers.
    auto* fingerprint_id = fingerprints->add_subcommand("id", "lines on stdin, one id per line on stdout");
    cli::FingerprintIdOptions id_options;
    fingerprint_id->add_option("--service", id_options.service, "part of every id; heald's own ids have it");
    fingerprint_id->add_flag("--pattern", id_options.pattern, "print the pattern too");
    fingerprint_id->callback([&] { must(cli::fingerprint_id(STDIN_FILENO, STDOUT_FILENO, id_options)); });
    auto* fingerprint_explain = fingerprints->add_subcommand(
        "explain", "lines on stdin: template, masks and their rules, neighbours"
    );
    fingerprint_explain->add_option("--service", id_options.service, "part of every id");
    std::string known_file;
    fingerprint_explain->add_option(
        "--known",
        known_file,
        "patterns to find neighbours in, as `fingerprint id --pattern` prints them; default: heald's"
    );
    fingerprint_explain->callback([&] {
        if (!known_file.empty()) {
            id_options.known = must(cli::read_known_patterns(known_file));
        } else if (const auto answer = o.client.call("GET", "/api/v1/fingerprints?limit=1000"); answer) {
            for (const auto& row : array_at(answer->as_object(), "items"))
                id_options.known.push_back(
                    {std::string{string_at(row.as_object(), "id")},
                     std::string{string_at(row.as_object(), "pattern")}}
                );
        } else {
            fmt::print(stderr, "no neighbours: {}\n", answer.error().text);
        }
        must(cli::fingerprint_explain(STDIN_FILENO, STDOUT_FILENO, id_options));
    });

    auto* strategies = group("strategy", "what can heal");
    strategies->add_subcommand("list", "every artifact with its state")->callback([&] {
        const auto answer = get("/api/v1/strategies");
        if (o.as_json) {
            fmt::print("{}\n", json::serialize(answer));
            return;
        }
        json::array rows;
        for (const auto& artifact : array_at(answer.as_object(), "artifacts")) {
            const auto& a = artifact.as_object();
            json::object row{{"path", a.at("path")}, {"state", a.at("state")}, {"reason", a.at("reason")}};
            if (array_at(a, "strategies").empty()) rows.push_back(row);
            for (const auto& s : array_at(a, "strategies")) {
                auto full = row;
                for (const char* key : {"name", "version", "priority", "enabled", "autonomy", "risk"}) {
                    if (const auto* v = s.as_object().if_contains(key)) full[key] = *v;
                }
                rows.push_back(std::move(full));
            }
        }
        print_table(
            rows,
            {{"STRATEGY", "name", 30},
             {"VERSION", "version"},
             {"PRIORITY", "priority"},
             {"ENABLED", "enabled"},
             {"AUTONOMY", "autonomy"},
             {"RISK", "risk"},
             {"STATE", "state"},
             {"ARTIFACT", "path", 60},
             {"REASON", "reason", 120}}
        );
    });
    auto* strategy_set =
        strategies->add_subcommand("set", "priority, enabled, autonomy, floor; at once, durable, audited");
    std::optional<std::int64_t> priority;
    std::optional<bool> enabled;
    std::optional<double> floor_value;
    std::string autonomy;
    strategy_set->add_option("name", name)->required();
    strategy_set->add_option("--priority", priority, "higher is tried first");
    strategy_set->add_option("--enabled", enabled, "true or false");
    strategy_set->add_option("--autonomy", autonomy)
        ->check(CLI::IsMember({"off", "shadow", "approve", "auto"}));
    strategy_set->add_option("--floor", floor_value, "confidence below which it is out")
        ->check(CLI::Range(0.0, 1.0));
    strategy_set->callback([&] {
        json::object body;
        if (priority) body["priority"] = *priority;
        if (enabled) body["enabled"] = *enabled;
        if (floor_value) body["floor"] = *floor_value;
        if (!autonomy.empty()) body["autonomy"] = autonomy;
        if (body.empty())
            throw Failed{
                fail(errc::invalid_input, "give at least one of --priority, --enabled, --autonomy, --floor")};
        const auto answer =
            must(o.client.call("PUT", "/api/v1/strategies/" + cli::escape(name), json::serialize(body)));
        const auto& s = answer.as_object();
        say(answer,
            fmt::format(
                "{}: priority {}, {}, autonomy {}",
                name,
                int_at(s, "priority"),
                bool_at(s, "enabled") ? "enabled" : "disabled",
                string_at(s, "autonomy")
            ));
    });
    auto* strategy_release = strategies->add_subcommand("release", "out of quarantine");
    strategy_release->add_option("name", name)->required();
    strategy_release->callback([&] {
        say(must(o.client.call("POST", "/api/v1/strategies/" + cli::escape(name) + "/release")), "released");
    });

    std::string from, to;
    auto* stats = app.add_subcommand("stats", "MTTD, MTTA, MTTR, rates");
    stats->add_option("--from", from, "RFC 3339; default 30 days ago");
    stats->add_option("--to", to, "RFC 3339; default now");
    stats->callback([&] {
        std::string path = "/api/v1/healing/stats?";
        if (!from.empty()) path += "from=" + cli::escape(from) + "&";
        if (!to.empty()) path += "to=" + cli::escape(to);
        const auto answer = get(path);
        if (o.as_json) {
            fmt::print("{}\n", json::serialize(answer));
            return;
        }
        print_fields(answer.as_object());
        if (!array_at(answer.as_object(), "by_class").empty()) {
            json::array rows;
            for (const auto& item : array_at(answer.as_object(), "by_class")) {
                const auto& c = item.as_object();
                const auto& mttr = object_at(c, "mttr");
                rows.push_back(json::object{
                    {"error_class", c.at("error_class")},
                    {"total", object_at(c, "incidents").at("total")},
                    {"n", mttr.at("n")},
                    {"p50", mttr.at("p50_ms")},
                    {"p95", mttr.at("p95_ms")},
                    {"p99", mttr.at("p99_ms")},
                    {"auto", c.at("auto_heal_rate")},
                    {"held", c.at("held_rate")}});
            }
            print_table(
                rows,
                {{"CLASS", "error_class"},
                 {"INCIDENTS", "total"},
                 {"REPAIRED", "n"},
                 {"MTTR P50 MS", "p50"},
                 {"P95", "p95"},
                 {"P99", "p99"},
                 {"AUTO RATE", "auto"},
                 {"HELD RATE", "held"}}
            );
        }
        if (!array_at(answer.as_object(), "strategies").empty()) {
            print_table(
                array_at(answer.as_object(), "strategies"),
                {{"STRATEGY", "strategy"},
                 {"ATTEMPTS", "attempts"},
                 {"VERIFIED", "verified"},
                 {"DID NOT HOLD", "did_not_hold"},
                 {"FAILED", "failed"},
                 {"UNKNOWN", "unknown"},
                 {"ROLLED BACK", "rolled_back"},
                 {"HARMED", "harmed"},
                 {"HELD RATE", "held_rate"}}
            );
        }
    });

    app.add_subcommand("tail", "what happens, as it happens")->callback([&] {
        must(o.client.stream([&](std::string_view type, std::string_view data) {
            if (o.as_json)
                fmt::print("{{\"type\":\"{}\",\"data\":{}}}\n", type, data);
            else {
                auto parsed = parse_json(data, "item");
                std::string line = fmt::format(
                    "{} {:<12}",
                    parsed && parsed->is_object()
                        ? short_time(json::value(string_at(parsed->get_object(), "at")))
                        : "",
                    type
                );
                if (parsed && parsed->is_object()) {
                    for (const auto& [key, value] : parsed->get_object()) {
                        if (key != "at" && !value.is_array())
                            line +=
                                fmt::format(" {}={}", std::string_view{key.data(), key.size()}, cell(value));
                    }
                }
                fmt::print("{}\n", line);
            }
            std::fflush(stdout);
            return true;
        }));
    });

    std::string level = "error", type, message;
    auto* report = app.add_subcommand("report", "send one error; the message from the arguments or stdin");
    report->add_option("--service", service)->required();
    report->add_option("--level", level)->capture_default_str();
    report->add_option("--type", type, "error type");
    report->add_option("message", message);
    report->callback([&] {
        json::object record{
            {"service_name", service},
            {"log_level", level},
            {"message", to_valid_utf8(message.empty() ? read_stdin() : message)}};
        if (!type.empty()) record["error_type"] = type;
        say(must(o.client.call("POST", "/api/v1/logs", json::serialize(record))), "reported");
    });

    std::vector<std::string> command;
    auto* runner = app.add_subcommand("run", "run a command and report its crash: healctl run -- CMD …");
    runner->add_option("--service", service, "default: the name of the command");
    runner->add_option("command", command)->required();
    runner->callback([&] { code = run_command(o.client, service, command); });

    auto* bugs = group("bug", "bugs");
    auto* bug_list = bugs->add_subcommand("list", "newest first");
    bug_list->add_option("--service", service, "only this service");
    bug_list->callback([&] {
        show(
            o,
            get(list_path(o, "/api/v1/system/bugs", {{"service_name", service}})),
            {{"BUG", "bug_code"},
             {"LAST", "last_occurred_at"},
             {"SERVICE", "service_name", 24},
             {"SEVERITY", "severity"},
             {"TYPE", "bug_type"},
             {"STATUS", "status"},
             {"COUNT", "occurrence_count"},
             {"TITLE", "title", 80}}
        );
    });
    auto* bug_show = bugs->add_subcommand("show", "one, by id or code");
    bug_show->add_option("id", id)->required();
    bug_show->callback([&] {
        const auto answer = get("/api/v1/system/bugs/" + cli::escape(id));
        if (o.as_json) {
            fmt::print("{}\n", json::serialize(answer));
            return;
        }
        print_fields(answer.as_object());
        print_table(
            array_at(answer.as_object(), "history"),
            {{"AT", "at"},
             {"ACTOR", "actor", 24},
             {"ACTION", "action"},
             {"FROM", "from_status"},
             {"TO", "to_status"},
             {"TEXT", "text", 80}}
        );
    });
    std::string release, assignee;
    const auto bug_change = [&](const char* verb, const char* summary) {
        auto* one = bugs->add_subcommand(verb, summary);
        one->add_option("id", id, "id or code")->required();
        one->callback([&, verb] {
            json::object body{{"text", to_valid_utf8(text)}};
            if (!release.empty()) body["release"] = release;
            if (!assignee.empty()) body["assignee"] = assignee;
            if (!into.empty()) body["into"] = into;
            const auto answer = must(o.client.call(
                "POST", fmt::format("/api/v1/system/bugs/{}/{}", cli::escape(id), verb), json::serialize(body)
            ));
            say(answer,
                fmt::format(
                    "{} is {}",
                    string_at(answer.as_object(), "bug_code"),
                    string_at(answer.as_object(), "status")
                ));
        });
        return one;
    };
    bug_change("close", "no more to do")->add_option("--text", text, "why");
    bug_change("reopen", "there is more to do")->add_option("--text", text, "why");
    bug_change("reject", "it will not be fixed; it is counted and opens no more")
        ->add_option("--text", text, "why")
        ->required();
    auto* bug_fix =
        bug_change("fix", "it is fixed; coming back in another release than an old one reopens it");
    bug_fix->add_option("--release", release, "the one that holds the fix");
    bug_fix->add_option("--text", text, "how");
    bug_change("assign", "somebody works on it")->add_option("assignee", assignee, "nobody when left out");
    bug_change("comment", "for those who read it later")->add_option("text", text)->required();
    auto* bug_merge = bug_change("merge", "the same as another: counts go there");
    bug_merge->add_option("into", into, "id or code of the other")->required();
    bug_merge->add_option("--text", text, "why");
    bug_change("split", "not the same after all")->add_option("--text", text, "why");
    std::string format = "csv";
    auto* bug_export = bugs->add_subcommand("export", "all of them, on standard output");
    bug_export->add_option("--format", format, "csv, json or ndjson")->capture_default_str();
    bug_export->callback([&] {
        const auto answer =
            must(o.client.text("/api/v1/system/bugs/export?limit=100000&format=" + cli::escape(format)));
        std::fwrite(answer.data(), 1, answer.size(), stdout);
    });
    bugs->add_subcommand("summary", "counts, and times to detect, analyze and fix")->callback([&] {
        const auto answer = get("/api/v1/system/bugs/summary");
        if (o.as_json)
            fmt::print("{}\n", json::serialize(answer));
        else
            print_fields(answer.as_object());
    });

    auto* audit = group("audit", "who did what");
    audit->add_subcommand("list", "newest first")->callback([&] {
        show(
            o,
            get(list_path(o, "/api/v1/audit", {})),
            {{"SEQ", "seq"},
             {"AT", "at"},
             {"ACTOR", "actor", 40},
             {"ACTION", "action"},
             {"SUBJECT", "subject", 40},
             {"DETAIL", "detail", 80}}
        );
    });
    audit->add_subcommand("verify", "recompute the hash chain")->callback([&] {
        const auto answer = get("/api/v1/audit/verify");
        const bool intact = bool_at(answer.as_object(), "intact");
        say(answer,
            intact ? fmt::format("{} entries, intact", int_at(answer.as_object(), "rows"))
                   : fmt::format("broken at entry {}", int_at(answer.as_object(), "first_bad")));
        code = intact ? 0 : 1;
    });

    auto* pause = app.add_subcommand("pause", "kill switch on: nothing is healed, what runs is cancelled");
    pause->add_option("--reason", text)->required();
    pause->callback([&] {
        say(must(o.client.call("POST", "/api/v1/pause", json::serialize(json::object{{"reason", text}}))),
            "paused");
    });
    app.add_subcommand("resume", "kill switch off")->callback([&] {
        say(must(o.client.call("POST", "/api/v1/resume")), "resumed");
    });
    app.add_subcommand("reload", "read the configuration again")->callback([&] {
        say(must(o.client.call("POST", "/-/reload")), "reloaded");
    });

    std::string file;
    auto* config = group("config", "the configuration");
    auto* config_check = config->add_subcommand("check", "is a file valid (needs no heald)");
    config_check->add_option("file", file)->required();
    config_check->callback([&] {
        const auto loaded = load_settings(file);
        for (const auto& error : loaded.errors) fmt::print(stderr, "{}\n", error);
        if (loaded.settings) fmt::print("{}: valid\n", file);
        code = loaded.settings ? 0 : 1;
    });

    std::string event_file, call = "execute";
    bool dry_run = false;
    auto* script = group("script", "try a strategy without heald");
    auto* script_check = script->add_subcommand("check", "does it load, and what does it say of itself");
    script_check->add_option("file", file)->required();
    script_check->callback([&] { code = cli::script_check(own_folder() + "/heal-host", file); });
    auto* script_run = script->add_subcommand("run", "run it on an event from a file");
    script_run->add_option("file", file)->required();
    script_run->add_option("--event", event_file, "JSON of the request")->required();
    script_run->add_option("--call", call)
        ->check(CLI::IsMember({"assess", "execute", "verify", "rollback"}))
        ->capture_default_str();
    script_run->add_flag("--dry-run", dry_run, "list the effects, do none");
    script_run->callback([&] {
        code = cli::script_run(own_folder() + "/heal-host", file, event_file, call, dry_run);
    });

    auto* create = group("new", "start something of your own");
    auto* new_strategy = create->add_subcommand("strategy", "a project that builds and passes its test");
    bool lua = false, cpp = false;
    new_strategy->add_option("name", name)->required();
    new_strategy->add_flag("--lua", lua);
    new_strategy->add_flag("--cpp", cpp);
    new_strategy->callback([&] {
        if (lua == cpp) throw Failed{fail(errc::invalid_input, "give --lua or --cpp")};
        must(cli::new_strategy(name, lua));
    });

    const cli::CommandContext context{o.client, o.as_json, code};
    const auto brain_commands = cli::add_brain_commands(app, context);
    const auto approval_commands = cli::add_approval_commands(app, context);
    const auto patch_commands = cli::add_patch_commands(app, *bugs, context);
    const auto fix_commands = cli::add_fix_commands(app, context);
    const auto replay_commands = cli::add_replay_commands(app, context);
    const auto scan_commands = cli::add_scan_commands(app, context);

    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? 0 : 2;
    } catch (const cli::RequestFailed& f) {
        fmt::print(stderr, "healctl: {}\n", f.error.text);
        return exit_code(f.error.code);
    } catch (const Failed& f) {
        fmt::print(stderr, "healctl: {}\n", f.error.text);
        return exit_code(f.error.code);
    }
    return code;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& e) {
        fmt::print(stderr, "healctl: {}\n", e.what());
        return 1;
    }
}
