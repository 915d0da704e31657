/* Compiled in every language mode of C and C++ with all warnings as errors: the header stands alone, and the layout of 1.0 is what it was
 * when it was frozen. The numbers are those of the LP64 platforms heald runs on (x86-64, AArch64). */
#include <heal/abi.h>

#ifdef __cplusplus
#define CHECK(name, condition) static_assert(condition, #name)
#else
#define CHECK(name, condition) _Static_assert(condition, #name)
#endif
#define AT(type, member, offset) CHECK(type##_##member, offsetof(type, member) == (offset))

CHECK(str, sizeof(heal_str) == 16);
CHECK(sink, sizeof(heal_sink) == 16);
AT(heal_str, data, 0);
AT(heal_str, size, 8);
AT(heal_sink, ctx, 0);
AT(heal_sink, write, 8);
AT(heal_host, struct_size, 0);
AT(heal_host, abi_minor, 4);
AT(heal_host, ctx, 8);
AT(heal_host, log, 16);
AT(heal_host, get_extension, 24);
AT(heal_call, struct_size, 0);
AT(heal_call, ctx, 8);
AT(heal_call, is_cancelled, 16);
AT(heal_call, remaining_ms, 24);
AT(heal_call, result, 32);
AT(heal_call, error, 40);
AT(heal_strategy, struct_size, 0);
AT(heal_strategy, self, 8);
AT(heal_strategy, destroy, 16);
AT(heal_strategy, execute, 24);
AT(heal_strategy, assess, 32);
AT(heal_strategy, verify, 40);
AT(heal_strategy, rollback, 48);
AT(heal_strategy, get_extension, 56);
AT(heal_plugin_entry, struct_size, 0);
AT(heal_plugin_entry, abi_major, 4);
AT(heal_plugin_entry, abi_minor, 8);
AT(heal_plugin_entry, describe, 16);
AT(heal_plugin_entry, create, 24);
AT(heal_effects_1, struct_size, 0);
AT(heal_effects_1, perform, 8);
CHECK(entry_1_0, sizeof(heal_plugin_entry) >= 32);
CHECK(statuses, HEAL_OK == 0 && HEAL_DECLINED == 1 && HEAL_FAILED == 2 && HEAL_RETRY == 3 && HEAL_CANCELLED == 4 && HEAL_INVALID == 5 && HEAL_UNSUPPORTED == 6 && HEAL_DENIED == 7);
CHECK(levels, HEAL_LOG_TRACE == 1 && HEAL_LOG_ERROR == 5 && HEAL_LOG_MISBEHAVIOUR == 6);

int heal_abi_header_compiles(void);
int heal_abi_header_compiles(void) { return HEAL_ABI_MAJOR; }
