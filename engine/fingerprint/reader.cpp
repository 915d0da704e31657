#include "fingerprint/reader.hpp"

#include "fingerprint/chars.hpp"
#include "fingerprint/shape.hpp"

#include <algorithm>

namespace heal::fingerprint {
namespace {

constexpr std::size_t longest_error = 2048;  // of a text that is put behind a message
constexpr std::string_view bom = "\xEF\xBB\xBF";

/// Does the text begin with this shape, in which 0 stands for any digit?
bool has_shape(std::string_view text, std::string_view shape) noexcept {
    if (text.size() < shape.size()) return false;
    for (std::size_t i = 0; i < shape.size(); ++i) {
        if (shape[i] == '0' ? !is_digit(text[i]) : text[i] != shape[i]) return false;
    }
    return true;
}

std::string_view trim(std::string_view text) noexcept {
    while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
    while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    return text;
}

std::string_view take_word(std::string_view& rest) noexcept {
    const auto end = std::min(rest.find(' '), rest.size());
    const auto word = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    return word;
}

/// Kubernetes' CRI: `2026-11-21T10:00:00.123456789Z stderr F message`
bool unwrap_cri(std::string_view& text) noexcept {
    if (!has_shape(text, "0000-00-00T00:00:00")) return false;
    auto rest = text;
    take_word(rest);
    const auto stream = take_word(rest);
    if (stream != "stdout" && stream != "stderr") return false;
    const auto tags = take_word(rest);
    if (tags.empty() || (tags[0] != 'F' && tags[0] != 'P') || (tags.size() > 1 && tags[1] != ':'))
        return false;
    text = rest;
    return true;
}

/// `2026/11/21 10:00:00 [error] 7#8: *9 message, client: …`: the message, or nothing.
std::string_view nginx_message(std::string_view text) noexcept {
    if (!has_shape(text, "0000/00/00 00:00:00 [")) return {};
    const auto close = text.substr(0, 40).find("] ", 21);
    if (close == std::string_view::npos || parse_level(text.substr(21, close - 21)) == Level::unknown)
        return {};
    auto rest = text.substr(close + 2);
    const auto hash = rest.substr(0, 40).find('#');
    const auto colon = rest.substr(0, 60).find(": ");
    if (hash == std::string_view::npos || colon == std::string_view::npos || hash > colon) return {};
    rest.remove_prefix(colon + 2);
    if (rest.starts_with('*')) {
        if (const auto blank = rest.find(' '); blank != std::string_view::npos) rest.remove_prefix(blank + 1);
    }
    return rest.substr(0, rest.find(", client: "));
}

bool is_key(char c) noexcept {
    return (is_alpha(c) && static_cast<unsigned char>(c) < 0x80) || is_digit(c) || c == '_' || c == '.' ||
           c == '-' || c == '@';
}

std::size_t value_size(std::string_view text) noexcept {
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

}  // namespace

Line LineReader::read(std::string_view raw_line) {
    DigitWatch watch{raw_line};
    return read(raw_line, watch);
}

Line LineReader::read(std::string_view raw_line, DigitWatch& watch) {
    if (has_ansi(raw_line)) {
        strip_ansi(raw_line, plain_);
        raw_line = plain_;
    }
    std::string_view text = raw_line;
    if (text.starts_with(bom)) text.remove_prefix(bom.size());
    text = trim(text);
    if (text.empty()) {
        Line line;
        line.message = text;
        return line;
    }
    return inner(text, watch, 0);
}

Line LineReader::inner(std::string_view text, DigitWatch& watch, int depth) {
    Line line;
    const char first = text[0];
    if (first == '{') {
        if (json(text, watch, depth, line)) return line;
        line = Line{};
        line.message = text;
        return line;
    }
    if (is_digit(first)) {
        if (depth == 0 && unwrap_cri(text) && !text.empty()) return inner(text, watch, 1);
        if (const auto message = nginx_message(text); !message.empty()) {
            line = cut_header(text, watch);
            line.component = "nginx";
            line.message = message;
            return line;
        }
    }
    if (is_key(first) && logfmt(text, line)) return line;
    if ((is_digit(first) || first == ':' || (first >= 'a' && first <= 'f')) && access(text, watch, line))
        return line;
    line = cut_header(text, watch);
    if (line.message.starts_with("@cee:")) line.message = trim(line.message.substr(5));
    if (first == '<' && line.message.starts_with('{')) {
        Line from_json;
        if (json(line.message, watch, 1, from_json)) {
            line.message = from_json.message;
            if (from_json.level != Level::unknown) line.level = from_json.level;
        }
        return line;
    }
    // rsyslog writes the line ends within a message as #012.
    for (auto at = line.message.find('#'); at != std::string_view::npos;
         at = line.message.find('#', at + 1)) {
        if (!has_shape(line.message.substr(at), "#000")) continue;
        const auto digits = line.message.substr(at + 1, 3);
        watch.saw(digits);
        if (digits == "012" && at > 0) {
            line.message = line.message.substr(0, at);
            break;
        }
    }
    return line;
}

std::string_view LineReader::joined(std::string_view message, std::string_view error) {
    // zap and logrus put what happened into "error" and only what was tried into "msg".
    if (message.empty()) return error;
    if (error.empty() || error.size() > longest_error || message.find(error) != std::string_view::npos)
        return message;
    joined_.assign(message).append(": ").append(error);
    return joined_;
}

bool LineReader::json(std::string_view text, DigitWatch& watch, int depth, Line& ret) {
    JsonText found;
    if (!read_json(text, found)) return false;
    ret = found.header;
    const auto unescaped = [&](std::string_view part, std::string& buffer) -> std::string_view {
        if (part.find('\\') == std::string_view::npos) return part;
        // \u0041: digits that become text.
        if (part.find("\\u") != std::string_view::npos) watch.refuse();
        unescape_json(part, buffer);
        return buffer;
    };
    if (found.message.empty() && !found.log.empty()) {
        if (found.has_stream && depth == 0) {
            std::string_view line = found.log;
            while (line.ends_with("\\n") || line.ends_with("\\r")) line.remove_suffix(2);
            line = trim(unescaped(line, wrapped_));
            if (line.empty()) return false;
            ret = inner(line, watch, 1);
            return true;
        }
        found.message = found.log;
    }
    const auto message = unescaped(found.message.empty() ? found.template_text : found.message, text_);
    ret.message = joined(message, unescaped(found.error, error_));
    return !ret.message.empty();
}

bool LineReader::logfmt(std::string_view text, Line& ret) {
    std::size_t i = 0;
    while (i < text.size() && is_key(text[i])) ++i;
    if (i >= text.size() || text[i] != '=') return false;
    const auto has = [&](std::string_view key) {
        const auto at = text.find(key);
        return at == 0 || (at != std::string_view::npos && text[at - 1] == ' ');
    };
    if (!has("level=") && !has("lvl=") && !has("severity=") && !has("msg=") && !has("message=")) return false;
    const auto plain = [](std::string_view value, std::string& buffer) -> std::string_view {
        if (value.empty() || value[0] != '"') return value;
        value.remove_prefix(1);
        if (value.ends_with('"')) value.remove_suffix(1);
        if (value.find('\\') == std::string_view::npos) return value;
        buffer.clear();
        for (std::size_t k = 0; k < value.size(); ++k) {
            const char c = value[k];
            if (c != '\\' || k + 1 == value.size()) {
                buffer += c;
                continue;
            }
            const char next = value[++k];
            buffer += next == 'n' ? '\n' : next == 't' ? '\t' : next == 'r' ? '\r' : next;
        }
        return buffer;
    };
    std::string_view message, error;
    for (i = 0; i < text.size();) {
        if (text[i] == ' ') {
            ++i;
            continue;
        }
        const std::size_t from = i;
        while (i < text.size() && is_key(text[i])) ++i;
        if (i == from || i >= text.size() || text[i] != '=') {
            while (i < text.size() && text[i] != ' ') ++i;
            continue;
        }
        const auto key = text.substr(from, i - from);
        ++i;
        const auto size = value_size(text.substr(i));
        const auto value = text.substr(i, size);
        i += size;
        if (key == "msg" || key == "message") {
            message = plain(value, text_);
        } else if (key == "err" || key == "error" || key == "exception") {
            error = plain(value, error_);
        } else if (key == "time" || key == "ts" || key == "timestamp") {
            ret.timestamp = value;
        } else if (key == "level" || key == "lvl" || key == "severity") {
            ret.level = parse_level(plain(value, joined_));
        } else if (key == "caller" || key == "logger" || key == "component" || key == "module") {
            ret.component = value;
        } else if (key == "host" || key == "hostname") {
            ret.host = value;
        }
    }
    ret.message = joined(message, error);
    if (!ret.message.empty()) return true;
    ret = Line{};
    return false;
}

bool LineReader::access(std::string_view text, DigitWatch& watch, Line& ret) {
    // A search for the bracket alone stops less often than one for the blank before it.
    std::size_t open = text.substr(0, 130).find('[');
    while (open != std::string_view::npos && (open == 0 || text[open - 1] != ' '))
        open = text.substr(0, 130).find('[', open + 1);
    if (open == std::string_view::npos) return false;
    --open;
    const auto close = text.substr(0, open + 44).find("] \"", open);
    if (close == std::string_view::npos) return false;
    const auto request_end = text.find("\" ", close + 3);
    if (request_end == std::string_view::npos || !has_shape(text.substr(request_end), "\" 000")) return false;
    const auto status = text.substr(request_end + 2, 3);
    watch.saw(status.data());
    if (status[0] < '1' || status[0] > '5') return false;
    // Without the query string, which differs at each request.
    auto request = text.substr(close + 3, request_end - close - 3);
    const auto method = take_word(request);
    const auto target = request.substr(0, request.find_first_of("? "));
    text_.assign("HTTP ").append(status).append(": ").append(method).append(" ").append(target);
    ret.timestamp = text.substr(open + 2, close - open - 2);
    ret.host = text.substr(0, text.find(' '));
    ret.level = status[0] == '5' ? Level::error : Level::info;
    ret.message = text_;
    return true;
}

}  // namespace heal::fingerprint
