// A script in a Lua 5.4 state that it can't leave: libraries by allow-list, an allocator with a limit, a count hook that stops it at its
// deadline. The C++ build of Lua unwinds by exceptions, so locals of functions that raise are destroyed; calls that may
// raise are marked.
#include "host/artifact.hpp"

#include <heal/abi.h>

#include <fmt/format.h>
#include <lua5.4/lauxlib.h>
#include <lua5.4/lua.h>
#include <lua5.4/lualib.h>

#include <time.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace heal {
namespace {

constexpr int hook_instructions = 1000;  // 1000 instructions take some 10 µs
constexpr int max_depth = 32;            // of values that cross, as Boost.JSON's
constexpr std::size_t max_value_bytes = 512U << 10U;

std::int64_t now_us() {
    timespec ts{};
    ::clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1'000'000 + ts.tv_nsec / 1000;
}

struct Sandbox {
    lua_State* state = nullptr;
    std::size_t used = 0, limit = 0;
    std::int64_t deadline_us = 0;
    bool out_of_time = false;
    CallContext* context = nullptr;
    bool effects_allowed = false;
    std::string name;
    const ScriptLibraries* libraries = nullptr;
};

Sandbox& sandbox_of(lua_State* L) { return **static_cast<Sandbox**>(lua_getextraspace(L)); }

void* allocate(void* ud, void* block, std::size_t old_size, std::size_t new_size) {
    auto& box = *static_cast<Sandbox*>(ud);
    if (!block) old_size = 0;  // then it is the kind of the object (lua_Alloc)
    if (new_size == 0) {
        std::free(block);
        box.used -= old_size;
        return nullptr;
    }
    if (new_size > old_size && box.used - old_size + new_size > box.limit) return nullptr;
    void* out = std::realloc(block, new_size);
    if (out) box.used = box.used - old_size + new_size;
    return out;
}

void stop_when_due(lua_State* L, lua_Debug*) {
    Sandbox& box = sandbox_of(L);
    const bool cancelled = box.context && box.context->is_cancelled();
    if (!box.out_of_time && !cancelled && now_us() < box.deadline_us) return;
    box.out_of_time = true;
    // From here on every instruction raises, so that a pcall around this one can't go on (redis re-arms per line).
    lua_sethook(L, &stop_when_due, LUA_MASKCOUNT, 1);
    lua_sethook(box.state, &stop_when_due, LUA_MASKCOUNT, 1);
    luaL_error(L, "%s", cancelled ? "the call was cancelled" : "the deadline of the call came");  // raises
}

// ---- Values. ----

char array_mark;  // its address is the registry key of the metatable that marks a table as array

bool is_array(lua_State* L, int index) {
    if (lua_getmetatable(L, index) != 0) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &array_mark);
        const bool marked = lua_rawequal(L, -1, -2) != 0;
        lua_pop(L, 2);
        if (marked) return true;
    }
    return lua_rawlen(L, index) > 0;
}

json::value to_json(lua_State* L, int index, int depth, std::size_t& budget) {  // raises
    index = lua_absindex(L, index);
    if (depth > max_depth) luaL_error(L, "a value is nested more than %d levels deep, or holds itself", max_depth);
    const auto spend = [&](std::size_t n) {
        if (n > budget) luaL_error(L, "a value is larger than 512 KiB");
        budget -= n;
    };
    spend(8);
    switch (lua_type(L, index)) {
        case LUA_TNIL: return nullptr;
        case LUA_TBOOLEAN: return lua_toboolean(L, index) != 0;
        case LUA_TNUMBER: {
            if (lua_isinteger(L, index)) return static_cast<std::int64_t>(lua_tointeger(L, index));
            const double n = lua_tonumber(L, index);
            if (!std::isfinite(n)) luaL_error(L, "a number is not finite");
            return n;
        }
        case LUA_TSTRING: {
            std::size_t size = 0;
            const char* text = lua_tolstring(L, index, &size);
            spend(size);
            return json::string{to_valid_utf8({text, size})};
        }
        case LUA_TTABLE: break;
        default: luaL_error(L, "a %s can't leave the script", luaL_typename(L, index));
    }
    luaL_checkstack(L, 4, "a value is nested too deep");
    if (is_array(L, index)) {
        json::array out;
        const auto n = static_cast<lua_Integer>(lua_rawlen(L, index));
        for (lua_Integer i = 1; i <= n; ++i) {
            lua_rawgeti(L, index, i);
            out.push_back(to_json(L, -1, depth + 1, budget));
            lua_pop(L, 1);
        }
        return json::value(std::move(out));
    }
    json::object out;
    lua_pushnil(L);
    while (lua_next(L, index) != 0) {
        if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "a table must be a list, or have strings as keys");
        std::size_t size = 0;
        const char* key = lua_tolstring(L, -2, &size);
        spend(size);
        out[to_valid_utf8({key, size})] = to_json(L, -1, depth + 1, budget);
        lua_pop(L, 1);
    }
    return json::value(std::move(out));
}

