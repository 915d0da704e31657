#include "core/matcher.hpp"

#include <fmt/format.h>
#include <re2/re2.h>

namespace heal {

struct Matcher::Rule {
    struct Glob {
        std::string LogRecord::*field;
        std::string pattern;
    };
    std::vector<Glob> globs;
    Level level = Level::warn;
    std::unique_ptr<re2::RE2> message, pattern, stack;
    int status_min = 0, status_max = 0;
    json::object context;
    std::vector<std::string> facts;
    Threshold threshold;
};

namespace {

constexpr std::pair<std::string_view, std::string LogRecord::*> glob_keys[] = {
    {"service", &LogRecord::service_name},
    {"environment", &LogRecord::environment},
    {"component", &LogRecord::component},
    {"source", &LogRecord::source},
    {"error_type", &LogRecord::error_type},
    {"host", &LogRecord::host},
    {"release", &LogRecord::release}};

result<std::unique_ptr<re2::RE2>> compile_regex(const json::value& value, const std::string& path) {
    if (!value.is_string())
        return fail(errc::invalid_input, path + ": must be a regular expression (RE2) as a string");
    re2::RE2::Options options;
    options.set_log_errors(false);
    options.set_max_mem(1 << 20);
    const auto text = view(value.get_string());
    auto regex = std::make_unique<re2::RE2>(re2::StringPiece{text.data(), text.size()}, options);
    if (!regex->ok())
        return fail(
            errc::invalid_input, fmt::format("{}: not a regular expression (RE2): {}", path, regex->error())
        );
    return regex;
}

bool found(const std::unique_ptr<re2::RE2>& regex, std::string_view text) {
    return !regex || re2::RE2::PartialMatch(re2::StringPiece{text.data(), text.size()}, *regex);
}

}  // namespace

bool glob_matches(std::string_view pattern, std::string_view text) noexcept {
    std::size_t p = 0, t = 0, star = std::string_view::npos, mark = 0;
    while (t < text.size()) {
        if (p < pattern.size() && (pattern[p] == '?' || (pattern[p] == text[t] && pattern[p] != '*')))
            ++p, ++t;
        else if (p < pattern.size() && pattern[p] == '*')
            star = p++, mark = t;
        else if (star != std::string_view::npos)
            p = star + 1, t = ++mark;
        else
            return false;
    }
    while (p < pattern.size() && pattern[p] == '*') ++p;
    return p == pattern.size();
}

result<Matcher> Matcher::compile(const json::array& matches, std::string_view path) {
    Matcher matcher;
    for (std::size_t i = 0; i < matches.size(); ++i) {
        const std::string at = fmt::format("{}[{}]", path, i);
        if (!matches[i].is_object()) return fail(errc::invalid_input, at + ": must be an object");
        auto rule = std::make_shared<Rule>();
        for (const auto& [raw_key, value] : matches[i].get_object()) {
            const std::string_view key{raw_key.data(), raw_key.size()};
            const std::string where = fmt::format("{}.{}", at, key);
            bool is_glob = false;
            for (const auto& [name, field] : glob_keys) {
                if (key != name) continue;
                if (!value.is_string())
                    return fail(errc::invalid_input, where + ": must be a string (a glob with * and ?)");
                rule->globs.push_back({field, std::string{view(value.get_string())}});
                is_glob = true;
            }
            if (is_glob) continue;
            if (key == "level") {
                rule->level = value.is_string() ? parse_level(view(value.get_string())) : Level::unknown;
                if (rule->level == Level::unknown) {
                    return fail(
                        errc::invalid_input, where + ": must be one of trace, debug, info, warn, error, fatal"
                    );
                }
            } else if (key == "message" || key == "pattern" || key == "stack") {
                auto regex = compile_regex(value, where);
                if (!regex) return regex.error();
                (key == "message"   ? rule->message
                 : key == "pattern" ? rule->pattern
                                    : rule->stack) = std::move(*regex);
            } else if (key == "http_status") {
                const auto number = [&](const json::value& v, int& ret) {
                    if (!v.is_int64() || v.get_int64() < 100 || v.get_int64() > 599) return false;
                    ret = static_cast<int>(v.get_int64());
                    return true;
                };
                const bool ok = value.is_array()
                                    ? value.get_array().size() == 2 &&
                                          number(value.get_array()[0], rule->status_min) &&
                                          number(value.get_array()[1], rule->status_max)
                                    : number(value, rule->status_min) && number(value, rule->status_max);
                if (!ok)
                    return fail(
                        errc::invalid_input, where + ": must be a status from 100 to 599 or [min, max]"
                    );
            } else if (key == "context" || key == "labels") {
                if (!value.is_object())
                    return fail(errc::invalid_input, where + ": must be an object of exact values");
                for (const auto& [k, v] : value.get_object()) rule->context[k] = v;
            } else if (key == "target") {
                if (!value.is_array())
                    return fail(
                        errc::invalid_input, where + ": must be an array of fact names, such as [\"process\"]"
                    );
                for (const auto& fact : value.get_array()) {
                    if (!fact.is_string())
                        return fail(errc::invalid_input, where + ": must be an array of strings");
                    rule->facts.emplace_back(view(fact.get_string()));
                }
            } else if (key == "trigger") {
                if (!value.is_object())
                    return fail(errc::invalid_input, where + ": must be {\"count\": …, \"window_s\": …}");
                const FieldReader in{value.get_object(), where};
                auto count = in.int_or("count", 1, 1, 1'000'000);
                if (!count) return count.error();
                auto window = in.int_or("window_s", 60, 1, 3'600);
                if (!window) return window.error();
                rule->threshold = {static_cast<std::uint64_t>(*count), std::chrono::seconds{*window}};
            } else {
                return fail(
                    errc::invalid_input,
                    where +
                        ": unknown key; known are service, environment, component, source, error_type, host, "
                        "release, level, message, "
                        "pattern, stack, http_status, context, labels, target, trigger"
                );
            }
        }
        matcher.rules_.push_back(std::move(rule));
    }
    return matcher;
}

std::optional<Threshold> Matcher::fits(const Incident& incident, const json::object& target) const {
    const auto& record = incident.record;
    for (const auto& rule : rules_) {
        const Level level = record.level == Level::unknown ? Level::error : record.level;
        if (level < rule->level) continue;
        bool ok = true;
        for (const auto& glob : rule->globs) ok = ok && glob_matches(glob.pattern, record.*glob.field);
        for (const auto& fact : rule->facts) ok = ok && target.contains(fact);
        if (rule->status_min != 0)
            ok = ok && record.http_status >= rule->status_min && record.http_status <= rule->status_max;
        if (!ok) continue;
        if (!rule->context.empty()) {
            const auto parsed = parse_json(record.context.empty() ? "{}" : record.context, "context");
            if (!parsed || !parsed->is_object()) continue;
            for (const auto& [key, value] : rule->context) {
                const auto* found_value = parsed->get_object().if_contains(key);
                ok = ok && found_value && *found_value == value;
            }
            if (!ok) continue;
        }
        if (found(rule->message, record.message) && found(rule->pattern, incident.pattern) &&
            found(rule->stack, record.stack_trace)) {
            return rule->threshold;
        }
    }
    return std::nullopt;
}

}  // namespace heal
