// What `dpmrt.json` can say: its fields, as types. engines/schema.py is the other reader's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace dpmrt_core {

// The size of an axis, or the name of a free one.
struct Side {
    std::int64_t size = 0;  // 0 where it is free
    std::string name;

    bool free() const { return size == 0; }
};

// One input or output of a graph: what it is for, its name there, its type and its shape.
struct TensorSpec {
    std::string role, name, dtype;
    std::vector<Side> shape;

    TensorSpec();
    TensorSpec(TensorSpec &&) noexcept;
    TensorSpec &operator=(TensorSpec &&) noexcept;
    ~TensorSpec();
};

// What sizes a free axis takes.
struct Axis {
    std::string name;
    std::int64_t opt = 0;
    std::int64_t min = 1;
    std::optional<std::int64_t> max;
    std::int64_t multiple = 1;

    bool takes(std::int64_t size) const;
    std::string text() const;
};

struct Precision {
    std::string kind = "fp32";
    std::optional<std::string> emulated;
};

// A network as an ONNX file, with the tensors that it takes and gives.
struct Network {
    std::string path;
    std::vector<TensorSpec> inputs, outputs;
    std::vector<std::string> data;
    std::optional<std::string> config;
    std::vector<Axis> axes;
    std::int64_t channel_axis = 1;
    Precision precision;

    Network();
    Network(Network &&) noexcept;
    Network &operator=(Network &&) noexcept;
    ~Network();

    const TensorSpec *input(const std::string &role) const;
    const TensorSpec *output(const std::string &role) const;
    const Axis *axis(const std::string &name) const;
    // The shape of one sample, without the batch, of the state that sampling moves; empty where no axis is the channels'.
    std::vector<Side> sample_shape() const;
    // Channels of the input that are no part of the state, as inpainting's mask.
    std::int64_t extra_channels() const;
    // Channels of the output behind those of the state: a variance that was learned.
    std::int64_t learned_channels() const;

private:
    std::optional<std::int64_t> channels(const TensorSpec *spec) const;
};

// Classifier-free guidance by class label.
struct Guidance {
    std::int64_t classes = 0;
    std::int64_t null_label = 0;
    double scale = 1;
};

struct FileRecord {
    std::string name;
    std::int64_t bytes = 0;
    std::string sha256;
};

struct Manifest {
    std::string name;
    Network unet;
    std::string scheduler, prediction;
    std::vector<FileRecord> files;
    std::optional<Guidance> guidance;
    double data_range[2] = {-1, 1};
    std::int64_t steps = 20;
    std::optional<Network> classifier;
    std::optional<std::string> eps_power;
    std::optional<Network> vjp;

    Manifest();
    Manifest(Manifest &&) noexcept;
    Manifest &operator=(Manifest &&) noexcept;
    ~Manifest();

    const FileRecord *file(const std::string &path) const;
    // The networks that there are, by their field.
    struct Named {
        const char *field;
        const Network *network;
    };
    std::vector<Named> networks() const;
};

}  // namespace dpmrt_core
