#include "store/journal.hpp"

#include <fmt/format.h>

namespace heal {
namespace {

// A file of its own with one table: made here and not by the migrations of the store.
constexpr const char* schema =
    "CREATE TABLE IF NOT EXISTS journal (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, "
    "text TEXT NOT NULL, refused TEXT)";
constexpr Statement insert{"append to journal", "INSERT INTO journal (key, text) VALUES ($1, $2)"};
constexpr Statement known{"look for key in journal", "SELECT 1 FROM journal WHERE key = $1"};
constexpr Statement oldest{
    "read journal", "SELECT number, key, text FROM journal WHERE refused IS NULL ORDER BY number LIMIT 1"};
constexpr Statement all{
    "read whole journal", "SELECT number, key, text FROM journal WHERE refused IS NULL ORDER BY number"};
constexpr Statement erase{"delete from journal", "DELETE FROM journal WHERE number = $1"};
constexpr Statement refuse{"set aside in journal", "UPDATE journal SET refused = $2 WHERE number = $1"};
constexpr Statement sums{
    "measure journal",
    "SELECT count(*), COALESCE(sum(length(CAST(text AS BLOB))), 0) FROM journal WHERE refused IS NULL"};

Journal::Entry entry_of(const Row& r) { return {r.integer(0), r.text(1), r.text(2)}; }

}  // namespace

result<std::unique_ptr<Journal>> Journal::open(const std::string& path, std::uint64_t max_bytes) {
    auto database = open_sqlite(path, false);
    if (!database) return database.error();
    HEAL_TRY((*database)->script(schema));
    std::unique_ptr<Journal> journal{new Journal{std::move(*database), max_bytes}};
    auto measured = journal->database_->query(sums, {}, [&](const Row& r) {
        journal->waiting_ = static_cast<std::uint64_t>(r.integer(0));
        journal->bytes_ = static_cast<std::uint64_t>(r.integer(1));
    });
    if (!measured) return measured.error();
    return journal;
}

result<void> Journal::in_transaction(const std::function<result<void>()>& work) {
    auto outcome = [&]() -> result<void> {
        HEAL_TRY(database_->begin());
        HEAL_TRY(work());
        return database_->commit();
    }();
    if (!outcome) database_->rollback();
    return outcome;
}

result<void> Journal::append(const std::string& key, const std::string& text) {
    if (bytes_ + text.size() > max_bytes_)
        return fail(
            errc::overloaded,
            fmt::format("the journal is full ({} of {} bytes wait for PostgreSQL)", bytes_.load(), max_bytes_)
        );
    bool there = false;
    HEAL_TRY(database_->query(known, {std::string_view{key}}, [&](const Row&) { there = true; }));
    if (there) return {};
    HEAL_TRY(in_transaction([&] {
        return database_->post(insert, {std::string_view{key}, std::string_view{text}});
    }));
    ++waiting_;
    bytes_ += text.size();
    return {};
}

result<std::optional<Journal::Entry>> Journal::front() {
    std::optional<Entry> entry;
    HEAL_TRY(database_->query(oldest, {}, [&](const Row& r) { entry = entry_of(r); }));
    return entry;
}

result<void> Journal::each(const std::function<void(const Entry&)>& look) {
    HEAL_TRY(database_->query(all, {}, [&](const Row& r) { look(entry_of(r)); }));
    return {};
}

result<void> Journal::remove(const Entry& entry) {
    HEAL_TRY(in_transaction([&] { return database_->post(erase, {entry.number}); }));
    --waiting_;
    bytes_ -= entry.text.size();
    database_->idle();
    return {};
}

result<void> Journal::set_aside(const Entry& entry, const std::string& why) {
    HEAL_TRY(in_transaction([&] { return database_->post(refuse, {entry.number, std::string_view{why}}); }));
    --waiting_;
    bytes_ -= entry.text.size();
    return {};
}

}  // namespace heal
