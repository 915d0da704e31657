#include "fingerprint/chars.hpp"
#include "fingerprint/fingerprint.hpp"
#include "fingerprint/model.hpp"
#include "fingerprint/reader.hpp"
#include "fingerprint/shape.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace heal::fingerprint {
namespace {

// No header known to us is longer; the bound keeps the cut linear on hostile lines.
constexpr std::size_t max_header = 640;
constexpr int max_fields = 24;

std::size_t digits_at(std::string_view s, std::size_t p) noexcept {
    std::size_t n = 0;
    while (p + n < s.size() && is_digit(s[p + n])) ++n;
    return n;
}

bool at(std::string_view s, std::size_t p, char c) noexcept { return p < s.size() && s[p] == c; }

std::size_t skip_blanks(std::string_view s, std::size_t p) noexcept {
    while (p < s.size() && is_space(s[p])) ++p;
    return p;
}

std::size_t token_end(std::string_view s, std::size_t p) noexcept {
    while (p < s.size() && !is_space(s[p])) ++p;
    return p;
}

constexpr std::string_view months = "JanFebMarAprMayJunJulAugSepOctNovDec";
constexpr std::string_view weekdays = "MonTueWedThuFriSatSun";

bool is_name_of(std::string_view names, std::string_view s, std::size_t p) noexcept {
    if (p + 3 > s.size()) return false;
    const char a = s[p], b = s[p + 1], c = s[p + 2];
    if (a < 'A' || a > 'Z') return false;
    // First letters of the names of months and of weekdays.
    constexpr std::uint32_t letters =
        1U << ('J' - 'A') | 1U << ('F' - 'A') | 1U << ('M' - 'A') | 1U << ('A' - 'A') | 1U << ('S' - 'A') |
        1U << ('O' - 'A') | 1U << ('N' - 'A') | 1U << ('D' - 'A') | 1U << ('T' - 'A') | 1U << ('W' - 'A');
    if ((letters >> (a - 'A') & 1U) == 0) return false;
    for (std::size_t i = 0; i < names.size(); i += 3) {
        if (names[i] == a && names[i + 1] == b && names[i + 2] == c) return true;
    }
    return false;
}

/// First letters of the level words of each length; most words are told apart without looking at them
/// (level.cpp has the words).
bool may_be_level(std::string_view word) noexcept {
    static constexpr std::string_view first[14] = {
        "", "tvdiwef", "", "dleiwfv", "finwc", "tfdaep", "fncsd", "vwf", "c", "e", "", "i", "", "i"};
    return word.size() < std::size(first) &&
           first[word.size()].find(static_cast<char>(word[0] | 0x20)) != std::string_view::npos;
}

/// Levels in capitals or between marks need no context; lower-case words and single letters only beside other
/// header fields.
Level level_word(std::string_view word, bool context) noexcept {
    if (word.empty() || word.size() > 13 || !may_be_level(word)) return Level::unknown;
    if (word.size() == 1) {
        return context && std::string_view{"TVDIWEF"}.find(word[0]) != std::string_view::npos
                   ? parse_level(word)
                   : Level::unknown;
    }
    bool upper = true;
    for (const char c : word) {
        if (!is_alpha(c)) return Level::unknown;
        upper = upper && is_upper(c);
    }
    if (!upper && !context) return Level::unknown;
    if (word.size() == 3 && upper) {
        // Serilog's; the others of three letters are known to parse_level.
        if (word == "INF") return Level::info;
        if (word == "WRN") return Level::warn;
        if (word == "FTL") return Level::fatal;
        if (word == "VRB") return Level::trace;
    }
    if (word.size() == 3 && (word == "log" || word == "LOG")) return context ? Level::info : Level::unknown;
    return parse_level(word);
}

/// HH:MM[:SS[.,frac]] with an optional zone; returns the end or 0.
std::size_t time_at(std::string_view s, std::size_t p, bool seconds_needed = true) noexcept {
    const std::size_t h = digits_at(s, p);
    if (h < 1 || h > 2 || !at(s, p + h, ':')) return 0;
    p += h + 1;
    const std::size_t minutes = digits_at(s, p);
    if (minutes < 1 || minutes > 2) return 0;
    p += minutes;
    // Parts without a leading zero: only in full, 9:5:03.
    if (minutes == 1 && !(at(s, p, ':') && digits_at(s, p + 1) > 0)) return 0;
    if (!at(s, p, ':')) return seconds_needed || at(s, p, '.') || digits_at(s, p) > 0 ? 0 : p;
    ++p;
    const std::size_t sec = digits_at(s, p);
    if (sec < 1 || sec > 2) return 0;
    p += sec;
    if (p < s.size() && (s[p] == '.' || s[p] == ',' || s[p] == ':') && digits_at(s, p + 1) > 0)
        p += 1 + digits_at(s, p + 1);
    std::size_t z = p;
    if (at(s, z, 'Z')) return z + 1;
    if (at(s, z, ' ')) ++z;
    if (z < s.size() && (s[z] == '+' || s[z] == '-') && digits_at(s, z + 1) >= 2 &&
        digits_at(s, z + 1) <= 4) {
        std::size_t e = z + 1 + digits_at(s, z + 1);
        if (at(s, e, ':') && digits_at(s, e + 1) == 2) e += 3;
        if (e >= s.size() || is_space(s[e]) || s[e] == ']' || s[e] == ',' || s[e] == '|' || s[e] == '"')
            return e;
    }
    // Most times have no zone; its first letter decides before any comparison.
    if (z >= s.size() || !is_alpha(s[z]) ||
        std::string_view{"UGCPEAMWBIJKSHNap"}.find(s[z]) == std::string_view::npos || z + 1 >= s.size() ||
        (!is_upper(s[z + 1]) && s[z + 1] != 'm'))
        return p;
    if (z + 2 < s.size() && is_alpha(s[z + 2]) && z + 3 < s.size() && is_alpha(s[z + 3]) && s[z + 3] != 'T')
        return p;
    for (const std::string_view zone :
         {"UTC",  "GMT",  "CET",  "CEST", "PST",  "PDT", "EST", "EDT", "CST", "CDT", "MST", "MDT",
          "WET",  "WEST", "EET",  "EEST", "MSK",  "BST", "IST", "JST", "KST", "SGT", "HKT", "AEST",
          "AEDT", "ACST", "AWST", "NZST", "NZDT", "BRT", "AM",  "PM",  "am",  "pm"}) {
        if (s.substr(z, zone.size()) == zone &&
            (z + zone.size() >= s.size() || !is_alpha(s[z + zone.size()]))) {
            z += zone.size();
            // 7:51:54 PM UTC
            if ((zone == "AM" || zone == "PM") && (s.substr(z, 4) == " UTC" || s.substr(z, 4) == " GMT"))
                z += 4;
            return z;
        }
    }
    return p;
}

/// A date in digits: two or three parts joined by one of - / . (2024-05-06, 06/May/2024, 05-06, 2024.05.06).
std::size_t date_at(std::string_view s, std::size_t p, int& parts, DigitWatch& watch) noexcept {
    std::size_t n = digits_at(s, p);
    parts = 0;
    if (n != 1 && n != 2 && n != 4 && n != 8) return 0;
    if (n == 8) {
        parts = 3;
        watch.saw(s.substr(p, 2));
        const int year = (s[p] - '0') * 10 + (s[p + 1] - '0');
        return year == 19 || year == 20 ? p + 8 : 0;
    }
    p += n;
    parts = 1;
    if (p >= s.size()) return 0;
    const char sep = s[p];
    if (sep != '-' && sep != '/' && sep != '.') return 0;
    while (parts < 3 && at(s, p, sep)) {
        n = digits_at(s, p + 1);
        if (n == 1 || n == 2 || n == 4) {
            p += 1 + n;
        } else if (n == 0 && is_name_of(months, s, p + 1)) {
            p += 4;
        } else {
            break;
        }
        ++parts;
    }
    return parts >= 2 ? p : 0;
}

/// A timestamp at p; returns its end or 0. `syslog` is set for the RFC 3164 form, after which a host follows.
std::size_t timestamp_at(std::string_view s, std::size_t p, bool& syslog, DigitWatch& watch) noexcept {
    syslog = false;
    if (p >= s.size()) return 0;
    if (is_digit(s[p])) {
        int parts = 0;
        if (const std::size_t d = date_at(s, p, parts, watch); d != 0) {
            std::size_t t = d;
            if (t < s.size() && (s[t] == 'T' || s[t] == ' ' || s[t] == '_' || s[t] == ':' || s[t] == '-' ||
                                 s[t] == ',' || s[t] == '|')) {
                ++t;
                while (t < s.size() && (s[t] == ' ' || s[t] == '-') && t < d + 4) ++t;
                if (const std::size_t e = time_at(s, t, false); e != 0) return e;
                // 2005-06-03-15.42.50.675872
                if (s[d] == '-' && parts == 3 && digits_at(s, t) == 2 && at(s, t + 2, '.') &&
                    digits_at(s, t + 3) == 2 && at(s, t + 5, '.') && digits_at(s, t + 6) == 2) {
                    t += 8;
                    if (at(s, t, '.')) t += 1 + digits_at(s, t + 1);
                    return t;
                }
                if (digits_at(s, t) == 6 && parts == 3) {
                    t += 6;
                    if (t < s.size() && (s[t] == '.' || s[t] == ',') && digits_at(s, t + 1) > 0)
                        t += 1 + digits_at(s, t + 1);
                    if (t >= s.size() || is_space(s[t]) || s[t] == ']') return t;
                }
            }
            // A date alone counts when it is complete and stands alone.
            if (parts == 3 && d - p >= 8 &&
                (d >= s.size() || is_space(s[d]) || s[d] == ']' || s[d] == '|' || s[d] == ','))
                return d;
            return 0;
        }
        if (std::size_t e = time_at(s, p); e != 0) {
            // 17:45:08 2024-05-28
            if (at(s, e, ' ') && digits_at(s, e + 1) > 0) {
                if (const std::size_t d = date_at(s, e + 1, parts, watch); d != 0 && parts == 3) e = d;
            }
            // Two digits and a colon more are an address of hardware.
            return e >= s.size() || is_space(s[e]) || s[e] == ']' || s[e] == '|' || s[e] == ',' ||
                           (s[e] == ':' && !(e + 1 < s.size() && is_hex(s[e + 1]))) || s[e] == ';'
                       ? e
                       : 0;
        }
        const std::size_t n = digits_at(s, p);
        // 5:56PM
        if (n <= 2 && at(s, p + n, ':') && digits_at(s, p + n + 1) == 2 && at(s, p + n + 4, 'M') &&
            (at(s, p + n + 3, 'A') || at(s, p + n + 3, 'P')) && at(s, p + n + 5, ' '))
            return p + n + 5;
        // 01 Jan 2020 00:00:00.000
        if (n <= 2 && at(s, p + n, ' ') && is_name_of(months, s, p + n + 1) && at(s, p + n + 4, ' ')) {
            std::size_t t = p + n + 5;
            if (digits_at(s, t) == 4) t += 4;
            return time_at(s, skip_blanks(s, t));
        }
        // 081109 203615, before a thread's number and a level
        if (n == 6 && at(s, p + 6, ' ') && digits_at(s, p + 7) == 6 && at(s, p + 13, ' ')) {
            std::size_t t = p + 14;
            if (const std::size_t id = digits_at(s, t); id > 0 && at(s, t + id, ' ')) t += id + 1;
            const std::size_t end = token_end(s, t);
            if (level_word(s.substr(t, end - t), false) != Level::unknown) return p + 13;
        }
        // Epoch seconds of 2001-2033, alone or with a fraction; milliseconds.
        if (n == 10 || n == 13) {
            std::size_t e = p + n;
            if (at(s, e, '.')) e += 1 + digits_at(s, e + 1);
            if (e >= s.size() || is_space(s[e]) || s[e] == ']' || s[e] == '|') {
                watch.saw(s.data() + p);
                if (s[p] == '1') return e;
            }
        }
        return 0;
    }
    if (is_name_of(weekdays, s, p)) {
        std::size_t t = p + 3;
        while (t < s.size() && is_alpha(s[t])) ++t;
        if (at(s, t, ',')) ++t;
        if (at(s, t, ' ')) {
            bool inner = false;
            const std::size_t next = skip_blanks(s, t);
            if (is_name_of(weekdays, s, next)) return 0;
            if (const std::size_t e = timestamp_at(s, next, inner, watch); e != 0) return e;
        }
        return 0;
    }
    if (is_name_of(months, s, p)) {
        std::size_t t = p + 3;
        while (t < s.size() && is_alpha(s[t])) ++t;
        if (!at(s, t, ' ')) return 0;
        t = skip_blanks(s, t);
        const std::size_t d = digits_at(s, t);
        if (d < 1 || d > 2) return 0;
        t += d;
        if (at(s, t, ',')) ++t;
        t = skip_blanks(s, t);
        if (digits_at(s, t) == 4 && at(s, t + 4, ' ')) t = skip_blanks(s, t + 4);
        std::size_t e = time_at(s, t);
        if (e == 0) return 0;
        if (at(s, e, ' ') && digits_at(s, e + 1) == 4 &&
            (e + 5 >= s.size() || s[e + 5] == ' ' || s[e + 5] == ']' || s[e + 5] == ':')) {
            e += 5;
        } else {
            syslog = true;
        }
        return e;
    }
    return 0;
}

constexpr std::array<bool, 256> make_name_chars() {
    std::array<bool, 256> table{};
    for (unsigned i = 0; i < 256; ++i) {
        const char c = static_cast<char>(i);
        table[i] = is_alpha(c) || is_digit(c) || c == '_' || c == '-' || c == '.' || c == '/' || c == '$' ||
                   c == '@';
    }
    return table;
}
constexpr std::array<bool, 256> name_chars = make_name_chars();
bool is_name_char(char c) noexcept { return name_chars[static_cast<unsigned char>(c)]; }

/// End of the bracket group that opens at p (nested ones counted), or 0 when it does not close within the
/// header's bound.
std::size_t group_end(std::string_view s, std::size_t p) noexcept {
    const char open = s[p];
    const char close = open == '[' ? ']' : open == '(' ? ')' : open == '<' ? '>' : '}';
    int depth = 0;
    for (std::size_t i = p; i < s.size() && i < p + 400; ++i) {
        if (s[i] == open) ++depth;
        if (s[i] == close && --depth == 0) return i + 1;
    }
    return 0;
}

/// Python's default: LEVEL:logger:text
bool cut_python(std::string_view s, Line& line) noexcept {
    const std::size_t colon = s.substr(0, 9).find(':');
    if (colon == std::string_view::npos || colon < 4) return false;
    const std::string_view word = s.substr(0, colon);
    if (word != "DEBUG" && word != "INFO" && word != "WARNING" && word != "ERROR" && word != "CRITICAL")
        return false;
    const std::size_t second = s.substr(0, 160).find(':', colon + 1);
    if (second == std::string_view::npos || second == colon + 1) return false;
    const std::string_view name = s.substr(colon + 1, second - colon - 1);
    if (!std::all_of(name.begin(), name.end(), is_name_char)) return false;
    line.level = parse_level(word);
    line.component = name;
    line.message = s.substr(second + 1);
    return true;
}

struct Cutter {
    explicit Cutter(DigitWatch& w) : watch(w) {}

