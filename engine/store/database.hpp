// The narrow door to a database engine (D7): statements with $1-style parameters, rows read by position,
// transactions. Two drivers stand behind it (sqlite_database.cpp, postgres_database.cpp); nothing above this
// file knows which one. A Database is used by one thread at a time.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace heal {

/// A parameter. Text is borrowed for the call.
using Value = std::variant<std::nullptr_t, std::int64_t, double, std::string_view>;
inline Value or_null(const std::optional<Time>& time) { return time ? Value{time->us} : Value{nullptr}; }

/// One row of an answer, valid within the callback. Columns from 0, in the order of the SELECT.
class Row {
public:
    virtual ~Row() = default;
    virtual bool is_null(int column) const = 0;
    virtual std::int64_t integer(int column) const = 0;  ///< 0 for NULL
    virtual double real(int column) const = 0;           ///< 0 for NULL
    virtual std::string text(int column) const = 0;      ///< "" for NULL
};

/// A named statement; the name stands in errors and metrics. The text must live as long as the Database (a
/// constant).
struct Statement {
    const char* name;
    const char* sql;
};

enum class Dialect : std::uint8_t { sqlite, postgres };

class Database {
public:
    virtual ~Database() = default;
    virtual Dialect dialect() const = 0;

    /// Runs one statement; calls `on_row` for each row. Returns the number of rows changed.
    /// errc::conflict unique or check constraint; errc::unavailable connection lost, locked, full disk;
    /// errc::corrupt; errc::internal.
    virtual result<std::int64_t> run(
        const Statement& statement,
        std::span<const Value> parameters,
        const std::function<void(const Row&)>& on_row
    ) = 0;
    result<std::int64_t> run(const Statement& statement, std::initializer_list<Value> parameters = {}) {
        return run(statement, std::span<const Value>{parameters.begin(), parameters.size()}, nullptr);
    }
    result<std::int64_t> query(
        const Statement& statement,
        std::initializer_list<Value> parameters,
        const std::function<void(const Row&)>& on_row
    ) {
        return run(statement, std::span<const Value>{parameters.begin(), parameters.size()}, on_row);
    }
    /// The same, when all that matters is whether it worked.
    result<void> execute(const Statement& statement, std::initializer_list<Value> parameters = {}) {
        if (auto outcome = run(statement, parameters); !outcome) return outcome.error();
        return {};
    }
    /// Runs one statement whose answer nobody needs. Its error may come late: from the next run(), release()
    /// or commit(); so PostgreSQL is not asked once per statement (docs/adr/0020-postgresql.md).
    virtual result<void> post(const Statement& statement, std::span<const Value> parameters) {
        if (auto outcome = run(statement, parameters, nullptr); !outcome) return outcome.error();
        return {};
    }
    result<void> post(const Statement& statement, std::initializer_list<Value> parameters) {
        return post(statement, std::span<const Value>{parameters.begin(), parameters.size()});
    }
    /// Runs an "INSERT INTO … (…) VALUES ($1, …, $n) …" once for each `columns` of `values`. PostgreSQL takes
    /// many rows in one statement, so no two of them may have the same key.
    /// @param ret_changed  for each row whether it was stored, or changed one that was there; the first
    /// column has to be the table's key, a text. nullptr: nobody asks, and an error may come late, as of
    /// post()
    virtual result<void> run_rows(
        const Statement& statement,
        std::span<const Value> values,
        std::size_t columns,
        std::vector<bool>* ret_changed
    ) {
        if (ret_changed) ret_changed->assign(values.size() / columns, false);
        for (std::size_t at = 0; at < values.size(); at += columns) {
            auto outcome = run(statement, values.subspan(at, columns), nullptr);
            if (!outcome) return outcome.error();
            if (ret_changed) (*ret_changed)[at / columns] = *outcome > 0;
        }
        return {};
    }
    /// Several statements without parameters, separated by semicolons (migrations).
    virtual result<void> script(std::string_view sql) = 0;

    /// A write transaction; there is one at a time in the whole store, also with many nodes. After an error
    /// of commit() nothing of it is stored, except when landed() says so.
    virtual result<void> begin() = 0;
    virtual result<void> commit() = 0;
    virtual void rollback() noexcept = 0;
    /// A nested part which can fail alone. One level.
    virtual result<void> savepoint() = 0;
    virtual result<void> release() = 0;
    virtual void rollback_to_savepoint() noexcept = 0;

    /// False: the connection broke; reopen() makes a new one. A file has no connection and is always there.
    virtual bool connected() const { return true; }
    virtual result<void> reopen() { return {}; }
    /// After a failed commit(): true while it isn't known whether the transaction is stored, because the
    /// connection broke in between. landed() finds out, on a reopened connection. errc::unavailable: ask
    /// later.
    virtual bool in_doubt() const { return false; }
    virtual result<bool> landed() { return false; }
    /// The newest error was a deadlock or a serialization failure: the same transaction, run again, may pass.
    virtual bool worth_repeating() const { return false; }

    /// Work that no commit should wait for (moving the log into the file, making room in it). Called outside
    /// of a transaction after the outcomes of one are on their way.
    virtual void idle() noexcept {}
};

/// SQLite in WAL mode, synchronous FULL: a commit that returned survives a power cut. busy_timeout 5 s.
/// @param path  file, created with mode 0600; ":memory:" for tests
/// errc::unavailable when it can't be opened, errc::corrupt when it is not a database.
result<std::unique_ptr<Database>> open_sqlite(const std::string& path, bool read_only);

/// PostgreSQL 13 or later by libpqxx. synchronous_commit is never off: a commit that returned survives a
/// power cut of the server. Each statement has a deadline on the server and, in case the network is gone, one
/// here.
/// @param url       "postgresql://user@host1,host2/name?…" or "host=… dbname=…"; of several hosts the one
/// that
///                  takes writes
/// @param password  "" when the url, ~/.pgpass or $PGPASSWORD has it, or none is asked for
/// errc::unavailable cannot be reached now; errc::denied user or password; errc::invalid_input the url.
result<std::unique_ptr<Database>> open_postgres(
    const std::string& url, const std::string& password, bool read_only
);

/// Listens on a channel over a connection of its own; calls `heard` for what arrives. Returns when the
/// connection is lost or could not be made (an error), or when `end` is set (looked at twice a second).
result<void> listen_postgres(
    const std::string& url,
    const std::string& password,
    const std::string& channel,
    const std::function<void()>& heard,
    const std::atomic<bool>& end
);

/// What of a url may be shown: host, port and name, never a password. "" when it can't be read.
std::string describe_postgres(const std::string& url);

}  // namespace heal
