#include "ai/redact.hpp"

#include "core/matcher.hpp"

#include <fmt/format.h>
#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <optional>

namespace heal::ai {
namespace {

using std::string_view;

constexpr std::size_t max_text = 4U << 20U;

/// A finding: [begin, end) of the text.
struct Find {
    std::size_t begin = 0, end = 0;
    std::string kind;
};

bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_alnum(char c) { return is_upper(c) || is_lower(c) || is_digit(c); }

std::string lower(string_view text) {
    std::string out{text};
    for (char& c : out) c = is_upper(c) ? static_cast<char>(c - 'A' + 'a') : c;
    return out;
}

// --- by form: what stands here is a secret wherever it stands. Prefixes as their issuers publish them.

struct Form {
    const char* kind;
    const char* expression;  ///< group 1 is the secret
};
constexpr Form forms[] = {
    {"private_key",
     R"((-----BEGIN[ A-Z0-9]*PRIVATE KEY(?: BLOCK)?-----(?s:.*?)(?:-----END[ A-Z0-9]*PRIVATE KEY(?: BLOCK)?-----|\z)))"},
    {"private_key", R"((PuTTY-User-Key-File-(?s:.*?)(?:Private-MAC: ?[0-9a-f]+|\z)))"},
    {"aws_key", R"(\b((?:AKIA|ASIA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA|ABIA|ACCA)[A-Z0-9]{16})\b)"},
    {"gcp_key", R"(\b(AIza[0-9A-Za-z_-]{35}))"},
    {"gcp_key", R"(\b(ya29\.[0-9A-Za-z_-]{20,}))"},
    {"gcp_key", R"(\b(GOCSPX-[0-9A-Za-z_-]{20,}))"},
    {"azure_key", R"((?i)\b(?:AccountKey|SharedAccessKey)=([A-Za-z0-9+/]{20,}={0,2}))"},
    {"github_token", R"(\b((?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{20,255}))"},
    {"github_token", R"(\b(github_pat_[A-Za-z0-9_]{20,255}))"},
    {"gitlab_token", R"(\b((?:glpat|gldt|glrt|glcbt|glptt|glft|glsoat|gloas)-[A-Za-z0-9_-]{16,}))"},
    {"slack_token", R"(\b(xox[abeoprs](?:\.xox[a-z])?-[A-Za-z0-9-]{8,}))"},
    {"slack_token", R"(\b(xapp-[0-9]-[A-Za-z0-9-]{10,}))"},
    {"slack_token", R"(hooks\.slack\.com/(?:services|workflows)/([A-Za-z0-9/_-]{16,}))"},
    {"stripe_key", R"(\b((?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,}))"},
    {"stripe_key", R"(\b(whsec_[A-Za-z0-9+/=]{16,}))"},
    {"openai_key", R"(\b(sk-(?:[a-z]+-)?(?:[a-z0-9]+-)?[A-Za-z0-9_-]{16,}))"},
    {"api_key", R"(\b(hf_[A-Za-z0-9]{20,}))"},
    {"api_key", R"(\b(npm_[A-Za-z0-9]{30,}))"},
    {"api_key", R"(\b(pypi-[A-Za-z0-9_-]{20,}))"},
    {"api_key", R"(\b(SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}))"},
    {"api_key", R"(\b(dop_v1_[a-f0-9]{32,}))"},
    {"api_key", R"(\b(hv[sb]\.[A-Za-z0-9_-]{20,}))"},
    {"jwt", R"(\b(eyJ[A-Za-z0-9_-]{6,}\.eyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?))"},
    {"jwt", R"(\b(eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}))"},
};

// --- by the word before

constexpr Form marked[] = {
    {"authorization",
     R"re((?i)\b(?:proxy-|x-)?authori[sz]ation\\*["']?\s*(?:[:=]|=>)\s*\\*["']?((?:bearer|basic|digest|token|negotiate|apikey|aws4-hmac-sha256)\s+[^\r\n"'\\]+|[^\s"'\\,;]{3,}))re"},
    {"authorization", R"re((?i)\bbearer\s+([A-Za-z0-9._~+/=-]{8,}))re"},
    {"cookie", R"re((?i)\b(?:set-)?cookie\\*["']?\s*(?:[:=]|=>)\s*\\*["']?([^\r\n"'\\]{3,}))re"},
    {"connection",
     R"re((?i)\b(?:postgres(?:ql)?|mysql|mariadb|mongodb(?:\+srv)?|rediss?|amqps?|mssql|sqlserver|ldaps?|smtps?|s?ftp|clickhouse|nats|kafka)://[^\s:@/"'<>\\]*:([^\s"'<>\\]+)@)re"},
    {"connection", R"re(\b[A-Za-z][A-Za-z0-9+.-]*://[^\s:/@"'<>\\]*:([^\s/"'<>\\]+)@)re"},
    {"connection", R"re(\bhttps?://([A-Za-z0-9_-]{16,})@)re"},
    {"email",
     R"re(\b([A-Za-z0-9._+-]+(?:@|%40|\\u0040)[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,24})\b)re"},
};

/// name = value. The name and its separator, then a value in quotes (also escaped ones, as in JSON within
/// JSON) or up to the next separator.
constexpr const char* assignment =
    R"re((?i)([\w.-]*(?:passw(?:or)?d|passwd|passphrase|\bpwd|_pwd|secret|token|api[_-]?key|access[_-]?key|account[_-]?key|private[_-]?key|auth[_-]?key|encryption[_-]?key|signing[_-]?key|credential|session[_-]?id|sessid|\bsid|\bsig|signature|\bpin|\bcvv|\bssn|\botp)[\w.-]*)\\*["'\]]{0,2}\s*(?:=>|:=|[:=]|%3[Dd]|\bis\b)\s*(?:[urbf]?"((?:[^"\\\r\n]|\\[^\r\n])*)"|[urbf]?'((?:[^'\\\r\n]|\\[^\r\n])*)'|\\+["']([^"'\r\n]*?)\\+["']|([^\s"'`,;&<>\\(){}\[\]]+)))re";

constexpr const char* phone =
    R"re((?i)\b(?:phone|tel|telephone|mobile|cell|fax|msisdn|whatsapp|sms)[\w ]{0,12}?\\*["']?\s*(?:[:=]|=>|\bto\b)?\s*\\*["']?(\+?\(?\d[\d ().-]{6,20}\d))re";
constexpr const char* phone_plus =
    R"re((?:^|[^\w+])(\+[1-9]\d{0,2}[ .-]?\(?\d{1,4}\)?(?:[ .-]?\d{2,4}){2,4})\b)re";
constexpr const char* iban = R"re(\b([A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?)\b)re";
constexpr const char* private_address =
    R"re(\b(10\.\d{1,3}\.\d{1,3}\.\d{1,3}|192\.168\.\d{1,3}\.\d{1,3}|172\.(?:1[6-9]|2\d|3[01])\.\d{1,3}\.\d{1,3}|f[cd][0-9a-f]{2}:[0-9a-f:]+)\b)re";
constexpr const char* basic = R"re((?i)\bbasic\s+([A-Za-z0-9+/_-]{8,}={0,2}))re";
/// A line break within a secret: of a wrapped line, a continued one, or of two literals that belong together.
constexpr const char* placeholder_form = R"re(\[redacted:[a-z0-9_]{1,20}:[0-9]{1,6}\])re";
constexpr const char* join = R"re(["']?[ \t]*[+\\]?[ \t]*(?:\r?\n|\\n)[ \t]*(?:[+>|][ \t]*)?["']?)re";

/// Exactly one "[redacted:KIND:N]".
bool is_placeholder(string_view value) {
    return value.starts_with("[redacted:") && value.find(']') == value.size() - 1 &&
           value.find_first_of(" \n") == string_view::npos;
}

bool is_placeholder_value(string_view value) {
    static constexpr string_view none[] = {
        "null",    "none",  "nil",     "true",    "false",    "undefined", "nullptr", "string",   "required",
        "missing", "empty", "invalid", "expired", "redacted", "hidden",    "masked",  "filtered", "unknown",
        "yes",     "no",    "not",     "the",     "a",        "incorrect", "wrong",   "bytes",    "str"};
    const auto word = lower(value);
    if (std::find(std::begin(none), std::end(none), word) != std::end(none)) return true;
    if (is_placeholder(value)) return true;
    if (word.find_first_not_of("*.x-_#") == std::string::npos) return true;
    return value.starts_with("${") || value.starts_with("$(") || value.starts_with("{{") ||
           value.starts_with("%s") || value.starts_with("<");
}

/// Names that hold the word but no secret: counts, kinds, places.
bool is_harmless_name(string_view name) {
    const auto word = lower(name);
    static constexpr string_view ends[] = {
        "count",
        "type",
        "limit",
        "size",
        "len",
        "length",
        "tokens",
        "expiry",
        "expires",
        "expires_in",
        "_at",
        "_name",
        "_url",
        "_uri",
        "_file",
        "_path",
        "policy",
        "tokenizer",
        "signature_version"};
    return std::any_of(std::begin(ends), std::end(ends), [&](string_view e) { return word.ends_with(e); });
}

bool is_password_name(string_view name) {
    const auto word = lower(name);
    return word.find("passw") != std::string::npos || word.find("pwd") != std::string::npos ||
           word.find("passphrase") != std::string::npos || word.ends_with("pin") || word.ends_with("cvv") ||
           word.ends_with("ssn") || word.ends_with("otp");
}

/// Is an unquoted value after such a name a secret?
bool is_secret_value(string_view name, string_view value, TextKind kind) {
    if (value.empty() || is_placeholder_value(value) || is_harmless_name(name)) return false;
    const bool password = is_password_name(name);
    if (kind == TextKind::log) return password || value.size() >= 6;
    // In code a bare word is a name; a secret there has letters and digits, and is no member or call.
    const bool letters =
        std::any_of(value.begin(), value.end(), [](char c) { return is_upper(c) || is_lower(c); });
    const bool digits = std::any_of(value.begin(), value.end(), is_digit);
    return value.size() >= 6 && letters && digits && value.find('.') == string_view::npos &&
           value.find("->") == string_view::npos && value.find("::") == string_view::npos;
}

/// A quoted value is taken as one, unless it says nothing.
bool is_secret_literal(string_view name, string_view value) {
    return !value.empty() && !is_placeholder_value(value) && !is_harmless_name(name) &&
           (is_password_name(name) || value.size() >= 4);
}

bool passes_luhn(string_view digits) {
    int sum = 0;
    bool twice = false;
    for (auto it = digits.rbegin(); it != digits.rend(); ++it, twice = !twice) {
        int d = *it - '0';
        if (twice) d = d * 2 > 9 ? d * 2 - 9 : d * 2;
        sum += d;
    }
    return sum % 10 == 0;
}

bool is_iban(string_view text) {
    std::string s;
    for (const char c : text) {
        if (c != ' ') s += c;
    }
    if (s.size() < 15 || s.size() > 34) return false;
    s = s.substr(4) + s.substr(0, 4);
    unsigned rest = 0;  // ISO 7064, MOD 97-10
    for (const char c : s) {
        const auto n = is_digit(c) ? static_cast<unsigned>(c - '0') : static_cast<unsigned>(c - 'A' + 10);
        rest = (rest * (n > 9 ? 100U : 10U) + n) % 97;
    }
    return rest == 1;
}

std::optional<std::string> from_base64(string_view text) {
    std::string out;
    unsigned bits = 0, value = 0;
    for (const char c : text) {
        unsigned n = 0;
        if (is_upper(c))
            n = static_cast<unsigned>(c - 'A');
        else if (is_lower(c))
            n = static_cast<unsigned>(c - 'a' + 26);
        else if (is_digit(c))
            n = static_cast<unsigned>(c - '0' + 52);
        else if (c == '+' || c == '-')
            n = 62;
        else if (c == '/' || c == '_')
            n = 63;
        else if (c == '=')
            break;
        else
            return std::nullopt;
        value = (value << 6U | n) & 0xFFFFFFU;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out += static_cast<char>(value >> bits & 0xFFU);
        }
    }
    return out;
}

bool is_text(string_view bytes) {
    if (bytes.size() < 6) return false;
    const auto printable = std::count_if(bytes.begin(), bytes.end(), [](char c) {
        return (c >= 0x20 && c < 0x7F) || c == '\n' || c == '\r' || c == '\t';
    });
    return static_cast<std::size_t>(printable) * 20 >= bytes.size() * 19;
}

double entropy(string_view text) {
    std::array<unsigned, 256> counts{};
    for (const char c : text) ++counts[static_cast<unsigned char>(c)];
    double sum = 0;
    for (const unsigned n : counts) {
        if (n == 0) continue;
        const double p = static_cast<double>(n) / static_cast<double>(text.size());
        sum -= p * std::log2(p);
    }
    return sum;
}

bool is_uuid(string_view w) {
    if (w.size() != 36) return false;
    for (std::size_t i = 0; i < w.size(); ++i) {
        const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? w[i] != '-' : std::isxdigit(static_cast<unsigned char>(w[i])) == 0) return false;
    }
    return true;
}

/// Random by its look: names and words change between capitals, small letters and digits a few times, random
/// text at every second character (0.62 for letters and digits alike); of 20 characters an English name has
/// under 3.5 bits each.
bool looks_random(string_view w) {
    if (w.size() < 20 || is_uuid(w) || w.starts_with("_Z")) return false;
    const bool hex = std::all_of(w.begin(), w.end(), [](char c) {
        return std::isxdigit(static_cast<unsigned char>(c)) != 0;
    });
    if (hex) return w.size() >= 32 && entropy(w) >= 2.5;
    bool upper = false, small = false, digit = false;
    std::size_t changes = 0;
    int before = -1;
    for (const char c : w) {
        const int kind = is_upper(c) ? 0 : is_lower(c) ? 1 : is_digit(c) ? 2 : 3;
        upper = upper || kind == 0;
        small = small || kind == 1;
        digit = digit || kind == 2;
        changes += before >= 0 && kind != before ? 1 : 0;
        before = kind;
    }
    if (!upper || !small || !digit) return false;
    return changes * 100 >= (w.size() - 1) * 38 && entropy(w) >= 3.6;
}

template <class Visit>
void each_run(string_view text, bool (*belongs)(char), std::size_t least, Visit visit) {
    for (std::size_t i = 0; i < text.size();) {
        if (!belongs(text[i])) {
            ++i;
            continue;
        }
        std::size_t end = i;
        while (end < text.size() && belongs(text[end])) ++end;
        if (end - i >= least) visit(i, end);
        i = end;
    }
}

void find_cards(string_view text, std::vector<Find>& ret) {
    // Digits with single blanks or dashes between them.
    for (std::size_t i = 0; i < text.size();) {
        if (!is_digit(text[i]) || (i > 0 && (is_alnum(text[i - 1]) || text[i - 1] == '.'))) {
            ++i;
            continue;
        }
        std::string digits;
        std::vector<std::size_t> places;
        std::size_t at = i;
        while (at < text.size()) {
            if (is_digit(text[at])) {
                digits += text[at];
                places.push_back(at++);
            } else if ((text[at] == ' ' || text[at] == '-') && at + 1 < text.size() && is_digit(text[at + 1]))
                ++at;
            else
                break;
        }
        std::size_t next = at;
        // Groups begin where a separator was: a number before the card must not hide it.
        for (std::size_t from = 0; from < digits.size() && next == at; ++from) {
            if (from > 0 && places[from] == places[from - 1] + 1) continue;
            if (digits[from] < '2' || digits[from] > '6') continue;  // ISO 7812: travel and banking
            for (std::size_t n = 19; n >= 13; --n) {
                if (from + n > digits.size()) continue;
                const bool whole = from + n == digits.size() || places[from + n] != places[from + n - 1] + 1;
                if (whole && passes_luhn(string_view{digits}.substr(from, n))) {
                    ret.push_back({places[from], places[from + n - 1] + 1, "card"});
                    break;
                }
            }
        }
        i = std::max(next, i + 1);
    }
}

}  // namespace

