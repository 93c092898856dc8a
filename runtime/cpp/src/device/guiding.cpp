#include "guiding.h"

#include <utility>

#include "../guidance.h"
#include "guidance_kernels.h"

namespace dpmrt_core::device {

template <class Real>
Guiding<Real>::Guiding(std::size_t batch, std::size_t sample, std::size_t parts, std::vector<double> times,
                       std::vector<double> ratios)
    : batch_(batch),
      sample_(sample),
      parts_(parts),
      times_(std::move(times)),
      ratios_(std::move(ratios)),
      host_scales_(times_.size() * batch + 1),
      doubled_(2 * batch * sample * sizeof(Real)),
      scales_(host_scales_.size() * sizeof(Real)),
      sums_(Rescale<Real>::doubles(batch) * sizeof(double)) {}

template <class Real>
bool Guiding<Real>::begin(const dpmrt_guidance &guidance, cudaStream_t stream) {
    const std::size_t calls = times_.size();
    check_guidance(guidance, true, batch_, calls);
    for (std::size_t call = 0; call < calls; ++call) {
        for (std::size_t k = 0; k < batch_; ++k) {
            const double scale = guidance_scale(guidance, {call, calls, times_[call], ratios_[call]}, k);
            host_scales_[call * batch_ + k] = static_cast<Real>(scale);
        }
    }
    host_scales_.back() = static_cast<Real>(guidance.rescale);
    check(cudaMemcpyAsync(scales_.data(), host_scales_.data(), scales_.size(), cudaMemcpyHostToDevice, stream),
          "copying the scales of guidance");
    const bool before = rescaled_;
    rescaled_ = guidance.rescale != 0;
    return before == rescaled_;
}

template <class Real>
void Guiding<Real>::enqueue_input(const Real *state, cudaStream_t stream) const {
    const std::size_t bytes = batch_ * sample_ * sizeof(Real);
    for (std::size_t half = 0; half < 2; ++half) {
        check(cudaMemcpyAsync(static_cast<char *>(doubled_.data()) + half * bytes, state, bytes, cudaMemcpyDeviceToDevice, stream),
              "copying the input");
    }
}

template <class Real>
void Guiding<Real>::enqueue_output(std::size_t call, const Real *whole, Real *slot, cudaStream_t stream) const {
    const auto *scales = static_cast<const Real *>(scales_.data());
    Guided<Real> guided{};
    guided.given = whole;
    guided.null = whole + batch_ * parts_ * sample_;
    guided.to = slot;
    guided.scales = scales + call * batch_;
    guided.count = static_cast<long long>(batch_ * sample_);
    guided.sample = static_cast<long long>(sample_);
    guided.pitch = static_cast<long long>(parts_ * sample_);
    check(enqueue_guided(guided, stream), "guidance");
    if (!rescaled_) return;
    const Rescale<Real> rescale{guided, scales + host_scales_.size() - 1, static_cast<double *>(sums_.data()),
                                static_cast<long long>(batch_)};
    check(enqueue_rescale(rescale, stream), "the rescale of guidance");
}

template class Guiding<float>;
template class Guiding<double>;

}  // namespace dpmrt_core::device
