// The store as the engine uses it: writes are queued and committed in groups by one thread, in the order in
// which they were submitted; reads run on threads of their own and see only what is committed. Knows
// transactions, not what is in them (healing_store.hpp).
#pragma once

#include "base/clock.hpp"
#include "store/database.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

namespace heal {

struct StoreSettings {
    std::string path;                ///< SQLite file
    std::size_t max_queue = 10'000;  ///< writes waiting; beyond it errc::overloaded
};

struct StoreFigures {
    std::uint64_t commits = 0, writes = 0, failed_commits = 0;
    std::size_t queued = 0;
    std::int64_t last_commit_us = 0;
    std::string last_error;  ///< "" when the newest commit succeeded
};

class Store {
public:
    using Job = std::function<result<void>(Database&)>;
    using Done = std::function<void(result<void>)>;

    virtual ~Store() = default;

    /// Queues one write. `job` runs on the storage thread, alone in a savepoint of a group's transaction;
    /// `done` runs on the executor after the commit, or with the error of the job or of the commit. Jobs of
    /// one turn of the event loop share a commit whenever they can. @thread any
    virtual void submit(Job job, Done done) = 0;

    /// Between the two, writes are only collected; uncork() hands them over together, so that one commit
    /// carries them all (a log line and the intent it led to). May nest. @thread the executor's
    virtual void cork() = 0;
    virtual void uncork() = 0;

    /// What is submitted from now on goes into a later commit than what was before: a small, urgent one is
    /// not held up by the rows behind it. Nothing when the queue is empty. @thread the executor's
    virtual void cut() = 0;

    /// submit() as an awaitable.
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

/// Opens (creating and migrating it), takes the single-instance lock beside the file.
/// errc::conflict another heald uses it, or the schema is newer; errc::unavailable, errc::corrupt.
result<std::unique_ptr<Store>> open_store(
    StoreSettings settings, boost::asio::any_io_executor executor, const Clock& clock
);

}  // namespace heal
