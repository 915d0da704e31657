#include "vcs/special_case.hpp"

#include "vcs/gates.hpp"
#include "vcs/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>

namespace heal::vcs {
namespace {

using Tokens = std::vector<Token>;
using Kind = Token::Kind;
using Values = std::vector<std::string>;  ///< "n:3", "s:abc", "b:true", "e:" (an empty list), "z:" (null)

constexpr std::size_t npos = std::string::npos, max_cases = 400;

bool is(const Token& t, std::string_view text) { return t.text == text && t.kind != Kind::string; }
bool opens(const Token& t) {
    return t.kind == Kind::mark && (t.text == "(" || t.text == "[" || t.text == "{");
}
bool closes(const Token& t) {
    return t.kind == Kind::mark && (t.text == ")" || t.text == "]" || t.text == "}");
}

/// Index behind the bracket that closes the one at `i`, or `last`.
std::size_t behind(const Tokens& t, std::size_t i, std::size_t last) {
    int depth = 0;
    for (; i < last; ++i) {
        depth += opens(t[i]) ? 1 : closes(t[i]) ? -1 : 0;
        if (depth <= 0) return i + 1;
    }
    return last;
}

std::string number(double v) { return fmt::format("n:{:.9g}", v); }

std::optional<double> number_of(std::string_view text, bool& ret_whole) {
    std::string s;
    for (const char c : text)
        if (c != '_' && c != '\'') s += c;
    char* end = nullptr;
    const double v = std::strtod(s.c_str(), &end);
    if (end == s.c_str() || !std::isfinite(v)) return std::nullopt;
    ret_whole = s.find_first_of(".eE") == npos || s.starts_with("0x");
    return v;
}

/// Constant arithmetic, so that "3 * 19" and 57 are one value.
struct Arithmetic {
    const Tokens& t;
    std::size_t i, last;
    bool whole = true;

    std::optional<double> sum() {
        auto a = product();
        while (a && i < last && (is(t[i], "+") || is(t[i], "-"))) {
            const bool plus = is(t[i], "+");
            const auto mark = i++;
            const auto b = product();
            if (!b) {
                i = mark;
                return a;
            }
            *a += plus ? *b : -*b;
        }
        return a;
    }
    std::optional<double> product() {
        auto a = one();
        while (a && i < last && (is(t[i], "*") || is(t[i], "/"))) {
            const bool times = is(t[i], "*");
            const auto mark = i++;
            const bool a_whole = whole;
            const auto b = one();
            if (!b || (!times && *b == 0)) {
                i = mark;
                return a;
            }
            *a = times ? *a * *b : *a / *b;
            if (!times && a_whole && whole) a = std::trunc(*a);
            whole = whole && a_whole;
        }
        return a;
    }
    std::optional<double> one() {
        if (i >= last) return std::nullopt;
        if (is(t[i], "-") || is(t[i], "+")) {
            const bool minus = is(t[i++], "-");
            const auto v = one();
            return v ? std::optional{minus ? -*v : *v} : std::nullopt;
        }
        if (is(t[i], "(")) {
            const auto start = i++;
            const auto v = sum();
            if (v && i < last && is(t[i], ")")) {
                ++i;
                return v;
            }
            i = start;
            return std::nullopt;
        }
        if (t[i].kind != Kind::number) return std::nullopt;
        return number_of(t[i++].text, whole);
    }
};

std::string text_of(std::string_view quoted) {
    const std::size_t n = quoted.starts_with("\"\"\"") || quoted.starts_with("'''") ? 3 : 1;
    if (quoted.size() < 2 * n) return {};
    return std::string{quoted.substr(n, quoted.size() - 2 * n)};
}

bool is_operator_word(std::string_view w) {
    for (const std::string_view one :
         {"return", "case", "in", "is", "and", "or", "not", "else", "when", "yield", "then"})
        if (w == one) return true;
    return false;
}

using Names = std::map<std::string, Values, std::less<>>;

/// The literals of a range in their order.
Values values_of(const Tokens& t, std::size_t first, std::size_t last, const Names& names = {}) {
    Values out;
    for (std::size_t i = first; i < last;) {
        const Token& token = t[i];
        const Token* before = i > 0 ? &t[i - 1] : nullptr;
        const bool operand_before =
            before != nullptr && ((before->kind == Kind::word && !is_operator_word(before->text)) ||
                                  before->kind == Kind::number || is(*before, ")") || is(*before, "]"));
        if (token.kind == Kind::string) {
            out.push_back("s:" + text_of(token.text));
            ++i;
        } else if (token.kind == Kind::number || ((is(token, "-") || is(token, "(")) && !operand_before)) {
            Arithmetic a{t, i, last};
            const auto v = a.sum();
            if (v && a.i > i) {
                out.push_back(number(*v));
                i = a.i;
            } else {
                ++i;
            }
        } else if (i + 1 < last && ((is(token, "{") && is(t[i + 1], "}")) || (is(token, "[") && is(t[i + 1], "]") && !operand_before) || (is(token, "(") && is(t[i + 1], ")") && before != nullptr && is(*before, ">")))) {
            out.emplace_back("e:");
            i += 2;
        } else {
            if (token.kind == Kind::word) {
                const auto w = token.text;
                if (w == "true" || w == "True" || w == "false" || w == "False")
                    out.push_back(w == "true" || w == "True" ? "b:true" : "b:false");
                else if (w == "nullptr" || w == "None" || w == "null" || w == "NULL" || w == "nil" || w == "undefined" || w == "nullopt")
                    out.emplace_back("z:");
                else if (const auto it = names.find(w); it != names.end())
                    out.insert(out.end(), it->second.begin(), it->second.end());
            }
            ++i;
        }
    }
    return out;
}

bool same_value(const std::string& a, const std::string& b) {
    if (a == b) return true;
    if (!a.starts_with("n:") || !b.starts_with("n:")) return false;
    const double x = std::strtod(a.c_str() + 2, nullptr), y = std::strtod(b.c_str() + 2, nullptr);
    // Tests allow for rounding, and so would who copies their answers.
    return std::abs(x - y) <= 1e-4 * std::max({1.0, std::abs(x), std::abs(y)});
}
bool holds(const Values& all, const std::string& one) {
    return std::any_of(all.begin(), all.end(), [&](const auto& v) { return same_value(v, one); });
}
bool equal(const Values& a, const Values& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), same_value);
}
bool within(const Values& part, const Values& all) {
    return std::all_of(part.begin(), part.end(), [&](const auto& v) { return holds(all, v); });
}

