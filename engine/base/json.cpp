#include "base/json.hpp"

#include <fmt/format.h>

#include <cmath>

namespace heal {

result<json::value> parse_json(std::string_view text, std::string_view what) {
    json::stream_parser parser;
    boost::system::error_code ec;
    const std::size_t used = parser.write_some(text.data(), text.size(), ec);
    if (!ec && parser.done()) {
        for (std::size_t i = used; i < text.size(); ++i) {
            if (std::string_view{" \t\r\n"}.find(text[i]) == std::string_view::npos) {
                return fail(
                    errc::invalid_input,
                    fmt::format("{}: not valid JSON at byte {}: extra text after the value", what, i)
                );
            }
        }
    } else if (!ec) {
        parser.finish(ec);
    }
    if (ec)
        return fail(
            errc::invalid_input, fmt::format("{}: not valid JSON at byte {}: {}", what, used, ec.message())
        );
    return parser.release();
}

Error FieldReader::wrong(std::string_view key, std::string_view expected) const {
    return fail(errc::invalid_input, fmt::format("{}.{}: {}", path_, key, expected));
}

result<std::string> FieldReader::required_string(std::string_view key) const {
    const auto* v = object_.if_contains(key);
    if (!v || v->is_null()) return wrong(key, "is missing; a string is needed");
    if (!v->is_string()) return wrong(key, "must be a string");
    return std::string{view(v->get_string())};
}

result<std::int64_t> FieldReader::required_int(std::string_view key, std::int64_t min, std::int64_t max)
    const {
    if (!object_.contains(key))
        return wrong(key, fmt::format("is missing; an integer from {} to {} is needed", min, max));
    return int_or(key, min, min, max);
}

result<std::string> FieldReader::string_or(std::string_view key, std::string fallback) const {
    const auto* v = object_.if_contains(key);
    if (!v || v->is_null()) return fallback;
    if (!v->is_string()) return wrong(key, "must be a string");
    return std::string{view(v->get_string())};
}

result<std::int64_t> FieldReader::int_or(
    std::string_view key, std::int64_t fallback, std::int64_t min, std::int64_t max
) const {
    const auto* v = object_.if_contains(key);
    if (!v || v->is_null()) return fallback;
    boost::system::error_code ec;
    const auto n = v->is_number() ? v->to_number<std::int64_t>(ec) : 0;
    if (!v->is_number() || ec || n < min || n > max) {
        return wrong(key, fmt::format("must be an integer from {} to {}", min, max));
    }
    return n;
}

result<double> FieldReader::double_or(std::string_view key, double fallback, double min, double max) const {
    const auto* v = object_.if_contains(key);
    if (!v || v->is_null()) return fallback;
    const double n = v->is_number() ? v->to_number<double>() : std::nan("");
    if (!(n >= min && n <= max)) return wrong(key, fmt::format("must be a number from {} to {}", min, max));
    return n;
}

result<bool> FieldReader::bool_or(std::string_view key, bool fallback) const {
    const auto* v = object_.if_contains(key);
    if (!v || v->is_null()) return fallback;
    if (!v->is_bool()) return wrong(key, "must be true or false");
    return v->get_bool();
}

result<const json::object*> FieldReader::object_or_null(std::string_view key) const {
    const auto* v = object_.if_contains(key);
    if (!v || v->is_null()) return static_cast<const json::object*>(nullptr);
    if (!v->is_object()) return wrong(key, "must be an object");
    return &v->get_object();
}

result<const json::array*> FieldReader::array_or_null(std::string_view key) const {
    const auto* v = object_.if_contains(key);
    if (!v || v->is_null()) return static_cast<const json::array*>(nullptr);
    if (!v->is_array()) return wrong(key, "must be an array");
    return &v->get_array();
}

std::string_view string_at(const json::object& object, std::string_view key, std::string_view fallback) {
    const auto* v = object.if_contains(key);
    return v && v->is_string() ? view(v->get_string()) : fallback;
}

std::int64_t int_at(const json::object& object, std::string_view key, std::int64_t fallback) {
    const auto* v = object.if_contains(key);
    if (!v || !v->is_number()) return fallback;
    boost::system::error_code ec;
    const auto n = v->to_number<std::int64_t>(ec);
    return ec ? fallback : n;
}

double double_at(const json::object& object, std::string_view key, double fallback) {
    const auto* v = object.if_contains(key);
    return v && v->is_number() ? v->to_number<double>() : fallback;
}

bool bool_at(const json::object& object, std::string_view key, bool fallback) {
    const auto* v = object.if_contains(key);
    return v && v->is_bool() ? v->get_bool() : fallback;
}

const json::object& object_at(const json::object& object, std::string_view key) {
    static const json::object empty;
    const auto* v = object.if_contains(key);
    return v && v->is_object() ? v->get_object() : empty;
}

const json::array& array_at(const json::object& object, std::string_view key) {
    static const json::array empty;
    const auto* v = object.if_contains(key);
    return v && v->is_array() ? v->get_array() : empty;
}

std::string to_valid_utf8(std::string_view in) {
    std::string out;
    out.reserve(in.size());
    std::size_t i = 0;
    while (i < in.size()) {
        const auto c = static_cast<unsigned char>(in[i]);
        std::size_t n = c < 0x80                   ? 1
                        : (c >= 0xC2 && c <= 0xDF) ? 2
                        : (c >= 0xE0 && c <= 0xEF) ? 3
                        : (c >= 0xF0 && c <= 0xF4) ? 4
                                                   : 0;
        bool ok = n != 0 && i + n <= in.size();
        for (std::size_t k = 1; ok && k < n; ++k)
            ok = (static_cast<unsigned char>(in[i + k]) & 0xC0U) == 0x80U;
        if (ok && n >= 3) {
            const auto d = static_cast<unsigned char>(in[i + 1]);
            // RFC 3629 section 4: no overlong forms, no surrogates, nothing above U+10FFFF.
            if ((c == 0xE0 && d < 0xA0) || (c == 0xED && d > 0x9F) || (c == 0xF0 && d < 0x90) ||
                (c == 0xF4 && d > 0x8F))
                ok = false;
        }
        if (ok) {
            out.append(in.substr(i, n));
            i += n;
        } else {
            out += "\xEF\xBF\xBD";
            ++i;
        }
    }
    return out;
}

}  // namespace heal
