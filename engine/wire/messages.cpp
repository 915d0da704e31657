#include "wire/messages.hpp"

namespace heal {

json::object to_json(const Effect& e) {
    return {{"step", e.step}, {"phase", e.phase}, {"kind", e.kind}, {"summary", e.summary}, {"parameters", e.parameters},
            {"capability", e.capability}, {"changes_world", e.changes_world}, {"undoable", e.undoable}, {"undo", e.undo}, {"undoes_step", e.undoes_step}};
}

Effect effect_of(const json::object& o) {
    Effect e;
    e.step = int_at(o, "step");
    e.phase = std::string{string_at(o, "phase")};
    e.kind = std::string{string_at(o, "kind")};
    e.summary = std::string{string_at(o, "summary")};
    e.parameters = object_at(o, "parameters");
    e.capability = std::string{string_at(o, "capability")};
    e.changes_world = bool_at(o, "changes_world", true);
    e.undoable = bool_at(o, "undoable");
    e.undo = object_at(o, "undo");
    e.undoes_step = int_at(o, "undoes_step");
    return e;
}

json::object to_json(const EffectResult& r) {
    return {{"step", r.step}, {"phase", r.phase}, {"ok", r.ok}, {"skipped", r.skipped}, {"error", r.error}, {"result", r.result}, {"duration_us", r.duration.count()}};
}

EffectResult effect_result_of(const json::object& o) {
    EffectResult r;
    r.step = int_at(o, "step");
    r.phase = std::string{string_at(o, "phase")};
    r.ok = bool_at(o, "ok");
    r.skipped = bool_at(o, "skipped");
    r.error = std::string{string_at(o, "error")};
    r.result = object_at(o, "result");
    r.duration = std::chrono::microseconds{int_at(o, "duration_us")};
    return r;
}

}  // namespace heal
