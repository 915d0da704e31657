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
#include <filesystem>
#include <map>
#include <set>
#include <thread>
#include <unordered_map>

namespace heal {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t chunk_bytes = 256U << 10U;
constexpr int chunks_in_a_row = 4;            // then the next file has its turn
constexpr std::size_t head_bytes = 256;       // reliability row 12
constexpr std::size_t rotated_per_path = 4;
constexpr std::size_t recovered_per_path = 16;
constexpr std::size_t finished_kept = 4096;
constexpr Duration quiet_commit{1'000'000};   // offsets of lines that made no record are handed over this often
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

std::int64_t modified_us(const struct stat& st) { return st.st_mtim.tv_sec * 1'000'000LL + st.st_mtim.tv_nsec / 1000; }

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
        const auto ok = [](std::from_chars_result r, const char* end) { return r.ec == std::errc{} && r.ptr == end; };
        ret.hash = text.substr(a + 1, b - a - 1);
        return ok(std::from_chars(text.data(), text.data() + a, ret.size), text.data() + a) && ret.size <= head_bytes &&
               ok(std::from_chars(text.data() + b + 1, text.data() + text.size(), ret.seen_us), text.data() + text.size());
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

std::string name_of(const std::string& path) { return path.substr(path.rfind('/') == std::string::npos ? 0 : path.rfind('/') + 1); }

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

    explicit File(LineDecoder d) : decoder(std::move(d)) {}
};