void push(lua_State* L, const json::value& value);

void push(lua_State* L, const json::object& object) {  // raises
    luaL_checkstack(L, 4, "a value is nested too deep");
    lua_createtable(L, 0, static_cast<int>(std::min<std::size_t>(object.size(), 1000)));
    for (const auto& [key, value] : object) {
        lua_pushlstring(L, key.data(), key.size());
        push(L, value);
        lua_rawset(L, -3);
    }
}

void push(lua_State* L, const json::value& value) {  // raises
    luaL_checkstack(L, 4, "a value is nested too deep");
    switch (value.kind()) {
        case json::kind::null: lua_pushnil(L); return;
        case json::kind::bool_: lua_pushboolean(L, value.get_bool() ? 1 : 0); return;
        case json::kind::int64: lua_pushinteger(L, value.get_int64()); return;
        case json::kind::uint64: lua_pushnumber(L, static_cast<double>(value.get_uint64())); return;
        case json::kind::double_: lua_pushnumber(L, value.get_double()); return;
        case json::kind::string: lua_pushlstring(L, value.get_string().data(), value.get_string().size()); return;
        case json::kind::object: push(L, value.get_object()); return;
        case json::kind::array: break;
    }
    const auto& array = value.get_array();
    lua_createtable(L, static_cast<int>(std::min<std::size_t>(array.size(), 10'000)), 0);
    lua_Integer i = 0;
    for (const auto& item : array) {
        push(L, item);
        lua_rawseti(L, -2, ++i);
    }
    lua_rawgetp(L, LUA_REGISTRYINDEX, &array_mark);
    lua_setmetatable(L, -2);
}

// ---- What a script finds in its world. ----

CallContext& context_of(lua_State* L) {  // raises
    Sandbox& box = sandbox_of(L);
    if (!box.context) luaL_error(L, "this is only possible within assess, execute, verify or rollback");
    return *box.context;
}

// call.word{…} and call:word{…} are the same: the table itself as first argument is left out.
int first_argument(lua_State* L) { return lua_type(L, 1) == LUA_TTABLE && lua_rawequal(L, 1, lua_upvalueindex(2)) != 0 ? 2 : 1; }

// Words with one usual argument take it bare: call.read_file("/x").
constexpr std::array<std::pair<std::string_view, const char*>, 9> bare = {{{"read_file", "path"}, {"remove_file", "path"}, {"list_files", "path"},
    {"state_get", "key"}, {"tcp_check", "address"}, {"sleep", "ms"}, {"sleep_until", "time_us"}, {"exec", "argv"}, {"start_process", "argv"}}};

int effect(lua_State* L) {  // raises
    Sandbox& box = sandbox_of(L);
    CallContext& context = context_of(L);
    std::size_t size = 0;
    const char* word = lua_tolstring(L, lua_upvalueindex(1), &size);
    const std::string kind(word, size);
    const int at = first_argument(L);
    if (!box.effects_allowed) luaL_error(L, "%s: assess must not ask for effects", word);
    json::object parameters;
    std::size_t budget = max_value_bytes;
    if (!lua_isnoneornil(L, at)) {
        json::value given = to_json(L, at, 0, budget);
        if (given.is_object()) {
            parameters = std::move(given.get_object());
        } else {
            const auto* found = std::find_if(bare.begin(), bare.end(), [&](const auto& b) { return b.first == kind; });
            if (found == bare.end()) luaL_error(L, "%s: a table of parameters is needed", word);
            parameters[found->second] = std::move(given);
        }
    }
    const EffectAnswer answer = context.perform(kind, std::move(parameters));
    if (answer.status == HEAL_CANCELLED) {
        box.out_of_time = true;  // the hook ends the script for good, whatever it catches
        lua_sethook(L, &stop_when_due, LUA_MASKCOUNT, 1);
        lua_sethook(box.state, &stop_when_due, LUA_MASKCOUNT, 1);
    }
    if (answer.status != HEAL_OK) luaL_error(L, "%s: %s", word, answer.error.c_str());
    push(L, answer.result);
    if (const auto* code = answer.result.if_contains("exit_code")) {
        lua_pushboolean(L, code->is_int64() && code->get_int64() == 0 && !bool_at(answer.result, "timed_out"));
        lua_setfield(L, -2, "ok");
    } else if (const auto* status = answer.result.if_contains("status"); status && kind == "http") {
        lua_pushboolean(L, status->is_int64() && status->get_int64() >= 200 && status->get_int64() < 300);
        lua_setfield(L, -2, "ok");
    }
    return 1;
}

void log_line(lua_State* L, Level level, int at) {  // raises
    std::size_t size = 0;
    const char* text = luaL_checklstring(L, at, &size);
    json::object fields;
    if (lua_type(L, at + 1) == LUA_TTABLE) {
        std::size_t budget = 64U << 10U;
        json::value value = to_json(L, at + 1, 0, budget);
        if (value.is_object()) fields = std::move(value.get_object());
    }
    if (CallContext* context = sandbox_of(L).context) context->log(level, to_valid_utf8({text, std::min<std::size_t>(size, 4096)}), std::move(fields));
}

int call_log(lua_State* L) {  // raises
    const int at = first_argument(L);
    const Level level = parse_level(luaL_checkstring(L, at));
    if (level == Level::unknown) luaL_error(L, "log: the level must be trace, debug, info, warn or error");
    log_line(L, level, at + 1);
    return 0;
}
int call_info(lua_State* L) {  // raises
    log_line(L, Level::info, first_argument(L));
    return 0;
}
int call_warn(lua_State* L) {  // raises
    log_line(L, Level::warn, first_argument(L));
    return 0;
}
int call_is_cancelled(lua_State* L) {  // raises
    lua_pushboolean(L, context_of(L).is_cancelled() ? 1 : 0);
    return 1;
}
int call_remaining(lua_State* L) {  // raises
    lua_pushinteger(L, context_of(L).remaining().count());
    return 1;
}

// call.progress(0.5, "half way")
int call_progress(lua_State* L) {  // raises
    const int at = first_argument(L);
    json::object parameters{{"fraction", luaL_checknumber(L, at)}};
    if (!lua_isnoneornil(L, at + 1)) parameters["message"] = luaL_checkstring(L, at + 1);
    const EffectAnswer answer = context_of(L).perform("progress", std::move(parameters));
    if (answer.status != HEAL_OK) luaL_error(L, "progress: %s", answer.error.c_str());
    return 0;
}

// call.state_put("key", "value")
int call_state_put(lua_State* L) {  // raises
    const int at = first_argument(L);
    if (lua_type(L, at) == LUA_TTABLE) return effect(L);
    json::object parameters{{"key", luaL_checkstring(L, at)}};
    if (lua_isnoneornil(L, at + 1)) parameters["value"] = nullptr;
    else parameters["value"] = luaL_checkstring(L, at + 1);
    const EffectAnswer answer = context_of(L).perform("state_put", std::move(parameters));
    if (answer.status != HEAL_OK) luaL_error(L, "state_put: %s", answer.error.c_str());
    return 0;
}

// The words of `call`: its own, and any other name as an effect.
int call_index(lua_State* L) {  // raises
    static constexpr std::pair<const char*, lua_CFunction> own[] = {{"log", call_log}, {"info", call_info}, {"warn", call_warn},
        {"is_cancelled", call_is_cancelled}, {"remaining_ms", call_remaining}, {"progress", call_progress}, {"state_put", call_state_put}};
    const char* word = luaL_checkstring(L, 2);
    lua_CFunction function = &effect;
    for (const auto& [name, f] : own) {
        if (std::strcmp(name, word) == 0) function = f;
    }
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 1);
    lua_pushcclosure(L, function, 2);
    return 1;
}

int quiet_print(lua_State* L) {  // raises
    std::string line;
    const int n = lua_gettop(L);
    for (int i = 1; i <= n; ++i) {
        std::size_t size = 0;
        const char* text = luaL_tolstring(L, i, &size);
        if (i > 1) line += '\t';
        line.append(text, std::min<std::size_t>(size, 4096));
        lua_pop(L, 1);
        if (line.size() > 4096) break;
    }
    if (CallContext* context = sandbox_of(L).context) context->log(Level::debug, to_valid_utf8(std::string_view{line}.substr(0, 4096)), {});
    return 0;
}

// A finalizer would run outside of any call, at the collector's time.
int safe_setmetatable(lua_State* L) {  // raises
    luaL_checktype(L, 1, LUA_TTABLE);
    if (lua_type(L, 2) != LUA_TNIL && lua_type(L, 2) != LUA_TTABLE) luaL_argerror(L, 2, "nil or table expected");
    if (lua_type(L, 2) == LUA_TTABLE) {
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL) luaL_error(L, "a metatable with __gc is not allowed here");
        lua_pop(L, 1);
    }
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL) luaL_error(L, "cannot change a protected metatable");
    lua_settop(L, 2);
    lua_setmetatable(L, 1);
    return 1;
}

