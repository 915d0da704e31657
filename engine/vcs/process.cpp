#include "vcs/process.hpp"

#include "base/launch.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace heal::vcs {
namespace {

using Steady = std::chrono::steady_clock;
using std::chrono::milliseconds;

struct Fd {
    int value = -1;
    explicit Fd(int v = -1) : value(v) {}
    Fd(const Fd&) = delete;
    Fd& operator=(const Fd&) = delete;
    ~Fd() { close(); }
    void close() {
        if (value >= 0) ::close(std::exchange(value, -1));
    }
};

/// False at the end of the stream.
bool drain(Fd& from, BoundedText& to, std::size_t budget) {
    // Not on the stack, which the child shares until it runs its program: sanitizers would take what it left
    // there for ours.
    thread_local std::array<char, 65536> buffer;
    while (from.value >= 0 && budget > 0) {
        const auto n = ::read(from.value, buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return true;
        if (n <= 0) return false;
        to.append({buffer.data(), static_cast<std::size_t>(n)});
        budget -= std::min(budget, static_cast<std::size_t>(n));
    }
    return true;
}

/// The whole session behind what else runs on this machine: the kernel weighs sessions against each other
/// before it looks at the nice value of a process (sched(7), autogroup). False: ask again
/// later, other users than root may do so ten times a second.
bool step_back(pid_t pid, int nice) {
    const Fd session{::open(fmt::format("/proc/{}/autogroup", pid).c_str(), O_WRONLY | O_CLOEXEC)};
    if (session.value < 0) return true;  // a kernel without it
    const auto text = std::to_string(nice);
    return ::write(session.value, text.data(), text.size()) > 0 || errno != EAGAIN;
}

}  // namespace

void BoundedText::append(std::string_view bytes) {
    const auto room = std::min(bytes.size(), first_ - std::min(first_, head_.size()));
    head_.append(bytes.substr(0, room));
    bytes.remove_prefix(room);
    if (bytes.empty()) return;
    tail_.append(bytes);
    if (tail_.size() > 2 * last_ + 65536) {
        dropped_ += tail_.size() - last_;
        tail_.erase(0, tail_.size() - last_);
    }
    if (last_ == 0) dropped_ += tail_.size(), tail_.clear();
}

std::string BoundedText::text() const {
    if (dropped_ == 0 && tail_.size() <= last_) return head_ + tail_;
    const std::string_view end =
        tail_.size() > last_ ? std::string_view{tail_}.substr(tail_.size() - last_) : std::string_view{tail_};
    const auto missing = dropped_ + (tail_.size() - end.size());
    return fmt::format("{}\n[... {} bytes left out ...]\n{}", head_, missing, end);
}

std::string find_program(std::string_view name, std::string_view path, std::string_view folder) {
    const auto usable = [](const std::string& file) {
        struct stat s {};
        return ::stat(file.c_str(), &s) == 0 && S_ISREG(s.st_mode) && ::access(file.c_str(), X_OK) == 0;
    };
    if (name.empty()) return {};
    if (name.find('/') != std::string_view::npos) {
        const std::string file = name.front() == '/' ? std::string{name} : fmt::format("{}/{}", folder, name);
        return usable(file) ? file : std::string{};
    }
    while (!path.empty()) {
        const auto end = path.find(':');
        if (std::string file = fmt::format("{}/{}", path.substr(0, end), name); usable(file)) return file;
        if (end == std::string_view::npos) break;
        path.remove_prefix(end + 1);
    }
    return {};
}

result<ProgramEnd> run_program(const Program& what, const std::atomic<bool>& cancel) {
    const auto start = Steady::now();
    if (cancel.load(std::memory_order_relaxed)) {
        ProgramEnd none;
        none.cancelled = true;
        return none;
    }
    std::array<int, 2> out_pipe{}, error_pipe{-1, -1};
    if (::pipe2(out_pipe.data(), O_CLOEXEC) != 0) return fail_errno("cannot make a pipe", errno);
    Fd out{out_pipe[0]}, out_end{out_pipe[1]};
    if (!what.one_output && ::pipe2(error_pipe.data(), O_CLOEXEC) != 0)
        return fail_errno("cannot make a pipe", errno);
    Fd error{error_pipe[0]}, error_end{error_pipe[1]};
    ::fcntl(out.value, F_SETFL, O_NONBLOCK);
    if (error.value >= 0) ::fcntl(error.value, F_SETFL, O_NONBLOCK);
    Fd null{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
    // Above every target, so that no dup2 overwrites one that is still needed.
    Fd high_null{::fcntl(null.value, F_DUPFD_CLOEXEC, 16)},
        high_out{::fcntl(out_end.value, F_DUPFD_CLOEXEC, 16)};
    Fd high_error{::fcntl(what.one_output ? out_end.value : error_end.value, F_DUPFD_CLOEXEC, 16)};
    if (high_null.value < 0 || high_out.value < 0 || high_error.value < 0)
        return fail_errno("cannot duplicate a descriptor", errno);

    std::vector<std::string> words = what.argv, env = what.env;
    std::vector<char*> argv, envp;
    for (auto& w : words) argv.push_back(w.data());
    for (auto& e : env) envp.push_back(e.data());
    argv.push_back(nullptr);
    envp.push_back(nullptr);
    Launch launch_what;
    launch_what.argv = argv.data();
    launch_what.env = envp.data();
    launch_what.cwd = what.folder.c_str();
    launch_what.descriptors = {{high_null.value, 0}, {high_out.value, 1}, {high_error.value, 2}};
    launch_what.close_from = 3;
    launch_what.group = Launch::Group::session;
    launch_what.control_group = what.control_group;
    launch_what.nice = what.nice;
    const pid_t pid = launch(launch_what);
    if (pid < 0) {
        const int why = errno;
        if (why == ENOENT || why == ENOTDIR)
            return fail(
                errc::not_found, fmt::format("{} or the folder {} is not there", what.argv[0], what.folder)
            );
        return fail_errno(fmt::format("cannot start {}", what.argv[0]), why);
    }
    bool stepped_back = what.nice == 0 || step_back(pid, what.nice);
    high_out.close(), high_error.close(), out_end.close(), error_end.close();
    Fd ended{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))};

