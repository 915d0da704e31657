#include "fingerprint/merges.hpp"

#include "base/id.hpp"
#include "fingerprint/chars.hpp"

#include <algorithm>
#include <map>

namespace heal::fingerprint {
namespace {

constexpr std::size_t max_patterns = 20000;
constexpr std::size_t max_words = 64;

std::vector<std::string> words_of(const std::string& pattern) {
    std::vector<std::string> out;
    std::size_t p = 0;
    while (p <= pattern.size()) {
        const std::size_t e = std::min(pattern.find(' ', p), pattern.size());
        out.push_back(pattern.substr(p, e - p));
        p = e + 1;
    }
    return out;
}

std::string join(const std::vector<std::string>& words) {
    std::string out;
    for (const auto& w : words) out.append(out.empty() ? "" : " ").append(w);
    return out;
}

bool is_constant_word(const std::string& w) {
    return w.find("<*>") == std::string::npos && std::any_of(w.begin(), w.end(), is_alpha);
}

bool is_capitals(const std::string& w) {
    bool letter = false;
    for (const char c : w) {
        if (c >= 'a' && c <= 'z') return false;
        letter = letter || is_upper(c);
    }
    return letter && w.size() > 1;
}

std::size_t needed(std::size_t constants, bool capitals) {
    std::size_t n = constants >= 14 ? 3 : constants >= 9 ? 4 : 5;
    if (constants <= 1) n *= 2;
    if (capitals) n *= 3;
    return n;
}

std::string id_of(std::string_view service, const std::string& pattern) {
    return sha256_hex(std::string{service} + ":" + pattern + ":").substr(0, 16);
}

}  // namespace

std::vector<Merge> suggest_merges(
    std::string_view service, const std::set<std::string>& patterns, const Decisions& decisions
) {
    std::vector<Merge> out;
    std::set<std::string> decided = decisions.apart;
    for (const auto& group : decisions.joined) {
        std::set<std::string> members;
        for (const auto& p : group) {
            if (patterns.contains(p)) members.insert(p);
            decided.insert(p);
        }
        if (members.size() < 2) continue;
        const std::string& first = *members.begin();
        out.push_back(
            {first, id_of(service, first), {members.begin(), members.end()}, "joined by people", true}
        );
    }
    // Canonical pattern -> fine patterns; positions open step by step until nothing changes.
    std::map<std::string, std::set<std::string>> groups;
    std::size_t taken = 0;
    for (const auto& p : patterns) {
        if (decided.contains(p) || ++taken > max_patterns) continue;
        groups[p].insert(p);
    }
    std::map<std::string, std::size_t> seen_words;
    for (bool changed = true; changed;) {
        changed = false;
        struct Open {
            std::set<std::string> words, members;
            std::size_t constants = 0;
            bool capitals = false;
        };
        std::map<std::string, Open> skeletons;
        for (const auto& [canonical, members] : groups) {
            std::vector<std::string> words = words_of(canonical);
            if (words.size() < 2 || words.size() > max_words) continue;
            const auto constants =
                static_cast<std::size_t>(std::count_if(words.begin(), words.end(), is_constant_word));
            for (auto& word : words) {
                if (!is_constant_word(word)) continue;
                std::string old = word;
                // Marks at the end of the word are text: "echo," opens as "<*>,".
                std::size_t end = word.size();
                while (end > 0 && !is_alpha(word[end - 1]) && !is_digit(word[end - 1])) --end;
                word = "\x01" + word.substr(end);
                Open& open = skeletons[join(words)];
                open.words.insert(old);
                open.members.insert(canonical);
                open.constants = constants - 1;
                open.capitals = open.capitals || is_capitals(old);
                word = std::move(old);
            }
        }
        for (const auto& [skeleton, open] : skeletons) {
            if (open.words.size() < needed(open.constants, open.capitals) || open.constants == 0) continue;
            std::string canonical = skeleton;
            canonical.replace(canonical.find('\x01'), 1, "<*>");
            std::set<std::string> members;
            for (const auto& m : open.members) {
                const auto it = groups.find(m);
                // A pattern that another skeleton took in this round is found again in the next.
                if (it == groups.end()) continue;
                members.insert(it->second.begin(), it->second.end());
                groups.erase(it);
            }
            if (members.empty()) continue;
            groups[canonical].insert(members.begin(), members.end());
            seen_words[canonical] = open.words.size();
            changed = true;
        }
    }
    for (const auto& [canonical, members] : groups) {
        if (members.size() < 2) continue;
        out.push_back(
            {canonical,
             id_of(service, canonical),
             {members.begin(), members.end()},
             std::to_string(seen_words[canonical]) +
                 " different words were seen at one position of otherwise equal texts",
             false}
        );
    }
    return out;
}

}  // namespace heal::fingerprint
