#include "core/targets.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace heal {
namespace {

// As journald, Promtail, Docker and Fluent Bit call them.
constexpr const char* labels[] = {
    "_SYSTEMD_UNIT", "systemd_unit", "unit", "container_name", "container", "CONTAINER_NAME"};

bool lives_in(const TargetEntry& entry, const std::string& environment) {
    return entry.environment.empty() || entry.environment == environment;
}

}  // namespace

const TargetEntry* TargetResolver::named(std::string_view name, const std::string& environment) const {
    const auto it = std::find_if(entries_.begin(), entries_.end(), [&](const TargetEntry& e) {
        return e.name == name && lives_in(e, environment);
    });
    return it == entries_.end() ? nullptr : &*it;
}

const TargetEntry* TargetResolver::called(std::string_view alias, const std::string& environment) const {
    if (alias.starts_with('/')) alias.remove_prefix(1);  // Docker's own way to write names
    if (alias.empty()) return nullptr;
    const auto it = std::find_if(entries_.begin(), entries_.end(), [&](const TargetEntry& e) {
        return lives_in(e, environment) &&
               std::any_of(e.aliases.begin(), e.aliases.end(), [&](const auto& a) {
                   return a == alias || (a.ends_with(".service") && a.substr(0, a.size() - 8) == alias);
               });
    });
    return it == entries_.end() ? nullptr : &*it;
}

ResolvedTarget TargetResolver::resolve(const Incident& incident) const {
    static const json::object nothing;
    for (std::size_t i = 0; i < rules_.size(); ++i) {
        const auto& rule = rules_[i];
        const bool there = named(rule.target, incident.environment) != nullptr;
        if ((!there && rule.resolver.empty()) || !rule.when.fits(incident, nothing)) continue;
        if (there) return {rule.target, fmt::format("rule {}", i + 1), rule.resolver};
        auto otherwise = by_itself(incident);
        otherwise.resolver = rule.resolver;
        return otherwise;
    }
    return by_itself(incident);
}

ResolvedTarget TargetResolver::by_itself(const Incident& incident) const {
    const auto& service = incident.service_name;
    if (const auto* entry = named(service, incident.environment)) return {entry->name, "service"};
    if (const auto* entry = called(service, incident.environment))
        return {entry->name, "service is its unit"};
    if (!incident.record.context.empty()) {
        const auto parsed = parse_json(incident.record.context, "context");
        if (parsed && parsed->is_object()) {
            for (const char* label : labels) {
                const auto value = string_at(parsed->get_object(), label);
                if (const auto* entry = called(value, incident.environment))
                    return {entry->name, fmt::format("{} {}", label, value)};
            }
        }
    }
    return {service, ""};
}

}  // namespace heal
