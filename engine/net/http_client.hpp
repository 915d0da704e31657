// Outbound HTTP: one request, one answer, blocking, by libcurl. The network seam of D11: tests put a scripted
// one in its place. Deliberately no retries (who calls knows what may be repeated) and no redirects (an
// answer that sends us elsewhere is an answer).
#pragma once

#include "base/error.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace heal::net {

struct HttpRequest {
    std::string method = "GET", url;
    std::vector<std::pair<std::string, std::string>> headers;
    std::string body;
    std::chrono::milliseconds timeout{30'000};  ///< for the whole exchange
    std::size_t max_answer_bytes = 8U << 20U;   ///< of the body; more is errc::invalid_input
    const std::atomic<bool>* cancel = nullptr;  ///< looked at ten times a second; errc::cancelled when set
};

struct HttpAnswer {
    unsigned status = 0;
    std::vector<std::pair<std::string, std::string>> headers;  ///< names in lower case, in order
    std::string body;
    /// The first header of this (lower-case) name, or "".
    std::string_view header(std::string_view name) const;
};

/// @thread any; calls may run side by side
class HttpClient {
public:
    virtual ~HttpClient() = default;
    /// Any status is an answer. errc::invalid_input the url or too large an answer; errc::unavailable nobody
    /// answers; errc::timeout; errc::cancelled; errc::protocol.
    virtual result<HttpAnswer> send(const HttpRequest& request) = 0;
};

std::unique_ptr<HttpClient> create_http_client();

}  // namespace heal::net
