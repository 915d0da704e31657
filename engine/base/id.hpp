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

/// HMAC-SHA-256 (RFC 2104) of the bytes under a key, as lower-case hex (64 characters). @thread any
std::string hmac_sha256_hex(std::string_view key, std::string_view bytes);

/// Are two texts equal, in a time that tells nothing of where they differ? @thread any
bool same_secret(std::string_view a, std::string_view b) noexcept;

/// `size` random bytes from the kernel (getrandom) as hex; for tokens. @thread any
std::string random_hex(std::size_t size);

}  // namespace heal
