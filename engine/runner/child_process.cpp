#include "runner/child_process.hpp"

#include "base/faults.hpp"
#include "base/launch.hpp"
#include "wire/messages.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace heal {
namespace {

namespace asio = boost::asio;
constexpr std::size_t kept_bytes = 64U << 10U, max_waiting_bytes = 4U << 20U;
constexpr int wire_fd = 3, artifact_fd = 4;

struct Fd {
    int value = -1;
    explicit Fd(int v) : value(v) {}
    Fd(const Fd&) = delete;
    Fd& operator=(const Fd&) = delete;
    ~Fd() {
        if (value >= 0) ::close(value);
    }
    int release() { return std::exchange(value, -1); }
};

}  // namespace

SharedFd::SharedFd(int fd)
    : fd_(new int{fd}, [](const int* p) {
          if (*p >= 0) ::close(*p);
          delete p;
      }) {}

std::string ChildExit::words() const {
    if (by_signal) return fmt::format("was killed by signal {} ({})", code, ::strsignal(code));
    return fmt::format("ended with exit code {}", code);
}

result<std::shared_ptr<ChildProcess>> ChildProcess::spawn(
    asio::io_context& context,
    const std::string& binary,
    const std::vector<std::string>& arguments,
    const SharedFd& artifact,
    bool grouped,
    Callbacks callbacks
) {
    std::array<int, 2> sockets{}, pipes{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0)
        return fail_errno("cannot make a socket pair", errno);
    Fd ours{sockets[0]}, theirs{sockets[1]};
    if (::pipe2(pipes.data(), O_CLOEXEC) != 0) return fail_errno("cannot make a pipe", errno);
    Fd read_end{pipes[0]}, write_end{pipes[1]};
    ::fcntl(ours.value, F_SETFL, O_NONBLOCK);
    ::fcntl(read_end.value, F_SETFL, O_NONBLOCK);
    // Sources above every target, so that no dup2 overwrites one that is still needed.
    const Fd high_socket{::fcntl(theirs.value, F_DUPFD_CLOEXEC, 16)},
        high_output{::fcntl(write_end.value, F_DUPFD_CLOEXEC, 16)};
    const Fd null{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
    const Fd high_null{::fcntl(null.value, F_DUPFD_CLOEXEC, 16)};
    const Fd high_artifact{artifact.get() >= 0 ? ::fcntl(artifact.get(), F_DUPFD_CLOEXEC, 16) : -1};
    if (high_socket.value < 0 || high_output.value < 0 || high_null.value < 0 ||
        (artifact.get() >= 0 && high_artifact.value < 0))
        return fail_errno("cannot duplicate a descriptor", errno);

    std::vector<std::string> words{binary};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    std::vector<std::string> environment{
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"};
#if defined(__SANITIZE_ADDRESS__)
    // The leak check at exit needs ptrace, which the child gave up.
    environment.emplace_back("ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1");
#endif
    std::vector<char*> envp;
    for (std::string& word : environment) envp.push_back(word.data());
    envp.push_back(nullptr);
    Launch what;
    what.argv = argv.data();
    what.env = envp.data();
    what.descriptors = {
        {high_null.value, 0}, {high_output.value, 1}, {high_output.value, 2}, {high_socket.value, wire_fd}};
    if (high_artifact.value >= 0) what.descriptors.emplace_back(high_artifact.value, artifact_fd);
    what.close_from = high_artifact.value >= 0 ? artifact_fd + 1 : wire_fd + 1;
    ChildGroup group;
    if (grouped) group = ChildGroup::make();
    const Fd group_folder{group.open()};
    what.control_group = group_folder.value;
    faults::pass("spawn.before");
    pid_t pid = launch(what);
    if (pid < 0 && what.control_group >= 0) {
        // Not all kernels, containers and trees let a child begin in a group: then there is none.
        group.end();
        what.control_group = -1;
        pid = launch(what);
    }
    const int error = errno;
    faults::pass("spawn.after");
    if (pid < 0) return fail_errno(fmt::format("cannot start {}", binary), error);
    const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
    if (pidfd < 0) {
        const int reason = errno;
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
        return fail_errno("cannot watch a child (pidfd_open, Linux 5.3 or newer is needed)", reason);
    }
    ::fcntl(pidfd, F_SETFD, FD_CLOEXEC);
    std::shared_ptr<ChildProcess> child{
        new ChildProcess{context, pid, ours.release(), read_end.release(), pidfd, std::move(callbacks)}};
    child->group_ = std::move(group);
    child->begin();
    return child;
}

ChildProcess::ChildProcess(
    asio::io_context& context, pid_t pid, int socket, int output, int pidfd, Callbacks callbacks
)
    : context_(context),
      pid_(pid),
      socket_(context, socket),
      output_(context, output),
      pidfd_(context, pidfd),
      pause_(context),
      callbacks_(std::move(callbacks)) {}

ChildProcess::~ChildProcess() {
    if (reaped_) return;
    ::kill(-pid_, SIGKILL);
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
}

void ChildProcess::begin() {
    wait_socket();
    wait_output();
    wait_end();
}

void ChildProcess::wait_socket() {
    socket_.async_wait(
        asio::posix::stream_descriptor::wait_read,
        [self = shared_from_this()](boost::system::error_code ec) {
            if (!ec && !self->reaped_) {
                self->read_socket();
                if (!self->broken_ && self->socket_.is_open()) self->wait_socket();
            }
        }
    );
}

// One turn reads a bounded amount, so that a child that floods its socket only gets its share of the loop.
void ChildProcess::read_socket() {
    std::array<char, 65536> buffer{};
    for (int turn = 0; turn < 4 && !broken_ && socket_.is_open(); ++turn) {
        const auto n = ::recv(socket_.native_handle(), buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) return fail_connection(closed_words);
        reader_.append({buffer.data(), static_cast<std::size_t>(n)});
        for (;;) {
            std::string_view text;
            const auto whole = reader_.next(text);
            if (!whole) return fail_connection("broke the protocol: " + whole.error().text);
            if (!*whole) break;
            auto parsed = parse_message(text);
            if (!parsed) return fail_connection("broke the protocol: " + parsed.error().text);
            if (callbacks_.message) callbacks_.message(std::move(*parsed));
            if (broken_ || !socket_.is_open()) return;
        }
        if (static_cast<std::size_t>(n) < buffer.size()) return;
    }
}

void ChildProcess::fail_connection(const std::string& why) {
    if (std::exchange(broken_, true)) return;
    boost::system::error_code ignored;
    socket_.close(ignored);
    if (callbacks_.broken && !closing_) callbacks_.broken(why);
}

result<void> ChildProcess::send(const json::object& message) {
    if (broken_ || closing_ || !socket_.is_open())
        return fail(errc::unavailable, "the child's connection is closed");
    auto frame = to_frame(json::serialize(message));
    if (!frame) return fail(errc::overloaded, frame.error().text);
    std::string_view rest{*frame};
    if (faults::pass("send.before")) return fail(errc::unavailable, "a fault was asked for");
    if (outgoing_.empty()) {
        // Mostly it fits at once: no queue, no turn of the loop.
        const auto n = ::send(socket_.native_handle(), rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) rest.remove_prefix(static_cast<std::size_t>(n));
        if (rest.empty()) {
            faults::pass("send.after");
            return {};
        }
    }
    if (outgoing_.size() - sent_ + rest.size() > max_waiting_bytes)
        return fail(errc::overloaded, "the child does not read its messages");
    outgoing_.append(rest);
    write_socket();
    return {};
}

void ChildProcess::write_socket() {
    if (std::exchange(writing_, true)) return;
    socket_.async_wait(
        asio::posix::stream_descriptor::wait_write,
        [self = shared_from_this()](boost::system::error_code ec) {
            self->writing_ = false;
            if (ec || self->broken_ || !self->socket_.is_open()) return;
            const auto n = ::send(
                self->socket_.native_handle(),
                self->outgoing_.data() + self->sent_,
                self->outgoing_.size() - self->sent_,
                MSG_DONTWAIT | MSG_NOSIGNAL
            );
            if (n > 0) self->sent_ += static_cast<std::size_t>(n);
            if (self->sent_ == self->outgoing_.size()) {
                self->outgoing_.clear();
                self->sent_ = 0;
            } else {
                self->write_socket();
            }
        }
    );
}

bool ChildProcess::read_output(std::size_t budget) {
    std::array<char, 16384> buffer{};
    while (budget > 0) {
        const auto n = ::read(output_.native_handle(), buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 && errno == EAGAIN;
        kept_.append(buffer.data(), static_cast<std::size_t>(n));
        if (kept_.size() > 2 * kept_bytes) kept_.erase(0, kept_.size() - kept_bytes);
        budget -= std::min(budget, static_cast<std::size_t>(n));
    }
    return true;
}

void ChildProcess::wait_output() {
    output_.async_wait(
        asio::posix::stream_descriptor::wait_read,
        [self = shared_from_this()](boost::system::error_code ec) {
            if (ec || self->reaped_) return;
            if (!self->read_output(64U << 10U)) return;
            // A child that floods its output blocks on the pipe for a while: at most some 12 MB/s are read.
            self->pause_.expires_after(std::chrono::milliseconds{5});
            self->pause_.async_wait([self](boost::system::error_code again) {
                if (!again && !self->reaped_) self->wait_output();
            });
        }
    );
}

void ChildProcess::wait_end() {
    pidfd_.async_wait(
        asio::posix::stream_descriptor::wait_read,
        [self = shared_from_this()](boost::system::error_code ec) {
            if (!ec) self->finish();
        }
    );
}

void ChildProcess::finish() {
    int status = 0;
    const pid_t pid = ::waitpid(pid_, &status, WNOHANG);
    if (pid == 0) return wait_end();
    // What it said before it ended still counts.
    for (int i = 0; i < 256 && !broken_ && socket_.is_open(); ++i) read_socket();
    reaped_ = true;
    ::kill(-pid_, SIGKILL);  // whatever is left of its group
    if (output_.is_open()) read_output(256U << 10U);
    ChildExit exit;
    if (pid == pid_) {
        exit.by_signal = WIFSIGNALED(status);
        exit.code = exit.by_signal ? WTERMSIG(status) : WEXITSTATUS(status);
    }
    boost::system::error_code ignored;
    socket_.close(ignored);
    output_.close(ignored);
    pidfd_.close(ignored);
    pause_.cancel();
    leave_group(20);
    const auto ended = std::exchange(callbacks_, {}).ended;
    if (ended) ended(exit);
}

void ChildProcess::leave_group(int tries) {
    if (group_.try_end() || tries == 0) return;
    pause_.expires_after(std::chrono::milliseconds{1});
    pause_.async_wait([self = shared_from_this(), tries](boost::system::error_code) {
        self->leave_group(tries - 1);
    });
}

void ChildProcess::signal(int number) {
    if (reaped_) return;
    if (number == SIGKILL) group_.kill();
    ::kill(-pid_, number);
    ::kill(pid_, number);  // it may have left its group before its limits were set
}

void ChildProcess::close() {
    closing_ = true;
    boost::system::error_code ignored;
    if (socket_.is_open()) {
        ::shutdown(socket_.native_handle(), SHUT_RDWR);
        socket_.close(ignored);
    }
}

std::string ChildProcess::output() const {
    return to_valid_utf8(
        kept_.size() <= kept_bytes ? std::string_view{kept_}
                                   : std::string_view{kept_}.substr(kept_.size() - kept_bytes)
    );
}

}  // namespace heal
