// Time. Two clocks that must not be mixed: the wall clock (what people and the store see; may jump) and the
// steady one (durations, deadlines, cooldowns within a process; counts through suspend). Seam of D11: code
// takes a Clock& and never calls the system's clock itself.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace heal {

using Duration = std::chrono::microseconds;

/// Microseconds since 1970-01-01T00:00:00Z. The store's only form of time (D7).
struct Time {
    std::int64_t us = 0;
    auto operator<=>(const Time&) const = default;
};
constexpr Time operator+(Time t, Duration d) { return Time{t.us + d.count()}; }
constexpr Time operator-(Time t, Duration d) { return Time{t.us - d.count()}; }
constexpr Duration operator-(Time a, Time b) { return Duration{a.us - b.us}; }

/// RFC 3339 with microseconds, "2026-11-21T10:00:00.000000Z".
std::string to_rfc3339(Time t);
/// Reads RFC 3339 (any offset, 0-9 fraction digits, 'T' or blank). False leaves `ret` untouched.
bool parse_rfc3339(std::string_view text, Time& ret);

/// Source of both times. @thread any
class Clock {
public:
    virtual ~Clock() = default;
    virtual Time wall() const = 0;
    /// Monotonic microseconds since an arbitrary start (CLOCK_BOOTTIME: goes on while the machine sleeps).
    virtual Duration steady() const = 0;
};

class SystemClock final : public Clock {
public:
    Time wall() const override;
    Duration steady() const override;
};

/// For tests and simulation: stands still until told.
class ManualClock final : public Clock {
public:
    explicit ManualClock(Time start = Time{1'790'000'000'000'000}) : wall_(start) {}
    Time wall() const override { return wall_; }
    Duration steady() const override { return steady_; }
    void advance(Duration d) { wall_ = wall_ + d, steady_ += d; }
    /// The wall clock jumps, the steady one does not.
    void jump_wall(Duration d) { wall_ = wall_ + d; }

private:
    Time wall_;
    Duration steady_{0};
};

}  // namespace heal
