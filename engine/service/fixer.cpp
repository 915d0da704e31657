#include "service/fixer.hpp"

#include "base/faults.hpp"
#include "base/id.hpp"
#include "base/log.hpp"
#include "base/offload.hpp"
#include "core/holds.hpp"
#include "service/analyst.hpp"
#include "service/approvals.hpp"
#include "service/cluster.hpp"
#include "service/healer.hpp"
#include "service/patch_work.hpp"
#include "service/repository_desk.hpp"
#include "store/analysis_store.hpp"
#include "store/bug_store.hpp"
#include "store/fix_store.hpp"
#include "store/healing_store.hpp"
#include "store/queries.hpp"
#include "vcs/pattern.hpp"
#include "vcs/source.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <set>

namespace heal {
namespace asio = boost::asio;
namespace {

using namespace std::chrono_literals;
using Kind = PatchResult::Kind;

/// Steps before people are asked; they run builds and tests, so only so many at a time.
bool is_trial(PatchStep step) { return step < PatchStep::review; }
bool is_heavy(PatchStep step) {
    return is_trial(step) || step == PatchStep::merge || step == PatchStep::deploy ||
           step == PatchStep::redeploy;
}

/// Steps that change something outside of heald.
bool acts(PatchStep step) {
    return step >= PatchStep::push && step != PatchStep::watch && step != PatchStep::finish;
}

/// What was shown here, not what a model believes of itself: reproduced, red to green, red again without it;
/// then the smaller patch, then the one without new files.
std::int64_t score_of(const PatchMachine& machine, const PatchFacts& facts) {
    const auto ok = [&](const char* step) { return bool_at(object_at(machine.evidence(), step), "ok"); };
    std::int64_t score = 0;
    if (ok("gate")) score += 100;
    if (ok("reproduce")) score += 200;
    if (ok("test")) score += 400;
    if (ok("counter")) score += 200;
    if (score == 0) return 0;
    score -= std::min<std::int64_t>(facts.lines, 60);
    score -=
        10 *
        std::min<std::int64_t>(static_cast<std::int64_t>(facts.files.size() - facts.added_tests.size()), 4);
    score += facts.added_tests.empty() ? 0 : 5;
    return std::max<std::int64_t>(score, 0);
}

struct Run {
    sql::PatchRun row;
    PatchMachine machine;
    PatchFacts facts;
    asio::steady_timer wake;
    std::atomic<bool> give_up{false};  ///< ends the command that it runs
    bool woken = false;                ///< somebody has news for it
    bool recurred = false;             ///< heard again since it was deployed
    bool working = false;
    std::string pattern;  ///< id, when its suggestion came from one
    std::string recurrence;

    explicit Run(asio::io_context& io) : wake(io) {}
    PatchOutcome outcome() const { return machine.outcome(); }
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
          pool_(std::max(1U, shared.settings->patches_at_once) + 1) {}

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
        asio::steady_timer pause{s_.io};
        while (!runs_.empty()) {
            end_steps();
            pause.expires_after(20ms);
            co_await pause.async_wait(asio::use_awaitable);
        }
        abandoning_ = false;
    }

