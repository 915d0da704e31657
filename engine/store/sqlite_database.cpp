#include "store/database.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <unordered_map>
#include <vector>

namespace heal {
namespace {

struct CloseDatabase {
    void operator()(sqlite3* db) const noexcept { ::sqlite3_close_v2(db); }
};
struct Finalize {
    void operator()(sqlite3_stmt* statement) const noexcept { ::sqlite3_finalize(statement); }
};
using DatabaseHandle = std::unique_ptr<sqlite3, CloseDatabase>;
using StatementHandle = std::unique_ptr<sqlite3_stmt, Finalize>;

errc code_of(int rc) {
    switch (rc & 0xFF) {
        case SQLITE_CONSTRAINT:
            return errc::conflict;
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
        case SQLITE_FULL:
        case SQLITE_IOERR:
        case SQLITE_CANTOPEN:
        case SQLITE_READONLY:
            return errc::unavailable;
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
            return errc::corrupt;
        default:
            return errc::internal;
    }
}

class SqliteRow final : public Row {
public:
    explicit SqliteRow(sqlite3_stmt* statement) : statement_(statement) {}
    bool is_null(int column) const override {
        return ::sqlite3_column_type(statement_, column) == SQLITE_NULL;
    }
    std::int64_t integer(int column) const override { return ::sqlite3_column_int64(statement_, column); }
    double real(int column) const override { return ::sqlite3_column_double(statement_, column); }
    std::string text(int column) const override {
        const auto* bytes = static_cast<const char*>(::sqlite3_column_blob(statement_, column));
        return bytes
                   ? std::string{bytes, static_cast<std::size_t>(::sqlite3_column_bytes(statement_, column))}
                   : std::string{};
    }

private:
    sqlite3_stmt* statement_;
};

/// Pages in the write-ahead log from which on it is moved into the database file: 16 MiB, which one idle
/// moment writes in some 10 ms.
constexpr int checkpoint_pages = 4000;
/// A frame of the log: a page and its header (sqlite.org/fileformat2.html#walformat).
constexpr std::int64_t frame_bytes = 4096 + 24;
constexpr std::int64_t log_step = 4 << 20;
constexpr std::uint64_t least_free_bytes = 256U << 20U;

class SqliteDatabase final : public Database {
public:
    SqliteDatabase(DatabaseHandle db, std::string path) : db_(std::move(db)), path_(std::move(path)) {}

    Dialect dialect() const override { return Dialect::sqlite; }

    /// Takes the log's checkpoints out of the commits and into idle().
    void watch_log() {
        ::sqlite3_wal_hook(
            db_.get(),
            [](void* self, sqlite3*, const char*, int pages) {
                static_cast<SqliteDatabase*>(self)->log_pages_ = pages;
                return SQLITE_OK;
            },
            this
        );
        idle();
    }

