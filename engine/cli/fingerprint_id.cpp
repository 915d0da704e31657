#include "cli/fingerprint_id.hpp"

#include "fingerprint/fingerprint.hpp"

#include <errno.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string_view>
#include <thread>
#include <vector>

namespace heal::cli {
namespace {

constexpr std::size_t block = 1 << 18;     // measured: larger blocks leave the second-level cache
constexpr std::size_t max_line = 1 << 20;  // the reader's bound; the scanner looks at less

result<void> write_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t n = ::write(fd, bytes.data(), bytes.size());
        if (n < 0) {
            if (errno == EINTR) continue;
            return fail_errno("cannot write the ids", errno);
        }
        bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return boost::system::in_place_value;
}

/// Calls on_line for each line and on_idle before every read.
template <class OnLine, class OnIdle>
result<std::uint64_t> each_line(int fd, OnLine on_line, OnIdle on_idle) {
    std::vector<char> buffer(block);
    std::size_t begin = 0, end = 0;
    std::uint64_t lines = 0;
    bool skipping = false;  // the rest of an over-long line
    while (true) {
        if (begin > 0 && buffer.size() - end < block / 2) {
            std::memmove(buffer.data(), buffer.data() + begin, end - begin);
            end -= begin;
            begin = 0;
        }
        if (buffer.size() - end < block / 2) buffer.resize(buffer.size() + block);
        if (auto idle = on_idle(); !idle) return std::move(idle).error();
        const ssize_t n = ::read(fd, buffer.data() + end, buffer.size() - end);
        if (n < 0) {
            if (errno == EINTR) continue;
            return fail_errno("cannot read the lines", errno);
        }
        if (n == 0) break;
        std::size_t look = end;
        end += static_cast<std::size_t>(n);
        while (look < end) {
            const void* newline = std::memchr(buffer.data() + look, '\n', end - look);
            if (newline == nullptr) break;
            const std::size_t stop =
                static_cast<std::size_t>(static_cast<const char*>(newline) - buffer.data());
            if (!skipping) {
                on_line(std::string_view{buffer.data() + begin, stop - begin});
                ++lines;
            }
            skipping = false;
            begin = look = stop + 1;
        }
        if (skipping) {
            begin = end = 0;
        } else if (end - begin > max_line) {
            on_line(std::string_view{buffer.data() + begin, max_line});
            ++lines;
            skipping = true;
            begin = end = 0;
        } else if (begin == end) {
            begin = end = 0;
        }
    }
    if (end > begin && !skipping) {
        on_line(std::string_view{buffer.data() + begin, end - begin});
        ++lines;
    }
    if (auto idle = on_idle(); !idle) return std::move(idle).error();
    return lines;
}

fingerprint::Scanner seeded(const std::string& service) {
    std::random_device random;
    const auto word = [&] { return std::uint64_t{random()} << 32 | random(); };
    return fingerprint::Scanner{service, word(), word()};
}

/// Cores this process may use: `taskset` and containers count.
unsigned cores() {
    cpu_set_t set;
    CPU_ZERO(&set);
    const int n = ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return static_cast<unsigned>(std::clamp(n, 1, 16));
}

/// Blocks of whole lines, read by whichever worker is free, scanned by each on its own, written in the order
/// of the input. A worker does all three, so that reading and writing share the cores with the scan; no lock
/// is taken per line.
class Pipeline {
public:
    Pipeline(int in, int out, const FingerprintIdOptions& options)
        : in_(in), out_(out), options_(options), threads_(options.threads != 0 ? options.threads : cores()) {
        finished_.resize(std::size_t{4} * threads_);
    }

    result<std::uint64_t> run() {
        // Others start when the first block is full: a few lines are not worth a thread.
        std::vector<std::thread> helpers;
        work([&] {
            for (unsigned i = 1; i < threads_; ++i) helpers.emplace_back([this] { work([] {}); });
        });
        for (auto& helper : helpers) helper.join();
        if (error_) return *error_;
        return lines_.load();
    }

private:
    struct Finished {
        std::string output;
        bool ready = false;
    };

