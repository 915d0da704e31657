#include "store/fix_store.hpp"

#include "base/id.hpp"
#include "store/percentiles.hpp"

#include <algorithm>
#include <map>

namespace heal::sql {
namespace {

using std::string_view;

#define HEAL_RUN_COLUMNS                                                                                  \
    "id, bug_id, suggestion_id, fingerprint, service_name, environment, repository, revision, step, "     \
    "outcome, reason, patch, patch_hash, branch, commit_id, request_url, data, engine_us, requested_by, " \
    "node, created_at, updated_at, next_at, ended_at"

constexpr Statement insert_run{
    "insert patch_runs",
    "INSERT INTO patch_runs (" HEAL_RUN_COLUMNS
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, "
    "$21, $22, $23, $24)"};
constexpr Statement open_of_suggestion{
    "open patch_runs of a suggestion",
    "SELECT COUNT(*) FROM patch_runs WHERE bug_id = $1 AND suggestion_id = $2 AND outcome = ''"};
constexpr Statement update_run{
    "update patch_runs",
    "UPDATE patch_runs SET revision = $3, step = $4, outcome = $5, reason = $6, patch = $7, patch_hash = $8, "
    "branch = $9, "
    "commit_id = $10, request_url = $11, data = $12, engine_us = $13, updated_at = $14, next_at = $15, "
    "ended_at = $16 "
    "WHERE id = $1 AND node = $2"};
constexpr Statement select_run{
    "patch_runs by id", "SELECT " HEAL_RUN_COLUMNS " FROM patch_runs WHERE id = $1"};
constexpr Statement select_of_bug{
    "patch_runs of a bug",
    "SELECT " HEAL_RUN_COLUMNS
    " FROM patch_runs WHERE bug_id = $1 ORDER BY created_at DESC, id DESC LIMIT 100"};
// A run whose machine has ended but whose clearing away was cut short is still open: ended_at is written
// last.
constexpr Statement select_left{
    "patch_runs of nodes that are gone",
    "SELECT id, repository FROM patch_runs WHERE ended_at IS NULL AND node <> $1 AND node NOT IN (SELECT "
    "node FROM "
    "cluster_nodes WHERE state = 'alive') ORDER BY created_at, id"};
constexpr Statement claim_run{
    "take patch_runs", "UPDATE patch_runs SET node = $2 WHERE id = $1 AND node = $3"};
constexpr Statement select_mine{
    "open patch_runs",
    "SELECT " HEAL_RUN_COLUMNS
    " FROM patch_runs WHERE ended_at IS NULL AND node = $1 ORDER BY created_at, id"};

#define HEAL_SUGGESTION_COLUMNS                                                                           \
    "id, bug_id, source, fix_title, fix_description, fix_approach, edits, revision, status, test_cases, " \
    "rank, evidence_score"
constexpr Statement select_suggestion{
    "ai_fix_suggestions by id", "SELECT " HEAL_SUGGESTION_COLUMNS " FROM ai_fix_suggestions WHERE id = $1"};
constexpr Statement select_suggestions{
    "standing ai_fix_suggestions",
    "SELECT " HEAL_SUGGESTION_COLUMNS
    " FROM ai_fix_suggestions WHERE bug_id = $1 AND status IN ('suggested', 'approved') ORDER BY "
    "evidence_score DESC, rank, id"};
constexpr Statement decide{
    "decide ai_fix_suggestions",
    "UPDATE ai_fix_suggestions SET status = $2, code_diff = CASE WHEN $3 = '' THEN code_diff ELSE $3 END, "
    "decided_by = $4, "
    "decided_at = $5 WHERE id = $1"};
constexpr Statement insert_suggestion{
    "insert ai_fix_suggestions",
    "INSERT INTO ai_fix_suggestions (id, bug_id, rank, provider, model, root_cause, root_cause_hypothesis, "
    "bug_classification, "
    "estimated_impact, fix_title, fix_description, fix_approach, code_diff, files_affected, "
    "confidence_score, reasoning, "
    "breaking_changes, potential_side_effects, test_cases, prevention_tips, status, decided_by, created_at, "
    "source, edits, "
    "revision) VALUES ($1, $2, 0, '', '', '', '', '', '', $3, $4, 'what fixed this kind of error before', "
    "'', $5, 0, '', '[]', "
    "'[]', '[]', '[]', 'suggested', '', $6, 'pattern', $7, $8)"};

constexpr Statement update_fix{
    "update auto_fix_history",
    "UPDATE auto_fix_history SET status = $2, branch = $3, commit_id = $4, pull_request_url = $5, error = "
    "$6, deployed_at = $7, "
    "rolled_back_at = $8, held_at = $9, ended_at = $10, verdict = $11 WHERE run_id = $1"};
constexpr Statement insert_fix{
    "insert auto_fix_history",
    "INSERT INTO auto_fix_history (id, bug_id, suggestion_id, status, branch, commit_id, pull_request_url, "
    "tests_passed, "
    "test_output, error, performed_by, started_at, deployed_at, rolled_back_at, ended_at, run_id, held_at, "
    "verdict) VALUES ($1, $2, $3, "
    "$4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"};
constexpr Statement count_fixes{
    "figures of auto_fix_history",
    "SELECT h.verdict, h.status, b.service_name, h.started_at, h.ended_at, h.deployed_at FROM "
    "auto_fix_history h JOIN "
    "system_bugs b ON b.id = h.bug_id WHERE h.started_at >= $1 AND h.started_at < $2"};
constexpr Statement count_trials{
    "outcomes of patch_runs",
    "SELECT outcome, COUNT(*) FROM patch_runs WHERE created_at >= $1 AND created_at < $2 GROUP BY outcome"};

#define HEAL_PATTERN_COLUMNS                                                                          \
    "id, fingerprint, service_name, error_type, fix_title, search, replacement, suffix, times_seen, " \
    "times_fixed, times_failed"
constexpr Statement select_patterns_for{
    "bug_patterns for an error",
    "SELECT " HEAL_PATTERN_COLUMNS
    " FROM bug_patterns WHERE search <> '' AND (suffix = $3 OR $3 = '') AND times_fixed > times_failed AND "
    "(fingerprint = $1 OR "
    "(error_type = $2 AND error_type <> '')) ORDER BY CASE WHEN fingerprint = $1 THEN 0 ELSE 1 END, "
    "times_fixed DESC, id LIMIT 20"};
constexpr Statement select_all_patterns{
    "bug_patterns",
    "SELECT " HEAL_PATTERN_COLUMNS
    " FROM bug_patterns WHERE search <> '' AND times_fixed > times_failed ORDER BY times_fixed DESC, id "
    "LIMIT 1000"};
constexpr Statement upsert_pattern{
    "learn bug_patterns",
    "INSERT INTO bug_patterns (id, fingerprint, service_name, error_type, pattern, fix_title, fix_approach, "
    "code_diff, "
    "suggestion_id, times_seen, times_fixed, times_failed, first_seen_at, last_seen_at, search, replacement, "
    "suffix, "
    "prevention_tips) VALUES ($1, $2, $3, $4, $5, $6, 'search and replace', $7, $8, 1, 1, 0, $9, $9, $5, "
    "$10, $11, $12) "
    "ON CONFLICT (fingerprint, fix_title) DO UPDATE SET times_seen = bug_patterns.times_seen + 1, "
    "times_fixed = "
    "bug_patterns.times_fixed + 1, last_seen_at = excluded.last_seen_at"};
constexpr Statement bump_pattern{
    "count bug_patterns",
    "UPDATE bug_patterns SET times_seen = times_seen + 1, times_fixed = times_fixed + $2, times_failed = "
    "times_failed + $3, "
    "last_seen_at = $4 WHERE id = $1"};

PatchRun run_of(const Row& r) {
    PatchRun run;
    run.id = r.text(0);
    run.bug = r.text(1);
    run.suggestion = r.text(2);
    run.fingerprint = r.text(3);
    run.service = r.text(4);
    run.environment = r.text(5);
    run.repository = r.text(6);
    run.revision = r.text(7);
    run.step = r.text(8);
    run.outcome = r.text(9);
    run.reason = r.text(10);
    run.patch = r.text(11);
    run.patch_hash = r.text(12);
    run.branch = r.text(13);
    run.commit = r.text(14);
    run.request_url = r.text(15);
    if (auto data = parse_json(r.text(16), "data"); data && data->is_object())
        run.data = std::move(data->get_object());
    run.engine_us = r.integer(17);
    run.actor = r.text(18);
    run.node = r.text(19);
    run.created_at = Time{r.integer(20)};
    run.updated_at = Time{r.integer(21)};
    if (!r.is_null(22)) run.next_at = Time{r.integer(22)};
    if (!r.is_null(23)) run.ended_at = Time{r.integer(23)};
    return run;
}

Suggestion suggestion_of(const Row& r) {
    Suggestion s;
    s.id = r.text(0);
    s.bug = r.text(1);
    s.source = r.text(2);
    s.title = r.text(3);
    s.description = r.text(4);
    s.approach = r.text(5);
    s.edits = r.text(6);
    s.revision = r.text(7);
    s.status = r.text(8);
    if (auto cases = parse_json(r.text(9), "test_cases"); cases && cases->is_array())
        s.test_cases = std::move(cases->get_array());
    s.rank = static_cast<int>(r.integer(10));
    s.score = r.integer(11);
    return s;
}

StoredPattern pattern_of(const Row& r) {
    StoredPattern p;
    p.id = r.text(0);
    p.fingerprint = r.text(1);
    p.service = r.text(2);
    p.error_type = r.text(3);
    p.title = r.text(4);
    p.search = r.text(5);
    p.replacement = r.text(6);
    p.suffix = r.text(7);
    p.seen = r.integer(8);
    p.fixed = r.integer(9);
    p.failed = r.integer(10);
    return p;
}

result<void> nothing(result<std::int64_t> outcome) {
    return outcome ? result<void>{} : result<void>{outcome.error()};
}

}  // namespace

result<void> insert_patch_run(Database& db, const PatchRun& run) {
    std::int64_t open = 0;
    HEAL_TRY(db.query(
        open_of_suggestion,
        {string_view{run.bug}, string_view{run.suggestion}},
        [&](const Row& r) { open = r.integer(0); }
    ));
    if (open > 0) return fail(errc::conflict, "this suggestion is being tried already");
    const std::string data = json::serialize(run.data);
    return nothing(db.run(insert_run, {string_view{run.id},         string_view{run.bug},
                                       string_view{run.suggestion}, string_view{run.fingerprint},
                                       string_view{run.service},    string_view{run.environment},
                                       string_view{run.repository}, string_view{run.revision},
                                       string_view{run.step},       string_view{run.outcome},
                                       string_view{run.reason},     string_view{run.patch},
                                       string_view{run.patch_hash}, string_view{run.branch},
                                       string_view{run.commit},     string_view{run.request_url},
                                       string_view{data},           run.engine_us,
                                       string_view{run.actor},      string_view{run.node},
                                       run.created_at.us,           run.updated_at.us,
                                       or_null(run.next_at),        or_null(run.ended_at)}));
}

result<void> update_patch_run(Database& db, const PatchRun& run) {
    const std::string data = json::serialize(run.data);
    auto changed = db.run(
        update_run,
        {string_view{run.id},
         string_view{run.node},
         string_view{run.revision},
         string_view{run.step},
         string_view{run.outcome},
         string_view{run.reason},
         string_view{run.patch},
         string_view{run.patch_hash},
         string_view{run.branch},
         string_view{run.commit},
         string_view{run.request_url},
         string_view{data},
         run.engine_us,
         run.updated_at.us,
         or_null(run.next_at),
         or_null(run.ended_at)}
    );
    if (!changed) return changed.error();
    if (*changed != 1) return fail(errc::conflict, "another node goes on with this run");
    return {};
}

result<std::optional<PatchRun>> load_patch_run(Database& db, const std::string& id) {
    std::optional<PatchRun> found;
    HEAL_TRY(db.query(select_run, {string_view{id}}, [&](const Row& r) { found = run_of(r); }));
    return found;
}

result<std::vector<PatchRun>> load_open_patch_runs(Database& db, const std::string& node) {
    std::vector<PatchRun> runs;
    HEAL_TRY(db.query(select_mine, {string_view{node}}, [&](const Row& r) { runs.push_back(run_of(r)); }));
    return runs;
}

result<std::vector<PatchRun>> take_over_patch_runs(
    Database& db, const std::string& node, const std::vector<std::string>* repositories
) {
    std::vector<std::string> ids;
    HEAL_TRY(db.query(select_left, {string_view{node}}, [&](const Row& r) {
        if (!repositories ||
            std::find(repositories->begin(), repositories->end(), r.text(1)) != repositories->end())
            ids.push_back(r.text(0));
    }));
    std::vector<PatchRun> runs;
    for (const auto& id : ids) {
        auto run = load_patch_run(db, id);
        if (!run) return run.error();
        if (!*run) continue;
        auto claimed = db.run(claim_run, {string_view{id}, string_view{node}, string_view{(*run)->node}});
        if (!claimed) return claimed.error();
        if (*claimed == 1) runs.push_back(std::move(**run));
    }
    return runs;
}

result<std::vector<PatchRun>> load_patch_runs(Database& db, const std::string& bug) {
    std::vector<PatchRun> runs;
    HEAL_TRY(db.query(select_of_bug, {string_view{bug}}, [&](const Row& r) { runs.push_back(run_of(r)); }));
    return runs;
}

result<std::optional<Suggestion>> load_suggestion(Database& db, const std::string& id) {
    std::optional<Suggestion> found;
    HEAL_TRY(db.query(select_suggestion, {string_view{id}}, [&](const Row& r) { found = suggestion_of(r); }));
    return found;
}

result<std::vector<Suggestion>> load_suggestions(Database& db, const std::string& bug) {
    std::vector<Suggestion> found;
    HEAL_TRY(db.query(select_suggestions, {string_view{bug}}, [&](const Row& r) {
        found.push_back(suggestion_of(r));
    }));
    return found;
}

result<void> decide_suggestion(
    Database& db,
    const std::string& id,
    const std::string& status,
    const std::string& diff,
    const std::string& actor,
    Time now
) {
    return nothing(
        db.run(decide, {string_view{id}, string_view{status}, string_view{diff}, string_view{actor}, now.us})
    );
}

result<void> save_fix(Database& db, const FixRecord& f) {
    auto changed = db.run(
        update_fix,
        {string_view{f.run},
         string_view{f.status},
         string_view{f.branch},
         string_view{f.commit},
         string_view{f.request_url},
         string_view{f.error},
         or_null(f.deployed_at),
         or_null(f.rolled_back_at),
         or_null(f.held_at),
         or_null(f.ended_at),
         string_view{f.verdict}}
    );
    if (!changed) return changed.error();
    if (*changed > 0) return {};
    // The run's id serves: one row of history per run.
    return nothing(db.run(
        insert_fix,
        {string_view{f.run},
         string_view{f.bug},
         string_view{f.suggestion},
         string_view{f.status},
         string_view{f.branch},
         string_view{f.commit},
         string_view{f.request_url},
         std::int64_t{f.tests_passed},
         string_view{f.test_output},
         string_view{f.error},
         string_view{f.actor},
         f.started_at.us,
         or_null(f.deployed_at),
         or_null(f.rolled_back_at),
         or_null(f.ended_at),
         string_view{f.run},
         or_null(f.held_at),
         string_view{f.verdict}}
    ));
}

result<json::object> fix_figures(Database& db, Time from, Time to) {
    struct Count {
        std::int64_t landed = 0, held = 0, taken_back = 0, open = 0;
        json::object to_json() const {
            json::object o{
                {"landed", landed}, {"held", held}, {"did_not_hold", taken_back}, {"under_way", open}};
            o["held_rate"] =
                held + taken_back > 0
                    ? json::value(static_cast<double>(held) / static_cast<double>(held + taken_back))
                    : json::value(nullptr);
            return o;
        }
    };
    Count all;
    std::map<std::string, Count> by_service;
    Percentiles deploy;
    HEAL_TRY(db.query(count_fixes, {from.us, to.us}, [&](const Row& r) {
        const std::string verdict = r.text(0);
        for (auto* c : {&all, &by_service[r.text(2)]}) {
            ++c->landed;
            c->held += verdict == "held";
            c->taken_back += verdict == "did_not_hold";
            c->open += r.is_null(4);
        }
        if (!r.is_null(5)) deploy.values.push_back(r.integer(5) - r.integer(3));
    }));
    json::object services, trials;
    for (const auto& [name, count] : by_service) services[name] = count.to_json();
    HEAL_TRY(db.query(count_trials, {from.us, to.us}, [&](const Row& r) {
        trials[r.text(0).empty() ? "under_way" : r.text(0)] = r.integer(1);
    }));
    json::object out = all.to_json();
    out["by_service"] = std::move(services);
    out["runs"] = std::move(trials);
    out["approval_to_deployed"] = deploy.take();
    return out;
}

result<std::vector<StoredPattern>> load_patterns_for(
    Database& db, const std::string& fingerprint, const std::string& error_type, const std::string& suffix
) {
    std::vector<StoredPattern> found;
    HEAL_TRY(db.query(
        select_patterns_for,
        {string_view{fingerprint}, string_view{error_type}, string_view{suffix}},
        [&](const Row& r) { found.push_back(pattern_of(r)); }
    ));
    return found;
}

result<std::vector<StoredPattern>> load_all_patterns(Database& db) {
    std::vector<StoredPattern> found;
    HEAL_TRY(db.query(select_all_patterns, {}, [&](const Row& r) { found.push_back(pattern_of(r)); }));
    return found;
}

result<void> learn_pattern(
    Database& db,
    const Clock& clock,
    const StoredPattern& p,
    const std::string& suggestion,
    const std::string& diff,
    const json::array& tips
) {
    const std::string id = new_id(clock), advice = json::serialize(tips);
    return nothing(db.run(
        upsert_pattern,
        {string_view{id},
         string_view{p.fingerprint},
         string_view{p.service},
         string_view{p.error_type},
         string_view{p.search},
         string_view{p.title},
         string_view{diff},
         string_view{suggestion},
         clock.wall().us,
         string_view{p.replacement},
         string_view{p.suffix},
         string_view{advice}}
    ));
}

result<void> count_pattern(Database& db, const std::string& id, bool held, Time now) {
    return nothing(db.run(bump_pattern, {string_view{id}, std::int64_t{held}, std::int64_t{!held}, now.us}));
}

result<std::string> insert_pattern_suggestion(
    Database& db,
    const Clock& clock,
    const std::string& bug,
    const StoredPattern& p,
    const std::string& edits,
    const std::string& file,
    const std::string& revision
) {
    std::string id = new_id(clock);
    const std::string title = p.title.empty() ? std::string{"A fix that held before"} : p.title,
                      text = "Pattern " + p.id + " fixed this kind of error before",
                      files = json::serialize(json::array{json::value(file)});
    auto done = db.run(
        insert_suggestion,
        {string_view{id},
         string_view{bug},
         string_view{title},
         string_view{text},
         string_view{files},
         clock.wall().us,
         string_view{edits},
         string_view{revision}}
    );
    if (!done) return done.error();
    return id;
}

}  // namespace heal::sql
