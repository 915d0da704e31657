#include "store/store.hpp"

#include "base/faults.hpp"
#include "base/log.hpp"
#include "store/migrator.hpp"

#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <iterator>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace heal {
namespace {

using namespace std::chrono_literals;

/// A group's transaction stays in the low milliseconds, so that no intent waits long behind ingest.
constexpr std::size_t group_size = 512;
/// A lost server is looked for again after this, doubling.
constexpr auto first_pause = 100ms;
constexpr auto longest_pause = 2s;
/// Deadlocks and serialization failures: five tries end all but a storm of them.
constexpr int max_tries = 5;
/// A store that answers and refuses (a full disk) may still take small writes in between: it counts as
/// refusing until it has not done so for this long.
constexpr auto refusal_seen_for = 3s;
/// What is kept for a store that is away gets this long when heald stops.
constexpr auto last_chance = 2s;
/// From the intent's commit to the action's first instruction, most of it the start of a program (0.9 ms,
/// bench/latency.py). On virtual machines the thread that is woken by the commit is often put on the
/// processor of the storage thread although another one idles, and would wait for the next transaction.
constexpr auto longest_rest = 1ms;
/// Twice what a decision takes (0.27 ms, bench/latency.py).
constexpr auto longest_brace = 500us;

/// What must not get lost has room for the ends of 100,000 attempts at once (a start after a long night);
/// more than that would be a defect, and a bound there must be.
constexpr std::size_t max_kept = 2'000'000;
constexpr const char* embedded_name = "sqlite";

struct Pending {
    Store::Job job;
    Store::Done done;
    bool keep = false;
};
using Group = std::vector<Pending>;
using Open = std::function<result<std::unique_ptr<Database>>()>;

/// Reads, on threads with a connection each. Connections are made when they are needed.
class Readers {
public:
    Readers(
        unsigned threads, std::size_t max, Open open, std::function<void(Store::Done, result<void>)> finish
    )
        : max_(max), open_(std::move(open)), finish_(std::move(finish)) {
        for (unsigned i = 0; i < threads; ++i) {
            threads_.emplace_back([this] {
                ::pthread_setname_np(::pthread_self(), "heald-read");
                loop();
            });
        }
    }
    ~Readers() { stop(); }
    Readers(const Readers&) = delete;
    Readers& operator=(const Readers&) = delete;

