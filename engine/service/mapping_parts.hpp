// Parts of the configuration that several sections read alike.
#pragma once

#include "base/files.hpp"
#include "service/mapping.hpp"
#include "service/probe_settings.hpp"

#include <string>
#include <vector>

namespace heal {

/// One probe; faults are added to the context.
void read_probe(
    const YAML::Node& node,
    const std::string& path,
    Mapping::Context& context,
    std::vector<ProbeSettings>& probes
);

/// A secret: `key` itself (${NAME} for the environment) or the file that `key`_file names, without its last
/// newline. Both is an error.
inline bool read_secret(Mapping& in, const std::string& key, std::string& ret) {
    std::string path;
    const bool direct = in.text(key, ret);
    if (!in.text(key + "_file", path)) return direct;
    const SystemFiles files;
    auto content = files.read(path, 64U << 10U);
    if (direct)
        in.error(key + "_file", "give " + key + " or " + key + "_file, not both");
    else if (!content)
        in.error(key + "_file", content.error().text);
    else {
        while (content->ends_with('\n') || content->ends_with('\r')) content->pop_back();
        ret = std::move(*content);
        return true;
    }
    return false;
}

}  // namespace heal
