#include "ingest/batch.hpp"

#include "base/json.hpp"
#include "ingest/text.hpp"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_map>

namespace heal {
namespace {

constexpr Duration oldest_event{7LL * 24 * 3600 * 1'000'000};  // reliability row 18: log time is data only
constexpr Duration newest_event{5LL * 60 * 1'000'000};
constexpr std::size_t known_bytes = 4U << 20U;

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
    __extension__ using Wide = unsigned __int128;
    const Wide product = static_cast<Wide>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64U);
}

// Keyed, so that nobody can make two texts share an index entry (reliability row 23).
class KeyedHash {
public:
    KeyedHash() {
        if (::getrandom(key_, sizeof key_, 0) != static_cast<ssize_t>(sizeof key_)) {
            key_[0] ^= reinterpret_cast<std::uintptr_t>(this);
        }
        key_[1] |= 1U;
    }
    std::uint64_t part(std::size_t i) const { return key_[i]; }
    std::uint64_t operator()(const fingerprint::Key& key, std::uint64_t seed) const {
        return mix(mix(key.low ^ key_[1] ^ seed, key.high ^ key_[0]) ^ seed, key_[1]);
    }
    std::uint64_t operator()(std::string_view text, std::uint64_t seed) const {
        std::uint64_t h = seed ^ key_[0];
        const char* p = text.data();
        std::size_t left = text.size();
        for (; left >= 16; left -= 16, p += 16) h = mix(word(p) ^ key_[1] ^ h, word(p + 8) ^ key_[0]);
        char tail[16] = {};
        if (left > 0) std::memcpy(tail, p, left);
        h = mix(word(tail) ^ key_[1] ^ h, word(tail + 8) ^ key_[0]);
        return mix(h ^ text.size(), key_[1]);
    }

private:
    static std::uint64_t word(const char* p) {
        std::uint64_t w = 0;
        std::memcpy(&w, p, sizeof w);
        return w;
    }
    std::uint64_t key_[2] = {0x9E3779B97F4A7C15ULL, 0xD1B54A32D192ED03ULL};
};

bool is_plain_ascii(std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return c > 0; });
}

// UTF-8 without NUL (PostgreSQL's text can't hold it), cut at `max` without leaving half a character.
void set_text(std::string& ret, std::string_view text, std::size_t max) {
    if (text.size() > max) text = cut_utf8(text, max);
    if (is_plain_ascii(text)) {
        ret.assign(text);
        return;
    }
    ret = to_valid_utf8(text);
    for (auto at = ret.find('\0'); at != std::string::npos; at = ret.find('\0', at))
        ret.replace(at, 1, "\xEF\xBF\xBD");
}

}  // namespace

struct BatchBuilder::State {
    // 64 bytes and its text: with the index entries and the scanner's memo less than 300 bytes per known
    // fingerprint (bench).
    struct Known {
        std::array<char, 32> digest{};  // binary; hex when it is handed out
        std::unique_ptr<char[]> text;   // pattern, then signature
        std::uint32_t pattern_size = 0, signature_size = 0;
        std::uint32_t generation = 0;  // of the batch `delta` points into; comes round after 4e9 batches
        std::uint32_t delta : 31 = 0;
        std::uint32_t fresh : 1 = 1;  // met for the first time in this batch

        std::string_view pattern() const { return {text.get(), pattern_size}; }
        std::string_view signature() const { return {text.get() + pattern_size, signature_size}; }
    };

    explicit State(const Clock& c) : clock(c) {}

    const Clock& clock;
    KeyedHash hash;
    fingerprint::Scanner scanner{{}, hash.part(0), hash.part(1)};
    Batch batch;
    bool time_read = false;
    std::uint32_t generation = 1;
    std::unordered_map<std::uint64_t, Known*> texts;  // service, environment, pattern and stack, hashed
    std::unordered_map<std::uint64_t, Known> prints;  // environment and digest, hashed
    std::size_t bytes_known = 0;
    std::string message_scratch, stack_scratch;
    std::shared_ptr<const fingerprint::Rules> current_rules, no_rules;

