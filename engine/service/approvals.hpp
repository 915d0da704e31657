// Keeps what people are asked and what they answer (core/approval.hpp): durable, audited, the same from the
// command line, the API and signed links. Knows nothing of what is allowed: heals and patches come with a
// kind, a subject and a binding. @thread the event loop's
#pragma once

#include "core/approval.hpp"
#include "service/healer.hpp"

#include <boost/asio/awaitable.hpp>

#include <functional>
#include <memory>
#include <string>

namespace heal {

/// What is asked for. Asking again with the same binding finds the request that is open.
struct ApprovalAsk {
    std::string kind, subject, summary;
    json::object bound;   ///< everything that the act depends on
    unsigned needed = 1;  ///< different people who must say yes
};

class Approvals {
public:
    virtual ~Approvals() = default;

    /// The open request of this kind and subject, or a new one. One that was bound to something else is void.
    virtual boost::asio::awaitable<result<Approval>> ask(ApprovalAsk ask) = 0;

    /// One vote. Looks first at what is so now (set_binder); drift voids the request.
    /// One that another node has asked for is handed on to it and comes back as it was.
    /// @param seen  the digest that the voter was shown; "" when they did not say
    /// errc::not_found; errc::conflict with the reason: not open, expired, void, voted before;
    /// errc::invalid_input.
    virtual boost::asio::awaitable<result<Approval>> decide(std::string id, Vote vote, std::string seen) = 0;

    /// Hands a request on to the node that has `what`: an incident, or a run of a patch by its id, its bug or
    /// the bug's code. `request`: approve, reject; of a run also cancel. Audited. errc::not_found: no other
    /// node has it, or there are none.
    virtual boost::asio::awaitable<result<void>> forward(
        std::string what, std::string request, json::object body, std::string actor
    ) = 0;

    /// To be called right before the act: marks an approved request as used, once, if `bound` is still what
    /// was approved. errc::denied with the reason: nothing acts.
    virtual boost::asio::awaitable<result<Approval>> take(
        std::string kind, std::string subject, json::object bound
    ) = 0;

    /// How to find out what a request of this kind would be bound to now; nullopt: it waits for nobody any
    /// more.
    using Binder = std::function<std::optional<json::object>(const Approval&)>;
    virtual void set_binder(std::string kind, Binder binder) = 0;
    /// Told of every change after it is durable.
    virtual void on_change(std::string kind, std::function<void(const Approval&)> changed) = 0;

    /// A link that lets `actor` answer once, without a token of the API: {"path", "url", "expires_at"}.
    /// @param decision  "approve" or "reject"; @param valid  1 min … 7 d, never longer than the request
    virtual boost::asio::awaitable<result<json::object>> make_link(
        std::string id, std::string decision, std::string actor, Duration valid, std::string maker
    ) = 0;
    /// What a link is about; it stays usable. errc::not_found: forged, unknown, used or over.
    virtual boost::asio::awaitable<result<json::object>> show_link(std::string token) = 0;
    virtual boost::asio::awaitable<result<Approval>> use_link(std::string token, std::string peer) = 0;

    /// Newest first. `state`, `kind` "": any.
    virtual boost::asio::awaitable<result<json::array>> list(
        std::string state, std::string kind, std::int64_t limit
    ) = 0;
    virtual boost::asio::awaitable<result<Approval>> show(std::string id) = 0;

    /// Every minute: ends what nobody decided in time, forgets old links.
    virtual void housekeeping() = 0;
};

/// The key of links lies in the state directory, "approval.key" (0600), made when it is missing.
std::unique_ptr<Approvals> create_approvals(Shared& shared, std::string state_dir);

}  // namespace heal
