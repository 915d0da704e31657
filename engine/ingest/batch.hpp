// What hearing hands to the engine: lines folded into one Delta per fingerprint, with exact counts of what
// became of every line. The fold is where a storm of equal lines turns into one number. Deliberately knows
// nothing of files, HTTP or stores.
//
// The account that always holds (Batch::balanced):
//   lines == records + below_level + self + malformed + joined
#pragma once

#include "base/clock.hpp"
#include "core/model.hpp"
#include "fingerprint/fingerprint.hpp"
#include "fingerprint/rules.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace heal {

/// All records of one fingerprint within one batch, folded.
struct Delta {
    std::string fingerprint, digest, pattern, signature;
    std::string service_name, environment;
    Level level = Level::unknown;  ///< highest seen in the batch
    std::uint64_t count = 0;
    Time first, last;  ///< event times; each lies within [received - 7 days, received + 5 min], else it is
                       ///< the time of receipt
    /// First and last record of the batch; for a fingerprint this builder has not met lately the first three
    /// and the last. Never empty, at most 4. Text in them is valid UTF-8 without NUL.
    std::vector<LogRecord> samples;
    bool decided = false;  ///< by this node alone, while the shared store was away; not to be decided again
    std::string event;     ///< the incident that it belongs to since then; "" for none
};

/// How far a source has been taken in; to be stored in the transaction that stores the batch.
struct SourceOffset {
    std::string source;  ///< "file:/var/log/x.log"; "file:/var/log/x.log@DEV:INODE" for a file that was
                         ///< rotated away from it
    std::uint64_t device = 0, inode = 0;  ///< inode 0: the source is done with, its row can be deleted
    std::uint64_t offset =
        0;  ///< bytes from the start of the file; everything before it is in this or an earlier batch
    std::string head_hash;  ///< opaque: identifies the first bytes of the file, and when it was read
};

/// One unit of acceptance: stored whole, then acknowledged, or not at all.
struct Batch {
    std::vector<Delta> deltas;
    std::vector<SourceOffset> offsets;
    std::uint64_t lines = 0;        ///< physical lines (HTTP: records) looked at
    std::uint64_t bytes = 0;        ///< of those lines, line ends included
    std::uint64_t records = 0;      ///< became part of a delta; the sum of all counts
    std::uint64_t below_level = 0;  ///< counted, not kept
    std::uint64_t self = 0;         ///< heald's own lines, dropped
    std::uint64_t malformed = 0;    ///< could not be read as a record
    std::uint64_t joined = 0;     ///< continuation lines: part of a record that another line began, or blank
    std::uint64_t truncated = 0;  ///< of the records: some text was cut at a limit
    std::uint64_t folded =
        0;  ///< of the records: counted under "other errors" because the batch holds max_deltas kinds already
    Time received;
    std::string source;     ///< of the batch as a whole: "file:…", "http"
    std::string batch_key;  ///< equal for two deliveries of the same data: the Idempotency-Key; "" for files,
                            ///< whose offset does that

    bool empty() const { return lines == 0 && offsets.empty(); }
    bool balanced() const { return lines == records + below_level + self + malformed + joined; }
};

/// Writes the rest of a record's fields when a sample is kept, so that nothing is built for the other
/// records.
class ContextSource {
public:
    virtual ~ContextSource() = default;
    /// A JSON object text, at most about 8 KiB; "" for none.
    virtual std::string context() const = 0;
};

/// One record as decoders see it. All views are borrowed for the duration of BatchBuilder::add.
struct RecordView {
    std::string_view service, environment, release, host, component, logger;
    std::string_view message, error_type, stack_trace;
    std::string_view request_id, workspace_id, trace_id;
    Level level = Level::unknown;
    int http_status = 0;
    Time time;  ///< 0: not given
    bool truncated = false;
    const ContextSource* context = nullptr;
};

