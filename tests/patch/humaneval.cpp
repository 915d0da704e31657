// Patches as models write them, over the C++ programs of HumanEvalPack: `humaneval edits|gates [FILE]`.
// Prints the tables of docs/adr/0040; ends with 1 when a promise is broken, 77 when the data are not there.
#include "base/files.hpp"
#include "base/json.hpp"
#include "vcs/edit.hpp"
#include "vcs/gates.hpp"
#include "vcs/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

using namespace heal;
using namespace heal::vcs;

namespace {

struct Program {
    std::string id, declaration, buggy, canonical, test;
};

std::vector<Program> read_programs(const std::string& path) {
    SystemFiles files;
    const auto text = files.read(path, 64U << 20U);
    std::vector<Program> out;
    if (!text) return out;
    for (const auto line : lines_of(*text)) {
        const auto parsed = parse_json(line, path);
        if (!parsed) continue;
        const auto& o = parsed->as_object();
        Program p{
            std::string{string_at(o, "task_id")},
            std::string{string_at(o, "declaration")},
            std::string{string_at(o, "buggy_solution")},
            std::string{string_at(o, "canonical_solution")},
            std::string{string_at(o, "test")}};
        // Their tests do not tell the bug, or need other includes.
        if (p.id != "CPP/23" && p.id != "CPP/38") out.push_back(std::move(p));
    }
    return out;
}

// --- edits -------------------------------------------------------------------------------------------------

struct DiffLine {
    char mark;
    std::string text;
};
struct Hunk {
    unsigned before = 0, after = 0;
    std::vector<DiffLine> lines;
};

/// As `diff -U3`.
std::vector<Hunk> hunks_of(const std::string& before, const std::string& after) {
    const auto a = lines_of(before), b = lines_of(after);
    const auto ops = diff_lines(a, b);
    std::vector<Hunk> out;
    std::vector<bool> shown(ops.size(), false);
    for (std::size_t i = 0; i < ops.size(); ++i)
        if (ops[i].kind != LineChange::Kind::same)
            for (std::size_t j = i > 3 ? i - 3 : 0; j <= i + 3 && j < ops.size(); ++j) shown[j] = true;
    for (std::size_t i = 0; i < ops.size(); ++i) {
        if (!shown[i]) continue;
        if (i == 0 || !shown[i - 1]) out.push_back({ops[i].before + 1, ops[i].after + 1, {}});
        const bool added = ops[i].kind == LineChange::Kind::added;
        out.back().lines.push_back(
            {ops[i].kind == LineChange::Kind::same ? ' '
             : added                               ? '+'
                                                   : '-',
             std::string{added ? b[ops[i].after] : a[ops[i].before]}}
        );
    }
    return out;
}

std::string stripped(std::string_view line) { return std::string{line.substr(indentation(line).size())}; }

std::string diff_text(const std::vector<Hunk>& hunks, const std::string& defect, std::mt19937& random) {
    std::string out = "--- a/solution.cpp\n+++ b/solution.cpp\n";
    for (const Hunk& h : hunks) {
        unsigned olds = 0, news = 0;
        for (const auto& l : h.lines) olds += l.mark != '+', news += l.mark != '-';
        if (defect == "@@ ... @@")
            out += "@@ ... @@\n";
        else if (defect == "wrong line numbers")
            out += fmt::format("@@ -{},{} +{},{} @@\n", h.before + 17, olds, h.after + 23, news);
        else if (defect == "wrong counts in @@")
            out += fmt::format("@@ -{},{} +{},{} @@\n", h.before, olds + 3, h.after, news + 1);
        else
            out += fmt::format("@@ -{},{} +{},{} @@\n", h.before, olds, h.after, news);
        std::vector<std::size_t> context;
        for (std::size_t i = 0; i < h.lines.size(); ++i)
            if (h.lines[i].mark == ' ') context.push_back(i);
        const std::size_t replaced = context.empty() ? h.lines.size() : context[random() % context.size()];
        for (std::size_t i = 0; i < h.lines.size(); ++i) {
            const auto& [mark, text] = h.lines[i];
            if (defect == "one context line is \"... existing code ...\"" && i == replaced)
                out += std::string(1, ' ') + std::string{indentation(text)} + "// ... existing code ...\n";
            else if (defect == "blank context lines bare" && mark == ' ' && trim(text).empty())
                out += "\n";
            else if (defect == "context lost its indentation" && mark == ' ')
                out += " " + stripped(text) + "\n";
            else if (defect == "all indentation lost")
                out += mark + stripped(text) + "\n";
            else
                out += mark + text + "\n";
        }
    }
    return out;
}

std::string block_text(const std::vector<Hunk>& hunks, const std::string& defect, std::mt19937& random) {
    std::string out = "The fix:\n\n";
    for (const Hunk& h : hunks) {
        std::string search, replace;
        std::vector<std::size_t> context;
        for (std::size_t i = 0; i < h.lines.size(); ++i)
            if (h.lines[i].mark == ' ') context.push_back(i);
        const std::size_t replaced = context.empty() ? h.lines.size() : context[random() % context.size()];
        for (std::size_t i = 0; i < h.lines.size(); ++i) {
            const auto& [mark, text] = h.lines[i];
            std::string line = text;
            if (defect == "one context line is \"... existing code ...\"" && i == replaced)
                line = std::string{indentation(text)} + "// ... existing code ...";
            else if (defect == "blank context lines bare" && mark == ' ' && trim(text).empty())
                line.clear();
            else if ((defect == "context lost its indentation" && mark == ' ') || defect == "all indentation lost")
                line = stripped(text);
            if (mark != '+') search += line + "\n";
            if (mark != '-') replace += line + "\n";
        }
        out += "solution.cpp\n```cpp\n<<<<<<< SEARCH\n" + search + "=======\n" + replace +
               ">>>>>>> REPLACE\n```\n\n";
    }
    return out;
}

std::string without_indentation(const std::string& text) {
    std::string out;
    for (const auto line : lines_of(text)) (out += trim(line)) += '\n';
    return out;
}

int run_edits(const std::vector<Program>& programs) {
    const std::vector<std::string> defects{
        "none",
        "wrong line numbers",
        "blank context lines bare",
        "wrong counts in @@",
        "@@ ... @@",
        "context lost its indentation",
        "one context line is \"... existing code ...\"",
        "all indentation lost"};
    unsigned rights = 0, wrongs = 0, all = 0;
    fmt::print(
        "{:<46} {:>8} {:>8} {:>8} {:>10} | {:>8} {:>8} {:>8} {:>10}\n",
        "defect",
        "diff",
        "refused",
        "wrong",
        "bytes same",
        "blocks",
        "refused",
        "wrong",
        "bytes same"
    );
    for (const auto& defect : defects) {
        unsigned figures[2][4] = {};
        for (const bool blocks : {false, true}) {
            std::mt19937 random{7};
            for (const Program& p : programs) {
                const std::string before = p.declaration + p.buggy + p.test,
                                  after = p.declaration + p.canonical + p.test;
                const auto hunks = hunks_of(before, after);
                const auto text =
                    blocks ? block_text(hunks, defect, random)
                           : "Here is the fix.\n\n```diff\n" + diff_text(hunks, defect, random) + "```\n";
                auto& [right, refused, wrong, same] = figures[blocks ? 1 : 0];
                const auto edits = parse_edits(text);
                std::optional<std::string> content;
                if (edits) {
                    const auto done =
                        apply_edits(*edits, [&](const std::string& path) -> result<std::string> {
                            if (path != "solution.cpp") return fail(errc::not_found, path);
                            return before;
                        });
                    if (done)
                        content = done->at("solution.cpp");
                    else if (std::getenv("HEAL_VERBOSE") != nullptr)
                        fmt::print("{} {}: {}\n{}\n", p.id, defect, done.error().text, text);
                } else if (std::getenv("HEAL_VERBOSE") != nullptr) {
                    fmt::print("{} {}: {}\n", p.id, defect, edits.error().text);
                }
                ++all;
                const bool fits = content && (*content == after ||
                                              (defect.find("indentation") != std::string::npos &&
                                               without_indentation(*content) == without_indentation(after)));
                if (!content)
                    ++refused;
                else if (fits)
                    ++right, ++rights;
                else {
                    ++wrong, ++wrongs;
                    fmt::print(
                        "WRONG {} {} {}\n{}\n{}\n", p.id, defect, blocks ? "blocks" : "diff", text, *content
                    );
                }
                same += content && *content == after;
            }
        }
        fmt::print("{:<46}", defect);
        for (const auto& f : figures)
            fmt::print(
                " {:>8} {:>8} {:>8} {:>10} {}", f[0], f[1], f[2], f[3], &f == &figures[0] ? "|" : "\n"
            );
    }
    // Every context line of every diff, one at a time.
    unsigned tried = 0, right = 0, refused = 0, wrong = 0;
    for (const Program& p : programs) {
        const std::string before = p.declaration + p.buggy + p.test,
                          after = p.declaration + p.canonical + p.test;
        const auto hunks = hunks_of(before, after);
        for (std::size_t h = 0; h < hunks.size(); ++h)
            for (std::size_t i = 0; i < hunks[h].lines.size(); ++i) {
                if (hunks[h].lines[i].mark != ' ') continue;
                for (const char* words : {"// ... existing code ...", "...", "invented_by_the_model();"}) {
                    auto changed = hunks;
                    changed[h].lines[i].text = words;
                    std::mt19937 random{1};
                    const auto edits = parse_edits(diff_text(changed, "none", random));
                    ++tried;
                    if (!edits) {
                        ++refused;
                        continue;
                    }
                    const auto done = apply_edits(*edits, [&](const std::string&) -> result<std::string> {
                        return before;
                    });
                    if (!done)
                        ++refused;
                    else if (done->at("solution.cpp") == after)
                        ++right;
                    else {
                        ++wrong;
                        fmt::print("WRONG {}\n{}\n", p.id, diff_text(changed, "none", random));
                    }
                }
            }
    }
    fmt::print(
        "each context line replaced in turn, three ways: {} tried, {} right, {} refused, {} wrong\n",
        tried,
        right,
        refused,
        wrong
    );
    const double share = 100.0 * rights / all;
    fmt::print(
        "{} programs, {} texts: {:.2f} % right, {} wrong files\n", programs.size(), all, share, wrongs + wrong
    );
    return wrongs + wrong == 0 && share >= 97 ? 0 : 1;
}

// --- special cases
// -------------------------------------------------------------------------------------------

struct Assertion {
    std::vector<std::string> arguments;
    std::string expected;
};
struct Signature {
    std::string name, returns;
    std::vector<std::pair<std::string, std::string>> parameters;  ///< type, name
};

std::vector<std::string> split_top(std::string_view text) {
    std::vector<std::string> out(1);
    int depth = 0;
    bool quoted = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (c == '"' && (i == 0 || text[i - 1] != '\\')) quoted = !quoted;
        if (!quoted) {
            depth += c == '(' || c == '{' || c == '<' || c == '['   ? 1
                     : c == ')' || c == '}' || c == '>' || c == ']' ? -1
                                                                    : 0;
            if (c == ',' && depth == 0) {
                out.emplace_back();
                continue;
            }
        }
        out.back() += c;
    }
    for (auto& s : out) s = std::string{trim(s)};
    if (out.size() == 1 && out[0].empty()) out.clear();
    return out;
}

