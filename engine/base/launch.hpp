// Starts a program. Like posix_spawn(3), and besides: into a control group, as another user, with the child's
// first instruction before ours, and without the call for each of the 64 signals that glibc makes.
#pragma once

#include <sys/types.h>

#include <utility>
#include <vector>

namespace heal {

/// All that a child needs, made before it is: it shares our memory until it runs its program.
struct Launch {
    enum class Group {
        session,  ///< a session of its own (setsid(2))
        process   ///< a process group of its own
    };
    struct Ids {
        uid_t user = 0;
        gid_t group = 0;
        std::vector<gid_t> groups;  ///< none: `group` alone
    };

    char* const* argv = nullptr;  ///< argv[0] is the path of the program; ends with nullptr, as env does
    char* const* env = nullptr;
    const char* cwd = "/";
    /// Copied in this order, ours to the child's. Ours lie above all of the child's and are O_CLOEXEC.
    std::vector<std::pair<int, int>> descriptors;
    int close_from = -1;  ///< closes all from this one on; -1: relies on O_CLOEXEC
    Group group = Group::process;
    const Ids* ids = nullptr;  ///< nullptr: ours; another's needs root
    int control_group = -1;    ///< a directory of cgroup v2 that the child begins in; -1: ours
    int nice = 0;              ///< from the first instruction on, so that its children have it too
    bool child_first = false;  ///< waking up at the child's exec(2) does not push it off its processor
};

/// The pid, or -1 with errno: of the first step that failed, exec(2) included. Signals get their default
/// action and none is blocked. @thread any
pid_t launch(const Launch& what) noexcept;

}  // namespace heal
