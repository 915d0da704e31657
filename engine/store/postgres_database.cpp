// libpqxx holds the connection; statements go over it in libpq's pipeline mode, which libpqxx 6 does not have
// (docs/adr/0020-postgresql.md). The only file that knows either.
#include "base/faults.hpp"
#include "base/json.hpp"
#include "store/database.hpp"

#include <fmt/format.h>
#include <libpq-fe.h>
#include <poll.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <pqxx/pqxx>
#include <thread>
#include <unordered_map>

namespace heal {
namespace {

using namespace std::chrono_literals;

/// How long the server may work on one statement, and wait for a lock; half of what a client waits (below).
constexpr const char* statement_timeout = "15s";
/// A node that is stopped in the middle of a transaction gives the write turn back after this.
constexpr const char* idle_timeout = "5s";
/// Without a byte from the server for this long the connection counts as lost (half-open, stopped server).
constexpr auto answer_timeout = 20s;

/// Gives out the handle that libpqxx keeps to itself.
class HandlePolicy : public pqxx::connect_direct {
public:
    explicit HandlePolicy(const std::string& options) : connect_direct(options) {}
    handle do_startconnect(handle known) override {
        opened = connect_direct::do_startconnect(known);
        return opened;
    }
    static thread_local handle opened;
};
thread_local HandlePolicy::handle HandlePolicy::opened = nullptr;
using Connection = pqxx::basic_connection_base<HandlePolicy>;

struct ClearResult {
    void operator()(PGresult* r) const noexcept { ::PQclear(r); }
};
using ResultHandle = std::unique_ptr<PGresult, ClearResult>;

std::string one_line(std::string text) {
    for (char& c : text) {
        if (c == '\n' || c == '\r' || c == '\t') c = ' ';
    }
    while (!text.empty() && text.back() == ' ') text.pop_back();
    return text;
}

errc code_of(std::string_view state) {
    const auto kind = state.substr(0, 2);
    if (kind == "23") return errc::conflict;
    if (state == "22021" || state == "22P05" || state == "22P02") return errc::invalid_input;
    if (kind == "28") return errc::denied;
    if (state == "XX001" || state == "XX002") return errc::corrupt;
    // Connection, rollback, resources (disk full, too many connections), operator intervention, read only,
    // lock not available, I/O of the server.
    if (kind == "08" || kind == "40" || kind == "53" || kind == "57" || kind == "58" || state == "25006" ||
        state == "25P03" || state == "55P03" || state.empty())
        return errc::unavailable;
    return errc::internal;
}

class PostgresRow final : public Row {
public:
    PostgresRow(const PGresult* result, int row) : result_(result), row_(row) {}
    bool is_null(int column) const override { return ::PQgetisnull(result_, row_, column) != 0; }
    std::int64_t integer(int column) const override {
        return std::strtoll(::PQgetvalue(result_, row_, column), nullptr, 10);
    }
    double real(int column) const override {
        return std::strtod(::PQgetvalue(result_, row_, column), nullptr);
    }
    std::string text(int column) const override {
        return {
            ::PQgetvalue(result_, row_, column),
            static_cast<std::size_t>(::PQgetlength(result_, row_, column))};
    }

private:
    const PGresult* result_;
    int row_;
};

bool is_plain(std::string_view text) {
    for (const char c : text) {
        if (c == '\0' || (static_cast<unsigned char>(c) & 0x80U) != 0) return false;
    }
    return true;
}

/// Parameters as libpq wants them: texts that end with NUL. Rows can be added one after the other.
class Parameters {
public:
    void add(std::span<const Value> values) {
        for (const auto& value : values) {
            nulls_.push_back(std::holds_alternative<std::nullptr_t>(value));
            if (const auto* n = std::get_if<std::int64_t>(&value)) {
                texts_.push_back(fmt::format_int(*n).str());
            } else if (const auto* d = std::get_if<double>(&value)) {
                texts_.push_back(fmt::format("{}", *d));
            } else if (const auto* t = std::get_if<std::string_view>(&value)) {
                // The server refuses broken UTF-8 and NUL; SQLite takes them. Both see valid text here.
                texts_.emplace_back(is_plain(*t) ? std::string{*t} : to_valid_utf8(*t));
                std::size_t at = 0;
                while ((at = texts_.back().find('\0', at)) != std::string::npos)
                    texts_.back().replace(at, 1, "\xEF\xBF\xBD");
            } else {
                texts_.emplace_back();
            }
        }
    }
    /// Of `count` parameters from `first` on; holds until the next add() or clear().
    const char* const* data(std::size_t first, std::size_t count) {
        pointers_.clear();
        for (std::size_t i = first; i < first + count; ++i)
            pointers_.push_back(nulls_[i] ? nullptr : texts_[i].c_str());
        return pointers_.data();
    }
    std::size_t size() const { return texts_.size(); }
    void clear() {
        texts_.clear();
        nulls_.clear();
    }

private:
    std::vector<std::string> texts_;
    std::vector<bool> nulls_;
    std::vector<const char*> pointers_;
};

/// "INSERT … VALUES ($1, …, $n)": rows of such a one can go together. What stands behind holds no parameter.
struct RowInsert {
    std::string_view head;    ///< up to and with "VALUES "
    std::size_t columns = 0;  ///< 0: not such a statement
    std::string_view tail;    ///< ON CONFLICT …, RETURNING …
};
RowInsert row_insert(std::string_view sql) {
    const auto at = sql.find("VALUES (");
    if (!sql.starts_with("INSERT INTO") || at == std::string_view::npos) return {};
    const std::string_view row = sql.substr(at + 7, sql.find(')', at) + 1 - (at + 7));
    std::string expected;
    std::size_t columns = 0;
    while (expected.size() + 1 < row.size()) {
        expected += fmt::format("{}${}", columns == 0 ? "(" : ", ", columns + 1);
        ++columns;
    }
    const std::string_view tail = sql.substr(at + 7 + row.size());
    if (expected + ")" != row || tail.find('$') != std::string_view::npos) return {};
    return {sql.substr(0, at + 7), columns, tail};
}
/// @param returning  the first column, by which the rows that were stored or changed are known
std::string of_rows(const RowInsert& insert, std::size_t rows, bool returning) {
    std::string sql{insert.head};
    std::size_t n = 0;
    for (std::size_t r = 0; r < rows; ++r) {
        sql += r == 0 ? "(" : ", (";
        for (std::size_t c = 0; c < insert.columns; ++c) sql += fmt::format("{}${}", c == 0 ? "" : ", ", ++n);
        sql += ')';
    }
    sql += insert.tail;
    if (returning) {
        const auto begin = insert.head.find('(') + 1;
        (sql += " RETURNING ") += insert.head.substr(begin, insert.head.find_first_of(",)", begin) - begin);
    }
    return sql;
}

constexpr std::size_t most_rows = 64;  // a power of 4: of each statement there are four lengths

constexpr Statement begin_work{"begin", "BEGIN"};
// One write transaction at a time in the whole cluster, as SQLite has it: what is read in one is true until
// it ends, and two nodes cannot wait for each other (docs/adr/0020-postgresql.md). Keyed by schema, so that
// several stores can share a database. 1212498251 is "HEAK".
constexpr Statement take_turn{
    "take the write turn", "SELECT pg_advisory_xact_lock(1212498251, hashtext(current_schema()))"};
constexpr Statement ask_xid{"transaction id", "SELECT pg_current_xact_id()::text"};
constexpr Statement commit_work{"commit", "COMMIT"};
constexpr Statement rollback_work{"rollback", "ROLLBACK"};
constexpr Statement save{"savepoint", "SAVEPOINT job"};
constexpr Statement release_save{"release savepoint", "RELEASE SAVEPOINT job"};
constexpr Statement to_save{"rollback to savepoint", "ROLLBACK TO SAVEPOINT job"};
constexpr Statement end_backend{
    "end the old session",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_xid IS NOT NULL AND "
    "usename = current_user"};
constexpr Statement ask_status{"status of transaction", "SELECT pg_xact_status($1::xid8)"};

class PostgresDatabase final : public Database {
public:
    PostgresDatabase(std::string options, std::string place, bool read_only)
        : options_(std::move(options)), place_(std::move(place)), read_only_(read_only) {}

