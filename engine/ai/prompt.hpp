// Puts a question together from what is known of a bug, so that it never exceeds the token budget: what
// matters most goes in first and whole, the rest is cut or left out. All that came from outside is made
// harmless (hostile.hpp) and redacted (redact.hpp) on the way in, and the whole once more at the end. Pure
// but for the random fence.
#pragma once

#include "ai/analysis.hpp"
#include "ai/hostile.hpp"
#include "ai/model.hpp"
#include "ai/redact.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace heal::ai {

/// What a text costs at most, in tokens: a third of its bytes, rounded up. Real ones have 3.5 to 4.5 bytes
/// per token for English and code; text of three-byte characters has about one per character.
std::int64_t tokens_of(std::string_view text);
/// Of a whole question: system, messages, schema, and 16 for each message's frame.
std::int64_t tokens_of(const ModelRequest& request);

struct CodeExcerpt {
    std::string file;
    unsigned first_line = 1, line = 0;  ///< line 0: not known
    std::string function, text;
    std::vector<std::string> history;  ///< who changed these lines and why, newest first
};

struct SolvedBug {
    std::string title, root_cause, fix_title, fix_approach;
};

struct LogLine {
    std::string message, stack_trace, context;
};

/// Raw: not yet made harmless or redacted.
struct QuestionInput {
    std::string error_type, pattern, message, service, environment, severity, level;
    std::int64_t occurrences = 0, last_hour = 0, last_day = 0;
    std::string stack_trace, revision;
    std::vector<CodeExcerpt> code;  ///< the most telling first
    std::vector<SolvedBug> similar;
    std::vector<LogLine> logs;  ///< newest first
};

struct Question {
    ModelRequest request;
    std::int64_t tokens = 0;  ///< tokens_of(request)
    json::array shown;        ///< what is in it: [{part, bytes, cut}]
};

/// The analysis of a bug.
/// @param budget  tokens of the whole question, at least `least_budget`
/// errc::invalid_input the budget; errc::internal, errc::invalid_input as of Redaction::take_out: nothing may
/// be sent.
result<Question> analysis_question(
    const QuestionInput& input, std::int64_t budget, const Fence& fence, Redaction& redaction
);
inline constexpr std::int64_t least_budget = 2048;

/// The same once more, after an answer that did not fit the form.
result<Question> repair_question(
    const QuestionInput& input,
    std::int64_t budget,
    const Fence& fence,
    Redaction& redaction,
    const std::string& answer,
    const std::vector<std::string>& faults
);

/// The edits of one suggestion as plain text. It holds the code and the suggestion, and nothing of the log:
/// what an attacker wrote into a log reaches this question only through the fields of the schema.
/// @param before     edits that did not apply; "": none
/// @param complaint  why they did not
result<Question> edits_question(
    const QuestionInput& input,
    const Suggestion& suggestion,
    std::int64_t budget,
    const Fence& fence,
    Redaction& redaction,
    const std::string& before = {},
    const std::string& complaint = {}
);

/// True when a text has at least one edit in a form that is asked for.
bool has_edits(std::string_view text);

}  // namespace heal::ai