    ProgramEnd end;
    BoundedText kept{what.first_bytes, what.last_bytes}, errors{4096, 16384};
    const auto deadline = start + what.timeout;
    constexpr milliseconds tick{50};
    auto next_watch = start + tick;
    for (bool over = false, killed = false; !over;) {
        std::array<pollfd, 3> fds{
            {{ended.value, POLLIN, 0}, {out.value, POLLIN, 0}, {error.value, POLLIN, 0}}};
        ::poll(fds.data(), fds.size(), static_cast<int>(tick.count()));
        if ((fds[1].revents != 0) && !drain(out, kept, 1U << 20U)) out.close();
        if ((fds[2].revents != 0) && !drain(error, errors, 1U << 20U)) error.close();
        if (ended.value >= 0) {
            over = fds[0].revents != 0;
        } else {
            siginfo_t info{};
            over = ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
                   info.si_pid == pid;
        }
        const auto now = Steady::now();
        if (over || killed) continue;
        if (!stepped_back) stepped_back = step_back(pid, what.nice);
        end.timed_out = now >= deadline;
        end.cancelled = cancel.load(std::memory_order_relaxed);
        if (what.watch && now >= next_watch) {
            end.stopped = what.watch(pid);
            next_watch = Steady::now() + tick;
        }
        killed = end.timed_out || end.cancelled || !end.stopped.empty();
        if (killed) {
            ::kill(-pid, SIGKILL);
            ::kill(pid, SIGKILL);
        }
    }
    // The rest of its session goes before it is reaped: until then its number cannot be another's.
    ::kill(-pid, SIGKILL);
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    drain(out, kept, 64U << 20U);
    drain(error, errors, 1U << 20U);
    if (WIFSIGNALED(status))
        end.signal = WTERMSIG(status);
    else
        end.exit_code = WEXITSTATUS(status);
    end.cut = kept.cut();
    end.out = kept.text();
    end.error = errors.text();
    end.took = std::chrono::duration_cast<milliseconds>(Steady::now() - start);
    return end;
}

}  // namespace heal::vcs