    Dialect dialect() const override { return Dialect::postgres; }

    using Database::post;
    using Database::run;
    result<std::int64_t> run(
        const Statement& statement,
        std::span<const Value> parameters,
        const std::function<void(const Row&)>& on_row
    ) override {
        std::int64_t changed = 0;
        HEAL_TRY(send(statement, parameters, &on_row, &changed));
        HEAL_TRY(exchange());
        return changed;
    }

    result<void> post(const Statement& statement, std::span<const Value> parameters) override {
        // What may meet a row that is there may also meet one of its own statement.
        const RowInsert& insert = insert_of(statement);
        if (insert.columns > 0 && insert.columns == parameters.size() && insert.tail.empty()) {
            if (rows_of_.sql != statement.sql) HEAL_TRY(send_rows());
            rows_of_ = statement;
            rows_.add(parameters);
            if (rows_.size() < most_rows * parameters.size()) return {};
            HEAL_TRY(send_rows());
        } else {
            HEAL_TRY(send(statement, parameters, nullptr, nullptr));
        }
        // Bounded: what is under way lies in buffers of both sides.
        return expected_.size() >= 1000 ? exchange() : result<void>{};
    }

    result<void> run_rows(
        const Statement& statement,
        std::span<const Value> values,
        std::size_t columns,
        std::vector<bool>* ret_changed
    ) override {
        if (ret_changed) ret_changed->assign(values.size() / columns, false);
        if (values.empty()) return {};
        if (insert_of(statement).columns != columns || values.size() % columns != 0)
            return fail(
                errc::internal, fmt::format("{} is no insert of {} columns", statement.name, columns)
            );
        HEAL_TRY(send_rows());
        rows_of_ = statement;
        rows_.add(values);
        if (!ret_changed) {
            HEAL_TRY(send_rows());
            return expected_.size() >= 1000 ? exchange() : result<void>{};
        }
        std::unordered_map<std::string_view, std::size_t> keys;
        for (std::size_t at = 0; at < values.size(); at += columns)
            keys.emplace(std::get<std::string_view>(values[at]), at / columns);
        const std::function<void(const Row&)> mark = [&](const Row& row) {
            if (const auto key = keys.find(row.text(0)); key != keys.end())
                (*ret_changed)[key->second] = true;
        };
        HEAL_TRY(send_rows(&mark));
        return exchange();
    }

