#include "host/performer.hpp"

#include "host/effects_parts.hpp"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace heal {
namespace effects {

void Descriptor::reset(int fd) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
}

Error denied(std::string_view what, std::string_view capability) {
    return fail(
        errc::denied,
        fmt::format(
            "{} is not granted; the strategy needs the capability '{}' among its declared ones",
            what,
            capability
        )
    );
}

result<std::vector<std::string>> argv_of(
    const json::object& parameters, std::string_view key, std::string_view path
) {
    const auto wrong = [&](std::string_view text) {
        return fail(errc::invalid_input, fmt::format("{}.{}: {}", path, key, text));
    };
    const auto& words = array_at(parameters, key);
    if (words.empty()) return wrong("must be an array of strings, the program's absolute path first");
    if (words.size() > 256) return wrong("must have at most 256 elements");
    std::vector<std::string> out;
    std::size_t bytes = 0;
    for (const auto& word : words) {
        if (!word.is_string() || word.get_string().find('\0') != json::string::npos)
            return wrong("must hold strings without NUL only");
        out.emplace_back(view(word.get_string()));
        bytes += out.back().size();
    }
    if (bytes > (128U << 10U)) return wrong("must have at most 128 KiB in all");
    if (!is_clean_path(out[0]))
        return wrong(fmt::format("the program '{}' must be an absolute path without '.' and '..'", out[0]));
    return out;
}

result<std::map<std::string, std::string>> string_map(
    const json::object& parameters, std::string_view key, std::string_view path
) {
    std::map<std::string, std::string> out;
    const auto* value = parameters.if_contains(key);
    if (!value || value->is_null()) return out;
    if (!value->is_object() || value->get_object().size() > 128) {
        return fail(
            errc::invalid_input, fmt::format("{}.{}: must be an object of at most 128 strings", path, key)
        );
    }
    for (const auto& [name, text] : value->get_object()) {
        const std::string n{name};
        if (!text.is_string() || text.get_string().find('\0') != json::string::npos || n.empty() ||
            n.find_first_of(std::string_view{"=\0\r\n", 4}) != std::string::npos) {
            return fail(
                errc::invalid_input, fmt::format("{}.{}.{}: must be a string without NUL", path, key, n)
            );
        }
        out[n] = std::string{view(text.get_string())};
    }
    return out;
}

std::string joined(const std::vector<std::string>& argv) {
    std::string out;
    for (const std::string& word : argv) {
        if (!out.empty()) out += ' ';
        const bool plain =
            !word.empty() && word.find_first_of(" \t\n\"'\\$`;&|<>*?()[]{}") == std::string::npos;
        if (plain) {
            out += word;
        } else {
            out += '\'';
            for (const char c : word) {
                if (c == '\'')
                    out += "'\\''";
                else if (c == '\n')
                    out += "\\n";
                else
                    out += c;
            }
            out += '\'';
        }
    }
    return bounded(out, 500);
}

json::array to_array(const std::vector<std::string>& words) {
    json::array out;
    for (const std::string& word : words) out.emplace_back(word);
    return out;
}

std::string bounded(std::string_view text, std::size_t limit) {
    if (text.size() <= limit) return to_valid_utf8(text);
    // Not in the middle of a character (RFC 3629: continuation bytes are 10xxxxxx).
    while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0U) == 0x80U) --limit;
    return to_valid_utf8(text.substr(0, limit));
}

