// `healctl fingerprint id` and `explain`: lines in, ids out, streaming; no heald needed.
#pragma once

namespace heal::cli {

/// Reads lines from `in`, writes one id (16 hex digits) per line to `out`. Returns the exit code.
int fingerprint_id(int in, int out);
/// For each line: header parts, pattern, id.
int fingerprint_explain(int in, int out);

}  // namespace heal::cli
