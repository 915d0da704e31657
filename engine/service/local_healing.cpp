#include "service/local_healing.hpp"

#include "base/id.hpp"
#include "base/log.hpp"
#include "base/tasks.hpp"
#include "service/cluster.hpp"
#include "service/healer_parts.hpp"
#include "service/own_incident.hpp"
#include "service/trust.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace heal {

using namespace std::chrono_literals;

namespace {

constexpr auto beat = 200ms;
/// What people set is copied this often; a kill switch that is newer holds in memory all the same.
constexpr Duration charter_every = 10s;
/// heald's own incident about its store is not opened again sooner.
constexpr Duration own_every = 5s;

}  // namespace

bool LocalHealing::wanted(const Settings& settings) {
    return !settings.store_url.empty() &&
           std::any_of(settings.services.begin(), settings.services.end(), [&](const ServiceSettings& s) {
               return s.owner == settings.node;
           });
}

result<std::unique_ptr<LocalHealing>> LocalHealing::open(
    asio::io_context& io,
    const Clock& clock,
    StrategyRunner& runner,
    Prober& prober,
    Feed& feed,
    Metrics& metrics,
    std::shared_ptr<const Settings> settings
) {
    StoreSettings where;
    where.path = settings->state_dir + "/local.db";
    auto store = open_store(where, io.get_executor(), clock);
    if (!store) return fail(store.error().code, fmt::format("{}: {}", where.path, store.error().text));
    return std::unique_ptr<LocalHealing>{
        new LocalHealing{io, clock, std::move(*store), runner, prober, feed, metrics, std::move(settings)}};
}

LocalHealing::LocalHealing(
    asio::io_context& io,
    const Clock& clock,
    std::unique_ptr<Store> store,
    StrategyRunner& runner,
    Prober& prober,
    Feed& feed,
    Metrics& metrics,
    std::shared_ptr<const Settings> settings
)
    : store_(std::move(store)),
      local_{
          io,
          clock,
          *store_,
          runner,
          prober,
          feed,
          metrics,
          std::move(settings),
          {},
          {},
          nullptr,
          nullptr,
          nullptr,
          &alone_},
      timer_(io) {
    alone_.attempts = [this]() -> std::optional<std::vector<AttemptFact>> {
        if (shared_healer_) {
            // Decided without its store is decided here: what becomes durable later keeps no target of this
            // node.
            const auto& known = shared_healer_->history().facts();
            std::vector<AttemptFact> facts{known.begin(), known.end()};
            for (auto& fact : facts)
                fact.undecided = fact.undecided && shared_healer_->may_take_back(fact.attempt);
            return facts;
        }
        if (!charter_) return std::nullopt;
        // Of before this process began: nothing of it acts any more, and what may be taken back waits for the
        // store.
        auto facts = charter_->facts;
        for (auto& fact : facts) {
            if (!fact.ended) fact.ended = fact.started;
        }
        return facts;
    };
    alone_.holds = [this]() -> const std::optional<std::vector<Hold>>& {
        return shared_ ? shared_->holds : local_.holds;
    };
    alone_.owns = [this](const std::string& target, const std::string& environment) {
        return owns(target, environment);
    };
}

LocalHealing::~LocalHealing() { store_->stop(); }

bool LocalHealing::owns(const std::string& target, const std::string& environment) const {
    const auto* service = local_.service(target, environment);
    return service && service->owner == local_.settings->node;
}

bool LocalHealing::away() const {
    if (!shared_) return !missing_.empty();
    const auto f = shared_->cluster->plain_store().figures();
    return !f.connected || !f.last_error.empty();
}

void LocalHealing::set_shared_side(const Shared& shared, const Healer& healer) {
    shared_ = &shared;
    shared_healer_ = &healer;
}

void LocalHealing::set_paused(bool paused, const std::string& reason) {
    pause_ = paused ? reason : "";
    if (healer_) healer_->set_paused(paused, reason);
}

