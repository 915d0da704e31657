// What people ask of the decisions and set about them: holds (kill switches, windows, freezes) and the drill
// of the guards. Acts at once, is durable and audited before it answers. @thread the event loop's
#pragma once

#include "service/healer.hpp"

#include <boost/asio/awaitable.hpp>

#include <memory>
#include <string>

namespace heal {

class Brain {
public:
    virtual ~Brain() = default;

    /// Reads what people set before; call before Healer::recover().
    virtual boost::asio::awaitable<result<void>> start() = 0;
    /// Every minute.
    virtual void housekeeping() = 0;

    virtual json::array holds() const = 0;
    /// Body: kind (pause, maintenance, freeze), service or strategy (neither: all), reason, and for ("2h") or
    /// until (RFC 3339); only a pause may do without an end. A pause cancels what it concerns at once, before
    /// it is durable. errc::invalid_input.
    virtual boost::asio::awaitable<result<json::object>> set_hold(json::object body, std::string actor) = 0;
    /// errc::not_found: unknown or over.
    virtual boost::asio::awaitable<result<json::object>> lift_hold(std::string id, std::string actor) = 0;

    /// Why an event went as it did, in words, one step a line; the ranking is computed again from what was
    /// stored and must give the same bytes. errc::not_found.
    virtual boost::asio::awaitable<result<json::object>> why(std::string event) = 0;

    /// What a person says of an event afterwards. Body: verdict (right, false_positive, manual), reason.
    /// Audited. errc::invalid_input, errc::not_found, errc::conflict.
    virtual boost::asio::awaitable<result<json::object>> review(
        std::string event, json::object body, std::string actor
    ) = 0;

    /// Each guard in order, with what it protects from, its counters and whether the configuration turns it
    /// off.
    virtual json::object guards() const = 0;
    /// Makes each guard trip once on a made-up incident under the running limits; audited.
    virtual json::object drill(const std::string& actor) = 0;
};

std::unique_ptr<Brain> create_brain(Shared& shared, Healer& healer);

/// "90s", "15m", "2h", "7d". False leaves `ret` untouched.
bool parse_duration(std::string_view text, Duration& ret);

}  // namespace heal
