#include "service/trust.hpp"

#include "base/log.hpp"
#include "store/brain_store.hpp"

#include <fmt/format.h>

namespace heal {
namespace {

namespace asio = boost::asio;

/// As many attempts as learning remembers.
constexpr std::int64_t facts_restored = 50'000;

class TrustImpl final : public Trust {
public:
    explicit TrustImpl(Shared& shared) : s_(shared) {}

    asio::awaitable<result<void>> start() override {
        struct Loaded {
            std::vector<sql::TrustRung> rungs;
            std::vector<sql::TrustFact> facts;
        };
        auto loaded = std::make_shared<Loaded>();
        Store::Job job = [loaded](Database& db) -> result<void> {
            auto rungs = sql::load_trust_rungs(db);
            if (!rungs) return rungs.error();
            loaded->rungs = std::move(*rungs);
            auto facts = sql::load_trust_facts(db, facts_restored);
            if (!facts) return facts.error();
            loaded->facts = std::move(*facts);
            return {};
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
        book_ = TrustBook{};
        for (const auto& r : loaded->rungs)
            book_.put(r.strategy, r.error_class, r.rung, r.since, r.by_hand, r.fell, r.reason);
        for (const auto& f : loaded->facts)
            book_.restore(
                f.strategy, f.error_class, f.evidence, f.at, s_.settings->trust, start_of(f.strategy)
            );
        co_return result<void>{};
    }

    Autonomy limit(const std::string& strategy, const std::string& error_class, Autonomy ceiling)
        const override {
        return std::min(ceiling, book_.rung(strategy, error_class, start_of(strategy)));
    }

    void note(const std::string& strategy, const std::string& error_class, TrustEvidence evidence) override {
        if (error_class.empty() || strategy.empty()) return;
        const Time now = s_.clock.wall();
        const auto step = book_.note(
            strategy, error_class, evidence, now, s_.settings->trust, start_of(strategy), ceiling_of(strategy)
        );
        if (!step) return;
        const bool up = step->to > step->from;
        log::warn(
            "trust of '{}' in {}: {} to {}: {}",
            strategy,
            error_class,
            to_string(step->from),
            to_string(step->to),
            step->reason
        );
        s_.metrics.add("heald_trust_steps_total", {{"direction", up ? "up" : "down"}});
        publish(*step);
        const auto* entry = book_.find(strategy, error_class);
        const sql::TrustRung row{
            strategy, error_class, step->to, entry->by_hand, entry->fell, step->reason, "heald", now};
        s_.store.keep(
            [row, step = *step](Database& db) -> result<void> {
                HEAL_TRY(sql::save_trust_rung(db, row));
                return sql::append_audit(
                    db,
                    row.since,
                    "heald",
                    step.to > step.from ? "trust.promote" : "trust.demote",
                    row.strategy,
                    detail_of(step)
                );
            },
            [](result<void> outcome) {
                if (!outcome) log::error("a step of trust was not stored: {}", outcome.error().text);
            }
        );
    }

    void note_attempt(const std::string& attempt, TrustEvidence evidence) override {
        look_up([attempt](Database& db) { return sql::class_of_attempt(db, attempt); }, evidence);
    }
    void note_event(const std::string& event, TrustEvidence evidence) override {
        look_up([event](Database& db) { return sql::healer_of_event(db, event); }, evidence);
    }

    json::object list() const override {
        const auto& p = s_.settings->trust;
        json::array items;
        for (const auto& [key, e] : book_.entries()) {
            const auto ceiling = ceiling_of(key.first);
            const bool shadow = e.rung == Autonomy::shadow;
            const double good = shadow ? e.listed : e.good, bad = shadow ? e.list_failed : e.bad;
            items.push_back(json::object{
                {"strategy", key.first},
                {"error_class", to_valid_utf8(key.second)},
                {"rung", to_string(e.rung)},
                {"ceiling", to_string(ceiling)},
                {"effective", to_string(std::min(ceiling, e.rung))},
                {"by_hand", e.by_hand},
                {"since", e.since.us == 0 ? json::value(nullptr) : json::value(to_rfc3339(e.since))},
                {"reason", to_valid_utf8(e.reason)},
                {"good", good},
                {"bad", bad},
                {"harms", e.harms},
                {"lower_bound", wilson_lower(good, bad)}});
        }
        return json::object{
            {"policy",
             json::object{
                 {"start", to_string(p.start)},
                 {"bound", p.bound},
                 {"samples", p.samples},
                 {"demote_below", p.demote_below},
                 {"harms", p.harms}}},
            {"items", std::move(items)}};
    }

    asio::awaitable<result<json::object>> set(json::object body, std::string actor) override {
        for (const auto& [key, value] : body) {
            const std::string_view name{key.data(), key.size()};
            if (name != "strategy" && name != "error_class" && name != "rung" && name != "reason")
                co_return fail(
                    errc::invalid_input,
                    fmt::format(
                        "body.{}: unknown key; known are strategy, error_class, rung, reason",
                        to_valid_utf8(name)
                    )
                );
        }
        const std::string strategy{string_at(body, "strategy")}, where{string_at(body, "error_class")},
            reason{string_at(body, "reason")};
        if (!s_.strategies.find(strategy))
            co_return fail(
                errc::invalid_input,
                fmt::format("body.strategy: there is no strategy '{}'", to_valid_utf8(strategy))
            );
        if (where.find('/') == std::string::npos || where.size() > 300)
            co_return fail(
                errc::invalid_input,
                "body.error_class: must be a service and a kind of error, such as cart/network"
            );
        if (reason.empty())
            co_return fail(errc::invalid_input, "body.reason: is missing; others will ask why");
        const auto* word = body.if_contains("rung");
        const bool back = word && word->is_null();
        Autonomy rung{};
        if (!back && (!word || !parse_autonomy(string_at(body, "rung"), rung)))
            co_return fail(
                errc::invalid_input,
                "body.rung: must be one of off, shadow, approve, auto, or null: the ladder decides again"
            );
        TrustStep step{strategy, where, book_.rung(strategy, where, start_of(strategy)), rung, reason};
        if (back) step.to = start_of(strategy);
        const Time now = s_.clock.wall();
        Store::Job job = [=](Database& db) -> result<void> {
            if (back) {
                auto gone = sql::remove_trust_rung(db, strategy, where);
                if (!gone) return gone.error();
            } else
                HEAL_TRY(sql::save_trust_rung(db, {strategy, where, rung, true, false, reason, actor, now}));
            return sql::append_audit(db, now, actor, "trust.set", strategy, detail_of(step));
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
        if (back)
            book_.clear(strategy, where);
        else
            book_.put(strategy, where, rung, now, true, false, reason);
        publish(step);
        co_return json::object{
            {"strategy", strategy},
            {"error_class", to_valid_utf8(where)},
            {"rung", to_string(step.to)},
            {"by_hand", !back},
            {"effective", to_string(limit(strategy, where, ceiling_of(strategy)))}};
    }

private:
    static std::string detail_of(const TrustStep& step) {
        return json::serialize(json::object{
            {"error_class", to_valid_utf8(step.error_class)},
            {"from", to_string(step.from)},
            {"to", to_string(step.to)},
            {"reason", to_valid_utf8(step.reason)}});
    }
    void publish(const TrustStep& step) {
        s_.feed.publish(
            "trust",
            {{"strategy", step.strategy},
             {"error_class", to_valid_utf8(step.error_class)},
             {"from", to_string(step.from)},
             {"to", to_string(step.to)},
             {"reason", to_valid_utf8(step.reason)}}
        );
    }
    Autonomy start_of(const std::string& strategy) const {
        const auto it = s_.settings->strategies.find(strategy);
        return it == s_.settings->strategies.end() ? s_.settings->trust.start
                                                   : it->second.trust.value_or(s_.settings->trust.start);
    }
    /// What a person set for it.
    Autonomy ceiling_of(const std::string& strategy) const {
        const auto* entry = s_.strategies.find(strategy);
        return entry ? s_.strategies.candidate(*entry).autonomy : Autonomy::automatic;
    }
    void look_up(std::function<result<sql::TrustFact>(Database&)> find, TrustEvidence evidence) {
        auto found = std::make_shared<sql::TrustFact>();
        s_.store.submit(
            [found, find = std::move(find)](Database& db) -> result<void> {
                auto fact = find(db);
                if (!fact) return fact.error();
                *found = std::move(*fact);
                return {};
            },
            [this, found, evidence](result<void> outcome) {
                if (!outcome) return log::error("trust: an outcome is not known: {}", outcome.error().text);
                note(found->strategy, found->error_class, evidence);
            }
        );
    }

    Shared& s_;
    TrustBook book_;
};

}  // namespace

std::unique_ptr<Trust> create_trust(Shared& shared) { return std::make_unique<TrustImpl>(shared); }

}  // namespace heal
