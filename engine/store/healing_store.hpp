// Every statement that writes or restores the engine's own data, in the words of the model. All run inside a
// job of Store (its transaction); reading for people is in queries.hpp. Errors are those of Database::run.
#pragma once

#include "core/guards.hpp"
#include "core/incident.hpp"
#include "store/database.hpp"

#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace heal::sql {

// --- hearing
// -------------------------------------------------------------------------------------------------------

struct Occurrences {
    const LogRecord* sample =
        nullptr;  ///< newest record; gives service, environment, level, type, pattern, release
    std::string signature;
    int mechanism = 1;
    std::uint64_t count = 0;
    Time first, last;
    Severity severity = Severity::p2_minor;
};
/// Adds to error_fingerprints and to the minute, hour and day of `last`. False for each whose short id
/// belongs to another digest (a collision): nothing of it is added.
result<std::vector<bool>> add_occurrences(Database& db, std::span<const Occurrences> all);
/// Of one kind. errc::conflict: a collision.
result<void> add_occurrences(Database& db, const Occurrences& occurrences);

/// `represents`: how many occurrences this sample stands for.
result<void> insert_log_entry(
    Database& db, const std::string& id, const LogRecord& record, std::uint64_t represents
);

struct OffsetRow {
    std::string source;
    std::uint64_t device = 0, inode = 0, offset = 0;
    std::string head_hash;
};
result<void> save_offset(Database& db, const OffsetRow& row, Time now);
result<void> forget_offset(Database& db, const std::string& source);
result<std::vector<OffsetRow>> load_offsets(Database& db);
/// Keys of batches received before `before`; returns how many went.
result<std::int64_t> forget_batches(Database& db, Time before);

struct Totals {
    std::uint64_t lines = 0, records = 0, below_level = 0, malformed = 0, truncated = 0, self = 0, joined = 0,
                  bytes = 0;
};
result<void> add_totals(Database& db, const std::string& source, const Totals& totals);

result<bool> batch_known(Database& db, const std::string& key);
/// False: the key is known, the batch was taken before and must not count again.
result<bool> claim_batch(Database& db, const std::string& key, std::uint64_t records, Time now);

struct WindowCount {
    std::string fingerprint;
    Time at;
    std::uint64_t count;
};
/// Minute counts since `from`, oldest first; restores the sliding windows after a restart.
result<std::vector<WindowCount>> load_minute_counts(Database& db, Time from);

struct FingerprintDecision {
    std::string fingerprint, canonical;  ///< equal: it stays apart
};
result<void> save_fingerprint_decision(
    Database& db,
    const FingerprintDecision& decision,
    const std::string& actor,
    const std::string& reason,
    Time now
);
result<std::vector<FingerprintDecision>> load_fingerprint_decisions(Database& db);

/// A stored sample, as far as fingerprints look at it.
struct SampleText {
    std::string fingerprint, service, component, message, stack_trace;
    std::uint64_t represents = 1;
};
/// The newest samples, at most `limit`; for previews of rules.
result<std::vector<SampleText>> load_samples(Database& db, std::int64_t limit);

struct PatternRow {
    std::string id, pattern, stack_signature;
};
/// Patterns of one service, newest first, at most 20'000.
result<std::vector<PatternRow>> load_patterns(Database& db, const std::string& service);

// --- bugs
// ----------------------------------------------------------------------------------------------------------

struct BugRef {
    std::string id, code;
    bool opened = false;  ///< false: an existing bug of the last 24 h was counted up
};
/// Opens a bug or counts up the one that is there (M3), and links the log entry both ways. `log_id` may be
/// "". `rule`: why it would open ("fatal", "third within an hour", …); "" = only count an existing one
/// (nullopt when there is none).
result<std::optional<BugRef>> open_or_count_bug(
    Database& db,
    const Clock& clock,
    const LogRecord& record,
    Severity severity,
    const std::string& rule,
    std::uint64_t count,
    Time now,
    const std::string& log_id
);

// --- incidents
// -----------------------------------------------------------------------------------------------------

/// With a count of 0: lines are counted where they are stored (hear_for_event).
result<void> insert_event(Database& db, const Incident& incident, Time now);
/// It turned out to be about another target.
result<void> set_event_target(Database& db, const std::string& event, const std::string& target, Time now);
/// `count` more lines belong to the event; `bug_id` is linked unless it has a bug. Nothing when there is no
/// such event.
result<void> hear_for_event(
    Database& db, const std::string& event, std::uint64_t count, const std::string& bug_id, Time now
);
result<void> move_event(
    Database& db, const std::string& event, EventState state, const std::string& reason, Time now
);
result<void> set_event_decision(
    Database& db, const std::string& event, const std::string& decision_json, Time now
);
/// State 'healing'; `acts`: the time of the first action is now.
result<void> begin_healing(Database& db, const std::string& event, bool acts, Time now);

struct EventEnd {
    EventState state = EventState::escalated;
    std::string reason, resolution,
        healed_by;  ///< resolution: "", "auto", "approved", "manual", "self_resolved"
    std::optional<Time> healed_at, hold_until;
};
result<void> finish_event(Database& db, const std::string& event, const EventEnd& end, Time now);

