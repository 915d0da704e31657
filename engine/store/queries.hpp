// What people and programs ask the store, as JSON in the names of the columns; times as RFC 3339. Read only.
#pragma once

#include "base/clock.hpp"
#include "base/json.hpp"
#include "store/database.hpp"

#include <map>
#include <string>

namespace heal::sql {

/// Filters of a list. Unknown names are the caller's error and are checked by the routes. Newest first;
/// `before` is the id of the last row seen (keyset paging).
struct ListQuery {
    std::map<std::string, std::string> equals;  ///< column -> exact value
    std::string before;
    std::int64_t limit = 50;  ///< 1 … 1000
};

result<json::object> list_events(Database& db, const ListQuery& query);
result<json::object> list_fingerprints(Database& db, const ListQuery& query);
result<json::object> list_bugs(Database& db, const ListQuery& query);
result<json::object> list_logs(Database& db, const ListQuery& query);
result<json::object> list_audit(Database& db, const ListQuery& query);

result<json::object> list_patch_runs(Database& db, const ListQuery& query);
result<json::object> list_patterns(Database& db, const ListQuery& query);
result<json::object> list_fixes(Database& db, const ListQuery& query);

/// With the patch, the evidence of each step and what was done outside. errc::not_found.
result<json::object> show_patch_run(Database& db, const std::string& id);
/// With its attempts and their effects. errc::not_found.
result<json::object> show_event(Database& db, const std::string& id);
/// With counts per minute (2 h), hour (48 h) and day (90 d), newest samples and events. `id` may be a prefix
/// of >= 4 digits.
result<json::object> show_fingerprint(Database& db, const std::string& id, Time now);
result<json::object> show_bug(Database& db, const std::string& id_or_code);

/// get_healing_stats of M8: incidents by state and resolution, attempts by strategy, MTTD, MTTA, MTTM, MTTR
/// with p50, p95, p99, n (ms), rates. Definitions: docs/figures.md.
result<json::object> healing_stats(Database& db, Time from, Time to);

/// Exact totals of what was heard: {"sources": [...], "records": n, …}.
result<json::object> ingest_totals(Database& db);

}  // namespace heal::sql