struct Redactor::Rules {
    struct Rule {
        std::string kind;
        std::unique_ptr<re2::RE2> expression;
    };
    std::vector<Rule> forms, marked, custom;
    std::unique_ptr<re2::RE2> assignment, phone, phone_plus, iban, address, basic, join, placeholder;
    std::vector<std::string> keep;

    bool kept(string_view secret) const {
        return std::any_of(keep.begin(), keep.end(), [&](const auto& glob) {
            return glob_matches(glob, secret);
        });
    }

    /// Calls back with each match's group; false: RE2 gave up, which must not be taken for "nothing found".
    template <class Visit>
    static bool each(const re2::RE2& expression, string_view text, int groups, Visit visit) {
        const re2::StringPiece whole{text.data(), text.size()};
        std::array<re2::StringPiece, 8> group;
        std::size_t at = 0;
        while (at <= text.size()) {
            if (!expression.Match(whole, at, text.size(), re2::RE2::UNANCHORED, group.data(), groups + 1))
                break;
            const auto begin = static_cast<std::size_t>(group[0].data() - text.data());
            const auto end = begin + group[0].size();
            visit(group);
            at = end > begin ? end : end + 1;
        }
        return expression.ok();
    }

    static void add(
        string_view text, const re2::StringPiece& piece, const std::string& kind, std::vector<Find>& ret
    ) {
        if (piece.data() == nullptr || piece.empty()) return;
        const auto begin = static_cast<std::size_t>(piece.data() - text.data());
        ret.push_back({begin, begin + piece.size(), kind});
    }