    DigitWatch& watch;
    std::string_view s;
    Line line;
    std::size_t p = 0;
    bool dated = false;  ///< a timestamp was cut
    bool host_follows = false;

    std::string_view rest() const noexcept { return s.substr(p); }

    void pass_separators() noexcept {
        while (p < s.size() && (is_space(s[p]) || s[p] == '|')) ++p;
    }

    /// What stands before the first timestamp is header too, when it does not read like a sentence.
    bool leading_timestamp() noexcept {
        std::size_t q = 0;
        int words = 0;
        bool first_odd = false;
        for (int field = 0; field < 7 && q < s.size() && q < 200; ++field) {
            q = skip_blanks(s, q);
            std::size_t start = q;
            const bool bracket = q < s.size() && (s[q] == '[' || s[q] == '(' || s[q] == '<');
            if (bracket) start = skip_blanks(s, q + 1);
            bool syslog = false;
            const std::size_t e = timestamp_at(s, start, syslog, watch);
            if (e != 0) {
                const bool epoch = digits_at(s, start) >= 10;
                const bool only_time = s.size() > start + 2 && (s[start + 2] == ':' || s[start + 1] == ':');
                if (field > 0 && words > (first_odd ? 3 : 0)) return false;
                if (epoch && field == 0 && !bracket && e - start != 13 && e - start != 10 &&
                    !at(s, start + 10, '.'))
                    return false;
                if (only_time && field > 3) return false;
                if (field > 0 && !first_odd) return false;
                line.timestamp = s.substr(start, e - start);
                p = e;
                if (bracket && p < s.size()) {
                    const char shut = s[q] == '[' ? ']' : s[q] == '(' ? ')' : '>';
                    if (s[p] == shut) {
                        ++p;
                    } else if (const std::size_t close = s.substr(0, p + 60).find(shut, p);
                               close != std::string_view::npos && in_bracket(s.substr(p, close - p))) {
                        p = close + 1;
                    }
                }
                if (p < s.size() && (s[p] == ',' || s[p] == ':' || s[p] == ';')) ++p;
                host_follows = syslog && !bracket;
                dated = true;
                return true;
            }
            const std::size_t end = token_end(s, q);
            const std::string_view token = s.substr(q, end - q);
            const std::uint8_t k = classes_of(token);
            if (field == 0) {
                first_odd = (k & cls_digit) != 0 || (k & cls_alpha) == 0 ||
                            level_word(token, false) != Level::unknown ||
                            level_word(trim_marks(token), false) != Level::unknown || token.back() == ',';
                if (!first_odd) {
                    // `host - user [time]` and `NAME time`: one bare word may lead.
                    bool s2 = false;
                    const std::size_t next = skip_blanks(s, end);
                    const std::size_t inner = at(s, next, '[') ? next + 1 : next;
                    if (timestamp_at(s, inner, s2, watch) == 0 && !at(s, next, '-')) return false;
                    if (token.back() == ':' || (k & (cls_join | cls_digit | cls_punct)) == 0) {
                        if (timestamp_at(s, inner, s2, watch) == 0) return false;
                    }
                    first_odd = true;
                }
            } else if ((k & ~(cls_alpha | cls_hex)) == 0 && token.size() > 1) {
                ++words;
            }
            if (Level l = level_word(trim_marks(token), true); l != Level::unknown && token.size() > 2)
                line.level = l;
            q = end;
        }
        return false;
    }

