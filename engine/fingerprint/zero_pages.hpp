// A fixed array of zeros that takes memory only where it is used: so large a block comes from the system in
// fresh pages. Internal to this folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>

namespace heal::fingerprint {

/// `count` objects whose all-zero state is valid, each on its own cache line when 64 bytes large.
template <class T>
class ZeroPages {
    static_assert(std::is_trivially_destructible_v<T> && std::is_trivially_copyable_v<T>);

public:
    explicit ZeroPages(std::size_t count) : block_(std::calloc(count * sizeof(T) + line, 1)) {
        if (block_ == nullptr) throw std::bad_alloc{};
        std::size_t room = count * sizeof(T) + line;
        void* p = block_.get();
        data_ = static_cast<T*>(std::align(line, count * sizeof(T), p, room));
    }

    T* data() noexcept { return data_; }

private:
    static constexpr std::size_t line = 64;
    struct Free {
        void operator()(void* p) const noexcept { std::free(p); }
    };
    std::unique_ptr<void, Free> block_;
    T* data_ = nullptr;
};

}  // namespace heal::fingerprint
