#include "service/healer.hpp"

#include "base/id.hpp"
#include "base/log.hpp"
#include "core/rules.hpp"
#include "service/cluster.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace heal {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

std::string key_of(const std::string& fingerprint, const std::string& environment) {
    return fingerprint + '\x1f' + environment;
}

/// Longest time a fingerprint that could not be healed is left alone.
constexpr Duration longest_quiet = 1h;
/// A strategy's assess is a question, not an action; borders.md measures 40-60 µs for one.
constexpr std::chrono::milliseconds assess_timeout{1000};

std::string to_text(const StrategyCall& call) {
    return json::serialize(json::object{
        {"strategy", call.strategy},
        {"request", call.request},
        {"grants", json::array(call.grants.begin(), call.grants.end())},
        {"timeout_ms", call.timeout.count()},
        {"dry_run", call.dry_run}});
}

StrategyCall call_from(const std::string& attempt, const std::string& text) {
    StrategyCall call;
    call.attempt = attempt;
    auto parsed = parse_json(text, "request");
    if (!parsed || !parsed->is_object()) return call;
    const auto& o = parsed->get_object();
    call.strategy = string_at(o, "strategy");
    call.request = object_at(o, "request");
    for (const auto& grant : array_at(o, "grants")) call.grants.emplace_back(view(grant.as_string()));
    call.timeout = std::chrono::milliseconds{int_at(o, "timeout_ms", 30'000)};
    call.dry_run = bool_at(o, "dry_run");
    return call;
}

/// Whether the intent of an attempt is stored. Its strategy is called while the commit runs; its effects wait
/// for this.
struct IntentGate {
    explicit IntentGate(asio::io_context& io) : wake(io, asio::steady_timer::time_point::max()) {}
    void settle(result<void> result) {
        stored = std::move(result);
        wake.cancel();
    }
    asio::awaitable<result<void>> wait() {
        boost::system::error_code ignored;
        while (!stored) co_await wake.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
        co_return *stored;
    }
    std::optional<result<void>> stored;
    asio::steady_timer wake;
};

class AttemptLedger final : public EffectLedger {
public:
    /// @param intent  null: stored long ago
    AttemptLedger(
        Shared& shared, std::string attempt, std::string event, std::shared_ptr<IntentGate> intent = nullptr
    )
        : shared_(shared),
          attempt_(std::move(attempt)),
          event_(std::move(event)),
          intent_(std::move(intent)) {}

    asio::awaitable<result<void>> intent_durable() override {
        if (!intent_) co_return still_ours();
        auto stored = co_await intent_->wait();
        co_return stored ? still_ours() : stored;
    }

    asio::awaitable<result<void>> begin(Effect effect) override {
        HEAL_CO_TRY(still_ours());
        auto row = std::make_shared<sql::ActionRow>();
        row->id = new_id(shared_.clock);
        row->attempt = attempt_;
        row->event = event_;
        row->phase = effect.phase;
        row->step = effect.step;
        row->kind = effect.kind;
        row->summary = effect.summary;
        row->parameters = json::serialize(effect.parameters);
        row->capability = effect.capability;
        row->changes_world = effect.changes_world;
        row->undoable = effect.undoable;
        row->undo = effect.undo.empty() ? "{}" : json::serialize(effect.undo);
        row->undoes_step = effect.undoes_step;
        row->started_at = shared_.clock.wall();
        undoes_[{effect.phase, effect.step}] = effect.undoes_step;
        summaries_[{effect.phase, effect.step}] = effect.summary;
        Store::Job job = [row](Database& db) { return sql::insert_action(db, *row); };
        if (effect.changes_world && effect.undoable) co_return co_await shared_.store.write(std::move(job));
        // Not waited for: the attempt's own intent is durable, and there is nothing to take back.
        shared_.store.submit(std::move(job), [](result<void> outcome) {
            if (!outcome) log::warn("an effect was not recorded: {}", outcome.error().text);
        });
        co_return result<void>{};
    }

    void end(EffectResult r) override {
        const std::string state = r.skipped ? "skipped" : r.ok ? "done" : "failed";
        const auto undoes = undoes_[{r.phase, r.step}];
        shared_.feed.publish(
            "action",
            {{"event", event_},
             {"attempt", attempt_},
             {"phase", r.phase},
             {"step", r.step},
             {"summary", to_valid_utf8(summaries_[{r.phase, r.step}])},
             {"state", state},
             {"error", to_valid_utf8(r.error)},
             {"duration_us", r.duration.count()}}
        );
        shared_.store.keep(
            [attempt = attempt_, r = std::move(r), state, undoes](Database& db) -> result<void> {
                HEAL_TRY(sql::end_action(
                    db,
                    attempt,
                    r.phase,
                    r.step,
                    state,
                    json::serialize(r.result),
                    r.error,
                    r.duration.count()
                ));
                if (r.phase == "undo" && r.ok && undoes > 0) HEAL_TRY(sql::mark_undone(db, attempt, undoes));
                return {};
            },
            [](result<void> outcome) {
                if (!outcome) log::warn("the result of an effect was not recorded: {}", outcome.error().text);
            }
        );
    }

    void log(Level level, std::string message, json::object fields, double progress) override {
        json::object data{
            {"event", event_},
            {"attempt", attempt_},
            {"level", to_string(level)},
            {"message", to_valid_utf8(message)},
            {"fields", std::move(fields)}};
        if (progress >= 0) data["progress"] = progress;
        shared_.feed.publish("log", std::move(data));
    }

private:
    /// A node that was stopped for a while must not act on what another one heals by now.
    result<void> still_ours() const {
        if (!shared_.cluster || shared_.cluster->holds()) return {};
        return fail(errc::denied, "this node's lease ran out; another one may heal this by now");
    }

    Shared& shared_;
    std::string attempt_, event_;
    std::shared_ptr<IntentGate> intent_;
    std::map<std::pair<std::string, std::int64_t>, std::int64_t> undoes_;
    std::map<std::pair<std::string, std::int64_t>, std::string> summaries_;
};

/// A strategy's execute under way.
struct Execution {
    explicit Execution(asio::io_context& io) : wake(io, asio::steady_timer::time_point::max()) {}
    asio::awaitable<StrategyReply> wait() {
        boost::system::error_code ignored;
        while (!reply) co_await wake.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
        co_return std::move(*reply);
    }
    std::optional<StrategyReply> reply;
    Duration started{0};
    asio::steady_timer wake;
};

asio::awaitable<void> call_strategy(
    StrategyRunner& runner,
    StrategyCall call,
    std::shared_ptr<AttemptLedger> ledger,
    std::shared_ptr<Execution> execution
) {
    // A turn later: the store's thread gets its work before the host does.
    co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
    execution->reply = co_await runner.execute(std::move(call), *ledger);
    execution->wake.cancel();
}

struct Run {
    Run(asio::io_context& io, Incident in) : incident(std::move(in)), wake(io) {}
    Incident incident;
    json::object target;
    std::vector<ProbeSettings> probes;
    std::optional<HealingMachine> machine;
    std::deque<HealingInput> inbox;
    asio::steady_timer wake;
    std::optional<Duration> due;  ///< steady time of the machine's wait
    std::vector<Candidate> unranked;
    std::string attempt, approver;
    StrategyCall call;
    std::shared_ptr<Execution> execution;
    bool dry_run = false, executing = false, resumed = false;
    unsigned attempts = 0;
    json::array verdicts;
    Evidence evidence;
    std::vector<sql::AttemptRow> earlier;  ///< of before a restart
};
using RunPtr = std::shared_ptr<Run>;

class HealerImpl final : public Healer {
public:
    explicit HealerImpl(Shared& shared) : s_(shared) {}

    std::string occurred(
        const std::string& fingerprint, const std::string& environment, std::uint64_t count, Time at
    ) override {
        const auto it = runs_.find(key_of(fingerprint, environment));
        if (it == runs_.end()) return {};
        auto& run = *it->second;
        run.incident.count += count;
        run.incident.last_at = std::max(run.incident.last_at, at);
        std::erase_if(run.inbox, [](const HealingInput& i) {
            return std::holds_alternative<input::Recurred>(i);
        });
        put(run, input::Recurred{at});
        return run.incident.id;
    }

    bool recurred_after_healing(const std::string& fingerprint, const std::string& environment, Time at)
        override {
        const auto it = held_.find(key_of(fingerprint, environment));
        if (it == held_.end() || at <= it->second.healed_at) return false;
        const auto held = it->second;
        held_.erase(it);
        if (at >= held.hold_until) return false;
        const Time now = s_.clock.wall();
        book_.correct(held.healed_by, held.fingerprint, held.service, now);
        excluded_[key_of(fingerprint, environment)] = held.healed_by;
        s_.feed.publish(
            "end",
            {{"event", held.id},
             {"state", "did_not_hold"},
             {"reason", "the error came back within the hold window"}}
        );
        s_.metrics.add("heald_incidents_total", {{"state", "did_not_hold"}});
        submit("did_not_hold", [held, now](Database& db) -> result<void> {
            auto attempts = sql::load_attempts(db, held.id);
            if (!attempts) return attempts.error();
            for (const auto& a : *attempts) {
                if (a.verified == "succeeded")
                    HEAL_TRY(sql::verify_attempt(db, a.id, "did_not_hold", "", now));
            }
            HEAL_TRY(sql::finish_event(
                db,
                held.id,
                {EventState::did_not_hold,
                 "the error came back within the hold window",
                 "auto",
                 held.healed_by,
                 {},
                 held.hold_until},
                now
            ));
            return sql::append_audit(db, now, "heald", "event.did_not_hold", held.id, "{}");
        });
        return true;
    }

    bool is_quiet(const std::string& fingerprint, const std::string& environment) const override {
        const auto it = quiet_.find(key_of(fingerprint, environment));
        return it != quiet_.end() && it->second.until > s_.clock.wall();
    }

    void open(Incident incident, std::vector<Candidate> candidates) override {
        if (ending()) return;
        auto run = std::make_shared<Run>(s_.io, std::move(incident));
        run->unranked = std::move(candidates);
        s_.feed.publish(
            "incident",
            {{"event", run->incident.id},
             {"fingerprint", run->incident.fingerprint},
             {"service", run->incident.service_name},
             {"environment", run->incident.environment},
             {"severity", to_string(run->incident.severity)},
             {"trigger", run->incident.trigger},
             {"message", to_valid_utf8(title_of(run->incident.record))},
             {"first_event_at", to_rfc3339(run->incident.first_at)}}
        );
        // In a cluster the row comes with the claim, which may find that another node has the incident.
        if (!s_.cluster) submit("event", store_event(*run));
        start(std::move(run));
    }

    void take_up(std::vector<sql::TakenOver> taken) override {
        for (auto& t : taken) take_up(std::move(t.event), std::move(t.attempts));
    }

    asio::awaitable<void> abandon() override {
        abandoning_ = true;
        asio::steady_timer pause{s_.io};
        while (!runs_.empty()) {
            for (const auto& [key, run] : runs_) {
                run->wake.cancel();
                if (run->executing) s_.runner.cancel(run->attempt);
            }
            pause.expires_after(20ms);
            co_await pause.async_wait(asio::use_awaitable);
        }
        abandoning_ = false;
    }

    void catch_up(const sql::ClaimedCount& c) override {
        const auto it = runs_.find(key_of(c.fingerprint, c.environment));
        if (it == runs_.end() || it->second->incident.id != c.event || it->second->incident.count >= c.count)
            return;
        occurred(c.fingerprint, c.environment, c.count - it->second->incident.count, c.last_seen);
    }

    void learn_held(sql::HeldEvent held) override {
        held_.try_emplace(key_of(held.fingerprint, held.environment), held);
    }

    asio::awaitable<result<void>> recover() override {
        std::vector<sql::OpenEvent> open_events;
        std::map<std::string, std::vector<sql::AttemptRow>> attempts;
        std::vector<AttemptFact> history;
        std::vector<sql::OutcomeRow> outcomes;
        std::vector<sql::HeldEvent> holding;
        std::vector<sql::QuietEvent> given_up;
        const Time now = s_.clock.wall();
        // A job may run twice (store.hpp): it only reads; what it read is used below.
        HEAL_CO_TRY(co_await s_.store.write([&](Database& db) -> result<void> {
            auto settled = sql::settle_intents(db);
            if (!settled) return settled.error();
            auto facts = sql::load_history(db, now - Duration{1h});
            if (!facts) return facts.error();
            history = std::move(*facts);
            auto book = sql::load_outcomes(db, 50'000);
            if (!book) return book.error();
            outcomes = std::move(*book);
            auto held = sql::load_holding(db);
            if (!held) return held.error();
            holding = std::move(*held);
            auto quiet = sql::load_recently_given_up(db, now - longest_quiet);
            if (!quiet) return quiet.error();
            given_up = std::move(*quiet);
            // In a cluster what is open is claimed first (take_up).
            if (s_.cluster) return {};
            auto events = sql::load_open_events(db);
            if (!events) return events.error();
            open_events = std::move(*events);
            for (const auto& e : open_events) {
                auto rows = sql::load_attempts(db, e.incident.id);
                if (!rows) return rows.error();
                attempts[e.incident.id] = std::move(*rows);
            }
            return {};
        }));
        for (auto& fact : history) history_.started(std::move(fact));
        for (const auto& o : outcomes)
            book_.record(o.strategy, o.fingerprint, o.service, o.verified == "succeeded", o.at);
        for (auto& h : holding) held_[key_of(h.fingerprint, h.environment)] = std::move(h);
        for (const auto& q : given_up) keep_quiet(key_of(q.fingerprint, q.environment), q.closed_at);
        history_loaded_ = true;
        for (auto& e : open_events) {
            auto& rows = attempts[e.incident.id];
            take_up(std::move(e), std::move(rows));
        }
        co_return result<void>{};
    }

    result<void> approve(const std::string& event, const std::string& strategy, const std::string& actor)
        override {
        auto* run = asked(event);
        if (!run) return not_asked(event);
        run->approver = actor;
        put(*run, input::Approved{strategy});
        return {};
    }

    result<void> reject(const std::string& event, const std::string& reason, const std::string& actor)
        override {
        auto* run = asked(event);
        if (!run) return not_asked(event);
        put(*run,
            input::Rejected{fmt::format("{} ({})", reason.empty() ? "no reason given" : reason, actor)});
        return {};
    }

    void set_paused(std::optional<bool> paused, std::string reason) override {
        paused_ = paused;
        pause_reason_ = std::move(reason);
        if (paused_.value_or(true)) {
            for (const auto& [key, run] : runs_) {
                if (run->executing) s_.runner.cancel(run->attempt);
            }
        }
    }

    void strategies_changed() override { quiet_.clear(); }
    std::size_t open_count() const override { return runs_.size(); }
    const GuardCounters& guard_counters() const override { return counters_; }
    const OutcomeBook& outcomes() const override { return book_; }

    void housekeeping() override {
        const Time now = s_.clock.wall();
        if (std::exchange(unsettled_, false)) {
            s_.store.submit(
                [](Database& db) -> result<void> {
                    auto settled = sql::settle_intents(db);
                    if (!settled) return settled.error();
                    return {};
                },
                [this](result<void> outcome) { unsettled_ = unsettled_ || !outcome; }
            );
        }
        history_.forget_before(now - Duration{1h} - s_.settings->limits.cooldown);
        std::erase_if(quiet_, [&](const auto& item) { return item.second.until + longest_quiet < now; });
        for (auto it = held_.begin(); it != held_.end();) {
            if (it->second.hold_until > now) {
                ++it;
                continue;
            }
            submit("held", [held = it->second, now](Database& db) {
                return sql::finish_event(
                    db,
                    held.id,
                    {EventState::held,
                     fmt::format("healed by '{}' and held", held.healed_by),
                     "auto",
                     held.healed_by,
                     {},
                     held.hold_until},
                    now
                );
            });
            it = held_.erase(it);
        }
    }

    asio::awaitable<void> stop(std::chrono::milliseconds grace) override {
        stopping_ = true;
        for (const auto& [key, run] : runs_) run->wake.cancel();
        const auto until = s_.clock.steady() + Duration{grace};
        asio::steady_timer pause{s_.io};
        while (std::any_of(runs_.begin(), runs_.end(), [](const auto& r) { return r.second->executing; }) &&
               s_.clock.steady() < until) {
            pause.expires_after(10ms);
            co_await pause.async_wait(asio::use_awaitable);
        }
    }

private:
    struct Quiet {
        Time until;
        Duration span{0};
    };

    // --- small helpers
    // --------------------------------------------------------------------------------------------

    /// What became of an incident is stored, however long the store is away.
    void submit(const char* what, Store::Job job) {
        s_.store.keep(std::move(job), [what](result<void> outcome) {
            if (!outcome) log::error("not stored ({}): {}", what, outcome.error().text);
        });
    }

    static void put(Run& run, HealingInput in) {
        run.inbox.push_back(std::move(in));
        run.wake.cancel();
    }

    Run* asked(const std::string& event) const {
        for (const auto& [key, run] : runs_) {
            if (run->incident.id == event && run->machine &&
                run->machine->state() == EventState::awaiting_approval)
                return run.get();
        }
        return nullptr;
    }
    Error not_asked(const std::string& event) const {
        for (const auto& [key, run] : runs_) {
            if (run->incident.id == event)
                return fail(errc::conflict, fmt::format("event {} does not wait for approval", event));
        }
        return fail(errc::not_found, fmt::format("there is no open event {}", event));
    }

    void keep_quiet(const std::string& key, Time from) {
        auto& quiet = quiet_[key];
        const Duration base = std::max<Duration>(s_.settings->limits.cooldown, Duration{0});
        quiet.span = quiet.span.count() == 0 ? base : std::min<Duration>(quiet.span * 2, longest_quiet);
        quiet.until = from + quiet.span;
    }

    Store::Job store_event(const Run& run) {
        return [incident = run.incident](Database& db) {
            return sql::insert_event(db, incident, incident.opened_at);
        };
    }

    void take_up(sql::OpenEvent event, std::vector<sql::AttemptRow> attempts) {
        auto run = std::make_shared<Run>(s_.io, std::move(event.incident));
        run->resumed = true;
        run->earlier = std::move(attempts);
        const auto* service = s_.service(run->incident.service_name, run->incident.environment);
        const json::object facts = service ? service->facts : json::object{};
        // The trigger fired before; it need not fire again.
        run->unranked =
            s_.strategies.fitting(run->incident, facts, [](Duration) { return ~std::uint64_t{0}; });
        log::info("taking up event {} of {} where it stood", run->incident.id, run->incident.service_name);
        start(std::move(run));
    }

    /// True: this node heals the incident.
    asio::awaitable<bool> claimed(Run& run) {
        while (s_.cluster && !run.resumed && !ending()) {
            auto incident = run.incident;
            auto mine = co_await s_.cluster->claim(std::move(incident));
            if (mine) co_return *mine;
            log::warn("event {} could not be claimed yet: {}", run.incident.id, mine.error().text);
            run.wake.expires_after(1s);
            boost::system::error_code ignored;
            co_await run.wake.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
        }
        co_return !ending();
    }

    /// What the other nodes did counts for the guards here.
    asio::awaitable<void> look_around() {
        if (!s_.cluster) co_return;
        auto facts =
            co_await s_.cluster->history(s_.clock.wall() - Duration{1h} - s_.settings->limits.cooldown);
        if (!facts) {
            history_loaded_ = false;  // a guard without its input denies
            co_return;
        }
        History all;
        for (const auto& mine : history_.facts()) {
            const bool known = std::any_of(facts->begin(), facts->end(), [&](const AttemptFact& f) {
                return f.attempt == mine.attempt;
            });
            if (!known && !mine.ended) facts->push_back(mine);
        }
        for (auto& fact : *facts) all.started(std::move(fact));
        history_ = std::move(all);
        history_loaded_ = true;
    }

    bool ending() const { return stopping_ || abandoning_; }

    void start(RunPtr run) {
        const auto* service = s_.service(run->incident.service_name, run->incident.environment);
        if (service) {
            run->target = service->facts;
            run->probes = service->probes;
        } else {
            run->target = json::object{{"name", run->incident.service_name}};
        }
        runs_[key_of(run->incident.fingerprint, run->incident.environment)] = run;
        asio::co_spawn(s_.io, drive(run), [this, run](const std::exception_ptr& error) {
            runs_.erase(key_of(run->incident.fingerprint, run->incident.environment));
            s_.metrics.set("heald_incidents_open", {}, static_cast<double>(runs_.size()));
            if (!error) return;
            try {
                std::rethrow_exception(error);
            } catch (const std::exception& e) {
                log::error("event {} ended by a defect: {}", run->incident.id, e.what());
            }
        });
        s_.metrics.set("heald_incidents_open", {}, static_cast<double>(runs_.size()));
    }

    // --- the loop of one incident
    // ---------------------------------------------------------------------------------

    asio::awaitable<void> drive(RunPtr run) {
        if (s_.cluster) {
            const bool mine = co_await claimed(*run);
            if (!mine) co_return;
        }
        co_await rank_candidates(*run);
        const auto it = excluded_.find(key_of(run->incident.fingerprint, run->incident.environment));
        std::vector<std::string> excluded;
        if (it != excluded_.end()) excluded.push_back(it->second);
        HealingInput first = input::Begin{};
        if (run->resumed) first = resume_input(*run);
        run->machine.emplace(std::move(run->unranked), excluded);
        run->inbox.push_front(std::move(first));
        while (!run->machine->finished() && !ending()) {
            if (run->inbox.empty()) {
                if (run->due && *run->due <= s_.clock.steady()) {
                    run->due.reset();
                    run->inbox.push_back(input::Timer{});
                } else {
                    run->wake.expires_after(
                        run->due ? std::max<Duration>(*run->due - s_.clock.steady(), 0us) : Duration{1h}
                    );
                    boost::system::error_code ignored;
                    co_await run->wake.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
                    continue;
                }
            }
            const HealingInput in = std::move(run->inbox.front());
            run->inbox.pop_front();
            const auto orders = run->machine->step(in, s_.clock.wall());
            for (const auto& order : orders) {
                if (auto answer = co_await perform(*run, order)) run->inbox.push_front(std::move(*answer));
                if (ending()) break;
            }
        }
    }

    /// Assesses those that want to be asked, moves the confidence by what was learned, ranks.
    asio::awaitable<void> rank_candidates(Run& run) {
        auto& candidates = run.unranked;
        std::map<std::string, std::vector<std::size_t>> by_artifact;
        for (std::size_t i = 0; i < candidates.size(); ++i) {
            if (candidates[i].info.has_assess) by_artifact[candidates[i].info.artifact].push_back(i);
        }
        for (const auto& [artifact, indices] : by_artifact) {
            std::vector<StrategyCall> calls;
            for (const auto i : indices)
                calls.push_back(make_call(run, candidates[i], "", assess_timeout, true));
            auto replies = co_await s_.runner.assess(std::move(calls));
            for (std::size_t k = 0; k < indices.size() && k < replies.size(); ++k) {
                auto& c = candidates[indices[k]];
                if (replies[k].outcome == Outcome::succeeded)
                    c.prior = std::clamp(replies[k].confidence, 0.0, 1.0);
                else
                    c.note = "its assess said no: " + (replies[k].text.empty()
                                                           ? std::string{to_string(replies[k].outcome)}
                                                           : replies[k].text);
            }
        }
        const Time now = s_.clock.wall();
        for (auto& c : candidates) {
            c.confidence = book_.confidence(
                c.prior, c.info.name, run.incident.fingerprint, run.incident.service_name, now
            );
            const auto counts = book_.of(c.info.name, run.incident.fingerprint, now);
            c.successes = static_cast<std::uint64_t>(counts.successes + 0.5);
            c.failures = static_cast<std::uint64_t>(counts.failures + 0.5);
        }
        rank(candidates);
    }

    /// Where an incident stood before the restart; what was tried then is not tried again.
    HealingInput resume_input(Run& run) {
        HealingInput in = input::Begin{};
        for (const auto& row : run.earlier) {
            if (row.dry_run) continue;
            ++run.attempts;
            auto it = std::find_if(run.unranked.begin(), run.unranked.end(), [&](const Candidate& c) {
                return c.info.name == row.strategy;
            });
            if (it == run.unranked.end()) {
                Candidate gone;
                gone.info.name = row.strategy;
                gone.info.version = row.version;
                gone.info.build = row.build;
                gone.info.idempotent = row.idempotent;
                gone.priority = row.priority;
                run.unranked.push_back(std::move(gone));
                it = run.unranked.end() - 1;
            }
            const bool unfinished = row.state == "started" || row.state == "executed" ||
                                    (row.state == "unknown" && row.verified.empty());
            const bool undoing = row.rolled_back == "running";
            if (unfinished || undoing) {
                run.attempt = row.id;
                run.call = call_from(row.id, row.request);
                it->note.clear();
                if (row.state == "started" && !row.idempotent) {
                    // It will not run again: what it did is unknown, and it holds its target no longer.
                    const Time now = s_.clock.wall();
                    history_.ended(row.id, now);
                    submit("cut-off attempt", [id = row.id, now](Database& db) {
                        return sql::end_attempt(
                            db, id, "unknown", "heald was stopped while it ran", "{}", now
                        );
                    });
                }
                in = input::Resume{
                    static_cast<std::size_t>(it - run.unranked.begin()),
                    row.state == "executed" ? Outcome::succeeded : Outcome::unknown,
                    "heald was stopped while it ran",
                    undoing};
            } else {
                it->note = "tried before the restart";
            }
        }
        return in;
    }

    StrategyCall make_call(
        const Run& run,
        const Candidate& c,
        std::string attempt,
        std::chrono::milliseconds timeout,
        bool dry_run
    ) const {
        StrategyCall call;
        call.strategy = c.info.name;
        call.attempt = attempt;
        call.request = json::object{
            {"attempt", attempt},
            {"incident", to_json(run.incident)},
            {"target", run.target},
            {"config", c.config},
            {"dry_run", dry_run}};
        for (const auto& declared : c.info.capabilities) {
            for (auto& grant : expand_capability(declared, run.target))
                call.grants.push_back(std::move(grant));
        }
        call.dry_run = dry_run;
        call.timeout = timeout;
        return call;
    }

    std::string decision_json(const Run& run) const {
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
        return json::serialize(json::object{{"candidates", std::move(candidates)}, {"verdicts", run.verdicts}}
        );
    }

    // --- performing orders
    // ----------------------------------------------------------------------------------------

    asio::awaitable<std::optional<HealingInput>> perform(Run& run, const HealingOrder& order) {
        if (const auto* o = std::get_if<order::Consider>(&order)) {
            co_await look_around();
            co_return consider(run, *o);
        }
        if (const auto* o = std::get_if<order::WriteIntent>(&order))
            co_return co_await write_intent(run, o->index);
        if (const auto* o = std::get_if<order::Execute>(&order)) co_return co_await execute(run, o->index);
        if (const auto* o = std::get_if<order::Check>(&order)) co_return co_await check(run, o->index);
        if (const auto* o = std::get_if<order::Undo>(&order)) co_return co_await undo(run, o->index);
        if (const auto* o = std::get_if<order::Wait>(&order)) run.due = s_.clock.steady() + o->duration;
        if (const auto* o = std::get_if<order::Verified>(&order)) verified(run, *o);
        if (const auto* o = std::get_if<order::Move>(&order)) move(run, *o);
        if (const auto* o = std::get_if<order::Finish>(&order)) finish(run, *o);
        co_return std::nullopt;
    }

    HealingInput consider(Run& run, const order::Consider& o) {
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

    asio::awaitable<std::optional<HealingInput>> write_intent(Run& run, std::size_t index) {
        const auto& c = run.machine->candidates()[index];
        run.attempt = new_id(s_.clock);
        run.dry_run = s_.settings->dry_run || c.autonomy == Autonomy::shadow;
        run.call = make_call(run, c, run.attempt, c.info.timeout, run.dry_run);
        const Time now = s_.clock.wall();
        auto intent = std::make_shared<sql::Intent>();
        auto& row = intent->attempt;
        row.id = run.attempt;
        row.event = run.incident.id;
        row.fingerprint = run.incident.fingerprint;
        row.service = run.incident.service_name;
        row.target = run.incident.target;
        row.strategy = c.info.name;
        row.version = c.info.version;
        row.build = c.info.build;
        row.rank = static_cast<int>(index) + 1;
        row.priority = c.priority;
        row.confidence = c.prior;
        row.score = c.confidence;
        row.idempotent = c.info.idempotent;
        row.dry_run = run.dry_run;
        row.request = to_text(run.call);
        row.started_at = now;
        intent->opened_at = run.incident.opened_at;
        intent->decision = decision_json(run);
        intent->actor = run.approver.empty() ? std::string{"heald"} : run.approver;
        // Its short form overtakes everything; the tables follow in order with the batch that it came with.
        auto written = std::make_shared<IntentGate>(s_.io);
        s_.store.submit_urgent(
            [intent](Database& db) { return sql::write_intent(db, *intent); },
            [written](result<void> outcome) { written->settle(std::move(outcome)); }
        );
        s_.store.submit(
            [intent](Database& db) { return sql::settle_intent(db, *intent); },
            [this](result<void> outcome) { unsettled_ = unsettled_ || !outcome; }
        );
        ++run.attempts;
        if (!run.dry_run) {
            history_.started(
                {run.attempt,
                 run.incident.id,
                 run.incident.fingerprint,
                 run.incident.target,
                 c.info.name,
                 now,
                 {}}
            );
        }
        s_.feed.publish(
            "decision",
            {{"event", run.incident.id},
             {"attempt", run.attempt},
             {"strategy", c.info.name},
             {"rank", row.rank},
             {"of", run.machine->candidates().size()},
             {"priority", c.priority},
             {"confidence", c.confidence},
             {"dry_run", run.dry_run}}
        );
        // The strategy is called while the commit runs: it can change nothing by itself, and its effects wait
        // for the intent (docs/adr/0009-call-while-committing.md).
        start_execution(run, written);
        const auto stored = co_await written->wait();
        if (stored && !ending()) co_return input::IntentStored{};
        s_.runner.cancel(run.attempt);
        co_await run.execution->wait();
        run.execution.reset();
        run.executing = false;
        history_.ended(run.attempt, Time{0});
        if (stored) co_return std::nullopt;  // heald stops; the next start takes it up
        co_return input::IntentFailed{stored.error().text};
    }

    void start_execution(Run& run, std::shared_ptr<IntentGate> intent) {
        run.execution = std::make_shared<Execution>(s_.io);
        run.execution->started = s_.clock.steady();
        run.executing = true;
        auto ledger = std::make_shared<AttemptLedger>(s_, run.attempt, run.incident.id, std::move(intent));
        asio::co_spawn(
            s_.io,
            call_strategy(s_.runner, run.call, std::move(ledger), run.execution),
            [execution = run.execution, id = run.attempt](const std::exception_ptr& error) {
                if (!error) return;
                log::error("attempt {} ended by a defect of the runner", id);
                execution->reply =
                    StrategyReply{Outcome::unknown, 0, "a defect of heald", {}, false, false, {}};
                execution->wake.cancel();
            }
        );
    }

    asio::awaitable<std::optional<HealingInput>> execute(Run& run, std::size_t index) {
        const auto& c = run.machine->candidates()[index];
        if (!run.execution)
            start_execution(run, nullptr);  // taken up after a restart: its intent is an old one
        s_.feed.publish(
            "attempt",
            {{"event", run.incident.id},
             {"attempt", run.attempt},
             {"strategy", c.info.name},
             {"state", "started"}}
        );
        auto reply = co_await run.execution->wait();
        const auto took = s_.clock.steady() - run.execution->started;
        run.execution.reset();
        run.executing = false;
        const Time now = s_.clock.wall();
        if (reply.outcome == Outcome::cancelled && stopping_) reply.outcome = Outcome::unknown;
        s_.metrics.add(
            "heald_attempts_total", {{"strategy", c.info.name}, {"outcome", to_string(reply.outcome)}}
        );
        s_.metrics.observe(
            "heald_attempt_duration_seconds",
            {{"strategy", c.info.name}},
            static_cast<double>(took.count()) / 1e6
        );
        s_.feed.publish(
            "attempt",
            {{"event", run.incident.id},
             {"attempt", run.attempt},
             {"strategy", c.info.name},
             {"state", to_string(reply.outcome)},
             {"text", to_valid_utf8(reply.text)},
             {"duration_us", took.count()}}
        );
        if (run.dry_run) {
            // Listed, not done: as if it had declined.
            submit("dry run", [id = run.attempt, reply, now](Database& db) {
                return sql::end_attempt(
                    db, id, "declined", "dry run: " + reply.text, json::serialize(reply.detail), now
                );
            });
            co_return input::Executed{Outcome::declined, "dry run, nothing was done"};
        }
        if (!stopping_ || reply.outcome != Outcome::unknown) {
            const bool verify_decides = reply.outcome == Outcome::succeeded ||
                                        reply.outcome == Outcome::unknown ||
                                        reply.outcome == Outcome::cancelled;
            json::object detail = reply.detail;
            if (reply.crashed || reply.timed_out) {
                detail["crashed"] = reply.crashed;
                detail["timed_out"] = reply.timed_out;
                detail["output"] = to_valid_utf8(
                    reply.output.size() > 4096 ? reply.output.substr(reply.output.size() - 4096)
                                               : reply.output
                );
            }
            // 'executed' is for what succeeded; an unknown stays 'started' until verification decides, so
            // that a restart asks again.
            const std::string state =
                reply.outcome == Outcome::succeeded ? "executed" : to_string(reply.outcome);
            submit(
                "attempt",
                [id = run.attempt,
                 state,
                 text = reply.text,
                 detail = json::serialize(detail),
                 now,
                 event = run.incident.id,
                 verify_decides](Database& db) -> result<void> {
                    HEAL_TRY(sql::end_attempt(db, id, state, text, detail, now));
                    return verify_decides ? sql::move_event(db, event, EventState::verifying, "", now)
                                          : result<void>{};
                }
            );
        }
        history_.ended(run.attempt, now);
        co_return input::Executed{reply.outcome, reply.text};
    }

    asio::awaitable<std::optional<HealingInput>> check(Run& run, std::size_t index) {
        const auto& c = run.machine->candidates()[index];
        Evidence evidence = co_await s_.prober.check(run.probes);
        if (c.info.has_verify && evidence.negative == 0) {
            AttemptLedger ledger{s_, run.attempt, run.incident.id};
            auto call = run.call;
            auto reply = co_await s_.runner.verify(std::move(call), ledger);
            const bool ok = reply.outcome == Outcome::succeeded;
            if (ok)
                ++evidence.positive;
            else if (reply.outcome == Outcome::failed)
                ++evidence.negative;
            evidence.items.push_back(json::object{
                {"source", "verify of " + c.info.name}, {"ok", ok}, {"text", to_valid_utf8(reply.text)}});
        }
        run.evidence = evidence;
        s_.feed.publish(
            "verification",
            {{"event", run.incident.id},
             {"attempt", run.attempt},
             {"strategy", c.info.name},
             {"positive", evidence.positive},
             {"negative", evidence.negative},
             {"items", evidence.items}}
        );
        co_return input::Checked{std::move(evidence)};
    }

    asio::awaitable<std::optional<HealingInput>> undo(Run& run, std::size_t index) {
        if (run.dry_run) co_return input::Undone{true, {}};
        const auto& c = run.machine->candidates()[index];
        auto rows = std::make_shared<std::vector<sql::ActionRow>>();
        // Through the writer's queue: every effect reported so far is stored before this reads.
        Store::Job job = [rows, id = run.attempt, rollback = c.info.has_rollback](Database& db
                         ) -> result<void> {
            auto found = sql::load_undoable(db, id);
            if (!found) return found.error();
            *rows = std::move(*found);
            return !rows->empty() || rollback ? sql::set_rolled_back(db, id, "running") : result<void>{};
        };
        auto read = co_await s_.store.write(std::move(job));
        if (!read) co_return input::Undone{false, read.error().text};
        if (rows->empty() && !c.info.has_rollback) co_return input::Undone{true, {}};
        AttemptLedger ledger{s_, run.attempt, run.incident.id};
        run.executing = true;
        StrategyReply reply{Outcome::succeeded, 0, {}, {}, false, false, {}};
        if (!rows->empty()) {
            std::vector<Effect> effects;
            for (const auto& row : *rows) {
                Effect effect;
                effect.step = row.step;
                effect.phase = row.phase;
                effect.kind = row.kind;
                effect.summary = row.summary;
                effect.capability = row.capability;
                effect.undoable = true;
                if (auto parsed = parse_json(row.parameters, "parameters"); parsed && parsed->is_object())
                    effect.parameters = parsed->get_object();
                if (auto parsed = parse_json(row.undo, "undo"); parsed && parsed->is_object())
                    effect.undo = parsed->get_object();
                effects.push_back(std::move(effect));
            }
            reply = co_await s_.runner.undo(run.call, std::move(effects), ledger);
        }
        // The author's part comes after: it sees the world as it was, and can make a service take it in
        // again.
        if (c.info.has_rollback && reply.outcome == Outcome::succeeded)
            reply = co_await s_.runner.rollback(run.call, ledger);
        run.executing = false;
        const bool ok = reply.outcome == Outcome::succeeded;
        submit(
            "rollback",
            [id = run.attempt, ok, now = s_.clock.wall(), text = reply.text](Database& db) -> result<void> {
                HEAL_TRY(sql::set_rolled_back(db, id, ok ? "succeeded" : "failed"));
                return sql::append_audit(
                    db,
                    now,
                    "heald",
                    "attempt.rollback",
                    id,
                    json::serialize(json::object{{"ok", ok}, {"text", to_valid_utf8(text)}})
                );
            }
        );
        s_.feed.publish(
            "rollback",
            {{"event", run.incident.id},
             {"attempt", run.attempt},
             {"strategy", c.info.name},
             {"ok", ok},
             {"effects", rows->size()},
             {"text", to_valid_utf8(reply.text)}}
        );
        co_return input::Undone{ok, reply.text};
    }

    void verified(Run& run, const order::Verified& o) {
        const auto& c = run.machine->candidates()[o.index];
        const Time now = s_.clock.wall();
        if (run.dry_run) return;
        if (o.verdict == "succeeded" || o.verdict == "failed") {
            book_.record(
                c.info.name,
                run.incident.fingerprint,
                run.incident.service_name,
                o.verdict == "succeeded",
                now
            );
        }
        const auto key = key_of(run.incident.fingerprint, run.incident.environment);
        if (o.verdict == "failed")
            excluded_[key] = c.info.name;
        else if (o.verdict == "succeeded")
            excluded_.erase(key);
        submit(
            "verification",
            [id = run.attempt, verdict = o.verdict, evidence = json::serialize(run.evidence.items), now](
                Database& db
            ) { return sql::verify_attempt(db, id, verdict, evidence, now); }
        );
    }

    void move(Run& run, const order::Move& o) {
        submit(
            "state",
            [id = run.incident.id, o, decision = decision_json(run), now = s_.clock.wall()](Database& db
            ) -> result<void> {
                HEAL_TRY(sql::set_event_decision(db, id, decision, now));
                return sql::move_event(db, id, o.state, o.reason, now);
            }
        );
        s_.feed.publish(
            "state",
            {{"event", run.incident.id}, {"state", to_string(o.state)}, {"reason", to_valid_utf8(o.reason)}}
        );
    }

    void finish(Run& run, const order::Finish& o) {
        const Time now = s_.clock.wall();
        sql::EventEnd end;
        end.state = o.state;
        end.reason = o.reason;
        const bool healed = o.state == EventState::healed;
        const auto key = key_of(run.incident.fingerprint, run.incident.environment);
        if (healed) {
            const auto& candidates = run.machine->candidates();
            const auto it = std::find_if(candidates.begin(), candidates.end(), [&](const Candidate& c) {
                return c.info.name == run.call.strategy;
            });
            end.resolution = run.approver.empty() ? "auto" : "approved";
            end.healed_by = run.call.strategy;
            end.healed_at = run.machine->healthy_since().value_or(now);
            const Duration hold = it == candidates.end() ? s_.settings->verify.hold : it->verify.hold;
            end.hold_until = *end.healed_at + hold;
            if (hold.count() > 0) {
                held_[key] = {
                    run.incident.id,
                    run.incident.fingerprint,
                    run.incident.environment,
                    run.incident.service_name,
                    end.healed_by,
                    *end.healed_at,
                    *end.hold_until};
            }
            quiet_.erase(key);
            s_.metrics.observe(
                "heald_time_to_heal_seconds",
                {},
                static_cast<double>((*end.healed_at - run.incident.opened_at).count()) / 1e6
            );
        } else if (o.state == EventState::escalated || o.state == EventState::suppressed) {
            keep_quiet(key, now);
        }
        s_.metrics.add("heald_incidents_total", {{"state", to_string(o.state)}});
        s_.feed.publish(
            "end",
            {{"event", run.incident.id},
             {"state", to_string(o.state)},
             {"reason", to_valid_utf8(o.reason)},
             {"healed_by", end.healed_by},
             {"service", run.incident.service_name},
             {"time_to_heal_us", end.healed_at ? (*end.healed_at - run.incident.opened_at).count() : 0}}
        );
        submit(
            "end of event",
            [event = store_event(run), id = run.incident.id, end, decision = decision_json(run), now](
                Database& db
            ) -> result<void> {
                HEAL_TRY(event(db));  // a no-op unless it could not be stored before
                HEAL_TRY(sql::set_event_decision(db, id, decision, now));
                HEAL_TRY(sql::finish_event(db, id, end, now));
                return sql::append_audit(
                    db,
                    now,
                    "heald",
                    std::string{"event."} + to_string(end.state),
                    id,
                    json::serialize(json::object{{"reason", to_valid_utf8(end.reason)}})
                );
            }
        );
        if (o.state == EventState::escalated)
            log::warn("event {} of {} escalates: {}", run.incident.id, run.incident.service_name, o.reason);
        else
            log::info(
                "event {} of {}: {} ({})",
                run.incident.id,
                run.incident.service_name,
                to_string(o.state),
                o.reason
            );
    }

    Shared& s_;
    std::map<std::string, RunPtr> runs_;
    std::map<std::string, sql::HeldEvent> held_;
    std::map<std::string, Quiet> quiet_;
    std::map<std::string, std::string> excluded_;
    History history_;
    bool history_loaded_ = false;
    OutcomeBook book_;
    GuardCounters counters_;
    std::optional<bool> paused_;
    std::string pause_reason_;
    bool stopping_ = false, abandoning_ = false, unsettled_ = false;
};

}  // namespace

const ServiceSettings* Shared::service(const std::string& name, const std::string& environment) const {
    const ServiceSettings* any = nullptr;
    for (const auto& s : settings->services) {
        if (s.name != name) continue;
        if (s.environment == environment) return &s;
        if (s.environment.empty()) any = &s;
    }
    return any;
}

std::unique_ptr<Healer> create_healer(Shared& shared) { return std::make_unique<HealerImpl>(shared); }

}  // namespace heal
