// Which code belongs to which service, how it is built, tested, deployed and watched: the part `repositories`
// of the configuration. What is done with it: analyst.hpp (reads the code), fixer.hpp (changes it).
#pragma once

#include "core/patch_machine.hpp"
#include "service/probe_settings.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace heal {

/// A command of the build, the tests or the deployment.
struct CommandSettings {
    std::string name;               ///< for people; the program's name when none is given
    std::vector<std::string> argv;  ///< never a shell by itself
    std::chrono::milliseconds timeout{600'000};
    bool idempotent = false;  ///< of deploy hooks: may run again after a crash in its middle
};

/// How far it goes by itself.
enum class FixAutonomy : std::uint8_t {
    off,      ///< code is neither read nor changed
    suggest,  ///< analysed; suggestions, nothing is tried
    trial,    ///< suggestions are tried in the sandbox; a person approves (default)
    merge     ///< full autonomy: what passes every gate and test is merged and deployed
};

struct RepositorySettings {
    std::string name;                   ///< [a-z0-9_.-]+
    std::vector<std::string> services;  ///< whose errors its code throws
    std::string url, branch = "main";
    std::string token;  ///< of git over https
    FixAutonomy autonomy = FixAutonomy::trial;
    std::vector<CommandSettings> build, reproduce,
        tests;  ///< reproduce: tests that fail while the bug is there; none: `tests`
    std::vector<std::string> allowed, forbidden, test_files;  ///< globs, vcs/gates.hpp
    unsigned max_files = 10, max_lines = 400;
    std::uint64_t memory_bytes = 4ULL << 30U;
    unsigned processes = 256;
    std::string sandbox = "rlimits";         ///< the weakest confinement that will do
    std::map<std::string, std::string> env;  ///< of build and tests

    std::string forge_kind, forge_url, forge_project,
        forge_token;                                ///< kind "": branches are pushed, no requests
    std::string forge_api_version = "2022-11-28";   ///< GitHub's
    PatchPlan::Land land = PatchPlan::Land::merge;  ///< default: request with a forge, else merge
    bool draft = false;
    std::vector<std::string> labels{"heald"};
    std::string author = "heald <heald@localhost>";

    std::vector<CommandSettings> deploy, undeploy;  ///< undeploy: after a revert; none: `deploy` again
    std::vector<ProbeSettings> probes;              ///< besides those of the services
    PatchHorizons horizons;
};

}  // namespace heal
