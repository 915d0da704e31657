#include "service/scenario.hpp"

#include "base/id.hpp"
#include "service/backtest.hpp"
#include "service/brain.hpp"
#include "service/settings.hpp"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <map>

namespace heal {

using namespace std::chrono_literals;

namespace {

/// A day in a leap-free year, a Monday, so that windows and hours are told the same at every run.
constexpr Time start{1'790'000'000'000'000};
constexpr std::size_t most_events = 1'000'000;

class Reader {
public:
    Reader(std::string file, std::vector<std::string>& errors) : file_(std::move(file)), errors_(errors) {}

    void error(const YAML::Node& at, const std::string& key, const std::string& text) {
        const int line = at.IsDefined() ? at.Mark().line : -1;
        errors_.push_back(
            line >= 0 ? fmt::format("{}:{}: {}: {}", file_, line + 1, key, text)
                      : fmt::format("{}: {}: {}", file_, key, text)
        );
    }
    bool keys(const YAML::Node& node, const std::string& path, std::initializer_list<const char*> known) {
        if (!node.IsMap()) return error(node, path, "must be a mapping (key: value)"), false;
        for (const auto& entry : node) {
            const auto key = entry.first.IsScalar() ? entry.first.Scalar() : std::string{"?"};
            if (std::find(known.begin(), known.end(), key) != known.end()) continue;
            std::string all;
            for (const char* k : known) all += (all.empty() ? "" : ", ") + std::string{k};
            error(entry.first, path + "." + key, "unknown key; known are " + all);
        }
        return true;
    }
    std::string text(const YAML::Node& node, const char* key, const std::string& path, std::string fallback) {
        const auto value = node[key];
        if (!value) return fallback;
        if (!value.IsScalar()) return error(value, path + "." + key, "must be a text"), fallback;
        return value.Scalar();
    }
    Duration duration(const YAML::Node& node, const char* key, const std::string& path, Duration fallback) {
        const auto word = text(node, key, path, "");
        if (word.empty()) return fallback;
        Duration d = fallback;
        if (word == "0") return Duration{0};
        if (!parse_duration(word, d))
            error(node[key], path + "." + key, "must be a duration such as 250ms, 10s, 5m");
        return d;
    }
    template <class T>
    T number(const YAML::Node& node, const char* key, const std::string& path, T fallback, T min, T max) {
        const auto value = node[key];
        if (!value) return fallback;
        T n = fallback;
        if (!value.IsScalar() || !YAML::convert<T>::decode(value, n) || n < min || n > max)
            error(value, path + "." + key, fmt::format("must be a number from {} to {}", min, max));
        return n;
    }
    json::value json_of(const YAML::Node& node) {
        if (node.IsMap()) {
            json::object o;
            for (const auto& entry : node) o[entry.first.Scalar()] = json_of(entry.second);
            return o;
        }
        if (node.IsSequence()) {
            json::array a;
            for (const auto& item : node) a.push_back(json_of(item));
            return a;
        }
        if (!node.IsScalar()) return nullptr;
        std::int64_t n = 0;
        if (node.Tag() != "!" && YAML::convert<std::int64_t>::decode(node, n)) return n;
        return json::value(node.Scalar());
    }

private:
    std::string file_;
    std::vector<std::string>& errors_;
};

struct Plan {
    std::vector<bool> outcomes;  ///< in order; the last one repeats
    Duration takes{1'000'000};
    std::size_t used = 0;
};

class ScenarioWorld final : public ReplayOracle {
public:
    Played play(const Incident& incident, const std::string& strategy, Time) override {
        auto& plan = plans[strategy];
        const bool good =
            plan.outcomes.empty() || plan.outcomes[std::min(plan.used++, plan.outcomes.size() - 1)];
        if (good) well_[incident.target] = true;
        return {good ? Outcome::succeeded : Outcome::failed, plan.takes};
    }
    std::optional<bool> well(const std::string& target, Time) override {
        const auto it = well_.find(target);
        return it == well_.end() ? std::nullopt : std::optional<bool>{it->second};
    }
    void set(const std::string& target, bool ok) { well_[target] = ok; }
    std::map<std::string, Plan> plans;

private:
    std::map<std::string, bool> well_;  ///< of services whose health the scenario tells
};

struct Moment {
    Time at;
    std::size_t order = 0;
    bool is_health = false, ok = false;
    Incident incident;
    std::uint64_t count = 1;
};

}  // namespace

ScenarioResult run_scenario(const std::string& path, const std::function<void(const std::string&)>& say) {
    ScenarioResult out;
    YAML::Node root;
    try {
        root = YAML::LoadFile(path);
    } catch (const YAML::ParserException& e) {
        out.errors.push_back(fmt::format("{}:{}: not valid YAML: {}", path, e.mark.line + 1, e.msg));
        return out;
    } catch (const YAML::Exception& e) {
        out.errors.push_back(fmt::format("{}: cannot be read: {}", path, e.what()));
        return out;
    }
    Reader in{path, out.errors};
    if (!in.keys(root, "scenario", {"config", "strategies", "events", "health", "until"})) return out;

    Settings settings;
    if (const auto config = in.text(root, "config", "scenario", ""); !config.empty()) {
        const auto full = std::filesystem::path{path}.parent_path() / config;
        if (!std::filesystem::exists(full))
            in.error(root["config"], "config", "there is no file " + full.string());
        auto loaded = load_settings(full.string());
        out.errors.insert(out.errors.end(), loaded.errors.begin(), loaded.errors.end());
        if (loaded.settings) settings = std::move(*loaded.settings);
    }
    ScenarioWorld world;
    json::array strategies;
    for (std::size_t i = 0; i < root["strategies"].size(); ++i) {
        const auto node = root["strategies"][i];
        const auto where = fmt::format("strategies[{}]", i);
        if (!in.keys(
                node,
                where,
                {"name",
                 "priority",
                 "confidence",
                 "risk",
                 "autonomy",
                 "matches",
                 "takes",
                 "succeeds",
                 "capabilities"}
            ))
            continue;
        const auto name = in.text(node, "name", where, "");
        if (name.empty()) in.error(node, where + ".name", "is missing");
        Risk risk{};
        const auto risk_word = in.text(node, "risk", where, "safe");
        if (!parse_risk(risk_word, risk))
            in.error(node["risk"], where + ".risk", "must be one of safe, disruptive, destructive");
        if (const auto word = in.text(node, "autonomy", where, ""); !word.empty()) {
            Autonomy a{};
            if (!parse_autonomy(word, a))
                in.error(node["autonomy"], where + ".autonomy", "must be one of off, shadow, approve, auto");
            settings.strategies[name].autonomy = a;
        }
        json::value matches =
            node["matches"] ? in.json_of(node["matches"]) : json::value(json::array{json::object{}});
        if (!matches.is_array()) matches = json::array{std::move(matches)};
        if (auto compiled = Matcher::compile(matches.get_array(), where + ".matches"); !compiled)
            in.error(node["matches"], where + ".matches", compiled.error().text);
        auto& plan = world.plans[name];
        plan.takes = in.duration(node, "takes", where, 1s);
        const auto succeeds = node["succeeds"];
        const auto one = [&](const YAML::Node& value) {
            bool good = true;
            if (!value.IsScalar() || !YAML::convert<bool>::decode(value, good))
                in.error(value, where + ".succeeds", "must be true, false or a list of them");
            plan.outcomes.push_back(good);
        };
        if (succeeds && succeeds.IsSequence())
            for (const auto& value : succeeds) one(value);
        else if (succeeds)
            one(succeeds);
        json::value capabilities =
            node["capabilities"] ? in.json_of(node["capabilities"]) : json::value(json::array{});
        strategies.push_back(json::object{
            {"name", name},
            {"declared_priority",
             in.number<std::int64_t>(node, "priority", where, 50, -1'000'000, 1'000'000)},
            {"confidence", in.number<double>(node, "confidence", where, 0.5, 0, 1)},
            {"risk", risk_word},
            {"matches", std::move(matches)},
            {"capabilities", std::move(capabilities)}});
    }
    std::vector<Moment> moments;
    const auto add = [&](Moment m) {
        m.order = moments.size();
        moments.push_back(std::move(m));
    };
    for (std::size_t i = 0; i < root["events"].size(); ++i) {
        const auto node = root["events"][i];
        const auto where = fmt::format("events[{}]", i);
        if (!in.keys(
                node,
                where,
                {"at",
                 "every",
                 "until",
                 "service",
                 "environment",
                 "level",
                 "message",
                 "error_type",
                 "count",
                 "fingerprint",
                 "component",
                 "host",
                 "labels"}
            ))
            continue;
        Moment m;
        auto& r = m.incident.record;
        r.service_name = in.text(node, "service", where, "");
        if (r.service_name.empty()) in.error(node, where + ".service", "is missing");
        r.environment = in.text(node, "environment", where, "");
        r.message = in.text(node, "message", where, "broken");
        r.error_type = in.text(node, "error_type", where, "");
        r.component = in.text(node, "component", where, "");
        r.host = in.text(node, "host", where, "");
        r.level = parse_level(in.text(node, "level", where, "error"));
        if (r.level == Level::unknown)
            in.error(
                node["level"], where + ".level", "must be one of trace, debug, info, warn, error, fatal"
            );
        if (node["labels"]) r.context = json::serialize(in.json_of(node["labels"]));
        const auto given = in.text(node, "fingerprint", where, "");
        r.fingerprint =
            given.empty()
                ? settings.rules
                      ? settings.rules->apply({r.service_name, r.component, r.message, ""}).fingerprint.id
                      : fingerprint::Rules{}
                            .apply({r.service_name, r.component, r.message, ""})
                            .fingerprint.id
                : given;
        m.incident.fingerprint = r.fingerprint;
        m.incident.service_name = r.service_name;
        m.incident.environment = r.environment;
        m.incident.pattern = r.pattern = r.message;
        m.count = in.number<std::uint64_t>(node, "count", where, 1, 1, 1'000'000);
        const Duration at = in.duration(node, "at", where, 0us),
                       every = in.duration(node, "every", where, 0us),
                       until = in.duration(node, "until", where, at);
        if (every.count() > 0 && until < at) in.error(node, where + ".until", "must not be before at");
        for (Duration t = at; t <= until; t += every) {
            m.at = start + t;
            add(m);
            if (every.count() <= 0) break;
            if (moments.size() > most_events) {
                in.error(node, where, "more than 1000000 events");
                break;
            }
        }
    }
    for (std::size_t i = 0; i < root["health"].size(); ++i) {
        const auto node = root["health"][i];
        const auto where = fmt::format("health[{}]", i);
        if (!in.keys(node, where, {"at", "service", "ok"})) continue;
        Moment m;
        m.is_health = true;
        m.at = start + in.duration(node, "at", where, 0us);
        m.incident.target = in.text(node, "service", where, "");
        if (m.incident.target.empty()) in.error(node, where + ".service", "is missing");
        if (!node["ok"] || !YAML::convert<bool>::decode(node["ok"], m.ok))
            in.error(node, where + ".ok", "must be true or false");
        add(std::move(m));
    }
    const Duration until = in.duration(root, "until", "scenario", 1h);
    if (!out.errors.empty()) return out;

    // Health first, where both happen at once: an error is heard after what it tells of.
    std::stable_sort(moments.begin(), moments.end(), [](const Moment& a, const Moment& b) {
        return std::make_tuple(a.at, !a.is_health, a.order) < std::make_tuple(b.at, !b.is_health, b.order);
    });
    json::array artifacts{json::object{{"strategies", std::move(strategies)}}};
    auto built = world_of(settings, artifacts, {});
    if (!built) {
        out.errors.push_back(path + ": " + built.error().text);
        return out;
    }
    Replay replay{std::move(*built), world, [&](Time at, const std::string& words) {
                      const auto ms = (at - start).count() / 1000;
                      say(fmt::format("{:>8}.{:03} {}", ms / 1000, ms % 1000, words));
                  }};
    replay.advance(start);
    Time now = start;
    const Duration tick = 1s;
    const auto run_to = [&](Time to) {
        // In small steps, so that triggers see time pass.
        for (; now + tick < to; now = now + tick) replay.advance(now + tick);
        replay.advance(to);
        now = to;
    };
    for (const auto& m : moments) {
        if (m.at > start + until) break;
        run_to(m.at);
        if (m.is_health)
            world.set(m.incident.target, m.ok);
        else {
            Incident heard = m.incident;
            heard.record.time = heard.record.received = m.at;
            replay.hear(heard, m.count, m.at);
        }
    }
    run_to(start + until);
    replay.finish(0us);
    const auto& t = replay.totals();
    const auto object_of = [](const std::map<std::string, std::uint64_t>& from) {
        json::object o;
        for (const auto& [name, n] : from) o[name] = n;
        return o;
    };
    out.totals = json::object{
        {"heard", t.heard},
        {"incidents", t.incidents},
        {"actions", t.actions},
        {"asked", t.asked},
        {"actions_by_strategy", object_of(t.actions_of)},
        {"held_back_by_guard", object_of(t.held_back)},
        {"ends", object_of(t.ends)}};
    return out;
}

}  // namespace heal
