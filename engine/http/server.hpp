// The HTTP face: listener, sessions, routes, live updates. The only folder that knows Beast. Every read has a
// deadline and a bound; every error is application/problem+json (RFC 9457).
#pragma once

#include "service/engine.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>

#include <memory>

namespace heal {

class HttpServer {
public:
    virtual ~HttpServer() = default;
    /// Port that is listened on (the free one that was taken when the configuration says 0).
    virtual unsigned short port() const = 0;
    /// No new connections; those that are idle end, the others may finish their answer.
    virtual void stop() = 0;
};

/// Listens at once; answers 503 on what needs the engine until that is ready.
/// errc::unavailable: the address is taken or not ours.
result<std::unique_ptr<HttpServer>> create_http_server(boost::asio::io_context& io, Engine& engine);

}  // namespace heal
