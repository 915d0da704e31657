// The one pass over a message that decides which of its bytes are text of the log statement and which are
// values. Written once, as a template over what is done with the decisions: hash them (each line) or spell
// and explain them (each new pattern), so that both always agree. Internal to this folder.
#pragma once

#include "fingerprint/bitmaps.hpp"
#include "fingerprint/chars.hpp"
#include "fingerprint/model.hpp"
#include "fingerprint/shape.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace heal::fingerprint {

/// Bytes of a message that decide the id; the rest is the same value whatever it holds. Longest message of
/// the development sets: 2.1 KiB. It bounds the work per line.
inline constexpr std::size_t max_message = 8192;

/// Why a piece of text was masked.
enum class Rule : std::uint8_t {
    number,
    identifier,
    url,
    email,
    path,
    dotted_name,
    quoted,
    key_value,
    hex,
    constant,
    object,
    position,
    cut
};

/// Name of a rule as explain prints it.
const char* to_string(Rule rule) noexcept;

/// Sink: void text(std::string_view), void mark(char), void space(), void value(Rule, std::string_view).
/// Calls arrive in the order of the message; views point into it.
template <class Sink>
class Scan {
public:
    /// @param watch  told of each digit whose value decided something or became text
    Scan(std::string_view message, Sink& sink, DigitWatch& watch) noexcept
        : s_(message), sink_(sink), watch_(watch) {}

    void run() noexcept {
        const bool is_cut = s_.size() > max_message;
        if (is_cut) s_ = s_.substr(0, max_message);
        const std::size_t n = s_.size();
        Bitmaps maps;
        fill_bitmaps(s_, maps);
        std::size_t p = maps.next_text(0, n);
        while (p < n) {
            const std::size_t e = maps.next_space(p, n);
            if (maps.is_plain(p, e)) {
                plain(sub(p, e));
                p = e;
            } else {
                p = chunk(p, e);
            }
            if (p < n && is_space(s_[p])) {
                p = maps.next_text(p, n);
                if (p < n) sink_.space();
            }
        }
        if (is_cut) value(Rule::cut, {});
    }

private:
    static constexpr std::uint64_t no_word = 0;
    static constexpr std::uint64_t to_ = word_hash("to");

    std::string_view sub(std::size_t b, std::size_t e) const noexcept { return s_.substr(b, e - b); }

    void value(Rule rule, std::string_view text) noexcept {
        sink_.value(rule, text);
        previous_ = no_word;
        before_previous_ = no_word;
        // A number, or what has one in it: units and explanations may follow.
        counted_ = rule == Rule::number;
        after_number_ = rule == Rule::number || rule == Rule::identifier || rule == Rule::object ||
                        rule == Rule::hex ||
                        (rule == Rule::key_value && !text.empty() && is_digit(text.back())) ||
                        (after_number_ && rule == Rule::position);
        listed_ = true;
        glue_ = ' ';
    }

    void mark(char c) noexcept {
        sink_.mark(c);
        if (c != ',') listed_ = false;
        numbered_group_ = c == '(' && after_number_ && glue_ == ' ';
        if (c != ',') after_number_ = false;
        glue_ = c;
    }

    /// `EventType: JOB_SETUP`: a label in camel case and a constant behind it.
    static bool is_field_label(std::string_view w) noexcept {
        bool lower = false;
        for (const char c : w) {
            if (is_upper(c) && lower) return true;
            lower = !is_upper(c);
        }
        return false;
    }

    // A word without a digit: text, unless syntax and context say that it is a value.
    void word(std::string_view w, bool joined = false) noexcept {
        const std::uint64_t h = folded_hash(w);
        static constexpr std::uint64_t localhost = word_hash("localhost");
        if (h == localhost) {
            // One of the names that the host in this place may have.
            value(Rule::dotted_name, w);
            return;
        }
        if (glue_ == ':' && !label_.empty() && w.find('_') != std::string_view::npos &&
            is_field_label(label_)) {
            label_ = {};
            value(Rule::position, w);
            return;
        }
        label_ = w;
        if (glue_ == ' ' && is_user_name(w, h)) {
            value(Rule::position, w);
            return;
        }
        if (is_unit(w) || is_calendar(w, h)) {
            value(Rule::number, w);
            return;
        }
        if (stands_for_value(w, joined)) {
            value(Rule::position, w);
            after_position_ = true;
            return;
        }
        if (previous_ != no_word && is_position(w, h)) {
            value(Rule::position, w);
            after_position_ = true;
            return;
        }
        // `1 packet`, `2 packets`
        sink_.text(
            after_number_ && counted_ && glue_ == ' ' && is_plural(w, h) ? w.substr(0, w.size() - 1) : w
        );
        before_previous_ = previous_;
        previous_ = h;
        previous_lower_ = !is_upper(w[0]);
        glue_ = ' ';
        after_number_ = listed_ = false;
    }

    static bool is_plural(std::string_view w, std::uint64_t h) noexcept {
        const std::size_t n = w.size();
        static constexpr std::uint64_t does = word_hash("does"), exists = word_hash("exists");
        return n >= 4 && h != does && h != exists && w[n - 1] == 's' && w[n - 2] != 's' && w[n - 2] != 'u' &&
               w[n - 2] != 'i';
    }

