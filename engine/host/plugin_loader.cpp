// The only file with Boost.DLL, and the host's side of heal/abi.h.
#include "host/artifact.hpp"

#include <heal/abi.h>

#include <boost/dll/shared_library.hpp>
#include <fmt/format.h>

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

namespace heal {
namespace {

constexpr std::size_t max_result_bytes = 64U << 10U, max_error_bytes = 4U << 10U, max_describe_bytes = 256U << 10U;
// What a struct must at least hold: all members of 1.0.
constexpr std::size_t entry_bytes = offsetof(heal_plugin_entry, create) + sizeof(heal_plugin_entry::create);
constexpr std::size_t strategy_bytes = offsetof(heal_strategy, get_extension) + sizeof(heal_strategy::get_extension);
constexpr std::size_t max_struct_bytes = 4096;  // no version of the border comes near; a larger size is garbage

// A sink's text, cut at its limit.
struct Bounded {
    std::size_t limit;
    std::string text;
    heal_sink sink{this, &Bounded::write};

    explicit Bounded(std::size_t bytes) : limit(bytes) {}
    Bounded(const Bounded&) = delete;
    Bounded& operator=(const Bounded&) = delete;

    static bool write(void* ctx, heal_str chunk) {
        auto& self = *static_cast<Bounded*>(ctx);
        if (!chunk.data) return chunk.size == 0;
        const std::size_t room = self.limit - self.text.size();
        self.text.append(chunk.data, std::min(room, chunk.size));
        return chunk.size <= room;
    }
};

heal_str borrow(std::string_view text) { return {text.data(), text.size()}; }

Level level_of(std::int32_t level) {
    switch (level) {
        case HEAL_LOG_TRACE: return Level::trace;
        case HEAL_LOG_DEBUG: return Level::debug;
        case HEAL_LOG_WARN:
        case HEAL_LOG_MISBEHAVIOUR: return Level::warn;
        case HEAL_LOG_ERROR: return Level::error;
        default: return Level::info;
    }
}

// The context of the call that runs now. One per process is enough: the host enters the plugin on one thread only (convention 11).
struct Running {
    CallContext* context = nullptr;
    bool effects_allowed = false;
};
Running running;

void host_log(void*, std::int32_t level, heal_str message, heal_str fields) {
    if (!running.context || (!message.data && message.size > 0)) return;
    try {
        json::object object;
        if (fields.data && fields.size > 0 && fields.size <= max_result_bytes) {
            auto parsed = parse_json(to_valid_utf8({fields.data, fields.size}), "fields");
            if (parsed && parsed->is_object()) object = std::move(parsed->get_object());
        }
        const std::string_view text{message.data ? message.data : "", std::min<std::size_t>(message.size, 4096)};
        running.context->log(level_of(level), to_valid_utf8(text), std::move(object));
    } catch (...) {  // a line that can't be logged is no reason to end a plugin
        return;
    }
}

std::int32_t effects_perform(const heal_call* call, heal_str kind, heal_str parameters, const heal_sink* ret, const heal_sink* error) {
    const auto say = [&](std::string_view text) {
        if (error && error->write) error->write(error->ctx, borrow(text));
    };
    try {
        if (!call || !running.context || call->ctx != running.context) {
            say("this call has ended; effects belong to the call that runs");
            return HEAL_INVALID;
        }
        if (!running.effects_allowed) {
            say("assess must not ask for effects");
            return HEAL_DENIED;
        }
        if (!kind.data || (!parameters.data && parameters.size > 0) || parameters.size > (512U << 10U)) {
            say("parameters must be a JSON object of at most 512 KiB");
            return HEAL_INVALID;
        }
        json::object object;
        if (parameters.size > 0) {
            auto parsed = parse_json(to_valid_utf8({parameters.data, parameters.size}), "parameters");
            if (!parsed || !parsed->is_object()) {
                say(parsed ? "parameters must be a JSON object" : parsed.error().text);
                return HEAL_INVALID;
            }
            object = std::move(parsed->get_object());
        }
        const EffectAnswer answer = running.context->perform({kind.data, kind.size}, std::move(object));
        if (answer.status != HEAL_OK) {
            say(answer.error);
            return answer.status;
        }
        if (ret && ret->write) {
            const std::string text = json::serialize(answer.result);
            ret->write(ret->ctx, borrow(text));
        }
        return HEAL_OK;
    } catch (const std::exception& e) {
        say(e.what());
        return HEAL_FAILED;
    }
}

constexpr heal_effects_1 effects{sizeof(heal_effects_1), 0, &effects_perform};

const void* host_extension(void*, const char* id) {
    return id && std::strcmp(id, HEAL_EXT_EFFECTS_1) == 0 ? static_cast<const void*>(&effects) : nullptr;
}

constexpr heal_host the_host{sizeof(heal_host), HEAL_ABI_MINOR, nullptr, &host_log, &host_extension};

bool call_cancelled(void* ctx) { return running.context == ctx && running.context->is_cancelled(); }
std::int64_t call_remaining(void* ctx) { return running.context == ctx ? running.context->remaining().count() : 0; }

class Scope {
public:
    Scope(CallContext& context, bool effects_allowed) { running = {&context, effects_allowed}; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope() { running = {}; }
};

// An exception that crosses the border breaks convention 12; here it is still caught where the unwinder allows.
template <class F>
std::int32_t entered(Bounded& error, F&& body) {
    try {
        return body();
    } catch (const std::exception& e) {
        error.text = fmt::format("an exception left the plugin, which its border forbids: {}", e.what()).substr(0, max_error_bytes);
    } catch (...) {
        error.text = "an exception left the plugin, which its border forbids";
    }
    return HEAL_FAILED;
}

class Plugin final : public Artifact {
public:
    Plugin(boost::dll::shared_library library, const heal_plugin_entry* entry, std::string name)
        : library_(std::move(library)), entry_(entry), name_(std::move(name)) {}

