// Statements of the patch pipeline (core/patch_machine.hpp): its runs, their suggestions, what became of
// them, the patterns that were learned. All run inside a job of Store; errors are those of Database::run.
#pragma once

#include "base/clock.hpp"
#include "base/json.hpp"
#include "core/bug.hpp"
#include "store/database.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace heal::sql {

struct PatchRun {
    std::string id, bug, suggestion, fingerprint, service, environment, repository;
    std::string revision;  ///< commit that it was made for; "" before prepare
    std::string step, outcome, reason;
    std::string patch, patch_hash;  ///< the canonical diff and its SHA-256, from gate on
    std::string branch, commit, request_url;
    json::object data;           ///< {"machine": PatchMachine::save(), "facts": what the steps remember}
    std::int64_t engine_us = 0;  ///< spent by heald itself: without models, git's network, builds and tests
    std::string actor, node;
    Time created_at, updated_at;
    std::optional<Time> next_at, ended_at;
};
/// errc::conflict: this suggestion has a run under way.
result<void> insert_patch_run(Database& db, const PatchRun& run);
/// All that changes while it runs. errc::conflict: another node has taken it over.
result<void> update_patch_run(Database& db, const PatchRun& run);
result<std::optional<PatchRun>> load_patch_run(Database& db, const std::string& id);
/// Those of this node that have not ended.
result<std::vector<PatchRun>> load_open_patch_runs(Database& db, const std::string& node);
/// Those of nodes that are no members of the cluster any more, that have not ended and whose repository is
/// among `repositories` (nullptr: any); they are this node's afterwards. `node` in the answer is whose they
/// were.
result<std::vector<PatchRun>> take_over_patch_runs(
    Database& db, const std::string& node, const std::vector<std::string>* repositories
);
/// Of one bug, newest first.
result<std::vector<PatchRun>> load_patch_runs(Database& db, const std::string& bug);

/// What a run needs of a suggestion.
struct Suggestion {
    std::string id, bug, source, title, description, approach, edits, revision, status;
    json::array test_cases;
    int rank = 0;
    std::int64_t score = 0;
};
result<std::optional<Suggestion>> load_suggestion(Database& db, const std::string& id);
/// Those of a bug that still stand ('suggested' or 'approved'), the best evidence first, then by rank.
result<std::vector<Suggestion>> load_suggestions(Database& db, const std::string& bug);
/// `status`: approved, rejected, applied or superseded. `diff`: the canonical patch, "" leaves it.
result<void> decide_suggestion(
    Database& db,
    const std::string& id,
    const std::string& status,
    const std::string& diff,
    const std::string& actor,
    Time now
);

/// One row of auto_fix_history per run that left the trial. `status`: applying, testing, succeeded, failed,
/// rolled_back.
struct FixRecord {
    std::string run, bug, suggestion, status, branch, commit, request_url, error, actor, verdict, test_output;
    bool tests_passed = false;
    Time started_at;
    std::optional<Time> deployed_at, rolled_back_at, held_at, ended_at;
};
/// Inserts or brings up to date the row of this run.
result<void> save_fix(Database& db, const FixRecord& record);
/// {"landed", "held", "rolled_back", "open", "held_rate", by service}; runs that landed in [from, to).
result<json::object> fix_figures(Database& db, Time from, Time to);

struct StoredPattern {
    std::string id, fingerprint, service, error_type, title, search, replacement, suffix;
    std::int64_t seen = 0, fixed = 0, failed = 0;
};
/// Those for this kind of error: by fingerprint first, then by type; such that did not fail more than they
/// fixed.
result<std::vector<StoredPattern>> load_patterns_for(
    Database& db, const std::string& fingerprint, const std::string& error_type, const std::string& suffix
);
result<std::vector<StoredPattern>> load_all_patterns(Database& db);
/// Learned from a run that held; an equal one is counted up.
result<void> learn_pattern(
    Database& db,
    const Clock& clock,
    const StoredPattern& pattern,
    const std::string& suggestion,
    const std::string& diff,
    const json::array& tips
);
/// It was tried, and held or did not.
result<void> count_pattern(Database& db, const std::string& id, bool held, Time now);

/// A suggestion that comes from a pattern; returns its id.
result<std::string> insert_pattern_suggestion(
    Database& db,
    const Clock& clock,
    const std::string& bug,
    const StoredPattern& pattern,
    const std::string& edits,
    const std::string& file,
    const std::string& revision
);

}  // namespace heal::sql
