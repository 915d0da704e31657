#include "service/fixer.hpp"

#include "base/faults.hpp"
#include "base/id.hpp"
#include "base/log.hpp"
#include "base/offload.hpp"
#include "base/tasks.hpp"
#include "core/holds.hpp"
#include "service/analyst.hpp"
#include "service/approvals.hpp"
#include "service/cluster.hpp"
#include "service/code_patterns.hpp"
#include "service/healer.hpp"
#include "service/patch_state.hpp"
#include "service/patch_work.hpp"
#include "service/repository_desk.hpp"
#include "store/analysis_store.hpp"
#include "store/bug_store.hpp"
#include "store/healing_store.hpp"
#include "store/queries.hpp"

#include <boost/asio/steady_timer.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <filesystem>
#include <map>
#include <set>

namespace heal {
namespace asio = boost::asio;
namespace {

using namespace std::chrono_literals;
using Kind = PatchResult::Kind;

/// Steps before people are asked; they run builds and tests, so only so many at a time.
bool is_heavy(PatchStep step) {
    return is_trial(step) || step == PatchStep::merge || step == PatchStep::deploy ||
           step == PatchStep::redeploy;
}

/// Steps that change something outside of heald.
bool acts(PatchStep step) {
    return step >= PatchStep::push && step != PatchStep::watch && step != PatchStep::finish;
}

struct Run : PatchState {
    asio::steady_timer wake;
    std::atomic<bool> give_up{false};  ///< ends the command that it runs
    bool woken = false;                ///< somebody has news for it
    bool recurred = false;             ///< heard again since it was deployed
    bool working = false;
    std::string recurrence;

    explicit Run(asio::io_context& io) : wake(io) {}
};
using RunPtr = std::shared_ptr<Run>;

class FixerImpl final : public Fixer {
public:
    FixerImpl(
        Shared& shared, Analyst& analyst, RepositoryDesk& desk, net::HttpClient& http, std::string folder
    )
        : s_(shared),
          analyst_(analyst),
          desk_(desk),
          http_(http),
          folder_(std::move(folder)),
          pool_(std::max(1U, shared.settings->patches_at_once) + 1),
          patterns_(shared, desk, pool_) {}

    ~FixerImpl() override {
        for (auto& [id, run] : runs_) run->give_up.store(true);
        pool_.join();
    }

