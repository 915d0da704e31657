// Speed of line → id beside physical references in the same run, as JSON. Usage: fingerprint_bench FILE
// [rounds] FILE: about a million raw lines, mixed (docs/fingerprint.md says how to make one). Figures are the
// best of the rounds, by the CPU time of the thread, so that a busy machine does not count; two threads by
// wall time.
#include "base/json.hpp"
#include "fingerprint/fingerprint.hpp"

#include <hs/hs.h>
#include <simdjson.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

namespace fp = heal::fingerprint;

namespace {

double cpu_seconds() {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

double best(int rounds, const std::function<void()>& work) {
    double least = 1e9;
    for (int i = 0; i < rounds; ++i) {
        const double begin = cpu_seconds();
        work();
        least = std::min(least, cpu_seconds() - begin);
    }
    return least;
}

volatile std::uint64_t sink;

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
    for (std::size_t p = 0; p < text.size();) {
        const std::size_t e = std::min(text.find('\n', p), text.size());
        lines.push_back(std::string_view{text}.substr(p, e - p));
        p = e + 1;
    }
    if (lines.empty()) {
        std::fprintf(stderr, "fingerprint_bench: %s has no lines\n", argv[1]);
        return 1;
    }
    const double n = static_cast<double>(lines.size());
    bool first = true;
    std::printf("{\"lines\": %.0f, \"bytes\": %zu, \"results\": {", n, text.size());
    const auto report = [&](const char* name, double seconds, double bytes) {
        std::printf(
            "%s\n  \"%s\": {\"ns_per_line\": %.1f, \"million_lines_per_s\": %.2f, \"gb_per_s\": %.3f}",
            first ? "" : ",",
            name,
            seconds * 1e9 / n,
            n / seconds / 1e6,
            bytes / seconds / 1e9
        );
        std::fflush(stdout);
        first = false;
    };
    const double bytes = static_cast<double>(text.size());

    report(
        "count newlines (wc -l)",
        best(rounds, [&] { sink = static_cast<std::uint64_t>(std::count(text.begin(), text.end(), '\n')); }),
        bytes
    );
    report(
        "split by memchr",
        best(
            rounds,
            [&] {
                std::uint64_t count = 0;
                for (const char *p = text.data(), *end = p + text.size(); p < end; ++count) {
                    const void* e = std::memchr(p, '\n', static_cast<std::size_t>(end - p));
                    if (e == nullptr) break;
                    p = static_cast<const char*>(e) + 1;
                }
                sink = count;
            }
        ),
        bytes
    );
    report(
        "header cut",
        best(
            rounds,
            [&] {
                std::uint64_t x = 0;
                for (const auto line : lines) x += fp::cut_header(line).message.size();
                sink = x;
            }
        ),
        bytes
    );
    fp::Scanner scanner;
    fp::Scanner forgetful;
    forgetful.remember_shapes(false);
    report(
        "raw line to id, no shape remembered",
        best(
            rounds,
            [&] {
                std::uint64_t x = 0;
                for (const auto line : lines) x ^= forgetful.id_of_line(line);
                sink = x;
            }
        ),
        bytes
    );
    report(
        "raw line to id",
        best(
            rounds,
            [&] {
                std::uint64_t x = 0;
                for (const auto line : lines) x ^= scanner.id_of_line(line);
                sink = x;
            }
        ),
        bytes
    );
    std::vector<std::string_view> messages;
    double message_bytes = 0;
    for (const auto line : lines) {
        messages.push_back(fp::cut_header(line).message);
        message_bytes += static_cast<double>(messages.back().size());
    }
    report(
        "message to id",
        best(
            rounds,
            [&] {
                std::uint64_t x = 0;
                for (const auto m : messages) x ^= scanner.id(m);
                sink = x;
            }
        ),
        message_bytes
    );
    {
        double least = 1e9;
        for (int i = 0; i < rounds; ++i) {
            const auto begin = std::chrono::steady_clock::now();
            const auto part = [&](std::size_t b, std::size_t e) {
                fp::Scanner own;
                std::uint64_t x = 0;
                for (std::size_t j = b; j < e; ++j) x ^= own.id_of_line(lines[j]);
                sink = x;
            };
            std::thread other{part, lines.size() / 2, lines.size()};
            part(0, lines.size() / 2);
            other.join();
            least = std::min(
                least, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count()
            );
        }
        report("raw line to id, two threads (wall)", least, bytes);
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
        const auto parse = [&](auto on_message) {
            simdjson::ondemand::parser parser;
            simdjson::ondemand::document_stream stream;
            if (parser.iterate_many(ndjson.data(), size, 1 << 20).get(stream) != simdjson::SUCCESS) return;
            for (auto document : stream) {
                std::string_view message;
                if (document["msg"].get_string().get(message) == simdjson::SUCCESS) on_message(message);
            }
        };
        report(
            "NDJSON parsed by simdjson",
            best(
                rounds,
                [&] {
                    std::uint64_t x = 0;
                    parse([&](std::string_view m) { x += m.size(); });
                    sink = x;
                }
            ),
            static_cast<double>(size)
        );
        report(
            "NDJSON to id",
            best(
                rounds,
                [&] {
                    std::uint64_t x = 0;
                    parse([&](std::string_view m) { x ^= scanner.id(m); });
                    sink = x;
                }
            ),
            static_cast<double>(size)
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
                bytes
            );
            hs_free_scratch(scratch);
            hs_free_database(database);
        } else if (error != nullptr) {
            hs_free_compile_error(error);
        }
    }
    std::printf("\n}}\n");
    return 0;
}
