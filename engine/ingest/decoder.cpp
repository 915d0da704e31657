#include "ingest/decoder.hpp"

#include "ingest/json_record.hpp"
#include "ingest/text.hpp"

namespace heal {
namespace {

std::string_view without_blanks_and_bom(std::string_view text) {
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    const auto from = text.find_first_not_of(" \t\r\n");
    if (from == std::string_view::npos) return {};
    return text.substr(from, text.find_last_not_of(" \t\r\n") - from + 1);
}

}  // namespace

struct LogDecoder::State {
    JsonRecords json;

    // Reads the lines of a body one by one. `errors` also for the case that nothing could be read.
    void lines(
        std::string_view body, const DecodeDefaults& defaults, BatchBuilder& builder, DecodeReport& report
    ) {
        RecordView record;
        WrappedLine wrapped;
        std::uint64_t number = 0;
        while (!body.empty()) {
            const auto end = body.find('\n');
            const auto raw = body.substr(0, end);
            body = end == std::string_view::npos ? std::string_view{} : body.substr(end + 1);
            ++number;
            const auto line = trim(raw);
            if (line.empty()) continue;
            builder.count_lines(1, raw.size() + 1);
            const auto kind = json.parse(line, builder.received(), record, wrapped);
            if (kind == JsonRecords::Kind::bad) {
                builder.count_malformed(1);
                note(report, number, json.error());
                continue;
            }
            if (kind == JsonRecords::Kind::wrapped_line) {
                record = RecordView{};
                record.message = wrapped.text;
                if (!wrapped.time.empty()) parse_log_time(wrapped.time, builder.received(), record.time);
            }
            builder.add(record, defaults);
        }
    }

    static void note(DecodeReport& report, std::uint64_t number, std::string text) {
        ++report.malformed;
        if (report.errors.size() < DecodeReport::max_errors)
            report.errors.push_back({number, std::move(text)});
    }
};

LogDecoder::LogDecoder() : state_(std::make_unique<State>()) {}
LogDecoder::~LogDecoder() = default;

result<DecodeReport> LogDecoder::decode_logs(
    std::string_view body,
    std::string_view content_type,
    const DecodeDefaults& defaults,
    BatchBuilder& builder
) {
    DecodeReport report;
    const Batch& counts = builder.peek();
    const auto records = counts.records;
    const auto below = counts.below_level;
    const auto self = counts.self;
    const auto malformed = counts.malformed;
    const auto finish = [&] {
        report.records = counts.records - records;
        report.below_level = counts.below_level - below;
        report.self = counts.self - self;
        report.malformed = counts.malformed - malformed;
        return report;
    };
    const auto text = without_blanks_and_bom(body);
    if (text.empty())
        return fail(
            errc::invalid_input, "the body is empty; send one JSON object, an array of them, or one per line"
        );

    if (starts_with_ignoring_case(content_type, "text/plain") && text.front() != '{' && text.front() != '[') {
        LineDecoder lines{defaults, JoinOptions{}};
        for (std::string_view rest = text; !rest.empty();) {
            const auto end = rest.find('\n');
            const auto line = rest.substr(0, end);
            rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
            lines.line(line, line.size() + 1, false, Duration{0}, builder);
        }
        lines.flush(builder);
        return finish();
    }

    // One object over several lines or an array is one JSON text; several lines that each begin an object are
    // NDJSON.
    const auto first_line = trim(text.substr(0, text.find('\n')));
    const bool is_ndjson = text.front() == '{' && first_line.size() < text.size() &&
                           (content_type.find("ndjson") != std::string_view::npos ||
                            content_type.find("jsonl") != std::string_view::npos ||
                            content_type.find("json-lines") != std::string_view::npos ||
                            first_line.ends_with('}') || text.find("\n{") != std::string_view::npos);
    if (text.front() != '[' && (text.front() != '{' || is_ndjson)) {
        if (text.front() != '{' && text.find('{') == std::string_view::npos) {
            return fail(
                errc::invalid_input,
                "the body is not JSON: it begins with '" + std::string{cut_utf8(text, 20)} +
                    "'; send one JSON object, an array of them, or one per line"
            );
        }
        state_->lines(body.starts_with("\xEF\xBB\xBF") ? body.substr(3) : body, defaults, builder, report);
        return finish();
    }
    const bool parsed = state_->json.parse_body(
        text,
        builder.received(),
        [&](std::uint64_t number, const RecordView* record) {
            builder.count_lines(1, 0);
            if (record == nullptr) {
                builder.count_malformed(1);
                State::note(report, number, state_->json.error());
                return;
            }
            builder.add(*record, defaults);
        }
    );
    if (!parsed) return fail(errc::invalid_input, "the body " + state_->json.error());
    builder.count_lines(0, body.size());
    return finish();
}

}  // namespace heal
