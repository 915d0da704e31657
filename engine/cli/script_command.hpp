// `healctl script check|run`: a strategy tried without the engine. The work is heal-host's (host/trial.hpp); its output and exit code
// are passed on.
#pragma once

#include <string>

namespace heal::cli {

/// Loads and describes FILE (.lua or .so), prints its strategies. Exit code: 0 good, 2 refused (reason on stderr).
int script_check(const std::string& host_binary, const std::string& file);

/// Calls `call` (assess, execute, verify, rollback) on the event of a JSON file ("-": stdin); prints effects and outcome.
/// Exit code: 0 succeeded, 1 any other outcome, 2 file or event are wrong.
int script_run(const std::string& host_binary, const std::string& file, const std::string& event_file, const std::string& call, bool dry_run);

}  // namespace heal::cli
