#include "numbers.h"

#include <cstdint>
#include <cstring>

#include "../half.h"

namespace dpmrt_adapter {
namespace {

template <class From, class To, class Cast>
void cast(const void *from, std::size_t count, void *to, Cast one) {
    const auto *source = static_cast<const From *>(from);
    auto *target = static_cast<To *>(to);
    for (std::size_t k = 0; k < count; ++k) target[k] = one(source[k]);
}

template <class Real>
void write(const void *from, std::size_t count, dpmrt_tensor_type type, void *to) {
    const auto single = [](Real value) { return static_cast<float>(value); };
    if (type == DPMRT_TENSOR_FLOAT32) {
        cast<Real, float>(from, count, to, single);
    } else if (type == DPMRT_TENSOR_FLOAT16) {
        cast<Real, std::uint16_t>(from, count, to, [&](Real value) { return dpmrt_core::to_half(single(value)); });
    } else {
        cast<Real, std::uint16_t>(from, count, to, [&](Real value) { return dpmrt_core::to_brain(single(value)); });
    }
}

template <class Real>
void read(const void *from, dpmrt_tensor_type type, std::size_t count, void *to) {
    const auto wide = [](float value) { return static_cast<Real>(value); };
    if (type == DPMRT_TENSOR_FLOAT32) {
        cast<float, Real>(from, count, to, wide);
    } else if (type == DPMRT_TENSOR_FLOAT16) {
        cast<std::uint16_t, Real>(from, count, to, [&](std::uint16_t bits) { return wide(dpmrt_core::from_half(bits)); });
    } else {
        cast<std::uint16_t, Real>(from, count, to, [&](std::uint16_t bits) { return wide(dpmrt_core::from_brain(bits)); });
    }
}

template <class Number>
void fill(Number value, std::size_t count, void *to) {
    for (std::size_t k = 0; k < count; ++k) static_cast<Number *>(to)[k] = value;
}

}  // namespace

void write_numbers(const void *from, dpmrt_dtype dtype, std::size_t count, dpmrt_tensor_type type, void *to) {
    if (dtype == DPMRT_FLOAT32) {
        write<float>(from, count, type, to);
    } else {
        write<double>(from, count, type, to);
    }
}

void read_numbers(const void *from, dpmrt_tensor_type type, std::size_t count, dpmrt_dtype dtype, void *to) {
    if (dtype == DPMRT_FLOAT32) {
        read<float>(from, type, count, to);
    } else {
        read<double>(from, type, count, to);
    }
}

void fill_number(double value, std::size_t count, dpmrt_tensor_type type, void *to) {
    const auto single = static_cast<float>(value);
    switch (type) {
        case DPMRT_TENSOR_FLOAT32: fill(single, count, to); break;
        case DPMRT_TENSOR_FLOAT16: fill(dpmrt_core::to_half(single), count, to); break;
        case DPMRT_TENSOR_BFLOAT16: fill(dpmrt_core::to_brain(single), count, to); break;
        case DPMRT_TENSOR_INT64: fill(static_cast<std::int64_t>(value), count, to); break;
        case DPMRT_TENSOR_INT32: fill(static_cast<std::int32_t>(value), count, to); break;
    }
}

bool same_numbers(dpmrt_dtype dtype, dpmrt_tensor_type type) {
    return dtype == DPMRT_FLOAT32 && type == DPMRT_TENSOR_FLOAT32;
}

}  // namespace dpmrt_adapter
