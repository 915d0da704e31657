// A small real HTTP server on loopback for tests: each connection gets the answer that the test gives for its
// request, byte for byte.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace heal {

class LoopbackServer {
public:
    /// From the whole request (head and body) to the bytes of the answer; "" closes without one, "hang" never
    /// answers.
    using Answer = std::function<std::string(const std::string& request)>;

    explicit LoopbackServer(Answer answer) : answer_(std::move(answer)) {
        listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
        ::listen(listener_, 16);
        socklen_t size = sizeof address;
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
        port_ = ntohs(address.sin_port);
        thread_ = std::thread{[this] { serve(); }};
    }
    ~LoopbackServer() {
        end_ = true;
        thread_.join();
        for (const int fd : hanging_) ::close(fd);
        ::close(listener_);
    }
    std::string url(const std::string& path = "/") const {
        return "http://127.0.0.1:" + std::to_string(port_) + path;
    }
    std::vector<std::string> requests() {
        const std::lock_guard lock{mutex_};
        return requests_;
    }

private:
    void serve() {
        while (!end_) {
            pollfd wait{listener_, POLLIN, 0};
            if (::poll(&wait, 1, 20) <= 0) continue;
            const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
            if (fd < 0) continue;
            const std::string request = read_request(fd);
            {
                const std::lock_guard lock{mutex_};
                requests_.push_back(request);
            }
            const std::string answer = answer_(request);
            if (answer == "hang") {
                hanging_.push_back(fd);
                continue;
            }
            for (std::size_t at = 0; at < answer.size();) {
                const auto n = ::send(fd, answer.data() + at, answer.size() - at, MSG_NOSIGNAL);
                if (n <= 0) break;
                at += static_cast<std::size_t>(n);
            }
            ::close(fd);
        }
    }
    static std::string read_request(int fd) {
        std::string in;
        std::size_t need = std::string::npos;
        char buffer[4096];
        while (in.size() < need) {
            const auto n = ::recv(fd, buffer, sizeof buffer, 0);
            if (n <= 0) break;
            in.append(buffer, static_cast<std::size_t>(n));
            const auto head = in.find("\r\n\r\n");
            if (head == std::string::npos || need != std::string::npos) continue;
            const auto length = in.find("Content-Length: ");
            need = head + 4 + (length < head ? std::stoul(in.substr(length + 16)) : 0);
        }
        return in;
    }

    Answer answer_;
    int listener_ = -1;
    unsigned port_ = 0;
    std::atomic<bool> end_{false};
    std::mutex mutex_;
    std::vector<std::string> requests_;
    std::vector<int> hanging_;
    std::thread thread_;
};

inline std::string http_answer(const std::string& body, const std::string& head = "200 OK\r\n") {
    return "HTTP/1.1 " + head + "Content-Length: " + std::to_string(body.size()) +
           "\r\nConnection: close\r\n\r\n" + body;
}

}  // namespace heal
