#include "base/id.hpp"
#include "base/log.hpp"
#include "core/decision.hpp"
#include "core/recent.hpp"
#include "service/healer_impl.hpp"
#include "service/own_incident.hpp"
#include "service/trust.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace heal {

using namespace std::chrono_literals;

namespace {
/// A strategy's assess is a question, not an action; a round trip takes 40-60 µs (./dev bench runner).
constexpr std::chrono::milliseconds assess_timeout{1000};
/// Who resolves targets may look around (files, ports), and errors wait for it.
constexpr std::chrono::milliseconds resolve_timeout{2000};

/// A question's effects are looks, which nobody needs on record.
class NoLedger final : public EffectLedger {
public:
    asio::awaitable<result<void>> begin(Effect) override { co_return result<void>{}; }
    void end(EffectResult) override {}
    void log(Level level, std::string message, json::object, double) override {
        if (level >= Level::warn) log::warn("a resolver of targets: {}", to_valid_utf8(message));
    }
};
}  // namespace

asio::awaitable<void> HealerImpl::resolve_target(Run& run) {
    auto& in = run.incident;
    const auto* entry = s_.strategies.find(run.resolver);
    std::string why;
    if (!entry || !entry->refused.empty() || !entry->enabled) {
        why = "it is not loaded";
    } else {
        StrategyCall call;
        call.strategy = entry->info.name;
        call.attempt = new_id(s_.clock);
        call.request = json::object{
            {"attempt", call.attempt},
            {"incident", to_json(in)},
            {"target", run.target},
            {"config", s_.strategies.candidate(*entry).config},
            {"dry_run", true}};
        for (const auto& declared : entry->info.capabilities) {
            for (auto& grant : expand_capability(declared, run.target))
                call.grants.push_back(std::move(grant));
        }
        call.dry_run = true;  // it may look, never change
        call.timeout = std::min(resolve_timeout, entry->info.timeout);
        NoLedger ledger;
        const auto reply = co_await s_.runner.execute(std::move(call), ledger);
        const std::string name{string_at(reply.detail, "target")};
        if (reply.outcome != Outcome::succeeded)
            why = fmt::format("{}: {}", to_string(reply.outcome), reply.text);
        else if (!s_.settings->targets.knows(name, in.environment))
            why = fmt::format("it says '{}', which the inventory does not have", name);
        else
            aim(run, name);
    }
    if (!why.empty())
        log::warn(
            "'{}' did not say what event {} is about, so it is about '{}': {}",
            run.resolver,
            in.id,
            in.target,
            to_valid_utf8(why)
        );
    describe_target(run);
    run.unranked = s_.strategies.fitting(in, run.target, [&](Duration) { return in.count; });
    if (!s_.cluster)  // else its row is made with the claim
        submit("target", [id = in.id, target = in.target, now = s_.clock.wall()](Database& db) {
            return sql::set_event_target(db, id, target, now);
        });
}

/// Assesses those that want to be asked, moves the confidence by what was learned, ranks.
asio::awaitable<void> HealerImpl::rank_candidates(Run& run) {
    auto& candidates = run.unranked;
    std::map<std::string, std::vector<std::size_t>> by_artifact;
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        if (candidates[i].info.has_assess) by_artifact[candidates[i].info.artifact].push_back(i);
    }
    for (const auto& [artifact, indices] : by_artifact) {
        std::vector<StrategyCall> calls;
        for (const auto i : indices) calls.push_back(make_call(run, candidates[i], "", assess_timeout, true));
        auto replies = co_await s_.runner.assess(std::move(calls));
        for (std::size_t k = 0; k < indices.size() && k < replies.size(); ++k) {
            auto& c = candidates[indices[k]];
            if (replies[k].outcome == Outcome::succeeded)
                c.prior = std::clamp(replies[k].confidence, 0.0, 1.0);
            else
                c.note =
                    "its assess said no: " +
                    (replies[k].text.empty() ? std::string{to_string(replies[k].outcome)} : replies[k].text);
        }
    }
    const Time now = s_.clock.wall();
    const std::string trusted_for = error_class(run.incident.record);
    for (auto& c : candidates) {
        if (s_.trust) c.autonomy = s_.trust->limit(c.info.name, trusted_for, c.autonomy);
        c.learned = book_.learned(c.info.name, run.incident.fingerprint, run.incident.service_name, now);
        const auto counts = book_.of(c.info.name, run.incident.fingerprint, now);
        c.successes = static_cast<std::uint64_t>(counts.successes + 0.5);
        c.failures = static_cast<std::uint64_t>(counts.failures + 0.5);
    }
    std::vector<std::string> excluded;
    const auto it = excluded_.find(key_of(run.incident.fingerprint, run.incident.environment));
    if (it != excluded_.end()) excluded.push_back(it->second);
    run.ranking_input = decision_input(candidates, excluded, explored(run));
    run.ranking = decide(run.ranking_input);
    run.explained = false;
    apply_decision(run.ranking, candidates);
}

