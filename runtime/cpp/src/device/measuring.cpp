#include "measuring.h"

#include <algorithm>

namespace dpmrt_core::device {
namespace {

template <class Kind>
bool holds(const Plan &plan) {
    return std::any_of(plan.instructions.begin(), plan.instructions.end(),
                       [](const Instruction &one) { return std::holds_alternative<Kind>(one); });
}

}  // namespace

template <class Real>
Measuring<Real>::Measuring(const Plan &plan, std::size_t batch, std::size_t sample) : batch_(batch), sample_(sample) {
    if (holds<Langevin>(plan)) sums_ = Memory(LangevinStep<Real>::doubles(batch) * sizeof(double));
    if (!holds<DynamicThreshold>(plan)) return;
    chosen_ = Memory(Threshold<Real>::choices(batch) * sizeof(Chosen));
    counts_ = Memory(Threshold<Real>::bins(batch) * sizeof(unsigned));
}

template <class Real>
Threshold<Real> Measuring<Real>::threshold(const DynamicThreshold &instruction, Real *values, std::uint32_t *flag) const {
    const double position = instruction.ratio * static_cast<double>(sample_ - 1);
    const std::size_t low = std::min(static_cast<std::size_t>(position), sample_ - 1);
    Threshold<Real> made{};
    made.values = values;
    made.chosen = static_cast<Chosen *>(chosen_.data());
    made.counts = static_cast<unsigned *>(counts_.data());
    made.low = static_cast<long long>(low);
    made.high = static_cast<long long>(std::min(low + 1, sample_ - 1));
    made.part = static_cast<Real>(position - static_cast<double>(low));
    made.most = instruction.limit;
    made.flag = flag;
    made.batch = static_cast<long long>(batch_);
    made.sample = static_cast<long long>(sample_);
    return made;
}

template <class Real>
LangevinStep<Real> Measuring<Real>::langevin(const Langevin &instruction, Real *score, const Real *noise, Real *to,
                                             std::uint32_t *flag) const {
    LangevinStep<Real> made{};
    made.score = score;
    made.noise = noise;
    made.to = to;
    made.sums = static_cast<double *>(sums_.data());
    made.snr = instruction.snr;
    made.per_sample = instruction.per_sample;
    made.flag = flag;
    made.batch = static_cast<long long>(batch_);
    made.sample = static_cast<long long>(sample_);
    return made;
}

template class Measuring<float>;
template class Measuring<double>;

}  // namespace dpmrt_core::device
