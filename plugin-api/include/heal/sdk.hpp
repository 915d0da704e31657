// C++20 glue over heal/abi.h: a strategy is a plain struct, one macro makes a plugin of it. Header-only; needs the standard library
// and abi.h. It deliberately knows no effect by itself: the typed words of `call` are spelled out as {kind, parameters}, so
// that `perform` reaches everything a newer host offers.
//
//   #include <heal/sdk.hpp>
//   struct reload_nginx {
//       static constexpr heal::descriptor about{.name = "acme.reload-nginx", .summary = "Reloads nginx", .risk = heal::risk::safe,
//           .idempotent = true, .matches = R"([{"service": "nginx"}])", .capabilities = {"exec:/usr/sbin/nginx"}};
//       heal::outcome execute(const heal::request& rq, heal::call& call) {
//           const auto r = call.exec({.argv = {"/usr/sbin/nginx", "-s", "reload"}});
//           return r.ok() ? heal::outcome::succeeded("reloaded") : heal::outcome::failed(r.error_output);
//       }
//   };
//   HEAL_PLUGIN(reload_nginx)
//
// Optional members: `double assess(const heal::request&, heal::call&)`, `heal::outcome verify(…)`, `heal::outcome rollback(…)` (both as
// execute), `static heal::parameters parameters()`, a constructor from `const heal::json& config`.
// Exceptions are fine: one that leaves a member becomes `failed` with its text. An effect that fails throws heal::effect_error,
// a cancelled call throws heal::cancelled_error at its next effect.
#pragma once

#include <heal/abi.h>

#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace heal {

/// A JSON value: null, bool, 64-bit integer, double, string, array, object (keeps order, last of equal keys wins on parse).
/// Reading never throws: a missing member or a wrong type gives null or the fallback.
class json {
public:
    using member = std::pair<std::string, json>;

    json() = default;
    json(std::nullptr_t) {}
    json(bool v) : value_(v) {}
    template <std::integral T>
        requires(!std::same_as<T, bool> && !std::same_as<T, char>)
    json(T v) : value_(static_cast<std::int64_t>(v)) {}
    json(double v) : value_(v) {}
    json(const char* v) : value_(std::string(v)) {}
    json(std::string_view v) : value_(std::string(v)) {}
    json(std::string v) : value_(std::move(v)) {}
    template <class T>
        requires std::constructible_from<json, T>
    json(const std::vector<T>& items) : value_(std::vector<json>(items.begin(), items.end())) {}

    /// json::object({{"a", 1}, {"b", "x"}})
    static json object(std::initializer_list<member> members = {}) {
        json j;
        j.value_ = std::vector<member>(members);
        return j;
    }
    /// json::array({1, "x", nullptr})
    static json array(std::initializer_list<json> items = {}) {
        json j;
        j.value_ = std::vector<json>(items);
        return j;
    }

    /// Throws std::invalid_argument with the byte offset. At most 64 levels deep.
    static json parse(std::string_view text) {
        parser p{text};
        json value = p.value(0);
        p.skip();
        if (p.at != text.size()) p.fail("extra text after the value");
        return value;
    }

    bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
    bool is_bool() const { return std::holds_alternative<bool>(value_); }
    bool is_int() const { return std::holds_alternative<std::int64_t>(value_); }
    bool is_number() const { return is_int() || std::holds_alternative<double>(value_); }
    bool is_string() const { return std::holds_alternative<std::string>(value_); }
    bool is_array() const { return std::holds_alternative<std::vector<json>>(value_); }
    bool is_object() const { return std::holds_alternative<std::vector<member>>(value_); }
    explicit operator bool() const { return !is_null(); }

    bool bool_or(bool fallback) const { return is_bool() ? std::get<bool>(value_) : fallback; }
    /// A double is taken when it is whole and fits.
    std::int64_t int_or(std::int64_t fallback) const {
        if (is_int()) return std::get<std::int64_t>(value_);
        if (const auto* d = std::get_if<double>(&value_); d && *d == std::floor(*d) && std::abs(*d) < 9.2e18) {
            return static_cast<std::int64_t>(*d);
        }
        return fallback;
    }
    double number_or(double fallback) const {
        if (is_int()) return static_cast<double>(std::get<std::int64_t>(value_));
        return is_number() ? std::get<double>(value_) : fallback;
    }
    std::string string_or(std::string_view fallback) const { return is_string() ? std::get<std::string>(value_) : std::string(fallback); }
    /// Valid as long as this value lives unchanged; empty when it is no string.
    std::string_view view() const { return is_string() ? std::string_view(std::get<std::string>(value_)) : std::string_view(); }

    /// Elements of an array, nothing otherwise.
    const std::vector<json>& items() const {
        static const std::vector<json> none;
        return is_array() ? std::get<std::vector<json>>(value_) : none;
    }
    /// Members of an object, nothing otherwise.
    const std::vector<member>& members() const {
        static const std::vector<member> none;
        return is_object() ? std::get<std::vector<member>>(value_) : none;
    }
    std::size_t size() const { return is_array() ? items().size() : members().size(); }
    bool contains(std::string_view key) const { return find(key) != nullptr; }

