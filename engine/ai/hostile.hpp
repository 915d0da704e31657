// Text that others wrote, made harmless for a question: without what steers terminals or hides from eyes,
// capped, valid UTF-8, and between delimiters that it cannot know. Delimiters only help a model; what
// protects is that nothing a model says is acted on by itself (D10).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace heal::ai {

/// Without ANSI sequences, control characters (line breaks and tabs stay), marks of writing direction,
/// zero-width, tag and variation characters; each broken byte is U+FFFD; Unicode's own line breaks become
/// "\n". At most `max_bytes` and a note of how much was cut. Pure.
std::string harmless(std::string_view text, std::size_t max_bytes);

/// Encloses parts of one question. The mark is random (64 bits), so that no text can close what it stands in.
class Fence {
public:
    Fence();
    /// @param mark  for tests; 16 of a … p
    explicit Fence(std::string mark) : mark_(std::move(mark)) {}

    /// "DATA-" and 16 letters of a … p.
    std::string mark() const { return "DATA-" + mark_; }
    /// Lines of a log, each a JSON string on a line of its own; '<', '>' and '`' as \uXXXX, so that neither a
    /// tag nor a SEARCH block nor a code fence can begin in it.
    std::string log(std::string_view name, const std::vector<std::string>& lines) const;
    /// Code as it is, since edits must match it; lines that hold the mark are left out.
    std::string code(std::string_view name, std::string_view text) const;

private:
    std::string open(std::string_view name) const;
    std::string close() const;
    std::string mark_;
};

/// A JSON string, quotes included, in which no character opens anything: see Fence::log. Pure.
std::string escaped(std::string_view text);

}  // namespace heal::ai
