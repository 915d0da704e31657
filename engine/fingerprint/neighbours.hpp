// Which known patterns are nearly this one: for people who ask why two errors were not joined. Decides
// nothing.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace heal::fingerprint {

struct KnownPattern {
    std::string id, pattern;
};

struct Neighbour {
    double likeness =
        0;  ///< 0..1: share of the words that both have in the same order; 1 only for equal words
    KnownPattern known;
};

/// The patterns most like `pattern`, likest first, at least half alike, at most `most`. The same pattern is
/// no neighbour of its own. Looks at the first 200 words of each and at no more than 20 000 patterns. @thread
/// any
std::vector<Neighbour> nearest(
    std::string_view pattern, const std::vector<KnownPattern>& known, std::size_t most = 3
);

}  // namespace heal::fingerprint
