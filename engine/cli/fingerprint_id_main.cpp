// The fingerprint commands alone, for the evaluator and the tests where the whole of healctl is not wanted.
#include "cli/fingerprint_id.hpp"

#include <unistd.h>

#include <cstdio>
#include <string_view>

int main(int argc, char** argv) {
    heal::cli::FingerprintIdOptions options;
    bool explain = false;
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        if (word == "--pattern") options.pattern = true;
        if (word == "--event") options.event = true;
        if (word == "explain") explain = true;
        if (word == "--known" && i + 1 < argc) {
            auto known = heal::cli::read_known_patterns(argv[++i]);
            if (!known) {
                std::fprintf(stderr, "fingerprint_id: %s\n", known.error().text.c_str());
                return 1;
            }
            options.known = std::move(*known);
        }
    }
    const auto done = explain ? heal::cli::fingerprint_explain(STDIN_FILENO, STDOUT_FILENO, options)
                              : heal::cli::fingerprint_id(STDIN_FILENO, STDOUT_FILENO, options);
    if (!done) {
        std::fprintf(stderr, "fingerprint_id: %s\n", done.error().text.c_str());
        return 1;
    }
    return 0;
}
