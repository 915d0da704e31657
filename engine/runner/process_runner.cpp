#include "runner/process_runner.hpp"

#include "base/faults.hpp"
#include "base/log.hpp"
#include "wire/describe.hpp"
#include "wire/messages.hpp"

#include <heal/abi.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace heal {
namespace {

namespace asio = boost::asio;
using asio::awaitable;

Outcome outcome_of(std::int64_t status) {
    switch (status) {
        case HEAL_OK:
            return Outcome::succeeded;
        case HEAL_DECLINED:
            return Outcome::declined;
        case HEAL_CANCELLED:
            return Outcome::cancelled;
        default:
            return Outcome::failed;
    }
}

StrategyReply said(Outcome outcome, std::string text) {
    StrategyReply reply;
    reply.outcome = outcome;
    reply.text = std::move(text);
    return reply;
}

constexpr const char* too_late = "the call was cancelled before this effect began";
std::string not_stored(const Error& error) { return "the intent is not stored: " + error.text; }

// Gives hosts back however the coroutine ends.
class Held {
public:
    explicit Held(std::function<void()> give_back) : give_back_(std::move(give_back)) {}
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;
    ~Held() { give_back_(); }

private:
    std::function<void()> give_back_;
};

class ProcessRunner final : public StrategyRunner {
public:
    ProcessRunner(asio::io_context& context, HostPool& pool, ArtifactSource& source, const Clock& clock)
        : context_(context), pool_(pool), source_(source), clock_(clock) {}

    awaitable<std::vector<StrategyReply>> assess(std::vector<StrategyCall> calls) override {
        std::vector<StrategyReply> out(calls.size());
        if (calls.empty()) co_return out;
        const auto refuse_all = [&](const StrategyReply& reply) {
            std::fill(out.begin(), out.end(), reply);
            return out;
        };
        const ArtifactPtr artifact = source_.find(calls[0].strategy);
        if (!artifact)
            co_return refuse_all(
                said(Outcome::declined, fmt::format("strategy '{}' is not loaded", calls[0].strategy))
            );
        if (auto barred = may_run(*artifact, false)) co_return refuse_all(*barred);
        json::array questions;
        std::vector<std::size_t> asked;
        auto timeout = calls[0].timeout;
        for (std::size_t i = 0; i < calls.size(); ++i) {
            timeout = std::max(timeout, calls[i].timeout);
            if (source_.find(calls[i].strategy) != artifact) {
                out[i] = said(
                    Outcome::declined,
                    fmt::format("strategy '{}' is not of the same artifact", calls[i].strategy)
                );
                continue;
            }
            if (auto fit = fill(calls[i], *artifact); !fit) {
                out[i] = said(Outcome::failed, fit.error().text);
                continue;
            }
            questions.push_back(json::object{
                {"strategy", calls[i].strategy}, {"request", std::move(calls[i].request)}});
            asked.push_back(i);
        }
        if (asked.empty()) co_return out;
        auto host = co_await pool_.acquire(artifact, timeout);
        if (!host) {
            const StrategyReply reply = start_failed(artifact, host.error());
            for (const std::size_t i : asked) out[i] = reply;
            co_return out;
        }
        const Held held{[this, h = *host] { pool_.release(h); }};
        const std::int64_t id = (*host)->begin_call(timeout, nullptr);
        if (auto sent = (*host)->send(
                {{"type", "assess"},
                 {"id", id},
                 {"calls", std::move(questions)},
                 {"timeout_ms", timeout.count()}}
            );
            !sent) {
            (*host)->answered();
            for (const std::size_t i : asked) out[i] = said(Outcome::failed, sent.error().text);
            co_return out;
        }
        for (;;) {
            auto message = co_await (*host)->next();
            if (!message) {
                const StrategyReply reply = crashed(artifact, **host, Outcome::failed);
                for (const std::size_t i : asked) out[i] = reply;
                co_return out;
            }
            if (string_at(*message, "type") != "result" || int_at(*message, "id") != id) {
                if (string_at(*message, "type") == "log") continue;
                (*host)->broken("sent something that is no answer");
                continue;
            }
            const auto& replies = array_at(*message, "replies");
            if (replies.size() != asked.size()) {
                (*host)->broken(fmt::format("answered {} of {} questions", replies.size(), asked.size()));
                continue;
            }
            bool spent = false;
            for (std::size_t k = 0; k < asked.size(); ++k) {
                const json::object empty;
                const auto& one = replies[k].is_object() ? replies[k].get_object() : empty;
                spent = spent || bool_at(one, "spent");
                out[asked[k]] = assessed(one);
                out[asked[k]].timed_out = (*host)->machine().deadline_passed() || bool_at(one, "out_of_time");
            }
            settle(**host, spent);
            co_return out;
        }
    }

