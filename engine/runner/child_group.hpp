// A control group (cgroup v2) for one strategy host, where heald may make one: below its own group, when the
// kernel's tree is writable for it (root, or a service with Delegate=yes). The host and whatever it may have
// started die with the group, by one word to the kernel and whatever they did to their process groups.
// Nowhere else anything is lost: seccomp, the process group and the parent-death signal hold without it.
//
// Threads: one owner at a time.
#pragma once

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

    /// An empty group for a child to begin in; one without a path where there can be none.
    static ChildGroup make();
    /// A descriptor of its directory, O_CLOEXEC and the caller's; -1 without a path.
    int open() const noexcept;
    /// Kills all of it.
    void kill() const noexcept;
    /// Kills what is left and takes the group away. False: the kernel has not yet let go of what was killed;
    /// try again a moment later.
    bool try_end() noexcept;
    /// The same, waiting up to 10 ms; a group that is busy even then goes at the next start of heald.
    void end() noexcept;
    const std::string& path() const { return path_; }

private:
    std::string path_;
};

}  // namespace heal
