// What people do with kinds of error: see what rules would change before they are saved, see which kinds look
// like one, join and part them. Pure over what is read from the store.
#pragma once

#include "base/json.hpp"
#include "fingerprint/rules.hpp"
#include "store/healing_store.hpp"

namespace heal {

/// Rules from a request body: [{"name", "service", "component", "type", "message", "message_regex",
/// "fingerprint": [], "ignore_frames": []}].
result<std::vector<fingerprint::RuleSpec>> rules_from_json(const json::array& rules);
json::array to_json(const std::vector<fingerprint::RuleSpec>& rules);

/// Which groups would join and part, over stored samples: {"samples", "occurrences", "groups_before",
/// "groups_after", "merged", "split", "rules"}.
json::object preview_rules(const std::vector<sql::SampleText>& samples, const fingerprint::Rules& rules);

/// Suggested and decided merges of one service: {"merges": [{"canonical", "pattern", "fingerprints",
/// "reason", "by_people"}]}. A suggestion is never applied by heald itself: an action could hang on the id.
json::object merges_of(
    const std::string& service,
    const std::vector<sql::PatternRow>& patterns,
    const std::vector<sql::FingerprintDecision>& decisions
);

}  // namespace heal
