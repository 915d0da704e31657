// Statements of approvals and their links (core/approval.hpp). All run inside a job of Store; errors are
// those of Database::run.
#pragma once

#include "core/approval.hpp"
#include "store/database.hpp"

#include <string>
#include <vector>

namespace heal::sql {

/// errc::conflict: one of this kind and subject is open.
result<void> insert_approval(Database& db, const Approval& approval);
/// State, reason, votes and end of one that is there.
result<void> update_approval(Database& db, const Approval& approval);
/// nullopt: there is none of that id.
result<std::optional<Approval>> load_approval(Database& db, const std::string& id);
/// The open one of a kind and subject, or the newest; nullopt: there never was one.
result<std::optional<Approval>> find_approval(
    Database& db, const std::string& kind, const std::string& subject
);
/// Newest first. `state` and `kind` "": any. limit 1 … 1000.
result<std::vector<Approval>> list_approvals(
    Database& db, const std::string& state, const std::string& kind, std::int64_t limit
);
/// Pending or approved ones whose time ran out at `now`, at most 100.
result<std::vector<Approval>> load_expired_approvals(Database& db, Time now);

struct ApprovalLink {
    std::string id, approval, decision, actor;  ///< decision: approve or reject; actor: for whom it was made
    Time expires_at;
};
result<void> insert_approval_link(Database& db, const ApprovalLink& link);
/// nullopt: unknown, over, or used already.
result<std::optional<ApprovalLink>> load_approval_link(Database& db, const std::string& id, Time now);
/// False: it was used before or is over. Nobody uses a link twice.
result<bool> use_approval_link(Database& db, const std::string& id, Time now);
/// Links that ended before `before` go; returns how many.
result<std::int64_t> forget_approval_links(Database& db, Time before);

}  // namespace heal::sql
