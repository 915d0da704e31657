#include "vcs/forge.hpp"

#include "base/clock.hpp"
#include "vcs/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <ctime>
#include <optional>

namespace heal::vcs {
namespace {

// GitHub's own limits; GitLab's are wider.
constexpr std::size_t max_title = 250, max_body = 65'000;

std::string percent(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (std::isalnum(static_cast<unsigned char>(c)) != 0 ||
            std::string_view{"-._~"}.find(c) != std::string_view::npos)
            out += c;
        else
            out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
    return out;
}

/// At most `bytes`, without half a character.
std::string shortened(const std::string& text, std::size_t bytes) {
    std::string valid = to_valid_utf8(text);
    if (valid.size() <= bytes) return valid;
    std::size_t end = bytes - 3;
    while (end > 0 && (static_cast<unsigned char>(valid[end]) & 0xc0U) == 0x80U) --end;
    return valid.substr(0, end) + "\xe2\x80\xa6";
}

std::string_view header(const net::HttpAnswer& answer, std::string_view name) {
    for (const auto& [n, value] : answer.headers)
        if (n == name) return trim(value);
    return {};
}

std::optional<std::int64_t> whole(std::string_view text) {
    std::int64_t n = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return n;
}

/// RFC 9110, "Sun, 06 Nov 1994 08:49:37 GMT", as seconds.
std::optional<std::int64_t> http_date(std::string_view text) {
    static constexpr std::array<std::string_view, 12> months{
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    std::tm t{};
    std::array<char, 4> month{};
    const std::string s{text};
    if (s.size() < 29 || std::sscanf(
                             s.c_str() + 5,
                             "%2d %3s %4d %2d:%2d:%2d",
                             &t.tm_mday,
                             month.data(),
                             &t.tm_year,
                             &t.tm_hour,
                             &t.tm_min,
                             &t.tm_sec
                         ) != 6)
        return std::nullopt;
    const auto it = std::find(months.begin(), months.end(), std::string_view{month.data()});
    if (it == months.end()) return std::nullopt;
    t.tm_mon = static_cast<int>(it - months.begin());
    t.tm_year -= 1900;
    return static_cast<std::int64_t>(::timegm(&t));
}

/// Until when a limit holds, as far as the answer tells.
std::string until(const net::HttpAnswer& answer) {
    const auto at = [](std::int64_t seconds) {
        return fmt::format("until {}", to_rfc3339(Time{seconds * 1'000'000}).substr(0, 19) + "Z");
    };
    if (const auto retry = header(answer, "retry-after"); !retry.empty()) {
        if (const auto date = http_date(retry)) return at(*date);
        if (const auto seconds = whole(retry)) {
            if (const auto now = http_date(header(answer, "date"))) return at(*now + *seconds);
            return fmt::format("for {} s", *seconds);
        }
    }
    for (const char* name : {"x-ratelimit-reset", "ratelimit-reset"})
        if (const auto reset = whole(header(answer, name))) return at(*reset);
    return "for a minute";  // what GitHub asks for when it says nothing
}

/// What the server says is wrong: GitHub's "message" and "errors", GitLab's "message" (text, list or object)
/// and "error".
std::string words_of(const net::HttpAnswer& answer) {
    const auto parsed = parse_json(answer.body, "answer");
    std::string out;
    const auto add = [&](std::string_view text) {
        if (!text.empty()) out += (out.empty() ? "" : "; ") + std::string{text};
    };
    if (parsed && parsed->is_object()) {
        const auto& o = parsed->get_object();
        for (const char* key : {"message", "error", "error_description", "detail"}) {
            const auto* value = o.if_contains(key);
            if (value == nullptr || value->is_null()) continue;
            add(value->is_string() ? view(value->get_string()) : std::string_view{json::serialize(*value)});
        }
        for (const auto& error : array_at(o, "errors")) {
            if (error.is_string()) add(view(error.get_string()));
            if (!error.is_object()) continue;
            const auto& e = error.get_object();
            add(string_at(e, "message").empty()
                    ? fmt::format("{} {}", string_at(e, "field"), string_at(e, "code"))
                    : std::string{string_at(e, "message")});
        }
    }
    if (out.size() > 400) out = shortened(out, 400);
    return to_valid_utf8(out);
}

class RestForge : public Forge {
public:
    RestForge(ForgeSettings settings, net::HttpClient& http) : settings_(std::move(settings)), http_(http) {
        while (settings_.base_url.ends_with('/')) settings_.base_url.pop_back();
    }

protected:
    using Headers = std::vector<std::pair<std::string, std::string>>;
    virtual Headers headers() const = 0;

    result<net::HttpAnswer> send(
        const char* method, const std::string& path, const json::object* body = nullptr
    ) const {
        net::HttpRequest request;
        request.method = method;
        request.url = settings_.base_url + path;
        request.headers = headers();
        request.headers.emplace_back("User-Agent", "heald/" HEAL_VERSION);
        if (body != nullptr) {
            request.headers.emplace_back("Content-Type", "application/json");
            request.body = json::serialize(*body);
        }
        return http_.send(request);
    }

    Error wrong(std::string_view what, const net::HttpAnswer& answer) const {
        const std::string words = words_of(answer);
        const auto text = [&](std::string_view why) {
            return fmt::format(
                "{}: {}: {} {}{}{}",
                settings_.kind,
                what,
                why,
                answer.status,
                words.empty() ? "" : ", ",
                words
            );
        };
        const bool limited = answer.status == 429 ||
                             (answer.status == 403 && (!header(answer, "retry-after").empty() ||
                                                       header(answer, "x-ratelimit-remaining") == "0" ||
                                                       lower(words).find("rate limit") != std::string::npos));
        if (limited)
            return fail(
                errc::overloaded,
                fmt::format("{}: {}: the rate limit is reached {}", settings_.kind, what, until(answer))
            );
        if (answer.status == 401 || answer.status == 403)
            return fail(errc::denied, text("the token is not allowed to,"));
        if (answer.status == 404)
            return fail(errc::not_found, text("it is not there, or the token may not see it,"));
        if (answer.status == 400 || answer.status == 405 || answer.status == 409 || answer.status == 422)
            return fail(errc::conflict, text("refused with"));
        if (answer.status >= 500) return fail(errc::unavailable, text("the server fails with"));
        return fail(errc::protocol, text("unexpected answer"));
    }

    /// The object of a good answer.
    result<json::object> object(std::string_view what, const result<net::HttpAnswer>& answer) const {
        if (!answer) return answer.error();
        if (answer->status < 200 || answer->status > 299) return wrong(what, *answer);
        auto parsed = parse_json(answer->body, what);
        if (!parsed || !parsed->is_object())
            return fail(
                errc::protocol, fmt::format("{}: {}: the answer is no JSON object", settings_.kind, what)
            );
        return std::move(parsed->get_object());
    }
    result<json::array> list(std::string_view what, const result<net::HttpAnswer>& answer) const {
        if (!answer) return answer.error();
        if (answer->status != 200) return wrong(what, *answer);
        auto parsed = parse_json(answer->body, what);
        if (!parsed || !parsed->is_array())
            return fail(
                errc::protocol, fmt::format("{}: {}: the answer is no JSON array", settings_.kind, what)
            );
        return std::move(parsed->get_array());
    }
    result<void> done(std::string_view what, const result<net::HttpAnswer>& answer) const {
        if (!answer) return answer.error();
        if (answer->status < 200 || answer->status > 299) return wrong(what, *answer);
        return {};
    }

    result<ForgeAnswer> checked(ForgeAnswer answer, std::string_view what) const {
        if (answer.number <= 0)
            return fail(
                errc::protocol, fmt::format("{}: {}: the answer has no number", settings_.kind, what)
            );
        return answer;
    }

    ForgeSettings settings_;
    net::HttpClient& http_;
};

class GitHub final : public RestForge {
public:
    using RestForge::RestForge;

    result<ForgeAnswer> open(const ChangeRequest& request) override {
        json::object body{
            {"title", shortened(request.title, max_title)},
            {"head", request.head},
            {"base", request.base},
            {"body", shortened(request.body, max_body)},
            {"draft", request.draft}};
        auto answer = send("POST", repo() + "/pulls", &body);
        if (answer && answer->status == 422 && request.draft &&
            lower(words_of(*answer)).find("draft") != std::string::npos) {
            // Not every plan has drafts; an open one that waits for a person is the same.
            body["draft"] = false;
            answer = send("POST", repo() + "/pulls", &body);
        }
        ForgeAnswer out;
        if (answer && answer->status == 422 &&
            lower(words_of(*answer)).find("already exists") != std::string::npos) {
            const auto owner = settings_.project.substr(0, settings_.project.find('/'));
            auto found = list(
                "pull request of " + request.head,
                send(
                    "GET",
                    fmt::format(
                        "{}/pulls?state=open&head={}&base={}",
                        repo(),
                        percent(owner + ":" + request.head),
                        percent(request.base)
                    )
                )
            );
            if (!found) return found.error();
            if (found->empty() || !(*found)[0].is_object()) return wrong("open pull request", *answer);
            out = read((*found)[0].get_object());
            out.existed = true;
        } else {
            auto made = object("open pull request", answer);
            if (!made) return made.error();
            out = read(*made);
        }
        auto good = checked(std::move(out), "open pull request");
        if (!good || request.labels.empty()) return good;
        json::array labels;
        for (const auto& label : request.labels) labels.emplace_back(label);
        // A label is for order only: without the right to set one the request stands all the same.
        const json::object with{{"labels", std::move(labels)}};
        (void)send("POST", fmt::format("{}/issues/{}/labels", repo(), good->number), &with);
        return good;
    }

    result<ForgeAnswer> find(std::int64_t number) override {
        auto found = object(
            fmt::format("pull request {}", number), send("GET", fmt::format("{}/pulls/{}", repo(), number))
        );
        if (!found) return found.error();
        auto out = read(*found);
        out.existed = true;
        return checked(std::move(out), "pull request");
    }

    result<void> comment(std::int64_t number, const std::string& text) override {
        const json::object body{{"body", shortened(text, max_body)}};
        return done(
            fmt::format("comment on {}", number),
            send("POST", fmt::format("{}/issues/{}/comments", repo(), number), &body)
        );
    }

    result<void> close(std::int64_t number) override {
        const json::object body{{"state", "closed"}};
        return done(
            fmt::format("close {}", number), send("PATCH", fmt::format("{}/pulls/{}", repo(), number), &body)
        );
    }

private:
    Headers headers() const override {
        return {
            {"Authorization", "Bearer " + settings_.token},
            {"Accept", "application/vnd.github+json"},
            {"X-GitHub-Api-Version", settings_.api_version}};
    }
    std::string repo() const {
        const auto cut = settings_.project.find('/');
        return fmt::format(
            "/repos/{}/{}",
            percent(settings_.project.substr(0, cut)),
            percent(settings_.project.substr(cut + 1))
        );
    }
    static ForgeAnswer read(const json::object& o) {
        const bool merged = bool_at(o, "merged") || !string_at(o, "merged_at").empty();
        return {
            int_at(o, "number"),
            std::string{string_at(o, "html_url")},
            merged ? "merged" : std::string{string_at(o, "state")},
            false};
    }
};

class GitLab final : public RestForge {
public:
    using RestForge::RestForge;

    result<ForgeAnswer> open(const ChangeRequest& request) override {
        const bool marked = lower(request.title).starts_with("draft:");
        std::string labels;
        for (const auto& label : request.labels) labels += (labels.empty() ? "" : ",") + label;
        json::object body{
            {"source_branch", request.head},
            {"target_branch", request.base},
            {"title",
             shortened(request.draft && !marked ? "Draft: " + request.title : request.title, max_title)},
            {"description", shortened(request.body, max_body)},
            {"remove_source_branch", true}};
        if (!labels.empty()) body["labels"] = labels;
        const auto answer = send("POST", project() + "/merge_requests", &body);
        if (answer && answer->status == 409) {
            auto found = list(
                "merge request of " + request.head,
                send(
                    "GET",
                    fmt::format(
                        "{}/merge_requests?state=opened&source_branch={}&target_branch={}",
                        project(),
                        percent(request.head),
                        percent(request.base)
                    )
                )
            );
            if (!found) return found.error();
            if (found->empty() || !(*found)[0].is_object()) return wrong("open merge request", *answer);
            auto out = read((*found)[0].get_object());
            out.existed = true;
            return checked(std::move(out), "open merge request");
        }
        auto made = object("open merge request", answer);
        if (!made) return made.error();
        return checked(read(*made), "open merge request");
    }

    result<ForgeAnswer> find(std::int64_t number) override {
        auto found = object(
            fmt::format("merge request {}", number),
            send("GET", fmt::format("{}/merge_requests/{}", project(), number))
        );
        if (!found) return found.error();
        auto out = read(*found);
        out.existed = true;
        return checked(std::move(out), "merge request");
    }

    result<void> comment(std::int64_t number, const std::string& text) override {
        const json::object body{{"body", shortened(text, max_body)}};
        return done(
            fmt::format("comment on {}", number),
            send("POST", fmt::format("{}/merge_requests/{}/notes", project(), number), &body)
        );
    }

    result<void> close(std::int64_t number) override {
        const json::object body{{"state_event", "close"}};
        return done(
            fmt::format("close {}", number),
            send("PUT", fmt::format("{}/merge_requests/{}", project(), number), &body)
        );
    }

private:
    Headers headers() const override {
        return {{"PRIVATE-TOKEN", settings_.token}, {"Accept", "application/json"}};
    }
    std::string project() const { return "/api/v4/projects/" + percent(settings_.project); }
    static ForgeAnswer read(const json::object& o) {
        const auto state = string_at(o, "state");
        return {
            int_at(o, "iid"),
            std::string{string_at(o, "web_url")},
            state == "opened" || state == "locked" ? "open" : std::string{state},
            false};
    }
};

bool is_line(std::string_view text) {
    return std::none_of(text.begin(), text.end(), [](char c) {
        return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f;
    });
}

}  // namespace

result<std::unique_ptr<Forge>> create_forge(const ForgeSettings& settings, net::HttpClient& http) {
    const bool github = settings.kind == "github";
    if (!github && settings.kind != "gitlab")
        return fail(errc::invalid_input, fmt::format("forge '{}': must be github or gitlab", settings.kind));
    if ((!settings.base_url.starts_with("https://") && !settings.base_url.starts_with("http://")) ||
        !is_line(settings.base_url) || settings.base_url.find_first_of("?#@") != std::string::npos)
        return fail(
            errc::invalid_input,
            fmt::format("{}: base_url must be http:// or https:// without a query", settings.kind)
        );
    const auto slashes = std::count(settings.project.begin(), settings.project.end(), '/');
    if (slashes < 1 || (github && slashes != 1) || !is_line(settings.project) ||
        settings.project.front() == '/' || settings.project.back() == '/' ||
        settings.project.find("..") != std::string::npos)
        return fail(
            errc::invalid_input,
            fmt::format("{}: project must be {}", settings.kind, github ? "owner/name" : "group/name")
        );
    if (settings.token.empty() || !is_line(settings.token))
        return fail(
            errc::invalid_input, fmt::format("{}: the token is missing or holds blanks", settings.kind)
        );
    if (!is_line(settings.api_version)) return fail(errc::invalid_input, "api_version: must be a date");
    if (github) return std::unique_ptr<Forge>{std::make_unique<GitHub>(settings, http)};
    return std::unique_ptr<Forge>{std::make_unique<GitLab>(settings, http)};
}

}  // namespace heal::vcs