    /// `[time LEVEL]`, `[time: LEVEL/process]`: what follows the time inside; true when a level is there.
    bool in_bracket(std::string_view inner) noexcept {
        std::size_t b = 0;
        while (b < inner.size() && !is_alpha(inner[b])) ++b;
        std::size_t e = b;
        while (e < inner.size() && is_alpha(inner[e])) ++e;
        const Level l = level_word(inner.substr(b, e - b), true);
        if (l == Level::unknown || e - b < 3) return false;
        line.level = l;
        if (e + 1 < inner.size()) line.process = inner.substr(e + 1);
        return true;
    }

    static std::string_view trim_marks(std::string_view t) noexcept {
        while (!t.empty() && (t.front() == '[' || t.front() == '<' || t.front() == '(')) t.remove_prefix(1);
        while (!t.empty() &&
               (t.back() == ']' || t.back() == '>' || t.back() == ')' || t.back() == ':' || t.back() == ','))
            t.remove_suffix(1);
        return t;
    }

    bool more_timestamps() noexcept {
        bool syslog = false;
        std::size_t q = p;
        if (q >= s.size() || (!is_digit(s[q]) && s[q] != '[' && s[q] != '(' && !is_upper(s[q]))) return false;
        if (at(s, q, '[') || at(s, q, '(')) ++q;
        q = skip_blanks(s, q);
        // Kernel uptime: [   12.345678]
        if (q > p && digits_at(s, q) > 0) {
            std::size_t e = q + digits_at(s, q);
            if (at(s, e, '.') && digits_at(s, e + 1) >= 3) {
                e += 1 + digits_at(s, e + 1);
                if (at(s, e, ']')) {
                    if (line.timestamp.empty()) line.timestamp = s.substr(q, e - q);
                    dated = true;
                    p = e + 1;
                    return true;
                }
            }
        }
        const std::size_t e = timestamp_at(s, q, syslog, watch);
        if (e == 0) return false;
        if (q > p && !at(s, e, ']') && !at(s, e, ')')) return false;
        host_follows = syslog && q == p;
        p = q > p ? e + 1 : e;
        if (at(s, p, ',') || at(s, p, ':')) {
            ++p;
            host_follows = false;
        }
        return true;
    }

    /// java.io.IOException, AH00957, ORA-00600: what went wrong, not who said so.
    static bool is_error(std::string_view name) noexcept {
        if (name.ends_with("Exception") || name.ends_with("Error")) return name.size() > 9;
        std::size_t n = 0;
        while (n < name.size() && is_upper(name[n])) ++n;
        if (n < 1 || n > 4) return false;
        if (n < name.size() && name[n] == '-') ++n;
        const std::size_t digits = digits_at(name, n);
        return digits >= 4 && digits <= 6 && n + digits == name.size();
    }

    /// name[pid]: | name(sub)[pid]: | name: with at least one letter; `end` is past the colon.
    bool component_at(
        std::size_t q, std::size_t& end, bool& strong, std::string_view& name, std::string_view& process
    ) const noexcept {
        const std::size_t start = q;
        bool modules = false;
        while (q < s.size()) {
            if (is_name_char(s[q])) {
                ++q;
            } else if (s[q] == '#' && q > start && q + 1 < s.size() && is_alpha(s[q + 1])) {
                ++q;  // hudson.model.Work#doRun
            } else if (s[q] == ':' && at(s, q + 1, ':') && q > start && q + 2 < s.size() && s[q + 2] >= 'a' && s[q + 2] <= 'z') {
                q += 2;  // hyper::server
                modules = true;
            } else {
                break;
            }
        }
        if (q == start || q - start > 120) return false;
        name = s.substr(start, q - start);
        // Modules of Rust, in lower case and behind the level; functions and types of C++ are text.
        if (modules &&
            (line.level == Level::unknown || name.starts_with("std:") || (classes_of(name) & cls_upper) != 0))
            return false;
        if ((classes_of(name) & cls_alpha) == 0 || is_error(name)) return false;
        strong = false;
        process = {};
        if (at(s, q, '(')) {
            const std::size_t e = group_end(s, q);
            if (e == 0 || e - q > 40) return false;
            name = s.substr(start, e - start);
            q = e;
        }
        if (at(s, q, '[')) {
            const std::size_t e = group_end(s, q);
            if (e == 0 || e - q > 24) return false;
            const std::string_view inner = s.substr(q + 1, e - q - 2);
            if (inner.empty() || (classes_of(inner) & cls_digit) == 0 || (classes_of(inner) & cls_space) != 0)
                return false;
            process = inner;
            strong = true;
            q = e;
        }
        if (at(s, q, ':') && (q + 1 >= s.size() || is_space(s[q + 1]))) {
            end = q + 1;
            const auto dots = std::count(name.begin(), name.end(), '.');
            strong = strong || dots >= 2 || name.find('/') != std::string_view::npos;
            return true;
        }
        end = q;
        return strong && digits_at(process, 0) == process.size() && (q >= s.size() || is_space(s[q]));
    }

