#include "ingest/formats.hpp"

#include "base/json.hpp"
#include "fingerprint/fingerprint.hpp"
#include "ingest/text.hpp"

#include <algorithm>
#include <charconv>

namespace heal {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_key(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_' || c == '.' ||
           c == '-' || c == '@';
}

// Does `line` have the shape `shape`, where 0 stands for any digit?
bool has_shape(std::string_view line, std::string_view shape) {
    if (line.size() < shape.size()) return false;
    for (std::size_t i = 0; i < shape.size(); ++i) {
        if (shape[i] == '0' ? !is_digit(line[i]) : line[i] != shape[i]) return false;
    }
    return true;
}

std::string_view take_word(std::string_view& rest) {
    const auto end = rest.find(' ');
    const auto word = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
    return word;
}

std::string_view dash_is_empty(std::string_view word) { return word == "-" ? std::string_view{} : word; }

// The length of a logfmt value at the start of `text`, quotes included.
std::size_t value_size(std::string_view text) {
    if (text.empty() || text[0] != '"') return std::min(text.find(' '), text.size());
    for (std::size_t i = 1; i < text.size(); ++i) {
        if (text[i] == '\\') {
            ++i;
        } else if (text[i] == '"') {
            return i + 1;
        }
    }
    return text.size();
}

template <class Visit>
void each_pair(std::string_view line, Visit&& visit) {
    std::size_t i = 0;
    while (i < line.size()) {
        if (line[i] == ' ') {
            ++i;
            continue;
        }
        const std::size_t from = i;
        while (i < line.size() && is_key(line[i])) ++i;
        if (i == from || i >= line.size() || line[i] != '=') {
            while (i < line.size() && line[i] != ' ') ++i;
            continue;
        }
        const auto key = line.substr(from, i - from);
        ++i;
        const auto size = value_size(line.substr(i));
        if (!visit(key, line.substr(i, size))) return;
        i += size;
    }
}

}  // namespace

std::string LineContext::context() const {
    if (fields_.empty()) return {};
    std::string ret = "{";
    for (const auto& [key, value] : fields_) {
        if (ret.size() > 1) ret += ',';
        ret += '"';
        ret += key;
        ret += "\":";
        const auto clean = to_valid_utf8(cut_utf8(value, 2048));
        ret += json::serialize(json::string{clean.data(), clean.size()});
    }
    ret += '}';
    return ret;
}

bool read_nginx_error(std::string_view line, Time received, RecordView& ret, LineContext& context) {
    if (!has_shape(line, "0000/00/00 00:00:00 [")) return false;
    const auto close = line.find("] ", 21);
    if (close == std::string_view::npos || close > 32) return false;
    const Level level = parse_level(line.substr(21, close - 21));
    if (level == Level::unknown) return false;
    auto rest = line.substr(close + 2);
    // pid#tid: and the connection's number say nothing about the error.
    const auto hash = rest.find('#');
    const auto colon = rest.find(": ");
    if (hash == std::string_view::npos || colon == std::string_view::npos || hash > colon) return false;
    rest = rest.substr(colon + 2);
    if (rest.starts_with("*")) {
        const auto blank = rest.find(' ');
        if (blank != std::string_view::npos) rest = rest.substr(blank + 1);
    }
    ret = RecordView{};
    context.clear();
    ret.level = level;
    ret.component = "nginx";
    parse_log_time(line.substr(0, 19), received, ret.time);
    ret.message = rest;
    if (const auto client = rest.find(", client: "); client != std::string_view::npos) {
        ret.message = rest.substr(0, client);
        auto pairs = rest.substr(client + 2);
        while (!pairs.empty()) {
            const auto key_end = pairs.find(": ");
            if (key_end == std::string_view::npos || key_end > 20) break;
            const auto key = pairs.substr(0, key_end);
            auto value = pairs.substr(key_end + 2);
            const bool quoted = value.starts_with('"');
            auto end = quoted ? value.find("\", ") : value.find(", ");
            const auto whole =
                end == std::string_view::npos ? value : value.substr(0, quoted ? end + 1 : end);
            pairs =
                end == std::string_view::npos ? std::string_view{} : value.substr(end + (quoted ? 3U : 2U));
            auto bare = whole;
            if (bare.size() >= 2 && bare.front() == '"' && bare.back() == '"')
                bare = bare.substr(1, bare.size() - 2);
            for (const std::string_view known :
                 {"client", "server", "request", "upstream", "host", "referrer", "subrequest"}) {
                if (key == known) context.add(known, bare);
            }
        }
    }
    ret.context = &context;
    return true;
}

