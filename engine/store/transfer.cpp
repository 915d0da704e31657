#include "store/transfer.hpp"

#include "base/id.hpp"
#include "base/json.hpp"
#include "store/migrator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <deque>
#include <set>

namespace heal {
namespace {

using std::string_view;

struct Column {
    std::string name;
    char kind = 't';  ///< t text, i integer, r real
};
struct Table {
    std::string name;
    std::set<std::string> parents;
    std::vector<Column> columns;
};

/// Text as PostgreSQL takes it: valid UTF-8 without NUL. Statements of heald write no other; a hand may have.
std::string clean(const std::string& bytes) {
    std::string text = to_valid_utf8(bytes);
    for (std::size_t at = 0; (at = text.find('\0', at)) != std::string::npos;)
        text.replace(at, 1, "\xEF\xBF\xBD");
    return text;
}

/// A sum of hashes does not depend on the order of rows, and two equal rows do not cancel out.
class Hash {
public:
    void add(const std::string& row) {
        const std::string hex = sha256_hex(row);
        unsigned carry = 0;
        for (std::size_t i = 32; i-- > 0;) {
            const auto byte = static_cast<unsigned>(std::stoul(hex.substr(i * 2, 2), nullptr, 16));
            carry += sum_[i] + byte;
            sum_[i] = static_cast<unsigned char>(carry & 0xFFU);
            carry >>= 8U;
        }
    }
    std::string text() const {
        std::string out;
        for (const auto byte : sum_) out += fmt::format("{:02x}", byte);
        return out;
    }

private:
    std::array<unsigned char, 32> sum_{};
};

std::string canonical(const Row& r, const std::vector<Column>& columns) {
    std::string out;
    for (std::size_t i = 0; i < columns.size(); ++i) {
        const int c = static_cast<int>(i);
        if (r.is_null(c))
            out += "N;";
        else if (columns[i].kind == 'i')
            out += fmt::format("i{};", r.integer(c));
        else if (columns[i].kind == 'r')
            out += fmt::format("r{};", r.real(c));
        else {
            const std::string text = clean(r.text(c));
            out += fmt::format("t{}:{};", text.size(), text);
        }
    }
    return out;
}

result<std::vector<Table>> tables_of(Database& db) {
    static constexpr Statement names{
        "tables",
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> "
        "'schema_migration' ORDER BY name"};
    static constexpr Statement columns{
        "columns", "SELECT name, type FROM pragma_table_info($1) ORDER BY cid"};
    static constexpr Statement parents{
        "parents", "SELECT DISTINCT \"table\" FROM pragma_foreign_key_list($1)"};
    std::vector<Table> found;
    HEAL_TRY(db.query(names, {}, [&](const Row& r) { found.push_back({r.text(0), {}, {}}); }));
    for (auto& table : found) {
        HEAL_TRY(db.query(columns, {string_view{table.name}}, [&](const Row& r) {
            const std::string type = r.text(1);
            table.columns.push_back(
                {r.text(0),
                 type == "TEXT"                                 ? 't'
                 : type.starts_with("DOUBLE") || type == "REAL" ? 'r'
                                                                : 'i'}
            );
        }));
        HEAL_TRY(db.query(parents, {string_view{table.name}}, [&](const Row& r) {
            if (r.text(0) != table.name) table.parents.insert(r.text(0));
        }));
    }
    // Parents before children.
    std::vector<Table> ordered;
    std::set<std::string> done;
    while (ordered.size() < found.size()) {
        const auto before = ordered.size();
        for (const auto& table : found) {
            const bool ready = !done.contains(table.name) &&
                               std::all_of(table.parents.begin(), table.parents.end(), [&](const auto& p) {
                                   return done.contains(p);
                               });
            if (!ready) continue;
            done.insert(table.name);
            ordered.push_back(table);
        }
        if (ordered.size() == before) return fail(errc::internal, "the tables refer to each other in a ring");
    }
    return ordered;
}

result<void> same_schema(Database& db, const char* which) {
    auto states = migration_status(db);
    if (!states) return states.error();
    for (const auto& s : *states) {
        if (!s.applied)
            return fail(
                errc::conflict, fmt::format("the {} lacks {}; run heald migrate on it first", which, s.name)
            );
    }
    return {};
}

result<std::vector<MovedTable>> copy(
    Database& from, Database& to, const std::function<void(const MovedTable&)>& told
) {
    auto tables = tables_of(from);
    if (!tables) return tables.error();
    std::deque<std::string> texts;  // statements live as long as the databases use them
    const auto statement = [&](std::string sql) {
        texts.push_back(std::move(sql));
        return Statement{"move", texts.back().c_str()};
    };
    std::vector<MovedTable> moved;
    for (const auto& table : *tables) {
        std::string names, places;
        for (std::size_t i = 0; i < table.columns.size(); ++i) {
            names += fmt::format("{}\"{}\"", i ? ", " : "", table.columns[i].name);
            places += fmt::format("{}${}", i ? ", " : "", i + 1);
        }
        const auto select = statement(fmt::format("SELECT {} FROM {}", names, table.name));
        const auto insert =
            statement(fmt::format("INSERT INTO {} ({}) VALUES ({})", table.name, names, places));
        std::int64_t there = 0;
        HEAL_TRY(to.query(
            statement(fmt::format("SELECT COUNT(*) FROM {}", table.name)),
            {},
            [&](const Row& r) { there = r.integer(0); }
        ));
        if (there > 0) {
            return fail(
                errc::conflict,
                fmt::format(
                    "the target has {} rows in {} already; it must be without data", there, table.name
                )
            );
        }
        MovedTable m;
        m.name = table.name;
        Hash source, target;
        result<void> stored;
        HEAL_TRY(from.query(select, {}, [&](const Row& r) {
            if (!stored) return;
            source.add(canonical(r, table.columns));
            ++m.rows;
            std::vector<std::string> kept(table.columns.size());
            std::vector<Value> values;
            for (std::size_t i = 0; i < table.columns.size(); ++i) {
                const int c = static_cast<int>(i);
                if (r.is_null(c))
                    values.emplace_back(nullptr);
                else if (table.columns[i].kind == 'i')
                    values.emplace_back(r.integer(c));
                else if (table.columns[i].kind == 'r')
                    values.emplace_back(r.real(c));
                else {
                    kept[i] = clean(r.text(c));
                    values.emplace_back(string_view{kept[i]});
                }
            }
            stored = to.post(insert, values);
        }));
        HEAL_TRY(stored);
        // Read back in the same transaction, page by page of nothing but the hash.
        std::int64_t arrived = 0;
        HEAL_TRY(to.query(select, {}, [&](const Row& r) {
            target.add(canonical(r, table.columns));
            ++arrived;
        }));
        m.hash = source.text();
        if (arrived != m.rows || target.text() != m.hash) {
            return fail(
                errc::conflict,
                fmt::format(
                    "{} differs after the copy ({} rows here, {} there); nothing was stored",
                    table.name,
                    m.rows,
                    arrived
                )
            );
        }
        if (told) told(m);
        moved.push_back(std::move(m));
    }
    return moved;
}

}  // namespace

result<std::vector<MovedTable>> move_store(
    Database& from, Database& to, const std::function<void(const MovedTable&)>& told
) {
    if (from.dialect() != Dialect::sqlite || to.dialect() != Dialect::postgres)
        return fail(errc::invalid_input, "a store is moved from SQLite to PostgreSQL");
    HEAL_TRY(same_schema(from, "source"));
    HEAL_TRY(same_schema(to, "target"));
    HEAL_TRY(to.begin());
    auto moved = copy(from, to, told);
    if (!moved) {
        to.rollback();
        return moved.error();
    }
    HEAL_TRY(to.commit());
    return moved;
}

}  // namespace heal
