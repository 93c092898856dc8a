// The same text compiles as C++ with tests/cuda/shim.h, which is how the tests run it without a GPU.
#include "kernels.h"

#ifndef DPMRT_LAUNCH
#define DPMRT_LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<blocks, threads, 0, stream>>>(__VA_ARGS__)
#endif

namespace dpmrt_core::device {
namespace {

constexpr unsigned kThreads = 256;
constexpr long long kMostBlocks = 4096;

template <class Real>
struct alignas(kPackBytes) Pack {
    static constexpr unsigned kWidth = kPackBytes / sizeof(Real);
    Real v[kWidth];
};

// Infinity and NaN are what is not itself less itself.
template <class Real>
__device__ inline bool bad(Real value) {
    return !(value - value == Real(0));
}

__device__ inline long long first() {
    return blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
}

__device__ inline long long stride() { return static_cast<long long>(gridDim.x) * blockDim.x; }

// The number of targets is known when this is compiled, so that their sums stay in registers.
template <class Real, unsigned targets>
__global__ void update_rows(const Update<Real> update) {
    std::uint32_t seen = 0;
    for (long long i = first(); i < update.packs; i += stride()) {
        Pack<Real> sums[targets] = {};
        for (unsigned s = 0; s < update.source_count; ++s) {
            const Pack<Real> value = reinterpret_cast<const Pack<Real> *>(update.sources[s])[i];
            for (unsigned j = 0; j < Pack<Real>::kWidth; ++j) {
                if (bad(value.v[j])) seen |= update.kinds[s];
                for (unsigned t = 0; t < targets; ++t) {
                    sums[t].v[j] += update.weights[t * update.source_count + s] * value.v[j];
                }
            }
        }
        for (unsigned j = 0; j < Pack<Real>::kWidth; ++j) {
            if (bad(sums[0].v[j])) seen |= update.kind;
        }
        for (unsigned t = 0; t < targets; ++t) reinterpret_cast<Pack<Real> *>(update.targets[t])[i] = sums[t];
    }
    if (seen != 0) atomicOr(update.flag, seen);
}

template <class Real>
__global__ void clip(Real *x, long long count, Real limit) {
    for (long long i = first(); i < count; i += stride()) {
        const Real v = x[i];
        x[i] = v < -limit ? -limit : (v > limit ? limit : v);
    }
}

template <class Real>
__global__ void learned_noise(const Learned<Real> learned) {
    for (long long i = first(); i < learned.count; i += stride()) {
        const Real given = learned.second[i / learned.sample * learned.pitch + i % learned.sample];
        const Real deviation = learned.variance ? sqrt(given) : exp(given * learned.half + learned.shift);
        if (bad(deviation)) atomicOr(learned.flag, kBadSecond);
        learned.to[i] = learned.from[i] * deviation;
    }
}

template <class Real>
__global__ void first_parts(const Real *whole, Real *slot, long long count, long long sample) {
    for (long long i = first(); i < count; i += stride()) slot[i] = whole[i / sample * 2 * sample + i % sample];
}

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
    const long long summed = Rescale<Real>::kSummed;
    double total = 0;
    for (long long part = 0; part < summed; ++part) total += rescale.sums[2 * (sample * summed + part) + which];
    return total / static_cast<double>(rescale.guided.sample);
}

template <class Real>
__global__ void sum_parts(const Rescale<Real> rescale) {
    const long long summed = Rescale<Real>::kSummed;
    const Guided<Real> &guided = rescale.guided;
    for (long long i = first(); i < rescale.batch * summed; i += stride()) {
        const long long sample = i / summed;
        double own = 0, given = 0;
        for (long long k = i % summed; k < guided.sample; k += summed) {
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
    const long long summed = Rescale<Real>::kSummed;
    const Guided<Real> &guided = rescale.guided;
    double *spreads = rescale.sums + 2 * rescale.batch * summed;
    for (long long i = first(); i < rescale.batch * summed; i += stride()) {
        const long long sample = i / summed;
        const double own_mean = mean(rescale, sample, 0), given_mean = mean(rescale, sample, 1);
        double own = 0, given = 0;
        for (long long k = i % summed; k < guided.sample; k += summed) {
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
    const long long summed = Rescale<Real>::kSummed;
    const double *spreads = rescale.sums + 2 * rescale.batch * summed;
    double *gains = rescale.sums + 4 * rescale.batch * summed;
    const double factor = static_cast<double>(*rescale.factor);
    for (long long sample = first(); sample < rescale.batch; sample += stride()) {
        double own = 0, given = 0;
        for (long long part = 0; part < summed; ++part) {
            own += spreads[2 * (sample * summed + part)];
            given += spreads[2 * (sample * summed + part) + 1];
        }
        gains[sample] = own > 0 ? factor * sqrt(given / own) + 1 - factor : 1;
    }
}

template <class Real>
__global__ void apply_gains(const Rescale<Real> rescale) {
    const double *gains = rescale.sums + 4 * rescale.batch * static_cast<long long>(Rescale<Real>::kSummed);
    const Guided<Real> &guided = rescale.guided;
    for (long long i = first(); i < guided.count; i += stride()) {
        guided.to[i] *= static_cast<Real>(gains[i / guided.sample]);
    }
}

unsigned blocks(long long count) {
    const long long wanted = (count + kThreads - 1) / kThreads;
    return static_cast<unsigned>(wanted < 1 ? 1 : (wanted > kMostBlocks ? kMostBlocks : wanted));
}

}  // namespace

template <class Real>
cudaError_t enqueue_update(const Update<Real> &update, cudaStream_t stream) {
    const unsigned grid = blocks(update.packs);
    switch (update.target_count) {
        case 1: DPMRT_LAUNCH((update_rows<Real, 1>), grid, kThreads, stream, update); break;
        case 2: DPMRT_LAUNCH((update_rows<Real, 2>), grid, kThreads, stream, update); break;
        case 3: DPMRT_LAUNCH((update_rows<Real, 3>), grid, kThreads, stream, update); break;
        case 4: DPMRT_LAUNCH((update_rows<Real, 4>), grid, kThreads, stream, update); break;
        default: return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}

template <class Real>
cudaError_t enqueue_clip(Real *x, long long count, Real limit, cudaStream_t stream) {
    DPMRT_LAUNCH((clip<Real>), blocks(count), kThreads, stream, x, count, limit);
    return cudaGetLastError();
}

template <class Real>
cudaError_t enqueue_learned(const Learned<Real> &learned, cudaStream_t stream) {
    DPMRT_LAUNCH((learned_noise<Real>), blocks(learned.count), kThreads, stream, learned);
    return cudaGetLastError();
}

template <class Real>
cudaError_t enqueue_first(const Real *whole, Real *slot, long long count, long long sample, cudaStream_t stream) {
    DPMRT_LAUNCH((first_parts<Real>), blocks(count), kThreads, stream, whole, slot, count, sample);
    return cudaGetLastError();
}

template <class Real>
cudaError_t enqueue_guided(const Guided<Real> &guided, cudaStream_t stream) {
    DPMRT_LAUNCH((guide<Real>), blocks(guided.count), kThreads, stream, guided);
    return cudaGetLastError();
}

template <class Real>
cudaError_t enqueue_rescale(const Rescale<Real> &rescale, cudaStream_t stream) {
    const long long parts = rescale.batch * static_cast<long long>(Rescale<Real>::kSummed);
    DPMRT_LAUNCH((sum_parts<Real>), blocks(parts), kThreads, stream, rescale);
    DPMRT_LAUNCH((spread_parts<Real>), blocks(parts), kThreads, stream, rescale);
    DPMRT_LAUNCH((find_gains<Real>), blocks(rescale.batch), kThreads, stream, rescale);
    DPMRT_LAUNCH((apply_gains<Real>), blocks(rescale.guided.count), kThreads, stream, rescale);
    return cudaGetLastError();
}

template cudaError_t enqueue_update(const Update<float> &, cudaStream_t);
template cudaError_t enqueue_update(const Update<double> &, cudaStream_t);
template cudaError_t enqueue_clip(float *, long long, float, cudaStream_t);
template cudaError_t enqueue_clip(double *, long long, double, cudaStream_t);
template cudaError_t enqueue_learned(const Learned<float> &, cudaStream_t);
template cudaError_t enqueue_learned(const Learned<double> &, cudaStream_t);
template cudaError_t enqueue_guided(const Guided<float> &, cudaStream_t);
template cudaError_t enqueue_guided(const Guided<double> &, cudaStream_t);
template cudaError_t enqueue_rescale(const Rescale<float> &, cudaStream_t);
template cudaError_t enqueue_rescale(const Rescale<double> &, cudaStream_t);
template cudaError_t enqueue_first(const float *, float *, long long, long long, cudaStream_t);
template cudaError_t enqueue_first(const double *, double *, long long, long long, cudaStream_t);

}  // namespace dpmrt_core::device
