#include "service/store_jobs.hpp"

#include "base/id.hpp"
#include "base/log.hpp"
#include "base/tasks.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace heal {
namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

constexpr Duration day = 24h;
/// A piece takes milliseconds; a job that says nothing for this long is taken for lost.
constexpr Duration job_lease = 1min;
/// Between two pieces intents and ingest have the store.
constexpr auto breath = 5ms;
constexpr auto look_again = 15s;
constexpr auto heartbeat = 15s;

using Work = std::function<result<sql::Piece>(Database&)>;

/// The pieces of `log_cleanup`, with what they need to remember between one piece and the next.
std::vector<Work> cleanup(const RetentionSettings& keep, Time now) {
    auto cursor = std::make_shared<std::string>(), rows_cursor = std::make_shared<std::string>();
    auto bytes_cursor = std::make_shared<std::string>();
    std::vector<Work> steps;
    steps.emplace_back([=](Database& db) {
        return sql::delete_samples(db, now - keep.log_entries, 500, *cursor);
    });
    steps.emplace_back([=](Database& db) -> result<sql::Piece> {
        auto rows = sql::count_samples(db);
        if (!rows) return rows.error();
        const auto excess = *rows - static_cast<std::int64_t>(keep.log_rows);
        if (keep.log_rows == 0 || excess <= 0) return sql::Piece{};
        return sql::delete_samples(db, now, std::min<std::int64_t>(excess, 500), *rows_cursor);
    });
    steps.emplace_back([=](Database& db) -> result<sql::Piece> {
        auto size = sql::store_size(db);
        if (!size) return size.error();
        if (keep.bytes == 0 || size->bytes - size->free <= static_cast<std::int64_t>(keep.bytes))
            return sql::Piece{};
        return sql::delete_samples(db, now, 500, *bytes_cursor);
    });
    steps.emplace_back([=](Database& db) -> result<sql::Piece> {
        auto gone = sql::cleanup_old_healing_data(db, now - keep.healing, 100);
        if (!gone) return gone.error();
        return sql::Piece{gone->rows(), gone->more};
    });
    steps.emplace_back([=](Database& db) {
        return sql::delete_old_counts(db, now - keep.minute_counts, now - keep.hour_counts);
    });
    steps.emplace_back([=](Database& db) { return sql::delete_old_records(db, now - keep.records); });
    steps.emplace_back([](Database& db) { return sql::release_free_space(db, 2000); });
    return steps;
}

}  // namespace

Schedule Schedule::every(std::chrono::minutes interval) {
    Schedule s;
    s.interval_ = interval;
    return s;
}

Schedule Schedule::daily(std::chrono::minutes after_midnight) {
    Schedule s;
    s.interval_ = day;
    s.offset_ = after_midnight;
    return s;
}

Time Schedule::next(Time now) const {
    const auto past = (now.us - offset_.count()) % interval_.count();
    return now - Duration{past} + interval_;
}

std::string Schedule::text() const {
    const auto minutes = [](Duration d) {
        return std::chrono::duration_cast<std::chrono::minutes>(d).count();
    };
    if (interval_ < day) return fmt::format("every {}m", minutes(interval_));
    if (interval_ > day) return fmt::format("every {}d", minutes(interval_) / (24 * 60));
    return fmt::format("daily {:02}:{:02}", minutes(offset_) / 60, minutes(offset_) % 60);
}

struct StoreJobs::Job {
    std::string name, description;
    Schedule schedule;
    std::function<std::vector<Work>(const Settings&, Time)> steps;
    LongWork long_work{};  ///< instead of steps
};