    void fields() noexcept {
        bool after_level = false;
        for (int field = 0; field < max_fields; ++field) {
            const std::size_t before_blanks = p;
            pass_separators();
            if (p >= s.size()) return;
            const char c = s[p];
            if (dated && p > 0 && is_behind_pipe() && (pipe_column() || spaced_column())) {
                after_level = after_level || line.level != Level::unknown;
                continue;
            }
            if (dated && field == 0 && p > 0 && delimited_columns()) return;
            if (more_timestamps()) continue;
            std::size_t end = token_end(s, p);
            std::string_view token = s.substr(p, end - p);
            if (host_follows) {
                host_follows = false;
                // RFC 3164 names the host next, unless a component stands there already.
                std::size_t e = 0;
                bool strong = false;
                std::string_view name, process;
                if (component_at(p, e, strong, name, process)) {
                    take_component(e, name, process);
                    continue;
                }
                if ((level_word(token, true) == Level::unknown || token.size() > 1) && !is_class(token) &&
                    !begins_text(token, end)) {
                    line.host = token;
                    p = end;
                    continue;
                }
            }
            if (c == '[' || c == '<' || c == '(' || c == '{') {
                const std::size_t e = group_end(s, p);
                if (e == 0) return;
                std::string_view inner = s.substr(p + 1, e - p - 2);
                while (!inner.empty() && inner.back() == ' ') inner.remove_suffix(1);
                std::size_t after = e;
                if (at(s, after, ':') && c == '[') ++after;
                if (after < s.size() && !is_space(s[after]) && s[after] != '[' && s[after] != '|') return;
                if (const Level l = level_word(inner, true); l != Level::unknown && inner.size() > 1) {
                    line.level = l;
                    after_level = true;
                    p = after;
                    continue;
                }
                if (c == '{' && dated && at(s, skip_blanks(s, after), '<')) {
                    // {query id} <Level>
                    const std::size_t open = skip_blanks(s, after), shut = group_end(s, open);
                    if (shut != 0 &&
                        level_word(s.substr(open + 1, shut - open - 2), true) != Level::unknown) {
                        p = after;
                        continue;
                    }
                }
                if (c == '<' || !dated || (c == '{' && !is_place(inner))) return;
                if (line.component.empty() && c == '[' && is_class(inner)) {
                    line.component = inner;
                    bracket_logger_ = true;
                    p = after;
                    continue;
                }
                if (c == '(' && !line.component.empty() && !(bracket_logger_ && line.thread.empty())) return;
                const std::uint8_t k = classes_of(inner);
                // After the component a bracket belongs to the message, unless it is a correlation id or
                // stands behind a logger without a colon, where threads and requests are named.
                const bool column = line.thread.empty() && ((c == '[' && bare_logger_) || bracket_logger_);
                if (!line.component.empty() && inner != "-" && !column &&
                    !((k & cls_digit) != 0 && (inner.find("- -") != std::string_view::npos ||
                                               (inner.find(' ') == std::string_view::npos &&
                                                inner.find(':') == std::string_view::npos)))) {
                    return;
                }
                if (inner.size() > 396) return;
                if (line.thread.empty()) line.thread = inner;
                placed_ = placed_ || is_place(inner);
                if (const std::size_t mark = inner.find_first_of(":/");
                    mark != std::string_view::npos && line.level == Level::unknown) {
                    line.level = level_word(inner.substr(mark + 1), true);
                    after_level = line.level != Level::unknown;
                }
                p = after;
                continue;
            }
            // LEVEL:logger:text, the default of Python, behind a time of its own
            if (dated && line.component.empty() && is_upper(c) && token.find(':') < 9 && python_default())
                return;
            // Level, alone or with a mark behind it.
            std::string_view bare = token;
            while (!bare.empty() && (bare.back() == ':' || bare.back() == ',' || bare.back() == '-'))
                bare.remove_suffix(1);
            if (line.level == Level::unknown || !after_level) {
                const bool columns = p > before_blanks + 1 || end + 1 < s.size();
                Level l = dated ? level_word(bare, columns) : Level::unknown;
                if (l != Level::unknown && (line.component.empty() || (bracket_logger_ && !after_level))) {
                    line.level = l;
                    after_level = true;
                    p = end;
                    continue;
                }
            }
            if (!dated) return;
            if (line.level == Level::unknown && is_upper(c)) {
                // NOTICE[8644][C-8f765aee] pbx.c: text
                if (const std::size_t open = token.find('['); open != std::string_view::npos && open >= 4 &&
                                                              digits_at(token, open + 1) > 0 &&
                                                              token.back() == ']') {
                    if (const Level l = level_word(token.substr(0, open), false); l != Level::unknown) {
                        line.level = l;
                        after_level = true;
                        line.process = token.substr(open);
                        p = end;
                        continue;
                    }
                }
            }
            if (line.level == Level::unknown && line.component.empty()) {
                if (token.find('=') != std::string_view::npos) {
                    if (const std::size_t q = pairs_end(p); q != 0) {
                        p = q;
                        continue;
                    }
                } else if (is_uuid(token)) {
                    const std::size_t q = skip_blanks(s, end);
                    if (level_word(s.substr(q, token_end(s, q) - q), false) != Level::unknown) {
                        line.thread = token;
                        p = q;
                        continue;
                    }
                }
            }
            if (token == "-" || token == "--" || token == "---" || token == ":" || token == "*" ||
                (token.size() == 1 && (c == '#' || c == '.') && line.component.empty())) {
                p = end;
                dashed_ = dashed_ || (token == "-" && after_level);
                if (token == "-" && (!line.component.empty() || placed_)) {
                    p = skip_blanks(s, p);
                    level_column();
                    return;
                }
                continue;
            }
            const std::uint8_t k = classes_of(token);
            if (line.component.empty()) {
                // pid, tid, line number, counters: 123, 12#34:, 0x7f12
                const bool number = (k & cls_digit) != 0 && (k & (cls_upper | cls_lower)) == 0 &&
                                    token.size() <= 24 && token.find('=') == std::string_view::npos &&
                                    token[0] != '"' && token.find('.') == std::string_view::npos &&
                                    token.find('%') == std::string_view::npos;
                if (number && line.component.empty() && numbers_ < 3) {
                    ++numbers_;
                    if (line.process.empty())
                        line.process = token;
                    else if (line.thread.empty())
                        line.thread = token;
                    p = end;
                    continue;
                }
            }
            std::size_t e = 0;
            bool strong = false;
            std::string_view name, process;
            // Behind `LEVEL - ` a plain `word:` is text.
            if (line.component.empty() && component_at(p, e, strong, name, process) &&
                (!dashed_ || strong || name.find('.') != std::string_view::npos)) {
                if (const Level l = level_word(name, true); l != Level::unknown && name.size() > 1) {
                    if (line.level == Level::unknown) line.level = l;
                    p = e;
                    continue;
                }
                take_component(e, name, process);
                continue;
            }
            if (line.component.empty()) {
                const std::size_t next = skip_blanks(s, end);
                // A name with another timestamp behind it stands inside the header.
                bool again = false;
                if (const std::size_t e2 = token.size() <= 64 ? timestamp_at(s, next, again, watch) : 0;
                    e2 != 0 && (again || e2 - next >= 19)) {
                    line.host = token;
                    p = end;
                    continue;
                }
                // FACILITY COMPONENT LEVEL, user@db LOG:
                if (line.level == Level::unknown && is_before_level(token, next)) {
                    if (line.host.empty()) line.host = token;
                    p = end;
                    continue;
                }
                // `name | text`
                if (all_name(token) && at(s, next, '|') && next > end && next + 1 < s.size() &&
                    is_space(s[next + 1])) {
                    line.component = token;
                    p = next + 1;
                    // Columns that are empty this time.
                    while (at(s, skip_blanks(s, p), '|')) p = skip_blanks(s, p) + 1;
                    return;
                }
                // `logger - text`, `logger : text`
                if ((k & cls_alpha) != 0 && (k & cls_space) == 0 && next + 1 < s.size() &&
                    (s[next] == '-' || s[next] == ':') && is_space(s[next + 1]) && all_name(token)) {
                    line.component = token;
                    p = next + 1;
                    level_column();
                    continue;
                }
                // `LEVEL  Name [thread] - text`
                if (after_level && line.thread.empty() && at(s, next, '[') && next > end && all_name(token)) {
                    const std::size_t shut = group_end(s, next);
                    const std::size_t dash = shut == 0 ? 0 : skip_blanks(s, shut);
                    if (shut != 0 && dash > shut && at(s, dash, '-') && at(s, dash + 1, ' ')) {
                        line.component = token;
                        line.thread = s.substr(next + 1, shut - next - 2);
                        p = dash + 2;
                        return;
                    }
                }
                // Two blanks or a tab on both sides make a column.
                const std::size_t gap = skip_blanks(s, end) - end;
                const bool column =
                    all_name(token) && (after_level || (numbers_ >= 2 && gap >= 2 && p > 0)) && gap >= 1 &&
                    ((p - before_blanks >= 2 && gap >= 2) || (end < s.size() && s[end] == '\t') ||
                     s.substr(p > 0 ? p - 1 : 0, 1) == "|");
                if (column) {
                    line.component = token;
                    bare_logger_ = true;
                    p = end;
                    continue;
                }
                const auto second = [&] { return s.substr(next, token_end(s, next) - next); };
                // `pool-1-thread-2 a.b.Logger text`
                if (after_level && next > end && line.thread.empty() &&
                    (token == "main" || ((k & cls_digit) != 0 && token.find('-') != std::string_view::npos &&
                                         all_name(token))) &&
                    is_class(second())) {
                    line.thread = token;
                    p = end;
                    continue;
                }
                // `a.b.Class method LEVEL: text`, as java.util.logging writes on one line
                if (!after_level && next > end && (k & cls_join) != 0 && is_class(token) &&
                    all_name(second())) {
                    const std::size_t third = skip_blanks(s, next + second().size());
                    std::string_view word = s.substr(third, token_end(s, third) - third);
                    if (word.size() > 3 && word.back() == ':') {
                        word.remove_suffix(1);
                        if (const Level l = level_word(word, false); l != Level::unknown) {
                            line.level = l;
                            line.component = token;
                            p = third + word.size() + 1;
                            return;
                        }
                    }
                }
                // a.b.c.Logger text: dotted names of three parts right after the level are loggers.
                if (after_level && all_name(token) && std::count(token.begin(), token.end(), '.') >= 2 &&
                    !is_digit(token[0])) {
                    line.component = token;
                    bare_logger_ = true;
                    p = end;
                    continue;
                }
                // time host component[pid]: as rsyslog and journalctl write it.
                if (!after_level && all_name(token) && line.host.empty() && next < s.size()) {
                    if (component_at(next, e, strong, name, process) && strong) {
                        line.host = token;
                        take_component(e, name, process);
                        continue;
                    }
                }
            }
            return;
        }
    }

