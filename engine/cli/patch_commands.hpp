// healctl's commands about patches: list, show, diff, approve, reject, cancel, figures; bug apply. They ask a
// running heald.
#pragma once

#include "cli/brain_commands.hpp"

namespace heal::cli {

/// Adds the commands; `bug` is the group of commands about bugs. A request that fails throws RequestFailed.
/// @return what the commands refer to; must live as long as the App
[[nodiscard]] std::shared_ptr<void> add_patch_commands(
    CLI::App& app, CLI::App& bug, const CommandContext& context
);

}  // namespace heal::cli
