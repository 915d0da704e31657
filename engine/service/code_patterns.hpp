// Code patterns: what a fix that held changed, kept as search and replacement. Later bugs of its kind try it
// before any model is asked, and a scan finds the same place elsewhere.
//
// Threads: the event loop's; git is asked on the pool.
#pragma once

#include "base/error.hpp"
#include "base/json.hpp"
#include "service/patch_work.hpp"
#include "store/fix_store.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/thread_pool.hpp>

#include <string>

namespace heal {

class RepositoryDesk;
struct Shared;

class CodePatterns {
public:
    CodePatterns(Shared& shared, RepositoryDesk& desk, boost::asio::thread_pool& pool)
        : s_(shared), desk_(desk), pool_(pool) {}

    struct Suggested {
        std::string suggestion;  ///< id of the one that was made; "": none fits
        std::string pattern;     ///< id of what it was made from
        bool under_way = false;  ///< one is being tried for this bug already
    };
    /// Looks for a pattern of the bug's kind that fits where its trace points, and makes a suggestion of it.
    /// What was tried for this bug before is left out. `bug`: as sql::show_bug() tells.
    boost::asio::awaitable<result<Suggested>> suggest(json::object bug, RepositorySettings repository);

    /// Mines the pattern of a run that held; a change of more than one file has none.
    boost::asio::awaitable<void> learn(RepositorySettings repository, sql::PatchRun row, PatchFacts facts);

    /// Every place of every repository that a pattern fits, kept as the state "code_scan". Their number.
    /// errc::unavailable: no repository could be read.
    boost::asio::awaitable<result<std::int64_t>> scan();

private:
    Shared& s_;
    RepositoryDesk& desk_;
    boost::asio::thread_pool& pool_;
};

}  // namespace heal