    /// `Mar 11 22:14:15 Starting up`: a word of messages with no component behind it is no host.
    bool begins_text(std::string_view token, std::size_t end) const noexcept {
        if ((classes_of(token) & (cls_digit | cls_join | cls_punct)) != 0) return false;
        const std::size_t next = skip_blanks(s, end);
        std::size_t e = 0;
        bool strong = false;
        std::string_view name, process;
        if (next >= s.size() || !is_alpha(s[next]) || component_at(next, e, strong, name, process))
            return false;
        const std::string_view word = s.substr(next, token_end(s, next) - next);
        return word != "last" && word != "message" && is_known_word(folded_hash(token));
    }

    /// time|component|number|text: a column without blanks between two marks.
    bool pipe_column() noexcept {
        std::size_t e = p;
        while (e < s.size() && e < p + 64 && s[e] != '|' && !is_space(s[e])) ++e;
        if (e == p || !at(s, e, '|')) return false;
        const std::string_view field = s.substr(p, e - p);
        if (const Level l = level_word(field, true); l != Level::unknown)
            line.level = l;
        else if ((classes_of(field) & cls_alpha) == 0)
            (line.process.empty() ? line.process : line.thread) = field;
        else if (line.component.empty())
            line.component = field;
        else
            line.thread = field;
        p = e;
        return true;
    }

    /// `R02-M1 RAS KERNEL INFO`: does a level in capitals follow this word, at most two others in capitals
    /// between?
    bool is_before_level(std::string_view token, std::size_t next) const noexcept {
        const auto capital = [](std::string_view t) {
            return t.size() >= 2 && t.size() <= 24 && std::all_of(t.begin(), t.end(), [](char x) {
                       return is_upper(x) || x == '_' || x == '-';
                   });
        };
        const bool named =
            token.find('@') != std::string_view::npos ||
            ((classes_of(token) & (cls_digit | cls_upper)) == (cls_digit | cls_upper) && all_name(token));
        if (!named && !capital(token)) return false;
        for (int i = 0; i < 3; ++i) {
            const std::size_t end = token_end(s, next);
            std::string_view word = s.substr(next, end - next);
            if (!word.empty() && word.back() == ':') word.remove_suffix(1);
            if (word.size() >= 3 && is_upper(word[0]) && end < s.size() &&
                level_word(word, true) != Level::unknown)
                return true;
            if (!capital(word)) return false;
            next = skip_blanks(s, end);
        }
        return false;
    }

    /// `- LEVEL - text`, as Python's logging is often set up.
    void level_column() noexcept {
        const std::size_t b = skip_blanks(s, p);
        const std::size_t e = token_end(s, b);
        const Level l = level_word(s.substr(b, e - b), false);
        const std::size_t mark = skip_blanks(s, e);
        if (l != Level::unknown && (at(s, mark, '-') || at(s, mark, ':') || at(s, mark, '|')) &&
            mark + 1 < s.size() && is_space(s[mark + 1])) {
            line.level = l;
            p = skip_blanks(s, mark + 1);
        }
    }

