// Triggers as data: when errors, or their absence, are worth an incident. Pure: driven with given times,
// state bounded. What no trigger's `when` fits is decided as without any. docs/triggers.md explains them for
// people.
#pragma once

#include "core/matcher.hpp"
#include "core/recent.hpp"
#include "core/rules.hpp"

#include <optional>
#include <string>
#include <vector>

namespace heal {

enum class TriggerKind : std::uint8_t {
    fresh,       ///< "new": a kind of error that was never heard before
    threshold,   ///< `count` within `within`
    hysteresis,  ///< raised at `count` within `within`, cleared below `clear_count` within `clear_within`
    rate,        ///< far above what is usual at this hour
    severity,    ///< at least so severe
    regression,  ///< its bug was said to be fixed
    sequence,    ///< what `when` fits is not followed by what `then` fits within `within`
    absence,     ///< what `when` fits was not heard for `within`
    combination  ///< `need` of the triggers `of` fired within `within`
};
const char* to_string(TriggerKind kind) noexcept;  ///< "new", "threshold", …
bool parse_trigger_kind(std::string_view word, TriggerKind& ret) noexcept;

struct TriggerSpec {
    std::string name;
    TriggerKind kind = TriggerKind::threshold;
    Matcher when, then;
    /// Counted apart for each value of: fingerprint, service, environment, host, component, release,
    /// error_type, or label:NAME of the context. Empty: all together.
    std::vector<std::string> by;
    std::uint64_t count = 1;        ///< 1 … 1'000'000
    Duration within{60'000'000};    ///< 1 s … 1 h; absence and sequence up to 7 d
    std::uint64_t clear_count = 1;  ///< below it, it is cleared
    Duration clear_within{60'000'000};
    double factor = 4;  ///< rate: so many robust deviations above the median; 1 … 100
    Severity at_least = Severity::p1_major;
    std::vector<std::string> of;
    unsigned need = 0;                 ///< combination: how many of `of`; 0: all
    std::optional<Severity> severity;  ///< of the incident; nullopt: as the error's
    std::string service, environment;  ///< of the incident of an absence that was never heard of
};

/// One kind of error as it was just heard.
struct Observation {
    const Incident* incident = nullptr;
    const json::object* target = nullptr;  ///< facts of the inventory; null: none
    std::uint64_t count = 1;
    Severity severity = Severity::p2_minor;
    bool is_new = false, was_fixed = false;
};

struct Fired {
    std::string trigger, group, reason;
    std::string service, environment;  ///< of what was heard last in the group
    std::optional<Severity> severity;
    bool cleared = false;  ///< a raised one is over: nothing to open
};

class Triggers {
public:
    /// @param limit  groups kept per trigger; the one not heard for longest is forgotten first
    explicit Triggers(std::vector<TriggerSpec> specs, std::size_t limit = 100'000);

    struct Answer {
        bool governed = false;  ///< a trigger says when this error is worth an incident; the defaults do not
        std::vector<Fired> fired;
    };
    /// What was heard, at the time it was heard.
    Answer observe(const Observation& what, Time now);
    /// The same for what is restored from the store: counts, and fires nothing.
    void restore(const Observation& what, Time at);
    /// Time passed: absences, sequences, what is cleared. Cheap when nothing is due; call each second.
    std::vector<Fired> tick(Time now);
    /// Starts the clocks of absences that name their service and were never heard.
    void begin(Time now);

    bool empty() const { return specs_.empty(); }
    bool uses(TriggerKind kind) const;
    const std::vector<TriggerSpec>& specs() const { return specs_; }

    /// What the store cannot tell: what is raised, pending, last heard. At most 1000 groups per trigger.
    json::object snapshot() const;
    void restore_snapshot(const json::object& snapshot);

    struct Account {
        std::uint64_t matched = 0;  ///< occurrences that its `when` fitted
        std::uint64_t fired = 0, cleared = 0;
        std::uint64_t forgotten = 0;  ///< groups forgotten because of the limit
        std::size_t groups = 0;       ///< kept now
    };
    Account account(std::size_t index) const;

    /// Median and deviation (1.4826 × MAD) of values; {0, 0} of none. For tests.
    static std::pair<double, double> median_mad(std::vector<double> values);

private:
    static constexpr int hours_kept = 24 * 8;
    struct Group {
        std::string name, service, environment;
        SlidingCount window{Duration{0}};
        bool raised = false;
        Time last, due;                    ///< due 0: nothing is pending
        std::vector<std::uint32_t> hours;  ///< rate only: counts of the newest hours_kept hours, ring
        std::int64_t hour = 0, first_hour = 0;
        std::vector<Time> members;  ///< combination only: when each of `of` fired last
    };
    struct State {
        State(std::size_t limit) : groups(limit) {}
        Recent<Group> groups;
        std::uint64_t matched = 0, fired = 0, cleared = 0, forgotten = 0;
        Time next;  ///< no group is due before
    };
    Group& group(std::size_t index, const std::string& name, const Incident& in);
    void heard(std::size_t index, const Observation& what, Time now, bool quiet, Answer& answer);
    void fire(std::size_t index, Group& group, std::string reason, Time now, std::vector<Fired>& fired);
    void clear(std::size_t index, Group& group, std::vector<Fired>& fired);
    void combine(std::size_t member, const Fired& what, Time now, std::vector<Fired>& fired);
    bool above_usual(const TriggerSpec& spec, Group& g, Time now, std::string& ret_reason);
    static void count_hour(Group& g, Time now, std::uint64_t count);

    std::vector<TriggerSpec> specs_;
    std::vector<State> states_;
    Time ticked_;
};

}  // namespace heal