bool read_apache_error(std::string_view line, Time received, RecordView& ret, LineContext& context) {
    if (!line.starts_with('[')) return false;
    const auto time_end = line.find("] [");
    if (time_end == std::string_view::npos || time_end > 40) return false;
    Time time;
    if (!parse_log_time(line.substr(1, time_end - 1), received, time)) return false;
    auto rest = line.substr(time_end + 2);
    const auto level_end = rest.find(']');
    if (level_end == std::string_view::npos) return false;
    auto level_word = rest.substr(1, level_end - 1);
    std::string_view module;
    if (const auto colon = level_word.find(':'); colon != std::string_view::npos) {
        module = level_word.substr(0, colon);
        level_word = level_word.substr(colon + 1);
    }
    const Level level = parse_level(level_word);
    if (level == Level::unknown) return false;
    ret = RecordView{};
    context.clear();
    ret.time = time;
    ret.level = level;
    ret.component = module;
    rest = trim(rest.substr(level_end + 1));
    const auto take_bracket = [&](std::string_view begin) -> std::string_view {
        if (!rest.starts_with(begin)) return {};
        const auto end = rest.find(']');
        if (end == std::string_view::npos) return {};
        const auto inside = rest.substr(begin.size(), end - begin.size());
        rest = trim(rest.substr(end + 1));
        return inside;
    };
    context.add("pid", take_bracket("[pid "));
    context.add("client", take_bracket("[client "));
    context.add("client", take_bracket("[remote "));
    ret.message = rest;
    ret.context = &context;
    return !rest.empty();
}

bool read_access(std::string_view line, Time received, RecordView& ret, LineContext& context) {
    const auto open = line.find(" [");
    if (open == std::string_view::npos || open > 128) return false;
    const auto close = line.find("] \"", open);
    if (close == std::string_view::npos || close - open > 40) return false;
    const auto request_end = line.find("\" ", close + 3);
    if (request_end == std::string_view::npos || request_end + 5 > line.size()) return false;
    const auto status_text = line.substr(request_end + 2, 3);
    int status = 0;
    if (std::from_chars(status_text.data(), status_text.data() + 3, status).ptr != status_text.data() + 3 ||
        status < 100 || status > 599)
        return false;
    Time time;
    if (!parse_log_time(line.substr(open + 2, close - open - 2), received, time)) return false;
    ret = RecordView{};
    context.clear();
    ret.time = time;
    ret.http_status = status;
    ret.level = status >= 500 ? Level::error : Level::info;
    context.add("client", line.substr(0, line.find(' ')));
    context.add("request", line.substr(close + 3, request_end - close - 3));
    ret.context = &context;
    return true;
}

