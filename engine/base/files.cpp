#include "base/files.hpp"

#include "base/faults.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>

namespace heal {
namespace {

struct Descriptor {
    explicit Descriptor(int value) : fd(value) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (fd >= 0) ::close(fd);
    }
    int fd;
};

}  // namespace

result<std::string> SystemFiles::read(const std::string& path, std::size_t max_bytes) const {
    const Descriptor in{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (in.fd < 0) {
        if (errno == ENOENT) return fail(errc::not_found, fmt::format("{} does not exist", path));
        return fail_errno(fmt::format("cannot open {}", path), errno);
    }
    std::string content;
    char buffer[65536];
    for (;;) {
        const auto n = ::read(in.fd, buffer, sizeof buffer);
        if (n == 0) return content;
        if (n < 0) {
            if (errno == EINTR) continue;
            return fail_errno(fmt::format("cannot read {}", path), errno);
        }
        if (content.size() + static_cast<std::size_t>(n) > max_bytes) {
            return fail(errc::invalid_input, fmt::format("{} is larger than {} bytes", path, max_bytes));
        }
        content.append(buffer, static_cast<std::size_t>(n));
    }
}

result<void> SystemFiles::write_atomic(const std::string& path, std::string_view content, unsigned mode) {
    // Threads may write the same file at the same time.
    static std::atomic<unsigned> count{0};
    const std::string temporary = fmt::format("{}.{}.{}.tmp", path, ::getpid(), ++count);
    {
        const Descriptor out{
            ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode)};
        if (out.fd < 0) return fail_errno(fmt::format("cannot create {}", temporary), errno);
        while (!content.empty()) {
            const auto n = ::write(out.fd, content.data(), content.size());
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) {
                const int error = errno;
                ::unlink(temporary.c_str());
                return fail_errno(fmt::format("cannot write {}", temporary), error);
            }
            content.remove_prefix(static_cast<std::size_t>(n));
        }
        if (faults::pass("fsync.before") || ::fsync(out.fd) != 0) {
            const int error = errno;
            ::unlink(temporary.c_str());
            return fail_errno(fmt::format("cannot sync {}", temporary), error);
        }
    }
    if (::rename(temporary.c_str(), path.c_str()) != 0) {
        const int error = errno;
        ::unlink(temporary.c_str());
        return fail_errno(fmt::format("cannot rename {} to {}", temporary, path), error);
    }
    faults::pass("fsync.renamed");
    const auto folder = std::filesystem::path{path}.parent_path();
    const Descriptor parent{
        ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (parent.fd >= 0 && ::fsync(parent.fd) != 0)
        return fail_errno(fmt::format("cannot sync {}", folder.string()), errno);
    return {};
}

result<void> SystemFiles::make_folder(const std::string& path) {
    std::filesystem::path built;
    for (const auto& part : std::filesystem::path{path}) {
        built /= part;
        if (built.empty() || ::mkdir(built.c_str(), 0700) == 0 || errno == EEXIST) continue;
        return fail_errno(fmt::format("cannot create the folder {}", built.string()), errno);
    }
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
        return fail(errc::io, fmt::format("{} is not a folder", path));
    }
    return {};
}

result<void> SystemFiles::remove(const std::string& path) {
    if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
    return fail_errno(fmt::format("cannot remove {}", path), errno);
}

result<std::vector<std::string>> SystemFiles::list(const std::string& folder) const {
    std::error_code ec;
    std::vector<std::string> names;
    for (std::filesystem::directory_iterator it{folder, ec}, end; !ec && it != end; it.increment(ec)) {
        std::error_code ignored;
        if (it->is_regular_file(ignored)) names.push_back(it->path().filename().string());
    }
    if (ec) return fail(errc::io, fmt::format("cannot list {}: {}", folder, ec.message()));
    std::sort(names.begin(), names.end());
    return names;
}

bool SystemFiles::exists(const std::string& path) const { return ::access(path.c_str(), F_OK) == 0; }

}  // namespace heal
