#include "base/error.hpp"

#include <cstring>

namespace heal {

const char* to_string(errc code) noexcept {
    switch (code) {
        case errc::invalid_input:
            return "invalid_input";
        case errc::not_found:
            return "not_found";
        case errc::conflict:
            return "conflict";
        case errc::denied:
            return "denied";
        case errc::overloaded:
            return "overloaded";
        case errc::timeout:
            return "timeout";
        case errc::cancelled:
            return "cancelled";
        case errc::unavailable:
            return "unavailable";
        case errc::io:
            return "io";
        case errc::protocol:
            return "protocol";
        case errc::corrupt:
            return "corrupt";
        case errc::internal:
            return "internal";
    }
    return "internal";
}

void throw_exception_from_error(const Error& error, const boost::source_location&) {
    throw ErrorException(error);
}

Error fail_errno(std::string what, int error_number) {
    what += ": ";
    what += std::strerror(error_number);
    return Error{errc::io, std::move(what)};
}

}  // namespace heal
