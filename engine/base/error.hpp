// Errors as values. An expected failure is a result<T>: a code for the machine and one sentence for the
// person that names the place and the remedy. It deliberately holds no stack trace and does not log: who
// decides on the error logs it once.
#pragma once

#include <boost/system/result.hpp>

#include <stdexcept>
#include <string>
#include <utility>

namespace heal {

/// What went wrong, as far as a caller can act on it. One set for all layers.
enum class errc {
    invalid_input = 1,  ///< the caller's data is wrong; the text names the place and what is allowed
    not_found,          ///< the named thing does not exist
    conflict,           ///< it exists already, or its state does not allow this
    denied,             ///< a guard, capability or permission forbids it
    overloaded,         ///< a bounded queue is full; try again later
    timeout,            ///< the deadline passed before an answer
    cancelled,          ///< someone asked to stop
    unavailable,        ///< a peer (database, child, service) cannot be reached now
    io,                 ///< the operating system refused; the text holds errno's words
    protocol,           ///< a peer sent something that breaks the protocol
    corrupt,            ///< stored data does not pass its check
    internal            ///< a defect of heald itself
};

/// Short stable name of a code, e.g. "not_found"; used in logs and problem+json.
const char* to_string(errc code) noexcept;

struct Error {
    errc code = errc::internal;
    std::string text;  ///< one sentence, no trailing dot, UTF-8
};

/// Thrown by result<T>::value() and by constructors at start-up; never crosses a layer on purpose.
struct ErrorException : std::runtime_error {
    explicit ErrorException(Error e) : std::runtime_error(e.text), error(std::move(e)) {}
    Error error;
};

[[noreturn]] void throw_exception_from_error(const Error& error, const boost::source_location& where);

template <class T>
using result = boost::system::result<T, Error>;

/// `return fail(errc::not_found, "strategy 'x' is not loaded")`.
inline Error fail(errc code, std::string text) { return Error{code, std::move(text)}; }

/// `fail(errc::io, "cannot open f")` with the words of errno appended.
Error fail_errno(std::string what, int error_number);

}  // namespace heal

/// Leaves the function with the error of `expr`, or goes on. For result<void> and result<T> whose value isn't
/// needed.
#define HEAL_TRY(expr)                                         \
    do {                                                       \
        if (auto heal_try_result = (expr); !heal_try_result) { \
            return std::move(heal_try_result).error();         \
        }                                                      \
    } while (false)

#define HEAL_CO_TRY(expr)                                            \
    do {                                                             \
        if (auto heal_co_try_result = (expr); !heal_co_try_result) { \
            co_return std::move(heal_co_try_result).error();         \
        }                                                            \
    } while (false)
