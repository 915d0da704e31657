#include "fingerprint/fingerprint.hpp"
#include "fingerprint/reader.hpp"
#include "fingerprint/shape.hpp"
#include "ingest/decoder.hpp"
#include "ingest/formats.hpp"
#include "ingest/json_record.hpp"
#include "ingest/text.hpp"

#include <sys/random.h>

#include <algorithm>
#include <functional>

namespace heal {
namespace {

// What kind of trace a group of lines has turned out to be; it decides which lines may follow.
enum class Trace : std::uint8_t {
    none,         // one line so far
    indented,     // Java, .NET, Ruby, C++'s what(): whatever is indented
    python,       // frames; the exception line is still to come
    python_done,  // the exception line was there; only a chained trace may follow
    go,
    rust,
    node,  // begins with the source line, then a caret, then the exception and its frames
    dump,  // ASan, glibc: anything without a log header
    dump_done
};

constexpr std::string_view traceback = "Traceback (most recent call last):";

bool is_indented(std::string_view line) { return line.starts_with(' ') || line.starts_with('\t'); }
bool contains(std::string_view text, std::string_view part) {
    return text.find(part) != std::string_view::npos;
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// "/srv/app.js:12", "file:///srv/app.mjs:3", "node:internal/x:9": what Node prints first for an uncaught
// error.
bool is_node_place(std::string_view line) {
    if (!(line.starts_with('/') || line.starts_with("file://") || line.starts_with("node:")) ||
        contains(line, " "))
        return false;
    const auto colon = line.rfind(':');
    return colon != std::string_view::npos && colon + 1 < line.size() &&
           std::all_of(line.begin() + static_cast<std::ptrdiff_t>(colon) + 1, line.end(), is_digit);
}

// A line that begins a trace of its own, whatever stands before it.
Trace trace_begun_by(std::string_view line) {
    switch (line.empty() ? '\0' : line[0]) {
        case 'T':
            return line.starts_with(traceback) ? Trace::python : Trace::none;
        case 'p':
            return line.starts_with("panic: ") ? Trace::go : Trace::none;
        case 'f':
            if (line.starts_with("fatal error: ")) return Trace::go;
            return is_node_place(line) ? Trace::node : Trace::none;
        case 'g':
            return line.starts_with("goroutine ") ? Trace::go : Trace::none;
        case 'S':
            return line.starts_with("SIGSEGV: segmentation") || line.starts_with("SIGABRT: abort")
                       ? Trace::go
                       : Trace::none;
        case 't':
            if (line.starts_with("thread '") && contains(line, "panicked at")) return Trace::rust;
            return line.starts_with("terminate called after throwing") ? Trace::indented : Trace::none;
        case 'E':
            return line.starts_with("Exception in thread ") ? Trace::indented : Trace::none;
        case 'U':
            return line.starts_with("Unhandled exception") ? Trace::indented : Trace::none;
        case '=':
            return line.starts_with("====================") ||
                           (line.starts_with("==") && contains(line, "==ERROR: "))
                       ? Trace::dump
                       : Trace::none;
        case '*':
            return line.starts_with("*** Error in `") || line.starts_with("*** stack smashing") ? Trace::dump
                                                                                                : Trace::none;
        case '/':
        case 'n':
            return is_node_place(line) ? Trace::node : Trace::none;
        default:
            return Trace::none;
    }
}

// "java.lang.IllegalStateException: text", "TypeError: text": an exception's own line, without a log header.
bool is_exception_line(std::string_view line) {
    if (line.empty() || is_indented(line)) return false;
    const auto type = error_type_in_text(line.substr(0, 256));
    if (line.starts_with("Error: ") || line.starts_with("Error [")) return true;
    if (type.empty() || type.data() != line.data()) return line.starts_with("Uncaught ");
    return type.size() == line.size() || line[type.size()] == ':' || line[type.size()] == ' ';
}

bool is_frame(std::string_view line) {
    const auto text = trim(line);
    return text.starts_with("at ") || text.starts_with("File \"") || text.starts_with("from ") ||
           text.starts_with("what():") || text.starts_with("Caused by: ") ||
           (text.starts_with('#') && text.size() > 1 && is_digit(text[1])) || contains(text, ":in `") ||
           contains(text, ":in '");
}

}  // namespace

struct LineDecoder::State final : LineAgain, std::enable_shared_from_this<LineDecoder::State> {
    State(DecodeDefaults d, JoinOptions j) : defaults(std::move(d)), join(j) {
        json_allowed = defaults.format == "auto" || defaults.format == "json";
        only_json = defaults.format == "json";
        others_allowed = defaults.format != "plain" && !only_json;
    }