/// What a source knows about its records besides their text, and what it wants to hear. A record's own words
/// win, except that `service` set here is not overridden by a mere process name in a line's header.
struct DecodeDefaults {
    std::string service, environment, source, host;
    std::string
        unnamed_service;  ///< for records that say nothing when `service` is empty; e.g. the file's name
    std::string format = "auto";    ///< auto, json, logfmt, nginx, apache, syslog, plain
    Level min_level = Level::warn;  ///< below it records are counted and dropped
    /// Rules by people that decide the id before the text does; null: none.
    std::shared_ptr<const fingerprint::Rules> rules;
    /// For a record that names no level. `unknown`: error when its text, stack trace or HTTP status shows
    /// one, else info.
    Level default_level = Level::unknown;
};

class BatchBuilder;

/// Reads a line again that was counted without a look at its fields, for the last sample of its kind in a
/// batch.
class LineAgain {
public:
    virtual ~LineAgain() = default;
    /// Hands the record of `line` to builder.put_last_sample(delta, …).
    virtual void read_again(
        std::string_view line, Time outer, BatchBuilder& builder, std::uint32_t delta
    ) = 0;
    virtual std::shared_ptr<LineAgain> share() = 0;
};

/// Folds records into a Batch. One per thread, reusable; keeps an index of patterns met lately, so that the
/// fingerprint of an equal one is not computed again. Memory: at most max_deltas deltas, known_texts index
/// entries of 100 bytes and a scanner (fingerprint.hpp).
/// @thread one at a time; no locks
class BatchBuilder {
public:
    /// The tail hands a batch over at this many deltas (full()). In a body that holds more kinds of error the
    /// others are folded into one delta per service, "other errors" (reliability row 22). 4096 deltas of 2
    /// samples are a few MiB and one SQLite transaction of some 50 ms.
    static constexpr std::size_t max_deltas = 4096;
    static constexpr std::string_view other_errors = "other errors: more than 4096 kinds in one delivery";
    static constexpr std::size_t known_texts = 16384;
    static constexpr std::size_t max_message_bytes = 16U
                                                     << 10U;  ///< longer ones are cut, counted as truncated
    static constexpr std::size_t max_stack_bytes = 64U << 10U;
    static constexpr std::size_t max_name_bytes = 256;  ///< service, host, ids and the like

    explicit BatchBuilder(const Clock& clock);
    ~BatchBuilder();
    BatchBuilder(const BatchBuilder&) = delete;
    BatchBuilder& operator=(const BatchBuilder&) = delete;

    /// What became of a record.
    struct Added {
        enum class What : std::uint8_t { counted, below_level, self } what = What::counted;
        bool repeatable = false;  ///< repeat(key, …) may count another one like it
        std::uint64_t key = 0;
    };

    /// Takes one record: drops and counts it when it is heald's own or below the level, else folds it in.
    /// @param watch  told of the digits of the message that decided its pattern; may be null
    Added add(
        const RecordView& record, const DecodeDefaults& defaults, fingerprint::DigitWatch* watch = nullptr
    );

    /// Counts one more record of a kind that add() named, from a line that differs from the one then in
    /// digits only. The line is kept, and read again when the batch is taken and it is still the last of its
    /// kind. False: nothing was done, add() is needed (the kind is new in this batch, or forgotten).
    bool repeat(
        std::uint64_t key, Level level, Time time, std::string_view line, Time outer, LineAgain& again
    );
    /// For LineAgain alone.
    void put_last_sample(std::uint32_t delta, const RecordView& record, const DecodeDefaults& defaults);

    /// Counts physical lines as they come; every line is then accounted for by exactly one of the others.
    void count_lines(std::uint64_t lines, std::uint64_t bytes);
    void count_joined(std::uint64_t lines);
    void count_malformed(std::uint64_t lines);
    void count_below_level(std::uint64_t lines);
    void count_self(std::uint64_t lines);

    bool full() const;
    bool has_lines() const;
    const Batch& peek() const;  ///< counts so far; its deltas are not complete before take()
    Time received() const;      ///< one reading of the wall clock per batch

    /// The batch so far; afterwards the builder is empty and keeps only its index. Never fails.
    Batch take();

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace heal
