#include "base/id.hpp"
#include "base/log.hpp"
#include "base/tasks.hpp"
#include "service/healer_impl.hpp"
#include "service/trust.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>

#include <fmt/format.h>

#include <map>

namespace heal {

using namespace std::chrono_literals;

namespace {
/// Who declares this may ask heald itself, with a ticket.
constexpr std::string_view asks_heald = "net:{target.code.address}";
}  // namespace

std::string Shared::ticket(const std::string& attempt) const {
    return fmt::format("attempt:{}:{}", attempt, hmac_sha256_hex(ticket_key, attempt));
}

std::string HealerImpl::strategy_of(std::string_view attempt) const {
    for (const auto& [key, run] : runs_) {
        if (run->attempt == attempt) return run->call.strategy;
    }
    return "";
}

std::string to_text(const StrategyCall& call) {
    json::object request = call.request;
    request.erase("ticket");
    return json::serialize(json::object{
        {"strategy", call.strategy},
        {"request", std::move(request)},
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

bool AttemptLedger::intent_pending() const { return intent_ && !intent_->stored; }

asio::awaitable<result<void>> AttemptLedger::intent_durable() {
    if (!intent_) co_return still_ours();
    auto stored = co_await intent_->wait();
    co_return stored ? still_ours() : stored;
}

asio::awaitable<result<void>> AttemptLedger::begin(Effect effect) {
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

void AttemptLedger::end(EffectResult r) {
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
                db, attempt, r.phase, r.step, state, json::serialize(r.result), r.error, r.duration.count()
            ));
            if (r.phase == "undo" && r.ok && undoes > 0) HEAL_TRY(sql::mark_undone(db, attempt, undoes));
            return {};
        },
        [](result<void> outcome) {
            if (!outcome) log::warn("the result of an effect was not recorded: {}", outcome.error().text);
        }
    );
}

void AttemptLedger::log(Level level, std::string message, json::object fields, double progress) {
    json::object data{
        {"event", event_},
        {"attempt", attempt_},
        {"level", to_string(level)},
        {"message", to_valid_utf8(message)},
        {"fields", std::move(fields)}};
    if (progress >= 0) data["progress"] = progress;
    shared_.feed.publish("log", std::move(data));
}

namespace {
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
}  // namespace

StrategyCall HealerImpl::make_call(
    const Run& run, const Candidate& c, std::string attempt, std::chrono::milliseconds timeout, bool dry_run
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
        for (auto& grant : expand_capability(declared, run.target)) call.grants.push_back(std::move(grant));
        if (declared == asks_heald) call.request["ticket"] = s_.ticket(attempt);
    }
    call.dry_run = dry_run;
    call.timeout = timeout;
    return call;
}

asio::awaitable<std::optional<HealingInput>> HealerImpl::write_intent(Run& run, std::size_t index) {
    const auto& c = run.machine->candidates()[index];
    run.attempt = new_id(s_.clock);
    run.taken_back = false;
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
    intent->risk = c.info.risk;
    intent->actor = run.approver.empty() ? std::string{"heald"} : run.approver;
    // Its short form overtakes everything; the tables follow in order with the batch that it came with.
    auto written = std::make_shared<StoredGate>(s_.io);
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
             {},
             run.incident.service_name,
             c.info.risk,
             FactResult::none,
             c.info.build,
             true}
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
    if (stored && !ending()) {
        // A turn later: nobody waits for the explanation, and the effects have their word first.
        co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
        explain(run);
        co_return input::IntentStored{};
    }
    s_.runner.cancel(run.attempt);
    co_await run.execution->wait();
    run.execution.reset();
    run.executing = false;
    history_.ended(run.attempt, Time{0});
    history_.decided(run.attempt);
    if (stored) co_return std::nullopt;  // heald stops; the next start takes it up
    --run.attempts;                      // nothing was tried
    co_return input::IntentFailed{stored.error().text};
}

void HealerImpl::start_execution(Run& run, std::shared_ptr<StoredGate> intent) {
    run.execution = std::make_shared<Execution>(s_.io);
    run.execution->started = s_.clock.steady();
    run.executing = true;
    auto ledger = std::make_shared<AttemptLedger>(s_, run.attempt, run.incident.id, std::move(intent));
    spawn(
        s_.io,
        call_strategy(s_.runner, run.call, std::move(ledger), run.execution),
        [execution = run.execution, id = run.attempt](const std::exception_ptr& error) {
            if (!error) return;
            log::error("attempt {} ended by a defect of the runner: {}", id, text_of(error));
            execution->reply = StrategyReply{Outcome::unknown, 0, "a defect of heald", {}, false, false, {}};
            execution->wake.cancel();
        }
    );
}

