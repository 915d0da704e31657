// Brings a store to the schema of this binary: numbered forward-only files of migrations/ (compiled in), each
// in one transaction, with its checksum kept. Refuses a store that is newer than the binary or whose history
// was edited.
#pragma once

#include "base/clock.hpp"
#include "store/database.hpp"

#include <string>
#include <vector>

namespace heal {

struct Migration {
    int version;
    std::string_view name;     ///< "0001_init"
    std::string_view dialect;  ///< "" for both, "sqlite" or "postgres"
    std::string_view sql;
};

/// All migrations in the binary, by version; for one dialect.
std::vector<Migration> migrations_for(Dialect dialect);

struct MigrationState {
    int version;
    std::string name;
    bool applied;
    Time applied_at;
};

/// What is applied and what would be. errc::conflict: the store is newer or a checksum differs.
result<std::vector<MigrationState>> migration_status(Database& database);

/// Applies what is missing, up to version `up_to`; returns how many were. One runner at a time: each file is
/// one write transaction (database.hpp), which looks again at what is applied. A crash leaves whole files.
result<int> migrate(Database& database, const Clock& clock, int up_to = 9999);

/// The statements of a script, in order; for messages and tests. Knows quotes, comments and $$ bodies.
std::vector<std::string_view> split_statements(std::string_view sql);

}  // namespace heal
