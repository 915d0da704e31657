// The jobs that keep the store well: thinning of samples, retention, roll-ups. Each runs once in the whole
// cluster, in pieces of a few milliseconds, and is written down in cron_job_status and cron_execution_log.
// Other services add jobs of their own (analysis, scans), whose work takes as long as it takes. Deliberately
// no jobs of users.
//
// Threads: the event loop's.
#pragma once

#include "service/settings.hpp"
#include "store/maintenance.hpp"
#include "store/store.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace heal {

/// When a job is due: "every 15m" counted from midnight UTC, or "daily 03:00" UTC.
class Schedule {
public:
    static Schedule every(std::chrono::minutes interval);
    static Schedule daily(std::chrono::minutes after_midnight);
    /// The first time after `now`.
    Time next(Time now) const;
    std::string text() const;

private:
    Duration interval_{0}, offset_{0};
};

class StoreJobs {
public:
    using GetSettings = std::function<std::shared_ptr<const Settings>()>;
    StoreJobs(
        boost::asio::io_context& io, Store& store, const Clock& clock, GetSettings settings, std::string node
    );
    ~StoreJobs();

    /// What a job that waits on others does; the result goes into the log as "N rows".
    using LongWork = std::function<boost::asio::awaitable<result<std::int64_t>>()>;
    /// Before run(). It runs beside the others; its lease is kept while it does. A node that loses the lease
    /// ends the work it does as it can, and what it did is not written down as this run's.
    void add(std::string name, std::string description, Schedule schedule, LongWork work);

    /// Declares the jobs, then runs what is due until stop().
    boost::asio::awaitable<void> run();
    void stop();

    /// Runs it once, due or not; resumes when it has ended. errc::not_found; errc::conflict it runs already.
    boost::asio::awaitable<result<json::object>> run_now(std::string name);

private:
    struct Job;
    boost::asio::awaitable<result<json::object>> execute(const Job& job, bool at_once);
    boost::asio::awaitable<void> execute_when_due(const Job& job);
    boost::asio::awaitable<result<std::int64_t>> work(const Job& job, const std::string& run_id);
    boost::asio::awaitable<result<std::int64_t>> long_work(const Job& job, std::string run_id);
    boost::asio::awaitable<void> keep_lease(
        std::string name, std::string run_id, std::shared_ptr<bool> ended
    );

    boost::asio::io_context& io_;
    Store& store_;
    const Clock& clock_;
    GetSettings settings_;
    std::string node_;
    boost::asio::steady_timer timer_;
    bool stopping_ = false;
    std::vector<Job> jobs_;
    std::map<std::string, Time> due_;
};

}  // namespace heal
