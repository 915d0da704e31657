#include "fingerprint/fingerprint.hpp"

#include "base/id.hpp"
#include "fingerprint/reader.hpp"
#include "fingerprint/scan.hpp"
#include "fingerprint/shape.hpp"
#include "fingerprint/traces.hpp"

#include <algorithm>

namespace heal::fingerprint {

const char* to_string(Rule rule) noexcept {
    static constexpr const char* names[] = {
        "number",
        "identifier",
        "url",
        "email",
        "path",
        "dotted-name",
        "quoted",
        "key-value",
        "hex",
        "constant",
        "object",
        "position",
        "cut"};
    return names[static_cast<std::size_t>(rule)];
}

namespace {

/// Between two values a run of soft marks joins them to one; both sinks share this small machine.
template <class Derived>
class Collapsing {
public:
    void text(std::string_view t) noexcept {
        flush();
        after_value_ = false;
        self().put_text(t);
    }
    void space() noexcept { separator(' '); }
    void mark(char c) noexcept { separator(c); }
    void value(Rule rule, std::string_view t) noexcept {
        self().masked(rule, t);
        if (after_value_) {
            pending_ = 0;
            return;
        }
        flush();
        self().put_value();
        after_value_ = true;
    }
    void finish() noexcept {
        // Trailing marks and blanks of a message carry nothing.
        while (pending_ > 0 && held_[pending_ - 1] == ' ') --pending_;
        flush();
    }

private:
    Derived& self() noexcept { return static_cast<Derived&>(*this); }

    void separator(char c) noexcept {
        const bool soft = c == ' ' || c == ',' || c == '|' || c == '/' || c == ':' || c == ';' || c == '.' ||
                          c == '-' || c == '_' || c == '+' || c == '&' || c == '=';
        if (!soft) {
            flush();
            after_value_ = false;
            self().put_mark(c);
            return;
        }
        if (pending_ == sizeof held_) {
            flush();
            after_value_ = false;
        }
        held_[pending_++] = c;
    }
    void flush() noexcept {
        for (std::size_t i = 0; i < pending_; ++i) self().put_mark(held_[i]);
        pending_ = 0;
    }

