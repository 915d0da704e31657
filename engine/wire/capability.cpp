#include "wire/capability.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

namespace heal {
namespace {

constexpr std::array<std::string_view, 9> kinds = {
    "exec", "file", "read", "net", "signal", "systemd", "docker", "sql", "env"};

std::vector<std::string_view> words_of(std::string_view text) {
    std::vector<std::string_view> out;
    while (!text.empty()) {
        const auto blank = text.find(' ');
        if (blank != 0) out.push_back(text.substr(0, blank));
        text = blank == std::string_view::npos ? std::string_view{} : text.substr(blank + 1);
    }
    return out;
}

bool starts(std::string_view text, std::string_view head) { return text.substr(0, head.size()) == head; }

// A path pattern begins at the root, with a glob, or with a placeholder.
bool path_pattern(std::string_view p) {
    return !p.empty() && (p[0] == '/' || p == "*" || p == "**" || p[0] == '{');
}

bool fits_words(std::string_view pattern, const std::vector<std::string>& argv) {
    const auto words = words_of(pattern);
    if (words.empty() || argv.empty()) return false;
    if (words[0] != "*" && !glob_match(words[0], argv[0], '/')) return false;
    if (words.size() == 1) return true;
    const bool open = words.back() == "...";
    const std::size_t fixed = words.size() - (open ? 1 : 0);
    if (open ? argv.size() < fixed : argv.size() != fixed) return false;
    for (std::size_t i = 1; i < fixed; ++i) {
        if (!glob_match(words[i], argv[i], '\0')) return false;
    }
    return true;
}

}  // namespace

bool glob_match(std::string_view pattern, std::string_view text, char separator) {
    std::size_t p = 0, t = 0;
    // Where to go on after a mismatch: behind the last '**' and behind the last '*' within this component.
    constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
    std::size_t deep_p = none, deep_t = 0, flat_p = none, flat_t = 0;
    for (;;) {
        if (p < pattern.size() && pattern[p] == '*') {
            if (separator == '\0' || (p + 1 < pattern.size() && pattern[p + 1] == '*')) {
                while (p < pattern.size() && pattern[p] == '*') ++p;
                deep_p = p, deep_t = t, flat_p = none;
            } else {
                ++p;
                flat_p = p, flat_t = t;
            }
            continue;
        }
        if (t < text.size() && p < pattern.size() &&
            (pattern[p] == text[t] || (pattern[p] == '?' && (separator == '\0' || text[t] != separator)))) {
            ++p, ++t;
            continue;
        }
        if (t == text.size() && p == pattern.size()) return true;
        if (flat_p != none && flat_t < text.size() && text[flat_t] != separator) {
            p = flat_p, t = ++flat_t;
            continue;
        }
        if (deep_p != none && deep_t < text.size()) {
            p = deep_p, t = ++deep_t, flat_p = none;
            continue;
        }
        return false;
    }
}

bool is_clean_path(std::string_view path) {
    if (path.empty() || path[0] != '/' || path.size() > 4095 || path.find('\0') != std::string_view::npos)
        return false;
    if (path == "/") return true;
    std::size_t at = 1;
    for (;;) {
        const auto slash = path.find('/', at);
        const auto part = path.substr(at, slash == std::string_view::npos ? slash : slash - at);
        if (part.empty() || part == "." || part == "..") return false;
        if (slash == std::string_view::npos) return true;
        at = slash + 1;
    }
}

result<void> check_capability(std::string_view capability) {
    const auto bad = [&](std::string_view why) {
        return fail(
            errc::invalid_input, fmt::format("'{}' is not a capability: {}", capability.substr(0, 200), why)
        );
    };
    if (capability.size() > 4096 || capability.find('\0') != std::string_view::npos)
        return bad("at most 4096 bytes without NUL");
    const auto colon = capability.find(':');
    const std::string_view kind = capability.substr(0, colon);
    if (colon == std::string_view::npos || std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) {
        return bad(fmt::format("it must begin with one of {}:", fmt::join(kinds, ":, ")));
    }
    const std::string_view rest = capability.substr(colon + 1);
    if (rest.empty()) return bad("nothing follows the ':'");
    if (kind == "exec") {
        const auto words = words_of(rest);
        if (words.empty() || !path_pattern(words[0])) return bad("a program is an absolute path, or '*'");
    } else if (kind == "file" || kind == "read") {
        if (!path_pattern(rest)) return bad("a file is an absolute path");
    } else if (kind == "net") {
        if (starts(rest, "unix:")) {
            if (!path_pattern(rest.substr(5))) return bad("a socket is an absolute path");
        } else if (rest[0] != '{' && rest.find_last_of(':') == std::string_view::npos) {
            return bad("host:port or unix:/path is needed");
        }
    } else if (kind == "signal") {
        const auto second = rest.find(':');
        const auto how = rest.substr(0, second);
        if (second == std::string_view::npos || (how != "pidfile" && how != "command"))
            return bad("signal:pidfile:/path or signal:command:/path is needed");
        if (!path_pattern(rest.substr(second + 1)) && how == "pidfile")
            return bad("a pid file is an absolute path");
    }
    const auto open = std::count(rest.begin(), rest.end(), '{'),
               close = std::count(rest.begin(), rest.end(), '}');
    if (open != close) return bad("a placeholder {target.…} is not closed");
    for (std::size_t at = rest.find('{'); at != std::string_view::npos; at = rest.find('{', at + 1)) {
        if (!starts(rest.substr(at), "{target."))
            return bad("the only placeholders are {target.…}, facts of the inventory");
    }
    return {};
}

Grants::Grants(std::vector<std::string> patterns) : patterns_(std::move(patterns)) {}

Grants Grants::all() {
    Grants g;
    g.all_ = true;
    return g;
}

template <class F>
bool Grants::any(std::string_view kind, F&& fits) const {
    if (all_) return true;
    for (const std::string& pattern : patterns_) {
        const std::string_view p{pattern};
        // A placeholder nobody filled never grants anything.
        if (p.size() > kind.size() && p[kind.size()] == ':' && starts(p, kind) &&
            p.find('{') == std::string_view::npos && fits(p.substr(kind.size() + 1))) {
            return true;
        }
    }
    return false;
}

bool Grants::exec(const std::vector<std::string>& argv) const {
    return any("exec", [&](std::string_view p) { return fits_words(p, argv); });
}

bool Grants::file(std::string_view path, bool write) const {
    const auto fits = [&](std::string_view p) { return p == "*" || glob_match(p, path, '/'); };
    return any("file", fits) || (!write && any("read", fits));
}

bool Grants::net(std::string_view host, std::uint16_t port) const {
    return any("net", [&](std::string_view p) {
        if (p == "*" || p == "*:*") return true;
        const auto colon = p.find_last_of(':');
        if (colon == std::string_view::npos || starts(p, "unix:")) return false;
        std::string_view pattern_host = p.substr(0, colon);
        if (pattern_host.size() > 2 && pattern_host.front() == '[' && pattern_host.back() == ']') {
            pattern_host = pattern_host.substr(1, pattern_host.size() - 2);
        }
        const std::string_view pattern_port = p.substr(colon + 1);
        return glob_match(pattern_host, host, '\0') &&
               (pattern_port == "*" || pattern_port == std::to_string(port));
    });
}

bool Grants::net_unix(std::string_view path) const {
    return any("net", [&](std::string_view p) {
        return p == "*" || (starts(p, "unix:") && glob_match(p.substr(5), path, '/'));
    });
}

bool Grants::signal_pid_file(std::string_view path) const {
    return any("signal", [&](std::string_view p) {
        return starts(p, "pidfile:") && glob_match(p.substr(8), path, '/');
    });
}

bool Grants::signal_command(std::string_view argv0) const {
    return any("signal", [&](std::string_view p) {
        return starts(p, "command:") && (p == "command:*" || glob_match(p.substr(8), argv0, '/'));
    });
}

bool Grants::named(std::string_view kind, std::string_view name) const {
    return any(kind, [&](std::string_view p) { return glob_match(p, name, '\0'); });
}

}  // namespace heal
