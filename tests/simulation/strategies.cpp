// A world in which the success rates of strategies are hidden and drift, to compare learned ranking with a
// static order. Published so that anyone can doubt it: strategy_simulator [--seeds N] [--incidents N] prints
// JSON.
//
// Per seed: 6 strategies of equal priority, one of them destructive (never allowed by itself); 8 kinds of
// error in 3 services. The hidden success rate of a strategy on a kind of error is a level in [0.05, 0.95]
// that swings by up to 0.3 with a period of 20 to 120 days. Authors declare the mean over all kinds with an
// error of up to 0.2. Incidents come over 90 days; for each, strategies are tried in order until one helps or
// five have failed. Both orders meet the same incidents and the same luck.
#include "core/decision.hpp"
#include "core/guard_scene.hpp"
#include "core/router.hpp"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>

namespace {

using namespace heal;
using namespace std::chrono_literals;

constexpr int strategies = 6, kinds = 8, services = 3, destructive = 5;
constexpr double pi = 3.14159265358979323846;

struct World {
    explicit World(std::uint64_t seed) : random(seed) {
        std::uniform_real_distribution<double> unit{0, 1};
        for (int s = 0; s < strategies; ++s) {
            double sum = 0;
            for (int k = 0; k < kinds; ++k) {
                level[s][k] = 0.05 + 0.9 * unit(random);
                swing[s][k] = 0.3 * unit(random);
                period[s][k] = (20 + 100 * unit(random)) * 86'400;
                phase[s][k] = 2 * pi * unit(random);
                sum += level[s][k];
            }
            declared[s] = std::clamp(sum / kinds + 0.4 * unit(random) - 0.2, 0.05, 0.95);
        }
    }
    double rate(int s, int k, double seconds) const {
        return std::clamp(
            level[s][k] + swing[s][k] * std::sin(2 * pi * seconds / period[s][k] + phase[s][k]), 0.02, 0.98
        );
    }
    std::mt19937_64 random;
    double level[strategies][kinds]{}, swing[strategies][kinds]{}, period[strategies][kinds]{},
        phase[strategies][kinds]{}, declared[strategies]{};
};

struct Bins {
    std::array<double, 10> predicted{}, good{}, n{};
    void add(double confidence, bool success) {
        const auto i = std::min<std::size_t>(9, static_cast<std::size_t>(confidence * 10));
        predicted[i] += confidence, good[i] += success, n[i] += 1;
    }
    double ece() const {
        double sum = 0, all = 0;
        for (std::size_t i = 0; i < 10; ++i) {
            all += n[i];
            sum += std::abs(predicted[i] - good[i]);
        }
        return all > 0 ? sum / all : 0;
    }
};

struct Score {
    std::uint64_t failed = 0, unhealed = 0, breaches = 0;
    Bins bins;
};

/// The luck of one try, the same for both orders.
bool lucky(std::uint64_t seed, int incident, int strategy, double rate) {
    std::uint64_t x = seed * 0x9E3779B97F4A7C15ULL + static_cast<std::uint64_t>(incident) * 64 +
                      static_cast<std::uint64_t>(strategy);
    x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27U)) * 0x94D049BB133111EBULL;
    return static_cast<double>((x ^ (x >> 31U)) >> 11U) / 9007199254740992.0 < rate;
}

void run(std::uint64_t seed, int incidents, bool learns, Score& score) {
    World world{seed};
    std::mt19937_64 arrivals{seed ^ 0xABCDEF};
    OutcomeBook book;
    GuardScene scene{Time{0}};
    auto& limits = scene.limits;
    limits.strategy_per_hour = limits.target_per_hour = limits.service_per_hour = 1000;
    limits.breaker_failures = 0, limits.flap_high = 0;
    limits.repeat_after = 0ms;
    limits.budget_per_day = 10'000;
    const Time start{1'790'000'000'000'000};
    for (int i = 0; i < incidents; ++i) {
        const double seconds = 90.0 * 86'400 * i / incidents;
        const Time now = start + Duration{static_cast<std::int64_t>(seconds * 1e6)};
        const int kind = static_cast<int>(arrivals() % kinds);
        Incident incident;
        incident.id = fmt::format("e{}", i);
        incident.fingerprint = fmt::format("f{}", kind);
        incident.service_name = incident.target = fmt::format("svc{}", kind % services);
        std::vector<Candidate> candidates(strategies);
        for (int s = 0; s < strategies; ++s) {
            auto& c = candidates[static_cast<std::size_t>(s)];
            c.info.name = fmt::format("s{}", s);
            c.info.risk = s == destructive ? Risk::destructive : s == 4 ? Risk::disruptive : Risk::safe;
            c.autonomy = Autonomy::automatic;
            c.priority = 50;
            c.prior = world.declared[s];
            if (learns)
                c.learned = book.learned(c.info.name, incident.fingerprint, incident.service_name, now);
        }
        apply_decision(decide(decision_input(candidates, {})), candidates);
        unsigned tried = 0;
        bool healed = false;
        for (const auto& c : candidates) {
            auto& in = scene.in;
            in.incident = &incident;
            in.candidate = &c;
            in.attempts_of_incident = tried;
            in.now = now;
            if (!evaluate_guards(in).allowed()) continue;
            if (c.info.risk > Risk::disruptive || tried >= limits.attempts_per_incident) ++score.breaches;
            ++tried;
            const int s = c.info.name[1] - '0';
            const bool success = lucky(seed, i, s, world.rate(s, kind, seconds));
            scene.history.started(
                {fmt::format("{}-{}", i, s),
                 incident.id,
                 incident.fingerprint,
                 incident.target,
                 c.info.name,
                 now,
                 now}
            );
            score.bins.add(c.confidence, success);
            book.record(c.info.name, incident.fingerprint, incident.service_name, success, now);
            score.failed += !success;
            if (success) {
                healed = true;
                break;
            }
        }
        score.unhealed += !healed;
        scene.history.forget_before(now - 25h);
    }
}

}  // namespace

int main(int argc, char** argv) {
    std::uint64_t seeds = 100;
    int incidents = 2000;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (std::strcmp(argv[i], "--seeds") == 0) seeds = std::strtoull(argv[i + 1], nullptr, 10);
        if (std::strcmp(argv[i], "--incidents") == 0) incidents = std::atoi(argv[i + 1]);
    }
    Score fixed, learned;
    double worst = 1;
    for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
        const auto before_fixed = fixed.failed, before_learned = learned.failed;
        run(seed, incidents, false, fixed);
        run(seed, incidents, true, learned);
        const auto a = static_cast<double>(fixed.failed - before_fixed),
                   b = static_cast<double>(learned.failed - before_learned);
        worst = std::min(worst, 1 - b / a);
    }
    const double less = 1 - static_cast<double>(learned.failed) / static_cast<double>(fixed.failed);
    fmt::print(
        "{{\"seeds\": {}, \"incidents\": {}, \"failed_static\": {}, \"failed_learned\": {}, "
        "\"fewer_failed\": {:.4f}, "
        "\"fewer_failed_worst_seed\": {:.4f}, \"unhealed_static\": {}, \"unhealed_learned\": {}, \"ece\": "
        "{:.4f}, "
        "\"guard_breaches\": {}}}\n",
        seeds,
        incidents,
        fixed.failed,
        learned.failed,
        less,
        worst,
        fixed.unhealed,
        learned.unhealed,
        learned.bins.ece(),
        fixed.breaches + learned.breaches
    );
    return less >= 0.30 && learned.bins.ece() <= 0.05 && fixed.breaches + learned.breaches == 0 ? 0 : 1;
}
