// Power cuts: SQLite runs on a file system that, at a random moment, drops or tears any sector that was
// written but not synced, in any order. What was acknowledged must be there afterwards, whole, in a sound
// file. HEAL_SEEDS sets how many cuts are tried (./dev check crash: 1,000 and more).
#include "base/id.hpp"
#include "store/healing_store.hpp"
#include "store/migrator.hpp"

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

namespace heal {
namespace {

constexpr std::int64_t sector = 512;

/// What was written since the last sync, as what lay there before: the newest last.
struct Unsynced {
    std::int64_t offset;
    std::string before;  ///< shorter than the write where the file grew
    std::int64_t size;   ///< of the write
};

/// One disk for the whole test; its tables are reset for each seed.
struct Disk {
    std::map<std::string, std::vector<Unsynced>> unsynced;
    std::int64_t writes_left = -1;  ///< < 0: the power stays
    bool off = false;
    bool step() {
        if (off) return false;
        if (writes_left >= 0 && writes_left-- == 0) off = true;
        return !off;
    }
} disk;

struct File {
    sqlite3_file base;
    sqlite3_file* real;  // behind this struct, in the memory that SQLite gave
    std::string* path;   // null: a temporary file
};

sqlite3_vfs* real_vfs = nullptr;
File& of(sqlite3_file* f) { return *reinterpret_cast<File*>(f); }

std::string read_at(sqlite3_file* real, std::int64_t offset, std::int64_t size) {
    std::int64_t length = 0;
    real->pMethods->xFileSize(real, reinterpret_cast<sqlite3_int64*>(&length));
    std::string bytes(static_cast<std::size_t>(std::clamp<std::int64_t>(length - offset, 0, size)), '\0');
    if (!bytes.empty()) real->pMethods->xRead(real, bytes.data(), static_cast<int>(bytes.size()), offset);
    return bytes;
}

int close_file(sqlite3_file* f) {
    const int rc = of(f).real->pMethods->xClose(of(f).real);
    delete of(f).path;
    return rc;
}
int write_file(sqlite3_file* f, const void* data, int size, sqlite3_int64 offset) {
    auto& file = of(f);
    if (!file.path) return file.real->pMethods->xWrite(file.real, data, size, offset);
    if (!disk.step()) return SQLITE_IOERR_WRITE;
    disk.unsynced[*file.path].push_back({offset, read_at(file.real, offset, size), size});
    return file.real->pMethods->xWrite(file.real, data, size, offset);
}
int truncate_file(sqlite3_file* f, sqlite3_int64 size) {
    auto& file = of(f);
    if (file.path) {
        if (!disk.step()) return SQLITE_IOERR_TRUNCATE;
        sqlite3_int64 length = 0;
        file.real->pMethods->xFileSize(file.real, &length);
        if (length > size) {
            auto tail = read_at(file.real, size, length - size);
            disk.unsynced[*file.path].push_back({size, std::move(tail), length - size});
        }
    }
    return file.real->pMethods->xTruncate(file.real, size);
}
int sync_file(sqlite3_file* f, int) {
    if (!of(f).path) return SQLITE_OK;
    if (!disk.step()) return SQLITE_IOERR_FSYNC;
    disk.unsynced[*of(f).path].clear();
    return SQLITE_OK;
}

// The rest is the real file system's.
#define REAL of(f).real->pMethods
const sqlite3_io_methods methods = {
    3,
    close_file,
    [](sqlite3_file* f, void* p, int n, sqlite3_int64 at) { return REAL->xRead(of(f).real, p, n, at); },
    write_file,
    truncate_file,
    sync_file,
    [](sqlite3_file* f, sqlite3_int64* size) { return REAL->xFileSize(of(f).real, size); },
    [](sqlite3_file* f, int lock) { return REAL->xLock(of(f).real, lock); },
    [](sqlite3_file* f, int lock) { return REAL->xUnlock(of(f).real, lock); },
    [](sqlite3_file* f, int* out) { return REAL->xCheckReservedLock(of(f).real, out); },
    [](sqlite3_file* f, int op, void* arg) { return REAL->xFileControl(of(f).real, op, arg); },
    [](sqlite3_file*) { return static_cast<int>(sector); },
    [](sqlite3_file*) { return 0; },  // promises nothing: no atomic writes, no safe appends
    [](sqlite3_file* f, int page, int size, int extend, void volatile** out) {
        return REAL->xShmMap(of(f).real, page, size, extend, out);
    },
    [](sqlite3_file* f, int at, int n, int flags) { return REAL->xShmLock(of(f).real, at, n, flags); },
    [](sqlite3_file* f) { REAL->xShmBarrier(of(f).real); },
    [](sqlite3_file* f, int remove) { return REAL->xShmUnmap(of(f).real, remove); },
    [](sqlite3_file* f, sqlite3_int64 at, int n, void** out) { return REAL->xFetch(of(f).real, at, n, out); },
    [](sqlite3_file* f, sqlite3_int64 at, void* p) { return REAL->xUnfetch(of(f).real, at, p); }};
#undef REAL

int open_file(sqlite3_vfs*, const char* name, sqlite3_file* f, int flags, int* out) {
    auto& file = of(f);
    file.real = reinterpret_cast<sqlite3_file*>(reinterpret_cast<char*>(f) + sizeof(File));
    file.path = name ? new std::string{name} : nullptr;
    const int rc = real_vfs->xOpen(real_vfs, name, file.real, flags, out);
    if (rc != SQLITE_OK) {
        delete file.path;
        f->pMethods = nullptr;
        return rc;
    }
    f->pMethods = &methods;
    return SQLITE_OK;
}

/// The disk that loses power, as SQLite's default for the life of this object.
class PowerVfs {
public:
    PowerVfs() {
        real_vfs = ::sqlite3_vfs_find(nullptr);
        vfs_ = *real_vfs;
        vfs_.zName = "power";
        vfs_.szOsFile = static_cast<int>(sizeof(File)) + real_vfs->szOsFile;
        vfs_.pNext = nullptr;
        vfs_.xOpen = open_file;
        ::sqlite3_vfs_register(&vfs_, 1);
    }
    ~PowerVfs() { ::sqlite3_vfs_unregister(&vfs_); }
    PowerVfs(const PowerVfs&) = delete;
    PowerVfs& operator=(const PowerVfs&) = delete;

private:
    sqlite3_vfs vfs_{};
};

class PowerTest : public ::testing::Test {
protected:
    void SetUp() override {
        char name[] = "/tmp/heal-power-XXXXXX";
        folder = ::mkdtemp(name);
        auto db = open_sqlite(folder + "/template.db", false).value();
        ASSERT_TRUE(migrate(*db, clock));
    }
    void TearDown() override { std::filesystem::remove_all(folder); }

