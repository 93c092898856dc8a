// The conditions of one request, role by role, in the graph's types.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dpmrt/bundle.h"
#include "open.h"

namespace dpmrt_core {

// An array that a caller gives.
struct Given {
    const void *data;
    dpmrt_tensor_type type;
    std::vector<std::int64_t> shape;

    std::size_t count() const;
    double at(std::size_t index) const;
};

class Condition {
public:
    // With `extra`, so many channels behind those of the state, of which `spec` is the sample.
    Condition(const TensorSpec &spec, const Network &network, std::size_t batch, std::int64_t extra = 0);

    void set(const Given &given, bool negative);

    std::string role, name, dtype;
    std::vector<std::int64_t> shape;  // with twice the batch; empty until it is given, and for one number
    std::vector<std::uint8_t> data;   // empty where it is missing
    std::size_t row_bytes = 0;
    std::string expected;             // the shape that is asked for, in words

private:
    void check(const Given &given, bool negative) const;

    std::vector<Side> declared_;
    std::vector<std::optional<Axis>> limits_;
    std::size_t batch_;
    bool opposed_ = false;
};

std::size_t size_of(const std::string &dtype);

}  // namespace dpmrt_core
