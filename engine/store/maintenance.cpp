#include "store/maintenance.hpp"

#include "store/queries.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <map>
#include <set>

namespace heal::sql {
namespace {

using std::int64_t;
using std::string_view;

constexpr int64_t minute_us = 60'000'000;

struct Sample {
    std::string id;
    Time received;
    int64_t represents = 1;
};

constexpr Statement select_crowded{
    "select crowded fingerprints",
    "SELECT fingerprint FROM log_entries GROUP BY fingerprint HAVING COUNT(*) > $1 LIMIT $2"};
constexpr Statement select_samples_of{
    "select samples of fingerprint",
    "SELECT id, received_at, represents FROM log_entries WHERE fingerprint = $1 ORDER BY received_at, id"};
constexpr Statement select_named{
    "select samples that bugs name", "SELECT related_log_ids FROM system_bugs WHERE fingerprint = $1"};
constexpr Statement delete_sample{"delete log_entries", "DELETE FROM log_entries WHERE id = $1"};
constexpr Statement take_over{
    "take over represents", "UPDATE log_entries SET represents = represents + $2 WHERE id = $1"};
constexpr Statement select_newest{
    "select newest sample",
    "SELECT id FROM log_entries WHERE fingerprint = $1 ORDER BY received_at DESC, id DESC LIMIT 1"};

result<std::set<std::string>> named_samples(Database& db, const std::string& fingerprint) {
    std::set<std::string> named;
    HEAL_TRY(db.query(select_named, {string_view{fingerprint}}, [&](const Row& r) {
        auto parsed = parse_json(r.text(0), "related_log_ids");
        if (!parsed || !parsed->is_array()) return;
        for (const auto& id : parsed->get_array()) {
            if (id.is_string()) named.emplace(id.as_string().c_str());
        }
    }));
    return named;
}

/// A number that has nothing to do with the time: the random end of a UUIDv7.
string_view lot_of(const Sample& s) {
    return string_view{s.id}.substr(s.id.size() > 12 ? s.id.size() - 12 : 0);
}

}  // namespace

result<Piece> thin_samples(Database& db, Time now, int64_t kinds) {
    std::vector<std::string> crowded;
    HEAL_TRY(db.query(select_crowded, {samples_before_thinning, kinds}, [&](const Row& r) {
        crowded.push_back(r.text(0));
    }));
    Piece piece;
    piece.more = static_cast<int64_t>(crowded.size()) == kinds;
    for (const auto& fingerprint : crowded) {
        std::vector<Sample> samples;
        HEAL_TRY(db.query(select_samples_of, {string_view{fingerprint}}, [&](const Row& r) {
            samples.push_back({r.text(0), Time{r.integer(1)}, r.integer(2)});
        }));
        auto named = named_samples(db, fingerprint);
        if (!named) return named.error();
        std::map<std::size_t, std::vector<const Sample*>> by_age;
        const std::size_t n = samples.size();
        for (std::size_t i = 1; i + newest_samples < n; ++i) {
            if (named->contains(samples[i].id)) continue;
            const auto age = std::max<int64_t>(0, (now - samples[i].received).count() / minute_us);
            by_age[std::bit_width(static_cast<std::uint64_t>(age))].push_back(&samples[i]);
        }
        int64_t moved = 0;
        for (auto& [age, group] : by_age) {
            // The same lots at every run: who survives now survives until it is older.
            std::sort(group.begin(), group.end(), [](const Sample* a, const Sample* b) {
                return lot_of(*a) < lot_of(*b);
            });
            for (std::size_t i = samples_per_age; i < group.size(); ++i) {
                HEAL_TRY(db.post(delete_sample, {string_view{group[i]->id}}));
                moved += group[i]->represents;
                ++piece.rows;
            }
        }
        if (moved > 0) HEAL_TRY(db.post(take_over, {string_view{samples.back().id}, moved}));
    }
    // Kinds that stay crowded although they were thinned (many named samples) must not make this go on for
    // ever.
    piece.more = piece.more && piece.rows > 0;
    return piece;
}

result<Piece> delete_samples(Database& db, Time before, int64_t limit, std::string& ret_cursor) {
    constexpr Statement statement{
        "select old samples",
        "SELECT id, fingerprint, represents, received_at FROM log_entries WHERE received_at < $1 AND "
        "(received_at, id) > ($2, $3) ORDER BY received_at, id LIMIT $4"};
    struct Old {
        std::string id, fingerprint;
        int64_t represents;
    };
    std::vector<Old> rows;
    int64_t from_at = 0;
    std::string from_id;
    if (const auto bar = ret_cursor.find('|'); bar != std::string::npos) {
        from_at = std::stoll(ret_cursor.substr(0, bar));
        from_id = ret_cursor.substr(bar + 1);
    }
    HEAL_TRY(db.query(statement, {before.us, from_at, string_view{from_id}, limit}, [&](const Row& r) {
        rows.push_back({r.text(0), r.text(1), r.integer(2)});
        ret_cursor = fmt::format("{}|{}", r.integer(3), r.text(0));
    }));
    Piece piece;
    piece.more = static_cast<int64_t>(rows.size()) == limit;
    std::map<std::string, std::string> newest;
    std::map<std::string, int64_t> moved;
    for (const auto& row : rows) {
        auto [it, fresh] = newest.try_emplace(row.fingerprint);
        if (fresh) {
            HEAL_TRY(db.query(select_newest, {string_view{row.fingerprint}}, [&](const Row& r) {
                it->second = r.text(0);
            }));
        }
        if (it->second == row.id) continue;
        HEAL_TRY(db.post(delete_sample, {string_view{row.id}}));
        moved[row.fingerprint] += row.represents;
        ++piece.rows;
    }
    for (const auto& [fingerprint, count] : moved)
        HEAL_TRY(db.post(take_over, {string_view{newest[fingerprint]}, count}));
    return piece;
}

result<int64_t> count_samples(Database& db) {
    constexpr Statement statement{"count log_entries", "SELECT COUNT(*) FROM log_entries"};
    int64_t n = 0;
    HEAL_TRY(db.query(statement, {}, [&](const Row& r) { n = r.integer(0); }));
    return n;
}

result<CleanedUp> cleanup_old_healing_data(Database& db, Time before, int64_t limit) {
    constexpr Statement select{
        "select old events",
        "SELECT id FROM self_heal_events WHERE closed_at < $1 AND state IN ('held', 'did_not_hold', "
        "'unverified', 'escalated', 'suppressed', 'closed') ORDER BY opened_at LIMIT $2"};
    constexpr Statement actions{"delete healing_actions", "DELETE FROM healing_actions WHERE event_id = $1"};
    constexpr Statement results{"delete healing_results", "DELETE FROM healing_results WHERE event_id = $1"};
    constexpr Statement events{"delete self_heal_events", "DELETE FROM self_heal_events WHERE id = $1"};
    std::vector<std::string> ids;
    HEAL_TRY(db.query(select, {before.us, limit}, [&](const Row& r) { ids.push_back(r.text(0)); }));
    CleanedUp gone;
    for (const auto& id : ids) {
        for (const auto& [statement, count] :
             {std::pair{&actions, &gone.actions}, {&results, &gone.results}, {&events, &gone.events}}) {
            auto n = db.run(*statement, {string_view{id}});
            if (!n) return n.error();
            *count += *n;
        }
    }
    gone.more = gone.events == limit;
    constexpr Statement patch_runs{
        "delete patch_runs",
        "DELETE FROM patch_runs WHERE id IN (SELECT id FROM patch_runs WHERE ended_at < $1 ORDER BY ended_at "
        "LIMIT $2)"};
    constexpr Statement suggestions{
        "delete ai_fix_suggestions",
        "DELETE FROM ai_fix_suggestions WHERE id IN (SELECT s.id FROM ai_fix_suggestions s WHERE "
        "s.created_at < $1 AND s.status "
        "IN ('rejected', 'superseded') AND NOT EXISTS (SELECT 1 FROM patch_runs r WHERE r.bug_id = s.bug_id "
        "AND r.suggestion_id "
        "= s.id) AND NOT EXISTS (SELECT 1 FROM auto_fix_history h WHERE h.bug_id = s.bug_id AND "
        "h.suggestion_id = s.id) ORDER "
        "BY s.created_at LIMIT $2)"};
    constexpr Statement analyses{
        "delete bug_analyses",
        "DELETE FROM bug_analyses WHERE id IN (SELECT a.id FROM bug_analyses a WHERE a.at < $1 AND EXISTS "
        "(SELECT 1 FROM "
        "bug_analyses n WHERE n.bug_id = a.bug_id AND (n.at > a.at OR (n.at = a.at AND n.id > a.id))) ORDER "
        "BY a.at LIMIT $2)"};
    constexpr Statement calls{
        "delete ai_calls",
        "DELETE FROM ai_calls WHERE id IN (SELECT id FROM ai_calls WHERE at < $1 ORDER BY at LIMIT $2)"};
    for (const auto& [statement, count] :
         {std::pair{&patch_runs, &gone.patch_runs},
          {&suggestions, &gone.suggestions},
          {&analyses, &gone.analyses},
          {&calls, &gone.ai_calls}}) {
        auto n = db.run(*statement, {before.us, limit});
        if (!n) return n.error();
        *count = *n;
        gone.more = gone.more || *n == limit;
    }
    return gone;
}

result<Piece> delete_old_counts(Database& db, Time minutes_before, Time hours_before) {
    // By whole days of data at most, so that one transaction stays short.
    constexpr Statement oldest{
        "select oldest count", "SELECT MIN(bucket_at) FROM fingerprint_counts WHERE resolution = $1"};
    constexpr Statement statement{
        "delete fingerprint_counts",
        "DELETE FROM fingerprint_counts WHERE resolution = $1 AND bucket_at < $2"};
    Piece piece;
    for (const auto& [resolution, before, step] :
         {std::tuple{"minute", minutes_before, int64_t{3600} * 1'000'000},
          {"hour", hours_before, int64_t{86'400} * 1'000'000}}) {
        int64_t from = before.us;
        HEAL_TRY(db.query(oldest, {string_view{resolution}}, [&](const Row& r) {
            if (!r.is_null(0)) from = r.integer(0);
        }));
        if (from >= before.us) continue;
        auto n = db.run(statement, {string_view{resolution}, std::min(before.us, from + step)});
        if (!n) return n.error();
        piece.rows += *n;
        piece.more = piece.more || from + step < before.us;
    }
    return piece;
}

result<Piece> delete_old_records(Database& db, Time before) {
    static constexpr Statement statements[] = {
        {"delete cron_execution_log",
         "DELETE FROM cron_execution_log WHERE started_at < $1 AND status <> 'running'"},
        {"delete service_health_checks", "DELETE FROM service_health_checks WHERE checked_at < $1"},
        {"delete system_health_metrics", "DELETE FROM system_health_metrics WHERE recorded_at < $1"},
        {"delete outbox", "DELETE FROM outbox WHERE status = 'published' AND published_at < $1"},
        {"delete outbox_publisher_stats", "DELETE FROM outbox_publisher_stats WHERE window_at < $1"},
        {"delete kafka_dlq_messages", "DELETE FROM kafka_dlq_messages WHERE processed_at < $1"}};
    Piece piece;
    for (const auto& statement : statements) {
        auto n = db.run(statement, {before.us});
        if (!n) return n.error();
        piece.rows += *n;
    }
    return piece;
}

result<StoreSize> store_size(Database& db) {
    constexpr Statement sqlite{
        "size of the store",
        "SELECT p.page_count * s.page_size, f.freelist_count * s.page_size FROM pragma_page_count() p, "
        "pragma_page_size() s, pragma_freelist_count() f"};
    constexpr Statement postgres{
        "size of the store",
        "SELECT COALESCE(SUM(pg_total_relation_size(c.oid)), 0)::bigint, 0 FROM pg_class c WHERE c.relkind = "
        "'r' "
        "AND c.relnamespace = current_schema()::regnamespace"};
    StoreSize size;
    HEAL_TRY(db.query(db.dialect() == Dialect::sqlite ? sqlite : postgres, {}, [&](const Row& r) {
        size = {r.integer(0), r.integer(1)};
    }));
    return size;
}

result<Piece> release_free_space(Database& db, int64_t pages) {
    if (db.dialect() != Dialect::sqlite) return Piece{};
    constexpr Statement free_pages{"free pages", "SELECT freelist_count FROM pragma_freelist_count()"};
    constexpr Statement release{"incremental_vacuum", "PRAGMA incremental_vacuum(1000)"};
    int64_t before = 0, after = 0;
    HEAL_TRY(db.query(free_pages, {}, [&](const Row& r) { before = r.integer(0); }));
    for (int64_t done = 0; done < pages && done < before; done += 1000) HEAL_TRY(db.run(release));
    HEAL_TRY(db.query(free_pages, {}, [&](const Row& r) { after = r.integer(0); }));
    return Piece{before - after, after > 0 && after < before};
}

result<int64_t> aggregate_metrics(Database& db, Time from, Time to) {
    constexpr Statement errors{
        "errors by service",
        "SELECT f.service_name, f.environment, SUM(c.count), COUNT(*) FROM fingerprint_counts c JOIN "
        "error_fingerprints f ON f.id = c.fingerprint WHERE c.resolution = 'minute' AND c.bucket_at >= $1 "
        "AND "
        "c.bucket_at < $2 GROUP BY f.service_name, f.environment"};
    constexpr Statement put{
        "upsert system_health_metrics",
        "INSERT INTO system_health_metrics (metric_name, service_name, environment, recorded_at, value, "
        "unit, "
        "samples) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (metric_name, service_name, environment, "
        "recorded_at) DO UPDATE SET value = excluded.value, unit = excluded.unit, samples = "
        "excluded.samples"};
    struct Figure {
        std::string name, service, environment;
        double value;
        const char* unit;
        int64_t samples;
    };
    std::vector<Figure> figures;
    const double minutes = static_cast<double>((to - from).count()) / static_cast<double>(minute_us);
    HEAL_TRY(db.query(errors, {from.us, to.us}, [&](const Row& r) {
        const auto n = static_cast<double>(r.integer(2));
        figures.push_back({"errors", r.text(0), r.text(1), n, "errors", r.integer(3)});
        figures.push_back({"error_rate", r.text(0), r.text(1), n / minutes, "errors/min", r.integer(3)});
    }));
    auto stats = healing_stats(db, from, to);
    if (!stats) return stats.error();
    const auto total = int_at(object_at(*stats, "incidents"), "total");
    figures.push_back({"incidents", "", "", static_cast<double>(total), "incidents", total});
    for (const char* rate : {"auto_heal_rate", "held_rate", "escalation_rate", "action_success_rate"}) {
        if (const auto* v = stats->if_contains(rate); v && v->is_double())
            figures.push_back({rate, "", "", v->as_double(), "ratio", total});
    }
    for (const auto& [key, name] :
         {std::pair{"detection_lag", "mttd"}, {"mtta", "mtta"}, {"mttm", "mttm"}, {"mttr", "mttr"}}) {
        const auto times = object_at(*stats, key);
        if (const auto* v = times.if_contains("p50_ms"); v && v->is_double())
            figures.push_back({std::string{name} + "_p50", "", "", v->as_double(), "ms", int_at(times, "n")});
    }
    for (const auto& f : figures) {
        HEAL_TRY(db.post(
            put,
            {string_view{f.name},
             string_view{f.service},
             string_view{f.environment},
             from.us,
             f.value,
             string_view{f.unit},
             f.samples}
        ));
    }
    return static_cast<int64_t>(figures.size());
}

// --- jobs
// ---------------------------------------------------------------------------------------------------------

result<void> declare_job(Database& db, const JobRow& job) {
    constexpr Statement statement{
        "declare cron_job_status",
        "INSERT INTO cron_job_status (job_name, description, schedule, enabled, state, node, lease_until, "
        "next_run_at, last_status, last_error, last_duration_us, run_count, failure_count) VALUES ($1, $2, "
        "$3, "
        "1, 'idle', '', 0, $4, '', '', 0, 0, 0) ON CONFLICT (job_name) DO UPDATE SET description = "
        "excluded.description, next_run_at = CASE WHEN cron_job_status.schedule = excluded.schedule THEN "
        "cron_job_status.next_run_at ELSE excluded.next_run_at END, schedule = excluded.schedule"};
    return db.post(
        statement,
        {string_view{job.name}, string_view{job.description}, string_view{job.schedule}, job.next_run.us}
    );
}

result<bool> claim_job(
    Database& db,
    const std::string& name,
    const std::string& node,
    const std::string& run_id,
    Time now,
    Time lease_until,
    bool at_once
) {
    constexpr Statement claim{
        "claim cron_job_status",
        "UPDATE cron_job_status SET state = 'running', node = $2, lease_until = $4, last_started_at = $3 "
        "WHERE "
        "job_name = $1 AND (state = 'idle' OR lease_until < $3) AND ($5 = 1 OR (enabled = 1 AND next_run_at "
        "<= "
        "$3))"};
    constexpr Statement abandon{
        "abandon cron_execution_log",
        "UPDATE cron_execution_log SET status = 'abandoned', ended_at = $2, error = 'its node was lost' "
        "WHERE "
        "job_name = $1 AND status = 'running'"};
    constexpr Statement begin{
        "insert cron_execution_log",
        "INSERT INTO cron_execution_log (id, job_name, node, status, started_at, duration_us, output, error) "
        "VALUES ($1, $2, $3, 'running', $4, 0, '', '')"};
    auto claimed = db.run(
        claim, {string_view{name}, string_view{node}, now.us, lease_until.us, int64_t{at_once ? 1 : 0}}
    );
    if (!claimed) return claimed.error();
    if (*claimed == 0) return false;
    HEAL_TRY(db.post(abandon, {string_view{name}, now.us}));
    HEAL_TRY(db.post(begin, {string_view{run_id}, string_view{name}, string_view{node}, now.us}));
    return true;
}

result<bool> extend_job(Database& db, const std::string& name, const std::string& run_id, Time lease_until) {
    constexpr Statement statement{
        "extend cron_job_status",
        "UPDATE cron_job_status SET lease_until = $3 WHERE job_name = $1 AND EXISTS (SELECT 1 FROM "
        "cron_execution_log l WHERE l.id = $2 AND l.status = 'running')"};
    auto n = db.run(statement, {string_view{name}, string_view{run_id}, lease_until.us});
    if (!n) return n.error();
    return *n == 1;
}

result<void> end_job(
    Database& db, const std::string& name, const std::string& run_id, const JobEnd& end, Time now
) {
    constexpr Statement log{
        "end cron_execution_log",
        "UPDATE cron_execution_log SET status = $2, ended_at = $3, duration_us = $3 - started_at, output = "
        "$4, "
        "error = $5 WHERE id = $1 AND status = 'running'"};
    constexpr Statement status{
        "end cron_job_status",
        "UPDATE cron_job_status SET state = 'idle', node = '', lease_until = 0, next_run_at = $2, "
        "last_ended_at "
        "= $3, last_status = $4, last_error = $5, last_duration_us = $3 - last_started_at, run_count = "
        "run_count "
        "+ 1, failure_count = failure_count + $6 WHERE job_name = $1"};
    const string_view word = end.ok ? "succeeded" : "failed";
    auto n =
        db.run(log, {string_view{run_id}, word, now.us, string_view{end.output}, string_view{end.error}});
    if (!n) return n.error();
    if (*n == 0) return {};  // taken for abandoned: another run has the row now
    return db.post(
        status,
        {string_view{name}, end.next_run.us, now.us, word, string_view{end.error}, int64_t{end.ok ? 0 : 1}}
    );
}

result<void> enable_job(Database& db, const std::string& name, bool enabled) {
    constexpr Statement statement{
        "enable cron_job_status", "UPDATE cron_job_status SET enabled = $2 WHERE job_name = $1"};
    auto n = db.run(statement, {string_view{name}, int64_t{enabled ? 1 : 0}});
    if (!n) return n.error();
    if (*n == 0)
        return fail(errc::not_found, fmt::format("there is no job '{}'; GET /api/v1/jobs lists them", name));
    return {};
}

result<std::vector<DueJob>> load_jobs(Database& db) {
    constexpr Statement statement{
        "select cron_job_status", "SELECT job_name, next_run_at, enabled FROM cron_job_status"};
    std::vector<DueJob> jobs;
    HEAL_TRY(db.query(statement, {}, [&](const Row& r) {
        jobs.push_back({r.text(0), Time{r.integer(1)}, r.integer(2) != 0});
    }));
    return jobs;
}

result<json::object> list_jobs(Database& db) {
    constexpr Statement jobs{
        "list cron_job_status",
        "SELECT job_name, description, schedule, enabled, state, node, next_run_at, last_started_at, "
        "last_ended_at, last_status, last_error, last_duration_us, run_count, failure_count FROM "
        "cron_job_status ORDER BY job_name"};
    constexpr Statement runs{
        "list cron_execution_log",
        "SELECT id, node, status, started_at, duration_us, output, error FROM cron_execution_log WHERE "
        "job_name "
        "= $1 ORDER BY started_at DESC LIMIT 5"};
    const auto time = [](const Row& r, int column) -> json::value {
        return r.is_null(column) ? json::value(nullptr) : json::value(to_rfc3339(Time{r.integer(column)}));
    };
    json::array items;
    HEAL_TRY(db.query(jobs, {}, [&](const Row& r) {
        items.push_back(json::object{
            {"job_name", r.text(0)},
            {"description", r.text(1)},
            {"schedule", r.text(2)},
            {"enabled", r.integer(3) != 0},
            {"state", r.text(4)},
            {"node", r.text(5)},
            {"next_run_at", time(r, 6)},
            {"last_started_at", time(r, 7)},
            {"last_ended_at", time(r, 8)},
            {"last_status", r.text(9)},
            {"last_error", r.text(10)},
            {"last_duration_us", r.integer(11)},
            {"run_count", r.integer(12)},
            {"failure_count", r.integer(13)}});
    }));
    for (auto& item : items) {
        json::array newest;
        const std::string name{string_at(item.as_object(), "job_name")};
        HEAL_TRY(db.query(runs, {string_view{name}}, [&](const Row& r) {
            newest.push_back(json::object{
                {"id", r.text(0)},
                {"node", r.text(1)},
                {"status", r.text(2)},
                {"started_at", time(r, 3)},
                {"duration_us", r.integer(4)},
                {"output", r.text(5)},
                {"error", r.text(6)}});
        }));
        item.as_object()["runs"] = std::move(newest);
    }
    return json::object{{"items", std::move(items)}};
}

}  // namespace heal::sql