int require_library(lua_State* L) {  // raises
    Sandbox& box = sandbox_of(L);
    const std::string name = luaL_checkstring(L, 1);
    lua_getfield(L, LUA_REGISTRYINDEX, "heal.required");
    if (lua_getfield(L, -1, name.c_str()) != LUA_TNIL) return 1;
    lua_pop(L, 1);
    const auto found = box.libraries->find(name);
    if (found == box.libraries->end()) luaL_error(L, "require: there is no lib/%s.lua beside the scripts", name.c_str());
    if (luaL_loadbufferx(L, found->second.data(), found->second.size(), ("@lib/" + name + ".lua").c_str(), "t") != LUA_OK) lua_error(L);
    lua_call(L, 0, 1);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushboolean(L, 1);
    }
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, name.c_str());
    return 1;
}

int json_encode(lua_State* L) {  // raises
    luaL_checkany(L, 1);
    std::size_t budget = max_value_bytes;
    const std::string text = json::serialize(to_json(L, 1, 0, budget));
    lua_pushlstring(L, text.data(), text.size());
    return 1;
}

int json_decode(lua_State* L) {  // raises
    std::size_t size = 0;
    const char* text = luaL_checklstring(L, 1, &size);
    if (size > max_value_bytes) luaL_error(L, "json.decode: a text of more than 512 KiB");
    auto parsed = parse_json({text, size}, "json.decode");
    if (!parsed) luaL_error(L, "%s", parsed.error().text.c_str());
    push(L, *parsed);
    return 1;
}