StoreJobs::StoreJobs(
    asio::io_context& io, Store& store, const Clock& clock, GetSettings settings, std::string node
)
    : io_(io),
      store_(store),
      clock_(clock),
      settings_(std::move(settings)),
      node_(std::move(node)),
      timer_(io) {
    jobs_.push_back(
        {"log_sampling",
         "Thins the samples of errors that are frequent",
         Schedule::every(1min),
         [](const Settings&, Time now) {
             return std::vector<Work>{[now](Database& db) { return sql::thin_samples(db, now, 20); }};
         }}
    );
    jobs_.push_back(
        {"metrics_aggregation",
         "Figures of the last 15 minutes into system_health_metrics",
         Schedule::every(15min),
         [](const Settings&, Time now) {
             const Time to{now.us - now.us % Duration{15min}.count()};
             return std::vector<Work>{[to](Database& db) -> result<sql::Piece> {
                 auto n = sql::aggregate_metrics(db, to - 15min, to);
                 if (!n) return n.error();
                 return sql::Piece{*n, false};
             }};
         }}
    );
    jobs_.push_back(
        {"log_cleanup",
         "Retention by age, rows and bytes; gives free space back",
         Schedule::daily(180min),
         [](const Settings& s, Time now) { return cleanup(s.retention, now); }}
    );
}

StoreJobs::~StoreJobs() = default;

void StoreJobs::add(std::string name, std::string description, Schedule schedule, LongWork work) {
    jobs_.push_back({std::move(name), std::move(description), schedule, {}, std::move(work)});
}

asio::awaitable<void> StoreJobs::run() {
    Time looked{0};
    bool declared = false;
    while (!stopping_) {
        const Time now = clock_.wall();
        if (now - looked >= look_again) {
            looked = now;
            auto rows = std::make_shared<std::vector<sql::DueJob>>();
            Store::Job look = [this, rows, declared, now](Database& db) -> result<void> {
                if (!declared) {
                    for (const auto& job : jobs_) {
                        HEAL_TRY(sql::declare_job(
                            db, {job.name, job.description, job.schedule.text(), job.schedule.next(now)}
                        ));
                    }
                }
                auto found = sql::load_jobs(db);
                if (!found) return found.error();
                *rows = std::move(*found);
                return {};
            };
            auto outcome = co_await store_.write(std::move(look));
            if (outcome) {
                declared = true;
                due_.clear();
                for (const auto& row : *rows) {
                    if (row.enabled) due_[row.name] = row.next_run;
                }
            }
        }
        for (const auto& job : jobs_) {
            const auto it = due_.find(job.name);
            if (stopping_ || it == due_.end() || it->second > clock_.wall()) continue;
            it->second = job.schedule.next(clock_.wall());
            if (job.long_work) {
                // The others must not wait for it.
                spawn(io_, execute_when_due(job), "job " + job.name);
            } else {
                co_await execute_when_due(job);
            }
        }
        if (stopping_) break;
        timer_.expires_after(1s);
        co_await due(timer_);
    }
}

void StoreJobs::stop() {
    stopping_ = true;
    timer_.cancel();
}

asio::awaitable<result<json::object>> StoreJobs::run_now(std::string name) {
    const auto it = std::find_if(jobs_.begin(), jobs_.end(), [&](const Job& j) { return j.name == name; });
    if (it == jobs_.end()) {
        co_return fail(
            errc::not_found,
            fmt::format(
                "there is no job '{}'; GET /api/v1/jobs lists them", to_valid_utf8(name.substr(0, 100))
            )
        );
    }
    co_return co_await execute(*it, true);
}

/// What another node does, or what was ended, is no trouble.
asio::awaitable<void> StoreJobs::execute_when_due(const Job& job) {
    const auto outcome = co_await execute(job, false);
    if (!outcome && outcome.error().code != errc::conflict && outcome.error().code != errc::cancelled)
        log::warn("job {}: {}", job.name, outcome.error().text);
}

