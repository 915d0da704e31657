// healctl's commands about approvals: list, show, approve, reject, link. They ask a running heald.
#pragma once

#include "cli/brain_commands.hpp"

namespace heal::cli {

/// Adds the commands. A request that fails throws RequestFailed.
/// @return what the commands refer to; must live as long as the App
[[nodiscard]] std::shared_ptr<void> add_approval_commands(CLI::App& app, const CommandContext& context);

}  // namespace heal::cli