    void idle() noexcept override {
        if (log_pages_ >= checkpoint_pages)
            ::sqlite3_wal_checkpoint_v2(db_.get(), nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
        // A sync of a log that grows writes the file's size too: about twice the time of one that is
        // overwritten (measured: 0.55 against 0.35 ms on an idle machine). So there are always zeros ahead;
        // to SQLite they are the end of the log.
        const std::int64_t used = std::min(log_pages_, checkpoint_pages) * frame_bytes;
        if (log_bytes_ - used < log_step / 4) extend_log();
    }

    using Database::run;
    result<std::int64_t> run(
        const Statement& statement,
        std::span<const Value> parameters,
        const std::function<void(const Row&)>& on_row
    ) override {
        auto& prepared = prepared_[statement.sql];
        if (!prepared.handle) {
            sqlite3_stmt* raw = nullptr;
            const int rc =
                ::sqlite3_prepare_v3(db_.get(), statement.sql, -1, SQLITE_PREPARE_PERSISTENT, &raw, nullptr);
            if (rc != SQLITE_OK) return error(statement.name, rc);
            prepared.handle.reset(raw);
        }
        sqlite3_stmt* const s = prepared.handle.get();
        // To SQLite "$2" is a name, numbered by its first appearance; 0: the statement does not use it.
        while (prepared.index.size() < parameters.size()) {
            prepared.index.push_back(
                ::sqlite3_bind_parameter_index(s, fmt::format("${}", prepared.index.size() + 1).c_str())
            );
        }
        for (std::size_t i = 0; i < parameters.size(); ++i) bind(s, prepared.index[i], parameters[i]);
        int rc = 0;
        while ((rc = ::sqlite3_step(s)) == SQLITE_ROW) {
            if (on_row) on_row(SqliteRow{s});
        }
        const std::int64_t changed = ::sqlite3_changes64(db_.get());
        result<std::int64_t> outcome = changed;
        if (rc != SQLITE_DONE) outcome = error(statement.name, rc);
        ::sqlite3_reset(s);
        ::sqlite3_clear_bindings(s);
        return outcome;
    }

    result<void> script(std::string_view sql) override {
        const std::string text{sql};
        if (const int rc = ::sqlite3_exec(db_.get(), text.c_str(), nullptr, nullptr, nullptr);
            rc != SQLITE_OK) {
            return error("script", rc);
        }
        return {};
    }

    result<void> begin() override { return simple("BEGIN IMMEDIATE"); }
    result<void> commit() override { return simple("COMMIT"); }
    void rollback() noexcept override {
        if (::sqlite3_get_autocommit(db_.get()) == 0)
            ::sqlite3_exec(db_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
    }
    result<void> savepoint() override { return simple("SAVEPOINT job"); }
    result<void> release() override { return simple("RELEASE job"); }
    void rollback_to_savepoint() noexcept override {
        ::sqlite3_exec(db_.get(), "ROLLBACK TO job; RELEASE job", nullptr, nullptr, nullptr);
    }

private:
    result<void> simple(const char* sql) {
        const Statement statement{sql, sql};
        HEAL_TRY(run(statement, std::span<const Value>{}, nullptr));
        return {};
    }

    static void bind(sqlite3_stmt* s, int index, const Value& value) {
        if (const auto* n = std::get_if<std::int64_t>(&value))
            ::sqlite3_bind_int64(s, index, *n);
        else if (const auto* d = std::get_if<double>(&value))
            ::sqlite3_bind_double(s, index, *d);
        else if (const auto* t = std::get_if<std::string_view>(&value)) {
            // The text outlives the step: SQLITE_STATIC, no copy. A null data pointer would bind NULL.
            ::sqlite3_bind_text64(s, index, t->data() ? t->data() : "", t->size(), nullptr, SQLITE_UTF8);
        } else {
            ::sqlite3_bind_null(s, index);
        }
    }

    Error error(const char* name, int rc) const {
        return fail(code_of(rc), fmt::format("store {}: {}: {}", path_, name, ::sqlite3_errmsg(db_.get())));
    }

    void extend_log() noexcept {
        // The log belongs to this thread; SQLite's locks lie on another file, so that this descriptor's close
        // releases none.
        const int fd = ::open((path_ + "-wal").c_str(), O_WRONLY | O_CLOEXEC);
        struct stat info {};
        struct statvfs disk {};
        if (fd >= 0 && ::fstat(fd, &info) == 0) {
            log_bytes_ = info.st_size;
            const std::int64_t wanted =
                std::min<std::int64_t>(log_bytes_ + log_step, (checkpoint_pages + 64) * frame_bytes);
            if (log_bytes_ >= wanted || ::fstatvfs(fd, &disk) != 0 ||
                std::uint64_t{disk.f_bavail} * disk.f_frsize < least_free_bytes) {
                log_bytes_ = std::max(log_bytes_, checkpoint_pages * frame_bytes);  // never again
            } else {
                static constexpr char zeros[1 << 16] = {};
                while (log_bytes_ < wanted) {
                    const auto n = ::pwrite(fd, zeros, sizeof zeros, log_bytes_);
                    if (n <= 0) break;
                    log_bytes_ += n;
                }
                ::fdatasync(fd);
            }
        }
        if (fd >= 0) ::close(fd);
    }

    DatabaseHandle db_;
    std::string path_;
    int log_pages_ = 0;
    std::int64_t log_bytes_ = 0;
    struct Prepared {
        StatementHandle handle;
        std::vector<int> index;
    };
    std::unordered_map<const char*, Prepared> prepared_;  // by address: statements are constants
};

}  // namespace

result<std::unique_ptr<Database>> open_sqlite(const std::string& path, bool read_only) {
    sqlite3* raw = nullptr;
    const auto old_mask = ::umask(0077);
    const int flags =
        (read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) | SQLITE_OPEN_NOMUTEX;
    const int rc = ::sqlite3_open_v2(path.c_str(), &raw, flags, nullptr);
    ::umask(old_mask);
    DatabaseHandle handle{raw};
    if (rc != SQLITE_OK) {
        return fail(
            errc::unavailable,
            fmt::format("cannot open the store {}: {}", path, raw ? ::sqlite3_errmsg(raw) : "no memory")
        );
    }
    ::sqlite3_extended_result_codes(raw, 1);
    ::sqlite3_busy_timeout(raw, 5000);
    ::sqlite3_db_config(raw, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
    auto database = std::make_unique<SqliteDatabase>(std::move(handle), path);
    // auto_vacuum takes effect in a new file only: what retention frees goes back to the disk piece by piece.
    // FULL: fsync of the WAL at each commit (sqlite.org/wal.html); the writer checkpoints, readers never do.
    const char* prepare =
        read_only ? "PRAGMA query_only=1; PRAGMA cache_size=-2000;"
                  : "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; "
                    "PRAGMA foreign_keys=ON; PRAGMA cache_size=-4000; PRAGMA journal_size_limit=67108864;";
    // Two that make a new file at once: the change to WAL is refused without the timeout's wait, since each
    // may hold what the other needs (sqlite.org/pragma.html#pragma_journal_mode).
    auto prepared = database->script(prepare);
    for (int i = 0; i < 500 && !prepared && (::sqlite3_errcode(raw) & 0xff) == SQLITE_BUSY; ++i) {
        ::sqlite3_sleep(10);
        prepared = database->script(prepare);
    }
    HEAL_TRY(std::move(prepared));
    if (!read_only) database->watch_log();
    return std::unique_ptr<Database>{std::move(database)};
}

}  // namespace heal
