#include "cli/strategy_project.hpp"

#include <fmt/format.h>

#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <vector>

namespace heal::cli {
namespace {

struct Part {
    std::string name, text;
    bool executable = false;
};

// @NAME@ and @TYPE@ are replaced; the texts are whole files as an author would write them.
constexpr const char* cpp_strategy = R"file(// @NAME@: keeps a log folder of the target small by removing the oldest rotated file.
#include <heal/sdk.hpp>

#include <algorithm>

using namespace std::chrono_literals;

struct @TYPE@ {
    static constexpr heal::descriptor about{
        .name = "@NAME@",
        .version = "0.1.0",
        .summary = "Removes the oldest rotated log file",
        .risk = heal::risk::safe,
        .idempotent = true,
        .reversible = true,
        .timeout = 10s,
        // Asked when an error of any service says that a disk is full and the inventory knows a log folder.
        .matches = R"j([{"message": "No space left on device", "target": ["log_folder"]}])j",
        // Filled from the inventory; the strategy can't touch anything else.
        .capabilities = {"file:{target.log_folder}/*"},
    };
    static heal::parameters parameters() {
        return {heal::integer("keep").range(0, 1000).by_default(5).summary("rotated files that stay")};
    }

    explicit @TYPE@(const heal::json& config) : keep_(static_cast<std::size_t>(config["keep"].int_or(5))) {}

    double assess(const heal::request& rq, heal::call&) const { return rq.target()["log_folder"] ? 0.7 : 0.0; }

    heal::outcome execute(const heal::request& rq, heal::call& call) const {
        const std::string folder = rq.target()["log_folder"].string_or("");
        std::vector<std::pair<std::int64_t, std::string>> rotated;
        for (const heal::json& file : call.list_files(folder)) {
            const std::string name = file["name"].string_or("");
            if (file["type"].view() == "file" && name.find(".log.") != std::string::npos) rotated.emplace_back(file["modified_us"].int_or(0), name);
        }
        if (rotated.size() <= keep_) return heal::outcome::declined("no more than " + std::to_string(keep_) + " rotated files");
        const auto oldest = std::min_element(rotated.begin(), rotated.end());
        call.remove_file(folder + "/" + oldest->second);  // recorded, and put back should the attempt fail
        return heal::outcome::succeeded("removed " + oldest->second);
    }

private:
    std::size_t keep_;
};

HEAL_PLUGIN(@TYPE@);
)file";

constexpr const char* cpp_test = R"file(#include "strategy.cpp"

#include <heal/sdk_fake.hpp>

// One program, no framework: ends with 0 when all holds.
int main() {
    heal::fake::host host;
    const auto rq = heal::fake::request({{"target", heal::json::object({{"log_folder", "/var/log/app"}})}});
    host.answer("list_files", heal::json::object({{"files", heal::json::array({
        heal::json::object({{"name", "app.log.1"}, {"type", "file"}, {"modified_us", 2}}),
        heal::json::object({{"name", "app.log.2"}, {"type", "file"}, {"modified_us", 1}})})}}));

    host.expect(host.assess<@TYPE@>(rq) > 0.5, "it is sure when the folder is known");

    const auto kept = host.execute<@TYPE@>(rq);
    host.expect(kept.status == HEAL_DECLINED, "five files may stay");

    const auto removed = host.execute<@TYPE@>(rq, heal::json::object({{"keep", 1}}));
    host.expect(removed.status == HEAL_OK, "one is too many");
    host.expect(host.effects().back().kind == "remove_file", "it removes a file");
    host.expect(host.effects().back().parameters["path"].view() == "/var/log/app/app.log.2", "the oldest one");
    return host.result();
}
)file";

constexpr const char* cpp_cmake = R"file(cmake_minimum_required(VERSION 3.20)
project(@TYPE@ LANGUAGES CXX)
# Not in a default place? cmake -DCMAKE_PREFIX_PATH=/where/heald/is
find_package(heald REQUIRED)
enable_testing()
heal_add_strategy(@NAME@ SOURCES strategy.cpp TEST strategy_test.cpp)
)file";

constexpr const char* cpp_readme = R"file(# @NAME@

    cmake -B build && cmake --build build && ctest --test-dir build --output-on-failure
    healctl script check build/plugins/@NAME@.so      # what it says of itself
    cp build/plugins/@NAME@.so PLUGINS/.tmp && mv PLUGINS/.tmp PLUGINS/@NAME@.so

Without CMake: `c++ -std=c++20 -shared -fPIC -fvisibility=hidden strategy.cpp -o @NAME@.so`
)file";

