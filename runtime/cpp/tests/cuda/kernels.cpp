// The kernels' own text, compiled for the host: a launch runs every thread of every block, one after another.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "fake.h"

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wreserved-macro-identifier"
#endif
#define __device__
#define __global__

namespace {

struct Place {
    unsigned x;
};

Place blockIdx, threadIdx, blockDim, gridDim;

using std::exp;
using std::fabs;
using std::memcpy;
using std::sqrt;

void atomicOr(std::uint32_t *word, std::uint32_t bits) { *word |= bits; }
void atomicAdd(unsigned *word, unsigned more) { *word += more; }

template <class Kernel>
void launch(unsigned blocks, unsigned threads, cudaStream_t stream, Kernel kernel) {
    fake::push(stream, [=] {
        ++fake::counts().launches;
        gridDim = {blocks};
        blockDim = {threads};
        for (blockIdx = {0}; blockIdx.x < blocks; ++blockIdx.x) {
            for (threadIdx = {0}; threadIdx.x < threads; ++threadIdx.x) kernel();
        }
    });
}

}  // namespace

#define DPMRT_BARE(...) __VA_ARGS__
#define DPMRT_LAUNCH(kernel, blocks, threads, stream, ...) \
    launch(blocks, threads, stream, [=] { DPMRT_BARE kernel(__VA_ARGS__); })

#include "../../src/device/guidance.cu"
#include "../../src/device/instructions.cu"
#include "../../src/device/kernels.cu"
