#include "service/code_patterns.hpp"

#include "base/id.hpp"
#include "base/log.hpp"
#include "base/offload.hpp"
#include "service/healer.hpp"
#include "service/patch_state.hpp"
#include "service/repository_desk.hpp"
#include "store/analysis_store.hpp"
#include "store/bug_store.hpp"
#include "store/fix_store.hpp"
#include "store/queries.hpp"
#include "vcs/pattern.hpp"
#include "vcs/source.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

namespace heal {
namespace asio = boost::asio;

namespace {
constexpr std::size_t max_findings = 1000;  ///< of a scan

result<json::array> scan_one(
    vcs::Repository& r, const RepositorySettings& repository, const std::vector<sql::StoredPattern>& patterns
) {
    (void)r.fetch();
    auto head = r.resolve(repository.branch);
    if (!head) return head.error();
    auto files = r.files(*head);
    if (!files) return files.error();
    json::array items;
    for (const auto& file : *files) {
        const bool wanted = std::any_of(patterns.begin(), patterns.end(), [&](const auto& p) {
            return file.ends_with(p.suffix);
        });
        if (!wanted) continue;
        auto content = r.show(*head, file);
        if (!content) continue;
        for (const auto& p : patterns) {
            if (!file.ends_with(p.suffix)) continue;
            for (const auto& match : vcs::find_pattern({p.search, p.replacement, p.suffix}, file, *content)) {
                if (items.size() >= max_findings) return items;
                items.push_back(json::object{
                    {"repository", repository.name},
                    {"revision", *head},
                    {"file", file},
                    {"line", match.first_line},
                    {"pattern", p.id},
                    {"title", p.title},
                    {"text", to_valid_utf8(match.text)},
                    {"replacement", to_valid_utf8(match.replace)}});
            }
        }
    }
    return items;
}
}  // namespace

asio::awaitable<result<CodePatterns::Suggested>> CodePatterns::suggest(
    json::object bug, RepositorySettings repository
) {
    auto found = std::make_shared<std::vector<sql::StoredPattern>>();
    auto under_way = std::make_shared<bool>(false);
    Store::Job job = [found,
                      under_way,
                      id = std::string{string_at(bug, "id")},
                      fingerprint = std::string{string_at(bug, "fingerprint")},
                      type = std::string{string_at(bug, "error_type")}](Database& db) -> result<void> {
        auto patterns = sql::load_patterns_for(db, fingerprint, type, "");
        if (!patterns) return patterns.error();
        auto runs = sql::load_patch_runs(db, id);
        if (!runs) return runs.error();
        *under_way = false;
        for (const auto& run : *runs) {
            const auto pattern = string_at(run.data, "pattern");
            if (pattern.empty()) continue;
            *under_way = *under_way || !run.ended_at;
            std::erase_if(*patterns, [&](const sql::StoredPattern& p) { return p.id == pattern; });
        }
        *found = std::move(*patterns);
        return {};
    };
    HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
    if (*under_way) co_return Suggested{{}, {}, true};
    if (found->empty()) co_return Suggested{};
    struct Fit {
        sql::StoredPattern pattern;
        vcs::Edit edit;
        std::string revision;
    };
    std::optional<Fit> fit;
    const auto trace = std::string{string_at(bug, "stack_trace")};
    const auto release = std::string{string_at(bug, "last_release")};
    const auto look = [&] {
        auto looked = desk_.with(repository, [&](vcs::Repository& r) -> result<std::optional<Fit>> {
            (void)r.fetch();
            auto revision = release.empty() ? r.resolve(repository.branch) : r.resolve(release);
            if (!revision) revision = r.resolve(repository.branch);
            if (!revision) return revision.error();
            auto excerpts = vcs::excerpts(r, *revision, vcs::places_of(trace), 256U << 10U);
            if (!excerpts) return excerpts.error();
            for (const auto& pattern : *found) {
                for (const auto& e : *excerpts) {
                    if (!e.file.ends_with(pattern.suffix)) continue;
                    auto content = r.show(*revision, e.file);
                    if (!content) continue;
                    const auto lines =
                        static_cast<unsigned>(std::count(e.text.begin(), e.text.end(), '\n')) + 1;
                    auto edit = vcs::apply_pattern(
                        {pattern.search, pattern.replacement, pattern.suffix},
                        e.file,
                        *content,
                        e.first_line,
                        e.first_line + lines
                    );
                    if (edit) return Fit{pattern, std::move(*edit), *revision};
                }
            }
            return std::optional<Fit>{};
        });
        if (looked) fit = std::move(*looked);
    };
    co_await offload(pool_, look);
    if (!fit) co_return Suggested{};
    const std::string edits = fmt::format(
        "{}\n<<<<<<< SEARCH\n{}\n=======\n{}\n>>>>>>> REPLACE\n",
        fit->edit.file,
        fit->edit.search,
        fit->edit.replace
    );
    auto suggestion = std::make_shared<std::string>();
    Store::Job insert = [=,
                         this,
                         pattern = fit->pattern,
                         file = fit->edit.file,
                         revision = fit->revision,
                         id = std::string{string_at(bug, "id")}](Database& db) -> result<void> {
        auto made = sql::insert_pattern_suggestion(db, s_.clock, id, pattern, edits, file, revision);
        if (!made) return made.error();
        *suggestion = *made;
        ignore_conflict(sql::move_bug(
            db, s_.clock, id, BugStatus::fix_suggested, "heald", "a pattern that fixed its kind before"
        ));
        return {};
    };
    HEAL_CO_TRY(co_await s_.store.write(std::move(insert)));
    s_.metrics.add("heald_pattern_fits_total");
    co_return Suggested{std::move(*suggestion), fit->pattern.id, false};
}

asio::awaitable<void> CodePatterns::learn(
    RepositorySettings repository, sql::PatchRun row, PatchFacts facts
) {
    std::optional<vcs::CodePattern> pattern;
    const auto look = [&] {
        (void)desk_.with(repository, [&](vcs::Repository& r) -> result<void> {
            for (const auto& file : facts.files) {
                const std::string path{view(file.as_string())};
                const bool is_test =
                    std::any_of(facts.added_tests.begin(), facts.added_tests.end(), [&](const auto& t) {
                        return view(t.as_string()) == path;
                    });
                if (is_test) continue;
                if (pattern) {  // of one file only: a pattern is small
                    pattern.reset();
                    return {};
                }
                auto before = r.show(facts.revision, path);
                auto after = r.show(facts.commit, path);
                if (!before || !after) return {};
                pattern = vcs::mine_pattern(path, *before, *after);
                if (!pattern) return {};
            }
            return {};
        });
    };
    co_await offload(pool_, look);
    if (!pattern) co_return;
    sql::StoredPattern learned;
    learned.fingerprint = row.fingerprint;
    learned.service = row.service;
    learned.title = to_valid_utf8(facts.title);
    learned.search = pattern->search;
    learned.replacement = pattern->replace;
    learned.suffix = pattern->suffix;
    Store::Job job = [this, learned, row, patch = facts.patch](Database& db) -> result<void> {
        auto about = sql::show_bug(db, row.bug);
        if (!about) return about.error();
        auto kept = learned;
        kept.error_type = string_at(*about, "error_type");
        json::array tips;
        constexpr Statement newest{
            "prevention tips of a bug",
            "SELECT prevention_tips FROM bug_analyses WHERE bug_id = $1 ORDER BY at DESC LIMIT 1"};
        HEAL_TRY(db.query(newest, {std::string_view{row.bug}}, [&](const Row& r) {
            auto parsed = parse_json(r.text(0), "tips");
            if (parsed && parsed->is_array()) tips = std::move(parsed->get_array());
        }));
        return sql::learn_pattern(db, s_.clock, kept, row.suggestion, patch, tips);
    };
    auto stored = co_await s_.store.write(std::move(job));
    if (stored)
        log::info("a pattern was learned from patch run {}", row.id);
    else
        log::warn("a pattern could not be stored: {}", stored.error().text);
}

asio::awaitable<result<std::int64_t>> CodePatterns::scan() {
    auto patterns = std::make_shared<std::vector<sql::StoredPattern>>();
    Store::Job job = [patterns](Database& db) -> result<void> {
        auto all = sql::load_all_patterns(db);
        if (!all) return all.error();
        *patterns = std::move(*all);
        return {};
    };
    HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
    const auto settings = s_.settings;
    json::array items;
    std::string trouble;
    const auto look = [&] {
        for (const auto& repository : settings->repositories) {
            if (repository.autonomy == FixAutonomy::off) continue;
            auto found = desk_.with(repository, [&](vcs::Repository& r) {
                return scan_one(r, repository, *patterns);
            });
            if (!found) {
                trouble +=
                    fmt::format("{}{}: {}", trouble.empty() ? "" : "; ", repository.name, found.error().text);
                continue;
            }
            for (auto& item : *found) items.push_back(std::move(item));
        }
    };
    co_await offload(pool_, look);
    const auto n = static_cast<std::int64_t>(items.size());
    const Time now = s_.clock.wall();
    Store::Job keep = [now,
                       found = json::serialize(json::object{
                           {"at", to_rfc3339(now)},
                           {"patterns", patterns->size()},
                           {"items", std::move(items)},
                           {"trouble", trouble}})](Database& db) {
        return sql::save_engine_state(db, "code_scan", found, now);
    };
    HEAL_CO_TRY(co_await s_.store.write(std::move(keep)));
    s_.metrics.set("heald_scan_findings", {}, static_cast<double>(n));
    s_.feed.publish("scan", {{"findings", n}});
    if (!trouble.empty() && n == 0) co_return fail(errc::unavailable, trouble);
    co_return n;
}

}  // namespace heal
