#include "service/prober.hpp"

#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <curl/curl.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string_view>

namespace heal {
namespace {

struct Look {
    bool ok = false;
    std::string source, text;
};

std::size_t collect(char* data, std::size_t size, std::size_t count, void* into) {
    auto& body = *static_cast<std::string*>(into);
    // 64 KiB is enough to look for a word; the rest is read and dropped.
    if (body.size() < (64U << 10U)) body.append(data, std::min(size * count, (64U << 10U) - body.size()));
    return size * count;
}

Look look_http(const ProbeSettings& probe) {
    Look look{false, "probe http " + probe.http, {}};
    const std::unique_ptr<CURL, void (*)(CURL*)> curl{::curl_easy_init(), ::curl_easy_cleanup};
    std::string body;
    char message[CURL_ERROR_SIZE] = "";
    ::curl_easy_setopt(curl.get(), CURLOPT_URL, probe.http.c_str());
    ::curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS, static_cast<long>(probe.timeout.count()));
    ::curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
    ::curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http,https");
    ::curl_easy_setopt(curl.get(), CURLOPT_PROXY, "");
    ::curl_easy_setopt(curl.get(), CURLOPT_USERAGENT, "heald/" HEAL_VERSION);
    ::curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, collect);
    ::curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &body);
    ::curl_easy_setopt(curl.get(), CURLOPT_ERRORBUFFER, message);
    if (const auto rc = ::curl_easy_perform(curl.get()); rc != CURLE_OK) {
        look.text = *message != '\0' ? message : ::curl_easy_strerror(rc);
        return look;
    }
    long status = 0;
    ::curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
    const bool status_ok = probe.status != 0 ? status == probe.status : status < 400;
    const bool body_ok = probe.contains.empty() || body.find(probe.contains) != std::string::npos;
    look.ok = status_ok && body_ok;
    look.text = fmt::format(
        "status {}{}", status, body_ok ? "" : fmt::format(", the body lacks '{}'", probe.contains)
    );
    return look;
}

Look look_tcp(const ProbeSettings& probe) {
    Look look{false, "probe tcp " + probe.tcp, {}};
    const auto colon = probe.tcp.rfind(':');
    std::string host = probe.tcp.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (const int rc = ::getaddrinfo(host.c_str(), probe.tcp.c_str() + colon + 1, &hints, &found); rc != 0) {
        look.text = ::gai_strerror(rc);
        return look;
    }
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses{found, ::freeaddrinfo};
    for (const addrinfo* a = found; a && !look.ok; a = a->ai_next) {
        const int fd = ::socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) continue;
        int error = ::connect(fd, a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
        if (error == EINPROGRESS) {
            pollfd wait{fd, POLLOUT, 0};
            socklen_t size = sizeof error;
            if (::poll(&wait, 1, static_cast<int>(probe.timeout.count())) <= 0)
                error = ETIMEDOUT;
            else
                ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
        }
        ::close(fd);
        look.ok = error == 0;
        look.text = look.ok ? "accepts connections" : std::string{std::strerror(error)};
    }
    return look;
}

Look look_command(const ProbeSettings& probe) {
    Look look{false, "probe command " + probe.command.front(), {}};
    std::vector<char*> argv;
    for (const auto& word : probe.command) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
    for (const int fd : {0, 1, 2})
        ::posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", fd == 0 ? O_RDONLY : O_WRONLY, 0);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
    sigset_t none;
    ::sigemptyset(&none);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    pid_t pid = 0;
    const int rc = ::posix_spawnp(&pid, argv[0], &actions, &attributes, argv.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
    if (rc != 0) {
        look.text = fmt::format("cannot start: {}", std::strerror(rc));
        return look;
    }
    const int handle = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
    pollfd wait{handle, POLLIN, 0};
    const bool ended = handle >= 0 && ::poll(&wait, 1, static_cast<int>(probe.timeout.count())) > 0;
    if (!ended) ::kill(-pid, SIGKILL);
    if (handle >= 0) ::close(handle);
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    look.ok = ended && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    look.text = !ended              ? fmt::format("did not end within {} ms", probe.timeout.count())
                : WIFEXITED(status) ? fmt::format("exit code {}", WEXITSTATUS(status))
                                    : fmt::format("signal {}", WTERMSIG(status));
    return look;
}

class PoolProber final : public Prober {
public:
    PoolProber() { ::curl_global_init(CURL_GLOBAL_DEFAULT); }
    ~PoolProber() override { pool_.join(); }

    boost::asio::awaitable<Evidence> check(std::vector<ProbeSettings> probes) override {
        if (probes.empty()) co_return Evidence{};
        struct Shared {
            std::vector<ProbeSettings> probes;
            std::vector<Look> looks;
            std::atomic<std::size_t> left;
        };
        auto shared = std::make_shared<Shared>();
        shared->looks.resize(probes.size());
        shared->left = probes.size();
        shared->probes = std::move(probes);
        auto executor = co_await boost::asio::this_coro::executor;
        co_await boost::asio::async_initiate<const boost::asio::use_awaitable_t<>, void()>(
            [&](auto handler) {
                auto done = std::make_shared<decltype(handler)>(std::move(handler));
                for (std::size_t i = 0; i < shared->probes.size(); ++i) {
                    boost::asio::post(pool_, [shared, done, executor, i] {
                        const auto& p = shared->probes[i];
                        shared->looks[i] = !p.http.empty()  ? look_http(p)
                                           : !p.tcp.empty() ? look_tcp(p)
                                                            : look_command(p);
                        if (shared->left.fetch_sub(1) == 1)
                            boost::asio::post(executor, [done] { std::move (*done)(); });
                    });
                }
            },
            boost::asio::use_awaitable
        );
        Evidence evidence;
        for (const auto& look : shared->looks) {
            (look.ok ? evidence.positive : evidence.negative) += 1;
            evidence.items.push_back(json::object{
                {"source", look.source}, {"ok", look.ok}, {"text", to_valid_utf8(look.text)}});
        }
        co_return evidence;
    }

private:
    boost::asio::thread_pool pool_{4};  // probes wait on others, hardly on the processor
};

}  // namespace

std::unique_ptr<Prober> create_prober() { return std::make_unique<PoolProber>(); }

}  // namespace heal
