// Talks to heald over HTTP for healctl: one request, one answer, or the stream of live updates.
#pragma once

#include "base/error.hpp"
#include "base/json.hpp"

#include <functional>
#include <string>

namespace heal::cli {

struct Client {
    std::string server;  ///< "http://127.0.0.1:7480"
    std::string token;
    long timeout_s = 60;  ///< of a call; what waits for models or tests needs more

    /// errc::unavailable: nothing answers; errc::denied: 401, 403; errc::not_found; errc::conflict;
    /// errc::invalid_input: 400; errc::internal: anything else. The text is the server's own.
    result<json::value> call(const std::string& method, const std::string& path, const std::string& body = {})
        const;
    /// The body of a GET as it is; errors as of call().
    result<std::string> text(const std::string& path) const;
    /// Calls back with (event type, JSON text) until the connection ends or the callback returns false.
    result<void> stream(const std::function<bool(std::string_view, std::string_view)>& on_item) const;
};

/// For one segment of a path or a query value.
std::string escape(const std::string& text);

}  // namespace heal::cli
