// How long things took, as the answers of the API tell it.
#pragma once

#include "base/json.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace heal::sql {

/// Durations in microseconds, in any order. @thread one at a time
struct Percentiles {
    std::vector<std::int64_t> values;

    /// {"n", "p50_ms", "p95_ms", "p99_ms"}; null where there is no value. Sorts `values`.
    json::object take() {
        std::sort(values.begin(), values.end());
        const auto at = [&](double p) -> json::value {
            if (values.empty()) return nullptr;
            const auto last = static_cast<double>(values.size() - 1);
            return static_cast<double>(values[static_cast<std::size_t>(p * last + 0.5)]) / 1000.0;
        };
        return {{"n", values.size()}, {"p50_ms", at(0.50)}, {"p95_ms", at(0.95)}, {"p99_ms", at(0.99)}};
    }
};

}  // namespace heal::sql
