// Where an ONNX file keeps weights outside itself, read without ONNX's own reader and without reading the weights.
#pragma once

#include <istream>
#include <set>
#include <string>

namespace dpmrt_core {

// What is no ONNX model.
struct OnnxError {
    std::string what;
};

// The `location` of every tensor that is stored elsewhere; throws OnnxError.
std::set<std::string> external_locations(std::istream &stream);

}  // namespace dpmrt_core
