#include "core/healing_machine.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace heal {

using namespace std::chrono_literals;

namespace {
// Verification polls quickly at first, since most remedies work within a second, then slower.
constexpr Duration first_pause = 50ms, longest_pause = 1s;
// How long an incident whose candidates are all held back (cooldown, lock, pause) stays open before it is
// left to people.
constexpr Duration longest_wait = 1h;
constexpr Duration longest_hold = 24h;
constexpr Duration lock_poll = 250ms, longest_poll = 1min;
// So long without a new line, and healthy: what was waited for has passed by itself.
constexpr Duration quiet_for = 5s;
}  // namespace

HealingMachine::HealingMachine(std::vector<Candidate> candidates, const std::vector<std::string>& excluded)
    : candidates_(std::move(candidates)) {
    std::stable_partition(candidates_.begin(), candidates_.end(), [&](const Candidate& c) {
        return std::find(excluded.begin(), excluded.end(), c.info.name) == excluded.end();
    });
    fates_.assign(candidates_.size(), Fate::untried);
    approvals_.assign(candidates_.size(), false);
    reasons_.resize(candidates_.size());
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
        if (!candidates_[i].note.empty()) {
            fates_[i] = Fate::denied;
            reasons_[i] = candidates_[i].note;
        }
    }
}

std::vector<HealingOrder> HealingMachine::step(const HealingInput& in, Time now) {
    if (finished_) return {};
    return std::visit([&](const auto& event) { return on(event, now); }, in);
}

HealingMachine::Orders HealingMachine::finish(EventState state, std::string reason) {
    finished_ = true;
    state_ = state;
    return {order::Finish{state, std::move(reason)}};
}

/// Takes the best candidate not yet dealt with; then those that wait for a guard; then those that wait for a
/// person.
HealingMachine::Orders HealingMachine::next(Time now) {
    const auto find = [&](Fate fate) {
        return static_cast<std::size_t>(std::find(fates_.begin(), fates_.end(), fate) - fates_.begin());
    };
    if (const auto i = find(Fate::untried); i < fates_.size()) {
        current_ = i;
        phase_ = Phase::considering;
        return {order::Consider{i, approvals_[i]}};
    }
    if (find(Fate::delayed) < fates_.size()) {
        if (!waiting_since_) waiting_since_ = now;
        if (now - *waiting_since_ >= longest_wait) {
            return finish(EventState::suppressed, "held back for too long: " + last_reason_);
        }
        phase_ = Phase::waiting;
        const Duration pause =
            std::clamp<Duration>(retry_at_ ? *retry_at_ - now : lock_poll, 1ms, longest_wait);
        retry_at_.reset();
        return {order::Move{state_, last_reason_}, order::Wait{pause}};
    }
    if (const auto i = find(Fate::needs_approval); i < fates_.size()) {
        phase_ = Phase::asking;
        if (!waiting_since_) waiting_since_ = now;
        state_ = EventState::awaiting_approval;
        order::Move asks{
            state_, fmt::format("'{}' waits for approval: {}", candidates_[i].info.name, reasons_[i])};
        if (!ask_until_) return {std::move(asks)};
        const order::Wait again{std::clamp<Duration>(*ask_until_ - now, 1ms, longest_hold)};
        ask_until_.reset();
        return {std::move(asks), again};
    }
    if (candidates_.empty()) return finish(EventState::escalated, "no strategy fits this error");
    const bool any_tried = find(Fate::tried) < fates_.size();
    std::string reason =
        any_tried ? "no candidate is left; the last one: " + last_reason_ : "every candidate was ruled out";
    if (!any_tried) {
        for (std::size_t i = 0; i < candidates_.size() && i < 5; ++i) {
            reason += fmt::format("{} '{}': {}", i == 0 ? ":" : ";", candidates_[i].info.name, reasons_[i]);
        }
    }
    return finish(any_tried ? EventState::escalated : EventState::suppressed, std::move(reason));
}

