// JSON for everything that isn't the hot path: Boost.JSON plus field access whose errors name the path.
// Ingest of NDJSON uses simdjson in ingest/ instead. Depth is limited to 32 (Boost.JSON's default), input
// size by the caller.
#pragma once

#include "base/error.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/stream_parser.hpp>
#include <boost/json/value.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace heal {

namespace json = boost::json;

/// Parses one JSON text. errc::invalid_input names `what` and the byte offset of the fault.
result<json::value> parse_json(std::string_view text, std::string_view what);

/// Reads fields of one object and remembers the path for its errors:
///   FieldReader in{object, "strategy"};  auto n = in.required_string("name");  -> "strategy.name: is
///   missing"
class FieldReader {
public:
    FieldReader(const json::object& object, std::string path) : object_(object), path_(std::move(path)) {}

    result<std::string> required_string(std::string_view key) const;
    result<std::int64_t> required_int(std::string_view key, std::int64_t min, std::int64_t max) const;
    /// Missing or null gives the default; a wrong type or range is an error.
    result<std::string> string_or(std::string_view key, std::string fallback) const;
    result<std::int64_t> int_or(
        std::string_view key, std::int64_t fallback, std::int64_t min, std::int64_t max
    ) const;
    result<double> double_or(std::string_view key, double fallback, double min, double max) const;
    result<bool> bool_or(std::string_view key, bool fallback) const;
    /// Null when missing; an error when present and not an object / array.
    result<const json::object*> object_or_null(std::string_view key) const;
    result<const json::array*> array_or_null(std::string_view key) const;

    const std::string& path() const { return path_; }

private:
    Error wrong(std::string_view key, std::string_view expected) const;
    const json::object& object_;
    std::string path_;
};

/// Lenient reads for data that was checked before; the fallback on any mismatch.
std::string_view string_at(const json::object& object, std::string_view key, std::string_view fallback = {});
std::int64_t int_at(const json::object& object, std::string_view key, std::int64_t fallback = 0);
double double_at(const json::object& object, std::string_view key, double fallback = 0);
bool bool_at(const json::object& object, std::string_view key, bool fallback = false);
const json::object& object_at(const json::object& object, std::string_view key);
const json::array& array_at(const json::object& object, std::string_view key);

/// UTF-8 made valid: each broken byte becomes U+FFFD. Everything that leaves over HTTP went through this.
std::string to_valid_utf8(std::string_view bytes);

inline std::string_view view(const json::string& s) { return {s.data(), s.size()}; }

}  // namespace heal
