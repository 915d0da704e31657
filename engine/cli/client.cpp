#include "cli/client.hpp"

#include <curl/curl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <memory>

namespace heal::cli {
namespace {

struct Handle {
    Handle() : curl(::curl_easy_init(), ::curl_easy_cleanup), headers(nullptr, ::curl_slist_free_all) {}
    void header(const std::string& line) {
        headers.reset(::curl_slist_append(headers.release(), line.c_str()));
    }
    std::unique_ptr<CURL, void (*)(CURL*)> curl;
    std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers;
};

std::size_t collect(char* data, std::size_t size, std::size_t count, void* into) {
    static_cast<std::string*>(into)->append(data, size * count);
    return size * count;
}

void set_up(Handle& h, const Client& client, const std::string& path) {
    ::curl_easy_setopt(h.curl.get(), CURLOPT_URL, (client.server + path).c_str());
    ::curl_easy_setopt(h.curl.get(), CURLOPT_NOPROXY, "*");
    ::curl_easy_setopt(h.curl.get(), CURLOPT_PROTOCOLS_STR, "http,https");
    ::curl_easy_setopt(h.curl.get(), CURLOPT_USERAGENT, "healctl/" HEAL_VERSION);
    if (!client.token.empty()) h.header("Authorization: Bearer " + client.token);
    const char* user = std::getenv("USER");
    char host[256] = "";
    ::gethostname(host, sizeof host - 1);
    h.header(fmt::format("X-Heald-Actor: {}@{}", user ? user : std::to_string(::getuid()), host));
}

Error unreachable(const Client& client, CURLcode rc) {
    return fail(
        errc::unavailable,
        fmt::format(
            "heald does not answer at {}: {}; is it running? --server or HEALCTL_SERVER says where",
            client.server,
            ::curl_easy_strerror(rc)
        )
    );
}

}  // namespace

namespace {

/// One request; its body when the status is 2xx, else the error that the server told.
result<std::string> ask(
    const Client& client, const std::string& method, const std::string& path, const std::string& body
) {
    Handle h;
    std::string answer;
    set_up(h, client, path);
    ::curl_easy_setopt(h.curl.get(), CURLOPT_CUSTOMREQUEST, method.c_str());
    ::curl_easy_setopt(h.curl.get(), CURLOPT_TIMEOUT, client.timeout_s);
    if (method != "GET") {
        h.header("Content-Type: application/json");
        ::curl_easy_setopt(h.curl.get(), CURLOPT_POSTFIELDS, body.c_str());
        ::curl_easy_setopt(h.curl.get(), CURLOPT_POSTFIELDSIZE, static_cast<long>(body.size()));
    }
    ::curl_easy_setopt(h.curl.get(), CURLOPT_HTTPHEADER, h.headers.get());
    ::curl_easy_setopt(h.curl.get(), CURLOPT_WRITEFUNCTION, collect);
    ::curl_easy_setopt(h.curl.get(), CURLOPT_WRITEDATA, &answer);
    if (const auto rc = ::curl_easy_perform(h.curl.get()); rc != CURLE_OK) return unreachable(client, rc);
    long status = 0;
    ::curl_easy_getinfo(h.curl.get(), CURLINFO_RESPONSE_CODE, &status);
    if (status >= 200 && status < 300) return answer;
    std::string text = fmt::format("HTTP status {}", status);
    const auto parsed = parse_json(answer, "answer of " + client.server);
    if (parsed && parsed->is_object()) text = string_at(parsed->get_object(), "detail", text);
    const errc code = status == 404                    ? errc::not_found
                      : status == 401 || status == 403 ? errc::denied
                      : status == 409                  ? errc::conflict
                      : status == 400                  ? errc::invalid_input
                      : status == 503                  ? errc::unavailable
                                                       : errc::internal;
    return fail(code, std::move(text));
}

}  // namespace

result<json::value> Client::call(const std::string& method, const std::string& path, const std::string& body)
    const {
    auto answer = ask(*this, method, path, body);
    if (!answer) return answer.error();
    return parse_json(*answer, "answer of " + server);
}

result<std::string> Client::text(const std::string& path) const { return ask(*this, "GET", path, {}); }

result<void> Client::stream(const std::function<bool(std::string_view, std::string_view)>& on_item) const {
    struct Into {
        const std::function<bool(std::string_view, std::string_view)>& on_item;
        std::string buffer;
        bool stopped = false;
    } into{on_item, {}, false};
    Handle h;
    set_up(h, *this, "/api/v1/stream");
    ::curl_easy_setopt(h.curl.get(), CURLOPT_HTTPHEADER, h.headers.get());
    ::curl_easy_setopt(h.curl.get(), CURLOPT_FAILONERROR, 1L);
    const auto take = +[](char* data, std::size_t size, std::size_t count, void* user) -> std::size_t {
        auto& in = *static_cast<Into*>(user);
        in.buffer.append(data, size * count);
        for (auto end = in.buffer.find("\n\n"); end != std::string::npos; end = in.buffer.find("\n\n")) {
            std::string_view block{in.buffer.data(), end}, type, text;
            while (!block.empty()) {
                const auto line = block.substr(0, block.find('\n'));
                block.remove_prefix(std::min(block.size(), line.size() + 1));
                if (line.starts_with("event: ")) type = line.substr(7);
                if (line.starts_with("data: ")) text = line.substr(6);
            }
            if (!type.empty() && !in.on_item(type, text)) {
                in.stopped = true;
                return 0;
            }
            in.buffer.erase(0, end + 2);
        }
        return size * count;
    };
    ::curl_easy_setopt(h.curl.get(), CURLOPT_WRITEFUNCTION, take);
    ::curl_easy_setopt(h.curl.get(), CURLOPT_WRITEDATA, &into);
    const auto rc = ::curl_easy_perform(h.curl.get());
    if (rc == CURLE_OK || into.stopped) return {};
    return unreachable(*this, rc);
}

std::string escape(const std::string& text) {
    std::string out;
    for (const char c : text) {
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                           c == '-' || c == '_' || c == '.' || c == '~';
        if (plain)
            out += c;
        else
            out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
    return out;
}

}  // namespace heal::cli