    Time now() {
        if (!time_read) {
            batch.received = clock.wall();
            time_read = true;
        }
        return batch.received;
    }

    /// Ids under older rules are forgotten when the rules change.
    void use(const std::shared_ptr<const fingerprint::Rules>& rules) {
        const auto& next = rules && rules->size() > 0 ? rules : no_rules;
        if (next == current_rules) return;
        current_rules = next;
        texts.clear();
    }

    fingerprint::Fingerprint compute(
        std::string_view service, std::string_view component, std::string_view message, std::string_view stack
    ) const {
        if (!current_rules) return fingerprint::compute(service, message, stack);
        return current_rules->apply({service, component, message, stack}).fingerprint;
    }

    // The last record of a delta, when it was counted by its shape.
    struct Pending {
        std::string line;
        Time outer;
        std::shared_ptr<LineAgain> again;  // null: none
    };
    std::vector<Pending> pending;  // by delta; longer than the deltas, its strings are used again

    Time sane(Time time) {
        const Time received = now();
        return time.us != 0 && time >= received - oldest_event && time <= received + newest_event ? time
                                                                                                  : received;
    }

    Known& known(
        std::string_view service,
        std::string_view environment,
        std::string_view component,
        std::string_view message,
        std::string_view stack,
        fingerprint::DigitWatch* watch,
        std::uint64_t& key
    ) {
        // Only rules look at the component and at the words of a message; without them all messages of one
        // pattern are one, and the scanner knows most of them by their shape.
        key = hash(environment, hash(service, 0));
        key = current_rules ? hash(message, hash(component, key)) : hash(scanner.key(message, watch), key);
        if (!stack.empty()) key = hash(stack, key);
        if (const auto found = texts.find(key); found != texts.end()) return *found->second;
        if (texts.size() >= known_texts || bytes_known > known_bytes) {
            // Deltas of the batch under way find each other by `prints`, so only entries of earlier batches
            // may go.
            texts.clear();
            bytes_known = 0;
            for (auto i = prints.begin(); i != prints.end();) {
                if (i->second.generation == generation) {
                    bytes_known += size_of(i->second);
                    ++i;
                } else {
                    i = prints.erase(i);
                }
            }
        }
        auto print = compute(service, component, message, stack);
        const auto digest = from_hex(print.digest);
        auto at = hash({digest.data(), digest.size()}, hash(environment, 1));
        // Two digests under one hash are kept apart.
        for (auto i = prints.find(at); i != prints.end() && i->second.digest != digest; i = prints.find(at))
            ++at;
        const auto [place, made] = prints.try_emplace(at);
        Known& slot = place->second;
        if (made) {
            slot.digest = digest;
            slot.pattern_size = static_cast<std::uint32_t>(print.pattern.size());
            slot.signature_size = static_cast<std::uint32_t>(print.signature.size());
            slot.text = std::make_unique<char[]>(print.pattern.size() + print.signature.size());
            std::copy(print.pattern.begin(), print.pattern.end(), slot.text.get());
            std::copy(print.signature.begin(), print.signature.end(), slot.text.get() + slot.pattern_size);
            bytes_known += size_of(slot);
        }
        texts.emplace(key, &slot);
        return slot;
    }

    static std::array<char, 32> from_hex(std::string_view hex) {
        const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
        std::array<char, 32> ret{};
        for (std::size_t i = 0; i < 32 && i * 2 + 1 < hex.size(); ++i)
            ret[i] = static_cast<char>(digit(hex[i * 2]) * 16 + digit(hex[i * 2 + 1]));
        return ret;
    }
    static std::string to_hex(const std::array<char, 32>& digest) {
        std::string ret;
        for (const char c : digest) {
            ret += "0123456789abcdef"[static_cast<unsigned char>(c) >> 4U];
            ret += "0123456789abcdef"[static_cast<unsigned char>(c) & 15U];
        }
        return ret;
    }

