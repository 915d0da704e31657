// Rules by people: which errors are one, beyond what the text says. Ordered; the first rule that matches
// decides. Pure functions of the event and the rules; deliberately no reading of configuration and no
// storing.
#pragma once

#include "base/error.hpp"
#include "fingerprint/fingerprint.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace heal::fingerprint {

/// One rule. Empty conditions are not looked at; all that are given must hold.
struct RuleSpec {
    std::string name{};           ///< unique, shown with each event that it decided
    std::string service{};        ///< glob
    std::string component{};      ///< glob
    std::string type{};           ///< glob over the exception type of the innermost cause
    std::string message{};        ///< glob over the whole message
    std::string message_regex{};  ///< RE2, found anywhere in the message
    /// What makes the id: text and {{ default }}, {{ service }}, {{ component }}, {{ type }}, {{ message }}
    /// (masked), {{ module }},
    /// {{ function }} (topmost in-app frame), {{ 1 }} … {{ 9 }} (groups of message_regex). Empty: {"{{
    /// default }}"}.
    std::vector<std::string> fingerprint{};
    std::vector<std::string>
        ignore_frames{};  ///< globs over "module:function": helper frames that are stepped over
};

/// What rules look at.
struct RuleEvent {
    std::string_view service, component, message, stack_trace;
};

struct Ruled {
    Fingerprint fingerprint;
    std::string rule;  ///< name of the rule; "" when none matched
};

/// A checked, compiled list of rules. Immutable; swap the whole on reload (I17).
class Rules {
public:
    Rules();
    ~Rules();
    Rules(Rules&&) noexcept;
    Rules& operator=(Rules&&) noexcept;

    /// errc::invalid_input names the rule and what is wrong with it: a missing or doubled name, an expression
    /// that RE2 refuses, an unknown placeholder, no condition at all. At most 1000 rules.
    static result<Rules> create(std::vector<RuleSpec> specs);

    /// The fingerprint of an event under these rules; compute's when none matches. @thread any
    Ruled apply(const RuleEvent& event) const;

    std::size_t size() const noexcept;

private:
    struct Compiled;
    std::vector<Compiled> rules_;
};

}  // namespace heal::fingerprint