    const json& operator[](std::string_view key) const {
        const json* found = find(key);
        return found ? *found : null();
    }
    const json& operator[](const char* key) const { return (*this)[std::string_view(key)]; }
    const json& operator[](std::size_t index) const { return index < items().size() ? items()[index] : null(); }
    const json& operator[](int index) const { return index < 0 ? null() : (*this)[static_cast<std::size_t>(index)]; }
    /// "process.command.0": a way through objects and arrays; null where it ends.
    const json& at_path(std::string_view path) const {
        const json* here = this;
        while (!path.empty()) {
            const auto dot = path.find('.');
            const auto key = path.substr(0, dot);
            path = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
            if (here->is_array()) {
                std::size_t index = 0;
                const auto r = std::from_chars(key.data(), key.data() + key.size(), index);
                if (r.ec != std::errc() || r.ptr != key.data() + key.size()) return null();
                here = &(*here)[index];
            } else {
                here = &(*here)[key];
            }
        }
        return *here;
    }
    /// Every string of an array of strings; other elements are left out. A single string gives one.
    std::vector<std::string> strings() const {
        std::vector<std::string> out;
        if (is_string()) out.push_back(string_or(""));
        for (const json& item : items()) {
            if (item.is_string()) out.push_back(item.string_or(""));
        }
        return out;
    }

    /// Sets a member; a null becomes an object first. Throws std::logic_error on other types.
    json& set(std::string_view key, json value) {
        if (is_null()) value_ = std::vector<member>();
        if (!is_object()) throw std::logic_error("heal::json: set() needs an object");
        auto& all = std::get<std::vector<member>>(value_);
        for (auto& [name, old] : all) {
            if (name == key) {
                old = std::move(value);
                return *this;
            }
        }
        all.emplace_back(std::string(key), std::move(value));
        return *this;
    }
    /// Appends; a null becomes an array first. Throws std::logic_error on other types.
    json& push(json value) {
        if (is_null()) value_ = std::vector<json>();
        if (!is_array()) throw std::logic_error("heal::json: push() needs an array");
        std::get<std::vector<json>>(value_).push_back(std::move(value));
        return *this;
    }

    /// JSON text without blanks. Bytes that are not UTF-8 are kept: the host replaces them.
    std::string dump() const {
        std::string out;
        write(out);
        return out;
    }

    bool operator==(const json& other) const { return value_ == other.value_; }

private:
    static const json& null() {
        static const json none;
        return none;
    }
    const json* find(std::string_view key) const {
        for (const auto& [name, value] : members()) {
            if (name == key) return &value;
        }
        return nullptr;
    }
    static void write_string(std::string& out, std::string_view text) {
        out += '"';
        for (const char c : text) {
            switch (c) {
                case '"': out += "\\\""; break;
                case '\\': out += "\\\\"; break;
                case '\n': out += "\\n"; break;
                case '\r': out += "\\r"; break;
                case '\t': out += "\\t"; break;
                default:
                    if (static_cast<unsigned char>(c) < 0x20) {
                        char buffer[8];
                        std::snprintf(buffer, sizeof buffer, "\\u%04x", static_cast<unsigned>(c));
                        out += buffer;
                    } else {
                        out += c;
                    }
            }
        }
        out += '"';
    }
    void write(std::string& out) const {
        if (is_null()) {
            out += "null";
        } else if (is_bool()) {
            out += std::get<bool>(value_) ? "true" : "false";
        } else if (is_int()) {
            out += std::to_string(std::get<std::int64_t>(value_));
        } else if (const auto* d = std::get_if<double>(&value_)) {
            if (!std::isfinite(*d)) {
                out += "null";  // JSON has no word for it (RFC 8259 section 6)
                return;
            }
            char buffer[40];
            const auto r = std::to_chars(buffer, buffer + sizeof buffer, *d);
            out.append(buffer, r.ptr);
        } else if (is_string()) {
            write_string(out, std::get<std::string>(value_));
        } else if (is_array()) {
            out += '[';
            bool first = true;
            for (const json& item : items()) {
                if (!first) out += ',';
                first = false;
                item.write(out);
            }
            out += ']';
        } else {
            out += '{';
            bool first = true;
            for (const auto& [key, item] : members()) {
                if (!first) out += ',';
                first = false;
                write_string(out, key);
                out += ':';
                item.write(out);
            }
            out += '}';
        }
    }

    struct parser {
        std::string_view text;
        std::size_t at = 0;

