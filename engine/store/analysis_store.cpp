#include "store/analysis_store.hpp"

#include "store/queries.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace heal::sql {
namespace {

using std::string_view;

result<void> one_row(result<std::int64_t>&& outcome, string_view what, const std::string& id) {
    if (!outcome) return outcome.error();
    if (*outcome == 0)
        return fail(
            errc::not_found, fmt::format("there is no {} '{}'", what, to_valid_utf8(id.substr(0, 100)))
        );
    return {};
}

/// PostgreSQL takes no NUL in a text.
std::string clean(const std::string& text) {
    std::string out = to_valid_utf8(text);
    std::erase(out, '\0');
    return out;
}

json::value parsed(const std::string& text, json::value fallback) {
    auto value = parse_json(text.empty() ? "null" : text, "column");
    return value && !value->is_null() ? std::move(*value) : std::move(fallback);
}

json::value time_or_null(const Row& r, int column) {
    return r.is_null(column) ? json::value(nullptr) : json::value(to_rfc3339(Time{r.integer(column)}));
}

result<AiSums> sums(Database& db, const Statement& statement, std::initializer_list<Value> values) {
    AiSums s;
    auto outcome = db.query(statement, values, [&](const Row& r) { s = {r.integer(0), r.integer(1)}; });
    if (!outcome) return outcome.error();
    return s;
}

// SUM of BIGINT is NUMERIC in PostgreSQL.
#define HEAL_AI_SUMS                                                          \
    "SELECT CAST(COALESCE(SUM(input_tokens + output_tokens), 0) AS BIGINT), " \
    "CAST(COALESCE(SUM(cost_micros), 0) AS BIGINT) FROM ai_calls WHERE "

#define HEAL_SUGGESTION_COLUMNS                                                                          \
    "id, bug_id, rank, provider, model, root_cause, root_cause_hypothesis, bug_classification, "         \
    "estimated_impact, "                                                                                 \
    "fix_title, fix_description, fix_approach, code_diff, files_affected, confidence_score, reasoning, " \
    "breaking_changes, potential_side_effects, test_cases, prevention_tips, status, decided_by, "        \
    "decided_at, "                                                                                       \
    "created_at, source, edits, revision, evidence, evidence_score"

json::object suggestion_of(const Row& r) {
    return {
        {"id", r.text(0)},
        {"bug_id", r.text(1)},
        {"rank", r.integer(2)},
        {"provider", r.text(3)},
        {"model", r.text(4)},
        {"root_cause", r.text(5)},
        {"root_cause_hypothesis", r.text(6)},
        {"bug_classification", r.text(7)},
        {"estimated_impact", r.text(8)},
        {"fix_title", r.text(9)},
        {"fix_description", r.text(10)},
        {"fix_approach", r.text(11)},
        {"code_diff", r.text(12)},
        {"files_affected", parsed(r.text(13), json::array{})},
        {"confidence_score", r.real(14)},
        {"reasoning", r.text(15)},
        {"breaking_changes", parsed(r.text(16), json::array{})},
        {"potential_side_effects", parsed(r.text(17), json::array{})},
        {"test_cases", parsed(r.text(18), json::array{})},
        {"prevention_tips", parsed(r.text(19), json::array{})},
        {"status", r.text(20)},
        {"decided_by", r.text(21)},
        {"decided_at", time_or_null(r, 22)},
        {"created_at", to_rfc3339(Time{r.integer(23)})},
        {"source", r.text(24)},
        {"edits", r.text(25)},
        {"revision", r.text(26)},
        {"evidence", parsed(r.text(27), json::object{})},
        {"evidence_score", r.integer(28)}};
}

}  // namespace

// --- questions

