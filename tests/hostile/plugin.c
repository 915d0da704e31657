/* A plugin that misbehaves in the way its CASE names; valid C11 and C++17, built by run.py once per case. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <heal/abi.h>

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define IS(name) (strcmp(CASE, name) == 0)
#ifdef __cplusplus
#define ENTRY extern "C"
#define NOTHROW
#include <stdexcept>
#include <thread>
#else
#define ENTRY
#endif

static const heal_host* the_host;
static const heal_call* kept_call;
static heal_str kept_request;

static heal_str str(const char* text) {
    heal_str s;
    s.data = text;
    s.size = strlen(text);
    return s;
}
static void put(const heal_sink* sink, const char* text) { sink->write(sink->ctx, str(text)); }
static void spin(void) {
    volatile unsigned long n = 0;
    for (;;) ++n;
}
static int deep(int n) {
    volatile char block[4096];
    block[0] = (char)n;
    return deep(n + 1) + block[0];
}
static void frame(const char* text, unsigned length) {
    unsigned char head[4];
    head[0] = (unsigned char)length, head[1] = (unsigned char)(length >> 8), head[2] = (unsigned char)(length >> 16), head[3] = (unsigned char)(length >> 24);
    if (write(3, head, 4) != 4 || write(3, text, strlen(text)) < 0) _exit(99);
}
static void honest(const char* text) { frame(text, (unsigned)strlen(text)); }
static void* spin_thread(void* unused) {
    (void)unused;
    spin();
    return NULL;
}
static void* late_use(void* unused) {
    (void)unused;
    usleep(20000);
    /* Everything here is dead by now. */
    kept_call->is_cancelled(kept_call->ctx);
    kept_call->error->write(kept_call->error->ctx, kept_request);
    return NULL;
}
static void* effect_thread(void* unused) {
    const heal_effects_1* fx = (const heal_effects_1*)the_host->get_extension(the_host->ctx, HEAL_EXT_EFFECTS_1);
    (void)unused;
    fx->perform(kept_call, str("exec"), str("{\"argv\":[\"/bin/true\"]}"), kept_call->result, kept_call->error);
    return NULL;
}
#ifdef __cplusplus
struct bad_end {
    ~bad_end() noexcept(false) { throw 7; }
};
#endif
/* Each thing that must not be possible reports here; "possible" in the text fails the case. */
static int try_all(const heal_call* call) {
    char text[1024] = "impossible";
    int fd = -1;
    if (IS("exec_shell")) {
        execl("/bin/sh", "sh", "-c", "touch /tmp/heal-hostile-escape", (char*)NULL);
    } else if (IS("system_shell")) {
        if (system("touch /tmp/heal-hostile-escape") == 0) strcpy(text, "it was possible");
    } else if (IS("open_socket")) {
        if (socket(AF_INET, SOCK_STREAM, 0) >= 0 || socket(AF_UNIX, SOCK_STREAM, 0) >= 0) strcpy(text, "it was possible");
    } else if (IS("write_tmp_file")) {
        fd = open("/tmp/heal-hostile-escape", O_CREAT | O_WRONLY, 0666);
        if (fd >= 0) strcpy(text, "it was possible");
    } else if (IS("chmod_self")) {
        if (chmod("/proc/self/fd/4", 0777) == 0 || fchmod(4, 0777) == 0) strcpy(text, "it was possible");
    } else if (IS("rename_self")) {
        if (rename("/tmp/heal-hostile-victim", "/tmp/heal-hostile-escape") == 0 || errno == ENOENT) strcpy(text, "it was possible");
    } else if (IS("write_own_code")) {
        fd = open("/proc/self/fd/4", O_RDWR);
        if (fd >= 0 || pwrite(4, "x", 1, 0) == 1 || ftruncate(4, 0) == 0) strcpy(text, "it was possible");
    } else if (IS("mount_something")) {
        if (mount("none", "/mnt", "tmpfs", 0, "") == 0) strcpy(text, "it was possible");
    } else if (IS("become_root")) {
        if (setuid(0) == 0 && getuid() == 0) strcpy(text, "it was possible");
    } else if (IS("raise_limits")) {
        struct rlimit all;
        all.rlim_cur = all.rlim_max = RLIM_INFINITY;
        if (setrlimit(RLIMIT_AS, &all) == 0 || setrlimit(RLIMIT_FSIZE, &all) == 0) strcpy(text, "it was possible");
    } else if (IS("read_secrets")) {
        fd = open("/etc/shadow", O_RDONLY);
        if (fd < 0) fd = open("/root/.bashrc", O_RDONLY);
        if (fd < 0) fd = open("/proc/1/environ", O_RDONLY);
        if (fd >= 0) strcpy(text, "it was possible");
    } else if (IS("ptrace_parent")) {
        if (ptrace(PTRACE_ATTACH, getppid(), NULL, NULL) == 0) strcpy(text, "it was possible");
    } else if (IS("kill_parent")) {
        if (kill(getppid(), SIGKILL) == 0) strcpy(text, "it was possible");
    } else if (IS("kill_everyone")) {
        if (kill(-1, SIGKILL) == 0) strcpy(text, "it was possible");
    } else if (IS("new_namespace")) {
        if (unshare(CLONE_NEWUSER) == 0) strcpy(text, "it was possible");
    } else if (IS("double_fork")) {
        const pid_t pid = fork();
        if (pid == 0) {
            setsid();
            if (fork() == 0) sleep(600);
            _exit(0);
        }
        if (pid > 0) strcpy(text, "it was possible");
    } else {
        return 0;
    }
    put(call->error, text);
    return 1;
}