    LogRecord record() {
        LogRecord r;
        r.service_name = "cart";
        r.level = Level::error;
        r.message = std::string(700, 'm');
        r.digest = sha256_hex("cart");
        r.fingerprint = r.digest.substr(0, 16);
        r.time = r.received = clock.wall();
        return r;
    }
    result<void> one(Database& db, int n) {
        HEAL_TRY(db.begin());
        const auto r = record();
        HEAL_TRY(sql::add_occurrences(db, {&r, "", 1, 1, r.time, r.time, Severity::p2_minor}));
        HEAL_TRY(sql::insert_log_entry(db, new_id(clock), r, 1));
        HEAL_TRY(sql::save_engine_state(db, "n", std::to_string(n), clock.wall()));
        HEAL_TRY(sql::append_audit(db, clock.wall(), "me", "act", "it", "{}"));
        return db.commit();
    }

    /// The file as the disk has it after the cut: each unsynced sector is new or old.
    void survive(const std::string& from, const std::string& to, std::mt19937& rng) {
        std::filesystem::copy_file(from, to);
        auto& writes = disk.unsynced[from];
        std::fstream file{to, std::ios::in | std::ios::out | std::ios::binary};
        // A disk that kept all, none, or some.
        const unsigned loses = std::uniform_int_distribution<unsigned>{0, 4}(rng)*25;
        auto length = static_cast<std::int64_t>(std::filesystem::file_size(to));
        for (auto it = writes.rbegin(); it != writes.rend(); ++it) {
            for (std::int64_t at = 0; at < it->size; at += sector) {
                if (rng() % 100 >= loses) continue;
                if (at < static_cast<std::int64_t>(it->before.size())) {
                    const auto part =
                        std::string_view{it->before}.substr(static_cast<std::size_t>(at), sector);
                    file.seekp(it->offset + at);
                    file.write(part.data(), static_cast<std::streamsize>(part.size()));
                } else if (it->offset + at + sector >= length && rng() % 2 == 0) {
                    // The file had not grown yet.
                    length = it->offset + at;
                    file.flush();
                    std::filesystem::resize_file(to, static_cast<std::uintmax_t>(length));
                } else {
                    const std::string zeros(static_cast<std::size_t>(std::min(sector, it->size - at)), '\0');
                    file.seekp(it->offset + at);
                    file.write(zeros.data(), static_cast<std::streamsize>(zeros.size()));
                }
            }
        }
    }

