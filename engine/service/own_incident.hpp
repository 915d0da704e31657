// An incident that heald saw by itself: no line was logged for it.
#pragma once

#include "core/incident.hpp"

#include <string>

namespace heal {

struct OwnIncident {
    std::string service, target, environment, trigger;
    std::string kind;  ///< what makes it another error than others: part of its fingerprint
    std::string message, source;
    Severity severity = Severity::p2_minor;
};

/// Without an id; the fingerprint follows from the kind alone.
Incident make_incident(const OwnIncident& own, Time now);

}  // namespace heal
