#include "vcs/sandbox.hpp"

#include "vcs/process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

namespace heal::vcs {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

enum class Kind { rlimits, namespaces, bubblewrap };
constexpr std::array<const char*, 3> kind_names{"rlimits", "namespaces", "bubblewrap"};

/// Nothing of these is needed to build, and each may hold secrets or a door: homes, sockets, state, keys.
constexpr std::string_view hidden_folders[] = {"/root",          "/home",
                                               "/run",           "/var/run",
                                               "/var/tmp",       "/var/lib/heald",
                                               "/var/log",       "/var/spool",
                                               "/var/backups",   "/var/lib/postgresql",
                                               "/var/lib/mysql", "/var/lib/docker",
                                               "/var/lib/redis", "/etc/heald",
                                               "/etc/ssh",       "/etc/ssl/private",
                                               "/mnt",           "/media",
                                               "/boot",          "/srv"};
constexpr std::string_view hidden_files[] = {
    "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/krb5.keytab"};

bool is_folder(const std::string& path) {
    struct stat s {};
    return ::lstat(path.c_str(), &s) == 0 && S_ISDIR(s.st_mode);
}

/// What lies beside the folder belongs to heald or to other trials: the outermost folder that is no part of
/// the system.
std::string home_of(const fs::path& folder) {
    std::vector<std::string> parts;
    for (const auto& part : folder.relative_path()) parts.push_back(part.string());
    if (parts.size() < 2) return {};
    if (parts[0] == "usr") return folder.parent_path().string();
    const bool deep = parts[0] == "var" && parts[1] == "lib";
    const std::size_t keep = deep ? 3 : parts[0] == "var" || parts[0] == "opt" || parts[0] == "etc" ? 2 : 1;
    if (parts.size() <= keep) return {};
    fs::path home = "/";
    for (std::size_t i = 0; i < keep; ++i) home /= parts[i];
    return home.string();
}

std::vector<std::string> to_hide(const fs::path& folder) {
    std::vector<std::string> out;
    for (const auto path : hidden_folders)
        if (is_folder(std::string{path})) out.emplace_back(path);
    if (auto home = home_of(folder); !home.empty() && home != "/tmp") out.push_back(std::move(home));
    // Outer ones first; what lies below one that is hidden is not there any more.
    std::sort(out.begin(), out.end());
    std::vector<std::string> kept;
    for (auto& path : out)
        if (std::none_of(kept.begin(), kept.end(), [&](const std::string& k) {
                return path == k || path.starts_with(k + "/");
            }))
            kept.push_back(std::move(path));
    return kept;
}

/// A group of cgroup v2 with the limits, where this process may make one; the kernel then counts all of the
/// run together.
class LimitGroup {
public:
    explicit LimitGroup(const SandboxLimits& limits) {
        static const std::string parent = own_group();
        static std::atomic<unsigned> count{0};
        if (parent.empty()) return;
        std::string path = fmt::format("{}/heald-trial-{}-{}", parent, ::getpid(), ++count);
        if (::mkdir(path.c_str(), 0755) != 0) return;
        path_ = std::move(path);
        bounded_ = put("memory.max", fmt::format("{}", limits.memory_bytes)) &&
                   put("pids.max", fmt::format("{}", limits.processes));
        put("memory.swap.max", "0");
        put("memory.oom.group", "1");
    }
    LimitGroup(const LimitGroup&) = delete;
    LimitGroup& operator=(const LimitGroup&) = delete;
    ~LimitGroup() {
        if (path_.empty()) return;
        put("cgroup.kill", "1");
        // The kernel lets go of a killed process a moment later (cgroups(7)).
        for (int i = 0; i < 200 && ::rmdir(path_.c_str()) != 0 && errno == EBUSY; ++i) ::usleep(1000);
    }
    bool bounded() const { return bounded_; }
    int open() const {
        return path_.empty() ? -1 : ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }

private:
    bool put(const char* file, std::string_view text) const {
        const int fd = ::open(fmt::format("{}/{}", path_, file).c_str(), O_WRONLY | O_CLOEXEC);
        if (fd < 0) return false;
        const bool done = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
        ::close(fd);
        return done;
    }
    static std::string own_group() {
        std::ifstream mounts{"/proc/self/mountinfo"}, groups{"/proc/self/cgroup"};
        std::string mount, own, line;
        while (std::getline(mounts, line)) {
            if (line.find(" - cgroup2 ") == std::string::npos) continue;
            std::size_t at = 0;
            for (int field = 0; field < 4; ++field) at = line.find(' ', at) + 1;
            mount = line.substr(at, line.find(' ', at) - at);
        }
        while (std::getline(groups, line))
            if (line.starts_with("0::")) own = line.substr(3);
        if (mount.empty() || own.empty()) return {};
        std::string path = mount + (own == "/" ? "" : own);
        return ::access(path.c_str(), W_OK) == 0 ? path : std::string{};
    }
    std::string path_;
    bool bounded_ = false;
};

std::string read_file(const std::string& path) {
    std::ifstream in{path};
    return {std::istreambuf_iterator<char>{in}, {}};
}

std::vector<pid_t> children_of(pid_t pid) {
    std::vector<pid_t> out;
    std::error_code ignored;
    for (const auto& task : fs::directory_iterator{fmt::format("/proc/{}/task", pid), ignored}) {
        const std::string text = read_file(task.path().string() + "/children");
        for (const char *at = text.data(), *end = at + text.size(); at < end;) {
            pid_t child = 0;
            const auto [next, error] = std::from_chars(at, end, child);
            if (error != std::errc{}) break;
            out.push_back(child);
            at = next + 1;
        }
    }
    return out;
}

/// Where no control group counts: looks at the processes below the child. Root is not held by RLIMIT_NPROC,
/// and RLIMIT_AS counts what is reserved, not what is used.
std::string over_limits(pid_t top, const SandboxLimits& limits) {
    static const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    std::vector<pid_t> all{top};
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
        const auto below = children_of(all[i]);
        all.insert(all.end(), below.begin(), below.end());
        if (all.size() > limits.processes + 8) return fmt::format("more than {} processes", limits.processes);
        std::uint64_t size = 0, resident = 0, shared = 0;
        std::ifstream statm{fmt::format("/proc/{}/statm", all[i])};
        if (statm >> size >> resident >> shared) bytes += (resident - std::min(shared, resident)) * page;
    }
    if (bytes > limits.memory_bytes)
        return fmt::format("more than {} MiB of memory", limits.memory_bytes >> 20U);
    return {};
}

