// Pull and merge requests at GitHub and GitLab, by REST. Asking twice finds what is there.
#pragma once

#include "base/error.hpp"
#include "base/json.hpp"
#include "net/http_client.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace heal::vcs {

struct ForgeSettings {
    std::string kind;      ///< "github" or "gitlab"
    std::string base_url;  ///< "https://api.github.com", "https://gitlab.example.com"
    std::string project;   ///< "owner/name", "group/sub/name"
    std::string token;
    std::string api_version = "2022-11-28";  ///< GitHub's
};

struct ChangeRequest {
    std::string title, body, head, base;
    bool draft = false;
    std::vector<std::string> labels;
};

struct ForgeAnswer {
    std::int64_t number = 0;
    std::string url;
    std::string state;  ///< "open", "merged" or "closed"
    bool existed = false;
};

/// Blocking. @thread any. errc::denied (401, 403), errc::not_found, errc::conflict (422, 409 that cannot be
/// resolved), errc::overloaded (rate limit; the text says until when), errc::unavailable (5xx, nobody
/// answers), errc::protocol.
class Forge {
public:
    virtual ~Forge() = default;
    /// Opens it, or finds the open one of this head.
    virtual result<ForgeAnswer> open(const ChangeRequest& request) = 0;
    virtual result<ForgeAnswer> find(std::int64_t number) = 0;
    virtual result<void> comment(std::int64_t number, const std::string& text) = 0;
    virtual result<void> close(std::int64_t number) = 0;
};

/// errc::invalid_input the settings.
result<std::unique_ptr<Forge>> create_forge(const ForgeSettings& settings, net::HttpClient& http);

}  // namespace heal::vcs
