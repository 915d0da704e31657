// Moves a store whole from one engine to the other, in one transaction of the target, and proves it: the same
// rows and the same hash for every table on both sides, or nothing at all.
#pragma once

#include "base/clock.hpp"
#include "store/database.hpp"

#include <functional>
#include <string>
#include <vector>

namespace heal {

struct MovedTable {
    std::string name;
    std::int64_t rows = 0;
    std::string hash;  ///< over all rows, independent of their order; equal on both sides
};

/// Copies every table of `from` (SQLite, schema up to date) into `to` (PostgreSQL, migrated, without data).
/// `told` is called after each table. errc::conflict: a schema differs, the target has data, or a hash
/// differs (nothing is stored then).
result<std::vector<MovedTable>> move_store(
    Database& from, Database& to, const std::function<void(const MovedTable&)>& told
);

}  // namespace heal