    template <class OnFull>
    void work(OnFull on_full) {
        fingerprint::Scanner scanner = seeded(options_.service);
        std::vector<char> data;
        std::string output;
        bool first = true;
        while (true) {
            std::size_t size = 0;
            std::uint64_t ticket = 0;
            {
                const std::lock_guard lock{reading_};
                if (done_) return;
                if (auto read = fill(data, size); !read) {
                    done_ = true;
                    fail_with(std::move(read).error());
                    return;
                }
                if (size == 0) return;
                ticket = next_ticket_++;
            }
            if (first && size >= block / 2) on_full();
            first = false;
            output.clear();
            scan(scanner, {data.data(), size}, output);
            if (!deliver(ticket, output)) return;
        }
    }

    /// Bytes of whole lines into `data`, `size` of them; 0 at the end of the input. What stands behind the
    /// last line end is kept for the next block. Called under reading_.
    result<void> fill(std::vector<char>& data, std::size_t& size) {
        std::size_t have = carry_.size();
        if (data.size() < have + block) data.resize(have + block);
        std::memcpy(data.data(), carry_.data(), have);
        std::size_t whole = 0;  // behind the last line end
        while (true) {
            if (data.size() - have < block / 2) data.resize(data.size() + block);
            const ssize_t n = ::read(in_, data.data() + have, std::min(data.size() - have, block));
            if (n < 0) {
                if (errno == EINTR) continue;
                return fail_errno("cannot read the lines", errno);
            }
            if (n == 0) {
                // The last line may lack its end.
                done_ = true;
                size = have;
                carry_.clear();
                return boost::system::in_place_value;
            }
            std::size_t got = static_cast<std::size_t>(n);
            if (skipping_) {
                const void* end = std::memchr(data.data() + have, '\n', got);
                if (end == nullptr) continue;
                skipping_ = false;
                const char* rest = static_cast<const char*>(end) + 1;
                got -= static_cast<std::size_t>(rest - (data.data() + have));
                std::memmove(data.data() + have, rest, got);
            }
            if (const void* end = got == 0 ? nullptr : ::memrchr(data.data() + have, '\n', got);
                end != nullptr)
                whole = static_cast<std::size_t>(static_cast<const char*>(end) - data.data()) + 1;
            have += got;
            if (whole == 0 && have > max_line) {
                // One line beyond the bound: its first part is the line.
                size = max_line;
                carry_.clear();
                skipping_ = true;
                return boost::system::in_place_value;
            }
            if (whole == 0) continue;
            // A line that has arrived is answered before a read that could block.
            int waiting = 0;
            if (have >= block || ::ioctl(in_, FIONREAD, &waiting) != 0 || waiting <= 0) break;
        }
        carry_.assign(data.data() + whole, have - whole);
        size = whole;
        return boost::system::in_place_value;
    }

    void scan(fingerprint::Scanner& scanner, std::string_view text, std::string& output) {
        std::uint64_t lines = 0;
        for (const char *p = text.data(), *end = p + text.size(); p < end; ++lines) {
            const void* newline = std::memchr(p, '\n', static_cast<std::size_t>(end - p));
            const char* stop = newline == nullptr ? end : static_cast<const char*>(newline);
            const std::string_view line{p, std::min(static_cast<std::size_t>(stop - p), max_line)};
            char hex[17];
            fingerprint::id_hex(scanner.id_of_line(line), reinterpret_cast<char(&)[16]>(hex));
            hex[16] = '\n';
            if (options_.pattern) {
                output.append(hex, 16).append("\t");
                output += fingerprint::explain(options_.service, line, {}).fingerprint.pattern;
                output += '\n';
            } else {
                output.append(hex, 17);
            }
            p = stop + 1;
        }
        lines_.fetch_add(lines, std::memory_order_relaxed);
    }

