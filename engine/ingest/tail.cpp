#include "ingest/tail.hpp"

#include "base/id.hpp"
#include "base/log.hpp"

#include <fcntl.h>
#include <fnmatch.h>
#include <glob.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <deque>
#include <filesystem>
#include <map>
#include <set>
#include <thread>
#include <unordered_map>

namespace heal {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t chunk_bytes = 256U << 10U;
constexpr int chunks_in_a_row = 4;       // then the next file has its turn
constexpr std::size_t head_bytes = 256;  // reliability row 12
constexpr std::size_t rotated_per_path = 4;
constexpr std::size_t recovered_per_path = 64;
constexpr std::size_t known_per_path = 64;          // rows of rotated files that were read to their end
constexpr std::int64_t clock_slack_us = 1'000'000;  // file times are coarser than the clock (4 ms and more)
constexpr std::size_t finished_kept = 4096;
constexpr Duration look_for_missed{5'000'000};
constexpr Duration quiet_commit{
    1'000'000};  // offsets of lines that made no record are handed over this often
constexpr Duration sink_retry{5'000};
constexpr Duration stop_grace{1'000'000};

class Fd {
public:
    Fd() = default;
    explicit Fd(int fd) : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    Fd(const Fd&) = delete;
    Fd& operator=(const Fd&) = delete;
    ~Fd() {
        if (fd_ >= 0) ::close(fd_);
    }
    int get() const { return fd_; }
    bool is_open() const { return fd_ >= 0; }

private:
    int fd_ = -1;
};

using Identity = std::pair<std::uint64_t, std::uint64_t>;  // device, inode

Identity identity_of(const struct stat& st) { return {st.st_dev, st.st_ino}; }

std::int64_t modified_us(const struct stat& st) {
    return st.st_mtim.tv_sec * 1'000'000LL + st.st_mtim.tv_nsec / 1000;
}

// "LENGTH:HASH:MICROSECONDS": the first bytes of a file, and when they were last known to be so.
struct Head {
    std::size_t size = 0;
    std::string hash;
    std::int64_t seen_us = 0;

    static std::string hash_of(std::string_view bytes) { return sha256_hex(bytes).substr(0, 16); }

    static bool parse(std::string_view text, Head& ret) {
        const auto a = text.find(':');
        const auto b = text.rfind(':');
        if (a == std::string_view::npos || a == b) return false;
        const auto ok = [](std::from_chars_result r, const char* end) {
            return r.ec == std::errc{} && r.ptr == end;
        };
        ret.hash = text.substr(a + 1, b - a - 1);
        return ok(std::from_chars(text.data(), text.data() + a, ret.size), text.data() + a) &&
               ret.size <= head_bytes &&
               ok(std::from_chars(text.data() + b + 1, text.data() + text.size(), ret.seen_us),
                  text.data() + text.size());
    }

    bool fits(int fd) const {
        char bytes[head_bytes];
        const auto n = ::pread(fd, bytes, size, 0);
        return n == static_cast<ssize_t>(size) && hash_of({bytes, size}) == hash;
    }
};

std::string folder_of(const std::string& path) {
    const auto slash = path.rfind('/');
    return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

std::string name_of(const std::string& path) {
    return path.substr(path.rfind('/') == std::string::npos ? 0 : path.rfind('/') + 1);
}

bool is_glob(std::string_view path) { return path.find_first_of("*?[") != std::string_view::npos; }

bool is_compressed(std::string_view name) {
    for (const std::string_view end : {".gz", ".xz", ".bz2", ".zst", ".lz4", ".Z", ".zip"}) {
        if (name.ends_with(end)) return true;
    }
    return false;
}

struct File {
    Fd fd;
    std::string path;    // as configured or found; of a rotated file the name it had
    std::string source;  // what its offset is stored under
    const TailSource* config = nullptr;
    Identity identity;
    LineDecoder decoder;
    std::uint64_t position = 0;   // next byte to read
    std::uint64_t delivered = 0;  // everything before it is in a batch that the sink took
    std::string head, head_hash;  // first bytes, and their hash
    std::string partial;          // a line without its end yet, at most max_line_bytes of it
    std::uint64_t partial_raw = 0;
    bool partial_cut = false;
    bool skip_to_line_end = false;  // the line's beginning was handed over already, or was never ours
    std::uint64_t skipped = 0;
    Duration last_data{0};
    bool rotated = false;
    bool dirty = true;
    bool gone = false;  // to be closed at the end of the round
    int watch = -1;
    Batch quiet;  // counts of lines that made no record, not handed over yet
    Duration quiet_since{0};
    bool offset_is_new = false;
    std::vector<SourceOffset> more_offsets;  // travel with its next batch
    bool resumed = false;                    // the store knew its name
    std::int64_t in_place_us = 0;            // wall clock before the last look that found it under its name
    Duration look_for_missed_until{0};
    std::int64_t missed_since_us = 0;

    explicit File(LineDecoder d) : decoder(std::move(d)) {}
};

class TailThread final : public Tail {
public:
    TailThread(TailOptions options, const Clock& clock, Sink sink)
        : options_(std::move(options)),
          clock_(clock),
          sink_(std::move(sink)),
          builder_(clock),
          buffer_(chunk_bytes, '\0') {
        for (auto& offset : options_.offsets) stored_[offset.source] = offset;
        wake_ = Fd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
        if (options_.use_inotify) {
            inotify_ = Fd{::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
            if (!inotify_.is_open())
                log::warn("inotify is not available ({}); files are polled", std::strerror(errno));
        }
    }

    ~TailThread() override { stop(); }

    void start() override {
        now_ = clock_.steady();
        scan(true);  // here, so that "there at the start" means: before this returns
        thread_ = std::thread{[this] { run(); }};
    }

    std::vector<SourceOffset> stop() override {
        stopping_.store(true, std::memory_order_release);
        const std::uint64_t one = 1;
        if (wake_.is_open() && ::write(wake_.get(), &one, sizeof one) < 0) {
            // The counter is full: the thread is awake anyway.
        }
        if (thread_.joinable()) thread_.join();
        return final_offsets_;
    }

    TailStats stats() const override {
        TailStats ret;
        ret.files_open = files_open_;
        ret.lines = lines_;
        ret.bytes = bytes_;
        ret.batches = batches_;
        ret.rotations = rotations_;
        ret.truncations = truncations_;
        ret.gaps = gaps_;
        ret.refused = refused_;
        ret.sink_full = sink_full_;
        ret.read_errors = read_errors_;
        return ret;
    }

private:
    bool stopping() const { return stopping_.load(std::memory_order_acquire); }

    void run() {
        Duration next_scan = now_ + scan_interval();
        while (!stopping()) {
            now_ = clock_.steady();
            bool more = false;
            // Rows first: see take_over_name.
            for (std::size_t i = 0; i < files_.size(); ++i) {
                if (files_[i]->offset_is_new || !files_[i]->more_offsets.empty()) emit(*files_[i], true);
            }
            for (std::size_t i = 0; i < files_.size() && !stopping();
                 ++i) {  // by index: reading may add rotated files
                File& file = *files_[i];
                if (file.dirty) process(file);
                serve_deadlines(file);
                more = more || file.dirty;
            }
            close_gone();
            if (wants_scan_ || now_ >= next_scan) {
                wants_scan_ = false;
                scan(false);
                next_scan = now_ + scan_interval();
                for (const auto& file : files_) more = more || file->dirty;
            }
            if (!more) wait(next_scan);
        }
        finish();
    }

    Duration scan_interval() const {
        return inotify_.is_open() ? options_.poll : options_.poll_without_inotify;
    }

    // ---- waiting
    // -------------------------------------------------------------------------------------------------------

    void wait(Duration next_scan) {
        Duration until = next_scan;
        for (const auto& file : files_) {
            if (const auto deadline = file->decoder.deadline()) until = std::min(until, *deadline);
            if (file->partial_raw > 0) until = std::min(until, file->last_data + options_.unfinished_wait);
            if (has_quiet(*file)) until = std::min(until, file->quiet_since + quiet_commit);
        }
        const auto left = std::max<std::int64_t>(0, (until - clock_.steady()).count());
        pollfd fds[2] = {{wake_.get(), POLLIN, 0}, {inotify_.get(), POLLIN, 0}};
        const timespec timeout{left / 1'000'000, (left % 1'000'000) * 1000};
        if (::ppoll(fds, inotify_.is_open() ? 2 : 1, &timeout, nullptr) > 0 && (fds[1].revents & POLLIN) != 0)
            read_events();
    }

    void read_events() {
        alignas(inotify_event) char events[16384];
        while (true) {
            const auto n = ::read(inotify_.get(), events, sizeof events);
            if (n <= 0) return;
            for (const char* p = events; p < events + n;) {
                const auto* event = reinterpret_cast<const inotify_event*>(p);
                p += sizeof(inotify_event) + event->len;
                if ((event->mask & IN_Q_OVERFLOW) != 0) {
                    for (auto& file : files_) file->dirty = true;
                    wants_scan_ = true;
                    continue;
                }
                if (const auto file = watched_files_.find(event->wd); file != watched_files_.end()) {
                    file->second->dirty = true;
                    if ((event->mask & (IN_MOVE_SELF | IN_DELETE_SELF | IN_ATTRIB)) != 0) wants_scan_ = true;
                    if ((event->mask & IN_IGNORED) != 0) {
                        file->second->watch = -1;
                        watched_files_.erase(file);
                    }
                } else if (const auto folder = watched_folders_.find(event->wd);
                           folder != watched_folders_.end()) {
                    const std::string_view name =
                        event->len > 0 ? std::string_view{event->name} : std::string_view{};
                    for (const auto& pattern : folder->second.patterns) {
                        if (::fnmatch(pattern.c_str(), std::string{name}.c_str(), 0) == 0) wants_scan_ = true;
                    }
                    if ((event->mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF)) != 0) {
                        folders_.erase(folder->second.path);
                        ::inotify_rm_watch(inotify_.get(), event->wd);
                        watched_folders_.erase(folder);
                    }
                }
            }
        }
    }

    void watch_folder(const std::string& pattern) {
        if (!inotify_.is_open()) return;
        const auto folder = folder_of(pattern);
        if (is_glob(folder)) return;  // the poll finds what appears there
        auto known = folders_.find(folder);
        if (known == folders_.end()) {
            const int wd = ::inotify_add_watch(
                inotify_.get(),
                folder.c_str(),
                IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF |
                    IN_ONLYDIR
            );
            if (wd < 0) return;
            known = folders_.emplace(folder, wd).first;
            watched_folders_[wd].path = folder;
        }
        watched_folders_[known->second].patterns.insert(name_of(pattern));
    }

    void watch_file(File& file) {
        if (!inotify_.is_open()) return;
        // Through the descriptor, so that it is this very file whatever the name means by now.
        const auto name = "/proc/self/fd/" + std::to_string(file.fd.get());
        file.watch = ::inotify_add_watch(
            inotify_.get(), name.c_str(), IN_MODIFY | IN_MOVE_SELF | IN_DELETE_SELF | IN_ATTRIB
        );
        if (file.watch >= 0) watched_files_[file.watch] = &file;
    }

    // ---- names: which files there are
    // -----------------------------------------------------------------------------------

    void scan(bool at_start) {
        for (const auto& source : options_.sources) {
            watch_folder(source.path);
            if (!is_glob(source.path)) {
                look_at(source.path, source, at_start);
                continue;
            }
            glob_t found{};
            if (::glob(source.path.c_str(), GLOB_NOSORT, nullptr, &found) == 0) {
                for (std::size_t i = 0; i < found.gl_pathc; ++i) look_at(found.gl_pathv[i], source, at_start);
            }
            ::globfree(&found);
        }
        for (std::size_t i = 0; i < files_.size(); ++i) {  // by index: what took a name's place is added
            File* file = files_[i].get();
            if (!file->rotated) look_whether_moved(*file);
            if (!file->rotated && file->look_for_missed_until > now_)
                read_missed(*file, file->missed_since_us);
            struct stat st {};
            if (::fstat(file->fd.get(), &st) == 0 && static_cast<std::uint64_t>(st.st_size) != file->position)
                file->dirty = true;
        }
    }

    File* file_at(const std::string& path) {
        for (auto& file : files_) {
            if (!file->rotated && !file->gone && file->path == path) return file.get();
        }
        return nullptr;
    }

    bool is_open(const Identity& identity) const {
        return std::any_of(files_.begin(), files_.end(), [&](const auto& f) {
            return f->identity == identity;
        });
    }

    void refuse(const std::string& path, const char* reason) {
        if (told_.size() < 10'000 && told_.emplace(path + reason).second) {
            ++refused_;
            log::warn("log file {} is not read: {}", path, reason);
        }
    }

    // True with an open descriptor of a regular file.
    bool open_regular(const std::string& path, bool follow_symlinks, Fd& ret, struct stat& ret_stat) {
        struct stat named {};
        if ((follow_symlinks ? ::stat(path.c_str(), &named) : ::lstat(path.c_str(), &named)) != 0)
            return false;
        if (S_ISLNK(named.st_mode)) {
            refuse(path, "it is a symbolic link (set follow_symlinks to allow it)");
            return false;
        }
        if (!S_ISREG(named.st_mode)) {
            if (!S_ISDIR(named.st_mode)) refuse(path, "it is not a regular file");
            return false;
        }
        Fd fd{::open(
            path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (follow_symlinks ? 0 : O_NOFOLLOW)
        )};
        if (!fd.is_open()) {
            if (errno != ENOENT) refuse(path, std::strerror(errno));
            return false;
        }
        if (::fstat(fd.get(), &ret_stat) != 0 || !S_ISREG(ret_stat.st_mode))
            return false;  // it was swapped in between
        ret = std::move(fd);
        return true;
    }

    void look_at(const std::string& path, const TailSource& config, bool at_start) {
        if (file_at(path) != nullptr) return;
        struct stat st {};
        if ((config.follow_symlinks ? ::stat(path.c_str(), &st) : ::lstat(path.c_str(), &st)) != 0) return;
        if (is_open(identity_of(st))) return;  // a rotated one under its new name, or a hard link
        const auto done = finished_.find(identity_of(st));
        if (done != finished_.end() && static_cast<std::uint64_t>(st.st_size) == done->second.position)
            return;
        if (is_glob(config.path) && is_compressed(path)) return;
        if (files_.size() >= options_.max_files) {
            refuse(path, "too many files are open; raise max_files or narrow the globs");
            return;
        }
        Fd fd;
        if (!open_regular(path, config.follow_symlinks, fd, st)) return;

        const auto source = "file:" + path;
        auto file = make_file(std::move(fd), st, path, source, config);
        const auto size = static_cast<std::uint64_t>(st.st_size);
        load_rows(path);
        if (const auto row = stored_.find(source); row != stored_.end()) {
            const SourceOffset stored = row->second;
            stored_.erase(row);
            resume(*file, stored, size);
        } else if (!has_open_former(path)) {
            note_siblings(*file);
        }
        if (file->position > 0) {
            // Continues where it was.
        } else if (file->resumed) {
            // From its beginning: it is another file than before.
        } else if (at_start && !config.from_start) {
            continue_at(*file, size);
        } else if (done != finished_.end()) {
            // Read to its end before, under the name it had: a late writer, unless the inode now means
            // another file.
            read_head(*file);
            if (size > done->second.position && file->head.starts_with(done->second.head))
                file->position = done->second.position;
        }
        if (done != finished_.end()) finished_.erase(done);
        resume_rotated(*file);
        take_over_name(*file);
        adopt(std::move(file));
    }

    bool has_open_former(const std::string& path) const {
        return std::any_of(files_.begin(), files_.end(), [&](const auto& f) {
            return f->rotated && f->path == path;
        });
    }

    // The row under the plain name is the new file's from now on. It and the row under which the former file
    // goes on are handed over in one batch, before anything more is read of either: at any moment a kill
    // leaves rows that tell the truth.
    void take_over_name(File& next) {
        std::int64_t since_us = 0;
        for (auto& former : files_) {
            if (!former->rotated || former->gone || former->source != next.source) continue;
            former->source = rotated_source(former->path, former->identity);
            next.more_offsets.push_back(offset_of(*former, former->delivered));
            since_us = former->in_place_us;
        }
        if (since_us == 0) return;
        read_missed(next, since_us);
        // A folder that is being renamed in may not show everything at one reading: it is read again for a
        // while.
        next.look_for_missed_until = now_ + look_for_missed;
        next.missed_since_us = since_us;
    }

    std::unique_ptr<File> make_file(
        Fd fd, const struct stat& st, const std::string& path, std::string source, const TailSource& config
    ) {
        DecodeDefaults defaults = config.defaults;
        defaults.source = "file:" + path;
        if (defaults.unnamed_service.empty())
            defaults.unnamed_service = name_of(path).substr(0, name_of(path).find('.'));
        auto file = std::make_unique<File>(LineDecoder{std::move(defaults), config.join});
        file->fd = std::move(fd);
        file->path = path;
        file->source = std::move(source);
        file->config = &config;
        file->identity = identity_of(st);
        file->last_data = now_;
        file->in_place_us = clock_.wall().us;
        return file;
    }

    void adopt(std::unique_ptr<File> file) {
        read_head(*file);
        file->delivered = file->position;
        file->offset_is_new = true;
        file->quiet_since = now_ - quiet_commit;
        watch_file(*file);
        files_.push_back(std::move(file));
        files_open_ = files_.size();
    }

    // In the middle of a line its beginning is not ours any more: the rest is passed over.
    static void continue_at(File& file, std::uint64_t offset) {
        file.position = offset;
        char last = '\n';
        if (offset > 0 && ::pread(file.fd.get(), &last, 1, static_cast<off_t>(offset - 1)) == 1)
            file.skip_to_line_end = last != '\n';
    }

    // Where the store says we were. Finds out what happened to the file while we were away.
    void resume(File& file, const SourceOffset& stored, std::uint64_t size) {
        file.resumed = true;
        Head head;
        const bool has_head = Head::parse(stored.head_hash, head);
        const bool same_head = !has_head || head.fits(file.fd.get());
        // Device numbers may change at a reboot, so inode and head decide.
        if (file.identity.second == stored.inode && same_head && size >= stored.offset) {
            continue_at(file, stored.offset);
            return;
        }
        const bool truncated = file.identity.second == stored.inode;
        const bool found = recover(file, stored, has_head ? &head : nullptr);
        if (!found && !truncated && has_head && head.size > 0 && same_head && size >= stored.offset) {
            continue_at(
                file, stored.offset
            );  // the same content under another inode: restored or moved between file systems
            return;
        }
        if (!truncated && has_head) read_missed(file, head.seen_us);
        ++(truncated ? truncations_ : rotations_);
        if (!found && stored.offset > 0) {
            ++gaps_;
            log::warn(
                "{} was {} while heald was not running, and the former file is gone: what was written to it "
                "after byte {} is lost",
                file.path,
                truncated ? "truncated" : "replaced",
                stored.offset
            );
        }
    }

    // A file beside `path` whose name says that it was rotated away from it.
    struct Sibling {
        std::string path;
        Fd fd;
        struct stat st {};
        bool fits(const SourceOffset& row) const {
            Head head;
            if (static_cast<std::uint64_t>(st.st_size) < row.offset) return false;
            return !Head::parse(row.head_hash, head) || head.fits(fd.get());
        }
    };

    // Oldest first. Those that are open, compressed or sources of their own are left out.
    std::vector<Sibling> siblings_of(const std::string& path, const Identity& current) {
        std::vector<Sibling> found;
        std::error_code ec;
        const auto base = name_of(path);
        for (const auto& entry : std::filesystem::directory_iterator{folder_of(path), ec}) {
            const auto name = entry.path().filename().string();
            if (name == base || is_compressed(name) || !is_successor_name(name, base)) continue;
            Sibling one;
            one.path = entry.path().string();
            const bool is_source =
                std::any_of(options_.sources.begin(), options_.sources.end(), [&](const auto& s) {
                    return s.path == one.path;
                });
            struct stat st {};
            if (is_source || ::lstat(one.path.c_str(), &st) != 0 || !S_ISREG(st.st_mode) ||
                identity_of(st) == current || is_open(identity_of(st)))
                continue;
            if (open_regular(one.path, false, one.fd, one.st)) found.push_back(std::move(one));
            if (found.size() >= 256) break;
        }
        const auto number = [](const std::string& name) {
            const auto at = name.find_last_not_of("0123456789");
            std::int64_t n = 0;
            std::from_chars(
                name.data() + (at == std::string::npos ? 0 : at + 1), name.data() + name.size(), n
            );
            return n;
        };
        // Written within one tick of the file system's clock, the one with the larger number is the older.
        std::sort(found.begin(), found.end(), [&](const auto& a, const auto& b) {
            const auto x = modified_us(a.st);
            const auto y = modified_us(b.st);
            return x != y ? x < y : number(a.path) > number(b.path);
        });
        return found;
    }

    // Have we read it, or is it the copy of one that we read?
    bool is_known(const std::string& path, const Sibling& sibling) const {
        const auto rows = known_.find(path);
        if (rows == known_.end()) return false;
        return std::any_of(rows->second.begin(), rows->second.end(), [&](const SourceOffset& row) {
            Head head;
            if (!Head::parse(row.head_hash, head) || !head.fits(sibling.fd.get())) return false;
            return row.inode == sibling.st.st_ino ||
                   (head.size == head_bytes && static_cast<std::uint64_t>(sibling.st.st_size) <= row.offset);
        });
    }

    // Opens from their beginning the rotated files that we have never seen: those that came and went between
    // two looks, or while we were away.
    void read_missed(File& current, std::int64_t since_us) {
        std::size_t taken = 0;
        for (auto& sibling : siblings_of(current.path, current.identity)) {
            if (modified_us(sibling.st) < since_us - clock_slack_us || is_known(current.path, sibling))
                continue;
            if (++taken > recovered_per_path || files_.size() >= options_.max_files) {
                ++gaps_;
                log::warn("{} is not read: too many rotated files at once", sibling.path);
                continue;
            }
            add_rotated(std::move(sibling.fd), sibling.st, current.path, *current.config, 0);
            current.more_offsets.push_back(offset_of(*files_.back(), 0));
        }
    }

    // Finds the file that we had been reading from `stored` under another name, and goes on with it there.
    bool recover(File& current, const SourceOffset& stored, const Head* head) {
        auto siblings = siblings_of(current.path, current.identity);
        auto former = std::find_if(siblings.begin(), siblings.end(), [&](const auto& s) {
            return s.st.st_ino == stored.inode && s.fits(stored);
        });
        if (former == siblings.end() && head != nullptr && head->size >= 16) {
            former = std::find_if(siblings.begin(), siblings.end(), [&](const auto& s) {
                return s.fits(stored);
            });  // a copy
        }
        if (former == siblings.end()) return false;
        add_rotated(std::move(former->fd), former->st, current.path, *current.config, stored.offset);
        current.more_offsets.push_back(offset_of(*files_.back(), stored.offset));
        return true;
    }

    // The very first look at a path: what lies beside it was there before us.
    void note_siblings(File& current) {
        for (const auto& sibling : siblings_of(current.path, current.identity)) {
            if (is_known(current.path, sibling)) continue;
            char bytes[head_bytes];
            const auto n = ::pread(sibling.fd.get(), bytes, sizeof bytes, 0);
            const std::string_view head{bytes, n > 0 ? static_cast<std::size_t>(n) : 0};
            const auto identity = identity_of(sibling.st);
            add_known(
                current.path,
                {rotated_source(current.path, identity),
                 identity.first,
                 identity.second,
                 static_cast<std::uint64_t>(sibling.st.st_size),
                 std::to_string(head.size()) + ":" + Head::hash_of(head) + ":" +
                     std::to_string(clock_.wall().us)},
                current.more_offsets
            );
            current.more_offsets.push_back(known_[current.path].back());
        }
    }

    // A rotated file that is done with. Rows beyond the bound are taken back through `offsets`.
    void add_known(const std::string& path, SourceOffset row, std::vector<SourceOffset>& offsets) {
        auto& rows = known_[path];
        rows.push_back(std::move(row));
        while (rows.size() > known_per_path) {
            rows.front().inode = 0;
            offsets.push_back(std::move(rows.front()));
            rows.pop_front();
        }
    }

    // The store's rows of rotated files, once per path.
    void load_rows(const std::string& path) {
        const auto prefix = "file:" + path + "@";
        for (auto i = stored_.lower_bound(prefix); i != stored_.end() && i->first.starts_with(prefix);
             i = stored_.erase(i))
            known_[path].push_back(i->second);
    }

    static bool is_successor_name(std::string_view name, std::string_view base) {
        // app.log.1, app.log-20261121, app.log.old; app-20261121.log, app.1.log. A number must follow, or
        // app-errors.log were one of app.log.
        const auto is_rest = [](std::string_view rest) {
            if (rest.size() < 2 || (rest[0] != '.' && rest[0] != '-' && rest[0] != '_')) return false;
            return (rest[1] >= '0' && rest[1] <= '9') || rest.substr(1) == "old";
        };
        if (name.starts_with(base)) return is_rest(name.substr(base.size()));
        const auto dot = base.rfind('.');
        return dot != std::string_view::npos && dot > 0 && name.size() > base.size() &&
               name.starts_with(base.substr(0, dot)) && name.ends_with(base.substr(dot)) &&
               is_rest(name.substr(dot));
    }

    static std::string rotated_source(const std::string& path, const Identity& identity) {
        return "file:" + path + "@" + std::to_string(identity.first) + ":" + std::to_string(identity.second);
    }

    void add_rotated(
        Fd fd, const struct stat& st, const std::string& path, const TailSource& config, std::uint64_t offset
    ) {
        auto file = make_file(std::move(fd), st, path, rotated_source(path, identity_of(st)), config);
        file->rotated = true;
        file->position = offset;
        adopt(std::move(file));
    }

    // Rotated files that have grown since, or were not read to their end when we stopped. Rows of files that
    // are gone are taken back.
    void resume_rotated(File& current) {
        const auto rows = known_.find(current.path);
        if (rows == known_.end() || !current.resumed) return;
        const auto siblings = siblings_of(current.path, current.identity);
        std::deque<SourceOffset> keep;
        for (auto& row : rows->second) {
            const auto found = std::find_if(siblings.begin(), siblings.end(), [&](const auto& s) {
                return s.st.st_ino == row.inode && s.fits(row);
            });
            const bool open = std::any_of(files_.begin(), files_.end(), [&](const auto& f) {
                return f->source == row.source;
            });
            if (open) continue;
            if (found == siblings.end()) {
                row.inode = 0;
                current.more_offsets.push_back(std::move(row));
            } else if (static_cast<std::uint64_t>(found->st.st_size) > row.offset) {
                Fd fd;
                struct stat st {};
                if (open_regular(found->path, false, fd, st))
                    add_rotated(std::move(fd), st, current.path, *current.config, row.offset);
            } else {
                keep.push_back(std::move(row));
            }
        }
        rows->second = std::move(keep);
    }

    // Has the name come to mean another file?
    void look_whether_moved(File& file) {
        const auto looked_us = clock_.wall().us;
        struct stat st {};
        const bool there = (file.config->follow_symlinks ? ::stat(file.path.c_str(), &st)
                                                         : ::lstat(file.path.c_str(), &st)) == 0;
        if (there && identity_of(st) == file.identity) {
            file.in_place_us = looked_us;
            return;
        }
        ++rotations_;
        file.rotated = true;
        file.dirty = true;
        std::size_t rotated = 0;
        for (auto i = files_.rbegin(); i != files_.rend(); ++i) {
            if ((*i)->rotated && !(*i)->dirty && (*i)->path == file.path && ++rotated > rotated_per_path)
                (*i)->gone = true;
        }
        if (there) {
            const auto before = files_.size();
            const std::string path = file.path;
            look_at(path, *file.config, false);
            if (files_.size() > before) {
                if (!emit(*files_.back(), true)) return;
            }
        }
        // Its last lines first, then those of the file that took its place.
        while (file.dirty && !stopping()) process(file);
    }

    void close_gone() {
        for (auto i = files_.begin(); i != files_.end();) {
            File& file = **i;
            if (!file.gone) {
                ++i;
                continue;
            }
            file.dirty = true;
            while (file.dirty && !stopping()) process(file);
            take_unfinished(file);
            file.decoder.flush(builder_);
            if (!emit(file, true)) return;
            if (file.rotated) {
                File* current = file_at(file.path);
                SourceOffset row = offset_of(file, file.delivered);
                row.source = rotated_source(file.path, file.identity);
                std::vector<SourceOffset> nobody;
                add_known(file.path, std::move(row), current != nullptr ? current->more_offsets : nobody);
            }
            if (file.watch >= 0) {
                watched_files_.erase(file.watch);
                ::inotify_rm_watch(inotify_.get(), file.watch);
            }
            if (finished_.size() >= finished_kept) finished_.clear();
            finished_[file.identity] = Finished{file.position, file.head};
            i = files_.erase(i);
        }
        files_open_ = files_.size();
    }

    // ---- bytes
    // ----------------------------------------------------------------------------------------------------------

    void read_head(File& file) {
        char bytes[head_bytes];
        const auto n = ::pread(file.fd.get(), bytes, sizeof bytes, 0);
        file.head.assign(bytes, n > 0 ? static_cast<std::size_t>(n) : 0);
        file.head_hash = Head::hash_of(file.head);
    }

    // Truncated, or truncated and written again beyond where we were (reliability row 10).
    bool was_truncated(const File& file, std::uint64_t size) const {
        if (size < file.position) return true;
        if (file.head.empty()) return false;
        char bytes[head_bytes];
        const auto n = ::pread(file.fd.get(), bytes, file.head.size(), 0);
        return n >= 0 && std::string_view{bytes, static_cast<std::size_t>(n)} != file.head;
    }

    void process(File& file) {
        file.dirty = false;
        struct stat st {};
        if (::fstat(file.fd.get(), &st) != 0) return;
        auto size = static_cast<std::uint64_t>(st.st_size);
        if (was_truncated(file, size)) {
            if (!restart_from_the_beginning(file)) return;
            if (::fstat(file.fd.get(), &st) != 0) return;
            size = static_cast<std::uint64_t>(st.st_size);
        }
        for (int i = 0; i < chunks_in_a_row; ++i) {
            if (file.position >= size) break;
            const auto n =
                ::pread(file.fd.get(), buffer_.data(), buffer_.size(), static_cast<off_t>(file.position));
            if (n < 0) {
                if (errno != EINTR && errno != EAGAIN) {
                    ++read_errors_;
                    refuse(file.path, std::strerror(errno));
                }
                return;
            }
            if (n == 0) break;
            if (file.head.size() < head_bytes) read_head(file);
            if (!split(file, {buffer_.data(), static_cast<std::size_t>(n)})) return;
            file.last_data = now_;
            if (static_cast<std::size_t>(n) < buffer_.size()) break;
        }
        file.dirty = file.position < size && !file.gone;
        if (!file.dirty) file.decoder.pause(now_, builder_);
        emit(file, false);
    }

    // False: the sink did not take a batch before the stop.
    bool split(File& file, std::string_view chunk) {
        while (!chunk.empty()) {
            const auto* end = static_cast<const char*>(std::memchr(chunk.data(), '\n', chunk.size()));
            const std::size_t length =
                end != nullptr ? static_cast<std::size_t>(end - chunk.data()) : chunk.size();
            const std::size_t raw = length + (end != nullptr ? 1 : 0);
            file.position += raw;
            bytes_ += raw;
            const auto text = chunk.substr(0, length);
            chunk.remove_prefix(raw);
            if (file.skip_to_line_end) {
                file.skipped += raw;
                if (end != nullptr) {
                    file.skip_to_line_end = false;
                    builder_.count_lines(0, file.skipped);
                    file.skipped = 0;
                }
                continue;
            }
            if (end == nullptr || file.partial_raw > 0) {
                const std::size_t room =
                    options_.max_line_bytes - std::min(options_.max_line_bytes, file.partial.size());
                file.partial_cut = file.partial_cut || text.size() > room;
                file.partial.append(text.substr(0, room));
                file.partial_raw += raw;
                if (end != nullptr) take_partial(file);
            } else {
                const bool cut = text.size() > options_.max_line_bytes;
                ++lines_;
                file.decoder.line(
                    cut ? text.substr(0, options_.max_line_bytes) : text, raw, cut, now_, builder_
                );
            }
            if (builder_.full() && !emit(file, false)) return false;
        }
        return true;
    }

    void take_partial(File& file) {
        ++lines_;
        file.decoder.line(file.partial, file.partial_raw, file.partial_cut, now_, builder_);
        file.partial.clear();
        if (file.partial.capacity() > 4096) file.partial.shrink_to_fit();
        file.partial_raw = 0;
        file.partial_cut = false;
    }

    void take_unfinished(File& file) {
        if (file.partial_raw == 0) return;
        take_partial(file);
        file.skip_to_line_end = true;
    }

    // After a truncation. What the copy still has beyond our position (copytruncate) is read first.
    bool restart_from_the_beginning(File& file) {
        ++truncations_;
        read_rest_of_copy(file);
        take_unfinished(file);
        file.decoder.flush(builder_);
        if (!emit(file, false)) return false;
        file.position = file.delivered = 0;
        file.skip_to_line_end = false;
        file.skipped = 0;
        file.offset_is_new = true;
        file.quiet_since = now_ - quiet_commit;
        read_head(file);
        return true;
    }

    void read_rest_of_copy(File& file) {
        if (file.head.size() < 16) return;  // too little to know a copy by
        std::error_code ec;
        const auto base = name_of(file.path);
        for (const auto& entry : std::filesystem::directory_iterator{folder_of(file.path), ec}) {
            const auto name = entry.path().filename().string();
            if (name == base || is_compressed(name) || !is_successor_name(name, base)) continue;
            Fd fd;
            struct stat st {};
            if (::lstat(entry.path().c_str(), &st) != 0 || !S_ISREG(st.st_mode) ||
                static_cast<std::uint64_t>(st.st_size) < file.position)
                continue;
            if (is_open(identity_of(st)) || !open_regular(entry.path().string(), false, fd, st)) continue;
            char bytes[head_bytes];
            const auto n = ::pread(fd.get(), bytes, file.head.size(), 0);
            if (n < 0 || std::string_view{bytes, static_cast<std::size_t>(n)} != file.head) continue;
            while (file.position < static_cast<std::uint64_t>(st.st_size)) {
                const auto got =
                    ::pread(fd.get(), buffer_.data(), buffer_.size(), static_cast<off_t>(file.position));
                if (got <= 0 || !split(file, {buffer_.data(), static_cast<std::size_t>(got)})) return;
            }
            if (File* current = file_at(file.path); current == &file) {
                SourceOffset row = offset_of(file, file.position);
                row.source = rotated_source(file.path, identity_of(st));
                row.device = st.st_dev;
                row.inode = st.st_ino;
                file.more_offsets.push_back(row);
                add_known(file.path, std::move(row), file.more_offsets);
            }
            if (finished_.size() < finished_kept)
                finished_[identity_of(st)] = Finished{static_cast<std::uint64_t>(st.st_size), file.head};
            return;
        }
    }

    void serve_deadlines(File& file) {
        if (const auto deadline = file.decoder.deadline(); deadline && *deadline <= now_) {
            file.decoder.flush(builder_);
            emit(file, false);
        }
        if (file.partial_raw > 0 && file.last_data + options_.unfinished_wait <= now_) {
            take_unfinished(file);
            file.decoder.pause(now_, builder_);
            emit(file, false);
        }
        if (has_quiet(file) && file.quiet_since + quiet_commit <= now_) emit(file, true);
        if (file.rotated && file.last_data + options_.rotated_keep <= now_) file.gone = true;
    }

    // ---- batches
    // --------------------------------------------------------------------------------------------------------

    static bool has_quiet(const File& file) {
        return file.quiet.lines > 0 || file.quiet.bytes > 0 || file.offset_is_new ||
               !file.more_offsets.empty();
    }

    SourceOffset offset_of(const File& file, std::uint64_t offset) const {
        return {
            file.source,
            file.identity.first,
            file.identity.second,
            offset,
            std::to_string(file.head.size()) + ":" + file.head_hash + ":" + std::to_string(clock_.wall().us)};
    }

    static void add_counts(Batch& to, const Batch& from) {
        to.lines += from.lines;
        to.bytes += from.bytes;
        to.below_level += from.below_level;
        to.self += from.self;
        to.malformed += from.malformed;
        to.joined += from.joined;
        to.truncated += from.truncated;
        to.folded += from.folded;
        to.records += from.records;
    }

    // Hands over what the builder has, all of it from `file`. Lines that made no record wait for others,
    // unless `all`. False: stopped before the sink had room; the offset stays where it was.
    bool emit(File& file, bool all) {
        if (undelivered_) return false;
        Batch batch = builder_.has_lines() || builder_.peek().bytes > 0 ? builder_.take() : Batch{};
        const std::uint64_t offset =
            file.position - file.partial_raw - file.skipped - file.decoder.held_bytes();
        if (batch.deltas.empty() && !all) {
            if (batch.lines > 0 || batch.bytes > 0) {
                if (!has_quiet(file)) file.quiet_since = now_;
                add_counts(file.quiet, batch);
            }
            return true;
        }
        add_counts(batch, file.quiet);
        if (batch.deltas.empty() && !has_quiet(file) && !(all && file.gone)) return true;
        if (batch.received.us == 0) batch.received = clock_.wall();
        batch.source = "file:" + file.path;
        batch.offsets = std::move(file.more_offsets);
        batch.offsets.push_back(offset_of(file, offset));
        struct stat st {};
        if (file.gone && ::fstat(file.fd.get(), &st) == 0 && st.st_nlink == 0) batch.offsets.back().inode = 0;
        file.more_offsets.clear();
        while (!sink_(std::move(batch))) {
            ++sink_full_;
            if (stopping()) {
                if (stop_since_.count() == 0) stop_since_ = clock_.steady();
                if (clock_.steady() - stop_since_ > stop_grace) {
                    undelivered_ = true;
                    return false;
                }
            }
            std::this_thread::sleep_for(sink_retry);
        }
        ++batches_;
        file.quiet = Batch{};
        file.offset_is_new = false;
        file.delivered = offset;
        now_ = clock_.steady();
        return true;
    }

    void finish() {
        for (auto& file : files_) {
            if (!undelivered_) {
                file->decoder.flush(builder_);
                emit(*file, true);
            }
            if (!file->gone) final_offsets_.push_back(offset_of(*file, file->delivered));
        }
        files_.clear();
        files_open_ = 0;
    }

    TailOptions options_;
    const Clock& clock_;
    Sink sink_;
    BatchBuilder builder_;
    std::string buffer_;
    Fd wake_, inotify_;
    Duration now_{0}, stop_since_{0};
    bool wants_scan_ = false;
    bool undelivered_ = false;
    std::vector<std::unique_ptr<File>> files_;
    std::map<std::string, SourceOffset> stored_;
    std::map<std::string, std::deque<SourceOffset>>
        known_;  // by path: rotated files that were read to their end
    struct Finished {
        std::uint64_t position = 0;
        std::string head;
    };
    std::map<Identity, Finished> finished_;  // rotated files that were read to their end
    std::set<std::string> told_;
    struct Folder {
        std::string path;
        std::set<std::string> patterns;
    };
    std::unordered_map<int, File*> watched_files_;
    std::unordered_map<int, Folder> watched_folders_;
    std::map<std::string, int> folders_;
    std::vector<SourceOffset> final_offsets_;
    std::atomic<bool> stopping_{false};
    std::atomic<std::uint64_t> files_open_{0}, lines_{0}, bytes_{0}, batches_{0}, rotations_{0},
        truncations_{0}, gaps_{0}, refused_{0}, sink_full_{0}, read_errors_{0};
    std::thread thread_;
};

}  // namespace

std::unique_ptr<Tail> create_tail(TailOptions options, const Clock& clock, Tail::Sink sink) {
    return std::make_unique<TailThread>(std::move(options), clock, std::move(sink));
}

}  // namespace heal
