#include "core/matcher.hpp"

#include <fmt/format.h>
#include <re2/filtered_re2.h>
#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <unordered_map>

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
    {"release", &LogRecord::release},
    {"fingerprint", &LogRecord::fingerprint}};

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

namespace {

constexpr std::size_t shortest_literal = 3;

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

std::uint32_t first_three(const char* p) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(p[0])) |
           static_cast<std::uint32_t>(static_cast<unsigned char>(p[1])) << 8U |
           static_cast<std::uint32_t>(static_cast<unsigned char>(p[2])) << 16U;
}
std::size_t slot_of(std::uint32_t three) { return (three * 2654435761U) >> 16U; }

/// Letters outside of ASCII that (?i) takes for letters within: U+212A for k, U+017F for s.
bool folds_into_ascii(std::string_view text) {
    return text.find("\xE2\x84\xAA") != std::string_view::npos ||
           text.find("\xC5\xBF") != std::string_view::npos;
}

/// Finds the regular expressions whose literals a text holds.
class LiteralIndex {
public:
    /// False: the expression demands no literal, so nothing finds it here.
    static bool indexable(const std::string& pattern) {
        re2::FilteredRE2 one{static_cast<int>(shortest_literal)};
        int id = 0;
        std::vector<std::string> atoms;
        std::vector<int> passed;
        if (one.Add(pattern, options(), &id) != re2::RE2::NoError) return false;
        one.Compile(&atoms);
        if (atoms.empty()) return false;
        for (const auto& atom : atoms) {
            const bool ascii = std::all_of(atom.begin(), atom.end(), [](char c) { return (c & 0x80) == 0; });
            if (!ascii || atom.size() < shortest_literal) return false;
        }
        one.AllPotentials({}, &passed);
        return passed.empty();
    }
    void add(const std::string& pattern, std::size_t owner) {
        int id = 0;
        filter_.Add(pattern, options(), &id);
        owners_.push_back(owner);
    }
    void compile() {
        if (owners_.empty()) return;
        filter_.Compile(&atoms_);
        for (std::size_t i = 0; i < atoms_.size(); ++i) {
            const auto three = first_three(atoms_[i].data());
            seen_[slot_of(three) / 64] |= std::uint64_t{1} << (slot_of(three) % 64);
            by_start_[three].push_back(static_cast<int>(i));
        }
    }
    void potential(std::string_view text, std::vector<std::size_t>& ret) const {
        if (owners_.empty()) return;
        if (folds_into_ascii(text)) {
            ret.insert(ret.end(), owners_.begin(), owners_.end());
            return;
        }
        std::string small(text);
        for (char& c : small) c = lower(c);
        std::vector<int> found, passed;
        for (std::size_t i = 0; i + shortest_literal <= small.size(); ++i) {
            const auto three = first_three(small.data() + i);
            const auto slot = slot_of(three);
            if ((seen_[slot / 64] >> (slot % 64) & 1U) == 0) continue;
            const auto it = by_start_.find(three);
            if (it == by_start_.end()) continue;
            for (const int atom : it->second) {
                const auto& literal = atoms_[static_cast<std::size_t>(atom)];
                if (small.compare(i, literal.size(), literal) == 0) found.push_back(atom);
            }
        }
        if (found.empty()) return;  // every expression here demands one
        std::sort(found.begin(), found.end());
        found.erase(std::unique(found.begin(), found.end()), found.end());
        filter_.AllPotentials(found, &passed);
        for (const int id : passed) ret.push_back(owners_[static_cast<std::size_t>(id)]);
    }

private:
    static re2::RE2::Options options() {
        re2::RE2::Options o;
        o.set_log_errors(false);
        o.set_max_mem(1 << 20);
        return o;
    }
    re2::FilteredRE2 filter_{static_cast<int>(shortest_literal)};
    std::vector<std::size_t> owners_;
    std::vector<std::string> atoms_;
    std::unordered_map<std::uint32_t, std::vector<int>> by_start_;
    std::array<std::uint64_t, 1024> seen_{};  // of 65536 slots
};

bool is_exact(std::string_view glob) { return glob.find_first_of("*?") == std::string_view::npos; }

}  // namespace

struct MatcherIndex::State {
    using Exact = std::unordered_map<std::string, std::vector<std::size_t>>;
    // In the order of how much each tells.
    std::array<std::pair<std::string LogRecord::*, Exact>, 4> exact{
        {{&LogRecord::fingerprint, {}},
         {&LogRecord::error_type, {}},
         {&LogRecord::service_name, {}},
         {&LogRecord::component, {}}}};
    LiteralIndex message, pattern, stack;
    std::vector<std::size_t> always;
};

MatcherIndex::MatcherIndex() : state_(std::make_unique<State>()) {}
MatcherIndex::~MatcherIndex() = default;
MatcherIndex::MatcherIndex(MatcherIndex&&) noexcept = default;
MatcherIndex& MatcherIndex::operator=(MatcherIndex&&) noexcept = default;

void MatcherIndex::build(const std::vector<const Matcher*>& matchers) {
    auto state = std::make_unique<State>();
    const auto place = [&](const Matcher::Rule& rule, std::size_t id) {
        const auto by_exact = [&](std::size_t which) {
            auto& [field, table] = state->exact[which];
            for (const auto& glob : rule.globs) {
                if (glob.field != field || !is_exact(glob.pattern)) continue;
                table[glob.pattern].push_back(id);
                return true;
            }
            return false;
        };
        const auto by_literal = [&](const std::unique_ptr<re2::RE2>& regex, LiteralIndex& index) {
            if (!regex || !LiteralIndex::indexable(regex->pattern())) return false;
            index.add(regex->pattern(), id);
            return true;
        };
        if (by_exact(0) || by_literal(rule.message, state->message) ||
            by_literal(rule.pattern, state->pattern) || by_literal(rule.stack, state->stack) || by_exact(1) ||
            by_exact(2) || by_exact(3))
            return;
        state->always.push_back(id);
    };
    for (std::size_t id = 0; id < matchers.size(); ++id) {
        for (const auto& rule : matchers[id]->rules_) place(*rule, id);
    }
    state->message.compile();
    state->pattern.compile();
    state->stack.compile();
    state_ = std::move(state);
}

void MatcherIndex::potential(const Incident& incident, std::vector<std::size_t>& ret) const {
    ret = state_->always;
    for (const auto& [field, table] : state_->exact) {
        if (table.empty()) continue;
        if (const auto it = table.find(incident.record.*field); it != table.end())
            ret.insert(ret.end(), it->second.begin(), it->second.end());
    }
    state_->message.potential(incident.record.message, ret);
    state_->pattern.potential(incident.pattern, ret);
    state_->stack.potential(incident.record.stack_trace, ret);
    std::sort(ret.begin(), ret.end());
    ret.erase(std::unique(ret.begin(), ret.end()), ret.end());
}

std::size_t MatcherIndex::always_asked() const { return state_->always.size(); }

}  // namespace heal
