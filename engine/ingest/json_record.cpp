#include "ingest/json_record.hpp"

#include "base/json.hpp"
#include "ingest/decoder.hpp"
#include "ingest/text.hpp"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <vector>

namespace heal {
namespace {

namespace dom = simdjson::dom;

enum class Field : std::uint8_t {
    other,      // goes to the context
    ignored,    // known and of no use
    container,  // an object whose fields are looked at with a dot
    service,
    name,  // bunyan's and pino's: the program; elsewhere the logger
    level,
    level_number,  // OpenTelemetry's severity number
    message,
    template_text,  // Serilog: used when there is no rendered message
    error,          // an object with type, message and stack, or a text
    error_type,
    error_message,
    stack,
    context,
    time,
    http_status,
    component,
    logger,
    request_id,
    workspace_id,
    trace_id,
    environment,
    release,
    host,
    pid
};

struct Name {
    std::string_view key;  // lower case, '_' and '-' taken out except within dots
    Field field;
};

// Sorted by key. Keys are compared in lower case without '_' and '-', so serviceName, service_name and
// service-name are one.
constexpr std::array names{
    Name{"@l", Field::level},
    Name{"@m", Field::message},
    Name{"@mt", Field::template_text},
    Name{"@t", Field::time},
    Name{"@timestamp", Field::time},
    Name{"@version", Field::ignored},
    Name{"@x", Field::stack},
    Name{"app", Field::service},
    Name{"application", Field::service},
    Name{"appname", Field::service},
    Name{"appversion", Field::release},
    Name{"asctime", Field::time},
    Name{"body", Field::message},
    Name{"component", Field::component},
    Name{"context", Field::context},
    Name{"correlationid", Field::request_id},
    Name{"date", Field::time},
    Name{"datetime", Field::time},
    Name{"dd.traceid", Field::trace_id},
    Name{"deployment.environment", Field::environment},
    Name{"deployment.environment.name", Field::environment},
    Name{"env", Field::environment},
    Name{"environment", Field::environment},
    Name{"err", Field::error},
    Name{"err.message", Field::error_message},
    Name{"err.name", Field::error_type},
    Name{"err.stack", Field::stack},
    Name{"err.type", Field::error_type},
    Name{"error", Field::error},
    Name{"error.class", Field::error_type},
    Name{"error.kind", Field::error_type},
    Name{"error.message", Field::error_message},
    Name{"error.msg", Field::error_message},
    Name{"error.name", Field::error_type},
    Name{"error.stack", Field::stack},
    Name{"error.stacktrace", Field::stack},
    Name{"error.type", Field::error_type},
    Name{"errorclass", Field::error_type},
    Name{"errortype", Field::error_type},
    Name{"errorverbose", Field::stack},
    Name{"event", Field::message},
    Name{"ex", Field::error},
    Name{"exc", Field::error},
    Name{"exception", Field::error},
    Name{"exception.class", Field::error_type},
    Name{"exception.exceptionclass", Field::error_type},
    Name{"exception.exceptionmessage", Field::error_message},
    Name{"exception.message", Field::error_message},
    Name{"exception.name", Field::error_type},
    Name{"exception.stack", Field::stack},
    Name{"exception.stacktrace", Field::stack},
    Name{"exception.type", Field::error_type},
    Name{"exceptionclass", Field::error_type},
    Name{"exceptiontype", Field::error_type},
    Name{"excinfo", Field::stack},
    Name{"exctext", Field::stack},
    Name{"host", Field::host},
    Name{"host.hostname", Field::host},
    Name{"host.name", Field::host},
    Name{"hostname", Field::host},
    Name{"http", Field::container},
    Name{"http.request", Field::container},
    Name{"http.request.id", Field::request_id},
    Name{"http.response", Field::container},
    Name{"http.response.statuscode", Field::http_status},
    Name{"http.status", Field::http_status},
    Name{"http.statuscode", Field::http_status},
    Name{"httpstatus", Field::http_status},
    Name{"httpstatuscode", Field::http_status},
    Name{"level", Field::level},
    Name{"levelname", Field::level},
    Name{"levelno", Field::ignored},
    Name{"levelvalue", Field::ignored},
    Name{"log", Field::container},
    Name{"log.level", Field::level},
    Name{"log.logger", Field::logger},
    Name{"logger", Field::logger},
    Name{"loggername", Field::logger},
    Name{"loglevel", Field::level},
    Name{"lvl", Field::level},
    Name{"message", Field::message},
    Name{"messagetemplate", Field::template_text},
    Name{"module", Field::component},
    Name{"msg", Field::message},
    Name{"name", Field::name},
    Name{"pid", Field::pid},
    Name{"release", Field::release},
    Name{"reqid", Field::request_id},
    Name{"requestid", Field::request_id},
    Name{"res", Field::container},
    Name{"res.statuscode", Field::http_status},
    Name{"response", Field::container},
    Name{"response.status", Field::http_status},
    Name{"response.statuscode", Field::http_status},
    Name{"service", Field::service},
    Name{"service.environment", Field::environment},
    Name{"service.name", Field::service},
    Name{"service.version", Field::release},
    Name{"servicename", Field::service},
    Name{"severity", Field::level},
    Name{"severitynumber", Field::level_number},
    Name{"severitytext", Field::level},
    Name{"shortmessage", Field::message},
    Name{"stack", Field::stack},
    Name{"stacktrace", Field::stack},
    Name{"status", Field::http_status},
    Name{"statuscode", Field::http_status},
    Name{"text", Field::message},
    Name{"time", Field::time},
    Name{"timemillis", Field::time},
    Name{"timestamp", Field::time},
    Name{"trace", Field::container},
    Name{"trace.id", Field::trace_id},
    Name{"traceback", Field::stack},
    Name{"traceid", Field::trace_id},
    Name{"ts", Field::time},
    Name{"v", Field::ignored},
    Name{"version", Field::release},
    Name{"workspaceid", Field::workspace_id},
    Name{"xrequestid", Field::request_id},
};
static_assert(std::is_sorted(names.begin(), names.end(), [](const Name& a, const Name& b) {
    return a.key < b.key;
}));

constexpr std::size_t longest_name = 64;

// Appends a key to a dotted path in the form of `names`. False: too long to be one of them.
bool append_key(std::array<char, longest_name>& path, std::size_t& size, std::string_view key) {
    for (const char c : key) {
        if (c == '_' || c == '-') continue;
        if (size == path.size()) return false;
        path[size++] = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    }
    return true;
}

Field field_of(std::string_view path) {
    const auto at = std::lower_bound(
        names.begin(), names.end(), path, [](const Name& n, std::string_view key) { return n.key < key; }
    );
    return at != names.end() && at->key == path ? at->field : Field::other;
}

std::string_view text_of(const dom::element& value) {
    std::string_view text;
    return value.get(text) == simdjson::SUCCESS ? text : std::string_view{};
}

bool number_of(const dom::element& value, double& ret) {
    if (value.is_number()) return value.get(ret) == simdjson::SUCCESS;
    const auto text = text_of(value);
    if (text.empty()) return false;
    return std::from_chars(text.data(), text.data() + text.size(), ret).ptr == text.data() + text.size();
}

void quote(std::string& ret, std::string_view text) {
    ret += json::serialize(json::string{text.data(), text.size()});
}

// The fields that have no place of their own, kept until a sample wants them.
class Rest final : public ContextSource {
public:
    static constexpr std::size_t max_bytes = 8192;
    static constexpr std::size_t max_fields = 64;

