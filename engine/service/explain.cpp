#include "service/explain.hpp"

#include "core/decision.hpp"
#include "core/guard_record.hpp"

#include <fmt/format.h>

namespace heal {
namespace {

/// What a log said may hold anything; one line of text it becomes.
std::string quoted(std::string_view text) {
    std::string out;
    for (const char c : text.substr(0, 200))
        out += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c;
    return to_valid_utf8(out) + (text.size() > 200 ? "…" : "");
}

/// Equal whatever order the store gave the keys back in.
bool same(const json::object& a, const json::object& b) {
    if (a.size() != b.size()) return false;
    for (const auto& [key, value] : a) {
        const auto* other = b.if_contains(key);
        if (!other || json::serialize(value) != json::serialize(*other)) return false;
    }
    return true;
}

double of_millionths(const json::object& o, std::string_view key) {
    return static_cast<double>(int_at(o, key)) / 1e6;
}

}  // namespace

json::object explain(const json::object& e) {
    json::array lines;
    const auto say = [&](std::string text) { lines.push_back(json::value(std::move(text))); };
    const auto& incident = object_at(e, "incident");
    const auto& decision = object_at(e, "decision");
    say(fmt::format(
        "{} opened at {}: service '{}', target '{}', severity {}, because of: {}",
        string_at(e, "id"),
        string_at(e, "opened_at"),
        quoted(string_at(e, "service_name")),
        quoted(string_at(e, "target")),
        string_at(e, "severity"),
        string_at(e, "trigger_name")
    ));
    say(fmt::format(
        "the error, fingerprint {}, {} times: {}",
        string_at(e, "fingerprint"),
        int_at(e, "occurrence_count"),
        quoted(string_at(incident, "message"))
    ));

    const auto& input = object_at(decision, "input");
    const auto& stored = array_at(decision, "output");
    const json::array again = decide(input);
    const bool has_ranking = decision.contains("input");
    const bool equal = json::serialize(again) == json::serialize(stored);
    if (array_at(input, "candidates").empty())
        say("no strategy fits it");
    else
        say(fmt::format("{} strategies fit it; best first:", array_at(input, "candidates").size()));
    for (const auto& item : stored) {
        const auto& r = item.as_object();
        for (const auto& given : array_at(input, "candidates")) {
            const auto& c = given.as_object();
            if (string_at(c, "strategy") != string_at(r, "strategy")) continue;
            std::string evidence;
            static constexpr const char* levels[] = {"in all", "with this service", "with this error"};
            std::size_t level = 0;
            for (const auto& pair : array_at(c, "learned")) {
                const auto& p = pair.as_array();
                if (level < 3 && (p.at(0).as_int64() > 0 || p.at(1).as_int64() > 0)) {
                    evidence += fmt::format(
                        ", {} {:.1f} good {:.1f} bad",
                        levels[level],
                        static_cast<double>(p.at(0).as_int64()) / 1e6,
                        static_cast<double>(p.at(1).as_int64()) / 1e6
                    );
                }
                ++level;
            }
            say(fmt::format(
                "  {}. '{}': priority {}, confidence {:.3f} from a prior of {:.3f}{}{}",
                int_at(r, "rank"),
                string_at(r, "strategy"),
                int_at(c, "priority"),
                of_millionths(r, "confidence"),
                of_millionths(c, "prior"),
                evidence.empty() ? ", no outcome known yet" : evidence,
                string_at(r, "note").empty() ? "" : "; out: " + quoted(string_at(r, "note"))
            ));
        }
    }
    for (const auto& name : array_at(input, "excluded")) {
        if (name.is_string())
            say(fmt::format(
                "  '{}' goes last: it failed last on this error, or did not hold", view(name.get_string())
            ));
    }
    if (has_ranking)
        say(equal
                ? "  computed again from what was stored: the same, byte by byte"
                : "  computed again from what was stored: NOT the same; another version of heald decided it");

    std::int64_t replayed = 0, differ = 0;
    for (const auto& item : array_at(decision, "verdicts")) {
        const auto& v = item.as_object();
        if (const auto& record = object_at(v, "record"); !record.empty()) {
            json::object told = v;
            told.erase("record");
            told.erase("times");
            ++replayed;
            if (!same(told, replay_guards(record))) ++differ;
        }
        const auto times = int_at(v, "times", 1);
        if (bool_at(v, "allowed")) {
            say(fmt::format(
                "{}: all {} guards let '{}' pass{}",
                string_at(v, "at"),
                int_at(v, "asked"),
                string_at(v, "strategy"),
                bool_at(v, "approved") ? ", a person had approved it" : ""
            ));
        } else {
            say(fmt::format(
                "{}: '{}' is held back by {}{}",
                string_at(v, "at"),
                string_at(v, "strategy"),
                string_at(v, "decided_by"),
                times > 1 ? fmt::format(" ({} times)", times) : std::string{}
            ));
        }
        for (const auto& stop : array_at(v, "stopped")) {
            const auto& s = stop.as_object();
            say(fmt::format("    {}: {}", string_at(s, "guard"), quoted(string_at(s, "reason"))));
        }
        for (const auto& over : array_at(v, "overridden")) {
            const auto& s = over.as_object();
            say(fmt::format("    {} overridden: {}", string_at(s, "guard"), quoted(string_at(s, "reason"))));
        }
    }
    if (replayed > 0)
        say(differ == 0
                ? fmt::format(
                      "  {} verdicts of the guards computed again from what was stored: the same, byte by "
                      "byte",
                      replayed
                  )
                : fmt::format(
                      "  {} of {} verdicts of the guards computed again from what was stored: NOT the same",
                      differ,
                      replayed
                  ));
    for (const auto& item : array_at(e, "attempts")) {
        const auto& a = item.as_object();
        say(fmt::format(
            "{}: '{}' {}{}{}",
            string_at(a, "started_at"),
            string_at(a, "strategy"),
            bool_at(a, "dry_run") ? "listed what it would do, " : "",
            string_at(a, "state"),
            string_at(a, "text").empty() ? "" : ": " + quoted(string_at(a, "text"))
        ));
        for (const auto& action : array_at(a, "actions")) {
            const auto& s = action.as_object();
            say(fmt::format(
                "    {} {}. {}: {}{}",
                string_at(s, "phase"),
                int_at(s, "step"),
                quoted(string_at(s, "summary")),
                string_at(s, "state"),
                string_at(s, "error").empty() ? "" : " (" + quoted(string_at(s, "error")) + ")"
            ));
        }
        for (const auto& one : array_at(a, "evidence")) {
            const auto& i = one.as_object();
            say(fmt::format(
                "    seen: {} is {}{}",
                quoted(string_at(i, "source")),
                bool_at(i, "ok") ? "well" : "ill",
                string_at(i, "text").empty() ? "" : ": " + quoted(string_at(i, "text"))
            ));
        }
        if (!string_at(a, "verified").empty()) say(fmt::format("    verified: {}", string_at(a, "verified")));
        if (!string_at(a, "rolled_back").empty())
            say(fmt::format("    taken back: {}", string_at(a, "rolled_back")));
    }
    say(fmt::format(
        "{}{}{}",
        string_at(e, "state"),
        string_at(e, "resolution").empty() ? "" : fmt::format(" ({})", string_at(e, "resolution")),
        string_at(e, "reason").empty() ? "" : ": " + quoted(string_at(e, "reason"))
    ));
    return json::object{
        {"event", string_at(e, "id")},
        {"lines", std::move(lines)},
        {"ranking",
         json::object{
             {"stored", stored},
             {"recomputed", again},
             {"equal", has_ranking ? json::value(equal) : json::value(nullptr)}}},
        {"guards",
         json::object{
             {"recomputed", replayed},
             {"equal", replayed > 0 ? json::value(differ == 0) : json::value(nullptr)}}}};
}

}  // namespace heal
