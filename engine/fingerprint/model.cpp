#include "fingerprint/model.hpp"

#include <algorithm>
#include <array>

namespace heal::fingerprint {
namespace {

constexpr std::string_view extensions[] = {
    "avi",   "bak",         "bat",    "bin",  "biz",    "bz2", "c",   "cc",     "cfg",     "class",
    "cnf",   "com",         "conf",   "cpp",  "crt",    "css", "csv", "cxx",    "dat",     "db",
    "deb",   "dll",         "dmg",    "doc",  "docx",   "edu", "exe", "gif",    "go",      "gov",
    "gz",    "h",           "hpp",    "htm",  "html",   "ini", "io",  "iso",    "jar",     "java",
    "jpeg",  "jpg",         "js",     "json", "jsp",    "key", "ko",  "kt",     "lan",     "lck",
    "local", "localdomain", "lock",   "log",  "lua",    "mdb", "mjs", "mov",    "net",     "o",
    "old",   "org",         "out",    "pdf",  "pem",    "php", "pid", "pl",     "plist",   "png",
    "pp",    "properties",  "ps",     "py",   "rb",     "rpm", "rs",  "rules",  "service", "sh",
    "so",    "sock",        "socket", "sql",  "sqlite", "svc", "sys", "target", "tar",     "tgz",
    "timer", "tmp",         "toml",   "ts",   "txt",    "vue", "wav", "xls",    "xlsx",    "xml",
    "xz",    "yaml",        "yml",    "zip"};

constexpr std::string_view with_digits[] = {
    "a2dp",  "base64", "bzip2",  "crc32",  "crypt32", "ed25519", "ext2", "ext3",    "ext4",   "gzip2",
    "http2", "http3",  "i18n",   "i386",   "i686",    "ipv4",    "ipv6", "iso8859", "k8s",    "l10n",
    "md5",   "net6",   "nfs3",   "nfs4",   "oauth2",  "oauth1",  "p2p",  "pkcs11",  "pkcs12", "s3",
    "sha1",  "sha256", "sha384", "sha512", "sqlite3", "ssh1",    "ssh2", "tls1",    "utf-16", "utf-32",
    "utf-8", "utf16",  "utf32",  "utf8",   "win32",   "win64",   "x11",  "x509",    "x86",    "x86_64"};

}  // namespace

bool is_extension(std::string_view lower) noexcept {
    return std::binary_search(std::begin(extensions), std::end(extensions), lower);
}

bool is_known_with_digits(std::string_view w, bool& looked) noexcept {
    looked = false;
    if (w.size() > 9 || w.size() < 2) return false;
    char low[9];
    for (std::size_t i = 0; i < w.size(); ++i)
        low[i] = w[i] >= 'A' && w[i] <= 'Z' ? static_cast<char>(w[i] + 32) : w[i];
    const std::string_view lower{low, w.size()};
    const auto digit = [](char c) { return c >= '0' && c <= '9'; };
    for (const std::string_view known : with_digits) {
        if (known[0] != lower[0] || known.size() != lower.size()) continue;
        bool same_shape = true;
        for (std::size_t i = 1; i < known.size(); ++i)
            same_shape = same_shape && (digit(known[i]) ? digit(lower[i]) : known[i] == lower[i]);
        looked = looked || same_shape;
        if (known == lower) return true;
    }
    return false;
}

bool is_device_stem(std::string_view lower) noexcept {
    static constexpr std::string_view stems[] = {"alt",  "awdl",  "bond", "br",   "docker", "dummy", "em",
                                                 "en",   "eth",   "fw",   "gif",  "ib",     "ifb",   "lo",
                                                 "ppp",  "sit",   "stf",  "tap",  "team",   "tun",   "utun",
                                                 "veth", "virbr", "vlan", "wlan", "wwan"};
    return std::binary_search(std::begin(stems), std::end(stems), lower);
}

namespace {

constexpr std::size_t slots = std::size_t{1} << 18;
constexpr int threshold = 6;
enum Kind : std::uint64_t {
    word_kind = 0x1111,
    after_kind = 0x2222,
    after_two_kind = 0x3333,
    pair_kind = 0x4444,
    kind_kind = 0x5555
};

}  // namespace
}  // namespace heal::fingerprint

// The table is data, not code: 2^18 little-endian words of 28 bits of hash and 4 bits of value
// (build_model.py).
extern "C" {
extern const std::uint32_t heal_fingerprint_model[];
}
asm(".pushsection .rodata.heal_fingerprint_model,\"a\",@progbits\n"
    ".balign 64\n"
    ".hidden heal_fingerprint_model\n"
    ".globl heal_fingerprint_model\n"
    "heal_fingerprint_model:\n"
    ".incbin \"" HEAL_MODEL_FILE
    "\"\n"
    ".popsection\n");

