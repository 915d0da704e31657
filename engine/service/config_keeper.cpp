#include "service/config_keeper.hpp"

#include "base/id.hpp"
#include "base/log.hpp"
#include "base/tasks.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

namespace heal {
namespace {

namespace asio = boost::asio;

std::vector<std::string> texts_at(const json::object& object, std::string_view key) {
    std::vector<std::string> out;
    for (const auto& item : array_at(object, key)) {
        if (item.is_string()) out.emplace_back(view(item.get_string()));
    }
    return out;
}

const json::object& config_of(const ServiceSettings& service) { return object_at(service.facts, "config"); }

}  // namespace

std::string ConfigKeeper::folder_name(std::string_view path) {
    std::string out;
    for (const char c : path.substr(path.starts_with('/') ? 1 : 0)) {
        if (c == '%')
            out += "%25";
        else
            out += c == '/' ? '%' : c;
    }
    if (out == "." || out == "..") out.replace(0, 1, "%2E");
    return out;
}

std::string ConfigKeeper::versions_of(const std::string& folder, const std::string& service) {
    return folder + "/" + folder_name(service);
}

asio::awaitable<void> ConfigKeeper::run() {
    while (!stopping_) {
        co_await look();
        if (stopping_) break;
        timer_.expires_after(interval);
        co_await due(timer_);
    }
}

void ConfigKeeper::stop() {
    stopping_ = true;
    timer_.cancel();
}

asio::awaitable<void> ConfigKeeper::look() {
    const auto settings = settings_();  // held: a reload may replace it meanwhile
    for (const auto& service : settings->services) {
        if (!texts_at(config_of(service), "files").empty()) co_await look_at(service);
    }
}

asio::awaitable<void> ConfigKeeper::look_at(const ServiceSettings& service) {
    const auto files = texts_at(config_of(service), "files");
    const auto stamp_of = [&files] {
        std::string stamp;
        for (const auto& file : files) {
            struct stat st {};
            if (::stat(file.c_str(), &st) != 0) return std::string{};
            stamp +=
                fmt::format("{}:{}:{}.{};", st.st_ino, st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
        }
        return stamp;
    };
    auto& seen = seen_[service.name + "\n" + service.environment];
    const std::string stamp = stamp_of();
    if (stamp.empty()) co_return;  // a file is missing: nothing whole to keep
    if (stamp != seen.stamp) seen = Seen{stamp, Duration{0}, false};
    if (seen.kept) co_return;

    auto probes = service.probes;
    if (auto check = texts_at(config_of(service), "check"); !check.empty()) {
        ProbeSettings probe;
        probe.command = std::move(check);
        probe.timeout = std::chrono::milliseconds{10'000};
        probes.push_back(std::move(probe));
    }
    if (probes.empty()) co_return;  // nobody can say that it is healthy
    const Evidence evidence = co_await prober_.check(std::move(probes));
    if (evidence.negative > 0 || evidence.positive == 0 || stamp_of() != stamp) {
        seen.since = Duration{0};
        co_return;
    }
    const Duration now = clock_.steady();
    if (seen.since == Duration{0}) seen.since = now;
    // The first version ever is kept at once: there is nothing better to fall back to.
    const bool is_first =
        names_in(versions_of(folder_, service.name) + "/" + folder_name(files.front())).empty();
    if (!is_first && now - seen.since < settle) co_return;
    seen.kept = true;
    for (const auto& file : files) seen.kept = keep(service, file) && seen.kept;
}

std::vector<std::string> ConfigKeeper::names_in(const std::string& folder) const {
    auto names = files_.list(folder);
    return names ? std::move(*names) : std::vector<std::string>{};
}

bool ConfigKeeper::keep(const ServiceSettings& service, const std::string& file) {
    const auto content = files_.read(file, max_file_bytes);
    if (!content) {
        log::warn("{} of {} is not kept: {}", file, service.name, content.error().text);
        return true;  // asking again changes nothing until the file changes
    }
    const std::string folder = versions_of(folder_, service.name) + "/" + folder_name(file);
    if (auto made = files_.make_folder(folder); !made) {
        log::warn("versions of {} cannot be kept: {}", file, made.error().text);
        return false;
    }
    const auto names = names_in(folder);
    const std::string hash = sha256_hex(*content).substr(0, 16);
    if (!names.empty() && names.back().ends_with("-" + hash)) return true;
    struct stat st {};
    const unsigned mode = ::stat(file.c_str(), &st) == 0 ? st.st_mode & 07777U : 0600U;
    if (auto written =
            files_.write_atomic(fmt::format("{}/{:020}-{}", folder, clock_.wall().us, hash), *content, mode);
        !written) {
        log::warn("a version of {} cannot be kept: {}", file, written.error().text);
        return false;
    }
    log::info("kept the configuration {} of {}, which is healthy with it", file, service.name);
    for (std::size_t i = 0; names.size() + 1 - i > max_versions; ++i)
        (void)files_.remove(folder + "/" + names[i]);
    return true;
}

}  // namespace heal