    awaitable<StrategyReply> execute(StrategyCall call, EffectLedger& ledger) override {
        co_return co_await run(std::move(call), "execute", ledger);
    }
    awaitable<StrategyReply> verify(StrategyCall call, EffectLedger& ledger) override {
        co_return co_await run(std::move(call), "verify", ledger);
    }
    awaitable<StrategyReply> rollback(StrategyCall call, EffectLedger& ledger) override {
        co_return co_await run(std::move(call), "rollback", ledger);
    }

    awaitable<StrategyReply> undo(StrategyCall call, std::vector<Effect> effects, EffectLedger& ledger)
        override {
        std::int64_t undone = 0, step = 0;
        const auto reply_of = [&](Outcome outcome, std::string text) {
            StrategyReply reply = said(outcome, std::move(text));
            reply.detail["undone"] = undone;
            return reply;
        };
        auto acquired = co_await pool_.acquire_performer();
        if (!acquired) co_return reply_of(Outcome::failed, acquired.error().text);
        HostPtr performer = *acquired;
        const Held held{[this, &performer] {
            if (performer) pool_.release_performer(performer);
        }};
        const Duration deadline = clock_.steady() + call.timeout;
        Running& running = running_[call.attempt];
        const Held ended{[this, attempt = call.attempt] { running_.erase(attempt); }};
        for (const Effect& effect : effects) {
            if (!effect.changes_world) continue;
            if (effect.undo.empty())
                co_return reply_of(
                    Outcome::failed,
                    fmt::format("step {} ({}) can't be taken back", effect.step, effect.summary)
                );
            if (running.cancelled) co_return reply_of(Outcome::cancelled, "the undoing was cancelled");
            json::object message{
                {"type", "perform"},
                {"step", ++step},
                {"phase", "undo"},
                {"strategy", call.strategy},
                {"attempt", call.attempt},
                {"all", true},
                {"dry_run", call.dry_run},
                {"kind", string_at(effect.undo, "kind")},
                {"parameters", object_at(effect.undo, "parameters")},
                {"undoes_step", effect.step}};
            bool lost = false;
            EffectEnd end;
            // A performer that died before it began has done nothing: another one takes over.
            for (int tries = 0; tries < 3; ++tries) {
                running.performer = performer;
                const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                    std::max(Duration{0}, deadline - clock_.steady())
                );
                end = co_await one_effect(
                    performer, message, left, step, "undo", ledger, running.cancelled, lost
                );
                if (lost || end.status == HEAL_OK || !end.never_began) break;
                pool_.release_performer(std::exchange(performer, nullptr));
                acquired = co_await pool_.acquire_performer();
                if (!acquired) co_return reply_of(Outcome::failed, acquired.error().text);
                performer = *acquired;
            }
            if (lost)
                co_return reply_of(Outcome::unknown, fmt::format("step {}: {}", effect.step, end.error));
            if (end.status != HEAL_OK)
                co_return reply_of(
                    end.status == HEAL_CANCELLED ? Outcome::cancelled : Outcome::failed,
                    fmt::format("step {} could not be taken back: {}", effect.step, end.error)
                );
            ++undone;
        }
        co_return reply_of(Outcome::succeeded, fmt::format("{} effects were taken back", undone));
    }

    void cancel(const std::string& attempt) override {
        const auto at = running_.find(attempt);
        if (at == running_.end()) return;
        at->second.cancelled = true;
        // Copies: a callback may end the call and with it the entry.
        const HostPtr host = at->second.host, performer = at->second.performer;
        if (host)
            host->cancel();
        else if (performer)
            performer->cancel();
    }

    awaitable<void> stop() override {
        for (auto& [attempt, running] : running_) running.cancelled = true;
        co_await pool_.stop();
    }

private:
    struct Running {
        HostPtr host, performer;
        bool cancelled = false;
    };
    struct EffectEnd {
        std::int64_t status = HEAL_FAILED;
        std::string error;
        json::object result;
        bool never_began = false;  ///< the performer was gone before it took it on
    };