/// A value that nobody writes by chance: a longer text, a number off the usual borders.
bool is_telling(const std::string& v) {
    if (v.starts_with("s:")) return v.size() >= 5;
    if (!v.starts_with("n:")) return false;
    const double x = std::abs(std::strtod(v.c_str() + 2, nullptr));
    static const std::set<double> usual{
        0,  1,  2,   3,   4,   5,   7,   8,   9,   10,  12,  16,   24,   26,   31,    32,    48,  60,  64, 65,
        90, 97, 100, 122, 127, 128, 255, 256, 365, 360, 512, 1000, 1024, 4096, 65535, 65536, 0.5, 1e6, 1e9};
    return !usual.contains(x) && x > 1e-3;
}

/// One assertion: what a function of the code is given, and what the rest of the assertion speaks of.
struct Case {
    struct Argument {
        Values values;
        std::size_t count = 0;  ///< elements of a list, characters of a text
    };
    std::string function;
    std::vector<Argument> arguments;
    Values inputs, expected;
    std::string where;
};

std::size_t count_of(const Tokens& t, std::size_t first, std::size_t last, const Values& values) {
    if (values.size() == 1 && values[0].starts_with("s:")) return values[0].size() - 2;
    if (values.size() == 1 && values[0] == "e:") return 0;
    // The elements of the outermost list.
    for (std::size_t i = first; i < last; ++i) {
        if (!is(t[i], "{") && !is(t[i], "[")) continue;
        const std::size_t end = behind(t, i, last) - 1;
        std::size_t n = 0, depth = 0;
        bool any = false;
        for (std::size_t j = i + 1; j < end; ++j) {
            if (opens(t[j])) ++depth;
            if (closes(t[j])) --depth;
            if (depth == 0 && is(t[j], ",")) {
                n += any ? 1 : 0;
                any = false;
            } else {
                any = true;
            }
        }
        return n + (any ? 1 : 0);
    }
    return values.size();
}

