// How far a strategy is trusted with a class of error: a ladder off → shadow → approve → auto that it climbs
// by outcomes that held and falls from by harm. Pure; service/trust.hpp keeps it. The autonomy that a person
// set is the ceiling and is not this file's business.
#pragma once

#include "core/incident.hpp"

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace heal {

struct TrustPolicy {
    Autonomy start = Autonomy::automatic;  ///< rung on a class where nothing is known yet
    double bound = 0.90;    ///< climbs when the lower confidence bound of its success is this high; (0, 1)
    unsigned samples = 20;  ///< and it has at least so many outcomes, decayed; 1 … 10'000
    double demote_below =
        0;  ///< falls when the upper bound of its success is below this, with 4 outcomes or more; 0: never
    /// Falls after so many harms since its last step, decayed; 0: never. Two, since an error that is new
    /// after an action may be a coincidence once.
    unsigned harms = 2;
    Duration half_life = std::chrono::hours{30 * 24};
};

/// Class of an error for trust: its service and its kind ("cart/network"), coarse enough to gather evidence.
std::string error_class(const LogRecord& record);

/// Wilson score interval at 95 % of a share of `good` in good + bad; fractions of outcomes count. n = 0 gives
/// 0 and 1.
double wilson_lower(double good, double bad) noexcept;
double wilson_upper(double good, double bad) noexcept;

enum class TrustEvidence : std::uint8_t {
    held,        ///< verified, and no recurrence until the end of the hold window
    failed,      ///< verification failed, or the error came back within the hold window
    harmed,      ///< it made something worse
    listed,      ///< a shadow attempt listed what it would do
    list_failed  ///< a shadow attempt failed
};
const char* to_string(TrustEvidence evidence) noexcept;

/// One step of the ladder, to be stored and audited by the caller.
struct TrustStep {
    std::string strategy, error_class;
    Autonomy from = Autonomy::off, to = Autonomy::off;
    std::string reason;
};

class TrustBook {
public:
    struct Entry {
        Autonomy rung = Autonomy::automatic;
        Time since;            ///< of the last step
        bool by_hand = false;  ///< a person set it: it may fall, and climbs no more
        bool fell = false;     ///< once it fell, evidence from coarser classes counts no more
        std::string reason;
        double good = 0, bad = 0;            ///< outcomes since `since`, decayed to `at`
        double listed = 0, list_failed = 0;  ///< shadow attempts since `since`
        double harms = 0;
        Time at;
    };

    /// The rung as it is, without regard to the ceiling.
    Autonomy rung(const std::string& strategy, const std::string& error_class, Autonomy start) const;
    const Entry* find(const std::string& strategy, const std::string& error_class) const;
    /// A rung from the store, or set by a person; forgets the evidence before it.
    void put(
        const std::string& strategy,
        const std::string& error_class,
        Autonomy rung,
        Time since,
        bool by_hand,
        bool fell,
        std::string reason
    );
    /// Back to the policy's start; what is known stays forgotten.
    void clear(const std::string& strategy, const std::string& error_class);

    /// Takes note of an outcome. A step when the rung changes by it: one rung at a time, up to `ceiling` at
    /// most. Thin data of the class backs off to the same kind of error anywhere, then to the strategy in
    /// all, as long as nothing bad is known of the class itself.
    std::optional<TrustStep> note(
        const std::string& strategy,
        const std::string& error_class,
        TrustEvidence evidence,
        Time at,
        const TrustPolicy& policy,
        Autonomy start,
        Autonomy ceiling
    );
    /// After a restart: evidence of before, oldest first; what came before the rung's last step does not
    /// count, and nothing steps.
    void restore(
        const std::string& strategy,
        const std::string& error_class,
        TrustEvidence evidence,
        Time at,
        const TrustPolicy& policy,
        Autonomy start
    );

    const std::map<std::pair<std::string, std::string>, Entry>& entries() const { return entries_; }
    /// Classes kept in all; beyond it the one that was heard of least lately goes, its rung included when it
    /// is the start.
    static constexpr std::size_t max_entries = 50'000;

private:
    struct Level {
        double good = 0, bad = 0;
        const char* name = "";
    };
    Entry& entry(const std::string& strategy, const std::string& error_class, Autonomy start, Time at);
    static void decay(Entry& entry, Time at, Duration half_life);
    Level evidence_for(
        const std::string& strategy,
        const std::string& error_class,
        const Entry& own,
        Time at,
        const TrustPolicy& policy
    ) const;
    void add(Entry& entry, TrustEvidence evidence, Time at, const TrustPolicy& policy);

    std::map<std::pair<std::string, std::string>, Entry> entries_;
};

}  // namespace heal
