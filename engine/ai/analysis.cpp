#include "ai/analysis.hpp"

#include "ai/hostile.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace heal::ai {
namespace {

using std::string_view;

constexpr std::size_t most_suggestions = 3, most_items = 20, max_text_bytes = 16U << 10U;

json::object text_schema(const char* description) {
    return {{"type", "string"}, {"description", description}};
}
json::object list_schema(const char* description) {
    return {{"type", "array"}, {"items", json::object{{"type", "string"}}}, {"description", description}};
}

json::object strict_object(json::object properties) {
    json::array required;
    for (const auto& [key, value] : properties) required.emplace_back(key);
    return {
        {"type", "object"},
        {"properties", std::move(properties)},
        {"required", std::move(required)},
        {"additionalProperties", false}};
}

json::object make_schema() {
    json::object suggestion{
        {"fix_title", text_schema("One line")},
        {"fix_description", text_schema("What to change and why that removes the cause")},
        {"fix_approach", text_schema("How: the steps, in order")},
        {"files_affected",
         list_schema("Paths in the repository, as shown with the code; empty when no code was shown")},
        {"confidence_score", json::object{{"type", "number"}, {"description", "0 to 1"}}},
        {"reasoning", text_schema("What in the data speaks for it and what against")},
        {"breaking_changes", list_schema("What callers would notice; empty: nothing")},
        {"potential_side_effects", list_schema("What else may change; empty: nothing")},
        {"test_cases", list_schema("Tests that fail before the change and pass after it")}};
    json::array types;
    for (const auto& type : bug_types()) types.emplace_back(type);
    return strict_object(
        {{"root_cause", text_schema("What is wrong, in one or two sentences")},
         {"root_cause_hypothesis",
          text_schema("The chain from the fault to the error, and what would prove it wrong")},
         {"bug_classification", json::object{{"type", "string"}, {"enum", std::move(types)}}},
         {"estimated_impact", text_schema("Who notices what, and how badly")},
         {"fix_suggestions",
          json::object{
              {"type", "array"},
              {"items", strict_object(std::move(suggestion))},
              {"description", "1 to 3, the best first"}}},
         {"prevention_tips", list_schema("What would have kept this kind of bug out")}}
    );
}

/// A validator for the part of JSON Schema that make_schema() uses.
void check(
    const json::value& value,
    const json::object& schema,
    const std::string& path,
    std::vector<std::string>& faults
) {
    if (faults.size() >= 20) return;
    const auto type = string_at(schema, "type");
    const auto fault = [&](const std::string& text) {
        faults.push_back((path.empty() ? "the answer" : path) + ": " + text);
    };
    if (type == "object") {
        if (!value.is_object()) return fault("must be an object");
        const auto& object = value.get_object();
        const auto& properties = object_at(schema, "properties");
        const auto inner = [&](string_view key) {
            return path.empty() ? std::string{key} : path + "." + std::string{key};
        };
        for (const auto& [key, part] : properties) {
            const auto* found = object.if_contains(key);
            if (found)
                check(*found, part.as_object(), inner(key), faults);
            else
                faults.push_back(inner(key) + ": is missing");
        }
        for (const auto& [key, part] : object) {
            if (!properties.contains(key))
                faults.push_back(
                    inner(to_valid_utf8(string_view{key}.substr(0, 60))) + ": is not part of the form"
                );
        }
    } else if (type == "array") {
        if (!value.is_array()) return fault("must be a list");
        const auto& array = value.get_array();
        if (array.size() > most_items) fault(fmt::format("must have at most {} items", most_items));
        for (std::size_t i = 0; i < array.size() && i < most_items; ++i)
            check(array[i], object_at(schema, "items"), fmt::format("{}[{}]", path, i), faults);
    } else if (type == "number") {
        const double n = value.is_double()   ? value.get_double()
                         : value.is_number() ? value.to_number<double>()
                                             : -1.0;
        if (!value.is_number() || !(n >= 0 && n <= 1)) fault("must be a number from 0 to 1");
    } else if (type == "string") {
        if (!value.is_string()) return fault("must be a text");
        if (value.get_string().size() > max_text_bytes)
            fault(fmt::format("must be at most {} bytes", max_text_bytes));
        const auto& allowed = array_at(schema, "enum");
        if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
            std::string names;
            for (const auto& a : allowed)
                names += (names.empty() ? "" : ", ") + std::string{view(a.as_string())};
            fault("must be one of " + names);
        }
    }
}

/// The one JSON object of an answer, without what models put around it.
string_view object_text(string_view text) {
    const auto begin = text.find('{'), end = text.rfind('}');
    return begin == string_view::npos || end == string_view::npos || end < begin
               ? text
               : text.substr(begin, end - begin + 1);
}

