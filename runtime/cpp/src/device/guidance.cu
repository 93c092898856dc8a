#include "guidance_kernels.h"
#include "launch.cuh"

namespace dpmrt_core::device {
namespace {

// A scale of 1 is what was given to the bit, whatever the other half holds.
template <class Real>
__global__ void guide(const Guided<Real> guided) {
    for (long long i = first(); i < guided.count; i += stride()) {
        const long long sample = i / guided.sample;
        const long long at = sample * guided.pitch + i % guided.sample;
        const Real scale = guided.scales[sample];
        const Real given = guided.given[at];
        guided.to[i] = scale == Real(1) ? given : (given - guided.null[at]) * scale + guided.null[at];
    }
}

// The mean of what `which` says, 0 the guided and 1 the given, of a sample.
template <class Real>
__device__ inline double mean(const Rescale<Real> &rescale, long long sample, int which) {
    double total = 0;
    for (long long part = 0; part < kSummed; ++part) total += rescale.sums[2 * (sample * kSummed + part) + which];
    return total / static_cast<double>(rescale.guided.sample);
}

template <class Real>
__global__ void sum_parts(const Rescale<Real> rescale) {
    const Guided<Real> &guided = rescale.guided;
    for (long long i = first(); i < rescale.batch * kSummed; i += stride()) {
        const long long sample = i / kSummed;
        double own = 0, given = 0;
        for (long long k = i % kSummed; k < guided.sample; k += kSummed) {
            own += static_cast<double>(guided.to[sample * guided.sample + k]);
            given += static_cast<double>(guided.given[sample * guided.pitch + k]);
        }
        rescale.sums[2 * i] = own;
        rescale.sums[2 * i + 1] = given;
    }
}

// Squared distances from the means, behind the sums.
template <class Real>
__global__ void spread_parts(const Rescale<Real> rescale) {
    const Guided<Real> &guided = rescale.guided;
    double *spreads = rescale.sums + 2 * rescale.batch * kSummed;
    for (long long i = first(); i < rescale.batch * kSummed; i += stride()) {
        const long long sample = i / kSummed;
        const double own_mean = mean(rescale, sample, 0), given_mean = mean(rescale, sample, 1);
        double own = 0, given = 0;
        for (long long k = i % kSummed; k < guided.sample; k += kSummed) {
            const double a = static_cast<double>(guided.to[sample * guided.sample + k]) - own_mean;
            const double b = static_cast<double>(guided.given[sample * guided.pitch + k]) - given_mean;
            own += a * a;
            given += b * b;
        }
        spreads[2 * i] = own;
        spreads[2 * i + 1] = given;
    }
}

template <class Real>
__global__ void find_gains(const Rescale<Real> rescale) {
    const double *spreads = rescale.sums + 2 * rescale.batch * kSummed;
    double *gains = rescale.sums + 4 * rescale.batch * kSummed;
    const double factor = static_cast<double>(*rescale.factor);
    for (long long sample = first(); sample < rescale.batch; sample += stride()) {
        double own = 0, given = 0;
        for (long long part = 0; part < kSummed; ++part) {
            own += spreads[2 * (sample * kSummed + part)];
            given += spreads[2 * (sample * kSummed + part) + 1];
        }
        gains[sample] = own > 0 ? factor * sqrt(given / own) + 1 - factor : 1;
    }
}

template <class Real>
__global__ void apply_gains(const Rescale<Real> rescale) {
    const double *gains = rescale.sums + 4 * rescale.batch * kSummed;
    const Guided<Real> &guided = rescale.guided;
    for (long long i = first(); i < guided.count; i += stride()) {
        guided.to[i] *= static_cast<Real>(gains[i / guided.sample]);
    }
}

}  // namespace

template <class Real>
cudaError_t enqueue_guided(const Guided<Real> &guided, cudaStream_t stream) {
    DPMRT_LAUNCH((guide<Real>), blocks(guided.count), kThreads, stream, guided);
    return cudaGetLastError();
}

template <class Real>
cudaError_t enqueue_rescale(const Rescale<Real> &rescale, cudaStream_t stream) {
    const long long parts = rescale.batch * kSummed;
    DPMRT_LAUNCH((sum_parts<Real>), blocks(parts), kThreads, stream, rescale);
    DPMRT_LAUNCH((spread_parts<Real>), blocks(parts), kThreads, stream, rescale);
    DPMRT_LAUNCH((find_gains<Real>), blocks(rescale.batch), kThreads, stream, rescale);
    DPMRT_LAUNCH((apply_gains<Real>), blocks(rescale.guided.count), kThreads, stream, rescale);
    return cudaGetLastError();
}

template cudaError_t enqueue_guided(const Guided<float> &, cudaStream_t);
template cudaError_t enqueue_guided(const Guided<double> &, cudaStream_t);
template cudaError_t enqueue_rescale(const Rescale<float> &, cudaStream_t);
template cudaError_t enqueue_rescale(const Rescale<double> &, cudaStream_t);

}  // namespace dpmrt_core::device