    DecodeDefaults defaults;
    JoinOptions join;
    bool json_allowed, only_json, others_allowed;
    JsonRecords json;
    LineContext context;
    std::string scratch, plain_scratch, logfmt;
    fingerprint::LineReader reader;

    // The group: a plain line and what follows it.
    bool open = false;
    Trace trace = Trace::none;
    std::string head, stack;
    fingerprint::Line header;                // points into head
    fingerprint::DigitWatch head_watch{{}};  // digits of head that decided the header
    Level head_level = Level::unknown;
    bool has_frames = false;  // the continuation is a trace, not just indented text
    bool truncated = false;
    bool chain = false;  // Python announced that another trace follows
    std::uint64_t lines = 0, raw = 0;
    Duration opened{0}, last{0};
    Time outer_time;

    // Parts of one line in docker's and CRI's wrappers.
    std::string assembly;
    std::string assembly_stream;
    std::uint64_t assembly_lines = 0, assembly_raw = 0;
    Time assembly_time;

    // What became of lines of shapes met before, in the plain form: a line with a time in front that nothing
    // was joined to. `shapes` as in fingerprint's Scanner: it leaves work out and never changes a result.
    struct Outcome {
        std::uint64_t key = 0;  // of BatchBuilder::repeat
        std::uint32_t time_at = 0, time_size = 0;
        Level level = Level::unknown;
        bool below = false;

        std::uint64_t packed() const {
            return time_at | static_cast<std::uint64_t>(time_size) << 16U |
                   static_cast<std::uint64_t>(level) << 32U | static_cast<std::uint64_t>(below) << 40U;
        }
        static Outcome unpacked(std::uint64_t key, std::uint64_t bits) {
            return {
                key,
                static_cast<std::uint32_t>(bits & 0xFFFFU),
                static_cast<std::uint32_t>(bits >> 16U & 0xFFFFU),
                static_cast<Level>(bits >> 32U & 0xFFU),
                (bits >> 40U & 1U) != 0};
        }
    };
    struct Shapes {
        Shapes() : hash(seed(), seed()), memo(sets) {}
        // 4096 shapes, 256 KiB for each file that is followed, and none before it has shown some lines.
        static constexpr std::size_t sets = 1 << 10;
        static constexpr std::uint64_t first_line = 256;
        static std::uint64_t seed() {
            std::uint64_t word = 0;
            if (::getrandom(&word, sizeof word, 0) != static_cast<ssize_t>(sizeof word))
                word = reinterpret_cast<std::uintptr_t>(&word);
            return word;
        }
        fingerprint::ShapeHash hash;
        fingerprint::ShapeMemo memo;
    };
    std::unique_ptr<Shapes> shapes;
    bool remembers = true;
    std::uint64_t plain_lines = 0;  // before there are shapes
    bool lazy = false;              // the open group is one line of a known shape that was not looked at
    Outcome outcome;                // of that line
    bool candidate = false;         // the open group is one line whose shape is not known
    fingerprint::Shape shape;       // of the open group's line when it is a candidate
    fingerprint::Shape next_shape;
    bool is_new_shape = false;
    std::unique_ptr<State> side;                     // reads lines again, away from the open group
    std::function<void(const RecordView&)> capture;  // set in a side: takes the record instead of a builder

    void read_again(std::string_view line, Time outer, BatchBuilder& builder, std::uint32_t delta) override {
        if (!side) {
            side = std::make_unique<State>(defaults, join);
            side->remembers = false;
        }
        side->capture = [&](const RecordView& record) { builder.put_last_sample(delta, record, defaults); };
        side->begin(line, line.size(), 1, false, Duration{0}, outer);
        side->flush_group(builder);
        side->capture = nullptr;
    }

    std::shared_ptr<LineAgain> share() override { return shared_from_this(); }

