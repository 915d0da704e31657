// Carries suggestions through the patch pipeline (core/patch_machine.hpp): tries each in the sandbox, ranks
// by the evidence gathered there, asks people, lands, deploys, watches, takes back. A run is a row of the
// store, written before each step, so that it goes on after a crash where it stood. One coroutine per run;
// its work on a bounded pool.
//
// Threads: the event loop's.
#pragma once

#include "base/error.hpp"
#include "base/json.hpp"
#include "core/approval.hpp"
#include "store/fix_store.hpp"

#include <boost/asio/awaitable.hpp>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace heal {

class Analyst;
class RepositoryDesk;
struct Shared;
namespace net {
class HttpClient;
}

class Fixer {
public:
    virtual ~Fixer() = default;

    /// Takes up every run of this node that has not ended, and those of nodes that are gone. At the start,
    /// and once this node is a member of its cluster again.
    virtual boost::asio::awaitable<result<void>> recover() = 0;
    /// Goes on with runs that another node has left; they are this node's already
    /// (sql::take_over_patch_runs).
    virtual void take_up(std::vector<sql::PatchRun> runs) = 0;
    /// Names of the repositories whose runs this node can go on with.
    virtual std::vector<std::string> repositories() const = 0;
    /// Lets go of every run without a word: another node has them. Steps under way are given up.
    virtual boost::asio::awaitable<void> abandon() = 0;

    /// Patterns that fixed this kind of error before, tried before any model is asked. True: one of them is
    /// being tried.
    virtual boost::asio::awaitable<result<bool>> try_patterns(std::string bug) = 0;
    /// A bug has suggestions: tries them as far as the autonomy of its repository allows.
    virtual boost::asio::awaitable<result<void>> suggested(std::string bug, std::string actor) = 0;

    /// Starts a run by hand. `suggestion` "": the best that stands. Answer: the run. errc::not_found;
    /// errc::conflict: nothing to apply, no repository for the service, or it is being tried already.
    virtual boost::asio::awaitable<result<json::object>> apply(
        std::string bug, std::string suggestion, std::string actor
    ) = 0;

    /// A person's word on the run of a bug (or on a run, by its id) that waits for one; answers with the
    /// request (core/approval.hpp). Body: any of reason, digest, break_glass. When another node runs it, that
    /// one gets the vote and {"forwarded": true} is the answer. errc::not_found, errc::conflict,
    /// errc::invalid_input.
    virtual boost::asio::awaitable<result<json::object>> vote(
        std::string bug_or_run, bool yes, json::object body, std::string actor
    ) = 0;
    /// Ends a run that is not merged yet, also one of another node. errc::not_found, errc::conflict.
    virtual boost::asio::awaitable<result<void>> cancel(
        std::string run, std::string reason, std::string actor
    ) = 0;

    /// An error was heard. What was deployed against it may not have held. Cheap when nothing is watched.
    virtual void heard(
        const std::string& fingerprint, const std::string& environment, const std::string& release, Time at
    ) = 0;

    /// The kill switch. While it is on (and within holds, windows and freezes that concern the service)
    /// nothing lands, is deployed or taken back; what is under way is given up within a second. Trials in the
    /// sandbox go on.
    virtual void set_paused(std::string reason) = 0;

    /// What a request of kind "patch" is bound to now; nullopt: it waits for nobody any more.
    virtual std::optional<json::object> binding(const Approval& approval) = 0;
    virtual void approval_changed(const Approval& approval) = 0;

    /// The job code_scan: places of known patterns in all repositories; returns how many. What was found
    /// stands in engine_state "code_scan" as JSON.
    virtual boost::asio::awaitable<result<std::int64_t>> scan_code() = 0;

    virtual std::size_t open_count() const = 0;
    /// Takes on nothing new; steps under way are given up, the next start takes them up.
    virtual boost::asio::awaitable<void> stop() = 0;
};

/// @param folder  of worktrees
/// @param desk, http  outlive it
std::unique_ptr<Fixer> create_fixer(
    Shared& shared, Analyst& analyst, RepositoryDesk& desk, net::HttpClient& http, std::string folder
);

}  // namespace heal
