#include "cli/brain_commands.hpp"

#include "base/json.hpp"
#include "cli/scan_commands.hpp"

#include <fmt/format.h>

#include <functional>
#include <memory>
#include <string>

namespace heal::cli {
namespace {

class BrainCommands {
public:
    BrainCommands(CLI::App& app, const CommandContext& context) : c_(context) {
        holds(app);
        guards(app);
        trust(app);
        triggers(app);
        review(app);
        why(app);
    }

private:
    json::object ask(const std::string& method, const std::string& path, const json::object* body = nullptr) {
        return cli::ask(c_, method, path, body);
    }
    bool json_wanted(const json::object& answer) const { return cli::json_wanted(c_, answer); }

    void holds(CLI::App& app) {
        auto* hold =
            app.add_subcommand("hold", "keep heald from acting: kill switches, maintenance, freezes");
        hold->require_subcommand(1);
        hold->add_subcommand("list", "what is set")->callback([this] {
            const auto answer = ask("GET", "/api/v1/holds");
            if (json_wanted(answer)) return;
            for (const auto& item : array_at(answer, "items")) {
                const auto& h = item.as_object();
                fmt::print(
                    "{}  {} {} {} until {} by {}: {}\n",
                    string_at(h, "id"),
                    string_at(h, "kind"),
                    string_at(h, "scope"),
                    plain(string_at(h, "name")),
                    string_at(h, "ends_at").empty() ? "it is lifted" : string_at(h, "ends_at"),
                    plain(string_at(h, "actor")),
                    plain(string_at(h, "reason"))
                );
            }
            if (array_at(answer, "items").empty()) fmt::print(stderr, "nothing is set\n");
        });
        auto* set = hold->add_subcommand("set", "set one");
        set->add_option("kind", kind_, "pause (kill switch), maintenance or freeze")
            ->required()
            ->check(CLI::IsMember({"pause", "maintenance", "freeze"}));
        set->add_option("--service", service_, "only this service");
        set->add_option("--strategy", strategy_, "only this strategy");
        set->add_option("--for", length_, "30m, 2h, 7d; all but a pause need an end");
        set->add_option("--until", until_, "a time such as 2026-12-24T18:00:00Z");
        set->add_option("--reason", reason_)->required();
        set->callback([this] {
            json::object body{{"kind", kind_}, {"reason", reason_}};
            const std::pair<const char*, const std::string&> fields[] = {
                {"service", service_}, {"strategy", strategy_}, {"for", length_}, {"until", until_}};
            for (const auto& [key, value] : fields) {
                if (!value.empty()) body[key] = value;
            }
            const auto answer = ask("POST", "/api/v1/holds", &body);
            if (!json_wanted(answer)) fmt::print("set {}\n", string_at(answer, "id"));
        });
        auto* lift = hold->add_subcommand("lift", "lift one");
        lift->add_option("id", id_)->required();
        lift->callback([this] {
            const auto answer = ask("DELETE", "/api/v1/holds/" + escape(id_));
            if (!json_wanted(answer)) fmt::print("lifted\n");
        });
    }

    void why(CLI::App& app) {
        auto* why = app.add_subcommand(
            "why", "why an event went as it did; exit 1 when the ranking cannot be computed again"
        );
        why->add_option("event", id_)->required();
        why->callback([this] {
            const auto answer = ask("GET", "/api/v1/healing/events/" + escape(id_) + "/why");
            const auto* equal = object_at(answer, "ranking").if_contains("equal");
            const auto* verdicts = object_at(answer, "guards").if_contains("equal");
            const auto differs = [](const json::value* v) { return v && v->is_bool() && !v->get_bool(); };
            c_.exit_code = differs(equal) || differs(verdicts) ? 1 : 0;
            if (json_wanted(answer)) return;
            for (const auto& line : array_at(answer, "lines"))
                fmt::print("{}\n", plain(view(line.as_string())));
        });
    }

    void trust(CLI::App& app) {
        auto* trust = app.add_subcommand("trust", "how far strategies are trusted with which errors");
        trust->require_subcommand(1);
        trust->add_subcommand("list", "each strategy and class of error, with the evidence")
            ->callback([this] {
                const auto answer = ask("GET", "/api/v1/trust");
                if (json_wanted(answer)) return;
                for (const auto& item : array_at(answer, "items")) {
                    const auto& t = item.as_object();
                    fmt::print(
                        "{:<24} {:<28} {:<8} {:>6.1f} good {:>5.1f} bad, at least {:.2f}{}{}\n",
                        plain(string_at(t, "strategy")),
                        plain(string_at(t, "error_class")),
                        string_at(t, "effective"),
                        double_at(t, "good"),
                        double_at(t, "bad"),
                        double_at(t, "lower_bound"),
                        bool_at(t, "by_hand") ? ", by hand" : "",
                        string_at(t, "reason").empty() ? "" : ": " + plain(string_at(t, "reason"))
                    );
                }
                if (array_at(answer, "items").empty()) fmt::print(stderr, "no outcome is known yet\n");
            });
        auto* set = trust->add_subcommand("set", "by hand; it may still fall, and climbs no more");
        set->add_option("strategy", strategy_)->required();
        set->add_option("class", class_, "service and kind of error, such as cart/network")->required();
        set->add_option("rung", kind_, "off, shadow, approve, auto; ladder: it decides again")
            ->required()
            ->check(CLI::IsMember({"off", "shadow", "approve", "auto", "ladder"}));
        set->add_option("--reason", reason_)->required();
        set->callback([this] {
            json::object body{{"strategy", strategy_}, {"error_class", class_}, {"reason", reason_}};
            body["rung"] = kind_ == "ladder" ? json::value(nullptr) : json::value(kind_);
            const auto answer = ask("PUT", "/api/v1/trust", &body);
            if (!json_wanted(answer)) fmt::print("it is {}\n", string_at(answer, "effective"));
        });
    }

