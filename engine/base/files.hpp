// The file system as heald's own state uses it (not the tailed logs, not the effects of strategies). Seam of
// D11: tests put a failing or power-losing one in its place.
#pragma once

#include "base/error.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace heal {

class Files {
public:
    virtual ~Files() = default;
    /// Whole content. errc::not_found, errc::io; errc::invalid_input when larger than `max_bytes`.
    virtual result<std::string> read(const std::string& path, std::size_t max_bytes = 16U << 20U) const = 0;
    /// Temporary file beside it, fsync, rename, fsync of the folder: afterwards the old or the new content is
    /// there, whole.
    virtual result<void> write_atomic(
        const std::string& path, std::string_view content, unsigned mode = 0600
    ) = 0;
    /// Creates the folder and its parents with mode 0700 where missing.
    virtual result<void> make_folder(const std::string& path) = 0;
    virtual result<void> remove(const std::string& path) = 0;
    /// Names (not paths) of the regular files in a folder, sorted.
    virtual result<std::vector<std::string>> list(const std::string& folder) const = 0;
    virtual bool exists(const std::string& path) const = 0;
};

class SystemFiles final : public Files {
public:
    result<std::string> read(const std::string& path, std::size_t max_bytes) const override;
    result<void> write_atomic(const std::string& path, std::string_view content, unsigned mode) override;
    result<void> make_folder(const std::string& path) override;
    result<void> remove(const std::string& path) override;
    result<std::vector<std::string>> list(const std::string& folder) const override;
    bool exists(const std::string& path) const override;
};

}  // namespace heal
