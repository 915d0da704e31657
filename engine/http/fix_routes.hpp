// Routes of analysis and fixes: what is wrong with a bug, what is suggested, what models cost.
#pragma once

#include "http/routes.hpp"

namespace heal::http {

std::vector<Route> fix_routes();

}  // namespace heal::http
