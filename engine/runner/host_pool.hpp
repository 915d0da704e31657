// The children at work: strategy hosts (at most N over all artifacts, kept warm, reused) and performers of effects (one per running
// call, one always ready). Starts them, hands them out, retires them; each is driven by its ChildMachine.
//
// Threads: that of the io_context.
#pragma once

#include "base/clock.hpp"
#include "core/supervisor_machine.hpp"
#include "runner/artifact_file.hpp"
#include "runner/child_process.hpp"
#include "runner/plugins.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace heal {

/// One build of one artifact, as long as anybody uses it: a replaced one lives on until its last call has ended.
struct ArtifactBuild {
    ArtifactFile file;
    json::object libraries;  ///< scripts only
    std::vector<StrategyInfo> strategies;
    ArtifactMachine supervisor;
    std::string last_output;
    bool withdrawn = false;  ///< replaced or deleted: no new call
};
using ArtifactPtr = std::shared_ptr<ArtifactBuild>;

/// One child and its machine. Used by one coroutine at a time.
class Host : public std::enable_shared_from_this<Host> {
public:
    Host(boost::asio::io_context& context, const Clock& clock, ChildTimes times);
    ~Host();

    result<void> spawn(const std::string& binary, const std::vector<std::string>& arguments, const SharedFd& artifact);
    /// The next message; nothing when the child is gone (why() says how). One waiter at a time.
    boost::asio::awaitable<std::optional<json::object>> next();
    result<void> send(const json::object& message) { return child_->send(message); }

    void ready() { perform(machine_.ready(clock_.steady())); }
    /// @param timeout  until the deadline        @param on_cancel  called once when the machine cancels the call
    std::int64_t begin_call(std::chrono::milliseconds timeout, std::function<void()> on_cancel);
    void answered();
    void cancel() { perform(machine_.cancel(clock_.steady())); }
    void broken(const std::string& why);
    void retire() { perform(machine_.retire(clock_.steady())); }

    const ChildMachine& machine() const { return machine_; }
    bool over() const { return ended_; }
    /// "was killed by signal 11 (Segmentation fault)"; what heald did to it comes first.
    std::string why() const;
    std::string output() const { return child_ ? child_->output() : std::string{}; }
    int pid() const { return child_ ? child_->pid() : -1; }
    Duration time_left() const;

    ArtifactPtr artifact;      ///< null: a performer
    std::function<void()> on_gone;
    unsigned calls = 0;        ///< begun in its life
    bool taken = false;        ///< performers: lent to a call

private:
    void perform(const std::vector<ChildAction>& actions);
    void arm();
    void wake();

    boost::asio::io_context& context_;
    const Clock& clock_;
    ChildMachine machine_;
    std::shared_ptr<ChildProcess> child_;
    boost::asio::steady_timer timer_, signal_;
    Duration armed_{-1}, deadline_{0};
    std::deque<json::object> messages_;
    bool ended_ = false;
    bool signalled_ = false;  ///< by its machine, before it broke anything itself
    bool killed_ = false;     ///< SIGKILL was sent
    ChildExit exit_;
    std::int64_t call_id_ = 0;
    std::function<void()> on_cancel_;
    std::string broken_;
};
using HostPtr = std::shared_ptr<Host>;

class HostPool {
public:
    HostPool(boost::asio::io_context& context, const RunnerSettings& settings, const Clock& clock);
    ~HostPool();

    struct Started {
        HostPtr host;
        json::value facts;
    };
    /// A fresh host, described and idle. errc::invalid_input: the artifact was refused, with the reason; errc::timeout, errc::unavailable:
    /// the host died or hung (its last words are in artifact->last_output); errc::io: nothing can be started.
    boost::asio::awaitable<result<Started>> start(ArtifactPtr artifact);
    /// An idle host of the artifact, or a fresh one; waits for a place at most `max_wait`. errc::overloaded besides those of start().
    boost::asio::awaitable<result<HostPtr>> acquire(ArtifactPtr artifact, std::chrono::milliseconds max_wait);
    /// Gives one back: kept warm, or ended when its artifact was withdrawn or it has served long enough.
    void release(const HostPtr& host);

    boost::asio::awaitable<result<HostPtr>> acquire_performer();
    void release_performer(const HostPtr& performer);
    /// Has one performer ready, so that a first effect does not wait for its start.
    boost::asio::awaitable<void> warm_up();

    /// Ends the idle hosts of an artifact; busy ones end with their call.
    void retire(const ArtifactPtr& artifact);
    std::vector<int> children_of(const ArtifactPtr& artifact) const;
    std::size_t size() const { return hosts_.size() + performers_.size(); }
    /// Cancels every call, ends every child, resumes when all are gone.
    boost::asio::awaitable<void> stop();

private:
    HostPtr add(std::list<HostPtr>& to, ArtifactPtr artifact);
    boost::asio::awaitable<bool> wait_for_change(std::chrono::steady_clock::time_point until);
    void notify();
    ChildTimes times(bool warm) const;
    std::vector<std::string> arguments_of(const ArtifactBuild& artifact);

    boost::asio::io_context& context_;
    const RunnerSettings& settings_;
    const Clock& clock_;
    std::list<HostPtr> hosts_, performers_;
    std::list<boost::asio::steady_timer*> waiting_;
    std::uint32_t next_user_ = 0;
    bool stopping_ = false;
};

}  // namespace heal
