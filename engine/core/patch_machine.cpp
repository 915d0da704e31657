#include "core/patch_machine.hpp"

#include <algorithm>
#include <array>
#include <iterator>

namespace heal {
namespace {

using enum PatchStep;
using Kind = PatchResult::Kind;

constexpr std::array<const char*, 16> step_names{
    "prepare",
    "gate",
    "reproduce",
    "build",
    "test",
    "counter",
    "review",
    "commit",
    "push",
    "request",
    "merge",
    "deploy",
    "watch",
    "revert",
    "redeploy",
    "finish"};

constexpr std::array<const char*, 8> outcome_names{
    "", "held", "proposed", "refused", "failed", "rejected", "did_not_hold", "cancelled"};

/// Between two tries of a step for which the world was not ready: 15 s, 30 s, … 4 min.
constexpr Duration first_pause = std::chrono::seconds{15};
/// How often a request at a forge is looked at, and an approval that somebody forgot to tell us of.
constexpr Duration poll = std::chrono::minutes{1};
/// After the stabilization time looks become rarer: a hold window is long.
constexpr int calm = 6;

template <class T, std::size_t n>
bool parse(const std::array<const char*, n>& names, std::string_view word, T& ret) {
    const auto it = std::find(names.begin(), names.end(), word);
    if (it == names.end()) return false;
    ret = static_cast<T>(std::distance(names.begin(), it));
    return true;
}

}  // namespace

const char* to_string(PatchStep step) noexcept { return step_names[static_cast<std::size_t>(step)]; }
bool parse_patch_step(std::string_view word, PatchStep& ret) noexcept { return parse(step_names, word, ret); }
const char* to_string(PatchOutcome outcome) noexcept {
    return outcome_names[static_cast<std::size_t>(outcome)];
}
bool parse_patch_outcome(std::string_view word, PatchOutcome& ret) noexcept {
    return parse(outcome_names, word, ret);
}

json::object PatchMachine::save() const {
    return {
        {"step", to_string(step_)},
        {"outcome", to_string(outcome_)},
        {"reason", reason_},
        {"evidence", evidence_},
        {"repairs", repairs_},
        {"tries", tries_},
        {"unhealthy", unhealthy_},
        {"begun", begun_},
        {"landed", landed_},
        {"stable", stable_},
        {"finished", finished_},
        {"next_at", next_at_.us},
        {"deployed_at", deployed_at_.us},
        {"healthy_since", healthy_since_.us}};
}

result<PatchMachine> PatchMachine::load(const json::object& saved) {
    PatchMachine m;
    if (!parse_patch_step(string_at(saved, "step", "?"), m.step_) ||
        !parse_patch_outcome(string_at(saved, "outcome", "?"), m.outcome_))
        return fail(errc::corrupt, "the state of a patch run names no known step or outcome");
    m.reason_ = string_at(saved, "reason");
    m.evidence_ = object_at(saved, "evidence");
    m.repairs_ = static_cast<unsigned>(int_at(saved, "repairs"));
    m.tries_ = static_cast<unsigned>(int_at(saved, "tries"));
    m.unhealthy_ = static_cast<unsigned>(int_at(saved, "unhealthy"));
    m.begun_ = bool_at(saved, "begun");
    m.landed_ = bool_at(saved, "landed");
    m.stable_ = bool_at(saved, "stable");
    m.finished_ = bool_at(saved, "finished");
    m.next_at_ = Time{int_at(saved, "next_at")};
    m.deployed_at_ = Time{int_at(saved, "deployed_at")};
    m.healthy_since_ = Time{int_at(saved, "healthy_since")};
    return m;
}

void PatchMachine::go(PatchStep step, Time at) {
    step_ = step;
    begun_ = false;
    tries_ = 0;
    next_at_ = at;
}

void PatchMachine::end(PatchOutcome outcome, std::string reason, Time now) {
    outcome_ = outcome;
    reason_ = std::move(reason);
    go(finish, now);
}

void PatchMachine::begin(Time now) {
    begun_ = true;
    next_at_ = now;
}

bool PatchMachine::resume(const PatchPlan& plan, Time now, bool elsewhere) {
    if (elsewhere && step_ < review) go(prepare, now);
    if (elsewhere && step_ == push) go(commit, now);
    if (step_ == review) next_at_ = now;  // what people said meanwhile counts at once
    if (!begun_) return true;
    begun_ = false;
    if (plan.deploy_idempotent || (step_ != deploy && step_ != redeploy)) return true;
    const bool again = step_ == redeploy;
    evidence_[to_string(step_)] = json::object{
        {"ok", nullptr},
        {"text", "whether it ended is unknown: heald was stopped in its middle, and it may not run twice"}};
    if (again) {
        end(PatchOutcome::did_not_hold,
            reason_ + "; whether the version before is deployed again is unknown",
            now);
        return false;
    }
    deployed_at_ = now;
    go(watch, now);
    return false;
}

result<void> PatchMachine::cancel(const std::string& why, Time now) {
    if (outcome_ != PatchOutcome::none) return fail(errc::conflict, "the run has ended already");
    if (landed_) return fail(errc::conflict, "the patch is merged already; only a revert takes it back");
    end(PatchOutcome::cancelled, why, now);
    return {};
}

void PatchMachine::take_back(std::string why, Time now) {
    reason_ = std::move(why);
    go(revert, now);
}

void PatchMachine::after_watch(const PatchResult& result, const PatchPlan& plan, Time now) {
    const auto& h = plan.horizons;
    if (result.kind == Kind::recurred) return take_back(result.text, now);
    if (result.kind == Kind::unhealthy) {
        ++unhealthy_;
        const bool settling = healthy_since_.us == 0 && now - deployed_at_ < h.settle;
        // One failed look may be the look's own fault; two in a row are not.
        if (!settling && unhealthy_ >= 2) return take_back(result.text, now);
        return go(watch, now + h.look_every);
    }
    if (result.kind == Kind::done) {
        unhealthy_ = 0;
        if (healthy_since_.us == 0) healthy_since_ = now;
        stable_ = stable_ || now - healthy_since_ >= h.stabilize;
        if (stable_ && now - deployed_at_ >= h.hold)
            return end(PatchOutcome::held, "the error did not come back within the hold window", now);
    }
    const Time held = deployed_at_ + h.hold;
    Time next = now + h.look_every * (stable_ ? calm : 1);
    if (stable_ && held > now) next = std::min(next, held);
    go(watch, next);
}

void PatchMachine::take(const PatchResult& result, const PatchPlan& plan, Time now) {
    const auto at = step_;
    begun_ = false;
    if (at == finish) {
        finished_ = true;
        return;
    }
    if (result.kind != Kind::waiting) {
        json::object kept = result.evidence;
        kept["ok"] =
            result.kind == Kind::done || result.kind == Kind::approved || result.kind == Kind::merged;
        kept["text"] = result.text;
        kept["at"] = to_rfc3339(now);
        evidence_[to_string(at)] = std::move(kept);
    }
    if (at == watch) return after_watch(result, plan, now);
    switch (result.kind) {
        case Kind::again:
            if (++tries_ < max_tries) {
                next_at_ = now + first_pause * (1 << (tries_ - 1));
                return;
            }
            [[fallthrough]];
        case Kind::broken:
        case Kind::unhealthy:
        case Kind::recurred:
            if (at == deploy) return take_back("the deployment failed: " + result.text, now);
            if (at == revert)
                return end(
                    PatchOutcome::failed,
                    reason_ + "; taking it back failed, a person is needed: " + result.text,
                    now
                );
            if (at == redeploy)
                return end(
                    PatchOutcome::did_not_hold,
                    reason_ + "; deploying the version before failed, a person is needed: " + result.text,
                    now
                );
            return end(PatchOutcome::failed, result.text, now);
        case Kind::refused:
            return end(PatchOutcome::refused, result.text, now);
        case Kind::rejected:
        case Kind::closed:
            return end(PatchOutcome::rejected, result.text, now);
        case Kind::mend:
            if (repairs_ >= plan.repair_rounds) return end(PatchOutcome::refused, result.text, now);
            ++repairs_;
            return go(gate, now);
        case Kind::waiting:
            next_at_ = now + poll;
            return;
        case Kind::done:
        case Kind::approved:
        case Kind::merged:
            break;
    }
    switch (at) {
        case prepare:
            return go(gate, now);
        case gate:
            return go(reproduce, now);
        case reproduce:
            return go(build, now);
        case build:
            return go(test, now);
        case test:
            return go(counter, now);
        case counter:
            return go(review, now);
        case review:
            return go(commit, now);
        case commit:
            return go(push, now);
        case push:
            if (plan.land == PatchPlan::Land::branch)
                return end(PatchOutcome::proposed, "the branch is pushed; merging it is left to people", now);
            return go(plan.land == PatchPlan::Land::request ? request : merge, now);
        case request:
        case merge:
            landed_ = true;
            if (!plan.deploy)
                return end(PatchOutcome::proposed, "merged; nothing is configured to deploy it", now);
            return go(deploy, now);
        case deploy:
            deployed_at_ = now;
            return go(watch, now);
        case revert:
            if (!plan.deploy) return end(PatchOutcome::did_not_hold, reason_, now);
            return go(redeploy, now);
        case redeploy:
            return end(PatchOutcome::did_not_hold, reason_, now);
        case watch:
        case finish:
            return;
    }
}

}  // namespace heal