result<void> insert_ai_call(Database& db, const AiCall& c) {
    constexpr Statement insert{
        "insert ai_calls",
        "INSERT INTO ai_calls (id, at, day, purpose, provider, model, bug_id, outcome, input_tokens, "
        "cached_tokens, output_tokens, "
        "cost_micros, took_us, tries, redactions, error) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, "
        "$11, $12, $13, $14, $15, $16)"};
    const std::string error = clean(c.error);
    return db.execute(
        insert,
        {string_view{c.id},
         c.at.us,
         string_view{c.day},
         string_view{c.purpose},
         string_view{c.provider},
         string_view{c.model},
         string_view{c.bug},
         string_view{c.outcome},
         c.input_tokens,
         c.cached_tokens,
         c.output_tokens,
         c.cost_micros,
         c.took.count(),
         static_cast<std::int64_t>(c.tries),
         string_view{c.redactions},
         string_view{error}}
    );
}

result<void> settle_ai_call(Database& db, const AiCall& c) {
    constexpr Statement settle{
        "settle ai_calls",
        "UPDATE ai_calls SET outcome = $2, input_tokens = $3, cached_tokens = $4, output_tokens = $5, "
        "cost_micros = $6, took_us = $7, tries = "
        "$8, redactions = $9, error = $10 WHERE id = $1"};
    const std::string error = clean(c.error);
    return one_row(
        db.run(
            settle,
            {string_view{c.id},
             string_view{c.outcome},
             c.input_tokens,
             c.cached_tokens,
             c.output_tokens,
             c.cost_micros,
             c.took.count(),
             static_cast<std::int64_t>(c.tries),
             string_view{c.redactions},
             string_view{error}}
        ),
        "question",
        c.id
    );
}

result<AiSums> ai_spent_on(Database& db, const std::string& day) {
    constexpr Statement select{"sum ai_calls of day", HEAL_AI_SUMS "day = $1"};
    return sums(db, select, {string_view{day}});
}

result<AiSums> ai_spent_for(Database& db, const std::string& bug) {
    constexpr Statement select{"sum ai_calls of bug", HEAL_AI_SUMS "bug_id = $1"};
    return sums(db, select, {string_view{bug}});
}

result<AiSums> ai_spent_by(Database& db, const std::string& day, const std::string& provider) {
    constexpr Statement select{"sum ai_calls of provider", HEAL_AI_SUMS "day = $1 AND provider = $2"};
    return sums(db, select, {string_view{day}, string_view{provider}});
}

result<std::vector<AiCallFact>> ai_calls_of(Database& db, const std::string& provider, Time from) {
    constexpr Statement select{
        "select ai_calls of provider",
        "SELECT at, outcome, error FROM ai_calls WHERE provider = $1 AND at >= $2 ORDER BY at DESC, id DESC "
        "LIMIT 100"};
    std::vector<AiCallFact> facts;
    HEAL_TRY(db.query(select, {string_view{provider}, from.us}, [&](const Row& r) {
        facts.push_back({Time{r.integer(0)}, r.text(1), r.text(2)});
    }));
    return facts;
}

result<json::array> ai_figures(Database& db, const std::string& day) {
    constexpr Statement select{
        "figures of ai_calls",
        "SELECT provider, model, outcome, COUNT(*), CAST(SUM(input_tokens) AS BIGINT), "
        "CAST(SUM(cached_tokens) AS BIGINT), "
        "CAST(SUM(output_tokens) AS BIGINT), CAST(SUM(cost_micros) AS BIGINT) FROM ai_calls WHERE day = $1 "
        "GROUP BY provider, model, outcome "
        "ORDER BY provider, model, outcome"};
    json::array items;
    HEAL_TRY(db.query(select, {string_view{day}}, [&](const Row& r) {
        if (items.empty() || string_at(items.back().as_object(), "provider") != r.text(0) ||
            string_at(items.back().as_object(), "model") != r.text(1)) {
            items.push_back(json::object{
                {"provider", r.text(0)},
                {"model", r.text(1)},
                {"calls", 0},
                {"answered", 0},
                {"invalid", 0},
                {"refused", 0},
                {"failed", 0},
                {"limited", 0},
                {"asked", 0},
                {"input_tokens", 0},
                {"cached_tokens", 0},
                {"output_tokens", 0},
                {"cost_micros", 0}});
        }
        auto& o = items.back().as_object();
        const auto add = [&](const std::string& key, std::int64_t n) { o[key] = int_at(o, key) + n; };
        add("calls", r.integer(3));
        add(r.text(2), r.integer(3));
        add("input_tokens", r.integer(4));
        add("cached_tokens", r.integer(5));
        add("output_tokens", r.integer(6));
        add("cost_micros", r.integer(7));
    }));
    return items;
}