    // Why an artifact may not be entered now. Settling an attempt (verify, rollback) is allowed while it
    // waits after a crash.
    std::optional<StrategyReply> may_run(const ArtifactBuild& artifact, bool settles) const {
        const Duration now = clock_.steady();
        switch (artifact.supervisor.may_start(now)) {
            case ArtifactMachine::Verdict::quarantined:
                return said(
                    Outcome::declined,
                    fmt::format(
                        "{} is in quarantine after {} crashes; release it, or put a new file there",
                        artifact.file.path,
                        artifact.supervisor.crashes(now)
                    )
                );
            case ArtifactMachine::Verdict::wait:
                if (settles) return std::nullopt;
                return said(
                    Outcome::declined,
                    fmt::format(
                        "{} crashed; it is started again in {} s",
                        artifact.file.path,
                        artifact.supervisor.wait_left(now).count() / 1'000'000 + 1
                    )
                );
            case ArtifactMachine::Verdict::start:
                break;
        }
        return std::nullopt;
    }

    // The strategy sees a configuration that fits its parameters, or is not asked at all.
    static result<void> fill(StrategyCall& call, const ArtifactBuild& artifact) {
        const auto info =
            std::find_if(artifact.strategies.begin(), artifact.strategies.end(), [&](const StrategyInfo& s) {
                return s.name == call.strategy;
            });
        if (info == artifact.strategies.end())
            return fail(
                errc::not_found, fmt::format("strategy '{}' is not in {}", call.strategy, artifact.file.path)
            );
        auto config = check_config(info->parameters, object_at(call.request, "config"), "config");
        if (!config)
            return fail(
                errc::invalid_input, fmt::format("strategy '{}': {}", call.strategy, config.error().text)
            );
        call.request["config"] = std::move(*config);
        call.request["attempt"] = call.attempt;
        call.request["dry_run"] = call.dry_run;
        return {};
    }

    StrategyReply start_failed(const ArtifactPtr& artifact, const Error& error) {
        if (error.code == errc::overloaded) return said(Outcome::declined, error.text);
        if (error.code == errc::cancelled) return said(Outcome::cancelled, error.text);
        StrategyReply reply = said(Outcome::failed, fmt::format("{}: {}", artifact->file.path, error.text));
        if (error.code != errc::io) {
            reply.crashed = true;
            reply.output = artifact->last_output;
            source_.crashed(artifact, error.text, artifact->last_output);
        }
        return reply;
    }

    StrategyReply crashed(const ArtifactPtr& artifact, const Host& host, Outcome outcome) {
        StrategyReply reply =
            said(outcome, fmt::format("the host of {} {}", artifact->file.path, host.why()));
        reply.crashed = true;
        reply.timed_out = host.machine().deadline_passed();
        reply.output = host.output();
        source_.crashed(artifact, host.why(), reply.output);
        return reply;
    }

    static StrategyReply assessed(const json::object& one) {
        StrategyReply reply;
        reply.outcome = outcome_of(int_at(one, "status", HEAL_FAILED));
        reply.text = std::string{string_at(one, "text")};
        reply.detail = object_at(one, "detail");
        reply.confidence = double_at(one, "confidence", -1);
        if (reply.outcome == Outcome::succeeded && !(reply.confidence >= 0 && reply.confidence <= 1)) {
            reply.outcome = Outcome::declined;
            reply.text = "gave a confidence outside of [0,1]";
        }
        if (reply.outcome != Outcome::succeeded) reply.confidence = 0;
        return reply;
    }

    static void settle(Host& host, bool spent) {
        if (spent) host.retire();
        host.answered();
    }