/// Now and then what little is known of goes first, so that it can become known: only among equals, only what
/// may act by itself, and only so many a day.
std::string HealerImpl::explored(const Run& run) {
    const auto& s = *s_.settings;
    if (s.explore_percent == 0 || key_of_text(run.incident.id + "explore") % 100 >= s.explore_percent)
        return {};
    const Time now = s_.clock.wall();
    while (!explorations_.empty() && explorations_.front() + 24h <= now) explorations_.pop_front();
    if (explorations_.size() >= s.explore_per_day) return {};
    const Candidate *best = nullptr, *least = nullptr;
    const auto known = [](const Candidate& c) {
        return c.learned.empty() ? 0.0 : c.learned.back().good + c.learned.back().bad;
    };
    for (const auto& c : run.unranked) {
        if (c.note.empty() && (!best || c.priority > best->priority)) best = &c;
    }
    for (const auto& c : run.unranked) {
        if (!c.note.empty() || c.priority != best->priority || c.autonomy != Autonomy::automatic ||
            c.info.risk > s.max_auto_risk || known(c) >= OutcomeBook::prior_weight)
            continue;
        if (!least || known(c) < known(*least)) least = &c;
    }
    if (!least) return {};
    explorations_.push_back(now);
    return least->info.name;
}

namespace {

/// With what they follow from, so many of the newest verdicts are kept.
constexpr std::size_t records_kept = 8, verdicts_kept = 50;

/// What the newest verdict follows from gets its place beside it.
void write_record(Run& run) {
    if (!run.record) return;
    run.verdicts.back().as_object()["record"] = to_json(std::move(*run.record));
    run.record.reset();
}

/// Repeated looks at the same obstacle (a lock, a pause) are one entry with the newest time.
void note_verdicts(Run& run, const GuardInput& in, const GuardResult& outcome) {
    json::object entry = guard_entry(in, outcome);
    std::int64_t times = 1;
    if (!run.verdicts.empty()) {
        const auto& last = run.verdicts.back().get_object();
        if (string_at(last, "strategy") == string_at(entry, "strategy") &&
            string_at(last, "decided_by") == string_at(entry, "decided_by") && !outcome.allowed()) {
            times = int_at(last, "times", 1) + 1;
            run.verdicts.pop_back();
            run.record.reset();
        }
    }
    write_record(run);
    entry["times"] = times;
    run.verdicts.push_back(std::move(entry));
    run.record = guard_record(in);
    run.explained = false;
    if (run.verdicts.size() > records_kept)
        run.verdicts[run.verdicts.size() - 1 - records_kept].as_object().erase("record");
    if (run.verdicts.size() > verdicts_kept) run.verdicts.erase(run.verdicts.begin());
}

}  // namespace

std::string HealerImpl::decision_json(Run& run) const {
    write_record(run);
    json::array candidates;
    int place = 0;
    for (const auto& c : run.machine->candidates()) {
        candidates.push_back(json::object{
            {"rank", ++place},
            {"strategy", c.info.name},
            {"version", c.info.version},
            {"priority", c.priority},
            {"prior", c.prior},
            {"confidence", c.confidence},
            {"floor", c.floor},
            {"successes", c.successes},
            {"failures", c.failures},
            {"autonomy", to_string(c.autonomy)},
            {"risk", to_string(c.info.risk)},
            {"note", c.note}});
    }
    // Put together from its parts: verdicts with what they follow from may be long, and a copy of them
    // longer.
    return fmt::format(
        R"({{"candidates":{},"verdicts":{},"input":{},"output":{}}})",
        json::serialize(candidates),
        json::serialize(run.verdicts),
        json::serialize(run.ranking_input),
        json::serialize(run.ranking)
    );
}

void HealerImpl::explain(Run& run) {
    if (std::exchange(run.explained, true)) return;
    submit(
        "decision",
        [id = run.incident.id, decision = decision_json(run), now = s_.clock.wall()](Database& db) {
            return sql::set_event_decision(db, id, decision, now);
        }
    );
}

bool HealerImpl::must_look_around(const Run& run, const Candidate& candidate) const {
    if (!run.probes.empty() && candidate.info.risk != Risk::safe) return true;
    const auto* service = s_.service(run.incident.target, run.incident.environment);
    if (!service) return false;
    if (!service->depends_on.empty()) return true;
    return std::any_of(s_.settings->groups.begin(), s_.settings->groups.end(), [&](const GroupSettings& g) {
        return std::find(g.services.begin(), g.services.end(), service->name) != g.services.end();
    });
}

