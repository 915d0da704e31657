// The strategies as the engine sees them: what the artifacts declare, overlaid by the configuration and then
// by what people set at run time. Answers which of them fit an incident.
#pragma once

#include "core/matcher.hpp"
#include "core/router.hpp"
#include "runner/plugins.hpp"
#include "service/settings.hpp"
#include "store/healing_store.hpp"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace heal {

class Strategies {
public:
    Strategies() = default;
    Strategies(const Strategies&) = delete;  // the index points into the entries
    Strategies& operator=(const Strategies&) = delete;
    struct Entry {
        StrategyInfo info;
        Matcher matcher;
        bool enabled = true;  ///< after configuration and run-time settings
        std::string
            refused;  ///< why it may not be used although its artifact loaded: a bad match or configuration
    };

    /// After the catalog, the configuration or a run-time setting changed.
    void refresh(
        const std::vector<CatalogEntry>& catalog,
        const Settings& settings,
        std::vector<sql::StrategySetting> overrides
    );

    /// Those that fit by declared data, with priority, autonomy, floor and config set; confidence not yet.
    /// Disabled ones and those whose threshold isn't reached are not among them. `count_within(window)`:
    /// occurrences of this error in the window.
    std::vector<Candidate> fitting(
        const Incident& incident,
        const json::object& target,
        const std::function<std::uint64_t(Duration)>& count_within
    ) const;

    const Entry* find(std::string_view name) const;
    /// For the API: every artifact with state and reason, each strategy with its effective settings.
    json::array list() const;
    json::object show(const Entry& entry) const;
    Candidate candidate(const Entry& entry) const;

private:
    struct Effective {
        std::int64_t priority;
        bool enabled;
        Autonomy autonomy;
        double floor;
    };
    Effective effective(const StrategyInfo& info) const;

    std::map<std::string, Entry, std::less<>> entries_;
    std::vector<const Entry*> usable_;  ///< enabled and not refused, by name; ids of the index
    MatcherIndex index_;
    std::vector<CatalogEntry> catalog_;
    std::map<std::string, sql::StrategySetting> overrides_;
    std::map<std::string, StrategySettings> configured_;
    VerifyPolicy verify_;
    Autonomy default_autonomy_ = Autonomy::automatic;
};

/// Fills {target.a.b} in a declared capability from the inventory; one grant for each element of a list. A
/// placeholder without a value drops the capability: nothing is granted by accident.
std::vector<std::string> expand_capability(const std::string& declared, const json::object& target);

}  // namespace heal
