// Identifiers: UUIDv7 (RFC 9562), sortable by creation time, as 36 lower-case characters; SHA-256 as hex.
#pragma once

#include "base/clock.hpp"

#include <string>
#include <string_view>

namespace heal {

/// A new UUIDv7. Ids made by one process sort in the order they were made. @thread any
std::string new_id(const Clock& clock);

/// Lower-case hex SHA-256 (64 characters) of the bytes. @thread any
std::string sha256_hex(std::string_view bytes);

/// `size` random bytes from the kernel (getrandom) as hex; for tokens. @thread any
std::string random_hex(std::size_t size);

}  // namespace heal