    char held_[8];
    std::size_t pending_ = 0;
    bool after_value_ = false;
};

class HashSink : public Collapsing<HashSink> {
public:
    HashSink(std::uint64_t a, std::uint64_t b) noexcept
        : low_(a ^ 0x2D358DCCAA6C78A5ULL), high_(b ^ 0x8BB84B93962EACC9ULL) {}
    void put_text(std::string_view t) noexcept {
        const char* p = t.data();
        std::size_t n = t.size();
        while (n > 8) {
            mix(detail::load(p, 8), 8);
            p += 8;
            n -= 8;
        }
        mix(detail::load(p, n), n);
    }
    void put_mark(char c) noexcept { mix(static_cast<unsigned char>(c), 0x100); }
    void put_value() noexcept { mix(0, 0x200); }
    void masked(Rule, std::string_view) noexcept {}
    Key key() const noexcept { return {low_, high_}; }

private:
    void mix(std::uint64_t v, std::uint64_t kind) noexcept {
        low_ = detail::fold_multiply(low_ ^ v, 0x4B33A62ED433D4A3ULL + kind * 2);
        high_ = detail::fold_multiply(high_ + v, 0x4D5A2DA51DE1AA47ULL ^ (kind << 32));
    }
    std::uint64_t low_, high_;
};

class TextSink : public Collapsing<TextSink> {
public:
    explicit TextSink(std::string& out, std::vector<Mask>* masks = nullptr) : out_(out), masks_(masks) {}
    void put_text(std::string_view t) { out_ += t; }
    void put_mark(char c) { out_ += c; }
    void put_value() { out_ += "<*>"; }
    void masked(Rule rule, std::string_view t) {
        if (masks_ != nullptr) masks_->push_back({to_string(rule), std::string{t.substr(0, 200)}});
    }

private:
    std::string& out_;
    std::vector<Mask>* masks_;
};

/// Replaces what is not UTF-8 (RFC 3629) by U+FFFD.
std::string valid_utf8(const std::string& s) {
    std::string out;
    out.reserve(s.size());
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(s[i]); };
    for (std::size_t i = 0; i < s.size();) {
        const unsigned char c = byte(i);
        std::size_t n = c < 0x80                 ? 1
                        : c >= 0xC2 && c <= 0xDF ? 2
                        : (c & 0xF0) == 0xE0     ? 3
                        : c >= 0xF0 && c <= 0xF4 ? 4
                                                 : 0;
        bool good = n > 0 && i + n <= s.size();
        for (std::size_t j = 1; good && j < n; ++j) good = (byte(i + j) & 0xC0) == 0x80;
        if (good && n == 3) good = !(c == 0xE0 && byte(i + 1) < 0xA0) && !(c == 0xED && byte(i + 1) > 0x9F);
        if (good && n == 4) good = !(c == 0xF0 && byte(i + 1) < 0x90) && !(c == 0xF4 && byte(i + 1) > 0x8F);
        if (good) {
            out.append(s, i, n);
            i += n;
        } else {
            out += "\xEF\xBF\xBD";
            ++i;
        }
    }
    return out;
}

std::string spell(std::string_view message, std::vector<Mask>* masks) {
    std::string pattern, plain;
    if (has_ansi(message)) {
        strip_ansi(message, plain);
        message = plain;
    }
    TextSink sink{pattern, masks};
    DigitWatch watch{message};
    Scan<TextSink>{message, sink, watch}.run();
    sink.finish();
    return valid_utf8(pattern);
}

std::string digest_of(std::string_view service, std::string_view pattern, std::string_view signature) {
    std::string text;
    text.reserve(service.size() + pattern.size() + signature.size() + 2);
    text.append(service).append(":").append(pattern).append(":").append(signature);
    return sha256_hex(text);
}

std::uint64_t number_of(std::string_view hex) noexcept {
    std::uint64_t v = 0;
    for (const char c : hex.substr(0, 16))
        v = v << 4 | static_cast<std::uint64_t>(c <= '9' ? c - '0' : c - 'a' + 10);
    return v;
}

constexpr std::size_t cache_sets = 1 << 13;  // 4 ways each: 32 Ki patterns, 1 MB
constexpr std::size_t ways = 4;
constexpr std::size_t shape_sets = 1 << 14;  // 65 536 shapes, 4 MB at most

}  // namespace

std::string pattern_of(std::string_view message) { return spell(message, nullptr); }

Fingerprint compute(std::string_view service, std::string_view message, std::string_view stack_trace) {
    Fingerprint f;
    f.pattern = pattern_of(message);
    if (!stack_trace.empty()) {
        // A trace without frames gives no signature: the message alone decides then.
        f.signature = valid_utf8(signature_of(parse_trace(stack_trace)).app5);
    }
    f.digest = digest_of(service, f.pattern, f.signature);
    f.id = f.digest.substr(0, 16);
    return f;
}

Explanation explain(std::string_view service, std::string_view raw_line, std::string_view stack_trace) {
    Explanation e;
    e.reader = std::make_shared<LineReader>();
    e.header = e.reader->read(raw_line);
    const std::string_view message = e.header.message;
    e.fingerprint = compute(service, message, stack_trace);
    spell(message, &e.masks);
    if (!stack_trace.empty()) e.frames = signature_of(parse_trace(stack_trace)).frames;
    return e;
}

/// 4-way sets; the newest entry of a full set replaces in turn. Begins with 8 KiB, grows by four.
struct Scanner::Slots {
    struct Slot {
        Key key;
        std::uint64_t id;
        bool used;
    };
    std::size_t sets = 64, pushed_out = 0;
    ZeroPages<Slot> pages{sets * ways};

