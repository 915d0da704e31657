// Counters and histograms, and their text for Prometheus (exposition format 0.0.4). Names have the prefix
// heald_, base units, and no unbounded labels. @thread any
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace heal {

class Metrics {
public:
    using Labels = std::vector<std::pair<std::string, std::string>>;

    void add(const std::string& name, const Labels& labels = {}, double value = 1);
    void set(const std::string& name, const Labels& labels, double value);
    /// Durations in seconds.
    void observe(const std::string& name, const Labels& labels, double seconds);
    double value(const std::string& name, const Labels& labels = {}) const;
    std::string text() const;

private:
    struct Histogram {
        std::vector<std::uint64_t> buckets;
        std::uint64_t count = 0;
        double sum = 0;
    };
    mutable std::mutex mutex_;
    std::map<std::string, std::map<std::string, double>> values_;  // name -> rendered labels -> value
    std::map<std::string, std::map<std::string, Histogram>> histograms_;
};

}  // namespace heal
