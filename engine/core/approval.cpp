#include "core/approval.hpp"

#include "base/id.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

namespace heal {
namespace {

constexpr std::array<const char*, 6> names = {"pending", "approved", "rejected", "expired", "voided", "used"};
constexpr std::size_t max_differences = 5, max_value_text = 80;

void append_canonical(std::string& out, const json::value& v) {
    if (v.is_object()) {
        std::map<std::string_view, const json::value*> sorted;
        for (const auto& [key, value] : v.get_object())
            sorted.emplace(std::string_view{key.data(), key.size()}, &value);
        out += '{';
        bool first = true;
        for (const auto& [key, value] : sorted) {
            if (!std::exchange(first, false)) out += ',';
            out += json::serialize(json::string_view{key.data(), key.size()});
            out += ':';
            append_canonical(out, *value);
        }
        out += '}';
    } else if (v.is_array()) {
        out += '[';
        bool first = true;
        for (const auto& item : v.get_array()) {
            if (!std::exchange(first, false)) out += ',';
            append_canonical(out, item);
        }
        out += ']';
    } else if (v.is_uint64() && v.get_uint64() <= INT64_MAX) {
        out += std::to_string(v.get_uint64());  // as it comes back from the store
    } else {
        out += json::serialize(v);
    }
}

std::string canonical(const json::value& v) {
    std::string out;
    append_canonical(out, v);
    return out;
}

std::string short_text(const json::value* v) {
    if (!v) return "absent";
    std::string text = canonical(*v);
    if (text.size() > max_value_text) text = to_valid_utf8(text.substr(0, max_value_text)) + "…";
    return text;
}

void compare(
    const std::string& path, const json::value* a, const json::value* b, std::vector<std::string>& found
) {
    if (found.size() > max_differences) return;
    if (a && b && a->is_object() && b->is_object()) {
        std::set<std::string> keys;
        for (const auto* side : {a, b}) {
            for (const auto& item : side->get_object()) keys.emplace(item.key().data(), item.key().size());
        }
        for (const auto& key : keys)
            compare(
                path.empty() ? key : path + "." + key,
                a->get_object().if_contains(key),
                b->get_object().if_contains(key),
                found
            );
        return;
    }
    if (a && b && canonical(*a) == canonical(*b)) return;
    found.push_back(fmt::format("{} was {} and is {}", path, short_text(a), short_text(b)));
}

/// "anna (http:10.0.0.7)" is anna, wherever she sits.
std::string_view person_of(std::string_view actor) { return actor.substr(0, actor.find(" (")); }

void end(Approval& a, ApprovalState state, std::string reason, Time now) {
    a.state = state;
    a.reason = std::move(reason);
    a.ended_at = now;
}

}  // namespace

const char* to_string(ApprovalState state) noexcept { return names[static_cast<std::size_t>(state)]; }

bool parse_approval_state(std::string_view word, ApprovalState& ret) noexcept {
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (word == names[i]) return ret = static_cast<ApprovalState>(i), true;
    }
    return false;
}

bool Approval::emergency() const {
    return std::any_of(votes.begin(), votes.end(), [](const Vote& v) { return v.yes && v.break_glass; });
}

std::string binding_digest(std::string_view kind, std::string_view subject, const json::object& bound) {
    // Lengths before the parts, so that no two triples run together to one text.
    return sha256_hex(fmt::format(
        "{}:{}\n{}:{}\n{}", kind.size(), kind, subject.size(), subject, canonical(json::value(bound))
    ));
}

std::string drift(const json::object& then, const json::object& now) {
    std::vector<std::string> found;
    const json::value a = then, b = now;
    compare("", &a, &b, found);
    std::string text;
    for (std::size_t i = 0; i < found.size() && i < max_differences; ++i)
        text += (i == 0 ? "" : "; ") + found[i];
    return found.size() > max_differences ? text + "; and more" : text;
}

bool refresh(Approval& a, const json::object* now_bound, Time now) {
    if (!a.is_open()) return false;
    if (now >= a.expires_at) {
        end(a,
            ApprovalState::expired,
            a.state == ApprovalState::pending ? "nobody decided in time" : "it was not acted on in time",
            now);
        return true;
    }
    if (!now_bound || binding_digest(a.kind, a.subject, *now_bound) == a.digest) return false;
    const std::string what = drift(a.bound, *now_bound);
    end(a,
        ApprovalState::voided,
        what.empty() ? "what it is bound to changed" : "what it is bound to changed: " + what,
        now);
    return true;
}

result<void> cast(Approval& a, const Vote& vote, std::string_view seen) {
    refresh(a, nullptr, vote.at);
    if (!a.is_open())
        return fail(
            errc::conflict,
            fmt::format("the request is {}{}{}", to_string(a.state), a.reason.empty() ? "" : ": ", a.reason)
        );
    if (!seen.empty() && seen != a.digest)
        return fail(
            errc::conflict,
            fmt::format(
                "what you saw ({}) is not what is asked for now ({}); look again",
                to_valid_utf8(seen.substr(0, 12)),
                a.digest.substr(0, 12)
            )
        );
    if (vote.break_glass && vote.reason.empty())
        return fail(errc::invalid_input, "reason: is missing; breaking the glass needs one");
    if (!vote.yes) {
        a.votes.push_back(vote);
        end(a,
            ApprovalState::rejected,
            fmt::format("{} ({})", vote.reason.empty() ? "no reason given" : vote.reason, vote.actor),
            vote.at);
        return {};
    }
    const bool again = std::any_of(a.votes.begin(), a.votes.end(), [&](const Vote& v) {
        return person_of(v.actor) == person_of(vote.actor) && v.yes;
    });
    if (again && !vote.break_glass)
        return fail(
            errc::conflict,
            fmt::format(
                "'{}' said yes already; {} different people must", to_valid_utf8(vote.actor), a.needed
            )
        );
    a.votes.push_back(vote);
    std::set<std::string_view> people;
    for (const auto& v : a.votes) {
        if (v.yes) people.insert(person_of(v.actor));
    }
    if (vote.break_glass || people.size() >= a.needed) a.state = ApprovalState::approved;
    return {};
}

json::object to_json(const Approval& a) {
    json::array votes;
    for (const auto& v : a.votes)
        votes.push_back(json::object{
            {"actor", to_valid_utf8(v.actor)},
            {"yes", v.yes},
            {"break_glass", v.break_glass},
            {"reason", to_valid_utf8(v.reason)},
            {"at", to_rfc3339(v.at)}});
    return json::object{
        {"id", a.id},
        {"kind", a.kind},
        {"subject", to_valid_utf8(a.subject)},
        {"summary", to_valid_utf8(a.summary)},
        {"state", to_string(a.state)},
        {"reason", to_valid_utf8(a.reason)},
        {"digest", a.digest},
        {"bound", a.bound},
        {"needed", a.needed},
        {"votes", std::move(votes)},
        {"requested_at", to_rfc3339(a.requested_at)},
        {"expires_at", to_rfc3339(a.expires_at)},
        {"ended_at", a.ended_at ? json::value(to_rfc3339(*a.ended_at)) : json::value(nullptr)}};
}

}  // namespace heal
