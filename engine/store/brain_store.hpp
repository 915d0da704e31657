// Statements of what decides and learns: holds, the history that guards read, trust, approvals, decisions and
// figures. All run inside a job of Store; errors are those of Database::run.
#pragma once

#include "core/history.hpp"
#include "core/holds.hpp"
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

/// What an attempt costs and what came of it beyond its verification.
result<void> set_attempt_risk(Database& db, const std::string& attempt, Risk risk);
result<void> set_attempt_harm(Database& db, const std::string& attempt, const std::string& harm);

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

}  // namespace heal::sql
