// Finds out what a bug is about (M5): stored answers first, then patterns that fixed its kind before, then
// the configured models within their budgets, then rules. Writes analyses and suggestions; changes no code.
// What a model says never decides what runs.
//
// Threads: the event loop's; models and git are waited for on a pool.
#pragma once

#include "base/error.hpp"
#include "base/json.hpp"
#include "core/incident.hpp"

#include <boost/asio/awaitable.hpp>

#include <functional>
#include <memory>
#include <string>

namespace heal {

class CodeReader;
struct Shared;
namespace net {
class HttpClient;
}

struct AnalysisRequest {
    std::string bug;  ///< id or code
    std::string actor;
    bool fresh = false;    ///< ask again even if an answer is stored
    std::string provider;  ///< "" : as configured
};

class Analyst {
public:
    virtual ~Analyst() = default;

    /// Analyses one bug and stores what was found; the bug is 'analyzed' or 'fix_suggested' afterwards. Two
    /// calls for one bug at a time share one analysis. Answer: {bug_id, bug_code, analysis_id, source,
    /// provider, model, tokens, cost, root_cause, …, suggestions: […]}. errc::not_found the bug or the named
    /// provider; errc::conflict the bug is fixed, rejected, closed or merged, or a fix of it is under way;
    /// errc::cancelled. Never fails for want of a model: rules answer then.
    virtual boost::asio::awaitable<result<json::object>> analyze(AnalysisRequest request) = 0;

    /// Asks the model of a suggestion to mend its edits, which did not apply for the reason `complaint`
    /// (vcs/edit.hpp). Stores and returns the new text of edits. errc::not_found; errc::denied budget, or it
    /// came from no model; errc::unavailable.
    virtual boost::asio::awaitable<result<std::string>> mend(
        std::string suggestion, std::string complaint
    ) = 0;

    /// The job ai_fix_check: bugs that need an analysis, oldest first, as many as budgets allow. Returns how
    /// many were analysed.
    virtual boost::asio::awaitable<result<std::int64_t>> look_for_work() = 0;

    /// A bug was opened, durably: one of P0 and P1 is analysed at once when a provider is configured, in a
    /// bounded queue (more of them are counted and left to look_for_work()).
    virtual void opened(const std::string& bug, Severity severity) = 0;

    /// Asked before any model, unless somebody wants a fresh answer: true when something that fixed this kind
    /// of bug before is being tried. The analysis is then {"source": "pattern"} and costs nothing.
    virtual void before_models(std::function<boost::asio::awaitable<result<bool>>(std::string bug)> ask) = 0;

    /// Told of each bug whose analysis brought suggestions, after it is stored and before analyze() answers:
    /// who asked finds what is being tried.
    virtual void on_suggested(std::function<boost::asio::awaitable<result<void>>(std::string bug)> told) = 0;

    /// Tokens, cost, refusals, breakers by provider today; for GET /api/v1/ai.
    virtual boost::asio::awaitable<result<json::object>> figures() = 0;

    virtual boost::asio::awaitable<void> stop() = 0;
};

/// @param http  outlives it
std::unique_ptr<Analyst> create_analyst(
    Shared& shared, std::unique_ptr<CodeReader> code, net::HttpClient& http
);

}  // namespace heal