    /// Takes the output of a block; whoever brings the next one in order writes all that are ready.
    bool deliver(std::uint64_t ticket, std::string& output) {
        std::unique_lock lock{writing_};
        room_.wait(lock, [&] { return ticket < written_ + finished_.size() || error_; });
        if (error_) return false;
        Finished& mine = finished_[ticket % finished_.size()];
        mine.output.swap(output);
        mine.ready = true;
        while (finished_[written_ % finished_.size()].ready) {
            Finished& next = finished_[written_ % finished_.size()];
            if (auto done = write_all(out_, next.output); !done) {
                error_ = std::move(done).error();
                room_.notify_all();
                // A worker that reads stops at its next block.
                return false;
            }
            next.ready = false;
            ++written_;
        }
        room_.notify_all();
        return true;
    }

    void fail_with(Error what) {
        const std::lock_guard lock{writing_};
        if (!error_) error_ = std::move(what);
        room_.notify_all();
    }

    const int in_, out_;
    const FingerprintIdOptions& options_;
    const unsigned threads_;
    std::mutex reading_;  ///< guards the next five
    std::string carry_;
    bool done_ = false, skipping_ = false;
    std::uint64_t next_ticket_ = 0;
    std::mutex writing_;  ///< guards the next four
    std::condition_variable room_;
    std::vector<Finished> finished_;
    std::uint64_t written_ = 0;
    std::optional<Error> error_;
    std::atomic<std::uint64_t> lines_{0};
};

}  // namespace

result<std::uint64_t> fingerprint_id(int in, int out, const FingerprintIdOptions& options) {
    return Pipeline{in, out, options}.run();
}

result<std::uint64_t> fingerprint_explain(int in, int out, const FingerprintIdOptions& options) {
    std::string output, whole;
    const auto print = [&](std::string_view line, std::string_view trace) {
        const fingerprint::Explanation e = fingerprint::explain(options.service, line, trace);
        const auto field = [&](const char* name, std::string_view value) {
            if (!value.empty()) output.append(name).append(value).append("\n");
        };
        field("id         ", e.fingerprint.id);
        field("digest     ", e.fingerprint.digest);
        field("pattern    ", e.fingerprint.pattern);
        field("signature  ", e.fingerprint.signature);
        field("timestamp  ", e.header.timestamp);
        field("level      ", to_string(e.header.level));
        field("host       ", e.header.host);
        field("process    ", e.header.process);
        field("thread     ", e.header.thread);
        field("component  ", e.header.component);
        for (const auto& mask : e.masks)
            output.append("mask       ").append(mask.rule).append(": ").append(mask.text).append("\n");
        for (const auto& frame : e.frames) output.append("frame      ").append(frame).append("\n");
        for (const auto& n : fingerprint::nearest(e.fingerprint.pattern, options.known)) {
            char likeness[8];
            std::snprintf(likeness, sizeof likeness, "%.2f", n.likeness);
            output.append("neighbour  ").append(n.known.id).append(" ").append(likeness).append(" ");
            output.append(n.known.pattern).append("\n");
        }
        output += '\n';
    };
    auto lines = each_line(
        in,
        [&](std::string_view line) {
            if (!options.event)
                print(line, {});
            else if (whole.size() + line.size() < max_line)
                whole.append(line).append("\n");
        },
        [&]() -> result<void> {
            auto written = write_all(out, output);
            output.clear();
            return written;
        }
    );
    if (!lines || !options.event || whole.empty()) return lines;
    const std::string_view text = whole;
    print(text.substr(0, text.find('\n')), text);
    HEAL_TRY(write_all(out, output));
    return std::uint64_t{1};
}

result<std::vector<fingerprint::KnownPattern>> read_known_patterns(const std::string& file) {
    std::ifstream in{file, std::ios::binary};
    if (!in) return fail_errno("cannot read the patterns in " + file, errno);
    std::vector<fingerprint::KnownPattern> known;
    std::set<std::string> seen;
    for (std::string line; std::getline(in, line);) {
        const auto tab = line.find('\t');
        if (tab == std::string::npos || !seen.insert(line.substr(0, tab)).second) continue;
        known.push_back({line.substr(0, tab), line.substr(tab + 1)});
    }
    return known;
}

}  // namespace heal::cli