class TailThread final : public Tail {
public:
    TailThread(TailOptions options, const Clock& clock, Sink sink)
        : options_(std::move(options)), clock_(clock), sink_(std::move(sink)), builder_(clock), buffer_(chunk_bytes, '\0') {
        for (auto& offset : options_.offsets) stored_[offset.source] = offset;
        wake_ = Fd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
        if (options_.use_inotify) {
            inotify_ = Fd{::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
            if (!inotify_.is_open()) log::warn("inotify is not available ({}); files are polled", std::strerror(errno));
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
            for (std::size_t i = 0; i < files_.size() && !stopping(); ++i) {  // by index: reading may add rotated files
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

    Duration scan_interval() const { return inotify_.is_open() ? options_.poll : options_.poll_without_inotify; }

    // ---- waiting -------------------------------------------------------------------------------------------------------

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
        if (::ppoll(fds, inotify_.is_open() ? 2 : 1, &timeout, nullptr) > 0 && (fds[1].revents & POLLIN) != 0) read_events();
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
                } else if (const auto folder = watched_folders_.find(event->wd); folder != watched_folders_.end()) {
                    const std::string_view name = event->len > 0 ? std::string_view{event->name} : std::string_view{};
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
                inotify_.get(), folder.c_str(), IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR
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
        file.watch = ::inotify_add_watch(inotify_.get(), name.c_str(), IN_MODIFY | IN_MOVE_SELF | IN_DELETE_SELF | IN_ATTRIB);
        if (file.watch >= 0) watched_files_[file.watch] = &file;
    }

    // ---- names: which files there are -----------------------------------------------------------------------------------

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
            struct stat st {};
            if (::fstat(file->fd.get(), &st) == 0 && static_cast<std::uint64_t>(st.st_size) != file->position) file->dirty = true;
        }
    }

    File* file_at(const std::string& path) {
        for (auto& file : files_) {
            if (!file->rotated && !file->gone && file->path == path) return file.get();
        }
        return nullptr;
    }

    bool is_open(const Identity& identity) const {
        return std::any_of(files_.begin(), files_.end(), [&](const auto& f) { return !f->gone && f->identity == identity; });
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
        if ((follow_symlinks ? ::stat(path.c_str(), &named) : ::lstat(path.c_str(), &named)) != 0) return false;
        if (S_ISLNK(named.st_mode)) {
            refuse(path, "it is a symbolic link (set follow_symlinks to allow it)");
            return false;
        }
        if (!S_ISREG(named.st_mode)) {
            if (!S_ISDIR(named.st_mode)) refuse(path, "it is not a regular file");
            return false;
        }
        Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (follow_symlinks ? 0 : O_NOFOLLOW))};
        if (!fd.is_open()) {
            if (errno != ENOENT) refuse(path, std::strerror(errno));
            return false;
        }
        if (::fstat(fd.get(), &ret_stat) != 0 || !S_ISREG(ret_stat.st_mode)) return false;  // it was swapped in between
        ret = std::move(fd);
        return true;
    }

    void look_at(const std::string& path, const TailSource& config, bool at_start) {
        if (file_at(path) != nullptr) return;
        struct stat st {};
        if ((config.follow_symlinks ? ::stat(path.c_str(), &st) : ::lstat(path.c_str(), &st)) != 0) return;
        if (is_open(identity_of(st))) return;  // a rotated one under its new name, or a hard link
        const auto done = finished_.find(identity_of(st));
        if (done != finished_.end() && static_cast<std::uint64_t>(st.st_size) == done->second.position) return;
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
        if (const auto known = stored_.find(source); known != stored_.end()) {
            const SourceOffset stored = known->second;
            stored_.erase(known);
            resume(*file, stored, size);
        } else if (at_start && !config.from_start) {
            continue_at(*file, size);
        } else if (done != finished_.end()) {
            // Read to its end before, under the name it had: a late writer, unless the inode now means another file.
            read_head(*file);
            if (size > done->second.position && file->head.starts_with(done->second.head)) file->position = done->second.position;
        }
        if (done != finished_.end()) finished_.erase(done);
        resume_rotated(*file);
        take_over_name(*file);
        adopt(std::move(file));
    }

    // The row under the plain name is the new file's from now on. It and the row under which the former file goes on are handed over in
    // one batch, before anything more is read of either: at any moment a kill leaves rows that tell the truth.
    void take_over_name(File& next) {
        for (auto& former : files_) {
            if (!former->rotated || former->gone || former->source != next.source) continue;
            former->source = rotated_source(former->path, former->identity);
            next.more_offsets.push_back(offset_of(*former, former->delivered));
        }
    }

    std::unique_ptr<File> make_file(Fd fd, const struct stat& st, const std::string& path, std::string source, const TailSource& config) {
        DecodeDefaults defaults = config.defaults;
        defaults.source = "file:" + path;
        if (defaults.unnamed_service.empty()) defaults.unnamed_service = name_of(path).substr(0, name_of(path).find('.'));
        auto file = std::make_unique<File>(LineDecoder{std::move(defaults), config.join});
        file->fd = std::move(fd);
        file->path = path;
        file->source = std::move(source);
        file->config = &config;
        file->identity = identity_of(st);
        file->last_data = now_;
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
        if (offset > 0 && ::pread(file.fd.get(), &last, 1, static_cast<off_t>(offset - 1)) == 1) file.skip_to_line_end = last != '\n';
    }

    // Where the store says we were. Finds out what happened to the file while we were away.
    void resume(File& file, const SourceOffset& stored, std::uint64_t size) {
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
            continue_at(file, stored.offset);  // the same content under another inode: restored or moved between file systems
            return;
        }
        ++(truncated ? truncations_ : rotations_);
        if (!found && stored.offset > 0) {
            ++gaps_;
            log::warn("{} was {} while heald was not running, and the former file is gone: what was written to it after byte {} is lost",
                      file.path, truncated ? "truncated" : "replaced", stored.offset);
        }
    }

    // Reads what was rotated away while we were away: the file we had been reading from our offset on, and whole the ones that
    // came after it. True if the former was there.
    bool recover(File& current, const SourceOffset& stored, const Head* head) {
        struct Candidate {
            std::string path;
            Fd fd;
            struct stat st {};
        };
        std::vector<Candidate> candidates;
        std::error_code ec;
        const auto base = name_of(current.path);
        for (const auto& entry : std::filesystem::directory_iterator{folder_of(current.path), ec}) {
            const auto name = entry.path().filename().string();
            if (name == base || is_compressed(name) || !is_successor_name(name, base)) continue;
            Candidate c;
            struct stat st {};
            if (::lstat(entry.path().c_str(), &st) != 0 || !S_ISREG(st.st_mode) || identity_of(st) == current.identity) continue;
            c.path = entry.path().string();
            if (open_regular(c.path, false, c.fd, c.st)) candidates.push_back(std::move(c));
            if (candidates.size() >= 256) break;
        }
        std::sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) { return modified_us(a.st) < modified_us(b.st); });
        const auto is_former = [&](const Candidate& c) {
            if (static_cast<std::uint64_t>(c.st.st_size) < stored.offset) return false;
            if (head != nullptr && !head->fits(c.fd.get())) return false;
            return c.st.st_ino == stored.inode || (head != nullptr && head->size > 0);
        };
        auto former = std::find_if(candidates.begin(), candidates.end(), [&](const auto& c) { return c.st.st_ino == stored.inode && is_former(c); });
        if (former == candidates.end()) former = std::find_if(candidates.begin(), candidates.end(), is_former);
        const bool found = former != candidates.end();
        const std::int64_t since = found ? modified_us(former->st) : head != nullptr ? head->seen_us : INT64_MAX;
        std::size_t taken = 0;
        for (auto i = candidates.begin(); i != candidates.end() && taken < recovered_per_path; ++i) {
            const bool later = i != former && modified_us(i->st) > since && stored.inode != 0;
            if ((i != former && !later) || is_open(identity_of(i->st))) continue;
            // One that has a row of its own is taken up by resume_rotated.
            if (stored_.contains(rotated_source(current.path, identity_of(i->st)))) continue;
            add_rotated(std::move(i->fd), i->st, current.path, *current.config, i == former ? stored.offset : 0);
            current.more_offsets.push_back(offset_of(*files_.back(), files_.back()->position));
            ++taken;
        }
        return found;
    }

    static bool is_successor_name(std::string_view name, std::string_view base) {
        if (name.starts_with(base)) return name.size() > base.size() && (name[base.size()] == '.' || name[base.size()] == '-' || name[base.size()] == '_');
        // app.log -> app-20261121.log, app.1.log
        const auto dot = base.rfind('.');
        return dot != std::string_view::npos && dot > 0 && name.starts_with(base.substr(0, dot)) && name.ends_with(base.substr(dot)) &&
               name.size() > base.size() && (name[dot] == '.' || name[dot] == '-' || name[dot] == '_');
    }

    static std::string rotated_source(const std::string& path, const Identity& identity) {
        return "file:" + path + "@" + std::to_string(identity.first) + ":" + std::to_string(identity.second);
    }

    void add_rotated(Fd fd, const struct stat& st, const std::string& path, const TailSource& config, std::uint64_t offset) {
        auto file = make_file(std::move(fd), st, path, rotated_source(path, identity_of(st)), config);
        file->rotated = true;
        file->position = offset;
        adopt(std::move(file));
    }

    // Rotated files that were still being read when we stopped.
    void resume_rotated(File& current) {
        const auto prefix = "file:" + current.path + "@";
        for (auto i = stored_.lower_bound(prefix); i != stored_.end() && i->first.starts_with(prefix);) {
            SourceOffset stored = i->second;
            i = stored_.erase(i);
            bool found = false;
            std::error_code ec;
            for (const auto& entry : std::filesystem::directory_iterator{folder_of(current.path), ec}) {
                struct stat st {};
                if (::lstat(entry.path().c_str(), &st) != 0 || st.st_ino != stored.inode || st.st_ino == current.identity.second) continue;
                Fd fd;
                Head head;
                if (!open_regular(entry.path().string(), false, fd, st)) break;
                if (Head::parse(stored.head_hash, head) && !head.fits(fd.get())) break;
                if (is_open(identity_of(st))) {
                    found = true;
                    break;
                }
                add_rotated(std::move(fd), st, current.path, *current.config, stored.offset);
                found = true;
                break;
            }
            if (!found) {
                stored.inode = 0;
                current.more_offsets.push_back(std::move(stored));
            }
        }
    }

    // Has the name come to mean another file?
    void look_whether_moved(File& file) {
        struct stat st {};
        const bool there = (file.config->follow_symlinks ? ::stat(file.path.c_str(), &st) : ::lstat(file.path.c_str(), &st)) == 0;
        if (there && identity_of(st) == file.identity) return;
        ++rotations_;
        file.rotated = true;
        file.dirty = true;
        std::size_t rotated = 0;
        for (auto i = files_.rbegin(); i != files_.rend(); ++i) {
            if ((*i)->rotated && (*i)->path == file.path && ++rotated > rotated_per_path) (*i)->gone = true;
        }
        if (there) {
            const auto before = files_.size();
            const std::string path = file.path;
            look_at(path, *file.config, false);
            if (files_.size() > before && !emit(*files_.back(), true)) return;
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
            take_unfinished(file);
            file.decoder.flush(builder_);
            emit(file, true);
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

    // ---- bytes ----------------------------------------------------------------------------------------------------------

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
            const auto n = ::pread(file.fd.get(), buffer_.data(), buffer_.size(), static_cast<off_t>(file.position));
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
            const std::size_t length = end != nullptr ? static_cast<std::size_t>(end - chunk.data()) : chunk.size();
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
                const std::size_t room = options_.max_line_bytes - std::min(options_.max_line_bytes, file.partial.size());
                file.partial_cut = file.partial_cut || text.size() > room;
                file.partial.append(text.substr(0, room));
                file.partial_raw += raw;
                if (end != nullptr) take_partial(file);
            } else {
                const bool cut = text.size() > options_.max_line_bytes;
                ++lines_;
                file.decoder.line(cut ? text.substr(0, options_.max_line_bytes) : text, raw, cut, now_, builder_);
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
            if (::lstat(entry.path().c_str(), &st) != 0 || !S_ISREG(st.st_mode) || static_cast<std::uint64_t>(st.st_size) < file.position) continue;
            if (is_open(identity_of(st)) || !open_regular(entry.path().string(), false, fd, st)) continue;
            char bytes[head_bytes];
            const auto n = ::pread(fd.get(), bytes, file.head.size(), 0);
            if (n < 0 || std::string_view{bytes, static_cast<std::size_t>(n)} != file.head) continue;
            while (file.position < static_cast<std::uint64_t>(st.st_size)) {
                const auto got = ::pread(fd.get(), buffer_.data(), buffer_.size(), static_cast<off_t>(file.position));
                if (got <= 0 || !split(file, {buffer_.data(), static_cast<std::size_t>(got)})) return;
            }
            if (finished_.size() < finished_kept) finished_[identity_of(st)] = Finished{static_cast<std::uint64_t>(st.st_size), file.head};
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

    // ---- batches --------------------------------------------------------------------------------------------------------

    static bool has_quiet(const File& file) { return file.quiet.lines > 0 || file.quiet.bytes > 0 || file.offset_is_new || !file.more_offsets.empty(); }

    SourceOffset offset_of(const File& file, std::uint64_t offset) const {
        return {file.source, file.identity.first, file.identity.second, offset,
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

    // Hands over what the builder has, all of it from `file`. Lines that made no record wait for others, unless `all`.
    // False: stopped before the sink had room; the offset stays where it was.
    bool emit(File& file, bool all) {
        if (undelivered_) return false;
        Batch batch = builder_.has_lines() || builder_.peek().bytes > 0 ? builder_.take() : Batch{};
        const std::uint64_t offset = file.position - file.partial_raw - file.skipped - file.decoder.held_bytes();
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
        if (file.gone && file.source != "file:" + file.path) batch.offsets.back().inode = 0;
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
    std::atomic<std::uint64_t> files_open_{0}, lines_{0}, bytes_{0}, batches_{0}, rotations_{0}, truncations_{0}, gaps_{0}, refused_{0},
        sink_full_{0}, read_errors_{0};
    std::thread thread_;
};

}  // namespace

std::unique_ptr<Tail> create_tail(TailOptions options, const Clock& clock, Tail::Sink sink) {
    return std::make_unique<TailThread>(std::move(options), clock, std::move(sink));
}

}  // namespace heal
