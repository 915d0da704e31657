#include "service/ingest_journal.hpp"

#include "base/id.hpp"
#include "base/log.hpp"
#include "base/offload.hpp"
#include "base/tasks.hpp"

#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <fmt/format.h>

#include <algorithm>

namespace heal {

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

/// The server is asked again this often; a try that fails costs nothing but a refusal.
constexpr auto replay_pause = 500ms;

constexpr std::pair<const char*, std::uint64_t Batch::*> counts[] = {
    {"lines", &Batch::lines},
    {"bytes", &Batch::bytes},
    {"records", &Batch::records},
    {"below_level", &Batch::below_level},
    {"self", &Batch::self},
    {"malformed", &Batch::malformed},
    {"joined", &Batch::joined},
    {"truncated", &Batch::truncated},
    {"folded", &Batch::folded}};
constexpr std::pair<const char*, std::string LogRecord::*> texts[] = {
    {"service", &LogRecord::service_name},
    {"environment", &LogRecord::environment},
    {"release", &LogRecord::release},
    {"host", &LogRecord::host},
    {"component", &LogRecord::component},
    {"message", &LogRecord::message},
    {"error_type", &LogRecord::error_type},
    {"stack_trace", &LogRecord::stack_trace},
    {"request_id", &LogRecord::request_id},
    {"workspace_id", &LogRecord::workspace_id},
    {"trace_id", &LogRecord::trace_id},
    {"context", &LogRecord::context},
    {"source", &LogRecord::source},
    {"fingerprint", &LogRecord::fingerprint},
    {"digest", &LogRecord::digest},
    {"pattern", &LogRecord::pattern}};
constexpr std::pair<const char*, std::string Delta::*> names[] = {
    {"fingerprint", &Delta::fingerprint},
    {"digest", &Delta::digest},
    {"pattern", &Delta::pattern},
    {"signature", &Delta::signature},
    {"service", &Delta::service_name},
    {"environment", &Delta::environment},
    {"event", &Delta::event}};

std::uint64_t count_at(const json::object& o, std::string_view key) {
    return static_cast<std::uint64_t>(int_at(o, key));
}

json::object sample_to_json(const LogRecord& r) {
    json::object o{
        {"time", r.time.us},
        {"received", r.received.us},
        {"level", to_string(r.level)},
        {"http_status", r.http_status}};
    for (const auto& [key, member] : texts) o[key] = to_valid_utf8(r.*member);
    return o;
}

LogRecord sample_from_json(const json::object& o) {
    LogRecord r;
    r.time = Time{int_at(o, "time")};
    r.received = Time{int_at(o, "received")};
    r.level = parse_level(string_at(o, "level"));
    r.http_status = static_cast<int>(int_at(o, "http_status"));
    for (const auto& [key, member] : texts) r.*member = string_at(o, key);
    return r;
}

}  // namespace

std::string to_text(const Batch& batch) {
    json::object o{
        {"received", batch.received.us}, {"source", to_valid_utf8(batch.source)}, {"key", batch.batch_key}};
    for (const auto& [key, member] : counts) o[key] = batch.*member;
    json::array deltas, offsets;
    for (const auto& d : batch.deltas) {
        json::object one{
            {"level", to_string(d.level)},
            {"count", d.count},
            {"first", d.first.us},
            {"last", d.last.us},
            {"decided", d.decided}};
        for (const auto& [key, member] : names) one[key] = to_valid_utf8(d.*member);
        json::array samples;
        for (const auto& r : d.samples) samples.push_back(sample_to_json(r));
        one["samples"] = std::move(samples);
        deltas.push_back(std::move(one));
    }
    for (const auto& f : batch.offsets) {
        offsets.push_back(json::object{
            {"source", f.source},
            {"device", f.device},
            {"inode", f.inode},
            {"offset", f.offset},
            {"head", f.head_hash}});
    }
    o["deltas"] = std::move(deltas);
    o["offsets"] = std::move(offsets);
    return json::serialize(o);
}

result<Batch> batch_from_text(std::string_view text) {
    auto parsed = parse_json(text, "journal");
    if (!parsed) return parsed.error();
    if (!parsed->is_object()) return fail(errc::invalid_input, "journal: not an object");
    const auto& o = parsed->get_object();
    Batch batch;
    batch.received = Time{int_at(o, "received")};
    batch.source = string_at(o, "source");
    batch.batch_key = string_at(o, "key");
    for (const auto& [key, member] : counts) batch.*member = count_at(o, key);
    for (const auto& value : array_at(o, "deltas")) {
        if (!value.is_object()) return fail(errc::invalid_input, "journal: a delta is not an object");
        const auto& one = value.get_object();
        Delta d;
        d.level = parse_level(string_at(one, "level"));
        d.count = count_at(one, "count");
        d.first = Time{int_at(one, "first")};
        d.last = Time{int_at(one, "last")};
        d.decided = bool_at(one, "decided");
        for (const auto& [key, member] : names) d.*member = string_at(one, key);
        for (const auto& r : array_at(one, "samples")) {
            if (r.is_object()) d.samples.push_back(sample_from_json(r.get_object()));
        }
        if (d.samples.empty()) return fail(errc::invalid_input, "journal: a delta without a sample");
        batch.deltas.push_back(std::move(d));
    }
    for (const auto& value : array_at(o, "offsets")) {
        if (!value.is_object()) return fail(errc::invalid_input, "journal: an offset is not an object");
        const auto& f = value.get_object();
        batch.offsets.push_back(
            {std::string{string_at(f, "source")},
             count_at(f, "device"),
             count_at(f, "inode"),
             count_at(f, "offset"),
             std::string{string_at(f, "head")}}
        );
    }
    return batch;
}

