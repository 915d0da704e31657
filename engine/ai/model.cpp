#include "ai/model.hpp"

#include "base/id.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <ctime>
#include <random>
#include <thread>

namespace heal::ai {
namespace {

using namespace std::chrono_literals;
using std::string_view;

/// An analysis is some thousand tokens; more is not an answer.
constexpr std::size_t max_answer_bytes = 4U << 20U;

struct Dialect {
    const char* name;
    const char* base_url;
    const char* path;
    const char* api_version;
};
constexpr Dialect dialects[] = {
    {"openai", "https://api.openai.com/v1", "/chat/completions", ""},
    {"openai_responses", "https://api.openai.com/v1", "/responses", ""},
    {"github", "https://models.github.ai", "/inference/chat/completions", "2022-11-28"},
    {"anthropic", "https://api.anthropic.com", "/v1/messages", "2026-10-21"},
    {"ollama", "http://127.0.0.1:11434", "/api/chat", ""},
};

const Dialect* dialect_of(string_view name) {
    const auto* it = std::find_if(std::begin(dialects), std::end(dialects), [&](const Dialect& d) {
        return d.name == name;
    });
    return it == std::end(dialects) ? nullptr : it;
}

json::array messages_of(const ModelRequest& request, bool with_system) {
    json::array messages;
    if (with_system && !request.system.empty())
        messages.push_back(json::object{{"role", "system"}, {"content", request.system}});
    for (const auto& m : request.messages)
        messages.push_back(json::object{{"role", m.from_model ? "assistant" : "user"}, {"content", m.text}});
    return messages;
}

json::object chat_body(const ProviderPlace& place, const ModelRequest& request) {
    json::object body{{"model", place.model}, {"messages", messages_of(request, true)}};
    if (!request.schema_name.empty()) {
        body["response_format"] = json::object{
            {"type", "json_schema"},
            {"json_schema",
             json::object{{"name", request.schema_name}, {"strict", true}, {"schema", request.schema}}}};
    }
    // GitHub Models knows the older name for all of its models, the newer one for some.
    body[place.dialect == "github" ? "max_tokens" : "max_completion_tokens"] = place.max_output_tokens;
    return body;
}

json::object responses_body(const ProviderPlace& place, const ModelRequest& request) {
    json::object body{{"model", place.model}};
    if (!request.system.empty()) body["instructions"] = request.system;
    if (request.messages.size() == 1)
        body["input"] = request.messages[0].text;
    else
        body["input"] = messages_of(request, false);
    if (!request.schema_name.empty()) {
        body["text"] = json::object{
            {"format",
             json::object{
                 {"type", "json_schema"},
                 {"name", request.schema_name},
                 {"strict", true},
                 {"schema", request.schema}}}};
    }
    body["max_output_tokens"] = place.max_output_tokens;
    body["store"] = false;
    return body;
}

json::object anthropic_body(const ProviderPlace& place, const ModelRequest& request) {
    json::object body{{"model", place.model}, {"max_tokens", place.max_output_tokens}};
    if (!request.system.empty()) body["system"] = request.system;
    body["messages"] = messages_of(request, false);
    if (!request.schema_name.empty()) {
        body["output_config"] =
            json::object{{"format", json::object{{"type", "json_schema"}, {"schema", request.schema}}}};
    }
    return body;
}

json::object ollama_body(const ProviderPlace& place, const ModelRequest& request) {
    json::object body{{"model", place.model}, {"messages", messages_of(request, true)}};
    if (!request.schema_name.empty()) body["format"] = request.schema;
    body["stream"] = false;
    // What does not fit into num_ctx is cut off without a word: question and answer must both.
    body["options"] = json::object{
        {"temperature", 0},
        {"num_ctx", place.context_tokens + place.max_output_tokens},
        {"num_predict", place.max_output_tokens}};
    return body;
}

void set_header(net::HttpRequest& request, string_view name, std::string value) {
    const auto same = [&](const auto& h) {
        return h.first.size() == name.size() &&
               std::equal(name.begin(), name.end(), h.first.begin(), [](char a, char b) {
                   return std::tolower(static_cast<unsigned char>(a)) ==
                          std::tolower(static_cast<unsigned char>(b));
               });
    };
    const auto it = std::find_if(request.headers.begin(), request.headers.end(), same);
    if (it != request.headers.end())
        it->second = std::move(value);
    else
        request.headers.emplace_back(name, std::move(value));
}

Error unreadable(const ProviderPlace& place, string_view what) {
    return fail(errc::protocol, fmt::format("{}: the answer has no {}", place.name, what));
}

result<ModelAnswer> chat_answer(const ProviderPlace& place, const json::object& body) {
    const auto& choices = array_at(body, "choices");
    if (choices.empty() || !choices[0].is_object()) return unreadable(place, "choices[0]");
    const auto& choice = choices[0].get_object();
    const auto& message = object_at(choice, "message");
    ModelAnswer a;
    a.text = string_at(message, "content");
    const auto finish = string_at(choice, "finish_reason");
    a.finish = finish == "length"           ? Finish::length
               : finish == "content_filter" ? Finish::refused
               : finish == "stop"           ? Finish::stop
                                            : Finish::other;
    if (const auto refusal = string_at(message, "refusal"); !refusal.empty()) {
        a.finish = Finish::refused;
        a.text = refusal;
    }
    const auto& usage = object_at(body, "usage");
    a.usage.input = int_at(usage, "prompt_tokens");
    a.usage.output = int_at(usage, "completion_tokens");
    a.usage.cached = int_at(object_at(usage, "prompt_tokens_details"), "cached_tokens");
    a.usage.reasoning = int_at(object_at(usage, "completion_tokens_details"), "reasoning_tokens");
    return a;
}

result<ModelAnswer> responses_answer(const ProviderPlace& place, const json::object& body) {
    if (!body.contains("output")) return unreadable(place, "output");
    ModelAnswer a;
    for (const auto& item : array_at(body, "output")) {
        if (!item.is_object()) continue;
        for (const auto& part : array_at(item.get_object(), "content")) {
            if (!part.is_object()) continue;
            const auto& p = part.get_object();
            if (string_at(p, "type") == "output_text") a.text += string_at(p, "text");
            if (string_at(p, "type") == "refusal") {
                a.finish = Finish::refused;
                a.text = string_at(p, "refusal");
            }
        }
    }
    const auto status = string_at(body, "status");
    if (status == "incomplete" && a.finish != Finish::refused) {
        a.finish = string_at(object_at(body, "incomplete_details"), "reason") == "content_filter"
                       ? Finish::refused
                       : Finish::length;
    } else if (status != "completed" && a.finish == Finish::stop)
        a.finish = Finish::other;
    const auto& usage = object_at(body, "usage");
    a.usage.input = int_at(usage, "input_tokens");
    a.usage.output = int_at(usage, "output_tokens");
    a.usage.cached = int_at(object_at(usage, "input_tokens_details"), "cached_tokens");
    a.usage.reasoning = int_at(object_at(usage, "output_tokens_details"), "reasoning_tokens");
    return a;
}

result<ModelAnswer> anthropic_answer(const ProviderPlace& place, const json::object& body) {
    if (!body.contains("content")) return unreadable(place, "content");
    ModelAnswer a;
    for (const auto& block : array_at(body, "content")) {
        if (block.is_object() && string_at(block.get_object(), "type") == "text")
            a.text += string_at(block.get_object(), "text");
    }
    const auto stop = string_at(body, "stop_reason");
    a.finish = stop == "end_turn" || stop == "stop_sequence"                     ? Finish::stop
               : stop == "max_tokens" || stop == "model_context_window_exceeded" ? Finish::length
               : stop == "refusal"                                               ? Finish::refused
                                                                                 : Finish::other;
    const auto& usage = object_at(body, "usage");
    a.usage.cached = int_at(usage, "cache_read_input_tokens");
    a.usage.input =
        int_at(usage, "input_tokens") + a.usage.cached + int_at(usage, "cache_creation_input_tokens");
    a.usage.output = int_at(usage, "output_tokens");
    return a;
}

result<ModelAnswer> ollama_answer(const ProviderPlace& place, const json::object& body) {
    if (!body.contains("message")) return unreadable(place, "message");
    ModelAnswer a;
    a.text = string_at(object_at(body, "message"), "content");
    const auto done = string_at(body, "done_reason");
    a.finish = done == "length"                 ? Finish::length
               : done == "stop" || done.empty() ? Finish::stop
                                                : Finish::other;
    a.usage.input = int_at(body, "prompt_eval_count");
    a.usage.output = int_at(body, "eval_count");
    return a;
}

/// What the provider says is wrong, in few words; never what we sent.
std::string complaint_of(const net::HttpAnswer& answer) {
    auto parsed = parse_json(answer.body, "answer");
    if (!parsed || !parsed->is_object()) return {};
    const auto& body = parsed->get_object();
    std::string words{string_at(object_at(body, "error"), "message")};
    if (words.empty()) words = string_at(body, "error");
    if (words.empty()) words = string_at(body, "message");
    return to_valid_utf8(words.substr(0, 300));
}

Error error_of(const ProviderPlace& place, const net::HttpAnswer& answer) {
    const auto words = complaint_of(answer);
    const auto text =
        fmt::format("{}: status {}{}{}", place.name, answer.status, words.empty() ? "" : ": ", words);
    switch (answer.status) {
        case 401:
        case 402:
        case 403:
            return fail(errc::denied, text);
        case 404:
            return fail(errc::not_found, text);
        case 429:
            return fail(errc::overloaded, text);
        default:
            if (answer.status >= 500 || answer.status == 408 || answer.status == 409)
                return fail(errc::unavailable, text);
            return answer.status >= 400 ? fail(errc::invalid_input, text) : fail(errc::protocol, text);
    }
}

bool number_of(string_view text, double& ret) {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), ret);
    return ec == std::errc{} && end == text.data() + text.size() && !text.empty() && std::isfinite(ret);
}

