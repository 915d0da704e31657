#include "store/brain_store.hpp"

#include "base/json.hpp"

namespace heal::sql {
namespace {

using std::string_view;

std::optional<Time> time_at(const Row& r, int column) {
    if (r.is_null(column)) return std::nullopt;
    return Time{r.integer(column)};
}
}  // namespace

result<void> insert_hold(Database& db, const Hold& h) {
    constexpr Statement insert{
        "insert healing_holds",
        "INSERT INTO healing_holds (id, kind, scope, name, reason, actor, starts_at, ends_at, lifted_at, "
        "lifted_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, NULL, '')"};
    const std::string reason = to_valid_utf8(h.reason), name = to_valid_utf8(h.name);
    return db.execute(
        insert,
        {string_view{h.id},
         string_view{to_string(h.kind)},
         string_view{to_string(h.scope)},
         string_view{name},
         string_view{reason},
         string_view{h.actor},
         h.starts.us,
         or_null(h.ends)}
    );
}

result<bool> lift_hold(Database& db, const std::string& id, const std::string& actor, Time now) {
    constexpr Statement update{
        "lift healing_holds",
        "UPDATE healing_holds SET lifted_at = $2, lifted_by = $3 WHERE id = $1 AND lifted_at IS NULL AND "
        "(ends_at IS NULL OR ends_at > $2)"};
    auto changed = db.run(update, {string_view{id}, now.us, string_view{actor}});
    if (!changed) return changed.error();
    return *changed > 0;
}

result<std::vector<Hold>> load_holds(Database& db, Time now) {
    constexpr Statement select{
        "select healing_holds",
        "SELECT id, kind, scope, name, reason, actor, starts_at, ends_at FROM healing_holds WHERE lifted_at "
        "IS NULL AND (ends_at IS NULL OR ends_at > $1) ORDER BY starts_at, id"};
    std::vector<Hold> holds;
    bool readable = true;
    HEAL_TRY(db.query(select, {now.us}, [&](const Row& r) {
        Hold h;
        h.id = r.text(0);
        readable = parse_hold_kind(r.text(1), h.kind) && parse_hold_scope(r.text(2), h.scope) && readable;
        h.name = r.text(3);
        h.reason = r.text(4);
        h.actor = r.text(5);
        h.starts = Time{r.integer(6)};
        h.ends = time_at(r, 7);
        holds.push_back(std::move(h));
    }));
    if (!readable) return fail(errc::corrupt, "healing_holds has a row that this heald cannot read");
    return holds;
}

result<std::vector<AttemptFact>> load_facts(Database& db, Time from) {
    constexpr Statement select{
        "select facts of attempts",
        "SELECT id, event_id, fingerprint, target, strategy, started_at, ended_at, service_name, risk, "
        "verified, harm, build, undecided FROM healing_results WHERE dry_run = 0 AND (started_at >= $1 OR "
        "undecided = 1) ORDER BY started_at, id"};
    std::vector<AttemptFact> facts;
    HEAL_TRY(db.query(select, {from.us}, [&](const Row& r) {
        AttemptFact f{r.text(0), r.text(1), r.text(2), r.text(3), r.text(4), Time{r.integer(5)}};
        f.ended = time_at(r, 6);
        f.service = r.text(7);
        parse_risk(r.text(8), f.risk);
        const std::string verified = r.text(9);
        f.result = !r.text(10).empty()          ? FactResult::failed
                   : verified == "succeeded"    ? FactResult::succeeded
                   : verified == "failed"       ? FactResult::failed
                   : verified == "did_not_hold" ? FactResult::relapsed
                                                : FactResult::none;
        f.build = r.text(11);
        f.undecided = r.integer(12) != 0;
        facts.push_back(std::move(f));
    }));
    return facts;
}

result<std::vector<EpisodeRow>> load_episodes(Database& db, Time from) {
    constexpr Statement select{
        "select episodes",
        "SELECT id, target, service_name, environment, opened_at, COALESCE(healed_at, closed_at) FROM "
        "self_heal_events WHERE closed_at IS NULL OR closed_at >= $1 ORDER BY opened_at, id"};
    std::vector<EpisodeRow> rows;
    HEAL_TRY(db.query(select, {from.us}, [&](const Row& r) {
        rows.push_back({r.text(0), r.text(1), r.text(2), r.text(3), Time{r.integer(4)}, time_at(r, 5)});
    }));
    return rows;
}

result<std::optional<Time>> first_seen(Database& db, const std::string& fingerprint) {
    constexpr Statement select{
        "select first seen", "SELECT first_seen_at FROM error_fingerprints WHERE id = $1"};
    std::optional<Time> at;
    HEAL_TRY(db.query(select, {string_view{fingerprint}}, [&](const Row& r) { at = Time{r.integer(0)}; }));
    return at;
}

result<std::vector<Outcome>> load_learned(Database& db, std::int64_t limit) {
    constexpr Statement select{
        "select learned outcomes",
        "SELECT strategy, fingerprint, service_name, verified, harm, verified_at FROM healing_results WHERE "
        "dry_run = 0 AND verified IN ('succeeded', 'failed', 'did_not_hold') ORDER BY started_at DESC LIMIT "
        "$1"};
    std::vector<Outcome> rows;
    HEAL_TRY(db.query(select, {limit}, [&](const Row& r) {
        rows.push_back(
            {r.text(0),
             r.text(1),
             r.text(2),
             r.text(3) == "succeeded" && r.text(4).empty(),
             Time{r.integer(5)}}
        );
    }));
    return std::vector<Outcome>{rows.rbegin(), rows.rend()};
}

result<void> set_attempt_class(
    Database& db, const std::string& attempt, Risk risk, const std::string& error_class
) {
    constexpr Statement update{
        "set class of healing_results",
        "UPDATE healing_results SET risk = $2, error_class = $3 WHERE id = $1"};
    const std::string text = to_valid_utf8(error_class);
    return db.post(update, {string_view{attempt}, string_view{to_string(risk)}, string_view{text}});
}

result<void> set_attempt_harm(Database& db, const std::string& attempt, const std::string& harm) {
    constexpr Statement update{
        "set harm of healing_results", "UPDATE healing_results SET harm = $2 WHERE id = $1"};
    const std::string text = to_valid_utf8(harm);
    return db.execute(update, {string_view{attempt}, string_view{text}});
}

result<void> set_event_arm(Database& db, const std::string& event, const std::string& arm) {
    constexpr Statement update{
        "set arm of self_heal_events", "UPDATE self_heal_events SET arm = $2 WHERE id = $1"};
    return db.execute(update, {string_view{event}, string_view{arm}});
}

result<void> review_event(Database& db, const std::string& event, const std::string& review, Time now) {
    constexpr Statement update{
        "review self_heal_events", "UPDATE self_heal_events SET review = $2 WHERE id = $1"};
    constexpr Statement by_hand{
        "heal self_heal_events by hand",
        "UPDATE self_heal_events SET resolution = 'manual', healed_at = $2 WHERE id = $1 AND state IN "
        "('escalated', 'suppressed', 'unverified') AND resolution = ''"};
    const bool manual = review == "manual";
    auto changed = manual ? db.run(by_hand, {string_view{event}, now.us})
                          : db.run(update, {string_view{event}, string_view{review}});
    if (!changed) return changed.error();
    if (*changed > 0) return {};
    return manual ? fail(errc::conflict, "heald did not give this event up, or it was healed by hand already")
                  : fail(errc::not_found, "there is no such event");
}

result<std::vector<VerifiedAttempt>> load_verified_attempts(Database& db, Time from) {
    constexpr Statement select{
        "select verified attempts",
        "SELECT r.fingerprint, e.environment, r.strategy, r.verified FROM healing_results r JOIN "
        "self_heal_events e ON e.id = r.event_id WHERE r.dry_run = 0 AND r.verified IN ('succeeded', "
        "'failed', "
        "'did_not_hold') AND r.started_at >= $1 ORDER BY r.started_at, r.id"};
    std::vector<VerifiedAttempt> rows;
    HEAL_TRY(db.query(select, {from.us}, [&](const Row& r) {
        rows.push_back({r.text(0), r.text(1), r.text(2), r.text(3) != "succeeded"});
    }));
    return rows;
}

result<void> save_trust_rung(Database& db, const TrustRung& r) {
    constexpr Statement upsert{
        "save trust_rungs",
        "INSERT INTO trust_rungs (strategy, error_class, rung, by_hand, fell, reason, set_by, since) VALUES "
        "($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (strategy, error_class) DO UPDATE SET rung = "
        "excluded.rung, by_hand = excluded.by_hand, fell = excluded.fell, reason = excluded.reason, set_by = "
        "excluded.set_by, since = excluded.since"};
    const std::string reason = to_valid_utf8(r.reason), error_class = to_valid_utf8(r.error_class);
    return db.execute(
        upsert,
        {string_view{r.strategy},
         string_view{error_class},
         string_view{to_string(r.rung)},
         std::int64_t{r.by_hand},
         std::int64_t{r.fell},
         string_view{reason},
         string_view{r.actor},
         r.since.us}
    );
}

result<bool> remove_trust_rung(Database& db, const std::string& strategy, const std::string& error_class) {
    constexpr Statement remove{
        "delete trust_rungs", "DELETE FROM trust_rungs WHERE strategy = $1 AND error_class = $2"};
    auto changed = db.run(remove, {string_view{strategy}, string_view{error_class}});
    if (!changed) return changed.error();
    return *changed > 0;
}

result<std::vector<TrustRung>> load_trust_rungs(Database& db) {
    constexpr Statement select{
        "select trust_rungs",
        "SELECT strategy, error_class, rung, by_hand, fell, reason, set_by, since FROM trust_rungs ORDER BY "
        "since, strategy, error_class"};
    std::vector<TrustRung> rows;
    bool readable = true;
    HEAL_TRY(db.query(select, {}, [&](const Row& r) {
        TrustRung t;
        t.strategy = r.text(0), t.error_class = r.text(1);
        readable = parse_autonomy(r.text(2), t.rung) && readable;
        t.by_hand = r.integer(3) != 0, t.fell = r.integer(4) != 0;
        t.reason = r.text(5), t.actor = r.text(6);
        t.since = Time{r.integer(7)};
        rows.push_back(std::move(t));
    }));
    if (!readable) return fail(errc::corrupt, "trust_rungs has a row that this heald cannot read");
    return rows;
}

result<std::vector<TrustFact>> load_trust_facts(Database& db, std::int64_t limit) {
    constexpr Statement select{
        "select facts of trust",
        "SELECT r.strategy, r.error_class, r.dry_run, r.state, r.verified, r.harm, e.state, r.text, "
        "COALESCE(r.verified_at, r.ended_at, r.started_at) FROM healing_results r JOIN self_heal_events e ON "
        "e.id = r.event_id WHERE r.error_class <> '' AND (r.dry_run = 1 OR r.verified IN ('succeeded', "
        "'failed', 'did_not_hold')) ORDER BY r.started_at DESC, r.id DESC LIMIT $1"};
    std::vector<TrustFact> rows;
    HEAL_TRY(db.query(select, {limit}, [&](const Row& r) {
        TrustFact f;
        f.strategy = r.text(0), f.error_class = r.text(1);
        f.at = Time{r.integer(8)};
        const std::string verified = r.text(4);
        if (r.integer(2) != 0)
            f.evidence = r.text(3) == "declined" ? TrustEvidence::listed : TrustEvidence::list_failed;
        else if (!r.text(5).empty())
            f.evidence = TrustEvidence::harmed;
        else if (verified != "succeeded")
            f.evidence = TrustEvidence::failed;
        else if (r.text(6) == "held")
            f.evidence = TrustEvidence::held;
        else
            return;  // whether it holds is not known yet
        rows.push_back(std::move(f));
    }));
    return std::vector<TrustFact>{rows.rbegin(), rows.rend()};
}

namespace {
result<TrustFact> one_fact(Database& db, const Statement& select, const std::string& id) {
    TrustFact f;
    HEAL_TRY(db.query(select, {string_view{id}}, [&](const Row& r) {
        f.strategy = r.text(0), f.error_class = r.text(1);
    }));
    return f;
}
}  // namespace

result<TrustFact> healer_of_event(Database& db, const std::string& event) {
    constexpr Statement select{
        "select healer of event",
        "SELECT strategy, error_class FROM healing_results WHERE event_id = $1 AND dry_run = 0 AND verified "
        "IN ('succeeded', 'did_not_hold') ORDER BY started_at"};
    return one_fact(db, select, event);
}

result<TrustFact> class_of_attempt(Database& db, const std::string& attempt) {
    constexpr Statement select{
        "select class of attempt", "SELECT strategy, error_class FROM healing_results WHERE id = $1"};
    return one_fact(db, select, attempt);
}

result<std::vector<HeardRow>> load_heard(
    Database& db, const std::string& resolution, Time from, std::int64_t limit
) {
    constexpr Statement select{
        "select what was heard",
        "SELECT c.fingerprint, c.bucket_at, c.count, f.service_name, f.environment, f.error_type, f.pattern, "
        "f.log_level FROM fingerprint_counts c JOIN error_fingerprints f ON f.id = c.fingerprint WHERE "
        "c.resolution = $1 AND c.bucket_at >= $2 ORDER BY c.bucket_at DESC, c.fingerprint LIMIT $3"};
    std::vector<HeardRow> rows;
    HEAL_TRY(db.query(select, {string_view{resolution}, from.us, limit}, [&](const Row& r) {
        HeardRow h;
        h.fingerprint = r.text(0);
        h.at = Time{r.integer(1)};
        h.count = static_cast<std::uint64_t>(std::max<std::int64_t>(0, r.integer(2)));
        h.service = r.text(3), h.environment = r.text(4), h.error_type = r.text(5), h.pattern = r.text(6);
        h.level = parse_level(r.text(7));
        rows.push_back(std::move(h));
    }));
    return std::vector<HeardRow>{rows.rbegin(), rows.rend()};
}

namespace {
result<std::vector<std::string>> texts(
    Database& db, const Statement& select, std::initializer_list<Value> parameters
) {
    std::vector<std::string> out;
    HEAL_TRY(db.query(select, parameters, [&](const Row& r) { out.push_back(r.text(0)); }));
    return out;
}
}  // namespace

result<std::vector<std::string>> load_fingerprint_ids(Database& db, std::int64_t limit) {
    constexpr Statement select{
        "select ids of error_fingerprints",
        "SELECT id FROM error_fingerprints ORDER BY last_seen_at DESC LIMIT $1"};
    return texts(db, select, {limit});
}

result<std::vector<std::string>> load_fixed_fingerprints(Database& db) {
    constexpr Statement select{
        "select fixed fingerprints", "SELECT DISTINCT fingerprint FROM system_bugs WHERE status = 'fixed'"};
    return texts(db, select, {});
}

}  // namespace heal::sql
