// Tells when files of some folders changed. Events of one file are gathered until it was quiet for a while and nobody has it open for
// writing any more; so a file that is being copied is reported once, whole. Folders that don't exist yet are waited for.
#pragma once

#include <boost/asio/io_context.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace heal {

class Watcher {
public:
    virtual ~Watcher() = default;
    /// Looks anew which folders exist, and reports everything as changed.
    virtual void refresh() = 0;
};

/// @param changed  called with the path of a file that was written, replaced, removed or got other rights; "" for "look everywhere"
/// Without inotify (limit reached) it reports "" every two seconds instead. @thread the io_context's
std::unique_ptr<Watcher> create_watcher(
    boost::asio::io_context& context, std::vector<std::string> folders, std::chrono::milliseconds settle, std::function<void(const std::string& path)> changed
);

}  // namespace heal
