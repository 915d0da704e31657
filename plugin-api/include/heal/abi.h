/* The border between heald and a strategy in a shared library. C11 … C++20; needs nothing but this file. Most authors want
 * sdk.hpp, which is glue over it; other languages bind to this file. What it deliberately does not hold: any effect (they are
 * words of the extension HEAL_EXT_EFFECTS_1 and documented in docs/plugin-guide.md), any C++ type, any allocator.
 *
 * Conventions, which every version of this border keeps:
 *  1. A library exports one function, heal_plugin_entry_v1. It returns a pointer to a static struct. All else is hidden.
 *  2. Every struct begins with struct_size, set by whoever made it to its own sizeof. Members are only ever appended, never removed,
 *     reordered or given another meaning. Before a member newer than 1.0 is touched, struct_size is checked. Only the two frozen
 *     pairs heal_str and heal_sink are embedded or passed by value.
 *  3. The host loads a plugin whose abi_major equals its own and whose abi_minor is not above its own. A refusal names both
 *     versions, the file and the remedy. JSON that crosses carries "schema" where its form may change.
 *  4. Required: describe, create; execute and destroy of each strategy. Optional groups by non-null pointer: assess; verify; rollback.
 *     Everything later comes by get_extension("heal.<name>/<revision>"), null when unknown; a revision never changes.
 *  5. Text is UTF-8, pointer and length, not terminated, borrowed for the duration of the call. An empty text may have a null
 *     pointer. Structured data are JSON text. Durations are int64_t milliseconds, points in time int64_t microseconds since
 *     1970-01-01T00:00:00Z, a confidence is a double in [0,1].
 *  6. Nobody frees the other's memory. Output goes through a sink its receiver owns; strategies end by their own destroy.
 *  7. A status is an int32_t of the HEAL_* list; a value not on it counts as HEAL_FAILED. No enum type is a member or an argument.
 *  8. Codes are for machines; the text for people goes to the error sink (one sentence, at most 4 KiB is kept).
 *  9. Cancelling is cooperative: ask is_cancelled or remaining_ms now and then. Who does not heed it is killed with its process.
 * 10. A strategy logs by heal_host.log, not on stdout or stderr (both are captured, and shown only when the process dies).
 * 11. Every function has a thread tag: [call-thread] = the thread on which the host entered the plugin, during that call;
 *     [any-thread]. The host never enters one process on two threads, so no function of a plugin is called twice at a time.
 * 12. No exception, longjmp or other unwinding leaves a plugin.
 * 13. A library is loaded once into a process (RTLD_NOW | RTLD_LOCAL) and never unloaded; a new version gets a new process. That
 *     process can't start processes, open sockets or files for writing, or signal others: it asks for effects instead.
 * 14. A binary built against 1.0 is kept among heald's tests and has to load for as long as the major is 1.
 */
#ifndef HEAL_ABI_H
#define HEAL_ABI_H

#ifdef __cplusplus
#include <cstddef>
#include <cstdint>
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#endif

#define HEAL_ABI_MAJOR 1
#define HEAL_ABI_MINOR 0

/* The name of the one exported function, for loaders. */
#define HEAL_ENTRY_SYMBOL "heal_plugin_entry_v1"

#if defined(__GNUC__) || defined(__clang__)
#define HEAL_EXPORT __attribute__((visibility("default")))
#else
#define HEAL_EXPORT
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What a call came to (convention 7). */
#define HEAL_OK 0          /* done; for verify: the error is gone */
#define HEAL_DECLINED 1    /* not for me after all; nothing was changed */
#define HEAL_FAILED 2      /* tried and failed; for verify: the error is still there */
#define HEAL_RETRY 3       /* failed now, worth trying later */
#define HEAL_CANCELLED 4   /* heeded is_cancelled */
#define HEAL_INVALID 5     /* the request or the configuration is unusable; the error text says where */
#define HEAL_UNSUPPORTED 6 /* this strategy has no such function, or the host no such effect */
#define HEAL_DENIED 7      /* effects only: the capability is not granted */

/* Levels of heal_host.log. */
#define HEAL_LOG_TRACE 1
#define HEAL_LOG_DEBUG 2
#define HEAL_LOG_INFO 3
#define HEAL_LOG_WARN 4
#define HEAL_LOG_ERROR 5
#define HEAL_LOG_MISBEHAVIOUR 6 /* glue code noticed that its plugin breaks a convention */

/* Frozen: text that is borrowed (convention 5). */
typedef struct heal_str {
    const char* data;
    size_t size;
} heal_str;