/// IMF-fixdate of RFC 9110: "Sun, 06 Nov 1994 08:49:37 GMT".
bool date_of(string_view text, Time& ret) {
    std::tm tm{};
    const std::string copy{text};
    const char* end = ::strptime(copy.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &tm);
    if (!end || *end != '\0') return false;
    ret = Time{static_cast<std::int64_t>(::timegm(&tm)) * 1'000'000};
    return true;
}

class HttpModel final : public Model {
public:
    HttpModel(ProviderPlace place, ModelSeams seams) : place_(std::move(place)), seams_(std::move(seams)) {}

    ModelReply ask(const ModelRequest& request, const std::atomic<bool>& cancel) override {
        ModelReply reply;
        const auto begin = seams_.clock.steady();
        talk(request, cancel, reply);
        reply.took = seams_.clock.steady() - begin;
        if (reply.answer && !place_.record.empty()) keep(request, *reply.answer);
        return reply;
    }

private:
    void talk(const ModelRequest& request, const std::atomic<bool>& cancel, ModelReply& reply) {
        auto http = http_request_of(place_, request);
        if (!http) {
            reply.answer = http.error();
            return;
        }
        http->cancel = &cancel;
        while (reply.tries < most_tries) {
            ++reply.tries;
            auto sent = seams_.http.send(*http);
            Retry next;
            if (sent && sent->status >= 200 && sent->status < 300) {
                reply.answer = answer_of(place_, *sent);
                reply.may_have_cost = !reply.answer;
                return;
            }
            if (sent) {
                reply.answer = error_of(place_, *sent);
                next = retry_of(sent->status, *sent, reply.tries, seams_.clock.wall(), seams_.random());
            } else {
                reply.answer = sent.error();
                const auto code = sent.error().code;
                // What nobody answered may still have been worked on and charged.
                reply.may_have_cost = reply.may_have_cost || code == errc::timeout || code == errc::cancelled;
                if (code == errc::unavailable)
                    next = retry_of(0, {}, reply.tries, seams_.clock.wall(), seams_.random());
            }
            reply.off_until = next.off_until;
            if (!next.again || reply.tries >= most_tries) return;
            if (!seams_.sleep(next.wait, cancel)) {
                reply.answer = fail(errc::cancelled, place_.name + ": cancelled");
                return;
            }
        }
    }

