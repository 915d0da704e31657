#include "core/rules.hpp"

#include <algorithm>
#include <array>

namespace heal {
namespace {

bool contains_word(std::string_view text, std::string_view lower_needle) {
    const auto same = [](char a, char b) {
        return (a >= 'A' && a <= 'Z' ? static_cast<char>(a + 32) : a) == b;
    };
    return std::search(text.begin(), text.end(), lower_needle.begin(), lower_needle.end(), same) !=
           text.end();
}

bool any_of(std::string_view text, std::initializer_list<std::string_view> needles) {
    return std::any_of(needles.begin(), needles.end(), [&](std::string_view n) {
        return contains_word(text, n);
    });
}

bool is_database_error(const LogRecord& r) {
    return r.error_type == "database_error" ||
           any_of(
               r.error_type,
               {"sqlexception",
                "operationalerror",
                "psqlexception",
                "databaseerror",
                "sqlstate",
                "integrityerror",
                "mysqlerror"}
           ) ||
           any_of(
               r.message,
               {"sqlstate[",
                "database error",
                "deadlock detected",
                "could not connect to database",
                "database is locked"}
           );
}

}  // namespace

void SlidingCount::add(Time at, std::uint64_t count) {
    const Duration grain = window_ / 64;
    auto kept = entries_.begin();
    while (kept != entries_.end() && kept->at + window_ <= at) ++kept;
    entries_.erase(entries_.begin(), kept);
    if (!entries_.empty() && at < entries_.back().at) {
        // Late: fold into the entry at or after its own time, so that it leaves the window no later than it
        // should.
        const auto it =
            std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.at >= at; });
        it->count += count;
        return;
    }
    if (!entries_.empty() && entries_.size() >= 128) {
        entries_.back().count += count;
        return;
    }
    // Few occurrences keep their own time (thresholds are exact); many share one.
    if (!entries_.empty() && entries_.size() > 32 && at - entries_.back().at < grain)
        entries_.back().count += count;
    else
        entries_.push_back({at, count});
}

std::uint64_t SlidingCount::count(Time now, Duration within) const {
    std::uint64_t sum = 0;
    for (const auto& entry : entries_) {
        if (entry.at + within > now && entry.at <= now) sum += entry.count;
    }
    return sum;
}

std::string opens_at_once(const LogRecord& r) {
    if (r.level == Level::fatal) return "fatal";
    if (r.error_type == "panic" || r.message.starts_with("panic:") ||
        contains_word(r.message, "kernel panic"))
        return "panic";
    if (is_database_error(r)) return "database_error";
    if (r.http_status >= 500 && r.http_status <= 599) return "http_5xx";
    return {};
}

Severity severity_of(const LogRecord& r, std::uint64_t per_hour) {
    // Impact first: what opens a bug at once is major; a whole process lost is critical. Frequency raises by
    // one step: 100 per hour is one every 36 s, the rate at which a person would call it an outage.
    Severity severity = Severity::p2_minor;
    const auto why = opens_at_once(r);
    if (why == "fatal" || why == "panic")
        severity = Severity::p0_critical;
    else if (!why.empty())
        severity = Severity::p1_major;
    else if (r.level < Level::error && r.level != Level::unknown)
        severity = Severity::p3_trivial;
    if (per_hour >= 100 && severity != Severity::p0_critical)
        severity = static_cast<Severity>(static_cast<int>(severity) - 1);
    return severity;
}

std::string bug_type_of(const LogRecord& r) {
    const std::string all = r.error_type + ' ' + r.message.substr(0, 500);
    if (any_of(
            all,
            {"nullpointer",
             "null pointer",
             "nonetype",
             "undefined is not",
             "of undefined",
             "of null",
             "nil pointer",
             "nullreference"}
        )) {
        return "null_pointer";
    }
    if (is_database_error(r)) return "sql_error";
    if (any_of(
            all,
            {"out of memory",
             "outofmemory",
             "no space left",
             "enospc",
             "too many open files",
             "memoryerror",
             "oom",
             "quota exceeded"}
        )) {
        return "resource";
    }
    if (any_of(
            all,
            {"connection refused",
             "econnrefused",
             "connection reset",
             "unreachable",
             "getaddrinfo",
             "broken pipe",
             "tls",
             "dns"}
        )) {
        return "network";
    }
    if (any_of(all, {"timed out", "timeout", "deadline exceeded", "slow query"})) return "performance";
    if (any_of(
            all,
            {"config",
             "invalid parameter",
             "unknown directive",
             "environment variable",
             "missing key",
             "yaml",
             "no such file"}
        )) {
        return "config";
    }
    if (any_of(all, {"sigsegv", "segmentation fault", "sigabrt", "core dumped", "panic"})) return "crash";
    return "logic_bug";
}

std::string title_of(const LogRecord& r) {
    std::string title = r.message.substr(0, r.message.find('\n'));
    if (!r.error_type.empty() && title.find(r.error_type) == std::string::npos)
        title = r.error_type + ": " + title;
    if (title.size() > 200) {
        std::size_t cut = 200;
        while (cut > 0 && (static_cast<unsigned char>(title[cut]) & 0xC0U) == 0x80U)
            --cut;  // not within a UTF-8 character
        title.resize(cut);
    }
    return title.empty() ? "error without a message" : title;
}

}  // namespace heal
