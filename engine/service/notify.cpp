#include "service/notify.hpp"

#include "base/clock.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace heal {

ServiceManager::ServiceManager(boost::asio::io_context& io) : timer_(io) {
    if (const char* address = std::getenv("NOTIFY_SOCKET")) address_ = address;
    const char* usec = std::getenv("WATCHDOG_USEC");
    const char* pid = std::getenv("WATCHDOG_PID");
    // Half the period, as sd_watchdog_enabled(3) advises; meant for us only when the pid is ours.
    if (usec && (!pid || std::atol(pid) == ::getpid()))
        period_ = std::chrono::microseconds{std::atoll(usec) / 2};
}

void ServiceManager::ready(std::string_view status) {
    send(fmt::format("READY=1\nSTATUS={}\nMAINPID={}", status, ::getpid()));
    if (period_.count() > 0) beat();
}

void ServiceManager::reloading() {
    send(fmt::format("RELOADING=1\nMONOTONIC_USEC={}", SystemClock{}.steady().count()));
}

void ServiceManager::stopping() {
    timer_.cancel();
    send("STOPPING=1");
}

void ServiceManager::beat() {
    send("WATCHDOG=1");
    timer_.expires_after(period_);
    timer_.async_wait([this](boost::system::error_code ec) {
        if (!ec) beat();
    });
}

void ServiceManager::send(const std::string& message) const {
    sockaddr_un to{};
    if (address_.empty() || address_.size() >= sizeof to.sun_path) return;
    to.sun_family = AF_UNIX;
    std::memcpy(to.sun_path, address_.data(), address_.size());
    if (to.sun_path[0] == '@') to.sun_path[0] = '\0';  // abstract socket
    const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size());
    // Lost when no one listens; the manager's own timeout is the remedy.
    (void
    )::sendto(fd, message.data(), message.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&to), size);
    ::close(fd);
}

}  // namespace heal
