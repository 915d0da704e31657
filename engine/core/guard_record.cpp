#include "core/guard_record.hpp"

#include <algorithm>

namespace heal {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t max_facts = 1000;

json::value time_value(const std::optional<Time>& t) { return t ? json::value(t->us) : json::value(nullptr); }
std::optional<Time> time_of(const json::value& v) {
    return v.is_int64() ? std::optional<Time>{Time{v.get_int64()}} : std::nullopt;
}
json::value text(std::string_view s) {
    const bool ascii =
        std::all_of(s.begin(), s.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
    return ascii ? json::value(json::string_view{s.data(), s.size()}) : json::value(to_valid_utf8(s));
}
std::string text_of(const json::value& v) {
    return v.is_string() ? std::string{view(v.get_string())} : std::string{};
}
std::int64_t number_of(const json::value& v) { return v.is_int64() ? v.get_int64() : 0; }

/// Names of the limits with the places of their values; both directions read the same list.
template <class L, class Visit>
void each_limit(L& l, Visit visit) {
    visit("attempts_per_incident", l.attempts_per_incident);
    visit("target_per_hour", l.target_per_hour);
    visit("strategy_per_hour", l.strategy_per_hour);
    visit("service_per_hour", l.service_per_hour);
    visit("global_per_minute", l.global_per_minute);
    visit("budget_per_day", l.budget_per_day);
    visit("flap_high", l.flap_high);
    visit("flap_low", l.flap_low);
    visit("breaker_failures", l.breaker_failures);
    visit("healthy_acts", l.healthy_acts);
    visit("storm_targets", l.storm.targets);
    visit("cooldown_us", l.cooldown);
    visit("flap_window_us", l.flap_window);
    visit("breaker_pause_us", l.breaker_pause);
    visit("stable_for_us", l.stable_for);
    visit("repeat_after_us", l.repeat_after);
    visit("confirm_us", l.confirm);
}

struct WriteLimit {
    json::object& out;
    void operator()(const char* name, const unsigned& value) const {
        out[name] = static_cast<std::int64_t>(value);
    }
    template <class Rep, class Period>
    void operator()(const char* name, const std::chrono::duration<Rep, Period>& value) const {
        out[name] = std::chrono::duration_cast<Duration>(value).count();
    }
};
struct ReadLimit {
    const json::object& in;
    void operator()(const char* name, unsigned& value) const {
        value = static_cast<unsigned>(int_at(in, name));
    }
    template <class Rep, class Period>
    void operator()(const char* name, std::chrono::duration<Rep, Period>& value) const {
        value = std::chrono::duration_cast<std::chrono::duration<Rep, Period>>(Duration{int_at(in, name)});
    }
};

json::array fact_array(const AttemptFact& f) {
    return {
        text(f.attempt),
        text(f.event),
        text(f.fingerprint),
        text(f.target),
        text(f.strategy),
        f.started.us,
        time_value(f.ended),
        text(f.service),
        static_cast<std::int64_t>(f.risk),
        static_cast<std::int64_t>(f.result),
        text(f.build),
        f.undecided};
}

AttemptFact fact_of(const json::array& a) {
    AttemptFact f;
    f.attempt = text_of(a.at(0)), f.event = text_of(a.at(1)), f.fingerprint = text_of(a.at(2));
    f.target = text_of(a.at(3)), f.strategy = text_of(a.at(4));
    f.started = Time{number_of(a.at(5))};
    f.ended = time_of(a.at(6));
    f.service = text_of(a.at(7));
    f.risk = static_cast<Risk>(std::clamp<std::int64_t>(number_of(a.at(8)), 0, 2));
    f.result = static_cast<FactResult>(std::clamp<std::int64_t>(number_of(a.at(9)), 0, 3));
    f.build = text_of(a.at(10));
    f.undecided = a.size() > 11 && a.at(11).is_bool() && a.at(11).get_bool();
    return f;
}

/// Everything a decision needs when it is computed again.
struct Restored {
    Incident incident;
    Candidate candidate;
    Limits limits;
    History history;
    Episodes episodes;
    StormWatch::State storm;
    std::vector<Hold> holds;
    std::vector<WindowRule> windows;
    std::vector<std::string> forbidden;
    GuardInput in;
};

json::object with_reason(const Verdict& v) {
    return {{"guard", to_string(v.guard)}, {"reason", to_valid_utf8(v.reason)}};
}

}  // namespace

json::object guard_entry(const GuardInput& in, const GuardResult& outcome) {
    json::array stopped, overridden;
    for (const auto& v : outcome.verdicts) {
        if (v.overridden) overridden.push_back(with_reason(v));
        if (v.passed) continue;
        json::object item = with_reason(v);
        if (v.input_missing) item["input_missing"] = true;
        if (v.needs_approval) item["needs_approval"] = true;
        if (v.retry_at) item["retry_at"] = to_rfc3339(*v.retry_at);
        stopped.push_back(std::move(item));
    }
    json::object entry{
        {"strategy", in.candidate->info.name},
        {"at", to_rfc3339(in.now)},
        {"allowed", outcome.allowed()},
        {"approved", in.approved},
        {"asked", outcome.verdicts.size()},
        {"decided_by", outcome.allowed() ? "" : to_string(outcome.last().guard)},
        {"stopped", std::move(stopped)}};
    if (!overridden.empty()) entry["overridden"] = std::move(overridden);
    return entry;
}

GuardRecord guard_record(const GuardInput& in) {
    GuardRecord ret;
    const auto& incident = *in.incident;
    const auto& c = *in.candidate;
    json::object limits;
    each_limit(*in.limits, WriteLimit{limits});
    json::object out{
        {"now", in.now.us},
        {"incident",
         json::array{
             text(incident.id),
             text(incident.fingerprint),
             text(incident.service_name),
             text(incident.target),
             static_cast<std::int64_t>(incident.count)}},
        {"candidate",
         json::array{
             text(c.info.name),
             static_cast<std::int64_t>(c.info.risk),
             static_cast<std::int64_t>(c.autonomy),
             text(c.info.build)}},
        {"limits", std::move(limits)},
        {"approved", in.approved},
        {"break_glass", in.break_glass},
        {"max_auto_risk", static_cast<std::int64_t>(in.max_auto_risk)},
        {"attempts", static_cast<std::int64_t>(in.attempts_of_incident)}};
    if (in.paused) out["paused"] = json::array{*in.paused, text(in.pause_reason)};
    if (in.history) {
        auto& past = ret.history.emplace();
        for (const auto& f : in.history->facts()) {
            const bool concerns_it = !f.ended || f.target == incident.target || f.strategy == c.info.name ||
                                     f.service == incident.service_name || f.started + 1min > in.now;
            if (past.facts.size() > max_facts) break;
            if (concerns_it) {
                past.facts.push_back(f);
            } else if (f.started + 24h > in.now) {
                past.spent += budget_points(f.risk);
                past.since = std::min(past.since.value_or(f.started), f.started);
            }
        }
    }
    if (in.episodes) {
        json::array transitions;
        for (const auto t : in.episodes->transitions(incident.target)) transitions.push_back(t.us);
        out["transitions"] = std::move(transitions);
    }
    if (in.storm || in.storm_state) {
        const auto s = in.storm_state ? *in.storm_state : in.storm->state(in.now, in.limits->storm);
        out["storm"] = json::array{
            s.on,
            s.cooling,
            s.at_once ? json::value(static_cast<std::int64_t>(*s.at_once)) : json::value(nullptr),
            time_value(s.until),
            static_cast<std::int64_t>(s.targets)};
    }
    if (in.holds) {
        json::array holds;
        for (const auto& h : *in.holds) {
            if (!concerns(h, incident.service_name, c.info.name, in.now) &&
                !concerns(h, incident.target, c.info.name, in.now))
                continue;
            holds.push_back(json::array{
                static_cast<std::int64_t>(h.kind),
                static_cast<std::int64_t>(h.scope),
                text(h.name),
                text(h.reason),
                text(h.actor),
                h.starts.us,
                time_value(h.ends)});
        }
        out["holds"] = std::move(holds);
    }
    if (in.windows) {
        json::array windows;
        for (const auto& w : *in.windows) {
            auto until = open_until(w, incident.service_name, in.now);
            if (const auto other = open_until(w, incident.target, in.now); other && other > until)
                until = other;
            if (until)
                windows.push_back(json::array{static_cast<std::int64_t>(w.kind), until->us, text(w.reason)});
        }
        out["windows"] = std::move(windows);
    }
    if (in.health)
        out["health"] = json::array{
            static_cast<std::int64_t>(in.health->positive),
            static_cast<std::int64_t>(in.health->negative),
            time_value(in.health->ill_since)};
    if (in.groups) {
        json::array groups;
        for (const auto& g : *in.groups)
            groups.push_back(json::array{
                text(g.name),
                static_cast<std::int64_t>(g.members),
                static_cast<std::int64_t>(g.minimum),
                static_cast<std::int64_t>(g.healthy),
                static_cast<std::int64_t>(g.acting)});
        out["groups"] = std::move(groups);
    }
    if (in.dependencies) {
        json::array list;
        for (const auto& d : *in.dependencies) list.push_back(json::array{text(d.name), d.up, text(d.text)});
        out["dependencies"] = std::move(list);
    }
    const auto texts = [](const std::vector<std::string>& from) {
        json::array list;
        for (const auto& s : from) list.push_back(text(s));
        return list;
    };
    if (in.grants) out["grants"] = texts(*in.grants);
    if (in.forbidden) out["forbidden"] = texts(*in.forbidden);
    ret.rest = std::move(out);
    return ret;
}

json::value to_json(GuardRecord record) {
    if (record.history) {
        const auto& past = *record.history;
        if (past.facts.size() > max_facts) return nullptr;
        json::array facts;
        facts.reserve(past.facts.size());
        for (const auto& f : past.facts) facts.push_back(fact_array(f));
        record.rest["history"] = json::object{
            {"facts", std::move(facts)}, {"spent", past.spent}, {"since", time_value(past.since)}};
    }
    return json::value(std::move(record.rest));
}

json::object replay_guards(const json::object& o) {
    const auto& incident = array_at(o, "incident");
    const auto& candidate = array_at(o, "candidate");
    if (incident.size() != 5 || candidate.size() != 4) return {};
    Restored r;
    r.incident.id = text_of(incident[0]), r.incident.fingerprint = text_of(incident[1]);
    r.incident.service_name = text_of(incident[2]), r.incident.target = text_of(incident[3]);
    r.incident.count = static_cast<std::uint64_t>(number_of(incident[4]));
    r.candidate.info.name = text_of(candidate[0]);
    r.candidate.info.risk = static_cast<Risk>(std::clamp<std::int64_t>(number_of(candidate[1]), 0, 2));
    r.candidate.autonomy = static_cast<Autonomy>(std::clamp<std::int64_t>(number_of(candidate[2]), 0, 3));
    r.candidate.info.build = text_of(candidate[3]);
    each_limit(r.limits, ReadLimit{object_at(o, "limits")});
    auto& in = r.in;
    in.incident = &r.incident;
    in.candidate = &r.candidate;
    in.limits = &r.limits;
    in.now = Time{int_at(o, "now")};
    in.approved = bool_at(o, "approved");
    in.break_glass = bool_at(o, "break_glass");
    in.max_auto_risk = static_cast<Risk>(std::clamp<std::int64_t>(int_at(o, "max_auto_risk"), 0, 2));
    in.attempts_of_incident = static_cast<unsigned>(int_at(o, "attempts"));
    if (const auto& paused = array_at(o, "paused"); paused.size() == 2) {
        in.paused = paused[0].is_bool() && paused[0].get_bool();
        in.pause_reason = text_of(paused[1]);
    }
    if (o.contains("history")) {
        const auto& h = object_at(o, "history");
        for (const auto& f : array_at(h, "facts")) {
            // 11 before it was known whether an attempt is decided
            if (!f.is_array() || f.get_array().size() < 11 || f.get_array().size() > 12) return {};
            r.history.started(fact_of(f.get_array()));
        }
        in.spent_elsewhere = static_cast<std::uint64_t>(int_at(h, "spent"));
        if (const auto* since = h.if_contains("since")) in.spent_since = time_of(*since);
        in.history = &r.history;
    }
    if (o.contains("transitions")) {
        bool up = true;
        for (const auto& t : array_at(o, "transitions")) {
            up ? r.episodes.opened(r.incident.target, Time{number_of(t)})
               : r.episodes.closed(r.incident.target, Time{number_of(t)});
            up = !up;
        }
        in.episodes = &r.episodes;
    }
    if (const auto& s = array_at(o, "storm"); s.size() == 5) {
        r.storm.on = s[0].is_bool() && s[0].get_bool();
        r.storm.cooling = s[1].is_bool() && s[1].get_bool();
        if (s[2].is_int64()) r.storm.at_once = static_cast<unsigned>(s[2].get_int64());
        r.storm.until = time_of(s[3]);
        r.storm.targets = static_cast<std::size_t>(number_of(s[4]));
        in.storm_state = &r.storm;
    }
    if (o.contains("holds")) {
        for (const auto& item : array_at(o, "holds")) {
            const auto& a = item.as_array();
            Hold h;
            h.kind = static_cast<HoldKind>(std::clamp<std::int64_t>(number_of(a.at(0)), 0, 2));
            h.scope = static_cast<HoldScope>(std::clamp<std::int64_t>(number_of(a.at(1)), 0, 2));
            h.name = text_of(a.at(2)), h.reason = text_of(a.at(3)), h.actor = text_of(a.at(4));
            h.starts = Time{number_of(a.at(5))};
            h.ends = time_of(a.at(6));
            r.holds.push_back(std::move(h));
        }
        in.holds = &r.holds;
    }
    if (o.contains("windows")) {
        for (const auto& item : array_at(o, "windows")) {
            const auto& a = item.as_array();
            WindowRule w;
            w.kind = static_cast<HoldKind>(std::clamp<std::int64_t>(number_of(a.at(0)), 0, 2));
            w.from = in.now;
            w.until = Time{number_of(a.at(1))};
            w.reason = text_of(a.at(2));
            r.windows.push_back(std::move(w));
        }
        in.windows = &r.windows;
    }
    if (const auto& h = array_at(o, "health"); h.size() == 3)
        in.health = TargetHealth{
            static_cast<unsigned>(number_of(h[0])), static_cast<unsigned>(number_of(h[1])), time_of(h[2])};
    if (o.contains("groups")) {
        in.groups.emplace();
        for (const auto& item : array_at(o, "groups")) {
            const auto& a = item.as_array();
            in.groups->push_back(
                {text_of(a.at(0)),
                 static_cast<unsigned>(number_of(a.at(1))),
                 static_cast<unsigned>(number_of(a.at(2))),
                 static_cast<unsigned>(number_of(a.at(3))),
                 static_cast<unsigned>(number_of(a.at(4)))}
            );
        }
    }
    if (o.contains("dependencies")) {
        in.dependencies.emplace();
        for (const auto& item : array_at(o, "dependencies")) {
            const auto& a = item.as_array();
            in.dependencies->push_back(
                {text_of(a.at(0)), a.at(1).is_bool() && a.at(1).get_bool(), text_of(a.at(2))}
            );
        }
    }
    const auto texts = [&](const char* key) {
        std::vector<std::string> list;
        for (const auto& s : array_at(o, key)) list.push_back(text_of(s));
        return list;
    };
    if (o.contains("grants")) in.grants = texts("grants");
    if (o.contains("forbidden")) {
        r.forbidden = texts("forbidden");
        in.forbidden = &r.forbidden;
    }
    return guard_entry(in, evaluate_guards(in));
}

}  // namespace heal
