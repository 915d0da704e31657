#include "net/http_client.hpp"

#include "loopback_server.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace heal::net {
namespace {

using namespace std::chrono_literals;

HttpRequest get(const std::string& url) {
    HttpRequest r;
    r.url = url;
    r.timeout = 5s;
    return r;
}

TEST(HttpClient, SendsMethodHeadersAndBodyAndReadsTheAnswer) {
    LoopbackServer server{[](const std::string&) {
        return http_answer("hello", "201 Created\r\nX-Two: a\r\nx-two:  b \r\nEmpty:\r\n");
    }};
    const auto client = create_http_client();
    HttpRequest r = get(server.url("/v1/x?y=1"));
    r.method = "POST";
    r.headers = {{"Content-Type", "application/json"}, {"X-Mine", "1"}, {"X-Empty", ""}};
    r.body = std::string{"{\"a\":\0}", 7};
    const auto answer = client->send(r).value();
    EXPECT_EQ(answer.status, 201U);
    EXPECT_EQ(answer.body, "hello");
    EXPECT_EQ(answer.header("x-two"), "a") << "the first of a name, in lower case, trimmed";
    EXPECT_EQ(answer.header("empty"), "");
    EXPECT_EQ(answer.header("none"), "");
    const auto seen = server.requests().at(0);
    EXPECT_TRUE(seen.starts_with("POST /v1/x?y=1 HTTP/1.1\r\n")) << seen;
    for (const char* head :
         {"Content-Type: application/json\r\n", "X-Mine: 1\r\n", "X-Empty:\r\n", "User-Agent: heald/"})
        EXPECT_NE(seen.find(head), std::string::npos) << head << " in " << seen;
    EXPECT_EQ(seen.find("Expect:"), std::string::npos);
    EXPECT_TRUE(seen.ends_with(r.body));
}

TEST(HttpClient, EachMethodIsSentAsItIs) {
    LoopbackServer server{[](const std::string& q) {
        return q.starts_with("HEAD") ? "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" : http_answer("x");
    }};
    const auto client = create_http_client();
    for (const char* method : {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"}) {
        HttpRequest r = get(server.url());
        r.method = method;
        const auto answer = client->send(r);
        ASSERT_TRUE(answer) << method << ": " << answer.error().text;
        EXPECT_TRUE(server.requests().back().starts_with(std::string{method} + " / ")) << method;
    }
}

TEST(HttpClient, AnyStatusIsAnAnswerAndNoRedirectIsFollowed) {
    LoopbackServer server{[](const std::string& q) {
        return q.starts_with("GET /302") ? http_answer("", "302 Found\r\nLocation: http://127.0.0.1:1/\r\n")
                                         : http_answer("no", "503 Unavailable\r\n");
    }};
    const auto client = create_http_client();
    EXPECT_EQ(client->send(get(server.url("/302"))).value().status, 302U);
    EXPECT_EQ(client->send(get(server.url("/503"))).value().status, 503U);
    EXPECT_EQ(server.requests().size(), 2U);
}

TEST(HttpClient, OnlyTheLastAnswersHeadersCount) {
    LoopbackServer server{[](const std::string&) {
        return "HTTP/1.1 103 Early Hints\r\nX-A: early\r\n\r\n" + http_answer("x", "200 OK\r\nX-B: late\r\n");
    }};
    const auto answer = create_http_client()->send(get(server.url())).value();
    EXPECT_EQ(answer.header("x-a"), "");
    EXPECT_EQ(answer.header("x-b"), "late");
}

TEST(HttpClient, AnAnswerBeyondTheBoundIsCutOffWhileItArrives) {
    LoopbackServer server{[](const std::string&) { return http_answer(std::string(300'000, 'x')); }};
    const auto client = create_http_client();
    HttpRequest r = get(server.url());
    r.max_answer_bytes = 1000;
    const auto outcome = client->send(r);
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, errc::invalid_input);
    EXPECT_NE(outcome.error().text.find("larger than 1000"), std::string::npos);
    r.max_answer_bytes = 300'000;
    EXPECT_EQ(client->send(r).value().body.size(), 300'000U);
}

TEST(HttpClient, ErrorsTellWhatHappenedAndNoSecretOfTheAddress) {
    const auto client = create_http_client();
    std::string gone;
    {
        LoopbackServer server{[](const std::string&) { return ""; }};
        gone = server.url();
        const auto empty = client->send(get(server.url()));
        EXPECT_EQ(empty.error().code, errc::unavailable);
    }
    gone.insert(7, "user:hunter2@");
    const auto nobody = client->send(get(gone + "?key=sesame"));
    EXPECT_EQ(nobody.error().code, errc::unavailable);
    EXPECT_EQ(nobody.error().text.find("hunter2"), std::string::npos) << nobody.error().text;
    EXPECT_EQ(nobody.error().text.find("sesame"), std::string::npos) << nobody.error().text;
    for (const char* url :
         {"", "ftp://127.0.0.1/", "file:///etc/passwd", "127.0.0.1", "http://", "http://a b/"})
        EXPECT_EQ(client->send(get(url)).error().code, errc::invalid_input) << url;
    LoopbackServer broken{[](const std::string&) { return "no http at all\r\n\r\n"; }};
    EXPECT_EQ(client->send(get(broken.url())).error().code, errc::protocol);
}

TEST(HttpClient, ALineBreakInAHeaderIsRefused) {
    LoopbackServer server{[](const std::string&) { return http_answer("x"); }};
    HttpRequest r = get(server.url());
    r.headers = {{"X-A", "1\r\nX-Evil: 2"}};
    EXPECT_EQ(create_http_client()->send(r).error().code, errc::invalid_input);
    EXPECT_TRUE(server.requests().empty());
}

TEST(HttpClient, TheTimeoutIsForTheWholeExchange) {
    LoopbackServer server{[](const std::string&) { return "hang"; }};
    HttpRequest r = get(server.url());
    r.timeout = 50ms;
    EXPECT_EQ(create_http_client()->send(r).error().code, errc::timeout);
}

TEST(HttpClient, AFlagEndsTheWaitWithinAMoment) {
    LoopbackServer server{[](const std::string&) { return "hang"; }};
    std::atomic<bool> cancel{false};
    HttpRequest r = get(server.url());
    r.timeout = 30s;
    r.cancel = &cancel;
    const auto begin = std::chrono::steady_clock::now();
    std::thread other{[&] {
        while (server.requests().empty()) std::this_thread::yield();
        cancel = true;
    }};
    EXPECT_EQ(create_http_client()->send(r).error().code, errc::cancelled);
    other.join();
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
    EXPECT_EQ(create_http_client()->send(r).error().code, errc::cancelled) << "set before: nothing is sent";
    EXPECT_EQ(server.requests().size(), 1U);
}

TEST(HttpClient, CallsRunSideBySide) {
    LoopbackServer server{[](const std::string& q) { return http_answer(q.substr(4, q.find(' ', 4) - 4)); }};
    const auto client = create_http_client();
    std::vector<std::thread> threads;
    std::atomic<int> right{0};
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&, i] {
            const std::atomic<bool> cancel{false};
            HttpRequest r = get(server.url("/" + std::to_string(i)));
            r.cancel = &cancel;
            const auto answer = client->send(r);
            right += answer && answer->body == "/" + std::to_string(i) ? 1 : 0;
        });
    }
    for (auto& t : threads) t.join();
    EXPECT_EQ(right, 8);
}

}  // namespace
}  // namespace heal::net
