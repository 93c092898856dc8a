#include <algorithm>
#include <cstring>
#include <iterator>

#include "../network.h"
#include "NvInferRuntime.h"
#include "fake.h"

namespace {

using namespace nvinfer1;

const char *const kNames[] = {"sample", "timestep", "class_labels", "out_sample"};
constexpr std::int64_t kSample = 64;

std::size_t index_of(const char *name) {
    const auto *found = std::find_if(std::begin(kNames), std::end(kNames), [name](const char *one) { return std::strcmp(one, name) == 0; });
    return static_cast<std::size_t>(found - std::begin(kNames));
}

Dims shape_of(std::size_t index, std::int64_t batch) {
    if (index == 1 || index == 2) return {1, {batch}};
    return {4, {batch, 1, 8, 8}};
}

}  // namespace

namespace nvinfer1 {

bool IExecutionContext::setOptimizationProfileAsync(std::int32_t profile, cudaStream_t) noexcept { return profile == 0; }

bool IExecutionContext::setInputShape(const char *name, const Dims &shape) noexcept {
    batch_[index_of(name)] = shape.d[0];
    return shape.d[0] <= 8;
}

std::int32_t IExecutionContext::inferShapes(std::int32_t, const char **names) noexcept {
    for (std::size_t k = 0; k < 3; ++k) {
        if (batch_[k] == batch_[0] && batch_[k] > 0) continue;
        *names = kNames[k];
        return 1;
    }
    batch_[3] = batch_[0];
    return 0;
}

Dims IExecutionContext::getTensorShape(const char *name) const noexcept { return shape_of(index_of(name), batch_[index_of(name)]); }

bool IExecutionContext::setTensorAddress(const char *name, void *data) noexcept {
    data_[index_of(name)] = data;
    return data != nullptr;
}

bool IExecutionContext::enqueueV3(cudaStream_t stream) noexcept {
    if (std::find(std::begin(data_), std::end(data_), nullptr) != std::end(data_)) return false;
    const auto *x = static_cast<const float *>(data_[0]), *t = static_cast<const float *>(data_[1]);
    const auto *label = static_cast<const std::int64_t *>(data_[2]);
    auto *out = static_cast<float *>(data_[3]);
    const std::int64_t batch = batch_[0];
    fake::push(stream, [=] {
        for (std::int64_t k = 0; k < batch * kSample; ++k) {
            out[k] = network::first(x[k], static_cast<double>(t[k / kSample])) + static_cast<float>(label[k / kSample]);
        }
    });
    return true;
}

DataType ICudaEngine::getTensorDataType(const char *name) const noexcept {
    return index_of(name) == 2 ? DataType::kINT64 : DataType::kFLOAT;
}

Dims ICudaEngine::getTensorShape(const char *name) const noexcept { return shape_of(index_of(name), -1); }

TensorIOMode ICudaEngine::getTensorIOMode(const char *name) const noexcept {
    return index_of(name) == 3 ? TensorIOMode::kOUTPUT : TensorIOMode::kINPUT;
}

std::int32_t ICudaEngine::getNbIOTensors() const noexcept { return 4; }
const char *ICudaEngine::getIOTensorName(std::int32_t index) const noexcept { return kNames[index]; }
IExecutionContext *ICudaEngine::createExecutionContext() noexcept { return new IExecutionContext; }

ICudaEngine *IRuntime::deserializeCudaEngine(const void *data, std::size_t size) noexcept {
    if (size == 4 && std::memcmp(data, "fake", 4) == 0) return new ICudaEngine;
    logger_.log(ILogger::Severity::kERROR, "magic tag does not match");
    return nullptr;
}

IRuntime *createInferRuntime(ILogger &logger) noexcept { return new IRuntime(logger); }

}  // namespace nvinfer1

std::int32_t getInferLibMajorVersion() noexcept { return 10; }
std::int32_t getInferLibMinorVersion() noexcept { return 3; }
std::int32_t getInferLibPatchVersion() noexcept { return 0; }
std::int32_t getInferLibBuildVersion() noexcept { return 26; }
