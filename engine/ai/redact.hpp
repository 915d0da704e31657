// Takes secrets and personal data out of text before it leaves this machine: keys and tokens by their form,
// passwords by the word before them, personal data by form and check digits, and what looks random. Finds
// them also over a line break and in base64. It errs on the side of taking out. All expressions are RE2's:
// linear time on hostile text.
#pragma once

#include "base/error.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace heal::ai {

struct RedactOptions {
    std::vector<std::string> custom;  ///< RE2; group 1, when there is one, is what is taken out
    std::vector<std::string> keep;    ///< globs (* and ?) of words that stay
    bool private_addresses = false;   ///< also IP addresses of private networks
};

/// What kind of text it is: in code `password = read_password()` is no password, in a log `password = x` is
/// one.
enum class TextKind : std::uint8_t { log, code };

/// The compiled rules. @thread any
class Redactor {
public:
    /// errc::invalid_input names the expression that RE2 does not take.
    static result<Redactor> create(const RedactOptions& options);
    ~Redactor();
    Redactor(Redactor&&) noexcept;
    Redactor& operator=(Redactor&&) noexcept;

private:
    friend class Redaction;
    struct Rules;
    explicit Redactor(std::unique_ptr<Rules> rules);
    std::unique_ptr<Rules> rules_;
};

/// What was taken out for one question: the same secret has the same placeholder in all of its parts.
/// @thread one at a time
class Redaction {
public:
    /// @param redactor  outlives it
    explicit Redaction(const Redactor& redactor) : redactor_(redactor) {}

    /// The text with "[redacted:KIND:N]" for each finding. A text that went through this stays as it is.
    /// errc::invalid_input larger than 4 MiB; errc::internal: the text must not be sent.
    result<std::string> take_out(std::string_view text, TextKind kind);

    /// What stands under a name, as in JSON: all of it when the name tells of a secret. Errors as of
    /// take_out().
    result<std::string> take_out_value(std::string_view name, std::string_view value);

    /// Finds by kind, each secret counted as often as it stood there.
    const std::map<std::string, std::uint64_t>& report() const { return report_; }

private:
    std::string placeholder(const std::string& kind, std::string_view secret);

    const Redactor& redactor_;
    std::map<std::string, std::uint64_t> report_;
    std::map<std::string, std::string, std::less<>> known_;  // secret -> placeholder
    std::map<std::string, unsigned> last_;                   // kind -> last number
};

}  // namespace heal::ai
