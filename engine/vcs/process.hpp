// One child program from its start to its end: started without fork, read without a deadlock, ended by
// deadline or cancel. What git and the sandbox are run by. It deliberately confines nothing.
#pragma once

#include "base/error.hpp"

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace heal::vcs {

/// Keeps the first and the last bytes of what is put in.
class BoundedText {
public:
    /// @param first, last  bytes kept of the beginning and of the end
    BoundedText(std::size_t first, std::size_t last) : first_(first), last_(last) {}
    void append(std::string_view bytes);
    bool cut() const { return dropped_ > 0; }
    /// With a line that says how much is missing, when it is.
    std::string text() const;

private:
    std::size_t first_, last_, dropped_ = 0;
    std::string head_, tail_;
};

struct Program {
    std::vector<std::string> argv;  ///< argv[0] is a path
    std::vector<std::string> env;   ///< "NAME=value", all of it
    std::string folder = "/";
    std::chrono::milliseconds timeout{60'000};
    bool one_output = false;                               ///< standard error goes where standard output goes
    std::size_t first_bytes = 16U << 20U, last_bytes = 0;  ///< kept of standard output
    int control_group = -1;                                ///< as in Launch
    int nice = 0;  ///< of the process and of its session (sched(7), autogroup)
    /// Called twenty times a second with the child's pid; "" or why it has to end.
    std::function<std::string(pid_t)> watch;
};

struct ProgramEnd {
    int exit_code = -1;  ///< -1: ended by `signal`
    int signal = 0;
    bool timed_out = false, cancelled = false, cut = false;
    std::string stopped;  ///< what `watch` said
    std::string out, error;
    std::chrono::milliseconds took{0};
};

/// Blocking. The child and all of its session are gone afterwards. @thread any
/// errc::not_found the program or folder; errc::io.
result<ProgramEnd> run_program(const Program& what, const std::atomic<bool>& cancel);

/// The path of a program by PATH, or "" when there is none. A name with a slash is taken as it is, relative
/// ones from `folder`.
std::string find_program(std::string_view name, std::string_view path, std::string_view folder = {});

constexpr std::string_view usual_path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

}  // namespace heal::vcs
