// What people and heald do to bugs: their life cycle, history, summary and exports. All run inside a job of
// Store.
#pragma once

#include "base/clock.hpp"
#include "base/json.hpp"
#include "core/bug.hpp"
#include "store/database.hpp"

#include <string>

namespace heal::sql {

struct BugChange {
    /// "close", "reopen", "reject", "fix", "assign", "comment", "merge" or "split".
    std::string action;
    std::string actor;
    std::string text;      ///< reason or comment; needed for reject and comment
    std::string release;   ///< of fix: the one that holds it; may be ""
    std::string assignee;  ///< of assign; "" for nobody
    std::string into;      ///< of merge: id or code of the bug that takes its place
};
/// Changes one bug, writes its history and the audit log; the bug as it is then. errc::not_found;
/// errc::conflict its status does not allow it; errc::invalid_input something is missing.
result<json::object> change_bug(
    Database& db, const Clock& clock, const std::string& id_or_code, const BugChange& change
);

/// Moves it on for heald itself (analysis, fixes). errc::conflict, errc::not_found.
result<void> move_bug(
    Database& db,
    const Clock& clock,
    const std::string& id,
    BugStatus to,
    const std::string& actor,
    const std::string& text
);

/// Appends to the history of a bug.
result<void> note_bug(
    Database& db,
    const Clock& clock,
    const std::string& id,
    const std::string& actor,
    const std::string& action,
    const std::string& from,
    const std::string& to,
    const std::string& text
);

/// What was done to it, oldest first, at most 1000 entries: at, actor, action, from_status, to_status, text.
result<json::array> bug_history(Database& db, const std::string& id);

/// Counts by status, severity, type and service; how long detection, analysis and fixing took (ms: n, p50,
/// p95, p99) of bugs detected in [from, to).
result<json::object> bug_summary(Database& db, Time from, Time to);

enum class ExportFormat : std::uint8_t { csv, json, ndjson };
/// Bugs, newest first, at most `limit`. CSV is RFC 4180 with a header; a cell that a spreadsheet would take
/// for a formula (= + - @ tab, CR at its begin) gets an apostrophe before it (OWASP, "CSV Injection").
result<std::string> export_bugs(Database& db, ExportFormat format, std::int64_t limit);

}  // namespace heal::sql
