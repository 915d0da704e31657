#include "service/repository_desk.hpp"

#include "base/log.hpp"

namespace heal {
namespace {

using namespace std::chrono_literals;

/// Of each git command; a clone of a large repository is the longest.
constexpr auto git_deadline = 10min;
/// Bugs come in flocks; one look at the remote is enough for all of a minute.
constexpr auto fresh_for = 60s;

}  // namespace

RepositoryDesk::Place& RepositoryDesk::place_of(const std::string& name) {
    const std::lock_guard lock{mutex_};
    auto& place = places_[name];
    if (!place) place = std::make_unique<Place>();
    return *place;
}

result<vcs::Repository*> RepositoryDesk::open(Place& place, const RepositorySettings& s) {
    if (cancel_.load()) return fail(errc::cancelled, "heald is stopping");
    if (!place.repository || place.url != s.url) {
        place.repository.reset();
        auto opened =
            vcs::open_repository({s.name, s.url, s.branch, s.token}, folder_, git_deadline, cancel_);
        if (!opened) return opened.error();
        place.repository = std::move(*opened);
        place.url = s.url;
        place.fetched = std::chrono::steady_clock::now();
    }
    return place.repository.get();
}

void RepositoryDesk::refresh(Place& place, const RepositorySettings& s) {
    const auto now = std::chrono::steady_clock::now();
    if (now - place.fetched < fresh_for) return;
    if (auto fetched = place.repository->fetch(); !fetched)
        log::warn("repository {}: {}", s.name, fetched.error().text);
    else
        place.fetched = now;
}

}  // namespace heal