int json_array(lua_State* L) {  // raises
    if (lua_isnoneornil(L, 1)) {
        lua_settop(L, 0);
        lua_newtable(L);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &array_mark);
    lua_setmetatable(L, 1);
    return 1;
}

void keep_only(lua_State* L, const char* table, std::initializer_list<const char*> names) {
    lua_getglobal(L, table);
    lua_newtable(L);
    for (const char* name : names) {
        lua_getfield(L, -2, name);
        lua_setfield(L, -2, name);
    }
    lua_setglobal(L, table);
    lua_pop(L, 1);
}

int open_world(lua_State* L) {  // raises
    luaL_requiref(L, "_G", luaopen_base, 1);
    luaL_requiref(L, "string", luaopen_string, 1);
    luaL_requiref(L, "table", luaopen_table, 1);
    luaL_requiref(L, "math", luaopen_math, 1);
    luaL_requiref(L, "utf8", luaopen_utf8, 1);
    luaL_requiref(L, "coroutine", luaopen_coroutine, 1);
    luaL_requiref(L, "os", luaopen_os, 1);
    lua_settop(L, 0);
    for (const char* name : {"dofile", "loadfile", "load", "collectgarbage", "warn", "_G"}) {
        lua_pushnil(L);
        lua_setglobal(L, name);
    }
    keep_only(L, "os", {"time", "clock", "difftime"});
    keep_only(L, "coroutine", {"create", "resume", "yield", "status", "wrap", "isyieldable", "running"});
    lua_getglobal(L, "string");
    lua_pushnil(L);
    lua_setfield(L, -2, "dump");
    lua_settop(L, 0);
    // Nobody changes the methods of all strings.
    lua_pushliteral(L, "");
    lua_getmetatable(L, -1);
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_settop(L, 0);
    lua_register(L, "print", quiet_print);
    lua_register(L, "setmetatable", safe_setmetatable);
    lua_register(L, "require", require_library);
    lua_newtable(L);
    lua_pushliteral(L, "a list");
    lua_setfield(L, -2, "__metatable");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &array_mark);
    lua_newtable(L);
    lua_pushcfunction(L, json_encode);
    lua_setfield(L, -2, "encode");
    lua_pushcfunction(L, json_decode);
    lua_setfield(L, -2, "decode");
    lua_pushcfunction(L, json_array);
    lua_setfield(L, -2, "array");
    lua_setglobal(L, "json");
    lua_newtable(L);
    lua_setfield(L, LUA_REGISTRYINDEX, "heal.required");
    lua_newtable(L);
    lua_newtable(L);
    lua_pushcfunction(L, call_index);
    lua_setfield(L, -2, "__index");
    lua_pushliteral(L, "call");
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_setfield(L, LUA_REGISTRYINDEX, "heal.call");
    return 0;
}

