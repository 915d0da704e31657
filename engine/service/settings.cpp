#include "service/settings.hpp"

#include "base/files.hpp"
#include "base/id.hpp"
#include "service/config_keeper.hpp"
#include "service/mapping_parts.hpp"
#include "service/read_ai.hpp"
#include "store/database.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <set>

namespace heal {

using namespace std::chrono_literals;

void read_repository(
    const YAML::Node& node, const std::string& path, Mapping::Context& context, Settings& settings
);

void read_probe(
    const YAML::Node& node,
    const std::string& path,
    Mapping::Context& context,
    std::vector<ProbeSettings>& probes
) {
    ProbeSettings probe;
    Mapping in{node, path, context};
    const bool http = in.text("http", probe.http), tcp = in.text("tcp", probe.tcp),
               command = in.texts("command", probe.command);
    in.integer("status", probe.status, 100, 599);
    in.text("contains", probe.contains);
    in.duration("timeout", probe.timeout, 10ms, 60s);
    if (int{http} + int{tcp} + int{command} != 1)
        in.error(node, path, "needs exactly one of http, tcp, command");
    else if (http && !probe.http.starts_with("http://") && !probe.http.starts_with("https://"))
        in.error("http", "must be an http:// or https:// URL");
    else if (tcp && probe.tcp.rfind(':') == std::string::npos)
        in.error("tcp", "must be host:port");
    else if (command && probe.command.empty())
        in.error("command", "must name a program");
    else
        probes.push_back(std::move(probe));
}

namespace {

const std::vector<std::pair<std::string, Autonomy>> autonomies = {
    {"off", Autonomy::off},
    {"shadow", Autonomy::shadow},
    {"approve", Autonomy::approve},
    {"auto", Autonomy::automatic}};
const std::vector<std::pair<std::string, Level>> levels = {
    {"trace", Level::trace},
    {"debug", Level::debug},
    {"info", Level::info},
    {"warn", Level::warn},
    {"error", Level::error},
    {"fatal", Level::fatal}};

json::value to_fact(const ProbeSettings& p) {
    json::object o;
    if (!p.http.empty()) o["http"] = p.http;
    if (!p.tcp.empty()) o["tcp"] = p.tcp;
    if (!p.command.empty()) o["command"] = json::array(p.command.begin(), p.command.end());
    if (p.status != 0) o["status"] = p.status;
    if (!p.contains.empty()) o["contains"] = p.contains;
    o["timeout_ms"] = p.timeout.count();
    return o;
}

void read_service(
    const YAML::Node& node, const std::string& path, Mapping::Context& context, Settings& settings
) {
    ServiceSettings service;
    Mapping in{node, path, context};
    if (!in.text("name", service.name) || service.name.empty())
        in.error(node, path + ".name", "is missing; a service needs a name");
    in.text("environment", service.environment);
    in.texts("depends_on", service.depends_on);
    in.text("owner", service.owner);
    in.each("probes", [&](const YAML::Node& item, const std::string& at) {
        read_probe(item, at, context, service.probes);
    });
    in.json_object("facts", service.facts);
    // What the bundled strategies understand; anything of one's own goes below `facts`.
    for (const char* fact :
         {"process", "systemd", "docker", "redis", "memcached", "http_cache", "config", "disk", "spool"}) {
        if (json::value value; in.json_value(fact, value)) service.facts[fact] = std::move(value);
    }
    service.facts["name"] = service.name;
    if (!service.environment.empty()) service.facts["environment"] = service.environment;
    json::array probes;
    for (const auto& probe : service.probes) probes.push_back(to_fact(probe));
    service.facts["probes"] = std::move(probes);
    for (const auto& other : settings.services) {
        if (other.name == service.name && other.environment == service.environment) {
            in.error(
                node,
                path + ".name",
                fmt::format("the service '{}' is described twice for the same environment", service.name)
            );
        }
    }
    settings.services.push_back(std::move(service));
}

void read_source(
    const YAML::Node& node, const std::string& path, Mapping::Context& context, Settings& settings
) {
    SourceSettings source;
    Mapping in{node, path, context};
    if (!in.text("file", source.file) || !source.file.starts_with('/'))
        in.error(node, path + ".file", "must be an absolute path or glob");
    in.text("service", source.service);
    in.text("environment", source.environment);
    in.choice<std::string>(
        "format",
        source.format,
        {{"auto", "auto"},
         {"json", "json"},
         {"logfmt", "logfmt"},
         {"nginx", "nginx"},
         {"apache", "apache"},
         {"syslog", "syslog"},
         {"plain", "plain"}}
    );
    in.choice("min_level", source.min_level, levels);
    in.flag("from_start", source.from_start);
    in.flag("follow_symlinks", source.follow_symlinks);
    in.flag("join", source.join);
    in.duration("join_wait", source.join_wait, 0ms, 5s);
    settings.sources.push_back(std::move(source));
}

void read_group(
    const YAML::Node& node, const std::string& path, Mapping::Context& context, Settings& settings
) {
    GroupSettings group;
    Mapping in{node, path, context};
    if (!in.text("name", group.name)) in.error(node, path + ".name", "is missing; a group needs a name");
    if (!in.texts("services", group.services) || group.services.size() < 2)
        in.error(node, path + ".services", "must list at least two services");
    std::string minimum = "50%";
    in.text("min_healthy", minimum);
    group.percent = minimum.ends_with('%');
    const char* end = minimum.data() + minimum.size() - (group.percent ? 1 : 0);
    const auto [at, ec] = std::from_chars(minimum.data(), end, group.min_healthy);
    const auto most = group.percent ? 100U : static_cast<unsigned>(group.services.size());
    if (ec != std::errc{} || at != end || group.min_healthy > most) {
        in.error("min_healthy", "must be a number of members or a percentage of them, such as 2 or 50%");
    }
    settings.groups.push_back(std::move(group));
}

void read_window(
    const YAML::Node& node, const std::string& path, Mapping::Context& context, Settings& settings
) {
    static constexpr const char* days[] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};
    WindowRule window;
    Mapping in{node, path, context};
    in.choice<HoldKind>(
        "kind",
        window.kind,
        {{"maintenance", HoldKind::maintenance}, {"freeze", HoldKind::freeze}, {"pause", HoldKind::pause}}
    );
    if (window.kind == HoldKind::pause)
        in.error("kind", "must be maintenance or freeze; the kill switch is set at run time");
    in.texts("services", window.services);
    in.text("reason", window.reason);
    const auto moment = [&](const char* key, std::optional<Time>& ret) {
        std::string text;
        if (!in.text(key, text)) return;
        Time t;
        if (!parse_rfc3339(text, t)) return in.error(key, "must be a time such as 2026-12-24T18:00:00Z");
        ret = t;
    };
    moment("from", window.from);
    moment("until", window.until);
    std::string at;
    const bool weekly = in.text("at", at);
    std::vector<std::string> names;
    if (in.texts("days", names)) {
        window.weekdays = 0;
        for (const auto& name : names) {
            const auto* day = std::find(std::begin(days), std::end(days), name);
            if (day == std::end(days))
                in.error("days", "must be a list of mon, tue, wed, thu, fri, sat, sun");
            else
                window.weekdays = static_cast<std::uint8_t>(window.weekdays | 1U << (day - days));
        }
    }
    in.duration("for", window.length, 1min, 7 * 24h);
    if (weekly) {
        unsigned hour = 0, minute = 0;
        const bool good = at.size() == 5 && at[2] == ':' &&
                          std::from_chars(at.data(), at.data() + 2, hour).ptr == at.data() + 2 &&
                          std::from_chars(at.data() + 3, at.data() + 5, minute).ptr == at.data() + 5;
        if (!good || hour > 23 || minute > 59) in.error("at", "must be a time of day in UTC such as 02:30");
        window.minute = hour * 60 + minute;
        if (window.length.count() == 0) in.error(node, path + ".for", "is missing; how long it lasts");
        if (window.from || window.until) in.error("at", "give at and for, or from and until");
    } else if (!window.until)
        in.error(node, path, "needs at and for, or until (and from)");
    settings.windows.push_back(std::move(window));
}

const std::vector<std::pair<std::string, std::optional<Severity>>> severities = {
    {"P0_critical", Severity::p0_critical},
    {"P1_major", Severity::p1_major},
    {"P2_minor", Severity::p2_minor},
    {"P3_trivial", Severity::p3_trivial}};

/// One object or a list of them, as strategies declare what they match.
bool read_matcher(Mapping& in, const std::string& key, Matcher& ret) {
    json::value value;
    if (!in.json_value(key, value)) return false;
    json::array list;
    if (value.is_array())
        list = std::move(value.get_array());
    else
        list.push_back(std::move(value));
    auto compiled = Matcher::compile(list, key);
    if (!compiled) {
        in.error(key, compiled.error().text);
        return false;
    }
    ret = std::move(*compiled);
    return true;
}

void read_trigger(
    const YAML::Node& node, const std::string& path, Mapping::Context& context, Settings& settings
) {
    TriggerSpec t;
    Mapping in{node, path, context};
    if (!in.text("name", t.name) || t.name.empty())
        in.error(node, path + ".name", "is missing; a trigger needs a name");
    for (const auto& other : settings.triggers) {
        if (other.name == t.name) in.error("name", fmt::format("there are two triggers '{}'", t.name));
    }
    const bool kind = in.choice<TriggerKind>(
        "kind",
        t.kind,
        {{"new", TriggerKind::fresh},
         {"threshold", TriggerKind::threshold},
         {"hysteresis", TriggerKind::hysteresis},
         {"rate", TriggerKind::rate},
         {"severity", TriggerKind::severity},
         {"regression", TriggerKind::regression},
         {"sequence", TriggerKind::sequence},
         {"absence", TriggerKind::absence},
         {"combination", TriggerKind::combination}}
    );
    if (!kind && !in.find("kind"))
        in.error(
            node,
            path + ".kind",
            "is missing; one of new, threshold, hysteresis, rate, severity, regression, sequence, absence, "
            "combination"
        );
    const bool combines = t.kind == TriggerKind::combination, absent = t.kind == TriggerKind::absence,
               follows = t.kind == TriggerKind::sequence,
               windowed = t.kind == TriggerKind::threshold || t.kind == TriggerKind::hysteresis ||
                          t.kind == TriggerKind::rate;
    if (combines) {
        if (!in.texts("of", t.of) || t.of.size() < 2)
            in.error(node, path + ".of", "must list at least two names of other triggers");
        in.integer("need", t.need, 1, 1000);
        if (t.need > t.of.size()) in.error("need", "must not be more than there are in of");
    } else if (!read_matcher(in, "when", t.when) && !in.find("when"))
        in.error(node, path + ".when", "is missing; what it looks at, such as {service: cart}; {} for all");
    if (follows && !read_matcher(in, "then", t.then) && !in.find("then"))
        in.error(node, path + ".then", "is missing; what must follow");
    t.by = {combines ? "environment" : absent || follows ? "service" : "fingerprint"};
    if (t.kind == TriggerKind::rate) t.by = {"service"};
    if (in.texts("by", t.by)) {
        for (const auto& by : t.by) {
            const bool known = by == "fingerprint" || by == "service" || by == "environment" ||
                               by == "host" || by == "component" || by == "release" || by == "error_type" ||
                               (by.starts_with("label:") && by.size() > 6);
            const bool possible = !combines || by == "service" || by == "environment";
            if (!known)
                in.error(
                    "by",
                    "must be a list of fingerprint, service, environment, host, component, release, "
                    "error_type, label:NAME"
                );
            else if (!possible)
                in.error("by", "a combination can be told apart by service and environment only");
        }
    }
    if (windowed) in.integer("count", t.count, 1, 1'000'000);
    if (windowed || combines) in.duration("within", t.within, 1s, 1h);
    if (absent || follows) {
        t.within = 10min;
        in.duration("within", t.within, 1s, 7 * 24h);
    }
    if (t.kind == TriggerKind::hysteresis) {
        t.clear_within = t.within;
        in.integer("clear_count", t.clear_count, 1, 1'000'000);
        in.duration("clear_within", t.clear_within, 1s, 1h);
        if (t.clear_count > t.count) in.error("clear_count", "must not be above count");
    }
    if (t.kind == TriggerKind::rate) {
        in.real("factor", t.factor, 1, 100);
        if (!in.find("within")) t.within = 1h;
    }
    std::optional<Severity> at_least;
    if (t.kind == TriggerKind::severity && in.choice("at_least", at_least, severities))
        t.at_least = *at_least;
    in.choice("severity", t.severity, severities);
    if (absent) {
        in.text("service", t.service);
        in.text("environment", t.environment);
    }
    settings.triggers.push_back(std::move(t));
}

void read_target(
    const YAML::Node& node, const std::string& path, Mapping::Context& context, Settings& settings
) {
    TargetRule rule;
    Mapping in{node, path, context};
    in.text("resolver", rule.resolver);
    if (!in.text("target", rule.target) && rule.resolver.empty())
        in.error(node, path + ".target", "is missing; the name of a service of the inventory, or a resolver");
    if (!read_matcher(in, "when", rule.when) && !in.find("when"))
        in.error(node, path + ".when", "is missing; which errors are about it");
    settings.target_rules.push_back(std::move(rule));
}

void read_limits(Mapping& in, Limits& limits) {
    in.duration("cooldown", limits.cooldown, 0ms, 24h);
    in.integer("attempts_per_incident", limits.attempts_per_incident, 1, 100);
    in.integer("target_per_hour", limits.target_per_hour, 0, 100'000);
    in.integer("strategy_per_hour", limits.strategy_per_hour, 0, 100'000);
    in.integer("service_per_hour", limits.service_per_hour, 0, 100'000);
    in.integer("global_per_minute", limits.global_per_minute, 0, 100'000);
    in.integer("budget_per_day", limits.budget_per_day, 0, 100'000'000);
    in.integer("flap_high", limits.flap_high, 0, 100);
    in.integer("flap_low", limits.flap_low, 0, 100);
    in.duration("flap_window", limits.flap_window, 1min, 12h);
    if (limits.flap_high > 0 && limits.flap_low > limits.flap_high)
        in.error("flap_low", "must not be above flap_high");
    in.integer("breaker_failures", limits.breaker_failures, 0, 1000);
    in.duration("breaker_pause", limits.breaker_pause, 1s, 24h);
    in.duration("stable_for", limits.stable_for, 1min, 24h);
    in.duration("confirm", limits.confirm, 0ms, 10min);
    in.integer("healthy_acts", limits.healthy_acts, 0, 1'000'000);
    in.duration("repeat_after", limits.repeat_after, 0ms, 24h);
    in.integer("storm_targets", limits.storm.targets, 0, 100'000);
    in.duration("storm_window", limits.storm.window, 1s, 1h);
    in.duration("storm_cooldown", limits.storm.cooldown, 0ms, 1h);
    in.duration("storm_ramp", limits.storm.ramp_step, 0ms, 10min);
}

void read_strategy(
    const std::string& name, const YAML::Node& node, Mapping::Context& context, Settings& settings
) {
    const std::string path = "strategies." + name;
    Mapping in{node, path, context};
    if (settings.strategies.contains(name)) in.error(node, path, "is configured in two files");
    auto& s = settings.strategies[name];
    if (std::int64_t n = 0; in.integer("priority", n, -1'000'000, 1'000'000)) s.priority = n;
    if (bool b = false; in.flag("enabled", b)) s.enabled = b;
    if (Autonomy a{}; in.choice("autonomy", a, autonomies)) s.autonomy = a;
    if (Autonomy a{}; in.choice("trust", a, autonomies)) s.trust = a;
    if (double d = 0; in.real("floor", d, 0, 1)) s.floor = d;
    std::chrono::milliseconds ms{0};
    if (in.duration("timeout", ms, 1ms, 1h)) s.timeout = ms;
    if (in.duration("verify_timeout", ms, 0ms, 1h)) s.verify_timeout = ms;
    if (in.duration("stabilize", ms, 0ms, 24h)) s.stabilize = ms;
    if (in.duration("hold", ms, 0ms, 30 * 24h)) s.hold = ms;
    in.json_object("config", s.config);
    s.has_capabilities = in.texts("capabilities", s.capabilities);
}

void read_rule(
    const YAML::Node& node, const std::string& path, Mapping::Context& context, Settings& settings
) {
    fingerprint::RuleSpec rule;
    Mapping in{node, path, context};
    if (!in.text("name", rule.name)) in.error(node, path + ".name", "is missing; a rule needs a name");
    in.text("service", rule.service);
    in.text("component", rule.component);
    in.text("type", rule.type);
    in.text("message", rule.message);
    in.text("message_regex", rule.message_regex);
    in.texts("fingerprint", rule.fingerprint);
    in.texts("ignore_frames", rule.ignore_frames);
    settings.rule_specs.push_back(std::move(rule));
}

void read_file(
    const std::string& file,
    Settings& settings,
    std::vector<std::string>& errors,
    std::map<std::string, std::string>& places
) {
    const SystemFiles files;
    auto content = files.read(file, 4U << 20U);
    if (!content) {
        errors.push_back(content.error().text);
        return;
    }
    YAML::Node root;
    try {
        root = YAML::Load(*content);
    } catch (const YAML::Exception& e) {
        errors.push_back(fmt::format("{}:{}: not valid YAML: {}", file, e.mark.line + 1, e.msg));
        return;
    }
    settings.files.push_back(file);
    Mapping::Context context{file, &errors, &places};
    Mapping top{root, "", context};
    for (const char* key :
         {"state_dir",
          "plugins_dir",
          "scripts_dir",
          "host_binary",
          "dry_run",
          "log",
          "http",
          "hosts",
          "limits",
          "verify",
          "approvals",
          "trust",
          "control",
          "learning",
          "ai",
          "autonomy"}) {
        top.once(key);
    }
    top.text("state_dir", settings.state_dir);
    top.text("node", settings.node);
    top.text("plugins_dir", settings.plugins_dir);
    top.text("scripts_dir", settings.scripts_dir);
    top.text("host_binary", settings.host_binary);
    top.flag("dry_run", settings.dry_run);
    if (const auto* node = top.find("log")) {
        Mapping in{*node, "log", context};
        in.choice<std::string>(
            "level",
            settings.log_level,
            {{"trace", "trace"}, {"debug", "debug"}, {"info", "info"}, {"warn", "warn"}, {"error", "error"}}
        );
        in.choice<std::string>(
            "format", settings.log_format, {{"auto", "auto"}, {"plain", "plain"}, {"json", "json"}}
        );
    }
    if (const auto* node = top.find("http")) {
        Mapping in{*node, "http", context};
        if (in.text("listen", settings.http_listen) && settings.http_listen.rfind(':') == std::string::npos) {
            in.error("listen", "must be address:port, such as 127.0.0.1:7480; port 0 takes a free one");
        }
        read_secret(in, "token", settings.http_token);
        in.integer("max_body_bytes", settings.http_max_body_bytes, 1024, 1LL << 30U);
        in.integer("max_connections", settings.http_max_connections, 1, 100'000);
    }
    if (const auto* node = top.find("store")) {
        Mapping in{*node, "store", context};
        std::string path;
        if (in.text("url", settings.store_url) && describe_postgres(settings.store_url).empty()) {
            in.error(
                "url",
                "must be postgresql://user@host:port/name; several hosts are separated by commas. Without it "
                "heald keeps its store in the state directory"
            );
        }
        if (in.text("password_file", path)) {
            auto password = files.read(path, 4096);
            if (!password)
                in.error("password_file", password.error().text);
            else {
                settings.store_password = *password;
                while (settings.store_password.ends_with('\n') || settings.store_password.ends_with('\r'))
                    settings.store_password.pop_back();
            }
        }
        in.text("service", settings.store_service);
        in.integer("connections", settings.store_connections, 2, 64);
        in.integer("journal_bytes", settings.store_journal_bytes, 0, 1LL << 40U);
    }
    if (const auto* node = top.find("retention")) {
        Mapping in{*node, "retention", context};
        auto& keep = settings.retention;
        constexpr auto longest = 3650 * 24h;
        in.duration("log_entries", keep.log_entries, 1h, longest);
        in.integer("log_rows", keep.log_rows, 0, 1LL << 40U);
        in.integer("bytes", keep.bytes, 0, 1LL << 50U);
        in.duration("healing", keep.healing, 1h, longest);
        in.duration("minute_counts", keep.minute_counts, 2h, longest);
        in.duration("hour_counts", keep.hour_counts, 48h, longest);
        in.duration("records", keep.records, 1h, longest);
    }
    if (const auto* node = top.find("hosts")) {
        Mapping in{*node, "hosts", context};
        in.integer("max_children", settings.max_children, 1, 256);
        in.duration("warm_for", settings.warm_for, 0ms, 24h);
        in.integer("memory_bytes", settings.host_memory_bytes, 32LL << 20U, 1LL << 40U);
    }
    if (const auto* node = top.find("limits")) {
        Mapping in{*node, "limits", context};
        read_limits(in, settings.limits);
        in.integer("queue_batches", settings.queue_batches, 1, 100'000);
    }
    if (const auto* node = top.find("verify")) {
        Mapping in{*node, "verify", context};
        in.duration("timeout", settings.verify.timeout, 0ms, 1h);
        in.duration("stabilize", settings.verify.stabilize, 0ms, 24h);
        in.duration("hold", settings.verify.hold, 0ms, 30 * 24h);
    }
    if (const auto* node = top.find("autonomy")) {
        Mapping in{*node, "autonomy", context};
        in.choice("default", settings.default_autonomy, autonomies);
        in.choice<Risk>(
            "max_risk",
            settings.max_auto_risk,
            {{"safe", Risk::safe}, {"disruptive", Risk::disruptive}, {"destructive", Risk::destructive}}
        );
        in.texts("forbid", settings.forbidden);
    }
    if (const auto* node = top.find("trust")) {
        Mapping in{*node, "trust", context};
        auto& trust = settings.trust;
        in.choice("start", trust.start, autonomies);
        in.real("bound", trust.bound, 0.01, 0.999);
        in.integer("samples", trust.samples, 1, 10'000);
        in.real("demote_below", trust.demote_below, 0, 0.99);
        in.integer("harms", trust.harms, 0, 1000);
        in.duration("half_life", trust.half_life, 1h, 3650 * 24h);
    }
    if (const auto* node = top.find("control")) {
        Mapping in{*node, "control", context};
        in.integer("percent", settings.control.percent, 0, 50);
        in.duration("wait", settings.control.wait, 1s, 1h);
        in.choice<Severity>(
            "from",
            settings.control.from,
            {{"P2_minor", Severity::p2_minor}, {"P3_trivial", Severity::p3_trivial}}
        );
    }
    if (const auto* node = top.find("learning")) {
        Mapping in{*node, "learning", context};
        in.integer("explore_percent", settings.explore_percent, 0, 50);
        in.integer("explore_per_day", settings.explore_per_day, 0, 10'000);
    }
    if (const auto* node = top.find("approvals")) {
        Mapping in{*node, "approvals", context};
        in.duration("expire", settings.approvals.expire, 1s, 30 * 24h);
        in.choice<std::optional<Risk>>(
            "two_persons",
            settings.approvals.two_persons,
            {{"never", std::nullopt},
             {"destructive", Risk::destructive},
             {"disruptive", Risk::disruptive},
             {"safe", Risk::safe}}
        );
        if (in.text("base_url", settings.approvals.base_url) &&
            !settings.approvals.base_url.starts_with("http://") &&
            !settings.approvals.base_url.starts_with("https://"))
            in.error("base_url", "must be an http:// or https:// URL, such as https://heald.example.com");
        while (settings.approvals.base_url.ends_with('/')) settings.approvals.base_url.pop_back();
    }
    if (const auto* node = top.find("ai")) read_ai(*node, context, settings.ai);
    if (const auto* node = top.find("fingerprint")) {
        Mapping in{*node, "fingerprint", context};
        in.each("rules", [&](const YAML::Node& item, const std::string& at) {
            read_rule(item, at, context, settings);
        });
    }
    top.each("services", [&](const YAML::Node& item, const std::string& at) {
        read_service(item, at, context, settings);
    });
    top.each("groups", [&](const YAML::Node& item, const std::string& at) {
        read_group(item, at, context, settings);
    });
    top.each("windows", [&](const YAML::Node& item, const std::string& at) {
        read_window(item, at, context, settings);
    });
    top.each("triggers", [&](const YAML::Node& item, const std::string& at) {
        read_trigger(item, at, context, settings);
    });
    top.each("targets", [&](const YAML::Node& item, const std::string& at) {
        read_target(item, at, context, settings);
    });
    top.each("repositories", [&](const YAML::Node& item, const std::string& at) {
        read_repository(item, at, context, settings);
    });
    top.integer("patches_at_once", settings.patches_at_once, 1, 64);
    top.each("sources", [&](const YAML::Node& item, const std::string& at) {
        read_source(item, at, context, settings);
    });
    if (const auto* node = top.find("strategies")) {
        if (!node->IsMap())
            top.error("strategies", "must be a mapping from strategy name to its settings");
        else {
            for (const auto& entry : *node)
                read_strategy(entry.first.Scalar(), entry.second, context, settings);
        }
    }
}

bool is_loopback(const std::string& listen) {
    return listen.starts_with("127.") || listen.starts_with("localhost:") || listen.starts_with("[::1]:");
}

std::string default_state_dir() {
    if (const char* from_systemd = std::getenv("STATE_DIRECTORY")) return from_systemd;
    if (::geteuid() == 0) return "/var/lib/heald";
    if (const char* xdg = std::getenv("XDG_STATE_HOME")) return std::string{xdg} + "/heald";
    const char* home = std::getenv("HOME");
    return std::string{home ? home : "."} + "/.local/state/heald";
}

/// Folder of the running binary: heal-host lies beside heald, in a build as in an installation.
std::string binary_folder() {
    std::error_code ec;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", ec);
    return ec ? std::string{"."} : self.parent_path().string();
}

}  // namespace

unsigned GroupSettings::minimum() const {
    const auto members = static_cast<unsigned>(services.size());
    return percent ? (members * min_healthy + 99) / 100 : min_healthy;
}

const RepositorySettings* repository_of(const Settings& settings, const std::string& service) {
    for (const auto& repository : settings.repositories) {
        if (std::find(repository.services.begin(), repository.services.end(), service) !=
            repository.services.end())
            return &repository;
    }
    return nullptr;
}

StoreSettings store_settings(const Settings& settings) {
    StoreSettings s;
    s.path = settings.state_dir + (settings.store_url.empty() ? "/heald.db" : "/heald");
    s.url = settings.store_url;
    s.password = settings.store_password;
    s.readers = settings.store_connections - 1;
    return s;
}

SettingsResult load_settings(const std::string& path) {
    SettingsResult out;
    Settings settings;
    std::map<std::string, std::string> places;
    std::string main_file = path;
    const SystemFiles files;
    if (main_file.empty() && files.exists("/etc/heald/heald.yaml")) main_file = "/etc/heald/heald.yaml";
    if (!main_file.empty()) {
        read_file(main_file, settings, out.errors, places);
        const auto folder = std::filesystem::path{main_file}.parent_path() / "conf.d";
        if (auto names = files.list(folder.string())) {
            for (const auto& name : *names) {
                if (name.ends_with(".yaml") || name.ends_with(".yml"))
                    read_file((folder / name).string(), settings, out.errors, places);
            }
        }
    }
    if (settings.http_token.empty()) {
        if (const char* token = std::getenv("HEALD_TOKEN")) settings.http_token = token;
    }
    if (settings.store_url.empty()) {
        if (const char* url = std::getenv("HEALD_STORE_URL")) settings.store_url = url;
        if (!settings.store_url.empty() && describe_postgres(settings.store_url).empty())
            out.errors.push_back("HEALD_STORE_URL must be postgresql://user@host:port/name");
    }
    if (settings.store_password.empty()) {
        if (const char* password = std::getenv("HEALD_STORE_PASSWORD")) settings.store_password = password;
    }
    if (settings.state_dir.empty()) settings.state_dir = default_state_dir();
    if (settings.node.empty()) {
        // Two healds of one host differ by their state directories.
        char host[256] = "node";
        ::gethostname(host, sizeof host - 1);
        settings.node = fmt::format("{}-{}", host, sha256_hex(settings.state_dir).substr(0, 6));
    }
    if (settings.plugins_dir.empty()) settings.plugins_dir = settings.state_dir + "/plugins";
    if (settings.scripts_dir.empty()) settings.scripts_dir = settings.state_dir + "/scripts";
    if (settings.host_binary.empty()) settings.host_binary = binary_folder() + "/heal-host";
    if (!is_loopback(settings.http_listen) && settings.http_token.empty()) {
        out.errors.push_back(fmt::format(
            "http.listen: {} can be reached by others and no token is set; set http.token_file (or "
            "HEALD_TOKEN), or listen on 127.0.0.1",
            settings.http_listen
        ));
    }
    if (!settings.rule_specs.empty()) {
        if (auto rules = fingerprint::Rules::create(settings.rule_specs))
            settings.rules = std::make_shared<const fingerprint::Rules>(std::move(*rules));
        else
            out.errors.push_back("fingerprint.rules: " + rules.error().text);
    }
    // A service whose code is known is in the inventory, and llm_patch finds it there.
    for (const auto& repository : settings.repositories) {
        if (repository.autonomy == FixAutonomy::off) continue;
        for (const auto& name : repository.services) {
            const auto has = [&](const ServiceSettings& s) { return s.name == name; };
            if (std::none_of(settings.services.begin(), settings.services.end(), has)) {
                ServiceSettings added;
                added.name = name;
                added.facts["name"] = name;
                added.facts["probes"] = json::array{};
                settings.services.push_back(std::move(added));
            }
            for (auto& service : settings.services) {
                if (service.name == name)
                    service.facts["code"] = json::object{{"repository", repository.name}};
            }
        }
    }
    std::set<std::string> names;
    for (auto& service : settings.services) {
        names.insert(service.name);
        // Where config_keeper.hpp keeps the versions that config_rollback restores.
        if (auto* config = service.facts.if_contains("config");
            config && config->is_object() && !config->get_object().contains("versions")) {
            config->get_object()["versions"] =
                ConfigKeeper::versions_of(settings.state_dir + "/config-versions", service.name);
        }
    }
    for (const auto& service : settings.services) {
        for (const auto& other : service.depends_on) {
            if (!names.contains(other)) {
                out.errors.push_back(
                    fmt::format("services.{}.depends_on: there is no service '{}'", service.name, other)
                );
            }
        }
    }
    if (!settings.store_service.empty() && !names.contains(settings.store_service))
        out.errors.push_back(fmt::format("store.service: there is no service '{}'", settings.store_service));
    for (const auto& trigger : settings.triggers) {
        for (const auto& name : trigger.of) {
            const auto it =
                std::find_if(settings.triggers.begin(), settings.triggers.end(), [&](const TriggerSpec& t) {
                    return t.name == name;
                });
            if (it == settings.triggers.end())
                out.errors.push_back(
                    fmt::format("triggers.{}.of: there is no trigger '{}'", trigger.name, name)
                );
            else if (it->kind == TriggerKind::combination)
                out.errors.push_back(
                    fmt::format("triggers.{}.of: '{}' is a combination itself", trigger.name, name)
                );
        }
    }
    std::vector<TargetEntry> entries;
    for (const auto& service : settings.services) {
        TargetEntry entry{service.name, service.environment, {}};
        for (const auto& [part, key] : {std::pair{"systemd", "unit"}, std::pair{"docker", "container"}}) {
            if (const auto name = string_at(object_at(service.facts, part), key); !name.empty())
                entry.aliases.emplace_back(name);
        }
        entries.push_back(std::move(entry));
    }
    for (std::size_t i = 0; i < settings.target_rules.size(); ++i) {
        if (const auto& rule = settings.target_rules[i];
            !names.contains(rule.target) && !(rule.target.empty() && !rule.resolver.empty()))
            out.errors.push_back(fmt::format(
                "targets[{}].target: there is no service '{}'", i, settings.target_rules[i].target
            ));
    }
    settings.targets = TargetResolver{std::move(entries), settings.target_rules};
    for (const auto& group : settings.groups) {
        for (const auto& member : group.services) {
            if (!names.contains(member))
                out.errors.push_back(
                    fmt::format("groups.{}.services: there is no service '{}'", group.name, member)
                );
        }
    }
    if (out.errors.empty()) out.settings = std::move(settings);
    return out;
}

}  // namespace heal
