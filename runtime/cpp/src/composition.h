// From the columns of a plan to one small matrix a row, over {state, slots, scaled input, noise}.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "plan.h"

namespace dpmrt_core {

// Where each quantity lies among the rows of the session's buffer.
struct Layout {
    std::size_t state = 0;
    std::vector<std::size_t> slots;
    std::size_t input = 0;  // the state itself where the network reads it unscaled
    std::optional<std::size_t> noise;
    std::size_t count = 0;

    static Layout of(const Plan &plan);
    bool scaled() const { return input != state; }
};

// rows[target] = sum over source of weights[target][source] * rows[source], all targets at once.
struct Update {
    std::vector<std::size_t> targets;
    std::vector<std::size_t> sources;
    std::vector<double> weights;  // targets x sources
};

// One row of a plan: call, then `before` and what instruction there is, then noise, then `after`. `before` writes what an
// instruction works on: x0, which it limits, or the score of a Langevin step, which is scaled once the noise is drawn.
struct Step {
    int out = -1;
    double t = 0;
    std::size_t slot = 0;
    std::optional<Update> before;
    std::optional<Instruction> instruction;
    bool noisy = false;
    Plan::Pair span{0, 0};
    std::optional<Instruction> noise_instruction;
    Update after;
};

struct Script {
    std::optional<Update> prologue;  // fills the scaled input before the first row
    std::vector<Step> steps;
};

Script compose(const Plan &plan, const Layout &layout);

}  // namespace dpmrt_core
