#include "vcs/repository.hpp"

#include "base/files.hpp"
#include "base/json.hpp"
#include "vcs/process.hpp"
#include "vcs/text.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>

namespace heal::vcs {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t max_file_bytes = 1U << 20U;
/// Of listings and of files, per repository, in memory.
constexpr std::size_t kept_bytes = 1U << 20U;

/// What every git of ours reads instead of the system's and the user's configuration; also the one that
/// serves a local remote.
constexpr const char* configuration = R"([safe]
	directory = *
[core]
	hooksPath = /dev/null
	fsmonitor = false
	attributesFile = /dev/null
	excludesFile = /dev/null
	autocrlf = false
	pager = cat
	editor = true
[protocol]
	allow = never
[protocol "file"]
	allow = always
[protocol "https"]
	allow = always
[protocol "http"]
	allow = always
[protocol "ssh"]
	allow = always
[gc]
	auto = 0
[maintenance]
	auto = false
[commit]
	gpgSign = false
[credential]
	helper =
[submodule]
	recurse = false
[fetch]
	recurseSubmodules = false
[advice]
	detachedHead = false
[init]
	defaultBranch = main
)";

std::string base64(std::string_view bytes) {
    constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        unsigned v = 0;
        for (std::size_t j = 0; j < 3; ++j)
            v = v << 8U | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0U);
        for (std::size_t j = 0; j < 4; ++j)
            out += i + j <= bytes.size() ? digits[(v >> (18 - 6 * j)) & 63U] : '=';
    }
    return out;
}