    Slot* set_of(const Key& key) noexcept { return pages.data() + (key.low & (sets - 1)) * ways; }
    Slot& place(const Key& key, std::uint64_t turn) noexcept {
        Slot* const set = set_of(key);
        for (std::size_t i = 0; i < ways; ++i) {
            if (!set[i].used) return set[i];
        }
        ++pushed_out;
        return set[turn % ways];
    }
    void grow() {
        ZeroPages<Slot> old = std::move(pages);
        const std::size_t count = sets * ways;
        sets *= 4;
        pages = ZeroPages<Slot>{sets * ways};
        pushed_out = 0;
        for (std::size_t i = 0; i < count; ++i) {
            if (old.data()[i].used) place(old.data()[i].key, i) = old.data()[i];
        }
    }
};

Scanner::Scanner(std::string service, std::uint64_t seed_low, std::uint64_t seed_high)
    : service_(std::move(service)),
      seed_low_(seed_low),
      seed_high_(seed_high),
      slots_(std::make_unique<Slots>()),
      shape_(std::make_unique<ShapeHash>(seed_low ^ 0x5851F42D4C957F2DULL, seed_high)),
      memo_(std::make_unique<ShapeMemo>(shape_sets)),
      reader_(std::make_unique<LineReader>()) {}

Scanner::~Scanner() = default;
Scanner::Scanner(Scanner&&) noexcept = default;
Scanner& Scanner::operator=(Scanner&&) noexcept = default;

bool has_ansi(std::string_view text) noexcept { return text.find('\x1b') != std::string_view::npos; }

void strip_ansi(std::string_view text, std::string& out) {
    out.clear();
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '\x1b') {
            out += text[i];
            continue;
        }
        if (i + 1 >= text.size()) break;
        if (text[++i] == '[') {
            // Parameters and intermediates up to the final byte 0x40-0x7e.
            while (i + 1 < text.size() && text[i + 1] >= 0x20 && text[i + 1] < 0x40) ++i;
            ++i;
        } else if (text[i] == ']') {
            while (i + 1 < text.size() && text[i + 1] != '\x07' && text[i + 1] != '\x1b') ++i;
            ++i;
        }
    }
}

Key Scanner::scan(std::string_view message, DigitWatch& watch) {
    ++scans_;
    if (has_ansi(message)) {
        // The copy's digits have no place in the text.
        strip_ansi(message, plain_);
        message = plain_;
    }
    HashSink sink{seed_low_, seed_high_};
    Scan<HashSink>{message, sink, watch}.run();
    sink.finish();
    return sink.key();
}

Scanner::Known Scanner::known(std::string_view message, DigitWatch* line, bool with_id) {
    const bool remembers = remembers_ && message.size() <= ShapeHash::max_text;
    Shape shape;
    if (remembers) {
        shape = (*shape_)(message, ShapeOf::message);
        if (auto* const e = memo_->find(shape, message, line); e != nullptr) {
            const Key key{e->key_low, e->key_high};
            if (with_id && e->id == 0) e->id = id_of(key, message);
            return {key, e->id};
        }
    }
    Known known;
    DigitWatch watch{message};
    known.key = scan(message, watch);
    if (with_id) known.id = id_of(known.key, message);
    if (line != nullptr) line->take(watch);
    if (remembers) memo_->put(shape, watch, known.key.low, known.key.high, known.id);
    return known;
}

Key Scanner::key(std::string_view message, DigitWatch* watch) { return known(message, watch, false).key; }

std::uint64_t Scanner::id(std::string_view message) { return known(message, nullptr, true).id; }

std::uint64_t Scanner::id_of(const Key& k, std::string_view message) {
    Slots::Slot* const set = slots_->set_of(k);
    for (std::size_t i = 0; i < ways; ++i) {
        if (set[i].used && set[i].key == k) return set[i].id;
    }
    ++misses_;
    const std::uint64_t id = number_of(digest_of(service_, pattern_of(message), {}));
    if (slots_->pushed_out > slots_->sets && slots_->sets < cache_sets) slots_->grow();
    slots_->place(k, misses_) = {k, id, true};
    return id;
}

