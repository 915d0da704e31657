#include "core/history.hpp"

#include <algorithm>

namespace heal {

void History::started(AttemptFact fact) {
    fact.newest = facts_.empty() ? fact.started : std::max(facts_.back().newest, fact.started);
    facts_.push_back(std::move(fact));
    by_target_[facts_.back().target].push_back(std::prev(facts_.end()));
    by_attempt_[facts_.back().attempt] = std::prev(facts_.end());
}

void History::ended(const std::string& attempt, Time at) {
    if (const auto it = by_attempt_.find(attempt); it != by_attempt_.end()) it->second->ended = at;
}

void History::decided(const std::string& attempt) {
    if (const auto it = by_attempt_.find(attempt); it != by_attempt_.end()) it->second->undecided = false;
}

void History::judged(const std::string& attempt, FactResult result) {
    if (const auto it = by_attempt_.find(attempt); it != by_attempt_.end()) it->second->result = result;
}

void History::forget_before(Time t) {
    for (auto it = facts_.begin(); it != facts_.end() && it->started < t;) {
        if (!it->ended || *it->ended >= t || it->undecided) {
            ++it;
            continue;
        }
        const auto known = by_target_.find(it->target);
        std::erase(known->second, it);
        if (known->second.empty()) by_target_.erase(known);
        if (const auto own = by_attempt_.find(it->attempt); own != by_attempt_.end() && own->second == it)
            by_attempt_.erase(own);
        it = facts_.erase(it);
    }
}

const History::OnTarget& History::on(const std::string& target) const {
    static const OnTarget none;
    const auto known = by_target_.find(target);
    return known == by_target_.end() ? none : known->second;
}

std::vector<const AttemptFact*> History::of(const std::string& strategy, const std::string& target) const {
    std::vector<const AttemptFact*> out;
    for (const auto& it : on(target)) {
        if (it->strategy == strategy) out.push_back(&*it);
    }
    return out;
}

void Episodes::opened(const std::string& target, Time at) {
    auto& t = targets_[target];
    if (t.open++ > 0) return;
    t.transitions.push_back(at);
    if (t.transitions.size() > max_transitions) t.transitions.pop_front();
}

void Episodes::closed(const std::string& target, Time at) {
    auto& t = targets_[target];
    if (t.open == 0 || --t.open > 0) return;
    t.transitions.push_back(at);
    if (t.transitions.size() > max_transitions) t.transitions.pop_front();
}

void Episodes::forget_before(Time before) {
    for (auto it = targets_.begin(); it != targets_.end();) {
        auto& transitions = it->second.transitions;
        while (!transitions.empty() && transitions.front() < before) transitions.pop_front();
        it = transitions.empty() && it->second.open == 0 ? targets_.erase(it) : std::next(it);
    }
}

std::vector<Time> Episodes::transitions(const std::string& target) const {
    const auto it = targets_.find(target);
    if (it == targets_.end()) return {};
    return {it->second.transitions.begin(), it->second.transitions.end()};
}

unsigned Episodes::percent(const Target& target, Duration window, Time now) {
    double sum = 0;
    const auto span = static_cast<double>(window.count());
    for (const Time at : target.transitions) {
        if (at > now || at + window <= now) continue;
        const double age = static_cast<double>((now - at).count()) / span;
        sum += 1.2 - 0.4 * age;
    }
    return static_cast<unsigned>(std::min(100.0, sum * 5));
}

unsigned Episodes::percent(const std::string& target, Duration window, Time now) const {
    const auto it = targets_.find(target);
    return it == targets_.end() ? 0 : percent(it->second, window, now);
}

bool Episodes::flapping(const std::string& target, Duration window, unsigned high, unsigned low, Time now)
    const {
    const auto it = targets_.find(target);
    if (it == targets_.end()) return false;
    // It can begin only at a transition and end only between them, so walking those gives the state.
    bool on = false;
    for (const Time at : it->second.transitions) {
        if (at > now) break;
        if (on && percent(it->second, window, Time{at.us - 1}) < low) on = false;
        if (!on && percent(it->second, window, at) >= high) on = true;
    }
    return on && percent(it->second, window, now) >= low;
}

void StormWatch::expire(Time now, const StormLimits& limits) {
    while (!recent_.empty() && recent_.front().first + limits.window <= now) {
        const auto known = counts_.find(recent_.front().second);
        if (--known->second == 0) counts_.erase(known);
        // Ends at half of what begins it: a storm that only breathes is still one.
        if (on_ && counts_.size() * 2 < limits.targets) {
            on_ = false;
            ended_ = recent_.front().first + limits.window;
        }
        recent_.pop_front();
    }
}

void StormWatch::opened(const std::string& target, Time at, const StormLimits& limits) {
    expire(at, limits);
    recent_.emplace_back(at, target);
    ++counts_[target];
    if (limits.targets > 0 && counts_.size() >= limits.targets) on_ = true;
}

StormWatch::State StormWatch::state(Time now, const StormLimits& limits) {
    expire(now, limits);
    State s;
    s.targets = counts_.size();
    if (limits.targets == 0) return s;
    if (on_) {
        s.on = true;
        s.until = recent_.empty() ? now : recent_.back().first + limits.window + limits.cooldown;
        return s;
    }
    if (!ended_) return s;
    const Time quiet = *ended_ + limits.cooldown;
    if (now < quiet) {
        s.cooling = true;
        s.until = quiet;
        return s;
    }
    constexpr int steps = 5;
    const auto step = limits.ramp_step.count() > 0 ? (now - quiet) / limits.ramp_step : steps;
    if (step >= steps) {
        ended_.reset();
        return s;
    }
    s.at_once = 1U << static_cast<unsigned>(step);
    s.until = quiet + limits.ramp_step * (step + 1);
    return s;
}

}  // namespace heal