asio::awaitable<std::optional<HealingInput>> HealerImpl::execute(Run& run, std::size_t index) {
    const auto& c = run.machine->candidates()[index];
    if (!run.execution) start_execution(run, nullptr);  // taken up after a restart: its intent is an old one
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
        "heald_attempt_duration_seconds", {{"strategy", c.info.name}}, static_cast<double>(took.count()) / 1e6
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
        const bool listed = reply.outcome == Outcome::succeeded || reply.outcome == Outcome::declined;
        s_.trust->note(
            c.info.name,
            error_class(run.incident.record),
            listed ? TrustEvidence::listed : TrustEvidence::list_failed
        );
        submit("dry run", [id = run.attempt, reply, now](Database& db) {
            const char* state = reply.outcome == Outcome::failed ? "failed" : "declined";
            return sql::end_attempt(
                db, id, state, "dry run: " + reply.text, json::serialize(reply.detail), now
            );
        });
        co_return input::Executed{Outcome::declined, "dry run, nothing was done"};
    }
    if (!stopping_ || reply.outcome != Outcome::unknown) {
        const bool verify_decides = reply.outcome == Outcome::succeeded ||
                                    reply.outcome == Outcome::unknown || reply.outcome == Outcome::cancelled;
        json::object detail = reply.detail;
        if (reply.crashed || reply.timed_out) {
            detail["crashed"] = reply.crashed;
            detail["timed_out"] = reply.timed_out;
            detail["output"] = to_valid_utf8(
                reply.output.size() > 4096 ? reply.output.substr(reply.output.size() - 4096) : reply.output
            );
        }
        // 'executed' is for what succeeded; an unknown stays 'started' until verification decides, so
        // that a restart asks again.
        const std::string state = reply.outcome == Outcome::succeeded ? "executed" : to_string(reply.outcome);
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

asio::awaitable<std::optional<HealingInput>> HealerImpl::check(Run& run, std::size_t index) {
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

asio::awaitable<std::optional<HealingInput>> HealerImpl::undo(Run& run, std::size_t index) {
    if (run.dry_run) co_return input::Undone{true, {}};
    const auto& c = run.machine->candidates()[index];
    auto rows = std::make_shared<std::vector<sql::ActionRow>>();
    // Through the writer's queue: every effect reported so far is stored before this reads.
    Store::Job job = [rows, id = run.attempt, rollback = c.info.has_rollback](Database& db) -> result<void> {
        auto found = sql::load_undoable(db, id);
        if (!found) return found.error();
        *rows = std::move(*found);
        return !rows->empty() || rollback ? sql::set_rolled_back(db, id, "running") : result<void>{};
    };
    auto read = co_await s_.store.write(std::move(job));
    if (!read) co_return input::Undone{false, read.error().text};
    if (rows->empty() && !c.info.has_rollback) co_return co_await taken_back(run, {});
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
    // The author's part comes after: it sees the world as it was, and can make a service take it in again.
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
    if (!ok) co_return input::Undone{false, reply.text};
    co_return co_await taken_back(run, std::move(reply.text));
}

/// Stored before anything else is tried: an intent overtakes the queue, and a restart must not find the next
/// attempt begun and this one not ended.
asio::awaitable<std::optional<HealingInput>> HealerImpl::taken_back(Run& run, std::string text) {
    run.taken_back = true;
    while (!ending()) {
        Store::Job job = [id = run.attempt](Database& db) { return sql::set_decided(db, id); };
        const auto stored = co_await s_.store.write(std::move(job));
        if (stored) {
            history_.decided(run.attempt);
            freed(run.incident.target);
            co_return input::Undone{true, std::move(text)};
        }
        log::warn(
            "attempt {} is taken back, which cannot be stored yet: {}", run.attempt, stored.error().text
        );
        run.wake.expires_after(1s);
        co_await due(run.wake);
    }
    co_return std::nullopt;  // heald stops; the next start takes it up
}

}  // namespace heal
