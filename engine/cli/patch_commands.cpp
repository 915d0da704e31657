#include "cli/patch_commands.hpp"

#include "base/json.hpp"

#include <fmt/format.h>

#include <memory>
#include <string>

namespace heal::cli {
namespace {

/// A diff keeps its lines; nothing else of it steers a terminal.
std::string plain_lines(std::string_view text) {
    std::string out;
    for (std::size_t at = 0; at <= text.size();) {
        const auto end = std::min(text.find('\n', at), text.size());
        std::string line;
        for (const char c : text.substr(at, end - at))
            line += c == '\t' ? std::string(4, ' ') : std::string(1, c);
        out += plain(line);
        if (end < text.size()) out += '\n';
        at = end + 1;
    }
    return out;
}

class PatchCommands {
public:
    PatchCommands(CLI::App& app, CLI::App& bug, const CommandContext& context) : c_(context) {
        auto* patch =
            app.add_subcommand("patch", "fixes on their way: tried, shown, approved, landed, watched");
        patch->require_subcommand(1);
        auto* list = patch->add_subcommand("list", "newest first");
        list->add_option("--service", service_, "only this service");
        list->add_flag("--open", open_, "only those under way");
        list->callback([this] { run_list(); });
        auto* show = patch->add_subcommand("show", "one run with the evidence of each step");
        show->add_option("id", id_)->required();
        show->callback([this] { run_show(); });
        auto* diff = patch->add_subcommand("diff", "the patch, as it was tried");
        diff->add_option("id", id_)->required();
        diff->callback([this] {
            const auto run = ask(c_, "GET", "/api/v1/patches/" + escape(id_));
            if (!json_wanted(c_, run)) fmt::print("{}", plain_lines(string_at(run, "patch")));
        });
        auto* approve = patch->add_subcommand("approve", "yes to exactly this patch; a run or a bug");
        approve->add_option("id", id_, "run, bug or bug code")->required();
        approve->add_option("--digest", digest_, "what you were shown; refused when it is another one now");
        approve->add_option("--reason", reason_);
        approve->add_flag("--break-glass", glass_, "alone and at once; needs --reason, and is audited");
        approve->callback([this] { vote("approve"); });
        auto* reject = patch->add_subcommand("reject", "no");
        reject->add_option("id", id_, "run, bug or bug code")->required();
        reject->add_option("--reason", reason_)->required();
        reject->callback([this] { vote("reject"); });
        auto* cancel = patch->add_subcommand("cancel", "stop one that is not merged yet");
        cancel->add_option("id", id_)->required();
        cancel->add_option("--reason", reason_)->required();
        cancel->callback([this] {
            const json::object body{{"reason", reason_}};
            const auto answer = ask(c_, "POST", fmt::format("/api/v1/patches/{}/cancel", escape(id_)), &body);
            if (!json_wanted(c_, answer)) fmt::print("cancelled\n");
        });
        patch->add_subcommand("figures", "how many were tried, landed, held")->callback([this] {
            const auto f = ask(c_, "GET", "/api/v1/patches/figures");
            if (json_wanted(c_, f)) return;
            fmt::print(
                "landed {}, held {}, did not hold {}, under way {}, held rate {}\nruns {}\n",
                int_at(f, "landed"),
                int_at(f, "held"),
                int_at(f, "did_not_hold"),
                int_at(f, "under_way"),
                json::serialize(f.at("held_rate")),
                json::serialize(object_at(f, "runs"))
            );
        });
        auto* apply = bug.add_subcommand("apply", "try a suggestion: sandbox, tests, then people are asked");
        apply->add_option("id", id_, "bug or bug code")->required();
        apply->add_option("--suggestion", suggestion_, "which; the best one when left out");
        apply->callback([this] {
            json::object body;
            if (!suggestion_.empty()) body["suggestion"] = suggestion_;
            const auto answer =
                ask(c_, "POST", fmt::format("/api/v1/system/bugs/{}/apply", escape(id_)), &body);
            if (!json_wanted(c_, answer)) fmt::print("run {}\n", string_at(answer, "id"));
        });
        auto* approve_bug = bug.add_subcommand("approve", "yes to the patch that waits for this bug");
        approve_bug->add_option("id", id_, "bug or bug code")->required();
        approve_bug->add_option(
            "--digest", digest_, "what you were shown; refused when it is another one now"
        );
        approve_bug->add_option("--reason", reason_);
        approve_bug->add_flag("--break-glass", glass_, "alone and at once; needs --reason, and is audited");
        approve_bug->callback([this] { vote("approve"); });
    }

private:
    void run_list() {
        std::string path = "/api/v1/patches?limit=100";
        if (!service_.empty()) path += "&service_name=" + escape(service_);
        const auto answer = ask(c_, "GET", path);
        if (json_wanted(c_, answer)) return;
        bool any = false;
        for (const auto& item : array_at(answer, "items")) {
            const auto& run = item.as_object();
            const auto outcome = string_at(run, "outcome");
            if (open_ && !outcome.empty()) continue;
            any = true;
            fmt::print(
                "{}  {:<10} {:<12} {:<16} {}\n",
                string_at(run, "id"),
                outcome.empty() ? string_at(run, "step") : std::string_view{"-"},
                outcome.empty() ? std::string_view{"under way"} : outcome,
                plain(string_at(run, "service_name")),
                plain(string_at(run, "reason"))
            );
        }
        if (!any) fmt::print(stderr, "nothing yet\n");
    }
    void run_show() {
        const auto run = ask(c_, "GET", "/api/v1/patches/" + escape(id_));
        if (json_wanted(c_, run)) return;
        const auto outcome = string_at(run, "outcome");
        fmt::print(
            "run {}\nbug {}\nrepository {} at {}\n{}{}{}\npatch {}\nbranch {}\ncommit {}\nrequest {}\n",
            string_at(run, "id"),
            string_at(object_at(run, "facts"), "bug_code"),
            plain(string_at(run, "repository")),
            string_at(run, "revision"),
            outcome.empty() ? fmt::format("at step {}", string_at(run, "step")) : std::string{outcome},
            string_at(run, "reason").empty() ? "" : ": " + plain(string_at(run, "reason")),
            string_at(run, "held").empty() ? "" : "; waits: " + plain(string_at(run, "held")),
            string_at(run, "patch_hash"),
            string_at(run, "branch"),
            string_at(run, "commit_id"),
            plain(string_at(run, "request_url"))
        );
        for (const auto& [step, value] : object_at(run, "evidence")) {
            if (!value.is_object()) continue;
            const auto& e = value.get_object();
            fmt::print(
                "{} {:<10} {} {}\n",
                string_at(e, "at"),
                std::string_view{step.data(), step.size()},
                bool_at(e, "ok") ? "ok  " : "stop",
                plain(string_at(e, "text"))
            );
            for (const auto& command : array_at(e, "commands")) {
                const auto& c = command.as_object();
                fmt::print(
                    "    {}: {} ({} ms)\n",
                    plain(string_at(c, "name")),
                    string_at(c, "outcome"),
                    int_at(c, "took_ms")
                );
            }
        }
    }
    void vote(const char* what) {
        json::object body;
        if (!reason_.empty()) body["reason"] = reason_;
        if (!digest_.empty()) body["digest"] = digest_;
        if (glass_) body["break_glass"] = true;
        const auto answer = ask(c_, "POST", fmt::format("/api/v1/patches/{}/{}", escape(id_), what), &body);
        if (!json_wanted(c_, answer)) fmt::print("it is {}\n", string_at(answer, "state"));
    }

    CommandContext c_;
    std::string id_, service_, digest_, reason_, suggestion_;
    bool open_ = false, glass_ = false;
};

}  // namespace

std::shared_ptr<void> add_patch_commands(CLI::App& app, CLI::App& bug, const CommandContext& context) {
    return std::make_shared<PatchCommands>(app, bug, context);
}

}  // namespace heal::cli
