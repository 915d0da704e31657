#include "host/limits.hpp"

#include <fmt/format.h>

#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

namespace heal {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

result<void> limit(int resource, rlim_t value, const char* name) {
    rlimit now{};
    ::getrlimit(static_cast<__rlimit_resource>(resource), &now);
    const rlim_t wanted = now.rlim_max < value ? now.rlim_max : value;
    const rlimit next{wanted, wanted};
    if (::setrlimit(static_cast<__rlimit_resource>(resource), &next) != 0) return fail_errno(fmt::format("cannot set {}", name), errno);
    return {};
}

// Newer than the header of Debian 12: the attributes of ABI 4 and 6 (landlock(7)).
struct RulesetAttributes {
    std::uint64_t fs = 0, net = 0, scoped = 0;
};
constexpr std::uint64_t fs_truncate = 1ULL << 14U, fs_ioctl_dev = 1ULL << 15U, net_all = 3, scope_all = 3;

// For a root that could not become somebody else (capabilities(7)).
void drop_capabilities() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
    ::syscall(SYS_capset, &header, none);
}

bool landlock() {
    const long abi = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 1) return false;
    RulesetAttributes attributes;
    attributes.fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1U) - 1;  // all of ABI 1
    if (abi >= 2) attributes.fs |= LANDLOCK_ACCESS_FS_REFER;
    if (abi >= 3) attributes.fs |= fs_truncate;
    if (abi >= 5) attributes.fs |= fs_ioctl_dev;
    if (abi >= 4) attributes.net = net_all;
    if (abi >= 6) attributes.scoped = scope_all;
    const std::size_t size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
    const int ruleset = static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attributes, size, 0));
    if (ruleset < 0) return false;
    constexpr std::uint64_t read_only = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_EXECUTE;
    constexpr std::uint64_t file_only = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_EXECUTE;
    struct Allowed {
        const char* path;
        bool folder;
    };
    static constexpr Allowed allowed[] = {{"/usr", true}, {"/lib", true}, {"/lib64", true}, {"/etc/ld.so.cache", false}, {"/etc/localtime", false},
        {"/etc/ssl/openssl.cnf", false}, {"/dev/null", false}, {"/dev/urandom", false}, {"/dev/zero", false}, {"/proc/self", true},
        {"/proc/meminfo", false}, {"/proc/cpuinfo", false}, {"/proc/stat", false}, {"/sys/devices/system/cpu", true}, {"/sys/kernel/mm", true}};
    for (const Allowed& one : allowed) {
        const int fd = ::open(one.path, O_PATH | O_CLOEXEC);
        if (fd < 0) continue;
        const landlock_path_beneath_attr rule{one.folder ? read_only : file_only, fd};
        ::syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
        ::close(fd);
    }
    const bool done = ::syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
    ::close(ruleset);
    return done;
}

#if defined(__x86_64__)
constexpr std::uint32_t this_arch = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t this_arch = AUDIT_ARCH_AARCH64;
#else
constexpr std::uint32_t this_arch = 0;
#endif

// Never of use to code that may only compute. What only the kernel's newest versions have is refused by number, too.
constexpr int denied_calls[] = {
    SYS_execve, SYS_execveat, SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot,
    SYS_unshare, SYS_setns, SYS_bpf, SYS_perf_event_open, SYS_kexec_load, SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_keyctl,
    SYS_add_key, SYS_request_key, SYS_userfaultfd, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_socket, SYS_connect,
    SYS_bind, SYS_listen, SYS_accept, SYS_accept4, SYS_sendmsg, SYS_sendmmsg, SYS_reboot, SYS_swapon, SYS_swapoff, SYS_settimeofday,
    SYS_clock_settime, SYS_adjtimex, SYS_sethostname, SYS_setdomainname, SYS_open_by_handle_at, SYS_name_to_handle_at, SYS_fanotify_init,
    SYS_quotactl, SYS_acct, SYS_syslog, SYS_pidfd_open, SYS_pidfd_getfd, SYS_pidfd_send_signal, SYS_setsid, SYS_setpgid, SYS_shmget,
    SYS_shmat, SYS_msgget, SYS_semget, SYS_mq_open, SYS_tkill, SYS_mkdirat, SYS_mknodat, SYS_unlinkat, SYS_renameat2, SYS_linkat, SYS_symlinkat,
    SYS_fchmod, SYS_fchmodat, SYS_fchown, SYS_fchownat, SYS_truncate, SYS_ftruncate, SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, SYS_removexattr,
    SYS_lremovexattr, SYS_fremovexattr, SYS_utimensat, SYS_personality, SYS_kcmp, SYS_move_mount, SYS_open_tree, SYS_fsopen, SYS_fsmount,
    SYS_fsconfig, SYS_fspick, SYS_lookup_dcookie, SYS_vhangup, SYS_seccomp,
#ifdef SYS_renameat
    SYS_renameat,
#endif
#ifdef SYS_fork
    SYS_fork, SYS_vfork, SYS_creat, SYS_mkdir, SYS_rmdir, SYS_mknod, SYS_unlink, SYS_rename, SYS_link, SYS_symlink, SYS_chmod, SYS_chown, SYS_lchown,
    SYS_utime, SYS_utimes, SYS_futimesat, SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_uselib, SYS_kexec_file_load,
#endif
};

