// Whether a built engine may run here, for this graph and these shapes; and, field by field, why not.
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "sidecar.h"

namespace dpmrt_core {

// All that `<key>.json` says; a field that it lacks is refused.
struct Sidecar {
    std::string key;
    Json whole;
    const Json &at(std::initializer_list<const char *> path) const;
};

// One field that does not suit: what the engine was built for, and what is here.
std::string misfit(const std::string &field, const std::string &engine, const std::string &here);

std::vector<std::string> misfits(const Sidecar &one, const std::map<std::string, std::string> &source, const Machine &machine);

// The profile that suits the shapes best, with its distance, the sum over all axes of |log2(size / optimum)|; -1 where none
// covers them.
std::pair<int, double> choose_profile(const Sidecar &one, const Shapes &shapes);

}  // namespace dpmrt_core
