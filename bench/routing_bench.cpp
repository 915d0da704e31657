// Figures of routing: from an error to its ranked candidates, with 10 to 1,000 strategies and 100,000 kinds
// of error, beside asking every strategy one after the other in the same run; and the memory that a kind of
// error costs while it is idle. Prints JSON; ./dev bench routing runs it.
#include "core/decision.hpp"
#include "core/recent.hpp"
#include "core/rules.hpp"
#include "service/strategies.hpp"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <random>

using namespace heal;

namespace {

constexpr int services = 500;

std::string word(std::mt19937_64& random) {
    std::string w;
    for (auto n = 5 + random() % 6; n > 0; --n) w += static_cast<char>('a' + random() % 26);
    return w;
}

/// What authors write: mostly one service, words of the message, a type; few for everything.
StrategyInfo strategy(int i, const std::vector<std::string>& words, std::mt19937_64& random) {
    StrategyInfo info;
    info.name = fmt::format("strategy-{:04}", i);
    info.priority = static_cast<std::int64_t>(random() % 5) * 10;
    json::object m;
    const auto some = [&] { return words[random() % words.size()]; };
    switch (i % 20) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
        case 5:
        case 6:
        case 7:
            m["service"] = fmt::format("service-{}", random() % services);
            break;
        case 8:
        case 9:
        case 10:
        case 11:
        case 12:
        case 13:
            m["message"] = some() + " .*" + some();
            break;
        case 14:
        case 15:
        case 16:
            m["error_type"] = "Type" + some();
            break;
        case 17:
        case 18:
            m["service"] = fmt::format("service-{}", random() % services);
            m["message"] = "(?i)" + some();
            break;
        default:
            m["service"] = fmt::format("service-{}*", random() % services);
            m["level"] = "fatal";
    }
    info.matches.push_back(std::move(m));
    return info;
}

Incident incident(int i, const std::vector<std::string>& words, std::mt19937_64& random) {
    Incident in;
    in.fingerprint = in.record.fingerprint = fmt::format("{:016x}", random());
    in.service_name = in.record.service_name = in.target = fmt::format("service-{}", i % services);
    in.record.level = i % 50 == 0 ? Level::fatal : Level::error;
    for (int w = 0; w < 15; ++w) in.record.message += words[random() % words.size()] + ' ';
    in.record.error_type = "Type" + words[random() % words.size()];
    in.pattern = in.record.message;
    return in;
}

double now_us() {
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
}

json::object summary(std::vector<double>& us) {
    std::sort(us.begin(), us.end());
    const auto at = [&](double p) {
        return us[static_cast<std::size_t>(p * static_cast<double>(us.size() - 1))];
    };
    return {{"n", us.size()}, {"p50_us", at(0.5)}, {"p99_us", at(0.99)}, {"max_us", us.back()}};
}

}  // namespace

int main(int argc, char** argv) {
    const int kinds = argc > 1 ? std::atoi(argv[1]) : 100'000;
    std::mt19937_64 random{6};
    std::vector<std::string> words;
    for (int i = 0; i < 3000; ++i) words.push_back(word(random));
    std::vector<Incident> incidents;
    for (int i = 0; i < kinds; ++i) incidents.push_back(incident(i, words, random));

    json::object sizes;
    std::uint64_t fitted = 0, differ = 0;
    for (const int n : {10, 100, 1000}) {
        CatalogEntry artifact;
        artifact.state = ArtifactState::loaded;
        artifact.path = "bench";
        std::mt19937_64 same{7};
        std::vector<Matcher> all;
        for (int i = 0; i < n; ++i) {
            artifact.strategies.push_back(strategy(i, words, same));
            all.push_back(*Matcher::compile(artifact.strategies.back().matches, "bench"));
        }
        Strategies strategies;
        strategies.refresh({artifact}, Settings{}, {});
        const json::object target;
        std::vector<double> routed, asked;
        for (const auto& in : incidents) {
            auto start = now_us();
            auto candidates = strategies.fitting(in, target, [](Duration) { return std::uint64_t{1}; });
            apply_decision(decide(decision_input(candidates, {})), candidates);
            routed.push_back(now_us() - start);
            fitted += candidates.size();
            if (routed.size() % 20 != 0) continue;  // the slow way, now and then
            start = now_us();
            std::size_t fit = 0;
            for (const auto& m : all) fit += m.fits(in, target).has_value();
            asked.push_back(now_us() - start);
            differ += fit != candidates.size();
        }
        sizes[std::to_string(n)] =
            json::object{{"routed", summary(routed)}, {"asked one by one", summary(asked)}};
    }

    // As Hearing keeps it: one window per kind of error, each heard once.
    const auto used = [] { return ::mallinfo2().uordblks + ::mallinfo2().hblkhd; };
    const auto before = used();
    Recent<SlidingCount> hours{static_cast<std::size_t>(kinds)};
    for (const auto& in : incidents)
        hours.touch(
                 key_of_text(in.fingerprint), [](const SlidingCount&) {}
        ).add(Time{1'790'000'000'000'000}, 1);
    const double bytes = static_cast<double>(used() - before) / static_cast<double>(hours.size());
    fmt::print(
        "{}\n",
        json::serialize(json::object{
            {"kinds", kinds},
            {"strategies", std::move(sizes)},
            {"fitted", fitted},
            {"differ_from_one_by_one", differ},
            {"bytes_per_idle_fingerprint", bytes}})
    );
    return differ == 0 ? 0 : 1;
}