    bool find_forms(string_view text, std::vector<Find>& ret) const {
        bool ok = true;
        for (const auto& rule : forms) {
            ok = each(*rule.expression, text, 1, [&](const auto& g) { add(text, g[1], rule.kind, ret); }) &&
                 ok;
        }
        return ok;
    }

    bool find_assignments(string_view text, TextKind kind, std::vector<Find>& ret) const {
        return each(*assignment, text, 5, [&](const auto& g) {
            const string_view name{g[1].data(), g[1].size()};
            for (const int literal : {2, 3, 4}) {
                const auto& piece = g[static_cast<std::size_t>(literal)];
                if (piece.data() && is_secret_literal(name, {piece.data(), piece.size()}))
                    add(text, piece, is_password_name(name) ? "password" : "secret", ret);
            }
            if (g[5].data() && !g[5].empty()) {
                const string_view value{g[5].data(), g[5].size()};
                const auto after = static_cast<std::size_t>(g[5].data() - text.data()) + value.size();
                const bool call = after < text.size() && (text[after] == '(' || text[after] == '[');
                if (!(kind == TextKind::code && call) && is_secret_value(name, value, kind))
                    add(text, g[5], is_password_name(name) ? "password" : "secret", ret);
            }
        });
    }

    /// All but what lies under base64.
    bool find_plain(string_view text, TextKind kind, std::vector<Find>& ret) const {
        bool ok = find_forms(text, ret);
        for (const auto* rules : {&marked, &custom}) {
            for (const auto& rule : *rules) {
                const int groups = std::min(rule.expression->NumberOfCapturingGroups(), 1);
                ok = each(
                         *rule.expression,
                         text,
                         groups,
                         [&](const auto& g) {
                             const string_view found{
                                 g[static_cast<std::size_t>(groups)].data(),
                                 g[static_cast<std::size_t>(groups)].size()};
                             if (!is_placeholder_value(found))
                                 add(text, g[static_cast<std::size_t>(groups)], rule.kind, ret);
                         }
                     ) &&
                     ok;
            }
        }
        ok = find_assignments(text, kind, ret) && ok;
        ok = each(
                 *basic,
                 text,
                 1,
                 [&](const auto& g) {
                     const auto decoded = from_base64({g[1].data(), g[1].size()});
                     if (decoded && decoded->find(':') != std::string::npos && is_text(*decoded))
                         add(text, g[1], "authorization", ret);
                 }
             ) &&
             ok;
        for (const auto* expression : {phone.get(), phone_plus.get()}) {
            ok = each(
                     *expression,
                     text,
                     1,
                     [&](const auto& g) {
                         const auto digits = std::count_if(g[1].begin(), g[1].end(), is_digit);
                         if (digits >= 7 && digits <= 15) add(text, g[1], "phone", ret);
                     }
                 ) &&
                 ok;
        }
        ok = each(
                 *iban,
                 text,
                 1,
                 [&](const auto& g) {
                     if (is_iban({g[1].data(), g[1].size()})) add(text, g[1], "iban", ret);
                 }
             ) &&
             ok;
        if (address)
            ok = each(*address, text, 1, [&](const auto& g) { add(text, g[1], "address", ret); }) && ok;
        find_cards(text, ret);
        each_run(
            text,
            [](char c) { return is_alnum(c) || c == '+' || c == '_' || c == '-'; },
            20,
            [&](std::size_t begin, std::size_t end) {
                if (looks_random(text.substr(begin, end - begin))) ret.push_back({begin, end, "random"});
            }
        );
        return ok;
    }

