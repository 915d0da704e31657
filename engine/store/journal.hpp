// A bounded queue of texts on this machine's own disk, for what was acknowledged while PostgreSQL was away.
// Deliberately knows nothing of what the texts mean. Calls block for a disk sync; one thread at a time, the
// counts may be read from any.
#pragma once

#include "base/error.hpp"
#include "store/database.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace heal {

class Journal {
public:
    struct Entry {
        std::int64_t number = 0;  ///< grows from the oldest to the newest
        std::string key, text;
    };

    /// @param path       file, created when it is missing; what an earlier process left in it is still there
    /// @param max_bytes  of texts that wait; above it append() refuses
    /// errc::unavailable, errc::corrupt as open_sqlite().
    static result<std::unique_ptr<Journal>> open(const std::string& path, std::uint64_t max_bytes);

    /// Behind all others; survives a power cut once it returned. A key that waits already is taken as done.
    /// errc::overloaded it is full; errc::unavailable the disk is.
    result<void> append(const std::string& key, const std::string& text);
    /// The oldest one that waits.
    result<std::optional<Entry>> front();
    result<void> remove(const Entry& entry);
    /// Takes an entry out of the way that can't be replayed; it stays in the file for people, with the
    /// reason.
    result<void> set_aside(const Entry& entry, const std::string& why);
    /// All that wait, oldest first, one by one.
    result<void> each(const std::function<void(const Entry&)>& look);

    std::uint64_t waiting() const { return waiting_.load(std::memory_order_relaxed); }
    std::uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

private:
    Journal(std::unique_ptr<Database> database, std::uint64_t max_bytes)
        : database_(std::move(database)), max_bytes_(max_bytes) {}
    result<void> in_transaction(const std::function<result<void>()>& work);

    std::unique_ptr<Database> database_;
    std::uint64_t max_bytes_;
    std::atomic<std::uint64_t> waiting_{0}, bytes_{0};
};

}  // namespace heal
