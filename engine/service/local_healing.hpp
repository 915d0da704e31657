// Healing while the shared store is away: a node goes on with the targets that it alone owns
// (services[].owner), PostgreSQL itself among them. It is a second healer with a store of its own in the
// state directory, so intents, effects and verdicts are as durable as ever; all of it is handed over once
// when the shared store is back, and what is still open is then taken up there like the incident of a lost
// node (docs/adr/0023-alone.md).
// @thread the event loop's
#pragma once

#include "core/incident.hpp"
#include "service/healer.hpp"
#include "store/local_store.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

namespace heal {

class LocalHealing {
public:
    /// The shared store must be away for so long before heald takes it for ill by itself (store.service); a
    /// restart of a server takes less.
    static constexpr Duration patience = std::chrono::seconds{3};

    /// Opens <state_dir>/local.db; the rest it shares with the engine.
    static result<std::unique_ptr<LocalHealing>> open(
        boost::asio::io_context& io,
        const Clock& clock,
        StrategyRunner& runner,
        Prober& prober,
        Feed& feed,
        Metrics& metrics,
        std::shared_ptr<const Settings> settings
    );
    ~LocalHealing();

    /// True where the settings give this node anything to own.
    static bool wanted(const Settings& settings);

    /// Takes up what an earlier life left. Call before run(), when the strategies are known.
    boost::asio::awaitable<result<void>> start();
    /// Until stop(): sees whether the store is there, begins, hands over, keeps the charter.
    boost::asio::awaitable<void> run();
    boost::asio::awaitable<void> stop(std::chrono::milliseconds grace);

    /// The other side, once it is there. Before, the store counts as away as soon as missing() was called.
    void set_shared_side(const Shared& shared, const Healer& healer);
    /// The shared store did not answer at the start.
    void missing(const std::string& why) { missing_ = why; }
    void set_strategies(
        const std::vector<CatalogEntry>& catalog, const std::vector<sql::StrategySetting>& overrides
    ) {
        local_.strategies.refresh(catalog, *local_.settings, overrides);
    }
    void set_settings(std::shared_ptr<const Settings> settings) { local_.settings = std::move(settings); }
    /// What people set while the store was there; nullopt: nobody ever knew.
    const std::optional<sql::Charter>& charter() const { return charter_; }
    void set_paused(bool paused, const std::string& reason);

    /// This node alone heals it.
    bool owns(const std::string& target, const std::string& environment) const;
    /// Null while the shared store is there, or what was done alone is being handed over.
    Healer* healer() const { return away() ? healer_.get() : nullptr; }
    /// An error belongs to an incident here.
    void noted() { dirty_ = true; }
    /// Something here is not handed over yet.
    bool busy() const { return dirty_ || handing_over_; }
    std::size_t open_count() const { return healer_ ? healer_->open_count() : 0; }
    /// {"owned", "acting", "open", "waits", "handed_over"}
    json::object status() const;

private:
    LocalHealing(
        boost::asio::io_context& io,
        const Clock& clock,
        std::unique_ptr<Store> store,
        StrategyRunner& runner,
        Prober& prober,
        Feed& feed,
        Metrics& metrics,
        std::shared_ptr<const Settings> settings
    );
    bool away() const;
    /// A healer that takes up what is open here.
    boost::asio::awaitable<result<void>> begin();
    boost::asio::awaitable<void> hand_over();
    boost::asio::awaitable<void> refresh_charter();
    /// heald itself sees that its store is away.
    void open_own_incident();

    std::unique_ptr<Store> store_;
    Shared local_;
    Alone alone_;
    std::unique_ptr<Trust> trust_;
    std::unique_ptr<Healer> healer_;
    const Shared* shared_ = nullptr;
    const Healer* shared_healer_ = nullptr;
    std::string missing_;
    std::optional<sql::Charter> charter_;
    std::optional<Duration> away_since_;
    Duration charter_at_{0}, own_at_{0};
    std::uint64_t handed_over_ = 0;
    bool dirty_ = false, handing_over_ = false, stopping_ = false;
    std::string pause_;
    boost::asio::steady_timer timer_;
};

}  // namespace heal
