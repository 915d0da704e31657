#include "vcs/gates.hpp"

#include "vcs/special_case.hpp"
#include "vcs/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

namespace heal::vcs {
namespace {

using Changes = std::vector<FileChange>;

constexpr unsigned symbolic_link = 0120000, submodule = 0160000;

/// What decides about building, shipping and secrets; matched in lower case.
constexpr std::string_view built_in_forbidden[] = {
    // CI
    ".github/**",
    ".gitlab-ci.yml",
    "**/.gitlab-ci.yml",
    ".gitlab/**",
    "**/jenkinsfile",
    "**/jenkinsfile.*",
    ".circleci/**",
    "**/azure-pipelines*.yml",
    "**/azure-pipelines*.yaml",
    ".azure-pipelines/**",
    ".travis.yml",
    ".drone.yml",
    ".drone.star",
    "**/bitbucket-pipelines.yml",
    ".buildkite/**",
    ".woodpecker*",
    ".woodpecker/**",
    "appveyor.yml",
    ".appveyor.yml",
    ".cirrus.yml",
    ".teamcity/**",
    ".semaphore/**",
    ".gitea/**",
    ".forgejo/**",
    "codeowners",
    "docs/codeowners",
    "**/cloudbuild.y*ml",
    "**/buildspec.y*ml",
    // locks
    "**/package-lock.json",
    "**/npm-shrinkwrap.json",
    "**/yarn.lock",
    "**/pnpm-lock.yaml",
    "**/bun.lockb",
    "**/bun.lock",
    "**/deno.lock",
    "**/cargo.lock",
    "**/go.sum",
    "**/go.work.sum",
    "**/poetry.lock",
    "**/pdm.lock",
    "**/uv.lock",
    "**/pipfile.lock",
    "**/composer.lock",
    "**/gemfile.lock",
    "**/packages.lock.json",
    "**/gradle.lockfile",
    "**/mix.lock",
    "**/pubspec.lock",
    "**/podfile.lock",
    "**/package.resolved",
    "**/conan.lock",
    "**/flake.lock",
    "**/vcpkg-lock.json",
    // what git, package managers and editors run by themselves
    "**/.gitattributes",
    "**/.gitmodules",
    "**/.gitignore",
    "**/.gitconfig",
    "**/.githooks/**",
    "**/.husky/**",
    "**/.pre-commit-config.yaml",
    "**/lefthook.yml",
    "**/.lfsconfig",
    "**/.npmrc",
    "**/.yarnrc",
    "**/.yarnrc.yml",
    "**/.pypirc",
    "**/pip.conf",
    "**/.envrc",
    "**/.vscode/**",
    "**/.idea/**",
    "**/.devcontainer/**",
    "**/.bazelrc",
    "**/.mvn/**",
    "**/sitecustomize.py",
    "**/usercustomize.py",
    // secrets
    "**/.env",
    "**/.env.*",
    "**/*.env",
    "**/*.pem",
    "**/*.key",
    "**/*.p12",
    "**/*.pfx",
    "**/*.jks",
    "**/*.keystore",
    "**/*.kdbx",
    "**/id_rsa*",
    "**/id_dsa*",
    "**/id_ecdsa*",
    "**/id_ed25519*",
    "**/*.asc",
    "**/*.gpg",
    "**/credentials",
    "**/credentials.*",
    "**/.credentials/**",
    "**/secrets",
    "**/secrets.*",
    "**/secrets/**",
    "**/.netrc",
    "**/.git-credentials",
    "**/.htpasswd",
    "**/.aws/**",
    "**/.ssh/**",
    "**/.kube/**",
    "**/.docker/config.json",
    "**/service-account*.json",
    "**/*.tfstate",
    "**/*.tfvars"};

constexpr std::string_view usual_tests[] = {
    "test/**",        "tests/**",    "**/test/**",     "**/tests/**",    "**/__tests__/**",
    "spec/**",        "**/spec/**",  "**/testdata/**", "**/fixtures/**", "**/__snapshots__/**",
    "**/src/test/**", "**/*_test.*", "**/*_tests.*",   "**/*-test.*",    "**/*.test.*",
    "**/test_*",      "**/test-*",   "**/*_spec.*",    "**/*.spec.*",    "**/*test.java",
    "**/*tests.java", "**/*test.kt", "**/*tests.cs",   "**/*test.cs",    "**/*test.php",
    "**/*.t",         "**/*.snap",   "**/test.*",      "**/tests.*"};

/// What says which tests run and how; also a new one can switch tests off.
constexpr std::string_view test_set_up[] = {
    "**/conftest.py",
    "**/pytest.ini",
    "**/tox.ini",
    "**/noxfile.py",
    "**/.coveragerc",
    "**/jest.config.*",
    "**/vitest.config.*",
    "**/vitest.workspace.*",
    "**/karma.conf.*",
    "**/.mocharc*",
    "**/phpunit.xml*",
    "**/playwright.config.*",
    "**/cypress.config.*",
    "**/.rspec",
    "**/ctesttestfile.cmake",
    "**/ctestcustom.cmake",
    "**/testng.xml",
    "**/junit-platform.properties"};

template <class Globs>
std::string_view first_match(const Globs& globs, std::string_view path) {
    for (const auto& glob : globs)
        if (matches_path(glob, path)) return glob;
    return {};
}

std::string in_quotes(std::string_view text) {
    std::string out{trim(text).substr(0, 120)};
    for (char& c : out)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    return "'" + to_valid_utf8(out) + "'";
}

/// The lines of a change, with the numbers that a reader sees.
struct Lines {
    std::vector<std::pair<unsigned, std::string_view>> removed, added;
};
Lines changed_lines(const FileChange& change) {
    const auto before = lines_of(change.before ? std::string_view{*change.before} : std::string_view{});
    const auto after = lines_of(change.after ? std::string_view{*change.after} : std::string_view{});
    Lines out;
    for (const LineChange& c : diff_lines(before, after)) {
        if (c.kind == LineChange::Kind::removed) out.removed.emplace_back(c.before + 1, before[c.before]);
        if (c.kind == LineChange::Kind::added) out.added.emplace_back(c.after + 1, after[c.after]);
    }
    return out;
}

bool changed(const FileChange& c) { return c.before != c.after || c.mode_before != c.mode_after; }

std::string path_fault(std::string_view path) {
    if (path.empty()) return "a path is empty";
    if (path.size() > 1024) return "a path is longer than 1024 bytes";
    if (path.front() == '/') return fmt::format("{} is an absolute path", in_quotes(path));
    for (const char c : path)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
            return fmt::format("{} holds a control character", in_quotes(path));
    if (path.find('\\') != std::string_view::npos)
        return fmt::format("{} holds a backslash", in_quotes(path));
    if (path.find(':') != std::string_view::npos) return fmt::format("{} holds a colon", in_quotes(path));
    if (to_valid_utf8(path) != path) return fmt::format("{} is not UTF-8", in_quotes(path));
    for (auto rest = path;;) {
        const auto slash = rest.find('/');
        const auto part = rest.substr(0, slash);
        if (part.empty() || part == "." || part == "..")
            return fmt::format("{} leaves the repository", in_quotes(path));
        if (part.back() == '.' || part.back() == ' ' || part.front() == ' ')
            return fmt::format("{} has a part that ends with a dot or blank", in_quotes(path));
        const std::string folded = lower(part);
        // git itself refuses these (and their short and hidden forms) in a tree, but not everything that
        // unpacks one does.
        if (folded == ".git" || folded == "git~1" || folded.starts_with(".git\xe2\x80\x8c") ||
            folded.starts_with(".git::"))
            return fmt::format("{} is git's own folder", in_quotes(path));
        // Zero-width characters make another name look like one that is forbidden or known.
        for (const std::string_view hidden :
             {"\xe2\x80\x8b", "\xe2\x80\x8c", "\xe2\x80\x8d", "\xe2\x80\xae", "\xef\xbb\xbf"})
            if (part.find(hidden) != std::string_view::npos)
                return fmt::format("{} holds an invisible character", in_quotes(path));
        if (slash == std::string_view::npos) return {};
        rest.remove_prefix(slash + 1);
    }
}

std::string check_paths(const Changes& changes, const GateRules& rules) {
    std::map<std::string, std::string_view> folded;
    for (const FileChange& c : changes) {
        if (auto fault = path_fault(c.path); !fault.empty()) return fault;
        if (auto [it, fresh] = folded.emplace(lower(c.path), c.path); !fresh)
            return fmt::format("{} and {} differ in case alone", in_quotes(it->second), in_quotes(c.path));
        if (!rules.allowed.empty() && first_match(rules.allowed, c.path).empty())
            return fmt::format("{} is not among the allowed paths", in_quotes(c.path));
    }
    return {};
}

std::string check_links(const Changes& changes) {
    for (const FileChange& c : changes) {
        if (!changed(c)) continue;
        for (const unsigned mode : {c.mode_before, c.mode_after}) {
            if ((mode & 0170000U) == symbolic_link)
                return fmt::format("{} is a symbolic link", in_quotes(c.path));
            if ((mode & 0170000U) == submodule) return fmt::format("{} is a submodule", in_quotes(c.path));
        }
        if ((c.mode_after & 07000U) != 0)
            return fmt::format("{} would be setuid, setgid or sticky", in_quotes(c.path));
        if (c.mode_before != 0 && c.mode_after != 0 && c.mode_before != c.mode_after)
            return fmt::format(
                "{} changes its mode from {:o} to {:o}", in_quotes(c.path), c.mode_before, c.mode_after
            );
        if (c.mode_before == 0 && (c.mode_after & 0111U) != 0)
            return fmt::format("{} is new and executable", in_quotes(c.path));
        // A file under what is a link in this very patch would be written through it.
        for (const FileChange& other : changes)
            if ((other.mode_after & 0170000U) == symbolic_link && c.path.starts_with(other.path + "/"))
                return fmt::format(
                    "{} lies below the symbolic link {}", in_quotes(c.path), in_quotes(other.path)
                );
    }
    return {};
}

std::string check_size(const Changes& changes, const GateRules& rules) {
    std::size_t files = 0, lines = 0, bytes = 0;
    for (const FileChange& c : changes) {
        if (!changed(c)) continue;
        ++files;
        const auto l = changed_lines(c);
        lines += l.removed.size() + l.added.size();
        for (const auto& [n, text] : l.removed) bytes += text.size();
        for (const auto& [n, text] : l.added) bytes += text.size();
    }
    if (files == 0) return "the patch changes nothing";
    if (files > rules.max_files)
        return fmt::format("{} files are changed, {} are allowed", files, rules.max_files);
    if (lines > rules.max_lines)
        return fmt::format("{} lines are added or removed, {} are allowed", lines, rules.max_lines);
    if (bytes > rules.max_bytes)
        return fmt::format("{} bytes are added or removed, {} are allowed", bytes, rules.max_bytes);
    return {};
}

std::string check_protected(const Changes& changes, const GateRules& rules) {
    for (const FileChange& c : changes) {
        if (!changed(c)) continue;
        if (const auto glob = first_match(built_in_forbidden, lower(c.path)); !glob.empty())
            return fmt::format("{} is protected ({})", in_quotes(c.path), glob);
        if (const auto glob = first_match(rules.forbidden, c.path); !glob.empty())
            return fmt::format("{} is forbidden by the configuration ({})", in_quotes(c.path), glob);
    }
    return {};
}

// --- tests -----------------------------------------------------------------------------------------------

/// The lines that assert, comments left out, and how often each is there.
std::map<std::string_view, unsigned> assertions(std::string_view path, std::string_view content) {
    const auto lines = lines_of(content);
    std::map<std::string_view, unsigned> out;
    unsigned last = ~0U;
    for (const Token& t : tokens_of(content, has_hash_comments(path)))
        if (t.kind == Token::Kind::word && is_assertion_word(t.text) && std::exchange(last, t.line) != t.line)
            ++out[trim(lines[t.line])];
    return out;
}

constexpr std::string_view skip_marks[] = {
    "GTEST_SKIP",
    "DISABLED_",
    "BOOST_AUTO_TEST_CASE_EXPECTED_FAILURES",
    "@skip",
    "@unittest.skip",
    "pytest.skip",
    "pytest.mark.skip",
    "mark.skip",
    "mark.xfail",
    "xfail",
    "SkipTest",
    "skipTest",
    "skipIf",
    "expectedFailure",
    "importorskip",
    "collect_ignore",
    ".skip(",
    ".only(",
    ".todo(",
    "xit(",
    "xdescribe(",
    "xtest(",
    "fit(",
    "fdescribe(",
    "@Disabled",
    "@Ignore",
    "t.Skip",
    "t.SkipNow",
    "#[ignore",
    "[Ignore",
    "[Skip",
    "Skip =",
    "markTestSkipped",
    "markTestIncomplete",
    "WILL_FAIL",
    "DISABLED TRUE",
    "--deselect",
    "--ignore=",
    "assumeTrue",
    "assumeFalse",
    "Assume.",
    "ASSUME",
    "should_panic"};

/// What ends a test program as if it had passed, or takes its assertions away.
constexpr std::string_view cheats[] = {
    "NDEBUG",
    "#define assert",
    "#undef assert",
    "PYTHONOPTIMIZE",
    "_Exit(0",
    "_exit(0",
    "exit(0)",
    "exit(EXIT_SUCCESS",
    "sys.exit()",
    "sys.exit(0",
    "os._exit",
    "process.exit(0",
    "process.exit()",
    "process.exitCode",
    "System.exit(0",
    "os.Exit(0",
    "quick_exit",
    "Environment.Exit(0",
    "SIGABRT",
    "__assert_fail",
    "sys.excepthook",
    "unhandledRejection",
    "uncaughtException",
    "continue-on-error",
    "set_terminate",
    "__attribute__((constructor",
    "[[gnu::constructor",
    "atexit",
    "PYTEST_CURRENT_TEST",
    "JEST_WORKER_ID",
    "RUNNING_TESTS"};

std::string check_tests(const Changes& changes, const GateRules& rules) {
    for (const FileChange& c : changes) {
        if (!changed(c)) continue;
        const bool test = is_test_path(rules, c.path),
                   set_up = !first_match(test_set_up, lower(c.path)).empty();
        if (set_up) return fmt::format("{} says which tests run", in_quotes(c.path));
        if (test && c.before && !c.after)
            return fmt::format("the test file {} is deleted or renamed", in_quotes(c.path));
        const auto lines = changed_lines(c);
        const std::string_view after = c.after ? std::string_view{*c.after} : std::string_view{};
        if (test && c.before) {
            for (const auto& [n, text] : lines.removed)
                if (!trim(text).empty())
                    return fmt::format(
                        "the test {}, line {}, is changed or removed: {}",
                        in_quotes(c.path),
                        n,
                        in_quotes(text)
                    );
            const auto whole = lines_of(after);
            for (const auto& [n, text] : lines.added) {
                for (const auto mark : skip_marks)
                    if (text.find(mark) != std::string_view::npos)
                        return fmt::format(
                            "the test {} is skipped at line {}: {}", in_quotes(c.path), n, in_quotes(text)
                        );
                const auto t = trim(text);
                for (const std::string_view word :
                     {"#if", "#ifdef", "#ifndef", "#else", "#endif", "=begin", "__END__"})
                    if (t.starts_with(word))
                        return fmt::format(
                            "the test {}, line {}, may be left out by {}",
                            in_quotes(c.path),
                            n,
                            in_quotes(text)
                        );
                // Within a test that was there, what comes before an assertion can keep it from being
                // reached.
                std::size_t next = n;
                while (next < whole.size() &&
                       (trim(whole[next]).empty() ||
                        std::any_of(lines.added.begin(), lines.added.end(), [&](const auto& l) {
                            return l.first == next + 1;
                        })))
                    ++next;
                if (next == whole.size() || indentation(whole[next]).empty()) continue;
                for (const std::string_view word :
                     {"return", "exit", "goto", "raise", "throw", "break", "continue", "try", "if "})
                    if (t.starts_with(word))
                        return fmt::format(
                            "the test {}, line {}, gets what may keep assertions from being reached: {}",
                            in_quotes(c.path),
                            n,
                            in_quotes(text)
                        );
            }
            auto old = assertions(c.path, *c.before), now = assertions(c.path, after);
            for (const auto& [line, times] : old)
                if (now[line] < times)
                    return fmt::format(
                        "the test {} no longer asserts {}", in_quotes(c.path), in_quotes(line)
                    );
        }
        if (!test && c.before) {
            const auto own = test_lines(c.path, *c.before);
            for (const auto& [n, text] : lines.removed)
                if (n - 1 < own.size() && own[n - 1] && !trim(text).empty())
                    return fmt::format(
                        "the test within {}, line {}, is changed or removed: {}",
                        in_quotes(c.path),
                        n,
                        in_quotes(text)
                    );
            const auto then = test_lines(c.path, std::string{after});
            bool had = std::find(own.begin(), own.end(), true) != own.end();
            for (const auto& [n, text] : lines.added)
                if (had && n - 1 < then.size() && then[n - 1] && !trim(text).empty() &&
                    assertions(c.path, text).empty())
                    return fmt::format(
                        "the test within {}, line {}, gets other lines than assertions: {}",
                        in_quotes(c.path),
                        n,
                        in_quotes(text)
                    );
            for (const auto& [n, text] : lines.removed)
                for (const std::string_view word :
                     {"add_test(", "gtest_discover_tests(", "enable_testing(", "heal_test("})
                    if (text.find(word) != std::string_view::npos &&
                        after.find(trim(text)) == std::string_view::npos)
                        return fmt::format(
                            "{}, line {}, no longer registers a test: {}",
                            in_quotes(c.path),
                            n,
                            in_quotes(text)
                        );
        }
        const std::string_view before = c.before ? std::string_view{*c.before} : std::string_view{};
        for (const auto& [n, text] : lines.added)
            for (const auto cheat : cheats)
                if (text.find(cheat) != std::string_view::npos &&
                    before.find(trim(text)) == std::string_view::npos)
                    return fmt::format(
                        "{}, line {}, could make tests pass without passing ({}): {}",
                        in_quotes(c.path),
                        n,
                        cheat,
                        in_quotes(text)
                    );
    }
    return {};
}

// --- licence and content -----------------------------------------------------------------------------------

/// The comment at the top, if it speaks of a licence: its lines without blanks at their ends.
std::vector<std::string> licence_of(std::string_view content) {
    std::vector<std::string> header;
    bool block = false, any = false;
    for (const auto line : lines_of(content)) {
        auto t = trim(line);
        if (t.starts_with("\xef\xbb\xbf")) t.remove_prefix(3);
        if (!block && t.empty()) {
            if (any) break;
            continue;
        }
        if (!block && (t.starts_with("#!") || t.starts_with("<?"))) continue;
        const bool starts_block = t.starts_with("/*") || t.starts_with("<!--") || t.starts_with("\"\"\"");
        if (!block && !starts_block && !t.starts_with("//") && !t.starts_with('#') && !t.starts_with("--") &&
            !t.starts_with(';') && !t.starts_with('*') && !t.starts_with('%'))
            break;
        if (!block && t.starts_with('#') &&
            (t.starts_with("#include") || t.starts_with("#define") || t.starts_with("#pragma") ||
             t.starts_with("#if") || t.starts_with("#[")))
            break;
        any = true;
        header.emplace_back(t);
        if (starts_block) block = true;
        if (block && (t.find("*/") != std::string_view::npos || t.find("-->") != std::string_view::npos ||
                      (t.ends_with("\"\"\"") && t.size() > 3)))
            block = false;
        if (header.size() >= 60) break;
    }
    const bool licence = std::any_of(header.begin(), header.end(), [](const std::string& line) {
        const std::string l = lower(line);
        for (const char* word :
             {"spdx-", "copyright", "license", "licence", "all rights reserved", "\xc2\xa9"})
            if (l.find(word) != std::string::npos) return true;
        return false;
    });
    return licence ? header : std::vector<std::string>{};
}

std::string check_licence(const Changes& changes) {
    for (const FileChange& c : changes) {
        if (c.before == c.after || !c.before) continue;
        const auto name =
            lower(c.path.substr(c.path.rfind('/') == std::string::npos ? 0 : c.path.rfind('/') + 1));
        for (const char* file : {"license", "licence", "copying", "notice", "copyright", "patents"})
            if (name == file || name.starts_with(std::string{file} + "."))
                return fmt::format("{} is a licence text", in_quotes(c.path));
        const auto before = licence_of(*c.before);
        if (before.empty() || !c.after) continue;
        const auto after = licence_of(*c.after);
        for (std::size_t i = 0; i < before.size(); ++i)
            if (i >= after.size() || before[i] != after[i])
                return fmt::format(
                    "the licence header of {} is changed at {}", in_quotes(c.path), in_quotes(before[i])
                );
    }
    return {};
}

/// Characters that show a reader other text than a compiler sees (CVE-2021-42574), or none at all.
std::string hidden_character(std::string_view text) {
    for (std::size_t i = 0; i + 2 < text.size(); ++i) {
        const auto a = static_cast<unsigned char>(text[i]), b = static_cast<unsigned char>(text[i + 1]),
                   c = static_cast<unsigned char>(text[i + 2]);
        if (a == 0xd8 && b == 0x9c) return "U+061C";
        if (a == 0xef && b == 0xbb && c == 0xbf) return "U+FEFF";
        if (a == 0xe1 && b == 0xa0 && c == 0x8e) return "U+180E";
        // Tag characters, U+E0000 to U+E007F, which no font shows.
        if (a == 0xf3 && b == 0xa0 && (c == 0x80 || c == 0x81)) return "a tag character (U+E00..)";
        if (a != 0xe2) continue;
        if ((b == 0x80 && ((c >= 0x8b && c <= 0x8f) || (c >= 0xaa && c <= 0xae))) ||
            (b == 0x81 && c >= 0xa0 && c <= 0xaf))
            return fmt::format("U+{:04X}", ((a & 0x0fU) << 12U) | ((b & 0x3fU) << 6U) | (c & 0x3fU));
    }
    return {};
}

bool pipes_to_shell(std::string_view line) {
    const std::string l = lower(line);
    const auto has = [&](std::string_view what) { return l.find(what) != std::string::npos; };
    const bool fetches = has("curl") || has("wget") || has("invoke-webrequest") || has("iwr ") ||
                         has("fetch ") || has("urlopen") || has("base64 -d") || has("base64 --decode");
    if (!fetches) return false;
    for (const char* shell :
         {"sh",
          "bash",
          "zsh",
          "dash",
          "ksh",
          "python",
          "python3",
          "perl",
          "ruby",
          "node",
          "php",
          "iex",
          "source",
          "eval"}) {
        for (const char* join : {"| ", "|", "| sudo ", "|sudo ", "| env "}) {
            const std::string what = std::string{join} + shell;
            if (const auto at = l.find(what); at != std::string::npos) {
                const auto next = at + what.size();
                if (next == l.size() || std::isalnum(static_cast<unsigned char>(l[next])) == 0) return true;
            }
        }
    }
    return has("<(curl") || has("<(wget") || has("$(curl") || has("$(wget") || has("`curl") || has("`wget") ||
           has("exec(urlopen") || has("eval(fetch");
}

std::string check_content(const Changes& changes) {
    for (const FileChange& c : changes) {
        if (c.before == c.after || !c.after) continue;
        if (c.after->find('\0') != std::string::npos)
            return fmt::format("{} holds a NUL byte, so it is no text", in_quotes(c.path));
        if (to_valid_utf8(*c.after) != *c.after && (!c.before || to_valid_utf8(*c.before) == *c.before))
            return fmt::format("{} is no longer UTF-8", in_quotes(c.path));
        for (const auto& [n, text] : changed_lines(c).added) {
            if (text.starts_with("<<<<<<< ") || text.starts_with(">>>>>>> ") || text.starts_with("||||||| "))
                return fmt::format("{}, line {}, is a conflict marker", in_quotes(c.path), n);
            if (const auto hidden = hidden_character(text); !hidden.empty())
                return fmt::format(
                    "{}, line {}, holds the invisible character {}", in_quotes(c.path), n, hidden
                );
            for (const char ch : text)
                if ((static_cast<unsigned char>(ch) < 0x20 && ch != '\t' && ch != '\f') || ch == 0x7f)
                    return fmt::format("{}, line {}, holds a control character", in_quotes(c.path), n);
            if (pipes_to_shell(text))
                return fmt::format(
                    "{}, line {}, runs what it fetches: {}", in_quotes(c.path), n, in_quotes(text)
                );
        }
    }
    return {};
}

}  // namespace

bool is_test_path(const GateRules& rules, std::string_view path) {
    if (!rules.tests.empty()) return !first_match(rules.tests, path).empty();
    return !first_match(usual_tests, lower(path)).empty();
}

bool matches_path(std::string_view glob, std::string_view path) noexcept {
    // The two places to go back to: the last "**" and the last "*". A later "**" makes an earlier one's other
    // choices needless.
    std::size_t g = 0, p = 0;
    std::size_t star_g = std::string_view::npos, star_p = 0, deep_g = std::string_view::npos, deep_p = 0;
    const auto back = [&] {
        if (star_g != std::string_view::npos && star_p < path.size() && path[star_p] != '/') {
            g = star_g, p = ++star_p;
            return true;
        }
        if (deep_g != std::string_view::npos && deep_p < path.size()) {
            star_g = std::string_view::npos;
            g = deep_g, p = ++deep_p;
            // "**/" stands for whole folders.
            if (g > 0 && glob[g - 1] == '/') {
                while (p < path.size() && path[p - 1] != '/') ++p;
                deep_p = p;
                if (p == path.size() && path[p - 1] != '/') return false;
            }
            return true;
        }
        return false;
    };
    while (true) {
        if (g < glob.size() && glob.substr(g).starts_with("**") && (g == 0 || glob[g - 1] == '/')) {
            g += 2;
            if (g < glob.size() && glob[g] == '/') ++g;
            deep_g = g, deep_p = p, star_g = std::string_view::npos;
            if (g == glob.size()) return true;
            continue;
        }
        if (g < glob.size() && glob[g] == '*') {
            star_g = ++g, star_p = p;
            continue;
        }
        if (g == glob.size() && p == path.size()) return true;
        if (g < glob.size() && p < path.size() &&
            ((glob[g] == '?' && path[p] != '/') || glob[g] == path[p])) {
            ++g, ++p;
            continue;
        }
        if (!back()) return false;
    }
}

std::vector<GateVerdict> check_gates(
    const std::vector<FileChange>& changes,
    const GateRules& rules,
    const std::vector<std::pair<std::string, std::string>>& tests
) {
    std::vector<GateVerdict> out;
    const auto add = [&](const char* gate, std::string reason) {
        out.push_back({gate, reason.empty(), std::move(reason)});
    };
    add("paths", check_paths(changes, rules));
    add("links", check_links(changes));
    add("size", check_size(changes, rules));
    add("protected", check_protected(changes, rules));
    add("tests", check_tests(changes, rules));
    // Added test files are the patch's own; only code is looked at.
    std::vector<FileChange> code;
    for (const FileChange& c : changes)
        if (!is_test_path(rules, c.path)) code.push_back(c);
    add("special_case", find_special_case(code, tests));
    add("licence", check_licence(changes));
    add("content", check_content(changes));
    return out;
}

json::array to_json(const std::vector<GateVerdict>& verdicts) {
    json::array out;
    for (const GateVerdict& v : verdicts)
        out.push_back(json::object{{"gate", v.gate}, {"ok", v.ok}, {"reason", v.reason}});
    return out;
}

bool passed(const std::vector<GateVerdict>& verdicts) {
    return std::all_of(verdicts.begin(), verdicts.end(), [](const GateVerdict& v) { return v.ok; });
}

}  // namespace heal::vcs
