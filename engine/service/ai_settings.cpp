#include "service/ai_settings.hpp"

#include "ai/prompt.hpp"
#include "ai/redact.hpp"
#include "base/files.hpp"
#include "service/read_ai.hpp"

#include <algorithm>

namespace heal {
namespace {

using namespace std::chrono_literals;

void read_provider(
    const YAML::Node& node, const std::string& path, Mapping::Context& context, AiSettings& settings
) {
    ProviderSettings p;
    p.dialect = "openai";
    Mapping in{node, path, context};
    if (!in.text("name", p.name) || p.name.empty())
        in.error(node, path + ".name", "is missing; a provider needs a name");
    const bool twice =
        std::any_of(settings.providers.begin(), settings.providers.end(), [&](const auto& other) {
            return other.name == p.name;
        });
    if (twice) in.error("name", fmt::format("there are two providers '{}'", p.name));
    in.choice<std::string>(
        "dialect",
        p.dialect,
        {{"openai", "openai"},
         {"openai_responses", "openai_responses"},
         {"github", "github"},
         {"anthropic", "anthropic"},
         {"ollama", "ollama"},
         {"replay", "replay"}}
    );
    if (in.text("base_url", p.base_url) && !p.base_url.starts_with("http://") &&
        !p.base_url.starts_with("https://"))
        in.error("base_url", "must be an http:// or https:// URL, such as https://api.openai.com/v1");
    in.text("model", p.model);
    if (p.model.empty() && p.dialect != "replay")
        in.error(node, path + ".model", "is missing; the model to ask");
    std::string file;
    const bool direct = in.text("key", p.key);
    if (in.text("key_file", file)) {
        const SystemFiles files;
        auto key = files.read(file, 16'384);
        if (direct)
            in.error("key_file", "give key or key_file, not both");
        else if (!key)
            in.error("key_file", key.error().text);
        else {
            while (key->ends_with('\n') || key->ends_with('\r')) key->pop_back();
            p.key = *key;
        }
    }
    if (p.key.find_first_of("\r\n") != std::string::npos)
        in.error(direct ? "key" : "key_file", "must be one line");
    in.choice<std::string>(
        "auth", p.auth, {{"bearer", "bearer"}, {"x-api-key", "x-api-key"}, {"none", "none"}}
    );
    in.text("api_version", p.api_version);
    if (const auto* headers = in.find("headers")) {
        if (!headers->IsMap())
            in.error("headers", "must be a mapping from name to value");
        else {
            Mapping each{*headers, path + ".headers", context};
            for (const auto& entry : *headers) {
                std::string value;
                const std::string name = entry.first.IsScalar() ? entry.first.Scalar() : "?";
                if (each.text(name, value)) p.headers.emplace_back(name, value);
            }
        }
    }
    in.duration("timeout", p.timeout, 1s, 30min);
    in.integer("max_output_tokens", p.max_output_tokens, 256, 200'000);
    in.integer("context_tokens", p.context_tokens, ai::least_budget, 2'000'000);
    in.integer("tokens_per_day", p.tokens_per_day, 0, 1'000'000'000'000LL);
    in.text("record", p.record);
    in.text("replay", p.replay);
    if (p.dialect == "replay" && p.replay.empty())
        in.error(node, path + ".replay", "is missing; the folder with what a provider with `record` kept");
    settings.providers.push_back(std::move(p));
}

void read_price(
    const YAML::Node& node, const std::string& path, Mapping::Context& context, AiSettings& settings
) {
    ModelPrice price;
    Mapping in{node, path, context};
    if (!in.text("model", price.model) || price.model.empty())
        in.error(node, path + ".model", "is missing; a glob over names of models, such as gpt-4o*");
    in.real("input", price.input, 0, 1e6);
    price.cached = price.input;
    in.real("cached", price.cached, 0, 1e6);
    in.real("output", price.output, 0, 1e6);
    settings.prices.push_back(std::move(price));
}

}  // namespace

void read_ai(const YAML::Node& node, Mapping::Context& context, AiSettings& ret) {
    Mapping in{node, "ai", context};
    in.each("providers", [&](const YAML::Node& item, const std::string& at) {
        read_provider(item, at, context, ret);
    });
    in.each("prices", [&](const YAML::Node& item, const std::string& at) {
        read_price(item, at, context, ret);
    });
    in.integer("ask", ret.ask, 1, 8);
    in.integer("tokens_per_day", ret.tokens_per_day, 0, 1'000'000'000'000LL);
    in.integer("tokens_per_bug", ret.tokens_per_bug, 0, 1'000'000'000'000LL);
    in.real("cost_per_day", ret.cost_per_day, 0, 1e9);
    in.real("cost_per_bug", ret.cost_per_bug, 0, 1e9);
    in.integer("breaker_failures", ret.breaker_failures, 0, 100);
    in.duration("breaker_pause", ret.breaker_pause, 1s, 24h);
    in.duration("cache_for", ret.cache_for, 0ms, 3650 * 24h);
    in.integer("log_lines", ret.log_lines, 0, 200);
    in.texts("redact", ret.redact);
    in.texts("keep", ret.keep);
    in.flag("redact_addresses", ret.redact_addresses);
    if (auto redactor = ai::Redactor::create({ret.redact, ret.keep, ret.redact_addresses}); !redactor)
        in.error("redact", "must be a list of RE2 expressions: " + redactor.error().text);
}

}  // namespace heal
