// Drops cached values that make a service fail: keys of Redis, keys of memcached, paths of an HTTP cache.
// Only what the inventory declares can be dropped; a key that the error names narrows it down to that key.
// Verifies by reading through.
#include <heal/sdk.hpp>

#include <algorithm>

namespace {

using namespace std::chrono_literals;

// Redis' glob as far as key patterns in an inventory use it: * and ?.
bool fits(std::string_view pattern, std::string_view text) {
    std::size_t p = 0, t = 0, star = std::string_view::npos, mark = 0;
    while (t < text.size()) {
        if (p < pattern.size() && pattern[p] == '*') {
            star = p++;
            mark = t;
        } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
            ++p;
            ++t;
        } else if (star != std::string_view::npos) {
            p = star + 1;
            t = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.size() && pattern[p] == '*') ++p;
    return p == pattern.size();
}

bool is_key(char c) {
    return static_cast<unsigned char>(c) > 0x20 && c != 0x7F &&
           std::string_view{"'\"`,;()[]{}<>="}.find(c) == std::string_view::npos;
}

// The keys that the error speaks of. The text can only choose among what is declared, never add to it.
std::vector<std::string> named_keys(const heal::request& rq, const std::vector<std::string>& patterns) {
    std::vector<std::string> found;
    const auto look = [&](std::string_view text) {
        for (std::size_t i = 0; i < text.size() && found.size() < 16;) {
            if (!is_key(text[i])) {
                ++i;
                continue;
            }
            std::size_t end = i;
            while (end < text.size() && is_key(text[end])) ++end;
            std::string_view word = text.substr(i, end - i);
            i = end;
            while (!word.empty() && (word.back() == '.' || word.back() == ':')) word.remove_suffix(1);
            if (word.size() > 256 || word.find_first_of("*?") != std::string_view::npos) continue;
            const bool declared =
                std::any_of(patterns.begin(), patterns.end(), [&](const auto& p) { return fits(p, word); });
            if (declared && std::find(found.begin(), found.end(), word) == found.end())
                found.emplace_back(word);
        }
    };
    look(rq.message());
    for (const auto& [_, value] : rq.incident()["context"].members()) look(value.view());
    return found;
}

// FNV-1a: enough to see whether a value came back.
std::string hash_of(std::string_view text) {
    std::uint64_t h = 14695981039346656037ULL;
    for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
    return std::to_string(h);
}

struct cache_flush {
    static constexpr heal::descriptor about{
        .name = "cache_flush",
        .version = "1.0.0",
        .summary = "Drops the service's cached values in Redis, memcached or an HTTP cache",
        .priority = 60,
        .confidence = 0.5,
        .risk = heal::risk::safe,
        .idempotent = true,
        .reversible = false,
        .timeout = 30s,
        .matches = R"([{"target": ["redis"]}, {"target": ["memcached"]}, {"target": ["http_cache"]}])",
        .capabilities =
            {"net:{target.redis.address}",
             "net:{target.memcached.address}",
             "net:{target.http_cache.address}",
             "net:{target.read_through.address}",
             "net:{target.redis.read_through.address}",
             "net:{target.memcached.read_through.address}"},
    };