    void clear() {
        fields_.clear();
        has_context_ = false;
    }
    void add(std::string_view key, const dom::element& value) {
        if (fields_.size() < max_fields) fields_.emplace_back(key, value);
    }
    void set_context(const dom::object& context) {
        context_ = context;
        has_context_ = true;
    }

    std::string context() const override {
        std::string ret = "{";
        const auto append = [&](std::string_view key, const dom::element& value) {
            const auto text = simdjson::minify(value);
            if (ret.size() + key.size() + text.size() + 8 > max_bytes) return;
            if (ret.size() > 1) ret += ',';
            quote(ret, key);
            ret += ':';
            ret += text;
        };
        if (has_context_) {
            for (const auto field : context_) append(field.key, field.value);
        }
        for (const auto& [key, value] : fields_) append(key, value);
        if (ret.size() == 1) return {};
        ret += '}';
        return ret;
    }

private:
    std::vector<std::pair<std::string_view, dom::element>> fields_;
    dom::object context_;
    bool has_context_ = false;
};

}  // namespace

struct JsonRecords::State {
    dom::parser parser;
    std::string padded, repaired, message, stack, error;
    Rest rest;

    // A repeated key counts as last written; so plain assignment is right.
    struct Found {
        std::string_view service, name, level_text, message, template_text, error_text, error_type,
            error_message, stack, time_text;
        std::string_view log_text, stream;
        double level_number = -1, otlp_number = -1, time_number = 0, status = 0;
        bool has_host = false, has_pid = false, has_log = false;
        bool is_bunyan_like() const { return has_host && has_pid; }
        std::size_t fields = 0;
        dom::array stack_array;
        bool has_stack_array = false;
    };

