// Statements of what decides and learns: holds, the history that guards read, trust, approvals, decisions and
// figures. All run inside a job of Store; errors are those of Database::run.
#pragma once

#include "core/history.hpp"
#include "core/holds.hpp"
#include "core/trust.hpp"
#include "store/database.hpp"

#include <optional>
#include <string>
#include <vector>

namespace heal::sql {

// --- holds
// ---------------------------------------------------------------------------------------------------------

result<void> insert_hold(Database& db, const Hold& hold);
/// False: there is none of that id, or it is over.
result<bool> lift_hold(Database& db, const std::string& id, const std::string& actor, Time now);
/// Those that neither ended before `now` nor were lifted, oldest first.
result<std::vector<Hold>> load_holds(Database& db, Time now);

// --- what guards read
// ----------------------------------------------------------------------------------------------

/// Attempts (no dry runs) since `from` and all unfinished ones, oldest first.
result<std::vector<AttemptFact>> load_facts(Database& db, Time from);

/// An incident as an unhealthy time of its target; `closed`: healthy again, or given up.
struct EpisodeRow {
    std::string event, target, service, environment;
    Time opened;
    std::optional<Time> closed;
};
/// Those that opened or ended since `from`, and all open ones, by their opening.
result<std::vector<EpisodeRow>> load_episodes(Database& db, Time from);

/// What an attempt costs, what class of error it is for, and what came of it beyond its verification.
result<void> set_attempt_class(
    Database& db, const std::string& attempt, Risk risk, const std::string& error_class
);
result<void> set_attempt_harm(Database& db, const std::string& attempt, const std::string& harm);

/// 'control': it was left alone for a while.
result<void> set_event_arm(Database& db, const std::string& event, const std::string& arm);
/// What a person says of an event afterwards: 'right', 'false_positive' (nothing was wrong), or 'manual': a
/// person healed what heald gave up, now. errc::not_found; errc::conflict: 'manual' for one that heald did
/// not give up.
result<void> review_event(Database& db, const std::string& event, const std::string& review, Time now);

/// When a fingerprint was seen first; nullopt: never.
result<std::optional<Time>> first_seen(Database& db, const std::string& fingerprint);

/// Outcomes as they count for learning, oldest first, at most the `limit` newest: harm is a failure.
struct Outcome {
    std::string strategy, fingerprint, service;
    bool success = false;
    Time at;
};
result<std::vector<Outcome>> load_learned(Database& db, std::int64_t limit);

/// Attempts with a verdict since `from`, oldest first: the newest of a fingerprint says what failed last.
struct VerifiedAttempt {
    std::string fingerprint, environment, strategy;
    bool failed = false;
};
result<std::vector<VerifiedAttempt>> load_verified_attempts(Database& db, Time from);

// --- what triggers knew
// ---------------------------------------------------------------------------------------------------------

/// So many of a kind of error within one minute or hour, with what is known of the kind.
struct HeardRow {
    std::string fingerprint, service, environment, error_type, pattern;
    Level level = Level::unknown;
    Time at;
    std::uint64_t count = 0;
};
/// Counts since `from`, oldest first, at most the `limit` newest. `resolution`: "minute" or "hour".
result<std::vector<HeardRow>> load_heard(
    Database& db, const std::string& resolution, Time from, std::int64_t limit
);
result<std::vector<std::string>> load_fingerprint_ids(Database& db, std::int64_t limit);
/// Those whose bug is said to be fixed.
result<std::vector<std::string>> load_fixed_fingerprints(Database& db);

// --- trust
// ---------------------------------------------------------------------------------------------------------

struct TrustRung {
    std::string strategy, error_class;
    Autonomy rung = Autonomy::automatic;
    bool by_hand = false, fell = false;
    std::string reason, actor;
    Time since;
};
result<void> save_trust_rung(Database& db, const TrustRung& rung);
/// False: there was none.
result<bool> remove_trust_rung(Database& db, const std::string& strategy, const std::string& error_class);
result<std::vector<TrustRung>> load_trust_rungs(Database& db);

/// What counts for trust of the newest `limit` attempts that have an outcome, oldest first. A success counts
/// when its event held to the end.
struct TrustFact {
    std::string strategy, error_class;
    TrustEvidence evidence = TrustEvidence::failed;
    Time at;
};
result<std::vector<TrustFact>> load_trust_facts(Database& db, std::int64_t limit);
/// Strategy and class of the attempt that healed an event; empty when there was none.
result<TrustFact> healer_of_event(Database& db, const std::string& event);
/// Strategy and class of an attempt.
result<TrustFact> class_of_attempt(Database& db, const std::string& attempt);

}  // namespace heal::sql
