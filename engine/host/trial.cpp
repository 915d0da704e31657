#include "host/trial.hpp"

#include "base/files.hpp"
#include "base/id.hpp"
#include "host/artifact.hpp"
#include "host/performer.hpp"
#include "wire/describe.hpp"

#include <heal/abi.h>

#include <fmt/format.h>

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace heal {
namespace {

class NeverInterrupted final : public Interrupt {
public:
    int fd() const override { return -1; }
    bool stopped() override { return false; }
};

class TrialContext final : public CallContext {
public:
    TrialContext(Performer& performer, const Clock& clock, PerformRequest base, std::FILE* out)
        : performer_(performer), clock_(clock), base_(std::move(base)), deadline_(clock.steady() + base_.remaining), out_(out) {}

    bool is_cancelled() override { return remaining().count() == 0; }
    std::chrono::milliseconds remaining() override {
        return std::max(std::chrono::milliseconds{0}, std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - clock_.steady()));
    }
    void log(Level level, std::string_view message, json::object fields) override {
        fmt::print(out_, "  {:5} {}{}\n", to_string(level), message, fields.empty() ? "" : " " + json::serialize(fields));
    }
    EffectAnswer perform(std::string_view kind, json::object parameters) override {
        if (kind == "progress") {
            fmt::print(out_, "  {:3.0f} % {}\n", 100 * double_at(parameters, "fraction"), string_at(parameters, "message"));
            return {HEAL_OK, "", {}};
        }
        PerformRequest rq = base_;
        rq.step = ++steps_;
        rq.kind = std::string{kind};
        rq.parameters = std::move(parameters);
        rq.remaining = remaining();
        NeverInterrupted interrupt;
        const auto done = performer_.perform(rq, [&](const Effect& e) -> result<void> {
            fmt::print(out_, "  {}. {}{}{}\n", e.step, e.summary, e.undoable ? " (undoable)" : e.changes_world ? " (irreversible)" : "", rq.dry_run && e.changes_world ? " [not done]" : "");
            return {};
        }, interrupt);
        if (!done.result.ok) fmt::print(out_, "     failed: {}\n", done.result.error);
        const std::int32_t status = done.result.ok ? HEAL_OK
            : done.code == errc::cancelled ? HEAL_CANCELLED : done.code == errc::denied ? HEAL_DENIED : done.code == errc::invalid_input ? HEAL_INVALID : HEAL_FAILED;
        return {status, done.result.error, done.result.result};
    }

private:
    Performer& performer_;
    const Clock& clock_;
    PerformRequest base_;
    Duration deadline_;
    std::FILE* out_;
    std::int64_t steps_ = 0;
};

result<std::unique_ptr<Artifact>> load_file(const std::string& file) {
    const std::filesystem::path path{file};
    const std::string name = path.filename().string();
    SystemFiles files;
    if (path.extension() == ".so") {
        if (!files.exists(file)) return fail(errc::not_found, fmt::format("{} does not exist", file));
        return load_plugin(std::filesystem::absolute(path).string(), name);
    }
    if (path.extension() != ".lua") return fail(errc::invalid_input, fmt::format("{}: a strategy is a .so or a .lua file", file));
    auto source = files.read(file, 1U << 20U);
    if (!source) return std::move(source).error();
    ScriptLibraries libraries;
    const auto folder = path.parent_path() / "lib";
    if (auto names = files.list(folder.string())) {
        for (const std::string& one : *names) {
            if (one.size() <= 4 || one.substr(one.size() - 4) != ".lua") continue;
            if (auto text = files.read((folder / one).string(), 256U << 10U)) libraries[one.substr(0, one.size() - 4)] = std::move(*text);
        }
    }
    return load_script(std::move(*source), name, std::move(libraries), ScriptLimits{});
}

result<std::vector<StrategyInfo>> facts_of(Artifact& artifact, const std::string& file) {
    auto facts = artifact.describe();
    if (!facts) return std::move(facts).error();
    return read_facts(*facts, std::filesystem::path{file}.filename().string());
}

// {target.process.command.0} from the request's own target: by hand, the event file is the inventory. A list at the end gives one
// grant for each element, a placeholder without a value none, as the engine does it.
void fill(const std::string& pattern, const json::object& target, std::vector<std::string>& ret) {
    const auto at = pattern.find("{target.");
    if (at == std::string::npos) {
        ret.push_back(pattern);
        return;
    }
    const auto end = pattern.find('}', at);
    if (end == std::string::npos) return;
    std::string path = pattern.substr(at + 8, end - at - 8);
    for (char& c : path) {
        if (c == '.') c = '/';
    }
    boost::system::error_code ec;
    const json::value whole = target;
    const auto* found = whole.find_pointer("/" + path, ec);
    if (!found) return;
    const json::array single{*found};
    for (const auto& one : found->is_array() ? found->get_array() : single) {
        if (one.is_string()) fill(pattern.substr(0, at) + std::string{view(one.get_string())} + pattern.substr(end + 1), target, ret);
    }
}

result<json::object> read_event(const std::string& file) {
    if (file.empty()) return json::object{{"incident", json::object{}}};
    std::string text;
    if (file == "-") {
        char buffer[4096];
        for (std::size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, stdin)) > 0 && text.size() < (1U << 20U);) text.append(buffer, n);
    } else {
        auto read = SystemFiles{}.read(file, 1U << 20U);
        if (!read) return std::move(read).error();
        text = std::move(*read);
    }
    auto parsed = parse_json(text, file);
    if (!parsed) return std::move(parsed).error();
    if (!parsed->is_object()) return fail(errc::invalid_input, fmt::format("{}: must hold a JSON object", file));
    json::object request = std::move(parsed->get_object());
    if (!request.contains("incident")) request = json::object{{"incident", std::move(request)}};
    return request;
}

