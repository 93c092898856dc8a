// What all kernels share. The same text compiles as C++ in tests/cuda, which is how the tests run it without a GPU.
#pragma once

#include <cuda_runtime_api.h>

#ifndef DPMRT_LAUNCH
#define DPMRT_LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<blocks, threads, 0, stream>>>(__VA_ARGS__)
#endif

namespace dpmrt_core::device {
namespace {

constexpr unsigned kThreads = 256;
constexpr long long kMostBlocks = 4096;

// Infinity and NaN are what is not itself less itself.
template <class Real>
__device__ inline bool bad(Real value) {
    return !(value - value == Real(0));
}

__device__ inline long long first() {
    return blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
}

__device__ inline long long stride() { return static_cast<long long>(gridDim.x) * blockDim.x; }

inline unsigned blocks(long long count) {
    const long long wanted = (count + kThreads - 1) / kThreads;
    return static_cast<unsigned>(wanted < 1 ? 1 : (wanted > kMostBlocks ? kMostBlocks : wanted));
}

}  // namespace
}  // namespace dpmrt_core::device