/// @param ret_made  functions whose inputs the tests make, so that no literal of theirs can be known
void read_cases(
    const std::string& path,
    const std::string& content,
    const std::vector<bool>* only,
    const std::set<std::string, std::less<>>& functions,
    std::vector<Case>& ret_cases,
    std::set<std::string>& ret_made
) {
    Tokens t = tokens_of(content, has_hash_comments(path));
    if (only != nullptr)
        std::erase_if(t, [&](const Token& token) {
            return token.line >= only->size() || !(*only)[token.line];
        });
    Names names;
    const auto end_of = [&](std::size_t i) {
        int depth = 0;
        for (std::size_t j = i; j < t.size(); ++j) {
            if (j > i && depth == 0 && t[j].line != t[j - 1].line && !is(t[j], ".") && !is(t[j], ",") &&
                !is(t[j], "==") && !is(t[j], "(") && !is(t[j - 1], ",") && !is(t[j - 1], "==") &&
                !is(t[j - 1], "="))
                return j;
            if (depth == 0 && is(t[j], ";")) return j;
            depth += opens(t[j]) ? 1 : closes(t[j]) ? -1 : 0;
            if (depth < 0) return j;
        }
        return t.size();
    };
    for (std::size_t i = 0; i < t.size() && ret_cases.size() < max_cases; ++i) {
        if (t[i].kind != Kind::word) continue;
        // What is changed afterwards is no literal any more.
        if (i + 1 < t.size() && (is(t[i + 1], "+=") || is(t[i + 1], "-=") || is(t[i + 1], "*=") ||
                                 is(t[i + 1], "++") || is(t[i + 1], "--") ||
                                 (i + 2 < t.size() && is(t[i + 1], ".") &&
                                  (t[i + 2].text.starts_with("push") || t[i + 2].text == "append" ||
                                   t[i + 2].text == "insert" || t[i + 2].text == "add"))))
            if (const auto it = names.find(t[i].text); it != names.end()) names.erase(it);
        if (i + 1 < t.size() && (is(t[i + 1], "=") || is(t[i + 1], ":="))) {
            const std::size_t end = end_of(i);
            for (std::size_t j = i + 2; j + 1 < end; ++j)
                if (is(t[j + 1], "(") && functions.contains(t[j].text) &&
                    values_of(t, j + 2, behind(t, j + 1, end), names).empty())
                    ret_made.emplace(t[j].text);
            if (auto v = values_of(t, i + 2, end, names); !v.empty())
                names.insert_or_assign(std::string{t[i].text}, std::move(v));
            continue;
        }
        if (!is_assertion_word(t[i].text)) continue;
        const std::size_t end = end_of(i);
        for (std::size_t c = i + 1; c + 1 < end; ++c) {
            if (t[c].kind != Kind::word || !is(t[c + 1], "(") || !functions.contains(t[c].text)) continue;
            const std::size_t close = behind(t, c + 1, end);
            Case one;
            one.function = t[c].text;
            one.where = fmt::format("{}:{}", path, t[i].line + 1);
            bool known = true;
            for (std::size_t a = c + 2, start = a, depth = 0; a < close; ++a) {
                if (depth == 0 && (is(t[a], ",") || a + 1 == close)) {
                    if (a > start) {
                        Case::Argument argument{values_of(t, start, a, names), 0};
                        argument.count = count_of(t, start, a, argument.values);
                        if (a == start + 1 && t[start].kind == Kind::word && names.contains(t[start].text))
                            argument.count = argument.values.size();
                        known = known && !argument.values.empty();
                        one.inputs.insert(one.inputs.end(), argument.values.begin(), argument.values.end());
                        one.arguments.push_back(std::move(argument));
                    }
                    start = a + 1;
                    continue;
                }
                if (opens(t[a])) ++depth;
                if (closes(t[a])) --depth;
            }
            if (!known && !one.arguments.empty()) ret_made.insert(one.function);
            if (!known || one.arguments.empty()) continue;
            one.expected = values_of(t, i, c, names);
            // "… is less than 0.01 away": how far is no answer.
            std::size_t rest = end;
            for (std::size_t j = close; j + 1 < end; ++j) {
                bool whole = false;
                if ((is(t[j], "<") || is(t[j], "<=")) && t[j + 1].kind == Kind::number &&
                    number_of(t[j + 1].text, whole).value_or(1) <= 0.1)
                    rest = j;
            }
            auto more = values_of(t, close, rest, names);
            // "f(x) + 1 is about 0"
            if (close < end && is(t[close], "+") && !more.empty() && more[0].starts_with("n:"))
                more[0] = number(-std::strtod(more[0].c_str() + 2, nullptr));
            one.expected.insert(one.expected.end(), more.begin(), more.end());
            std::erase_if(one.expected, [](const std::string& v) {
                return v.starts_with("n:") && v != "n:0" &&
                       std::abs(std::strtod(v.c_str() + 2, nullptr)) <= 1e-3;
            });
            if (one.expected.empty()) {
                const bool negated = (c > 0 && (is(t[c - 1], "!") || is(t[c - 1], "not"))) ||
                                     lower(t[i].text).find("false") != npos;
                one.expected.emplace_back(negated ? "b:false" : "b:true");
            }
            ret_cases.push_back(std::move(one));
        }
        i = std::max(i, end > i ? end - 1 : i);
    }
}

/// The shape of a line: its tokens, each literal the same.
std::string shape_of(std::string_view line, bool hash_comments) {
    std::string out;
    for (const Token& t : tokens_of(line, hash_comments))
        (out += t.kind == Kind::number || t.kind == Kind::string ? std::string_view{"#"} : t.text) += ' ';
    return out;
}

const std::set<std::string_view>& type_words() {
    static const std::set<std::string_view> words{
        "int",     "long",    "short", "unsigned", "signed",   "float", "double",       "bool", "char",
        "string",  "vector",  "list",  "map",      "set",      "const", "auto",         "std",  "size_t",
        "any",     "boost",   "pair",  "tuple",    "optional", "str",   "dict",         "List", "String",
        "Integer", "var",     "let",   "mut",      "self",     "this",  "final",        "ref",  "int64",
        "number",  "boolean", "array", "Array",    "object",   "void",  "unordered_map"};
    return words;
}