    /// False: full or stopping; nothing was queued.
    bool push(Pending&& pending) {
        {
            const std::lock_guard lock{mutex_};
            if (stopping_ || queue_.size() >= max_) return false;
            queue_.push_back(std::move(pending));
        }
        wake_.notify_one();
        return true;
    }
    void stop() {
        {
            const std::lock_guard lock{mutex_};
            stopping_ = true;
        }
        wake_.notify_all();
        for (auto& thread : threads_) {
            if (thread.joinable()) thread.join();
        }
    }

private:
    void loop() {
        std::unique_ptr<Database> db;
        for (;;) {
            Pending taken;
            {
                std::unique_lock lock{mutex_};
                wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
                if (queue_.empty()) return;
                taken = std::move(queue_.front());
                queue_.pop_front();
            }
            finish_(std::move(taken.done), read(db, taken.job));
        }
    }
    result<void> read(std::unique_ptr<Database>& db, const Store::Job& job) const {
        for (int tries = 0;; ++tries) {
            if (!db) {
                auto opened = open_();
                if (!opened) return opened.error();
                db = std::move(*opened);
            } else if (!db->connected()) {
                HEAL_TRY(db->reopen());
            }
            auto outcome = job(*db);
            // A connection that broke while nobody used it shows only now.
            if (outcome || db->connected() || tries > 0) return outcome;
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Pending> queue_;
    std::size_t max_;
    bool stopping_ = false;
    Open open_;
    std::function<void(Store::Done, result<void>)> finish_;
    std::vector<std::thread> threads_;
};

class SqlStore final : public Store {
public:
    SqlStore(
        StoreSettings settings,
        std::unique_ptr<Database> writer,
        Open open_reader,
        InstanceLock lock,
        boost::asio::any_io_executor executor
    )
        : lock_(std::move(lock)),
          executor_(std::move(executor)),
          max_queue_(settings.max_queue),
          writer_(std::move(writer)),
          readers_(
              settings.url.empty() ? 1 : settings.readers,
              1000,
              std::move(open_reader),
              [this](Done done, result<void> outcome) { finish(std::move(done), std::move(outcome)); }
          ) {
        const bool embedded = writer_->dialect() == Dialect::sqlite;
        figures_.engine = embedded ? embedded_name : "postgresql";
        figures_.place = embedded ? settings.path : describe_postgres(settings.url);
        thread_ = std::thread{[this] {
            ::pthread_setname_np(::pthread_self(), "heald-store");
            loop();
        }};
    }
    ~SqlStore() override { stop(); }

    void submit(Job job, Done done) override { push({std::move(job), std::move(done), false}); }
    void keep(Job job, Done done) override { push({std::move(job), std::move(done), true}); }

    /// On PostgreSQL an intent is written in whole and so keeps its place among the other writes.
    void submit_urgent(Job job, Done done) override {
        push({std::move(job), std::move(done), false}, figures_.engine == embedded_name);
    }

    void hurry() override {
        {
            const std::lock_guard lock{mutex_};
            if (!rests_) return;
            hurried_ = true;
        }
        wake_.notify_one();
    }

    void cork() override {
        {
            const std::lock_guard lock{mutex_};
            if (++corks_ > 1 || !braces_ || rests_) return;
            braced_.store(true, std::memory_order_relaxed);
        }
        wake_.notify_one();
    }
    void uncork() override {
        {
            const std::lock_guard lock{mutex_};
            if (--corks_ > 0) return;
            braced_.store(false, std::memory_order_relaxed);
            if (rests_) return;
        }
        wake_.notify_one();
    }

    StoreFigures figures() const override {
        const std::lock_guard lock{mutex_};
        StoreFigures f = figures_;
        f.queued = urgent_.size() + queue_.size() + kept_.size();
        f.kept = kept_.size();
        return f;
    }

    void stop() override {
        {
            const std::lock_guard lock{mutex_};
            if (!stopping_) stop_by_ = clock_.steady() + last_chance;
            stopping_ = true;
        }
        wake_.notify_one();
        if (thread_.joinable()) thread_.join();
        readers_.stop();
    }

protected:
    void submit_read(Job job, Done done) override {
        Pending pending{std::move(job), std::move(done), false};
        if (!readers_.push(std::move(pending))) refuse(std::move(pending.done), "reads");
    }

private:
    /// A group whose commit was under way when the connection broke.
    struct Doubt {
        Group group;
        std::vector<result<void>> outcomes;
    };

    void push(Pending&& pending, bool urgent = false) {
        {
            std::unique_lock lock{mutex_};
            auto& queue = urgent ? urgent_ : queue_;
            const std::size_t bound = pending.keep ? max_kept : max_queue_;
            if (!stopping_ && queue.size() + kept_.size() < bound) {
                queue.push_back(std::move(pending));
                if (corks_ > 0 && !urgent) return;
                braced_.store(false, std::memory_order_relaxed);
                // Who rests looks by itself; who is woken must not have to wait for the mutex.
                const bool looks = rests_ && !urgent;
                lock.unlock();
                if (!looks) wake_.notify_one();
                return;
            }
        }
        refuse(std::move(pending.done), "writes");
    }
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
    /// One post for the whole group: the event loop wakes once.
    void finish(Group group, std::vector<result<void>> outcomes) {
        if (group.empty()) return;
        boost::asio::post(executor_, [group = std::move(group), outcomes = std::move(outcomes)]() mutable {
            faults::pass("answer.before");
            for (std::size_t i = 0; i < group.size(); ++i) group[i].done(std::move(outcomes[i]));
            faults::pass("answer.after");
        });
    }

    void loop() {
        for (;;) {
            Group group;
            {
                std::unique_lock lock{mutex_};
                if (rests_) {
                    wake_.wait_for(lock, longest_rest, [this] {
                        return stopping_ || hurried_ || !urgent_.empty();
                    });
                    rests_ = hurried_ = false;
                }
                const auto ready = [this] {
                    return stopping_ || !urgent_.empty() || (!queue_.empty() && corks_ == 0);
                };
                const auto braced = [this] { return braced_.load(std::memory_order_relaxed); };
                wake_.wait(lock, [&] { return ready() || braced() || !kept_.empty() || doubt_; });
                if (!ready() && braced()) {
                    lock.unlock();
                    brace();
                    lock.lock();
                }
                if (kept_.empty() && !doubt_)
                    wake_.wait(lock, ready);
                else
                    wake_.wait_for(lock, pause_, ready);
                const bool late = stopping_ && clock_.steady() >= stop_by_;
                if (stopping_ && urgent_.empty() && queue_.empty() && ((kept_.empty() && !doubt_) || late)) {
                    give_up();
                    return;
                }
                const bool urgent = !urgent_.empty();
                rests_ = urgent;
                // Urgent ones overtake all and have a commit to themselves. Else what was tried before comes
                // first.
                for (auto* from : {&urgent_, &kept_, &queue_}) {
                    if (from != &urgent_ && urgent) break;
                    if (from == &queue_ && corks_ > 0 && !stopping_) break;
                    while (!from->empty() && group.size() < group_size) {
                        group.push_back(std::move(from->front()));
                        from->pop_front();
                    }
                }
            }
            work(std::move(group));
            if (writer_->connected() && !rests_) writer_->idle();
        }
    }

    /// A decision is being made, and of most an intent comes at once: a thread that sleeps needs 90 us to
    /// take it (an idle processor has to wake up), one that is awake a few. Yields to whoever wants the
    /// processor.
    void brace() {
        const auto until = clock_.steady() + longest_brace;
        while (braced_.load(std::memory_order_relaxed) && clock_.steady() < until) ::sched_yield();
        braced_.store(false, std::memory_order_relaxed);
    }

    void work(Group group) {
        const auto start = clock_.steady();
        result<void> whole = reach();
        if (whole && doubt_) {
            whole = settle_doubt();
            if (whole && put_back(group)) return;
        }
        std::vector<result<void>> outcomes;
        if (whole && !group.empty()) whole = transact(group, outcomes);
        {
            const std::lock_guard lock{mutex_};
            figures_.connected = writer_->connected();
            if (whole) {
                if (clock_.steady() >= refusing_until_) figures_.last_error.clear();
                pause_ = first_pause;
                if (!group.empty()) {
                    ++figures_.commits;
                    figures_.writes += group.size();
                    figures_.last_commit_us = (clock_.steady() - start).count();
                }
            } else {
                ++figures_.failed_commits;
                figures_.last_error = whole.error().text;
                if (figures_.connected) refusing_until_ = clock_.steady() + refusal_seen_for;
                pause_ = std::min<Duration>(pause_ * 2, longest_pause);
            }
        }
        if (whole) return finish(std::move(group), std::move(outcomes));
        if (doubt_ && doubt_->group.empty()) {
            doubt_->group = std::move(group);
            doubt_->outcomes = std::move(outcomes);
            return;
        }
        after_failure(std::move(group), whole.error());
    }

    /// Nothing of the group is stored. What must not get lost waits at the head of the queue.
    void after_failure(Group group, const Error& error) {
        Group failed;
        std::size_t held = 0;
        {
            const std::lock_guard lock{mutex_};
            for (auto it = group.rbegin(); it != group.rend(); ++it) {
                if (it->keep) {
                    kept_.push_front(std::move(*it));
                    ++held;
                } else {
                    failed.push_back(std::move(*it));
                }
            }
        }
        std::reverse(failed.begin(), failed.end());
        if (!failed.empty() || held > reported_held_)
            log::error("store: {} writes were not committed, {} wait: {}", failed.size(), held, error.text);
        reported_held_ = held;
        std::vector<result<void>> outcomes(failed.size(), result<void>{error});
        finish(std::move(failed), std::move(outcomes));
    }

    /// A connection to write on; not looked for more often than the pause allows.
    result<void> reach() {
        if (writer_->connected()) return {};
        const auto now = clock_.steady();
        if (now < next_try_) return last_refusal_;
        auto outcome = writer_->reopen();
        if (outcome) {
            log::info("store: connected again");
            const std::lock_guard lock{mutex_};
            ++figures_.reconnects;
        } else {
            last_refusal_ = outcome.error();
            next_try_ = clock_.steady() + pause_;
        }
        return outcome;
    }

    /// Finds out what became of the group whose answer got lost.
    result<void> settle_doubt() {
        auto landed = writer_->landed();
        if (!landed) return landed.error();
        Doubt doubt = std::move(*doubt_);
        doubt_.reset();
        log::info(
            "store: the commit of {} writes whose answer was lost is {}",
            doubt.group.size(),
            *landed ? "stored" : "not stored"
        );
        if (*landed) {
            {
                const std::lock_guard lock{mutex_};
                ++figures_.commits;
                figures_.writes += doubt.group.size();
            }
            finish(std::move(doubt.group), std::move(doubt.outcomes));
        } else {
            after_failure(
                std::move(doubt.group),
                fail(errc::unavailable, "the connection to the store broke before the commit")
            );
        }
        return {};
    }

    /// After a doubt that ended in nothing stored, what it held goes before this group.
    bool put_back(Group& group) {
        const std::lock_guard lock{mutex_};
        if (kept_.empty()) return false;
        std::size_t kept = 0;
        while (kept < group.size() && group[kept].keep) kept_.push_back(std::move(group[kept++]));
        for (std::size_t i = group.size(); i > kept; --i) queue_.push_front(std::move(group[i - 1]));
        return true;
    }

    /// One transaction for all; a job that fails is taken back alone. After an error of the transaction
    /// itself nothing of it is stored: never a second try of a failed sync on the same data (reliability.md,
    /// rule 6).
    result<void> transact(Group& group, std::vector<result<void>>& outcomes) {
        // Savepoints cost PostgreSQL a round trip each, so they are used only when a job has failed.
        bool savepoints = writer_->dialect() == Dialect::sqlite;
        for (int tries = 1;; ++tries) {
            outcomes.clear();
            bool job_failed = false;
            auto whole = once(group, outcomes, savepoints, job_failed);
            if (whole) return whole;
            if (writer_->in_doubt()) {
                // Settled before anything else is written; until then these wait.
                doubt_.emplace();
                const std::lock_guard lock{mutex_};
                ++figures_.doubts;
                return whole;
            }
            if (job_failed && !savepoints && writer_->connected() && !writer_->worth_repeating()) {
                savepoints = true;
                continue;
            }
            if (tries > max_tries || stopping()) return whole;
            if (!writer_->connected()) {
                if (!writer_->reopen()) return whole;
                const std::lock_guard lock{mutex_};
                ++figures_.reconnects;
            } else if (writer_->worth_repeating()) {
                std::this_thread::sleep_for(std::chrono::milliseconds{1LL << static_cast<unsigned>(tries)});
            } else {
                return whole;
            }
            const std::lock_guard lock{mutex_};
            ++figures_.repeated;
        }
    }

    result<void> once(
        Group& group, std::vector<result<void>>& outcomes, bool savepoints, bool& ret_job_failed
    ) {
        auto whole = [&]() -> result<void> {
            HEAL_TRY(writer_->begin());
            for (auto& pending : group) {
                if (savepoints) HEAL_TRY(writer_->savepoint());
                auto outcome = pending.job(*writer_);
                if (!savepoints) {
                    if (!outcome) ret_job_failed = true;
                    HEAL_TRY(outcome);
                } else {
                    if (outcome) outcome = writer_->release();
                    if (!outcome) {
                        // Not the job's own fault: a lost connection, a deadlock, a full disk.
                        if (!writer_->connected() || writer_->worth_repeating() ||
                            outcome.error().code == errc::unavailable)
                            return outcome;
                        writer_->rollback_to_savepoint();
                    }
                }
                outcomes.push_back(std::move(outcome));
            }
            if (faults::pass("commit.before"))
                return fail(errc::unavailable, "a fault was asked for before the commit");
            auto committed = writer_->commit();
            faults::pass("commit.after");
            // Without savepoints the statements of a job may be refused as late as this.
            if (!committed && !savepoints && writer_->connected()) ret_job_failed = true;
            return committed;
        }();
        if (!whole) writer_->rollback();
        return whole;
    }

    bool stopping() const {
        const std::lock_guard lock{mutex_};
        return stopping_;
    }

    /// At the end, with the lock held: the store stayed away.
    void give_up() {
        Group group;
        for (auto* from : {&urgent_, &kept_, &queue_}) {
            group.insert(
                group.end(), std::make_move_iterator(from->begin()), std::make_move_iterator(from->end())
            );
            from->clear();
        }
        if (doubt_) {
            group.insert(
                group.begin(),
                std::make_move_iterator(doubt_->group.begin()),
                std::make_move_iterator(doubt_->group.end())
            );
            doubt_.reset();
        }
        if (!group.empty()) log::error("store: {} writes are given up, it stayed away", group.size());
        std::vector<result<void>> outcomes(
            group.size(), result<void>{fail(errc::cancelled, "the store stopped before it could be reached")}
        );
        finish(std::move(group), std::move(outcomes));
    }

    InstanceLock lock_;
    boost::asio::any_io_executor executor_;
    SystemClock clock_;
    std::size_t max_queue_;
    // Of the storage thread alone.
    std::unique_ptr<Database> writer_;
    std::optional<Doubt> doubt_;
    Duration pause_ = first_pause, next_try_{0}, refusing_until_{0};
    result<void> last_refusal_;
    std::size_t reported_held_ = 0;
    // Of all.
    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Pending> urgent_, queue_, kept_;
    bool rests_ = false, hurried_ = false;
    int corks_ = 0;
    const bool braces_ = std::thread::hardware_concurrency() > 1;
    std::atomic<bool> braced_{false};
    bool stopping_ = false;
    Duration stop_by_{0};
    StoreFigures figures_;
    Readers readers_;
    std::thread thread_;
};

std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '\'') out += c;
        out += c;
    }
    return out;
}

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
        hurry();
    });
}

