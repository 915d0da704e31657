#include "host/serve.hpp"

#include "host/performer.hpp"
#include "wire/frame.hpp"
#include "wire/messages.hpp"

#include <heal/abi.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

namespace heal {
namespace {

// Set while a frame is written or an effect is waited for: the guard timer must not cut in there.
volatile sig_atomic_t busy = 0;

class Channel {
public:
    explicit Channel(int fd) : fd_(fd) {}

    /// @thread any
    void send(const json::object& message) {
        auto frame = to_frame(json::serialize(message));
        if (!frame) return;  // callers bound what they send
        const std::lock_guard lock{mutex_};
        const sig_atomic_t was = std::exchange(busy, 1);
        std::string_view rest{*frame};
        while (!rest.empty() && !closed_) {
            const auto n = ::send(fd_, rest.data(), rest.size(), MSG_NOSIGNAL);
            if (n > 0)
                rest.remove_prefix(static_cast<std::size_t>(n));
            else if (errno != EINTR)
                closed_ = true;
        }
        busy = was;
    }

    /// The next message; nothing at end of file, on a broken frame, or (without `wait`) when none is there.
    std::optional<json::object> next(bool wait) {
        for (;;) {
            std::string_view text;
            auto whole = reader_.next(text);
            if (!whole) closed_ = true;
            if (closed_) return std::nullopt;
            if (*whole) {
                auto parsed = parse_message(text);
                if (parsed) return std::move(*parsed);
                closed_ = true;
                return std::nullopt;
            }
            char buffer[65536];
            const auto n = ::recv(fd_, buffer, sizeof buffer, wait ? 0 : MSG_DONTWAIT);
            if (n > 0)
                reader_.append({buffer, static_cast<std::size_t>(n)});
            else if (n == 0 || (errno != EINTR && errno != EAGAIN))
                closed_ = true;
            else if (!wait && errno == EAGAIN)
                return std::nullopt;
        }
    }
    bool closed() const { return closed_; }
    int fd() const { return fd_; }

private:
    int fd_;
    bool closed_ = false;
    FrameReader reader_;
    std::mutex mutex_;
};

class WireContext final : public CallContext {
public:
    WireContext(Channel& channel, const Clock& clock, std::int64_t id, std::chrono::milliseconds timeout)
        : channel_(channel),
          clock_(clock),
          id_(id),
          deadline_(clock.steady() + timeout),
          owner_(std::this_thread::get_id()) {}

    bool is_cancelled() override {
        if (cancelled_) return true;
        const Duration now = clock_.steady();
        if (now >= deadline_) return cancelled_ = true;
        // A system call per millisecond is plenty for a cancel and little for a loop that asks each time.
        if (now - looked_ < std::chrono::milliseconds{1} || std::this_thread::get_id() != owner_)
            return false;
        looked_ = now;
        while (auto message = channel_.next(false)) note(*message);
        if (channel_.closed()) cancelled_ = true;
        return cancelled_;
    }

    std::chrono::milliseconds remaining() override {
        return std::max(
            std::chrono::milliseconds{0},
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - clock_.steady())
        );
    }

    EffectAnswer perform(std::string_view kind, json::object parameters) override {
        if (std::this_thread::get_id() != owner_)
            return {HEAL_INVALID, "effects must be asked for on the thread of the call", {}};
        if (kind == "progress") {
            const double fraction = double_at(parameters, "fraction", -1);
            if (!(fraction >= 0 && fraction <= 1))
                return {HEAL_INVALID, "progress.fraction: must be a number from 0 to 1", {}};
            send_log(Level::info, string_at(parameters, "message"), {}, fraction);
            return {HEAL_OK, "", {}};
        }
        json::object message{
            {"type", "effect"},
            {"id", id_},
            {"kind", to_valid_utf8(kind.substr(0, 64))},
            {"parameters", std::move(parameters)}};
        const sig_atomic_t was = std::exchange(busy, 1);
        channel_.send(message);
        EffectAnswer out{HEAL_CANCELLED, "the engine went away", {}};
        while (auto answer = channel_.next(true)) {
            if (string_at(*answer, "type") == "effect_result" && int_at(*answer, "id") == id_) {
                out = {
                    static_cast<std::int32_t>(int_at(*answer, "status", HEAL_FAILED)),
                    std::string{string_at(*answer, "error")},
                    object_at(*answer, "result")};
                break;
            }
            note(*answer);
        }
        busy = was;
        return out;
    }

