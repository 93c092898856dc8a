#include "network_call.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "failure.h"

namespace dpmrt_core {

std::string where(std::size_t call, std::size_t calls, double t) {
    return format("call %zu of %zu, t = %g", call, calls, t);
}

Failure callback_failed(dpmrt_status status, const char *what, const dpmrt_error &error) {
    const std::string got = error.text[0] != '\0' ? std::string(error.text, strnlen(error.text, sizeof error.text))
                                                  : std::string("status ") + dpmrt_status_name(status);
    return {status, what, got};
}

void langevin_failed(const std::string &place) {
    fail(DPMRT_ERROR_NONFINITE, "a Langevin corrector cannot set its step by the norm of the score",
         format("a norm of zero, or beyond what numbers hold: %s", place.c_str()), "a score with a finite norm above zero",
         "check the network's output; corrector='annealed-langevin' has steps that measure nothing");
}

NetworkCall::NetworkCall(const Plan &plan, const dpmrt_engine &engine, const dpmrt_session_params &params,
                         const void *input, std::vector<void *> slots)
    : engine_(engine),
      shape_(params.shape, params.shape + params.rank),
      dtype_(params.dtype == DPMRT_FLOAT32 ? DPMRT_FLOAT32 : DPMRT_FLOAT64),
      parts_(static_cast<std::size_t>(plan.parts)),
      guided_(params.guided != 0),
      input_(input),
      slots_(std::move(slots)) {
    for (std::size_t k = 1; k < shape_.size(); ++k) count_ *= shape_[k];
    sample_ = count_ * (dtype_ == DPMRT_FLOAT32 ? sizeof(float) : sizeof(double));
    size_ = shape_[0] * sample_;
    for (std::size_t row = 0; row < plan.rows(); ++row) {
        if (plan.out[row] < 0) continue;
        times_.push_back(plan.t[row]);
        ratios_.push_back(plan.sigma[row] / plan.alpha[row]);
    }
    const std::size_t halves = guided_ ? 2 : 1;
    if (guided_) {
        doubled_memory_ = Buffer(params.allocator, halves * size_);
        doubled_ = static_cast<char *>(doubled_memory_.data());
    }
    if (guided_ || parts_ == 2) {
        whole_memory_ = Buffer(params.allocator, halves * parts_ * size_);
        whole_ = static_cast<char *>(whole_memory_.data());
    }
    outputs_ = whole_ != nullptr ? std::vector<void *>(slots_.size(), whole_) : slots_;
    bind(main_, halves, guided_);
    try {
        if (guided_ && params.guided_alone != 0) bind(alone_, 1, false);
    } catch (...) {
        unbind(main_);
        throw;
    }
}

NetworkCall::~NetworkCall() {
    unbind(alone_);
    unbind(main_);
}

void NetworkCall::bind(Binding &made, std::size_t halves, bool guided) {
    made.shape = shape_;
    made.shape[0] *= halves;
    dpmrt_binding &binding = made.binding;
    binding.dtype = dtype_;
    binding.rank = made.shape.size();
    binding.shape = made.shape.data();
    binding.parts = static_cast<int>(parts_);
    binding.input = guided_ ? doubled_ : input_;
    binding.outputs = outputs_.data();
    binding.output_count = outputs_.size();
    binding.times = times_.data();
    binding.calls = times_.size();
    binding.guided = guided ? 1 : 0;
    made.bound = &binding;
    if (engine_.bind != nullptr) {
        dpmrt_error error{};
        const dpmrt_status status = engine_.bind(engine_.user, &binding, &made.bound, &error);
        if (status != DPMRT_OK) throw callback_failed(status, "the engine could not be bound to the session", error);
    }
    made.is_bound = true;
}

void NetworkCall::unbind(const Binding &binding) const {
    if (engine_.unbind != nullptr && binding.is_bound) engine_.unbind(engine_.user, binding.bound);
}

void NetworkCall::begin(const dpmrt_guidance &guidance) {
    check_guidance(guidance, guided_, shape_[0], times_.size());
    guidance_ = guidance;
}

double NetworkCall::scale(std::size_t index, std::size_t sample) const {
    return guidance_scale(guidance_, {index, times_.size(), times_[index], ratios_[index]}, sample);
}

void NetworkCall::call(std::size_t index, std::size_t out) {
    if (!guided_) {
        run(main_, index, out);
        if (whole_ != nullptr) take(out);
        return;
    }
    bool plain = true;
    for (std::size_t k = 0; k < shape_[0]; ++k) plain = plain && scale(index, k) == 1;
    std::memcpy(doubled_, input_, size_);
    std::memcpy(doubled_ + size_, input_, size_);
    run(plain && alone_.is_bound ? alone_ : main_, index, out);
    if (plain) {
        take(out);
    } else if (dtype_ == DPMRT_FLOAT32) {
        combine<float>(index, out);
    } else {
        combine<double>(index, out);
    }
}

// Makes one output of the two halves.
template <class Real>
void NetworkCall::combine(std::size_t index, std::size_t out) const {
    const std::size_t pitch = parts_ * count_;
    const Real *given = reinterpret_cast<const Real *>(whole_);
    const Real *null = given + shape_[0] * pitch;
    auto *guided = static_cast<Real *>(slots_[out]);
    for (std::size_t k = 0; k < shape_[0]; ++k) {
        guide(guided, given, null, count_, static_cast<Real>(scale(index, k)));
        if (guidance_.rescale != 0) rescale_guided(guided, given, count_, guidance_.rescale);
        guided += count_;
        given += pitch;
        null += pitch;
    }
}

// Puts the first part of what the network gave for the first half into the slot.
void NetworkCall::take(std::size_t out) const {
    auto *slot = static_cast<char *>(slots_[out]);
    for (std::size_t k = 0; k < shape_[0]; ++k) std::memcpy(slot + k * sample_, whole_ + parts_ * k * sample_, sample_);
}

void NetworkCall::run(const Binding &binding, std::size_t index, std::size_t out) const {
    dpmrt_error error{};
    const dpmrt_status status = engine_.run(engine_.user, binding.bound, index, times_[index], out, &error);
    if (status == DPMRT_CANCELLED) fail(status, "sampling was cancelled by the engine");
    if (status != DPMRT_OK) {
        fail(DPMRT_ERROR_ENGINE, callback_failed(status, "the engine failed", error).what(), {},
             where(index + 1, times_.size(), times_[index]));
    }
}

}  // namespace dpmrt_core