    // A line of a known shape. False: it has to be looked at.
    bool take_known(
        std::string_view line, std::uint64_t raw_bytes, Duration now, Time outer, BatchBuilder& builder
    ) {
        next_shape = shapes->hash(line, fingerprint::ShapeOf::line);
        const auto* entry = shapes->memo.find(next_shape, line, nullptr);
        is_new_shape = entry == nullptr;
        if (is_new_shape || (open && trace != Trace::none)) return false;
        // It has a time in front, so it goes on with nothing.
        flush_group(builder);
        head.assign(line);
        outcome = Outcome::unpacked(entry->key_low, entry->key_high);
        lazy = open = true;
        stack.clear();
        trace = Trace::none;
        has_frames = truncated = chain = candidate = false;
        lines = 1;
        raw = raw_bytes;
        opened = last = now;
        outer_time = outer;
        return true;
    }

    // The open group was not looked at; now something depends on what it says.
    void look() {
        if (!lazy) return;
        lazy = false;
        read_head();
    }

    bool flush_known(BatchBuilder& builder) {
        if (outcome.below) {
            builder.count_lines(1, raw);
            builder.count_below_level(1);
            return true;
        }
        Time time;
        parse_log_time(
            std::string_view{head}.substr(outcome.time_at, outcome.time_size), builder.received(), time
        );
        if (time.us == 0) time = outer_time;
        if (!builder.repeat(outcome.key, outcome.level, time, head, outer_time, *this)) return false;
        builder.count_lines(1, raw);
        return true;
    }

    // Remembers what became of the line in `head`, when only its shape and the digits in `watch` decided.
    void remember(Outcome what, fingerprint::DigitWatch& watch) {
        const std::string_view time = header.timestamp;
        if (!candidate || lines != 1 || !stack.empty() || trace != Trace::none || truncated || time.empty() ||
            time.data() < head.data() || time.data() >= head.data() + head.size())
            return;
        // Lines whose form is told by the values of digits: access and Apache lines, statuses, #012.
        const std::string_view line = head;
        if (is_indented(line) || line[0] == '<' || contains(line, "] \"") || contains(line, "==") ||
            (line[0] == '[' && contains(line.substr(0, 60), "] [")))
            return;
        for (auto at = line.find('#'); at != std::string_view::npos; at = line.find('#', at + 1)) {
            if (at + 1 < line.size() && is_digit(line[at + 1])) return;
        }
        plain_scratch.assign(line);
        for (char& c : plain_scratch) {
            if (is_digit(c)) c = '5';
        }
        // A status makes an error of a line that names no level.
        if (head_level == Level::unknown && http_status_in_text(plain_scratch) != 0) return;
        // The service is named by the line.
        if (defaults.service.empty()) watch.saw(program());
        what.time_at = static_cast<std::uint32_t>(time.data() - head.data());
        what.time_size = static_cast<std::uint32_t>(time.size());
        shapes->memo.put(shape, watch, what.key, what.packed(), 1);
    }

    std::string_view group_message() const {
        if (header.message.empty()) return head;
        // "ERROR java.io.IOException: disk full": what looks like a logger's name is the exception.
        if (!header.component.empty() && header.component.data() >= head.data() &&
            header.component.data() < header.message.data() &&
            error_type_in_text(header.component) == header.component) {
            return std::string_view{head}.substr(
                static_cast<std::size_t>(header.component.data() - head.data())
            );
        }
        return header.message;
    }
    // The program that a syslog header names: "app" of "host app[77]:".
    std::string_view program() const {
        const bool is_pid = std::all_of(header.process.begin(), header.process.end(), is_digit);
        if (!is_pid) return header.process;
        return is_syslog_shaped() ? header.component : std::string_view{};
    }

    // A log header of the plain kind: then the line stands for itself.
    static bool has_header(const fingerprint::Line& line) {
        return !line.timestamp.empty() || line.level != Level::unknown;
    }
    bool is_syslog_shaped() const {
        return !header.host.empty() && (!header.process.empty() || !header.component.empty());
    }

