#include <cstring>
#include <type_traits>

#include "instruction_kernels.h"
#include "launch.cuh"

namespace dpmrt_core::device {
namespace {

template <class Real>
__global__ void square_parts(const LangevinStep<Real> step) {
    for (long long i = first(); i < step.batch * kSummed; i += stride()) {
        const long long start = i / kSummed * step.sample;
        double score = 0, noise = 0;
        for (long long k = i % kSummed; k < step.sample; k += kSummed) {
            const double q = static_cast<double>(step.score[start + k]), z = static_cast<double>(step.noise[start + k]);
            score += q * q;
            noise += z * z;
        }
        step.sums[2 * i] = score;
        step.sums[2 * i + 1] = noise;
    }
}

template <class Real>
__global__ void find_norms(const LangevinStep<Real> step) {
    double *norms = step.sums + 2 * step.batch * kSummed;
    for (long long sample = first(); sample < step.batch; sample += stride()) {
        double score = 0, noise = 0;
        for (long long part = sample * kSummed; part < (sample + 1) * kSummed; ++part) {
            score += step.sums[2 * part];
            noise += step.sums[2 * part + 1];
        }
        norms[2 * sample] = sqrt(score);
        norms[2 * sample + 1] = sqrt(noise);
    }
}

template <class Real>
__global__ void find_steps(const LangevinStep<Real> step) {
    const double *norms = step.sums + 2 * step.batch * kSummed;
    double *steps = step.sums + step.batch * (2 * kSummed + 2);
    for (long long sample = first(); sample < step.batch; sample += stride()) {
        double score = 0, noise = 0;
        for (long long k = 0; k < step.batch; ++k) {
            score += norms[2 * k] / static_cast<double>(step.batch);
            noise += norms[2 * k + 1] / static_cast<double>(step.batch);
        }
        // What is not finite anywhere in the batch is flagged for what it is by the row that reads it.
        const bool finite = !bad(score) && !bad(noise);
        if (step.per_sample) {
            score = norms[2 * sample];
            noise = norms[2 * sample + 1];
        }
        const double h = step.snr * noise / score;
        steps[sample] = h;
        if (finite && bad(static_cast<Real>(h * h))) atomicOr(step.flag, kBadStep);
    }
}

template <class Real>
__global__ void take_step(const LangevinStep<Real> step) {
    const double *steps = step.sums + step.batch * (2 * kSummed + 2);
    for (long long i = first(); i < step.batch * step.sample; i += stride()) {
        const double h = steps[i / step.sample];
        // A score is not spoilt by the noise: each is flagged by itself.
        if (!bad(h)) step.score[i] *= static_cast<Real>(h * h);
        step.to[i] = step.noise[i] * static_cast<Real>(h);
    }
}

// Magnitudes are in the order of their bits.
template <class Real>
using Bits = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;

template <class Real>
__device__ inline Bits<Real> bits_of(Real magnitude) {
    Bits<Real> bits;
    memcpy(&bits, &magnitude, sizeof bits);
    return bits;
}

template <class Real>
__device__ inline Real magnitude_of(std::uint64_t digits) {
    const auto bits = static_cast<Bits<Real>>(digits);
    Real magnitude;
    memcpy(&magnitude, &bits, sizeof magnitude);
    return magnitude;
}

template <class Real>
__global__ void choose_first(const Threshold<Real> threshold) {
    for (long long i = first(); i < 2 * threshold.batch; i += stride()) {
        threshold.chosen[i] = {0, i % 2 == 0 ? threshold.low : threshold.high};
    }
}

// Counts the next digit of the numbers that share the digits known. There are `below` bits after it.
template <class Real>
__global__ void count_digits(const Threshold<Real> threshold, unsigned below, bool known) {
    for (long long i = first(); i < threshold.batch * threshold.sample; i += stride()) {
        const Real value = threshold.values[i];
        if (bad(value)) atomicOr(threshold.flag, kBadNetwork);
        const std::uint64_t bits = bits_of<Real>(fabs(value)) >> below;
        for (long long at = 2 * (i / threshold.sample); at < 2 * (i / threshold.sample) + 2; ++at) {
            if (known && bits / Threshold<Real>::kDigits != threshold.chosen[at].digits) continue;
            atomicAdd(threshold.counts + at * Threshold<Real>::kDigits + bits % Threshold<Real>::kDigits, 1U);
        }
    }
}

template <class Real>
__global__ void choose_digit(const Threshold<Real> threshold) {
    for (long long i = first(); i < 2 * threshold.batch; i += stride()) {
        const unsigned *counts = threshold.counts + i * Threshold<Real>::kDigits;
        Chosen chosen = threshold.chosen[i];
        std::uint64_t digit = 0;
        for (; digit + 1 < Threshold<Real>::kDigits && chosen.rank >= counts[digit]; ++digit) chosen.rank -= counts[digit];
        chosen.digits = chosen.digits * Threshold<Real>::kDigits + digit;
        threshold.chosen[i] = chosen;
    }
}

template <class Real>
__global__ void limit_values(const Threshold<Real> threshold) {
    for (long long i = first(); i < threshold.batch * threshold.sample; i += stride()) {
        const Chosen *chosen = threshold.chosen + 2 * (i / threshold.sample);
        const Real low = magnitude_of<Real>(chosen[0].digits), high = magnitude_of<Real>(chosen[1].digits);
        const double own = static_cast<double>(low + (high - low) * threshold.part);
        const double wanted = own < 1 ? 1 : own;
        const Real limit = static_cast<Real>(wanted < threshold.most ? wanted : threshold.most);
        const Real v = threshold.values[i];
        threshold.values[i] = (v < -limit ? -limit : (v > limit ? limit : v)) / limit;
    }
}

}  // namespace

template <class Real>
cudaError_t enqueue_langevin(const LangevinStep<Real> &step, cudaStream_t stream) {
    DPMRT_LAUNCH((square_parts<Real>), blocks(step.batch * kSummed), kThreads, stream, step);
    DPMRT_LAUNCH((find_norms<Real>), blocks(step.batch), kThreads, stream, step);
    DPMRT_LAUNCH((find_steps<Real>), blocks(step.batch), kThreads, stream, step);
    DPMRT_LAUNCH((take_step<Real>), blocks(step.batch * step.sample), kThreads, stream, step);
    return cudaGetLastError();
}

template <class Real>
cudaError_t enqueue_threshold(const Threshold<Real> &threshold, cudaStream_t stream) {
    const auto batch = static_cast<std::size_t>(threshold.batch);
    const unsigned whole = blocks(threshold.batch * threshold.sample), samples = blocks(2 * threshold.batch);
    DPMRT_LAUNCH((choose_first<Real>), samples, kThreads, stream, threshold);
    for (unsigned below = 8 * sizeof(Real); below > 0;) {
        const bool known = below < 8 * sizeof(Real);
        below -= 8;
        const cudaError_t cleared =
            cudaMemsetAsync(threshold.counts, 0, Threshold<Real>::bins(batch) * sizeof(unsigned), stream);
        if (cleared != cudaSuccess) return cleared;
        DPMRT_LAUNCH((count_digits<Real>), whole, kThreads, stream, threshold, below, known);
        DPMRT_LAUNCH((choose_digit<Real>), samples, kThreads, stream, threshold);
    }
    DPMRT_LAUNCH((limit_values<Real>), whole, kThreads, stream, threshold);
    return cudaGetLastError();
}

template cudaError_t enqueue_langevin(const LangevinStep<float> &, cudaStream_t);
template cudaError_t enqueue_langevin(const LangevinStep<double> &, cudaStream_t);
template cudaError_t enqueue_threshold(const Threshold<float> &, cudaStream_t);
template cudaError_t enqueue_threshold(const Threshold<double> &, cudaStream_t);

}  // namespace dpmrt_core::device