int with_place(lua_State* L) {
    const char* text = lua_tostring(L, 1);
    if (!text) text = luaL_tolstring(L, 1, nullptr);
    luaL_traceback(L, L, text, 1);
    return 1;
}

constexpr std::array<const char*, 4> functions = {"assess", "execute", "verify", "rollback"};

class Script final : public Artifact {
public:
    Script(std::string source, std::string name, ScriptLibraries libraries, ScriptLimits limits)
        : source_(std::move(source)), libraries_(std::move(libraries)), limits_(limits) {
        box_.name = std::move(name);
    }
    // A state that was stopped may hold a finalizer or a __close that never ends: it is left to the end of the process.
    ~Script() override {
        static std::vector<lua_State*> left_alone;
        if (box_.state && guilty_) left_alone.push_back(box_.state);
        else if (box_.state) lua_close(box_.state);
    }

    result<void> load() {
        box_.limit = limits_.memory_bytes;
        box_.libraries = &libraries_;
        box_.state = lua_newstate(&allocate, &box_);
        if (!box_.state) return refuse("the memory limit is too small for a Lua state");
        *static_cast<Sandbox**>(lua_getextraspace(box_.state)) = &box_;
        lua_State* L = box_.state;
        box_.deadline_us = now_us() + limits_.load_timeout.count() * 1000;
        lua_pushcfunction(L, open_world);
        if (lua_pcall(L, 0, 0, 0) != LUA_OK) return refuse(taken_error(L));
        lua_sethook(L, &stop_when_due, LUA_MASKCOUNT, hook_instructions);
        lua_pushcfunction(L, with_place);
        if (luaL_loadbufferx(L, source_.data(), source_.size(), ("@" + box_.name).c_str(), "t") != LUA_OK) return refuse(taken_error(L));
        if (lua_pcall(L, 0, 1, 1) != LUA_OK) {
            guilty_ = box_.out_of_time;
            return refuse(box_.out_of_time ? "did not end its main part within 2 s; keep work out of it" : taken_error(L));
        }
        if (lua_type(L, -1) != LUA_TTABLE) return refuse("must return a table { name = …, matches = …, execute = function(request, call) … end }, or a list of such tables");
        lua_pushvalue(L, -1);
        table_ = luaL_ref(L, LUA_REGISTRYINDEX);
        lua_settop(L, 0);
        return {};
    }

    result<json::value> describe() override {
        lua_State* L = box_.state;
        json::array out;
        lua_rawgeti(L, LUA_REGISTRYINDEX, table_);
        const auto n = static_cast<lua_Integer>(lua_rawlen(L, -1));
        for (lua_Integer i = n == 0 ? 0 : 1; i <= n; ++i) {
            if (n == 0) lua_pushvalue(L, -1);
            else lua_rawgeti(L, -1, i);
            auto one = facts(L);
            lua_pop(L, 1);
            if (!one) {
                lua_settop(L, 0);
                return std::move(one).error();
            }
            out.push_back(std::move(*one));
        }
        lua_settop(L, 0);
        return json::value(std::move(out));
    }