    void review(CLI::App& app) {
        auto* review = app.add_subcommand(
            "review", "say afterwards what an event was; with --base, look at a change before it is merged"
        );
        review->add_option("event", id_);
        review->add_option("verdict", kind_, "right, false_positive, or manual: a person healed it")
            ->check(CLI::IsMember({"right", "false_positive", "manual"}));
        review->add_option("--reason", reason_);
        change_review_ = add_change_review(*review, c_);
        review->callback([this] {
            if (change_review_()) return;
            if (id_.empty() || kind_.empty())
                throw RequestFailed{
                    fail(errc::invalid_input, "review: give an event and a verdict, or --base REV")};
            const json::object body{{"verdict", kind_}, {"reason", reason_}};
            const auto answer = ask("POST", "/api/v1/healing/events/" + escape(id_) + "/review", &body);
            if (!json_wanted(answer)) fmt::print("noted\n");
        });
    }

    void triggers(CLI::App& app) {
        auto* trigger = app.add_subcommand("trigger", "when errors are worth an incident");
        trigger->require_subcommand(1);
        trigger->add_subcommand("list", "those of the configuration, with exact counts")->callback([this] {
            const auto answer = ask("GET", "/api/v1/triggers");
            if (json_wanted(answer)) return;
            fmt::print(
                "{:<24} {:<12} {:>10} {:>7} {:>8} {:>8} {:>10}\n",
                "TRIGGER",
                "KIND",
                "MATCHED",
                "FIRED",
                "CLEARED",
                "GROUPS",
                "FORGOTTEN"
            );
            for (const auto& item : array_at(answer, "items")) {
                const auto& t = item.as_object();
                fmt::print(
                    "{:<24} {:<12} {:>10} {:>7} {:>8} {:>8} {:>10}\n",
                    plain(string_at(t, "trigger")),
                    string_at(t, "kind"),
                    int_at(t, "matched"),
                    int_at(t, "fired"),
                    int_at(t, "cleared"),
                    int_at(t, "groups"),
                    int_at(t, "forgotten")
                );
            }
        });
    }

    void guards(CLI::App& app) {
        auto* guard = app.add_subcommand("guard", "what stands between a decision and an action");
        guard->require_subcommand(1);
        guard->add_subcommand("list", "each in order, with its counters")->callback([this] {
            const auto answer = ask("GET", "/api/v1/guards");
            if (json_wanted(answer)) return;
            fmt::print(
                "{:<16} {:>9} {:>8} {:>8}  {}\n", "GUARD", "EVALUATED", "TRIPPED", "MISSING", "PROTECTS"
            );
            for (const auto& item : array_at(answer, "guards")) {
                const auto& g = item.as_object();
                fmt::print(
                    "{:<16} {:>9} {:>8} {:>8}  {}{}\n",
                    string_at(g, "guard"),
                    int_at(g, "evaluated"),
                    int_at(g, "tripped"),
                    int_at(g, "input_missing"),
                    bool_at(g, "off") ? "(off) " : "",
                    string_at(g, "purpose")
                );
            }
        });
        auto* drill = app.add_subcommand(
            "drill", "make each guard trip once on a made-up incident; exit 1 when one does not"
        );
        drill->callback([this] {
            const auto answer = ask("POST", "/api/v1/guards/drill");
            c_.exit_code = bool_at(answer, "ok") ? 0 : 1;
            if (json_wanted(answer)) return;
            for (const auto& item : array_at(answer, "guards")) {
                const auto& g = item.as_object();
                fmt::print(
                    "{:<16} {:<6} {}\n",
                    string_at(g, "guard"),
                    bool_at(g, "off")  ? "off"
                    : bool_at(g, "ok") ? "ok"
                                       : "FAILED",
                    bool_at(g, "off") ? "the configuration turns it off" : plain(string_at(g, "reason"))
                );
            }
        });
    }

    CommandContext c_;
    std::function<bool()> change_review_;
    std::string class_, id_, kind_, service_, strategy_, length_, until_, reason_;
};

}  // namespace

std::string plain(std::string_view text) {
    std::string out{text};
    for (char& c : out) {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
    }
    return out;
}

json::object ask(
    const CommandContext& context,
    const std::string& method,
    const std::string& path,
    const json::object* body
) {
    auto answer =
        body ? context.client.call(method, path, json::serialize(*body)) : context.client.call(method, path);
    if (!answer) throw RequestFailed{answer.error()};
    if (!answer->is_object()) throw RequestFailed{fail(errc::internal, "heald's answer is not an object")};
    return std::move(answer->get_object());
}

bool json_wanted(const CommandContext& context, const json::object& answer) {
    if (context.as_json) fmt::print("{}\n", json::serialize(answer));
    return context.as_json;
}

std::shared_ptr<void> add_brain_commands(CLI::App& app, const CommandContext& context) {
    return std::make_shared<BrainCommands>(app, context);
}

}  // namespace heal::cli