    void visit(
        const dom::object& object,
        std::array<char, longest_name>& path,
        std::size_t prefix,
        int depth,
        RecordView& ret,
        Found& found
    ) {
        for (const auto field : object) {
            ++found.fields;
            std::size_t size = prefix;
            const bool fits = append_key(path, size, field.key);
            const std::string_view full{path.data(), size};
            const Field what = fits ? field_of(full) : Field::other;
            const dom::element& value = field.value;
            if (value.is_null()) continue;
            dom::object inner;
            const bool is_object = value.get(inner) == simdjson::SUCCESS;
            if (is_object) {
                const bool looks_inside = what == Field::container || what == Field::error ||
                                          what == Field::service || what == Field::host;
                if (what == Field::context) {
                    rest.set_context(inner);
                } else if (looks_inside && depth < 3 && size + 1 < path.size()) {
                    path[size] = '.';
                    visit(inner, path, size + 1, depth + 1, ret, found);
                } else {
                    rest.add(field.key, value);
                }
                continue;
            }
            const auto text = text_of(value);
            switch (what) {
                case Field::service:
                    found.service = text;
                    break;
                case Field::name:
                    found.name = text;
                    break;
                case Field::level:
                    if (text.empty()) {
                        if (value.get(found.level_number) != simdjson::SUCCESS) rest.add(field.key, value);
                    } else {
                        found.level_text = text;
                    }
                    break;
                case Field::level_number:
                    if (!number_of(value, found.otlp_number)) rest.add(field.key, value);
                    break;
                case Field::message:
                    if (text.empty()) {
                        if (!value.is_string()) rest.add(field.key, value);
                    } else if (full == "event" && !found.message.empty()) {
                        rest.add(field.key, value);
                    } else {
                        found.message = text;
                    }
                    break;
                case Field::template_text:
                    found.template_text = text;
                    break;
                case Field::error:
                    found.error_text = text;
                    break;
                case Field::error_type:
                    found.error_type = text;
                    break;
                case Field::error_message:
                    found.error_message = text;
                    break;
                case Field::stack:
                    found.stack = text;
                    if (text.empty() && value.get(found.stack_array) == simdjson::SUCCESS)
                        found.has_stack_array = true;
                    break;
                case Field::time:
                    if (text.empty()) {
                        if (value.get(found.time_number) != simdjson::SUCCESS) rest.add(field.key, value);
                    } else {
                        found.time_text = text;
                    }
                    break;
                case Field::http_status: {
                    double number = 0;
                    if (number_of(value, number) && number >= 100 && number <= 599) {
                        found.status = number;
                    } else {
                        rest.add(field.key, value);
                    }
                    break;
                }
                case Field::component:
                    ret.component = text;
                    break;
                case Field::logger:
                    ret.logger = text;
                    break;
                case Field::request_id:
                    ret.request_id = text;
                    break;
                case Field::workspace_id:
                    ret.workspace_id = text;
                    break;
                case Field::trace_id:
                    ret.trace_id = text;
                    break;
                case Field::environment:
                    ret.environment = text;
                    break;
                case Field::release:
                    ret.release = text;
                    break;
                case Field::host:
                    ret.host = text;
                    found.has_host = true;
                    break;
                case Field::pid:
                    found.has_pid = true;
                    rest.add(field.key, value);
                    break;
                case Field::context:
                case Field::other:
                    rest.add(field.key, value);
                    break;
                case Field::container:
                    if (full == "log") {
                        found.log_text = text;
                        found.has_log = !text.empty();
                    } else {
                        rest.add(field.key, value);
                    }
                    break;
                case Field::ignored:
                    break;
            }
            if (full == "stream") found.stream = text;
        }
    }

