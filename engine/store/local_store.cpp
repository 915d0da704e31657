#include "store/local_store.hpp"

#include "base/id.hpp"
#include "base/json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <set>

namespace heal::sql {
namespace {

using std::string_view;

constexpr const char* charter_name = "charter";
constexpr const char* origin_name = "origin";
constexpr const char* pending_name = "hand_over_pending";
constexpr const char* number_name = "hand_over_number";
/// Of what guards look back to; a cluster that tries more within a day has other troubles.
constexpr std::size_t most_facts = 5000;

constexpr const char* handed_tables[] = {"self_heal_events", "healing_results", "healing_actions"};
/// The shared store counts lines and links bugs by itself.
const std::set<string_view> kept_there{"id", "occurrence_count", "bug_id"};

/// Drivers know a prepared statement by the address of its text.
const char* lasting(const std::string& text) {
    static std::mutex mutex;
    static std::set<std::string> texts;
    const std::lock_guard lock{mutex};
    return texts.insert(text).first->c_str();
}

bool is_open(string_view state) {
    return state == "open" || state == "awaiting_approval" || state == "healing" || state == "verifying" ||
           state == "stabilizing";
}

json::value time_value(const std::optional<Time>& t) { return t ? json::value(t->us) : json::value(nullptr); }
std::optional<Time> time_of(const json::object& o, string_view key) {
    const auto* value = o.if_contains(key);
    if (!value || value->is_null()) return std::nullopt;
    return Time{int_at(o, key)};
}

std::string to_text(const Charter& c) {
    json::array holds, strategies, facts;
    for (const auto& h : c.holds)
        holds.push_back(json::object{
            {"id", h.id},
            {"kind", to_string(h.kind)},
            {"scope", to_string(h.scope)},
            {"name", h.name},
            {"reason", h.reason},
            {"actor", h.actor},
            {"starts", h.starts.us},
            {"ends", time_value(h.ends)}});
    for (const auto& s : c.strategies) {
        json::object o{{"strategy", s.strategy}};
        if (s.priority) o["priority"] = *s.priority;
        if (s.enabled) o["enabled"] = *s.enabled;
        if (s.autonomy) o["autonomy"] = to_string(*s.autonomy);
        if (s.floor) o["floor"] = *s.floor;
        strategies.push_back(std::move(o));
    }
    for (const auto& f : c.facts)
        facts.push_back(json::object{
            {"attempt", f.attempt},
            {"event", f.event},
            {"fingerprint", f.fingerprint},
            {"target", f.target},
            {"strategy", f.strategy},
            {"service", f.service},
            {"build", f.build},
            {"started", f.started.us},
            {"ended", time_value(f.ended)},
            {"risk", to_string(f.risk)},
            {"result", static_cast<std::int64_t>(f.result)}});
    return json::serialize(json::object{
        {"pause", c.pause},
        {"holds", std::move(holds)},
        {"strategies", std::move(strategies)},
        {"facts", std::move(facts)}});
}

/// False: not one of ours; then nothing is known.
bool read(const json::object& o, Charter& ret) {
    ret.pause = string_at(o, "pause");
    for (const auto& item : array_at(o, "holds")) {
        if (!item.is_object()) return false;
        const auto& e = item.get_object();
        Hold h;
        if (!parse_hold_kind(string_at(e, "kind"), h.kind) ||
            !parse_hold_scope(string_at(e, "scope"), h.scope))
            return false;
        h.id = string_at(e, "id");
        h.name = string_at(e, "name");
        h.reason = string_at(e, "reason");
        h.actor = string_at(e, "actor");
        h.starts = Time{int_at(e, "starts")};
        h.ends = time_of(e, "ends");
        ret.holds.push_back(std::move(h));
    }
    for (const auto& item : array_at(o, "strategies")) {
        if (!item.is_object()) return false;
        const auto& e = item.get_object();
        StrategySetting s;
        s.strategy = string_at(e, "strategy");
        if (e.contains("priority")) s.priority = int_at(e, "priority");
        if (e.contains("enabled")) s.enabled = bool_at(e, "enabled");
        if (Autonomy a{}; e.contains("autonomy")) {
            if (!parse_autonomy(string_at(e, "autonomy"), a)) return false;
            s.autonomy = a;
        }
        if (e.contains("floor")) s.floor = double_at(e, "floor");
        ret.strategies.push_back(std::move(s));
    }
    for (const auto& item : array_at(o, "facts")) {
        if (!item.is_object()) return false;
        const auto& e = item.get_object();
        AttemptFact f;
        f.attempt = string_at(e, "attempt");
        f.event = string_at(e, "event");
        f.fingerprint = string_at(e, "fingerprint");
        f.target = string_at(e, "target");
        f.strategy = string_at(e, "strategy");
        f.service = string_at(e, "service");
        f.build = string_at(e, "build");
        f.started = Time{int_at(e, "started")};
        f.ended = time_of(e, "ended");
        if (!parse_risk(string_at(e, "risk"), f.risk)) return false;
        f.result = static_cast<FactResult>(std::clamp<std::int64_t>(int_at(e, "result"), 0, 3));
        ret.facts.push_back(std::move(f));
    }
    return true;
}

result<std::int64_t> number_at(Database& db, const char* name) {
    auto text = load_engine_state(db, name);
    if (!text) return text.error();
    return text->has_value() && !(*text)->empty() ? std::stoll(**text) : std::int64_t{0};
}

result<std::vector<LocalRows::Table>> read_tables(Database& db) {
    static constexpr Statement columns{
        "columns", "SELECT name, type FROM pragma_table_info($1) ORDER BY cid"};
    std::vector<LocalRows::Table> tables;
    for (const char* name : handed_tables) {
        LocalRows::Table table;
        table.name = name;
        std::string kinds, names;
        HEAL_TRY(db.query(columns, {string_view{name}}, [&](const Row& r) {
            const std::string type = r.text(1);
            names += (names.empty() ? "" : ", ") + r.text(0);
            kinds += type == "TEXT" ? 't' : type.starts_with("DOUBLE") || type == "REAL" ? 'r' : 'i';
            table.columns.push_back(r.text(0));
        }));
        const Statement select{
            "select what was done alone", lasting(fmt::format("SELECT {} FROM {} ORDER BY id", names, name))};
        HEAL_TRY(db.query(select, {}, [&](const Row& r) {
            auto& row = table.rows.emplace_back();
            for (std::size_t i = 0; i < kinds.size(); ++i) {
                const int c = static_cast<int>(i);
                if (r.is_null(c))
                    row.emplace_back(nullptr);
                else if (kinds[i] == 'i')
                    row.emplace_back(r.integer(c));
                else if (kinds[i] == 'r')
                    row.emplace_back(r.real(c));
                else
                    row.emplace_back(to_valid_utf8(r.text(c)));
            }
        }));
        tables.push_back(std::move(table));
    }
    return tables;
}

std::size_t place(const LocalRows::Table& table, string_view column) {
    return static_cast<std::size_t>(
        std::find(table.columns.begin(), table.columns.end(), column) - table.columns.begin()
    );
}
std::string text_in(
    const LocalRows::Table& table, const std::vector<LocalRows::Cell>& row, string_view column
) {
    const auto at = place(table, column);
    const auto* text = at < row.size() ? std::get_if<std::string>(&row[at]) : nullptr;
    return text ? *text : std::string{};
}

result<void> put(Database& db, const LocalRows::Table& table, const std::vector<LocalRows::Cell>& row) {
    std::string names, places, news;
    for (std::size_t i = 0; i < table.columns.size(); ++i) {
        const auto& column = table.columns[i];
        names += fmt::format("{}{}", i ? ", " : "", column);
        places += fmt::format("{}${}", i ? ", " : "", i + 1);
        if (!kept_there.contains(column))
            news += fmt::format("{}{} = excluded.{}", news.empty() ? "" : ", ", column, column);
    }
    const Statement upsert{
        "hand over",
        lasting(fmt::format(
            "INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}",
            table.name,
            names,
            places,
            news
        ))};
    std::vector<Value> values;
    for (const auto& cell : row)
        values.push_back(std::visit(
            [](const auto& v) -> Value {
                if constexpr (std::is_same_v<std::decay_t<decltype(v)>, std::string>)
                    return string_view{v};
                else
                    return v;
            },
            cell
        ));
    auto done = db.run(upsert, values, nullptr);
    if (!done) return done.error();
    return {};
}

}  // namespace

result<Charter> load_charter(Database& shared, Time from, Time now) {
    Charter c;
    auto pause = load_engine_state(shared, "pause");
    if (!pause) return pause.error();
    c.pause = pause->value_or("");
    auto holds = load_holds(shared, now);
    if (!holds) return holds.error();
    c.holds = std::move(*holds);
    auto strategies = load_strategy_settings(shared);
    if (!strategies) return strategies.error();
    c.strategies = std::move(*strategies);
    auto rungs = load_trust_rungs(shared);
    if (!rungs) return rungs.error();
    c.rungs = std::move(*rungs);
    auto facts = load_facts(shared, from);
    if (!facts) return facts.error();
    c.facts = std::move(*facts);
    if (c.facts.size() > most_facts)
        c.facts.erase(c.facts.begin(), c.facts.end() - static_cast<std::ptrdiff_t>(most_facts));
    return c;
}

result<void> keep_charter(Database& local, const Charter& charter, Time now) {
    constexpr Statement forget{"forget rungs", "DELETE FROM trust_rungs"};
    HEAL_TRY(local.post(forget, {}));
    for (const auto& rung : charter.rungs) HEAL_TRY(save_trust_rung(local, rung));
    return save_engine_state(local, charter_name, to_text(charter), now);
}

result<std::optional<Charter>> kept_charter(Database& local) {
    auto text = load_engine_state(local, charter_name);
    if (!text) return text.error();
    if (!text->has_value()) return std::optional<Charter>{};
    auto parsed = parse_json(**text, "charter");
    Charter charter;
    if (!parsed || !parsed->is_object() || !read(parsed->get_object(), charter))
        return std::optional<Charter>{};
    auto rungs = load_trust_rungs(local);
    if (!rungs) return rungs.error();
    charter.rungs = std::move(*rungs);
    return std::optional<Charter>{std::move(charter)};
}

result<bool> has_local_rows(Database& local) {
    constexpr Statement any{
        "what was done alone", "SELECT 1 FROM self_heal_events UNION ALL SELECT 1 FROM intents LIMIT 1"};
    bool found = false;
    HEAL_TRY(local.query(any, {}, [&](const Row&) { found = true; }));
    return found;
}

result<LocalRows> begin_hand_over(Database& local) {
    auto settled = settle_intents(local);
    if (!settled) return settled.error();
    LocalRows rows;
    auto origin = load_engine_state(local, origin_name);
    if (!origin) return origin.error();
    rows.origin = origin->value_or("");
    if (rows.origin.empty()) {
        const SystemClock clock;
        rows.origin = new_id(clock);
        HEAL_TRY(save_engine_state(local, origin_name, rows.origin, Time{0}));
    }
    auto pending = number_at(local, pending_name);
    if (!pending) return pending.error();
    rows.number = *pending;
    if (rows.number == 0) {
        auto last = number_at(local, number_name);
        if (!last) return last.error();
        rows.number = *last + 1;
        const std::string text = std::to_string(rows.number);
        HEAL_TRY(save_engine_state(local, number_name, text, Time{0}));
        HEAL_TRY(save_engine_state(local, pending_name, text, Time{0}));
    }
    auto tables = read_tables(local);
    if (!tables) return tables.error();
    rows.tables = std::move(*tables);
    constexpr Statement entries{
        "audit of what was done alone",
        "SELECT seq, at, actor, action, subject, detail FROM audit_log ORDER BY seq"};
    HEAL_TRY(local.query(entries, {}, [&](const Row& r) {
        rows.audit.push_back({r.integer(0), Time{r.integer(1)}, r.text(2), r.text(3), r.text(4), r.text(5)});
    }));
    constexpr Statement changed{
        "rungs that changed alone",
        "SELECT strategy, error_class FROM trust_rungs WHERE since > COALESCE((SELECT updated_at FROM "
        "engine_state WHERE name = $1), 0)"};
    std::set<std::pair<std::string, std::string>> newer;
    HEAL_TRY(local.query(changed, {string_view{charter_name}}, [&](const Row& r) {
        newer.emplace(r.text(0), r.text(1));
    }));
    auto rungs = load_trust_rungs(local);
    if (!rungs) return rungs.error();
    for (auto& rung : *rungs) {
        if (newer.contains({rung.strategy, rung.error_class})) rows.rungs.push_back(std::move(rung));
    }
    return rows;
}

result<void> hand_over(Database& shared, const LocalRows& rows, Time now) {
    auto fresh = claim_batch(shared, fmt::format("local:{}:{}", rows.origin, rows.number), 0, now);
    if (!fresh) return fresh.error();
    if (!*fresh) return {};
    constexpr Statement open_one{
        "open event of an error",
        "SELECT id FROM self_heal_events WHERE fingerprint = $1 AND environment = $2 AND state IN ('open', "
        "'awaiting_approval', 'healing', 'verifying', 'stabilizing')"};
    std::map<std::string, std::string> joined;  // here -> there
    for (const auto& table : rows.tables) {
        const bool events = table.name == "self_heal_events";
        for (auto row : table.rows) {
            const std::string id = text_in(table, row, events ? "id" : "event_id");
            if (events && is_open(text_in(table, row, "state"))) {
                const std::string fingerprint = text_in(table, row, "fingerprint"),
                                  environment = text_in(table, row, "environment");
                std::string other;
                HEAL_TRY(shared.query(
                    open_one,
                    {string_view{fingerprint}, string_view{environment}},
                    [&](const Row& r) { other = r.text(0); }
                ));
                if (!other.empty() && other != id) {
                    joined[id] = other;
                    continue;
                }
            }
            if (const auto it = joined.find(id); !events && it != joined.end())
                row[place(table, "event_id")] = it->second;
            HEAL_TRY(put(shared, table, row));
        }
    }
    // The audit log only grows, here and there: how far it was handed over is one number.
    constexpr Statement mark{"audit handed over", "SELECT value FROM engine_counters WHERE name = $1"};
    constexpr Statement set_mark{
        "set audit handed over",
        "INSERT INTO engine_counters (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = "
        "excluded.value"};
    const std::string counter = "audit:" + rows.origin;
    std::int64_t before = 0;
    HEAL_TRY(shared.query(mark, {string_view{counter}}, [&](const Row& r) { before = r.integer(0); }));
    for (const auto& e : rows.audit) {
        if (e.seq <= before) continue;
        const auto it = joined.find(e.subject);
        HEAL_TRY(append_audit(
            shared, e.at, e.actor, e.action, it == joined.end() ? e.subject : it->second, e.detail
        ));
    }
    if (!rows.audit.empty() && rows.audit.back().seq > before)
        HEAL_TRY(shared.post(set_mark, {string_view{counter}, rows.audit.back().seq}));
    for (const auto& rung : rows.rungs) HEAL_TRY(save_trust_rung(shared, rung));
    return {};
}

result<void> end_hand_over(Database& local) {
    constexpr Statement all[] = {
        {"forget effects", "DELETE FROM healing_actions"},
        {"forget attempts", "DELETE FROM healing_results"},
        {"forget events", "DELETE FROM self_heal_events"},
        {"forget intents", "DELETE FROM intents"}};
    for (const auto& statement : all) HEAL_TRY(local.post(statement, {}));
    return save_engine_state(local, pending_name, "", Time{0});
}

result<void> resume_local(Database& local) { return save_engine_state(local, pending_name, "", Time{0}); }

}  // namespace heal::sql
