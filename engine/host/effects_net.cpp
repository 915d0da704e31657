#include "host/effects_parts.hpp"

#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>

#include <curl/curl.h>
#include <dlfcn.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <memory>

namespace heal::effects {
namespace {

// libcurl brings some forty libraries along, which would cost each host 8 ms at its start; so it is loaded by the first
// request that needs it. The functions have the types of curl.h.
struct Curl {
    decltype(&curl_easy_init) easy_init = nullptr;
    decltype(&curl_easy_setopt) easy_setopt = nullptr;
    decltype(&curl_easy_getinfo) easy_getinfo = nullptr;
    decltype(&curl_easy_cleanup) easy_cleanup = nullptr;
    decltype(&curl_easy_strerror) easy_strerror = nullptr;
    decltype(&curl_slist_append) slist_append = nullptr;
    decltype(&curl_slist_free_all) slist_free_all = nullptr;
    decltype(&curl_multi_init) multi_init = nullptr;
    decltype(&curl_multi_add_handle) multi_add_handle = nullptr;
    decltype(&curl_multi_remove_handle) multi_remove_handle = nullptr;
    decltype(&curl_multi_perform) multi_perform = nullptr;
    decltype(&curl_multi_poll) multi_poll = nullptr;
    decltype(&curl_multi_info_read) multi_info_read = nullptr;
    decltype(&curl_multi_cleanup) multi_cleanup = nullptr;
};

const Curl* curl() {
    static const Curl* loaded = []() -> const Curl* {
        void* library = ::dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
        if (!library) return nullptr;
        static Curl c;
        bool all = true;
        const auto find = [&](auto& function, const char* name) {
            function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(library, name));
            all = all && function != nullptr;
        };
        decltype(&curl_global_init) global_init = nullptr;
        find(global_init, "curl_global_init");
        find(c.easy_init, "curl_easy_init");
        find(c.easy_setopt, "curl_easy_setopt");
        find(c.easy_getinfo, "curl_easy_getinfo");
        find(c.easy_cleanup, "curl_easy_cleanup");
        find(c.easy_strerror, "curl_easy_strerror");
        find(c.slist_append, "curl_slist_append");
        find(c.slist_free_all, "curl_slist_free_all");
        find(c.multi_init, "curl_multi_init");
        find(c.multi_add_handle, "curl_multi_add_handle");
        find(c.multi_remove_handle, "curl_multi_remove_handle");
        find(c.multi_perform, "curl_multi_perform");
        find(c.multi_poll, "curl_multi_poll");
        find(c.multi_info_read, "curl_multi_info_read");
        find(c.multi_cleanup, "curl_multi_cleanup");
        return all && global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? &c : nullptr;
    }();
    return loaded;
}

std::size_t take_body(char* data, std::size_t size, std::size_t count, void* to) {
    auto& body = *static_cast<std::string*>(to);
    const std::size_t room = max_output_bytes - std::min(max_output_bytes, body.size());
    body.append(data, std::min(room, size * count));
    return size * count;
}

std::size_t take_header(char* data, std::size_t size, std::size_t count, void* to) {
    auto& headers = *static_cast<json::object*>(to);
    const std::string_view line{data, size * count};
    const auto colon = line.find(':');
    if (line.substr(0, 5) == "HTTP/") headers.clear();  // of the last answer, after redirects or 100-continue
    if (colon != std::string_view::npos && headers.size() < 64) {
        std::string name{line.substr(0, colon)};
        std::transform(name.begin(), name.end(), name.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
        auto value = line.substr(colon + 1);
        while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
        while (!value.empty() && (value.back() == '\r' || value.back() == '\n' || value.back() == ' ')) value.remove_suffix(1);
        headers[to_valid_utf8(name)] = bounded(value, 1024);
    }
    return size * count;
}

struct Address {
    std::string host, path;  ///< path: a unix socket
    std::uint16_t port = 0;
    std::string capability() const { return path.empty() ? fmt::format("net:{}:{}", host, port) : "net:unix:" + path; }
};

result<Address> address_of(const std::string& text, std::string_view where) {
    Address out;
    if (text.compare(0, 5, "unix:") == 0) {
        out.path = text.substr(5);
        if (!is_clean_path(out.path) || out.path.size() >= sizeof(sockaddr_un::sun_path)) return fail(errc::invalid_input, fmt::format("{}: the socket's path must be absolute and short", where));
        return out;
    }
    const auto colon = text.find_last_of(':');
    unsigned port = 0;
    if (colon != std::string::npos) {
        out.host = text.substr(0, colon);
        const char* b = text.data() + colon + 1;
        const char* e = text.data() + text.size();
        const auto r = std::from_chars(b, e, port);
        if (r.ec != std::errc{} || r.ptr != e) port = 0;
    }
    if (out.host.size() > 2 && out.host.front() == '[' && out.host.back() == ']') out.host = out.host.substr(1, out.host.size() - 2);
    if (out.host.empty() || port == 0 || port > 65535) return fail(errc::invalid_input, fmt::format("{}: must be host:port or unix:/path", where));
    out.port = static_cast<std::uint16_t>(port);
    return out;
}

result<void> granted(const Context& context, const Address& address) {
    const Grants& grants = context.request.grants;
    const bool good = address.path.empty() ? grants.net(address.host, address.port) : grants.net_unix(address.path);
    if (!good) return denied("to connect to " + address.capability().substr(4), address.capability());
    return {};
}

result<Descriptor> connect_one(Context& context, int family, const sockaddr* to, socklen_t size, Duration until) {
    Descriptor fd{::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (!fd.open()) return fail_errno("cannot make a socket", errno);
    if (::connect(fd.get(), to, size) == 0) return fd;
    if (errno != EINPROGRESS) return fail_errno("cannot connect", errno);
    HEAL_TRY(wait_ready(context, fd.get(), POLLOUT, until));
    int error = 0;
    socklen_t length = sizeof error;
    ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return fail_errno("cannot connect", error);
    return fd;
}

result<Descriptor> connect_to(Context& context, const Address& address, Duration until) {
    if (!address.path.empty()) {
        sockaddr_un to{};
        to.sun_family = AF_UNIX;
        std::copy(address.path.begin(), address.path.end(), to.sun_path);
        return connect_one(context, AF_UNIX, reinterpret_cast<const sockaddr*>(&to), sizeof to, until);
    }
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV;
    addrinfo* found = nullptr;
    const int error = ::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
    if (error != 0) return fail(errc::unavailable, fmt::format("cannot find {}: {}", address.host, ::gai_strerror(error)));
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner{found, &::freeaddrinfo};
    result<Descriptor> last = fail(errc::unavailable, fmt::format("{} has no address", address.host));
    for (const addrinfo* one = found; one; one = one->ai_next) {
        last = connect_one(context, one->ai_family, one->ai_addr, one->ai_addrlen, until);
        if (last || last.error().code == errc::cancelled) return last;
    }
    return fail(last.error().code == errc::timeout ? errc::timeout : errc::unavailable, fmt::format("{}: {}", address.capability().substr(4), last.error().text));
}

// Bytes of one connection, read as needed.
class Stream {
public:
    Stream(Context& context, Descriptor fd, Duration until) : context_(context), fd_(std::move(fd)), until_(until) {}

    result<void> send(std::string_view bytes) {
        while (!bytes.empty()) {
            const auto n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (n > 0) {
                bytes.remove_prefix(static_cast<std::size_t>(n));
            } else if (errno == EAGAIN) {
                HEAL_TRY(wait_ready(context_, fd_.get(), POLLOUT, until_));
            } else if (errno != EINTR) {
                return fail_errno("cannot send", errno);
            }
        }
        return {};
    }
    /// Without the CRLF.
    result<std::string> line() {
        for (;;) {
            const auto end = buffer_.find('\n');
            if (end != std::string::npos) {
                std::string out = buffer_.substr(0, end);
                buffer_.erase(0, end + 1);
                if (!out.empty() && out.back() == '\r') out.pop_back();
                return out;
            }
            if (buffer_.size() > (64U << 10U)) return fail(errc::protocol, "the peer sent a line of more than 64 KiB");
            HEAL_TRY(more());
        }
    }
    /// The next `size` bytes; of what is beyond `keep` only the count matters.
    result<std::string> bytes(std::size_t size, std::size_t keep) {
        std::string out;
        while (size > 0) {
            if (buffer_.empty()) HEAL_TRY(more());
            const std::size_t n = std::min(size, buffer_.size());
            if (out.size() < keep) out.append(buffer_, 0, std::min(n, keep - out.size()));
            buffer_.erase(0, n);
            size -= n;
        }
        return out;
    }

private:
    result<void> more() {
        std::array<char, 16384> chunk{};
        for (;;) {
            const auto n = ::recv(fd_.get(), chunk.data(), chunk.size(), 0);
            if (n > 0) {
                buffer_.append(chunk.data(), static_cast<std::size_t>(n));
                return {};
            }
            if (n == 0) return fail(errc::unavailable, "the peer closed the connection");
            if (errno == EAGAIN) HEAL_TRY(wait_ready(context_, fd_.get(), POLLIN, until_));
            else if (errno != EINTR) return fail_errno("cannot read", errno);
        }
    }

    Context& context_;
    Descriptor fd_;
    Duration until_;
    std::string buffer_;
};

result<Plan> plan_http_of(Context& context, const FieldReader& in, HttpCall call, bool read_only, const std::string& secret_free_url) {
    static_cast<void>(in);
    const auto parsed = boost::urls::parse_uri(call.url);
    if (!parsed) return fail(errc::invalid_input, "http.url: is not a URL");
    const std::string_view scheme{parsed->scheme().data(), parsed->scheme().size()};
    if (scheme != "http" && scheme != "https") return fail(errc::invalid_input, "http.url: must begin with http:// or https://");
    Address address;
    address.host = std::string{parsed->encoded_host_address()};
    address.port = parsed->has_port() && parsed->port_number() != 0 ? parsed->port_number() : (scheme == "https" ? 443 : 80);
    if (!call.unix_socket.empty()) {
        if (!is_clean_path(call.unix_socket)) return fail(errc::invalid_input, "http.unix_socket: must be an absolute path");
        address.path = call.unix_socket;
    }
    HEAL_TRY(granted(context, address));
    Plan plan;
    plan.capability = address.capability();
    plan.summary = fmt::format("{} {}", call.method, secret_free_url);
    plan.changes_world = !read_only;
    if (plan.changes_world) plan.dry_result = {{"status", 200}, {"body", ""}, {"headers", json::object{}}};
    plan.shown = context.request.parameters;
    for (const char* key : {"headers"}) {
        if (auto* headers = plan.shown.if_contains(key); headers && headers->is_object()) {
            for (auto& member : headers->get_object()) member.value() = "***";
        }
    }
    if (call.body.size() > 4096) plan.shown["body"] = bounded(call.body, 4096);
    plan.run = [call = std::move(call)](Context& c) -> result<json::object> {
        auto reply = http_call(c, call);
        if (!reply) return std::move(reply).error();
        return json::object{{"status", reply->status}, {"body", bounded(reply->body)}, {"headers", std::move(reply->headers)}};
    };
    return plan;
}

result<Plan> plan_http(Context& context, const FieldReader& in) {
    HttpCall call;
    auto method = in.string_or("method", "GET");
    if (!method) return std::move(method).error();
    auto url = in.required_string("url");
    if (!url) return std::move(url).error();
    auto body = in.string_or("body", "");
    if (!body) return std::move(body).error();
    auto timeout = in.int_or("timeout_ms", 5'000, 1, 600'000);
    if (!timeout) return std::move(timeout).error();
    auto socket = in.string_or("unix_socket", "");
    if (!socket) return std::move(socket).error();
    auto read_only = in.bool_or("read_only", false);
    if (!read_only) return std::move(read_only).error();
    auto headers = string_map(context.request.parameters, "headers", in.path());
    if (!headers) return std::move(headers).error();
    if (method->empty() || method->size() > 20 || !std::all_of(method->begin(), method->end(), [](char c) { return c >= 'A' && c <= 'Z'; })) {
        return fail(errc::invalid_input, "http.method: must be an upper-case word");
    }
    if (url->size() > 8192) return fail(errc::invalid_input, "http.url: must have at most 8192 bytes");
    for (const auto& [name, value] : *headers) {
        if (value.find_first_of("\r\n") != std::string::npos || name.find(':') != std::string::npos) return fail(errc::invalid_input, "http.headers: must not hold line breaks");
    }
    call = HttpCall{*method, *url, *body, *socket, std::move(*headers), std::chrono::milliseconds{*timeout}};
    const bool reads = *read_only || *method == "GET" || *method == "HEAD" || *method == "OPTIONS";
    return plan_http_of(context, in, std::move(call), reads, url->substr(0, url->find('?')));
}

constexpr std::array<std::string_view, 7> container_verbs = {"start", "stop", "restart", "kill", "pause", "unpause", "inspect"};

result<Plan> plan_docker(Context& context, const FieldReader& in) {
    auto verb = in.required_string("verb");
    if (!verb) return std::move(verb).error();
    auto name = in.required_string("container");
    if (!name) return std::move(name).error();
    auto socket = in.string_or("unix_socket", "/var/run/docker.sock");
    if (!socket) return std::move(socket).error();
    auto timeout = in.int_or("timeout_ms", 30'000, 1, 600'000);
    if (!timeout) return std::move(timeout).error();
    if (std::find(container_verbs.begin(), container_verbs.end(), *verb) == container_verbs.end()) {
        return fail(errc::invalid_input, fmt::format("docker.verb: must be one of {}", fmt::join(container_verbs, ", ")));
    }
    if (name->empty() || name->size() > 200 || !std::all_of(name->begin(), name->end(), [](char c) {
            return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
        })) {
        return fail(errc::invalid_input, "docker.container: must be a container's name or id");
    }
    if (!context.request.grants.named("docker", *name)) return denied(fmt::format("to {} the container {}", *verb, *name), "docker:" + *name);
    if (!is_clean_path(*socket)) return fail(errc::invalid_input, "docker.unix_socket: must be an absolute path");
    if (*socket != "/var/run/docker.sock" && !context.request.grants.net_unix(*socket)) return denied("to connect to " + *socket, "net:unix:" + *socket);
    HttpCall call;
    call.unix_socket = *socket;
    call.timeout = std::chrono::milliseconds{*timeout};
    call.method = *verb == "inspect" ? "GET" : "POST";
    call.url = fmt::format("http://docker/containers/{}/{}", *name, *verb == "inspect" ? "json" : *verb);
    Plan plan;
    plan.summary = fmt::format("docker {} {}", *verb, *name);
    plan.capability = "docker:" + *name;
    plan.changes_world = *verb != "inspect";
    if (plan.changes_world) plan.dry_result = {{"status", 204}};
    const std::string opposite = *verb == "start" ? "stop" : *verb == "stop" ? "start" : *verb == "pause" ? "unpause" : *verb == "unpause" ? "pause" : "";
    if (!opposite.empty()) {
        json::object p = context.request.parameters;
        p["verb"] = opposite;
        plan.undoable = true;
        plan.undo = {{"kind", "docker"}, {"parameters", std::move(p)}};
    }
    plan.run = [call, verb = *verb](Context& c) -> result<json::object> {
        auto reply = http_call(c, call);
        if (!reply) return std::move(reply).error();
        // 304: was in that state already (Docker Engine API, ContainerStart and ContainerStop).
        if (reply->status >= 300 && reply->status != 304) return fail(errc::io, fmt::format("docker answered {}: {}", reply->status, bounded(reply->body, 300)));
        json::object out{{"status", reply->status}};
        if (verb == "inspect") {
            if (auto parsed = parse_json(reply->body, "docker"); parsed && parsed->is_object()) out["state"] = object_at(parsed->get_object(), "State");
        }
        return out;
    };
    return plan;
}

result<Plan> plan_tcp(Context& context, const FieldReader& in) {
    auto text = in.required_string("address");
    if (!text) return std::move(text).error();
    auto timeout = in.int_or("timeout_ms", 1'000, 1, 60'000);
    if (!timeout) return std::move(timeout).error();
    auto address = address_of(*text, "tcp_check.address");
    if (!address) return std::move(address).error();
    HEAL_TRY(granted(context, *address));
    Plan plan;
    plan.changes_world = false;
    plan.summary = "check whether " + *text + " answers";
    plan.capability = address->capability();
    plan.run = [address = *address, ms = *timeout](Context& c) -> result<json::object> {
        auto fd = connect_to(c, address, c.clock.steady() + std::chrono::milliseconds{ms});
        if (fd) return json::object{{"open", true}, {"error", ""}};
        if (fd.error().code == errc::cancelled) return std::move(fd).error();
        return json::object{{"open", false}, {"error", bounded(fd.error().text, 500)}};
    };
    return plan;
}

// Redis' own list of commands with the flag "readonly" or "fast and harmless", those that make sense here.
constexpr std::string_view redis_reads =
    " GET MGET EXISTS TTL PTTL TYPE STRLEN GETRANGE HGET HGETALL HLEN HMGET HKEYS HVALS HEXISTS LLEN LRANGE LINDEX SCARD SMEMBERS SISMEMBER "
    "ZCARD ZRANGE ZSCORE ZCOUNT KEYS SCAN DBSIZE INFO PING ECHO TIME MEMORY OBJECT ROLE LASTSAVE SELECT ";

result<json::value> redis_reply(Stream& stream, int depth, std::size_t& budget) {
    if (depth > 8) return fail(errc::protocol, "redis sent a reply nested too deep");
    auto line = stream.line();
    if (!line) return std::move(line).error();
    if (line->empty()) return fail(errc::protocol, "redis sent an empty line");
    const std::string_view rest = std::string_view{*line}.substr(1);
    std::int64_t number = 0;
    const bool numeric = std::from_chars(rest.data(), rest.data() + rest.size(), number).ptr == rest.data() + rest.size() && !rest.empty();
    const auto spend = [&](std::size_t n) {
        const std::size_t given = std::min(n, budget);
        budget -= given;
        return given;
    };
    switch ((*line)[0]) {
        case '+': return json::value(bounded(rest, spend(rest.size())));
        case '-': return json::value(json::object{{"error", bounded(rest, 500)}});
        case ':':
            if (numeric) return json::value(number);
            break;
        case '$': {
            if (!numeric || number > (512LL << 20U)) break;
            if (number < 0) return json::value(nullptr);
            auto bytes = stream.bytes(static_cast<std::size_t>(number), spend(static_cast<std::size_t>(number)));
            if (!bytes) return std::move(bytes).error();
            if (auto end = stream.line(); !end) return std::move(end).error();
            return json::value(to_valid_utf8(*bytes));
        }
        case '*': {
            if (!numeric || number > 1'000'000) break;
            if (number < 0) return json::value(nullptr);
            json::array out;
            for (std::int64_t i = 0; i < number; ++i) {
                auto item = redis_reply(stream, depth + 1, budget);
                if (!item) return std::move(item).error();
                if (out.size() < 10'000 && spend(8) == 8) out.push_back(std::move(*item));
            }
            return json::value(std::move(out));
        }
        default: break;
    }
    return fail(errc::protocol, "redis sent something that is no RESP reply");
}

result<Plan> plan_redis(Context& context, const FieldReader& in) {
    auto text = in.required_string("address");
    if (!text) return std::move(text).error();
    auto timeout = in.int_or("timeout_ms", 5'000, 1, 600'000);
    if (!timeout) return std::move(timeout).error();
    auto password = in.string_or("password", "");
    if (!password) return std::move(password).error();
    auto address = address_of(*text, "redis.address");
    if (!address) return std::move(address).error();
    HEAL_TRY(granted(context, *address));
    const auto& given = array_at(context.request.parameters, "commands");
    if (given.empty() || given.size() > 1000) return fail(errc::invalid_input, "redis.commands: must be an array of 1 to 1000 commands");
    std::vector<std::vector<std::string>> commands;
    bool reads = true;
    std::string summary;
    for (const auto& command : given) {
        if (!command.is_array() || command.get_array().empty() || command.get_array().size() > 10'000) return fail(errc::invalid_input, "redis.commands: each command must be a non-empty array of strings");
        auto& words = commands.emplace_back();
        for (const auto& word : command.get_array()) {
            if (!word.is_string()) return fail(errc::invalid_input, "redis.commands: must hold strings only");
            words.emplace_back(view(word.get_string()));
        }
        std::string verb = words[0];
        std::transform(verb.begin(), verb.end(), verb.begin(), [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
        if (verb.find(' ') != std::string::npos || redis_reads.find(" " + verb + " ") == std::string_view::npos) reads = false;
        if (summary.size() < 300) summary += (summary.empty() ? "" : "; ") + joined(words);
    }
    Plan plan;
    plan.summary = fmt::format("redis {}: {}", *text, bounded(summary, 300));
    plan.capability = address->capability();
    plan.changes_world = !reads;
    if (!reads) {
        json::array replies;
        for (std::size_t i = 0; i < commands.size(); ++i) replies.emplace_back("OK");
        plan.dry_result = {{"replies", std::move(replies)}};
    }
    plan.shown = context.request.parameters;
    if (plan.shown.contains("password")) plan.shown["password"] = "***";
    plan.run = [address = *address, ms = *timeout, password = *password, commands = std::move(commands)](Context& c) -> result<json::object> {
        const Duration until = c.clock.steady() + std::chrono::milliseconds{ms};
        auto fd = connect_to(c, address, until);
        if (!fd) return std::move(fd).error();
        Stream stream{c, std::move(*fd), until};
        const auto encode = [](const std::vector<std::string>& words) {
            std::string out = fmt::format("*{}\r\n", words.size());
            for (const std::string& word : words) out += fmt::format("${}\r\n{}\r\n", word.size(), word);
            return out;
        };
        std::size_t budget = max_output_bytes;
        json::array replies;
        if (!password.empty()) {
            HEAL_TRY(stream.send(encode({"AUTH", password})));
            auto reply = redis_reply(stream, 0, budget);
            if (!reply) return std::move(reply).error();
            if (reply->is_object()) return fail(errc::denied, fmt::format("redis refused the password: {}", string_at(reply->get_object(), "error")));
        }
        // One after the other: a peer that stops reading can't block us on two full buffers.
        for (const auto& words : commands) {
            HEAL_TRY(stream.send(encode(words)));
            auto reply = redis_reply(stream, 0, budget);
            if (!reply) return std::move(reply).error();
            replies.push_back(std::move(*reply));
        }
        return json::object{{"replies", std::move(replies)}};
    };
    return plan;
}

constexpr std::string_view memcached_reads = " get gets stats version ";

result<Plan> plan_memcached(Context& context, const FieldReader& in) {
    auto text = in.required_string("address");
    if (!text) return std::move(text).error();
    auto timeout = in.int_or("timeout_ms", 5'000, 1, 600'000);
    if (!timeout) return std::move(timeout).error();
    auto address = address_of(*text, "memcached.address");
    if (!address) return std::move(address).error();
    HEAL_TRY(granted(context, *address));
    const auto& given = array_at(context.request.parameters, "commands");
    if (given.empty() || given.size() > 1000) return fail(errc::invalid_input, "memcached.commands: must be an array of 1 to 1000 command lines");
    std::vector<std::string> commands;
    bool reads = true;
    for (const auto& one : given) {
        const std::string line = one.is_string() ? std::string{view(one.get_string())} : "";
        const std::string verb = line.substr(0, line.find(' '));
        static constexpr std::string_view single = " get gets stats version delete incr decr touch flush_all verbosity ";
        if (line.empty() || line.size() > 2048 || line.find_first_of("\r\n") != std::string::npos || single.find(" " + verb + " ") == std::string_view::npos) {
            return fail(errc::invalid_input, "memcached.commands: must be command lines without a data block: get, gets, stats, version, delete, incr, decr, touch, flush_all, verbosity");
        }
        if (memcached_reads.find(" " + verb + " ") == std::string_view::npos) reads = false;
        commands.push_back(line);
    }
    Plan plan;
    plan.summary = fmt::format("memcached {}: {}", *text, bounded(fmt::format("{}", fmt::join(commands, "; ")), 300));
    plan.capability = address->capability();
    plan.changes_world = !reads;
    if (!reads) {
        json::array replies;
        for (std::size_t i = 0; i < commands.size(); ++i) replies.emplace_back("OK");
        plan.dry_result = {{"replies", std::move(replies)}};
    }
    plan.run = [address = *address, ms = *timeout, commands = std::move(commands)](Context& c) -> result<json::object> {
        const Duration until = c.clock.steady() + std::chrono::milliseconds{ms};
        auto fd = connect_to(c, address, until);
        if (!fd) return std::move(fd).error();
        Stream stream{c, std::move(*fd), until};
        std::size_t budget = max_output_bytes;
        json::array replies;
        for (const std::string& command : commands) {
            HEAL_TRY(stream.send(command + "\r\n"));
            std::string reply;
            const bool list = command.compare(0, 3, "get") == 0 || command.compare(0, 5, "stats") == 0;
            for (;;) {
                auto line = stream.line();
                if (!line) return std::move(line).error();
                const bool last = !list || *line == "END" || *line == "RESET" || line->compare(0, 5, "ERROR") == 0 || line->compare(0, 12, "CLIENT_ERROR") == 0 || line->compare(0, 12, "SERVER_ERROR") == 0;
                const std::size_t n = std::min(budget, line->size());
                reply += (reply.empty() ? "" : "\n") + line->substr(0, n);
                budget -= n;
                if (line->compare(0, 6, "VALUE ") == 0) {
                    const auto words_end = line->find_last_of("0123456789");
                    // VALUE <key> <flags> <bytes> [<cas>]: the third number after the key (protocol.txt of memcached)
                    std::size_t at = line->find(' ', 6), size = 0;
                    at = at == std::string::npos ? at : line->find(' ', at + 1);
                    if (at == std::string::npos || words_end == std::string::npos) return fail(errc::protocol, "memcached sent a VALUE line that can't be read");
                    std::from_chars(line->data() + at + 1, line->data() + line->size(), size);
                    auto bytes = stream.bytes(size, budget);
                    if (!bytes) return std::move(bytes).error();
                    budget -= std::min(budget, bytes->size());
                    reply += "\n" + *bytes;
                    if (auto end = stream.line(); !end) return std::move(end).error();
                }
                if (last) break;
            }
            replies.emplace_back(to_valid_utf8(reply));
        }
        return json::object{{"replies", std::move(replies)}};
    };
    return plan;
}

constexpr Kind kinds[] = {
    {"http", plan_http, false, "method url headers body timeout_ms unix_socket read_only"},
    {"tcp_check", plan_tcp, false, "address timeout_ms"},
    {"redis", plan_redis, false, "address commands password timeout_ms"},
    {"memcached", plan_memcached, false, "address commands timeout_ms"},
    {"docker", plan_docker, false, "verb container unix_socket timeout_ms"},
};

}  // namespace

std::span<const Kind> net_kinds() { return kinds; }

result<HttpReply> http_call(Context& context, const HttpCall& call) {
    const Curl* c = curl();
    if (!c) return fail(errc::unavailable, "libcurl.so.4 cannot be loaded; install libcurl4");
    HttpReply out;
    CURL* easy = c->easy_init();
    CURLM* multi = c->multi_init();
    if (!easy || !multi) return fail(errc::internal, "libcurl cannot be set up");
    curl_slist* headers = nullptr;
    for (const auto& [name, value] : call.headers) headers = c->slist_append(headers, (name + ": " + value).c_str());
    headers = c->slist_append(headers, "Expect:");
    const auto ms = std::max<std::int64_t>(1, std::min(call.timeout, context.remaining()).count());
    c->easy_setopt(easy, CURLOPT_URL, call.url.c_str());
    c->easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call.method.c_str());
    if (call.method == "HEAD") c->easy_setopt(easy, CURLOPT_NOBODY, 1L);
    if (!call.body.empty() || call.method == "POST" || call.method == "PUT" || call.method == "PATCH") {
        c->easy_setopt(easy, CURLOPT_POSTFIELDSIZE, static_cast<long>(call.body.size()));
        c->easy_setopt(easy, CURLOPT_POSTFIELDS, call.body.c_str());
    }
    c->easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    c->easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(ms));
    c->easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    c->easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);  // a redirect could leave what is granted
    c->easy_setopt(easy, CURLOPT_PROXY, "");
    c->easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    c->easy_setopt(easy, CURLOPT_USERAGENT, "heald/" HEAL_VERSION);
    if (!call.unix_socket.empty()) c->easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, call.unix_socket.c_str());
    c->easy_setopt(easy, CURLOPT_WRITEFUNCTION, &take_body);
    c->easy_setopt(easy, CURLOPT_WRITEDATA, &out.body);
    c->easy_setopt(easy, CURLOPT_HEADERFUNCTION, &take_header);
    c->easy_setopt(easy, CURLOPT_HEADERDATA, &out.headers);
    c->multi_add_handle(multi, easy);
    int running = 1;
    bool stopped = false;
    CURLcode code = CURLE_OK;
    while (running > 0 && !stopped) {
        c->multi_perform(multi, &running);
        if (running > 0) {
            curl_waitfd extra{context.interrupt.fd(), CURL_WAIT_POLLIN, 0};
            int ready = 0;
            c->multi_poll(multi, &extra, context.interrupt.fd() >= 0 ? 1U : 0U, 1'000, &ready);
            stopped = context.interrupt.stopped();
        }
    }
    int left = 0;
    while (const CURLMsg* message = c->multi_info_read(multi, &left)) {
        if (message->msg == CURLMSG_DONE) code = message->data.result;
    }
    long status = 0;
    c->easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    out.status = static_cast<int>(status);
    const std::string words = c->easy_strerror(code);
    c->multi_remove_handle(multi, easy);
    c->easy_cleanup(easy);
    c->multi_cleanup(multi);
    c->slist_free_all(headers);
    if (stopped) return fail(errc::cancelled, "the call was cancelled during a request");
    if (code == CURLE_OPERATION_TIMEDOUT && context.remaining().count() == 0) return fail(errc::cancelled, "the deadline of the call came during a request");
    if (code != CURLE_OK) return fail(code == CURLE_OPERATION_TIMEDOUT ? errc::timeout : errc::unavailable, fmt::format("{} {}: {}", call.method, call.url.substr(0, call.url.find('?')), words));
    return out;
}

}  // namespace heal::effects
