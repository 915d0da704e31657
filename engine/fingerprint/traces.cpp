#include "fingerprint/traces.hpp"

#include "fingerprint/chars.hpp"
#include "fingerprint/fingerprint.hpp"

#include <algorithm>
#include <array>

namespace heal::fingerprint {
namespace {

constexpr std::size_t max_text = 64 * 1024;  // the longest traces of the JVM with 1024 frames stay below
constexpr std::size_t max_frames = 64;
constexpr std::size_t max_chain = 8;
constexpr std::size_t app_frames = 5;

std::string_view trim(std::string_view s) noexcept {
    while (!s.empty() && is_space(s.front())) s.remove_prefix(1);
    while (!s.empty() && is_space(s.back())) s.remove_suffix(1);
    return s;
}

bool starts(std::string_view s, std::string_view with) noexcept { return s.substr(0, with.size()) == with; }
bool ends(std::string_view s, std::string_view with) noexcept {
    return s.size() >= with.size() && s.substr(s.size() - with.size()) == with;
}
bool has(std::string_view s, std::string_view part) noexcept {
    return s.find(part) != std::string_view::npos;
}

std::string_view base_name(std::string_view path) noexcept {
    const std::size_t slash = path.find_last_of("/\\");
    return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

bool all_digits(std::string_view s) noexcept {
    return !s.empty() && std::all_of(s.begin(), s.end(), is_digit);
}

/// Drops <…> and […] groups: template arguments and generics.
std::string without_groups(std::string_view s) {
    std::string out;
    int depth = 0;
    for (std::size_t i = 0; i < s.size(); ++i) {
        const char c = s[i];
        if (c == '<' || c == '[') {
            // operator< and operator<< are names.
            if (c == '<' && depth == 0 && ends(out, "operator")) {
                out += c;
                if (i + 1 < s.size() && s[i + 1] == '<') out += s[++i];
                continue;
            }
            ++depth;
        } else if ((c == '>' || c == ']') && depth > 0) {
            --depth;
        } else if (depth == 0) {
            out += c;
        }
    }
    return out;
}

/// Numbers that compilers and runtimes put into names become '#': lambda$run$3, $fn__1234, func1,
/// GeneratedMethodAccessor12.
std::string without_counters(std::string_view s) {
    std::string out;
    for (std::size_t i = 0; i < s.size();) {
        if (!is_digit(s[i])) {
            out += s[i++];
            continue;
        }
        std::size_t e = i;
        while (e < s.size() && is_digit(s[e])) ++e;
        const bool generated = i > 0 && (s[i - 1] == '$' || s[i - 1] == '_' || s[i - 1] == '-' ||
                                         s[i - 1] == '.' || s[i - 1] == '@');
        // Long runs and runs behind a generator's mark carry nothing; a digit inside a name (utf8, base64) is
        // the name.
        if (generated || e - i >= 5)
            out += '#';
        else
            out.append(s.substr(i, e - i));
        i = e;
    }
    return out;
}

/// main.4f3a2b1c.js -> main.js, app-DqL3kx9f.mjs -> app.mjs, libfoo.so.1.2 -> libfoo.so: hashes of builds and
/// versions go.
std::string file_module(std::string_view path) {
    std::string_view name = base_name(path);
    if (const std::size_t query = name.find_first_of("?#"); query != std::string_view::npos)
        name = name.substr(0, query);
    const std::size_t dot = name.rfind('.');
    std::string_view stem = dot == std::string_view::npos || dot == 0 ? name : name.substr(0, dot);
    const std::string_view extension =
        dot == std::string_view::npos || dot == 0 ? std::string_view{} : name.substr(dot);
    if (const std::size_t so = name.find(".so");
        so != std::string_view::npos && (so + 3 == name.size() || name[so + 3] == '.'))
        return std::string{name.substr(0, so + 3)};
    for (int round = 0; round < 2; ++round) {
        const std::size_t mark = stem.find_last_of(".-_");
        if (mark == std::string_view::npos || mark == 0) break;
        const std::string_view tail = stem.substr(mark + 1);
        bool digit = false, upper = false, lower = false, word = true;
        for (const char c : tail) {
            digit = digit || is_digit(c);
            upper = upper || is_upper(c);
            lower = lower || (c >= 'a' && c <= 'z');
            word = word && (is_alpha(c) || is_digit(c));
        }
        const bool hash =
            word && ((tail.size() >= 6 && digit && (upper || lower)) || (tail.size() == 8 && upper && lower));
        if (!hash && !all_digits(tail)) break;
        stem = stem.substr(0, mark);
    }
    return std::string{stem} + std::string{extension};
}

bool is_library_path(std::string_view p) noexcept {
    static constexpr std::string_view marks[] = {
        "site-packages",
        "dist-packages",
        "/lib/python",
        "\\lib\\python",
        "node_modules",
        "node:",
        "internal/",
        "/gems/",
        "/lib/ruby/",
        "/vendor/",
        "/usr/lib/",
        "/usr/include/",
        "/lib64/",
        "/lib/x86_64",
        "/rustc/",
        "/.cargo/registry",
        "/usr/local/go/src",
        "/go/pkg/mod",
        "<frozen ",
        "/sysdeps/",
        "../sysdeps",
        "/nptl/",
        "./csu/",
        "../csu",
        "/libsanitizer/",
        "<internal:",
        "webpack/bootstrap",
        "/build/glibc",
        "/rust/library/",
        "/lib/asan",
        "/lib/llvm",
        "./nptl",
        "./stdlib",
        "./malloc",
        "./signal",
        "./debug"};
    return std::any_of(std::begin(marks), std::end(marks), [&](std::string_view m) { return has(p, m); });
}

bool is_library_name(Language language, std::string_view n) noexcept {
    const auto any = [&](std::initializer_list<std::string_view> prefixes) {
        return std::any_of(prefixes.begin(), prefixes.end(), [&](std::string_view p) {
            return starts(n, p);
        });
    };
    switch (language) {
        case Language::java:
            return any(
                {"java.",
                 "javax.",
                 "jakarta.",
                 "jdk.",
                 "sun.",
                 "com.sun.",
                 "kotlin.",
                 "kotlinx.",
                 "scala.",
                 "groovy.",
                 "clojure.",
                 "android.",
                 "androidx.",
                 "dalvik.",
                 "com.android.",
                 "org.springframework.",
                 "org.apache.",
                 "org.hibernate.",
                 "io.netty.",
                 "reactor.",
                 "com.fasterxml.",
                 "org.eclipse.jetty.",
                 "com.google.common.",
                 "com.google.inject.",
                 "org.junit.",
                 "junit.",
                 "okhttp3.",
                 "retrofit2.",
                 "rx.",
                 "io.reactivex.",
                 "akka.",
                 "play.",
                 "com.zaxxer.",
                 "org.postgresql.",
                 "com.mysql.",
                 "org.jboss.",
                 "io.undertow.",
                 "ch.qos.logback.",
                 "org.slf4j.",
                 "net.sf.cglib.",
                 "javassist.",
                 "io.micrometer.",
                 "io.vertx.",
                 "org.codehaus.groovy.",
                 "redis.clients.",
                 "io.grpc."}
            );
        case Language::csharp:
            return any(
                {"System.",
                 "Microsoft.",
                 "MS.",
                 "Mono.",
                 "Newtonsoft.",
                 "Npgsql.",
                 "Unity",
                 "NUnit.",
                 "Xunit."}
            );
        case Language::go:
            return any(
                {"runtime.",
                 "runtime/",
                 "panic",
                 "reflect.",
                 "net/",
                 "testing.",
                 "sync.",
                 "syscall.",
                 "os.",
                 "io.",
                 "encoding/",
                 "database/",
                 "internal/",
                 "fmt.",
                 "time.",
                 "context.",
                 "bufio.",
                 "strings.",
                 "bytes.",
                 "sort.",
                 "log.",
                 "errors.",
                 "strconv.",
                 "github.com/gin-gonic/",
                 "google.golang.org/",
                 "golang.org/x/",
                 "github.com/gorilla/"}
            );
        case Language::rust:
            return any({"std::",   "core::",       "alloc::",   "rust_begin_unwind",
                        "__rust",  "tokio::",      "hyper::",   "futures",
                        "rayon",   "<alloc::",     "<core::",   "<std::",
                        "<tokio",  "<hyper",       "backtrace", "_start",
                        "__libc",  "start_thread", "clone",     "actix",
                        "tracing", "anyhow::",     "main"}) &&
                   n != "main::main";
        case Language::native:
            return any({"std::",          "__gnu_cxx::", "boost::",  "__",           "_start",
                        "_init",          "abort",       "raise",    "clone",        "start_thread",
                        "malloc",         "free",        "calloc",   "realloc",      "memcpy",
                        "memmove",        "memset",      "str",      "operator new", "operator delete",
                        "operator new[]", "pthread_",    "gsignal",  "g_",           "??",
                        "interceptor",    "printf",      "vfprintf", "exit",         "qsort",
                        "libc",           "asan_",       "poll",     "epoll",        "read",
                        "write",          "fread",       "fwrite"});
        default:
            return false;
    }
}

/// Last parts of a call that only carry an error upwards or raise it for others.
bool is_thrower(std::string_view f) noexcept {
    static constexpr std::string_view names[] = {"fail",          "check",         "raise_for_status",
                                                 "panic",         "unwrap",        "expect",
                                                 "unwrap_failed", "expect_failed", "throwError",
                                                 "raiseError",    "raise_error",   "assert",
                                                 "assertTrue",    "require",       "requireNonNull",
                                                 "checkNotNull",  "checkArgument", "checkState",
                                                 "invariant",     "die",           "abort",
                                                 "ensure",        "validate",      "handleError",
                                                 "handle_error",  "throw_error",   "must",
                                                 "Must"};
    const std::size_t mark = f.find_last_of(".:#");
    const std::string_view last = mark == std::string_view::npos ? f : f.substr(mark + 1);
    return std::find(std::begin(names), std::end(names), last) != std::end(names);
}

struct Parser {
    Trace trace;
    std::vector<Raised> blocks;  ///< in the order of the text
    bool causes_follow = false;  ///< Java, C#, Rust: what comes later is the cause; Python: what came before
    bool frames_reversed = false;  ///< Python: innermost call last
    std::vector<std::string_view> lines;

    static std::vector<std::string_view> split(std::string_view text) {
        std::vector<std::string_view> out;
        while (!text.empty()) {
            const std::size_t e = text.find('\n');
            std::string_view line = text.substr(0, e);
            if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
            out.push_back(line);
            if (e == std::string_view::npos) break;
            text.remove_prefix(e + 1);
        }
        return out;
    }

    void add(std::string module, std::string function, bool in_app) {
        if (blocks.empty()) blocks.emplace_back();
        auto& frames = blocks.back().frames;
        if (function.empty() && module.empty()) return;
        if (!frames.empty() && frames.back().function == function && frames.back().module == module) return;
        if (frames.size() < 4 * max_frames)
            frames.push_back({std::move(module), std::move(function), in_app});
    }

    void raise(std::string_view type, std::string_view message) {
        if (blocks.size() >= max_chain * 2) return;
        blocks.push_back({std::string{type.substr(0, 200)}, std::string{message.substr(0, 1000)}, {}});
    }

    /// "type: message" with a type that looks like one.
    static bool type_line(std::string_view line, std::string_view& type, std::string_view& message) noexcept {
        line = trim(line);
        std::size_t e = 0;
        while (e < line.size() &&
               (is_alpha(line[e]) || is_digit(line[e]) || line[e] == '.' || line[e] == '_' ||
                line[e] == '$' || line[e] == '\\' ||
                (line[e] == ':' && e + 2 < line.size() && line[e + 1] == ':' && is_alpha(line[e + 2])) ||
                (line[e] == ':' && e > 0 && line[e - 1] == ':')))
            ++e;
        if (e == 0 || !is_alpha(line[0])) return false;
        if (e < line.size() && line[e] != ':' &&
            !(line[e] == ' ' && e + 1 < line.size() && line[e + 1] == '[')) {
            if (!(line[e] == ' ' && line[e + 1] == '(')) return false;
        }
        type = line.substr(0, e);
        message = e < line.size() ? trim(line.substr(e + (line[e] == ':' ? 1 : 0))) : std::string_view{};
        return true;
    }

    // --- one line forms; each returns true when the line was a frame of it ---

    bool python_frame(std::string_view raw, std::string_view) {
        const std::string_view line = trim(raw);
        if (!starts(line, "File \"")) return false;
        const std::size_t q = line.find('"', 6);
        if (q == std::string_view::npos || !starts(line.substr(q), "\", line ")) return false;
        const std::string_view path = line.substr(6, q - 6);
        const std::size_t in = line.find(", in ", q);
        const std::string_view function =
            in == std::string_view::npos ? "<module>" : trim(line.substr(in + 5));
        add(file_module(path), without_counters(function), !is_library_path(path));
        return true;
    }

    bool java_frame(std::string_view line) {
        if (!starts(line, "at ")) return false;
        line.remove_prefix(3);
        const std::size_t paren = line.rfind('(');
        if (paren == std::string_view::npos || line.find(')', paren) == std::string_view::npos) return false;
        const std::string_view where = line.substr(paren + 1, line.find(')', paren) - paren - 1);
        std::string_view name = trim(line.substr(0, paren));
        if (has(name, " ") ||
            !(has(where, ".java") || has(where, ".kt") || has(where, ".scala") || has(where, ".groovy") ||
              has(where, ".clj") || where == "Native Method" || where == "Unknown Source" ||
              where == "<generated>" || starts(where, "SourceFile") || starts(where, "Unknown")))
            return false;
        if (const std::size_t slash = name.rfind('/', name.find("$$")); slash != std::string_view::npos)
            name = name.substr(slash + 1);
        std::string full = without_counters(without_groups(name));
        // Proxies and lambdas: the class behind the generated name stays.
        for (const std::string_view mark :
             {"$$Lambda",
              "$$EnhancerBy",
              "$$FastClassBy",
              "$$SpringCGLIB",
              "$$Proxy",
              "_$$_jvst",
              "_$$_javassist",
              "$fn__"}) {
            if (const std::size_t at = full.find(mark); at != std::string::npos) {
                const std::size_t dot = full.find('.', at);
                full = full.substr(0, at) + (mark == "$$Lambda" || mark == "$fn__" ? "$lambda" : "") +
                       (dot == std::string::npos ? "" : full.substr(dot));
            }
        }
        if (starts(full, "jdk.internal.reflect.") || starts(full, "sun.reflect.") ||
            starts(full, "java.lang.reflect."))
            full = "java.lang.reflect.Method.invoke";
        const std::size_t dot = full.rfind('.');
        const std::string module = dot == std::string::npos ? std::string{} : full.substr(0, dot);
        add(module,
            dot == std::string::npos ? full : full.substr(dot + 1),
            !is_library_name(Language::java, full) && !starts(module, "$Proxy") &&
                !starts(module, "com.sun.proxy"));
        return true;
    }

    bool csharp_frame(std::string_view line) {
        if (!starts(line, "at ") || line.find('(') == std::string_view::npos) return false;
        line.remove_prefix(3);
        const std::size_t paren = line.find('(');
        const std::string_view name = trim(line.substr(0, paren));
        const std::size_t close = line.find(')', paren);
        if (close == std::string_view::npos || !has(name, ".") || has(name, " ")) return false;
        const std::string_view rest = line.substr(close + 1);
        if (!rest.empty() && !starts(rest, " in ") && !starts(rest, " [0x")) return false;
        std::string full{name};
        // Foo.<Run>d__12.MoveNext -> Foo.Run: state machines and closures of the compiler.
        for (int i = 0; i < 4; ++i) {
            const std::size_t open = full.find('<');
            const std::size_t shut = full.find('>', open);
            if (open == std::string::npos || shut == std::string::npos) break;
            const std::string inner = full.substr(open + 1, shut - open - 1);
            std::size_t tail = full.find('.', shut);
            full = full.substr(0, open) + inner + (tail == std::string::npos ? "" : full.substr(tail));
        }
        if (ends(full, ".MoveNext")) full.resize(full.size() - 9);
        std::string out;
        for (std::size_t i = 0; i < full.size(); ++i) {
            if (full[i] == '`') {
                while (i + 1 < full.size() && is_digit(full[i + 1])) ++i;
                continue;
            }
            out += full[i];
        }
        out = without_counters(without_groups(out));
        const std::size_t dot = out.rfind('.');
        add(out.substr(0, dot),
            dot == std::string::npos ? out : out.substr(dot + 1),
            !is_library_name(Language::csharp, out));
        return true;
    }

    bool javascript_frame(std::string_view line) {
        std::string_view function, where;
        // Node opens the braces of a cause behind the last frame.
        if (ends(line, " {")) line.remove_suffix(2);
        if (starts(line, "at ")) {
            line.remove_prefix(3);
            for (const std::string_view prefix : {"async ", "new "}) {
                if (starts(line, prefix)) line.remove_prefix(prefix.size());
            }
            const std::size_t paren = line.rfind(" (");
            if (paren != std::string_view::npos && line.back() == ')') {
                function = line.substr(0, paren);
                where = line.substr(paren + 2, line.size() - paren - 3);
            } else {
                where = line;
            }
        } else if (const std::size_t mark = line.find('@');
                   mark != std::string_view::npos && (has(line, "://") || has(line, ".js:"))) {
            function = line.substr(0, mark);
            where = line.substr(mark + 1);
        } else {
            return false;
        }
        if (where == "native" || where == "<anonymous>") return true;
        // Source:line:column
        std::size_t e = where.size();
        int numbers = 0;
        while (numbers < 2) {
            const std::size_t colon = where.rfind(':', e - 1);
            if (colon == std::string_view::npos || colon + 1 >= e ||
                !all_digits(where.substr(colon + 1, e - colon - 1)))
                break;
            e = colon;
            ++numbers;
        }
        if (numbers == 0) return false;
        const std::string_view path = where.substr(0, e);
        if (const std::size_t alias = function.find(" ["); alias != std::string_view::npos)
            function = function.substr(0, alias);
        if (function == "<anonymous>" || function == "anonymous" || function == "Object.<anonymous>" ||
            function == "eval" || starts(function, "eval at"))
            function = {};
        std::string name = without_counters(function);
        // Receiver types change with bundlers: the last part is the function.
        if (const std::size_t dot = name.rfind('.');
            dot != std::string::npos && dot + 1 < name.size() && starts(name, "Object."))
            name = name.substr(dot + 1);
        add(file_module(path), name.empty() ? "(anonymous)" : name, !is_library_path(path) && path != "native"
        );
        return true;
    }

    bool go_frame(std::string_view line, std::string_view next) {
        const std::string_view file = trim(next);
        if (line.empty() || is_space(line[0]) || next.empty() || next[0] != '\t' || !has(file, ".go:"))
            return false;
        std::string_view name = line;
        bool created = false;
        if (starts(name, "created by ")) {
            name.remove_prefix(11);
            if (const std::size_t in = name.find(" in goroutine"); in != std::string_view::npos)
                name = name.substr(0, in);
            created = true;
        } else {
            const std::size_t paren = name.rfind('(');
            if (paren == std::string_view::npos || paren == 0) return false;
            name = name.substr(0, paren);
        }
        if (created) return true;
        std::string full = without_groups(name);
        // main.main.func1.2 -> main.main.func: numbers of closures.
        std::string out;
        std::size_t p = 0;
        const std::size_t slash = full.rfind('/');
        if (slash != std::string::npos) {
            out = full.substr(0, slash + 1);
            p = slash + 1;
        }
        bool first = true;
        while (p <= full.size()) {
            std::size_t e = full.find('.', p);
            if (e == std::string::npos) e = full.size();
            std::string part = full.substr(p, e - p);
            if (starts(part, "func") && part.size() > 4 && all_digits(std::string_view{part}.substr(4)))
                part = "func";
            if (!all_digits(part) && !starts(part, "gowrap")) {
                if (!first) out += '.';
                out += part;
                first = false;
            }
            p = e + 1;
        }
        const bool library = is_library_path(file) || is_library_name(Language::go, out);
        const std::size_t dot = out.find('.', out.rfind('/') == std::string::npos ? 0 : out.rfind('/'));
        add(dot == std::string::npos ? std::string{} : out.substr(0, dot),
            dot == std::string::npos ? out : out.substr(dot + 1),
            !library);
        return true;
    }

    bool rust_frame(std::string_view line, std::string_view next) {
        // "  12: std::panicking::begin_panic" with "             at /path:1:2" below
        std::size_t n = 0;
        while (n < line.size() && is_digit(line[n])) ++n;
        if (n == 0 || n > 4 || !starts(line.substr(n), ": ")) return false;
        std::string_view name = trim(line.substr(n + 2));
        if (starts(name, "0x")) {
            const std::size_t dash = name.find(" - ");
            if (dash == std::string_view::npos) return false;
            name = name.substr(dash + 3);
        }
        if (name.empty()) return false;
        const std::string_view below = trim(next);
        const std::string_view path = starts(below, "at ") ? below.substr(3) : std::string_view{};
        std::string full{name};
        if (const std::size_t h = full.rfind("::h"); h != std::string::npos && full.size() - h == 19)
            full.resize(h);
        full = without_counters(full);
        while (ends(full, "::{{closure}}")) full.resize(full.size() - 13);
        std::string plain = full;
        if (plain[0] == '<') {
            // <A as B>::f -> A::f
            const std::size_t as = plain.find(" as ");
            const std::size_t shut = plain.rfind(">::");
            if (shut != std::string::npos)
                plain =
                    without_groups(plain.substr(1, (as == std::string::npos || as > shut ? shut : as) - 1)) +
                    plain.substr(shut + 1);
        }
        const std::string bare = without_groups(plain);
        const std::size_t scope = bare.rfind("::");
        const bool library =
            is_library_path(path) ||
            (is_library_name(Language::rust, bare) && (path.empty() || !has(path, "src/"))) ||
            starts(bare, "std::") || starts(bare, "core::") || starts(bare, "__rust") ||
            bare == "rust_begin_unwind" || bare == "_start" || starts(bare, "__libc");
        add(scope == std::string::npos ? std::string{} : bare.substr(0, scope),
            scope == std::string::npos ? bare : bare.substr(scope + 2),
            !library);
        return true;
    }

    bool native_frame(std::string_view line) {
        if (line.empty() || line[0] != '#') return binary_frame(line);
        std::size_t p = 1;
        while (p < line.size() && is_digit(line[p])) ++p;
        if (p == 1 || p >= line.size() || line[p] != ' ') return false;
        std::string_view rest = trim(line.substr(p));
        if (starts(rest, "0x")) {
            const std::size_t in = rest.find(" in ");
            const std::size_t blank = rest.find(' ');
            if (in != std::string_view::npos && in == blank)
                rest = rest.substr(in + 4);
            else if (blank != std::string_view::npos)
                rest = trim(rest.substr(blank));
            else
                return true;
        }
        if (starts(rest, "(/")) {
            // ASan without symbols: (/path/lib.so+0x12)
            const std::string_view path = rest.substr(1, rest.find_first_of("+)") - 1);
            add(file_module(path), {}, !is_library_path(path));
            return true;
        }
        if (starts(rest, "<signal handler")) return true;
        // name(args) place | name (args) at file:1 | name (args) from lib
        std::size_t cut = std::string_view::npos;
        int angle = 0;
        for (std::size_t i = 0; i < rest.size(); ++i) {
            if (rest[i] == '<')
                ++angle;
            else if (rest[i] == '>')
                --angle;
            else if ((rest[i] == '(' || rest[i] == ' ') && angle <= 0 && i > 0) {
                if (starts(rest.substr(i), "(anonymous namespace)")) {
                    i += 20;
                    continue;
                }
                if (rest[i] == ' ' && (ends(rest.substr(0, i), "operator") || starts(rest, "operator ")))
                    continue;
                cut = i;
                break;
            }
        }
        const std::string_view name = rest.substr(0, cut);
        const std::string_view place = cut == std::string_view::npos ? std::string_view{} : rest.substr(cut);
        std::string full = without_counters(without_groups(name));
        if (full.empty()) return true;
        const bool library = is_library_name(Language::native, full) || is_library_path(place);
        const std::size_t scope = full.rfind("::");
        if (full == "??") {
            const std::size_t from = place.find("from ");
            if (from == std::string_view::npos) return true;
            add(file_module(trim(place.substr(from + 5))), {}, false);
            return true;
        }
        add(scope == std::string::npos ? std::string{} : full.substr(0, scope),
            scope == std::string::npos ? full : full.substr(scope + 2),
            !library);
        return true;
    }

    /// glibc's backtrace_symbols: ./prog(function+0x1f) [0x4005]
    bool binary_frame(std::string_view line) {
        const std::size_t open = line.find('(');
        std::size_t close = line.find(") [0x");
        if (close == std::string_view::npos) close = line.find(")[0x");
        if (open == std::string_view::npos || close == std::string_view::npos || close < open ||
            has(line.substr(0, open), " "))
            return false;
        std::string_view name = line.substr(open + 1, close - open - 1);
        if (const std::size_t plus = name.find("+0x"); plus != std::string_view::npos)
            name = name.substr(0, plus);
        const std::string_view path = line.substr(0, open);
        const bool library =
            is_library_path(path) || starts(path, "/lib") || is_library_name(Language::native, name);
        // The name of the program is all that a stripped frame has; offsets change with each build.
        add(file_module(path), std::string{name}, !library && !name.empty());
        return true;
    }

    bool ruby_frame(std::string_view line) {
        if (starts(line, "from ")) line.remove_prefix(5);
        const std::size_t in = line.find(":in ");
        if (in == std::string_view::npos || in + 6 > line.size()) return false;
        const char quote = line[in + 4];
        if (quote != '`' && quote != '\'') return false;
        const std::size_t shut = line.find('\'', in + 5);
        if (shut == std::string_view::npos) return false;
        std::string_view name = line.substr(in + 5, shut - in - 5);
        const std::size_t colon = line.rfind(':', in - 1);
        if (colon == std::string_view::npos || !all_digits(line.substr(colon + 1, in - colon - 1)))
            return false;
        const std::string_view path = line.substr(0, colon);
        while (starts(name, "block ") || starts(name, "rescue in ") || starts(name, "ensure in ")) {
            const std::size_t at = name.find("in ");
            if (at == std::string_view::npos) break;
            name = name.substr(at + 3);
        }
        std::string function = without_counters(name);
        if (starts(function, "_app_views_") || starts(function, "_erb_"))
            function = function.substr(0, function.find("_#"));
        add(file_module(path), function, !is_library_path(path));
        // file:1:in `f': message (Type)
        const std::string_view after = line.substr(shut + 1);
        if (starts(after, ": ") && after.back() == ')') {
            const std::size_t open = after.rfind(" (");
            if (open != std::string_view::npos && blocks.back().type.empty()) {
                blocks.back().type = std::string{after.substr(open + 2, after.size() - open - 3)};
                blocks.back().message = std::string{after.substr(2, open - 2)};
            }
        }
        return true;
    }

    bool php_frame(std::string_view line) {
        // #0 /path/file.php(12): Class->method()   and  #2 {main}
        if (line.empty() || line[0] != '#') return false;
        std::size_t p = 1;
        while (p < line.size() && is_digit(line[p])) ++p;
        if (p == 1) return false;
        const std::string_view rest = trim(line.substr(p));
        if (rest == "{main}") return true;
        const bool internal = starts(rest, "[internal function]: ");
        const std::size_t mark = internal ? rest.find(": ") : rest.find("): ");
        if (mark == std::string_view::npos) return false;
        const std::size_t open = internal ? 0 : rest.rfind('(', mark);
        if (!internal &&
            (open == std::string_view::npos || !all_digits(rest.substr(open + 1, mark - open - 1))))
            return false;
        const std::string_view path = internal ? std::string_view{} : rest.substr(0, open);
        std::string_view call = rest.substr(mark + (internal ? 2 : 3));
        call = call.substr(0, call.find('('));
        if (starts(call, "{closure")) call = "{closure}";
        add(path.empty() ? std::string{} : file_module(path),
            without_counters(call),
            !path.empty() && !is_library_path(path));
        return true;
    }

    bool kernel_frame(std::string_view line) {
        // [   12.3] ? function+0x12/0x34 [module]
        if (!line.empty() && line[0] == '[') {
            const std::size_t e = line.find(']');
            if (e != std::string_view::npos) line = trim(line.substr(e + 1));
        }
        if (starts(line, "[<")) {
            const std::size_t e = line.find(">]");
            if (e == std::string_view::npos) return false;
            line = trim(line.substr(e + 2));
        }
        if (starts(line, "RIP: ")) {
            line.remove_prefix(5);
            if (const std::size_t colon = line.find(':'); colon != std::string_view::npos && colon < 6)
                line.remove_prefix(colon + 1);
        }
        if (starts(line, "? ")) return has(line, "+0x");  // an unreliable entry: leftovers of the stack
        const std::size_t plus = line.find("+0x");
        if (plus == std::string_view::npos || plus == 0 || has(line.substr(0, plus), " ") ||
            !has(line.substr(plus), "/0x"))
            return false;
        std::string function{line.substr(0, plus)};
        for (const std::string_view suffix : {".isra.", ".part.", ".constprop.", ".cold", ".llvm."}) {
            if (const std::size_t at = function.find(suffix); at != std::string::npos) function.resize(at);
        }
        const std::size_t open = line.find(" [", plus);
        std::string module;
        if (open != std::string_view::npos)
            module = std::string{line.substr(open + 2, line.find_first_of(" ]", open + 2) - open - 2)};
        static constexpr std::string_view noise[] = {
            "dump_stack",    "show_stack", "panic",    "__warn",          "warn_slowpath",
            "report_bug",    "exc_",       "asm_exc",  "do_syscall_64",   "entry_SYSCALL",
            "ret_from_fork", "handle_bug", "__die",    "page_fault_oops", "do_user_addr_fault",
            "error_entry",   "die",        "oops_end", "no_context",      "__bad_area",
            "do_error_trap", "invalid_op", "kthread",  "x64_sys_call"};
        for (const std::string_view n : noise) {
            if (starts(function, n)) return true;
        }
        add(module, function, true);
        return true;
    }

    void parse(std::string_view text) {
        lines = split(text.substr(0, max_text));
        choose_language();
        for (std::size_t i = 0; i < lines.size(); ++i) {
            const std::string_view raw = lines[i];
            const std::string_view line = trim(raw);
            const std::string_view next = i + 1 < lines.size() ? lines[i + 1] : std::string_view{};
            if (line.empty()) continue;
            switch (trace.language) {
                case Language::python:
                    python(line, raw, next);
                    break;
                case Language::java:
                    java(line);
                    break;
                case Language::csharp:
                    csharp(line);
                    break;
                case Language::javascript:
                    javascript(line);
                    break;
                case Language::go:
                    go(raw, next);
                    break;
                case Language::rust:
                    rust(line, next);
                    break;
                case Language::ruby:
                    ruby(line);
                    break;
                case Language::php:
                    php(line);
                    break;
                case Language::native:
                    native(line);
                    break;
                case Language::kernel:
                    kernel(line);
                    break;
                case Language::unknown:
                    break;
            }
        }
        finish();
    }

    void choose_language() {
        // The first line that only one language writes decides.
        for (std::size_t i = 0; i < lines.size() && trace.language == Language::unknown; ++i) {
            const std::string_view l = trim(lines[i]);
            const std::string_view next = i + 1 < lines.size() ? lines[i + 1] : std::string_view{};
            Parser probe;
            if (starts(l, "Traceback (most recent call last)") ||
                (starts(l, "File \"") && has(l, "\", line ")))
                trace.language = Language::python;
            else if ((starts(l, "goroutine ") && has(l, "[")) || probe.go_frame(lines[i], next))
                trace.language = Language::go;
            else if (starts(l, "Call Trace:") || has(l, "Call Trace:") || has(l, "cut here ]") || (has(l, "RIP: ") && has(l, "+0x")))
                trace.language = Language::kernel;
            else if (probe.php_frame(l))
                trace.language = Language::php;
            else if ((has(l, "ERROR: AddressSanitizer") || has(l, "ERROR: ThreadSanitizer") || has(l, "ERROR: LeakSanitizer") || has(l, "WARNING: ThreadSanitizer")) || (l.size() > 2 && l[0] == '#' && is_digit(l[1]) && probe.native_frame(l)))
                trace.language = Language::native;
            else if (probe.java_frame(l))
                trace.language = Language::java;
            else if (starts(l, "at ") && probe.javascript_frame(l))
                trace.language = Language::javascript;
            else if (starts(l, "at ") && probe.csharp_frame(l))
                trace.language = Language::csharp;
            else if (probe.ruby_frame(l))
                trace.language = Language::ruby;
            else if ((starts(l, "thread '") && has(l, " panicked at ")) || starts(l, "stack backtrace:"))
                trace.language = Language::rust;
            else if (probe.rust_frame(l, next) && has(l, "::"))
                trace.language = Language::rust;
            else if (probe.binary_frame(l))
                trace.language = Language::native;
            else if (!starts(l, "at ") && has(l, "@") && probe.javascript_frame(l))
                trace.language = Language::javascript;
            else if (probe.kernel_frame(l) && has(l, "/0x"))
                trace.language = Language::kernel;
        }
    }

    void python(std::string_view line, std::string_view raw, std::string_view) {
        frames_reversed = true;
        if (starts(line, "Traceback (most recent")) {
            raise({}, {});
            return;
        }
        if (python_frame(raw, {})) return;
        if (starts(line, "[Previous line repeated") || starts(line, "The above exception") ||
            starts(line, "During handling of"))
            return;
        if (is_space(raw[0]) || blocks.empty() || blocks.back().frames.empty() || !blocks.back().type.empty())
            return;
        std::string_view type, message;
        if (type_line(line, type, message)) {
            blocks.back().type = std::string{type};
            blocks.back().message = std::string{message.substr(0, 1000)};
        }
    }

    void java(std::string_view line) {
        causes_follow = true;
        if (java_frame(line)) return;
        bool cause = false;
        for (const std::string_view mark : {"Caused by: ", "Suppressed: "}) {
            if (starts(line, mark)) {
                if (mark[0] == 'S') {
                    suppressed = true;
                    return;
                }
                line.remove_prefix(mark.size());
                cause = true;
            }
        }
        if (const std::size_t in = line.find("Exception in thread \""); in == 0) {
            const std::size_t q = line.find("\" ", 21);
            if (q != std::string_view::npos) line = line.substr(q + 2);
        }
        std::string_view type, message;
        if (!cause && !blocks.empty()) return;
        // A log header may stand before the type: the last word that looks like one is taken.
        if (!type_line(line, type, message) || !has(type, ".")) {
            const std::size_t at = line.find("Exception");
            const std::size_t err = line.find("Error");
            std::size_t hit = std::min(at, err);
            if (hit == std::string_view::npos) {
                if (cause) raise(line.substr(0, line.find(':')), {});
                return;
            }
            std::size_t b = hit;
            while (b > 0 && (is_alpha(line[b - 1]) || is_digit(line[b - 1]) || line[b - 1] == '.' ||
                             line[b - 1] == '_' || line[b - 1] == '$'))
                --b;
            if (!type_line(line.substr(b), type, message)) return;
        }
        raise(type, message);
    }
    bool suppressed = false;

    void csharp(std::string_view line) {
        if (csharp_frame(line)) return;
        if (starts(line, "--- End of")) {
            // C# prints the frames of the cause first: the innermost block keeps those above this line.
            if (blocks.size() > 1) cs_inner_done = true;
            return;
        }
        if (starts(line, "Unhandled exception. ")) line.remove_prefix(21);
        if (starts(line, "Unhandled Exception: ")) line.remove_prefix(21);
        bool cause = false;
        if (starts(line, "---> ")) {
            line.remove_prefix(5);
            cause = true;
        }
        // Type: text ---> Type: text on one line
        while (true) {
            const std::size_t arrow = line.find(" ---> ");
            std::string_view type, message;
            if (type_line(line.substr(0, arrow), type, message) && (blocks.empty() || cause) &&
                (has(type, ".") || has(type, "Exception")))
                raise(type, message);
            if (arrow == std::string_view::npos) break;
            line = line.substr(arrow + 6);
            cause = true;
        }
        causes_follow = true;
    }
    bool cs_inner_done = false;

    void javascript(std::string_view line) {
        causes_follow = true;
        if (javascript_frame(line)) return;
        std::string_view type, message;
        bool cause = false;
        if (const std::size_t c = line.find("[cause]: "); c != std::string_view::npos) {
            line = line.substr(c + 9);
            cause = true;
        }
        if (starts(line, "Caused by: ")) {
            line.remove_prefix(11);
            cause = true;
        }
        if (starts(line, "Uncaught ")) line.remove_prefix(9);
        if (!cause && !blocks.empty() && !(blocks.back().frames.empty())) return;
        if (!type_line(line, type, message)) return;
        if (!cause && !(ends(type, "Error") || ends(type, "Exception") || type == "Error")) return;
        raise(type, message);
    }

    void go(std::string_view raw, std::string_view next) {
        const std::string_view line = trim(raw);
        if (go_done) return;
        if (starts(line, "goroutine ")) {
            if (!blocks.empty() && !blocks.back().frames.empty())
                go_done = true;  // the first one is the one that failed
            return;
        }
        if (starts(line, "panic: ") || starts(line, "fatal error: ")) {
            if (blocks.empty()) {
                std::string_view m = line.substr(line.find(": ") + 2);
                const bool runtime = starts(m, "runtime error: ");
                raise(
                    starts(line, "fatal") ? "fatal error"
                    : runtime             ? "runtime error"
                                          : "panic",
                    runtime ? m.substr(15) : m
                );
            }
            return;
        }
        go_frame(raw, next);
        if (starts(line, "created by ")) go_done = true;
    }
    bool go_done = false;

    void rust(std::string_view line, std::string_view next) {
        if (starts(line, "thread '")) {
            // panicked at 'text', src/main.rs:2:5   or   panicked at src/main.rs:2:5: with the text below
            const std::size_t at = line.find(" panicked at ");
            if (at == std::string_view::npos) return;
            std::string_view m = line.substr(at + 13);
            if (!m.empty() && m[0] == '\'')
                m = m.substr(
                    1, m.rfind("', ") == std::string_view::npos ? std::string_view::npos : m.rfind("', ") - 1
                );
            else
                m = trim(next);
            raise("panic", m);
            return;
        }
        rust_frame(line, next);
    }

    void ruby(std::string_view line) {
        if (ruby_frame(line)) return;
        std::string_view type, message;
        if (!blocks.empty() && !blocks.back().frames.empty()) return;
        if (type_line(line, type, message) &&
            (ends(type, "Error") || ends(type, "Exception") || has(type, "::")))
            raise(type, message);
    }

    void php(std::string_view line) {
        causes_follow = false;  // PHP prints the previous exception first
        if (php_frame(line)) return;
        for (const std::string_view mark :
             {"PHP Fatal error:  Uncaught ", "Fatal error: Uncaught ", "Uncaught ", "Next "}) {
            if (const std::size_t at = line.find(mark); at != std::string_view::npos) {
                line = line.substr(at + mark.size());
                break;
            }
        }
        std::string_view type, message;
        if (type_line(line, type, message) && type.size() > 3 && type != "Stack" &&
            (ends(type, "Exception") || ends(type, "Error") || has(type, "\\"))) {
            const std::size_t in = message.rfind(" in /");
            raise(type, in == std::string_view::npos ? message : message.substr(0, in));
        }
    }

    void native(std::string_view line) {
        for (const std::string_view mark :
             {"AddressSanitizer: ",
              "ThreadSanitizer: ",
              "LeakSanitizer: ",
              "UndefinedBehaviorSanitizer: ",
              "MemorySanitizer: "}) {
            if (const std::size_t at = line.find(mark);
                at != std::string_view::npos && (has(line, "ERROR") || has(line, "WARNING"))) {
                std::string_view t = line.substr(at + mark.size());
                std::size_t e = t.find_first_of(" (");
                if (starts(t, "data race")) e = 9;
                if (blocks.empty()) raise(t.substr(0, e), {});
                return;
            }
        }
        if (native_done) return;
        if (const std::size_t sig = line.find("received signal SIG");
            sig != std::string_view::npos || starts(line, "Program terminated with signal SIG")) {
            const std::size_t at = line.find("SIG");
            if (blocks.empty()) raise(line.substr(at, line.find_first_of(", ", at) - at), {});
            return;
        }
        if (starts(line, "terminate called after throwing an instance of '")) {
            raise(line.substr(48, line.find('\'', 48) - 48), {});
            return;
        }
        if (starts(line, "what():") && !blocks.empty()) {
            blocks.back().message = std::string{trim(line.substr(7)).substr(0, 1000)};
            return;
        }
        // ASan prints where the memory was freed and allocated too; gdb may print more threads.
        if (!blocks.empty() && !blocks.back().frames.empty() &&
            (starts(line, "freed by") || starts(line, "previously allocated") ||
             starts(line, "allocated by") || starts(line, "Thread ") || starts(line, "0x") ||
             starts(line, "SUMMARY"))) {
            native_done = true;
            return;
        }
        native_frame(line);
    }
    bool native_done = false;

    void kernel(std::string_view line) {
        std::string_view l = line;
        if (!l.empty() && l[0] == '[') {
            if (const std::size_t e = l.find(']'); e != std::string_view::npos) l = trim(l.substr(e + 1));
        }
        for (const std::string_view mark :
             {"BUG: ",
              "WARNING: ",
              "Oops: ",
              "general protection fault",
              "INFO: task ",
              "kernel BUG at ",
              "Unable to handle ",
              "Kernel panic - not syncing: "}) {
            if (const std::size_t at = l.find(mark);
                at != std::string_view::npos &&
                (blocks.empty() || (blocks.size() == 1 && blocks[0].type.empty()))) {
                std::string type = pattern_of(trim(l.substr(at)).substr(0, 60));
                if (const std::size_t colon = type.find(':', 6); colon != std::string::npos)
                    type.resize(colon);
                if (blocks.empty())
                    raise(type, {});
                else
                    blocks[0].type = type;
                return;
            }
        }
        if (starts(l, "</TASK>") || starts(l, "---[ end")) kernel_done = true;
        if (!kernel_done) kernel_frame(l);
    }
    bool kernel_done = false;

    static void collapse(std::vector<Frame>& frames) {
        // Recursion: a run of up to four frames that repeats counts once.
        for (std::size_t period = 1; period <= 4; ++period) {
            std::vector<Frame> out;
            for (std::size_t i = 0; i < frames.size(); ++i) {
                bool repeats = out.size() >= period && i + period <= frames.size();
                for (std::size_t j = 0; repeats && j < period; ++j) {
                    const Frame& a = frames[i + j];
                    const Frame& b = out[out.size() - period + j];
                    repeats = a.function == b.function && a.module == b.module;
                }
                if (repeats)
                    i += period - 1;
                else
                    out.push_back(frames[i]);
            }
            frames = std::move(out);
        }
        if (frames.size() > max_frames) frames.resize(max_frames);
    }

    void finish() {
        for (Raised& r : blocks) {
            if (frames_reversed) std::reverse(r.frames.begin(), r.frames.end());
            collapse(r.frames);
        }
        if (trace.language == Language::csharp && blocks.size() > 1) {
            // All frames were read into the last type: they begin with those of the innermost cause.
            for (std::size_t i = 0; i + 1 < blocks.size(); ++i) blocks[i].frames.clear();
        }
        std::erase_if(blocks, [](const Raised& r) { return r.type.empty() && r.frames.empty(); });
        if (causes_follow) std::reverse(blocks.begin(), blocks.end());
        if (blocks.size() > max_chain) blocks.resize(max_chain);
        trace.chain = std::move(blocks);
        const bool any = std::any_of(trace.chain.begin(), trace.chain.end(), [](const Raised& r) {
            return !r.frames.empty();
        });
        if (!any && trace.language != Language::unknown && trace.chain.empty())
            trace.language = Language::unknown;
    }
};

std::string name_of(const Frame& f) { return f.module.empty() ? f.function : f.module + ":" + f.function; }

}  // namespace

const char* to_string(Language language) noexcept {
    static constexpr const char* names[] = {
        "unknown", "python", "java", "javascript", "go", "rust", "csharp", "ruby", "php", "native", "kernel"};
    return names[static_cast<std::size_t>(language)];
}

bool matches_glob(std::string_view glob, std::string_view text) noexcept {
    std::size_t g = 0, t = 0, star = std::string_view::npos, back = 0;
    while (t < text.size()) {
        if (g < glob.size() && glob[g] == '*') {
            star = g++;
            back = t;
        } else if (g < glob.size() && glob[g] == text[t]) {
            ++g;
            ++t;
        } else if (star != std::string_view::npos) {
            g = star + 1;
            t = ++back;
        } else {
            return false;
        }
    }
    while (g < glob.size() && glob[g] == '*') ++g;
    return g == glob.size();
}

Trace parse_trace(std::string_view text) {
    Parser parser;
    parser.parse(text);
    return std::move(parser.trace);
}

Signature signature_of(const Trace& trace, const std::vector<std::string>& ignored) {
    Signature out;
    if (trace.chain.empty()) return out;
    // The innermost exception that has frames decides; a cause printed without any lends its type.
    const auto with_frames = std::find_if(trace.chain.begin(), trace.chain.end(), [](const Raised& r) {
        return !r.frames.empty();
    });
    const Raised& cause = trace.chain.front();
    out.type_msg = cause.type.empty() && cause.message.empty() ? std::string{}
                                                               : cause.type + "|" + pattern_of(cause.message);
    if (with_frames == trace.chain.end()) return out;
    std::vector<std::string> app, all;
    for (const Frame& f : with_frames->frames) {
        const std::string name = name_of(f);
        if (std::any_of(ignored.begin(), ignored.end(), [&](const std::string& glob) {
                return matches_glob(glob, name);
            }))
            continue;
        all.push_back(name);
        if (f.in_app) app.push_back(name);
    }
    if (all.empty()) return out;
    const auto join = [](const std::vector<std::string>& names, std::size_t limit) {
        std::string s;
        for (std::size_t i = 0; i < std::min(limit, names.size()); ++i)
            s.append(i == 0 ? "" : ";").append(names[i]);
        return s;
    };
    std::string types;
    for (const Raised& r : trace.chain) types.append(types.empty() ? "" : ",").append(r.type);
    out.exact = types + "|" + join(app.empty() ? all : app, max_frames);
    if (app.size() >= 2 && !is_thrower(app.front())) {
        out.frames.assign(
            app.begin(), app.begin() + static_cast<std::ptrdiff_t>(std::min(app_frames, app.size()))
        );
        out.app5 = cause.type + "|" + join(app, app_frames);
        return out;
    }
    // Too few frames of the user's, or one that raises for others: the message and the system's frames help
    // to tell apart.
    out.frames = app.size() < 2 ? all : app;
    if (out.frames.size() > app_frames) out.frames.resize(app_frames);
    if (app.size() == 1 && std::find(out.frames.begin(), out.frames.end(), app.front()) == out.frames.end())
        out.frames.push_back(app.front());
    out.app5 = cause.type + "|" + pattern_of(cause.message) + "|" + join(out.frames, out.frames.size());
    return out;
}

}  // namespace heal::fingerprint