    asio::awaitable<result<bool>> try_patterns(std::string bug) override {
        auto about = co_await load_bug(bug);
        if (!about) co_return about.error();
        const auto* settings = repository_of(*s_.settings, std::string{string_at(*about, "service_name")});
        if (!settings || settings->autonomy < FixAutonomy::trial) co_return false;
        auto found = std::make_shared<std::vector<sql::StoredPattern>>();
        auto under_way = std::make_shared<bool>(false);
        Store::Job job = [found,
                          under_way,
                          id = std::string{string_at(*about, "id")},
                          fingerprint = std::string{string_at(*about, "fingerprint")},
                          type = std::string{string_at(*about, "error_type")}](Database& db) -> result<void> {
            auto patterns = sql::load_patterns_for(db, fingerprint, type, "");
            if (!patterns) return patterns.error();
            auto runs = sql::load_patch_runs(db, id);
            if (!runs) return runs.error();
            *under_way = false;
            for (const auto& run : *runs) {
                const auto pattern = string_at(run.data, "pattern");
                if (pattern.empty()) continue;
                *under_way = *under_way || !run.ended_at;
                std::erase_if(*patterns, [&](const sql::StoredPattern& p) { return p.id == pattern; });
            }
            *found = std::move(*patterns);
            return {};
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
        if (*under_way) co_return true;
        if (found->empty()) co_return false;
        struct Fit {
            sql::StoredPattern pattern;
            vcs::Edit edit;
            std::string revision;
        };
        std::optional<Fit> fit;
        const auto repository = *settings;
        const auto trace = std::string{string_at(*about, "stack_trace")};
        const auto release = std::string{string_at(*about, "last_release")};
        const auto look = [&] {
            auto looked = desk_.with(repository, [&](vcs::Repository& r) -> result<std::optional<Fit>> {
                (void)r.fetch();
                auto revision = release.empty() ? r.resolve(repository.branch) : r.resolve(release);
                if (!revision) revision = r.resolve(repository.branch);
                if (!revision) return revision.error();
                auto excerpts = vcs::excerpts(r, *revision, vcs::places_of(trace), 256U << 10U);
                if (!excerpts) return excerpts.error();
                for (const auto& pattern : *found) {
                    for (const auto& e : *excerpts) {
                        if (!e.file.ends_with(pattern.suffix)) continue;
                        auto content = r.show(*revision, e.file);
                        if (!content) continue;
                        const auto lines =
                            static_cast<unsigned>(std::count(e.text.begin(), e.text.end(), '\n')) + 1;
                        auto edit = vcs::apply_pattern(
                            {pattern.search, pattern.replacement, pattern.suffix},
                            e.file,
                            *content,
                            e.first_line,
                            e.first_line + lines
                        );
                        if (edit) return Fit{pattern, std::move(*edit), *revision};
                    }
                }
                return std::optional<Fit>{};
            });
            if (looked) fit = std::move(*looked);
        };
        co_await offload(pool_, look);
        if (!fit) co_return false;
        const std::string edits = fmt::format(
            "{}\n<<<<<<< SEARCH\n{}\n=======\n{}\n>>>>>>> REPLACE\n",
            fit->edit.file,
            fit->edit.search,
            fit->edit.replace
        );
        auto suggestion = std::make_shared<std::string>();
        Store::Job insert = [=,
                             this,
                             pattern = fit->pattern,
                             file = fit->edit.file,
                             revision = fit->revision,
                             id = std::string{string_at(*about, "id")}](Database& db) -> result<void> {
            auto made = sql::insert_pattern_suggestion(db, s_.clock, id, pattern, edits, file, revision);
            if (!made) return made.error();
            *suggestion = *made;
            ignore_conflict(sql::move_bug(
                db, s_.clock, id, BugStatus::fix_suggested, "heald", "a pattern that fixed its kind before"
            ));
            return {};
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(insert)));
        s_.metrics.add("heald_pattern_fits_total");
        auto started = co_await start(std::move(*about), *suggestion, "heald", fit->pattern.id);
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
        asio::steady_timer pause{s_.io};
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
            pause.expires_after(20ms);
            co_await pause.async_wait(asio::use_awaitable);
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

    asio::awaitable<result<std::int64_t>> scan_code() override {
        auto patterns = std::make_shared<std::vector<sql::StoredPattern>>();
        Store::Job job = [patterns](Database& db) -> result<void> {
            auto all = sql::load_all_patterns(db);
            if (!all) return all.error();
            *patterns = std::move(*all);
            return {};
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
        const auto settings = s_.settings;
        json::array items;
        std::string trouble;
        const auto look = [&] {
            for (const auto& repository : settings->repositories) {
                if (repository.autonomy == FixAutonomy::off) continue;
                auto found = desk_.with(repository, [&](vcs::Repository& r) {
                    return scan_one(r, repository, *patterns);
                });
                if (!found) {
                    trouble += fmt::format(
                        "{}{}: {}", trouble.empty() ? "" : "; ", repository.name, found.error().text
                    );
                    continue;
                }
                for (auto& item : *found) items.push_back(std::move(item));
            }
        };
        co_await offload(pool_, look);
        const auto n = static_cast<std::int64_t>(items.size());
        const Time now = s_.clock.wall();
        Store::Job keep = [now,
                           found = json::serialize(json::object{
                               {"at", to_rfc3339(now)},
                               {"patterns", patterns->size()},
                               {"items", std::move(items)},
                               {"trouble", trouble}})](Database& db) {
            return sql::save_engine_state(db, "code_scan", found, now);
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(keep)));
        s_.metrics.set("heald_scan_findings", {}, static_cast<double>(n));
        s_.feed.publish("scan", {{"findings", n}});
        if (!trouble.empty() && n == 0) co_return fail(errc::unavailable, trouble);
        co_return n;
    }

    std::size_t open_count() const override { return runs_.size(); }

    asio::awaitable<void> stop() override {
        stopping_ = true;
        end_steps();
        asio::steady_timer pause{s_.io};
        for (int i = 0; active_ > 0 && i < 500; ++i) {
            pause.expires_after(10ms);
            co_await pause.async_wait(asio::use_awaitable);
        }
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

    static void ignore_conflict(const result<void>& outcome) {
        if (!outcome && outcome.error().code != errc::conflict) log::warn("{}", outcome.error().text);
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
            write_row(*run);
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

    static json::object answer_of(const Run& run) {
        return {
            {"id", run.row.id},
            {"bug_id", run.row.bug},
            {"bug_code", run.facts.bug_code},
            {"suggestion_id", run.row.suggestion},
            {"repository", run.row.repository},
            {"step", to_string(run.machine.step())},
            {"outcome", to_string(run.outcome())},
            {"reason", to_valid_utf8(run.machine.reason())},
            {"branch", run.facts.branch}};
    }

    void launch(const RunPtr& run) {
        // One that was stored a moment ago may have been taken up by recover() already.
        if (!runs_.try_emplace(run->row.id, run).second) return;
        follow(*run);
        ++active_;
        s_.metrics.set("heald_patch_runs_open", {}, static_cast<double>(runs_.size()));
        asio::co_spawn(s_.io, drive(run), [this, run](const std::exception_ptr& error) {
            --active_;
            if (error) log::error("patch run {} ended by a defect; the next start takes it up", run->row.id);
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

    void write_row(Run& run) const {
        auto& row = run.row;
        row.step = to_string(run.machine.step());
        row.outcome = to_string(run.outcome());
        row.reason = to_valid_utf8(run.machine.reason());
        row.revision = run.facts.revision;
        row.patch = to_valid_utf8(run.facts.patch);
        row.patch_hash = run.facts.patch_hash;
        row.branch = run.facts.commit.empty() ? "" : run.facts.branch;
        row.commit = run.facts.commit;
        row.request_url = run.facts.request_url;
        row.data["machine"] = run.machine.save();
        row.data["facts"] = run.facts.save();
        row.data["pattern"] = run.pattern;
        row.updated_at = s_.clock.wall();
        row.next_at = run.machine.next_at();
        if (run.machine.ended()) {
            row.next_at.reset();
            row.ended_at = row.updated_at;
        }
    }

    /// Stores it with what it means for others. Waits while the store is away. False: stopping, or another
    /// node has it.
    asio::awaitable<bool> save(RunPtr run, std::function<result<void>(Database&)> more = {}) {
        write_row(*run);
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
            boost::system::error_code ignored;
            co_await run->wake.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
        }
    }

    asio::awaitable<void> until_due(RunPtr run) {
        while (!ending() && !run->woken) {
            const auto left = run->machine.next_at() - s_.clock.wall();
            if (left.count() <= 0) break;
            run->wake.expires_after(std::min<Duration>(left, 1h));
            boost::system::error_code ignored;
            co_await run->wake.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
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
        asio::steady_timer pause{s_.io};
        while (run->working && !ending()) {
            if (!held(*run).empty()) run->give_up.store(true);
            pause.expires_after(200ms);
            boost::system::error_code ignored;
            co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
        }
    }

    /// One of the places for work that keeps a processor busy.
    asio::awaitable<bool> take_slot(RunPtr run) {
        while (!ending() && busy_ >= std::max(1U, s_.settings->patches_at_once)) {
            asio::steady_timer turn{s_.io};
            turn.expires_after(1h);
            slots_waiting_.push_back(&turn);
            boost::system::error_code ignored;
            co_await turn.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
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
                co_await note(run, run->machine.step(), {});
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
                        boost::system::error_code ignored;
                        co_await run->wake.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
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
                std::function<result<void>(Database&)> intent = entering(*run, step);
                const bool stored = co_await save(run, std::move(intent));
                if (!stored || faults::pass("patch.intent")) break;
            }
            begun.reset();
            publish(*run);
            run->working = true;
            if (acts(step)) {
                asio::co_spawn(s_.io, mind(run), [](const std::exception_ptr& error) {
                    if (error) log::error("minding a patch run ended by a defect");
                });
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
            co_await note(run, step, outcome);
            std::function<result<void>(Database&)> after = leaving(*run, step, was_stable);
            if (may_go_on(*run, step, slot)) {
                begun = run->machine.step();
                run->machine.begin(s_.clock.wall());
                after = both(std::move(after), entering(*run, *begun));
            } else {
                give_back();
            }
            if (!co_await save(run, std::move(after))) break;
            (void)faults::pass("patch.result");
            publish(*run);
            wake_siblings(*run);
            if (begun && faults::pass("patch.intent")) break;
            if (!run->machine.ended()) continue;
            learn(*run);
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

    static std::function<result<void>(Database&)> both(
        std::function<result<void>(Database&)> one, std::function<result<void>(Database&)> other
    ) {
        if (!one || !other) return one ? one : other;
        return [one = std::move(one), other = std::move(other)](Database& db) -> result<void> {
            HEAL_TRY(one(db));
            return other(db);
        };
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

    json::object bound_of(const Run& run, const RepositorySettings& settings) const {
        const auto commands = [](const std::vector<CommandSettings>& list) {
            json::array out;
            for (const auto& c : list) out.push_back(json::array(c.argv.begin(), c.argv.end()));
            return out;
        };
        json::array tests;
        for (const char* step : {"reproduce", "test", "counter"}) {
            const auto& found = object_at(run.machine.evidence(), step);
            tests.push_back(json::object{
                {"step", step}, {"ok", bool_at(found, "ok")}, {"text", string_at(found, "text")}});
        }
        return {
            {"run", run.row.id},
            {"bug", run.facts.bug_code},
            {"fingerprint", run.row.fingerprint},
            {"repository", settings.name},
            {"url", settings.url},
            {"branch", settings.branch},
            {"revision", run.facts.revision},
            {"patch_hash", run.facts.patch_hash},
            {"files", run.facts.files},
            {"lines", run.facts.lines},
            {"tests", std::move(tests)},
            {"forge", settings.forge_kind.empty() ? "" : settings.forge_kind + ":" + settings.forge_project},
            {"deploy", commands(settings.deploy)}};
    }

    asio::awaitable<PatchResult> review(RunPtr run, RepositorySettings settings) {
        // All suggestions of a bug are tried before one is chosen; the best evidence goes first.
        const auto mine = score_of(run->machine, run->facts);
        for (const auto& [id, other] : runs_) {
            if (other == run || other->row.bug != run->row.bug || other->outcome() != PatchOutcome::none)
                continue;
            if (is_trial(other->machine.step()))
                co_return PatchResult{Kind::waiting, "others are still being tried", {}};
            const auto theirs = score_of(other->machine, other->facts);
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

    std::string request_body(const Run& run) const {
        // Text of a model and of logs is shown as text: no image, link or mention of it is live.
        const auto plain = [](std::string_view text) {
            std::string out;
            for (const char c : to_valid_utf8(text)) {
                if (c == '<' || c == '>' || c == '[' || c == ']' || c == '!' || c == '@' || c == '#' ||
                    c == '`')
                    out += '\\';
                out += c;
            }
            return out;
        };
        std::string body = fmt::format("{}\n\n", plain(run.facts.description));
        body += fmt::format(
            "| | |\n|---|---|\n| Bug | {} |\n| Fingerprint | `{}` |\n| Service | {} |\n| Made for | `{}` "
            "|\n| Patch (SHA-256) | `{}` "
            "|\n| Approved by | {} |\n\n### What was shown here\n\n",
            run.facts.bug_code,
            run.row.fingerprint,
            plain(run.row.service),
            run.facts.revision,
            run.facts.patch_hash,
            run.facts.unattended ? "nobody (autonomy: merge)" : plain(run.facts.approved_by)
        );
        for (const char* step : {"gate", "reproduce", "build", "test", "counter"}) {
            const auto& e = object_at(run.machine.evidence(), step);
            body +=
                fmt::format("- {} {}: {}\n", bool_at(e, "ok") ? "✓" : "✗", step, plain(string_at(e, "text")));
        }
        return body + fmt::format("\nMade by heald as run `{}`.\n", run.row.id);
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

    // --- what a run means for its bug

    /// Together with the intent of a step.
    std::function<result<void>(Database&)> entering(Run& run, PatchStep step) {
        std::optional<BugStatus> to;
        if (step == PatchStep::commit) to = BugStatus::applying;
        if (step == PatchStep::deploy) to = BugStatus::testing;
        if (!to) return {};
        return
            [this, bug = run.row.bug, id = run.row.id, to = *to, fix = fix_of(run, "applying")](Database& db
            ) -> result<void> {
                ignore_conflict(sql::move_bug(db, s_.clock, bug, to, "heald", "patch run " + id));
                auto record = fix;
                if (to == BugStatus::testing) record.status = "testing";
                return sql::save_fix(db, record);
            };
    }

    sql::FixRecord fix_of(const Run& run, const char* status) const {
        sql::FixRecord f;
        f.run = run.row.id;
        f.bug = run.row.bug;
        f.suggestion = run.row.suggestion;
        f.status = status;
        f.branch = run.facts.branch;
        f.commit = run.facts.merged.empty() ? run.facts.commit : run.facts.merged;
        f.request_url = run.facts.request_url;
        f.actor = run.facts.approved_by.empty() ? "heald" : run.facts.approved_by;
        f.tests_passed = bool_at(object_at(run.machine.evidence(), "test"), "ok");
        f.test_output = json::serialize(object_at(run.machine.evidence(), "test"));
        f.started_at = s_.clock.wall();
        if (run.machine.deployed_at().us != 0) f.deployed_at = run.machine.deployed_at();
        return f;
    }

    /// Together with the result of a step.
    std::function<result<void>(Database&)> leaving(Run& run, PatchStep step, bool was_stable) {
        const Time now = s_.clock.wall();
        const auto outcome = run.outcome();
        const bool ended_now = outcome != PatchOutcome::none && step != PatchStep::finish;
        const bool became_stable = run.machine.stable() && !was_stable;
        const bool approved = step == PatchStep::review && run.machine.step() == PatchStep::commit;
        const bool tried = is_trial(step);
        if (!ended_now && !became_stable && !approved && !tried) return {};
        std::optional<sql::FixRecord> fix;
        if (became_stable) fix = fix_of(run, "succeeded");
        if (ended_now && run.machine.landed()) {
            fix = fix_of(
                run,
                outcome == PatchOutcome::did_not_hold ? "rolled_back"
                : outcome == PatchOutcome::failed     ? "failed"
                                                      : "succeeded"
            );
            fix->ended_at = now;
            fix->verdict = to_string(outcome);
            fix->error = outcome == PatchOutcome::held || outcome == PatchOutcome::proposed
                             ? ""
                             : run.machine.reason();
            if (outcome == PatchOutcome::held) fix->held_at = now;
            if (outcome == PatchOutcome::did_not_hold) fix->rolled_back_at = now;
        } else if (ended_now && !run.facts.commit.empty()) {
            fix = fix_of(run, outcome == PatchOutcome::proposed ? "succeeded" : "failed");
            fix->ended_at = now;
            fix->verdict = to_string(outcome);
            if (outcome != PatchOutcome::proposed) fix->error = run.machine.reason();
        }
        json::object evidence{
            {"run", run.row.id},
            {"outcome", to_string(outcome)},
            {"reason", to_valid_utf8(run.machine.reason())},
            {"lines", run.facts.lines}};
        for (const char* name : {"gate", "reproduce", "build", "test", "counter"}) {
            const auto& e = object_at(run.machine.evidence(), name);
            if (!e.empty())
                evidence[name] = json::object{{"ok", bool_at(e, "ok")}, {"text", string_at(e, "text")}};
        }
        return [=,
                this,
                bug = run.row.bug,
                suggestion = run.row.suggestion,
                id = run.row.id,
                score = score_of(run.machine, run.facts),
                reason = to_valid_utf8(run.machine.reason()),
                patch = to_valid_utf8(run.facts.patch),
                who = run.facts.approved_by,
                merged = run.facts.merged,
                landed = run.machine.landed(),
                committed = !run.facts.commit.empty(),
                pattern = run.pattern](Database& db) -> result<void> {
            const auto move = [&](BugStatus to, const std::string& text) {
                ignore_conflict(sql::move_bug(db, s_.clock, bug, to, "heald", text));
            };
            if (tried || ended_now) HEAL_TRY(sql::set_suggestion_evidence(db, suggestion, evidence, score));
            if (approved) {
                HEAL_TRY(sql::decide_suggestion(
                    db, suggestion, "approved", patch, who.empty() ? "heald" : who, now
                ));
                move(BugStatus::fix_suggested, "patch run " + id);
                move(BugStatus::approved, who.empty() ? "autonomy: merge" : "approved by " + who);
            }
            if (fix) HEAL_TRY(sql::save_fix(db, *fix));
            if (became_stable) {
                sql::BugChange fixed;
                fixed.action = "fix";
                fixed.actor = "heald";
                fixed.text = "deployed, healthy, and the error was not heard since; run " + id;
                fixed.release = merged;
                auto changed = sql::change_bug(db, s_.clock, bug, fixed);
                if (!changed && changed.error().code != errc::conflict) return changed.error();
                HEAL_TRY(
                    sql::decide_suggestion(db, suggestion, "applied", "", who.empty() ? "heald" : who, now)
                );
            }
            if (!ended_now) return {};
            switch (outcome) {
                case PatchOutcome::did_not_hold:
                    move(BugStatus::failed, "the fix did not hold: " + reason);
                    move(BugStatus::reopened, "the fix did not hold: " + reason);
                    HEAL_TRY(sql::decide_suggestion(db, suggestion, "rejected", "", "heald", now));
                    break;
                case PatchOutcome::rejected:
                    HEAL_TRY(sql::decide_suggestion(
                        db, suggestion, "rejected", "", who.empty() ? "people" : who, now
                    ));
                    if (committed) move(BugStatus::failed, reason);
                    break;
                case PatchOutcome::failed:
                case PatchOutcome::refused:
                    if (committed || landed) move(BugStatus::failed, reason);
                    break;
                default:
                    break;
            }
            if (!pattern.empty() && (outcome == PatchOutcome::held || outcome == PatchOutcome::did_not_hold ||
                                     outcome == PatchOutcome::refused))
                HEAL_TRY(sql::count_pattern(db, pattern, outcome == PatchOutcome::held, now));
            HEAL_TRY(sql::note_bug(
                db,
                s_.clock,
                bug,
                "heald",
                "patch",
                "",
                "",
                fmt::format("run {} {}: {}", id, to_string(outcome), reason)
            ));
            return sql::append_audit(
                db,
                now,
                "heald",
                "patch.end",
                id,
                json::serialize(json::object{{"outcome", to_string(outcome)}, {"reason", reason}})
            );
        };
    }

    /// What people see at once.
    asio::awaitable<void> note(RunPtr run, PatchStep step, PatchResult outcome) {
        if (outcome.kind == Kind::waiting) co_return;
        const bool good =
            outcome.kind == Kind::done || outcome.kind == Kind::approved || outcome.kind == Kind::merged;
        s_.metrics.add(
            "heald_patches_total", {{"stage", to_string(step)}, {"outcome", good ? "done" : "stopped"}}
        );
        log::info(
            "patch run {} ({}): {}: {}",
            run->row.id,
            run->facts.bug_code,
            to_string(step),
            to_valid_utf8(outcome.text)
        );
        if (run->outcome() != PatchOutcome::none && step != PatchStep::finish)
            s_.metrics.add("heald_patch_runs_total", {{"outcome", to_string(run->outcome())}});
        co_return;
    }

    void publish(const Run& run) {
        auto data = answer_of(run);
        const auto& e = object_at(run.machine.evidence(), to_string(run.machine.step()));
        data["text"] = string_at(e, "text");
        s_.feed.publish("patch", std::move(data));
    }

    // --- patterns

    /// What fixed its kind before did not do here: now the models are asked.
    void ask_models(const Run& run) {
        AnalysisRequest request;
        request.bug = run.row.bug;
        request.actor = "heald";
        asio::co_spawn(
            s_.io,
            analyst_.analyze(std::move(request)),
            [code =
                 run.facts.bug_code](const std::exception_ptr& error, const result<json::object>& outcome) {
                if (error)
                    log::error("the analysis of {} ended by a defect", code);
                else if (!outcome)
                    log::warn("{} was not analysed: {}", code, outcome.error().text);
            }
        );
    }

    /// A fix that held teaches its pattern; later bugs of its kind try it before any model is asked.
    void learn(Run& run) {
        if (run.outcome() != PatchOutcome::held || !run.pattern.empty()) return;
        const auto* known = find_settings(run.row.repository);
        if (!known) return;
        asio::co_spawn(s_.io, mine(*known, run.row, run.facts), [](const std::exception_ptr& error) {
            if (error) log::error("mining a pattern ended by a defect");
        });
    }

    asio::awaitable<void> mine(RepositorySettings settings, sql::PatchRun row, PatchFacts facts) {
        std::optional<vcs::CodePattern> pattern;
        const auto look = [&] {
            (void)desk_.with(settings, [&](vcs::Repository& r) -> result<void> {
                for (const auto& file : facts.files) {
                    const std::string path{view(file.as_string())};
                    const bool is_test =
                        std::any_of(facts.added_tests.begin(), facts.added_tests.end(), [&](const auto& t) {
                            return view(t.as_string()) == path;
                        });
                    if (is_test) continue;
                    if (pattern) {  // of one file only: a pattern is small
                        pattern.reset();
                        return {};
                    }
                    auto before = r.show(facts.revision, path);
                    auto after = r.show(facts.commit, path);
                    if (!before || !after) return {};
                    pattern = vcs::mine_pattern(path, *before, *after);
                    if (!pattern) return {};
                }
                return {};
            });
        };
        co_await offload(pool_, look);
        if (!pattern) co_return;
        auto about = co_await load_bug(row.bug);
        if (!about) co_return;
        sql::StoredPattern learned;
        learned.fingerprint = row.fingerprint;
        learned.service = row.service;
        learned.error_type = string_at(*about, "error_type");
        learned.title = to_valid_utf8(facts.title);
        learned.search = pattern->search;
        learned.replacement = pattern->replace;
        learned.suffix = pattern->suffix;
        auto tips = std::make_shared<json::array>();
        Store::Job job = [=, this](Database& db) -> result<void> {
            constexpr Statement newest{
                "prevention tips of a bug",
                "SELECT prevention_tips FROM bug_analyses WHERE bug_id = $1 ORDER BY at DESC LIMIT 1"};
            HEAL_TRY(db.query(newest, {std::string_view{row.bug}}, [&](const Row& r) {
                auto parsed = parse_json(r.text(0), "tips");
                if (parsed && parsed->is_array()) *tips = std::move(parsed->get_array());
            }));
            return sql::learn_pattern(db, s_.clock, learned, row.suggestion, facts.patch, *tips);
        };
        auto stored = co_await s_.store.write(std::move(job));
        if (stored)
            log::info("a pattern was learned from patch run {}", row.id);
        else
            log::warn("a pattern could not be stored: {}", stored.error().text);
    }

    static result<json::array> scan_one(
        vcs::Repository& r,
        const RepositorySettings& repository,
        const std::vector<sql::StoredPattern>& patterns
    ) {
        (void)r.fetch();
        auto head = r.resolve(repository.branch);
        if (!head) return head.error();
        auto files = r.files(*head);
        if (!files) return files.error();
        json::array items;
        for (const auto& file : *files) {
            const bool wanted = std::any_of(patterns.begin(), patterns.end(), [&](const auto& p) {
                return file.ends_with(p.suffix);
            });
            if (!wanted) continue;
            auto content = r.show(*head, file);
            if (!content) continue;
            for (const auto& p : patterns) {
                if (!file.ends_with(p.suffix)) continue;
                for (const auto& match :
                     vcs::find_pattern({p.search, p.replacement, p.suffix}, file, *content)) {
                    if (items.size() >= max_findings) return items;
                    items.push_back(json::object{
                        {"repository", repository.name},
                        {"revision", *head},
                        {"file", file},
                        {"line", match.first_line},
                        {"pattern", p.id},
                        {"title", p.title},
                        {"text", to_valid_utf8(match.text)},
                        {"replacement", to_valid_utf8(match.replace)}});
                }
            }
        }
        return items;
    }

    static constexpr std::size_t max_runs = 200;       ///< under way at a time
    static constexpr std::size_t max_findings = 1000;  ///< of a scan

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
};

}  // namespace

std::unique_ptr<Fixer> create_fixer(
    Shared& shared, Analyst& analyst, RepositoryDesk& desk, net::HttpClient& http, std::string folder
) {
    return std::make_unique<FixerImpl>(shared, analyst, desk, http, std::move(folder));
}

}  // namespace heal
