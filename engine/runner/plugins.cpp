#include "runner/plugins.hpp"

#include "base/log.hpp"
#include "base/tasks.hpp"
#include "runner/artifact_file.hpp"
#include "runner/host_pool.hpp"
#include "runner/process_runner.hpp"
#include "runner/watcher.hpp"
#include "wire/describe.hpp"

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <map>
#include <set>

namespace heal {
namespace {

namespace asio = boost::asio;
using asio::awaitable;
using asio::use_awaitable;

// What is known about one path.
struct Slot {
    ArtifactPtr artifact;       ///< in service; null when none ever was accepted
    std::string refused_build;  ///< of the newest file, when it was refused
    std::string reason;         ///< why
    std::string refused_kind;
    bool duplicate = false;  ///< refused only because another artifact has the name
    bool stale = false;      ///< a library it may require changed
    bool loading = false, again = false;
};

constexpr std::int64_t backup_days = 30;
constexpr int max_starting = 4;

class PluginsImpl final : public Plugins, public ArtifactSource {
public:
    PluginsImpl(asio::io_context& context, RunnerSettings settings, const Clock& clock)
        : context_(context),
          settings_(std::move(settings)),
          clock_(clock),
          pool_(context_, settings_, clock_),
          runner_(create_process_runner(context_, pool_, *this, clock_)),
          changed_(context_),
          room_(context_) {}

    StrategyRunner& runner() override { return *runner_; }
    const std::vector<CatalogEntry>& entries() const override { return entries_; }
    void on_change(std::function<void()> callback) override { callback_ = std::move(callback); }

    awaitable<void> start() override {
        if (settings_.state_folder.empty())
            log::warn(
                "runner.state_folder is empty; strategies can't keep values and file changes can't be undone"
            );
        else
            prepare_state();
        co_await pool_.warm_up();
        watcher_ = create_watcher(
            context_,
            {settings_.plugins_folder, settings_.scripts_folder, lib_folder()},
            settings_.settle,
            [this](const std::string& path) { changed(path); }
        );
        rescan();
        const auto until = std::chrono::steady_clock::now() + settings_.start_timeout;
        while (loading_ > 0 && std::chrono::steady_clock::now() < until) {
            changed_.expires_at(until);
            co_await due(changed_);
        }
    }

    void rescan() override {
        const std::vector<std::string> now =
            find_artifacts(settings_.plugins_folder, settings_.scripts_folder);
        const std::set<std::string> present(now.begin(), now.end());
        std::vector<std::string> gone;
        for (const auto& [path, slot] : slots_) {
            if (present.count(path) == 0) gone.push_back(path);
        }
        for (const std::string& path : gone) withdraw(path);
        for (const std::string& path : now) look_at(path);
    }

    result<void> release(std::string_view what) override {
        for (auto& [path, slot] : slots_) {
            if (!slot.artifact) continue;
            const auto& all = slot.artifact->strategies;
            const bool named =
                path == what || path.substr(path.find_last_of('/') + 1) == what ||
                std::any_of(all.begin(), all.end(), [&](const StrategyInfo& s) { return s.name == what; });
            if (!named) continue;
            if (!slot.artifact->supervisor.release())
                return fail(errc::conflict, fmt::format("{} is not in quarantine", path));
            log::info("{} was released from quarantine", path);
            publish();
            return {};
        }
        return fail(errc::not_found, fmt::format("no artifact or strategy is called '{}'", what));
    }

    // ---- ArtifactSource ----

    ArtifactPtr find(const std::string& strategy) const override {
        const auto at = by_name_.find(strategy);
        return at == by_name_.end() ? nullptr : at->second;
    }

    void crashed(const ArtifactPtr& artifact, const std::string& why, const std::string& output) override {
        artifact->supervisor.crashed(clock_.steady());
        artifact->last_output = output;
        const bool quarantined = artifact->supervisor.in_quarantine();
        log::warn(
            "the host of {} {}{}",
            artifact->file.path,
            why,
            quarantined ? "; it crashed too often and is in quarantine now" : ""
        );
        if (quarantined) pool_.retire(artifact);
        publish();
    }

private:
    std::string lib_folder() const {
        return settings_.scripts_folder.empty() ? std::string{} : settings_.scripts_folder + "/lib";
    }