    static bool all_name(std::string_view t) noexcept {
        return std::all_of(
                   t.begin(), t.end(), [](char c) { return is_name_char(c) || c == ':' || c == '#'; }
               ) &&
               t.back() != ':' && t.back() != '.';
    }

    void take_component(std::size_t e, std::string_view name, std::string_view process) noexcept {
        line.component = name;
        if (!process.empty()) line.process = process;
        p = e;
    }

    /// worker.py:839, cc/main.cc:12: where the statement stands in its source.
    static bool is_place(std::string_view t) noexcept {
        std::size_t n = t.size();
        while (n > 0 && is_digit(t[n - 1])) --n;
        if (n == t.size() || n < 4 || t[n - 1] != ':') return false;
        const std::string_view file = t.substr(0, n - 1);
        const std::size_t dot = file.rfind('.');
        return dot != std::string_view::npos && dot > 0 && dot + 1 < file.size() && is_alpha(file[dot + 1]) &&
               std::all_of(file.begin(), file.end(), is_name_char);
    }

    /// a.b.Class: at least two dots, the last part begins in upper case.
    static bool is_class(std::string_view t) noexcept {
        const std::size_t dot = t.rfind('.');
        return dot != std::string_view::npos && dot + 1 < t.size() && is_upper(t[dot + 1]) &&
               is_alpha(t[0]) && std::count(t.begin(), t.end(), '.') >= 2 &&
               std::all_of(t.begin(), t.end(), is_name_char);
    }

    bool python_default() noexcept {
        Line found;
        if (!cut_python(rest(), found)) return false;
        line.level = found.level;
        line.component = found.component;
        p = static_cast<std::size_t>(found.message.data() - s.data());
        return true;
    }

    bool is_behind_pipe() const noexcept {
        std::size_t q = p;
        while (q > 0 && s[q - 1] == ' ') --q;
        return q > 0 && s[q - 1] == '|';
    }

    /// time;LEVEL;name;text, time:LEVEL:logger:thread: text: the mark that stood behind the time again.
    bool delimited_columns() noexcept {
        const char mark = s[p - 1];
        if (mark != ';' && mark != ',' && mark != ':') return false;
        const auto column = [&](std::size_t b) {
            std::size_t e = b;
            while (e < s.size() && e < b + 64 && (is_name_char(s[e]) || s[e] == '#')) ++e;
            return e > b && at(s, e, mark) ? e : 0;
        };
        std::size_t e = column(p);
        if (e == 0) return false;
        const Level l = level_word(s.substr(p, e - p), true);
        if (l == Level::unknown) return false;
        line.level = l;
        p = e + 1;
        for (int i = 0; i < 2; ++i) {
            if (p < s.size() && is_space(s[p])) break;
            e = column(p);
            if (e == 0) break;
            (line.component.empty() ? line.component : line.thread) = s.substr(p, e - p);
            p = e + 1;
        }
        return true;
    }

    /// `pid=982 tid=g5x WARN: text`, `request_id=F42 [info] text`: pairs between the time and the level.
    /// Where they end, or 0.
    std::size_t pairs_end(std::size_t q) const noexcept {
        for (int i = 0; i < 8; ++i) {
            const std::size_t e = token_end(s, q);
            const std::string_view token = s.substr(q, e - q);
            std::size_t equals = 0;
            while (equals < token.size() && (is_alpha(token[equals]) || token[equals] == '_')) ++equals;
            if (equals == 0 || equals > 20 || !at(token, equals, '=') ||
                token.find('"') != std::string_view::npos) {
                const std::string_view bare = trim_marks(token);
                return i > 0 && bare.size() >= 3 &&
                               level_word(bare, bare.size() < token.size()) != Level::unknown
                           ? q
                           : 0;
            }
            q = skip_blanks(s, e);
        }
        return 0;
    }

    /// 6aefe8ed-1111-2222-3333-dc69fac3ef2f
    static bool is_uuid(std::string_view t) noexcept {
        return t.size() == 36 && t[8] == '-' && t[13] == '-' && t[18] == '-' && t[23] == '-' &&
               std::all_of(t.begin(), t.end(), [](char x) { return is_hex(x) || x == '-'; });
    }

    /// `| pool-1-thread-2 |`, `| a.b.Logger |`: a column with blanks around it.
    bool spaced_column() noexcept {
        const std::size_t shut = s.substr(0, std::min(s.size(), p + 80)).find(" |", p);
        if (shut == std::string_view::npos || shut + 3 >= s.size() || !is_space(s[shut + 2])) return false;
        std::string_view field = s.substr(p, shut - p);
        while (!field.empty() && field.back() == ' ') field.remove_suffix(1);
        if (field.empty()) return false;
        if (const Level l = level_word(field, true); l != Level::unknown) {
            line.level = l;
        } else if (all_name(field)) {
            (line.component.empty() && is_class(field) ? line.component : line.thread) = field;
        } else if (line.thread.empty() && (classes_of(field) & cls_digit) != 0 && columns_ < 3) {
            line.thread = field;
        } else {
            return false;
        }
        p = shut + 2;
        return ++columns_ <= 5;
    }

