// Numbered points at which a test can kill this process or make an operation fail. They exist only in builds
// with HEAL_FAULTS (the preset dev); elsewhere pass() is a constant and leaves no code.
//
//   HEAL_FAULT=NAME:N:kill   SIGKILL when the point NAME is passed for the Nth time (from 1)
//   HEAL_FAULT=NAME:N:fail   the operation behind it fails once, where the point can
//   HEAL_FAULT_LOG=FILE      each passing appends the name, so that a test learns what there is
#pragma once

namespace heal::faults {

#ifdef HEAL_FAULTS
/// True: fail here. @thread any
bool pass(const char* name) noexcept;
#else
constexpr bool pass(const char*) noexcept { return false; }
#endif

}  // namespace heal::faults
