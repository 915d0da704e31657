// The store as the engine uses it: writes are queued and committed in groups by one thread, in the order in
// which they were submitted; reads run on threads of their own and see only what is committed. Knows
// transactions, not what is in them (healing_store.hpp).
#pragma once

#include "base/clock.hpp"
#include "store/database.hpp"
#include "store/store_settings.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>

namespace heal {

struct StoreFigures {
    std::uint64_t commits = 0, writes = 0, failed_commits = 0;
    std::uint64_t repeated = 0;    ///< transactions run again after a deadlock or a broken connection
    std::uint64_t reconnects = 0;  ///< connections made anew
    std::uint64_t doubts = 0;      ///< commits whose outcome had to be asked for after the connection broke
    std::size_t queued = 0;
    std::size_t kept = 0;  ///< of these, writes that were tried and will be until they are stored
    std::int64_t last_commit_us = 0;
    std::string last_error;  ///< "" when the newest commit succeeded
    bool connected = true;
    const char* engine = "sqlite";
    std::string place;  ///< the file, or host and name without a password
};

class Store {
public:
    using Job = std::function<result<void>(Database&)>;
    using Done = std::function<void(result<void>)>;

    virtual ~Store() = default;

    /// Queues one write. `job` runs on the storage thread, alone in a savepoint of a group's transaction;
    /// `done` runs on the executor after the commit, or with the error of the job or of the commit. Jobs of
    /// one turn of the event loop share a commit whenever they can. @thread any
    /// PostgreSQL runs a group first without savepoints and, if one job fails, once more with them: a job may
    /// run more than once, and only its last run counts.
    virtual void submit(Job job, Done done) = 0;

    /// A write that must not get lost because the store is away for a while (what became of an attempt):
    /// tried until it is stored, in its order among the others. `done` as above; errors are those of the job
    /// itself, or errc::cancelled when the store stops first. @thread any
    virtual void keep(Job job, Done done) = 0;

    /// Between the two, writes are only collected; uncork() hands them over together, so that one commit
    /// carries them all (a log line and the intent it led to). May nest. @thread the executor's
    /// The storage thread is woken by the first cork, so that it is awake when the decision made under it
    /// has an urgent write.
    virtual void cork() = 0;
    virtual void uncork() = 0;

    /// A write that somebody waits for and that holds without what is still queued: it overtakes the queue
    /// and is committed in a group of such writes only; no cork holds it. Keep it small. @thread any
    /// After it the storage thread rests for up to a millisecond, so that what waited for it gets the
    /// processor before the rows that nobody waits for.
    virtual void submit_urgent(Job job, Done done) = 0;

    /// Ends such a rest: somebody waits for what is queued. @thread any
    virtual void hurry() = 0;

    /// submit() as an awaitable, in a hurry.
    boost::asio::awaitable<result<void>> write(Job job);

    /// Runs `job` on a reader with its own connection; errc::overloaded when too many wait.
    template <class T>
    boost::asio::awaitable<result<T>> read(std::function<result<T>(Database&)> job) {
        auto answer = std::make_shared<result<T>>(fail(errc::cancelled, "the store is stopping"));
        // Named, not a temporary in the co_await expression: GCC 12 destroys such a one twice
        // (docs/adr/0006-coroutines.md).
        Job wrapped = [answer, job = std::move(job)](Database& db) -> result<void> {
            *answer = job(db);
            if (!*answer) return answer->error();
            return {};
        };
        HEAL_CO_TRY(co_await read_job(std::move(wrapped)));
        co_return std::move(*answer);
    }

    virtual StoreFigures figures() const = 0;
    /// Commits what is queued, then ends the threads. Later writes get errc::cancelled.
    virtual void stop() = 0;

protected:
    virtual void submit_read(Job job, Done done) = 0;

private:
    boost::asio::awaitable<result<void>> read_job(Job job);
};

/// Corks for a scope.
class Corked {
public:
    explicit Corked(Store& store) : store_(store) { store_.cork(); }
    ~Corked() { store_.uncork(); }
    Corked(const Corked&) = delete;
    Corked& operator=(const Corked&) = delete;

private:
    Store& store_;
};

/// Only one process may write to the store of a state directory; held until it goes.
class InstanceLock {
public:
    /// errc::conflict another heald has it.
    static result<InstanceLock> take(const std::string& store_path);
    InstanceLock() = default;
    InstanceLock(InstanceLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    InstanceLock& operator=(InstanceLock&&) = delete;
    ~InstanceLock();

private:
    int fd_ = -1;
};

/// The database of the settings, as it is.
result<std::unique_ptr<Database>> open_database(const StoreSettings& settings, bool read_only);

/// Brings the schema up to date; returns how many files were applied. Before an SQLite store with data in it
/// is touched, a copy of it is made beside it: "heald.db.schema-NNNN", NNNN the version before.
result<int> migrate_store(Database& database, const StoreSettings& settings, const Clock& clock);

/// Opens (creating and migrating it), takes the single-instance lock of the state directory. Blocks up to
/// some seconds when a server does not answer. errc::conflict another heald uses it, or the schema is newer;
/// errc::unavailable, errc::denied, errc::corrupt.
result<std::unique_ptr<Store>> open_store(
    StoreSettings settings, boost::asio::any_io_executor executor, const Clock& clock
);

}  // namespace heal