struct OpenEvent {
    Incident incident;
    EventState state = EventState::open;
};
result<std::vector<OpenEvent>> load_open_events(Database& db);

struct QuietEvent {
    std::string fingerprint, environment;
    Time closed_at;
};
/// Events that ended without healing since `from`; they keep their fingerprint quiet for a while.
result<std::vector<QuietEvent>> load_recently_given_up(Database& db, Time from);

struct HeldEvent {
    std::string id, fingerprint, environment, service, healed_by;
    Time healed_at, hold_until;
};
/// Healed events whose hold window runs, or has run out but isn't settled.
result<std::vector<HeldEvent>> load_holding(Database& db);

// --- attempts and effects
// ------------------------------------------------------------------------------------------

struct AttemptRow {
    std::string id, event, fingerprint, service, target, strategy, version, build;
    int rank = 1;
    std::int64_t priority = 0;
    double confidence = 0, score = 0;
    bool idempotent = false, dry_run = false;
    std::string request;  ///< JSON of the whole StrategyCall, so that a restart can repeat it exactly
    std::string state, verified, rolled_back, text;
    Time started_at;
    std::optional<Time> ended_at;
    bool undecided = false;  ///< neither verified nor taken back yet
};
/// An intent (D4): after the commit of write_intent, and not before, the attempt may act.
struct Intent {
    AttemptRow attempt;  ///< its request holds the incident, whose row is written unless it is there
    Time opened_at;      ///< of the incident
    Risk risk = Risk::safe;
    std::string actor;  ///< for the audit log
};
/// The short form: one row in a table of its own on SQLite, where the pages touched are the time of a commit;
/// the whole on PostgreSQL, where other nodes must see it.
result<void> write_intent(Database& db, const Intent& intent);
/// Spreads a written intent over event, attempt and audit log; nothing when it was not written.
result<void> settle_intent(Database& db, const Intent& intent);
/// Intents that a crash left unsettled; settles them. Returns how many.
result<std::int64_t> settle_intents(Database& db);

result<void> insert_attempt(Database& db, const AttemptRow& row);
/// state: 'executed' for an outcome that verification decides, or a final outcome.
result<void> end_attempt(
    Database& db,
    const std::string& attempt,
    const std::string& state,
    const std::string& text,
    const std::string& detail_json,
    Time now
);
result<void> verify_attempt(
    Database& db,
    const std::string& attempt,
    const std::string& verified,
    const std::string& evidence_json,
    Time now
);
result<void> set_rolled_back(Database& db, const std::string& attempt, const std::string& state);
/// It is taken back. The end of its event decides it, too.
result<void> set_decided(Database& db, const std::string& attempt);
result<std::vector<AttemptRow>> load_attempts(Database& db, const std::string& event);
/// Those of all open events, by event, oldest first.
result<std::unordered_map<std::string, std::vector<AttemptRow>>> load_open_attempts(Database& db);
/// A start found them running: what is not idempotent does not run again, and ends as 'unknown'.
result<void> end_cut_off_attempts(Database& db, const std::string& text, Time now);

struct ActionRow {
    std::string id, attempt, event, phase, kind, summary, parameters, capability, undo, state, result, error;
    std::int64_t step = 0, undoes_step = 0, duration_us = 0;
    bool changes_world = false, undoable = false;
    Time started_at;
};
result<void> insert_action(Database& db, const ActionRow& row);
result<void> end_action(
    Database& db,
    const std::string& attempt,
    const std::string& phase,
    std::int64_t step,
    const std::string& state,
    const std::string& result_json,
    const std::string& error,
    std::int64_t duration_us
);
/// Effects of an attempt that can and must still be taken back, newest first: begun or done, not yet undone.
result<std::vector<ActionRow>> load_undoable(Database& db, const std::string& attempt);
result<void> mark_undone(Database& db, const std::string& attempt, std::int64_t step);

// --- people
// --------------------------------------------------------------------------------------------------------

struct StrategySetting {
    std::string strategy;
    std::optional<std::int64_t> priority;
    std::optional<bool> enabled;
    std::optional<Autonomy> autonomy;
    std::optional<double> floor;
};
result<void> save_strategy_setting(
    Database& db, const StrategySetting& setting, const std::string& actor, Time now
);
result<std::vector<StrategySetting>> load_strategy_settings(Database& db);

result<void> save_engine_state(Database& db, const std::string& name, const std::string& value, Time now);
/// nullopt: never set.
result<std::optional<std::string>> load_engine_state(Database& db, const std::string& name);

/// Appends to the hash chain: hash = SHA-256(previous hash | seq | at | actor | action | subject | detail).
result<void> append_audit(
    Database& db,
    Time now,
    const std::string& actor,
    const std::string& action,
    const std::string& subject,
    const std::string& detail_json
);
struct AuditCheck {
    std::int64_t rows = 0;
    std::int64_t first_bad = 0;  ///< seq; 0: the chain holds
};
result<AuditCheck> verify_audit(Database& db);

}  // namespace heal::sql
