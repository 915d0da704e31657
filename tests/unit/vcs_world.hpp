// A folder that goes away, and programs run in it.
#pragma once

#include "vcs/process.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace heal::vcs {

class VcsTest : public ::testing::Test {
protected:
    VcsTest() {
        std::string name = "/tmp/heald-vcs-XXXXXX";
        folder = ::mkdtemp(name.data()) != nullptr ? name : "";
    }
    ~VcsTest() override {
        std::error_code ignored;
        if (!folder.empty()) std::filesystem::remove_all(folder, ignored);
    }

    static void write(const std::string& path, const std::string& content) {
        std::filesystem::create_directories(std::filesystem::path{path}.parent_path());
        std::ofstream{path, std::ios::binary} << content;
    }
    static std::string read(const std::string& path) {
        std::ifstream in{path, std::ios::binary};
        return {std::istreambuf_iterator<char>{in}, {}};
    }
    /// What it printed; the test fails when it fails.
    static std::string sh(const std::string& where, const std::string& script) {
        Program what;
        what.argv = {"/bin/sh", "-ec", script};
        what.env = {
            "PATH=/usr/bin:/bin",
            "HOME=/nonexistent",
            "GIT_CONFIG_NOSYSTEM=1",
            "GIT_AUTHOR_NAME=a",
            "GIT_AUTHOR_EMAIL=a@x",
            "GIT_COMMITTER_NAME=c",
            "GIT_COMMITTER_EMAIL=c@x",
            "GIT_AUTHOR_DATE=@1700000000 +0000",
            "GIT_COMMITTER_DATE=@1700000000 +0000"};
        what.folder = where;
        const std::atomic<bool> never{false};
        const auto end = run_program(what, never);
        EXPECT_TRUE(end && end->exit_code == 0) << script << "\n"
                                                << (end ? end->out + end->error : end.error().text);
        std::string out = end ? end->out : "";
        while (out.ends_with('\n')) out.pop_back();
        return out;
    }

    std::string folder;
    std::atomic<bool> cancel{false};
};

}  // namespace heal::vcs
