// heald: reads its configuration, starts the engine and its HTTP face, runs until it is told to stop.
#include "base/log.hpp"
#include "base/tasks.hpp"
#include "http/server.hpp"
#include "service/engine.hpp"
#include "service/notify.hpp"
#include "service/settings.hpp"
#include "store/migrator.hpp"
#include "store/store.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <fmt/format.h>
#include <malloc.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <csignal>
#include <cstdio>

namespace {

using namespace heal;
using namespace std::chrono_literals;
namespace asio = boost::asio;

asio::awaitable<void> life(asio::io_context& io, Engine& engine, int& ret_code) {
    auto server = create_http_server(io, engine);
    if (!server) {
        log::error("{}", server.error().text);
        ret_code = 1;
        co_return;
    }
    // What strategies of this machine reach it by, whatever it listens on.
    const auto& listen = engine.settings().http_listen;
    const auto host = listen.substr(0, listen.rfind(':'));
    engine.set_address(
        fmt::format("{}:{}", host == "0.0.0.0" || host == "[::]" ? "127.0.0.1" : host, (*server)->port())
    );
    if (auto started = co_await engine.start(); !started) {
        log::error("cannot start: {}", started.error().text);
        (*server)->stop();
        co_await engine.stop(0ms);
        ret_code = 1;
        co_return;
    }
    log::info(
        "heald {} is ready on port {}, state in {}",
        HEAL_VERSION,
        (*server)->port(),
        engine.settings().state_dir
    );
    ServiceManager manager{io};
    manager.ready(fmt::format("ready on port {}", (*server)->port()));

    asio::signal_set signals{io, SIGTERM, SIGINT, SIGHUP};
    for (;;) {
        const int signal = co_await signals.async_wait(asio::use_awaitable);
        if (signal != SIGHUP) break;
        manager.reloading();
        if (auto outcome = engine.reload("signal SIGHUP"); !outcome)
            log::error("reload: {}", outcome.error().text);
        manager.ready("ready");
    }
    // Stop order: accept nothing, end hearing, let attempts finish, end children, flush, leave.
    log::info("stopping");
    manager.stopping();
    (*server)->stop();
    co_await engine.stop(8s);  // reliability.md I19: drained or left for the next start within 10 s
    log::info("stopped");
}

int check(const std::string& config) {
    const auto loaded = load_settings(config);
    for (const auto& error : loaded.errors) fmt::print(stderr, "{}\n", error);
    if (!loaded.settings) return 1;
    if (loaded.settings->files.empty()) fmt::print("no configuration file; the defaults are valid\n");
    for (const auto& file : loaded.settings->files) fmt::print("{}: valid\n", file);
    return 0;
}

/// heald migrate: 0 done or up to date, 1 refused, 3 with --status when something is missing.
int migrate(const Settings& s, bool only_status, bool dry_run) {
    const auto store = store_settings(s);
    const auto refuse = [](const Error& error) {
        fmt::print(stderr, "{}\n", error.text);
        return 1;
    };
    const bool fresh = store.url.empty() && !SystemFiles{}.exists(store.path);
    std::unique_ptr<Database> database;
    if (!fresh || !(only_status || dry_run)) {
        auto opened = open_database(store, only_status || dry_run);
        if (!opened) return refuse(opened.error());
        database = std::move(*opened);
    }
    int missing = 0;
    if (only_status || dry_run) {
        std::vector<MigrationState> states;
        if (database) {
            auto found = migration_status(*database);
            if (!found) return refuse(found.error());
            states = std::move(*found);
        } else {
            for (const auto& m : migrations_for(Dialect::sqlite))
                states.push_back({m.version, std::string{m.name}, false, {}});
        }
        const auto dialect = store.url.empty() ? Dialect::sqlite : Dialect::postgres;
        for (const auto& state : states) {
            missing += !state.applied;
            if (only_status) {
                fmt::print(
                    "{:<32} {}\n",
                    state.name,
                    state.applied ? "applied " + to_rfc3339(state.applied_at) : "missing"
                );
            } else if (!state.applied) {
                for (const auto& m : migrations_for(dialect)) {
                    if (m.version != state.version) continue;
                    fmt::print(
                        "would apply {} ({} statements)\n", state.name, split_statements(m.sql).size()
                    );
                }
            }
        }
        if (dry_run && missing == 0) fmt::print("nothing to do\n");
        return only_status && missing > 0 ? 3 : 0;
    }
    auto lock = InstanceLock::take(store.path);
    if (!lock) return refuse(lock.error());
    auto count = migrate_store(*database, store, SystemClock{});
    if (!count) return refuse(count.error());
    fmt::print("{} applied\n", *count);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    std::string config;
    bool only_check = false;
    CLI::App app{"heald: hears errors, heals them, proves it. Runs without any configuration.", "heald"};
    app.add_option("-c,--config", config, "YAML file; default /etc/heald/heald.yaml when it is there");
    app.add_flag("--check", only_check, "check the configuration and exit: 0 valid, 1 not");
    auto* migrating = app.add_subcommand(
        "migrate", "bring the store to the schema of this heald, which also its start does"
    );
    bool only_status = false, dry_run = false;
    migrating->fallthrough();
    migrating->add_flag(
        "--status", only_status, "list what is applied and what is missing; exit 3 when something is"
    );
    migrating->add_flag("--dry-run", dry_run, "say what would be applied");
    app.set_version_flag("-V,--version", "heald " HEAL_VERSION);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        const int code = app.exit(e);
        return code == 0 ? 0 : 2;  // CLI11's own codes are above 100
    }
    if (only_check) return check(config);
    // Arenas for each thread cost megabytes and win nothing here (glibc's default is 8 per core).
    ::mallopt(M_ARENA_MAX, 2);
    std::signal(SIGPIPE, SIG_IGN);
    log::set_up("heald", "info", log::Format::automatic);
    auto loaded = load_settings(config);
    if (!loaded.settings) {
        for (const auto& error : loaded.errors) log::error("configuration: {}", error);
        return 1;
    }
    const auto& s = *loaded.settings;
    if (migrating->parsed()) return migrate(s, only_status, dry_run);
    log::set_up(
        "heald",
        s.log_level,
        s.log_format == "plain"  ? log::Format::plain
        : s.log_format == "json" ? log::Format::json
                                 : log::Format::automatic
    );

    int code = 0;
    try {
        const SystemClock clock;
        SystemFiles files;
        asio::io_context io{1};
        auto engine = create_engine(io, clock, files, std::move(*loaded.settings), config);
        spawn(io, life(io, *engine, code), [&](const std::exception_ptr& error) {
            io.stop();
            if (error) std::rethrow_exception(error);
        });
        io.run();
    } catch (const std::exception& e) {
        log::error("heald ends by a defect: {}", e.what());
        code = 1;
    }
    return code;
}
