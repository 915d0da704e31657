// StrategyRunner over children: one call is one message to a strategy host, its effects go to a performer and into the ledger, and
// what became of it all is one reply. Keeps no state beyond the calls under way.
#pragma once

#include "runner/host_pool.hpp"
#include "wire/strategy_runner.hpp"

#include <functional>
#include <map>
#include <memory>

namespace heal {

/// What the runner needs of the catalog.
class ArtifactSource {
public:
    virtual ~ArtifactSource() = default;
    /// Null when no loaded artifact has that strategy.
    virtual ArtifactPtr find(const std::string& strategy) const = 0;
    /// A child of the build died, hung or broke the protocol.
    virtual void crashed(const ArtifactPtr& artifact, const std::string& why, const std::string& output) = 0;
};

std::unique_ptr<StrategyRunner> create_process_runner(boost::asio::io_context& context, HostPool& pool, ArtifactSource& source, const Clock& clock);

}  // namespace heal
