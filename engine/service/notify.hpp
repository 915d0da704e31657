// Tells the service manager how heald is (sd_notify(3)): ready, reloading, stopping, and the watchdog's sign
// of life, which is sent from the event loop so that a stuck loop is noticed. Nothing happens without
// $NOTIFY_SOCKET.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <string>
#include <string_view>

namespace heal {

class ServiceManager {
public:
    explicit ServiceManager(boost::asio::io_context& io);
    void ready(std::string_view status);
    void reloading();
    void stopping();

private:
    void send(const std::string& message) const;
    void beat();

    boost::asio::steady_timer timer_;
    std::string address_;
    std::chrono::microseconds period_{0};
};

}  // namespace heal
