#include "service/feed.hpp"

namespace heal {

void Feed::publish(std::string type, json::object data) {
    data["at"] = to_rfc3339(clock_.wall());
    recent_.push_back({++seq_, std::move(type), json::serialize(data)});
    if (recent_.size() > 1000) recent_.pop_front();
    const auto listeners = listeners_;  // one may remove itself
    for (const auto& [id, listener] : listeners) listener(recent_.back());
}

std::uint64_t Feed::add(Listener listener) {
    listeners_[next_id_] = std::move(listener);
    return next_id_++;
}

}  // namespace heal