/// The words of each parameter of a function's definition.
std::vector<std::set<std::string_view>> parameters_of(const Tokens& t, std::string_view function) {
    for (std::size_t i = 1; i + 1 < t.size(); ++i) {
        if (t[i].text != function || t[i].kind != Kind::word || !is(t[i + 1], "(")) continue;
        const Token& before = t[i - 1];
        if (!(before.kind == Kind::word || is(before, ">") || is(before, ">>") || is(before, "]") ||
              is(before, "*") || is(before, "&") || is(before, "::")) ||
            is(before, "return"))
            continue;
        const std::size_t close = behind(t, i + 1, t.size());
        if (close >= t.size() || is(t[close], ";") || is(t[close], ")") || is(t[close], ",")) continue;
        std::vector<std::set<std::string_view>> out(1);
        int depth = 0, angle = 0;
        for (std::size_t a = i + 2; a + 1 < close; ++a) {
            depth += opens(t[a]) ? 1 : closes(t[a]) ? -1 : 0;
            angle += is(t[a], "<") ? 1 : is(t[a], ">") ? -1 : is(t[a], ">>") ? -2 : 0;
            if (depth == 0 && angle <= 0 && is(t[a], ","))
                out.emplace_back();
            else if (t[a].kind == Kind::word && (!type_words().contains(t[a].text) || (angle <= 0 && out.back().empty() && (is(t[a + 1], ",") || a + 2 == close))))
                out.back().insert(t[a].text);
        }
        std::erase_if(out, [](const auto& p) { return p.empty(); });
        if (!out.empty()) return out;
    }
    return {};
}

/// A condition and what is done when it holds.
struct Branch {
    std::size_t condition = 0, condition_end = 0, body = 0, body_end = 0;
    bool is_case = false;    ///< "case 3:"
    bool is_result = false;  ///< "return a == 3 || …"
};

std::vector<Branch> branches_of(const Tokens& t, const std::vector<bool>& added, bool indents) {
    std::vector<Branch> out;
    const auto line_end = [&](std::size_t i) {
        const unsigned line = t[i].line;
        int depth = 0;
        for (; i < t.size(); ++i) {
            if (t[i].line != line && depth <= 0) return i;
            if (depth <= 0 && is(t[i], ";")) return i;
            depth += opens(t[i]) ? 1 : closes(t[i]) ? -1 : 0;
            if (depth < 0) return i;
        }
        return i;
    };
    const auto statement_end = [&](std::size_t i) {
        if (i >= t.size()) return i;
        if (is(t[i], "{")) return behind(t, i, t.size());
        if (indents) return line_end(i);
        int depth = 0;
        for (; i < t.size(); ++i) {
            if (depth == 0 && is(t[i], ";")) return i;
            depth += opens(t[i]) ? 1 : closes(t[i]) ? -1 : 0;
            if (depth < 0) return i;
        }
        return i;
    };
    for (std::size_t i = 0; i < t.size(); ++i) {
        if (t[i].line >= added.size() || !added[t[i].line]) continue;
        const auto w = t[i].kind == Kind::word ? t[i].text : std::string_view{};
        if (w == "if" || w == "elif" || w == "elsif" || w == "while") {
            Branch b;
            b.condition = i + 1;
            // "return X if C else Y"
            std::size_t start = i;
            while (start > 0 && t[start - 1].line == t[i].line) --start;
            if (indents && start < i && (is(t[start], "return") || t[start].kind == Kind::word) &&
                !is(t[start], "else")) {
                b.body = start, b.body_end = i;
                for (b.condition_end = i + 1; b.condition_end < t.size() && !is(t[b.condition_end], "else") &&
                                              t[b.condition_end].line == t[i].line;)
                    ++b.condition_end;
                out.push_back(b);
                continue;
            }
            if (i + 1 < t.size() && is(t[i + 1], "(") && !indents) {
                b.condition_end = behind(t, i + 1, t.size());
            } else {
                int depth = 0;
                for (b.condition_end = i + 1; b.condition_end < t.size(); ++b.condition_end) {
                    const Token& token = t[b.condition_end];
                    if (depth == 0 &&
                        ((indents && is(token, ":")) || (!indents && is(token, "{")) || is(token, "then")))
                        break;
                    depth += opens(token) ? 1 : closes(token) ? -1 : 0;
                }
            }
            b.body = b.condition_end;
            while (b.body < t.size() && (is(t[b.body], ":") || is(t[b.body], "then"))) ++b.body;
            b.body_end = statement_end(b.body);
            out.push_back(b);
        } else if (w == "case" || w == "when") {
            Branch b;
            b.is_case = true;
            b.condition = i + 1;
            for (b.condition_end = i + 1; b.condition_end < t.size() && !is(t[b.condition_end], ":") &&
                                          !is(t[b.condition_end], "->") && !is(t[b.condition_end], "=>") &&
                                          t[b.condition_end].line == t[i].line;)
                ++b.condition_end;
            b.body = std::min(b.condition_end + 1, t.size());
            // Several labels one behind the other share what follows.
            for (b.body_end = b.body; b.body_end < t.size(); ++b.body_end)
                if ((is(t[b.body_end], "case") && b.body_end > b.body && !is(t[b.body_end - 1], ":")) ||
                    is(t[b.body_end], "default") || is(t[b.body_end], "}"))
                    break;
            if (b.body < t.size() && is(t[b.body], "{")) b.body_end = behind(t, b.body, t.size());
            out.push_back(b);
        } else if (is(t[i], "?")) {
            Branch b;
            b.condition_end = i, b.condition = i;
            int depth = 0;
            while (b.condition > 0) {
                const Token& token = t[b.condition - 1];
                depth += closes(token) ? 1 : opens(token) ? -1 : 0;
                if (depth < 0 || (depth == 0 && (is(token, "return") || is(token, "=") || is(token, ";") ||
                                                 is(token, ",") || is(token, ":"))))
                    break;
                --b.condition;
            }
            b.body = i + 1;
            for (b.body_end = i + 1;
                 b.body_end < t.size() && !is(t[b.body_end], ":") && !is(t[b.body_end], ";");)
                ++b.body_end;
            out.push_back(b);
        } else if (w == "return") {
            Branch b;
            b.is_result = true;
            b.condition = i + 1;
            b.condition_end = indents ? line_end(i) : statement_end(i + 1);
            if (std::any_of(
                    t.begin() + static_cast<long>(std::min(b.condition, t.size())),
                    t.begin() + static_cast<long>(b.condition_end),
                    [](const Token& token) { return is(token, "?"); }
                ))
                continue;
            out.push_back(b);
        }
    }
    return out;
}

