#include "instructions.h"

#include <algorithm>
#include <cmath>

namespace dpmrt_core {
namespace {

template <class Real>
void clip(Real *values, std::size_t count, Real limit) {
    for (std::size_t k = 0; k < count; ++k) values[k] = std::min(std::max(values[k], -limit), limit);
}

// The linearly interpolated quantile of the absolute values.
template <class Real>
double quantile(const Real *values, std::size_t count, double ratio, Real *scratch) {
    for (std::size_t k = 0; k < count; ++k) scratch[k] = std::abs(values[k]);
    const double position = ratio * static_cast<double>(count - 1);
    const auto low = std::min(static_cast<std::size_t>(position), count - 1);
    const std::size_t high = std::min(low + 1, count - 1);
    const auto at = [scratch](std::size_t k) { return scratch + static_cast<std::ptrdiff_t>(k); };
    std::nth_element(scratch, at(low), at(count));
    const Real below = scratch[low];
    const Real above = high == low ? below : *std::min_element(at(high), at(count));
    return static_cast<double>(below + (above - below) * static_cast<Real>(position - static_cast<double>(low)));
}

// The Euclidean norm of a sample, summed in double precision.
template <class Real>
double norm(const Real *values, std::size_t count) {
    double sum = 0;
    for (std::size_t k = 0; k < count; ++k) sum += static_cast<double>(values[k]) * static_cast<double>(values[k]);
    return std::sqrt(sum);
}

}  // namespace

std::size_t scratch_size(const Plan &plan, std::size_t sample) {
    const bool needed = std::any_of(plan.instructions.begin(), plan.instructions.end(), [](const Instruction &one) {
        return std::holds_alternative<DynamicThreshold>(one);
    });
    return needed ? sample : 0;
}

template <class Real>
void apply_to_quantity(const Instruction &instruction, Real *x0, std::size_t batch, std::size_t sample, Real *scratch) {
    if (const auto *one = std::get_if<Clip>(&instruction)) {
        clip(x0, batch * sample, static_cast<Real>(one->limit));
    } else if (const auto *dynamic = std::get_if<DynamicThreshold>(&instruction)) {
        for (std::size_t k = 0; k < batch; ++k) {
            Real *values = x0 + k * sample;
            // NaN has no order; the state's check will name it.
            if (!std::all_of(values, values + sample, [](Real value) { return std::isfinite(value); })) continue;
            const double own = quantile(values, sample, dynamic->ratio, scratch);
            const auto limit = static_cast<Real>(std::min(std::max(own, 1.0), dynamic->limit));
            clip(values, sample, limit);
            for (std::size_t j = 0; j < sample; ++j) values[j] /= limit;
        }
    }
}

template <class Real>
void apply_to_noise(const Instruction &instruction, Real *z, const Real *second, std::size_t batch, std::size_t sample,
                    std::size_t pitch) {
    if (const auto *range = std::get_if<LearnedRange>(&instruction)) {
        const double half = (range->log_large - range->log_small) / 4;
        const auto slope = static_cast<Real>(half);
        const auto shift = static_cast<Real>(half + range->log_small / 2);
        for (std::size_t k = 0; k < batch; ++k) {
            for (std::size_t j = 0; j < sample; ++j) {
                z[k * sample + j] *= std::exp(second[k * pitch + j] * slope + shift);
            }
        }
    } else if (std::holds_alternative<LearnedVariance>(instruction)) {
        for (std::size_t k = 0; k < batch; ++k) {
            for (std::size_t j = 0; j < sample; ++j) z[k * sample + j] *= std::sqrt(second[k * pitch + j]);
        }
    }
}

template <class Real>
bool apply_langevin(const Langevin &instruction, Real *q, Real *z, std::size_t batch, std::size_t sample) {
    double mean_q = 0;
    double mean_z = 0;
    for (std::size_t k = 0; k < batch; ++k) {
        mean_q += norm(q + k * sample, sample) / static_cast<double>(batch);
        mean_z += norm(z + k * sample, sample) / static_cast<double>(batch);
    }
    const auto step = [&](std::size_t k) {
        if (!instruction.per_sample) return instruction.snr * mean_z / mean_q;
        return instruction.snr * norm(z + k * sample, sample) / norm(q + k * sample, sample);
    };
    for (std::size_t k = 0; k < batch; ++k) {
        const double h = step(k);
        if (!std::isfinite(static_cast<Real>(h * h))) return false;
    }
    for (std::size_t k = 0; k < batch; ++k) {
        const double h = step(k);
        const auto on_q = static_cast<Real>(h * h);
        const auto on_z = static_cast<Real>(h);
        for (std::size_t j = 0; j < sample; ++j) {
            q[k * sample + j] *= on_q;
            z[k * sample + j] *= on_z;
        }
    }
    return true;
}

template bool apply_langevin(const Langevin &, float *, float *, std::size_t, std::size_t);
template bool apply_langevin(const Langevin &, double *, double *, std::size_t, std::size_t);
template void apply_to_quantity(const Instruction &, float *, std::size_t, std::size_t, float *);
template void apply_to_quantity(const Instruction &, double *, std::size_t, std::size_t, double *);
template void apply_to_noise(const Instruction &, float *, const float *, std::size_t, std::size_t, std::size_t);
template void apply_to_noise(const Instruction &, double *, const double *, std::size_t, std::size_t, std::size_t);

}  // namespace dpmrt_core