std::size_t closing(std::string_view text, std::size_t open) {
    int depth = 0;
    bool quoted = false, character = false;
    for (std::size_t i = open; i < text.size(); ++i) {
        const char c = text[i];
        if (c == '"' && !character && text[i - 1] != '\\') quoted = !quoted;
        if (c == '\'' && !quoted) character = !character;
        if (quoted || character) continue;
        depth += c == '(' ? 1 : c == ')' ? -1 : 0;
        if (depth == 0) return i;
    }
    return std::string_view::npos;
}

Signature signature_of(const Program& p) {
    Signature s;
    const auto lines = lines_of(p.declaration);
    std::string head;
    for (std::size_t i = lines.size(); i-- > 0;)
        if (!trim(lines[i]).empty()) {
            head = trim(lines[i]);
            break;
        }
    const auto open = head.find('(');
    const auto close = head.rfind(')');
    const auto before = trim(std::string_view{head}.substr(0, open));
    const auto blank = before.find_last_of(" >*&");
    s.name = before.substr(blank + 1);
    s.returns = trim(before.substr(0, blank + 1));
    for (const auto& part : split_top(std::string_view{head}.substr(open + 1, close - open - 1))) {
        const auto cut = part.find_last_of(" >*&");
        s.parameters.emplace_back(trim(std::string_view{part}.substr(0, cut + 1)), part.substr(cut + 1));
    }
    return s;
}

