// What the C functions of bundles and of conditions share.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "dpmrt/bundle.h"
#include "open.h"

// Paths are kept as texts, so that they can be lent; in the order of the manifest's files.
struct dpmrt_bundle {
    dpmrt_core::OpenBundle open;
    std::vector<std::string> paths;
};

namespace dpmrt_core {

dpmrt_tensor_type tensor_type(const std::string &name);
void check_index(std::size_t index, std::size_t count, const char *name);

}  // namespace dpmrt_core
