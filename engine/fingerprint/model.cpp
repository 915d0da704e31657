#include "fingerprint/model.hpp"

#include <algorithm>
#include <array>

namespace heal::fingerprint {
namespace {

constexpr std::string_view extensions[] = {
    "avi", "bak", "bat", "bin", "biz", "bz2", "c", "cc", "cfg", "class", "cnf", "com", "conf", "cpp", "crt", "css", "csv", "cxx", "dat", "db",
    "deb", "dll", "dmg", "doc", "docx", "edu", "exe", "gif", "go", "gov", "gz", "h", "hpp", "htm", "html", "ini", "io", "iso", "jar", "java",
    "jpeg", "jpg", "js", "json", "jsp", "key", "ko", "kt", "lan", "lck", "local", "localdomain", "lock", "log", "lua", "mdb", "mjs", "mov", "net", "o",
    "old", "org", "out", "pdf", "pem", "php", "pid", "pl", "plist", "png", "pp", "properties", "ps", "py", "rb", "rpm", "rs", "rules", "service", "sh",
    "so", "sock", "socket", "sql", "sqlite", "svc", "sys", "target", "tar", "tgz", "timer", "tmp", "toml", "ts", "txt", "vue", "wav", "xls", "xlsx", "xml",
    "xz", "yaml", "yml", "zip"};

constexpr std::string_view with_digits[] = {
    "a2dp", "base64", "bzip2", "crc32", "crypt32", "ed25519", "ext2", "ext3", "ext4", "gzip2", "http2", "http3", "i18n", "i386", "i686", "ipv4",
    "ipv6", "iso8859", "k8s", "l10n", "md5", "net6", "nfs3", "nfs4", "oauth2", "oauth1", "p2p", "pkcs11", "pkcs12", "s3", "sha1", "sha256", "sha384",
    "sha512", "sqlite3", "ssh1", "ssh2", "tls1", "utf-16", "utf-32", "utf-8", "utf16", "utf32", "utf8", "win32", "win64", "x11", "x509", "x86", "x86_64"};

}  // namespace

bool is_extension(std::string_view lower) noexcept { return std::binary_search(std::begin(extensions), std::end(extensions), lower); }

bool is_known_with_digits(std::string_view w) noexcept {
    if (w.size() > 9) return false;
    char low[9];
    for (std::size_t i = 0; i < w.size(); ++i) low[i] = w[i] >= 'A' && w[i] <= 'Z' ? static_cast<char>(w[i] + 32) : w[i];
    return std::binary_search(std::begin(with_digits), std::end(with_digits), std::string_view{low, w.size()});
}

bool model_says_value(std::uint64_t, std::uint64_t previous, char glue, std::string_view w, std::uint64_t) noexcept {
    static const std::uint64_t user = folded_hash("user");
    if (previous == user && glue == ' ') {
        static constexpr std::string_view stop[] = {"unknown", "request", "agent", "name", "is", "not", "has", "was", "and", "or", "authentication", "id", "process"};
        return std::find(std::begin(stop), std::end(stop), w) == std::end(stop);
    }
    return false;
}

}  // namespace heal::fingerprint