    bool find_base64(string_view text, std::vector<Find>& ret) const {
        bool ok = true;
        each_run(
            text,
            [](char c) { return is_alnum(c) || c == '+' || c == '/' || c == '_' || c == '-' || c == '='; },
            16,
            [&](std::size_t begin, std::size_t end) {
                const auto decoded = from_base64(text.substr(begin, end - begin));
                if (!decoded || !is_text(*decoded)) return;
                std::vector<Find> inner;
                ok = find_plain(*decoded, TextKind::log, inner) && ok;
                const bool any = std::any_of(inner.begin(), inner.end(), [&](const Find& f) {
                    return !kept(string_view{*decoded}.substr(f.begin, f.end - f.begin));
                });
                if (any) ret.push_back({begin, end, "base64"});
            }
        );
        return ok;
    }

    /// What a line break goes through: the text is read once more without its breaks.
    bool find_over_breaks(string_view text, TextKind kind, std::vector<Find>& ret) const {
        std::string joined;
        std::vector<std::size_t> origin;  // of each byte of `joined`
        std::vector<std::size_t> seams;   // offsets in `joined`
        std::size_t from = 0;
        const auto take = [&](std::size_t to) {
            for (; from < to; ++from) {
                joined += text[from];
                origin.push_back(from);
            }
        };
        bool ok = each(*join, text, 0, [&](const auto& g) {
            const auto begin = static_cast<std::size_t>(g[0].data() - text.data());
            take(begin);
            seams.push_back(joined.size());
            from = begin + g[0].size();
        });
        if (seams.empty()) return ok;
        take(text.size());
        std::vector<Find> found;
        ok = find_forms(joined, found) && ok;
        // A word that only stands at the begin of the next line is no part of it.
        std::erase_if(found, [&](const Find& f) {
            const auto seam = std::upper_bound(seams.begin(), seams.end(), f.begin);
            return seam != seams.end() && *seam < f.end &&
                   std::all_of(
                       joined.begin() + static_cast<std::ptrdiff_t>(*seam),
                       joined.begin() + static_cast<std::ptrdiff_t>(f.end),
                       is_lower
                   );
        });
        // "password:" at the end of a line: what follows is the value in a log, and the next statement in
        // code.
        if (kind == TextKind::log) ok = find_assignments(joined, kind, found) && ok;
        for (const auto& f : found) {
            if (f.kind == "private_key") continue;  // found as it stands; here it would reach to the end
            const auto seam = std::lower_bound(seams.begin(), seams.end(), f.begin);
            if (seam == seams.end() || *seam >= f.end) continue;
            if (f.begin >= origin.size() || f.end == 0 || f.end > origin.size()) continue;
            ret.push_back({origin[f.begin], origin[f.end - 1] + 1, f.kind});
        }
        return ok;
    }
};