HealingMachine::Orders HealingMachine::check(std::size_t index) {
    phase_ = phase_ == Phase::final_check ? Phase::final_check : Phase::checking;
    return {order::Check{index}};
}

/// The current attempt did not heal: take back what can be, then go on.
HealingMachine::Orders HealingMachine::failed(std::string reason, Time) {
    last_reason_ = fmt::format("'{}': {}", candidates_[current_].info.name, reason);
    healthy_since_.reset();
    phase_ = Phase::undoing;
    state_ = EventState::healing;
    return {order::Verified{current_, "failed"}, order::Move{state_, last_reason_}, order::Undo{current_}};
}

HealingMachine::Orders HealingMachine::on(const input::Begin&, Time now) {
    return phase_ == Phase::idle ? next(now) : Orders{};
}

HealingMachine::Orders HealingMachine::on(const input::LeaveAlone& in, Time now) {
    if (phase_ != Phase::idle) return {};
    phase_ = Phase::waiting;
    waiting_since_ = now;
    last_reason_ = "left alone for a while, to learn what recovers by itself";
    return {order::Move{state_, last_reason_}, order::Wait{in.duration}};
}

HealingMachine::Orders HealingMachine::on(const input::Guarded& in, Time now) {
    if (phase_ != Phase::considering) return {};
    if (in.allowed) {
        phase_ = Phase::intending;
        waiting_since_.reset();
        poll_ = Duration{0};
        state_ = EventState::healing;
        return {order::WriteIntent{current_}};
    }
    if (in.approval_void) approvals_[current_] = false;
    reasons_[current_] = in.reason;
    last_reason_ = fmt::format("'{}' is held back: {}", candidates_[current_].info.name, in.reason);
    if (in.needs_approval) {
        fates_[current_] = Fate::needs_approval;
        if (in.retry_at) ask_until_ = std::min(ask_until_.value_or(*in.retry_at), *in.retry_at);
    } else if (in.temporary || in.retry_at) {
        fates_[current_] = Fate::delayed;
        if (in.retry_at)
            retry_at_ = std::min(retry_at_.value_or(*in.retry_at), *in.retry_at);
        else {
            // input::Freed tells of what passes on this node; for the rest ask often at first, then less.
            poll_ = poll_.count() == 0 ? lock_poll : std::min<Duration>(poll_ * 2, longest_poll);
            retry_at_ = std::min(retry_at_.value_or(now + poll_), now + poll_);
        }
    } else
        fates_[current_] = Fate::denied;
    return next(now);
}

HealingMachine::Orders HealingMachine::on(const input::IntentStored&, Time now) {
    if (phase_ != Phase::intending) return {};
    fates_[current_] = Fate::tried;
    phase_ = Phase::executing;
    acted_at_ = now;
    return {order::Execute{current_}};
}

HealingMachine::Orders HealingMachine::on(const input::IntentFailed& in, Time now) {
    if (phase_ != Phase::intending) return {};
    // Nothing was done: the same candidate may be asked again once the store is back.
    fates_[current_] = Fate::delayed;
    last_reason_ = "the intent could not be stored: " + in.text;
    retry_at_ = now + 1s;
    return next(now);
}

HealingMachine::Orders HealingMachine::on(const input::Executed& in, Time now) {
    if (phase_ != Phase::executing) return {};
    ran_unknown_ = in.outcome == Outcome::unknown || in.outcome == Outcome::cancelled;
    any_unknown_ = any_unknown_ || ran_unknown_;
    switch (in.outcome) {
        case Outcome::declined:
            last_reason_ = fmt::format("'{}' declined: {}", candidates_[current_].info.name, in.text);
            phase_ = Phase::undoing;
            return {order::Undo{current_}};
        case Outcome::failed:
            return failed(in.text.empty() ? "it failed" : in.text, now);
        case Outcome::succeeded:
        case Outcome::unknown:
        case Outcome::cancelled:
            break;
    }
    state_ = EventState::verifying;
    check_until_ = now + candidates_[current_].verify.timeout;
    check_pause_ = first_pause;
    Orders orders{
        order::Move{state_, ran_unknown_ ? "whether it took effect is unknown; verification decides" : ""}};
    for (auto& o : check(current_)) orders.push_back(std::move(o));
    return orders;
}

