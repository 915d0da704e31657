// Routes of the patch pipeline: runs, what they are bound to, votes; patterns and what a scan found. Kept
// apart from routes.cpp, which joins them.
#pragma once

#include "http/routes.hpp"

namespace heal::http {

std::vector<Route> patch_routes();

/// approve and apply of `POST /api/v1/system/bugs/{id}/{action}`.
boost::asio::awaitable<Response> act_on_bug(Engine& engine, Request request);

}  // namespace heal::http
