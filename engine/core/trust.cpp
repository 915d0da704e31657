#include "core/trust.hpp"

#include "core/rules.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace heal {
namespace {

constexpr double z = 1.959964;        // 95 %, two-sided
constexpr double enough_to_fall = 4;  // fewer outcomes say nothing either way

std::pair<double, double> wilson(double good, double bad) {
    const double n = good + bad;
    if (n <= 0) return {0, 1};
    const double p = good / n, zz = z * z;
    const double centre = p + zz / (2 * n);
    const double half = z * std::sqrt(std::max(0.0, p * (1 - p) / n + zz / (4 * n * n)));
    return {
        std::clamp((centre - half) / (1 + zz / n), 0.0, 1.0),
        std::clamp((centre + half) / (1 + zz / n), 0.0, 1.0)};
}

double factor(Time from, Time to, Duration half_life) {
    if (to.us <= from.us || half_life.count() <= 0) return 1;
    return std::exp2(-static_cast<double>(to.us - from.us) / static_cast<double>(half_life.count()));
}

/// Twenty outcomes of this morning are twenty, though each decayed a little since.
bool enough(double outcomes, unsigned samples) { return outcomes + 0.5 >= samples; }

std::string_view kind_of(std::string_view error_class) {
    return error_class.substr(error_class.rfind('/') + 1);
}

}  // namespace

std::string error_class(const LogRecord& record) {
    return record.service_name.substr(0, 200) + "/" + bug_type_of(record);
}

double wilson_lower(double good, double bad) noexcept { return wilson(good, bad).first; }
double wilson_upper(double good, double bad) noexcept { return wilson(good, bad).second; }

const char* to_string(TrustEvidence evidence) noexcept {
    static constexpr const char* names[] = {"held", "failed", "harmed", "listed", "list_failed"};
    return names[static_cast<std::size_t>(evidence)];
}

Autonomy TrustBook::rung(const std::string& strategy, const std::string& error_class, Autonomy start) const {
    const auto* known = find(strategy, error_class);
    return known ? known->rung : start;
}

const TrustBook::Entry* TrustBook::find(const std::string& strategy, const std::string& error_class) const {
    const auto it = entries_.find({strategy, error_class});
    return it == entries_.end() ? nullptr : &it->second;
}

void TrustBook::put(
    const std::string& strategy,
    const std::string& error_class,
    Autonomy rung,
    Time since,
    bool by_hand,
    bool fell,
    std::string reason
) {
    Entry e;
    e.rung = rung;
    e.since = e.at = since;
    e.by_hand = by_hand;
    e.fell = fell;
    e.reason = std::move(reason);
    entries_[{strategy, error_class}] = std::move(e);
}

void TrustBook::clear(const std::string& strategy, const std::string& error_class) {
    entries_.erase({strategy, error_class});
}

TrustBook::Entry& TrustBook::entry(
    const std::string& strategy, const std::string& error_class, Autonomy start, Time at
) {
    const auto known = entries_.find({strategy, error_class});
    if (known != entries_.end()) return known->second;
    if (entries_.size() >= max_entries) {
        const auto oldest =
            std::min_element(entries_.begin(), entries_.end(), [](const auto& a, const auto& b) {
                // What a person set, or what fell, is the last to be forgotten.
                return std::make_tuple(a.second.by_hand || a.second.fell, a.second.at) <
                       std::make_tuple(b.second.by_hand || b.second.fell, b.second.at);
            });
        entries_.erase(oldest);
    }
    Entry fresh;
    fresh.rung = start;
    fresh.since = Time{0};
    fresh.at = at;
    return entries_.emplace(std::make_pair(strategy, error_class), std::move(fresh)).first->second;
}

void TrustBook::decay(Entry& e, Time at, Duration half_life) {
    const double f = factor(e.at, at, half_life);
    e.good *= f, e.bad *= f, e.listed *= f, e.list_failed *= f, e.harms *= f;
    e.at = std::max(e.at, at);
}

void TrustBook::add(Entry& e, TrustEvidence evidence, Time at, const TrustPolicy& policy) {
    decay(e, at, policy.half_life);
    switch (evidence) {
        case TrustEvidence::held:
            e.good += 1;
            break;
        case TrustEvidence::harmed:
            e.harms += 1;
            [[fallthrough]];
        case TrustEvidence::failed:
            e.bad += 1;
            break;
        case TrustEvidence::listed:
            e.listed += 1;
            break;
        case TrustEvidence::list_failed:
            e.list_failed += 1;
            break;
    }
}