    bool continues(std::string_view line) {
        if (!open || !join.enabled) return false;
        look();
        if (is_indented(line)) return true;
        if (line.starts_with("Caused by: ") || line.starts_with("Suppressed: ") || line.starts_with("... ") ||
            line.starts_with("--- End of ") || (line.size() > 2 && line[0] == '#' && is_digit(line[1]))) {
            return true;
        }
        const bool can_be_said_of_head =
            trace == Trace::none &&
            (head_level >= Level::warn || (head_level == Level::unknown && has_header(header))) &&
            !is_syslog_shaped();
        switch (trace) {
            case Trace::none:
                if (line.starts_with(traceback) || line.starts_with("goroutine ")) return can_be_said_of_head;
                return can_be_said_of_head && trace_begun_by(line) == Trace::none &&
                       is_exception_line(line) && !has_header(fingerprint::cut_header(line));
            case Trace::indented:
                return line == "Aborted" || line == "Aborted (core dumped)";
            case Trace::python:
                return !line.starts_with(traceback) && line[0] != '{' &&
                       fingerprint::cut_header(line).timestamp.empty();
            case Trace::python_done:
                return line.starts_with("During handling of the above") ||
                       line.starts_with("The above exception was the direct") ||
                       (chain && line.starts_with(traceback));
            case Trace::go:
                if (line.starts_with("goroutine ") || line.starts_with("created by ") ||
                    line.starts_with("[signal ") || line.starts_with("exit status ") ||
                    line.starts_with("runtime stack:") || line.starts_with("panic(") ||
                    line.starts_with("main.") || line.starts_with("runtime.") ||
                    line.ends_with("[recovered]") || line.starts_with("PC=")) {
                    return true;
                }
                // A function with its arguments, "github.com/x/y.(*T).f(0xc0000b4000, {0x0, 0x0})", or a
                // register of the dump.
                return (line.ends_with(')') && contains(line, "(") && contains(line, ".") &&
                        !contains(line.substr(0, line.find('(')), " ")) ||
                       (line[0] == 'r' && contains(line, " 0x"));
            case Trace::rust:
                return line.starts_with("note: ") || line.starts_with("stack backtrace:") ||
                       (lines == 1 && !has_header(fingerprint::cut_header(line)));
            case Trace::node:
                return is_exception_line(line) || line.starts_with("Node.js v") || line == "}" ||
                       line.starts_with("throw ") || (line[0] == '[' && contains(line, "Error"));
            case Trace::dump:
                return line[0] != '{' && fingerprint::cut_header(line).timestamp.empty();
            case Trace::dump_done:
                return false;
        }
        return false;
    }

    bool blank_continues() const {
        return open && join.enabled &&
               (trace == Trace::go || trace == Trace::python_done || trace == Trace::node ||
                trace == Trace::dump || trace == Trace::rust);
    }

    void append(std::string_view line, std::uint64_t raw_bytes, std::uint64_t physical, Duration now) {
        lines += physical;
        raw += raw_bytes;
        last = now;
        if (lines > join.max_lines || stack.size() + line.size() + 1 > join.max_bytes) {
            truncated = true;
        } else if (!line.empty()) {
            if (!stack.empty()) stack += '\n';
            stack += line;
        }
        if (line.empty()) return;
        switch (trace) {
            case Trace::none:
                if (line.starts_with(traceback)) {
                    trace = Trace::python;
                    has_frames = true;
                } else if (line.starts_with("goroutine ")) {
                    trace = Trace::go;
                    has_frames = true;
                } else {
                    trace = Trace::indented;
                    has_frames = is_frame(line) || is_exception_line(line);
                }
                break;
            case Trace::indented:
                has_frames = has_frames || is_frame(line);
                break;
            case Trace::python:
                if (!is_indented(line)) {
                    trace = Trace::python_done;
                    chain = false;
                }
                break;
            case Trace::python_done:
                if (line.starts_with(traceback)) {
                    trace = Trace::python;
                } else if (!is_indented(line)) {
                    chain = true;
                }
                break;
            case Trace::dump:
                if (line.ends_with("==ABORTING")) trace = Trace::dump_done;
                break;
            default:
                break;
        }
    }

    void begin(
        std::string_view line,
        std::uint64_t raw_bytes,
        std::uint64_t physical,
        bool cut,
        Duration now,
        Time outer
    ) {
        head.assign(line);
        read_head();
        stack.clear();
        truncated = cut;
        chain = lazy = false;
        lines = physical;
        raw = raw_bytes;
        opened = last = now;
        outer_time = outer;
        open = true;
    }