    asio::awaitable<result<void>> recover() override {
        struct Found {
            std::vector<sql::PatchRun> mine, left;
        };
        auto found = std::make_shared<Found>();
        // One of many leaves to the others what it has no repository for; alone there is nobody else.
        Store::Job job = [found, node = node(), known = repositories(), many = s_.cluster != nullptr](
                             Database& db
                         ) -> result<void> {
            auto mine = sql::load_open_patch_runs(db, node);
            if (!mine) return mine.error();
            auto left = sql::take_over_patch_runs(db, node, many ? &known : nullptr);
            if (!left) return left.error();
            *found = {std::move(*mine), std::move(*left)};
            return {};
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
        take_up(std::move(found->mine));
        take_up(std::move(found->left));
        // Worktrees of runs that nobody goes on with.
        if (runs_.empty()) {
            std::error_code ignored;
            std::filesystem::remove_all(folder_, ignored);
        }
        co_return result<void>{};
    }

    void take_up(std::vector<sql::PatchRun> rows) override {
        for (auto& row : rows) {
            if (runs_.contains(row.id)) continue;
            auto machine = PatchMachine::load(object_at(row.data, "machine"));
            if (!machine) {
                log::error("patch run {} cannot be taken up: {}", row.id, machine.error().text);
                continue;
            }
            auto run = std::make_shared<Run>(s_.io);
            run->machine = std::move(*machine);
            run->facts = PatchFacts::load(object_at(row.data, "facts"));
            run->facts.patch = row.patch;
            run->facts.from_elsewhere = row.node != node();
            run->pattern = string_at(row.data, "pattern");
            if (run->facts.from_elsewhere) {
                log::info("patch run {} is taken over from node '{}' at {}", row.id, row.node, row.step);
                s_.metrics.add("heald_patch_runs_taken_over_total");
            }
            run->row = std::move(row);
            run->row.node = node();
            if (const auto* settings = find_settings(run->row.repository))
                run->machine.resume(plan(*settings), s_.clock.wall(), run->facts.from_elsewhere);
            launch(run);
        }
    }

    std::vector<std::string> repositories() const override {
        std::vector<std::string> names;
        for (const auto& r : s_.settings->repositories) names.push_back(r.name);
        return names;
    }

    asio::awaitable<void> abandon() override {
        abandoning_ = true;
        while (!runs_.empty()) {
            end_steps();
            co_await sleep_for(20ms);
        }
        abandoning_ = false;
    }

    asio::awaitable<result<bool>> try_patterns(std::string bug) override {
        auto about = co_await load_bug(bug);
        if (!about) co_return about.error();
        const auto* settings = repository_of(*s_.settings, std::string{string_at(*about, "service_name")});
        if (!settings || settings->autonomy < FixAutonomy::trial) co_return false;
        json::object copy = *about;
        RepositorySettings repository = *settings;
        auto found = co_await patterns_.suggest(std::move(copy), std::move(repository));
        if (!found) co_return found.error();
        if (found->under_way) co_return true;
        if (found->suggestion.empty()) co_return false;
        std::string actor = "heald";
        auto started = co_await start(
            std::move(*about), std::move(found->suggestion), std::move(actor), std::move(found->pattern)
        );
        if (!started) co_return started.error();
        co_return true;
    }

    asio::awaitable<result<void>> suggested(std::string bug, std::string actor) override {
        auto about = co_await load_bug(bug);
        if (!about) co_return about.error();
        const auto* settings = repository_of(*s_.settings, std::string{string_at(*about, "service_name")});
        if (!settings || settings->autonomy < FixAutonomy::trial) co_return result<void>{};
        auto suggestions = co_await standing(std::string{string_at(*about, "id")});
        if (!suggestions) co_return suggestions.error();
        for (const auto& suggestion : *suggestions) {
            if (suggestion.edits.empty() || suggestion.source == "pattern") continue;
            json::object copy = *about;
            std::string none, by = actor, id = suggestion.id;
            auto started = co_await start(std::move(copy), std::move(id), std::move(by), std::move(none));
            if (!started && started.error().code != errc::conflict)
                log::warn(
                    "a suggestion for {} is not tried: {}",
                    string_at(*about, "bug_code"),
                    started.error().text
                );
        }
        co_return result<void>{};
    }

    asio::awaitable<result<json::object>> apply(std::string bug, std::string suggestion, std::string actor)
        override {
        auto about = co_await load_bug(std::move(bug));
        if (!about) co_return about.error();
        std::string chosen = suggestion;
        auto all = co_await standing(std::string{string_at(*about, "id")});
        if (!all) co_return all.error();
        for (const auto& one : *all) {
            if (one.edits.empty()) continue;
            if (suggestion.empty() && chosen.empty()) chosen = one.id;
            if (one.id == suggestion) chosen = one.id;
        }
        const bool known = std::any_of(all->begin(), all->end(), [&](const auto& one) {
            return one.id == chosen && !one.edits.empty();
        });
        if (!known)
            co_return fail(
                suggestion.empty() ? errc::conflict : errc::not_found,
                suggestion.empty()
                    ? fmt::format(
                          "{} has no suggestion with code; healctl bug analyze makes some",
                          string_at(*about, "bug_code")
                      )
                    : std::string{"there is no such suggestion for this bug, or it has no code"}
            );
        std::string none;
        auto started =
            co_await start(std::move(*about), std::move(chosen), std::move(actor), std::move(none));
        if (!started) co_return started.error();
        co_return std::move(*started);
    }

    asio::awaitable<result<json::object>> vote(
        std::string bug_or_run, bool yes, json::object body, std::string actor
    ) override {
        RunPtr waiting;
        // One that came to its review a moment ago is about to be asked for.
        for (int i = 0; i < 100 && !waiting; ++i) {
            bool soon = false;
            for (const auto& [id, run] : runs_) {
                const bool meant =
                    id == bug_or_run || run->row.bug == bug_or_run || run->facts.bug_code == bug_or_run;
                if (!meant || run->machine.step() != PatchStep::review ||
                    run->outcome() != PatchOutcome::none)
                    continue;
                soon = true;
                if (!string_at(run->row.data, "approval").empty()) waiting = run;
            }
            if (waiting || !soon) break;
            co_await sleep_for(20ms);
        }
        if (!waiting) {
            // Another node may run it.
            std::string what = bug_or_run, request = yes ? "approve" : "reject";
            auto handed = co_await s_.approvals->forward(
                std::move(what), std::move(request), std::move(body), std::move(actor)
            );
            if (handed) co_return json::object{{"forwarded", true}};
            if (handed.error().code != errc::not_found) co_return handed.error();
            co_return fail(
                errc::conflict,
                fmt::format(
                    "no patch of '{}' waits for approval; healctl patch list shows all",
                    to_valid_utf8(bug_or_run)
                )
            );
        }
        Vote vote;
        vote.actor = std::move(actor);
        vote.yes = yes;
        vote.reason = string_at(body, "reason");
        vote.break_glass = yes && bool_at(body, "break_glass");
        std::string id{string_at(waiting->row.data, "approval")}, seen{string_at(body, "digest")};
        auto decided = co_await s_.approvals->decide(std::move(id), std::move(vote), std::move(seen));
        if (!decided) co_return decided.error();
        co_return to_json(*decided);
    }

    asio::awaitable<result<void>> cancel(std::string id, std::string reason, std::string actor) override {
        const auto it = runs_.find(id);
        if (it == runs_.end()) {
            std::string request = "cancel";
            json::object body{{"reason", to_valid_utf8(reason)}};
            auto handed = co_await s_.approvals->forward(
                std::move(id), std::move(request), std::move(body), std::move(actor)
            );
            if (!handed && handed.error().code == errc::not_found)
                co_return fail(errc::not_found, "there is no such run under way");
            co_return handed;
        }
        auto run = it->second;
        HEAL_CO_TRY(run->machine.cancel(fmt::format("cancelled by {}: {}", actor, reason), s_.clock.wall()));
        run->give_up.store(true);
        Store::Job audit = [=, this](Database& db) {
            return sql::append_audit(
                db,
                s_.clock.wall(),
                actor,
                "patch.cancel",
                id,
                json::serialize(json::object{{"reason", to_valid_utf8(reason)}})
            );
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(audit)));
        nudge(*run);
        co_return result<void>{};
    }

