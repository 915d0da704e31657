#include "service/strategies.hpp"

#include "base/log.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace heal {
namespace {

std::string text_of(const json::value& v) {
    if (v.is_string()) return std::string{view(v.get_string())};
    if (v.is_int64()) return std::to_string(v.get_int64());
    return {};
}

/// The values at a dotted path; list indices are numbers, a list at the end gives all its elements.
std::vector<std::string> values_at(const json::object& root, std::string_view path) {
    const json::value whole = root;
    const json::value* at = &whole;
    while (!path.empty()) {
        const auto dot = path.find('.');
        const std::string_view key = path.substr(0, dot);
        path = dot == std::string_view::npos ? std::string_view{} : path.substr(dot + 1);
        if (at->is_object())
            at = at->get_object().if_contains(key);
        else if (at->is_array() && key.find_first_not_of("0123456789") == std::string_view::npos && key.size() < 6) {
            const auto index = static_cast<std::size_t>(std::stoul(std::string{key}));
            at = index < at->get_array().size() ? &at->get_array()[index] : nullptr;
        } else
            at = nullptr;
        if (!at) return {};
    }
    std::vector<std::string> out;
    if (at->is_array()) {
        for (const auto& item : at->get_array()) {
            if (auto text = text_of(item); !text.empty()) out.push_back(std::move(text));
        }
    } else if (auto text = text_of(*at); !text.empty())
        out.push_back(std::move(text));
    return out;
}

}  // namespace

std::vector<std::string> expand_capability(const std::string& declared, const json::object& target) {
    const auto start = declared.find("{target.");
    if (start == std::string::npos) return {declared};
    const auto end = declared.find('}', start);
    if (end == std::string::npos) return {};
    const std::string path = declared.substr(start + 8, end - start - 8);
    std::vector<std::string> out;
    for (const auto& value : values_at(target, path)) {
        for (auto& full :
             expand_capability(declared.substr(0, start) + value + declared.substr(end + 1), target))
            out.push_back(std::move(full));
    }
    return out;
}

void Strategies::refresh(
    const std::vector<CatalogEntry>& catalog,
    const Settings& settings,
    std::vector<sql::StrategySetting> overrides
) {
    catalog_ = catalog;
    configured_ = settings.strategies;
    default_autonomy_ = settings.default_autonomy;
    verify_ = settings.verify;
    overrides_.clear();
    for (auto& o : overrides) overrides_[o.strategy] = std::move(o);
    entries_.clear();
    for (const auto& artifact : catalog) {
        if (artifact.state != ArtifactState::loaded) continue;
        for (const auto& info : artifact.strategies) {
            Entry entry{info, {}, true, {}};
            auto matcher = Matcher::compile(info.matches, info.name + ".matches");
            if (matcher)
                entry.matcher = std::move(*matcher);
            else {
                entry.refused = matcher.error().text;
                log::warn("strategy '{}' of {} is not used: {}", info.name, artifact.path, entry.refused);
            }
            entry.enabled = effective(info).enabled;
            entries_.emplace(info.name, std::move(entry));
        }
    }
    usable_.clear();
    std::vector<const Matcher*> matchers;
    const auto& rules = settings.target_rules;
    for (const auto& [name, entry] : entries_) {
        // Who only says what an error is about heals nothing.
        const bool resolves = std::any_of(rules.begin(), rules.end(), [&](const TargetRule& rule) {
            return rule.resolver == name;
        });
        if (!entry.refused.empty() || !entry.enabled || resolves) continue;
        usable_.push_back(&entry);
        matchers.push_back(&entry.matcher);
    }
    index_.build(matchers);
}

Strategies::Effective Strategies::effective(const StrategyInfo& info) const {
    Effective e{info.priority, true, default_autonomy_, info.confidence_floor};
    if (const auto it = configured_.find(info.name); it != configured_.end()) {
        e.priority = it->second.priority.value_or(e.priority);
        e.enabled = it->second.enabled.value_or(e.enabled);
        e.autonomy = it->second.autonomy.value_or(e.autonomy);
        e.floor = it->second.floor.value_or(e.floor);
    }
    if (const auto it = overrides_.find(info.name); it != overrides_.end()) {
        e.priority = it->second.priority.value_or(e.priority);
        e.enabled = it->second.enabled.value_or(e.enabled);
        e.autonomy = it->second.autonomy.value_or(e.autonomy);
        e.floor = it->second.floor.value_or(e.floor);
    }
    return e;
}

