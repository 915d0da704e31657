// Looks at services from outside: HTTP, TCP, command. Each look has a deadline; a look that could not be made
// counts as unhealthy, never as nothing (D6). Runs on threads of its own.
#pragma once

#include "core/healing_machine.hpp"
#include "service/settings.hpp"

#include <boost/asio/awaitable.hpp>

#include <memory>
#include <vector>

namespace heal {

class Prober {
public:
    virtual ~Prober() = default;
    /// All probes at once; one item of evidence each. Resumes on the caller's executor.
    virtual boost::asio::awaitable<Evidence> check(std::vector<ProbeSettings> probes) = 0;
};

std::unique_ptr<Prober> create_prober();

}  // namespace heal
