#include "core/triggers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace heal {
namespace {

using namespace std::chrono_literals;

constexpr std::array<const char*, 9> names = {
    "new", "threshold", "hysteresis", "rate", "severity", "regression", "sequence", "absence", "combination"};

constexpr std::int64_t hour_us = 3'600'000'000;
// Fewer days at the same hour say nothing about what is usual; then all hours known stand in for them.
constexpr std::size_t days_needed = 3, hours_needed = 12;
constexpr std::size_t max_snapshot = 1000;

bool governs(TriggerKind kind) {
    return kind != TriggerKind::sequence && kind != TriggerKind::absence && kind != TriggerKind::combination;
}

std::string value_of(const std::string& by, const Observation& what) {
    const auto& in = *what.incident;
    if (by == "fingerprint") return in.fingerprint;
    if (by == "service") return in.service_name;
    if (by == "environment") return in.environment;
    if (by == "host") return in.record.host;
    if (by == "component") return in.record.component;
    if (by == "release") return in.record.release;
    if (by == "error_type") return in.record.error_type;
    if (by.starts_with("label:")) {
        const auto parsed = parse_json(in.record.context.empty() ? "{}" : in.record.context, "context");
        if (!parsed || !parsed->is_object()) return {};
        const auto* v = parsed->get_object().if_contains(std::string_view{by}.substr(6));
        if (!v) return {};
        return v->is_string() ? std::string{view(v->get_string())} : json::serialize(*v);
    }
    return {};
}

std::string group_of(const TriggerSpec& spec, const Observation& what) {
    std::string out;
    for (const auto& by : spec.by) {
        if (!out.empty()) out += ' ';
        out += by + "=" + value_of(by, what).substr(0, 200);
    }
    return out;
}

std::string words(Duration d) {
    const auto s = d.count() / 1'000'000;
    if (s >= 3600 && s % 3600 == 0) return fmt::format("{} h", s / 3600);
    if (s >= 60 && s % 60 == 0) return fmt::format("{} min", s / 60);
    return fmt::format("{} s", s);
}

}  // namespace

const char* to_string(TriggerKind kind) noexcept { return names[static_cast<std::size_t>(kind)]; }

bool parse_trigger_kind(std::string_view word, TriggerKind& ret) noexcept {
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (word == names[i]) return ret = static_cast<TriggerKind>(i), true;
    }
    return false;
}

Triggers::Triggers(std::vector<TriggerSpec> specs, std::size_t limit) : specs_(std::move(specs)) {
    states_.reserve(specs_.size());
    for (std::size_t i = 0; i < specs_.size(); ++i) states_.emplace_back(limit);
}

bool Triggers::uses(TriggerKind kind) const {
    return std::any_of(specs_.begin(), specs_.end(), [&](const TriggerSpec& s) { return s.kind == kind; });
}

std::pair<double, double> Triggers::median_mad(std::vector<double> values) {
    if (values.empty()) return {0, 0};
    const auto median = [](std::vector<double>& v) {
        const auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
        std::nth_element(v.begin(), middle, v.end());
        if (v.size() % 2 == 1) return *middle;
        return (*middle + *std::max_element(v.begin(), middle)) / 2;
    };
    const double m = median(values);
    for (auto& v : values) v = std::abs(v - m);
    return {m, 1.4826 * median(values)};
}

Triggers::Group& Triggers::group(std::size_t index, const std::string& name, const Incident& in) {
    auto& state = states_[index];
    const auto& spec = specs_[index];
    auto& g = state.groups.touch(key_of_text(name), [&](const Group&) { ++state.forgotten; });
    if (g.last.us == 0 && g.due.us == 0 && g.name.empty()) {
        g.name = name;
        g.window = SlidingCount{std::max(spec.within, spec.clear_within)};
        if (spec.kind == TriggerKind::combination) g.members.assign(spec.of.size(), Time{0});
    }
    g.service = in.service_name;
    g.environment = in.environment;
    return g;
}

