#include "runner/host_pool.hpp"

#include "base/log.hpp"
#include "base/tasks.hpp"

#include <boost/asio/use_awaitable.hpp>

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

namespace heal {

namespace asio = boost::asio;
using asio::awaitable;
using asio::use_awaitable;

// ---- Host ----

Host::Host(asio::io_context& context, const Clock& clock, ChildTimes times)
    : context_(context), clock_(clock), machine_(times), timer_(context), signal_(context) {}

Host::~Host() {
    if (child_) child_->forget();
}

result<void> Host::spawn(
    const std::string& binary, const std::vector<std::string>& arguments, const SharedFd& fd
) {
    ChildProcess::Callbacks callbacks;
    callbacks.message = [weak = weak_from_this()](json::object message) {
        if (const auto self = weak.lock()) {
            // One call's worth of messages; a child that sends more than anybody takes is out of order.
            if (self->messages_.size() >= 4096)
                return self->broken("sent more than 4096 messages that nobody asked for");
            self->messages_.push_back(std::move(message));
            self->wake();
        }
    };
    callbacks.broken = [weak = weak_from_this()](const std::string& why) {
        if (const auto self = weak.lock()) self->broken(why);
    };
    callbacks.ended = [weak = weak_from_this()](ChildExit exit) {
        if (const auto self = weak.lock()) {
            self->ended_ = true;
            self->exit_ = exit;
            self->machine_.exited();
            self->arm();
            self->wake();
            if (const auto gone = std::exchange(self->on_gone, nullptr)) gone();
        }
    };
    const bool holds_a_strategy = fd.get() >= 0;
    auto child = ChildProcess::spawn(context_, binary, arguments, fd, holds_a_strategy, std::move(callbacks));
    if (!child) return std::move(child).error();
    child_ = std::move(*child);
    perform(machine_.spawned(clock_.steady()));
    return {};
}

awaitable<std::optional<json::object>> Host::next() {
    const auto self = shared_from_this();
    while (messages_.empty() && !ended_) {
        signal_.expires_at(asio::steady_timer::time_point::max());
        co_await due(signal_);
    }
    if (messages_.empty()) co_return std::nullopt;
    auto message = std::move(messages_.front());
    messages_.pop_front();
    co_return message;
}

void Host::wake() { signal_.cancel(); }

std::int64_t Host::begin_call(std::chrono::milliseconds timeout, std::function<void()> on_cancel) {
    messages_.clear();
    on_cancel_ = std::move(on_cancel);
    const Duration now = clock_.steady();
    deadline_ = now + timeout;
    ++calls;
    perform(machine_.call(now, deadline_));
    return ++call_id_;
}

void Host::answered() {
    on_cancel_ = nullptr;
    perform(machine_.answered(clock_.steady()));
}

void Host::broken(const std::string& why) {
    if (ended_) return;
    if (broken_.empty() && !signalled_) broken_ = why;
    perform(machine_.broken(clock_.steady()));
}

Duration Host::time_left() const { return std::max(Duration{0}, deadline_ - clock_.steady()); }

std::string Host::why() const {
    if (signalled_) {
        return machine_.cancel_asked()      ? "did not heed the request to stop and was killed"
               : machine_.deadline_passed() ? "did not heed its deadline and was killed"
                                            : "did not answer in time and was killed";
    }
    if (!ended_) return broken_.empty() ? "lives" : broken_;
    // The kill that followed a broken connection is no news; what it died of by itself is.
    const bool by_us = killed_ && exit_.by_signal && exit_.code == SIGKILL;
    if (by_us) return broken_ + " and was killed";
    return broken_.empty() || broken_ == closed_words ? exit_.words() : broken_ + " and " + exit_.words();
}

void Host::perform(const std::vector<ChildAction>& actions) {
    for (const ChildAction action : actions) {
        switch (action) {
            case ChildAction::send_cancel:
                if (child_) static_cast<void>(child_->send({{"type", "cancel"}, {"id", call_id_}}));
                if (const auto tell = std::exchange(on_cancel_, nullptr)) tell();
                break;
            case ChildAction::terminate:
                signalled_ = signalled_ || broken_.empty();
                if (child_) child_->signal(SIGTERM);
                break;
            case ChildAction::kill:
                killed_ = true;
                signalled_ = signalled_ || broken_.empty();
                if (child_) child_->signal(SIGKILL);
                break;
            case ChildAction::close:
                if (child_) child_->close();
                break;
        }
    }
    arm();
}

void Host::arm() {
    const Duration at = machine_.timer();
    if (at == armed_) return;
    armed_ = at;
    if (at.count() < 0) {
        timer_.cancel();
        return;
    }
    timer_.expires_after(std::max(Duration{0}, at - clock_.steady()));
    timer_.async_wait([weak = weak_from_this()](boost::system::error_code ec) {
        const auto self = weak.lock();
        if (ec || !self) return;
        self->armed_ = Duration{-1};
        self->perform(self->machine_.tick(self->clock_.steady()));
    });
}

// ---- HostPool ----

HostPool::HostPool(asio::io_context& context, const RunnerSettings& settings, const Clock& clock)
    : context_(context), settings_(settings), clock_(clock) {}

HostPool::~HostPool() {
    for (auto* list : {&hosts_, &performers_}) {
        for (const HostPtr& host : *list) host->on_gone = nullptr;
    }
}

ChildTimes HostPool::times(bool warm) const {
    ChildTimes t;
    t.start = settings_.start_timeout;
    t.cancel_grace = settings_.cancel_grace;
    t.term_grace = settings_.term_grace;
    t.deadline_cancel_grace = settings_.deadline_cancel_grace;
    t.deadline_term_grace = settings_.deadline_term_grace;
    t.warm = warm ? Duration{settings_.warm_for} : Duration{0};
    return t;
}

HostPtr HostPool::add(std::list<HostPtr>& to, ArtifactPtr artifact) {
    auto host = std::make_shared<Host>(context_, clock_, times(artifact != nullptr));
    host->artifact = std::move(artifact);
    to.push_back(host);
    host->on_gone = [this, &to, raw = host.get()] {
        to.remove_if([&](const HostPtr& one) { return one.get() == raw; });
        notify();
    };
    return host;
}

std::vector<std::string> HostPool::arguments_of(const ArtifactBuild& artifact) {
    const std::string name = artifact.file.path.substr(artifact.file.path.find_last_of('/') + 1);
    std::vector<std::string> out{
        artifact.file.kind == "lua" ? "--script" : "--plugin",
        name,
        "--memory",
        std::to_string(settings_.memory_bytes),
        "--files",
        std::to_string(settings_.open_files),
        "--processes",
        std::to_string(settings_.processes),
        "--cpu",
        std::to_string(settings_.cpu_seconds),
        "--lua-memory",
        std::to_string(settings_.lua_memory_bytes)};
    if (settings_.first_user_id != 0 && ::geteuid() == 0) {
        // Round and round in 2^20 ids: far more than children live at a time.
        out.emplace_back("--user");
        out.push_back(std::to_string(settings_.first_user_id + next_user_++ % (1U << 20U)));
    }
    return out;
}

awaitable<result<HostPool::Started>> HostPool::start(ArtifactPtr artifact) {
    if (stopping_) co_return fail(errc::cancelled, "heald is stopping");
    const HostPtr host = add(hosts_, artifact);
    if (auto spawned = host->spawn(settings_.host_binary, arguments_of(*artifact), artifact->file.content);
        !spawned) {
        host->on_gone = nullptr;
        hosts_.remove(host);
        notify();
        co_return fail(errc::io, fmt::format("{}; check runner.host_binary", spawned.error().text));
    }
    static_cast<void>(host->send({{"type", "load"}, {"libraries", artifact->libraries}}));
    for (;;) {
        auto message = co_await host->next();
        if (!message) {
            artifact->last_output = host->output();
            const bool slow = host->why() == "did not answer in time and was killed";
            co_return fail(
                slow ? errc::timeout : errc::unavailable,
                fmt::format(
                    "its host {} while loading{}",
                    host->why(),
                    slow ? fmt::format(
                               " (within {} ms); keep work out of constructors and of describe",
                               settings_.start_timeout.count()
                           )
                         : "; run `heal-host --run FILE` on it to see why"
                )
            );
        }
        const std::string_view type = string_at(*message, "type");
        if (type == "hello") {
            if (int_at(*message, "protocol") != wire_protocol) {
                host->broken("speaks another protocol");
                continue;
            }
            if (const auto& missing = array_at(*message, "missing"); !missing.empty()) {
                log::debug(
                    "host of {}: this kernel or user lacks {}", artifact->file.path, json::serialize(missing)
                );
            }
        } else if (type == "refused") {
            host->retire();
            // It ends by itself right now, which is no crash; it need not be waited for.
            std::string reason{string_at(*message, "reason")};
            host->ready();
            co_return fail(errc::invalid_input, std::move(reason));
        } else if (type == "described") {
            host->ready();
            Started out{host, nullptr};
            if (auto* facts = message->if_contains("facts")) out.facts = std::move(*facts);
            co_return out;
        } else {
            host->broken("broke the protocol while loading");
        }
    }
}

awaitable<result<HostPtr>> HostPool::acquire(ArtifactPtr artifact, std::chrono::milliseconds max_wait) {
    const auto until = std::chrono::steady_clock::now() + max_wait;
    for (;;) {
        if (stopping_) co_return fail(errc::cancelled, "heald is stopping");
        for (const HostPtr& host : hosts_) {
            if (host->artifact == artifact && host->machine().state() == ChildMachine::State::idle &&
                !host->machine().retiring())
                co_return host;
        }
        if (hosts_.size() < settings_.max_children) {
            auto started = co_await start(artifact);
            if (!started) co_return std::move(started).error();
            if (started->host->machine().state() == ChildMachine::State::idle) co_return started->host;
            continue;
        }
        // An idle host of somebody else makes room.
        const auto idle = std::find_if(hosts_.begin(), hosts_.end(), [](const HostPtr& h) {
            return h->machine().state() == ChildMachine::State::idle;
        });
        if (idle != hosts_.end()) {
            const HostPtr evicted = *idle;
            evicted->retire();
        }
        if (waiting_.size() >= settings_.max_waiting)
            co_return fail(
                errc::overloaded, fmt::format("{} calls wait for a strategy host already", waiting_.size())
            );
        if (!co_await wait_for_change(until))
            co_return fail(
                errc::overloaded,
                fmt::format(
                    "all {} strategy hosts were busy until the call's time was over", settings_.max_children
                )
            );
    }
}

awaitable<bool> HostPool::wait_for_change(std::chrono::steady_clock::time_point until) {
    if (std::chrono::steady_clock::now() >= until) co_return false;
    asio::steady_timer timer{context_, until};
    const auto at = waiting_.insert(waiting_.end(), &timer);
    co_await due(timer);
    waiting_.erase(at);
    co_return true;
}

void HostPool::notify() {
    for (auto* timer : waiting_) timer->cancel();
}

void HostPool::release(const HostPtr& host) {
    if (host->over()) return;
    if (host->artifact->withdrawn || host->calls >= settings_.recycle_after_calls) host->retire();
    notify();
}

awaitable<result<HostPtr>> HostPool::acquire_performer() {
    if (stopping_) co_return fail(errc::cancelled, "heald is stopping");
    for (const HostPtr& one : performers_) {
        if (one->machine().state() == ChildMachine::State::idle && !one->taken) {
            one->taken = true;
            co_return one;
        }
    }
    const HostPtr host = add(performers_, nullptr);
    host->taken = true;
    if (auto spawned =
            host->spawn(settings_.host_binary, {"--effects", "--state", settings_.state_folder}, SharedFd{});
        !spawned) {
        host->on_gone = nullptr;
        performers_.remove(host);
        co_return spawned.error();
    }
    for (;;) {
        auto message = co_await host->next();
        if (!message)
            co_return fail(
                errc::unavailable, fmt::format("the process that performs effects {}", host->why())
            );
        if (string_at(*message, "type") != "ready") continue;
        host->ready();
        co_return host;
    }
}

void HostPool::release_performer(const HostPtr& performer) {
    performer->taken = false;
    if (performer->over()) return;
    const auto idle = std::count_if(performers_.begin(), performers_.end(), [](const HostPtr& p) {
        return !p->taken && p->machine().state() == ChildMachine::State::idle;
    });
    if (idle > 2 || stopping_) performer->retire();
}

awaitable<void> HostPool::warm_up() {
    auto one = co_await acquire_performer();
    if (one)
        release_performer(*one);
    else
        log::warn("effects can't be performed: {}", one.error().text);
}

void HostPool::retire(const ArtifactPtr& artifact) {
    for (const HostPtr& host : std::list<HostPtr>{hosts_}) {
        if (host->artifact == artifact) host->retire();
    }
}

std::vector<int> HostPool::children_of(const ArtifactPtr& artifact) const {
    std::vector<int> out;
    for (const HostPtr& host : hosts_) {
        if (host->artifact == artifact && host->pid() > 0) out.push_back(host->pid());
    }
    return out;
}

awaitable<void> HostPool::stop() {
    stopping_ = true;
    notify();
    for (auto* list : {&hosts_, &performers_}) {
        for (const HostPtr& host : std::list<HostPtr>{*list}) {
            host->cancel();
            host->retire();
        }
    }
    // Each child's machine ends it within its graces; the last second is for reaping.
    const auto until = std::chrono::steady_clock::now() + settings_.cancel_grace + settings_.term_grace +
                       std::chrono::seconds{2};
    while (size() > 0 && std::chrono::steady_clock::now() < until) {
        co_await wait_for_change(
            std::min(until, std::chrono::steady_clock::now() + std::chrono::milliseconds{100})
        );
        for (const HostPtr& host : std::list<HostPtr>{performers_}) host->retire();
    }
}

}  // namespace heal
