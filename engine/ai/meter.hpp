// What questions may cost and when a provider rests. Decides from rows of the store alone (ai_calls), so that
// a restart or another node forgets nothing: a question is a row with the most it may cost before it is sent,
// and with what it did cost afterwards. Pure.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace heal::ai {

/// Per million tokens, in the configured currency.
struct Price {
    std::string model;  ///< glob
    double input = 0, cached = 0, output = 0;
};

/// Millionths of the currency, rounded up. The first price whose glob fits the model; none: 0.
/// @param input  all tokens of the question, `cached` of them included
std::int64_t cost_micros(
    const std::vector<Price>& prices,
    const std::string& model,
    std::int64_t input,
    std::int64_t cached,
    std::int64_t output
);

struct Spend {
    std::int64_t tokens = 0, cost_micros = 0;
};

/// 0: no limit.
struct Budget {
    std::int64_t tokens_per_day = 0, tokens_per_bug = 0, provider_tokens_per_day = 0;
    std::int64_t cost_micros_per_day = 0, cost_micros_per_bug = 0;
};

/// What was spent and is reserved so far.
struct Spent {
    Spend day, bug, provider_day;
};

/// May a question be asked that costs up to `most`? errc::denied names the limit.
result<void> check_budget(const Budget& budget, const Spent& spent, const Spend& most);

/// One question, as far as the breaker looks at it.
struct CallFact {
    Time at;
    std::string outcome;  ///< of ai_calls
    std::string error;
};

/// A provider rests after so many failures in a row, and as long as it asked for.
struct BreakerRule {
    unsigned failures = 3;  ///< 0: never
    Duration pause{300'000'000};
    Duration probe{
        300'000'000};  ///< a question to a resting provider that is under way for less keeps others out
};

struct Breaker {
    bool open = false;
    std::optional<Time> until;  ///< not known while one question tries whether it answers again
    unsigned failures = 0;      ///< in a row
    std::string reason;
};

/// @param newest_first  the provider's questions of the last two days, at most 100
Breaker breaker_of(const BreakerRule& rule, const std::vector<CallFact>& newest_first, Time now);

/// How "rests until" is written into the error of a call, and read again.
std::string off_until_text(Time until, std::string_view reason);
std::optional<Time> off_until_of(std::string_view error);

/// "2026-11-28", UTC: the day of a budget.
std::string day_of(Time t);

}  // namespace heal::ai
