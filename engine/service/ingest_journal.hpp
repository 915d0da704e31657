// Hearing goes on while PostgreSQL is away: batches go into a journal on this node, are acknowledged from
// there, and are stored in their order, once, when the server is back (docs/operations.md).
#pragma once

#include "ingest/batch.hpp"
#include "service/healer.hpp"
#include "store/healing_store.hpp"
#include "store/journal.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>

#include <functional>

namespace heal {

/// One batch as text and back; errc::invalid_input for a text that is not one.
std::string to_text(const Batch& batch);
result<Batch> batch_from_text(std::string_view text);

class IngestJournal {
public:
    using Done = std::function<void(result<void>)>;
    /// Stores a batch in the shared store; errc::unavailable while that is away.
    using Replay = std::function<void(Batch, Done)>;

    /// The state directory's journal.db. @param max_bytes of batches that wait
    static result<std::unique_ptr<IngestJournal>> open(Shared& shared, std::uint64_t max_bytes);
    ~IngestJournal();

    /// True: others wait already, a new batch belongs behind them.
    bool waiting() const { return under_way_ > 0 || journal_->waiting() > 0; }
    /// Durable when `done` says so. A batch without a key gets one, so that its replay counts once.
    void append(std::shared_ptr<Batch> batch, Done done);
    /// How far files are taken in by batches that wait, on top of what the store knows.
    result<void> overlay(std::vector<sql::OffsetRow>& ret_offsets);
    /// Replays whenever something waits, until stop().
    boost::asio::awaitable<void> run(Replay replay);
    void stop();

private:
    IngestJournal(Shared& shared, std::unique_ptr<Journal> journal);
    /// The oldest one; false: it has to wait.
    boost::asio::awaitable<bool> replay_one(const Replay& replay);
    void show();

    Shared& s_;
    std::unique_ptr<Journal> journal_;
    boost::asio::thread_pool thread_{1};
    boost::asio::steady_timer pause_;
    std::size_t under_way_ = 0;
    bool stopping_ = false;
};

}  // namespace heal
