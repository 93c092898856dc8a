#include "passes.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "buffer.h"

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
// Sources that are read in one loop, for up to three targets. What has more is summed block by block, and so is double
// precision, which is for proofs, and every sum of a processor that is old.
constexpr std::size_t kMostFused = 5;
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

using Fused = bool (*)(float *const *targets, const float *const *sources, const float *weights, std::size_t lines);
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
    float *to[3] = {};
    float by[3 * sources] = {};
    for (std::size_t k = 0; k < targets; ++k) to[k] = into[k];
    for (std::size_t k = 0; k < targets * sources; ++k) by[k] = weights[k];
    Lanes total = {};
    for (std::size_t k = 0; k < size; k += width) {
        Lanes values[sources], first, second, third;
        (std::memcpy(&values[Source], rows[Source] + k, sizeof(Lanes)), ...);
        sum<true>(first, values, by, terms);
        sum<(targets > 1)>(second, values, by + sources, terms);
        sum<(targets > 2)>(third, values, by + 2 * sources, terms);
        total += first;
        std::memcpy(to[0] + k, &first, sizeof(Lanes));
        if constexpr (targets > 1) std::memcpy(to[1] + k, &second, sizeof(Lanes));
        if constexpr (targets > 2) std::memcpy(to[2] + k, &third, sizeof(Lanes));
    }
    float totals[width];
    std::memcpy(totals, &total, sizeof totals);
    return finite(totals, width) || finite(into[0], size);
}

template <std::size_t targets, std::size_t sources>
DPMRT_WIDE bool apply_fused(float *const *into, const float *const *from, const float *weights, std::size_t lines) {
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
template <class Real>
bool apply_in_blocks(Real *const *into, const Real *const *from, const Real *weights, std::size_t targets,
                     std::size_t sources, std::size_t lines) {
    alignas(kAlignment) Real results[kMostTargets][kBlock];
    constexpr std::size_t most = kBlock / kLine<Real>;
    bool all = true;
    for (std::size_t line = 0; line < lines; line += most) {
        const std::size_t offset = line * kLine<Real>;
        const std::size_t count = std::min(most, lines - line) * kLine<Real>;
        for (std::size_t target = 0; target < targets; ++target) {
            Real *result = results[target];
            const Real *by = weights + target * sources;
            const Real *first = from[0] + offset;
            for (std::size_t k = 0; k < count; ++k) result[k] = by[0] * first[k];
            for (std::size_t source = 1; source < sources; ++source) {
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

template <std::size_t targets, std::size_t... Source>
Fused fused_for(std::size_t sources, std::index_sequence<Source...>) {
    constexpr Fused kernels[] = {apply_fused<targets, Source + 1>...};
    return sources <= sizeof...(Source) ? kernels[sources - 1] : nullptr;
}

// The one loop for a row, if there is one.
Fused fused_for(std::size_t targets, std::size_t sources) {
    const auto fusable = std::make_index_sequence<kMostFused>{};
    if (!can_fuse()) return nullptr;
    if (targets == 1) return fused_for<1>(sources, fusable);
    if (targets == 2) return fused_for<2>(sources, fusable);
    return targets == 3 ? fused_for<3>(sources, fusable) : nullptr;
}

}  // namespace

template <class Real>
Pass<Real>::Pass(const Update &update, Real *rows, std::size_t pitch, std::size_t size, std::size_t watched)
    : lines_((size + kLine<Real> - 1) / kLine<Real>), fused_(nullptr), watches_(false) {
    if (update.targets.size() > kMostTargets) throw std::logic_error("a row of the plan has too many targets");
    if constexpr (std::is_same_v<Real, float>) fused_ = fused_for(update.targets.size(), update.sources.size());
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
    if constexpr (std::is_same_v<Real, float>) {
        if (fused_ != nullptr) return fused_(targets_.data(), sources_.data(), weights_.data(), lines_) || !watches_;
    }
    return apply_in_blocks(targets_.data(), sources_.data(), weights_.data(), targets_.size(), sources_.size(), lines_) ||
           !watches_;
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
