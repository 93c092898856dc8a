#include "passes.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "buffer.h"
#include "failure.h"

// Vectors of numbers, where the compiler knows them; else one number is a vector.
#if defined(__GNUC__)
#define DPMRT_VECTOR(bytes) __attribute__((vector_size(bytes)))
#define DPMRT_INLINE inline __attribute__((always_inline))
#else
#define DPMRT_VECTOR(bytes)
#define DPMRT_INLINE inline
#endif

// An x86-64 has vectors of 16 bytes, and most have AVX2's of 32, which are used where the processor is found to have
// them. Without its fused multiply-add, so that the numbers do not depend on it.
#if defined(__GNUC__) && defined(__x86_64__)
#define DPMRT_WIDE __attribute__((target("avx2")))
#else
#define DPMRT_WIDE
#endif

namespace dpmrt_core {
namespace {

// A row of a plan has no more targets: state, input, quantity and kept state.
constexpr std::size_t kMostTargets = 4;
// Sources that are read in one loop; what has more is summed block by block, and so is double precision, which is for
// proofs, and every sum of a processor that is old.
constexpr std::size_t kMostFused = 6;
// Numbers of a block: few enough that its sums stay in the first cache.
constexpr std::size_t kBlock = 512;
// Rows are made of whole lines, of zeros where the state ends before.
template <class Real>
constexpr std::size_t kLine = kAlignment / sizeof(Real);
#if defined(__x86_64__)
constexpr std::size_t kVector = 32;
#else
constexpr std::size_t kVector = 16;
#endif

template <class Real>
struct Bits;
template <>
struct Bits<float> {
    using Word = std::uint32_t;
    static constexpr Word exponent = 0x7f800000U, step = 0x00800000U, top = 0x80000000U;
};
template <>
struct Bits<double> {
    using Word = std::uint64_t;
    static constexpr Word exponent = 0x7ff0000000000000U, step = 0x0010000000000000U, top = 0x8000000000000000U;
};

// The top bit of what this gives is set where a number is infinite or none: its exponent is full, and one more runs over.
// In integers, so that no option of a compiler can take it away, and without a comparison, which vectors may not have.
template <class Real>
typename Bits<Real>::Word overflow(Real value) {
    typename Bits<Real>::Word bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    return (bits & Bits<Real>::exponent) + Bits<Real>::step;
}

template <class Real>
bool finite(const Real *values, std::size_t size) {
    typename Bits<Real>::Word seen = 0;
    for (std::size_t k = 0; k < size; ++k) seen |= overflow(values[k]);
    return (seen & Bits<Real>::top) == 0;
}

using Lanes DPMRT_VECTOR(kVector) = float;

// The next value of a target, the next of `weights` being its own; a target that there is not has none.
template <bool wanted, std::size_t... Source>
DPMRT_INLINE void sum(Lanes &into, const Lanes *values, const float *weights, std::index_sequence<Source...>) {
    if constexpr (wanted) into = ((weights[Source] * values[Source]) + ...);
}

// One row of weights: every source is read once, every target written once. Returns whether the first target is finite:
// a sum over it tells, for one addition, unless it runs over by itself.
template <std::size_t targets, std::size_t... Source>
DPMRT_INLINE bool fused(float *const *into, const float *const *from, const float *weights, std::size_t lines,
                        std::index_sequence<Source...> terms) {
    constexpr std::size_t width = sizeof(Lanes) / sizeof(float), sources = sizeof...(Source);
    const std::size_t size = lines * kLine<float>;
    const float *const rows[] = {from[Source]...};
    float *to[kMostTargets] = {};
    float by[kMostTargets * sources] = {};
    for (std::size_t k = 0; k < targets; ++k) to[k] = into[k];
    for (std::size_t k = 0; k < targets * sources; ++k) by[k] = weights[k];
    Lanes total = {};
    for (std::size_t k = 0; k < size; k += width) {
        Lanes values[sources], first, second, third, fourth;
        (std::memcpy(&values[Source], rows[Source] + k, sizeof(Lanes)), ...);
        sum<true>(first, values, by, terms);
        sum<(targets > 1)>(second, values, by + sources, terms);
        sum<(targets > 2)>(third, values, by + 2 * sources, terms);
        sum<(targets > 3)>(fourth, values, by + 3 * sources, terms);
        total += first;
        std::memcpy(to[0] + k, &first, sizeof(Lanes));
        if constexpr (targets > 1) std::memcpy(to[1] + k, &second, sizeof(Lanes));
        if constexpr (targets > 2) std::memcpy(to[2] + k, &third, sizeof(Lanes));
        if constexpr (targets > 3) std::memcpy(to[3] + k, &fourth, sizeof(Lanes));
    }
    float totals[width];
    std::memcpy(totals, &total, sizeof totals);
    return finite(totals, width) || finite(into[0], size);
}

template <std::size_t targets, std::size_t sources>
DPMRT_WIDE bool apply_fused(float *const *into, const float *const *from, const float *weights, std::size_t,
                            std::size_t lines) {
    return fused<targets>(into, from, weights, lines, std::make_index_sequence<sources>{});
}

bool can_fuse() {
#if defined(__GNUC__) && defined(__x86_64__)
    return __builtin_cpu_supports("avx2") != 0;
#else
    return true;
#endif
}

// As many sources as there are, from the cache for the targets after the first.
template <class Real, std::size_t targets>
bool apply_in_blocks(Real *const *into, const Real *const *from, const Real *weights, std::size_t terms, std::size_t lines) {
    const std::size_t size = lines * kLine<Real>;
    alignas(kAlignment) Real results[targets][kBlock];
    bool all = true;
    for (std::size_t offset = 0; offset < size; offset += kBlock) {
        const std::size_t count = std::min(kBlock, size - offset);
        for (std::size_t target = 0; target < targets; ++target) {
            Real *result = results[target];
            const Real *by = weights + target * terms;
            const Real *first = from[0] + offset;
            for (std::size_t k = 0; k < count; ++k) result[k] = by[0] * first[k];
            for (std::size_t source = 1; source < terms; ++source) {
                const Real *values = from[source] + offset;
                for (std::size_t k = 0; k < count; ++k) result[k] += by[source] * values[k];
            }
        }
        all = finite(results[0], count) && all;
        // A target may be a source of the next one, so all are known before any is written.
        for (std::size_t target = 0; target < targets; ++target) {
            std::memcpy(into[target] + offset, results[target], count * sizeof(Real));
        }
    }
    return all;
}

template <class Kernel, class Real, std::size_t targets, std::size_t... Source>
Kernel choose(std::size_t sources, std::index_sequence<Source...>) {
    if constexpr (sizeof(Real) == sizeof(float)) {
        constexpr Kernel kernels[] = {apply_fused<targets, Source + 1>...};
        if (sources <= sizeof...(Source) && can_fuse()) return kernels[sources - 1];
    }
    return apply_in_blocks<Real, targets>;
}

template <class Kernel, class Real>
Kernel choose(std::size_t targets, std::size_t sources) {
    const auto fusable = std::make_index_sequence<kMostFused>{};
    switch (targets) {
        case 1: return choose<Kernel, Real, 1>(sources, fusable);
        case 2: return choose<Kernel, Real, 2>(sources, fusable);
        case 3: return choose<Kernel, Real, 3>(sources, fusable);
        case kMostTargets: return choose<Kernel, Real, kMostTargets>(sources, fusable);
        default: throw Failure(DPMRT_ERROR_INTERNAL, "a row of the plan has too many targets", format("%zu", targets));
    }
}

}  // namespace

template <class Real>
Pass<Real>::Pass(const Update &update, Real *rows, std::size_t pitch, std::size_t size, std::size_t watched)
    : kernel_(choose<Kernel, Real>(update.targets.size(), update.sources.size())),
      lines_((size + kLine<Real> - 1) / kLine<Real>),
      watches_(false) {
    for (const std::size_t source : update.sources) sources_.push_back(rows + source * pitch);
    std::vector<std::size_t> order;
    for (std::size_t k = 0; k < update.targets.size(); ++k) {
        if (update.targets[k] == watched) {
            watches_ = true;
            order.insert(order.begin(), k);
        } else {
            order.push_back(k);
        }
    }
    for (const std::size_t k : order) {
        targets_.push_back(rows + update.targets[k] * pitch);
        for (std::size_t j = 0; j < sources_.size(); ++j) {
            weights_.push_back(static_cast<Real>(update.weights[k * sources_.size() + j]));
        }
    }
}

template <class Real>
bool Pass<Real>::apply() const {
    const bool finite = kernel_(targets_.data(), sources_.data(), weights_.data(), sources_.size(), lines_);
    return finite || !watches_;
}

template <class Real>
bool scale_into(Real *into, const Real *from, Real factor, std::size_t size) {
    typename Bits<Real>::Word seen = 0;
    for (std::size_t k = 0; k < size; ++k) {
        const Real value = factor * from[k];
        seen |= overflow(value);
        into[k] = value;
    }
    return (seen & Bits<Real>::top) == 0;
}

template class Pass<float>;
template class Pass<double>;
template bool scale_into(float *, const float *, float, std::size_t);
template bool scale_into(double *, const double *, double, std::size_t);

}  // namespace dpmrt_core