/// "x == 3", "x.size() == 3", "x[0] == 3", "x.equals(…)", of which parameter.
struct Comparison {
    std::size_t parameter = 0;
    enum class Of { whole, size, part } of = Of::whole;
    Values values;
    bool any = false;  ///< "x in (1, 2)": any of them
};

std::vector<Comparison> comparisons_of(
    const Tokens& t, const Branch& b, const std::vector<std::set<std::string_view>>& parameters
) {
    std::vector<Comparison> out;
    if (b.is_case) {
        if (parameters.size() == 1)
            out.push_back({0, Comparison::Of::whole, values_of(t, b.condition, b.condition_end), true});
        return out;
    }
    const auto side = [&](std::size_t first, std::size_t last, Comparison& ret) {
        bool found = false;
        int brackets = 0;
        for (std::size_t i = first; i < last; ++i) {
            brackets += is(t[i], "[") ? 1 : is(t[i], "]") ? -1 : 0;
            if (t[i].kind == Kind::mark && brackets == 0 &&
                (t[i].text == "%" || t[i].text == "*" || t[i].text == "/" || t[i].text == "+" ||
                 t[i].text == "-" || t[i].text == "<" || t[i].text == ">") &&
                !(i > first && i + 2 < last && is(t[i], "<") && is(t[i + 2], ">")) &&
                !(i > first + 1 && is(t[i], ">") && is(t[i - 2], "<")))
                return false;
            if (t[i].kind != Kind::word) {
                if (is(t[i], "[")) ret.of = Comparison::Of::part;
                continue;
            }
            for (std::size_t p = 0; p < parameters.size(); ++p)
                if (parameters[p].contains(t[i].text)) ret.parameter = p, found = true;
            const auto w = t[i].text;
            if (w == "size" || w == "length" || w == "len" || w == "count" || w == "strlen" ||
                w == "Length" || w == "Count")
                ret.of = Comparison::Of::size;
            if (w == "at" || w == "front" || w == "back" || w == "begin" || w == "get" || w == "charAt" ||
                w == "substr" || w == "next" || w == "any_cast")
                ret.of = Comparison::Of::part;
        }
        return found;
    };
    const auto splits = [](const Token& token) {
        return is(token, "&&") || is(token, "||") || is(token, "and") || is(token, "or");
    };
    for (std::size_t first = b.condition; first < b.condition_end;) {
        std::size_t last = first;
        while (last < b.condition_end && !splits(t[last])) ++last;
        for (std::size_t i = first; i < last; ++i) {
            const auto w = t[i].text;
            const bool call = i + 1 < last && is(t[i + 1], "(") && t[i].kind == Kind::word &&
                              (w == "equals" || w == "equal" || w == "strcmp" || w == "compare" ||
                               w == "memcmp" || w == "eq" || w == "isEqual" || w == "deepEqual" ||
                               w == "Equals" || w == "issame" || w == "equalsIgnoreCase");
            const bool mark =
                t[i].kind != Kind::string && (w == "==" || w == "===" || w == "is" || w == "in");
            if (!call && !mark) continue;
            Comparison c;
            c.any = w == "in";
            if (mark) {
                Comparison other;
                Values right = values_of(t, i + 1, last), left = values_of(t, first, i);
                if (side(first, i, c) && !right.empty()) {
                    c.values = std::move(right);
                    out.push_back(std::move(c));
                } else if (side(i + 1, last, other) && !left.empty()) {
                    other.values = std::move(left);
                    out.push_back(std::move(other));
                }
            } else if (side(first, i, c) || side(i + 2, last, c)) {
                c.values = values_of(t, i + 2, behind(t, i + 1, last));
                if (!c.values.empty()) out.push_back(std::move(c));
            }
            break;
        }
        first = last + 1;
    }
    return out;
}

