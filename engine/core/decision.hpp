// The ranking of one incident as a function from stored text to stored text: what went in is kept with the
// event, and whoever doubts it computes it again and gets the same bytes (healctl why). Numbers are integers,
// in millionths, since a double may change on its way through JSON.
#pragma once

#include "core/incident.hpp"

#include <string>
#include <vector>

namespace heal {

/// {"candidates": [{strategy, priority, prior, floor, learned: [[good, bad] × 3], note}], "excluded":
/// [names]}: learned holds the decayed outcomes of the strategy in all, with the service, with the
/// fingerprint.
/// `explore`: goes first among those of its priority; "" for none.
json::object decision_input(
    const std::vector<Candidate>& candidates,
    const std::vector<std::string>& excluded,
    const std::string& explore = {}
);

/// [{rank, strategy, confidence, note}], best first: those that are out come last, those that failed last on
/// this error before them; then higher priority, then what is explored, then confidence, then name.
/// Unreadable input gives an empty list.
/// @thread any; pure.  Reasons: docs/adr/0005-ranking.md
json::array decide(const json::object& input);

/// Brings the candidates into that order and sets their confidence and note.
void apply_decision(const json::array& output, std::vector<Candidate>& candidates);

}  // namespace heal
