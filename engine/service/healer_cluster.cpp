// What a healer does because it is one of many (docs/adr/0021-cluster.md).
#include "base/log.hpp"
#include "base/tasks.hpp"
#include "service/cluster.hpp"
#include "service/healer_impl.hpp"

#include <set>

namespace heal {

using namespace std::chrono_literals;

result<void> AttemptLedger::still_ours() const {
    if (!shared_.cluster || shared_.cluster->holds()) return {};
    return fail(errc::denied, "this node's lease ran out; another one may heal this by now");
}

void HealerImpl::take_up(std::vector<sql::TakenOver> taken) {
    for (auto& t : taken) begin(resume(std::move(t.event), std::move(t.attempts)));
}

asio::awaitable<void> HealerImpl::abandon() {
    abandoning_ = true;
    while (!runs_.empty()) {
        for (const auto& [key, run] : runs_) {
            run->wake.cancel();
            if (run->executing) s_.runner.cancel(run->attempt);
        }
        co_await sleep_for(20ms);
    }
    abandoning_ = false;
}

void HealerImpl::catch_up(const sql::ClaimedCount& c) {
    const auto it = runs_.find(key_of(c.fingerprint, c.environment));
    if (it == runs_.end() || it->second->incident.id != c.event || it->second->incident.count >= c.count)
        return;
    occurred(c.fingerprint, c.environment, c.count - it->second->incident.count, c.last_seen);
}

void HealerImpl::learn_held(sql::HeldEvent held) {
    held_.try_emplace(key_of(held.fingerprint, held.environment), held);
}

asio::awaitable<bool> HealerImpl::claimed(Run& run) {
    while (!run.resumed && !ending()) {
        auto incident = run.incident;
        auto mine = co_await s_.cluster->claim(std::move(incident));
        if (mine) co_return *mine;
        log::warn("event {} could not be claimed yet: {}", run.incident.id, mine.error().text);
        run.wake.expires_after(1s);
        co_await due(run.wake);
    }
    co_return !ending();
}

asio::awaitable<void> HealerImpl::look_at_other_nodes() {
    auto facts = co_await s_.cluster->history(s_.clock.wall() - history_kept);
    if (!facts) {
        history_loaded_ = false;  // a guard without its input denies
        co_return;
    }
    // What this node began while the answer was on its way is not in it.
    std::set<std::string> known;
    for (const auto& fact : *facts) known.insert(fact.attempt);
    for (const auto& mine : history_.facts()) {
        if ((!mine.ended || mine.undecided) && !known.contains(mine.attempt)) facts->push_back(mine);
    }
    History all;
    for (auto& fact : *facts) all.started(std::move(fact));
    history_ = std::move(all);
    history_loaded_ = true;
}

}  // namespace heal