    result<void> script(std::string_view sql) override {
        HEAL_TRY(exchange());
        if (!handle_) return lost("script");
        ::PQexitPipelineMode(handle_);
        result<void> outcome;
        try {
            pqxx::nontransaction work{*connection_};
            work.exec(std::string{sql});
        } catch (const pqxx::sql_error& e) {
            outcome = note(e.sqlstate(), fmt::format("store {}: script: {}", place_, one_line(e.what())));
        } catch (const std::exception& e) {
            outcome = note("", fmt::format("store {}: script: {}", place_, one_line(e.what())));
        }
        if (handle_ && ::PQstatus(handle_) == CONNECTION_OK)
            ::PQenterPipelineMode(handle_);
        else
            drop();
        return outcome;
    }

    result<void> begin() override {
        repeat_ = false;  // not at each exchange: the rollback after an error is one, too
        in_doubt_ = false;
        xid_.clear();
        HEAL_TRY(send(begin_work, {}, nullptr, nullptr));
        if (read_only_) return {};
        HEAL_TRY(send(take_turn, {}, nullptr, nullptr));
        return send(ask_xid, {}, &take_xid_, nullptr);
    }

    result<void> commit() override {
        // Known before the commit is sent: what went wrong until here, and the transaction's number.
        HEAL_TRY(exchange());
        std::string tag;
        tag_ = &tag;
        auto outcome = [&]() -> result<void> {
            HEAL_TRY(send(commit_work, {}, nullptr, nullptr));
            in_doubt_ = !xid_.empty();
            if (faults::pass("pg.commit")) {
                // The server hears of it, the answer is lost.
                (void)::PQpipelineSync(handle_);
                (void)::PQflush(handle_);
                return broken("commit", "a fault was asked for");
            }
            return exchange();
        }();
        tag_ = nullptr;
        if (connected()) in_doubt_ = false;
        if (outcome && tag != "COMMIT")
            return fail(errc::internal, fmt::format("store {}: the transaction had failed before", place_));
        return outcome;
    }
    void rollback() noexcept override {
        rows_.clear();
        quietly(rollback_work);
    }

