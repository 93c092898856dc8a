#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "fake.h"

struct FakeGraph {
    std::vector<std::function<void()>> work;
};

struct FakeStream {
    std::vector<std::function<void()>> queue;
    FakeGraph *capturing = nullptr;
    bool broken = false;  // the capture met what it forbids
};

namespace {

// Of any stream: allocating is forbidden while one is captured.
std::size_t captures = 0;
FakeStream *captured = nullptr;

// Never destroyed, so that no destructor runs at exit.
std::vector<std::function<void()>> &default_queue() {
    static auto &queue = *new std::vector<std::function<void()>>;
    return queue;
}

// CUDA keeps what failed until it is asked for.
cudaError_t last = cudaSuccess;

cudaError_t kept(cudaError_t error) {
    last = error;
    return error;
}

bool spoils_capture() {
    if (captures == 0) return false;
    captured->broken = true;
    return true;
}

}  // namespace

namespace fake {

Counts &counts() {
    static Counts all;
    return all;
}

bool &refuses_capture() {
    static bool refuses = false;
    return refuses;
}

void push(cudaStream_t stream, std::function<void()> work) {
    auto &to = stream->capturing != nullptr ? stream->capturing->work : stream->queue;
    to.push_back(std::move(work));
}

}  // namespace fake

const char *cudaGetErrorString(cudaError_t error) { return error == cudaErrorMemoryAllocation ? "out of memory" : "an error"; }

cudaError_t cudaGetDevice(int *device) {
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int) {
    *properties = {"Fake H100", 9, 0};
    return cudaSuccess;
}

cudaError_t cudaGetLastError() { return std::exchange(last, cudaSuccess); }

cudaError_t cudaMalloc(void **data, std::size_t bytes) {
    if (spoils_capture()) return kept(cudaErrorStreamCaptureUnsupported);
    const std::size_t most = std::size_t{1} << 32U;
    if (bytes > most) return kept(cudaErrorMemoryAllocation);
    *data = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (*data == nullptr) return kept(cudaErrorMemoryAllocation);
    // What CUDA gives is not cleared.
    std::memset(*data, 0xff, bytes);
    ++fake::counts().allocated;
    return cudaSuccess;
}

cudaError_t cudaFree(void *data) {
    --fake::counts().allocated;
    std::free(data);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *data, int value, std::size_t bytes) {
    // On the default stream: done when that is waited for, and no other stream waits for it.
    default_queue().push_back([=] { std::memset(data, value, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *data, int value, std::size_t bytes, cudaStream_t stream) {
    fake::push(stream, [=] { std::memset(data, value, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    if (kind == cudaMemcpyHostToDevice) {
        // Ordinary memory of the host is put aside when this returns.
        const auto *begin = static_cast<const char *>(from);
        fake::push(stream, [to, bytes, aside = std::vector<char>(begin, begin + bytes)] { std::memcpy(to, aside.data(), bytes); });
    } else {
        fake::push(stream, [=] { std::memcpy(to, from, bytes); });
    }
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    *stream = new FakeStream;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    if (stream == nullptr) {
        for (const auto &work : std::exchange(default_queue(), {})) work();
        return cudaSuccess;
    }
    if (stream->capturing != nullptr) {
        stream->broken = true;
        return kept(cudaErrorStreamCaptureUnsupported);
    }
    ++fake::counts().waits;
    for (const auto &work : std::exchange(stream->queue, {})) work();
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    if (fake::refuses_capture()) return kept(cudaErrorStreamCaptureUnsupported);
    stream->capturing = new FakeGraph;
    stream->broken = false;
    captured = stream;
    ++captures;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    *graph = std::exchange(stream->capturing, nullptr);
    --captures;
    if (!stream->broken) return cudaSuccess;
    delete std::exchange(*graph, nullptr);
    return kept(cudaErrorStreamCaptureUnsupported);
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
    *exec = new FakeGraph(*graph);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return cudaGraphDestroy(exec); }

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    ++fake::counts().replays;
    for (const auto &work : exec->work) fake::push(stream, work);
    return cudaSuccess;
}
