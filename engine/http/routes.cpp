#include "http/routes.hpp"

#include "http/approval_routes.hpp"
#include "http/brain_routes.hpp"
#include "http/fix_routes.hpp"
#include "http/patch_routes.hpp"
#include "service/fingerprints.hpp"
#include "store/cluster_store.hpp"
#include "store/healing_store.hpp"
#include "store/maintenance.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace heal::http {
namespace {

using boost::asio::awaitable;

unsigned status_of(errc code) {
    switch (code) {
        case errc::invalid_input:
            return 400;
        case errc::not_found:
            return 404;
        case errc::conflict:
            return 409;
        case errc::denied:
            return 403;
        case errc::overloaded:
            return 429;
        case errc::timeout:
            return 504;
        case errc::cancelled:
        case errc::unavailable:
            return 503;
        default:
            return 500;
    }
}

awaitable<Response> from_query(Engine& engine, std::function<result<json::object>(Database&)> job) {
    auto answer = co_await engine.query(std::move(job));
    co_return answer ? json_response(std::move(*answer)) : problem(answer.error());
}

result<sql::ListQuery> list_query(const Request& request, const std::vector<std::string_view>& filters) {
    sql::ListQuery query;
    for (const auto& [key, value] : request.query) {
        if (key == "limit") {
            const auto [end, ec] = std::from_chars(value.data(), value.data() + value.size(), query.limit);
            if (ec != std::errc{} || end != value.data() + value.size() || query.limit < 1 ||
                query.limit > 1000) {
                return fail(errc::invalid_input, "limit: must be an integer from 1 to 1000");
            }
        } else if (key == "before") {
            query.before = value;
        } else if (std::find(filters.begin(), filters.end(), key) != filters.end()) {
            query.equals[key] = value;
        } else {
            std::string known = "limit, before";
            for (const auto& f : filters) known += ", " + std::string{f};
            return fail(
                errc::invalid_input,
                fmt::format("{}: unknown parameter; known are {}", to_valid_utf8(key), known)
            );
        }
    }
    return query;
}

template <auto list>
awaitable<Response> listing(Engine& engine, Request request, std::vector<std::string_view> filters) {
    auto query = list_query(request, filters);
    if (!query) co_return problem(query.error());
    std::function<result<json::object>(Database&)> job = [q = std::move(*query)](Database& db) {
        return list(db, q);
    };
    co_return co_await from_query(engine, std::move(job));
}

awaitable<Response> health(Engine&, Request) { co_return json_response(json::object{{"status", "ok"}}); }

awaitable<Response> ready(Engine& engine, Request) {
    const auto why = engine.not_ready();
    co_return json_response(json::object{{"ready", why.empty()}, {"reason", why}}, why.empty() ? 200 : 503);
}

awaitable<Response> metrics(Engine& engine, Request) {
    co_return Response{200, "text/plain; version=0.0.4; charset=utf-8", engine.metrics_text(), {}};
}

awaitable<Response> status(Engine& engine, Request) { co_return json_response(engine.status()); }

awaitable<Response> reload(Engine& engine, Request request) {
    auto outcome = engine.reload(request.actor);
    co_return outcome ? json_response(json::object{{"reloaded", true}}) : problem(outcome.error());
}

awaitable<Response> post_logs(Engine& engine, Request request) {
    // Arguments are named before the co_await: docs/adr/0006-coroutines.md.
    std::string service;
    if (const auto it = request.query.find("service"); it != request.query.end()) service = it->second;
    auto answer = co_await engine.ingest(
        std::move(request.body),
        std::move(request.content_type),
        std::move(request.content_encoding),
        std::move(request.idempotency_key),
        std::move(service)
    );
    if (!answer) co_return problem(answer.error());
    json::object body{
        {"accepted", answer->accepted},
        {"below_level", answer->below_level},
        {"malformed", answer->malformed},
        {"self", answer->self}};
    if (answer->duplicate) body["duplicate"] = true;
    if (!answer->errors.empty()) body["errors"] = std::move(answer->errors);
    co_return json_response(body, 202);
}

awaitable<Response> list_logs(Engine& e, Request r) {
    return listing<sql::list_logs>(
        e, std::move(r), {"fingerprint", "service_name", "environment", "log_level", "related_bug_id"}
    );
}
awaitable<Response> list_fingerprints(Engine& e, Request r) {
    return listing<sql::list_fingerprints>(
        e, std::move(r), {"service_name", "environment", "log_level", "severity", "error_type"}
    );
}
awaitable<Response> list_events(Engine& e, Request r) {
    return listing<sql::list_events>(
        e,
        std::move(r),
        {"fingerprint",
         "service_name",
         "environment",
         "state",
         "severity",
         "resolution",
         "healed_by",
         "target"}
    );
}
awaitable<Response> list_bugs(Engine& e, Request r) {
    return listing<sql::list_bugs>(
        e, std::move(r), {"fingerprint", "service_name", "environment", "status", "severity", "bug_type"}
    );
}
awaitable<Response> list_audit(Engine& e, Request r) {
    return listing<sql::list_audit>(e, std::move(r), {"actor", "action", "subject"});
}

awaitable<Response> show_fingerprint(Engine& engine, Request request) {
    return from_query(engine, [id = request.arguments[0], now = engine.clock().wall()](Database& db) {
        return sql::show_fingerprint(db, id, now);
    });
}
awaitable<Response> show_event(Engine& engine, Request request) {
    return from_query(engine, [id = request.arguments[0]](Database& db) { return sql::show_event(db, id); });
}
awaitable<Response> show_bug(Engine& engine, Request request) {
    return from_query(engine, [id = request.arguments[0]](Database& db) { return sql::show_bug(db, id); });
}
result<std::pair<Time, Time>> span_of(const Request& request, Time now) {
    std::pair<Time, Time> span{now - std::chrono::hours{24 * 30}, now};
    for (const auto& [key, value] : request.query) {
        if (key != "from" && key != "to")
            return fail(errc::invalid_input, key + ": unknown parameter; known are from, to");
        if (!parse_rfc3339(value, key == "from" ? span.first : span.second))
            return fail(errc::invalid_input, key + ": must be a time such as 2026-11-21T10:00:00Z");
    }
    return span;
}

awaitable<Response> bug_summary(Engine& engine, Request request) {
    const auto span = span_of(request, engine.clock().wall());
    if (!span) co_return problem(span.error());
    std::function<result<json::object>(Database&)> job = [span = *span](Database& db) {
        return sql::bug_summary(db, span.first, span.second);
    };
    co_return co_await from_query(engine, std::move(job));
}

awaitable<Response> export_bugs(Engine& engine, Request request) {
    std::string format = "csv";
    std::int64_t limit = 10'000;
    for (const auto& [key, value] : request.query) {
        const auto [end, ec] = std::from_chars(value.data(), value.data() + value.size(), limit);
        if (key == "format")
            format = value;
        else if (key != "limit")
            co_return problem(fail(errc::invalid_input, key + ": unknown parameter; known are format, limit")
            );
        else if (ec != std::errc{} || end != value.data() + value.size() || limit < 1 || limit > 100'000)
            co_return problem(fail(errc::invalid_input, "limit: must be 1 to 100000"));
    }
    const auto form = format == "csv"    ? sql::ExportFormat::csv
                      : format == "json" ? sql::ExportFormat::json
                                         : sql::ExportFormat::ndjson;
    if (format != "csv" && format != "json" && format != "ndjson")
        co_return problem(fail(errc::invalid_input, "format: must be csv, json or ndjson"));
    std::function<result<json::object>(Database&)> job = [form, limit](Database& db) -> result<json::object> {
        auto text = sql::export_bugs(db, form, limit);
        if (!text) return text.error();
        return json::object{{"text", std::move(*text)}};
    };
    auto answer = co_await engine.query(std::move(job));
    if (!answer) co_return problem(answer.error());
    const char* type = format == "csv"    ? "text/csv; charset=utf-8"
                       : format == "json" ? "application/json"
                                          : "application/x-ndjson";
    Response response{200, type, std::string{string_at(*answer, "text")}, {}};
    response.headers.emplace_back("Content-Disposition", "attachment; filename=\"bugs." + format + "\"");
    co_return response;
}

awaitable<Response> change_bug(Engine& engine, Request request) {
    if (request.arguments[1] == "approve" || request.arguments[1] == "apply")
        co_return co_await act_on_bug(engine, std::move(request));
    const auto body = body_object(request);
    if (!body) co_return problem(body.error());
    static constexpr std::string_view known[] = {"text", "release", "assignee", "into"};
    for (const auto& [key, value] : *body) {
        if (std::find(std::begin(known), std::end(known), std::string_view{key}) == std::end(known) ||
            !value.is_string())
            co_return problem(fail(
                errc::invalid_input,
                fmt::format("{}: must be text, one of text, release, assignee, into", std::string_view{key})
            ));
    }
    sql::BugChange change;
    change.action = request.arguments[1];
    change.actor = request.actor;
    change.text = string_at(*body, "text");
    change.release = string_at(*body, "release");
    change.assignee = string_at(*body, "assignee");
    change.into = string_at(*body, "into");
    std::string id = request.arguments[0];
    auto outcome = co_await engine.change_bug(std::move(id), std::move(change));
    co_return outcome ? json_response(std::move(*outcome)) : problem(outcome.error());
}

/// A bug that a person or a program reports: a record that opens one at once.
awaitable<Response> report_bug(Engine& engine, Request request) {
    auto body = body_object(request);
    if (!body) co_return problem(body.error());
    if (string_at(*body, "message").empty())
        co_return problem(fail(errc::invalid_input, "message: must say what is wrong"));
    if (!body->contains("log_level")) (*body)["log_level"] = "fatal";
    request.body = json::serialize(*body);
    request.content_type = "application/json";
    co_return co_await post_logs(engine, std::move(request));
}

awaitable<Response> totals(Engine& engine, Request) {
    return from_query(engine, [](Database& db) { return sql::ingest_totals(db); });
}

awaitable<Response> verify_audit(Engine& engine, Request) {
    return from_query(engine, [](Database& db) -> result<json::object> {
        auto check = sql::verify_audit(db);
        if (!check) return check.error();
        return json::object{
            {"rows", check->rows},
            {"intact", check->first_bad == 0},
            {"first_bad", check->first_bad == 0 ? json::value(nullptr) : json::value(check->first_bad)}};
    });
}

awaitable<Response> stats(Engine& engine, Request request) {
    const auto span = span_of(request, engine.clock().wall());
    if (!span) co_return problem(span.error());
    co_return co_await from_query(engine, [&span](Database& db) {
        return sql::healing_stats(db, span->first, span->second);
    });
}

awaitable<Response> preview(Engine& engine, Request request) {
    auto body = body_object(request);
    if (!body) co_return problem(body.error());
    auto specs = rules_from_json(array_at(*body, "rules"));
    if (!specs) co_return problem(specs.error());
    auto rules = fingerprint::Rules::create(std::move(*specs));
    if (!rules) co_return problem(rules.error());
    co_return co_await from_query(engine, [&rules](Database& db) -> result<json::object> {
        // Bounded, since a reader thread is held meanwhile; the newest say most.
        auto samples = sql::load_samples(db, 20'000);
        if (!samples) return samples.error();
        return preview_rules(*samples, *rules);
    });
}

awaitable<Response> merges(Engine& engine, Request request) {
    const auto service = request.query.find("service");
    if (service == request.query.end())
        co_return problem(
            fail(errc::invalid_input, "service: is missing; merges are looked for within one service")
        );
    const std::string& name = service->second;
    co_return co_await from_query(engine, [&name](Database& db) -> result<json::object> {
        auto patterns = sql::load_patterns(db, name);
        if (!patterns) return patterns.error();
        auto decisions = sql::load_fingerprint_decisions(db);
        if (!decisions) return decisions.error();
        return merges_of(name, *patterns, *decisions);
    });
}

awaitable<Response> merge(Engine& engine, Request request) {
    auto body = body_object(request);
    if (!body) co_return problem(body.error());
    std::string into{string_at(*body, "into")}, reason{string_at(*body, "reason")};
    if (into.empty())
        co_return problem(
            fail(errc::invalid_input, "body.into: is missing; the fingerprint that it is joined to")
        );
    auto outcome = co_await engine.decide_fingerprint(
        request.arguments[0], std::move(into), std::move(reason), request.actor
    );
    co_return outcome ? json_response(std::move(*outcome)) : problem(outcome.error());
}

awaitable<Response> apart(Engine& engine, Request request) {
    auto body = body_object(request);
    if (!body) co_return problem(body.error());
    std::string reason{string_at(*body, "reason")};
    auto outcome = co_await engine.decide_fingerprint(
        request.arguments[0], request.arguments[0], std::move(reason), request.actor
    );
    co_return outcome ? json_response(std::move(*outcome)) : problem(outcome.error());
}

awaitable<Response> strategies(Engine& engine, Request) {
    co_return json_response(json::object{{"artifacts", engine.strategies()}});
}

awaitable<Response> show_strategy(Engine& engine, Request request) {
    auto found = engine.strategy(request.arguments[0]);
    co_return found ? json_response(std::move(*found)) : problem(found.error());
}

awaitable<Response> set_strategy(Engine& engine, Request request) {
    auto body = body_object(request);
    if (!body) co_return problem(body.error());
    auto outcome = co_await engine.set_strategy(request.arguments[0], std::move(*body), request.actor);
    co_return outcome ? json_response(std::move(*outcome)) : problem(outcome.error());
}

awaitable<Response> release(Engine& engine, Request request) {
    auto outcome = engine.release(request.arguments[0], request.actor);
    co_return outcome ? json_response(json::object{{"released", request.arguments[0]}})
                      : problem(outcome.error());
}

awaitable<Response> pause(Engine& engine, Request request) {
    auto body = body_object(request);
    if (!body) co_return problem(body.error());
    std::string reason{string_at(*body, "reason")};
    auto outcome = co_await engine.pause(true, std::move(reason), request.actor);
    co_return outcome ? json_response(json::object{{"paused", true}}) : problem(outcome.error());
}

awaitable<Response> resume(Engine& engine, Request request) {
    std::string no_reason;
    auto outcome = co_await engine.pause(false, std::move(no_reason), request.actor);
    co_return outcome ? json_response(json::object{{"paused", false}}) : problem(outcome.error());
}

awaitable<Response> list_nodes(Engine& engine, Request) {
    std::function<result<json::object>(Database&)> job = [](Database& db) { return sql::list_nodes(db); };
    co_return co_await from_query(engine, std::move(job));
}

awaitable<Response> list_jobs(Engine& engine, Request) {
    std::function<result<json::object>(Database&)> job = [](Database& db) { return sql::list_jobs(db); };
    co_return co_await from_query(engine, std::move(job));
}

awaitable<Response> change_job(Engine& engine, Request request) {
    const auto& what = request.arguments[1];
    if (what != "run" && what != "pause" && what != "resume")
        co_return problem(fail(errc::not_found, "a job can be asked to run, pause or resume"));
    auto outcome = co_await engine.job(request.arguments[0], request.arguments[1], request.actor);
    co_return outcome ? json_response(std::move(*outcome)) : problem(outcome.error());
}

awaitable<Response> openapi(Engine&, Request) {
    json::object paths;
    for (const auto& route : routes()) {
        json::array parameters;
        std::string_view rest = route.path;
        for (auto open = rest.find('{'); open != std::string_view::npos; open = rest.find('{')) {
            const auto close = rest.find('}', open);
            parameters.push_back(json::object{
                {"name", rest.substr(open + 1, close - open - 1)},
                {"in", "path"},
                {"required", true},
                {"schema", json::object{{"type", "string"}}}});
            rest = rest.substr(close);
        }
        std::string method = route.method;
        for (auto& c : method) c = static_cast<char>(c - 'A' + 'a');
        json::object operation{
            {"summary", route.summary},
            {"operationId", method + std::string{route.path}},
            {"responses",
             json::object{
                 {"default",
                  json::object{{"description", "The answer; errors are application/problem+json"}}}}}};
        if (!parameters.empty()) operation["parameters"] = std::move(parameters);
        if (route.changes) {
            operation["security"] = json::array{json::object{{"token", json::array{}}}};
            operation["requestBody"] =
                json::object{{"content", json::object{{"application/json", json::object{}}}}};
        }
        auto& item = paths[route.path];
        if (!item.is_object()) item = json::object{};
        item.as_object()[method] = std::move(operation);
    }
    co_return json_response(json::object{
        {"openapi", "3.1.0"},
        {"info",
         json::object{
             {"title", "heald"},
             {"version", HEAL_VERSION},
             {"license", json::object{{"name", "Apache-2.0"}, {"identifier", "Apache-2.0"}}}}},
        {"paths", std::move(paths)},
        {"components",
         json::object{
             {"securitySchemes",
              json::object{{"token", json::object{{"type", "http"}, {"scheme", "bearer"}}}}}}}});
}

std::vector<Route> with_brain(std::vector<Route> table) {
    for (const auto& route : brain_routes()) table.push_back(route);
    for (const auto& route : approval_routes()) table.push_back(route);
    for (const auto& route : patch_routes()) table.push_back(route);
    for (const auto& route : fix_routes()) table.push_back(route);
    return table;
}

}  // namespace

Response json_response(const json::value& value, unsigned status) {
    return {status, "application/json", json::serialize(value) + "\n", {}};
}

Response problem(unsigned status, std::string_view title, std::string_view detail) {
    Response r = json_response(
        json::object{
            {"type", "about:blank"}, {"status", status}, {"title", title}, {"detail", to_valid_utf8(detail)}},
        status
    );
    r.content_type = "application/problem+json";
    if (status == 429 || status == 503) r.headers.emplace_back("Retry-After", "1");
    return r;
}

Response problem(const Error& error) {
    return problem(status_of(error.code), to_string(error.code), error.text);
}

Response starting() { return problem(fail(errc::unavailable, "heald is starting; try again")); }

result<json::object> body_object(const Request& request) {
    auto parsed = parse_json(request.body.empty() ? "{}" : request.body, "body");
    if (!parsed) return parsed.error();
    if (!parsed->is_object()) return fail(errc::invalid_input, "body: must be a JSON object");
    return std::move(parsed->get_object());
}

const std::vector<Route>& routes() {
    static const std::vector<Route> table = with_brain({
        {"GET", "/health", "Is the process alive", false, health},
        {"GET", "/ready", "Does it take in and heal; 503 with the reason when not", false, ready},
        {"GET", "/metrics", "Figures for Prometheus", false, metrics},
        {"POST",
         "/-/reload",
         "Read the configuration again; the old one stays when the new one is bad",
         true,
         reload},
        {"GET", "/api/v1/openapi.json", "This description", false, openapi},
        {"GET", "/api/v1/status", "Version, state, store, artifacts", false, status},
        {"POST",
         "/api/v1/logs",
         "Take in one record, an array or NDJSON (gzip allowed); 202 only after the commit",
         true,
         post_logs},
        {"GET", "/api/v1/logs", "Samples that were kept", false, list_logs},
        {"GET", "/api/v1/ingest", "Exact totals of what was heard, by source", false, totals},
        {"GET", "/api/v1/fingerprints", "Kinds of error, newest first", false, list_fingerprints},
        {"GET",
         "/api/v1/fingerprints/merges",
         "Kinds of error that look like one, suggested or decided (service)",
         false,
         merges},
        {"POST",
         "/api/v1/fingerprints/preview",
         "What rules would join and part, over stored samples (body: {rules})",
         false,
         preview},
        {"POST", "/api/v1/fingerprints/{id}/merge", "Join it to another (body: {into, reason})", true, merge},
        {"POST", "/api/v1/fingerprints/{id}/apart", "Keep it apart for ever (body: {reason})", true, apart},
        {"GET",
         "/api/v1/fingerprints/{id}",
         "One, with counts, samples and incidents; a prefix of 4 digits is enough",
         false,
         show_fingerprint},
        {"GET", "/api/v1/healing/events", "Incidents and what became of them", false, list_events},
        {"GET",
         "/api/v1/healing/events/{id}",
         "One, with its decision, attempts and effects",
         false,
         show_event},
        {"GET", "/api/v1/healing/stats", "MTTD, MTTA, MTTR, rates, strategies (from, to)", false, stats},
        {"GET",
         "/api/v1/strategies",
         "Artifacts with their state, strategies with their settings",
         false,
         strategies},
        {"GET", "/api/v1/strategies/{name}", "One strategy", false, show_strategy},
        {"PUT", "/api/v1/strategies/{name}", "Set priority, enabled, autonomy, floor", true, set_strategy},
        {"POST", "/api/v1/strategies/{name}/release", "Out of quarantine", true, release},
        {"GET", "/api/v1/system/bugs", "Bugs, newest first", false, list_bugs},
        {"GET",
         "/api/v1/system/bugs/summary",
         "Counts, and times to detect, analyze and fix (from, to)",
         false,
         bug_summary},
        {"GET",
         "/api/v1/system/bugs/export",
         "All of them (format: csv, json, ndjson; limit)",
         false,
         export_bugs},
        {"POST",
         "/api/v1/system/bugs/ingest",
         "Report one: a record with a message; 202 after the commit",
         true,
         report_bug},
        {"GET", "/api/v1/system/bugs/{id}", "One bug by id or code, with its history", false, show_bug},
        {"POST",
         "/api/v1/system/bugs/{id}/{action}",
         "close, reopen, reject, fix (body: {release}), assign ({assignee}), comment ({text}), merge "
         "({into}), split; approve (the patch that waits), apply (body: {suggestion})",
         true,
         change_bug},
        {"POST", "/api/v1/pause", "Kill switch on (body: {reason})", true, pause},
        {"POST", "/api/v1/resume", "Kill switch off", true, resume},
        {"GET",
         "/api/v1/cluster",
         "Nodes on the same store, with version, health and lease",
         false,
         list_nodes},
        {"GET", "/api/v1/jobs", "Jobs with their newest runs", false, list_jobs},
        {"POST", "/api/v1/jobs/{name}/{what}", "run, pause or resume a job", true, change_job},
        {"GET", "/api/v1/audit", "Every mutating request and action", false, list_audit},
        {"GET", "/api/v1/audit/verify", "Recompute the hash chain", false, verify_audit},
    });
    return table;
}

bool percent_decode(std::string_view text, bool plus_is_space, std::string& ret) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '%') {
            unsigned value = 0;
            if (i + 2 >= text.size()) return false;
            const auto [end, ec] = std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16);
            if (ec != std::errc{} || end != text.data() + i + 3) return false;
            out += static_cast<char>(value);
            i += 2;
        } else
            out += text[i] == '+' && plus_is_space ? ' ' : text[i];
    }
    ret = std::move(out);
    return true;
}

Found find_route(std::string_view method, std::string_view path) {
    Found found;
    for (const auto& route : routes()) {
        std::vector<std::string> arguments;
        std::string_view pattern = route.path, rest = path;
        bool ok = true;
        while (ok && !(pattern.empty() && rest.empty())) {
            const auto cut = [](std::string_view& s) {
                const auto slash = s.find('/', 1);
                const auto segment = s.substr(0, slash);
                s = slash == std::string_view::npos ? std::string_view{} : s.substr(slash);
                return segment;
            };
            const auto p = cut(pattern), r = cut(rest);
            if (p.size() > 2 && p[1] == '{') {
                std::string value;
                ok = r.size() > 1 && percent_decode(r.substr(1), false, value) && !value.empty();
                arguments.push_back(std::move(value));
            } else
                ok = p == r;
        }
        if (!ok) continue;
        if (method == route.method) {
            found.route = &route;
            found.arguments = std::move(arguments);
            return found;
        }
        found.allowed += (found.allowed.empty() ? "" : ", ") + std::string{route.method};
    }
    return found;
}

}  // namespace heal::http
