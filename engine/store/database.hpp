// The narrow door to a database engine (D7): statements with $1-style parameters, rows read by position,
// transactions. Two drivers stand behind it; nothing above this file knows which one. A Database is used by
// one thread at a time.
#pragma once

#include "base/error.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>

namespace heal {

/// A parameter. Text is borrowed for the call.
using Value = std::variant<std::nullptr_t, std::int64_t, double, std::string_view>;

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
    /// Several statements without parameters, separated by semicolons (migrations).
    virtual result<void> script(std::string_view sql) = 0;

    /// A write transaction. After an error of commit() nothing of it is stored.
    virtual result<void> begin() = 0;
    virtual result<void> commit() = 0;
    virtual void rollback() noexcept = 0;
    /// A nested part which can fail alone. One level.
    virtual result<void> savepoint() = 0;
    virtual result<void> release() = 0;
    virtual void rollback_to_savepoint() noexcept = 0;

    /// Work that no commit should wait for (moving the log into the file, making room in it). Called outside
    /// of a transaction after the outcomes of one are on their way.
    virtual void idle() noexcept {}
};

/// SQLite in WAL mode, synchronous FULL: a commit that returned survives a power cut. busy_timeout 5 s.
/// @param path  file, created with mode 0600; ":memory:" for tests
/// errc::unavailable when it can't be opened, errc::corrupt when it is not a database.
result<std::unique_ptr<Database>> open_sqlite(const std::string& path, bool read_only);

}  // namespace heal
