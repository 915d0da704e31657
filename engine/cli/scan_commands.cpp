#include "cli/scan_commands.hpp"

#include "base/files.hpp"
#include "vcs/gates.hpp"
#include "vcs/pattern.hpp"
#include "vcs/process.hpp"
#include "vcs/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <filesystem>
#include <map>
#include <set>

namespace heal::cli {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t max_file_bytes = 1U << 20U, max_findings = 5000;

struct Known {
    std::string id, title, tips;
    std::int64_t times_fixed = 0;
    vcs::CodePattern pattern;
};

struct Finding {
    std::string rule;   ///< "pattern/12", "gate/links"
    std::string level;  ///< "error", "warning" (SARIF's words)
    std::string file;
    unsigned line = 1, last_line = 1;
    std::string text, replacement;
};

struct Rule {
    std::string title, help;
};

std::string one_line(std::string_view text) {
    std::string out{vcs::trim(text)};
    std::replace(out.begin(), out.end(), '\n', ' ');
    return plain(out);
}

std::vector<Known> read_patterns(const json::value& value, const std::string& what) {
    if (!value.is_object())
        throw RequestFailed{fail(errc::invalid_input, what + ": must be an object with 'items'")};
    std::vector<Known> out;
    for (const auto& item : array_at(value.get_object(), "items")) {
        if (!item.is_object()) continue;
        const auto& o = item.get_object();
        Known k;
        if (const auto* id = o.if_contains("id"))
            k.id = id->is_string() ? std::string{view(id->get_string())} : json::serialize(*id);
        k.title = string_at(o, "fix_title");
        k.pattern = {
            std::string{string_at(o, "search")},
            std::string{string_at(o, "replacement")},
            std::string{string_at(o, "suffix")}};
        k.times_fixed = int_at(o, "times_fixed");
        if (const auto* tips = o.if_contains("prevention_tips")) {
            if (tips->is_string()) k.tips = view(tips->get_string());
            if (tips->is_array())
                for (const auto& tip : tips->get_array())
                    if (tip.is_string())
                        k.tips += (k.tips.empty() ? "" : "; ") + std::string{view(tip.get_string())};
        }
        if (k.id.empty() || vcs::trim(k.pattern.search).empty()) continue;
        out.push_back(std::move(k));
    }
    return out;
}

// --- how it is told --------------------------------------------------------------------------------------

json::object sarif(const std::vector<Finding>& findings, const std::map<std::string, Rule>& rules) {
    json::array rule_list, results;
    std::map<std::string, std::int64_t> index;
    for (const auto& [id, rule] : rules) {
        index[id] = static_cast<std::int64_t>(rule_list.size());
        json::object one{
            {"id", id}, {"shortDescription", json::object{{"text", rule.title.empty() ? id : rule.title}}}};
        if (!rule.help.empty()) one["help"] = json::object{{"text", rule.help}};
        rule_list.push_back(std::move(one));
    }
    for (const Finding& f : findings) {
        const json::object place{
            {"artifactLocation", json::object{{"uri", f.file}}},
            {"region", json::object{{"startLine", f.line}, {"endLine", f.last_line}}}};
        results.push_back(json::object{
            {"ruleId", f.rule},
            {"ruleIndex", index[f.rule]},
            {"level", f.level},
            {"message", json::object{{"text", f.text}}},
            {"locations", json::array{json::object{{"physicalLocation", place}}}}});
    }
    const json::object driver{{"name", "heald"}, {"version", HEAL_VERSION}, {"rules", std::move(rule_list)}};
    return {
        {"$schema", "https://json.schemastore.org/sarif-2.1.0.json"},
        {"version", "2.1.0"},
        {"runs",
         json::array{json::object{
             {"tool", json::object{{"driver", driver}}},
             {"columnKind", "utf16CodeUnits"},
             {"results", std::move(results)}}}}};
}

std::string markdown_text(std::string_view text) {
    std::string out;
    for (const char c : one_line(text)) {
        if (std::string_view{"|<>*_`[]\\"}.find(c) != std::string_view::npos) out += '\\';
        out += c;
    }
    return out;
}

void tell(
    const CommandContext& context,
    const std::string& asked,
    const std::vector<Finding>& findings,
    const std::map<std::string, Rule>& rules,
    const char* nothing
) {
    const std::string format = context.as_json && asked == "text" ? "json" : asked;
    if (format == "sarif") {
        fmt::print("{}\n", json::serialize(sarif(findings, rules)));
    } else if (format == "json") {
        json::array items;
        for (const Finding& f : findings) {
            json::object one{
                {"rule", f.rule},
                {"level", f.level},
                {"file", f.file},
                {"line", f.line},
                {"last_line", f.last_line},
                {"text", f.text}};
            if (!f.replacement.empty()) one["replacement"] = f.replacement;
            items.push_back(std::move(one));
        }
        fmt::print("{}\n", json::serialize(json::object{{"items", std::move(items)}}));
    } else if (format == "markdown") {
        if (findings.empty())
            fmt::print("**heald**: {}\n", nothing);
        else
            fmt::print("**heald**: {} found\n\n| Place | What | Rule |\n|---|---|---|\n", findings.size());
        for (const Finding& f : findings)
            fmt::print(
                "| {}:{} | {} | {} |\n",
                markdown_text(f.file),
                f.line,
                markdown_text(f.text),
                markdown_text(f.rule)
            );
        for (const Finding& f : findings) {
            if (f.replacement.empty()) continue;
            // The fence is longer than any run of backticks in what it holds.
            std::string fence = "```";
            while (f.replacement.find(fence) != std::string::npos) fence += '`';
            fmt::print(
                "\n`{}:{}`, as it was fixed before:\n{}\n{}{}\n",
                plain(f.file),
                f.line,
                fence,
                to_valid_utf8(f.replacement),
                fence
            );
        }
    } else {
        for (const Finding& f : findings) {
            fmt::print("{}:{}: {} [{}]\n", plain(f.file), f.line, one_line(f.text), f.rule);
            for (const auto line : vcs::lines_of(f.replacement)) fmt::print("    {}\n", plain(line));
        }
        if (findings.empty()) fmt::print("{}\n", nothing);
    }
}

std::map<std::string, Rule> rules_of(
    const std::vector<Known>& patterns, const std::vector<Finding>& findings
) {
    std::map<std::string, Rule> out;
    for (const Finding& f : findings) out.try_emplace(f.rule);
    for (const Known& k : patterns)
        if (const auto it = out.find("pattern/" + k.id); it != out.end())
            it->second = {to_valid_utf8(k.title), to_valid_utf8(k.tips)};
    return out;
}

Finding found(const Known& known, const std::string& file, const vcs::PatternMatch& match) {
    std::string text = fmt::format(
        "like what was fixed before ({}{})",
        known.title.empty() ? "pattern " + known.id : known.title,
        known.times_fixed > 1 ? fmt::format(", {} times", known.times_fixed) : ""
    );
    if (!known.tips.empty()) text += ": " + known.tips;
    return {
        "pattern/" + known.id,
        "warning",
        to_valid_utf8(file),
        match.first_line,
        match.last_line,
        to_valid_utf8(text),
        to_valid_utf8(match.replace)};
}

/// Options that both commands have.
class Patterns {
public:
    Patterns(CLI::App& command, const CommandContext& context) : c_(context) {
        command.add_option(
            "--pattern", file_, "patterns from this file instead of from heald (as of GET /api/v1/patterns)"
        );
        command.add_option("--format", format, "text, json, sarif or markdown")
            ->check(CLI::IsMember({"text", "json", "sarif", "markdown"}))
            ->capture_default_str();
    }
    std::vector<Known> read() const {
        if (file_.empty()) return read_patterns(ask(c_, "GET", "/api/v1/patterns"), "heald's answer");
        const SystemFiles files;
        const auto text = files.read(file_, 16U << 20U);
        if (!text) throw RequestFailed{text.error()};
        const auto value = parse_json(*text, file_);
        if (!value) throw RequestFailed{value.error()};
        return read_patterns(*value, file_);
    }
    std::string format = "text";

private:
    CommandContext c_;
    std::string file_;
};

class Scan {
public:
    Scan(CLI::App& app, const CommandContext& context) : c_(context) {
        auto* scan = app.add_subcommand(
            "scan", "find places that look like what was fixed before; 1 when there are some"
        );
        scan->add_option("path", path_, "a folder or file")->capture_default_str();
        patterns_ = std::make_unique<Patterns>(*scan, context);
        scan->callback([this] { run(); });
    }

private:
    void run() {
        const auto patterns = patterns_->read();
        std::vector<Finding> findings;
        std::error_code error;
        if (fs::is_regular_file(path_, error)) {
            look(patterns, path_, path_, findings);
        } else {
            if (!fs::is_directory(path_, error))
                throw RequestFailed{fail(errc::not_found, fmt::format("{} is not there", path_))};
            static const std::set<std::string> skipped{
                ".git",
                ".hg",
                ".svn",
                "node_modules",
                "build",
                "dist",
                "target",
                ".venv",
                "venv",
                "__pycache__",
                ".cache"};
            std::vector<std::string> files;
            for (auto it =
                     fs::recursive_directory_iterator{
                         path_, fs::directory_options::skip_permission_denied, error};
                 it != fs::recursive_directory_iterator{};
                 it.increment(error)) {
                std::error_code ignored;
                if (it->is_directory(ignored) && skipped.contains(it->path().filename().string()))
                    it.disable_recursion_pending();
                if (it->is_regular_file(ignored) && !it->is_symlink(ignored))
                    files.push_back(it->path().string());
            }
            std::sort(files.begin(), files.end());
            for (const auto& file : files)
                look(patterns, file, fs::path{file}.lexically_relative(path_).generic_string(), findings);
        }
        tell(
            c_,
            patterns_->format,
            findings,
            rules_of(patterns, findings),
            "nothing looks like what was fixed before"
        );
        c_.exit_code = findings.empty() ? 0 : 1;
    }