    CallReply call(CallFunction function, const std::string& strategy, const json::object& request, CallContext& context) override {
        lua_State* L = box_.state;
        CallReply reply;
        box_.context = &context;
        box_.effects_allowed = function != CallFunction::assess;
        box_.out_of_time = false;
        box_.deadline_us = now_us() + context.remaining().count() * 1000;
        // `request` is borrowed by the protected function below through a light pointer: every raise happens under its pcall.
        Frame frame{this, &function, &strategy, &request, &reply};
        lua_settop(L, 0);
        lua_pushcfunction(L, with_place);
        lua_pushcfunction(L, &Script::protected_call);
        lua_pushlightuserdata(L, &frame);
        lua_sethook(L, &stop_when_due, LUA_MASKCOUNT, hook_instructions);
        const int status = lua_pcall(L, 1, 0, 1);
        box_.context = nullptr;
        if (status != LUA_OK) {
            reply.status = box_.out_of_time ? HEAL_CANCELLED : HEAL_FAILED;
            reply.out_of_time = box_.out_of_time;
            reply.spent = true;
            guilty_ = true;
            reply.text = fmt::format("{} of {}: {}", to_string(function), strategy, status == LUA_ERRMEM
                ? fmt::format("{}: not enough memory; a script may use {} KiB", box_.name, box_.limit >> 10U) : taken_error(L));
        } else if (box_.out_of_time) {
            reply.spent = guilty_ = true;
        }
        lua_settop(L, 0);
        return reply;
    }

private:
    struct Frame {
        Script* self;
        const CallFunction* function;
        const std::string* strategy;
        const json::object* request;
        CallReply* reply;
    };

    Error refuse(const std::string& reason) const {
        return fail(errc::invalid_input, reason.find(box_.name) == std::string::npos ? fmt::format("{}: {}", box_.name, reason) : reason);
    }

    static std::string taken_error(lua_State* L) {
        std::size_t size = 0;
        const char* text = lua_tolstring(L, -1, &size);
        std::string out = text ? to_valid_utf8({text, std::min<std::size_t>(size, 2000)}) : "an error that is no text";
        // One line for people: the message, then where it was called from.
        const auto stack = out.find("\nstack traceback:");
        if (stack != std::string::npos) {
            std::string rest = out.substr(stack + 17);
            out.resize(stack);
            std::string places;
            int lines = 0;
            for (std::size_t at = rest.find("\n\t"); at != std::string::npos && lines < 4; at = rest.find("\n\t", at + 2)) {
                std::string line = rest.substr(at + 2, rest.find('\n', at + 2) - at - 2);
                if (line.find("[C]") != std::string::npos || line.empty() || line[0] == '.') continue;
                places += (lines++ == 0 ? "" : " < ") + line;
            }
            if (!places.empty()) out += " (" + places + ")";
        }
        lua_pop(L, 1);
        return out;
    }

    result<json::value> facts(lua_State* L) {  // of the table on top
        if (lua_type(L, -1) != LUA_TTABLE) return refuse("its list must hold tables only");
        json::object out;
        std::array<bool, functions.size()> has{};
        const int table = lua_gettop(L);
        // Only raw reads of plain values: nothing of the script runs here. to_json may raise on a value that can't cross.
        struct Reading {
            json::object* out;
            std::array<bool, 4>* has;
            std::string* wrong;
        };
        std::string wrong;
        Reading reading{&out, &has, &wrong};
        lua_pushcfunction(L, [](lua_State* S) -> int {
            auto& r = *static_cast<Reading*>(lua_touserdata(S, 2));
            lua_pushnil(S);
            while (lua_next(S, 1) != 0) {
                if (lua_type(S, -2) != LUA_TSTRING) luaL_error(S, "the strategy's table must have strings as keys");
                const std::string key = lua_tostring(S, -2);
                const auto* at = std::find_if(functions.begin(), functions.end(), [&](const char* f) { return key == f; });
                if (at != functions.end()) {
                    if (lua_type(S, -1) != LUA_TFUNCTION) luaL_error(S, "%s must be a function", key.c_str());
                    (*r.has)[static_cast<std::size_t>(at - functions.begin())] = true;
                } else {
                    std::size_t budget = 256U << 10U;
                    (*r.out)[key] = to_json(S, -1, 0, budget);
                }
                lua_pop(S, 1);
            }
            return 0;
        });
        lua_pushvalue(L, table);
        lua_pushlightuserdata(L, &reading);
        if (lua_pcall(L, 2, 0, 0) != LUA_OK) return refuse(taken_error(L));
        if (!has[1]) return refuse("lacks execute = function(request, call) … end");
        out["assess"] = has[0];
        out["verify"] = has[2];
        out["rollback"] = has[3];
        return json::value(std::move(out));
    }

