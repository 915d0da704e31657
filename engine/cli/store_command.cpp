#include "cli/store_command.hpp"

#include "base/files.hpp"
#include "store/migrator.hpp"
#include "store/store.hpp"
#include "store/transfer.hpp"

#include <fmt/format.h>

#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <cstdlib>
#include <memory>

namespace heal::cli {
namespace {

struct Options {
    std::string from, to, password_file;
};

result<void> move(const Options& o) {
    const SystemFiles files;
    if (!files.exists(o.from))
        return fail(
            errc::not_found, fmt::format("{} does not exist; give the heald.db of a state directory", o.from)
        );
    std::string password;
    if (!o.password_file.empty()) {
        auto text = files.read(o.password_file, 4096);
        if (!text) return text.error();
        password = *text;
        while (password.ends_with('\n') || password.ends_with('\r')) password.pop_back();
    } else if (const char* given = std::getenv("HEALD_STORE_PASSWORD")) {
        password = given;
    }
    // A heald that runs would go on writing into the store that is left behind.
    auto lock = InstanceLock::take(o.from);
    if (!lock) return lock.error();
    auto from = open_sqlite(o.from, true);
    if (!from) return from.error();
    auto to = open_postgres(o.to, password, false);
    if (!to) return to.error();
    auto migrated = migrate(**to, SystemClock{});
    if (!migrated) return migrated.error();
    std::int64_t rows = 0;
    auto moved = move_store(**from, **to, [&](const MovedTable& t) {
        rows += t.rows;
        if (t.rows > 0) fmt::print("{:<28} {:>10}  {}\n", t.name, t.rows, t.hash.substr(0, 16));
    });
    if (!moved) return moved.error();
    fmt::print(
        "{} rows in {} tables are in {}, each table with the same hash; set store.url there and start "
        "heald\n",
        rows,
        moved->size(),
        describe_postgres(o.to)
    );
    return {};
}

}  // namespace

void add_store_command(CLI::App& app, int& ret_code) {
    auto* store = app.add_subcommand("store", "work on a store itself; heald must be stopped");
    store->require_subcommand(1);
    auto* moving = store->add_subcommand(
        "move", "copy an SQLite store into an empty PostgreSQL, verified by counts and hashes"
    );
    auto options = std::make_shared<Options>();
    moving->add_option("--from", options->from, "path of heald.db")->required();
    moving->add_option("--to", options->to, "postgresql://user@host:port/name")->required();
    moving->add_option(
        "--password-file", options->password_file, "else $HEALD_STORE_PASSWORD, $PGPASSWORD or ~/.pgpass"
    );
    moving->callback([options, &ret_code] {
        if (auto outcome = move(*options); !outcome) {
            fmt::print(stderr, "{}\n", outcome.error().text);
            ret_code = 1;
        }
    });
}

}  // namespace heal::cli
