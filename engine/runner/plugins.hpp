// The strategies of heald, wherever they come from: watches the folders of plugins and scripts, keeps a catalog of what they
// offer, runs each artifact in heal-host children and supervises these. What it deliberately does not do: decide which strategy is
// tried (service/), store anything (the EffectLedger of a call does), load any strategy code into this process.
//
// Every file is read once into a sealed memory file; children load that copy, so that overwriting the file can't hurt one that
// runs. A new version serves the next call; a call under way ends on the old one; a new version that is refused leaves the
// old one in service.
//
// Threads: everything on the thread of the io_context given at construction.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "core/model.hpp"
#include "wire/strategy_runner.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace heal {

struct RunnerSettings {
    std::string host_binary;      ///< path of heal-host
    std::string plugins_folder;   ///< *.so; watched; may be missing at start and appear later
    std::string scripts_folder;   ///< *.lua; lib/ below it holds what scripts may require()
    std::string state_folder;     ///< key-value state of strategies and backups of files, created with mode 0700
    unsigned max_children = 8;    ///< strategy hosts at once, over all artifacts; further calls wait in a queue
    unsigned max_waiting = 1024;  ///< calls that wait for a host; beyond it they are refused with `declined`
    std::chrono::milliseconds warm_for{60'000};      ///< an idle host ends after this (borders.md)
    std::chrono::milliseconds start_timeout{5'000};  ///< spawn to described
    std::chrono::milliseconds cancel_grace{2'000};   ///< after cancel(): until SIGTERM (go-plugin: 2 s)
    std::chrono::milliseconds term_grace{2'000};     ///< after SIGTERM: until SIGKILL
    /// The same two steps when a deadline passed: short, since the attempt must be settled within 1 s of its deadline.
    std::chrono::milliseconds deadline_cancel_grace{300}, deadline_term_grace{300};
    std::chrono::milliseconds settle{60};  ///< quiet time after a file's last event before it is loaded
    // Limits of one strategy host, set before its code is loaded (host/limits.hpp).
    std::uint64_t memory_bytes = 512ULL << 20U;  ///< RLIMIT_AS
    std::uint64_t lua_memory_bytes = 8ULL << 20U;  ///< of a script's state (borders.md; hindsight's default)
    unsigned open_files = 256;                   ///< RLIMIT_NOFILE
    unsigned processes = 64;                     ///< threads, where the host has a user of its own (RLIMIT_NPROC)
    unsigned cpu_seconds = 600;                  ///< RLIMIT_CPU of one child's life
    unsigned recycle_after_calls = 100'000;      ///< a child is replaced after this many calls, against slow leaks
    /// When heald runs as root, each strategy host gets a user id of its own, counted from here (0: keep root's). The ids
    /// need not exist in /etc/passwd. 2^31 - 2^20: above what systemd, containers and people use by convention.
    std::uint32_t first_user_id = 2'146'435'072U;
};

enum class ArtifactState { loaded, refused, quarantined };
const char* to_string(ArtifactState state) noexcept;

struct CatalogEntry {
    std::string path, kind, build;  ///< kind: "so" or "lua"; build: SHA-256 of what is in service (or was refused), hex
    ArtifactState state = ArtifactState::refused;
    /// Why it is not loaded, and the remedy. Empty when loaded, unless a newer file at this path was refused: then that reason.
    std::string reason;
    std::vector<StrategyInfo> strategies;  ///< empty when refused
    unsigned crashes = 0;                  ///< of this build within the last 10 minutes
    std::string last_output;               ///< last 64 KiB of stdout and stderr of the child that crashed last
    std::vector<int> children;             ///< process ids of the hosts that serve it now
};

class Plugins {  // owns watcher, children, supervision
public:
    virtual ~Plugins() = default;
    virtual StrategyRunner& runner() = 0;
    /// Sorted by path. Valid until the next turn of the io_context.
    virtual const std::vector<CatalogEntry>& entries() const = 0;
    /// Called after entries() changed; replaces an earlier callback.
    virtual void on_change(std::function<void()> callback) = 0;
    /// First scan complete on return; an artifact that is slow to load doesn't hold it longer than `start_timeout`.
    virtual boost::asio::awaitable<void> start() = 0;
    /// Looks at the folders now, without waiting for an event.
    virtual void rescan() = 0;
    /// Out of quarantine, by a strategy's name or an artifact's path. errc::not_found, errc::conflict when it is not in it.
    virtual result<void> release(std::string_view strategy_or_path) = 0;
};

/// `settings.host_binary` must be executable; otherwise every artifact is refused with that reason. `clock` outlives the result.
std::unique_ptr<Plugins> create_plugins(boost::asio::io_context& context, RunnerSettings settings, const Clock& clock);

}  // namespace heal
