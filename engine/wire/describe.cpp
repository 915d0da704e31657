#include "wire/describe.hpp"

#include "wire/capability.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

namespace heal {
namespace {

constexpr std::size_t max_strategies = 64, max_matches = 64, max_capabilities = 64;

Error wrong(std::string_view path, std::string_view text) { return fail(errc::invalid_input, fmt::format("{}: {}", path, text)); }

bool is_name(std::string_view s) {
    if (s.empty() || s.size() > 64 || s.front() == '.' || s.front() == '-') return false;
    return std::all_of(s.begin(), s.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
    });
}

template <std::size_t N>
std::string joined(const std::array<std::string_view, N>& words) { return fmt::format("{}", fmt::join(words, ", ")); }

constexpr std::array<std::string_view, 20> fact_keys = {
    "schema", "name", "version", "summary", "priority", "confidence", "confidence_floor", "risk", "idempotent", "reversible",
    "timeout_ms", "matches", "capabilities", "parameters", "assess", "verify", "rollback", "author", "license", "homepage"};
constexpr std::array<std::string_view, 6> glob_keys = {"service", "environment", "component", "source", "error_type", "release"};
constexpr std::array<std::string_view, 3> regex_keys = {"message", "pattern", "stack"};
constexpr std::array<std::string_view, 15> match_keys = {
    "service", "environment", "component", "source", "error_type", "release", "level", "message",
    "pattern", "stack", "http_status", "labels", "context", "target", "trigger"};

template <std::size_t N>
bool among(const std::array<std::string_view, N>& words, std::string_view word) {
    return std::find(words.begin(), words.end(), word) != words.end();
}

bool is_scalar(const json::value& v) { return v.is_string() || v.is_number() || v.is_bool(); }

// A string, or a non-empty array of strings (any of them).
result<void> check_words(const json::value& v, std::string_view path) {
    const auto good = [](const json::value& s) { return s.is_string() && !s.get_string().empty() && s.get_string().size() <= 4096; };
    if (good(v)) return {};
    if (v.is_array() && !v.get_array().empty() && v.get_array().size() <= 64 &&
        std::all_of(v.get_array().begin(), v.get_array().end(), good)) {
        return {};
    }
    return wrong(path, "must be a string of 1 to 4096 characters, or an array of 1 to 64 of them");
}

bool is_status(const json::value& v) { return v.is_int64() && v.get_int64() >= 100 && v.get_int64() <= 599; }

const json::value* schema_word(const json::object& schema, std::string_view key) { return schema.if_contains(key); }

bool fits_type(std::string_view type, const json::value& v) {
    if (type == "integer") {
        return v.is_int64() || (v.is_uint64() && v.get_uint64() <= 9'223'372'036'854'775'807ULL) ||
               (v.is_double() && std::isfinite(v.get_double()) && v.get_double() == std::floor(v.get_double()));
    }
    if (type == "number") return v.is_number();
    if (type == "string") return v.is_string();
    if (type == "boolean") return v.is_bool();
    if (type == "array") return v.is_array();
    if (type == "object") return v.is_object();
    return false;
}

result<json::value> check_value(const json::object& schema, const json::value& value, const std::string& path, int depth) {
    if (depth > 8) return wrong(path, "is nested more than 8 levels deep");
    const std::string_view type = string_at(schema, "type");
    if (!type.empty() && !fits_type(type, value)) return wrong(path, fmt::format("must be of type {}", type));
    if (const auto& allowed = array_at(schema, "enum"); !allowed.empty() && std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
        return wrong(path, fmt::format("must be one of {}", json::serialize(allowed)));
    }
    if (value.is_number()) {
        const double n = value.to_number<double>();
        if (const auto* min = schema_word(schema, "minimum"); min && !(n >= min->to_number<double>())) {
            return wrong(path, fmt::format("must be at least {}{}", json::serialize(*min), string_at(schema, "unit").empty() ? "" : fmt::format(" {}", string_at(schema, "unit"))));
        }
        if (const auto* max = schema_word(schema, "maximum"); max && !(n <= max->to_number<double>())) {
            return wrong(path, fmt::format("must be at most {}{}", json::serialize(*max), string_at(schema, "unit").empty() ? "" : fmt::format(" {}", string_at(schema, "unit"))));
        }
    }
    const auto between = [&](std::size_t size, const char* min_key, const char* max_key, const char* what) -> result<void> {
        if (const auto* min = schema_word(schema, min_key); min && size < static_cast<std::size_t>(min->to_number<std::int64_t>())) {
            return wrong(path, fmt::format("must have at least {} {}", json::serialize(*min), what));
        }
        if (const auto* max = schema_word(schema, max_key); max && size > static_cast<std::size_t>(max->to_number<std::int64_t>())) {
            return wrong(path, fmt::format("must have at most {} {}", json::serialize(*max), what));
        }
        return {};
    };
    if (value.is_string()) HEAL_TRY(between(value.get_string().size(), "minLength", "maxLength", "bytes"));
    if (value.is_array()) {
        HEAL_TRY(between(value.get_array().size(), "minItems", "maxItems", "elements"));
        json::array out;
        const auto& items = object_at(schema, "items");
        for (std::size_t i = 0; i < value.get_array().size(); ++i) {
            auto item = check_value(items, value.get_array()[i], fmt::format("{}[{}]", path, i), depth + 1);
            if (!item) return std::move(item).error();
            out.push_back(std::move(*item));
        }
        return json::value(std::move(out));
    }
    if (value.is_object()) {
        const auto& properties = object_at(schema, "properties");
        const auto& object = value.get_object();
        if (!bool_at(schema, "additionalProperties", true)) {
            for (const auto& [key, ignored] : object) {
                if (!properties.contains(key)) {
                    std::string known;
                    for (const auto& [name, also_ignored] : properties) known += (known.empty() ? "" : ", ") + std::string{name};
                    return wrong(path + "." + std::string{key}, fmt::format("is not a parameter; known are: {}", known.empty() ? "none" : known));
                }
            }
        }
        json::object out = object;
        for (const auto& [key, property] : properties) {
            const std::string here = path + "." + std::string{key};
            const auto* given = object.if_contains(key);
            if (!given || given->is_null()) {
                if (const auto* fallback = property.get_object().if_contains("default")) out[key] = *fallback;
                else out.erase(key);
                continue;
            }
            auto checked = check_value(property.get_object(), *given, here, depth + 1);
            if (!checked) return std::move(checked).error();
            out[key] = std::move(*checked);
        }
        for (const auto& name : array_at(schema, "required")) {
            if (!out.contains(name.get_string())) return wrong(path + "." + std::string{view(name.get_string())}, "is missing");
        }
        return json::value(std::move(out));
    }
    if (type == "integer" && value.is_double()) return json::value(value.to_number<std::int64_t>());
    return value;
}

result<void> check_schema_at(const json::object& schema, const std::string& path, int depth) {
    if (depth > 8) return wrong(path, "is nested more than 8 levels deep");
    for (const auto& [raw_key, v] : schema) {
        const std::string_view key{raw_key};
        const std::string here = fmt::format("{}.{}", path, key);
        if (key == "type") {
            static constexpr std::array<std::string_view, 6> types = {"integer", "number", "string", "boolean", "array", "object"};
            if (!v.is_string() || !among(types, view(v.get_string()))) return wrong(here, "must be one of " + joined(types));
        } else if (key == "properties") {
            if (!v.is_object()) return wrong(here, "must be an object");
            for (const auto& [name, property] : v.get_object()) {
                const std::string place = fmt::format("{}.{}", here, std::string_view{name});
                if (!property.is_object()) return wrong(place, "must be an object");
                HEAL_TRY(check_schema_at(property.get_object(), place, depth + 1));
            }
        } else if (key == "items") {
            if (!v.is_object()) return wrong(here, "must be an object");
            HEAL_TRY(check_schema_at(v.get_object(), here, depth + 1));
        } else if (key == "required") {
            if (!v.is_array() || !std::all_of(v.get_array().begin(), v.get_array().end(), [](const json::value& s) { return s.is_string(); })) {
                return wrong(here, "must be an array of strings");
            }
        } else if (key == "enum") {
            if (!v.is_array() || v.get_array().empty()) return wrong(here, "must be an array with at least one value");
        } else if (key == "minimum" || key == "maximum") {
            if (!v.is_number()) return wrong(here, "must be a number");
        } else if (key == "minLength" || key == "maxLength" || key == "minItems" || key == "maxItems") {
            if (!v.is_int64() || v.get_int64() < 0) return wrong(here, "must be an integer of at least 0");
        } else if (key == "additionalProperties") {
            if (!v.is_bool()) return wrong(here, "must be true or false");
        } else if (key != "default" && key != "description" && key != "title" && key != "unit" && key != "$schema") {
            return wrong(here, "is a word of JSON Schema that heald does not know; the subset is listed in docs/plugin-guide.md");
        }
    }
    if (const auto* fallback = schema.if_contains("default")) {
        json::object without = schema;
        without.erase("default");
        auto fits = check_value(without, *fallback, path + ".default", depth);
        if (!fits) return std::move(fits).error();
    }
    return {};
}

result<StrategyInfo> read_one(const json::value& value, const std::string& path) {
    if (!value.is_object()) return wrong(path, "must be an object with the facts of one strategy");
    const auto& facts = value.get_object();
    for (const auto& [key, ignored] : facts) {
        if (!among(fact_keys, std::string_view{key})) {
            return wrong(fmt::format("{}.{}", path, std::string_view{key}), "is not a known fact; known are " + joined(fact_keys));
        }
    }
    const FieldReader in{facts, path};
    StrategyInfo info;
    auto name = in.required_string("name");
    if (!name) return std::move(name).error();
    if (!is_name(*name)) return wrong(path + ".name", "must be 1 to 64 characters of a-z, 0-9, '.', '-' and '_', not beginning with '.' or '-'");
    info.name = std::move(*name);
    auto version = in.string_or("version", "0.1.0");
    if (!version) return std::move(version).error();
    auto summary = in.string_or("summary", "");
    if (!summary) return std::move(summary).error();
    if (version->size() > 64) return wrong(path + ".version", "must have at most 64 bytes");
    if (summary->size() > 1024) return wrong(path + ".summary", "must have at most 1024 bytes");
    info.version = to_valid_utf8(*version);
    info.summary = to_valid_utf8(*summary);
    auto schema = in.int_or("schema", 1, 1, 1);
    if (!schema) return std::move(schema).error();
    auto priority = in.int_or("priority", 50, 0, 1000);
    if (!priority) return std::move(priority).error();
    info.priority = *priority;
    auto confidence = in.double_or("confidence", 0.5, 0, 1);
    if (!confidence) return std::move(confidence).error();
    info.confidence = *confidence;
    auto floor = in.double_or("confidence_floor", 0, 0, 1);
    if (!floor) return std::move(floor).error();
    info.confidence_floor = *floor;
    auto risk = in.string_or("risk", "disruptive");
    if (!risk) return std::move(risk).error();
    if (!parse_risk(*risk, info.risk)) return wrong(path + ".risk", "must be safe, disruptive or destructive");
    auto timeout = in.int_or("timeout_ms", 30'000, 1, 3'600'000);
    if (!timeout) return std::move(timeout).error();
    info.timeout = std::chrono::milliseconds{*timeout};
    for (const auto& [key, target] : std::initializer_list<std::pair<std::string_view, bool*>>{
             {"idempotent", &info.idempotent}, {"reversible", &info.reversible}, {"assess", &info.has_assess},
             {"verify", &info.has_verify}, {"rollback", &info.has_rollback}}) {
        auto flag = in.bool_or(key, false);
        if (!flag) return std::move(flag).error();
        *target = *flag;
    }
    auto matches = in.array_or_null("matches");
    if (!matches) return std::move(matches).error();
    if (*matches) {
        if ((*matches)->size() > max_matches) return wrong(path + ".matches", fmt::format("must have at most {} elements", max_matches));
        for (std::size_t i = 0; i < (*matches)->size(); ++i) HEAL_TRY(check_match((**matches)[i], fmt::format("{}.matches[{}]", path, i)));
        info.matches = **matches;
    }
    auto capabilities = in.array_or_null("capabilities");
    if (!capabilities) return std::move(capabilities).error();
    if (*capabilities) {
        if ((*capabilities)->size() > max_capabilities) {
            return wrong(path + ".capabilities", fmt::format("must have at most {} elements", max_capabilities));
        }
        for (std::size_t i = 0; i < (*capabilities)->size(); ++i) {
            const auto& one = (**capabilities)[i];
            const std::string place = fmt::format("{}.capabilities[{}]", path, i);
            if (!one.is_string()) return wrong(place, "must be a string");
            const std::string_view text = view(one.get_string());
            if (auto good = check_capability(text); !good) return wrong(place, good.error().text);
            info.capabilities.emplace_back(text);
        }
    }
    auto parameters = in.object_or_null("parameters");
    if (!parameters) return std::move(parameters).error();
    if (*parameters && !(*parameters)->empty()) {
        HEAL_TRY(check_schema(**parameters, path + ".parameters"));
        info.parameters = **parameters;
    }
    return info;
}

}  // namespace

result<void> check_match(const json::value& match, std::string_view path) {
    if (!match.is_object()) return wrong(path, "must be an object");
    for (const auto& [raw_key, v] : match.get_object()) {
        const std::string_view key{raw_key};
        const std::string here = fmt::format("{}.{}", path, key);
        if (among(glob_keys, key) || among(regex_keys, key)) {
            HEAL_TRY(check_words(v, here));
        } else if (key == "level") {
            if (!v.is_string() || parse_level(view(v.get_string())) == Level::unknown) {
                return wrong(here, "must be one of trace, debug, info, warn, error, fatal");
            }
        } else if (key == "http_status") {
            const bool range = v.is_array() && v.get_array().size() == 2 && is_status(v.get_array()[0]) && is_status(v.get_array()[1]) &&
                               v.get_array()[0].get_int64() <= v.get_array()[1].get_int64();
            if (!is_status(v) && !range) return wrong(here, "must be a status from 100 to 599, or [lowest, highest]");
        } else if (key == "labels" || key == "context") {
            if (!v.is_object() || !std::all_of(v.get_object().begin(), v.get_object().end(), [](const auto& m) { return is_scalar(m.value()); })) {
                return wrong(here, "must be an object of strings, numbers or booleans");
            }
        } else if (key == "target") {
            HEAL_TRY(check_words(v, here));
        } else if (key == "trigger") {
            if (!v.is_object()) return wrong(here, "must be an object {\"count\": N, \"window_s\": S}");
            for (const auto& [name, ignored] : v.get_object()) {
                if (name != "count" && name != "window_s") return wrong(fmt::format("{}.{}", here, std::string_view{name}), "is not known; use count and window_s");
            }
            const FieldReader in{v.get_object(), here};
            if (auto n = in.required_int("count", 1, 1'000'000); !n) return std::move(n).error();
            if (auto n = in.required_int("window_s", 1, 7 * 86'400); !n) return std::move(n).error();
        } else {
            return wrong(here, "is not a key of a match; known are " + joined(match_keys));
        }
    }
    return {};
}

result<void> check_schema(const json::object& schema, std::string_view path) {
    if (string_at(schema, "type", "object") != "object") return wrong(fmt::format("{}.type", path), "must be object");
    return check_schema_at(schema, std::string{path}, 0);
}

result<json::object> check_config(const json::object& schema, const json::object& config, std::string_view path) {
    if (schema.empty()) {
        if (config.empty()) return json::object{};
        return wrong(fmt::format("{}.{}", path, std::string_view{config.begin()->key()}), "is not a parameter; this strategy takes none");
    }
    auto checked = check_value(schema, json::value(config), std::string{path}, 0);
    if (!checked) return std::move(checked).error();
    return std::move(checked->as_object());
}

result<std::vector<StrategyInfo>> read_facts(const json::value& facts, std::string_view what) {
    if (facts.is_object() && facts.get_object().contains("error")) return wrong(what, string_at(facts.get_object(), "error"));
    if (!facts.is_array() || facts.get_array().empty() || facts.get_array().size() > max_strategies) {
        return wrong(what, fmt::format("describe must give an array of 1 to {} strategies", max_strategies));
    }
    std::vector<StrategyInfo> out;
    std::set<std::string> names;
    for (std::size_t i = 0; i < facts.get_array().size(); ++i) {
        auto one = read_one(facts.get_array()[i], facts.get_array().size() == 1 ? std::string{what} : fmt::format("{}[{}]", what, i));
        if (!one) return std::move(one).error();
        if (!names.insert(one->name).second) return wrong(what, fmt::format("describes the strategy '{}' twice", one->name));
        out.push_back(std::move(*one));
    }
    return out;
}

}  // namespace heal