    void read_head() {
        head_watch = fingerprint::DigitWatch{head};
        header = fingerprint::cut_header(head, head_watch);
        head_level = header.level;
        if (head_level == Level::unknown && is_syslog_shaped()) {
            // "app[77]: ERROR it broke"
            const auto word = header.message.substr(0, header.message.find_first_of(" :"));
            if (!word.empty() && word[0] >= 'A' && word[0] <= 'Z' && word.size() > 2)
                head_level = parse_level(word);
        }
        trace = trace_begun_by(head);
        // A trace behind a log header ("2026-… panic: …") goes on like one without.
        if (trace == Trace::none && header.message.size() < head.size())
            trace = trace_begun_by(header.message);
        has_frames = trace != Trace::none;
    }

    // Will more lines come that belong to this one? Only then it may wait.
    bool may_be_continued() {
        look();
        if (!join.enabled || trace == Trace::dump_done) return false;
        if (trace != Trace::none) return true;
        if (is_syslog_shaped() || (head_level != Level::unknown && head_level < Level::error)) return false;
        const auto type = error_type_in_text(group_message());
        if (type.starts_with("SIG") || type == "OOM") return false;
        return !type.empty();
    }

    void flush_group(BatchBuilder& builder) {
        if (!open) return;
        if (lazy) {
            if (flush_known(builder)) {
                lazy = open = false;
                return;
            }
            look();
        }
        open = false;
        if (!capture) {
            builder.count_lines(lines, raw);
            if (lines > 1) builder.count_joined(lines - 1);
        }
        if (head_level != Level::unknown && head_level < defaults.min_level) {
            if (capture) return;
            builder.count_below_level(1);
            Outcome below;
            below.below = true;
            remember(below, head_watch);
            return;
        }
        RecordView record;
        context.clear();
        record.level = head_level;
        if (!header.timestamp.empty()) parse_log_time(header.timestamp, builder.received(), record.time);
        if (record.time.us == 0) record.time = outer_time;
        record.host = header.host;
        record.component = header.component;
        if (defaults.service.empty()) record.service = program();
        context.add("process", header.process);
        record.logger = header.component == "heald" || header.process == "heald" ? std::string_view{"heald"}
                                                                                 : std::string_view{};
        context.add("thread", header.thread);
        record.truncated = truncated;
        record.context = &context;
        describe(record);
        if (capture) {
            capture(record);
            return;
        }
        const auto added = builder.add(record, defaults, &head_watch);
        Outcome what;
        what.key = added.key;
        what.level = level_of(record, defaults);
        what.below = added.what == BatchBuilder::Added::What::below_level;
        if (what.below || (added.what == BatchBuilder::Added::What::counted && added.repeatable))
            remember(what, head_watch);
    }

