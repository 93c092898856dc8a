// The kernels of the executor on a CUDA device, as functions that enqueue them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace dpmrt_core::device {

// Rows that one update reads and writes at most. A state, an input, a quantity and a kept state are written.
constexpr std::size_t kMostSources = 32;
constexpr std::size_t kMostTargets = 4;
// Rows are padded to whole packs, which a thread moves at once.
constexpr std::size_t kPackBytes = 16;

// Sums over a sample are taken in so many parts, in an order that does not change.
constexpr long long kSummed = 256;

// What a row's flag says was not finite.
constexpr std::uint32_t kBadState = 1, kBadNetwork = 2, kBadSecond = 4, kBadNoise = 8, kBadStep = 16;

// rows[target] = sum over source of weight * rows[source]: all of it a parameter of the kernel, so that nothing has to be
// copied before a row can run, and a captured graph holds the weights.
template <class Real>
struct Update {
    Real *targets[kMostTargets];
    const Real *sources[kMostSources];
    Real weights[kMostTargets * kMostSources];  // targets x sources, of the counts below
    std::uint8_t kinds[kMostSources];           // what to flag if a source is not finite
    std::uint32_t kind;                         // what to flag if the first target is not
    std::uint32_t *flag;
    unsigned target_count, source_count;
    long long packs;
};

// Noise scaled by the deviation that the second part of an output stands for.
template <class Real>
struct Learned {
    const Real *second;  // of the first sample; the others follow at `pitch`
    const Real *from;
    Real *to;
    Real half, shift;
    bool variance;  // the second part is the variance, and not a place between two logarithms
    std::uint32_t *flag;
    long long count, sample, pitch;
};

template <class Real>
cudaError_t enqueue_update(const Update<Real> &update, cudaStream_t stream);
template <class Real>
cudaError_t enqueue_clip(Real *x, long long count, Real limit, cudaStream_t stream);
template <class Real>
cudaError_t enqueue_learned(const Learned<Real> &learned, cudaStream_t stream);
// Copies the first parts of an output of two, sample by sample.
template <class Real>
cudaError_t enqueue_first(const Real *whole, Real *slot, long long count, long long sample, cudaStream_t stream);

}  // namespace dpmrt_core::device