asio::awaitable<result<void>> LocalHealing::start() {
    auto found = std::make_shared<std::optional<sql::Charter>>();
    auto rows = std::make_shared<bool>(false);
    Store::Job job = [found, rows](Database& db) -> result<void> {
        auto kept = sql::kept_charter(db);
        if (!kept) return kept.error();
        *found = std::move(*kept);
        auto any = sql::has_local_rows(db);
        if (!any) return any.error();
        *rows = *any;
        return {};
    };
    HEAL_CO_TRY(co_await store_->write(std::move(job)));
    charter_ = std::move(*found);
    dirty_ = *rows;
    if (charter_) {
        local_.holds = charter_->holds;
        pause_ = charter_->pause;
    }
    if (dirty_) log::info("what this node healed alone before waits to be handed over");
    co_return result<void>{};
}

asio::awaitable<result<void>> LocalHealing::begin() {
    Store::Job job = [](Database& db) { return sql::resume_local(db); };
    HEAL_CO_TRY(co_await store_->write(std::move(job)));
    trust_ = create_trust(local_);
    local_.trust = trust_.get();
    HEAL_CO_TRY(co_await trust_->start());
    auto healer = create_healer(local_);
    // Whether healing is paused is known from the shared side, or as it was last known; else nothing acts.
    if (shared_ || charter_) healer->set_paused(!pause_.empty(), pause_);
    HEAL_CO_TRY(co_await healer->recover());
    healer_ = std::move(healer);
    co_return result<void>{};
}

asio::awaitable<void> LocalHealing::run() {
    std::string told;
    while (!stopping_) {
        // It stands by while the store is there, so that the first error without it finds it.
        if (!healer_ && (away() || (shared_ && !dirty_))) {
            const auto begun = co_await begin();
            if (!begun && told != begun.error().text) {
                told = begun.error().text;
                log::error("this node cannot heal alone: {}", told);
            }
        }
        if (away()) {
            if (!away_since_) away_since_ = local_.clock.steady();
            if (local_.clock.steady() - *away_since_ >= patience) open_own_incident();
            // A kill switch that was set meanwhile reaches what runs.
            if (healer_ && healer_->acting()) healer_->holds_changed();
        } else if (shared_) {
            away_since_.reset();
            if (dirty_)
                co_await hand_over();
            else if (local_.clock.steady() - charter_at_ >= charter_every || charter_at_.count() == 0)
                co_await refresh_charter();
        }
        local_.metrics.set("heald_local_healing", {}, away() && healer_ ? 1 : 0);
        timer_.expires_after(beat);
        co_await due(timer_);
    }
}

asio::awaitable<void> LocalHealing::stop(std::chrono::milliseconds grace) {
    stopping_ = true;
    timer_.cancel();
    if (healer_) co_await healer_->stop(grace);
    store_->stop();
}

/// What runs is let end; then everything here stands still until it has arrived or is taken up again.
asio::awaitable<void> LocalHealing::hand_over() {
    if (!shared_->cluster->holds() || (healer_ && healer_->acting())) co_return;
    handing_over_ = true;
    if (healer_) {
        co_await healer_->abandon();
        Store::Job nothing = [](Database&) { return result<void>{}; };
        const auto told = co_await store_->write(std::move(nothing));
        if (!told) {  // not all that it said is in the tables, and what is on its way there still speaks to
                      // it
            log::warn("what this node healed alone is not handed over yet: {}", told.error().text);
            handing_over_ = false;
            co_return;
        }
        healer_.reset();
        local_.trust = nullptr;
        trust_.reset();
    }
    auto rows = std::make_shared<sql::LocalRows>();
    Store::Job collect = [rows](Database& db) -> result<void> {
        auto found = sql::begin_hand_over(db);
        if (!found) return found.error();
        *rows = std::move(*found);
        return {};
    };
    auto outcome = co_await store_->write(std::move(collect));
    if (outcome) {
        Store::Job give = [rows, now = local_.clock.wall()](Database& db) {
            return sql::hand_over(db, *rows, now);
        };
        outcome = co_await shared_->cluster->plain_store().write(std::move(give));
    }
    if (outcome) {
        Store::Job forget = [](Database& db) { return sql::end_hand_over(db); };
        outcome = co_await store_->write(std::move(forget));
    }
    if (outcome) {
        dirty_ = false;
        handed_over_ += rows->events();
        local_.metrics.add("heald_local_handed_over_total", {}, static_cast<double>(rows->events()));
        log::info("{} incidents that this node healed alone are in the shared store now", rows->events());
    } else {
        log::warn("what this node healed alone is not handed over yet: {}", outcome.error().text);
    }
    handing_over_ = false;
}