TrustBook::Level TrustBook::evidence_for(
    const std::string& strategy,
    const std::string& error_class,
    const Entry& own,
    Time at,
    const TrustPolicy& policy
) const {
    const bool shadow = own.rung == Autonomy::shadow;
    const auto of = [&](const Entry& e) -> std::pair<double, double> {
        const double f = factor(e.at, at, policy.half_life);
        return shadow ? std::make_pair(e.listed * f, e.list_failed * f)
                      : std::make_pair(e.good * f, e.bad * f);
    };
    const auto mine = of(own);
    Level level{mine.first, mine.second, "here"};
    if (enough(level.good + level.bad, policy.samples) || own.fell || level.bad >= 0.5) return level;
    Level kind{0, 0, "on this kind of error anywhere"}, all{0, 0, "in all"};
    for (auto it = entries_.lower_bound({strategy, ""}); it != entries_.end() && it->first.first == strategy;
         ++it) {
        const auto theirs = of(it->second);
        all.good += theirs.first, all.bad += theirs.second;
        if (kind_of(it->first.second) == kind_of(error_class))
            kind.good += theirs.first, kind.bad += theirs.second;
    }
    if (enough(kind.good + kind.bad, policy.samples)) return kind;
    return enough(all.good + all.bad, policy.samples) ? all : level;
}

std::optional<TrustStep> TrustBook::note(
    const std::string& strategy,
    const std::string& error_class,
    TrustEvidence evidence,
    Time at,
    const TrustPolicy& policy,
    Autonomy start,
    Autonomy ceiling
) {
    auto& e = entry(strategy, error_class, start, at);
    add(e, evidence, at, policy);
    const Autonomy from = e.rung;
    const auto step = [&](Autonomy to, bool fell, std::string reason) {
        put(strategy, error_class, to, at, fell && e.by_hand, fell || e.fell, reason);
        return TrustStep{strategy, error_class, from, to, std::move(reason)};
    };
    const auto below = [](Autonomy a) { return static_cast<Autonomy>(static_cast<int>(a) - 1); };
    // A fall is counted from where it acted: a rung above the ceiling was never in use.
    const Autonomy used = std::min(from, ceiling);
    if (evidence == TrustEvidence::harmed && policy.harms > 0 && e.harms + 0.5 >= policy.harms &&
        used > Autonomy::shadow)
        return step(
            below(used), true, fmt::format("it did harm ({:.0f} times since its last step)", e.harms)
        );
    const bool bad_news = evidence == TrustEvidence::failed || evidence == TrustEvidence::harmed;
    if (bad_news && policy.demote_below > 0 && e.good + e.bad + 0.5 >= enough_to_fall &&
        used > Autonomy::shadow && wilson_upper(e.good, e.bad) < policy.demote_below)
        return step(
            below(used),
            true,
            fmt::format(
                "{:.1f} good and {:.1f} bad outcomes here: at most {:.2f} of them help, {:.2f} must",
                e.good,
                e.bad,
                wilson_upper(e.good, e.bad),
                policy.demote_below
            )
        );
    const bool good_news = evidence == TrustEvidence::held || evidence == TrustEvidence::listed;
    if (!good_news || e.by_hand || from >= ceiling || from == Autonomy::off || from == Autonomy::automatic)
        return std::nullopt;
    const Level level = evidence_for(strategy, error_class, e, at, policy);
    if (!enough(level.good + level.bad, policy.samples) || wilson_lower(level.good, level.bad) < policy.bound)
        return std::nullopt;
    return step(
        static_cast<Autonomy>(static_cast<int>(from) + 1),
        false,
        fmt::format(
            "{:.1f} of {:.1f} outcomes {} were good: at least {:.2f} of them are, {:.2f} must",
            level.good,
            level.good + level.bad,
            level.name,
            wilson_lower(level.good, level.bad),
            policy.bound
        )
    );
}

void TrustBook::restore(
    const std::string& strategy,
    const std::string& error_class,
    TrustEvidence evidence,
    Time at,
    const TrustPolicy& policy,
    Autonomy start
) {
    auto& e = entry(strategy, error_class, start, at);
    if (at >= e.since) add(e, evidence, at, policy);
}

}  // namespace heal