Candidate Strategies::candidate(const Entry& entry) const {
    Candidate c;
    c.info = entry.info;
    const auto e = effective(entry.info);
    c.priority = e.priority;
    c.autonomy = e.autonomy;
    c.floor = e.floor;
    c.prior = entry.info.confidence;
    c.verify = verify_;
    if (const auto it = configured_.find(entry.info.name); it != configured_.end()) {
        c.config = it->second.config;
        if (it->second.verify_timeout) c.verify.timeout = *it->second.verify_timeout;
        if (it->second.stabilize) c.verify.stabilize = *it->second.stabilize;
        if (it->second.hold) c.verify.hold = *it->second.hold;
        if (it->second.timeout) c.info.timeout = *it->second.timeout;
        if (it->second.has_capabilities) {
            // The configuration narrows: what the artifact did not declare is not added.
            auto& declared = c.info.capabilities;
            std::erase_if(declared, [&](const std::string& d) {
                const auto& kept = it->second.capabilities;
                return std::none_of(kept.begin(), kept.end(), [&](const std::string& k) {
                    return glob_matches(k, d);
                });
            });
        }
    }
    return c;
}

std::vector<Candidate> Strategies::fitting(
    const Incident& incident,
    const json::object& target,
    const std::function<std::uint64_t(Duration)>& count_within
) const {
    std::vector<Candidate> out;
    std::vector<std::size_t> potential;
    index_.potential(incident, potential);
    for (const auto id : potential) {
        const auto& entry = *usable_[id];
        const auto threshold = entry.matcher.fits(incident, target);
        if (!threshold || count_within(threshold->window) < threshold->count) continue;
        out.push_back(candidate(entry));
    }
    return out;
}

const Strategies::Entry* Strategies::find(std::string_view name) const {
    const auto it = entries_.find(name);
    return it == entries_.end() ? nullptr : &it->second;
}

json::object Strategies::show(const Entry& entry) const {
    const auto e = effective(entry.info);
    const auto& i = entry.info;
    return json::object{
        {"name", i.name},
        {"version", i.version},
        {"summary", i.summary},
        {"kind", i.kind},
        {"artifact", i.artifact},
        {"build", i.build},
        {"enabled", e.enabled},
        {"priority", e.priority},
        {"declared_priority", i.priority},
        {"confidence", i.confidence},
        {"floor", e.floor},
        {"autonomy", to_string(e.autonomy)},
        {"risk", to_string(i.risk)},
        {"idempotent", i.idempotent},
        {"reversible", i.reversible},
        {"assess", i.has_assess},
        {"verify", i.has_verify},
        {"rollback", i.has_rollback},
        {"timeout_ms", i.timeout.count()},
        {"matches", i.matches},
        {"capabilities", json::array(i.capabilities.begin(), i.capabilities.end())},
        {"parameters", i.parameters},
        {"refused", entry.refused.empty() ? json::value(nullptr) : json::value(entry.refused)}};
}

json::array Strategies::list() const {
    json::array out;
    for (const auto& artifact : catalog_) {
        json::array strategies;
        for (const auto& info : artifact.strategies) {
            const auto* entry = find(info.name);
            strategies.push_back(
                entry && entry->info.artifact == artifact.path ? show(*entry)
                                                               : json::object{{"name", info.name}}
            );
        }
        out.push_back(json::object{
            {"path", artifact.path},
            {"kind", artifact.kind},
            {"build", artifact.build},
            {"state", to_string(artifact.state)},
            {"reason", artifact.reason.empty() ? json::value(nullptr) : json::value(artifact.reason)},
            {"crashes", artifact.crashes},
            {"last_output", to_valid_utf8(artifact.last_output)},
            {"strategies", std::move(strategies)}});
    }
    return out;
}

}  // namespace heal
