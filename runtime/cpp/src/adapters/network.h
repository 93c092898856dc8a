// A bundle's network as an adapter needs it: what it takes and gives, and whether a session fits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "dpmrt/conditions.h"

namespace dpmrt_adapter {

// One input or output, by its name in the graph; a side of 0 is free and has a name.
struct Tensor {
    std::string role, name;
    dpmrt_tensor_type type = DPMRT_TENSOR_FLOAT32;
    std::vector<std::int64_t> shape;
    std::vector<std::string> axes;

    // As in errors: "sample float32[batch, 1, 8, 8]".
    std::string text() const;
};

const char *type_name(dpmrt_tensor_type type);
std::size_t size_of(dpmrt_tensor_type type);
std::string show(const std::vector<std::int64_t> &shape);

struct NetworkSpec {
    std::vector<Tensor> inputs, outputs;
    std::size_t sample = 0;
    std::size_t timestep = 0;
    std::size_t out = 0;  // among the outputs
    std::size_t channel_axis = 1;
    std::int64_t extra_channels = 0;
    std::int64_t learned_channels = 0;

    static NetworkSpec of(const dpmrt_bundle *bundle);

    // Refuses a graph that is another than the manifest says. `kind` is "input" or "output".
    void check_graph(const char *kind, const std::vector<Tensor> &found) const;
    // Refuses a session whose shape, parts, times or conditions the network does not take.
    void check_session(const dpmrt_binding &binding, const dpmrt_conditions *conditions) const;
    // How many channels the network gives for the state of this session.
    std::size_t output_channels(const dpmrt_binding &binding) const;

private:
    struct Limits {
        std::string name;
        std::int64_t min, max, multiple;
        bool takes(std::int64_t size) const;
        std::string text() const;
    };

    void check_rows(const dpmrt_binding &binding) const;
    void check_state(const dpmrt_binding &binding) const;
    void check_output(const dpmrt_binding &binding) const;
    void check_times(const dpmrt_binding &binding) const;
    void check_axis(const std::string &what, const std::string &name, std::int64_t size) const;
    const Limits *limits(const std::string &axis) const;

    std::vector<Limits> limits_;
};

}  // namespace dpmrt_adapter
