#include "http/server.hpp"

#include "base/id.hpp"
#include "base/log.hpp"
#include "base/tasks.hpp"
#include "http/routes.hpp"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <sys/socket.h>

#include <deque>
#include <set>

namespace heal {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
using tcp = asio::ip::tcp;
using namespace std::chrono_literals;

// reliability.md row 62: a client has 5 s for its header and 30 s for its body; an idle connection is kept
// for a minute.
constexpr auto header_timeout = 5s, body_timeout = 30s, idle_timeout = 60s, write_timeout = 30s;

std::string_view view(beast::string_view s) { return {s.data(), s.size()}; }

struct State {
    asio::io_context& io;
    Engine& engine;
    std::set<beast::tcp_stream*> idle;
    unsigned connections = 0;
    bool stopping = false;
    bool loopback = true;
};

/// "127.0.0.1:80" -> "127.0.0.1".
std::string_view host_of(std::string_view authority) {
    if (authority.starts_with('[')) return authority.substr(0, authority.find(']') + 1);
    return authority.substr(0, authority.rfind(':'));
}

/// Who may ask for what. Nullopt: allowed.
std::optional<http::Response> refuse(
    const State& state,
    const bhttp::request_parser<bhttp::string_body>::value_type& request,
    bool changes,
    std::string_view path
) {
    const std::string_view host = view(request[bhttp::field::host]);
    // A page of a foreign name that resolves to this machine (DNS rebinding) still sends its own name.
    if (state.loopback) {
        const auto name = host_of(host);
        if (!host.empty() && name != "localhost" && name != "[::1]" && !name.starts_with("127.")) {
            return http::problem(
                403, "denied", fmt::format("the Host header names '{}', heald listens on loopback only", name)
            );
        }
    }
    if (changes) {
        const std::string_view origin = view(request[bhttp::field::origin]);
        if (!origin.empty() && origin != fmt::format("http://{}", host) &&
            origin != fmt::format("https://{}", host)) {
            return http::problem(
                403, "denied", "requests from pages of another origin may not change anything"
            );
        }
    }
    const std::string_view shown = view(request[bhttp::field::authorization]);
    if (shown.starts_with("Bearer attempt:")) {
        // A strategy that asks about its own incident, while its attempt is under way; nothing else.
        const bool may =
            (request.method() == bhttp::verb::post && path == "/api/v1/ai/fix") ||
            (request.method() == bhttp::verb::get &&
             (path.starts_with("/api/v1/patches") || path.starts_with("/api/v1/healing/events/")));
        if (!may || state.engine.ticket_actor(shown.substr(7)).empty())
            return http::problem(403, "denied", "this ticket is not, or no longer, good for this");
        return std::nullopt;
    }
    const auto& token = state.engine.settings().http_token;
    const bool open_to_all = path == "/health" || path == "/ready" ||
                             path.starts_with("/api/v1/approvals/links/");  // signed, each for one answer
    if (!token.empty() && !open_to_all) {
        if (!shown.starts_with("Bearer ") || !same_secret(shown.substr(7), token)) {
            auto r = http::problem(
                401,
                "unauthorized",
                "send the header 'Authorization: Bearer TOKEN' with the token of http.token_file"
            );
            r.headers.emplace_back("WWW-Authenticate", "Bearer");
            return r;
        }
    }
    return std::nullopt;
}

/// The name a client gives itself, only as a hint beside where it came from; it decides nothing.
std::string actor_of(const bhttp::request<bhttp::string_body>& request, const std::string& peer) {
    std::string name{view(request["X-Heald-Actor"])};
    name = to_valid_utf8(name.substr(0, 64));
    return name.empty() ? "http:" + peer : fmt::format("{} (http:{})", name, peer);
}

bool parse_query(std::string_view text, std::map<std::string, std::string>& ret) {
    while (!text.empty()) {
        const auto end = text.find('&');
        const auto pair = text.substr(0, end);
        text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
        const auto equals = pair.find('=');
        std::string key, value;
        if (!http::percent_decode(pair.substr(0, equals), true, key)) return false;
        if (equals != std::string_view::npos && !http::percent_decode(pair.substr(equals + 1), true, value))
            return false;
        if (!key.empty()) ret[key] = value;
    }
    return true;
}

class Session : public std::enable_shared_from_this<Session> {
public:
    Session(std::shared_ptr<State> state, tcp::socket socket)
        : state_(std::move(state)), s_(*state_), stream_(std::move(socket)) {
        ++s_.connections;
        boost::system::error_code ec;
        const auto endpoint = stream_.socket().remote_endpoint(ec);
        peer_ = ec ? "unknown" : endpoint.address().to_string();
        stream_.socket().set_option(tcp::no_delay{true}, ec);
    }
    ~Session() {
        --s_.connections;
        s_.idle.erase(&stream_);
    }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    asio::awaitable<void> run() {
        auto self = shared_from_this();
        boost::system::error_code ec;
        auto token = asio::redirect_error(asio::use_awaitable, ec);
        for (bool first = true; !s_.stopping; first = false) {
            bhttp::request_parser<bhttp::string_body> parser;
            parser.header_limit(16U << 10U);
            parser.body_limit(s_.engine.settings().http_max_body_bytes);
            if (buffer_.size() == 0) {
                s_.idle.insert(&stream_);
                if (first)
                    stream_.expires_after(header_timeout);
                else
                    stream_.expires_after(idle_timeout);
                // Wait for the first byte without a parser, so that a slow header is told from an idle
                // connection.
                const auto n = co_await stream_.async_read_some(buffer_.prepare(8192), token);
                s_.idle.erase(&stream_);
                if (ec) break;
                buffer_.commit(n);
            }
            stream_.expires_after(header_timeout);
            co_await bhttp::async_read_header(stream_, buffer_, parser, token);
            if (ec) {
                if (ec != bhttp::error::end_of_stream && ec != beast::error::timeout) {
                    const unsigned status = ec == bhttp::error::header_limit ? 431
                                            : ec == bhttp::error::body_limit ? 413
                                                                             : 400;
                    auto no =
                        http::problem(status, status == 400 ? "bad request" : "too large", ec.message());
                    co_await send(std::move(no), 11, false);
                }
                break;
            }
            const auto started = s_.engine.clock().steady();
            // Both lengths at once is how requests are smuggled (RFC 9112, 6.1).
            if (parser.get().has_content_length() && parser.chunked()) {
                auto no = http::problem(
                    400, "bad request", "Content-Length and Transfer-Encoding exclude each other"
                );
                co_await send(std::move(no), 11, false);
                break;
            }
            if (view(parser.get()[bhttp::field::expect]) == "100-continue") {
                static constexpr std::string_view go = "HTTP/1.1 100 Continue\r\n\r\n";
                co_await asio::async_write(stream_, asio::buffer(go), token);
                if (ec) break;
            }
            stream_.expires_after(body_timeout);
            co_await bhttp::async_read(stream_, buffer_, parser, token);
            if (ec == bhttp::error::body_limit) {
                auto no = http::problem(
                    413,
                    "too large",
                    fmt::format(
                        "a body may have {} bytes (http.max_body_bytes)",
                        s_.engine.settings().http_max_body_bytes
                    )
                );
                co_await send(std::move(no), 11, false);
                break;
            }
            if (ec) break;
            auto request = parser.release();
            const bool keep = request.keep_alive() && !s_.stopping;
            stream_.expires_never();
            const std::string_view target = view(request.target());
            const std::string_view path = target.substr(0, target.find('?'));
            if (request.method() == bhttp::verb::get && path == "/api/v1/stream") {
                if (auto no = refuse(s_, request, false, path)) {
                    if (!co_await send(std::move(*no), request.version(), keep)) break;
                    continue;
                }
                co_await stream_events();
                break;
            }
            std::string route = "none";
            const unsigned version = request.version();
            auto response = co_await answer(std::move(request), route);
            const auto took = s_.engine.clock().steady() - started;
            auto& metrics = s_.engine.metrics();
            metrics.add(
                "heald_http_requests_total",
                {{"route", route}, {"status", fmt::format("{}xx", response.status / 100)}}
            );
            metrics.observe(
                "heald_http_request_duration_seconds",
                {{"route", route}},
                static_cast<double>(took.count()) / 1e6
            );
            if (!co_await send(std::move(response), version, keep)) break;
        }
        stream_.socket().shutdown(tcp::socket::shutdown_both, ec);
    }

private:
    asio::awaitable<http::Response> answer(
        bhttp::request<bhttp::string_body> request, std::string& ret_route
    ) {
        std::string_view target = view(request.target());
        const auto question = target.find('?');
        http::Request r;
        r.method = view(request.method_string());
        r.path = target.substr(0, question);
        if (question != std::string_view::npos && !parse_query(target.substr(question + 1), r.query)) {
            co_return http::problem(400, "bad request", "the query has a malformed %XX");
        }
        auto found = http::find_route(r.method, r.path);
        if (!found.route) {
            if (found.allowed.empty())
                co_return http::problem(
                    404, "not found", "there is no such path; GET /api/v1/openapi.json lists them"
                );
            auto response = http::problem(405, "method not allowed", "this path takes " + found.allowed);
            response.headers.emplace_back("Allow", found.allowed);
            co_return response;
        }
        ret_route = found.route->path;
        if (auto no = refuse(s_, request, found.route->changes, r.path)) co_return std::move(*no);
        r.arguments = std::move(found.arguments);
        r.content_type = view(request[bhttp::field::content_type]);
        r.content_encoding = view(request[bhttp::field::content_encoding]);
        r.idempotency_key = std::string{view(request["Idempotency-Key"]).substr(0, 200)};
        r.actor = actor_of(request, peer_);
        if (const std::string_view shown = view(request[bhttp::field::authorization]);
            shown.starts_with("Bearer attempt:")) {
            if (auto strategy = state_->engine.ticket_actor(shown.substr(7)); !strategy.empty())
                r.actor = std::move(strategy);
        }
        r.body = std::move(request.body());
        try {
            co_return co_await found.route->handle(s_.engine, std::move(r));
        } catch (const std::exception& e) {
            log::error("{} {} ended by a defect: {}", found.route->method, found.route->path, e.what());
            co_return http::problem(500, "internal", "a defect of heald; its log has the details");
        }
    }

