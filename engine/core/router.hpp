// Ranks strategies for one incident and holds what verified outcomes taught about them.
#pragma once

#include "core/incident.hpp"

#include <map>
#include <span>

namespace heal {

/// Verified outcomes per strategy × fingerprint, strategy × service, strategy; old evidence decays (half-life
/// 30 days).
class OutcomeBook {
public:
    struct Counts {
        double successes = 0, failures = 0;  ///< decayed
        Time at;                             ///< of the newest evidence
    };
    void record(
        const std::string& strategy,
        const std::string& fingerprint,
        const std::string& service,
        bool success,
        Time at
    );
    /// A success found not to have held: takes the success back and adds a failure.
    void correct(
        const std::string& strategy, const std::string& fingerprint, const std::string& service, Time at
    );
    Counts of(const std::string& strategy, const std::string& fingerprint, Time now) const;

    /// The prior counts as `prior_weight` outcomes; evidence of the exact fingerprint outweighs the
    /// service's, that the strategy's: each coarser level serves as the prior of the finer one. In [0,1].
    double confidence(
        double prior,
        const std::string& strategy,
        const std::string& fingerprint,
        const std::string& service,
        Time now
    ) const;

    /// The evidence behind it: the strategy in all, with the service, with the fingerprint.
    std::vector<Learned> learned(
        const std::string& strategy, const std::string& fingerprint, const std::string& service, Time now
    ) const;

    static constexpr double prior_weight = 4;  // outcomes; docs/adr/0005-ranking.md

private:
    std::map<std::string, Counts> counts_;
};

/// The prior moved by evidence, coarse to fine; each coarser value is the prior of the finer one. In [0,1].
double learned_confidence(double prior, std::span<const Learned> levels);

/// Best first: higher priority wins, equal priority is decided by effective confidence, then by name (so that
/// it is the same everywhere). Candidates with a note, or below their floor (which sets a note), come last
/// and may not run.
/// @thread any; pure.  Reasons: docs/adr/0005-ranking.md
void rank(std::vector<Candidate>& candidates);

}  // namespace heal