struct Match {
    bool all = false;      ///< every argument of the case is compared with what the case has
    bool telling = false;  ///< and by a value that nobody writes by chance
    std::size_t count = 0;
};

Match match(const std::vector<Comparison>& comparisons, const Case& c, std::size_t parameters) {
    Match out;
    if (parameters != c.arguments.size()) return out;
    std::vector<bool> whole(parameters), size(parameters), part(parameters);
    for (const Comparison& one : comparisons) {
        const auto& argument = c.arguments[one.parameter];
        switch (one.of) {
            case Comparison::Of::whole: {
                const bool fits =
                    equal(one.values, argument.values) ||
                    (one.any && argument.values.size() == 1 && holds(one.values, argument.values[0]));
                if (!fits) break;
                whole[one.parameter] = true;
                ++out.count;
                out.telling = out.telling ||
                              std::any_of(argument.values.begin(), argument.values.end(), is_telling) ||
                              argument.values.size() >= 3;
                break;
            }
            case Comparison::Of::size:
                if (!holds(one.values, number(static_cast<double>(argument.count)))) break;
                size[one.parameter] = true;
                ++out.count;
                break;
            case Comparison::Of::part: {
                const bool text = argument.values.size() == 1 && argument.values[0].starts_with("s:");
                if (!std::all_of(one.values.begin(), one.values.end(), [&](const std::string& v) {
                        return holds(argument.values, v) || (text && v.starts_with("s:") &&
                                                             argument.values[0].find(v.substr(2), 2) != npos);
                    }))
                    break;
                part[one.parameter] = true;
                ++out.count;
                break;
            }
        }
    }
    out.all = true;
    for (std::size_t p = 0; p < parameters; ++p) {
        const auto& a = c.arguments[p];
        const bool one_element = a.count == 1 && part[p];
        const bool parts = part[p] && size[p];
        // "Is it empty", "has it two" alone are questions that a proper fix asks, too.
        const bool none = size[p] && out.count >= 2 && parameters >= 2;
        out.all = out.all && (whole[p] || parts || none || one_element || (part[p] && a.values.size() <= 2));
    }
    return out;
}

bool contains_run(const Values& all, const Values& run) {
    if (run.empty() || run.size() > all.size()) return false;
    return std::search(all.begin(), all.end(), run.begin(), run.end(), same_value) != all.end();
}

/// What is done holds literals and types alone.
bool literal_body(const Tokens& t, const Branch& b) {
    return std::none_of(
        t.begin() + static_cast<long>(b.body),
        t.begin() + static_cast<long>(b.body_end),
        [](const Token& token) {
            return token.kind == Kind::word && token.text != "return" && token.text != "true" &&
                   token.text != "false" && !type_words().contains(token.text);
        }
    );
}

std::string words(const Case& c) {
    return fmt::format("{}({} given) asserted at {}", c.function, c.arguments.size(), c.where);
}

}  // namespace

bool is_assertion_word(std::string_view word) {
    for (const std::string_view start :
         {"assert",
          "Assert",
          "ASSERT",
          "EXPECT",
          "expect",
          "REQUIRE",
          "CHECK",
          "BOOST_CHECK",
          "BOOST_REQUIRE",
          "BOOST_TEST",
          "should",
          "Should",
          "require_",
          "verify",
          "Verify",
          "STRCMP_EQUAL",
          "TEST_ASSERT"})
        if (word.starts_with(start)) return true;
    return false;
}

std::vector<bool> test_lines(const std::string& path, const std::string& content) {
    const auto lines = lines_of(content);
    std::vector<bool> out(lines.size(), false);
    const bool hash = has_hash_comments(path);
    const Tokens t = tokens_of(content, hash);
    const auto mark = [&](std::size_t first, std::size_t last) {
        for (std::size_t l = first; l <= last && l < out.size(); ++l) out[l] = true;
    };
    if (hash) {
        // By indentation: from a test's head to the next line that is not deeper.
        for (std::size_t l = 0; l < lines.size(); ++l) {
            const auto line = trim(lines[l]);
            const bool head = line.starts_with("def test") || line.starts_with("async def test") ||
                              line.starts_with("class Test") || line.starts_with("if __name__");
            if (!head || out[l]) continue;
            std::size_t end = l;
            bool any = false;
            for (std::size_t m = l + 1; m < lines.size(); ++m) {
                if (trim(lines[m]).empty()) continue;
                if (indentation(lines[m]).size() <= indentation(lines[l]).size()) break;
                end = m;
                for (const Token& token : tokens_of(lines[m], true))
                    any = any || (token.kind == Kind::word && is_assertion_word(token.text));
            }
            if (any) mark(l, end);
        }
        // Assertions at the top level.
        for (std::size_t l = 0; l < lines.size(); ++l)
            if (lines[l].starts_with("assert")) out[l] = true;
        return out;
    }
    for (std::size_t i = 0; i + 2 < t.size(); ++i) {
        const bool main_function =
            is(t[i], "main") && is(t[i + 1], "(") && i > 0 && (t[i - 1].kind == Kind::word);
        const bool rust = is(t[i], "cfg") && is(t[i + 1], "(") && is(t[i + 2], "test");
        if (!main_function && !rust) continue;
        std::size_t body = i;
        while (body < t.size() && !is(t[body], "{") && !is(t[body], ";")) ++body;
        if (body == t.size() || is(t[body], ";")) continue;
        const std::size_t end = behind(t, body, t.size());
        bool any = rust;
        for (std::size_t j = body; j < end; ++j)
            any = any || (t[j].kind == Kind::word && is_assertion_word(t[j].text));
        if (any) mark(t[i].line, t[end - 1].line);
    }
    // Assertions at the top level, as scripts have them.
    int depth = 0;
    for (const Token& token : t) {
        if (depth == 0 && token.kind == Kind::word && is_assertion_word(token.text) &&
            trim(lines[token.line]).starts_with(token.text))
            out[token.line] = true;
        depth += opens(token) ? 1 : closes(token) ? -1 : 0;
    }
    return out;
}

