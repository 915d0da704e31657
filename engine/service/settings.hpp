// The configuration: YAML with a strict schema, read whole or refused whole. Each error names file, line, key
// and what is allowed. Every value has a default, so no file at all is a valid configuration
// (docs/configuration.md lists the keys).
#pragma once

#include "base/error.hpp"
#include "base/json.hpp"
#include "core/guards.hpp"
#include "core/healing_machine.hpp"
#include "core/targets.hpp"
#include "core/triggers.hpp"
#include "core/trust.hpp"
#include "fingerprint/rules.hpp"
#include "service/ai_settings.hpp"
#include "service/probe_settings.hpp"
#include "service/repositories.hpp"
#include "store/store_settings.hpp"

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace heal {

/// One entry of the inventory: a service, how to reach it and what it is made of.
struct ServiceSettings {
    std::string name, environment;  ///< environment "": any
    std::vector<ProbeSettings> probes;
    std::vector<std::string> depends_on;
    std::string owner;   ///< the one node that heals it, also while the shared store is away; "": any may
    json::object facts;  ///< what strategies see as request.target, "name" included
};

/// Services that stand in for each other; some of them must stay healthy.
struct GroupSettings {
    std::string name;
    std::vector<std::string> services;  ///< names of the inventory
    unsigned min_healthy = 1;           ///< members, or percent of them (rounded up)
    bool percent = false;
    unsigned minimum() const;  ///< members
};

struct SourceSettings {
    std::string file;  ///< absolute path or glob
    std::string service, environment;
    std::string format = "auto";
    Level min_level = Level::warn;
    bool from_start = false, follow_symlinks = false, join = true;
    std::chrono::milliseconds join_wait{50};
};

struct StrategySettings {
    std::optional<std::int64_t> priority;
    std::optional<bool> enabled;
    std::optional<Autonomy> autonomy;
    std::optional<Autonomy> trust;  ///< rung where it begins
    std::optional<double> floor;
    std::optional<std::chrono::milliseconds> timeout, verify_timeout, stabilize, hold;
    json::object config;                    ///< the strategy's own parameters
    std::vector<std::string> capabilities;  ///< narrows what the artifact declares; empty: as declared
    bool has_capabilities = false;
};

/// What people are asked.
struct ApprovalSettings {
    std::chrono::milliseconds expire = std::chrono::hours{24};  ///< then nobody decided
    std::optional<Risk> two_persons;  ///< from this risk on two different people must agree; nullopt: never
    std::string base_url;             ///< before the path of a link; "": links are paths
};

/// Incidents that are left alone for a while, to learn what recovers by itself.
struct ControlSettings {
    unsigned percent = 0;                    ///< of those of low severity; 0: none
    std::chrono::milliseconds wait{60'000};  ///< then they are healed as all others
    Severity from = Severity::p3_trivial;    ///< this severity and lower ones
};

/// How long what is kept. What is exact stays for ever: kinds of errors, bugs, counts per day, what was
/// landed, the audit log.
struct RetentionSettings {
    std::chrono::milliseconds log_entries = std::chrono::hours{30 * 24};  ///< samples
    std::uint64_t log_rows = 1'000'000;                                   ///< samples in all; 0: no limit
    std::uint64_t bytes = 0;  ///< of the store; beyond it the oldest samples go; 0: no limit
    std::chrono::milliseconds healing =
        std::chrono::hours{90 * 24};  ///< ended incidents, patch runs, questions to models
    std::chrono::milliseconds minute_counts = std::chrono::hours{48};
    std::chrono::milliseconds hour_counts = std::chrono::hours{90 * 24};
    std::chrono::milliseconds records =
        std::chrono::hours{30 * 24};  ///< runs of jobs, health checks, metrics
};

struct Settings {
    std::string state_dir;  ///< resolved
    std::string log_level = "info", log_format = "auto";
    std::string http_listen = "127.0.0.1:7480";
    std::string http_token;  ///< "": none asked for (only on loopback)
    std::uint64_t http_max_body_bytes = 16U << 20U;
    unsigned http_max_connections = 256;
    std::uint64_t store_journal_bytes = 256U
                                        << 20U;  ///< of batches that wait for PostgreSQL; 0: none are kept
    std::string store_url, store_password;       ///< PostgreSQL; url "": SQLite in the state directory
    std::string store_service;                   ///< of the inventory: the server that the url leads to
    unsigned store_connections = 4;              ///< one writes, the others read
    RetentionSettings retention;
    std::string node;  ///< name of this node in a cluster
    std::string plugins_dir, scripts_dir, host_binary;
    unsigned max_children = 8;
    std::chrono::milliseconds warm_for{60'000};
    std::uint64_t host_memory_bytes = 512U << 20U;
    unsigned queue_batches = 256;  ///< batches waiting for the store before ingest is refused
    std::vector<SourceSettings> sources;
    std::vector<ServiceSettings> services;
    std::map<std::string, StrategySettings> strategies;
    std::vector<GroupSettings> groups;
    AiSettings ai;
    std::vector<RepositorySettings> repositories;
    unsigned patches_at_once = 2;  ///< builds and tests of patches side by side
    std::vector<WindowRule> windows;
    std::vector<std::string> forbidden;  ///< globs over capabilities that no strategy gets
    Limits limits;
    VerifyPolicy verify;
    Autonomy default_autonomy = Autonomy::automatic;
    Risk max_auto_risk = Risk::safe;
    bool dry_run = false;
    ApprovalSettings approvals;
    TrustPolicy trust;
    std::vector<TriggerSpec> triggers;
    std::vector<TargetRule> target_rules;
    TargetResolver targets;  ///< of the services and target_rules
    ControlSettings control;
    unsigned explore_percent = 0;  ///< of the incidents: what little is known of goes first; 0: never
    unsigned explore_per_day = 20;
    std::vector<fingerprint::RuleSpec> rule_specs;
    std::shared_ptr<const fingerprint::Rules> rules;  ///< null: none
    std::vector<std::string> files;                   ///< what was read
};

/// The repository whose code throws the errors of a service, or null.
const RepositorySettings* repository_of(const Settings& settings, const std::string& service);

/// Where the store of these settings is.
StoreSettings store_settings(const Settings& settings);

/// Reads `path` and, beside it, conf.d/*.yaml in order. An empty path: defaults, or /etc/heald/heald.yaml
/// when it is there. On failure the list holds every fault found, each as "file:line: key: what is wrong;
/// what is allowed".
struct SettingsResult {
    std::optional<Settings> settings;
    std::vector<std::string> errors;
};
SettingsResult load_settings(const std::string& path);

}  // namespace heal
