#include "engine.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "../bundle/files.h"
#include "../failure.h"

namespace dpmrt_core {
namespace {

using nvinfer1::DataType;

std::size_t item_bytes(DataType type, const std::string &name) {
    switch (static_cast<int>(type)) {
        case static_cast<int>(DataType::kFLOAT): return 4;
        case static_cast<int>(DataType::kINT32): return 4;
        case static_cast<int>(DataType::kINT64): return 8;
        case static_cast<int>(DataType::kHALF): return 2;
        case static_cast<int>(DataType::kBF16): return 2;
        default:
            fail(DPMRT_ERROR_SHAPE, "`" + name + "` has a type that dpmrt cannot bind", format("type %d", static_cast<int>(type)),
                 "float32, float16, bfloat16, int64 or int32");
    }
}

template <class Time>
void fill(std::vector<char> &into, const std::vector<double> &times, std::size_t each) {
    into.resize(times.size() * each * sizeof(Time));
    for (std::size_t k = 0; k < times.size() * each; ++k) {
        const auto value = static_cast<Time>(times[k / each]);
        std::memcpy(into.data() + k * sizeof(Time), &value, sizeof value);
    }
}

}  // namespace

Messages::~Messages() = default;

void Messages::log(Severity severity, const char *text) noexcept {
    if (severity != Severity::kERROR && severity != Severity::kINTERNAL_ERROR) return;
    try {
        last_ = text;
    } catch (...) {
        // No memory for the text; the failure itself is reported.
        return;
    }
}

std::string Messages::take() { return last_.empty() ? "TensorRT does not say why" : std::exchange(last_, {}); }

TensorRT::TensorRT(const BuiltEngine &built, const Names &names) : names_(names), profile_(built.profile) {
    runtime_.reset(nvinfer1::createInferRuntime(messages_));
    if (!runtime_) {
        fail(DPMRT_ERROR_ENGINE, "TensorRT cannot be started", messages_.take(),
             "a driver as new as the CUDA that TensorRT was made for",
             "update the driver, or install the TensorRT for its CUDA; `dpmrt doctor` shows both");
    }
    {
        const std::string plan = read_file(built.plan, std::string().max_size());
        engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
    }
    if (!engine_) {
        fail(DPMRT_ERROR_ENGINE, "TensorRT refuses the engine", messages_.take(), "an engine for this TensorRT in " + built.plan,
             "build it again: dpmrt build BUNDLE");
    }
}

TensorRT::~TensorRT() = default;

void TensorRT::refused(const char *what, const std::string &asked) {
    fail(DPMRT_ERROR_ENGINE, what, asked + ": " + messages_.take(), "shapes within the engine's profile",
         "build an engine that covers them: dpmrt build BUNDLE --minShapes … --optShapes … --maxShapes …");
}

void TensorRT::check_type(const std::string &name, dpmrt_dtype dtype) const {
    if (engine_->getTensorDataType(name.c_str()) == DataType::kFLOAT && dtype == DPMRT_FLOAT32) return;
    fail(DPMRT_ERROR_SHAPE, "the engine's `" + name + "` and the session have other types",
         format("type %d", static_cast<int>(engine_->getTensorDataType(name.c_str()))), "float32 in both",
         "export with float32 inputs and outputs (dpmrt export keeps them, whatever computes inside), and a float32 session");
}

std::size_t TensorRT::bytes_of(const std::string &name) const {
    const nvinfer1::Dims shape = context_->getTensorShape(name.c_str());
    std::size_t bytes = item_bytes(engine_->getTensorDataType(name.c_str()), name);
    for (int k = 0; k < shape.nbDims; ++k) bytes *= static_cast<std::size_t>(std::max<std::int64_t>(0, shape.d[k]));
    return bytes;
}

void TensorRT::set_address(const std::string &name, void *data) {
    if (!context_->setTensorAddress(name.c_str(), data)) refused("TensorRT refuses a buffer", name);
}

void TensorRT::set_shapes(const device::Binding &binding) {
    if (!context_->setOptimizationProfileAsync(profile_, stream_)) {
        refused("TensorRT refuses what it is asked for", format("profile %d", profile_));
    }
    for (int k = 0; k < engine_->getNbIOTensors(); ++k) {
        const char *name = engine_->getIOTensorName(k);
        if (engine_->getTensorIOMode(name) != nvinfer1::TensorIOMode::kINPUT) continue;
        nvinfer1::Dims shape = engine_->getTensorShape(name);
        bool free = false;
        for (int axis = 0; axis < shape.nbDims; ++axis) {
            if (shape.d[axis] >= 0) continue;
            free = true;
            if (names_.sample == name) {
                shape.d[axis] = static_cast<decltype(+shape.d[0])>(binding.shape[static_cast<std::size_t>(axis)]);
            } else if (axis == 0) {
                shape.d[axis] = static_cast<decltype(+shape.d[0])>(binding.shape[0]);
            } else {
                fail(DPMRT_ERROR_SHAPE, "an input has a free axis whose size nobody says",
                     std::string(name) + format(", axis %d", axis), "the batch, or a side of the sample",
                     "build an engine for one size of it");
            }
        }
        if (free && !context_->setInputShape(name, shape)) refused("TensorRT refuses what it is asked for", name);
    }
    const char *missing = nullptr;
    if (context_->inferShapes(1, &missing) != 0) {
        fail(DPMRT_ERROR_SHAPE, "the engine's inputs are not settled", missing != nullptr ? missing : messages_.take(),
             "every shape");
    }
}

void TensorRT::write_times(const device::Binding &binding) {
    const DataType type = engine_->getTensorDataType(names_.timestep.c_str());
    time_bytes_ = bytes_of(names_.timestep);
    const std::size_t each = time_bytes_ / item_bytes(type, names_.timestep);
    std::vector<char> host;
    if (type == DataType::kFLOAT) {
        fill<float>(host, binding.times, each);
    } else if (type == DataType::kINT64) {
        fill<std::int64_t>(host, binding.times, each);
    } else if (type == DataType::kINT32) {
        fill<std::int32_t>(host, binding.times, each);
    } else {
        fail(DPMRT_ERROR_SHAPE, "the engine's time has a type that is not written here",
             format("type %d", static_cast<int>(type)), "float32, int64 or int32");
    }
    time_ = device::Memory(time_bytes_);
    times_ = device::Memory(host.size());
    device::check(cudaMemcpyAsync(times_.data(), host.data(), host.size(), cudaMemcpyHostToDevice, stream_), "copying the times");
    // The host's copy goes when this returns.
    device::check(cudaStreamSynchronize(stream_), "copying the times");
}

void TensorRT::bind(const device::Binding &binding) {
    stream_ = binding.stream;
    outputs_ = binding.outputs;
    check_type(names_.sample, binding.dtype);
    check_type(names_.out, binding.dtype);
    context_.reset(engine_->createExecutionContext());
    if (!context_) fail(DPMRT_ERROR_ENGINE, "TensorRT makes no context", messages_.take(), {}, "ask for a smaller batch or shape");
    set_shapes(binding);
    std::size_t wanted = sizeof(float) * static_cast<std::size_t>(binding.parts);
    for (const std::size_t side : binding.shape) wanted *= side;
    if (bytes_of(names_.out) != wanted) {
        fail(DPMRT_ERROR_SHAPE, "the engine gives another shape for `" + names_.out + "`",
             format("%zu bytes", bytes_of(names_.out)), format("%zu bytes, %d parts of the state", wanted, binding.parts));
    }
    write_times(binding);
    for (int k = 0; k < engine_->getNbIOTensors(); ++k) {
        const std::string name = engine_->getIOTensorName(k);
        if (name == names_.sample) {
            // TensorRT takes no pointer to what is constant, and does not write to an input.
            set_address(name, const_cast<void *>(binding.input));
        } else if (name == names_.timestep) {
            set_address(name, time_.data());
        } else if (name != names_.out) {
            const bool input = engine_->getTensorIOMode(name.c_str()) == nvinfer1::TensorIOMode::kINPUT;
            device::Memory &memory = (input ? conditions_ : spare_)[name];
            memory = device::Memory(bytes_of(name));
            set_address(name, memory.data());
        }
    }
}

void TensorRT::enqueue(std::size_t call, std::size_t output) {
    const char *now = static_cast<const char *>(times_.data()) + call * time_bytes_;
    device::check(cudaMemcpyAsync(time_.data(), now, time_bytes_, cudaMemcpyDeviceToDevice, stream_), "copying the time");
    set_address(names_.out, outputs_[output]);
    if (!context_->enqueueV3(stream_)) fail(DPMRT_ERROR_ENGINE, "the network failed in TensorRT", messages_.take());
}

void TensorRT::condition(const std::string &input, const void *data, std::size_t bytes) {
    const auto found = conditions_.find(input);
    if (found == conditions_.end()) {
        std::string all;
        for (const auto &one : conditions_) all += (all.empty() ? "" : ", ") + one.first;
        fail(DPMRT_ERROR_ARGUMENT, "the engine has no such input to be conditioned by", input, all.empty() ? "none" : all);
    }
    if (found->second.size() != bytes) {
        fail(DPMRT_ERROR_SHAPE, "`" + input + "` has another size", format("%zu bytes", bytes),
             format("%zu bytes", found->second.size()));
    }
    device::check(cudaMemcpyAsync(found->second.data(), data, bytes, cudaMemcpyHostToDevice, stream_), "copying a condition");
    device::check(cudaStreamSynchronize(stream_), "copying a condition");
}

}  // namespace dpmrt_core
