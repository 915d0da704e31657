#include "service/backtest.hpp"

#include "service/fingerprints.hpp"
#include "store/brain_store.hpp"
#include "store/sample_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <unordered_map>

namespace heal {
namespace {

constexpr std::int64_t outcomes_read = 50'000;
constexpr std::size_t most_named = 100;

/// The world as it was, as far as anybody knows.
class PastWorld final : public ReplayOracle {
public:
    PastWorld(const Settings& settings, const std::vector<sql::Outcome>& outcomes) {
        for (const auto& s : settings.services) {
            if (!s.probes.empty()) probed_.insert(s.name);
        }
        for (const auto& o : outcomes) balance_[o.strategy + '\x1f' + o.fingerprint] += o.success ? 1 : -1;
    }
    Played play(const Incident& incident, const std::string& strategy, Time) override {
        Played p;
        const auto known = balance_.find(strategy + '\x1f' + incident.fingerprint);
        if (known != balance_.end() && known->second < 0) p.outcome = Outcome::failed;
        if (p.outcome == Outcome::succeeded) ill_.erase(incident.target);
        return p;
    }
    std::optional<bool> well(const std::string& target, Time) override {
        if (!probed_.contains(target)) return std::nullopt;
        return !ill_.contains(target);
    }
    void opened(const std::string& target, Time) override { ill_.insert(target); }

private:
    std::set<std::string> probed_, ill_;
    std::unordered_map<std::string, int> balance_;
};

json::object both(
    const std::map<std::string, std::uint64_t>& current, const std::map<std::string, std::uint64_t>& next
) {
    std::map<std::string, std::pair<std::uint64_t, std::uint64_t>> all;
    for (const auto& [name, n] : current) all[name].first = n;
    for (const auto& [name, n] : next) all[name].second = n;
    json::object out;
    for (const auto& [name, n] : all)
        out[to_valid_utf8(name)] = json::object{{"current", n.first}, {"next", n.second}};
    return out;
}

json::object both(std::uint64_t current, std::uint64_t next) {
    return {{"current", current}, {"next", next}};
}

}  // namespace

result<ReplayWorld> world_of(
    const Settings& settings, const json::array& artifacts, const std::vector<sql::StrategySetting>& overrides
) {
    ReplayWorld world;
    for (const auto& artifact : artifacts) {
        if (!artifact.is_object()) continue;
        for (const auto& item : array_at(artifact.get_object(), "strategies")) {
            if (!item.is_object() || !item.get_object().contains("matches")) continue;
            const auto& o = item.get_object();
            ReplayStrategy s;
            auto& info = s.info;
            info.name = std::string{string_at(o, "name")};
            info.version = std::string{string_at(o, "version")};
            info.build = std::string{string_at(o, "build")};
            info.confidence = double_at(o, "confidence", 0.5);
            parse_risk(string_at(o, "risk"), info.risk);
            info.idempotent = bool_at(o, "idempotent");
            for (const auto& c : array_at(o, "capabilities")) {
                if (c.is_string()) info.capabilities.emplace_back(view(c.get_string()));
            }
            auto matcher = Matcher::compile(array_at(o, "matches"), info.name + ".matches");
            if (!matcher) return matcher.error();
            s.matcher = std::move(*matcher);
            s.priority = int_at(o, "declared_priority", int_at(o, "priority", 50));
            s.autonomy = settings.default_autonomy;
            s.floor = 0;
            s.verify = settings.verify;
            bool enabled = true;
            if (const auto it = settings.strategies.find(info.name); it != settings.strategies.end()) {
                const auto& c = it->second;
                s.priority = c.priority.value_or(s.priority);
                enabled = c.enabled.value_or(enabled);
                s.autonomy = c.autonomy.value_or(s.autonomy);
                s.floor = c.floor.value_or(s.floor);
                if (c.verify_timeout) s.verify.timeout = *c.verify_timeout;
                if (c.stabilize) s.verify.stabilize = *c.stabilize;
                if (c.hold) s.verify.hold = *c.hold;
            }
            for (const auto& r : overrides) {
                if (r.strategy != info.name) continue;
                s.priority = r.priority.value_or(s.priority);
                enabled = r.enabled.value_or(enabled);
                s.autonomy = r.autonomy.value_or(s.autonomy);
                s.floor = r.floor.value_or(s.floor);
            }
            if (enabled) world.strategies.push_back(std::move(s));
        }
    }
    for (const auto& s : settings.services) world.services.push_back({s.name, s.depends_on, s.facts});
    for (const auto& g : settings.groups) world.groups.push_back({g.name, g.services, g.minimum()});
    world.limits = settings.limits;
    world.max_auto_risk = settings.max_auto_risk;
    world.windows = settings.windows;
    world.forbidden = settings.forbidden;
    world.triggers = settings.triggers;
    world.targets = settings.targets;
    return world;
}

result<json::object> backtest(Database& db, const BacktestRequest& request) {
    auto overrides = sql::load_strategy_settings(db);
    if (!overrides) return overrides.error();
    auto outcomes = sql::load_learned(db, outcomes_read);
    if (!outcomes) return outcomes.error();
    auto current_world = world_of(*request.current, request.artifacts, *overrides);
    if (!current_world) return current_world.error();
    auto next_world = world_of(*request.next, request.artifacts, *overrides);
    if (!next_world) return next_world.error();
    PastWorld current_past{*request.current, *outcomes}, next_past{*request.next, *outcomes};
    Replay current{std::move(*current_world), current_past}, next{std::move(*next_world), next_past};

    const bool regroup = json::serialize(to_json(request.current->rule_specs)) !=
                         json::serialize(to_json(request.next->rule_specs));
    const fingerprint::Rules no_rules;
    const fingerprint::Rules& rules = request.next->rules ? *request.next->rules : no_rules;
    std::map<std::string, std::set<std::string>> now_of, then_of;
    std::set<std::string> groups;
    std::uint64_t samples = 0, occurrences = 0;
    Time last = request.from;
    HEAL_TRY(sql::each_sample(db, request.from, [&](const sql::StoredSample& s) {
        ++samples;
        occurrences += s.represents;
        last = std::max(last, s.incident.record.received);
        current.hear(s.incident, s.represents, s.incident.record.received);
        if (!regroup) {
            groups.insert(s.incident.fingerprint);
            return next.hear(s.incident, s.represents, s.incident.record.received);
        }
        const auto& r = s.incident.record;
        const auto ruled = rules.apply({r.service_name, r.component, r.message, r.stack_trace});
        now_of[s.incident.fingerprint].insert(ruled.fingerprint.id);
        then_of[ruled.fingerprint.id].insert(s.incident.fingerprint);
        Incident changed = s.incident;
        changed.fingerprint = changed.record.fingerprint = ruled.fingerprint.id;
        changed.pattern = changed.record.pattern = ruled.fingerprint.pattern;
        next.hear(changed, s.represents, r.received);
    }));
    constexpr Duration settle = std::chrono::hours{2};
    current.finish(settle);
    next.finish(settle);

    json::array merged, split;
    for (const auto& [id, before] : then_of) {
        if (before.size() > 1 && merged.size() < most_named)
            merged.push_back(json::object{{"into", id}, {"from", json::array(before.begin(), before.end())}});
    }
    for (const auto& [id, after] : now_of) {
        if (after.size() > 1 && split.size() < most_named)
            split.push_back(json::object{{"from", id}, {"into", json::array(after.begin(), after.end())}});
    }
    const auto &a = current.totals(), &b = next.totals();
    json::object group_counts =
        regroup ? both(now_of.size(), then_of.size()) : both(groups.size(), groups.size());
    group_counts["merged"] = std::move(merged);
    group_counts["split"] = std::move(split);
    return json::object{
        {"from", to_rfc3339(request.from)},
        {"to", to_rfc3339(last)},
        {"samples", samples},
        {"occurrences", occurrences},
        {"strategies_known", !request.artifacts.empty()},
        {"groups", std::move(group_counts)},
        {"incidents", both(a.incidents, b.incidents)},
        {"actions", both(a.actions, b.actions)},
        {"asked", both(a.asked, b.asked)},
        {"incidents_by_service", both(a.incidents_of, b.incidents_of)},
        {"actions_by_strategy", both(a.actions_of, b.actions_of)},
        {"held_back_by_guard", both(a.held_back, b.held_back)},
        {"ends", both(a.ends, b.ends)}};
}

}  // namespace heal
