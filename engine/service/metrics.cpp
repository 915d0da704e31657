#include "service/metrics.hpp"

#include <fmt/format.h>

#include <array>
#include <string_view>

namespace heal {
namespace {

struct Help {
    const char* type;
    const char* text;
};
// Every metric of heald: a name that is not here has no help, which the tests refuse.
const std::map<std::string_view, Help> helps = {
    {"heald_build_info", {"gauge", "Version of this heald; always 1"}},
    {"heald_start_time_seconds", {"gauge", "When this process started, seconds since 1970"}},
    {"heald_ready", {"gauge", "1 when heald takes in and heals, else 0"}},
    {"heald_paused", {"gauge", "1 while the kill switch is on"}},
    {"heald_config_last_reload_successful",
     {"gauge", "1 when the last reload of the configuration was taken, 0 when the old one stayed"}},
    {"heald_ingest_records_total",
     {"counter",
      "Records by source kind and outcome (stored, below_level, malformed, self, joined, refused)"}},
    {"heald_ingest_batches_total",
     {"counter", "Batches by source kind and outcome (stored, duplicate, refused, failed)"}},
    {"heald_ingest_truncated_total", {"counter", "Records of which some text was cut at a limit"}},
    {"heald_queue_depth", {"gauge", "Batches that wait for the store"}},
    {"heald_store_writes_queued", {"gauge", "Writes that wait for a commit"}},
    {"heald_store_commits_total", {"counter", "Transactions committed"}},
    {"heald_store_failed_commits_total", {"counter", "Transactions that failed as a whole"}},
    {"heald_store_writes_total", {"counter", "Writes within committed transactions"}},
    {"heald_cluster_member", {"gauge", "1 while this node holds its lease in the cluster"}},
    {"heald_cluster_fence", {"gauge", "Number of this node's membership; a claim with an older one is void"}},
    {"heald_cluster_taken_over_total", {"counter", "Incidents taken over from a node that was lost or left"}},
    {"heald_cluster_lost_total", {"counter", "Times this node was taken for lost"}},
    {"heald_journal_waiting_batches",
     {"gauge", "Batches taken in while PostgreSQL was away that wait for it"}},
    {"heald_journal_waiting_bytes", {"gauge", "Size of the batches that wait for PostgreSQL"}},
    {"heald_journal_batches_total",
     {"counter", "Batches by what the journal did: taken, refused, stored, set_aside"}},
    {"heald_local_healing", {"gauge", "1 while this node heals its own targets without the shared store"}},
    {"heald_local_incidents_open", {"gauge", "Incidents open on this node alone"}},
    {"heald_local_handed_over_total", {"counter", "Incidents healed alone that the shared store has by now"}},
    {"heald_store_connected", {"gauge", "1 while the store can be written to over its connection"}},
    {"heald_store_reconnects_total", {"counter", "Connections to the store that were made anew"}},
    {"heald_store_repeated_transactions_total",
     {"counter", "Transactions run again after a deadlock or a broken connection"}},
    {"heald_store_doubtful_commits_total",
     {"counter", "Commits whose answer was lost; what became of them was asked for"}},
    {"heald_store_writes_kept", {"gauge", "Writes that failed and are tried until they are stored"}},
    {"heald_store_last_commit_seconds", {"gauge", "Duration of the newest commit"}},
    {"heald_fingerprints_tracked", {"gauge", "Fingerprints held in memory for triggers"}},
    {"heald_fingerprints_evicted_total",
     {"counter", "Fingerprints whose trigger state was given up for want of room"}},
    {"heald_incidents_total", {"counter", "Incidents by final state"}},
    {"heald_incidents_open", {"gauge", "Incidents that are open now"}},
    {"heald_bugs_opened_total", {"counter", "Bugs opened"}},
    {"heald_attempts_total", {"counter", "Attempts by strategy and outcome"}},
    {"heald_attempt_duration_seconds", {"histogram", "Duration of execute by strategy"}},
    {"heald_time_to_heal_seconds", {"histogram", "Incident opened to verified healthy"}},
    {"heald_guard_evaluated_total", {"counter", "Evaluations by guard"}},
    {"heald_guard_tripped_total", {"counter", "Denials by guard"}},
    {"heald_guard_input_missing_total", {"counter", "Denials because an input was missing, by guard"}},
    {"heald_strategies", {"gauge", "Artifacts by state (loaded, refused, quarantined)"}},
    {"heald_tail_files", {"gauge", "Log files followed"}},
    {"heald_tail_rotations_total", {"counter", "Rotations seen"}},
    {"heald_tail_gaps_total", {"counter", "Times at which data was lost before it could be read"}},
    {"heald_http_requests_total", {"counter", "Requests by route and status class"}},
    {"heald_http_request_duration_seconds", {"histogram", "Duration of requests by route"}},
    {"heald_analyses_total", {"counter", "Analyses of bugs by source (model, cache, rules)"}},
    {"heald_analysis_urgent_total",
     {"counter", "Bugs of P0 and P1 to be analysed at once: queued, refused (too many), done, failed"}},
    {"heald_llm_requests_total",
     {"counter",
      "Questions to models by provider and outcome (answered, invalid, refused, failed, limited, cached, "
      "over_budget, resting)"}},
    {"heald_llm_tokens_total", {"counter", "Tokens by provider, model and kind (input, cached, output)"}},
    {"heald_llm_cost_total", {"counter", "Cost of questions by provider, in the currency of the prices"}},
    {"heald_fingerprint_collisions_total", {"counter", "Errors whose short id belongs to another digest"}},
};

// From 100 µs (an answer from memory) to 5 min (a slow remedy).
constexpr std::array<double, 14> bounds = {
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300};

std::string render(const Metrics::Labels& labels) {
    std::string out;
    for (const auto& [key, value] : labels) {
        out += out.empty() ? "" : ",";
        out += key + "=\"";
        for (const char c : value) {
            if (c == '\\' || c == '"') out += '\\';
            if (c == '\n')
                out += "\\n";
            else
                out += c;
        }
        out += '"';
    }
    return out;
}

}  // namespace

void Metrics::add(const std::string& name, const Labels& labels, double value) {
    const std::lock_guard lock{mutex_};
    values_[name][render(labels)] += value;
}

void Metrics::set(const std::string& name, const Labels& labels, double value) {
    const std::lock_guard lock{mutex_};
    values_[name][render(labels)] = value;
}

void Metrics::observe(const std::string& name, const Labels& labels, double seconds) {
    const std::lock_guard lock{mutex_};
    auto& h = histograms_[name][render(labels)];
    h.buckets.resize(bounds.size());
    for (std::size_t i = 0; i < bounds.size(); ++i) {
        if (seconds <= bounds[i]) ++h.buckets[i];
    }
    ++h.count;
    h.sum += seconds;
}

double Metrics::value(const std::string& name, const Labels& labels) const {
    const std::lock_guard lock{mutex_};
    const auto it = values_.find(name);
    if (it == values_.end()) return 0;
    const auto row = it->second.find(render(labels));
    return row == it->second.end() ? 0 : row->second;
}

std::string Metrics::text() const {
    const std::lock_guard lock{mutex_};
    std::string out;
    const auto head = [&](const std::string& name) {
        const auto it = helps.find(name);
        if (it != helps.end())
            out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, it->second.text, name, it->second.type);
    };
    for (const auto& [name, rows] : values_) {
        head(name);
        for (const auto& [labels, value] : rows) {
            out += labels.empty() ? fmt::format("{} {}\n", name, value)
                                  : fmt::format("{}{{{}}} {}\n", name, labels, value);
        }
    }
    for (const auto& [name, rows] : histograms_) {
        head(name);
        for (const auto& [labels, h] : rows) {
            const std::string comma = labels.empty() ? "" : ",";
            for (std::size_t i = 0; i < bounds.size(); ++i) {
                out += fmt::format(
                    "{}_bucket{{{}{}le=\"{}\"}} {}\n", name, labels, comma, bounds[i], h.buckets[i]
                );
            }
            out += fmt::format("{}_bucket{{{}{}le=\"+Inf\"}} {}\n", name, labels, comma, h.count);
            const std::string braces = labels.empty() ? "" : "{" + labels + "}";
            out += fmt::format("{0}_sum{1} {2}\n{0}_count{1} {3}\n", name, braces, h.sum, h.count);
        }
    }
    return out;
}

}  // namespace heal
