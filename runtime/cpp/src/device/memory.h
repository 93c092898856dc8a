// Memory, streams and graphs of a CUDA device, released when their owners go.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>

#include "../failure.h"

namespace dpmrt_core::device {

inline void check(cudaError_t result, const char *what) {
    if (result == cudaSuccess) return;
    // CUDA keeps it as the last error of the thread, where the next launch would take it for its own.
    static_cast<void>(cudaGetLastError());
    const bool memory = result == cudaErrorMemoryAllocation;
    throw Failure(memory ? DPMRT_ERROR_MEMORY : DPMRT_ERROR_ENGINE, memory ? "the device's memory is exhausted" : "CUDA failed",
                  format("%s: %s", what, cudaGetErrorString(result)), {},
                  memory ? "ask for a smaller batch or shape, or close what else runs on the GPU" : "");
}

// Zeroed memory of the device.
class Memory {
public:
    Memory() = default;
    explicit Memory(std::size_t bytes) : bytes_(bytes) {
        if (bytes == 0) return;
        check(cudaMalloc(&data_, bytes), "allocating");
        cudaError_t cleared = cudaMemset(data_, 0, bytes);
        // Streams of ours do not wait for the default one, which does the clearing.
        if (cleared == cudaSuccess) cleared = cudaStreamSynchronize(nullptr);
        if (cleared != cudaSuccess) {
            cudaFree(data_);
            check(cleared, "clearing");
        }
    }
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;
    Memory(Memory &&other) noexcept { swap(other); }
    Memory &operator=(Memory &&other) noexcept {
        swap(other);
        return *this;
    }
    ~Memory() {
        if (data_ != nullptr) cudaFree(data_);
    }

    void *data() const { return data_; }
    std::size_t size() const { return bytes_; }

private:
    void swap(Memory &other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
    }

    void *data_ = nullptr;
    std::size_t bytes_ = 0;
};

class Stream {
public:
    Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"); }
    Stream(const Stream &) = delete;
    Stream &operator=(const Stream &) = delete;
    ~Stream() {
        cudaStreamSynchronize(stream_);
        cudaStreamDestroy(stream_);
    }

    cudaStream_t get() const { return stream_; }
    void wait() const { check(cudaStreamSynchronize(stream_), "running"); }

private:
    cudaStream_t stream_ = nullptr;
};

// A trajectory as one CUDA graph. The first run is a plain one: libraries allocate and load kernels then, which a capture
// forbids. The second is captured, and replayed from then on. Where that fails, every run is a plain one.
class Trajectory {
public:
    Trajectory() = default;
    Trajectory(const Trajectory &) = delete;
    Trajectory &operator=(const Trajectory &) = delete;
    ~Trajectory() { forget(); }

    bool captured() const { return graph_ != nullptr; }
    bool refused() const { return refused_; }

    // Runs plainly once more before anything is replayed: the last run failed.
    void forget() {
        if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
        graph_ = nullptr;
        ran_ = false;
    }

    // `work` enqueues all of it on the stream.
    template <class Work>
    void run(const Stream &stream, Work work) {
        if (ran_ && graph_ == nullptr && !refused_) capture(stream, work);
        if (graph_ != nullptr) {
            check(cudaGraphLaunch(graph_, stream.get()), "replaying the trajectory");
        } else {
            work();
        }
        ran_ = true;
    }

private:
    template <class Work>
    void capture(const Stream &stream, Work work) {
        stream.wait();
        cudaGraph_t graph = nullptr;
        bool worked = cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal) == cudaSuccess;
        if (worked) {
            try {
                work();
            } catch (...) {
                // The stream leaves the capture whatever happened, or it could never be used again.
                worked = false;
            }
            worked = cudaStreamEndCapture(stream.get(), &graph) == cudaSuccess && graph != nullptr && worked;
        }
        worked = worked && cudaGraphInstantiateWithFlags(&graph_, graph, 0) == cudaSuccess;
        if (graph != nullptr) cudaGraphDestroy(graph);
        if (worked) return;
        graph_ = nullptr;
        refused_ = true;
        // An error of the capture is no error of what follows.
        static_cast<void>(cudaGetLastError());
    }

    cudaGraphExec_t graph_ = nullptr;
    bool ran_ = false;
    bool refused_ = false;
};

}  // namespace dpmrt_core::device
