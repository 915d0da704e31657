// Decides from data alone whether a strategy concerns an incident, so that neither plugin nor script is
// entered for errors that are none of its business. Regular expressions are RE2's: linear time on hostile
// text.
#pragma once

#include "core/incident.hpp"

#include <memory>
#include <string>
#include <vector>

namespace heal {

/// How often within which window an error must occur before a match counts. Default: at once.
struct Threshold {
    std::uint64_t count = 1;          ///< 1 … 1'000'000
    std::chrono::seconds window{60};  ///< 1 s … 1 h
};

class Matcher {
public:
    /// `matches`: objects, any of which must fit; within one, all keys must. Keys: service, environment,
    /// component, source, error_type, host, release, fingerprint (glob with * and ?), level (minimum; default
    /// warn), message, pattern, stack (RE2, unanchored), http_status (number or [min, max]), context or
    /// labels (object of exact values), target (names of facts the target must have), trigger {count,
    /// window_s}. errc::invalid_input names the place and what is allowed.
    static result<Matcher> compile(const json::array& matches, std::string_view path);

    /// The threshold of the first rule that fits; nullopt when none does. `target`: facts of the inventory.
    /// @thread any
    std::optional<Threshold> fits(const Incident& incident, const json::object& target) const;

private:
    friend class MatcherIndex;
    struct Rule;
    std::vector<std::shared_ptr<const Rule>> rules_;
};

/// Which of many matchers may fit an incident, without asking each: every rule is found by the most telling
/// of what it demands (its fingerprint, a literal that its message, pattern or stack must hold, the exact
/// error type, service or component); only rules that demand none of these are always asked.
class MatcherIndex {
public:
    MatcherIndex();
    ~MatcherIndex();
    MatcherIndex(MatcherIndex&&) noexcept;
    MatcherIndex& operator=(MatcherIndex&&) noexcept;

    /// Ids are the places in `matchers`.
    void build(const std::vector<const Matcher*>& matchers);
    /// Ids of those that may fit, ascending, each once: never one too few.
    /// @thread any
    void potential(const Incident& incident, std::vector<std::size_t>& ret) const;
    /// Rules that no index finds.
    std::size_t always_asked() const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

/// Glob with * and ?; case counts. Linear in practice: one backtrack point.
bool glob_matches(std::string_view pattern, std::string_view text) noexcept;

}  // namespace heal
