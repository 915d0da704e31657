#include "core/decision.hpp"

#include "core/router.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

namespace heal {
namespace {

constexpr double million = 1e6;

std::int64_t millionths(double value) { return std::llround(value * million); }

struct Ranked {
    std::string strategy, note;
    std::int64_t priority = 0, confidence = 0;
    bool excluded = false, explored = false;
};

}  // namespace

json::object decision_input(
    const std::vector<Candidate>& candidates,
    const std::vector<std::string>& excluded,
    const std::string& explore
) {
    json::array list;
    for (const auto& c : candidates) {
        json::array learned;
        for (const auto& level : c.learned)
            learned.push_back(json::array{millionths(level.good), millionths(level.bad)});
        json::object o{
            {"strategy", c.info.name},
            {"priority", c.priority},
            {"prior", millionths(c.prior)},
            {"floor", millionths(c.floor)},
            {"learned", std::move(learned)}};
        if (!c.note.empty()) o["note"] = to_valid_utf8(c.note);
        list.push_back(std::move(o));
    }
    json::object input{{"candidates", std::move(list)}};
    if (!excluded.empty()) input["excluded"] = json::array(excluded.begin(), excluded.end());
    if (!explore.empty()) input["explore"] = explore;
    return input;
}

json::array decide(const json::object& input) {
    std::vector<Ranked> ranked;
    const auto& excluded = array_at(input, "excluded");
    for (const auto& item : array_at(input, "candidates")) {
        if (!item.is_object()) return {};
        const auto& o = item.get_object();
        Ranked r;
        r.strategy = std::string{string_at(o, "strategy")};
        r.note = std::string{string_at(o, "note")};
        r.priority = int_at(o, "priority");
        std::vector<Learned> learned;
        for (const auto& level : array_at(o, "learned")) {
            const auto& pair = level.as_array();
            learned.push_back(
                {static_cast<double>(pair.at(0).as_int64()) / million,
                 static_cast<double>(pair.at(1).as_int64()) / million}
            );
        }
        r.confidence =
            millionths(learned_confidence(static_cast<double>(int_at(o, "prior")) / million, learned));
        const auto floor = int_at(o, "floor");
        if (r.note.empty() && r.confidence < floor) {
            r.note = fmt::format(
                "confidence {:.3f} is below its floor {:.3f}",
                static_cast<double>(r.confidence) / million,
                static_cast<double>(floor) / million
            );
        }
        r.excluded = std::any_of(excluded.begin(), excluded.end(), [&](const json::value& name) {
            return name.is_string() && view(name.get_string()) == r.strategy;
        });
        r.explored = string_at(input, "explore") == r.strategy;
        ranked.push_back(std::move(r));
    }
    std::sort(ranked.begin(), ranked.end(), [](const Ranked& a, const Ranked& b) {
        return std::make_tuple(
                   !a.note.empty(),
                   a.excluded,
                   -a.priority,
                   !a.explored,
                   -a.confidence,
                   std::string_view{a.strategy}
               ) <
               std::make_tuple(
                   !b.note.empty(),
                   b.excluded,
                   -b.priority,
                   !b.explored,
                   -b.confidence,
                   std::string_view{b.strategy}
               );
    });
    json::array out;
    for (const auto& r : ranked) {
        out.push_back(json::object{
            {"rank", out.size() + 1},
            {"strategy", r.strategy},
            {"confidence", r.confidence},
            {"note", r.note}});
    }
    return out;
}

void apply_decision(const json::array& output, std::vector<Candidate>& candidates) {
    std::size_t next = 0;
    for (const auto& item : output) {
        const auto& o = item.as_object();
        const auto it = std::find_if(
            candidates.begin() + static_cast<std::ptrdiff_t>(next),
            candidates.end(),
            [&](const Candidate& c) { return c.info.name == string_at(o, "strategy"); }
        );
        if (it == candidates.end()) continue;
        it->confidence = static_cast<double>(int_at(o, "confidence")) / million;
        it->note = std::string{string_at(o, "note")};
        std::rotate(candidates.begin() + static_cast<std::ptrdiff_t>(next), it, it + 1);
        ++next;
    }
}

}  // namespace heal