static int32_t execute(void* self, heal_str request, const heal_call* call) {
    (void)self;
    if (try_all(call)) return HEAL_FAILED;
    if (IS("null_write")) *(volatile int*)NULL = 1;
    if (IS("stack_overflow")) return deep(0);
    if (IS("abort")) abort();
    if (IS("exit_zero")) exit(0);
    if (IS("quick_exit")) quick_exit(0);
    if (IS("immediate_exit")) _exit(0);
    if (IS("pthread_exit")) pthread_exit(NULL);
    if (IS("illegal_instruction")) __builtin_trap();
    if (IS("divide_by_zero")) raise(SIGFPE);
    if (IS("bus_error")) raise(SIGBUS);
    if (IS("heap_corruption")) {
        char* block = (char*)malloc(32);
        memset(block - 16, 0x41, 80);
        free(block);
        free(malloc(32));
        abort();
    }
    if (IS("loop_execute") || IS("catches_sigterm")) {
        sigset_t all;
        sigfillset(&all);
        if (IS("catches_sigterm")) {
            signal(SIGTERM, SIG_IGN);
            sigprocmask(SIG_BLOCK, &all, NULL);
        }
        spin();
    }
    if (IS("ignores_cancel")) {
        for (;;) {
            call->is_cancelled(call->ctx);
            usleep(1000);
        }
    }
    if (IS("sleeps_forever")) sleep(100000);
    if (IS("fork_bomb")) {
        for (;;) {
            if (fork() < 0 && errno == EPERM) break;
        }
        put(call->error, "impossible");
        return HEAL_FAILED;
    }
    if (IS("thread_bomb")) {
        pthread_attr_t small;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 16384);
        for (;;) {
            pthread_t t;
            if (pthread_create(&t, &small, spin_thread, NULL) != 0) break;
        }
        spin();
    }
    if (IS("allocate_10gb")) {
        size_t all = 0;
        for (; all < (size_t)10 << 30; all += 1 << 20) {
            char* block = (char*)malloc(1 << 20);
            if (!block) break;
            block[0] = 1;
        }
        put(call->error, all >= (size_t)10 << 30 ? "it was possible" : "impossible");
        return HEAL_FAILED;
    }
    if (IS("leaks_descriptors")) {
        int n = 0;
        while (open("/dev/null", O_RDONLY) >= 0 && n < 100000) ++n;
        put(call->error, n >= 1000 ? "it was possible" : "impossible");
        return HEAL_FAILED;
    }
    if (IS("closes_fd3")) {
        close(3);
        return HEAL_OK;
    }
    if (IS("closes_all")) {
        int fd;
        for (fd = 0; fd < 1024; ++fd) close(fd);
        return HEAL_OK;
    }
    if (IS("replaces_fd3")) {
        dup2(1, 3);
        return HEAL_OK;
    }
    if (IS("garbage_on_fd3")) {
        if (write(3, "\1\2\3\4 this is not a frame at all, is it?", 40) < 0) return HEAL_FAILED;
        return HEAL_OK;
    }
    if (IS("frame_of_2gb")) {
        frame("{}", 0x7fffffffU);
        return HEAL_OK;
    }
    if (IS("empty_frame")) {
        frame("", 0);
        return HEAL_OK;
    }
    if (IS("half_frame")) {
        frame("{\"type\":\"result\",", 1000);
        spin();
    }
    if (IS("no_json_frame")) {
        frame("[1,2,3", 6);
        return HEAL_OK;
    }
    if (IS("deep_json_frame")) {
        static char text[100001];
        memset(text, '[', 100000);
        frame(text, 100000);
        return HEAL_OK;
    }
    if (IS("unknown_message")) {
        honest("{\"type\":\"launch\",\"id\":1}");
        usleep(50000);
        return HEAL_OK;
    }
    if (IS("forged_other_call")) {
        honest("{\"type\":\"result\",\"id\":4711,\"replies\":[{\"status\":0}]}");
        usleep(50000);
        return HEAL_OK;
    }
    if (IS("flood_fd3")) {
        for (;;) honest("{\"type\":\"log\",\"id\":1,\"message\":\"flood\"}");
    }
    if (IS("answers_twice")) {
        /* The first is forged, the second is the host's own. */
        honest("{\"type\":\"result\",\"id\":1,\"replies\":[{\"status\":2,\"text\":\"forged\"}]}");
        return HEAL_FAILED;
    }
    if (IS("flood_stdout")) {
        for (;;) fputs("all work and no play makes a dull plugin\n", stdout);
    }
    if (IS("flood_log")) {
        int i;
        for (i = 0; i < 1000000; ++i) the_host->log(the_host->ctx, HEAL_LOG_INFO, str("flood"), str("{}"));
        return HEAL_FAILED;
    }
    if (IS("invalid_utf8")) {
        the_host->log(the_host->ctx, 77, str("\xff\xfe\xc0\x80"), str("{\"a\":\"\xff\"}"));
        put(call->error, "\xf8\x88\x80\x80\x80 broken \xed\xa0\x80");
        return HEAL_FAILED;
    }
    if (IS("result_no_json")) {
        put(call->result, "{\"text\": \"never closed");
        return HEAL_OK;
    }
    if (IS("result_of_10mb")) {
        int i;
        static char block[65536];
        memset(block, 'x', sizeof block - 1);
        put(call->result, "{\"text\":\"");
        for (i = 0; i < 160; ++i) put(call->result, block);
        put(call->result, "\"}");
        return HEAL_OK;
    }
    if (IS("null_sink_data")) {
        heal_str nothing;
        nothing.data = NULL;
        nothing.size = (size_t)-1;
        call->error->write(call->error->ctx, nothing);
        the_host->log(the_host->ctx, 3, nothing, nothing);
        return HEAL_FAILED;
    }
    if (IS("unknown_status")) return 123456;
    if (IS("retains_call")) {
        pthread_t t;
        kept_call = call, kept_request = request;
        pthread_create(&t, NULL, late_use, NULL);
        pthread_detach(t);
        return HEAL_FAILED;
    }
    if (IS("effect_in_thread")) {
        pthread_t t;
        kept_call = call;
        pthread_create(&t, NULL, effect_thread, NULL);
        pthread_join(t, NULL);
        return HEAL_FAILED;
    }
    if (IS("thousand_effects")) {
        const heal_effects_1* fx = (const heal_effects_1*)the_host->get_extension(the_host->ctx, HEAL_EXT_EFFECTS_1);
        int i;
        for (i = 0; i < 5000; ++i) fx->perform(call, str("state_get"), str("{\"key\":\"x\"}"), call->result, call->error);
        return HEAL_FAILED;
    }
    if (IS("bad_effects")) {
        const heal_effects_1* fx = (const heal_effects_1*)the_host->get_extension(the_host->ctx, HEAL_EXT_EFFECTS_1);
        static char text[1 << 20];
        heal_sink none;
        int i;
        memset(&none, 0, sizeof none);
        for (i = 0; i < 50000; ++i) text[i] = '[';
        fx->perform(call, str("no_such_effect"), str("{}"), call->result, call->error);
        fx->perform(call, str("exec"), str("{\"argv\":[\"../../bin/sh\"]}"), call->result, call->error);
        fx->perform(call, str("exec"), str(text), call->result, call->error);
        fx->perform(NULL, str("exec"), str("{}"), NULL, NULL);
        fx->perform(call, str("write_file"), str("{\"path\":\"/tmp/../etc/x\",\"content\":\"\"}"), &none, &none);
        return HEAL_FAILED;
    }
    if (IS("changes_its_world")) {
        if (chdir("/usr") != 0) return HEAL_FAILED;
        umask(0);
        setenv("PATH", "/nowhere", 1);
        setvbuf(stdout, NULL, _IONBF, 0);
        put(call->error, "impossible");
        return HEAL_FAILED;
    }
