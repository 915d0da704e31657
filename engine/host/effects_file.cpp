// Files, safe against symbolic links: the folder of a path is opened first, its real name asked of the kernel, and both the
// asked and the real path must be granted; everything then happens relative to that open folder with O_NOFOLLOW, so that
// exchanging a link between check and use changes nothing.
#include "base/files.hpp"
#include "base/id.hpp"
#include "host/effects_parts.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

namespace heal::effects {
namespace {

struct Place {
    std::shared_ptr<Descriptor> folder;
    std::string name, real;  ///< last component; real path
};

std::string real_of(int fd) {
    std::array<char, 4096> buffer{};
    const auto n = ::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), buffer.data(), buffer.size());
    return n > 0 ? std::string(buffer.data(), static_cast<std::size_t>(n)) : std::string{};
}

// A grant may itself lead through links (/var/run/x); its fixed head is resolved, since the operator wrote it.
Grants resolved(const Grants& grants) {
    std::vector<std::string> out;
    for (const std::string& pattern : grants.patterns()) {
        out.push_back(pattern);
        const auto colon = pattern.find(':');
        const std::string kind = pattern.substr(0, colon);
        if (kind != "file" && kind != "read") continue;
        const std::string path = pattern.substr(colon + 1);
        auto fixed = path.substr(0, path.find_first_of("*?"));
        const auto slash = fixed.find_last_of('/');
        if (slash == std::string::npos || slash == 0) continue;
        const std::string head = fixed.substr(0, slash);
        std::unique_ptr<char, void (*)(void*)> real{::realpath(head.c_str(), nullptr), &::free};
        if (real && head != real.get()) out.push_back(kind + ":" + real.get() + path.substr(slash));
    }
    return Grants{std::move(out)};
}

