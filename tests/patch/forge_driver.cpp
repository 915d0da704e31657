// Drives a forge at a base URL: forge_driver KIND URL PROJECT. One line per call; ends with 1 when one fails.
#include "vcs/forge.hpp"

#include <curl/curl.h>
#include <fmt/format.h>

#include <cstdio>
#include <memory>

using namespace heal;

namespace {

/// As small as it can be; heald's own client has its own tests.
class Client final : public net::HttpClient {
public:
    result<net::HttpAnswer> send(const net::HttpRequest& request) override {
        const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl{curl_easy_init(), curl_easy_cleanup};
        net::HttpAnswer answer;
        curl_slist* list = nullptr;
        for (const auto& [name, value] : request.headers)
            list = curl_slist_append(list, (name + ": " + value).c_str());
        curl_easy_setopt(curl.get(), CURLOPT_URL, request.url.c_str());
        curl_easy_setopt(curl.get(), CURLOPT_CUSTOMREQUEST, request.method.c_str());
        curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, list);
        curl_easy_setopt(curl.get(), CURLOPT_PROXY, "");
        if (!request.body.empty()) curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, request.body.c_str());
        curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT, 60L);
        curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &answer.body);
        curl_easy_setopt(
            curl.get(),
            CURLOPT_WRITEFUNCTION,
            +[](char* data, std::size_t size, std::size_t n, void* to) {
                static_cast<std::string*>(to)->append(data, size * n);
                return size * n;
            }
        );
        const CURLcode done = curl_easy_perform(curl.get());
        long status = 0;
        curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
        curl_slist_free_all(list);
        if (done != CURLE_OK) return fail(errc::unavailable, curl_easy_strerror(done));
        answer.status = static_cast<unsigned>(status);
        fmt::print("{} {} -> {}\n", request.method, request.url, answer.status);
        if (answer.status >= 400) fmt::print("{}\n", answer.body.substr(0, 1000));
        worst = std::max(worst, answer.status);
        return answer;
    }
    unsigned worst = 0;
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        fmt::print(stderr, "usage: forge_driver github|gitlab URL PROJECT\n");
        return 2;
    }
    Client client;
    auto forge = vcs::create_forge({argv[1], argv[2], argv[3], "token-of-a-test"}, client);
    if (!forge) {
        fmt::print("{}\n", forge.error().text);
        return 1;
    }
    bool good = true;
    const auto told = [&](const char* what, const auto& answer) {
        if (!answer) fmt::print("{}: {} {}\n", what, to_string(answer.error().code), answer.error().text);
        good = good && answer;
        return static_cast<bool>(answer);
    };
    const auto opened = (*forge)->open(
        {"heal: divide only what is there",
         "What happened, and why this helps.\n",
         "heald/bug-1",
         "main",
         true,
         {"heald", "bug"}}
    );
    if (told("open", opened)) {
        fmt::print("opened {} {} {}\n", opened->number, opened->url, opened->state);
        const auto found = (*forge)->find(opened->number);
        if (told("find", found)) fmt::print("found {} {}\n", found->number, found->state);
        told("comment", (*forge)->comment(opened->number, "It did not hold; it is taken back."));
        told("close", (*forge)->close(opened->number));
    }
    // A label is not worth a failure to the forge, but here every answer counts.
    return good && client.worst < 400 ? 0 : 1;
}
