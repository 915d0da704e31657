#include "host/effects_parts.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>

namespace heal::effects {
namespace {

std::string slurp(const std::string& path, std::size_t limit) {
    const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    std::string out;
    std::array<char, 8192> buffer{};
    while (file.open() && out.size() < limit) {
        const auto n = ::read(file.get(), buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        out.append(buffer.data(), static_cast<std::size_t>(n));
    }
    return out;
}

std::vector<std::string> split_zero(std::string_view text) {
    std::vector<std::string> out;
    while (!text.empty() && out.size() < 256) {
        const auto zero = text.find('\0');
        out.emplace_back(text.substr(0, zero));
        text = zero == std::string_view::npos ? std::string_view{} : text.substr(zero + 1);
    }
    return out;
}

constexpr std::array<std::pair<std::string_view, int>, 10> signals = {{{"TERM", SIGTERM}, {"HUP", SIGHUP}, {"INT", SIGINT}, {"QUIT", SIGQUIT},
    {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"KILL", SIGKILL}, {"CONT", SIGCONT}, {"STOP", SIGSTOP}, {"WINCH", SIGWINCH}}};

std::string_view last_part(std::string_view path) {
    const auto slash = path.find_last_of('/');
    return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

// A child of ours that ended stays a zombie until it is collected; it counts as gone.
bool is_gone(std::int64_t pid, std::int64_t start_time) {
    ::waitpid(static_cast<pid_t>(pid), nullptr, WNOHANG);
    const ProcessFacts now = read_process(pid);
    return !now.alive || (start_time != 0 && now.start_time != start_time);
}

result<bool> wait_gone(Context& c, int pidfd, std::int64_t pid, std::int64_t start_time, std::chrono::milliseconds span) {
    const Duration until = c.clock.steady() + span;
    while (!is_gone(pid, start_time)) {
        const Duration now = c.clock.steady();
        if (now >= until) return false;
        if (now >= c.deadline) return fail(errc::cancelled, "the deadline of the call came while it waited for the process to end");
        if (c.interrupt.stopped()) return fail(errc::cancelled, "the call was cancelled while it waited for the process to end");
        std::array<pollfd, 2> fds = {{{pidfd, POLLIN, 0}, {c.interrupt.fd(), POLLIN, 0}}};
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(std::min(until, c.deadline) - now).count();
        ::poll(fds.data(), fds.size(), static_cast<int>(std::clamp<std::int64_t>(left, 1, pidfd >= 0 ? 1'000 : 10)));
        // A zombie whose parent does not collect it signals its pidfd at once; don't spin on it.
        if (fds[0].revents != 0 && !is_gone(pid, start_time)) ::poll(nullptr, 0, 5);
    }
    return true;
}

struct Target {
    std::int64_t pid = 0;
    ProcessFacts facts;
    Descriptor handle;
};

// The process behind {pid | pid_file, start_time, command}, held by a pidfd so that it can't be mixed up afterwards.
result<Target> find_target(std::int64_t pid, const std::string& pid_file, std::int64_t start_time, const std::string& command) {
    Target t;
    t.pid = pid;
    if (!pid_file.empty()) {
        auto read = read_pid_file(pid_file);
        if (!read) return std::move(read).error();
        if (pid != 0 && pid != *read) return fail(errc::conflict, fmt::format("{} names process {}, not {}", pid_file, *read, pid));
        t.pid = *read;
    }
    if (t.pid <= 1) return fail(errc::invalid_input, fmt::format("process {} is never signalled", t.pid));
    t.handle.reset(static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(t.pid), 0)));
    t.facts = read_process(t.pid);  // after the handle: facts and handle are of one process unless it was gone already
    if (!t.facts.alive) return t;
    if (start_time != 0 && t.facts.start_time != start_time) {
        return fail(errc::conflict, fmt::format("process {} is another one now: it started at tick {}, not {}", t.pid, t.facts.start_time, start_time));
    }
    if (!command.empty()) {
        const std::string argv0 = t.facts.command.empty() ? "" : t.facts.command[0];
        if (argv0 != command && last_part(argv0) != last_part(command)) {
            return fail(errc::conflict, fmt::format("process {} runs '{}', not '{}'", t.pid, bounded(argv0, 200), command));
        }
    }
    return t;
}

int send_signal(const Target& t, int number) {
    if (t.handle.open()) return static_cast<int>(::syscall(SYS_pidfd_send_signal, t.handle.get(), number, nullptr, 0));
    return ::kill(static_cast<pid_t>(t.pid), number);
}

result<Plan> plan_signal(Context& context, const FieldReader& in) {
    auto pid = in.int_or("pid", 0, 2, 4'194'304);  // proc(5): pid_max is at most 2^22
    if (!pid) return std::move(pid).error();
    auto pid_file = in.string_or("pid_file", "");
    if (!pid_file) return std::move(pid_file).error();
    auto start_time = in.int_or("start_time", 0, 0, INT64_MAX);
    if (!start_time) return std::move(start_time).error();
    auto command = in.string_or("command", "");
    if (!command) return std::move(command).error();
    auto word = in.string_or("signal", "TERM");
    if (!word) return std::move(word).error();
    auto wait_ms = in.int_or("wait_ms", 0, 0, 600'000);
    if (!wait_ms) return std::move(wait_ms).error();
    auto kill_after_ms = in.int_or("kill_after_ms", 0, 0, 600'000);
    if (!kill_after_ms) return std::move(kill_after_ms).error();
    const std::string_view name = word->substr(0, 3) == "SIG" ? std::string_view{*word}.substr(3) : std::string_view{*word};
    const auto* found = std::find_if(signals.begin(), signals.end(), [&](const auto& s) { return s.first == name; });
    if (found == signals.end()) return fail(errc::invalid_input, "signal.signal: must be one of TERM, HUP, INT, QUIT, USR1, USR2, KILL, CONT, STOP, WINCH");
    if (*pid == 0 && pid_file->empty()) return fail(errc::invalid_input, "signal: needs pid or pid_file");
    if (!pid_file->empty() && !is_clean_path(*pid_file)) return fail(errc::invalid_input, "signal.pid_file: must be an absolute path");
    Plan plan;
    if (!pid_file->empty() && context.request.grants.signal_pid_file(*pid_file)) {
        plan.capability = "signal:pidfile:" + *pid_file;
    } else {
        // By its command: asked of the process itself, the parameter could lie.
        std::int64_t who = *pid;
        if (who == 0) {
            if (auto read = read_pid_file(*pid_file)) who = *read;
        }
        const ProcessFacts facts = read_process(who);
        const std::string argv0 = facts.command.empty() ? "" : facts.command[0];
        if (argv0.empty() || !context.request.grants.signal_command(argv0)) {
            return denied(fmt::format("to signal process {}", who), !pid_file->empty() ? "signal:pidfile:" + *pid_file : "signal:command:" + argv0);
        }
        plan.capability = "signal:command:" + argv0;
    }
    plan.summary = fmt::format("send {} to {}", name, pid_file->empty() ? fmt::format("process {}", *pid) : "the process of " + *pid_file);
    plan.dry_result = {{"ended", true}, {"sent", true}};
    if (found->second == SIGSTOP) {
        json::object p = context.request.parameters;
        p["signal"] = "CONT";
        plan.undoable = true;
        plan.undo = {{"kind", "signal"}, {"parameters", std::move(p)}};
    }
    plan.run = [pid = *pid, pid_file = *pid_file, start_time = *start_time, command = *command, number = found->second,
                wait = std::chrono::milliseconds{*wait_ms}, kill_after = std::chrono::milliseconds{*kill_after_ms}](Context& c) -> result<json::object> {
        auto target = find_target(pid, pid_file, start_time, command);
        if (!target) {
            // No pid file, no process: for who wants it ended, that is success.
            if (target.error().code == errc::not_found && (wait.count() > 0 || number == SIGTERM || number == SIGKILL)) {
                return json::object{{"sent", false}, {"ended", true}, {"pid", 0}};
            }
            return std::move(target).error();
        }
        if (!target->facts.alive) return json::object{{"sent", false}, {"ended", true}, {"pid", target->pid}};
        if (send_signal(*target, number) != 0 && errno != ESRCH) return fail_errno(fmt::format("cannot signal process {}", target->pid), errno);
        bool ended = false, killed = false;
        const auto first_wait = kill_after.count() > 0 ? kill_after : wait;
        if (first_wait.count() > 0) {
            auto gone = wait_gone(c, target->handle.get(), target->pid, target->facts.start_time, first_wait);
            if (!gone) return std::move(gone).error();
            ended = *gone;
            if (!ended && kill_after.count() > 0) {
                killed = true;
                if (send_signal(*target, SIGKILL) != 0 && errno != ESRCH) return fail_errno(fmt::format("cannot kill process {}", target->pid), errno);
                gone = wait_gone(c, target->handle.get(), target->pid, target->facts.start_time, std::max(wait, std::chrono::milliseconds{1'000}));
                if (!gone) return std::move(gone).error();
                ended = *gone;
            }
        }
        return json::object{{"sent", true}, {"ended", ended}, {"killed", killed}, {"pid", target->pid}, {"start_time", target->facts.start_time}};
    };
    return plan;
}

result<Plan> plan_info(Context& context, const FieldReader& in) {
    auto pid = in.int_or("pid", 0, 0, 4'194'304);
    if (!pid) return std::move(pid).error();
    auto pid_file = in.string_or("pid_file", "");
    if (!pid_file) return std::move(pid_file).error();
    if (!pid_file->empty()) {
        if (!is_clean_path(*pid_file)) return fail(errc::invalid_input, "process_info.pid_file: must be an absolute path");
        if (!context.request.grants.file(*pid_file, false) && !context.request.grants.signal_pid_file(*pid_file)) {
            return denied("to read " + *pid_file, "read:" + *pid_file);
        }
    }
    Plan plan;
    plan.changes_world = false;
    plan.summary = pid_file->empty() ? fmt::format("look at process {}", *pid) : "look at the process of " + *pid_file;
    plan.run = [pid = *pid, pid_file = *pid_file](Context&) -> result<json::object> {
        std::int64_t who = pid;
        if (!pid_file.empty()) {
            auto read = read_pid_file(pid_file);
            if (!read) {
                if (read.error().code != errc::not_found) return std::move(read).error();
                return to_json(ProcessFacts{});
            }
            who = *read;
        }
        ::waitpid(static_cast<pid_t>(who), nullptr, WNOHANG);
        return to_json(read_process(who));
    };
    return plan;
}

constexpr Kind kinds[] = {
    {"signal", plan_signal, false, "pid pid_file start_time command signal wait_ms kill_after_ms"},
    {"process_info", plan_info, false, "pid pid_file"},
};

}  // namespace

std::span<const Kind> process_kinds() { return kinds; }

ProcessFacts read_process(std::int64_t pid) {
    ProcessFacts out;
    out.pid = pid;
    if (pid <= 0) return out;
    const std::string folder = fmt::format("/proc/{}", pid);
    const std::string stat = slurp(folder + "/stat", 4096);
    // The name in brackets may hold anything, brackets too: what follows the last ')' is fixed (proc(5)).
    const auto close = stat.find_last_of(')');
    if (close == std::string::npos) return out;
    std::vector<std::string_view> fields;
    std::string_view rest = std::string_view{stat}.substr(close + 1);
    while (!rest.empty()) {
        const auto blank = rest.find(' ');
        if (blank != 0) fields.push_back(rest.substr(0, blank));
        rest = blank == std::string_view::npos ? std::string_view{} : rest.substr(blank + 1);
    }
    if (fields.size() < 22) return out;  // fields[0] is field 3, the state; 22 is starttime, 24 is rss in pages
    out.state = std::string{fields[0]};
    std::from_chars(fields[19].data(), fields[19].data() + fields[19].size(), out.start_time);
    std::from_chars(fields[21].data(), fields[21].data() + fields[21].size(), out.rss_bytes);
    out.rss_bytes *= ::sysconf(_SC_PAGESIZE);
    out.alive = out.state != "Z" && out.state != "X";
    out.command = split_zero(slurp(folder + "/cmdline", 64U << 10U));
    return out;
}

json::object to_json(const ProcessFacts& f) {
    json::array command;
    for (const std::string& word : f.command) command.emplace_back(bounded(word, 4096));
    return {{"alive", f.alive}, {"pid", f.alive ? f.pid : 0}, {"start_time", f.start_time}, {"command", std::move(command)}, {"state", f.state}, {"rss_bytes", f.rss_bytes}};
}

result<std::int64_t> read_pid_file(const std::string& path) {
    const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (!file.open()) {
        if (errno == ENOENT) return fail(errc::not_found, path + " does not exist");
        return fail_errno("cannot open " + path, errno);
    }
    std::array<char, 64> buffer{};
    const auto n = ::read(file.get(), buffer.data(), buffer.size());
    std::string_view text{buffer.data(), n > 0 ? static_cast<std::size_t>(n) : 0};
    while (!text.empty() && (text.front() == ' ' || text.front() == '\n')) text.remove_prefix(1);
    std::int64_t pid = 0;
    const auto r = std::from_chars(text.data(), text.data() + text.size(), pid);
    if (r.ec != std::errc{} || pid <= 0) return fail(errc::invalid_input, path + " holds no process id");
    return pid;
}

result<json::object> stop_marked(Context& context, const std::string& token, std::chrono::milliseconds grace) {
    const std::string mark = "HEALD_STARTED=" + token;
    const auto marked = [&] {
        std::vector<std::pair<std::int64_t, std::int64_t>> out;
        DIR* proc = ::opendir("/proc");
        if (!proc) return out;
        while (const dirent* entry = ::readdir(proc)) {
            std::int64_t pid = 0;
            const char* end = entry->d_name + std::char_traits<char>::length(entry->d_name);
            if (std::from_chars(entry->d_name, end, pid).ptr != end) continue;
            const std::string environment = slurp(fmt::format("/proc/{}/environ", pid), 256U << 10U);
            if (("\n" + environment).find(mark) == std::string::npos) continue;
            const ProcessFacts facts = read_process(pid);
            if (facts.alive) out.emplace_back(pid, facts.start_time);
        }
        ::closedir(proc);
        return out;
    };
    std::int64_t stopped = 0;
    for (const int number : {SIGTERM, SIGKILL}) {
        const auto found = marked();
        if (found.empty()) break;
        for (const auto& [pid, start_time] : found) {
            auto target = find_target(pid, "", start_time, "");
            if (target && target->facts.alive && send_signal(*target, number) == 0 && number == SIGTERM) ++stopped;
        }
        for (const auto& [pid, start_time] : found) {
            const Descriptor handle{static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0))};
            if (auto gone = wait_gone(context, handle.get(), pid, start_time, grace); !gone) return std::move(gone).error();
        }
    }
    if (!marked().empty()) return fail(errc::io, "the started process did not end");
    return json::object{{"stopped", stopped}};
}

}  // namespace heal::effects
