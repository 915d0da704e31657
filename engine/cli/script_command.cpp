#include "cli/script_command.hpp"

#include <fmt/format.h>

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

namespace heal::cli {
namespace {

// This process has nothing left to do: it becomes the other one.
int become(const std::string& binary, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), binary);
    std::vector<char*> argv;
    for (std::string& word : arguments) argv.push_back(word.data());
    argv.push_back(nullptr);
    std::fflush(stdout);
    ::execv(binary.c_str(), argv.data());
    fmt::print(stderr, "healctl: cannot run {}: {}; it is installed beside healctl\n", binary, std::strerror(errno));
    return 1;
}

}  // namespace

int script_check(const std::string& host_binary, const std::string& file) { return become(host_binary, {"--check", file}); }

int script_run(const std::string& host_binary, const std::string& file, const std::string& event_file, const std::string& call, bool dry_run) {
    std::vector<std::string> arguments{"--run", file, "--event", event_file, "--call", call};
    if (dry_run) arguments.emplace_back("--dry-run");
    return become(host_binary, std::move(arguments));
}

}  // namespace heal::cli
