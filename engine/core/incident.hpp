// An incident: one fingerprint that triggered, with what is known of it, and who could heal it. Plain values.
#pragma once

#include "core/model.hpp"

#include <optional>
#include <string>
#include <vector>

namespace heal {

enum class Severity : std::uint8_t { p0_critical, p1_major, p2_minor, p3_trivial };
const char* to_string(Severity severity) noexcept;  ///< "P0_critical" …, the names of M3

/// What a strategy may do without a person: nothing, only list what it would do, after approval, by itself.
enum class Autonomy : std::uint8_t { off, shadow, approve, automatic };
const char* to_string(Autonomy autonomy) noexcept;  ///< "off", "shadow", "approve", "auto"
bool parse_autonomy(std::string_view word, Autonomy& ret) noexcept;

/// States of `self_heal_events.state`; the first five are open.
enum class EventState : std::uint8_t {
    open,
    awaiting_approval,
    healing,
    verifying,
    stabilizing,
    healed,        ///< verified; the hold window runs
    held,          ///< verified, and no recurrence until the end of the hold window
    did_not_hold,  ///< was healed, came back within the hold window
    unverified,    ///< acted, it went quiet, but nothing positive shows that it is healthy
    escalated,     ///< no candidate is left, or what happened is not known
    suppressed,    ///< a guard forbade every candidate
    closed         ///< by a person
};
const char* to_string(EventState state) noexcept;
bool parse_event_state(std::string_view word, EventState& ret) noexcept;
constexpr bool is_open(EventState s) { return s <= EventState::stabilizing; }

struct Incident {
    std::string id, fingerprint, service_name, environment,
        target;  ///< target: name in the inventory; "" unknown
    Severity severity = Severity::p2_minor;
    std::string trigger;
    LogRecord record;  ///< the newest sample
    std::string pattern;
    std::uint64_t count = 0;  ///< occurrences since it opened, the trigger's included
    Time first_at, last_at, opened_at;
};

/// What a strategy sees of an incident; keys in docs/plugin-guide.md.
json::object to_json(const Incident& incident);
/// Restores the parts of an incident that matching and strategies need. Missing keys stay empty.
Incident incident_from_json(const json::object& object);

struct VerifyPolicy {
    Duration timeout =
        std::chrono::seconds{10};  ///< how long a healthy sign may take to appear after the action
    Duration stabilize = std::chrono::seconds{60};  ///< second horizon: still healthy after this; 0: skip
    Duration hold =
        std::chrono::hours{24};  ///< third horizon: a recurrence within it turns healed into did_not_hold
};

/// Verified outcomes at one level of evidence, decayed.
struct Learned {
    double good = 0, bad = 0;
};

/// A strategy that fits an incident, with every number that ranked it.
struct Candidate {
    StrategyInfo info;
    std::int64_t priority = 0;  ///< after configuration
    double prior = 0;           ///< assessed or declared
    double confidence = 0;      ///< effective: prior moved by verified outcomes, [0,1]
    double floor = 0;
    Autonomy autonomy = Autonomy::approve;
    VerifyPolicy verify;
    json::object config;                        ///< parameters, checked against info.parameters
    std::uint64_t successes = 0, failures = 0;  ///< verified outcomes that moved the confidence
    std::vector<Learned> learned;               ///< coarse to fine: strategy, with service, with fingerprint
    std::string note;                           ///< why it is out; "" when it is in
};

}  // namespace heal
