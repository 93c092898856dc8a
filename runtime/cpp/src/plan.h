// StepPlan: a sampler as a table. What the columns mean stands in docs/stepfile.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace dpmrt_core {

// Limit the quantity, a prediction of x0, to [-limit, limit].
struct Clip {
    double limit;
};

// Limit each sample of x0 to its own quantile s of |x0|, at least 1 and at most `limit`, and divide by s.
struct DynamicThreshold {
    double ratio;
    double limit;
};

// Scale the noise to a variance between two, in their logarithms; the output's second part, -1 to 1, says where.
struct LearnedRange {
    double log_small;
    double log_large;
};

// Scale the noise to the variance that is the output's second part.
struct LearnedVariance {};

// Draw noise that the row does not use.
struct Discard {};

// Set the step of a Langevin corrector by norms: with h = snr |z| / |q| the score q becomes h^2 q and the noise h z.
struct Langevin {
    double snr;
    bool per_sample;  // or else by the means of the norms over the batch
};

using Instruction = std::variant<Clip, DynamicThreshold, LearnedRange, LearnedVariance, Discard, Langevin>;

// Whether an instruction works on a quantity, and not on the noise.
bool on_quantity(const Instruction &instruction);

struct Plan {
    struct Pair {
        double state;
        double other;
    };

    std::vector<double> t, alpha, sigma, in_scale;
    std::vector<std::int32_t> out, quantity;
    std::vector<Pair> convert;
    std::vector<std::int32_t> instruction;
    std::vector<Pair> restore;
    std::vector<std::int32_t> keep;
    std::vector<double> weights;  // rows x (1 + slots)
    std::vector<double> noise;
    std::vector<std::int32_t> noise_instruction;
    std::vector<Pair> span;
    std::vector<Instruction> instructions;
    double init_scale = 1;
    Pair start{1, 0};
    Pair end{1, 0};
    int parts = 1;
    std::size_t slots = 0;
    // What the network that it is for predicts; empty where the file does not say.
    std::string prediction;

    std::size_t rows() const { return t.size(); }
    std::size_t calls() const;
    std::size_t draws() const;
    // Whether any row adds noise.
    bool stochastic() const;
    // Whether a row draws noise, be it for nothing.
    bool noisy(std::size_t row) const;
    double weight(std::size_t row, std::size_t column) const { return weights[row * (slots + 1) + column]; }

    // Refuses what cannot be run: throws Failure with the column and the row.
    void validate(const std::string &source) const;

    static Plan parse(const void *data, std::size_t size, const std::string &source);
    static Plan load(const std::string &path);
};

}  // namespace dpmrt_core
