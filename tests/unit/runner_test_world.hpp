// A Plugins object over temporary folders, and a ledger that writes down what it is told, for the tests of
// runner/ and the hostile driver. One io_context, run until a coroutine has ended.
#pragma once

#include "runner/plugins.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <sys/stat.h>

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <stdexcept>

namespace heal::testing {

namespace asio = boost::asio;
namespace fs = std::filesystem;

class Folder {
public:
    Folder() {
        std::string name = (fs::temp_directory_path() / "heal-test-XXXXXX").string();
        if (!::mkdtemp(name.data())) throw std::runtime_error("mkdtemp");
        path = name;
    }
    ~Folder() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    std::string operator/(const std::string& name) const { return path + "/" + name; }
    std::string path;
};

inline void write(const std::string& path, const std::string& text, unsigned mode = 0644) {
    std::ofstream(path, std::ios::trunc | std::ios::binary) << text;
    ::chmod(path.c_str(), mode);
}

inline std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

// Put there as documented: under another name, then renamed.
inline void drop_in(const std::string& from, const std::string& to) {
    fs::copy_file(from, to + ".tmp", fs::copy_options::overwrite_existing);
    fs::rename(to + ".tmp", to);
}

class Ledger final : public EffectLedger {
public:
    bool intent_pending() const override { return pending; }
    asio::awaitable<result<void>> intent_durable() override {
        lines.push_back("asked whether the intent is stored");
        if (on_intent) co_return co_await on_intent();
        lines.pop_back();
        co_return result<void>{};
    }
    asio::awaitable<result<void>> begin(Effect effect) override {
        lines.push_back("begin " + effect.kind);
        if (effect.changes_world && effect.undoable) durable.push_back(effect.kind);
        if (on_begin) on_begin(effect);
        if (effect.kind == refuse_kind) co_return fail(errc::io, "the store is away");
        effects.push_back(std::move(effect));
        co_return result<void>{};
    }
    void end(EffectResult r) override {
        lines.push_back(std::string{"end "} + (r.ok ? r.skipped ? "skipped" : "ok" : r.error));
        results.push_back(std::move(r));
    }
    void log(Level level, std::string message, json::object, double progress) override {
        lines.push_back(std::string{progress >= 0 ? "progress" : to_string(level)} + " " + message);
    }
    std::vector<std::string> lines, durable;
    std::vector<Effect> effects;
    std::vector<EffectResult> results;
    std::string refuse_kind;
    std::function<void(const Effect&)> on_begin;
    std::function<asio::awaitable<result<void>>()> on_intent;
    bool pending = false;  ///< effects are planned ahead of the intent
};

class World {
public:
    World() : World(RunnerSettings{}) {}
    explicit World(RunnerSettings settings) {
        settings.host_binary = HEAL_HOST_BINARY;
        settings.plugins_folder = folder / "plugins";
        settings.scripts_folder = folder / "scripts";
        settings.state_folder = folder / "state";
        fs::create_directory(settings.plugins_folder);
        fs::create_directory(settings.scripts_folder);
        plugins = create_plugins(context, settings, clock);
    }
    ~World() { run(plugins->runner().stop()); }

    template <class T>
    T run(asio::awaitable<T> work) {
        std::exception_ptr problem;
        if constexpr (std::is_void_v<T>) {
            bool done = false;
            asio::co_spawn(context, std::move(work), [&](std::exception_ptr e) { problem = e, done = true; });
            drive([&] { return done; });
            if (problem) std::rethrow_exception(problem);
        } else {
            std::optional<T> out;
            asio::co_spawn(context, std::move(work), [&](std::exception_ptr e, T value) {
                problem = e;
                out.emplace(std::move(value));
            });
            drive([&] { return out.has_value(); });
            if (problem) std::rethrow_exception(problem);
            return std::move(*out);
        }
    }
    /// Runs the loop until `done`; throws after a minute (a hang guard, never part of what is tested).
    template <class F>
    void drive(F&& done) {
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds{60};
        while (!done()) {
            context.restart();
            context.run_one_for(std::chrono::milliseconds{100});
            if (std::chrono::steady_clock::now() > until)
                throw std::runtime_error("nothing happened for a minute");
        }
    }

    void start() { run(plugins->start()); }
    std::string script(const std::string& name, const std::string& text, unsigned mode = 0644) {
        const std::string path = folder / ("scripts/" + name);
        write(path + ".tmp", text, mode);
        fs::rename(path + ".tmp", path);
        return path;
    }
    const CatalogEntry* entry(const std::string& file) const {
        for (const CatalogEntry& e : plugins->entries()) {
            if (e.path.substr(e.path.find_last_of('/') + 1) == file) return &e;
        }
        return nullptr;
    }
    StrategyCall call(const std::string& strategy, std::vector<std::string> grants = {}) {
        StrategyCall c;
        c.strategy = strategy;
        c.attempt = "attempt-" + std::to_string(++attempts);
        c.request = json::object{
            {"incident", json::object{{"service", "cart"}, {"message", "boom"}}}, {"target", json::object{}}};
        c.grants = std::move(grants);
        return c;
    }
    StrategyReply execute(StrategyCall c) { return run(plugins->runner().execute(std::move(c), ledger)); }
    StrategyReply verify(StrategyCall c) { return run(plugins->runner().verify(std::move(c), ledger)); }
    StrategyReply assess(StrategyCall c) {
        std::vector<StrategyCall> calls;
        calls.push_back(std::move(c));
        return run(plugins->runner().assess(std::move(calls))).at(0);
    }

    Folder folder;
    SystemClock clock;
    asio::io_context context{1};
    Ledger ledger;
    std::unique_ptr<Plugins> plugins;
    int attempts = 0;
};

}  // namespace heal::testing