    void heard(
        const std::string& fingerprint, const std::string& environment, const std::string& release, Time at
    ) override {
        if (watched_.find(fingerprint) == watched_.end()) return;
        for (auto& [id, run] : runs_) {
            if (run->row.fingerprint != fingerprint || run->machine.step() != PatchStep::watch) continue;
            if (!run->row.environment.empty() && run->row.environment != environment) continue;
            // A line of before, or of an instance that still runs what was broken.
            if (at <= run->machine.deployed_at()) continue;
            if (!release.empty() && release == run->facts.release) continue;
            run->recurred = true;
            run->recurrence = fmt::format(
                "the error was heard again at {}{}",
                to_rfc3339(at),
                release.empty() ? "" : " from release " + release
            );
            nudge(*run);
        }
    }

    void set_paused(std::string reason) override { paused_ = std::move(reason); }

    std::optional<json::object> binding(const Approval& approval) override {
        const auto it = runs_.find(approval.subject);
        if (it == runs_.end() || it->second->machine.step() != PatchStep::review) return std::nullopt;
        const auto* settings = find_settings(it->second->row.repository);
        if (!settings) return std::nullopt;
        return bound_of(*it->second, *settings);
    }

    void approval_changed(const Approval& approval) override {
        // One that is pending is no news: the run's own question, or the first of two answers.
        if (approval.state == ApprovalState::pending) return;
        if (const auto it = runs_.find(approval.subject); it != runs_.end()) nudge(*it->second);
    }

    asio::awaitable<result<std::int64_t>> scan_code() override { co_return co_await patterns_.scan(); }

    std::size_t open_count() const override { return runs_.size(); }

    asio::awaitable<void> stop() override {
        stopping_ = true;
        end_steps();
        for (int i = 0; active_ > 0 && i < 500; ++i) co_await sleep_for(10ms);
    }

private:
    std::string node() const { return s_.settings->node; }
    bool ending() const { return stopping_ || abandoning_; }

    void end_steps() {
        for (auto& [id, run] : runs_) {
            run->give_up.store(true);
            run->wake.cancel();
        }
        for (auto* waiter : slots_waiting_) waiter->cancel();
    }

    const RepositorySettings* find_settings(const std::string& name) const {
        for (const auto& r : s_.settings->repositories) {
            if (r.name == name) return &r;
        }
        return nullptr;
    }

    static PatchPlan plan(const RepositorySettings& r) {
        PatchPlan p;
        p.land = r.autonomy == FixAutonomy::merge ? PatchPlan::Land::merge : r.land;
        p.deploy = !r.deploy.empty();
        p.deploy_idempotent =
            std::all_of(r.deploy.begin(), r.deploy.end(), [](const auto& c) { return c.idempotent; });
        p.horizons = r.horizons;
        return p;
    }