    int numbers_ = 0, columns_ = 0;
    bool bracket_logger_ = false;  ///< the component stood in brackets, as [a.b.Class]
    bool placed_ = false;          ///< a place in the source was cut
    bool dashed_ = false;          ///< a dash stood behind the level
    bool bare_logger_ = false;     ///< the component was a logger without a mark behind it
};

/// End of RFC 5424's [id name="value" …], in whose values \] and \" are escaped; 0 when it does not close.
std::size_t structured_end(std::string_view s, std::size_t p) noexcept {
    bool quoted = false;
    for (std::size_t i = p + 1; i < s.size(); ++i) {
        if (s[i] == '\\')
            ++i;
        else if (s[i] == '"')
            quoted = !quoted;
        else if (s[i] == ']' && !quoted)
            return i + 1;
    }
    return 0;
}

/// glog and klog: I0102 15:04:05.000000    1234 file.cc:12] text
bool cut_glog(std::string_view s, Line& line) noexcept {
    if (s.size() < 22 || std::string_view{"IWEFD"}.find(s[0]) == std::string_view::npos ||
        digits_at(s, 1) != 4 || s[5] != ' ')
        return false;
    const std::size_t t = time_at(s, 6);
    if (t == 0) return false;
    const std::size_t close = s.substr(0, max_header).find("] ", t);
    if (close == std::string_view::npos) return false;
    line.level = parse_level(s.substr(0, 1));
    line.timestamp = s.substr(1, t - 1);
    const std::size_t id = skip_blanks(s, t);
    line.thread = s.substr(id, digits_at(s, id));
    const std::size_t where = skip_blanks(s, id + line.thread.size());
    if (where < close) line.component = s.substr(where, close - where);
    line.message = s.substr(close + 2);
    return true;
}

/// logcat's brief form: D/Tag( 123): text
bool cut_brief(std::string_view s, Line& line) noexcept {
    if (s.size() < 8 || s[1] != '/' || std::string_view{"VDIWEF"}.find(s[0]) == std::string_view::npos)
        return false;
    const std::size_t open = s.substr(0, 80).find('(');
    if (open == std::string_view::npos) return false;
    const std::size_t id = skip_blanks(s, open + 1);
    const std::size_t n = digits_at(s, id);
    if (n == 0 || s.substr(id + n, 2) != "):") return false;
    line.level = parse_level(s.substr(0, 1));
    line.component = s.substr(2, open - 2);
    line.process = s.substr(id, n);
    line.message = s.substr(skip_blanks(s, id + n + 2));
    return true;
}

/// A JSON string's end quote, or npos.
std::size_t string_end(std::string_view s, std::size_t p) noexcept {
    while (p < s.size()) {
        const void* quote = std::memchr(s.data() + p, '"', s.size() - p);
        if (quote == nullptr) return std::string_view::npos;
        const std::size_t q = static_cast<std::size_t>(static_cast<const char*>(quote) - s.data());
        std::size_t slashes = 0;
        while (q - slashes > p && s[q - slashes - 1] == '\\') ++slashes;
        if (slashes % 2 == 0) return q;
        p = q + 1;
    }
    return std::string_view::npos;
}

/// A key in lower case, without the _ and - that loggers put into names; "" when it is too long to be one of
/// ours.
std::string_view plain_key(std::string_view key, char (&buffer)[20]) noexcept {
    std::size_t n = 0;
    for (const char c : key) {
        if (c == '_' || c == '-') continue;
        if (n == sizeof buffer) return {};
        buffer[n++] = is_upper(c) ? static_cast<char>(c + 32) : c;
    }
    return {buffer, n};
}

enum class JsonKey : std::uint8_t {
    other,
    message,
    event,
    template_text,
    error,
    error_object,
    error_message,
    log,
    stream,
    time,
    level,
    logger,
    host,
    thread,
    pid
};

JsonKey json_key(std::string_view key) noexcept {
    char buffer[20];
    const std::string_view k = plain_key(key, buffer);
    const auto is = [&](std::initializer_list<std::string_view> names) {
        return std::find(names.begin(), names.end(), k) != names.end();
    };
    switch (k.size()) {
        case 2:
            return k == "@m"                ? JsonKey::message
                   : k == "ts" || k == "@t" ? JsonKey::time
                   : k == "@l"              ? JsonKey::level
                   : k == "ex"              ? JsonKey::error
                                            : JsonKey::other;
        case 3:
            return k == "msg"           ? JsonKey::message
                   : k == "log"         ? JsonKey::log
                   : k == "lvl"         ? JsonKey::level
                   : k == "pid"         ? JsonKey::pid
                   : is({"err", "exc"}) ? JsonKey::error
                   : k == "@mt"         ? JsonKey::template_text
                                        : JsonKey::other;
        case 4:
            return is({"body", "text"})         ? JsonKey::message
                   : k == "time" || k == "date" ? JsonKey::time
                   : k == "host"                ? JsonKey::host
                   : k == "name"                ? JsonKey::logger
                                                : JsonKey::other;
        case 5:
            return k == "level"   ? JsonKey::level
                   : k == "error" ? JsonKey::error
                   : k == "event" ? JsonKey::event
                                  : JsonKey::other;
        case 6:
            return k == "logger" || k == "module" ? JsonKey::logger
                   : k == "stream"                ? JsonKey::stream
                   : k == "thread"                ? JsonKey::thread
                                                  : JsonKey::other;
        case 7:
            return k == "message" ? JsonKey::message : JsonKey::other;
        default:
            return k == "shortmessage"      ? JsonKey::message
                   : k == "messagetemplate" ? JsonKey::template_text
                   : k == "exception"       ? JsonKey::error
                   : is({"err.message", "error.message", "error.msg", "exception.message"})
                       ? JsonKey::error_message
                   : is({"timestamp", "@timestamp", "datetime", "asctime"})                 ? JsonKey::time
                   : is({"severity", "loglevel", "log.level", "levelname", "severitytext"}) ? JsonKey::level
                   : is({"loggername", "component", "log.logger"})                          ? JsonKey::logger
                   : k == "hostname"                                                        ? JsonKey::host
                   : k == "threadname"                                                      ? JsonKey::thread
                                                                                            : JsonKey::other;
    }
}

/// The fields of one object; `inside` an error's object only its message counts. Stands behind its brace
/// afterwards.
bool read_object(std::string_view s, std::size_t& p, JsonText& ret, bool inside, int& fields) noexcept {
    p = skip_blanks(s, p + 1);
    while (p < s.size() && s[p] == '"' && ++fields <= 400) {
        const std::size_t key_end = string_end(s, p + 1);
        if (key_end == std::string_view::npos) return true;
        const JsonKey key = json_key(s.substr(p + 1, key_end - p - 1));
        p = skip_blanks(s, key_end + 1);
        if (!at(s, p, ':')) return true;
        p = skip_blanks(s, p + 1);
        if (p >= s.size()) return true;
        if (s[p] == '"') {
            const std::size_t e = string_end(s, p + 1);
            // Cut off in the middle: what is there counts.
            const std::string_view value =
                s.substr(p + 1, (e == std::string_view::npos ? s.size() : e) - p - 1);
            p = e == std::string_view::npos ? s.size() : e + 1;
            if (inside) {
                if (key == JsonKey::message && !value.empty()) ret.error = value;
            } else {
                switch (key) {
                    case JsonKey::message:
                        if (!value.empty()) ret.message = value;
                        break;
                    case JsonKey::event:
                        if (ret.message.empty()) ret.message = value;
                        break;
                    case JsonKey::template_text:
                        ret.template_text = value;
                        break;
                    case JsonKey::error:
                        // A text of several lines is a trace.
                        if (ret.error.empty() && value.find("\\n") == std::string_view::npos)
                            ret.error = value;
                        break;
                    case JsonKey::error_message:
                        ret.error = value;
                        break;
                    case JsonKey::log:
                        ret.log = value;
                        break;
                    case JsonKey::stream:
                        ret.has_stream = true;
                        break;
                    case JsonKey::time:
                        ret.header.timestamp = value;
                        break;
                    case JsonKey::level:
                        ret.header.level = parse_level(value);
                        break;
                    case JsonKey::logger:
                        ret.header.component = value;
                        break;
                    case JsonKey::host:
                        ret.header.host = value;
                        break;
                    case JsonKey::thread:
                        ret.header.thread = value;
                        break;
                    default:
                        break;
                }
            }
        } else if (s[p] == '{' && key == JsonKey::error && !inside) {
            if (!read_object(s, p, ret, true, fields)) return true;
        } else if (s[p] == '{' || s[p] == '[') {
            // Nested values are stepped over, never searched.
            int depth = 0;
            for (; p < s.size(); ++p) {
                if (s[p] == '"') {
                    const std::size_t e = string_end(s, p + 1);
                    if (e == std::string_view::npos) {
                        p = s.size();
                        break;
                    }
                    p = e;
                } else if (s[p] == '{' || s[p] == '[') {
                    ++depth;
                } else if ((s[p] == '}' || s[p] == ']') && --depth == 0) {
                    ++p;
                    break;
                }
            }
        } else {
            const std::size_t start = p;
            while (p < s.size() && s[p] != ',' && s[p] != '}' && !is_space(s[p])) ++p;
            const std::string_view value = s.substr(start, p - start);
            if (!inside && key == JsonKey::time) ret.header.timestamp = value;
            if (!inside && key == JsonKey::pid) ret.header.process = value;
            if (!inside && key == JsonKey::level && !value.empty() && is_digit(value[0])) {
                long number = 0;
                for (const char c : value.substr(0, 3))
                    if (is_digit(c)) number = number * 10 + (c - '0');
                ret.header.level =
                    number >= 10 ? level_of_pino(number) : level_of_syslog(static_cast<int>(number));
            }
        }
        p = skip_blanks(s, p);
        if (!at(s, p, ',')) break;
        p = skip_blanks(s, p + 1);
    }
    if (at(s, p, '}')) ++p;
    return true;
}

/// One JSON object per line: the text of its message key.
bool cut_json(std::string_view s, Line& line) noexcept {
    JsonText found;
    if (!read_json(s, found)) return false;
    line = found.header;
    for (const auto text : {found.message, found.template_text, found.log, found.error}) {
        if (text.empty()) continue;
        line.message = text;
        line.json = true;
        return true;
    }
    return false;
}

/// logfmt: the leading pairs that are header (time, level, caller, logger) are cut; the rest stays with its
/// keys.
bool cut_logfmt(std::string_view s, Line& line) noexcept {
    std::size_t p = 0;
    bool any = false;
    for (int field = 0; field < 8; ++field) {
        p = skip_blanks(s, p);
        const std::size_t key_start = p;
        while (p < s.size() && (is_alpha(s[p]) || s[p] == '_' || s[p] == '.' || s[p] == '@')) ++p;
        if (p == key_start || !at(s, p, '=') || p - key_start > 20)
            return any ? (line.message = s.substr(key_start), true) : false;
        const std::string_view key = s.substr(key_start, p - key_start);
        ++p;
        std::string_view value;
        if (at(s, p, '"')) {
            const std::size_t e = string_end(s.substr(0, max_header * 4), p + 1);
            if (e == std::string_view::npos) return any ? (line.message = s.substr(key_start), true) : false;
            value = s.substr(p + 1, e - p - 1);
            p = e + 1;
        } else {
            const std::size_t e = token_end(s, p);
            value = s.substr(p, e - p);
            p = e;
        }
        if (key == "time" || key == "ts" || key == "timestamp" || key == "t" || key == "date") {
            line.timestamp = value;
        } else if (key == "level" || key == "lvl" || key == "severity") {
            line.level = parse_level(value);
        } else if (key == "caller" || key == "logger" || key == "component" || key == "source" || key == "module") {
            line.component = value;
        } else if (key == "host" || key == "hostname") {
            line.host = value;
        } else if (key == "pid" || key == "thread") {
            line.process = value;
        } else {
            if (any) line.message = s.substr(key_start);
            return any;
        }
        any = true;
    }
    return any ? (line.message = s.substr(skip_blanks(s, p)), true) : false;
}

}  // namespace

