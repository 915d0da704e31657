// Strategies for the tests of runner/ and sdk.hpp: one of each kind of thing a strategy does.
#include <heal/sdk.hpp>

#include <stdexcept>

#ifndef SAMPLE_VERSION
#define SAMPLE_VERSION "1.0.0"
#endif

using namespace std::chrono_literals;

struct sample {
    static constexpr heal::descriptor about{
        .name = "sample",
        .version = SAMPLE_VERSION,
        .summary = "Does what its configuration says",
        .priority = 70,
        .risk = heal::risk::safe,
        .idempotent = true,
        .reversible = true,
        .timeout = 5s,
        .matches = R"([{"service": "cart*", "level": "error"}])",
        .capabilities = {"exec:/bin/*", "file:{target.folder}/**"}};
    static heal::parameters parameters() {
        return {
            heal::text("do")
                .one_of(
                    {"nothing", "exec", "touch", "write", "throw", "crash", "sleep", "denied", "loop", "log"}
                )
                .by_default("nothing"),
            heal::text("path").by_default(""),
            heal::integer("n").range(0, 10).by_default(3).unit("s")};
    }
    explicit sample(const heal::json& config) : config_(config) {}

    double assess(const heal::request& rq, heal::call&) { return rq.service() == "cart" ? 0.75 : 0.1; }

    heal::outcome execute(const heal::request& rq, heal::call& call) {
        const std::string what = config_["do"].string_or("");
        if (what == "exec") {
            const auto r = call.exec({.argv = {"/bin/echo", "hello"}, .inverse = {"/bin/echo", "back"}});
            return r.ok() ? heal::outcome::succeeded(r.output) : heal::outcome::failed(r.error_output);
        }
        if (what == "touch") {  // cannot be taken back
            const auto r = call.exec({.argv = {"/bin/touch", config_["path"].string_or("")}});
            return r.ok() ? heal::outcome::succeeded("touched") : heal::outcome::failed(r.error_output);
        }
        if (what == "write") call.write_file(config_["path"].string_or(""), "after " + rq.attempt());
        if (what == "denied") call.write_file("/etc/heal-test-denied", "x");
        if (what == "throw") throw std::runtime_error("thrown on purpose");
        if (what == "crash") *static_cast<volatile int*>(nullptr) = 1;
        if (what == "sleep") call.sleep(std::chrono::hours(1));
        while (what == "loop" && !call.is_cancelled()) {
        }
        if (what == "loop") return heal::outcome::cancelled();
        if (what == "log") {
            call.info("a line", heal::json::object({{"n", config_["n"]}}));
            call.progress(0.5, "half");
            call.state_put("seen", "yes");
            return heal::outcome::succeeded(call.state_get("seen").value_or("no"));
        }
        return heal::outcome::succeeded(
            "did " + what, heal::json::object({{"n", config_["n"]}, {"version", SAMPLE_VERSION}})
        );
    }
    heal::outcome verify(const heal::request&, heal::call&) {
        if (config_["do"].view() == "crash") *static_cast<volatile int*>(nullptr) = 1;
        return heal::outcome::succeeded("all is well");
    }

private:
    heal::json config_;
};

HEAL_PLUGIN(sample);