        [[noreturn]] void fail(const char* what) const {
            throw std::invalid_argument("not valid JSON at byte " + std::to_string(at) + ": " + what);
        }
        void skip() {
            while (at < text.size() && (text[at] == ' ' || text[at] == '\t' || text[at] == '\n' || text[at] == '\r')) ++at;
        }
        bool take(std::string_view word) {
            if (text.substr(at, word.size()) != word) return false;
            at += word.size();
            return true;
        }
        json value(int depth) {
            if (depth > 64) fail("deeper than 64 levels");
            skip();
            if (at >= text.size()) fail("text ends early");
            const char c = text[at];
            if (c == '{') {
                ++at;
                json out = object();
                skip();
                if (take("}")) return out;
                for (;;) {
                    skip();
                    if (at >= text.size() || text[at] != '"') fail("a member's name is expected");
                    std::string key = string();
                    skip();
                    if (!take(":")) fail("':' is expected");
                    out.set(key, value(depth + 1));
                    skip();
                    if (take("}")) return out;
                    if (!take(",")) fail("',' or '}' is expected");
                }
            }
            if (c == '[') {
                ++at;
                json out = array();
                skip();
                if (take("]")) return out;
                for (;;) {
                    out.push(value(depth + 1));
                    skip();
                    if (take("]")) return out;
                    if (!take(",")) fail("',' or ']' is expected");
                }
            }
            if (c == '"') return json(string());
            if (take("true")) return json(true);
            if (take("false")) return json(false);
            if (take("null")) return json();
            return number();
        }
        json number() {
            const std::size_t from = at;
            while (at < text.size() && std::string_view("+-0123456789.eE").find(text[at]) != std::string_view::npos) ++at;
            const char* b = text.data() + from;
            const char* e = text.data() + at;
            if (b == e) fail("a value is expected");
            std::int64_t whole = 0;
            if (const auto r = std::from_chars(b, e, whole); r.ec == std::errc() && r.ptr == e) return json(whole);
            double real = 0;
            if (const auto r = std::from_chars(b, e, real); r.ec == std::errc() && r.ptr == e) return json(real);
            at = from;
            fail("not a number");
        }
        unsigned hex4() {
            unsigned v = 0;
            if (at + 4 > text.size()) fail("text ends early");
            const auto r = std::from_chars(text.data() + at, text.data() + at + 4, v, 16);
            if (r.ptr != text.data() + at + 4) fail("four hex digits are expected");
            at += 4;
            return v;
        }
        static void utf8(std::string& out, unsigned c) {
            if (c < 0x80) {
                out += static_cast<char>(c);
            } else if (c < 0x800) {
                out += static_cast<char>(0xC0U | (c >> 6U));
                out += static_cast<char>(0x80U | (c & 0x3FU));
            } else if (c < 0x10000) {
                out += static_cast<char>(0xE0U | (c >> 12U));
                out += static_cast<char>(0x80U | ((c >> 6U) & 0x3FU));
                out += static_cast<char>(0x80U | (c & 0x3FU));
            } else {
                out += static_cast<char>(0xF0U | (c >> 18U));
                out += static_cast<char>(0x80U | ((c >> 12U) & 0x3FU));
                out += static_cast<char>(0x80U | ((c >> 6U) & 0x3FU));
                out += static_cast<char>(0x80U | (c & 0x3FU));
            }
        }
        std::string string() {
            std::string out;
            ++at;
            while (true) {
                if (at >= text.size()) fail("a string is not closed");
                const char c = text[at++];
                if (c == '"') return out;
                if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a string");
                if (c != '\\') {
                    out += c;
                    continue;
                }
                if (at >= text.size()) fail("text ends early");
                switch (text[at++]) {
                    case '"': out += '"'; break;
                    case '\\': out += '\\'; break;
                    case '/': out += '/'; break;
                    case 'b': out += '\b'; break;
                    case 'f': out += '\f'; break;
                    case 'n': out += '\n'; break;
                    case 'r': out += '\r'; break;
                    case 't': out += '\t'; break;
                    case 'u': {
                        unsigned code = hex4();
                        if (code >= 0xD800 && code < 0xDC00 && text.substr(at, 2) == "\\u") {
                            at += 2;
                            const unsigned low = hex4();
                            if (low < 0xDC00 || low > 0xDFFF) fail("half a surrogate pair");
                            code = 0x10000 + ((code - 0xD800) << 10U) + (low - 0xDC00);
                        } else if (code >= 0xD800 && code < 0xE000) {
                            code = 0xFFFD;
                        }
                        utf8(out, code);
                        break;
                    }
                    default: --at; fail("an unknown escape");
                }
            }
        }
    };

    std::variant<std::monostate, bool, std::int64_t, double, std::string, std::vector<json>, std::vector<member>> value_;
};

enum class risk { safe, disruptive, destructive };

