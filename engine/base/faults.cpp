#include "base/faults.hpp"

#ifdef HEAL_FAULTS

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

namespace heal::faults {
namespace {

struct Plan {
    Plan() {
        if (const char* file = std::getenv("HEAL_FAULT_LOG"))
            log = ::open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        const char* text = std::getenv("HEAL_FAULT");
        if (!text) return;
        const std::string all{text};
        const auto first = all.find(':'), second = all.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) return;
        name = all.substr(0, first);
        left = std::atoi(all.c_str() + first + 1);
        kills = all.substr(second + 1) == "kill";
    }
    std::string name;
    std::atomic<int> left{0};
    bool kills = false;
    int log = -1;
};

}  // namespace

bool pass(const char* name) noexcept {
    static Plan plan;
    if (plan.log >= 0) {
        std::string line{name};
        line += '\n';
        static_cast<void>(!::write(plan.log, line.data(), line.size()));
    }
    if (plan.name != name || plan.left.fetch_sub(1) != 1) return false;
    if (plan.kills) ::kill(::getpid(), SIGKILL);
    return true;
}

}  // namespace heal::faults

#endif