    // Instances and library stay: the process ends with them, and a destructor that hangs would only delay that.
    ~Plugin() override { static_cast<void>(new boost::dll::shared_library(std::move(library_))); }

    result<json::value> describe() override {
        Bounded error{max_error_bytes};
        std::string_view text;
        entered(error, [&] {
            const heal_str given = entry_->describe();
            text = {given.data ? given.data : "", given.data ? given.size : 0};
            return HEAL_OK;
        });
        if (!error.text.empty()) return fail(errc::invalid_input, fmt::format("{}: describe: {}", name_, to_valid_utf8(error.text)));
        if (text.empty() || text.size() > max_describe_bytes) {
            return fail(errc::invalid_input, fmt::format("{}: describe gave {} bytes; 1 to {} are allowed", name_, text.size(), max_describe_bytes));
        }
        return parse_json(text, name_ + ": describe");
    }

    CallReply call(CallFunction function, const std::string& strategy, const json::object& request, CallContext& context) override {
        CallReply reply;
        Bounded out{max_result_bytes}, error{max_error_bytes};
        const Scope scope{context, function != CallFunction::assess};
        const heal_strategy* instance = instance_of(strategy, json::serialize(object_at(request, "config")), error, reply.status);
        if (!instance) {
            if (reply.status == HEAL_OK || reply.status == HEAL_DECLINED) reply.status = HEAL_FAILED;
            reply.text = fmt::format("{}: create: {}", strategy, error.text.empty() ? "gave no reason" : to_valid_utf8(error.text));
            return reply;
        }
        const std::string text = json::serialize(request);
        const heal_call call{sizeof(heal_call), 0, &context, &call_cancelled, &call_remaining, &out.sink, &error.sink};
        reply.status = entered(error, [&]() -> std::int32_t {
            switch (function) {
                case CallFunction::assess:
                    return instance->assess ? instance->assess(instance->self, borrow(text), &call, &reply.confidence) : HEAL_UNSUPPORTED;
                case CallFunction::execute: return instance->execute(instance->self, borrow(text), &call);
                case CallFunction::verify: return instance->verify ? instance->verify(instance->self, borrow(text), &call) : HEAL_UNSUPPORTED;
                case CallFunction::rollback: return instance->rollback ? instance->rollback(instance->self, borrow(text), &call) : HEAL_UNSUPPORTED;
            }
            return HEAL_UNSUPPORTED;
        });
        if (!out.text.empty()) {
            auto parsed = parse_json(to_valid_utf8(out.text), "result");
            if (parsed && parsed->is_object()) {
                reply.text = std::string{string_at(parsed->get_object(), "text")};
                reply.detail = object_at(parsed->get_object(), "detail");
            } else if (reply.status == HEAL_OK && function != CallFunction::assess) {
                reply.status = HEAL_FAILED;
                error.text = parsed ? "the result is no JSON object" : parsed.error().text;
            }
        }
        if (reply.status != HEAL_OK && !error.text.empty()) reply.text = to_valid_utf8(error.text);
        if (reply.status != HEAL_OK && reply.text.empty()) reply.text = fmt::format("{} gave status {} and no reason", to_string(function), reply.status);
        return reply;
    }

private:
    struct Instance {
        std::string config;
        const heal_strategy* strategy = nullptr;
    };