void Triggers::count_hour(Group& g, Time now, std::uint64_t count) {
    const std::int64_t hour = now.us / hour_us;
    if (g.hours.empty()) {
        g.hours.assign(hours_kept, 0);
        g.hour = g.first_hour = hour;
    }
    if (hour < g.hour - hours_kept + 1) return;  // too old to matter
    for (; g.hour < hour && hour - g.hour < hours_kept; ++g.hour)
        g.hours[static_cast<std::size_t>((g.hour + 1) % hours_kept)] = 0;
    if (g.hour < hour) {
        std::fill(g.hours.begin(), g.hours.end(), 0U);
        g.hour = hour;
    }
    g.first_hour = std::min(g.first_hour, hour);
    auto& slot = g.hours[static_cast<std::size_t>(hour % hours_kept)];
    slot = static_cast<std::uint32_t>(std::min<std::uint64_t>(slot + count, UINT32_MAX));
}

bool Triggers::above_usual(const TriggerSpec& spec, Group& g, Time now, std::string& ret_reason) {
    const std::int64_t hour = now.us / hour_us;
    const auto at = [&](std::int64_t h) {
        return static_cast<double>(g.hours[static_cast<std::size_t>(h % hours_kept)]);
    };
    const std::int64_t oldest = std::max(g.first_hour, g.hour - hours_kept + 1);
    std::vector<double> usual;
    for (std::int64_t h = hour - 24; h >= oldest; h -= 24) usual.push_back(at(h));
    bool seasonal = usual.size() >= days_needed;
    if (!seasonal) {
        usual.clear();
        for (std::int64_t h = hour - 1; h >= oldest; --h) usual.push_back(at(h));
        if (usual.size() < hours_needed) return false;  // nothing is known yet
    }
    const auto [median, deviation] = median_mad(usual);
    const double share = static_cast<double>(spec.within.count()) / static_cast<double>(hour_us);
    // Counts scatter by at least their root, however calm the days before were.
    const double expected = median * share;
    const double scatter = std::max({deviation * share, std::sqrt(expected), 1.0});
    const auto heard = g.window.count(now, spec.within);
    if (heard < spec.count || static_cast<double>(heard) < expected + spec.factor * scatter) return false;
    ret_reason = fmt::format(
        "{} within {}, usual {} are {:.1f} (deviation {:.1f})",
        heard,
        words(spec.within),
        seasonal ? "at this hour" : "in all hours known",
        expected,
        scatter
    );
    return true;
}

void Triggers::fire(std::size_t index, Group& g, std::string reason, Time now, std::vector<Fired>& fired) {
    ++states_[index].fired;
    Fired f;
    f.trigger = specs_[index].name;
    f.group = g.name;
    f.reason = std::move(reason);
    f.service = g.service;
    f.environment = g.environment;
    f.severity = specs_[index].severity;
    fired.push_back(f);
    combine(index, f, now, fired);
}

void Triggers::clear(std::size_t index, Group& g, std::vector<Fired>& fired) {
    const auto& spec = specs_[index];
    ++states_[index].cleared;
    g.raised = false;
    Fired f;
    f.trigger = spec.name;
    f.group = g.name;
    f.reason = fmt::format("fewer than {} within {}", spec.clear_count, words(spec.clear_within));
    f.service = g.service;
    f.environment = g.environment;
    f.cleared = true;
    fired.push_back(std::move(f));
}

void Triggers::combine(std::size_t member, const Fired& what, Time now, std::vector<Fired>& fired) {
    for (std::size_t i = 0; i < specs_.size(); ++i) {
        const auto& spec = specs_[i];
        if (spec.kind != TriggerKind::combination) continue;
        const auto place = std::find(spec.of.begin(), spec.of.end(), specs_[member].name);
        if (place == spec.of.end()) continue;
        Incident in;
        in.service_name = what.service;
        in.environment = what.environment;
        Observation seen;
        seen.incident = &in;
        auto& g = group(i, group_of(spec, seen), in);
        g.last = now;
        g.members[static_cast<std::size_t>(place - spec.of.begin())] = now;
        ++states_[i].matched;
        const auto recent = std::count_if(g.members.begin(), g.members.end(), [&](Time t) {
            return t.us > 0 && t + spec.within > now;
        });
        const auto need = spec.need > 0 ? spec.need : spec.of.size();
        if (static_cast<std::size_t>(recent) < need) continue;
        std::fill(g.members.begin(), g.members.end(), Time{0});
        // A combination never names another one (checked where it is read), so this ends.
        ++states_[i].fired;
        fired.push_back(
            {spec.name,
             g.name,
             fmt::format("{} of {} triggers within {}", recent, spec.of.size(), words(spec.within)),
             what.service,
             what.environment,
             spec.severity,
             false}
        );
    }
}

