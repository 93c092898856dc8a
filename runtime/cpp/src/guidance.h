// Classifier-free guidance: null + scale * (given - null), with scales that may change from call to call, and its rescale.
#pragma once

#include <cstddef>

#include "dpmrt/dpmrt.h"

namespace dpmrt_core {

dpmrt_guidance no_guidance();

// Where a run is when its network is called.
struct Moment {
    std::size_t call;
    std::size_t calls;
    double t;
    double ratio;  // of noise to signal
};

// Refuses what cannot be honoured, or what a session without guidance is asked for.
void check_guidance(const dpmrt_guidance &guidance, bool guided, std::size_t batch, std::size_t calls);

double guidance_scale(const dpmrt_guidance &guidance, const Moment &moment, std::size_t sample);

template <class Real>
void guide(Real *out, const Real *given, const Real *null, std::size_t size, Real scale);

// Guidance rescale (Lin et al. 2023, section 3.4): multiplies a guided sample by factor * std(given) / std(guided)
// + 1 - factor. A sample without deviation stays.
template <class Real>
void rescale_guided(Real *guided, const Real *given, std::size_t size, double factor);

}  // namespace dpmrt_core
