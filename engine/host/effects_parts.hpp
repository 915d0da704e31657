// Inner parts of the performer: one planner per kind of effect. A planner checks parameters and grants and gives a Plan; it
// changes nothing, except that it saves what an undo will need (not in a dry-run).
#pragma once

#include "host/performer.hpp"

#include <fmt/format.h>

#include <map>
#include <optional>
#include <span>

namespace heal::effects {

constexpr std::size_t max_output_bytes = 32U << 10U;      ///< of each stream, body or reply; a result has at most 64 KiB
constexpr std::size_t max_read_bytes = 256U << 10U;       ///< of read_file
constexpr std::size_t max_copy_bytes = 64U << 20U;        ///< of a file that is copied or backed up
constexpr std::size_t max_parameters_bytes = 512U << 10U;

/// What a planner and a run may use.
struct Context {
    const PerformRequest& request;
    const std::string& state_folder;
    const Clock& clock;
    Interrupt& interrupt;
    Duration deadline;  ///< steady

    std::chrono::milliseconds remaining() const {
        return std::max(std::chrono::milliseconds{0}, std::chrono::duration_cast<std::chrono::milliseconds>(deadline - clock.steady()));
    }
};

struct Plan {
    std::string summary, capability;
    bool changes_world = true, undoable = false;
    json::object undo;               ///< {"kind", "parameters"}
    json::object shown;              ///< parameters as recorded (secrets out, long texts cut); empty: as asked
    json::object dry_result;         ///< what the strategy gets in a dry-run, besides "skipped": true
    std::function<result<json::object>(Context&)> run;
};

using Planner = result<Plan> (*)(Context&, const FieldReader&);

// One table per file; performer.cpp joins them.
struct Kind {
    std::string_view name;
    Planner plan;
    bool undo_only = false;
    std::string_view keys;  ///< allowed parameters, blank-separated
};
std::span<const Kind> exec_kinds();
std::span<const Kind> process_kinds();
std::span<const Kind> file_kinds();
std::span<const Kind> net_kinds();
std::span<const Kind> state_kinds();

// ---- Shared helpers. ----

Error denied(std::string_view what, std::string_view capability);

/// Array of 1 … 256 strings without NUL, at most 128 KiB together; argv[0] absolute.
result<std::vector<std::string>> argv_of(const json::object& parameters, std::string_view key, std::string_view path);
/// Object of strings.
result<std::map<std::string, std::string>> string_map(const json::object& parameters, std::string_view key, std::string_view path);
std::string joined(const std::vector<std::string>& argv);
json::array to_array(const std::vector<std::string>& words);
/// At most `limit` bytes, valid UTF-8.
std::string bounded(std::string_view text, std::size_t limit = max_output_bytes);

class Descriptor {
public:
    explicit Descriptor(int fd = -1) : fd_(fd) {}
    Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        if (this != &other) reset(std::exchange(other.fd_, -1));
        return *this;
    }
    ~Descriptor() { reset(-1); }
    int get() const { return fd_; }
    bool open() const { return fd_ >= 0; }
    void reset(int fd);
    int release() { return std::exchange(fd_, -1); }

private:
    int fd_;
};

/// Waits until `fd` is ready for `events`. errc::cancelled, errc::timeout.
result<void> wait_ready(Context& context, int fd, short events, Duration deadline);
/// Waits for nothing but time, the deadline or an interrupt. True: the whole span passed.
result<void> wait_for(Context& context, Duration span);

struct Command {
    std::vector<std::string> argv;
    std::string cwd = "/", user;
    std::map<std::string, std::string> env;
    std::chrono::milliseconds timeout{0};  ///< 0: what remains
    std::string input;                     ///< for stdin, at most 64 KiB; empty: /dev/null
};
struct CommandResult {
    int exit_code = -1, signal = 0;
    bool timed_out = false;
    std::string output, error_output;
};
/// Runs one command; its whole session is gone when this returns by timeout or cancel.
result<CommandResult> run_command(Context& context, const Command& command);
json::object to_json(const CommandResult& done);

// Processes, read from /proc. A process is named for ever by its pid and start time.
struct ProcessFacts {
    bool alive = false;
    std::int64_t pid = 0, start_time = 0, rss_bytes = 0;
    std::string state;
    std::vector<std::string> command;
};
ProcessFacts read_process(std::int64_t pid);
json::object to_json(const ProcessFacts& facts);
/// The number in a pid file. errc::not_found, errc::invalid_input.
result<std::int64_t> read_pid_file(const std::string& path);
/// TERM to each process that has `token` in its environment, KILL to what is left after `grace`.
result<json::object> stop_marked(Context& context, const std::string& token, std::chrono::milliseconds grace);

/// Writes a small file atomically beside its final place; used for pid files and values.
result<void> write_small(const std::string& path, std::string_view content, unsigned mode);

struct HttpCall {
    std::string method = "GET", url, body, unix_socket;
    std::map<std::string, std::string> headers;
    std::chrono::milliseconds timeout{5'000};
};
struct HttpReply {
    int status = 0;
    std::string body;
    json::object headers;
};
result<HttpReply> http_call(Context& context, const HttpCall& call);

}  // namespace heal::effects
