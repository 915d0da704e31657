// What many nodes on one PostgreSQL agree on: who is there, who heals what. Leases run by the server's clock,
// so that the nodes' clocks need not agree. PostgreSQL only. All run inside a job of Store, whose write turn
// makes each of them see what the one before left. Errors are those of Database::run.
#pragma once

#include "core/incident.hpp"
#include "store/database.hpp"
#include "store/healing_store.hpp"

#include <optional>
#include <string>
#include <vector>

namespace heal::sql {

struct NodeInfo {
    std::string node, host, version;
    std::int64_t pid = 0;
};
/// Makes this node a member with a new fence, which voids every claim of an older one. Returns the fence.
result<std::int64_t> join_cluster(Database& db, const NodeInfo& info, Duration lease);
/// Renews the lease. False: another node took this one for lost; its claims are void.
result<bool> heartbeat(
    Database& db,
    const std::string& node,
    std::int64_t fence,
    Duration lease,
    const std::string& health,
    std::int64_t open_events
);
result<void> leave_cluster(Database& db, const std::string& node, std::int64_t fence);
/// Nodes whose lease ran out are lost from now on; their names.
result<std::vector<std::string>> mark_lost_nodes(Database& db);
/// errc::denied when this membership is over.
result<void> check_fence(Database& db, const std::string& node, std::int64_t fence);

/// The open incident of this error: made now and claimed, or "" when it is this node's; else the id of the
/// one that another node heals. `count` lines are added to whichever it is. Not `ours`: another node owns its
/// target; the incident is made, and its owner claims it.
result<std::string> claim_event(
    Database& db,
    const Incident& incident,
    const std::string& node,
    std::int64_t fence,
    std::uint64_t count,
    bool ours = true
);
struct TakenOver {
    OpenEvent event;
    std::vector<AttemptRow> attempts;
};
/// Open incidents that no living member heals, claimed for this node; at most `limit`, and none on targets
/// that other nodes own. SKIP LOCKED.
result<std::vector<TakenOver>> take_over(
    Database& db,
    const std::string& node,
    std::int64_t fence,
    std::int64_t limit,
    const std::vector<std::string>& not_these = {}
);
struct ClaimedCount {
    std::string event, fingerprint, environment;
    std::uint64_t count = 0;  ///< lines on all nodes
    Time last_seen;           ///< of the error
};
/// The open incidents of this node.
result<std::vector<ClaimedCount>> claimed_counts(Database& db, const std::string& node, std::int64_t fence);
/// Claims of incidents that ended.
result<void> forget_claims(Database& db, const std::string& node);

/// Counts an intent of this node.
result<void> count_intent(Database& db, const std::string& node);
/// Intents of all other nodes so far: when it changed, what a guard saw is out of date.
result<std::int64_t> foreign_intents(Database& db, const std::string& node);

/// Occurrences of one error in the last hour, on all nodes, by minute.
result<std::vector<WindowCount>> load_window(Database& db, const std::string& fingerprint, Time from);
/// The healed incident of this error whose hold window may still run.
result<std::optional<HeldEvent>> load_held(
    Database& db, const std::string& fingerprint, const std::string& environment
);

/// What somebody wants of an incident, or of a run of a patch, that another node has.
struct EventRequest {
    std::string id;
    std::string event;     ///< the incident; the run, its bug or the bug's code
    std::string request;   ///< approve, reject; of a run also cancel
    std::string argument;  ///< the body as JSON
    std::string actor;
    bool patch = false;  ///< of a run; `event` is its id once it is taken
};
/// Asks the node that has it. errc::not_found: no living node but `node` does.
result<void> request_of_event(Database& db, const EventRequest& request, const std::string& node, Time now);
/// Takes the requests for incidents and runs of this node.
result<std::vector<EventRequest>> take_requests(Database& db, const std::string& node);

/// What people changed that every node follows, as one word that differs when it does.
result<std::string> shared_state(Database& db);
/// Wakes the other nodes: they look at once instead of at their next heartbeat.
result<void> notify_nodes(Database& db, const std::string& what);
inline constexpr const char* notify_channel = "heald";

/// {"items": [...]}: nodes with version, health, lease.
result<json::object> list_nodes(Database& db);

}  // namespace heal::sql