    void fill(
        LogRecord& sample,
        const Delta& delta,
        const RecordView& record,
        const DecodeDefaults& defaults,
        std::string_view clean_message,
        Level level
    ) {
        sample.time = sane(record.time);
        sample.received = now();
        sample.service_name = delta.service_name;
        sample.environment = delta.environment;
        set_text(sample.release, record.release, max_name_bytes);
        set_text(
            sample.host, record.host.empty() ? std::string_view{defaults.host} : record.host, max_name_bytes
        );
        set_text(
            sample.component, record.component.empty() ? record.logger : record.component, max_name_bytes
        );
        sample.level = level;
        sample.message.assign(clean_message);
        set_text(sample.error_type, record.error_type, max_name_bytes);
        set_text(sample.request_id, record.request_id, max_name_bytes);
        set_text(sample.workspace_id, record.workspace_id, max_name_bytes);
        set_text(sample.trace_id, record.trace_id, max_name_bytes);
        sample.http_status = record.http_status;
        sample.context = record.context != nullptr ? record.context->context() : std::string{};
        sample.source = defaults.source;
        sample.fingerprint = delta.fingerprint;
        sample.digest = delta.digest;
        sample.pattern = delta.pattern;
    }

    static std::size_t size_of(const Known& known) {
        return sizeof(Known) + known.pattern_size + known.signature_size + 112;
    }
};

BatchBuilder::BatchBuilder(const Clock& clock) : state_(std::make_unique<State>(clock)) {}
BatchBuilder::~BatchBuilder() = default;

void BatchBuilder::count_lines(std::uint64_t lines, std::uint64_t bytes) {
    state_->now();
    state_->batch.lines += lines;
    state_->batch.bytes += bytes;
}
void BatchBuilder::count_joined(std::uint64_t lines) { state_->batch.joined += lines; }
void BatchBuilder::count_malformed(std::uint64_t lines) { state_->batch.malformed += lines; }
void BatchBuilder::count_below_level(std::uint64_t lines) { state_->batch.below_level += lines; }
void BatchBuilder::count_self(std::uint64_t lines) { state_->batch.self += lines; }
bool BatchBuilder::full() const { return state_->batch.deltas.size() >= max_deltas; }
bool BatchBuilder::has_lines() const { return state_->batch.lines > 0; }
const Batch& BatchBuilder::peek() const { return state_->batch; }
Time BatchBuilder::received() const { return state_->now(); }