    Kind read(const dom::element& element, Time received, RecordView& ret, WrappedLine& ret_line) {
        dom::object object;
        if (element.get(object) != simdjson::SUCCESS) {
            error = "is not a JSON object";
            return Kind::bad;
        }
        ret = RecordView{};
        rest.clear();
        Found found;
        std::array<char, longest_name> path{};
        visit(object, path, 0, 0, ret, found);

        if (found.has_log && !found.stream.empty() &&
            found.message.empty()) {  // docker json-file: {"log","stream","time"}
            ret_line.text = found.log_text;
            ret_line.stream = found.stream;
            ret_line.time = found.time_text;
            ret_line.partial = !ret_line.text.ends_with('\n');
            while (ret_line.text.ends_with('\n') || ret_line.text.ends_with('\r'))
                ret_line.text.remove_suffix(1);
            return Kind::wrapped_line;
        }
        if (found.has_log && found.message.empty()) found.message = found.log_text;

        ret.service = found.service;
        if (!found.name.empty()) {
            if (ret.service.empty() && found.is_bunyan_like()) {
                ret.service = found.name;
            } else if (ret.logger.empty()) {
                ret.logger = found.name;
            }
        }
        if (!found.level_text.empty()) {
            ret.level = parse_level(found.level_text);
            double number = 0;
            const auto text = found.level_text;
            if (ret.level == Level::unknown &&
                std::from_chars(text.data(), text.data() + text.size(), number).ptr ==
                    text.data() + text.size()) {
                found.level_number = number;
            }
        }
        if (ret.level == Level::unknown && found.level_number >= 0 && found.level_number < 1000) {
            // GELF and syslog count 0-7 downwards, pino and bunyan 10-60 upwards.
            ret.level = found.level_number < 8 ? level_of_syslog(static_cast<int>(found.level_number))
                                               : level_of_pino(static_cast<long>(found.level_number));
        }
        if (ret.level == Level::unknown && found.otlp_number >= 1 && found.otlp_number <= 24) {
            ret.level = level_of_otlp(static_cast<int>(found.otlp_number));
        }
        if (found.time_text.empty() || !parse_log_time(found.time_text, received, ret.time))
            parse_epoch(found.time_number, ret.time);
        ret.http_status = static_cast<int>(found.status);

        ret.stack_trace = found.stack;
        if (ret.stack_trace.empty() && found.has_stack_array) {
            stack.clear();
            for (const auto line : found.stack_array) {
                const auto text = text_of(line);
                if (stack.size() + text.size() < BatchBuilder::max_stack_bytes) (stack += text) += '\n';
            }
            ret.stack_trace = stack;
        }
        if (!found.error_text.empty() && found.error_text.find('\n') != std::string_view::npos &&
            ret.stack_trace.empty()) {
            ret.stack_trace = found.error_text;
        } else if (found.error_message.empty()) {
            found.error_message = found.error_text;
        }
        ret.error_type = found.error_type;
        ret.message = !found.message.empty() ? found.message : found.template_text;
        if (ret.message.empty()) {
            ret.message = !found.error_message.empty() ? found.error_message
                          : !ret.stack_trace.empty()   ? ret.stack_trace.substr(0, ret.stack_trace.find('\n'))
                                                       : ret.error_type;
        } else if (!found.error_message.empty() && found.error_message.size() <= 2048 &&
                   ret.message.find(found.error_message) == std::string_view::npos) {
            // zap and logrus put what happened into "error" and only what was tried into "msg".
            message.assign(ret.message).append(": ").append(found.error_message);
            ret.message = message;
        }
        if (ret.message.empty() && ret.http_status >= 400) {
            message = "HTTP " + std::to_string(ret.http_status);
            ret.message = message;
        }
        if (ret.message.empty()) {
            error = "has no message (looked for message, msg, error and others)";
            return Kind::bad;
        }
        // pino and winston append the stack to the message of an Error; the message is its first line.
        if (ret.stack_trace.empty()) {
            if (const auto end = ret.message.find("\n    at "); end != std::string_view::npos) {
                ret.stack_trace = ret.message.substr(end + 1);
                ret.message = ret.message.substr(0, end);
            } else if (const auto trace = ret.message.find("\nTraceback (most recent call last):");
                       trace != std::string_view::npos) {
                ret.stack_trace = ret.message.substr(trace + 1);
                ret.message = ret.message.substr(0, trace);
            } else if (const auto java = ret.message.find("\n\tat "); java != std::string_view::npos) {
                ret.stack_trace = ret.message.substr(java + 1);
                ret.message = ret.message.substr(0, java);
            }
        }
        if (ret.error_type.empty()) {
            ret.error_type = ret.stack_trace.empty() ? error_type_in_text(ret.message)
                                                     : error_type_of_trace(ret.stack_trace, ret.message);
        }
        if (ret.http_status == 0) ret.http_status = http_status_in_text(ret.message);
        ret.context = &rest;
        return Kind::record;
    }