HealingMachine::Orders HealingMachine::on(const input::Checked& in, Time now) {
    if (phase_ != Phase::checking && phase_ != Phase::final_check) return {};
    const bool bad = in.evidence.negative > 0;
    const bool good = !bad && in.evidence.positive > 0;
    if (phase_ == Phase::final_check) {
        if (bad) return failed("it was healthy at first and is not after the stabilization time", now);
        if (good) {
            Orders orders{order::Verified{current_, "succeeded"}};
            for (auto& o :
                 finish(EventState::healed, fmt::format("healed by '{}'", candidates_[current_].info.name)))
                orders.push_back(std::move(o));
            return orders;
        }
        Orders orders{order::Verified{current_, "unknown"}};
        const auto state = ran_unknown_ ? EventState::escalated : EventState::unverified;
        for (auto& o : finish(
                 state, "the error is quiet, but no probe and no verify shows that the service is healthy"
             ))
            orders.push_back(std::move(o));
        return orders;
    }
    if (bad) {
        if (now + check_pause_ > check_until_) return failed("verification failed", now);
        phase_ = Phase::between_checks;
        const Duration pause = check_pause_;
        check_pause_ = std::min<Duration>(check_pause_ * 2, longest_pause);
        return {order::Wait{pause}};
    }
    // Healthy, or nothing to see: the second horizon.
    if (good) healthy_since_ = now;
    if (candidates_[current_].verify.stabilize.count() <= 0) {
        phase_ = Phase::final_check;
        return on(in, now);
    }
    phase_ = Phase::stabilizing;
    state_ = EventState::stabilizing;
    last_recurrence_.reset();
    return {
        order::Move{state_, good ? "healthy; it must stay so" : "no probe to ask; the error must stay away"},
        order::Wait{candidates_[current_].verify.stabilize}};
}

HealingMachine::Orders HealingMachine::on(const input::Timer&, Time) {
    switch (phase_) {
        case Phase::between_checks:
            phase_ = Phase::checking;
            return check(current_);
        case Phase::stabilizing:
            phase_ = Phase::final_check;
            return check(current_);
        case Phase::asking:
            // Nobody answered, and what had to be asked for is allowed by now.
            for (auto& fate : fates_) {
                if (fate == Fate::needs_approval) fate = Fate::untried;
            }
            state_ = EventState::open;
            [[fallthrough]];
        case Phase::waiting:
            phase_ = Phase::looking;
            return {order::Look{}};
        default:
            return {};
    }
}

HealingMachine::Orders HealingMachine::on(const input::Freed&, Time) {
    // Who is left alone waits for its time, and for nobody.
    const bool held_back = std::find(fates_.begin(), fates_.end(), Fate::delayed) != fates_.end();
    if (phase_ != Phase::waiting || !held_back) return {};
    poll_ = Duration{0};
    phase_ = Phase::looking;
    return {order::Look{}};
}

HealingMachine::Orders HealingMachine::on(const input::Looked& in, Time now) {
    if (phase_ != Phase::looking) return {};
    const bool healthy = in.evidence.positive > 0 && in.evidence.negative == 0;
    const Time since = std::max(waiting_since_.value_or(now), last_recurrence_.value_or(Time{}));
    const bool quiet = now - since >= quiet_for;
    const bool again = last_recurrence_ && waiting_since_ && *last_recurrence_ > *waiting_since_;
    if (healthy && (quiet || (in.others_acted && !again)))
        return finish(
            EventState::closed,
            in.others_acted
                ? "healthy again: what was done for another error of this target helped"
                : "healthy again and quiet, without anything done; it was held back: " + last_reason_
        );
    for (auto& fate : fates_) {
        if (fate == Fate::delayed) fate = Fate::untried;
    }
    return next(now);
}

