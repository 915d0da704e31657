// An incident and a strategy that every guard lets pass, with all that guards read: the one place where a
// GuardInput is filled by hand. For the drill, tests and simulators; what they want denied they change.
#pragma once

#include "core/guards.hpp"

#include <string>
#include <vector>

namespace heal {

struct GuardScene {
    explicit GuardScene(Time now) {
        incident.id = "event";
        incident.fingerprint = "fingerprint";
        incident.service_name = incident.target = "target";
        candidate.info.name = "strategy";
        candidate.autonomy = Autonomy::automatic;
        in.incident = &incident;
        in.candidate = &candidate;
        in.limits = &limits;
        in.history = &history;
        in.episodes = &episodes;
        in.storm = &storm;
        in.holds = &holds;
        in.windows = &windows;
        in.forbidden = &forbidden;
        in.paused = false;
        in.health.emplace();
        in.groups.emplace();
        in.dependencies.emplace();
        in.grants.emplace();
        in.max_auto_risk = Risk::disruptive;
        in.now = now;
    }
    // `in` points into this.
    GuardScene(const GuardScene&) = delete;
    GuardScene& operator=(const GuardScene&) = delete;

    Incident incident;
    Candidate candidate;
    Limits limits;
    History history;
    Episodes episodes;
    StormWatch storm;
    std::vector<Hold> holds;
    std::vector<WindowRule> windows;
    std::vector<std::string> forbidden;
    GuardInput in;
};

}  // namespace heal
