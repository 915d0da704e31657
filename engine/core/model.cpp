#include "core/model.hpp"

#include <array>

namespace heal {
namespace {
constexpr std::array<const char*, 3> risks = {"safe", "disruptive", "destructive"};
constexpr std::array<const char*, 5> outcomes = {"succeeded", "failed", "declined", "unknown", "cancelled"};
}  // namespace

const char* to_string(Risk risk) noexcept { return risks[static_cast<std::size_t>(risk)]; }

bool parse_risk(std::string_view word, Risk& ret) noexcept {
    for (std::size_t i = 0; i < risks.size(); ++i) {
        if (word == risks[i]) {
            ret = static_cast<Risk>(i);
            return true;
        }
    }
    return false;
}

const char* to_string(Outcome outcome) noexcept { return outcomes[static_cast<std::size_t>(outcome)]; }

Outcome parse_outcome(std::string_view word) noexcept {
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
        if (word == outcomes[i]) return static_cast<Outcome>(i);
    }
    return Outcome::failed;
}

}  // namespace heal
