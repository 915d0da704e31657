#include "service/trigger_watch.hpp"

#include "base/id.hpp"
#include "base/log.hpp"
#include "base/tasks.hpp"
#include "service/own_incident.hpp"
#include "store/brain_store.hpp"

#include <fmt/format.h>

namespace heal {

using namespace std::chrono_literals;

namespace {

namespace asio = boost::asio;

constexpr const char* state_name = "triggers";
/// Kinds of error that "new" remembers; beyond it nothing is called new, so that a storm opens nothing.
constexpr std::size_t max_known = 2'000'000;
constexpr std::int64_t max_restored = 500'000;

}  // namespace

Incident make_incident(const OwnIncident& own, Time now) {
    Incident in;
    in.fingerprint = sha256_hex(own.kind).substr(0, 16);
    in.service_name = own.service;
    in.target = own.target;
    in.environment = own.environment;
    in.severity = own.severity;
    in.trigger = own.trigger;
    in.opened_at = in.first_at = in.last_at = now;
    in.count = 1;
    in.record.service_name = own.service;
    in.record.environment = own.environment;
    in.record.fingerprint = in.fingerprint;
    in.record.level = Level::error;
    in.record.message = own.message;
    in.record.source = own.source;
    in.record.time = in.record.received = now;
    in.pattern = in.record.pattern = own.trigger;
    return in;
}

TriggerWatch::TriggerWatch(Shared& shared, Healer& healer) : s_(shared), healer_(healer), timer_(shared.io) {}

asio::awaitable<result<void>> TriggerWatch::start() {
    Triggers fresh{s_.settings->triggers};
    if (fresh.empty()) {
        triggers_ = std::move(fresh);
        co_return result<void>{};
    }
    struct Loaded {
        std::vector<sql::HeardRow> minutes, hours;
        std::vector<std::string> known, fixed;
        std::string snapshot;
    };
    auto loaded = std::make_shared<Loaded>();
    const Time now = s_.clock.wall();
    const bool rates = fresh.uses(TriggerKind::rate), news = fresh.uses(TriggerKind::fresh);
    Store::Job job = [loaded, now, rates, news](Database& db) -> result<void> {
        *loaded = Loaded{};
        auto minutes = sql::load_heard(db, "minute", now - 1h, max_restored);
        if (!minutes) return minutes.error();
        loaded->minutes = std::move(*minutes);
        if (rates) {
            auto hours = sql::load_heard(db, "hour", now - 8 * 24h, max_restored);
            if (!hours) return hours.error();
            loaded->hours = std::move(*hours);
        }
        if (news) {
            auto known = sql::load_fingerprint_ids(db, static_cast<std::int64_t>(max_known));
            if (!known) return known.error();
            loaded->known = std::move(*known);
        }
        auto fixed = sql::load_fixed_fingerprints(db);
        if (!fixed) return fixed.error();
        loaded->fixed = std::move(*fixed);
        auto kept = sql::load_engine_state(db, state_name);
        if (!kept) return kept.error();
        loaded->snapshot = kept->value_or("");
        return {};
    };
    HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
    const auto tell = [&](const sql::HeardRow& row) {
        Incident in;
        in.fingerprint = in.record.fingerprint = row.fingerprint;
        in.service_name = in.record.service_name = row.service;
        in.environment = in.record.environment = row.environment;
        in.record.level = row.level;
        in.record.error_type = row.error_type;
        in.pattern = in.record.pattern = in.record.message = row.pattern;
        const auto* service = s_.service(row.service, row.environment);
        Observation seen;
        seen.incident = &in;
        seen.target = service ? &service->facts : nullptr;
        seen.count = row.count;
        fresh.restore(seen, row.at);
    };
    // Of the newest hour the minutes tell more; older hours are for what is usual.
    const Time this_hour{now.us / 3'600'000'000 * 3'600'000'000};
    for (const auto& row : loaded->hours) {
        if (row.at < this_hour - 1h) tell(row);
    }
    for (const auto& row : loaded->minutes) tell(row);
    if (auto parsed = parse_json(loaded->snapshot.empty() ? "{}" : loaded->snapshot, "triggers");
        parsed && parsed->is_object())
        fresh.restore_snapshot(parsed->get_object());
    fresh.begin(now);
    known_.clear();
    for (const auto& id : loaded->known) known_.insert(key_of_text(id));
    fixed_.clear();
    for (const auto& id : loaded->fixed) fixed_.insert(key_of_text(id));
    triggers_ = std::move(fresh);
    co_return result<void>{};
}

asio::awaitable<void> TriggerWatch::run() {
    while (!stopping_) {
        timer_.expires_after(1s);
        if (!co_await due(timer_) || stopping_) co_return;
        if (triggers_.empty()) continue;
        for (const auto& fired : triggers_.tick(s_.clock.wall())) open(fired);
    }
}

void TriggerWatch::stop() {
    stopping_ = true;
    timer_.cancel();
    if (!triggers_.empty()) keep_snapshot();
}

TriggerWatch::Heard TriggerWatch::heard(
    const Delta& delta, const std::string& fingerprint, Severity severity, std::uint64_t count, Time now
) {
    Incident in;
    in.fingerprint = fingerprint;
    in.service_name = delta.service_name;
    in.environment = delta.environment;
    in.record = delta.samples.back();
    in.record.fingerprint = fingerprint;
    in.pattern = delta.pattern;
    const auto* service = s_.service(delta.service_name, delta.environment);
    Observation seen;
    seen.incident = &in;
    seen.target = service ? &service->facts : nullptr;
    seen.count = count;
    seen.severity = severity;
    const auto key = key_of_text(fingerprint);
    seen.was_fixed = fixed_.contains(key);
    if (triggers_.uses(TriggerKind::fresh) && known_.size() < max_known)
        seen.is_new = known_.insert(key).second;
    const auto answer = triggers_.observe(seen, now);
    Heard out;
    out.governed = answer.governed;
    for (const auto& f : answer.fired) {
        s_.feed.publish(
            "trigger",
            {{"trigger", f.trigger},
             {"group", to_valid_utf8(f.group)},
             {"reason", f.reason},
             {"cleared", f.cleared}}
        );
        if (f.cleared) continue;
        s_.metrics.add("heald_triggers_fired_total", {{"trigger", f.trigger}});
        if (!out.opens) out.trigger = f.trigger + ": " + f.reason;
        if (f.severity && (!out.severity || *f.severity < *out.severity)) out.severity = f.severity;
        out.opens = true;
    }
    return out;
}

void TriggerWatch::open(const Fired& fired) {
    s_.feed.publish(
        "trigger",
        {{"trigger", fired.trigger},
         {"group", to_valid_utf8(fired.group)},
         {"reason", fired.reason},
         {"cleared", fired.cleared}}
    );
    if (fired.cleared) return;
    s_.metrics.add("heald_triggers_fired_total", {{"trigger", fired.trigger}});
    OwnIncident own;
    own.service = fired.service;
    own.environment = fired.environment;
    own.trigger = fired.trigger + ": " + fired.reason;
    own.kind = "trigger\x1f" + fired.trigger + '\x1f' + fired.group;
    own.message = fmt::format("{} ({})", own.trigger, fired.group.empty() ? "all" : fired.group);
    own.source = "heald:trigger";
    own.severity = fired.severity.value_or(Severity::p1_major);
    Incident in = make_incident(own, s_.clock.wall());
    in.target = s_.settings->targets.resolve(in).name;
    if (healer_.is_quiet(in.fingerprint, in.environment) ||
        !healer_.occurred(in.fingerprint, in.environment, 1, in.opened_at).empty())
        return;
    const bool came_back = healer_.recurred_after_healing(in.fingerprint, in.environment, in.opened_at);
    if (came_back) in.trigger = "did not hold";
    in.id = new_id(s_.clock);
    const auto* service = s_.service(in.target, in.environment);
    auto candidates = s_.strategies.fitting(in, service ? service->facts : json::object{}, [](Duration) {
        return ~std::uint64_t{0};
    });
    healer_.open(std::move(in), std::move(candidates));
}

void TriggerWatch::keep_snapshot() {
    const std::string text = json::serialize(triggers_.snapshot());
    if (text == kept_) return;
    kept_ = text;
    s_.store.submit(
        [text, now = s_.clock.wall()](Database& db) {
            return sql::save_engine_state(db, state_name, text, now);
        },
        [](result<void> outcome) {
            if (!outcome) log::warn("the triggers' state was not kept: {}", outcome.error().text);
        }
    );
}

void TriggerWatch::housekeeping() {
    if (triggers_.empty()) return;
    keep_snapshot();
    if (!triggers_.uses(TriggerKind::regression)) return;
    auto fixed = std::make_shared<std::vector<std::string>>();
    s_.store.submit(
        [fixed](Database& db) -> result<void> {
            auto rows = sql::load_fixed_fingerprints(db);
            if (!rows) return rows.error();
            *fixed = std::move(*rows);
            return {};
        },
        [this, fixed](result<void> outcome) {
            if (!outcome) return;
            fixed_.clear();
            for (const auto& id : *fixed) fixed_.insert(key_of_text(id));
        }
    );
}

json::object TriggerWatch::list() const {
    json::array items;
    for (std::size_t i = 0; i < triggers_.specs().size(); ++i) {
        const auto& spec = triggers_.specs()[i];
        const auto a = triggers_.account(i);
        items.push_back(json::object{
            {"trigger", spec.name},
            {"kind", to_string(spec.kind)},
            {"matched", a.matched},
            {"fired", a.fired},
            {"cleared", a.cleared},
            {"groups", a.groups},
            {"forgotten", a.forgotten}});
    }
    return json::object{{"items", std::move(items)}};
}

}  // namespace heal