result<Place> place_of(const Context& context, const std::string& path, bool write, std::string_view where) {
    if (!is_clean_path(path) || path == "/") return fail(errc::invalid_input, fmt::format("{}: '{}' must be an absolute path without '.', '..' and empty parts", where, bounded(path, 300)));
    const Grants& grants = context.request.grants;
    const std::string kind = write ? "file:" : "read:";
    if (!grants.everything() && !grants.file(path, write)) return denied((write ? "to change " : "to read ") + path, kind + path);
    const auto slash = path.find_last_of('/');
    const std::string parent = slash == 0 ? "/" : path.substr(0, slash);
    Place out;
    out.folder = std::make_shared<Descriptor>(::open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    out.name = path.substr(slash + 1);
    if (!out.folder->open()) {
        if (errno == ENOENT) return fail(errc::not_found, fmt::format("the folder {} does not exist", parent));
        return fail_errno("cannot open the folder " + parent, errno);
    }
    const std::string real_parent = real_of(out.folder->get());
    out.real = (real_parent == "/" ? "" : real_parent) + "/" + out.name;
    if (!grants.everything() && out.real != path && !resolved(grants).file(out.real, write)) {
        return denied(fmt::format("{} leads to {}, which", path, out.real), kind + out.real);
    }
    return out;
}

// Follows a link at the end of the path, checking each place it leads to.
result<Place> followed(const Context& context, std::string path, bool write, std::string_view where) {
    for (int links = 0; links < 8; ++links) {
        auto place = place_of(context, path, write, where);
        if (!place) return std::move(place).error();
        std::array<char, 4096> buffer{};
        const auto n = ::readlinkat(place->folder->get(), place->name.c_str(), buffer.data(), buffer.size());
        if (n <= 0) return place;
        const std::string target(buffer.data(), static_cast<std::size_t>(n));
        std::unique_ptr<char, void (*)(void*)> real{::realpath(path.c_str(), nullptr), &::free};
        if (!real) return fail(errc::denied, fmt::format("{} is a link to {}, which does not exist", path, bounded(target, 300)));
        const std::string next = real.get();
        const Grants& grants = context.request.grants;
        if (!grants.everything() && !grants.file(next, write) && !resolved(grants).file(next, write)) {
            return denied(fmt::format("{} is a link to {}, which", path, next), (write ? "file:" : "read:") + next);
        }
        path = next;
    }
    return fail(errc::denied, path + " is a chain of too many links");
}

struct Content {
    bool exists = false;
    std::string bytes;
    struct stat info {};
};

result<Content> read_at(const Place& place, std::size_t limit) {
    Content out;
    // O_NONBLOCK: a FIFO must not hold us.
    const Descriptor file{::openat(place.folder->get(), place.name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)};
    if (!file.open()) {
        if (errno == ENOENT) return out;
        return fail_errno("cannot open " + place.real, errno);
    }
    if (::fstat(file.get(), &out.info) != 0) return fail_errno("cannot look at " + place.real, errno);
    if (!S_ISREG(out.info.st_mode)) return fail(errc::invalid_input, place.real + " is not a regular file");
    out.exists = true;
    std::array<char, 65536> buffer{};
    for (;;) {
        const auto n = ::read(file.get(), buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno("cannot read " + place.real, errno);
        if (n == 0) return out;
        if (out.bytes.size() + static_cast<std::size_t>(n) > limit) return fail(errc::invalid_input, fmt::format("{} is larger than {} bytes", place.real, limit));
        out.bytes.append(buffer.data(), static_cast<std::size_t>(n));
    }
}

struct Attributes {
    std::optional<unsigned> mode;
    std::optional<std::pair<uid_t, gid_t>> owner;
};

// Always the same beside a file, so that one left behind by a kill is found and removed by whoever comes next.
std::string temporary_of(const Place& place) { return "." + place.name.substr(0, 200) + ".heald-new"; }

result<void> write_at(const Place& place, std::string_view content, const Attributes& attributes) {
    const std::string temporary = temporary_of(place);
    const int folder = place.folder->get();
    ::unlinkat(folder, temporary.c_str(), 0);
    Descriptor file{::openat(folder, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600)};
    if (!file.open()) return fail_errno("cannot create a file beside " + place.real, errno);
    const auto give_up = [&](const char* what) {
        const int error = errno;
        ::unlinkat(folder, temporary.c_str(), 0);
        return fail_errno(fmt::format("cannot {} {}", what, place.real), error);
    };
    while (!content.empty()) {
        const auto n = ::write(file.get(), content.data(), content.size());
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return give_up("write");
        content.remove_prefix(static_cast<std::size_t>(n));
    }
    if (attributes.owner) {
        struct stat now {};
        if (::fstat(file.get(), &now) == 0 && (now.st_uid != attributes.owner->first || now.st_gid != attributes.owner->second) &&
            ::fchown(file.get(), attributes.owner->first, attributes.owner->second) != 0) {
            return give_up("keep the owner of");
        }
    }
    if (::fchmod(file.get(), attributes.mode.value_or(0644) & 07777U) != 0) return give_up("set the mode of");
    if (::fsync(file.get()) != 0) return give_up("sync");
    if (::renameat(folder, temporary.c_str(), folder, place.name.c_str()) != 0) return give_up("replace");
    // An O_PATH descriptor can't be synced.
    const Descriptor opened{::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (opened.open()) ::fsync(opened.get());
    return {};
}

std::string backups_of(const Context& context) { return context.state_folder + "/backups"; }

// Saves what is at `place` (which may be nothing) durably, and gives the effect that brings it back.
result<json::object> saved(const Context& context, const Place& place, const std::string& after_hash) {
    json::object parameters{{"path", place.real}, {"after", after_hash}};
    auto before = read_at(place, max_copy_bytes);
    if (!before) return std::move(before).error();
    parameters["existed"] = before->exists;
    if (before->exists && !context.request.dry_run) {
        SystemFiles files;
        HEAL_TRY(files.make_folder(backups_of(context)));
        const std::string name = fmt::format("{}-{}", context.clock.wall().us, random_hex(8));
        HEAL_TRY(files.write_atomic(backups_of(context) + "/" + name, before->bytes, 0600));
        parameters["backup"] = name;
        parameters["sha256"] = sha256_hex(before->bytes);
        parameters["mode"] = static_cast<std::int64_t>(before->info.st_mode & 07777U);
        parameters["uid"] = static_cast<std::int64_t>(before->info.st_uid);
        parameters["gid"] = static_cast<std::int64_t>(before->info.st_gid);
    }
    return json::object{{"kind", "restore_file"}, {"parameters", std::move(parameters)}};
}


result<Plan> plan_read(Context& context, const FieldReader& in) {
    auto path = in.required_string("path");
    if (!path) return std::move(path).error();
    auto missing_ok = in.bool_or("missing_ok", false);
    if (!missing_ok) return std::move(missing_ok).error();
    Plan plan;
    plan.changes_world = false;
    plan.summary = "read " + *path;
    plan.capability = "read:" + *path;
    auto place = followed(context, *path, false, "read_file.path");
    if (!place) {
        if (place.error().code != errc::not_found || !*missing_ok) return std::move(place).error();
        plan.run = [](Context&) -> result<json::object> { return json::object{{"exists", false}, {"content", ""}}; };
        return plan;
    }
    plan.run = [place = *place, missing_ok = *missing_ok](Context&) -> result<json::object> {
        auto content = read_at(place, max_read_bytes);
        if (!content) return std::move(content).error();
        if (!content->exists && !missing_ok) return fail(errc::not_found, place.real + " does not exist");
        return json::object{{"exists", content->exists}, {"content", to_valid_utf8(content->bytes)},
                            {"mode", static_cast<std::int64_t>(content->info.st_mode & 07777U)},
                            {"modified_us", content->info.st_mtim.tv_sec * 1'000'000 + content->info.st_mtim.tv_nsec / 1000}};
    };
    return plan;
}

result<Plan> plan_change(
    Context& context, const std::string& path, std::string_view where, std::string bytes, std::optional<unsigned> mode
) {
    auto place = followed(context, path, true, where);
    if (!place) return std::move(place).error();
    const std::string after = sha256_hex(bytes);
    auto undo = saved(context, *place, after);
    if (!undo) return std::move(undo).error();
    Plan plan;
    plan.capability = "file:" + path;
    plan.undoable = true;
    plan.undo = std::move(*undo);
    plan.dry_result = {{"bytes", static_cast<std::int64_t>(bytes.size())}};
    plan.run = [place = *place, bytes = std::move(bytes), mode](Context&) -> result<json::object> {
        Attributes attributes{mode, std::nullopt};
        struct stat now {};
        if (::fstatat(place.folder->get(), place.name.c_str(), &now, AT_SYMLINK_NOFOLLOW) == 0) {
            if (!S_ISREG(now.st_mode)) return fail(errc::conflict, place.real + " is not a regular file");
            attributes.owner = {now.st_uid, now.st_gid};
            if (!mode) attributes.mode = now.st_mode & 07777U;
        }
        HEAL_TRY(write_at(place, bytes, attributes));
        return json::object{{"bytes", static_cast<std::int64_t>(bytes.size())}};
    };
    return plan;
}

result<Plan> plan_write(Context& context, const FieldReader& in) {
    auto path = in.required_string("path");
    if (!path) return std::move(path).error();
    auto content = in.required_string("content");
    if (!content) return std::move(content).error();
    std::optional<unsigned> mode;
    if (context.request.parameters.contains("mode")) {
        auto n = in.required_int("mode", 0, 07777);
        if (!n) return std::move(n).error();
        mode = static_cast<unsigned>(*n);
    }
    auto plan = plan_change(context, *path, "write_file.path", *content, mode);
    if (!plan) return std::move(plan).error();
    plan->summary = fmt::format("write {} ({} bytes)", *path, content->size());
    plan->shown = context.request.parameters;
    plan->shown["content"] = bounded(*content, 4096);
    return plan;
}

result<Plan> plan_copy(Context& context, const FieldReader& in) {
    auto from = in.required_string("from");
    if (!from) return std::move(from).error();
    auto to = in.required_string("to");
    if (!to) return std::move(to).error();
    auto source = followed(context, *from, false, "copy_file.from");
    if (!source) return std::move(source).error();
    auto content = read_at(*source, max_copy_bytes);
    if (!content) return std::move(content).error();
    if (!content->exists) return fail(errc::not_found, *from + " does not exist");
    auto plan = plan_change(context, *to, "copy_file.to", std::move(content->bytes), content->info.st_mode & 07777U);
    if (!plan) return std::move(plan).error();
    plan->summary = fmt::format("copy {} to {}", *from, *to);
    return plan;
}

result<Plan> plan_remove(Context& context, const FieldReader& in) {
    auto path = in.required_string("path");
    if (!path) return std::move(path).error();
    auto backup = in.bool_or("backup", true);
    if (!backup) return std::move(backup).error();
    auto place = place_of(context, *path, true, "remove_file.path");
    if (!place) return std::move(place).error();
    struct stat info {};
    const bool is_link = ::fstatat(place->folder->get(), place->name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(info.st_mode);
    Plan plan;
    plan.summary = "remove " + *path;
    plan.capability = "file:" + *path;
    plan.dry_result = {{"existed", true}};
    if (!*backup) {
        // To make room on a full disk: what is removed for good needs none for a copy.
    } else if (!is_link) {
        auto undo = saved(context, *place, "");
        if (!undo) return std::move(undo).error();
        plan.undoable = true;
        plan.undo = std::move(*undo);
    } else {
        std::array<char, 4096> buffer{};
        const auto n = ::readlinkat(place->folder->get(), place->name.c_str(), buffer.data(), buffer.size());
        plan.undoable = true;
        plan.undo = {{"kind", "restore_link"}, {"parameters", json::object{{"path", place->real}, {"target", json::string{buffer.data(), n > 0 ? static_cast<std::size_t>(n) : 0}}}}};
    }
    plan.run = [place = *place](Context&) -> result<json::object> {
        if (::unlinkat(place.folder->get(), place.name.c_str(), 0) == 0) return json::object{{"existed", true}};
        if (errno == ENOENT) return json::object{{"existed", false}};
        return fail_errno("cannot remove " + place.real, errno);
    };
    return plan;
}

result<void> move_once(const Place& from, const Place& to) {
    if (::syscall(SYS_renameat2, from.folder->get(), from.name.c_str(), to.folder->get(), to.name.c_str(), RENAME_NOREPLACE) == 0) return {};
    if (errno == EEXIST) return fail(errc::conflict, fmt::format("{} exists already; remove it first", to.real));
    return fail_errno(fmt::format("cannot move {} to {}", from.real, to.real), errno);
}

result<Plan> plan_move(Context& context, const FieldReader& in) {
    auto from = in.required_string("from");
    if (!from) return std::move(from).error();
    auto to = in.required_string("to");
    if (!to) return std::move(to).error();
    auto source = place_of(context, *from, true, "move_file.from");
    if (!source) return std::move(source).error();
    auto target = place_of(context, *to, true, "move_file.to");
    if (!target) return std::move(target).error();
    Plan plan;
    plan.summary = fmt::format("move {} to {}", *from, *to);
    plan.capability = "file:" + *from;
    plan.dry_result = {{"moved", true}};
    plan.undoable = true;
    plan.undo = {{"kind", "unmove_file"}, {"parameters", json::object{{"from", target->real}, {"to", source->real}}}};
    plan.run = [source = *source, target = *target](Context&) -> result<json::object> {
        HEAL_TRY(move_once(source, target));
        return json::object{{"moved", true}};
    };
    return plan;
}

bool exists_at(const Place& place) {
    struct stat info {};
    return ::fstatat(place.folder->get(), place.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
}

// Undoing twice does no more than once: a rollback that was interrupted is simply run again.
result<Plan> plan_unmove(Context& context, const FieldReader& in) {
    auto from = in.required_string("from");
    if (!from) return std::move(from).error();
    auto to = in.required_string("to");
    if (!to) return std::move(to).error();
    Plan plan;
    plan.summary = fmt::format("move {} back to {}", *from, *to);
    auto source = place_of(context, *from, true, "unmove_file.from");
    if (!source) return std::move(source).error();
    auto target = place_of(context, *to, true, "unmove_file.to");
    if (!target) return std::move(target).error();
    plan.run = [source = *source, target = *target](Context&) -> result<json::object> {
        if (!exists_at(source) && exists_at(target)) return json::object{{"moved", false}};
        HEAL_TRY(move_once(source, target));
        return json::object{{"moved", true}};
    };
    return plan;
}

result<Plan> plan_restore(Context& context, const FieldReader& in) {
    auto path = in.required_string("path");
    if (!path) return std::move(path).error();
    auto existed = in.bool_or("existed", false);
    if (!existed) return std::move(existed).error();
    auto backup = in.string_or("backup", "");
    if (!backup) return std::move(backup).error();
    if (backup->find('/') != std::string::npos || (!backup->empty() && backup->front() == '.')) return fail(errc::invalid_input, "restore_file.backup: must be a plain name");
    auto place = place_of(context, *path, true, "restore_file.path");
    if (!place) return std::move(place).error();
    Plan plan;
    plan.summary = (*existed ? "restore " : "remove again ") + *path;
    plan.run = [place = *place, existed = *existed, name = *backup, p = context.request.parameters](Context& c) -> result<json::object> {
        ::unlinkat(place.folder->get(), temporary_of(place).c_str(), 0);
        auto now = read_at(place, max_copy_bytes);
        if (!now) return std::move(now).error();
        const std::string now_hash = now->exists ? sha256_hex(now->bytes) : "";
        const std::string_view after = string_at(p, "after"), before = existed ? string_at(p, "sha256") : std::string_view{};
        const bool same_mode = !existed || (now->exists && static_cast<std::int64_t>(now->info.st_mode & 07777U) == int_at(p, "mode"));
        if (now_hash == before && same_mode) return json::object{{"restored", false}};
        // Somebody changed it after the strategy did: their work is not thrown away.
        if (now_hash != after && now_hash != before) {
            return fail(errc::conflict, fmt::format("{} was changed by someone else since; what it held before is in {}", place.real, existed ? backups_of(c) + "/" + name : "nothing: it did not exist"));
        }
        if (!existed) {
            if (::unlinkat(place.folder->get(), place.name.c_str(), 0) != 0 && errno != ENOENT) return fail_errno("cannot remove " + place.real, errno);
            return json::object{{"restored", true}};
        }
        SystemFiles files;
        auto bytes = files.read(backups_of(c) + "/" + name, max_copy_bytes);
        if (!bytes) return std::move(bytes).error();
        if (sha256_hex(*bytes) != before) return fail(errc::corrupt, fmt::format("the backup {}/{} does not hold what was saved", backups_of(c), name));
        const Attributes attributes{static_cast<unsigned>(int_at(p, "mode", 0644)), std::pair{static_cast<uid_t>(int_at(p, "uid")), static_cast<gid_t>(int_at(p, "gid"))}};
        HEAL_TRY(write_at(place, *bytes, attributes));
        return json::object{{"restored", true}};
    };
    return plan;
}

result<Plan> plan_restore_link(Context& context, const FieldReader& in) {
    auto path = in.required_string("path");
    if (!path) return std::move(path).error();
    auto target = in.required_string("target");
    if (!target) return std::move(target).error();
    auto place = place_of(context, *path, true, "restore_link.path");
    if (!place) return std::move(place).error();
    Plan plan;
    plan.summary = fmt::format("link {} to {} again", *path, *target);
    plan.run = [place = *place, target = *target](Context&) -> result<json::object> {
        if (::symlinkat(target.c_str(), place.folder->get(), place.name.c_str()) == 0) return json::object{{"restored", true}};
        if (errno == EEXIST) return json::object{{"restored", false}};
        return fail_errno("cannot link " + place.real, errno);
    };
    return plan;
}

result<Plan> plan_list(Context& context, const FieldReader& in) {
    auto path = in.required_string("path");
    if (!path) return std::move(path).error();
    // The folder itself or anything right in it must be granted.
    std::string folder = *path;
    while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
    const Grants& grants = context.request.grants;
    if (!is_clean_path(folder)) return fail(errc::invalid_input, "list_files.path: must be an absolute path");
    if (!grants.file(folder, false) && !grants.file(folder + "/x", false)) return denied("to list " + folder, "read:" + folder + "/*");
    auto opened = std::make_shared<Descriptor>(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!opened->open()) return fail_errno("cannot open the folder " + folder, errno);
    const std::string real = real_of(opened->get());
    if (!grants.everything() && real != folder) {
        const Grants more = resolved(grants);
        if (!more.file(real, false) && !more.file(real + "/x", false)) return denied(fmt::format("{} leads to {}, which", folder, real), "read:" + real + "/*");
    }
    Plan plan;
    plan.changes_world = false;
    plan.summary = "list " + folder;
    plan.capability = "read:" + folder + "/*";
    plan.run = [opened, folder](Context&) -> result<json::object> {
        DIR* dir = ::fdopendir(opened->get());
        if (!dir) return fail_errno("cannot list " + folder, errno);
        opened->release();
        std::vector<std::string> names;
        bool more = false;
        while (const dirent* entry = ::readdir(dir)) {
            const std::string name = entry->d_name;
            if (name == "." || name == "..") continue;
            if (names.size() >= 1000) {
                more = true;
                break;
            }
            names.push_back(name);
        }
        std::sort(names.begin(), names.end());
        json::array files;
        for (const std::string& name : names) {
            struct stat info {};
            if (::fstatat(::dirfd(dir), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
            const char* type = S_ISREG(info.st_mode) ? "file" : S_ISDIR(info.st_mode) ? "folder" : S_ISLNK(info.st_mode) ? "link" : "other";
            files.push_back(json::object{{"name", to_valid_utf8(name)}, {"type", type}, {"bytes", static_cast<std::int64_t>(info.st_size)},
                {"modified_us", info.st_mtim.tv_sec * 1'000'000 + info.st_mtim.tv_nsec / 1000}});
        }
        ::closedir(dir);
        return json::object{{"files", std::move(files)}, {"more", more}};
    };
    return plan;
}

constexpr Kind kinds[] = {
    {"read_file", plan_read, false, "path missing_ok"},
    {"write_file", plan_write, false, "path content mode"},
    {"copy_file", plan_copy, false, "from to"},
    {"move_file", plan_move, false, "from to"},
    {"remove_file", plan_remove, false, "path backup"},
    {"list_files", plan_list, false, "path"},
    {"restore_file", plan_restore, true, "path existed backup sha256 after mode uid gid"},
    {"restore_link", plan_restore_link, true, "path target"},
    {"unmove_file", plan_unmove, true, "from to"},
};

}  // namespace

std::span<const Kind> file_kinds() { return kinds; }

result<void> write_small(const std::string& path, std::string_view content, unsigned mode) {
    const auto slash = path.find_last_of('/');
    Place place;
    place.folder = std::make_shared<Descriptor>(::open(slash == 0 ? "/" : path.substr(0, slash).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    place.name = path.substr(slash + 1);
    place.real = path;
    if (!place.folder->open()) return fail_errno("cannot open the folder of " + path, errno);
    return write_at(place, content, Attributes{mode, std::nullopt});
}

}  // namespace heal::effects