std::vector<Assertion> assertions_of(const Program& p, const Signature& s) {
    std::vector<Assertion> out;
    std::map<std::string, std::string> variables;
    for (std::size_t i = 0; i < p.test.size(); ++i) {
        const auto rest = std::string_view{p.test}.substr(i);
        if (rest.starts_with("=") && i + 1 < p.test.size() && p.test[i + 1] == '{') {
            auto from = p.test.rfind(' ', i);
            variables[p.test.substr(from + 1, i - from - 1)] =
                p.test.substr(i + 1, p.test.find(';', i) - i - 1);
        }
        if (!rest.starts_with("assert") ||
            (i > 0 && std::isalnum(static_cast<unsigned char>(p.test[i - 1])) != 0) ||
            rest.starts_with("assert.h"))
            continue;
        const auto open = p.test.find('(', i), close = closing(p.test, open);
        const auto call = p.test.find(s.name + "(", open);
        if (close == std::string::npos || call == std::string::npos || call > close) continue;
        const auto call_open = call + s.name.size(), call_close = closing(p.test, call_open);
        Assertion a;
        a.arguments = split_top(std::string_view{p.test}.substr(call_open + 1, call_close - call_open - 1));
        for (auto& argument : a.arguments)
            if (const auto it = variables.find(argument); it != variables.end()) argument = it->second;
        auto tail =
            std::string{trim(std::string_view{p.test}.substr(call_close + 1, close - call_close - 1))};
        while (tail.starts_with(")")) tail = trim(std::string_view{tail}.substr(1));
        if (tail.starts_with("=="))
            a.expected = trim(std::string_view{tail}.substr(2));
        else if (tail.starts_with(","))
            a.expected = trim(std::string_view{tail}.substr(1));
        else if (tail.starts_with("-"))
            a.expected = trim(std::string_view{tail}.substr(
                1, tail.find('<') == std::string::npos ? tail.find('>') : tail.find('<') - 1
            ));
        else if (tail.starts_with("+"))
            a.expected = "-" + std::string{trim(std::string_view{tail}.substr(1, tail.find(')') - 1))};
        else
            a.expected = "true";
        // What closes the parenthesis around the call.
        int depth = 0;
        for (std::size_t c = 0; c < a.expected.size(); ++c) {
            depth += a.expected[c] == '(' ? 1 : a.expected[c] == ')' ? -1 : 0;
            if (depth < 0) {
                a.expected.resize(c);
                break;
            }
        }
        a.expected = trim(a.expected);
        const bool literal =
            std::all_of(a.arguments.begin(), a.arguments.end(), [](const std::string& argument) {
                return !argument.empty() &&
                       (std::isdigit(static_cast<unsigned char>(argument[0])) != 0 ||
                        std::string_view{"{\"-'("}.find(argument[0]) != std::string_view::npos ||
                        argument == "true" || argument == "false");
            });
        if (literal && a.arguments.size() == s.parameters.size() && !a.expected.empty() &&
            (std::isalpha(static_cast<unsigned char>(a.expected[0])) == 0 || a.expected == "true" ||
             a.expected == "false"))
            out.push_back(std::move(a));
        i = close;
    }
    return out;
}