asio::awaitable<result<json::object>> StoreJobs::execute(const Job& job, bool at_once) {
    const std::string run_id = new_id(clock_);
    const Time started = clock_.wall();
    auto claimed = std::make_shared<bool>(false);
    Store::Job claim = [=, this, name = job.name](Database& db) -> result<void> {
        auto mine = sql::claim_job(db, name, node_, run_id, started, started + job_lease, at_once);
        if (!mine) return mine.error();
        *claimed = *mine;
        return {};
    };
    HEAL_CO_TRY(co_await store_.write(std::move(claim)));
    if (!*claimed) {
        co_return fail(errc::conflict, fmt::format("job '{}' runs already, or is not due", job.name));
    }
    result<std::int64_t> outcome = fail(errc::internal, "it ended by a defect");
    if (job.long_work)
        outcome = co_await long_work(job, run_id);
    else
        outcome = co_await work(job, run_id);
    sql::JobEnd end;
    end.ok = outcome.has_value();
    if (outcome)
        end.output = fmt::format("{} rows", *outcome);
    else
        end.error = outcome.error().text;
    const Time ended = clock_.wall();
    end.next_run = job.schedule.next(ended);
    due_[job.name] = end.next_run;
    // Kept: a job that ended is written down, or its lease would have to run out first.
    store_.keep(
        [name = job.name, run_id, end, ended](Database& db) {
            return sql::end_job(db, name, run_id, end, ended);
        },
        [](result<void>) {}
    );
    if (!outcome) co_return outcome.error();
    co_return json::object{
        {"job_name", job.name},
        {"run", run_id},
        {"output", end.output},
        {"duration_us", (ended - started).count()}};
}

asio::awaitable<result<std::int64_t>> StoreJobs::long_work(const Job& job, std::string run_id) {
    auto ended = std::make_shared<bool>(false);
    spawn(io_, keep_lease(job.name, run_id, ended), "keeping the lease of a job");
    result<std::int64_t> outcome = fail(errc::internal, "it ended by a defect");
    try {
        outcome = co_await job.long_work();
    } catch (const std::exception& e) {
        log::error("job {} ended by a defect: {}", job.name, e.what());
    }
    *ended = true;
    co_return outcome;
}

asio::awaitable<void> StoreJobs::keep_lease(
    std::string name, std::string run_id, std::shared_ptr<bool> ended
) {
    for (;;) {
        // In small steps, so that nothing is left waiting when the work or heald ends.
        for (auto waited = 0ms; waited < heartbeat; waited += 250ms) {
            co_await sleep_for(250ms);
            if (*ended || stopping_) co_return;
        }
        auto mine = std::make_shared<bool>(false);
        Store::Job extend = [this, name, run_id, mine](Database& db) -> result<void> {
            auto kept = sql::extend_job(db, name, run_id, clock_.wall() + job_lease);
            if (!kept) return kept.error();
            *mine = *kept;
            return {};
        };
        auto outcome = co_await store_.write(std::move(extend));
        if (outcome && !*mine && !*ended) log::warn("job {}: another node took it over", name);
    }
}

asio::awaitable<result<std::int64_t>> StoreJobs::work(const Job& job, const std::string& run_id) {
    std::int64_t rows = 0;
    for (const auto& step : job.steps(*settings_(), clock_.wall())) {
        for (bool more = true; more;) {
            if (stopping_) co_return fail(errc::cancelled, "heald is stopping");
            auto piece = std::make_shared<sql::Piece>();
            Store::Job one = [this, piece, step, run_id, name = job.name](Database& db) -> result<void> {
                auto mine = sql::extend_job(db, name, run_id, clock_.wall() + job_lease);
                if (!mine) return mine.error();
                if (!*mine) return fail(errc::cancelled, "another node took the job over");
                auto done = step(db);
                if (!done) return done.error();
                *piece = *done;
                return {};
            };
            HEAL_CO_TRY(co_await store_.write(std::move(one)));
            rows += piece->rows;
            more = piece->more;
            if (more) co_await sleep_for(breath);
        }
    }
    co_return rows;
}

}  // namespace heal