    /// A recording that cannot be written is only a recording.
    void keep(const ModelRequest& request, const ModelAnswer& answer) {
        json::array messages = messages_of(request, false);
        const json::object content{
            {"request",
             json::object{
                 {"system", request.system},
                 {"messages", std::move(messages)},
                 {"schema_name", request.schema_name}}},
            {"answer",
             json::object{
                 {"text", answer.text},
                 {"finish", to_string(answer.finish)},
                 {"input_tokens", answer.usage.input},
                 {"cached_tokens", answer.usage.cached},
                 {"output_tokens", answer.usage.output},
                 {"reasoning_tokens", answer.usage.reasoning}}}};
        if (seams_.files.make_folder(place_.record)) {
            const auto ignored = seams_.files.write_atomic(
                place_.record + "/" + hash_of(request) + ".json", json::serialize(content) + "\n"
            );
            static_cast<void>(ignored);
        }
    }

    ProviderPlace place_;
    ModelSeams seams_;
};

class ReplayModel final : public Model {
public:
    ReplayModel(ProviderPlace place, ModelSeams seams) : place_(std::move(place)), seams_(std::move(seams)) {}

    ModelReply ask(const ModelRequest& request, const std::atomic<bool>&) override {
        ModelReply reply;
        reply.tries = 1;
        const std::string hash = hash_of(request), file = place_.replay + "/" + hash + ".json";
        auto text = seams_.files.read(file, max_answer_bytes);
        if (!text) {
            reply.answer = fail(
                errc::not_found,
                fmt::format("{}: nothing is recorded for this question; looked for {}", place_.name, file)
            );
            return reply;
        }
        auto parsed = parse_json(*text, file);
        if (!parsed || !parsed->is_object() || !parsed->get_object().contains("answer")) {
            reply.answer = fail(errc::protocol, file + ": is not a recording");
            return reply;
        }
        const auto& in = object_at(parsed->get_object(), "answer");
        ModelAnswer a;
        a.text = string_at(in, "text");
        for (const auto f : {Finish::stop, Finish::length, Finish::refused, Finish::other}) {
            if (string_at(in, "finish") == to_string(f)) a.finish = f;
        }
        a.usage = {
            int_at(in, "input_tokens"),
            int_at(in, "cached_tokens"),
            int_at(in, "output_tokens"),
            int_at(in, "reasoning_tokens")};
        a.request_id = "replay-" + hash.substr(0, 16);
        reply.answer = std::move(a);
        return reply;
    }

private:
    ProviderPlace place_;
    ModelSeams seams_;
};

}  // namespace

