// Follows log files: one thread with inotify over all configured paths and globs. Survives rename rotation
// (the old file is read to its end), truncation and copytruncate, reuse of inodes, files that come and go.
// Never drops a line for want of room: when the sink is full it waits, the file holds the data. Deliberately
// stores nothing: offsets travel with the batches.
#pragma once

#include "base/clock.hpp"
#include "ingest/batch.hpp"
#include "ingest/decoder.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace heal {

/// One configured entry.
struct TailSource {
    std::string path;         ///< absolute path or glob (`*`, `?`, `[…]`)
    DecodeDefaults defaults;  ///< `source` is set per file by the tail; `unnamed_service` too: the file's
                              ///< name up to its first dot
    JoinOptions join;
    bool from_start =
        false;  ///< read a file that is there at the very first start from its beginning instead of its end
    bool follow_symlinks =
        false;  ///< symbolic links are refused otherwise; FIFOs, devices and sockets always
};

struct TailOptions {
    std::vector<TailSource> sources;
    std::vector<SourceOffset> offsets;        ///< of the store, at start
    std::size_t max_line_bytes = 64U << 10U;  ///< longer lines are cut and flagged (reliability row 14)
    std::size_t max_files = 1024;             ///< open at once; further ones are refused and counted
    bool use_inotify = true;                  ///< false: poll only (network file systems)
    Duration poll{1'000'000};                 ///< names and sizes are looked at this often even with inotify
    Duration poll_without_inotify{100'000};
    /// A line without its end is held this long after the last byte, then taken as it is; what follows up to
    /// the end is part of it. Longer than 1.5 s, so that a line written in two halves is one event
    /// (reliability row 16).
    Duration unfinished_wait{5'000'000};
    Duration rotated_keep{
        60'000'000};  ///< a rotated file is read on until it was quiet this long (a writer may still hold it)
};

/// Counters since the start. A gap: data is known to be lost to us (a file was replaced or truncated before
/// it was read to its end).
struct TailStats {
    std::uint64_t files_open = 0, lines = 0, bytes = 0, batches = 0, rotations = 0, truncations = 0, gaps = 0,
                  refused = 0, sink_full = 0, read_errors = 0;
};

class Tail {
public:
    /// Called on the tail's thread with a batch of one file. False: no room now; it is offered again,
    /// unchanged, after some 5 ms.
    using Sink = std::function<bool(Batch&&)>;

    virtual ~Tail() = default;
    /// Opens what is there, then starts the thread: a file that appears after this returns is read from its
    /// beginning. Once.
    virtual void start() = 0;
    /// Hands over what is held, as far as the sink takes it within a second, and ends the thread. A line
    /// without its end is left for the next start. Idempotent.
    /// @return how far every file has been handed over
    virtual std::vector<SourceOffset> stop() = 0;
    /// @thread any
    virtual TailStats stats() const = 0;
};

/// Never fails: files that are missing or refused are looked at again as long as it runs.
/// @param clock used from the tail's thread
std::unique_ptr<Tail> create_tail(TailOptions options, const Clock& clock, Tail::Sink sink);

}  // namespace heal
