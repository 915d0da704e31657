#include "service/patch_work.hpp"

#include "base/id.hpp"
#include "vcs/edit.hpp"
#include "vcs/forge.hpp"
#include "vcs/gates.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

namespace heal {
namespace {

using Kind = PatchResult::Kind;
using namespace std::chrono_literals;

/// Of the output of a command that is kept as evidence.
constexpr std::size_t kept_output = 4096;

PatchResult done(std::string text, json::object evidence = {}) {
    return {Kind::done, std::move(text), std::move(evidence)};
}
PatchResult refused(std::string text, json::object evidence = {}) {
    return {Kind::refused, std::move(text), std::move(evidence)};
}

/// What went wrong around the patch: worth another try, or not.
PatchResult around(const Error& error) {
    const bool later = error.code == errc::unavailable || error.code == errc::overloaded ||
                       error.code == errc::timeout || error.code == errc::io || error.code == errc::cancelled;
    return {later ? Kind::again : Kind::broken, error.text, {}};
}

std::string tail(const std::string& text) {
    return text.size() <= kept_output ? text : "…" + text.substr(text.size() - kept_output);
}

/// A file below `tree`, through no symbolic link; folders are made.
result<void> write_beneath(const std::string& tree, const std::string& path, const std::string& content) {
    const auto refuse = [&](const char* what) { return fail_errno(fmt::format("{} {}", what, path), errno); };
    int folder = ::open(tree.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return refuse("cannot open the worktree for");
    struct Closer {
        int& fd;
        ~Closer() {
            if (fd >= 0) ::close(fd);
        }
    } closer{folder};
    std::string_view rest = path;
    for (auto slash = rest.find('/'); slash != std::string_view::npos; slash = rest.find('/')) {
        const std::string part{rest.substr(0, slash)};
        rest.remove_prefix(slash + 1);
        if (::mkdirat(folder, part.c_str(), 0755) != 0 && errno != EEXIST)
            return refuse("cannot make the folder of");
        const int next = ::openat(folder, part.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (next < 0) return refuse("a folder is no folder in the path of");
        ::close(folder);
        folder = next;
    }
    const std::string name{rest};
    open_how how{};
    how.flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
    how.mode = 0644;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
    const auto fd = static_cast<int>(::syscall(SYS_openat2, folder, name.c_str(), &how, sizeof how));
    if (fd < 0) return refuse("cannot write");
    std::string_view left = content;
    while (!left.empty()) {
        const auto n = ::write(fd, left.data(), left.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            const auto error = refuse("cannot write");
            ::close(fd);
            return error;
        }
        left.remove_prefix(static_cast<std::size_t>(n));
    }
    ::close(fd);
    return {};
}

vcs::ForgeSettings forge_settings(const RepositorySettings& s) {
    return {s.forge_kind, s.forge_url, s.forge_project, s.forge_token, s.forge_api_version};
}

std::int64_t changed_lines(const std::string& patch) {
    std::int64_t n = 0;
    bool in_hunk = false;
    for (std::size_t at = 0; at < patch.size();) {
        const auto end = std::min(patch.find('\n', at), patch.size());
        const auto line = std::string_view{patch}.substr(at, end - at);
        if (line.starts_with("diff --git ")) in_hunk = false;
        if (line.starts_with("@@")) in_hunk = true;
        if (in_hunk && !line.empty() && (line[0] == '+' || line[0] == '-')) ++n;
        at = end + 1;
    }
    return n;
}

std::string one_line(std::string text, std::size_t most) {
    for (auto& c : text) {
        if (static_cast<unsigned char>(c) < 0x20) c = ' ';
    }
    return to_valid_utf8(text.size() > most ? text.substr(0, most) : text);
}

}  // namespace

json::object PatchFacts::save() const {
    return {
        {"bug_code", bug_code},
        {"fingerprint", fingerprint},
        {"release", release},
        {"title", title},
        {"description", description},
        {"edits", edits},
        {"file", file},
        {"revision", revision},
        {"patch_hash", patch_hash},
        {"branch", branch},
        {"commit", commit},
        {"base", base},
        {"merged", merged},
        {"revert", revert},
        {"request", request},
        {"request_url", request_url},
        {"approved_by", approved_by},
        {"request_body", request_body},
        {"made_at", made_at.us},
        {"files", files},
        {"added_tests", added_tests},
        {"lines", lines},
        {"unattended", unattended},
        {"keep_branch", keep_branch}};
}

PatchFacts PatchFacts::load(const json::object& o) {
    PatchFacts f;
    const std::pair<const char*, std::string*> texts[] = {
        {"bug_code", &f.bug_code},
        {"fingerprint", &f.fingerprint},
        {"release", &f.release},
        {"title", &f.title},
        {"description", &f.description},
        {"edits", &f.edits},
        {"file", &f.file},
        {"revision", &f.revision},
        {"patch_hash", &f.patch_hash},
        {"branch", &f.branch},
        {"commit", &f.commit},
        {"base", &f.base},
        {"merged", &f.merged},
        {"revert", &f.revert},
        {"request_url", &f.request_url},
        {"approved_by", &f.approved_by},
        {"request_body", &f.request_body}};
    for (const auto& [key, text] : texts) *text = string_at(o, key);
    f.request = int_at(o, "request");
    f.made_at = Time{int_at(o, "made_at")};
    f.files = array_at(o, "files");
    f.added_tests = array_at(o, "added_tests");
    f.lines = int_at(o, "lines");
    f.unattended = bool_at(o, "unattended");
    f.keep_branch = bool_at(o, "keep_branch");
    return f;
}

template <class F>
auto PatchWork::away(F&& f) {
    const auto start = std::chrono::steady_clock::now();
    auto answer = f();
    outside_ += std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - start);
    return answer;
}

template <class F>
auto PatchWork::with(F&& f) {
    return tools_.repositories.with(settings_, std::forward<F>(f), &tools_.cancel);
}

std::string PatchWork::place(const char* what) const {
    return fmt::format("{}/{}/{}", tools_.folder, run_, what);
}

result<std::map<std::string, std::string>> PatchWork::new_files(vcs::Repository& repository) const {
    auto edits = vcs::parse_edits(facts_.edits, facts_.file);
    if (!edits) return edits.error();
    const auto read = [&](const std::string& path) { return repository.show(facts_.revision, path); };
    return vcs::apply_edits(*edits, read);
}

result<void> PatchWork::write_into(const std::string& tree, const std::map<std::string, std::string>& files)
    const {
    for (const auto& [path, content] : files) HEAL_TRY(write_beneath(tree, path, content));
    return {};
}

PatchResult PatchWork::perform(PatchStep step) {
    outside_ = Duration{0};
    env_ = settings_.env;
    if (std::exchange(facts_.from_elsewhere, false)) {
        // The mirror here may not know yet what the other node saw. If that does not go, the step says what
        // it lacks.
        (void)with([&](vcs::Repository& r) { return away([&] { return r.fetch(); }); });
    }
    switch (step) {
        case PatchStep::prepare:
            return prepare();
        case PatchStep::gate:
            return gate();
        case PatchStep::reproduce:
            return reproduce(false);
        case PatchStep::build:
            return build();
        case PatchStep::test:
            return test();
        case PatchStep::counter:
            return reproduce(true);
        case PatchStep::commit:
            return commit();
        case PatchStep::push:
            return push();
        case PatchStep::request:
            return request();
        case PatchStep::merge:
            return merge();
        case PatchStep::deploy:
            return deploy(settings_.deploy, facts_.merged);
        case PatchStep::revert:
            return revert();
        case PatchStep::redeploy:
            return deploy(settings_.undeploy.empty() ? settings_.deploy : settings_.undeploy, facts_.revert);
        case PatchStep::finish:
            return finish();
        case PatchStep::review:
        case PatchStep::watch:
            break;
    }
    return {Kind::broken, "a step that is not worked on here", {}};
}

PatchResult PatchWork::prepare() {
    std::string from;
    auto made = with([&](vcs::Repository& r) -> result<void> {
        auto fresh = away([&] { return r.fetch(); });
        const auto find = [&]() -> result<std::string> {
            if (!facts_.revision.empty()) return r.resolve(facts_.revision);
            if (!facts_.release.empty()) {
                if (auto named = r.resolve(facts_.release)) {
                    from = "release " + facts_.release;
                    return named;
                }
            }
            from = "the head of " + settings_.branch;
            return r.resolve(settings_.branch);
        };
        auto commit = find();
        // Without the remote the mirror will do, if it knows the revision.
        if (!commit) return fresh ? commit.error() : fresh.error();
        facts_.revision = *commit;
        for (const char* tree : {"plain", "tree"}) HEAL_TRY(r.add_worktree(place(tree), *commit));
        facts_.fresh_trees = true;
        return {};
    });
    if (!made) return around(made.error());
    return done(
        fmt::format("worktrees at {}", facts_.revision.substr(0, 12)),
        {{"revision", facts_.revision}, {"from", from}}
    );
}

PatchResult PatchWork::gate() {
    struct Looked {
        std::map<std::string, std::string> files;
        std::vector<vcs::FileChange> changes;
        std::vector<std::pair<std::string, std::string>> tests;
    };
    vcs::GateRules rules;
    rules.allowed = settings_.allowed;
    rules.forbidden = settings_.forbidden;
    rules.tests = settings_.test_files;
    rules.max_files = settings_.max_files;
    rules.max_lines = settings_.max_lines;
    auto looked = with([&](vcs::Repository& r) -> result<Looked> {
        Looked out;
        auto files = new_files(r);
        if (!files) return files.error();
        out.files = std::move(*files);
        for (const auto& [path, content] : out.files) {
            vcs::FileChange change;
            change.path = path;
            change.after = content;
            auto mode = r.mode(facts_.revision, path);
            if (!mode) return mode.error();
            change.mode_before = *mode;
            change.mode_after = *mode == 0 ? 0100644 : *mode;
            if (*mode == 0120000)
                change.before = "";  // the gate refuses it; what it points to is nobody's business
            else if (*mode != 0) {
                auto before = r.show(facts_.revision, path);
                if (!before) return before.error();
                change.before = std::move(*before);
            }
            out.changes.push_back(std::move(change));
        }
        auto paths = r.files(facts_.revision);
        if (!paths) return paths.error();
        std::size_t bytes = 0;
        for (const auto& path : *paths) {
            if (!vcs::is_test_path(rules, path)) continue;
            auto text = r.show(facts_.revision, path);
            // One that is too large to read is no place where literals are looked for.
            if (!text || bytes + text->size() > (8U << 20U)) continue;
            bytes += text->size();
            out.tests.emplace_back(path, std::move(*text));
        }
        return out;
    });
    if (!looked) {
        const auto code = looked.error().code;
        if (code == errc::conflict || code == errc::invalid_input)
            return {Kind::mend, looked.error().text, {}};
        return around(looked.error());
    }
    const auto verdicts = vcs::check_gates(looked->changes, rules, looked->tests);
    json::object evidence{{"gates", vcs::to_json(verdicts)}};
    if (!vcs::passed(verdicts)) {
        std::string why;
        for (const auto& v : verdicts) {
            if (!v.ok) why += fmt::format("{}{}: {}", why.empty() ? "" : "; ", v.gate, v.reason);
        }
        return refused(std::move(why), std::move(evidence));
    }
    facts_.files.clear();
    facts_.added_tests.clear();
    std::map<std::string, std::string> added_tests;
    for (const auto& change : looked->changes) {
        facts_.files.push_back(json::value(change.path));
        if (!change.before && vcs::is_test_path(rules, change.path)) {
            added_tests[change.path] = *change.after;
            facts_.added_tests.push_back(json::value(change.path));
        }
    }
    // A model that mended its edits begins with clean trees.
    auto written = with([&](vcs::Repository& r) -> result<std::string> {
        if (!facts_.fresh_trees) {
            for (const char* tree : {"plain", "tree"}) HEAL_TRY(r.add_worktree(place(tree), facts_.revision));
        }
        facts_.fresh_trees = false;
        HEAL_TRY(write_into(place("tree"), looked->files));
        HEAL_TRY(write_into(place("plain"), added_tests));
        auto staged = r.stage(place("tree"));
        if (!staged) return staged.error();
        return std::move(staged->patch);
    });
    if (!written) return around(written.error());
    if (written->empty()) return refused("the patch changes nothing", std::move(evidence));
    facts_.patch = std::move(*written);
    facts_.patch_hash = sha256_hex(facts_.patch);
    facts_.lines = changed_lines(facts_.patch);
    evidence["patch_hash"] = facts_.patch_hash;
    evidence["files"] = facts_.files;
    evidence["lines"] = facts_.lines;
    return done(
        fmt::format("{} lines in {} files pass every gate", facts_.lines, facts_.files.size()),
        std::move(evidence)
    );
}

result<PatchWork::Ran> PatchWork::run(
    const std::vector<CommandSettings>& commands, const std::string& folder, vcs::Sandbox& where
) {
    Ran ran;
    for (const auto& command : commands) {
        vcs::SandboxLimits limits;
        limits.timeout = command.timeout;
        limits.memory_bytes = settings_.memory_bytes;
        limits.processes = settings_.processes;
        auto outcome = away([&] { return where.run(command.argv, folder, env_, limits, tools_.cancel); });
        if (!outcome) return outcome.error();
        const auto& c = *outcome;
        ran.evidence.push_back(json::object{
            {"name", command.name},
            {"argv", json::array(command.argv.begin(), command.argv.end())},
            {"outcome", c.outcome()},
            {"took_ms", c.took.count()},
            {"output", to_valid_utf8(tail(c.output))}});
        if (c.ok()) continue;
        ran.all_ok = false;
        ran.first_bad = fmt::format("{}: {}", command.name, c.outcome());
        break;
    }
    return ran;
}

result<PatchWork::Ran> PatchWork::build_and_test(
    const std::string& folder, bool only_reproduce, bool& ret_built
) {
    auto built = run(settings_.build, folder, tools_.sandbox);
    if (!built) return built;
    ret_built = built->all_ok;
    if (!built->all_ok) return built;
    auto tested = run(settings_.reproduce, folder, tools_.sandbox);
    if (tested && tested->all_ok && (!only_reproduce || settings_.reproduce.empty())) {
        auto rest = run(settings_.tests, folder, tools_.sandbox);
        if (!rest) return rest;
        for (auto& item : rest->evidence) tested->evidence.push_back(std::move(item));
        tested->all_ok = rest->all_ok;
        tested->first_bad = rest->first_bad;
    }
    if (!tested) return tested;
    for (auto it = built->evidence.rbegin(); it != built->evidence.rend(); ++it)
        tested->evidence.insert(tested->evidence.begin(), std::move(*it));
    return tested;
}

PatchResult PatchWork::reproduce(bool again) {
    if (settings_.reproduce.empty() && settings_.tests.empty())
        return {
            Kind::broken,
            fmt::format(
                "repositories.{}: has neither `reproduce` nor `tests`; without a test nothing can be proved",
                settings_.name
            ),
            {}};
    if (again) {
        // What the first run and the tests with the patch left behind must not matter.
        auto fresh = with([&](vcs::Repository& r) -> result<void> {
            auto files = new_files(r);
            if (!files) return files.error();
            std::map<std::string, std::string> tests;
            for (const auto& path : facts_.added_tests) {
                const std::string name{view(path.as_string())};
                tests[name] = (*files)[name];
            }
            HEAL_TRY(r.add_worktree(place("plain"), facts_.revision));
            return write_into(place("plain"), tests);
        });
        if (!fresh) return around(fresh.error());
    }
    bool built = false;
    auto ran = build_and_test(place("plain"), true, built);
    if (!ran) return around(ran.error());
    json::object evidence{
        {"commands", std::move(ran->evidence)}, {"confinement", tools_.sandbox.confinement()}};
    if (!built && facts_.added_tests.empty())
        return {
            Kind::broken,
            fmt::format(
                "{} does not build without the patch: {}", facts_.revision.substr(0, 12), ran->first_bad
            ),
            std::move(evidence)};
    if (!built)
        return refused(
            "with the tests of the patch alone the code does not build, so they prove nothing: " +
                ran->first_bad,
            std::move(evidence)
        );
    if (ran->all_ok) {
        return refused(
            again ? "the tests pass without the patch as well, so their success with it proves nothing"
                  : "the bug was not reproduced: all tests pass without the patch",
            std::move(evidence)
        );
    }
    return done("red without the patch: " + ran->first_bad, std::move(evidence));
}

PatchResult PatchWork::build() {
    auto ran = run(settings_.build, place("tree"), tools_.sandbox);
    if (!ran) return around(ran.error());
    json::object evidence{{"commands", std::move(ran->evidence)}};
    if (!ran->all_ok) return refused("does not build: " + ran->first_bad, std::move(evidence));
    return done(settings_.build.empty() ? "nothing to build" : "builds", std::move(evidence));
}

PatchResult PatchWork::test() {
    auto ran = run(settings_.reproduce, place("tree"), tools_.sandbox);
    if (!ran) return around(ran.error());
    if (ran->all_ok) {
        auto rest = run(settings_.tests, place("tree"), tools_.sandbox);
        if (!rest) return around(rest.error());
        for (auto& item : rest->evidence) ran->evidence.push_back(std::move(item));
        ran->all_ok = rest->all_ok;
        ran->first_bad = rest->first_bad;
    }
    json::object evidence{
        {"commands", std::move(ran->evidence)}, {"confinement", tools_.sandbox.confinement()}};
    if (!ran->all_ok) return refused("still red with the patch: " + ran->first_bad, std::move(evidence));
    return done("green with the patch", std::move(evidence));
}

std::string PatchWork::message() const {
    std::string text = one_line("Fix: " + facts_.title, 72) + "\n\n";
    if (!facts_.description.empty()) text += to_valid_utf8(facts_.description) + "\n\n";
    text +=
        fmt::format("Bug: {}\nFingerprint: {}\nHeald-Run: {}\n", facts_.bug_code, facts_.fingerprint, run_);
    text += facts_.unattended ? "Approved-by: nobody (autonomy: merge)\n"
                              : fmt::format("Approved-by: {}\n", one_line(facts_.approved_by, 200));
    return text;
}

PatchResult PatchWork::commit() {
    auto made = with([&](vcs::Repository& r) -> result<std::string> {
        auto files = new_files(r);
        if (!files) return files.error();
        HEAL_TRY(r.add_worktree(place("commit"), facts_.revision));
        HEAL_TRY(write_into(place("commit"), *files));
        auto staged = r.stage(place("commit"));
        if (!staged) return staged.error();
        // No build or test had a hand on this tree; what is committed is what was shown.
        if (sha256_hex(staged->patch) != facts_.patch_hash)
            return fail(errc::internal, "the patch is not the one that was tried and approved");
        return r.commit(*staged, {message(), settings_.author, facts_.made_at});
    });
    if (!made) return around(made.error());
    facts_.commit = *made;
    return done("committed as " + made->substr(0, 12), {{"commit", *made}});
}

PatchResult PatchWork::push() {
    auto pushed = with([&](vcs::Repository& r) -> result<bool> {
        auto there = away([&] { return r.remote_head(facts_.branch); });
        if (!there) return there.error();
        if (*there == facts_.commit) return true;
        HEAL_TRY(away([&] { return r.push(facts_.branch, facts_.commit, *there); }));
        return false;
    });
    if (!pushed) return around(pushed.error());
    return done("branch " + facts_.branch, {{"branch", facts_.branch}, {"was_there", *pushed}});
}

PatchResult PatchWork::request() {
    auto forge = vcs::create_forge(forge_settings(settings_), tools_.http);
    if (!forge) return {Kind::broken, forge.error().text, {}};
    if (facts_.request == 0) {
        vcs::ChangeRequest ask;
        ask.title = one_line(fmt::format("{} ({})", facts_.title, facts_.bug_code), 200);
        ask.body = facts_.request_body;
        ask.head = facts_.branch;
        ask.base = settings_.branch;
        ask.draft = settings_.draft;
        ask.labels = settings_.labels;
        auto opened = away([&] { return (*forge)->open(ask); });
        if (!opened) return around(opened.error());
        facts_.request = opened->number;
        facts_.request_url = opened->url;
        return {
            Kind::waiting,
            fmt::format("{} waits to be merged", opened->url),
            {{"url", opened->url}, {"number", opened->number}, {"was_there", opened->existed}}};
    }
    auto found = away([&] { return (*forge)->find(facts_.request); });
    if (!found) return around(found.error());
    if (found->state == "closed")
        return {Kind::closed, "the request was closed without a merge", {{"url", found->url}}};
    if (found->state != "merged") return {Kind::waiting, "waits to be merged", {}};
    auto head = with([&](vcs::Repository& r) -> result<std::string> {
        HEAL_TRY(away([&] { return r.fetch(); }));
        return r.resolve(settings_.branch);
    });
    if (!head) return around(head.error());
    facts_.merged = *head;
    return {Kind::merged, "merged by people", {{"url", found->url}, {"head", *head}}};
}

PatchResult PatchWork::merge() {
    struct Merged {
        std::string base, head;
        bool moved = false;
    };
    auto merged = with([&](vcs::Repository& r) -> result<Merged> {
        Merged out;
        HEAL_TRY(away([&] { return r.fetch(); }));
        auto base = away([&] { return r.remote_head(settings_.branch); });
        if (!base) return base.error();
        if (base->empty())
            return fail(errc::not_found, fmt::format("the remote has no branch {}", settings_.branch));
        out.base = *base;
        auto there = r.contains(*base, facts_.commit);
        if (!there) return there.error();
        if (*there) {
            out.head = *base;
            return out;
        }
        auto head = r.merge(
            facts_.commit,
            *base,
            fmt::format("Merge {}\n\nHeald-Run: {}\n", facts_.branch, run_),
            settings_.author,
            facts_.made_at
        );
        if (!head) return head.error();
        out.head = *head;
        out.moved = *head != facts_.commit;
        if (out.moved) HEAL_TRY(r.add_worktree(place("merged"), *head));
        return out;
    });
    if (!merged) {
        if (merged.error().code == errc::conflict)
            return refused("it does not merge into what is there now: " + merged.error().text);
        return around(merged.error());
    }
    json::object evidence{{"base", merged->base}, {"head", merged->head}};
    if (merged->moved) {
        // Others have moved the branch on: what was proved on its own is proved once more together with
        // theirs.
        bool built = false;
        auto ran = build_and_test(place("merged"), false, built);
        if (!ran) return around(ran.error());
        evidence["commands"] = std::move(ran->evidence);
        if (!ran->all_ok)
            return refused("red together with what was merged since: " + ran->first_bad, std::move(evidence));
    }
    if (merged->head != merged->base) {
        facts_.base = merged->base;
        facts_.merged = merged->head;
        auto pushed = with([&](vcs::Repository& r) -> result<void> {
            return away([&] { return r.push(settings_.branch, merged->head, merged->base); });
        });
        if (!pushed) {
            // Somebody was faster: once more on top of theirs.
            if (pushed.error().code == errc::conflict) return {Kind::again, pushed.error().text, {}};
            return around(pushed.error());
        }
    } else
        facts_.merged = merged->head;
    return done(
        fmt::format("{} is at {}", settings_.branch, facts_.merged.substr(0, 12)), std::move(evidence)
    );
}

PatchResult PatchWork::deploy(const std::vector<CommandSettings>& commands, const std::string& commit) {
    auto ready =
        with([&](vcs::Repository& r) -> result<void> { return r.add_worktree(place("deploy"), commit); });
    if (!ready) return around(ready.error());
    env_["HEAL_COMMIT"] = commit;
    env_["HEAL_BRANCH"] = settings_.branch;
    env_["HEAL_REPOSITORY"] = settings_.name;
    env_["HEAL_BUG"] = facts_.bug_code;
    env_["HEAL_RUN"] = run_;
    auto ran = run(commands, place("deploy"), tools_.plain);
    if (!ran) {
        const bool harmless =
            std::all_of(commands.begin(), commands.end(), [](const auto& c) { return c.idempotent; });
        return {
            harmless && ran.error().code == errc::cancelled ? Kind::again : Kind::broken,
            ran.error().text,
            {}};
    }
    json::object evidence{{"commands", std::move(ran->evidence)}, {"commit", commit}};
    if (!ran->all_ok) return {Kind::broken, ran->first_bad, std::move(evidence)};
    return done("deployed " + commit.substr(0, 12), std::move(evidence));
}

PatchResult PatchWork::revert() {
    auto taken = with([&](vcs::Repository& r) -> result<std::string> {
        HEAL_TRY(away([&] { return r.fetch(); }));
        auto head = away([&] { return r.remote_head(settings_.branch); });
        if (!head) return head.error();
        if (!facts_.revert.empty()) {
            auto there = r.contains(*head, facts_.revert);
            if (!there) return there.error();
            if (*there) return facts_.revert;
        }
        auto commit = r.revert(
            facts_.commit,
            *head,
            fmt::format(
                "Revert \"{}\"\n\nIt did not hold.\n\nBug: {}\nHeald-Run: {}\n",
                one_line("Fix: " + facts_.title, 60),
                facts_.bug_code,
                run_
            ),
            settings_.author,
            facts_.made_at
        );
        if (!commit) return commit.error();
        facts_.revert = *commit;
        if (*commit != *head) HEAL_TRY(away([&] { return r.push(settings_.branch, *commit, *head); }));
        return *commit;
    });
    if (!taken) return around(taken.error());
    return done("taken back by " + taken->substr(0, 12), {{"commit", *taken}});
}

PatchResult PatchWork::finish() {
    auto cleared = with([&](vcs::Repository& r) -> result<void> {
        for (const char* tree : {"plain", "tree", "commit", "merged", "deploy"})
            HEAL_TRY(r.remove_worktree(place(tree)));
        // Of what is merged, and of what nobody will merge any more, no branch stays behind.
        if (!facts_.commit.empty() && !facts_.keep_branch)
            HEAL_TRY(away([&] { return r.remove_branch(facts_.branch, facts_.commit); }));
        return {};
    });
    if (cleared && facts_.request != 0 && facts_.merged.empty()) {
        auto forge = vcs::create_forge(forge_settings(settings_), tools_.http);
        if (forge) cleared = away([&] { return (*forge)->close(facts_.request); });
    }
    std::error_code ignored;
    std::filesystem::remove_all(fmt::format("{}/{}", tools_.folder, run_), ignored);
    if (!cleared) return around(cleared.error());
    return done("cleared away");
}

}  // namespace heal
