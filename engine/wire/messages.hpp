// The JSON messages between the engine and its children, as values. Field names are spelled here and nowhere
// else.
//
//   engine → host      load {libraries}   call {id, call, strategy, request, timeout_ms}   assess {id,
//   calls[], timeout_ms}
//                      effect_result {id, status, error, result}   cancel {id}
//   host → engine      hello {protocol, abi, pid, missing}   described {facts} | refused {reason}
//                      effect {id, kind, parameters}   log {level, message, fields, progress}   result {id,
//                      replies[]}
//   engine → performer perform {id, step, phase, strategy, attempt, grants | all, dry_run, timeout_ms, kind,
//   parameters, undoes_step}
//                      go {id} | no {id, error}   cancel {id}
//   performer → engine ready {pid}   begin {id, effect}   end {id, status, result}
#pragma once

#include "wire/strategy_runner.hpp"

namespace heal {

/// A frame's text as an object. Deeper than the engine's own input may be (32 levels), since such input
/// travels within a message: what somebody logged must never make a message unreadable. errc::protocol.
result<json::object> parse_message(std::string_view text);

json::object to_json(const Effect& effect);
/// Lenient: the performer is our own code; missing fields are defaults.
Effect effect_of(const json::object& object);

json::object to_json(const EffectResult& r);
EffectResult effect_result_of(const json::object& object);

}  // namespace heal
