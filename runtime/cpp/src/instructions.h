// The non-linear operations that a plan may name, applied in place.
#pragma once

#include <cstddef>

#include "plan.h"

namespace dpmrt_core {

// How many numbers of scratch an instruction needs for a sample of this size.
std::size_t scratch_size(const Plan &plan, std::size_t sample);

// Applies an instruction to a batch of x0 predictions.
template <class Real>
void apply_to_quantity(const Instruction &instruction, Real *x0, std::size_t batch, std::size_t sample, Real *scratch);

// Scales the noise z by the deviation that the output's second part stands for. `second` is that of the first sample,
// and those of the others follow at `pitch`.
template <class Real>
void apply_to_noise(const Instruction &instruction, Real *z, const Real *second, std::size_t batch, std::size_t sample,
                    std::size_t pitch);

// Scales the score q and the noise z of every sample by the step that their norms set; returns false, and leaves them, if
// no step can be set.
template <class Real>
bool apply_langevin(const Langevin &instruction, Real *q, Real *z, std::size_t batch, std::size_t sample);

}  // namespace dpmrt_core