const char* to_string(Finish finish) noexcept {
    switch (finish) {
        case Finish::stop:
            return "stop";
        case Finish::length:
            return "length";
        case Finish::refused:
            return "refused";
        default:
            return "other";
    }
}

ModelSeams real_seams(net::HttpClient& http, const Clock& clock, Files& files) {
    return {
        http,
        clock,
        files,
        [](std::chrono::milliseconds wait, const std::atomic<bool>& cancel) {
            for (auto left = wait; left > 0ms && !cancel.load(); left -= 100ms)
                std::this_thread::sleep_for(std::min<std::chrono::milliseconds>(left, 100ms));
            return !cancel.load();
        },
        [] {
            thread_local std::mt19937 generator{std::random_device{}()};
            return std::uniform_real_distribution<double>{0, 1}(generator);
        }};
}

result<net::HttpRequest> http_request_of(const ProviderPlace& place, const ModelRequest& request) {
    const auto* dialect = dialect_of(place.dialect);
    if (!dialect) return fail(errc::invalid_input, fmt::format("there is no dialect '{}'", place.dialect));
    net::HttpRequest http;
    http.method = "POST";
    http.url = place.base_url.empty() ? dialect->base_url : place.base_url;
    while (http.url.ends_with('/')) http.url.pop_back();
    http.url += dialect->path;
    http.timeout = place.timeout;
    http.max_answer_bytes = max_answer_bytes;
    const string_view kind = place.dialect;
    const auto body = kind == "openai_responses" ? responses_body(place, request)
                      : kind == "anthropic"      ? anthropic_body(place, request)
                      : kind == "ollama"         ? ollama_body(place, request)
                                                 : chat_body(place, request);
    http.body = json::serialize(body);
    http.headers.emplace_back("Content-Type", "application/json");
    http.headers.emplace_back(
        "Accept", kind == "github" ? "application/vnd.github+json" : "application/json"
    );
    const std::string version = place.api_version.empty() ? dialect->api_version : place.api_version;
    if (!version.empty())
        http.headers.emplace_back(kind == "github" ? "X-GitHub-Api-Version" : "anthropic-version", version);
    if (!place.key.empty() && place.auth != "none") {
        if (place.auth == "x-api-key")
            http.headers.emplace_back("x-api-key", place.key);
        else
            http.headers.emplace_back("Authorization", "Bearer " + place.key);
    }
    for (const auto& [name, value] : place.headers) set_header(http, name, value);
    return http;
}

