// What the device needs of memory for instructions that look at a whole sample: a Langevin step, a dynamic threshold.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../plan.h"
#include "instruction_kernels.h"
#include "memory.h"

namespace dpmrt_core::device {

template <class Real>
class Measuring {
public:
    Measuring() = default;
    // Allocates what the plan's instructions need, if any.
    Measuring(const Plan &plan, std::size_t batch, std::size_t sample);

    // Limits `values`; `flag` is told of what is not finite.
    Threshold<Real> threshold(const DynamicThreshold &instruction, Real *values, std::uint32_t *flag) const;
    // Scales the score in place, and the noise on its way to `to`.
    LangevinStep<Real> langevin(const Langevin &instruction, Real *score, const Real *noise, Real *to, std::uint32_t *flag) const;

private:
    std::size_t batch_ = 0, sample_ = 0;
    Memory sums_, chosen_, counts_;
};

}  // namespace dpmrt_core::device
