// Runs one misbehaving artifact against Plugins and tells, as one JSON line, what became of it, how late the
// event loop got meanwhile (what /health would have felt), whether the next candidate heals, and what was
// left behind.
//   hostile_driver FILE CALL TIMEOUT_MS     FILE: put into the watched folder as it is; CALL: load, assess,
//   execute, verify, rollback, reconfigure
#include "../unit/runner_test_world.hpp"
#include "base/log.hpp"

#include <dirent.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>

using namespace heal;
using namespace heal::testing;
using namespace std::chrono_literals;

namespace {

std::size_t open_descriptors() {
    std::size_t n = 0;
    DIR* dir = ::opendir("/proc/self/fd");
    while (dir && ::readdir(dir)) ++n;
    if (dir) ::closedir(dir);
    return n;
}

// Children of this process, and whoever runs under a user that heald made up for a host.
std::vector<std::string> processes() {
    std::vector<std::string> out;
    DIR* proc = ::opendir("/proc");
    while (const dirent* entry = ::readdir(proc)) {
        const std::string pid = entry->d_name;
        if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
        std::ifstream in("/proc/" + pid + "/status");
        std::string line, name, parent, uid, state;
        while (std::getline(in, line)) {
            if (line.compare(0, 5, "Name:") == 0) name = line.substr(6);
            if (line.compare(0, 6, "State:") == 0) state = line.substr(7, 1);
            if (line.compare(0, 5, "PPid:") == 0) parent = line.substr(6);
            if (line.compare(0, 4, "Uid:") == 0) uid = line.substr(5, line.find('\t', 5) - 5);
        }
        // A zombie whose parent is init is dead; when init reaps it is its own business.
        if (parent == std::to_string(::getpid()) ||
            (state != "Z" && uid.size() == 10 && uid.compare(0, 3, "214") == 0 && parent == "1"))
            out.push_back(pid + " " + name);
    }
    ::closedir(proc);
    return out;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) return 2;
    const std::string file = argv[1], what = argv[2];
    const std::chrono::milliseconds timeout{std::stoi(argv[3])};
    log::set_up("hostile_driver", "off", log::Format::plain);
    json::object out;
    const std::size_t descriptors = open_descriptors();
    std::string world_folder;
    bool measuring = true;  // outlives the world, whose end still runs what its loop had queued
    {
        RunnerSettings settings;
        settings.start_timeout = 1s;
        World world{settings};
        world_folder = world.folder.path;
        world.script("a_fallback.lua", "return { name = 'fallback', execute = function() return true end }");
        world.start();

        // What a request to the engine would wait: the lateness of a 2 ms timer on the same loop.
        Duration worst{0};
        asio::steady_timer beat{world.context};
        std::function<void()> tick = [&] {
            const auto due = std::chrono::steady_clock::now() + 2ms;
            beat.expires_at(due);
            beat.async_wait([&, due](boost::system::error_code ec) {
                if (ec || !measuring) return;
                worst = std::max(
                    worst, std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - due)
                );
                tick();
            });
        };
        tick();

        const std::string name = fs::path{file}.filename().string();
        const std::string to =
            world.folder /
            ((name.size() > 4 && name.substr(name.size() - 4) == ".lua" ? "scripts/" : "plugins/") + name);
        fs::rename(file, to);  // with its owner, rights and kind
        const auto loaded_at = std::chrono::steady_clock::now();
        const auto until = loaded_at + 8s;
        while (!world.entry(name) && std::chrono::steady_clock::now() < until) {
            world.context.restart();
            world.context.run_one_for(20ms);
        }
        const CatalogEntry* entry = world.entry(name);
        out["state"] = entry ? to_string(entry->state) : "nothing";
        out["reason"] = entry ? entry->reason : "";
        out["load_ms"] = std::chrono::duration_cast<std::chrono::milliseconds>(
                             std::chrono::steady_clock::now() - loaded_at
        )
                             .count();
        if (what != "load" && entry && entry->state == ArtifactState::loaded) {
            StrategyCall call = world.call("hostile", {"exec:/bin/true"});
            call.timeout = timeout;
            if (what == "reconfigure") {
                world.execute(call);
                call.attempt += "b";
                call.request["config"] = json::object{{"n", 1}};
            }
            const auto begun = std::chrono::steady_clock::now();
            StrategyReply reply;
            if (what == "assess")
                reply = world.assess(std::move(call));
            else if (what == "verify")
                reply = world.verify(std::move(call));
            else if (what == "rollback")
                reply = world.run(world.plugins->runner().rollback(std::move(call), world.ledger));
            else
                reply = world.execute(std::move(call));
            out["took_ms"] = std::chrono::duration_cast<std::chrono::milliseconds>(
                                 std::chrono::steady_clock::now() - begun
            )
                                 .count();
            out["outcome"] = to_string(reply.outcome);
            out["crashed"] = reply.crashed;
            out["timed_out"] = reply.timed_out;
            out["text"] = reply.text;
            out["output_bytes"] = reply.output.size();
            out["effects"] = world.ledger.results.size();
        }
        const StrategyReply next = world.execute(world.call("fallback"));
        out["next_heals"] = next.outcome == Outcome::succeeded;
        if (next.outcome != Outcome::succeeded) out["next_text"] = next.text;
        out["worst_lateness_ms"] = static_cast<double>(worst.count()) / 1000;
        measuring = false;
        beat.cancel();
        world.run(world.plugins->runner().stop());
    }
    json::array left;
    for (const std::string& one : processes()) left.emplace_back(one);
    out["processes_left"] = std::move(left);
    out["descriptors_left"] =
        static_cast<std::int64_t>(open_descriptors()) - static_cast<std::int64_t>(descriptors);
    out["escaped"] = fs::exists("/tmp/heal-hostile-escape");
    std::cout << json::serialize(out) << std::endl;
    return 0;
}
