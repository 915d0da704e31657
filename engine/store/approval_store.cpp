#include "store/approval_store.hpp"

namespace heal::sql {
namespace {

using std::string_view;

#define HEAL_APPROVAL_COLUMNS                                                                             \
    "id, kind, subject, summary, bound, digest, needed, state, reason, votes, requested_at, expires_at, " \
    "ended_at"

std::string votes_text(const Approval& a) {
    json::array votes;
    for (const auto& v : a.votes)
        votes.push_back(json::object{
            {"actor", to_valid_utf8(v.actor)},
            {"yes", v.yes},
            {"break_glass", v.break_glass},
            {"reason", to_valid_utf8(v.reason)},
            {"at_us", v.at.us}});
    return json::serialize(votes);
}

/// Unreadable content gives one that allows nothing.
Approval approval_of(const Row& r) {
    Approval a;
    a.id = r.text(0), a.kind = r.text(1), a.subject = r.text(2), a.summary = r.text(3);
    bool readable = false;
    if (auto bound = parse_json(r.text(4), "approvals.bound"); bound && bound->is_object()) {
        a.bound = std::move(bound->get_object());
        readable = true;
    }
    a.digest = r.text(5);
    a.needed = static_cast<unsigned>(r.integer(6));
    readable = parse_approval_state(r.text(7), a.state) && readable;
    a.reason = r.text(8);
    if (auto votes = parse_json(r.text(9), "approvals.votes"); votes && votes->is_array()) {
        for (const auto& item : votes->get_array()) {
            if (!item.is_object()) continue;
            const auto& o = item.get_object();
            a.votes.push_back(
                {std::string{string_at(o, "actor")},
                 bool_at(o, "yes"),
                 bool_at(o, "break_glass"),
                 std::string{string_at(o, "reason")},
                 Time{int_at(o, "at_us")}}
            );
        }
    } else
        readable = false;
    a.requested_at = Time{r.integer(10)};
    a.expires_at = Time{r.integer(11)};
    if (!r.is_null(12)) a.ended_at = Time{r.integer(12)};
    if (!readable) {
        a.state = ApprovalState::voided;
        a.reason = "its row cannot be read";
    }
    return a;
}

}  // namespace

result<void> insert_approval(Database& db, const Approval& a) {
    constexpr Statement insert{
        "insert approvals",
        "INSERT INTO approvals (" HEAL_APPROVAL_COLUMNS
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"};
    const std::string bound = json::serialize(a.bound), votes = votes_text(a),
                      summary = to_valid_utf8(a.summary), subject = to_valid_utf8(a.subject);
    return db.execute(
        insert,
        {string_view{a.id},
         string_view{a.kind},
         string_view{subject},
         string_view{summary},
         string_view{bound},
         string_view{a.digest},
         static_cast<std::int64_t>(a.needed),
         string_view{to_string(a.state)},
         string_view{a.reason},
         string_view{votes},
         a.requested_at.us,
         a.expires_at.us,
         or_null(a.ended_at)}
    );
}

result<void> update_approval(Database& db, const Approval& a) {
    constexpr Statement update{
        "update approvals",
        "UPDATE approvals SET state = $2, reason = $3, votes = $4, ended_at = $5 WHERE id = $1"};
    const std::string votes = votes_text(a), reason = to_valid_utf8(a.reason);
    return db.execute(
        update,
        {string_view{a.id},
         string_view{to_string(a.state)},
         string_view{reason},
         string_view{votes},
         or_null(a.ended_at)}
    );
}

result<std::optional<Approval>> load_approval(Database& db, const std::string& id) {
    constexpr Statement select{
        "select approval", "SELECT " HEAL_APPROVAL_COLUMNS " FROM approvals WHERE id = $1"};
    std::optional<Approval> found;
    HEAL_TRY(db.query(select, {string_view{id}}, [&](const Row& r) { found = approval_of(r); }));
    return found;
}

result<std::optional<Approval>> find_approval(
    Database& db, const std::string& kind, const std::string& subject
) {
    constexpr Statement select{
        "select approval by subject",
        "SELECT " HEAL_APPROVAL_COLUMNS
        " FROM approvals WHERE kind = $1 AND subject = $2 ORDER BY CASE WHEN state IN ('pending', "
        "'approved') THEN 0 ELSE 1 END, requested_at DESC, id DESC LIMIT 1"};
    std::optional<Approval> found;
    HEAL_TRY(db.query(select, {string_view{kind}, string_view{subject}}, [&](const Row& r) {
        found = approval_of(r);
    }));
    return found;
}

result<std::vector<Approval>> list_approvals(
    Database& db, const std::string& state, const std::string& kind, std::int64_t limit
) {
    constexpr Statement select{
        "select approvals",
        "SELECT " HEAL_APPROVAL_COLUMNS
        " FROM approvals WHERE ($1 = '' OR state = $1) AND ($2 = '' OR kind = $2) ORDER BY requested_at "
        "DESC, id DESC LIMIT $3"};
    std::vector<Approval> rows;
    HEAL_TRY(db.query(select, {string_view{state}, string_view{kind}, limit}, [&](const Row& r) {
        rows.push_back(approval_of(r));
    }));
    return rows;
}

result<std::vector<Approval>> load_expired_approvals(Database& db, Time now) {
    constexpr Statement select{
        "select expired approvals",
        "SELECT " HEAL_APPROVAL_COLUMNS
        " FROM approvals WHERE state IN ('pending', 'approved') AND expires_at <= $1 ORDER BY requested_at "
        "LIMIT 100"};
    std::vector<Approval> rows;
    HEAL_TRY(db.query(select, {now.us}, [&](const Row& r) { rows.push_back(approval_of(r)); }));
    return rows;
}

result<void> insert_approval_link(Database& db, const ApprovalLink& link) {
    constexpr Statement insert{
        "insert approval_links",
        "INSERT INTO approval_links (id, approval_id, decision, actor, expires_at, used_at) VALUES ($1, $2, "
        "$3, $4, $5, NULL)"};
    const std::string actor = to_valid_utf8(link.actor);
    return db.execute(
        insert,
        {string_view{link.id},
         string_view{link.approval},
         string_view{link.decision},
         string_view{actor},
         link.expires_at.us}
    );
}

result<std::optional<ApprovalLink>> load_approval_link(Database& db, const std::string& id, Time now) {
    constexpr Statement select{
        "select approval_links",
        "SELECT id, approval_id, decision, actor, expires_at FROM approval_links WHERE id = $1 AND used_at "
        "IS NULL AND expires_at > $2"};
    std::optional<ApprovalLink> found;
    HEAL_TRY(db.query(select, {string_view{id}, now.us}, [&](const Row& r) {
        found = ApprovalLink{r.text(0), r.text(1), r.text(2), r.text(3), Time{r.integer(4)}};
    }));
    return found;
}

result<bool> use_approval_link(Database& db, const std::string& id, Time now) {
    constexpr Statement update{
        "use approval_links",
        "UPDATE approval_links SET used_at = $2 WHERE id = $1 AND used_at IS NULL AND expires_at > $2"};
    auto changed = db.run(update, {string_view{id}, now.us});
    if (!changed) return changed.error();
    return *changed == 1;
}

result<std::int64_t> forget_approval_links(Database& db, Time before) {
    constexpr Statement remove{"delete approval_links", "DELETE FROM approval_links WHERE expires_at < $1"};
    return db.run(remove, {before.us});
}

}  // namespace heal::sql
