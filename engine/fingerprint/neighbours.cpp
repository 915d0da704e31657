#include "fingerprint/neighbours.hpp"

#include <algorithm>

namespace heal::fingerprint {
namespace {

constexpr std::size_t max_words = 200, max_known = 20000;

void split(std::string_view text, std::vector<std::string_view>& out) {
    out.clear();
    while (!text.empty() && out.size() < max_words) {
        const std::size_t end = std::min(text.find(' '), text.size());
        if (end > 0) out.push_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
}

/// Length of the longest common subsequence of words.
std::size_t common(
    const std::vector<std::string_view>& a,
    const std::vector<std::string_view>& b,
    std::vector<std::size_t>& row
) {
    row.assign(b.size() + 1, 0);
    for (const auto word : a) {
        std::size_t diagonal = 0;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t above = row[j];
            row[j] = word == b[j - 1] ? diagonal + 1 : std::max(row[j], row[j - 1]);
            diagonal = above;
        }
    }
    return row.back();
}

}  // namespace

std::vector<Neighbour> nearest(
    std::string_view pattern, const std::vector<KnownPattern>& known, std::size_t most
) {
    std::vector<std::string_view> words, others;
    std::vector<std::size_t> row;
    split(pattern, words);
    std::vector<Neighbour> found;
    for (std::size_t i = 0; i < known.size() && i < max_known; ++i) {
        if (known[i].pattern == pattern) continue;
        split(known[i].pattern, others);
        const std::size_t longest = std::max(words.size(), others.size());
        // What can't be half alike is not compared.
        if (longest == 0 || std::min(words.size(), others.size()) * 2 < longest) continue;
        const double likeness =
            static_cast<double>(common(words, others, row)) / static_cast<double>(longest);
        if (likeness < 0.5) continue;
        found.push_back({likeness, known[i]});
    }
    const auto by_likeness = [](const Neighbour& a, const Neighbour& b) {
        return a.likeness != b.likeness ? a.likeness > b.likeness : a.known.pattern < b.known.pattern;
    };
    std::sort(found.begin(), found.end(), by_likeness);
    if (found.size() > most) found.resize(most);
    return found;
}

}  // namespace heal::fingerprint
