#include "base/id.hpp"
#include "base/launch.hpp"
#include "base/tasks.hpp"
#include "host/effects_parts.hpp"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <set>

namespace heal::effects {
namespace {

constexpr const char* clean_path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

struct Account {
    Launch::Ids ids;
    std::string name, home;
};

result<Account> account_of(const std::string& name) {
    passwd entry{};
    passwd* found = nullptr;
    std::array<char, 16384> buffer{};
    if (::getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 || !found) {
        return fail(errc::invalid_input, fmt::format("there is no user '{}' on this machine", name));
    }
    Account out{{entry.pw_uid, entry.pw_gid, {}}, name, entry.pw_dir ? entry.pw_dir : "/"};
    std::array<gid_t, 256> groups{};
    int n = static_cast<int>(groups.size());
    if (::getgrouplist(name.c_str(), entry.pw_gid, groups.data(), &n) >= 0)
        out.ids.groups.assign(groups.begin(), groups.begin() + n);
    return out;
}

std::vector<std::string> environment_of(
    const Context& context, const Command& command, const Account* account
) {
    std::vector<std::string> out{
        clean_path,
        "LANG=C.UTF-8",
        "HEALD_ATTEMPT=" + context.request.attempt,
        "HEALD_STRATEGY=" + context.request.strategy};
    if (account) {
        out.push_back("USER=" + account->name);
        out.push_back("LOGNAME=" + account->name);
        out.push_back("HOME=" + account->home);
    }
    for (const auto& [key, value] : command.env) {
        std::erase_if(out, [&](const std::string& entry) {
            return entry.compare(0, key.size() + 1, key + "=") == 0;
        });
        out.push_back(key + "=" + value);
    }
    return out;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
    std::vector<char*> out;
    for (std::string& word : words) out.push_back(word.data());
    out.push_back(nullptr);
    return out;
}

struct Streams {
    int in, out, err;
};

result<pid_t> spawn(const Context& context, const Command& command, Streams streams) {
    result<Account> account = Account{};
    if (!command.user.empty()) {
        account = account_of(command.user);
        if (!account) return std::move(account).error();
    }
    const Account* user = command.user.empty() ? nullptr : &*account;
    std::vector<std::string> argv = command.argv;
    std::vector<std::string> env = environment_of(context, command, user);
    auto argv_p = pointers(argv), env_p = pointers(env);
    Launch what;
    what.argv = argv_p.data();
    what.env = env_p.data();
    what.cwd = command.cwd.c_str();
    what.descriptors = {{streams.in, 0}, {streams.out, 1}, {streams.err, 2}};
    what.group = Launch::Group::session;
    what.ids = user ? &user->ids : nullptr;
    what.child_first = true;
    const pid_t pid = launch(what);
    if (pid >= 0) return pid;
    if (user && errno == EPERM)
        return fail(
            errc::denied,
            fmt::format("{} as user '{}': heald must run as root for this", command.argv[0], command.user)
        );
    return fail_errno(fmt::format("cannot run {}", command.argv[0]), errno);
}

std::set<pid_t> own_children() {
    std::set<pid_t> out;
    const Descriptor file{::open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC)};
    std::string text;
    std::array<char, 4096> buffer{};
    for (;;) {
        const auto n = file.open() ? ::read(file.get(), buffer.data(), buffer.size()) : 0;
        if (n <= 0) break;
        text.append(buffer.data(), static_cast<std::size_t>(n));
    }
    const char* at = text.data();
    const char* end = at + text.size();
    while (at < end) {
        pid_t pid = 0;
        const auto r = std::from_chars(at, end, pid);
        if (r.ptr == at) {
            ++at;
        } else {
            out.insert(pid);
            at = r.ptr;
        }
    }
    return out;
}

// The session of a command, and whatever escaped it by a double fork: that became our child (we are a
// subreaper).
void kill_all(pid_t leader, const std::set<pid_t>& kept, int signal) {
    ::kill(-leader, signal);
    ::kill(leader, signal);
    if (signal != SIGKILL) return;
    for (int round = 0; round < 50; ++round) {
        bool any = false;
        for (const pid_t child : own_children()) {
            if (child == leader || kept.count(child) != 0) continue;
            any = true;
            ::kill(-child, SIGKILL);
            ::kill(child, SIGKILL);
            ::waitpid(child, nullptr, 0);
        }
        if (!any) return;
    }
}

void drain(int fd, std::string& out, bool& open) {
    std::array<char, 16384> buffer{};
    for (int reads = 0; reads < 64; ++reads) {
        const auto n = ::read(fd, buffer.data(), buffer.size());
        if (n > 0) {
            const std::size_t room = max_output_bytes - std::min(max_output_bytes, out.size());
            out.append(buffer.data(), std::min(room, static_cast<std::size_t>(n)));
            continue;
        }
        if (n == 0) open = false;
        if (n == 0 || errno != EINTR) return;
    }
}

/// Variables that make a program load or run other code than its own: a grant to run one program must not be
/// a grant to run any. A name that ends with '*' stands for all that begin so.
constexpr std::array<std::string_view, 34> code_variables = {"LD_*",
                                                             "DYLD_*",
                                                             "GLIBC_TUNABLES",
                                                             "GCONV_PATH",
                                                             "MALLOC_*",
                                                             "PATH",
                                                             "IFS",
                                                             "ENV",
                                                             "BASH_ENV",
                                                             "BASH_FUNC_*",
                                                             "SHELLOPTS",
                                                             "BASHOPTS",
                                                             "PS4",
                                                             "PROMPT_COMMAND",
                                                             "PYTHON*",
                                                             "PERL*",
                                                             "RUBY*",
                                                             "GEM_*",
                                                             "NODE_*",
                                                             "JAVA_*",
                                                             "JDK_JAVA_*",
                                                             "_JAVA_OPTIONS",
                                                             "CLASSPATH",
                                                             "PHP*",
                                                             "LUA_*",
                                                             "GIT_*",
                                                             "PSQL*",
                                                             "PAGER",
                                                             "EDITOR",
                                                             "VISUAL",
                                                             "LESS*",
                                                             "MANPAGER",
                                                             "SYSTEMD_PAGER",
                                                             "OPENSSL_*"};

bool brings_code(std::string_view name) {
    return std::any_of(code_variables.begin(), code_variables.end(), [&](std::string_view known) {
        return known.back() == '*' ? name.substr(0, known.size() - 1) == known.substr(0, known.size() - 1)
                                   : name == known;
    });
}

result<std::map<std::string, std::string>> environment_in(Context& context, const FieldReader& in) {
    auto env = string_map(context.request.parameters, "env", in.path());
    if (!env) return env;
    for (const auto& [name, value] : *env) {
        if (brings_code(name) && !context.request.grants.named("env", name))
            return denied(
                fmt::format("to set {} ({}.env), which can make programs run other code", name, in.path()),
                "env:" + name
            );
    }
    return env;
}

result<Command> command_of(Context& context, const FieldReader& in, std::string_view key) {
    const json::object& p = context.request.parameters;
    Command command;
    auto argv = argv_of(p, key, in.path());
    if (!argv) return std::move(argv).error();
    command.argv = std::move(*argv);
    auto cwd = in.string_or("cwd", "/");
    if (!cwd) return std::move(cwd).error();
    if (!is_clean_path(*cwd)) return fail(errc::invalid_input, in.path() + ".cwd: must be an absolute path");
    command.cwd = std::move(*cwd);
    auto user = in.string_or("user", "");
    if (!user) return std::move(user).error();
    command.user = std::move(*user);
    auto env = environment_in(context, in);
    if (!env) return std::move(env).error();
    command.env = std::move(*env);
    auto timeout = in.int_or("timeout_ms", 0, 0, 3'600'000);
    if (!timeout) return std::move(timeout).error();
    command.timeout = std::chrono::milliseconds{*timeout};
    if (!context.request.grants.exec(command.argv))
        return denied("to run " + joined(command.argv), "exec:" + command.argv[0]);
    return command;
}

// Values of the environment may be secrets; names are enough for the record.
json::object without_env(const json::object& parameters) {
    json::object out = parameters;
    if (auto* env = out.if_contains("env"); env && env->is_object()) {
        for (auto& member : env->get_object()) member.value() = "***";
    }
    return out;
}

result<Plan> plan_exec(Context& context, const FieldReader& in) {
    auto command = command_of(context, in, "argv");
    if (!command) return std::move(command).error();
    Plan plan;
    plan.summary = "exec " + joined(command->argv);
    plan.capability = "exec:" + command->argv[0];
    plan.shown = without_env(context.request.parameters);
    plan.dry_result = {
        {"exit_code", 0}, {"signal", 0}, {"timed_out", false}, {"output", ""}, {"error_output", ""}};
    auto read_only = in.bool_or("read_only", false);
    if (!read_only) return std::move(read_only).error();
    plan.changes_world = !*read_only;
    if (*read_only) plan.dry_result.clear();
    if (context.request.parameters.contains("inverse")) {
        auto inverse = argv_of(context.request.parameters, "inverse", in.path());
        if (!inverse) return std::move(inverse).error();
        if (!context.request.grants.exec(*inverse))
            return denied("the inverse " + joined(*inverse), "exec:" + (*inverse)[0]);
        json::object p = context.request.parameters;
        p.erase("inverse");
        p["argv"] = to_array(*inverse);
        plan.undoable = true;
        plan.undo = {{"kind", "exec"}, {"parameters", std::move(p)}};
    }
    const bool undoing = context.request.phase == "undo";
    plan.run = [command = *command, undoing](Context& c) -> result<json::object> {
        auto done = run_command(c, command);
        if (!done) return std::move(done).error();
        if (undoing && (done->exit_code != 0 || done->timed_out)) {
            return fail(
                errc::io,
                fmt::format(
                    "{} ended with exit code {}: {}",
                    joined(command.argv),
                    done->exit_code,
                    bounded(done->error_output, 300)
                )
            );
        }
        return to_json(*done);
    };
    return plan;
}

constexpr std::array<std::string_view, 9> unit_verbs = {
    "start",
    "stop",
    "restart",
    "reload",
    "try-restart",
    "reload-or-restart",
    "reset-failed",
    "is-active",
    "status"};

bool plain_name(std::string_view name) {
    return !name.empty() && name.size() <= 255 && name[0] != '-' &&
           std::all_of(name.begin(), name.end(), [](char c) {
               return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      std::string_view{"@._:-\\"}.find(c) != std::string_view::npos;
           });
}

result<Plan> plan_systemd(Context& context, const FieldReader& in) {
    auto verb = in.required_string("verb");
    if (!verb) return std::move(verb).error();
    auto unit = in.required_string("unit");
    if (!unit) return std::move(unit).error();
    if (std::find(unit_verbs.begin(), unit_verbs.end(), *verb) == unit_verbs.end()) {
        return fail(
            errc::invalid_input, fmt::format("systemd.verb: must be one of {}", fmt::join(unit_verbs, ", "))
        );
    }
    if (!plain_name(*unit)) return fail(errc::invalid_input, "systemd.unit: must be a unit's name");
    if (unit->find('.') == std::string::npos) *unit += ".service";
    if (!context.request.grants.named("systemd", *unit))
        return denied("to " + *verb + " the unit " + *unit, "systemd:" + *unit);
    Plan plan;
    plan.summary = fmt::format("systemctl {} {}", *verb, *unit);
    plan.capability = "systemd:" + *unit;
    plan.changes_world = *verb != "is-active" && *verb != "status";
    if (plan.changes_world) plan.dry_result = {{"exit_code", 0}, {"output", ""}, {"error_output", ""}};
    const std::string opposite = *verb == "start" ? "stop" : *verb == "stop" ? "start" : "";
    if (!opposite.empty()) {
        plan.undoable = true;
        plan.undo = {{"kind", "systemd"}, {"parameters", json::object{{"verb", opposite}, {"unit", *unit}}}};
    }
    const Command command{
        {"/usr/bin/systemctl", "--no-pager", "--no-ask-password", *verb, "--", *unit},
        "/",
        "",
        {},
        std::chrono::milliseconds{0},
        ""};
    const bool undoing = context.request.phase == "undo";
    plan.run = [command, undoing](Context& c) -> result<json::object> {
        auto done = run_command(c, command);
        if (!done) return std::move(done).error();
        if (undoing && done->exit_code != 0) return fail(errc::io, bounded(done->error_output, 300));
        return to_json(*done);
    };
    return plan;
}

result<Plan> plan_sql(Context& context, const FieldReader& in) {
    auto client = in.required_string("client");
    if (!client) return std::move(client).error();
    auto database = in.required_string("database");
    if (!database) return std::move(database).error();
    auto statement = in.required_string("statement");
    if (!statement) return std::move(statement).error();
    auto read_only = in.bool_or("read_only", false);
    if (!read_only) return std::move(read_only).error();
    auto env = environment_in(context, in);
    if (!env) return std::move(env).error();
    if (*client != "psql" && *client != "sqlite3")
        return fail(errc::invalid_input, "sql.client: must be psql or sqlite3");
    if (database->empty() || (*database)[0] == '-' || database->find('\0') != std::string::npos)
        return fail(errc::invalid_input, "sql.database: must be a connection URL or a file");
    if (statement->size() > (64U << 10U))
        return fail(errc::invalid_input, "sql.statement: must have at most 64 KiB");
    if (!context.request.grants.named("sql", *client + ":" + *database)) {
        return denied("a statement on " + *database, fmt::format("sql:{}:{}", *client, *database));
    }
    Command command;
    command.env = std::move(*env);
    // Both clients have commands of their own that run programs and open files ("\\!", ".shell"): psql sends
    // the text of -c to the server as it is unless it begins with a backslash; sqlite3 has a mode without
    // them, and without ATTACH, which would lead out of the grant. No start-up files.
    if (*client == "psql") {
        command.argv = {
            "/usr/bin/psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-w",
            "-d",
            *database,
            "-c",
            "\n" + *statement};
        if (*read_only) command.env["PGOPTIONS"] = "-c default_transaction_read_only=on";
    } else {
        command.input = *statement + "\n";
        command.argv = {"/usr/bin/sqlite3", "-batch", "-bail", "-safe", "-init", "/dev/null"};
        if (*read_only) command.argv.emplace_back("-readonly");
        command.argv.push_back(*database);
    }
    Plan plan;
    plan.summary = fmt::format("sql on {}: {}", *database, bounded(*statement, 300));
    plan.capability = fmt::format("sql:{}:{}", *client, *database);
    plan.shown = without_env(context.request.parameters);
    plan.changes_world = !*read_only;
    if (plan.changes_world) plan.dry_result = {{"exit_code", 0}, {"output", ""}, {"error_output", ""}};
    plan.run = [command](Context& c) -> result<json::object> {
        auto done = run_command(c, command);
        if (!done) return std::move(done).error();
        return to_json(*done);
    };
    return plan;
}

result<Plan> plan_start(Context& context, const FieldReader& in) {
    auto command = command_of(context, in, "argv");
    if (!command) return std::move(command).error();
    auto pid_file = in.string_or("pid_file", "");
    if (!pid_file) return std::move(pid_file).error();
    auto log_file = in.string_or("log_file", "");
    if (!log_file) return std::move(log_file).error();
    auto keep = in.bool_or("keep", false);
    if (!keep) return std::move(keep).error();
    for (const auto* path : {&*pid_file, &*log_file}) {
        if (path->empty()) continue;
        if (!is_clean_path(*path))
            return fail(
                errc::invalid_input, fmt::format("{}: '{}' must be an absolute path", in.path(), *path)
            );
        if (!context.request.grants.file(*path, true)) return denied("to write " + *path, "file:" + *path);
    }
    // The mark by which an undo finds it, since the pid is not known before it runs and may be recycled
    // after.
    const std::string token = context.request.dry_run ? "" : random_hex(16);
    Plan plan;
    plan.summary = "start " + joined(command->argv);
    plan.capability = "exec:" + command->argv[0];
    plan.shown = without_env(context.request.parameters);
    plan.dry_result = {{"pid", 0}, {"alive", true}, {"start_time", 0}, {"command", to_array(command->argv)}};
    plan.undoable = !*keep;  // kept: it replaces one that was stopped, and none would be worse
    if (plan.undoable)
        plan.undo = {
            {"kind", "stop_started"},
            {"parameters", json::object{{"token", token}, {"argv", to_array(command->argv)}}}};
    plan.run = [command = *command, pid_file = *pid_file, log_file = *log_file, token](Context& c
               ) mutable -> result<json::object> {
        command.env["HEALD_STARTED"] = token;
        const Descriptor null{::open("/dev/null", O_RDWR | O_CLOEXEC)};
        Descriptor log;
        if (!log_file.empty()) {
            log.reset(::open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640));
            if (!log.open()) return fail_errno("cannot open " + log_file, errno);
        }
        const int out = log.open() ? log.get() : null.get();
        // The child leads a session of its own, apart from this process' group. Its parent becomes init once
        // we end.
        auto pid = spawn(c, command, {null.get(), out, out});
        if (!pid) return std::move(pid).error();
        if (!pid_file.empty()) {
            if (auto written = write_small(pid_file, fmt::format("{}\n", *pid), 0644); !written) {
                ::kill(-*pid, SIGKILL);
                ::waitpid(*pid, nullptr, 0);
                return written.error();
            }
        }
        return to_json(read_process(*pid));
    };
    return plan;
}

