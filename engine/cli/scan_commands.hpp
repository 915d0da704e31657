// healctl scan and healctl review --base: what was fixed before, looked for in a tree and in a change, with
// the gates that heald's own patches pass. Need no heald when the patterns come from a file.
#pragma once

#include "cli/brain_commands.hpp"

#include <functional>

namespace heal::cli {

/// Adds `scan`. A request that fails throws RequestFailed.
/// @return what the command refers to; must live as long as the App
[[nodiscard]] std::shared_ptr<void> add_scan_commands(CLI::App& app, const CommandContext& context);

/// Adds --base and its options to `review`.
/// @return to be called when the command runs: does the review and gives true when --base was there
[[nodiscard]] std::function<bool()> add_change_review(CLI::App& review, const CommandContext& context);

}  // namespace heal::cli
