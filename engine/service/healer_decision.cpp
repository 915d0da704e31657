#include "service/healer_impl.hpp"

#include <algorithm>
#include <map>

namespace heal {

using namespace std::chrono_literals;

namespace {
/// A strategy's assess is a question, not an action; a round trip takes 40-60 µs (./dev bench runner).
constexpr std::chrono::milliseconds assess_timeout{1000};
}  // namespace

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
    for (auto& c : candidates) {
        c.confidence =
            book_.confidence(c.prior, c.info.name, run.incident.fingerprint, run.incident.service_name, now);
        const auto counts = book_.of(c.info.name, run.incident.fingerprint, now);
        c.successes = static_cast<std::uint64_t>(counts.successes + 0.5);
        c.failures = static_cast<std::uint64_t>(counts.failures + 0.5);
    }
    rank(candidates);
}

std::string HealerImpl::decision_json(const Run& run) const {
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
    return json::serialize(json::object{{"candidates", std::move(candidates)}, {"verdicts", run.verdicts}});
}

HealingInput HealerImpl::consider(Run& run, const order::Consider& o) {
    const auto& candidate = run.machine->candidates()[o.index];
    GuardInput in;
    in.incident = &run.incident;
    in.candidate = &candidate;
    in.limits = &s_.settings->limits;
    in.history = history_loaded_ ? &history_ : nullptr;
    in.approved = o.approved;
    in.paused = paused_;
    in.pause_reason = pause_reason_;
    in.max_auto_risk = s_.settings->max_auto_risk;
    in.attempts_of_incident = run.attempts;
    in.now = s_.clock.wall();
    const auto outcome = evaluate_guards(in);
    counters_.count(outcome);
    json::array items;
    for (const auto& v : outcome.verdicts) {
        items.push_back(json::object{
            {"guard", to_string(v.guard)}, {"passed", v.passed}, {"reason", v.reason}});
    }
    run.verdicts.push_back(json::object{
        {"strategy", candidate.info.name},
        {"at", to_rfc3339(in.now)},
        {"approved", o.approved},
        {"verdicts", std::move(items)}});
    if (run.verdicts.size() > 50) run.verdicts.erase(run.verdicts.begin());
    if (!o.approved) run.approver.clear();  // an approval is for one strategy, not for those after it
    const auto& last = outcome.last();
    const bool temporary = last.guard == GuardId::kill_switch || last.guard == GuardId::target_lock;
    return input::Guarded{
        outcome.allowed(), last.needs_approval, last.retry_at, temporary && !last.passed, last.reason};
}

}  // namespace heal
