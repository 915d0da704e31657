// The routes: verb, path, what it does. Handlers speak JSON and know nothing of sockets.
#pragma once

#include "service/engine.hpp"

#include <boost/asio/awaitable.hpp>

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace heal::http {

struct Request {
    std::string method, path, body, content_type, content_encoding, idempotency_key, actor;
    std::map<std::string, std::string> query;
    std::vector<std::string> arguments;  ///< of the {…} in the path, decoded
};

struct Response {
    unsigned status = 200;
    std::string content_type = "application/json";
    std::string body;
    std::vector<std::pair<std::string, std::string>> headers;
};

Response json_response(const json::value& value, unsigned status = 200);
/// problem+json of an Error; the status follows from its code.
Response problem(const Error& error);
Response problem(unsigned status, std::string_view title, std::string_view detail);
/// What answers until the engine is there: 503.
Response starting();
/// A body's JSON object; an empty body is an empty one. errc::invalid_input.
result<json::object> body_object(const Request& request);

struct Route {
    const char* method;
    const char* path;  ///< "{name}" stands for one segment
    const char* summary;
    bool changes;  ///< needs the token when one is set, and is not done for a foreign Origin
    boost::asio::awaitable<Response> (*handle)(Engine&, Request);
};

/// All routes but the stream.
const std::vector<Route>& routes();

struct Found {
    const Route* route = nullptr;
    std::vector<std::string> arguments;
    std::string allowed;  ///< methods of this path, when the path is known and the method isn't
};
Found find_route(std::string_view method, std::string_view path);

/// %XX and (in queries) + decoded. False: malformed.
bool percent_decode(std::string_view text, bool plus_is_space, std::string& ret);

}  // namespace heal::http