BatchBuilder::Added BatchBuilder::add(
    const RecordView& record, const DecodeDefaults& defaults, fingerprint::DigitWatch* watch
) {
    Added added;
    State& s = *state_;
    const auto service = !record.service.empty()             ? record.service.substr(0, max_name_bytes)
                         : !defaults.service.empty()         ? std::string_view{defaults.service}
                         : !defaults.unnamed_service.empty() ? std::string_view{defaults.unnamed_service}
                                                             : std::string_view{"unknown"};
    if (service == "heald" || record.logger == "heald") {
        ++s.batch.self;
        added.what = Added::What::self;
        return added;
    }
    const Level level = level_of(record, defaults);
    if (level < defaults.min_level) {
        ++s.batch.below_level;
        added.what = Added::What::below_level;
        return added;
    }
    const auto environment = !record.environment.empty() ? record.environment.substr(0, max_name_bytes)
                                                         : std::string_view{defaults.environment};
    const bool cut = record.truncated || record.message.size() > max_message_bytes ||
                     record.stack_trace.size() > max_stack_bytes;
    const auto message = cut_utf8(record.message, max_message_bytes);
    const auto stack = cut_utf8(record.stack_trace, max_stack_bytes);
    // The id is computed from the text as it is stored, so that whoever computes it again from the store gets
    // the same.
    const auto clean = [](std::string_view text, std::string& scratch) -> std::string_view {
        if (is_plain_ascii(text)) return text;
        set_text(scratch, text, text.size());
        return scratch;
    };
    const auto clean_message = clean(message, s.message_scratch);
    const auto clean_stack = clean(stack, s.stack_scratch);

    s.use(defaults.rules);
    auto* found =
        &s.known(service, environment, record.component, clean_message, clean_stack, watch, added.key);
    // A little room above: what a line decoder still holds when the batch is full.
    const bool fold = found->generation != s.generation && s.batch.deltas.size() >= max_deltas + 64;
    if (fold) {
        std::uint64_t key = 0;
        found = &s.known(service, environment, {}, other_errors, {}, nullptr, key);
        ++s.batch.folded;
    }
    auto& known = *found;
    added.repeatable = !fold && !cut && !s.current_rules && record.stack_trace.empty();
    const Time time = s.sane(record.time);

    if (known.generation != s.generation) {
        known.fresh = known.generation == 0;
        known.generation = s.generation;
        known.delta = static_cast<std::uint32_t>(s.batch.deltas.size()) & 0x7FFFFFFFU;
        Delta& made = s.batch.deltas.emplace_back();
        made.digest = State::to_hex(known.digest);
        made.fingerprint = made.digest.substr(0, 16);
        made.pattern = known.pattern();
        made.signature = known.signature();
        set_text(made.service_name, service, max_name_bytes);
        set_text(made.environment, environment, max_name_bytes);
        made.first = made.last = time;
    }
    Delta& delta = s.batch.deltas[known.delta];
    ++delta.count;
    ++s.batch.records;
    if (cut) ++s.batch.truncated;
    delta.level = std::max(delta.level, level);
    delta.first = std::min(delta.first, time);
    delta.last = std::max(delta.last, time);

    const std::size_t keep = known.fresh ? 4 : 2;
    if (delta.samples.size() < keep) delta.samples.emplace_back();
    if (known.delta < s.pending.size()) s.pending[known.delta].again.reset();
    LogRecord& sample = delta.samples.back();
    s.fill(sample, delta, record, defaults, fold ? std::string_view{other_errors} : clean_message, level);
    if (fold) {
        sample.error_type.clear();
        sample.stack_trace.clear();
    } else {
        sample.stack_trace.assign(clean_stack);
    }
    return added;
}

bool BatchBuilder::repeat(
    std::uint64_t key, Level level, Time time, std::string_view line, Time outer, LineAgain& again
) {
    State& s = *state_;
    const auto found = s.texts.find(key);
    if (found == s.texts.end()) return false;
    const State::Known& known = *found->second;
    if (known.generation != s.generation) return false;
    Delta& delta = s.batch.deltas[known.delta];
    // The first samples are made as they come.
    if (delta.samples.size() < (known.fresh ? 4U : 2U)) return false;
    time = s.sane(time);
    ++delta.count;
    ++s.batch.records;
    delta.level = std::max(delta.level, level);
    delta.first = std::min(delta.first, time);
    delta.last = std::max(delta.last, time);
    if (s.pending.size() <= known.delta) s.pending.resize(known.delta + 64);
    State::Pending& pending = s.pending[known.delta];
    pending.line.assign(line);
    pending.outer = outer;
    if (pending.again.get() != &again) pending.again = again.share();
    return true;
}

void BatchBuilder::put_last_sample(
    std::uint32_t delta, const RecordView& record, const DecodeDefaults& defaults
) {
    State& s = *state_;
    const auto message = cut_utf8(record.message, max_message_bytes);
    if (!is_plain_ascii(message)) set_text(s.message_scratch, message, message.size());
    Delta& d = s.batch.deltas[delta];
    s.fill(
        d.samples.back(),
        d,
        record,
        defaults,
        is_plain_ascii(message) ? message : std::string_view{s.message_scratch},
        level_of(record, defaults)
    );
    d.samples.back().stack_trace.clear();
}

Batch BatchBuilder::take() {
    State& s = *state_;
    for (std::uint32_t i = 0; i < s.pending.size() && i < s.batch.deltas.size(); ++i) {
        const auto again = std::move(s.pending[i].again);
        if (again) again->read_again(s.pending[i].line, s.pending[i].outer, *this, i);
    }
    Batch ret = std::move(s.batch);
    if (!s.time_read) ret.received = s.clock.wall();
    s.batch = Batch{};
    s.time_read = false;
    ++s.generation;
    return ret;
}

}  // namespace heal
