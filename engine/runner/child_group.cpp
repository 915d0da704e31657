#include "runner/child_group.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>

namespace heal {
namespace {

namespace fs = std::filesystem;
constexpr const char* prefix = "heald-host-";

bool put(const std::string& file, std::string_view text) noexcept {
    const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const bool done = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    ::close(fd);
    return done;
}

/// The kernel lets go of a killed process a moment later (cgroups(7)); a host is reaped by then.
bool take_away(const std::string& path) noexcept {
    put(path + "/cgroup.kill", "1");
    return ::rmdir(path.c_str()) == 0 || errno != EBUSY;
}

void take_away_soon(const std::string& path) noexcept {
    for (int i = 0; i < 20 && !take_away(path); ++i) ::usleep(500);
}

/// Where heald's own group lies in the file system; "" when there is no cgroup v2 or it may not be written.
std::string own_group() {
    std::string mount, own, line;
    std::ifstream mounts{"/proc/self/mountinfo"}, groups{"/proc/self/cgroup"};
    while (std::getline(mounts, line)) {
        // 41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw: root and mount point are fields 4 and 5
        // (proc(5)).
        if (line.find(" - cgroup2 ") == std::string::npos) continue;
        std::size_t at = 0;
        for (int field = 0; field < 4; ++field) at = line.find(' ', at) + 1;
        mount = line.substr(at, line.find(' ', at) - at);
    }
    while (std::getline(groups, line)) {
        if (line.rfind("0::", 0) == 0) own = line.substr(3);
    }
    if (mount.empty() || own.empty()) return {};
    std::string path = mount + (own == "/" ? "" : own);
    if (::access((path + "/cgroup.procs").c_str(), W_OK) != 0 || ::access(path.c_str(), W_OK) != 0) return {};
    // What a heald that was killed left behind.
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator{path, ignored}) {
        const std::string name = entry.path().filename();
        pid_t owner = 0;
        if (name.rfind(prefix, 0) != 0) continue;
        const char* from = name.data() + std::string_view{prefix}.size();
        std::from_chars(from, name.data() + name.size(), owner);
        if (owner > 0 && owner != ::getpid() && ::kill(owner, 0) != 0 && errno == ESRCH)
            take_away_soon(entry.path());
    }
    return path;
}

}  // namespace

ChildGroup ChildGroup::make() {
    static const std::string parent = own_group();
    static std::atomic<unsigned> count{0};
    ChildGroup group;
    if (parent.empty()) return group;
    std::string path = fmt::format("{}/{}{}-{}", parent, prefix, ::getpid(), ++count);
    if (::mkdir(path.c_str(), 0755) == 0) group.path_ = std::move(path);
    return group;
}

int ChildGroup::open() const noexcept {
    return path_.empty() ? -1 : ::open(path_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
}

void ChildGroup::kill() const noexcept {
    if (!path_.empty()) put(path_ + "/cgroup.kill", "1");
}

bool ChildGroup::try_end() noexcept {
    if (!path_.empty() && !take_away(path_)) return false;
    path_.clear();
    return true;
}

void ChildGroup::end() noexcept {
    if (!path_.empty()) take_away_soon(path_);
    path_.clear();
}

}  // namespace heal
