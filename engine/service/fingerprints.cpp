#include "service/fingerprints.hpp"

#include "fingerprint/merges.hpp"

#include <fmt/format.h>

#include <map>
#include <set>

namespace heal {
namespace {

constexpr std::pair<const char*, std::string fingerprint::RuleSpec::*> texts[] = {
    {"name", &fingerprint::RuleSpec::name},
    {"service", &fingerprint::RuleSpec::service},
    {"component", &fingerprint::RuleSpec::component},
    {"type", &fingerprint::RuleSpec::type},
    {"message", &fingerprint::RuleSpec::message},
    {"message_regex", &fingerprint::RuleSpec::message_regex}};
constexpr std::pair<const char*, std::vector<std::string> fingerprint::RuleSpec::*> lists[] = {
    {"fingerprint", &fingerprint::RuleSpec::fingerprint},
    {"ignore_frames", &fingerprint::RuleSpec::ignore_frames}};

/// At most so many groups are named in an answer; the counts are exact.
constexpr std::size_t most_named = 100;

result<void> read_field(
    fingerprint::RuleSpec& spec, std::string_view key, const json::value& value, const std::string& path
) {
    for (const auto& [name, field] : texts) {
        if (key != name) continue;
        if (!value.is_string())
            return fail(errc::invalid_input, fmt::format("{}.{}: must be a string", path, key));
        spec.*field = view(value.get_string());
        return {};
    }
    for (const auto& [name, field] : lists) {
        if (key != name) continue;
        if (!value.is_array())
            return fail(errc::invalid_input, fmt::format("{}.{}: must be an array of strings", path, key));
        for (const auto& item : value.get_array()) {
            if (!item.is_string())
                return fail(
                    errc::invalid_input, fmt::format("{}.{}: must be an array of strings", path, key)
                );
            (spec.*field).emplace_back(view(item.get_string()));
        }
        return {};
    }
    return fail(
        errc::invalid_input,
        fmt::format(
            "{}.{}: unknown key; known are name, service, component, type, message, message_regex, "
            "fingerprint, ignore_frames",
            path,
            to_valid_utf8(key)
        )
    );
}

}  // namespace

result<std::vector<fingerprint::RuleSpec>> rules_from_json(const json::array& rules) {
    std::vector<fingerprint::RuleSpec> specs;
    for (std::size_t i = 0; i < rules.size(); ++i) {
        const std::string path = fmt::format("rules[{}]", i);
        if (!rules[i].is_object()) return fail(errc::invalid_input, path + ": must be an object");
        fingerprint::RuleSpec spec;
        for (const auto& [key, value] : rules[i].get_object())
            HEAL_TRY(read_field(spec, {key.data(), key.size()}, value, path));
        specs.push_back(std::move(spec));
    }
    return specs;
}

json::array to_json(const std::vector<fingerprint::RuleSpec>& rules) {
    json::array out;
    for (const auto& rule : rules) {
        json::object o;
        for (const auto& [name, field] : texts) {
            if (!(rule.*field).empty()) o[name] = rule.*field;
        }
        for (const auto& [name, field] : lists) {
            if (!(rule.*field).empty()) o[name] = json::array((rule.*field).begin(), (rule.*field).end());
        }
        out.push_back(std::move(o));
    }
    return out;
}

json::object preview_rules(const std::vector<sql::SampleText>& samples, const fingerprint::Rules& rules) {
    std::map<std::string, std::set<std::string>> now_of, then_of;  // before -> after, after -> before
    std::map<std::string, std::string> pattern_of;
    std::map<std::string, std::uint64_t> by_rule;
    std::uint64_t occurrences = 0;
    for (const auto& s : samples) {
        const auto ruled = rules.apply({s.service, s.component, s.message, s.stack_trace});
        now_of[s.fingerprint].insert(ruled.fingerprint.id);
        then_of[ruled.fingerprint.id].insert(s.fingerprint);
        pattern_of.emplace(ruled.fingerprint.id, ruled.fingerprint.pattern);
        if (!ruled.rule.empty()) by_rule[ruled.rule] += s.represents;
        occurrences += s.represents;
    }
    json::array merged, split;
    for (const auto& [id, before] : then_of) {
        if (before.size() < 2 || merged.size() >= most_named) continue;
        merged.push_back(json::object{
            {"into", id},
            {"pattern", to_valid_utf8(pattern_of[id])},
            {"from", json::array(before.begin(), before.end())}});
    }
    for (const auto& [id, after] : now_of) {
        if (after.size() < 2 || split.size() >= most_named) continue;
        json::array into;
        for (const auto& part : after)
            into.push_back(json::object{{"id", part}, {"pattern", to_valid_utf8(pattern_of[part])}});
        split.push_back(json::object{{"from", id}, {"into", std::move(into)}});
    }
    json::object decided;
    for (const auto& [rule, count] : by_rule) decided[rule] = count;
    return {
        {"samples", samples.size()},
        {"occurrences", occurrences},
        {"groups_before", now_of.size()},
        {"groups_after", then_of.size()},
        {"merged", std::move(merged)},
        {"split", std::move(split)},
        {"rules", std::move(decided)}};
}

json::object merges_of(
    const std::string& service,
    const std::vector<sql::PatternRow>& patterns,
    const std::vector<sql::FingerprintDecision>& decisions
) {
    std::map<std::string, std::string> pattern_of;
    std::map<std::string, std::set<std::string>> ids_of;
    std::set<std::string> all;
    for (const auto& row : patterns) {
        pattern_of[row.id] = row.pattern;
        // Errors with a stack are told apart by it; only their words would be joined here.
        if (!row.stack_signature.empty()) continue;
        ids_of[row.pattern].insert(row.id);
        all.insert(row.pattern);
    }
    fingerprint::Decisions people;
    std::map<std::string, std::vector<std::string>> joined;
    for (const auto& d : decisions) {
        const auto it = pattern_of.find(d.fingerprint);
        if (it == pattern_of.end()) continue;
        if (d.fingerprint == d.canonical)
            people.apart.insert(it->second);
        else
            joined[d.canonical].push_back(d.fingerprint);
    }
    json::array out;
    for (const auto& [canonical, fine] : joined) {
        json::array ids(fine.begin(), fine.end());
        ids.emplace_back(canonical);
        out.push_back(json::object{
            {"canonical", canonical},
            {"pattern", to_valid_utf8(pattern_of[canonical])},
            {"fingerprints", std::move(ids)},
            {"reason", "decided by people"},
            {"by_people", true}});
        for (const auto& id : fine) all.erase(pattern_of[id]);
        all.erase(pattern_of[canonical]);
    }
    for (const auto& merge : fingerprint::suggest_merges(service, all, people)) {
        json::array ids;
        for (const auto& pattern : merge.patterns) {
            for (const auto& id : ids_of[pattern]) ids.emplace_back(id);
        }
        out.push_back(json::object{
            {"canonical", merge.canonical_id},
            {"pattern", to_valid_utf8(merge.canonical)},
            {"fingerprints", std::move(ids)},
            {"reason", merge.reason},
            {"by_people", merge.by_people}});
    }
    return {{"service", service}, {"merges", std::move(out)}};
}

}  // namespace heal
