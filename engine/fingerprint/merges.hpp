// The second layer: which fine patterns look like one statement whose values are words. Suggestions only: the
// fine id of an error never changes, a canonical id has the fine ones as aliases for ever. A pure function of
// the set of patterns and of the decisions of people: no order, no clock, no state; two machines that
// exchange their sets get the same answer.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace heal::fingerprint {

/// What people decided; both win over every suggestion.
struct Decisions {
    std::vector<std::vector<std::string>> joined;  ///< sets of fine patterns that are one
    std::set<std::string> apart;                   ///< fine patterns that are never suggested for a merge
};

struct Merge {
    std::string canonical;              ///< pattern with the learned positions as <*>
    std::string canonical_id;           ///< id of that pattern (compute's formula without stack)
    std::vector<std::string> patterns;  ///< the fine patterns, sorted, at least two
    std::string reason;                 ///< one sentence for people
    bool by_people =
        false;  ///< a decision; apply it everywhere. Else apply only where nothing but display hangs on it
};

/// Finds merges in a set of fine patterns of one service. Grows with the set: patterns that were joined stay
/// joined when others come (unless people set one apart). At most 20 000 patterns are looked at, in sorted
/// order; cost about 2 µs per word. Word counts needed at one position: 5; 4 with >= 9 and 3 with >= 14
/// constant words; twice as many with one constant word only; three times as many when a word is in capitals
/// (states). Source of the numbers: the measured design S1, docs/fingerprint.md.
/// @thread any
std::vector<Merge> suggest_merges(
    std::string_view service, const std::set<std::string>& patterns, const Decisions& decisions = {}
);

}  // namespace heal::fingerprint