    static void look(
        const std::vector<Known>& patterns,
        const std::string& file,
        const std::string& name,
        std::vector<Finding>& ret_findings
    ) {
        if (std::none_of(patterns.begin(), patterns.end(), [&](const Known& k) {
                return file.ends_with(k.pattern.suffix);
            }))
            return;
        const SystemFiles files;
        const auto content = files.read(file, max_file_bytes);
        if (!content || content->find('\0') != std::string::npos) return;
        for (const Known& known : patterns)
            for (const auto& match : vcs::find_pattern(known.pattern, file, *content))
                if (ret_findings.size() < max_findings) ret_findings.push_back(found(known, name, match));
    }

    CommandContext c_;
    std::string path_ = ".";
    std::unique_ptr<Patterns> patterns_;
};

/// What a change is, by the git program, as its author sees it.
class Review {
public:
    Review(CLI::App& review, const CommandContext& context) : c_(context), patterns_(review, context) {
        review.add_option(
            "--base",
            base_,
            "look at what HEAD changes since it left this revision; 1 when something is found"
        );
        review.add_option("--path", path_, "of the repository")->capture_default_str();
        review
            .add_option(
                "--gates",
                gates_,
                "paths, links, size, protected, tests, special_case, licence, content; all; none"
            )
            ->delimiter(',')
            ->capture_default_str();
        review.add_flag("--no-patterns", no_patterns_, "the gates alone");
    }

