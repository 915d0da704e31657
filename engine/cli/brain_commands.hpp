// healctl's commands about decisions: hold, guard, drill. They ask a running heald.
#pragma once

#include "base/json.hpp"
#include "cli/client.hpp"

#include <CLI/App.hpp>
#include <memory>
#include <string>
#include <string_view>

namespace heal::cli {

/// What main() lends to the commands; lives as long as the App.
struct CommandContext {
    const Client& client;
    const bool& as_json;
    int& exit_code;  ///< of a command that ran
};

/// Adds the commands. A request that fails throws RequestFailed.
/// @return what the commands refer to; must live as long as the App
[[nodiscard]] std::shared_ptr<void> add_brain_commands(CLI::App& app, const CommandContext& context);

struct RequestFailed {
    Error error;
};

/// One request whose answer is an object; throws RequestFailed.
json::object ask(
    const CommandContext& context,
    const std::string& method,
    const std::string& path,
    const json::object* body = nullptr
);
/// With --json prints the answer and returns true.
bool json_wanted(const CommandContext& context, const json::object& answer);
/// Text of a log never steers a terminal.
std::string plain(std::string_view text);

}  // namespace heal::cli
