#include "runner/watcher.hpp"

#include "base/log.hpp"

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>

namespace heal {
namespace {

namespace asio = boost::asio;
using Clock_ = std::chrono::steady_clock;

class InotifyWatcher final : public Watcher {
public:
    InotifyWatcher(asio::io_context& context, std::vector<std::string> folders, std::chrono::milliseconds settle, std::function<void(const std::string&)> changed)
        : settle_(settle), changed_(std::move(changed)), descriptor_(context), timer_(context), poll_(context) {
        for (std::string& folder : folders) {
            if (!folder.empty()) folders_.push_back({std::move(folder), -1});
        }
        const int fd = ::inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (fd >= 0) descriptor_.assign(fd);
        else log::warn("cannot watch folders ({}); they are looked through every two seconds instead", std::strerror(errno));
        add_missing();
        if (fd >= 0) wait();
        arm_poll();
    }

    void refresh() override {
        add_missing();
        changed_("");
    }

private:
    struct Folder {
        std::string path;
        int watch;
    };
    struct Pending {
        Clock_::time_point due;
        bool open = false;  ///< modified and not yet closed
        Clock_::time_point since;
    };

    bool add_missing() {
        bool added = false;
        for (Folder& folder : folders_) {
            if (folder.watch >= 0 || !descriptor_.is_open()) continue;
            folder.watch = ::inotify_add_watch(descriptor_.native_handle(), folder.path.c_str(),
                IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR);
            added = added || folder.watch >= 0;
        }
        return added;
    }

    // Folders that appear later, and the whole work when there is no inotify.
    void arm_poll() {
        const bool blind = !descriptor_.is_open();
        poll_.expires_after(blind ? std::chrono::milliseconds{2'000} : std::chrono::milliseconds{250});
        poll_.async_wait([this, blind](boost::system::error_code ec) {
            if (ec) return;
            const bool missing = std::any_of(folders_.begin(), folders_.end(), [](const Folder& f) { return f.watch < 0; });
            if (blind || (missing && add_missing())) changed_("");
            arm_poll();
        });
    }

    void wait() {
        descriptor_.async_wait(asio::posix::stream_descriptor::wait_read, [this](boost::system::error_code ec) {
            if (ec) return;
            read();
            wait();
        });
    }

    void read() {
        alignas(inotify_event) std::array<char, 16384> buffer{};
        for (int turn = 0; turn < 64; ++turn) {
            const auto n = ::read(descriptor_.native_handle(), buffer.data(), buffer.size());
            if (n <= 0) break;
            for (std::size_t at = 0; at < static_cast<std::size_t>(n);) {
                inotify_event event{};
                std::memcpy(&event, buffer.data() + at, sizeof event);
                note(event, event.len > 0 ? std::string{buffer.data() + at + sizeof event} : std::string{});
                at += sizeof event + event.len;
            }
        }
        arm_timer();
    }

    void note(const inotify_event& event, const std::string& name) {
        if ((event.mask & IN_Q_OVERFLOW) != 0) {
            pending_[""] = {Clock_::now() + settle_, false, Clock_::now()};
            return;
        }
        const auto folder = std::find_if(folders_.begin(), folders_.end(), [&](const Folder& f) { return f.watch == event.wd; });
        if (folder == folders_.end()) return;
        if ((event.mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED)) != 0) {
            if ((event.mask & IN_MOVE_SELF) != 0) ::inotify_rm_watch(descriptor_.native_handle(), folder->watch);
            folder->watch = -1;
            pending_[""] = {Clock_::now() + settle_, false, Clock_::now()};
            return;
        }
        if (name.empty()) return;
        const std::string path = folder->path + "/" + name;
        auto [at, fresh] = pending_.try_emplace(path);
        if (fresh) at->second.since = Clock_::now();
        at->second.due = Clock_::now() + settle_;
        if ((event.mask & IN_MODIFY) != 0) at->second.open = true;
        if ((event.mask & (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE)) != 0) at->second.open = false;
        if (pending_.size() > 4096) {
            pending_.clear();
            pending_[""] = {Clock_::now() + settle_, false, Clock_::now()};
        }
    }

    void arm_timer() {
        if (pending_.empty()) return;
        auto next = Clock_::time_point::max();
        for (const auto& [path, p] : pending_) next = std::min(next, p.open ? p.since + std::chrono::seconds{60} : p.due);
        timer_.expires_at(std::max(next, Clock_::now()));
        timer_.async_wait([this](boost::system::error_code ec) {
            if (ec) return;
            std::vector<std::string> due;
            const auto now = Clock_::now();
            for (auto at = pending_.begin(); at != pending_.end();) {
                // Still open after a minute: look at it anyway, what is wrong with it will be said.
                if (at->second.open ? now >= at->second.since + std::chrono::seconds{60} : now >= at->second.due) {
                    due.push_back(at->first);
                    at = pending_.erase(at);
                } else {
                    ++at;
                }
            }
            for (const std::string& path : due) changed_(path);
            arm_timer();
        });
    }

    std::chrono::milliseconds settle_;
    std::function<void(const std::string&)> changed_;
    std::vector<Folder> folders_;
    std::map<std::string, Pending> pending_;
    asio::posix::stream_descriptor descriptor_;
    asio::steady_timer timer_, poll_;
};

}  // namespace

std::unique_ptr<Watcher> create_watcher(
    asio::io_context& context, std::vector<std::string> folders, std::chrono::milliseconds settle, std::function<void(const std::string& path)> changed
) {
    return std::make_unique<InotifyWatcher>(context, std::move(folders), settle, std::move(changed));
}

}  // namespace heal