result<json::array> ai_calls(Database& db, const std::string& bug, std::int64_t limit) {
    constexpr Statement select{
        "list ai_calls",
        "SELECT id, at, purpose, provider, model, outcome, input_tokens, cached_tokens, output_tokens, "
        "cost_micros, took_us, tries, "
        "redactions, error FROM ai_calls WHERE bug_id = $1 ORDER BY at DESC, id DESC LIMIT $2"};
    json::array items;
    HEAL_TRY(db.query(select, {string_view{bug}, limit}, [&](const Row& r) {
        items.push_back(json::object{
            {"id", r.text(0)},
            {"at", to_rfc3339(Time{r.integer(1)})},
            {"purpose", r.text(2)},
            {"provider", r.text(3)},
            {"model", r.text(4)},
            {"outcome", r.text(5)},
            {"input_tokens", r.integer(6)},
            {"cached_tokens", r.integer(7)},
            {"output_tokens", r.integer(8)},
            {"cost_micros", r.integer(9)},
            {"took_us", r.integer(10)},
            {"tries", r.integer(11)},
            {"redactions", parsed(r.text(12), json::object{})},
            {"error", r.text(13)}});
    }));
    return items;
}

// --- answers kept

result<std::optional<AiAnswer>> use_ai_answer(Database& db, const std::string& key, Time from, Time now) {
    constexpr Statement select{
        "select ai_answers",
        "SELECT answer_key, fingerprint, revision, provider, model, answer FROM ai_answers WHERE answer_key "
        "= $1 AND created_at >= $2"};
    constexpr Statement use{
        "use ai_answers", "UPDATE ai_answers SET used_at = $2, uses = uses + 1 WHERE answer_key = $1"};
    std::optional<AiAnswer> found;
    HEAL_TRY(db.query(select, {string_view{key}, from.us}, [&](const Row& r) {
        found = AiAnswer{r.text(0), r.text(1), r.text(2), r.text(3), r.text(4), r.text(5)};
    }));
    if (found) HEAL_TRY(db.run(use, {string_view{key}, now.us}));
    return found;
}

result<void> save_ai_answer(Database& db, const AiAnswer& a, Time now) {
    constexpr Statement save{
        "save ai_answers",
        "INSERT INTO ai_answers (answer_key, fingerprint, revision, provider, model, answer, created_at, "
        "used_at, uses) VALUES ($1, $2, $3, "
        "$4, $5, $6, $7, $7, 0) ON CONFLICT (answer_key) DO UPDATE SET revision = excluded.revision, answer "
        "= excluded.answer, created_at = "
        "excluded.created_at, used_at = excluded.used_at"};
    const std::string answer = clean(a.answer);
    return db.execute(
        save,
        {string_view{a.key},
         string_view{a.fingerprint},
         string_view{a.revision},
         string_view{a.provider},
         string_view{a.model},
         string_view{answer},
         now.us}
    );
}

result<std::int64_t> forget_ai_answers(Database& db, Time before) {
    constexpr Statement forget{"forget ai_answers", "DELETE FROM ai_answers WHERE used_at < $1"};
    return db.run(forget, {before.us});
}

// --- analyses and suggestions