/// Ends, and waits for, processes with the mark in their environment: those that left the session of their
/// parents.
void sweep(const std::string& mark) {
    for (int round = 0; round < 500; ++round) {
        bool any = false;
        std::error_code ignored;
        for (const auto& entry : fs::directory_iterator{"/proc", ignored}) {
            const std::string name = entry.path().filename();
            pid_t pid = 0;
            const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
            if (error != std::errc{} || end != name.data() + name.size() || pid == ::getpid()) continue;
            if (read_file("/proc/" + name + "/environ").find(mark) == std::string::npos) continue;
            any = ::kill(pid, SIGKILL) == 0 || any;
        }
        if (!any) return;
        ::usleep(2000);
    }
}

class TemporaryFolder {
public:
    TemporaryFolder() {
        std::string name = "/tmp/heald-home-XXXXXX";
        if (::mkdtemp(name.data()) != nullptr) path_ = name;
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    ~TemporaryFolder() {
        std::error_code ignored;
        if (!path_.empty()) fs::remove_all(path_, ignored);
    }
    const std::string& path() const { return path_; }

private:
    std::string path_;
};

// Mounts of our own, made by the programs of util-linux: the folder is put aside, everything else becomes
// read-only or empty, and the folder comes back to its place. $1 the folder, $2 what to hide (a line each),
// then the command.
constexpr const char* namespace_script = R"(set -e
folder=$1; hidden=$2; shift 2
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/folder
mount --rbind "$folder" /mnt/folder
awk '{print $5}' /proc/self/mountinfo | while read -r m; do
  case $m in /mnt|/mnt/*|/proc|/proc/*|/dev|/dev/*) ;; *) mount -o remount,bind,ro "$m" 2>/dev/null || true ;; esac
done
mount -t tmpfs -o mode=1777 tmpfs /tmp
printf '%s\n' "$hidden" | while read -r h; do
  [ -z "$h" ] || [ "$h" = /mnt ] && continue
  if [ -d "$h" ]; then mount -t tmpfs -o mode=755 tmpfs "$h"; else mount --bind /dev/null "$h"; fi
done
mkdir -p "$folder" 2>/dev/null || true
mount --move /mnt/folder "$folder"
umount /mnt; mount -t tmpfs -o ro tmpfs /mnt
mkdir -p /tmp/home
printf '%s\n' "$hidden" | while read -r h; do
  case $folder in "$h"/*) ;; *) [ -d "$h" ] && mount -o remount,ro "$h" 2>/dev/null || true ;; esac
done
cd "$folder"
# Not by exec: what is number 1 of a namespace ignores the signals that it sends to itself.
set +e
setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --ambient-caps=-all -- "$@"
exit $?)";

class SystemSandbox final : public Sandbox {
public:
    /// @param own_network  with rlimits: root's way to a network of its own where user namespaces are not to
    /// be had
    explicit SystemSandbox(Kind kind, bool own_network = false) : kind_(kind), own_network_(own_network) {}

    result<CommandResult> run(
        const std::vector<std::string>& argv,
        const std::string& folder,
        const std::map<std::string, std::string>& env,
        const SandboxLimits& limits,
        const std::atomic<bool>& cancel
    ) override {
        if (argv.empty()) return fail(errc::invalid_input, "there is no command to run");
        std::error_code error;
        const fs::path place = fs::canonical(folder, error);
        if (error || !is_folder(place.string()))
            return fail(errc::not_found, fmt::format("the folder {} is not there", folder));
        const std::string program = find_program(argv[0], usual_path, place.string());
        if (program.empty()) return fail(errc::not_found, fmt::format("there is no program '{}'", argv[0]));

        static std::atomic<unsigned> runs{0};
        const std::string mark = fmt::format("HEAL_SANDBOX={}-{}.", ::getpid(), ++runs);
        const LimitGroup group{limits};
        const int group_fd = group.open();
        std::optional<TemporaryFolder> home;
        if (kind_ == Kind::rlimits) home.emplace();

        Program what;
        what.env = {
            mark,
            fmt::format("PATH={}", usual_path),
            "LANG=C.UTF-8",
            fmt::format("HOME={}", home ? home->path() : "/tmp/home"),
            fmt::format("TMPDIR={}", home ? home->path() : "/tmp")};
        for (const auto& [name, value] : env) {
            std::erase_if(what.env, [&n = name](const std::string& e) { return e.starts_with(n + "="); });
            what.env.push_back(name + "=" + value);
        }
        what.argv = command(program, argv, place, limits);
        what.folder = kind_ == Kind::rlimits ? place.string() : "/";
        what.timeout = limits.timeout;
        what.one_output = true;
        what.first_bytes = limits.output_bytes / 2;
        what.last_bytes = limits.output_bytes - limits.output_bytes / 2;
        what.control_group = group_fd;
        what.nice = 10;  // what serves people goes before what is tried
        if (!group.bounded()) what.watch = [&limits](pid_t pid) { return over_limits(pid, limits); };
        auto end = run_program(what, cancel);
        if (group_fd >= 0) ::close(group_fd);
        // A namespace's processes are killed when its first one ends, but a moment after who waits for that.
        sweep(mark);
        if (!end) return end.error();
        if (end->cancelled) return fail(errc::cancelled, fmt::format("{} was cancelled", argv[0]));

        CommandResult out;
        out.exit_code = end->exit_code;
        out.signal = end->signal;
        // The programs between tell a signal as a shell does.
        if (out.exit_code > 128 && out.exit_code <= 128 + 64 && !end->timed_out)
            out.signal = out.exit_code - 128, out.exit_code = -1;
        out.timed_out = end->timed_out;
        out.output_cut = end->cut;
        out.output = std::move(end->out);
        if (!end->stopped.empty()) out.output += fmt::format("\n[ended: {}]\n", end->stopped);
        out.took = end->took;
        return out;
    }

    const char* confinement() const override { return kind_names[static_cast<std::size_t>(kind_)]; }

private:
    std::vector<std::string> command(
        const std::string& program,
        const std::vector<std::string>& argv,
        const fs::path& place,
        const SandboxLimits& limits
    ) const {
        std::vector<std::string> out;
        const auto add = [&](std::initializer_list<std::string> words) { out.insert(out.end(), words); };
        if (kind_ == Kind::bubblewrap) {
            // It has a session of its own already (run_program), one that comes after heald's.
            add(
                {bubblewrap(),
                 "--unshare-all",
                 "--die-with-parent",
                 "--cap-drop",
                 "ALL",
                 "--uid",
                 "65534",
                 "--gid",
                 "65534",
                 "--hostname",
                 "sandbox",
                 "--ro-bind",
                 "/",
                 "/",
                 "--dev",
                 "/dev",
                 "--proc",
                 "/proc"}
            );
            for (const char* file : {"/sys/fs/cgroup", "/sys/kernel/debug"})
                if (is_folder(file)) add({"--tmpfs", file});
            add({"--tmpfs", "/tmp", "--dir", "/tmp/home"});
            for (const auto& path : to_hide(place)) add({"--tmpfs", path});
            for (const auto path : hidden_files)
                if (::access(std::string{path}.c_str(), F_OK) == 0)
                    add({"--ro-bind", "/dev/null", std::string{path}});
            add({"--bind", place.string(), place.string(), "--chdir", place.string(), "--"});
        } else if (kind_ == Kind::namespaces) {
            std::string hidden;
            for (const auto& path : to_hide(place)) hidden += path + "\n";
            for (const auto path : hidden_files)
                if (::access(std::string{path}.c_str(), F_OK) == 0) (hidden += path) += '\n';
            add(
                {find_program("unshare", usual_path),
                 "--user",
                 "--map-root-user",
                 "--net",
                 "--ipc",
                 "--uts",
                 "--mount",
                 "--pid",
                 "--fork",
                 "--kill-child=SIGKILL",
                 "--mount-proc",
                 "/bin/sh",
                 "-c",
                 namespace_script,
                 "sh",
                 place.string(),
                 hidden}
            );
        } else if (own_network_) {
            // Without its capabilities even root does not get back into the network that it left.
            add({find_program("unshare", usual_path), "--net", "--ipc", "--uts"});
            add(
                {find_program("setpriv", usual_path),
                 "--no-new-privs",
                 "--bounding-set=-all",
                 "--inh-caps=-all",
                 "--"}
            );
        } else {
            add({find_program("setpriv", usual_path), "--no-new-privs", "--"});
        }
        const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(limits.timeout).count() + 5;
        add(
            {find_program("prlimit", usual_path),
             "--core=0",
             fmt::format("--fsize={}", limits.file_bytes),
             "--nofile=4096",
             "--memlock=65536",
             // Of each process; it may keep all processors busy until the deadline.
             fmt::format("--cpu={}", seconds * std::max(1U, std::thread::hardware_concurrency()))}
        );
        // RLIMIT_NPROC counts all processes of the user, so in a namespace it is exact, and outside it would
        // hit others.
        if (kind_ != Kind::rlimits) out.push_back(fmt::format("--nproc={}", limits.processes));
        // No limit of addresses: sanitizers and some run times reserve far more than they use. What is
        // resident is counted (over_limits).
        out.push_back(program);
        out.insert(out.end(), argv.begin() + 1, argv.end());
        return out;
    }

    static std::string bubblewrap() { return find_program("bwrap", usual_path); }

    Kind kind_;
    bool own_network_;
};

bool works(Kind kind, bool own_network = false) {
    for (const char* program : {"prlimit", "setpriv", "unshare"})
        if (find_program(program, usual_path).empty() && kind != Kind::bubblewrap) return false;
    if (kind == Kind::bubblewrap &&
        (find_program("bwrap", usual_path).empty() || find_program("prlimit", usual_path).empty()))
        return false;
    const TemporaryFolder folder;
    const std::atomic<bool> never{false};
    SystemSandbox one{kind, own_network};
    SandboxLimits limits;
    limits.timeout = milliseconds{10'000};
    const auto done = one.run({"true"}, folder.path(), {}, limits, never);
    return done && done->ok();
}

}  // namespace

std::string CommandResult::outcome() const {
    if (timed_out) return fmt::format("no end within {} s", (took.count() + 500) / 1000);
    if (signal != 0) {
        const char* name = ::sigabbrev_np(signal);
        return name != nullptr ? fmt::format("SIG{}", name) : fmt::format("signal {}", signal);
    }
    return fmt::format("exit {}", exit_code);
}

result<std::unique_ptr<Sandbox>> create_sandbox(const std::string& weakest, const std::string& strongest) {
    const auto rank = [](const std::string& name) {
        const auto it = std::find(kind_names.begin(), kind_names.end(), name);
        return it == kind_names.end() ? -1 : static_cast<int>(it - kind_names.begin());
    };
    const int low = rank(weakest), high = rank(strongest);
    if (low < 0 || high < 0)
        return fail(
            errc::invalid_input,
            fmt::format("'{}': a sandbox is bubblewrap, namespaces or rlimits", low < 0 ? weakest : strongest)
        );
    for (int at = high; at >= low; --at) {
        const auto kind = static_cast<Kind>(at);
        if (kind == Kind::rlimits && ::geteuid() == 0 && works(kind, true))
            return std::unique_ptr<Sandbox>{std::make_unique<SystemSandbox>(kind, true)};
        if (works(kind)) return std::unique_ptr<Sandbox>{std::make_unique<SystemSandbox>(kind)};
    }
    return fail(
        errc::unavailable,
        fmt::format(
            "this machine can do no sandbox of at least '{}'; install bubblewrap and allow user namespaces",
            weakest
        )
    );
}

namespace {

class Unconfined final : public Sandbox {
public:
    result<CommandResult> run(
        const std::vector<std::string>& argv,
        const std::string& folder,
        const std::map<std::string, std::string>& env,
        const SandboxLimits& limits,
        const std::atomic<bool>& cancel
    ) override {
        if (argv.empty()) return fail(errc::invalid_input, "a command needs a program");
        Program program;
        program.argv = argv;
        const char* path = std::getenv("PATH");
        program.argv[0] = find_program(argv[0], path != nullptr ? path : usual_path, folder);
        if (program.argv[0].empty())
            return fail(errc::not_found, fmt::format("there is no program '{}'", argv[0]));
        for (char** variable = environ; *variable != nullptr; ++variable) {
            const std::string_view given{*variable};
            if (!env.contains(std::string{given.substr(0, given.find('='))})) program.env.emplace_back(given);
        }
        for (const auto& [name, value] : env) program.env.push_back(name + "=" + value);
        program.folder = folder;
        program.timeout = limits.timeout;
        program.one_output = true;
        program.first_bytes = program.last_bytes = limits.output_bytes / 2;
        auto end = run_program(program, cancel);
        if (!end) return end.error();
        if (end->cancelled) return fail(errc::cancelled, "the command was given up");
        CommandResult out;
        out.exit_code = end->exit_code;
        out.signal = end->signal;
        out.timed_out = end->timed_out;
        out.output_cut = end->cut;
        out.output = std::move(end->out);
        out.took = end->took;
        return out;
    }
    const char* confinement() const override { return "none"; }
};

}  // namespace

std::unique_ptr<Sandbox> create_unconfined() { return std::make_unique<Unconfined>(); }

}  // namespace heal::vcs
