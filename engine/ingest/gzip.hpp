// Inflates request bodies with a bound that is checked while inflating, so that a gzip bomb costs no more
// than the bound.
#pragma once

#include "base/error.hpp"

#include <cstddef>
#include <string>
#include <string_view>

namespace heal {

/// gzip (one or several members) and zlib streams, told apart by their header.
/// errc::invalid_input: damaged or cut off; errc::overloaded: inflates to more than `max_bytes`. @thread any
result<std::string> inflate_body(std::string_view compressed, std::size_t max_bytes);

}  // namespace heal