result<ModelAnswer> answer_of(const ProviderPlace& place, const net::HttpAnswer& answer) {
    auto parsed = parse_json(answer.body, place.name + ": answer");
    if (!parsed) return fail(errc::protocol, parsed.error().text);
    if (!parsed->is_object()) return fail(errc::protocol, place.name + ": the answer must be a JSON object");
    const auto& body = parsed->get_object();
    const string_view kind = place.dialect;
    auto out = kind == "openai_responses" ? responses_answer(place, body)
               : kind == "anthropic"      ? anthropic_answer(place, body)
               : kind == "ollama"         ? ollama_answer(place, body)
                                          : chat_answer(place, body);
    if (!out) return out;
    out->text = to_valid_utf8(out->text);
    auto& u = out->usage;
    for (auto* n : {&u.input, &u.cached, &u.output, &u.reasoning}) *n = std::max<std::int64_t>(*n, 0);
    for (const char* name : {"x-request-id", "request-id", "x-github-request-id"}) {
        if (out->request_id.empty()) out->request_id = to_valid_utf8(answer.header(name).substr(0, 200));
    }
    if (out->request_id.empty()) out->request_id = to_valid_utf8(string_at(body, "id").substr(0, 200));
    return out;
}

Retry retry_of(unsigned status, const net::HttpAnswer& answer, unsigned tries, Time now, double random) {
    Retry out;
    out.again = status == 0 || status == 408 || status == 409 || status == 429 || status >= 500;
    const auto word = answer.header("x-should-retry");
    if (word == "true") out.again = true;
    if (word == "false") out.again = false;
    double ms = -1;
    if (double n = 0; number_of(answer.header("retry-after-ms"), n))
        ms = n;
    else if (number_of(answer.header("retry-after"), n))
        ms = n * 1000;
    else if (Time at; date_of(answer.header("retry-after"), at))
        ms = std::max(0.0, static_cast<double>((at - now).count()) / 1000);
    if (ms > static_cast<double>(std::chrono::milliseconds{longest_wait}.count())) {
        // A day and more is asked for by free tiers; a year would be a mistake of theirs.
        constexpr double longest_off_ms = 31.0 * 86'400'000;
        out.off_until =
            now + std::chrono::milliseconds{static_cast<std::int64_t>(std::min(ms, longest_off_ms))};
        out.again = false;
        return out;
    }
    if (!out.again) return out;
    if (ms < 0) {
        ms = std::min(500.0 * std::pow(2.0, static_cast<double>(std::max(tries, 1U) - 1)), 8000.0);
        ms *= 1 - 0.25 * random;
    }
    out.wait = std::chrono::milliseconds{static_cast<std::int64_t>(std::max(ms, 0.0))};
    return out;
}

std::string hash_of(const ModelRequest& request) {
    const json::object content{
        {"system", request.system},
        {"messages", messages_of(request, false)},
        {"schema_name", request.schema_name},
        {"schema", request.schema}};
    std::string text = json::serialize(content);
    // Fences are random: "DATA-" and 16 letters (hostile.hpp).
    constexpr string_view mark = "DATA-";
    constexpr std::size_t digits = 16;
    for (auto at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) {
        const auto begin = at + mark.size();
        if (begin + digits <= text.size() &&
            text.find_first_not_of("abcdefghijklmnop", begin) >= begin + digits)
            text.replace(begin, digits, "*");
    }
    return sha256_hex(text);
}

result<std::unique_ptr<Model>> create_model(ProviderPlace place, ModelSeams seams) {
    if (place.dialect == "replay") {
        if (place.replay.empty())
            return fail(errc::invalid_input, place.name + ": replay needs the folder of the recordings");
        return std::unique_ptr<Model>{std::make_unique<ReplayModel>(std::move(place), std::move(seams))};
    }
    if (!dialect_of(place.dialect))
        return fail(
            errc::invalid_input, fmt::format("{}: there is no dialect '{}'", place.name, place.dialect)
        );
    if (place.model.empty()) return fail(errc::invalid_input, place.name + ": the model is not named");
    return std::unique_ptr<Model>{std::make_unique<HttpModel>(std::move(place), std::move(seams))};
}

}  // namespace heal::ai