#ifdef __cplusplus
    if (IS("throws")) throw std::runtime_error("thrown across the border");
    if (IS("throws_int")) throw 7;
    if (IS("throws_in_destructor")) {
        try {
            bad_end a;
            throw 8;
        } catch (...) {
        }
    }
    if (IS("throws_in_thread")) {
        std::thread([] { throw 9; }).join();
    }
#endif
    put(call->result, "{\"text\":\"behaved\"}");
    return HEAL_OK;
}

static int32_t assess(void* self, heal_str request, const heal_call* call, double* ret) {
    (void)self, (void)request;
    if (IS("loop_assess")) spin();
    if (IS("crash_assess")) abort();
    if (IS("effects_in_assess")) {
        const heal_effects_1* fx = (const heal_effects_1*)the_host->get_extension(the_host->ctx, HEAL_EXT_EFFECTS_1);
        return fx->perform(call, str("exec"), str("{\"argv\":[\"/bin/true\"]}"), call->result, call->error) == HEAL_DENIED ? HEAL_DECLINED : HEAL_OK;
    }
    *ret = IS("nan_confidence") ? NAN : IS("negative_confidence") ? -1.0 : IS("huge_confidence") ? 1e308 : IS("infinite_confidence") ? INFINITY : 0.5;
    return HEAL_OK;
}
static int32_t verify(void* self, heal_str request, const heal_call* call) {
    (void)self, (void)request, (void)call;
    if (IS("loop_verify")) spin();
    if (IS("crash_verify")) abort();
    return HEAL_OK;
}
static int32_t rollback(void* self, heal_str request, const heal_call* call) {
    (void)self, (void)request, (void)call;
    if (IS("loop_rollback")) spin();
    return HEAL_OK;
}
static void destroy(void* self) {
    (void)self;
    if (IS("loop_destroy")) spin();
    if (IS("crash_destroy")) abort();
}