asio::awaitable<void> LocalHealing::refresh_charter() {
    charter_at_ = local_.clock.steady();
    const Time now = local_.clock.wall();
    std::function<result<sql::Charter>(Database&)> look = [now](Database& db) {
        return sql::load_charter(db, now - history_kept, now);
    };
    auto found = co_await shared_->cluster->plain_store().read<sql::Charter>(std::move(look));
    if (!found) co_return;
    auto charter = std::make_shared<sql::Charter>(std::move(*found));
    Store::Job keep = [charter, now](Database& db) { return sql::keep_charter(db, *charter, now); };
    auto kept = co_await store_->write(std::move(keep));
    if (!kept) {
        log::error("what people set could not be copied to this node: {}", kept.error().text);
        co_return;
    }
    const auto differs = [](const sql::TrustRung& a, const sql::TrustRung& b) {
        return a.strategy != b.strategy || a.error_class != b.error_class || a.rung != b.rung ||
               a.since != b.since;
    };
    const bool same_rungs = charter_ && std::equal(
                                            charter_->rungs.begin(),
                                            charter_->rungs.end(),
                                            charter->rungs.begin(),
                                            charter->rungs.end(),
                                            [&](const auto& a, const auto& b) { return !differs(a, b); }
                                        );
    charter_ = std::move(*charter);
    if (!same_rungs && trust_) static_cast<void>(co_await trust_->start());
}

void LocalHealing::open_own_incident() {
    const auto& name = local_.settings->store_service;
    if (!healer_ || name.empty() || local_.clock.steady() - own_at_ < own_every) return;
    const auto& services = local_.settings->services;
    const auto service = std::find_if(services.begin(), services.end(), [&](const ServiceSettings& s) {
        return s.name == name && s.owner == local_.settings->node;
    });
    if (service == services.end()) return;
    OwnIncident own;
    own.service = own.target = name;
    own.environment = service->environment;
    own.trigger = "store away";
    own.kind = "store away\x1f" + name;
    own.message = fmt::format(
        "the store of heald is away: {}",
        shared_ ? shared_->cluster->plain_store().figures().last_error : missing_
    );
    own.source = "heald:store";
    own.severity = Severity::p0_critical;
    const Time now = local_.clock.wall();
    Incident in = make_incident(own, now);
    if (healer_->is_open(in.fingerprint, in.environment) || healer_->is_quiet(in.fingerprint, in.environment))
        return;
    healer_->recurred_after_healing(in.fingerprint, in.environment, now);
    in.id = new_id(local_.clock);
    auto candidates =
        local_.strategies.fitting(in, service->facts, [](Duration) { return std::uint64_t{1}; });
    dirty_ = true;
    own_at_ = local_.clock.steady();
    healer_->open(std::move(in), std::move(candidates));
}

json::object LocalHealing::status() const {
    json::array owned;
    for (const auto& s : local_.settings->services) {
        if (s.owner == local_.settings->node) owned.push_back(json::value(s.name));
    }
    return json::object{
        {"owned", std::move(owned)},
        {"acting", away() && healer_},
        {"open", open_count()},
        {"waits", busy()},
        {"handed_over", handed_over_}};
}

}  // namespace heal
