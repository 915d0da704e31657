// Live updates: what happened, in order, to whoever listens (SSE, the demo, healctl tail). Keeps the last
// 1000 so that a listener who was away for a moment misses nothing; it is not the record, the store is.
#pragma once

#include "base/clock.hpp"
#include "base/json.hpp"

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>

namespace heal {

/// @thread the event loop's
class Feed {
public:
    struct Item {
        std::uint64_t seq;
        std::string type;  ///< "heard", "incident", "decision", "attempt", "action", "verification", "end",
                           ///< "strategies", "audit"
        std::string data;  ///< JSON text, one line
    };
    using Listener = std::function<void(const Item&)>;

    explicit Feed(const Clock& clock) : clock_(clock) {}
    /// Adds "at" (RFC 3339) to the data.
    void publish(std::string type, json::object data);
    /// Calls back for every later item until remove().
    std::uint64_t add(Listener listener);
    void remove(std::uint64_t id) { listeners_.erase(id); }
    const std::deque<Item>& recent() const { return recent_; }

private:
    const Clock& clock_;
    std::uint64_t seq_ = 0, next_id_ = 1;
    std::deque<Item> recent_;
    std::map<std::uint64_t, Listener> listeners_;
};

}  // namespace heal
