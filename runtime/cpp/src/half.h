// Half-precision numbers, rounded to the nearest and ties to even.
#pragma once

#include <cstdint>
#include <cstring>

namespace dpmrt_core {

inline std::uint32_t bits_of(float value) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float float_of(std::uint32_t bits) {
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline std::uint16_t to_half(float value) {
    const std::uint32_t bits = bits_of(value);
    const std::uint32_t sign = bits >> 16U & 0x8000U;
    const std::uint32_t size = bits & 0x7FFFFFFFU;
    if (size >= 0x7F800000U) return static_cast<std::uint16_t>(sign | 0x7C00U | (size > 0x7F800000U ? 0x200U : 0U));
    if (size >= 0x477FF000U) return static_cast<std::uint16_t>(sign | 0x7C00U);
    // Below the normal numbers a step is 2^-24, to which adding 2^-1 in float32 rounds.
    if (size < 0x38800000U) {
        const std::uint32_t steps = bits_of(float_of(size) + 0.5F) - 0x3F000000U;
        return static_cast<std::uint16_t>(sign | steps);
    }
    const std::uint32_t rounded = size + 0xFFFU + (size >> 13U & 1U);
    return static_cast<std::uint16_t>(sign | ((rounded >> 13U) - 0x1C000U));
}

inline float from_half(std::uint16_t half) {
    const std::uint32_t sign = (half & 0x8000U) << 16U;
    const std::uint32_t exponent = half >> 10U & 0x1FU;
    const std::uint32_t fraction = half & 0x3FFU;
    if (exponent == 0x1F) return float_of(sign | 0x7F800000U | fraction << 13U);
    if (exponent != 0) return float_of(sign | (exponent + 112U) << 23U | fraction << 13U);
    const float small = static_cast<float>(fraction) * 0x1p-24F;
    return sign != 0 ? -small : small;
}

inline std::uint16_t to_brain(float value) {
    const std::uint32_t bits = bits_of(value);
    if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<std::uint16_t>(bits >> 16U | 0x40U);
    return static_cast<std::uint16_t>((bits + 0x7FFFU + (bits >> 16U & 1U)) >> 16U);
}

inline float from_brain(std::uint16_t brain) { return float_of(std::uint32_t{brain} << 16U); }

}  // namespace dpmrt_core
