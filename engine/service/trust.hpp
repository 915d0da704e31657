// Keeps the ladder of trust (core/trust.hpp): restores it, takes note of outcomes, stores and audits each
// step.
// @thread the event loop's
#pragma once

#include "core/trust.hpp"
#include "service/healer.hpp"

#include <boost/asio/awaitable.hpp>

#include <memory>
#include <string>

namespace heal {

class Trust {
public:
    virtual ~Trust() = default;

    /// Reads rungs and evidence; call before Healer::recover(), and when another node changed a rung.
    virtual boost::asio::awaitable<result<void>> start() = 0;

    /// What a strategy may do by itself with this class of error, below the ceiling that a person set.
    virtual Autonomy limit(const std::string& strategy, const std::string& error_class, Autonomy ceiling)
        const = 0;

    /// An outcome whose class is known.
    virtual void note(
        const std::string& strategy, const std::string& error_class, TrustEvidence evidence
    ) = 0;
    /// An outcome of an attempt, or of the attempt that healed an event; its class is looked up in the store.
    virtual void note_attempt(const std::string& attempt, TrustEvidence evidence) = 0;
    virtual void note_event(const std::string& event, TrustEvidence evidence) = 0;

    /// {"policy": …, "items": [{strategy, error_class, rung, ceiling, effective, …}]}
    virtual json::object list() const = 0;
    /// Body: strategy, error_class, rung (a word, or null: the ladder decides again), reason. Audited.
    /// errc::invalid_input.
    virtual boost::asio::awaitable<result<json::object>> set(json::object body, std::string actor) = 0;
};

std::unique_ptr<Trust> create_trust(Shared& shared);

}  // namespace heal
