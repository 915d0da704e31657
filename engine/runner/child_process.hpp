// One heal-host child: spawned with its descriptors, limits as arguments, nothing inherited; its messages,
// output and end come as callbacks. It knows no strategy and no deadline (core/supervisor_machine.hpp does).
//
// Threads: that of the io_context.
#pragma once

#include "base/error.hpp"
#include "base/json.hpp"
#include "runner/child_group.hpp"
#include "wire/frame.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace heal {

/// A descriptor that is closed with its last owner.
class SharedFd {
public:
    SharedFd() = default;
    explicit SharedFd(int fd);
    int get() const { return fd_ ? *fd_ : -1; }

private:
    std::shared_ptr<int> fd_;
};

struct ChildExit {
    bool by_signal = false;
    int code = 0;               ///< exit code or signal number
    std::string words() const;  ///< "was killed by signal 11 (Segmentation fault)", "ended with exit code 0"
};

/// What `broken` says of a plain end of file.
constexpr const char* closed_words = "closed its connection";

class ChildProcess : public std::enable_shared_from_this<ChildProcess> {
public:
    struct Callbacks {
        std::function<void(json::object)> message;
        std::function<void(std::string)>
            broken;  ///< once: connection closed or protocol broken, and how; the child may live on
        std::function<void(ChildExit)> ended;  ///< once, last: it is reaped, its output is complete
    };

    /// `arguments` without argv[0]; `artifact` becomes descriptor 4 when open. `grouped`: in a control group
    /// of its own where there can be one (not for who starts services, which outlive it). errc::io.
    static result<std::shared_ptr<ChildProcess>> spawn(
        boost::asio::io_context& context,
        const std::string& binary,
        const std::vector<std::string>& arguments,
        const SharedFd& artifact,
        bool grouped,
        Callbacks callbacks
    );
    ~ChildProcess();
    ChildProcess(const ChildProcess&) = delete;
    ChildProcess& operator=(const ChildProcess&) = delete;

    /// Queues a message; errc::overloaded when it is larger than a frame, or more than 4 MiB wait because the
    /// child doesn't read.
    result<void> send(const json::object& message);
    /// To the child's process group.
    void signal(int number);
    /// Closes the connection; a child that is in order ends then.
    void close();
    pid_t pid() const { return pid_; }
    const ChildGroup& group() const { return group_; }
    /// Last 64 KiB of stdout and stderr.
    std::string output() const;
    /// No callback is called any more.
    void forget() { callbacks_ = {}; }

private:
    ChildProcess(
        boost::asio::io_context& context, pid_t pid, int socket, int output, int pidfd, Callbacks callbacks
    );
    void begin();
    void wait_socket();
    void read_socket();
    void write_socket();
    void wait_output();
    bool read_output(std::size_t budget);
    void wait_end();
    void finish();
    void leave_group(int tries);
    void fail_connection(const std::string& why);

    boost::asio::io_context& context_;
    pid_t pid_;
    boost::asio::posix::stream_descriptor socket_, output_, pidfd_;
    boost::asio::steady_timer pause_;
    ChildGroup group_;
    Callbacks callbacks_;
    FrameReader reader_;
    std::string outgoing_;
    std::size_t sent_ = 0;
    bool writing_ = false, reaped_ = false, broken_ = false, closing_ = false;
    std::string kept_;  // at most twice 64 KiB
};

}  // namespace heal
