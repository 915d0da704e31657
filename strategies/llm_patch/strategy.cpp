// The end of the ranking for errors whose code heald has: asks heald's own patch pipeline for an analysis and
// for patches, which are tried in a sandbox and shown to people. It changes no code itself, and nothing
// leaves the machine without the pipeline's own approval (or the operator's autonomy: merge).
#include <heal/sdk.hpp>

#include <algorithm>

namespace {

using namespace std::chrono_literals;

struct llm_patch {
    static constexpr heal::descriptor about{
        .name = "llm_patch",
        .version = "1.0.0",
        .summary = "Has a patch suggested, tried and shown to people",
        .priority = 1,
        .confidence = 0.3,
        .risk = heal::risk::safe,
        .idempotent = true,
        .reversible = false,
        .timeout = 1h,
        .matches = R"([{"target": ["code"], "level": "error"}])",
        .capabilities = {"net:{target.code.address}"},
    };

    static heal::parameters parameters() {
        return {
            heal::integer("poll_ms")
                .range(10, 60'000)
                .by_default(2'000)
                .unit("ms")
                .summary("between two looks at the pipeline"),
        };
    }

    // A trace leads to the code; without one there is little to go by.
    double assess(const heal::request& rq, heal::call&) {
        return rq.incident()["stack_trace"].string_or("").empty() ? 0.1 : 0.4;
    }

    heal::outcome execute(const heal::request& rq, heal::call& call) {
        const auto bug = bug_of(rq, call);
        if (!bug) return heal::outcome::declined("no bug is open for this error");
        const auto asked = post(rq, call, "/api/v1/ai/fix", heal::json::object({{"bug_id", *bug}}));
        if (asked.skipped) return heal::outcome::succeeded("would have patches suggested and tried");
        if (!asked.ok()) return heal::outcome::declined("the analysis was refused: " + text_of(asked));
        for (;;) {
            const auto runs = runs_of(rq, call, *bug);
            bool under_way = false;
            std::string last;
            for (const auto& run : runs.items()) {
                const std::string outcome = run["outcome"].string_or(""), step = run["step"].string_or("");
                if (outcome == "held" || (outcome.empty() && step == "watch"))
                    return heal::outcome::succeeded(
                        "deployed by run " + run["id"].string_or(""),
                        heal::json::object({{"run", run["id"]}, {"bug", heal::json(*bug)}})
                    );
                if (outcome.empty() && (step == "review" || step == "request"))
                    return heal::outcome::declined(
                        "a tested patch waits for people: healctl patch show " + run["id"].string_or("")
                    );
                under_way = under_way || outcome.empty();
                if (last.empty()) last = outcome + ": " + run["reason"].string_or("");
            }
            if (!under_way)
                return heal::outcome::declined(
                    runs.size() == 0 ? "nothing with code was suggested" : "no patch stood the trial; " + last
                );
            call.progress(0.5, "patches are being tried");
            call.sleep(std::chrono::milliseconds(rq.config()["poll_ms"].int_or(2'000)));
        }
    }

    // The pipeline watches what it deployed; while it does and has not taken it back, it holds.
    heal::outcome verify(const heal::request& rq, heal::call& call) {
        const auto bug = bug_of(rq, call);
        if (!bug) return heal::outcome::failed("the bug is gone");
        const auto runs = runs_of(rq, call, *bug);
        for (const auto& run : runs.items()) {
            const std::string outcome = run["outcome"].string_or(""), step = run["step"].string_or("");
            if (outcome == "held" || (outcome.empty() && step == "watch"))
                return heal::outcome::succeeded(
                    "run " + run["id"].string_or("") + " is deployed and watched"
                );
        }
        return heal::outcome::failed("no deployed patch is being watched");
    }

private:
    static heal::http_response get(const heal::request& rq, heal::call& call, const std::string& path) {
        return call.http(
            {.url = rq.target()["code"]["url"].string_or("") + path, .headers = ticket(rq), .timeout = 10s}
        );
    }
    static heal::http_response post(
        const heal::request& rq, heal::call& call, const std::string& path, const heal::json& body
    ) {
        auto headers = ticket(rq);
        headers.emplace_back("Content-Type", "application/json");
        // An effect may take ten minutes at most (engine/host/effects_net.cpp).
        const auto left = std::clamp<std::chrono::milliseconds>(call.remaining() - 1s, 1s, 10min);
        return call.http(
            {.method = "POST",
             .url = rq.target()["code"]["url"].string_or("") + path,
             .headers = headers,
             .body = body.dump(),
             .timeout = left}
        );
    }
    static std::vector<std::pair<std::string, std::string>> ticket(const heal::request& rq) {
        return {{"Authorization", "Bearer " + rq.all()["ticket"].string_or("")}};
    }
    static std::string text_of(const heal::http_response& answer) {
        const auto body = heal::json::parse(answer.body);
        const std::string detail = body["detail"].string_or("");
        return detail.empty() ? "status " + std::to_string(answer.status) : detail;
    }

    // The incident may be stored a moment after this is called.
    static std::optional<std::string> bug_of(const heal::request& rq, heal::call& call) {
        const std::string event = rq.incident()["id"].string_or("");
        for (int i = 0; i < 20; ++i) {
            const auto answer = get(rq, call, "/api/v1/healing/events/" + event);
            if (answer.ok()) {
                const std::string bug = heal::json::parse(answer.body)["bug_id"].string_or("");
                if (!bug.empty()) return bug;
            }
            if (rq.dry_run()) break;
            call.sleep(100ms);
        }
        return std::nullopt;
    }
    static heal::json runs_of(const heal::request& rq, heal::call& call, const std::string& bug) {
        const auto answer = get(rq, call, "/api/v1/patches?limit=10&bug_id=" + bug);
        return answer.ok() ? heal::json::parse(answer.body)["items"] : heal::json();
    }
};

}  // namespace

HEAL_PLUGIN(llm_patch);
