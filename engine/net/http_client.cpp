#include "net/http_client.hpp"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace heal::net {
namespace {

/// Of an answer; a header line of its own is at most 100 KiB by libcurl's own bound.
constexpr std::size_t max_header_bytes = 256U << 10U;

struct Exchange {
    const HttpRequest& request;
    HttpAnswer answer;
    std::size_t header_bytes = 0;
    bool too_large = false, cancelled = false;
};

std::string lower(std::string_view text) {
    std::string out{text};
    for (char& c : out) {
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    return out;
}

std::string_view trimmed(std::string_view text) {
    const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
    while (!text.empty() && blank(text.front())) text.remove_prefix(1);
    while (!text.empty() && blank(text.back())) text.remove_suffix(1);
    return text;
}

std::size_t on_body(char* data, std::size_t size, std::size_t count, void* into) {
    auto& x = *static_cast<Exchange*>(into);
    const std::size_t n = size * count;
    if (n > x.request.max_answer_bytes - x.answer.body.size()) {
        x.too_large = true;
        return 0;
    }
    x.answer.body.append(data, n);
    return n;
}

std::size_t on_header(char* data, std::size_t size, std::size_t count, void* into) {
    auto& x = *static_cast<Exchange*>(into);
    const std::size_t n = size * count;
    const std::string_view line{data, n};
    // An interim answer (100, 103) comes before the real one: only the last counts.
    if (line.starts_with("HTTP/")) {
        x.answer.headers.clear();
        return n;
    }
    x.header_bytes += n;
    if (x.header_bytes > max_header_bytes) {
        x.too_large = true;
        return 0;
    }
    if (const auto colon = line.find(':'); colon != std::string_view::npos && colon > 0)
        x.answer.headers.emplace_back(lower(trimmed(line.substr(0, colon))), trimmed(line.substr(colon + 1)));
    return n;
}

int on_progress(void* into, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    auto& x = *static_cast<Exchange*>(into);
    x.cancelled = x.request.cancel && x.request.cancel->load(std::memory_order_relaxed);
    return x.cancelled ? 1 : 0;
}

/// A line break in a header would begin another one.
bool is_one_line(std::string_view text) {
    return text.find_first_of(std::string_view{"\r\n\0", 3}) == std::string_view::npos;
}

/// What of an address may stand in an error: no user, no password, no query.
std::string shown(const std::string& url) {
    std::string out = url.substr(0, url.find_first_of("?#"));
    const auto start = out.find("://");
    if (start == std::string::npos) return out;
    const auto at = out.rfind('@', out.find('/', start + 3));
    if (at != std::string::npos && at > start) out.erase(start + 3, at - start - 2);
    return out;
}

struct Headers {
    curl_slist* list = nullptr;
    Headers() = default;
    Headers(const Headers&) = delete;
    Headers& operator=(const Headers&) = delete;
    ~Headers() { ::curl_slist_free_all(list); }
    void add(const std::string& line) {
        if (auto* longer = ::curl_slist_append(list, line.c_str())) list = longer;
    }
};

Error error_of(CURLcode rc, const char* message, const Exchange& x) {
    const std::string place = shown(x.request.url);
    const std::string words = *message != '\0' ? message : ::curl_easy_strerror(rc);
    if (x.cancelled || rc == CURLE_ABORTED_BY_CALLBACK)
        return fail(errc::cancelled, "the request was cancelled");
    if (x.too_large) {
        return fail(
            errc::invalid_input,
            fmt::format("{}: the answer is larger than {} bytes", place, x.request.max_answer_bytes)
        );
    }
    switch (rc) {
        case CURLE_OPERATION_TIMEDOUT:
            return fail(
                errc::timeout, fmt::format("{}: no answer within {} ms", place, x.request.timeout.count())
            );
        case CURLE_URL_MALFORMAT:
            return fail(
                errc::invalid_input, fmt::format("{}: must be an http:// or https:// address", place)
            );
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_RESOLVE_PROXY:
        case CURLE_COULDNT_CONNECT:
        case CURLE_SSL_CONNECT_ERROR:
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_GOT_NOTHING:
        case CURLE_SEND_ERROR:
        case CURLE_RECV_ERROR:
            return fail(errc::unavailable, fmt::format("{}: {}", place, words));
        default:
            return fail(errc::protocol, fmt::format("{}: {}", place, words));
    }
}

class CurlClient final : public HttpClient {
public:
    CurlClient() {
        ::curl_global_init(CURL_GLOBAL_DEFAULT);
        // The proxy of the environment is for the outside; what listens on this machine is asked directly.
        direct_ = "localhost,127.0.0.1,::1";
        for (const char* name : {"no_proxy", "NO_PROXY"}) {
            if (const char* more = std::getenv(name); more && *more != '\0') {
                direct_ += std::string{","} + more;
                break;
            }
        }
    }

    result<HttpAnswer> send(const HttpRequest& request) override {
        if (request.cancel && request.cancel->load(std::memory_order_relaxed))
            return fail(errc::cancelled, "the request was cancelled");
        if (!request.url.starts_with("http://") && !request.url.starts_with("https://"))
            return fail(
                errc::invalid_input,
                fmt::format("{}: must be an http:// or https:// address", shown(request.url))
            );
        if (!is_one_line(request.url) || !is_one_line(request.method) || request.method.empty())
            return fail(errc::invalid_input, "method and address must each be one line");
        Headers headers;
        bool has_type = false;
        for (const auto& [name, value] : request.headers) {
            if (!is_one_line(name) || !is_one_line(value) || name.empty() ||
                name.find(':') != std::string::npos)
                return fail(errc::invalid_input, fmt::format("the header '{}' must be one line", name));
            has_type = has_type || lower(name) == "content-type";
            // "Name;" is libcurl's way to send an empty one.
            headers.add(value.empty() ? name + ";" : name + ": " + value);
        }
        // No waiting for "100 Continue", and no type that the caller did not give.
        headers.add("Expect:");
        if (!has_type) headers.add("Content-Type:");

        const std::unique_ptr<CURL, void (*)(CURL*)> curl{::curl_easy_init(), ::curl_easy_cleanup};
        if (!curl) return fail(errc::internal, "libcurl could not be started");
        Exchange x{request, {}};
        char message[CURL_ERROR_SIZE] = "";
        auto* c = curl.get();
        ::curl_easy_setopt(c, CURLOPT_URL, request.url.c_str());
        ::curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
        ::curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
        ::curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
        ::curl_easy_setopt(c, CURLOPT_NOPROXY, direct_.c_str());
        ::curl_easy_setopt(c, CURLOPT_USERAGENT, "heald/" HEAL_VERSION);
        ::curl_easy_setopt(c, CURLOPT_ACCEPT_ENCODING, "");  // all that libcurl can unpack
        ::curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers.list);
        ::curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, std::max(1L, static_cast<long>(request.timeout.count())));
        ::curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
        ::curl_easy_setopt(c, CURLOPT_WRITEDATA, &x);
        ::curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
        ::curl_easy_setopt(c, CURLOPT_HEADERDATA, &x);
        ::curl_easy_setopt(c, CURLOPT_ERRORBUFFER, message);
        ::curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
        ::curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
        ::curl_easy_setopt(c, CURLOPT_XFERINFODATA, &x);
        if (request.method == "HEAD") {
            ::curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
        } else if (!request.body.empty() || (request.method != "GET" && request.method != "DELETE")) {
            ::curl_easy_setopt(c, CURLOPT_POSTFIELDS, request.body.data());
            ::curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
        }
        ::curl_easy_setopt(
            c, CURLOPT_CUSTOMREQUEST, request.method == "HEAD" ? nullptr : request.method.c_str()
        );
        if (const auto rc = perform(c, x); rc != CURLE_OK) return error_of(rc, message, x);
        long status = 0;
        ::curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
        if (status < 100 || status > 999)
            return fail(errc::protocol, fmt::format("{}: the answer has no status", shown(request.url)));
        x.answer.status = static_cast<unsigned>(status);
        return std::move(x.answer);
    }

private:
    /// libcurl's own callback comes once a second while nothing moves; a flag is looked at ten times as
    /// often.
    static CURLcode perform(CURL* easy, Exchange& x) {
        if (!x.request.cancel) return ::curl_easy_perform(easy);
        const std::unique_ptr<CURLM, CURLMcode (*)(CURLM*)> multi{::curl_multi_init(), ::curl_multi_cleanup};
        if (!multi || ::curl_multi_add_handle(multi.get(), easy) != CURLM_OK) return CURLE_FAILED_INIT;
        CURLcode rc = CURLE_FAILED_INIT;
        for (int running = 1; running > 0;) {
            if (::curl_multi_perform(multi.get(), &running) != CURLM_OK) break;
            int left = 0;
            while (const auto* done = ::curl_multi_info_read(multi.get(), &left)) {
                if (done->msg == CURLMSG_DONE) rc = done->data.result;
            }
            if (running == 0) break;
            if (x.request.cancel->load(std::memory_order_relaxed)) {
                x.cancelled = true;
                rc = CURLE_ABORTED_BY_CALLBACK;
                break;
            }
            ::curl_multi_poll(multi.get(), nullptr, 0, 100, nullptr);
        }
        ::curl_multi_remove_handle(multi.get(), easy);
        return rc;
    }

    std::string direct_;
};

}  // namespace

std::string_view HttpAnswer::header(std::string_view name) const {
    const auto it =
        std::find_if(headers.begin(), headers.end(), [&](const auto& h) { return h.first == name; });
    return it == headers.end() ? std::string_view{} : std::string_view{it->second};
}

std::unique_ptr<HttpClient> create_http_client() { return std::make_unique<CurlClient>(); }

}  // namespace heal::net
