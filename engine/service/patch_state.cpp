#include "service/patch_state.hpp"

#include "base/log.hpp"
#include "service/repositories.hpp"
#include "store/analysis_store.hpp"
#include "store/bug_store.hpp"
#include "store/healing_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace heal {

namespace {
sql::FixRecord fix_of(const PatchState& run, const char* status, Time now) {
    sql::FixRecord f;
    f.run = run.row.id;
    f.bug = run.row.bug;
    f.suggestion = run.row.suggestion;
    f.status = status;
    f.branch = run.facts.branch;
    f.commit = run.facts.merged.empty() ? run.facts.commit : run.facts.merged;
    f.request_url = run.facts.request_url;
    f.actor = run.facts.approved_by.empty() ? "heald" : run.facts.approved_by;
    f.tests_passed = bool_at(object_at(run.machine.evidence(), "test"), "ok");
    f.test_output = json::serialize(object_at(run.machine.evidence(), "test"));
    f.started_at = now;
    if (run.machine.deployed_at().us != 0) f.deployed_at = run.machine.deployed_at();
    return f;
}
}  // namespace

std::int64_t score_of(const PatchState& run) {
    const auto ok = [&](const char* step) { return bool_at(object_at(run.machine.evidence(), step), "ok"); };
    std::int64_t score = 0;
    if (ok("gate")) score += 100;
    if (ok("reproduce")) score += 200;
    if (ok("test")) score += 400;
    if (ok("counter")) score += 200;
    if (score == 0) return 0;
    score -= std::min<std::int64_t>(run.facts.lines, 60);
    score -= 10 * std::min<std::int64_t>(
                      static_cast<std::int64_t>(run.facts.files.size() - run.facts.added_tests.size()), 4
                  );
    score += run.facts.added_tests.empty() ? 0 : 5;
    return std::max<std::int64_t>(score, 0);
}

void write_row(PatchState& run, Time now) {
    auto& row = run.row;
    row.step = to_string(run.machine.step());
    row.outcome = to_string(run.outcome());
    row.reason = to_valid_utf8(run.machine.reason());
    row.revision = run.facts.revision;
    row.patch = to_valid_utf8(run.facts.patch);
    row.patch_hash = run.facts.patch_hash;
    row.branch = run.facts.commit.empty() ? "" : run.facts.branch;
    row.commit = run.facts.commit;
    row.request_url = run.facts.request_url;
    row.data["machine"] = run.machine.save();
    row.data["facts"] = run.facts.save();
    row.data["pattern"] = run.pattern;
    row.updated_at = now;
    row.next_at = run.machine.next_at();
    if (run.machine.ended()) {
        row.next_at.reset();
        row.ended_at = row.updated_at;
    }
}

void ignore_conflict(const result<void>& outcome) {
    if (!outcome && outcome.error().code != errc::conflict) log::warn("{}", outcome.error().text);
}

StoreWrite both(StoreWrite one, StoreWrite other) {
    if (!one || !other) return one ? one : other;
    return [one = std::move(one), other = std::move(other)](Database& db) -> result<void> {
        HEAL_TRY(one(db));
        return other(db);
    };
}

StoreWrite entering(const PatchState& run, PatchStep step, const Clock& clock) {
    std::optional<BugStatus> to;
    if (step == PatchStep::commit) to = BugStatus::applying;
    if (step == PatchStep::deploy) to = BugStatus::testing;
    if (!to) return {};
    return
        [&clock, bug = run.row.bug, id = run.row.id, to = *to, fix = fix_of(run, "applying", clock.wall())](
            Database& db
        ) -> result<void> {
            ignore_conflict(sql::move_bug(db, clock, bug, to, "heald", "patch run " + id));
            auto record = fix;
            if (to == BugStatus::testing) record.status = "testing";
            return sql::save_fix(db, record);
        };
}

