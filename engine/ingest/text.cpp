#include "ingest/text.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <ctime>

namespace heal {
namespace {

bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word(char c) { return is_alpha(c) || is_digit(c) || c == '_' || c == '$'; }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool equals_ignoring_case(std::string_view a, std::string_view lower_case) {
    return a.size() == lower_case.size() &&
           std::equal(a.begin(), a.end(), lower_case.begin(), [](char x, char y) { return lower(x) == y; });
}

// Walks the words (letters, digits, _ and $) of a text.
template <class Visit>
void each_word(std::string_view text, Visit&& visit) {
    for (std::size_t i = 0; i < text.size();) {
        if (!is_word(text[i])) {
            ++i;
            continue;
        }
        const std::size_t from = i;
        while (i < text.size() && is_word(text[i])) ++i;
        if (!visit(text.substr(from, i - from), from)) return;
    }
}

bool ends_like_a_type(std::string_view name) {
    for (const std::string_view end : {"Exception", "Error", "Fault", "Failure", "Panic"}) {
        if (name.size() >= end.size() && name.ends_with(end)) return true;
    }
    return false;
}

// Two humps at least ("IOError", "TimeoutError"), so that the plain word "Error" is no type unless it stands
// where types stand.
bool is_type_word(std::string_view name) {
    if (!ends_like_a_type(name)) return false;
    const bool bare =
        name == "Error" || name == "Exception" || name == "Fault" || name == "Failure" || name == "Panic";
    return !bare && is_alpha(name[0]);
}

// The dotted (or ::) name that begins at `from`.
std::string_view qualified_name(std::string_view text, std::size_t from) {
    std::size_t i = from;
    while (i < text.size()) {
        if (is_word(text[i])) {
            ++i;
        } else if (text[i] == '.' && i + 1 < text.size() && is_word(text[i + 1])) {
            ++i;
        } else if (text.substr(i, 2) == "::" && i + 2 < text.size() && is_word(text[i + 2])) {
            i += 2;
        } else {
            break;
        }
    }
    return text.substr(from, i - from);
}

// Those that end a broken program; SIGTERM and SIGPIPE are everyday words.
constexpr std::array<std::string_view, 6> signals{
    "SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS"};

// Could error_type_in_text find something? One pass over the letters that its words can't do without; most
// log lines have none of them.
bool may_name_an_error(std::string_view text) {
    const std::size_t n = text.size();
    const auto is = [&](std::size_t from, std::string_view part) {
        return from + part.size() <= n && text.compare(from, part.size(), part) == 0;
    };
    for (std::size_t i = 0; i < n; ++i) {
        switch (text[i]) {
            case 'x':  // Exception
                if (is(i, "xcept")) return true;
                break;
            case 'r':  // Error, fatal error
                if (is(i, "rror")) return true;
                break;
            case 'u':  // Fault, segfault, Segmentation fault
                if (is(i, "ult")) return true;
                break;
            case 'F':
                if (is(i, "Fail")) return true;
                break;
            case 'P':
            case 'p':
                if (is(i + 1, "anic")) return true;
                break;
            case 'S':  // Sanitizer, SIGSEGV
                if (is(i, "San") || is(i, "SIG")) return true;
                break;
            case 'w':  // throwing an instance of
                if (is(i, "wing an inst")) return true;
                break;
            case 'm':  // stack smashing
                if (is(i, "mashing")) return true;
                break;
            case 'b':  // double free
                if (is(i, "ble free")) return true;
                break;
            case 'O':
                if (is(i, "Out of mem")) return true;
                break;
            default:
                break;
        }
    }
    return false;
}

// Days since the epoch of a civil date (Howard Hinnant, chrono-compatible low-level date algorithms).
std::int64_t days_from_civil(int y, int m, int d) {
    y -= m <= 2 ? 1 : 0;
    const int era = (y >= 0 ? y : y - 399) / 400;
    const int yoe = y - era * 400;
    const int doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    const int doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return static_cast<std::int64_t>(era) * 146097 + doe - 719468;
}

// localtime_r takes a lock of the C library; offsets change on whole quarters of an hour.
std::int64_t local_offset_us(Time at) {
    thread_local std::int64_t known_quarter = -1, known_offset = 0;
    const std::int64_t quarter = at.us / 900'000'000;
    if (quarter == known_quarter) return known_offset;
    const std::time_t seconds = at.us / 1'000'000;
    std::tm parts{};
    known_offset = ::localtime_r(&seconds, &parts) != nullptr
                       ? static_cast<std::int64_t>(parts.tm_gmtoff) * 1'000'000
                       : 0;
    known_quarter = quarter;
    return known_offset;
}

// The year in which a day of the epoch lies (the inverse of days_from_civil).
int year_of(std::int64_t days) {
    days += 719468;
    const std::int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    const auto doe = static_cast<int>(days - era * 146097);
    const int yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    const int doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    return static_cast<int>(era) * 400 + yoe + (doy >= 306 ? 1 : 0);
}

// A little cursor; every step that does not fit makes it bad for good.
struct Cursor {
    std::string_view rest;
    bool good = true;

