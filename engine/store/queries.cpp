#include "store/queries.hpp"

#include "store/bug_store.hpp"
#include "store/percentiles.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

namespace heal::sql {
namespace {

using std::string_view;

enum class Form : char { text, integer, real, time, json_text, flag };
struct Column {
    const char* name;
    Form form;
};

std::string names(std::span<const Column> columns, const char* prefix = "") {
    std::string out;
    for (const auto& c : columns) out += (out.empty() ? "" : ", ") + std::string{prefix} + c.name;
    return out;
}

json::object to_object(const Row& row, std::span<const Column> columns, int first = 0) {
    json::object o;
    for (const auto& c : columns) {
        const int i = first++;
        if (row.is_null(i)) {
            o[c.name] = nullptr;
            continue;
        }
        switch (c.form) {
            case Form::text:
                o[c.name] = row.text(i);
                break;
            case Form::integer:
                o[c.name] = row.integer(i);
                break;
            case Form::real:
                o[c.name] = row.real(i);
                break;
            case Form::time:
                o[c.name] = to_rfc3339(Time{row.integer(i)});
                break;
            case Form::flag:
                o[c.name] = row.integer(i) != 0;
                break;
            case Form::json_text: {
                auto parsed = parse_json(row.text(i), c.name);
                o[c.name] = parsed ? std::move(*parsed) : json::value(row.text(i));
                break;
            }
        }
    }
    return o;
}

/// Statements built from column names and filters (never from values) are few; each is kept for ever, so that
/// the driver can prepare it once by its address.
const char* interned(std::string sql) {
    static std::mutex mutex;
    static std::set<std::string> texts;
    const std::lock_guard lock{mutex};
    return texts.insert(std::move(sql)).first->c_str();
}

struct Table {
    const char* name;
    const char* order;  ///< time column of the keyset, with id behind it
    const char* id;
    std::span<const Column> columns;
};

result<json::object> list(Database& db, const Table& table, const ListQuery& query) {
    std::string sql = fmt::format("SELECT {} FROM {}", names(table.columns), table.name);
    std::vector<Value> values;
    std::string where;
    for (const auto& [column, value] : query.equals) {
        const bool known = std::any_of(table.columns.begin(), table.columns.end(), [&](const Column& c) {
            return c.name == column;
        });
        if (!known)
            return fail(errc::invalid_input, fmt::format("cannot filter {} by '{}'", table.name, column));
        values.emplace_back(string_view{value});
        where += fmt::format("{} {} = ${}", where.empty() ? "" : " AND", column, values.size());
    }
    if (!query.before.empty()) {
        values.emplace_back(string_view{query.before});
        where += fmt::format(
            "{0} ({1}, {2}) < (SELECT {1}, {2} FROM {3} WHERE {2} = {4})",
            where.empty() ? "" : " AND",
            table.order,
            table.id,
            table.name,
            string_view{table.id} == "seq" ? fmt::format("CAST(${} AS BIGINT)", values.size())
                                           : fmt::format("${}", values.size())
        );
    }
    if (!where.empty()) sql += " WHERE" + where;
    values.emplace_back(query.limit + 1);
    sql += fmt::format(" ORDER BY {0} DESC, {1} DESC LIMIT ${2}", table.order, table.id, values.size());
    json::array items;
    const Statement statement{table.name, interned(std::move(sql))};
    HEAL_TRY(db.run(statement, values, [&](const Row& row) {
        items.push_back(to_object(row, table.columns));
    }));
    json::object answer;
    const bool more = static_cast<std::int64_t>(items.size()) > query.limit;
    if (more) items.resize(static_cast<std::size_t>(query.limit));
    answer["next"] = more ? items.back().as_object().at(table.id) : json::value(nullptr);
    answer["items"] = std::move(items);
    return answer;
}

constexpr Column event_columns[] = {
    {"id", Form::text},
    {"fingerprint", Form::text},
    {"service_name", Form::text},
    {"environment", Form::text},
    {"target", Form::text},
    {"severity", Form::text},
    {"trigger_name", Form::text},
    {"state", Form::text},
    {"resolution", Form::text},
    {"reason", Form::text},
    {"occurrence_count", Form::integer},
    {"first_event_at", Form::time},
    {"opened_at", Form::time},
    {"claimed_at", Form::time},
    {"action_at", Form::time},
    {"healed_at", Form::time},
    {"hold_until", Form::time},
    {"closed_at", Form::time},
    {"healed_by", Form::text},
    {"bug_id", Form::text},
    {"incident", Form::json_text}};
constexpr Column fingerprint_columns[] = {
    {"id", Form::text},
    {"digest", Form::text},
    {"mechanism", Form::integer},
    {"service_name", Form::text},
    {"environment", Form::text},
    {"log_level", Form::text},
    {"error_type", Form::text},
    {"pattern", Form::text},
    {"stack_signature", Form::text},
    {"severity", Form::text},
    {"occurrence_count", Form::integer},
    {"first_seen_at", Form::time},
    {"last_seen_at", Form::time},
    {"last_release", Form::text}};
constexpr Column bug_columns[] = {
    {"id", Form::text},
    {"bug_code", Form::text},
    {"fingerprint", Form::text},
    {"title", Form::text},
    {"severity", Form::text},
    {"bug_type", Form::text},
    {"status", Form::text},
    {"service_name", Form::text},
    {"environment", Form::text},
    {"error_type", Form::text},
    {"message", Form::text},
    {"stack_trace", Form::text},
    {"occurrence_count", Form::integer},
    {"first_occurred_at", Form::time},
    {"last_occurred_at", Form::time},
    {"detected_at", Form::time},
    {"updated_at", Form::time},
    {"opened_by", Form::text},
    {"assigned_to", Form::text},
    {"last_release", Form::text},
    {"fixed_in_release", Form::text},
    {"analyzed_at", Form::time},
    {"fixed_at", Form::time},
    {"closed_at", Form::time},
    {"reopened_count", Form::integer},
    {"merged_into", Form::text},
    {"related_log_ids", Form::json_text}};
constexpr Column log_columns[] = {
    {"id", Form::text},          {"fingerprint", Form::text},   {"service_name", Form::text},
    {"environment", Form::text}, {"log_level", Form::text},     {"message", Form::text},
    {"error_type", Form::text},  {"stack_trace", Form::text},   {"context", Form::text},
    {"timestamp", Form::time},   {"received_at", Form::time},   {"http_status", Form::integer},
    {"component", Form::text},   {"request_id", Form::text},    {"workspace_id", Form::text},
    {"trace_id", Form::text},    {"release", Form::text},       {"host", Form::text},
    {"source", Form::text},      {"represents", Form::integer}, {"related_bug_id", Form::text}};
constexpr Column audit_columns[] = {
    {"seq", Form::integer},
    {"at", Form::time},
    {"actor", Form::text},
    {"action", Form::text},
    {"subject", Form::text},
    {"detail", Form::json_text},
    {"hash", Form::text}};
constexpr Column attempt_columns[] = {
    {"id", Form::text},           {"event_id", Form::text},      {"fingerprint", Form::text},
    {"service_name", Form::text}, {"target", Form::text},        {"strategy", Form::text},
    {"version", Form::text},      {"build", Form::text},         {"rank", Form::integer},
    {"priority", Form::integer},  {"confidence", Form::real},    {"score", Form::real},
    {"idempotent", Form::flag},   {"dry_run", Form::flag},       {"state", Form::text},
    {"verified", Form::text},     {"rolled_back", Form::text},   {"text", Form::text},
    {"detail", Form::json_text},  {"evidence", Form::json_text}, {"started_at", Form::time},
    {"ended_at", Form::time},     {"verified_at", Form::time}};
constexpr Column action_columns[] = {
    {"phase", Form::text},
    {"step", Form::integer},
    {"kind", Form::text},
    {"summary", Form::text},
    {"parameters", Form::json_text},
    {"capability", Form::text},
    {"changes_world", Form::flag},
    {"undoable", Form::flag},
    {"undoes_step", Form::integer},
    {"state", Form::text},
    {"result", Form::json_text},
    {"error", Form::text},
    {"started_at", Form::time},
    {"duration_us", Form::integer}};

constexpr Column run_columns[] = {
    {"id", Form::text},           {"bug_id", Form::text},       {"suggestion_id", Form::text},
    {"fingerprint", Form::text},  {"service_name", Form::text}, {"environment", Form::text},
    {"repository", Form::text},   {"revision", Form::text},     {"step", Form::text},
    {"outcome", Form::text},      {"reason", Form::text},       {"patch_hash", Form::text},
    {"branch", Form::text},       {"commit_id", Form::text},    {"request_url", Form::text},
    {"engine_us", Form::integer}, {"requested_by", Form::text}, {"node", Form::text},
    {"created_at", Form::time},   {"updated_at", Form::time},   {"next_at", Form::time},
    {"ended_at", Form::time}};
constexpr Column pattern_columns[] = {
    {"id", Form::text},
    {"fingerprint", Form::text},
    {"service_name", Form::text},
    {"error_type", Form::text},
    {"fix_title", Form::text},
    {"search", Form::text},
    {"replacement", Form::text},
    {"suffix", Form::text},
    {"times_seen", Form::integer},
    {"times_fixed", Form::integer},
    {"times_failed", Form::integer},
    {"prevention_tips", Form::json_text},
    {"first_seen_at", Form::time},
    {"last_seen_at", Form::time}};
constexpr Column fix_columns[] = {
    {"id", Form::text},
    {"bug_id", Form::text},
    {"suggestion_id", Form::text},
    {"status", Form::text},
    {"verdict", Form::text},
    {"branch", Form::text},
    {"commit_id", Form::text},
    {"pull_request_url", Form::text},
    {"tests_passed", Form::flag},
    {"error", Form::text},
    {"performed_by", Form::text},
    {"started_at", Form::time},
    {"deployed_at", Form::time},
    {"rolled_back_at", Form::time},
    {"held_at", Form::time},
    {"ended_at", Form::time}};

constexpr Table runs{"patch_runs", "created_at", "id", run_columns};
constexpr Table patterns{"bug_patterns", "last_seen_at", "id", pattern_columns};
constexpr Table fixes{"auto_fix_history", "started_at", "id", fix_columns};
constexpr Table events{"self_heal_events", "opened_at", "id", event_columns};
constexpr Table fingerprints{"error_fingerprints", "last_seen_at", "id", fingerprint_columns};
constexpr Table bugs{"system_bugs", "last_occurred_at", "id", bug_columns};
constexpr Table logs{"log_entries", "received_at", "id", log_columns};
constexpr Table audit{"audit_log", "seq", "seq", audit_columns};

result<json::object> one(
    Database& db, const Table& table, const char* where, string_view value, string_view what
) {
    json::object found;
    const Statement statement{
        table.name,
        interned(fmt::format("SELECT {} FROM {} WHERE {}", names(table.columns), table.name, where))};
    int count = 0;
    HEAL_TRY(db.query(statement, {value}, [&](const Row& row) {
        if (count++ == 0) found = to_object(row, table.columns);
    }));
    if (count == 0)
        return fail(
            errc::not_found, fmt::format("there is no {} '{}'", what, to_valid_utf8(value.substr(0, 100)))
        );
    if (count > 1)
        return fail(
            errc::invalid_input, fmt::format("'{}' fits {} {}s; give more digits", value, count, what)
        );
    return found;
}

}  // namespace

result<json::object> list_events(Database& db, const ListQuery& query) { return list(db, events, query); }
result<json::object> list_fingerprints(Database& db, const ListQuery& query) {
    return list(db, fingerprints, query);
}
result<json::object> list_bugs(Database& db, const ListQuery& query) { return list(db, bugs, query); }
result<json::object> list_logs(Database& db, const ListQuery& query) { return list(db, logs, query); }
result<json::object> list_audit(Database& db, const ListQuery& query) { return list(db, audit, query); }

result<json::object> list_patch_runs(Database& db, const ListQuery& query) { return list(db, runs, query); }
result<json::object> list_patterns(Database& db, const ListQuery& query) { return list(db, patterns, query); }
result<json::object> list_fixes(Database& db, const ListQuery& query) { return list(db, fixes, query); }

result<json::object> show_patch_run(Database& db, const std::string& id) {
    auto run = one(db, runs, "id = $1", id, "patch run");
    if (!run) return run.error();
    constexpr Statement rest{"patch and evidence", "SELECT patch, data FROM patch_runs WHERE id = $1"};
    HEAL_TRY(db.query(rest, {string_view{id}}, [&](const Row& row) {
        (*run)["patch"] = row.text(0);
        auto data = parse_json(row.text(1), "data");
        if (!data || !data->is_object()) return;
        (*run)["evidence"] = object_at(object_at(data->get_object(), "machine"), "evidence");
        (*run)["facts"] = object_at(data->get_object(), "facts");
        (*run)["held"] = string_at(data->get_object(), "held");
    }));
    return std::move(*run);
}

result<json::object> show_event(Database& db, const std::string& id) {
    auto event = one(db, events, "id = $1", id, "event");
    if (!event) return event.error();
    constexpr Statement decision{"select decision", "SELECT decision FROM self_heal_events WHERE id = $1"};
    HEAL_TRY(db.query(decision, {string_view{id}}, [&](const Row& row) {
        auto parsed = parse_json(row.text(0), "decision");
        (*event)["decision"] = parsed ? std::move(*parsed) : json::value(nullptr);
    }));
    json::array attempts;
    const Statement select{
        "attempts of event",
        interned(fmt::format(
            "SELECT {} FROM healing_results WHERE event_id = $1 ORDER BY started_at, id",
            names(attempt_columns)
        ))};
    HEAL_TRY(db.query(select, {string_view{id}}, [&](const Row& row) {
        attempts.push_back(to_object(row, attempt_columns));
    }));
    const Statement effects{
        "actions of attempt",
        interned(fmt::format(
            "SELECT {} FROM healing_actions WHERE result_id = $1 ORDER BY started_at, id",
            names(action_columns)
        ))};
    for (auto& attempt : attempts) {
        json::array steps;
        const std::string attempt_id{string_at(attempt.as_object(), "id")};
        HEAL_TRY(db.query(effects, {string_view{attempt_id}}, [&](const Row& row) {
            steps.push_back(to_object(row, action_columns));
        }));
        attempt.as_object()["actions"] = std::move(steps);
    }
    (*event)["attempts"] = std::move(attempts);
    return std::move(*event);
}

result<json::object> show_fingerprint(Database& db, const std::string& id, Time now) {
    if (id.size() < 4 || id.find_first_not_of("0123456789abcdef") != std::string::npos) {
        return fail(errc::invalid_input, "a fingerprint is 16 hex digits, or at least the first 4 of them");
    }
    auto found = one(db, fingerprints, "id = $1", id, "fingerprint");
    if (!found && id.size() < 16) {
        const std::string pattern = id + '%';
        found = one(db, fingerprints, "id LIKE $1 LIMIT 2", pattern, "fingerprint");
    }
    if (!found) return found.error();
    const std::string full{string_at(*found, "id")};
    json::object counts;
    constexpr Statement select_counts{
        "counts of fingerprint",
        "SELECT bucket_at, count FROM fingerprint_counts WHERE fingerprint = $1 AND resolution = $2 AND "
        "bucket_at >= $3 ORDER BY bucket_at"};
    static constexpr std::pair<string_view, std::int64_t> spans[] = {
        {"minute", 7'200'000'000LL}, {"hour", 172'800'000'000LL}, {"day", 7'776'000'000'000LL}};
    for (const auto& [resolution, span] : spans) {
        json::array buckets;
        HEAL_TRY(db.query(select_counts, {string_view{full}, resolution, now.us - span}, [&](const Row& row) {
            buckets.push_back(json::object{
                {"at", to_rfc3339(Time{row.integer(0)})}, {"count", row.integer(1)}});
        }));
        counts[resolution] = std::move(buckets);
    }
    (*found)["counts"] = std::move(counts);
    ListQuery recent{{{"fingerprint", full}}, "", 5};
    auto samples = list_logs(db, recent);
    if (!samples) return samples.error();
    (*found)["samples"] = (*samples)["items"];
    auto related = list_events(db, recent);
    if (!related) return related.error();
    (*found)["events"] = (*related)["items"];
    return std::move(*found);
}

result<json::object> show_bug(Database& db, const std::string& id_or_code) {
    auto found =
        one(db, bugs, id_or_code.starts_with("BUG-") ? "bug_code = $1" : "id = $1", id_or_code, "bug");
    if (!found) return found.error();
    auto entries = list_logs(db, {{{"related_bug_id", std::string{string_at(*found, "id")}}}, "", 20});
    if (!entries) return entries.error();
    (*found)["logs"] = (*entries)["items"];
    auto history = bug_history(db, std::string{string_at(*found, "id")});
    if (!history) return history.error();
    (*found)["history"] = std::move(*history);
    return std::move(*found);
}

namespace {

json::value ratio(std::int64_t part, std::int64_t whole) {
    if (whole <= 0) return nullptr;
    return static_cast<double>(part) / static_cast<double>(whole);
}

/// The figures of one set of incidents: all, or those of one class of error.
struct IncidentFigures {
    json::object by_state, by_resolution;
    Percentiles lag, mtta, mttm, mttr, between;
    std::map<std::string, Percentiles> mttr_by;
    std::int64_t total = 0, healed = 0, automatic = 0, did_not_hold = 0, escalated = 0, self_resolved = 0,
                 covered = 0, control = 0, control_recovered = 0, reviewed = 0, false_positives = 0;