/// Facts about a strategy; what is not set has the default shown. Literals only, so that it can be constexpr.
struct descriptor {
    std::string_view name;              ///< unique over all artifacts: lower-case words, digits, '.', '-', '_'; at most 64
    std::string_view version = "0.1.0";
    std::string_view summary = "";      ///< one sentence for people
    std::int64_t priority = 50;         ///< higher first, 0 … 1000; configuration overrides it
    double confidence = 0.5;            ///< in [0,1], when it has no assess
    double confidence_floor = 0;        ///< below it the strategy is out
    heal::risk risk = heal::risk::disruptive;
    bool idempotent = false;            ///< running twice does no more than once
    bool reversible = false;            ///< every effect it performs can be undone
    std::chrono::milliseconds timeout{30'000};  ///< of one execute, 1 ms … 1 h
    /// JSON array; any of them must fit (docs/plugin-guide.md, "Matches"). Empty: it is asked for nothing.
    std::string_view matches = "[]";
    /// Up to 32; "exec:/usr/bin/systemctl", "file:/etc/app/**", "net:127.0.0.1:6379", "signal:…" ("Capabilities").
    std::array<std::string_view, 32> capabilities{};
};

/// One declared parameter of the configuration; becomes a property of a JSON Schema that heald checks before the strategy sees it.
///   static heal::parameters parameters() { return {heal::integer("grace_s").range(0, 600).by_default(5).unit("s")}; }
class parameter {
public:
    parameter(std::string_view name, std::string_view type) : name_(name) { schema_.set("type", type); }
    parameter& summary(std::string_view text) { return with("description", text); }
    parameter& unit(std::string_view text) { return with("unit", text); }
    parameter& by_default(json value) { return with("default", std::move(value)); }
    parameter& range(double min, double max) { return with("minimum", whole(min)).with("maximum", whole(max)); }
    parameter& one_of(std::vector<std::string> words) { return with("enum", json(words)); }
    parameter& items(std::string_view type) { return with("items", json::object({{"type", type}})); }
    parameter& required() {
        required_ = true;
        return *this;
    }
    const std::string& name() const { return name_; }
    const json& schema() const { return schema_; }
    bool is_required() const { return required_; }

private:
    static json whole(double v) { return v == std::floor(v) ? json(static_cast<std::int64_t>(v)) : json(v); }
    parameter& with(std::string_view key, json value) {
        schema_.set(key, std::move(value));
        return *this;
    }
    std::string name_;
    json schema_ = json::object();
    bool required_ = false;
};
using parameters = std::vector<parameter>;
inline parameter integer(std::string_view name) { return {name, "integer"}; }
inline parameter number(std::string_view name) { return {name, "number"}; }
inline parameter text(std::string_view name) { return {name, "string"}; }
inline parameter boolean(std::string_view name) { return {name, "boolean"}; }
inline parameter list(std::string_view name) { return {name, "array"}; }
inline parameter table(std::string_view name) { return {name, "object"}; }

/// What a strategy sees of an attempt. Text in it comes from logs: never run it, never put it into a command.
class request {
public:
    explicit request(json all) : all_(std::move(all)) {}
    const json& all() const { return all_; }
    std::string attempt() const { return all_["attempt"].string_or(""); }
    /// fingerprint, service, environment, level, message, error_type, stack_trace, pattern, count, context, …
    const json& incident() const { return all_["incident"]; }
    /// Facts of the inventory: process, redis, config, probes, … Written by the operator.
    const json& target() const { return all_["target"]; }
    /// The configuration, checked against the declared parameters, defaults filled in.
    const json& config() const { return all_["config"]; }
    bool dry_run() const { return all_["dry_run"].bool_or(false); }
    std::string service() const { return incident()["service"].string_or(""); }
    std::string message() const { return incident()["message"].string_or(""); }

private:
    json all_;
};

/// How execute, verify or rollback ended.
class outcome {
public:
    static outcome succeeded(std::string text = "", json detail = {}) { return {HEAL_OK, std::move(text), std::move(detail)}; }
    static outcome failed(std::string text, json detail = {}) { return {HEAL_FAILED, std::move(text), std::move(detail)}; }
    static outcome declined(std::string text, json detail = {}) { return {HEAL_DECLINED, std::move(text), std::move(detail)}; }
    static outcome retry(std::string text, json detail = {}) { return {HEAL_RETRY, std::move(text), std::move(detail)}; }
    static outcome cancelled(std::string text = "cancelled") { return {HEAL_CANCELLED, std::move(text), {}}; }

    std::int32_t status;
    std::string text;
    json detail;

    outcome(std::int32_t s, std::string t, json d) : status(s), text(std::move(t)), detail(std::move(d)) {}
};

/// An effect that could not be performed; status() is one of HEAL_*.
class effect_error : public std::runtime_error {
public:
    effect_error(std::int32_t status, const std::string& text) : std::runtime_error(text), status_(status) {}
    std::int32_t status() const { return status_; }

private:
    std::int32_t status_;
};
/// The call was cancelled, or its deadline came, while an effect ran.
class cancelled_error : public effect_error {
public:
    explicit cancelled_error(const std::string& text) : effect_error(HEAL_CANCELLED, text) {}
};

// ---- Parameters and results of effects. Paths are absolute. What each needs as capability: docs/plugin-guide.md, "Effects". ----

struct exec_options {
    std::vector<std::string> argv;                              ///< argv[0]: absolute path; never a shell by itself
    std::string cwd = "";                                       ///< default "/"
    std::vector<std::pair<std::string, std::string>> env = {};  ///< added to PATH and LANG; nothing else is inherited
    std::string user = "";                                      ///< run as this user (only when heald is root)
    std::chrono::milliseconds timeout{0};                       ///< 0: what remains of the call
    std::vector<std::string> inverse = {};                      ///< argv that takes it back; makes the effect undoable
};
struct exec_result {
    int exit_code = -1;  ///< -1: ended by a signal
    int signal = 0;
    bool timed_out = false, skipped = false;  ///< skipped: dry-run; exit_code is 0 then
    std::string output, error_output;         ///< first 32 KiB of each
    bool ok() const { return exit_code == 0 && !timed_out; }
};
struct start_options {
    std::vector<std::string> argv;
    std::string cwd = "";
    std::vector<std::pair<std::string, std::string>> env = {};
    std::string user = "";
    std::string pid_file = "";  ///< written atomically with the daemon's pid
    std::string log_file = "";  ///< stdout and stderr are appended to it; default /dev/null
};
struct process_facts {
    bool alive = false;
    std::int64_t pid = 0;
    std::int64_t start_time = 0;  ///< clock ticks since boot (proc(5) field 22): with the pid it names one process for ever
    std::vector<std::string> command;
    std::string state;  ///< proc(5): R S D Z T …
    std::int64_t rss_bytes = 0;
};
struct signal_options {
    std::int64_t pid = 0;       ///< either this …
    std::string pid_file = "";  ///< … or a file that holds it
    std::int64_t start_time = 0;  ///< from process_info; the signal is refused when the pid belongs to a younger process
    std::string command = "";     ///< argv[0] or its last part must equal this, when set
    std::string signal = "TERM";  ///< TERM, HUP, INT, QUIT, USR1, USR2, KILL, CONT, STOP, WINCH
    std::chrono::milliseconds wait{0};        ///< wait so long for its end
    std::chrono::milliseconds kill_after{0};  ///< then KILL and wait again; 0: no
};
struct http_options {
    std::string method = "GET";
    std::string url;
    std::vector<std::pair<std::string, std::string>> headers = {};
    std::string body = "";
    std::chrono::milliseconds timeout{5'000};
    std::string unix_socket = "";
    bool read_only = false;  ///< a method other than GET, HEAD, OPTIONS that changes nothing
};
struct http_response {
    int status = 0;
    std::string body;  ///< first 32 KiB
    std::vector<std::pair<std::string, std::string>> headers;
    bool skipped = false;
    bool ok() const { return status >= 200 && status < 300; }
};

/// The running call: time, log, effects. Lives only during it.
class call {
public:
    call(const heal_host* host, const heal_call* raw) : host_(host), raw_(raw) {
        if (host && host->get_extension) {
            effects_ = static_cast<const heal_effects_1*>(host->get_extension(host->ctx, HEAL_EXT_EFFECTS_1));
        }
    }

