#include "http/brain_routes.hpp"

#include "service/brain.hpp"
#include "service/trust.hpp"

namespace heal::http {
namespace {

using boost::asio::awaitable;

Response answer_of(result<json::object> answer, unsigned status = 200) {
    return answer ? json_response(std::move(*answer), status) : problem(answer.error());
}

awaitable<Response> list_holds(Engine& engine, Request) {
    auto* brain = engine.brain();
    if (!brain) co_return starting();
    co_return json_response(json::object{{"items", brain->holds()}});
}
awaitable<Response> set_hold(Engine& engine, Request request) {
    auto* brain = engine.brain();
    if (!brain) co_return starting();
    auto body = body_object(request);
    if (!body) co_return problem(body.error());
    auto outcome = co_await brain->set_hold(std::move(*body), request.actor);
    co_return answer_of(std::move(outcome), 201);
}
awaitable<Response> lift_hold(Engine& engine, Request request) {
    auto* brain = engine.brain();
    if (!brain) co_return starting();
    auto outcome = co_await brain->lift_hold(request.arguments[0], request.actor);
    co_return answer_of(std::move(outcome));
}
awaitable<Response> why(Engine& engine, Request request) {
    auto* brain = engine.brain();
    if (!brain) co_return starting();
    auto outcome = co_await brain->why(request.arguments[0]);
    co_return answer_of(std::move(outcome));
}
awaitable<Response> review(Engine& engine, Request request) {
    auto* brain = engine.brain();
    if (!brain) co_return starting();
    auto body = body_object(request);
    if (!body) co_return problem(body.error());
    std::string event = request.arguments[0], actor = std::move(request.actor);
    auto outcome = co_await brain->review(std::move(event), std::move(*body), std::move(actor));
    co_return answer_of(std::move(outcome));
}
awaitable<Response> guards(Engine& engine, Request) {
    auto* brain = engine.brain();
    if (!brain) co_return starting();
    co_return json_response(brain->guards());
}
awaitable<Response> list_triggers(Engine& engine, Request) { co_return json_response(engine.triggers()); }
awaitable<Response> list_trust(Engine& engine, Request) {
    auto* trust = engine.trust();
    co_return trust ? json_response(trust->list()) : starting();
}
awaitable<Response> set_trust(Engine& engine, Request request) {
    auto* trust = engine.trust();
    if (!trust) co_return starting();
    auto body = body_object(request);
    if (!body) co_return problem(body.error());
    auto outcome = co_await trust->set(std::move(*body), std::move(request.actor));
    co_return answer_of(std::move(outcome));
}
awaitable<Response> drill(Engine& engine, Request request) {
    auto* brain = engine.brain();
    if (!brain) co_return starting();
    co_return json_response(brain->drill(request.actor));
}

}  // namespace

std::vector<Route> brain_routes() {
    return {
        {"GET",
         "/api/v1/holds",
         "Kill switches, maintenance windows and freezes that are set",
         false,
         list_holds},
        {"POST",
         "/api/v1/holds",
         "Set one (body: {kind, service or strategy, reason, for or until})",
         true,
         set_hold},
        {"DELETE", "/api/v1/holds/{id}", "Lift one", true, lift_hold},
        {"GET",
         "/api/v1/healing/events/{id}/why",
         "Why it went as it did, in words; the ranking computed again",
         false,
         why},
        {"GET",
         "/api/v1/trust",
         "How far each strategy is trusted with which errors, and why",
         false,
         list_trust},
        {"PUT",
         "/api/v1/trust",
         "Set a rung by hand (body: {strategy, error_class, rung or null, reason})",
         true,
         set_trust},
        {"GET", "/api/v1/triggers", "Triggers of the configuration, with exact counts", false, list_triggers},
        {"POST",
         "/api/v1/healing/events/{id}/review",
         "What a person says afterwards (body: {verdict: right, false_positive or manual, reason})",
         true,
         review},
        {"GET", "/api/v1/guards", "Each guard, what it protects from, its counters", false, guards},
        {"POST", "/api/v1/guards/drill", "Make each guard trip once on a made-up incident", true, drill},
    };
}

}  // namespace heal::http