    // Message, type and stack of a group, by the kind of its trace.
    void describe(RecordView& record) {
        const auto message = group_message();
        record.message = message;
        const bool head_is_trace = trace_begun_by(message) != Trace::none;
        const auto line_of_stack = [&](auto&& wanted) -> std::string_view {
            for (std::string_view rest = stack; !rest.empty();) {
                const auto end = rest.find('\n');
                const auto line = rest.substr(0, end);
                if (wanted(line)) return line;
                rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
            }
            return {};
        };
        if (!has_frames) {
            if (!stack.empty()) context.add("detail", stack);
            unfold_syslog(record);
            if (record.error_type.empty()) record.error_type = error_type_in_text(record.message);
            record.http_status = http_status_in_text(record.message);
            return;
        }
        if (head_is_trace) {
            scratch.assign(message);
            if (!stack.empty()) scratch.append("\n").append(stack);
            record.stack_trace = scratch;
        } else {
            record.stack_trace = stack;
        }
        switch (trace) {
            case Trace::python:
            case Trace::python_done: {
                // The last line that is not indented names the exception that was not caught.
                std::string_view exception;
                line_of_stack([&](std::string_view line) {
                    if (!is_indented(line) && !line.starts_with(traceback) &&
                        !line.starts_with("During handling") && !line.starts_with("The above")) {
                        exception = line;
                    }
                    return false;
                });
                if (!exception.empty()) {
                    record.error_type = exception.substr(0, exception.find(':'));
                    if (head_is_trace) record.message = exception;
                }
                break;
            }
            case Trace::node: {
                const auto exception =
                    line_of_stack([](std::string_view line) { return is_exception_line(line); });
                if (!exception.empty()) {
                    record.message = exception;
                    record.error_type = exception.starts_with("Error: ") ? std::string_view{"Error"}
                                                                         : error_type_in_text(exception);
                }
                break;
            }
            case Trace::rust:
                record.error_type = "panic";
                if (message.ends_with(':') && !stack.empty()) {
                    const auto first = std::string_view{stack}.substr(0, stack.find('\n'));
                    plain_scratch.assign(message).append(" ").append(first);
                    record.message = plain_scratch;
                }
                break;
            case Trace::dump:
            case Trace::dump_done: {
                if (message.starts_with("====")) {
                    if (const auto line =
                            line_of_stack([](std::string_view l) { return contains(l, "ERROR: "); });
                        !line.empty())
                        record.message = line;
                }
                if (const auto at = record.message.find("==ERROR: "); at != std::string_view::npos)
                    record.message = record.message.substr(at + 9);
                record.level = record.level == Level::unknown ? Level::fatal : record.level;
                break;
            }
            case Trace::indented: {
                const auto what =
                    line_of_stack([](std::string_view line) { return contains(line, "what():"); });
                if (!what.empty() && message.starts_with("terminate called")) {
                    plain_scratch.assign(message).append(": ").append(
                        trim(what.substr(what.find("what():") + 7))
                    );
                    record.message = plain_scratch;
                    record.error_type = error_type_in_text(message);
                } else if (!head_is_trace) {
                    const auto first = std::string_view{stack}.substr(0, stack.find('\n'));
                    if (!is_indented(first)) record.error_type = error_type_in_text(first);
                }
                break;
            }
            default:
                break;
        }
        if (record.error_type.empty()) record.error_type = error_type_in_text(record.message);
        if (record.error_type.empty() && record.message.find("Error: ") != std::string_view::npos)
            record.error_type = "Error";
        record.http_status = http_status_in_text(record.message);
    }

    // rsyslog writes the line ends within a message as #012.
    void unfold_syslog(RecordView& record) {
        const auto end = record.message.find("#012");
        if (end == std::string_view::npos) return;
        scratch.clear();
        for (std::string_view rest = record.message.substr(end + 4); !rest.empty();) {
            const auto next = rest.find("#012");
            scratch.append(rest.substr(0, next));
            rest = next == std::string_view::npos ? std::string_view{} : rest.substr(next + 4);
            if (!rest.empty()) scratch += '\n';
        }
        record.message = record.message.substr(0, end);
        record.stack_trace = scratch;
        const auto first = std::string_view{scratch}.substr(0, scratch.find('\n'));
        const auto last_line = std::string_view{scratch}.substr(
            scratch.rfind('\n') == std::string::npos ? 0 : scratch.rfind('\n') + 1
        );
        record.error_type = first.starts_with(traceback)
                                ? last_line.substr(0, last_line.find(':'))
                                : error_type_in_text(is_indented(first) ? record.message : first);
    }

    void count(std::uint64_t raw_bytes, std::uint64_t physical, BatchBuilder& builder) {
        builder.count_lines(physical, raw_bytes);
        if (physical > 1) builder.count_joined(physical - 1);
    }

    // A record of one line that nothing can follow.
    void single(
        RecordView& record,
        std::uint64_t raw_bytes,
        std::uint64_t physical,
        bool cut,
        Time outer,
        BatchBuilder& builder
    ) {
        count(raw_bytes, physical, builder);
        record.truncated = record.truncated || cut;
        if (record.time.us == 0) record.time = outer;
        if (record.error_type.empty() && record.level >= Level::warn)
            record.error_type = error_type_in_text(record.message);
        if (record.http_status == 0 && record.level >= Level::warn)
            record.http_status = http_status_in_text(record.message);
        builder.add(record, defaults);
    }

