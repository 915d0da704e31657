#include "service/mapping_parts.hpp"
#include "service/settings.hpp"

#include <algorithm>

namespace heal {
namespace {

using namespace std::chrono_literals;

/// `[cmake, --build, .]`, or {name, run: […], timeout, idempotent}.
void read_command(
    const YAML::Node& node,
    const std::string& path,
    Mapping::Context& context,
    std::vector<CommandSettings>& ret,
    bool hook
) {
    CommandSettings command;
    if (node.IsSequence()) {
        for (const auto& word : node) {
            if (!word.IsScalar()) {
                context.errors->push_back(fmt::format(
                    "{}:{}: {}: must be a list of words", context.file, node.Mark().line + 1, path
                ));
                return;
            }
            command.argv.push_back(word.Scalar());
        }
    } else {
        Mapping in{node, path, context};
        in.text("name", command.name);
        in.texts("run", command.argv);
        in.duration("timeout", command.timeout, 1s, 24h);
        if (hook) in.flag("idempotent", command.idempotent);
    }
    if (command.argv.empty() || command.argv.front().empty()) {
        context.errors->push_back(fmt::format(
            "{}:{}: {}: must name a program, as [make, test] or {{run: [make, test], timeout: 5m}}",
            context.file,
            node.Mark().line + 1,
            path
        ));
        return;
    }
    if (command.name.empty()) command.name = command.argv.front().substr(command.argv.front().rfind('/') + 1);
    ret.push_back(std::move(command));
}

bool is_name(const std::string& text) {
    return !text.empty() && text.size() <= 64 && text[0] != '.' && text[0] != '-' &&
           std::all_of(text.begin(), text.end(), [](char c) {
               return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';
           });
}

}  // namespace

void read_repository(
    const YAML::Node& node, const std::string& path, Mapping::Context& context, Settings& settings
) {
    RepositorySettings r;
    Mapping in{node, path, context};
    if (!in.text("name", r.name))
        in.error(node, path + ".name", "is missing; a repository needs a name");
    else if (!is_name(r.name))
        in.error("name", "must be of a-z, 0-9, '_', '.', '-', up to 64 of them");
    if (!in.text("url", r.url) || r.url.empty() || r.url[0] == '-')
        in.error(node, path + ".url", "is missing; a path, https:// or ssh URL that git can clone");
    if (!in.texts("services", r.services) || r.services.empty())
        in.error(node, path + ".services", "must list the services whose errors this code throws");
    if (in.text("branch", r.branch) && (r.branch.empty() || r.branch[0] == '-'))
        in.error("branch", "must be the name of a branch");
    read_secret(in, "token", r.token);
    in.choice<FixAutonomy>(
        "autonomy",
        r.autonomy,
        {{"off", FixAutonomy::off},
         {"suggest", FixAutonomy::suggest},
         {"trial", FixAutonomy::trial},
         {"merge", FixAutonomy::merge}}
    );
    const auto commands = [&](const char* key, std::vector<CommandSettings>& ret, bool hook = false) {
        in.each(key, [&](const YAML::Node& item, const std::string& at) {
            read_command(item, at, context, ret, hook);
        });
    };
    commands("build", r.build);
    commands("reproduce", r.reproduce);
    commands("tests", r.tests);
    commands("deploy", r.deploy, true);
    commands("undeploy", r.undeploy, true);
    in.texts("allowed", r.allowed);
    in.texts("forbidden", r.forbidden);
    in.texts("test_files", r.test_files);
    in.integer("max_files", r.max_files, 1, 100);
    in.integer("max_lines", r.max_lines, 1, 10'000);
    in.integer("memory_bytes", r.memory_bytes, 64LL << 20U, 1LL << 40U);
    in.integer("processes", r.processes, 8, 100'000);
    in.choice<std::string>(
        "sandbox",
        r.sandbox,
        {{"bubblewrap", "bubblewrap"}, {"namespaces", "namespaces"}, {"rlimits", "rlimits"}}
    );
    if (const auto* env = in.find("env")) {
        if (!env->IsMap())
            in.error("env", "must be a mapping from name to text");
        else {
            Mapping names{*env, path + ".env", context};
            for (const auto& entry : *env) {
                std::string value;
                if (names.text(entry.first.Scalar(), value)) r.env[entry.first.Scalar()] = value;
            }
        }
    }
    if (const auto* forge = in.find("forge")) {
        Mapping f{*forge, path + ".forge", context};
        if (!f.choice<std::string>("kind", r.forge_kind, {{"github", "github"}, {"gitlab", "gitlab"}}) &&
            !f.find("kind"))
            f.error(*forge, path + ".forge.kind", "is missing; github or gitlab");
        r.forge_url = r.forge_kind == "gitlab" ? "https://gitlab.com" : "https://api.github.com";
        f.text("url", r.forge_url);
        while (r.forge_url.ends_with('/')) r.forge_url.pop_back();
        if (!f.text("project", r.forge_project) || r.forge_project.find('/') == std::string::npos)
            f.error(*forge, path + ".forge.project", "must be owner/name");
        read_secret(f, "token", r.forge_token);
        f.text("api_version", r.forge_api_version);
        f.flag("draft", r.draft);
        f.texts("labels", r.labels);
    }
    if (!r.forge_kind.empty()) r.land = PatchPlan::Land::request;
    in.choice<PatchPlan::Land>(
        "land",
        r.land,
        {{"merge", PatchPlan::Land::merge},
         {"request", PatchPlan::Land::request},
         {"branch", PatchPlan::Land::branch}}
    );
    if (r.land == PatchPlan::Land::request && r.forge_kind.empty())
        in.error("land", "a request needs a forge; without one it is merge or branch");
    in.text("author", r.author);
    in.each("probes", [&](const YAML::Node& item, const std::string& at) {
        read_probe(item, at, context, r.probes);
    });
    if (const auto* watch = in.find("watch")) {
        Mapping w{*watch, path + ".watch", context};
        w.duration("settle", r.horizons.settle, 0ms, 1h);
        w.duration("stabilize", r.horizons.stabilize, 0ms, 24h);
        w.duration("hold", r.horizons.hold, 0ms, 30 * 24h);
        w.duration("look_every", r.horizons.look_every, 10ms, 1h);
    }
    for (const auto& other : settings.repositories) {
        if (other.name == r.name) in.error("name", fmt::format("there are two repositories '{}'", r.name));
        for (const auto& service : r.services) {
            if (std::find(other.services.begin(), other.services.end(), service) != other.services.end())
                in.error(
                    "services", fmt::format("'{}' belongs to repository '{}' already", service, other.name)
                );
        }
    }
    if (r.autonomy >= FixAutonomy::trial && r.tests.empty() && r.reproduce.empty() &&
        (in.find("autonomy") || !r.build.empty()))
        in.error(
            node,
            path + ".tests",
            "is missing; without tests no patch can be tried (autonomy: suggest needs none)"
        );
    if (r.autonomy == FixAutonomy::trial && r.tests.empty() && r.reproduce.empty())
        r.autonomy = FixAutonomy::suggest;
    settings.repositories.push_back(std::move(r));
}

}  // namespace heal
