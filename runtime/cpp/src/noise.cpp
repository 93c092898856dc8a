#include "noise.h"

#include <cmath>

namespace dpmrt_core {
namespace {

constexpr double kTau = 6.283185307179586476925286766559;

// Sixteen uniform numbers become sixteen normal ones, the first eight radii and the last eight angles.
void box_muller(float *values) {
    for (std::size_t k = 0; k < 8; ++k) {
        const float radius = std::sqrt(-2.0F * std::log(1.0F - values[k]));
        const float angle = static_cast<float>(kTau) * values[k + 8];
        values[k] = radius * std::cos(angle);
        values[k + 8] = radius * std::sin(angle);
    }
}

}  // namespace

Mersenne::Mersenne(std::uint32_t seed) : state_{} {
    state_[0] = seed;
    for (std::uint32_t k = 1; k < state_.size(); ++k) {
        state_[k] = 1812433253U * (state_[k - 1] ^ state_[k - 1] >> 30U) + k;
    }
}

std::uint32_t Mersenne::next() {
    if (at_ == state_.size()) refill();
    std::uint32_t y = state_[at_++];
    y ^= y >> 11U;
    y ^= y << 7U & 0x9d2c5680U;
    y ^= y << 15U & 0xefc60000U;
    return y ^ y >> 18U;
}

void Mersenne::refill() {
    const std::size_t size = state_.size();
    for (std::size_t k = 0; k < size; ++k) {
        const std::uint32_t y = (state_[k] & 0x80000000U) | (state_[(k + 1) % size] & 0x7fffffffU);
        state_[k] = state_[(k + 397) % size] ^ y >> 1U ^ ((y & 1U) != 0 ? 0x9908b0dfU : 0U);
    }
    at_ = 0;
}

void TorchNoise::normal(float *out, std::size_t count) {
    if (count < 16) {
        single(out, count);
        return;
    }
    uniform(out, count);
    for (std::size_t k = 0; k + 16 <= count; k += 16) box_muller(out + k);
    if (count % 16 != 0) {
        // torch draws the last sixteen anew where the count is no multiple of it.
        uniform(out + count - 16, 16);
        box_muller(out + count - 16);
    }
}

void TorchNoise::uniform(float *out, std::size_t count) {
    for (std::size_t k = 0; k < count; ++k) {
        out[k] = static_cast<float>(words_.next() & 0xffffffU) * (1.0F / 16777216.0F);
    }
}

void TorchNoise::single(float *out, std::size_t count) {
    for (std::size_t k = 0; k < count; ++k) {
        if (has_spare_) {
            out[k] = static_cast<float>(spare_);
            has_spare_ = false;
            continue;
        }
        const double angle = uniform_double();
        const double length = std::sqrt(-2.0 * std::log1p(-uniform_double()));
        spare_ = length * std::sin(kTau * angle);
        has_spare_ = true;
        out[k] = static_cast<float>(length * std::cos(kTau * angle));
    }
}

double TorchNoise::uniform_double() {
    const std::uint64_t high = words_.next();
    const std::uint64_t low = words_.next();
    return static_cast<double>((high << 32U | low) & ((std::uint64_t{1} << 53U) - 1)) * 0x1p-53;
}

}  // namespace dpmrt_core
