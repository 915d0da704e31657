// healctl store: works on stores themselves, not through a running heald.
#pragma once

#include <CLI/App.hpp>

namespace heal::cli {

/// `healctl store move --from heald.db --to URL [--password-file FILE]`. The exit code goes to `ret_code`.
void add_store_command(CLI::App& app, int& ret_code);

}  // namespace heal::cli