    asio::awaitable<bool> send(http::Response response, unsigned version, bool keep) {
        bhttp::response<bhttp::string_body> out{static_cast<bhttp::status>(response.status), version};
        out.set(bhttp::field::server, "heald/" HEAL_VERSION);
        out.set(bhttp::field::content_type, response.content_type);
        out.set("X-Content-Type-Options", "nosniff");
        out.set(bhttp::field::cache_control, "no-store");
        for (const auto& [key, value] : response.headers) out.set(key, value);
        out.body() = std::move(response.body);
        out.keep_alive(keep);
        out.prepare_payload();
        stream_.expires_after(write_timeout);
        boost::system::error_code ec;
        co_await bhttp::async_write(stream_, out, asio::redirect_error(asio::use_awaitable, ec));
        co_return !ec && keep;
    }

    /// Server-sent events: what happens, as it happens. A listener that reads too slowly is dropped, not
    /// waited for.
    asio::awaitable<void> stream_events() {
        boost::system::error_code ec;
        auto token = asio::redirect_error(asio::use_awaitable, ec);
        static constexpr std::string_view head =
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nConnection: "
            "close\r\n\r\n: heald\n\n";
        std::deque<std::string> waiting;
        asio::steady_timer wake{s_.io};
        bool slow = false;
        const auto id = s_.engine.feed().add([&](const Feed::Item& item) {
            if (waiting.size() >= 1000)
                slow = true;
            else
                waiting.push_back(
                    fmt::format("id: {}\nevent: {}\ndata: {}\n\n", item.seq, item.type, item.data)
                );
            wake.cancel();
        });
        stream_.expires_after(write_timeout);
        co_await asio::async_write(stream_, asio::buffer(head), token);
        while (!ec && !slow && !s_.stopping) {
            if (waiting.empty()) {
                wake.expires_after(15s);
                if (co_await due(wake) && waiting.empty()) waiting.emplace_back(": still here\n\n");
                continue;
            }
            std::string block;
            for (auto& item : waiting) block += item;
            waiting.clear();
            stream_.expires_after(write_timeout);
            co_await asio::async_write(stream_, asio::buffer(std::string_view{block}), token);
        }
        s_.engine.feed().remove(id);
    }

