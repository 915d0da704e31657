// Reads one YAML mapping with a strict schema: each known key is asked for, everything else is an error that
// names file, line, key and what is allowed. For the parts of the configuration (settings.cpp and its
// neighbours); nothing else reads YAML.
#pragma once

#include "base/json.hpp"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace heal {

/// Walks one mapping: each known key is asked for once, everything else is an error. Values set in two files
/// are errors too.
class Mapping {
public:
    struct Context {
        std::string file;
        std::vector<std::string>* errors;
        std::map<std::string, std::string>* places;  ///< scalar path -> where it was set
    };

    Mapping(const YAML::Node& node, std::string path, Context& context)
        : node_(node), path_(std::move(path)), context_(context) {
        if (!node_ || node_.IsNull()) return;
        if (!node_.IsMap()) {
            error(node_, path_.empty() ? "the file" : path_, "must be a mapping (key: value)");
            return;
        }
        std::set<std::string> seen;
        for (const auto& entry : node_) {
            const auto key = entry.first.IsScalar() ? entry.first.Scalar() : std::string{"?"};
            // yaml-cpp takes a repeated key silently.
            if (!seen.insert(key).second) error(entry.first, full(key), "is given twice");
            values_.emplace(key, std::make_pair(entry.first, entry.second));
        }
    }

    ~Mapping() {
        for (const auto& [key, value] : values_) {
            if (asked_.contains(key)) continue;
            std::string known;
            for (const auto& name : asked_) known += (known.empty() ? "" : ", ") + name;
            error(value.first, full(key), "unknown key; known are " + known);
        }
    }
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;

    /// The value of a key, or a null pointer; remembers that the key is known.
    const YAML::Node* find(const std::string& key) {
        asked_.insert(key);
        const auto it = values_.find(key);
        return it == values_.end() || it->second.second.IsNull() ? nullptr : &it->second.second;
    }