class Filter {
public:
    void load_call() { add(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)); }
    // The low half; every argument looked at here is 32 bits wide or checked bit by bit below 2^32.
    void load_argument(unsigned i) { add(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offsetof(seccomp_data, args) + 8 * i)); }
    void load_arch() { add(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)); }
    void answer(int error) { add(BPF_RET | BPF_K, error == 0 ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error)); }
    /// If the accumulator equals `value`, the next `n` instructions are run, else skipped.
    void if_equal(std::uint32_t value, std::uint8_t n) { jump(BPF_JMP | BPF_JEQ | BPF_K, value, 0, n); }
    void unless_equal(std::uint32_t value, std::uint8_t n) { jump(BPF_JMP | BPF_JEQ | BPF_K, value, n, 0); }
    void if_any_bit(std::uint32_t bits, std::uint8_t n) { jump(BPF_JMP | BPF_JSET | BPF_K, bits, 0, n); }
    void if_no_bit(std::uint32_t bits, std::uint8_t n) { jump(BPF_JMP | BPF_JSET | BPF_K, bits, n, 0); }
    void if_at_least(std::uint32_t value, std::uint8_t n) { jump(BPF_JMP | BPF_JGE | BPF_K, value, 0, n); }

    bool install() {
        const sock_fprog program{static_cast<unsigned short>(code_.size()), code_.data()};
        return ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
    }

private:
    void add(unsigned op, std::uint32_t k) { code_.push_back({static_cast<std::uint16_t>(op), 0, 0, k}); }
    void jump(unsigned op, std::uint32_t k, std::uint8_t yes, std::uint8_t no) { code_.push_back({static_cast<std::uint16_t>(op), yes, no, k}); }
    std::vector<sock_filter> code_;
};

bool seccomp() {
    if (this_arch == 0) return false;
    constexpr std::uint32_t writes = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);
    Filter f;
    f.load_arch();
    f.unless_equal(this_arch, 1);
    f.answer(EPERM);
    f.load_call();
#if defined(__x86_64__)
    f.if_at_least(0x40000000U, 1);  // the x32 numbers would go round every check below
    f.answer(EPERM);
#endif
    for (const int call : denied_calls) {
        f.if_equal(static_cast<std::uint32_t>(call), 1);
        f.answer(EPERM);
    }
    // Their arguments lie in memory, where a filter can't look; libc falls back to the older call.
    for (const int call : {SYS_clone3, SYS_openat2}) {
        f.if_equal(static_cast<std::uint32_t>(call), 1);
        f.answer(ENOSYS);
    }
    f.if_equal(SYS_clone, 4);
    f.load_argument(0);
    f.if_no_bit(CLONE_THREAD, 1);
    f.answer(EPERM);
    f.answer(0);
    f.if_equal(SYS_openat, 4);
    f.load_argument(2);
    f.if_any_bit(writes, 1);
    f.answer(EACCES);
    f.answer(0);
#ifdef SYS_open
    f.if_equal(SYS_open, 4);
    f.load_argument(1);
    f.if_any_bit(writes, 1);
    f.answer(EACCES);
    f.answer(0);
#endif
    for (const int call : {SYS_kill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo}) {
        f.if_equal(static_cast<std::uint32_t>(call), 4);
        f.load_argument(0);
        f.unless_equal(static_cast<std::uint32_t>(::getpid()), 1);
        f.answer(EPERM);
        f.answer(0);
    }
    f.if_equal(SYS_prctl, 4);
    f.load_argument(0);
    f.if_equal(PR_SET_PDEATHSIG, 1);
    f.answer(EPERM);
    f.answer(0);
    f.answer(0);
    return f.install();
}

}  // namespace

void die_with_parent() { ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); }

result<std::vector<std::string>> confine(const HostLimits& limits) {
    std::vector<std::string> missing;
    // A strategy that only computes must not take the processor from who hears errors and answers people.
    ::setpriority(PRIO_PROCESS, 0, 5);
    HEAL_TRY(limit(RLIMIT_CORE, 0, "RLIMIT_CORE"));
    HEAL_TRY(limit(RLIMIT_FSIZE, 0, "RLIMIT_FSIZE"));
    HEAL_TRY(limit(RLIMIT_NOFILE, limits.open_files, "RLIMIT_NOFILE"));
    HEAL_TRY(limit(RLIMIT_CPU, limits.cpu_seconds, "RLIMIT_CPU"));
    HEAL_TRY(limit(RLIMIT_MEMLOCK, 64U << 10U, "RLIMIT_MEMLOCK"));
    if (!sanitized) HEAL_TRY(limit(RLIMIT_AS, limits.memory_bytes, "RLIMIT_AS"));
    bool own_user = false;
    if (limits.user_id != 0 && ::geteuid() == 0) {
        // Of this user there is nobody else, so RLIMIT_NPROC counts just this process' threads. In a user namespace the id may not
        // exist, and without CAP_SETUID nothing can be changed: then the rest has to do.
        own_user = ::setgroups(0, nullptr) == 0 && ::setresgid(limits.user_id, limits.user_id, limits.user_id) == 0 &&
                   ::setresuid(limits.user_id, limits.user_id, limits.user_id) == 0;
        if (own_user) HEAL_TRY(limit(RLIMIT_NPROC, limits.processes, "RLIMIT_NPROC"));
    }
    if (!own_user) {
        missing.emplace_back("own user");
        drop_capabilities();
    }
    die_with_parent();  // a change of user clears it (prctl(2))
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno("cannot set no_new_privs", errno);
    if (!landlock()) missing.emplace_back("landlock");
    if (!seccomp()) missing.emplace_back("seccomp");
    return missing;
}

}  // namespace heal
