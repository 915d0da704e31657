// A loaded artifact, library or script, and what it may ask during a call. The same interface for both, so that the frame loop, the
// trial run and the tests don't know which it is. It deliberately knows no process, no wire and no effect.
//
// Threads: one, except CallContext::log.
#pragma once

#include "base/error.hpp"
#include "base/json.hpp"
#include "core/model.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace heal {

/// What an effect came to, as the strategy sees it: `status` is one of HEAL_* (heal/abi.h).
struct EffectAnswer {
    std::int32_t status = 0;
    std::string error;
    json::object result;
};

/// Given to an artifact for one call.
class CallContext {
public:
    virtual ~CallContext() = default;
    virtual bool is_cancelled() = 0;
    virtual std::chrono::milliseconds remaining() = 0;
    /// Blocks until the effect ended. Not during assess.
    virtual EffectAnswer perform(std::string_view kind, json::object parameters) = 0;
    /// @thread any
    virtual void log(Level level, std::string_view message, json::object fields) = 0;
};

enum class CallFunction { assess, execute, verify, rollback };
const char* to_string(CallFunction function) noexcept;
bool parse_call_function(std::string_view word, CallFunction& ret) noexcept;

struct CallReply {
    std::int32_t status = 0;  ///< HEAL_*; unknown values are failed
    double confidence = 0;    ///< assess only; as given, may be anything
    std::string text;         ///< for people; the error's when not HEAL_OK
    json::object detail;
    bool out_of_time = false;  ///< a script was stopped at its deadline
    bool spent = false;        ///< the artifact must not be called again in this process
};

class Artifact {
public:
    virtual ~Artifact() = default;
    /// The facts as they are (wire/describe.hpp checks them).
    virtual result<json::value> describe() = 0;
    /// `request` as in StrategyCall; request["config"] is the strategy's configuration. Never throws.
    virtual CallReply call(CallFunction function, const std::string& strategy, const json::object& request, CallContext& context) = 0;
};

/// Loads a library (RTLD_NOW | RTLD_LOCAL) and checks its entry. Its code runs from here on.
/// @param path  what dlopen gets, may be /proc/self/fd/4      @param name  the file's, for errors
/// errc::invalid_input with reason and remedy.
result<std::unique_ptr<Artifact>> load_plugin(const std::string& path, const std::string& name);

struct ScriptLimits {
    std::size_t memory_bytes = 8U << 20U;  ///< of the Lua state (borders.md)
    std::chrono::milliseconds load_timeout{2'000};
};
using ScriptLibraries = std::map<std::string, std::string>;  ///< what require() finds: "lib name" -> source

/// Runs the script's main chunk in a sandbox (docs/script-guide.md). errc::invalid_input names script, line and reason.
result<std::unique_ptr<Artifact>> load_script(std::string source, const std::string& name, ScriptLibraries libraries, ScriptLimits limits);

}  // namespace heal
