// A strategy's own values and time. Values are one file each below state_folder/values/<strategy>, so that a crash between two
// leaves each of them whole.
#include "base/files.hpp"
#include "host/effects_parts.hpp"

#include <algorithm>

namespace heal::effects {
namespace {

constexpr std::size_t max_values = 1000, max_value_bytes = 64U << 10U;

bool is_key(std::string_view s) {
    return !s.empty() && s.size() <= 128 && s[0] != '.' && std::all_of(s.begin(), s.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
    });
}

std::string folder_of(const Context& c) { return c.state_folder + "/values/" + c.request.strategy; }

result<std::string> key_of(const Context& context, const FieldReader& in) {
    auto key = in.required_string("key");
    if (!key) return std::move(key).error();
    if (!is_key(*key)) return fail(errc::invalid_input, in.path() + ".key: must be 1 to 128 letters, digits, '.', '-', '_', not beginning with '.'");
    if (!is_key(context.request.strategy)) return fail(errc::invalid_input, in.path() + ": needs a strategy's name");
    return key;
}

result<Plan> plan_get(Context& context, const FieldReader& in) {
    auto key = key_of(context, in);
    if (!key) return std::move(key).error();
    Plan plan;
    plan.changes_world = false;
    plan.summary = "read its value " + *key;
    plan.run = [key = *key](Context& c) -> result<json::object> {
        SystemFiles files;
        auto value = files.read(folder_of(c) + "/" + key, max_value_bytes);
        if (!value && value.error().code == errc::not_found) return json::object{{"exists", false}, {"value", nullptr}};
        if (!value) return std::move(value).error();
        return json::object{{"exists", true}, {"value", to_valid_utf8(*value)}};
    };
    return plan;
}

result<Plan> plan_put(Context& context, const FieldReader& in) {
    auto key = key_of(context, in);
    if (!key) return std::move(key).error();
    const auto* given = context.request.parameters.if_contains("value");
    if (!given || !(given->is_string() || given->is_null())) return fail(errc::invalid_input, "state_put.value: must be a string, or null to remove it");
    if (given->is_string() && given->get_string().size() > max_value_bytes) return fail(errc::invalid_input, "state_put.value: must have at most 64 KiB");
    Plan plan;
    // Its own memory is not the world: no undo, so that it can remember what it tried.
    plan.changes_world = false;
    plan.summary = (given->is_null() ? "forget its value " : "keep its value ") + *key;
    plan.dry_result = {{"kept", true}};
    plan.run = [key = *key, value = *given](Context& c) -> result<json::object> {
        SystemFiles files;
        const std::string path = folder_of(c) + "/" + key;
        if (value.is_null()) {
            HEAL_TRY(files.remove(path));
            return json::object{{"kept", true}};
        }
        HEAL_TRY(files.make_folder(folder_of(c)));
        if (!files.exists(path)) {
            auto names = files.list(folder_of(c));
            if (names && names->size() >= max_values) return fail(errc::overloaded, fmt::format("the strategy keeps {} values already; remove some", max_values));
        }
        HEAL_TRY(files.write_atomic(path, view(value.get_string()), 0600));
        return json::object{{"kept", true}};
    };
    return plan;
}

result<Plan> plan_sleep(Context&, const FieldReader& in) {
    auto ms = in.required_int("ms", 0, 3'600'000);
    if (!ms) return std::move(ms).error();
    Plan plan;
    plan.changes_world = false;
    plan.summary = fmt::format("wait {} ms", *ms);
    plan.dry_result = {{"slept_ms", 0}};
    plan.run = [ms = *ms](Context& c) -> result<json::object> {
        HEAL_TRY(wait_for(c, std::chrono::milliseconds{ms}));
        return json::object{{"slept_ms", ms}};
    };
    return plan;
}

result<Plan> plan_sleep_until(Context& context, const FieldReader& in) {
    auto until = in.required_int("time_us", 0, INT64_MAX);
    if (!until) return std::move(until).error();
    const Duration span{std::max<std::int64_t>(0, *until - context.clock.wall().us)};
    Plan plan;
    plan.changes_world = false;
    plan.summary = "wait until " + to_rfc3339(Time{*until});
    plan.dry_result = {{"slept_ms", 0}};
    plan.run = [span](Context& c) -> result<json::object> {
        HEAL_TRY(wait_for(c, span));
        return json::object{{"slept_ms", span.count() / 1000}};
    };
    return plan;
}

constexpr Kind kinds[] = {
    {"state_get", plan_get, false, "key"},
    {"state_put", plan_put, false, "key value"},
    {"sleep", plan_sleep, false, "ms"},
    {"sleep_until", plan_sleep_until, false, "time_us"},
};

}  // namespace

std::span<const Kind> state_kinds() { return kinds; }

}  // namespace heal::effects