Redactor::Redactor(std::unique_ptr<Rules> rules) : rules_(std::move(rules)) {}
Redactor::~Redactor() = default;
Redactor::Redactor(Redactor&&) noexcept = default;
Redactor& Redactor::operator=(Redactor&&) noexcept = default;

result<Redactor> Redactor::create(const RedactOptions& options) {
    auto rules = std::make_unique<Rules>();
    re2::RE2::Options how;
    how.set_log_errors(false);
    how.set_max_mem(16LL << 20U);
    std::string bad;
    const auto compiled = [&](const std::string& expression) {
        auto out = std::make_unique<re2::RE2>(expression, how);
        if (!out->ok() && bad.empty()) bad = fmt::format("'{}': {}", expression, out->error());
        return out;
    };
    for (const auto& f : forms) rules->forms.push_back({f.kind, compiled(f.expression)});
    for (const auto& f : marked) rules->marked.push_back({f.kind, compiled(f.expression)});
    rules->assignment = compiled(assignment);
    rules->phone = compiled(phone);
    rules->phone_plus = compiled(phone_plus);
    rules->iban = compiled(iban);
    rules->basic = compiled(basic);
    rules->join = compiled(join);
    rules->placeholder = compiled(placeholder_form);
    if (options.private_addresses) rules->address = compiled(private_address);
    if (!bad.empty()) return fail(errc::internal, "a built-in expression is not valid: " + bad);
    for (const auto& expression : options.custom) rules->custom.push_back({"custom", compiled(expression)});
    if (!bad.empty()) return fail(errc::invalid_input, bad);
    rules->keep = options.keep;
    return Redactor{std::move(rules)};
}

