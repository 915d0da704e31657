#include "base/launch.hpp"

#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>

namespace heal {
namespace {

/// The signals whose action here is not the default; looked up once.
const sigset_t& changed_signals() {
    static const sigset_t changed = [] {
        sigset_t out;
        ::sigemptyset(&out);
        for (int s = 1; s < NSIG; ++s) {
            struct sigaction now {};
            if (::sigaction(s, nullptr, &now) == 0 && now.sa_handler != SIG_DFL) ::sigaddset(&out, s);
        }
        return out;
    }();
    return changed;
}

bool set_policy(int policy) noexcept {
    const sched_param normal{};
    return ::sched_setscheduler(0, policy, &normal) == 0;
}

/// While this lives, waking up pushes nobody off a processor. Without it a program's first instruction waits
/// until we sleep again (60-80 us).
class YieldToChild {
public:
    explicit YieldToChild(bool wanted)
        : active_(wanted && ::sched_getscheduler(0) == SCHED_OTHER && set_policy(SCHED_BATCH)) {}
    ~YieldToChild() {
        if (active_) set_policy(SCHED_OTHER);
    }
    YieldToChild(const YieldToChild&) = delete;
    YieldToChild& operator=(const YieldToChild&) = delete;
    /// The child inherits our policy and has to take the usual one again.
    bool active() const { return active_; }

private:
    bool active_;
};

/// The ids are set by system calls, since glibc's functions would reach for the threads of the parent.
bool set_ids(const Launch::Ids& ids) noexcept {
    const gid_t* groups = ids.groups.empty() ? &ids.group : ids.groups.data();
    return ::syscall(SYS_setgroups, std::max<std::size_t>(ids.groups.size(), 1), groups) == 0 &&
           ::syscall(SYS_setresgid, ids.group, ids.group, ids.group) == 0 &&
           ::syscall(SYS_setresuid, ids.user, ids.user, ids.user) == 0;
}

/// In the child, on the parent's memory: system calls only, nothing is allocated, and it does not return.
[[noreturn, gnu::noinline, gnu::no_sanitize_address]] void become(
    const Launch& what, const sigset_t& changed, bool usual_policy, volatile int& ret_error
) noexcept {
    for (int s = 1; s < NSIG; ++s) {
        if (::sigismember(&changed, s) == 1) ::signal(s, SIG_DFL);
    }
    if (usual_policy) set_policy(SCHED_OTHER);
    bool ok = what.group == Launch::Group::session ? ::setsid() >= 0 : ::setpgid(0, 0) == 0;
    // Before anything else can be started.
    if (what.nice != 0) ::syscall(SYS_setpriority, PRIO_PROCESS, 0, what.nice);
    for (const auto& [ours, theirs] : what.descriptors) ok = ok && ::dup2(ours, theirs) >= 0;
    if (what.close_from >= 0 &&
        ::syscall(SYS_close_range, static_cast<unsigned>(what.close_from), ~0U, 0U) != 0) {
        for (int fd = what.close_from; fd < ::getdtablesize(); ++fd) ::close(fd);  // before Linux 5.9
    }
    ok = ok && (!what.ids || set_ids(*what.ids)) && ::chdir(what.cwd) == 0;
    if (ok) {
        sigset_t none;
        ::sigemptyset(&none);
        ::sigprocmask(SIG_SETMASK, &none, nullptr);
        ::execve(what.argv[0], what.argv, what.env);
    }
    ret_error = errno;
    ::_exit(127);
}

#if defined(__x86_64__) && defined(CLONE_INTO_CGROUP)
/// vfork(2) into a control group: moving a process there later waits for every fork on the machine (a grace
/// period of 10 ms and more), a birth there does not. In assembler because a function that returns twice on
/// one stack may not be called: the child would overwrite its return address.
[[gnu::always_inline]] inline long vfork_into(int control_group) {
    clone_args args{};
    args.flags = CLONE_VM | CLONE_VFORK | CLONE_INTO_CGROUP;
    args.exit_signal = SIGCHLD;
    args.cgroup = static_cast<std::uint64_t>(control_group);
    long pid = SYS_clone3;
    asm volatile("syscall" : "+a"(pid) : "D"(&args), "S"(sizeof args) : "rcx", "r11", "memory");
    return pid;
}
constexpr bool into_control_group = true;
#else
inline long vfork_into(int) { return -ENOSYS; }
constexpr bool into_control_group = false;
#endif

}  // namespace

[[gnu::noinline, gnu::no_sanitize_address]] pid_t launch(const Launch& what) noexcept {
    const sigset_t& changed = changed_signals();
    const YieldToChild yield{what.child_first};
    volatile int error = 0;
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, &before);  // no handler of ours may run in the child
    long pid = 0;
    if (what.control_group >= 0) {
        pid = into_control_group ? vfork_into(what.control_group) : -ENOSYS;
        if (pid < 0) error = static_cast<int>(-pid);
    } else {
        pid = ::vfork();
        if (pid < 0) error = errno;
    }
    if (pid == 0) become(what, changed, yield.active(), error);
    const int failed = error;
    if (pid > 0 && failed != 0) ::waitpid(static_cast<pid_t>(pid), nullptr, 0);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    errno = failed;
    return failed == 0 ? static_cast<pid_t>(pid) : -1;
}

}  // namespace heal
