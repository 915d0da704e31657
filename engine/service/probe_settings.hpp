// A check of health from outside, as configured.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace heal {

/// Exactly one of http, tcp, command is set.
struct ProbeSettings {
    std::string http;  ///< URL; healthy: status < 400, or `status`, and `contains` in the body
    int status = 0;
    std::string contains;
    std::string tcp;                   ///< "host:port" accepts a connection
    std::vector<std::string> command;  ///< argv; healthy: exit code 0
    std::chrono::milliseconds timeout{2000};
};

}  // namespace heal
