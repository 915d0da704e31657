#include "core/router.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

namespace heal {
namespace {

constexpr double half_life_us = 30.0 * 86'400 * 1e6;

double decay(Time from, Time to) {
    return to.us <= from.us ? 1.0 : std::exp2(-static_cast<double>(to.us - from.us) / half_life_us);
}

std::string key(const std::string& strategy, char kind, const std::string& scope) {
    return strategy + '\x1f' + kind + scope;
}

void add(OutcomeBook::Counts& c, double successes, double failures, Time at) {
    const double factor = decay(c.at, at);
    c.successes = std::max(0.0, c.successes * factor + successes);
    c.failures = std::max(0.0, c.failures * factor + failures);
    c.at = std::max(c.at, at);
}

}  // namespace

void OutcomeBook::record(
    const std::string& strategy,
    const std::string& fingerprint,
    const std::string& service,
    bool success,
    Time at
) {
    for (const auto& k :
         {key(strategy, 'f', fingerprint), key(strategy, 's', service), key(strategy, '*', "")}) {
        add(counts_[k], success ? 1 : 0, success ? 0 : 1, at);
    }
}

void OutcomeBook::correct(
    const std::string& strategy, const std::string& fingerprint, const std::string& service, Time at
) {
    for (const auto& k :
         {key(strategy, 'f', fingerprint), key(strategy, 's', service), key(strategy, '*', "")}) {
        add(counts_[k], -1, 1, at);
    }
}

OutcomeBook::Counts OutcomeBook::of(const std::string& strategy, const std::string& fingerprint, Time now)
    const {
    const auto it = counts_.find(key(strategy, 'f', fingerprint));
    if (it == counts_.end()) return {};
    const double factor = decay(it->second.at, now);
    return {it->second.successes * factor, it->second.failures * factor, it->second.at};
}

double OutcomeBook::confidence(
    double prior,
    const std::string& strategy,
    const std::string& fingerprint,
    const std::string& service,
    Time now
) const {
    return learned_confidence(prior, learned(strategy, fingerprint, service, now));
}

std::vector<Learned> OutcomeBook::learned(
    const std::string& strategy, const std::string& fingerprint, const std::string& service, Time now
) const {
    std::vector<Learned> out;
    for (const auto& k :
         {key(strategy, '*', ""), key(strategy, 's', service), key(strategy, 'f', fingerprint)}) {
        const auto it = counts_.find(k);
        const double factor = it == counts_.end() ? 0 : decay(it->second.at, now);
        out.push_back(
            it == counts_.end() ? Learned{}
                                : Learned{it->second.successes * factor, it->second.failures * factor}
        );
    }
    return out;
}

double learned_confidence(double prior, std::span<const Learned> levels) {
    double value = std::clamp(prior, 0.0, 1.0);
    for (const auto& l : levels)
        value = (value * OutcomeBook::prior_weight + l.good) / (OutcomeBook::prior_weight + l.good + l.bad);
    return value;
}

void rank(std::vector<Candidate>& candidates) {
    for (auto& c : candidates) {
        if (c.note.empty() && c.confidence < c.floor) {
            c.note = fmt::format("confidence {:.3f} is below its floor {:.3f}", c.confidence, c.floor);
        }
    }
    std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
        return std::make_tuple(!a.note.empty(), -a.priority, -a.confidence, std::string_view{a.info.name}) <
               std::make_tuple(!b.note.empty(), -b.priority, -b.confidence, std::string_view{b.info.name});
    });
}

}  // namespace heal
