// The kernels of the instructions that look at a whole sample before they change it, as functions that enqueue them.
#pragma once

#include "kernels.h"

namespace dpmrt_core::device {

// A Langevin step whose length is set by the norms of score and noise. `to` gets the scaled noise.
template <class Real>
struct LangevinStep {
    // How many numbers `sums` has: two sums for each part, two norms and a step for each sample.
    static constexpr std::size_t doubles(std::size_t batch) { return batch * (2 * kSummed + 3); }

    Real *score;
    const Real *noise;
    Real *to;
    double *sums;
    double snr;
    bool per_sample;
    std::uint32_t *flag;
    long long batch, sample;
};

// One of the numbers of a sorted sample, found digit by digit: its highest digits so far, and how many numbers that share
// them are smaller.
struct Chosen {
    std::uint64_t digits;
    long long rank;
};

// Each sample limited to its own quantile of the magnitudes, between `low` and the number after it, and divided by it.
template <class Real>
struct Threshold {
    static constexpr long long kDigits = 256;
    // What is needed of memory for two numbers of each sample.
    static constexpr std::size_t choices(std::size_t batch) { return 2 * batch; }
    static constexpr std::size_t bins(std::size_t batch) { return 2 * kDigits * batch; }

    Real *values;
    Chosen *chosen;
    unsigned *counts;
    long long low, high;
    Real part;  // of the way from the one to the other
    double most;
    std::uint32_t *flag;
    long long batch, sample;
};

template <class Real>
cudaError_t enqueue_langevin(const LangevinStep<Real> &step, cudaStream_t stream);
template <class Real>
cudaError_t enqueue_threshold(const Threshold<Real> &threshold, cudaStream_t stream);

}  // namespace dpmrt_core::device
