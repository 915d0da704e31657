// Reads the part `ai` of the configuration. Internal to settings.cpp; errors name file, line and key.
#pragma once

#include "service/ai_settings.hpp"
#include "service/mapping.hpp"

namespace heal {

void read_ai(const YAML::Node& node, Mapping::Context& context, AiSettings& ret);

}  // namespace heal