result<std::unique_ptr<IngestJournal>> IngestJournal::open(Shared& shared, std::uint64_t max_bytes) {
    const std::string path = shared.settings->state_dir + "/journal.db";
    auto journal = Journal::open(path, max_bytes);
    if (!journal)
        return fail(journal.error().code, fmt::format("the journal {}: {}", path, journal.error().text));
    if ((*journal)->waiting() > 0)
        log::info("{} batches of before wait in the journal for PostgreSQL", (*journal)->waiting());
    return std::unique_ptr<IngestJournal>{new IngestJournal{shared, std::move(*journal)}};
}

IngestJournal::IngestJournal(Shared& shared, std::unique_ptr<Journal> journal)
    : s_(shared), journal_(std::move(journal)), pause_(shared.io) {
    show();
}

IngestJournal::~IngestJournal() { thread_.join(); }

void IngestJournal::append(std::shared_ptr<Batch> batch, Done done) {
    if (batch->batch_key.empty()) batch->batch_key = "journal:" + new_id(s_.clock);
    ++under_way_;
    asio::post(thread_, [this, batch, done = std::move(done)]() mutable {
        auto outcome = journal_->append(batch->batch_key, to_text(*batch));
        asio::post(s_.io, [this, done = std::move(done), outcome = std::move(outcome)] {
            --under_way_;
            show();
            s_.metrics.add("heald_journal_batches_total", {{"outcome", outcome ? "taken" : "refused"}});
            done(outcome);
        });
    });
}

result<void> IngestJournal::overlay(std::vector<sql::OffsetRow>& ret_offsets) {
    return journal_->each([&](const Journal::Entry& entry) {
        const auto batch = batch_from_text(entry.text);
        if (!batch) return;
        for (const auto& o : batch->offsets) {
            std::erase_if(ret_offsets, [&](const sql::OffsetRow& row) { return row.source == o.source; });
            if (o.inode != 0) ret_offsets.push_back({o.source, o.device, o.inode, o.offset, o.head_hash});
        }
    });
}

asio::awaitable<bool> IngestJournal::replay_one(const Replay& replay) {
    result<std::optional<Journal::Entry>> front = std::optional<Journal::Entry>{};
    const auto read = [&] { front = journal_->front(); };
    co_await offload(thread_, read);
    if (!front) {
        log::error("the journal can't be read: {}", front.error().text);
        co_return false;
    }
    if (!*front) co_return false;
    const Journal::Entry entry = std::move(**front);
    auto batch = batch_from_text(entry.text);
    result<void> outcome;
    if (batch) {
        outcome = co_await asio::async_initiate<const asio::use_awaitable_t<>, void(result<void>)>(
            [&](auto handler) {
                auto done = std::make_shared<decltype(handler)>(std::move(handler));
                replay(std::move(*batch), [done](result<void> r) { std::move (*done)(std::move(r)); });
            },
            asio::use_awaitable
        );
    } else {
        outcome = batch.error();
    }
    // errc::denied: this node was taken for lost and joins again.
    if (!outcome && (outcome.error().code == errc::unavailable || outcome.error().code == errc::overloaded ||
                     outcome.error().code == errc::cancelled || outcome.error().code == errc::denied))
        co_return false;
    result<void> settled;
    const auto settle = [&] {
        settled = outcome ? journal_->remove(entry) : journal_->set_aside(entry, outcome.error().text);
    };
    co_await offload(thread_, settle);
    if (!outcome)
        log::error(
            "a batch of the journal was set aside (number {}): {}", entry.number, outcome.error().text
        );
    if (!settled) log::error("the journal can't be written: {}", settled.error().text);
    s_.metrics.add("heald_journal_batches_total", {{"outcome", outcome ? "stored" : "set_aside"}});
    show();
    co_return settled.has_value();
}

asio::awaitable<void> IngestJournal::run(Replay replay) {
    while (!stopping_) {
        const bool more = journal_->waiting() > 0 && co_await replay_one(replay);
        if (more) continue;
        pause_.expires_after(replay_pause);
        co_await due(pause_);
    }
}

void IngestJournal::stop() {
    stopping_ = true;
    pause_.cancel();
}

void IngestJournal::show() {
    s_.metrics.set("heald_journal_waiting_batches", {}, static_cast<double>(journal_->waiting()));
    s_.metrics.set("heald_journal_waiting_bytes", {}, static_cast<double>(journal_->bytes()));
}

}  // namespace heal
