// Keeps the versions of watched configuration files that were in force while their service was healthy, for
// config_rollback. A version is kept only on positive evidence: all probes of the service pass and its own
// check (`config.check`) accepts the files, twice, `settle` apart, with the files unchanged between. It
// restores nothing.
//
// Kept as <folder>/<service>/<path with '%' for '/'>/<microseconds, 20 digits>-<first 16 hex digits of
// SHA-256>, newest last by name.
#pragma once

#include "base/clock.hpp"
#include "base/files.hpp"
#include "service/prober.hpp"
#include "service/settings.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>

namespace heal {

class ConfigKeeper {
public:
    static constexpr std::size_t max_versions = 20;           ///< per file; older ones are removed
    static constexpr std::size_t max_file_bytes = 4U << 20U;  ///< larger files are not kept
    std::chrono::milliseconds interval{
        1'000};  ///< between looks; a look without a change costs one stat per file
    std::chrono::milliseconds settle{2'000};

    /// @param folder   of all versions; made when needed
    /// @param settings the configuration in force at each look
    ConfigKeeper(
        boost::asio::any_io_executor executor,
        std::string folder,
        Files& files,
        const Clock& clock,
        Prober& prober,
        std::function<std::shared_ptr<const Settings>()> settings
    )
        : timer_(std::move(executor)),
          folder_(std::move(folder)),
          files_(files),
          clock_(clock),
          prober_(prober),
          settings_(std::move(settings)) {}

    /// One look at all services. @thread the event loop's
    boost::asio::awaitable<void> look();
    /// Looks again and again until stop().
    boost::asio::awaitable<void> run();
    void stop();

    /// Where versions of one service lie; what strategies see as target.config.versions.
    static std::string versions_of(const std::string& folder, const std::string& service);
    static std::string folder_name(std::string_view path);

private:
    struct Seen {
        std::string stamp;  // inode, size and time of all files
        Duration since{0};  // healthy and unchanged since, steady; 0: not seen healthy yet
        bool kept = false;
    };
    boost::asio::awaitable<void> look_at(const ServiceSettings& service);
    std::vector<std::string> names_in(const std::string& folder) const;
    bool keep(const ServiceSettings& service, const std::string& file);

    boost::asio::steady_timer timer_;
    bool stopping_ = false;
    std::string folder_;
    Files& files_;
    const Clock& clock_;
    Prober& prober_;
    std::function<std::shared_ptr<const Settings>()> settings_;
    std::map<std::string, Seen> seen_;
};

}  // namespace heal
