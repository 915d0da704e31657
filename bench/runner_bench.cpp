// What isolation costs: the same assess in this process and in a warm child, in one run; a cold start; an effect; a runaway script; growth over
// many calls; hot swaps under load. Prints one JSON object.
//   runner_bench [CALLS=100000] [SWAPS=1000]
#include "../tests/unit/runner_test_world.hpp"
#include "base/log.hpp"
#include "host/artifact.hpp"

#include <fmt/format.h>

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>

using namespace heal;
using namespace heal::testing;
using namespace std::chrono_literals;

namespace {

using Bench = std::chrono::steady_clock;

double since_us(Bench::time_point from) { return std::chrono::duration<double, std::micro>(Bench::now() - from).count(); }

json::object percentiles(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const auto at = [&](double q) { return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1))]; };
    return {{"n", values.size()}, {"p50", at(0.5)}, {"p95", at(0.95)}, {"p99", at(0.99)}, {"max", values.back()}};
}

std::int64_t resident_kb() {
    std::ifstream in("/proc/self/status");
    for (std::string line; std::getline(in, line);) {
        if (line.compare(0, 6, "VmRSS:") == 0) return std::stoll(line.substr(6));
    }
    return 0;
}

std::size_t descriptors() {
    std::size_t n = 0;
    DIR* dir = ::opendir("/proc/self/fd");
    while (dir && ::readdir(dir)) ++n;
    if (dir) ::closedir(dir);
    return n;
}

class NoContext final : public CallContext {
public:
    bool is_cancelled() override { return false; }
    std::chrono::milliseconds remaining() override { return 1s; }
    EffectAnswer perform(std::string_view, json::object) override { return {}; }
    void log(Level, std::string_view, json::object) override {}
};

StrategyCall realistic(World& world) {
    StrategyCall call = world.call("sample", {"exec:/bin/*"});
    auto& incident = call.request["incident"].as_object();
    incident["stack_trace"] = std::string(1500, 's');
    incident["fingerprint"] = "0123456789abcdef";
    incident["pattern"] = "connection to <ip> refused after <num> ms";
    return call;
}

asio::awaitable<void> assess_many(World& world, std::size_t n, std::vector<double>& ret_us) {
    for (std::size_t i = 0; i < n; ++i) {
        std::vector<StrategyCall> calls;
        calls.push_back(realistic(world));
        const auto from = Bench::now();
        const auto replies = co_await world.plugins->runner().assess(std::move(calls));
        ret_us.push_back(since_us(from));
        if (replies.at(0).outcome != Outcome::succeeded) throw std::runtime_error("assess: " + replies[0].text);
    }
}