    // One whole inner line. `raw_bytes` and `physical`: what it took in the file, wrappers and parts
    // included.
    void take(
        std::string_view line,
        std::uint64_t raw_bytes,
        std::uint64_t physical,
        bool cut,
        Duration now,
        Time outer,
        bool wrapped,
        BatchBuilder& builder
    ) {
        if (line.ends_with('\r')) line.remove_suffix(1);
        if (line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
        if (line.find('\x1B') != std::string_view::npos) line = without_ansi(line);
        if (line.find_first_not_of(" \t") == std::string_view::npos) {
            if (blank_continues()) {
                append({}, raw_bytes, physical, now);
            } else {
                flush_group(builder);
                builder.count_lines(physical, raw_bytes);
                builder.count_joined(physical);
            }
            return;
        }
        bool fresh_shape = false;
        if (!shapes && remembers && ++plain_lines > Shapes::first_line) shapes = std::make_unique<Shapes>();
        if (shapes && !wrapped && !cut && physical == 1 && !only_json && line[0] != '{' &&
            line.size() <= fingerprint::ShapeHash::max_text) {
            if (take_known(line, raw_bytes, now, outer, builder)) {
                if (!join.enabled) flush_group(builder);
                return;
            }
            fresh_shape = is_new_shape;
        }
        // Wrappers first: what they hold may go on with the group that is open. Reading a line does not touch
        // that group.
        RecordView record;
        if (json_allowed && line[0] == '{') {
            WrappedLine inner;
            const auto kind = json.parse(line, builder.received(), record, inner);
            if (kind == JsonRecords::Kind::record) {
                flush_group(builder);
                single(record, raw_bytes, physical, cut, outer, builder);
                return;
            }
            if (kind == JsonRecords::Kind::wrapped_line && !wrapped) {
                unwrap(inner, raw_bytes, physical, cut, now, builder);
                return;
            }
        }
        if (WrappedLine inner; others_allowed && !wrapped && is_digit(line[0]) && read_cri(line, inner)) {
            unwrap(inner, raw_bytes, physical, cut, now, builder);
            return;
        }
        if (!only_json && continues(line)) {
            append(line, raw_bytes, physical, now);
            return;
        }
        flush_group(builder);
        if (only_json) {
            builder.count_lines(physical, raw_bytes);
            builder.count_malformed(1);
            if (physical > 1) builder.count_joined(physical - 1);
            return;
        }
        if (others_allowed && other_format(line, raw_bytes, physical, cut, outer, builder)) return;
        begin(line, raw_bytes, physical, cut, now, outer);
        candidate = fresh_shape;
        shape = next_shape;
        if (!join.enabled) flush_group(builder);
    }

    bool other_format(
        std::string_view line,
        std::uint64_t raw_bytes,
        std::uint64_t physical,
        bool cut,
        Time outer,
        BatchBuilder& builder
    ) {
        RecordView record;
        const Time received = builder.received();
        const char first = line[0];
        if (is_digit(first) && read_nginx_error(line, received, record, context)) {
            if (defaults.service.empty()) record.service = "nginx";
            record.message = reader.read(line).message;
            single(record, raw_bytes, physical, cut, outer, builder);
            return true;
        }
        if (first == '<' && read_syslog(line, received, record, context)) {
            if (!defaults.service.empty()) {
                context.add("process", record.service);
                record.service = {};
            }
            if (record.message[0] == '{') {
                RecordView from_json;
                WrappedLine inner;
                if (json.parse(record.message, received, from_json, inner) == JsonRecords::Kind::record) {
                    if (from_json.level == Level::unknown) from_json.level = record.level;
                    if (from_json.service.empty()) from_json.service = record.service;
                    if (from_json.host.empty()) from_json.host = record.host;
                    if (from_json.time.us == 0) from_json.time = record.time;
                    single(from_json, raw_bytes, physical, cut, outer, builder);
                    return true;
                }
            }
            unfold_syslog(record);
            single(record, raw_bytes, physical, cut, outer, builder);
            return true;
        }
        if (first == '[' && read_apache_error(line, received, record, context)) {
            if (defaults.service.empty()) record.service = "apache";
            record.message = reader.read(line).message;
            single(record, raw_bytes, physical, cut, outer, builder);
            return true;
        }
        if (looks_like_logfmt(line)) {
            const Level level = level_in_logfmt(line);
            if (level != Level::unknown && level < defaults.min_level) {
                count(raw_bytes, physical, builder);
                builder.count_below_level(1);
                return true;
            }
            logfmt_to_json(line, logfmt);
            WrappedLine inner;
            if (json.parse(logfmt, received, record, inner) == JsonRecords::Kind::record) {
                single(record, raw_bytes, physical, cut, outer, builder);
                return true;
            }
        }
        if ((is_digit(first) || first == ':' || (first >= 'a' && first <= 'f')) &&
            read_access(line, received, record, context)) {
            record.message = reader.read(line).message;
            single(record, raw_bytes, physical, cut, outer, builder);
            return true;
        }
        return false;
    }

    void unwrap(
        const WrappedLine& inner,
        std::uint64_t raw_bytes,
        std::uint64_t physical,
        bool cut,
        Duration now,
        BatchBuilder& builder
    ) {
        Time time;
        parse_log_time(inner.time, builder.received(), time);
        if (assembly_lines > 0 && assembly_stream != inner.stream) flush_assembly(now, builder);
        if (inner.partial || assembly_lines > 0) {
            // The parts of one line; docker cuts at 16 KiB.
            if (assembly_lines == 0) {
                assembly.clear();
                assembly_stream = inner.stream;
                assembly_time = time;
            }
            const std::size_t room =
                BatchBuilder::max_stack_bytes - std::min(assembly.size(), BatchBuilder::max_stack_bytes);
            assembly.append(inner.text.substr(0, room));
            assembly_lines += physical;
            assembly_raw += raw_bytes;
            last = now;
            if (!inner.partial) flush_assembly(now, builder);
            return;
        }
        // The parser's buffer is used again for a JSON line within the wrapper.
        plain_scratch.assign(inner.text);
        assembly.swap(plain_scratch);
        take(assembly, raw_bytes, physical, cut, now, time, true, builder);
    }

    void flush_assembly(Duration now, BatchBuilder& builder) {
        if (assembly_lines == 0) return;
        const auto n = assembly_lines;
        const auto bytes = assembly_raw;
        assembly_lines = assembly_raw = 0;
        take(
            assembly,
            bytes,
            n,
            assembly.size() >= BatchBuilder::max_stack_bytes,
            now,
            assembly_time,
            true,
            builder
        );
    }

    std::string ansi_free;
    std::string_view without_ansi(std::string_view line) {
        ansi_free.clear();
        for (std::size_t i = 0; i < line.size(); ++i) {
            if (line[i] != '\x1B') {
                ansi_free += line[i];
                continue;
            }
            if (i + 1 < line.size() && line[i + 1] == '[') {
                i += 2;
                while (i < line.size() && !(line[i] >= '@' && line[i] <= '~')) ++i;
            }
        }
        return ansi_free;
    }
};

LineDecoder::LineDecoder(DecodeDefaults defaults, JoinOptions join)
    : state_(std::make_shared<State>(std::move(defaults), join)) {}
LineDecoder::~LineDecoder() = default;
LineDecoder::LineDecoder(LineDecoder&&) noexcept = default;
LineDecoder& LineDecoder::operator=(LineDecoder&&) noexcept = default;

void LineDecoder::line(
    std::string_view text, std::uint64_t raw_bytes, bool truncated, Duration now, BatchBuilder& builder
) {
    state_->take(text, raw_bytes, 1, truncated, now, Time{}, false, builder);
}

void LineDecoder::remember_shapes(bool on) {
    state_->remembers = on;
    if (!on) state_->shapes.reset();
}

void LineDecoder::pause(Duration, BatchBuilder& builder) {
    if (state_->open && !state_->may_be_continued()) state_->flush_group(builder);
}

std::optional<Duration> LineDecoder::deadline() const {
    const State& s = *state_;
    if (s.assembly_lines > 0) return s.last + s.join.longest;
    if (!s.open) return {};
    const bool is_complete = s.trace == Trace::python_done && !s.chain;
    return std::min(
        s.last + (is_complete ? std::min(s.join.settle, s.join.wait) : s.join.wait), s.opened + s.join.longest
    );
}

void LineDecoder::flush(BatchBuilder& builder) {
    state_->flush_assembly(state_->last, builder);
    state_->flush_group(builder);
}

std::uint64_t LineDecoder::held_bytes() const {
    return (state_->open ? state_->raw : 0) + state_->assembly_raw;
}

}  // namespace heal
