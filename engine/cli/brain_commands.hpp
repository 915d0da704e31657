// healctl's commands about decisions: hold, guard, drill. They ask a running heald.
#pragma once

#include "cli/client.hpp"

#include <CLI/App.hpp>

namespace heal::cli {

/// What main() lends to the commands; lives as long as the App.
struct CommandContext {
    const Client& client;
    const bool& as_json;
    int& exit_code;  ///< of a command that ran
};

/// Adds the commands. A request that fails throws RequestFailed.
void add_brain_commands(CLI::App& app, const CommandContext& context);

struct RequestFailed {
    Error error;
};

}  // namespace heal::cli
