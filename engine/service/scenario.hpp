// A scenario file: errors, health and strategies on a virtual clock, played through the real decision core
// (core/replay.hpp). docs/backtest.md has the keys.
#pragma once

#include "base/error.hpp"
#include "base/json.hpp"

#include <functional>
#include <string>
#include <vector>

namespace heal {

struct ScenarioResult {
    std::vector<std::string> errors;  ///< "file:line: key: what is wrong"; when there are some nothing ran
    json::object totals;
};
/// @param say  each step in words, with the virtual time since the beginning
ScenarioResult run_scenario(const std::string& path, const std::function<void(const std::string&)>& say);

}  // namespace heal
