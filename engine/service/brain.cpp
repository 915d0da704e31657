#include "service/brain.hpp"

#include "base/id.hpp"
#include "base/log.hpp"
#include "service/explain.hpp"
#include "store/brain_store.hpp"
#include "store/queries.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <functional>

namespace heal {

using namespace std::chrono_literals;

bool parse_duration(std::string_view text, Duration& ret) {
    std::int64_t n = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
    const std::string_view unit{end, static_cast<std::size_t>(text.data() + text.size() - end)};
    const Duration each = unit == "ms"  ? Duration{1ms}
                          : unit == "s" ? Duration{1s}
                          : unit == "m" ? Duration{1min}
                          : unit == "h" ? Duration{1h}
                          : unit == "d" ? Duration{24h}
                                        : Duration{0};
    if (ec != std::errc{} || each.count() == 0 || n < 0 || n > Duration{366 * 24h} / each) return false;
    ret = each * n;
    return true;
}

namespace {

namespace asio = boost::asio;

constexpr Duration longest_hold = 90 * 24h;
constexpr std::size_t max_holds = 1000;

json::object to_json(const Hold& h) {
    return json::object{
        {"id", h.id},
        {"kind", to_string(h.kind)},
        {"scope", to_string(h.scope)},
        {"name", h.name},
        {"reason", to_valid_utf8(h.reason)},
        {"actor", h.actor},
        {"starts_at", to_rfc3339(h.starts)},
        {"ends_at", h.ends ? json::value(to_rfc3339(*h.ends)) : json::value(nullptr)}};
}

class BrainImpl final : public Brain {
public:
    BrainImpl(Shared& shared, Healer& healer) : s_(shared), healer_(healer) {}

    asio::awaitable<result<void>> start() override {
        std::vector<Hold> holds;
        HEAL_CO_TRY(co_await s_.store.write([&](Database& db) -> result<void> {
            auto rows = sql::load_holds(db, s_.clock.wall());
            if (!rows) return rows.error();
            holds = std::move(*rows);
            return {};
        }));
        s_.holds = std::move(holds);
        co_return result<void>{};
    }

    void housekeeping() override {
        if (!s_.holds) return;
        const Time now = s_.clock.wall();
        std::erase_if(*s_.holds, [&](const Hold& h) { return h.ends && *h.ends <= now; });
    }

    json::array holds() const override {
        json::array out;
        const Time now = s_.clock.wall();
        if (s_.holds) {
            for (const auto& h : *s_.holds) {
                if (!h.ends || *h.ends > now) out.push_back(to_json(h));
            }
        }
        return out;
    }

    asio::awaitable<result<json::object>> set_hold(json::object body, std::string actor) override {
        auto hold = read_hold(body);
        if (!hold) co_return hold.error();
        hold->actor = actor;
        if (!s_.holds)
            co_return fail(errc::unavailable, "what was set before could not be read; restart heald");
        if (s_.holds->size() >= max_holds)
            co_return fail(errc::overloaded, fmt::format("{} are set already; lift some", max_holds));
        // Takes effect before it is durable: stopping must not wait for a slow disk.
        s_.holds->push_back(*hold);
        healer_.holds_changed();
        const Hold row = *hold;
        const json::object detail = to_json(row);
        auto stored = co_await s_.store.write([&](Database& db) -> result<void> {
            HEAL_TRY(sql::insert_hold(db, row));
            return sql::append_audit(db, s_.clock.wall(), actor, "hold.set", row.id, json::serialize(detail));
        });
        if (!stored) co_return stored.error();
        s_.feed.publish("hold", {{"state", "set"}, {"hold", detail}});
        log::warn(
            "{} for {} '{}' by {}: {}", to_string(row.kind), to_string(row.scope), row.name, actor, row.reason
        );
        co_return detail;
    }

    asio::awaitable<result<json::object>> lift_hold(std::string id, std::string actor) override {
        bool found = false;
        HEAL_CO_TRY(co_await s_.store.write([&](Database& db) -> result<void> {
            auto lifted = sql::lift_hold(db, id, actor, s_.clock.wall());
            if (!lifted) return lifted.error();
            found = *lifted;
            if (!found) return {};
            return sql::append_audit(db, s_.clock.wall(), actor, "hold.lift", id, "{}");
        }));
        if (!found)
            co_return fail(
                errc::not_found,
                fmt::format(
                    "nothing is set with the id '{}'; GET /api/v1/holds lists them", to_valid_utf8(id)
                )
            );
        if (s_.holds) std::erase_if(*s_.holds, [&](const Hold& h) { return h.id == id; });
        healer_.hold_lifted();
        s_.feed.publish("hold", {{"state", "lifted"}, {"id", id}});
        co_return json::object{{"lifted", id}};
    }

    asio::awaitable<result<json::object>> why(std::string event) override {
        // Named before the co_await: docs/adr/0006-coroutines.md.
        std::function<result<json::object>(Database&)> job = [event](Database& db) {
            return sql::show_event(db, event);
        };
        auto shown = co_await s_.store.read<json::object>(std::move(job));
        if (!shown) co_return shown.error();
        co_return explain(*shown);
    }

