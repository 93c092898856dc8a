// A bundle's network in a session of ONNX Runtime, and a call bound to the buffers of a sampling session.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../network.h"
#include "api.h"
#include "dpmrt/onnxruntime.h"

namespace dpmrt_adapter {

class OrtNetwork {
public:
    OrtNetwork(const dpmrt_bundle *bundle, const dpmrt_onnxruntime_params &params);

    const NetworkSpec &spec() const { return spec_; }
    OrtSession *session() const { return session_.get(); }
    const OrtMemoryInfo *memory() const { return memory_.get(); }

private:
    std::vector<Tensor> tensors(bool inputs) const;

    NetworkSpec spec_;
    Held<OrtEnv> env_;
    Held<OrtSession> session_;
    Held<OrtMemoryInfo> memory_;
};

// Where types and channels agree the network reads the session's buffers and writes into them; otherwise it has its own,
// and numbers are cast on the way.
class OrtCall {
public:
    OrtCall(const OrtNetwork &network, const dpmrt_conditions *conditions, const dpmrt_binding &binding);

    void run(double t, std::size_t output);

private:
    void bind_inputs(const dpmrt_conditions *conditions);
    void bind_condition(const dpmrt_condition_info &info);
    void bind_extra(const dpmrt_condition_info &info);
    void copy_in();
    OrtValue *value(void *data, std::size_t bytes, const std::vector<std::int64_t> &shape, dpmrt_tensor_type type);
    void copy_out(std::size_t output) const;

    const OrtNetwork &network_;
    const dpmrt_binding &binding_;
    std::size_t rows_;
    std::size_t count_ = 1;      // numbers of the state
    std::size_t outer_ = 1;      // blocks of channels: the sides before them
    std::size_t inner_ = 1;      // numbers of a channel: the sides behind
    std::size_t taken_ = 1;      // channels that the network takes: the state's and those behind
    std::size_t channels_ = 1;   // that are read of the output
    std::size_t given_ = 1;      // that the network gives
    std::vector<std::uint8_t> time_, input_, output_;
    const std::uint8_t *extra_ = nullptr;  // what goes behind the state's channels, in the graph's type
    std::vector<Held<OrtValue>> values_;
    std::vector<std::pair<const char *, OrtValue *>> inputs_;
    std::vector<Held<OrtIoBinding>> calls_;  // one for each output of the session, or one alone
    Held<OrtRunOptions> options_;
};

}  // namespace dpmrt_adapter
