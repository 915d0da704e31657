#include "http/fix_routes.hpp"

#include "service/analyst.hpp"
#include "store/analysis_store.hpp"

#include <fmt/format.h>

namespace heal::http {
namespace {

using boost::asio::awaitable;

awaitable<Response> analyze(Engine& engine, Request request) {
    auto* analyst = engine.analyst();
    if (!analyst || !engine.not_ready().empty()) co_return starting();
    auto parsed = parse_json(request.body.empty() ? "{}" : request.body, "body");
    if (!parsed) co_return problem(parsed.error());
    if (!parsed->is_object()) co_return problem(fail(errc::invalid_input, "body: must be a JSON object"));
    const auto& body = parsed->get_object();
    for (const auto& [key, value] : body) {
        const std::string_view name{key.data(), key.size()};
        const bool good = ((name == "bug_id" || name == "provider") && value.is_string()) ||
                          (name == "fresh" && value.is_bool());
        if (!good)
            co_return problem(fail(
                errc::invalid_input,
                fmt::format(
                    "body.{}: not understood; known are bug_id and provider (texts), fresh (true, false)",
                    to_valid_utf8(name)
                )
            ));
    }
    AnalysisRequest wanted;
    wanted.bug = string_at(body, "bug_id");
    wanted.provider = string_at(body, "provider");
    wanted.fresh = bool_at(body, "fresh");
    wanted.actor = request.actor;
    if (wanted.bug.empty())
        co_return problem(fail(errc::invalid_input, "body.bug_id: is missing; id or code of a bug"));
    auto outcome = co_await analyst->analyze(std::move(wanted));
    co_return outcome ? json_response(std::move(*outcome)) : problem(outcome.error());
}

awaitable<Response> figures(Engine& engine, Request) {
    auto* analyst = engine.analyst();
    if (!analyst) co_return starting();
    auto outcome = co_await analyst->figures();
    co_return outcome ? json_response(std::move(*outcome)) : problem(outcome.error());
}

awaitable<Response> from_bug(
    Engine& engine, std::string id, std::function<result<json::object>(Database&, const std::string& bug)> job
) {
    std::function<result<json::object>(Database&)> with_bug = [id,
                                                               job](Database& db) -> result<json::object> {
        auto bug = sql::show_bug(db, id);
        if (!bug) return bug.error();
        return job(db, std::string{string_at(*bug, "id")});
    };
    auto outcome = co_await engine.query(std::move(with_bug));
    co_return outcome ? json_response(std::move(*outcome)) : problem(outcome.error());
}

awaitable<Response> analyses(Engine& engine, Request request) {
    std::string id = request.arguments[0];
    std::function<result<json::object>(Database&, const std::string&)> job =
        [](Database& db, const std::string& bug) -> result<json::object> {
        auto items = sql::list_analyses(db, bug, 50);
        if (!items) return items.error();
        auto questions = sql::ai_calls(db, bug, 100);
        if (!questions) return questions.error();
        return json::object{{"items", std::move(*items)}, {"questions", std::move(*questions)}};
    };
    return from_bug(engine, std::move(id), std::move(job));
}

awaitable<Response> suggestions(Engine& engine, Request request) {
    bool all = false;
    for (const auto& [key, value] : request.query) {
        if (key != "all" || (value != "true" && value != "false"))
            co_return problem(fail(
                errc::invalid_input,
                to_valid_utf8(key) + ": unknown parameter; known is all=true, also those superseded"
            ));
        all = value == "true";
    }
    std::string id = request.arguments[0];
    std::function<result<json::object>(Database&, const std::string&)> job =
        [all](Database& db, const std::string& bug) -> result<json::object> {
        auto items = sql::list_suggestions(db, bug, all);
        if (!items) return items.error();
        return json::object{{"items", std::move(*items)}};
    };
    co_return co_await from_bug(engine, std::move(id), std::move(job));
}

}  // namespace

std::vector<Route> fix_routes() {
    return {
        {"POST",
         "/api/v1/ai/fix",
         "Analyse a bug (body: {bug_id, fresh, provider}); answers when it is done",
         true,
         analyze},
        {"GET", "/api/v1/ai", "Providers, budgets, what was spent today, who rests", false, figures},
        {"GET",
         "/api/v1/system/bugs/{id}/analysis",
         "What was found out about a bug, newest first, and the questions that were asked",
         false,
         analyses},
        {"GET",
         "/api/v1/system/bugs/{id}/suggestions",
         "Suggested fixes, best first (all=true: also superseded ones)",
         false,
         suggestions},
    };
}

}  // namespace heal::http
