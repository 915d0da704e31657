// A strategy's file, read once and kept apart from the disk: checked for owner and rights, copied into a sealed memory file, hashed.
#pragma once

#include "base/error.hpp"
#include "runner/child_process.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace heal {

struct ArtifactFile {
    std::string path, kind, build;  ///< kind "so" or "lua"; build: SHA-256, hex
    SharedFd content;               ///< sealed against every change
};

/// errc::denied (owner, rights, no regular file), errc::not_found, errc::invalid_input (empty, too large), errc::io. Each text says
/// what to do. At most 64 MiB for a library, 1 MiB for a script.
result<ArtifactFile> read_artifact(const std::string& path);

/// *.lua of a folder as {"name": source}, what scripts may require. Files that are not in order are left out and named in `ret_refused`.
/// At most 64 files of 256 KiB and 768 KiB in all (they travel in one frame).
json::object read_libraries(const std::string& folder, std::vector<std::string>& ret_refused);

/// Whether a file of that name is looked at: *.so, or *.lua for scripts, not hidden, no editor's annotations (*.d.lua).
bool is_artifact_name(std::string_view name, bool script);

/// *.so in `plugins` and *.lua in `scripts`, sorted; hidden files and folders are left out. At most 1000.
std::vector<std::string> find_artifacts(const std::string& plugins, const std::string& scripts);

}  // namespace heal