    static heal::parameters parameters() {
        return {
            heal::boolean("whole_database")
                .by_default(false)
                .summary("flush the whole database when no keys are declared and none is named"),
            heal::integer("max_keys")
                .range(1, 1'000'000)
                .by_default(100'000)
                .summary("give up rather than drop more keys than this"),
            heal::boolean("only_named")
                .by_default(false)
                .summary("drop only keys the error names, never whole patterns"),
        };
    }

    // Sure when the error names a key that may be dropped; likely when it is about reading data.
    double assess(const heal::request& rq, heal::call&) {
        for (const char* kind : {"redis", "memcached"}) {
            if (!named_keys(rq, rq.target()[kind]["keys"].strings()).empty()) return 0.9;
        }
        std::string message = rq.message() + " " + rq.incident()["error_type"].string_or("");
        for (char& c : message) {
            if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
        }
        for (const std::string_view word :
             {"cache",
              "deserial",
              "unmarshal",
              "decode",
              "json",
              "corrupt",
              "checksum",
              "stale",
              "parse",
              "unpickl"}) {
            if (message.find(word) != std::string::npos) return 0.6;
        }
        return 0.2;
    }

    heal::outcome execute(const heal::request& rq, heal::call& call) {
        const heal::json& t = rq.target();
        if (t["redis"]) return flush_redis(rq, call);
        if (t["memcached"]) return flush_memcached(rq, call);
        if (t["http_cache"]) return purge(rq, call);
        return heal::outcome::declined(
            "the inventory names neither redis, memcached nor http_cache for this service"
        );
    }

    heal::outcome verify(const heal::request& rq, heal::call& call) {
        const heal::json& t = rq.target();
        // Reading through is the proof: the value is fetched anew by the one who uses it.
        for (const char* kind : {"redis", "memcached"}) {
            if (t[kind]["read_through"]) return read_through(t[kind]["read_through"], call);
        }
        if (t["http_cache"]) return read_through(t["http_cache"], call);
        const auto saved = call.state_get(key_of(rq));
        if (!saved) return heal::outcome::failed("nothing is known about what was dropped");
        const heal::json dropped = heal::json::parse(*saved);
        std::size_t rebuilt = 0;
        for (const auto& [key, hash] : dropped.members()) {
            const auto now = t["redis"] ? redis_value(t, call, key) : memcached_value(t, call, key);
            if (!now) continue;
            if (hash.is_string() && hash.view() == hash_of(*now))
                return heal::outcome::failed("the same value is back under " + key);
            ++rebuilt;
        }
        return heal::outcome::succeeded(
            std::to_string(dropped.size() - rebuilt) + " keys are gone, " + std::to_string(rebuilt) +
            " were filled anew with another value"
        );
    }

private:
    static std::string key_of(const heal::request& rq) {
        std::string key = "dropped.";
        for (const char c : rq.target()["name"].string_or(rq.service())) {
            key += (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-'
                       ? c
                       : '_';
        }
        return key.substr(0, 100);
    }

    static std::vector<heal::json> redis(
        const heal::json& target, heal::call& call, std::vector<std::vector<std::string>> commands
    ) {
        const heal::json& r = target["redis"];
        const auto database = r["database"].int_or(0);
        if (database != 0) commands.insert(commands.begin(), {"SELECT", std::to_string(database)});
        auto replies = call.redis(r["address"].string_or(""), commands, r["password"].string_or(""));
        for (const auto& reply : replies) {
            if (const auto error = reply["error"].string_or(""); !error.empty())
                throw heal::effect_error(HEAL_FAILED, "redis says: " + error);
        }
        if (database != 0 && !replies.empty()) replies.erase(replies.begin());
        return replies;
    }

    static std::optional<std::string> redis_value(
        const heal::json& target, heal::call& call, const std::string& key
    ) {
        const auto type = redis(target, call, {{"TYPE", key}});
        if (type.empty() || type[0].view() == "none") return std::nullopt;
        if (type[0].view() != "string") return "a " + type[0].string_or("");
        const auto value = redis(target, call, {{"GETRANGE", key, "0", "16383"}});
        return value.empty() ? std::optional<std::string>{} : value[0].string_or("");
    }

    // What is there now, for verify; of many keys only some are looked at.
    static void remember(
        const heal::request& rq, heal::call& call, const std::vector<std::string>& keys, bool is_redis
    ) {
        heal::json seen = heal::json::object();
        for (const auto& key : keys) {
            if (seen.size() >= 16) break;
            const auto value =
                is_redis ? redis_value(rq.target(), call, key) : memcached_value(rq.target(), call, key);
            seen.set(key, value ? heal::json(hash_of(*value)) : heal::json());
        }
        call.state_put(key_of(rq), seen.dump());
    }

    static heal::outcome flush_redis(const heal::request& rq, heal::call& call) {
        const heal::json& t = rq.target();
        const auto patterns = t["redis"]["keys"].strings();
        auto keys = named_keys(rq, patterns);
        if (!keys.empty()) {
            remember(rq, call, keys, true);
            std::vector<std::string> unlink{"UNLINK"};
            unlink.insert(unlink.end(), keys.begin(), keys.end());
            const auto replies = redis(t, call, {unlink});
            return heal::outcome::succeeded(
                "dropped " + joined(keys),
                heal::json::object(
                    {{"keys", heal::json(keys)}, {"dropped", replies.empty() ? heal::json(0) : replies[0]}}
                )
            );
        }
        if (rq.config()["only_named"].bool_or(false))
            return heal::outcome::declined("the error names no declared key");
        if (patterns.empty()) {
            if (!rq.config()["whole_database"].bool_or(false)) {
                return heal::outcome::declined("no keys are declared in redis.keys, and whole_database is off"
                );
            }
            call.state_put(key_of(rq), "{}");
            redis(t, call, {{"FLUSHDB", "ASYNC"}});
            return heal::outcome::succeeded("flushed the whole database");
        }
        // SCAN and UNLINK in steps: KEYS and DEL would hold Redis up.
        const auto limit = static_cast<std::size_t>(rq.config()["max_keys"].int_or(100'000));
        std::size_t dropped = 0;
        bool first = true;
        for (const auto& pattern : patterns) {
            std::string cursor = "0";
            do {
                const auto replies = redis(t, call, {{"SCAN", cursor, "MATCH", pattern, "COUNT", "1000"}});
                if (replies.empty()) break;
                cursor = replies[0][0].string_or("0");
                const auto found = replies[0][1].strings();
                if (found.empty()) continue;
                if (dropped + found.size() > limit) {
                    return heal::outcome::failed(
                        "more than " + std::to_string(limit) + " keys fit " + pattern +
                        "; raise max_keys or narrow redis.keys"
                    );
                }
                if (first) remember(rq, call, found, true);
                first = false;
                std::vector<std::string> unlink{"UNLINK"};
                unlink.insert(unlink.end(), found.begin(), found.end());
                redis(t, call, {unlink});
                dropped += found.size();
            } while (cursor != "0" && !rq.dry_run());
        }
        if (first) call.state_put(key_of(rq), "{}");
        return heal::outcome::succeeded(
            "dropped " + std::to_string(dropped) + " keys of " + joined(patterns),
            heal::json::object({{"dropped", dropped}})
        );
    }

    static std::optional<std::string> memcached_value(
        const heal::json& target, heal::call& call, const std::string& key
    ) {
        const auto replies = call.memcached(target["memcached"]["address"].string_or(""), {"get " + key});
        if (replies.empty() || !replies[0].starts_with("VALUE ")) return std::nullopt;
        return replies[0];
    }

    static heal::outcome flush_memcached(const heal::request& rq, heal::call& call) {
        const heal::json& t = rq.target();
        const std::string address = t["memcached"]["address"].string_or("");
        const auto declared = t["memcached"]["keys"].strings();
        auto keys = named_keys(rq, declared);
        if (keys.empty()) {
            if (rq.config()["only_named"].bool_or(false))
                return heal::outcome::declined("the error names no declared key");
            // memcached can't list its keys; a pattern can't be followed.
            for (const auto& key : declared) {
                if (key.find_first_of("*?") == std::string::npos) keys.push_back(key);
            }
        }
        if (!keys.empty()) {
            remember(rq, call, keys, false);
            std::vector<std::string> commands;
            for (const auto& key : keys) commands.push_back("delete " + key);
            call.memcached(address, commands);
            return heal::outcome::succeeded(
                "dropped " + joined(keys), heal::json::object({{"keys", heal::json(keys)}})
            );
        }
        call.state_put(key_of(rq), "{}");
        const auto replies = call.memcached(address, {"flush_all"});
        if (replies.empty() || (!replies[0].starts_with("OK") && !rq.dry_run()))
            return heal::outcome::failed("memcached did not accept flush_all");
        return heal::outcome::succeeded("flushed all of memcached");
    }

    static heal::outcome purge(const heal::request& rq, heal::call& call) {
        const heal::json& c = rq.target()["http_cache"];
        const auto paths = c["paths"].strings();
        if (paths.empty()) return heal::outcome::declined("the inventory gives no http_cache.paths");
        const std::string method = c["method"].string_or("PURGE");
        for (const auto& path : paths) {
            const auto reply =
                call.http({.method = method, .url = "http://" + c["address"].string_or("") + path});
            // 404: it was not in the cache, which is what is wanted.
            if (!reply.skipped && !reply.ok() && reply.status != 404) {
                return heal::outcome::failed(
                    method + " " + path + " was answered with " + std::to_string(reply.status)
                );
            }
        }
        return heal::outcome::succeeded("purged " + joined(paths));
    }

    // {address, paths | path}: every one must be answered with less than 400.
    static heal::outcome read_through(const heal::json& where, heal::call& call) {
        auto paths = where["paths"].strings();
        if (paths.empty()) paths = where["path"].strings();
        if (paths.empty()) paths.emplace_back("/");
        for (const auto& path : paths) {
            const auto reply = call.http({.url = "http://" + where["address"].string_or("") + path});
            if (reply.status < 200 || reply.status >= 400)
                return heal::outcome::failed(
                    "reading " + path + " through is answered with " + std::to_string(reply.status)
                );
        }
        return heal::outcome::succeeded("read " + joined(paths) + " through");
    }

    static std::string joined(const std::vector<std::string>& words) {
        std::string out;
        for (const auto& word : words) {
            if (out.size() > 200) return out + " …";
            out += (out.empty() ? "" : ", ") + word;
        }
        return out;
    }
};

}  // namespace

HEAL_PLUGIN(cache_flush);
