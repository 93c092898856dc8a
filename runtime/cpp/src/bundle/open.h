// Opening a bundle's folder: manifest and configs, checked, with no network loaded.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "schema.h"

namespace dpmrt_core {

struct OpenBundle {
    std::string root;
    Manifest manifest;
    std::optional<std::int64_t> classes;
    std::vector<std::int64_t> sample;  // the usual shape of one sample; 0 where a side is not known

    static OpenBundle open(const std::string &root);
};

}  // namespace dpmrt_core