    result<void> savepoint() override { return send(save, {}, nullptr, nullptr); }
    result<void> release() override {
        HEAL_TRY(send(release_save, {}, nullptr, nullptr));
        return exchange();
    }
    void rollback_to_savepoint() noexcept override {
        rows_.clear();
        quietly(to_save);
        quietly(release_save);
    }

    bool connected() const override { return handle_ != nullptr; }
    bool in_doubt() const override { return in_doubt_; }
    bool worth_repeating() const override { return repeat_; }

    result<void> reopen() override {
        drop();
        try {
            connection_ = std::make_unique<Connection>(options_);
            handle_ = HandlePolicy::opened;
            // libpqxx would silently make a new session in the middle of a transaction.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
            connection_->inhibit_reactivation(true);
#pragma GCC diagnostic pop
            pqxx::nontransaction work{*connection_};
            work.exec(fmt::format(
                "SET statement_timeout = '{0}'; SET lock_timeout = '{0}'; SET "
                "idle_in_transaction_session_timeout = '{1}'; SET client_min_messages = warning; SET "
                "timezone = "
                "'UTC'; "
                // A server whose default is off would lose acknowledged writes; a stronger setting stays.
                "SELECT set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') = "
                "'off' "
                "THEN 'on' ELSE current_setting('synchronous_commit') END, false); {2}",
                statement_timeout,
                idle_timeout,
                read_only_ ? "SET default_transaction_read_only = on" : ""
            ));
        } catch (const pqxx::sql_error& e) {
            drop();
            return note(e.sqlstate(), fmt::format("cannot use the store {}: {}", place_, one_line(e.what())));
        } catch (const std::exception& e) {
            drop();
            const std::string why = one_line(e.what());
            const bool refused =
                why.find("authentication failed") != std::string::npos ||
                why.find("no pg_hba.conf entry") != std::string::npos ||
                (why.find("role") != std::string::npos && why.find("does not exist") != std::string::npos);
            return fail(
                refused ? errc::denied : errc::unavailable,
                fmt::format("cannot reach the store {}: {}", place_, why)
            );
        }
        pid_ = ::PQbackendPID(handle_);
        if (::PQenterPipelineMode(handle_) != 1) {
            drop();
            return fail(errc::internal, fmt::format("store {}: libpq has no pipeline mode", place_));
        }
        return {};
    }

    result<bool> landed() override {
        if (!in_doubt_) return false;
        // The server may not have noticed yet that nobody is there any more.
        for (int i = 0; i < 50; ++i) {
            std::string status;
            auto answer =
                query(ask_status, {std::string_view{xid_}}, [&](const Row& r) { status = r.text(0); });
            if (!answer) {
                // A number from the future: this server (after a failover) never heard of it.
                if (!connected()) return answer.error();
                in_doubt_ = false;
                return false;
            }
            if (status != "in progress") {
                in_doubt_ = false;
                return status == "committed";
            }
            if (doubtful_pid_ != 0) (void)query(end_backend, {std::int64_t{doubtful_pid_}}, nullptr);
            std::this_thread::sleep_for(20ms * (i < 10 ? 1 : 5));
        }
        return fail(
            errc::unavailable, fmt::format("store {}: transaction {} is still in progress", place_, xid_)
        );
    }

private:
    enum class Kind : std::uint8_t { prepare, query, sync };
    struct Expected {
        Kind kind;
        const char* name;
        const char* sql;
        const std::function<void(const Row&)>* on_row;
        std::int64_t* changed;
    };

