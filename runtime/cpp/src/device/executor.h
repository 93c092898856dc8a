// The executor on a CUDA device: the same plans and the same composed rows as on the host, one kernel a row.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "../plan.h"
#include "dpmrt/dpmrt.h"

namespace dpmrt_core::device {

// Where a session's buffers are on the device; they keep their addresses.
struct Binding {
    dpmrt_dtype dtype;
    std::vector<std::size_t> shape;  // of a guided session with its batch doubled: the conditioned half comes first
    int parts;
    const void *input;
    std::vector<void *> outputs;
    std::vector<double> times;
    cudaStream_t stream;
};

// A network that reads and writes the executor's buffers in the order of its stream; throws Failure.
class Network {
public:
    Network() = default;
    Network(const Network &) = delete;
    Network &operator=(const Network &) = delete;
    virtual ~Network();
    virtual void bind(const Binding &binding) = 0;
    // Enqueues a call, and waits for nothing.
    virtual void enqueue(std::size_t call, std::size_t output) = 0;
};

class Executor {
public:
    Executor() = default;
    Executor(const Executor &) = delete;
    Executor &operator=(const Executor &) = delete;
    virtual ~Executor();
    // Runs the plan and writes the result to the host; throws Failure.
    virtual void run(const dpmrt_run_params &params, void *out) = 0;
    // Whether runs are replayed as one CUDA graph.
    virtual bool captured() const = 0;

    // The network must outlive it.
    static std::unique_ptr<Executor> make(std::shared_ptr<const Plan> plan, Network &network,
                                          const dpmrt_session_params &params);
};

}  // namespace dpmrt_core::device
