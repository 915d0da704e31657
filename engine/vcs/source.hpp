// From a stack trace to the code that it names: file and line of each frame, the function around it, who
// changed it last.
#pragma once

#include "base/error.hpp"
#include "vcs/repository.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace heal::vcs {

/// Where a frame is, as the trace tells it.
struct Place {
    std::string file;   ///< as in the trace: absolute, relative or a base name
    unsigned line = 0;  ///< 0: unknown
    std::string function;
};

/// The frames that name a file, innermost first, at most 64. Python, Java/Kotlin, JavaScript, Go, Rust, C#,
/// Ruby, PHP, C/C++ (gdb, ASan, assert). Linear; the first 64 KiB. Pure.
std::vector<Place> places_of(std::string_view stack_trace);

struct Excerpt {
    std::string file;  ///< in the repository
    unsigned first_line = 1;
    unsigned line = 0;               ///< of the frame
    std::string function;            ///< as far as it is known
    std::string text;                ///< whole lines
    std::vector<BlameLine> history;  ///< who changed these lines, newest first, at most 5
};

/// The functions around the frames that are in the repository, innermost first, each once; a function longer
/// than 200 lines is cut around its line. Where the line of a frame is not in the function that it names, the
/// only function of that name in its file counts.
/// @param max_bytes  of all texts together
result<std::vector<Excerpt>> excerpts(
    Repository& repository, const std::string& commit, const std::vector<Place>& places, std::size_t max_bytes
);

/// The file of the repository that a place means: the longest common end of the paths, unique; "" when there
/// is none.
std::string file_of(const std::vector<std::string>& files, std::string_view file);

}  // namespace heal::vcs
