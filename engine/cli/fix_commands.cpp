#include "cli/fix_commands.hpp"

#include "base/json.hpp"

#include <fmt/format.h>

#include <memory>
#include <string>

namespace heal::cli {
namespace {

/// An analysis asks a model several times.
constexpr long patience_s = 1800;

class FixCommands {
public:
    FixCommands(CLI::App& app, const CommandContext& context) : c_(context) {
        auto* bug = app.get_subcommand("bug");
        auto* analyze = bug->add_subcommand("analyze", "find out what it is about, and what would fix it");
        analyze->add_option("id", id_, "id or code")->required();
        analyze->add_flag("--fresh", fresh_, "ask again even if an answer is stored");
        analyze->add_option("--provider", provider_, "only this one");
        analyze->callback([this] { run_analyze(); });
        auto* suggestions = bug->add_subcommand("suggestions", "what would fix it, best first");
        suggestions->add_option("id", id_, "id or code")->required();
        suggestions->add_flag("--all", all_, "also superseded ones");
        suggestions->callback([this] { run_suggestions(); });
        app.add_subcommand("ai", "models, their budgets and what they cost today")->callback([this] {
            run_ai();
        });
    }

private:
    void run_analyze() {
        json::object body{{"bug_id", id_}, {"fresh", fresh_}};
        if (!provider_.empty()) body["provider"] = provider_;
        Client patient = c_.client;
        patient.timeout_s = patience_s;
        const CommandContext context{patient, c_.as_json, c_.exit_code};
        const auto a = ask(context, "POST", "/api/v1/ai/fix", &body);
        if (json_wanted(c_, a)) return;
        fmt::print(
            "{} is {}; {}{}{}, {} tokens\n\nroot cause   {}\nhypothesis   {}\ntype         {}\nimpact       "
            "{}\n",
            string_at(a, "bug_code"),
            string_at(a, "status"),
            string_at(a, "source"),
            string_at(a, "provider").empty() ? "" : " of ",
            plain(string_at(a, "provider")),
            int_at(a, "tokens"),
            plain(string_at(a, "root_cause")),
            plain(string_at(a, "root_cause_hypothesis")),
            plain(string_at(a, "bug_classification")),
            plain(string_at(a, "estimated_impact"))
        );
        for (const auto& tip : array_at(a, "prevention_tips")) {
            if (tip.is_string()) fmt::print("tip          {}\n", plain(view(tip.get_string())));
        }
        print_suggestions(array_at(a, "suggestions"));
        for (const auto& item : array_at(object_at(a, "context"), "errors")) {
            if (item.is_object()) fmt::print(stderr, "{}\n", plain(string_at(item.get_object(), "error")));
        }
    }

    void run_suggestions() {
        const auto answer =
            ask(c_,
                "GET",
                fmt::format("/api/v1/system/bugs/{}/suggestions{}", escape(id_), all_ ? "?all=true" : ""));
        if (json_wanted(c_, answer)) return;
        print_suggestions(array_at(answer, "items"));
        if (array_at(answer, "items").empty()) fmt::print(stderr, "nothing is suggested\n");
    }

    void print_suggestions(const json::array& items) {
        for (const auto& item : items) {
            const auto& s = item.as_object();
            std::string files;
            for (const auto& f : array_at(s, "files_affected")) {
                if (f.is_string()) files += (files.empty() ? "" : ", ") + plain(view(f.get_string()));
            }
            fmt::print(
                "\n{}  {}  {}\n  evidence {}, the model's own confidence {:.2f}; {}{}\n  {}\n",
                string_at(s, "id"),
                string_at(s, "status"),
                plain(string_at(s, "fix_title")),
                int_at(s, "evidence_score"),
                double_at(s, "confidence_score"),
                string_at(s, "edits").empty() ? "no edits" : "edits",
                files.empty() ? "" : " in " + files,
                plain(string_at(s, "fix_description"))
            );
        }
    }

    void run_ai() {
        const auto a = ask(c_, "GET", "/api/v1/ai");
        if (json_wanted(c_, a)) return;
        const auto limit = [](std::int64_t n) {
            return n == 0 ? std::string{"no limit"} : fmt::format("{}", n);
        };
        fmt::print(
            "{}: {} of {} tokens, cost {:.4f}; per bug {} tokens\n",
            string_at(a, "day"),
            int_at(a, "tokens_today"),
            limit(int_at(a, "tokens_per_day")),
            double_at(a, "cost_today"),
            limit(int_at(a, "tokens_per_bug"))
        );
        for (const auto& item : array_at(a, "providers")) {
            const auto& p = item.as_object();
            const auto& breaker = object_at(p, "breaker");
            fmt::print(
                "{:<16} {:<16} {:<28} {:>9} tokens{}{}\n",
                plain(string_at(p, "name")),
                string_at(p, "dialect"),
                plain(string_at(p, "model")),
                int_at(p, "tokens_today"),
                bool_at(breaker, "open") ? "  rests: " : "",
                bool_at(breaker, "open") ? plain(string_at(breaker, "reason")) : ""
            );
        }
        if (array_at(a, "providers").empty())
            fmt::print("no provider is configured; bugs are analysed by rules\n");
    }

    CommandContext c_;
    std::string id_, provider_;
    bool fresh_ = false, all_ = false;
};

}  // namespace

std::shared_ptr<void> add_fix_commands(CLI::App& app, const CommandContext& context) {
    return std::make_shared<FixCommands>(app, context);
}

}  // namespace heal::cli
