#include "base/tasks.hpp"

#include "base/log.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace heal {
namespace asio = boost::asio;

std::string text_of(const std::exception_ptr& error) {
    if (!error) return {};
    try {
        std::rethrow_exception(error);
    } catch (const std::exception& e) {
        return e.what();
    } catch (...) {
        return "an exception of no known kind";
    }
}

void spawn(asio::io_context& io, asio::awaitable<void> task, std::string what) {
    spawn(io, std::move(task), [what = std::move(what)](const std::exception_ptr& error) {
        if (error) log::error("{} ended by a defect: {}", what, text_of(error));
    });
}

void spawn(
    asio::io_context& io, asio::awaitable<void> task, std::function<void(const std::exception_ptr&)> ended
) {
    asio::co_spawn(io, std::move(task), [ended = std::move(ended)](const std::exception_ptr& error) {
        ended(error);
    });
}

void detail::tell_failure(const std::string& what, const Error& why) {
    if (why.code != errc::cancelled) log::warn("{}: {}", what, why.text);
}

asio::awaitable<bool> due(asio::steady_timer& timer) {
    boost::system::error_code cancelled;
    co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
    co_return !cancelled;
}

asio::awaitable<void> sleep_for(Duration time) {
    asio::steady_timer timer{co_await asio::this_coro::executor, time};
    co_await due(timer);
}

}  // namespace heal
