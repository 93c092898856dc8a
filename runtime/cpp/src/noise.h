// The noise of torch's CPU generator.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace dpmrt_core {

// The Mersenne Twister mt19937 (Matsumoto and Nishimura 1998), as torch seeds it.
class Mersenne {
public:
    explicit Mersenne(std::uint32_t seed);
    std::uint32_t next();

private:
    void refill();

    std::array<std::uint32_t, 624> state_;
    std::size_t at_ = 624;
};

// The stream of torch.randn(count, generator=torch.Generator().manual_seed(seed)), draw after draw.
class TorchNoise {
public:
    explicit TorchNoise(std::uint64_t seed) : words_(static_cast<std::uint32_t>(seed)) {}
    void normal(float *out, std::size_t count);

private:
    void uniform(float *out, std::size_t count);
    void single(float *out, std::size_t count);
    double uniform_double();

    Mersenne words_;
    bool has_spare_ = false;
    double spare_ = 0;
};

}  // namespace dpmrt_core