void Triggers::heard(std::size_t index, const Observation& what, Time now, bool quiet, Answer& answer) {
    const auto& spec = specs_[index];
    auto& state = states_[index];
    static const json::object nothing;
    const auto& target = what.target ? *what.target : nothing;
    const bool sequence = spec.kind == TriggerKind::sequence;
    const bool fits = spec.when.fits(*what.incident, target).has_value();
    if (sequence && !quiet && spec.then.fits(*what.incident, target)) {
        // Only what comes after an A counts; a B of its own changes nothing.
        if (auto* g = state.groups.find(key_of_text(group_of(spec, what)))) g->due = Time{0};
    }
    if (!fits) return;
    state.matched += quiet ? 0 : what.count;
    answer.governed = answer.governed || governs(spec.kind);
    std::string reason;
    switch (spec.kind) {
        case TriggerKind::fresh:
        case TriggerKind::severity:
        case TriggerKind::regression: {
            if (quiet) return;
            const bool is = spec.kind == TriggerKind::fresh      ? what.is_new
                            : spec.kind == TriggerKind::severity ? what.severity <= spec.at_least
                                                                 : what.was_fixed;
            if (!is) return;
            Group g;
            g.name = group_of(spec, what);
            g.service = what.incident->service_name;
            g.environment = what.incident->environment;
            return fire(
                index,
                g,
                spec.kind == TriggerKind::fresh      ? "never heard before"
                : spec.kind == TriggerKind::severity ? fmt::format("it is {}", to_string(what.severity))
                                                     : "it was said to be fixed",
                now,
                answer.fired
            );
        }
        case TriggerKind::threshold: {
            auto& g = group(index, group_of(spec, what), *what.incident);
            g.last = now;
            g.window.add(now, what.count);
            const auto n = g.window.count(now, spec.within);
            if (quiet || n < spec.count) return;
            g.window = SlidingCount{spec.within};  // counts anew
            return fire(index, g, fmt::format("{} within {}", n, words(spec.within)), now, answer.fired);
        }
        case TriggerKind::hysteresis: {
            auto& g = group(index, group_of(spec, what), *what.incident);
            g.last = now;
            g.window.add(now, what.count);
            const auto n = g.window.count(now, spec.within);
            if (quiet || g.raised || n < spec.count) return;
            g.raised = true;
            return fire(index, g, fmt::format("{} within {}", n, words(spec.within)), now, answer.fired);
        }
        case TriggerKind::rate: {
            auto& g = group(index, group_of(spec, what), *what.incident);
            g.last = now;
            g.window.add(now, what.count);
            count_hour(g, now, what.count);
            if (quiet || !above_usual(spec, g, now, reason)) return;
            g.window = SlidingCount{spec.within};
            return fire(index, g, std::move(reason), now, answer.fired);
        }
        case TriggerKind::sequence: {
            if (quiet) return;
            auto& g = group(index, group_of(spec, what), *what.incident);
            g.last = now;
            if (g.due.us == 0) g.due = now + spec.within;
            state.next = state.next.us == 0 ? g.due : std::min(state.next, g.due);
            return;
        }
        case TriggerKind::absence: {
            auto& g = group(index, group_of(spec, what), *what.incident);
            g.last = std::max(g.last, now);
            g.raised = false;
            g.due = g.last + spec.within;
            state.next = state.next.us == 0 ? g.due : std::min(state.next, g.due);
            return;
        }
        case TriggerKind::combination:
            return;
    }
}

Triggers::Answer Triggers::observe(const Observation& what, Time now) {
    Answer answer;
    for (std::size_t i = 0; i < specs_.size(); ++i) heard(i, what, now, false, answer);
    return answer;
}