    /// `8.8 KB`: formatted sizes and times change their unit with the number.
    bool is_unit(std::string_view w) const noexcept {
        if (!after_number_ || w.size() > 4 || glue_ != ' ') return false;
        if (w.size() == 1)
            return w[0] == 'B' || (at_value_end(w) &&
                                   (w[0] == 's' || w[0] == 'K' || w[0] == 'M' || w[0] == 'G' || w[0] == 'T'));
        static constexpr std::string_view units[] = {
            "KB",
            "MB",
            "GB",
            "TB",
            "kB",
            "KiB",
            "MiB",
            "GiB",
            "TiB",
            "ms",
            "us",
            "ns",
            "sec",
            "secs",
            "min",
            "mins",
            "msec",
            "usec"};
        return std::find(std::begin(units), std::end(units), w) != std::end(units);
    }
    bool at_value_end(std::string_view w) const noexcept {
        const std::size_t p = end_of(w);
        return p >= s_.size() || is_space(s_[p]) || is_closing(s_[p]);
    }

    /// `Mon Jul 25 23:24:09`: names of days and months right before a number.
    bool is_calendar(std::string_view w, std::uint64_t h) const noexcept {
        if (w.size() != 3 || !is_upper(w[0])) return false;
        static constexpr auto months = detail::sorted_hashes(
            {"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
        );
        static constexpr auto days = detail::sorted_hashes({"mon", "tue", "wed", "thu", "fri", "sat", "sun"});
        const bool month = std::binary_search(months.begin(), months.end(), h);
        if (!month && !std::binary_search(days.begin(), days.end(), h)) return false;
        std::string_view next = next_token(w);
        if (next.empty()) return false;
        if (!month && next.size() == 3 && is_upper(next[0])) {
            const std::uint64_t n = folded_hash(next);
            if (!std::binary_search(months.begin(), months.end(), n)) return false;
            next = next_token(next);
        }
        return !next.empty() && is_digit(next[0]);
    }

    /// Places where a word is a value whatever word it is.
    bool stands_for_value(std::string_view w, bool joined) const noexcept {
        static constexpr std::uint64_t for_ = word_hash("for"), from = word_hash("from");
        const std::size_t p = end_of(w);
        const char next = p < s_.size() ? s_[p] : '\0';
        // `acls to: hdfs`
        if (glue_ == ':' && previous_ != no_word && previous_lower_ && is_preposition(previous_)) return true;
        // `1,2,DISK`: a tight list that began with a value
        if (glue_ == ',' && listed_ && tight(w) &&
            !(p < s_.size() && is_space(next) && is_known_word(folded_hash(w))))
            return true;
        // `by deploy(uid=0)`, `from unknown[10.0.0.9]`
        if (glue_ == ' ' && (next == '(' || next == '[') && is_preposition(previous_)) {
            const std::string_view inner = s_.substr(p + 1, 24);
            if (next == '[' ? !inner.empty() && is_digit(inner[0]) : is_id_field(inner)) return true;
        }
        // `net{3}`
        if (next == '{' && p + 1 < s_.size() && is_digit(s_[p + 1])) {
            std::size_t q = p + 1;
            while (q < s_.size() && is_digit(s_[q])) ++q;
            if (q < s_.size() && s_[q] == '}') return true;
        }
        // `process 4112 (java)`
        if (glue_ == '(' && numbered_group_ && next == ')' && tight(w)) return true;
        // `queue <normal>`, `servlet [jersey]`
        if (previous_ != no_word && tight(w) &&
            ((glue_ == '<' && next == '>') || (glue_ == '[' && next == ']') || (glue_ == '(' && next == ')')
            ) &&
            is_kind(previous_) && !is_state(w, folded_hash(w)))
            return true;
        // `for [orders]`, `Adding [nightly] to`: a word in brackets of its own, unless in capitals
        if (glue_ == '[' && next == ']' && previous_ != no_word && tight(w) && w.data() - s_.data() >= 2 &&
            is_space(w.data()[-2]) && (classes_of(w) & cls_lower) != 0 && !is_state(w, folded_hash(w)))
            return true;
        // `between gateway and 10.0.0.9`
        static constexpr std::uint64_t between = word_hash("between"), and_ = word_hash("and");
        if (glue_ == ' ' && previous_ == between && folded_hash(next_token(w)) == and_) return true;
        // `Creating new pool: alpha`
        if (glue_ == ':' && previous_ != no_word && ends_here(p) && is_kind(previous_)) {
            const std::uint64_t h = folded_hash(w);
            if (!is_state(w, h) && !is_function_word(h)) return true;
        }
        // `[shop-orders][2]`
        if (glue_ == '[' && next == ']' && p + 1 < s_.size() && s_[p + 1] == '[' && tight(w) &&
            w.find('-') != std::string_view::npos)
            return true;
        // cron's `(root) CMD (…)`
        if (glue_ == '(' && next == ')' && w.data() == s_.data() + 1) return true;
        // `umount of data-volume`, `using ehci_pci`: a made-up name that no message has as text
        if (joined && glue_ == ' ' && previous_ != no_word && is_made_up(w) && is_preposition(previous_) &&
            !is_known_word(folded_hash(w)))
            return true;
        // `for deploy from 10.0.0.9`
        if (glue_ == ' ' && previous_ == for_) {
            const std::string_view word = next_token(w);
            if (word.size() == 4 && folded_hash(word) == from) {
                const std::string_view where = next_token(word);
                if (!where.empty() && (is_digit(where[0]) || where[0] == ':')) return true;
            }
        }
        return false;
    }

    /// Words joined by - or _, the first in lower case.
    static bool is_made_up(std::string_view w) noexcept {
        if (is_upper(w[0]) || !is_alpha(w[0])) return false;
        bool joined = false;
        for (const char c : w) {
            if (c == '.' || c == '\'') return false;
            joined = joined || c == '-' || c == '_';
        }
        return joined;
    }

    /// Does w follow the byte before it without a blank?
    bool tight(std::string_view w) const noexcept { return w.data() > s_.data() && !is_space(w.data()[-1]); }

    static bool is_preposition(std::uint64_t h) noexcept {
        static constexpr auto words = detail::sorted_hashes(
            {"as",
             "at",
             "by",
             "for",
             "from",
             "in",
             "into",
             "is",
             "of",
             "on",
             "than",
             "to",
             "using",
             "via",
             "with"}
        );
        return std::binary_search(words.begin(), words.end(), h);
    }

    /// uid=, id=, pid=
    static bool is_id_field(std::string_view t) noexcept {
        const std::size_t equals = t.find('=');
        return equals != std::string_view::npos && equals >= 2 && equals <= 4 &&
               t.substr(equals - 2, 2) == "id" &&
               (classes_of(t.substr(0, equals)) & ~(cls_alpha | cls_hex)) == 0;
    }

    bool is_position(std::string_view w, std::uint64_t h) const noexcept;

    /// Place behind a word of this message.
    std::size_t end_of(std::string_view w) const noexcept {
        return static_cast<std::size_t>(w.data() - s_.data()) + w.size();
    }

    /// The next word or value after one blank or more; empty at the end or when a mark stands between.
    std::string_view next_token(std::string_view w) const noexcept {
        std::size_t p = end_of(w);
        if (p >= s_.size() || !is_space(s_[p])) return {};
        while (p < s_.size() && is_space(s_[p])) ++p;
        std::size_t e = p;
        while (e < s_.size() && e < p + 64 && !is_space(s_[e])) ++e;
        return sub(p, e);
    }

    /// A noun that names a kind of thing, or its plural.
    static bool names_kind(std::string_view w) noexcept {
        return is_kind(folded_hash(w)) ||
               (w.size() > 3 && w.back() == 's' && is_kind(folded_hash(w.substr(0, w.size() - 1))));
    }

    /// Does the message or the part of it that p stands in end here?
    bool ends_here(std::size_t p) const noexcept {
        return p >= s_.size() || s_[p] == ',' || s_[p] == ';' || s_[p] == ')' || s_[p] == ']' ||
               (s_[p] == '.' && p + 1 >= s_.size());
    }

    /// Does the phrase end behind w: the message, a mark, a value or a function word?
    bool closes_phrase(std::string_view w) const noexcept {
        const std::size_t p = end_of(w);
        if (p >= s_.size()) return true;
        if (!is_space(s_[p]))
            return s_[p] == ',' || s_[p] == ';' || s_[p] == '.' || s_[p] == ')' || s_[p] == ']';
        // `network interface 'x'`: two nouns, and the name is still to come.
        if (names_kind(w)) return false;
        const std::string_view next = next_token(w);
        if (next.empty() || (class_of(next[0]) & cls_alpha) == 0) return true;
        std::size_t letters = 0;
        while (letters < next.size() && (is_alpha(next[letters]) || next[letters] == '\'')) ++letters;
        const std::string_view word = next.substr(0, letters);
        const std::uint64_t h = folded_hash(word);
        return is_function_word(h) || is_state(word, h);
    }

    /// `user X`, `password for X`, `failures for X`: names of accounts are words of every kind, so that only
    /// a list of what is text there helps.
    bool is_user_name(std::string_view w, std::uint64_t h) const noexcept {
        static constexpr std::uint64_t user = word_hash("user"), for_ = word_hash("for"),
                                       password = word_hash("password"), failures = word_hash("failures"),
                                       failure = word_hash("failure"), account = word_hash("account"),
                                       login = word_hash("login");
        if (previous_ == no_word) return false;
        if (previous_ == user) {
            // Sorted by hash: one comparison per step instead of a string's.
            static constexpr auto text = detail::sorted_hashes(
                {"a",
                 "access",
                 "account",
                 "accounts",
                 "action",
                 "agent",
                 "already",
                 "and",
                 "are",
                 "as",
                 "at",
                 "authenticated",
                 "authentication",
                 "authorization",
                 "by",
                 "can",
                 "cannot",
                 "canceled",
                 "cancelled",
                 "command",
                 "configuration",
                 "context",
                 "could",
                 "credentials",
                 "data",
                 "database",
                 "defined",
                 "did",
                 "directory",
                 "disconnected",
                 "does",
                 "doesn't",
                 "entry",
                 "error",
                 "exists",
                 "file",
                 "for",
                 "from",
                 "group",
                 "groups",
                 "has",
                 "home",
                 "id",
                 "in",
                 "info",
                 "information",
                 "input",
                 "interface",
                 "interrupt",
                 "is",
                 "list",
                 "logged",
                 "login",
                 "may",
                 "mode",
                 "must",
                 "name",
                 "names",
                 "namespace",
                 "no",
                 "not",
                 "of",
                 "on",
                 "or",
                 "password",
                 "permissions",
                 "process",
                 "processes",
                 "profile",
                 "record",
                 "request",
                 "requested",
                 "running",
                 "service",
                 "session",
                 "sessions",
                 "settings",
                 "space",
                 "specified",
                 "supplied",
                 "table",
                 "time",
                 "to",
                 "token",
                 "unknown",
                 "using",
                 "was",
                 "when",
                 "with",
                 "without"}
            );
            return !std::binary_search(text.begin(), text.end(), h);
        }
        if (previous_ != for_ ||
            (before_previous_ != password && before_previous_ != failures && before_previous_ != failure &&
             before_previous_ != account && before_previous_ != login))
            return false;
        return w != "invalid" && w != "user" && w != "the" && w != "a" && w != "unknown" && w != "illegal" &&
               w != "this" && w != "all";
    }

    /// Bytes p..e hold no blank, but something else than letters. Returns where the scan goes on: e, or later
    /// when a quote with blanks was taken whole.
    std::size_t chunk(std::size_t p, std::size_t e) noexcept {
        // Opening marks.
        while (p < e) {
            const char c = s_[p];
            if (c == '(' || c == '[' || c == '{' || c == '<') {
                if (const std::size_t close = literal(p); close != 0) {
                    value(Rule::object, sub(p, close));
                    if (close >= e) return close;
                    p = close;
                    continue;
                }
                if (c == '[') {
                    if (const std::size_t close = list_end(p); close != 0) {
                        mark(c);
                        value(Rule::object, sub(p + 1, close));
                        mark(']');
                        if (close + 1 >= e) {
                            return close + 1;
                        }
                        p = close + 1;
                        continue;
                    }
                }
                if (c == '(' && p + 1 < e && s_[p + 1] == ')' && e == p + 2) {
                    // An argument that was empty this time.
                    mark(c);
                    value(Rule::position, {});
                    mark(')');
                    return e;
                }
                static constexpr std::uint64_t by = word_hash("by");
                if (c == '(' && previous_ == by && glue_ == ' ' && is_id_field(s_.substr(p + 1, 24))) {
                    // `by (uid=0)`: nobody is named.
                    value(Rule::position, {});
                }
                if (c == '<' && p + 1 < e && is_digit(s_[p + 1]) &&
                    sub(p, e).find('>') == std::string_view::npos) {
                    // <1: less than that
                    ++p;
                    continue;
                }
                mark(c);
                ++p;
                if (c == '(' && is_path_start(sub(p, e))) {
                    // A command line or file name fills the group, blanks and all.
                    const std::size_t close = group_close(p, c);
                    if (close != 0) {
                        value(Rule::path, sub(p, close));
                        return close;
                    }
                }
                continue;
            }
            if (c == '"' || c == '\'' || c == '`') {
                const std::size_t q = quote(p, e);
                if (q != p) {
                    p = q;
                    if (p >= e) return p;
                    continue;
                }
                mark(c);
                ++p;
                continue;
            }
            break;
        }
        if (p >= e) return e;
        // Closing marks are given out after the core.
        std::size_t b = e;
        while (b > p && is_closing(s_[b - 1])) {
            // a[3] and f(x) keep their brackets together with the core.
            --b;
        }
        if (b == p) {
            marks(p, e);
            return e;
        }
        p = core(p, b, e);
        if (p < b) p = b;
        marks(p, e);
        return p > e ? p : e;
    }

    /// {"a": 1}, {'a': 1}, [{…}], ["a", …]: an object printed in whole. Its end, or 0.
    std::size_t literal(std::size_t p) noexcept {
        std::size_t q = p;
        while (q < s_.size() && q < p + 4 && (s_[q] == '{' || s_[q] == '[' || s_[q] == ' ')) ++q;
        if (q == p || q >= s_.size() || (s_[q] != '"' && s_[q] != '\'')) return 0;
        bool brace = false;
        for (std::size_t i = p; i < q; ++i) brace = brace || s_[i] == '{';
        // Few tries for each message: braces that never close would make this quadratic.
        if (!brace || literal_tries_ == 8) return 0;
        ++literal_tries_;
        int depth = 0;
        const std::size_t limit = std::min(s_.size(), p + 4000);
        for (q = p; q < limit; ++q) {
            if (s_[q] == '{' || s_[q] == '[') ++depth;
            if ((s_[q] == '}' || s_[q] == ']') && --depth == 0) return q + 1;
        }
        return 0;
    }

    /// ['a', 'b'], [a, b], []: a list printed in whole, which has more or fewer parts next time. The place of
    /// its closing mark, or 0.
    std::size_t list_end(std::size_t p) noexcept {
        std::size_t q = p + 1;
        if (q < s_.size() && s_[q] == ']') return previous_ != no_word || listed_ ? q : 0;
        if (list_tries_ == 8) return 0;
        ++list_tries_;
        const std::size_t limit = std::min(s_.size(), p + 1000);
        std::size_t parts = 0;
        bool quoted = false;
        while (q < limit) {
            const char c = s_[q];
            const std::size_t start = q;
            if (c == '"' || c == '\'') {
                ++q;
                while (q < limit && s_[q] != c) ++q;
                if (q >= limit) return 0;
                ++q;
                quoted = true;
            } else {
                while (q < limit && !is_space(s_[q]) && !is_hard(s_[q])) ++q;
            }
            if (q == start || q >= limit) return 0;
            ++parts;
            if (s_[q] == ']') return parts > 1 || quoted ? q : 0;
            if (s_[q] != ',') return 0;
            ++q;
            if (q < limit && s_[q] == ' ') ++q;
        }
        return 0;
    }

    /// Where the group that opened before p closes; 0 when that is not within 300 bytes.
    std::size_t group_close(std::size_t p, char open) const noexcept {
        const char close = open == '(' ? ')' : open == '[' ? ']' : open == '{' ? '}' : '>';
        int depth = 1;
        const std::size_t limit = std::min(s_.size(), p + 300);
        for (; p < limit; ++p) {
            if (s_[p] == open) ++depth;
            if (s_[p] == close && --depth == 0) return p;
        }
        return 0;
    }

    static bool is_closing(char c) noexcept {
        return c == ')' || c == ']' || c == '}' || c == '>' || c == '"' || c == '\'' || c == '`' ||
               c == ',' || c == ';' || c == ':' || c == '.' || c == '!' || c == '?';
    }

    void marks(std::size_t p, std::size_t e) noexcept {
        for (; p < e; ++p) mark(s_[p]);
    }

    /// A quote that opens at p: one word inside, or a path, is a value; returns past the closing quote, or p
    /// when the quote holds text.
    std::size_t quote(std::size_t p, std::size_t) noexcept {
        const char c = s_[p];
        std::size_t q = p + 1;
        const std::size_t limit = std::min(s_.size(), p + 300);
        bool blanks = false;
        while (q < limit && s_[q] != c) {
            if (is_space(s_[q])) blanks = true;
            if (s_[q] == '\\' && q + 1 < limit) ++q;
            // `name' as GNU programs quote
            if (c == '`' && s_[q] == '\'' && !(q + 1 < s_.size() && is_alpha(s_[q + 1]))) break;
            ++q;
        }
        if (q >= limit) return p;
        // An apostrophe inside a word does not close a quote.
        if (c == '\'' && q + 1 < s_.size() && is_alpha(s_[q + 1])) return p;
        const std::string_view inner = sub(p + 1, q);
        static constexpr std::uint64_t state = word_hash("state"), status = word_hash("status");
        if (!blanks && (previous_ == state || previous_ == status) &&
            (classes_of(inner) & ~(cls_alpha | cls_hex)) == 0)
            return p;  // states tell apart
        if (!blanks || is_path_start(inner) || is_quoted_argument(p, q, inner)) {
            mark(c);
            value(Rule::quoted, inner);
            mark(s_[q]);
            return q + 1;
        }
        return p;
    }

    /// `stream 'shop > orders'`: several words in quotes behind text. Behind a colon they may be what went
    /// wrong, which tells errors apart.
    bool is_quoted_argument(std::size_t p, std::size_t q, std::string_view inner) const noexcept {
        return p > 0 && previous_ != no_word && glue_ == ' ' && is_space(s_[p - 1]) &&
               !is_space(inner.front()) &&
               (q + 1 >= s_.size() || !(is_alpha(s_[q + 1]) || is_digit(s_[q + 1])));
    }

    static bool is_path_start(std::string_view t) noexcept {
        return (t.size() > 1 && t[0] == '/' &&
                (is_alpha(t[1]) || is_digit(t[1]) || t[1] == '.' || t[1] == '_')) ||
               (t.size() > 2 && is_alpha(t[0]) && t[1] == ':' && (t[2] == '\\' || t[2] == '/')) ||
               (t.size() > 2 && t[0] == '\\' && t[1] == '\\') ||
               (t.size() > 2 && t[0] == '~' && t[1] == '/') ||
               (t.size() > 3 && t[0] == '.' && (t[1] == '/' || (t[1] == '.' && t[2] == '/')));
    }

    void plain(std::string_view w) noexcept {
        if (is_constant(w)) {
            value(Rule::constant, w);
            return;
        }
        word(w);
    }

    /// true, false, null, none, nan in any case.
    static bool is_constant(std::string_view w) noexcept {
        if (w.size() < 3 || w.size() > 5) return false;
        char low[5];
        for (std::size_t i = 0; i < w.size(); ++i) low[i] = static_cast<char>(w[i] | 0x20);
        switch (low[0]) {
            case 't':
                return w.size() == 4 && low[1] == 'r' && low[2] == 'u' && low[3] == 'e';
            case 'f':
                return w.size() == 5 && low[1] == 'a' && low[2] == 'l' && low[3] == 's' && low[4] == 'e';
            case 'n':
                return (w.size() == 3 && low[1] == 'a' && low[2] == 'n') ||
                       (w.size() == 4 && ((low[1] == 'u' && low[2] == 'l' && low[3] == 'l') ||
                                          (low[1] == 'o' && low[2] == 'n' && low[3] == 'e')));
            default:
                return false;
        }
    }

    /// The part of a chunk between its outer marks, p..b; the chunk ends at e. Returns how far it got.
    std::size_t core(std::size_t p, std::size_t b, std::size_t e) noexcept {
        const std::string_view t = sub(p, b);
        const std::uint8_t k = classes_of(t);
        if ((k & (cls_punct | cls_join | cls_digit)) == 0) {
            plain(t);
            return b;
        }
        if ((k & (cls_alpha | cls_punct)) == 0 && (k & cls_digit) != 0) {
            value(Rule::number, t);
            return b;
        }
        if ((k & cls_punct) == 0) {
            name(t);
            return b;
        }
        if ((k & cls_digit) != 0 && previous_ == to_ && glue_ == ' ' &&
            t.find('(') != std::string_view::npos && t.find('=') == std::string_view::npos) {
            const std::size_t close = b < e && s_[b] == ')' ? b + 1 : b;
            value(Rule::object, sub(p, close));
            return close;
        }
        if (glue_ == ' ' && previous_ != no_word && hard_at(t) == t.size() && is_kind(previous_)) {
            // `key cart:alice`, `task kworker/u8:2`
            value(Rule::object, t);
            return b;
        }
        // Marks inside. Whole forms first.
        std::size_t equals = std::string_view::npos, scheme = std::string_view::npos;
        bool at_sign = false;
        for (std::size_t i = 0; i < t.size(); ++i) {
            if (t[i] == '=' && equals == std::string_view::npos) equals = i;
            if (t[i] == ':' && scheme == std::string_view::npos && i + 2 < t.size() && t[i + 1] == '/' &&
                t[i + 2] == '/')
                scheme = i;
            at_sign = at_sign || t[i] == '@';
        }
        if (scheme != std::string_view::npos && scheme > 0 && scheme < 24 && equals > scheme &&
            all_scheme(t.substr(0, scheme))) {
            value(Rule::url, t);
            return b;
        }
        if (equals == std::string_view::npos && is_path_start(t)) {
            const std::size_t stop = hard_at(t);
            if (stop == t.size()) {
                value(Rule::path, t);
                return b;
            }
            value(Rule::path, t.substr(0, stop));
            return inside(p + stop, b, e);
        }
        if (equals == std::string_view::npos && at_sign && hard_at(t) == t.size() && t.find('@') > 0 &&
            t.find('@') + 1 < t.size()) {
            value((k & cls_digit) != 0 ? Rule::object : Rule::email, t);
            return b;
        }
        return inside(p, b, e);
    }

    static bool all_scheme(std::string_view t) noexcept {
        for (const char c : t) {
            if (!is_alpha(c) && !is_digit(c) && c != '+' && c != '-' && c != '.' && c != ':') return false;
        }
        return true;
    }

    static constexpr std::array<bool, 256> make_hard() {
        std::array<bool, 256> out{};
        for (const char c : std::string_view{"()[]{}<>\"'`,;=|"}) out[static_cast<unsigned char>(c)] = true;
        return out;
    }
    static bool is_hard(char c) noexcept {
        static constexpr std::array<bool, 256> table = make_hard();
        return table[static_cast<unsigned char>(c)];
    }

    static std::size_t hard_at(std::string_view t) noexcept {
        std::size_t i = 0;
        while (i < t.size() && !is_hard(t[i])) ++i;
        return i;
    }

    /// Splits p..b at hard marks; `key=` masks what follows it.
    std::size_t inside(std::size_t p, std::size_t b, std::size_t e) noexcept {
        while (p < b) {
            const char c = s_[p];
            if (is_hard(c)) {
                if (c == '"' || c == '\'' || c == '`') {
                    const std::size_t q = quote(p, e);
                    if (q != p) {
                        p = q;
                        continue;
                    }
                }
                mark(c);
                ++p;
                if (c == '=' && key_before_ && (p >= s_.size() || is_space(s_[p]))) {
                    value(Rule::key_value, {});
                    continue;
                }
                if (c == '(' && container_) {
                    if (const std::size_t close = group_close(p, c); close != 0) {
                        value(Rule::object, sub(p, close));
                        return close;
                    }
                }
                if (c == '=' && p < s_.size() && key_before_) {
                    const std::size_t q = assigned(p, e);
                    if (q != p) {
                        p = q;
                        continue;
                    }
                }
                continue;
            }
            std::size_t q = p;
            std::uint8_t k = 0;
            while (q < b && !is_hard(s_[q])) k = static_cast<std::uint8_t>(k | class_of(s_[q++]));
            key_before_ = q < e && s_[q] == '=' && (k & cls_alpha) != 0;
            const bool key = key_before_;
            container_ = q < b && s_[q] == '(' && is_container(sub(p, q));
            piece(sub(p, q), k, key);
            key_before_ = key;
            p = q;
        }
        return p;
    }

    /// Set(a, b), as Scala prints collections.
    static bool is_container(std::string_view t) noexcept {
        static constexpr std::string_view names[] = {
            "ArrayBuffer", "List", "Map", "Seq", "Set", "Some", "Vector", "WrappedArray"};
        return std::find(std::begin(names), std::end(names), t) != std::end(names);
    }

    /// The value of a tight `key=`; p is past the sign. Returns its end, or p when it is a structure to look
    /// into.
    std::size_t assigned(std::size_t p, std::size_t e) noexcept {
        if (p >= e) return p;
        const char c = s_[p];
        if (c == '<' || c == '[') {
            // <address>, [list]: values when nothing in them has a name of its own.
            const char shut = c == '<' ? '>' : ']';
            std::size_t q = p + 1;
            const std::size_t limit = std::min(s_.size(), p + 300);
            while (q < limit && s_[q] != shut && s_[q] != '=' && s_[q] != '{' && s_[q] != c) ++q;
            if (q < limit && s_[q] == shut) {
                mark(c);
                value(Rule::key_value, sub(p + 1, q));
                mark(shut);
                return q + 1;
            }
        }
        if (c == '(' || c == '{' || c == '[' || c == '<' || c == '=') return p;
        if (c == '"' || c == '\'') {
            std::size_t q = p + 1;
            const std::size_t limit = std::min(s_.size(), p + 1000);
            while (q < limit && s_[q] != c) {
                if (s_[q] == '\\' && q + 1 < limit) ++q;
                ++q;
            }
            if (q < limit) {
                // Text of a message stays text even where it stands as a value (logfmt).
                if (text_key_) return p;
                mark(c);
                value(Rule::key_value, sub(p + 1, q));
                mark(c);
                return q + 1;
            }
        }
        std::size_t q = p;
        while (q < e && s_[q] != ',' && s_[q] != ';' && s_[q] != ')' && s_[q] != ']' && s_[q] != '}' &&
               s_[q] != '>' && s_[q] != '"' && s_[q] != '(' && s_[q] != '{' && s_[q] != '[' && s_[q] != '|')
            ++q;
        std::size_t end = q;
        if (end == e) {
            while (end > p &&
                   (s_[end - 1] == '.' || s_[end - 1] == ':' || s_[end - 1] == '!' || s_[end - 1] == '\''))
                --end;
        }
        if (end == p) return p;
        const std::string_view v = sub(p, end);
        // Class{…}, f(…): the name is text, what it holds is looked into.
        if (q < e && (s_[q] == '(' || s_[q] == '{' || s_[q] == '[') &&
            (classes_of(v) & (cls_digit | cls_punct)) == 0) {
            const std::size_t close = group_close(q + 1, s_[q]);
            // An object printed with its number alone is one value.
            if (close == 0 || close >= e || (classes_of(sub(q + 1, close)) & (cls_punct | cls_space)) != 0)
                return p;
            value(Rule::object, sub(p, close + 1));
            return close + 1;
        }
        value(Rule::key_value, v);
        return end;
    }

    /// Text between hard marks; k are its classes.
    void piece(std::string_view t, std::uint8_t k, bool is_key) noexcept {
        if (t.empty()) return;
        if (is_key) {
            text_key_ = t == "msg" || t == "message" || t == "err" || t == "error" || t == "reason";
            if ((k & cls_digit) == 0) {
                sink_.text(t);
                previous_ = no_word;
                return;
            }
        }
        if ((k & (cls_punct | cls_join | cls_digit)) == 0) {
            if (is_constant(t))
                value(Rule::constant, t);
            else
                word(t);
            return;
        }
        if ((k & cls_alpha) == 0) {
            if ((k & cls_digit) != 0)
                value(Rule::number, t);
            else
                for (const char c : t) mark(c);
            return;
        }
        if ((k & cls_punct) == 0) {
            name(t);
            return;
        }
        mixed(t, k);
    }

    /// Letters and soft marks : / \ # @ % + * & ~ ^ $ ! ?, perhaps digits.
    void mixed(std::string_view t, std::uint8_t k) noexcept {
        if (is_path_start(t)) {
            value(Rule::path, t);
            return;
        }
        if (t.find("://") != std::string_view::npos) {
            value(Rule::url, t);
            return;
        }
        if (t.size() > 1 && t[0] == '$' && is_alpha(t[1])) {
            value(Rule::identifier, t);
            return;
        }
        if (const std::size_t sign = t.find('@');
            sign != std::string_view::npos && sign > 0 && sign + 1 < t.size()) {
            value((k & cls_digit) != 0 ? Rule::object : Rule::email, t);
            return;
        }
        if (is_hex_groups(t, k)) {
            value(Rule::hex, t);
            return;
        }
        std::size_t slashes = 0, backs = 0, colons = 0;
        for (const char c : t) {
            slashes += c == '/';
            backs += c == '\\';
            colons += c == ':';
        }
        if (slashes >= 2 || (slashes == 1 && has_inner_dot(t)) || (backs >= 2 && (k & cls_digit) == 0)) {
            // label:/path keeps its label.
            const std::size_t colon = t.find(":/");
            if (colon != std::string_view::npos && colon > 0 &&
                (classes_of(t.substr(0, colon)) & ~(cls_alpha | cls_hex)) == 0) {
                word(t.substr(0, colon));
                mark(':');
                value(Rule::path, t.substr(colon + 1));
                return;
            }
            value(Rule::path, t);
            return;
        }
        const std::size_t scope = t.find("::");
        if (scope != std::string_view::npos && scope > 0 && is_alpha(t[0]) && scope + 2 < t.size() &&
            is_alpha(t[scope + 2])) {
            // A qualified function is text even when digits occur in its name.
            std::size_t stop = scope;
            while (stop < t.size() && (is_alpha(t[stop]) || is_digit(t[stop]) || t[stop] == '_' ||
                                       t[stop] == ':' || t[stop] == '~'))
                ++stop;
            while (stop > 0 && t[stop - 1] == ':') --stop;
            sink_.text(t.substr(0, stop));
            watch_.saw(t.substr(0, stop));
            previous_ = no_word;
            if (stop < t.size()) {
                const std::string_view rest = t.substr(stop);
                piece(rest, classes_of(rest), false);
            }
            return;
        }
        if (colons > 0) {
            // label:value, label:label:value
            const std::size_t colon = t.find(':');
            const std::string_view head = t.substr(0, colon);
            const std::uint8_t hk = classes_of(head);
            if (!head.empty() && (hk & (cls_digit | cls_punct)) == 0 && (hk & cls_alpha) != 0) {
                const std::string_view tail = t.substr(colon + 1);
                const std::uint8_t tk = classes_of(tail);
                if ((hk & cls_join) == 0 || (tk & cls_digit) == 0 ||
                    head.find('.') == std::string_view::npos) {
                    // label:label:… without end would be looked at again and again.
                    if (labels_ >= 16) {
                        value(Rule::identifier, t);
                        return;
                    }
                    ++labels_;
                    if ((hk & cls_join) != 0)
                        name(head);
                    else
                        word(head);
                    mark(':');
                    if (!tail.empty()) piece(tail, tk, false);
                    --labels_;
                    return;
                }
            }
        }
        if ((k & cls_digit) != 0) {
            value(Rule::identifier, t);
            return;
        }
        // No digit: soft marks between words.
        std::size_t p = 0;
        while (p < t.size()) {
            std::size_t q = p;
            std::uint8_t wk = 0;
            while (q < t.size() && (class_of(t[q]) & cls_punct) == 0)
                wk = static_cast<std::uint8_t>(wk | class_of(t[q++]));
            if (q > p) {
                if ((wk & cls_join) != 0)
                    name(t.substr(p, q - p));
                else
                    word(t.substr(p, q - p));
            }
            for (; q < t.size() && (class_of(t[q]) & cls_punct) != 0; ++q) mark(t[q]);
            p = q;
        }
    }

    /// ef:01:c2:f2:cb:4e, fe:80::1: an address whose first group may be all letters.
    static bool is_hex_groups(std::string_view t, std::uint8_t k) noexcept {
        if ((k & (cls_space | cls_join)) != 0) return false;
        std::size_t colons = 0, group = 0;
        for (const char c : t) {
            if (c == ':') {
                ++colons;
                group = 0;
            } else if (!is_hex(c) || ++group > 4) {
                return false;
            }
        }
        return colons >= ((k & cls_digit) != 0 ? 2U : 5U);
    }

    /// users/list.html, com.example.mail/.Main, example.com/IN
    static bool has_inner_dot(std::string_view t) noexcept {
        for (std::size_t i = 1; i + 1 < t.size(); ++i) {
            if (t[i] == '.' && is_alpha(t[i + 1]) && (is_alpha(t[i - 1]) || t[i - 1] == '/')) return true;
        }
        return false;
    }

    /// Letters, digits and _ - . only.
    void name(std::string_view t) noexcept {
        const std::uint8_t k = classes_of(t);
        if ((k & cls_alpha) == 0) {
            if ((k & cls_digit) != 0)
                value(Rule::number, t);
            else
                for (const char c : t) mark(c);
            return;
        }
        if ((k & cls_digit) != 0) {
            bool looked = false;
            const bool known = is_known_with_digits(t, looked);
            if (looked) watch_.saw(t);
            if (known) {
                sink_.text(t);
                previous_ = no_word;
                return;
            }
            if (const std::size_t stem = device_stem(t); stem != 0) {
                sink_.text(t.substr(0, stem));
                mark('#');
                return;
            }
            value(Rule::identifier, t);
            return;
        }
        if ((k & cls_join) == 0) {
            word(t);
            return;
        }
        std::size_t dots = 0;
        for (std::size_t i = 1; i + 1 < t.size(); ++i)
            dots += t[i] == '.' && t[i - 1] != '.' && t[i + 1] != '.';
        if (dots >= 2 || (dots == 1 && is_file_or_host(t))) {
            if (!is_error_name(t)) {
                value(Rule::dotted_name, t);
                return;
            }
        }
        word(t, true);
    }

    /// eth0, wlan1: the kind of device is text, its number is not. Length of the stem, or 0.
    std::size_t device_stem(std::string_view t) const noexcept {
        static constexpr std::uint64_t interface = word_hash("interface");
        // `device eth0`: a name like any other.
        if (glue_ == ' ' && previous_ != no_word && previous_ != interface && is_kind(previous_)) return 0;
        const std::size_t n = t.size() - 1;
        if (n < 2 || n > 5 || !is_digit(t[n])) return 0;
        for (std::size_t i = 0; i < n; ++i) {
            if (t[i] < 'a' || t[i] > 'z') return 0;
        }
        return previous_ == interface || is_device_stem(t.substr(0, n)) ? n : 0;
    }

    static bool ends_with(std::string_view t, std::string_view e) noexcept {
        return t.size() > e.size() && t.substr(t.size() - e.size()) == e;
    }

    static bool is_error_name(std::string_view t) noexcept {
        return ends_with(t, "Exception") || ends_with(t, "Error") || ends_with(t, "Failure") ||
               ends_with(t, "Fault") || ends_with(t, "Warning");
    }

    static bool is_file_or_host(std::string_view t) noexcept {
        const std::size_t dot = t.rfind('.');
        const std::string_view x = t.substr(dot + 1);
        if (x.empty() || x.size() > 10) return false;
        char low[10];
        for (std::size_t i = 0; i < x.size(); ++i) low[i] = static_cast<char>(x[i] | 0x20);
        return is_extension({low, x.size()});
    }

    std::string_view s_;
    Sink& sink_;
    DigitWatch& watch_;
    std::uint64_t previous_ = no_word,
                  before_previous_ = no_word;  ///< folded hashes of the words to the left
    char glue_ = ' ';                          ///< last mark since the previous word
    int literal_tries_ = 0, list_tries_ = 0, labels_ = 0;
    bool container_ = false;  ///< the word to the left names a collection
    bool key_before_ = false, text_key_ = false, after_position_ = false;
    std::string_view label_;       ///< the last word
    bool previous_lower_ = false;  ///< the word to the left begins in lower case
    bool listed_ = false;          ///< a value, and perhaps a comma since
    bool counted_ = false;         ///< the last value was a number and nothing else
    bool after_number_ = false;    ///< a value with a number in it, and perhaps blanks or a comma since
    bool numbered_group_ = false;  ///< the last mark was a ( behind such a value
};

template <class Sink>
bool Scan<Sink>::is_position(std::string_view w, std::uint64_t h) const noexcept {
    const Verdict verdict = model_verdict(before_previous_, previous_, glue_, w, h);
    return verdict.value || (verdict.if_closed && closes_phrase(w));
}

}  // namespace heal::fingerprint