HealingMachine::Orders HealingMachine::on(const input::Undone& in, Time now) {
    if (phase_ != Phase::undoing) return {};
    if (!in.ok) {
        return finish(
            EventState::escalated,
            fmt::format("taking back '{}' failed: {}", candidates_[current_].info.name, in.text)
        );
    }
    // Also after an unknown outcome: verification has said that it did not heal, what was recorded is taken
    // back, and another strategy is not a repetition of this one (D4). Without any evidence either way the
    // incident ends in on(Checked).
    return next(now);
}

HealingMachine::Orders HealingMachine::on(const input::Recurred& in, Time now) {
    last_recurrence_ = in.at;
    // Lines written before the service was healthy again may arrive late; only newer ones count.
    const Time healthy = healthy_since_.value_or(acted_at_);
    if (phase_ == Phase::stabilizing && in.at > healthy) return failed("the error came back", now);
    return {};
}

std::vector<std::size_t> HealingMachine::asking() const {
    std::vector<std::size_t> out;
    for (std::size_t i = 0; i < fates_.size(); ++i) {
        if (fates_[i] == Fate::needs_approval) out.push_back(i);
    }
    return out;
}

std::optional<std::size_t> HealingMachine::waiting(const std::string& name, bool at_once) const {
    if (phase_ != Phase::asking && !(at_once && phase_ == Phase::waiting)) return std::nullopt;
    for (const Fate fate : {Fate::needs_approval, Fate::delayed}) {
        if (fate == Fate::delayed && !at_once) break;
        for (std::size_t i = 0; i < candidates_.size(); ++i) {
            if (fates_[i] == fate && (name.empty() || candidates_[i].info.name == name)) return i;
        }
    }
    return std::nullopt;
}

void HealingMachine::renew(std::size_t index, const StrategyInfo& info, const json::object& config) {
    if (fates_[index] == Fate::tried) return;
    candidates_[index].info = info;
    candidates_[index].config = config;
}

HealingMachine::Orders HealingMachine::on(const input::Approved& in, Time) {
    const auto found = waiting(in.strategy, in.at_once);
    if (!found) return {};
    fates_[*found] = Fate::untried;
    current_ = *found;
    approvals_[*found] = true;
    phase_ = Phase::considering;
    state_ = EventState::open;
    return {order::Consider{*found, true}};
}

HealingMachine::Orders HealingMachine::on(const input::Rejected& in, Time) {
    if (phase_ != Phase::asking) return {};
    return finish(EventState::escalated, "approval was refused: " + in.reason);
}

std::optional<input::Resume> resume_of(std::size_t index, const Standing& a, std::string text) {
    if (!a.undecided) return std::nullopt;
    const bool undo =
        !a.rolled_back.empty() || a.verified == "failed" || a.state == "failed" || a.state == "declined";
    const Outcome outcome = a.state == "cancelled" ? Outcome::cancelled
                            : a.state == "executed" || a.state == "succeeded" || !a.verified.empty()
                                ? Outcome::succeeded
                                : Outcome::unknown;
    return input::Resume{index, outcome, std::move(text), undo};
}

HealingMachine::Orders HealingMachine::on(const input::Resume& in, Time now) {
    if (phase_ != Phase::idle) return {};
    if (in.index >= candidates_.size()) return next(now);
    current_ = in.index;
    fates_[current_] = Fate::tried;
    acted_at_ = now;
    if (in.undoing) {
        phase_ = Phase::undoing;
        return {order::Undo{current_}};
    }
    phase_ = Phase::executing;
    if (in.executed == Outcome::unknown && candidates_[current_].info.idempotent)
        return {order::Execute{current_}};
    return on(input::Executed{in.executed, in.text}, now);
}

}  // namespace heal