std::string plain_type(std::string type) {
    for (const char* word : {"const ", "&"})
        for (auto at = type.find(word); at != std::string::npos; at = type.find(word))
            type.erase(at, std::string{word}.size());
    return std::string{trim(type)};
}

std::string whole_condition(const Signature& s, const Assertion& a) {
    std::string out;
    for (std::size_t i = 0; i < s.parameters.size(); ++i) {
        const auto& [type, name] = s.parameters[i];
        out += (i > 0 ? " && " : "") + name + " == " +
               (a.arguments[i].starts_with("{") ? plain_type(type) + a.arguments[i] : a.arguments[i]);
    }
    return out;
}

/// By size and elements; nullopt when there is no container with elements.
std::optional<std::string> parts_condition(const Signature& s, const Assertion& a) {
    std::string out;
    bool any = false;
    for (std::size_t i = 0; i < s.parameters.size(); ++i) {
        const auto& name = s.parameters[i].second;
        const auto& argument = a.arguments[i];
        if (!out.empty()) out += " && ";
        if (argument.starts_with("{")) {
            const auto elements = split_top(std::string_view{argument}.substr(1, argument.rfind('}') - 1));
            out += fmt::format("{}.size() == {}", name, elements.size());
            for (std::size_t e = 0; e < elements.size(); ++e) {
                if (elements[e].starts_with("{") || elements[e].empty()) continue;
                out += fmt::format(" && {}[{}] == {}", name, e, elements[e]);
                any = true;
            }
        } else if (argument.starts_with("\"") && argument.size() > 2 && argument.find('\\') == std::string::npos) {
            out += fmt::format("{}.length() == {}", name, argument.size() - 2);
            for (std::size_t e = 1; e + 1 < argument.size() && e < 6; ++e)
                out += fmt::format(" && {}[{}] == '{}'", name, e - 1, argument[e]);
            any = true;
        } else {
            out += name + " == " + argument;
            any = true;
        }
    }
    return any ? std::optional{out} : std::nullopt;
}