    int number(int min_digits, int max_digits) {
        int value = 0;
        int n = 0;
        while (n < max_digits && !rest.empty() && is_digit(rest[0])) {
            value = value * 10 + (rest[0] - '0');
            rest.remove_prefix(1);
            ++n;
        }
        if (n < min_digits) good = false;
        return value;
    }
    bool skip(char c) {
        if (!rest.empty() && rest[0] == c) {
            rest.remove_prefix(1);
            return true;
        }
        return false;
    }
    void need(char c) {
        if (!skip(c)) good = false;
    }
    void blanks() {
        while (skip(' ')) {
        }
    }
    int month() {
        static constexpr std::string_view names = "JanFebMarAprMayJunJulAugSepOctNovDec";
        for (int i = 0; i < 12; ++i) {
            if (rest.substr(0, 3) == names.substr(static_cast<std::size_t>(i) * 3, 3)) {
                rest.remove_prefix(3);
                return i + 1;
            }
        }
        good = false;
        return 1;
    }
    std::int64_t time_of_day_us() {
        const int h = number(1, 2);
        need(':');
        const int m = number(2, 2);
        need(':');
        const int s = number(2, 2);
        std::int64_t us = (static_cast<std::int64_t>(h) * 3600 + m * 60 + s) * 1'000'000;
        if (h > 23 || m > 59 || s > 60) good = false;
        if (good && (skip('.') || skip(','))) {
            std::int64_t unit = 100'000;
            while (!rest.empty() && is_digit(rest[0])) {
                us += (rest[0] - '0') * unit;
                unit /= 10;
                rest.remove_prefix(1);
            }
        }
        return us;
    }
    // "+0200", "-05:30", "Z"; false when there is none.
    bool zone(std::int64_t& ret_us) {
        if (skip('Z')) {
            ret_us = 0;
            return true;
        }
        if (rest.empty() || (rest[0] != '+' && rest[0] != '-')) return false;
        const int sign = rest[0] == '-' ? -1 : 1;
        rest.remove_prefix(1);
        const int h = number(2, 2);
        skip(':');
        const int m = number(2, 2);
        ret_us = static_cast<std::int64_t>(sign) * (h * 3600 + m * 60) * 1'000'000;
        return good;
    }
};

}  // namespace

std::string_view cut_utf8(std::string_view text, std::size_t max) {
    if (text.size() <= max) return text;
    std::size_t end = max;
    for (int i = 0; i < 3 && end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U; ++i) --end;
    return text.substr(0, end);
}

std::string_view trim(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r'))
        text.remove_suffix(1);
    return text;
}

bool starts_with_ignoring_case(std::string_view text, std::string_view lower_case_prefix) {
    return text.size() >= lower_case_prefix.size() &&
           equals_ignoring_case(text.substr(0, lower_case_prefix.size()), lower_case_prefix);
}

Level level_of(const RecordView& record, const DecodeDefaults& defaults) {
    if (record.level != Level::unknown) return record.level;
    if (defaults.default_level != Level::unknown) return defaults.default_level;
    const Level in_text = level_in_text(record.message);
    if (in_text == Level::fatal) return in_text;
    if (!record.stack_trace.empty() || !record.error_type.empty() || record.http_status >= 500)
        return Level::error;
    return in_text != Level::unknown ? in_text : Level::info;
}

Level level_in_text(std::string_view message) {
    Level found = Level::unknown;
    if (message.starts_with("panic: ") || message.starts_with("fatal error: ") ||
        message.starts_with("terminate called "))
        return Level::fatal;
    each_word(message.substr(0, 2048), [&](std::string_view word, std::size_t from) {
        switch (word.size()) {
            case 5:
                if (equals_ignoring_case(word, "error")) found = Level::error;
                if (equals_ignoring_case(word, "fatal")) found = Level::fatal;
                if (word == "panic" && message.substr(from + 5, 1) == ":") found = Level::fatal;
                break;
            case 6:
                if (equals_ignoring_case(word, "failed")) found = std::max(found, Level::error);
                if (equals_ignoring_case(word, "denied")) found = std::max(found, Level::error);
                break;
            case 7:
                if (equals_ignoring_case(word, "failure")) found = std::max(found, Level::error);
                if (equals_ignoring_case(word, "refused")) found = std::max(found, Level::error);
                if (word == "SIGSEGV" || word == "SIGABRT") found = Level::fatal;
                if (equals_ignoring_case(word, "warning")) found = std::max(found, Level::warn);
                break;
            case 8:
                if (equals_ignoring_case(word, "critical")) found = Level::fatal;
                if (equals_ignoring_case(word, "panicked")) found = Level::fatal;
                break;
            case 9:
                if (equals_ignoring_case(word, "exception")) found = std::max(found, Level::error);
                if (equals_ignoring_case(word, "traceback")) found = std::max(found, Level::error);
                if (equals_ignoring_case(word, "emergency")) found = Level::fatal;
                break;
            case 12:
                if (equals_ignoring_case(word, "segmentation")) found = Level::fatal;
                break;
            default:
                if (word.ends_with("Sanitizer")) {
                    found = Level::fatal;
                } else if (is_type_word(word)) {
                    found = std::max(found, Level::error);
                }
        }
        return found != Level::fatal;
    });
    return found;
}

std::string_view error_type_in_text(std::string_view message) {
    if (!may_name_an_error(message)) return {};
    const auto after = [&](std::string_view what) -> std::size_t {
        const auto at = message.find(what);
        return at == std::string_view::npos ? at : at + what.size();
    };
    if (message.starts_with("panic: ") || message.find("panicked at") != std::string_view::npos)
        return "panic";
    if (message.starts_with("fatal error: ")) return "fatal error";
    if (const auto at = after("Sanitizer: "); at != std::string_view::npos) {
        std::size_t end = at;
        while (end < message.size() && (is_word(message[end]) || message[end] == '-')) ++end;
        return message.substr(at, end - at);
    }
    if (const auto at = after("throwing an instance of '"); at != std::string_view::npos) {
        return message.substr(at, message.find('\'', at) - at);
    }
    for (const auto signal : signals) {
        if (const auto at = message.find(signal); at != std::string_view::npos)
            return message.substr(at, signal.size());
    }
    if (message.find("egmentation fault") != std::string_view::npos ||
        message.find(" segfault at ") != std::string_view::npos)
        return "SIGSEGV";
    if (message.find("stack smashing detected") != std::string_view::npos ||
        message.find("double free or corruption") != std::string_view::npos) {
        return "SIGABRT";
    }
    if (message.find("Out of memory: Kill") != std::string_view::npos) return "OOM";

    std::string_view found;
    const auto text = message.substr(0, 2048);
    std::size_t skip_to = 0;
    each_word(text, [&](std::string_view, std::size_t from) {
        if (from < skip_to) return true;
        const auto name = qualified_name(text, from);
        skip_to = from + name.size();
        const auto dot = name.find_last_of(".:");
        const auto last = dot == std::string_view::npos ? name : name.substr(dot + 1);
        const bool stands_first = from == 0 && message.substr(name.size(), 1) == ":";
        if (is_type_word(last) ||
            (dot != std::string_view::npos && ends_like_a_type(last) && is_alpha(name[0])) ||
            (stands_first && ends_like_a_type(last))) {
            found = name;
            return false;
        }
        return true;
    });
    return found;
}

int http_status_in_text(std::string_view message) {
    const auto three_digits = [&](std::size_t at) -> int {
        if (at + 3 > message.size() || (at + 3 < message.size() && is_word(message[at + 3]))) return 0;
        int value = 0;
        if (std::from_chars(message.data() + at, message.data() + at + 3, value).ptr !=
            message.data() + at + 3)
            return 0;
        return value >= 400 && value <= 599 ? value : 0;
    };
    for (std::size_t i = 0; i + 4 < message.size(); ++i) {
        const char c = message[i];
        if (c == 's' && (message.compare(i, 6, "status") == 0)) {
            std::size_t at = i + 6;
            if (message.substr(at, 5) == "_code" || message.substr(at, 5) == " code") at += 5;
            while (at < message.size() &&
                   (message[at] == '=' || message[at] == ':' || message[at] == ' ' || message[at] == '"'))
                ++at;
            if (const int status = at > i + 6 ? three_digits(at) : 0) return status;
        } else if (c == 'H' && message.compare(i, 4, "HTTP") == 0) {
            std::size_t at = i + 4;
            if (message.substr(at, 1) == "/") {
                while (at < message.size() &&
                       (is_digit(message[at]) || message[at] == '/' || message[at] == '.'))
                    ++at;
            }
            const std::size_t from = at;
            while (at < message.size() && (message[at] == ' ' || message[at] == '"')) ++at;
            if (const int status = at > from ? three_digits(at) : 0) return status;
        }
    }
    return 0;
}

bool parse_epoch(double number, Time& ret) {
    if (!(number >= 1e8) || number >= 1e20) return false;  // before 1973 in seconds: no log's time
    double us = number;
    if (number < 1e11) {
        us = number * 1e6;
    } else if (number < 1e14) {
        us = number * 1e3;
    } else if (number >= 1e17) {
        us = number / 1e3;
    }
    ret = Time{static_cast<std::int64_t>(std::llround(us))};
    return true;
}

bool parse_log_time(std::string_view text, Time received, Time& ret) {
    text = trim(text);
    if (!text.empty() && text.front() == '[') text.remove_prefix(1);
    if (!text.empty() && text.back() == ']') text.remove_suffix(1);
    if (text.size() < 8) return false;
    Cursor in{text};
    int year = 0;
    int month = 0;
    int day = 0;
    std::int64_t time_of_day = 0;
    std::int64_t zone = 0;
    bool has_zone = false;
    bool has_year = true;
    if (is_digit(text[0]) && text.size() > 4 && is_digit(text[2]) && is_digit(text[3])) {
        year = in.number(4, 4);
        const char separator = in.rest.empty() ? '\0' : in.rest[0];
        if (separator != '-' && separator != '/' && separator != '.') {
            // All digits: seconds since the epoch and the like.
            double number = 0;
            const auto end = std::from_chars(text.data(), text.data() + text.size(), number).ptr;
            return end == text.data() + text.size() && parse_epoch(number, ret);
        }
        in.need(separator);
        month = in.number(2, 2);
        in.need(separator);
        day = in.number(2, 2);
        if (!in.skip('T')) in.blanks();
        time_of_day = in.time_of_day_us();
        in.blanks();
        has_zone = in.zone(zone);
    } else if (is_digit(text[0])) {
        day = in.number(1, 2);  // 21/Nov/2026:10:00:00 +0000
        in.need('/');
        month = in.month();
        in.need('/');
        year = in.number(4, 4);
        in.need(':');
        time_of_day = in.time_of_day_us();
        in.blanks();
        has_zone = in.zone(zone);
    } else {
        if (text.size() > 4 && text[3] == ' ' && !is_digit(text[4]) && text[4] != ' ')
            in.rest.remove_prefix(4);  // weekday
        month = in.month();
        in.blanks();
        day = in.number(1, 2);
        in.blanks();
        time_of_day = in.time_of_day_us();
        in.blanks();
        has_year = in.rest.size() >= 4 && is_digit(in.rest[0]);
        if (has_year) year = in.number(4, 4);
    }
    if (!in.good || month < 1 || month > 12 || day < 1 || day > 31) return false;
    if (!has_zone) zone = local_offset_us(received);
    const auto at = [&](int y) {
        return Time{days_from_civil(y, month, day) * 86'400'000'000LL + time_of_day - zone};
    };
    if (!has_year) {
        year = year_of(received.us / 86'400'000'000LL - (received.us < 0 ? 1 : 0));
        if (at(year) > received + Duration{86'400'000'000LL}) --year;
    }
    ret = at(year);
    return true;
}

}  // namespace heal
