#include "service/code_reader.hpp"

#include "base/log.hpp"
#include "vcs/repository.hpp"
#include "vcs/source.hpp"

#include <fmt/format.h>

#include <chrono>
#include <map>
#include <mutex>

namespace heal {
namespace {

using namespace std::chrono_literals;

/// Bugs come in flocks; one look at the remote is enough for all of a minute.
constexpr auto fresh_for = 60s;

class VcsCodeReader final : public CodeReader {
public:
    explicit VcsCodeReader(std::string folder) : folder_(std::move(folder)) {}

    result<CodeAt> read(
        const RepositorySettings& settings,
        const std::string& revision,
        const std::string& stack_trace,
        std::size_t max_bytes,
        const std::atomic<bool>& cancel
    ) override {
        auto& mirror = mirror_of(settings);
        const std::lock_guard lock{mirror.mutex};
        if (cancel.load()) return fail(errc::cancelled, "cancelled");
        const vcs::RepositoryPlace place{settings.name, settings.url, settings.branch, settings.token};
        auto repository = vcs::open_repository(place, folder_, 120s, cancel);
        if (!repository) return repository.error();
        const auto now = std::chrono::steady_clock::now();
        if (now - mirror.fetched >= fresh_for) {
            // What is here already is better than nothing.
            if (auto fetched = (*repository)->fetch(); !fetched)
                log::warn("repository {}: {}", settings.name, fetched.error().text);
            else
                mirror.fetched = now;
        }
        result<std::string> commit = fail(errc::not_found, "");
        if (!revision.empty()) commit = (*repository)->resolve(revision);
        if (!commit) commit = (*repository)->resolve(settings.branch);
        if (!commit) return commit.error();
        CodeAt code{*commit, {}};
        auto found = vcs::excerpts(**repository, *commit, vcs::places_of(stack_trace), max_bytes);
        if (!found) return found.error();
        for (auto& e : *found) {
            ai::CodeExcerpt excerpt{
                std::move(e.file), e.first_line, e.line, std::move(e.function), std::move(e.text), {}};
            for (const auto& h : e.history) {
                excerpt.history.push_back(fmt::format(
                    "{} {} lines {}-{}: {}",
                    h.commit.substr(0, 10),
                    to_rfc3339(h.at).substr(0, 10),
                    h.first_line,
                    h.last_line,
                    h.summary
                ));
            }
            code.excerpts.push_back(std::move(excerpt));
        }
        return code;
    }

private:
    struct Mirror {
        std::mutex mutex;
        std::chrono::steady_clock::time_point fetched{};
    };

    Mirror& mirror_of(const RepositorySettings& settings) {
        const std::lock_guard lock{mutex_};
        auto& mirror = mirrors_[settings.name + '\n' + settings.url];
        if (!mirror) mirror = std::make_unique<Mirror>();
        return *mirror;
    }

    std::string folder_;
    std::mutex mutex_;
    std::map<std::string, std::unique_ptr<Mirror>> mirrors_;
};

}  // namespace

std::unique_ptr<CodeReader> create_code_reader(std::string folder) {
    return std::make_unique<VcsCodeReader>(std::move(folder));
}

}  // namespace heal