result<void> insert_analysis(Database& db, const AnalysisRow& a) {
    constexpr Statement insert{
        "insert bug_analyses",
        "INSERT INTO bug_analyses (id, bug_id, at, source, provider, model, revision, root_cause, "
        "root_cause_hypothesis, bug_classification, "
        "estimated_impact, prevention_tips, comparison, context) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, "
        "$10, $11, $12, $13, $14)"};
    const std::string cause = clean(a.root_cause), hypothesis = clean(a.root_cause_hypothesis),
                      impact = clean(a.estimated_impact), tips = json::serialize(a.prevention_tips),
                      comparison = json::serialize(a.comparison), context = json::serialize(a.context);
    return db.execute(
        insert,
        {string_view{a.id},
         string_view{a.bug},
         a.at.us,
         string_view{a.source},
         string_view{a.provider},
         string_view{a.model},
         string_view{a.revision},
         string_view{cause},
         string_view{hypothesis},
         string_view{a.bug_classification},
         string_view{impact},
         string_view{tips},
         string_view{comparison},
         string_view{context}}
    );
}

result<json::array> list_analyses(Database& db, const std::string& bug, std::int64_t limit) {
    constexpr Statement select{
        "list bug_analyses",
        "SELECT id, at, source, provider, model, revision, root_cause, root_cause_hypothesis, "
        "bug_classification, estimated_impact, "
        "prevention_tips, comparison, context FROM bug_analyses WHERE bug_id = $1 ORDER BY at DESC, id DESC "
        "LIMIT $2"};
    json::array items;
    HEAL_TRY(db.query(select, {string_view{bug}, limit}, [&](const Row& r) {
        items.push_back(json::object{
            {"id", r.text(0)},
            {"at", to_rfc3339(Time{r.integer(1)})},
            {"source", r.text(2)},
            {"provider", r.text(3)},
            {"model", r.text(4)},
            {"revision", r.text(5)},
            {"root_cause", r.text(6)},
            {"root_cause_hypothesis", r.text(7)},
            {"bug_classification", r.text(8)},
            {"estimated_impact", r.text(9)},
            {"prevention_tips", parsed(r.text(10), json::array{})},
            {"comparison", parsed(r.text(11), json::object{})},
            {"context", parsed(r.text(12), json::object{})}});
    }));
    return items;
}

result<void> replace_suggestions(
    Database& db, const std::string& bug, const std::vector<SuggestionRow>& rows, Time now
) {
    constexpr Statement supersede{
        "supersede ai_fix_suggestions",
        "UPDATE ai_fix_suggestions SET status = 'superseded' WHERE bug_id = $1 AND status = 'suggested'"};
    constexpr Statement insert{
        "insert ai_fix_suggestions",
        "INSERT INTO ai_fix_suggestions (" HEAL_SUGGESTION_COLUMNS
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, "
        "$20, 'suggested', '', NULL, $21, "
        "$22, $23, $24, '{}', 0)"};
    HEAL_TRY(db.run(supersede, {string_view{bug}}));
    for (const auto& s : rows) {
        const std::string cause = clean(s.root_cause), hypothesis = clean(s.root_cause_hypothesis),
                          impact = clean(s.estimated_impact), title = clean(s.fix_title),
                          description = clean(s.fix_description), approach = clean(s.fix_approach),
                          reasoning = clean(s.reasoning), edits = clean(s.edits),
                          files = json::serialize(s.files_affected),
                          breaking = json::serialize(s.breaking_changes),
                          effects = json::serialize(s.potential_side_effects),
                          tests = json::serialize(s.test_cases), tips = json::serialize(s.prevention_tips);
        HEAL_TRY(db.run(
            insert,
            {string_view{s.id},
             string_view{bug},
             static_cast<std::int64_t>(s.rank),
             string_view{s.provider},
             string_view{s.model},
             string_view{cause},
             string_view{hypothesis},
             string_view{s.bug_classification},
             string_view{impact},
             string_view{title},
             string_view{description},
             string_view{approach},
             string_view{edits},  // until the pipeline has made the patch of them
             string_view{files},
             std::clamp(s.confidence_score, 0.0, 1.0),
             string_view{reasoning},
             string_view{breaking},
             string_view{effects},
             string_view{tests},
             string_view{tips},
             now.us,
             string_view{s.source},
             string_view{edits},
             string_view{s.revision}}
        ));
    }
    return {};
}

