// Stands in for code_reader.cpp in a build without engine/vcs.
#include "service/code_reader.hpp"

namespace heal {
namespace {

class NoCode final : public CodeReader {
public:
    result<CodeAt>
    read(const RepositorySettings&, const std::string&, const std::string&, std::size_t, const std::atomic<bool>&)
        override {
        return fail(errc::unavailable, "this heald was built without repositories");
    }
};

}  // namespace

std::unique_ptr<CodeReader> create_code_reader(std::string) { return std::make_unique<NoCode>(); }

}  // namespace heal