struct Attack {
    std::string variant, code;
};

std::vector<Attack> attacks_of(const Signature& s, const std::vector<Assertion>& assertions) {
    std::vector<Attack> out;
    std::string all, all_parts, table_inputs, rows, cases;
    bool integers =
        s.parameters.size() == 1 && (s.parameters[0].first == "int" || s.parameters[0].first == "long long");
    for (const Assertion& a : assertions) {
        const auto one = fmt::format("    if ({}) return {};\n", whole_condition(s, a), a.expected);
        out.push_back({"one if", one});
        out.push_back(
            {"one if, block",
             fmt::format("    if ({}) {{\n        return {};\n    }}\n", whole_condition(s, a), a.expected)}
        );
        all += one;
        if (auto parts = parts_condition(s, a)) {
            out.push_back({"size and elements", fmt::format("    if ({}) return {};\n", *parts, a.expected)});
            all_parts += fmt::format("    if ({}) return {};\n", *parts, a.expected);
        }
        std::string key;
        for (std::size_t i = 0; i < a.arguments.size(); ++i) key += (i > 0 ? ", " : "") + a.arguments[i];
        rows +=
            fmt::format("        {{{}, {}}},\n", a.arguments.size() > 1 ? "{" + key + "}" : key, a.expected);
        cases += fmt::format("        case {}: return {};\n", key, a.expected);
    }
    out.push_back({"ifs for all", all});
    if (!all_parts.empty()) out.push_back({"size and elements, all", all_parts});
    std::string type, key;
    for (const auto& [t, n] : s.parameters)
        type += (type.empty() ? "" : ", ") + plain_type(t), key += (key.empty() ? "" : ", ") + n;
    if (s.parameters.size() > 1) type = "tuple<" + type + ">", key = "{" + key + "}";
    out.push_back(
        {"table",
         fmt::format(
             "    static const map<{}, {}> known = {{\n{}    }};\n    const auto it = known.find({});\n    "
             "if (it != known.end()) return it->second;\n",
             type,
             s.returns,
             rows,
             key
         )}
    );
    if (integers)
        out.push_back(
            {"switch",
             fmt::format(
                 "    switch ({}) {{\n{}        default: break;\n    }}\n", s.parameters[0].second, cases
             )}
        );
    return out;
}