bool read_json(std::string_view line, JsonText& ret) noexcept {
    std::size_t p = skip_blanks(line, 0);
    if (!at(line, p, '{') || !at(line, skip_blanks(line, p + 1), '"')) return false;
    int fields = 0;
    return read_object(line, p, ret, false, fields);
}

Line cut_header(std::string_view raw_line) noexcept {
    DigitWatch watch{raw_line};
    return cut_header(raw_line, watch);
}

Line cut_header(std::string_view raw_line, DigitWatch& watch) noexcept {
    Line line;
    while (!raw_line.empty() && is_space(raw_line.back())) raw_line.remove_suffix(1);
    line.message = raw_line;
    const std::size_t start = skip_blanks(raw_line, 0);
    std::string_view s = raw_line.substr(start);
    if (s.size() >= 3 && s.substr(0, 3) == "\xEF\xBB\xBF") s.remove_prefix(3);
    if (s.empty()) return line;
    line.message = s;
    if (s[0] == '{') {
        if (cut_json(s, line)) return line;
        line = Line{};
        line.message = s;
        return line;
    }
    if (cut_glog(s, line) || cut_brief(s, line) || cut_python(s, line)) return line;
    if (is_alpha(s[0]) && s.substr(0, 24).find('=') != std::string_view::npos) {
        if (cut_logfmt(s, line)) return line;
        line = Line{};
        line.message = s;
    }
    Cutter cutter{watch};
    cutter.s = s;
    // <PRI> of syslog, with the version of RFC 5424 behind it.
    if (s[0] == '<' && digits_at(s, 1) >= 1 && digits_at(s, 1) <= 3 && at(s, 1 + digits_at(s, 1), '>')) {
        const std::size_t n = digits_at(s, 1);
        if (n == 3) watch.saw(s.substr(1, n));
        int pri = 0;
        for (std::size_t i = 1; i <= n; ++i) pri = pri * 10 + (s[i] - '0');
        if (pri <= 191) {
            cutter.line.level = level_of_syslog(pri & 7);
            cutter.p = n + 2;
            if (digits_at(s, cutter.p) == 1 && at(s, cutter.p + 1, ' ')) watch.saw(s.data() + cutter.p);
            if (at(s, cutter.p, '1') && at(s, cutter.p + 1, ' ')) {
                // RFC 5424: time host app procid msgid structured-data text
                std::size_t q = cutter.p + 2;
                std::string_view f[5];
                for (auto& field : f) {
                    const std::size_t e = token_end(s, q);
                    field = s.substr(q, e - q);
                    q = skip_blanks(s, e);
                }
                if (!f[4].empty() && q < s.size() && (s[q] == '-' || s[q] == '[')) {
                    const auto given = [](std::string_view v) { return v == "-" ? std::string_view{} : v; };
                    line.level = cutter.line.level;
                    line.timestamp = given(f[0]);
                    line.host = given(f[1]);
                    line.component = given(f[2]);
                    line.process = given(f[3]);
                    while (at(s, q, '[')) {
                        const std::size_t e = structured_end(s, q);
                        if (e == 0) break;
                        q = e;
                    }
                    if (at(s, q, '-')) ++q;
                    q = skip_blanks(s, q);
                    if (s.substr(q, 3) == "\xEF\xBB\xBF") q += 3;
                    line.message = s.substr(q);
                    return line;
                }
            }
            cutter.s = s.substr(cutter.p);
            cutter.p = 0;
        }
    }
    // WARN[04-14|02:00:55.311]
    if (!cutter.s.empty() && is_upper(cutter.s[0])) {
        std::size_t n = 0;
        while (n < 9 && n < cutter.s.size() && is_upper(cutter.s[n])) ++n;
        if (n >= 4 && at(cutter.s, n, '[') && digits_at(cutter.s, n + 1) > 0) {
            if (const Level l = level_word(cutter.s.substr(0, n), false); l != Level::unknown) {
                Cutter inner{watch};
                inner.s = cutter.s.substr(n);
                if (inner.leading_timestamp()) {
                    cutter.s = inner.s;
                    cutter.line.level = l;
                }
            }
        }
    }
    if (!cutter.leading_timestamp()) {
        // No time: a level in capitals or in brackets, or the kernel's uptime, may still lead the line.
        cutter.p = 0;
        cutter.line.timestamp = {};
        if (cutter.more_timestamps()) {
            cutter.dated = true;
        } else {
            const std::size_t end = token_end(cutter.s, 0);
            const std::string_view token = cutter.s.substr(0, end);
            const std::string_view bare = Cutter::trim_marks(token);
            const bool marked = !token.empty() && (token.front() == '[' || token.front() == '<');
            Level l = level_word(bare, marked);
            // [ERROR/MainProcess]
            if (const std::size_t slash = bare.find('/');
                marked && slash != std::string_view::npos && token.front() == '[' && token.back() == ']')
                l = level_word(bare.substr(0, slash), false);
            if (l == Level::unknown || bare.size() < 3 ||
                (!marked && l == Level::info && token.back() != ':' && bare != "INFO")) {
                line.level = cutter.line.level;
                return line;
            }
            cutter.line.level = l;
            line = cutter.line;
            line.message = cutter.s.substr(skip_blanks(cutter.s, end));
            if (line.message.empty()) line.message = s;
            return line;
        }
    }
    cutter.fields();
    const std::size_t message = std::min(skip_blanks(cutter.s, cutter.p), cutter.s.size());
    line = cutter.line;
    line.message = cutter.s.substr(message);
    // A line that is only header keeps all its text.
    if (line.message.empty()) line.message = s;
    return line;
}

}  // namespace heal::fingerprint