    static int protected_call(lua_State* L) {  // raises
        Frame& f = *static_cast<Frame*>(lua_touserdata(L, 1));
        CallReply& reply = *f.reply;
        lua_rawgeti(L, LUA_REGISTRYINDEX, f.self->table_);
        const auto n = static_cast<lua_Integer>(lua_rawlen(L, -1));
        bool found = n == 0;
        for (lua_Integer i = 1; i <= n && !found; ++i) {
            lua_rawgeti(L, -1, i);
            lua_pushliteral(L, "name");
            lua_rawget(L, -2);
            const char* name = lua_tostring(L, -1);
            found = name && *f.strategy == name;
            lua_pop(L, found ? 1 : 2);
        }
        lua_pushstring(L, to_string(*f.function));
        if (!found || lua_rawget(L, -2) != LUA_TFUNCTION) {
            reply.status = HEAL_UNSUPPORTED;
            reply.text = fmt::format("{} has no {}", *f.strategy, to_string(*f.function));
            return 0;
        }
        push(L, *f.request);
        lua_getfield(L, LUA_REGISTRYINDEX, "heal.call");
        lua_call(L, 2, 1);
        if (*f.function == CallFunction::assess) {
            if (lua_isnil(L, -1) || (lua_isboolean(L, -1) && lua_toboolean(L, -1) == 0)) {
                reply.status = HEAL_DECLINED;
            } else if (lua_type(L, -1) != LUA_TNUMBER) {
                luaL_error(L, "assess must return a number from 0 to 1, or nil to decline, not a %s", luaL_typename(L, -1));
            } else {
                reply.confidence = lua_tonumber(L, -1);
            }
            return 0;
        }
        std::string word;
        if (lua_isboolean(L, -1)) {
            word = lua_toboolean(L, -1) != 0 ? "succeeded" : "failed";
        } else if (lua_type(L, -1) == LUA_TSTRING) {
            word = lua_tostring(L, -1);
        } else if (lua_type(L, -1) == LUA_TTABLE) {
            std::size_t budget = 64U << 10U;
            const json::value value = to_json(L, -1, 0, budget);
            const json::object empty;
            const auto& object = value.is_object() ? value.get_object() : empty;
            word = std::string{string_at(object, "outcome")};
            reply.text = std::string{string_at(object, "text").substr(0, 4096)};
            reply.detail = object_at(object, "detail");
        }
        static constexpr std::pair<std::string_view, std::int32_t> words[] = {{"succeeded", HEAL_OK}, {"failed", HEAL_FAILED},
            {"declined", HEAL_DECLINED}, {"retry", HEAL_RETRY}, {"cancelled", HEAL_CANCELLED}};
        for (const auto& [name, status] : words) {
            if (word == name) {
                reply.status = status;
                return 0;
            }
        }
        return luaL_error(L, "%s must return { outcome = \"succeeded\" | \"failed\" | \"declined\" | \"retry\" | \"cancelled\", text = …, detail = … }, true or false", to_string(*f.function));
    }

    Sandbox box_;
    std::string source_;
    ScriptLibraries libraries_;
    ScriptLimits limits_;
    int table_ = LUA_NOREF;
    bool guilty_ = false;
};

}  // namespace

result<std::unique_ptr<Artifact>> load_script(std::string source, const std::string& name, ScriptLibraries libraries, ScriptLimits limits) {
    auto script = std::make_unique<Script>(std::move(source), name, std::move(libraries), limits);
    HEAL_TRY(script->load());
    return std::unique_ptr<Artifact>{std::move(script)};
}

}  // namespace heal