bool read_syslog(std::string_view line, Time received, RecordView& ret, LineContext& context) {
    if (line.size() < 5 || line[0] != '<') return false;
    int pri = -1;
    const auto end =
        std::from_chars(line.data() + 1, line.data() + std::min<std::size_t>(line.size(), 5), pri).ptr;
    const auto at = static_cast<std::size_t>(end - line.data());
    if (pri < 0 || pri > 191 || at >= line.size() || line[at] != '>') return false;
    auto rest = line.substr(at + 1);
    ret = RecordView{};
    context.clear();
    ret.level = level_of_syslog(pri & 7);
    ret.context = &context;
    if (rest.starts_with("1 ")) {
        rest.remove_prefix(2);
        const auto time = take_word(rest);
        parse_log_time(time, received, ret.time);
        ret.host = dash_is_empty(take_word(rest));
        ret.service = dash_is_empty(take_word(rest));
        context.add("pid", dash_is_empty(take_word(rest)));
        context.add("msgid", dash_is_empty(take_word(rest)));
        if (rest.starts_with('-')) {
            rest.remove_prefix(1);
        } else {
            // Structured data: [id name="value" …], in which \] and \" are escaped.
            const auto all = rest;
            while (rest.starts_with('[')) {
                bool quoted = false;
                std::size_t i = 1;
                for (; i < rest.size() && (quoted || rest[i] != ']'); ++i) {
                    if (rest[i] == '\\') {
                        ++i;
                    } else if (rest[i] == '"') {
                        quoted = !quoted;
                    }
                }
                if (i >= rest.size()) {
                    rest = {};
                    break;
                }
                rest.remove_prefix(i + 1);
            }
            context.add("structured_data", all.substr(0, all.size() - rest.size()));
        }
        if (rest.starts_with(' ')) rest.remove_prefix(1);
        if (rest.starts_with("\xEF\xBB\xBF")) rest.remove_prefix(3);
    } else {
        const auto header = fingerprint::cut_header(rest);
        if (!header.timestamp.empty()) parse_log_time(header.timestamp, received, ret.time);
        ret.host = header.host;
        const bool is_pid = std::all_of(header.process.begin(), header.process.end(), is_digit);
        ret.service = is_pid ? header.component : header.process;
        context.add("pid", is_pid ? header.process : std::string_view{});
        if (header.level != Level::unknown) ret.level = header.level;
        rest = header.message;
    }
    if (rest.starts_with("@cee:")) rest = trim(rest.substr(5));
    ret.message = rest;
    return !rest.empty();
}

bool read_cri(std::string_view line, WrappedLine& ret) {
    if (!has_shape(line, "0000-00-00T00:00:00")) return false;
    auto rest = line;
    const auto time = take_word(rest);
    const auto stream = take_word(rest);
    if (stream != "stdout" && stream != "stderr") return false;
    const auto tags = take_word(rest);
    if (tags.empty() || (tags[0] != 'F' && tags[0] != 'P') || (tags.size() > 1 && tags[1] != ':'))
        return false;
    ret.time = time;
    ret.stream = stream;
    ret.partial = tags[0] == 'P';
    ret.text = rest;
    return true;
}

bool looks_like_logfmt(std::string_view line) {
    std::size_t i = 0;
    while (i < line.size() && is_key(line[i])) ++i;
    if (i == 0 || i >= line.size() || line[i] != '=') return false;
    const auto has = [&](std::string_view key) {
        if (line.starts_with(key)) return true;
        const auto at = line.find(key);
        return at != std::string_view::npos && line[at - 1] == ' ';
    };
    return has("level=") || has("lvl=") || has("severity=") || has("msg=") || has("message=");
}

Level level_in_logfmt(std::string_view line) {
    Level ret = Level::unknown;
    each_pair(line, [&](std::string_view key, std::string_view value) {
        if (key != "level" && key != "lvl" && key != "severity" && key != "log_level" && key != "loglevel")
            return true;
        if (value.size() >= 2 && value.front() == '"') value = value.substr(1, value.size() - 2);
        ret = parse_level(value);
        return ret == Level::unknown;
    });
    return ret;
}

void logfmt_to_json(std::string_view line, std::string& ret) {
    ret.assign("{");
    int fields = 0;
    std::string plain;
    each_pair(line, [&](std::string_view key, std::string_view value) {
        plain.clear();
        if (value.size() >= 2 && value.front() == '"') {
            value = value.substr(1, value.size() - (value.back() == '"' ? 2U : 1U));
            for (std::size_t i = 0; i < value.size(); ++i) {
                if (value[i] == '\\' && i + 1 < value.size()) {
                    const char c = value[++i];
                    plain += c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
                } else {
                    plain += value[i];
                }
            }
        } else {
            plain.assign(value);
        }
        if (ret.size() > 1) ret += ',';
        ret.append("\"").append(key).append("\":");
        const auto clean = to_valid_utf8(plain);
        ret += json::serialize(json::string{clean.data(), clean.size()});
        return ++fields < 256;
    });
    ret += '}';
}

}  // namespace heal
