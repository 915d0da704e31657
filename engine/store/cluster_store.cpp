#include "store/cluster_store.hpp"

#include "base/id.hpp"
#include "base/json.hpp"

#include <fmt/format.h>

#include <set>

namespace heal::sql {
namespace {

using std::int64_t;
using std::string_view;

#define SERVER_NOW "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT"
#define OPEN_STATES "('open', 'awaiting_approval', 'healing', 'verifying', 'stabilizing')"

constexpr Statement next_number{
    "next number",
    "INSERT INTO engine_counters (name, value) VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET value = "
    "engine_counters.value + 1 RETURNING value"};
constexpr Statement join_node{
    "join cluster_nodes",
    "INSERT INTO cluster_nodes (node, fence, state, host, pid, version, health, open_events, joined_at, "
    "heartbeat_at, lease_until) VALUES ($1, $2, 'alive', $3, $4, $5, 'starting', 0, " SERVER_NOW
    ", " SERVER_NOW ", " SERVER_NOW
    " + $6) ON CONFLICT (node) DO UPDATE SET fence = excluded.fence, state = 'alive', host = excluded.host, "
    "pid = "
    "excluded.pid, version = excluded.version, health = excluded.health, open_events = 0, joined_at = "
    "excluded.joined_at, heartbeat_at = excluded.heartbeat_at, lease_until = excluded.lease_until"};
constexpr Statement renew_node{
    "renew cluster_nodes",
    "UPDATE cluster_nodes SET heartbeat_at = " SERVER_NOW ", lease_until = " SERVER_NOW
    " + $3, health = $4, open_events = $5 WHERE node = $1 AND fence = $2 AND state = 'alive'"};
constexpr Statement leave_node{
    "leave cluster_nodes",
    "UPDATE cluster_nodes SET state = 'left', lease_until = 0 WHERE node = $1 AND fence = $2 AND state = "
    "'alive'"};
constexpr Statement lose_nodes{
    "lose cluster_nodes",
    "UPDATE cluster_nodes SET state = 'lost' WHERE state = 'alive' AND lease_until < " SERVER_NOW
    " RETURNING node"};
constexpr Statement see_fence{
    "check fence", "SELECT 1 FROM cluster_nodes WHERE node = $1 AND fence = $2 AND state = 'alive'"};
constexpr Statement see_open{
    "select open event",
    "SELECT id FROM self_heal_events WHERE fingerprint = $1 AND environment = $2 AND state IN " OPEN_STATES};
constexpr Statement put_claim{
    "upsert event_claims",
    "INSERT INTO event_claims (event_id, node, fence, claimed_at) VALUES ($1, $2, $3, " SERVER_NOW
    ") ON CONFLICT (event_id) DO UPDATE SET node = excluded.node, fence = excluded.fence, claimed_at = "
    "excluded.claimed_at"};
// NOT IN: the claims are hashed once, whatever the planner believed of the table when it was still empty.
constexpr Statement claim_orphans{
    "claim orphaned events",
    "WITH orphans AS (SELECT e.id, e.incident, e.state, e.occurrence_count, e.opened_at, e.target FROM "
    "self_heal_events e WHERE e.state IN " OPEN_STATES
    " AND e.id NOT IN (SELECT c.event_id FROM event_claims c JOIN cluster_nodes n ON n.node = c.node AND "
    "n.fence = "
    "c.fence AND n.state = 'alive') AND NOT e.target = ANY ($4::text[]) ORDER BY e.opened_at LIMIT $1 FOR "
    "UPDATE OF e SKIP LOCKED), "
    "claims AS (INSERT INTO event_claims (event_id, node, fence, claimed_at) SELECT id, $2, $3, " SERVER_NOW
    " FROM orphans ON CONFLICT (event_id) DO UPDATE SET node = excluded.node, fence = excluded.fence, "
    "claimed_at = "
    "excluded.claimed_at) SELECT * FROM orphans"};
// Most open events have no attempt yet; the others are asked for one by one.
constexpr Statement see_tried{
    "select events with attempts",
    "SELECT DISTINCT event_id FROM healing_results WHERE event_id = ANY ($1::text[])"};
constexpr Statement drop_claims{
    "delete event_claims",
    "DELETE FROM event_claims c WHERE c.node = $1 AND NOT EXISTS (SELECT 1 FROM self_heal_events e WHERE "
    "e.id = "
    "c.event_id AND e.state IN " OPEN_STATES ")"};
constexpr Statement see_claimed{
    "select claimed events",
    "SELECT e.id, e.fingerprint, e.environment, e.occurrence_count, COALESCE(f.last_seen_at, 0) FROM "
    "event_claims c "
    "JOIN self_heal_events e ON e.id = c.event_id LEFT JOIN error_fingerprints f ON f.id = e.fingerprint "
    "WHERE c.node "
    "= $1 AND c.fence = $2 AND e.state IN " OPEN_STATES};
constexpr Statement see_foreign{
    "select foreign intents",
    "SELECT COALESCE(SUM(value), 0) FROM engine_counters WHERE name LIKE 'intents:%' AND name <> 'intents:' "
    "|| $1"};
constexpr Statement see_window{
    "select window",
    "SELECT bucket_at, count FROM fingerprint_counts WHERE fingerprint = $1 AND resolution = 'minute' AND "
    "bucket_at >= $2 ORDER BY bucket_at"};
constexpr Statement see_held{
    "select held event",
    "SELECT id, fingerprint, environment, service_name, healed_by, healed_at, hold_until FROM "
    "self_heal_events "
    "WHERE fingerprint = $1 AND environment = $2 AND state = 'healed' ORDER BY opened_at DESC LIMIT 1"};
constexpr Statement put_request{
    "insert event_requests",
    "INSERT INTO event_requests (id, event_id, request, argument, requested_by, requested_at) SELECT $1, $2, "
    "$3, "
    "$4, $5, $6 FROM event_claims c JOIN cluster_nodes n ON n.node = c.node AND n.fence = c.fence AND "
    "n.state = "
    "'alive' WHERE c.event_id = $2"};
constexpr Statement put_patch_request{
    "insert event_requests of patch_runs",
    "INSERT INTO event_requests (id, event_id, request, argument, requested_by, requested_at) SELECT $1, "
    "p.id, $3, $4, $5, $6 FROM patch_runs p JOIN system_bugs b ON b.id = p.bug_id JOIN cluster_nodes n ON "
    "n.node = p.node AND n.state = 'alive' WHERE p.outcome = '' AND p.node <> $7 AND (p.id = $2 OR b.id = $2 "
    "OR b.bug_code = $2) AND (p.step = 'review' OR $3 = 'cancel') ORDER BY p.created_at DESC LIMIT 1"};
constexpr Statement take_request{
    "take event_requests",
    "DELETE FROM event_requests r USING event_claims c WHERE c.event_id = r.event_id AND c.node = $1 "
    "RETURNING r.id, r.event_id, r.request, r.argument, r.requested_by"};
constexpr Statement take_patch_request{
    "take event_requests of patch_runs",
    "DELETE FROM event_requests r USING patch_runs p WHERE p.id = r.event_id AND p.node = $1 "
    "RETURNING r.id, r.event_id, r.request, r.argument, r.requested_by"};
constexpr Statement see_shared{
    "select shared state",
    "SELECT COALESCE((SELECT MAX(updated_at) FROM engine_state), 0) || ' ' || COALESCE((SELECT "
    "MAX(updated_at) "
    "FROM strategy_settings), 0) || ' ' || COALESCE((SELECT MAX(decided_at) FROM fingerprint_decisions), 0) "
    "|| ' ' "
    "|| (SELECT COUNT(*) || ' ' || COALESCE(MAX(starts_at), 0) || ' ' || COALESCE(MAX(lifted_at), 0) FROM "
    "healing_holds) || ' ' || (SELECT COUNT(*) || ' ' || COALESCE(MAX(since), 0) FROM trust_rungs)"};
constexpr Statement wake_nodes{"notify", "SELECT pg_notify('heald', $1)"};
constexpr Statement see_nodes{
    "list cluster_nodes",
    "SELECT node, fence, state, host, pid, version, health, open_events, joined_at, heartbeat_at, "
    "lease_until, "
    "(lease_until - " SERVER_NOW ") / 1000 FROM cluster_nodes ORDER BY node"};

#undef SERVER_NOW
#undef OPEN_STATES

/// Any texts as one of PostgreSQL's arrays.
std::string text_array(const std::vector<std::string>& texts) {
    std::string out = "{";
    for (const auto& text : texts) {
        out += out.size() == 1 ? "\"" : ",\"";
        for (const char c : to_valid_utf8(text)) {
            if (c == '"' || c == '\\') out += '\\';
            out += c;
        }
        out += '"';
    }
    return out + '}';
}

}  // namespace

result<int64_t> join_cluster(Database& db, const NodeInfo& info, Duration lease) {
    int64_t fence = 0;
    HEAL_TRY(db.query(next_number, {string_view{"fence"}}, [&](const Row& r) { fence = r.integer(0); }));
    HEAL_TRY(db.post(
        join_node,
        {string_view{info.node},
         fence,
         string_view{info.host},
         info.pid,
         string_view{info.version},
         int64_t{lease.count()}}
    ));
    return fence;
}

result<bool> heartbeat(
    Database& db,
    const std::string& node,
    int64_t fence,
    Duration lease,
    const std::string& health,
    int64_t open_events
) {
    auto n = db.run(
        renew_node, {string_view{node}, fence, int64_t{lease.count()}, string_view{health}, open_events}
    );
    if (!n) return n.error();
    return *n == 1;
}

result<void> leave_cluster(Database& db, const std::string& node, int64_t fence) {
    return db.post(leave_node, {string_view{node}, fence});
}

result<std::vector<std::string>> mark_lost_nodes(Database& db) {
    std::vector<std::string> lost;
    HEAL_TRY(db.query(lose_nodes, {}, [&](const Row& r) { lost.push_back(r.text(0)); }));
    return lost;
}

result<void> check_fence(Database& db, const std::string& node, int64_t fence) {
    bool alive = false;
    HEAL_TRY(db.query(see_fence, {string_view{node}, fence}, [&](const Row&) { alive = true; }));
    if (!alive) {
        return fail(
            errc::denied,
            fmt::format(
                "node '{}' was taken for lost (fence {}); another one heals what it healed", node, fence
            )
        );
    }
    return {};
}

result<std::string> claim_event(
    Database& db,
    const Incident& incident,
    const std::string& node,
    int64_t fence,
    std::uint64_t count,
    bool ours
) {
    HEAL_TRY(check_fence(db, node, fence));
    std::string other;
    HEAL_TRY(db.query(
        see_open,
        {string_view{incident.fingerprint}, string_view{incident.environment}},
        [&](const Row& r) { other = r.text(0); }
    ));
    if (other == incident.id) other.clear();
    if (other.empty()) {
        HEAL_TRY(insert_event(db, incident, incident.opened_at));
        if (ours) HEAL_TRY(db.post(put_claim, {string_view{incident.id}, string_view{node}, fence}));
    }
    HEAL_TRY(hear_for_event(db, other.empty() ? incident.id : other, count, "", incident.opened_at));
    // Its owner finds it unclaimed at its next heartbeat; woken, at once.
    if (other.empty() && !ours) {
        HEAL_TRY(notify_nodes(db, incident.id));
        return incident.id;
    }
    return other;
}

result<std::vector<TakenOver>> take_over(
    Database& db,
    const std::string& node,
    int64_t fence,
    int64_t limit,
    const std::vector<std::string>& not_these
) {
    HEAL_TRY(check_fence(db, node, fence));
    std::vector<TakenOver> taken;
    const std::string foreign = text_array(not_these);
    const auto take = [&](const Row& r) {
        auto parsed = parse_json(r.text(1), "incident");
        if (!parsed || !parsed->is_object()) return;
        TakenOver t;
        t.event.incident = incident_from_json(parsed->get_object());
        t.event.incident.id = r.text(0);
        parse_event_state(r.text(2), t.event.state);
        t.event.incident.count = static_cast<std::uint64_t>(r.integer(3));
        t.event.incident.opened_at = Time{r.integer(4)};
        t.event.incident.target = r.text(5);
        taken.push_back(std::move(t));
    };
    HEAL_TRY(db.query(claim_orphans, {limit, string_view{node}, fence, string_view{foreign}}, take));
    if (taken.empty()) return taken;
    std::string ids;  // UUIDs need no quoting in an array
    for (const auto& t : taken) ids += (ids.empty() ? "{" : ",") + t.event.incident.id;
    ids += '}';
    std::set<std::string> tried;
    HEAL_TRY(db.query(see_tried, {string_view{ids}}, [&](const Row& r) { tried.insert(r.text(0)); }));
    for (auto& t : taken) {
        if (!tried.contains(t.event.incident.id)) continue;
        auto rows = load_attempts(db, t.event.incident.id);
        if (!rows) return rows.error();
        t.attempts = std::move(*rows);
    }
    return taken;
}

result<std::vector<ClaimedCount>> claimed_counts(Database& db, const std::string& node, int64_t fence) {
    std::vector<ClaimedCount> rows;
    HEAL_TRY(db.query(see_claimed, {string_view{node}, fence}, [&](const Row& r) {
        rows.push_back(
            {r.text(0), r.text(1), r.text(2), static_cast<std::uint64_t>(r.integer(3)), Time{r.integer(4)}}
        );
    }));
    return rows;
}

result<void> forget_claims(Database& db, const std::string& node) {
    return db.post(drop_claims, {string_view{node}});
}

result<void> count_intent(Database& db, const std::string& node) {
    return db.post(next_number, {string_view{"intents:" + node}});
}

result<int64_t> foreign_intents(Database& db, const std::string& node) {
    int64_t n = 0;
    HEAL_TRY(db.query(see_foreign, {string_view{node}}, [&](const Row& r) { n = r.integer(0); }));
    return n;
}

result<std::vector<WindowCount>> load_window(Database& db, const std::string& fingerprint, Time from) {
    std::vector<WindowCount> rows;
    HEAL_TRY(db.query(see_window, {string_view{fingerprint}, from.us}, [&](const Row& r) {
        rows.push_back({fingerprint, Time{r.integer(0)}, static_cast<std::uint64_t>(r.integer(1))});
    }));
    return rows;
}

result<std::optional<HeldEvent>> load_held(
    Database& db, const std::string& fingerprint, const std::string& environment
) {
    std::optional<HeldEvent> held;
    HEAL_TRY(db.query(see_held, {string_view{fingerprint}, string_view{environment}}, [&](const Row& r) {
        held = HeldEvent{
            r.text(0), r.text(1), r.text(2), r.text(3), r.text(4), Time{r.integer(5)}, Time{r.integer(6)}};
    }));
    return held;
}

result<void> request_of_event(Database& db, const EventRequest& q, const std::string& node, Time now) {
    auto n = db.run(
        put_request,
        {string_view{q.id},
         string_view{q.event},
         string_view{q.request},
         string_view{q.argument},
         string_view{q.actor},
         now.us}
    );
    if (n && *n == 0)
        n = db.run(
            put_patch_request,
            {string_view{q.id},
             string_view{q.event},
             string_view{q.request},
             string_view{q.argument},
             string_view{q.actor},
             now.us,
             string_view{node}}
        );
    if (!n) return n.error();
    if (*n == 0) return fail(errc::not_found, fmt::format("no other node has '{}'", to_valid_utf8(q.event)));
    return notify_nodes(db, q.event);
}

result<std::vector<EventRequest>> take_requests(Database& db, const std::string& node) {
    std::vector<EventRequest> requests;
    for (const auto* take : {&take_request, &take_patch_request})
        HEAL_TRY(db.query(*take, {string_view{node}}, [&](const Row& r) {
            requests.push_back(
                {r.text(0), r.text(1), r.text(2), r.text(3), r.text(4), take == &take_patch_request}
            );
        }));
    return requests;
}

result<std::string> shared_state(Database& db) {
    std::string word;
    HEAL_TRY(db.query(see_shared, {}, [&](const Row& r) { word = r.text(0); }));
    return word;
}

result<void> notify_nodes(Database& db, const std::string& what) {
    return db.post(wake_nodes, {string_view{what}});
}

result<json::object> list_nodes(Database& db) {
    json::array items;
    if (db.dialect() == Dialect::postgres) {
        HEAL_TRY(db.query(see_nodes, {}, [&](const Row& r) {
            items.push_back(json::object{
                {"node", r.text(0)},
                {"fence", r.integer(1)},
                {"state", r.text(2)},
                {"host", r.text(3)},
                {"pid", r.integer(4)},
                {"version", r.text(5)},
                {"health", r.text(6)},
                {"open_events", r.integer(7)},
                {"joined_at", to_rfc3339(Time{r.integer(8)})},
                {"heartbeat_at", to_rfc3339(Time{r.integer(9)})},
                {"lease_until", to_rfc3339(Time{r.integer(10)})},
                {"lease_left_ms", r.integer(11)}});
        }));
    }
    return json::object{{"items", std::move(items)}};
}

}  // namespace heal::sql