    asio::awaitable<result<json::object>> load_bug(std::string id) {
        auto about = std::make_shared<json::object>();
        Store::Job job = [about, id](Database& db) -> result<void> {
            auto found = sql::show_bug(db, id);
            if (!found) return found.error();
            *about = std::move(*found);
            return {};
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
        co_return std::move(*about);
    }

    asio::awaitable<result<std::vector<sql::Suggestion>>> standing(std::string bug) {
        auto all = std::make_shared<std::vector<sql::Suggestion>>();
        Store::Job job = [all, bug](Database& db) -> result<void> {
            auto found = sql::load_suggestions(db, bug);
            if (!found) return found.error();
            *all = std::move(*found);
            return {};
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
        co_return std::move(*all);
    }

    asio::awaitable<result<json::object>> start(
        json::object bug, std::string suggestion_id, std::string actor, std::string pattern
    ) {
        const std::string service{string_at(bug, "service_name")}, code{string_at(bug, "bug_code")};
        const auto* settings = repository_of(*s_.settings, service);
        if (!settings || settings->autonomy == FixAutonomy::off)
            co_return fail(
                errc::conflict,
                fmt::format("no repository of the configuration holds the code of service '{}'", service)
            );
        if (runs_.size() >= max_runs) co_return fail(errc::overloaded, "too many patches are under way");
        BugStatus status{};
        if (!parse_bug_status(string_at(bug, "status"), status) || !is_open(status))
            co_return fail(errc::conflict, fmt::format("{} is {}", code, string_at(bug, "status")));
        auto suggestion = std::make_shared<std::optional<sql::Suggestion>>();
        auto run = std::make_shared<Run>(s_.io);
        const Time now = s_.clock.wall();
        auto& row = run->row;
        row.id = new_id(s_.clock);
        row.bug = string_at(bug, "id");
        row.suggestion = suggestion_id;
        row.fingerprint = string_at(bug, "fingerprint");
        row.service = service;
        row.environment = string_at(bug, "environment");
        row.repository = settings->name;
        row.actor = actor;
        row.node = node();
        row.created_at = row.updated_at = now;
        auto& f = run->facts;
        f.bug_code = code;
        f.fingerprint = row.fingerprint;
        f.release = string_at(bug, "last_release");
        f.made_at = Time{now.us - now.us % 1'000'000};  // git keeps seconds
        f.branch = fmt::format("heald/{}-{}", code, row.id.substr(row.id.size() - 8));
        run->pattern = std::move(pattern);
        Store::Job job = [=, this](Database& db) -> result<void> {
            auto found = sql::load_suggestion(db, suggestion_id);
            if (!found) return found.error();
            if (!*found) return fail(errc::not_found, "there is no such suggestion");
            // An analysis that is asked for again brings the same edits as another suggestion.
            auto others = sql::load_patch_runs(db, run->row.bug);
            if (!others) return others.error();
            for (const auto& other : *others) {
                if (other.outcome.empty() &&
                    string_at(object_at(other.data, "facts"), "edits") == (*found)->edits)
                    return fail(
                        errc::conflict,
                        fmt::format("these edits are being tried already, by run {}", other.id)
                    );
            }
            run->facts.title = (*found)->title;
            run->facts.description = (*found)->description;
            run->facts.edits = (*found)->edits;
            if (run->facts.release.empty()) run->facts.revision = (*found)->revision;
            write_row(*run, s_.clock.wall());
            HEAL_TRY(sql::insert_patch_run(db, run->row));
            HEAL_TRY(sql::append_audit(
                db,
                now,
                actor,
                "patch.start",
                run->row.id,
                json::serialize(json::object{{"bug", code}, {"suggestion", suggestion_id}})
            ));
            return sql::note_bug(
                db, s_.clock, run->row.bug, actor, "patch", "", "", "is tried as run " + run->row.id
            );
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
        launch(run);
        co_return answer_of(*run);
    }

    void launch(const RunPtr& run) {
        // One that was stored a moment ago may have been taken up by recover() already.
        if (!runs_.try_emplace(run->row.id, run).second) return;
        follow(*run);
        ++active_;
        s_.metrics.set("heald_patch_runs_open", {}, static_cast<double>(runs_.size()));
        spawn(s_.io, drive(run), [this, run](const std::exception_ptr& error) {
            --active_;
            if (error)
                log::error(
                    "patch run {} ended by a defect, the next start takes it up: {}",
                    run->row.id,
                    text_of(error)
                );
            if (!stopping_) runs_.erase(run->row.id);
            watched_.erase(run->row.fingerprint);
            for (const auto& [id, other] : runs_) follow(*other);
            s_.metrics.set("heald_patch_runs_open", {}, static_cast<double>(runs_.size()));
        });
    }

    void follow(const Run& run) {
        if (run.machine.step() == PatchStep::watch) watched_.insert(run.row.fingerprint);
    }

    static void nudge(Run& run) {
        run.woken = true;
        run.wake.cancel();
    }

    /// Stores it with what it means for others. Waits while the store is away. False: stopping, or another
    /// node has it.
    asio::awaitable<bool> save(RunPtr run, StoreWrite more = {}) {
        write_row(*run, s_.clock.wall());
        const auto row = std::make_shared<const sql::PatchRun>(run->row);
        for (auto pause = 100ms;; pause = std::min<std::chrono::milliseconds>(pause * 2, 5s)) {
            Store::Job job = [row, more](Database& db) -> result<void> {
                HEAL_TRY(sql::update_patch_run(db, *row));
                return more ? more(db) : result<void>{};
            };
            const auto begin = s_.clock.steady();
            auto stored = co_await s_.store.write(std::move(job));
            run->row.engine_us += (s_.clock.steady() - begin).count();  // stored by the next one
            if (stored) co_return true;
            if (stored.error().code == errc::conflict || stored.error().code == errc::denied || ending())
                co_return false;
            log::warn("patch run {} could not be stored: {}", run->row.id, stored.error().text);
            run->wake.expires_after(pause);
            co_await due(run->wake);
        }
    }

    asio::awaitable<void> until_due(RunPtr run) {
        while (!ending() && !run->woken) {
            const auto left = run->machine.next_at() - s_.clock.wall();
            if (left.count() <= 0) break;
            run->wake.expires_after(std::min<Duration>(left, 1h));
            co_await due(run->wake);
        }
        run->woken = false;
    }

    /// Why nothing may act on this service now; "" when it may.
    std::string held(const Run& run) const {
        if (!paused_.empty()) return "the kill switch is on";
        if (s_.cluster && !s_.cluster->holds()) return "this node's lease ran out";
        if (!s_.holds) return "the holds could not be read";
        const Time now = s_.clock.wall();
        for (const auto& hold : *s_.holds) {
            if (concerns(hold, run.row.service, "llm_patch", now))
                return fmt::format("{} by {}: {}", to_string(hold.kind), hold.actor, hold.reason);
        }
        for (const auto& window : s_.settings->windows) {
            if (open_until(window, run.row.service, now))
                return fmt::format("{} window: {}", to_string(window.kind), window.reason);
        }
        return "";
    }

    /// While a step acts: gives it up as soon as it is not allowed any more.
    asio::awaitable<void> mind(RunPtr run) {
        while (run->working && !ending()) {
            if (!held(*run).empty()) run->give_up.store(true);
            co_await sleep_for(200ms);
        }
    }

    /// One of the places for work that keeps a processor busy.
    asio::awaitable<bool> take_slot(RunPtr run) {
        while (!ending() && busy_ >= std::max(1U, s_.settings->patches_at_once)) {
            asio::steady_timer turn{s_.io};
            turn.expires_after(1h);
            slots_waiting_.push_back(&turn);
            co_await due(turn);
            std::erase(slots_waiting_, &turn);
        }
        if (ending() || run->outcome() != PatchOutcome::none) co_return false;
        ++busy_;
        co_return true;
    }
    void give_slot() {
        --busy_;
        if (!slots_waiting_.empty()) slots_waiting_.front()->cancel();
    }

    asio::awaitable<void> drive(RunPtr run) {
        bool slot = false;               // kept from one heavy step to the next
        std::optional<PatchStep> begun;  // its intent was stored with the outcome of the step before
        const auto give_back = [this, &slot] {
            if (std::exchange(slot, false)) give_slot();
        };
        while (!ending() && !run->machine.ended()) {
            if (begun != run->machine.step()) begun.reset();  // cancelled meanwhile
            if (!begun) {
                give_back();
                co_await until_due(run);
            }
            if (ending()) break;
            const auto* known = find_settings(run->row.repository);
            if (!known) {
                // Its repository is gone from the configuration: nothing can be done, and nothing is.
                run->machine.take(
                    {Kind::broken,
                     fmt::format("repository '{}' is no longer configured", run->row.repository),
                     {}},
                    PatchPlan{},
                    s_.clock.wall()
                );
                note(*run, run->machine.step(), {});
                if (run->machine.step() == PatchStep::finish)
                    run->machine.take({}, PatchPlan{}, s_.clock.wall());
                if (!co_await save(run)) break;
                continue;
            }
            const RepositorySettings settings = *known;
            const auto step = run->machine.step();
            if (!begun) {
                if (acts(step)) {
                    if (const auto why = held(*run); !why.empty()) {
                        if (run->row.data["held"] != json::value(why)) {
                            log::info("patch run {} waits: {}", run->row.id, why);
                            run->row.data["held"] = why;
                            if (!co_await save(run)) break;
                            publish(*run);
                        }
                        run->wake.expires_after(500ms);
                        co_await due(run->wake);
                        continue;
                    }
                }
                run->row.data.erase("held");
                if (is_heavy(step) && run->outcome() == PatchOutcome::none) {
                    if (!co_await take_slot(run)) continue;
                    slot = true;
                    if (acts(step) && !held(*run).empty()) continue;  // it waited for its turn meanwhile
                }
                run->machine.begin(s_.clock.wall());
                StoreWrite intent = entering(*run, step, s_.clock);
                const bool stored = co_await save(run, std::move(intent));
                if (!stored || faults::pass("patch.intent")) break;
            }
            begun.reset();
            publish(*run);
            run->working = true;
            if (acts(step)) {
                spawn(s_.io, mind(run), "minding a patch run");
            }
            auto outcome = co_await work(run, settings, step);
            run->working = false;
            if (ending() && outcome.kind != Kind::done) break;  // given up in its middle; resume() knows
            if (run->machine.step() != step) {
                // Cancelled meanwhile: what was found out does not matter any more.
                if (!co_await save(run)) break;
                continue;
            }
            // Held in its middle: it begins again once it may act, and that is no try that failed.
            if (outcome.kind == Kind::again && run->give_up.load()) continue;
            if (outcome.kind == Kind::mend) {
                give_back();
                outcome = co_await mend(run, std::move(outcome), settings);
            }
            const bool was_stable = run->machine.stable();
            run->machine.take(outcome, plan(settings), s_.clock.wall());
            run->facts.keep_branch = run->outcome() == PatchOutcome::proposed && !run->machine.landed();
            follow(*run);
            note(*run, step, outcome);
            StoreWrite after = leaving(*run, step, was_stable, s_.clock);
            if (may_go_on(*run, step, slot)) {
                begun = run->machine.step();
                run->machine.begin(s_.clock.wall());
                after = both(std::move(after), entering(*run, *begun, s_.clock));
            } else {
                give_back();
            }
            if (!co_await save(run, std::move(after))) break;
            (void)faults::pass("patch.result");
            publish(*run);
            wake_siblings(*run);
            if (begun && faults::pass("patch.intent")) break;
            if (!run->machine.ended()) continue;
            if (run->outcome() == PatchOutcome::held && run->pattern.empty()) learn(*run, settings);
            if (!run->pattern.empty() && run->outcome() != PatchOutcome::held &&
                run->outcome() != PatchOutcome::proposed)
                ask_models(*run);
        }
        give_back();
    }

    /// The next step of a run may begin at once, so that one commit holds the outcome of `from` and its
    /// intent. Not where something outside changes: an intent that is stored early is a doubt that need not
    /// be.
    bool may_go_on(const Run& run, PatchStep from, bool slot) const {
        const auto next = run.machine.step();
        if (next == from || acts(next) || run.machine.ended() || ending() ||
            run.machine.next_at() > s_.clock.wall())
            return false;
        return !is_heavy(next) || run.outcome() != PatchOutcome::none || slot;
    }

    asio::awaitable<PatchResult> work(RunPtr run, RepositorySettings settings, PatchStep step) {
        const auto started = s_.clock.steady();
        PatchResult outcome;
        run->give_up.store(ending());
        if (step == PatchStep::review) {
            outcome = co_await review(run, settings);
        } else if (step == PatchStep::watch) {
            outcome = co_await watch(run, settings);
        } else {
            if (step == PatchStep::request) run->facts.request_body = request_body(*run);
            auto tools = make_tools(settings, *run);
            if (!tools) co_return PatchResult{Kind::broken, tools.error().text, {}};
            PatchWork worker{settings, **tools, run->row.id, run->facts};
            Duration spent{0};
            const auto job = [&] {
                const auto begin = s_.clock.steady();
                outcome = worker.perform(step);
                spent = s_.clock.steady() - begin - worker.outside();
            };
            co_await offload(pool_, job);
            // Waiting for a thread that others' builds have is not heald's work for this bug.
            run->row.engine_us += std::max<std::int64_t>(0, spent.count());
            s_.metrics.observe(
                "heald_patch_step_seconds",
                {{"step", to_string(step)}},
                static_cast<double>((s_.clock.steady() - started).count()) / 1e6
            );
        }
        co_return outcome;
    }

    result<std::shared_ptr<PatchTools>> make_tools(const RepositorySettings& settings, Run& run) {
        auto& sandbox = sandboxes_[settings.sandbox];
        if (!sandbox) {
            auto made = vcs::create_sandbox(settings.sandbox);
            if (!made) return made.error();
            sandbox = std::move(*made);
        }
        if (!plain_) plain_ = vcs::create_unconfined();
        return std::make_shared<PatchTools>(PatchTools{desk_, *sandbox, *plain_, http_, folder_, run.give_up}
        );
    }

    asio::awaitable<PatchResult> mend(RunPtr run, PatchResult what, RepositorySettings settings) {
        if (run->machine.repairs() >= plan(settings).repair_rounds) co_return what;
        std::string suggestion = run->row.suggestion, complaint = what.text;
        auto text = co_await analyst_.mend(std::move(suggestion), std::move(complaint));
        if (!text)
            co_return PatchResult{
                Kind::refused, what.text + "; no other form was to be had: " + text.error().text, {}};
        run->facts.edits = std::move(*text);
        co_return what;
    }

    // --- review

    asio::awaitable<PatchResult> review(RunPtr run, RepositorySettings settings) {
        // All suggestions of a bug are tried before one is chosen; the best evidence goes first.
        const auto mine = score_of(*run);
        for (const auto& [id, other] : runs_) {
            if (other == run || other->row.bug != run->row.bug || other->outcome() != PatchOutcome::none)
                continue;
            if (is_trial(other->machine.step()))
                co_return PatchResult{Kind::waiting, "others are still being tried", {}};
            const auto theirs = score_of(*other);
            const bool better = other->machine.step() != PatchStep::review || theirs > mine ||
                                (theirs == mine && other->row.id < run->row.id);
            if (better) {
                (void
                )run->machine.cancel("another suggestion with better evidence is chosen", s_.clock.wall());
                co_return PatchResult{Kind::waiting, "", {}};
            }
        }
        if (settings.autonomy == FixAutonomy::merge) {
            run->facts.unattended = true;
            co_return PatchResult{Kind::approved, "autonomy: merge", {}};
        }
        ApprovalAsk ask;
        ask.kind = "patch";
        ask.subject = run->row.id;
        ask.summary = fmt::format(
            "{}: {} ({} lines in {} files; red without it, green with it)",
            run->facts.bug_code,
            to_valid_utf8(run->facts.title),
            run->facts.lines,
            run->facts.files.size()
        );
        ask.bound = bound_of(*run, settings);
        const auto two = s_.settings->approvals.two_persons;
        ask.needed = two && *two <= Risk::disruptive ? 2 : 1;
        const auto bound = ask.bound;
        // An answer that was given counts, also if it has run out meanwhile: who is asked again is asked
        // something new.
        if (const std::string asked{string_at(run->row.data, "approval")}; !asked.empty()) {
            auto known = co_await s_.approvals->show(asked);
            if (known && known->state == ApprovalState::rejected) {
                co_return PatchResult{
                    Kind::rejected, "rejected: " + known->reason, json::object{{"approval", asked}}};
            }
            if (known && known->state == ApprovalState::expired)
                co_return PatchResult{
                    Kind::rejected, "nobody decided in time", json::object{{"approval", asked}}};
        }
        auto request = co_await s_.approvals->ask(std::move(ask));
        if (!request) co_return PatchResult{Kind::again, request.error().text, {}};
        run->row.data["approval"] = request->id;
        if (request->state != ApprovalState::approved)
            co_return PatchResult{Kind::waiting, "waits for approval", {}};
        std::string kind = "patch", subject = run->row.id;
        auto taken = co_await s_.approvals->take(std::move(kind), std::move(subject), bound);
        if (!taken) co_return PatchResult{Kind::waiting, taken.error().text, {}};
        std::string who;
        for (const auto& vote : taken->votes) {
            if (vote.yes) who += (who.empty() ? "" : ", ") + vote.actor;
        }
        run->facts.approved_by = who;
        co_return PatchResult{
            Kind::approved,
            "approved by " + who,
            json::object{{"approval", taken->id}, {"digest", taken->digest}}};
    }

    void wake_siblings(const Run& run) {
        if (is_trial(run.machine.step())) return;
        for (auto& [id, other] : runs_) {
            if (other->row.bug == run.row.bug && other->row.id != run.row.id &&
                other->machine.step() == PatchStep::review)
                nudge(*other);
        }
    }

    // --- watch

    asio::awaitable<PatchResult> watch(RunPtr run, RepositorySettings settings) {
        if (run->recurred) {
            run->recurred = false;
            co_return PatchResult{Kind::recurred, run->recurrence, {}};
        }
        std::vector<ProbeSettings> probes = settings.probes;
        if (const auto* service = s_.service(run->row.service, run->row.environment))
            probes.insert(probes.end(), service->probes.begin(), service->probes.end());
        Evidence evidence = co_await s_.prober.check(std::move(probes));
        if (run->recurred) {
            run->recurred = false;
            co_return PatchResult{Kind::recurred, run->recurrence, {}};
        }
        json::object kept{
            {"items", std::move(evidence.items)},
            {"positive", evidence.positive},
            {"negative", evidence.negative}};
        if (evidence.negative > 0)
            co_return PatchResult{
                Kind::unhealthy,
                fmt::format("{} probes fail after the deployment", evidence.negative),
                std::move(kept)};
        co_return PatchResult{
            Kind::done,
            evidence.positive > 0 ? "healthy, and the error was not heard"
                                  : "the error was not heard; no probe is configured",
            std::move(kept)};
    }

    // --- what people see at once

    void note(const Run& run, PatchStep step, const PatchResult& outcome) {
        if (outcome.kind == Kind::waiting) return;
        const bool good =
            outcome.kind == Kind::done || outcome.kind == Kind::approved || outcome.kind == Kind::merged;
        s_.metrics.add(
            "heald_patches_total", {{"stage", to_string(step)}, {"outcome", good ? "done" : "stopped"}}
        );
        log::info(
            "patch run {} ({}): {}: {}",
            run.row.id,
            run.facts.bug_code,
            to_string(step),
            to_valid_utf8(outcome.text)
        );
        if (run.outcome() != PatchOutcome::none && step != PatchStep::finish)
            s_.metrics.add("heald_patch_runs_total", {{"outcome", to_string(run.outcome())}});
    }

    void publish(const Run& run) {
        auto data = answer_of(run);
        const auto& e = object_at(run.machine.evidence(), to_string(run.machine.step()));
        data["text"] = string_at(e, "text");
        s_.feed.publish("patch", std::move(data));
    }

    /// A fix that held teaches its pattern; later bugs of its kind try it before any model is asked.
    void learn(const Run& run, RepositorySettings settings) {
        spawn(s_.io, patterns_.learn(std::move(settings), run.row, run.facts), "mining a pattern");
    }

    /// What fixed its kind before did not do here: now the models are asked.
    void ask_models(const Run& run) {
        AnalysisRequest request;
        request.bug = run.row.bug;
        request.actor = "heald";
        spawn(s_.io, analyst_.analyze(std::move(request)), "the analysis of " + run.facts.bug_code);
    }

    static constexpr std::size_t max_runs = 200;  ///< under way at a time

    Shared& s_;
    Analyst& analyst_;
    RepositoryDesk& desk_;
    net::HttpClient& http_;
    std::string folder_;
    std::map<std::string, std::unique_ptr<vcs::Sandbox>> sandboxes_;
    std::unique_ptr<vcs::Sandbox> plain_;
    std::map<std::string, RunPtr> runs_;
    std::set<std::string> watched_;
    std::deque<asio::steady_timer*> slots_waiting_;
    std::string paused_;  ///< why the kill switch is on
    unsigned busy_ = 0, active_ = 0;
    bool stopping_ = false, abandoning_ = false;
    asio::thread_pool pool_;
    CodePatterns patterns_;
};

}  // namespace

std::unique_ptr<Fixer> create_fixer(
    Shared& shared, Analyst& analyst, RepositoryDesk& desk, net::HttpClient& http, std::string folder
) {
    return std::make_unique<FixerImpl>(shared, analyst, desk, http, std::move(folder));
}

}  // namespace heal
