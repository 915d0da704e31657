#include "http/patch_routes.hpp"

#include "service/fixer.hpp"
#include "store/fix_store.hpp"
#include "store/healing_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace heal::http {
namespace {

using boost::asio::awaitable;

/// @param texts  the keys it may have; @param flag  and break_glass
result<json::object> body_of(
    const Request& request, std::initializer_list<std::string_view> texts, bool flag = false
) {
    auto body = body_object(request);
    if (!body) return body;
    for (const auto& [key, value] : *body) {
        const std::string_view name{key.data(), key.size()};
        const bool good = (std::find(texts.begin(), texts.end(), name) != texts.end() && value.is_string()) ||
                          (flag && name == "break_glass" && value.is_bool());
        if (good) continue;
        std::string known;
        for (const auto& t : texts) known += (known.empty() ? "" : ", ") + std::string{t};
        return fail(
            errc::invalid_input,
            fmt::format(
                "body.{}: not understood; known are {} (texts){}",
                to_valid_utf8(name),
                known,
                flag ? ", break_glass (true, false)" : ""
            )
        );
    }
    return body;
}

template <auto list_rows>
awaitable<Response> listing(Engine& engine, Request request, std::vector<std::string_view> filters) {
    sql::ListQuery query;
    for (const auto& [key, value] : request.query) {
        if (key == "limit") {
            const auto [end, ec] = std::from_chars(value.data(), value.data() + value.size(), query.limit);
            if (ec != std::errc{} || end != value.data() + value.size() || query.limit < 1 ||
                query.limit > 1000)
                co_return problem(fail(errc::invalid_input, "limit: must be an integer from 1 to 1000"));
        } else if (key == "before") {
            query.before = value;
        } else if (std::find(filters.begin(), filters.end(), key) != filters.end()) {
            query.equals[key] = value;
        } else {
            std::string known = "limit, before";
            for (const auto& f : filters) known += ", " + std::string{f};
            co_return problem(fail(
                errc::invalid_input,
                fmt::format("{}: unknown parameter; known are {}", to_valid_utf8(key), known)
            ));
        }
    }
    std::function<result<json::object>(Database&)> job = [query](Database& db) {
        return list_rows(db, query);
    };
    auto answer = co_await engine.query(std::move(job));
    co_return answer ? json_response(std::move(*answer)) : problem(answer.error());
}

awaitable<Response> list_runs(Engine& e, Request r) {
    return listing<sql::list_patch_runs>(
        e,
        std::move(r),
        {"bug_id", "suggestion_id", "repository", "service_name", "step", "outcome", "fingerprint"}
    );
}
awaitable<Response> list_patterns(Engine& e, Request r) {
    return listing<sql::list_patterns>(
        e, std::move(r), {"fingerprint", "service_name", "error_type", "suffix"}
    );
}
awaitable<Response> list_fixes(Engine& e, Request r) {
    return listing<sql::list_fixes>(e, std::move(r), {"bug_id", "status", "verdict"});
}

awaitable<Response> show_run(Engine& engine, Request request) {
    std::function<result<json::object>(Database&)> job = [id = request.arguments[0]](Database& db) {
        return sql::show_patch_run(db, id);
    };
    auto answer = co_await engine.query(std::move(job));
    co_return answer ? json_response(std::move(*answer)) : problem(answer.error());
}

awaitable<Response> vote(Engine& engine, Request request, bool yes) {
    auto* fixer = engine.fixer();
    if (!fixer) co_return starting();
    auto body = body_of(request, {"reason", "digest"}, true);
    if (!body) co_return problem(body.error());
    if (!yes && string_at(*body, "reason").empty())
        co_return problem(fail(errc::invalid_input, "body.reason: must say why not"));
    auto answer = co_await fixer->vote(request.arguments[0], yes, std::move(*body), std::move(request.actor));
    co_return answer ? json_response(std::move(*answer)) : problem(answer.error());
}
awaitable<Response> approve(Engine& e, Request r) { return vote(e, std::move(r), true); }
awaitable<Response> reject(Engine& e, Request r) { return vote(e, std::move(r), false); }

awaitable<Response> cancel(Engine& engine, Request request) {
    auto* fixer = engine.fixer();
    if (!fixer) co_return starting();
    auto body = body_of(request, {"reason"});
    if (!body) co_return problem(body.error());
    std::string reason{string_at(*body, "reason")};
    auto outcome = co_await fixer->cancel(request.arguments[0], std::move(reason), std::move(request.actor));
    co_return outcome ? json_response(json::object{{"cancelled", request.arguments[0]}})
                      : problem(outcome.error());
}

awaitable<Response> figures(Engine& engine, Request request) {
    std::pair<Time, Time> span{engine.clock().wall() - std::chrono::hours{24 * 30}, engine.clock().wall()};
    for (const auto& [key, value] : request.query) {
        if (key != "from" && key != "to")
            co_return problem(
                fail(errc::invalid_input, to_valid_utf8(key) + ": unknown parameter; known are from, to")
            );
        if (!parse_rfc3339(value, key == "from" ? span.first : span.second))
            co_return problem(fail(errc::invalid_input, key + ": must be a time such as 2026-11-21T10:00:00Z")
            );
    }
    std::function<result<json::object>(Database&)> job = [span](Database& db) {
        return sql::fix_figures(db, span.first, span.second);
    };
    auto answer = co_await engine.query(std::move(job));
    co_return answer ? json_response(std::move(*answer)) : problem(answer.error());
}

awaitable<Response> scan(Engine& engine, Request) {
    std::function<result<json::object>(Database&)> job = [](Database& db) -> result<json::object> {
        auto stored = sql::load_engine_state(db, "code_scan");
        if (!stored) return stored.error();
        auto parsed =
            parse_json(stored->value_or(R"({"at":null,"patterns":0,"items":[],"trouble":""})"), "scan");
        if (!parsed) return parsed.error();
        return std::move(parsed->as_object());
    };
    auto answer = co_await engine.query(std::move(job));
    co_return answer ? json_response(std::move(*answer)) : problem(answer.error());
}

}  // namespace