    struct Outcome {
        int acknowledged = 0, stored = -1;
        std::string wrong;
    };
    Outcome cut(unsigned seed, bool durable) {
        std::mt19937 rng{seed};
        Outcome outcome;
        const std::string path = folder + "/x.db", after = folder + "/y.db";
        for (const char* end : {"", "-wal", "-shm"}) {
            std::filesystem::remove(path + end);
            std::filesystem::remove(after + end);
        }
        std::filesystem::copy_file(folder + "/template.db", path);
        disk = Disk{};
        {
            const PowerVfs power;
            auto db = open_sqlite(path, false).value();
            if (!durable) (void)db->script("PRAGMA synchronous=OFF");
            disk.writes_left = std::uniform_int_distribution<int>{1, 1200}(rng);
            for (int n = 1; n <= 60 && !disk.off; ++n) {
                if (one(*db, n))
                    outcome.acknowledged = n;
                else
                    db->rollback();
                if (rng() % 10 == 0) (void)db->script("PRAGMA wal_checkpoint(PASSIVE)");
                if (rng() % 25 == 0) (void)db->script("PRAGMA wal_checkpoint(TRUNCATE)");
            }
            disk.off = true;
            for (const char* end : {"", "-wal"}) {
                if (std::filesystem::exists(path + end)) survive(path + end, after + end, rng);
            }
        }
        auto db = open_sqlite(after, false);
        if (!db) {
            outcome.wrong = db.error().text;
            return outcome;
        }
        static constexpr Statement sound{"integrity_check", "PRAGMA integrity_check"};
        std::string word;
        auto checked = (*db)->query(sound, {}, [&](const Row& r) { word = r.text(0); });
        if (!checked || word != "ok") outcome.wrong = checked ? word : checked.error().text;
        auto n = sql::load_engine_state(**db, "n");
        if (!n) {
            outcome.wrong += n.error().text;
            return outcome;
        }
        outcome.stored = n->has_value() ? std::stoi(**n) : 0;
        static constexpr Statement whole{
            "whole",
            "SELECT (SELECT COALESCE(SUM(occurrence_count), 0) FROM error_fingerprints), (SELECT COUNT(*) "
            "FROM "
            "log_entries), (SELECT COUNT(*) FROM audit_log)"};
        (void)(*db)->query(whole, {}, [&](const Row& r) {
            for (int i = 0; i < 3; ++i) {
                if (r.integer(i) != outcome.stored) outcome.wrong += " a transaction is there in part";
            }
        });
        if (sql::verify_audit(**db).value().first_bad != 0) outcome.wrong += " the audit chain is broken";
        return outcome;
    }
    static unsigned seeds() {
        const char* wanted = std::getenv("HEAL_SEEDS");
        return wanted ? static_cast<unsigned>(std::atoi(wanted)) : 100;
    }

    SystemClock clock;
    std::string folder;
};

TEST_F(PowerTest, WhatWasAcknowledgedSurvivesAnyCutWholeAndSound) {
    int cuts = 0, most = 0;
    for (unsigned seed = 1; seed <= seeds(); ++seed) {
        const auto outcome = cut(seed, true);
        ASSERT_EQ(outcome.wrong, "") << "seed " << seed;
        ASSERT_GE(outcome.stored, outcome.acknowledged) << "seed " << seed << ": acknowledged, then lost";
        ASSERT_LE(outcome.stored, outcome.acknowledged + 1) << "seed " << seed;
        cuts += outcome.acknowledged < 60;
        most = std::max(most, outcome.acknowledged);
    }
    EXPECT_GT(cuts, static_cast<int>(seeds() / 2)) << "most cuts come in the middle";
    EXPECT_GT(most, 20);
    std::printf("%u seeds, %d cut in the middle\n", seeds(), cuts);
}

TEST_F(PowerTest, TheDiskOfThisTestIsBadEnoughToLoseWhatIsNotSynced) {
    int lost = 0;
    for (unsigned seed = 1; seed <= 40 && lost == 0; ++seed) {
        const auto outcome = cut(seed, false);
        lost += !outcome.wrong.empty() || outcome.stored < outcome.acknowledged;
    }
    EXPECT_GT(lost, 0);
}

}  // namespace
}  // namespace heal
