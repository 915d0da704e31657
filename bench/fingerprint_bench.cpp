// Speed of line → id beside references in the same run, as JSON. Usage: fingerprint_bench FILE [rounds]
// FILE: raw lines, mixed; `./dev bench fingerprint` makes one. Figures are the best of the rounds, by the CPU
// time of the thread, so that a busy machine counts less; the two-thread figures by wall time.
#include "base/clock.hpp"
#include "base/json.hpp"
#include "cli/fingerprint_id.hpp"
#include "fingerprint/bitmaps.hpp"
#include "fingerprint/fingerprint.hpp"
#include "ingest/decoder.hpp"

#include <fcntl.h>
#include <hs/hs.h>
#include <malloc.h>
#include <simdjson.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace fp = heal::fingerprint;

namespace {

double cpu_seconds() {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

double wall_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double best(int rounds, const std::function<void()>& work, double (*clock)() = cpu_seconds) {
    double least = 1e9;
    for (int i = 0; i < rounds; ++i) {
        const double begin = clock();
        work();
        least = std::min(least, clock() - begin);
    }
    return least;
}

volatile std::uint64_t sink;

template <class OnLine>
void each_line(std::string_view text, OnLine on_line) {
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
        const void* newline = std::memchr(p, '\n', static_cast<std::size_t>(end - p));
        const char* stop = newline == nullptr ? end : static_cast<const char*>(newline);
        on_line(std::string_view{p, static_cast<std::size_t>(stop - p)});
        p = stop + 1;
    }
}

/// Drain as Drain3 has it by default (depth 4, similarity 0.4, tokens with digits open at the tree's nodes),
/// without masks: the reference for parsers that learn.
class Drain {
public:
    std::size_t add(std::string_view line) {
        tokens_.clear();
        for (std::size_t p = 0; p < line.size();) {
            while (p < line.size() && line[p] == ' ') ++p;
            const std::size_t e = std::min(line.find(' ', p), line.size());
            if (e > p) tokens_.push_back(line.substr(p, e - p));
            p = e;
        }
        std::string path = std::to_string(tokens_.size());
        for (std::size_t i = 0; i < 2 && i < tokens_.size(); ++i) {
            const bool digit = std::any_of(tokens_[i].begin(), tokens_[i].end(), [](char c) {
                return c >= '0' && c <= '9';
            });
            path += ' ';
            path += digit ? std::string_view{"<*>"} : tokens_[i];
        }
        auto& leaf = leaves_[path];
        std::size_t found = 0;
        double most = -1;
        for (const std::size_t c : leaf) {
            std::size_t same = 0;
            for (std::size_t i = 0; i < tokens_.size(); ++i) same += clusters_[c][i] == tokens_[i];
            const double likeness =
                tokens_.empty() ? 1 : static_cast<double>(same) / static_cast<double>(tokens_.size());
            if (likeness > most) {
                most = likeness;
                found = c;
            }
        }
        if (most < 0.4) {
            leaf.push_back(clusters_.size());
            clusters_.emplace_back(tokens_.begin(), tokens_.end());
            return clusters_.size() - 1;
        }
        auto& cluster = clusters_[found];
        for (std::size_t i = 0; i < tokens_.size(); ++i) {
            if (cluster[i] != tokens_[i]) cluster[i] = "<*>";
        }
        return found;
    }

private:
    std::vector<std::string_view> tokens_;
    std::unordered_map<std::string, std::vector<std::size_t>> leaves_;
    std::vector<std::vector<std::string>> clusters_;
};

/// All of `healctl fingerprint id`: reading, splitting, ids, writing in order.
void whole_command(int file, unsigned threads) {
    ::lseek(file, 0, SEEK_SET);
    const int out = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    heal::cli::FingerprintIdOptions options;
    options.threads = threads;
    const auto done = heal::cli::fingerprint_id(file, out, options);
    sink = done ? *done : 0;
    ::close(out);
}

/// Messages of as many patterns: "qab stopped while qab wrote 17 records to the journal", with words of
/// letters.
std::string message_of(std::size_t i) {
    std::string word = "q";
    for (; i > 0; i /= 26) word += static_cast<char>('a' + i % 26);
    return word + " stopped while " + word + " wrote 17 records to the journal";
}

double process_seconds() {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: fingerprint_bench FILE [rounds]\n");
        return 2;
    }
    std::ifstream file{argv[1], std::ios::binary};
    const std::string text{std::istreambuf_iterator<char>{file}, {}};
    const int rounds = argc > 2 ? std::max(1, std::atoi(argv[2])) : 3;
    std::vector<std::string_view> lines;
    each_line(text, [&](std::string_view line) { lines.push_back(line); });
    if (lines.empty()) {
        std::fprintf(stderr, "fingerprint_bench: %s has no lines\n", argv[1]);
        return 1;
    }
    const double n = static_cast<double>(lines.size());
    bool first = true;
    std::printf("{\"lines\": %.0f, \"bytes\": %zu, \"results\": {", n, text.size());
    const auto report = [&](const char* name, double seconds, double bytes, double count) {
        std::printf(
            "%s\n  \"%s\": {\"ns_per_line\": %.1f, \"million_lines_per_s\": %.2f, \"gb_per_s\": %.3f}",
            first ? "" : ",",
            name,
            seconds * 1e9 / count,
            count / seconds / 1e6,
            bytes / seconds / 1e9
        );
        std::fflush(stdout);
        first = false;
    };
    const double bytes = static_cast<double>(text.size());
    const auto sum = [&](const auto& parts, auto&& work) {
        std::uint64_t x = 0;
        for (const auto part : parts) x += work(part);
        sink = x;
    };

