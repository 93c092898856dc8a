// What a test sees of the stand-in: work put onto its streams, and a count of what happened.
#pragma once

#include <cstddef>
#include <functional>

#include "cuda_runtime_api.h"

namespace fake {

struct Counts {
    std::size_t allocated = 0;  // held now
    std::size_t waits = 0;
    std::size_t launches = 0;   // of kernels, not of graphs
    std::size_t replays = 0;
};

Counts &counts();
// Whether captures are to fail.
bool &refuses_capture();
void push(cudaStream_t stream, std::function<void()> work);

}  // namespace fake