std::vector<std::string> texts(const json::array& array) {
    std::vector<std::string> out;
    for (const auto& item : array) {
        if (item.is_string()) out.push_back(harmless(view(item.get_string()), max_text_bytes));
    }
    return out;
}
json::array list(const std::vector<std::string>& items) { return json::array(items.begin(), items.end()); }

/// What a model says is shown to people: without what their terminals and eyes would not see.
std::string shown(const json::object& o, string_view key) {
    return harmless(string_at(o, key), max_text_bytes);
}

Analysis read(const json::object& o) {
    Analysis a;
    a.root_cause = shown(o, "root_cause");
    a.root_cause_hypothesis = shown(o, "root_cause_hypothesis");
    a.bug_classification = shown(o, "bug_classification");
    a.estimated_impact = shown(o, "estimated_impact");
    a.prevention_tips = texts(array_at(o, "prevention_tips"));
    for (const auto& item : array_at(o, "fix_suggestions")) {
        if (!item.is_object()) continue;
        const auto& s = item.get_object();
        a.suggestions.push_back(
            {shown(s, "fix_title"),
             shown(s, "fix_description"),
             shown(s, "fix_approach"),
             texts(array_at(s, "files_affected")),
             double_at(s, "confidence_score"),
             shown(s, "reasoning"),
             texts(array_at(s, "breaking_changes")),
             texts(array_at(s, "potential_side_effects")),
             texts(array_at(s, "test_cases"))}
        );
    }
    return a;
}

// --- by rules

struct Rule {
    const char* type;
    std::vector<string_view> words;  ///< any of them, in lower case, in type, message or trace's first lines
    const char* cause;
    std::vector<const char*> tips;
};

/// The first that fits. From the special to the general.
const std::vector<Rule>& cause_rules() {
    static const std::vector<Rule> rules = {
        {"null_pointer",
         {"nullpointer",
          "null pointer",
          "nullreference",
          "nonetype",
          "of undefined",
          "of null",
          "undefined is not",
          "nil pointer",
          "nil:nilclass",
          "is not a function",
          "segmentation fault",
          "sigsegv",
          "null dereference",
          "bad_optional_access"},
         "A value that may be absent is used without a check",
         {"Check values from outside (requests, stores, caches) where they come in",
          "Let the compiler or a linter find unchecked absent values"}},
        {"deadlock",
         {"deadlock", "lock wait timeout", "could not serialize access", "lock timeout"},
         "Transactions or threads wait for each other",
         {"Take locks in one order everywhere", "Keep transactions short and repeat those that lose"}},
        {"sql_error",
         {"sqlexception",
          "sqlstate",
          "sqlite",
          "psycopg",
          "pg::",
          "syntax error at or near",
          "duplicate key",
          "foreign key",
          "no such table",
          "no such column",
          "relation \"",
          "column \"",
          "integrityerror",
          "operationalerror",
          "ora-",
          "database_error",
          "constraint"},
         "A statement does not fit the schema or the data of the database",
         {"Run migrations and statements against a copy of the schema in CI",
          "Handle violated constraints where they can happen"}},
        {"authentication",
         {"unauthorized",
          "forbidden",
          "access denied",
          "permission denied",
          "invalid token",
          "authentication failed",
          "401",
          "403",
          "certificate"},
         "A credential or a right is missing, wrong or expired",
         {"Watch the expiry of credentials and certificates",
          "Test rights of a service in its own environment"}},
        {"resource",
         {"outofmemory",
          "out of memory",
          "bad_alloc",
          "no space left",
          "too many open files",
          "disk full",
          "pool exhausted",
          "pool * exhausted",
          "heap space",
          "cannot allocate",
          "emfile",
          "enospc",
          "quota",
          "connection pool"},
         "A resource (memory, disk, descriptors, connections) is used up",
         {"Bound what grows with load and alert before the limit",
          "Look for resources that are not given back on error paths"}},
        {"timeout",
         {"timeout", "timed out", "deadline exceeded", "etimedout", "context deadline"},
         "Something that is waited for takes longer than allowed",
         {"Give each outside call a deadline and a plan for when it passes",
          "Watch the latency of what is called"}},
        {"network",
         {"connection refused",
          "econnrefused",
          "connection reset",
          "econnreset",
          "no route to host",
          "unknownhost",
          "getaddrinfo",
          "broken pipe",
          "epipe",
          "socket",
          "dns",
          "unreachable",
          "ssl error",
          "sslhandshake",
          "tls handshake",
          "502",
          "503",
          "504"},
         "A peer cannot be reached or closes the connection",
         {"Repeat idempotent calls with backoff", "Check the health of peers apart from requests of users"}},
        {"config",
         {"configuration",
          "config",
          "environment variable",
          "missing key",
          "no such file",
          "enoent",
          "filenotfound",
          "module not found",
          "cannot find module",
          "modulenotfounderror",
          "importerror",
          "classnotfound",
          "noclassdeffound",
          "unsupported option",
          "property"},
         "A setting, file or module that the program needs is missing or wrong",
         {"Check the configuration whole at the start and refuse to run with a wrong one",
          "Ship the same artifact to all environments"}},
        {"concurrency",
         {"concurrentmodification",
          "data race",
          "race condition",
          "already locked",
          "mutex",
          "illegalmonitorstate"},
         "State is changed from two places at once",
         {"Give each state one owner", "Run the tests under a race detector"}},
        {"validation",
         {"validation",
          "invalid argument",
          "illegalargument",
          "valueerror",
          "numberformat",
          "parse error",
          "json",
          "unexpected token",
          "unmarshal",
          "deserializ",
          "cannot convert",
          "typeerror",
          "classcast",
          "bad request",
          "400",
          "schema"},
         "Data has another form than the code expects",
         {"Check data against a schema at the border and answer with what is wrong",
          "Test with data of the peers as they really send it"}},
        {"performance",
         {"slow query",
          "slow request",
          "too slow",
          "high latency",
          "gc overhead",
          "stop the world",
          "throttl"},
         "Work takes more time than planned for",
         {"Measure before changing; then bound the work per request", "Watch p99 and not the mean"}},
        {"logic_bug",
         {"index out of",
          "indexerror",
          "keyerror",
          "out of range",
          "out_of_range",
          "arrayindex",
          "stackoverflow",
          "maximum recursion",
          "assert",
          "illegalstate",
          "divide by zero",
          "division by zero",
          "zerodivision",
          "arithmetic",
          "overflow",
          "not implemented",
          "unreachable code"},
         "The code meets a case that it does not handle",
         {"Add the failing case as a test before the fix", "Test the borders: empty, one, many, largest"}},
    };
    return rules;
}

