// Blocking work off the event loop: runs a callable on a pool, resumes on the caller's executor. Deliberately
// takes the callable by reference to a named object (docs/adr/0006-coroutines.md).
#pragma once

#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <exception>
#include <memory>

namespace heal {

/// Runs `work()` on a thread of `pool`. `work` and `pool` must live until this resumes, which the caller's
/// frame ensures. What `work` throws is thrown here.
template <class Work>
boost::asio::awaitable<void> offload(boost::asio::thread_pool& pool, Work& work) {
    auto executor = co_await boost::asio::this_coro::executor;
    std::exception_ptr thrown;
    co_await boost::asio::async_initiate<const boost::asio::use_awaitable_t<>, void()>(
        [&](auto handler) {
            auto done = std::make_shared<decltype(handler)>(std::move(handler));
            boost::asio::post(pool, [&work, &thrown, done, executor] {
                try {
                    work();
                } catch (...) {
                    thrown = std::current_exception();
                }
                boost::asio::post(executor, [done] { std::move (*done)(); });
            });
        },
        boost::asio::use_awaitable
    );
    if (thrown) std::rethrow_exception(thrown);
}

}  // namespace heal