    report(
        "count newlines (wc -l)",
        best(rounds, [&] { sink = static_cast<std::uint64_t>(std::count(text.begin(), text.end(), '\n')); }),
        bytes,
        n
    );
    report(
        "split by memchr",
        best(
            rounds,
            [&] {
                std::uint64_t x = 0;
                each_line(text, [&](std::string_view) { ++x; });
                sink = x;
            }
        ),
        bytes,
        n
    );
    report(
        "header cut",
        best(
            rounds, [&] { sum(lines, [](std::string_view l) { return fp::cut_header(l).message.size(); }); }
        ),
        bytes,
        n
    );

    fp::Scanner scanner, forgetful;
    forgetful.remember_shapes(false);
    report(
        "raw line to id",
        best(
            rounds,
            [&] {
                std::uint64_t x = 0;
                each_line(text, [&](std::string_view l) { x ^= scanner.id_of_line(l); });
                sink = x;
            }
        ),
        bytes,
        n
    );
    report(
        "raw line to id, no shape remembered",
        best(rounds, [&] { sum(lines, [&](std::string_view l) { return forgetful.id_of_line(l); }); }),
        bytes,
        n
    );
    {
        const std::uint64_t before = scanner.scans();
        sum(lines, [&](std::string_view l) { return scanner.id_of_line(l); });
        std::fprintf(
            stderr,
            "lines scanned because their shape was not known: %.4f\n",
            static_cast<double>(scanner.scans() - before) / n
        );
    }
    std::vector<std::string_view> messages;
    double message_bytes = 0;
    for (const auto line : lines) {
        messages.push_back(fp::cut_header(line).message);
        message_bytes += static_cast<double>(messages.back().size());
    }
    report(
        "message to id",
        best(rounds, [&] { sum(messages, [&](std::string_view m) { return scanner.id(m); }); }),
        message_bytes,
        n
    );
    report(
        "message to id, no shape remembered",
        best(rounds, [&] { sum(messages, [&](std::string_view m) { return forgetful.id(m); }); }),
        message_bytes,
        n
    );

