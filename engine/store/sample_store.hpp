// Stored samples as a stream, for what goes over much of them (backtests). Errors are those of Database::run.
#pragma once

#include "core/incident.hpp"
#include "store/database.hpp"

#include <functional>

namespace heal::sql {

struct StoredSample {
    Incident incident;  ///< fingerprint, service, environment, pattern and record as it was heard
    std::uint64_t represents = 1;
};
/// Samples received since `from`, oldest first. The reference holds for the call.
result<void> each_sample(Database& db, Time from, const std::function<void(const StoredSample&)>& visit);

}  // namespace heal::sql
