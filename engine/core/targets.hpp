// Which entry of the inventory an error is about. Locks, cooldowns, rates and the blast radius go by it, and
// it is what strategies act on. Pure. Text of a log can only choose among what the inventory names.
#pragma once

#include "core/matcher.hpp"

#include <string>
#include <vector>

namespace heal {

/// One entry of the inventory, as far as errors can name it.
struct TargetEntry {
    std::string name, environment;     ///< environment "": any
    std::vector<std::string> aliases;  ///< unit, container: what collectors call it
};

/// What a person says: errors that fit are about this entry, whoever reports them.
struct TargetRule {
    Matcher when;
    std::string target;  ///< "": none is named; what follows decides
    /// Strategy that is asked for the name; `target` is what holds when it does not know.
    std::string resolver{};
};

struct ResolvedTarget {
    std::string name;        ///< of the entry; the service's own name when none is known
    std::string how;         ///< "rule 2", "service", "unit cart.service", "" when it is not in the inventory
    std::string resolver{};  ///< strategy to be asked for a better one; "": none
};

class TargetResolver {
public:
    TargetResolver() = default;
    TargetResolver(std::vector<TargetEntry> entries, std::vector<TargetRule> rules)
        : entries_(std::move(entries)), rules_(std::move(rules)) {}

    /// In order: the first rule that fits, the entry named like the service, the entry whose unit or
    /// container is the service's name or stands in the record's labels (_SYSTEMD_UNIT, unit, container_name,
    /// container).
    /// @thread any
    ResolvedTarget resolve(const Incident& incident) const;
    /// Does the inventory have an entry of that name in this environment?
    bool knows(const std::string& name, const std::string& environment) const {
        return named(name, environment) != nullptr;
    }

private:
    const TargetEntry* named(std::string_view name, const std::string& environment) const;
    ResolvedTarget by_itself(const Incident& incident) const;
    const TargetEntry* called(std::string_view alias, const std::string& environment) const;
    std::vector<TargetEntry> entries_;
    std::vector<TargetRule> rules_;
};

}  // namespace heal
