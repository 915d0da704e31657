// `healctl fingerprint id` and `explain` as plain functions over file descriptors. Deliberately without
// option parsing: healctl and the tests call the same code.
#pragma once

#include "base/error.hpp"
#include "fingerprint/neighbours.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace heal::cli {

struct FingerprintIdOptions {
    std::string service;   ///< part of every id; empty for bare lines
    bool pattern = false;  ///< print "id<TAB>pattern"
    bool event = false;    ///< explain only: all input is one event, its first line the message, the rest its
                           ///< stack trace
    std::vector<fingerprint::KnownPattern> known;  ///< explain only: patterns whose nearest are printed
    unsigned threads = 0;  ///< id only: 0 means the cores this process may use, at most 16
};

/// Reads lines from `in` and writes one id per line to `out`, in order, until the end of input. A line that
/// has arrived whole is answered before the next read blocks. A line beyond 1 MiB is decided by its first
/// MiB. Last line may lack its newline.
/// @return lines written. errc::io when a read or write fails.
result<std::uint64_t> fingerprint_id(int in, int out, const FingerprintIdOptions& options);

/// Reads lines from `in` and writes for each how its id came about: header fields, pattern, masks with their
/// rules, frames, and the known patterns nearest to it. Each line by itself, or all of them as one event
/// (options.event, at most 1 MiB). errc::io when a read or write fails.
result<std::uint64_t> fingerprint_explain(int in, int out, const FingerprintIdOptions& options);

/// Reads "id<TAB>pattern" lines, as `fingerprint id --pattern` prints them; each pattern once. errc::io when
/// the file can't be read.
result<std::vector<fingerprint::KnownPattern>> read_known_patterns(const std::string& file);

}  // namespace heal::cli
