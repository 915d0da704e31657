#include "store/store.hpp"

#include "base/log.hpp"
#include "store/migrator.hpp"

#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/file.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

namespace heal {
namespace {

struct Pending {
    Store::Job job;
    Store::Done done;
    bool starts_group = false;
};

/// A queue with a thread behind it. The thread takes all that waits.
class Worker {
public:
    Worker(std::size_t max, const char* name, std::function<void(std::vector<Pending>)> run)
        : max_(max), run_(std::move(run)), thread_([this, name] {
              ::pthread_setname_np(::pthread_self(), name);
              loop();
          }) {}
    ~Worker() { stop(); }
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    /// False: full or stopping; nothing was queued.
    bool push(Pending&& pending) {
        {
            const std::lock_guard lock{mutex_};
            if (stopping_ || queue_.size() >= max_) return false;
            pending.starts_group = std::exchange(cut_, false);
            queue_.push_back(std::move(pending));
            if (corks_ > 0) return true;
        }
        wake_.notify_one();
        return true;
    }
    void cork() {
        const std::lock_guard lock{mutex_};
        ++corks_;
    }
    void uncork() {
        {
            const std::lock_guard lock{mutex_};
            if (--corks_ > 0) return;
        }
        wake_.notify_one();
    }
    void cut() {
        const std::lock_guard lock{mutex_};
        cut_ = !queue_.empty();
    }
    std::size_t size() const {
        const std::lock_guard lock{mutex_};
        return queue_.size();
    }
    void stop() {
        {
            const std::lock_guard lock{mutex_};
            stopping_ = true;
        }
        wake_.notify_one();
        if (thread_.joinable()) thread_.join();
    }

private:
    void loop() {
        for (;;) {
            std::vector<Pending> taken;
            {
                std::unique_lock lock{mutex_};
                wake_.wait(lock, [this] { return stopping_ || (!queue_.empty() && corks_ == 0); });
                if (queue_.empty()) return;
                // 512: a group's transaction stays in the low milliseconds, so that no intent waits long
                // behind ingest.
                while (!queue_.empty() && taken.size() < 512) {
                    if (queue_.front().starts_group && !taken.empty()) break;
                    taken.push_back(std::move(queue_.front()));
                    queue_.pop_front();
                }
            }
            run_(std::move(taken));
        }
    }

    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Pending> queue_;
    std::size_t max_;
    bool stopping_ = false, cut_ = false;
    int corks_ = 0;
    std::function<void(std::vector<Pending>)> run_;
    std::thread thread_;
};

class InstanceLock {
public:
    static result<InstanceLock> take(const std::string& path) {
        InstanceLock lock;
        lock.fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (lock.fd_ < 0) return fail_errno(fmt::format("cannot open the lock {}", path), errno);
        if (::flock(lock.fd_, LOCK_EX | LOCK_NB) != 0) {
            return fail(
                errc::conflict,
                fmt::format(
                    "another heald uses this state directory ({} is locked); stop it, or set another "
                    "state_dir",
                    path
                )
            );
        }
        return lock;
    }
    InstanceLock() = default;
    InstanceLock(InstanceLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    InstanceLock& operator=(InstanceLock&&) = delete;
    ~InstanceLock() {
        if (fd_ >= 0) ::close(fd_);
    }

private:
    int fd_ = -1;
};

class SqlStore final : public Store {
public:
    SqlStore(
        std::unique_ptr<Database> writer,
        std::unique_ptr<Database> reader,
        InstanceLock lock,
        std::size_t max_queue,
        boost::asio::any_io_executor executor
    )
        : lock_(std::move(lock)),
          executor_(std::move(executor)),
          writer_(std::move(writer)),
          reader_(std::move(reader)),
          write_worker_(
              max_queue, "heald-store", [this](std::vector<Pending> group) { commit(std::move(group)); }
          ),
          read_worker_(1000, "heald-read", [this](std::vector<Pending> group) {
              for (auto& pending : group) finish(std::move(pending.done), pending.job(*reader_));
          }) {}
    ~SqlStore() override { stop(); }

    void submit(Job job, Done done) override {
        Pending pending{std::move(job), std::move(done)};
        if (!write_worker_.push(std::move(pending))) refuse(std::move(pending.done), "writes");
    }

    void cork() override { write_worker_.cork(); }
    void uncork() override { write_worker_.uncork(); }
    void cut() override { write_worker_.cut(); }