StoreWrite leaving(const PatchState& run, PatchStep step, bool was_stable, const Clock& clock) {
    const Time now = clock.wall();
    const auto outcome = run.outcome();
    const bool ended_now = outcome != PatchOutcome::none && step != PatchStep::finish;
    const bool became_stable = run.machine.stable() && !was_stable;
    const bool approved = step == PatchStep::review && run.machine.step() == PatchStep::commit;
    const bool tried = is_trial(step);
    if (!ended_now && !became_stable && !approved && !tried) return {};
    std::optional<sql::FixRecord> fix;
    if (became_stable) fix = fix_of(run, "succeeded", now);
    if (ended_now && run.machine.landed()) {
        fix = fix_of(
            run,
            outcome == PatchOutcome::did_not_hold ? "rolled_back"
            : outcome == PatchOutcome::failed     ? "failed"
                                                  : "succeeded",
            now
        );
        fix->ended_at = now;
        fix->verdict = to_string(outcome);
        fix->error =
            outcome == PatchOutcome::held || outcome == PatchOutcome::proposed ? "" : run.machine.reason();
        if (outcome == PatchOutcome::held) fix->held_at = now;
        if (outcome == PatchOutcome::did_not_hold) fix->rolled_back_at = now;
    } else if (ended_now && !run.facts.commit.empty()) {
        fix = fix_of(run, outcome == PatchOutcome::proposed ? "succeeded" : "failed", now);
        fix->ended_at = now;
        fix->verdict = to_string(outcome);
        if (outcome != PatchOutcome::proposed) fix->error = run.machine.reason();
    }
    json::object evidence{
        {"run", run.row.id},
        {"outcome", to_string(outcome)},
        {"reason", to_valid_utf8(run.machine.reason())},
        {"lines", run.facts.lines}};
    for (const char* name : {"gate", "reproduce", "build", "test", "counter"}) {
        const auto& e = object_at(run.machine.evidence(), name);
        if (!e.empty())
            evidence[name] = json::object{{"ok", bool_at(e, "ok")}, {"text", string_at(e, "text")}};
    }
    return [=,
            &clock,
            bug = run.row.bug,
            suggestion = run.row.suggestion,
            id = run.row.id,
            score = score_of(run),
            reason = to_valid_utf8(run.machine.reason()),
            patch = to_valid_utf8(run.facts.patch),
            who = run.facts.approved_by,
            merged = run.facts.merged,
            landed = run.machine.landed(),
            committed = !run.facts.commit.empty(),
            pattern = run.pattern](Database& db) -> result<void> {
        const auto move = [&](BugStatus to, const std::string& text) {
            ignore_conflict(sql::move_bug(db, clock, bug, to, "heald", text));
        };
        if (tried || ended_now) HEAL_TRY(sql::set_suggestion_evidence(db, suggestion, evidence, score));
        if (approved) {
            HEAL_TRY(
                sql::decide_suggestion(db, suggestion, "approved", patch, who.empty() ? "heald" : who, now)
            );
            move(BugStatus::fix_suggested, "patch run " + id);
            move(BugStatus::approved, who.empty() ? "autonomy: merge" : "approved by " + who);
        }
        if (fix) HEAL_TRY(sql::save_fix(db, *fix));
        if (became_stable) {
            sql::BugChange fixed;
            fixed.action = "fix";
            fixed.actor = "heald";
            fixed.text = "deployed, healthy, and the error was not heard since; run " + id;
            fixed.release = merged;
            auto changed = sql::change_bug(db, clock, bug, fixed);
            if (!changed && changed.error().code != errc::conflict) return changed.error();
            HEAL_TRY(sql::decide_suggestion(db, suggestion, "applied", "", who.empty() ? "heald" : who, now));
        }
        if (!ended_now) return {};
        switch (outcome) {
            case PatchOutcome::did_not_hold:
                move(BugStatus::failed, "the fix did not hold: " + reason);
                move(BugStatus::reopened, "the fix did not hold: " + reason);
                HEAL_TRY(sql::decide_suggestion(db, suggestion, "rejected", "", "heald", now));
                break;
            case PatchOutcome::rejected:
                HEAL_TRY(
                    sql::decide_suggestion(db, suggestion, "rejected", "", who.empty() ? "people" : who, now)
                );
                if (committed) move(BugStatus::failed, reason);
                break;
            case PatchOutcome::failed:
            case PatchOutcome::refused:
                if (committed || landed) move(BugStatus::failed, reason);
                break;
            default:
                break;
        }
        if (!pattern.empty() && (outcome == PatchOutcome::held || outcome == PatchOutcome::did_not_hold ||
                                 outcome == PatchOutcome::refused))
            HEAL_TRY(sql::count_pattern(db, pattern, outcome == PatchOutcome::held, now));
        HEAL_TRY(sql::note_bug(
            db,
            clock,
            bug,
            "heald",
            "patch",
            "",
            "",
            fmt::format("run {} {}: {}", id, to_string(outcome), reason)
        ));
        return sql::append_audit(
            db,
            now,
            "heald",
            "patch.end",
            id,
            json::serialize(json::object{{"outcome", to_string(outcome)}, {"reason", reason}})
        );
    };
}

