#include "base/id.hpp"
#include "base/log.hpp"
#include "base/tasks.hpp"
#include "core/rules.hpp"
#include "service/approvals.hpp"
#include "service/healer_impl.hpp"

#include <fmt/format.h>

namespace heal {
namespace {

constexpr const char* kind = "heal";

std::string subject_of(const Run& run, const std::string& strategy) {
    return run.incident.id + "/" + strategy;
}

/// What a person sees of the target's state, and what must not change under their approval.
const char* state_word(const Run& run) {
    if (!run.health) return "not looked at";
    if (run.health->negative > 0) return "ill";
    return run.health->positive > 0 ? "well" : "no probe";
}

asio::awaitable<void> ask_one(Approvals& approvals, ApprovalAsk ask) {
    const std::string subject = ask.subject;
    auto asked = co_await approvals.ask(std::move(ask));
    if (!asked) log::error("nobody could be asked for {}: {}", subject, asked.error().text);
}

}  // namespace

Run* HealerImpl::run_of(const std::string& event) const {
    for (const auto& [key, run] : runs_) {
        if (run->incident.id == event) return run.get();
    }
    return nullptr;
}

std::optional<json::object> HealerImpl::binding(const Run& run, const std::string& strategy) const {
    const auto* entry = s_.strategies.find(strategy);
    if (!entry || !entry->refused.empty()) return std::nullopt;
    const Candidate c = s_.strategies.candidate(*entry);
    json::array grants;
    for (const auto& declared : c.info.capabilities) {
        for (auto& grant : expand_capability(declared, run.target))
            grants.push_back(json::value(std::move(grant)));
    }
    return json::object{
        {"action",
         json::object{
             {"strategy", c.info.name}, {"version", c.info.version}, {"risk", to_string(c.info.risk)}}},
        {"parameters", c.config},
        {"build", c.info.build},
        {"grants", std::move(grants)},
        {"target",
         json::object{
             {"name", run.incident.target},
             {"service", run.incident.service_name},
             {"environment", run.incident.environment},
             // Facts may hold what not everyone who approves should read.
             {"facts", sha256_hex(json::serialize(run.target)).substr(0, 16)},
             {"state", state_word(run)}}}};
}

ApprovalAsk HealerImpl::make_ask(Run& run, std::size_t index) {
    const auto& candidate = run.machine->candidates()[index];
    const std::string name = candidate.info.name;
    ApprovalAsk ask;
    ask.kind = kind;
    ask.subject = subject_of(run, name);
    ask.summary = fmt::format(
        "'{}' ({}) on '{}' for: {}",
        name,
        to_string(candidate.info.risk),
        run.incident.target,
        title_of(run.incident.record)
    );
    const auto needed_from = s_.settings->approvals.two_persons;
    ask.needed = needed_from && candidate.info.risk >= *needed_from ? 2 : 1;
    if (const auto* entry = s_.strategies.find(name)) {
        // What is asked for is what would run: both come from what is loaded and configured now.
        const Candidate now = s_.strategies.candidate(*entry);
        run.machine->renew(index, now.info, now.config);
    }
    if (auto bound = binding(run, name)) ask.bound = std::move(*bound);
    return ask;
}

void HealerImpl::ask_people(Run& run) {
    if (!s_.approvals) return;  // alone: people are asked once the shared store is back
    for (const auto index : run.machine->asking()) {
        auto ask = make_ask(run, index);
        if (ask.bound.empty()) continue;  // its artifact is gone
        const auto digest = binding_digest(ask.kind, ask.subject, ask.bound);
        auto& asked = run.asked[run.machine->candidates()[index].info.name];
        if (asked == digest) continue;
        asked = digest;
        spawn(s_.io, ask_one(*s_.approvals, std::move(ask)), "asking people");
    }
}

result<ApprovalAsk> HealerImpl::ask_for(const std::string& event, const std::string& strategy, bool at_once) {
    auto* run = run_of(event);
    if (!run) return fail(errc::not_found, fmt::format("there is no open event {}", event));
    const auto index = run->machine ? run->machine->waiting(strategy, at_once) : std::nullopt;
    if (!index)
        return fail(
            errc::conflict,
            strategy.empty()
                ? fmt::format("event {} does not wait for approval", event)
                : fmt::format("'{}' does not wait for approval in event {}", to_valid_utf8(strategy), event)
        );
    auto ask = make_ask(*run, *index);
    if (ask.bound.empty())
        return fail(
            errc::conflict,
            fmt::format("'{}' is not loaded any more", run->machine->candidates()[*index].info.name)
        );
    return ask;
}

std::optional<json::object> HealerImpl::binding(const Approval& approval) {
    const auto slash = approval.subject.find('/');
    const auto* run = run_of(approval.subject.substr(0, slash));
    if (!run || slash == std::string::npos) return std::nullopt;
    auto bound = binding(*run, approval.subject.substr(slash + 1));
    return bound ? std::move(*bound) : json::object{{"action", "its strategy is not loaded any more"}};
}

void HealerImpl::approval_changed(const Approval& a) {
    const auto slash = a.subject.find('/');
    auto* run = run_of(a.subject.substr(0, slash));
    if (!run || slash == std::string::npos) return;
    const std::string strategy = a.subject.substr(slash + 1);
    switch (a.state) {
        case ApprovalState::pending:
            run->asked[strategy] = a.digest;
            return;
        case ApprovalState::approved:
            run->approvals[strategy] = a;
            run->approver = a.votes.empty() ? std::string{} : a.votes.back().actor;
            run->break_glass = a.emergency();
            put(*run, input::Approved{strategy, a.emergency()});
            return;
        case ApprovalState::rejected:
        case ApprovalState::expired:
            run->approvals.erase(strategy);
            put(*run, input::Rejected{a.reason});
            return;
        case ApprovalState::voided:
            run->approvals.erase(strategy);
            run->asked.erase(strategy);
            if (run->machine && run->machine->state() == EventState::awaiting_approval) ask_people(*run);
            return;
        case ApprovalState::used:
            return;
    }
}

bool HealerImpl::still_approved(Run& run, const std::string& strategy) {
    const auto it = run.approvals.find(strategy);
    if (it == run.approvals.end()) return false;
    const auto bound = binding(run, strategy);
    Approval copy = it->second;
    const json::object gone{{"action", "its strategy is not loaded any more"}};
    if (!refresh(copy, bound ? &*bound : &gone, s_.clock.wall())) return true;
    log::warn("the approval of {} is {}: {}", copy.subject, to_string(copy.state), copy.reason);
    run.approvals.erase(strategy);
    run.asked.erase(strategy);
    run.break_glass = false;
    return false;
}

asio::awaitable<result<void>> HealerImpl::take_approval(Run& run, const std::string& strategy) {
    auto bound = binding(run, strategy);
    json::object now = bound ? std::move(*bound) : json::object{};
    std::string subject = subject_of(run, strategy), what = kind;
    auto taken = co_await s_.approvals->take(std::move(what), std::move(subject), std::move(now));
    run.approvals.erase(strategy);
    if (!taken) co_return taken.error();
    co_return result<void>{};
}

}  // namespace heal
