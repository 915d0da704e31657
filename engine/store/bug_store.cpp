#include "store/bug_store.hpp"

#include "base/id.hpp"
#include "store/healing_store.hpp"
#include "store/percentiles.hpp"
#include "store/queries.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace heal::sql {
namespace {

using std::string_view;

constexpr Statement insert_history{
    "insert bug_history",
    "INSERT INTO bug_history (id, bug_id, at, actor, action, from_status, to_status, text) VALUES ($1, $2, "
    "$3, "
    "$4, $5, $6, $7, $8)"};
constexpr Statement select_history{
    "select bug_history",
    "SELECT at, actor, action, from_status, to_status, text FROM bug_history WHERE bug_id = $1 ORDER BY at, "
    "id "
    "LIMIT 1000"};
constexpr Statement move_row{
    "move system_bugs",
    "UPDATE system_bugs SET status = $2, updated_at = $3, "
    "analyzed_at = CASE WHEN $2 = 'analyzed' THEN COALESCE(analyzed_at, $3) ELSE analyzed_at END, "
    "fixed_at = CASE WHEN $2 = 'fixed' THEN $3 WHEN $2 = 'reopened' THEN NULL ELSE fixed_at END, "
    "closed_at = CASE WHEN $2 IN ('closed', 'rejected') THEN $3 WHEN $2 = 'reopened' THEN NULL ELSE "
    "closed_at END, "
    "reopened_count = reopened_count + CASE WHEN $2 = 'reopened' THEN 1 ELSE 0 END WHERE id = $1"};
constexpr Statement set_release{
    "fix release of system_bugs", "UPDATE system_bugs SET fixed_in_release = $2 WHERE id = $1"};
constexpr Statement set_assignee{
    "assign system_bugs", "UPDATE system_bugs SET assigned_to = $2, updated_at = $3 WHERE id = $1"};
constexpr Statement set_merged{
    "merge system_bugs", "UPDATE system_bugs SET merged_into = $2, updated_at = $3 WHERE id = $1"};
constexpr Statement take_counts{
    "take counts of merged bug",
    "UPDATE system_bugs SET occurrence_count = occurrence_count + $2, updated_at = $3 WHERE id = $1"};
constexpr Statement count_groups{
    "bugs by status, severity, type and service",
    "SELECT status, severity, bug_type, service_name, COUNT(*) FROM system_bugs WHERE detected_at >= $1 AND "
    "detected_at < $2 GROUP BY status, severity, bug_type, service_name"};
constexpr Statement select_times{
    "times of bugs",
    "SELECT first_occurred_at, detected_at, analyzed_at, fixed_at FROM system_bugs WHERE detected_at >= $1 "
    "AND "
    "detected_at < $2"};

BugStatus status_of(const json::object& bug) {
    BugStatus status = BugStatus::detected;
    parse_bug_status(string_at(bug, "status"), status);
    return status;
}

result<void> move(
    Database& db,
    const Clock& clock,
    const json::object& bug,
    BugStatus to,
    const std::string& actor,
    const std::string& text
) {
    const auto from = status_of(bug);
    const std::string id{string_at(bug, "id")};
    if (!string_at(bug, "merged_into").empty())
        return fail(
            errc::conflict,
            fmt::format(
                "{} is merged into another, which counts for it; split it first", string_at(bug, "bug_code")
            )
        );
    if (!may_move(from, to)) {
        return fail(
            errc::conflict,
            fmt::format(
                "{} is '{}' and cannot become '{}'",
                string_at(bug, "bug_code"),
                to_string(from),
                to_string(to)
            )
        );
    }
    auto moved = db.run(move_row, {string_view{id}, string_view{to_string(to)}, clock.wall().us});
    if (!moved) return moved.error();
    return note_bug(db, clock, id, actor, "move", to_string(from), to_string(to), text);
}

result<void> merge(Database& db, const Clock& clock, const json::object& bug, const BugChange& change) {
    auto target = show_bug(db, change.into);
    if (!target) return target.error();
    const std::string id{string_at(bug, "id")}, into{string_at(*target, "id")};
    if (id == into) return fail(errc::invalid_input, "into: a bug cannot be merged into itself");
    if (!string_at(*target, "merged_into").empty())
        return fail(
            errc::conflict, fmt::format("{} is itself merged into another", string_at(*target, "bug_code"))
        );
    if (!string_at(bug, "merged_into").empty())
        return fail(
            errc::conflict, fmt::format("{} is merged already; split it first", string_at(bug, "bug_code"))
        );
    const Time now = clock.wall();
    HEAL_TRY(db.run(set_merged, {string_view{id}, string_view{into}, now.us}));
    HEAL_TRY(db.run(take_counts, {string_view{into}, int_at(bug, "occurrence_count"), now.us}));
    const auto from = status_of(bug);
    if (from != BugStatus::closed)
        HEAL_TRY(db.run(move_row, {string_view{id}, string_view{"closed"}, now.us}));
    const std::string here = fmt::format("into {}: {}", string_at(*target, "bug_code"), change.text);
    HEAL_TRY(note_bug(db, clock, id, change.actor, "merge", to_string(from), "closed", here));
    const std::string there = fmt::format("took in {}", string_at(bug, "bug_code"));
    return note_bug(db, clock, into, change.actor, "merge", "", "", there);
}

result<void> split(Database& db, const Clock& clock, const json::object& bug, const BugChange& change) {
    const std::string id{string_at(bug, "id")}, from{string_at(bug, "merged_into")};
    if (from.empty())
        return fail(errc::conflict, fmt::format("{} is not merged", string_at(bug, "bug_code")));
    const Time now = clock.wall();
    HEAL_TRY(db.run(set_merged, {string_view{id}, Value{nullptr}, now.us}));
    HEAL_TRY(db.run(take_counts, {string_view{from}, -int_at(bug, "occurrence_count"), now.us}));
    HEAL_TRY(db.run(move_row, {string_view{id}, string_view{"reopened"}, now.us}));
    return note_bug(db, clock, id, change.actor, "split", "closed", "reopened", change.text);
}

result<void> perform(Database& db, const Clock& clock, const json::object& bug, const BugChange& change) {
    const std::string id{string_at(bug, "id")}, current{string_at(bug, "status")};
    const auto needs_text = [&]() -> result<void> {
        if (change.text.empty()) return fail(errc::invalid_input, "text: must say why");
        return {};
    };
    if (change.action == "close") return move(db, clock, bug, BugStatus::closed, change.actor, change.text);
    if (change.action == "reopen")
        return move(db, clock, bug, BugStatus::reopened, change.actor, change.text);
    if (change.action == "reject") {
        HEAL_TRY(needs_text());
        return move(db, clock, bug, BugStatus::rejected, change.actor, change.text);
    }
    if (change.action == "fix") {
        HEAL_TRY(move(db, clock, bug, BugStatus::fixed, change.actor, change.text));
        auto set = db.run(set_release, {string_view{id}, string_view{change.release}});
        return set ? result<void>{} : result<void>{set.error()};
    }
    if (change.action == "assign") {
        HEAL_TRY(db.run(set_assignee, {string_view{id}, string_view{change.assignee}, clock.wall().us}));
        return note_bug(db, clock, id, change.actor, "assign", current, current, change.assignee);
    }
    if (change.action == "comment") {
        HEAL_TRY(needs_text());
        return note_bug(db, clock, id, change.actor, "comment", current, current, change.text);
    }
    if (change.action == "merge") return merge(db, clock, bug, change);
    if (change.action == "split") return split(db, clock, bug, change);
    return fail(
        errc::invalid_input,
        fmt::format(
            "'{}': must be close, reopen, reject, fix, assign, comment, merge or split",
            to_valid_utf8(change.action)
        )
    );
}

constexpr const char* export_columns[] = {
    "bug_code",       "status",      "severity", "bug_type",         "service_name",      "environment",
    "title",          "error_type",  "message",  "occurrence_count", "first_occurred_at", "last_occurred_at",
    "detected_at",    "analyzed_at", "fixed_at", "closed_at",        "assigned_to",       "fixed_in_release",
    "reopened_count", "fingerprint", "id"};

std::string csv_cell(const json::value& value) {
    std::string text = value.is_null()     ? ""
                       : value.is_string() ? std::string{view(value.as_string())}
                                           : json::serialize(value);
    if (!text.empty() && std::string_view{"=+-@\t\r"}.find(text[0]) != std::string_view::npos &&
        value.is_string())
        text.insert(0, 1, '\'');
    if (text.find_first_of("\",\r\n") == std::string::npos) return text;
    std::string quoted = "\"";
    for (const char c : text) quoted += c == '"' ? std::string{"\"\""} : std::string{c};
    return quoted + '"';
}

}  // namespace