    bool is_cancelled() const { return raw_->is_cancelled(raw_->ctx); }
    std::chrono::milliseconds remaining() const { return std::chrono::milliseconds(raw_->remaining_ms(raw_->ctx)); }

    void log(std::int32_t level, std::string_view message, const json& fields = {}) const {
        const std::string text = fields.is_null() ? std::string() : fields.dump();
        host_->log(host_->ctx, level, {message.data(), message.size()}, {text.data(), text.size()});
    }
    void info(std::string_view message, const json& fields = {}) const { log(HEAL_LOG_INFO, message, fields); }
    void warn(std::string_view message, const json& fields = {}) const { log(HEAL_LOG_WARN, message, fields); }

    /// Any effect by its name. Throws effect_error, cancelled_error.
    json perform(std::string_view kind, const json& values = json::object()) {
        if (!effects_) throw effect_error(HEAL_UNSUPPORTED, "this host offers no effects (" HEAL_EXT_EFFECTS_1 ")");
        const std::string text = values.dump();
        std::string result, error;
        const heal_sink result_sink{&result, &append};
        const heal_sink error_sink{&error, &append};
        const std::int32_t status =
            effects_->perform(raw_, {kind.data(), kind.size()}, {text.data(), text.size()}, &result_sink, &error_sink);
        if (status == HEAL_CANCELLED) throw cancelled_error(error);
        if (status != HEAL_OK) throw effect_error(status, error);
        return result.empty() ? json::object() : json::parse(result);
    }

    // Commands and processes.
    exec_result exec(const exec_options& o) {
        json p = json::object({{"argv", json(o.argv)}});
        common(p, o.cwd, o.env, o.user);
        if (o.timeout.count() > 0) p.set("timeout_ms", o.timeout.count());
        if (!o.inverse.empty()) p.set("inverse", json(o.inverse));
        const json r = perform("exec", p);
        return {static_cast<int>(r["exit_code"].int_or(-1)), static_cast<int>(r["signal"].int_or(0)), r["timed_out"].bool_or(false),
                r["skipped"].bool_or(false), r["output"].string_or(""), r["error_output"].string_or("")};
    }
    /// Starts a daemon that outlives heald; undone by stopping exactly that process.
    process_facts start_process(const start_options& o) {
        json p = json::object({{"argv", json(o.argv)}});
        common(p, o.cwd, o.env, o.user);
        if (!o.pid_file.empty()) p.set("pid_file", o.pid_file);
        if (!o.log_file.empty()) p.set("log_file", o.log_file);
        return facts(perform("start_process", p));
    }
    /// Never signals a recycled pid. Result: true when the process ended within `wait` (or is gone), or when wait is 0.
    bool signal(const signal_options& o) {
        json p = json::object({{"signal", o.signal}});
        if (o.pid > 0) p.set("pid", o.pid);
        if (!o.pid_file.empty()) p.set("pid_file", o.pid_file);
        if (o.start_time > 0) p.set("start_time", o.start_time);
        if (!o.command.empty()) p.set("command", o.command);
        if (o.wait.count() > 0) p.set("wait_ms", o.wait.count());
        if (o.kill_after.count() > 0) p.set("kill_after_ms", o.kill_after.count());
        return perform("signal", p)["ended"].bool_or(true);
    }
    process_facts process_info(std::int64_t pid) { return facts(perform("process_info", json::object({{"pid", pid}}))); }
    process_facts process_of(const std::string& pid_file) { return facts(perform("process_info", json::object({{"pid_file", pid_file}}))); }
    /// systemctl VERB UNIT; verbs: start stop restart reload try-restart reload-or-restart reset-failed is-active status.
    exec_result systemd(std::string_view verb, std::string_view unit) {
        const json r = perform("systemd", json::object({{"verb", verb}, {"unit", unit}}));
        return {static_cast<int>(r["exit_code"].int_or(-1)), 0, r["timed_out"].bool_or(false), r["skipped"].bool_or(false),
                r["output"].string_or(""), r["error_output"].string_or("")};
    }
    /// Verbs: start stop restart kill pause unpause inspect.
    json docker(std::string_view verb, std::string_view container) {
        return perform("docker", json::object({{"verb", verb}, {"container", container}}));
    }