    const int input = ::memfd_create("lines", MFD_CLOEXEC);
    for (int copy = 0; copy < 4; ++copy) {
        for (std::string_view rest = text; !rest.empty();) {
            const ssize_t written = ::write(input, rest.data(), rest.size());
            if (written <= 0) return 1;
            rest.remove_prefix(static_cast<std::size_t>(written));
        }
    }
    report(
        "fingerprint id, one thread (wall)",
        best(
            rounds + 2, [&] { whole_command(input, 1); }, wall_seconds
        ),
        bytes * 4,
        n * 4
    );
    report(
        "fingerprint id, two threads (wall)",
        best(
            rounds + 2, [&] { whole_command(input, 2); }, wall_seconds
        ),
        bytes * 4,
        n * 4
    );
    report(
        "fingerprint id, one thread (CPU)",
        best(
            rounds, [&] { whole_command(input, 1); }, process_seconds
        ),
        bytes * 4,
        n * 4
    );
    report(
        "fingerprint id, two threads (CPU of both)",
        best(
            rounds, [&] { whole_command(input, 2); }, process_seconds
        ),
        bytes * 4,
        n * 4
    );
    ::close(input);

    {
        const heal::ManualClock clock;
        heal::BatchBuilder builder{clock};
        heal::DecodeDefaults defaults;
        defaults.service = "bench";
        defaults.min_level = heal::Level::trace;
        heal::LineDecoder decoder{defaults, heal::JoinOptions{}};
        report(
            "bytes to deltas (hearing a file)",
            best(
                rounds,
                [&] {
                    each_line(text, [&](std::string_view l) {
                        decoder.line(l, l.size() + 1, false, heal::Duration{0}, builder);
                        if (builder.full()) builder.take();
                    });
                    decoder.flush(builder);
                    sink = builder.take().records;
                }
            ),
            bytes,
            n
        );
    }
    {
        std::string ndjson;
        for (const auto m : messages) {
            ndjson +=
                R"({"time":"2026-11-21T10:00:00.123Z","level":"error","service":"shop","host":"web1","pid":4711,"msg":")";
            for (const char c : m) {
                if (c == '"' || c == '\\') ndjson += '\\';
                if (static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) < 0x80)
                    ndjson += c;
            }
            ndjson += "\"}\n";
        }
        const std::size_t size = ndjson.size();
        ndjson.append(simdjson::SIMDJSON_PADDING, ' ');
        const std::string_view all{ndjson.data(), size};
        const auto parse = [&](auto on_message) {
            simdjson::ondemand::parser parser;
            simdjson::ondemand::document_stream stream;
            if (parser.iterate_many(ndjson.data(), size, 1 << 20).get(stream) != simdjson::SUCCESS) return;
            for (auto document : stream) {
                std::string_view time, level, service, message;
                if (document["time"].get_string().get(time) == simdjson::SUCCESS &&
                    document["level"].get_string().get(level) == simdjson::SUCCESS &&
                    document["service"].get_string().get(service) == simdjson::SUCCESS &&
                    document["msg"].get_string().get(message) == simdjson::SUCCESS)
                    on_message(message);
            }
        };
        const double json_bytes = static_cast<double>(size);
        report(
            "NDJSON parsed by simdjson, 4 fields",
            best(
                rounds,
                [&] {
                    std::uint64_t x = 0;
                    parse([&](std::string_view m) { x += m.size(); });
                    sink = x;
                }
            ),
            json_bytes,
            n
        );
        report(
            "NDJSON to id",
            best(
                rounds,
                [&] {
                    std::uint64_t x = 0;
                    each_line(all, [&](std::string_view l) { x ^= scanner.id_of_line(l); });
                    sink = x;
                }
            ),
            json_bytes,
            n
        );
        report(
            "NDJSON to id, no shape remembered",
            best(
                1,
                [&] {
                    std::uint64_t x = 0;
                    each_line(all, [&](std::string_view l) { x ^= forgetful.id_of_line(l); });
                    sink = x;
                }
            ),
            json_bytes,
            n
        );
    }
    {
        Drain drain;
        const std::vector<std::string_view> some{
            messages.begin(),
            messages.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(messages.size(), 200'000))};
        double some_bytes = 0;
        for (const auto m : some) some_bytes += static_cast<double>(m.size());
        report(
            "Drain3-like, messages",
            best(1, [&] { sum(some, [&](std::string_view m) { return drain.add(m); }); }),
            some_bytes,
            static_cast<double>(some.size())
        );
    }
    {
        const char* masks[] = {
            R"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)",
            R"(\d\d:\d\d:\d\d)",
            R"(\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b)",
            R"(0x[0-9a-fA-F]+)",
            R"(\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b)",
            R"([a-z]+://\S+)",
            R"(/[\w./-]+)",
            R"(\S+@\S+\.\w+)",
            R"(\b[0-9a-f]{16,}\b)",
            R"("[^"]*")",
            R"(=\S+)",
            R"(\b\d+\b)"};
        unsigned flags[12], ids[12];
        for (unsigned i = 0; i < 12; ++i) flags[i] = 0, ids[i] = i;
        hs_database_t* database = nullptr;
        hs_compile_error_t* error = nullptr;
        hs_scratch_t* scratch = nullptr;
        if (hs_compile_multi(masks, flags, ids, 12, HS_MODE_BLOCK, nullptr, &database, &error) ==
                HS_SUCCESS &&
            hs_alloc_scratch(database, &scratch) == HS_SUCCESS) {
            std::uint64_t count = 0;
            const auto hit = [](unsigned, unsigned long long, unsigned long long, unsigned, void* at) {
                ++*static_cast<std::uint64_t*>(at);
                return 0;
            };
            report(
                "Hyperscan, 12 masks",
                best(
                    1,
                    [&] {
                        for (const auto line : lines)
                            hs_scan(
                                database,
                                line.data(),
                                static_cast<unsigned>(line.size()),
                                0,
                                scratch,
                                hit,
                                &count
                            );
                        sink = count;
                    }
                ),
                bytes,
                n
            );
            hs_free_scratch(scratch);
            hs_free_database(database);
        } else if (error != nullptr) {
            hs_free_compile_error(error);
        }
    }
    // Memory: how much more is on the heap after so many new fingerprints.
    const auto in_use = [] {
        const auto m = ::mallinfo2();
        return m.uordblks + m.hblkhd;
    };
    constexpr std::size_t kinds = 16'000;
    std::vector<std::string> many;
    for (std::size_t i = 0; i < kinds; ++i) many.push_back(message_of(i * 7919 + 1));
    fp::Scanner fresh;
    fresh.id("warm");
    const std::size_t scanner_before = in_use();
    for (const auto& m : many) sink = fresh.id(m);
    const std::size_t scanner_after = in_use();
    const std::uint64_t patterns = fresh.misses() - 1;
    if (patterns != kinds) {
        std::fprintf(stderr, "fingerprint_bench: %zu messages gave %lu patterns\n", kinds, patterns);
        return 1;
    }
    const heal::ManualClock clock;
    heal::BatchBuilder builder{clock};
    heal::DecodeDefaults defaults;
    defaults.min_level = heal::Level::trace;
    heal::RecordView record;
    record.service = "shop";
    record.message = "warm";
    builder.add(record, defaults);
    builder.take();
    const std::size_t builder_before = in_use();
    for (const auto& m : many) {
        record.message = m;
        builder.add(record, defaults);
        if (builder.peek().deltas.size() >= 256) builder.take();
    }
    builder.take();
    const std::size_t builder_after = in_use();
    std::printf(
        "\n}, \"bytes_per_fingerprint\": {\"scanner, heap\": %.0f, \"hearing, heap\": %.0f}}\n",
        static_cast<double>(scanner_after - scanner_before) / static_cast<double>(kinds),
        static_cast<double>(builder_after - builder_before) / static_cast<double>(kinds)
    );
    return 0;
}