result<void> note_bug(
    Database& db,
    const Clock& clock,
    const std::string& id,
    const std::string& actor,
    const std::string& action,
    const std::string& from,
    const std::string& to,
    const std::string& text
) {
    const std::string history = new_id(clock), who = to_valid_utf8(actor),
                      what = to_valid_utf8(text.substr(0, 16'384));
    auto written = db.run(
        insert_history,
        {string_view{history},
         string_view{id},
         clock.wall().us,
         string_view{who},
         string_view{action},
         string_view{from},
         string_view{to},
         string_view{what}}
    );
    return written ? result<void>{} : result<void>{written.error()};
}

result<void> move_bug(
    Database& db,
    const Clock& clock,
    const std::string& id,
    BugStatus to,
    const std::string& actor,
    const std::string& text
) {
    auto bug = show_bug(db, id);
    if (!bug) return bug.error();
    return move(db, clock, *bug, to, actor, text);
}

result<json::object> change_bug(
    Database& db, const Clock& clock, const std::string& id_or_code, const BugChange& change
) {
    auto bug = show_bug(db, id_or_code);
    if (!bug) return bug.error();
    HEAL_TRY(perform(db, clock, *bug, change));
    const json::object detail{
        {"bug", string_at(*bug, "bug_code")},
        {"text", to_valid_utf8(change.text)},
        {"release", to_valid_utf8(change.release)},
        {"assignee", to_valid_utf8(change.assignee)},
        {"into", to_valid_utf8(change.into)}};
    HEAL_TRY(append_audit(
        db,
        clock.wall(),
        change.actor,
        "bug." + change.action,
        std::string{string_at(*bug, "id")},
        json::serialize(detail)
    ));
    return show_bug(db, std::string{string_at(*bug, "id")});
}

result<json::array> bug_history(Database& db, const std::string& id) {
    json::array items;
    HEAL_TRY(db.query(select_history, {string_view{id}}, [&](const Row& r) {
        items.push_back(json::object{
            {"at", to_rfc3339(Time{r.integer(0)})},
            {"actor", r.text(1)},
            {"action", r.text(2)},
            {"from_status", r.text(3)},
            {"to_status", r.text(4)},
            {"text", r.text(5)}});
    }));
    return items;
}

result<json::object> bug_summary(Database& db, Time from, Time to) {
    json::object by_status, by_severity, by_type, by_service;
    std::int64_t total = 0, still_open = 0;
    const auto add = [](json::object& o, const std::string& key, std::int64_t n) {
        o[key] = int_at(o, key) + n;
    };
    HEAL_TRY(db.query(count_groups, {from.us, to.us}, [&](const Row& r) {
        const auto n = r.integer(4);
        total += n;
        BugStatus status = BugStatus::detected;
        if (parse_bug_status(r.text(0), status) && is_open(status)) still_open += n;
        add(by_status, r.text(0), n);
        add(by_severity, r.text(1), n);
        add(by_type, r.text(2), n);
        add(by_service, r.text(3), n);
    }));
    Percentiles detect, analyze, fix;
    HEAL_TRY(db.query(select_times, {from.us, to.us}, [&](const Row& r) {
        detect.values.push_back(std::max<std::int64_t>(0, r.integer(1) - r.integer(0)));
        if (!r.is_null(2)) analyze.values.push_back(r.integer(2) - r.integer(1));
        if (!r.is_null(3)) fix.values.push_back(r.integer(3) - r.integer(1));
    }));
    return json::object{
        {"from", to_rfc3339(from)},
        {"to", to_rfc3339(to)},
        {"total", total},
        {"open", still_open},
        {"by_status", std::move(by_status)},
        {"by_severity", std::move(by_severity)},
        {"by_type", std::move(by_type)},
        {"by_service", std::move(by_service)},
        {"time_to_detect", detect.take()},
        {"time_to_analyze", analyze.take()},
        {"time_to_fix", fix.take()}};
}

result<std::string> export_bugs(Database& db, ExportFormat format, std::int64_t limit) {
    std::string out;
    if (format == ExportFormat::csv) {
        for (const char* name : export_columns) out += (out.empty() ? "" : ",") + std::string{name};
        out += "\r\n";
    }
    if (format == ExportFormat::json) out = "[";
    bool first = true;
    ListQuery query{{}, "", std::min<std::int64_t>(limit, 1000)};
    for (std::int64_t left = limit; left > 0;) {
        query.limit = std::min<std::int64_t>(left, 1000);
        auto page = list_bugs(db, query);
        if (!page) return page.error();
        for (const auto& item : array_at(*page, "items")) {
            const auto& bug = item.get_object();
            --left;
            if (format == ExportFormat::csv) {
                std::string line;
                for (const char* name : export_columns)
                    line += (line.empty() && name == export_columns[0] ? "" : ",") + csv_cell(bug.at(name));
                out += line + "\r\n";
                continue;
            }
            if (format == ExportFormat::json && !first) out += ",";
            out += (format == ExportFormat::json ? "\n" : "") + json::serialize(bug);
            if (format == ExportFormat::ndjson) out += "\n";
            first = false;
        }
        const auto next = string_at(*page, "next");
        if (next.empty()) break;
        query.before = next;
    }
    if (format == ExportFormat::json) out += "\n]\n";
    return out;
}

}  // namespace heal::sql
