#include "composition.h"

#include <algorithm>
#include <set>

namespace dpmrt_core {
namespace {

class Matrix {
public:
    explicit Matrix(std::size_t size) : size_(size), values_(size * size, 0.0) {
        for (std::size_t k = 0; k < size; ++k) at(k, k) = 1;
    }

    double &at(std::size_t row, std::size_t column) { return values_[row * size_ + column]; }
    double at(std::size_t row, std::size_t column) const { return values_[row * size_ + column]; }
    std::size_t size() const { return size_; }

    void clear(std::size_t row) { std::fill_n(values_.begin() + static_cast<std::ptrdiff_t>(row * size_), size_, 0.0); }

    // The product: first `right`, then this.
    Matrix after(const Matrix &right) const {
        Matrix product(size_);
        for (std::size_t row = 0; row < size_; ++row) {
            for (std::size_t column = 0; column < size_; ++column) {
                double sum = 0;
                for (std::size_t k = 0; k < size_; ++k) sum += at(row, k) * right.at(k, column);
                product.at(row, column) = sum;
            }
        }
        return product;
    }

private:
    std::size_t size_;
    std::vector<double> values_;
};

using Slots = std::set<std::size_t>;

Update update_of(const Matrix &matrix, std::vector<std::size_t> targets) {
    Update update;
    update.targets = std::move(targets);
    for (std::size_t source = 0; source < matrix.size(); ++source) {
        const bool read = std::any_of(update.targets.begin(), update.targets.end(),
                                      [&](std::size_t target) { return matrix.at(target, source) != 0; });
        if (read) update.sources.push_back(source);
    }
    if (update.sources.empty()) update.sources.push_back(update.targets.front());
    for (const std::size_t target : update.targets) {
        for (const std::size_t source : update.sources) update.weights.push_back(matrix.at(target, source));
    }
    return update;
}

// Puts weights.state * state + weights.other * (row `source`) into a slot.
Matrix pair(const Layout &layout, std::size_t slot, const Plan::Pair &weights, std::size_t source) {
    Matrix matrix(layout.count);
    matrix.clear(layout.slots[slot]);
    matrix.at(layout.slots[slot], layout.state) = weights.state;
    matrix.at(layout.slots[slot], source) = weights.other;
    return matrix;
}

// By what the state after a row is scaled for the next call; the first row asked for is the one before.
double next_scale(const Plan &plan, std::size_t row) {
    for (; row < plan.rows(); ++row) {
        if (plan.out[row] >= 0) return plan.in_scale[row];
    }
    return 1;
}

// For each row, the slots that a later row still reads.
std::vector<Slots> live_slots(const Plan &plan) {
    std::vector<Slots> live(plan.rows());
    Slots needed;
    for (std::size_t row = plan.rows(); row-- > 0;) {
        live[row] = needed;
        for (std::size_t k = 0; k < plan.slots; ++k) {
            if (plan.weight(row, 1 + k) != 0) needed.insert(k);
        }
        if (plan.keep[row] >= 0) needed.erase(static_cast<std::size_t>(plan.keep[row]));
        if (plan.out[row] >= 0) {
            needed.erase(static_cast<std::size_t>(plan.quantity[row]));
            needed.erase(static_cast<std::size_t>(plan.out[row]));
        }
    }
    return live;
}

std::optional<Instruction> named(const Plan &plan, std::int32_t index) {
    if (index < 0) return std::nullopt;
    return plan.instructions[static_cast<std::size_t>(index)];
}

Step compose_row(const Plan &plan, const Layout &layout, std::size_t row, const Slots &live) {
    Step step;
    step.out = plan.out[row];
    step.t = plan.t[row];
    step.noisy = plan.noisy(row);
    step.span = plan.span[row];
    step.noise_instruction = named(plan, plan.noise_instruction[row]);
    Matrix matrix(layout.count);
    if (step.out >= 0) {
        step.slot = static_cast<std::size_t>(plan.quantity[row]);
        matrix = pair(layout, step.slot, plan.convert[row], layout.slots[static_cast<std::size_t>(step.out)]);
        step.instruction = named(plan, plan.instruction[row]);
        if (step.instruction) {
            step.before = update_of(matrix, {layout.slots[step.slot]});
            matrix = Matrix(layout.count);
        }
        matrix = pair(layout, step.slot, plan.restore[row], layout.slots[step.slot]).after(matrix);
    }
    if (plan.keep[row] >= 0) {
        Matrix keep(layout.count);
        const std::size_t slot = layout.slots[static_cast<std::size_t>(plan.keep[row])];
        keep.clear(slot);
        keep.at(slot, layout.state) = 1;
        matrix = keep.after(matrix);
    }
    const bool langevin = step.noise_instruction && std::holds_alternative<Langevin>(*step.noise_instruction);
    if (langevin) {
        std::set<std::size_t> written{layout.slots[step.slot]};
        if (plan.keep[row] >= 0) written.insert(layout.slots[static_cast<std::size_t>(plan.keep[row])]);
        step.before = update_of(matrix, {written.begin(), written.end()});
        matrix = Matrix(layout.count);
    }
    Matrix move(layout.count);
    move.at(layout.state, layout.state) = plan.weight(row, 0);
    for (std::size_t k = 0; k < plan.slots; ++k) move.at(layout.state, layout.slots[k]) = plan.weight(row, 1 + k);
    if (layout.noise) move.at(layout.state, *layout.noise) = plan.noise[row];
    if (layout.scaled()) {
        const double scale = next_scale(plan, row + 1);
        for (std::size_t k = 0; k < layout.count; ++k) move.at(layout.input, k) = scale * move.at(layout.state, k);
    }
    std::set<std::size_t> targets{layout.state, layout.input};
    if (!langevin && step.out >= 0 && live.count(step.slot) != 0) targets.insert(layout.slots[step.slot]);
    if (!langevin && plan.keep[row] >= 0 && live.count(static_cast<std::size_t>(plan.keep[row])) != 0) {
        targets.insert(layout.slots[static_cast<std::size_t>(plan.keep[row])]);
    }
    step.after = update_of(move.after(matrix), {targets.begin(), targets.end()});
    return step;
}

}  // namespace

Layout Layout::of(const Plan &plan) {
    Layout layout;
    layout.state = std::min<std::size_t>(1, plan.slots);
    for (std::size_t k = 0; k < plan.slots; ++k) layout.slots.push_back(k < layout.state ? k : k + 1);
    layout.count = 1 + plan.slots;
    layout.input = layout.state;
    if (std::any_of(plan.in_scale.begin(), plan.in_scale.end(), [](double scale) { return scale != 1; })) {
        layout.input = layout.count++;
    }
    if (plan.stochastic()) layout.noise = layout.count++;
    return layout;
}

Script compose(const Plan &plan, const Layout &layout) {
    Script script;
    if (layout.scaled()) {
        Matrix first(layout.count);
        first.clear(layout.input);
        first.at(layout.input, layout.state) = next_scale(plan, 0);
        script.prologue = update_of(first, {layout.input});
    }
    const auto live = live_slots(plan);
    for (std::size_t row = 0; row < plan.rows(); ++row) script.steps.push_back(compose_row(plan, layout, row, live[row]));
    return script;
}

}  // namespace dpmrt_core