    result<void> send(
        const Statement& statement,
        std::span<const Value> values,
        const std::function<void(const Row&)>* on_row,
        std::int64_t* changed
    ) {
        HEAL_TRY(send_rows());
        Parameters parameters;
        parameters.add(values);
        return send(statement, parameters.data(0, values.size()), values.size(), on_row, changed);
    }
    result<void> send(
        const Statement& statement,
        const char* const* values,
        std::size_t count,
        const std::function<void(const Row&)>* on_row,
        std::int64_t* changed
    ) {
        if (!handle_) return lost(statement.name);
        auto& name = prepared_[statement.sql];
        if (name.empty()) {
            name = fmt::format("s{}", ++statements_);
            if (::PQsendPrepare(handle_, name.c_str(), statement.sql, 0, nullptr) != 1)
                return broken(statement.name);
            expected_.push_back({Kind::prepare, statement.name, statement.sql, nullptr, nullptr});
        }
        if (::PQsendQueryPrepared(
                handle_, name.c_str(), static_cast<int>(count), values, nullptr, nullptr, 0
            ) != 1)
            return broken(statement.name);
        expected_.push_back({Kind::query, statement.name, statement.sql, on_row, changed});
        return {};
    }

    const RowInsert& insert_of(const Statement& statement) {
        auto& known = inserts_[statement.sql];
        if (known.head.empty()) known = row_insert(statement.sql);
        if (known.head.empty()) known.head = statement.sql;  // looked at
        return known;
    }

    /// The rows that were posted one by one, as few statements: each costs the server some 15 us by itself.
    result<void> send_rows(const std::function<void(const Row&)>* on_row = nullptr) {
        if (rows_.size() == 0) return {};
        const RowInsert& insert = inserts_.at(rows_of_.sql);
        const std::size_t all = rows_.size() / insert.columns;
        result<void> outcome;
        for (std::size_t sent = 0; sent < all && outcome;) {
            std::size_t rows = most_rows;
            while (rows > all - sent) rows /= 4;
            auto& sql = row_texts_[{rows_of_.sql, on_row ? rows : 2 * most_rows + rows}];
            if (sql.empty()) sql = of_rows(insert, rows, on_row != nullptr);
            const Statement statement{rows_of_.name, rows == 1 && !on_row ? rows_of_.sql : sql.c_str()};
            const std::size_t count = rows * insert.columns;
            outcome = send(statement, rows_.data(sent * insert.columns, count), count, on_row, nullptr);
            sent += rows;
        }
        rows_.clear();
        return outcome;
    }

    /// Sends what waits, reads all answers. The first error of them; the rest of the pipeline was skipped
    /// then.
    result<void> exchange() {
        if (!handle_) return lost("exchange");
        HEAL_TRY(send_rows());
        if (expected_.empty()) return {};
        if (faults::pass("pg.send")) return broken("send", "a fault was asked for");
        if (::PQpipelineSync(handle_) != 1) return broken("send");
        expected_.push_back({Kind::sync, "sync", nullptr, nullptr, nullptr});
        result<void> outcome;
        while (!expected_.empty()) {
            const Expected e = expected_.front();
            if (auto ready = wait(); !ready) return broken(e.name, ready.error().text);
            const ResultHandle r{::PQgetResult(handle_)};
            if (!r) {
                // The end of one statement's answers.
                if (e.kind == Kind::sync) {
                    if (::PQstatus(handle_) != CONNECTION_OK) return broken(e.name);
                    continue;
                }
                expected_.pop_front();
                continue;
            }
            switch (::PQresultStatus(r.get())) {
                case PGRES_PIPELINE_SYNC:
                    expected_.pop_front();
                    break;
                case PGRES_TUPLES_OK:
                case PGRES_COMMAND_OK: {
                    if (e.changed) *e.changed = std::strtoll(::PQcmdTuples(r.get()), nullptr, 10);
                    if (tag_ && e.kind == Kind::query && e.sql == commit_work.sql)
                        *tag_ = ::PQcmdStatus(r.get());
                    if (e.on_row && *e.on_row) {
                        for (int i = 0; i < ::PQntuples(r.get()); ++i) (*e.on_row)(PostgresRow{r.get(), i});
                    }
                    break;
                }
                case PGRES_PIPELINE_ABORTED:
                    if (e.kind == Kind::prepare) prepared_.erase(e.sql);
                    break;
                default: {
                    if (e.kind == Kind::prepare) prepared_.erase(e.sql);
                    const char* state = ::PQresultErrorField(r.get(), PG_DIAG_SQLSTATE);
                    if (outcome) {
                        outcome = note(
                            state ? state : "",
                            fmt::format(
                                "store {}: {}: {}", place_, e.name, one_line(::PQresultErrorMessage(r.get()))
                            )
                        );
                    }
                    if (::PQstatus(handle_) != CONNECTION_OK) return broken(e.name, outcome.error().text);
                }
            }
        }
        if (must_leave_) {
            // A server that takes no writes any more: another of the hosts may.
            must_leave_ = false;
            drop();
        }
        return outcome;
    }