    awaitable<StrategyReply> run(StrategyCall call, std::string function, EffectLedger& ledger) {
        const ArtifactPtr artifact = source_.find(call.strategy);
        if (!artifact)
            co_return said(Outcome::declined, fmt::format("strategy '{}' is not loaded", call.strategy));
        if (auto barred = may_run(*artifact, function != "execute")) co_return *barred;
        if (auto fit = fill(call, *artifact); !fit) co_return said(Outcome::failed, fit.error().text);
        if (running_.count(call.attempt) != 0)
            co_return said(
                Outcome::declined, fmt::format("a call of the attempt {} runs already", call.attempt)
            );
        Running& running = running_[call.attempt];
        const Held ended{[this, attempt = call.attempt] { running_.erase(attempt); }};
        auto acquired = co_await pool_.acquire(artifact, call.timeout);
        if (!acquired) co_return start_failed(artifact, acquired.error());
        const HostPtr host = *acquired;
        const Held held{[this, host] { pool_.release(host); }};
        if (running.cancelled) co_return said(Outcome::cancelled, "cancelled before it began");
        running.host = host;
        const Held performer_held{[this, &running] {
            if (running.performer) pool_.release_performer(running.performer);
        }};
        const std::int64_t id = host->begin_call(call.timeout, [this, attempt = call.attempt] {
            const auto at = running_.find(attempt);
            if (at != running_.end() && at->second.performer) at->second.performer->cancel();
        });
        if (auto sent = host->send(
                {{"type", "call"},
                 {"id", id},
                 {"call", function},
                 {"strategy", call.strategy},
                 {"request", std::move(call.request)},
                 {"timeout_ms", call.timeout.count()}}
            );
            !sent) {
            host->answered();
            co_return said(Outcome::failed, sent.error().text);
        }
        std::int64_t step = 0;
        bool lost = false;
        std::string lost_text;
        for (;;) {
            auto message = co_await host->next();
            if (!message) {
                // The world may have changed, whatever the plugin got to say: unknown, and verify decides.
                co_return crashed(artifact, *host, Outcome::unknown);
            }
            const std::string_view type = string_at(*message, "type");
            if (int_at(*message, "id") != id) {
                if (type != "log") host->broken("answered a call that does not run");
                continue;
            }
            if (type == "log") {
                ledger.log(
                    parse_level(string_at(*message, "level")),
                    std::string{string_at(*message, "message")},
                    object_at(*message, "fields"),
                    double_at(*message, "progress", -1)
                );
            } else if (type == "effect") {
                if (++step > 1000) {
                    host->broken("asked for more than 1000 effects in one call");
                    continue;
                }
                EffectEnd end = co_await effect(call, function, running, *host, *message, step, ledger, lost);
                if (lost && lost_text.empty()) lost_text = end.error;
                static_cast<void>(host->send(
                    {{"type", "effect_result"},
                     {"id", id},
                     {"status", end.status},
                     {"error", std::move(end.error)},
                     {"result", std::move(end.result)}}
                ));
            } else if (type == "result") {
                const auto& replies = array_at(*message, "replies");
                if (replies.size() != 1 || !replies[0].is_object()) {
                    host->broken("gave no single answer");
                    continue;
                }
                const auto& one = replies[0].get_object();
                StrategyReply reply = said(
                    outcome_of(int_at(one, "status", HEAL_FAILED)),
                    std::string{string_at(one, "text").substr(0, 8192)}
                );
                reply.detail = object_at(one, "detail");
                if (int_at(one, "status") == HEAL_RETRY) reply.detail["retry"] = true;
                if (int_at(one, "status") == HEAL_INVALID) reply.detail["invalid"] = true;
                // An effect is stopped by its own clock, which may be a moment ahead of the host's timer.
                const bool at_the_end =
                    reply.outcome == Outcome::cancelled && host->time_left() < std::chrono::milliseconds{20};
                reply.timed_out = host->machine().deadline_passed() ||
                                  ((bool_at(one, "out_of_time") || at_the_end) && !running.cancelled);
                // It heeded the deadline: all it did is recorded, so this is a plain failure. Who was asked
                // to stop is cancelled.
                if (reply.outcome == Outcome::cancelled && !running.cancelled)
                    reply.outcome = Outcome::failed;
                if (reply.timed_out && reply.outcome == Outcome::failed)
                    reply.text = fmt::format(
                        "ran out of its {} ms{}{}",
                        call.timeout.count(),
                        reply.text.empty() ? "" : ": ",
                        reply.text
                    );
                if (lost && reply.outcome != Outcome::succeeded) {
                    reply.outcome = Outcome::unknown;
                    reply.text = reply.text.empty() ? lost_text : reply.text + " (" + lost_text + ")";
                }
                settle(*host, bool_at(one, "spent"));
                co_return reply;
            } else {
                host->broken("sent a message of an unknown type");
            }
        }
    }

    awaitable<EffectEnd> effect(
        const StrategyCall& call,
        const std::string& phase,
        Running& running,
        const Host& host,
        const json::object& asked,
        std::int64_t step,
        EffectLedger& ledger,
        bool& ret_lost
    ) {
        if (running.performer && running.performer->over()) {
            pool_.release_performer(running.performer);
            running.performer = nullptr;
        }
        if (!running.performer) {
            auto performer = co_await pool_.acquire_performer();
            if (!performer) co_return EffectEnd{HEAL_FAILED, performer.error().text, {}};
            running.performer = *performer;
        }
        // While the intent is committed it is planned, and then waits for the word to begin.
        const bool ahead = ledger.intent_pending();
        if (!ahead) {
            const auto durable = co_await ledger.intent_durable();
            if (!durable) co_return EffectEnd{HEAL_CANCELLED, not_stored(durable.error()), {}};
        }
        if (running.cancelled) co_return EffectEnd{HEAL_CANCELLED, std::string{too_late}, {}};
        json::array grants;
        for (const std::string& grant : call.grants) grants.emplace_back(grant);
        const json::object message{
            {"type", "perform"},
            {"step", step},
            {"phase", phase},
            {"strategy", call.strategy},
            {"attempt", call.attempt},
            {"grants", std::move(grants)},
            {"dry_run", call.dry_run},
            {"waits", ahead},
            {"kind", string_at(asked, "kind")},
            {"parameters", object_at(asked, "parameters")}};
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(host.time_left());
        const auto perform = [&] {
            return one_effect(
                running.performer, message, left, step, phase, ledger, running.cancelled, ret_lost
            );
        };
        EffectEnd end = co_await perform();
        if (!end.never_began || running.cancelled) co_return end;
        // It died while it was idle, and has done nothing of this: one more try with another.
        pool_.release_performer(std::exchange(running.performer, nullptr));
        auto another = co_await pool_.acquire_performer();
        if (!another) co_return end;
        running.performer = *another;
        co_return co_await perform();
    }

