#include "service/code_reader.hpp"

#include "service/repository_desk.hpp"
#include "vcs/source.hpp"

#include <fmt/format.h>

namespace heal {
namespace {

class DeskCodeReader final : public CodeReader {
public:
    explicit DeskCodeReader(RepositoryDesk& desk) : desk_(desk) {}

    result<CodeAt> read(
        const RepositorySettings& settings,
        const std::string& revision,
        const std::string& stack_trace,
        std::size_t max_bytes,
        const std::atomic<bool>& cancel
    ) override {
        if (cancel.load()) return fail(errc::cancelled, "cancelled");
        return desk_.with_fresh(settings, [&](vcs::Repository& repository) -> result<CodeAt> {
            result<std::string> commit = fail(errc::not_found, "");
            if (!revision.empty()) commit = repository.resolve(revision);
            if (!commit) commit = repository.resolve(settings.branch);
            if (!commit) return commit.error();
            CodeAt code{*commit, {}};
            auto found = vcs::excerpts(repository, *commit, vcs::places_of(stack_trace), max_bytes);
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
        });
    }

private:
    RepositoryDesk& desk_;
};

}  // namespace

std::unique_ptr<CodeReader> create_code_reader(RepositoryDesk& desk) {
    return std::make_unique<DeskCodeReader>(desk);
}

}  // namespace heal
