// Runs somebody's build and tests: no network, no rights, nothing outside the folder writable, all of it gone
// afterwards. bubblewrap when it is there and works, else namespaces of our own, else rlimits alone; the
// result says which.
#pragma once

#include "base/error.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace heal::vcs {

struct SandboxLimits {
    std::chrono::milliseconds timeout{600'000};
    std::size_t output_bytes =
        256U << 10U;  ///< kept, the first and the last half; the rest is read and dropped
    std::uint64_t memory_bytes = 4ULL << 30U;
    std::uint64_t file_bytes = 1ULL << 30U;  ///< of one file
    unsigned processes = 256;
};

struct CommandResult {
    int exit_code = -1;  ///< -1: ended by `signal`
    int signal = 0;
    bool timed_out = false, output_cut = false;
    std::string output;  ///< standard output and error in one, bytes as they came
    std::chrono::milliseconds took{0};
    bool ok() const { return exit_code == 0 && !timed_out; }
    std::string outcome() const;  ///< "exit 1", "SIGSEGV", "no end within 600 s"
};

/// @thread any; runs may go side by side
class Sandbox {
public:
    virtual ~Sandbox() = default;
    /// @param argv     argv[0] is looked up in PATH
    /// @param folder   the only place, besides an own /tmp, that is writable; the current folder of the
    /// command
    /// @param env      besides PATH, HOME (= an own folder), LANG=C.UTF-8
    /// errc::not_found the program or folder is not there; errc::cancelled; errc::io. What the command does
    /// is in the result.
    virtual result<CommandResult> run(
        const std::vector<std::string>& argv,
        const std::string& folder,
        const std::map<std::string, std::string>& env,
        const SandboxLimits& limits,
        const std::atomic<bool>& cancel
    ) = 0;
    /// "bubblewrap", "namespaces" or "rlimits".
    virtual const char* confinement() const = 0;
};

/// Tries, once, what this machine can do. With "rlimits" files stay readable and, unless heald runs as root,
/// the network reachable: only for people who know what they run.
/// @param weakest    errc::unavailable when only less than this is to be had
/// @param strongest  for tests: does not look for more than this
result<std::unique_ptr<Sandbox>> create_sandbox(
    const std::string& weakest = "rlimits", const std::string& strongest = "bubblewrap"
);

/// The same bounds without any confinement: for the operator's own commands (deployments). confinement():
/// "none".
std::unique_ptr<Sandbox> create_unconfined();

}  // namespace heal::vcs