    void prepare_state() const {
        // Created by the performer when needed; here only the rights of what exists, and old backups.
        ::mkdir(settings_.state_folder.c_str(), 0700);
        ::chmod(settings_.state_folder.c_str(), 0700);
        const std::string backups = settings_.state_folder + "/backups";
        DIR* dir = ::opendir(backups.c_str());
        if (!dir) return;
        const std::int64_t oldest = clock_.wall().us / 1'000'000 - backup_days * 86'400;
        while (const dirent* entry = ::readdir(dir)) {
            struct stat info {};
            if (::fstatat(::dirfd(dir), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
                S_ISREG(info.st_mode) && info.st_mtim.tv_sec < oldest) {
                ::unlinkat(::dirfd(dir), entry->d_name, 0);
            }
        }
        ::closedir(dir);
    }

    void changed(const std::string& path) {
        if (path.empty()) return rescan();
        if (!lib_folder().empty() && path.compare(0, lib_folder().size() + 1, lib_folder() + "/") == 0) {
            // What a script requires is part of it.
            for (auto& [known, slot] : slots_) {
                if (known.size() > 4 && known.substr(known.size() - 4) == ".lua") slot.stale = true;
            }
            return rescan();
        }
        const std::string name = path.substr(path.find_last_of('/') + 1);
        const bool ours = (path == settings_.plugins_folder + "/" + name && is_artifact_name(name, false)) ||
                          (path == settings_.scripts_folder + "/" + name && is_artifact_name(name, true));
        if (!ours) return;
        if (::access(path.c_str(), F_OK) != 0)
            withdraw(path);
        else
            look_at(path);
    }

    void look_at(const std::string& path) {
        Slot& slot = slots_[path];
        if (slot.loading) {
            slot.again = true;
            return;
        }
        slot.loading = true;
        ++loading_;
        spawn(context_, load(path), [this, path](const std::exception_ptr& problem) {
            --loading_;
            changed_.cancel();
            if (problem) log::error("loading {}: {}", path, text_of(problem));
            const auto at = slots_.find(path);
            if (at == slots_.end()) return;
            at->second.loading = false;
            if (std::exchange(at->second.again, false)) {
                if (::access(path.c_str(), F_OK) == 0)
                    look_at(path);
                else
                    withdraw(path);
            }
        });
    }

    void refuse(
        const std::string& path, const std::string& build, std::string reason, bool duplicate = false
    ) {
        const auto at = slots_.find(path);
        if (at == slots_.end()) return;
        Slot& slot = at->second;
        if (slot.refused_build == build && slot.reason == reason) return;
        slot.refused_build = build;
        slot.refused_kind = path.size() > 4 && path.substr(path.size() - 4) == ".lua" ? "lua" : "so";
        slot.duplicate = duplicate;
        slot.reason = std::move(reason);
        log::warn(
            "{} is refused: {}{}",
            path,
            slot.reason,
            slot.artifact ? "; the former version stays in service" : ""
        );
        publish();
    }

    awaitable<void> load(std::string path) {
        auto file = read_artifact(path);
        if (!file) {
            if (file.error().code == errc::not_found)
                withdraw(path);
            else
                refuse(path, "", file.error().text);
            co_return;
        }
        {
            Slot& slot = slots_[path];
            const bool stale = std::exchange(slot.stale, false);
            if (!stale && slot.artifact && slot.artifact->file.build == file->build) {
                // The file in service is back (or never went): whatever was refused in between is history.
                if (!slot.reason.empty()) {
                    slot.reason.clear();
                    slot.refused_build.clear();
                    publish();
                }
                co_return;
            }
            if (!stale && !slot.refused_build.empty() && slot.refused_build == file->build && !slot.duplicate)
                co_return;
        }
        auto artifact = std::make_shared<ArtifactBuild>();
        artifact->file = std::move(*file);
        if (artifact->file.kind == "lua") {
            std::vector<std::string> refused;
            artifact->libraries = read_libraries(lib_folder(), refused);
            for (const std::string& one : refused) log::warn("a library of scripts is left out: {}", one);
        }
        // Hosts that are being loaded come on top of those that serve, so that a new version does not wait
        // for a long call; a few at a time.
        while (starting_ >= max_starting) {
            room_.expires_at(asio::steady_timer::time_point::max());
            co_await due(room_);
        }
        ++starting_;
        auto started = co_await pool_.start(artifact);
        --starting_;
        room_.cancel();
        // A host that could not come up may have been starved: the next look at the file tries again.
        if (!started)
            co_return refuse(
                path,
                started.error().code == errc::invalid_input ? artifact->file.build : "",
                started.error().text
            );
        const std::string name = path.substr(path.find_last_of('/') + 1);
        auto infos = read_facts(started->facts, name);
        if (!infos) {
            started->host->retire();
            co_return refuse(path, artifact->file.build, infos.error().text);
        }
        for (StrategyInfo& info : *infos) {
            info.artifact = path;
            info.build = artifact->file.build;
            info.kind = artifact->file.kind;
            const auto other = by_name_.find(info.name);
            if (other != by_name_.end() && other->second->file.path != path) {
                started->host->retire();
                co_return refuse(
                    path,
                    artifact->file.build,
                    fmt::format(
                        "{} describes the strategy '{}', which {} has already; rename one of them, or remove "
                        "one file",
                        name,
                        info.name,
                        other->second->file.path
                    ),
                    true
                );
            }
        }
        const auto at = slots_.find(path);
        if (at == slots_.end()) {  // removed while it was loaded
            started->host->retire();
            co_return;
        }
        artifact->strategies = std::move(*infos);
        Slot& slot = at->second;
        const ArtifactPtr old = std::exchange(slot.artifact, artifact);
        slot.refused_build.clear();
        slot.reason.clear();
        slot.duplicate = false;
        if (old) take_out(old);
        for (const StrategyInfo& info : artifact->strategies) by_name_[info.name] = artifact;
        log::info(
            "{} {} ({} strateg{}, build {})",
            old ? "replaced" : "loaded",
            path,
            artifact->strategies.size(),
            artifact->strategies.size() == 1 ? "y" : "ies",
            artifact->file.build.substr(0, 12)
        );
        if (pool_.crowded()) started->host->retire();
        publish();
        if (old) retry_duplicates();
    }

    void take_out(const ArtifactPtr& artifact) {
        artifact->withdrawn = true;
        std::erase_if(by_name_, [&](const auto& entry) { return entry.second == artifact; });
        pool_.retire(artifact);
    }

    void withdraw(const std::string& path) {
        const auto at = slots_.find(path);
        if (at == slots_.end()) return;
        if (at->second.loading) {
            at->second.again = true;
            return;
        }
        const ArtifactPtr artifact = at->second.artifact;
        slots_.erase(at);
        if (artifact) {
            take_out(artifact);
            log::info("{} is gone; its strategies are withdrawn", path);
        }
        publish();
        retry_duplicates();
    }

    // A name may have become free.
    void retry_duplicates() {
        std::vector<std::string> paths;
        for (const auto& [path, slot] : slots_) {
            if (slot.duplicate) paths.push_back(path);
        }
        for (const std::string& path : paths) look_at(path);
    }

    void publish() {
        entries_.clear();
        const Duration now = clock_.steady();
        for (const auto& [path, slot] : slots_) {
            if (!slot.artifact && slot.reason.empty()) continue;  // still loading for the first time
            CatalogEntry e;
            e.path = path;
            if (slot.artifact) {
                e.kind = slot.artifact->file.kind;
                e.build = slot.artifact->file.build;
                e.strategies = slot.artifact->strategies;
                e.crashes = slot.artifact->supervisor.crashes(now);
                e.last_output = slot.artifact->last_output;
                e.children = pool_.children_of(slot.artifact);
                const bool quarantined = slot.artifact->supervisor.in_quarantine();
                e.state = quarantined ? ArtifactState::quarantined : ArtifactState::loaded;
                if (quarantined)
                    e.reason = fmt::format(
                        "crashed {} times within 10 minutes; look at its last output, then release it or put "
                        "a new file there",
                        e.crashes
                    );
                else if (!slot.reason.empty())
                    e.reason = fmt::format(
                        "the newer file was refused, the former version stays in service: {}", slot.reason
                    );
            } else {
                e.kind = slot.refused_kind;
                e.build = slot.refused_build;
                e.state = ArtifactState::refused;
                e.reason = slot.reason;
            }
            entries_.push_back(std::move(e));
        }
        if (callback_) callback_();
    }

    asio::io_context& context_;
    RunnerSettings settings_;
    const Clock& clock_;
    HostPool pool_;
    std::unique_ptr<StrategyRunner> runner_;
    std::unique_ptr<Watcher> watcher_;
    std::map<std::string, Slot> slots_;  // by path
    std::map<std::string, ArtifactPtr> by_name_;
    std::vector<CatalogEntry> entries_;
    std::function<void()> callback_;
    asio::steady_timer changed_, room_;
    int loading_ = 0, starting_ = 0;
};

}  // namespace

const char* to_string(ArtifactState state) noexcept {
    switch (state) {
        case ArtifactState::loaded:
            return "loaded";
        case ArtifactState::refused:
            return "refused";
        case ArtifactState::quarantined:
            return "quarantined";
    }
    return "refused";
}

std::unique_ptr<Plugins> create_plugins(
    asio::io_context& context, RunnerSettings settings, const Clock& clock
) {
    return std::make_unique<PluginsImpl>(context, std::move(settings), clock);
}

}  // namespace heal