std::uint64_t Scanner::id_of_line(std::string_view raw_line) {
    const bool remembers = remembers_ && raw_line.size() <= ShapeHash::max_text;
    Shape shape;
    if (remembers) {
        shape = (*shape_)(raw_line, ShapeOf::line);
        if (const auto* e = memo_->find(shape, raw_line, nullptr); e != nullptr) return e->id;
    }
    DigitWatch watch{raw_line};
    const std::string_view message = reader_->read(raw_line, watch).message;
    const Known found = known(message, &watch, true);
    if (remembers) memo_->put(shape, watch, found.key.low, found.key.high, found.id);
    return found.id;
}

void unescape_json(std::string_view text, std::string& out) {
    out.clear();
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '\\' || i + 1 >= text.size()) {
            out += text[i];
            continue;
        }
        const char c = text[++i];
        switch (c) {
            case 'n':
                out += '\n';
                break;
            case 't':
                out += '\t';
                break;
            case 'r':
                out += '\r';
                break;
            case 'b':
                out += '\b';
                break;
            case 'f':
                out += '\f';
                break;
            case 'u': {
                const auto hex4 = [&](std::size_t at) -> long {
                    if (at + 4 > text.size()) return -1;
                    long v = 0;
                    for (std::size_t j = at; j < at + 4; ++j) {
                        if (!is_hex(text[j])) return -1;
                        v = v * 16 + (is_digit(text[j]) ? text[j] - '0' : (text[j] | 0x20) - 'a' + 10);
                    }
                    return v;
                };
                long v = hex4(i + 1);
                if (v < 0) {
                    out += 'u';
                    break;
                }
                i += 4;
                if (v >= 0xD800 && v < 0xDC00 && text.substr(i + 1, 2) == "\\u") {
                    const long w = hex4(i + 3);
                    if (w >= 0xDC00 && w < 0xE000) {
                        v = 0x10000 + ((v - 0xD800) << 10) + (w - 0xDC00);
                        i += 6;
                    }
                }
                if (v >= 0xD800 && v < 0xE000) v = 0xFFFD;
                const auto put = [&](long b) { out += static_cast<char>(b); };
                if (v < 0x80)
                    put(v);
                else if (v < 0x800)
                    put(0xC0 | v >> 6), put(0x80 | (v & 63));
                else if (v < 0x10000)
                    put(0xE0 | v >> 12), put(0x80 | (v >> 6 & 63)), put(0x80 | (v & 63));
                else
                    put(0xF0 | v >> 18), put(0x80 | (v >> 12 & 63)), put(0x80 | (v >> 6 & 63)),
                        put(0x80 | (v & 63));
                break;
            }
            default:
                out += c;
        }
    }
}

void id_hex(std::uint64_t id, char (&out)[16]) noexcept {
    // Eight digits at once: nibbles spread to bytes, then 10-15 moved up to the letters.
    for (int half = 1; half >= 0; --half, id >>= 32) {
        std::uint64_t x = id & 0xFFFFFFFFU;
        x = (x | x << 16) & 0x0000FFFF0000FFFFULL;
        x = (x | x << 8) & 0x00FF00FF00FF00FFULL;
        x = (x | x << 4) & 0x0F0F0F0F0F0F0F0FULL;
        const std::uint64_t letters = ((x + 0x0606060606060606ULL) >> 4) & 0x0101010101010101ULL;
        x += 0x3030303030303030ULL + letters * ('a' - '0' - 10);
        for (int i = 0; i < 8; ++i) out[half * 8 + i] = static_cast<char>(x >> (56 - 8 * i));
    }
}

}  // namespace heal::fingerprint
