// What an analysis is (M5): its schema for models, the check of what they send, and the analysis by rules for
// when none answers. Pure. Edits are not part of it: code within JSON is worse code (docs/adr/0041), so they
// are asked for as plain text afterwards.
#pragma once

#include "base/error.hpp"
#include "base/json.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace heal::ai {

struct Suggestion {
    std::string title, description, approach;
    std::vector<std::string> files;
    double confidence = 0;  ///< the model's own word; stored, never used to rank or decide
    std::string reasoning;
    std::vector<std::string> breaking_changes, side_effects, test_cases;
};

struct Analysis {
    std::string root_cause, root_cause_hypothesis, bug_classification, estimated_impact;
    std::vector<Suggestion> suggestions;
    std::vector<std::string> prevention_tips;
};

/// Version of question and schema: a stored answer of another form is not used.
inline constexpr const char* analysis_form = "analysis/1";
inline constexpr const char* analysis_schema_name = "bug_analysis";

/// The types of M3, as a model may name them.
const std::vector<std::string>& bug_types();

/// Strict: every property required, none besides. No bounds of numbers and arrays, which not every provider
/// takes; check_analysis() has them.
const json::object& analysis_schema();

/// Reads a model's answer; a code fence or words around the one JSON object are tolerated. Each fault names
/// its path, such as "fix_suggestions[1].confidence_score: must be a number from 0 to 1". Faults empty: `ret`
/// is filled.
std::vector<std::string> check_analysis(std::string_view text, Analysis& ret);

json::object to_json(const Analysis& analysis);
/// Of what to_json() made, as the store keeps it. errc::corrupt.
result<Analysis> analysis_of(const json::object& stored);

/// What the rules look at.
struct BugFacts {
    std::string error_type, message, pattern, stack_trace, level, service, severity, bug_type;
    std::int64_t occurrences = 0;
};
/// From type, message and trace alone; without suggestions, since no rule knows the code.
Analysis analyze_by_rules(const BugFacts& facts);

/// How far several analyses say the same: {"models": [{provider, model, bug_classification, files}],
/// "same_classification": n, "shared_files": […], "agreement": 0 … 1}. Agreement: share of pairs with the
/// same classification, and of files named by more than one, half each.
struct Opinion {
    std::string provider, model;
    const Analysis* analysis = nullptr;
};
json::object compare(const std::vector<Opinion>& opinions);

}  // namespace heal::ai