    std::shared_ptr<State> state_;  // sessions may outlive the server: their frames end with the io_context
    State& s_;
    beast::tcp_stream stream_;
    beast::flat_buffer buffer_{1U << 20U};
    std::string peer_;
};

class ServerImpl final : public HttpServer {
public:
    ServerImpl(asio::io_context& io, Engine& engine)
        : state_(std::make_shared<State>(State{io, engine, {}, 0, false, true})), acceptor_(io) {}

    result<void> listen() {
        const auto& where = state_->engine.settings().http_listen;
        const auto colon = where.rfind(':');
        std::string host = where.substr(0, colon);
        if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
        if (host == "localhost") host = "127.0.0.1";
        boost::system::error_code ec;
        const auto address = asio::ip::make_address(host, ec);
        unsigned port = 0;
        const auto text = where.substr(colon + 1);
        if (ec || text.empty() || text.find_first_not_of("0123456789") != std::string::npos ||
            (port = static_cast<unsigned>(std::stoul(text.substr(0, 6)))) > 65535) {
            return fail(
                errc::invalid_input,
                fmt::format("http.listen: '{}' is not address:port, such as 127.0.0.1:7480", where)
            );
        }
        state_->loopback = address.is_loopback();
        const tcp::endpoint endpoint{address, static_cast<unsigned short>(port)};
        acceptor_.open(endpoint.protocol(), ec);
        if (!ec) acceptor_.set_option(tcp::acceptor::reuse_address{true}, ec);
        if (!ec) acceptor_.bind(endpoint, ec);
        if (!ec) acceptor_.listen(asio::socket_base::max_listen_connections, ec);
        if (ec) {
            return fail(
                errc::unavailable,
                fmt::format(
                    "cannot listen on {}: {}; is another heald running? set http.listen", where, ec.message()
                )
            );
        }
        spawn(state_->io, accept(), "the listener");
        return {};
    }