/* Frozen: where output goes. write appends a chunk; false: the sink is full (64 KiB for a result, 4 KiB for an error), the rest is
 * dropped. ctx belongs to the sink. [call-thread] */
typedef struct heal_sink {
    void* ctx;
    bool (*write)(void* ctx, heal_str chunk);
} heal_sink;

/* What the host offers for the life of the process. */
typedef struct heal_host {
    uint32_t struct_size;
    uint32_t abi_minor; /* the host's; its major equals the plugin's */
    void* ctx;
    /* fields_json: an object, or empty. Lines beyond 1000 per call are counted and dropped. [any-thread] */
    void (*log)(void* ctx, int32_t level, heal_str message, heal_str fields_json);
    /* Null when the host does not know the id (a C string). What it returns lives as long as the process. [any-thread] */
    const void* (*get_extension)(void* ctx, const char* id);
} heal_host;

/* One call of a strategy. Dead as soon as the function returns: don't keep pointers into it. */
typedef struct heal_call {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    void* ctx;
    /* True once someone asked to stop or the deadline has passed; stays true. Cheap: about a microsecond. [call-thread] */
    bool (*is_cancelled)(void* ctx);
    /* Until the deadline, at least 0. [call-thread] */
    int64_t (*remaining_ms)(void* ctx);
    /* {"text": "one sentence", "detail": {…}}, both optional; at most 64 KiB. */
    const heal_sink* result;
    const heal_sink* error;
} heal_call;

/* One strategy, made by create. Every function is [call-thread]. `self` is passed back as it is. */
typedef struct heal_strategy {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    void* self;
    void (*destroy)(void* self);                                                      /* required */
    /* request: {"attempt", "incident": {…}, "target": {…}, "config": {…}, "dry_run": bool} (docs/plugin-guide.md) */
    int32_t (*execute)(void* self, heal_str request_json, const heal_call* call);     /* required */
    /* How sure the strategy is that it helps. Must not ask for effects. HEAL_DECLINED: not at all. Null: the descriptor's
     * "confidence" counts. A value outside [0,1] counts as declined. */
    int32_t (*assess)(void* self, heal_str request_json, const heal_call* call, double* ret_confidence);
    /* HEAL_OK: the error is gone. */
    int32_t (*verify)(void* self, heal_str request_json, const heal_call* call);
    /* Beyond what the host takes back by itself (it undoes recorded effects without the plugin). */
    int32_t (*rollback)(void* self, heal_str request_json, const heal_call* call);
    const void* (*get_extension)(void* self, const char* id);                         /* may be null */
} heal_strategy;

/* The library. Static storage. */
typedef struct heal_plugin_entry {
    uint32_t struct_size;
    uint32_t abi_major; /* HEAL_ABI_MAJOR at the time of building */
    uint32_t abi_minor;
    uint32_t reserved; /* 0 */
    /* JSON array with one object of facts per strategy (docs/plugin-guide.md, "Facts"); static storage; at most 256 KiB.
     * Called before any create, at most once. [call-thread] */
    heal_str (*describe)(void);
    /* Makes the strategy `name` of describe with a configuration that fits its declared parameters. HEAL_OK sets *ret_strategy, which
     * is valid until its destroy; any other status leaves it and writes to error. [call-thread] */
    int32_t (*create)(const heal_host* host, heal_str name, heal_str config_json, const heal_strategy** ret_strategy,
                      const heal_sink* error);
} heal_plugin_entry;

/* The one exported function. Called once, right after loading. */
typedef const heal_plugin_entry* (*heal_plugin_entry_function)(void);

/* ---- Extension "heal.effects/1" of heal_host: how a strategy changes the world, and looks at it. ---- */
#define HEAL_EXT_EFFECTS_1 "heal.effects/1"

typedef struct heal_effects_1 {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    /* Performs one effect and waits for it. `call` is that of the running execute, verify or rollback. HEAL_OK writes a JSON object to
     * result; any other status a sentence to error. HEAL_DENIED: the capability is missing. HEAL_CANCELLED: the call was cancelled
     * or its deadline came. HEAL_UNSUPPORTED: no such kind. HEAL_INVALID: the parameters, and which. HEAL_FAILED: the
     * world refused. The kinds and their parameters: docs/plugin-guide.md, "Effects". [call-thread] */
    int32_t (*perform)(const heal_call* call, heal_str kind, heal_str parameters_json, const heal_sink* result,
                       const heal_sink* error);
} heal_effects_1;

#ifdef __cplusplus
}
#endif

#endif /* HEAL_ABI_H */
