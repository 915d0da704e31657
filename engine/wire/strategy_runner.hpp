// What the engine asks of whoever runs strategies. Two implementations: LocalRunner (host/, in this process:
// the child itself, tests) and ProcessRunner (runner/, a heal-host child per artifact). The engine never sees
// more than this.
//
// Threads: every call and every callback on the thread of the io_context given at construction.
#pragma once

#include "base/error.hpp"
#include "core/model.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace heal {

/// One effect a strategy asks its context for (D3): a step of an attempt, recorded in `healing_actions`.
struct Effect {
    std::int64_t step = 0;      ///< 1, 2, … within the attempt and phase
    std::string phase;          ///< "execute", "verify", "rollback", "undo"
    std::string kind;           ///< "exec", "http", "write_file", "signal", "redis", …
    std::string summary;        ///< one line for people: "exec /usr/sbin/nginx -s reload"
    json::object parameters;    ///< as asked; secrets already taken out
    std::string capability;     ///< what was needed, "exec:/usr/sbin/nginx"; "" when none is
    bool changes_world = true;  ///< false for reads, sleep, progress
    bool undoable = false;
    /// How to take it back: an effect in the same form ({"kind": …, "parameters": …}); empty when it can't
    /// be.
    json::object undo;
    std::int64_t undoes_step = 0;  ///< in phase "undo": the step it takes back
};

struct EffectResult {
    std::int64_t step = 0;
    std::string phase;
    bool ok = false;
    bool skipped = false;  ///< dry-run: listed, not done
    std::string error;     ///< why not ok
    json::object result;   ///< exit code, bytes, status, … capped at 64 KiB
    std::chrono::microseconds duration{0};
};

/// Where the effects of one attempt are recorded. Implemented by the engine.
class EffectLedger {
public:
    virtual ~EffectLedger() = default;
    /// Whether intent_durable() would have to wait.
    virtual bool intent_pending() const { return false; }
    /// Before each effect: resumes when the attempt's intent is durable (D4). Strategy code may run before
    /// that, in its host, where it can change nothing; its effects may not. An error means: no effect.
    virtual boost::asio::awaitable<result<void>> intent_durable() { co_return result<void>{}; }
    /// Before an effect with `changes_world && undoable`: resumes when the record (with its undo) is durable;
    /// an error means: don't do it. For the others the record is queued and this resumes at once (the
    /// attempt's own intent is durable).
    virtual boost::asio::awaitable<result<void>> begin(Effect effect) = 0;
    virtual void end(EffectResult effect_result) = 0;
    /// A line of the strategy's log, or progress in [0,1] (< 0: none).
    virtual void log(Level level, std::string message, json::object fields, double progress) = 0;
};

/// Everything a strategy gets for one call. `request` is what it sees:
///   {"attempt": id, "incident": {fingerprint, service, environment, level, message, error_type, stack_trace,
///   pattern, count,
///    first_seen_us, last_seen_us, context, …}, "target": {…facts of the inventory…}, "config": {…},
///    "dry_run": bool}
struct StrategyCall {
    std::string strategy;
    std::string attempt;  ///< idempotency key; equal in every retry of the same attempt
    json::object request;
    std::vector<std::string> grants;  ///< capabilities allowed for this call, placeholders already filled
    bool dry_run = false;             ///< list effects, do none
    std::chrono::milliseconds timeout{30'000};
};

struct StrategyReply {
    Outcome outcome = Outcome::failed;
    double confidence = 0;  ///< assess only, in [0,1]
    std::string text;       ///< one sentence for people
    json::object detail;
    bool crashed = false;  ///< the child died or broke the protocol; `output` has its last words
    bool timed_out = false;
    std::string output;  ///< last 64 KiB of stdout and stderr, only after a crash or a kill
};

class StrategyRunner {
public:
    virtual ~StrategyRunner() = default;

    /// `calls` all name strategies of one artifact; one reply each, same order. Confidence out of [0,1] or
    /// NaN comes back as `declined`. One message to the child for all of them.
    virtual boost::asio::awaitable<std::vector<StrategyReply>> assess(std::vector<StrategyCall> calls) = 0;
    /// A child killed or lost during execute gives Outcome::unknown, never failed: the world may have
    /// changed.
    virtual boost::asio::awaitable<StrategyReply> execute(StrategyCall call, EffectLedger& ledger) = 0;
    virtual boost::asio::awaitable<StrategyReply> verify(StrategyCall call, EffectLedger& ledger) = 0;
    /// The author's own rollback; only for strategies with has_rollback.
    virtual boost::asio::awaitable<StrategyReply> rollback(StrategyCall call, EffectLedger& ledger) = 0;
    /// Takes recorded effects back, in the order given (the engine gives them newest first). Needs no
    /// strategy code: `call.strategy` may be gone. Stops at the first that fails; `detail.undone` counts.
    /// Recorded in phase "undo". Interrupted (Outcome::unknown, or the engine crashed): call it again with
    /// the effects not yet recorded as undone; the one that was cut off may be among them, it does no more
    /// than once.
    virtual boost::asio::awaitable<StrategyReply> undo(
        StrategyCall call, std::vector<Effect> effects, EffectLedger& ledger
    ) = 0;
    /// Asks the running call of this attempt to stop: cancel, then TERM, then KILL. Its awaitable ends with
    /// `cancelled` if the strategy obeyed, else `unknown`. No effect when nothing of it runs.
    virtual void cancel(const std::string& attempt) = 0;
    /// Ends all children; awaitables under way resume with `cancelled` or `unknown`.
    virtual boost::asio::awaitable<void> stop() = 0;
};

}  // namespace heal
