// An event in words: which rule opened it, who could heal it and with which numbers, what each guard said,
// what was done and what was seen then. From what the store holds, without a running healer. Pure.
#pragma once

#include "base/json.hpp"

namespace heal {

/// `event`: as sql::show_event gives it. Returns {"event", "lines": [text], "ranking": {"stored",
/// "recomputed", "equal"}}; equal is null when the event has no ranking.
json::object explain(const json::object& event);

}  // namespace heal