void Triggers::restore(const Observation& what, Time at) {
    Answer ignored;
    for (std::size_t i = 0; i < specs_.size(); ++i) heard(i, what, at, true, ignored);
}

void Triggers::begin(Time now) {
    for (std::size_t i = 0; i < specs_.size(); ++i) {
        const auto& spec = specs_[i];
        if (spec.kind != TriggerKind::absence || spec.service.empty() || states_[i].groups.size() > 0)
            continue;
        Incident in;
        in.service_name = in.record.service_name = spec.service;
        in.environment = in.record.environment = spec.environment;
        Observation seen;
        seen.incident = &in;
        auto& g = group(i, group_of(spec, seen), in);
        g.last = now;
        g.due = now + spec.within;
        states_[i].next = g.due;
    }
}

std::vector<Fired> Triggers::tick(Time now) {
    std::vector<Fired> fired;
    for (std::size_t i = 0; i < specs_.size(); ++i) {
        const auto& spec = specs_[i];
        auto& state = states_[i];
        if (spec.kind == TriggerKind::hysteresis) {
            // A raised group is cleared by silence too; looked at once a second.
            if (now - ticked_ < 1s) continue;
            state.groups.each([&](Group& g) {
                if (g.raised && g.window.count(now, spec.clear_within) < spec.clear_count) clear(i, g, fired);
            });
        }
        if (spec.kind != TriggerKind::sequence && spec.kind != TriggerKind::absence) continue;
        if (state.next.us == 0 || now < state.next) continue;
        state.next = Time{0};
        state.groups.each([&](Group& g) {
            if (g.due.us == 0) return;
            if (g.due > now) {
                state.next = state.next.us == 0 ? g.due : std::min(state.next, g.due);
                return;
            }
            g.due = Time{0};
            g.raised = spec.kind == TriggerKind::absence;
            fire(
                i,
                g,
                spec.kind == TriggerKind::absence ? fmt::format("not heard for {}", words(spec.within))
                                                  : fmt::format("not followed within {}", words(spec.within)),
                now,
                fired
            );
        });
    }
    if (now - ticked_ >= 1s) ticked_ = now;
    return fired;
}

Triggers::Account Triggers::account(std::size_t index) const {
    const auto& s = states_[index];
    return {s.matched, s.fired, s.cleared, s.forgotten, s.groups.size()};
}

json::object Triggers::snapshot() const {
    json::object out;
    for (std::size_t i = 0; i < specs_.size(); ++i) {
        json::array groups;
        states_[i].groups.each([&](const Group& g) {
            const bool timed =
                specs_[i].kind == TriggerKind::sequence || specs_[i].kind == TriggerKind::absence;
            if ((!g.raised && !timed) || groups.size() >= max_snapshot) return;
            groups.push_back(json::object{
                {"group", to_valid_utf8(g.name)},
                {"service", to_valid_utf8(g.service)},
                {"environment", to_valid_utf8(g.environment)},
                {"raised", g.raised},
                {"last_us", g.last.us},
                {"due_us", g.due.us}});
        });
        if (!groups.empty()) out[specs_[i].name] = std::move(groups);
    }
    return out;
}

void Triggers::restore_snapshot(const json::object& snapshot) {
    for (std::size_t i = 0; i < specs_.size(); ++i) {
        for (const auto& item : array_at(snapshot, specs_[i].name)) {
            if (!item.is_object()) continue;
            const auto& o = item.get_object();
            Incident in;
            in.service_name = std::string{string_at(o, "service")};
            in.environment = std::string{string_at(o, "environment")};
            auto& g = group(i, std::string{string_at(o, "group")}, in);
            g.raised = bool_at(o, "raised");
            g.last = std::max(g.last, Time{int_at(o, "last_us")});
            g.due = Time{int_at(o, "due_us")};
            if (specs_[i].kind == TriggerKind::absence && !g.raised) g.due = g.last + specs_[i].within;
            if (g.due.us > 0)
                states_[i].next = states_[i].next.us == 0 ? g.due : std::min(states_[i].next, g.due);
        }
    }
}

}  // namespace heal
