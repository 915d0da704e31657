#include "http/approval_routes.hpp"

#include "service/approvals.hpp"
#include "service/brain.hpp"

#include <fmt/format.h>

#include <charconv>

namespace heal::http {
namespace {

using boost::asio::awaitable;
using namespace std::chrono_literals;

awaitable<Response> list(Engine& engine, Request request) {
    auto* approvals = engine.approvals();
    if (!approvals) co_return starting();
    std::string state, kind;
    std::int64_t limit = 100;
    for (const auto& [key, value] : request.query) {
        ApprovalState known{};
        if (key == "state" && parse_approval_state(value, known))
            state = value;
        else if (key == "kind")
            kind = value;
        else if (key == "limit") {
            const auto [end, ec] = std::from_chars(value.data(), value.data() + value.size(), limit);
            if (ec != std::errc{} || end != value.data() + value.size() || limit < 1 || limit > 1000)
                co_return problem(fail(errc::invalid_input, "limit: must be an integer from 1 to 1000"));
        } else
            co_return problem(fail(
                errc::invalid_input,
                key == "state" ? "state: must be one of pending, approved, rejected, expired, voided, used"
                               : to_valid_utf8(key) + ": unknown parameter; known are state, kind, limit"
            ));
    }
    auto items = co_await approvals->list(std::move(state), std::move(kind), limit);
    if (!items) co_return problem(items.error());
    co_return json_response(json::object{{"items", std::move(*items)}});
}

awaitable<Response> show(Engine& engine, Request request) {
    auto* approvals = engine.approvals();
    if (!approvals) co_return starting();
    auto found = co_await approvals->show(request.arguments[0]);
    co_return found ? json_response(to_json(*found)) : problem(found.error());
}

awaitable<Response> decide(Engine& engine, Request request, bool yes) {
    auto* approvals = engine.approvals();
    if (!approvals) co_return starting();
    auto body = body_object(request);
    if (!body) co_return problem(body.error());
    for (const auto& [key, value] : *body) {
        const std::string_view name{key.data(), key.size()};
        const bool good = ((name == "reason" || name == "digest") && value.is_string()) ||
                          (name == "break_glass" && value.is_bool());
        if (!good)
            co_return problem(fail(
                errc::invalid_input,
                fmt::format(
                    "body.{}: not understood; known are reason and digest (texts), break_glass (true, false)",
                    to_valid_utf8(name)
                )
            ));
    }
    Vote vote;
    vote.actor = request.actor;
    vote.yes = yes;
    vote.reason = std::string{string_at(*body, "reason")};
    vote.break_glass = yes && bool_at(*body, "break_glass");
    std::string id = request.arguments[0], seen{string_at(*body, "digest")};
    auto outcome = co_await approvals->decide(std::move(id), std::move(vote), std::move(seen));
    co_return outcome ? json_response(to_json(*outcome)) : problem(outcome.error());
}
awaitable<Response> approve(Engine& engine, Request request) {
    return decide(engine, std::move(request), true);
}
awaitable<Response> reject(Engine& engine, Request request) {
    return decide(engine, std::move(request), false);
}

awaitable<Response> make_link(Engine& engine, Request request) {
    auto* approvals = engine.approvals();
    if (!approvals) co_return starting();
    auto body = body_object(request);
    if (!body) co_return problem(body.error());
    Duration valid = 1h;
    if (const auto text = string_at(*body, "valid"); !text.empty() && !parse_duration(text, valid))
        co_return problem(fail(errc::invalid_input, "body.valid: must be a duration such as 30m, 2h or 7d"));
    std::string id = request.arguments[0], decision{string_at(*body, "decision")},
                person{string_at(*body, "for")};
    auto link = co_await approvals->make_link(
        std::move(id), std::move(decision), std::move(person), valid, std::move(request.actor)
    );
    co_return link ? json_response(std::move(*link), 201) : problem(link.error());
}

std::string escaped(std::string_view text) {
    std::string out;
    for (const char c : text) {
        switch (c) {
            case '&':
                out += "&amp;";
                break;
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '"':
                out += "&quot;";
                break;
            default:
                out += c;
        }
    }
    return out;
}

/// Without scripts, styles from elsewhere or anything that a page around it could use.
Response page(unsigned status, std::string_view title, const std::string& content) {
    Response r;
    r.status = status;
    r.content_type = "text/html; charset=utf-8";
    r.body = fmt::format(
        "<!doctype html><meta name=viewport content=\"width=device-width\"><title>{0}</title>"
        "<style>body{{font:1rem system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}}"
        "pre{{white-space:pre-wrap;overflow-wrap:anywhere;background:#8882;padding:1rem}}"
        "button{{font:inherit;padding:.5rem 1.5rem}}</style><h1>{0}</h1>{1}",
        escaped(title),
        content
    );
    r.headers.emplace_back("Cache-Control", "no-store");
    r.headers.emplace_back("Referrer-Policy", "no-referrer");
    r.headers.emplace_back("X-Frame-Options", "DENY");
    r.headers.emplace_back(
        "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
    );
    return r;
}

Response page_of(const Error& error) {
    return page(
        error.code == errc::not_found  ? 404
        : error.code == errc::conflict ? 409
                                       : 503,
        "Nothing was done",
        "<p>" + escaped(to_valid_utf8(error.text)) + "</p>"
    );
}

/// Only shows: programs that look at links before people do must not decide anything.
awaitable<Response> show_link(Engine& engine, Request request) {
    auto* approvals = engine.approvals();
    if (!approvals) co_return starting();
    auto link = co_await approvals->show_link(request.arguments[0]);
    if (!link) co_return page_of(link.error());
    const auto& a = object_at(*link, "approval");
    const bool yes = string_at(*link, "decision") == "approve";
    std::string bound;
    for (const auto& [key, value] : object_at(a, "bound"))
        bound += fmt::format("{}: {}\n", std::string_view{key.data(), key.size()}, json::serialize(value));
    co_return page(
        200,
        yes ? "Approve?" : "Refuse?",
        fmt::format(
            "<p>{}</p><p>For {}, once, until {}. The request is {}.</p><pre>{}</pre><form method=post>"
            "<button>{}</button></form>",
            escaped(string_at(a, "summary")),
            escaped(string_at(*link, "for")),
            string_at(*link, "expires_at"),
            string_at(a, "state"),
            escaped(bound),
            yes ? "Approve" : "Refuse"
        )
    );
}

awaitable<Response> use_link(Engine& engine, Request request) {
    auto* approvals = engine.approvals();
    if (!approvals) co_return starting();
    std::string token = request.arguments[0], peer = std::move(request.actor);
    auto outcome = co_await approvals->use_link(std::move(token), std::move(peer));
    if (!outcome) co_return page_of(outcome.error());
    co_return page(
        200,
        outcome->state == ApprovalState::pending ? "Noted: another person must agree" : "Done",
        fmt::format(
            "<p>{}</p><p>The request is {}.</p>", escaped(outcome->summary), to_string(outcome->state)
        )
    );
}

awaitable<Response> vote(Engine& engine, Request request, bool yes) {
    auto body = body_object(request);
    if (!body) co_return problem(body.error());
    std::string event = request.arguments[0], actor = std::move(request.actor);
    auto outcome = co_await engine.vote(std::move(event), yes, std::move(*body), std::move(actor));
    if (!outcome) co_return problem(outcome.error());
    co_return json_response(json::object{
        {yes ? "approved" : "rejected", request.arguments[0]}, {"approval", std::move(*outcome)}});
}
awaitable<Response> approve_event(Engine& engine, Request request) {
    return vote(engine, std::move(request), true);
}
awaitable<Response> reject_event(Engine& engine, Request request) {
    return vote(engine, std::move(request), false);
}

}  // namespace

std::vector<Route> approval_routes() {
    return {
        {"GET",
         "/api/v1/approvals",
         "What people were asked, newest first (state, kind, limit)",
         false,
         list},
        {"GET", "/api/v1/approvals/{id}", "One, with all that it is bound to and the votes", false, show},
        {"POST",
         "/api/v1/approvals/{id}/approve",
         "Say yes (body: {digest, reason, break_glass})",
         true,
         approve},
        {"POST", "/api/v1/approvals/{id}/reject", "Say no (body: {reason})", true, reject},
        {"POST",
         "/api/v1/approvals/{id}/link",
         "A signed link for one answer (body: {decision, for, valid})",
         true,
         make_link},
        {"GET", "/api/v1/approvals/links/{token}", "The page of a link; decides nothing", false, show_link},
        {"POST", "/api/v1/approvals/links/{token}", "Answer by a link, once", true, use_link},
        {"POST",
         "/api/v1/healing/events/{id}/approve",
         "Allow the strategy that waits (body: {strategy, digest, reason, break_glass})",
         true,
         approve_event},
        {"POST",
         "/api/v1/healing/events/{id}/reject",
         "Refuse it (body: {strategy, reason})",
         true,
         reject_event},
    };
}

}  // namespace heal::http