std::string find_special_case(
    const std::vector<FileChange>& changes, const std::vector<std::pair<std::string, std::string>>& tests
) {
    struct File {
        const FileChange* change;
        Tokens tokens;            ///< of the code after the patch
        std::vector<bool> added;  ///< per line: new, and not a line of the same shape with another literal
        Values given_up;          ///< literals of removed lines
        bool indents = false;
    };
    std::vector<File> files;
    std::set<std::string, std::less<>> functions;
    std::vector<Case> cases;
    std::set<std::string> made;
    for (const FileChange& c : changes) {
        if (!c.after || c.before == c.after) continue;
        File file;
        file.change = &c;
        file.indents = has_hash_comments(c.path);
        const std::string before = c.before.value_or("");
        const auto own = test_lines(c.path, *c.after), own_before = test_lines(c.path, before);
        file.tokens = tokens_of(*c.after, file.indents);
        std::erase_if(file.tokens, [&](const Token& t) { return t.line < own.size() && own[t.line]; });
        const auto a = lines_of(before), b = lines_of(*c.after);
        file.added.assign(b.size(), false);
        std::map<std::string, int> shapes;
        std::vector<std::string> removed;
        for (std::size_t l = 0; l < a.size(); ++l)
            if (!own_before[l]) ++shapes[shape_of(a[l], file.indents)];
        const auto diff = diff_lines(a, b);
        for (const LineChange& d : diff) {
            if (d.kind != LineChange::Kind::removed) continue;
            removed.push_back(shape_of(a[d.before], file.indents));
            const auto v = values_of(
                tokens_of(a[d.before], file.indents), 0, tokens_of(a[d.before], file.indents).size()
            );
            file.given_up.insert(file.given_up.end(), v.begin(), v.end());
        }
        for (const LineChange& d : diff) {
            if (d.kind != LineChange::Kind::added || (d.after < own.size() && own[d.after])) continue;
            const auto shape = shape_of(b[d.after], file.indents);
            // Another literal in a line that was there, or one more row of a table that was there, is a
            // correction of data.
            if (const auto it = std::find(removed.begin(), removed.end(), shape); it != removed.end()) {
                removed.erase(it);
                continue;
            }
            if (const auto it = shapes.find(shape);
                it != shapes.end() && it->second >= 4 && shape.find('#') != npos)
                continue;
            file.added[d.after] = true;
        }
        for (std::size_t i = 0; i + 1 < file.tokens.size(); ++i)
            if (file.tokens[i].kind == Kind::word && is(file.tokens[i + 1], "("))
                functions.emplace(file.tokens[i].text);
        files.push_back(std::move(file));
    }
    for (const char* common :
         {"abs",    "fabs",   "size",   "length", "len",    "str",       "int",  "float", "string",
          "vector", "list",   "round",  "sort",   "sorted", "push_back", "main", "if",    "for",
          "while",  "switch", "return", "equal",  "sizeof", "and",       "or",   "not"})
        functions.erase(common);
    for (const File& file : files) {
        // Tests that stand beside the code count as they were before the patch.
        const std::string before = file.change->before.value_or("");
        const auto own = test_lines(file.change->path, before);
        if (std::find(own.begin(), own.end(), true) != own.end())
            read_cases(file.change->path, before, &own, functions, cases, made);
    }
    for (const auto& [path, content] : tests) {
        if (std::any_of(changes.begin(), changes.end(), [&p = path](const FileChange& c) {
                return c.path == p;
            }))
            continue;
        read_cases(path, content, nullptr, functions, cases, made);
    }

    for (const File& file : files) {
        const Tokens& t = file.tokens;
        Tokens fresh;
        std::copy_if(t.begin(), t.end(), std::back_inserter(fresh), [&](const Token& token) {
            return token.line < file.added.size() && file.added[token.line];
        });
        if (fresh.empty()) continue;
        const Values added = values_of(fresh, 0, fresh.size());
        Values introduced;
        for (const auto& v : added)
            if (!holds(file.given_up, v)) introduced.push_back(v);
        const auto place = [&](unsigned line) {
            return fmt::format("{}, line {},", file.change->path, line + 1);
        };

        // 1. Conditions that ask for what a test puts in.
        const auto branches = branches_of(t, file.added, file.indents);
        std::map<std::string, std::vector<std::set<std::string_view>>> parameters;
        for (const Case& c : cases)
            if (!parameters.contains(c.function))
                parameters.emplace(c.function, parameters_of(t, c.function));
        for (const Branch& b : branches) {
            Values answer = b.is_result ? Values{"b:true"} : values_of(t, b.body, b.body_end);
            for (const Case& c : cases) {
                const auto& p = parameters[c.function];
                if (p.empty()) continue;
                const auto comparisons = comparisons_of(t, b, p);
                if (comparisons.empty()) continue;
                const Match m = match(comparisons, c, p.size());
                const bool answers = !answer.empty() && within(answer, c.expected);
                const bool literal_result = b.is_result && m.telling;
                if ((m.all && (m.telling || (answers && !b.is_result))) || (m.telling && answers) ||
                    (m.all && literal_result))
                    return fmt::format(
                        "{} compares with the input of a test ({}) instead of computing",
                        place(t[std::min(b.condition, t.size() - 1)].line),
                        words(c)
                    );
            }
            // The tests make this function's inputs; one of them, written down, is none that a fix has to
            // know.
            for (const auto& function : made) {
                if (b.is_result || answer.empty() ||
                    std::any_of(cases.begin(), cases.end(), [&](const Case& c) {
                        return c.function == function;
                    }))
                    continue;
                const auto p = parameters_of(t, function);
                for (const Comparison& c : comparisons_of(t, b, p))
                    if (c.of == Comparison::Of::whole &&
                        (c.values.size() >= 3 || std::any_of(c.values.begin(), c.values.end(), is_telling)) &&
                        literal_body(t, b))
                        return fmt::format(
                            "{} compares with one input of {} and returns a literal",
                            place(t[b.condition].line),
                            function
                        );
            }
            // Asking a value, element by element, for one input in the world; also where the tests make their
            // inputs.
            if (b.is_result || answer.empty()) continue;
            std::size_t equalities = 0;
            for (std::size_t i = b.condition; i < b.condition_end; ++i)
                if (is(t[i], "==") && i + 1 < b.condition_end &&
                    (t[i + 1].kind == Kind::number || t[i + 1].kind == Kind::string || is(t[i + 1], "-")))
                    ++equalities;
            if (equalities >= 4 && literal_body(t, b))
                return fmt::format(
                    "{} compares with one input, part by part, and returns a literal",
                    place(t[b.condition].line)
                );
        }

        // 2. Input and answer of a test stand in the patch, in whatever form.
        std::set<std::string> pairs;
        std::size_t different = 0;
        std::set<std::string> all;
        const Case* first = nullptr;
        for (const Case& c : cases) {
            Values run = c.inputs;
            run.insert(run.end(), c.expected.begin(), c.expected.end());
            const std::string key = fmt::format("{}", fmt::join(run, "\n"));
            if (!all.insert(key).second) continue;
            ++different;
            const bool telling = std::any_of(
                                     c.inputs.begin(),
                                     c.inputs.end(),
                                     [](const std::string& v) {
                                         return is_telling(v) && (v.starts_with("s:") || v.size() >= 5);
                                     }
                                 ) ||
                                 (c.inputs.size() >= 3 && contains_run(introduced, c.inputs));
            Values expected = c.expected;
            std::erase_if(expected, [](const std::string& v) { return v.starts_with("b:"); });
            if (telling && within(c.inputs, introduced) && within(expected, added))
                return fmt::format(
                    "{} holds input and answer of a test ({})", place(fresh.front().line), words(c)
                );
            if (contains_run(introduced, run)) {
                pairs.insert(key);
                if (first == nullptr) first = &c;
            }
        }
        if (first != nullptr && (pairs.size() >= 2 || different == 1))
            return fmt::format(
                "{} lists inputs and answers of tests ({})", place(fresh.front().line), words(*first)
            );
        // Tables beside each other: the inputs of several tests one behind the other.
        for (std::size_t i = 0; i + 2 < cases.size(); ++i) {
            Values run;
            std::set<std::string> kinds;
            for (std::size_t j = i; j < i + 3; ++j) {
                run.insert(run.end(), cases[j].inputs.begin(), cases[j].inputs.end());
                kinds.insert(fmt::format("{}", fmt::join(cases[j].inputs, "\n")));
            }
            if (kinds.size() == 3 && contains_run(introduced, run))
                return fmt::format(
                    "{} lists the inputs of tests ({})", place(fresh.front().line), words(cases[i])
                );
        }
    }
    return {};
}

}  // namespace heal::vcs
