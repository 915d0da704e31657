// Statements of the analyst: questions to models with what they cost, answers kept for the next time,
// analyses, suggestions, and what a question is made of. All run inside a job of Store; errors are those of
// Database::run.
#pragma once

#include "base/clock.hpp"
#include "base/json.hpp"
#include "store/database.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace heal::sql {

// --- questions

/// Tokens and money (millionths) of a question: reserved while it is 'asked', spent afterwards.
struct AiCall {
    std::string id;
    Time at;
    std::string day;      ///< "2026-11-28", UTC
    std::string purpose;  ///< "analysis", "repair", "edits" or "mend"
    std::string provider, model, bug;
    std::string outcome = "asked";  ///< asked, answered, invalid, refused, failed, limited
    std::int64_t input_tokens = 0, cached_tokens = 0, output_tokens = 0, cost_micros = 0;
    Duration took{0};
    unsigned tries = 0;
    std::string redactions = "{}";  ///< JSON: what was taken out of it, by kind
    std::string error;
};
result<void> insert_ai_call(Database& db, const AiCall& call);
/// Everything but id, at, day, purpose, provider, model and bug. errc::not_found.
result<void> settle_ai_call(Database& db, const AiCall& call);

struct AiSums {
    std::int64_t tokens = 0, cost_micros = 0;
};
/// Spent and reserved: of all providers on a day, of a bug ever, of a provider on a day. Cached tokens count
/// as tokens.
result<AiSums> ai_spent_on(Database& db, const std::string& day);
result<AiSums> ai_spent_for(Database& db, const std::string& bug);
result<AiSums> ai_spent_by(Database& db, const std::string& day, const std::string& provider);

struct AiCallFact {
    Time at;
    std::string outcome, error;
};
/// Of a provider since `from`, newest first, at most 100.
result<std::vector<AiCallFact>> ai_calls_of(Database& db, const std::string& provider, Time from);

/// By provider and model on a day: {provider, model, calls, answered, invalid, refused, failed, limited,
/// asked, input_tokens, …, cost_micros}.
result<json::array> ai_figures(Database& db, const std::string& day);
/// The newest questions, for people: with redactions and errors.
result<json::array> ai_calls(Database& db, const std::string& bug, std::int64_t limit);

// --- answers kept

struct AiAnswer {
    std::string key, fingerprint, revision, provider, model;
    std::string answer;  ///< JSON
};
/// Counts the use. nullopt: none, or older than `from`.
result<std::optional<AiAnswer>> use_ai_answer(Database& db, const std::string& key, Time from, Time now);
result<void> save_ai_answer(Database& db, const AiAnswer& answer, Time now);
/// Those not used since `before`; returns how many.
result<std::int64_t> forget_ai_answers(Database& db, Time before);

// --- analyses and suggestions

struct AnalysisRow {
    std::string id, bug;
    Time at;
    std::string source;  ///< model, rules, cache, pattern
    std::string provider, model, revision;
    std::string root_cause, root_cause_hypothesis, bug_classification, estimated_impact;
    json::array prevention_tips;
    json::object comparison, context;
};
result<void> insert_analysis(Database& db, const AnalysisRow& analysis);
/// Newest first, as JSON in the names of the columns, at most `limit`.
result<json::array> list_analyses(Database& db, const std::string& bug, std::int64_t limit);

struct SuggestionRow {
    std::string id, bug;
    unsigned rank = 1;
    std::string provider, model;
    std::string root_cause, root_cause_hypothesis, bug_classification, estimated_impact;
    std::string fix_title, fix_description, fix_approach;
    json::array files_affected;
    double confidence_score = 0;
    std::string reasoning;
    json::array breaking_changes, potential_side_effects, test_cases, prevention_tips;
    std::string source = "model";  ///< model, pattern or a person
    std::string edits;             ///< as the model wrote them (vcs/edit.hpp); "": none
    std::string revision;          ///< the commit they are for; "": no code was at hand
};
/// Older ones of the bug that are only 'suggested' are 'superseded' first.
result<void> replace_suggestions(
    Database& db, const std::string& bug, const std::vector<SuggestionRow>& rows, Time now
);
/// Best first: by evidence gathered here, then rank; superseded ones only when asked for.
result<json::array> list_suggestions(Database& db, const std::string& bug, bool with_superseded);
/// errc::not_found.
result<json::object> show_suggestion(Database& db, const std::string& id);
/// Edits, and the patch that people are shown. errc::not_found.
result<void> set_suggestion_edits(
    Database& db, const std::string& id, const std::string& edits, const std::string& code_diff
);
/// errc::not_found.
result<void> set_suggestion_evidence(
    Database& db, const std::string& id, const json::object& evidence, std::int64_t score
);
/// suggested, approved, rejected, applied or superseded. errc::not_found; errc::conflict another word.
result<void> set_suggestion_status(
    Database& db, const std::string& id, const std::string& status, const std::string& by, Time now
);

// --- what a question is made of

struct AnalysisInput {
    json::object bug;  ///< as show_bug, without logs and history
    std::string pattern, level;
    std::int64_t last_hour = 0, last_day = 0, occurrences = 0;
    struct Line {
        std::string message, stack_trace, context;
    };
    std::vector<Line> logs;  ///< newest first
    struct Solved {
        std::string title, root_cause, fix_title, fix_approach;
    };
    std::vector<Solved>
        similar;  ///< fixed bugs of the same error type, those of the service first, at most 3
};
/// errc::not_found.
result<AnalysisInput> load_analysis_input(
    Database& db, const std::string& id_or_code, unsigned log_lines, Time now
);

/// Open bugs that nothing was found out about since they were detected or came back, oldest first: ids.
/// @param rules_before  an analysis by rules older than this does not count: a model is tried again; {0}: it
/// counts
result<std::vector<std::string>> bugs_without_analysis(Database& db, Time rules_before, std::int64_t limit);

}  // namespace heal::sql
