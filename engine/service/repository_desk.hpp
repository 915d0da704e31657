// The mirrors of all configured repositories, opened once and lent to one caller at a time: the analyst reads
// code, the fixer changes it.
// @thread any
#pragma once

#include "service/repositories.hpp"
#include "vcs/repository.hpp"

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace heal {

class RepositoryDesk {
public:
    /// Mirrors lie in `folder`/NAME.git.
    explicit RepositoryDesk(std::string folder) : folder_(std::move(folder)) {}
    RepositoryDesk(const RepositoryDesk&) = delete;
    RepositoryDesk& operator=(const RepositoryDesk&) = delete;

    /// Opens it (clones at first) and calls `work` with it, alone; a result<T>. Errors as of
    /// vcs::open_repository; errc::cancelled once `give_up` is set, also in the middle of what git does.
    template <class Work>
    auto with(const RepositorySettings& settings, Work&& work, const std::atomic<bool>* give_up = nullptr)
        -> decltype(work(std::declval<vcs::Repository&>())) {
        auto& place = place_of(settings.name);
        const std::lock_guard alone{place.mutex};
        auto opened = open(place, settings);
        if (!opened) return opened.error();
        struct Lent {
            vcs::Repository& repository;
            ~Lent() { repository.give_up_with(nullptr); }
        } lent{**opened};
        lent.repository.give_up_with(give_up);
        return work(lent.repository);
    }
    /// The same, looking at the remote first unless somebody did within the last minute. A remote that is
    /// away is no fault: what is here already is better than nothing.
    template <class Work>
    auto with_fresh(const RepositorySettings& settings, Work&& work)
        -> decltype(work(std::declval<vcs::Repository&>())) {
        auto& place = place_of(settings.name);
        const std::lock_guard alone{place.mutex};
        auto opened = open(place, settings);
        if (!opened) return opened.error();
        refresh(place, settings);
        return work(**opened);
    }

    /// Every git command that runs ends, and later ones at once.
    void stop() { cancel_.store(true); }

private:
    struct Place {
        std::mutex mutex;
        std::string url;
        std::unique_ptr<vcs::Repository> repository;
        std::chrono::steady_clock::time_point fetched{};
    };
    Place& place_of(const std::string& name);
    result<vcs::Repository*> open(Place& place, const RepositorySettings& settings);
    static void refresh(Place& place, const RepositorySettings& settings);

    std::string folder_;
    std::atomic<bool> cancel_{false};
    std::mutex mutex_;
    std::map<std::string, std::unique_ptr<Place>> places_;
};

}  // namespace heal
