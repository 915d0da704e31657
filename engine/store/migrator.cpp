#include "store/migrator.hpp"

#include "base/id.hpp"
#include "store/migrations_generated.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace heal {
namespace {

constexpr Statement create_table{
    "create schema_migration",
    "CREATE TABLE IF NOT EXISTS schema_migration (version INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 "
    "TEXT NOT NULL, "
    "applied_at BIGINT NOT NULL)"};
constexpr Statement select_applied{
    "select schema_migration", "SELECT version, name, sha256, applied_at FROM schema_migration"};
constexpr Statement insert_applied{
    "insert schema_migration",
    "INSERT INTO schema_migration (version, name, sha256, applied_at) VALUES ($1, $2, $3, $4)"};

constexpr Statement no_timeout{"no timeout", "SET LOCAL statement_timeout = 0"};

struct Applied {
    std::string name, sha256;
    Time at;
};

result<std::map<int, Applied>> read_applied(Database& database) {
    std::map<int, Applied> applied;
    HEAL_TRY(database.query(select_applied, {}, [&](const Row& row) {
        applied[static_cast<int>(row.integer(0))] = {row.text(1), row.text(2), Time{row.integer(3)}};
    }));
    return applied;
}

result<void> check(const std::map<int, Applied>& applied, const std::vector<Migration>& known) {
    for (const auto& [version, row] : applied) {
        const auto it = std::find_if(known.begin(), known.end(), [v = version](const Migration& m) {
            return m.version == v;
        });
        if (it == known.end()) {
            return fail(
                errc::conflict,
                fmt::format(
                    "the store has schema {} ({}), this heald ({}) knows up to {}; start a newer heald, or "
                    "restore the copy taken "
                    "before the upgrade",
                    version,
                    row.name,
                    HEAL_VERSION,
                    known.empty() ? 0 : known.back().version
                )
            );
        }
        if (sha256_hex(it->sql) != row.sha256) {
            return fail(
                errc::conflict,
                fmt::format(
                    "migration {} was changed after it was applied to this store; build heald from a release",
                    row.name
                )
            );
        }
    }
    return {};
}

}  // namespace

std::vector<Migration> migrations_for(Dialect dialect) {
    const std::string_view wanted = dialect == Dialect::sqlite ? "sqlite" : "postgres";
    std::vector<Migration> list;
    for (const auto& migration : generated::migrations) {
        if (migration.dialect.empty() || migration.dialect == wanted) list.push_back(migration);
    }
    std::sort(list.begin(), list.end(), [](const Migration& a, const Migration& b) {
        return a.version < b.version;
    });
    return list;
}

result<std::vector<MigrationState>> migration_status(Database& database) {
    const auto known = migrations_for(database.dialect());
    std::vector<MigrationState> states;
    auto applied = read_applied(database);
    const std::map<int, Applied> rows =
        applied ? std::move(*applied) : std::map<int, Applied>{};  // no table yet: nothing applied
    HEAL_TRY(check(rows, known));
    for (const auto& migration : known) {
        const auto it = rows.find(migration.version);
        states.push_back(
            {migration.version,
             std::string{migration.name},
             it != rows.end(),
             it != rows.end() ? it->second.at : Time{}}
        );
    }
    return states;
}

result<int> migrate(Database& database, const Clock& clock, int up_to) {
    const auto known = migrations_for(database.dialect());
    int count = 0;
    for (;;) {
        HEAL_TRY(database.begin());
        auto step = [&]() -> result<bool> {
            // An index on a large table takes longer than any statement may in daily work.
            if (database.dialect() == Dialect::postgres) HEAL_TRY(database.run(no_timeout));
            HEAL_TRY(database.run(create_table));
            auto applied = read_applied(database);
            if (!applied) return applied.error();
            HEAL_TRY(check(*applied, known));
            const auto next = std::find_if(known.begin(), known.end(), [&](const Migration& m) {
                return m.version <= up_to && !applied->contains(m.version);
            });
            if (next == known.end()) return false;
            HEAL_TRY(database.script(next->sql));
            HEAL_TRY(database.run(
                insert_applied,
                {std::int64_t{next->version},
                 next->name,
                 std::string_view{sha256_hex(next->sql)},
                 clock.wall().us}
            ));
            return true;
        }();
        if (!step) {
            database.rollback();
            return step.error();
        }
        HEAL_TRY(database.commit());
        if (!*step) return count;
        ++count;
    }
}

std::vector<std::string_view> split_statements(std::string_view sql) {
    std::vector<std::string_view> list;
    std::size_t from = 0;
    const auto skip_to = [&](std::size_t at, std::string_view end) {
        const auto found = sql.find(end, at);
        return found == std::string_view::npos ? sql.size() : found + end.size();
    };
    for (std::size_t i = 0; i < sql.size();) {
        if (sql.substr(i).starts_with("--"))
            i = skip_to(i, "\n");
        else if (sql.substr(i).starts_with("$$"))
            i = skip_to(i + 2, "$$");
        else if (sql[i] == '\'')
            i = skip_to(i + 1, "'");
        else if (sql[i++] == ';') {
            list.push_back(sql.substr(from, i - from));
            from = i;
        }
    }
    return list;
}

}  // namespace heal