    // Files.
    /// Throws effect_error (HEAL_FAILED) when it is missing; at most 256 KiB.
    std::string read_file(std::string_view path) { return perform("read_file", json::object({{"path", path}}))["content"].string_or(""); }
    std::optional<std::string> try_read_file(std::string_view path) {
        const json r = perform("read_file", json::object({{"path", path}, {"missing_ok", true}}));
        if (!r["exists"].bool_or(true)) return std::nullopt;
        return r["content"].string_or("");
    }
    /// Atomic; mode and owner of an existing file are kept; the former content is saved and comes back on undo.
    void write_file(std::string_view path, std::string_view content, std::optional<unsigned> mode = std::nullopt) {
        json p = json::object({{"path", path}, {"content", content}});
        if (mode) p.set("mode", static_cast<std::int64_t>(*mode));
        perform("write_file", p);
    }
    /// Atomic copy of a file of up to 64 MiB, with mode and owner; what was at `to` comes back on undo.
    void copy_file(std::string_view from, std::string_view to) { perform("copy_file", json::object({{"from", from}, {"to", to}})); }
    void move_file(std::string_view from, std::string_view to) { perform("move_file", json::object({{"from", from}, {"to", to}})); }
    void remove_file(std::string_view path) { perform("remove_file", json::object({{"path", path}})); }
    /// [{"name", "type": "file"|"folder"|"link"|"other", "bytes", "modified_us"}], sorted by name, at most 1000.
    std::vector<json> list_files(std::string_view folder) { return perform("list_files", json::object({{"path", folder}}))["files"].items(); }

    // Network.
    http_response http(const http_options& o) {
        json p = json::object({{"method", o.method}, {"url", o.url}, {"timeout_ms", o.timeout.count()}});
        if (!o.headers.empty()) p.set("headers", pairs(o.headers));
        if (!o.body.empty()) p.set("body", o.body);
        if (!o.unix_socket.empty()) p.set("unix_socket", o.unix_socket);
        if (o.read_only) p.set("read_only", true);
        const json r = perform("http", p);
        http_response out{static_cast<int>(r["status"].int_or(0)), r["body"].string_or(""), {}, r["skipped"].bool_or(false)};
        for (const auto& [name, value] : r["headers"].members()) out.headers.emplace_back(name, value.string_or(""));
        return out;
    }
    /// Whether something accepts connections at "host:port" or "unix:/path".
    bool tcp_check(std::string_view address, std::chrono::milliseconds timeout = std::chrono::milliseconds(1000)) {
        return perform("tcp_check", json::object({{"address", address}, {"timeout_ms", timeout.count()}}))["open"].bool_or(false);
    }
    /// One command per list; replies in the same order: string, integer, null, array, or {"error": text}.
    std::vector<json> redis(std::string_view address, const std::vector<std::vector<std::string>>& commands, std::string_view password = "") {
        json all = json::array();
        for (const auto& words : commands) all.push(json(words));
        json p = json::object({{"address", address}, {"commands", std::move(all)}});
        if (!password.empty()) p.set("password", password);
        return perform("redis", p)["replies"].items();
    }
    /// One command line per element ("flush_all", "stats", "get a b", "delete a"); replies as text.
    std::vector<std::string> memcached(std::string_view address, const std::vector<std::string>& commands) {
        return perform("memcached", json::object({{"address", address}, {"commands", json(commands)}}))["replies"].strings();
    }
    /// Runs one SQL text by the engine's own client, "psql" or "sqlite3"; `database` is a connection URL without password or a file.
    exec_result sql(std::string_view client, std::string_view database, std::string_view statement) {
        const json r = perform("sql", json::object({{"client", client}, {"database", database}, {"statement", statement}}));
        return {static_cast<int>(r["exit_code"].int_or(-1)), 0, r["timed_out"].bool_or(false), r["skipped"].bool_or(false),
                r["output"].string_or(""), r["error_output"].string_or("")};
    }

    // The strategy's own memory: durable, per strategy, at most 1000 keys of 64 KiB; keys are letters, digits, '.', '-', '_'.
    std::optional<std::string> state_get(std::string_view key) {
        const json r = perform("state_get", json::object({{"key", key}}));
        if (!r["exists"].bool_or(false)) return std::nullopt;
        return r["value"].string_or("");
    }
    void state_put(std::string_view key, std::string_view value) { perform("state_put", json::object({{"key", key}, {"value", value}})); }
    void state_remove(std::string_view key) { perform("state_put", json::object({{"key", key}, {"value", nullptr}})); }

