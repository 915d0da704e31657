/* A strategy in plain C, with nothing but heal/abi.h:  cc -shared -fPIC -fvisibility=hidden plain.c -o plain.so */
#include <heal/abi.h>

#include <stdio.h>
#include <string.h>

static const heal_host* host;

static heal_str text(const char* s) {
    heal_str out = {s, strlen(s)};
    return out;
}
static void put(const heal_sink* sink, const char* s) { sink->write(sink->ctx, text(s)); }

static bool append(void* ctx, heal_str chunk) {
    char* to = ctx;
    const size_t used = strlen(to), room = 255 - used;
    memcpy(to + used, chunk.data, chunk.size < room ? chunk.size : room);
    return chunk.size <= room;
}

static int32_t assess(void* self, heal_str request, const heal_call* call, double* ret_confidence) {
    (void)self, (void)request, (void)call;
    *ret_confidence = 0.25;
    return HEAL_OK;
}

static int32_t execute(void* self, heal_str request, const heal_call* call) {
    const heal_effects_1* effects = host->get_extension(host->ctx, HEAL_EXT_EFFECTS_1);
    char result[256] = "", error[256] = "";
    const heal_sink result_sink = {result, append}, error_sink = {error, append};
    (void)self, (void)request;
    if (!effects) return HEAL_UNSUPPORTED;
    const int32_t status = effects->perform(call, text("exec"), text("{\"argv\":[\"/bin/echo\",\"from C\"]}"), &result_sink, &error_sink);
    if (status != HEAL_OK) {
        put(call->error, error);
        return status;
    }
    host->log(host->ctx, HEAL_LOG_INFO, text("done in C"), text("{}"));
    put(call->result, strstr(result, "from C") ? "{\"text\":\"C says hello\"}" : "{\"text\":\"no output\"}");
    return HEAL_OK;
}

static void destroy(void* self) { (void)self; }

static const heal_strategy strategy = {sizeof(heal_strategy), 0, NULL, destroy, execute, assess, NULL, NULL, NULL};

static heal_str describe(void) {
    return text("[{\"name\":\"plain-c\",\"summary\":\"A strategy in plain C\",\"risk\":\"safe\",\"assess\":true,"
                "\"matches\":[{\"service\":\"*\"}],\"capabilities\":[\"exec:/bin/echo\"]}]");
}

static int32_t create(const heal_host* given, heal_str name, heal_str config, const heal_strategy** ret, const heal_sink* error) {
    (void)name, (void)config, (void)error;
    host = given;
    *ret = &strategy;
    return HEAL_OK;
}

static const heal_plugin_entry entry = {sizeof(heal_plugin_entry), HEAL_ABI_MAJOR, HEAL_ABI_MINOR, 0, describe, create};

HEAL_EXPORT const heal_plugin_entry* heal_plugin_entry_v1(void);
HEAL_EXPORT const heal_plugin_entry* heal_plugin_entry_v1(void) { return &entry; }