constexpr const char* lua_strategy = R"file(-- @NAME@: keeps a log folder of the target small by removing the oldest rotated file.
---@type heal.strategy
return {
  name = "@NAME@",
  version = "0.1.0",
  summary = "Removes the oldest rotated log file",
  risk = "safe",
  idempotent = true,
  reversible = true,
  timeout_ms = 10000,
  -- Asked when an error of any service says that a disk is full and the inventory knows a log folder.
  matches = { { message = "No space left on device", target = { "log_folder" } } },
  -- Filled from the inventory; the script can't touch anything else.
  capabilities = { "file:{target.log_folder}/*" },
  parameters = { type = "object", properties = { keep = { type = "integer", minimum = 0, maximum = 1000, default = 5 } } },

  assess = function(request) return request.target.log_folder and 0.7 or nil end,

  execute = function(request, call)
    local folder = request.target.log_folder
    local rotated = {}
    for _, file in ipairs(call.list_files(folder).files) do
      if file.type == "file" and file.name:find(".log.", 1, true) then rotated[#rotated + 1] = file end
    end
    if #rotated <= request.config.keep then return { outcome = "declined", text = "no more than " .. request.config.keep .. " rotated files" } end
    table.sort(rotated, function(a, b) return a.modified_us < b.modified_us end)
    call.remove_file(folder .. "/" .. rotated[1].name) -- recorded, and put back should the attempt fail
    return { outcome = "succeeded", text = "removed " .. rotated[1].name }
  end,
}
)file";

constexpr const char* lua_test = R"file(#!/bin/sh
# Runs the script on a folder of its own, without heald.
set -e
cd "$(dirname "$0")"
healctl=${HEALCTL:-healctl}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
touch -d '2 days ago' "$folder/app.log.2"
touch -d '1 day ago' "$folder/app.log.1"
printf '{"incident": {"service": "app"}, "target": {"log_folder": "%s"}, "config": {"keep": 1}}' "$folder" > "$folder/event.json"
"$healctl" script check @NAME@.lua
"$healctl" script run @NAME@.lua --event "$folder/event.json"
test ! -e "$folder/app.log.2" && test -e "$folder/app.log.1"
echo passed
)file";

constexpr const char* lua_readme = R"file(# @NAME@

    ./test.sh                                      # tries it without heald
    healctl script run @NAME@.lua --event event.json --dry-run
    cp @NAME@.lua SCRIPTS/.tmp && mv SCRIPTS/.tmp SCRIPTS/@NAME@.lua
)file";

constexpr const char* lua_event = R"file({"incident": {"service": "app", "message": "write failed: No space left on device"},
 "target": {"log_folder": "/var/log/app"}, "config": {"keep": 5}}
)file";

std::string filled(std::string text, const std::string& name, const std::string& type) {
    for (const auto& [mark, value] : {std::pair<std::string, std::string>{"@NAME@", name}, {"@TYPE@", type}}) {
        for (std::size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + value.size())) text.replace(at, mark.size(), value);
    }
    return text;
}

}  // namespace

result<void> new_strategy(const std::string& name, bool lua) {
    const bool good = !name.empty() && name.size() <= 64 && name[0] >= 'a' && name[0] <= 'z' && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
    });
    if (!good) return fail(errc::invalid_input, fmt::format("'{}' is no name for a strategy; use a-z, 0-9, '.', '-' and '_', beginning with a letter", name));
    std::string type = name;
    for (char& c : type) {
        if (c == '.' || c == '-') c = '_';
    }
    type += "_strategy";
    std::error_code ec;
    if (std::filesystem::exists(name, ec)) return fail(errc::conflict, fmt::format("{} exists already", name));
    std::filesystem::create_directory(name, ec);
    if (ec) return fail(errc::io, fmt::format("cannot make the folder {}: {}", name, ec.message()));
    std::vector<Part> parts;
    if (lua) parts = {{name + ".lua", lua_strategy}, {"event.json", lua_event}, {"test.sh", lua_test, true}, {"README.md", lua_readme}};
    else parts = {{"CMakeLists.txt", cpp_cmake}, {"strategy.cpp", cpp_strategy}, {"strategy_test.cpp", cpp_test}, {"README.md", cpp_readme}};
    for (const Part& part : parts) {
        const std::string path = name + "/" + part.name;
        std::ofstream out{path};
        out << filled(part.text, name, type);
        out.close();
        if (!out) return fail(errc::io, fmt::format("cannot write {}", path));
        if (part.executable) ::chmod(path.c_str(), 0755);
    }
    fmt::print("made {}/; see {}/README.md\n", name, name);
    return {};
}

}  // namespace heal::cli