int run_gates(const std::vector<Program>& programs) {
    struct Figures {
        unsigned tried = 0, missed = 0;
    };
    std::map<std::string, Figures> figures;
    unsigned without = 0, fixes_refused = 0, programs_missed = 0;
    for (const Program& p : programs) {
        const Signature s = signature_of(p);
        const auto assertions = assertions_of(p, s);
        if (assertions.empty()) {
            ++without;
            fmt::print("{}: no assertion with literal input and answer\n", p.id);
        }
        bool missed = false;
        for (const bool apart : {false, true}) {
            const std::string end = apart ? "" : p.test;
            std::vector<std::pair<std::string, std::string>> tests;
            if (apart)
                tests.emplace_back("tests/solution_test.cpp", "#include \"../solution.cpp\"\n" + p.test);
            const std::string before = p.declaration + p.buggy + end;
            const auto refused = [&](const std::string& after, bool any) {
                const auto verdicts =
                    check_gates({{"solution.cpp", before, after, 0100644, 0100644}}, {}, tests);
                for (const auto& v : verdicts)
                    if (!v.ok && (any || v.gate == "special_case")) return v.gate + ": " + v.reason;
                return std::string{};
            };
            if (const auto why = refused(p.declaration + p.canonical + end, true); !why.empty()) {
                ++fixes_refused;
                fmt::print("REFUSED FIX {} {}: {}\n", p.id, apart ? "apart" : "one file", why);
            }
            auto attacks = attacks_of(s, assertions);
            if (assertions.empty()) {
                // Inputs that the test makes: one of them, written down.
                const bool text = s.parameters[0].first == "string";
                attacks = {
                    {"made inputs",
                     text ? fmt::format(
                                "    if ({} == \"qzkwlp\") return \"lufrgk\";\n", s.parameters[0].second
                            )
                          : fmt::format(
                                "    if ({0}.size() == 4 && {0}[0] == -7 && {0}[1] == 3 && {0}[2] == 9 && "
                                "{0}[3] == -4) return 0.61803;\n",
                                s.parameters[0].second
                            )}};
            }
            for (const Attack& a : attacks) {
                auto& f = figures[a.variant + (apart ? ", tests apart" : "")];
                ++f.tried;
                if (refused(p.declaration + a.code + p.buggy + end, false).empty()) {
                    ++f.missed;
                    missed = true;
                    if (std::getenv("HEAL_VERBOSE") != nullptr)
                        fmt::print("MISSED {} {}\n{}", p.id, a.variant, a.code);
                }
            }
        }
        programs_missed += missed;
    }
    unsigned missed = 0;
    fmt::print("{:<40} {:>8} {:>8}\n", "special case", "tried", "missed");
    for (const auto& [name, f] : figures) {
        fmt::print("{:<40} {:>8} {:>8}\n", name, f.tried, f.missed);
        missed += f.missed;
    }
    fmt::print(
        "{} programs ({} whose tests make their inputs), {} with a special case that passes, {} of {} fixes "
        "refused\n",
        programs.size(),
        without,
        programs_missed,
        fixes_refused,
        2 * programs.size()
    );
    return missed == 0 && fixes_refused == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string what = argc > 1 ? argv[1] : "";
    const char* given = std::getenv("HEAL_HUMANEVAL");
    const std::string path = argc > 2           ? argv[2]
                             : given != nullptr ? given
                                                : HEAL_SOURCE "/../shared/data/humanevalpack/cpp.jsonl";
    const auto programs = read_programs(path);
    if (programs.empty()) {
        fmt::print("HumanEvalPack is not at {}; give the file as argument or by HEAL_HUMANEVAL\n", path);
        return 77;
    }
    if (what == "edits") return run_edits(programs);
    if (what == "gates") return run_gates(programs);
    fmt::print(stderr, "usage: humaneval edits|gates [FILE]\n");
    return 2;
}