    /// Until an answer can be read without waiting, or the server has been silent for too long.
    result<void> wait() {
        while (::PQisBusy(handle_) != 0) {
            if (const int flushed = ::PQflush(handle_); flushed < 0)
                return fail(errc::unavailable, one_line(::PQerrorMessage(handle_)));
            pollfd socket{::PQsocket(handle_), POLLIN, 0};
            const int n =
                ::poll(&socket, 1, static_cast<int>(std::chrono::milliseconds{answer_timeout}.count()));
            if (n == 0)
                return fail(errc::unavailable, fmt::format("no answer within {} s", answer_timeout.count()));
            if (n < 0 && errno != EINTR) return fail_errno("poll", errno);
            if (n > 0 && ::PQconsumeInput(handle_) != 1)
                return fail(errc::unavailable, one_line(::PQerrorMessage(handle_)));
        }
        return {};
    }

    void quietly(const Statement& statement) noexcept {
        try {
            if (!handle_) return;
            if (!expected_.empty()) (void)exchange();
            if (handle_ && send(statement, {}, nullptr, nullptr)) (void)exchange();
        } catch (...) {
            drop();
        }
    }

    Error note(std::string_view state, std::string text) {
        repeat_ = state == "40001" || state == "40P01";
        if (state == "25006" && !read_only_) must_leave_ = true;
        return fail(code_of(state), std::move(text));
    }
    Error lost(const char* name) const {
        return fail(errc::unavailable, fmt::format("store {}: {}: the connection is lost", place_, name));
    }
    Error broken(const char* name, std::string why = {}) {
        if (why.empty() && handle_) why = one_line(::PQerrorMessage(handle_));
        drop();
        return fail(errc::unavailable, fmt::format("store {}: {}: {}", place_, name, why));
    }
    void drop() noexcept {
        if (in_doubt_ && pid_ != 0) doubtful_pid_ = pid_;
        pid_ = 0;
        expected_.clear();
        prepared_.clear();
        rows_.clear();
        handle_ = nullptr;
        try {
            connection_.reset();
        } catch (...) {  // NOLINT(bugprone-empty-catch): it is gone either way
        }
    }

