// Simulates the decision core over seeded random schedules: guards that open and close, strategies that fail,
// hang or lie, evidence that flips, errors that return, approvals, clocks that jump, crashes at every step
// with recovery from what was durable. Invariants are checked after every step. A failing seed prints and
// replays exactly: simulation --seed N --verbose.
#include "core/guards.hpp"
#include "core/healing_machine.hpp"
#include "core/router.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <random>
#include <set>

namespace {

using namespace heal;
using namespace std::chrono_literals;

struct Broken {
    std::string what;
};

/// What the store would hold of one attempt.
struct Durable {
    std::size_t index;  // candidate, by name order
    std::string name;
    bool idempotent;
    std::string state = "started", verified{}, rolled_back{};  // the words of healing_results
    bool undecided = true;
    int starts = 0;  // how often it acted: the ledger that actions write themselves
};

class Simulation {
public:
    Simulation(std::uint64_t seed, bool verbose) : random_(seed), verbose_(verbose) {}

    void run() {
        std::vector<Candidate> candidates;
        const auto n = pick(0, 5);
        for (int i = 0; i < n; ++i) {
            Candidate c;
            c.info.name = fmt::format("s{}", i);
            c.info.idempotent = chance(0.5);
            c.info.risk = static_cast<Risk>(pick(0, 2));
            c.autonomy = static_cast<Autonomy>(pick(0, 3));
            if (c.autonomy == Autonomy::shadow) c.autonomy = Autonomy::automatic;
            c.priority = pick(0, 3) * 10;
            c.prior = c.confidence = unit();
            c.floor = chance(0.1) ? 0.9 : 0.0;
            c.verify.timeout = std::chrono::milliseconds{pick(0, 3) * 100};
            c.verify.stabilize = std::chrono::seconds{pick(0, 2) * 30};
            candidates.push_back(c);
        }
        rank(candidates);
        limits_.attempts_per_incident = static_cast<unsigned>(pick(1, 6));
        limits_.global_per_minute = static_cast<unsigned>(pick(1, 4));
        limits_.target_per_hour = static_cast<unsigned>(pick(1, 8));
        incident_.id = "e";
        incident_.fingerprint = "f";
        incident_.target = "t";
        originals_ = candidates;
        machine_.emplace(candidates);
        perform(machine_->step(input::Begin{}, now_));
        for (int steps = 0; !machine_->finished(); ++steps) {
            if (steps > 2000) throw Broken{"an incident that never ends"};
            now_ = now_ + Duration{pick(0, 400'000)};
            if (chance(0.02))
                now_ = now_ + Duration{pick(-3'600, 3'600) * 1'000'000LL};  // the wall clock jumps
            if (chance(0.04)) {
                crash();
                continue;
            }
            if (chance(0.05))
                perform(machine_->step(input::Recurred{now_ - Duration{pick(0, 2'000'000)}}, now_));
            if (chance(0.05) && machine_->state() == EventState::awaiting_approval) {
                perform(machine_->step(
                    chance(0.8) ? HealingInput{input::Approved{""}} : HealingInput{input::Rejected{"no"}},
                    now_
                ));
            }
            if (chance(0.05))
                perform(machine_->step(stray(), now_));  // duplicated, reordered, late: must do no harm
            answer();
        }
        check_end();
    }

private:
    int pick(int low, int high) { return std::uniform_int_distribution<int>{low, high}(random_); }
    double unit() { return std::uniform_real_distribution<double>{0, 1}(random_); }
    bool chance(double p) { return unit() < p; }
    void say(const std::string& line) const {
        if (verbose_) fmt::print("{:>10} {}\n", (now_.us - start_.us) / 1000, line);
    }

    const Candidate& candidate(std::size_t i) const { return machine_->candidates()[i]; }

    /// Takes note of the orders; those that wait for an answer become `expected_`.
    void perform(const std::vector<HealingOrder>& orders) {
        for (const auto& o : orders) {
            if (ended_) throw Broken{"an order after the last one"};
            if (const auto* x = std::get_if<order::Consider>(&o)) {
                say(fmt::format("consider {}", candidate(x->index).info.name));
                if (acting_) throw Broken{"considering the next while one acts"};
                if (needs_undo_) throw Broken{"going on before what failed was taken back"};
                expected_ = *x;
            } else if (const auto* w = std::get_if<order::WriteIntent>(&o)) {
                if (!allowed_) throw Broken{"an intent without the guards' leave"};
                if (!candidate(w->index).note.empty()) throw Broken{"a candidate that was out"};
                if (tried_.contains(candidate(w->index).info.name))
                    throw Broken{"the same strategy twice on one incident"};
                expected_ = *w;
            } else if (const auto* e = std::get_if<order::Execute>(&o)) {
                say(fmt::format("execute {}", candidate(e->index).info.name));
                if (attempts_.empty() || attempts_.back().name != candidate(e->index).info.name)
                    throw Broken{"acting without a durable intent"};
                if (acting_) throw Broken{"two at once on one target"};
                acting_ = true;
                auto& a = attempts_.back();
                if (++a.starts > 1 && !a.idempotent) throw Broken{"a non-idempotent attempt ran twice"};
                expected_ = *e;
            } else if (const auto* c = std::get_if<order::Check>(&o))
                expected_ = *c;
            else if (const auto* l = std::get_if<order::Look>(&o)) {
                if (acting_) throw Broken{"looking away while one acts"};
                expected_ = *l;
            } else if (const auto* u = std::get_if<order::Undo>(&o)) {
                if (chance(0.5))
                    attempts_.back().rolled_back = "running";  // a crash may come before it is stored
                expected_ = *u;
            } else if (const auto* t = std::get_if<order::Wait>(&o))
                expected_ = *t;
            else if (const auto* v = std::get_if<order::Verified>(&o)) {
                say(fmt::format("verified {} {}", candidate(v->index).info.name, v->verdict));
                attempts_.back().verified = v->verdict;
                if (attempts_.back().state == "executed") attempts_.back().state = v->verdict;
                if (v->verdict == "succeeded" && !(last_.positive > 0 && last_.negative == 0))
                    throw Broken{"verified without positive evidence"};
                if (v->verdict == "failed") needs_undo_ = true;
            } else if (const auto* m = std::get_if<order::Move>(&o)) {
                if (!is_open(m->state)) throw Broken{"moved to a final state without finishing"};
            } else if (const auto* f = std::get_if<order::Finish>(&o)) {
                say(fmt::format("finish {}: {}", to_string(f->state), f->reason));
                ended_ = f->state;
                if (f->state == EventState::closed && !(last_.positive > 0 && last_.negative == 0))
                    throw Broken{"said to have recovered without positive evidence"};
                if (is_open(f->state)) throw Broken{"finished in an open state"};
                if (f->reason.empty()) throw Broken{"ended without a reason"};
            }
        }
    }

    void answer() {
        if (!expected_) {
            perform(machine_->step(
                machine_->state() == EventState::awaiting_approval && chance(0.3)
                    ? HealingInput{input::Rejected{"no"}}
                    : HealingInput{input::Timer{}},
                now_
            ));
            return;
        }
        const auto order = *expected_;
        expected_.reset();
        if (const auto* x = std::get_if<order::Consider>(&order)) {
            GuardInput in;
            in.incident = &incident_;
            in.candidate = &candidate(x->index);
            in.limits = &limits_;
            in.history = chance(0.02) ? nullptr : &history_;
            in.episodes = chance(0.01) ? nullptr : &episodes_;
            in.storm = chance(0.01) ? nullptr : &storm_;
            holds_.clear();
            if (chance(0.1)) {
                holds_.push_back(
                    {"h",
                     static_cast<HoldKind>(pick(0, 2)),
                     static_cast<HoldScope>(pick(0, 2)),
                     "t",
                     "r",
                     "a",
                     now_ - 1s,
                     now_ + 1min}
                );
            }
            in.holds = chance(0.02) ? nullptr : &holds_;
            in.windows = &windows_;
            in.forbidden = &forbidden_;
            if (!chance(0.02)) in.health.emplace();
            if (in.health && chance(0.2)) in.health->positive = 1;
            if (in.health && chance(0.2))
                in.health->negative = 1, in.health->ill_since = now_ - Duration{pick(0, 1'000'000)};
            if (!chance(0.02)) in.groups.emplace();
            if (in.groups && chance(0.1))
                in.groups->push_back({"g", 3, 2, static_cast<unsigned>(pick(0, 2)), 0});
            if (!chance(0.02)) in.dependencies.emplace();
            if (in.dependencies && chance(0.1)) in.dependencies->push_back({"d", chance(0.5), "x"});
            if (!chance(0.02)) in.grants.emplace();
            in.break_glass = x->approved && chance(0.2);
            in.max_auto_risk = Risk::destructive;
            in.approved = x->approved;
            in.paused = chance(0.03) ? std::nullopt : std::optional<bool>{chance(0.05)};
            in.attempts_of_incident = static_cast<unsigned>(attempts_.size());
            in.now = now_;
            const auto verdict = evaluate_guards(in);
            allowed_ = verdict.allowed();
            if (allowed_ && (!in.history || !in.episodes || !in.storm || !in.holds || !in.groups ||
                             !in.dependencies || !in.grants || !in.paused || *in.paused))
                throw Broken{"a guard with missing input let it pass"};
            const auto& last = verdict.last();
            if (allowed_) {
                overridden_ += in.break_glass;
                for (const auto& hold : holds_) {
                    if (hold.kind == HoldKind::pause &&
                        concerns(hold, incident_.service_name, in.candidate->info.name, now_))
                        throw Broken{"passed a kill switch"};
                }
                if (in.dependencies && !in.break_glass) {
                    for (const auto& d : *in.dependencies) {
                        if (!d.up) throw Broken{"acted while a dependency was down"};
                    }
                }
            }
            perform(machine_->step(
                input::Guarded{
                    allowed_,
                    last.needs_approval,
                    last.retry_at,
                    last.temporary && !last.passed,
                    last.reason},
                now_
            ));
        } else if (const auto* w = std::get_if<order::WriteIntent>(&order)) {
            if (chance(0.1)) {
                perform(machine_->step(input::IntentFailed{"disk full"}, now_));
                return;
            }
            const auto& c = candidate(w->index);
            attempts_.push_back({w->index, c.info.name, c.info.idempotent});
            tried_.insert(c.info.name);
            history_.started({c.info.name, "e", "f", "t", c.info.name, now_});
            perform(machine_->step(input::IntentStored{}, now_));
        } else if (std::get_if<order::Execute>(&order)) {
            acting_ = false;
            const auto outcome = static_cast<Outcome>(pick(0, 4));
            attempts_.back().state = outcome == Outcome::succeeded ? "executed" : to_string(outcome);
            history_.ended(attempts_.back().name, now_);
            if (outcome == Outcome::declined) needs_undo_ = true;
            perform(machine_->step(input::Executed{outcome, "x"}, now_));
        } else if (std::get_if<order::Check>(&order)) {
            last_ = Evidence{static_cast<unsigned>(pick(0, 1)), static_cast<unsigned>(chance(0.4)), {}};
            perform(machine_->step(input::Checked{last_}, now_));
        } else if (std::get_if<order::Look>(&order)) {
            last_ = Evidence{static_cast<unsigned>(pick(0, 1)), static_cast<unsigned>(chance(0.4)), {}};
            perform(machine_->step(input::Looked{last_, chance(0.2)}, now_));
        } else if (const auto* t = std::get_if<order::Wait>(&order)) {
            if (t->duration < 0us || t->duration > 24h) throw Broken{"an unreasonable wait"};
            now_ = now_ + t->duration;
            perform(machine_->step(input::Timer{}, now_));
        } else if (std::get_if<order::Undo>(&order)) {
            const bool ok = chance(0.9);
            attempts_.back().rolled_back = ok ? "succeeded" : "failed";
            attempts_.back().undecided = !ok;
            needs_undo_ = false;
            perform(machine_->step(input::Undone{ok, "x"}, now_));
        }
    }

    HealingInput stray() {
        switch (pick(0, 5)) {
            // Results arrive twice or late, but a result is never made up: none while its own order waits.
            case 0:
                return expected_ && std::holds_alternative<order::WriteIntent>(*expected_)
                           ? HealingInput{input::Approved{"x"}}
                           : HealingInput{input::IntentStored{}};
            case 1:
                return input::Approved{"nobody"};
            case 2:
                return input::Begin{};
            default:
                return input::Recurred{now_ - 1h};
        }
    }

    /// Everything in memory is gone; what was durable decides, exactly as Healer::recover does.
    void crash() {
        say("crash");
        acting_ = false;
        expected_.reset();
        auto candidates = originals_;
        HealingInput first = input::Begin{};
        for (auto& a : attempts_) {
            const auto it = std::find_if(candidates.begin(), candidates.end(), [&](const Candidate& c) {
                return c.info.name == a.name;
            });
            const auto index = static_cast<std::size_t>(it - candidates.begin());
            if (auto how = resume_of(index, {a.state, a.verified, a.rolled_back, a.undecided}, "stopped"))
                first = std::move(*how);
            else
                it->note = "tried before";
        }
        machine_.emplace(candidates);
        perform(machine_->step(first, now_));
    }

    void check_end() const {
        if (!ended_) throw Broken{"no end"};
        if (*ended_ == EventState::healed && attempts_.back().verified != "succeeded")
            throw Broken{"healed without verification"};
        if (attempts_.size() > limits_.attempts_per_incident + overridden_)
            throw Broken{"more attempts than the limit"};
        if (needs_undo_ && *ended_ != EventState::escalated)
            throw Broken{"ended with a failed attempt that was not taken back"};
    }

    std::mt19937_64 random_;
    bool verbose_;
    Time start_{1'790'000'000'000'000}, now_ = start_;
    std::optional<HealingMachine> machine_;
    std::vector<Candidate> originals_;
    Incident incident_;
    Limits limits_;
    History history_;
    Episodes episodes_;
    StormWatch storm_;
    std::vector<Hold> holds_;
    std::vector<WindowRule> windows_;
    std::vector<std::string> forbidden_;
    std::vector<Durable> attempts_;
    std::set<std::string> tried_;
    std::optional<HealingOrder> expected_;
    std::optional<EventState> ended_;
    Evidence last_;
    std::size_t overridden_ = 0;
    bool allowed_ = false, acting_ = false, needs_undo_ = false;
};

}  // namespace

int main(int argc, char** argv) {
    std::uint64_t from = 1, count = 10'000;
    bool verbose = false;
    for (int i = 1; i < argc; ++i) {
        if (std::strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            from = std::strtoull(argv[++i], nullptr, 10), count = 1;
        else if (std::strcmp(argv[i], "--seeds") == 0 && i + 1 < argc)
            count = std::strtoull(argv[++i], nullptr, 10);
        else if (std::strcmp(argv[i], "--verbose") == 0)
            verbose = true;
    }
    std::uint64_t failed = 0;
    for (std::uint64_t seed = from; seed < from + count; ++seed) {
        try {
            Simulation{seed, verbose}.run();
        } catch (const Broken& broken) {
            if (++failed <= 10)
                fmt::print("seed {}: {} (replay: simulation --seed {} --verbose)\n", seed, broken.what, seed);
        }
    }
    fmt::print("{} passed, {} failed\n", count - failed, failed);
    return failed == 0 ? 0 : 1;
}
