// Routes of approvals: what people are asked, their votes, and signed links with a small page of their own.
#pragma once

#include "http/routes.hpp"

namespace heal::http {

std::vector<Route> approval_routes();

}  // namespace heal::http
