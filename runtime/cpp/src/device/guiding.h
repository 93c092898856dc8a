// Classifier-free guidance on a CUDA device: one input for both halves of a doubled batch, and one output of the two.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <vector>

#include "dpmrt/dpmrt.h"
#include "memory.h"

namespace dpmrt_core::device {

template <class Real>
class Guiding {
public:
    // For `batch` samples of `sample` numbers, and a network that gives `parts` times as many; `ratios` are those of noise
    // to signal at each call.
    Guiding(std::size_t batch, std::size_t sample, std::size_t parts, std::vector<double> times, std::vector<double> ratios);

    // Twice the state, which the network reads.
    const void *input() const { return doubled_.data(); }
    std::size_t output_size() const { return 2 * parts_ * batch_ * sample_; }

    // Settles and uploads the scales of the run that begins. Returns whether it enqueues what the run before did, so that a
    // graph of that one serves it too.
    bool begin(const dpmrt_guidance &guidance, cudaStream_t stream);
    void enqueue_input(const Real *state, cudaStream_t stream) const;
    // Writes the guided first parts of the output for call number `call`.
    void enqueue_output(std::size_t call, const Real *whole, Real *slot, cudaStream_t stream) const;

private:
    std::size_t batch_, sample_, parts_;
    std::vector<double> times_, ratios_;
    std::vector<Real> host_scales_;  // one for each call and sample, then the factor of the rescale
    Memory doubled_, scales_, sums_;
    bool rescaled_ = false;
};

}  // namespace dpmrt_core::device