json::object answer_of(const PatchState& run) {
    return {
        {"id", run.row.id},
        {"bug_id", run.row.bug},
        {"bug_code", run.facts.bug_code},
        {"suggestion_id", run.row.suggestion},
        {"repository", run.row.repository},
        {"step", to_string(run.machine.step())},
        {"outcome", to_string(run.outcome())},
        {"reason", to_valid_utf8(run.machine.reason())},
        {"branch", run.facts.branch}};
}

json::object bound_of(const PatchState& run, const RepositorySettings& settings) {
    const auto commands = [](const std::vector<CommandSettings>& list) {
        json::array out;
        for (const auto& c : list) out.push_back(json::array(c.argv.begin(), c.argv.end()));
        return out;
    };
    json::array tests;
    for (const char* step : {"reproduce", "test", "counter"}) {
        const auto& found = object_at(run.machine.evidence(), step);
        tests.push_back(json::object{
            {"step", step}, {"ok", bool_at(found, "ok")}, {"text", string_at(found, "text")}});
    }
    return {
        {"run", run.row.id},
        {"bug", run.facts.bug_code},
        {"fingerprint", run.row.fingerprint},
        {"repository", settings.name},
        {"url", settings.url},
        {"branch", settings.branch},
        {"revision", run.facts.revision},
        {"patch_hash", run.facts.patch_hash},
        {"files", run.facts.files},
        {"lines", run.facts.lines},
        {"tests", std::move(tests)},
        {"forge", settings.forge_kind.empty() ? "" : settings.forge_kind + ":" + settings.forge_project},
        {"deploy", commands(settings.deploy)}};
}

std::string request_body(const PatchState& run) {
    // Text of a model and of logs is shown as text: no image, link or mention of it is live.
    const auto plain = [](std::string_view text) {
        std::string out;
        for (const char c : to_valid_utf8(text)) {
            if (c == '<' || c == '>' || c == '[' || c == ']' || c == '!' || c == '@' || c == '#' || c == '`')
                out += '\\';
            out += c;
        }
        return out;
    };
    std::string body = fmt::format("{}\n\n", plain(run.facts.description));
    body += fmt::format(
        "| | |\n|---|---|\n| Bug | {} |\n| Fingerprint | `{}` |\n| Service | {} |\n| Made for | `{}` "
        "|\n| Patch (SHA-256) | `{}` "
        "|\n| Approved by | {} |\n\n### What was shown here\n\n",
        run.facts.bug_code,
        run.row.fingerprint,
        plain(run.row.service),
        run.facts.revision,
        run.facts.patch_hash,
        run.facts.unattended ? "nobody (autonomy: merge)" : plain(run.facts.approved_by)
    );
    for (const char* step : {"gate", "reproduce", "build", "test", "counter"}) {
        const auto& e = object_at(run.machine.evidence(), step);
        body += fmt::format("- {} {}: {}\n", bool_at(e, "ok") ? "✓" : "✗", step, plain(string_at(e, "text")));
    }
    return body + fmt::format("\nMade by heald as run `{}`.\n", run.row.id);
}

}  // namespace heal