asio::awaitable<void> HealerImpl::look_around(Run& run) {
    const auto settings = s_.settings;
    const auto* own = s_.service(run.incident.target, run.incident.environment);
    // One look at each service that matters; those without a probe are known by their incidents alone.
    std::map<std::string, std::pair<std::size_t, std::size_t>> spans;
    std::vector<ProbeSettings> probes;
    const auto want = [&](const std::string& name) {
        if (spans.contains(name)) return;
        const auto* service = s_.service(name, run.incident.environment);
        const std::size_t first = probes.size();
        if (service) probes.insert(probes.end(), service->probes.begin(), service->probes.end());
        spans[name] = {first, probes.size()};
    };
    const bool own_health = own && !run.probes.empty();
    if (own) {
        if (own_health) want(own->name);
        for (const auto& name : own->depends_on) want(name);
        for (const auto& name : dependants_of(own->name)) want(name);
        for (const auto& group : settings->groups) {
            if (std::find(group.services.begin(), group.services.end(), own->name) == group.services.end())
                continue;
            for (const auto& name : group.services) want(name);
        }
    }
    const Time began = s_.clock.wall();
    const Evidence evidence = co_await s_.prober.check(probes);
    const auto state = [&](const std::string& name) -> std::pair<bool, std::string> {
        const auto [first, last] = spans.at(name);
        for (std::size_t i = first; i < last; ++i) {
            const auto& item = evidence.items.at(i).get_object();
            if (!bool_at(item, "ok"))
                return {false, fmt::format("{}: {}", string_at(item, "source"), string_at(item, "text"))};
        }
        if (first < last) return {true, {}};
        if (on_target_.contains(name)) return {false, "it has an open incident"};
        return {true, {}};
    };
    std::vector<DependencyHealth> dependencies;
    std::vector<GroupHealth> groups;
    if (own) {
        for (const auto& name : own->depends_on) {
            const auto [up, text] = state(name);
            dependencies.push_back({name, up, text});
        }
        for (const auto& group : settings->groups) {
            if (std::find(group.services.begin(), group.services.end(), own->name) == group.services.end())
                continue;
            GroupHealth health{
                group.name, static_cast<unsigned>(group.services.size()), group.minimum(), 0, 0};
            for (const auto& name : group.services) {
                if (name == own->name) continue;
                const bool acting =
                    std::any_of(history_.facts().begin(), history_.facts().end(), [&](const AttemptFact& f) {
                        return !f.ended && f.target == name;
                    });
                health.acting += acting;
                health.healthy += !acting && state(name).first;
            }
            groups.push_back(std::move(health));
        }
    }
    TargetHealth health;
    if (own_health) {
        const auto [first, last] = spans.at(own->name);
        for (std::size_t i = first; i < last; ++i)
            (bool_at(evidence.items.at(i).get_object(), "ok") ? health.positive : health.negative) += 1;
    }
    if (health.negative == 0)
        run.ill_since.reset();
    else if (!run.ill_since)
        run.ill_since = began;
    health.ill_since = run.ill_since;
    run.health = health;
    run.well_before.clear();
    if (own) {
        for (const auto& name : dependants_of(own->name)) {
            const auto [first, last] = spans.at(name);
            if (first < last && state(name).first) run.well_before.push_back(name);
        }
    }
    for (const auto& d : dependencies) {
        if (!d.up) open_dependency(run, d);
    }
    run.dependencies = std::move(dependencies);
    run.groups = std::move(groups);
}

std::vector<std::string> HealerImpl::dependants_of(const std::string& name) const {
    std::vector<std::string> out;
    for (const auto& service : s_.settings->services) {
        if (std::find(service.depends_on.begin(), service.depends_on.end(), name) != service.depends_on.end())
            out.push_back(service.name);
    }
    return out;
}

asio::awaitable<void> HealerImpl::look_for_worse(Run& run) {
    std::vector<ProbeSettings> probes;
    std::vector<std::string> names;
    for (const auto& name : run.well_before) {
        const auto* service = s_.service(name, run.incident.environment);
        if (!service) continue;
        probes.insert(probes.end(), service->probes.begin(), service->probes.end());
        names.insert(names.end(), service->probes.size(), name);
    }
    run.well_before.clear();
    if (probes.empty() || run.dry_run) co_return;
    const Evidence seen = co_await s_.prober.check(std::move(probes));
    for (std::size_t i = 0; i < names.size() && i < seen.items.size(); ++i) {
        const auto& item = seen.items[i].get_object();
        if (bool_at(item, "ok")) continue;
        const auto& c = run.call.strategy;
        harmed(
            {run.attempt,
             run.incident.id,
             c,
             run.incident.fingerprint,
             run.incident.service_name,
             run.incident.target},
            fmt::format(
                "'{}', which depends on '{}', was well before it and is not after it: {}",
                names[i],
                run.incident.target,
                string_at(item, "text")
            )
        );
        co_return;
    }
}