namespace heal::fingerprint {
namespace {

/// 0: not in the table.
unsigned find(std::uint64_t hash, std::uint64_t kind) noexcept {
    const std::uint64_t h = detail::fold_multiply(hash ^ kind, 0x9FB21C651E98DF25ULL);
    const std::uint32_t tag = static_cast<std::uint32_t>(h >> 36);
    // The builder leaves at least 15 % of the slots empty, so that a run of full ones always ends.
    for (std::size_t slot = h & (slots - 1);; slot = (slot + 1) & (slots - 1)) {
        const std::uint32_t entry = heal_fingerprint_model[slot];
        if (entry == 0) return 0;
        if (entry >> 4 == tag) return entry & 15;
    }
}

std::uint64_t pair_hash(std::uint64_t a, std::uint64_t b) noexcept {
    return detail::fold_multiply(a ^ 0x589965CC75374CC3ULL, b);
}

}  // namespace

Evidence evidence_of(std::uint64_t before, std::uint64_t previous, char glue, std::uint64_t hash) noexcept {
    Evidence e;
    const std::uint64_t mark = static_cast<unsigned char>(glue);
    e.after = find(previous ^ mark, after_kind);
    if (e.after == 0) return e;
    if (before != 0) e.after_two = find(pair_hash(before, previous) ^ mark, after_two_kind);
    e.word = find(hash, word_kind);
    e.pair = find(pair_hash(previous, hash), pair_kind);
    return e;
}

bool is_known_word(std::uint64_t hash) noexcept { return find(hash, word_kind) != 0; }

bool is_kind(std::uint64_t hash) noexcept { return find(hash, kind_kind) != 0; }

bool is_state(std::string_view w, std::uint64_t hash) noexcept {
    const auto ends = [&](std::string_view e) {
        return w.size() > e.size() + 1 && folded_hash(w.substr(w.size() - e.size())) == folded_hash(e);
    };
    if (ends("ed") || ends("ing") || ends("able") || ends("ible") || ends("n't") || ends("tion") ||
        ends("sion") || ends("ment") || ends("ness"))
        return true;
    static constexpr auto words = detail::sorted_hashes(
        {"began",      "became",       "came",      "got",        "took",         "went",     "absent",
         "active",     "alive",        "already",   "ambiguous",  "asleep",       "away",     "bad",
         "begun",      "broken",       "built",     "bound",      "busy",         "clean",    "complete",
         "corrupt",    "current",      "dead",      "different",  "dirty",        "done",     "down",
         "duplicate",  "empty",        "error",     "exists",     "fail",         "fails",    "failure",
         "false",      "fatal",        "fine",      "found",      "free",         "frozen",   "full",
         "gone",       "good",         "healthy",   "held",       "idle",         "illegal",  "inactive",
         "incomplete", "inconsistent", "incorrect", "info",       "information",  "invalid",  "kept",
         "known",      "late",         "left",      "locked",     "long",         "lost",     "low",
         "made",       "mismatch",     "missing",   "new",        "null",         "obsolete", "off",
         "offline",    "ok",           "okay",      "old",        "online",       "open",     "out",
         "overflow",   "present",      "put",       "read",       "ready",        "run",      "running",
         "same",       "sent",         "set",       "shut",       "slow",         "small",    "stale",
         "started",    "stuck",        "success",   "successful", "successfully", "taken",    "thrown",
         "timeout",    "too",          "true",      "unhealthy",  "unknown",      "unsafe",   "unused",
         "up",         "valid",        "was",       "written",    "wrong",        "zero"}
    );
    return std::binary_search(words.begin(), words.end(), hash);
}

bool is_function_word(std::uint64_t hash) noexcept {
    static constexpr auto words = detail::sorted_hashes(
        {"a",       "about",   "across", "after", "again",   "against", "already", "also",    "always",
         "an",      "and",     "any",    "are",   "as",      "at",      "because", "been",    "before",
         "being",   "between", "but",    "by",    "can",     "cannot",  "can't",   "could",   "couldn't",
         "did",     "didn't",  "do",     "does",  "doesn't", "due",     "during",  "for",     "from",
         "had",     "has",     "have",   "if",    "in",      "inside",  "instead", "into",    "is",
         "isn't",   "it",      "its",    "may",   "might",   "must",    "never",   "no",      "not",
         "now",     "of",      "off",    "on",    "onto",    "or",      "out",     "outside", "over",
         "since",   "so",      "still",  "than",  "that",    "the",     "their",   "then",    "there",
         "this",    "through", "to",     "too",   "under",   "until",   "up",      "via",     "was",
         "wasn't",  "were",    "when",   "where", "which",   "while",   "will",    "with",    "within",
         "without", "won't",   "would",  "yet",   "your"}
    );
    return std::binary_search(words.begin(), words.end(), hash);
}

Verdict model_verdict(
    std::uint64_t before, std::uint64_t previous, char glue, std::string_view w, std::uint64_t hash
) noexcept {
    if (glue == '[') {
        // An index in capitals that no message has as text: [LNKF].
        bool capitals = w.size() >= 3;
        for (const char c : w) capitals = capitals && c >= 'A' && c <= 'Z';
        if (capitals && find(hash, word_kind) == 0) return {true, false};
    }
    const Evidence e = evidence_of(before, previous, glue, hash);
    if (e.after == 0) return {};
    // Behind a colon stands text more often than not; only clear labels count.
    if (glue == ':' && e.after < 15) return {};
    Verdict verdict;
    verdict.if_closed = glue == ' ' && e.pair == 0 && w.size() >= 2 && is_kind(previous) &&
                        !is_function_word(hash) && !is_state(w, hash);
    const int context = static_cast<int>(e.after_two != 0 ? e.after_two : e.after);
    if (w.size() < 2 && context < 12) return verdict;
    // Seen as text right here: text.
    if (e.pair >= 2) return verdict;
    verdict.value = context * 2 - static_cast<int>(e.word) * 2 - static_cast<int>(e.pair) >= threshold;
    return verdict;
}

}  // namespace heal::fingerprint
