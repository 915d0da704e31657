#include "core/supervisor_machine.hpp"

#include <algorithm>

namespace heal {

using State = ChildMachine::State;

const char* to_string(State state) noexcept {
    switch (state) {
        case State::starting: return "starting";
        case State::idle: return "idle";
        case State::busy: return "busy";
        case State::cancelling: return "cancelling";
        case State::terminating: return "terminating";
        case State::killing: return "killing";
        case State::ending: return "ending";
        case State::gone: return "gone";
    }
    return "gone";
}

std::vector<ChildAction> ChildMachine::spawned(Duration now) {
    timer_ = now + times_.start;
    return {};
}

std::vector<ChildAction> ChildMachine::ready(Duration now) {
    if (state_ != State::starting) return {};
    state_ = State::idle;
    timer_ = times_.warm.count() > 0 ? now + times_.warm : Duration{-1};
    return retire_ ? retire(now) : std::vector<ChildAction>{};
}

std::vector<ChildAction> ChildMachine::call(Duration now, Duration deadline) {
    static_cast<void>(now);
    if (state_ != State::idle) return {};
    state_ = State::busy;
    deadline_passed_ = cancel_asked_ = false;
    timer_ = deadline;
    return {};
}

std::vector<ChildAction> ChildMachine::answered(Duration now) {
    if (!is_running() || state_ == State::killing) return {};
    // TERM may already be under way to it: such a child is not called again.
    const bool hurt = state_ == State::terminating;
    state_ = State::idle;
    timer_ = times_.warm.count() > 0 ? now + times_.warm : Duration{-1};
    return retire_ || hurt ? retire(now) : std::vector<ChildAction>{};
}

std::vector<ChildAction> ChildMachine::cancel(Duration now) {
    if (state_ != State::busy) return {};
    state_ = State::cancelling;
    cancel_asked_ = true;
    timer_ = now + times_.cancel_grace;
    return {ChildAction::send_cancel};
}

std::vector<ChildAction> ChildMachine::kill_now(Duration now) {
    state_ = State::killing;
    // SIGKILL can't be refused, but a process in an uninterruptible wait ends late: ask again each second.
    timer_ = now + Duration{1'000'000};
    return {ChildAction::kill};
}

std::vector<ChildAction> ChildMachine::broken(Duration now) {
    if (state_ == State::gone || state_ == State::killing) return {};
    return kill_now(now);
}

std::vector<ChildAction> ChildMachine::retire(Duration now) {
    retire_ = true;
    if (state_ != State::idle) return {};
    state_ = State::ending;
    timer_ = now + times_.end_grace;
    return {ChildAction::close};
}

std::vector<ChildAction> ChildMachine::tick(Duration now) {
    if (timer_.count() < 0 || now < timer_) return {};
    switch (state_) {
        case State::starting:
        case State::terminating:
        case State::ending:
        case State::killing: return kill_now(now);
        case State::idle: return retire(now);
        case State::busy:
            state_ = State::cancelling;
            deadline_passed_ = true;
            timer_ = now + times_.deadline_cancel_grace;
            return {ChildAction::send_cancel};
        case State::cancelling:
            state_ = State::terminating;
            timer_ = now + (deadline_passed_ ? times_.deadline_term_grace : times_.term_grace);
            return {ChildAction::terminate};
        case State::gone: timer_ = Duration{-1}; return {};
    }
    return {};
}

void ChildMachine::exited() {
    state_ = State::gone;
    timer_ = Duration{-1};
}

void ArtifactMachine::crashed(Duration now) {
    crashes_.push_back(now);
    while (!crashes_.empty() && now - crashes_.front() > window) crashes_.pop_front();
    const auto n = static_cast<unsigned>(crashes_.size());
    if (n >= crashes_to_quarantine) quarantined_ = true;
    while (crashes_.size() > crashes_to_quarantine) crashes_.pop_front();
    const Duration delay = base_delay + Duration{std::int64_t{1'000'000} << std::min(n, 10U)};
    not_before_ = now + std::min(delay, max_delay);
}

bool ArtifactMachine::release() {
    if (!quarantined_) return false;
    quarantined_ = false;
    crashes_.clear();
    not_before_ = Duration{0};
    return true;
}

ArtifactMachine::Verdict ArtifactMachine::may_start(Duration now) const {
    if (quarantined_) return Verdict::quarantined;
    return now < not_before_ ? Verdict::wait : Verdict::start;
}

Duration ArtifactMachine::wait_left(Duration now) const { return std::max(Duration{0}, not_before_ - now); }

unsigned ArtifactMachine::crashes(Duration now) const {
    return static_cast<unsigned>(std::count_if(crashes_.begin(), crashes_.end(), [&](Duration at) { return now - at <= window; }));
}

}  // namespace heal