    const heal_strategy* instance_of(const std::string& strategy, std::string config, Bounded& error, std::int32_t& ret_status) {
        Instance& held = instances_[strategy];
        if (held.strategy && held.config == config) return held.strategy;
        if (held.strategy) {
            const heal_strategy* old = std::exchange(held.strategy, nullptr);
            entered(error, [&] { return old->destroy(old->self), HEAL_OK; });
            error.text.clear();
        }
        const heal_strategy* made = nullptr;
        ret_status = entered(error, [&] { return entry_->create(&the_host, borrow(strategy), borrow(config), &made, &error.sink); });
        if (ret_status != HEAL_OK) return nullptr;
        if (!made || made->struct_size < strategy_bytes || made->struct_size > max_struct_bytes || !made->destroy || !made->execute) {
            ret_status = HEAL_FAILED;
            error.text = !made ? "gave no strategy" : made->struct_size < strategy_bytes || made->struct_size > max_struct_bytes
                ? fmt::format("gave a heal_strategy of {} bytes; {} to {} are possible", made->struct_size, strategy_bytes, max_struct_bytes)
                : "gave a heal_strategy without destroy or execute";
            return nullptr;
        }
        held = {std::move(config), made};
        return made;
    }

    boost::dll::shared_library library_;
    const heal_plugin_entry* entry_;
    std::string name_;
    std::map<std::string, Instance> instances_;
};

// dlopen maps segments without a look at the file's size: one that is cut short would kill this process by SIGBUS, without a reason.
result<void> check_elf(const std::string& path, const std::string& name) {
    const auto refuse = [&](std::string reason) { return fail(errc::invalid_input, fmt::format("{}: {}", name, reason)); };
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail_errno(fmt::format("cannot open {}", name), errno);
    struct stat info {};
    Elf64_Ehdr header{};
    const bool read = ::fstat(fd, &info) == 0 && ::pread(fd, &header, sizeof header, 0) == static_cast<ssize_t>(sizeof header);
    std::uint64_t needed = 0;
    bool whole = read && std::memcmp(header.e_ident, ELFMAG, SELFMAG) == 0;
    if (whole && header.e_ident[EI_CLASS] == ELFCLASS64) {
        for (unsigned i = 0; i < header.e_phnum && whole; ++i) {
            Elf64_Phdr segment{};
            const auto at = static_cast<off_t>(header.e_phoff + std::uint64_t{i} * sizeof segment);
            whole = header.e_phentsize == sizeof segment && ::pread(fd, &segment, sizeof segment, at) == static_cast<ssize_t>(sizeof segment);
            if (whole && segment.p_type == PT_LOAD) needed = std::max(needed, segment.p_offset + segment.p_filesz);
        }
    }
    ::close(fd);
    if (read && std::memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_ident[EI_CLASS] != ELFCLASS64) return {};  // dlopen has the words for it
    if (!whole) return refuse("is no complete shared library; build it again and put it there by rename (cp to another name, then mv)");
    if (needed > static_cast<std::uint64_t>(info.st_size)) {
        return refuse(fmt::format("is cut short: {} of at least {} bytes; put it there by rename (cp to another name, then mv)", info.st_size, needed));
    }
    return {};
}

// dlerror(3) has words for programmers; what follows says what to do.
std::string remedy_of(const std::string& words) {
    const auto has = [&](const char* text) { return words.find(text) != std::string::npos; };
    if (has("file too short") || has("invalid ELF header") || has("cannot read file data")) return "it is no complete shared library; build it again and put it there by rename (cp to another name, then mv)";
    if (has("wrong ELF class") || has("ELF file's phentsize") || has("ELF file OS ABI") || has("machine")) return "it was built for another machine; build it for this one";
    if (has("undefined symbol")) return "link the library that defines it, or build with -Wl,-z,defs to see it when linking";
    if (has("cannot open shared object file")) return "install the library it depends on, or link it statically";
    if (has("version `")) return "it was built on a newer system; build it on this one or link statically";
    return "build it again as a shared library (c++ -shared -fPIC)";
}

}  // namespace

const char* to_string(CallFunction function) noexcept {
    switch (function) {
        case CallFunction::assess: return "assess";
        case CallFunction::execute: return "execute";
        case CallFunction::verify: return "verify";
        case CallFunction::rollback: return "rollback";
    }
    return "execute";
}

bool parse_call_function(std::string_view word, CallFunction& ret) noexcept {
    for (const auto function : {CallFunction::assess, CallFunction::execute, CallFunction::verify, CallFunction::rollback}) {
        if (word == to_string(function)) {
            ret = function;
            return true;
        }
    }
    return false;
}

result<std::unique_ptr<Artifact>> load_plugin(const std::string& path, const std::string& name) {
    const auto refuse = [&](std::string reason) { return fail(errc::invalid_input, fmt::format("{}: {}", name, reason)); };
    HEAL_TRY(check_elf(path, name));
    boost::dll::shared_library library;
    try {
        library.load(path, boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local);
    } catch (const std::exception& e) {
        std::string words = e.what();
        if (const auto at = words.find("dlerror system message: "); at != std::string::npos) {
            words = words.substr(at + 24);
            words = words.substr(0, words.find("): "));
        }
        for (std::size_t at = words.find(path); at != std::string::npos; at = words.find(path)) words.replace(at, path.size(), name);
        return refuse(fmt::format("cannot be loaded: {}; {}", to_valid_utf8(words), remedy_of(words)));
    }
    if (!library.has(HEAL_ENTRY_SYMBOL)) {
        return refuse("does not export " HEAL_ENTRY_SYMBOL "; write HEAL_PLUGIN(your_strategy) once, or export that function (heal/abi.h)");
    }
    const auto function = library.get<const heal_plugin_entry*()>(HEAL_ENTRY_SYMBOL);
    Bounded error{max_error_bytes};
    const heal_plugin_entry* entry = nullptr;
    entered(error, [&] { return entry = function(), HEAL_OK; });
    if (!entry) return refuse(HEAL_ENTRY_SYMBOL " gave no entry");
    if (entry->struct_size < entry_bytes || entry->struct_size > max_struct_bytes) {
        return refuse(fmt::format("its heal_plugin_entry says it has {} bytes; {} to {} are possible: set struct_size to sizeof(heal_plugin_entry)", entry->struct_size, entry_bytes, max_struct_bytes));
    }
    if (entry->abi_major != HEAL_ABI_MAJOR || entry->abi_minor > HEAL_ABI_MINOR) {
        return refuse(fmt::format("was built for version {}.{} of the plugin border, this heald has {}.{}; {}", entry->abi_major, entry->abi_minor,
            HEAL_ABI_MAJOR, HEAL_ABI_MINOR, entry->abi_major > HEAL_ABI_MAJOR || entry->abi_major == HEAL_ABI_MAJOR ? "build it against this heald's headers, or update heald" : "build it against this heald's headers"));
    }
    if (!entry->describe || !entry->create) return refuse(fmt::format("its entry lacks {}", !entry->describe ? "describe" : "create"));
    return std::unique_ptr<Artifact>{new Plugin(std::move(library), entry, name)};
}

}  // namespace heal