boost::asio::awaitable<result<void>> Store::read_job(Job job) {
    return as_awaitable([this, job = std::move(job)](Done done) mutable {
        submit_read(std::move(job), std::move(done));
    });
}

result<InstanceLock> InstanceLock::take(const std::string& store_path) {
    const std::string path = store_path + ".lock";
    InstanceLock lock;
    lock.fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock.fd_ < 0) return fail_errno(fmt::format("cannot open the lock {}", path), errno);
    if (::flock(lock.fd_, LOCK_EX | LOCK_NB) != 0) {
        return fail(
            errc::conflict,
            fmt::format(
                "another heald uses this state directory ({} is locked); stop it, or set another state_dir",
                path
            )
        );
    }
    return lock;
}

InstanceLock::~InstanceLock() {
    if (fd_ >= 0) ::close(fd_);
}

result<std::unique_ptr<Database>> open_database(const StoreSettings& settings, bool read_only) {
    return settings.url.empty() ? open_sqlite(settings.path, read_only)
                                : open_postgres(settings.url, settings.password, read_only);
}

result<int> migrate_store(Database& database, const StoreSettings& settings, const Clock& clock) {
    auto states = migration_status(database);
    if (!states) return states.error();
    int applied = 0, last = 0;
    for (const auto& s : *states) {
        if (s.applied) ++applied, last = std::max(last, s.version);
    }
    if (applied == static_cast<int>(states->size())) return 0;
    if (applied > 0 && database.dialect() == Dialect::sqlite && settings.path != ":memory:") {
        const std::string copy = fmt::format("{}.schema-{:04}", settings.path, last);
        ::unlink(copy.c_str());  // of a migration that was interrupted
        if (auto made = database.script(fmt::format("VACUUM INTO '{}'", escaped(copy))); !made) {
            return fail(
                made.error().code,
                fmt::format("no copy of the store could be made before its migration: {}", made.error().text)
            );
        }
        log::info("the store as it was with schema {} is kept in {}", last, copy);
    }
    return migrate(database, clock);
}

result<std::unique_ptr<Store>> open_store(
    StoreSettings settings, boost::asio::any_io_executor executor, const Clock& clock
) {
    auto lock = InstanceLock::take(settings.path);
    if (!lock) return lock.error();
    auto writer = open_database(settings, false);
    if (!writer) return writer.error();
    auto migrated = migrate_store(**writer, settings, clock);
    if (!migrated) return migrated.error();
    auto open_reader = [settings] { return open_database(settings, true); };
    return std::unique_ptr<Store>{std::make_unique<SqlStore>(
        std::move(settings), std::move(*writer), std::move(open_reader), std::move(*lock), std::move(executor)
    )};
}

}  // namespace heal
