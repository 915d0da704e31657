// What a strategy says about itself, checked: the facts of `describe` (JSON from a library, a table from a script) become
// StrategyInfo values, or one sentence that names the place and what is allowed there. The engine checks it, since it trusts no
// child; `healctl script check` uses the same code. Also: the configuration of a strategy against its declared parameters.
#pragma once

#include "base/error.hpp"
#include "core/model.hpp"

#include <string_view>
#include <vector>

namespace heal {

/// 1 … 64 strategies with different names. Unknown keys are refused: a typo must not silently switch a guard off.
/// @param facts  array of objects (docs/plugin-guide.md, "Facts")
/// @param what   for errors, e.g. the file's name
/// Leaves artifact, build and kind empty. errc::invalid_input.
result<std::vector<StrategyInfo>> read_facts(const json::value& facts, std::string_view what);

/// One element of `matches`: keys and types only; whether it fits an error is the matcher's business.
result<void> check_match(const json::value& match, std::string_view path);

/// `config` with defaults filled in, checked against a JSON Schema of the subset heald knows: type, properties, required,
/// additionalProperties (boolean), items, enum, default, minimum, maximum, minLength, maxLength, minItems, maxItems; description, unit
/// and title are for people. errc::invalid_input names the path in the configuration.
result<json::object> check_config(const json::object& schema, const json::object& config, std::string_view path);

/// The schema itself: only words of that subset. errc::invalid_input.
result<void> check_schema(const json::object& schema, std::string_view path);

}  // namespace heal
