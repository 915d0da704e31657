#include "store/healing_store.hpp"

#include "base/id.hpp"
#include "core/rules.hpp"
#include "store/brain_store.hpp"
#include "store/bug_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <numeric>
#include <tuple>
#include <unordered_set>

namespace heal::sql {
namespace {

using std::int64_t;
using std::string_view;

int64_t number(std::uint64_t value) { return static_cast<int64_t>(value); }

/// Text that came from outside may hold NUL and broken UTF-8; the store keeps only valid text (PostgreSQL
/// insists).
std::string clean(string_view bytes) {
    std::string text = to_valid_utf8(bytes);
    std::size_t at = 0;
    while ((at = text.find('\0', at)) != std::string::npos) text.replace(at, 1, "\xEF\xBF\xBD");
    return text;
}

constexpr Statement upsert_fingerprint{
    "upsert error_fingerprints",
    "INSERT INTO error_fingerprints (id, digest, mechanism, service_name, environment, log_level, "
    "error_type, pattern, stack_signature, "
    "severity, occurrence_count, first_seen_at, last_seen_at, last_release) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) "
    "ON CONFLICT (id) DO UPDATE SET occurrence_count = error_fingerprints.occurrence_count + "
    "excluded.occurrence_count, "
    "environment = excluded.environment, log_level = excluded.log_level, severity = excluded.severity, "
    "first_seen_at = CASE WHEN excluded.first_seen_at < error_fingerprints.first_seen_at THEN "
    "excluded.first_seen_at "
    "ELSE error_fingerprints.first_seen_at END, "
    "last_seen_at = CASE WHEN excluded.last_seen_at > error_fingerprints.last_seen_at THEN "
    "excluded.last_seen_at "
    "ELSE error_fingerprints.last_seen_at END, "
    "last_release = CASE WHEN excluded.last_release <> '' THEN excluded.last_release ELSE "
    "error_fingerprints.last_release END "
    "WHERE error_fingerprints.digest = excluded.digest"};

constexpr Statement upsert_count{
    "upsert fingerprint_counts",
    "INSERT INTO fingerprint_counts (fingerprint, resolution, bucket_at, count) VALUES ($1, $2, $3, $4) "
    "ON CONFLICT (fingerprint, resolution, bucket_at) DO UPDATE SET count = fingerprint_counts.count + "
    "excluded.count"};

constexpr Statement insert_log{
    "insert log_entries",
    "INSERT INTO log_entries (id, fingerprint, service_name, environment, log_level, message, error_type, "
    "stack_trace, context, timestamp, "
    "received_at, http_status, component, request_id, workspace_id, trace_id, release, host, source, "
    "represents) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)"};

constexpr Statement upsert_offset{
    "upsert ingest_offsets",
    "INSERT INTO ingest_offsets (source, device, inode, byte_offset, head_hash, updated_at) VALUES ($1, $2, "
    "$3, $4, $5, $6) "
    "ON CONFLICT (source) DO UPDATE SET device = excluded.device, inode = excluded.inode, byte_offset = "
    "excluded.byte_offset, "
    "head_hash = excluded.head_hash, updated_at = excluded.updated_at"};
constexpr Statement select_offsets{
    "select ingest_offsets", "SELECT source, device, inode, byte_offset, head_hash FROM ingest_offsets"};

constexpr Statement upsert_totals{
    "upsert ingest_totals",
    "INSERT INTO ingest_totals (source, lines, records, below_level, malformed, truncated, self, bytes, "
    "joined) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "
    "ON CONFLICT (source) DO UPDATE SET lines = ingest_totals.lines + excluded.lines, records = "
    "ingest_totals.records + excluded.records, "
    "below_level = ingest_totals.below_level + excluded.below_level, malformed = ingest_totals.malformed + "
    "excluded.malformed, "
    "truncated = ingest_totals.truncated + excluded.truncated, self = ingest_totals.self + excluded.self, "
    "bytes = ingest_totals.bytes + excluded.bytes, joined = ingest_totals.joined + excluded.joined"};

constexpr Statement select_batch{
    "select ingest_batches", "SELECT 1 FROM ingest_batches WHERE batch_key = $1"};
constexpr Statement insert_batch{
    "insert ingest_batches",
    "INSERT INTO ingest_batches (batch_key, received_at, records) VALUES ($1, $2, $3) ON CONFLICT "
    "(batch_key) DO NOTHING"};

constexpr Statement select_minutes{
    "select minute counts",
    "SELECT fingerprint, bucket_at, count FROM fingerprint_counts WHERE resolution = 'minute' AND bucket_at "
    ">= $1 ORDER BY bucket_at"};

constexpr Statement select_newest_bug{
    "select newest bug of fingerprint",
    "SELECT id, bug_code, related_log_ids, status, last_release, fixed_in_release, last_occurred_at, "
    "merged_into "
    "FROM system_bugs WHERE fingerprint = $1 ORDER BY detected_at DESC, id DESC LIMIT 1"};
constexpr Statement select_bug_by_id{
    "select bug that took another in",
    "SELECT id, bug_code, related_log_ids, status, last_release, fixed_in_release, last_occurred_at, "
    "merged_into "
    "FROM system_bugs WHERE id = $1"};
constexpr Statement next_bug_code{
    "next bug code",
    "INSERT INTO bug_codes (day, last) VALUES ($1, 1) ON CONFLICT (day) DO UPDATE SET last = bug_codes.last "
    "+ 1 RETURNING last"};
constexpr Statement insert_bug{
    "insert system_bugs",
    "INSERT INTO system_bugs (id, bug_code, fingerprint, title, severity, bug_type, status, service_name, "
    "environment, error_type, message, "
    "stack_trace, occurrence_count, first_occurred_at, last_occurred_at, detected_at, updated_at, opened_by, "
    "related_log_ids, last_release) "
    "VALUES ($1, $2, $3, $4, $5, $6, 'detected', $7, $8, $9, $10, $11, $12, $13, $14, $15, $15, $16, $17, "
    "$18)"};
constexpr Statement count_bug{
    "count system_bugs",
    "UPDATE system_bugs SET occurrence_count = occurrence_count + $2, last_occurred_at = CASE WHEN $3 > "
    "last_occurred_at THEN $3 "
    "ELSE last_occurred_at END, updated_at = $4, related_log_ids = $5, last_release = CASE WHEN $6 <> '' AND "
    "status NOT IN ('fixed', 'closed', 'rejected') THEN $6 ELSE last_release END WHERE id = $1"};
constexpr Statement link_log{"link log to bug", "UPDATE log_entries SET related_bug_id = $2 WHERE id = $1"};

constexpr Statement insert_event_row{
    "insert self_heal_events",
    "INSERT INTO self_heal_events (id, fingerprint, service_name, environment, target, severity, "
    "trigger_name, state, resolution, reason, "
    "occurrence_count, first_event_at, opened_at, claimed_at, updated_at, healed_by, incident, decision) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, 'open', '', '', 0, $8, $9, $9, $9, '', $10, '{}') ON CONFLICT "
    "(id) DO NOTHING"};
constexpr Statement hear_event{
    "count self_heal_events",
    "UPDATE self_heal_events SET occurrence_count = occurrence_count + $2, bug_id = COALESCE(bug_id, $3), "
    "updated_at = $4 WHERE id = $1"};
constexpr Statement move_event_row{
    "move self_heal_events",
    "UPDATE self_heal_events SET state = $2, reason = $3, updated_at = $4 WHERE id = $1"};
constexpr Statement decide_event{
    "decide self_heal_events", "UPDATE self_heal_events SET decision = $2, updated_at = $3 WHERE id = $1"};
constexpr Statement heal_event{
    "heal self_heal_events",
    "UPDATE self_heal_events SET state = 'healing', reason = '', action_at = "
    "COALESCE(action_at, $2), updated_at = $3 WHERE id = $1"};
constexpr Statement end_event{
    "end self_heal_events",
    "UPDATE self_heal_events SET state = $2, reason = $3, resolution = $4, healed_by = $5, healed_at = "
    "COALESCE($6, healed_at), "
    "hold_until = $7, closed_at = $8, updated_at = $8 WHERE id = $1"};
constexpr Statement select_open_events{
    "select open events",
    "SELECT id, incident, state, occurrence_count, opened_at, target FROM self_heal_events "
    "WHERE state IN ('open', 'awaiting_approval', 'healing', 'verifying', 'stabilizing')"};
constexpr Statement select_open_event{
    "select open event of fingerprint",
    "SELECT id FROM self_heal_events WHERE fingerprint = $1 AND environment = $2 AND state IN ('open', "
    "'awaiting_approval', 'healing', 'verifying', 'stabilizing')"};
constexpr Statement select_holding{
    "select holding events",
    "SELECT id, fingerprint, environment, service_name, healed_by, healed_at, hold_until FROM "
    "self_heal_events WHERE state = 'healed'"};

constexpr Statement insert_attempt_row{
    "insert healing_results",
    "INSERT INTO healing_results (id, event_id, fingerprint, service_name, target, strategy, version, build, "
    "rank, priority, confidence, score, "
    "idempotent, dry_run, state, verified, rolled_back, request, text, detail, evidence, started_at, "
    "undecided) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'started', '', '', $15, '', '{}', "
    "'[]', $16, $17)"};
constexpr Statement decide_attempt_row{
    "decide healing_results", "UPDATE healing_results SET undecided = 0 WHERE id = $1"};
constexpr Statement decide_attempts{
    "decide healing_results of event",
    "UPDATE healing_results SET undecided = 0 WHERE event_id = $1 AND undecided = 1"};
constexpr Statement insert_intent{"insert intents", "INSERT INTO intents (id, body) VALUES ($1, $2)"};
constexpr Statement delete_intent{"delete intents", "DELETE FROM intents WHERE id = $1"};
constexpr Statement select_intents{"select intents", "SELECT id, body FROM intents ORDER BY id"};
constexpr Statement end_attempt_row{
    "end healing_results",
    "UPDATE healing_results SET state = $2, text = $3, detail = $4, ended_at = $5 WHERE id = $1 AND state IN "
    "('started', 'executed')"};
constexpr Statement verify_attempt_row{
    "verify healing_results",
    "UPDATE healing_results SET verified = $2, evidence = CASE WHEN $3 = '' THEN evidence ELSE $3 END, "
    "verified_at = $4, "
    "state = CASE WHEN state = 'executed' THEN CASE WHEN $2 IN ('succeeded', 'did_not_hold') THEN "
    "'succeeded' WHEN $2 = 'failed' THEN 'failed' "
    "ELSE 'unknown' END ELSE state END WHERE id = $1"};
constexpr Statement rollback_attempt_row{
    "roll back healing_results", "UPDATE healing_results SET rolled_back = $2 WHERE id = $1"};
constexpr Statement select_attempts{
    "select healing_results of event",
    "SELECT id, event_id, fingerprint, service_name, target, strategy, version, build, rank, priority, "
    "confidence, score, idempotent, dry_run, "
    "request, state, verified, rolled_back, text, started_at, ended_at, undecided FROM healing_results WHERE "
    "event_id = $1 ORDER BY started_at, id"};
constexpr Statement select_open_attempts{
    "select healing_results of open events",
    "SELECT r.id, r.event_id, r.fingerprint, r.service_name, r.target, r.strategy, r.version, r.build, "
    "r.rank, "
    "r.priority, r.confidence, r.score, r.idempotent, r.dry_run, r.request, r.state, r.verified, "
    "r.rolled_back, r.text, r.started_at, r.ended_at, r.undecided FROM self_heal_events e JOIN "
    "healing_results r "
    "ON "
    "r.event_id = e.id WHERE e.state IN ('open', 'awaiting_approval', 'healing', 'verifying', "
    "'stabilizing')"};
constexpr Statement end_cut_off_rows{
    "end healing_results that were cut off",
    "UPDATE healing_results SET state = 'unknown', text = $1, ended_at = $2 WHERE state = 'started' AND "
    "idempotent = 0 AND dry_run = 0 AND event_id IN (SELECT id FROM self_heal_events WHERE state IN ('open', "
    "'awaiting_approval', 'healing', 'verifying', 'stabilizing'))"};

constexpr Statement insert_action_row{
    "insert healing_actions",
    "INSERT INTO healing_actions (id, result_id, event_id, phase, step, kind, summary, parameters, "
    "capability, changes_world, undoable, undo, "
    "undoes_step, state, result, error, started_at, duration_us) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'begun', '{}', '', $14, 0) "
    "ON CONFLICT (result_id, phase, step) DO UPDATE SET state = 'begun', started_at = excluded.started_at, "
    "undo = excluded.undo"};
constexpr Statement end_action_row{
    "end healing_actions",
    "UPDATE healing_actions SET state = $4, result = $5, error = $6, duration_us = $7 WHERE result_id = $1 "
    "AND phase = $2 AND step = $3"};
constexpr Statement select_undoable{
    "select undoable actions",
    "SELECT id, phase, step, kind, summary, parameters, capability, undo, state FROM healing_actions "
    "WHERE result_id = $1 AND phase = 'execute' AND undoable = 1 AND state IN ('begun', 'done', 'failed') "
    "ORDER BY step DESC"};
constexpr Statement mark_undone_row{
    "mark action undone",
    "UPDATE healing_actions SET state = 'undone' WHERE result_id = $1 AND phase = 'execute' AND step = $2"};

constexpr Statement upsert_setting{
    "upsert strategy_settings",
    "INSERT INTO strategy_settings (strategy, priority, enabled, autonomy, floor, updated_at, updated_by) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7) "
    "ON CONFLICT (strategy) DO UPDATE SET priority = COALESCE(excluded.priority, "
    "strategy_settings.priority), "
    "enabled = COALESCE(excluded.enabled, strategy_settings.enabled), autonomy = COALESCE(excluded.autonomy, "
    "strategy_settings.autonomy), "
    "floor = COALESCE(excluded.floor, strategy_settings.floor), updated_at = excluded.updated_at, updated_by "
    "= excluded.updated_by"};
constexpr Statement select_settings{
    "select strategy_settings", "SELECT strategy, priority, enabled, autonomy, floor FROM strategy_settings"};

constexpr Statement upsert_state{
    "upsert engine_state",
    "INSERT INTO engine_state (name, value, updated_at) VALUES ($1, $2, $3) "
    "ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at"};
constexpr Statement select_state{"select engine_state", "SELECT value FROM engine_state WHERE name = $1"};

constexpr Statement last_audit{
    "select last audit", "SELECT seq, hash FROM audit_log ORDER BY seq DESC LIMIT 1"};
constexpr Statement insert_audit{
    "insert audit_log",
    "INSERT INTO audit_log (seq, at, actor, action, subject, detail, previous, hash) VALUES ($1, $2, $3, $4, "
    "$5, $6, $7, $8)"};
constexpr Statement select_audit{
    "select audit chain",
    "SELECT seq, at, actor, action, subject, detail, previous, hash FROM audit_log ORDER BY seq"};

std::string audit_hash(
    string_view previous,
    int64_t seq,
    int64_t at,
    string_view actor,
    string_view action,
    string_view subject,
    string_view detail
) {
    return sha256_hex(fmt::format(
        "{}\x1f{}\x1f{}\x1f{}\x1f{}\x1f{}\x1f{}", previous, seq, at, actor, action, subject, detail
    ));
}

}  // namespace

result<std::vector<bool>> add_occurrences(Database& db, std::span<const Occurrences> all) {
    static constexpr std::pair<string_view, int64_t> resolutions[] = {
        {"minute", 60'000'000LL}, {"hour", 3'600'000'000LL}, {"day", 86'400'000'000LL}};
    std::vector<bool> stored(all.size());
    std::vector<std::size_t> left(all.size());
    std::iota(left.begin(), left.end(), std::size_t{0});
    // Two digests of one batch may share a short id: the second one meets the first.
    while (!left.empty()) {
        std::unordered_set<string_view> ids;
        std::vector<std::size_t> now, later;
        std::deque<std::string> texts;
        std::vector<Value> rows, counts;
        const auto text = [&](string_view bytes) { return string_view{texts.emplace_back(clean(bytes))}; };
        for (const std::size_t i : left) {
            const auto& o = all[i];
            const auto& r = *o.sample;
            if (!ids.insert(r.fingerprint).second) {
                later.push_back(i);
                continue;
            }
            now.push_back(i);
            rows.insert(
                rows.end(),
                {string_view{r.fingerprint},
                 string_view{r.digest},
                 int64_t{o.mechanism},
                 text(r.service_name),
                 text(r.environment),
                 string_view{to_string(r.level)},
                 text(r.error_type),
                 text(r.pattern),
                 text(o.signature),
                 string_view{to_string(o.severity)},
                 number(o.count),
                 o.first.us,
                 o.last.us,
                 text(r.release)}
            );
        }
        std::vector<bool> changed;
        HEAL_TRY(db.run_rows(upsert_fingerprint, rows, 14, &changed));
        for (std::size_t k = 0; k < now.size(); ++k) {
            if (!changed[k]) continue;
            const auto& o = all[now[k]];
            stored[now[k]] = true;
            for (const auto& [name, width] : resolutions)
                counts.insert(
                    counts.end(),
                    {string_view{o.sample->fingerprint}, name, o.last.us - o.last.us % width, number(o.count)}
                );
        }
        HEAL_TRY(db.run_rows(upsert_count, counts, 4, nullptr));
        left = std::move(later);
    }
    return stored;
}

result<void> add_occurrences(Database& db, const Occurrences& o) {
    auto stored = add_occurrences(db, std::span{&o, 1});
    if (!stored) return stored.error();
    if (!(*stored)[0])
        return fail(
            errc::conflict,
            fmt::format(
                "fingerprint {} belongs to another digest: a collision of the short id", o.sample->fingerprint
            )
        );
    return {};
}

result<void> insert_log_entry(
    Database& db, const std::string& id, const LogRecord& r, std::uint64_t represents
) {
    return db.post(
        insert_log,
        {string_view{id},
         string_view{r.fingerprint},
         string_view{clean(r.service_name)},
         string_view{clean(r.environment)},
         string_view{to_string(r.level)},
         string_view{clean(r.message)},
         string_view{clean(r.error_type)},
         string_view{clean(r.stack_trace)},
         string_view{clean(r.context)},
         r.time.us,
         r.received.us,
         int64_t{r.http_status},
         string_view{clean(r.component)},
         string_view{clean(r.request_id)},
         string_view{clean(r.workspace_id)},
         string_view{clean(r.trace_id)},
         string_view{clean(r.release)},
         string_view{clean(r.host)},
         string_view{clean(r.source)},
         number(represents)}
    );
}

result<void> save_offset(Database& db, const OffsetRow& row, Time now) {
    return db.post(
        upsert_offset,
        {string_view{row.source},
         number(row.device),
         number(row.inode),
         number(row.offset),
         string_view{row.head_hash},
         now.us}
    );
}

result<void> forget_offset(Database& db, const std::string& source) {
    constexpr Statement statement{"delete ingest_offsets", "DELETE FROM ingest_offsets WHERE source = $1"};
    return db.post(statement, {string_view{source}});
}

result<std::int64_t> forget_batches(Database& db, Time before) {
    constexpr Statement statement{
        "delete ingest_batches", "DELETE FROM ingest_batches WHERE received_at < $1"};
    return db.run(statement, {before.us});
}

result<std::vector<OffsetRow>> load_offsets(Database& db) {
    std::vector<OffsetRow> rows;
    HEAL_TRY(db.query(select_offsets, {}, [&](const Row& r) {
        rows.push_back(
            {r.text(0),
             static_cast<std::uint64_t>(r.integer(1)),
             static_cast<std::uint64_t>(r.integer(2)),
             static_cast<std::uint64_t>(r.integer(3)),
             r.text(4)}
        );
    }));
    return rows;
}

result<void> add_totals(Database& db, const std::string& source, const Totals& t) {
    return db.post(
        upsert_totals,
        {string_view{source},
         number(t.lines),
         number(t.records),
         number(t.below_level),
         number(t.malformed),
         number(t.truncated),
         number(t.self),
         number(t.bytes),
         number(t.joined)}
    );
}

result<bool> batch_known(Database& db, const std::string& key) {
    bool known = false;
    HEAL_TRY(db.query(select_batch, {string_view{key}}, [&](const Row&) { known = true; }));
    return known;
}

result<bool> claim_batch(Database& db, const std::string& key, std::uint64_t records, Time now) {
    auto changed = db.run(insert_batch, {string_view{key}, now.us, number(records)});
    if (!changed) return changed.error();
    return *changed == 1;
}

result<std::vector<WindowCount>> load_minute_counts(Database& db, Time from) {
    std::vector<WindowCount> rows;
    HEAL_TRY(db.query(select_minutes, {from.us}, [&](const Row& r) {
        rows.push_back({r.text(0), Time{r.integer(1)}, static_cast<std::uint64_t>(r.integer(2))});
    }));
    return rows;
}

result<void> save_fingerprint_decision(
    Database& db, const FingerprintDecision& d, const std::string& actor, const std::string& reason, Time now
) {
    constexpr Statement statement{
        "upsert fingerprint_decisions",
        "INSERT INTO fingerprint_decisions (fingerprint, canonical, decided_by, reason, decided_at) VALUES "
        "($1, $2, $3, $4, $5) "
        "ON CONFLICT (fingerprint) DO UPDATE SET canonical = excluded.canonical, decided_by = "
        "excluded.decided_by, reason = excluded.reason, "
        "decided_at = excluded.decided_at"};
    return db.post(
        statement,
        {string_view{d.fingerprint},
         string_view{d.canonical},
         string_view{clean(actor)},
         string_view{clean(reason)},
         now.us}
    );
}

result<std::vector<FingerprintDecision>> load_fingerprint_decisions(Database& db) {
    constexpr Statement statement{
        "select fingerprint_decisions",
        "SELECT fingerprint, canonical FROM fingerprint_decisions ORDER BY fingerprint"};
    std::vector<FingerprintDecision> rows;
    HEAL_TRY(db.query(statement, {}, [&](const Row& r) { rows.push_back({r.text(0), r.text(1)}); }));
    return rows;
}

result<std::vector<SampleText>> load_samples(Database& db, int64_t limit) {
    constexpr Statement statement{
        "select samples",
        "SELECT fingerprint, service_name, component, message, stack_trace, represents FROM log_entries "
        "ORDER BY received_at DESC LIMIT $1"};
    std::vector<SampleText> rows;
    HEAL_TRY(db.query(statement, {limit}, [&](const Row& r) {
        rows.push_back(
            {r.text(0), r.text(1), r.text(2), r.text(3), r.text(4), static_cast<std::uint64_t>(r.integer(5))}
        );
    }));
    return rows;
}

result<std::vector<PatternRow>> load_patterns(Database& db, const std::string& service) {
    constexpr Statement statement{
        "select patterns",
        "SELECT id, pattern, stack_signature FROM error_fingerprints WHERE service_name = $1 ORDER BY "
        "last_seen_at DESC LIMIT 20000"};
    std::vector<PatternRow> rows;
    HEAL_TRY(db.query(statement, {string_view{service}}, [&](const Row& r) {
        rows.push_back({r.text(0), r.text(1), r.text(2)});
    }));
    return rows;
}

result<std::optional<BugRef>> open_or_count_bug(
    Database& db,
    const Clock& clock,
    const LogRecord& r,
    Severity severity,
    const std::string& rule,
    std::uint64_t count,
    Time now,
    const std::string& log_id
) {
    constexpr int64_t day_us = 86'400'000'000LL;
    BugRef bug;
    KnownBug known;
    std::string log_ids, merged_into;
    const auto read = [&](const Row& row) {
        bug.id = row.text(0);
        bug.code = row.text(1);
        log_ids = row.text(2);
        parse_bug_status(row.text(3), known.status);
        known.last_release = row.text(4);
        known.fixed_in_release = row.text(5);
        known.within_a_day = row.integer(6) >= now.us - day_us;
        merged_into = row.text(7);
    };
    HEAL_TRY(db.query(select_newest_bug, {string_view{r.fingerprint}}, read));
    // Where it was merged into another, that one counts; a chain is followed so far and no further.
    constexpr int most_hops = 8;
    for (int hops = 0; !merged_into.empty() && hops < most_hops; ++hops) {
        const std::string next = merged_into;
        HEAL_TRY(db.query(select_bug_by_id, {string_view{next}}, read));
    }
    const auto effect = bug.id.empty() ? BugEffect::open_new : effect_of(known, r.release);
    if (effect == BugEffect::open_new) {
        if (rule.empty()) return std::optional<BugRef>{};
        bug = {};
        log_ids.clear();
    }
    json::array ids;
    if (!log_ids.empty()) {
        if (auto parsed = parse_json(log_ids, "related_log_ids"); parsed && parsed->is_array())
            ids = std::move(parsed->get_array());
    }
    // The first 20 and nothing more: each log entry points to its bug by itself; this list is the quick way
    // in.
    if (!log_id.empty() && ids.size() < 20) ids.emplace_back(log_id);
    const std::string ids_text = json::serialize(ids);
    if (!bug.id.empty()) {
        const std::string release = clean(r.release);
        HEAL_TRY(db.post(
            count_bug,
            {string_view{bug.id},
             number(count),
             r.time.us,
             now.us,
             string_view{ids_text},
             string_view{release}}
        ));
        if (effect == BugEffect::reopen) {
            const std::string why = release.empty() ? "it came back" : "it came back in release " + release;
            HEAL_TRY(move_bug(db, clock, bug.id, BugStatus::reopened, "heald", why));
        }
    } else {
        bug.opened = true;
        bug.id = new_id(clock);
        const std::string today = to_rfc3339(now).substr(0, 10);
        const std::string day = today.substr(0, 4) + today.substr(5, 2) + today.substr(8, 2);
        int64_t last = 0;
        HEAL_TRY(db.query(next_bug_code, {string_view{day}}, [&](const Row& row) { last = row.integer(0); }));
        bug.code = fmt::format("BUG-{}-{:05}", day, last);
        HEAL_TRY(db.post(
            insert_bug,
            {string_view{bug.id},
             string_view{bug.code},
             string_view{r.fingerprint},
             string_view{clean(title_of(r))},
             string_view{to_string(severity)},
             string_view{bug_type_of(r)},
             string_view{clean(r.service_name)},
             string_view{clean(r.environment)},
             string_view{clean(r.error_type)},
             string_view{clean(r.message)},
             string_view{clean(r.stack_trace)},
             number(count),
             r.time.us,
             r.time.us,
             now.us,
             string_view{rule},
             string_view{ids_text},
             string_view{clean(r.release)}}
        ));
        HEAL_TRY(note_bug(db, clock, bug.id, "heald", "open", "", "detected", rule));
    }
    if (!log_id.empty()) HEAL_TRY(db.post(link_log, {string_view{log_id}, string_view{bug.id}}));
    return std::optional<BugRef>{std::move(bug)};
}

result<void> set_event_target(Database& db, const std::string& event, const std::string& target, Time now) {
    constexpr Statement update{
        "set target of self_heal_events",
        "UPDATE self_heal_events SET target = $2, updated_at = $3 WHERE id = $1"};
    return db.post(update, {string_view{event}, string_view{target}, now.us});
}

result<void> insert_event(Database& db, const Incident& in, Time now) {
    return db.execute(
        insert_event_row,
        {string_view{in.id},
         string_view{in.fingerprint},
         string_view{clean(in.service_name)},
         string_view{clean(in.environment)},
         string_view{clean(in.target)},
         string_view{to_string(in.severity)},
         string_view{in.trigger},
         in.first_at.us,
         now.us,
         string_view{json::serialize(to_json(in))}}
    );
}

result<void> hear_for_event(
    Database& db, const std::string& event, std::uint64_t count, const std::string& bug_id, Time now
) {
    const Value bug = bug_id.empty() ? Value{nullptr} : Value{string_view{bug_id}};
    return db.post(hear_event, {string_view{event}, number(count), bug, now.us});
}

result<void> move_event(
    Database& db, const std::string& event, EventState state, const std::string& reason, Time now
) {
    return db.post(
        move_event_row,
        {string_view{event}, string_view{to_string(state)}, string_view{clean(reason)}, now.us}
    );
}

result<void> set_event_decision(
    Database& db, const std::string& event, const std::string& decision_json, Time now
) {
    return db.post(decide_event, {string_view{event}, string_view{decision_json}, now.us});
}

result<void> begin_healing(Database& db, const std::string& event, bool acts, Time now) {
    const Value acted = acts ? Value{now.us} : Value{nullptr};
    return db.post(heal_event, {string_view{event}, acted, now.us});
}

result<void> finish_event(Database& db, const std::string& event, const EventEnd& end, Time now) {
    HEAL_TRY(db.post(decide_attempts, {string_view{event}}));
    return db.post(
        end_event,
        {string_view{event},
         string_view{to_string(end.state)},
         string_view{clean(end.reason)},
         string_view{end.resolution},
         string_view{end.healed_by},
         or_null(end.healed_at),
         or_null(end.hold_until),
         now.us}
    );
}

result<std::vector<OpenEvent>> load_open_events(Database& db) {
    std::vector<OpenEvent> events;
    HEAL_TRY(db.query(select_open_events, {}, [&](const Row& r) {
        auto parsed = parse_json(r.text(1), "incident");
        if (!parsed || !parsed->is_object()) return;
        OpenEvent event;
        event.incident = incident_from_json(parsed->get_object());
        event.incident.id = r.text(0);
        parse_event_state(r.text(2), event.state);
        event.incident.count = static_cast<std::uint64_t>(r.integer(3));
        event.incident.opened_at = Time{r.integer(4)};
        event.incident.target = r.text(5);
        events.push_back(std::move(event));
    }));
    std::sort(events.begin(), events.end(), [](const OpenEvent& a, const OpenEvent& b) {
        return std::tie(a.incident.opened_at, a.incident.id) < std::tie(b.incident.opened_at, b.incident.id);
    });
    return events;
}

result<std::vector<QuietEvent>> load_recently_given_up(Database& db, Time from) {
    constexpr Statement statement{
        "select given up events",
        "SELECT fingerprint, environment, closed_at FROM self_heal_events WHERE state IN ('escalated', "
        "'suppressed') AND closed_at >= $1"};
    std::vector<QuietEvent> rows;
    HEAL_TRY(db.query(statement, {from.us}, [&](const Row& r) {
        rows.push_back({r.text(0), r.text(1), Time{r.integer(2)}});
    }));
    return rows;
}

result<std::vector<HeldEvent>> load_holding(Database& db) {
    std::vector<HeldEvent> events;
    HEAL_TRY(db.query(select_holding, {}, [&](const Row& r) {
        events.push_back(
            {r.text(0), r.text(1), r.text(2), r.text(3), r.text(4), Time{r.integer(5)}, Time{r.integer(6)}}
        );
    }));
    return events;
}

result<void> insert_attempt(Database& db, const AttemptRow& a) {
    return db.post(
        insert_attempt_row,
        {string_view{a.id},
         string_view{a.event},
         string_view{a.fingerprint},
         string_view{a.service},
         string_view{a.target},
         string_view{a.strategy},
         string_view{a.version},
         string_view{a.build},
         int64_t{a.rank},
         a.priority,
         a.confidence,
         a.score,
         int64_t{a.idempotent},
         int64_t{a.dry_run},
         string_view{a.request},
         a.started_at.us,
         int64_t{!a.dry_run}}
    );
}

namespace {

json::object to_json(const AttemptRow& a) {
    return {
        {"id", a.id},
        {"event", a.event},
        {"fingerprint", a.fingerprint},
        {"service", a.service},
        {"target", a.target},
        {"strategy", a.strategy},
        {"version", a.version},
        {"build", a.build},
        {"rank", a.rank},
        {"priority", a.priority},
        {"confidence", a.confidence},
        {"score", a.score},
        {"idempotent", a.idempotent},
        {"dry_run", a.dry_run},
        {"request", a.request},
        {"started_at", a.started_at.us}};
}

AttemptRow attempt_from(const json::object& o) {
    AttemptRow a;
    a.id = string_at(o, "id");
    a.event = string_at(o, "event");
    a.fingerprint = string_at(o, "fingerprint");
    a.service = string_at(o, "service");
    a.target = string_at(o, "target");
    a.strategy = string_at(o, "strategy");
    a.version = string_at(o, "version");
    a.build = string_at(o, "build");
    a.rank = static_cast<int>(int_at(o, "rank"));
    a.priority = int_at(o, "priority");
    a.confidence = double_at(o, "confidence");
    a.score = double_at(o, "score");
    a.idempotent = bool_at(o, "idempotent");
    a.dry_run = bool_at(o, "dry_run");
    a.request = string_at(o, "request");
    a.started_at = Time{int_at(o, "started_at")};
    return a;
}

Incident incident_of(const Intent& intent) {
    Incident incident;
    if (auto call = parse_json(intent.attempt.request, "request"); call && call->is_object())
        incident = incident_from_json(object_at(object_at(call->get_object(), "request"), "incident"));
    incident.target = intent.attempt.target;
    incident.opened_at = intent.opened_at;
    return incident;
}

/// Everything that an intent says, in the tables.
result<void> spread(Database& db, const Intent& intent) {
    const auto& a = intent.attempt;
    const auto incident = incident_of(intent);
    if (incident.id == a.event) HEAL_TRY(insert_event(db, incident, intent.opened_at));
    HEAL_TRY(insert_attempt(db, a));
    HEAL_TRY(set_attempt_class(db, a.id, intent.risk, error_class(incident.record)));
    HEAL_TRY(begin_healing(db, a.event, !a.dry_run, a.started_at));
    const json::object detail{
        {"event", a.event},
        {"strategy", a.strategy},
        {"build", a.build},
        {"target", a.target},
        {"dry_run", a.dry_run}};
    return append_audit(db, a.started_at, intent.actor, "attempt.start", a.id, json::serialize(detail));
}

}  // namespace

result<void> write_intent(Database& db, const Intent& intent) {
    if (db.dialect() == Dialect::postgres) return spread(db, intent);
    const json::object body{
        {"attempt", to_json(intent.attempt)},
        {"opened_at", intent.opened_at.us},
        {"risk", to_string(intent.risk)},
        {"actor", intent.actor}};
    return db.post(insert_intent, {string_view{intent.attempt.id}, string_view{json::serialize(body)}});
}

result<void> settle_intent(Database& db, const Intent& intent) {
    if (db.dialect() == Dialect::postgres) return {};
    auto there = db.run(delete_intent, {string_view{intent.attempt.id}});
    if (!there) return there.error();
    return *there == 1 ? spread(db, intent) : result<void>{};  // it could not be written: nothing was begun
}

result<std::int64_t> settle_intents(Database& db) {
    std::vector<Intent> left;
    HEAL_TRY(db.query(select_intents, {}, [&](const Row& r) {
        auto parsed = parse_json(r.text(1), "intents.body");
        if (!parsed || !parsed->is_object()) return;
        const auto& o = parsed->get_object();
        Intent intent;
        intent.attempt = attempt_from(object_at(o, "attempt"));
        intent.opened_at = Time{int_at(o, "opened_at")};
        parse_risk(string_at(o, "risk"), intent.risk);
        intent.actor = string_at(o, "actor");
        left.push_back(std::move(intent));
    }));
    for (auto& intent : left) {
        // An intent overtakes the end of the event before it: where the crash took that end, the store's open
        // event is the one that goes on, with this attempt as its newest.
        const auto incident = incident_of(intent);
        HEAL_TRY(db.query(
            select_open_event,
            {string_view{incident.fingerprint}, string_view{clean(incident.environment)}},
            [&](const Row& r) { intent.attempt.event = r.text(0); }
        ));
        HEAL_TRY(settle_intent(db, intent));
    }
    return static_cast<std::int64_t>(left.size());
}

result<void> end_attempt(
    Database& db,
    const std::string& attempt,
    const std::string& state,
    const std::string& text,
    const std::string& detail_json,
    Time now
) {
    return db.post(
        end_attempt_row,
        {string_view{attempt}, string_view{state}, string_view{clean(text)}, string_view{detail_json}, now.us}
    );
}

result<void> verify_attempt(
    Database& db,
    const std::string& attempt,
    const std::string& verified,
    const std::string& evidence_json,
    Time now
) {
    return db.post(
        verify_attempt_row, {string_view{attempt}, string_view{verified}, string_view{evidence_json}, now.us}
    );
}

result<void> set_rolled_back(Database& db, const std::string& attempt, const std::string& state) {
    return db.post(rollback_attempt_row, {string_view{attempt}, string_view{state}});
}

result<void> set_decided(Database& db, const std::string& attempt) {
    return db.post(decide_attempt_row, {string_view{attempt}});
}

namespace {
AttemptRow attempt_of(const Row& r) {
    AttemptRow a;
    a.id = r.text(0), a.event = r.text(1), a.fingerprint = r.text(2), a.service = r.text(3),
    a.target = r.text(4);
    a.strategy = r.text(5), a.version = r.text(6), a.build = r.text(7);
    a.rank = static_cast<int>(r.integer(8));
    a.priority = r.integer(9);
    a.confidence = r.real(10), a.score = r.real(11);
    a.idempotent = r.integer(12) != 0, a.dry_run = r.integer(13) != 0;
    a.request = r.text(14), a.state = r.text(15), a.verified = r.text(16), a.rolled_back = r.text(17),
    a.text = r.text(18);
    a.started_at = Time{r.integer(19)};
    if (!r.is_null(20)) a.ended_at = Time{r.integer(20)};
    a.undecided = r.integer(21) != 0;
    return a;
}
}  // namespace

result<std::vector<AttemptRow>> load_attempts(Database& db, const std::string& event) {
    std::vector<AttemptRow> rows;
    HEAL_TRY(db.query(select_attempts, {string_view{event}}, [&](const Row& r) {
        rows.push_back(attempt_of(r));
    }));
    return rows;
}

result<std::unordered_map<std::string, std::vector<AttemptRow>>> load_open_attempts(Database& db) {
    std::unordered_map<std::string, std::vector<AttemptRow>> rows;
    HEAL_TRY(db.query(select_open_attempts, {}, [&](const Row& r) {
        rows[r.text(1)].push_back(attempt_of(r));
    }));
    // Not by the store: it would sort whole rows, and there may be very many.
    for (auto& [event, of_event] : rows) {
        std::sort(of_event.begin(), of_event.end(), [](const AttemptRow& a, const AttemptRow& b) {
            return std::tie(a.started_at, a.id) < std::tie(b.started_at, b.id);
        });
    }
    return rows;
}

result<void> end_cut_off_attempts(Database& db, const std::string& text, Time now) {
    return db.post(end_cut_off_rows, {string_view{text}, now.us});
}

result<void> insert_action(Database& db, const ActionRow& a) {
    return db.post(
        insert_action_row,
        {string_view{a.id},
         string_view{a.attempt},
         string_view{a.event},
         string_view{a.phase},
         a.step,
         string_view{a.kind},
         string_view{clean(a.summary)},
         string_view{clean(a.parameters)},
         string_view{clean(a.capability)},
         int64_t{a.changes_world},
         int64_t{a.undoable},
         string_view{clean(a.undo)},
         a.undoes_step,
         a.started_at.us}
    );
}

result<void> end_action(
    Database& db,
    const std::string& attempt,
    const std::string& phase,
    int64_t step,
    const std::string& state,
    const std::string& result_json,
    const std::string& error,
    int64_t duration_us
) {
    return db.post(
        end_action_row,
        {string_view{attempt},
         string_view{phase},
         step,
         string_view{state},
         string_view{clean(result_json)},
         string_view{clean(error)},
         duration_us}
    );
}

result<std::vector<ActionRow>> load_undoable(Database& db, const std::string& attempt) {
    std::vector<ActionRow> rows;
    HEAL_TRY(db.query(select_undoable, {string_view{attempt}}, [&](const Row& r) {
        ActionRow a;
        a.id = r.text(0), a.phase = r.text(1), a.step = r.integer(2), a.kind = r.text(3),
        a.summary = r.text(4), a.parameters = r.text(5);
        a.capability = r.text(6), a.undo = r.text(7), a.state = r.text(8);
        a.attempt = attempt;
        a.changes_world = a.undoable = true;
        rows.push_back(std::move(a));
    }));
    return rows;
}

result<void> mark_undone(Database& db, const std::string& attempt, int64_t step) {
    return db.post(mark_undone_row, {string_view{attempt}, step});
}

result<void> save_strategy_setting(
    Database& db, const StrategySetting& s, const std::string& actor, Time now
) {
    return db.post(
        upsert_setting,
        {string_view{s.strategy},
         s.priority ? Value{*s.priority} : Value{nullptr},
         s.enabled ? Value{int64_t{*s.enabled}} : Value{nullptr},
         s.autonomy ? Value{string_view{to_string(*s.autonomy)}} : Value{nullptr},
         s.floor ? Value{*s.floor} : Value{nullptr},
         now.us,
         string_view{actor}}
    );
}

result<std::vector<StrategySetting>> load_strategy_settings(Database& db) {
    std::vector<StrategySetting> rows;
    HEAL_TRY(db.query(select_settings, {}, [&](const Row& r) {
        StrategySetting s;
        s.strategy = r.text(0);
        if (!r.is_null(1)) s.priority = r.integer(1);
        if (!r.is_null(2)) s.enabled = r.integer(2) != 0;
        if (Autonomy a{}; !r.is_null(3) && parse_autonomy(r.text(3), a)) s.autonomy = a;
        if (!r.is_null(4)) s.floor = r.real(4);
        rows.push_back(std::move(s));
    }));
    return rows;
}

result<void> save_engine_state(Database& db, const std::string& name, const std::string& value, Time now) {
    return db.post(upsert_state, {string_view{name}, string_view{value}, now.us});
}

result<std::optional<std::string>> load_engine_state(Database& db, const std::string& name) {
    std::optional<std::string> value;
    HEAL_TRY(db.query(select_state, {string_view{name}}, [&](const Row& r) { value = r.text(0); }));
    return value;
}

result<void> append_audit(
    Database& db,
    Time now,
    const std::string& actor,
    const std::string& action,
    const std::string& subject,
    const std::string& detail_json
) {
    int64_t seq = 0;
    std::string previous;
    HEAL_TRY(db.query(last_audit, {}, [&](const Row& r) {
        seq = r.integer(0);
        previous = r.text(1);
    }));
    ++seq;
    const std::string who = clean(actor), what = clean(subject), detail = clean(detail_json);
    const std::string hash = audit_hash(previous, seq, now.us, who, action, what, detail);
    return db.post(
        insert_audit,
        {seq,
         now.us,
         string_view{who},
         string_view{action},
         string_view{what},
         string_view{detail},
         string_view{previous},
         string_view{hash}}
    );
}

result<AuditCheck> verify_audit(Database& db) {
    AuditCheck check;
    std::string previous;
    HEAL_TRY(db.query(select_audit, {}, [&](const Row& r) {
        ++check.rows;
        const bool ok =
            r.integer(0) == check.rows && r.text(6) == previous &&
            r.text(7) ==
                audit_hash(previous, r.integer(0), r.integer(1), r.text(2), r.text(3), r.text(4), r.text(5));
        if (!ok && check.first_bad == 0) check.first_bad = r.integer(0);
        previous = r.text(7);
    }));
    return check;
}

}  // namespace heal::sql