    void log(Level level, std::string_view message, json::object fields) override {
        send_log(level, message, std::move(fields), -1);
    }

private:
    void note(const json::object& message) {
        if (string_at(message, "type") == "cancel" && int_at(message, "id") == id_) cancelled_ = true;
    }
    void send_log(Level level, std::string_view message, json::object fields, double progress) {
        if (++lines_ > 1000) return;  // convention of abi.h
        channel_.send(
            {{"type", "log"},
             {"id", id_},
             {"level", to_string(level)},
             {"message", message.substr(0, 4096)},
             {"fields", std::move(fields)},
             {"progress", progress}}
        );
    }

    Channel& channel_;
    const Clock& clock_;
    std::int64_t id_;
    Duration deadline_, looked_{0};
    std::thread::id owner_;
    std::atomic<bool> cancelled_{false};
    std::atomic<unsigned> lines_{0};
};

json::object reply_of(const CallReply& r) {
    json::object out{
        {"status", r.status},
        {"text", r.text},
        {"detail", r.detail},
        {"out_of_time", r.out_of_time},
        {"spent", r.spent}};
    // JSON has no word for NaN; the engine takes null for "not a confidence".
    if (r.confidence == r.confidence && r.confidence >= 0 && r.confidence <= 1)
        out["confidence"] = r.confidence;
    else
        out["confidence"] = nullptr;
    return out;
}

// ---- The guard timer: what it needs must be ready before it fires. ----

char guard_frame[512];
std::size_t guard_size = 0;
int guard_fd = -1;

void arm_guard(std::chrono::milliseconds span) {
    itimerval timer{};
    timer.it_value.tv_sec = span.count() / 1000;
    timer.it_value.tv_usec = static_cast<suseconds_t>((span.count() % 1000) * 1000);
    ::setitimer(ITIMER_REAL, &timer, nullptr);
}

extern "C" void guard_fired(int) {
    if (busy != 0) {
        arm_guard(std::chrono::milliseconds{20});
        return;
    }
    if (::write(guard_fd, guard_frame, guard_size) < 0) ::_exit(4);
    ::_exit(3);
}

void prepare_guard(int fd, std::int64_t id, std::chrono::milliseconds timeout) {
    const json::object reply{
        {"status", HEAL_CANCELLED},
        {"text", "the script was stopped at its deadline, within a library function"},
        {"detail", json::object{}},
        {"out_of_time", true},
        {"spent", true},
        {"confidence", nullptr}};
    const auto frame = to_frame(json::serialize(json::object{
        {"type", "result"}, {"id", id}, {"replies", json::array{reply}}}));
    if (!frame || frame->size() > sizeof guard_frame) return;
    std::copy(frame->begin(), frame->end(), guard_frame);
    guard_size = frame->size();
    guard_fd = fd;
    struct sigaction action {};
    action.sa_handler = &guard_fired;
    ::sigaction(SIGALRM, &action, nullptr);
    arm_guard(timeout + std::chrono::milliseconds{50});
}

class FrameInterrupt final : public Interrupt {
public:
    FrameInterrupt(Channel& channel, std::int64_t id) : channel_(channel), id_(id) {}
    int fd() const override { return channel_.fd(); }
    bool stopped() override {
        while (auto message = channel_.next(false)) note(*message);
        return stopped_ || channel_.closed();
    }
    /// Waits for the word whether to go on.
    result<void> permission() {
        while (auto message = channel_.next(true)) {
            const std::string_view type = string_at(*message, "type");
            if (int_at(*message, "id") == id_ && type == "go") return {};
            if (int_at(*message, "id") == id_ && type == "no")
                return fail(errc::denied, std::string{string_at(*message, "error")});
            note(*message);
            if (stopped_) return fail(errc::cancelled, "the call was cancelled before this effect began");
        }
        return fail(errc::cancelled, "the engine went away");
    }

private:
    void note(const json::object& message) {
        if (string_at(message, "type") == "cancel" && int_at(message, "id") == id_) stopped_ = true;
    }
    Channel& channel_;
    std::int64_t id_;
    bool stopped_ = false;
};

std::int32_t status_of(errc code) {
    switch (code) {
        case errc::cancelled:
            return HEAL_CANCELLED;
        case errc::invalid_input:
            return HEAL_INVALID;
        case errc::denied:
            return HEAL_DENIED;
        case errc::not_found:
            return HEAL_FAILED;
        default:
            return HEAL_FAILED;
    }
}

}  // namespace