    // Time and progress. Throws cancelled_error when the call is cancelled meanwhile; a dry-run does not wait.
    void sleep(std::chrono::milliseconds span) { perform("sleep", json::object({{"ms", span.count()}})); }
    void sleep_until(std::int64_t us_since_epoch) { perform("sleep_until", json::object({{"time_us", us_since_epoch}})); }
    void progress(double fraction, std::string_view message = "") {
        perform("progress", json::object({{"fraction", fraction}, {"message", message}}));
    }

private:
    static bool append(void* ctx, heal_str chunk) {
        static_cast<std::string*>(ctx)->append(chunk.data ? chunk.data : "", chunk.size);
        return true;
    }
    static json pairs(const std::vector<std::pair<std::string, std::string>>& all) {
        json out = json::object();
        for (const auto& [key, value] : all) out.set(key, value);
        return out;
    }
    static void common(json& p, const std::string& cwd, const std::vector<std::pair<std::string, std::string>>& env, const std::string& user) {
        if (!cwd.empty()) p.set("cwd", cwd);
        if (!env.empty()) p.set("env", pairs(env));
        if (!user.empty()) p.set("user", user);
    }
    static process_facts facts(const json& r) {
        return {r["alive"].bool_or(false), r["pid"].int_or(0), r["start_time"].int_or(0), r["command"].strings(), r["state"].string_or(""),
                r["rss_bytes"].int_or(0)};
    }

    const heal_host* host_;
    const heal_call* raw_;
    const heal_effects_1* effects_ = nullptr;
};

namespace detail {

template <class S>
concept has_about = requires { { S::about.name } -> std::convertible_to<std::string_view>; };
template <class S>
concept has_execute = requires(S& s, const request& r, call& c) { { s.execute(r, c) } -> std::same_as<outcome>; };
template <class S>
concept has_assess = requires(S& s, const request& r, call& c) { { s.assess(r, c) } -> std::convertible_to<double>; };
template <class S>
concept has_verify = requires(S& s, const request& r, call& c) { { s.verify(r, c) } -> std::same_as<outcome>; };
template <class S>
concept has_rollback = requires(S& s, const request& r, call& c) { { s.rollback(r, c) } -> std::same_as<outcome>; };
template <class S>
concept has_parameters = requires { { S::parameters() } -> std::convertible_to<parameters>; };
template <class S>
concept makeable = std::default_initializable<S> || std::constructible_from<S, const json&>;

// Finds members of the right name whose signature is wrong: a name that is ambiguous between S and this base is one S has.
struct names {
    int assess, verify, rollback, parameters;
};
template <class S>
struct probe : S, names {};
template <class S>
concept lacks_assess = requires { &probe<S>::assess; };
template <class S>
concept lacks_verify = requires { &probe<S>::verify; };
template <class S>
concept lacks_rollback = requires { &probe<S>::rollback; };
template <class S>
concept lacks_parameters = requires { &probe<S>::parameters; };

template <class S>
consteval bool check() {
    static_assert(has_about<S>, "heal: the strategy needs `static constexpr heal::descriptor about{.name = \"...\", ...};`");
    static_assert(has_execute<S>, "heal: the strategy needs `heal::outcome execute(const heal::request&, heal::call&)`");
    static_assert(has_assess<S> || lacks_assess<S>, "heal: assess must be `double assess(const heal::request&, heal::call&)`");
    static_assert(has_verify<S> || lacks_verify<S>, "heal: verify must be `heal::outcome verify(const heal::request&, heal::call&)`");
    static_assert(has_rollback<S> || lacks_rollback<S>, "heal: rollback must be `heal::outcome rollback(const heal::request&, heal::call&)`");
    static_assert(has_parameters<S> || lacks_parameters<S>, "heal: parameters must be `static heal::parameters parameters()`");
    static_assert(makeable<S>, "heal: the strategy needs a default constructor or one from `const heal::json& config`");
    static_assert(!std::is_final_v<S>, "heal: the strategy must not be final");
    return true;
}

inline void put(const heal_sink* sink, std::string_view text) noexcept {
    if (sink && sink->write) sink->write(sink->ctx, {text.data(), text.size()});
}
inline std::string_view borrowed(heal_str text) { return text.data ? std::string_view(text.data, text.size) : std::string_view(); }

/// Runs `body`, turning whatever it throws into a status and a text.
template <class Body>
std::int32_t guarded(const heal_sink* error, Body&& body) noexcept {
    try {
        return body();
    } catch (const effect_error& e) {
        put(error, e.what());
        return e.status() == HEAL_CANCELLED ? HEAL_CANCELLED : HEAL_FAILED;
    } catch (const std::exception& e) {
        put(error, e.what());
        return HEAL_FAILED;
    } catch (...) {
        put(error, "the strategy threw something that is not a std::exception");
        return HEAL_FAILED;
    }
}

/// One instance behind the C struct.
template <class S>
class holder {
public:
    holder(const heal_host* host, const json& config) : strategy_(make(config)), host_(host) {
        raw_.struct_size = sizeof raw_;
        raw_.self = this;
        raw_.destroy = [](void* self) { delete static_cast<holder*>(self); };
        raw_.execute = [](void* self, heal_str rq, const heal_call* c) { return of(self).run(rq, c, [](S& s, auto& r, auto& k) { return s.execute(r, k); }); };
        if constexpr (has_assess<S>) {
            raw_.assess = [](void* self, heal_str rq, const heal_call* c, double* ret) {
                return guarded(c->error, [&]() -> std::int32_t {
                    const request parsed{json::parse(borrowed(rq))};
                    call context{of(self).host_, c};
                    *ret = static_cast<double>(of(self).strategy_.assess(parsed, context));
                    return HEAL_OK;
                });
            };
        }
        if constexpr (has_verify<S>) {
            raw_.verify = [](void* self, heal_str rq, const heal_call* c) { return of(self).run(rq, c, [](S& s, auto& r, auto& k) { return s.verify(r, k); }); };
        }
        if constexpr (has_rollback<S>) {
            raw_.rollback = [](void* self, heal_str rq, const heal_call* c) { return of(self).run(rq, c, [](S& s, auto& r, auto& k) { return s.rollback(r, k); }); };
        }
    }
    const heal_strategy* raw() const { return &raw_; }

private:
    static S make(const json& config) {
        if constexpr (std::constructible_from<S, const json&>) return S(config);
        else return S();
    }
    static holder& of(void* self) { return *static_cast<holder*>(self); }
    template <class F>
    std::int32_t run(heal_str rq, const heal_call* c, F&& body) noexcept {
        return guarded(c->error, [&]() -> std::int32_t {
            const request parsed{json::parse(borrowed(rq))};
            call context{host_, c};
            const outcome out = body(strategy_, parsed, context);
            json result = json::object({{"text", out.text}});
            if (!out.detail.is_null()) result.set("detail", out.detail);
            put(c->result, result.dump());
            return out.status;
        });
    }