std::string lower(string_view text) {
    std::string out{text};
    for (char& c : out) {
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    return out;
}

/// A number such as 503 must stand alone: not in an id or a port.
bool holds(const std::string& text, string_view word) {
    for (auto at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
        const bool number = word.find_first_not_of("0123456789") == string_view::npos;
        const auto alone = [&](std::size_t i) {
            return i >= text.size() || !(std::isalnum(static_cast<unsigned char>(text[i])) != 0 ||
                                         text[i] == '.' || text[i] == ':' || text[i] == '-');
        };
        if (!number || (alone(at + word.size()) && (at == 0 || alone(at - 1)))) return true;
    }
    return false;
}

std::string first_line_with_place(const std::string& trace) {
    // Most languages show the place as file:line or "line N"; the innermost is first or last, either tells
    // the reader where to look.
    std::size_t from = 0;
    while (from < trace.size()) {
        const auto end = trace.find('\n', from);
        const auto line = string_view{trace}.substr(from, end == std::string::npos ? end : end - from);
        const bool place =
            line.find(", line ") != string_view::npos ||
            (line.find(':') != string_view::npos && line.find_first_of("0123456789") != string_view::npos &&
             (line.find("at ") != string_view::npos || line.find('.') != string_view::npos));
        if (place && line.size() < 300) {
            const auto begin = line.find_first_not_of(" \t");
            return std::string{line.substr(begin == string_view::npos ? 0 : begin)};
        }
        if (end == std::string::npos) break;
        from = end + 1;
    }
    return {};
}

}  // namespace

const std::vector<std::string>& bug_types() {
    static const std::vector<std::string> types = {
        "null_pointer",
        "sql_error",
        "logic_bug",
        "performance",
        "config",
        "network",
        "resource",
        "timeout",
        "validation",
        "authentication",
        "concurrency",
        "deadlock",
        "dependency",
        "security",
        "other"};
    return types;
}

const json::object& analysis_schema() {
    static const json::object schema = make_schema();
    return schema;
}

std::vector<std::string> check_analysis(string_view text, Analysis& ret) {
    std::vector<std::string> faults;
    auto parsed = parse_json(object_text(text), "the answer");
    if (!parsed) {
        faults.push_back(parsed.error().text);
        return faults;
    }
    check(*parsed, analysis_schema(), "", faults);
    if (!faults.empty()) return faults;
    Analysis a = read(parsed->get_object());
    if (a.root_cause.find_first_not_of(" \t\r\n") == std::string::npos)
        faults.emplace_back("root_cause: must not be empty");
    if (a.suggestions.empty() || a.suggestions.size() > most_suggestions)
        faults.push_back(fmt::format("fix_suggestions: must have 1 to {} items", most_suggestions));
    for (std::size_t i = 0; i < a.suggestions.size(); ++i) {
        if (a.suggestions[i].title.empty())
            faults.push_back(fmt::format("fix_suggestions[{}].fix_title: must not be empty", i));
    }
    if (faults.empty()) ret = std::move(a);
    return faults;
}

