#include "core/incident.hpp"

#include <array>

namespace heal {
namespace {

constexpr std::array<const char*, 4> severities = {"P0_critical", "P1_major", "P2_minor", "P3_trivial"};
constexpr std::array<const char*, 4> autonomies = {"off", "shadow", "approve", "auto"};
constexpr std::array<const char*, 12> states = {
    "open",
    "awaiting_approval",
    "healing",
    "verifying",
    "stabilizing",
    "healed",
    "held",
    "did_not_hold",
    "unverified",
    "escalated",
    "suppressed",
    "closed"};

template <class Enum, std::size_t n>
bool find(const std::array<const char*, n>& names, std::string_view word, Enum& ret) {
    for (std::size_t i = 0; i < n; ++i) {
        if (word == names[i]) {
            ret = static_cast<Enum>(i);
            return true;
        }
    }
    return false;
}

}  // namespace

const char* to_string(Severity severity) noexcept { return severities[static_cast<std::size_t>(severity)]; }
const char* to_string(Autonomy autonomy) noexcept { return autonomies[static_cast<std::size_t>(autonomy)]; }
const char* to_string(EventState state) noexcept { return states[static_cast<std::size_t>(state)]; }
bool parse_autonomy(std::string_view word, Autonomy& ret) noexcept { return find(autonomies, word, ret); }
bool parse_event_state(std::string_view word, EventState& ret) noexcept { return find(states, word, ret); }

json::object to_json(const Incident& in) {
    const auto& r = in.record;
    json::object o{
        {"id", in.id},
        {"fingerprint", in.fingerprint},
        {"service", in.service_name},
        {"environment", in.environment},
        {"target", in.target},
        {"severity", to_string(in.severity)},
        {"trigger", in.trigger},
        {"level", to_string(r.level)},
        {"message", to_valid_utf8(r.message)},
        {"error_type", to_valid_utf8(r.error_type)},
        {"stack_trace", to_valid_utf8(r.stack_trace)},
        {"pattern", to_valid_utf8(in.pattern)},
        {"component", to_valid_utf8(r.component)},
        {"source", r.source},
        {"host", to_valid_utf8(r.host)},
        {"release", to_valid_utf8(r.release)},
        {"request_id", to_valid_utf8(r.request_id)},
        {"trace_id", to_valid_utf8(r.trace_id)},
        {"http_status", r.http_status},
        {"count", in.count},
        {"first_seen_us", in.first_at.us},
        {"last_seen_us", in.last_at.us}};
    json::value context = json::object{};
    if (!r.context.empty()) {
        if (auto parsed = parse_json(r.context, "context"); parsed && parsed->is_object())
            context = std::move(*parsed);
    }
    o["context"] = std::move(context);
    return o;
}

Incident incident_from_json(const json::object& o) {
    Incident in;
    const auto text = [&](std::string_view key) { return std::string{string_at(o, key)}; };
    in.id = text("id");
    in.fingerprint = in.record.fingerprint = text("fingerprint");
    in.service_name = in.record.service_name = text("service");
    in.environment = in.record.environment = text("environment");
    in.target = text("target");
    find(severities, string_at(o, "severity"), in.severity);
    in.trigger = text("trigger");
    in.record.level = parse_level(string_at(o, "level"));
    in.record.message = text("message");
    in.record.error_type = text("error_type");
    in.record.stack_trace = text("stack_trace");
    in.pattern = in.record.pattern = text("pattern");
    in.record.component = text("component");
    in.record.source = text("source");
    in.record.host = text("host");
    in.record.release = text("release");
    in.record.request_id = text("request_id");
    in.record.trace_id = text("trace_id");
    in.record.http_status = static_cast<int>(int_at(o, "http_status"));
    in.count = static_cast<std::uint64_t>(int_at(o, "count"));
    in.first_at = Time{int_at(o, "first_seen_us")};
    in.last_at = Time{int_at(o, "last_seen_us")};
    if (const auto& context = object_at(o, "context"); !context.empty())
        in.record.context = json::serialize(context);
    return in;
}

}  // namespace heal
