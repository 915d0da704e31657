#include "cli/approval_commands.hpp"

#include "base/json.hpp"

#include <fmt/format.h>

#include <memory>
#include <string>

namespace heal::cli {
namespace {

class ApprovalCommands {
public:
    ApprovalCommands(CLI::App& app, const CommandContext& context) : c_(context) {
        auto* approval = app.add_subcommand("approval", "what people are asked, and what they answer");
        approval->require_subcommand(1);
        auto* list = approval->add_subcommand("list", "newest first");
        list->add_option("--state", state_, "pending, approved, rejected, expired, voided or used");
        list->add_option("--kind", kind_, "heal, patch, …");
        list->callback([this] { run_list(); });
        auto* show = approval->add_subcommand("show", "one, with all that it is bound to");
        show->add_option("id", id_)->required();
        show->callback([this] { print(ask(c_, "GET", "/api/v1/approvals/" + escape(id_))); });
        auto* approve = approval->add_subcommand("approve", "say yes");
        approve->add_option("id", id_)->required();
        approve->add_option("--digest", digest_, "what you were shown; refused when it is another one now");
        approve->add_option("--reason", reason_);
        approve->add_flag("--break-glass", glass_, "alone and at once; needs --reason, and is audited");
        approve->callback([this] { vote("approve"); });
        auto* reject = approval->add_subcommand("reject", "say no");
        reject->add_option("id", id_)->required();
        reject->add_option("--reason", reason_)->required();
        reject->callback([this] { vote("reject"); });
        auto* link = approval->add_subcommand("link", "a signed link that lets one person answer once");
        link->add_option("id", id_)->required();
        link->add_option("--for", person_, "who gets it")->required();
        link->add_option("--decision", decision_, "approve or reject")
            ->check(CLI::IsMember({"approve", "reject"}))
            ->capture_default_str();
        link->add_option("--valid", valid_, "30m, 2h, up to 7d")->capture_default_str();
        link->callback([this] {
            const json::object body{{"decision", decision_}, {"for", person_}, {"valid", valid_}};
            const auto answer = ask(c_, "POST", "/api/v1/approvals/" + escape(id_) + "/link", &body);
            if (!json_wanted(c_, answer)) fmt::print("{}\n", string_at(answer, "url"));
        });
    }

private:
    void run_list() {
        std::string path = "/api/v1/approvals?";
        if (!state_.empty()) path += "state=" + escape(state_) + "&";
        if (!kind_.empty()) path += "kind=" + escape(kind_);
        const auto answer = ask(c_, "GET", path);
        if (json_wanted(c_, answer)) return;
        for (const auto& item : array_at(answer, "items")) {
            const auto& a = item.as_object();
            fmt::print(
                "{}  {:<8} {:<5} {}/{}  {}\n",
                string_at(a, "id"),
                string_at(a, "state"),
                string_at(a, "kind"),
                array_at(a, "votes").size(),
                int_at(a, "needed"),
                plain(string_at(a, "summary"))
            );
        }
        if (array_at(answer, "items").empty()) fmt::print(stderr, "nobody was asked\n");
    }
    void vote(const char* what) {
        json::object body;
        if (!reason_.empty()) body["reason"] = reason_;
        if (!digest_.empty()) body["digest"] = digest_;
        if (glass_) body["break_glass"] = true;
        const auto answer = ask(c_, "POST", fmt::format("/api/v1/approvals/{}/{}", escape(id_), what), &body);
        if (!json_wanted(c_, answer)) fmt::print("it is {}\n", string_at(answer, "state"));
    }
    void print(const json::object& a) {
        if (json_wanted(c_, a)) return;
        fmt::print(
            "{}\n{} {}: {}{}{}\ndigest {}\nuntil {}\n",
            plain(string_at(a, "summary")),
            string_at(a, "kind"),
            plain(string_at(a, "subject")),
            string_at(a, "state"),
            string_at(a, "reason").empty() ? "" : ": ",
            plain(string_at(a, "reason")),
            string_at(a, "digest"),
            string_at(a, "expires_at")
        );
        for (const auto& [key, value] : object_at(a, "bound"))
            fmt::print("  {}: {}\n", std::string_view{key.data(), key.size()}, plain(json::serialize(value)));
        for (const auto& item : array_at(a, "votes")) {
            const auto& v = item.as_object();
            fmt::print(
                "{} {}{} by {}{}{}\n",
                string_at(v, "at"),
                bool_at(v, "yes") ? "yes" : "no",
                bool_at(v, "break_glass") ? ", breaking the glass," : "",
                plain(string_at(v, "actor")),
                string_at(v, "reason").empty() ? "" : ": ",
                plain(string_at(v, "reason"))
            );
        }
    }

    CommandContext c_;
    std::string id_, state_, kind_, digest_, reason_, person_, decision_ = "approve", valid_ = "1h";
    bool glass_ = false;
};

}  // namespace

std::shared_ptr<void> add_approval_commands(CLI::App& app, const CommandContext& context) {
    return std::make_shared<ApprovalCommands>(app, context);
}

}  // namespace heal::cli