    bool text(const std::string& key, std::string& ret) {
        const auto* value = scalar(key, "a text");
        return value && expand(*value, key, ret);
    }
    bool flag(const std::string& key, bool& ret) {
        std::string word;
        const auto* value = scalar(key, "true or false");
        if (!value || !expand(*value, key, word)) return false;
        if (word != "true" && word != "false")
            return error(*value, full(key), "must be true or false"), false;
        ret = word == "true";
        return true;
    }
    template <class Integer>
    bool integer(const std::string& key, Integer& ret, std::int64_t min, std::int64_t max) {
        std::string word;
        const auto* value = scalar(key, "an integer");
        if (!value || !expand(*value, key, word)) return false;
        std::int64_t n = 0;
        const auto [end, ec] = std::from_chars(word.data(), word.data() + word.size(), n);
        if (ec != std::errc{} || end != word.data() + word.size() || n < min || n > max) {
            return error(*value, full(key), fmt::format("must be an integer from {} to {}", min, max)), false;
        }
        ret = static_cast<Integer>(n);
        return true;
    }
    bool real(const std::string& key, double& ret, double min, double max) {
        std::string word;
        const auto* value = scalar(key, "a number");
        if (!value || !expand(*value, key, word)) return false;
        char* end = nullptr;
        const double n = std::strtod(word.c_str(), &end);
        if (word.empty() || *end != '\0' || !(n >= min && n <= max)) {
            return error(*value, full(key), fmt::format("must be a number from {} to {}", min, max)), false;
        }
        ret = n;
        return true;
    }
    /// "250ms", "10s", "5m", "24h", "7d".
    template <class D>
    bool duration(
        const std::string& key, D& ret, std::chrono::milliseconds min, std::chrono::milliseconds max
    ) {
        static constexpr std::pair<std::string_view, std::int64_t> units[] = {
            {"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}};
        std::string word;
        const auto* value = scalar(key, "a duration");
        if (!value || !expand(*value, key, word)) return false;
        std::int64_t n = 0;
        const auto [end, ec] = std::from_chars(word.data(), word.data() + word.size(), n);
        const std::string_view unit{end, static_cast<std::size_t>(word.data() + word.size() - end)};
        std::int64_t factor = 0;
        for (const auto& [name, ms] : units) {
            if (unit == name) factor = ms;
        }
        if (ec != std::errc{} || factor == 0 || n < 0 || n > max.count() / factor ||
            n * factor < min.count()) {
            return error(
                       *value,
                       full(key),
                       fmt::format(
                           "must be a duration such as 250ms, 10s, 5m or 24h, from {} ms to {} ms",
                           min.count(),
                           max.count()
                       )
                   ),
                   false;
        }
        ret = std::chrono::duration_cast<D>(std::chrono::milliseconds{n * factor});
        return true;
    }
    template <class T>
    bool choice(const std::string& key, T& ret, const std::vector<std::pair<std::string, T>>& choices) {
        std::string word;
        const auto* value = scalar(key, "a word");
        if (!value || !expand(*value, key, word)) return false;
        std::string allowed;
        for (const auto& [name, result] : choices) {
            if (name == word) return ret = result, true;
            allowed += (allowed.empty() ? "" : ", ") + name;
        }
        return error(*value, full(key), "must be one of " + allowed), false;
    }
    bool texts(const std::string& key, std::vector<std::string>& ret) {
        const auto* value = find(key);
        if (!value) return false;
        if (!value->IsSequence())
            return error(*value, full(key), "must be a list of texts, such as [a, b]"), false;
        ret.clear();
        for (const auto& item : *value) {
            std::string word;
            if (!item.IsScalar()) return error(item, full(key), "must be a list of texts"), false;
            if (!expand(item, key, word)) return false;
            ret.push_back(std::move(word));
        }
        return true;
    }
    void each(const std::string& key, const std::function<void(const YAML::Node&, std::string)>& visit) {
        const auto* value = find(key);
        if (!value) return;
        if (!value->IsSequence()) return error(*value, full(key), "must be a list (- …)");
        std::size_t i = 0;
        for (const auto& item : *value) visit(item, fmt::format("{}[{}]", full(key), i++));
    }
    /// Any YAML below a key as JSON; plain scalars become numbers and booleans, quoted ones stay texts.
    bool json_value(const std::string& key, json::value& ret) {
        const auto* value = find(key);
        if (!value) return false;
        ret = to_json(*value, key);
        return true;
    }
    bool json_object(const std::string& key, json::object& ret) {
        json::value value;
        const auto* node = find(key);
        if (!node) return false;
        if (!node->IsMap()) return error(*node, full(key), "must be a mapping (key: value)"), false;
        json_value(key, value);
        ret = std::move(value.as_object());
        return true;
    }
    /// A scalar section value may be set in one file only.
    void once(const std::string& key) {
        const auto it = values_.find(key);
        if (it == values_.end()) return;
        const std::string here = place(it->second.first);
        const auto [known, fresh] = context_.places->emplace(full(key), here);
        if (!fresh) error(it->second.first, full(key), "is set already in " + known->second);
    }

    std::string full(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }
    void error(const YAML::Node& at, const std::string& what, const std::string& text) const {
        context_.errors->push_back(fmt::format("{}: {}: {}", place(at), what, text));
    }
    void error(const std::string& key, const std::string& text) const {
        const auto it = values_.find(key);
        error(it == values_.end() ? node_ : it->second.second, full(key), text);
    }
    Context& context() { return context_; }

private:
    std::string place(const YAML::Node& at) const {
        const int line = at.Mark().line;
        return line >= 0 ? fmt::format("{}:{}", context_.file, line + 1) : context_.file;
    }
    const YAML::Node* scalar(const std::string& key, const char* what) {
        const auto* value = find(key);
        if (value && !value->IsScalar()) {
            error(*value, full(key), fmt::format("must be {}", what));
            return nullptr;
        }
        return value;
    }
    /// ${NAME} in a value is replaced from the environment; an unset name is an error.
    bool expand(const YAML::Node& node, const std::string& key, std::string& ret) const {
        std::string out;
        const std::string& in = node.Scalar();
        for (std::size_t i = 0; i < in.size();) {
            const auto start = in.find("${", i);
            out += in.substr(i, start - i);
            if (start == std::string::npos) break;
            const auto end = in.find('}', start);
            if (end == std::string::npos) return error(node, full(key), "has ${ without }"), false;
            const std::string name = in.substr(start + 2, end - start - 2);
            const char* value = std::getenv(name.c_str());
            if (!value)
                return error(node, full(key), fmt::format("the environment has no variable {}", name)), false;
            out += value;
            i = end + 1;
        }
        ret = std::move(out);
        return true;
    }
    json::value to_json(const YAML::Node& node, const std::string& key) const {
        if (node.IsMap()) {
            json::object o;
            for (const auto& entry : node) {
                const auto name = entry.first.Scalar();
                if (o.contains(name)) error(entry.first, full(key) + "." + name, "is given twice");
                o[name] = to_json(entry.second, key);
            }
            return o;
        }
        if (node.IsSequence()) {
            json::array a;
            for (const auto& item : node) a.push_back(to_json(item, key));
            return a;
        }
        if (!node.IsScalar()) return nullptr;
        std::string word;
        if (!expand(node, key, word)) return nullptr;
        if (node.Tag() == "!") return json::value(word);  // quoted
        if (word == "true") return true;
        if (word == "false") return false;
        if (word == "null" || word == "~") return nullptr;
        std::int64_t n = 0;
        const auto [end, ec] = std::from_chars(word.data(), word.data() + word.size(), n);
        const bool leading_zero = word.size() > 1 && (word[0] == '0' || word.starts_with("-0"));
        if (!word.empty() && ec == std::errc{} && end == word.data() + word.size() && !leading_zero) return n;
        char* real_end = nullptr;
        const double d = std::strtod(word.c_str(), &real_end);
        const bool looks_real = word.find_first_not_of("0123456789.-+eE") == std::string::npos &&
                                word.find('.') != std::string::npos;
        if (looks_real && *real_end == '\0' && std::isfinite(d)) return d;
        return json::value(word);
    }

    const YAML::Node node_;
    std::string path_;
    Context& context_;
    std::map<std::string, std::pair<YAML::Node, YAML::Node>> values_;
    std::set<std::string> asked_;
};

}  // namespace heal
