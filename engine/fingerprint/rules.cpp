#include "fingerprint/rules.hpp"

#include "base/id.hpp"
#include "fingerprint/traces.hpp"

#include <re2/re2.h>

#include <algorithm>
#include <set>

namespace heal::fingerprint {

struct Rules::Compiled {
    RuleSpec spec;
    std::unique_ptr<RE2> regex;
};

Rules::Rules() = default;
Rules::~Rules() = default;
Rules::Rules(Rules&&) noexcept = default;
Rules& Rules::operator=(Rules&&) noexcept = default;

std::size_t Rules::size() const noexcept { return rules_.size(); }

namespace {

constexpr std::size_t max_rules = 1000;
constexpr std::string_view names[] = {
    "default", "service", "component", "type", "message", "module", "function"};

/// Calls text(…) and name(…) for the parts of "a {{ name }} b".
template <class Text, class Name>
void parts(std::string_view s, Text text, Name name) {
    while (!s.empty()) {
        const std::size_t open = s.find("{{");
        const std::size_t close = open == std::string_view::npos ? open : s.find("}}", open);
        if (close == std::string_view::npos) {
            text(s);
            return;
        }
        text(s.substr(0, open));
        std::string_view inner = s.substr(open + 2, close - open - 2);
        while (!inner.empty() && inner.front() == ' ') inner.remove_prefix(1);
        while (!inner.empty() && inner.back() == ' ') inner.remove_suffix(1);
        name(inner);
        s.remove_prefix(close + 2);
    }
}

bool is_group(std::string_view name) { return name.size() == 1 && name[0] >= '1' && name[0] <= '9'; }

}  // namespace

result<Rules> Rules::create(std::vector<RuleSpec> specs) {
    Rules out;
    std::set<std::string> seen;
    if (specs.size() > max_rules)
        return fail(
            errc::invalid_input,
            "there are " + std::to_string(specs.size()) + " fingerprint rules; at most 1000 are allowed"
        );
    for (RuleSpec& spec : specs) {
        const std::string who = "fingerprint rule '" + spec.name + "'";
        if (spec.name.empty())
            return fail(errc::invalid_input, "a fingerprint rule has no name; give each one");
        if (!seen.insert(spec.name).second)
            return fail(errc::invalid_input, who + " is there twice; rename one");
        if (spec.service.empty() && spec.component.empty() && spec.type.empty() && spec.message.empty() &&
            spec.message_regex.empty()) {
            return fail(
                errc::invalid_input,
                who + " has no condition; give service, component, type, message or message_regex"
            );
        }
        Compiled rule;
        int groups = 0;
        if (!spec.message_regex.empty()) {
            RE2::Options options;
            options.set_log_errors(false);
            options.set_max_mem(1 << 20);
            options.set_encoding(RE2::Options::EncodingLatin1);
            rule.regex = std::make_unique<RE2>(spec.message_regex, options);
            if (!rule.regex->ok())
                return fail(
                    errc::invalid_input,
                    who + ": message_regex is not an RE2 expression: " + rule.regex->error()
                );
            groups = rule.regex->NumberOfCapturingGroups();
        }
        for (const auto& part : spec.fingerprint) {
            std::string bad;
            parts(
                part,
                [](std::string_view) {},
                [&](std::string_view name) {
                    const bool known =
                        std::find(std::begin(names), std::end(names), name) != std::end(names) ||
                        (is_group(name) && name[0] - '0' <= groups);
                    if (!known) bad = name;
                }
            );
            if (!bad.empty()) {
                return fail(
                    errc::invalid_input,
                    who + ": '{{ " + bad +
                        " }}' is unknown; use default, service, component, type, message, module, function "
                        "or a group of message_regex"
                );
            }
        }
        rule.spec = std::move(spec);
        out.rules_.push_back(std::move(rule));
    }
    return out;
}

Ruled Rules::apply(const RuleEvent& event) const {
    bool parsed = false;
    Trace trace;
    for (const Compiled& rule : rules_) {
        const RuleSpec& spec = rule.spec;
        if (!spec.service.empty() && !matches_glob(spec.service, event.service)) continue;
        if (!spec.component.empty() && !matches_glob(spec.component, event.component)) continue;
        if (!spec.message.empty() && !matches_glob(spec.message, event.message)) continue;
        re2::StringPiece groups[10];
        if (rule.regex != nullptr) {
            const int wanted = std::min(10, rule.regex->NumberOfCapturingGroups() + 1);
            if (!rule.regex->Match(
                    re2::StringPiece{event.message.data(), event.message.size()},
                    0,
                    event.message.size(),
                    RE2::UNANCHORED,
                    groups,
                    wanted
                ))
                continue;
        }
        if (!parsed) {
            trace = parse_trace(event.stack_trace);
            parsed = true;
        }
        const std::string type = trace.chain.empty() ? std::string{} : trace.chain.front().type;
        if (!spec.type.empty() && !matches_glob(spec.type, type)) continue;

        Ruled out{compute(event.service, event.message, {}), spec.name};
        const std::string signature = signature_of(trace, spec.ignore_frames).app5;
        const std::string message = out.fingerprint.pattern;
        bool with_default = spec.fingerprint.empty();
        std::string pattern = with_default ? message : std::string{};
        for (const auto& part : spec.fingerprint) {
            if (!pattern.empty()) pattern += '|';
            parts(
                part,
                [&](std::string_view text) { pattern += text; },
                [&](std::string_view name) {
                    const Frame* top = nullptr;
                    if (!trace.chain.empty()) {
                        for (const Frame& f : trace.chain.front().frames) {
                            if (f.in_app) {
                                top = &f;
                                break;
                            }
                        }
                    }
                    if (name == "default")
                        with_default = true, pattern += message;
                    else if (name == "service")
                        pattern += event.service;
                    else if (name == "component")
                        pattern += event.component;
                    else if (name == "type")
                        pattern += type;
                    else if (name == "message")
                        pattern += message;
                    else if (name == "module")
                        pattern += top == nullptr ? "" : top->module;
                    else if (name == "function")
                        pattern += top == nullptr ? "" : top->function;
                    else if (is_group(name))
                        pattern.append(
                            groups[name[0] - '0'].data() == nullptr
                                ? ""
                                : std::string{groups[name[0] - '0'].data(), groups[name[0] - '0'].size()}
                        );
                }
            );
        }
        out.fingerprint.pattern = std::move(pattern);
        out.fingerprint.signature = with_default ? signature : std::string{};
        out.fingerprint.digest = sha256_hex(
            std::string{event.service} + ":" + out.fingerprint.pattern + ":" + out.fingerprint.signature
        );
        out.fingerprint.id = out.fingerprint.digest.substr(0, 16);
        return out;
    }
    return {compute(event.service, event.message, event.stack_trace), {}};
}

}  // namespace heal::fingerprint