std::string Redaction::placeholder(const std::string& kind, string_view secret) {
    ++report_[kind];
    if (const auto it = known_.find(secret); it != known_.end()) return it->second;
    auto name = fmt::format("[redacted:{}:{}]", kind, ++last_[kind]);
    known_.emplace(secret, name);
    return name;
}

result<std::string> Redaction::take_out(string_view text, TextKind kind) {
    if (text.size() > max_text)
        return fail(
            errc::invalid_input,
            fmt::format("a text of {} bytes is too large to be looked through", text.size())
        );
    const auto& rules = *redactor_.rules_;
    std::vector<Find> found;
    bool ok = rules.find_plain(text, kind, found);
    ok = rules.find_base64(text, found) && ok;
    ok = rules.find_over_breaks(text, kind, found) && ok;
    if (!ok) return fail(errc::internal, "secrets could not be looked for; nothing is sent");
    std::vector<Find> done;  // what was taken out before
    ok = Redactor::Rules::each(*rules.placeholder, text, 0, [&](const auto& g) {
        Redactor::Rules::add(text, g[0], "", done);
    });
    if (!ok) return fail(errc::internal, "secrets could not be looked for; nothing is sent");
    std::vector<Find> connections;
    std::copy_if(found.begin(), found.end(), std::back_inserter(connections), [](const Find& f) {
        return f.kind == "connection";
    });
    std::sort(connections.begin(), connections.end(), [](const Find& a, const Find& b) {
        return a.begin < b.begin;
    });
    const auto in_connection = [&](std::size_t at) {
        const auto next =
            std::upper_bound(connections.begin(), connections.end(), at, [](std::size_t x, const Find& c) {
                return x < c.begin;
            });
        return next != connections.begin() && at < std::prev(next)->end;
    };
    std::erase_if(found, [&](const Find& f) {
        const auto within = std::upper_bound(
            done.begin(), done.end(), f.begin, [](std::size_t at, const Find& d) { return at < d.end; }
        );
        if (within != done.end() && within->begin <= f.begin && f.end <= within->end) return true;
        // "password@host" looks like an address, and the host is worth knowing.
        if (f.kind == "email" && in_connection(f.begin)) return true;
        const auto secret = text.substr(f.begin, f.end - f.begin);
        return f.begin >= f.end || is_placeholder_value(secret) ||
               (f.kind != "private_key" && rules.kept(secret));
    });
    std::stable_sort(found.begin(), found.end(), [](const Find& a, const Find& b) {
        return a.begin != b.begin ? a.begin < b.begin : (a.kind == "random") < (b.kind == "random");
    });
    std::string out;
    std::size_t at = 0;
    for (std::size_t i = 0; i < found.size();) {
        // What overlaps is one finding, named by the first.
        auto one = found[i++];
        while (i < found.size() && found[i].begin < one.end) one.end = std::max(one.end, found[i++].end);
        out += text.substr(at, one.begin - at);
        out += placeholder(one.kind, text.substr(one.begin, one.end - one.begin));
        at = one.end;
    }
    out += text.substr(at);
    return out;
}

result<std::string> Redaction::take_out_value(string_view name, string_view value) {
    std::vector<Find> found;
    const std::string probe = std::string{name.substr(0, 200)} + "=\"some value\"";
    if (!redactor_.rules_->find_assignments(probe, TextKind::log, found))
        return fail(errc::internal, "secrets could not be looked for; nothing is sent");
    if (found.empty() || is_placeholder_value(value) || redactor_.rules_->kept(value))
        return take_out(value, TextKind::log);
    return placeholder(found.front().kind, value);
}

}  // namespace heal::ai