    bool run() {
        if (base_.empty()) return false;
        const auto patterns = no_patterns_ ? std::vector<Known>{} : patterns_.read();
        const std::string from{vcs::trim(git({"merge-base", "--end-of-options", base_, "HEAD"}))};
        std::vector<Finding> findings;
        const auto changes = read_changes(from);
        for (const auto& change : changes) {
            if (!change.after || change.after->size() > max_file_bytes ||
                change.after->find('\0') != std::string::npos)
                continue;
            const auto before = vcs::lines_of(
                           change.before ? std::string_view{*change.before} : std::string_view{}
                       ),
                       after = vcs::lines_of(*change.after);
            std::set<unsigned> added;
            for (const auto& line : vcs::diff_lines(before, after))
                if (line.kind == vcs::LineChange::Kind::added) added.insert(line.after + 1);
            for (const Known& known : patterns)
                for (const auto& match : vcs::find_pattern(known.pattern, change.path, *change.after)) {
                    const auto first = added.lower_bound(match.first_line);
                    if (first != added.end() && *first <= match.last_line && findings.size() < max_findings)
                        findings.push_back(found(known, change.path, match));
                }
        }
        look_at_gates(changes, findings);
        tell(c_, patterns_.format, findings, rules_of(patterns, findings), "nothing found");
        c_.exit_code = findings.empty() ? 0 : 1;
        return true;
    }

private:
    std::string git(std::vector<std::string> arguments) const {
        vcs::Program what;
        what.argv = {
            vcs::find_program("git", vcs::usual_path), "-c", "core.fsmonitor=false", "--literal-pathspecs"};
        if (what.argv[0].empty()) throw RequestFailed{fail(errc::not_found, "git is not installed")};
        what.argv.insert(what.argv.end(), arguments.begin(), arguments.end());
        // CI runs as another user than the one that checked out.
        what.env = {
            fmt::format("PATH={}", vcs::usual_path),
            "LC_ALL=C",
            "GIT_TERMINAL_PROMPT=0",
            "GIT_CONFIG_COUNT=1",
            "GIT_CONFIG_KEY_0=safe.directory",
            "GIT_CONFIG_VALUE_0=*"};
        what.folder = path_;
        what.first_bytes = 64U << 20U;
        static const std::atomic<bool> never{false};
        const auto end = vcs::run_program(what, never);
        if (!end) throw RequestFailed{end.error()};
        if (end->exit_code != 0)
            throw RequestFailed{
                fail(errc::invalid_input, fmt::format("git {}: {}", arguments[0], one_line(end->error)))};
        return end->out;
    }