    asio::awaitable<result<json::object>> review(std::string event, json::object body, std::string actor)
        override {
        const std::string verdict{string_at(body, "verdict")}, reason{string_at(body, "reason")};
        if (verdict != "right" && verdict != "false_positive" && verdict != "manual")
            co_return fail(
                errc::invalid_input,
                "body.verdict: must be one of right, false_positive, manual (a person healed it)"
            );
        Store::Job job = [=, now = s_.clock.wall()](Database& db) -> result<void> {
            HEAL_TRY(sql::review_event(db, event, verdict, now));
            return sql::append_audit(
                db,
                now,
                actor,
                "event.review",
                event,
                json::serialize(json::object{{"verdict", verdict}, {"reason", to_valid_utf8(reason)}})
            );
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
        co_return json::object{{"event", event}, {"verdict", verdict}};
    }

    json::object guards() const override {
        const auto& c = healer_.guard_counters();
        json::array list;
        for (std::size_t i = 0; i < guard_count; ++i) {
            const auto guard = static_cast<GuardId>(i);
            list.push_back(json::object{
                {"guard", to_string(guard)},
                {"purpose", purpose(guard)},
                {"off", is_off(guard, s_.settings->limits)},
                {"evaluated", c.evaluated[i]},
                {"tripped", c.tripped[i]},
                {"input_missing", c.input_missing[i]},
                {"overridden", c.overridden[i]}});
        }
        return json::object{{"guards", std::move(list)}};
    }

    json::object drill(const std::string& actor) override {
        json::array list;
        bool ok = true;
        for (const auto& r : drill_guards(s_.settings->limits, s_.clock.wall())) {
            ok = ok && r.ok();
            list.push_back(json::object{
                {"guard", to_string(r.guard)},
                {"ok", r.ok()},
                {"off", r.off},
                {"tripped", r.tripped},
                {"passed", r.passed},
                {"fails_closed", r.fails_closed},
                {"reason", r.reason}});
        }
        s_.metrics.set("heald_guard_drill_successful", {}, ok ? 1 : 0);
        s_.store.submit(
            [actor, ok, now = s_.clock.wall()](Database& db) {
                return sql::append_audit(
                    db, now, actor, "guards.drill", "guards", json::serialize(json::object{{"ok", ok}})
                );
            },
            [](result<void> outcome) {
                if (!outcome) log::error("the drill was not recorded: {}", outcome.error().text);
            }
        );
        return json::object{{"ok", ok}, {"guards", std::move(list)}};
    }

private:
    result<Hold> read_hold(const json::object& body) const {
        for (const auto& [key, value] : body) {
            const std::string_view name{key.data(), key.size()};
            for (const char* known : {"kind", "service", "strategy", "reason", "for", "until"}) {
                if (name == known) goto next;
            }
            return fail(
                errc::invalid_input,
                fmt::format(
                    "body.{}: unknown key; known are kind, service, strategy, reason, for, until",
                    to_valid_utf8(name)
                )
            );
        next:
            if (!value.is_string())
                return fail(errc::invalid_input, fmt::format("body.{}: must be a text", name));
        }
        Hold h;
        if (!parse_hold_kind(string_at(body, "kind"), h.kind))
            return fail(errc::invalid_input, "body.kind: must be one of pause, maintenance, freeze");
        const std::string service{string_at(body, "service")}, strategy{string_at(body, "strategy")};
        if (!service.empty() && !strategy.empty())
            return fail(errc::invalid_input, "body: give service or strategy, not both");
        if (!strategy.empty() && !s_.strategies.find(strategy))
            return fail(
                errc::invalid_input,
                fmt::format("body.strategy: there is no strategy '{}'", to_valid_utf8(strategy))
            );
        h.scope = !service.empty()    ? HoldScope::service
                  : !strategy.empty() ? HoldScope::strategy
                                      : HoldScope::all;
        h.name = service + strategy;
        h.reason = std::string{string_at(body, "reason")};
        if (h.reason.empty())
            return fail(errc::invalid_input, "body.reason: is missing; others will ask why");
        h.starts = s_.clock.wall();
        if (const auto text = string_at(body, "for"); !text.empty()) {
            Duration length{0};
            if (!parse_duration(text, length) || length < 1s || length > longest_hold)
                return fail(
                    errc::invalid_input, "body.for: must be a duration such as 30m, 2h or 7d, up to 90d"
                );
            h.ends = h.starts + length;
        }
        if (const auto text = string_at(body, "until"); !text.empty()) {
            Time until;
            if (h.ends || !parse_rfc3339(text, until) || until <= h.starts || until - h.starts > longest_hold)
                return fail(
                    errc::invalid_input,
                    "body.until: must be a coming time such as 2026-12-24T18:00:00Z within 90 days; give for "
                    "or "
                    "until"
                );
            h.ends = until;
        }
        if (!h.ends && h.kind != HoldKind::pause)
            return fail(
                errc::invalid_input,
                fmt::format(
                    "body.for: is missing; a {} ends by itself, so that nobody can forget it",
                    to_string(h.kind)
                )
            );
        h.id = new_id(s_.clock);
        return h;
    }

    Shared& s_;
    Healer& healer_;
};

}  // namespace

std::unique_ptr<Brain> create_brain(Shared& shared, Healer& healer) {
    return std::make_unique<BrainImpl>(shared, healer);
}

}  // namespace heal
