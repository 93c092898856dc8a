// The network of the tests, which Python's goldens were made with: a bounded curve of the state and a line of the time.
#pragma once

#include <cstddef>

#include "dpmrt/dpmrt.h"

namespace network {

template <class Real>
Real first(Real x, double t) {
    return static_cast<Real>(0.9) * x / (1 + x * x) + static_cast<Real>(0.0005 * t);
}

template <class Real>
Real second(Real x) {
    return static_cast<Real>(0.5) / (1 + x * x);
}

template <class Real>
void fill(const dpmrt_binding &binding, double t, std::size_t output) {
    std::size_t sample = 1;
    for (std::size_t k = 1; k < binding.rank; ++k) sample *= binding.shape[k];
    const auto parts = static_cast<std::size_t>(binding.parts);
    const auto *x = static_cast<const Real *>(binding.input);
    auto *out = static_cast<Real *>(binding.outputs[output]);
    for (std::size_t b = 0; b < binding.shape[0]; ++b) {
        for (std::size_t k = 0; k < sample; ++k) {
            const Real value = x[b * sample + k];
            out[parts * b * sample + k] = first(value, t);
            if (parts == 2) out[(2 * b + 1) * sample + k] = second(value);
        }
    }
}

inline dpmrt_status run(void *, void *bound, std::size_t, double t, std::size_t output, dpmrt_error *) {
    const auto *binding = static_cast<const dpmrt_binding *>(bound);
    if (binding->dtype == DPMRT_FLOAT32) {
        fill<float>(*binding, t, output);
    } else {
        fill<double>(*binding, t, output);
    }
    return DPMRT_OK;
}

inline dpmrt_engine engine() { return {nullptr, nullptr, run, nullptr}; }

}  // namespace network
