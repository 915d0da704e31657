// What keeps the store small and its figures at hand: thinning of samples, retention, roll-ups, the jobs' own
// tables. Each function does a bounded piece of work in the transaction of its caller and says whether more
// is left, so that nothing waits long behind it. Errors are those of Database::run.
#pragma once

#include "base/clock.hpp"
#include "base/json.hpp"
#include "store/database.hpp"

#include <string>
#include <vector>

namespace heal::sql {

/// A piece of work: rows that went, and whether there is more to do.
struct Piece {
    std::int64_t rows = 0;
    bool more = false;
};

// --- samples
// ---------------------------------------------------------------------------------------------------------

/// A kind of error with more samples than this is thinned …
inline constexpr std::int64_t samples_before_thinning = 128;
/// … to the first, the newest, those that a bug names, this many of the newest …
inline constexpr std::size_t newest_samples = 8;
/// … and this many at random of each age of 1-2, 2-4, 4-8 … minutes: older means rarer.
inline constexpr std::size_t samples_per_age = 4;

/// Thins up to `kinds` kinds of error. What a deleted sample stood for is added to the newest of its kind, so
/// that the samples of a kind always stand for its exact count.
result<Piece> thin_samples(Database& db, Time now, std::int64_t kinds);

/// Deletes up to `limit` samples that were received before `before`, oldest first; with `rows` > 0 instead
/// those in excess of so many rows. The newest sample of a kind stays, and takes over what the others stood
/// for. `ret_cursor`: where to go on; "" at the first call.
result<Piece> delete_samples(Database& db, Time before, std::int64_t limit, std::string& ret_cursor);
/// Rows of log_entries.
result<std::int64_t> count_samples(Database& db);

// --- retention
// ---------------------------------------------------------------------------------------------------------

struct CleanedUp {
    std::int64_t events = 0, results = 0, actions = 0;
    std::int64_t patch_runs = 0, suggestions = 0, analyses = 0, ai_calls = 0;
    bool more = false;
    std::int64_t rows() const {
        return events + results + actions + patch_runs + suggestions + analyses + ai_calls;
    }
};
/// Incidents that ended before `before`, with their attempts and effects; patch runs that ended; suggestions
/// that were rejected or superseded; analyses, but the newest of a bug; questions to models. Up to `limit` of
/// each. What was landed (auto_fix_history), patterns and the audit log are never shortened. PostgreSQL has
/// the same as a function for people: cleanup_old_healing_data(interval).
result<CleanedUp> cleanup_old_healing_data(Database& db, Time before, std::int64_t limit);

/// Counts per minute and per hour that are older than so; days stay for ever (one row per kind and day).
result<Piece> delete_old_counts(Database& db, Time minutes_before, Time hours_before);
/// Runs of jobs, health checks and metrics, published messages.
result<Piece> delete_old_records(Database& db, Time before);

struct StoreSize {
    std::int64_t bytes = 0;  ///< on the disk, indexes included
    std::int64_t free = 0;   ///< of these, not used (SQLite; PostgreSQL keeps no count of it)
};
result<StoreSize> store_size(Database& db);
/// Gives up to `pages` free pages back to the file system. SQLite; PostgreSQL has its own autovacuum.
result<Piece> release_free_space(Database& db, std::int64_t pages);

// --- roll-ups
// ---------------------------------------------------------------------------------------------------------

/// system_health_metrics of the window [from, to): errors per service, incidents, healing. Running it again
/// for the same window changes nothing.
result<std::int64_t> aggregate_metrics(Database& db, Time from, Time to);

// --- jobs
// ---------------------------------------------------------------------------------------------------------

struct JobRow {
    std::string name, description, schedule;
    Time next_run;
};
/// Makes the row of a job or brings its description and schedule up to date. A person's pause stays.
result<void> declare_job(Database& db, const JobRow& job);
/// True: this node runs the job now and says so again before `lease_until`. A run whose node was lost is
/// written down as abandoned. `at_once`: also when it is not due, or paused.
result<bool> claim_job(
    Database& db,
    const std::string& name,
    const std::string& node,
    const std::string& run_id,
    Time now,
    Time lease_until,
    bool at_once
);
/// False: the run was taken for abandoned; it must end.
result<bool> extend_job(Database& db, const std::string& name, const std::string& run_id, Time lease_until);
struct JobEnd {
    bool ok = true;
    std::string output, error;
    Time next_run;
};
result<void> end_job(
    Database& db, const std::string& name, const std::string& run_id, const JobEnd& end, Time now
);
/// errc::not_found.
result<void> enable_job(Database& db, const std::string& name, bool enabled);
struct DueJob {
    std::string name;
    Time next_run;
    bool enabled = true;
};
result<std::vector<DueJob>> load_jobs(Database& db);
/// {"items": [...]} with the newest runs of each job.
result<json::object> list_jobs(Database& db);

}  // namespace heal::sql
