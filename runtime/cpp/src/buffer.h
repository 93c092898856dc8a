// Aligned memory from the caller's allocator or the library's own.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <utility>

#include "dpmrt/dpmrt.h"
#include "failure.h"

namespace dpmrt_core {

constexpr std::size_t kAlignment = 64;

class Buffer {
public:
    Buffer() = default;
    Buffer(const dpmrt_allocator &allocator, std::size_t bytes) : allocator_(allocator), bytes_(bytes) {
        if (bytes == 0) return;
        memory_ = allocator.allocate != nullptr ? allocator.allocate(allocator.user, bytes, kAlignment)
                                                : ::operator new(bytes, std::align_val_t{kAlignment}, std::nothrow);
        if (memory_ == nullptr) {
            throw Failure(DPMRT_ERROR_MEMORY, "the session's buffers could not be had", "no memory",
                          format("%zu bytes", bytes), "ask for a smaller batch or shape");
        }
        std::memset(memory_, 0, bytes);
    }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    Buffer(Buffer &&other) noexcept { swap(other); }
    Buffer &operator=(Buffer &&other) noexcept {
        swap(other);
        return *this;
    }
    ~Buffer() {
        if (memory_ == nullptr) return;
        if (allocator_.allocate != nullptr) {
            if (allocator_.release != nullptr) allocator_.release(allocator_.user, memory_, bytes_);
        } else {
            ::operator delete(memory_, std::align_val_t{kAlignment});
        }
    }

    void *data() const { return memory_; }
    std::size_t size() const { return bytes_; }

private:
    void swap(Buffer &other) noexcept {
        std::swap(allocator_, other.allocator_);
        std::swap(memory_, other.memory_);
        std::swap(bytes_, other.bytes_);
    }

    dpmrt_allocator allocator_{};
    void *memory_ = nullptr;
    std::size_t bytes_ = 0;
};

}  // namespace dpmrt_core