static heal_strategy strategy = {sizeof(heal_strategy), 0, NULL, destroy, execute, assess, verify, rollback, NULL};

static int32_t create(const heal_host* host, heal_str name, heal_str config, const heal_strategy** ret, const heal_sink* error) {
    (void)name, (void)config;
    the_host = host;
    if (IS("loop_create")) spin();
    if (IS("create_fails")) {
        put(error, "no");
        return HEAL_FAILED;
    }
    if (IS("create_gives_null")) return HEAL_OK;
    if (IS("create_gives_garbage")) {
        *ret = (const heal_strategy*)(uintptr_t)0x41414141;
        return HEAL_OK;
    }
    if (IS("strategy_size_zero")) strategy.struct_size = 0;
    if (IS("strategy_size_huge")) strategy.struct_size = 0xffffffffU;
    if (IS("strategy_without_execute")) strategy.execute = NULL;
    *ret = &strategy;
    return HEAL_OK;
}

static heal_str describe(void) {
    static char big[400000];
    if (IS("loop_describe")) spin();
    if (IS("crash_describe")) abort();
    if (IS("describe_garbage")) return str("this is no JSON \xff\xfe");
    if (IS("describe_null")) return str("");
    if (IS("describe_huge")) {
        memset(big, ' ', sizeof big - 1);
        return str(big);
    }
    if (IS("describe_wild_size")) {
        heal_str s;
        s.data = big;
        s.size = (size_t)-1;
        return s;
    }
    if (IS("describe_lies")) return str("[{\"name\":\"hostile\",\"confidence\":7}]");
    if (IS("describe_traversal")) return str("[{\"name\":\"../../etc/passwd\"}]");
    if (IS("same_name")) return str("[{\"name\":\"fallback\"}]");
    return str("[{\"schema\":1,\"name\":\"hostile\",\"version\":\"1.0.0\",\"assess\":true,\"verify\":true,\"rollback\":true,\"timeout_ms\":300,"
               "\"matches\":[{\"service\":\"*\"}],\"capabilities\":[\"exec:/bin/true\"],"
               "\"parameters\":{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\",\"default\":0}}}}]");
}

static heal_plugin_entry entry = {sizeof(heal_plugin_entry), HEAL_ABI_MAJOR, HEAL_ABI_MINOR, 0, describe, create};

#ifndef WITHOUT_ENTRY
ENTRY HEAL_EXPORT const heal_plugin_entry* heal_plugin_entry_v1(void);
ENTRY HEAL_EXPORT const heal_plugin_entry* heal_plugin_entry_v1(void) {
    if (IS("entry_null")) return NULL;
    if (IS("entry_size_small")) entry.struct_size = 4;
    if (IS("entry_size_huge")) entry.struct_size = 0x7fffffff;
    if (IS("older_major")) entry.abi_major = 0;
    if (IS("newer_major")) entry.abi_major = 2;
    if (IS("newer_minor")) entry.abi_minor = 999;
    if (IS("without_create")) entry.create = NULL;
    if (IS("crash_entry")) abort();
    return &entry;
}
#endif

#ifdef WITH_UNRESOLVED
void this_symbol_exists_nowhere(void);
void* heal_hostile_use = (void*)&this_symbol_exists_nowhere;
#endif

__attribute__((constructor)) static void on_load(void) {
    if (IS("constructor_loops")) spin();
    if (IS("constructor_exits")) _exit(0);
    if (IS("constructor_crashes")) abort();
    if (IS("constructor_closes_fd3")) close(3);
    if (IS("constructor_forges")) {
        honest("{\"type\":\"described\",\"facts\":[{\"name\":\"forged\"}]}");
        spin();
    }
}
