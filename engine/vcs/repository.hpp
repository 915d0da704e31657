// One repository under heald's hands: a bare mirror in the state directory, worktrees for trials, commits,
// pushes. By the git program (hooks off, no prompts, no configuration of the user's or of the repository's
// that could run anything).
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace heal::vcs {

struct RepositoryPlace {
    std::string name;    ///< [a-z0-9_.-]+; the folder of the mirror
    std::string url;     ///< path, file://, https://, ssh
    std::string branch;  ///< what is deployed, and what a fix goes to
    std::string token;   ///< for https; handed over by the environment, never on a command line; "": none
};

/// What a worktree has changed, as git took it down; later changes of the worktree are not in it.
struct Staged {
    std::string head;   ///< the commit that it began with
    std::string tree;   ///< git's id of all its files now
    std::string patch;  ///< the canonical patch (added files too), without colours, renames or binary parts;
                        ///< "": nothing
};

struct Commit {
    std::string message;  ///< first line ≤ 72 characters, then a blank line and the body
    std::string author;   ///< "heald <heald@host>"
    Time at;              ///< of author and committer: the same commit twice has the same id
};

struct BlameLine {
    std::string commit, author, summary;
    Time at;
    unsigned first_line = 0, last_line = 0;
};

/// All calls block, with the deadline given at opening. @thread one at a time
class Repository {
public:
    virtual ~Repository() = default;
    /// Brings the mirror up to date. errc::unavailable, errc::denied (credentials).
    virtual result<void> fetch() = 0;
    /// The commit that a branch, tag, release or (short) id names; a release also as "vREV" or "release-REV".
    /// errc::not_found.
    virtual result<std::string> resolve(const std::string& revision) = 0;
    /// A detached worktree without remote; a folder that is there already is made anew.
    virtual result<void> add_worktree(const std::string& folder, const std::string& commit) = 0;
    /// Also when it is half there; nothing of it remains.
    virtual result<void> remove_worktree(const std::string& folder) = 0;
    /// Content at a commit. errc::not_found; errc::invalid_input larger than 1 MiB or a symbolic link.
    virtual result<std::string> show(const std::string& commit, const std::string& path) = 0;
    /// Paths of regular files at a commit, sorted.
    virtual result<std::vector<std::string>> files(const std::string& commit) = 0;
    /// git's mode of a path at a commit (0100644 …), 0 when it is not there.
    virtual result<unsigned> mode(const std::string& commit, const std::string& path) = 0;
    virtual result<std::vector<BlameLine>> blame(
        const std::string& commit, const std::string& path, unsigned first_line, unsigned last_line
    ) = 0;
    virtual result<Staged> stage(const std::string& worktree) = 0;
    /// The patch between two commits, of the same form.
    virtual result<std::string> diff(const std::string& from, const std::string& to) = 0;
    /// The id of a commit of what was staged, on top of its head; on no branch yet. errc::conflict: nothing
    /// has changed.
    virtual result<std::string> commit(const Staged& staged, const Commit& what) = 0;
    /// A commit on top of `onto` that undoes `commit`; `onto` when it is undone there already. errc::conflict
    /// when that does not go without a person.
    virtual result<std::string> revert(
        const std::string& commit,
        const std::string& onto,
        const std::string& message,
        const std::string& author,
        Time at
    ) = 0;
    /// `commit` brought to `onto`: itself when it is on top of it already, else a merge commit.
    /// errc::conflict.
    virtual result<std::string> merge(
        const std::string& commit,
        const std::string& onto,
        const std::string& message,
        const std::string& author,
        Time at
    ) = 0;
    /// What a branch is at the remote right now; "" when it is not there.
    virtual result<std::string> remote_head(const std::string& branch) = 0;
    /// Moves a remote branch from `expected` ("" : it must not be there) to `commit`. True also when it is
    /// there already. errc::conflict: it is at something else.
    virtual result<void> push(
        const std::string& branch, const std::string& commit, const std::string& expected
    ) = 0;
    /// Gone afterwards, if it still is at `expected`.
    virtual result<void> remove_branch(const std::string& branch, const std::string& expected) = 0;
    /// True when `commit` is in the history of `of`.
    virtual result<bool> contains(const std::string& of, const std::string& commit) = 0;

    /// From now on each command also ends when this is set; it outlives them. nullptr: none.
    virtual void give_up_with(const std::atomic<bool>* flag) = 0;
};

/// Clones the mirror into `folder`/NAME.git when it is missing. errc::unavailable, errc::denied,
/// errc::not_found git itself.
/// @param deadline of each git command; @param cancel ends the one that runs
result<std::unique_ptr<Repository>> open_repository(
    const RepositoryPlace& place,
    const std::string& folder,
    std::chrono::milliseconds deadline,
    const std::atomic<bool>& cancel
);

}  // namespace heal::vcs
