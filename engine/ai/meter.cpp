#include "ai/meter.hpp"

#include "core/matcher.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace heal::ai {
namespace {

constexpr std::string_view off_words = "off until ";

result<void> within(std::int64_t limit, std::int64_t spent, std::int64_t most, const char* what) {
    if (limit <= 0 || most <= limit - spent) return {};
    return fail(
        errc::denied,
        fmt::format(
            "the budget is used up: {}: {} of {} spent or reserved, {} more asked for",
            what,
            spent,
            limit,
            most
        )
    );
}

}  // namespace

std::int64_t cost_micros(
    const std::vector<Price>& prices,
    const std::string& model,
    std::int64_t input,
    std::int64_t cached,
    std::int64_t output
) {
    const auto it = std::find_if(prices.begin(), prices.end(), [&](const Price& p) {
        return glob_matches(p.model, model);
    });
    if (it == prices.end()) return 0;
    cached = std::clamp<std::int64_t>(cached, 0, input);
    // A price per million tokens is millionths of it per token.
    const double micros = static_cast<double>(input - cached) * it->input +
                          static_cast<double>(cached) * it->cached + static_cast<double>(output) * it->output;
    return static_cast<std::int64_t>(std::ceil(micros - 1e-6));
}

result<void> check_budget(const Budget& budget, const Spent& spent, const Spend& most) {
    HEAL_TRY(within(budget.tokens_per_day, spent.day.tokens, most.tokens, "tokens_per_day"));
    HEAL_TRY(within(budget.tokens_per_bug, spent.bug.tokens, most.tokens, "tokens_per_bug"));
    HEAL_TRY(within(
        budget.provider_tokens_per_day,
        spent.provider_day.tokens,
        most.tokens,
        "tokens_per_day of the provider"
    ));
    HEAL_TRY(within(
        budget.cost_micros_per_day, spent.day.cost_micros, most.cost_micros, "cost_per_day in millionths"
    ));
    return within(
        budget.cost_micros_per_bug, spent.bug.cost_micros, most.cost_micros, "cost_per_bug in millionths"
    );
}

Breaker breaker_of(const BreakerRule& rule, const std::vector<CallFact>& newest_first, Time now) {
    Breaker b;
    std::optional<Time> newest_failure, under_way;
    for (const auto& call : newest_first) {
        if (call.outcome == "limited") {
            if (const auto until = off_until_of(call.error);
                until && *until > now && (!b.until || *until > *b.until)) {
                b.open = true;
                b.until = until;
                b.reason = "it asked to be left alone";
            }
        }
    }
    for (const auto& call : newest_first) {
        if (call.outcome == "asked") {
            if (now - call.at < rule.probe && !under_way) under_way = call.at;
            continue;
        }
        if (call.outcome != "failed" && call.outcome != "limited") break;
        ++b.failures;
        if (!newest_failure) newest_failure = call.at;
    }
    if (rule.failures == 0 || b.failures < rule.failures || !newest_failure) return b;
    const Time until = *newest_failure + rule.pause;
    if (until > now) {
        if (!b.until || until > *b.until) b.until = until;
        b.open = true;
        b.reason = fmt::format("{} failures in a row", b.failures);
    } else if (under_way && *under_way >= until) {
        b.open = true;
        b.reason = "one question tries whether it answers again";
    }
    return b;
}

std::string off_until_text(Time until, std::string_view reason) {
    return fmt::format("{}{}: {}", off_words, to_rfc3339(until), reason);
}

std::optional<Time> off_until_of(std::string_view error) {
    constexpr std::size_t date_size = 27;  // to_rfc3339
    Time at;
    if (!error.starts_with(off_words) || error.size() < off_words.size() + date_size) return std::nullopt;
    if (!parse_rfc3339(error.substr(off_words.size(), date_size), at)) return std::nullopt;
    return at;
}

std::string day_of(Time t) { return to_rfc3339(t).substr(0, 10); }

}  // namespace heal::ai