    std::string options_, place_;
    bool read_only_;
    std::unique_ptr<Connection> connection_;
    PGconn* handle_ = nullptr;
    int pid_ = 0, doubtful_pid_ = 0;
    unsigned statements_ = 0;
    std::deque<Expected> expected_;
    std::unordered_map<const char*, std::string> prepared_;  // by address: statements are constants
    std::unordered_map<const char*, RowInsert> inserts_;     // what is known of statements, by address
    std::map<std::pair<const char*, std::size_t>, std::string> row_texts_;  // by statement and rows
    Parameters rows_;                                                       // posted, not sent yet
    Statement rows_of_{};
    std::string xid_;
    std::function<void(const Row&)> take_xid_ = [this](const Row& r) { xid_ = r.text(0); };
    std::string* tag_ = nullptr;
    bool in_doubt_ = false, repeat_ = false, must_leave_ = false;
};

struct FreeOptions {
    void operator()(PQconninfoOption* o) const noexcept { ::PQconninfoFree(o); }
};
using OptionsHandle = std::unique_ptr<PQconninfoOption, FreeOptions>;

result<OptionsHandle> parse(const std::string& url) {
    char* why = nullptr;
    OptionsHandle options{::PQconninfoParse(url.c_str(), &why)};
    const std::string text = why ? one_line(why) : "";
    ::PQfreemem(why);
    if (!options) {
        return fail(
            errc::invalid_input,
            fmt::format(
                "store.url cannot be read ({}); write postgresql://user@host:port/name",
                text.empty() ? "no memory" : text
            )
        );
    }
    return options;
}

std::string quoted(std::string_view value) {
    std::string out = "'";
    for (const char c : value) {
        if (c == '\\' || c == '\'') out += '\\';
        out += c;
    }
    return out + "'";
}

result<std::string> connection_text(const std::string& url, const std::string& password) {
    auto options = parse(url);
    if (!options) return options.error();
    std::string text;
    // Five lost probes of 2 s after 5 s of silence, and unanswered data for 10 s, end a half-open connection.
    std::vector<std::pair<std::string_view, std::string_view>> defaults = {
        {"connect_timeout", "5"},
        {"application_name", "heald"},
        {"keepalives_idle", "5"},
        {"keepalives_interval", "2"},
        {"keepalives_count", "5"},
        {"tcp_user_timeout", "10000"},
        {"client_encoding", "UTF8"},
        {"target_session_attrs", "read-write"}};
    for (const auto* o = options->get(); o->keyword; ++o) {
        std::string_view value = o->val ? o->val : "";
        if (value.empty()) {
            for (const auto& [key, preset] : defaults) {
                if (key == o->keyword) value = preset;
            }
            if (std::string_view{o->keyword} == "password") value = password;
        }
        if (!value.empty()) text += fmt::format("{} = {} ", o->keyword, quoted(value));
    }
    return text;
}

class Ear final : public pqxx::notification_receiver {
public:
    Ear(pqxx::connection_base& connection, const std::string& channel, const std::function<void()>& heard)
        : notification_receiver(connection, channel), heard_(heard) {}
    void operator()(const std::string&, int) override { heard_(); }

private:
    const std::function<void()>& heard_;
};

}  // namespace

result<void> listen_postgres(
    const std::string& url,
    const std::string& password,
    const std::string& channel,
    const std::function<void()>& heard,
    const std::atomic<bool>& end
) {
    auto text = connection_text(url, password);
    if (!text) return text.error();
    try {
        pqxx::connection connection{*text};
        const Ear ear{connection, channel, heard};
        while (!end) connection.await_notification(0, 500'000);
    } catch (const std::exception& e) {
        return fail(
            errc::unavailable, fmt::format("listening on {}: {}", describe_postgres(url), one_line(e.what()))
        );
    }
    return {};
}

result<std::unique_ptr<Database>> open_postgres(
    const std::string& url, const std::string& password, bool read_only
) {
    auto text = connection_text(url, password);
    if (!text) return text.error();
    auto database = std::make_unique<PostgresDatabase>(std::move(*text), describe_postgres(url), read_only);
    HEAL_TRY(database->reopen());
    return std::unique_ptr<Database>{std::move(database)};
}

std::string describe_postgres(const std::string& url) {
    auto options = parse(url);
    if (!options) return {};
    std::string host, port, name;
    for (const auto* o = options->get(); o->keyword; ++o) {
        const std::string_view key = o->keyword, value = o->val ? o->val : "";
        if (key == "host" || (key == "hostaddr" && host.empty())) host = value;
        if (key == "port") port = value;
        if (key == "dbname") name = value;
    }
    return fmt::format("postgresql://{}{}{}/{}", host, port.empty() ? "" : ":", port, name);
}

}  // namespace heal