awaitable<Response> act_on_bug(Engine& engine, Request request) {
    auto* fixer = engine.fixer();
    if (!fixer) co_return starting();
    if (request.arguments[1] == "approve") co_return co_await approve(engine, std::move(request));
    auto body = body_of(request, {"suggestion"});
    if (!body) co_return problem(body.error());
    std::string suggestion{string_at(*body, "suggestion")};
    auto answer =
        co_await fixer->apply(request.arguments[0], std::move(suggestion), std::move(request.actor));
    co_return answer ? json_response(std::move(*answer), 202) : problem(answer.error());
}

std::vector<Route> patch_routes() {
    return {
        {"GET", "/api/v1/patches", "Runs of the patch pipeline, newest first", false, list_runs},
        {"GET", "/api/v1/patches/figures", "Funnel and held rate (from, to)", false, figures},
        {"GET", "/api/v1/patches/history", "What was landed and what became of it", false, list_fixes},
        {"GET",
         "/api/v1/patches/{id}",
         "One run: patch, evidence of each step, what was done outside",
         false,
         show_run},
        {"POST",
         "/api/v1/patches/{id}/approve",
         "Yes to exactly this patch (body: {digest, reason, break_glass})",
         true,
         approve},
        {"POST", "/api/v1/patches/{id}/reject", "No (body: {reason})", true, reject},
        {"POST",
         "/api/v1/patches/{id}/cancel",
         "Stop one that is not merged yet (body: {reason})",
         true,
         cancel},
        {"GET", "/api/v1/patterns", "What fixed kinds of bugs before", false, list_patterns},
        {"GET", "/api/v1/scan", "Places of known patterns that the newest code_scan found", false, scan},
    };
}

}  // namespace heal::http