int trial(const TrialRun& run, const std::string& state, const Clock& clock, std::FILE* out, std::FILE* err) {
    const auto wrong = [&](const std::string& text) {
        fmt::print(err, "{}\n", text);
        return 2;
    };
    CallFunction function{};
    if (!parse_call_function(run.function, function)) return wrong(fmt::format("'{}' is no call; use assess, execute, verify or rollback", run.function));
    auto request = read_event(run.event_file);
    if (!request) return wrong(request.error().text);
    auto artifact = load_file(run.file);
    if (!artifact) return wrong(artifact.error().text);
    const auto all = facts_of(**artifact, run.file);
    if (!all) return wrong(all.error().text);
    const StrategyInfo* info = nullptr;
    for (const StrategyInfo& one : *all) {
        if (!info && (run.strategy.empty() || run.strategy == one.name)) info = &one;
    }
    if (!info) return wrong(fmt::format("{} has no strategy '{}'", run.file, run.strategy));
    auto config = check_config(info->parameters, object_at(*request, "config"), "config");
    if (!config) return wrong(config.error().text);
    (*request)["config"] = std::move(*config);
    (*request)["dry_run"] = run.dry_run;
    if (!request->contains("attempt")) (*request)["attempt"] = new_id(clock);
    if (!request->contains("target")) (*request)["target"] = json::object{};
    PerformRequest base;
    base.phase = run.function;
    base.strategy = info->name;
    base.attempt = std::string{string_at(*request, "attempt")};
    base.dry_run = run.dry_run;
    base.remaining = info->timeout;
    std::vector<std::string> grants = run.grants;
    if (grants.empty()) {
        for (const std::string& one : info->capabilities) fill(one, object_at(*request, "target"), grants);
    }
    base.grants = Grants{std::move(grants)};
    Performer performer{state, clock};
    TrialContext context{performer, clock, std::move(base), out};
    fmt::print(out, "{} of {} {}{}\n", run.function, info->name, info->version, run.dry_run ? " (dry-run)" : "");
    const Duration started = clock.steady();
    const CallReply reply = (*artifact)->call(function, info->name, *request, context);
    const double ms = static_cast<double>((clock.steady() - started).count()) / 1000;
    if (function == CallFunction::assess) {
        fmt::print(out, "{} ({:.3f} ms)\n", reply.status == HEAL_OK ? fmt::format("confidence {:.3f}", reply.confidence) : reply.status == HEAL_DECLINED ? "declined" : "failed: " + reply.text, ms);
        return reply.status == HEAL_OK || reply.status == HEAL_DECLINED ? 0 : 1;
    }
    static constexpr const char* words[] = {"succeeded", "declined", "failed", "failed, worth a retry", "cancelled", "invalid", "unsupported", "denied"};
    fmt::print(out, "{}: {}{} ({:.3f} ms)\n", reply.status >= 0 && reply.status <= 7 ? words[reply.status] : "failed", reply.text,
        reply.detail.empty() ? "" : " " + json::serialize(reply.detail), ms);
    return reply.status == HEAL_OK ? 0 : 1;
}

}  // namespace

result<std::vector<StrategyInfo>> check_artifact(const std::string& file) {
    auto artifact = load_file(file);
    if (!artifact) return std::move(artifact).error();
    return facts_of(**artifact, file);
}

int run_trial(const TrialRun& run, const Clock& clock, std::FILE* out, std::FILE* err) {
    if (!run.state_folder.empty()) return trial(run, run.state_folder, clock, out, err);
    std::string folder = (std::filesystem::temp_directory_path() / "heal-trial-XXXXXX").string();
    if (!::mkdtemp(folder.data())) {
        fmt::print(err, "cannot make a folder in {}\n", std::filesystem::temp_directory_path().string());
        return 2;
    }
    const int code = trial(run, folder, clock, out, err);
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
    return code;
}

}  // namespace heal