    S strategy_;
    const heal_host* host_;
    heal_strategy raw_{};
};

template <class S>
json facts() {
    static_assert(check<S>());
    const descriptor& d = S::about;
    const char* risks[] = {"safe", "disruptive", "destructive"};
    json capabilities = json::array();
    for (const std::string_view one : d.capabilities) {
        if (!one.empty()) capabilities.push(one);
    }
    json out = json::object({{"schema", 1}, {"name", d.name}, {"version", d.version}, {"summary", d.summary}, {"priority", d.priority},
        {"confidence", d.confidence}, {"confidence_floor", d.confidence_floor}, {"risk", risks[static_cast<int>(d.risk)]},
        {"idempotent", d.idempotent}, {"reversible", d.reversible}, {"timeout_ms", d.timeout.count()}, {"matches", json::parse(d.matches)},
        {"capabilities", std::move(capabilities)}, {"assess", has_assess<S>}, {"verify", has_verify<S>}, {"rollback", has_rollback<S>}});
    if constexpr (has_parameters<S>) {
        json properties = json::object(), required = json::array();
        for (const parameter& p : parameters(S::parameters())) {
            properties.set(p.name(), p.schema());
            if (p.is_required()) required.push(p.name());
        }
        out.set("parameters", json::object({{"type", "object"}, {"properties", std::move(properties)}, {"required", std::move(required)},
            {"additionalProperties", false}}));
    }
    return out;
}

template <class... S>
struct library {
    static heal_str describe() noexcept {
        static const std::string text = []() noexcept {
            try {
                json all = json::array();
                (all.push(facts<S>()), ...);
                return all.dump();
            } catch (const std::exception& e) {
                return json::object({{"error", std::string("describe: ") + e.what()}}).dump();
            }
        }();
        return {text.data(), text.size()};
    }
    static std::int32_t create(const heal_host* host, heal_str name, heal_str config, const heal_strategy** ret, const heal_sink* error) noexcept {
        return guarded(error, [&]() -> std::int32_t {
            const json parsed = config.size == 0 ? json::object() : json::parse(borrowed(config));
            std::int32_t status = HEAL_UNSUPPORTED;
            const auto try_one = [&]<class One>(std::type_identity<One>) {
                if (status == HEAL_OK || borrowed(name) != One::about.name) return;
                *ret = (new holder<One>(host, parsed))->raw();
                status = HEAL_OK;
            };
            (try_one(std::type_identity<S>()), ...);
            if (status != HEAL_OK) put(error, "this plugin has no strategy of that name");
            return status;
        });
    }
    static const heal_plugin_entry* entry() noexcept {
        static const heal_plugin_entry e{sizeof(heal_plugin_entry), HEAL_ABI_MAJOR, HEAL_ABI_MINOR, 0, &describe, &create};
        return &e;
    }
};

}  // namespace detail
}  // namespace heal

/// Once per library, with every strategy in it: HEAL_PLUGIN(a, b)
#define HEAL_PLUGIN(...) \
    extern "C" HEAL_EXPORT const heal_plugin_entry* heal_plugin_entry_v1(void); \
    extern "C" HEAL_EXPORT const heal_plugin_entry* heal_plugin_entry_v1(void) { return ::heal::detail::library<__VA_ARGS__>::entry(); } \
    static_assert(true, "")
