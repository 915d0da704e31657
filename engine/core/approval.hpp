// What people allow, bound to exactly what they were shown: a request carries the hash of everything that the
// act depends on, and counts only while that hash is still true. Generic: heals and patches use the same.
// Pure values and rules; service/approvals.hpp keeps them.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/json.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace heal {

enum class ApprovalState : std::uint8_t {
    pending,   ///< not enough people have said yes
    approved,  ///< enough have; not yet acted on
    rejected,  ///< one said no
    expired,   ///< its time ran out before it was acted on
    voided,    ///< what it was bound to is not so any more
    used       ///< acted on; it allows nothing further
};
const char* to_string(ApprovalState state) noexcept;
bool parse_approval_state(std::string_view word, ApprovalState& ret) noexcept;

/// One person's word.
struct Vote {
    std::string actor;
    bool yes = true;
    bool break_glass = false;  ///< alone, in an emergency, with a reason; needs no second person
    std::string reason;
    Time at;
};

struct Approval {
    std::string id;
    std::string kind;     ///< what sort of act: "heal", "patch", …
    std::string subject;  ///< which one: "EVENT/STRATEGY", the id of a patch, …
    std::string summary;  ///< one sentence for the person who decides
    json::object bound;   ///< all that the act depends on; what people see
    std::string digest;   ///< binding_digest of kind, subject and bound
    unsigned needed = 1;  ///< different people who must say yes
    ApprovalState state = ApprovalState::pending;
    std::string reason;  ///< why it is void, rejected or expired; "" else
    std::vector<Vote> votes;
    Time requested_at, expires_at;
    std::optional<Time> ended_at;  ///< when it stopped being pending or approved
    bool is_open() const { return state == ApprovalState::pending || state == ApprovalState::approved; }
    /// Somebody broke the glass for it.
    bool emergency() const;
};

/// SHA-256 (64 hex digits) over kind, subject and the binding with its keys in order, so that equal content
/// gives equal digests whatever order it was built in.
std::string binding_digest(std::string_view kind, std::string_view subject, const json::object& bound);

/// Takes one vote. Different people are told apart by `actor` up to " (": what follows
/// is where they were.
/// @param seen  the digest that the voter saw; "" when they did not say
/// errc::conflict: no longer open, expired, they voted before, or `seen` is another one;
/// errc::invalid_input: a break-glass without a reason.
result<void> cast(Approval& approval, const Vote& vote, std::string_view seen);

/// Takes note of time and of what is so now: expires or voids it. True when its state changed.
/// @param now_bound  null: not looked at
bool refresh(Approval& approval, const json::object* now_bound, Time now);

/// Where two bindings differ, in words: "parameters.port was 80 and is 81"; at most five places; "" when they
/// are the same.
std::string drift(const json::object& then, const json::object& now);

json::object to_json(const Approval& approval);

}  // namespace heal