asio::awaitable<void> attempts_while(World& world, const bool& going, std::size_t& ret_done, std::size_t& ret_lost, std::string& ret_why) {
    Ledger ledger;
    while (going) {
        StrategyCall call = realistic(world);
        const StrategyReply reply = co_await world.plugins->runner().execute(std::move(call), ledger);
        ++ret_done;
        if (reply.outcome != Outcome::succeeded) {
            ++ret_lost;
            ret_why = reply.text;
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    const std::size_t calls = argc > 1 ? std::stoul(argv[1]) : 100'000, swaps = argc > 2 ? std::stoul(argv[2]) : 1'000;
    log::set_up("runner_bench", "off", log::Format::plain);
    json::object out;
    {
        auto loaded = load_plugin(SAMPLE_PLUGIN, "sample.so");
        if (!loaded) return 1;
        World world;
        NoContext context;
        json::object request = realistic(world).request;
        request["config"] = json::object{{"do", "nothing"}, {"path", ""}, {"n", 3}};
        std::vector<double> us;
        for (int i = 0; i < 20'000; ++i) {
            const auto from = Bench::now();
            (*loaded)->call(CallFunction::assess, "sample", request, context);
            us.push_back(since_us(from));
        }
        out["in_process_assess_us"] = percentiles(std::move(us));
    }
    {
        World world;
        drop_in(SAMPLE_PLUGIN, world.folder / "plugins/sample.so");
        world.script("runaway.lua", "return { name = 'runaway', execute = function() while true do pcall(function() while true do end end) end end }");
        world.script("pattern.lua", "return { name = 'pattern', execute = function() return ('a'):rep(200000):find('.-.-.-.-b') end }");
        world.start();
        std::vector<double> us;
        world.run(assess_many(world, 2'000, us));
        us.clear();
        us.reserve(20'000);
        std::vector<double> rest(calls);  // touched now, so that the figures themselves don't count as growth
        rest.clear();
        const std::int64_t before_kb = resident_kb();
        const std::size_t before_fds = descriptors();
        world.run(assess_many(world, std::min<std::size_t>(calls, 20'000), us));
        out["warm_assess_us"] = percentiles(us);
        if (calls > 20'000) world.run(assess_many(world, calls - 20'000, rest));
        out["after_calls"] = json::object{{"calls", calls}, {"descriptors_more", static_cast<std::int64_t>(descriptors()) - static_cast<std::int64_t>(before_fds)},
            {"resident_kb_more", resident_kb() - before_kb}};
        us.clear();
        for (int i = 0; i < 500; ++i) {
            StrategyCall call = realistic(world);
            call.request["config"] = json::object{{"do", "exec"}};
            const auto from = Bench::now();
            const StrategyReply reply = world.execute(std::move(call));
            us.push_back(since_us(from));
            if (reply.outcome != Outcome::succeeded) throw std::runtime_error("execute: " + reply.text);
        }
        out["execute_with_one_command_us"] = percentiles(us);
        for (const char* name : {"runaway", "pattern"}) {
            std::vector<double> over_ms;
            for (int i = 0; i < 10; ++i) {
                StrategyCall call = world.call(name);
                call.timeout = 200ms;
                const auto from = Bench::now();
                world.execute(std::move(call));
                over_ms.push_back(since_us(from) / 1000 - 200);
            }
            out[std::string{name} + "_script_stops_after_deadline_ms"] = percentiles(std::move(over_ms));
        }
    }
    {
        RunnerSettings settings;
        settings.warm_for = 1ms;
        World world{settings};
        drop_in(SAMPLE_PLUGIN, world.folder / "plugins/sample.so");
        world.start();
        std::vector<double> us;
        for (int i = 0; i < 300; ++i) {
            const auto until = Bench::now() + 5ms;  // long enough for the idle host to end
            while (Bench::now() < until) {
                world.context.restart();
                world.context.run_one_for(1ms);
            }
            world.run(assess_many(world, 1, us));
        }
        out["cold_assess_us"] = percentiles(std::move(us));
    }
    {
        World world;
        drop_in(SAMPLE_PLUGIN, world.folder / "plugins/sample.so");
        world.start();
        bool going = true;
        std::size_t done = 0, lost = 0, loads = 0, ended = 0;
        std::string why;
        const auto begin_load = [&] {
            for (int i = 0; i < 2; ++i) asio::co_spawn(world.context, attempts_while(world, going, done, lost, why), [&](std::exception_ptr) { ++ended; });
        };
        std::vector<double> ms;
        const std::size_t before_fds = descriptors();
        std::int64_t before_kb = 0;
        begin_load();
        for (; loads < swaps; ++loads) {
            if (loads == std::min<std::size_t>(100, swaps / 2)) before_kb = resident_kb();
            const bool second = loads % 2 == 0;
            const auto from = Bench::now();
            drop_in(second ? SAMPLE_PLUGIN_2 : SAMPLE_PLUGIN, world.folder / "plugins/sample.so");
            world.drive([&] { return world.entry("sample.so")->strategies.at(0).version == (second ? "2.0.0" : "1.0.0"); });
            ms.push_back(since_us(from) / 1000);
        }
        going = false;
        world.drive([&] { return ended == 2; });
        const auto settle = Bench::now() + 700ms;  // replaced hosts end within their grace
        while (Bench::now() < settle) {
            world.context.restart();
            world.context.run_one_for(10ms);
        }
        out["hot_swaps"] = json::object{{"swaps", loads}, {"attempts", done}, {"attempts_lost", lost}, {"why", why}, {"swap_ms", percentiles(std::move(ms))},
            {"descriptors_more", static_cast<std::int64_t>(descriptors()) - static_cast<std::int64_t>(before_fds)}, {"resident_kb_more", resident_kb() - before_kb}};
    }
    std::cout << json::serialize(out) << std::endl;
    return 0;
}
