// The values everything else speaks of, in the words of docs/style: error event, fingerprint, incident,
// strategy, attempt, action (one effect), outcome. Plain data; no behaviour, no I/O, no clock.
#pragma once

#include "base/clock.hpp"
#include "base/json.hpp"
#include "base/level.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace heal {

/// One error event, whatever its source (M1). Owned copies: only samples become one, never each line.
struct LogRecord {
    Time time;      ///< when the source says it happened; ingest time if it did not say
    Time received;  ///< when heald heard it; guards and triggers use only this one
    std::string service_name, environment, release, host, component;
    Level level = Level::unknown;
    std::string message, error_type, stack_trace;
    std::string request_id, workspace_id, trace_id;
    int http_status = 0;  ///< 0: not known
    std::string context;  ///< JSON object text; "" for none
    std::string
        source;  ///< "http", "file:/var/log/x.log", … where the channel, not the text, says it came from
    std::string fingerprint;  ///< 16 hex digits (M2)
    std::string digest;   ///< the full SHA-256 as hex, so that a crafted collision of the short id is noticed
    std::string pattern;  ///< normalized message
};

enum class Risk : std::uint8_t { safe, disruptive, destructive };
const char* to_string(Risk risk) noexcept;
bool parse_risk(std::string_view word, Risk& ret) noexcept;

/// How an attempt or a verification ended. `unknown`: the world may or may not have changed (D4).
enum class Outcome : std::uint8_t { succeeded, failed, declined, unknown, cancelled };
const char* to_string(Outcome outcome) noexcept;
Outcome parse_outcome(std::string_view word) noexcept;  ///< any other word: failed

/// What a strategy says about itself (`describe`) and what the engine knows about its artifact.
struct StrategyInfo {
    std::string name;               ///< id, unique over all artifacts: "restart", "acme.flush-cdn"
    std::string version;            ///< the author's own
    std::string summary;            ///< one sentence for people
    std::int64_t priority = 50;     ///< higher first; configuration overrides it
    double confidence = 0.5;        ///< prior in [0,1] when it has no `assess`
    double confidence_floor = 0.0;  ///< below it the strategy is out; configuration overrides it
    Risk risk = Risk::disruptive;
    bool idempotent = false;  ///< running twice does no more than once
    bool reversible = false;  ///< every effect it performs can be undone
    bool has_assess = false, has_verify = false, has_rollback = false;
    std::chrono::milliseconds timeout{30'000};  ///< of one execute; 1 ms … 1 h
    /// Data, evaluated by core::matches (matcher.hpp); any of them must fit.
    json::array matches;
    /// "exec:/usr/bin/systemctl", "file:/etc/app/**", "net:127.0.0.1:6379"; may hold {target.…}
    /// (docs/plugin-guide.md).
    std::vector<std::string> capabilities;
    json::object parameters;  ///< JSON Schema of `config`; empty: takes none
    std::string artifact;     ///< path of the .so or .lua
    std::string build;        ///< SHA-256 of the artifact, hex
    std::string kind;         ///< "so" or "lua"
};

}  // namespace heal
