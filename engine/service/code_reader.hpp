// The code that a stack trace names, at the release that failed: the seam between the analyst and vcs/, so
// that tests need no git.
#pragma once

#include "ai/prompt.hpp"
#include "base/error.hpp"
#include "service/repositories.hpp"

#include <atomic>
#include <memory>
#include <string>
#include <vector>

namespace heal {

class RepositoryDesk;

struct CodeAt {
    std::string revision;                   ///< the commit
    std::vector<ai::CodeExcerpt> excerpts;  ///< innermost frame first
};

/// @thread any; calls for one repository wait for each other
class CodeReader {
public:
    virtual ~CodeReader() = default;
    /// @param revision   release, tag or commit; "" or one that is not known: the head of the branch
    /// @param max_bytes  of all excerpts together
    /// errc::unavailable, errc::denied, errc::not_found as of vcs::open_repository; errc::cancelled. No frame
    /// in the repository: no excerpts.
    virtual result<CodeAt> read(
        const RepositorySettings& repository,
        const std::string& revision,
        const std::string& stack_trace,
        std::size_t max_bytes,
        const std::atomic<bool>& cancel
    ) = 0;
};

/// @param desk  outlives it
std::unique_ptr<CodeReader> create_code_reader(RepositoryDesk& desk);

}  // namespace heal
