// The shape of a text: its bytes with every digit read as 0. Nearly all decisions of the header cut and of
// the scan look at the shape alone; the few that look at the value of a digit say so (DigitWatch). So the key
// of a shape met before is the key of every text with that shape and those digits, and the scan can be left
// out. A memo of what a pure function gave: it can't change a result. Internal to this folder.
#pragma once

#include "fingerprint/zero_pages.hpp"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace heal::fingerprint {

/// Digits whose value decided something, as places in one text. More than `max`, or one outside the text (a
/// copy without colours or escapes), and the text is not remembered.
class DigitWatch {
public:
    static constexpr std::size_t max = 6;

    explicit DigitWatch(std::string_view text) noexcept : begin_(text.data()), size_(text.size()) {}

    /// `p` points at a digit that was looked at.
    void saw(const char* p) noexcept {
        // As numbers: p may point into another text, and is then far behind the end.
        const auto at = reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(begin_);
        if (at >= size_ || count_ == max) {
            refused_ = true;
            return;
        }
        at_[count_] = static_cast<std::uint16_t>(at);
        digit_[count_++] = *p;
    }
    /// All digits of a part.
    void saw(std::string_view part) noexcept {
        for (const char& c : part) {
            if (c >= '0' && c <= '9') saw(&c);
        }
    }
    void refuse() noexcept { refused_ = true; }
    /// What was seen in a part of the text; anywhere else: refused.
    void take(const DigitWatch& part) noexcept {
        for (std::size_t i = 0; i < part.count_; ++i) saw(part.begin_ + part.at_[i]);
        refused_ = refused_ || part.refused_;
    }
    bool refused() const noexcept { return refused_ || size_ > 0xFFFF; }

private:
    friend class ShapeMemo;
    const char* begin_;
    std::size_t size_;
    std::uint16_t at_[max];
    char digit_[max];
    std::uint8_t count_ = 0;
    bool refused_ = false;
};

/// 128 bits of a keyed universal hash (two NH sums over 64-bit words, Toeplitz key) of a shape and its
/// length. Two shapes agree with a chance of about 2^-126 for anyone who does not know the seed.
struct Shape {
    std::uint64_t low = 0, high = 0;
    bool operator==(const Shape&) const = default;
};

/// What is hashed: a whole line, or a message without its header.
enum class ShapeOf : std::uint32_t { line = 1, message = 2 };

class ShapeHash {
public:
    /// Longer texts are not remembered: traces and dumps, whose digits are the smaller part of them.
    static constexpr std::size_t max_text = 1024;

    ShapeHash(std::uint64_t seed_low, std::uint64_t seed_high) noexcept;
    /// @param text  at most max_text bytes
    Shape operator()(std::string_view text, ShapeOf kind) const noexcept;
    /// The same without vector instructions; what a machine without SSE2 runs.
    Shape scalar(std::string_view text, ShapeOf kind) const noexcept;

private:
    static constexpr std::size_t words = max_text / 8 + 8;
    alignas(64) std::uint64_t key_[words];
};

/// A bounded memo, four ways, second chance: shape and digits to pattern key and id. 64 bytes per entry, 65
/// 536 entries, nothing per line. One per thread.
class ShapeMemo {
public:
    static constexpr std::size_t ways = 4;

    struct Entry {
        Shape shape;
        std::uint64_t key_low, key_high, id;
        std::uint16_t at[DigitWatch::max];
        char digit[DigitWatch::max];
        std::uint8_t count;
        bool used, recent;
    };
    static_assert(sizeof(Entry) == 64);

    /// @param most  sets of four entries at last; a power of two, at least 64
    explicit ShapeMemo(std::size_t most) : most_(most), mask_(first_sets - 1), entries_(first_sets * ways) {}

    /// The entry for a text of this shape; null when none is known. Its digits are noted in `outer` when the
    /// text is a part of what that watches.
    Entry* find(const Shape& shape, std::string_view text, DigitWatch* outer) noexcept {
        Entry* const set = entries_.data() + (shape.low & mask_) * ways;
        for (std::size_t i = 0; i < ways; ++i) {
            Entry& e = set[i];
            if (e.shape != shape || !e.used) continue;
            bool same = true;
            for (std::size_t j = 0; j < e.count; ++j) same = same && text[e.at[j]] == e.digit[j];
            if (!same) continue;
            if (outer != nullptr) {
                for (std::size_t j = 0; j < e.count; ++j) outer->saw(text.data() + e.at[j]);
            }
            if (!e.recent) e.recent = true;
            return &e;
        }
        return nullptr;
    }
    /// @param watch  what the computation looked at, over the same text; refused: nothing is kept
    void put(
        const Shape& shape,
        const DigitWatch& watch,
        std::uint64_t key_low,
        std::uint64_t key_high,
        std::uint64_t id
    );

private:
    static constexpr std::size_t first_sets = 64;

    Entry& place_in(Entry* set) noexcept;
    void grow();

    std::size_t most_, mask_, pushed_out_ = 0;
    ZeroPages<Entry> entries_;
    std::uint32_t hand_ = 0;
};

struct Line;
/// As in fingerprint.hpp, telling which digits decided.
Line cut_header(std::string_view raw_line, DigitWatch& watch) noexcept;

}  // namespace heal::fingerprint
