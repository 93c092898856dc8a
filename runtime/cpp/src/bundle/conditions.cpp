#include "conditions.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "../failure.h"
#include "../half.h"
#include "dpmrt/conditions.h"
#include "text.h"

namespace dpmrt_core {
namespace {

std::string shape_of(const std::vector<std::int64_t> &shape) {
    std::vector<std::string> sides;
    for (const std::int64_t side : shape) sides.push_back(decimal(side));
    return "(" + (sides.empty() ? "" : listed(sides)) + (sides.size() == 1 ? ",)" : ")");
}

// Writes a number in the graph's type; returns whether that can hold it.
bool put(double value, const std::string &dtype, std::uint8_t *out) {
    if (dtype == "float32") {
        const auto single = static_cast<float>(value);
        std::memcpy(out, &single, sizeof single);
        return std::isfinite(single);
    }
    if (dtype == "float16" || dtype == "bfloat16") {
        const bool half = dtype == "float16";
        const std::uint16_t bits = half ? to_half(static_cast<float>(value)) : to_brain(static_cast<float>(value));
        std::memcpy(out, &bits, sizeof bits);
        return std::isfinite(half ? from_half(bits) : from_brain(bits));
    }
    const bool wide = dtype == "int64";
    const double most = wide ? 0x1p62 : std::numeric_limits<std::int32_t>::max();
    if (!(std::abs(value) <= most)) return false;
    const auto whole = static_cast<std::int64_t>(value);
    const auto narrow = static_cast<std::int32_t>(whole);
    std::memcpy(out, wide ? static_cast<const void *>(&whole) : &narrow, wide ? sizeof whole : sizeof narrow);
    return static_cast<double>(whole) == value;
}

}  // namespace

std::size_t size_of(const std::string &dtype) {
    return dtype == "int64" ? 8 : dtype == "float32" || dtype == "int32" ? 4 : 2;
}

std::size_t Given::count() const {
    std::size_t product = 1;
    for (const std::int64_t side : shape) product *= static_cast<std::size_t>(side);
    return product;
}

double Given::at(std::size_t index) const {
    if (type == DPMRT_TENSOR_INT64) return static_cast<double>(static_cast<const std::int64_t *>(data)[index]);
    return static_cast<double>(static_cast<const float *>(data)[index]);
}

Condition::Condition(const TensorSpec &spec, const Network &network, std::size_t batch, std::int64_t extra)
    : role(spec.role), name(spec.name), dtype(spec.dtype), declared_(spec.shape), batch_(batch) {
    if (extra > 0) {
        role = name = DPMRT_EXTRA_CHANNELS;
        declared_[static_cast<std::size_t>(network.channel_axis)].size = extra;
    }
    std::vector<std::string> sides;
    for (std::size_t k = 0; k < declared_.size(); ++k) {
        const Axis *axis = declared_[k].free() ? network.axis(declared_[k].name) : nullptr;
        limits_.push_back(axis != nullptr ? std::optional<Axis>(*axis) : std::nullopt);
        const std::string side = declared_[k].free() ? declared_[k].name : decimal(declared_[k].size);
        sides.push_back(k == 0 ? decimal(static_cast<std::int64_t>(batch)) : side);
    }
    expected = dtype + "(" + (sides.empty() ? "" : listed(sides)) + (sides.size() == 1 ? ",)" : ")");
}

void Condition::check(const Given &given, bool negative) const {
    const std::string what = std::string("the ") + (negative ? "negative " : "condition ") + role;
    const std::string got = (given.type == DPMRT_TENSOR_INT64 ? "int64" : "float32") + shape_of(given.shape);
    bool fits = given.shape.size() == declared_.size();
    for (std::size_t k = 0; fits && k < declared_.size(); ++k) {
        const std::int64_t side = given.shape[k];
        if (k == 0) {
            fits = side == 1 || side == static_cast<std::int64_t>(batch_);
        } else {
            fits = side > 0 && (declared_[k].free() || declared_[k].size == side);
        }
    }
    const bool real = dtype.find("float") != std::string::npos;
    if (!fits || (!real && given.type != DPMRT_TENSOR_INT64)) {
        fail(DPMRT_ERROR_SHAPE, what + " does not fit the network", got, expected);
    }
    for (std::size_t k = 1; k < declared_.size(); ++k) {
        if (!limits_[k] || limits_[k]->takes(given.shape[k])) continue;
        fail(DPMRT_ERROR_SHAPE, what + " has a size that the network does not take",
             declared_[k].name + " = " + decimal(given.shape[k]), declared_[k].name + " = " + limits_[k]->text(),
             "choose such a size, or export the network again with wider bounds");
    }
    for (std::size_t k = 1; !data.empty() && k < declared_.size(); ++k) {
        if (given.shape[k] == shape[k]) continue;
        fail(DPMRT_ERROR_SHAPE, what + " has another shape than it had", got, expected,
             "make other conditions, and a session for them");
    }
    if (negative && (declared_.empty() || data.empty())) {
        fail(DPMRT_ERROR_ARGUMENT, what + " has no condition that it is the negative of", got, {},
             declared_.empty() ? "set it for all samples" : "set the condition first");
    }
}

void Condition::set(const Given &given, bool negative) {
    check(given, negative);
    std::vector<std::uint8_t> row(size_of(dtype) * given.count());
    for (std::size_t k = 0; k < given.count(); ++k) {
        if (!std::isfinite(given.at(k))) {
            fail(DPMRT_ERROR_NONFINITE, "the condition " + role + " holds NaN or infinity", {}, "finite numbers");
        }
        if (!put(given.at(k), dtype, row.data() + k * size_of(dtype))) {
            fail(DPMRT_ERROR_ARGUMENT, "the condition " + role + " holds a number that is too large for the network",
                 shown(given.at(k)), "numbers that " + dtype + " can hold");
        }
    }
    const std::size_t rows = declared_.empty() ? 1 : 2 * batch_;
    if (data.empty()) {
        shape = given.shape;
        if (!declared_.empty()) shape[0] = static_cast<std::int64_t>(rows);
        row_bytes = row.size() / (declared_.empty() ? 1 : static_cast<std::size_t>(given.shape[0]));
        data.resize(rows * row_bytes);
    }
    const std::size_t begin = negative ? batch_ : 0;
    const std::size_t end = negative || declared_.empty() || !opposed_ ? rows : batch_;
    for (std::size_t k = begin; k < end; ++k) {
        std::memcpy(data.data() + k * row_bytes, row.data() + k * row_bytes % row.size(), row_bytes);
    }
    opposed_ = opposed_ || negative;
}

}  // namespace dpmrt_core
