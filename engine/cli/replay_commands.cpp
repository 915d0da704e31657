#include "cli/replay_commands.hpp"

#include "service/backtest.hpp"
#include "service/brain.hpp"
#include "service/scenario.hpp"
#include "store/store.hpp"

#include <fmt/format.h>

#include <memory>
#include <string>

namespace heal::cli {
namespace {

void print_both(const char* title, const json::object& o) {
    bool any = false;
    for (const auto& [name, value] : o) {
        if (!value.is_object()) continue;
        const auto now = int_at(value.get_object(), "current"), then = int_at(value.get_object(), "next");
        if (now == then) continue;
        if (!std::exchange(any, true)) fmt::print("{}\n", title);
        fmt::print(
            "  {:<40} {:>10} {:>10} {:>+10}\n", plain({name.data(), name.size()}), now, then, then - now
        );
    }
}

class ReplayCommands {
public:
    ReplayCommands(CLI::App& app, const CommandContext& context) : c_(context) {
        auto* backtest = app.add_subcommand(
            "backtest", "what another configuration would have made of what was heard (reads the store only)"
        );
        backtest->add_option("--since", since_, "how far back: 12h, 30d")->capture_default_str();
        backtest->add_option("--config", next_, "the configuration to try")->required();
        backtest->add_option(
            "--current", current_, "the running one, which names the store; default as heald's own"
        );
        backtest->callback([this] { run_backtest(); });
        auto* simulate = app.add_subcommand(
            "simulate", "play a scenario file through the decision core on a virtual clock (needs no heald)"
        );
        simulate->add_option("file", file_)->required();
        simulate->callback([this] { run_simulation(); });
    }

private:
    static Settings must_load(const std::string& path) {
        auto loaded = load_settings(path);
        if (loaded.settings) return std::move(*loaded.settings);
        std::string text;
        for (const auto& e : loaded.errors) text += (text.empty() ? "" : "\n") + e;
        throw RequestFailed{fail(errc::invalid_input, std::move(text))};
    }

    void run_backtest() {
        Duration since{0};
        if (!parse_duration(since_, since) || since.count() == 0)
            throw RequestFailed{fail(errc::invalid_input, "--since: must be a duration such as 12h or 30d")};
        const Settings current = must_load(current_), next = must_load(next_);
        auto db = open_database(store_settings(current), true);
        if (!db) throw RequestFailed{db.error()};
        BacktestRequest request;
        request.current = &current;
        request.next = &next;
        const SystemClock clock;
        request.from = clock.wall() - since;
        // The artifacts say what they match; only a running heald has asked them.
        if (auto known = c_.client.call("GET", "/api/v1/strategies"); known && known->is_object())
            request.artifacts = array_at(known->get_object(), "artifacts");
        else
            fmt::print(
                stderr, "no heald answers, so strategies are not known and actions are not compared\n"
            );
        auto report = backtest(**db, request);
        if (!report) throw RequestFailed{report.error()};
        if (json_wanted(c_, *report)) return;
        const auto& o = *report;
        fmt::print(
            "{} samples of {} occurrences from {} to {}\n",
            int_at(o, "samples"),
            int_at(o, "occurrences"),
            string_at(o, "from"),
            string_at(o, "to")
        );
        fmt::print("{:<42} {:>10} {:>10} {:>10}\n", "", "CURRENT", "NEXT", "CHANGE");
        for (const char* key : {"groups", "incidents", "actions", "asked"}) {
            const auto& pair = object_at(o, key);
            const auto a = int_at(pair, "current"), b = int_at(pair, "next");
            fmt::print("{:<42} {:>10} {:>10} {:>+10}\n", key, a, b, b - a);
        }
        print_both("incidents by service", object_at(o, "incidents_by_service"));
        print_both("actions by strategy", object_at(o, "actions_by_strategy"));
        print_both("held back by guard", object_at(o, "held_back_by_guard"));
        print_both("how incidents end", object_at(o, "ends"));
        const auto& groups = object_at(o, "groups");
        for (const auto& item : array_at(groups, "merged"))
            fmt::print(
                "joined into {}: {}\n",
                string_at(item.as_object(), "into"),
                json::serialize(array_at(item.as_object(), "from"))
            );
        for (const auto& item : array_at(groups, "split"))
            fmt::print(
                "{} split into {}\n",
                string_at(item.as_object(), "from"),
                json::serialize(array_at(item.as_object(), "into"))
            );
    }

    void run_simulation() {
        const auto outcome = run_scenario(file_, [this](const std::string& line) {
            if (!c_.as_json) fmt::print("{}\n", plain(line));
        });
        if (!outcome.errors.empty()) {
            std::string text;
            for (const auto& e : outcome.errors) text += (text.empty() ? "" : "\n") + e;
            throw RequestFailed{fail(errc::invalid_input, std::move(text))};
        }
        if (json_wanted(c_, outcome.totals)) return;
        fmt::print("{}\n", json::serialize(outcome.totals));
    }

    CommandContext c_;
    std::string since_ = "30d", next_, current_, file_;
};

}  // namespace

std::shared_ptr<void> add_replay_commands(CLI::App& app, const CommandContext& context) {
    return std::make_shared<ReplayCommands>(app, context);
}

}  // namespace heal::cli
