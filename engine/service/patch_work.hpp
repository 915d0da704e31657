// The steps of a patch run that touch code: worktrees, edits, gates, builds, tests, commits, requests,
// deployments. Blocking; one call per step; each may be made again after a crash and then finds what it did
// before. Decides nothing: core/patch_machine.hpp does.
#pragma once

#include "base/clock.hpp"
#include "core/patch_machine.hpp"
#include "net/http_client.hpp"
#include "service/repositories.hpp"
#include "service/repository_desk.hpp"
#include "vcs/sandbox.hpp"

#include <atomic>
#include <map>
#include <string>

namespace heal {

/// What the steps of a run remember, besides the machine; kept with it.
struct PatchFacts {
    std::string bug_code, fingerprint, release;   ///< what it is about
    std::string title, description, edits, file;  ///< the suggestion; `file`: for edits that name none
    std::string revision, patch, patch_hash;
    std::string branch, commit;  ///< of the fix
    std::string base, merged;    ///< the deployed branch before and after
    std::string revert;          ///< the commit that takes it back
    std::int64_t request = 0;    ///< number of the pull or merge request
    std::string request_url;
    std::string approved_by;      ///< who said yes, for the commit and the request
    std::string request_body;     ///< Markdown, for the forge
    Time made_at;                 ///< of the commits: the same one each time
    json::array files;            ///< paths that it changes
    json::array added_tests;      ///< of these: tests that it brings along
    std::int64_t lines = 0;       ///< added and removed
    bool unattended = false;      ///< full autonomy: nobody was asked
    bool fresh_trees = false;     ///< the worktrees hold nothing but the revision
    bool keep_branch = false;     ///< the pushed branch is the result
    bool from_elsewhere = false;  ///< taken over from another node a moment ago
    json::object save() const;
    static PatchFacts load(const json::object& saved);
};

/// What the work needs of the world.
struct PatchTools {
    RepositoryDesk& repositories;
    vcs::Sandbox& sandbox;  ///< for builds and tests
    vcs::Sandbox& plain;    ///< for deployments: not confined, the operator's own commands
    net::HttpClient& http;
    std::string folder;               ///< of the worktrees
    const std::atomic<bool>& cancel;  ///< set: commands and git end
};

class PatchWork {
public:
    PatchWork(const RepositorySettings& settings, PatchTools& tools, std::string run, PatchFacts& facts)
        : settings_(settings), tools_(tools), run_(std::move(run)), facts_(facts) {}

    /// Any step but review and watch. Never throws; what is at fault is in the result.
    PatchResult perform(PatchStep step);
    /// Of the last step: time spent outside of heald, in git's network, builds, tests, forges and
    /// deployments.
    Duration outside() const { return outside_; }

private:
    PatchResult prepare();
    PatchResult gate();
    PatchResult reproduce(bool again);
    PatchResult build();
    PatchResult test();
    PatchResult commit();
    PatchResult push();
    PatchResult request();
    PatchResult merge();
    PatchResult deploy(const std::vector<CommandSettings>& commands, const std::string& commit);
    PatchResult revert();
    PatchResult finish();

    std::string place(const char* what) const;
    result<std::map<std::string, std::string>> new_files(vcs::Repository& repository) const;
    result<void> write_into(const std::string& tree, const std::map<std::string, std::string>& files) const;
    struct Ran {
        bool all_ok = true;
        std::string first_bad;  ///< "unit: exit 1"
        json::array evidence;
    };
    result<Ran> run(
        const std::vector<CommandSettings>& commands, const std::string& folder, vcs::Sandbox& where
    );
    result<Ran> build_and_test(const std::string& folder, bool only_reproduce, bool& ret_built);
    std::string message() const;
    template <class F>
    auto away(F&& f);
    /// With the repository, until the run is given up.
    template <class F>
    auto with(F&& f);

    const RepositorySettings& settings_;
    PatchTools& tools_;
    std::string run_;
    PatchFacts& facts_;
    Duration outside_{0};
    std::map<std::string, std::string> env_;
};

}  // namespace heal
