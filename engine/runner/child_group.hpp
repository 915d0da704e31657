// A control group (cgroup v2) for one strategy host, where heald may make one: below its own group, when the
// kernel's tree is writable for it (root, or a service with Delegate=yes). The host and whatever it may have
// started die with the group, by one word to the kernel and whatever they did to their process groups.
// Nowhere else anything is lost: seccomp, the process group and the parent-death signal hold without it.
//
// Threads: one owner at a time.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>

namespace heal {

class ChildGroup {
public:
    ChildGroup() = default;
    ChildGroup(ChildGroup&& other) noexcept : path_(std::exchange(other.path_, {})) {}
    ChildGroup& operator=(ChildGroup&& other) noexcept {
        end();
        path_ = std::exchange(other.path_, {});
        return *this;
    }
    ~ChildGroup() { end(); }

    /// A group with `pid` in it; one without a path where there can be none.
    static ChildGroup with(pid_t pid);
    /// Kills all of it.
    void kill() const noexcept;
    /// Kills what is left and takes the group away; one that is still busy goes at the next start of heald.
    void end() noexcept;
    const std::string& path() const { return path_; }

private:
    std::string path_;
};

}  // namespace heal
