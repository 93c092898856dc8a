#include "kernels.h"
#include "launch.cuh"

namespace dpmrt_core::device {
namespace {

template <class Real>
struct alignas(kPackBytes) Pack {
    static constexpr unsigned kWidth = kPackBytes / sizeof(Real);
    Real v[kWidth];
};

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

template cudaError_t enqueue_update(const Update<float> &, cudaStream_t);
template cudaError_t enqueue_update(const Update<double> &, cudaStream_t);
template cudaError_t enqueue_clip(float *, long long, float, cudaStream_t);
template cudaError_t enqueue_clip(double *, long long, double, cudaStream_t);
template cudaError_t enqueue_learned(const Learned<float> &, cudaStream_t);
template cudaError_t enqueue_learned(const Learned<double> &, cudaStream_t);
template cudaError_t enqueue_first(const float *, float *, long long, long long, cudaStream_t);
template cudaError_t enqueue_first(const double *, double *, long long, long long, cudaStream_t);

}  // namespace dpmrt_core::device
