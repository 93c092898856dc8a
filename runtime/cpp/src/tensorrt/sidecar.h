// Built engines on disk: `<key>.plan` with `<key>.json`, which says whether the plan may be loaded. engines/built/ is the
// other reader, and its words are these.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "../json.h"

namespace dpmrt_core {

using Shapes = std::map<std::string, std::vector<std::int64_t>>;

// What decides here which engines load.
struct Machine {
    std::string version;  // of TensorRT
    std::string gpu, compute_capability, platform;
};

struct BuiltEngine {
    std::string key, plan;  // the plan's path
    int profile = 0;
};

// The engine in the folder that suits graph, machine and shapes best, its plan held against size and hash. `source` has the
// SHA-256 of graph and weights, by path. Throws Failure, which says of every engine why it does not suit.
BuiltEngine find_engine(const std::string &folder, const std::map<std::string, std::string> &source, const Machine &machine,
                        const Shapes &shapes, const std::string &bundle);

// As Python's json.dumps(sort_keys=True, separators=(",", ":")): what a request's key is the hash of.
std::string canonical(const Json &value);

std::string this_platform();

}  // namespace dpmrt_core
