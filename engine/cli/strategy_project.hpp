// `healctl new strategy NAME --lua|--cpp`: a folder with a strategy that does something small and real, its test and a README.
#pragma once

#include "base/error.hpp"

#include <string>

namespace heal::cli {

/// Makes the folder ./NAME. C++: CMakeLists.txt (find_package(heald)), strategy.cpp, strategy_test.cpp; builds and passes its test, needs
/// nothing but the headers. Lua: NAME.lua, event.json, test.sh. errc::invalid_input (the name), errc::conflict (folder exists), errc::io.
result<void> new_strategy(const std::string& name, bool lua);

}  // namespace heal::cli
