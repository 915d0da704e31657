// heal-host: the child process that holds one strategy artifact, the one that performs effects, and a trial run for authors.
#include "base/files.hpp"
#include "base/log.hpp"
#include "host/limits.hpp"
#include "host/performer.hpp"
#include "host/serve.hpp"
#include "host/trial.hpp"

#include <fmt/format.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <map>
#include <set>

namespace {

constexpr int wire_fd = 3, artifact_fd = 4;

constexpr std::string_view usage =
    "heal-host --plugin NAME | --script NAME | --effects --state FOLDER     started by heald, speaks frames on descriptor 3\n"
    "heal-host --run FILE --event FILE.json [--dry-run] [--call assess|execute|verify|rollback] [--state FOLDER] [--grant CAPABILITY]…\n"
    "heal-host --check FILE                                                 loads it and prints what it says of itself\n";

struct Arguments {
    std::map<std::string, std::string> values;
    std::vector<std::string> grants;
    bool good = true;

    Arguments(int argc, char** argv) {
        static const std::set<std::string> flags = {"--effects", "--dry-run", "--help"};
        for (int i = 1; i < argc; ++i) {
            const std::string name = argv[i];
            if (flags.count(name) != 0) values[name] = "yes";
            else if (i + 1 < argc && name.compare(0, 2, "--") == 0) (name == "--grant" ? grants.emplace_back() : values[name]) = argv[++i];
            else good = false;
        }
    }
    bool has(const std::string& name) const { return values.count(name) != 0; }
    std::string text(const std::string& name, std::string fallback = "") const {
        const auto at = values.find(name);
        return at == values.end() ? fallback : at->second;
    }
    std::uint64_t number(const std::string& name, std::uint64_t fallback) const {
        const std::string word = text(name);
        std::uint64_t n = fallback;
        std::from_chars(word.data(), word.data() + word.size(), n);
        return n;
    }
};

heal::result<std::string> read_all(int fd) {
    std::string out;
    char buffer[65536];
    for (off_t at = 0;;) {
        const auto n = ::pread(fd, buffer, sizeof buffer, at);
        if (n < 0) return heal::fail_errno("cannot read the script", errno);
        if (n == 0) return out;
        out.append(buffer, static_cast<std::size_t>(n));
        at += n;
    }
}

int serve(const Arguments& arguments, const heal::Clock& clock) {
    ::fcntl(wire_fd, F_SETFD, FD_CLOEXEC);
    if (arguments.has("--effects")) {
        // What commands leave behind by a double fork becomes our child, and can be ended or collected.
        ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        ::umask(022);
        heal::Performer performer{arguments.text("--state"), clock};
        return heal::serve_effects(wire_fd, performer);
    }
    heal::die_with_parent();
    heal::HostLimits limits;
    limits.memory_bytes = arguments.number("--memory", limits.memory_bytes);
    limits.open_files = static_cast<unsigned>(arguments.number("--files", limits.open_files));
    limits.processes = static_cast<unsigned>(arguments.number("--processes", limits.processes));
    limits.cpu_seconds = static_cast<unsigned>(arguments.number("--cpu", limits.cpu_seconds));
    limits.user_id = static_cast<std::uint32_t>(arguments.number("--user", 0));
    const auto missing = heal::confine(limits);
    if (!missing) {
        fmt::print(stderr, "heal-host: {}\n", missing.error().text);
        return 1;
    }
    if (arguments.has("--plugin")) {
        const std::string name = arguments.text("--plugin");
        return heal::serve_artifact(wire_fd, [&](heal::ScriptLibraries) {
            return heal::load_plugin(fmt::format("/proc/self/fd/{}", artifact_fd), name);
        }, *missing, false, clock);
    }
    heal::ScriptLimits script;
    script.memory_bytes = arguments.number("--lua-memory", script.memory_bytes);
    const std::string name = arguments.text("--script");
    return heal::serve_artifact(wire_fd, [&](heal::ScriptLibraries libraries) -> heal::result<std::unique_ptr<heal::Artifact>> {
        auto source = read_all(artifact_fd);
        if (!source) return std::move(source).error();
        return heal::load_script(std::move(*source), name, std::move(libraries), script);
    }, *missing, true, clock);
}

int trial(const Arguments& arguments, const heal::Clock& clock) {
    heal::TrialRun run;
    run.file = arguments.text("--run");
    run.event_file = arguments.text("--event");
    run.strategy = arguments.text("--strategy");
    run.function = arguments.text("--call", "execute");
    run.dry_run = arguments.has("--dry-run");
    run.state_folder = arguments.text("--state");
    run.grants = arguments.grants;
    return heal::run_trial(run, clock, stdout, stderr);
}

int check(const std::string& file) {
    const auto all = heal::check_artifact(file);
    if (!all) {
        fmt::print(stderr, "{}\n", all.error().text);
        return 2;
    }
    for (const heal::StrategyInfo& s : *all) {
        fmt::print("{} {}: {}\n  priority {}, confidence {}, risk {}, timeout {} ms{}{}{}{}{}\n", s.name, s.version, s.summary, s.priority, s.confidence, heal::to_string(s.risk),
            s.timeout.count(), s.idempotent ? ", idempotent" : "", s.reversible ? ", reversible" : "", s.has_assess ? ", assess" : "", s.has_verify ? ", verify" : "", s.has_rollback ? ", rollback" : "");
        fmt::print("  matches {}\n", heal::json::serialize(s.matches));
        for (const std::string& capability : s.capabilities) fmt::print("  may {}\n", capability);
        if (!s.parameters.empty()) fmt::print("  parameters {}\n", heal::json::serialize(heal::object_at(s.parameters, "properties")));
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const Arguments arguments{argc, argv};
    const heal::SystemClock clock;
    ::signal(SIGPIPE, SIG_IGN);
    ::signal(SIGXFSZ, SIG_IGN);  // the limit on file sizes shows as an error instead
    if (arguments.has("--check")) return check(arguments.text("--check"));
    if (arguments.has("--run")) return trial(arguments, clock);
    const bool child = arguments.has("--plugin") || arguments.has("--script") || arguments.has("--effects");
    if (!arguments.good || !child || arguments.has("--help")) {
        fmt::print(stderr, "{}", usage);
        return arguments.has("--help") ? 0 : 2;
    }
    struct stat info {};
    if (::fstat(wire_fd, &info) != 0 || !S_ISSOCK(info.st_mode)) {
        fmt::print(stderr, "heal-host is started by heald, with a socket as descriptor 3.\nTo try a strategy by hand:\n{}", usage);
        return 2;
    }
    return serve(arguments, clock);
}