    void add(const Row& r) {
        const auto bump = [](json::object& o, const std::string& key) { o[key] = int_at(o, key) + 1; };
        ++total;
        const std::string state = r.text(0), resolution = r.text(1), review = r.text(9);
        bump(by_state, state);
        if (!resolution.empty()) bump(by_resolution, resolution);
        lag.values.push_back(std::max<std::int64_t>(0, r.integer(3) - r.integer(2)));
        if (!r.is_null(4)) mtta.values.push_back(r.integer(4) - r.integer(3));
        if (!r.is_null(5)) mttm.values.push_back(r.integer(5) - r.integer(3));
        const bool good = state == "healed" || state == "held";
        if (good && !r.is_null(6)) {
            mttr.values.push_back(r.integer(6) - r.integer(3));
            mttr_by[resolution.empty() ? "auto" : resolution].values.push_back(r.integer(6) - r.integer(3));
        }
        if (resolution == "manual" && !r.is_null(6))
            mttr_by[resolution].values.push_back(r.integer(6) - r.integer(3));
        if (resolution == "self_resolved" && !r.is_null(7))
            mttr_by[resolution].values.push_back(r.integer(7) - r.integer(3));
        healed += good;
        automatic += good && resolution == "auto";
        did_not_hold += state == "did_not_hold";
        escalated += state == "escalated" || state == "suppressed";
        self_resolved += resolution == "self_resolved";
        covered += !r.is_null(4) || r.integer(10) > 0;
        if (r.text(8) == "control") {
            ++control;
            control_recovered += resolution == "self_resolved";
        }
        reviewed += !review.empty();
        false_positives += review == "false_positive";
    }
    json::object take() {
        json::object by;
        for (auto& [resolution, values] : mttr_by) by[resolution] = values.take();
        const auto needed = total - self_resolved;
        return json::object{
            {"incidents",
             json::object{
                 {"total", total},
                 {"by_state", std::move(by_state)},
                 {"by_resolution", std::move(by_resolution)}}},
            {"detection_lag", lag.take()},
            {"mtta", mtta.take()},
            {"mttm", mttm.take()},
            {"mttr", mttr.take()},
            {"mttr_by_resolution", std::move(by)},
            {"auto_heal_rate", ratio(automatic, needed)},
            {"held_rate", ratio(healed, healed + did_not_hold)},
            {"escalation_rate", ratio(escalated, total)},
            {"coverage", ratio(covered, total)},
            {"false_positives",
             json::object{
                 {"reviewed", reviewed},
                 {"false_positives", false_positives},
                 {"rate", ratio(false_positives, reviewed)}}},
            {"control",
             json::object{
                 {"n", control},
                 {"recovered", control_recovered},
                 {"rate", ratio(control_recovered, control)}}}};
    }
};

constexpr std::size_t most_classes = 200;

}  // namespace

result<json::object> healing_stats(Database& db, Time from, Time to) {
    constexpr Statement select_events{
        "stats of events",
        "SELECT e.state, e.resolution, e.first_event_at, e.opened_at, e.claimed_at, e.action_at, "
        "e.healed_at, "
        "e.closed_at, e.arm, e.review, COUNT(r.id), COALESCE(MAX(r.error_class), ''), e.target FROM "
        "self_heal_events e LEFT JOIN healing_results r ON r.event_id = e.id WHERE e.opened_at >= $1 AND "
        "e.opened_at < $2 GROUP BY e.id ORDER BY e.opened_at"};
    IncidentFigures all;
    std::map<std::string, IncidentFigures> by_class;
    std::map<std::string, std::int64_t> last_of_target;
    HEAL_TRY(db.query(select_events, {from.us, to.us}, [&](const Row& r) {
        all.add(r);
        if (const auto [it, fresh] = last_of_target.try_emplace(r.text(12), r.integer(3)); !fresh) {
            all.between.values.push_back(r.integer(3) - it->second);
            it->second = r.integer(3);
        }
        const auto known = r.text(11);
        if (known.empty() || (by_class.size() >= most_classes && !by_class.contains(known))) return;
        by_class[known].add(r);
    }));
    constexpr Statement select_strategies{
        "stats of strategies",
        "SELECT r.strategy, r.error_class, r.state, r.verified, r.harm, r.rolled_back, e.state, e.opened_at, "
        "e.healed_at, e.healed_by, r.confidence, r.score FROM healing_results r JOIN self_heal_events e ON "
        "e.id "
        "= r.event_id WHERE r.dry_run = 0 AND r.started_at >= $1 AND r.started_at < $2"};
    struct Strategy {
        std::int64_t attempts = 0, verified = 0, did_not_hold = 0, failed = 0, unknown = 0, declined = 0,
                     rolled_back = 0, harmed = 0, held = 0;
        Percentiles mttr;
        void add(const Row& r) {
            const std::string state = r.text(2), result = r.text(3);
            ++attempts;
            verified += result == "succeeded";
            did_not_hold += result == "did_not_hold";
            failed += result == "failed" || state == "failed";
            unknown += state == "unknown" || result == "unknown";
            declined += state == "declined";
            rolled_back += r.text(5) == "succeeded";
            harmed += !r.text(4).empty();
            held += result == "succeeded" && r.text(6) == "held";
            if (result == "succeeded" && !r.is_null(8)) mttr.values.push_back(r.integer(8) - r.integer(7));
        }
        json::object take(json::object o) {
            o["attempts"] = attempts;
            o["verified"] = verified;
            o["held"] = held;
            o["did_not_hold"] = did_not_hold;
            o["failed"] = failed;
            o["unknown"] = unknown;
            o["declined"] = declined;
            o["rolled_back"] = rolled_back;
            o["harmed"] = harmed;
            o["success_rate"] = ratio(verified, attempts);
            o["held_rate"] = ratio(verified, verified + did_not_hold);
            o["harm_rate"] = ratio(harmed, attempts);
            o["mttr"] = mttr.take();
            return o;
        }
    };
    Strategy together;
    std::map<std::string, Strategy> by_strategy;
    std::map<std::pair<std::string, std::string>, Strategy> by_both;
    HEAL_TRY(db.query(select_strategies, {from.us, to.us}, [&](const Row& r) {
        together.add(r);
        by_strategy[r.text(0)].add(r);
        const auto key = std::make_pair(r.text(0), r.text(1));
        if (by_both.size() < most_classes || by_both.contains(key)) by_both[key].add(r);
    }));
    json::array strategies, pairs, classes;
    for (auto& [name, s] : by_strategy) strategies.push_back(s.take({{"strategy", name}}));
    for (auto& [key, s] : by_both)
        pairs.push_back(s.take({{"strategy", key.first}, {"error_class", key.second}}));
    for (auto& [name, figures] : by_class) {
        json::object o{{"error_class", name}};
        for (auto& item : figures.take()) o[item.key()] = std::move(item.value());
        classes.push_back(std::move(o));
    }
    json::object out{{"from", to_rfc3339(from)}, {"to", to_rfc3339(to)}};
    const auto healed = all.automatic, needed = all.total - all.self_resolved;
    for (auto& item : all.take()) out[item.key()] = std::move(item.value());
    out["mtbi"] = all.between.take();
    out["action_success_rate"] = ratio(together.verified, together.attempts);
    out["harm_rate"] = ratio(together.harmed, together.attempts);
    // What would have recovered anyway is taken off: only with a control arm.
    out["attributable_rate"] =
        all.control > 0 && needed > 0
            ? json::value(
                  static_cast<double>(healed) / static_cast<double>(needed) *
                  (1 - static_cast<double>(all.control_recovered) / static_cast<double>(all.control))
              )
            : json::value(nullptr);
    out["strategies"] = std::move(strategies);
    out["by_strategy_and_class"] = std::move(pairs);
    out["by_class"] = std::move(classes);
    return out;
}

result<json::object> ingest_totals(Database& db) {
    constexpr Statement select{
        "select ingest_totals",
        "SELECT source, lines, records, below_level, malformed, truncated, self, bytes, joined FROM "
        "ingest_totals ORDER BY source"};
    static constexpr const char* keys[] = {
        "lines", "records", "below_level", "malformed", "truncated", "self", "bytes", "joined"};
    json::object sum;
    json::array sources;
    for (const char* key : keys) sum[key] = 0;
    HEAL_TRY(db.query(select, {}, [&](const Row& r) {
        json::object o{{"source", r.text(0)}};
        for (int i = 0; i < 8; ++i) {
            o[keys[i]] = r.integer(i + 1);
            sum[keys[i]] = int_at(sum, keys[i]) + r.integer(i + 1);
        }
        sources.push_back(std::move(o));
    }));
    sum["sources"] = std::move(sources);
    return sum;
}

}  // namespace heal::sql