json::object to_json(const Analysis& a) {
    json::array suggestions;
    for (const auto& s : a.suggestions) {
        suggestions.push_back(json::object{
            {"fix_title", s.title},
            {"fix_description", s.description},
            {"fix_approach", s.approach},
            {"files_affected", list(s.files)},
            {"confidence_score", s.confidence},
            {"reasoning", s.reasoning},
            {"breaking_changes", list(s.breaking_changes)},
            {"potential_side_effects", list(s.side_effects)},
            {"test_cases", list(s.test_cases)}});
    }
    return {
        {"root_cause", a.root_cause},
        {"root_cause_hypothesis", a.root_cause_hypothesis},
        {"bug_classification", a.bug_classification},
        {"estimated_impact", a.estimated_impact},
        {"fix_suggestions", std::move(suggestions)},
        {"prevention_tips", list(a.prevention_tips)}};
}

result<Analysis> analysis_of(const json::object& stored) {
    if (string_at(stored, "root_cause").empty())
        return fail(errc::corrupt, "a stored analysis has no root_cause");
    return read(stored);
}

Analysis analyze_by_rules(const BugFacts& facts) {
    const std::string text = lower(
        facts.error_type + "\n" + facts.message.substr(0, 4096) + "\n" + facts.stack_trace.substr(0, 2048)
    );
    Analysis a;
    const auto& rules = cause_rules();
    const auto it = std::find_if(rules.begin(), rules.end(), [&](const Rule& r) {
        return std::any_of(r.words.begin(), r.words.end(), [&](string_view w) { return holds(text, w); });
    });
    const auto& types = bug_types();
    const bool known_type =
        std::find(types.begin(), types.end(), facts.bug_type) != types.end() && facts.bug_type != "other";
    a.bug_classification = it != rules.end() ? it->type : known_type ? facts.bug_type : "logic_bug";
    const std::string cause =
        it != rules.end() ? it->cause : "The program reports an error that no rule knows";
    const std::string what = facts.error_type.empty()
                                 ? facts.message.substr(0, facts.message.find('\n')).substr(0, 200)
                                 : facts.error_type;
    a.root_cause = to_valid_utf8(fmt::format("{}{}{}", cause, what.empty() ? "" : ": ", what));
    const auto place = first_line_with_place(facts.stack_trace);
    a.root_cause_hypothesis = to_valid_utf8(fmt::format(
        "By rules from the error's type, message and trace; no model was asked.{}{}",
        place.empty() ? " There is no stack trace that names a place." : " Look first at: ",
        place
    ));
    a.estimated_impact = to_valid_utf8(fmt::format(
        "{} occurrences in {}; severity {}",
        facts.occurrences,
        facts.service.empty() ? "an unnamed service" : facts.service,
        facts.severity
    ));
    if (it != rules.end()) {
        for (const char* tip : it->tips) a.prevention_tips.emplace_back(tip);
    }
    if (facts.stack_trace.empty()) a.prevention_tips.emplace_back("Log the stack trace with the error");
    return a;
}

json::object compare(const std::vector<Opinion>& opinions) {
    json::array models;
    std::map<std::string, unsigned> by_type, by_file;
    for (const auto& o : opinions) {
        std::set<std::string> files;
        for (const auto& s : o.analysis->suggestions) files.insert(s.files.begin(), s.files.end());
        for (const auto& f : files) ++by_file[f];
        ++by_type[o.analysis->bug_classification];
        models.push_back(json::object{
            {"provider", o.provider},
            {"model", o.model},
            {"bug_classification", o.analysis->bug_classification},
            {"root_cause", o.analysis->root_cause},
            {"files", json::array(files.begin(), files.end())}});
    }
    unsigned most = 0, same_pairs = 0;
    for (const auto& [type, n] : by_type) {
        most = std::max(most, n);
        same_pairs += n * (n - 1) / 2;
    }
    json::array shared;
    for (const auto& [file, n] : by_file) {
        if (n > 1) shared.emplace_back(file);
    }
    const auto n = static_cast<unsigned>(opinions.size());
    const unsigned pairs = n * (n - (n > 0 ? 1U : 0U)) / 2;
    json::object out{
        {"models", std::move(models)},
        {"same_classification", static_cast<std::int64_t>(most)},
        {"shared_files", shared}};
    if (pairs > 0) {
        const double types = static_cast<double>(same_pairs) / pairs;
        const double files = by_file.empty()
                                 ? types
                                 : static_cast<double>(shared.size()) / static_cast<double>(by_file.size());
        out["agreement"] = std::round((types + files) / 2 * 1000) / 1000;
    } else
        out["agreement"] = nullptr;
    return out;
}

}  // namespace heal::ai
