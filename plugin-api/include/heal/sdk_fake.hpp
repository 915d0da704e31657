// A fake host for the unit tests of strategies: runs a strategy in the test's own process, answers its effects from a table, and keeps
// what it asked for. Header-only, like sdk.hpp. It deliberately performs nothing.
//
//   heal::fake::host host;
//   host.answer("exec", heal::json::object({{"exit_code", 0}, {"output", "ok"}}));
//   const auto done = host.execute<my_strategy>(heal::fake::request({{"target", …}}), config);
//   host.expect(done.status == HEAL_OK, "it succeeds");
//   host.expect(host.effects()[0].kind == "exec", "by running a command");
//   return host.result();                                  // 0 when every expectation held
#pragma once

#include <heal/sdk.hpp>

#include <cstdio>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace heal::fake {

/// A request with the given members; the others are empty objects.
inline heal::json request(std::initializer_list<heal::json::member> members) {
    heal::json out = heal::json::object({{"attempt", "test"}, {"incident", heal::json::object()}, {"target", heal::json::object()}, {"dry_run", false}});
    for (const auto& [key, value] : members) out.set(key, value);
    return out;
}

struct effect {
    std::string kind;
    heal::json parameters;
};
struct log_line {
    std::int32_t level;
    std::string message;
    heal::json fields;
};

class host {
public:
    host() {
        raw_.struct_size = sizeof raw_;
        raw_.abi_minor = HEAL_ABI_MINOR;
        raw_.ctx = this;
        raw_.log = [](void* ctx, std::int32_t level, heal_str message, heal_str fields) {
            auto& self = *static_cast<host*>(ctx);
            self.log_.push_back({level, std::string(detail::borrowed(message)), fields.size > 0 ? heal::json::parse(detail::borrowed(fields)) : heal::json()});
        };
        raw_.get_extension = [](void*, const char* id) -> const void* {
            return std::string_view(id) == HEAL_EXT_EFFECTS_1 ? static_cast<const void*>(&effects_table) : nullptr;
        };
    }
    host(const host&) = delete;
    host& operator=(const host&) = delete;

    /// Every effect of that kind is answered so, until the next word on it. Unanswered kinds give an empty object.
    void answer(const std::string& kind, heal::json result) {
        answers_[kind] = [r = std::move(result)](const heal::json&) { return std::pair(std::int32_t{HEAL_OK}, r); };
    }
    /// Answers depend on the parameters; throw heal::effect_error to refuse.
    void answer_with(const std::string& kind, std::function<heal::json(const heal::json& parameters)> make) {
        answers_[kind] = [make = std::move(make)](const heal::json& p) { return std::pair(std::int32_t{HEAL_OK}, make(p)); };
    }
    void refuse(const std::string& kind, std::int32_t status, const std::string& text) {
        answers_[kind] = [status, text](const heal::json&) { return std::pair(status, heal::json(text)); };
    }
    /// is_cancelled() is true from now on; effects answer HEAL_CANCELLED.
    void cancel() { cancelled_ = true; }

    const std::vector<effect>& effects() const { return effects_; }
    const std::vector<log_line>& log() const { return log_; }
    std::vector<std::string> kinds() const {
        std::vector<std::string> out;
        for (const effect& e : effects_) out.push_back(e.kind);
        return out;
    }
    void forget() {
        effects_.clear();
        log_.clear();
    }

    /// Calls go through the same C border as in heald. A missing assess gives the descriptor's confidence; a text with a NaN cause
    /// (an exception) gives -1.
    template <class S>
    double assess(const heal::json& rq, const heal::json& config = heal::json::object()) {
        double out = S::about.confidence;
        const outcome done = with<S>(rq, config, [&](const heal_strategy& s, heal_str text, const heal_call& c) -> std::int32_t {
            return s.assess ? s.assess(s.self, text, &c, &out) : HEAL_OK;
        });
        return done.status == HEAL_OK ? out : -1;
    }
    template <class S>
    outcome execute(const heal::json& rq, const heal::json& config = heal::json::object()) {
        return with<S>(rq, config, [](const heal_strategy& s, heal_str text, const heal_call& c) { return s.execute(s.self, text, &c); });
    }
    template <class S>
    outcome verify(const heal::json& rq, const heal::json& config = heal::json::object()) {
        return with<S>(rq, config, [](const heal_strategy& s, heal_str text, const heal_call& c) -> std::int32_t { return s.verify ? s.verify(s.self, text, &c) : HEAL_UNSUPPORTED; });
    }
    template <class S>
    outcome rollback(const heal::json& rq, const heal::json& config = heal::json::object()) {
        return with<S>(rq, config, [](const heal_strategy& s, heal_str text, const heal_call& c) -> std::int32_t { return s.rollback ? s.rollback(s.self, text, &c) : HEAL_UNSUPPORTED; });
    }