    // Where a trace names its type: Python at its end, all others in their first line.
    static std::string_view error_type_of_trace(std::string_view trace, std::string_view message) {
        if (trace.starts_with("Traceback ")) {
            while (trace.ends_with('\n')) trace.remove_suffix(1);
            const auto line = trace.rfind('\n');
            const auto last = line == std::string_view::npos ? trace : trace.substr(line + 1);
            return last.substr(0, last.find(':'));
        }
        const auto first = trace.substr(0, trace.find('\n'));
        if (!first.starts_with(' ') && !first.starts_with('\t')) {
            if (const auto type = error_type_in_text(first); !type.empty()) return type;
            if (first.starts_with("Error: ")) return "Error";
        }
        return error_type_in_text(message);
    }

    simdjson::error_code parse(std::string_view text, dom::element& ret) {
        if (parser.max_depth() != LogDecoder::max_depth &&
            parser.allocate(std::max<std::size_t>(text.size(), 4096), LogDecoder::max_depth)) {
            return simdjson::MEMALLOC;
        }
        if (padded.capacity() < text.size() + simdjson::SIMDJSON_PADDING)
            padded.reserve(text.size() + simdjson::SIMDJSON_PADDING + 4096);
        padded.assign(text);
        padded.resize(text.size() + simdjson::SIMDJSON_PADDING, ' ');
        auto code = parser.parse(padded.data(), text.size(), false).get(ret);
        if (code == simdjson::UTF8_ERROR) {
            repaired = to_valid_utf8(text);
            repaired.resize(repaired.size() + simdjson::SIMDJSON_PADDING, ' ');
            code =
                parser.parse(repaired.data(), repaired.size() - simdjson::SIMDJSON_PADDING, false).get(ret);
        }
        return code;
    }

    void describe(simdjson::error_code code) {
        error = code == simdjson::DEPTH_ERROR
                    ? "is nested deeper than " + std::to_string(LogDecoder::max_depth)
                    : std::string{"is not valid JSON: "} + simdjson::error_message(code);
    }
};

JsonRecords::JsonRecords() : state_(std::make_unique<State>()) {}
JsonRecords::~JsonRecords() = default;
const std::string& JsonRecords::error() const { return state_->error; }

JsonRecords::Kind JsonRecords::parse(
    std::string_view text, Time received, RecordView& ret, WrappedLine& ret_line
) {
    dom::element element;
    if (const auto code = state_->parse(text, element); code != simdjson::SUCCESS) {
        state_->describe(code);
        return Kind::bad;
    }
    return state_->read(element, received, ret, ret_line);
}

bool JsonRecords::parse_body(
    std::string_view body, Time received, const std::function<void(std::uint64_t, const RecordView*)>& visit
) {
    dom::element root;
    if (const auto code = state_->parse(body, root); code != simdjson::SUCCESS) {
        state_->describe(code);
        return false;
    }
    RecordView record;
    WrappedLine line;
    std::uint64_t n = 0;
    const auto take = [&](const dom::element& element) {
        const auto kind = state_->read(element, received, record, line);
        if (kind == Kind::wrapped_line) {
            record = RecordView{};
            record.message = line.text;
            if (!line.time.empty()) parse_log_time(line.time, received, record.time);
        }
        visit(++n, kind == Kind::bad ? nullptr : &record);
    };
    dom::array array;
    if (root.get(array) != simdjson::SUCCESS && root["logs"].get(array) != simdjson::SUCCESS) {
        take(root);
        return true;
    }
    for (const auto element : array) take(element);
    return true;
}

}  // namespace heal
