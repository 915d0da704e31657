// The triggers of the configuration (core/triggers.hpp) in a running heald: restores their windows from the
// store, tells them what is heard and that time passes, opens incidents for what nobody logged.
// @thread the event loop's
#pragma once

#include "core/triggers.hpp"
#include "ingest/batch.hpp"
#include "service/healer.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>

#include <optional>
#include <string>
#include <unordered_set>

namespace heal {

class TriggerWatch {
public:
    TriggerWatch(Shared& shared, Healer& healer);

    /// Takes the triggers of the settings and restores what they knew; also after a reload.
    boost::asio::awaitable<result<void>> start();
    /// Until stop(): absences, sequences and what is cleared, each second.
    boost::asio::awaitable<void> run();
    void stop();
    /// Every minute: keeps what the store cannot tell, looks which bugs are said to be fixed.
    void housekeeping();

    bool empty() const { return triggers_.empty(); }

    struct Heard {
        bool governed = false;  ///< only a trigger opens an incident for it
        bool opens = false;
        std::string trigger;  ///< "name: reason"
        std::optional<Severity> severity;
    };
    /// @param count  0: counted before
    Heard heard(
        const Delta& delta, const std::string& fingerprint, Severity severity, std::uint64_t count, Time now
    );

    json::object list() const;

private:
    void open(const Fired& fired);
    void keep_snapshot();

    Shared& s_;
    Healer& healer_;
    Triggers triggers_{{}};
    std::unordered_set<std::uint64_t> known_, fixed_;
    std::string kept_;
    boost::asio::steady_timer timer_;
    bool stopping_ = false;
};

}  // namespace heal
