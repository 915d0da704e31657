#include "base/clock.hpp"

#include <fmt/format.h>
#include <time.h>

namespace heal {
namespace {

// Days since 1970-01-01 of a proleptic Gregorian date, and back; H. Hinnant, "chrono-Compatible Low-Level
// Date Algorithms". std::chrono's calendar does the work.
Duration read(clockid_t id) {
    timespec ts{};
    ::clock_gettime(id, &ts);
    return std::chrono::seconds{ts.tv_sec} + std::chrono::microseconds{ts.tv_nsec / 1000};
}

bool digits(std::string_view text, std::size_t at, std::size_t n, int& ret) {
    if (at + n > text.size()) return false;
    int value = 0;
    for (std::size_t i = at; i < at + n; ++i) {
        if (text[i] < '0' || text[i] > '9') return false;
        value = value * 10 + (text[i] - '0');
    }
    ret = value;
    return true;
}

}  // namespace

Time SystemClock::wall() const { return Time{read(CLOCK_REALTIME).count()}; }
Duration SystemClock::steady() const { return read(CLOCK_BOOTTIME); }

std::string to_rfc3339(Time t) {
    namespace ch = std::chrono;
    const ch::sys_time<ch::microseconds> at{ch::microseconds{t.us}};
    const auto day = ch::floor<ch::days>(at);
    const ch::year_month_day date{day};
    const ch::hh_mm_ss clock{at - day};
    return fmt::format(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        static_cast<int>(date.year()),
        static_cast<unsigned>(date.month()),
        static_cast<unsigned>(date.day()),
        clock.hours().count(),
        clock.minutes().count(),
        clock.seconds().count(),
        clock.subseconds().count()
    );
}

bool parse_rfc3339(std::string_view s, Time& ret) {
    namespace ch = std::chrono;
    int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
    if (!digits(s, 0, 4, year) || s.size() < 19 || s[4] != '-' || !digits(s, 5, 2, month) || s[7] != '-' ||
        !digits(s, 8, 2, day) || (s[10] != 'T' && s[10] != ' ' && s[10] != 't') || !digits(s, 11, 2, hour) ||
        s[13] != ':' || !digits(s, 14, 2, minute) || s[16] != ':' || !digits(s, 17, 2, second)) {
        return false;
    }
    const ch::year_month_day date{
        ch::year{year}, ch::month{static_cast<unsigned>(month)}, ch::day{static_cast<unsigned>(day)}};
    if (!date.ok() || hour > 23 || minute > 59 || second > 60) return false;
    std::size_t at = 19;
    std::int64_t fraction_us = 0;
    if (at < s.size() && (s[at] == '.' || s[at] == ',')) {
        std::int64_t scale = 100'000;
        for (++at; at < s.size() && s[at] >= '0' && s[at] <= '9'; ++at, scale /= 10)
            fraction_us += (s[at] - '0') * scale;
    }
    int offset_minutes = 0;
    if (at < s.size() && (s[at] == '+' || s[at] == '-')) {
        int oh = 0, om = 0;
        const bool negative = s[at] == '-';
        if (!digits(s, at + 1, 2, oh)) return false;
        const std::size_t minutes_at = at + 3 + (at + 3 < s.size() && s[at + 3] == ':' ? 1U : 0U);
        if (minutes_at < s.size() && !digits(s, minutes_at, 2, om)) return false;
        offset_minutes = (negative ? -1 : 1) * (oh * 60 + om);
    } else if (at < s.size() && s[at] != 'Z' && s[at] != 'z') {
        return false;
    }
    const auto days = ch::sys_days{date}.time_since_epoch();
    const Duration total =
        Duration{days} + ch::hours{hour} + ch::minutes{minute - offset_minutes} + ch::seconds{second};
    ret = Time{total.count() + fraction_us};
    return true;
}

}  // namespace heal