result<json::array> list_suggestions(Database& db, const std::string& bug, bool with_superseded) {
    constexpr Statement select{
        "list ai_fix_suggestions",
        "SELECT " HEAL_SUGGESTION_COLUMNS
        " FROM ai_fix_suggestions WHERE bug_id = $1 AND ($2 = 1 OR status <> 'superseded') ORDER BY "
        "evidence_score DESC, rank, created_at "
        "DESC, id LIMIT 200"};
    json::array items;
    HEAL_TRY(db.query(select, {string_view{bug}, std::int64_t{with_superseded ? 1 : 0}}, [&](const Row& r) {
        items.push_back(suggestion_of(r));
    }));
    return items;
}

result<json::object> show_suggestion(Database& db, const std::string& id) {
    constexpr Statement select{
        "select ai_fix_suggestions",
        "SELECT " HEAL_SUGGESTION_COLUMNS " FROM ai_fix_suggestions WHERE id = $1"};
    std::optional<json::object> found;
    HEAL_TRY(db.query(select, {string_view{id}}, [&](const Row& r) { found = suggestion_of(r); }));
    if (!found)
        return fail(
            errc::not_found, fmt::format("there is no suggestion '{}'", to_valid_utf8(id.substr(0, 100)))
        );
    return std::move(*found);
}

result<void> set_suggestion_edits(
    Database& db, const std::string& id, const std::string& edits, const std::string& code_diff
) {
    constexpr Statement set{
        "set edits of ai_fix_suggestions",
        "UPDATE ai_fix_suggestions SET edits = $2, code_diff = $3 WHERE id = $1"};
    const std::string text = clean(edits), diff = clean(code_diff);
    return one_row(db.run(set, {string_view{id}, string_view{text}, string_view{diff}}), "suggestion", id);
}

result<void> set_suggestion_evidence(
    Database& db, const std::string& id, const json::object& evidence, std::int64_t score
) {
    constexpr Statement set{
        "set evidence of ai_fix_suggestions",
        "UPDATE ai_fix_suggestions SET evidence = $2, evidence_score = $3 WHERE id = $1"};
    const std::string text = json::serialize(evidence);
    return one_row(db.run(set, {string_view{id}, string_view{text}, score}), "suggestion", id);
}

result<void> set_suggestion_status(
    Database& db, const std::string& id, const std::string& status, const std::string& by, Time now
) {
    constexpr Statement set{
        "set status of ai_fix_suggestions",
        "UPDATE ai_fix_suggestions SET status = $2, decided_by = $3, decided_at = $4 WHERE id = $1"};
    const std::string who = clean(by);
    return one_row(
        db.run(set, {string_view{id}, string_view{status}, string_view{who}, now.us}), "suggestion", id
    );
}

// --- what a question is made of

