// Supervision of child processes as two pure machines: how one child is brought to an end when it does not answer, and when an
// artifact whose children die may be started again. No I/O, no clock: time comes with each event, what to do comes out.
#pragma once

#include "base/clock.hpp"

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace heal {

struct ChildTimes {
    Duration start{5'000'000};                            ///< spawned to ready
    Duration cancel_grace{2'000'000}, term_grace{2'000'000};          ///< after a request to stop (go-plugin: 2 s)
    Duration deadline_cancel_grace{300'000}, deadline_term_grace{300'000};  ///< after the deadline
    Duration warm{60'000'000};                            ///< idle until retired; 0: for ever
    Duration end_grace{500'000};                          ///< after its connection was closed
};

enum class ChildAction : std::uint8_t {
    send_cancel,  ///< tell it to stop the running call
    terminate,    ///< SIGTERM
    kill,         ///< SIGKILL to its group
    close         ///< close its connection: it ends by itself
};

/// One child: starting → idle ⇄ busy → (cancelling → terminating → killing) → gone. Step it with each event; perform what comes back
/// in order; then wake it by tick() at timer(), if any.
class ChildMachine {
public:
    enum class State : std::uint8_t { starting, idle, busy, cancelling, terminating, killing, ending, gone };

    explicit ChildMachine(ChildTimes times) : times_(times) {}

    std::vector<ChildAction> spawned(Duration now);
    std::vector<ChildAction> ready(Duration now);
    /// Only when idle. `deadline` is when the call must have been answered.
    std::vector<ChildAction> call(Duration now, Duration deadline);
    /// The answer of the call. Cancelling, terminating or not: it is idle again.
    std::vector<ChildAction> answered(Duration now);
    /// Someone wants the running call to stop.
    std::vector<ChildAction> cancel(Duration now);
    /// It broke the protocol, or its connection ended while it lives: nothing it says counts any more.
    std::vector<ChildAction> broken(Duration now);
    /// It is not needed any more. While a call runs this is remembered.
    std::vector<ChildAction> retire(Duration now);
    std::vector<ChildAction> tick(Duration now);
    void exited();

    State state() const { return state_; }
    Duration timer() const { return timer_; }  ///< negative: none
    bool deadline_passed() const { return deadline_passed_; }  ///< of the last call
    bool cancel_asked() const { return cancel_asked_; }        ///< of the last call, by cancel()
    bool retiring() const { return retire_; }
    bool is_running() const { return state_ == State::busy || state_ == State::cancelling || state_ == State::terminating || state_ == State::killing; }

private:
    std::vector<ChildAction> kill_now(Duration now);

    ChildTimes times_;
    State state_ = State::starting;
    Duration timer_{-1};
    bool deadline_passed_ = false, cancel_asked_ = false, retire_ = false;
};
const char* to_string(ChildMachine::State state) noexcept;

/// One build of an artifact: after the n-th crash in 10 minutes it is left alone for 5 s + 2^n s (at most 600 s); the fourth puts it in
/// quarantine until it is released or replaced (borders.md).
class ArtifactMachine {
public:
    static constexpr Duration window{600'000'000}, base_delay{5'000'000}, max_delay{600'000'000};
    static constexpr unsigned crashes_to_quarantine = 4;

    enum class Verdict : std::uint8_t { start, wait, quarantined };

    void crashed(Duration now);
    /// False when it is not in quarantine.
    bool release();
    Verdict may_start(Duration now) const;
    Duration wait_left(Duration now) const;  ///< 0 when it may start
    bool in_quarantine() const { return quarantined_; }
    unsigned crashes(Duration now) const;

private:
    std::deque<Duration> crashes_;  // at most crashes_to_quarantine
    Duration not_before_{0};
    bool quarantined_ = false;
};

}  // namespace heal
