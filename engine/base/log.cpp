#include "base/log.hpp"

#include "base/clock.hpp"

#include <boost/json/serialize.hpp>
#include <boost/json/string.hpp>
#include <boost/json/value.hpp>

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>

namespace heal::log {
namespace {

class JsonFormatter final : public spdlog::formatter {
public:
    explicit JsonFormatter(bool journal) : journal_(journal) {}

    void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
        const auto us = std::chrono::duration_cast<Duration>(message.time.time_since_epoch()).count();
        const auto level = spdlog::level::to_string_view(message.level);
        // sd-daemon(3): priority prefix that journald understands.
        static constexpr const char* priority[] = {"<7>", "<7>", "<6>", "<4>", "<3>", "<2>", "<6>"};
        std::string line = journal_ ? priority[message.level] : "";
        line += R"({"ts":")" + to_rfc3339(Time{us}) + R"(","level":")";
        line.append(level.data(), level.size());
        line += R"(","logger":"heald","msg":)";
        line += boost::json::serialize(boost::json::string(message.payload.data(), message.payload.size()));
        line += "}\n";
        out.append(line.data(), line.data() + line.size());
    }
    std::unique_ptr<spdlog::formatter> clone() const override {
        return std::make_unique<JsonFormatter>(journal_);
    }

private:
    bool journal_;
};

}  // namespace

bool set_up(std::string_view program, std::string_view level, Format format) {
    auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    const bool journal = std::getenv("JOURNAL_STREAM") != nullptr;
    const bool as_json =
        format == Format::json || (format == Format::automatic && ::isatty(STDERR_FILENO) == 0);
    if (as_json)
        sink->set_formatter(std::make_unique<JsonFormatter>(journal));
    else
        sink->set_formatter(std::make_unique<spdlog::pattern_formatter>(
            "%H:%M:%S.%e %-5l %v", spdlog::pattern_time_type::local
        ));
    auto logger = std::make_shared<spdlog::logger>(std::string{program}, std::move(sink));
    const auto parsed = spdlog::level::from_str(std::string{level});
    if (parsed == spdlog::level::off && level != "off") return false;
    logger->set_level(parsed);
    logger->flush_on(spdlog::level::trace);
    spdlog::set_default_logger(std::move(logger));
    return true;
}

void write(Priority priority, fmt::string_view format, fmt::format_args args) noexcept {
    static constexpr spdlog::level::level_enum levels[] = {
        spdlog::level::trace,
        spdlog::level::debug,
        spdlog::level::info,
        spdlog::level::warn,
        spdlog::level::err};
    const auto level = levels[static_cast<std::size_t>(priority)];
    auto* logger = spdlog::default_logger_raw();
    if (!logger->should_log(level)) return;
    try {
        logger->log(level, fmt::vformat(format, args));
    } catch (...) {
        // No memory, or a value that can't be formatted: nothing can be told of it.
    }
}

}  // namespace heal::log
