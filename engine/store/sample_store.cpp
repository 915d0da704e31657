#include "store/sample_store.hpp"

#include <unordered_map>

namespace heal::sql {

result<void> each_sample(Database& db, Time from, const std::function<void(const StoredSample&)>& visit) {
    // Patterns first, so that the long read needs no join per row; a million are some 100 MB.
    constexpr Statement patterns{
        "select patterns",
        "SELECT id, pattern FROM error_fingerprints ORDER BY last_seen_at DESC LIMIT 1000000"};
    constexpr Statement samples{
        "select samples in order",
        "SELECT fingerprint, service_name, environment, log_level, message, error_type, stack_trace, "
        "context, "
        "timestamp, received_at, http_status, component, release, host, source, represents FROM log_entries "
        "WHERE received_at >= $1 ORDER BY received_at, id"};
    std::unordered_map<std::string, std::string> pattern_of;
    HEAL_TRY(db.query(patterns, {}, [&](const Row& r) { pattern_of.emplace(r.text(0), r.text(1)); }));
    StoredSample s;
    HEAL_TRY(db.query(samples, {from.us}, [&](const Row& r) {
        auto& in = s.incident;
        auto& record = in.record;
        in.fingerprint = record.fingerprint = r.text(0);
        in.service_name = record.service_name = r.text(1);
        in.environment = record.environment = r.text(2);
        record.level = parse_level(r.text(3));
        record.message = r.text(4);
        record.error_type = r.text(5);
        record.stack_trace = r.text(6);
        record.context = r.text(7);
        record.time = Time{r.integer(8)};
        record.received = Time{r.integer(9)};
        record.http_status = static_cast<int>(r.integer(10));
        record.component = r.text(11), record.release = r.text(12), record.host = r.text(13);
        record.source = r.text(14);
        s.represents = static_cast<std::uint64_t>(std::max<std::int64_t>(1, r.integer(15)));
        const auto known = pattern_of.find(in.fingerprint);
        in.pattern = record.pattern = known == pattern_of.end() ? record.message : known->second;
        visit(s);
    }));
    return {};
}

}  // namespace heal::sql