    unsigned short port() const override {
        boost::system::error_code ec;
        return acceptor_.local_endpoint(ec).port();
    }

    void stop() override {
        state_->stopping = true;
        boost::system::error_code ec;
        acceptor_.close(ec);
        for (auto* stream : state_->idle) stream->cancel();
    }

private:
    asio::awaitable<void> accept() {
        while (!state_->stopping) {
            boost::system::error_code ec;
            auto socket = co_await acceptor_.async_accept(asio::redirect_error(asio::use_awaitable, ec));
            if (state_->stopping) co_return;
            if (ec) {
                // Out of descriptors or alike: wait, the rest of heald goes on.
                co_await sleep_for(100ms);
                continue;
            }
            if (state_->connections >= state_->engine.settings().http_max_connections) continue;  // closes it
            // Children must not inherit it.
            ::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
            auto session = std::make_shared<Session>(state_, std::move(socket));
            spawn(state_->io, session->run(), [session](const std::exception_ptr& error) {
                if (error) log::warn("a connection ended: {}", text_of(error));
            });
        }
    }

    std::shared_ptr<State> state_;
    tcp::acceptor acceptor_;
};

}  // namespace

result<std::unique_ptr<HttpServer>> create_http_server(asio::io_context& io, Engine& engine) {
    auto server = std::make_unique<ServerImpl>(io, engine);
    HEAL_TRY(server->listen());
    return std::unique_ptr<HttpServer>{std::move(server)};
}

}  // namespace heal
