// What a node keeps for itself so that it can heal its own targets while the shared store is away
// (service/local_healing.hpp): a copy of what people set, and the rows of what it did, which are handed over
// once. All run inside a job of a Store; errors are those of Database::run.
#pragma once

#include "store/brain_store.hpp"
#include "store/healing_store.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace heal::sql {

// --- what guards need although nobody can be asked
// -------------------------------------------------------------------------------------

/// What people set, and the attempts of all nodes, as the shared store had them.
struct Charter {
    std::string pause;  ///< engine_state 'pause'; "": healing is on
    std::vector<Hold> holds;
    std::vector<StrategySetting> strategies;
    std::vector<TrustRung> rungs;
    std::vector<AttemptFact> facts;  ///< oldest first, at most the 5000 newest
};
/// From the shared store. @param from  attempts since then
result<Charter> load_charter(Database& shared, Time from, Time now);
/// Replaces the copy in the node's own store; rungs go into its trust_rungs.
result<void> keep_charter(Database& local, const Charter& charter, Time now);
/// nullopt: there never was one, so nothing is allowed.
result<std::optional<Charter>> kept_charter(Database& local);

// --- what was done, on its way to the others
// -------------------------------------------------------------------------------------------

/// Incidents, attempts, effects, audit entries and rungs of a node's own store.
struct LocalRows {
    using Cell = std::variant<std::nullptr_t, std::int64_t, double, std::string>;
    struct Table {
        std::string name;
        std::vector<std::string> columns;
        std::vector<std::vector<Cell>> rows;
    };
    struct Entry {
        std::int64_t seq = 0;
        Time at;
        std::string actor, action, subject, detail;
    };
    std::string origin;            ///< the store that they come from; a new one after it was deleted
    std::int64_t number = 0;       ///< of this hand-over
    std::vector<Table> tables;     ///< events, attempts, effects, in this order
    std::vector<Entry> audit;      ///< oldest first; also such as were handed over before
    std::vector<TrustRung> rungs;  ///< changed since the charter was kept
    std::size_t events() const { return tables.empty() ? 0 : tables.front().rows.size(); }
};

/// True: incidents wait to be handed over.
result<bool> has_local_rows(Database& local);
/// Settles what a crash left of intents and gives all that waits a number. One that was begun and of which
/// nobody knows whether it arrived keeps its number, until resume_local().
result<LocalRows> begin_hand_over(Database& local);
/// Writes them into the shared store. Nothing, when this number arrived before. Where the store holds an open
/// incident of the same error, attempts join that one.
result<void> hand_over(Database& shared, const LocalRows& rows, Time now);
/// They arrived.
result<void> end_hand_over(Database& local);
/// Healing goes on here, so what comes of it needs a number of its own.
result<void> resume_local(Database& local);

}  // namespace heal::sql
