#include "runner/artifact_file.hpp"

#include "base/files.hpp"
#include "base/id.hpp"

#include <fmt/format.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace heal {
namespace {

constexpr std::size_t max_library_bytes = 64U << 20U, max_script_bytes = 1U << 20U;

bool ends_with(std::string_view text, std::string_view tail) { return text.size() > tail.size() && text.substr(text.size() - tail.size()) == tail; }

// As sshd's StrictModes: who could change it could run code with our rights.
result<void> check_owner(const struct stat& info, const std::string& what) {
    if (info.st_uid != 0 && info.st_uid != ::geteuid()) {
        return fail(errc::denied, fmt::format("{} belongs to user {}, which is neither root nor heald's; run: chown {} {}", what, info.st_uid, ::geteuid(), what));
    }
    if ((info.st_mode & S_IWOTH) != 0 || ((info.st_mode & S_IWGRP) != 0 && info.st_gid != 0 && info.st_gid != ::getegid())) {
        return fail(errc::denied, fmt::format("{} can be written by others (mode {:o}); run: chmod go-w {}", what, info.st_mode & 07777U, what));
    }
    return {};
}

result<std::string> read_checked(const std::string& path, std::size_t limit) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        if (errno == ENOENT) return fail(errc::not_found, path + " does not exist");
        return fail_errno("cannot open " + path, errno);
    }
    const SharedFd owner{fd};
    struct stat info {};
    if (::fstat(fd, &info) != 0) return fail_errno("cannot look at " + path, errno);
    if (!S_ISREG(info.st_mode)) return fail(errc::denied, fmt::format("{} is no regular file; put the file itself there", path));
    HEAL_TRY(check_owner(info, path));
    const auto slash = path.find_last_of('/');
    const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
    struct stat around {};
    // A sticky folder (like /tmp) keeps others from replacing what is not theirs.
    if (::stat(folder.c_str(), &around) == 0 && (around.st_mode & S_ISVTX) == 0) HEAL_TRY(check_owner(around, folder));
    if (info.st_size == 0) return fail(errc::invalid_input, fmt::format("{} is empty; put it there by rename (cp to another name, then mv)", path));
    if (static_cast<std::size_t>(info.st_size) > limit) return fail(errc::invalid_input, fmt::format("{} has {} bytes; {} are allowed", path, info.st_size, limit));
    std::string content;
    content.reserve(static_cast<std::size_t>(info.st_size));
    std::array<char, 65536> buffer{};
    for (;;) {
        const auto n = ::read(fd, buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno("cannot read " + path, errno);
        if (n == 0) return content;
        if (content.size() + static_cast<std::size_t>(n) > limit) return fail(errc::invalid_input, fmt::format("{} has more than {} bytes", path, limit));
        content.append(buffer.data(), static_cast<std::size_t>(n));
    }
}

}  // namespace

result<ArtifactFile> read_artifact(const std::string& path) {
    ArtifactFile out;
    out.path = path;
    out.kind = ends_with(path, ".lua") ? "lua" : "so";
    auto content = read_checked(path, out.kind == "lua" ? max_script_bytes : max_library_bytes);
    if (!content) return std::move(content).error();
    out.build = sha256_hex(*content);
    const int fd = ::memfd_create("heal-artifact", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return fail_errno("cannot make a memory file", errno);
    out.content = SharedFd{fd};
    std::string_view rest{*content};
    while (!rest.empty()) {
        const auto n = ::write(fd, rest.data(), rest.size());
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return fail_errno("cannot fill a memory file", errno);
        rest.remove_prefix(static_cast<std::size_t>(n));
    }
    if (::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0) return fail_errno("cannot seal a memory file", errno);
    return out;
}

json::object read_libraries(const std::string& folder, std::vector<std::string>& ret_refused) {
    json::object out;
    if (folder.empty()) return out;
    const auto names = SystemFiles{}.list(folder);
    if (!names) return out;
    std::size_t total = 0;
    for (const std::string& name : *names) {
        if (!ends_with(name, ".lua") || name[0] == '.' || out.size() >= 64) continue;
        auto source = read_checked(folder + "/" + name, 256U << 10U);
        if (source && total + source->size() > (768U << 10U)) source = fail(errc::invalid_input, fmt::format("{}/{}: more than 768 KiB of libraries in all", folder, name));
        if (!source) {
            ret_refused.push_back(source.error().text);
            continue;
        }
        total += source->size();
        out[name.substr(0, name.size() - 4)] = to_valid_utf8(*source);
    }
    return out;
}

bool is_artifact_name(std::string_view name, bool script) {
    if (name.empty() || name[0] == '.') return false;
    return script ? ends_with(name, ".lua") && !ends_with(name, ".d.lua") : ends_with(name, ".so");
}

std::vector<std::string> find_artifacts(const std::string& plugins, const std::string& scripts) {
    std::vector<std::string> out;
    for (const bool script : {false, true}) {
        const std::string& folder = script ? scripts : plugins;
        if (folder.empty()) continue;
        const auto names = SystemFiles{}.list(folder);
        if (!names) continue;
        for (const std::string& name : *names) {
            if (is_artifact_name(name, script) && out.size() < 1000) out.push_back(folder + "/" + name);
        }
    }
    std::sort(out.begin(), out.end());
    return out;
}

}  // namespace heal
