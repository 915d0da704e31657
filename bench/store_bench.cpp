// Figures of the store beside the raw limits of the engine under it, as JSON. Arguments: URL of an empty
// schema
// ("" for SQLite), folder, events, kinds. Run by ./dev bench store.
#include "base/id.hpp"
#include "store/cluster_store.hpp"
#include "store/healing_store.hpp"
#include "store/maintenance.hpp"
#include "store/migrator.hpp"
#include "store/queries.hpp"

#include <fmt/format.h>
#include <libpq-fe.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>

using namespace heal;
using std::int64_t;

namespace {

double seconds_of(const std::function<void()>& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void must(const result<void>& outcome) {
    if (!outcome) {
        std::fprintf(stderr, "%s\n", outcome.error().text.c_str());
        std::exit(1);
    }
}

LogRecord record(const Clock& clock, int kind, int n) {
    LogRecord r;
    r.service_name = "service" + std::to_string(kind % 10);
    r.environment = "prod";
    r.level = Level::error;
    r.error_type = "TimeoutError";
    r.message =
        fmt::format("request {} to shard {} failed after {} ms: connection reset by peer", n, kind, n % 977);
    r.pattern = fmt::format("request <*> to shard k{} failed after <*> ms: connection reset by peer", kind);
    r.stack_trace = "at fetch (client.cpp:120)\nat load (cart.cpp:77)\nat main (main.cpp:12)";
    r.context = R"({"pool":"main","retry":2})";
    r.digest = sha256_hex(r.service_name + r.pattern);
    r.fingerprint = r.digest.substr(0, 16);
    r.time = r.received = clock.wall();
    r.source = "http";
    return r;
}

/// One batch of `lines` events as hearing stores it: counted exactly, at most three samples of a kind.
void store_batch(Database& db, const Clock& clock, int first, int lines, int kinds) {
    std::map<int, std::vector<LogRecord>> by_kind;
    for (int i = 0; i < lines; ++i)
        by_kind[(first + i) % kinds].push_back(record(clock, (first + i) % kinds, first + i));
    must(db.begin());
    std::vector<sql::Occurrences> occurrences;
    for (const auto& [kind, records] : by_kind) {
        const auto& newest = records.back();
        occurrences.push_back(
            {&newest, "", 1, records.size(), records.front().time, newest.time, Severity::p2_minor}
        );
    }
    const auto added = sql::add_occurrences(db, occurrences);
    must(added ? result<void>{} : added.error());
    for (const auto& [kind, records] : by_kind) {
        const std::size_t samples = std::min<std::size_t>(3, records.size());
        for (std::size_t k = 0; k < samples; ++k)
            must(sql::insert_log_entry(
                db, new_id(clock), records[k], k + 1 == samples ? records.size() - samples + 1 : 1
            ));
    }
    must(sql::add_totals(db, "bench", {static_cast<std::uint64_t>(lines), static_cast<std::uint64_t>(lines)})
    );
    must(db.commit());
}

void escape(std::string& out, const std::string& text) {
    for (const char c : text) {
        if (c == '\\')
            out += "\\\\";
        else if (c == '\n')
            out += "\\n";
        else if (c == '\t')
            out += "\\t";
        else
            out += c;
    }
    out += '\t';
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 5) return 2;
    const std::string url = argv[1], folder = argv[2];
    const int events = std::atoi(argv[3]), kinds = std::atoi(argv[4]);
    const SystemClock clock;
    const auto open = [&] {
        return url.empty() ? open_sqlite(folder + "/bench.db", false).value()
                           : open_postgres(url, "", false).value();
    };
    auto db = open();
    must(migrate(*db, clock) ? result<void>{} : result<void>{fail(errc::internal, "migrate")});
    std::map<std::string, double> out;

    // Raw first: every event as a row, 1,000 a transaction, prepared (SQLite) or COPY (PostgreSQL).
    constexpr int batch = 1000;
    if (url.empty()) {
        out["raw_seconds"] = seconds_of([&] {
            for (int i = 0; i < events; i += batch) {
                must(db->begin());
                for (int k = 0; k < batch; ++k)
                    must(sql::insert_log_entry(*db, new_id(clock), record(clock, (i + k) % kinds, i + k), 1));
                must(db->commit());
                db->idle();
            }
        });
    } else {
        PGconn* raw = ::PQconnectdb(url.c_str());
        out["raw_seconds"] = seconds_of([&] {
            for (int i = 0; i < events; i += batch) {
                ::PQclear(::PQexec(raw, "COPY log_entries FROM STDIN"));
                std::string rows;
                for (int k = 0; k < batch; ++k) {
                    const auto r = record(clock, (i + k) % kinds, i + k);
                    for (const auto& text :
                         {new_id(clock),
                          r.fingerprint,
                          r.service_name,
                          r.environment,
                          std::string{"error"},
                          r.message,
                          r.error_type,
                          r.stack_trace,
                          r.context})
                        escape(rows, text);
                    rows += fmt::format("{}\t{}\t0\t\t\t\t\t\t\thttp\t1\t\\N\n", r.time.us, r.received.us);
                }
                ::PQputCopyData(raw, rows.data(), static_cast<int>(rows.size()));
                ::PQputCopyEnd(raw, nullptr);
                PGresult* done = ::PQgetResult(raw);
                if (::PQresultStatus(done) != PGRES_COMMAND_OK)
                    std::fprintf(stderr, "%s\n", ::PQerrorMessage(raw));
                ::PQclear(done);
                while ((done = ::PQgetResult(raw))) ::PQclear(done);
            }
        });
        ::PQfinish(raw);
    }
    must(db->script("DELETE FROM log_entries"));
    // The same rows, one by one through the store's own statement.
    out["rows_seconds"] = seconds_of([&] {
        for (int i = 0; i < events; i += batch) {
            must(db->begin());
            for (int k = 0; k < batch; ++k)
                must(sql::insert_log_entry(*db, new_id(clock), record(clock, (i + k) % kinds, i + k), 1));
            must(db->commit());
            db->idle();
        }
    });
    must(db->script("DELETE FROM log_entries"));
    // As heald takes events in: counted, sampled.
    out["events_seconds"] = seconds_of([&] {
        for (int i = 0; i < events; i += batch) {
            store_batch(*db, clock, i, batch, kinds);
            db->idle();
        }
    });
    for (bool more = true; more;) {
        must(db->begin());
        auto piece = sql::thin_samples(*db, clock.wall(), 50);
        must(db->commit());
        more = piece && piece->more;
    }
    if (url.empty()) {
        for (bool more = true; more;) more = sql::release_free_space(*db, 10'000).value().more;
        must(db->script("PRAGMA wal_checkpoint(TRUNCATE)"));
        out["bytes"] = static_cast<double>(std::filesystem::file_size(folder + "/bench.db"));
    } else {
        must(db->script("VACUUM FULL"));
        out["bytes"] = static_cast<double>(sql::store_size(*db).value().bytes);
    }
    out["samples"] = static_cast<double>(sql::count_samples(*db).value());

    if (!url.empty()) {
        // Claims: orphaned incidents taken over, beside the barest loop that could do it.
        constexpr int incidents = 4000;
        const auto fill = [&] {
            must(db->script("DELETE FROM event_claims; DELETE FROM self_heal_events"));
            must(db->begin());
            for (int i = 0; i < incidents; ++i) {
                Incident in;
                in.id = new_id(clock);
                in.fingerprint = fmt::format("{:016x}", i);
                in.record = record(clock, i, i);
                in.opened_at = in.first_at = clock.wall();
                must(sql::insert_event(*db, in, clock.wall()));
            }
            must(db->commit());
            must(db->script("ANALYZE"));
        };
        fill();
        static constexpr Statement bare_select{
            "bare",
            "SELECT id FROM self_heal_events WHERE state = 'open' ORDER BY opened_at LIMIT $1 FOR UPDATE "
            "SKIP LOCKED"};
        static constexpr Statement bare_update{
            "bare", "UPDATE self_heal_events SET state = 'healing' WHERE id = $1"};
        out["bare_claims_seconds"] = seconds_of([&] {
            for (int n = 0; n < incidents;) {
                must(db->begin());
                std::vector<std::string> ids;
                (void)db->query(bare_select, {int64_t{100}}, [&](const Row& r) { ids.push_back(r.text(0)); });
                for (const auto& id : ids) must(db->post(bare_update, {std::string_view{id}}));
                must(db->commit());
                n += static_cast<int>(ids.size());
            }
        });
        fill();
        must(db->begin());
        const auto fence = sql::join_cluster(*db, {"bench", "h", "1", 1}, std::chrono::hours{1}).value();
        must(db->commit());
        out["claims_seconds"] = seconds_of([&] {
            for (int n = 0; n < incidents;) {
                must(db->begin());
                auto taken = sql::take_over(*db, "bench", fence, 100);
                must(db->commit());
                n += static_cast<int>(taken.value().size());
            }
        });
        out["claims"] = incidents;
    }
    out["events"] = events;
    std::string text;
    for (const auto& [key, value] : out)
        text += fmt::format("{}\"{}\": {}", text.empty() ? "" : ", ", key, value);
    std::printf("{%s}\n", text.c_str());
    return 0;
}
