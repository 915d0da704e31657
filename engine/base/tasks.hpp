// Coroutines of the event loop: starting one, and waiting in one. Compiled once: every co_spawn and every
// wait for a timer would be hundreds of templates of its own (docs/adr/0011-build-time.md).
//
// Threads: any for spawn() and text_of(); due() on the executor of its timer, sleep_for() on its caller's.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <exception>
#include <functional>
#include <string>

namespace heal {

/// Runs `task` on `io`: at once up to its first wait when called on its thread. When it ends by an
/// exception, which is a defect of heald, the log says so of `what`: "the heartbeat ended by a defect: …".
void spawn(boost::asio::io_context& io, boost::asio::awaitable<void> task, std::string what);

/// The same for one with an end that somebody waits for. `ended` gets what it threw, or nullptr, on the
/// loop's thread; what `ended` throws leaves io_context::run().
void spawn(
    boost::asio::io_context& io,
    boost::asio::awaitable<void> task,
    std::function<void(const std::exception_ptr&)> ended
);

/// The same for one that may fail: a warning "what: why", unless it was cancelled.
template <class T>
void spawn(boost::asio::io_context& io, boost::asio::awaitable<result<T>> task, std::string what);

/// The text of an exception; "" of nullptr.
std::string text_of(const std::exception_ptr& error);

/// Until the timer is due, true, or cancelled, false.
boost::asio::awaitable<bool> due(boost::asio::steady_timer& timer);

/// So long; nothing ends it sooner.
boost::asio::awaitable<void> sleep_for(Duration time);

namespace detail {
void tell_failure(const std::string& what, const Error& why);
template <class T>
boost::asio::awaitable<void> settled(boost::asio::awaitable<result<T>> task, std::string what) {
    auto outcome = co_await std::move(task);
    if (!outcome) tell_failure(what, outcome.error());
}
}  // namespace detail

template <class T>
void spawn(boost::asio::io_context& io, boost::asio::awaitable<result<T>> task, std::string what) {
    auto both = detail::settled(std::move(task), what);
    spawn(io, std::move(both), std::move(what));
}

}  // namespace heal
