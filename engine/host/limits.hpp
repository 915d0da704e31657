// What a process that will hold strategy code takes away from itself before it loads any. What stays: computing, memory up to a limit,
// reading system libraries, threads, and descriptor 3. Every effect is done by another process on request (performer.hpp), so
// nothing a strategy may legitimately do is lost.
#pragma once

#include "base/error.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace heal {

struct HostLimits {
    std::uint64_t memory_bytes = 512ULL << 20U;  ///< RLIMIT_AS; not in sanitized builds, whose shadow needs 20 TiB of addresses
    unsigned open_files = 256, processes = 64, cpu_seconds = 600;
    std::uint32_t user_id = 0;  ///< becomes this user and group when root; 0: stays
};

/// In this order: signals and rlimits, user, no_new_privs, Landlock (read and execute below /usr, /lib, /etc/ld.so.cache and the like),
/// seccomp (no fork, exec, sockets, opening for writing, changing the file tree, signalling others, ptrace, namespaces, keys, bpf …).
/// What the kernel lacks is left out and named in the answer. errc::io when something fails that every kernel has.
/// Must run before any thread is started.
result<std::vector<std::string>> confine(const HostLimits& limits);

/// PR_SET_PDEATHSIG KILL, and ends at once when the parent is gone already.
void die_with_parent();

}  // namespace heal