    awaitable<EffectEnd> one_effect(
        HostPtr performer,
        json::object message,
        std::chrono::milliseconds left,
        std::int64_t step,
        std::string phase,
        EffectLedger& ledger,
        const bool& cancelled,
        bool& ret_lost
    ) {
        const Duration started = clock_.steady();
        // Its own time ends a little after the call's, so that it says itself what the deadline cut off.
        const std::int64_t id = performer->begin_call(left + std::chrono::milliseconds{50}, nullptr);
        message["id"] = id;
        message["timeout_ms"] = left.count();
        EffectEnd out;
        const bool ahead = bool_at(message, "waits");
        std::optional<std::string> denied;
        bool begun = false;
        const auto recorded_end = [&](bool ok, const std::string& error) {
            EffectResult r;
            r.step = step;
            r.phase = phase;
            r.ok = ok;
            r.error = error;
            r.duration = clock_.steady() - started;
            if (begun) ledger.end(std::move(r));
        };
        if (auto sent = performer->send(message); !sent) {
            performer->answered();
            co_return EffectEnd{HEAL_FAILED, sent.error().text, {}, true};
        }
        for (;;) {
            auto answer = co_await performer->next();
            if (!answer) {
                ret_lost = begun;
                out.never_began = !begun;
                out.error = fmt::format(
                    "the process that performs effects {}{}",
                    performer->why(),
                    begun ? "; whether this one happened is not known" : ""
                );
                recorded_end(false, out.error);
                co_return out;
            }
            if (int_at(*answer, "id") != id) continue;
            const std::string_view type = string_at(*answer, "type");
            if (type == "begin") {
                const bool waits = bool_at(*answer, "waits");
                const auto no = [&](std::string why) {
                    if (waits)
                        static_cast<void>(
                            performer->send({{"type", "no"}, {"id", id}, {"error", std::move(why)}})
                        );
                };
                if (ahead) {
                    const auto durable = co_await ledger.intent_durable();
                    if (!durable || cancelled) {
                        denied = durable ? too_late : not_stored(durable.error());
                        no(*denied);
                        continue;
                    }
                }
                Effect e = effect_of(object_at(*answer, "effect"));
                e.step = step;
                e.phase = phase;
                begun = true;
                const bool undoing = phase != "execute" && phase != "verify";
                faults::pass(undoing ? "rollback.begin" : "effect.begin");
                const auto recorded = co_await ledger.begin(std::move(e));
                faults::pass(undoing ? "rollback.recorded" : "effect.recorded");
                if (!recorded)
                    no(fmt::format("it could not be recorded: {}", recorded.error().text));
                else if (waits)
                    static_cast<void>(performer->send({{"type", "go"}, {"id", id}}));
            } else if (type == "end") {
                EffectResult r = effect_result_of(object_at(*answer, "result"));
                r.step = step;
                r.phase = phase;
                out.status = int_at(*answer, "status", HEAL_FAILED);
                out.error = r.error;
                out.result = r.result;
                performer->answered();
                faults::pass(phase != "execute" && phase != "verify" ? "rollback.end" : "effect.end");
                if (denied) co_return EffectEnd{HEAL_CANCELLED, *denied, {}};
                ledger.end(std::move(r));
                co_return out;
            }
        }
    }

    asio::io_context& context_;
    HostPool& pool_;
    ArtifactSource& source_;
    const Clock& clock_;
    std::map<std::string, Running> running_;  // by attempt; references stay valid while others come and go
};

}  // namespace

std::unique_ptr<StrategyRunner> create_process_runner(
    asio::io_context& context, HostPool& pool, ArtifactSource& source, const Clock& clock
) {
    return std::make_unique<ProcessRunner>(context, pool, source, clock);
}

}  // namespace heal
