// Routes of what decides: holds, guards, and why. Kept apart from routes.cpp, which joins them.
#pragma once

#include "http/routes.hpp"

namespace heal::http {

std::vector<Route> brain_routes();

}  // namespace heal::http
