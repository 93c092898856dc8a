// The kernels of guidance, as functions that enqueue them.
#pragma once

#include "kernels.h"

namespace dpmrt_core::device {

// The first parts of an output of two halves, made one by guidance.
template <class Real>
struct Guided {
    const Real *given, *null;  // of the first sample; the others follow at `pitch`
    Real *to;
    const Real *scales;  // one a sample
    long long count, sample, pitch;
};

// Guided samples brought back to the deviation of what was given, each by itself.
template <class Real>
struct Rescale {
    // How many numbers `sums` has: two sums and two squared distances for each part, and a gain for each sample.
    static constexpr std::size_t doubles(std::size_t batch) { return batch * (4 * kSummed + 1); }

    Guided<Real> guided;
    const Real *factor;
    double *sums;
    long long batch;
};

template <class Real>
cudaError_t enqueue_guided(const Guided<Real> &guided, cudaStream_t stream);
template <class Real>
cudaError_t enqueue_rescale(const Rescale<Real> &rescale, cudaStream_t stream);

}  // namespace dpmrt_core::device
