// A fixed array in pages that the system gives as zeros: what is never used takes no memory. Internal to this
// folder.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

namespace heal::fingerprint {

/// `count` objects whose all-zero state is valid; aligned to a page.
template <class T>
class ZeroPages {
    static_assert(std::is_trivially_destructible_v<T> && std::is_trivially_copyable_v<T>);

public:
    explicit ZeroPages(std::size_t count) : count_(count) {
        void* p =
            ::mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) throw std::bad_alloc{};
        data_ = static_cast<T*>(p);
    }
    ~ZeroPages() {
        if (data_ != nullptr) ::munmap(data_, count_ * sizeof(T));
    }
    ZeroPages(ZeroPages&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), count_(other.count_) {}
    ZeroPages& operator=(ZeroPages&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(count_, other.count_);
        return *this;
    }

    T* data() noexcept { return data_; }

private:
    T* data_ = nullptr;
    std::size_t count_;
};

}  // namespace heal::fingerprint
