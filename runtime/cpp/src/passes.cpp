#include "passes.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace dpmrt_core {
namespace {

// Numbers handled at once: few enough that sources and results stay in the first cache.
constexpr std::size_t kBlock = 512;
// A plan with more targets than this in one row does not exist: state, input, quantity and kept state.
constexpr std::size_t kMostTargets = 4;

template <class Real>
void scale(Real *into, const Real *a, Real u, std::size_t count) {
    for (std::size_t k = 0; k < count; ++k) into[k] = u * a[k];
}

template <class Real>
void add(Real *into, const Real *a, Real u, std::size_t count) {
    for (std::size_t k = 0; k < count; ++k) into[k] += u * a[k];
}

template <class Real>
void add_two(Real *into, const Real *a, Real u, const Real *b, Real v, std::size_t count) {
    for (std::size_t k = 0; k < count; ++k) into[k] += u * a[k] + v * b[k];
}

template <class Real>
void scale_three(Real *into, const Real *a, Real u, const Real *b, Real v, const Real *c, Real w, std::size_t count) {
    for (std::size_t k = 0; k < count; ++k) into[k] = u * a[k] + v * b[k] + w * c[k];
}

template <class Real>
void scale_two(Real *into, const Real *a, Real u, const Real *b, Real v, std::size_t count) {
    for (std::size_t k = 0; k < count; ++k) into[k] = u * a[k] + v * b[k];
}

// The sum over sources, read from memory once for a block and from the cache for the targets after the first.
template <class Real>
void combine(Real *into, const Real *const *sources, const Real *weights, std::size_t terms, std::size_t offset,
             std::size_t count) {
    std::size_t done = std::min<std::size_t>(terms, 3);
    if (done == 1) {
        scale(into, sources[0] + offset, weights[0], count);
    } else if (done == 2) {
        scale_two(into, sources[0] + offset, weights[0], sources[1] + offset, weights[1], count);
    } else {
        scale_three(into, sources[0] + offset, weights[0], sources[1] + offset, weights[1], sources[2] + offset,
                    weights[2], count);
    }
    for (; done + 1 < terms; done += 2) {
        add_two(into, sources[done] + offset, weights[done], sources[done + 1] + offset, weights[done + 1], count);
    }
    if (done < terms) add(into, sources[done] + offset, weights[done], count);
}

// The exponent of a number is full where it is infinite or none; integers, so that the loop is one of vectors.
bool finite(const float *values, std::size_t count) {
    constexpr std::uint32_t exponent = 0x7f800000U;
    std::uint32_t bad = 0;
    for (std::size_t k = 0; k < count; ++k) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, values + k, sizeof bits);
        bad |= static_cast<std::uint32_t>((bits & exponent) == exponent);
    }
    return bad == 0;
}

bool finite(const double *values, std::size_t count) {
    constexpr std::uint64_t exponent = 0x7ff0000000000000U;
    std::uint64_t bad = 0;
    for (std::size_t k = 0; k < count; ++k) {
        std::uint64_t bits = 0;
        std::memcpy(&bits, values + k, sizeof bits);
        bad |= static_cast<std::uint64_t>((bits & exponent) == exponent);
    }
    return bad == 0;
}

}  // namespace

template <class Real>
Pass<Real>::Pass(const Update &update, Real *rows, std::size_t pitch, std::size_t size, std::size_t watched)
    : size_(size) {
    for (const std::size_t source : update.sources) sources_.push_back(rows + source * pitch);
    for (std::size_t k = 0; k < update.targets.size(); ++k) {
        Target target{rows + update.targets[k] * pitch, update.targets[k] == watched, {}};
        for (std::size_t j = 0; j < sources_.size(); ++j) {
            target.weights.push_back(static_cast<Real>(update.weights[k * sources_.size() + j]));
        }
        targets_.push_back(std::move(target));
    }
}

template <class Real>
bool Pass<Real>::apply() const {
    alignas(64) Real results[kMostTargets][kBlock];
    bool all = true;
    for (std::size_t offset = 0; offset < size_; offset += kBlock) {
        const std::size_t count = std::min(kBlock, size_ - offset);
        for (std::size_t k = 0; k < targets_.size(); ++k) {
            combine(results[k], sources_.data(), targets_[k].weights.data(), sources_.size(), offset, count);
            if (targets_[k].watched) all = finite(results[k], count) && all;
        }
        // A target may be a source of the next one, so all are known before any is written.
        for (std::size_t k = 0; k < targets_.size(); ++k) {
            std::memcpy(targets_[k].row + offset, results[k], count * sizeof(Real));
        }
    }
    return all;
}

template class Pass<float>;
template class Pass<double>;

}  // namespace dpmrt_core