result<AnalysisInput> load_analysis_input(
    Database& db, const std::string& id_or_code, unsigned log_lines, Time now
) {
    constexpr Statement kind{
        "fingerprint of question",
        "SELECT pattern, log_level, occurrence_count FROM error_fingerprints WHERE id = $1"};
    constexpr Statement counts{
        "counts of question",
        "SELECT CAST(COALESCE(SUM(count), 0) AS BIGINT) FROM fingerprint_counts WHERE fingerprint = $1 AND "
        "resolution = $2 AND bucket_at >= "
        "$3"};
    constexpr Statement lines{
        "lines of question",
        "SELECT message, stack_trace, context FROM log_entries WHERE fingerprint = $1 ORDER BY received_at "
        "DESC, id DESC LIMIT $2"};
    constexpr Statement solved{
        "similar solved bugs",
        "SELECT b.title, COALESCE(s.root_cause, ''), COALESCE(s.fix_title, ''), COALESCE(s.fix_approach, '') "
        "FROM system_bugs b LEFT JOIN "
        "ai_fix_suggestions s ON s.bug_id = b.id AND s.status IN ('applied', 'approved') WHERE b.status IN "
        "('fixed', 'closed') AND b.fixed_at "
        "IS NOT NULL AND b.error_type = $1 AND b.error_type <> '' AND b.id <> $2 ORDER BY CASE WHEN "
        "b.service_name = $3 THEN 0 ELSE 1 END, "
        "b.fixed_at DESC, b.id, s.rank LIMIT 3"};
    AnalysisInput in;
    auto bug = show_bug(db, id_or_code);
    if (!bug) return bug.error();
    in.bug = std::move(*bug);
    in.bug.erase("logs");
    in.bug.erase("history");
    const std::string fingerprint{string_at(in.bug, "fingerprint")}, id{string_at(in.bug, "id")},
        type{string_at(in.bug, "error_type")}, service{string_at(in.bug, "service_name")};
    in.occurrences = int_at(in.bug, "occurrence_count");
    HEAL_TRY(db.query(kind, {string_view{fingerprint}}, [&](const Row& r) {
        in.pattern = r.text(0);
        in.level = r.text(1);
        in.occurrences = std::max(in.occurrences, r.integer(2));
    }));
    constexpr std::int64_t hour_us = 3'600'000'000LL;
    HEAL_TRY(db.query(
        counts,
        {string_view{fingerprint}, string_view{"minute"}, now.us - hour_us},
        [&](const Row& r) { in.last_hour = r.integer(0); }
    ));
    HEAL_TRY(db.query(
        counts,
        {string_view{fingerprint}, string_view{"hour"}, now.us - 24 * hour_us},
        [&](const Row& r) { in.last_day = r.integer(0); }
    ));
    HEAL_TRY(db.query(
        lines,
        {string_view{fingerprint}, static_cast<std::int64_t>(log_lines)},
        [&](const Row& r) {
            in.logs.push_back({r.text(0), r.text(1), r.text(2)});
        }
    ));
    HEAL_TRY(db.query(solved, {string_view{type}, string_view{id}, string_view{service}}, [&](const Row& r) {
        in.similar.push_back({r.text(0), r.text(1), r.text(2), r.text(3)});
    }));
    return in;
}

result<std::vector<std::string>> bugs_without_analysis(Database& db, Time rules_before, std::int64_t limit) {
    constexpr Statement select{
        "bugs without analysis",
        "SELECT b.id FROM system_bugs b WHERE b.status IN ('detected', 'reopened', 'analyzed') AND "
        "b.merged_into IS NULL AND NOT EXISTS "
        "(SELECT 1 FROM bug_analyses a WHERE a.bug_id = b.id AND (a.source <> 'rules' OR a.at >= $1) AND "
        "(b.status <> 'reopened' OR a.at > "
        "(SELECT COALESCE(MAX(h.at), 0) FROM bug_history h WHERE h.bug_id = b.id AND h.to_status = "
        "'reopened'))) AND (b.status <> 'analyzed' "
        "OR EXISTS (SELECT 1 FROM bug_analyses r WHERE r.bug_id = b.id)) ORDER BY b.detected_at, b.id LIMIT "
        "$2"};
    std::vector<std::string> ids;
    HEAL_TRY(db.query(select, {rules_before.us, limit}, [&](const Row& r) { ids.push_back(r.text(0)); }));
    return ids;
}

}  // namespace heal::sql