    /// For tests without a framework: counts and prints what does not hold.
    void expect(bool holds, const char* what) {
        if (holds) return;
        ++failures_;
        std::fprintf(stderr, "does not hold: %s\n", what);
    }
    int result() const { return failures_ == 0 ? 0 : 1; }

private:
    // The configuration with the defaults of the declared parameters, as heald fills it in.
    template <class S>
    static heal::json filled(heal::json config) {
        if constexpr (detail::has_parameters<S>) {
            for (const parameter& p : parameters(S::parameters())) {
                if (!config.contains(p.name()) && p.schema().contains("default")) config.set(p.name(), p.schema()["default"]);
            }
        }
        return config;
    }

    template <class S, class F>
    outcome with(heal::json rq, const heal::json& given, F&& body) {
        const heal::json config = filled<S>(given);
        rq.set("config", config);
        const heal_plugin_entry* entry = detail::library<S>::entry();
        std::string out, error;
        const heal_sink out_sink{&out, &append}, error_sink{&error, &append};
        const std::string config_text = config.dump(), request_text = rq.dump();
        const heal_strategy* strategy = nullptr;
        std::int32_t status = entry->create(&raw_, {S::about.name.data(), S::about.name.size()}, {config_text.data(), config_text.size()}, &strategy, &error_sink);
        if (status != HEAL_OK) return {status, error, {}};
        const heal_call call{sizeof(heal_call), 0, this, [](void* ctx) { return static_cast<host*>(ctx)->cancelled_; },
            [](void* ctx) { return static_cast<host*>(ctx)->cancelled_ ? std::int64_t{0} : std::int64_t{30'000}; }, &out_sink, &error_sink};
        status = body(*strategy, heal_str{request_text.data(), request_text.size()}, call);
        strategy->destroy(strategy->self);
        const heal::json parsed = out.empty() ? heal::json() : heal::json::parse(out);
        return {status, status == HEAL_OK || error.empty() ? parsed["text"].string_or(error) : error, parsed["detail"]};
    }

    static bool append(void* ctx, heal_str chunk) {
        static_cast<std::string*>(ctx)->append(chunk.data ? chunk.data : "", chunk.size);
        return true;
    }
    static void put(const heal_sink* sink, std::string_view text) { sink->write(sink->ctx, {text.data(), text.size()}); }
    static std::int32_t perform(const heal_call* call, heal_str kind, heal_str parameters, const heal_sink* result, const heal_sink* error) {
        auto& self = *static_cast<host*>(call->ctx);
        effect e{std::string(detail::borrowed(kind)), heal::json::parse(detail::borrowed(parameters))};
        self.effects_.push_back(e);
        if (self.cancelled_) {
            put(error, "the call was cancelled");
            return HEAL_CANCELLED;
        }
        const auto known = self.answers_.find(e.kind);
        if (known == self.answers_.end()) {
            put(result, "{}");
            return HEAL_OK;
        }
        try {
            const auto [status, value] = known->second(e.parameters);
            if (status == HEAL_OK) put(result, value.dump());
            else put(error, value.view());
            return status;
        } catch (const effect_error& refused) {
            put(error, refused.what());
            return refused.status();
        }
    }
    static constexpr heal_effects_1 effects_table{sizeof(heal_effects_1), 0, &host::perform};

    heal_host raw_{};
    bool cancelled_ = false;
    int failures_ = 0;
    std::vector<effect> effects_;
    std::vector<log_line> log_;
    std::map<std::string, std::function<std::pair<std::int32_t, heal::json>(const heal::json&)>> answers_;
};

}  // namespace heal::fake
