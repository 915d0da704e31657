// A bounded map from 64-bit keys to values that forgets what was not touched for longest. For state that is
// kept per fingerprint: an entry costs the value, two pointers and the map's node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace heal {

/// A key for a text; equal texts give equal keys, on every machine. 64 bits: among a million texts two share
/// a key with a probability of 3e-8.
inline std::uint64_t key_of_text(std::string_view text) noexcept {
    std::uint64_t h = 0xCBF29CE484222325ULL;  // FNV-1a, then mixed
    for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
    h ^= h >> 33U;
    h *= 0xFF51AFD7ED558CCDULL;
    return h ^ (h >> 33U);
}

template <class Value>
class Recent {
    struct Node {
        Value value;
        std::uint64_t key = 0;
        Node *older = nullptr, *newer = nullptr;
    };

public:
    explicit Recent(std::size_t limit) : limit_(limit) {}
    Recent(Recent&& other) noexcept
        : nodes_(std::move(other.nodes_)),
          limit_(other.limit_),
          oldest_(std::exchange(other.oldest_, nullptr)),
          newest_(std::exchange(other.newest_, nullptr)) {}
    Recent& operator=(Recent&&) = delete;

    /// The value of a key, made when missing; it is the newest now. At the limit the oldest goes first:
    /// `forgotten(value)` is told. The reference holds until the entry is forgotten.
    template <class Forgotten>
    Value& touch(std::uint64_t key, Forgotten forgotten) {
        if (const auto known = nodes_.find(key); known != nodes_.end()) {
            Node& node = known->second;
            if (newest_ != &node) {
                unlink(node);
                append(node);
            }
            return node.value;
        }
        if (nodes_.size() >= limit_ && oldest_) {
            forgotten(oldest_->value);
            erase(*oldest_);
        }
        Node& node = nodes_[key];
        node.key = key;
        append(node);
        return node.value;
    }
    Value* find(std::uint64_t key) {
        const auto it = nodes_.find(key);
        return it == nodes_.end() ? nullptr : &it->second.value;
    }
    /// Forgets from the oldest on while `goes(value)`.
    template <class Goes>
    void forget_oldest_while(Goes goes) {
        while (oldest_ && goes(oldest_->value)) erase(*oldest_);
    }
    /// Oldest first; nothing may be added or forgotten meanwhile.
    template <class Visit>
    void each(Visit visit) {
        for (Node* n = oldest_; n; n = n->newer) visit(n->value);
    }
    template <class Visit>
    void each(Visit visit) const {
        for (const Node* n = oldest_; n; n = n->newer) visit(n->value);
    }
    std::size_t size() const { return nodes_.size(); }

private:
    void unlink(Node& n) {
        (n.older ? n.older->newer : oldest_) = n.newer;
        (n.newer ? n.newer->older : newest_) = n.older;
    }
    void append(Node& n) {
        n.older = newest_;
        n.newer = nullptr;
        (newest_ ? newest_->newer : oldest_) = &n;
        newest_ = &n;
    }
    void erase(Node& n) {
        unlink(n);
        nodes_.erase(n.key);
    }
    std::unordered_map<std::uint64_t, Node> nodes_;  // nodes keep their places
    std::size_t limit_;
    Node *oldest_ = nullptr, *newest_ = nullptr;
};

}  // namespace heal
