// Guided trajectories that Python wrote, and the network that they were made with.
#pragma once

#include "cases.h"
#include "network.h"

namespace network {

// What `fill` gives, moved by a line of the state for the samples that are conditioned.
template <class Real>
void fill_conditioned(const dpmrt_binding &binding, double t, std::size_t output) {
    fill<Real>(binding, t, output);
    std::size_t sample = static_cast<std::size_t>(binding.parts);
    for (std::size_t k = 1; k < binding.rank; ++k) sample *= binding.shape[k];
    const std::size_t state = sample / static_cast<std::size_t>(binding.parts);
    const auto *x = static_cast<const Real *>(binding.input);
    auto *out = static_cast<Real *>(binding.outputs[output]);
    const std::size_t conditioned = binding.guided != 0 ? binding.shape[0] / 2 : binding.shape[0];
    for (std::size_t b = 0; b < conditioned; ++b) {
        for (std::size_t k = 0; k < state; ++k) out[b * sample + k] += static_cast<Real>(0.25) * x[b * state + k];
        for (std::size_t k = state; k < sample; ++k) out[b * sample + k] += static_cast<Real>(0.1);
    }
}

}  // namespace network

struct Guided {
    std::vector<double> scales, table;
    dpmrt_guidance guidance = dpmrt_run_default_params().guidance;
    std::size_t alone = 0;  // calls that Python made on the conditioned half by itself
    Case one;

    explicit Guided(const std::filesystem::path &path) {
        CaseReader reader(path);
        scales = reader.reals();
        table = reader.reals();
        if (!table.empty()) guidance.table = table.data();
        guidance.table_calls = reader.whole();
        guidance.table_samples = reader.whole();
        guidance.schedule = static_cast<int>(reader.whole());
        guidance.unit = static_cast<int>(reader.whole());
        const std::vector<double> numbers = reader.reals();
        guidance.low = numbers[0];
        guidance.high = numbers[1];
        guidance.rescale = numbers[2];
        alone = reader.whole();
        one = reader.read();
        if (scales.size() == 1) guidance.scale = scales[0];
        if (scales.size() > 1) {
            guidance.scales = scales.data();
            guidance.scale_count = scales.size();
        }
    }
};
