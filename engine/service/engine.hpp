// What the daemon does, behind one face: hears, decides, heals, answers questions. HTTP and main() see only
// this.
//
// Threads: the event loop's, except where said.
#pragma once

#include "base/files.hpp"
#include "service/feed.hpp"
#include "service/metrics.hpp"
#include "service/settings.hpp"
#include "store/bug_store.hpp"
#include "store/queries.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>

#include <memory>
#include <string>

namespace heal {

struct IngestAnswer {
    std::uint64_t accepted = 0, below_level = 0, malformed = 0, self = 0;
    bool duplicate = false;
    json::array errors;  ///< {"line", "text"}, the first 20
};

class Analyst;
class Approvals;
class Brain;
class Trust;

class Engine {
public:
    virtual ~Engine() = default;

    /// Opens the store, recovers, loads strategies, starts following files. Ready afterwards.
    virtual boost::asio::awaitable<result<void>> start() = 0;
    /// Stops accepting, lets attempts end within `grace`, stops children, flushes the store.
    virtual boost::asio::awaitable<void> stop(std::chrono::milliseconds grace) = 0;

    /// Reads the configuration again. On failure the old one stays and the faults come back, one a line.
    virtual result<void> reload(const std::string& actor) = 0;

    /// One POST body. `encoding`: "", "identity" or "gzip". `key`: Idempotency-Key or "". Resumes after the
    /// commit. errc::invalid_input, errc::overloaded (answer 429), errc::unavailable (503).
    virtual boost::asio::awaitable<result<IngestAnswer>> ingest(
        std::string body, std::string content_type, std::string encoding, std::string key, std::string service
    ) = 0;
    virtual bool has_room() const = 0;

    virtual boost::asio::awaitable<result<json::object>> query(
        std::function<result<json::object>(Database&)> job
    ) = 0;

    virtual json::array strategies() const = 0;
    virtual result<json::object> strategy(const std::string& name) const = 0;
    /// Body: any of priority, enabled, autonomy, floor. Durable and audited before it returns.
    virtual boost::asio::awaitable<result<json::object>> set_strategy(
        std::string name, json::object body, std::string actor
    ) = 0;
    /// Joins a kind of error to another, or (into == id) keeps it apart for ever; remembered, audited, wins
    /// over suggestions.
    virtual boost::asio::awaitable<result<json::object>> decide_fingerprint(
        std::string id, std::string into, std::string reason, std::string actor
    ) = 0;

    /// One change of a bug's life; durable and audited before it returns. errc::not_found, errc::conflict,
    /// errc::invalid_input.
    virtual boost::asio::awaitable<result<json::object>> change_bug(
        std::string id, sql::BugChange change
    ) = 0;

    virtual result<void> release(const std::string& strategy_or_path, const std::string& actor) = 0;

    /// A person's word on the strategy that waits in an event; answers with the request (core/approval.hpp).
    /// Body: any of strategy, reason, digest (what was shown), break_glass. Where another node heals the
    /// event, it gets the vote and {"forwarded": true} is the answer. errc::not_found, errc::conflict,
    /// errc::invalid_input.
    virtual boost::asio::awaitable<result<json::object>> vote(
        std::string event, bool yes, json::object body, std::string actor
    ) = 0;
    /// The kill switch; survives restarts.
    virtual boost::asio::awaitable<result<void>> pause(bool on, std::string reason, std::string actor) = 0;

    /// Holds, guards, why: what people ask of the decisions. Null until the store is
    /// open.
    virtual Brain* brain() = 0;
    /// What people are asked and what they answered. Null until the store is open.
    virtual Approvals* approvals() = 0;
    /// Finds out what bugs are about. Null until the store is open.
    virtual Analyst* analyst() = 0;
    /// The ladder of trust. Null until the store is open.
    virtual Trust* trust() = 0;
    /// {"items": [{trigger, kind, matched, fired, cleared, groups, forgotten}]}
    virtual json::object triggers() const = 0;

    /// `what`: run (resumes when it has ended), pause or resume. Audited. errc::not_found, errc::conflict.
    virtual boost::asio::awaitable<result<json::object>> job(
        std::string name, std::string what, std::string actor
    ) = 0;

    virtual json::object status() const = 0;
    /// "" when ready, else why not.
    virtual std::string not_ready() const = 0;
    virtual std::string metrics_text() = 0;
    virtual Metrics& metrics() = 0;
    virtual Feed& feed() = 0;
    virtual const Clock& clock() const = 0;
    virtual const Settings& settings() const = 0;
};

std::unique_ptr<Engine> create_engine(
    boost::asio::io_context& io, const Clock& clock, Files& files, Settings settings, std::string config_path
);

}  // namespace heal
