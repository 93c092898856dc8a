#include "guidance.h"

#include <algorithm>
#include <cmath>

#include "failure.h"

namespace dpmrt_core {
namespace {

constexpr double kPi = 3.14159265358979323846;

[[noreturn]] void refuse(std::string_view what, std::string_view got, std::string_view expected, std::string_view fix = {}) {
    fail(DPMRT_ERROR_ARGUMENT, what, got, expected, fix);
}

void check_finite(const double *scales, std::size_t count) {
    for (std::size_t k = 0; k < count; ++k) {
        if (!std::isfinite(scales[k])) refuse("guidance is not a scale", format("%g", scales[k]), "finite numbers");
    }
}

void check_scales(const dpmrt_guidance &guidance, std::size_t batch, std::size_t calls) {
    check_finite(&guidance.scale, 1);
    if (guidance.scales != nullptr) {
        if (guidance.scale_count != batch) {
            refuse("there must be one scale of guidance for each sample", format("%zu scales", guidance.scale_count),
                   format("%zu, as the batch", batch));
        }
        check_finite(guidance.scales, batch);
    }
    if (guidance.table == nullptr) return;
    if (guidance.scales != nullptr || guidance.schedule != DPMRT_SCHEDULE_CONSTANT) {
        refuse("a table says the scales of guidance, which are given beside it", "table, and scales or a schedule",
               "one of them");
    }
    if (guidance.table_calls != calls) {
        refuse("the schedule of guidance has another number of network calls than the plan",
               format("%zu scales", guidance.table_calls), format("%zu, as the plan calls the network", calls),
               "give one scale for each call");
    }
    if (guidance.table_samples != 1 && guidance.table_samples != batch) {
        refuse("the schedule of guidance is no table of scales", format("%zu columns", guidance.table_samples),
               format("1 or %zu, as the batch", batch));
    }
    check_finite(guidance.table, calls * guidance.table_samples);
}

// The sum of squared distances from the mean; counts cancel in a ratio of two.
template <class Real>
double spread(const Real *values, std::size_t size) {
    double mean = 0;
    for (std::size_t k = 0; k < size; ++k) mean += static_cast<double>(values[k]);
    mean /= static_cast<double>(size);
    double sum = 0;
    for (std::size_t k = 0; k < size; ++k) {
        const double distance = static_cast<double>(values[k]) - mean;
        sum += distance * distance;
    }
    return sum;
}

}  // namespace

dpmrt_guidance no_guidance() {
    dpmrt_guidance made{};
    made.scale = 1;
    made.low = -HUGE_VAL;
    made.high = HUGE_VAL;
    return made;
}

void check_guidance(const dpmrt_guidance &guidance, bool guided, std::size_t batch, std::size_t calls) {
    const bool asked = guidance.scale != 1 || guidance.scales != nullptr || guidance.table != nullptr;
    if (!guided) {
        if (!asked) return;
        refuse("guidance is asked of a session that was made without it", format("scale %g", guidance.scale), "scale 1",
               "set `guided` in the session's parameters");
    }
    if (!(guidance.rescale >= 0 && guidance.rescale <= 1)) {
        refuse("guidance rescale is out of range", format("%g", guidance.rescale), "0 (none) to 1");
    }
    if (!(guidance.low <= guidance.high)) {
        refuse("guidance has no such interval", format("%g to %g", guidance.low, guidance.high),
               "two numbers, the lower first");
    }
    if (guidance.unit < DPMRT_UNIT_PROGRESS || guidance.unit > DPMRT_UNIT_SIGMA) {
        refuse("guidance goes by no such unit", format("%d", guidance.unit), "a dpmrt_guidance_unit");
    }
    if (guidance.schedule < DPMRT_SCHEDULE_CONSTANT || guidance.schedule > DPMRT_SCHEDULE_COSINE) {
        refuse("guidance has no such schedule", format("%d", guidance.schedule), "a dpmrt_guidance_schedule");
    }
    check_scales(guidance, batch, calls);
}

double guidance_scale(const dpmrt_guidance &guidance, const Moment &moment, std::size_t sample) {
    const auto last = static_cast<double>(std::max<std::size_t>(1, moment.calls - 1));
    const double progress = static_cast<double>(moment.call) / last;
    const double places[] = {progress, moment.t, moment.ratio};
    const double place = places[guidance.unit];
    if (!(guidance.low <= place && place <= guidance.high)) return 1;
    if (guidance.table != nullptr) {
        return guidance.table[moment.call * guidance.table_samples + (guidance.table_samples == 1 ? 0 : sample)];
    }
    const double full = guidance.scales != nullptr ? guidance.scales[sample] : guidance.scale;
    if (guidance.schedule == DPMRT_SCHEDULE_LINEAR) return 1 + (full - 1) * progress;
    if (guidance.schedule == DPMRT_SCHEDULE_COSINE) return 1 + (full - 1) * ((1 - std::cos(kPi * progress)) / 2);
    return full;
}

template <class Real>
void guide(Real *out, const Real *given, const Real *null, std::size_t size, Real scale) {
    for (std::size_t k = 0; k < size; ++k) out[k] = (given[k] - null[k]) * scale + null[k];
}

template <class Real>
void rescale_guided(Real *guided, const Real *given, std::size_t size, double factor) {
    const double own = spread(guided, size);
    if (!(own > 0)) return;
    const auto gain = static_cast<Real>(factor * std::sqrt(spread(given, size) / own) + 1 - factor);
    for (std::size_t k = 0; k < size; ++k) guided[k] *= gain;
}

template void guide(float *, const float *, const float *, std::size_t, float);
template void guide(double *, const double *, const double *, std::size_t, double);
template void rescale_guided(float *, const float *, std::size_t, double);
template void rescale_guided(double *, const double *, std::size_t, double);

}  // namespace dpmrt_core
