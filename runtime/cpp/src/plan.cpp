#include "plan.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "failure.h"

namespace dpmrt_core {
namespace {

template <class... Kinds>
bool holds(const Instruction &instruction) {
    return (std::holds_alternative<Kinds>(instruction) || ...);
}

std::string in_row(std::int64_t value, std::size_t row) {
    return format("%lld in row %zu", static_cast<long long>(value), row);
}

class Checker {
public:
    Checker(const Plan &plan, const std::string &source) : plan_(plan), source_(source) {}

    void finite() const {
        finite("t", plan_.t);
        finite("alpha", plan_.alpha);
        finite("sigma", plan_.sigma);
        finite("in_scale", plan_.in_scale);
        finite("convert", plan_.convert);
        finite("restore", plan_.restore);
        for (std::size_t k = 0; k < plan_.weights.size(); ++k) {
            if (!std::isfinite(plan_.weights[k])) not_finite("weights", k / (plan_.slots + 1));
        }
        finite("noise", plan_.noise);
        finite("span", plan_.span);
    }

    void header() const {
        const double numbers[] = {plan_.init_scale, plan_.start.state, plan_.start.other, plan_.end.state,
                                  plan_.end.other};
        for (const double number : numbers) {
            if (!std::isfinite(number)) refuse("init_scale, start and end of the plan must be finite");
        }
        if (plan_.parts != 1 && plan_.parts != 2) {
            refuse("a network's output has one part, or a second for the variance", format("%d", plan_.parts));
        }
    }

    void ranges() const {
        const auto slots = static_cast<std::int64_t>(plan_.slots);
        const auto named = static_cast<std::int64_t>(plan_.instructions.size());
        range("out", plan_.out, -1, slots - 1, false);
        range("quantity", plan_.quantity, 0, slots - 1, true);
        range("keep", plan_.keep, -1, slots - 1, false);
        range("instruction", plan_.instruction, -1, named - 1, false);
        range("noise_instruction", plan_.noise_instruction, -1, named - 1, false);
    }

    void instructions() const {
        uses("instruction", plan_.instruction, true);
        uses("noise_instruction", plan_.noise_instruction, false);
        for (std::size_t row = 0; row < plan_.rows(); ++row) langevin(row);
        for (const Instruction &one : plan_.instructions) bounds(one);
        const bool learned = std::any_of(plan_.instructions.begin(), plan_.instructions.end(),
                                         holds<LearnedRange, LearnedVariance>);
        if (plan_.parts == 1 && learned) refuse("a learned variance needs an output of two parts", "parts = 1", "2");
    }

    void reads() const {
        std::set<std::int32_t> written;
        for (std::size_t row = 0; row < plan_.rows(); ++row) {
            if (plan_.out[row] >= 0) written.insert({plan_.out[row], plan_.quantity[row]});
            if (plan_.keep[row] >= 0) written.insert(plan_.keep[row]);
            for (std::size_t k = 0; k < plan_.slots; ++k) {
                if (plan_.weight(row, 1 + k) != 0 && written.count(static_cast<std::int32_t>(k)) == 0) {
                    refuse("a row reads a slot before anything wrote it", format("slot %zu in row %zu", k, row));
                }
            }
        }
    }

private:
    [[noreturn]] void refuse(std::string_view what, std::string_view got = {}, std::string_view expected = {}) const {
        fail(DPMRT_ERROR_FORMAT, std::string(source_).append(": ").append(what), got, expected);
    }

    [[noreturn]] void not_finite(const char *name, std::size_t row) const {
        refuse(format("column '%s' is not finite", name), format("NaN or infinity in row %zu", row));
    }

    void finite(const char *name, const std::vector<double> &column) const {
        for (std::size_t row = 0; row < column.size(); ++row) {
            if (!std::isfinite(column[row])) not_finite(name, row);
        }
    }

    void finite(const char *name, const std::vector<Plan::Pair> &column) const {
        for (std::size_t row = 0; row < column.size(); ++row) {
            if (!std::isfinite(column[row].state) || !std::isfinite(column[row].other)) not_finite(name, row);
        }
    }

    void range(const char *name, const std::vector<std::int32_t> &column, std::int64_t low, std::int64_t high,
               bool of_calls) const {
        for (std::size_t row = 0; row < column.size(); ++row) {
            if (of_calls && plan_.out[row] < 0) continue;
            if (column[row] < low || column[row] > high) {
                refuse(format("column '%s' is out of range", name), in_row(column[row], row),
                       format("%lld to %lld", static_cast<long long>(low), static_cast<long long>(high)));
            }
        }
    }

    void langevin(std::size_t row) const {
        const std::int32_t index = plan_.noise_instruction[row];
        if (index < 0 || !holds<Langevin>(plan_.instructions[static_cast<std::size_t>(index)])) return;
        if (plan_.out[row] >= 0 && plan_.instruction[row] < 0 && plan_.noise[row] != 0) return;
        refuse("a Langevin step is in a row that it cannot work on",
               format("row %zu: out %d, instruction %d, noise %g", row, plan_.out[row], plan_.instruction[row],
                      plan_.noise[row]),
               "a call, no other instruction on its quantity, and noise");
    }

    // Of the numbers that arrays are divided by, or counted with.
    void bounds(const Instruction &instruction) const {
        if (const auto *clip = std::get_if<Clip>(&instruction)) {
            bound("clip: limit", clip->limit, 0, HUGE_VAL, "0 or more");
        } else if (const auto *langevin = std::get_if<Langevin>(&instruction)) {
            bound("langevin: snr", langevin->snr, 0, HUGE_VAL, "0 or more");
        } else if (const auto *dynamic = std::get_if<DynamicThreshold>(&instruction)) {
            bound("dynamic_threshold: ratio", dynamic->ratio, 0, 1, "0 to 1");
            bound("dynamic_threshold: limit", dynamic->limit, 1, HUGE_VAL, "1 or more");
        }
    }

    void bound(const char *name, double value, double least, double most, std::string_view expected) const {
        if (least <= value && value <= most) return;
        refuse("an instruction has a number out of range", format("%s = %g", name, value), expected);
    }

    void uses(const char *name, const std::vector<std::int32_t> &column, bool quantity) const {
        for (const std::int32_t index : column) {
            if (index >= 0 && on_quantity(plan_.instructions[static_cast<std::size_t>(index)]) != quantity) {
                refuse(format("column '%s' names an instruction for another use", name), format("number %d", index));
            }
        }
    }

    const Plan &plan_;
    const std::string &source_;
};

}  // namespace

bool on_quantity(const Instruction &instruction) { return holds<Clip, DynamicThreshold>(instruction); }

std::size_t Plan::calls() const {
    return static_cast<std::size_t>(std::count_if(out.begin(), out.end(), [](std::int32_t slot) { return slot >= 0; }));
}

bool Plan::stochastic() const {
    return std::any_of(noise.begin(), noise.end(), [](double scale) { return scale != 0; });
}

bool Plan::noisy(std::size_t row) const {
    const std::int32_t index = noise_instruction[row];
    const bool discarded = index >= 0 && holds<Discard>(instructions[static_cast<std::size_t>(index)]);
    return stochastic() && (noise[row] != 0 || discarded);
}

std::size_t Plan::draws() const {
    std::size_t count = 0;
    for (std::size_t row = 0; row < rows(); ++row) count += noisy(row) ? 1U : 0U;
    return count;
}

void Plan::validate(const std::string &source) const {
    const Checker checker(*this, source);
    checker.finite();
    checker.header();
    checker.ranges();
    checker.instructions();
    checker.reads();
}

}  // namespace dpmrt_core