namespace {

int poll_ms(Duration left) {
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
    return static_cast<int>(std::clamp<std::int64_t>(ms, 0, 60'000));
}

}  // namespace

result<void> wait_ready(Context& context, int fd, short events, Duration deadline) {
    const Duration limit = std::min(deadline, context.deadline);
    for (;;) {
        if (context.interrupt.stopped()) return fail(errc::cancelled, "the call was cancelled");
        const Duration left = limit - context.clock.steady();
        if (left <= Duration{0}) return fail(errc::timeout, "no answer in time");
        pollfd fds[2] = {{fd, events, 0}, {context.interrupt.fd(), POLLIN, 0}};
        const int n = ::poll(fds, 2, poll_ms(left));
        if (n < 0 && errno != EINTR) return fail_errno("cannot wait", errno);
        if (n > 0 && fds[0].revents != 0) return {};
    }
}

result<void> wait_for(Context& context, Duration span) {
    const Duration until = context.clock.steady() + span;
    for (;;) {
        if (context.interrupt.stopped())
            return fail(errc::cancelled, "the call was cancelled while it slept");
        const Duration now = context.clock.steady();
        if (now >= until) return {};
        if (now >= context.deadline)
            return fail(errc::cancelled, "the deadline of the call came while it slept");
        pollfd fds[1] = {{context.interrupt.fd(), POLLIN, 0}};
        if (::poll(fds, 1, poll_ms(std::min(until, context.deadline) - now)) < 0 && errno != EINTR)
            return fail_errno("cannot wait", errno);
    }
}

namespace {

const std::vector<const Kind*>& all_kinds() {
    static const std::vector<const Kind*> all = [] {
        std::vector<const Kind*> out;
        for (const auto& table : {exec_kinds(), process_kinds(), file_kinds(), net_kinds(), state_kinds()}) {
            for (const Kind& kind : table) out.push_back(&kind);
        }
        std::sort(out.begin(), out.end(), [](const Kind* a, const Kind* b) { return a->name < b->name; });
        return out;
    }();
    return all;
}

const Kind* find_kind(std::string_view name) {
    for (const Kind* kind : all_kinds()) {
        if (kind->name == name) return kind;
    }
    return nullptr;
}

bool has_word(std::string_view words, std::string_view word) {
    for (std::size_t at = words.find(word); at != std::string_view::npos; at = words.find(word, at + 1)) {
        const bool begins = at == 0 || words[at - 1] == ' ';
        const bool ends = at + word.size() == words.size() || words[at + word.size()] == ' ';
        if (begins && ends) return true;
    }
    return false;
}

result<Plan> plan_of(Context& context) {
    const PerformRequest& rq = context.request;
    const Kind* kind = find_kind(rq.kind);
    if (!kind || (kind->undo_only && rq.phase != "undo")) {
        std::string known;
        for (const Kind* one : all_kinds()) {
            if (!one->undo_only) known += (known.empty() ? "" : ", ") + std::string{one->name};
        }
        return fail(
            errc::not_found, fmt::format("there is no effect '{}'; known are {}", bounded(rq.kind, 64), known)
        );
    }
    for (const auto& [key, ignored] : rq.parameters) {
        if (!has_word(kind->keys, std::string_view{key})) {
            return fail(
                errc::invalid_input,
                fmt::format(
                    "{}.{}: is not a parameter of this effect; known are {}",
                    rq.kind,
                    std::string_view{key},
                    kind->keys
                )
            );
        }
    }
    const FieldReader in{rq.parameters, rq.kind};
    return kind->plan(context, in);
}

}  // namespace
}  // namespace effects

Performer::Performed Performer::perform(
    const PerformRequest& request, const Begin& begin, Interrupt& interrupt
) {
    using namespace effects;
    const Duration started = clock_.steady();
    Context context{request, state_folder_, clock_, interrupt, started + request.remaining};
    Performed out;
    out.result.step = request.step;
    out.result.phase = request.phase;
    const auto finish = [&](const Error& error) {
        out.result.ok = false;
        out.result.error = bounded(error.text, 4096);
        out.code = error.code;
        out.result.duration = clock_.steady() - started;
        return out;
    };
    Effect effect;
    effect.step = request.step;
    effect.phase = request.phase;
    effect.kind = request.kind;
    effect.undoes_step = request.undoes_step;
    const auto planned = [&]() -> result<Plan> {
        try {
            return plan_of(context);
        } catch (const std::exception& e) {
            return fail(errc::internal, fmt::format("{}: {}", request.kind, e.what()));
        }
    }();
    if (!planned) {
        effect.summary =
            fmt::format("{} refused: {}", bounded(request.kind, 64), bounded(planned.error().text, 300));
        effect.changes_world = false;
        if (auto begun = begin(effect); !begun) return finish(begun.error());
        return finish(planned.error());
    }
    const Plan& plan = *planned;
    effect.summary = bounded(plan.summary, 500);
    effect.parameters = plan.shown.empty() ? request.parameters : plan.shown;
    effect.capability = plan.capability;
    effect.changes_world = plan.changes_world;
    effect.undoable = plan.undoable;
    effect.undo = plan.undo;
    if (auto begun = begin(effect); !begun) return finish(begun.error());
    if (interrupt.stopped())
        return finish(fail(errc::cancelled, "the call was cancelled before this effect began"));
    if (request.dry_run && (plan.changes_world || !plan.dry_result.empty())) {
        out.result.ok = true;
        out.result.skipped = true;
        out.result.result = plan.dry_result;
        out.result.result["skipped"] = true;
        out.result.duration = clock_.steady() - started;
        return out;
    }
    auto done = [&]() -> result<json::object> {
        try {
            return plan.run(context);
        } catch (const std::exception& e) {
            return fail(errc::internal, fmt::format("{}: {}", request.kind, e.what()));
        }
    }();
    if (!done) return finish(done.error());
    out.result.ok = true;
    out.result.result = std::move(*done);
    out.result.duration = clock_.steady() - started;
    return out;
}

std::vector<std::string> effect_kinds() {
    std::vector<std::string> out;
    for (const auto* kind : effects::all_kinds()) {
        if (!kind->undo_only) out.emplace_back(kind->name);
    }
    return out;
}

bool reap_children() {
    pid_t ended = 0;
    do ended = ::waitpid(-1, nullptr, WNOHANG);
    while (ended > 0);
    return ended == 0;
}

}  // namespace heal