bool is_id(std::string_view text) {
    return text.size() == 40 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

/// What git-check-ref-format(1) allows, and no option.
bool is_ref(std::string_view name) {
    if (name.empty() || name.size() > 200 || name.front() == '-' || name.front() == '/' ||
        name.back() == '/' || name.back() == '.' || name.ends_with(".lock"))
        return false;
    if (name.find("..") != std::string_view::npos || name.find("@{") != std::string_view::npos ||
        name.find("//") != std::string_view::npos || name.find("/.") != std::string_view::npos ||
        name == "@" || name.front() == '.')
        return false;
    return std::none_of(name.begin(), name.end(), [](char c) {
        return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f ||
               std::string_view{"~^:?*[\\"}.find(c) != std::string_view::npos;
    });
}

bool is_url(std::string_view url) {
    for (const char c : url)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
    if (url.starts_with("/")) return true;
    for (const std::string_view scheme : {"file:///", "https://", "http://", "ssh://"})
        if (url.starts_with(scheme))
            return url.size() > scheme.size() && url[scheme.size()] != '-' &&
                   url.find("://-") == std::string_view::npos && url.find("@-") == std::string_view::npos;
    // user@host:path
    const auto at = url.find('@'), colon = url.find(':');
    if (at == 0 || at == std::string_view::npos || colon == std::string_view::npos || colon < at ||
        url.front() == '-' || url.find("::") != std::string_view::npos)
        return false;
    return url.substr(0, colon).find_first_not_of(
               "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-@"
           ) == std::string_view::npos &&
           url[at + 1] != '-';
}

bool is_path(std::string_view path) {
    return !path.empty() && path.front() != '/' && path.find('\0') == std::string_view::npos &&
           path != ".." && !path.starts_with("../") && path.find("/../") == std::string_view::npos;
}

/// Also what a test has made unreadable.
bool remove_all(const fs::path& path) {
    std::error_code error;
    fs::remove_all(path, error);
    if (!error) return true;
    for (auto it =
             fs::recursive_directory_iterator{path, fs::directory_options::skip_permission_denied, error};
         !error && it != fs::recursive_directory_iterator{};
         it.increment(error)) {
        std::error_code ignored;
        if (it->is_directory(ignored) && !it->is_symlink(ignored)) ::chmod(it->path().c_str(), 0700);
    }
    ::chmod(path.c_str(), 0700);
    fs::remove_all(path, error);
    return !error;
}

/// The last lines of what git said, without secrets.
std::string last_words(std::string text, const RepositoryPlace& place) {
    for (const std::string& secret : {place.token, base64("x-access-token:" + place.token)})
        for (auto at = secret.size() > 3 ? text.find(secret) : std::string::npos; at != std::string::npos;
             at = text.find(secret, at))
            text.replace(at, secret.size(), "***");
    // "https://user:password@host"
    for (auto at = text.find("://"); at != std::string::npos; at = text.find("://", at + 3)) {
        const auto end = text.find_first_of("/ \n'\"", at + 3);
        const auto sign = text.rfind('@', end);
        if (sign != std::string::npos && sign > at + 3) text.replace(at + 3, sign - at - 3, "***");
    }
    std::vector<std::string_view> kept;
    for (const auto line : lines_of(text))
        if (!trim(line).empty() && !line.starts_with("hint:")) kept.push_back(trim(line));
    std::string out;
    for (std::size_t i = kept.size() > 3 ? kept.size() - 3 : 0; i < kept.size(); ++i)
        out += (out.empty() ? "" : "; ") + std::string{kept[i].substr(0, 300)};
    return out;
}

errc code_of(std::string_view words) {
    const std::string l = lower(words);
    const auto has = [&](const char* what) { return l.find(what) != std::string::npos; };
    if (has("authentication failed") || has("could not read username") || has("could not read password") ||
        has("permission denied") || has("error: 401") || has("error: 403") || has("access denied") ||
        has("invalid credentials"))
        return errc::denied;
    if (has("stale info") || has("non-fast-forward") || has("fetch first") || has("[rejected]") ||
        has("cannot lock ref") || has("failed to update ref"))
        return errc::conflict;
    if (has("remote rejected") || has("pre-receive hook declined") || has("protected branch"))
        return errc::denied;
    if (has("no space left") || has("disk quota")) return errc::io;
    return errc::unavailable;
}

class GitRepository final : public Repository {
public:
    GitRepository(
        RepositoryPlace place,
        const std::string& folder,
        std::chrono::milliseconds deadline,
        const std::atomic<bool>& cancel
    )
        : place_(std::move(place)),
          folder_(folder),
          mirror_(folder + "/" + place_.name + ".git"),
          deadline_(deadline),
          cancel_(cancel) {}

    result<void> open() {
        git_ = find_program("git", usual_path);
        if (git_.empty()) return fail(errc::not_found, "git is not installed");
        SystemFiles files;
        HEAL_TRY(files.make_folder(folder_));
        std::error_code error;
        folder_ = fs::canonical(folder_, error).string();
        if (error) return fail(errc::io, fmt::format("cannot use the folder {}", folder_));
        mirror_ = folder_ + "/" + place_.name + ".git";
        config_ = folder_ + "/heald.gitconfig";
        HEAL_TRY(files.write_atomic(config_, configuration, 0600));
        if (fs::exists(mirror_ + "/HEAD")) {
            mend();
            return {};
        }
        // Under another name until it is whole, so that a clone that was cut off is none.
        const std::string part = mirror_ + ".part";
        remove_all(part);
        remove_all(mirror_);
        HEAL_TRY(must({"init", "--quiet", "--bare", "--template=", "--", part}, {}));
        HEAL_TRY(fetch_into(part));
        if (::rename(part.c_str(), mirror_.c_str()) != 0)
            return fail_errno(fmt::format("cannot rename {}", part), errno);
        return {};
    }

    result<void> fetch() override { return fetch_into(mirror_); }

    result<std::string> resolve(const std::string& revision) override {
        const auto none = [&] {
            return fail(
                errc::not_found,
                fmt::format(
                    "{}: there is no branch, tag, release or commit '{}'",
                    place_.name,
                    to_valid_utf8(revision)
                )
            );
        };
        const bool hex = revision.size() >= 4 && revision.size() <= 40 &&
                         revision.find_first_not_of("0123456789abcdef") == std::string::npos;
        if (!is_ref(revision)) return none();
        std::vector<std::string> tries;
        if (is_id(revision)) tries.push_back(revision);
        for (const char* start :
             {"refs/heads/", "refs/tags/", "refs/tags/v", "refs/tags/release-", "refs/heads/release-"})
            tries.push_back(start + revision);
        if (hex) tries.push_back(revision);
        for (const auto& one : tries) {
            auto done =
                git({"rev-parse", "--verify", "--quiet", "--end-of-options", one + "^{commit}"}, mirror());
            if (!done) return done.error();
            if (done->exit_code == 0 && is_id(trim(done->out))) return std::string{trim(done->out)};
        }
        return none();
    }

    result<void> add_worktree(const std::string& folder, const std::string& commit) override {
        HEAL_TRY(known(commit));
        HEAL_TRY(remove_worktree(folder));
        // As git-worktree(1) makes it (gitrepository-layout(5)), by one process of git instead of three.
        const std::string id = free_id(fs::path{folder}.filename().string());
        const auto make = [&]() -> result<void> {
            std::error_code error;
            fs::create_directories(folder, error);
            if (!error) fs::create_directories(id, error);
            if (error) return fail(errc::io, fmt::format("cannot make {}: {}", folder, error.message()));
            // After a crash they are made anew, so nothing waits for the disk.
            const std::pair<std::string, std::string> files[] = {
                {id + "/locked", "initializing"},
                {id + "/gitdir", folder + "/.git"},
                {id + "/commondir", "../.."},
                {id + "/HEAD", commit},
                {folder + "/.git", "gitdir: " + id}};
            for (const auto& [path, text] : files)
                if (!(std::ofstream{path} << text << '\n').flush())
                    return fail_errno(fmt::format("cannot write {}", path), errno);
            auto done = must({"read-tree", "--reset", "-u", commit}, {id, folder});
            if (!done) return done.error();
            return SystemFiles{}.remove(id + "/locked");
        }();
        if (!make) {
            // Nothing half made remains, also where a full disk kept git's folder from naming its worktree.
            (void)remove_worktree(folder);
            remove_all(id);
        }
        return make;
    }

    result<void> remove_worktree(const std::string& folder) override {
        if (folder.empty() || folder == "/" || folder.front() != '/')
            return fail(errc::invalid_input, fmt::format("'{}' is no folder for a worktree", folder));
        // git worktree remove refuses half-made ones, and prune keeps those that were being made.
        if (!remove_all(folder)) return fail(errc::io, fmt::format("cannot remove {}", folder));
        for (const auto& [id, place] : worktrees())
            if (same_place(place, folder)) remove_all(id);
        return {};
    }

    result<std::string> show(const std::string& commit, const std::string& path) override {
        auto entry = entry_of(commit, path);
        if (!entry) return entry.error();
        if (!*entry || (*entry)->type != "blob")
            return fail(errc::not_found, fmt::format("{} is not in {}", path, commit.substr(0, 12)));
        if ((*entry)->mode == 0120000)
            return fail(errc::invalid_input, fmt::format("{} is a symbolic link", path));
        if ((*entry)->size > max_file_bytes)
            return fail(errc::invalid_input, fmt::format("{} is larger than 1 MiB", path));
        return blob((*entry)->id);
    }

    result<std::vector<std::string>> files(const std::string& commit) override {
        auto listed = listing(commit);
        if (!listed) return listed.error();
        std::vector<std::string> out;
        for (const auto& [path, entry] : **listed)
            if ((entry.mode & 0170000U) == 0100000U) out.push_back(path);
        return out;
    }

    result<unsigned> mode(const std::string& commit, const std::string& path) override {
        auto entry = entry_of(commit, path);
        if (!entry) return entry.error();
        return *entry ? (*entry)->mode : 0U;
    }

    result<std::vector<BlameLine>> blame(
        const std::string& commit, const std::string& path, unsigned first_line, unsigned last_line
    ) override {
        HEAL_TRY(known(commit));
        if (!is_path(path) || first_line == 0 || last_line < first_line)
            return fail(
                errc::invalid_input, fmt::format("no lines {} to {} of '{}'", first_line, last_line, path)
            );
        auto done =
            git({"blame", "--porcelain", fmt::format("-L{},{}", first_line, last_line), commit, "--", path},
                mirror());
        if (!done) return done.error();
        if (done->exit_code != 0)
            return fail(
                errc::not_found,
                fmt::format(
                    "lines {} to {} of {}: {}", first_line, last_line, path, last_words(done->error, place_)
                )
            );
        struct Known {
            std::string author, summary;
            Time at;
        };
        std::map<std::string, Known, std::less<>> commits;
        std::vector<BlameLine> out;
        std::string now;
        for (const auto line : lines_of(done->out)) {
            if (line.starts_with('\t')) {
                auto& last = out.back();
                const Known& k = commits[now];
                last.author = k.author, last.summary = k.summary, last.at = k.at;
                continue;
            }
            if (line.size() > 41 && is_id(line.substr(0, 40)) && line[40] == ' ') {
                now = line.substr(0, 40);
                const auto numbers = line.substr(41);
                unsigned number = 0;
                const auto second = numbers.substr(numbers.find(' ') + 1);
                std::from_chars(second.data(), second.data() + second.size(), number);
                if (out.empty() || out.back().commit != now || out.back().last_line + 1 != number)
                    out.push_back({now, {}, {}, {}, number, number});
                out.back().last_line = number;
            } else if (line.starts_with("author ")) {
                commits[now].author = to_utf8(line.substr(7));
            } else if (line.starts_with("summary ")) {
                commits[now].summary = to_utf8(line.substr(8));
            } else if (line.starts_with("author-time ")) {
                std::int64_t seconds = 0;
                std::from_chars(line.data() + 12, line.data() + line.size(), seconds);
                commits[now].at = Time{seconds * 1'000'000};
            }
        }
        return out;
    }

    result<Staged> stage(const std::string& worktree) override {
        const Where where = where_of(worktree);
        if (where.git_dir.empty())
            return fail(errc::not_found, fmt::format("{} is no worktree of {}", worktree, place_.name));
        auto head = head_of(where);
        if (!head) return head.error();
        auto added = must({"add", "--all", "--", "."}, where);
        if (!added) return added.error();
        auto tree = must({"write-tree"}, where);
        if (!tree) return tree.error();
        Staged out{std::move(*head), std::string{trim(tree->out)}, {}};
        auto patch = diff_of(out.head, out.tree);
        if (!patch) return patch.error();
        out.patch = std::move(*patch);
        return out;
    }
    result<std::string> diff(const std::string& from, const std::string& to) override {
        HEAL_TRY(known(from));
        HEAL_TRY(known(to));
        return diff_of(from, to);
    }

    result<std::string> commit(const Staged& staged, const Commit& what) override {
        HEAL_TRY(known(staged.head));
        HEAL_TRY(known(staged.tree));
        if (staged.patch.empty())
            return fail(
                errc::conflict, fmt::format("nothing has changed since {}", staged.head.substr(0, 12))
            );
        return commit_tree(staged.tree, {staged.head}, what.message, what.author, what.at);
    }

    result<std::string> revert(
        const std::string& commit,
        const std::string& onto,
        const std::string& message,
        const std::string& author,
        Time at
    ) override {
        HEAL_TRY(known(commit));
        HEAL_TRY(known(onto));
        auto parent = git({"rev-parse", "--verify", "--quiet", "--end-of-options", commit + "^1"}, mirror());
        if (!parent) return parent.error();
        if (parent->exit_code != 0)
            return fail(
                errc::conflict,
                fmt::format("{} has nothing before it that could come back", commit.substr(0, 12))
            );
        auto before = tree_of(std::string{trim(parent->out)}), now = tree_of(onto);
        if (!before) return before;
        if (!now) return now;
        // git-merge-tree(1) takes the base from history (before 2.40): two commits upon the one to undo, of
        // what was before it and of what is now.
        auto back = commit_tree(*before, {commit}, "before", author, at),
             here = commit_tree(*now, {commit}, "now", author, at);
        if (!back) return back;
        if (!here) return here;
        auto tree =
            merged(*here, *back, fmt::format("{} cannot be taken back by itself", commit.substr(0, 12)));
        if (!tree) return tree;
        if (*tree == *now) return onto;
        return commit_tree(*tree, {onto}, message, author, at);
    }

    result<std::string> merge(
        const std::string& commit,
        const std::string& onto,
        const std::string& message,
        const std::string& author,
        Time at
    ) override {
        HEAL_TRY(known(commit));
        HEAL_TRY(known(onto));
        auto above = contains(commit, onto), within = contains(onto, commit);
        if (!above) return above.error();
        if (!within) return within.error();
        if (*above) return commit;
        if (*within) return onto;
        auto tree = merged(
            onto,
            commit,
            fmt::format("{} does not go together with {}", commit.substr(0, 12), onto.substr(0, 12))
        );
        if (!tree) return tree;
        return commit_tree(*tree, {onto, commit}, message, author, at);
    }

    result<std::string> remote_head(const std::string& branch) override {
        if (!is_ref(branch))
            return fail(
                errc::invalid_input, fmt::format("'{}' is no name of a branch", to_valid_utf8(branch))
            );
        const std::string ref = "refs/heads/" + branch;
        auto done =
            must({"ls-remote", "--quiet", "--refs", "--end-of-options", place_.url, ref}, mirror(), true);
        if (!done) return done.error();
        for (const auto line : lines_of(done->out))
            if (line.size() > 41 && line.substr(41) == ref && is_id(line.substr(0, 40)))
                return std::string{line.substr(0, 40)};
        return std::string{};
    }

    result<void> push(const std::string& branch, const std::string& commit, const std::string& expected)
        override {
        HEAL_TRY(known(commit));
        return move_branch(branch, commit, expected);
    }
    result<void> remove_branch(const std::string& branch, const std::string& expected) override {
        return move_branch(branch, {}, expected);
    }

    result<bool> contains(const std::string& of, const std::string& commit) override {
        HEAL_TRY(known(of));
        HEAL_TRY(known(commit));
        auto done = git({"merge-base", "--is-ancestor", commit, of}, mirror());
        if (!done) return done.error();
        if (done->exit_code > 1) return wrong("merge-base", *done);
        return done->exit_code == 0;
    }

    void give_up_with(const std::atomic<bool>* flag) override { give_up_ = flag; }

private:
    struct Where {
        std::string git_dir, work_tree;
    };
    struct Entry {
        unsigned mode = 0;
        std::string type, id;
        std::uint64_t size = 0;
    };

    static std::string to_utf8(std::string_view text) {
        std::string out{text.substr(0, 300)};
        for (char& c : out)
            if (static_cast<unsigned char>(c) < 0x20) c = ' ';
        return to_valid_utf8(out);
    }
    static std::string to_valid_utf8(std::string_view text) { return heal::to_valid_utf8(text); }

    Where mirror() const { return {mirror_, {}}; }

    /// git's own folder of a worktree, found from our side: what stands in the worktree's .git may have been
    /// changed by what ran there.
    Where where_of(const std::string& worktree) const {
        for (const auto& [id, place] : worktrees())
            if (same_place(place, worktree)) return {id, worktree};
        return {};
    }
    std::vector<std::pair<std::string, std::string>> worktrees() const {
        std::vector<std::pair<std::string, std::string>> out;
        std::error_code ignored;
        const SystemFiles files;
        for (const auto& entry : fs::directory_iterator{mirror_ + "/worktrees", ignored}) {
            const auto link = files.read(entry.path().string() + "/gitdir", 65536);
            fs::path place = link ? fs::path{trim(*link)}.parent_path() : fs::path{};
            out.emplace_back(entry.path().string(), place.string());
        }
        return out;
    }
    /// A folder of git's for one more worktree.
    std::string free_id(const std::string& name) const {
        std::string id = mirror_ + "/worktrees/" + name;
        std::error_code ignored;
        for (unsigned n = 1; fs::exists(id, ignored); ++n)
            id = fmt::format("{}/worktrees/{}{}", mirror_, name, n);
        return id;
    }
    static bool same_place(const std::string& a, const std::string& b) {
        if (a.empty()) return false;
        std::error_code ignored;
        return a == b || fs::weakly_canonical(a, ignored) == fs::weakly_canonical(b, ignored);
    }

    /// After a git that was ended: locks of ours (nobody else writes here), and worktrees that were never
    /// whole.
    void mend() const {
        std::error_code ignored;
        for (auto it = fs::recursive_directory_iterator{mirror_, ignored};
             it != fs::recursive_directory_iterator{};
             it.increment(ignored)) {
            if (it->path().filename() == "objects" && it.depth() == 0) it.disable_recursion_pending();
            if (it->path().extension() == ".lock" && it->is_regular_file(ignored))
                fs::remove(it->path(), ignored);
        }
        for (const auto& [id, place] : worktrees())
            if (place.empty() || !fs::exists(place, ignored) || fs::exists(id + "/locked", ignored)) {
                if (!place.empty() && fs::exists(id + "/locked", ignored)) remove_all(place);
                remove_all(id);
            }
        // Packs that were being received.
        for (const auto& entry : fs::directory_iterator{mirror_ + "/objects/pack", ignored})
            if (entry.path().filename().string().starts_with("tmp_")) fs::remove(entry.path(), ignored);
        for (const auto& entry : fs::directory_iterator{mirror_ + "/objects", ignored})
            if (entry.path().filename().string().starts_with("tmp_")) fs::remove_all(entry.path(), ignored);
    }

    result<ProgramEnd> git(
        std::vector<std::string> arguments,
        const Where& where,
        bool remote = false,
        const std::vector<std::string>& more_env = {}
    ) const {
        const std::string name = arguments[0];
        Program what;
        what.argv = {
            git_,
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "core.fsmonitor=false",
            "-c",
            "protocol.ext.allow=never",
            "--literal-pathspecs",
            "--no-replace-objects"};
        if (!where.git_dir.empty()) what.argv.push_back("--git-dir=" + where.git_dir);
        if (!where.work_tree.empty()) what.argv.push_back("--work-tree=" + where.work_tree);
        what.argv.insert(
            what.argv.end(),
            std::make_move_iterator(arguments.begin()),
            std::make_move_iterator(arguments.end())
        );
        what.folder = where.work_tree.empty() ? folder_ : where.work_tree;
        what.timeout = deadline_;
        what.first_bytes = 64U << 20U;
        what.env = {
            fmt::format("PATH={}", usual_path),
            "LC_ALL=C",
            "GIT_CONFIG_NOSYSTEM=1",
            "GIT_CONFIG_GLOBAL=" + config_,
            "GIT_ATTR_NOSYSTEM=1",
            "GIT_TERMINAL_PROMPT=0",
            "GIT_ASKPASS=/bin/false",
            "SSH_ASKPASS=/bin/false",
            "GIT_SSH_COMMAND=ssh -oBatchMode=yes -oConnectTimeout=15",
            "GIT_PROTOCOL_FROM_USER=0",
            "GIT_ALLOW_PROTOCOL=file:https:http:ssh",
            "GIT_EDITOR=true",
            "GIT_PAGER=cat",
            "GIT_NO_LAZY_FETCH=1"};
        // ssh finds its keys and hosts by these; a proxy is the machine's business.
        for (const char* passed :
             {"HOME",
              "SSH_AUTH_SOCK",
              "https_proxy",
              "HTTPS_PROXY",
              "http_proxy",
              "no_proxy",
              "NO_PROXY",
              "SSL_CERT_FILE",
              "SSL_CERT_DIR",
              "GIT_SSL_CAINFO"})
            if (const char* value = std::getenv(passed); value != nullptr)
                what.env.push_back(fmt::format("{}={}", passed, value));
        if (remote && !place_.token.empty() && place_.url.starts_with("http")) {
            // For this server alone, so that a redirect to another one gets nothing.
            const auto host = place_.url.find("://") + 3;
            const std::string origin =
                place_.url.substr(0, std::min(place_.url.find('/', host), place_.url.size()));
            what.env.push_back("GIT_CONFIG_COUNT=1");
            what.env.push_back(fmt::format("GIT_CONFIG_KEY_0=http.{}/.extraHeader", origin));
            what.env.push_back(
                "GIT_CONFIG_VALUE_0=Authorization: Basic " + base64("x-access-token:" + place_.token)
            );
        }
        what.env.insert(what.env.end(), more_env.begin(), more_env.end());
        if (give_up_ != nullptr) {
            if (give_up_->load()) return fail(errc::cancelled, fmt::format("git {} was given up", name));
            what.watch = [flag = give_up_](pid_t) {
                return flag->load() ? std::string{"given up"} : std::string{};
            };
        }
        auto end = run_program(what, cancel_);
        if (!end) return end;
        if (end->timed_out || end->cancelled || !end->stopped.empty()) {
            mend();
            if (!end->timed_out) return fail(errc::cancelled, fmt::format("git {} was cancelled", name));
            return fail(
                errc::timeout,
                fmt::format(
                    "git {} of {} did not end within {} s", name, place_.name, deadline_.count() / 1000
                )
            );
        }
        return end;
    }

    Error wrong(std::string_view name, const ProgramEnd& end) const {
        const std::string words = last_words(end.error, place_);
        return fail(
            code_of(words),
            fmt::format(
                "git {} of {}: {}",
                name,
                place_.name,
                words.empty() ? fmt::format("ended with {}", end.exit_code) : words
            )
        );
    }

    result<ProgramEnd> must(
        const std::vector<std::string>& arguments,
        const Where& where,
        bool remote = false,
        const std::vector<std::string>& more_env = {}
    ) const {
        auto end = git(arguments, where, remote, more_env);
        if (!end || end->exit_code == 0) return end;
        auto error = wrong(arguments[0], *end);
        // Of what is here alone, nothing is "unavailable".
        if (!remote && error.code == errc::unavailable) error.code = errc::io;
        return error;
    }

    result<void> fetch_into(const std::string& git_dir) const {
        auto done = must(
            {"fetch",
             "--quiet",
             "--prune",
             "--force",
             "--no-tags",
             "--no-recurse-submodules",
             "--no-write-fetch-head",
             "--end-of-options",
             place_.url,
             "+refs/heads/*:refs/heads/*",
             "+refs/tags/*:refs/tags/*"},
            {git_dir, {}},
            true
        );
        if (!done) return done.error();
        return {};
    }

    static result<void> known(const std::string& commit) {
        if (!is_id(commit))
            return fail(
                errc::invalid_input,
                fmt::format("'{}' is no whole id of a commit", heal::to_valid_utf8(commit.substr(0, 60)))
            );
        return {};
    }

    result<std::optional<Entry>> entry_of(const std::string& commit, const std::string& path) const {
        HEAL_TRY(known(commit));
        if (!is_path(path))
            return fail(errc::not_found, fmt::format("'{}' is no path in a repository", to_valid_utf8(path)));
        if (!large_) {
            auto listed = listing(commit);
            if (!listed) return listed.error();
            const auto& all = **listed;
            if (const auto found = all.find(path); found != all.end()) return std::optional{found->second};
            const auto below = all.lower_bound(path + "/");
            if (below != all.end() && below->first.starts_with(path + "/"))
                return std::optional{Entry{0040000, "tree", {}, 0}};
            return std::optional<Entry>{};
        }
        auto done = must({"ls-tree", "-z", "-l", "--full-tree", commit, "--", path}, mirror());
        if (!done) return done.error();
        std::string_view line = done->out;
        line = line.substr(0, std::min(line.find('\0'), line.size()));
        auto [named, entry] = parse_entry(line);
        if (named != path) return std::optional<Entry>{};
        return std::optional{std::move(entry)};
    }

    /// "100644 blob ID    SIZE\tPATH"
    static std::pair<std::string_view, Entry> parse_entry(std::string_view line) {
        const auto tab = line.find('\t');
        if (tab == std::string_view::npos) return {};
        Entry entry;
        std::from_chars(line.data(), line.data() + 6, entry.mode, 8);
        const auto head = line.substr(0, tab);
        const auto a = head.find(' '), b = head.find(' ', a + 1);
        entry.type = head.substr(a + 1, b - a - 1);
        entry.id = head.substr(b + 1, 40);
        const auto size = head.substr(head.rfind(' ') + 1);
        std::from_chars(size.data(), size.data() + size.size(), entry.size);
        return {line.substr(tab + 1), std::move(entry)};
    }

    using Listing = std::map<std::string, Entry, std::less<>>;

    /// All that is at a commit. What an id names never changes, so the last ones are kept, unless they are
    /// large.
    result<std::shared_ptr<const Listing>> listing(const std::string& commit) const {
        HEAL_TRY(known(commit));
        for (const auto& [of, kept] : listings_)
            if (of == commit) return kept;
        auto done = must({"ls-tree", "-r", "-z", "-l", "--full-tree", commit}, mirror());
        if (!done) return done.error();
        if (done->cut) return fail(errc::invalid_input, fmt::format("{} has too many files", place_.name));
        auto made = std::make_shared<Listing>();
        for (std::string_view rest = done->out; !rest.empty();) {
            const auto end = std::min(rest.find('\0'), rest.size());
            auto [path, entry] = parse_entry(rest.substr(0, end));
            if (!path.empty()) made->insert_or_assign(std::string{path}, std::move(entry));
            rest.remove_prefix(std::min(end + 1, rest.size()));
        }
        large_ = done->out.size() > kept_bytes / 2;
        if (!large_) {
            if (listings_.size() == 2) listings_.erase(listings_.begin());
            listings_.emplace_back(commit, made);
        }
        return std::shared_ptr<const Listing>{std::move(made)};
    }

    result<std::string> blob(const std::string& id) const {
        if (const auto found = blobs_.find(id); found != blobs_.end()) return found->second;
        auto done = must({"cat-file", "blob", id}, mirror());
        if (!done) return done.error();
        if (done->out.size() <= kept_bytes / 4) {
            if (blob_bytes_ + done->out.size() > kept_bytes) blobs_.clear(), blob_bytes_ = 0;
            blob_bytes_ += done->out.size();
            blobs_.emplace(id, done->out);
        }
        return std::move(done->out);
    }

    result<std::string> tree_of(const std::string& commit) const {
        auto done =
            must({"rev-parse", "--verify", "--quiet", "--end-of-options", commit + "^{tree}"}, mirror());
        if (!done) return done.error();
        return std::string{trim(done->out)};
    }

    result<std::string> head_of(const Where& where) const {
        // Of a detached worktree the file is the commit.
        const SystemFiles files;
        if (auto text = files.read(where.git_dir + "/HEAD", 4096); text && is_id(trim(*text)))
            return std::string{trim(*text)};
        auto done = must({"rev-parse", "--verify", "--quiet", "--end-of-options", "HEAD^{commit}"}, where);
        if (!done) return done.error();
        return std::string{trim(done->out)};
    }

    result<std::string> diff_of(const std::string& from, const std::string& to) const {
        auto done = must(
            {"diff",
             "--no-color",
             "--no-ext-diff",
             "--no-textconv",
             "--no-renames",
             "--full-index",
             "--diff-algorithm=histogram",
             "--submodule=short",
             "--src-prefix=a/",
             "--dst-prefix=b/",
             "--unified=3",
             from,
             to},
            mirror()
        );
        if (!done) return done.error();
        if (done->cut) return fail(errc::invalid_input, "the patch is larger than 64 MiB");
        return std::move(done->out);
    }

    result<std::string> commit_tree(
        const std::string& tree,
        const std::vector<std::string>& parents,
        const std::string& message,
        const std::string& author,
        Time at
    ) const {
        const auto open = author.find('<'), close = author.rfind('>');
        if (open == std::string::npos || close == std::string::npos || close < open ||
            author.find('\n') != std::string::npos)
            return fail(
                errc::invalid_input, fmt::format("'{}' is no author of the form 'name <address>'", author)
            );
        if (message.find('\0') != std::string::npos || trim(message).empty())
            return fail(errc::invalid_input, "a commit needs a message");
        const std::string name{trim(std::string_view{author}.substr(0, open))},
            mail = author.substr(open + 1, close - open - 1),
            date = fmt::format("@{} +0000", at.us / 1'000'000);
        std::vector<std::string> arguments{"commit-tree", "-m", std::string{trim(message)}};
        for (const auto& parent : parents) arguments.insert(arguments.end(), {"-p", parent});
        arguments.push_back(tree);
        auto done = must(
            arguments,
            mirror(),
            false,
            {"GIT_AUTHOR_NAME=" + name,
             "GIT_AUTHOR_EMAIL=" + mail,
             "GIT_AUTHOR_DATE=" + date,
             "GIT_COMMITTER_NAME=" + name,
             "GIT_COMMITTER_EMAIL=" + mail,
             "GIT_COMMITTER_DATE=" + date}
        );
        if (!done) return done.error();
        return std::string{trim(done->out)};
    }

    /// The tree of two commits brought together, in git's objects alone.
    result<std::string> merged(
        const std::string& ours, const std::string& theirs, const std::string& else_text
    ) const {
        auto done =
            git({"merge-tree", "--write-tree", "--name-only", "--no-messages", ours, theirs}, mirror());
        if (!done) return done.error();
        const auto lines = lines_of(done->out);
        if (done->exit_code == 0 && !lines.empty() && is_id(lines[0])) return std::string{lines[0]};
        if (done->exit_code != 1) return wrong("merge-tree", *done);
        std::string files;
        for (std::size_t i = 1; i < std::min<std::size_t>(lines.size(), 11); ++i)
            if (!lines[i].empty()) files += (files.empty() ? "" : ", ") + std::string{lines[i]};
        return fail(errc::conflict, fmt::format("{}: both changed {}", else_text, to_valid_utf8(files)));
    }

    result<void> move_branch(
        const std::string& branch, const std::string& commit, const std::string& expected
    ) {
        if (!is_ref(branch))
            return fail(
                errc::invalid_input, fmt::format("'{}' is no name of a branch", to_valid_utf8(branch))
            );
        if (!expected.empty()) HEAL_TRY(known(expected));
        const std::string ref = "refs/heads/" + branch;
        const auto elsewhere = [&](const std::string& at) {
            return fail(
                errc::conflict,
                fmt::format(
                    "the branch {} is at {} and not {}",
                    branch,
                    at.empty() ? "nothing" : at.substr(0, 12),
                    expected.empty() ? "nothing" : "at " + expected.substr(0, 12)
                )
            );
        };
        auto at = remote_head(branch);
        if (!at) return at.error();
        if (*at == commit) return {};
        if (*at != expected) return elsewhere(*at);
        auto done =
            git({"push",
                 "--quiet",
                 "--porcelain",
                 "--no-verify",
                 "--no-follow-tags",
                 "--no-recurse-submodules",
                 fmt::format("--force-with-lease={}:{}", ref, expected),
                 "--end-of-options",
                 place_.url,
                 commit + ":" + ref},
                mirror(),
                true);
        if (done && done->exit_code == 0) return {};
        // It may have got there all the same, or somebody else was faster.
        auto after = remote_head(branch);
        if (after && *after == commit) return {};
        if (after && *after != expected) return elsewhere(*after);
        if (!done) return done.error();
        auto error = wrong("push", *done);
        if (const std::string out = lower(done->out); out.find("[remote rejected]") != std::string::npos) {
            error.code = errc::denied;
            error.text += "; " + last_words(done->out, place_);
        }
        return error;
    }

    RepositoryPlace place_;
    std::string folder_, mirror_, git_, config_;
    std::chrono::milliseconds deadline_;
    const std::atomic<bool>& cancel_;
    const std::atomic<bool>* give_up_ = nullptr;
    // What was read of late: most of a run's questions are about one commit.
    mutable std::vector<std::pair<std::string, std::shared_ptr<const Listing>>> listings_;
    mutable std::map<std::string, std::string, std::less<>> blobs_;
    mutable std::size_t blob_bytes_ = 0;
    mutable bool large_ = false;  ///< its last listing was: single paths are asked for
};

}  // namespace

result<std::unique_ptr<Repository>> open_repository(
    const RepositoryPlace& place,
    const std::string& folder,
    std::chrono::milliseconds deadline,
    const std::atomic<bool>& cancel
) {
    if (place.name.empty() || place.name.size() > 100 || place.name.front() == '.' ||
        place.name.front() == '-' ||
        place.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_.-") != std::string::npos)
        return fail(
            errc::invalid_input,
            fmt::format(
                "'{}' is no name of a repository; allowed are a-z, 0-9, '_', '.' and '-'",
                heal::to_valid_utf8(place.name)
            )
        );
    if (!is_url(place.url))
        return fail(
            errc::invalid_input,
            fmt::format(
                "{}: the url must be an absolute path, file://, https://, ssh:// or user@host:path",
                place.name
            )
        );
    if (!is_ref(place.branch))
        return fail(
            errc::invalid_input,
            fmt::format("{}: '{}' is no name of a branch", place.name, heal::to_valid_utf8(place.branch))
        );
    auto repository = std::make_unique<GitRepository>(place, folder, deadline, cancel);
    HEAL_TRY(repository->open());
    return std::unique_ptr<Repository>{std::move(repository)};
}

}  // namespace heal::vcs
