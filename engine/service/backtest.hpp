// What another configuration would have made of what was heard: stored samples are grouped and replayed
// (core/replay.hpp) under the running configuration and under the new one, and what differs is told. Reads
// only; the same input gives the same bytes.
#pragma once

#include "core/replay.hpp"
#include "service/settings.hpp"
#include "store/healing_store.hpp"

namespace heal {

/// The strategies of `artifacts` (as GET /api/v1/strategies lists them) under these settings and what people
/// set at run time.
/// errc::invalid_input: what a strategy matches cannot be read.
result<ReplayWorld> world_of(
    const Settings& settings, const json::array& artifacts, const std::vector<sql::StrategySetting>& overrides
);

struct BacktestRequest {
    const Settings* current = nullptr;
    const Settings* next = nullptr;
    json::array artifacts;  ///< empty: actions are not compared
    Time from;
};
/// {"samples", "occurrences", "from", "to", "groups": {…}, "incidents", "actions", "held_back", "ends": each
/// name -> {current, next}}. An action is assumed to end as the strategy's stored outcomes on that error did
/// mostly, and to help where there are none.
result<json::object> backtest(Database& db, const BacktestRequest& request);

}  // namespace heal
