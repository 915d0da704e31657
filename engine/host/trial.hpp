// A strategy tried by hand, without engine and without isolation: `heal-host --run`, `healctl script check|run`. Loads the artifact into
// this process, performs its effects here, prints each of them and the outcome.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "core/model.hpp"

#include <cstdio>
#include <string>
#include <vector>

namespace heal {

struct TrialRun {
    std::string file;        ///< .so or .lua
    std::string event_file;  ///< JSON: a whole request {"incident": …, "target": …, "config": …}, or just the incident; "-": stdin; "": {}
    std::string strategy;    ///< which of the artifact's; "": the first
    std::string function = "execute";
    bool dry_run = false;
    std::string state_folder;         ///< "": a temporary folder that is removed afterwards
    std::vector<std::string> grants;  ///< empty: what the strategy declares, placeholders filled from the request's target
};

/// Exit code: 0 succeeded (or assessed), 1 any other outcome, 2 the file, the event or the arguments are wrong (said on `err`).
int run_trial(const TrialRun& run, const Clock& clock, std::FILE* out, std::FILE* err);

/// Loads and describes a file as the catalog would. errc::invalid_input with place and remedy; errc::not_found.
result<std::vector<StrategyInfo>> check_artifact(const std::string& file);

}  // namespace heal
