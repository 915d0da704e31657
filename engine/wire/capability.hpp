// Capabilities: what a strategy may ask its context for. A strategy declares them, the engine fills their placeholders from the
// inventory (never from log text) and passes them with each call as grants, the host checks each effect against them. Text
// matching only: symbolic links are the business of who opens a file (host/).
//
//   exec:/usr/sbin/nginx                  that program, any arguments          exec:*   any program
//   exec:/usr/bin/systemctl restart *     exactly these arguments, each a glob; a last word "..." takes any number
//   file:/etc/app/**   read:/var/log/*    files to change (and read); to read only
//   net:127.0.0.1:6379  net:*.local:*     connect to host:port (no name lookup is done for the check); net:unix:/run/x.sock
//   signal:pidfile:/run/x.pid             the process a pid file names         signal:command:/usr/sbin/nginx   by its argv[0]
//   systemd:nginx.service  docker:cart-*  units and containers                 sql:psql:postgres://127.0.0.1/shop
//
// Globs: '?' one character, '*' any within a path component, '**' any at all; in net, systemd, docker and sql '*' is any at all.
#pragma once

#include "base/error.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace heal {

/// Whether a declared capability is of a known form; it may hold placeholders {target.…}. errc::invalid_input, without a path.
result<void> check_capability(std::string_view capability);

/// Glob as above. `separator` 0: '*' passes every character. Linear in practice, quadratic at worst.
bool glob_match(std::string_view pattern, std::string_view text, char separator);

/// Absolute, no "." or ".." or empty component, no NUL, at most 4095 bytes.
bool is_clean_path(std::string_view path);

/// The grants of one call. Each method answers "is it covered"; what is not covered is denied.
class Grants {
public:
    Grants() = default;
    explicit Grants(std::vector<std::string> patterns);
    /// Everything: for undoing recorded effects, whose capability was checked when they were made, and for trials by hand.
    static Grants all();

    bool exec(const std::vector<std::string>& argv) const;
    bool file(std::string_view path, bool write) const;
    bool net(std::string_view host, std::uint16_t port) const;
    bool net_unix(std::string_view path) const;
    bool signal_pid_file(std::string_view path) const;
    bool signal_command(std::string_view argv0) const;
    bool named(std::string_view kind, std::string_view name) const;  ///< systemd, docker, sql
    bool everything() const { return all_; }
    const std::vector<std::string>& patterns() const { return patterns_; }

private:
    template <class F>
    bool any(std::string_view kind, F&& fits) const;
    std::vector<std::string> patterns_;
    bool all_ = false;
};

}  // namespace heal
