// Which models are asked and within what bounds: the part `ai` of the configuration.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace heal {

/// Per million tokens, in the configured currency.
struct ModelPrice {
    std::string model;  ///< glob
    double input = 0, cached = 0, output = 0;
};

struct ProviderSettings {
    std::string name;      ///< ours, unique
    std::string dialect;   ///< openai (chat completions), openai_responses, github, anthropic, ollama, replay
    std::string base_url;  ///< default by dialect
    std::string model;
    std::string key;          ///< from key_file, $NAME or ${ENV}; "": none is sent
    std::string auth;         ///< bearer, x-api-key, none; default by dialect
    std::string api_version;  ///< header of Anthropic and GitHub; default by dialect
    std::vector<std::pair<std::string, std::string>> headers;
    std::chrono::milliseconds timeout{120'000};
    unsigned max_output_tokens = 4096;
    unsigned context_tokens = 8192;   ///< of the prompt; Ollama's num_ctx follows from it
    std::int64_t tokens_per_day = 0;  ///< 0: no limit of its own
    std::string record;               ///< folder: what it is asked and answers is kept there for `replay`
    std::string replay;               ///< folder of the dialect `replay`
};

struct AiSettings {
    std::vector<ProviderSettings> providers;  ///< in the order in which they are asked
    unsigned ask = 1;                         ///< how many of them are asked and compared
    std::int64_t tokens_per_day = 500'000;    ///< of all; 0: no limit
    std::int64_t tokens_per_bug = 60'000;
    double cost_per_day = 0, cost_per_bug = 0;  ///< in the currency of the prices; 0: no limit
    std::vector<ModelPrice> prices;
    unsigned breaker_failures = 3;  ///< in a row; then the provider rests
    std::chrono::milliseconds breaker_pause{300'000};
    std::chrono::milliseconds cache_for = std::chrono::hours{24 * 90};
    unsigned log_lines = 20;          ///< samples of the log that go into a question
    std::vector<std::string> redact;  ///< regular expressions (RE2), besides the built-in ones
    std::vector<std::string> keep;    ///< globs of words that are never taken out
    bool redact_addresses = false;    ///< also IP addresses of private networks
};

}  // namespace heal
