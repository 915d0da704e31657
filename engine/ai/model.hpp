// One face for all models: a question, its answer, what it took. Knows the dialects of the providers, their
// retry headers, and how questions are recorded and replayed. Deliberately no budgets (meter.hpp), no
// redaction (redact.hpp) and no judgement of the answer (analysis.hpp). Blocking: runs on a pool.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/files.hpp"
#include "base/json.hpp"
#include "net/http_client.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace heal::ai {

/// Where a model is and how it is spoken to.
struct ProviderPlace {
    std::string name;
    std::string dialect = "openai";  ///< openai, openai_responses, github, anthropic, ollama, replay
    std::string base_url;            ///< "": the dialect's own; for OpenAI's it ends with /v1
    std::string model, key;          ///< key "": none is sent
    std::string auth;                ///< bearer, x-api-key, none; "": bearer
    std::string api_version;         ///< "": the dialect's own
    std::vector<std::pair<std::string, std::string>> headers;  ///< besides; one of the same name wins
    std::chrono::milliseconds timeout{120'000};                ///< of each try
    unsigned max_output_tokens = 4096, context_tokens = 8192;
    std::string record;  ///< folder, "": nothing is recorded
    std::string replay;  ///< folder of the dialect replay
};

struct Message {
    bool from_model = false;
    std::string text;
};

struct ModelRequest {
    std::string system;
    std::vector<Message> messages;  ///< the first is ours; then by turns
    std::string schema_name;        ///< "": plain text is asked for
    json::object schema;            ///< of the answer, strict
};

enum class Finish : std::uint8_t {
    stop,
    length,   ///< cut at a limit: what is there is not whole
    refused,  ///< the model would not, or a filter of the provider took it out
    other
};
const char* to_string(Finish finish) noexcept;

struct Usage {
    std::int64_t input = 0;  ///< all of it, cached included
    std::int64_t cached = 0;
    std::int64_t output = 0;     ///< reasoning included
    std::int64_t reasoning = 0;  ///< a part of output
};

struct ModelAnswer {
    std::string text;
    Finish finish = Finish::stop;
    Usage usage;
    std::string request_id;  ///< the provider's, for its support
};

/// What became of a question, answered or not.
struct ModelReply {
    /// errc::unavailable nobody answers, or overloaded after all tries; errc::overloaded asked too often (see
    /// `off_until`); errc::denied the key; errc::invalid_input the request is refused; errc::timeout;
    /// errc::cancelled; errc::protocol the answer cannot be read; errc::not_found nothing recorded for it
    /// (replay), or no such model.
    result<ModelAnswer> answer = fail(errc::internal, "not asked");
    unsigned tries = 0;
    Duration took{0};
    std::optional<Time> off_until;  ///< the provider asks to be left alone so long
    bool may_have_cost = false;     ///< not answered, but it may have been worked on and charged
};

/// Everything outside that a model needs; each has a deterministic form for tests.
struct ModelSeams {
    net::HttpClient& http;
    const Clock& clock;
    Files& files;
    /// Waits; false: it was cancelled meanwhile.
    std::function<bool(std::chrono::milliseconds, const std::atomic<bool>& cancel)> sleep;
    std::function<double()> random;  ///< [0, 1)
};
/// The real ones; sleeps look at `cancel` ten times a second.
ModelSeams real_seams(net::HttpClient& http, const Clock& clock, Files& files);

class Model {
public:
    virtual ~Model() = default;
    /// Blocks up to (1 + retries) * timeout and the waits between. @thread any, side by side
    virtual ModelReply ask(const ModelRequest& request, const std::atomic<bool>& cancel) = 0;
};

/// errc::invalid_input the dialect, or no base_url, model or folder where one is needed.
result<std::unique_ptr<Model>> create_model(ProviderPlace place, ModelSeams seams);

// --- parts, for tests and for those who look closely

/// Path, headers and body of a question in a dialect. Pure.
result<net::HttpRequest> http_request_of(const ProviderPlace& place, const ModelRequest& request);
/// errc::protocol it cannot be read. Pure.
result<ModelAnswer> answer_of(const ProviderPlace& place, const net::HttpAnswer& answer);

/// What to do after an answer that is no success (or none: status 0). Pure.
struct Retry {
    bool again = false;
    std::chrono::milliseconds wait{0};
    std::optional<Time> off_until;  ///< it asked for longer than `longest_wait`: no try before then
};
/// Statuses 408, 409, 429 and from 500 on; `x-should-retry` overrides; `retry-after-ms`, then `retry-after`
/// (seconds or a date of RFC 9110) tell how long, else 0.5 s * 2^tries up to 8 s, less up to a quarter of it.
/// As both official SDKs do.
/// @param tries  made so far, from 1; @param random  [0, 1)
Retry retry_of(unsigned status, const net::HttpAnswer& answer, unsigned tries, Time now, double random);
inline constexpr unsigned most_tries = 3;
inline constexpr std::chrono::seconds longest_wait{60};

/// What a recording is found by: the same for the same question to whatever provider; random fences
/// (hostile.hpp) do not matter.
std::string hash_of(const ModelRequest& request);

}  // namespace heal::ai
