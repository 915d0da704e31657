// The frame loops of the child processes: one serves an artifact, one performs effects. Both end when the other side closes the
// descriptor. Single-threaded on purpose: a message costs one read and one write, no hand-over.
#pragma once

#include "base/clock.hpp"
#include "base/error.hpp"
#include "host/artifact.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace heal {

class Performer;

using Loader = std::function<result<std::unique_ptr<Artifact>>(ScriptLibraries libraries)>;

/// Says hello, waits for `load`, loads, describes, then answers calls until end of file. Returns the exit code.
/// @param missing      protections that confine() had to leave out
/// @param guard_timer  ends the process 50 ms after a call's deadline, for artifacts that can't be entered concurrently (scripts in
///                     a C function of Lua)
int serve_artifact(int fd, const Loader& load, const std::vector<std::string>& missing, bool guard_timer, const Clock& clock);

/// Performs what it is told until end of file; then whatever it runs is killed. Returns the exit code.
int serve_effects(int fd, Performer& performer);

}  // namespace heal