void HealerImpl::open_dependency(const Run& run, const DependencyHealth& dependency) {
    const auto* service = s_.service(dependency.name, run.incident.environment);
    if (!service || on_target_.contains(dependency.name) || stopping_) return;
    if (s_.alone && !s_.alone->owns(dependency.name, run.incident.environment)) return;
    OwnIncident own;
    own.service = own.target = dependency.name;
    own.environment = run.incident.environment;
    own.trigger = "dependency down";
    own.kind = "dependency down\x1f" + dependency.name;
    own.message = fmt::format(
        "'{}' is down, seen from '{}': {}", dependency.name, run.incident.target, dependency.text
    );
    own.source = "heald:dependency";
    own.severity = run.incident.severity;
    Incident in = make_incident(own, s_.clock.wall());
    if (is_quiet(in.fingerprint, in.environment)) return;
    in.id = new_id(s_.clock);
    auto candidates = s_.strategies.fitting(in, service->facts, [](Duration) { return std::uint64_t{1}; });
    open(std::move(in), std::move(candidates));
}

asio::awaitable<std::optional<HealingInput>> HealerImpl::look(Run& run) {
    const Evidence evidence = co_await s_.prober.check(run.probes);
    const auto& on_it = history_.on(run.incident.target);
    const bool others = std::any_of(on_it.rbegin(), on_it.rend(), [&](const auto& f) {
        return f->event != run.incident.id && f->ended && *f->ended >= run.incident.opened_at;
    });
    // Of one that was helped it cannot be learned what recovers by itself.
    if (others && left_alone(run))
        submit("control arm", [id = run.incident.id](Database& db) {
            return sql::set_event_arm(db, id, "");
        });
    co_return input::Looked{evidence, others};
}

std::optional<History> HealerImpl::history_alone() const {
    auto before = s_.alone->attempts();
    if (!history_loaded_ || !before) return std::nullopt;
    std::vector<AttemptFact> all = std::move(*before);
    all.insert(all.end(), history_.facts().begin(), history_.facts().end());
    std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
        return a.started < b.started;
    });
    std::set<std::string> known;
    History merged;
    for (auto& fact : all) {
        if (known.insert(fact.attempt).second) merged.started(std::move(fact));
    }
    return merged;
}

HealingInput HealerImpl::consider(Run& run, const order::Consider& o) {
    const auto& candidate = run.machine->candidates()[o.index];
    const bool approved = o.approved && still_approved(run, candidate.info.name);
    std::vector<std::string> grants;
    for (const auto& declared : candidate.info.capabilities) {
        for (auto& grant : expand_capability(declared, run.target)) grants.push_back(std::move(grant));
    }
    GuardInput in;
    in.incident = &run.incident;
    in.candidate = &candidate;
    in.limits = &s_.settings->limits;
    std::optional<History> merged;
    if (s_.alone) merged = history_alone();
    const bool elsewhere = s_.elsewhere && s_.elsewhere(run.incident.target, run.incident.environment);
    in.history = s_.alone                        ? (merged ? &*merged : nullptr)
                 : history_loaded_ && !elsewhere ? &history_
                                                 : nullptr;
    in.episodes = history_loaded_ ? &episodes_ : nullptr;
    in.storm = history_loaded_ ? &storm_ : nullptr;
    const auto& holds = s_.alone ? s_.alone->holds() : s_.holds;
    in.holds = holds ? &*holds : nullptr;
    in.windows = &s_.settings->windows;
    in.approved = approved;
    in.break_glass = approved && run.break_glass;
    in.paused = paused_;
    in.pause_reason = pause_reason_;
    if (must_look_around(run, candidate)) {
        in.health = run.health;
        in.groups = run.groups;
        in.dependencies = run.dependencies;
    } else {
        in.health.emplace();
        in.groups.emplace();
        in.dependencies.emplace();
    }
    in.grants = std::move(grants);
    in.forbidden = &s_.settings->forbidden;
    in.max_auto_risk = s_.settings->max_auto_risk;
    in.attempts_of_incident = run.attempts;
    in.now = s_.clock.wall();
    const auto outcome = evaluate_guards(in);
    counters_.count(outcome);
    note_verdicts(run, in, outcome);
    if (!approved) run.approver.clear();  // an approval is for one strategy, not for those after it
    const auto& last = outcome.last();
    return input::Guarded{
        outcome.allowed(),
        last.needs_approval,
        last.retry_at,
        last.temporary && !last.passed,
        last.reason,
        o.approved && !approved};
}

}  // namespace heal
