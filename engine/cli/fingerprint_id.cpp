#include "cli/fingerprint_id.hpp"

#include "fingerprint/fingerprint.hpp"

#include <fmt/format.h>

#include <unistd.h>

#include <cerrno>
#include <string>

namespace heal::cli {
namespace {

bool write_all(int out, std::string_view text) {
    while (!text.empty()) {
        const auto n = ::write(out, text.data(), text.size());
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        text.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
}

template <class Each>
int each_line(int in, int out, Each each) {
    std::string pending, answer, buffer(1U << 18U, '\0');
    for (;;) {
        const auto n = ::read(in, buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return 1;
        std::string_view rest{buffer.data(), static_cast<std::size_t>(n)};
        for (auto end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
            pending += rest.substr(0, end);
            each(pending, answer);
            pending.clear();
            rest.remove_prefix(end + 1);
        }
        pending += rest;
        if (n == 0 && !pending.empty()) each(pending, answer);
        if (!write_all(out, answer)) return 1;
        answer.clear();
        if (n == 0) return 0;
    }
}

std::string_view without_cr(std::string_view line) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    return line;
}

}  // namespace

int fingerprint_id(int in, int out) {
    return each_line(in, out, [](std::string_view line, std::string& answer) {
        answer += fingerprint::compute("", fingerprint::cut_header(without_cr(line)).message, "").id;
        answer += '\n';
    });
}

int fingerprint_explain(int in, int out) {
    return each_line(in, out, [](std::string_view line, std::string& answer) {
        const auto parts = fingerprint::cut_header(without_cr(line));
        const auto f = fingerprint::compute("", parts.message, "");
        answer += fmt::format("id {}\n  pattern   {}\n  level     {}\n  component {}\n  host      {}\n", f.id, f.pattern, to_string(parts.level), parts.component, parts.host);
    });
}

}  // namespace heal::cli