    std::vector<vcs::FileChange> read_changes(const std::string& from) const {
        std::vector<vcs::FileChange> out;
        // ":100644 100755 ID ID M\0PATH\0"
        const std::string raw =
            git({"diff", "--raw", "-z", "--no-renames", "--no-abbrev", "--no-ext-diff", from, "HEAD"});
        for (std::string_view rest = raw; !rest.empty();) {
            const auto cut = std::min(rest.find('\0'), rest.size());
            const auto head = rest.substr(0, cut);
            rest.remove_prefix(std::min(cut + 1, rest.size()));
            const auto end = std::min(rest.find('\0'), rest.size());
            vcs::FileChange change;
            change.path = rest.substr(0, end);
            rest.remove_prefix(std::min(end + 1, rest.size()));
            if (head.size() < 14 + 82) break;
            std::from_chars(head.data() + 1, head.data() + 7, change.mode_before, 8);
            std::from_chars(head.data() + 8, head.data() + 14, change.mode_after, 8);
            const auto content = [&](unsigned mode, std::string_view id) -> std::optional<std::string> {
                if (mode == 0) return std::nullopt;
                if (mode == 0160000) return std::string{id};
                return git({"cat-file", "blob", std::string{id}});
            };
            change.before = content(change.mode_before, head.substr(15, 40));
            change.after = content(change.mode_after, head.substr(56, 40));
            out.push_back(std::move(change));
        }
        return out;
    }

    void look_at_gates(const std::vector<vcs::FileChange>& changes, std::vector<Finding>& ret_findings)
        const {
        if (gates_ == std::vector<std::string>{"none"} || changes.empty()) return;
        const bool all = std::find(gates_.begin(), gates_.end(), "all") != gates_.end();
        const vcs::GateRules rules;
        std::vector<std::pair<std::string, std::string>> tests;
        const std::string tree = git({"ls-tree", "-r", "-z", "--full-tree", "--name-only", "HEAD"});
        for (std::string_view rest = tree; !rest.empty() && tests.size() < 200;) {
            const auto end = std::min(rest.find('\0'), rest.size());
            const std::string path{rest.substr(0, end)};
            rest.remove_prefix(std::min(end + 1, rest.size()));
            if (vcs::is_test_path(rules, path))
                tests.emplace_back(path, git({"cat-file", "blob", "HEAD:" + path}));
        }
        for (const auto& v : vcs::check_gates(changes, rules, tests)) {
            if (v.ok || (!all && std::find(gates_.begin(), gates_.end(), v.gate) == gates_.end())) continue;
            // The reason names the place; a report wants it apart.
            Finding f{
                "gate/" + v.gate,
                v.gate == "paths" || v.gate == "links" || v.gate == "content" ? "error" : "warning",
                changes[0].path,
                1,
                1,
                v.reason,
                {}};
            std::size_t longest = 0;
            for (const auto& change : changes)
                if (v.reason.find(change.path) != std::string::npos && change.path.size() > longest)
                    f.file = to_valid_utf8(change.path), longest = change.path.size();
            if (const auto line = v.reason.find(", line "); line != std::string::npos)
                std::from_chars(v.reason.data() + line + 7, v.reason.data() + v.reason.size(), f.line);
            f.last_line = f.line;
            ret_findings.push_back(std::move(f));
        }
    }

    CommandContext c_;
    Patterns patterns_;
    std::string base_, path_ = ".";
    // What is a person's to decide (size, tests, CI) is asked for by name.
    std::vector<std::string> gates_{"paths", "links", "special_case", "licence", "content"};
    bool no_patterns_ = false;
};

}  // namespace

std::shared_ptr<void> add_scan_commands(CLI::App& app, const CommandContext& context) {
    return std::make_shared<Scan>(app, context);
}

std::function<bool()> add_change_review(CLI::App& review, const CommandContext& context) {
    auto change = std::make_shared<Review>(review, context);
    return [change] { return change->run(); };
}

}  // namespace heal::cli