result<Plan> plan_stop_started(Context&, const FieldReader& in) {
    auto token = in.required_string("token");
    if (!token) return std::move(token).error();
    if (token->size() != 32)
        return fail(errc::invalid_input, "stop_started.token: must be that of a recorded start");
    Plan plan;
    plan.summary = "stop the process started by this attempt";
    plan.run = [token = *token](Context& c) {
        return stop_marked(c, token, std::chrono::milliseconds{2'000});
    };
    return plan;
}

constexpr Kind kinds[] = {
    {"exec", plan_exec, false, "argv cwd env user timeout_ms inverse read_only"},
    {"start_process", plan_start, false, "argv cwd env user pid_file log_file keep"},
    {"stop_started", plan_stop_started, true, "token argv"},
    {"systemd", plan_systemd, false, "verb unit"},
    {"sql", plan_sql, false, "client database statement read_only env"},
};

}  // namespace

std::span<const Kind> exec_kinds() { return kinds; }

json::object to_json(const CommandResult& done) {
    return {
        {"exit_code", done.exit_code},
        {"signal", done.signal},
        {"timed_out", done.timed_out},
        {"output", bounded(done.output, 24U << 10U)},
        {"error_output", bounded(done.error_output, 24U << 10U)}};
}

result<CommandResult> run_command(Context& context, const Command& command) {
    std::array<int, 2> out_pipe{}, err_pipe{}, in_pipe{-1, -1};
    if (::pipe2(out_pipe.data(), O_CLOEXEC | O_NONBLOCK) != 0) return fail_errno("cannot make a pipe", errno);
    Descriptor out_read{out_pipe[0]}, out_write{out_pipe[1]};
    if (::pipe2(err_pipe.data(), O_CLOEXEC | O_NONBLOCK) != 0) return fail_errno("cannot make a pipe", errno);
    Descriptor err_read{err_pipe[0]}, err_write{err_pipe[1]};
    // The command's ends block, as programs expect.
    ::fcntl(out_write.get(), F_SETFL, 0);
    ::fcntl(err_write.get(), F_SETFL, 0);
    Descriptor input;
    if (command.input.empty()) {
        input.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    } else {
        // 64 KiB fit a pipe without a reader (pipe(7)).
        if (command.input.size() > (64U << 10U))
            return fail(errc::invalid_input, "at most 64 KiB of input can be given to a command");
        if (::pipe2(in_pipe.data(), O_CLOEXEC) != 0) return fail_errno("cannot make a pipe", errno);
        input.reset(in_pipe[0]);
        Descriptor write_end{in_pipe[1]};
        if (::write(write_end.get(), command.input.data(), command.input.size()) < 0)
            return fail_errno("cannot write to a pipe", errno);
    }
    std::set<pid_t> kept;
    if (reap_children()) kept = own_children();
    auto started = spawn(context, command, {input.get(), out_write.get(), err_write.get()});
    if (!started) return std::move(started).error();
    const pid_t pid = *started;
    out_write.reset(-1);
    err_write.reset(-1);
    input.reset(-1);

    const Duration own_limit =
        command.timeout.count() > 0 ? context.clock.steady() + command.timeout : context.deadline;
    const Duration limit = std::min(own_limit, context.deadline);
    const Descriptor handle{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))};
    CommandResult done;
    bool out_open = true, err_open = true, cancelled = false;
    Duration kill_at = limit, term_at{-1};
    for (;;) {
        int status = 0;
        const pid_t ended = ::waitpid(pid, &status, WNOHANG);
        if (ended == pid || (ended < 0 && errno == ECHILD)) {
            if (ended == pid && WIFEXITED(status)) done.exit_code = WEXITSTATUS(status);
            if (ended == pid && WIFSIGNALED(status)) done.signal = WTERMSIG(status);
            break;
        }
        const Duration now = context.clock.steady();
        if (!cancelled && !done.timed_out) {
            cancelled = context.interrupt.stopped();
            done.timed_out = !cancelled && now >= limit;
            if (cancelled || done.timed_out) {
                kill_all(pid, kept, SIGTERM);
                term_at = now;
                kill_at = now + std::chrono::milliseconds{200};
            }
        } else if (now >= kill_at) {
            kill_all(pid, kept, SIGKILL);
            kill_at = now + std::chrono::milliseconds{100};
        }
        std::array<pollfd, 4> fds = {
            {{handle.get(), POLLIN, 0},
             {out_open ? out_read.get() : -1, POLLIN, 0},
             {err_open ? err_read.get() : -1, POLLIN, 0},
             {term_at.count() < 0 ? context.interrupt.fd() : -1, POLLIN, 0}}};
        // Without a pidfd (a seccomp filter around us, say) the wait turns into polling.
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(kill_at - now).count();
        const int ms = static_cast<int>(std::clamp<std::int64_t>(left, 1, handle.open() ? 60'000 : 5));
        if (::poll(fds.data(), fds.size(), ms) < 0 && errno != EINTR) break;
        if (fds[1].revents != 0) drain(out_read.get(), done.output, out_open);
        if (fds[2].revents != 0) drain(err_read.get(), done.error_output, err_open);
    }
    drain(out_read.get(), done.output, out_open);
    drain(err_read.get(), done.error_output, err_open);
    if (cancelled || done.timed_out) kill_all(pid, kept, SIGKILL);
    if (cancelled)
        return fail(
            errc::cancelled, fmt::format("cancelled while {} ran; it was killed", joined(command.argv))
        );
    if (done.timed_out && limit == context.deadline && own_limit >= context.deadline) {
        return fail(
            errc::cancelled,
            fmt::format("the deadline of the call came while {} ran; it was killed", joined(command.argv))
        );
    }
    return done;
}

}  // namespace heal::effects
