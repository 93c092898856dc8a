// One TensorRT engine as the network of the device's executor. TensorRT 10.3 and 11 alike.
#pragma once

#include <NvInferRuntime.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../device/executor.h"
#include "../device/memory.h"
#include "sidecar.h"

namespace dpmrt_core {

// What TensorRT says while it works, kept for errors.
class Messages final : public nvinfer1::ILogger {
public:
    Messages() = default;
    Messages(const Messages &) = delete;
    Messages &operator=(const Messages &) = delete;
    ~Messages() override;
    void log(Severity severity, const char *text) noexcept override;
    std::string take();

private:
    std::string last_;
};

// The roles of inputs and the output, by their names in the graph.
struct Names {
    std::string sample, timestep, out;
};

class TensorRT final : public device::Network {
public:
    TensorRT(const BuiltEngine &built, const Names &names);
    ~TensorRT() override;

    void bind(const device::Binding &binding) override;
    void enqueue(std::size_t call, std::size_t output) override;
    void condition(const std::string &input, const void *data, std::size_t bytes);

private:
    // TensorRT deletes what it made by delete.
    template <class Made>
    using Owned = std::unique_ptr<Made>;

    [[noreturn]] void refused(const char *what, const std::string &asked);
    void check_type(const std::string &name, dpmrt_dtype dtype) const;
    void set_shapes(const device::Binding &binding);
    void write_times(const device::Binding &binding);
    void set_address(const std::string &name, void *data);
    std::size_t bytes_of(const std::string &name) const;

    Messages messages_;
    Names names_;
    int profile_;
    Owned<nvinfer1::IRuntime> runtime_;
    Owned<nvinfer1::ICudaEngine> engine_;
    Owned<nvinfer1::IExecutionContext> context_;
    device::Memory time_, times_;
    std::size_t time_bytes_ = 0;
    std::map<std::string, device::Memory> conditions_, spare_;
    std::vector<void *> outputs_;
    cudaStream_t stream_ = nullptr;
};

}  // namespace dpmrt_core
