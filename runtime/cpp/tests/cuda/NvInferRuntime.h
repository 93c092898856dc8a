// A stand-in for TensorRT: the few of its classes that the adapter uses, by their names there. A plan is the text "fake",
// and its network is the one of the tests, for samples of 1x8x8.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda_runtime_api.h"

namespace nvinfer1 {

enum class DataType : std::int32_t { kFLOAT = 0, kHALF = 1, kINT32 = 3, kBF16 = 7, kINT64 = 8 };
enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };

struct Dims {
    std::int32_t nbDims;
    std::int64_t d[8];
};

class ILogger {
public:
    enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2 };
    virtual ~ILogger() = default;
    virtual void log(Severity severity, const char *text) noexcept = 0;
};

class IExecutionContext {
public:
    bool setOptimizationProfileAsync(std::int32_t profile, cudaStream_t stream) noexcept;
    bool setInputShape(const char *name, const Dims &shape) noexcept;
    std::int32_t inferShapes(std::int32_t most, const char **names) noexcept;
    Dims getTensorShape(const char *name) const noexcept;
    bool setTensorAddress(const char *name, void *data) noexcept;
    bool enqueueV3(cudaStream_t stream) noexcept;

private:
    std::int64_t batch_[4] = {-1, -1, -1, -1};
    void *data_[4] = {};
};

class ICudaEngine {
public:
    DataType getTensorDataType(const char *name) const noexcept;
    Dims getTensorShape(const char *name) const noexcept;
    TensorIOMode getTensorIOMode(const char *name) const noexcept;
    std::int32_t getNbIOTensors() const noexcept;
    const char *getIOTensorName(std::int32_t index) const noexcept;
    IExecutionContext *createExecutionContext() noexcept;
};

class IRuntime {
public:
    explicit IRuntime(ILogger &logger) : logger_(logger) {}
    ICudaEngine *deserializeCudaEngine(const void *data, std::size_t size) noexcept;

private:
    ILogger &logger_;
};

IRuntime *createInferRuntime(ILogger &logger) noexcept;

}  // namespace nvinfer1

std::int32_t getInferLibMajorVersion() noexcept;
std::int32_t getInferLibMinorVersion() noexcept;
std::int32_t getInferLibPatchVersion() noexcept;
std::int32_t getInferLibBuildVersion() noexcept;