int serve_artifact(
    int fd, const Loader& load, const std::vector<std::string>& missing, bool guard_timer, const Clock& clock
) {
    Channel channel{fd};
    json::array lacks;
    for (const std::string& one : missing) lacks.emplace_back(one);
    channel.send(
        {{"type", "hello"},
         {"protocol", wire_protocol},
         {"abi", json::array{HEAL_ABI_MAJOR, HEAL_ABI_MINOR}},
         {"pid", ::getpid()},
         {"missing", std::move(lacks)}}
    );
    const auto first = channel.next(true);
    if (!first || string_at(*first, "type") != "load") return 1;
    ScriptLibraries libraries;
    for (const auto& [name, source] : object_at(*first, "libraries")) {
        if (source.is_string()) libraries[std::string{name}] = std::string{view(source.get_string())};
    }
    const auto refuse = [&](const Error& error) {
        channel.send({{"type", "refused"}, {"reason", to_valid_utf8(error.text.substr(0, 4096))}});
        return 0;
    };
    auto artifact = load(std::move(libraries));
    if (!artifact) return refuse(artifact.error());
    auto facts = (*artifact)->describe();
    if (!facts) return refuse(facts.error());
    channel.send({{"type", "described"}, {"facts", std::move(*facts)}});

    while (auto message = channel.next(true)) {
        const std::string_view type = string_at(*message, "type");
        if (type != "call" && type != "assess") continue;  // a late cancel or answer of a call that has ended
        const std::int64_t id = int_at(*message, "id");
        const std::chrono::milliseconds timeout{int_at(*message, "timeout_ms", 1'000)};
        WireContext context{channel, clock, id, timeout};
        if (guard_timer) prepare_guard(fd, id, timeout);
        json::array replies;
        bool spent = false;
        const auto run = [&](CallFunction function, const json::object& one) {
            CallReply reply;
            if (spent) {
                reply.status = HEAL_FAILED;
                reply.text = "not asked: an earlier question of the same batch was not survived";
            } else {
                reply = (*artifact)->call(
                    function, std::string{string_at(one, "strategy")}, object_at(one, "request"), context
                );
            }
            spent = spent || reply.spent;
            replies.push_back(reply_of(reply));
        };
        if (type == "assess") {
            for (const auto& one : array_at(*message, "calls")) {
                if (one.is_object()) run(CallFunction::assess, one.get_object());
            }
        } else {
            CallFunction function{};
            if (!parse_call_function(string_at(*message, "call"), function)) return 1;
            run(function, *message);
        }
        if (guard_timer) arm_guard(std::chrono::milliseconds{0});
        channel.send({{"type", "result"}, {"id", id}, {"replies", std::move(replies)}});
        if (spent) return 0;
    }
    return 0;
}

int serve_effects(int fd, Performer& performer) {
    Channel channel{fd};
    channel.send({{"type", "ready"}, {"pid", ::getpid()}});
    for (;;) {
        // Daemons that were started here are our children until we end: collect those that die while nothing
        // happens.
        pollfd waiting{fd, POLLIN, 0};
        std::optional<json::object> message = channel.next(false);
        if (!message && !channel.closed()) {
            ::poll(&waiting, 1, 2'000);
            reap_children();
            continue;
        }
        if (!message) return 0;
        if (string_at(*message, "type") != "perform") continue;
        PerformRequest rq;
        const std::int64_t id = int_at(*message, "id");
        rq.step = int_at(*message, "step", 1);
        rq.phase = std::string{string_at(*message, "phase")};
        rq.strategy = std::string{string_at(*message, "strategy")};
        rq.attempt = std::string{string_at(*message, "attempt")};
        rq.dry_run = bool_at(*message, "dry_run");
        const bool ahead = bool_at(*message, "waits");  // of its intent, which is still being stored
        rq.remaining = std::chrono::milliseconds{int_at(*message, "timeout_ms", 30'000)};
        rq.kind = std::string{string_at(*message, "kind")};
        rq.parameters = object_at(*message, "parameters");
        rq.undoes_step = int_at(*message, "undoes_step");
        if (bool_at(*message, "all")) {
            rq.grants = Grants::all();
        } else {
            std::vector<std::string> patterns;
            for (const auto& one : array_at(*message, "grants")) {
                if (one.is_string()) patterns.emplace_back(view(one.get_string()));
            }
            rq.grants = Grants{std::move(patterns)};
        }
        FrameInterrupt interrupt{channel, id};
        const auto done = performer.perform(
            rq,
            [&](const Effect& effect) -> result<void> {
                const bool waits = ahead || (effect.changes_world && effect.undoable && !rq.dry_run);
                channel.send({{"type", "begin"}, {"id", id}, {"effect", to_json(effect)}, {"waits", waits}});
                return waits ? interrupt.permission() : result<void>{};
            },
            interrupt
        );
        channel.send(
            {{"type", "end"},
             {"id", id},
             {"status", done.result.ok ? HEAL_OK : status_of(done.code)},
             {"result", to_json(done.result)}}
        );
        reap_children();
    }
}

}  // namespace heal
