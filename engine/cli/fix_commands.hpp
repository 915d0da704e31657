// healctl's commands about analysis and fixes: bug analyze, bug suggestions, ai. They ask a running heald.
#pragma once

#include "cli/brain_commands.hpp"

namespace heal::cli {

/// Adds the commands; `bug` must be there already. A request that fails throws RequestFailed.
/// @return what the commands refer to; must live as long as the App
[[nodiscard]] std::shared_ptr<void> add_fix_commands(CLI::App& app, const CommandContext& context);

}  // namespace heal::cli