    StoreFigures figures() const override {
        const std::lock_guard lock{mutex_};
        StoreFigures f = figures_;
        f.queued = write_worker_.size();
        return f;
    }

    void stop() override {
        write_worker_.stop();
        read_worker_.stop();
    }

protected:
    void submit_read(Job job, Done done) override {
        Pending pending{std::move(job), std::move(done)};
        if (!read_worker_.push(std::move(pending))) refuse(std::move(pending.done), "reads");
    }

private:
    void refuse(Done done, const char* what) {
        finish(
            std::move(done),
            fail(
                errc::overloaded,
                fmt::format("the store's queue of {} is full or it is stopping; try again", what)
            )
        );
    }
    void finish(Done done, result<void> outcome) {
        boost::asio::post(executor_, [done = std::move(done), outcome = std::move(outcome)]() mutable {
            done(std::move(outcome));
        });
    }

    /// One transaction for all; a job that fails is taken back alone. After an error of the transaction
    /// itself nothing of it is stored and every job hears of it: never a second try of a failed sync on the
    /// same data (reliability.md, rule 6).
    void commit(std::vector<Pending> group) {
        const auto start = clock_.steady();
        std::vector<result<void>> outcomes;
        outcomes.reserve(group.size());
        auto whole = [&]() -> result<void> {
            HEAL_TRY(writer_->begin());
            for (auto& pending : group) {
                HEAL_TRY(writer_->savepoint());
                auto outcome = pending.job(*writer_);
                if (outcome)
                    HEAL_TRY(writer_->release());
                else
                    writer_->rollback_to_savepoint();
                outcomes.push_back(std::move(outcome));
            }
            return writer_->commit();
        }();
        if (!whole) writer_->rollback();
        {
            const std::lock_guard lock{mutex_};
            if (whole) {
                ++figures_.commits;
                figures_.writes += group.size();
                figures_.last_error.clear();
            } else {
                ++figures_.failed_commits;
                figures_.last_error = whole.error().text;
            }
            figures_.last_commit_us = (clock_.steady() - start).count();
        }
        if (!whole) log::error("store: {} writes were not committed: {}", group.size(), whole.error().text);
        // One post for the whole group: the event loop wakes once.
        boost::asio::post(
            executor_,
            [group = std::move(group), outcomes = std::move(outcomes), whole = std::move(whole)]() mutable {
                for (std::size_t i = 0; i < group.size(); ++i)
                    group[i].done(whole ? std::move(outcomes[i]) : whole);
            }
        );
    }

    InstanceLock lock_;
    boost::asio::any_io_executor executor_;
    SystemClock clock_;
    std::unique_ptr<Database> writer_, reader_;
    mutable std::mutex mutex_;
    StoreFigures figures_;
    Worker write_worker_, read_worker_;
};

/// Turns a (Job, Done) call into an awaitable.
template <class Start>
boost::asio::awaitable<result<void>> as_awaitable(Start start) {
    co_return co_await boost::asio::async_initiate<const boost::asio::use_awaitable_t<>, void(result<void>)>(
        [&start](auto handler) {
            // std::function wants copyable callables; the handler is move-only.
            auto shared = std::make_shared<decltype(handler)>(std::move(handler));
            start([shared](result<void> outcome) { std::move (*shared)(std::move(outcome)); });
        },
        boost::asio::use_awaitable
    );
}

}  // namespace

boost::asio::awaitable<result<void>> Store::write(Job job) {
    return as_awaitable([this, job = std::move(job)](Done done) mutable {
        submit(std::move(job), std::move(done));
    });
}

boost::asio::awaitable<result<void>> Store::read_job(Job job) {
    return as_awaitable([this, job = std::move(job)](Done done) mutable {
        submit_read(std::move(job), std::move(done));
    });
}

result<std::unique_ptr<Store>> open_store(
    StoreSettings settings, boost::asio::any_io_executor executor, const Clock& clock
) {
    auto lock = InstanceLock::take(settings.path + ".lock");
    if (!lock) return lock.error();
    auto writer = open_sqlite(settings.path, false);
    if (!writer) return writer.error();
    auto migrated = migrate(**writer, clock);
    if (!migrated) return migrated.error();
    auto reader = open_sqlite(settings.path, true);
    if (!reader) return reader.error();
    return std::unique_ptr<Store>{std::make_unique<SqlStore>(
        std::move(*writer), std::move(*reader), std::move(*lock), settings.max_queue, std::move(executor)
    )};
}

}  // namespace heal
