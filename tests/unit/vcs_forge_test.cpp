#include "vcs/forge.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <deque>
#include <functional>

namespace heal::vcs {
namespace {

/// Answers in order, and keeps what was asked.
class Scripted final : public net::HttpClient {
public:
    result<net::HttpAnswer> send(const net::HttpRequest& request) override {
        asked.push_back(request);
        if (answers.empty()) return fail(errc::unavailable, "nobody answers");
        auto next = std::move(answers.front());
        answers.pop_front();
        return next;
    }
    void will(
        unsigned status, std::string body, std::vector<std::pair<std::string, std::string>> headers = {}
    ) {
        answers.push_back(net::HttpAnswer{status, std::move(headers), std::move(body)});
    }
    std::string line(std::size_t i) const {
        return i < asked.size() ? asked[i].method + " " + asked[i].url : "none";
    }
    std::string header(std::size_t i, const std::string& name) const {
        for (const auto& [n, v] : asked.at(i).headers)
            if (n == name) return v;
        return "none";
    }

    std::deque<net::HttpAnswer> answers;
    std::vector<net::HttpRequest> asked;
};

const ForgeSettings github{"github", "https://api.github.com/", "o/r", "ghp_test"};
const ForgeSettings gitlab{"gitlab", "https://gitlab.example.com", "grp/proj", "glpat-test"};
const ChangeRequest change{"heal: fix TypeError", "Root cause...", "heal/1", "main", true, {"heald"}};

// Method, path, headers and body are those that octokit-rest 22.0.1 sent to a capturing server.
TEST(GitHub, OpensAsOctokitDoes) {
    Scripted http;
    http.will(
        201, R"({"number":7,"html_url":"https://github.com/o/r/pull/7","state":"open","merged":false})"
    );
    http.will(200, "[]");
    const auto forge = *create_forge(github, http);
    const auto opened = forge->open(change);
    ASSERT_TRUE(opened) << opened.error().text;
    EXPECT_EQ(opened->number, 7);
    EXPECT_EQ(opened->url, "https://github.com/o/r/pull/7");
    EXPECT_EQ(opened->state, "open");
    EXPECT_FALSE(opened->existed);
    ASSERT_EQ(http.asked.size(), 2U);
    EXPECT_EQ(http.line(0), "POST https://api.github.com/repos/o/r/pulls");
    EXPECT_EQ(
        http.asked[0].body,
        R"({"title":"heal: fix TypeError","head":"heal/1","base":"main","body":"Root cause...","draft":true})"
    );
    EXPECT_EQ(http.header(0, "Authorization"), "Bearer ghp_test");
    EXPECT_EQ(http.header(0, "Accept"), "application/vnd.github+json");
    EXPECT_EQ(http.header(0, "X-GitHub-Api-Version"), "2022-11-28");
    EXPECT_EQ(http.header(0, "User-Agent").substr(0, 6), "heald/");
    EXPECT_EQ(http.header(0, "Content-Type"), "application/json");
    EXPECT_EQ(http.line(1), "POST https://api.github.com/repos/o/r/issues/7/labels");
    EXPECT_EQ(http.asked[1].body, R"({"labels":["heald"]})");
}

TEST(GitHub, FindsTheOneThatIsThere) {
    Scripted http;
    http.will(
        422,
        R"({"message":"Validation Failed","errors":[{"resource":"PullRequest","code":"custom","message":"A pull request already exists for o:heal/1."}]})"
    );
    http.will(200, R"([{"number":5,"html_url":"u","state":"open","merged_at":null}])");
    http.will(403, "{}");
    const auto forge = *create_forge(github, http);
    const auto opened = forge->open(change);
    ASSERT_TRUE(opened) << opened.error().text;
    EXPECT_EQ(opened->number, 5);
    EXPECT_TRUE(opened->existed);
    EXPECT_EQ(
        http.line(1), "GET https://api.github.com/repos/o/r/pulls?state=open&head=o%3Aheal%2F1&base=main"
    );
}

TEST(GitHub, DoesWithoutDraftsWhereThereAreNone) {
    Scripted http;
    http.will(422, R"({"message":"Draft pull requests are not supported in this repository."})");
    http.will(201, R"({"number":8,"html_url":"u","state":"open"})");
    http.will(200, "[]");
    EXPECT_EQ((*create_forge(github, http))->open(change)->number, 8);
    EXPECT_NE(http.asked[1].body.find(R"("draft":false)"), std::string::npos);
}

TEST(GitHub, ReadsCommentsAndCloses) {
    Scripted http;
    http.will(200, R"({"number":7,"html_url":"u","state":"closed","merged":true})");
    http.will(200, R"({"number":7,"html_url":"u","state":"closed","merged":false,"merged_at":null})");
    http.will(201, "{}");
    http.will(200, "{}");
    const auto forge = *create_forge(github, http);
    EXPECT_EQ(forge->find(7)->state, "merged");
    EXPECT_EQ(forge->find(7)->state, "closed");
    EXPECT_TRUE(forge->comment(7, "did not hold"));
    EXPECT_TRUE(forge->close(7));
    EXPECT_EQ(http.line(0), "GET https://api.github.com/repos/o/r/pulls/7");
    EXPECT_EQ(http.line(2), "POST https://api.github.com/repos/o/r/issues/7/comments");
    EXPECT_EQ(http.asked[2].body, R"({"body":"did not hold"})");
    EXPECT_EQ(http.line(3), "PATCH https://api.github.com/repos/o/r/pulls/7");
    EXPECT_EQ(http.asked[3].body, R"({"state":"closed"})");
}

// As captured from a GitLab client: POST, path with the project escaped, PRIVATE-TOKEN, labels as one text.
TEST(GitLab, OpensAsCaptured) {
    Scripted http;
    http.will(
        201,
        R"({"id":900,"iid":3,"web_url":"https://gitlab.example.com/grp/proj/-/merge_requests/3","state":"opened"})"
    );
    const auto forge = *create_forge(gitlab, http);
    ChangeRequest request = change;
    request.title = "heal: fix", request.body = "d", request.draft = false;
    const auto opened = forge->open(request);
    ASSERT_TRUE(opened) << opened.error().text;
    EXPECT_EQ(opened->number, 3);
    EXPECT_EQ(opened->state, "open");
    EXPECT_EQ(http.line(0), "POST https://gitlab.example.com/api/v4/projects/grp%2Fproj/merge_requests");
    EXPECT_EQ(
        http.asked[0].body,
        R"({"source_branch":"heal/1","target_branch":"main","title":"heal: fix","description":"d","remove_source_branch":true,"labels":"heald"})"
    );
    EXPECT_EQ(http.header(0, "PRIVATE-TOKEN"), "glpat-test");
    EXPECT_EQ(http.header(0, "Content-Type"), "application/json");
}

TEST(GitLab, MarksDraftsAndFindsTheOneThatIsThere) {
    Scripted http;
    http.will(409, R"({"message":["Another open merge request already exists for this source branch: !3"]})");
    http.will(200, R"([{"iid":3,"web_url":"u","state":"opened"}])");
    const auto opened = (*create_forge(gitlab, http))->open(change);
    ASSERT_TRUE(opened) << opened.error().text;
    EXPECT_TRUE(opened->existed);
    EXPECT_EQ(opened->number, 3);
    EXPECT_NE(http.asked[0].body.find(R"("title":"Draft: heal: fix TypeError")"), std::string::npos);
    EXPECT_EQ(
        http.line(1),
        "GET "
        "https://gitlab.example.com/api/v4/projects/grp%2Fproj/"
        "merge_requests?state=opened&source_branch=heal%2F1&target_branch=main"
    );
}

TEST(GitLab, ReadsCommentsAndCloses) {
    Scripted http;
    http.will(200, R"({"iid":3,"web_url":"u","state":"merged"})");
    http.will(201, "{}");
    http.will(200, "{}");
    const auto forge = *create_forge(gitlab, http);
    EXPECT_EQ(forge->find(3)->state, "merged");
    EXPECT_TRUE(forge->comment(3, "x"));
    EXPECT_TRUE(forge->close(3));
    EXPECT_EQ(
        http.line(1), "POST https://gitlab.example.com/api/v4/projects/grp%2Fproj/merge_requests/3/notes"
    );
    EXPECT_EQ(http.line(2), "PUT https://gitlab.example.com/api/v4/projects/grp%2Fproj/merge_requests/3");
    EXPECT_EQ(http.asked[2].body, R"({"state_event":"close"})");
}

TEST(Forge, SaysWhatWentWrong) {
    struct Row {
        unsigned status;
        std::string body;
        std::vector<std::pair<std::string, std::string>> headers;
        errc code;
        std::string words;
    };
    const std::vector<Row> rows{
        {401, R"({"message":"Bad credentials"})", {}, errc::denied, "Bad credentials"},
        {403,
         R"({"message":"Resource not accessible by personal access token"})",
         {{"x-ratelimit-remaining", "4999"}},
         errc::denied,
         "not accessible"},
        {403,
         R"({"message":"API rate limit exceeded"})",
         {{"x-ratelimit-remaining", "0"}, {"x-ratelimit-reset", "1790000000"}},
         errc::overloaded,
         "until 2026-09-21T14:13:20Z"},
        {403,
         R"({"message":"You have exceeded a secondary rate limit"})",
         {{"retry-after", "60"}, {"date", "Sat, 28 Nov 2026 10:00:00 GMT"}},
         errc::overloaded,
         "until 2026-11-28T10:01:00Z"},
        {429, "", {{"retry-after", "30"}}, errc::overloaded, "for 30 s"},
        {429, "", {{"ratelimit-reset", "1790000000"}}, errc::overloaded, "until 2026-09-21T14:13:20Z"},
        {404, "{}", {}, errc::not_found, "404"},
        {422,
         R"({"message":"Validation Failed","errors":[{"field":"base","code":"invalid"}]})",
         {},
         errc::conflict,
         "base invalid"},
        {409, R"({"message":{"title":["is too long"]}})", {}, errc::conflict, "is too long"},
        {502, "<html>", {}, errc::unavailable, "502"},
        {301, "", {}, errc::protocol, "301"},
        {200, "no json", {}, errc::protocol, "JSON"},
        {200, "{}", {}, errc::protocol, "number"}};
    for (const auto& settings : {github, gitlab})
        for (const Row& row : rows) {
            Scripted http;
            http.will(row.status, row.body, row.headers);
            const auto found = (*create_forge(settings, http))->find(1);
            ASSERT_FALSE(found) << row.status;
            EXPECT_EQ(found.error().code, row.code) << row.status << " " << found.error().text;
            EXPECT_NE(found.error().text.find(row.words), std::string::npos) << found.error().text;
            EXPECT_EQ(found.error().text.find(settings.token), std::string::npos);
        }
    Scripted silent;
    EXPECT_EQ((*create_forge(github, silent))->open(change).error().code, errc::unavailable);
}

TEST(Forge, RefusesSettingsThatCannotBeRight) {
    Scripted http;
    const auto code = [&](ForgeSettings s) { return create_forge(s, http).error().code; };
    for (auto change_one : std::vector<std::function<void(ForgeSettings&)>>{
             [](auto& s) { s.kind = "gitea"; },
             [](auto& s) { s.base_url = "ftp://x"; },
             [](auto& s) { s.base_url = "https://user@x"; },
             [](auto& s) { s.project = "r"; },
             [](auto& s) { s.project = "a/b/c"; },
             [](auto& s) { s.project = "o/.."; },
             [](auto& s) { s.token = ""; },
             [](auto& s) { s.token = "x\r\nHost: y"; },
             [](auto& s) { s.api_version = "1\n"; }}) {
        ForgeSettings s = github;
        change_one(s);
        EXPECT_EQ(code(s), errc::invalid_input);
    }
}

TEST(Forge, CutsWhatIsTooLong) {
    Scripted http;
    http.will(201, R"({"number":7,"html_url":"u","state":"open"})");
    ChangeRequest request = change;
    request.labels.clear();
    request.title = std::string(400, 't');
    for (int i = 0; i < 40'000; ++i) request.body += "\xc3\xa4";
    ASSERT_TRUE((*create_forge(github, http))->open(request));
    const auto body = parse_json(http.asked[0].body, "body");
    ASSERT_TRUE(body);
    EXPECT_LE(string_at(body->as_object(), "title").size(), 250U);
    EXPECT_LE(string_at(body->as_object(), "body").size(), 65'000U);
    EXPECT_TRUE(string_at(body->as_object(), "body").ends_with("\xc3\xa4\xe2\x80\xa6"));
}

}  // namespace
}  // namespace heal::vcs
